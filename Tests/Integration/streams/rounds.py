# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Rounds of checked reads of streams: regions or nodes that share a database, clients everywhere, and what goes wrong.

    python -m streams.rounds --seed 7 --trouble replica --seconds 20      # one round; prints JSON
    python -m streams.rounds --list                                       # what goes wrong in which rounds

Troubles: `replica` (a home with an embedded store, two plain caches in regions of their own that follow it through relays
that cut, hold and delay, one way or both, and have batches come twice or behind later ones; any process is killed or stands
still, any clock is set, by less than is allowed or by more), `writes` (the same with replicas that read and write at home,
through relays of their own; a third of the keys are written at each), `database` (two nodes on one PostgreSQL, whose
connections are ended, which crashes, and whose records are let go early), `everything` (two home nodes on one PostgreSQL, one
of which a replica follows while it reads and writes at the other, with the troubles of both), `promotion` (two regions, each
with a PostgreSQL, one of them the other's standby, and a third region: the home region moves there and back, while nodes are
killed and stand still, the ways between them are cut and walsenders are ended), `promotion-kafka` (the same with three brokers
between, which go down, get other leaders and answer late), `kafka` (a home and two plain caches with three brokers between,
which go down, get other leaders, answer with errors or late, let go what was not read, and have messages twice; any process
is killed or stands still, any clock is set), `owners` (two home nodes on one PostgreSQL, and two
nodes of a replica region that agree in an etcd: in both regions keys have owners, and nodes leave the ring and join it; a
program writes to the database by itself), `calm` (as `replica`, with nothing wrong).

Troubles come one or two at a time, as cards of a deck: a round lasts until each of its kind has happened.

Each read is held against the bound: a value may not be shown once its successor was acknowledged for longer than
`stream.lagBound`, or at all where the successor was written at the same node, or as those who own a key promise; nor may one
connection see a key go back. A node that has a store may show nothing only of a key that was deleted, or never written. At
the end everybody must have the last values.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bed import Client, Closed, Patience, free_port, until
from bed.server import StartError
from discovery.etcd import Etcd
from storage import database

from . import brokers as kafka
from .promotion import Realm
from .region import FrameRelay, RegionNode, Relay, regions
from .rings import Program, Ring

TROUBLES = ("replica", "writes", "database", "everything", "promotion", "promotion-kafka", "kafka", "owners", "calm")
KEYS, NUMBERS, BOUND = 40, 1 << 16, 1.0
# How long a write whose outcome is unknown may be done later, in seconds.
LATE = 10.0
# In the place of when a write was acknowledged that was not done.
REFUSED = -1.0
LINE = "get " + " ".join(f"key:{key}" for key in range(KEYS))
CONTEXT = multiprocessing.get_context("fork")


