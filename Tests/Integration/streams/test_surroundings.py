# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a follower takes from a source that means it no good, from its clients, its clock and its names."""

import io
import json
import mmap
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import fastavro
import pytest

from bed import free_port
from documents.blocks import ROOT

from .region import Consumer, FakeSource, RegionNode, Relay, eventually, regions
from .test_streams import Pair

pytestmark = pytest.mark.ours
SCHEMA = fastavro.parse_schema(json.loads((ROOT / "docs/stream-record.avsc").read_text()))


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory):
    """The library of suspend.c."""
    library = tmp_path_factory.mktemp("suspend") / "suspend.so"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library,
         Path(__file__).with_name("suspend.c"), "-ldl"], check=True)  # fmt: skip
    return library


def forger(directory):
    """A record of the key `k`, and what makes others of it."""
    with Pair(directory) as both:
        with both.home.client() as home:
            consumer = Consumer(both.stream)
            consumer.welcome()
            consumer.grant()
            home.set("k", b"v")
            (real,), _ = consumer.records()
    head, record = real[:10], fastavro.schemaless_reader(io.BytesIO(real[10:]), SCHEMA)
    record["ts_ms"] = int(record["ts_ms"].timestamp() * 1000)

    def changed(**fields):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, SCHEMA, {**record, "source": "fake", "epoch": 1, **fields})
        return head + out.getvalue()

    return record, changed


def test_numbers_that_no_record_has_end_no_process(tmp_path):
    record, changed = forger(tmp_path)
    least, most = -(2**63), 2**63 - 1
    source = FakeSource()
    replica = RegionNode(tmp_path / "victim", "eu-west", regions(source.port), {"mode": "replicate"}).start()
    try:
        replica.await_figures(trusted="yes", quarantined_slots=0)
        source.batch(
            changed(ts_ms=least), changed(ts_ms=-16_700_000_000_001), changed(exp_ms=least, value=b"x", flags=1),
            changed(seq=most), changed(seq_first=least), changed(slot=record["slot"] ^ 1), changed(epoch=least))  # fmt: skip
        found = replica.await_figures(damaged=7)
        assert "a record of slot " in found["reason"] and " cannot be read: it has numbers that no record has" in found["reason"]
        assert len(unreadable(replica)) == 1, "once in ten seconds"
        # What is only large is taken, and does no harm either.
        source.batch(changed(ts_ms=most, exp_ms=most, seq=2**62, seq_first=2**62, value=b"x", flags=1))
        replica.await_figures(installed=1)
        source.sequences = [2**62] * 64
        replica.await_figures(gaps=lambda count: count >= 63)
        time.sleep(0.5)
        with replica.client() as client:
            assert client.ask("mn") == "MN"
        source.sequences = [most] * 64
        replica.await_figures(losses=lambda count: count >= 1)
        with replica.client() as client:
            assert client.ask("mn") == "MN"
    finally:
        replica.stop()
        source.close()


def unreadable(node):
    """What the log tells of records that cannot be read."""
    return [json.loads(line) for line in node.server.output().splitlines() if "records cannot be read" in line]


