# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a change in the home region does in the others."""

import contextlib
import io
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import fastavro
import pytest

from bed import default_command, free_port, free_ports
from documents.blocks import ROOT
from documents.test_reference import documented, exported
from storage import database

from .certificates import certificates, secured
from .region import Consumer, FrameRelay, RegionNode, Relay, eventually, regions

pytestmark = pytest.mark.ours


class Pair:
    """A home region's node and one of a replica region that follows it through a relay."""

    def __init__(self, directory, home=(), replica=(), backend="rocksdb", relay=Relay, **options):
        if backend == "postgres" and not database.is_installed():
            pytest.fail("there is no PostgreSQL: run make install")
        stream = free_port()
        self.relay = relay(stream)
        listed = regions(self.relay.port)
        self.home = RegionNode(
            directory / "home", "us-east", listed, {"listen": f"127.0.0.1:{stream}", **dict(home)}, backend=backend, **options)
        self.replica = RegionNode(directory / "replica", "eu-west", listed, dict(replica), **options)
        self.stream = stream

    def __enter__(self):
        self.home.start()
        self.replica.start()
        self.replica.await_figures(trusted="yes", quarantined_slots=0)
        if self.home.backend == "postgres":
            # A node of a database that nodes share follows the stream itself, and may begin behind the replica.
            self.home.await_figures(trusted="yes", quarantined_slots=0)
        return self

    def __exit__(self, *_):
        self.replica.stop()
        self.home.stop()
        self.relay.close()


@pytest.fixture
def pair(tmp_path):
    with Pair(tmp_path) as both:
        yield both


@pytest.fixture
def copying(tmp_path):
    # A restart of the home may take longer than the default on a busy machine.
    with Pair(tmp_path, replica={"mode": "replicate", "lagBound": "30s"}) as both:
        yield both


def test_a_change_drops_the_copy_of_the_other_region(pair):
    with pair.home.client() as home, pair.replica.client() as replica:
        for change in (lambda key: home.set(key, b"new"), lambda key: home.ask(f"delete {key}"), lambda key: home.ask(f"touch {key} 100")):
            home.set("k", b"old")
            time.sleep(0.2)
            assert replica.set("k", b"copy") == "STORED"
            assert replica.set("other", b"copy") == "STORED"
            began = time.monotonic()
            change("k")
            eventually(lambda: replica.get("k") is None)
            assert time.monotonic() - began < 1
            assert replica.get("other") is not None
    found = pair.replica.figures()
    assert found["dropped"] >= 5 and found["installed"] == 0 and found["gaps"] == 0


def test_values_replace_the_copies_where_they_travel(copying):
    with copying.home.client() as home, copying.replica.client() as replica:
        for number in range(300):
            home.set(f"key:{number}", b"v%d" % number, flags=number)
        eventually(lambda: replica.get("key:299"))
        for number in range(300):
            assert eventually(lambda: replica.get(f"key:{number}")) == b"v%d" % number
            assert replica.ask(f"mg key:{number} c f") == home.ask(f"mg key:{number} c f")
        home.ask("delete key:7")
        eventually(lambda: replica.get("key:7") is None)
        home.set("large", b"x" * 900_000)
        eventually(lambda: replica.get("large") == b"x" * 900_000)


def test_the_stream_goes_on_after_the_home_was_killed(copying):
    with copying.home.client() as home, copying.replica.client() as replica:
        home.set("k", b"1")
        eventually(lambda: replica.get("k") == b"1")
    copying.home.restart(crash=True)
    with copying.home.client() as home, copying.replica.client() as replica:
        assert replica.get("k") == b"1", "a short absence makes nothing stale"
        home.set("k", b"2")
        eventually(lambda: replica.get("k") == b"2")
    found = copying.replica.await_figures(trusted="yes", connections=2)
    assert found["quarantines"] == 64, "those of the beginning; a source that comes back whole adds none"


def test_a_replica_that_starts_anew_joins_the_stream(copying):
    with copying.home.client() as home:
        home.set("k", b"1")
    copying.replica.restart(crash=True)
    copying.replica.await_figures(trusted="yes", quarantined_slots=0)
    with copying.home.client() as home, copying.replica.client() as replica:
        home.set("k", b"2")
        eventually(lambda: replica.get("k") == b"2")


