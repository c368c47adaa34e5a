# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Kafka between regions: real nodes, and a cluster of three brokers in a process of its own that fails as it is told."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

import fastavro
import pytest

from bed import default_command, free_port, until
from documents.blocks import ROOT
from documents.test_reference import documented, exported
from storage import database

from . import brokers as kafka
from .brokers import Brokers
from .region import RegionNode, eventually
from .registry import Registry

pytestmark = pytest.mark.ours

SCHEMA = fastavro.parse_schema(json.loads((ROOT / "docs/stream-record.avsc").read_text()))
SECRET = "correct horse battery staple"


def listed(stream=None, serve=None):
    home = {"name": "us-east", "role": "home"}
    if stream:
        home["stream"] = f"127.0.0.1:{stream}"
    if serve:
        home["serve"] = f"127.0.0.1:{serve}"
    return [home, {"name": "eu-west", "role": "replica"}]


class Pair:
    """A home region's node, and one of a replica region that follows it through Kafka. With `repairs`, the replica may
    ask the home node for what the brokers do not have; `settings` are those of `stream.kafka`."""

    def __init__(self, directory, repairs=False, mode="invalidate", bound="4s", backend="none", topics=(), waits=True, admin=False, token=None, **settings):
        self.brokers = Brokers(("inv.main", *topics))
        options = {"admin": admin, **({"admin_token_file": token} if token else {})}
        port = free_port()
        stream = {"transport": "kafka", "mode": mode, "lagBound": bound, "kafka": {"brokers": self.brokers.addresses, **settings}}
        at_home = {**stream, "listen": f"127.0.0.1:{port}"} if repairs else stream
        self.home = RegionNode(directory / "home", "us-east", [], at_home, backend="rocksdb", **options)
        regions = listed(port if repairs else None, self.home.port)
        self.home.rewrite(regions=regions)
        self.replica = RegionNode(directory / "replica", "eu-west", regions, stream, backend=backend, **options)
        self.waits = waits

    def __enter__(self):
        self.home.start()
        self.replica.start()
        if self.waits:
            self.replica.await_figures(trusted="yes", quarantined_slots=0)
            # What is counted is told ten times a second: the quarantines of the beginning are to be among it.
            time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.replica.stop()
        self.home.stop()
        self.brokers.close()


def decode(value):
    """A message's value, and the number of its schema; None where it is a single object."""
    if value[0] == 0:
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), SCHEMA), int.from_bytes(value[1:5], "big")
    assert value[:2] == b"\xc3\x01", value[:10]
    return fastavro.schemaless_reader(io.BytesIO(value[10:]), SCHEMA), None


def changes(brokers, topic="inv.main", in_order=True):
    """The records of a topic that are changes; checks that none is left out before another within a slot's numbering."""
    found, last = [], {}
    for partition, _, key, value in brokers.messages(topic):
        record, _ = decode(value)
        assert record["slot"] == partition
        place = (partition, record["source"], record["epoch"])
        if record["op"] in ("HEARTBEAT", "EPOCH"):
            last.setdefault(place, record["seq"])
            continue
        assert key == record["key"]
        assert not in_order or record["seq_first"] <= last.get(place, record["seq_first"] - 1) + 1, (partition, last.get(place), record)
        last[place] = max(record["seq"], last.get(place, 0))
        found.append(record)
    return found


def test_a_change_drops_the_copy_of_the_other_region(tmp_path):
    with Pair(tmp_path) as both, both.home.client() as home, both.replica.client() as replica:
        delays = []
        for change in (lambda: home.set("k", b"new"), lambda: home.ask("delete k"), lambda: home.ask("touch k 100")):
            home.set("k", b"old")
            time.sleep(0.4)
            assert replica.set("k", b"copy") == "STORED" and replica.set("other", b"copy") == "STORED"
            change()
            began = time.monotonic()
            eventually(lambda: replica.get("k") is None)
            delays.append(time.monotonic() - began)
            assert replica.get("other") is not None
        # The mock brokers hold back an answer that has nothing for the whole time that may be waited.
        assert max(delays) < 1, delays
        found = both.replica.figures()
        assert found["dropped"] >= 5 and found["installed"] == 0 and found["gaps"] == 0 and found["damaged"] == 0
        assert found["transport"] == "kafka" and found["peer"] == "kafka inv.main" and found["kafka_messages"] > 64
        sent = both.home.await_figures(kafka_published=6, kafka_backlog=0)
        assert sent["kafka_leads"] == "yes" and sent["kafka_failures"] == 0