class Ledger:
    """By key and number, when it was acknowledged; 0 where nobody knows whether it was done, less where it was refused; and
    whether it was a deletion. Shared by all processes."""

    def __init__(self):
        self.acked = CONTEXT.RawArray("d", KEYS * NUMBERS)
        self.deletes = CONTEXT.RawArray("b", KEYS * NUMBERS)
        self.last = CONTEXT.RawArray("l", KEYS)
        # The last deletion that was asked for, and until when one whose outcome is unknown may yet be done.
        self.deleted = CONTEXT.RawArray("l", KEYS)
        self.unsure = CONTEXT.RawArray("d", KEYS)
        # By reader, how many reads were checked until now.
        self.checked = CONTEXT.RawArray("l", 16)
        self.is_over = CONTEXT.Event()
        self.results = CONTEXT.SimpleQueue()

    def write(self, door, keys, pause):
        """Writes numbers that grow, or deletes, until the end. What is refused was not done; what fails otherwise may have
        been."""
        client, counts = None, {"writes": 0, "deletes": 0, "failed writes": 0, "refused writes": 0}
        chance, turn = random.Random(door), 0
        while not self.is_over.is_set():
            key = keys[turn % len(keys)]
            turn += 1
            number = self.last[key] + 1
            if number >= NUMBERS:
                break
            deletes = chance.random() < 0.1
            self.deletes[key * NUMBERS + number] = deletes
            # In this order: who sees the number finds its deletion.
            before = self.deleted[key]
            if deletes:
                self.deleted[key] = number
            self.last[key] = number
            try:
                client = client or connect(door)
                answer = client.ask(f"delete key:{key}") if deletes else client.set(f"key:{key}", b"%d" % number)
                if answer in (("DELETED", "NOT_FOUND") if deletes else ("STORED",)):
                    self.acked[key * NUMBERS + number] = time.monotonic()
                    counts["deletes" if deletes else "writes"] += 1
                elif answer.startswith("SERVER_ERROR") and "outcome unknown" not in answer:
                    counts["refused writes"] += 1
                    self.acked[key * NUMBERS + number] = REFUSED
                    self.deleted[key] = before
                else:
                    self.failed(key, deletes, counts)
            except (OSError, Closed):
                client = None
                self.failed(key, deletes, counts)
                time.sleep(0.02)
            time.sleep(pause)
        self.results.put((counts, []))

    def failed(self, key, deletes, counts):
        counts["failed writes"] += 1
        if deletes:
            self.unsure[key] = time.monotonic() + LATE

    def read(self, place, name, port, own=(), late=False, stored=False):
        """Reads all keys again and again, and checks what is shown. `own` are the keys that are written at the same node.
        With `late`, a write of unknown outcome may be done behind later ones, so that nothing can be said where it shows.
        With `stored`, nothing is shown only where there is nothing."""
        counts, violations = {"checked": 0, "misses": 0, "read errors": 0, "oldest ms": 0, "checked misses": 0}, []
        client, seen = None, {}
        while not self.is_over.is_set():
            try:
                if client is None:
                    client, seen = connect(port), {}
                began = time.monotonic()
                client.send(f"{LINE}\r\n")
                found = {}
                while (head := client.line()) != "END":
                    if not head.startswith("VALUE key:"):
                        raise Closed(head)
                    found[int(head.split(" ", 2)[1][4:])] = int(client.line())
                for key, shown in found.items():
                    if late and not self.acked[key * NUMBERS + shown]:
                        counts["unknown shown"] = counts.get("unknown shown", 0) + 1
                        continue
                    self.check(name, key, shown, began, seen, counts, violations, 0 if key in own else BOUND)
                counts["misses"] += KEYS - len(found)
                for key in range(KEYS) if stored else ():
                    if key in found:
                        continue
                    if late and began < self.unsure[key]:
                        counts["unknown shown"] = counts.get("unknown shown", 0) + 1
                        continue
                    counts["checked misses"] += 1
                    # At best, it is of the last deletion; 0 is from before the first write.
                    self.check(name, key, self.deleted[key], began, seen, counts, violations, 0 if key in own else BOUND, True)
                self.checked[place] = counts["checked"]
            except (OSError, Closed):
                client = None
                counts["read errors"] += 1
                time.sleep(0.02)
        counts[f"checked at {name}"] = counts["checked"]
        self.results.put((counts, violations[:20]))

    def check(self, name, key, shown, began, seen, counts, violations, bound, is_miss=False):
        counts["checked"] += 1
        words = f"nothing (deleted by {shown})" if is_miss else str(shown)
        if not is_miss and self.acked[key * NUMBERS + shown] == REFUSED:
            violations.append(f"{name}: key {key} showed {shown}, which was refused")
        if shown < seen.get(key, 0):
            violations.append(f"{name}: key {key} went back from {seen[key]} to {words}")
        if not is_miss:
            seen[key] = shown
        for number in range(shown + 1, self.last[key] + 1):
            if (when := self.acked[key * NUMBERS + number]) > 0:
                age = began - when
                counts["oldest ms"] = max(counts["oldest ms"], int(age * 1000))
                if age > bound:
                    violations.append(f"{name}: key {key} showed {words}, {age:.3f} s after {number} was acknowledged")
                break


def connect(door):
    """A client of a node's port, or a program that writes to a database by itself: `PORT/NAME`."""
    if isinstance(door, str):
        return Program(*door.split("/"))
    return Client(socket.create_connection(("127.0.0.1", door), timeout=5))


