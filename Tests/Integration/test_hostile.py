# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Traffic that no client sends: slow, huge, truncated, lying, endless. After each, the server serves as before.

"As before" is checked on another connection: a set and a get within a second, resident memory within its bound, and no
file descriptor left behind.
"""

import contextlib
import os
import random
import socket
import struct
import threading
import time

import pytest

from bed import Closed, Server, until
from differential import binary
from router.bed import Router

MEMORY = 64 << 20
BOUND = int(MEMORY * 1.15) + (64 << 20)
SEED = int(os.environ.get("MARTLET_SEED") or 4)


@pytest.fixture(scope="module")
def node():
    with Server("-m 64 -t 2 -c 4000") as one:
        with one.client() as warm:
            for number in range(200):
                warm.set(f"warm{number}", b"w" * 1000)
        one.quiet = one.descriptors()
        yield one


@pytest.fixture
def bounded(node, original):
    """Asserts the bound of resident memory. memcached has none: it keeps every reply object it ever needed."""

    def check(more=0):
        if not original:
            assert node.rss() <= BOUND + more, f"{node.rss() >> 20} MiB resident"

    return check


@pytest.fixture(autouse=True)
def serves_afterwards(node, original):
    yield
    assert node.alive(), f"the server is gone: {node.output()[-3000:]}"
    began = time.monotonic()
    with node.client(timeout=5) as client:
        assert client.set("afterwards", b"x" * 1000) == "STORED"
        assert client.get("afterwards") == b"x" * 1000
    assert time.monotonic() - began < 1, "another client had to wait"
    deadline = time.monotonic() + 8
    while node.descriptors() > node.quiet and time.monotonic() < deadline:
        time.sleep(0.02)
    assert node.descriptors() <= node.quiet, "descriptors were left behind"
    while not original and node.rss() > BOUND and time.monotonic() < deadline:
        time.sleep(0.05)
    assert original or node.rss() <= BOUND, f"resident memory stays at {node.rss() >> 20} MiB"


def push(connection, data, seconds=20):
    """Sends as much as the server takes until it closes; True when all went out. Replies are read and dropped."""
    connection.settimeout(0.05)
    view, deadline = memoryview(data), time.monotonic() + seconds
    while view and time.monotonic() < deadline:
        try:
            view = view[connection.send(view[: 1 << 18]) :]
        except TimeoutError:
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1 << 20):
                    return False
        except (BrokenPipeError, ConnectionResetError):
            return False
    return not view


def closed_within(connection, seconds):
    """Whether the server closes by itself."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection.settimeout(0.1)
        try:
            if not connection.recv(1 << 20):
                return True
        except TimeoutError:
            continue
        except ConnectionResetError:
            return True
    return False


def test_one_byte_at_a_time(node):
    with node.client() as slow, node.client() as other:
        for byte in b"set slow 0 0 5\r\nhello\r\nget slow\r\nmg slow v\r\n":
            slow.send(bytes([byte]))
            assert other.ask("mn") == "MN"
        assert [slow.line() for _ in range(6)] == ["STORED", "VALUE slow 0 5", "hello", "END", "VA 5", "hello"]


def test_many_slow_writers_at_once(node):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.client()) for _ in range(100)]
        for byte in b"set k 0 0 10\r\n0123456789\r\n":
            for client in clients:
                client.send(bytes([byte]))
        assert {client.line() for client in clients} == {"STORED"}


def test_a_line_without_end_is_cut_off(node):
    with node.connect() as connection:
        push(connection, b"x" * (8 << 20), 5)
        assert closed_within(connection, 5)


def test_the_longest_line_that_is_not_a_get(node):
    with node.client() as client:
        client.send(b"x" * 2000 + b"\r\n")
        assert client.line() == "ERROR"
        assert client.ask("mn") == "MN"


def test_a_get_line_of_64_mib_without_end(node):
    with node.connect() as connection:
        push(connection, b"get " + b"abcdefgh " * (7 << 20), 15)


@pytest.mark.ours
def test_an_endless_get_line_does_not_take_all_memory(node, bounded):
    with node.connect() as connection:
        piece = b"get " + b"abcdefghijklmno " * (1 << 16)
        for _ in range(300):
            if not push(connection, piece, 5):
                break
            piece = piece if piece[:1] == b"a" else piece[4:]
            bounded(256 << 20)


def test_multigets_of_200_000_keys_on_one_line(node):
    with node.client(timeout=30) as client:
        client.set("warm7", b"seven")
        keys = [b"key%d" % number for number in range(199_999)] + [b"warm7"]
        client.send(b"get " + b" ".join(keys) + b"\r\n")
        assert [client.line(), client.line(), client.line()] == ["VALUE warm7 0 5", "seven", "END"]
        for number in range(200):
            client.set(f"s{number:03}", b"seven")
        client.send(b"get " + b" ".join(b"s%03d" % (number % 200) for number in range(200_000)) + b"\r\n")
        expected = b"".join(b"VALUE s%03d 0 5\r\nseven\r\n" % (number % 200) for number in range(200_000))
        assert client.read(len(expected)) == expected
        assert client.line() == "END"


