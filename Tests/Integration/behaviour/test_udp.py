# Martlet
# SPDX-License-Identifier: Apache-2.0
"""UDP: eight bytes of header on each datagram, replies in pieces, both protocols. Off unless asked for."""

import socket
import struct

import pytest

from bed import free_port
from differential import binary

HEADER = struct.Struct(">HHHH")


class Datagrams:
    """A client that puts replies of several datagrams together."""

    def __init__(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.settimeout(5)
        self.socket.connect(("127.0.0.1", port))
        self.request = 0x1234

    def ask(self, data):
        self.request = (self.request + 1) & 0xFFFF
        self.socket.send(HEADER.pack(self.request, 0, 1, 0) + data)
        pieces, total = {}, None
        while total is None or len(pieces) < total:
            datagram = self.socket.recv(65536)
            assert len(datagram) <= 1400
            request, number, total, reserved = HEADER.unpack_from(datagram)
            assert (request, reserved) == (self.request, 0)
            assert number not in pieces
            pieces[number] = datagram[8:]
        assert sorted(pieces) == list(range(total))
        return b"".join(pieces[number] for number in range(total))

    def silent(self, data):
        """Whether nothing comes back."""
        self.socket.settimeout(0.3)
        self.socket.send(data)
        try:
            self.socket.recv(65536)
            return False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(5)


@pytest.fixture
def udp(start):
    port = free_port(socket.SOCK_DGRAM)
    server = start(f"-U {port} -m 64 -t 2")
    client = Datagrams(port)
    client.server = server
    yield client
    client.socket.close()


def test_is_off_by_default(start):
    with start().client() as client:
        assert client.stats("settings")["udpport"] == "0"


def test_text_commands(udp):
    assert udp.ask(b"version\r\n").startswith(b"VERSION 1.6.")
    assert udp.ask(b"set k 5 0 5\r\nhello\r\n") == b"STORED\r\n"
    assert udp.ask(b"get k\r\n") == b"VALUE k 5 5\r\nhello\r\nEND\r\n"
    assert udp.ask(b"mg k v\r\n") == b"VA 5\r\nhello\r\n"
    assert udp.ask(b"incr none 1\r\n") == b"NOT_FOUND\r\n"
    assert udp.ask(b"delete k\r\n") == b"DELETED\r\n"
    assert udp.ask(b"bogus\r\n") == b"ERROR\r\n"


def test_shares_its_items_with_tcp(udp):
    with udp.server.client() as client:
        client.set("shared", b"tcp")
        assert udp.ask(b"get shared\r\n") == b"VALUE shared 0 3\r\ntcp\r\nEND\r\n"
        assert udp.ask(b"set shared 0 0 3\r\nudp\r\n") == b"STORED\r\n"
        assert client.get("shared") == b"udp"


def test_replies_in_many_datagrams(udp):
    value = bytes(range(33, 123)) * 500
    with udp.server.client() as client:
        client.set("large", value)
    assert udp.ask(b"get large\r\n") == b"VALUE large 0 %d\r\n%s\r\nEND\r\n" % (len(value), value)


def test_stats_fit_into_datagrams(udp):
    text = udp.ask(b"stats\r\n")
    assert text.startswith(b"STAT pid ")
    assert text.endswith(b"END\r\n")


def test_binary_commands(udp):
    assert udp.ask(binary.packet(binary.SET, b"bin", b"value", b"\0" * 8))[:8] == b"\x81\x01\0\0\0\0\0\0"
    answer = udp.ask(binary.packet(binary.GET, b"bin", opaque=9))
    assert binary.HEADER.unpack_from(answer)[7] == 9
    assert answer.endswith(b"value")


def test_request_numbers_are_echoed(udp):
    for number in (0, 1, 45, 65534, 65535):
        udp.request = number - 1
        assert udp.ask(b"mn\r\n") == b"MN\r\n"


def test_multi_datagram_requests_and_short_ones_are_dropped(udp):
    assert udp.silent(b"")
    assert udp.silent(b"\0\1\0\0")
    assert udp.silent(HEADER.pack(5, 0, 1, 0))
    answer_or_silence = udp.silent(HEADER.pack(5, 0, 2, 0) + b"mn\r\n")
    assert answer_or_silence in (True, False)
    udp.socket.close()
    fresh = Datagrams(udp.server.client().stats("settings")["udpport"] and int(
        udp.server.client().stats("settings")["udpport"]))  # fmt: skip
    assert fresh.ask(b"mn\r\n") == b"MN\r\n"
    fresh.socket.close()


def test_noreply_is_silent(udp):
    assert udp.silent(HEADER.pack(5, 0, 1, 0) + b"set quiet 0 0 1 noreply\r\nq\r\n")
    assert udp.ask(b"get quiet\r\n") == b"VALUE quiet 0 1\r\nq\r\nEND\r\n"


def test_a_flood_of_garbage(udp):
    import random

    source = random.Random(6)
    for _ in range(3000):
        udp.socket.send(source.randbytes(source.randint(1, 1400)))
    fresh = Datagrams(udp.socket.getpeername()[1])
    fresh.socket.settimeout(1)
    for attempt in range(10):  # a full queue of the kernel's drops what comes next
        try:
            assert fresh.ask(b"mn\r\n") == b"MN\r\n"
            break
        except TimeoutError:
            assert attempt < 9, "no answer any more"
    fresh.socket.close()
    assert udp.server.alive()
