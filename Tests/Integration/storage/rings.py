# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Rounds of a fleet that shares a PostgreSQL while its ring changes: three nodes, a router, clients, and the checker.

    python -m storage.rings --seed 7 --operations 50000 --trouble everything     # one round; prints JSON

Every three seconds another set of nodes is wanted. Troubles: `flap` (nothing else); `nodes` (nodes are killed and start
again, and stand still for longer than their leases); `database` (its sessions are ended); `everything`. Clients ask
through the router, which follows owners; with `direct`, half of them ask nodes as they please.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from bed import Closed, Patience, Server, free_port
from bed.server import ROOT, StartError

from . import database
from .linearizability import check_all
from .node import Node
from .workload import Plan, Record, Run, read_all

TROUBLES = ("flap", "nodes", "database", "everything")
FLAP = 3.0
LEASE = 1.0


class Member(Node):
    """One of the nodes that share a database."""

    def __init__(self, directory, name, url, members, *flags):
        directory.mkdir()
        super().__init__(
            directory, backend="postgres", threads=1,
            flags=[
                "--storage-instance", name, "--storage-connections", "4", "--storage-timeout", "4s",
                "--members", f"file:{members}", "--ownership-hash", "multiProbe", *flags,
            ])  # fmt: skip
        self.url = url
        self.arguments += ["--register-address", self.address]

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


class Fleet:
    """Nodes, what they are told about each other, and a router in front of them."""

    def __init__(self, directory, count=3, flags=()):
        self.directory = directory
        self.members = directory / "members.json"
        self.url = database.shared().fresh(str(directory))
        self.nodes = [Member(directory / f"n{n}", f"n{n}", self.url, self.members, *flags) for n in range(count)]
        self.port = free_port()
        self.router = None

    @property
    def name(self):
        return self.url.rsplit("/", 1)[1]

    def want(self, nodes):
        """Says who is in the fleet, from now on."""
        fresh = self.members.with_suffix(".fresh")
        fresh.write_text(json.dumps([node.address for node in nodes]))
        os.replace(fresh, self.members)

    def start(self):
        self.want(self.nodes)
        for node in self.nodes:
            node.start()
        pools = {"main": {"members": f"file:{self.members}", "followOwners": True, "timeout": "5s"}}
        config = self.directory / "router.yaml"
        config.write_text(json.dumps({"pools": pools, "route": "main"}))
        command = os.environ.get("MARTLET_ROUTER") or str(ROOT / ".build/release/martlet-router")
        self.router = Server(
            ["-l", "127.0.0.1", "-p", str(self.port), "-t", "1", "--config", str(config)], command=command,
            listen=False, wait=("127.0.0.1", self.port))  # fmt: skip
        self.settle()
        return self

    def settle(self, seconds=20):
        """Waits until all running nodes answer by one ring that is whole, and nothing is under way or unknown."""
        patience = Patience(seconds)
        while True:
            rows = [node.statistics() for node in self.nodes]
            epochs = {row["ring_epoch"] for row in rows}
            quiet = all(
                row["ring_is_leased"] and not row["ring_is_opening"] and not row.get("writes_in_flight")
                and not row.get("uncertain_keys") for row in rows)  # fmt: skip
            if len(epochs) == 1 and epochs != {0.0} and quiet:
                return rows
            assert not patience.is_over, rows
            time.sleep(0.02)

    def stop(self):
        if self.router:
            self.router.stop()
        for node in self.nodes:
            if node.server:
                node.server.signal(signal.SIGCONT)
            node.stop()

    def client(self, timeout=10):
        return self.router.client(timeout)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()


