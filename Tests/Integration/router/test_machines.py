# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Routes with more than one server while servers are down, connections break and clients leave."""

import re
import socket
import struct
import time

from bed import free_port

from .bed import FakeServer, lines
from .test_routes import binary, packet

EXTRAS = struct.pack("!II", 5, 0)


def down():
    """A pool whose server nobody runs."""
    return {"servers": [f"127.0.0.1:{free_port()}"]}


class Slow:
    """A server that only listens until it is told to answer; gets and metas have their key as the value."""

    def __init__(self):
        self.seen = []
        self.open = []
        self.answers = False
        self.server = FakeServer(self.talk)

    def talk(self, connection):
        self.open.append(connection)
        for line in lines(connection):
            self.seen.append(line)
            words = line.split()
            if not self.answers:
                continue
            if words[0] == b"get":
                connection.sendall(b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (words[1], len(words[1]), words[1]))
            elif words[0] == b"mg":
                connection.sendall(b"VA %d\r\n%s\r\n" % (len(words[1]), words[1]))
            elif words[0] == b"version":
                connection.sendall(b"VERSION 1\r\n")

    def await_lines(self, count):
        deadline = time.monotonic() + 5
        while len(self.seen) < count:
            assert time.monotonic() < deadline, self.seen
            time.sleep(0.005)

    def cut(self):
        """Breaks all connections, and answers on later ones."""
        self.answers = True
        for connection in self.open:
            connection.shutdown(socket.SHUT_RDWR)


def test_nested_routes_with_a_server_down_answer_and_go_on(routed):
    for route in (
        {"allSync": [{"failover": ["down", "a"]}, "b"]},
        {"allSync": [{"failover": ["down", "a"]}, {"failover": ["other", "b"]}]},
        {"allMajority": [{"failover": ["down", "a"]}, "other", "b"]},
    ):
        router = routed({"route": route}, down=down(), other=down())
        with router.client() as one:
            assert [one.set("k", "v") for _ in range(6)] == ["STORED"] * 6, route
            assert one.get("k") == b"v" or "allMajority" in route
        assert router.alive()


def test_nobody_waits_for_a_server_that_is_down_and_need_not_answer(routed):
    router = routed({"route": {"allAsync": ["down", "a"]}}, down=down())
    with router.client() as one:
        assert [one.set("k", "v") for _ in range(5)] == ["NOT_STORED"] * 5
    router = routed({"route": {"allInitial": ["nothing", "down"]}}, down=down())
    with router.client() as one:
        assert [one.get("k") for _ in range(5)] == [None] * 5
    assert router.alive()


def test_requests_that_are_sent_nowhere_are_let_go(routed):
    router = routed({"route": {"prefixes": {"x": "nothing"}, "otherwise": "a"}})
    value = b"v" * 100_000
    with router.client() as one:
        for _ in range(50):
            assert one.set("x", value) == "NOT_STORED"
        before = router.rss()
        for _ in range(500):
            assert one.set("x", value) == "NOT_STORED"
        assert router.rss() - before < 20 << 20


def test_a_lost_connection_shifts_no_replies(routed):
    alternate = {"modifyKey": "slow", "prefix": "alt:"}
    for route in ({"failover": ["slow", alternate]}, {"outstandingLimit": "slow", "limit": 1}):
        slow = Slow()
        with slow.server as server:
            router = routed({"route": route}, slow={"servers": [f"127.0.0.1:{server.port}"]})
            with router.client() as one, router.client() as other:
                one.send("mg one v\r\n")
                slow.await_lines(1)
                other.send("mg other v\r\n")
                time.sleep(0.05)
                slow.cut()
                for client, key in ((one, "one"), (other, "other")):
                    said = client.line()
                    if said.startswith("VA"):
                        assert client.line() in (key, f"alt:{key}")
                    else:
                        assert said.startswith("SERVER_ERROR")
                for client, key in ((one, "two"), (other, "three"), (one, "four")):
                    assert client.ask(f"mg {key} v") == f"VA {len(key)}" and client.line() == key


def test_who_leaves_while_statistics_are_gathered_takes_no_reply_along(route):
    def stats(connection):
        for line in lines(connection):
            if line == b"stats":
                connection.sendall(b"STAT pid 1\r\nEND\r\n")
            elif line.startswith(b"mg "):
                time.sleep(0.3)
                connection.sendall(b"HD\r\n")

    mute = Slow()
    with mute.server, FakeServer(stats) as quick:
        router = route([f"127.0.0.1:{mute.server.port}", f"127.0.0.1:{quick.port}"], "-t 1 --upstream-timeout=2s")
        with router.client(timeout=1) as one:
            for number in range(50):
                probe = router.client(timeout=1)
                try:
                    key = f"key{number}"
                    if probe.ask(f"mg {key}") == "HD":
                        break
                except TimeoutError:
                    pass
                finally:
                    probe.close()
            gone = router.client()
            gone.send("stats\r\n")
            time.sleep(0.1)  # one server has answered, the other will not
            one.send(f"mg {key}\r\n")
            time.sleep(0.05)
            gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
            assert one.line() == "HD"


def test_what_goes_to_every_server_is_answered_when_there_is_none(route, tmp_path):
    file = tmp_path / "routes.yaml"
    file.write_text("pools: {none: {servers: [], whenEmpty: miss}}\nroute: none\n")
    router = route((), f"--config {file} -t 1 --commands-flush-all=true")
    with router.client() as one:
        assert "pid" in one.stats()
        assert one.ask("flush_all") == "OK"
        assert one.get("k") is None


