# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A replica region that reads and writes at home: what it answers, what its clients see of their own writes, and what
happens when home, or the way there, is gone."""

import json
import os
import random
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bed import Closed, default_command, free_port
from documents.test_reference import documented, exported
from storage import database

from .certificates import certificates, secured
from .region import RegionNode, Relay, eventually

pytestmark = pytest.mark.ours


class Fleet:
    """A home region, of one node with an embedded store or of two on a PostgreSQL, and a node of a replica region that
    follows it through one relay and reads and writes there through another."""

    def __init__(self, directory, backend="rocksdb", home=(), replica=(), pools=(), serve="127.0.0.1", **options):
        if backend == "postgres" and not database.is_installed():
            pytest.fail("there is no PostgreSQL: run make install")
        stream = free_port()
        self.homes = []
        for name in ("home", "second")[: 2 if backend == "postgres" else 1]:
            keys = {"listen": f"127.0.0.1:{stream if not self.homes else free_port()}", **dict(home)}
            more = {"storage_instance": name} if backend == "postgres" else {}
            node = RegionNode(directory / name, "us-east", [], keys, backend=backend, **more)
            if self.homes:
                node.url = self.homes[0].url
            self.homes.append(node)
        self.home = self.homes[0]
        self.stream = Relay(stream)
        # The replica follows one node, and asks the other where there are two.
        self.way = Relay(self.homes[-1].port)
        self.regions = [
            {"name": "us-east", "role": "home", "stream": f"127.0.0.1:{self.stream.port}", "serve": f"{serve}:{self.way.port}"},
            {"name": "eu-west", "role": "replica"}]  # fmt: skip
        for node in self.homes:
            node.rewrite(regions=self.regions)
        self.replica = RegionNode(
            directory / "replica", "eu-west", self.regions, {"lagBound": "30s", **dict(replica)}, backend="region", **options)
        if pools:
            self.replica.rewrite(pools=list(pools))

    def __enter__(self):
        for node in self.homes:
            node.start()
        self.replica.start()
        self.replica.await_figures(trusted="yes", quarantined_slots=0)
        return self

    def __exit__(self, *_):
        self.replica.stop()
        for node in self.homes:
            node.stop()
        for relay in (self.stream, self.way):
            relay.close()


@pytest.fixture(params=["rocksdb", "postgres"])
def fleet(request, tmp_path):
    with Fleet(tmp_path, request.param) as all_of_it:
        yield all_of_it


COMMANDS = [
    "get KEY", "add KEY 0 0 1|1", "add KEY 0 0 1|2", "get KEY", "set KEY 7 0 5|hello", "get KEY", "append KEY 0 0 2|!!",
    "prepend KEY 0 0 2|oh", "get KEY", "replace KEY 3 0 1|4", "incr KEY 20", "decr KEY 15", "get KEY", "decr KEY 100",
    "touch KEY 1000", "mg KEY v f", "gat 0 KEY", "delete KEY", "delete KEY", "touch KEY 10", "incr KEY 1", "replace KEY 0 0 1|x",
    "append KEY 0 0 1|x", "ms KEY 3 F5|abc", "mg KEY v f s", "ms KEY 2 MA s|de", "ms KEY 2 MP|zz", "mg KEY v f s k", "ms KEY 1 ME|n",
    "ms KEY 1 MR T0|r", "md KEY C5", "ms KEY 1 C5|c", "mg KEY v", "ma KEY", "md KEY q", "ma KEY N0 J13 v", "ma KEY N0 J13 v D7",
    "ma KEY MD D3 v t", "ma KEY v t T1000", "ma KEY v N30 J5 t T0", "mg KEY v t", "md KEY x", "mg KEY v s", "md KEY", "mg KEY v",
    "ma KEY N0 J4 t v", "md KEY", "ms KEY 2 MA N0|aa", "mg KEY v", "set KEY 0 -1 1|x", "get KEY", "gets KEY", "gat 100 KEY",
    "set KEY 0 0 3|abc", "incr KEY 1", "set KEY 0 0 100|" + "v" * 100, "get KEY", "cas KEY 0 0 1 12|x", "mn",
]  # fmt: skip


def conversation(client, key):
    """What a node answers to the commands, but for versions."""
    said = []
    for command in COMMANDS:
        line, _, value = command.replace("KEY", key).partition("|")
        client.send(line + "\r\n" + (value + "\r\n" if "|" in command else "") + "mn\r\n")
        rows = []
        while (row := client.line()) != "MN":
            rows.append(row)
        if line == "mn":
            client.line()
        said.append((command, rows))
    return said


def test_every_command_answers_as_at_home(fleet):
    with fleet.home.client() as home, fleet.replica.client() as replica:
        assert conversation(replica, "there") == [
            (command, [row.replace("here0", "there") for row in rows]) for command, rows in conversation(home, "here0")]  # fmt: skip
        for key in ("here0", "there"):
            assert home.get(key) == b"v" * 100
        # A key that only base64 can spell, and a large value.
        assert replica.ask("ms YSBrZXkgd2l0aCBzcGFjZXM= 2 b\r\nhi") == "HD"
        assert home.ask("mg YSBrZXkgd2l0aCBzcGFjZXM= b v") == "VA 2" and home.line() == "hi"
        large = b"x" * 700_000
        assert replica.set("large", large) == "STORED"
        assert home.get("large") == large and replica.get("large") == large
    found = fleet.replica.statistics()
    assert found["storage_health"] == "ready" and found["region_writes"] > 30 and found["region_reads"] > 5
    assert found["region_connections"] >= 2 and found["writes_in_flight"] == found["uncertain_keys"] == 0


def test_versions_are_those_of_home(fleet):
    with fleet.home.client() as home, fleet.replica.client() as replica:
        for number in range(50):
            key = f"key:{number}"
            answer = replica.ask(f"ms {key} 1 c\r\nv")
            assert answer.startswith("HD c")
            version = answer.split("c")[1]
            assert home.ask(f"mg {key} c") == f"HD c{version}" == replica.ask(f"mg {key} c")
            # The other region's change makes this one's compare fail, and the right version works.
            assert home.ask(f"ms {key} 1 C{version}\r\nw") == "HD"
            assert replica.ask(f"ms {key} 1 C{version}\r\nx") == "EX"
            assert eventually(lambda key=key: replica.get(key) == b"w")
            current = replica.ask(f"mg {key} c").split("c")[1]
            assert int(current) > int(version)
            assert replica.ask(f"ms {key} 1 C{current}\r\ny") == "HD"
            assert home.get(key) == b"y" or eventually(lambda key=key: home.get(key) == b"y")


def test_a_read_is_answered_by_home_once_and_then_from_the_cache(fleet):
    with fleet.home.client() as home, fleet.replica.client() as replica:
        home.set("k", b"v", flags=9)
        time.sleep(0.3)
        assert replica.get("k") == b"v"
        reads = fleet.replica.statistics()["region_reads"]
        for _ in range(20):
            assert replica.get("k") == b"v"
        assert fleet.replica.statistics()["region_reads"] == reads
        home.set("k", b"new")
        eventually(lambda: replica.get("k") == b"new")
        assert replica.get("nothing") is None
        reads = fleet.replica.statistics()["region_reads"]
        assert replica.get("nothing") is None, "that there is nothing is cached, too"
        assert fleet.replica.statistics()["region_reads"] == reads
        home.set("nothing", b"something")
        eventually(lambda: replica.get("nothing") == b"something")


def test_rows_expire_in_both_regions(fleet):
    with fleet.home.client() as home, fleet.replica.client() as replica:
        for client in (home, replica):
            assert client.set("short", b"v", exptime=3) == "STORED"
            began = time.monotonic()
            # Nodes that share a database learn of each other's writes a little later.
            eventually(lambda: replica.get("short") == b"v", 1)
            eventually(lambda: home.get("short") == b"v", 1)
            left = int(replica.ask("mg short t").split("t")[1])
            assert 0 <= left <= 3
            time.sleep(3.1 - (time.monotonic() - began))
            assert replica.get("short") is None and home.get("short") is None
        assert replica.set("long", b"v", exptime=1000) == "STORED"
        for client in (home, replica):
            assert eventually(lambda client=client: 990 <= int("0" + client.ask("mg long t").partition("t")[2]) <= 1001)
        assert replica.ask("touch long 2000") == "TOUCHED"
        for client in (home, replica):
            assert eventually(lambda client=client: 1990 <= int("0" + client.ask("mg long t").partition("t")[2]) <= 2001)


class Sight:
    """Clients of both regions: whoever reads in the replica region sees what was acknowledged there, and nobody sees a
    version that is older than one he saw."""

    KEYS = 12

    def __init__(self, fleet, seed):
        self.fleet, self.seed = fleet, seed
        # By key: the greatest version that a client of the replica region has been told of its own write.
        self.acked = [0] * self.KEYS
        self.locks = [threading.Lock() for _ in range(self.KEYS)]
        self.is_over, self.wrong, self.counts = False, [], {"reads": 0, "writes": 0, "failed": 0}

    def note(self, what):
        self.counts[what] += 1

    def local(self, number):
        """Reads and writes in the replica region."""
        chance, client, seen = random.Random(f"{self.seed} {number}"), None, {}
        while not self.is_over:
            key = chance.randrange(self.KEYS)
            try:
                if client is None:
                    client, seen = self.fleet.replica.client(), {}
                if chance.random() < 0.3:
                    answer = client.ask(f"ms key:{key} 4 c\r\n{chance.randrange(1000, 9999)}")
                    if match := re.fullmatch(r"HD c(\d+)", answer):
                        with self.locks[key]:
                            self.acked[key] = max(self.acked[key], int(match[1]))
                        self.note("writes")
                    else:
                        self.note("failed")
                    continue
                least = max(self.acked[key], seen.get(key, 0))
                answer = client.ask(f"mg key:{key} c")
                if match := re.fullmatch(r"HD c(\d+)", answer):
                    seen[key] = int(match[1])
                    if seen[key] < least:
                        self.wrong.append((key, least, seen[key]))
                elif answer == "EN" and least:
                    self.wrong.append((key, least, "nothing"))
                self.note("reads" if match else "failed")
            except (Closed, OSError):
                client = None
                time.sleep(0.02)

    def distant(self, node):
        """Writes at home."""
        client, turn = None, 0
        while not self.is_over:
            turn += 1
            try:
                client = client or node.client()
                client.set(f"key:{turn % self.KEYS}", b"%d" % turn)
            except (Closed, OSError):
                client = None
            time.sleep(0.002)

    def run(self, nemesis):
        work = [threading.Thread(target=self.local, args=(number,)) for number in range(4)]
        work += [threading.Thread(target=self.distant, args=(node,)) for node in self.fleet.homes]
        for thread in work:
            thread.start()
        try:
            nemesis()
        finally:
            self.is_over = True
            for thread in work:
                thread.join()
        print(f"seed {self.seed}: {self.counts}")
        assert not self.wrong, (self.seed, self.wrong[:5])


@pytest.mark.parametrize(("backend", "mode"), [("rocksdb", "replicate"), ("postgres", "invalidate"), ("postgres", "replicate")])
def test_clients_of_the_region_see_what_they_wrote(tmp_path, backend, mode):
    seed = int(os.environ.get("MARTLET_SEED") or 7)
    with Fleet(tmp_path, backend, replica={"mode": mode}) as fleet:
        sight = Sight(fleet, seed)

        def nemesis():
            time.sleep(1)
            fleet.stream.is_held = True
            time.sleep(0.7)
            fleet.stream.heal()
            fleet.stream.delay = 0.05
            time.sleep(0.7)
            fleet.way.drop()
            time.sleep(0.7)
            fleet.stream.heal()
            fleet.way.delay = 0.02
            time.sleep(0.7)
            fleet.way.heal()
            fleet.stream.drop()
            time.sleep(0.7)

        sight.run(nemesis)
        assert sight.counts["reads"] > 200 and sight.counts["writes"] > 50, sight.counts
        fleet.replica.await_figures(trusted="yes", backlog=0)
        same_in_the_end(fleet, [f"key:{key}" for key in range(Sight.KEYS)])


def same_in_the_end(fleet, keys):
    """What the replica shows is what home has."""
    time.sleep(0.5)
    with fleet.replica.client() as replica:
        shown = {key: replica.get(key) for key in keys}
    for node in fleet.homes:
        with node.client() as home:
            assert {key: home.get(key) for key in keys} == shown


def test_no_copy_of_the_other_home_node_outlives_its_change(tmp_path):
    """Records of one home node's writes overtake what another home node's cache knows: a copy that is read there just
    then would never be heard of again."""
    with Fleet(tmp_path, "postgres") as fleet:
        writer, asked = fleet.homes
        keys = [f"key:{number}" for number in range(60)]
        with writer.client() as home, asked.client() as second, fleet.replica.client() as replica:
            for turn in range(60):
                for key in keys:
                    home.send(f"set {key} 0 0 {len(str(turn))} noreply\r\n{turn}\r\n")
                    second.send(f"get {key}\r\n")
                    while second.line() != "END":
                        pass
                for _ in range(2):
                    for key in keys:
                        replica.get(key)
            assert home.ask("mn") == "MN"
            eventually(lambda: all(replica.get(key) == b"59" for key in keys))
        same_in_the_end(fleet, keys)


def test_without_home_copies_are_shown_and_the_rest_fails_clearly(tmp_path):
    with Fleet(tmp_path, replica={"lagBound": "60s"}, storage_timeout="1s") as fleet:
        with fleet.replica.client() as replica:
            assert replica.set("kept", b"1") == "STORED"
            fleet.home.kill()
            assert replica.get("kept") == b"1", "a copy within the bound"
            failed = "SERVER_ERROR storage: the home region us-east cannot be reached"
            eventually(lambda: replica.ask("get other") == failed)
            answers = []
            eventually(lambda: answers.append(replica.set("kept", b"2")) or answers[-1] == failed)
            if answers[0] == failed:
                assert replica.get("kept") == b"1", "nothing was done, and nothing changed"
            # Once each of its connections is known to be gone.
            eventually(lambda: "the home region us-east cannot be reached" in fleet.replica.statistics()["storage_health"])
            fleet.home.start()
            eventually(lambda: replica.set("kept", b"3") == "STORED")
            assert replica.get("kept") == b"3" and replica.get("other") is None
        fleet.replica.settle()
        with fleet.home.client() as home:
            assert home.get("kept") == b"3"


def test_past_the_bound_only_a_pool_that_allows_it_shows_stale_copies(tmp_path):
    pools = [{"prefix": "soft:", "cacheTTL": "1h", "staleIfError": "1h"}, {"prefix": ""}]
    with Fleet(tmp_path, replica={"lagBound": "1s"}, pools=pools, storage_timeout="1s") as fleet, fleet.replica.client() as replica:
        assert replica.set("soft:k", b"1") == replica.set("k", b"1") == "STORED"
        fleet.home.kill()
        time.sleep(1.5)
        assert replica.ask("mg k v").startswith("SERVER_ERROR storage: the")
        assert eventually(lambda: replica.ask("mg k v") == "SERVER_ERROR storage: the home region us-east cannot be reached")
        assert replica.ask("mg soft:k v") == "VA 1 X" and replica.line() == "1"
        fleet.home.start()
        fleet.replica.await_figures(trusted="yes")
        assert eventually(lambda: replica.ask("mg soft:k v") == "VA 1" and replica.line() == "1")
        assert replica.get("k") == b"1"


def test_a_way_that_holds_writes_back_leaves_their_outcome_open(tmp_path):
    with Fleet(tmp_path, storage_timeout="1s") as fleet:
        with fleet.replica.client() as replica, fleet.home.client() as home:
            assert replica.set("k", b"1") == "STORED"
            fleet.way.is_held = True
            began = time.monotonic()
            assert replica.set("k", b"2") == "SERVER_ERROR outcome unknown"
            assert time.monotonic() - began < 5
            assert replica.ask("get k").startswith("SERVER_ERROR storage: "), "what is there now, only home knows"
            fleet.way.heal()
            # It was on its way, and arrives at last.
            eventually(lambda: home.get("k") == b"2")
            eventually(lambda: replica.ask("mg k v") == "VA 1" and replica.line() == "2")
            assert eventually(lambda: replica.set("k", b"3") == "STORED")
            assert replica.get("k") == home.get("k") == b"3"
        fleet.replica.settle()


def test_a_stream_that_is_cut_leaves_the_way_home(tmp_path):
    with Fleet(tmp_path, replica={"lagBound": "1s"}) as fleet, fleet.replica.client() as replica, fleet.home.client() as home:
        home.set("k", b"1")
        eventually(lambda: replica.get("k") == b"1")
        fleet.stream.cut()
        time.sleep(1.5)
        reads = fleet.replica.statistics()["region_reads"]
        for number in range(5):
            home.set("k", b"%d" % number)
            assert replica.get("k") == b"%d" % number, "no copy is trusted: home is asked each time"
        assert fleet.replica.statistics()["region_reads"] >= reads + 5
        fleet.stream.heal()
        fleet.replica.await_figures(trusted="yes", quarantined_slots=0)
        home.set("k", b"again")
        eventually(lambda: replica.get("k") == b"again")


def test_the_other_address_is_taken_when_one_fails(tmp_path):
    dead = free_port()
    fleet = Fleet(tmp_path)
    second = Relay(fleet.home.port)
    fleet.regions[0]["serve"] = f"127.0.0.1:{dead},127.0.0.1:{fleet.way.port},127.0.0.1:{second.port}"
    fleet.replica.rewrite(regions=fleet.regions)
    with fleet, fleet.replica.client() as replica:
        for number in range(40):
            assert replica.set(f"key:{number}", b"v") == "STORED"
        fleet.way.cut()
        for number in range(40):
            eventually(lambda number=number: replica.set(f"key:{number}", b"w") == "STORED")
        assert fleet.replica.statistics()["storage_health"] == "ready"
    second.close()


def test_a_node_that_is_not_home_refuses_what_is_for_home(tmp_path):
    """A list of addresses that leads back to the replica region: nothing goes round in a circle."""
    fleet = Fleet(tmp_path)
    fleet.regions[0]["serve"] = f"127.0.0.1:{fleet.replica.port}"
    fleet.replica.rewrite(regions=fleet.regions)
    with fleet, fleet.replica.client() as replica:
        said = "SERVER_ERROR storage: the home region us-east refuses, this node is of the region eu-west, and does not answer for another"
        eventually(lambda: replica.ask("get k") == said)
        assert replica.set("k", b"v") == said
        assert replica.set("large", b"v" * 100_000) == said


def test_replicas_speak_to_a_router_of_home(tmp_path):
    router = Path(os.environ.get("MARTLET_ROUTER") or Path(default_command().split()[0]).with_name("martlet-router"))
    port = free_port()
    fleet = Fleet(tmp_path)
    (tmp_path / "router.yaml").write_text(json.dumps({
        "listen": ["127.0.0.1"], "port": port, "admin": "off",
        "servers": [f"127.0.0.1:{fleet.home.port}"], "storage": True,
    }))  # fmt: skip
    fleet.regions[0]["serve"] = f"127.0.0.1:{port}"
    fleet.replica.rewrite(regions=fleet.regions)
    user = ["-u", "root"] if os.geteuid() == 0 else []
    process = subprocess.Popen([router, "--config", tmp_path / "router.yaml", *user], stdout=subprocess.DEVNULL)
    try:
        with fleet, fleet.replica.client() as replica, fleet.home.client() as home:
            assert eventually(lambda: replica.set("k", b"v") == "STORED")
            assert conversation(replica, "there") == [
                (command, [row.replace("here0", "there") for row in rows]) for command, rows in conversation(home, "here0")]  # fmt: skip
            fleet.home.kill()
            # The router says that it sent nothing, or does not know.
            assert replica.set("k", b"w").startswith("SERVER_ERROR ")
            fleet.home.start()
            assert eventually(lambda: replica.set("k", b"w") == "STORED", 20)
    finally:
        process.terminate()
        process.wait(20)


def test_home_is_spoken_to_over_tls(tmp_path):
    files = certificates(tmp_path, "us-east", "eu-west", "mars")
    fleet = Fleet(
        tmp_path, home=secured(files, "us-east"), replica=secured(files, "eu-west"), storage_tls="true", storage_tls_name="us-east")
    fleet.home.serve_tls(files, "us-east")
    with fleet, fleet.replica.client() as replica:
        assert replica.set("k", b"v") == "STORED"
        with fleet.home.client() as home:
            assert home.get("k") == b"v"
        assert fleet.replica.statistics()["storage_health"] == "ready"
    fleet.replica.arguments[fleet.replica.arguments.index("--storage-tls-name") + 1] = "mars"
    with fleet.home:
        fleet.replica.start()
        with fleet.replica.client() as replica:
            assert eventually(lambda: "cannot be reached" in replica.set("k", b"w"))
        fleet.replica.stop()


HOME = {"name": "us-east", "role": "home", "stream": "127.0.0.1:1"}
REPLICA = {"name": "eu-west", "role": "replica"}


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"region": "eu-west", "regions": [HOME, REPLICA]}, "us-east has no `serve`"),
        ({"region": "eu-west", "regions": [{**HOME, "stream": ""}, REPLICA]}, "serve"),
        ({"region": "us-east", "regions": [HOME, REPLICA]}, "nodes of the home region need rocksdb or postgres"),
        ({}, "storage.backend: region; it needs `region` and `regions`"),
        ({"region": "eu-west", "regions": [{**HOME, "serve": "cache.example:1"}, REPLICA]},
         "the home region is spoken to at loopback addresses only, not cache.example"),
        ({"region": "eu-west", "regions": [{**HOME, "serve": "127.0.0.1:1"}, REPLICA], "storage": {"backend": "region", "tls": True}},
         "storage.tls: needs stream.certificate"),
        ({"region": "eu-west", "regions": [{**HOME, "serve": "127.0.0.1:1"}, REPLICA], "storage": {"backend": "none", "tls": True}},
         "storage.tls: storage.backend is none; it is of region"),
        ({"region": "eu-west", "regions": [{**HOME, "serve": "nowhere"}, REPLICA]}, '"nowhere" is not valid; expected host:port'),
        ({"region": "eu west", "regions": [HOME, {"name": "eu west"}]}, "printable ASCII characters without spaces"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_stops_the_start(tmp_path, document, complaint):
    (tmp_path / "node.yaml").write_text(json.dumps({"storage": {"backend": "region"}, **document}))
    done = subprocess.run([*default_command().split(), "--config", str(tmp_path / "node.yaml"), "--check-config"],
                          capture_output=True, text=True, timeout=20)  # fmt: skip
    assert done.returncode != 0 and complaint in done.stderr, done.stderr


def test_metrics_are_documented(tmp_path):
    with Fleet(tmp_path, admin=True) as fleet:
        found, _ = exported(fleet.replica.admin)
    listed = documented()
    regional = {name: row for name, row in found.items() if name.startswith("martlet_storage_region_")}
    assert regional == {name: row for name, row in listed.items() if name.startswith("martlet_storage_region_")}
    assert set(found) <= set(listed)
