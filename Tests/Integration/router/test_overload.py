# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A router in front of servers that have too much to do: it sends them what they can take, and says busy to the rest."""

import json
import threading
import time

from behaviour.test_auth import login
from overload.openloop import Source, run

from .bed import FakeServer, lines

SEED = 11


class SlowServer(FakeServer):
    """A memcached that answers a `get` or `mg` after a time, one after another; `refuses` says which it refuses."""

    def __init__(self, seconds, refuses=lambda line: False):
        self.seconds = seconds
        self.refuses = refuses
        self.asked = 0
        self.lock = threading.Lock()
        super().__init__(self.answer)

    def answer(self, connection):
        for line in lines(connection):
            if line.startswith(b"version"):
                connection.sendall(b"VERSION 1\r\n")
                continue
            self.asked += 1
            if self.refuses(line):
                connection.sendall(b"SERVER_ERROR 307 busy\r\n")
                continue
            with self.lock:
                end = time.monotonic() + self.seconds
                while time.monotonic() < end:
                    time.sleep(self.seconds / 2)
            connection.sendall(b"HD\r\n" if line.startswith(b"m") else b"END\r\n")


def figures(router, server, user=None, password=None):
    with router.client() as one:
        if user:
            login(one, user, password)
        row = one.stats("servers")[f"127.0.0.1:{server.port}"]
    return dict(field.split(":", 1) for field in row.split())


def test_a_queue_at_a_server_is_held(route):
    """Of more than a server can do, what it can do is answered in time; without a limit, it is answered later and later."""
    outcomes = []
    for target in ("20ms", "0"):
        with SlowServer(0.002) as server:
            router = route([server], f"-t 1 --overload-target={target} --overload-wait=100ms --upstream-timeout=10s")
            (outcome,) = run(router.port, [Source(b"mg k s\r\n", 1000, 10)], 2, SEED)
            said = figures(router, server)
            outcomes.append(outcome)
            assert said["state"] == "up", "busy is no failure"
            if target == "0":
                assert outcome.refused == 0 and int(said["expired"]) == 0
            else:
                assert outcome.offered == outcome.served + outcome.refused, "each request has its answer, in order"
                assert int(said["limit"]) < 16384 and int(said["expired"]) > 50
    held, open_ = outcomes
    assert held.in_time(0.3) > 100
    assert held.quantile(0.99) < 0.5 * open_.quantile(0.99)


def test_requests_of_one_client_keep_their_order(route):
    """While others wait and are given up: what is answered to a client is answered in order, and nobody hangs."""
    with SlowServer(0.002) as server:
        router = route([server], "-t 1 --overload-target=5ms --overload-wait=60ms --upstream-timeout=10s")
        run(router.port, [Source(b"mg k s\r\n", 1500, 10)], 1, SEED)
        with router.client() as one:
            one.send("".join(f"mg k{number} s\r\n" for number in range(300)) + "mn\r\n")
            said = []
            while not said or said[-1] != "MN":
                said.append(one.line())
        assert len(said) == 301 and set(said[:-1]) <= {"HD", "SERVER_ERROR 307 busy"}


def test_a_client_that_leaves_takes_what_waits_with_it(route):
    with SlowServer(0.002) as server:
        router = route([server], "-t 1 --overload-target=5ms --overload-wait=2s --upstream-timeout=10s")
        run(router.port, [Source(b"mg k s\r\n", 1500, 10)], 1, SEED)
        for _ in range(5):
            with router.client() as one:
                one.send("get k\r\n" * 500)
                time.sleep(0.05)
        time.sleep(3)
        with router.client() as one:
            assert one.get("k") is None
        assert figures(router, server)["waiting"] == "0"