@pytest.mark.parametrize("way", ["cut", "held"])
def test_past_the_bound_nothing_is_shown_and_then_what_was_missed_comes(tmp_path, way):
    with Pair(tmp_path, replica={"lagBound": "1s", "mode": "replicate"}) as both:
        with both.home.client() as home, both.replica.client() as replica:
            home.set("k", b"1")
            home.set("quiet", b"1")
            eventually(lambda: replica.get("k") == b"1" and replica.get("quiet") == b"1")
            if way == "cut":
                both.relay.cut()
            else:
                both.relay.is_held = True
            began = time.monotonic()
            home.set("k", b"2")
            eventually(lambda: replica.get("k") is None, 3)
            assert 0.5 < time.monotonic() - began < 1.5
            assert both.replica.figures()["trusted"] == "no"
            both.relay.heal()
            both.replica.await_figures(trusted="yes")
            eventually(lambda: replica.get("k") == b"2")
            assert replica.get("quiet") == b"1", "nobody asked for it meanwhile, and nothing was missed of it"
        assert both.replica.figures()["quarantines"] == 64


def test_batches_that_come_twice_change_nothing_and_those_out_of_order_are_gaps_that_are_repaired(tmp_path):
    with Pair(tmp_path, replica={"mode": "replicate"}, relay=FrameRelay) as both:
        before = both.replica.await_figures(quarantines=64)
        numbers = iter(range(1, 100_000))
        with both.home.client() as home, both.replica.client() as replica:

            def write_until(is_enough):
                last = {}
                while not is_enough():
                    key = f"key:{(number := next(numbers)) % 8}"
                    assert home.set(key, b"%d" % number) == "STORED"
                    last[key] = number
                    if (shown := replica.get("key:0")) is not None:
                        seen.append(int(shown))
                both.relay.heal()
                for key, number in last.items():
                    eventually(lambda key=key, number=number: replica.get(key) == b"%d" % number)
                return both.replica.await_figures(backlog=0)

            seen = []
            both.relay.is_doubling = True
            doubled = write_until(lambda: both.relay.doubled >= 100)
            assert doubled["duplicates"] >= both.relay.doubled and doubled["gaps"] == 0
            both.relay.is_swapping = True
            swapped = write_until(lambda: both.relay.swapped >= 50)
        assert seen == sorted(seen) and len(set(seen)) > 20, "nothing older comes back"
        assert swapped["gaps"] == swapped["repairs"] > 20, swapped
        assert (swapped["quarantines"], swapped["losses"], swapped["damaged"]) == (before["quarantines"], before["losses"], 0)


def test_what_the_outbox_does_not_have_any_more_quarantines_its_slots(tmp_path):
    with Pair(tmp_path, home={"retention": "1s"}, replica={"lagBound": "60s"}) as both:
        with both.home.client() as home, both.replica.client() as replica:
            replica.set("k", b"old")
            for number in range(300):
                replica.set(f"quiet:{number}", b"old")
            both.relay.cut()
            home.set("k", b"new")
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline:
                for number in range(50):
                    home.set(f"other:{number}", b"v")
                time.sleep(0.25)
            both.relay.heal()
            eventually(lambda: replica.get("k") is None)
            found = both.replica.await_figures(quarantines=lambda count: count > 64, quarantined_slots=0)
            assert found["swept"] >= 1


def test_consumers_see_contiguous_records_that_another_library_decodes(pair):
    with pair.home.client() as home:
        consumer = Consumer(pair.stream, region="eu-west")
        region, (source, epoch, start) = consumer.welcome()
        assert region == "us-east" and len(source) == 16 and epoch == 1
        consumer.grant()
        for number in range(500):
            home.set(f"user:{number % 90}", b"v")
        home.ask("delete user:3")
        found, ends = consumer.records()
    schema = fastavro.parse_schema(json.loads((ROOT / "docs/stream-record.avsc").read_text()))
    last = list(start)
    versions = {}
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    for bytes_ in found:
        assert bytes_[:2] == b"\xc3\x01" and bytes_[2:10] in (fingerprint, fingerprint[::-1])
        record = fastavro.schemaless_reader(io.BytesIO(bytes_[10:]), schema)
        assert record["seq_first"] == record["seq"] == last[record["slot"]] + 1
        last[record["slot"]] = record["seq"]
        assert record["source"] == source and record["epoch"] == 1 and record["region"] == "us-east"
        assert record["value"] is None and record["reason"] == "write"
        assert record["version"] > versions.get(record["key"], 0)
        versions[record["key"]] = record["version"]
        assert abs(record["ts_ms"].timestamp() - time.time()) < 60
    assert len(found) == 501 and record["op"] == "DELETE" and last == ends
    consumer.close()
    resumed = Consumer(pair.stream, region="eu-west", position=(source, epoch, start))
    assert resumed.welcome()[1] == (source, epoch, start)
    resumed.grant()
    assert len(resumed.records()[0]) == 501
    slot = next(slot for slot in range(64) if ends[slot] > start[slot] + 2)
    resumed.seek(slot, ends[slot] - 2)
    assert len(resumed.records(2)[0]) == 2, "a slot is sent again from where it is asked for"
    resumed.close()


