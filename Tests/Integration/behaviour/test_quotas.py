# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Quotas of tenants: operations, bytes, connections; how refusals read, and what they change."""

import json
import signal
import socket
import threading
import time

import pytest

from bed import Closed, free_port, until
from behaviour.test_auth import login
from behaviour.test_tenants import STORE, exchange, metrics, reply
from differential import binary

pytestmark = pytest.mark.ours

BUSY = "SERVER_ERROR 307 busy: over the quota of operations"
BUSY_BYTES = "SERVER_ERROR 307 busy: over the quota of bytes"
FULL = "ERROR Too many open connections of this tenant"
# What `spend` has on credit is paid for after minutes: no test waits for it.
ONCE = {"bytesPerSecond": 1024, "bytesBurst": 2_000_000}


def everybody(**quotas):
    return [{"name": "all", "others": True, **quotas}]


@pytest.fixture
def node(start, tmp_path):
    def begin(tenants, *flags, **more):
        file = tmp_path / "node.yaml"
        file.write_text(json.dumps({"tenants": tenants, **more}))
        admin = free_port()
        server = start(["-m", "64", "-t", "2", "--config", file, "--admin", f"127.0.0.1:{admin}", *flags])
        server.admin = admin

        def reload(tenants):
            file.write_text(json.dumps({"tenants": tenants, **more}))
            said = server.output().count('"reloaded"')
            server.signal(signal.SIGHUP)
            until(lambda: server.output().count('"reloaded"') > said)

        server.reload = reload
        return server

    return begin


def spend(client):
    """Uses a quota of bytes up, and much more than that."""
    while (line := client.set("spent", b"v" * 900_000)) == "STORED":
        pass
    assert line.endswith("over the quota of bytes")


def ask_often(client, count):
    """The answers to so many reads that are sent at once."""
    client.send("mg k\r\n" * count + "mn\r\n")
    rows = []
    while not rows or rows[-1] != "MN":
        rows.append(client.line())
    return rows[:-1]


def test_a_burst_is_served_and_then_the_rate(node):
    server = node(everybody(operationsPerSecond=200, operationsBurst=300))
    with server.client() as client:
        begun = time.monotonic()
        rows = ask_often(client, 5000)
        served = 300 + 200 * (time.monotonic() - begun)
        assert len(rows) == 5000, "each request has its answer"
        assert set(rows) == {"EN", BUSY}
        assert 300 <= rows.count("EN") <= served + 1
        assert rows[:300] == ["EN"] * 300
        time.sleep(0.5)
        rows = ask_often(client, 500)
        assert 90 <= rows.count("EN") <= 200 * (time.monotonic() - begun) + 1


def test_reactors_share_what_there_is(node):
    """Eight connections on two threads, for two seconds, get what one would."""
    server = node(everybody(operationsPerSecond=1000, operationsBurst=500))
    served = []

    def ask():
        with server.client() as client:
            own = 0
            while time.monotonic() < begun + 2:
                own += ask_often(client, 200).count("EN")
            served.append(own)

    begun = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    assert 0.9 * (500 + 1000 * 2) <= sum(served) <= 500 + 1000 * seconds + 8, (served, seconds)


def test_one_tenants_flood_is_no_other_tenants(node, tmp_path):
    (tmp_path / "users").write_text("alice:a\nbob:b\n")
    greedy = {"name": "greedy", "users": ["alice"], "operationsPerSecond": 10}
    tenants = [greedy, {"name": "modest", "users": ["bob"], "operationsPerSecond": 1000}]
    server = node(tenants, "-Y", tmp_path / "users")
    with server.client() as alice, server.client() as bob:
        assert login(alice, "alice", "a") == login(bob, "bob", "b") == "STORED"
        for _ in range(5):
            assert ask_often(alice, 500).count("EN") < 50
            assert ask_often(bob, 20) == ["EN"] * 20
        found = metrics(server)
        counter = 'martlet_tenant_over_quota_total{{tenant="{}",quota="operations"}}'
        over = {name: int(found[counter.format(name)]) for name in ("greedy", "modest")}
        assert over["greedy"] > 2000 and over["modest"] == 0
        assert found['martlet_tenant_quota{tenant="greedy",quota="operations"}'] == "10"
        assert 'martlet_tenant_quota{tenant="greedy",quota="bytes"}' not in found
        assert found['martlet_tenant_connections{tenant="greedy"}'] == "1"
        assert "over_operations:0" in bob.stats("tenants")["modest"]
        assert int(bob.stats("overload")["over_quota_tenant_greedy"]) == over["greedy"]
    until(lambda: any("over quota" in row and '"greedy"' in row for row in server.output().splitlines()))
    until(lambda: metrics(server)['martlet_tenant_connections{tenant="greedy"}'] == "0")


