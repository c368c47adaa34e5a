# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Load, crash, start, look: what was acknowledged is there, what was not is wholly there or not at all.

    python -m storage.cycles --seed 7 --cycles 15 [--durability group] [--trouble power]       # prints JSON

Each key belongs to one client, so that what must be there is known exactly: value, flags, version and time to live
after the last acknowledged command, or after one of those that were under way behind it, in their order.
"""

import argparse
import json
import random
import selectors
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from . import database
from .node import BACKEND, Node
from .powered import Powered

CLIENTS = 16
KEYS = 24
SHORT_TTL = 2
#: By what crashes: the counts of which none, and where there are several not all, may be 0 after that many cycles.
FAULTS = {
    "node": (("kills",), ("under way",)),
    "power": (("kills",), ("under way",), ("bytes taken",)),
    "database": (("server crashes",), ("sessions ended",), ("unknown", "refused")),
}
FAULT_CYCLES = 20
TROUBLES = tuple(FAULTS)


def missing_faults(trouble, counts):
    """What did not happen, though it was to: a run without it has shown nothing."""
    if counts.get("cycles", 0) < FAULT_CYCLES:
        return []
    return [
        f"no {' and no '.join(names)} in {counts['cycles']} cycles"
        for names in FAULTS[trouble]
        if not any(counts.get(name) for name in names)
    ]


class Row(NamedTuple):
    """What a key should hold. A version of None is not known, but greater than `floor`."""

    value: bytes | None = None
    flags: int = 0
    version: int | None = None
    floor: int = 0
    written: tuple = (0.0, 0.0)  # between which moments its time to live began
    ttl: int = 0

    def later(self, **changes):
        """The same after another change."""
        return self._replace(version=None, floor=max(self.floor, self.version or 0), **changes)


class Pending(NamedTuple):
    """A command that is not answered yet: the row after it, and the reply that it must have; None is no reply."""

    key: str
    row: Row
    reply: bytes | None
    learns: bool = False


class Writer:
    """One client and the keys that only it writes."""

    may_be_silent = True

    def __init__(self, number, source):
        self.random = source
        self.keys = [f"c{number}.{kind}{n}" for n in range(KEYS // 3) for kind in ("v", "n", "t")]
        self.rows = {key: Row() for key in self.keys}
        self.last = dict(self.rows)  # after what was sent
        self.pending = []
        self.buffer = b""
        self.serial = 0
        self.acked = 0

    def command(self):
        """The bytes of one command; what it does is noted."""
        key = self.random.choice(self.keys)
        kind, row = key.split(".")[1][0], self.last[key]
        self.serial += 1
        now = time.time()
        roll = self.random.random()
        silent = b" noreply" if self.random.random() < 0.15 and self.may_be_silent else b""
        name = key.encode()
        if kind == "t":  # a short time to live: only what does not depend on whether it is over
            value = b"t%d" % self.serial
            ttl = self.random.choice((SHORT_TTL, 1000, 0, 100_000))
            return self.note(
                key, row.later(value=value, flags=self.serial, ttl=ttl, written=(now, now)), b"HD", True,
                b"ms %s %d c T%d F%d\r\n%s\r\n" % (name, len(value), ttl, self.serial, value))  # fmt: skip
        if roll < 0.12:
            reply = b"NOT_FOUND" if row.value is None else b"DELETED"
            after = row if row.value is None else row.later(value=None, flags=0, ttl=0)
            return self.note(key, after, None if silent else reply, False, b"delete %s%s\r\n" % (name, silent))
        if roll < 0.22 and row.value is not None:
            ttl = self.random.choice((0, 5000, 50_000))
            after = row.later(ttl=ttl, written=(now, now))
            return self.note(
                key, after, None if silent else b"TOUCHED", False, b"touch %s %d%s\r\n" % (name, ttl, silent))
        if kind == "n" and row.value is not None and roll < 0.7:
            number = b"%d" % (int(row.value) + self.serial)
            after = row.later(value=number)
            if roll < 0.5:
                return self.note(key, after, b"HD", True, b"ma %s c D%d\r\n" % (name, self.serial))
            return self.note(
                key, after, None if silent else number, False, b"incr %s %d%s\r\n" % (name, self.serial, silent))
        if kind == "v" and row.value is not None and roll < 0.4 and len(row.value) < 5000:
            token = b"+%d" % self.serial
            after = row.later(value=row.value + token)
            return self.note(
                key, after, None if silent else b"STORED", False,
                b"append %s 0 0 %d%s\r\n%s\r\n" % (name, len(token), silent, token))  # fmt: skip
        value = b"%d" % (self.serial + 10**12)
        if kind == "v" and self.random.random() < 0.1:
            value = value * self.random.choice((100, 1000, 8000))
        after = row.later(value=value, flags=self.serial, ttl=0)
        data = b"%s\r\n" % value
        if roll < 0.5 and row.version is not None and row.value is not None:
            return self.note(
                key, after, b"STORED", False,
                b"cas %s %d 0 %d %d\r\n" % (name, self.serial, len(value), row.version) + data)  # fmt: skip
        if roll < 0.6:
            if row.value is not None:
                after = row
            return self.note(
                key, after, b"NOT_STORED" if row.value is not None else b"STORED", False,
                b"add %s %d 0 %d\r\n" % (name, self.serial, len(value)) + data)  # fmt: skip
        if roll < 0.8:
            return self.note(
                key, after, b"HD", True, b"ms %s %d c F%d\r\n" % (name, len(value), self.serial) + data)
        return self.note(
            key, after, None if silent else b"STORED", False,
            b"set %s %d 0 %d%s\r\n" % (name, self.serial, len(value), silent) + data)  # fmt: skip

    def note(self, key, row, reply, learns, data):
        self.last[key] = row
        self.pending.append(Pending(key, row, reply, learns))
        return data

    def batch(self):
        count = self.random.choice((1, 1, 2, 4, 8))
        data = b"".join(self.command() for _ in range(count))
        if self.pending[-1].reply is None:
            key = self.pending[-1].key
            self.pending.append(Pending(key, self.last[key], b"MN"))
            data += b"mn\r\n"
        return data

    def feed(self, data):
        """Takes replies. What stands before a reply without one of its own is done with it."""
        self.buffer += data
        while b"\r\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            now = time.time()
            while self.pending:
                key, row, reply, learns = self.pending.pop(0)
                if row.ttl and row.written[0] == row.written[1]:
                    row = row._replace(written=(row.written[0], now))
                if learns:
                    if not line.startswith(b"HD c"):
                        raise AssertionError(f"{key}: {line!r} instead of HD c…")
                    version = int(line[4:])
                    if version <= row.floor:
                        raise AssertionError(f"{key}: version {version} after {row.floor}")
                    row = row._replace(version=version)
                elif reply is not None and line != reply:
                    raise AssertionError(f"{key}: {line!r} instead of {reply!r}")
                self.rows[key] = row
                if not any(later.key == key for later in self.pending):
                    self.last[key] = row
                self.acked += 1
                if reply is not None:
                    break
            else:
                raise AssertionError(f"a reply to nothing: {line!r}")

    def crashed(self):
        """Nothing more is answered: what is under way was done by now, if at all."""
        now = time.time()
        for number, pending in enumerate(self.pending):
            row = pending.row
            if row.ttl and row.written[0] == row.written[1]:
                self.pending[number] = pending._replace(row=row._replace(written=(row.written[0], now)))
        self.client.close()

    def possible(self, key):
        """The rows that may be there after a crash."""
        return [self.rows[key], *(pending.row for pending in self.pending if pending.key == key)]


def load(node, writers, seconds):
    """Runs all writers for so long and leaves them in the middle."""
    selector = selectors.DefaultSelector()
    for writer in writers:
        writer.client = node.client()
        writer.client.socket.setblocking(False)
        writer.out = b""
        selector.register(writer.client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, writer)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for event, ready in selector.select(0.01):
            writer = event.data
            if ready & selectors.EVENT_READ:
                data = writer.client.socket.recv(1 << 16)
                if not data:
                    raise AssertionError(f"the node closed a connection: {node.server.output()[-1000:]}")
                writer.feed(data)
            if not writer.pending and not writer.out:
                writer.out = writer.batch()
            if writer.out:
                try:
                    writer.out = writer.out[writer.client.socket.send(writer.out) :]
                except BlockingIOError:
                    pass
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writer.out or not writer.pending else 0)
            selector.modify(writer.client.socket, events, writer)
    selector.close()


def fits(row, value, flags, version, left, asked, moment):
    """Why what was read between two moments is not this row; None when it is."""
    over = row.ttl and moment > row.written[0] + row.ttl - 2.2
    if row.value is None or (over and value is None):
        return None if value is None else f"{value[:40]!r} where nothing is"
    if value is None:
        return f"nothing where {row.value[:40]!r} is"
    if row.ttl and asked > row.written[1] + row.ttl + 2.2:
        return f"{value[:40]!r} that expired"
    if value != row.value:
        return f"{value[:40]!r} ({len(value)}) instead of {row.value[:40]!r} ({len(row.value)})"
    if flags != row.flags:
        return f"flags {flags} instead of {row.flags}"
    if version != row.version if row.version is not None else version <= row.floor:
        return f"version {version} instead of {row.version or f'more than {row.floor}'}"
    expected = row.written[0] + row.ttl - moment
    late = row.written[1] - row.written[0] + moment - asked
    if left != -1 if not row.ttl else not expected - 3 <= left <= expected + late + 3:
        return f"{left} s to live instead of {expected if row.ttl else 'forever'}"
    return None


def verify(node, writers):
    """Reads every key and holds it against what may be there; what is there is what is known from now on."""
    found, failures = 0, []
    with node.client(30) as client:
        for writer in writers:
            asked = time.time()
            client.send("".join(f"mg {key} v f c t\r\n" for key in writer.keys))
            for key in writer.keys:
                line = client.line()
                value = flags = version = left = None
                moment = time.time()
                if line.startswith("VA"):
                    words = line.split()
                    value = client.read(int(words[1]) + 2)[:-2]
                    fields = {word[0]: int(word[1:]) for word in words[2:]}
                    flags, version, left = fields["f"], fields["c"], fields["t"]
                    found += 1
                elif line != "EN":
                    failures.append(f"{key}: {line}")
                    continue
                rows = writer.possible(key)
                reasons = [fits(row, value, flags, version, left, asked, moment) for row in rows]
                if None not in reasons:
                    failures.append(f"{key}: {'; or '.join(reasons)}")
                    row = Row(value, flags or 0, version, version or rows[-1].floor)
                else:
                    # The newest that fits: a refused add and the row before it look the same.
                    row = rows[max(index for index, reason in enumerate(reasons) if reason is None)]
                    if value is None:
                        row = row.later(value=None, flags=0, ttl=0) if row.value is not None else row
                    else:
                        row = row._replace(version=version)
                writer.rows[key] = writer.last[key] = row
            writer.pending, writer.buffer = [], b""
    return found, failures


def run_cycles(seed, cycles, durability="sync", directory=None, backend=BACKEND, disturb=None, power=False, least=0):
    """So many crashes on one directory, and on a slow machine more, until the `least` of commands were acknowledged;
    returns counts and failures. `disturb` is called between crash and start, and says whether the server behind the node
    crashed. With `power` each crash is the machine's: what was not synced is gone, or torn."""
    source = random.Random(f"cycles {seed}")
    writers = [Writer(number, random.Random(f"{seed} {number}")) for number in range(CLIENTS)]
    counts = {
        "cycles": 0, "acked": 0, "under way": 0, "checked": 0, "kills": 0, "terminations": 0,
        "slowest start ms": 0}  # fmt: skip
    failures = []
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        settings = {"storage_durability": durability, "storage_timeout": "30s"}
        if power:
            node = Powered(Path(scratch), random.Random(f"power {seed}"), **settings)
        else:
            node = Node(Path(scratch), backend=backend, **settings)
        with node:
            while (cycle := counts["cycles"]) < cycles or sum(writer.acked for writer in writers) < least:
                if cycle == 20 * cycles:
                    failures.append(f"only {sum(writer.acked for writer in writers)} commands in {cycle} cycles")
                    break
                load(node, writers, source.choice((0.02, 0.1, 0.2, 0.4)) * source.random())
                if source.random() < 0.9:
                    node.kill()
                    counts["kills"] += 1
                else:
                    counts["terminations"] += 1
                    # What the node still answers is not read: it counts as under way.
                    code = node.terminate()
                    if code != 0:
                        failures.append(f"cycle {cycle}: SIGTERM ended with {code}")
                for writer in writers:
                    counts["under way"] += len(writer.pending)
                    writer.crashed()
                if disturb and disturb(node):
                    counts["server crashes"] = counts.get("server crashes", 0) + 1
                began = time.monotonic()
                node.start()
                took = round((time.monotonic() - began) * 1000)
                counts["slowest start ms"] = max(counts["slowest start ms"], took)
                found, bad = verify(node, writers)
                counts["checked"] += found
                failures += [f"cycle {cycle}: {text}" for text in bad]
                counts["cycles"] += 1
                if len(failures) > 20:
                    break
        counts["acked"] = sum(writer.acked for writer in writers)
        if power:
            counts["bytes taken"] = node.taken
    return {"seed": seed, "counts": counts, "failures": failures}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=15)
    parser.add_argument("--durability", default="sync")
    parser.add_argument("--trouble", choices=TROUBLES, default="node", help="what crashes under load")
    options = parser.parse_args()
    if options.trouble == "power" and BACKEND != "rocksdb":
        parser.error("--trouble power is of the embedded store")
    disturb = None
    if BACKEND == "postgres":
        # The server crashes too, every other time.
        source = random.Random(f"server {options.seed}")

        def disturb(_):
            crashes = source.random() < 0.5
            if crashes:
                database.shared().crash()
            return crashes

    if options.trouble == "database":
        from .database_cycles import run_database_cycles

        result = run_database_cycles(options.seed, options.cycles)
    else:
        power = options.trouble == "power"
        result = run_cycles(options.seed, options.cycles, options.durability, disturb=disturb, power=power)
    result["failures"] += missing_faults(options.trouble, result["counts"])
    print(json.dumps(result))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
