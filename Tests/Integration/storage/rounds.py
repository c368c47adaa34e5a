# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Rounds of load and trouble, each with its verdict: a node, clients, what goes wrong, and the checker at the end.

    python -m storage.rounds --seed 7 --operations 50000 --trouble restarts      # one round; prints JSON

Troubles: `calm`; `evictions` (a small cache that a pool without storage fills, and flush_all); `restarts` (kill -9 and
SIGTERM by turns); `timeouts` (a limit that a disk cannot always keep); `everything`; `database` (a PostgreSQL that
crashes and starts again, and sessions that are ended); `errors` (a disk whose writes and syncs fail with EIO or ENOSPC,
until the node is started again); `reads` (a disk that cannot be read, the same).
"""

import argparse
import errno
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from bed import Closed

from .linearizability import check_all
from . import database
from .failing import KINDS, Failing
from .node import BACKEND, Node
from .workload import Plan, Run, read_all

#: By kind of trouble: the counts of which none, and where there are several not all, may be 0 after that many operations.
FAULTS = {
    "calm": (),
    "evictions": (("flushes",), ("evictions",)),
    "restarts": (("kills", "terminations"), ("flushes",)),
    "timeouts": (("unknown", "refused"), ("flushes",)),
    "everything": (("kills", "terminations"), ("flushes",), ("evictions",), ("unknown", "refused")),
    "database": (("database crashes",), ("sessions ended",), ("unknown", "refused")),
    "errors": (("disk errors",), ("unknown", "refused"), ("flushes",)),
    "reads": (("read errors",), ("refused",), ("flushes",)),
}
FAULT_OPERATIONS = 100_000
TROUBLES = tuple(FAULTS)
FILLER = {"prefix": "fill:", "name": "filler", "storage": False}


class Trouble:
    """What happens to a node while clients are at it. `ends` are the moments after which what was unknown is over."""

    def __init__(self, node, kind, seed):
        self.node, self.kind = node, kind
        self.random = random.Random(f"trouble {seed}")
        self.ends, self.counts = [], {}
        self.filled = 0
        self.deck = []  # the numbers of what is to come before anything comes again
        self.is_failing = False
        self.is_done = lambda: False  # whether the clients have ended
        self.over, self.hold = threading.Event(), multiprocessing.get_context("fork").Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def note(self, name, by=1):
        self.counts[name] = self.counts.get(name, 0) + by

    def flush(self):
        with self.node.client() as client:
            assert client.ask("flush_all") == "OK"
        self.note("flushes")

    def fill(self):
        """More than the cache holds, into a pool without storage."""
        value = b"f" * 30_000
        with self.node.client(30) as client:
            before = int(client.stats()["evictions"])
            for _ in range(12):
                for _ in range(50):
                    self.filled += 1
                    client.send(b"set fill:%d 0 0 %d noreply\r\n%s\r\n" % (self.filled % 5000, len(value), value))
                assert client.ask("mn") == "MN"
            self.note("evictions", int(client.stats()["evictions"]) - before)

    def restart(self):
        crash = self.random.random() < 0.6
        if crash:
            self.node.kill()
        else:
            code = self.node.terminate()
            assert code == 0, f"SIGTERM: exit code {code}"
        now = time.monotonic_ns()
        self.ends.append((now, now))
        began = time.monotonic()
        self.node.start()
        self.counts["slowest start ms"] = max(
            self.counts.get("slowest start ms", 0), round((time.monotonic() - began) * 1000))
        self.note("kills" if crash else "terminations")

    def crash_database(self):
        database.shared().crash()
        self.note("database crashes")

    def end_sessions(self):
        self.note("sessions ended", database.shared().end_sessions(self.node.name))

    def fail_disk(self):
        """The disk fails in the middle of the load: the node says so and goes on with reads, and a restart mends it."""
        kind, number = self.random.choice(KINDS)
        self.is_failing = True
        try:
            self.node.fail(kind, number, self.random.randrange(20))
            if self.becomes_read_only(kind, number):
                self.note("disk errors")
                self.stay_read_only()
        finally:
            self.is_failing = False

    def fail_reads(self):
        """The disk cannot be read in the middle of the load: of what is in no cache. A restart empties that of the store,
        while clients pause; writes, too, look at rows."""
        self.is_failing = True
        try:
            self.hold.set()
            self.restart()
            # All rows have room in a few blocks: the first to be read has most of them.
            self.node.fail("read", errno.EIO, 0)
            self.hold.clear()
            if self.becomes_read_only("read", errno.EIO):
                self.note("read errors")
                self.stay_read_only()
        finally:
            self.hold.clear()
            self.is_failing = False

    def becomes_read_only(self, kind, number):
        """Waits until the node says that its disk fails; false where the clients have ended before."""
        deadline = time.monotonic() + 20
        # Clients read and write all the time; where they have ended, nothing is left to fail.
        while not self.node.statistics()["storage_health"].startswith("read-only: "):
            if self.is_done():
                return False
            assert time.monotonic() < deadline, f"{kind} {number}: the node does not say that its disk fails"
            if kind == "read":
                self.flush()
            time.sleep(0.005)
        status, text = self.node.get("/readyz")
        assert status == 503 and "storage" in text, f"{kind} {number}: {status} {text}"
        self.note(f"disk errors: {kind} {errno.errorcode[number]}")
        return True

    def stay_read_only(self):
        time.sleep(self.random.random() * 0.05)
        self.flush()
        time.sleep(self.random.random() * 0.05)
        assert self.node.statistics()["storage_health"].startswith("read-only: "), "until the next start"
        self.restart()

    def watch(self):
        """From a thread of its own: lets the clients pause every now and then until nothing is under way. What was
        unknown before is over then."""
        while not self.over.wait(0.06):
            if self.is_failing:
                # What is unknown stays so until the restart; meanwhile, clients read.
                continue
            self.hold.set()
            try:
                deadline = time.monotonic() + 2
                while time.monotonic() < deadline and not self.is_failing and not self.look():
                    time.sleep(0.001)
            except (OSError, Closed, ValueError):
                pass
            finally:
                self.hold.clear()

    def look(self):
        """Whether no write is under way, and no key uncertain."""
        asked = time.monotonic_ns()
        rows = self.node.statistics()
        if rows.get("uncertain_keys") != 0 or rows.get("writes_in_flight") != 0:
            return False
        self.ends.append((asked, time.monotonic_ns()))
        self.note("pauses")
        return True

    def act(self):
        kinds = {
            "calm": [(0.1, lambda: None)],
            "evictions": [(0.15, self.flush), (0.25, self.fill)],
            "restarts": [(1.0, self.restart), (0.1, self.flush)],
            "timeouts": [(0.1, self.flush)],
            "database": [(0.7, self.crash_database), (0.2, self.end_sessions), (0.1, self.flush)],
            "errors": [(0.15, self.fail_disk), (0.05, self.flush)],
            "reads": [(0.15, self.fail_reads), (0.05, self.flush)],
            "everything": [(0.8, self.restart), (0.1, self.flush), (0.2, self.fill)],
        }[self.kind]  # fmt: skip
        if not self.deck:
            # Dealt, not drawn: also a short round meets each of them.
            self.deck = self.random.sample(range(len(kinds)), len(kinds))
        pause, action = kinds[self.deck.pop()]
        time.sleep(pause)
        try:
            action()
        except (Closed, ConnectionError) as error:
            # With so little time, the node may be slow to answer; it must not be gone.
            if not self.node.server.alive():
                raise AssertionError(f"the node ended: {self.node.server.output()[-2000:]}") from error


def run_round(seed, operations, trouble, backend=BACKEND, directory=None, timeout="2ms", clients=16, seconds=0):
    """One round, ended after `seconds` where they are given; returns what it counted and the verdicts that are not ok,
    as text."""
    tight = trouble in ("timeouts", "everything")
    watched = tight or trouble in ("database", "errors", "reads")
    settings = {"storage_timeout": timeout} if tight else {"storage_timeout": "20s"}
    small = trouble in ("evictions", "everything")
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        if trouble in ("errors", "reads"):
            node = Failing(Path(scratch), pools=[FILLER], flags=["-I", "1m"], **settings)
        else:
            node = Node(
                Path(scratch), pools=[FILLER], memory=16 if small else 64, backend=backend, flags=["-I", "1m"],
                **settings)
        with node:
            plan = Plan(
                node.port, seed, operations, prefix=f"r{seed}:", clients=clients,
                definite=trouble in ("calm", "evictions"), late=watched, seconds=seconds)  # fmt: skip
            began = time.monotonic()
            troubles = Trouble(node, trouble, seed)
            plan.hold = troubles.hold if watched else None
            run = Run(plan)
            troubles.is_done = lambda: not run.running()
            if watched:
                troubles.watcher.start()
            try:
                while run.running():
                    troubles.act()
                record = run.wait()
            finally:
                run.stop()
                troubles.over.set()
            if watched:
                troubles.watcher.join()
            took = time.monotonic() - began
            asked = time.monotonic_ns()
            figures = node.settle(60)
            troubles.ends.append((asked, time.monotonic_ns()))
            # Each key is read twice: from wherever it is, and from storage alone.
            patient = Plan(**{**vars(plan), "definite": True, "late": False, "hold": None})
            read_all(node, patient, record)
            troubles.flush()
            read_all(node, patient, record)
            troubles.ends.append((time.monotonic_ns(),) * 2)
    record.close(troubles.ends)
    began = time.monotonic()
    verdicts = check_all(record.histories)
    counts = {**record.counts, **troubles.counts, **count_checked(record.histories, verdicts)}
    counts["load ms"], counts["check ms"] = round(took * 1000), round((time.monotonic() - began) * 1000)
    counts["storage reads"] = figures.get("reads_sent", figures.get("reads", 0))
    failures = [verdict.text for verdict in verdicts if verdict.decided]
    failures += [f"key {key}: an odd reply {line!r}" for key, line in record.odd[:5]]
    return {"seed": seed, "trouble": trouble, "counts": counts, "failures": failures,
            "given up": [verdict.text for verdict in verdicts if not verdict.decided]}  # fmt: skip


def missing_faults(trouble, operations, counts):
    """What did not happen, though it was to: a round without it has shown nothing."""
    if operations < FAULT_OPERATIONS:
        return []
    return [
        f"no {' and no '.join(names)} in a round of {trouble}"
        for names in FAULTS[trouble]
        if not any(counts.get(name) for name in names)
    ]


def count_checked(histories, verdicts):
    """How many operations were judged. Those of a key whose search was given up were not, whatever it had seen."""
    given_up = {verdict.key for verdict in verdicts if not verdict.decided}
    counts = {"checked": 0, "not checked": 0, "keys given up": len(given_up)}
    for key, operations in histories.items():
        counts["not checked" if key in given_up else "checked"] += len(operations)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=50_000)
    parser.add_argument("--trouble", choices=TROUBLES, default="everything")
    parser.add_argument("--backend", default=BACKEND)
    options = parser.parse_args()
    result = run_round(options.seed, options.operations, options.trouble, options.backend)
    result["failures"] += missing_faults(options.trouble, options.operations, result["counts"])
    print(json.dumps(result))
    return 1 if result["failures"] or result["given up"] else 0


if __name__ == "__main__":
    sys.exit(main())
