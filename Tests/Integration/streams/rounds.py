# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Rounds of checked reads of streams: regions or nodes that share a database, clients everywhere, and what goes wrong.

    python -m streams.rounds --seed 7 --trouble replica --seconds 20      # one round; prints JSON

Troubles: `replica` (a home with an embedded store, a plain cache that follows it through a relay that cuts, holds and
delays; either process is killed or stands still), `writes` (the same with a replica that reads and writes at home, through a
relay of its own; half of the keys are written there), `database` (two nodes on one PostgreSQL, whose connections are ended,
which crashes, and whose records are let go early), `everything` (two home nodes on one PostgreSQL, one of which a replica
follows while it reads and writes at the other, with the troubles of both), `calm` (as `replica`, with nothing wrong).

Each read is held against the bound: a value may not be shown once its successor was acknowledged for longer than
`stream.lagBound`, or at all where the successor was written at the same node; nor may one connection see a key go back. At
the end everybody must have the last values.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from bed import Client, Closed, free_port
from storage import database

from .region import RegionNode, Relay, regions

TROUBLES = ("replica", "writes", "database", "everything", "calm")
KEYS, NUMBERS, BOUND = 40, 1 << 16, 1.0
CONTEXT = multiprocessing.get_context("fork")


class Ledger:
    """By key and number, when it was acknowledged; 0 where it was not, or where nobody knows. Shared by all processes."""

    def __init__(self):
        self.acked = CONTEXT.RawArray("d", KEYS * NUMBERS)
        self.last = CONTEXT.RawArray("l", KEYS)
        self.is_over = CONTEXT.Event()
        self.results = CONTEXT.SimpleQueue()

    def write(self, port, keys, pause):
        """Writes numbers that grow, until the end; what fails may have happened."""
        client, counts = None, {"writes": 0, "failed writes": 0}
        turn = 0
        while not self.is_over.is_set():
            key = keys[turn % len(keys)]
            turn += 1
            number = self.last[key] + 1
            if number >= NUMBERS:
                break
            self.last[key] = number
            try:
                client = client or connect(port)
                if client.set(f"key:{key}", b"%d" % number) == "STORED":
                    self.acked[key * NUMBERS + number] = time.monotonic()
                    counts["writes"] += 1
                else:
                    counts["failed writes"] += 1
            except (OSError, Closed):
                client = None
                counts["failed writes"] += 1
                time.sleep(0.02)
            time.sleep(pause)
        self.results.put((counts, []))

    def read(self, name, port, own=(), late=False):
        """Reads all keys again and again, and checks what is shown. `own` are the keys that are written at the same node.
        With `late`, a write of unknown outcome may be done behind later ones, so that nothing can be said where it shows."""
        counts, violations = {"checked": 0, "misses": 0, "read errors": 0, "oldest ms": 0}, []
        line = "get " + " ".join(f"key:{key}" for key in range(KEYS)) + "\r\n"
        client, seen = None, {}
        while not self.is_over.is_set():
            try:
                if client is None:
                    client, seen = connect(port), {}
                began = time.monotonic()
                client.send(line)
                hits = 0
                while (head := client.line()) != "END":
                    if not head.startswith("VALUE key:"):
                        raise Closed(head)
                    key = int(head.split(" ", 2)[1][4:])
                    shown = int(client.line())
                    hits += 1
                    if late and not self.acked[key * NUMBERS + shown]:
                        counts["unknown shown"] = counts.get("unknown shown", 0) + 1
                        continue
                    self.check(name, key, shown, began, seen, counts, violations, 0 if key in own else BOUND)
                counts["misses"] += KEYS - hits
            except (OSError, Closed):
                client = None
                counts["read errors"] += 1
                time.sleep(0.02)
        self.results.put((counts, violations[:20]))

    def check(self, name, key, shown, began, seen, counts, violations, bound):
        counts["checked"] += 1
        if shown < seen.get(key, 0):
            violations.append(f"{name}: key {key} went back from {seen[key]} to {shown}")
        seen[key] = shown
        for number in range(shown + 1, self.last[key] + 1):
            if when := self.acked[key * NUMBERS + number]:
                age = began - when
                counts["oldest ms"] = max(counts["oldest ms"], int(age * 1000))
                if age > bound:
                    violations.append(f"{name}: key {key} showed {shown}, {age:.3f} s after {number} was acknowledged")
                break


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    return Client(connection)


