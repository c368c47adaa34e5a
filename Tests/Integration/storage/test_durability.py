# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Nothing acknowledged is lost, whatever the moment of the crash. A sample; `make soak` does 1,000 cycles."""

import os
import signal
import socket
import threading
import time

import pytest

from bed import Patience
from storage.cycles import FAULT_CYCLES, missing_faults, run_cycles
from storage.node import BACKEND, Node

pytestmark = [pytest.mark.ours, pytest.mark.skipif(BACKEND == "memory", reason="rows in memory do not survive")]
SEED = int(os.environ.get("MARTLET_SEED") or time.time_ns() % 100_000)


def judge(result):
    print(result["counts"])
    assert not result["failures"], f"MARTLET_SEED={result['seed']}\n" + "\n".join(result["failures"][:10])
    return result["counts"]


def test_the_first_example_survives_a_crash(tmp_path):
    """The README's promise: set, kill -9, start, get."""
    with Node(tmp_path) as node:
        with node.client() as client:
            assert client.set("greeting", b"hello") == "STORED"
        node.kill()
        node.start()
        with node.client() as client:
            assert client.get("greeting") == b"hello"


@pytest.mark.parametrize("end", ["crash", "SIGTERM"])
@pytest.mark.parametrize("durability", ["sync", "group", "async"])
def test_what_is_acknowledged_survives_the_process(tmp_path, durability, end):
    """A process that ends takes nothing with it: even in async mode the operating system has it all."""
    with Node(tmp_path, storage_durability=durability) as node:
        with node.client() as client:
            client.send(b"".join(b"set k%d %d 5000 1\r\n%d\r\n" % (n, n, n % 10) for n in range(2000)))
            assert [client.line() for _ in range(2000)] == ["STORED"] * 2000
            client.send("gets k7\r\n")
            head = client.line()
        node.restart(crash=end == "crash")
        with node.client() as client:
            client.send("gets k7\r\n")
            assert [client.line(), client.line(), client.line()] == [head, "7", "END"]
            for number in range(0, 2000, 37):
                line = client.ask(f"mg k{number} f t v")
                words = line.split()
                assert words[:3] == ["VA", "1", f"f{number}"]
                assert 4900 < int(words[3][1:]) <= 5001
                assert client.line() == str(number % 10)


def test_cycles_of_load_and_crash(tmp_path):
    counts = judge(run_cycles(SEED, 15, directory=tmp_path, least=1000))
    assert 15 <= counts["cycles"] == counts["kills"] + counts["terminations"]
    assert counts["acked"] >= 1000


def test_a_long_run_without_its_trouble_shows_nothing():
    counts = {"cycles": FAULT_CYCLES, "acked": 7, "kills": 5, "under way": 3}
    assert missing_faults("node", counts) == []
    assert missing_faults("node", {**counts, "kills": 0}) == [f"no kills in {FAULT_CYCLES} cycles"]
    assert missing_faults("power", counts) == [f"no bytes taken in {FAULT_CYCLES} cycles"]
    assert len(missing_faults("database", counts)) == 3
    assert missing_faults("database", {**counts, "cycles": 3}) == [], "a short one may be spared"


def test_cycles_with_group_commit(tmp_path):
    judge(run_cycles(SEED, 5, durability="group", directory=tmp_path))


@pytest.mark.skipif(BACKEND != "rocksdb", reason="of the embedded store")
def test_cycles_of_load_and_power_losses(tmp_path):
    counts = judge(run_cycles(SEED, 10, directory=tmp_path, power=True, least=500))
    assert counts["cycles"] >= 10
    assert counts["acked"] >= 500


@pytest.mark.skipif(BACKEND != "rocksdb", reason="of the embedded store")
def test_power_losses_take_what_was_never_synced(tmp_path):
    """Without syncs the same power losses take acknowledged writes, and each is named."""
    result = run_cycles(SEED, 10, durability="async", directory=tmp_path, power=True, least=500)
    assert result["counts"]["bytes taken"] > 0
    assert any("nothing where" in text or "instead of" in text for text in result["failures"])


@pytest.mark.skipif(BACKEND != "rocksdb", reason="cuts its log")
def test_would_notice_what_is_lost(tmp_path):
    """The end of the log is cut off between crash and start: acknowledged writes are gone, and each is named."""

    def cut(node):
        for log in node.path.rglob("*.log"):
            with open(log, "r+b") as file:
                file.truncate(log.stat().st_size * 2 // 3)

    result = run_cycles(SEED, 3, directory=tmp_path, disturb=cut, least=300)
    assert len(result["failures"]) > 5


def test_what_was_sent_before_a_SIGTERM_is_answered_or_absent(tmp_path):
    """A graceful end answers what it took, or does not do it; nothing is half there."""
    with Node(tmp_path) as node:
        client = node.client()
        client.send(b"".join(b"set k%d 0 0 2000\r\n%s\r\n" % (n, b"x" * 2000) for n in range(3000)))
        time.sleep(0.02)
        assert node.terminate() == 0
        replies = client.until_closed(30)
        answered = replies.count(b"STORED\r\n")
        node.start()
        with node.client() as client:
            there = [client.get(f"k{number}") for number in range(3000)]
            assert all(there[:answered])
            assert {len(value) for value in there if value} <= {2000}
            gone = there.index(None) if None in there else 3000
            assert not any(there[gone:]), "a connection's writes are done in their order"


def test_a_process_that_stood_still_goes_on(tmp_path):
    """A node that was paused for a while (a debugger, a suspended machine) goes on with what it had."""
    with Node(tmp_path) as node, node.client() as client:
        client.set("k", b"v")
        node.server.signal(signal.SIGSTOP)
        client.send("set k 0 0 1\r\nw\r\n")
        time.sleep(2.5)
        node.server.signal(signal.SIGCONT)
        line = client.line()
        node.settle()
        value = client.get("k")
        if line.startswith("SERVER_ERROR storage: "):
            # It waited for longer than a store may be waited for, and was not sent.
            assert value == b"v"
        else:
            assert line in ("STORED", "SERVER_ERROR outcome unknown")
            assert value in (b"v", b"w")
        client.ask("flush_all")
        assert client.get("k") == value


def test_many_starts_in_a_row_are_quick(tmp_path):
    with Node(tmp_path) as node:
        with node.client() as client:
            client.set("k", b"v")
        for _ in range(10):
            began = time.monotonic()
            node.restart()
            assert time.monotonic() - began < 10
        with node.client() as client:
            assert client.get("k") == b"v"
            client.send("gets k\r\n")
            version = int(client.line().split()[4])
            assert (version >> 16) - time.time() * 1000 < 3_600_000


def test_connections_during_a_start_are_served_or_refused(tmp_path):
    """Nobody is answered from an empty cache before the rows are open."""
    with Node(tmp_path) as node:
        with node.client() as client:
            client.set("k", b"v")
        node.kill()
        starter = threading.Thread(target=node.start)
        starter.start()
        answers = set()
        patience = Patience(20)
        while not patience.is_over and b"VALUE" not in b"".join(answers):
            try:
                with socket.create_connection(("127.0.0.1", node.port), 2) as one:
                    one.sendall(b"get k\r\n")
                    answers.add(one.recv(100)[:5])
            except OSError:
                time.sleep(0.001)
        starter.join()
        assert answers == {b"VALUE"}
