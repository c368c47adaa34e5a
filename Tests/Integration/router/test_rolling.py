# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A fleet that is worked on while real clients use it, and a slow server that costs its own keys only."""

import json
import math
import os
import signal
import statistics
import time

import pytest
from bed import Crew, Server, free_port, until
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

from .bed import keys_by_node
from .pace import Pace, put_first


def p99_of(spans):
    assert len(spans) > 100, "too few requests to tell"
    return sorted(spans)[len(spans) * 99 // 100]


def beside(groups, control, windows):
    """The p99 of users in windows of time, by that of others in the same windows, whose fleet nobody works on."""
    ours = [span for users in groups for window in windows for span in users.spans(*window)]
    return p99_of(ours), p99_of([span for window in windows for span in control.spans(*window)])


def quiet(groups):
    """The time from two seconds on after now, until each group of users was served often enough to tell a p99."""
    begin = time.monotonic() + 2
    time.sleep(2.5)
    until(lambda: all(len(users.spans(begin, math.inf)) > 150 for users in groups), what="enough requests", pause=0.1)
    return begin, time.monotonic()


class Users(Crew):
    """Threads with a pymemcache each, which set and get keys of their own and know what they may find there."""

    def __init__(self, port, threads=4, name="user"):
        super().__init__(threads)
        self.port, self.name = port, name
        self.lost, self.wrong, self.errors, self.times = [], [], [], []

    def run(self, number):
        client = Client(("127.0.0.1", self.port), timeout=5, connect_timeout=5, default_noreply=False)
        count = 0
        while not self.over.is_set():
            count += 1
            key = f"{self.name}-{number}-{count % 200}"
            began = time.monotonic()
            try:
                if count % 2:
                    client.set(key, f"{key}={count}")
                else:
                    self.check(key, count, client.get_many([key, f"{self.name}-{number}-{(count + 100) % 200}"]))
            except MemcacheServerError as error:
                self.errors.append((time.monotonic(), error))
            except Exception as error:  # noqa: BLE001 - whatever it is, a request had no reply
                self.lost.append(repr(error))
                client = Client(("127.0.0.1", self.port), timeout=5, connect_timeout=5, default_noreply=False)
            self.times.append((began, time.monotonic() - began))
            time.sleep(0.0005)

    def check(self, key, count, found):
        for name, value in found.items():
            owner, _, number = value.decode().partition("=")
            if owner != name or int(number) > count:
                self.wrong.append((name, value))

    def spans(self, since, until):
        return [span for began, span in list(self.times) if since <= began < until]

    def p99(self, since, until):
        return p99_of(self.spans(since, until))


def test_a_fleet_that_is_worked_on(route, start, tmp_path):
    """Two seconds after each change its users are served as those of a fleet that stands beside it untouched."""
    untouched = route([start("-m 64 -t 1") for _ in range(3)])
    ports = [free_port() for _ in range(3)]
    addresses = [f"127.0.0.1:{port}" for port in ports]

    def begin(port):
        return Server(f"-m 64 -t 1 -l 127.0.0.1 -p {port}", listen=False, wait=("127.0.0.1", port))

    def write(path, document):
        fresh = path.with_suffix(".fresh")
        fresh.write_text(json.dumps(document))
        os.replace(fresh, path)

    nodes = [begin(port) for port in ports]
    members, config = tmp_path / "members.yaml", tmp_path / "router.yaml"
    write(members, addresses)
    write(config, {"pools": {"main": {"members": f"file:{members}", "timeout": "500ms"}}, "route": "main"})
    router = route(
        (), f"--config {config} --discovery-settle=50ms --health-first-probe=50ms --health-longest-probe=200ms "
        "--upstream-reconnect-maximum=200ms")

    def restart(number, how):
        nodes[number].signal(how)
        nodes[number].wait()
        nodes[number].stop()
        nodes[number] = begin(ports[number])

    def rename(number):
        write(config, {
            "pools": {"main": {"members": f"file:{members}", "timeout": f"{500 + number}ms"}}, "route": "main"})

    works = [
        *[lambda number=number: restart(number, signal.SIGTERM) for number in range(3)],
        lambda: restart(1, signal.SIGKILL), lambda: write(members, addresses[:2]), lambda: write(members, addresses),
        lambda: rename(1), lambda: router.signal(signal.SIGHUP),
    ]
    try:
        with Users(router.port) as users, Users(untouched.port, name="control") as control:
            time.sleep(1)
            windows = []
            for work in works:
                work()
                done = time.monotonic()
                windows.append(quiet([users, control]))
                late = [at for at, _ in users.errors if at > done + 2]
                assert not late, "errors two seconds after a change was over"
        ours, theirs = beside([users], control, windows)
        after = [users.p99(*window) for window in windows]
        print(f"p99 two seconds after changes {ours * 1000:.1f} ms, beside a fleet that nobody works on "
              f"{theirs * 1000:.1f} ms; by change {[round(one * 1000, 1) for one in after]} ms; "
              f"{len(users.times)} requests, {len(users.errors)} answered with errors")
        assert not users.lost and not control.lost, users.lost[:3]
        assert not users.wrong and not control.wrong, users.wrong[:3]
        assert not control.errors, control.errors[:3]
        assert ours < 1.5 * theirs + 0.002
        assert max(after) < 0.25
    finally:
        for node in nodes:
            node.stop()


class Pairs:
    """The p99 of what is measured beside a change, by that without it, in short windows by turns. One verdict: pairs
    are taken until the mean of their ratios is known to three times its error to be on one side of the bound."""

    def __init__(self, measure, change, rest=0.1, gets=1000):
        self.measure, self.change, self.rest, self.gets, self.ratios = measure, change, rest, gets, []

    def window(self):
        # The same rest before each: who has slept is served first on a machine that others use.
        time.sleep(self.rest)
        self.measure.say(self.gets)
        return sorted(self.measure.hear())[self.gets * 99 // 100]

    def pair(self):
        quick = self.window()
        self.change(True)
        late = self.window()
        self.change(False)
        # The other neighbour, too: what drifts on the machine drifts out of the ratio.
        self.ratios.append(math.log(late / math.sqrt(quick * self.window())))

    def mean(self):
        """The middle half's mean, and its error: a window that others disturbed counts for one."""
        ratios = sorted(self.ratios)
        rest = ratios[len(ratios) // 4 : len(ratios) - len(ratios) // 4]
        # The error of a mean of a trimmed sample is that of the winsorised one.
        whole = [min(max(one, rest[0]), rest[-1]) for one in ratios]
        return statistics.fmean(rest), statistics.stdev(whole) * 2 / math.sqrt(len(ratios))

    def decide(self, bound, fewest=30, most=400):
        while True:
            self.pair()
            if len(self.ratios) < fewest:
                continue
            mean, error = self.mean()
            if abs(mean - math.log(bound)) > 3 * error or len(self.ratios) >= most:
                return math.exp(mean), math.exp(mean - error), math.exp(mean + error), len(self.ratios)


@pytest.fixture
def two_nodes(start):
    return [start("-m 64 -t 1") for _ in range(2)]


@pytest.mark.parametrize("what", ["delays", "stands still"])
def test_a_slow_server_does_not_slow_other_keys_down(route, two_nodes, what):
    """One server's replies come 50 ms late through a relay, or its process stands still, while it is asked for as before:
    the p99 of the other server's keys is less than a tenth above what it is without, by one verdict. Of a server that
    stands still, requests are given up all the time that is looked at."""
    timeout = "200ms" if what == "delays" else "50ms"
    with Pace("relay", two_nodes[0].port) as relay:
        router = route(
            [f"127.0.0.1:{relay.hear()}", two_nodes[1]], f"--health-enabled=false --upstream-timeout={timeout} -t 1")
        with router.client() as one:
            slowed, others = keys_by_node(one, two_nodes, 20)

        def change(to):
            if what == "delays":
                relay.say(0.05 if to else 0)
            else:
                relay.process.send_signal(signal.SIGSTOP if to else signal.SIGCONT)

        with Pace("measure", router.port, *others) as measure, Pace("ask", router.port, 0.001, *slowed) as asker:
            pairs = Pairs(measure, change)
            pairs.window()
            measured, beside_it = (measure, router, two_nodes[1]), (asker, relay, two_nodes[0])
            if not put_first(*[[one.process.pid for one in group] for group in (measured, beside_it)]):
                print("what else runs on this machine disturbs the measurement: no right to real-time scheduling")
            spent = router_seconds(router)
            ratio, low, high, count = pairs.decide(1.10)
            spent = router_seconds(router) - spent
            print(f"a server that {what}: p99 of other keys by {ratio:.3f} ({low:.3f} to {high:.3f}, {count} pairs); "
                  f"{spent / (3 * count * pairs.gets) * 1e6:.1f} us of the router for each of their gets")
            assert ratio < 1.10, (what, ratio, low, high, count)
            with router.client() as one:
                given_up = int(one.stats()["server_timeouts"])
            assert what == "delays" or given_up > count, "nothing was given up"
        # The same on the slow server's own keys: what is looked for is seen.
        with Pace("measure", router.port, *slowed) as measure:
            if what == "delays":
                own = Pairs(measure, change, gets=5)
                for _ in range(3):
                    own.pair()
                assert min(own.ratios) > math.log(2)


def router_seconds(router):
    """Processor time that the router has had, of all its threads."""
    total = 0
    for name in os.listdir(f"/proc/{router.process.pid}/task"):
        with open(f"/proc/{router.process.pid}/task/{name}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9