class Regions:
    """A home with an embedded store, and a plain cache that follows it through a relay."""

    def __init__(self, directory, chance, is_calm):
        self.chance, self.is_calm = chance, is_calm
        stream = free_port()
        self.relay = Relay(stream)
        listed = regions(self.relay.port)
        retention = chance.choice(["1h", "1h", "1s"])
        self.home = RegionNode(
            directory / "home", "us-east", listed, {"listen": f"127.0.0.1:{stream}", "retention": retention}, backend="rocksdb",
            storage_durability=chance.choice(["sync", "group"]))  # fmt: skip
        self.replica = RegionNode(directory / "replica", "eu-west", listed, {"lagBound": "1s", "mode": "replicate"})
        self.nodes = [self.home, self.replica]
        self.counts = {}

    @property
    def writers(self):
        return [(self.home.port, range(KEYS))]

    @property
    def readers(self):
        return [("replica", self.replica.port)] * 2 + [("home", self.home.port)]

    def start(self):
        self.home.start()
        self.replica.start()

    def act(self):
        if self.is_calm:
            return time.sleep(0.5)
        name = self.chance.choice(["drop", "cut", "hold", "delay", "kill the replica", "kill the home", "still home", "still replica"])
        self.counts[name] = self.counts.get(name, 0) + 1
        long = self.chance.uniform(0.1, 2.5)
        if name == "drop":
            self.relay.drop()
        elif name == "cut":
            self.relay.cut()
            time.sleep(long)
        elif name == "hold":
            self.relay.is_held = True
            time.sleep(long)
        elif name == "delay":
            self.relay.delay = self.chance.uniform(0.01, 0.2)
            time.sleep(long)
        elif name.startswith("kill"):
            (self.replica if "replica" in name else self.home).restart(crash=True)
        else:
            stand_still(self.home if "home" in name else self.replica, long)
        self.relay.heal()
        time.sleep(self.chance.uniform(0.05, 1))

    def end(self):
        self.relay.heal()

    def close(self):
        self.relay.close()


