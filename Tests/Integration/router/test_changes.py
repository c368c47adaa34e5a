# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Members in DNS and in etcd come and go, and routes change, while real clients use both pools."""

import json
import os
import signal
import time

import pytest
from bed import Server, free_port
from discovery import dns

from .test_membership import etcd, eventually, servers  # noqa: F401
from .test_rolling import Users, beside, quiet


@pytest.fixture
def fleet(start):
    return [start("-m 64 -t 1") for _ in range(4)]


def test_members_in_dns_and_etcd_and_routes_change_under_load(route, start, fleet, etcd, tmp_path):  # noqa: F811
    """No request without an answer, no value of another key or from the future; two seconds after a change no error, and
    answers as fast as those of a fleet beside it that nobody works on."""
    untouched = route([start("-m 64 -t 1") for _ in range(2)])
    source = f"etcd://127.0.0.1:{etcd.port}/martlet/side"
    config = tmp_path / "router.yaml"

    def write(milliseconds, **more):
        fresh = config.with_suffix(".fresh")
        fresh.write_text(json.dumps({
            "pools": {
                "main": {"members": "dnssrv+_m._tcp.example", "timeout": f"{milliseconds}ms"},
                "side": {"members": source, "timeout": f"{milliseconds}ms"}, **more},
            "route": {"prefixes": {"etcd": "side"}, "otherwise": "main"}}))  # fmt: skip
        os.replace(fresh, config)

    def register(number, port):
        etcd.put(f"/martlet/side/{number}", {"host": "127.0.0.1", "port": port})

    with dns.Server() as names:
        for node in fleet[:2]:
            names.address_of(f"n{node.port}.example", "127.0.0.1", ttl=1)

        def serve(*nodes):
            names.services("_m._tcp.example", *[(f"n{node.port}.example", node.port) for node in nodes], ttl=1)

        serve(*fleet[:2])
        for number, node in enumerate(fleet[2:]):
            register(number, node.port)
        write(500)
        router = route(
            (), f"--config {config} --discovery-dns-servers={names.address} --discovery-settle=50ms "
            "--health-first-probe=50ms --health-longest-probe=200ms --upstream-reconnect-maximum=200ms")
        eventually(lambda: len(servers(router)), 4)
        spare = Server(f"-m 64 -t 1 -l 127.0.0.1 -p {(port := free_port())}", listen=False, wait=("127.0.0.1", port))
        names.address_of(f"n{spare.port}.example", "127.0.0.1", ttl=1)

        def settle(count):
            """A change counts when the router routes by it: what DNS says may be a second old."""
            eventually(lambda: len(servers(router)), count)

        works = {
            "a server more in DNS": (lambda: serve(*fleet[:2], spare), 5), "one less in DNS": (
                lambda: serve(*fleet[1:2], spare), 4),
            "DNS as before": (lambda: serve(*fleet[:2]), 4),
            "a server more in etcd": (lambda: register(2, spare.port), 5),
            "one less in etcd": (lambda: etcd.delete("/martlet/side/0"), 4),
            "etcd as before": (lambda: (register(0, fleet[2].port), etcd.delete("/martlet/side/2")), 4),
            "a pool more": (lambda: write(501, extra={"servers": [f"127.0.0.1:{spare.port}"]}), 5),
            "a reload": (lambda: router.signal(signal.SIGHUP), 5),
            "etcd away": (lambda: etcd.stop(), 5), "etcd back": (lambda: etcd.start(), 5),
        }  # fmt: skip
        try:
            with (
                Users(router.port, threads=2, name="dns") as one, Users(router.port, threads=2, name="etcd") as two,
                Users(untouched.port, threads=3, name="control") as control,
            ):
                time.sleep(1)
                after, windows = {}, []
                for name, (work, count) in works.items():
                    work()
                    settle(count)
                    done = time.monotonic()
                    windows.append(quiet([one, two, control]))
                    after[name] = max(users.p99(*windows[-1]) for users in (one, two))
                    late = [error for users in (one, two) for at, error in users.errors if at > done + 2]
                    assert not late, (name, late[:3])
            ours, theirs = beside([one, two], control, windows)
            spans = [round(span * 1000, 1) for span in after.values()]
            requests, errors = len(one.times) + len(two.times), len(one.errors) + len(two.errors)
            print(f"p99 two seconds after changes {ours * 1000:.1f} ms, beside a fleet that nobody works on "
                  f"{theirs * 1000:.1f} ms; by change {spans} ms; {requests} requests, {errors} answered with errors")
            for users in (one, two, control):
                assert not users.lost, users.lost[:3]
                assert not users.wrong, users.wrong[:3]
            assert not control.errors, control.errors[:3]
            assert ours < 1.5 * theirs + 0.002
            assert max(after.values()) < 0.25
        finally:
            spare.stop()