@pytest.mark.parametrize(
    ("forge", "slot", "wanted"),
    [
        (lambda record, changed: changed(slot=record["slot"] ^ 1, value=b"SECRET", flags=1), True, "its slot is not its key's"),
        (lambda _, changed: changed(epoch=-1, value=b"SECRET", flags=1), True, "it has numbers that no record has"),
        (lambda _, changed: changed(value=b"SECRET", flags=1)[:-3], True, "it ends too early, or is not as its schema says"),
        # A later version's, behind frames of this one.
        (lambda _, changed: changed(value=b"SECRET", flags=1)[:2] + bytes(range(8)) + b"SECRET", False,
         "its schema has the fingerprint 0706050403020100; this version knows "),
        (lambda *_: b"SECRET", False, "it is no Avro single object"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_in_the_log_and_stops_its_slot_only(tmp_path, forge, slot, wanted):
    record, changed = forger(tmp_path)
    source = FakeSource()
    replica = RegionNode(tmp_path / "victim", "eu-west", regions(source.port), {"mode": "replicate", "lagBound": "60s"}).start()
    try:
        before = replica.await_figures(trusted="yes", quarantined_slots=0, quarantines=64)
        bad = forge(record, changed)
        source.batch(*[bad] * 500)
        replica.await_figures(damaged=500)
        [line] = unreadable(replica)
        assert line["level"] == "error" and line["reason"].startswith(wanted) and line["count"] == 1, line
        place = record["slot"] ^ 1 if "not its key's" in wanted else record["slot"]
        assert (line["source"], line["slot"]) == ("fake", str(place) if slot else "unknown"), line
        # The source says that it was committed: the slot misses it, and is given up.
        source.sequences[record["slot"]] = 1
        after = replica.await_figures(quarantines=before["quarantines"] + 1, missing_slots=0)
        assert wanted in after["reason"] and after["trusted"] == "yes" and after["losses"] == before["losses"], after
        source.batch(changed(seq_first=2, seq=2, value=b"x", flags=1))
        replica.await_figures(installed=1)
        assert "SECRET" not in replica.server.output()
    finally:
        replica.stop()
        source.close()


def test_what_a_record_says_of_its_place_fills_no_log(tmp_path):
    record, changed = forger(tmp_path)
    source = FakeSource()
    replica = RegionNode(tmp_path / "victim", "eu-west", regions(source.port), {"mode": "replicate"}).start()
    try:
        replica.await_figures(trusted="yes", quarantined_slots=0)
        # One character with many marks; and what stands in a slot's place may be a key's bytes.
        source.batch(changed(source="SECRET" + "\u0301" * 300_000, slot=0x6B6579))
        replica.await_figures(damaged=1)
        [line] = unreadable(replica)
        assert (line["source"], line["slot"], line["reason"]) == ("another", "unknown", "its slot is not its key's"), line
        assert "SECRET" not in replica.server.output()
    finally:
        replica.stop()
        source.close()


@pytest.mark.parametrize("line", ["get k", "gets k", "gat 0 k", "mg k v", "mg k v t T0"])
def test_what_comes_while_the_stream_is_behind_is_not_shown(tmp_path, line):
    """A stream that catches up brings values that are old: whoever asks meanwhile must not see them."""
    _, changed = forger(tmp_path)
    source = FakeSource()
    source.is_complete = False
    replica = RegionNode(tmp_path / "behind", "eu-west", regions(source.port), {"mode": "replicate"}).start()
    is_over = threading.Event()

    def bring():
        sequence = 0
        while not is_over.is_set():
            # Not more than is granted, or the node would have to be waited for.
            source.batch(*(changed(
                seq_first=number, seq=number, version=number, value=b"old", flags=0) for number in range(sequence + 1, sequence + 101)))  # fmt: skip
            sequence += 100
            time.sleep(0.001)

    thread = threading.Thread(target=bring)
    try:
        replica.await_figures(quarantines=64)
        thread.start()
        with replica.client() as client:
            end, hits = time.monotonic() + 3, 0
            while time.monotonic() < end:
                client.send(f"{line}\r\n" * 200 + "mn\r\n")
                while (answer := client.line()) != "MN":
                    hits += answer.startswith(("VALUE", "VA ", "HD"))
        found = replica.figures()
        assert found["installed"] > 1000 and found["trusted"] == "no"
        assert hits == 0, (hits, found)
    finally:
        is_over.set()
        if thread.ident:
            thread.join()
        replica.stop()
        source.close()


def test_clients_give_no_versions_where_a_stream_does(tmp_path):
    with Pair(tmp_path) as both, both.replica.client() as replica, both.home.client() as home:
        large = b"x" * 900_000
        for line in ("ms k 2 E1790000000000000000\r\nxx\r\n", "ms k 900000 E1790000000000000000\r\n" + large.decode() + "\r\n",
                     "mg k N30 E1790000000000000000 v\r\n", "ma k N0 E1790000000000000000\r\n"):  # fmt: skip
            replica.send(line)
            assert replica.line().startswith("CLIENT_ERROR"), line[:60]
        assert replica.ask("mn") == "MN" and replica.get("k") is None
        assert replica.set("k", b"copy") == "STORED"
        home.set("k", b"new")
        eventually(lambda: replica.get("k") is None)


def test_a_suspended_machine_shows_nothing_when_it_is_back(tmp_path, preloaded):
    clock = tmp_path / "clock"
    clock.write_bytes(bytes(8))
    stream = free_port()
    relay = Relay(stream)
    listed = regions(relay.port)
    home = RegionNode(tmp_path / "home", "us-east", listed, {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb")
    replica = RegionNode(
        tmp_path / "replica", "eu-west", listed, {"lagBound": "20s"},
        variables={"LD_PRELOAD": str(preloaded), "MARTLET_SUSPENDED": str(clock)})  # fmt: skip
    with home, replica, clock.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:
        replica.await_figures(trusted="yes", quarantined_slots=0)
        with replica.client() as client:
            assert client.set("k", b"copy") == "STORED"
            assert client.get("k") == b"copy"
            relay.is_held = True
            time.sleep(0.3)
            page[:8] = struct.pack("<q", 3600)
            assert client.get("k") is None
            relay.heal()
            replica.await_figures(trusted="yes")
    relay.close()


def test_all_addresses_of_a_name_are_tried(tmp_path, preloaded):
    stream = free_port()
    listed = [{"name": "us-east", "role": "home", "stream": f"localhost:{stream}"}, {"name": "eu-west", "role": "replica"}]
    home = RegionNode(tmp_path / "home", "us-east", listed, {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb")
    replica = RegionNode(
        tmp_path / "replica", "eu-west", listed, variables={"LD_PRELOAD": str(preloaded), "MARTLET_DEAF_ADDRESS": "127.0.0.9"})
    with home, replica:
        found = replica.await_figures(trusted="yes", quarantined_slots=0)
        assert found["losses"] >= 1 and found["peer"].startswith("tcp:127.0.0.1:"), found


def test_names_that_look_like_loopback_addresses_are_none(tmp_path):
    for name in ("127.example.org", "127.0.0.1.example.org", "127.0.0.1.5", "127.0.0.256"):
        listed = [{"name": "us-east", "role": "home", "stream": f"{name}:11212"}, {"name": "eu-west", "role": "replica"}]
        node = RegionNode(tmp_path / "node", "eu-west", listed)
        code, said = node.refuse()
        assert code != 0 and f"loopback addresses only, not {name}" in said


def test_nodes_of_one_host_are_told_apart_without_a_name(tmp_path):
    with Pair(tmp_path) as both:
        other = RegionNode(tmp_path / "other", "eu-west", both.replica.document["regions"])
        named = RegionNode(tmp_path / "named", "eu-west", both.replica.document["regions"], {"name": "a node"})
        with other, named:
            for node in (other, named):
                node.await_figures(trusted="yes", quarantined_slots=0)
            found = both.home.await_figures(consumers=3)
            names = {found[f"consumer:{number}:name"] for number in range(3)}
            host = socket.gethostname()
            assert names == {f"eu-west/{host}:{node.port}" for node in (both.replica, other)} | {"eu-west/a node"}


def test_records_are_kept_until_their_consumer_says_that_they_came(tmp_path):
    # Consumers of an earlier process may come back for as long as records are kept: only then some may go.
    with Pair(tmp_path, home={"retention": "6s"}) as both:
        both.replica.stop()
        time.sleep(7)
        consumer = Consumer(both.stream, name="slow")
        _, start = consumer.welcome()
        consumer.grant()
        with both.home.client() as home:
            home.send(b"".join(b"set key:%d 0 0 1 noreply\r\nv\r\n" % number for number in range(200)))
            assert home.ask("mn") == "MN"
        # Answers may still be on their way when the next question is asked: here they never come to be known.
        for probe in range(1, 4):
            consumer.records(probe)
        time.sleep(1.7)
        consumer.close()
        again = Consumer(both.stream, name="slow", position=start)
        assert again.welcome()[1] == start, "nothing was let go that it did not say to have"
        again.grant()
        _, ends = again.records(1)
        again.records(2, answered=1)
        time.sleep(1.7)
        again.close()
        last = Consumer(both.stream, name="slow", position=start)
        base = last.welcome()[1][2]
        assert base != start[2] and all(low <= high for low, high in zip(base, ends, strict=True))
        last.close()


def test_what_is_set_while_the_stream_is_joined_is_there_once_it_is(tmp_path):
    with Pair(tmp_path, replica={"mode": "replicate"}) as both:
        for turn in range(6):
            both.replica.restart(crash=True)
            # As soon as copies are shown, none is to be lost to the removal of what was cached before.
            both.replica.await_figures(trusted="yes", quarantined_slots=0)
            with both.home.client() as home, both.replica.client() as replica:
                home.set(f"k{turn}", b"v")
                eventually(lambda: replica.get(f"k{turn}"), 5)


def test_a_source_that_is_gone_for_good_is_told_from_one_that_is_late(tmp_path):
    """A listener that accepts and says nothing is hung up on, and the next endpoint is tried."""
    deaf = socket.create_server(("127.0.0.1", 0))
    stream = free_port()
    both = f"127.0.0.1:{deaf.getsockname()[1]},127.0.0.1:{stream}"
    listed = [{"name": "us-east", "role": "home", "stream": f"127.0.0.1:{stream}"}, {"name": "eu-west", "role": "replica"}]
    home = RegionNode(tmp_path / "home", "us-east", listed, {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb")
    followed = [{"name": "us-east", "role": "home", "stream": both}, {"name": "eu-west", "role": "replica"}]
    replica = RegionNode(tmp_path / "replica", "eu-west", followed)
    with home, replica:
        found = replica.await_figures(trusted="yes")
        assert found["losses"] == 1
    deaf.close()
