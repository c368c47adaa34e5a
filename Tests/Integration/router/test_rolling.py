# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A fleet that is worked on while real clients use it, and a slow server that costs its own keys only."""

import json
import os
import signal
import socket
import statistics
import threading
import time

import pytest
from bed import Server, free_port
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

from .bed import keys_by_node


class Users:
    """Threads with a pymemcache each, which set and get keys of their own and know what they may find there."""

    def __init__(self, port, threads=4, name="user"):
        self.port, self.name, self.over = port, name, threading.Event()
        self.lost, self.wrong, self.errors, self.times = [], [], [], []
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(threads)]

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

    def p99(self, since, until):
        spans = sorted(span for began, span in list(self.times) if since <= began < until)
        assert len(spans) > 100, "too few requests to tell"
        return spans[len(spans) * 99 // 100]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(20)


def test_a_fleet_that_is_worked_on(route, tmp_path):
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
        with Users(router.port) as users:
            time.sleep(1.5)
            normal = users.p99(time.monotonic() - 1, time.monotonic())
            after = []
            for work in works:
                work()
                done = time.monotonic()
                time.sleep(2.6)
                after.append(users.p99(done + 2, done + 2.6))
                late = [at for at, _ in users.errors if at > done + 2]
                assert not late, "errors two seconds after a change was over"
        print(f"p99 before {normal * 1000:.1f} ms, 2 s after each change {[round(one * 1000, 1) for one in after]} ms; "
              f"{len(users.times)} requests, {len(users.errors)} answered with errors")
        assert not users.lost, users.lost[:3]
        assert not users.wrong, users.wrong[:3]
        assert statistics.median(after) < 3 * normal + 0.005
        assert max(after) < 0.25
    finally:
        for node in nodes:
            node.stop()


def p99(client, keys, count=400):
    spans = []
    for number in range(count):
        began = time.perf_counter()
        assert client.get(keys[number % len(keys)]) is not None
        spans.append(time.perf_counter() - began)
    return sorted(spans)[count * 99 // 100]


class Asker:
    """Asks for keys at a fixed pace, whatever comes of it."""

    def __init__(self, router, keys):
        self.socket, self.keys, self.over = router.connect(), keys, threading.Event()
        self.threads = [threading.Thread(target=self.ask), threading.Thread(target=self.read)]
        for thread in self.threads:
            thread.start()

    def ask(self):
        batch = "".join(f"get {key}\r\n" for key in self.keys).encode()
        while not self.over.wait(0.02):
            self.socket.sendall(batch)

    def read(self):
        try:
            while self.socket.recv(1 << 16):
                pass
        except OSError:
            pass

    def stop(self):
        self.over.set()
        self.threads[0].join(10)
        self.socket.shutdown(socket.SHUT_RDWR)
        self.threads[1].join(10)
        self.socket.close()


@pytest.fixture
def two_nodes(start):
    return [start("-m 64 -t 1") for _ in range(2)]


def test_a_slow_server_does_not_slow_other_keys_down(route, two_nodes, tmp_path):
    """One server is a router of its own, whose route waits 50 ms; then it is a process that stands still."""
    config = tmp_path / "slow.yaml"

    def write(milliseconds):
        pool = {"a": {"servers": [f"127.0.0.1:{two_nodes[0].port}"]}}
        config.write_text(json.dumps({"pools": pool, "route": {"latency": "a", "before": f"{milliseconds}ms"}
                                      if milliseconds else "a"}))

    write(0)
    slow = route((), f"--config {config} -t 1")
    router = route([slow, two_nodes[1]], "--health-enabled=false --upstream-timeout=200ms -t 1")
    with router.client() as one:
        slowed, others = keys_by_node(one, two_nodes, 20)

        def is_slow():
            began = time.perf_counter()
            one.get(slowed[0])
            return time.perf_counter() - began > 0.04

        def turn(to):
            write(50 if to else 0)
            slow.signal(signal.SIGHUP)
            end = time.monotonic() + 5
            while is_slow() != to:
                assert time.monotonic() < end
                time.sleep(0.02)

        def halt(to):
            slow.signal(signal.SIGSTOP if to else signal.SIGCONT)

        def compare(change):
            """The p99 of other keys while the server is slow, by that while it is not, in turns."""
            quick, late = [], []
            asker = Asker(router, slowed)
            try:
                for _ in range(8):
                    quick.append(p99(one, others))
                    change(True)
                    late.append(p99(one, others))
                    change(False)
                    time.sleep(0.1)
            finally:
                asker.stop()
            return statistics.median(late) / statistics.median(quick)

        for name, change in (("delays by 50 ms", turn), ("stands still", halt)):
            # On a machine that others use, a round may tell of them rather than of the router.
            ratios = []
            while len(ratios) < 8 and (not ratios or min(ratios) >= 1.10):
                ratios.append(compare(change))
            print(f"a server that {name}: p99 of other keys by {[round(one, 2) for one in ratios]}")
            assert min(ratios) < 1.10
