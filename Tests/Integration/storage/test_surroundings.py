# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Storage together with what else a node can do: TLS, unix sockets, users, full memory, dumps, resets."""

import socket
import struct

import pytest

from bed import Client
from behaviour.test_tls import Authority, context, options
from storage.node import BACKEND, Node

pytestmark = pytest.mark.ours


@pytest.mark.skipif(BACKEND == "postgres", reason="starts a node by its flags alone")
def test_through_tls(start, tmp_path):
    """Replies that waited take the same way out: in order, whole, large ones too."""
    authority = Authority(tmp_path)
    where = ["--storage-backend", BACKEND, "--storage-path", str(tmp_path / "rows")]
    server = start([*options(authority.issue("server")), *where])
    client = Client(context(authority).wrap_socket(server.connect(30), server_hostname="127.0.0.1"))
    value = bytes(range(256)) * 3000
    sent = [b"set big%d 0 0 %d\r\n%s\r\n" % (number, len(value), value) for number in range(8)]
    for data in sent:
        client.send(data)
    assert [client.line() for _ in sent] == ["STORED"] * 8
    client.ask("flush_all")
    client.send(b"get none big3 none2\r\nmn\r\nget big5 big6\r\nmg none\r\n")
    assert client.line() == f"VALUE big3 0 {len(value)}"
    assert client.read(len(value) + 2)[:-2] == value
    assert [client.line(), client.line()] == ["END", "MN"]
    for number in (5, 6):
        assert client.line() == f"VALUE big{number} 0 {len(value)}"
        assert client.read(len(value) + 2)[:-2] == value
    assert [client.line(), client.line()] == ["END", "EN"]


def test_over_a_unix_socket(start, tmp_path):
    where = ["--storage-backend", "rocksdb", "--storage-path", str(tmp_path / "rows")]
    for attempt in range(2):
        server = start(where, unix=tmp_path / "node.sock")
        with server.client() as client:
            if attempt == 0:
                assert client.set("k", b"v") == "STORED"
            assert client.get("k") == b"v"
        server.stop()


def test_a_login_is_no_write(tmp_path, start):
    users = tmp_path / "users"
    users.write_text("alice:wonder\n")
    server = start(["-Y", str(users), "--storage-backend", "memory"])
    with server.client() as client:
        assert client.ask("get k") == "CLIENT_ERROR unauthenticated"
        assert client.set("auth", b"alice wonder") == "STORED"
        assert client.get("auth") is None
        assert client.set("k", b"v") == "STORED"
        client.ask("flush_all")
        assert client.get("k") == b"v"
        assert client.get("auth") is None
        assert int(client.stats("storage")["writes"]) == 1


def test_full_memory_that_must_not_evict_refuses_no_write(tmp_path):
    """Storage took it: that there is no room for a copy is not the client's concern."""
    with Node(tmp_path, memory=16, flags=["-M"]) as node, node.client(30) as client:
        value = b"x" * 10_000
        for first in range(0, 3000, 100):
            names = range(first, first + 100)
            client.send(b"".join(b"set k%d 0 0 %d\r\n%s\r\n" % (name, len(value), value) for name in names))
            assert [client.line() for _ in names] == ["STORED"] * 100
        for number in range(0, 3000, 7):
            assert client.get(f"k{number}") == value
        assert client.set("k1", b"new") == "STORED"
        assert client.get("k1") == b"new"


def test_a_memory_limit_that_shrinks_loses_nothing(tmp_path):
    with Node(tmp_path, memory=128) as node, node.client(30) as client:
        value = b"y" * 20_000
        for number in range(2500):
            client.send(b"set k%d 0 0 %d noreply\r\n%s\r\n" % (number, len(value), value))
        assert client.ask("mn") == "MN"
        assert client.ask("cache_memlimit 16") == "OK"
        assert all(client.get(f"k{number}") == value for number in range(2500))


def test_without_cas_in_the_cache(tmp_path):
    """-C: there is no version to show; storage keeps them nevertheless."""
    with Node(tmp_path, flags=["-C"]) as node, node.client() as client:
        client.set("k", b"v")
        client.send("gets k\r\n")
        first = client.line()
        assert [client.line(), client.line()] == ["v", "END"]
        client.ask("flush_all")
        client.send("gets k\r\n")
        assert client.line() == first, "the same from storage as from the cache"
        assert [client.line(), client.line()] == ["v", "END"]


def test_a_forbidden_flush_stays_forbidden(tmp_path):
    with Node(tmp_path, flags=["-F"]) as node, node.client() as client:
        client.set("k", b"v")
        assert client.ask("flush_all") == "CLIENT_ERROR flush_all not allowed"


def test_a_dump_shows_copies_and_none_of_what_is_not_there(tmp_path):
    with Node(tmp_path) as node, node.client() as client:
        client.set("there", b"v", exptime=100)
        client.get("nothing")
        client.ask("mg lease N30")
        rows = client.lines("lru_crawler metadump all", end=("END",))
        assert any(row.startswith("key=there ") for row in rows), rows
        assert not any("nothing" in row for row in rows), rows


@pytest.mark.parametrize("threads", [1, 4])
def test_connections_that_are_reset_while_they_wait(tmp_path, threads):
    """Thousands of clients that go away with replies due: nothing is left of them."""
    with Node(tmp_path, threads=threads, flags=["-c", "4000"]) as node:
        with node.client() as client:
            client.set("k", b"v" * 1000)
        before = node.server.descriptors()
        for number in range(1500):
            one = node.server.connect()
            one.send(b"set gone%d 0 0 1\r\nx\r\nget k\r\nget none%d\r\nincr k 1\r\n" % (number, number))
            if number % 2:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
        rows = node.settle()
        with node.client() as client:
            assert client.get("k") == b"v" * 1000
        assert rows["waiters"] == 0
        assert node.server.descriptors() <= before + 3


def test_the_limit_of_items_bounds_values(tmp_path):
    with Node(tmp_path, flags=["-I", "16k"]) as node, node.client() as client:
        assert client.set("k", b"old") == "STORED"
        assert client.set("k", b"x" * (16 << 10)) == "SERVER_ERROR object too large for cache"
        assert client.get("k") == b"old", "a refused set changes nothing"
        assert client.set("half", b"h" * 9000) == "STORED"
        assert client.set("half", b"x" * 9000, verb="append") == "NOT_STORED"
        assert client.get("half") == b"h" * 9000
    with Node(tmp_path, flags=["-I", "1m"]) as node, node.client() as client:
        big = b"b" * 500_000
        assert client.set("big", big) == "STORED"
    # A row that is larger than what a copy may be: it is served all the same.
    with Node(tmp_path, flags=["-I", "16k"]) as node, node.client() as client:
        assert client.get("big") == big
        assert client.get("k") == b"old"
