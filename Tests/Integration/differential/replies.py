# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Taking replies apart, and saying whether two of them mean the same.

Equality is to the byte but for what no two servers can share, each with its reason:

* CAS ids count a server's own writes: they must correspond one to one within a stream, and 0 stays 0.
* `t`, `l`, `exp=` and `la=` are seconds of a clock that ticks at another moment in the other process: 2 s of slack.
* `t` of an item that was born expired is a negative number that memcached prints unsigned, counted from its own start.
* `me` shows the slab class and the size of memcached's own item header: internals of its allocator.
* `stats` counts processes, connections and uptime: only the counters of commands are compared.
* `metadump` and `mgdump` walk a hash table: the same lines in any order.
"""

import re
import struct

CLOCK_SLACK = 2
NEVER = 0x8000_0000
COUNTERS = {
    b"cmd_get",
    b"cmd_set",
    b"cmd_flush",
    b"cmd_touch",
    b"cmd_meta",
    b"get_hits",
    b"get_misses",
    b"get_expired",
    b"delete_misses",
    b"delete_hits",
    b"incr_misses",
    b"incr_hits",
    b"decr_misses",
    b"decr_hits",
    b"cas_misses",
    b"cas_hits",
    b"cas_badval",
    b"touch_hits",
    b"touch_misses",
    b"store_too_large",
    b"auth_cmds",
    b"auth_errors",
}
DEBUG = re.compile(rb"^(ME .*) exp=(-?\d+) la=(\d+) cas=(\d+) fetch=(yes|no) cls=\d+ size=\d+$", re.S)
DUMP = re.compile(rb"^key=(\S+) exp=(-?\d+) la=(\d+) cas=(\d+) fetch=(yes|no) cls=\d+ size=\d+( flags=\d+)?$")


def records(data):
    """The replies of a text connection as (line, block) pairs; a block is a value with its CRLF."""
    found, at = [], 0
    while at < len(data):
        end = data.find(b"\r\n", at)
        if end < 0:
            found.append((data[at:], None))
            break
        line, at = data[at:end], end + 2
        size = None
        if line.startswith(b"VALUE "):
            parts = line.split(b" ")
            if len(parts) in (4, 5) and parts[3].isdigit():
                size = int(parts[3])
        elif line.startswith(b"VA "):
            size = line.split(b" ")[1]
            size = int(size) if size.isdigit() else None
        if size is None:
            found.append((line, None))
        else:
            found.append((line, data[at : at + size + 2]))
            at += size + 2
    return found


class Correspondence:
    """Which CAS id of A is which of B, built up over one stream; and how much later A replied than B, in seconds."""

    def __init__(self, later=0):
        self.forth, self.back = {0: 0}, {0: 0}
        self.later = later

    def same(self, a, b):
        a, b = int(a), int(b)
        return self.forth.setdefault(a, b) == b and self.back.setdefault(b, a) == a


def same_text(a, b, ids):
    """Whether two text transcripts are the same reply."""
    if a == b:
        return True
    rows_a, rows_b = (interesting(records(data)) for data in (a, b))
    if len(rows_a) != len(rows_b):
        return False
    if any(DUMP.match(line) for line, _ in rows_a):
        rows_a, rows_b = sorted(rows_a), sorted(rows_b)
    return all(same_row(one, other, ids) for one, other in zip(rows_a, rows_b))


def same_row(a, b, ids):
    """Two (line, block) pairs."""
    return a[1] == b[1] and same_line(a[0], b[0], ids)


def interesting(rows):
    """Without the statistics that are the process's own."""
    return [
        row
        for row in rows
        if not row[0].startswith(b"STAT ") or row[0].split(b" ")[1] in COUNTERS or b":" in row[0].split(b" ")[1]
    ]


