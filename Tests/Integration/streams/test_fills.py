# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a replica region reads at home while home's nodes are not equally far in the stream: what it was told of is not
cached again from a copy of a node that has not heard of it."""

import io
import json
import time

import fastavro
import pytest

from bed import Listener, free_port
from documents.blocks import ROOT
from storage import database

from .region import FakeSource, Relay, RegionNode, eventually
from .test_capture import initialise, row, sql, where

pytestmark = pytest.mark.ours
SCHEMA = fastavro.parse_schema(json.loads((ROOT / "docs/stream-record.avsc").read_text()))
FINGERPRINT = bytes.fromhex(fastavro.schema.fingerprint(
    fastavro.schema.to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))


class Lagging(database.Proxy):
    """Keeps from a node what the database says of the stream, while it is held; everything else passes."""

    is_held = False

    def up(self, near, far, is_stream):
        try:
            while data := near.recv(1 << 20):
                if b"martlet_stream" in data:
                    is_stream.set()
                far.sendall(data)
            far.shutdown(2)
        except OSError:
            pass

    def down(self, near, far, is_stream):
        try:
            while data := far.recv(1 << 20):
                while self.is_held and is_stream.is_set():
                    time.sleep(0.005)
                near.sendall(data)
            near.shutdown(2)
        except OSError:
            pass


class Owners:
    """Two nodes of a home region that share a PostgreSQL and own its keys, one of which hears of the stream when we say; and a
    node of a replica region, which follows the other and reads at that one."""

    def __init__(self, directory, capture, bound="60s", pools=()):
        if not database.is_installed():
            pytest.fail("there is no PostgreSQL: run make install")
        streams = [free_port(), free_port()]
        members = directory / "members.json"
        self.homes = []
        for name, port in zip(("first", "second"), streams, strict=True):
            keys = {"listen": f"127.0.0.1:{port}", "lagBound": bound}
            node = RegionNode(
                directory / name, "us-east", [], keys, backend="postgres", storage_instance=name,
                ownership_hash="multiProbe", members=f"file:{members}")  # fmt: skip
            node.arguments += ["--register-address", f"127.0.0.1:{node.port}"]
            self.homes.append(node)
        members.write_text(json.dumps([f"127.0.0.1:{node.port}" for node in self.homes]))
        self.home, self.late = self.homes
        url = self.home.url
        self.late.url = url
        if capture:
            assert initialise(url, "--capture=on").returncode == 0
        self.lag = Lagging(database.shared().port)
        self.late.url = url.replace(f":{database.shared().port}/", f":{self.lag.port}/")
        self.way = Relay(self.late.port)
        regions = [
            {"name": "us-east", "role": "home", "stream": f"127.0.0.1:{streams[0]}", "serve": f"127.0.0.1:{self.way.port}"},
            {"name": "eu-west", "role": "replica"}]  # fmt: skip
        for node in self.homes:
            node.rewrite(regions=regions, **({"pools": list(pools)} if pools else {}))
        self.replica = RegionNode(
            directory / "replica", "eu-west", regions, {"lagBound": "60s"}, backend="region", storage_timeout="5s")

    def __enter__(self):
        for node in (*self.homes, self.replica):
            node.start()
            node.await_figures(trusted="yes", quarantined_slots=0)
        eventually(lambda: all(
            node.statistics()["ring_is_leased"] and not node.statistics()["ring_is_opening"] for node in self.homes))
        eventually(lambda: len({node.statistics()["ring_epoch"] for node in self.homes}) == 1)
        return self

    def __exit__(self, *_):
        self.lag.is_held = False
        for node in (self.replica, *self.homes):
            node.stop()
        for relay in (self.lag, self.way):
            relay.close()

    def keys(self, count):
        """Keys of the node that hears late."""
        found, number = [], 0
        with self.late.client() as client:
            assert client.ask("config get owners").startswith("OWNERS ")
            while len(found) < count:
                if "302 try again" not in client.ask(f"mg key-{number} c"):
                    found.append(f"key-{number}")
                number += 1
        return found

    def change(self, key, gives_up):
        """Another program writes; what tells of it names the key, or gives all copies up."""
        sql(self, f"UPDATE martlet_kv SET val = 'raw' WHERE {where(key)}")
        if gives_up:
            # As a snapshot of Debezium's, and the runbook.
            now = int(time.time() * 1000)
            sql(self, f"INSERT INTO martlet_outbox (op, pool, slot, k, ver, exp, ts) VALUES (19, -1, -1, '', {now}, 0, {now})")


@pytest.mark.parametrize("gives_up", [False, True], ids=["key", "everything"])
def test_what_was_told_is_not_cached_from_a_copy_that_was_not(tmp_path, gives_up):
    with Owners(tmp_path, capture=not gives_up) as owners:
        late, replica = owners.late.client(), owners.replica.client()
        keys = owners.keys(6)
        told = owners.replica.figures()["records"] + len(keys)
        for key in keys:
            assert late.set(key, "before") == "STORED" and replica.get(key) == b"before"
        owners.replica.await_figures(records=told)
        owners.lag.is_held = True
        owners.change(keys[0], gives_up)
        # The replica was told of it, in each slot where everything is given up.
        wanted = 64 if gives_up else 1
        owners.replica.await_figures(records=lambda count: count >= told + wanted)
        assert replica.get(keys[0]) == b"raw"
        assert owners.late.figures()["confirmed"] >= 1
        # It stays so, and what it was not told of is answered from copies.
        time.sleep(0.3)
        assert replica.get(keys[0]) == b"raw"
        owners.lag.is_held = False
        eventually(lambda: late.get(keys[0]) == b"raw")
        assert replica.get(keys[0]) == b"raw"


def test_copies_of_home_answer_a_region_that_knows_no_more(tmp_path):
    with Owners(tmp_path, capture=True) as owners:
        late, replica = owners.late.client(), owners.replica.client()
        keys = owners.keys(40)
        for key in keys:
            assert late.set(key, "cached") == "STORED"
        # The owner has heard of its own writes by the stream as well. On a busy machine it may take longer, or its lease
        # may have lapsed for a moment: some of the keys are asked for then.
        for some in (keys[:13], keys[13:26], keys[26:]):
            time.sleep(1)
            before = owners.late.figures()["confirmed"], owners.late.statistics()["reads_sent"]
            for key in some:
                assert replica.get(key) == b"cached"
            after = owners.late.figures()["confirmed"], owners.late.statistics()["reads_sent"]
            if after == before:
                break
        assert after == before, "no copy had to be confirmed, and none was read again"
        # Without a place nobody knows what the region was told of.
        with owners.late.client() as client:
            assert client.ask(f"mg {keys[0]} v Pmartlet-region=us-east") == "VA 6" and client.line() == "cached"
            assert client.ask(f"mg {keys[0]} v Lmartlet-at=1.1 Pmartlet-region=us-east") == "VA 6" and client.line() == "cached"
        assert owners.late.figures()["confirmed"] == before[0] + 2


def record(slot, sequence, operation="SET", key=b"", version=1 << 60):
    """A record of the fake source's, as a single object."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, {
        "op": operation, "pool": "", "key": key, "key_hash": slot, "version": version, "exp_ms": 0, "region": "us-east",
        "source": "fake", "epoch": 1, "slot": slot, "seq_first": sequence, "seq": sequence, "position": "",
        "ts_ms": int(time.time() * 1000), "reason": "cdc", "value": None, "flags": None, "trace": None})  # fmt: skip
    return b"\xc3\x01" + FINGERPRINT + out.getvalue()


