# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Servers that are dead, slow, stopped, killed and returned, or that lie: each costs its own keys only."""

import os
import signal
import threading
import time

import pytest
from bed import Server, free_port

from .bed import FakeServer, keys_by_node, lines


@pytest.fixture
def trio(start):
    return [start("-m 64 -t 1") for _ in range(3)]


def test_a_dead_server_costs_its_own_keys_only(route, trio):
    router = route(trio)
    with router.client() as one:
        keys = keys_by_node(one, trio, 20)
        trio[0].stop()
        time.sleep(0.1)
        first = one.ask(f"get {keys[0][0]}")
        assert first in ("SERVER_ERROR connection error", "SERVER_ERROR remote error")
        for key in keys[0][1:]:
            assert one.ask(f"get {key}") in ("SERVER_ERROR unavailable", "SERVER_ERROR connection error")
        for key in keys[1] + keys[2]:
            assert one.get(key) == key.encode()
        # A get over several servers says that it failed, in place of END.
        one.send("get " + " ".join(keys[1][:3] + keys[0][:3] + keys[2][:3]) + "\r\nmn\r\n")
        said = []
        while not said or said[-1] != "MN":
            said.append(one.line())
        assert said[-2].startswith("SERVER_ERROR ") and "END" not in said
        one.send(f"set {keys[0][0]} 0 0 1 noreply\r\nx\r\nmn\r\n")
        assert one.line() == "MN"
        assert one.ask(f"mg {keys[0][0]} v") == "SERVER_ERROR unavailable"


def halt(server):
    """Stops a process, and waits until it is."""
    server.signal(signal.SIGSTOP)
    while " T " not in open(f"/proc/{server.pid}/stat").read():
        time.sleep(0.005)