def test_values_replace_the_copies_where_they_travel(tmp_path):
    with Pair(tmp_path, mode="replicate") as both, both.home.client() as home, both.replica.client() as replica:
        for number in range(300):
            home.set(f"key:{number}", b"v%d" % number, flags=number)
        for number in range(300):
            assert eventually(lambda: replica.get(f"key:{number}")) == b"v%d" % number
            assert replica.ask(f"mg key:{number} c f") == home.ask(f"mg key:{number} c f")
        home.ask("delete key:7")
        eventually(lambda: replica.get("key:7") is None)
        home.set("large", b"x" * 800_000)
        eventually(lambda: replica.get("large") == b"x" * 800_000)
        home.set("large", b"y" * 1_000_000)
        eventually(lambda: replica.get("large") is None)
        assert both.home.figures()["kafka_failures"] == 0, "what no broker takes goes without its value"


def test_another_library_decodes_the_records_in_the_registrys_frame(tmp_path):
    registry = Registry(login=("martlet", SECRET))
    login = {"registry": registry.url, "registryUsername": "martlet", "registryPassword": SECRET}
    try:
        with Pair(tmp_path, repairs=True, **login) as both, both.home.client() as home:
            both.home.await_figures(kafka_schema=4711)
            registered = registry.subjects["inv.main-value"]
            assert fastavro.schema.to_parsing_canonical_form(fastavro.parse_schema(json.loads(registered))) == \
                fastavro.schema.to_parsing_canonical_form(SCHEMA)
            for number in range(500):
                home.set(f"user:{number % 90}", b"v")
            home.ask("delete user:3")
            both.home.await_figures(kafka_backlog=0, kafka_waiting=0)
            both.replica.await_figures(kafka_behind=0, records=501)
            time.sleep(1.5)
            found = changes(both.brokers)
            assert len(found) == 501 and sum(record["op"] == "DELETE" for record in found) == 1
            versions = {}
            for record in found:
                assert record["version"] > versions.get(record["key"], 0), "of one key they come in order"
                versions[record["key"]] = record["version"]
                assert record["region"] == "us-east" and record["reason"] == "write" and record["value"] is None
                assert abs(record["ts_ms"].timestamp() - time.time()) < 60
            kinds, numbers = {}, set()
            for partition, _, _, value in both.brokers.messages():
                record, number = decode(value)
                numbers.add(number)
                kinds.setdefault(partition, []).append(record["op"])
            assert len(kinds) == 64 and numbers == {4711}
            # An epoch's beginning first, heartbeats behind.
            assert all(kind[0] == "EPOCH" and kind.count("EPOCH") == 1 and "HEARTBEAT" in kind for kind in kinds.values())
            said = both.home.server.output()
            assert SECRET not in said and "4711" in said
    finally:
        registry.close()


@pytest.mark.parametrize("trouble", ["away", "refusing", "closed"])
def test_without_the_registry_invalidation_goes_on(tmp_path, trouble):
    registry = Registry(login=("a", "b") if trouble == "closed" else None)
    registry.refusal = 500 if trouble == "refusing" else None
    url, port = registry.url, registry.port
    if trouble == "away":
        registry.close()
    with Pair(tmp_path, registry=url) as both, both.home.client() as home, both.replica.client() as replica:
        replica.set("k", b"copy")
        home.set("k", b"new")
        eventually(lambda: replica.get("k") is None)
        reason = both.home.figures()["kafka_registry_reason"]
        wanted = {"away": "connect", "refusing": "500", "closed": "registryUsername"}[trouble]
        assert wanted in reason and both.home.figures()["kafka_schema"] == "none"
        if trouble == "away":
            registry = Registry(port)
        registry.refusal = registry.login = None
        both.home.await_figures(kafka_schema=4711)
        replica.set("k", b"copy")
        home.set("k", b"newer")
        eventually(lambda: replica.get("k") is None)
        both.home.await_figures(kafka_backlog=0)
        numbers = [decode(value)[1] for _, _, key, value in both.brokers.messages() if key == b"k"]
        assert numbers == [None, 4711], "what came before the number is a single object"
        assert both.replica.figures()["damaged"] == 0
    registry.close()


