# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The stream of nodes that share a database, on bad days: nodes that stand still, connections that end, records without
number, a database that was put back."""

import contextlib
import os
import signal
import time

import pytest

from bed import free_port
from storage import database

from .region import Consumer, RegionNode, eventually, regions

pytestmark = pytest.mark.ours
LISTED = [{"name": "us-east", "role": "home"}]
LOCK = "SELECT pg_advisory_xact_lock(5570748134)"


class Shared:
    """Two nodes of the home region on one database. `stream` is the settings of both, `options` more flags."""

    def __init__(self, directory, stream=(), listed=LISTED, listens=False, **options):
        if not database.is_installed():
            pytest.fail("there is no PostgreSQL: run make install")
        self.streams = [free_port(), free_port()]
        self.nodes = []
        for name, port in zip(("one", "two"), self.streams, strict=True):
            keys = {**dict(stream), **({"listen": f"127.0.0.1:{port}"} if listens else {})}
            node = RegionNode(directory / name, "us-east", listed, keys, backend="postgres", storage_instance=name, **options)
            if self.nodes:
                node.url = self.nodes[0].url
            self.nodes.append(node)

    @property
    def name(self):
        return self.nodes[0].name

    def sql(self, text):
        return database.shared().sql(text, self.name)

    def __enter__(self):
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.await_figures(trusted="yes", quarantined_slots=0)
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.stop()


@contextlib.contextmanager
def still(node):
    """The node's process stands still meanwhile."""
    os.kill(node.server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node.server.process.pid, signal.SIGCONT)


def test_a_node_that_stood_still_learns_of_what_was_let_go_meanwhile(tmp_path):
    with Shared(tmp_path, {"retention": "1s", "lagBound": "60s"}) as both:
        one, two = both.nodes
        with one.client() as first, two.client() as second:
            first.set("k", b"old")
            eventually(lambda: second.get("k") == b"old")
            time.sleep(0.3)
            assert second.get("k") == b"old"
            with still(two):
                first.set("k", b"new")
                # Published, and let go.
                gone = "(SELECT count(*) FROM martlet_stream) = 0 AND (SELECT sum(last) FROM martlet_stream_slot) = 2"
                eventually(lambda: both.sql(f"SELECT {gone}") == "t", 30)
            eventually(lambda: second.get("k") == b"new")
            # It was let go, or had come before that: what was sent to who stands still is not taken back.
            eventually(lambda: two.figures()["quarantines"] > 64 or two.figures()["records"] == 2)


def test_lost_connections_to_the_database_starve_no_proof(tmp_path):
    with Shared(tmp_path, {"lagBound": "2s"}) as both:
        one, two = both.nodes
        with one.client() as first, two.client() as second:
            for turn in range(4):
                sets = b"".join(b"set key:%d 0 0 1 noreply\r\n%d\r\n" % (number, turn) for number in range(300))
                first.send(sets)
                assert database.shared().end_sessions(both.name, "application_name LIKE '%two%'") >= 1
                first.send(sets)
                assert first.ask("mn") == "MN"
                # From here on nobody writes.
                time.sleep(2.5)
                two.await_figures(seconds=5, trusted="yes", backlog=0, quarantined_slots=0)
                for number in range(300):
                    assert second.get(f"key:{number}") == b"%d" % turn
            before = second.stats()["get_hits"]
            second.get("key:1")
            assert int(second.stats()["get_hits"]) == int(before) + 1, "copies are shown again"


def test_old_records_go_as_fast_as_they_come_and_stop_nobody(tmp_path):
    both = Shared(tmp_path, {"retention": "1s", "lagBound": "5s"})
    # From before the nodes came, so that none of them reads them.
    both.sql(
        "INSERT INTO martlet_stream SELECT nextval('martlet_stream_pub'), g % 64, 1 + g / 64, 0, 0, 'k', 1, 0, 0, 0 "
        "FROM generate_series(0, 199999) g; "
        "UPDATE martlet_stream_slot t SET last = (SELECT max(seq) FROM martlet_stream s WHERE s.slot = t.slot)")
    with both, both.nodes[0].client() as first, both.nodes[1].client() as second:
        began, slowest = time.monotonic(), 0
        while int(both.sql("SELECT count(*) FROM (SELECT FROM martlet_stream LIMIT 101) s")) > 100:
            # 20,000 in ten seconds would be four times as long for both.
            assert time.monotonic() - began < 25
            asked = time.monotonic()
            first.set("k", b"%f" % asked)
            eventually(lambda asked=asked: second.get("k") == b"%f" % asked)
            slowest = max(slowest, time.monotonic() - asked)
        print(f"200,000 records in {time.monotonic() - began:.1f} s; a change took {slowest:.2f} s at most")
        assert slowest < 5


