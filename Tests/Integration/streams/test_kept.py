# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a database keeps of its stream, and nodes that share it without keeping any."""

import time

import pytest

from bed import Patience
from storage import database
from storage.node import Node

from .region import RegionNode, eventually
from .test_capture import initialise
from .test_streams import Pair

pytestmark = pytest.mark.ours
MOST = 1 << 20


def fill(client, first, count):
    for number in range(first, first + count):
        client.send(b"set kept:%d 0 0 1 noreply\r\nv\r\n" % number)
    assert client.ask("mn") == "MN"


def test_the_oldest_records_of_a_database_go_when_they_are_too_many(tmp_path):
    """However young they are. Whoever was away meanwhile finds a gap, and gives the slots up; writes go on."""
    with Pair(
            tmp_path, backend="postgres", home={"retention": "8s", "retentionSize": "1MiB"},
            replica={"lagBound": "60s"}) as both:  # fmt: skip
        with both.home.client(60) as home, both.replica.client() as replica:
            assert replica.set("kept:1", b"old") == "STORED"
            both.relay.cut()
            fill(home, 0, 20_000)
            eventually(lambda: both.home.statistics()["postgres_outbox_backlog"] == 0, 30)
            # Before any of them is too old.
            began = time.monotonic()
            eventually(lambda: MOST * 3 / 4 < both.home.statistics()["postgres_stream_bytes"] <= MOST, 7)
            assert time.monotonic() - began < 7
            figures = both.home.statistics()
            rows = int(database.shared().sql("SELECT count(*) FROM martlet_stream", both.home.name))
            assert rows == figures["postgres_stream_records"] < 12_000
            size = int(database.shared().sql("SELECT sum(pg_column_size(s.*)) FROM martlet_stream s", both.home.name))
            assert MOST / 2 < size < MOST, "as large as they may be, without their indexes"
            assert home.set("kept:1", b"new") == "STORED"
            both.relay.heal()
            eventually(lambda: replica.get("kept:1") is None)
            found = both.replica.await_figures(quarantines=lambda count: count > 64, quarantined_slots=0)
            assert found["trusted"] == "yes"


@pytest.fixture
def home(tmp_path):
    """A node of a region on a database of its own."""
    regions = [{"name": "us-east", "role": "home"}]
    with RegionNode(tmp_path / "home", "us-east", regions, {"retention": "8s"}, backend="postgres") as node:
        node.await_figures(trusted="yes", quarantined_slots=0)
        yield node


def test_whether_changes_of_other_programs_are_captured_is_told(home):
    notice = "changes that other programs make in martlet_kv reach no cache"
    patience = Patience(20)
    while notice not in home.server.output():
        assert not patience.is_over
        time.sleep(0.1)
    assert home.statistics()["postgres_captures"] == 0
    assert initialise(home.url, "--capture=on").returncode == 0
    eventually(lambda: home.statistics()["postgres_captures"] == 1)
    count = home.server.output().count(notice)
    database.shared().sql("ALTER TABLE martlet_kv DISABLE TRIGGER martlet_capture", home.name)
    eventually(lambda: home.statistics()["postgres_captures"] == 0)
    eventually(lambda: home.server.output().count(notice) == count + 1)


def test_a_node_without_a_region_does_not_write_past_those_who_follow(home, tmp_path):
    """Nobody would hear of its writes: it starts where they are captured, and nowhere else."""
    (tmp_path / "other").mkdir()
    other = Node(tmp_path / "other", backend="postgres")
    other.url = home.url
    eventually(lambda: database.shared().sql("SELECT 1 FROM martlet_meta WHERE name = 'home_seen'", home.name) == "1")
    code, said = other.refuse()
    assert code != 0 and "nodes with a region publish this database's changes" in said
    assert "regions" in said and "--capture=on" in said
    assert initialise(home.url, "--capture=on").returncode == 0
    with other, other.client() as theirs, home.client() as ours:
        for number in range(50):
            value = b"%d" % number
            assert ours.set("k", b"ours") == "STORED" and ours.get("k") == b"ours"
            assert theirs.set("k", value) == "STORED"
            version = theirs.ask("mg k c").split()[-1]
            eventually(lambda value=value: ours.get("k") == value)
            assert ours.ask("mg k c").split()[-1] == version, "the version that its writer was told"
        assert theirs.set("k", b"10") == "STORED"
        for number in range(11, 20):
            # Decided by what is there, in another statement.
            assert theirs.ask("incr k 1") == str(number)
            version = theirs.ask("mg k c").split()[-1]
            eventually(lambda number=number: ours.get("k") == str(number).encode())
            assert ours.ask("mg k c").split()[-1] == version
        assert theirs.ask("delete k") == "DELETED"
        eventually(lambda: ours.get("k") is None)


def test_records_that_nobody_takes_out_are_told(home, tmp_path):
    """A node without a region, on a database whose capture was left on, when the last node with one is gone."""
    assert initialise(home.url, "--capture=on").returncode == 0
    home.terminate()
    database.shared().sql("UPDATE martlet_meta SET number = 0 WHERE name = 'home_seen'", home.name)
    (tmp_path / "other").mkdir()
    other = Node(tmp_path / "other", backend="postgres")
    other.url = home.url
    with other:
        eventually(lambda: "no node with a region takes them out" in other.server.output())
        with other.client() as client:
            assert client.set("k", b"v") == "STORED"
        waiting = "SELECT count(*) FROM martlet_outbox"
        assert database.shared().sql(waiting, home.name) == "1"
        # What a node removes because its time is over leaves none.
        database.shared().sql(
            "SET martlet.writer = 'node'; SET martlet.outbox = 'none'; DELETE FROM martlet_kv", home.name)
        assert database.shared().sql(waiting, home.name) == "1"
    home.start()
