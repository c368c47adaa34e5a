# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Pools whose servers are looked up, in a file, a DNS server and a real etcd, while clients ask."""

import json
import os
import shutil
import subprocess
import time
import urllib.request

import pytest
from bed import Crew, free_port, until
from discovery import dns
from discovery.etcd import Etcd

from .bed import default_router

QUICK = "--discovery-settle=50ms --discovery-loss-confirmation=1s"


class Load(Crew):
    """Clients that set and get, each its own keys, until they are told to stop; what was answered wrongly."""

    def __init__(self, router, clients=4):
        super().__init__(clients)
        self.router, self.wrong, self.counts = router, [], []

    def run(self, seed):
        with self.router.client() as one:
            count = 0
            while not self.over.is_set():
                key = f"members-{seed}-{count % 100}"
                count += 1
                one.send(f"set {key} 0 0 {len(key)}\r\n{key}\r\nget {key}\r\n")
                said = [one.line(), one.line()]
                if said[0] != "STORED":
                    self.wrong.append(said)
                elif said[1] != "END":
                    said.append(one.read(len(key) + 7))
                    if said[1:] != [f"VALUE {key} 0 {len(key)}", key.encode() + b"\r\nEND\r\n"]:
                        self.wrong.append(said)
            self.counts.append(count)

    def verify(self):
        assert len(self.counts) == len(self.threads) and sum(self.counts) > 200
        assert not self.wrong, self.wrong[:3]


def servers(router):
    with router.client() as one:
        return sorted(one.stats("servers"))


def eventually(function, expected, timeout=15):
    until(lambda: function() == expected, timeout, lambda: (function(), expected), pause=0.05)


def pools(router):
    with router.client() as one:
        return one.stats("pools")


@pytest.fixture
def trio(start):
    return [start("-m 64 -t 1") for _ in range(3)]


@pytest.fixture
def etcd(tmp_path):
    if shutil.which("etcd") is None:
        pytest.fail("there is no etcd: run make install")
    server = Etcd(tmp_path / "etcd")
    server.start()
    yield server
    server.stop()


def address(node):
    return f"127.0.0.1:{node.port}"


def replace(path, text):
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    os.replace(fresh, path)


def test_a_file_of_members_is_switched_to_under_load(route, trio, tmp_path):
    everybody = sorted(map(address, trio))
    file = tmp_path / "members.yaml"
    replace(file, json.dumps(everybody))
    admin = free_port()
    router = route([f"file:{file}"], f"{QUICK} --admin=127.0.0.1:{admin}", environment={"MARTLET_ADMIN": None})
    assert servers(router) == everybody
    with Load(router):
        for turn in range(6):
            wanted = everybody[:2] if turn % 2 == 0 else everybody
            replace(file, json.dumps(wanted))
            eventually(lambda wanted=wanted: servers(router), wanted)
        # What cannot be read, is empty or is gone leaves the last set.
        for text in ("[nonsense", "[]"):
            replace(file, text)
            time.sleep(0.7)
            assert servers(router) == everybody
        file.unlink()
        time.sleep(0.7)
        assert servers(router) == everybody
        page = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5).read().decode()
        assert f'martlet_router_members_failing{{source="file:{file}"}} 1' in page
        # One server of three takes too many with it: it counts only after a while.
        replace(file, json.dumps(everybody[:1]))
        time.sleep(0.9)
        assert servers(router) == everybody
        assert "held:2-of-3-gone" in pools(router)[f"members:file:{file}"]
        eventually(lambda: servers(router), everybody[:1])
    # Six switches and the last one, each an epoch, of the members and of the plan.
    assert f"epoch:8 " in pools(router)[f"members:file:{file}"]
    assert pools(router)["servers"] == f"servers:1 up:1 members:file:{file} epoch:8"
    with router.client() as one:
        assert one.stats()["plan_epoch"] == "8"


def test_fewer_members_than_a_pool_must_have_are_not_taken(route, trio, tmp_path):
    everybody = sorted(map(address, trio))
    file = tmp_path / "members.yaml"
    replace(file, json.dumps(everybody))
    router = route([f"file:{file}"], f"{QUICK} --discovery-fewest-members=2")
    replace(file, json.dumps(everybody[:1]))
    eventually(lambda: "held:only-1" in pools(router)[f"members:file:{file}"], True)
    time.sleep(1.5)
    assert servers(router) == everybody


def test_members_that_no_hash_takes_leave_the_last_set(route, trio, tmp_path):
    everybody = sorted(map(address, trio))
    file = tmp_path / "members.yaml"
    replace(file, json.dumps(everybody))
    router = route([f"file:{file}"], f"{QUICK} --hash=ketamaWeighted")
    replace(file, json.dumps([{"address": everybody[0], "weight": 0.5}, *everybody[1:]]))
    eventually(lambda: "members cannot be used" in router.output(), True)
    assert servers(router) == everybody
    replace(file, json.dumps(everybody[1:]))
    eventually(lambda: servers(router), everybody[1:])