def test_64_mib_of_garbage(node):
    source = random.Random(SEED)
    for _ in range(8):
        with node.connect() as connection:
            push(connection, source.randbytes(8 << 20), 10)


def test_garbage_in_small_lines(node):
    source = random.Random(SEED + 1)
    with node.connect() as connection:
        lines = b"".join(source.randbytes(source.randint(0, 60)).replace(b"\n", b"") + b"\r\n" for _ in range(100_000))
        assert push(connection, b"x\r\n" + lines, 30) or closed_within(connection, 5)


def test_values_that_never_come(node):
    lines = []
    for number in range(300):
        connection = node.connect()
        connection.sendall(b"set half%d 0 0 500000\r\n" % number + b"x" * 1000)
        lines.append(connection)
    with node.client() as client:
        assert client.set("other", b"y" * 100) == "STORED"
    for connection in lines:
        connection.close()


def test_values_cut_off_in_the_middle(node):
    for number in range(200):
        with node.connect() as connection:
            connection.sendall(b"set cut%d 0 0 900000\r\n" % (number % 5) + b"x" * 450_000)
    with node.client() as client:
        assert client.get("cut1") is None


def test_half_closed_connections(node):
    for _ in range(200):
        with node.connect() as connection:
            connection.sendall(b"get afterwards")
            connection.shutdown(socket.SHUT_WR)
            assert closed_within(connection, 5)


def test_commands_before_a_half_close_are_answered(node):
    with node.client() as client:
        client.set("half", b"closed")
        client.send(b"get half\r\nmn\r\n")
        assert client.line() == "VALUE half 0 6"
        client.socket.shutdown(socket.SHUT_WR)
        assert client.until_closed(5) == b"closed\r\nEND\r\nMN\r\n"


@pytest.mark.parametrize("leaves", ["closes", "quits", "half"])
@pytest.mark.parametrize("way", ["node", "storage", "router"])
def test_whatever_came_before_the_end_of_input_is_done(node, original, way, leaves):
    """More at once than is served in one turn, or waits for the store or for other servers at one time."""
    if original and way != "node":
        pytest.skip("a memcached has no storage and no router")
    count = 20_000
    with contextlib.ExitStack() as stack:
        if way == "router":
            behind = stack.enter_context(Server("-m 256 -t 1"))
            server = stack.enter_context(Router([behind]))
        else:
            storage = "--storage-backend memory" if way == "storage" else ""
            server = stack.enter_context(Server(f"-m 256 -t 1 {storage}"))
        connection = stack.enter_context(server.connect())
        quiet = b" noreply" if leaves != "half" else b""
        requests = b"".join(b"set k%d 0 0 2%s\r\nok\r\n" % (number, quiet) for number in range(count))
        connection.sendall(requests + (b"quit\r\n" if leaves == "quits" else b""))
        if leaves == "half":
            connection.shutdown(socket.SHUT_WR)
            replies = b""
            while piece := connection.recv(1 << 16):
                replies += piece
            assert replies == b"STORED\r\n" * count
        else:
            connection.close()
        with server.client() as client:
            until(lambda: client.get(f"k{count - 1}") == b"ok", 20, "the last of the sets")
            missing = [number for number in range(0, count, 97) if client.get(f"k{number}") != b"ok"]
            assert missing == []


def test_connection_churn(node):
    for number in range(3000):
        connection = node.connect()
        if number % 3 == 0:
            connection.sendall(b"mn\r\n")
        if number % 3 == 1:
            connection.sendall(b"get warm1\r\nset x 0 0")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def test_readers_that_never_read(node, bounded, original):
    """Forty connections ask for 200 MB each and do not take it."""
    with node.client() as client:
        client.set("large", b"L" * 200_000)
    latencies = []
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(node.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(0.2)
            with contextlib.suppress(OSError):
                connection.sendall(b"get large\r\n" * 1000)
        client = stack.enter_context(node.client(timeout=5))
        for _ in range(50):
            began = time.monotonic()
            assert client.ask("mn") == "MN"
            latencies.append(time.monotonic() - began)
            bounded(40 << 20)
            time.sleep(0.005)
    assert sorted(latencies)[25] < 0.05


def test_readers_that_never_read_errors(node, bounded):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(node.connect())
            connection.settimeout(0.2)
            with contextlib.suppress(OSError):
                connection.sendall(b"bogus\r\n" * 400_000)
        bounded(40 << 20)
        client = stack.enter_context(node.client(timeout=5))
        assert client.ask("mn") == "MN"


def test_a_pipeline_of_100_000_commands(node):
    commands = b"".join(b"set p%d 0 0 4\r\n%04d\r\nget p%d\r\n" % (n, n % 1000, n) for n in range(50_000))
    expected = b"".join(b"STORED\r\nVALUE p%d 0 4\r\n%04d\r\nEND\r\n" % (n, n % 1000) for n in range(50_000))
    with node.client(timeout=30) as client:
        writer = threading.Thread(target=client.send, args=(commands,))
        writer.start()
        assert client.read(len(expected)) == expected
        writer.join()


def test_binary_bodies_with_lying_lengths(node):
    source = random.Random(SEED + 2)
    for _ in range(400):
        key = source.randbytes(source.randint(0, 30))
        data = binary.packet(
            source.randrange(0x28), key, source.randbytes(source.randint(0, 200)), source.randbytes(source.choice((0,
            4, 8, 20))),
            total=source.choice((None, 0, 1, 23, 24, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 20, source.randrange(300))),
            key_length=source.choice((None, None, 0, 1, 250, 251, 0xFFFF)),
            extras_length=source.choice((None, None, 0, 4, 8, 255)),
        )  # fmt: skip
        with node.connect() as connection, contextlib.suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert closed_within(connection, 5)


def test_a_binary_header_of_2_gib_reserves_nothing(node):
    connections = []
    before = node.rss()
    for _ in range(50):
        connection = node.connect()
        connection.sendall(binary.packet(binary.SET, b"key", b"v", b"\0" * 8, total=0x7FFFFFF0))
        connections.append(connection)
    time.sleep(0.1)
    assert node.rss() < before + (80 << 20)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"POST /x HTTP/1.0"])