class FakeHome(Listener):
    """Answers that there is nothing, and keeps what it was asked."""

    def __init__(self):
        self.lines = []
        super().__init__(self.serve)

    def serve(self, connection):
        for line in connection.makefile("rb"):
            text = line.decode().rstrip("\r\n")
            if text != "mn":
                self.lines.append(text)
            connection.sendall(b"MN\r\n" if text == "mn" else b"EN\r\n")


def test_reads_say_what_was_told_and_nothing_where_a_slot_waits(tmp_path):
    source, home = FakeSource(), FakeHome()
    regions = [
        {"name": "us-east", "role": "home", "stream": f"127.0.0.1:{source.port}", "serve": f"127.0.0.1:{home.port}"},
        {"name": "eu-west", "role": "replica"}]  # fmt: skip
    node = RegionNode(tmp_path / "node", "eu-west", regions, {"lagBound": "60s"}, backend="region")
    with node:
        node.await_figures(trusted="yes", quarantined_slots=0)

        def place(key):
            with node.client() as client:
                assert client.get(key) is None
            words = home.lines[-1].split()
            assert words[1] == key and words[-1] == "Pmartlet-region=us-east", words
            found = [word for word in words if word.startswith("L")]
            return found[0].removeprefix("Lmartlet-at=").split(".") if found else None

        numbering, sequence = place("a")
        assert sequence == "0"
        # In each slot by itself.
        source.sequences = [3] * 64
        source.batch(*[record(slot, number) for number in (1, 2, 3) for slot in range(64)])
        node.await_figures(records=3 * 64)
        assert place("b") == [numbering, "3"]
        # Everything is given up, which was told in one slot: reads of the others do not know what that one was about.
        version = int(time.time() * 1000)
        source.batch(record(5, 4, "FLUSH", version=version))
        source.sequences[5] = 4
        node.await_figures(records=3 * 64 + 1)
        found = [place(f"key-{number}") for number in range(400)]
        assert {tuple(place or ()) for place in found} == {(), (numbering, "4")}
        source.batch(*[record(slot, 4, "FLUSH", version=version) for slot in range(64) if slot != 5])
        source.sequences = [4] * 64
        node.await_figures(records=4 * 64)
        assert all(place(f"other-{number}") == [numbering, "4"] for number in range(20))
        # A record beyond a gap has acted, and the place of its slot does not show that.
        source.batch(record(5, 6))
        node.await_figures(missing_slots=1)
        assert any(place(f"gap-{number}") is None for number in range(1000))
        source.sequences[5] = 6
        source.batch(record(5, 5), record(5, 6))
        node.await_figures(missing_slots=0)
        found = [place(f"whole-{number}") for number in range(400)]
        assert {tuple(place or ()) for place in found} == {(numbering, "6"), (numbering, "4")}
    source.close()
    home.stop()


