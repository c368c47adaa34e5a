# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Tenants in the router: the same checks as a node's, before anything goes to a server."""

import json
import signal
import time
import urllib.request

import pytest

from bed import Server, free_port
from behaviour.test_auth import login
from behaviour.test_tenants import (
    ADMIN,
    BOTH,
    BY_CERTIFICATE,
    DELETES,
    DENIED,
    PASSWORDS,
    READS,
    STORE,
    TENANTS,
    USERS,
    WRITES,
    Authority,
    exchange,
    first,
    named,
    packets,
    reply,
    show,
    until,
)
from differential import binary

from .bed import Router


def settings(folder, **more):
    file = folder / "router.yaml"
    file.write_text(json.dumps({"tenants": TENANTS, **more}))
    return file


def enter(router, user):
    client = router.client()
    assert login(client, user, PASSWORDS[user]) == "STORED"
    return client


@pytest.fixture(scope="module")
def guarded(nodes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tenants")
    (folder / "users").write_text(USERS)
    admin = free_port()
    flags = f"-t 2 --auth-file {folder}/users --commands-flush-all --config {settings(folder)} --admin 127.0.0.1:{admin}"
    with Router(nodes, flags) as router:
        router.admin = admin
        with enter(router, "olga") as olga:
            for key in ("shop:1", "shop:fixed:1", "shared:1", "blog:1", "other"):
                assert olga.set(key, "value") == "STORED"
        yield router


def sent(router):
    """Commands that went to servers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{router.admin}/metrics", timeout=10) as response:
        rows = response.read().decode().splitlines()
    return sum(int(row.rsplit(" ", 1)[1]) for row in rows if row.startswith("martlet_router_server_requests_total"))


def test_nothing_but_a_login_is_understood_before_one(guarded):
    with guarded.client() as client:
        for command in ("get k", "version", "stats", "mg k v", "flush_all", "set k 0 0 -1"):
            assert client.ask(command) == "CLIENT_ERROR unauthenticated"
        assert login(client, "alice", "wrong") == "CLIENT_ERROR authentication failure"
        assert client.ask("get shop:1") == "CLIENT_ERROR unauthenticated"
        assert login(client, "alice", "a") == "STORED"
        assert client.get("shop:1") == b"value"
    with guarded.client() as client:
        client.send("set auth 0 0 7\r\nalice a\r\nget shop:1\r\n")
        assert [client.line() for _ in range(4)] == ["STORED", "VALUE shop:1 0 5", "value", "END"]
    with guarded.client() as client:
        client.send(b"\x80" + bytes(23) + b"\r\n")
        assert client.line() == "CLIENT_ERROR unauthenticated"


def test_keys_and_commands_are_denied_before_they_are_sent(guarded):
    with enter(guarded, "alice") as client:
        before = sent(guarded)
        for command in READS + WRITES + BOTH + DELETES:
            for key in ("other", "blog:1", "/a/b/shop:1", "Shop:1"):
                assert first(client, command.format(key)) == DENIED, command
        for command in WRITES + BOTH + DELETES:
            assert first(client, command.format("shop:fixed:1")) == DENIED, command
        for command in ADMIN + ["flush_all"]:
            assert first(client, command) == DENIED, command
        for question in ("__mcrouter__.version", "__mcrouter__.route(get,other)", "__mcrouter__.config"):
            assert first(client, f"get {question}") == DENIED
        assert sent(guarded) == before
        for command in READS:
            assert first(client, command.format("shop:fixed:1")) != DENIED
        for command in WRITES + READS + BOTH + DELETES:
            assert first(client, command.format("shop:t")) != DENIED, command
        assert sent(guarded) > before


def test_classes_and_strangers(guarded):
    for user, own in {"rita": READS, "sam": DELETES, "eve": []}.items():
        with enter(guarded, user) as client:
            for command in READS + WRITES + BOTH + DELETES:
                assert (first(client, command.format("classes")) == DENIED) == (command not in own), (user, command)
            assert client.ask("version").startswith("VERSION ")
            assert (client.ask("flush_all 1000000") == DENIED) == (user != "sam")
    with enter(guarded, "olga") as client:
        assert first(client, "get __mcrouter__.version") != DENIED
        assert first(client, "stats") != DENIED


def test_a_get_of_several_never_shows_a_denied_value(guarded):
    with enter(guarded, "olga") as olga:
        for number in range(50):
            assert olga.set(f"shop:m{number}", f"v{number}") == "STORED"
            assert olga.set(f"deny:m{number}", "secret") == "STORED"
    with enter(guarded, "alice") as client:
        for place in (0, 1, 25, 49, 50):
            own = [f"shop:m{number}" for number in range(50)]
            keys = own[:place] + [f"deny:m{number}" for number in range(3)] + own[place:]
            for verb in ("get", "gets", "gat 0"):
                client.send(f"{verb} {' '.join(keys)}\r\nmn\r\n" * 20)
                for _ in range(20):
                    rows = []
                    while not rows or rows[-1] != "MN":
                        rows.append(client.line())
                    assert rows[-2] == DENIED and rows.count(DENIED) == 1 and "END" not in rows, rows[-5:]
                    assert "secret" not in rows and not any("deny:" in row for row in rows)
        assert client.get("shop:m1") == b"v1"


def test_replies_keep_their_order_and_quiet_forms_their_rule(guarded):
    with enter(guarded, "alice") as client:
        client.send("set shop:n 0 0 1\r\n5\r\n")
        assert client.line() == "STORED"
        client.send("get other\r\nmg shop:n v\r\nset blog:9 0 0 2\r\nxx\r\nget shop:1\r\nflush_all\r\nincr blog:1 1\r\nincr shop:n 0\r\nstats\r\n"
                    "set other 0 0 1 noreply\r\nx\r\ndelete other noreply\r\nms other 1 q\r\nx\r\nmn\r\n" * 200)  # fmt: skip
        for _ in range(200):
            assert client.line() == DENIED
            assert client.line() == "VA 1" and client.line() == "5"
            assert client.line() == DENIED
            assert client.line() == "VALUE shop:1 0 5" and client.line() == "value" and client.line() == "END"
            assert [client.line() for _ in range(6)] == [DENIED, DENIED, "5", DENIED, DENIED, "MN"]
    with enter(guarded, "olga") as olga:
        assert olga.get("other") == b"value"


@pytest.mark.parametrize("size", [0, 5000, 300_000, 5_000_000])
def test_values_of_refused_stores_are_swallowed(guarded, size):
    value = (b"get shop:1\r\n" * (size // 12 + 1))[:size]
    with enter(guarded, "alice") as client:
        for form in ("set {} 0 0 {}", "ms {} {}"):
            client.send(form.format("other", size).encode() + b"\r\n" + value[: size // 2])
            time.sleep(0.02)
            client.send(value[size // 2 :] + b"\r\nmn\r\n")
            assert [client.line(), client.line()] == [DENIED, "MN"]


def test_base64_keys(guarded):
    with enter(guarded, "alice") as client:
        assert first(client, "mg b3RoZXI= b v") == DENIED
        assert first(client, "mg c2hvcDox b v").startswith("VA 5")


def test_denials_are_counted(guarded):
    def count():
        with urllib.request.urlopen(f"http://127.0.0.1:{guarded.admin}/metrics", timeout=10) as response:
            for row in response.read().decode().splitlines():
                if row.startswith('martlet_router_tenant_denied_total{tenant="blog",class="read"}'):
                    return int(row.split()[1])
        raise AssertionError("no such metric")

    before = count()
    with enter(guarded, "bob") as client:
        for _ in range(5):
            assert client.ask("get secret-key") == DENIED
    assert count() == before + 5
    until(lambda: '"blog"' in guarded.output())
    assert "secret-key" not in guarded.output()


def test_binary(nodes, route, tmp_path):
    file = settings(tmp_path, tenants=[{"name": "all", "others": True, "prefixes": ["shop:"], "commands": ["read", "write"]}])
    router = route(nodes, f"--config {file} --commands-flush-all")
    with router.connect() as connection:
        for opcode, packet in packets(b"other"):
            assert exchange(connection, packet)[:3] == (opcode, 0x20, 7), hex(opcode)
        for opcode in (binary.STAT, binary.FLUSH, binary.FLUSHQ):
            assert exchange(connection, binary.packet(opcode, opaque=7))[:3] == (opcode, 0x20, 7), hex(opcode)
        assert exchange(connection, binary.packet(binary.SET, key=b"shop:1", value=b"value", extras=STORE))[1] == 0
        own, other = (binary.packet(binary.GETK, key=key, opaque=number) for number, key in enumerate((b"shop:1", b"other")))
        connection.sendall((own + other) * 100)
        for _ in range(100):
            assert reply(connection)[1:3] == (0, 0)
            assert reply(connection)[1:3] == (0x20, 1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("tenants-tls"))
    one.server = one.issue("server")
    one.shop = one.issue("shop.example.org")
    one.named = named(one, "nobody", "DNS:other.example.org,DNS:blog.example.org")
    return one


def test_certificates_of_clients_and_of_the_router(route, authority, tmp_path):
    """Clients are tenants of the router by their certificates, the router is one of the nodes by its own."""
    certificate, key = authority.server
    node_file = tmp_path / "node.yaml"
    node_file.write_text(json.dumps({"tenants": [{"name": "router", "certificates": ["server"], "prefixes": ["shop:"]}]}))
    tls = f"ssl_chain_cert={certificate},ssl_key={key},ssl_ca_cert={authority.certificate},ssl_verify_mode=2"
    with Server(["-m", "64", "-Z", "-o", tls, "--config", node_file]) as node:
        file = settings(tmp_path, tenants=BY_CERTIFICATE)
        router = route(
            [node],
            f"--config {file} --tls-enabled --tls-certificate {certificate} --tls-key {key} --tls-ca {authority.certificate} "
            f"--tls-verify request --upstream-tls-enabled --upstream-tls-ca {authority.certificate} "
            f"--upstream-tls-certificate {certificate} --upstream-tls-key {key}",
        )
        with show(router, authority, authority.shop) as client:
            assert client.set("shop:1", "v") == "STORED"
            assert client.get("shop:1") == b"v"
            assert client.ask("get blog:1") == DENIED
        with show(router, authority, authority.named) as client:
            # The router lets it through, the node does not.
            assert client.ask("get blog:1") == DENIED
            assert client.set("blog:1", "v") == DENIED
            assert client.ask("get shop:1") == DENIED
        with show(router, authority) as client:
            assert client.ask("get shop:1") == DENIED


@pytest.mark.parametrize("how", ["signal", "file"])
def test_changes_hold_for_open_connections(nodes, route, tmp_path, how):
    (tmp_path / "users").write_text(USERS)
    file = settings(tmp_path)
    router = route(nodes, f"--auth-file {tmp_path}/users --config {file}")
    with enter(router, "alice") as alice, enter(router, "eve") as eve:
        assert alice.set("shop:r", "v") == "STORED"
        assert eve.ask("get shop:r") == DENIED
        settings(tmp_path, tenants=[dict(TENANTS[0], users=["eve"])])
        if how == "signal":
            router.signal(signal.SIGHUP)
        until(lambda: eve.ask("mg shop:r") == "HD")
        assert alice.ask("get shop:r") == DENIED
        settings(tmp_path, tenants=[{"name": "a b"}])
        if how == "signal":
            router.signal(signal.SIGHUP)
        until(lambda: "reload failed" in router.output())
        assert eve.get("shop:r") == b"v"
        (tmp_path / "users").write_text("new:n\n")
        settings(tmp_path, tenants=[])
        router.signal(signal.SIGHUP)
        until(lambda: alice.ask("mg shop:r") == "HD")
        with router.client() as client:
            until(lambda: login(client, "alice", "a") == "CLIENT_ERROR authentication failure")
            assert login(client, "new", "n") == "STORED"
        assert "wait for a restart" not in router.output()