class Clock:
    """The time of day of a process, which can be set."""

    def __init__(self, directory, name):
        library = directory / "suspend.so"
        if not library.exists():
            subprocess.run(
                ["gcc", "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("suspend.c"), "-ldl"], check=True)
        self.path = directory / f"{name}.stepped"
        self.path.write_bytes(bytes(8))
        self.milliseconds = 0
        self.variables = {"LD_PRELOAD": str(library), "MARTLET_STEPPED": str(self.path)}

    def set(self, milliseconds):
        self.milliseconds = milliseconds
        with self.path.open("r+b") as file:
            file.write(struct.pack("<q", milliseconds))


class Bed:
    """Nodes and what goes wrong with them: families of troubles, two of which may come at a time."""

    # By family, what may go wrong.
    troubles = {}
    # Whether home alone has a store, or all nodes.
    has_plain_caches = False
    # Whether a write whose outcome is unknown may be done behind later ones.
    is_late = False

    def __init__(self, directory, chance, is_calm=False, tempo=1.0):
        self.directory, self.chance, self.is_calm, self.tempo = directory, chance, is_calm, tempo
        self.counts, self.relays, self.home, self.nodes = {}, [], None, []
        # Two troubles at a time may be for one process, or one clock.
        self.crashing, self.setting = threading.Lock(), threading.Lock()

    def crash(self, node):
        """Kills a node, and starts it again; more than once where its database is away, as whoever runs it would."""
        with self.crashing:
            node.kill()
            for left in reversed(range(20)):
                try:
                    node.start()
                    return
                except StartError:
                    if not left:
                        raise
                    time.sleep(0.3)

    @property
    def stored(self):
        return [self.home] if self.has_plain_caches else self.nodes

    @property
    def cards(self):
        """All that can go wrong in this round: (family, name)."""
        return [] if self.is_calm else [(family, name) for family, names in self.troubles.items() for name in names]

    def start(self):
        for node in self.nodes:
            node.start()

    def act(self, deck):
        """Takes a card or two."""
        if not deck:
            return time.sleep(0.2)
        taken = [deck.pop()]
        others = [card for card in deck if card[0] != taken[0][0]]
        if others and self.chance.random() < 0.5:
            taken.append(others[-1])
            deck.remove(others[-1])
            self.count("two at once")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            work = [pool.submit(self.do, name, random.Random(self.chance.random())) for _, name in taken]
            for done in work:
                done.result()
        for _, name in taken:
            self.count(name)
        self.heal()
        time.sleep(self.chance.uniform(0.05, 1) * self.tempo)

    def count(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1

    def long(self, chance):
        return chance.uniform(0.1, 2.5) if self.tempo == 1 else chance.choice([0.2, 0.4, 1.3])

    def on_relay(self, relay, name, chance):
        """What a way between two can do; whether it was one of these."""
        what = name.split(" ")[0]
        if what in BATCHES:
            self.have_batches(relay, what)
            return True
        if what not in WAYS:
            return False
        if what == "drop":
            relay.drop()
        elif what == "cut":
            relay.cut()
        elif what == "delay":
            relay.delay = chance.uniform(0.005, 0.2)
        else:
            setattr(relay, {"hold": "is_held", "mute": "is_mute", "deafen": "is_deaf"}[what], True)
        if what != "drop":
            time.sleep(self.long(chance))
        return True

    @staticmethod
    def have_batches(relay, what):
        """Batches of a stream come twice, or behind later ones, until some have."""
        flag, count = {"double": ("is_doubling", "doubled"), "swap": ("is_swapping", "swapped")}[what]
        wanted = getattr(relay, count) + 5
        setattr(relay, flag, True)
        try:
            until(lambda: getattr(relay, count) >= wanted, 30, f"{what} on a stream")
        finally:
            setattr(relay, flag, False)

    def on_node(self, name, chance):
        """What can happen to a process; whether it was one of these."""
        what, _, which = name.partition(" the ")
        if what == "kill":
            self.crash(getattr(self, which))
        elif what == "still":
            stand_still(getattr(self, which), self.long(chance))
        else:
            return False
        return True

    def heal(self):
        for relay in self.relays:
            relay.heal()

    def end(self):
        self.heal()

    def close(self):
        for relay in self.relays:
            relay.close()


# What a way may do, and what one that knows frames may do with those that are batches.
WAYS = ("drop", "cut", "hold", "mute", "deafen", "delay")
BATCHES = ("double", "swap")
PROCESSES = ("kill the home", "kill the replica", "kill the south", "still the home", "still the replica", "still the south")
CLOCKS = ("set the clock and kill the home", "set home's clock", "set a replica's clock")


class Regions(Bed):
    """A home with an embedded store, and plain caches in two regions that follow it, each through a relay."""

    # A clock that differs by too much ends the stream: nothing else does meanwhile.
    troubles = {
        "stream": (*WAYS, *BATCHES, "have home's clock differ", "have a replica's clock differ"),
        "node": (*PROCESSES, *CLOCKS),
        "trim": ("trim",)}  # fmt: skip
    has_plain_caches = True
    # By how many milliseconds clocks are set to differ at most; 500 are allowed.
    skew = 400

    def __init__(self, directory, chance, is_calm=False, tempo=1.0):
        super().__init__(directory, chance, is_calm, tempo)
        stream = free_port()
        self.relay, self.far = FrameRelay(stream), FrameRelay(stream)
        self.relays = [self.relay, self.far]
        self.clocks = {name: Clock(directory, name) for name in ("home", "replica", "south")}
        self.home = RegionNode(
            directory / "home", "us-east", self.listed(self.relay),
            {"listen": f"127.0.0.1:{stream}", "retention": chance.choice(["1h", "1s"])}, backend="rocksdb",
            variables=self.clocks["home"].variables, storage_durability=chance.choice(["sync", "group"]))  # fmt: skip
        self.make_replicas()
        self.nodes = [self.home, self.replica, self.south]

    def listed(self, relay, **home):
        first, second = regions(relay.port)
        return [{**first, **home}, second, {"name": "ap-south", "role": "replica"}]

    def make_replicas(self):
        stream = {"lagBound": "1s", "mode": "replicate"}
        for name, region, relay in (("replica", "eu-west", self.relay), ("south", "ap-south", self.far)):
            setattr(self, name, RegionNode(
                self.directory / name, region, self.listed(relay), stream, variables=self.clocks[name].variables))  # fmt: skip

    @property
    def writers(self):
        return [(self.home.port, range(KEYS))]

    @property
    def readers(self):
        # Home's own reads are linearizable.
        return [
            ("replica", self.replica.port), ("south", self.south.port), ("home", self.home.port, range(KEYS), False, True)]  # fmt: skip

    def do(self, name, chance):
        if self.on_node(name, chance):
            return
        if "clock" in name:
            self.on_clock(name, chance)
        elif name == "trim":
            self.trim(chance)
        else:
            self.on_relay(chance.choice([self.relay, self.far]), name, chance)

    def on_clock(self, name, chance):
        who = chance.choice(["replica", "south"]) if "replica" in name else "home"
        with self.setting:
            if name.startswith("have"):
                self.differ(who, chance)
            else:
                # The clocks of two differ by no more than they may.
                self.clocks[who].set(int(chance.uniform(-self.skew, self.skew) / 2))
        if name.endswith("kill the home"):
            self.crash(self.home)

    def differ(self, who, chance):
        """A clock is set by more than is allowed, and set right: those who follow it, or whose it is, say so, and show no copy
        meanwhile."""
        before = self.clocks[who].milliseconds
        ahead = int(chance.choice([-1, 1]) * chance.uniform(1000, 3000))
        reason = f"ms {'ahead of' if (ahead > 0) == (who == 'home') else 'behind'} this node's"
        nodes = [getattr(self, who)] if who != "home" else [self.replica, self.south]
        self.clocks[who].set(ahead)
        try:
            for node in nodes:
                until(lambda node=node: self.shows_nothing(node, reason), 30, f"{node.directory.name}: {reason}")
        finally:
            self.clocks[who].set(before)

    def shows_nothing(self, node, reason):
        """Whether a node shows no copies, and says this reason; not of one that is being killed."""
        try:
            with node.client() as client:
                figures = client.stats("stream")
                shown = client.ask(LINE) if self.has_plain_caches else "END"
        except (OSError, Closed):
            return False
        return figures["trusted"] == "no" and reason in figures.get("reason", "") and shown == "END"

    def trim(self, chance):
        """Records are let go while a follower is away: where they are kept for a second, and by their number otherwise."""
        relay = chance.choice([self.relay, self.far])
        relay.cut()
        self.home.document["stream"]["retention"] = "1s"
        self.home.rewrite()
        self.crash(self.home)
        time.sleep(1.5)
        relay.heal()


class WritingRegions(Regions):
    """The same with replicas that read and write at home, through relays of their own."""

    troubles = {**Regions.troubles, "way": tuple(f"{what} the way" for what in WAYS)}
    has_plain_caches, is_late = False, True

    def make_replicas(self):
        self.way, self.long_way = Relay(self.home.port), Relay(self.home.port)
        self.relays += [self.way, self.long_way]
        for name, region, relay, way in (
            ("replica", "eu-west", self.relay, self.way), ("south", "ap-south", self.far, self.long_way)):  # fmt: skip
            setattr(self, name, RegionNode(
                self.directory / name, region, self.listed(relay, serve=f"127.0.0.1:{way.port}"),
                {"lagBound": "1s", "mode": self.chance.choice(["invalidate", "replicate"])}, backend="region",
                variables=self.clocks[name].variables, storage_timeout="1s"))  # fmt: skip

    @property
    def writers(self):
        third = KEYS // 3
        return [
            (self.home.port, range(third)), (self.replica.port, range(third, 2 * third)), (self.south.port, range(2 * third, KEYS))]

    @property
    def readers(self):
        # Home's own reads are linearizable; the replicas' are where their own writes are concerned.
        (_, _), (_, replica), (_, south) = self.writers
        return [
            ("replica", self.replica.port, replica, True, True), ("south", self.south.port, south, True, True),
            ("home", self.home.port, range(KEYS), True, True)]  # fmt: skip

    def do(self, name, chance):
        if name.endswith("the way"):
            self.on_relay(chance.choice([self.way, self.long_way]), name, chance)
        else:
            super().do(name, chance)


def trouble_brokers(brokers, name, chance, seconds):
    """One of them is gone for a while; others lead; or all answer late."""
    if name == "down":
        broker = chance.choice([1, 2, 3])
        brokers.down(broker)
        time.sleep(seconds)
        brokers.up(broker)
    elif name == "lead":
        brokers.lead(*chance.sample([1, 2, 3], chance.choice([1, 2, 3])))
    else:
        brokers.slow(int(chance.uniform(5, 300)))
        time.sleep(seconds)
        brokers.slow(0)


class KafkaRegions(Bed):
    """A home with an embedded store, and plain caches in two regions that follow it through three brokers; in half of the
    rounds they may ask home for what the brokers do not have."""

    troubles = {
        "brokers": ("down", "lead", "slow", "overrun", "double"), "errors": ("produce errors", "fatal errors", "fetch errors"),
        "node": (*PROCESSES, *CLOCKS)}  # fmt: skip
    has_plain_caches = True
    skew = 100

    def __init__(self, directory, chance, is_calm=False, tempo=1.0):
        super().__init__(directory, chance, is_calm, tempo)
        self.brokers = kafka.Brokers()
        self.clocks = {name: Clock(directory, name) for name in ("home", "replica", "south")}
        port = free_port()
        listed = regions(port) if chance.random() < 0.5 else [{"name": "us-east", "role": "home"}, {"name": "eu-west"}]
        listed.append({"name": "ap-south", "role": "replica"})
        stream = {"transport": "kafka", "lagBound": "1s", "mode": "replicate",
                  "kafka": {"brokers": self.brokers.addresses, "clockSkew": f"{self.skew}ms"}}  # fmt: skip
        retention = chance.choice(["1h", "1h", "1s"])
        self.home = RegionNode(
            directory / "home", "us-east", listed, {**stream, "listen": f"127.0.0.1:{port}", "retention": retention},
            backend="rocksdb", variables=self.clocks["home"].variables, storage_durability=chance.choice(["sync", "group"]))  # fmt: skip
        self.replica, self.south = (
            RegionNode(directory / name, region, listed, stream, variables=self.clocks[name].variables)
            for name, region in (("replica", "eu-west"), ("south", "ap-south")))  # fmt: skip
        self.nodes = [self.home, self.replica, self.south]

    writers, readers, on_clock = Regions.writers, Regions.readers, Regions.on_clock

    def do(self, name, chance):
        if self.on_node(name, chance):
            return
        if "clock" in name:
            self.on_clock(name, chance)
            return
        if name in ("down", "lead", "slow"):
            trouble_brokers(self.brokers, name, chance, self.long(chance))
        elif name.endswith("errors"):
            codes = {"fatal errors": [kafka.UNAUTHORIZED], "produce errors": [kafka.NOT_LEADER, kafka.TIMED_OUT, kafka.TRANSPORT]}
            kind = kafka.FETCH if name.startswith("fetch") else kafka.PRODUCE
            self.brokers.fail(kind, *chance.choices(codes.get(name, [kafka.NOT_LEADER, kafka.TRANSPORT, kafka.UNKNOWN]), k=6))
        elif name == "double":
            # The last messages of each partition come again, out of order, behind those that came meanwhile.
            assert self.patiently(lambda: self.brokers.double(20)) > 0
        elif name == "overrun":
            # More than a broker keeps of a partition, while a follower stands still.
            process = chance.choice([self.replica, self.south]).server.process
            os.kill(process.pid, signal.SIGSTOP)
            try:
                for partition in chance.sample(range(64), 8):
                    for _ in range(7):
                        value = chance.randbytes(900_000)
                        self.patiently(lambda partition=partition, value=value: self.brokers.put(partition, value))
            finally:
                resume(process)

    @staticmethod
    def patiently(what):
        """Has the brokers do something; errors that were meant for the nodes may come to it."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return what()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def close(self):
        self.brokers.close()


class SharedDatabase(Bed):
    """Two nodes on one database."""

    is_late = True
    troubles = {
        "database": ("end sessions", "end sessions of one", "crash the database", "lock", "trim the outbox"),
        "node": ("kill", "still", "still long")}  # fmt: skip

    def __init__(self, directory, chance, is_calm=False, tempo=1.0):
        super().__init__(directory, chance, is_calm, tempo)
        stream = {"lagBound": "1s", "retention": chance.choice(["1h", "1s"])}
        listed = [{"name": "us-east", "role": "home"}]
        for name in ("one", "two"):
            self.nodes.append(RegionNode(
                directory / name, "us-east", listed, stream, backend="postgres", storage_instance=name, storage_timeout="5s"))  # fmt: skip
        self.nodes[1].url = self.nodes[0].url

    @property
    def writers(self):
        half = KEYS // 2
        return [(node.port, range(index * half, (index + 1) * half)) for index, node in enumerate(self.nodes)]

    @property
    def readers(self):
        # Each node shows at once what was written through it; what the other did, within the bound.
        return [(f"node {index}", port, keys, True, True) for index, (port, keys) in enumerate(self.writers)]

    def do(self, name, chance):
        node = chance.choice(self.nodes)
        if name == "end sessions":
            database.shared().end_sessions(node.name)
        elif name == "end sessions of one":
            database.shared().end_sessions(node.name, f"application_name LIKE '%{node.directory.name}%'")
        elif name == "crash the database":
            database.shared().crash()
        elif name == "kill":
            self.crash(node)
        elif name == "lock":
            held = database.shared().lock(node.name, "SELECT pg_advisory_xact_lock(5570748134)")
            time.sleep(chance.uniform(0.1, 1.5))
            held.release()
        elif name == "trim the outbox":
            # What was published is let go at once, whoever has it.
            database.shared().sql(
                "BEGIN; SELECT pg_advisory_xact_lock(5570748134); UPDATE martlet_stream_slot SET kept = last; "
                "DELETE FROM martlet_stream; COMMIT", node.name)  # fmt: skip
        else:
            stand_still(node, chance.uniform(1.1, 4 * self.tempo + 1) if name == "still long" else self.long(chance))


class WritingDatabase(SharedDatabase):
    """The same, and a node of a replica region that follows the first and reads and writes at the second."""

    troubles = {
        **SharedDatabase.troubles, "stream": tuple(f"{what} the stream" for what in (*WAYS, *BATCHES)),
        "way": tuple(f"{what} the way" for what in WAYS)}  # fmt: skip

    def __init__(self, directory, chance, is_calm=False, tempo=1.0):
        super().__init__(directory, chance, is_calm, tempo)
        stream = free_port()
        self.relay, self.way = FrameRelay(stream), Relay(self.nodes[1].port)
        self.relays = [self.relay, self.way]
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
        names = ("first", "second", "replica")
        return [(name, port, keys, True, True) for name, (port, keys) in zip(names, self.writers, strict=True)]

    def do(self, name, chance):
        if name.endswith(("the stream", "the way")):
            self.on_relay(self.relay if name.endswith("stream") else self.way, name, chance)
        else:
            super().do(name, chance)


class Promoted(Bed):
    """Two regions that are home in turn, and a third one that reads and writes at home. What was acknowledged before the home
    moved is there behind it."""

    troubles = {
        "home": ("move", "move back"), "node": ("kill", "still"), "ways": ("drop", "cut a way", "cut a stream", "mute a stream"),
        "walsender": ("end walsenders",)}  # fmt: skip
    is_late = True

    def __init__(self, directory, chance, is_calm=False, tempo=1.0):
        super().__init__(directory, chance, is_calm, tempo)
        self.realm = self.make(directory, chance)
        self.nodes = [self.realm.east, self.realm.west, self.realm.south]
        self.next = "eu-west"
        self.relays = [*self.realm.streams.values(), *self.realm.ways.values()]

    def make(self, directory, chance):
        return Realm(directory, lag="1s", south=True)

    @property
    def writers(self):
        third = KEYS // 3
        bounds = [0, third, 2 * third, KEYS]
        return [(node.port, range(bounds[index], bounds[index + 1])) for index, node in enumerate(self.nodes)]

    @property
    def readers(self):
        names = ("east", "west", "south")
        return [(name, port, keys, True, True) for name, (port, keys) in zip(names, self.writers, strict=True)]

    def act(self, deck):
        # A move wants both regions to be there.
        if deck and deck[-1][0] == "home":
            _, name = deck.pop()
            self.heal()
            self.move()
            return self.count(name)
        moves = [card for card in deck if card[0] == "home"]
        rest = [card for card in deck if card[0] != "home"]
        super().act(rest)
        deck[:] = moves + rest if rest else moves

    def do(self, name, chance):
        if name == "kill":
            self.crash(chance.choice(self.nodes))
        elif name == "still":
            stand_still(chance.choice(self.nodes), min(2.0, self.long(chance)))
        elif name == "end walsenders":
            home = {"eu-west": "us-east", "us-east": "eu-west"}[self.next]
            self.realm.sql(home, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication")
        else:
            ways = self.realm.ways if name == "cut a way" else self.realm.streams
            self.on_relay(ways[chance.choice(sorted(ways))], name, chance)

    def move(self):
        other = {"eu-west": "us-east", "us-east": "eu-west"}[self.next]
        for node in self.nodes:
            node.await_figures(seconds=30, home_region=other, trusted="yes")
        code, report, said = self.realm.promote(self.next, "--timeout=20")
        assert code == 0, f"{self.next} was not promoted: {said}"
        assert report["lossless"], report
        for node in self.nodes:
            node.await_figures(seconds=30, home_region=self.next, trusted="yes")
        time.sleep(self.chance.uniform(0.1, 1))
        self.realm.rebuild(other, self.next)
        self.next = other

    def close(self):
        self.realm.__exit__()


class PromotedKafka(Promoted):
    """The same, and changes go through three brokers."""

    troubles = {**Promoted.troubles, "brokers": ("down", "lead", "slow")}

    def make(self, directory, chance):
        self.brokers = kafka.Brokers()
        mode = chance.choice(["invalidate", "replicate"])
        return Realm(directory, lag="1s", south=True, brokers=self.brokers, mode=mode)

    def do(self, name, chance):
        if name not in self.troubles["brokers"]:
            return super().do(name, chance)
        trouble_brokers(self.brokers, name, chance, self.long(chance))


class Owners(Bed):
    """Two home nodes on one database, and two nodes of a replica region, each of which follows another one of them and reads
    and writes there. In both regions keys have owners; the rings change. Some keys are another program's."""

    troubles = {
        "home ring": ("leave the home ring", "join the home ring"),
        "replica ring": ("leave the replica ring", "join the replica ring"), "node": ("kill", "still"),
        "stream": ("drop the stream", "hold the stream", "delay the stream"), "way": ("cut the way", "hold the way"),
        "database": ("end sessions",)}  # fmt: skip
    is_late = True

    def __init__(self, directory, chance, is_calm=False, tempo=1.0):
        super().__init__(directory, chance, is_calm, tempo)
        self.etcd = Etcd(directory / "etcd")
        self.home_ring, self.replica_ring = Ring(directory / "home.json"), Ring(directory / "replica.json")
        self.streams, self.ways = [], []
        for name in ("one", "two"):
            port = free_port()
            node = RegionNode(
                directory / name, "us-east", [], {"lagBound": "1s", "listen": f"127.0.0.1:{port}"}, backend="postgres",
                storage_instance=name, storage_timeout="5s", ownership_hash="multiProbe")  # fmt: skip
            self.streams.append(Relay(port))
            self.ways.append(Relay(node.port))
            self.home_ring.add(node)
        first, second = self.home_ring.nodes
        second.url = first.url
        database.initialise(first.url, "--capture=on")
        self.relays = [*self.streams, *self.ways]
        for name, stream, way in zip(("west", "east"), self.streams, self.ways, strict=True):
            listed = regions(stream.port)
            listed[0]["serve"] = f"127.0.0.1:{way.port}"
            node = RegionNode(
                directory / name, "eu-west", listed, {"lagBound": "1s", "mode": chance.choice(["invalidate", "replicate"])},
                backend="region", storage_timeout="5s", ownership_hash="multiProbe",
                ownership_authority=f"etcd://127.0.0.1:{self.etcd.port}/martlet/west")  # fmt: skip
            self.replica_ring.add(node)
            # All regions are listed alike at home.
            for home in self.home_ring.nodes:
                home.rewrite(regions=listed)
        self.nodes = [*self.home_ring.nodes, *self.replica_ring.nodes]

    def start(self):
        self.etcd.start()
        super().start()
        for ring in (self.home_ring, self.replica_ring):
            ring.settle()

    @property
    def shares(self):
        fifth = KEYS // 5
        return [range(index * fifth, (index + 1) * fifth) for index in range(5)]

    @property
    def writers(self):
        program = f"{database.shared().port}/{self.home_ring.nodes[0].name}"
        return list(zip([node.port for node in self.nodes] + [program], self.shares, strict=True))

    @property
    def readers(self):
        # What nodes did, home's show at once, whichever was asked; the replicas', what their region did.
        one, two, west, east, _ = self.shares
        own = (*one, *two, *west, *east), (*west, *east)
        return [
            (f"{name} {node.directory.name}", node.port, keys, True, True)
            for name, ring, keys in (("home", self.home_ring, own[0]), ("replica", self.replica_ring, own[1]))
            for node in ring.nodes]  # fmt: skip

    def do(self, name, chance):
        what, _, which = name.partition(" the ")
        if which.endswith("ring"):
            ring = self.home_ring if which == "home ring" else self.replica_ring
            (ring.leave if what == "leave" else ring.join)(chance)
        elif name == "kill":
            self.crash(chance.choice(self.nodes))
        elif name == "still":
            stand_still(chance.choice(self.nodes), self.long(chance))
        elif name == "end sessions":
            database.shared().end_sessions(self.home_ring.nodes[0].name)
        else:
            self.on_relay(chance.choice(self.streams if which == "stream" else self.ways), name, chance)

    def end(self):
        super().end()
        for ring in (self.home_ring, self.replica_ring):
            ring.out = None
            ring.want()
            ring.settle()

    def close(self):
        super().close()
        self.etcd.stop()


def stand_still(node, seconds):
    process = node.server.process
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(seconds)
    resume(process)


def resume(process):
    """Lets a process go on, unless somebody has killed it meanwhile."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)


KINDS = {
    "replica": Regions, "writes": WritingRegions, "database": SharedDatabase, "everything": WritingDatabase,
    "promotion": Promoted, "promotion-kafka": PromotedKafka, "kafka": KafkaRegions, "owners": Owners, "calm": Regions}  # fmt: skip


def run(seed, trouble, seconds, reads=0):
    """One round, until so many reads are checked: what was counted, and what is wrong."""
    chance = random.Random(f"streams {seed}")
    with tempfile.TemporaryDirectory(prefix="martlet-streams-") as name:
        bed = KINDS[trouble](Path(name), chance, trouble == "calm", 1.0 if seconds > 10 else 0.3)
        ledger = Ledger()
        counts, failures = {}, []
        try:
            bed.start()
            for node in bed.nodes:
                if node is not bed.home:
                    node.await_figures(trusted="yes", quarantined_slots=0)
            work = [CONTEXT.Process(target=ledger.write, args=(port, list(keys), 0.0005)) for port, keys in bed.writers]
            readers = bed.readers
            work += [CONTEXT.Process(target=ledger.read, args=(place, *reader)) for place, reader in enumerate(readers)]
            for process in work:
                process.start()
            try:
                play(bed, chance, seconds, lambda: sum(ledger.checked) >= reads and all(ledger.checked[: len(readers)]))
            finally:
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
                for what in ("quarantines", "gaps", "repairs", "connections", "damaged", "kafka_overruns", "kafka_restarts"):
                    counts[what] = counts.get(what, 0) + int(figures.get(what, 0) or 0)
        except AssertionError as error:
            failures.append(f"{type(error).__name__}: {error}")
        finally:
            for node in bed.nodes:
                node.stop()
            bed.close()
        actions = {name: bed.counts.get(name, 0) for _, name in bed.cards}
        if not failures:
            failures += [f"it did not happen: {name}" for name, count in actions.items() if not count]
            failures += [f"nothing was checked at {name}" for name, *_ in readers if not counts[f"checked at {name}"]]
            least = {"checked": max(reads, 100 * seconds), "writes": 10 * seconds, "deletes": seconds, "checked misses": seconds}
            failures += [f"only {counts[what]} {what}" for what, count in least.items() if counts[what] < count]
        counts.update({f"{trouble}: {name}": count for name, count in (*actions.items(), *bed.counts.items())})
        return counts, failures


def play(bed, chance, seconds, is_enough):
    """Troubles, until the time is over, each has happened, and enough was read: that may take a while, and no longer."""
    end, deck, is_first = time.monotonic() + seconds, [], True
    while (now := time.monotonic()) < end or (deck and is_first) or (not is_enough() and now < end + 300):
        if not deck:
            is_first = is_first and not bed.counts
            deck = list(bed.cards)
            chance.shuffle(deck)
        bed.act(deck)
    bed.end()


def converge(bed, ledger):
    """At the end, everybody has the last values; those without a store may have nothing."""
    for node in bed.nodes:
        if node is not bed.home:
            node.await_figures(seconds=30, trusted="yes", backlog=0, quarantined_slots=0)
    time.sleep(BOUND)
    wrong = []
    for node in bed.nodes:
        with node.client() as client:
            for key in range(KEYS):
                value = at_last(client, f"key:{key}")
                place = key * NUMBERS
                numbers = range(1, ledger.last[key] + 1)
                known = max((number for number in numbers if ledger.acked[place + number] > 0), default=0)
                # Of unknown outcome, which may have been done behind what came later.
                late = [number for number in numbers if bed.is_late and not ledger.acked[place + number]]
                if value is not None:
                    is_wrong = ledger.acked[place + int(value)] == REFUSED or int(value) < known and int(value) not in late
                elif node in bed.stored:
                    is_wrong = ledger.deleted[key] < known and not any(ledger.deletes[place + number] for number in late)
                else:
                    is_wrong = False
                if is_wrong:
                    wrong.append(f"{node.directory.name}: key {key} is {value} at the end, and {known} was acknowledged")
    return wrong


def at_last(client, key):
    """The value of a key, from a node whose store may be about to be reached again."""
    patience = Patience(10)
    while True:
        try:
            return client.get(key)
        except AssertionError:
            if patience.is_over:
                raise
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trouble", choices=TROUBLES, default="replica")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--list", action="store_true", help="print what goes wrong in which rounds")
    options = parser.parse_args()
    if options.list:
        kinds = {name: kind.troubles for name, kind in KINDS.items() if name != "calm"}
        print(json.dumps({name: [each for names in troubles.values() for each in names] for name, troubles in kinds.items()}))
        return 0
    counts, failures = run(options.seed, options.trouble, options.seconds)
    print(json.dumps({"counts": counts, "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
