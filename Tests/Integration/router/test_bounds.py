# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a router keeps is bounded: values that come in, replies of routes, lanes and plans of old configurations."""

import json
import os
import time
import urllib.request

import pytest
from bed import free_port

from .bed import FakeServer, Relay, lines


@pytest.fixture
def pair(start):
    return [start("-m 256 -t 1 -I 32m") for _ in range(2)]


def overflowed(router):
    with router.client() as one:
        return int(one.stats()["overflowed"])


def test_values_that_come_in_have_a_limit_together(route, pair):
    router = route(pair, "-t 1 --limits-incoming-values=4MiB --upstream-timeout=60s")
    size = 3 << 20
    with router.client() as one, router.client() as two:
        one.send(f"set big-1 0 0 {size}\r\n" + "x" * 1000)
        time.sleep(0.3)
        # There is room for one such value, not for two; the connection goes on behind the one that is refused.
        two.send(f"set big-2 0 0 {size}\r\n")
        two.send(b"y" * size + b"\r\nset small 0 0 1\r\nz\r\n")
        assert two.line() == "SERVER_ERROR out of memory storing object"
        assert two.line() == "STORED"
        one.send(b"x" * (size - 1000) + b"\r\n")
        assert one.line() == "STORED"
        assert two.set("big-2", "y" * size) == "STORED", "there is room again"
        assert overflowed(router) == 1
        # What a client that leaves was sending is given back.
        one.send(f"set big-3 0 0 {size}\r\n" + "x" * 1000)
        time.sleep(0.3)
        one.close()
        time.sleep(0.3)
        assert two.set("big-4", "y" * size) == "STORED"
        # One value passes whatever the limit is.
        assert two.set("big-5", "y" * (10 << 20)) == "STORED"


def test_many_clients_that_send_large_values_do_not_fill_the_memory(route, pair):
    router = route(pair, "-t 2 --limits-incoming-values=16MiB --upstream-timeout=60s")
    before = router.rss()
    clients = [router.client() for _ in range(40)]
    size = 8 << 20
    for number, one in enumerate(clients):
        one.send(f"set large-{number} 0 0 {size}\r\n")
        one.send(b"x" * (4 << 20))
    time.sleep(0.5)
    assert router.rss() - before < 64 << 20
    for one in clients:
        one.send(b"x" * (4 << 20) + b"\r\n")
    said = [one.line() for one in clients]
    assert set(said) <= {"STORED", "SERVER_ERROR out of memory storing object"} and said.count("STORED") >= 1
    for one in clients:
        one.close()


def test_replies_of_routes_have_a_limit_together(routed):
    """A get that asks two servers keeps both replies until it knows which counts."""
    router = routed({"route": {"allSync": ["a", "b"]}}, "--limits-routed=2MiB --limits-value=16MiB")
    with router.client() as one:
        assert one.set("small", "x" * 1000) == "STORED"
        assert one.set("large", "x" * 900_000) == "STORED"
        assert one.get("large") == b"x" * 900_000
        one.send("get large\r\n" * 20 + "get small\r\nmn\r\n")
        said = []
        while not said or said[-1] != "MN":
            said.append(one.line())
            if said[-1].startswith("VALUE "):
                one.read(int(said[-1].split()[3]) + 2)
        assert said.count("SERVER_ERROR 307 busy") >= 3
        assert one.get("small") == b"x" * 1000 and one.get("large") == b"x" * 900_000
        assert overflowed(router) >= 3


def test_a_request_of_an_old_plan_still_finds_its_servers(route, pair, tmp_path):
    """It waits for a server that does not answer, while its second choice leaves the configuration twice over."""
    def silent(connection):
        for _ in lines(connection):
            pass

    file = tmp_path / "router.yaml"
    relay = Relay(pair[0].port)

    def write(second):
        fresh = tmp_path / "fresh.yaml"
        fresh.write_text(json.dumps({
            "pools": {"first": {"servers": [f"127.0.0.1:{mute.port}"], "timeout": "4s"},
                      "second": {"servers": [second]}},
            "route": {"failover": ["first", "second"]}}))
        os.replace(fresh, file)

    with FakeServer(silent) as mute, pair[0].client() as direct, pair[1].client() as other:
        direct.set("k", "right")
        other.set("k", "wrong")
        write(f"127.0.0.1:{relay.port}")
        router = route((), f"--config {file} -t 1 --health-enabled=false")
        with router.client() as one, router.client() as fresh:
            one.send("get k\r\n")
            time.sleep(0.3)
            for second in (f"127.0.0.1:{pair[1].port}", f"localhost:{pair[1].port}"):
                write(second)
                end = time.monotonic() + 3
                while second not in fresh.stats("servers"):
                    assert time.monotonic() < end
                    time.sleep(0.05)
            assert one.line() == "VALUE k 0 5" and one.line() == "right"
    relay.stop()


def test_latencies_are_shown_by_pool_and_route(route, pair, tmp_path):
    admin = free_port()
    file = tmp_path / "router.yaml"
    file.write_text(json.dumps({
        "pools": {"a": {"servers": [f"127.0.0.1:{pair[0].port}"]}, "b": {"servers": [f"127.0.0.1:{pair[1].port}"]}},
        "handles": {"both": {"allSync": ["a", "b"]}},
        "route": {"prefixes": {"twice:": "both", "slow:": {"latency": "a", "before": "30ms"}}, "otherwise": "b"}}))
    router = route((), f"--config {file} --admin=127.0.0.1:{admin}", environment={"MARTLET_ADMIN": None})
    with router.client() as one:
        for number in range(20):
            one.set(f"twice:{number}", "x")
            one.set(f"slow:{number}", "x")
            one.set(f"else:{number}", "x")
    page = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5).read().decode()
    counted = {row.split(" ")[0]: float(row.split(" ")[1]) for row in page.splitlines() if not row.startswith("#")}
    assert counted['martlet_router_pool_seconds_count{pool="a"}'] == 40
    assert counted['martlet_router_pool_seconds_count{pool="b"}'] == 40
    assert counted['martlet_router_route_seconds_count{route="both"}'] == 20
    assert counted['martlet_router_route_seconds_count{route="/././slow:"}'] == 20
    assert counted['martlet_router_route_seconds_sum{route="/././slow:"}'] > 20 * 0.03
    assert counted[f'martlet_router_server_read_bytes_total{{server="127.0.0.1:{pair[0].port}"}}'] >= 40 * 8
