# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A disk that stops answering in the middle of everything: the store's, the log's, or both."""

import json
import struct
import time

import pytest

from bed import until

from .standing import Standing, build

pytestmark = pytest.mark.ours
SLOW = "SERVER_ERROR storage: the disk takes too long"
UNKNOWN = "SERVER_ERROR outcome unknown"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("stall"))


@pytest.fixture
def node(tmp_path, library):
    with Standing(tmp_path, library, storage_timeout="2s", storage_slow_log="1ms") as node:
        yield node


def ask(client, command):
    """The reply's first line, and how long it took."""
    began = time.monotonic()
    line = client.ask(command)
    return line, time.monotonic() - began


def test_what_waits_behind_a_commit_in_vain_is_refused_and_not_done(node):
    clients = [node.client(20) for _ in range(12)]
    first, *others, late = clients
    assert first.ask("set cached 0 0 1\r\nv") == "STORED"
    node.stall("sync")
    began = time.monotonic()
    first.send("set first 0 0 1\r\nv\r\n")
    # Until it is with the disk: what comes then waits behind it.
    until(lambda: node.statistics()["rocksdb_writes_waiting"] == 0 and node.statistics()["writes_in_flight"] == 1)
    time.sleep(0.1)
    for number, client in enumerate(others):
        client.send(f"set behind:{number} 0 0 1\r\nv\r\n")
    for client in others:
        assert client.line() == SLOW
    waited = time.monotonic() - began
    assert 1.2 < waited < 1.95, f"{waited}: before those who wait for the first one give up"
    assert first.line() == UNKNOWN
    assert 1.9 < time.monotonic() - began < 3.5
    line, seconds = ask(late, "set late 0 0 1\r\nv")
    assert line == SLOW and seconds < 0.5, "it is known by now"
    line, seconds = ask(late, "get cached")
    assert line.startswith("VALUE") and seconds < 0.5
    assert (late.line(), late.line()) == ("v", "END")
    status, text = node.get("/readyz")
    assert status == 503 and "takes too long" in text
    node.go_on()
    until(lambda: node.get("/readyz")[0] == 200)
    assert late.ask("set late 0 0 1\r\nw") == "STORED"
    node.settle()
    for number in range(len(others)):
        assert late.get(f"behind:{number}") is None, "what was refused is not done later"
    assert late.get("first") == b"v"
    figures = node.statistics()
    assert figures["rocksdb_writes_refused"] >= len(others) + 1
    for client in clients:
        client.close()


FULL = "SERVER_ERROR storage: too many wait for storage"


def test_who_comes_to_a_store_that_stands_still_fails_fast(tmp_path, library):
    """Whoever would probably wait in vain is told at once; hits go on; and when the disk does, all is as before."""
    with Standing(tmp_path, library, storage_timeout="4s") as node:
        waiting = [node.client(20) for _ in range(100)]
        hits, first, late = node.client(20), node.client(20), node.client(20)
        assert hits.set("cached", "v") == "STORED"
        node.stall("sync")
        first.send("set first 0 0 1\r\nv\r\n")
        until(lambda: node.statistics()["rocksdb_writes_waiting"] == 0 and node.statistics()["writes_in_flight"] == 1)
        began = time.monotonic()
        for number, client in enumerate(waiting):
            client.send(f"set behind:{number} 0 0 1\r\nv\r\n")
        until(lambda: node.statistics()["rocksdb_writes_waiting"] == 100)
        # Half of the three seconds after which they are told that they wait in vain.
        time.sleep(max(0, began + 1.8 - time.monotonic()))
        for number in range(5):
            line, seconds = ask(late, f"set late:{number} 0 0 1\r\nv")
            assert line == FULL and seconds < 0.5, (line, seconds)
            assert hits.get("cached") == b"v"
        assert time.monotonic() - began < 3, "the machine was too slow to tell"
        node.go_on()
        went = time.monotonic()
        for client in waiting:
            assert client.line() == "STORED"
        assert first.line() == "STORED"
        assert late.set("late:9", "v") == "STORED"
        assert time.monotonic() - went < 2
        # What was refused is not done.
        assert [late.get(f"late:{number}") for number in (0, 4, 9)] == [None, None, b"v"]
        figures = node.statistics()
        assert figures["rocksdb_writes_refused"] == 5 and figures["rocksdb_writes_limited"] == 0
        for client in (*waiting, hits, first, late):
            client.close()


def test_slow_syncs_that_many_share_are_no_queue(tmp_path, library):
    """64 connections that write again as soon as they are answered share each sync, however long it takes."""
    with Standing(tmp_path, library, storage_timeout="2s") as node:
        clients = [node.client(20) for _ in range(64)]
        node.stall("slow")
        end = time.monotonic() + 5
        rounds = 0
        while time.monotonic() < end:
            for client in clients:
                client.send("set k:%d 0 0 1\r\nv\r\n" % rounds)
            for client in clients:
                assert client.line() == "STORED"
            rounds += 1
        node.go_on()
        assert rounds >= 4
        figures = node.statistics()
        assert figures["rocksdb_writes_limited"] == 0 and figures["rocksdb_writes_refused"] == 0
        for client in clients:
            client.close()


