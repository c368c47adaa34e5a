# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Every verb against storage, in the three protocols: with the cached copy there, flushed, evicted, and after a crash.

What a client sees is the same in all four states; what storage was asked is told by `stats storage`.
"""

import socket
import struct
import threading
import time

import pytest

from bed import Client, until
from differential import binary
from storage.node import BACKEND, Node

pytestmark = pytest.mark.ours

POOLS = [
    {"prefix": "plain:", "name": "plain", "storage": False},
    {"prefix": "short:", "name": "short", "cacheTTL": "1s"},
    {"prefix": "never:", "name": "never", "negativeTTL": "0s"},
    {"prefix": "quick:", "name": "quick", "negativeTTL": "1s"},
    {"prefix": "small:", "name": "small", "valueLimit": "1KiB"},
    {"prefix": "small:not:", "name": "not small", "valueLimit": "64KiB"},
]
STATES = ["cached", "flushed", "evicted", "crashed"]
serial = iter(range(1, 1 << 30))


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with Node(tmp_path_factory.mktemp("wire"), pools=POOLS, memory=24) as one:
        yield one


@pytest.fixture
def client(node):
    with node.client() as one:
        yield one


@pytest.fixture
def key():
    return f"key{next(serial)}"


@pytest.fixture(params=STATES)
def lose(request, node):
    """A function that takes the cached copies away, one way or another, and returns a client."""
    opened = []

    def act():
        if request.param == "flushed":
            with node.client() as one:
                assert one.ask("flush_all") == "OK"
        elif request.param == "evicted":
            evict(node)
        elif request.param == "crashed":
            if BACKEND == "memory":
                pytest.skip("rows in memory do not survive")
            node.restart()
        opened.append(node.client())
        return opened[-1]

    yield act
    for one in opened:
        one.close()


def evict(node):
    """Overruns the cache from a pool without storage, until nothing of before is left."""
    value = b"e" * 100_000
    with node.client(60) as one:
        for _ in range(3):
            for _ in range(150):
                one.send(b"set plain:fill%d 0 0 %d noreply\r\n%s\r\n" % (next(serial), len(value), value))
            assert one.ask("mn") == "MN"
        assert int(one.stats()["evictions"]) > 0


def full(client, key):
    """(value, flags, version, seconds left) by mg, or None."""
    line = client.ask(f"mg {key} v f c t")
    if not line.startswith("VA"):
        assert line == "EN"
        return None
    words = line.split()
    value = client.read(int(words[1]) + 2)[:-2]
    fields = {word[0]: int(word[1:]) for word in words[2:]}
    return value, fields["f"], fields["c"], fields["t"]


def meta_set(client, key, value, flags=""):
    client.send(b"ms %s %d %s\r\n%s\r\n" % (key.encode(), len(value), flags.encode(), value))
    return client.line()


class Binary:
    """The binary protocol, one packet at a time: (status, cas, extras, key, value)."""

    def __init__(self, client):
        self.client = client

    def ask(self, opcode, *arguments, **more):
        self.client.send(binary.packet(opcode, *arguments, **more))
        return self.reply()

    def reply(self):
        head = binary.HEADER.unpack(self.client.read(24))
        body = self.client.read(head[6]) if head[6] else b""
        assert head[0] == 0x81
        extras, key = body[: head[3]], body[head[3] : head[3] + head[2]]
        return head[5], head[8], extras, key, body[head[3] + head[2] :]


OK, NOT_FOUND, EXISTS, NOT_STORED, NOT_NUMERIC = 0, 1, 2, 5, 6


class TestClassic:
    def test_reads(self, client, key, lose):
        assert client.set(key, b"value", flags=77) == "STORED"
        _, _, version, _ = full(client, key)
        client = lose()
        assert client.get(key) == b"value"
        client = lose()
        client.send(f"gets {key}\r\n")
        assert [client.line() for _ in range(3)] == [f"VALUE {key} 77 5 {version}", "value", "END"]

    def test_stores_look_at_storage(self, client, key, lose):
        client.set(key, b"b", flags=5)
        client = lose()
        assert client.set(key, b"no", verb="add") == "NOT_STORED"
        client = lose()
        assert client.set(key, b"c", flags=9, verb="append") == "STORED"
        client = lose()
        assert client.set(key, b"a", flags=9, verb="prepend") == "STORED"
        client = lose()
        assert full(client, key)[:2] == (b"abc", 5)
        client = lose()
        assert client.set(key, b"new", flags=6, verb="replace") == "STORED"
        client = lose()
        assert full(client, key)[:2] == (b"new", 6)

    def test_stores_without_a_row(self, client, key, lose):
        client.set(key, b"gone")
        client.ask(f"delete {key}")
        client = lose()
        for verb in ("replace", "append", "prepend"):
            assert client.set(key, b"x", verb=verb) == "NOT_STORED"
        client.send(f"cas {key} 0 0 1 5\r\nx\r\n")
        assert client.line() == "NOT_FOUND"
        assert client.ask(f"incr {key} 1") == "NOT_FOUND"
        assert client.ask(f"decr {key} 1") == "NOT_FOUND"
        assert client.ask(f"touch {key} 10") == "NOT_FOUND"
        assert client.ask(f"delete {key}") == "NOT_FOUND"
        client.send(f"gat 10 {key}\r\n")
        assert client.line() == "END"
        assert client.get(key) is None
        assert client.set(key, b"x", verb="add") == "STORED"
        client = lose()
        assert client.get(key) == b"x"

    def test_cas(self, client, key, lose):
        client.set(key, b"one")
        old = full(client, key)[2]
        client.set(key, b"two")
        client = lose()
        client.send(f"cas {key} 0 0 1 {old}\r\nx\r\n")
        assert client.line() == "EXISTS"
        version = full(client, key)[2]
        assert version > old
        client = lose()
        client.send(f"cas {key} 0 0 5 {version}\r\nthree\r\n")
        assert client.line() == "STORED"
        client = lose()
        value, _, newest, _ = full(client, key)
        assert value == b"three"
        assert newest > version

    def test_counting(self, client, key, lose):
        client.set(key, b"98", flags=3)
        client = lose()
        assert client.ask(f"incr {key} 5") == "103"
        client = lose()
        assert client.ask(f"decr {key} 4") == "99"
        client = lose()
        assert full(client, key)[:2] == (b"99 ", 3)
        assert client.ask(f"decr {key} 1000") == "0"
        client.set(key, b"text")
        client = lose()
        assert client.ask(f"incr {key} 1") == "CLIENT_ERROR cannot increment or decrement non-numeric value"

    def test_times_to_live(self, client, key, lose):
        client.set(key, b"v", exptime=1000)
        client = lose()
        assert 990 <= full(client, key)[3] <= 1001
        client = lose()
        assert client.ask(f"touch {key} 5000") == "TOUCHED"
        client = lose()
        value, _, version, left = full(client, key)
        assert value == b"v"
        assert 4990 <= left <= 5001
        client = lose()
        client.send(f"gats 9000 {key}\r\n")
        head = client.line().split()
        assert [client.line(), client.line()] == ["v", "END"]
        assert int(head[4]) > version, "gat is a write: its version is new"
        client = lose()
        _, _, newest, left = full(client, key)
        assert newest == int(head[4])
        assert 8990 <= left <= 9001
        assert client.ask(f"touch {key} 0") == "TOUCHED"
        client = lose()
        assert full(client, key)[3] == -1

    def test_what_expired_is_gone_everywhere(self, client, key, lose):
        client.set(key, b"v", exptime=1)
        client.set(key + "x", b"v", exptime=-1)
        assert client.get(key + "x") is None
        client = lose()
        time.sleep(3.2)
        assert client.get(key) is None
        assert client.ask(f"touch {key} 10") == "NOT_FOUND"
        assert client.set(key, b"w", verb="add") == "STORED"

    def test_delete(self, client, key, lose):
        client.set(key, b"v")
        client = lose()
        assert client.ask(f"delete {key}") == "DELETED"
        client = lose()
        assert client.get(key) is None
        assert client.ask(f"delete {key}") == "NOT_FOUND"

    def test_without_replies(self, client, key, lose):
        """noreply and a close right behind it: the writes are as durable as those with a reply."""
        client.send(f"set {key} 4 0 1 noreply\r\n5\r\nincr {key} 7 noreply\r\nappend {key} 0 0 1 noreply\r\n0\r\n")
        client.send(f"set {key}t 0 0 1 noreply\r\nt\r\ntouch {key}t 500 noreply\r\nset {key}d 0 0 1 noreply\r\nd\r\n")
        client.send(f"delete {key}d noreply\r\nset {key}last 0 0 1 noreply\r\nl\r\n")
        assert client.ask("mn") == "MN"
        client.close()
        client = lose()
        assert full(client, key)[:2] == (b"120", 4)
        assert full(client, key + "t")[3] in range(490, 502)
        assert full(client, key + "d") is None
        assert full(client, key + "last")[0] == b"l"

    def test_versions_grow_over_delete_and_new_life(self, client, key, lose):
        seen = []
        for number in range(3):
            client.set(key, b"%d" % number)
            seen.append(full(client, key)[2])
            client.ask(f"delete {key}")
            client = lose()
        assert seen == sorted(set(seen))


class TestMeta:
    def test_modes(self, client, key, lose):
        assert meta_set(client, key, b"b", "F5 ME c").startswith("HD c")
        client = lose()
        assert meta_set(client, key, b"x", "ME").split()[0] == "NS"
        assert meta_set(client, key, b"c", "MA c").startswith("HD c")
        client = lose()
        assert meta_set(client, key, b"a", "MP") == "HD"
        client = lose()
        assert full(client, key)[:2] == (b"abc", 5)
        assert meta_set(client, key, b"r", "MR F6") == "HD"
        client = lose()
        assert full(client, key)[:2] == (b"r", 6)
        assert meta_set(client, key + "n", b"x", "MR").split()[0] == "NS"
        assert meta_set(client, key + "n", b"x", "MA").split()[0] == "NS"
        assert meta_set(client, key + "n", b"x", "MA N500") == "HD"
        client = lose()
        value, _, _, left = full(client, key + "n")
        assert value == b"x"
        assert 490 <= left <= 501

    def test_the_version_of_a_reply_is_the_one_that_stays(self, client, key, lose):
        version = int(meta_set(client, key, b"v", "c").removeprefix("HD c"))
        client = lose()
        assert full(client, key)[2] == version
        client = lose()
        assert client.ask(f"mg {key} c") == f"HD c{version}"
        # Each crash may move the clock on to the mark that was set before; it never goes back.
        ahead = (version >> 16) - time.time() * 1000
        assert -1000 < ahead < 3_600_000, "a hybrid logical clock's milliseconds"

    def test_compare(self, client, key, lose):
        version = int(meta_set(client, key, b"v", "c").removeprefix("HD c"))
        client = lose()
        assert meta_set(client, key, b"w", f"C{version + 1}").split()[0] == "EX"
        assert meta_set(client, key, b"w", f"C{version}") == "HD"
        client = lose()
        assert client.ask(f"md {key} C{version}") == "EX"
        version = full(client, key)[2]
        assert client.ask(f"md {key} C{version}") == "HD"
        client = lose()
        assert meta_set(client, key, b"w", f"C{version}").split()[0] == "NF"
        assert client.ask(f"md {key}") == "NF"

    def test_arithmetic(self, client, key, lose):
        assert client.ask(f"ma {key}") == "NF"
        client.send(f"ma {key} N600 J40 v\r\n")
        assert [client.line(), client.line()] == ["VA 2", "40"]
        client = lose()
        client.send(f"ma {key} D2 v c t\r\n")
        head = client.line().split()
        assert head[:2] == ["VA", "2"]
        assert client.line() == "42"
        assert any(590 <= int(word[1:]) <= 601 for word in head if word[0] == "t")
        version = next(int(word[1:]) for word in head if word[0] == "c")
        client = lose()
        assert full(client, key)[2] == version
        client.send(f"ma {key} MD D50 v T0\r\n")
        assert client.line().startswith("VA")
        assert client.line() == "0"
        client = lose()
        value, _, _, left = full(client, key)
        assert (value, left) == (b"0 ", -1)

    def test_times_to_live_of_counters_are_shown_as_in_memcached(self, client, key, lose):
        """`t` shows what there was, and what T and N before it have set; of both, the last holds."""
        def shows(flags, name, expected):
            reply = client.ask(f"ma {key}{name} {flags}")
            assert reply.startswith("HD t"), reply
            # Losing copies takes seconds on a busy machine.
            assert expected - 14 * (expected > 0) <= int(reply[4:]) <= expected + (expected > 0), (flags, reply)

        cases = [
            ("a", "N60 t", 60, 60), ("b", "t N60", -1, 60), ("c", "t N60 T30", -1, 30), ("d", "N60 T30 t", 30, 30),
            ("e", "T30 t N60", 30, 60), ("f", "T30 N60 t", 60, 60), ("g", "N0 t", -1, -1), ("i", "T0 N60 t", 60, 60),
        ]  # fmt: skip
        for name, flags, first, _ in cases:
            shows(flags, name, first)
        client.ask(f"ma {key}x N400")
        client = lose()
        for name, _, _, then in cases:
            shows("t", name, then)
        # Of a counter that is there, N makes nothing.
        shows("t T500", "x", 400)
        shows("T700 t", "x", 700)
        shows("N5 t", "x", 700)
        client = lose()
        shows("t T0", "x", 700)
        shows("t", "x", -1)

    def test_touch_and_get(self, client, key, lose):
        meta_set(client, key, b"v", "F9")
        client = lose()
        client.send(f"mg {key} v f t T700\r\n")
        head = client.line().split()
        assert head[:3] == ["VA", "1", "f9"]
        assert client.line() == "v"
        client = lose()
        assert 690 <= full(client, key)[3] <= 701

    def test_fields_of_a_reply(self, client, key, lose):
        meta_set(client, key, b"value", "F8")
        client = lose()
        client.send(f"mg {key} k O123 s v\r\n")
        assert [client.line(), client.line()] == [f"VA 5 k{key} O123 s5", "value"]
        client = lose()
        assert client.ask(f"mg {key}") == "HD"
        assert client.ask(f"mg {key}none k O5") in ("EN", f"EN k{key}none O5")

    def test_quiet_forms(self, client, key, lose):
        client.send(f"ms {key} 1 q\r\nv\r\nma {key}n q N0 J5\r\nms {key}d 1 q\r\nd\r\nmd {key}d q\r\nmn\r\n")
        assert client.line() == "MN"
        client = lose()
        client.send(f"mg {key}d q v\r\nmg {key} q v k\r\nmg {key}none v q\r\nmg {key}n q v\r\nmn\r\n")
        assert [client.line() for _ in range(5)] == [f"VA 1 k{key}", "v", "VA 1", "5", "MN"]

    def test_base64_keys(self, client, lose):
        text = "a2V5IHdpdGggc3BhY2U0"  # "key with space4"
        assert meta_set(client, text, b"v", "b") == "HD"
        client = lose()
        client.send(f"mg {text} b v k\r\n")
        assert [client.line(), client.line()] == [f"VA 1 k{text} b", "v"]
        assert client.ask(f"md {text} b") == "HD"

    def test_dropped_value_is_a_write(self, client, key, lose):
        meta_set(client, key, b"value", "F3")
        before = full(client, key)[2]
        assert client.ask(f"md {key} x") == "HD"
        client = lose()
        value, _, version, _ = full(client, key)
        assert value == b""
        assert version > before

    def test_versions_of_clients_are_refused(self, client, key):
        for command in (f"ms {key} 1 E5\r\nv", f"md {key} E5", f"ma {key} N0 E5", f"mg {key} N5 E5 v"):
            assert client.ask(command).startswith("CLIENT_ERROR"), command
            assert client.ask("mn") == "MN"
        assert client.get(key) is None

    def test_a_placeholder_is_no_row(self, client, key, lose):
        """A lease on a key that storage does not have: others are told to wait, and nothing is there for the rest."""
        assert "W" in client.ask(f"mg {key} N30 c").split()
        assert "Z" in client.ask(f"mg {key} N30 c").split()
        assert client.get(key) is None
        assert client.set(key, b"x", verb="replace") == "NOT_STORED"
        client = lose()
        assert client.get(key) is None
        assert client.set(key, b"x", verb="add") == "STORED"
        client = lose()
        assert client.get(key) == b"x"

    def test_a_delete_voids_a_lease(self, client, key):
        assert "W" in client.ask(f"mg {key} N30 c").split()
        assert "Z" in client.ask(f"mg {key} N30 c").split()
        assert client.ask(f"md {key}") in ("HD", "NF")
        assert "W" in client.ask(f"mg {key} N30 c").split()

    def test_marking_stale_leaves_the_row_alone(self, client, key):
        version = int(meta_set(client, key, b"v", "c").removeprefix("HD c"))
        assert client.ask(f"md {key} I T30") == "HD"
        client.ask("flush_all")
        assert full(client, key)[::2] == (b"v", version)


class TestBinary:
    def test_stores_and_reads(self, client, key, lose):
        key = key.encode()
        status, version, *_ = Binary(client).ask(binary.SET, key, b"value", struct.pack(">II", 0xABCD, 0))
        assert status == OK
        assert version > 0
        client = lose()
        assert Binary(client).ask(binary.GET, key) == (OK, version, struct.pack(">I", 0xABCD), b"", b"value")
        client = lose()
        assert Binary(client).ask(binary.GETK, key) == (OK, version, struct.pack(">I", 0xABCD), key, b"value")
        assert Binary(client).ask(binary.ADD, key, b"x", bytes(8))[0] == EXISTS
        client = lose()
        assert Binary(client).ask(binary.APPEND, key, b"+")[0] == OK
        assert Binary(client).ask(binary.PREPEND, key, b"-")[0] == OK
        client = lose()
        assert Binary(client).ask(binary.GET, key)[4] == b"-value+"
        assert Binary(client).ask(binary.SET, key, b"x", bytes(8), cas=version)[0] == EXISTS
        version = Binary(client).ask(binary.GET, key)[1]
        client = lose()
        assert Binary(client).ask(binary.REPLACE, key, b"y", bytes(8), cas=version)[0] == OK
        client = lose()
        assert Binary(client).ask(binary.DELETE, key, cas=version)[0] == EXISTS
        assert Binary(client).ask(binary.DELETE, key)[0] == OK
        client = lose()
        for opcode, extras in ((binary.GET, b""), (binary.DELETE, b""), (binary.REPLACE, bytes(8))):
            assert Binary(client).ask(opcode, key, b"z" if extras else b"", extras)[0] == NOT_FOUND
        assert Binary(client).ask(binary.APPEND, key, b"z")[0] == NOT_STORED

    def test_counts_and_touches(self, client, key, lose):
        key = key.encode()
        never = struct.pack(">QQI", 1, 0, 0xFFFF_FFFF)
        assert Binary(client).ask(binary.INCREMENT, key, b"", never)[0] == NOT_FOUND
        status, version, _, _, value = Binary(client).ask(binary.INCREMENT, key, b"", struct.pack(">QQI", 1, 50, 800))
        assert (status, value) == (OK, struct.pack(">Q", 50))
        client = lose()
        assert full(client2(client), key.decode())[2] == version
        status, *_, value = Binary(client).ask(binary.DECREMENT, key, b"", struct.pack(">QQI", 8, 0, 0))
        assert (status, value) == (OK, struct.pack(">Q", 42))
        client = lose()
        assert Binary(client).ask(binary.TOUCH, key, b"", struct.pack(">I", 900))[0] == OK
        client = lose()
        status, version, extras, _, value = Binary(client).ask(binary.GAT, key, b"", struct.pack(">I", 1000))
        assert (status, extras, value) == (OK, bytes(4), b"42")
        client = lose()
        _, _, seen, left = full(client2(client), key.decode())
        assert seen == version
        assert 990 <= left <= 1001

    def test_quiet_forms_and_order(self, client, key, lose):
        key = key.encode()
        client.send(binary.packet(binary.SETQ, key, b"1", bytes(8)))
        client.send(binary.packet(binary.SETQ, key + b"b", b"2", bytes(8)))
        client.send(binary.packet(binary.APPENDQ, key, b"0") + binary.packet(binary.NOOP, opaque=9))
        assert Binary(client).reply()[0] == OK
        client = lose()
        names = (key + b"none", key + b"b", key, key + b"no")
        client.send(b"".join(binary.packet(binary.GETKQ, name) for name in names))
        client.send(binary.packet(binary.NOOP))
        replies = [Binary(client).reply() for _ in range(3)]
        assert [(reply[3], reply[4]) for reply in replies] == [(key + b"b", b"2"), (key, b"10"), (b"", b"")]


def client2(client):
    """A text connection to where this one goes."""
    return Client(socket.create_connection(client.socket.getpeername(), 10))


class TestReadThrough:
    def test_a_row_is_read_once_and_then_cached(self, node, client, key):
        client.set(key, b"v")
        client.ask("flush_all")
        before = node.statistics()
        for _ in range(5):
            assert client.get(key) == b"v"
        after = node.statistics()
        assert after["reads_sent"] - before["reads_sent"] == 1
        assert after["fills"] - before["fills"] == 1

    def test_flush_all_does_not_touch_storage(self, node, client, key):
        client.set(key, b"v")
        client.ask("flush_all")
        client.ask("flush_all 0")
        assert client.get(key) == b"v"
        assert client.ask("flush_all noreply\r\nmn") == "MN"
        assert client.get(key) == b"v"
        assert Binary(client2(client)).ask(binary.FLUSH)[0] == OK
        assert client.get(key) == b"v"

    def test_not_there_is_cached_too(self, node, client, key):
        before = node.statistics()
        for _ in range(5):
            assert client.get(key) is None
        after = node.statistics()
        assert after["reads_sent"] - before["reads_sent"] == 1
        assert after["negative_fills"] - before["negative_fills"] == 1
        assert after["negative_hits"] - before["negative_hits"] == 4
        assert client.ask(f"mg {key}") == "EN" and Binary(client2(client)).ask(binary.GET, key.encode())[0] != OK
        assert node.statistics()["negative_hits"] - before["negative_hits"] == 6
        assert client.set(key, b"v", verb="add") == "STORED"
        assert client.get(key) == b"v", "a write takes the place of what is known not to be there"

    def test_not_there_is_forgotten_when_its_time_is_over(self, node, client, key):
        for attempt in range(5):
            key = f"quick:{key}{attempt}"
            before = node.statistics()["reads_sent"]
            assert client.get(key) is None
            assert client.get(key) is None
            if node.statistics()["reads_sent"] - before == 1:
                break  # else a second of the clock ended between the two
        assert node.statistics()["reads_sent"] - before == 1
        time.sleep(2.1)
        assert client.get(key) is None
        assert node.statistics()["reads_sent"] - before == 2

    def test_not_there_is_not_cached_where_the_pool_says_so(self, node, client, key):
        before = node.statistics()["reads_sent"]
        for _ in range(4):
            assert client.get("never:" + key) is None
        assert node.statistics()["reads_sent"] - before == 4

    def test_negative_copies_do_not_push_out_values(self, node, client, key):
        client.set(key, b"v")
        client.send(b"".join(b"get %s.%d\r\n" % (key.encode(), number) for number in range(2000)))
        assert [client.line() for _ in range(2000)] == ["END"] * 2000
        before = node.statistics()["reads_sent"]
        assert client.get(key) == b"v"
        assert node.statistics()["reads_sent"] == before

    def test_statistics_of_gets_count_what_the_client_saw(self, client, key):
        client.set(key, b"v")
        client.ask("flush_all")
        before = client.stats()
        client.get(key)
        client.get(key)
        client.get(key + "none")
        after = client.stats()
        assert int(after["cmd_get"]) - int(before["cmd_get"]) == 3

    def test_statistics_are_those_of_a_plain_cache(self, client, start):
        """What clients did counts the same with storage and without."""
        commands = ["get {0}none", "get {0}", "gets {0}", "touch {0} 50", "touch {0}none 50", "mg {0} v"]
        commands += ["mg {0}none v", "gat 50 {0}", "gat 50 {0}none", "incr {0} 1", "incr {0}none 1", "decr {0} 1"]
        commands += ["delete {0}none", "set {0}a 0 0 1\r\n1"]
        commands += ["cas {0} 0 0 1 1\r\n1", "cas {0}none 0 0 1 1\r\n1", "delete {0}"]
        verbs = ("get", "touch", "delete", "incr", "decr", "cas")
        names = [f"{verb}_{what}" for verb in verbs for what in ("hits", "misses")]
        names += ["cmd_get", "cmd_set", "cmd_touch", "cas_badval"]
        plain = start("-m 64").client()
        seen = []
        for one in (client, plain):
            key = f"key{next(serial)}"
            for name in ("", "none"):
                one.ask(f"delete {key}{name}")
            one.set(key, b"5")
            for command in commands:
                before = one.stats()
                one.send(command.format(key) + "\r\nmn\r\n")
                while one.line() != "MN":
                    pass
                after = one.stats()
                changes = {name: int(after[name]) - int(before[name]) for name in names if after[name] != before[name]}
                seen.append((command, changes))
        half = len(commands)
        assert seen[:half] == seen[half:]


class TestPools:
    def test_a_pool_without_storage_is_a_plain_cache(self, node, client, key):
        key = "plain:" + key
        before = node.statistics()
        assert client.set(key, b"v") == "STORED"
        assert client.get(key) == b"v"
        assert client.ask(f"touch {key} 0") == "TOUCHED"
        assert client.get(key + "none") is None
        client.ask("flush_all")
        assert client.get(key) is None
        assert client.set(key, b"v", verb="add") == "STORED"
        assert client.ask(f"ms {key} 1 E5\r\nv") == "HD", "versions are the client's to give there"
        after = node.statistics()
        assert (after["reads"], after["writes"]) == (before["reads"], before["writes"])

    def test_a_copy_gets_no_older_than_its_pool_allows(self, node, client, key):
        key = "short:" + key
        client.set(key, b"v", exptime=500)
        before = node.statistics()["reads_sent"]
        time.sleep(2.1)
        assert client.get(key) == b"v"
        assert node.statistics()["reads_sent"] - before == 1
        assert 490 <= full(client, key)[3] <= 501, "the row's time to live, not the copy's"

    def test_values_up_to_the_pools_limit(self, client, key):
        assert client.set("small:" + key, b"x" * 1024) == "STORED"
        assert client.set("small:" + key, b"y" * 1025) == "SERVER_ERROR object too large for cache"
        assert client.set("small:" + key, b"z", verb="append") == "NOT_STORED"
        assert client.get("small:" + key) == b"x" * 1024
        client.ask("flush_all")
        assert client.get("small:" + key) == b"x" * 1024, "a refused write changes nothing"

    def test_the_longest_prefix_counts(self, client, key):
        assert client.set("small:not:" + key, b"x" * 5000) == "STORED"
        assert client.set("smal" + key, b"x" * 5000) == "STORED"

    def test_multigets_over_pools(self, client, key):
        names = [f"{prefix}{key}{n}" for n in range(3) for prefix in ("", "plain:", "short:", "never:")]
        for name in names[::2]:
            client.set(name, name.encode())
        client.ask("flush_all")
        for name in names[1::4]:
            client.set(name, name.encode())
        expected = [name for name in names if name in names[1::4] or (name in names[::2] and "plain:" not in name)]
        client.send(f"get {' '.join(names)}\r\n")
        seen = []
        while (line := client.line()) != "END":
            seen.append(line.split()[1])
            assert client.line() == seen[-1]
        assert seen == expected


class TestOrder:
    def test_a_get_behind_a_write_sees_it(self, client, key):
        for number in range(300):
            value = b"%d" % number
            client.send(b"set %s 0 0 %d noreply\r\n%s\r\nget %s\r\n" % (key.encode(), len(value), value, key.encode()))
            seen = [client.line() for _ in range(3)]
            assert seen == [f"VALUE {key} 0 {len(value)}", value.decode(), "END"]

    def test_marking_stale_waits_for_the_write_before_it(self, client, key):
        for number in range(20):
            client.send(f"ms {key}{number} 2\r\nb8\r\nmd {key}{number} I T30\r\n")
            assert [client.line(), client.line()] == ["HD", "HD"]
            client.send(f"mg {key}{number} v\r\n")
            assert set(client.line().split()) == {"VA", "2", "W", "X"}
            assert client.line() == "b8"

    def test_a_long_pipeline_on_one_key(self, client, key):
        """Each reply is that of its place: as if each command waited for the one before."""
        parts, expected = [], []
        for number in range(1000):
            parts.append(f"set {key} 0 0 {len(str(number))}\r\n{number}\r\nincr {key} 1\r\nget {key}\r\n")
            expected += ["STORED", str(number + 1), f"VALUE {key} 0 {len(str(number + 1))}", str(number + 1), "END"]
            if number % 3 == 0:
                parts.append(f"delete {key}\r\nget {key}\r\nadd {key} 0 0 1\r\nx\r\n")
                expected += ["DELETED", "END", "STORED"]
        sender = threading.Thread(target=client.send, args=("".join(parts),))
        sender.start()
        seen = [client.line() for _ in expected]
        sender.join()
        assert seen == expected

    def test_replies_keep_their_order_over_hits_and_misses(self, client, key):
        for number in range(0, 200, 2):
            client.send(f"set {key}{number} 0 0 1 noreply\r\nv\r\n")
        client.ask("mn")
        client.ask("flush_all")
        client.get(f"{key}100")
        parts, expected = [], []
        for number in range(200):
            parts.append(f"get {key}{number}\r\n" if number % 3 else f"mg {key}{number} s\r\n")
            if number % 3:
                expected += [f"VALUE {key}{number} 0 1", "v", "END"] if number % 2 == 0 else ["END"]
            else:
                expected.append("HD s1" if number % 2 == 0 else "EN")
            if number % 50 == 7:
                parts.append("mn\r\nbad command\r\nversion\r\n")
                expected += ["MN", "ERROR", "VERSION 1.6.45"]
        client.send("".join(parts))
        assert [client.line() for _ in expected] == expected

    def test_a_multiget_of_a_thousand_missing_keys(self, node, client, key):
        before = node.statistics()
        client.send(f"get {' '.join(f'{key}.{number}' for number in range(1000))}\r\n")
        assert client.line() == "END"
        assert node.statistics()["reads_sent"] - before["reads_sent"] == 1000
        assert client.ask("mn") == "MN"

    def test_a_multiget_keeps_the_order_of_its_keys(self, client, key):
        names = [f"{key}.{number}" for number in range(500)]
        for name in names[::3]:
            client.send(f"set {name} 0 0 {len(name)} noreply\r\n{name}\r\n")
        client.ask("mn")
        client.ask("flush_all")
        for name in names[::6]:
            client.get(name)
        client.send(f"gets {' '.join(names + names[:9])}\r\n")
        seen = []
        while (line := client.line()) != "END":
            seen.append(line.split()[1])
            assert client.line() == seen[-1]
        assert seen == names[::3] + names[:9:3]

    def test_connections_are_answered_whoever_reads_first(self, node, key):
        """Which connection's replies are read first makes no difference to the others."""
        clients = [node.client() for _ in range(20)]
        for number, one in enumerate(clients):
            one.send(b"".join(b"set %s%d.%d 0 0 1\r\nv\r\n" % (key.encode(), number, n) for n in range(50)))
        for one in reversed(clients):
            assert [one.line() for _ in range(50)] == ["STORED"] * 50
            one.close()

    def test_quit_flushes_what_is_due(self, client, key):
        client.send(f"set {key} 0 0 1\r\nv\r\nset {key}b 0 0 1\r\nw\r\nget {key}none\r\nquit\r\n")
        assert client.until_closed() == b"STORED\r\nSTORED\r\nEND\r\n"

    def test_a_half_closed_connection_gets_its_replies(self, client, key):
        client.send(f"set {key} 0 0 1\r\nv\r\nget {key}none\r\nget {key}\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.until_closed() == f"STORED\r\nEND\r\nVALUE {key} 0 1\r\nv\r\nEND\r\n".encode()

    def test_writes_of_a_connection_that_is_gone_are_done(self, node, key):
        for number in range(50):
            with node.client() as one:
                one.send(f"set {key}{number} 0 0 1 noreply\r\nv\r\n")
        deadline = time.monotonic() + 10
        with node.client() as one:
            one.ask("flush_all")
            while any(one.get(f"{key}{number}") is None for number in range(50)):
                assert time.monotonic() < deadline
                time.sleep(0.1)
                one.ask("flush_all")

    def test_a_slot_that_is_reused_does_not_get_foreign_replies(self, node, key):
        """Connections that leave while their replies wait; others take their places at once."""
        for number in range(300):
            with node.client() as one:
                one.send(f"set {key}{number} 0 0 6\r\nforget\r\nget {key}{number}none\r\n")
            with node.client() as two:
                assert two.ask("mn") == "MN"
                assert two.get(f"{key}other") is None


class TestLarge:
    def test_both_ways(self, client, key, lose):
        value = bytes(range(256)) * ((1 << 20) // 256 - 2)
        assert client.set(key, value, flags=1) == "STORED"
        assert client.get(key) == value
        client = lose()
        assert client.get(key) == value
        assert client.set(key, b"!", verb="append") == "STORED"
        client = lose()
        assert client.get(key) == value + b"!"
        assert client.set(key, bytes(1 << 20)) == "SERVER_ERROR object too large for cache"

    def test_keys_of_no_pool_are_bounded_by_the_largest_item_alone(self, tmp_path):
        """1 GiB is the limit of a pool that was told nothing, named or not: `-I` decides."""
        value = bytes(range(256)) * (2 << 12)
        with Node(tmp_path, pools=[{"prefix": "named:"}], flags=["-I", "8m"]) as node, node.client(30) as client:
            for key in ("named:big", "other:big"):
                assert client.set(key, value) == "STORED"
                client.ask("flush_all")
                assert client.get(key) == value
                assert client.set(key, b"!", verb="append") == "STORED"
                assert client.get(key) == value + b"!"
                assert client.set(key, bytes(8 << 20)) == "SERVER_ERROR object too large for cache"

    def test_many_at_once(self, client, key):
        value = b"L" * 900_000
        for number in range(24):
            client.send(b"set %s%d 0 0 %d noreply\r\n%s\r\n" % (key.encode(), number, len(value), value))
        assert client.ask("mn") == "MN"
        client.ask("flush_all")
        client.send(f"get {' '.join(f'{key}{number}' for number in range(24))}\r\n")
        for number in range(24):
            assert client.line() == f"VALUE {key}{number} 0 {len(value)}"
            assert client.read(len(value) + 2)[:-2] == value
        assert client.line() == "END"

    def test_a_reader_that_does_not_read_stays_bounded(self, node, key):
        """Replies that wait for storage and then for a client are held back at a limit, or the client is closed."""
        value = b"S" * 200_000
        with node.client(60) as one:
            for number in range(8):
                assert one.set(f"{key}{number}", value) == "STORED"
            one.ask("flush_all")
        before = node.server.rss()
        slow = node.client(60)
        names = b" ".join(b"%s%d" % (key.encode(), number) for number in range(8))
        slow.socket.setblocking(False)
        sent, deadline = 0, time.monotonic() + 6
        request = b"get " + names + b"\r\n"
        while sent < 3000 and time.monotonic() < deadline:
            try:
                slow.socket.send(request)
                sent += 1
            except BlockingIOError:
                time.sleep(0.02)
            except (BrokenPipeError, ConnectionResetError):
                break
        time.sleep(0.5)
        assert node.server.alive()
        grown = node.server.rss() - before
        assert grown < 300 << 20, f"{grown >> 20} MiB for {sent} requests of one client"
        with node.client() as one:
            assert one.get(f"{key}0") == value
        slow.close()


def test_statistics_and_metrics(tmp_path):
    with Node(tmp_path, admin=True) as node, node.client() as client:
        client.set("k", b"v")
        client.ask("flush_all")
        client.get("k")
        # Writes need every session with the store, and one was enough so far.
        until(lambda: node.statistics()["storage_health"] == "ready", what="every session with the store")
        rows = node.statistics()
        assert rows["storage_backend"] == BACKEND
        status, text = node.get("/metrics")
        assert status == 200
        metrics = dict(row.rsplit(" ", 1) for row in text.splitlines() if row.startswith("martlet_storage_"))
        assert float(metrics["martlet_storage_up"]) == 1
        assert float(metrics["martlet_storage_reads_sent_total"]) == rows["reads_sent"] == 1
        assert float(metrics["martlet_storage_writes_total"]) == rows["writes"] == 1
        assert node.get("/readyz")[0] == 200


def test_without_storage_nothing_changes(start):
    with start("-m 64").client() as client:
        assert client.stats("storage") == {"storage_backend": "none"}
        client.set("k", b"v")
        client.ask("flush_all")
        assert client.get("k") is None


class TestDumpsAndWatchers:
    """What turns a connection into a stream must not overtake replies that wait."""

    @pytest.mark.parametrize(("command", "refusal"), [
        ("lru_crawler metadump all", "ERROR cannot pipeline other commands before metadump"),
        ("lru_crawler mgdump all", "ERROR cannot pipeline other commands before mgdump"),
        ("watch fetchers", "ERROR cannot pipeline other commands before watch"),
    ])  # fmt: skip
    def test_a_dump_behind_a_waiting_get_is_refused(self, client, key, command, refusal):
        client.send(f"get {key}\r\n{command}\r\nmn\r\n")
        assert [client.line() for _ in range(3)] == ["END", refusal, "MN"]

    def test_the_cluster_key_is_answered_every_time(self, client):
        for _ in range(4):
            client.send("get AmazonElastiCache:cluster\r\n")
            head = client.line().split()
            assert head[:2] == ["VALUE", "AmazonElastiCache:cluster"], head
            client.read(int(head[3]) + 2)
            assert client.line() == "END"