def test_a_broker_that_goes_down_and_comes_back_loses_nothing(tmp_path):
    with Pair(tmp_path, mode="replicate", bound="2s") as both, both.home.client() as home, both.replica.client() as replica:
        for number in range(200):
            home.set(f"key:{number}", b"1")
        for number in range(200):
            eventually(lambda: replica.get(f"key:{number}") == b"1")
        before = both.replica.figures()
        both.brokers.down(2)
        for number in range(200):
            home.set(f"key:{number}", b"2")
        # A third of the partitions has no leader: what is not known to be fresh is not shown.
        both.replica.await_figures(trusted="no")
        # A look forgets what may not be shown: one is enough.
        assert replica.get("key:199") is None
        said = both.home.await_figures(kafka_reason=lambda text: text)["kafka_reason"]
        assert re.match(r"\d+ of 64 partitions take no messages", said), said
        both.brokers.up(2)
        both.replica.await_figures(trusted="yes", kafka_behind=0, backlog=0)
        for number in range(199):
            assert eventually(lambda: replica.get(f"key:{number}")) == b"2"
        both.home.await_figures(kafka_reason=None, kafka_waiting=0)
        after = both.replica.figures()
        assert after["quarantines"] == before["quarantines"] and after["kafka_rejoins"] == 0
        assert {record["version"] for record in changes(both.brokers)} and both.home.figures()["kafka_backlog"] == 0


def test_leaders_that_move_are_followed(tmp_path):
    with Pair(tmp_path, mode="replicate", bound="30s") as both, both.home.client() as home, both.replica.client() as replica:
        def await_values(value):
            for number in range(300):
                until(lambda: replica.get(f"key:{number}") == value, 20,
                      lambda: (number, replica.get(f"key:{number}"), both.home.figures(), both.replica.figures()))  # fmt: skip

        before = both.replica.figures()
        both.brokers.lead(2, 3)
        both.brokers.down(1)
        for number in range(300):
            home.set(f"key:{number}", b"1")
        await_values(b"1")
        both.brokers.up(1)
        both.brokers.lead(3, 1, 2)
        for number in range(300):
            home.set(f"key:{number}", b"2")
        await_values(b"2")
        after = both.replica.await_figures(trusted="yes")
        assert after["quarantines"] == before["quarantines"] and after["kafka_rejoins"] == 0
        changes(both.brokers)


@pytest.mark.parametrize(
    ("codes", "is_fatal"),
    [
        ([kafka.NOT_LEADER, kafka.TIMED_OUT, kafka.TRANSPORT] * 4, False),
        ([kafka.TRANSPORT] * 6, False),
        # For good: librdkafka gives the producer up rather than leave a gap behind, and another one begins anew.
        ([kafka.UNAUTHORIZED], True),
        ([kafka.UNAUTHORIZED] * 5 + [kafka.UNKNOWN] * 2, True),
    ],
)
def test_errors_of_brokers_leave_no_gap(tmp_path, codes, is_fatal):
    with Pair(tmp_path, mode="replicate", bound="20s") as both, both.home.client() as home, both.replica.client() as replica:
        for turn in range(3):
            both.brokers.fail(kafka.PRODUCE, *codes)
            for number in range(200):
                home.set(f"key:{number}", b"%d" % turn)
        for number in range(200):
            eventually(lambda: replica.get(f"key:{number}") == b"2", 30)
        found = both.home.await_figures(kafka_backlog=0, kafka_waiting=0)
        assert (found["kafka_restarts"] > 0) == is_fatal, found
        # A mock broker that refused a producer's first batch takes the second, other than Kafka: the first comes behind it then.
        assert len({(record["slot"], record["seq"]) for record in changes(both.brokers, in_order=False)}) == 600
        after = both.replica.await_figures(trusted="yes")
        assert after["gaps"] == after["repairs"], "what came twice, or late, did no harm"


def test_messages_that_are_too_large_for_the_brokers_go_without_their_values(tmp_path):
    with Pair(tmp_path, mode="replicate", bound="20s") as both, both.home.client() as home, both.replica.client() as replica:
        home.set("k", b"1")
        eventually(lambda: replica.get("k") == b"1")
        both.brokers.fail(kafka.PRODUCE, kafka.TOO_LARGE)
        home.set("k", b"x" * 500_000)
        eventually(lambda: replica.get("k") is None, 20)
        home.set("k", b"3")
        eventually(lambda: replica.get("k") == b"3", 20)
        assert both.home.figures()["kafka_restarts"] == 1


