# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The time of day is set, forward and back, while a node runs, as NTP does behind a wrong clock and a resumed machine's
does: copies say what the store says, and dates are those that clients named."""

import time

import pytest

from bed import until

from .node import BACKEND
from .stepping import Stepping

pytestmark = pytest.mark.ours
HOUR = 3_600_000
POOLS = [{"prefix": "plain:", "storage": False}, {"prefix": "lease:", "negativeTTL": "60s"}]


@pytest.fixture
def node(tmp_path):
    with Stepping(tmp_path, pools=POOLS) as one:
        yield one


def absent(client, key):
    return client.get(key) is None


def test_copies_do_not_outlive_their_rows(node):
    with node.client() as client:
        for key in ("get", "append", "replace", "incr", "touch"):
            assert client.set(key, "1", exptime=600) == "STORED"
        assert client.set("forever", "v") == "STORED"
        assert client.set("plain:k", "v", exptime=600) == "STORED"
        node.clock.set(2 * HOUR)
        # What the store says of a row is true of its copy at once.
        assert client.set("append", "x", verb="append") == "NOT_STORED"
        assert absent(client, "append")
        assert client.set("replace", "x", verb="replace") == "NOT_STORED"
        assert absent(client, "replace")
        assert client.ask("incr incr 1") == "NOT_FOUND"
        assert absent(client, "incr")
        assert client.ask("touch touch 10") == "NOT_FOUND"
        assert absent(client, "touch")
        until(lambda: absent(client, "get"), 5)
        # What has no time stays, and so does what is in the cache only.
        reads = node.statistics()["reads_sent"]
        assert client.get("forever") == b"v"
        assert node.statistics()["reads_sent"] == reads
        assert client.get("plain:k") == b"v"


def test_rows_whose_time_is_again_to_come_are_there_again(node):
    with node.client() as client:
        assert client.set("k", "v", exptime=1) == "STORED"
        assert client.set("other", "v", exptime=600) == "STORED"
        time.sleep(2.2)
        assert absent(client, "k")
        assert "W" in client.ask("mg lease:k N30").split()
        node.clock.set(-HOUR)
        until(lambda: client.get("k") == b"v", 5)
        assert client.ask("touch k 100") == "TOUCHED"
        seconds = int(client.ask("mg other t").removeprefix("HD t"))
        assert 4195 <= seconds <= 4200, "its date is what it was"
        # A lease is no row's time.
        assert "Z" in client.ask("mg lease:k N30").split()


def test_what_counts_from_now_does_so_by_the_clock_as_it_is(node):
    with node.client() as client:
        node.clock.set(5 * HOUR)
        assert client.set("k", "v", exptime=100) == "STORED"
        client.ask("flush_all")
        assert 97 <= int(client.ask("mg k t").removeprefix("HD t")) <= 100


@pytest.mark.skipif(BACKEND == "memory", reason="rows in memory do not survive")
def test_dates_are_dates_whatever_the_clock_said_at_the_start(tmp_path):
    node = Stepping(tmp_path)
    node.clock.set(-HOUR)
    with node:
        node.clock.set(0)
        with node.client() as client:
            client.send("ms k 1 T%d\r\nx\r\n" % (time.time() + 100))
            assert client.line() == "HD"
            assert client.ask("add a 0 %d 1\r\nx" % (time.time() + 100)) == "STORED"
            client.ask("ma n N%d J5" % (time.time() + 100))
            assert client.set("g", "x") == "STORED"
            client.ask("mg g T%d" % (time.time() + 100))
            for _ in range(2):
                for key in "kang":
                    assert 94 <= int(client.ask(f"mg {key} t").removeprefix("HD t")) <= 100, key
                client.ask("flush_all")
        node.restart(crash=False)
        with node.client() as client:
            for key in "kang":
                assert 80 <= int(client.ask(f"mg {key} t").removeprefix("HD t")) <= 100, key