def test_credit_bounds_what_is_sent(pair):
    with pair.home.client() as home:
        consumer = Consumer(pair.stream)
        consumer.welcome()
        for number in range(4000):
            home.set(f"user:{number}", b"v")
        consumer.grant(1000)
        received = 0
        try:
            while data := consumer.socket.recv(65536):
                received += len(data)
                consumer.socket.settimeout(0.7)
        except TimeoutError:
            pass
        assert 500 < received < 120_000
        consumer.close()


@pytest.mark.parametrize("compression", ["lz4", "none"])
def test_batches_are_packed_where_the_consumer_takes_that(tmp_path, compression):
    with Pair(tmp_path, replica={"mode": "replicate", "lagBound": "30s", "compression": compression}) as both:
        with both.home.client() as home, both.replica.client() as replica:
            for number in range(2000):
                home.send(b"set key:%d 0 0 20 noreply\r\n%020d\r\n" % (number, number))
            assert home.ask("mn") == "MN"
            for number in range(2000):
                assert eventually(lambda number=number: replica.get(f"key:{number}")) == b"%020d" % number
        found = both.home.figures()
        packed = found["consumer:0:wire_bytes"] / found["consumer:0:sent_bytes"]
        assert packed < 0.7 if compression == "lz4" else packed > 1, found
        assert both.replica.figures()["gaps"] == 0


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        ({"cluster": "other"}, "the cluster is main, not other"),
        ({"region": "mars"}, "no region is called mars"),
        ({"version": 9}, "frames of version 9; this node speaks version 1"),
    ],
)
def test_strangers_are_refused(pair, hello, reason):
    consumer = Consumer(pair.stream, **hello)
    assert consumer.welcome() == reason
    assert consumer.frame() is None
    eventually(lambda: pair.home.figures()["consumers_refused"] >= 1)


def test_hostile_bytes_end_their_connection_only(pair):
    chance = random.Random(4)
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", pair.stream), timeout=5) as one:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                one.sendall(chance.randbytes(chance.randrange(1, 4000)))
    consumer = Consumer(pair.stream)
    consumer.welcome()
    for kind in (2, 3, 7, 8, 9, 200):
        # The first of them may have ended the connection.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            consumer.send(kind, chance.randbytes(50))
    with pair.home.client() as home, pair.replica.client() as replica:
        replica.set("k", b"old")
        home.set("k", b"new")
        eventually(lambda: replica.get("k") is None)


