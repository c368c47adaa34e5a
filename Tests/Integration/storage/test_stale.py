# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Copies behind their time that answer while the store is asked for a newer one (`staleWhileRevalidate`)."""

import time

import pytest

from bed import until

from .node import Node
from .standing import Standing, build

pytestmark = pytest.mark.ours
POOLS = [
    {"prefix": "s:", "cacheTTL": "1s", "staleWhileRevalidate": "60s"},
    {"prefix": "b:", "cacheTTL": "1s", "staleWhileRevalidate": "1s"},
    {"prefix": "n:", "cacheTTL": "1s"},
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("stall"))


def test_an_old_copy_answers_at_once_and_is_replaced(tmp_path):
    with Node(tmp_path, backend="memory", pools=POOLS) as node, node.client() as client:
        for key in ("s:k", "n:k"):
            assert client.set(key, "value") == "STORED"
        assert client.ask("mg s:k s") == "HD s5"
        before = node.statistics()
        time.sleep(2.2)
        assert client.ask("mg s:k s") == "HD s5 X"
        until(lambda: client.ask("mg s:k s") == "HD s5")
        after = node.statistics()
        assert after["stale_hits"] - before["stale_hits"] >= 1
        assert 1 <= after["refreshes"] - before["refreshes"] <= 2
        assert after["reads"] == before["reads"], "nobody waited"
        time.sleep(2.2)
        # Other forms show it as it is.
        assert client.get("s:k") == b"value"
        assert node.statistics()["stale_hits"] > after["stale_hits"]
        # Where the pool does not say so, the store is waited for.
        reads = node.statistics()["reads"]
        assert client.ask("mg n:k s") == "HD s5"
        assert node.statistics()["reads"] == reads + 1


def test_not_beyond_the_bound_and_not_what_was_changed(tmp_path):
    with Node(tmp_path, backend="memory", pools=POOLS) as node, node.client() as client:
        for key in ("b:k", "s:set", "s:deleted", "s:flushed"):
            assert client.set(key, "old") == "STORED"
        time.sleep(3.5)
        figures = node.statistics()
        assert client.ask("mg b:k s") == "HD s3", "two seconds behind its time, of which one is allowed"
        assert node.statistics()["stale_hits"] == figures["stale_hits"]
        # A connection sees what it wrote, and a deleted row is gone.
        client.send("set s:set 0 0 5\r\nnewer\r\nmg s:set v\r\ndelete s:deleted\r\nmg s:deleted v\r\nmn\r\n")
        assert [client.line() for _ in range(6)] == ["STORED", "VA 5", "newer", "DELETED", "EN", "MN"]
        assert client.ask("flush_all") == "OK"
        assert client.ask("mg s:flushed s") == "HD s3"
        assert node.statistics()["stale_hits"] == figures["stale_hits"]


def test_a_store_that_stands_still_is_not_noticed(tmp_path, library):
    with Standing(tmp_path, library, pools=POOLS, storage_timeout="2s") as node:
        with node.client() as client:
            for number in range(50):
                assert client.set(f"s:{number}", b"v" * 500) == "STORED"
        node.terminate()
        node.start()
        node.terminate()
        node.start()
        with node.client(20) as client:
            for number in range(50):
                assert client.get(f"s:{number}") == b"v" * 500
            time.sleep(2.2)
            node.stall("read")
            for _ in range(3):
                for number in range(50):
                    began = time.monotonic()
                    assert client.get(f"s:{number}") == b"v" * 500
                    assert time.monotonic() - began < 0.5
                time.sleep(0.5)
            assert 50 <= node.statistics()["refreshes"] <= 150, "one at a time for each key"
            node.go_on()
            until(lambda: client.ask("mg s:7 s") == "HD s500")


@pytest.mark.parametrize(
    ("pools", "flags", "reason"),
    [
        ([{"prefix": "x:", "staleWhileRevalidate": "1s"}], (), "staleWhileRevalidate: needs a cacheTTL"),
        (POOLS, ("--storage-backend", "none"), "storage.backend is none"),
    ],
)
def test_what_cannot_be_stops_the_start(tmp_path, pools, flags, reason):
    code, said = Node(tmp_path, backend="memory", pools=pools, flags=flags).refuse()
    assert code != 0 and reason in said
