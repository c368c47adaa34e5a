# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Flags that limit or forbid: connections, item sizes, memory, flushes, dumps, protocols, idleness."""

import socket
import time

import pytest

from bed import Client, Closed
from differential import binary


def fill(client, count, size, prefix="fill"):
    """Stores without waiting, then waits for all of it."""
    value = b"x" * size
    for first in range(0, count, 500):
        client.send(b"".join(b"set %s%d 0 0 %d noreply\r\n%s\r\n" % (prefix.encode(), n, size, value)
                             for n in range(first, min(count, first + 500))))  # fmt: skip
    assert client.ask("mn") == "MN"


def test_refuses_connections_beyond_the_limit(start):
    server = start("-c 20 -t 1")
    clients = []
    for _ in range(60):
        client = server.client(timeout=5)
        clients.append(client)
        try:
            client.send(b"mn\r\n")
            answer = client.line()
        except (Closed, ConnectionResetError, BrokenPipeError):
            answer = "closed"
        if answer != "MN":
            break
    assert answer in ("ERROR Too many open connections", "closed")
    assert 4 <= len(clients) <= 21  # memcached counts descriptors of its own in
    for client in clients[:5]:
        client.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with server.client(timeout=5) as late:
                assert late.ask("mn") == "MN"
                stats = late.stats()
            break
        except (Closed, AssertionError, ConnectionError):
            time.sleep(0.02)
    else:
        pytest.fail("no connection after others were closed")
    assert int(stats["rejected_connections"]) >= 1
    assert stats["max_connections"] == "20"


def test_waits_for_room_without_maxconns_fast(start):
    server = start("-c 20 -t 1 -o no_maxconns_fast")
    clients = []
    for _ in range(40):
        client = server.client(timeout=0.3)
        clients.append(client)
        try:
            assert client.ask("mn") == "MN"
        except TimeoutError:
            break
    assert len(clients) < 40, "there is no limit"
    clients[0].close()
    clients[-1].socket.settimeout(5)
    assert clients[-1].line() == "MN"


@pytest.mark.parametrize(
    ("flag", "size"),
    [
        pytest.param("-I 16k -o slab_chunk_max=8", 16 << 10, marks=pytest.mark.newest),  # 1.6.18 crashes
        ("-I 1m", 1 << 20),
        ("-I 4m", 4 << 20),
    ],
)
def test_items_up_to_the_limit(start, flag, size):
    with start(f"{flag} -m 64").client() as client:
        fits, over = b"x" * (size - 512), b"x" * (size + 1)
        assert client.set("big", fits) == "STORED"
        assert client.get("big") == fits
        assert client.set("big", over) == "SERVER_ERROR object too large for cache"
        assert client.get("big") is None, "the old value outlives the one that was refused"
        assert client.stats("settings")["item_size_max"] == str(size)


def test_items_of_100_mib(start):
    with start("-I 128m -m 1024").client(timeout=60) as client:
        value = bytes(range(256)) * (100 << 12)
        assert client.set("huge", value) == "STORED"
        assert client.get("huge") == value
        assert client.set("huge", b"small") == "STORED"
        assert client.get("huge") == b"small"


def test_evicts_when_full(start):
    with start("-m 16 -t 1").client(timeout=30) as client:
        fill(client, 60_000, 1000)
        stats = client.stats()
        assert int(stats["evictions"]) > 20_000
        assert int(stats["bytes"]) <= 16 << 20
        assert 5000 < int(stats["curr_items"]) < 17_000
        assert client.get("fill59999") == b"x" * 1000


def test_refuses_instead_of_evicting(start):
    with start("-m 16 -M -t 1").client(timeout=30) as client:
        stored = 0
        for number in range(60_000):
            answer = client.set(f"m{number}", b"x" * 1000)
            if answer != "STORED":
                break
            stored += 1
        assert answer == "SERVER_ERROR out of memory storing object"
        assert stored > 8000
        assert client.get("m0") == b"x" * 1000
        assert client.stats()["evictions"] == "0"
        assert int(client.stats()["store_no_memory"]) >= 1


def test_a_refused_set_does_not_leave_the_old_value(start):
    with start("-m 16 -M -t 1").client(timeout=30) as client:
        client.set("old", b"o" * 10)
        for number in range(60_000):
            if client.set(f"m{number}", b"x" * 1000) != "STORED":
                break
        if client.set("old", b"x" * 1000) != "STORED":
            assert client.get("old") is None


