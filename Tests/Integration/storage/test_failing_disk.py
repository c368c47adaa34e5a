# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A disk whose writes and syncs fail: what a node does then, and that it starts again when the disk is sound."""

import errno
import time

import pytest

from .failing import KINDS, Failing

pytestmark = pytest.mark.ours


@pytest.fixture
def node(tmp_path):
    with Failing(tmp_path) as node:
        yield node


def files(node):
    """What a store's writing makes, and how much of it."""
    return sorted((path.name, path.stat().st_size) for path in node.path.iterdir() if path.suffix in (".log", ".sst"))


@pytest.mark.parametrize(("kind", "number"), [("torn", errno.ENOSPC), ("sync", errno.EIO)])
def test_nothing_is_written_after_a_failure(node, kind, number):
    """RocksDB would go on by itself once the disk has room again, one family of columns after the other; whoever is
    killed between two of them has a store that does not open."""
    with node.client(30) as client:
        for index in range(100):
            assert client.set(f"k{index}", b"%d" % index * 50) == "STORED"
        node.fail(kind, number, 0)
        assert client.set("last", b"v") == "SERVER_ERROR outcome unknown"
        assert client.set("later", b"v").startswith("SERVER_ERROR storage: ")
        node.switch.unlink()
        # What RocksDB was at when it was told to stop comes to its end.
        time.sleep(2)
        before = files(node)
        # RocksDB looks for room every five seconds.
        time.sleep(7)
        assert files(node) == before
        assert client.set("later", b"v").startswith("SERVER_ERROR storage: "), "until the next start"
        client.ask("flush_all")
        assert client.get("k7") == b"7" * 50, "what is there is read"
    node.restart()
    with node.client(30) as client:
        for index in range(100):
            assert client.get(f"k{index}") == b"%d" % index * 50
        assert client.get("last") in (None, b"v")
        assert client.get("later") is None
        # A sync that takes longer than storage.timeout is not what this is about.
        assert "STORED" in [client.set("later", b"v") for _ in range(3)]


@pytest.mark.parametrize("crash", [True, False], ids=["kill", "SIGTERM"])
def test_a_store_opens_after_each_kind_of_failure(node, crash):
    with node.client(30) as client:
        assert client.set("n", b"0") == "STORED"
    for turn, (kind, number) in enumerate(KINDS):
        with node.client(30) as client:
            assert client.set(f"before{turn}", b"v") == "STORED"
            node.fail(kind, number, 0)
            assert client.set(f"at{turn}", b"v") == "SERVER_ERROR outcome unknown"
            assert node.get("/readyz")[0] == 503
        node.restart(crash)
        with node.client(30) as client:
            for earlier in range(turn + 1):
                assert client.get(f"before{earlier}") == b"v", f"{kind} {number}"
            assert client.get(f"at{turn}") in (None, b"v")