class WritingRegions(Regions):
    """The same with a replica that reads and writes at home, through another relay."""

    def __init__(self, directory, chance, is_calm):
        super().__init__(directory, chance, is_calm)
        self.way = Relay(self.home.port)
        listed = self.home.document["regions"]
        listed[0]["serve"] = f"127.0.0.1:{self.way.port}"
        self.home.rewrite(regions=listed)
        self.replica = RegionNode(
            directory / "replica", "eu-west", listed, {"lagBound": "1s", "mode": chance.choice(["invalidate", "replicate"])},
            backend="region", storage_timeout="1s")  # fmt: skip
        self.nodes = [self.home, self.replica]

    @property
    def writers(self):
        half = KEYS // 2
        return [(self.home.port, range(half)), (self.replica.port, range(half, KEYS))]

    @property
    def readers(self):
        # Home's own reads are linearizable; the replica's are where its own writes are concerned.
        replica = ("replica", self.replica.port, range(KEYS // 2, KEYS), True)
        return [replica, replica, ("home", self.home.port, range(KEYS), True)]

    def act(self):
        if self.chance.random() < 0.6:
            return super().act()
        name = self.chance.choice(["drop the way", "cut the way", "hold the way", "delay the way"])
        self.counts[name] = self.counts.get(name, 0) + 1
        long = self.chance.uniform(0.1, 2.5)
        if name.startswith("drop"):
            self.way.drop()
        elif name.startswith("cut"):
            self.way.cut()
            time.sleep(long)
        elif name.startswith("hold"):
            self.way.is_held = True
            time.sleep(long)
        else:
            self.way.delay = self.chance.uniform(0.005, 0.1)
            time.sleep(long)
        self.way.heal()
        time.sleep(self.chance.uniform(0.05, 1))

    def end(self):
        super().end()
        self.way.heal()

    def close(self):
        super().close()
        self.way.close()


class SharedDatabase:
    """Two nodes on one database."""

    def __init__(self, directory, chance, _):
        self.chance = chance
        stream = {"lagBound": "1s", "retention": chance.choice(["1h", "1s"])}
        listed = [{"name": "us-east", "role": "home"}]
        self.nodes = []
        for name in ("one", "two"):
            self.nodes.append(RegionNode(
                directory / name, "us-east", listed, stream, backend="postgres", storage_instance=name, storage_timeout="5s"))  # fmt: skip
        self.nodes[1].url = self.nodes[0].url
        self.counts = {}

    @property
    def writers(self):
        half = KEYS // 2
        return [(node.port, range(index * half, (index + 1) * half)) for index, node in enumerate(self.nodes)]

    @property
    def readers(self):
        return [(f"node {index}", node.port) for index, node in enumerate(self.nodes)]

    def start(self):
        for node in self.nodes:
            node.start()

    def act(self):
        names = ["end sessions", "end sessions of one", "crash the database", "kill", "still", "still", "lock"]
        name = self.chance.choice(names)
        self.counts[name] = self.counts.get(name, 0) + 1
        node = self.chance.choice(self.nodes)
        if name == "end sessions":
            database.shared().end_sessions(node.name)
        elif name == "end sessions of one":
            database.shared().end_sessions(node.name, f"application_name LIKE '%{node.directory.name}%'")
        elif name == "crash the database":
            database.shared().crash()
        elif name == "kill":
            node.restart(crash=True)
        elif name == "lock":
            held = database.shared().lock(node.name, "SELECT pg_advisory_xact_lock(5570748134)")
            time.sleep(self.chance.uniform(0.1, 1.5))
            held.release()
        else:
            stand_still(node, self.chance.uniform(0.1, 4))
        time.sleep(self.chance.uniform(0.05, 1))

    def end(self):
        pass

    def close(self):
        pass


class WritingDatabase(SharedDatabase):
    """The same, and a node of a replica region that follows the first and reads and writes at the second."""

    def __init__(self, directory, chance, _):
        super().__init__(directory, chance, _)
        stream = free_port()
        self.relay, self.way = Relay(stream), Relay(self.nodes[1].port)
        listed = regions(self.relay.port)
        listed[0]["serve"] = f"127.0.0.1:{self.way.port}"
        for node, port in zip(self.nodes, (stream, free_port()), strict=True):
            node.document["stream"]["listen"] = f"127.0.0.1:{port}"
            node.rewrite(regions=listed)
        self.replica = RegionNode(
            directory / "replica", "eu-west", listed, {"lagBound": "1s", "mode": chance.choice(["invalidate", "replicate"])},
            backend="region", storage_timeout="5s")  # fmt: skip
        # For the troubles of the database; it makes nothing of it.
        self.replica.url = self.nodes[0].url
        self.nodes.append(self.replica)

    @property
    def writers(self):
        share = KEYS // 4
        first, second, replica = self.nodes
        return [(first.port, range(share)), (second.port, range(share, 2 * share)), (replica.port, range(2 * share, KEYS))]

    @property
    def readers(self):
        # Each node shows at once what was written through it; what others did, within the bound.
        names = ("first", "second", "replica")
        return [(name, port, keys, True) for name, (port, keys) in zip(names, self.writers, strict=True)]

    def act(self):
        if self.chance.random() < 0.5:
            return super().act()
        relay, name = self.chance.choice([(self.relay, "the stream"), (self.way, "the way")])
        what = self.chance.choice(["drop", "cut", "hold"])
        self.counts[f"{what} {name}"] = self.counts.get(f"{what} {name}", 0) + 1
        if what == "drop":
            relay.drop()
        else:
            relay.cut() if what == "cut" else setattr(relay, "is_held", True)
            time.sleep(self.chance.uniform(0.1, 2.5))
        relay.heal()
        time.sleep(self.chance.uniform(0.05, 1))

    def end(self):
        self.relay.heal()
        self.way.heal()

    def close(self):
        self.relay.close()
        self.way.close()


def stand_still(node, seconds):
    os.kill(node.server.process.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(node.server.process.pid, signal.SIGCONT)


def run(seed, trouble, seconds):
    """One round: what was counted, and what is wrong."""
    chance = random.Random(f"streams {seed}")
    with tempfile.TemporaryDirectory(prefix="martlet-streams-") as name:
        kinds = {"database": SharedDatabase, "writes": WritingRegions, "everything": WritingDatabase}
        bed = kinds.get(trouble, Regions)(Path(name), chance, trouble == "calm")
        ledger = Ledger()
        counts, failures = {}, []
        try:
            bed.start()
            for node in bed.nodes:
                if node is not getattr(bed, "home", None):
                    node.await_figures(trusted="yes", quarantined_slots=0)
            work = [CONTEXT.Process(target=ledger.write, args=(port, list(keys), 0.0005)) for port, keys in bed.writers]
            work += [CONTEXT.Process(target=ledger.read, args=reader) for reader in bed.readers]
            for process in work:
                process.start()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                bed.act()
            bed.end()
            ledger.is_over.set()
            for _ in work:
                found, violations = ledger.results.get()
                failures += violations
                for what, count in found.items():
                    counts[what] = max(counts.get(what, 0), count) if what == "oldest ms" else counts.get(what, 0) + count
            for process in work:
                process.join()
            failures += converge(bed, ledger)
            for node in bed.nodes:
                figures = node.figures()
                for what in ("quarantines", "gaps", "connections", "damaged"):
                    counts[what] = counts.get(what, 0) + int(figures.get(what, 0) or 0)
        except AssertionError as error:
            failures.append(f"{type(error).__name__}: {error}")
        finally:
            for node in bed.nodes:
                node.stop()
            bed.close()
        for what, count in bed.counts.items():
            counts[what] = counts.get(what, 0) + count
        return counts, failures


def converge(bed, ledger):
    """At the end, everybody has the last values, or nothing."""
    for node in bed.nodes:
        if node is not getattr(bed, "home", None):
            node.await_figures(seconds=30, trusted="yes", backlog=0, quarantined_slots=0)
    time.sleep(BOUND)
    wrong = []
    for node in bed.nodes:
        with node.client() as client:
            for key in range(KEYS):
                value = client.get(f"key:{key}")
                known = [number for number in range(ledger.last[key], 0, -1) if ledger.acked[key * NUMBERS + number]][:1]
                is_late = isinstance(bed, (WritingRegions, WritingDatabase)) and value is not None and not ledger.acked[key * NUMBERS + int(value)]
                if value is not None and known and int(value) < known[0] and not is_late:
                    wrong.append(f"{node.directory.name}: key {key} is {int(value)} at the end, and {known[0]} was acknowledged")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trouble", choices=TROUBLES, default="replica")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    counts, failures = run(options.seed, options.trouble, options.seconds)
    print(json.dumps({"counts": counts, "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