def test_http_requests_are_closed_without_an_answer(node, request_line):
    with node.client() as client:
        client.send(request_line + b"\r\nHost: example\r\nUser-Agent: x\r\n\r\n")
        assert client.until_closed(5) == b""


def test_tls_on_a_plain_port(node):
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))
    with node.connect() as connection:
        connection.sendall(hello)
        connection.shutdown(socket.SHUT_WR)
        assert closed_within(connection, 5)


def test_port_scans(node):
    probes = [
        b"", b"\r\n\r\n", b"\0" * 100, b"SSH-2.0-OpenSSH_9.0\r\n",
        b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0",
        b"*1\r\n$4\r\nPING\r\n", b"HELP\r\n", b"OPTIONS / RTSP/1.0\r\n\r\n", b"\x80", b"\x80\0", b"\x81\0" * 20,
        b"EHLO x\r\n",
        b"GIOP\x01\0\x01\0", b"l\0\x0b\0\0\0\0\0\0\0\0\0", b"\x16\x03", b"stats\r\n", b"quit\r\n",
    ]  # fmt: skip
    for probe in probes * 10:
        with node.connect() as connection, contextlib.suppress(OSError):
            connection.sendall(probe)


def test_deep_quiet_pipelines(node):
    """Quiet commands produce nothing, for a long time, and then the one reply is right."""
    with node.client(timeout=20) as client:
        writer = threading.Thread(target=client.send, args=(b"mg absent v q\r\n" * 200_000 + b"mn\r\n",))
        writer.start()
        assert client.line() == "MN"
        writer.join()
        client.send(b"set n 0 0 1 noreply\r\n1\r\n" * 50_000 + b"mn\r\n")
        assert client.line() == "MN"


def test_refused_values_are_swallowed(node):
    with node.client(timeout=20) as client:
        for size in (2 << 20, 30 << 20):
            client.send(b"set huge 0 0 %d\r\n" % size)
            client.send(b"get warm1\r\n" * (size // 11) + b"x" * (size % 11) + b"\r\n")
            assert client.line() == "SERVER_ERROR object too large for cache"
            assert client.ask("mn") == "MN"


def test_fairness_between_a_flood_and_a_single_request(node):
    stop = threading.Event()

    def flood():
        with node.connect() as connection:
            while not stop.is_set():
                push(connection, b"get warm1\r\n" * 5000, 1)

    floods = [threading.Thread(target=flood) for _ in range(4)]
    for thread in floods:
        thread.start()
    try:
        latencies = []
        with node.client(timeout=5) as client:
            for _ in range(100):
                began = time.monotonic()
                assert client.ask("mn") == "MN"
                latencies.append(time.monotonic() - began)
        # Python's own threads share one processor's time here: what is checked is that nobody starves.
        assert sorted(latencies)[50] < 0.25
    finally:
        stop.set()
        for thread in floods:
            thread.join()


def test_a_closed_connection_in_the_middle_of_a_large_reply(node):
    with node.client() as client:
        client.set("large", b"L" * 900_000)
    for _ in range(50):
        with node.connect() as connection:
            connection.sendall(b"get large\r\n" * 5)
            connection.recv(1000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_quit_in_the_middle_of_a_pipeline_answers_what_came_before(node):
    with node.client() as client:
        client.set("quit", b"w" * 1000)
        client.send(b"mn\r\nget quit\r\n")
        assert client.line() == "MN"
        assert client.read(len(b"VALUE quit 0 1000\r\n") + 1002 + 5).endswith(b"END\r\n")
        client.send(b"quit\r\nmn\r\n")
        with pytest.raises(Closed):
            client.line()