def test_what_a_server_would_refuse_is_not_sent(route):
    """A server that refuses nine of ten is asked about twice what it takes; what it takes of critical ones is all sent."""
    count = [0]

    def refuses(line):
        count[0] += 1
        return b"Pc" not in line and count[0] % 10 != 0

    with SlowServer(0, refuses) as server:
        router = route([server], "-t 1")
        ordinary, critical = run(
            router.port, [Source(b"mg k s\r\n", 4000, 10), Source(b"mg k s Pcritical\r\n", 200, 2)], 3, SEED)
        said = figures(router, server)
        assert critical.refused == 0 and critical.served == critical.offered
        assert ordinary.offered == ordinary.served + ordinary.refused
        assert int(said["throttled"]) > 0.4 * ordinary.offered
        assert server.asked < 0.6 * (ordinary.offered + critical.offered)
        assert said["state"] == "up", "busy is no failure"
        # It takes everything again: so does the router, soon.
        server.refuses = lambda line: False
        run(router.port, [Source(b"mg k s\r\n", 500, 5)], 2, SEED)
        before = figures(router, server)["throttled"]
        run(router.port, [Source(b"mg k s\r\n", 500, 5)], 1, SEED)
        assert figures(router, server)["throttled"] == before


class Rationed(SlowServer):
    """A server that takes so many requests a second, whosever they are, and refuses the others."""

    def __init__(self, rate):
        self.rate, self.room, self.last = rate, 0.0, time.monotonic()
        super().__init__(0, self.is_too_many)

    def is_too_many(self, line):
        with self.lock:
            now = time.monotonic()
            self.room = min(self.room + self.rate * (now - self.last), self.rate / 20)
            self.last = now
            if self.room < 1:
                return True
            self.room -= 1
            return False


def test_tenants_share_what_a_server_takes(route, tmp_path):
    """Of what is sent to a server that refuses most, who asks for less than an even part has all of its own sent, and who
    asks for twenty times that the rest. Without tenants both lose the same part."""
    (tmp_path / "users").write_text("modest:m\ngreedy:g\n")
    tenants = [{"name": name, "users": [name]} for name in ("modest", "greedy")]
    parts = []
    for named in (tenants, []):
        file = tmp_path / "router.yaml"
        file.write_text(json.dumps({"tenants": named}))
        with Rationed(300) as server:
            router = route([server], f"-t 1 --auth-file {tmp_path}/users --config {file}")
            sources = [
                Source(b"mg k s\r\n", rate, 4, greeting=b"set auth 0 0 8\r\n%s %s\r\n" % (user, user[:1]))
                for user, rate in ((b"modest", 100), (b"greedy", 2000))]  # fmt: skip
            run(router.port, sources, 1, SEED)
            modest, greedy = run(router.port, sources, 4, SEED)
            for one in (modest, greedy):
                assert one.offered == one.served + one.refused, "each request has its answer, in order"
            assert int(figures(router, server, "greedy", "g")["throttled"]) > 0.4 * greedy.offered
            parts.append(modest.served / modest.offered / (greedy.served / greedy.offered))
    shared, unshared = parts
    print("parts of the modest one by those of the greedy one:", parts)
    assert shared > 2 and shared > 1.7 * unshared, parts


def test_deletes_are_sent_whatever_the_server_refuses(route):
    with SlowServer(0, lambda line: not line.startswith(b"md")) as server:
        router = route([server], "-t 1")
        run(router.port, [Source(b"mg k s\r\n", 2000, 10)], 1, SEED)
        with router.client() as one:
            one.send("md k\r\n" * 50)
            assert {one.line() for _ in range(50)} == {"HD"}


def test_a_failing_server_is_not_asked_elsewhere_for_all(routed, pair):
    """What is sent again after a refusal is a tenth of what is asked; what was not sent at all does not count."""

    def count(node):
        with node.client() as one:
            return int(one.stats()["cmd_get"])

    with SlowServer(0, lambda line: True) as server:
        router = routed(
            {"route": {"failover": ["bad", "a"]}}, "--overload-throttle=false",
            bad={"servers": [f"127.0.0.1:{server.port}"]})  # fmt: skip
        with router.client() as one:
            said = [one.ask(f"get k{number}") for number in range(1000)]
        assert set(said) == {"END", "SERVER_ERROR 307 busy"}
        assert 150 <= count(pair[0]) <= 250, "100 at once, and a tenth of the rest"
        server.stop()