REPLIES = {
    "busy": (BUSY_BYTES, 0x85),
    "oom": ("SERVER_ERROR out of memory: busy: over the quota of bytes", 0x82),
    "miss": ("SERVER_ERROR out of memory: busy: over the quota of bytes", 0x82),
}


@pytest.mark.parametrize("form", REPLIES)
def test_refusals_read_as_the_listener_says(node, form):
    line, status = REPLIES[form]
    server = node(everybody(**ONCE), overload={"reply": form})
    with server.client() as client, server.connect() as other:
        for key in "kxyz":
            assert client.set(key, "value") == "STORED"
        spend(client)
        assert client.ask("get k") == ("END" if form == "miss" else line)
        assert client.ask("mg k v") == ("EN" if form == "miss" else line)
        if form == "miss":
            assert client.ask("get x y z") == "END"
        else:
            client.send("get x y z\r\nmn\r\n")
            assert [client.line(), client.line()] == [line, "MN"], "one error for all keys, and no END"
        stores = ["set k 0 0 1\r\nv", "append k 0 0 1\r\nv", "ms k 1\r\nv"]
        for command in ["touch k 0", "incr k 1", "gat 0 k", "ma k", *stores]:
            assert client.ask(command) == line, command
        packet = binary.packet(binary.SET, key=b"x", value=b"v", extras=STORE, opaque=7)
        assert exchange(other, packet)[:3] == (binary.SET, status, 7)
        found = exchange(other, binary.packet(binary.GET, key=b"y", opaque=8))[:3]
        assert found == (binary.GET, 1 if form == "miss" else status, 8)


def test_what_is_about_no_item_is_always_served(node):
    server = node(everybody(**ONCE))
    with server.client() as client:
        spend(client)
        assert client.ask("mn") == "MN"
        assert client.ask("version").startswith("VERSION")
        assert client.ask("verbosity 0") == "OK"
        assert client.stats()["version"]
        assert client.ask("get k") == BUSY_BYTES


def test_deletes_run_a_second_ahead(node):
    server = node(everybody(operationsPerSecond=50, operationsBurst=50))
    with server.client() as client:
        assert client.set("k", "v") == "STORED"
        while "EN" in ask_often(client, 50) or client.ask("mg k") == "HD":
            pass
        client.send("delete none\r\n" * 40 + "md k\r\n")
        rows = [client.line() for _ in range(41)]
        assert rows == ["NOT_FOUND"] * 40 + ["HD"], rows
        client.send("delete none\r\n" * 500)
        rows = [client.line() for _ in range(500)]
        assert BUSY in rows and rows.count("NOT_FOUND") < 100


def test_quiet_forms_keep_their_silence(node):
    server = node(everybody(**ONCE))
    with server.client() as client:
        assert client.set("k", "value") == "STORED"
        spend(client)
        client.send("touch k 0 noreply\r\nincr k 1 noreply\r\nset k 0 0 1 noreply\r\nx\r\nmn\r\n")
        assert client.line() == "MN"
        client.send("mg k v q\r\nms k 1 q\r\nx\r\nmn\r\n")
        assert [client.line() for _ in range(3)] == [BUSY_BYTES, BUSY_BYTES, "MN"], "meta's q does not hide errors"


