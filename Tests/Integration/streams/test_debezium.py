# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A Debezium connector's topic as an input: what it tells of a PostgreSQL's rows reaches the caches of both regions. The
events are written here as the connector writes them; the rows are changed by SQL, with nothing else to tell of it."""

import base64
import contextlib
import json
import time

import pytest

from documents.test_reference import documented, exported
from storage import database

from . import avro_events
from .brokers import Brokers
from .region import Relay, RegionNode, eventually
from .test_capture import row, sql, where
from .test_kafka import check, document, listed
from .test_writes import Fleet

pytestmark = pytest.mark.ours
TOPIC = "pg.public.martlet_kv"


class Connector:
    """Puts events into the topic. As Connect's JSON converter does, with a schema in every message or without, or, with a
    registry, as Confluent's AvroConverter."""

    def __init__(self, brokers, fleet, registry=None):
        self.brokers, self.fleet, self.has_schema, self.registry = brokers, fleet, False, registry
        self.held, self.envelope = None, avro_events.ENVELOPE

    def image(self, key):
        """A row as it is now; None where there is none."""
        text = sql(self.fleet, f"SELECT ver, exp, flags, del, encode(val, 'base64') FROM martlet_kv WHERE {where(key)}")
        if not text:
            return None
        version, expiry, flags, deleted, value = text.split("|")
        return {"k": base64.b64encode(key.encode()).decode(), "val": value, "del": deleted == "t",
                "ver": int(version), "exp": int(expiry), "flags": int(flags)}  # fmt: skip

    def put(self, operation, key, before=None, after=None, partition=0, snapshot="false", lsn=34_219_720):
        now = int(time.time() * 1000)
        source = {"version": "2.7.0.Final", "connector": "postgresql", "name": "pg", "ts_ms": now, "snapshot": snapshot,
                  "db": "cache", "schema": "public", "table": "martlet_kv", "txId": 771, "lsn": lsn, "xmin": None}  # fmt: skip
        event = {"before": before, "after": after, "source": source, "transaction": None, "op": operation, "ts_ms": now}
        name = {"k": base64.b64encode(key.encode()).decode()}
        if self.has_schema:
            event, name = ({"schema": {"type": "struct", "optional": False}, "payload": part} for part in (event, name))
        message = (json.dumps(name).encode(), json.dumps(event).encode())
        if self.registry:
            message = (self.avro_key(key), avro_events.event(self.registry.add(self.envelope), event))
        # Behind a deletion comes a tombstone.
        messages = [message, (message[0], None)] if operation == "d" else [message]
        if self.held is not None:
            self.held += messages
        else:
            self.brokers.put_all(partition, messages, TOPIC)

    def avro_key(self, key):
        return avro_events.framed(self.registry.add(avro_events.KEY), avro_events.write(avro_events.KEY, {"k": key.encode()}))

    @contextlib.contextmanager
    def together(self):
        """What is put meanwhile is put at its end, for a consumer to have at once."""
        self.held = []
        yield
        messages, self.held = self.held, None
        self.brokers.put_all(0, messages, TOPIC)

    def put_same(self, key, image, partition=0):
        """An update that left the version as it was, of a row that is like another one."""
        image = {**image, "k": base64.b64encode(key.encode()).decode()}
        self.put("u", key, image, image, partition)

    def run(self, key, statement):
        """Changes a row by SQL; gives what it was and is, for the event."""
        before = self.image(key)
        sql(self.fleet, statement)
        return before, self.image(key)

    def places(self):
        return sql(self.fleet, "SELECT count(*) FROM martlet_meta WHERE name LIKE 'input:%'")

    def flushes(self):
        """One that tells of everything is in each slot."""
        return int(sql(self.fleet, "SELECT count(*) FROM martlet_stream WHERE op = 19 AND slot = 63"))

    def records(self, key):
        """What was published of a key by what the events tell of: (operation, version), in order."""
        text = sql(self.fleet, f"SELECT op, ver FROM martlet_stream WHERE op >= 16 AND {where(key)} ORDER BY pub")
        return [tuple(int(part) for part in line.split("|")) for line in text.splitlines()]

    def readers(self):
        return sum(node.figures()["debezium_reads"] == "yes" for node in self.fleet.homes)

    def reader(self):
        return next((node for node in self.fleet.homes if node.figures()["debezium_reads"] == "yes"), None)