@pytest.mark.alone
@pytest.mark.parametrize("repairs", [True, False])
def test_what_the_brokers_let_go_is_fetched_from_home_or_quarantines_its_slot(tmp_path, repairs):
    with Pair(tmp_path, repairs, mode="replicate", bound="60s") as both:
        with both.home.client() as home, both.replica.client() as replica:
            names = [f"key:{number}" for number in range(400)]
            for name in names:
                home.set(name, b"old")
            for name in names:
                eventually(lambda: replica.get(name) == b"old")
            slots = {key.decode(): partition for partition, _, key, _ in both.brokers.messages() if key}
            shared = [name for name in names if slots[name] == slots["key:0"] and name != "key:0"]
            before = both.replica.figures()
            both.replica.server.signal(signal.SIGSTOP)
            home.set(shared[0], b"new")
            # More than a mock broker keeps of a partition.
            for _ in range(12):
                large = os.urandom(700_000)
                home.set("key:0", large)
            both.home.await_figures(kafka_backlog=0, kafka_waiting=0)
            both.replica.server.signal(signal.SIGCONT)
            both.replica.await_figures(kafka_overruns=lambda count: count > 0, gaps=lambda count: count > before["gaps"])
            after = both.replica.await_figures(missing_slots=0, quarantined_slots=0, trusted="yes")
            assert (after["quarantines"] == before["quarantines"]) == repairs, (before, after)
            eventually(lambda: replica.get("key:0") in (None, large))
            if repairs:
                assert after["repairs"] > before["repairs"] and after["kafka_fetches"] >= 1
                assert replica.get(shared[0]) == b"new" and replica.get(shared[1]) == b"old"
            else:
                # What was lost cannot be told from what was not: all copies of the slot go.
                assert replica.get(shared[0]) is None and replica.get(shared[1]) is None
            both.replica.await_figures(monitored="yes" if repairs else "no")
            elsewhere = next(name for name in names if slots[name] != slots["key:0"])
            assert replica.get(elsewhere) == b"old", "other slots lose nothing"


def test_a_home_that_was_killed_goes_on_behind_what_the_brokers_have(tmp_path):
    with Pair(tmp_path, mode="replicate", bound="30s") as both:
        before = both.replica.figures()
        for turn in range(3):
            with both.home.client() as home, both.replica.client() as replica:
                for number in range(300):
                    home.set(f"key:{number}", b"%d" % turn)
            both.home.restart(crash=True)
        with both.replica.client() as replica:
            for number in range(300):
                eventually(lambda: replica.get(f"key:{number}") == b"2")
        both.home.await_figures(kafka_backlog=0)
        found = changes(both.brokers)
        assert len({(record["slot"], record["seq"]) for record in found}) == 900
        after = both.replica.await_figures(trusted="yes")
        assert after["quarantines"] == before["quarantines"] and after["epochs"] == 0 and after["fenced"] == 0


def test_another_store_at_home_begins_anew_and_the_old_ones_records_are_fenced(tmp_path):
    with Pair(tmp_path, mode="replicate", bound="30s") as both:
        with both.home.client() as home, both.replica.client() as replica:
            home.set("k", b"old")
            eventually(lambda: replica.get("k") == b"old")
            both.home.await_figures(kafka_backlog=0)
        stray = next(value for _, _, key, value in both.brokers.messages() if key == b"k")
        slot = decode(stray)[0]["slot"]
        both.home.stop()
        shutil.rmtree(both.home.path)
        both.home.start()
        found = both.replica.await_figures(epochs=1, quarantines=lambda count: count >= 128, trusted="yes", quarantined_slots=0)
        with both.home.client() as home, both.replica.client() as replica:
            assert replica.get("k") is None, "the other store does not have it"
            home.set("k", b"new")
            eventually(lambda: replica.get("k") == b"new")
            both.brokers.put(slot, stray, key=b"k")
            both.replica.await_figures(fenced=found["fenced"] + 1)
            assert replica.get("k") == b"new"
        epochs = [decode(value)[0] for _, _, key, value in both.brokers.messages() if key is None]
        assert sum(record["op"] == "EPOCH" for record in epochs) == 128
        last = [record for record in epochs if record["op"] == "EPOCH" and record["slot"] == slot][1]
        assert last["position"].endswith(decode(stray)[0]["source"]), "it says where the other one ended"