def test_reads_of_a_disk_that_stands_still(tmp_path, library):
    """No block is in memory: every row is read."""
    with Standing(tmp_path, library, storage_timeout="2s") as node:
        with node.client(20) as client:
            for number in range(300):
                assert client.set(f"k{number}", b"%d" % number * 500) == "STORED"
        node.terminate()
        # The log's rows go into a file at a start, and are read from there.
        node.start()
        node.terminate()
        node.start()
        with node.client(20) as client, node.client(20) as other:
            assert client.get("k7") == b"7" * 500
            node.stall("read")
            # Both readers are held up by these, and all others wait.
            client.send("".join(f"get k{number}\r\n" for number in range(150, 300)))
            time.sleep(0.3)
            began = time.monotonic()
            other.send("get k9\r\n")
            line = other.line()
            assert line == SLOW, line
            assert time.monotonic() - began < 1.95
            line, seconds = ask(other, "get k7")
            assert line.startswith("VALUE") and seconds < 0.5
            assert (other.line(), other.line()) == ("7" * 500, "END")
            node.go_on()
            until(lambda: node.statistics()["storage_health"] == "ready")
            assert other.get("k9") == b"9" * 500


def binary(client, opcode, key, extras=b"", value=b""):
    """Sends a request of the binary protocol, and gives the status of its reply."""
    body = extras + key + value
    client.send(struct.pack(">BBHBxHIIQ", 0x80, opcode, len(key), len(extras), 0, len(body), 0, 0) + body)
    head = client.read(24)
    client.read(struct.unpack(">I", head[8:12])[0])
    return struct.unpack(">H", head[6:8])[0]


GET, SET, TOUCH, GAT = 0x00, 0x01, 0x1C, 0x1D


def test_statuses_of_the_binary_protocol(tmp_path, library):
    """A read that nobody answered did nothing; of a write nobody knows, and gat is one."""
    with Standing(tmp_path, library, storage_timeout="1s") as node:
        with node.client(20) as client:
            for number in range(300):
                assert client.set(f"k{number}", b"%d" % number * 500) == "STORED"
        for _ in range(2):
            node.terminate()
            node.start()
        with node.client(20) as client, node.client(20) as other:
            node.stall("read")
            assert binary(client, GET, b"k7") == 0x86
            assert binary(client, GET, b"k8") == 0x86
            node.go_on()
            until(lambda: node.statistics()["storage_health"] == "ready")
            assert binary(client, GET, b"k7") == 0
            node.stall("sync")
            # The first of each is with the disk when it stands still; the next are told before that they wait in vain.
            assert binary(client, SET, b"k7", bytes(8), b"v") == 0x84
            assert binary(other, TOUCH, b"k9", bytes(4)) == 0x86
            node.go_on()
            until(lambda: node.statistics()["storage_health"] == "ready")
            node.settle()
            assert binary(client, GET, b"k9") == 0
            node.stall("sync")
            assert binary(client, GAT, b"k9", bytes(4)) == 0x84
            node.go_on()
            node.settle()


def test_a_log_that_cannot_be_written_holds_up_nobody_who_ends_waits(node):
    """The thread that ends the waiting for the store is the one that logs slow operations and failures."""
    with node.client(20) as client, node.client(20) as other:
        node.stall("log")
        # Each of them is slow enough for a line.
        for number in range(50):
            assert client.ask(f"set slow:{number} 0 0 1\r\nv") == "STORED"
        time.sleep(0.5)
        node.stall("sync")
        for turn in range(3):
            began = time.monotonic()
            client.send(f"set stuck:{turn} 0 0 1\r\nv\r\n")
            assert client.line() == (UNKNOWN if turn == 0 else SLOW)
            assert time.monotonic() - began < 3.5, "a wait has an end whatever the log does"
        assert other.ask("mn") == "MN"
        node.switches["sync"].unlink()
        node.settle()
        assert client.ask("set again 0 0 1\r\nv") == "STORED"
        assert "slow storage operation" not in node.server.output()
        node.switches["log"].unlink()
        until(lambda: "slow storage operation" in node.server.output())
    rows = [json.loads(row) for row in node.server.output().splitlines() if row.startswith("{")]
    assert any(row["msg"] == "storage fails" for row in rows)
    assert node.terminate() == 0


def test_a_log_that_cannot_be_written_does_not_hold_up_the_end(node):
    with node.client() as client:
        assert client.ask("set k 0 0 1\r\nv") == "STORED"
    node.stall("log")
    began = time.monotonic()
    node.server.process.terminate()
    assert node.server.wait(15) == 0
    assert time.monotonic() - began < 8
