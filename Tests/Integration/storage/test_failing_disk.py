# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A disk whose writes, syncs and reads fail: what a node does then, and that it starts again when the disk is sound."""

import errno
import json
import time

import pytest

from bed import free_port

from . import database
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


def test_trimming_what_other_regions_have_is_a_commit_too(tmp_path):
    """Nobody writes, and what is kept for other regions grows old: the commit that lets it go is the first to fail."""
    node = Failing(tmp_path, storage_durability="sync")
    place = f"127.0.0.1:{free_port()}"
    regions = [{"name": "us-east", "role": "home", "stream": place}, {"name": "eu-west", "role": "replica"}]
    document = {"region": "us-east", "regions": regions, "stream": {"retention": "1s", "listen": place}}
    (tmp_path / "node.yaml").write_text(json.dumps(document))
    with node:
        with node.client(30) as client:
            for index in range(100):
                assert client.set(f"k{index}", b"%d" % index) == "STORED"
            node.fail("sync", errno.EIO, 0)
            deadline = time.monotonic() + 20
            while (answer := node.get("/readyz"))[0] == 200:
                assert time.monotonic() < deadline, "the commit that failed was passed over"
                time.sleep(0.1)
            expect_read_only(node, client, "a commit failed")
            node.switch.unlink()
            # Nobody goes on behind a sync that failed.
            time.sleep(3)
            before = files(node)
            time.sleep(6)
            assert files(node) == before
        node.restart()
        with node.client(30) as client:
            assert client.get("k99") == b"99"


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


def spread(node, count=60):
    """Rows in sorted files, each in a block of its own, none of them cached after the restart."""
    with node.client(30) as client:
        for index in range(count):
            assert client.set(f"k{index:02}", b"%02d" % index * 3000) == "STORED"
    node.restart()


def expect_read_only(node, client, why="read failed"):
    """Neither silent nor gone: refuses what would change anything, and says why."""
    status, text = node.get("/readyz")
    assert status == 503
    assert "storage" in text
    health = node.statistics()["storage_health"]
    assert health.startswith("read-only: ") and why in health, health
    for line in ("set new 0 0 1\r\nv", "delete k01", "touch k01 0", "add other 0 0 1\r\nv"):
        assert client.ask(line).startswith("SERVER_ERROR storage: "), line
    assert "\nmartlet_storage_up 0" in node.get("/metrics")[1]
    assert node.get("/livez")[0] == 200


@pytest.mark.parametrize("command", ["get k40", "append k40 0 0 1\r\nx"], ids=["a miss", "a condition"])
def test_a_disk_that_cannot_be_read_makes_the_node_read_only(node, command):
    """A failed read is no miss, and a disk that fails is not trusted with writes, until the next start."""
    spread(node)
    with node.client(30) as client:
        assert client.get("k01") == b"01" * 3000
        node.fail("read", errno.EIO, 0)
        assert client.ask(command).startswith("SERVER_ERROR storage: ")
        expect_read_only(node, client)
        assert client.get("k01") == b"01" * 3000, "a cached copy is served"
        assert client.ask("get k50").startswith("SERVER_ERROR storage: "), "no miss"
        node.switch.unlink()
        assert client.get("k50") == b"50" * 3000, "what can be read is read"
        expect_read_only(node, client)
    node.restart()
    with node.client(30) as client:
        for index in range(60):
            assert client.get(f"k{index:02}") == b"%02d" % index * 3000
        assert client.get("new") is None
        assert "STORED" in [client.set("new", b"v") for _ in range(3)]
        assert node.get("/readyz")[0] == 200


def test_a_dump_that_cannot_read_makes_the_node_read_only(node):
    token = node.directory / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    node.arguments += ["--admin-token-file", str(token)]
    spread(node)
    node.fail("read", errno.EIO, 0)
    code, said = database.control(
        "dump", "--output", str(node.directory / "dump"), "--node", f"http://127.0.0.1:{node.admin}",
        "--token-file", str(token))  # fmt: skip
    assert code != 0
    assert "reading rows failed" in said
    with node.client(30) as client:
        expect_read_only(node, client)


def test_an_old_copy_answers_while_the_disk_cannot_be_read(tmp_path):
    """staleIfError, as in front of a database that is away: see test_postgres.py."""
    pools = [
        {"prefix": "s:", "cacheTTL": "1s", "staleIfError": "60s"},
        {"prefix": "b:", "cacheTTL": "1s", "staleIfError": "2s"},
        {"prefix": "n:", "cacheTTL": "1s"},
    ]
    with Failing(tmp_path, pools=pools, storage_block_cache="1MiB") as node:
        with node.client(30) as client:
            for key in ("s:k", "b:k", "n:k"):
                assert client.set(key, b"one" * 2000) == "STORED"
        spread(node, 1000)
        with node.client(30) as client:
            for key in ("s:k", "b:k", "n:k"):
                assert client.get(key) == b"one" * 2000
            # Each row is a block; those of others take the place of these.
            for index in range(50, 1000):
                assert client.get(f"k{index:02}")
            time.sleep(4.1)
            node.fail("read", errno.EIO, 0)
            assert client.ask("get k10").startswith("SERVER_ERROR storage: ")
            expect_read_only(node, client)
            assert client.get("s:k") == b"one" * 2000
            assert client.ask("mg s:k s k") == "HD s6000 ks:k X"
            assert client.ask("mg s:k t") == "HD t0 X"
            for key in ("n:k", "b:k"):
                assert client.ask(f"mg {key} s").startswith("SERVER_ERROR storage: "), key
            assert client.set("s:k", b"two").startswith("SERVER_ERROR storage: ")
            assert node.statistics()["stale_answers"] >= 3
            node.switch.unlink()
            assert client.ask("mg s:k s") == "HD s6000", "fresh again"
