# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Caches that join a fleet: they fetch their share of the keys before routers read from them, and nothing stale."""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest
from bed import default_command, free_port

from .test_membership import QUICK, address, etcd, eventually, pools, replace  # noqa: F401

FLAGS = "-m 64 -t 1 -l 127.0.0.1"


class Joining:
    """A node that registers in etcd and warms up."""

    def __init__(self, start, source, name, *flags):
        self.port, self.admin = free_port(), free_port()
        self.server = start(
            f"{FLAGS} -p {self.port} --members={source} --register-at={source} --register-name={name} "
            f"--register-address=127.0.0.1:{self.port} --register-ttl=2s --warm-up-hash=multiProbe {' '.join(flags)}",
            listen=False, wait=("127.0.0.1", self.port), environment={"MARTLET_ADMIN": f"127.0.0.1:{self.admin}"})

    def figures(self):
        with self.server.client() as one:
            rows = one.stats("martlet")
        return {name: rows[name] for name in rows if name.startswith("warm_up")}

    def ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
def fleet(route, start, etcd, tmp_path):  # noqa: F811
    """Two nodes and a router, and the source of their members."""
    source = f"etcd://127.0.0.1:{etcd.port}/martlet/warm"
    nodes = []
    for number in range(2):
        port = free_port()
        nodes.append(start(
            f"{FLAGS} -p {port} --register-at={source} --register-name=cache-{number} "
            f"--register-address=127.0.0.1:{port} --register-ttl=2s", listen=False, wait=("127.0.0.1", port)))
    eventually(lambda: len(etcd.keys("/martlet/warm/")), 2)
    file = tmp_path / "router.yaml"
    file.write_text(json.dumps({"pools": {"main": {"members": source}}, "route": "main"}))
    return source, nodes, route((), f"--config {file} {QUICK}")


def test_a_node_that_joins_has_its_share_before_it_is_read_from(fleet, start):
    """No read misses because a node joined: neither while it warms up, nor when it is in."""
    source, nodes, router = fleet
    with router.client() as one:
        for number in range(3000):
            one.send(f"set warm-{number} {number} 0 {len(str(number))} noreply\r\n{number}\r\n")
        assert one.ask("set short 0 4 1\r\n1") == "STORED"
        assert one.get("warm-2999") == b"2999"
        joined = Joining(start, source, "cache-2", "--warm-up-wait=1s", "--warm-up-rate=2000")
        eventually(lambda: " warming:1 " in pools(router)["main"] + " ", True)
        assert joined.ready() == 503 and joined.figures()["warm_up"] == "warming"
        misses, reads = 0, 0
        deadline = time.monotonic() + 40
        while " warming:1 " in pools(router)["main"] + " ":
            assert time.monotonic() < deadline, joined.figures()
            for number in range(0, 3000, 60):
                misses += one.get(f"warm-{number}") is None
                reads += 1
        time.sleep(0.5)
        for number in range(3000):
            one.send(f"gets warm-{number}\r\n")
            line = one.line()
            assert line.startswith(f"VALUE warm-{number} {number} "), (number, line, joined.figures())
            assert one.line() == str(number) and one.line() == "END"
        assert misses == 0 and reads > 0
        figures = joined.figures()
        print(figures)
        assert figures["warm_up"] == "up" and 700 < int(figures["warm_up_stored"]) < 1300
        assert figures["warm_up_failures"] == "0" and joined.ready() == 200
        with joined.server.client() as direct:
            assert int(direct.stats()["curr_items"]) > 700
            # Expiry came along.
            time.sleep(4)
            assert direct.get("short") is None and one.get("short") is None


def test_nothing_stale_is_read_when_a_node_is_in(fleet, start):
    """Keys are written, counted and deleted while they are fetched: what is read afterwards is the last of that."""
    source, nodes, router = fleet
    each, over, wrong = 3000, threading.Event(), []
    values = {f"w{seed}-{number}": 0 for seed in range(4) for number in range(each)}

    def write(seed):
        with router.client() as one:
            count = 0
            while not over.is_set():
                count += 1
                key = f"w{seed}-{count * 7919 % each}"
                if count % 3 == 0:
                    if one.ask(f"delete {key}") not in ("DELETED", "NOT_FOUND"):
                        wrong.append(key)
                    values[key] = None
                elif count % 3 == 1 or values.get(key) is None:
                    if one.ask(f"set {key} 0 0 {len(str(count))}\r\n{count}") != "STORED":
                        wrong.append(key)
                    values[key] = count
                else:
                    said = one.ask(f"incr {key} 1")
                    values[key] = int(said) if said.isdigit() else values[key]
                # So that some keys are written shortly before they are fetched, and others are not.
                time.sleep(0.004)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    with router.client() as one:
        for key in values:
            one.send(f"set {key} 0 0 1 noreply\r\n0\r\n")
        assert one.ask("mn") == "MN"
    for thread in threads:
        thread.start()
    try:
        joined = Joining(start, source, "cache-2", "--warm-up-rate=1000")
        eventually(lambda: " warming:1 " in pools(router)["main"] + " ", True)
        eventually(lambda: joined.figures()["warm_up"], "up", timeout=60)
        eventually(lambda: "servers:3 " in pools(router)["main"], True)
        time.sleep(0.5)
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
    assert not wrong, wrong[:3]
    stale = []
    with router.client() as one:
        for key, value in values.items():
            found = one.get(key)
            if found is not None and (value is None or int(found) != value):
                stale.append((key, found, value))
    figures = joined.figures()
    print(figures)
    assert not stale, stale[:5]
    assert int(figures["warm_up_stored"]) > 500 and int(figures["warm_up_left_out"]) > 100