def test_hostile_messages_are_refused_and_counted_and_the_stream_goes_on(tmp_path):
    with Pair(tmp_path, mode="replicate", bound="30s") as both, both.home.client() as home, both.replica.client() as replica:
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        home.set("k", b"1")
        eventually(lambda: replica.get("k") == b"1")
        real = next((partition, value) for partition, _, key, value in both.brokers.messages() if key == b"k")
        bad = [b"\0", b"\0\0\0\0\1", b"\xc3\x01" + bytes(20), real[1][:-1], real[1] + b"\0"]
        bad += [chance.randbytes(chance.randrange(1, 300)) for _ in range(60)]
        for value in bad:
            both.brokers.put(chance.randrange(64), value)
        # One that is whole, in a partition that is not its slot's.
        both.brokers.put((real[0] + 1) % 64, real[1], key=b"k")
        both.replica.await_figures(damaged=len(bad) + 1)
        home.set("k", b"2")
        eventually(lambda: replica.get("k") == b"2"), seed
        found = both.replica.await_figures(trusted="yes", reason=lambda text: text)
        assert found["gaps"] == 0, seed
        assert "cannot be read: " in found["reason"], found
        said = [json.loads(line) for line in both.replica.server.output().splitlines() if "no record that this version knows" in line]
        # One for ten seconds, however many there are.
        assert 1 <= len(said) < 5 and said[0]["reason"] and said[0]["count"] == 1, said
        # The publisher finds its place behind them, too.
        both.home.restart(crash=True)
        with both.home.client() as again:
            again.set("k", b"3")
        eventually(lambda: replica.get("k") == b"3"), seed
        assert both.replica.figures()["epochs"] == 0


def test_the_state_topic_has_the_last_value_of_each_key_and_tombstones(tmp_path):
    registry = Registry()
    with Pair(tmp_path, topics=("state.main",), stateTopic="state.main", registry=registry.url) as both, both.home.client() as home:
        both.home.await_figures(kafka_state_schema=4711)
        for turn in range(3):
            for number in range(50):
                home.set(f"key:{number}", b"%d-%d" % (turn, number), flags=number)
        for number in range(10):
            home.ask(f"delete key:{number}")
        both.home.await_figures(kafka_state_backlog=0, kafka_state_waiting=0, kafka_backlog=0)
        table = {}
        for _, _, key, value in both.brokers.messages("state.main"):
            if value is None:
                table.pop(key, None)
            else:
                record, number = decode(value)
                assert record["key"] == key and record["op"] == "SET" and number == 4711
                table[key] = (record["value"], record["flags"], record["version"])
        assert table.keys() == {b"key:%d" % number for number in range(10, 50)}
        for number in range(10, 50):
            value, flags, version = table[b"key:%d" % number]
            assert (value, flags) == (b"2-%d" % number, number)
            assert home.ask(f"mg key:{number} c") == f"HD c{version}"
        assert all(record["value"] is None for record in changes(both.brokers)), "values go to the other topic only"
        # After a crash it goes on where the topic is, tombstones included.
        both.home.restart(crash=True)
        count = len(both.brokers.messages("state.main"))
        with both.home.client() as again:
            again.ask("delete key:11")
        both.home.await_figures(kafka_state_published=lambda number: number >= 1, kafka_state_backlog=0, kafka_state_waiting=0)
        found = both.brokers.messages("state.main")
        assert len(found) == count + 1 and sum(value is None for _, _, key, value in found if key == b"key:11") == 1
    registry.close()


def test_rows_are_put_behind_what_another_publisher_left_in_the_state_topic(tmp_path):
    """As one does that stood still, and goes on when another one has taken its place: its messages are older."""
    with Pair(tmp_path, topics=("state.main",), stateTopic="state.main") as both, both.home.client() as home:
        names = ("kept", "deleted", "quiet", "long")
        for name in names:
            home.set(name, b"old")
        both.home.await_figures(kafka_state_backlog=0, kafka_state_waiting=0)
        old = {key: (partition, value) for partition, _, key, value in both.brokers.messages("state.main")}
        home.set("kept", b"new")
        home.set("long", b"x" * 950_000)
        home.ask("delete deleted")
        both.home.await_figures(kafka_state_backlog=0, kafka_state_waiting=0)
        time.sleep(1.5)
        assert both.home.figures()["kafka_state_restored"] == 0, "its own messages are nobody else's"

        def table():
            rows = {key: value and decode(value)[0] for _, _, key, value in both.brokers.messages("state.main")}
            return {key: row and (row["value"], row["version"]) for key, row in rows.items()}

        wanted = table()
        assert wanted[b"kept"][0] == b"new" and wanted[b"deleted"] is None
        # Its value is too long for a message, but it is there.
        assert wanted[b"long"] == (None, int(home.ask("mg long c").removeprefix("HD c")))
        for name in names:
            partition, value = old[name.encode()]
            both.brokers.put(partition, value, name.encode(), "state.main")
        assert table() != wanted
        eventually(lambda: table() == wanted)
        # Nor does one that begins to publish leave them, where a newer message of another key stands behind.
        for number in range(300):
            home.set(f"fill:{number}", b"v")
        both.home.await_figures(kafka_state_backlog=0, kafka_state_waiting=0)
        both.home.stop()
        partition, value = old[b"kept"]
        last = next(message for message in both.brokers.messages("state.main") if message[0] == partition and message[2][:4] == b"fill")
        both.brokers.put(partition, value, b"kept", "state.main")
        both.brokers.put(partition, last[3], last[2], "state.main")
        assert table()[b"kept"] != wanted[b"kept"]
        both.home.start()
        eventually(lambda: table()[b"kept"] == wanted[b"kept"], 20)