def test_binary_writes_through_machines_are_what_they_say(routed, pair):
    value = b"v" * 40
    for name, route in (
        ("failover", {"failover": ["a", "b"]}),
        ("everywhere", {"allSync": ["a", "b"]}),
        ("pieces", {"bigValue": "a", "threshold": 10, "hideFlag": True}),
        ("sizes", {"sizeSplit": {"l1": "a", "l2": "b"}, "threshold": 5}),
        ("renamed", {"modifyKey": "a", "prefix": "p:"}),
    ):
        router = routed({"route": route})
        key = f"{name}-key".encode()
        with router.client() as one, router.client() as text:
            one.send(binary(0x01, key, EXTRAS, value, 1))
            assert packet(one)[:3] == (0x01, 0, 1), name
            one.send(binary(0x00, key, opaque=2))
            assert packet(one) == (0x00, 0, 2, struct.pack("!I", 5) + value), name
            assert text.get(key.decode()) == value, name
            one.send(binary(0x11, key, EXTRAS, value[:20], 3) + binary(0x0A, opaque=4))
            assert packet(one)[:3] == (0x0A, 0, 4), name
            assert text.get(key.decode()) == value[:20], name
            one.send(binary(0x14, key, opaque=5) + binary(0x04, key, opaque=6) + binary(0x0A, opaque=7))
            assert packet(one)[:3] == (0x04, 1, 6) and packet(one)[:3] == (0x0A, 0, 7), name
            count = struct.pack("!QQI", 1, 5, 0)
            one.send(binary(0x05, key + b"n", count, opaque=8) + binary(0x15, key + b"n", count, opaque=9))
            one.send(binary(0x05, key + b"n", count, opaque=10))
            assert packet(one) == (0x05, 0, 8, struct.pack("!Q", 5)), name
            assert packet(one) == (0x05, 0, 10, struct.pack("!Q", 7)), name


def test_nothing_is_added_to_values_in_pieces_and_marks(routed):
    value = "x" * 40
    for route in ({"bigValue": "a", "threshold": 10}, {"sizeSplit": {"l1": "a", "l2": "b"}, "threshold": 5}):
        router = routed({"route": route})
        with router.client() as one:
            assert one.set("k", value) == "STORED"
            for verb in ("append", "prepend"):
                assert one.set("k", "abc", verb=verb).startswith("CLIENT_ERROR append")
            assert one.ask("ms k 3 MA\r\nabc").startswith("CLIENT_ERROR append")
            assert one.get("k") == value.encode()


def test_meta_gets_see_values_and_no_marks(routed, pair):
    value = "x" * 40
    for route in ({"bigValue": "a", "threshold": 10}, {"sizeSplit": {"l1": "a", "l2": "b"}, "threshold": 5}):
        router = routed({"route": route})
        with router.client() as one:
            assert one.set("k", value) == "STORED" and one.set("short", "s", flags=3) == "STORED"
            for command, head in (("mg k v", "VA 40"), ("mg k v q k Ofc", "VA 40 kk Ofc")):
                assert one.ask(command) == head and one.line() == value, command
            short = {"mg short v": "VA 1", "mg short k v Ofc": "VA 1 kshort Ofc", "mg short v f": "VA 1 f3"}
            for command, head in short.items():
                assert one.ask(command) == head and one.line() == "s", command
            assert one.ask("mg short k") == "HD kshort" and one.ask("mg nobody v") == "EN"
            assert one.ask("mg k k") == "HD kk"
    router = routed({"route": {"twoLevels": {"l1": "a", "l2": "b"}, "ttl": "10s", "missTTL": "10s", "missPeriod": 100}})
    with router.client() as one, pair[0].client() as a, pair[1].client() as b:
        assert one.get("gone") is None
        deadline = time.monotonic() + 5
        while a.ask("mg gone") == "EN":
            assert time.monotonic() < deadline
        assert [one.ask(command) for command in ("mg gone v", "mg gone", "mg gone v k Ox")] == ["EN"] * 3
        b.set("there", "v", flags=9)
        assert one.ask("mg there k T30") == "HD kthere" and a.get("there") is None
        assert one.ask("mg there v") == "VA 1" and one.line() == "v"
        while a.ask("mg there f") != "HD f9":
            assert time.monotonic() < deadline


def test_replies_under_another_key_are_the_servers(routed, start):
    """A route that changes keys answers as the node does."""
    router, node = routed({"route": {"modifyKey": "a", "prefix": "p:"}}), start("-m 64 -t 1")
    commands = ["ms a 2 T90 F7\r\nhi", "mg a k O1 f s t h l", "mg a t h l f", "mg none k O1", "me a"]
    commands += ["mg YQ== b k Ox f", "ma n N0 J5 t O2 k", "ma n t D2", "ms z 0 T60 F3\r\n", "md z I T30"]
    commands += ["mg z f t k", "mg z f t k", "mg new N30 t k", "mg new N30 t k", "md a k O3", "md a k O4"]
    commands += ["ms no 1 MR k\r\nx"]
    with router.client() as one, node.client() as direct:
        for command in commands:
            said, expected = one.ask(command), direct.ask(command)
            if command == "me a":
                said, expected = said.split()[:2], expected.split()[:2]
            else:
                # Seconds may pass between the two.
                said, expected = (re.sub(r" ([tl])[0-9]+", r" \1", text) for text in (said, expected))
            assert said == expected, command
    with router.client() as one, node.client() as direct:
        for packets in (
            binary(0x01, b"bin", EXTRAS, b"value", 1), binary(0x0C, b"bin", opaque=2), binary(0x0C, b"none", opaque=3),
            binary(0x1C, b"bin", struct.pack("!I", 50), opaque=4), binary(0x1D, b"bin", EXTRAS[:4], opaque=5),
        ):  # fmt: skip
            one.send(packets)
            direct.send(packets)
            assert packet(one) == packet(direct), packets