def test_regions_know_each_other_by_their_certificates(tmp_path):
    files = certificates(tmp_path, "us-east", "eu-west", "mars")
    home, replica = secured(files, "us-east"), {"mode": "replicate", **secured(files, "eu-west")}
    with Pair(tmp_path, home=home, replica=replica) as both:
        with both.home.client() as client, both.replica.client() as other:
            client.set("k", b"1")
            eventually(lambda: other.get("k") == b"1")
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{both.stream}", "-tls1_2"], input=b"", capture_output=True, timeout=20)
        assert b"protocol version" in done.stderr or done.returncode != 0
        wrong = RegionNode(tmp_path / "wrong", "eu-west", regions(both.stream), secured(files, "mars")).start()
        try:
            found = wrong.await_figures(reason=lambda text: "certificate" in str(text))
            assert "the certificate is mars's, not eu-west's" in found["reason"] and found["trusted"] == "no"
            with wrong.client() as client:
                client.set("k", b"mine")
                assert client.get("k") is None, "a node that never joined the stream shows nothing"
        finally:
            wrong.stop()
        # A source with another region's certificate: nothing is taken from it.
        port = free_port()
        false = RegionNode(
            tmp_path / "false", "us-east", regions(port), {"listen": f"127.0.0.1:{port}", **secured(files, "mars")}, backend="rocksdb")
        misled = RegionNode(tmp_path / "misled", "eu-west", regions(port), replica)
        with false, misled, false.client() as home, misled.client() as client:
            home.set("k", b"forged")
            reason = "the server's certificate is not accepted: hostname mismatch"
            found = misled.await_figures(losses=lambda count: count and count > 2, reason=reason)
            assert found["trusted"] == "no" and found["connections"] == found["records"] == 0, found
            assert client.get("k") is None
        bare = RegionNode(tmp_path / "bare", "eu-west", regions(both.stream)).start()
        try:
            assert bare.await_figures(losses=lambda count: count and count > 2)["connections"] == 0
        finally:
            bare.stop()


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"regions": regions(1)}, "region: missing"),
        ({"region": "us-east"}, "regions: missing"),
        ({"region": "mars", "regions": regions(1)}, 'region: "mars" is none of the regions: us-east, eu-west'),
        ({"region": "a", "regions": [{"name": "a", "role": "home"}, {"name": "b", "role": "home"}]},
         "a and b have the role home; exactly one region has it"),
        ({"region": "a", "regions": [{"name": "a"}]}, "no region has the role home"),
        ({"region": "us-east", "regions": regions(1)}, "nodes of the home region need rocksdb or postgres"),
        ({"region": "eu-west", "regions": regions(1), "storage": {"backend": "rocksdb"}}, "have no store of their own"),
        ({"region": "eu-west", "regions": regions(1), "stream": {"listen": "127.0.0.1:1"}}, "only nodes of the home region"),
        ({"region": "eu-west", "regions": [{"name": "h", "role": "home", "stream": "h.example:1"}, {"name": "eu-west"}]},
         "without TLS streams use loopback addresses only, not h.example"),
        ({"region": "eu-west", "regions": regions(1), "stream": {"key": "x"}}, "stream.certificate: missing"),
        ({"region": "eu-west", "regions": regions(1), "stream": {"crl": "x"}}, "stream.certificate: missing"),
        ({"tls": {"enabled": True, "certificate": "x", "crl": "x"}}, "tls.crl: needs tls.ca"),
        ({"tls": {"enabled": True, "certificate": "x", "ca": "x", "crl": "x"}}, "tls.crl: is nothing without tls.verify"),
        ({"region": "eu-west", "regions": regions(1) * 2}, "there twice"),
        ({"region": "us-east", "regions": regions(1), "storage": {"backend": "postgres", "url": "postgresql:///x", "tlsName": "x"}},
         "storage.tlsName: storage.backend is postgres; it is of region, and of postgres where several regions have a `stream`"),
        ({"storage": {"standbyURL": "postgresql:///x"}}, "storage.standbyURL: needs `region` and `regions`"),
        ({"region": "eu-west", "regions": regions(1), "storage": {"standbyURL": "postgresql:///x"}},
         "storage.standbyURL: storage.backend is none; a standby is for region"),
        ({"region": "eu-west", "regions": regions(1), "storage": {"backend": "region", "standbyURL": "postgresql:///x"}},
         "storage.standbyURL: needs a `stream` of eu-west in `regions`"),
        ({"region": "eu-west", "storage": {"backend": "region", "standbyURL": "postgresql:///x"},
          "regions": [{**regions(1)[0], "serve": "127.0.0.1:2"}, {"name": "eu-west", "stream": "127.0.0.1:3"}]},
         "storage.standbyURL: needs stream.listen"),
        ({"region": "eu-west", "regions": [regions(1)[0], {"name": "eu-west"}, {"name": "x", "stream": "x.example:1"}]},
         "without TLS streams use loopback addresses only, not x.example"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_stops_the_start(tmp_path, document, complaint):
    (tmp_path / "node.yaml").write_text(json.dumps(document))
    done = subprocess.run([*default_command().split(), "--config", str(tmp_path / "node.yaml"), "--check-config"],
                          capture_output=True, text=True, timeout=20)  # fmt: skip
    assert done.returncode != 0 and complaint in done.stderr, done.stderr


def test_nodes_that_share_a_database_learn_of_each_other(tmp_path):
    if not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")
    listed = [{"name": "us-east", "role": "home"}]
    one = RegionNode(tmp_path / "one", "us-east", listed, backend="postgres")
    two = RegionNode(tmp_path / "two", "us-east", listed, backend="postgres")
    two.url = one.url
    try:
        one.start()
        two.start()
        for node in (one, two):
            node.await_figures(trusted="yes", quarantined_slots=0)
        with one.client() as first, two.client() as second:
            delays = []
            for number in range(60):
                first.set("k", b"%d" % number)
                began = time.monotonic()
                eventually(lambda: second.get("k") == b"%d" % number)
                delays.append(time.monotonic() - began)
            assert sorted(delays)[50] < 1, delays
            for number in range(200):
                (first if number % 2 else second).set(f"key:{number % 20}", b"%d" % number)
            time.sleep(1)
            for number in range(180, 200):
                assert first.get(f"key:{number % 20}") == second.get(f"key:{number % 20}") == b"%d" % number
        found = two.figures()
        assert found["gaps"] == 0 and found["kept"] > 0 and found["dropped"] > 0
    finally:
        one.stop()
        two.stop()


def test_metrics_are_documented_and_martletctl_shows_the_stream(tmp_path):
    with Pair(tmp_path, admin=True) as both:
        eventually(lambda: both.home.figures()["consumers"] == 1)
        shown = {}
        # The home last: it has the samples of consumers. Those of Kafka and Debezium have their own tests.
        for node in (both.replica, both.home):
            shown.update(exported(node.admin)[0])

        def streams(rows):
            return {
                name: row for name, row in rows.items() if re.match("martlet_(stream_(?!kafka_|debezium_)|consistency_)", name)}

        assert streams(shown) == streams(documented())
        program = str(Path(default_command().split()[0]).with_name("martletctl"))
        done = subprocess.run([program, "stream", "status", f"--node=http://127.0.0.1:{both.replica.admin}"],
                              capture_output=True, text=True, timeout=20, check=True)  # fmt: skip
        assert re.search(r"(?m)^home +us-east$", done.stdout) and re.search(r"(?m)^trusted +yes$", done.stdout)
        done = subprocess.run([program, "stream", "status", "--json", f"--node=http://127.0.0.1:{both.home.admin}"],
                              capture_output=True, text=True, timeout=20, check=True)  # fmt: skip
        found = json.loads(done.stdout)
        assert found["consumers"] == 1 and (found["epoch"], found["epoch_text"]) == (1, "1") and len(found["source"]) == 16


def test_make_regions_starts_two_regions_and_its_tour_shows_an_invalidation_crossing():
    if not database.is_installed() or shutil.which("etcd") is None:
        pytest.fail("there is no PostgreSQL, or no etcd: run make install")
    port = free_ports([*range(6), *range(100, 106), 202, 203])
    tour = subprocess.run([ROOT / "Scripts/run-regions", "--port", str(port), "--tour"], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "MARTLET_SERVER": default_command().split()[0]})  # fmt: skip
    assert tour.returncode == 0, tour.stdout + tour.stderr
    before, after = re.findall(r"\$ for .*\nSTAT dropped (\d+)\nSTAT dropped (\d+)\n", tour.stdout)
    assert [int(count) for count in after] == [int(count) + 1 for count in before], "the invalidation crossed to both nodes"
    shown = re.split(r"\n# .*\n\$ .*\n", tour.stdout)[1:]
    assert shown[1] == "VALUE greeting 0 5\nhello\nEND\n" * 2 and shown[5] == "VALUE greeting 0 3\nbye\nEND\n"
    assert shown[7] == "VALUE greeting 0 5\nagain\nEND\n" and shown[9] == "END\n"
    # Both nodes of the replica region follow home, and the two at home share its keys out.
    assert len(re.findall(r"consumer:\d:name +eu-west/", shown[10])) == 2, shown[10]
    assert re.search(rf"leased\n +127.0.0.1:{port + 2}\s+127.0.0.1:{port + 3}\s", shown[12]), shown[12]


def test_a_consumers_backlog_is_that_of_the_moment(pair):
    slow = Consumer(pair.stream, name="slow")
    slow.welcome()

    def backlog():
        found = pair.home.figures()
        names = [name for name, value in found.items() if value == "eu-west/slow"]
        return found[names[0].replace("name", "backlog")] if names else None

    eventually(lambda: backlog() == 0)
    with pair.home.client() as home:
        # It lets nothing be sent.
        for number in range(1, 20):
            home.set("k", b"v")
            assert backlog() == number
    slow.close()