def test_an_older_homes_states_are_put_right_and_newer_ones_end_both_outlets(tmp_path):
    """Another store's states say nothing of whose the stream is: its own topic does. A later epoch of this store does."""
    with Pair(tmp_path, topics=("state.main",), stateTopic="state.main", bound="30s") as both, both.home.client() as home:
        home.set("k", b"v")
        both.home.await_figures(kafka_state_backlog=0, kafka_state_waiting=0, kafka_backlog=0)
        partition, _, key, value = next(message for message in both.brokers.messages("state.main") if message[2] == b"k")

        def put(topic, key=key, partition=partition, **changed):
            stream = io.BytesIO()
            fastavro.schemaless_writer(stream, SCHEMA, {**decode(value)[0], **changed})
            both.brokers.put(partition, value[:10] + stream.getvalue(), key, topic)

        def last():
            return [decode(value)[0] for _, _, found, value in both.brokers.messages("state.main") if found == b"k"][-1]

        own = last()
        put("state.main", source="another", value=b"strange")
        eventually(lambda: last()["value"] == b"v", 20)
        assert last()["source"] == own["source"]
        put("state.main", epoch=own["epoch"] + 1, value=b"later")
        time.sleep(3)

        def counts():
            return [sum(found == b"k" for _, _, found, _ in both.brokers.messages(topic)) for topic in ("inv.main", "state.main")]

        before = counts()
        home.set("k", b"after")
        time.sleep(1.5)
        assert last()["value"] == b"later", "nothing is put behind that"
        assert counts() == before


def test_a_store_that_takes_the_stream_over_ends_the_state_outlet_too(tmp_path):
    with Pair(tmp_path, topics=("state.main",), stateTopic="state.main", bound="30s") as both, both.home.client() as home:
        home.set("k", b"v")
        both.home.await_figures(kafka_state_backlog=0, kafka_state_waiting=0, kafka_backlog=0)
        _, _, key, value = next(message for message in both.brokers.messages("state.main") if message[2] == b"k")
        stream = io.BytesIO()
        begun = {**decode(value)[0], "op": "EPOCH", "slot": 0, "source": "another", "key": b"", "value": None}
        fastavro.schemaless_writer(stream, SCHEMA, begun)
        both.brokers.put(0, value[:10] + stream.getvalue(), None, "inv.main")
        time.sleep(2)
        count = len(both.brokers.messages("state.main"))
        home.set("k", b"after")
        time.sleep(1.5)
        assert len(both.brokers.messages("state.main")) == count


def test_backlogs_are_those_of_the_moment(tmp_path):
    with Pair(tmp_path, topics=("state.main",), stateTopic="state.main") as both, both.home.client() as home:
        home.set("k", b"v")
        both.home.await_figures(kafka_published=1, kafka_state_published=1, kafka_backlog=0, kafka_state_backlog=0)
        both.brokers.slow(400)
        for number in range(4):
            home.set(f"key:{number}", b"v")
            found = both.home.figures()
            assert found["kafka_backlog"] >= 1 and found["kafka_state_backlog"] >= 1, (number, found)
        both.brokers.slow(0)
        both.home.await_figures(kafka_backlog=0, kafka_state_backlog=0)


def test_clients_of_a_replica_that_writes_at_home_see_their_own_writes(tmp_path):
    with Pair(tmp_path, repairs=True, backend="region") as both, both.home.client() as home, both.replica.client() as replica:
        for number in range(100):
            assert replica.set("k", b"%d" % number) == "STORED"
            assert replica.get("k") == b"%d" % number
        home.set("k", b"home")
        eventually(lambda: replica.get("k") == b"home")
        assert both.replica.figures()["gaps"] == 0