def test_flush_can_be_forbidden(start):
    with start("-F").client() as client:
        client.set("k", b"v")
        assert client.ask("flush_all") == "CLIENT_ERROR flush_all not allowed"
        assert client.get("k") == b"v"
        assert client.stats("settings")["flush_enabled"] == "no"


def test_dumps_can_be_forbidden(start):
    with start("-X").client() as client:
        assert client.ask("stats cachedump 1 1") == "CLIENT_ERROR stats cachedump not allowed"
        assert client.ask("lru_crawler metadump all") == "ERROR metadump not allowed"
        assert client.stats("settings")["dump_enabled"] == "no"


def test_watching_can_be_forbidden(start):
    with start("-W").client() as client:
        assert client.ask("watch fetchers") == "CLIENT_ERROR watch commands not allowed"


def test_without_cas(start):
    with start("-C").client() as client:
        client.set("k", b"v")
        client.send("gets k\r\n")
        assert [client.line(), client.line(), client.line()] == ["VALUE k 0 1 0", "v", "END"]
        assert client.stats("settings")["cas_enabled"] == "no"


def test_binary_only(start):
    server = start("-B binary")
    with server.client() as client:
        client.send(b"version\r\n" + b"\0" * 24)
        assert client.until_closed(5) == b""
    with server.client() as client:
        client.send(binary.packet(binary.NOOP, opaque=7))
        assert client.read(24) == binary.HEADER.pack(0x81, binary.NOOP, 0, 0, 0, 0, 0, 7, 0)


def test_ascii_only(start):
    server = start("-B ascii")
    with server.client() as client:
        client.send(binary.packet(binary.NOOP) + b"\r\n")
        assert client.line() in ("ERROR", "CLIENT_ERROR bad command line format")
    with server.client() as client:
        assert client.ask("mn") == "MN"
        assert client.stats("settings")["binding_protocol"] == "ascii"


def test_idle_connections_are_closed(start):
    server = start("-o idle_timeout=1")
    with server.client() as idle, server.client() as busy:
        assert idle.ask("mn") == "MN"
        began = time.monotonic()
        while time.monotonic() - began < 15:
            assert busy.ask("mn") == "MN"
            idle.socket.settimeout(0.2)
            try:
                if not idle.socket.recv(1):
                    break
            except TimeoutError:
                continue
        assert 0.5 < time.monotonic() - began < 10
        assert int(busy.stats()["idle_kicks"]) >= 1


def test_memory_limit_changes_while_running(start, original):
    with start("-m 64 -t 1").client(timeout=30) as client:
        fill(client, 40_000, 1000)
        assert int(client.stats()["curr_items"]) > 35_000
        assert client.ask("cache_memlimit 8") == "OK"
        assert client.stats()["limit_maxbytes"] == str(8 << 20)
        fill(client, 20_000, 1000, "after")
        if not original:  # memcached gives its memory back a MiB a second, if at all
            deadline = time.monotonic() + 10
            while int(client.stats()["bytes"]) > 8 << 20 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert int(client.stats()["bytes"]) <= 8 << 20
        assert client.ask("cache_memlimit 128") == "OK"
        fill(client, 60_000, 1000, "grown")
        assert int(client.stats()["bytes"]) > 50 << 20
        assert client.ask("cache_memlimit 4").startswith("MEMLIMIT_TOO_SMALL")


def test_keys_up_to_250_bytes(start):
    with start().client() as client:
        assert client.set("k" * 250, b"v") == "STORED"
        assert client.get("k" * 250) == b"v"
        assert client.ask("get " + "k" * 251) == "CLIENT_ERROR bad command line format"


def test_a_get_with_one_bad_key_returns_no_value_at_all(start):
    with start().client() as client:
        client.set("good", b"v")
        client.send("get good good " + "k" * 251 + " good\r\n")
        assert client.line() == "CLIENT_ERROR bad command line format"
        client.send("mn\r\n")
        answer = client.line()
        assert (answer or client.line()) == "MN"  # 1.6.45 sends an empty line more


def test_backlog_and_nodelay_do_not_stand_in_the_way(start):
    server = start("-b 1024")
    sockets = [socket.create_connection(server.address, 5) for _ in range(200)]
    for one in sockets:
        one.sendall(b"mn\r\n")
    assert all(Client(one).line() == "MN" for one in sockets)
    for one in sockets:
        one.close()