def same_line(a, b, ids):
    if a == b:
        return True
    if a.startswith(b"VALUE ") and b.startswith(b"VALUE "):
        parts_a, parts_b = a.split(b" "), b.split(b" ")
        return (
            len(parts_a) == len(parts_b) == 5
            and parts_a[:4] == parts_b[:4]
            and parts_a[4].isdigit()
            and parts_b[4].isdigit()
            and ids.same(parts_a[4], parts_b[4])
        )
    if a[:2] == b[:2] and a[:2] in (b"VA", b"HD", b"EX", b"NS", b"NF", b"EN"):
        parts_a, parts_b = a.split(b" "), b.split(b" ")
        return len(parts_a) == len(parts_b) and all(same_flag(x, y, ids) for x, y in zip(parts_a, parts_b))
    if a.startswith(b"ME ") and b.startswith(b"ME "):
        match_a, match_b = DEBUG.match(a), DEBUG.match(b)
        return bool(
            match_a
            and match_b
            and match_a[1] == match_b[1]
            and match_a[5] == match_b[5]
            and near(match_a[2], match_b[2], ids.later)
            and near(match_a[3], match_b[3])
            and ids.same(match_a[4], match_b[4])
        )
    if a.startswith(b"key=") and b.startswith(b"key="):
        match_a, match_b = DUMP.match(a), DUMP.match(b)
        return bool(
            match_a
            and match_b
            and match_a[1] == match_b[1]
            and near(match_a[2], match_b[2], ids.later)
            and ids.same(match_a[4], match_b[4])
        )
    return False


def same_flag(a, b, ids):
    if a == b:
        return True
    if a[:1] != b[:1] or not a[1:].lstrip(b"-").isdigit() or not b[1:].lstrip(b"-").isdigit():
        return False
    if a[:1] == b"t" and int(b[1:]) > NEVER:
        return True
    if a[:1] == b"c":
        return ids.same(a[1:], b[1:])
    return a[:1] in b"tl" and near(a[1:], b[1:], ids.later)


def near(a, b, later=0):
    """Two clock readings of the same moment. -1 means "never" and is near nothing else.

    What remains until an absolute time shrinks by `later` where B's reply was recorded that long ago.
    """
    a, b = int(a), int(b)
    if a == b:
        return True
    return -1 not in (a, b) and (abs(a - b) <= CLOCK_SLACK or abs(a + later - b) <= CLOCK_SLACK + later // 100_000)


HEADER = struct.Struct(">BBHBBHIIQ")


def packets(data):
    """Binary responses as (header fields, body) pairs; a rest that is no packet comes last as raw bytes."""
    found, at = [], 0
    while at + 24 <= len(data) and data[at] == 0x81:
        fields = HEADER.unpack_from(data, at)
        body = data[at + 24 : at + 24 + fields[6]]
        if len(body) < fields[6]:
            break
        found.append((fields, body))
        at += 24 + fields[6]
    if at < len(data):
        found.append((None, data[at:]))
    return found


def same_binary(a, b, ids):
    if a == b:
        return True
    rows_a, rows_b = packets(a), packets(b)
    if len(rows_a) != len(rows_b):
        return False
    return all(same_packet(one, other, ids) for one, other in zip(rows_a, rows_b))


def same_packet(a, b, ids):
    """Two (header fields, body) pairs."""
    (fields_a, body_a), (fields_b, body_b) = a, b
    if body_a != body_b or (fields_a is None) != (fields_b is None):
        return False
    return fields_a is None or (fields_a[:8] == fields_b[:8] and ids.same(fields_a[8], fields_b[8]))


def cas_of(protocol, key, data):
    """The CAS id in the reply to a `gets` or binary get of one key; 0 when it was a miss or an error."""
    if protocol == "binary":
        for fields, _ in packets(data):
            if fields and fields[1] == 0 and fields[5] == 0:
                return fields[8]
        return 0
    for line, block in records(data):
        parts = line.split(b" ")
        if block is not None and len(parts) == 5 and parts[1] == key and parts[4].isdigit():
            return int(parts[4])
    return 0