def test_a_member_that_cannot_be_asked_costs_its_part(fleet, start):
    source, nodes, router = fleet
    with router.client() as one:
        for number in range(500):
            assert one.set(f"part-{number}", str(number)) == "STORED"
    # It stays registered until its lease is over.
    nodes[0].process.kill()
    joined = Joining(start, source, "cache-2", "--warm-up-wait=0", "--warm-up-timeout=20s")
    eventually(lambda: joined.figures()["warm_up"], "up", timeout=30)
    assert joined.ready() == 200
    assert int(joined.figures()["warm_up_stored"]) > 0
    assert "begin as misses" in joined.server.output() or joined.figures()["warm_up_failures"] == "0"


def test_the_first_node_of_a_fleet_is_up_at_once(start, etcd):  # noqa: F811
    source = f"etcd://127.0.0.1:{etcd.port}/martlet/first"
    first = Joining(start, source, "cache-0", "--warm-up-wait=0")
    eventually(lambda: first.figures()["warm_up"], "up", timeout=10)
    eventually(lambda: etcd.keys("/martlet/first/").get("/martlet/first/cache-0", {}).get("state"), None)
    eventually(first.ready, 200)


def test_a_listed_server_warms_up_until_its_router_is_told(route, start, tmp_path):
    """Without etcd: whoever writes the configuration says it."""
    old = start(f"{FLAGS} -p {(port := free_port())}", listen=False, wait=("127.0.0.1", port))
    config, ports = tmp_path / "router.yaml", (old.port, free_port())

    def say(**state):
        servers = [{"address": f"127.0.0.1:{ports[0]}"}, {"address": f"127.0.0.1:{ports[1]}", **state}]
        replace(config, json.dumps({"pools": {"main": {"servers": servers}}, "route": "main"}))

    replace(config, json.dumps({"pools": {"main": {"servers": [f"127.0.0.1:{ports[0]}"]}}, "route": "main"}))
    router = route((), f"--config {config}")
    with router.client() as one:
        for number in range(1000):
            assert one.set(f"list-{number}", str(number)) == "STORED"
        say(state="warming")
        eventually(lambda: " warming:1" in pools(router)["main"], True)
        both = ",".join(f"127.0.0.1:{port}" for port in ports)
        fresh = start(
            f"{FLAGS} -p {ports[1]} --members={both} --register-address=127.0.0.1:{ports[1]} "
            "--warm-up-hash=multiProbe --warm-up-wait=0", listen=False, wait=("127.0.0.1", ports[1]))
        with fresh.client() as direct:
            eventually(lambda: direct.stats("martlet")["warm_up"], "up")
        say(state="up")
        eventually(lambda: "servers:2 " in pools(router)["main"] + " ", True)
        time.sleep(0.5)
        assert all(one.get(f"list-{number}") is not None for number in range(1000))


@pytest.mark.parametrize(("flags", "says"), [
    ("--warm-up-hash=multiProbe", "members: missing"),
    ("--warm-up-hash=multiProbe --members=a:1", "register.address: missing"),
    ("--warm-up-hash=jump --members=dns+a:1 --register-address=b:1", "cannot say that a node warms up"),
    ("--warm-up-hash=jump --members=dnssrv+_m._tcp.a --register-address=b:1", "cannot say that a node warms up"),
    ("--warm-up-hash=jump --members=k8s:///prod/cache --register-address=b:1", "cannot say that a node warms up"),
    ("--warm-up-hash=jump --members=a:1 --register-address=a:1 --storage-backend=memory", "only caches fetch"),
    ("--warm-up-hash=jump --members=a:1 --register-address=a:1 --storage-backend=postgres", "only caches fetch"),
    ("--warm-up-hash=jump --members=a:1 --register-address=a:1 --tls-enabled --tls-certificate=x", "no TLS, no -Y"),
    ("--warm-up-hash=jump --members=a:1 --register-address=a:1 -Z -o ssl_chain_cert=x", "no TLS, no -Y"),
    ("--warm-up-hash=jump --members=a:1 --register-address=a:1 -Y x", "no TLS, no -Y"),
    ("--warm-up-hash=jump --members=a:1 --register-address=a:1 --warm-up-tag=x", "expected two characters"),
])
def test_settings_are_checked(flags, says):
    done = subprocess.run(
        [default_command(), *flags.split(), "--check-config"], capture_output=True, text=True, timeout=20,
        check=False, stdin=subprocess.DEVNULL)
    assert done.returncode != 0 and says in done.stderr, done.stderr