@pytest.mark.parametrize("size", [0, 1, 5000, 40_000, 300_000, 900_000])
@pytest.mark.parametrize("form", ["set {} 0 0 {}", "ms {} {}"])
def test_values_of_refused_sets_are_swallowed(node, size, form):
    """However large, and cut into pieces that look like commands. The old value goes with them, in a cache."""
    server = node(everybody(**ONCE))
    value = (b"get k\r\n" * (size // 7 + 1))[:size]
    with server.client() as client:
        assert client.set("k", "old") == client.set("other", "old") == "STORED"
        spend(client)
        client.send(form.format("k", size).encode() + b"\r\n" + value[: size // 2])
        time.sleep(0.05)
        client.send(value[size // 2 :] + b"\r\nmn\r\n")
        assert [client.line(), client.line()] == [BUSY_BYTES, "MN"]
        server.reload(everybody())
        assert client.get("k") is None
        assert client.get("other") == b"old"


def test_behind_a_store_a_refusal_changes_nothing(node):
    server = node(everybody(**ONCE), "--storage-backend", "memory", overload={"reply": "miss"})
    with server.client() as client:
        assert client.set("k", "old") == "STORED"
        spend(client)
        line = REPLIES["miss"][0]
        assert client.set("k", "new") == line
        assert client.ask("get k") == line, "a miss would say that there is no row"
        assert client.ask("get k none") == line
        assert client.ask("mn") == "MN"
        server.reload(everybody())
        assert client.get("k") == b"old"


def test_a_get_that_is_cut_off_goes_on_behind_its_last_key(node):
    server = node(everybody(operationsPerSecond=1, operationsBurst=150))
    with server.client() as client:
        client.send("set k 0 0 5\r\nvalue\r\n" + "get " + "k " * 500 + "\r\nmn\r\nget k k k\r\nmn\r\n")
        assert client.line() == "STORED"
        rows = []
        while not rows or rows[-1] != "MN":
            rows.append(client.line())
        assert 149 <= rows.count("VALUE k 0 5") <= 160
        assert rows[-2:] == [BUSY, "MN"] and "END" not in rows and rows.count(BUSY) == 1
        assert [client.line(), client.line()] == [BUSY, "MN"]


def test_bytes_count_in_both_directions(node):
    server = node(everybody(bytesPerSecond=50_000, bytesBurst=300_000))
    with server.client() as client:
        assert client.set("large", b"v" * 200_000) == "STORED"
        assert client.get("large") == b"v" * 200_000
        assert client.ask("get large") == BUSY_BYTES
        assert client.set("small", b"v") == BUSY_BYTES
        assert client.ask("mn") == "MN"
        # What was had is paid for, and then there is more.
        begun = time.monotonic()
        until(lambda: client.set("small", b"v") == "STORED", 15)
        assert time.monotonic() - begun < 10
        found = metrics(server)
        assert 400_000 < int(found['martlet_tenant_bytes_total{tenant="all"}']) < 410_000
        assert int(found['martlet_tenant_over_quota_total{tenant="all",quota="bytes"}']) >= 2


def test_one_value_larger_than_the_burst_is_let_through_and_owed(node):
    server = node(everybody(bytesPerSecond=50_000, bytesBurst=10_000))
    with server.client() as client:
        assert client.set("large", b"v" * 100_000) == "STORED"
        begun = time.monotonic()
        until(lambda: client.ask("mg large") == "HD", 20)
        assert time.monotonic() - begun > 1


def test_rows_of_a_store_count_when_they_come(node):
    server = node(everybody(bytesPerSecond=1024, bytesBurst=300_000), "--storage-backend", "memory")
    with server.client() as client:
        assert client.set("k", b"v" * 100_000) == "STORED"
        assert client.ask("flush_all") == "OK"
        client.send("get k\r\nget k\r\nget k\r\nmn\r\n")
        rows = [client.line() for _ in range(3)]
        assert rows[0] == "VALUE k 0 100000"
        while rows[-1] != "MN":
            rows.append(client.line())
        assert client.ask("get k") == BUSY_BYTES


def over_quota(server):
    return int(metrics(server)['martlet_tenant_over_quota_total{tenant="all",quota="connections"}'])


def admitted(server, count):
    """So many connections; none where one is refused, as long as the server holds another that is gone."""
    clients = [server.client() for _ in range(count)]
    try:
        if all(client.ask("mn") == "MN" for client in clients):
            return clients
    except (Closed, OSError):
        pass
    for client in clients:
        client.close()
    return None


def test_connections_beyond_the_quota_are_told_so_and_closed(node):
    server = node(everybody(connections=3))
    # Whoever waited for the start is gone.
    until(lambda: metrics(server)['martlet_tenant_connections{tenant="all"}'] == "0")
    clients = until(lambda: admitted(server, 3))
    refused = over_quota(server)
    for _ in range(3):
        with server.client() as client:
            assert client.until_closed().decode() == FULL + "\r\n"
    with server.client() as client:
        client.send("get k\r\n" * 10)
        assert client.until_closed().decode() == FULL + "\r\n", "nothing that it asks for is done"
    assert clients[0].ask("mn") == "MN"
    assert over_quota(server) == refused + 4
    clients.pop().close()
    until(lambda: accepted(server))
    server.reload(everybody(connections=5))
    more = [server.client() for _ in range(3)]
    for client in clients + more:
        assert client.ask("mn") == "MN"
    # Fewer are allowed: those that are there stay.
    server.reload(everybody(connections=1))
    for client in clients + more:
        assert client.ask("mn") == "MN"
        client.close()
    until(lambda: accepted(server))


def accepted(server):
    with server.client() as client:
        try:
            return client.ask("mn") == "MN"
        except (Closed, OSError):
            return False


def test_a_login_beyond_the_quota_ends_the_connection(node, tmp_path):
    (tmp_path / "users").write_text("alice:a\nbob:b\n")
    tenants = [{"name": "one", "users": ["alice"], "connections": 1}, {"name": "all", "others": True, "connections": 1}]
    server = node(tenants, "-Y", tmp_path / "users")
    # Who has not logged in yet is nobody's.
    waiting = [server.client() for _ in range(4)]
    assert login(waiting[0], "alice", "a") == "STORED"
    waiting[1].send("set auth 0 0 7\r\nalice a\r\nset k 0 0 1\r\nv\r\n")
    assert waiting[1].until_closed().decode() == f"STORED\r\n{FULL}\r\n"
    assert login(waiting[2], "bob", "b") == "STORED"
    assert waiting[0].get("k") is None
    for client in waiting:
        client.close()
    until(lambda: metrics(server)['martlet_tenant_connections{tenant="one"}'] == "0")


def test_sighup_takes_quotas_over_and_keeps_what_is_used_up(node):
    server = node(everybody(**ONCE))
    with server.client() as client:
        spend(client)
        server.reload(everybody(**ONCE, connections=50))
        assert client.ask("mg k") == BUSY_BYTES, "a reload is no way around a quota"
        server.reload(everybody(bytesPerSecond=1 << 30))
        until(lambda: client.ask("mg k") == "EN")
        server.reload(everybody())
        assert ask_often(client, 2000) == ["EN"] * 2000
        server.reload(everybody(operationsPerSecond=1, operationsBurst=10))
        assert ask_often(client, 100).count(BUSY) >= 88
        assert "wait for a restart" not in server.output()


def test_datagrams_have_quotas_too(node):
    port = free_port(socket.SOCK_DGRAM)
    server = node(everybody(operationsPerSecond=1, operationsBurst=5), "-U", str(port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(5)
        answers = []
        for _ in range(20):
            datagrams.sendto(b"\0\1\0\0\0\1\0\0mg k\r\n", ("127.0.0.1", port))
            answers.append(datagrams.recv(2000)[8:].decode().strip())
        assert answers.count("EN") <= 8 and answers[:5] == ["EN"] * 5 and BUSY in answers
    with server.client() as client:
        assert client.ask("mn") == "MN"


def test_binary_values_that_are_received_apart(node):
    server = node(everybody(**ONCE))
    with server.client() as client, server.connect() as connection:
        packet = binary.packet(binary.SET, key=b"k", value=b"v" * 500_000, extras=STORE, opaque=8)
        assert exchange(connection, packet)[:3] == (binary.SET, 0, 8)
        spend(client)
        connection.sendall(packet[:1000])
        time.sleep(0.02)
        connection.sendall(packet[1000:] + binary.packet(binary.NOOP, opaque=9))
        assert reply(connection)[:3] == (binary.SET, 0x85, 8)
        assert reply(connection)[:3] == (binary.NOOP, 0, 9)
