# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A release takes another one's place, process by process and under load, and gives it back: no wrong value is read, no
write that was acknowledged is lost, and what cannot be used is refused with its reason.

    make upgrade-test BEFORE=DIRECTORY     # the earlier release's programs; without, those under test play both parts
"""

import json
import signal
import time

import pytest

from bed import Server, free_port
from router.bed import Router, default_router
from storage import database
from storage.node import Node
from storage.rings import Fleet
from streams.region import RegionNode, eventually, regions
from streams.test_writes import Fleet as Regions

from .release import Load, releases

pytestmark = pytest.mark.ours


@pytest.fixture(scope="module")
def pair():
    return releases()


def lines(server, message):
    found = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
    return [line for line in found if line["msg"] == message]


def end(server, seconds=30):
    """Ends a process as a supervisor does."""
    server.signal(signal.SIGTERM)
    code = server.wait(seconds)
    said = server.output()
    assert code == 0, said
    server.stop()


class Cache:
    """A node without storage that keeps its items over a restart."""

    def __init__(self, place, number):
        self.port, self.file = free_port(), place / f"items-{number}"
        self.server = None

    def start(self):
        self.server = Server(
            ["-l", "127.0.0.1", "-p", self.port, "-m", 64, "-t", 1, "-e", self.file, "--drain-timeout=500ms"], listen=False,
            wait=("127.0.0.1", self.port))  # fmt: skip
        # The kernel takes connections before the items are there; whoever is answered has them.
        with self.server.client(60) as client:
            assert client.ask("mn") == "MN"

    def restarted(self):
        """What became of the items: how many came back, or why none did."""
        assert self.server.says("items restored") or self.server.says("the cache begins empty"), self.server.output()
        if rows := lines(self.server, "items restored"):
            return rows[0]["items"]
        return lines(self.server, "the cache begins empty")[0]["reason"]


def test_caches_and_routers_are_rolled(pair, tmp_path):
    """Three nodes that keep their items, and two routers: the new release comes, node by node, then router by router; then
    the old one comes back, the other way round."""
    before, after = pair
    caches = [Cache(tmp_path, number) for number in range(3)]
    ports = [free_port(), free_port()]
    routers = [None, None]

    def route(number):
        routers[number] = Server(
            ["-l", "127.0.0.1", "-p", ports[number], "-t", 1, "--drain-timeout=500ms", "--health-first-probe=20ms",
             "--health-longest-probe=100ms", *(f"127.0.0.1:{cache.port}" for cache in caches)],
            command=default_router(), listen=False, wait=("127.0.0.1", ports[number]))  # fmt: skip

    outcomes = []
    try:
        with before.used():
            for cache in caches:
                cache.start()
            for number in range(2):
                route(number)
        with Load(ports, keeps=False) as load:
            load.settle()

            def roll(release, what):
                with release.used():
                    for kind in what:
                        for number in range(3 if kind == "nodes" else 2):
                            if kind == "nodes":
                                end(caches[number].server)
                                caches[number].start()
                                outcomes.append(caches[number].restarted())
                            else:
                                end(routers[number])
                                route(number)
                            load.settle()

            roll(after, ["nodes", "routers"])
            roll(before, ["routers", "nodes"])
        with routers[0].client() as client:
            load.check(client)
        print(f"{before} and {after}: {load}; restarts: {outcomes}")
        refused = [one for one in outcomes if isinstance(one, str)]
        if before.directory == after.directory:
            assert not refused, refused
            assert all(one > 0 for one in outcomes), outcomes
        # What another release wrote is used, or there is a reason that names what differs.
        assert all(" was " in one and " is " in one for one in refused), refused
        assert len(outcomes) == 6 and load.reads > 500 and load.misses < load.reads / 2
    finally:
        for server in [*routers, *(cache.server for cache in caches)]:
            if server:
                server.stop()


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_an_embedded_store_is_rolled(pair, tmp_path, durability):
    """The directory of one release is opened by the other, and back, with clients at it all the time."""
    before, after = pair
    node = Node(tmp_path, backend="rocksdb", drain_timeout="500ms", storage_durability=durability)
    with before.used():
        node.start()
    try:
        with Load([node.port], keeps=True) as load:
            load.settle()
            for release in (after, before, after):
                with release.used():
                    assert node.terminate() == 0
                    node.start()
                load.settle()
        with node.client() as client:
            load.check(client)
        print(f"{before} and {after}: {load}")
        assert load.writes > 500 and not load.misses
        # A copy of the store by one is a store for the other.
        assert node.statistics()["storage_health"] == "ready"
    finally:
        node.stop()


def test_nodes_that_share_a_database_are_rolled(pair, tmp_path):
    """The newer `storage init` while the older nodes serve (expand), then the nodes one by one, then the router; and all the
    way back without touching the tables."""
    if not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")
    before, after = pair
    if not before.knows("--ownership-hash"):
        pytest.skip(f"nodes of {before} cannot share a database")
    server, name = database.shared(), f"upgrade_{time.time_ns()}"
    server.sql(f"CREATE DATABASE {name}")
    variables = {"MARTLET_STORAGE_URL": server.url(name)}
    code, said = before.control("storage", "init", environment=variables)
    assert code == 0, said
    columns = "SELECT string_agg(table_name || '.' || column_name || ' ' || data_type, ',') " \
        "FROM information_schema.columns WHERE table_schema = 'public'"  # fmt: skip
    old = set(server.sql(columns, name).split(","))
    with before.used():
        fleet = Fleet(tmp_path)
        fleet.url = server.url(name)
        for node in fleet.nodes:
            node.url = fleet.url
    try:
        with before.used():
            fleet.start()
        with Load([fleet.port], keeps=True) as load:
            load.settle()
            code, said = after.control("storage", "init", environment=variables)
            assert code == 0, said
            assert old <= set(server.sql(columns, name).split(",")), "within a format, nothing is taken away"
            load.settle()
            for release in (after, before):
                with release.used():
                    for node in fleet.nodes:
                        assert node.terminate() == 0
                        node.start()
                        load.settle()
                    end(fleet.router)
                    fleet.router = Server(
                        ["-l", "127.0.0.1", "-p", fleet.port, "-t", "1", "--config", fleet.directory / "router.yaml"],
                        command=default_router(), listen=False, wait=("127.0.0.1", fleet.port))  # fmt: skip
                    load.settle()
        fleet.settle()
        with fleet.client() as client:
            load.check(client)
        print(f"{before} and {after}: {load}")
        assert load.writes > 500 and not load.misses
    finally:
        fleet.stop()
        server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("mode", ["invalidate", "replicate"])
@pytest.mark.parametrize("newer", ["home", "replica"])
def test_a_stream_between_releases(pair, tmp_path, newer, mode):
    """A region of one release follows a home region of another; then each is replaced by the other release, under load."""
    before, after = pair
    if not before.knows("--stream-listen"):
        pytest.skip(f"{before} has no streams")
    stream = free_port()
    listed = regions(stream)
    home = RegionNode(tmp_path / "home", "us-east", listed, {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb",
                      drain_timeout="1s")  # fmt: skip
    replica = RegionNode(tmp_path / "replica", "eu-west", listed, {"mode": mode, "lagBound": "30s"}, drain_timeout="1s")
    first = {"home": (after, before), "replica": (before, after)}[newer]
    try:
        for node, release in zip((home, replica), first):
            with release.used():
                node.start()
        replica.await_figures(trusted="yes", quarantined_slots=0)
        with Load([home.port], keeps=True, clients=2) as load:
            load.settle()
            for node, release in ((home, first[1]), (replica, first[0])):
                with release.used():
                    node.terminate()
                    node.start()
                replica.await_figures(30, trusted="yes", quarantined_slots=0)
                load.settle()
        with home.client() as client, replica.client() as far:
            load.check(client)
            # What was cached before the change is not there afterwards, or is the new value.
            for number in range(50):
                assert client.set(f"k{number}", "old") == "STORED"
            eventually(lambda: replica.figures()["backlog"] == 0)
            if mode == "invalidate":
                for number in range(50):
                    far.set(f"k{number}", "copy")
            for number in range(50):
                assert client.set(f"k{number}", "new") == "STORED"
            wanted = None if mode == "invalidate" else b"new"
            for number in range(50):
                eventually(lambda number=number: far.get(f"k{number}") == wanted)
            if mode == "replicate":
                for key, value in load.acknowledged.items():
                    found = far.get(key)
                    assert found is None or value <= int(found) <= load.sent[key], (key, found, value)
        figures = replica.figures()
        # A follower that begins gives up what it cannot know; afterwards nothing is.
        assert figures["damaged"] == figures["fenced"] == figures["quarantined_slots"] == 0, figures
        print(f"home {first[0]}, replica {first[1]}, then the other way round: {load}")
    finally:
        replica.stop()
        home.stop()


@pytest.mark.parametrize("newer", ["home", "replica"])
def test_a_replica_that_writes_at_a_home_of_another_release(pair, tmp_path, newer):
    before, after = pair
    if not before.knows("--storage-tls-name"):
        pytest.skip(f"{before} has no storage.backend region")
    home, replica = {"home": (after, before), "replica": (before, after)}[newer]
    fleet = Regions(tmp_path, "rocksdb", drain_timeout="1s")
    try:
        for nodes, release in ((fleet.homes, home), ([fleet.replica], replica)):
            with release.used():
                for node in nodes:
                    node.start()
        fleet.replica.await_figures(trusted="yes", quarantined_slots=0)
        with Load([fleet.replica.port], keeps=True, clients=2) as load:
            load.settle()
            for node, release in ((fleet.replica, home), (fleet.home, replica)):
                with release.used():
                    node.terminate()
                    node.start()
                fleet.replica.await_figures(30, trusted="yes", quarantined_slots=0)
                load.settle()
        with fleet.replica.client() as far, fleet.home.client() as client:
            load.check(far)
            load.check(client)
        assert load.writes > 300 and not load.misses
        print(f"home {home}, replica {replica}, then the other way round: {load}")
    finally:
        fleet.__exit__()


def test_a_router_that_dies():
    """Clients go to the other one; nobody reads anything wrong, and what was acknowledged is there."""
    with Server("-m 64") as node, Router([node]) as dying, Router([node]) as other:
        with Load([dying.port, other.port], keeps=True) as load:
            load.settle()
            dying.process.kill()
            dying.process.wait()
            load.settle()
        with other.client() as client:
            load.check(client)
        assert load.errors and not load.misses


def test_a_router_before_nodes_of_another_release(pair):
    """Every command that a router passes on, to a node of the other release; and the other way round."""
    for first, second in (pair, pair[::-1]):
        with first.used():
            node = Server("-m 64")
        try:
            with second.used(), Router([node]) as router, router.client() as client:
                for verb, value in (("set", "a"), ("replace", "b"), ("append", "c"), ("prepend", "d")):
                    assert client.set("k", value, verb=verb) == "STORED"
                assert client.get("k") == b"dbc"
                assert client.ask("mg k v f t s c").startswith("VA 3 f0 t-1 s3 c")
                assert client.line() == "dbc"
                assert client.ask("ms m 2 T0 MS I\r\nhi").startswith("HD")
                assert client.ask("mg m v k O7").startswith("VA 2 km O7")
                assert client.line() == "hi"
                assert client.ask("ma n N0 J5 v") == "VA 1" and client.line() == "5"
                assert client.ask("incr n 2") == "7" and client.ask("touch n 100") == "TOUCHED"
                client.send("md n q\r\nmn\r\n")
                assert client.line() == "MN"
                assert client.get("n") is None
                client.send("get k m none\r\n")
                rows = [client.line() for _ in range(5)]
                assert rows[-1] == "END" and sorted(row.split()[1] for row in rows if row.startswith("VALUE")) == ["k", "m"]
        finally:
            node.stop()
