# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Quotas of tenants in the router: what is over them goes to no server."""

import json
import signal
import time

import pytest

from bed import free_port, until
from behaviour.test_auth import login
from behaviour.test_quotas import BUSY, BUSY_BYTES, FULL, ONCE, ask_often, everybody, spend
from behaviour.test_tenants import STORE, exchange, metrics, reply
from differential import binary

from .test_tenants import sent

pytestmark = pytest.mark.ours


@pytest.fixture
def limited(nodes, route, tmp_path):
    def begin(tenants, flags=""):
        file = tmp_path / "router.yaml"
        file.write_text(json.dumps({"tenants": tenants}))
        admin = free_port()
        router = route(nodes, f"-t 2 --config {file} --admin 127.0.0.1:{admin} {flags}")
        router.admin = admin

        def reload(tenants):
            said = router.output().count('"reloaded"')
            file.write_text(json.dumps({"tenants": tenants}))
            router.signal(signal.SIGHUP)
            until(lambda: router.output().count('"reloaded"') > said)

        router.reload = reload
        return router

    return begin


def test_a_burst_is_served_and_the_rest_is_not_sent(limited):
    router = limited(everybody(operationsPerSecond=1, operationsBurst=300))
    with router.client() as client:
        before = sent(router)
        rows = ask_often(client, 3000)
        assert len(rows) == 3000 and set(rows) == {"EN", BUSY}
        assert 300 <= rows.count("EN") <= 320 and rows[:300] == ["EN"] * 300
        assert sent(router) - before <= 330
        assert int(metrics(router)['martlet_router_tenant_over_quota_total{tenant="all",quota="operations"}']) >= 2680
        assert "over_operations:" in client.stats("tenants")["all"]


def test_each_form_is_refused_and_keeps_its_rules(limited):
    router = limited(everybody(**ONCE))
    with router.client() as client, router.connect() as connection:
        assert client.set("k", "value") == "STORED"
        spend(client)
        stores = ["set k 0 0 1\r\nv", "ms k 1\r\nv"]
        for command in ["get k", "gat 0 k", "mg k v", "touch k 0", "incr k 1", "ma k", *stores]:
            assert client.ask(command) == BUSY_BYTES, command
        client.send("touch k 0 noreply\r\nset k 0 0 1 noreply\r\nx\r\nmn\r\n")
        assert client.line() == "MN"
        for keys in ("a b c", "a " * 300):
            client.send(f"get {keys}\r\nmn\r\n")
            assert [client.line(), client.line()] == [BUSY_BYTES, "MN"]
        assert client.ask("version").startswith("VERSION")
        packet = binary.packet(binary.SET, key=b"k", value=b"v" * 300_000, extras=STORE, opaque=7)
        connection.sendall(packet[:1000])
        time.sleep(0.02)
        others = binary.packet(binary.GETQ, key=b"k", opaque=8) + binary.packet(binary.NOOP, opaque=9)
        connection.sendall(packet[1000:] + others)
        assert reply(connection)[:3] == (binary.SET, 0x85, 7)
        assert reply(connection)[:3] == (binary.GETQ, 0x85, 8)
        assert reply(connection)[:3] == (binary.NOOP, 0, 9)
        router.reload(everybody())
        assert client.get("k") == b"value", "the router's refusals change nothing"
        assert exchange(connection, binary.packet(binary.GET, key=b"k"))[1] == 0


@pytest.mark.parametrize("size", [0, 5000, 300_000, 3_000_000])
def test_values_of_refused_sets_are_swallowed(limited, size):
    router = limited(everybody(**ONCE))
    value = (b"get k\r\n" * (size // 7 + 1))[:size]
    with router.client() as client:
        spend(client)
        for form in ("set {} 0 0 {}", "ms {} {}"):
            client.send(form.format("k", size).encode() + b"\r\n" + value[: size // 2])
            time.sleep(0.02)
            client.send(value[size // 2 :] + b"\r\nmn\r\n")
            assert [client.line(), client.line()] == [BUSY_BYTES, "MN"]


def test_deletes_run_a_second_ahead(limited):
    router = limited(everybody(operationsPerSecond=50, operationsBurst=50))
    with router.client() as client:
        while "EN" in ask_often(client, 50):
            pass
        client.send("delete none\r\n" * 40)
        assert [client.line() for _ in range(40)] == ["NOT_FOUND"] * 40


def test_replies_count_as_bytes(limited):
    router = limited(everybody(bytesPerSecond=20_000, bytesBurst=250_000))
    with router.client() as client:
        assert client.set("large", b"v" * 100_000) == "STORED"
        for _ in range(2):
            assert client.get("large") == b"v" * 100_000
        assert client.ask("get large") == BUSY_BYTES
        until(lambda: client.ask("mg large") == "HD", 15)
        assert 300_000 < int(metrics(router)['martlet_router_tenant_bytes_total{tenant="all"}']) < 310_000


def test_connections_beyond_the_quota_are_told_so_and_closed(limited, tmp_path):
    router = limited(everybody(connections=2))
    until(lambda: metrics(router)['martlet_router_tenant_connections{tenant="all"}'] == "0")
    clients = [router.client() for _ in range(2)]
    for client in clients:
        assert client.ask("mn") == "MN"
    with router.client() as client:
        assert client.until_closed().decode() == FULL + "\r\n"
    assert metrics(router)['martlet_router_tenant_connections{tenant="all"}'] == "2"
    router.reload(everybody(connections=3))
    with router.client() as client:
        assert client.ask("mn") == "MN"
    for client in clients:
        client.close()
    until(lambda: metrics(router)['martlet_router_tenant_connections{tenant="all"}'] == "0")


def test_users_have_quotas_of_their_own(limited, tmp_path):
    (tmp_path / "users").write_text("alice:a\nbob:b\n")
    greedy = {"name": "greedy", "users": ["alice"], "operationsPerSecond": 10}
    tenants = [greedy, {"name": "modest", "users": ["bob"], "connections": 1}]
    router = limited(tenants, f"--auth-file {tmp_path}/users")
    with router.client() as alice, router.client() as bob, router.client() as other:
        assert login(alice, "alice", "a") == login(bob, "bob", "b") == "STORED"
        assert ask_often(alice, 500).count("EN") < 50
        assert set(ask_often(bob, 500)) <= {"EN", "HD"}
        other.send("set auth 0 0 5\r\nbob b\r\nget k\r\n")
        assert other.until_closed().decode() == f"STORED\r\n{FULL}\r\n"