def test_one_of_the_nodes_that_share_a_database_publishes_and_another_takes_over(tmp_path):
    if not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")
    brokers = Brokers()
    stream = {"transport": "kafka", "lagBound": "5s", "kafka": {"brokers": brokers.addresses}}
    homes = []
    for name in ("first", "second"):
        node = RegionNode(
            tmp_path / name, "us-east", listed(), {**stream, "name": name}, backend="postgres", storage_instance=name)
        if homes:
            node.url = homes[0].url
        homes.append(node)
    replica = RegionNode(tmp_path / "replica", "eu-west", listed(), stream)
    try:
        for node in (*homes, replica):
            node.start()
        replica.await_figures(trusted="yes")

        def leaders():
            return [node for node in homes if node.server.process.poll() is None and node.figures()["kafka_leads"] == "yes"]

        time.sleep(3)
        eventually(lambda: len(leaders()) == 1)
        with homes[0].client() as one, homes[1].client() as two:
            for number in range(200):
                (one if number % 2 else two).set(f"key:{number}", b"1")
        (leader,) = leaders()
        leader.kill()
        (other,) = (node for node in homes if node is not leader)
        began = time.monotonic()
        other.await_figures(kafka_leads="yes", kafka_backlog=0)
        took = time.monotonic() - began
        with other.client() as client, replica.client() as reader:
            for number in range(200):
                client.set(f"key:{number}", b"2")
            reader.set("key:5", b"copy")
            client.set("key:5", b"3")
            eventually(lambda: reader.get("key:5") is None)
        replica.await_figures(trusted="yes")
        assert took < 8, took
        found = changes(brokers)
        assert len({(record["slot"], record["seq"]) for record in found}) == 401
        leader.start()
        time.sleep(4)
        eventually(lambda: len(leaders()) == 1)
        assert replica.figures()["epochs"] == 0
    finally:
        for node in (*homes, replica):
            node.stop()
        brokers.close()


def test_a_topic_of_too_few_partitions_is_named(tmp_path):
    pair = Pair(tmp_path, topic="narrow", waits=False)
    pair.brokers.ask("topic", "narrow", 16)
    with pair as both:
        wanted = "the topic narrow has 16 partitions; 64 are needed"
        both.home.await_figures(kafka_reason=wanted)
        found = both.replica.await_figures(reason=wanted)
        assert found["trusted"] == "no"
        with both.home.client() as home, both.replica.client() as replica:
            assert home.set("k", b"v") == "STORED", "writes are not held up"
            replica.set("k", b"copy")
            assert replica.get("k") is None, "a node that never joined the stream shows nothing"


def test_without_brokers_nodes_start_and_writes_go_on(tmp_path):
    with Pair(tmp_path, waits=False) as both:
        for number in (1, 2, 3):
            both.brokers.down(number)
        with both.home.client() as home:
            for number in range(500):
                assert home.set(f"key:{number}", b"v") == "STORED"
        both.home.await_figures(kafka_reason=lambda text: text)
        began = time.monotonic()
        both.home.restart(crash=False)
        assert time.monotonic() - began < 15
        for number in (1, 2, 3):
            both.brokers.up(number)
        both.replica.await_figures(trusted="yes", kafka_behind=0)
        both.home.await_figures(kafka_backlog=0, kafka_waiting=0)
        assert len({(record["slot"], record["seq"]) for record in changes(both.brokers)}) == 500