def test_a_database_that_was_put_back_begins_another_epoch(tmp_path):
    with Shared(tmp_path, {"lagBound": "60s"}) as both:
        with both.nodes[0].client() as first, both.nodes[1].client() as second:
            for number in range(100):
                first.set(f"key:{number}", b"old")
            eventually(lambda: second.get("key:99") == b"old")
            time.sleep(0.3)
            tables = ("martlet_kv", "martlet_stream", "martlet_stream_slot")
            for table in tables:
                both.sql(f"CREATE TABLE saved_{table} AS SELECT * FROM {table}")
            for number in range(100):
                first.set(f"key:{number}", b"new")
            for client in (first, second):
                eventually(lambda client=client: client.get("key:99") == b"new")
                assert all(client.get(f"key:{number}") == b"new" for number in range(100))
            back = "".join(f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM saved_{table}; " for table in tables)
            both.sql(f"BEGIN; {LOCK}; {back} COMMIT")
            for client in (first, second):
                for number in range(100):
                    eventually(lambda client=client, number=number: client.get(f"key:{number}") == b"old")
            assert both.sql("SELECT number FROM martlet_meta WHERE name = 'stream_epoch'") == "2"
            # Numbers that were given before are given again, and act.
            for number in range(100):
                first.set(f"key:{number}", b"newer")
            for number in range(100):
                eventually(lambda number=number: second.get(f"key:{number}") == b"newer")


def test_values_of_a_shared_database_reach_plain_caches(tmp_path):
    listed = regions(free_port())
    both = Shared(tmp_path, listed=listed, listens=True)
    listed[0]["stream"] = f"127.0.0.1:{both.streams[0]},127.0.0.1:{both.streams[1]}"
    for node in both.nodes:
        node.rewrite(regions=listed)
    replica = RegionNode(tmp_path / "replica", "eu-west", listed, {"mode": "replicate", "lagBound": "30s"})
    with both, replica:
        replica.await_figures(trusted="yes", quarantined_slots=0)
        with both.nodes[0].client() as first, both.nodes[1].client() as second, replica.client() as client:
            for number in range(300):
                (first if number % 2 else second).set(f"key:{number}", b"v%d" % number, flags=number)
            for number in range(300):
                assert eventually(lambda number=number: client.get(f"key:{number}")) == b"v%d" % number
                assert client.ask(f"mg key:{number} c f") == first.ask(f"mg key:{number} c f")
            # More than a turn, or a question to the database, takes.
            for number in range(40):
                first.set(f"large:{number}", b"%d" % number * 400_000)
            for number in range(40):
                eventually(lambda number=number: client.get(f"large:{number}") == b"%d" % number * 400_000, 20)
            first.ask("delete key:7")
            eventually(lambda: client.get("key:7") is None)
        assert replica.figures()["gaps"] == 0


def test_a_node_that_is_behind_looks_again_before_it_says_so(tmp_path):
    with Shared(tmp_path, listed=regions(free_port()), listens=True) as both, both.nodes[0].client() as first:
        first.set("k", b"v")
        eventually(lambda: both.sql("SELECT count(*) FROM martlet_stream") == "1")
        slot = int(both.sql("SELECT slot FROM martlet_stream"))
        time.sleep(0.1)
        consumer = Consumer(both.streams[1])
        source, epoch, sequences = consumer.welcome()[1]
        consumer.close()
        held = database.shared().lock(both.name, LOCK)
        # It has more from another node, which this one learns of once it comes to look.
        sequences[slot] += 1
        ahead = Consumer(both.streams[1], position=(source, epoch, sequences))
        ahead.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            ahead.socket.recv(1)
        ahead.socket.settimeout(10)
        held.process.stdin.write(
            "INSERT INTO martlet_stream SELECT nextval('martlet_stream_pub'), slot, seq + 1, op, pool, k, ver + 1, exp, ts, at "
            f"FROM martlet_stream; UPDATE martlet_stream_slot SET last = last + 1 WHERE slot = {slot};\n")
        held.release()
        assert ahead.welcome()[1] == (source, epoch, sequences)
        ahead.close()