def test_a_stopped_server_times_out_and_late_replies_are_discarded(route, trio):
    router = route(trio, "--upstream-timeout=200ms --health-enabled=false -t 1")
    with router.client() as one, router.client() as other:
        keys = keys_by_node(one, trio, 30)
        halt(trio[0])
        try:
            begun = time.monotonic()
            one.send("".join(f"get {key}\r\n" for key in keys[0]))
            waits = []
            while time.monotonic() - begun < 0.6:
                at = time.monotonic()
                assert other.get(keys[1][0]) == keys[1][0].encode()
                waits.append(time.monotonic() - at)
            assert [one.line() for _ in keys[0]] == ["SERVER_ERROR timeout"] * len(keys[0])
            # Others never waited as long as the stopped one's clients.
            assert sorted(waits)[len(waits) * 99 // 100] < 0.15
        finally:
            trio[0].signal(signal.SIGCONT)
        # The server answers all that it was asked: none of it may be taken for the answer to something else.
        for _ in range(3):
            for key in keys[0]:
                assert one.get(key) == key.encode()


def test_a_server_that_does_not_answer_is_taken_out_until_it_does(route, trio):
    router = route(trio, "--upstream-timeout=100ms --health-first-probe=50ms -t 1")
    with router.client() as one:
        keys = keys_by_node(one, trio, 5)
        halt(trio[0])
        try:
            said = [one.ask(f"get {keys[0][0]}") for _ in range(6)]
            assert said == ["SERVER_ERROR timeout"] * 3 + ["SERVER_ERROR unavailable"] * 3
            begun = time.monotonic()
            assert one.ask(f"get {keys[0][0]}") == "SERVER_ERROR unavailable"
            assert time.monotonic() - begun < 0.05
            assert one.get(keys[1][0]) == keys[1][0].encode()
        finally:
            trio[0].signal(signal.SIGCONT)
        deadline = time.monotonic() + 5
        while one.ask(f"mg {keys[0][0]} v") == "SERVER_ERROR unavailable":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert one.line() == keys[0][0]
        for key in keys[0]:
            assert one.get(key) == key.encode()


def test_a_server_that_never_speaks_again_is_connected_anew(route):
    def silent(connection):
        for line in lines(connection):
            if line == b"get wake":
                connection.sendall(b"END\r\n")

    with FakeServer(silent) as server:
        router = route([f"127.0.0.1:{server.port}"], "--upstream-timeout=100ms -t 1")
        with router.client() as one:
            assert one.get("wake") is None
            assert one.ask("get x") == "SERVER_ERROR timeout"
            time.sleep(3.5)
            assert one.ask("get x") == "SERVER_ERROR timeout"
            assert server.connections == 2


@pytest.mark.parametrize("garbage", [b"HELLO\n", b"VALUE x\r\n", b"VALUE x 0 99999999999\r\n", b"END\r\nEND\r\n"])
def test_a_server_that_talks_nonsense_harms_nobody_else(route, start, garbage):
    def liar(connection):
        for _ in lines(connection):
            connection.sendall(garbage)

    with FakeServer(liar) as server:
        node = start("-m 64")
        router = route([f"127.0.0.1:{server.port}", node], "-t 1")
        with router.client() as one:
            answers = {one.ask(f"get nonsense-{number}") for number in range(40)}
            # One that breaks every connection is taken out after twenty.
            assert answers <= {
                "END", "SERVER_ERROR remote error", "SERVER_ERROR connection error", "SERVER_ERROR unavailable"}
            assert "END" in answers


def test_a_server_that_breaks_off_in_a_value_closes_the_client(route):
    def breaker(connection):
        for _ in lines(connection):
            connection.sendall(b"VALUE x 0 1000000\r\n" + b"x" * 500_000)
            return

    with FakeServer(breaker) as server:
        router = route([f"127.0.0.1:{server.port}"], "-t 1")
        with router.client() as one:
            one.send("get x\r\n")
            assert one.until_closed().startswith(b"VALUE x 0 1000000\r\n")


def test_a_server_without_room_for_connections_times_out(route):
    # An address that drops packets cannot be had on loopback: a listener whose queue is full comes close.
    import socket

    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    port = full.getsockname()[1]
    fill = []
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
        fill.append(one)
    router = route([f"127.0.0.1:{port}"], "--upstream-connect-timeout=200ms -t 1")
    with router.client() as one:
        begun = time.monotonic()
        assert one.ask("get x") == "SERVER_ERROR connection timeout"
        assert 0.15 < time.monotonic() - begun < 2
    for one in (full, *fill):
        one.close()


def test_killed_and_returned_under_load(route, start):
    """Clients see the right value, a miss or an error; nothing hangs; all is well soon after the return."""
    port = free_port()
    nodes = [start("-m 64 -t 1") for _ in range(2)]
    third = Server(["-m", "64", "-l", "127.0.0.1", "-p", str(port)], listen=False, wait=("127.0.0.1", port))
    router = route([*nodes, f"127.0.0.1:{port}"], "--upstream-timeout=500ms")
    stop, wrong, counts = threading.Event(), [], {"right": 0, "miss": 0, "error": 0}

    def load(seed):
        with router.client() as one:
            number = 0
            while not stop.is_set():
                key = f"load-{seed}-{number % 200}"
                number += 1
                said = one.set(key, key)
                if said != "STORED" and not said.startswith("SERVER_ERROR "):
                    wrong.append(said)
                one.send(f"get {key}\r\n")
                head = one.line()
                if head == "END":
                    counts["miss"] += 1
                elif head.startswith("SERVER_ERROR "):
                    counts["error"] += 1
                elif head == f"VALUE {key} 0 {len(key)}":
                    if one.read(len(key) + 7) != key.encode() + b"\r\nEND\r\n":
                        wrong.append(head)
                    counts["right"] += 1
                else:
                    wrong.append(head)

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            time.sleep(0.4)
            third.stop()
            time.sleep(0.4)
            third = Server(["-m", "64", "-l", "127.0.0.1", "-p", str(port)], listen=False, wait=("127.0.0.1", port))
        time.sleep(2.5)
        counts["error"] = 0
        time.sleep(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
        third.stop()
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong, wrong[:5]
    assert counts["right"] > 1000 and counts["error"] == 0


def test_too_much_for_a_server_is_refused_as_busy(route):
    with FakeServer(lambda connection: [None for _ in lines(connection)]) as server:
        router = route([f"127.0.0.1:{server.port}"], "--upstream-request-limit=10 --upstream-timeout=500ms -t 1")
        with router.client() as one:
            one.send("".join(f"get {number}\r\n" for number in range(15)))
            said = [one.line() for _ in range(15)]
            assert said == ["SERVER_ERROR timeout"] * 10 + ["SERVER_ERROR 307 busy"] * 5


def test_a_client_that_does_not_read_is_closed_and_costs_nobody(route, start):
    node = start("-m 256 -I 2m")
    router = route([node], "-t 1 --connections-output-limit=4MiB --upstream-timeout=10s")
    with router.client() as one, router.client() as greedy:
        one.set("big", os.urandom(1_000_000))
        greedy.send("get big\r\n" * 200)
        for _ in range(50):
            assert len(one.get("big")) == 1_000_000
        assert router.rss() < 200 << 20