def document(region="eu-west", **settings):
    stream = {"transport": "kafka", "kafka": {"brokers": "127.0.0.1:9092", **settings}}
    return {"region": region, "regions": listed(), "stream": {name: value for name, value in stream.items() if value is not None}}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"brokers": ""}, "stream.kafka.brokers: missing"),
        ({"brokers": "kafka"}, '"kafka" is not valid; expected host:port'),
        ({"brokers": "kafka.example:9092"},
         "stream.kafka.security: plaintext; without TLS brokers are at loopback addresses only, not kafka.example"),
        ({"security": "tls"}, "expected one of plaintext, ssl, sasl_plaintext, sasl_ssl"),
        ({"security": "sasl_plaintext"}, "stream.kafka.username: missing"),
        ({"security": "sasl_ssl", "username": "u"}, "stream.kafka.password: missing"),
        ({"password": SECRET}, "stream.kafka.password: stream.kafka.security is plaintext"),
        ({"ca": "x.pem"}, "stream.kafka.ca: stream.kafka.security is plaintext"),
        ({"crl": "x.pem"}, "stream.kafka.crl: stream.kafka.security is plaintext"),
        ({"security": "ssl", "keyPassword": SECRET}, "stream.kafka.certificate: missing"),
        ({"mechanism": "GSSAPI"}, "expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ({"topic": "a b"}, 'stream.kafka.topic: "a b" is not valid'),
        ({"stateTopic": "inv.main"}, "stream.kafka.stateTopic: is the stream's own topic"),
        ({"clockSkew": "600ms"}, "expected a duration from 0 to 500ms"),
        ({"registry": "registry:8081"}, "stream.kafka.registry: not valid"),
        ({"registry": f"http://u:{SECRET.replace(' ', '')}@127.0.0.1:1"}, "stream.kafka.registry: not valid"),
        ({"registry": "http://r.example:1", "registryUsername": "u", "registryPassword": SECRET}, "goes over https only"),
        ({"registryCa": "x"}, "stream.kafka.registry: missing"),
        ({"registry": "https://r.example", "registryUsername": "u"}, "stream.kafka.registryPassword: missing"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_stops_the_start_and_names_what_is_wrong(tmp_path, settings, complaint):
    done = check(tmp_path, document(**settings))
    assert done.returncode != 0 and complaint in done.stderr, done.stderr
    assert SECRET not in done.stderr and SECRET.replace(" ", "") not in done.stderr


def check(directory, contents, *flags):
    (directory / "node.yaml").write_text(json.dumps(contents))
    return subprocess.run(
        [*default_command().split(), "--config", str(directory / "node.yaml"), "-l", "127.0.0.1", "-p", "0", *(flags or ("--check-config",))],
        capture_output=True, text=True, timeout=20)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "storage", "complaint"),
    [
        ({}, {"backend": "region", "standbyURL": "postgresql://127.0.0.1/x"}, None),
        ({"stateTopic": "state.main"}, {"backend": "region", "standbyURL": "postgresql://127.0.0.1/x"}, "stream.kafka.stateTopic: only the home"),
        ({}, {"backend": "postgres", "url": "postgresql://127.0.0.1/x"}, "stream.transport: kafka; regions that share one database"),
    ],
)  # fmt: skip
def test_regions_may_become_home_where_the_topic_says_all_of_it(tmp_path, settings, storage, complaint):
    contents = {**document(**settings), "storage": storage}
    for number, region in enumerate(contents["regions"], 1):
        region.update(serve=f"127.0.0.1:{number}", stream=f"127.0.0.1:{number + 2}")
    contents["stream"]["listen"] = "127.0.0.1:4"
    done = check(tmp_path, contents)
    if complaint:
        assert done.returncode != 0 and complaint in done.stderr, done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_settings_of_kafka_need_it_as_the_transport(tmp_path):
    contents = document()
    del contents["stream"]["transport"]
    done = check(tmp_path, contents)
    assert done.returncode != 0 and "stream.kafka.brokers: stream.transport is direct" in done.stderr


def test_secrets_are_not_shown_and_files_are_looked_at_before_the_start(tmp_path):
    secrets = {"security": "sasl_ssl", "username": "u", "password": SECRET, "certificate": "none.pem", "keyPassword": SECRET,
               "registry": "https://r.example", "registryUsername": "u", "registryPassword": SECRET}  # fmt: skip
    done = check(tmp_path, document(**secrets))
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout and done.stdout.count("(secret)") == 3
    started = check(tmp_path, document(**secrets), "-u", "root")
    assert started.returncode != 0 and "stream.kafka.certificate: none.pem: " in started.stderr, started.stderr
    assert SECRET not in started.stderr + started.stdout


def test_metrics_are_documented(tmp_path):
    with Pair(tmp_path, topics=("state.main",), stateTopic="state.main", admin=True) as both:
        shown = {}
        both.replica.await_figures(kafka_connected="yes")
        for node in (both.replica, both.home):
            found = exported(node.admin)[0].items()
            shown.update({name: row for name, row in found if name.startswith("martlet_stream_kafka_")})
        assert shown == {name: row for name, row in documented().items() if name.startswith("martlet_stream_kafka_")}
        page = both.replica.get("/metrics")[1]
        assert re.search(r"(?m)^martlet_stream_kafka_connected 1$", page) and re.search(r"(?m)^martlet_stream_trusted 1$", page)
        assert re.search(r'(?m)^martlet_stream_kafka_leads\{topic="inv.main"\} 1$', both.home.get("/metrics")[1])