@pytest.mark.parametrize("is_told", [False, True], ids=["behind", "told"])
def test_a_cache_that_warms_up_takes_nothing_of_a_node_that_was_not_told(tmp_path, is_told):
    """Plain caches of one region: one fetches its share of the keys from the other, whose stream may be held."""
    stream = free_port()
    relay = Relay(stream)
    listed = [
        {"name": "us-east", "role": "home", "stream": f"127.0.0.1:{stream}"}, {"name": "eu-west", "role": "replica"}]
    home = RegionNode(tmp_path / "home", "us-east", listed, {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb")
    behind = [{**listed[0], "stream": f"127.0.0.1:{relay.port}"}, listed[1]]
    old = RegionNode(tmp_path / "old", "eu-west", behind)
    joining = RegionNode(tmp_path / "joining", "eu-west", listed, warm_up_hash="multiProbe", warm_up_wait="500ms")
    own = f"127.0.0.1:{joining.port}"
    joining.arguments += ["--members", f"127.0.0.1:{old.port},{own}", "--register-address", own]
    names = [f"key:{number}" for number in range(60)]
    with home, old:
        old.await_figures(trusted="yes", quarantined_slots=0)
        with old.client() as client:
            for name in names:
                assert client.set(name, b"old") == "STORED"
        relay.is_held = not is_told
        with home.client() as client:
            for name in names if not is_told else ():
                assert client.set(name, b"new") == "STORED"
        with joining, joining.client() as client:
            eventually(lambda: client.stats("martlet")["warm_up"] == "up", 20)
            relay.heal()
            old.await_figures(trusted="yes", backlog=0)
            values = [client.get(name) for name in names]
            if is_told:
                assert values.count(b"old") > 10, "its share came, and nothing else"
            else:
                assert values == [None] * len(names)
    relay.close()
