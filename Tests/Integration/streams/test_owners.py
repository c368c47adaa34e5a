# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Several nodes of a replica region, which agree in a real etcd on who owns a key: whoever was told of a write reads it,
at whatever node, while the ring changes, nodes stand still, and the stream tells nothing."""

import json
import os
import random
import shutil
import signal
import time

import pytest

from bed import Closed, Crew, Server, free_port
from bed.server import ROOT
from discovery.etcd import Etcd

from .region import RegionNode, Relay, eventually

pytestmark = pytest.mark.ours
LEASE = 1.0


@pytest.fixture
def etcd(tmp_path):
    if shutil.which("etcd") is None:
        pytest.fail("there is no etcd: run make install")
    server = Etcd(tmp_path / "etcd")
    server.start()
    yield server
    server.stop()


class West:
    """A home region of one node; three nodes of a replica region, whose stream goes through a relay; and a router."""

    def __init__(self, directory, etcd, owners=True, flags=()):
        stream = free_port()
        self.members = directory / "members.json"
        self.home = RegionNode(directory / "home", "us-east", [], {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb")
        self.stream = Relay(stream)
        regions = [
            {"name": "us-east", "role": "home", "stream": f"127.0.0.1:{self.stream.port}",
             "serve": f"127.0.0.1:{self.home.port}"},
            {"name": "eu-west", "role": "replica"}]  # fmt: skip
        self.home.rewrite(regions=regions)
        self.nodes = []
        for number in range(3):
            node = RegionNode(
                directory / f"west{number}", "eu-west", regions, {"lagBound": "60s"}, backend="region", threads=1,
                members=f"file:{self.members}", flags=list(flags))
            node.address = f"127.0.0.1:{node.port}"
            if owners:
                node.arguments += [
                    "--register-address", node.address, "--ownership-hash", "multiProbe",
                    "--ownership-authority", f"etcd://127.0.0.1:{etcd.port}/martlet/west"]  # fmt: skip
            self.nodes.append(node)
        self.owners, self.directory, self.port, self.router = owners, directory, free_port(), None

    def want(self, nodes):
        fresh = self.members.with_suffix(".fresh")
        fresh.write_text(json.dumps([node.address for node in nodes]))
        os.replace(fresh, self.members)

    def settle(self, seconds=20):
        """Waits until all nodes answer by one ring that is whole."""
        def rows():
            found = [node.statistics() for node in self.nodes]
            whole = all(row["ring_is_leased"] and not row["ring_is_opening"] for row in found)
            epochs = {row["ring_epoch"] for row in found}
            return found if whole and len(epochs) == 1 and epochs != {0.0} else None

        return eventually(rows, seconds)

    def __enter__(self):
        try:
            self.want(self.nodes)
            for node in (self.home, *self.nodes):
                node.start()
            for node in self.nodes:
                node.await_figures(trusted="yes", quarantined_slots=0)
            pool = {"members": f"file:{self.members}", "timeout": "5s", **({"followOwners": True} if self.owners else {})}
            config = self.directory / "router.yaml"
            config.write_text(json.dumps({"pools": {"main": pool}, "route": "main"}))
            command = os.environ.get("MARTLET_ROUTER") or str(ROOT / ".build/release/martlet-router")
            self.router = Server(
                ["-l", "127.0.0.1", "-p", str(self.port), "-t", "1", "--config", str(config)], command=command,
                listen=False, wait=("127.0.0.1", self.port))  # fmt: skip
            if self.owners:
                self.settle()
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        if self.router:
            self.router.stop()
        for node in self.nodes:
            if node.server:
                node.server.signal(signal.SIGCONT)
            node.stop()
        self.home.stop()
        self.stream.close()


def said(client, command):
    """The lines that a command is answered with."""
    client.send(command + "\r\nmn\r\n")
    rows = []
    while (row := client.line()) != "MN":
        rows.append(row)
    return rows


def test_every_key_is_one_nodes_and_any_node_answers(tmp_path, etcd):
    with West(tmp_path, etcd) as west:
        owners = {}
        for node in west.nodes:
            with node.client() as client:
                assert client.ask("config get owners").startswith("OWNERS ")
                for number in range(60):
                    if "302 try again" not in client.ask(f"mg key-{number} c"):
                        owners.setdefault(number, []).append(node)
        assert sorted(owners) == list(range(60)) and all(len(nodes) == 1 for nodes in owners.values())
        assert all(sum(nodes == [node] for nodes in owners.values()) >= 5 for node in west.nodes)
        for number, node in enumerate(west.nodes):
            with node.client() as client, west.home.client() as home:
                for key in range(20):
                    assert client.set(f"key-{key}", f"{number}") == "STORED"
                    assert home.get(f"key-{key}") == client.get(f"key-{key}") == str(number).encode()
        assert sum(node.statistics()["ring_forwarded"] for node in west.nodes) > 60
        with west.router.client() as client:
            assert client.set("routed", "x") == "STORED" and client.get("routed") == b"x"
        # Leases are renewed by reads: etcd keeps no history of them.
        revision = etcd.call("kv/range", {"key": "YQ=="})["header"]["revision"]
        exchanges = sum(node.statistics()["ring_exchanges"] for node in west.nodes)
        time.sleep(2)
        assert etcd.call("kv/range", {"key": "YQ=="})["header"]["revision"] == revision
        assert sum(node.statistics()["ring_exchanges"] for node in west.nodes) - exchanges >= 9
        # What is in etcd is beside the members, and one that leaves gives its name back.
        west.nodes[2].terminate()
        keys = {key: value for key, value in etcd.keys("/martlet/west.owners/name/").items()}
        assert keys.pop(f"/martlet/west.owners/name/{west.nodes[2].address}") == 0
        assert len(keys) == 2 and all(value > 0 for value in keys.values())


class Writers(Crew):
    """Threads that each set keys of their own to growing numbers, and read them at any door: never less than what the
    last acknowledged set of it said."""

    def __init__(self, doors, threads=4, keys=12):
        super().__init__(threads)
        self.doors, self.keys = doors, keys
        self.stale, self.odd, self.acked, self.failed, self.read = [], [], 0, 0, 0
        self.last = {}

    def run(self, number):
        pick = random.Random(number)
        clients, count = [None] * len(self.doors), 0
        while not self.over.is_set():
            count += 1
            key = f"own-{number}-{pick.randrange(self.keys)}"
            door = pick.randrange(len(self.doors))
            try:
                if clients[door] is None:
                    clients[door] = self.doors[door](5)
                client = clients[door]
                if pick.random() < 0.35:
                    answer = client.set(key, str(count))
                    if answer == "STORED":
                        self.last[key] = count
                        self.acked += 1
                    else:
                        self.failed += 1
                else:
                    self.look(client, key)
            except (Closed, OSError):
                clients[door] = None
                self.failed += 1

    def look(self, client, key):
        least = self.last.get(key, 0)
        rows = said(client, f"get {key}")
        if rows and rows[0].startswith("VALUE "):
            self.read += 1
            if int(rows[1]) < least:
                self.stale.append((key, least, rows[1]))
        elif rows == ["END"]:
            self.read += 1
            if least:
                self.stale.append((key, least, None))
        elif rows and rows[0].startswith("SERVER_ERROR"):
            self.failed += 1
        else:
            self.odd.append(rows)


def flap(west, pick, seconds, stands_still):
    """Another set of nodes every second and a half, and nodes that stand still for longer than their lease."""
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        nodes = list(west.nodes)
        if turn % 2 == 0:
            nodes.remove(pick.choice(nodes))
        west.want(nodes)
        turn += 1
        if stands_still and turn % 3 == 0:
            node = pick.choice(west.nodes)
            node.server.signal(signal.SIGSTOP)
            time.sleep(pick.uniform(0.3, 2 * LEASE))
            node.server.signal(signal.SIGCONT)
        time.sleep(1.5)
    west.want(west.nodes)


@pytest.mark.parametrize("stands_still", [False, True], ids=["ring", "nodes"])
def test_who_was_told_of_a_write_reads_it_while_the_ring_changes(tmp_path, etcd, stands_still):
    seed = int(os.environ.get("MARTLET_SEED") or time.time_ns() % 100_000)
    with West(tmp_path, etcd) as west:
        # Nobody hears of anything by the stream: a copy that is stale stays.
        west.stream.is_held = True
        doors = [west.router.client, *[node.client for node in west.nodes]]
        with Writers(doors) as writers:
            flap(west, random.Random(seed), 18, stands_still)
        assert not writers.stale and not writers.odd, (f"MARTLET_SEED={seed}", writers.stale[:3], writers.odd[:3])
        rows = west.settle()
        with west.router.client() as client:
            for key, least in writers.last.items():
                assert int(client.get(key)) >= least, f"MARTLET_SEED={seed}: {key}"
        print(f"{writers.acked} writes, {writers.read} reads, {writers.failed} errors, epoch {rows[0]['ring_epoch']:.0f}, "
              f"disowned {sum(row['region_writes_disowned'] for row in rows):.0f}")
        assert writers.acked > 300 and writers.read > 600 and rows[0]["ring_epoch"] >= 5


def test_without_owners_what_is_stale_is_seen(tmp_path, etcd):
    """The same clients before nodes that know nothing of each other: the test above sees what it is for."""
    with West(tmp_path, etcd, owners=False) as west:
        west.stream.is_held = True
        with Writers([west.router.client]) as writers:
            flap(west, random.Random(1), 8, False)
        assert writers.stale and not writers.odd


def test_without_a_lease_nothing_is_shown_and_nothing_written(tmp_path, etcd):
    with West(tmp_path, etcd) as west:
        with west.router.client() as client:
            for number in range(30):
                assert client.set(f"k-{number}", "1") == "STORED"
        epoch = west.nodes[0].statistics()["ring_epoch"]
        etcd.stop()
        eventually(lambda: not any(node.statistics()["ring_is_leased"] for node in west.nodes))
        before = [node.statistics() for node in west.nodes]
        with west.router.client() as client, west.home.client() as home:
            for number in range(30):
                # Home answers what the copies may not.
                assert home.set(f"k-{number}", "2") == "STORED"
                assert client.get(f"k-{number}") == b"2"
            answer = client.set("k-0", "3")
            assert answer.startswith("SERVER_ERROR") and "the node has no lease" in answer, answer
            assert home.get("k-0") == b"2"
        after = [node.statistics() for node in west.nodes]
        assert sum(row["ring_withheld"] for row in after) - sum(row["ring_withheld"] for row in before) >= 30
        etcd.start()
        rows = west.settle()
        assert rows[0]["ring_epoch"] >= epoch
        with west.router.client() as client:
            assert client.set("k-0", "3") == "STORED" and client.get("k-0") == b"3"
            for number in range(1, 30):
                assert client.get(f"k-{number}") == b"2"


def test_an_etcd_that_forgot_everything_is_begun_anew(tmp_path, etcd):
    """Its epochs count from 1 again: nodes take nothing that they had for theirs."""
    with West(tmp_path, etcd) as west:
        west.stream.is_held = True
        west.want(west.nodes[:2])
        eventually(lambda: all(node.statistics()["ring_epoch"] >= 2 for node in west.nodes))
        west.want(west.nodes)
        eventually(lambda: all(node.statistics()["ring_epoch"] >= 3 for node in west.nodes))
        with Writers([west.router.client]) as writers:
            time.sleep(1)
            etcd.stop()
            shutil.rmtree(etcd.directory)
            etcd.start()
            eventually(lambda: all(0 < node.statistics()["ring_epoch"] < 3 for node in west.nodes))
            west.settle()
            time.sleep(1)
        assert not writers.stale and not writers.odd, writers.stale[:3]
        assert writers.acked > 50


@pytest.mark.parametrize(("settings", "says"), [
    ({"ownership_hash": "jump"}, "ownership.authority: missing; nodes of a replica region agree in etcd"),
    ({"ownership_hash": "jump", "ownership_authority": "dns+a:1"}, "expected etcd://HOST:PORT/PREFIX"),
    ({"ownership_hash": "jump", "ownership_authority": "etcd://a:1"}, "a prefix is missing"),
])
def test_settings_are_checked(tmp_path, settings, says):
    regions = [
        {"name": "us-east", "role": "home", "stream": "127.0.0.1:1", "serve": "127.0.0.1:2"},
        {"name": "eu-west", "role": "replica"}]
    node = RegionNode(tmp_path / "one", "eu-west", regions, backend="region", members="127.0.0.1:1",
                      register_address="127.0.0.1:1", **settings)
    code, text = node.refuse()
    assert code != 0 and says in text, text
