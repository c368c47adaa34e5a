# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Many clients ask for large rows and do not read them: memory has a bound, and whoever reads is served."""

import re
import signal
import socket
import time
from pathlib import Path

import pytest

from bed import Patience, until

from . import database
from .node import Node
from .rings import Fleet

pytestmark = pytest.mark.ours
BYTES = 400_000
KEYS = 640
CLIENTS, EACH = 120, 40
LIMIT = 32 << 20
# The rows that the store is asked for at once.
LOOKUP = 128 * BYTES


def value(number):
    return b"%07d" % number * (BYTES // 7)


def peak(node):
    """The most memory that the node has had, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{node.server.pid}/status").read_text())[1]) << 10


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A node that was just started, with rows of which its cache holds a small part."""
    node = Node(
        tmp_path_factory.mktemp("waiting"), memory=16, backend="rocksdb", admin=True, storage_waiting_rows="32MiB",
        storage_timeout="60s", storage_block_cache="16MiB", overload_target="0")  # fmt: skip
    with node:
        with node.client(60) as client:
            for number in range(KEYS):
                client.send(b"set k%d 0 0 %d noreply\r\n%s\r\n" % (number, len(value(number)), value(number)))
            assert client.ask("mn") == "MN"
        # What was written leaves the buffers in memory.
        node.restart(crash=False)
        node.restart(crash=False)
        with node.client(60) as client:
            for number in range(0, KEYS, 16):
                assert client.get(f"k{number}") == value(number)
        yield node


def silent(node, names):
    """A client that asks for rows and takes next to nothing of what it is sent."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(60)
    one.connect(("127.0.0.1", node.port))
    one.sendall(b"".join(b"get %s\r\n" % name for name in names))
    return one


def read_all(one, names):
    """How many of the rows come, and how many errors, in the order in which they were asked for."""
    rows = refused = 0
    stream = one.makefile("rb")
    for name in names:
        line = stream.readline()
        if line == b"SERVER_ERROR storage: too many rows wait for clients that do not read\r\n":
            refused += 1
            continue
        assert line.split()[:2] == [b"VALUE", name], line
        assert stream.read(int(line.split()[3])) == value(int(name[1:]))
        assert stream.readline() + stream.readline() == b"\r\nEND\r\n"
        rows += 1
    return rows, refused


@pytest.mark.alone
def test_rows_of_clients_that_do_not_read_are_bounded(filled):
    node = filled
    before = peak(node)
    names = [[b"k%d" % ((turn * 37 + number * 17) % KEYS) for number in range(EACH)] for turn in range(CLIENTS)]
    clients = [silent(node, own) for own in names]
    # They ask for 1.9 GB together. Until the store has answered, others read, one row after the other and several at once.
    served, slowest, most, patience = 0, 0, 0, Patience(60)
    with node.client(60) as reader:
        while served <= 10 or figures["waiters"] or figures["rows_given_up"] <= CLIENTS * EACH / 4:
            assert not patience.is_over, figures
            number = served * 101 % KEYS
            began = time.monotonic()
            assert reader.get(f"k{number}") == value(number)
            slowest = max(slowest, time.monotonic() - began)
            served += 1
            figures = node.statistics()
            most = max(most, figures["waiting_row_bytes"])
        own = [b"k%d" % number for number in range(3, 9)]
        reader.send(b"".join(b"get %s\r\n" % name for name in own))
        for name in own:
            reader.line()
            assert reader.read(len(value(0)) + 2)[:7] == value(int(name[1:]))[:7]
            assert reader.line() == "END"
    grown = peak(node) - before
    figures = node.statistics()
    print(f"grown by {grown >> 20} MiB, {served} served, the slowest in {slowest:.3f} s, "
          f"{figures['rows_given_up']:.0f} given up, {most / 2**20:.0f} MiB waited at most")  # fmt: skip
    assert slowest < 20
    # Beyond the limit there may be, for a moment, what one lookup of the store brought.
    assert figures["waiting_row_limit_bytes"] == LIMIT and LIMIT / 4 < most <= LIMIT + LOOKUP
    # The limit, what is on its way, and for each client what its socket did not take; without a limit it is 330 MiB,
    # although each row that several clients wait for is in memory once.
    assert grown < LIMIT + (160 << 20), f"{grown >> 20} MiB"
    status, page = node.get("/metrics")
    assert status == 200 and f"martlet_storage_rows_given_up_total {figures['rows_given_up']:.0f}\n" in page
    # Whoever reads after all has the first rows, errors for the rest, and everything in its order.
    rows, refused = read_all(clients[0], names[0])
    assert rows >= 1 and refused >= 1 and rows + refused == EACH
    assert clients[0].send(b"mn\r\n") and clients[0].recv(100) == b"MN\r\n"
    for one in clients:
        one.close()
    until(lambda: node.statistics()["waiting_row_bytes"] == 0)


def test_who_reads_loses_nothing_however_much_it_asks_for(filled):
    """Pipelines of large rows whose clients read: more than the limit, and no error."""
    names = [b"k%d" % (number * 7 % KEYS) for number in range(200)]
    before = filled.statistics()["rows_given_up"]
    with socket.create_connection(("127.0.0.1", filled.port), 60) as one:
        for part in range(0, len(names), 10):
            one.sendall(b"".join(b"get %s\r\n" % name for name in names[part : part + 10]))
            assert read_all(one, names[part : part + 10]) == (10, 0)
    assert filled.statistics()["rows_given_up"] == before


@pytest.fixture
def pair(tmp_path):
    """Two nodes with one database, and keys that the second owns."""
    if not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")
    flags = ["--storage-waiting-rows", "16MiB", "--overload-target", "0", "--storage-timeout", "60s"]
    with Fleet(tmp_path, count=2, flags=flags) as fleet:
        names = []
        with fleet.nodes[0].client(20) as client:
            assert client.ask("config get owners").startswith("OWNERS ")
            number = 0
            while len(names) < 24:
                if "302" in client.ask(f"mg k{number} c"):
                    names.append(b"k%d" % number)
                number += 1
        yield fleet, names


def test_values_for_an_owner_that_stands_still_are_bounded(pair):
    fleet, names = pair
    asked, owner = fleet.nodes
    before = peak(asked)
    owner.server.signal(signal.SIGSTOP)
    large = b"x" * 900_000
    clients = [asked.client(60) for _ in range(250)]
    for number, client in enumerate(clients):
        client.send(b"set %s 0 0 %d\r\n%s\r\n" % (names[number % len(names)], len(large), large))
    owner.server.signal(signal.SIGCONT)
    said = [client.line() for client in clients]
    grown = peak(asked) - before
    refused = said.count("SERVER_ERROR storage: too many commands wait for the key's owner")
    print(f"grown by {grown >> 20} MiB, {refused} of {len(said)} refused")
    # They are 225 MB; 64 MiB may wait, as commands and as output, and what comes in has room as well.
    assert 50 <= refused < len(said)
    assert grown < 400 << 20
    with asked.client(20) as client:
        until(lambda: client.set(names[0].decode(), b"v") == "STORED", pause=0.1)
    for client in clients:
        client.close()


def test_rows_that_another_node_owns_are_bounded_too(pair):
    """The same where the rows come from their owner, through a node that passes the requests on."""
    fleet, names = pair
    asked = fleet.nodes[0]
    with fleet.nodes[1].client(60) as client:
        for name in names:
            assert client.set(name.decode(), value(int(name[1:]))) == "STORED"
    before = peak(asked)
    clients = [silent(asked, names) for _ in range(60)]
    served, least, patience = 0, time.monotonic() + 2, Patience(60)
    with asked.client(60) as reader:
        while time.monotonic() < least or served <= 3 or figures["rows_given_up"] <= 60:
            assert not patience.is_over, figures
            name = names[served % len(names)].decode()
            assert reader.get(name) == value(int(name[1:]))
            served += 1
            figures = asked.statistics()
    grown = peak(asked) - before
    print(f"grown by {grown >> 20} MiB, {served} served, {figures['rows_given_up']:.0f} given up")
    # They asked for 580 MB.
    assert figures["waiting_row_bytes"] <= figures["waiting_row_limit_bytes"] == 16 << 20
    assert grown < 200 << 20
    rows, refused = read_all(clients[0], names)
    assert rows >= 1 and refused >= 1 and rows + refused == len(names)
    for one in clients:
        one.close()
    until(lambda: asked.statistics()["waiting_row_bytes"] == 0)