class Trouble:
    """What happens to the fleet while clients are at it; `ends` are moments after which what was unknown is over."""

    def __init__(self, fleet, kind, seed):
        self.fleet, self.kind = fleet, kind
        self.random = random.Random(f"ring {seed}")
        self.ends, self.counts, self.errors = [], {}, []
        self.over = threading.Event()
        self.hold = multiprocessing.get_context("fork").Event()
        self.busy = threading.Lock()  # while a node is down or stands still, nobody looks
        acts = [self.flap, self.watch]
        if kind in ("nodes", "everything"):
            acts.append(self.hurt)
        if kind in ("database", "everything"):
            acts.append(self.cut)
        self.threads = [threading.Thread(target=self.guarded, args=(act,), daemon=True) for act in acts]
        for thread in self.threads:
            thread.start()

    def note(self, name, by=1):
        self.counts[name] = self.counts.get(name, 0) + by

    def guarded(self, act):
        try:
            act()
        except Exception as error:  # told at the end
            self.errors.append(f"{act.__name__}: {type(error).__name__}: {error}")

    def stop(self):
        self.over.set()
        self.hold.clear()
        for thread in self.threads:
            thread.join(60)

    def flap(self):
        """One of the nodes is out, or back, every three seconds."""
        while not self.over.wait(FLAP):
            nodes = list(self.fleet.nodes)
            if self.counts.get("rings wanted", 0) % 2 == 0:
                nodes.remove(self.random.choice(nodes))
            self.fleet.want(nodes)
            self.note("rings wanted")

    def hurt(self):
        while not self.over.wait(self.random.uniform(0.7, 2.5)):
            node = self.random.choice(self.fleet.nodes)
            with self.busy:
                if self.random.random() < 0.5:
                    node.server.signal(signal.SIGSTOP)
                    time.sleep(self.random.uniform(0.2, 2.2 * LEASE))
                    node.server.signal(signal.SIGCONT)
                    self.note("stood still")
                else:
                    node.kill()
                    time.sleep(self.random.uniform(0, 0.5))
                    self.start(node)
                    self.note("kills")

    def start(self, node, tries=5):
        """A node whose session is ended as it starts does not start: whoever keeps nodes running starts it once more."""
        for left in reversed(range(tries)):
            try:
                return node.start()
            except StartError as error:
                if not left or "storage: " not in str(error):
                    raise

    def cut(self):
        while not self.over.wait(self.random.uniform(0.5, 2)):
            self.note("sessions ended", database.shared().end_sessions(self.fleet.name))

    def watch(self):
        """Lets the clients pause now and then until nothing is under way: what was unknown before is over then."""
        while not self.over.wait(0.4):
            with self.busy:
                self.hold.set()
                try:
                    asked = time.monotonic_ns()
                    deadline = time.monotonic() + 3
                    while time.monotonic() < deadline and not self.over.is_set():
                        if self.look() and self.look():
                            self.ends.append((asked, time.monotonic_ns()))
                            self.note("pauses")
                            break
                        asked = time.monotonic_ns()
                        time.sleep(0.005)
                except (OSError, Closed, ValueError, IndexError):
                    pass
                finally:
                    self.hold.clear()

    def look(self):
        for node in self.fleet.nodes:
            rows = node.statistics()
            if rows.get("uncertain_keys") != 0 or rows.get("writes_in_flight") != 0:
                return False
        time.sleep(0.01)
        return True


def run_round(seed, operations, trouble, directory=None, clients=16, direct=False, flags=(), seconds=0, least=0):
    """One round, over after so many operations, or so many seconds and the `least` of operations; returns what it counted
    and the verdicts that are not ok, as text."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        fleet = Fleet(Path(scratch), flags=flags)
        with fleet:
            began = time.monotonic()
            troubles = Trouble(fleet, trouble, seed)
            ports = [fleet.port] + ([node.port for node in fleet.nodes] if direct else [])
            share = clients // len(ports)
            plans = [
                Plan(
                    port, seed * 10 + number, operations // len(ports), prefix=f"g{seed}:", clients=share,
                    definite=False, late=True, hold=troubles.hold, seconds=seconds, least=least // len(ports),
                    processes=2 if len(ports) == 1 else 1)
                for number, port in enumerate(ports)
            ]  # fmt: skip
            runs = [Run(plan) for plan in plans]
            record = Record()
            try:
                for run in runs:
                    record.merge(run.wait())
            finally:
                for run in runs:
                    run.stop()
                troubles.stop()
            took = time.monotonic() - began
            # A node that could not be started again is not there.
            assert not troubles.errors, troubles.errors
            fleet.want(fleet.nodes)
            time.sleep(1.5)
            asked = time.monotonic_ns()
            rows = fleet.settle()
            troubles.ends.append((asked, time.monotonic_ns()))
            # Each key is read twice, by the router.
            patient = Plan(**{**vars(plans[0]), "definite": True, "late": False, "hold": None})
            read_all(fleet, patient, record)
            read_all(fleet, patient, record)
            with fleet.client() as client:
                moved = int(client.stats().get("moved", 0))
            troubles.ends.append((time.monotonic_ns(),) * 2)
    record.close(troubles.ends)
    began = time.monotonic()
    bad = check_all(record.histories)
    counts = {**record.counts, **troubles.counts, "epoch": int(rows[0]["ring_epoch"]), "followed": moved}
    for name in ("ring_moved", "ring_forwarded", "ring_withheld", "ring_swept", "postgres_fenced"):
        counts[name] = int(sum(row.get(name, 0) for row in rows))
    counts["checked"] = sum(len(operations) for operations in record.histories.values())
    counts["load ms"], counts["check ms"] = round(took * 1000), round((time.monotonic() - began) * 1000)
    failures = [verdict.text for verdict in bad]
    failures += [f"key {key}: an odd reply {line!r}" for key, line in record.odd[:5]]
    return {"seed": seed, "trouble": trouble, "counts": counts, "failures": failures}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=50_000)
    parser.add_argument("--trouble", choices=TROUBLES, default="everything")
    parser.add_argument("--direct", action="store_true", help="half of the clients ask nodes as they please")
    options = parser.parse_args()
    result = run_round(options.seed, options.operations, options.trouble, direct=options.direct)
    print(json.dumps(result))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