def test_services_of_a_name_server(route, trio):
    with dns.Server() as server:
        for node in trio:
            server.address_of(f"node-{node.port}.example", "127.0.0.1")
        named = [(f"node-{node.port}.example", node.port) for node in trio]
        server.services("_m._tcp.example", *named[:2])
        router = route(["dnssrv+_m._tcp.example"], f"{QUICK} --discovery-dns-servers={server.address}")
        assert servers(router) == sorted(map(address, trio[:2]))
        with Load(router):
            server.services("_m._tcp.example", *named)
            eventually(lambda: servers(router), sorted(map(address, trio)))
            server.fails = True
            eventually(lambda: "failure:DNS" in pools(router)["members:dnssrv+_m._tcp.example"], True)
            assert servers(router) == sorted(map(address, trio))
            server.fails = False
            server.services("_m._tcp.example", *named[1:])
            eventually(lambda: servers(router), sorted(map(address, trio[1:])))


def test_members_that_register_in_etcd_come_and_go(route, start, etcd, tmp_path):
    source = f"etcd://127.0.0.1:{etcd.port}/martlet/main"
    nodes = []

    def begin():
        port = free_port()
        nodes.append(start(
            f"-m 64 -t 1 -l 127.0.0.1 -p {port} --register-at={source} --register-name=cache-{len(nodes)} "
            f"--register-address=127.0.0.1:{port} --register-ttl=2s", listen=False, wait=("127.0.0.1", port)))

    for _ in range(2):
        begin()
    eventually(lambda: len(etcd.keys("/martlet/main/")), 2)
    file = tmp_path / "router.yaml"
    file.write_text(json.dumps({"pools": {"main": {"members": source, "hash": "rendezvous"}}, "route": "main"}))
    router = route((), f"--config {file} {QUICK}")
    assert servers(router) == sorted(map(address, nodes))
    with Load(router):
        begin()
        eventually(lambda: servers(router), sorted(map(address, nodes)))
        # An etcd that is away takes nobody with it.
        etcd.stop()
        eventually(lambda: "failure:" in pools(router)[f"members:{source}"], True)
        time.sleep(2.5)
        assert servers(router) == sorted(map(address, nodes))
        etcd.start()
        eventually(lambda: "failure:" in pools(router)[f"members:{source}"], False)
    # A node that is killed is gone with its lease; its keys are the others' then.
    nodes[0].process.kill()
    eventually(lambda: servers(router), sorted(map(address, nodes[1:])))
    # Each thread takes a new plan up within a tenth of a second.
    time.sleep(0.5)
    with router.client() as one:
        for number in range(50):
            assert one.set(f"after-{number}", "x") == "STORED"


def test_a_pool_whose_members_nobody_knows_yet(route, trio, tmp_path):
    file = tmp_path / "members.yaml"
    admin = free_port()
    router = route(
        [f"file:{file}"], f"{QUICK} --discovery-wait=100ms --admin=127.0.0.1:{admin}",
        environment={"MARTLET_ADMIN": None})
    with router.client() as one:
        assert one.ask("get a").startswith("SERVER_ERROR")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5)
        replace(file, json.dumps(sorted(map(address, trio))))
        eventually(lambda: servers(router), sorted(map(address, trio)))
        # Each thread takes a new plan up within a tenth of a second.
        time.sleep(0.5)
        assert one.set("a", "b") == "STORED"
        assert urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5).read() == b"ok\n"


def test_a_reload_to_members_that_nobody_knows_changes_nothing(route, trio, tmp_path):
    config, file = tmp_path / "router.yaml", tmp_path / "members.yaml"
    replace(config, json.dumps({"servers": [address(trio[0])]}))
    router = route((), f"--config {config} {QUICK} --discovery-wait=200ms")
    replace(config, json.dumps({"servers": f"file:{file}"}))
    eventually(lambda: "no members were found at" in router.output(), True)
    assert servers(router) == [address(trio[0])]
    replace(file, json.dumps([address(trio[1])]))
    replace(config, json.dumps({"servers": [f"file:{file}"]}))
    with Load(router):
        eventually(lambda: servers(router), [address(trio[1])])
        # And back: the source is no longer looked at.
        replace(config, json.dumps({"servers": [address(trio[2])]}))
        eventually(lambda: servers(router), [address(trio[2])])
        assert list(pools(router)) == ["servers"]


@pytest.mark.parametrize(("text", "says"), [
    ({"pools": {"p": {"members": "consul://x"}}, "route": "p"}, "pool p: members: consul://x: no source of members"),
    ({"pools": {"p": {"members": "file:/x"}}, "route": {"allSync": {"servers": "p"}}}, "are looked up"),
    ({"servers": ["dns+a:1", "b:1"]}, 'servers: "dns+a:1" is not valid'),
])
def test_sources_are_checked(tmp_path, text, says):
    file = tmp_path / "router.yaml"
    file.write_text(json.dumps(text))
    done = subprocess.run(
        [default_router(), "--config", str(file), "--check-config"], capture_output=True, text=True, timeout=20,
        check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 78 and says in done.stderr, done.stderr
