# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Reads that a server is slow with are asked of another one; a server that loses requests is taken out."""

import time

import pytest

from .bed import FakeServer, lines

pytestmark = pytest.mark.alone


class Cache(FakeServer):
    """A memcached that has every key: `delay(n)` is how long the n-th get takes, `fails(n)` ends the connection."""

    def __init__(self, name):
        self.name = name
        self.asked = 0
        self.delay = lambda number: 0
        self.fails = lambda number: False
        self.busy = False
        super().__init__(self.answer)

    def answer(self, connection):
        for line in lines(connection):
            if line.startswith(b"version"):
                connection.sendall(b"VERSION 1\r\n")
                continue
            self.asked += 1
            if self.fails(self.asked):
                return
            if self.busy:
                connection.sendall(b"SERVER_ERROR 307 busy\r\n")
                continue
            time.sleep(self.delay(self.asked))
            reply = b""
            for key in line.split()[1:]:
                value = key + b"@" + self.name
                reply += b"VALUE %s 0 %d\r\n%s\r\n" % (key, len(value), value)
            connection.sendall(reply + b"END\r\n")


@pytest.fixture
def caches():
    with Cache(b"a") as one, Cache(b"b") as two:
        yield one, two


@pytest.fixture
def hedged(routed, caches):
    def begin(**hedge):
        pools = {name: {"servers": [f"127.0.0.1:{cache.port}"]} for name, cache in zip(("first", "second"), caches)}
        return routed({"route": {"hedge": "first", "to": "second", **hedge}}, "--admin=off", **pools)

    return begin


def reads(client, count, start=0):
    """The answers to so many gets, one after the other, and how long each took."""
    said = []
    for number in range(start, start + count):
        begun = time.monotonic()
        value = client.get(f"key-{number}")
        said.append((value, time.monotonic() - begun))
        assert value in (b"key-%d@a" % number, b"key-%d@b" % number)
    return said


def test_a_slow_answer_does_not_keep_a_client_waiting(hedged, caches):
    """One get in two hundred takes 300 ms; what is in its way is asked of the other server, which is not slow."""
    first, second = caches
    router = hedged(minimum="5ms", limit={"rate": 0.3, "burst": 100})
    with router.client() as one:
        reads(one, 300)
        assert second.asked == 0 or second.asked < 20
        first.delay = lambda number: 0.3 if number % 200 == 0 else 0
        said = reads(one, 600, 300)
        stats = one.stats()
        print("hedges", stats["hedges"], "won", stats["hedge_wins"], "withheld", stats["hedges_withheld"])
        assert int(stats["hedge_wins"]) >= 2
        assert sum(1 for _, seconds in said if seconds > 0.25) == 0, "a read waited for the slow server"
        assert any(value.endswith(b"@b") for value, _ in said)


def test_answers_keep_their_order(hedged, caches):
    first, _ = caches
    router = hedged(minimum="1ms", limit={"rate": 0.5, "burst": 1000})
    with router.client() as one:
        reads(one, 300)
        first.delay = lambda number: 0.02 if number % 7 == 0 else 0
        one.send("".join(f"get key-{number}\r\n" for number in range(200)) + "mn\r\n")
        for number in range(200):
            line = one.line()
            assert line.startswith(f"VALUE key-{number} "), (number, line)
            assert one.line().startswith(f"key-{number}@")
            assert one.line() == "END"
        assert one.line() == "MN"
        assert int(one.stats()["hedges"]) > 0


def test_no_more_than_the_budget_is_asked_twice(hedged, caches):
    """A server that becomes slow altogether is asked twice five times of a hundred."""
    first, second = caches
    router = hedged(minimum="1ms")
    with router.client() as one:
        reads(one, 300)
        before = second.asked
        first.delay = lambda number: 0.02
        reads(one, 100, 300)
        assert 5 <= second.asked - before <= 10 + 400 // 20
        assert int(one.stats()["hedges_withheld"]) > 0


def test_nothing_is_asked_twice_while_a_server_is_busy(hedged, caches):
    first, second = caches
    router = hedged(minimum="1ms", limit={"rate": 0.5, "burst": 1000})
    with router.client() as one:
        reads(one, 300)
        first.busy = True
        assert one.ask("get x") == "SERVER_ERROR 307 busy"
        first.busy = False
        end, asked = time.monotonic() + 0.7, second.asked
        first.delay = lambda number: 0.05
        while time.monotonic() < end:
            reads(one, 1)
        assert second.asked == asked
        # Busy is over: reads that dawdle are helped again.
        first.delay = lambda number: 0
        reads(one, 300)
        time.sleep(1.1)
        first.delay = lambda number: 0.1
        reads(one, 5)
        assert second.asked > asked


def test_a_failing_server_is_taken_out_and_tried(route, caches):
    """Every second request ends the connection: clients are refused at once until it answers ten in a row."""
    first, _ = caches
    router = route([first], "-t 1 --health-first-probe=100ms --health-longest-probe=200ms --health-revival=50ms")

    def row():
        said = one.stats("servers")[f"127.0.0.1:{first.port}"]
        return dict(field.split(":", 1) for field in said.split())

    with router.client() as one:
        assert one.get("k") == b"k@a"
        first.fails = lambda number: number % 2 == 0
        end = time.monotonic() + 10
        while int(row()["circuit_opens"]) == 0:
            one.send("get k\r\n")
            drain(one)
            assert time.monotonic() < end, row()
        # It is down for who asks now, and is asked now and then.
        end, refused, asked = time.monotonic() + 1.5, 0, first.asked
        while time.monotonic() < end:
            one.send("get k\r\n")
            refused += one.line() == "SERVER_ERROR unavailable"
            drain(one)
            time.sleep(0.002)
        assert refused > 100 and first.asked - asked < 100, (refused, first.asked - asked)
        assert int(row()["circuit_opens"]) >= 2
        first.fails = lambda number: False
        end = time.monotonic() + 10
        while row()["taken_out"] != "0" or int(row()["requests"]) == 0:
            one.send("get k\r\n")
            one.line()
            drain(one)
            assert time.monotonic() < end, row()
            time.sleep(0.01)
        for _ in range(100):
            assert one.get("k") == b"k@a"


def drain(client):
    """Reads what is left of an answer."""
    client.send("mn\r\n")
    while client.line() != "MN":
        pass


def test_a_server_that_is_busy_is_not_taken_out(route, caches):
    first, _ = caches
    router = route([first], "-t 1 --overload-throttle=false")
    first.busy = True
    with router.client() as one:
        for _ in range(300):
            assert one.ask("get k") == "SERVER_ERROR 307 busy"
        first.busy = False
        assert one.get("k") == b"k@a"