@pytest.fixture
def connector(tmp_path):
    brokers = Brokers((TOPIC,), partitions=3)
    fleet = Fleet(tmp_path, "postgres", home={"kafka": {"brokers": brokers.addresses, "debezium": TOPIC}}, replica={"mode": "replicate"})
    with fleet:
        found = Connector(brokers, fleet)
        eventually(found.reader)
        # Who begins to read gives up what was cached before.
        eventually(lambda: found.places() == "3" and found.flushes() > 0)
        # Without triggers nothing else tells of what SQL does.
        assert sql(fleet, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'martlet%'") == "0"
        yield found
    brokers.close()


def clients(connector):
    return [node.client() for node in (*connector.fleet.homes, connector.fleet.replica)]


def await_all(clients, key, value):
    for client in clients:
        eventually(lambda client=client: client.get(key) == value)


def await_copies(connector, clients, key, value, seconds=20):
    """Waits until every node answers from a copy that it keeps. Reads that the write's own record came between are not
    cached: those behind it are."""
    nodes = [*connector.fleet.homes, connector.fleet.replica]

    def are_kept():
        sent = [node.statistics()["reads_sent"] for node in nodes]
        time.sleep(0.4)
        found = {client.get(key) for client in clients}
        return found == {value} and sent == [node.statistics()["reads_sent"] for node in nodes]

    eventually(are_kept, seconds)


def test_each_kind_of_event_drops_what_is_cached(connector):
    everybody = clients(connector)
    for has_schema in (False, True):
        connector.has_schema = has_schema
        assert everybody[0].set("k", b"cached") == "STORED"
        await_copies(connector, everybody, "k", b"cached")
        assert everybody[0].get("new") is everybody[1].get("new") is everybody[2].get("new") is None
        before, after = connector.run("k", f"UPDATE martlet_kv SET val = 'raw' WHERE {where('k')}")
        assert before["ver"] == after["ver"], "nobody saw to the version"
        time.sleep(0.3)
        assert {client.get("k") for client in everybody} == {b"cached"}, "nobody has told the caches yet"
        connector.put("u", "k", before, after)
        await_all(everybody, "k", b"raw")
        # Without what it was before, it may be anything.
        _, after = connector.run("k", f"UPDATE martlet_kv SET val = 'more' WHERE {where('k')}")
        connector.put("u", "k", None, after)
        await_all(everybody, "k", b"more")
        _, after = connector.run("new", "INSERT INTO martlet_kv (k, val, ver, exp, flags, del) "
                                 f"VALUES ({row('new', 'made')}, 1, 0, 0, false)")  # fmt: skip
        connector.put("c", "new", None, after)
        await_all(everybody, "new", b"made")
        before, _ = connector.run("new", f"DELETE FROM martlet_kv WHERE {where('new')}")
        connector.put("d", "new", before)
        await_all(everybody, "new", None)
    sql(connector.fleet, "TRUNCATE martlet_kv")
    connector.put("t", "k")
    await_all(everybody, "k", None)
    found = connector.reader().figures()
    assert found["debezium_damaged"] == 0 and found["debezium_behind"] == 0 and found["debezium_topic"] == TOPIC
    for client in everybody:
        client.close()


def test_what_the_nodes_wrote_themselves_leaves_their_copies(connector):
    replica = connector.fleet.replica
    with connector.fleet.home.client() as home, replica.client() as reader:
        home.set("other", b"1")
        home.set("k", b"1")
        eventually(lambda: reader.get("k") == b"1")
        before = connector.image("k")
        home.set("k", b"2")
        eventually(lambda: reader.get("k") == b"2")
        replica.await_figures(records=lambda count: count >= 3, backlog=0)
        await_copies(connector, [home, reader], "k", b"2")
        found = replica.figures()
        connector.put("c", "k", None, before)
        replica.await_figures(records=found["records"] + 1, backlog=0)
        connector.put("u", "k", before, connector.image("k"))
        replica.await_figures(records=found["records"] + 2, backlog=0)
        # Behind all of them, so that nothing of theirs is still to come.
        image = connector.image("other")
        connector.put("u", "other", image, image)
        after = replica.await_figures(records=found["records"] + 3, backlog=0)
        assert after["kept"] == found["kept"] + 2 and after["dropped"] == found["dropped"]


def test_what_cannot_be_understood_is_counted_and_passed_over(connector):
    with connector.fleet.home.client() as home:
        home.set("k", b"old")
        for odd in (b"", b"\0\0\0\x12", b"{", b"[1]", b'{"op":"u","after":{"k":7}}', b'{"op":"x"}', b"\xff" * 1000):
            connector.brokers.put(1, odd or b" ", topic=TOPIC)
        connector.put("u", "k", *connector.run("k", f"UPDATE martlet_kv SET val = 'new' WHERE {where('k')}"))
        eventually(lambda: home.get("k") == b"new")
        eventually(lambda: sum(node.figures()["debezium_damaged"] for node in connector.fleet.homes) >= 7)
        assert any("a message cannot be understood" in node.server.output() for node in connector.fleet.homes)


def test_whoever_reads_next_goes_on_where_the_last_one_was(connector):
    count = 0
    everything = "SELECT count(*) FROM martlet_stream WHERE op = 16"
    with connector.fleet.homes[1].client() as client:
        client.set("k", b"v")
        image = connector.image("k")
        for turn in range(3):
            for number in range(40):
                connector.put_same(f"key:{turn}:{number}", image)
            count += 40
            if turn == 0:
                eventually(lambda: int(sql(connector.fleet, everything)) >= 20)
                # The one that reads, perhaps in the middle of it; the other one takes over.
                eventually(connector.reader).kill()
            elif turn == 1:
                for node in connector.fleet.homes:
                    node.stop()
            eventually(lambda: int(sql(connector.fleet, everything)) >= count or turn == 1, 20)
            for node in connector.fleet.homes:
                if node.server is None or node.server.process.poll() is not None:
                    node.start()
        eventually(lambda: int(sql(connector.fleet, everything)) >= count, 20)
        time.sleep(0.5)
        assert int(sql(connector.fleet, everything)) == count, "none is left out, and none comes twice"


def test_messages_that_are_gone_empty_the_caches(connector):
    everybody = clients(connector)
    everybody[0].set("k", b"old")
    await_copies(connector, everybody, "k", b"old")
    for client in everybody:
        client.close()
    flushes = connector.flushes()
    for node in connector.fleet.homes:
        node.stop()
    # As where the topic was made anew, or kept for less time than everybody was away.
    sql(connector.fleet, "UPDATE martlet_meta SET number = 1000000 WHERE name LIKE 'input:%:0'")
    sql(connector.fleet, f"UPDATE martlet_kv SET val = 'new' WHERE {where('k')}")
    for node in connector.fleet.homes:
        node.start()
    with connector.fleet.replica.client() as client:
        eventually(lambda: client.get("k") == b"new", 20)
    eventually(lambda: sum(node.figures()["debezium_overruns"] for node in connector.fleet.homes) == 1)
    assert connector.flushes() == flushes + 1


def test_what_is_passed_over_at_the_first_start_empties_the_caches(tmp_path):
    brokers = Brokers(())
    # Whoever finds nothing there does not hear of the brokers' own addresses.
    way = Relay(int(brokers.addresses.split(",")[0].rsplit(":", 1)[1]))
    way.cut()
    kafka = {"brokers": f"127.0.0.1:{way.port}", "debezium": TOPIC}
    with Fleet(tmp_path, "postgres", home={"kafka": kafka}, replica={"mode": "replicate"}) as fleet:
        connector = Connector(brokers, fleet)
        everybody = clients(connector)
        everybody[0].set("k", b"old")
        await_copies(connector, everybody, "k", b"old")
        # The first change makes the topic, and is in it before anybody reads.
        brokers.ask("topic", TOPIC, 3)
        connector.put("u", "k", *connector.run("k", f"UPDATE martlet_kv SET val = 'new' WHERE {where('k')}"))
        assert connector.places() == "0"
        way.heal()
        eventually(lambda: connector.places() == "3", 30)
        await_all(everybody, "k", b"new")
        assert connector.records("k") == [], "passed over"
        for client in everybody:
            client.close()
    way.close()
    brokers.close()


def test_a_partition_that_was_added_is_read_from_its_start(connector):
    with connector.fleet.home.client() as home:
        home.set("k", b"v")
    image, flushes = connector.image("k"), connector.flushes()
    for node in connector.fleet.homes:
        node.stop()
    # As where there were two when they were looked at last.
    sql(connector.fleet, "DELETE FROM martlet_meta WHERE name LIKE 'input:%:2'")
    for number in range(5):
        connector.put_same(f"key:{number}", image, partition=2)
    for node in connector.fleet.homes:
        node.start()
    eventually(lambda: all(connector.records(f"key:{number}") for number in range(5)), 20)
    assert connector.flushes() == flushes


def test_a_row_that_is_made_again_is_not_published_as_gone(connector):
    with connector.fleet.home.client() as home:
        home.set("k", b"v")
    # They are taken together; the new row's version is lower by far.
    with connector.together():
        before, _ = connector.run("k", f"DELETE FROM martlet_kv WHERE {where('k')}")
        connector.put("d", "k", before)
        made = f"INSERT INTO martlet_kv (k, val, ver, exp, flags, del) VALUES ({row('k', 'x')}, 1, 0, 0, false)"
        connector.put("c", "k", None, connector.run("k", made)[1])
    found = eventually(lambda: connector.records("k"), 20)
    assert found == [(16, 1)], "the last one alone"
    with connector.fleet.replica.client() as client:
        eventually(lambda: client.get("k") == b"x")


def test_what_other_programs_did_is_published_in_its_order(connector):
    """Two batches that wait in the outbox together, as behind a long backlog: a row was deleted, and made again with a lower
    version. What a node wrote between is where its version says."""
    with connector.fleet.home.client() as home:
        home.set("k", b"v")
        home.set("other", b"v")
    version = connector.image("k")["ver"]
    for node in connector.fleet.homes:
        node.stop()
    records = [(17, -1, "k", version + 1), (0, 0, "other", version + 9), (0, -1, "k", version - 5), (16, -1, "other", version + 7),
               (16, -1, "k", version - 9)]  # fmt: skip
    rows = ", ".join(f"({op}, {pool}, -1, decode('{key.encode().hex()}', 'hex'), {ver}, 0, 0)" for op, pool, key, ver in records)
    before = int(sql(connector.fleet, "SELECT coalesce(max(pub), 0) FROM martlet_stream"))
    sql(connector.fleet, f"INSERT INTO martlet_outbox (op, pool, slot, k, ver, exp, ts) VALUES {rows}")
    for node in connector.fleet.homes:
        node.start()

    def published(key):
        text = sql(connector.fleet, f"SELECT op, ver FROM martlet_stream WHERE pub > {before} AND {where(key)} ORDER BY pub")
        return [tuple(int(part) for part in line.split("|")) for line in text.splitlines()]

    eventually(lambda: len(published("k")) == 3 and len(published("other")) == 2, 20)
    assert published("k") == [(17, version + 1), (0, version - 5), (16, version - 9)], "the last state is the last one"
    assert published("other") == [(16, version + 7), (0, version + 9)]


def test_a_row_that_is_made_again_later_is_seen_with_its_lower_version(connector):
    everybody = clients(connector)
    everybody[0].set("k", b"v")
    await_copies(connector, everybody, "k", b"v")
    # Each by itself: the one is published before the other comes. Its version is one that a node may have given.
    before, _ = connector.run("k", f"DELETE FROM martlet_kv WHERE {where('k')}")
    connector.put("d", "k", before)
    await_all(everybody, "k", None)
    lower = before["ver"] - 1000
    made = f"INSERT INTO martlet_kv (k, val, ver, exp, flags, del) VALUES ({row('k', 'x')}, {lower}, 0, 0, false)"
    connector.put("c", "k", None, connector.run("k", made)[1])
    await_all(everybody, "k", b"x")
    before, after = connector.run("k", f"UPDATE martlet_kv SET val = 'y', ver = ver + 1 WHERE {where('k')}")
    connector.put("u", "k", before, after)
    await_all(everybody, "k", b"y")
    assert connector.records("k")[-1][0] == 17, "what has a version that grew acts on older copies only"
    for client in everybody:
        client.close()


def test_a_snapshot_gives_up_what_was_cached_before_it(connector):
    """As behind a slot that was lost: rows were changed and deleted, and nothing tells of it but the rows that are there."""
    everybody = clients(connector)
    for key in ("changed", "deleted", "same"):
        everybody[0].set(key, b"old")
        await_copies(connector, everybody, key, b"old")
    sql(connector.fleet, f"UPDATE martlet_kv SET val = 'new' WHERE {where('changed')}")
    sql(connector.fleet, f"DELETE FROM martlet_kv WHERE {where('deleted')}")
    time.sleep(0.3)
    assert all(client.get("changed") == client.get("deleted") == b"old" for client in everybody), "nobody has told them"
    flushes = connector.flushes()
    for number, (key, snapshot) in enumerate((("changed", "first"), ("same", "last"))):
        connector.put("r", key, None, connector.image(key), partition=number, snapshot=snapshot, lsn=77)
    await_all(everybody, "changed", b"new")
    await_all(everybody, "deleted", None)
    # The rows are still there: what is read is cached again, at once, and not only when a removal of them is forgotten.
    await_copies(connector, everybody, "same", b"old", 5)
    assert connector.flushes() == flushes + 1, "once for the snapshot, however many rows and partitions"
    assert connector.records("changed") == connector.records("same") == []
    # Both may have read it; one of them took it.
    assert sum(node.figures()["debezium_snapshots"] for node in connector.fleet.homes) in (1, 2)
    # Another one, later.
    connector.put("r", "same", None, connector.image("same"), snapshot="true", lsn=99)
    eventually(lambda: connector.flushes() == flushes + 2)
    # Two whose rows come in turn, as of several partitions. Another node may have read them as well.
    before = [node.figures()["debezium_snapshots"] for node in connector.fleet.homes]
    with connector.together():
        for lsn in (101, 102) * 5:
            connector.put("r", "same", None, connector.image("same"), snapshot="true", lsn=lsn)

    def grown():
        now = [node.figures()["debezium_snapshots"] for node in connector.fleet.homes]
        return max(after - one for after, one in zip(now, before, strict=True))

    eventually(lambda: grown() >= 2)
    eventually(lambda: all(node.figures()["debezium_behind"] == 0 for node in connector.fleet.homes))
    assert grown() == 2
    # Read in one go, they are one removal.
    assert connector.flushes() - flushes in (3, 4)
    for client in everybody:
        client.close()


def test_rows_that_are_read_again_act_on_any_copy(connector):
    """An incremental snapshot, which somebody asked for while changes go on: newer copies than the row go too, and no others."""
    everybody = clients(connector)
    for key in ("k", "other"):
        everybody[0].set(key, b"old")
        await_copies(connector, everybody, key, b"old")
    sql(connector.fleet, f"UPDATE martlet_kv SET val = 'new', ver = ver - 1000 WHERE {where('k')}")
    flushes = connector.flushes()
    connector.put("r", "k", None, connector.image("k"), snapshot="incremental")
    await_all(everybody, "k", b"new")
    assert connector.flushes() == flushes and connector.records("other") == []
    for client in everybody:
        client.close()


def test_a_row_with_the_least_number_holds_nothing_up(connector):
    everybody = clients(connector)
    everybody[0].set("k", b"v")
    everybody[0].set("next", b"old")
    for key, value in (("k", b"v"), ("next", b"old")):
        await_all(everybody, key, value)
    least = f"UPDATE martlet_kv SET exp = {1 - (1 << 63)} - 1 WHERE {where('k')}"
    connector.put("u", "k", *connector.run("k", least))
    connector.put("u", "next", *connector.run("next", f"UPDATE martlet_kv SET val = 'new' WHERE {where('next')}"))
    await_all(everybody, "k", None)
    await_all(everybody, "next", b"new")
    for client in everybody:
        client.close()


def test_one_node_reads_as_long_as_something_comes(connector):
    with connector.fleet.home.client() as home:
        home.set("k", b"v")
    image, number, end = connector.image("k"), 0, time.monotonic() + 12
    connector.put("u", "k", image, image)
    eventually(lambda: connector.records("k"))
    # Both may have looked for it: one of them stands by from then on.
    time.sleep(1)
    eventually(lambda: connector.readers() == 1)
    first = connector.reader()
    while time.monotonic() < end:
        for partition in range(3):
            connector.put_same(f"key:{number}", image, partition)
            number += 1
        for _ in range(10):
            assert connector.readers() == 1 and connector.reader() is first
            time.sleep(0.05)
    eventually(lambda: int(sql(connector.fleet, "SELECT count(*) FROM martlet_stream WHERE op = 16")) == number + 1)


def test_brokers_that_are_away_hold_nothing_else_up(connector):
    for number in (1, 2, 3):
        connector.brokers.down(number)
    with connector.fleet.home.client() as home, connector.fleet.replica.client() as replica:
        home.set("k", b"1")
        eventually(lambda: replica.get("k") == b"1")
        before, after = connector.run("k", f"UPDATE martlet_kv SET val = 'raw' WHERE {where('k')}")
        for number in (1, 2, 3):
            connector.brokers.up(number)
        connector.put("u", "k", before, after)
        eventually(lambda: replica.get("k") == b"raw" and home.get("k") == b"raw", 20)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"storage": {"backend": "rocksdb", "path": "rows"}}, "stream.kafka.debezium: storage.backend is rocksdb"),
        ({"topic": "x"}, "stream.kafka.topic: stream.transport is direct"),
        ({"clockSkew": "100ms"}, "stream.kafka.clockSkew: stream.transport is direct"),
        ({"registry": "registry:1"}, "stream.kafka.registry: not valid"),
        ({"debezium": "a b"}, 'stream.kafka.debezium: "a b" is not valid'),
        ({"brokers": "b.example:9092"}, "without TLS brokers are at loopback addresses"),
        ({"transport": "kafka", "debezium": "inv.main"}, "stream.kafka.debezium: is a topic of the stream's own"),
        ({"regions": True}, "the connector does not hear of another home"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_stops_the_start(tmp_path, changes, complaint):
    contents = document(debezium=TOPIC)
    contents.update(region="us-east", storage={"backend": "postgres", "url": "postgresql://127.0.0.1/x"})
    del contents["stream"]["transport"]
    for name, value in changes.items():
        if name == "storage":
            contents["storage"] = value
        elif name == "regions":
            for region in contents["regions"]:
                region["stream"] = "127.0.0.1:1"
        elif name == "transport":
            contents["stream"]["transport"] = value
        else:
            contents["stream"]["kafka"][name] = value
    done = check(tmp_path, contents)
    assert done.returncode != 0 and complaint in done.stderr, done.stderr


def test_metrics_are_documented(tmp_path):
    if not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")
    brokers = Brokers((TOPIC,), partitions=1)
    kafka = {"brokers": brokers.addresses, "debezium": TOPIC}
    with RegionNode(tmp_path / "home", "us-east", listed(), {"kafka": kafka}, backend="postgres", admin=True) as node:
        shown = {name: row for name, row in exported(node.admin)[0].items() if name.startswith("martlet_stream_debezium_")}
        assert shown and shown == {
            name: row for name, row in documented().items() if name.startswith("martlet_stream_debezium_")}  # fmt: skip
    brokers.close()
