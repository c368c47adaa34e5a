# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Values that arrive piece by piece: whether the store takes one is no matter of the cache, and memory has a bound."""

import struct
import time

import pytest

from bed import until
from differential import binary

from .node import Node

pytestmark = pytest.mark.ours
BYTES = 1_000_000


def begin(node, key, count=BYTES, sent=3):
    """A client that announces a value and stands still inside of it."""
    one = node.client(20)
    one.send(b"set %s 0 0 %d\r\n" % (key.encode(), count) + b"v" * sent)
    return one


def test_a_full_cache_refuses_no_value(tmp_path):
    with Node(tmp_path, memory=16, flags=["-M"], backend="memory") as node, node.client(30) as client:
        for number in range(1800):
            client.send(b"set k%d 0 0 10000 noreply\r\n%s\r\n" % (number, b"x" * 10000))
        assert client.ask("mn") == "MN"
        for count in (10_000, 40_000, 400_000, 900_000):
            assert client.set(f"v{count}", b"y" * count) == "STORED", count
            assert client.get(f"v{count}") == b"y" * count, count
        client.send(b"ms m 400000 c\r\n" + b"z" * 400_000 + b"\r\n")
        assert client.line().startswith("HD c")
        assert client.set("m", b"a" * 400_000, verb="append") == "STORED"
        assert client.get("m") == b"z" * 400_000 + b"a" * 400_000


def test_clients_that_stand_still_take_no_room_of_the_cache(tmp_path):
    with Node(tmp_path, memory=64, backend="memory") as node, node.client(30) as client:
        assert client.set("small", "v") == "STORED"
        still = [begin(node, f"u{number}") for number in range(20)]
        until(lambda: node.statistics()["incoming_value_bytes"] == 20 * BYTES)
        assert client.set("other", b"y" * 400_000) == "STORED"
        assert client.get("small") == b"v"
        assert int(client.stats()["evictions"]) == 0
        time.sleep(2.5)
        # Nobody needs the room: they have the time that they take.
        for one in still:
            one.send(b"v" * (BYTES - 3) + b"\r\n")
        assert [one.line() for one in still] == ["STORED"] * 20
        assert node.statistics()["incoming_value_bytes"] == 0
        for one in still[:2]:
            one.close()
        one = begin(node, "gone")
        until(lambda: node.statistics()["incoming_value_bytes"] == BYTES)
        one.close()
        until(lambda: node.statistics()["incoming_value_bytes"] == 0)


def test_the_bound_and_who_gives_way(tmp_path):
    with Node(tmp_path, backend="memory", storage_waiting_rows="4MiB", storage_timeout="1s") as node:
        with node.client(30) as client, node.client(30) as other:
            still = [begin(node, f"u{number}") for number in range(3)]
            # All of it but the line end.
            still.append(begin(node, "u3", sent=BYTES))
            until(lambda: node.statistics()["incoming_value_bytes"] == 4 * BYTES)
            # Replies before it come first.
            client.send(b"set before 0 0 1\r\nx\r\nset k 0 0 %d\r\n%s\r\nget before\r\n" % (BYTES, b"y" * BYTES))
            assert [client.line() for _ in range(2)] == [
                "STORED", "SERVER_ERROR storage: too many values are on their way"]
            assert [client.line() for _ in range(3)] == ["VALUE before 0 1", "x", "END"]
            assert client.get("k") is None
            other.send(binary.packet(binary.SET, b"b", b"y" * BYTES, struct.pack(">II", 0, 0)))
            assert struct.unpack(">H", other.read(24)[6:8])[0] == 0x86
            # What is small needs no room.
            assert client.set("small", b"y" * 30_000) == "STORED"

            def store():
                return client.set("k", b"y" * BYTES) == "STORED"

            until(store, 10)
            assert client.get("k") == b"y" * BYTES
            for one in still:
                assert one.line() == "SERVER_ERROR storage: the value stood still on its way"
            figures = node.statistics()
            assert figures["incoming_values_given_up"] == 4 and figures["incoming_value_bytes"] == 0
            assert figures["incoming_values_refused"] >= 2
            # They may send the rest, and go on.
            for number, one in enumerate(still):
                one.send(b"v" * (BYTES - 3 if number < 3 else 0) + b"\r\nget u%d\r\n" % number)
                assert one.line() == "END"
                assert one.set(f"u{number}", b"w" * BYTES) == "STORED"


def test_who_goes_on_slowly_does_not_give_way(tmp_path):
    with Node(tmp_path, backend="memory", storage_waiting_rows="1MiB", storage_timeout="1s") as node:
        with node.client(30) as client:
            slow = begin(node, "slow", count=BYTES, sent=0)
            until(lambda: node.statistics()["incoming_value_bytes"] == BYTES)
            refused = 0
            for _ in range(10):
                slow.send(b"s" * (BYTES // 10))
                refused += client.set("k", b"y" * BYTES) != "STORED"
                time.sleep(0.3)
            slow.send(b"\r\n")
            assert slow.line() == "STORED" and refused == 10
            assert client.set("k", b"y" * BYTES) == "STORED"
