# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A herd: thousands of connections miss one key in the same moment, and storage sees one read."""

import os
import resource
import select
import signal
import socket
import time

import pytest

from storage.node import Node

pytestmark = pytest.mark.ours
HERD = 10_000


@pytest.fixture
def limit():
    """As many descriptors as the herd takes, here and in the server that is started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Beside what this process has open: other tests' fixtures live as long as it does.
    wanted = HERD + 500 + len(os.listdir("/proc/self/fd"))
    if hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):
            pytest.skip(f"only {hard} descriptors are allowed")
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Herd:
    """Connections that ask and wait together, in one process."""

    def __init__(self, port, size):
        self.poll = select.epoll()
        self.sockets = {}
        for number in range(size):
            # A client's port belongs to one pair of addresses: several addresses, to have enough.
            one = socket.create_connection(("127.0.0.1", port), 20, source_address=(f"127.0.{1 + number // 8000}.1", 0))
            one.setblocking(False)
            self.sockets[one.fileno()] = one
            self.poll.register(one, select.EPOLLIN)

    def ask(self, request, ends, server, seconds=30):
        """Sends from all while the server stands still, so that it finds them all at once; then reads until each has
        its reply. Returns the different replies with their counts."""
        server.signal(signal.SIGSTOP)
        try:
            for one in self.sockets.values():
                one.send(request)
        finally:
            server.signal(signal.SIGCONT)
        replies, buffers = {}, dict.fromkeys(self.sockets, b"")
        deadline = time.monotonic() + seconds
        while buffers and time.monotonic() < deadline:
            for number, _ in self.poll.poll(1):
                data = self.sockets[number].recv(1 << 16)
                if number not in buffers:
                    raise AssertionError(f"more than one reply: {data!r}")
                buffers[number] += data
                if buffers[number].endswith(ends) or not data:
                    reply = buffers.pop(number)
                    replies[reply] = replies.get(reply, 0) + 1
        assert not buffers, f"{len(buffers)} without a reply; others: {replies}"
        return replies

    def close(self):
        for one in self.sockets.values():
            one.close()


def test_a_herd_on_one_missing_copy_reads_storage_once(tmp_path, limit):
    with Node(tmp_path, flags=["-c", str(HERD + 100), "-b", "4096"]) as node:
        herd = Herd(node.port, HERD)
        with node.client() as client:
            client.set("hot", b"v" * 100, flags=3)
            shared = 0
            for attempt in range(3):
                client.ask("flush_all")
                before = node.statistics()
                replies = herd.ask(b"get hot\r\n", b"END\r\n", node.server)
                after = node.statistics()
                assert replies == {b"VALUE hot 3 100\r\n" + b"v" * 100 + b"\r\nEND\r\n": HERD}
                # By the tier's count, and by that of the store itself.
                for name in ("reads_sent", f"{node.backend}_reads"):
                    assert after[name] - before[name] == 1, f"attempt {attempt}: {name}"
                savings = after["single_flight_savings"] - before["single_flight_savings"]
                assert savings < HERD
                shared += savings
                print(f"{savings:.0f} of {HERD} shared it in flight, the others found the copy")
            # Where the store answers before the next connection is served, nobody shares it in flight.
            assert shared > 0
            before = node.statistics()
            assert herd.ask(b"get nothing\r\n", b"END\r\n", node.server) == {b"END\r\n": HERD}
            after = node.statistics()
            assert after["reads_sent"] - before["reads_sent"] == 1, "what is not there costs one read, too"
        herd.close()


def test_a_herd_meets_a_writer(tmp_path, limit):
    """Gets that arrive after a write's reply do not join a read from before it, however many wait."""
    with Node(tmp_path, flags=["-c", str(HERD + 100), "-b", "4096"]) as node:
        herd = Herd(node.port, 1000)
        with node.client() as client:
            for number in range(100):
                value = b"%04d" % number
                assert client.set("hot", value) == "STORED"
                client.ask("flush_all")
                reply = b"VALUE hot 0 4\r\n" + value + b"\r\nEND\r\n"
                assert herd.ask(b"get hot\r\n", b"END\r\n", node.server) == {reply: 1000}
        herd.close()
