# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A Debezium connector's topic in Avro, behind a schema registry's frame: what it tells, and what becomes of it while the
registry is away, or has nothing of use. The messages are written by fastavro."""

import json
import random
import subprocess
import sys

import pytest

from documents.blocks import ROOT

from . import avro_events
from .brokers import Brokers
from .region import eventually
from .registry import Registry
from .test_capture import row, sql, where
from .test_debezium import TOPIC, Connector, await_all, await_copies, clients
from .test_writes import Fleet

pytestmark = pytest.mark.ours
SECRET = "a p%/w:d"


def make(tmp_path, brokers, registry, **more):
    settings = {"brokers": brokers.addresses, "debezium": TOPIC, **({"registry": registry.url} if registry else {}), **more}
    return Fleet(tmp_path, "postgres", home={"kafka": settings}, replica={"mode": "replicate"})


@pytest.fixture
def connector(tmp_path):
    brokers, registry = Brokers((TOPIC,), partitions=3), Registry()
    with make(tmp_path, brokers, registry) as fleet:
        found = Connector(brokers, fleet, registry)
        eventually(lambda: found.places() == "3" and found.flushes() > 0)
        yield found
    brokers.close()
    registry.close()


def total(connector, name):
    return sum(node.figures()[name] for node in connector.fleet.homes)


def test_the_fixtures_are_those_of_the_library():
    done = subprocess.run([sys.executable, ROOT / "Scripts/make-avro-fixtures", "--check"], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_each_kind_of_event_drops_what_is_cached(connector):
    everybody = clients(connector)
    everybody[0].set("k", b"cached")
    await_copies(connector, everybody, "k", b"cached")
    connector.put("u", "k", *connector.run("k", f"UPDATE martlet_kv SET val = 'raw' WHERE {where('k')}"))
    await_all(everybody, "k", b"raw")
    made = f"INSERT INTO martlet_kv (k, val, ver, exp, flags, del) VALUES ({row('new', 'made')}, 1, 0, 0, false)"
    connector.put("c", "new", None, connector.run("new", made)[1])
    await_all(everybody, "new", b"made")
    connector.put("d", "new", connector.run("new", f"DELETE FROM martlet_kv WHERE {where('new')}")[0])
    await_all(everybody, "new", None)
    # Keys of one kind and values of the other, and a message of a program's in between.
    everybody[0].set("mixed", b"v")
    await_copies(connector, everybody, "mixed", b"v")
    sql(connector.fleet, f"DELETE FROM martlet_kv WHERE {where('mixed')}")
    message = {"op": "m", "ts_ms": 1, "message": {"prefix": "p", "content": b"c"}, "source": {
        "version": "2", "connector": "postgresql", "name": "pg", "ts_ms": 1, "snapshot": "false", "db": "d", "schema": "", "table": ""}}  # fmt: skip
    number = connector.registry.add(avro_events.MESSAGE)
    connector.brokers.put(0, avro_events.framed(number, avro_events.write(avro_events.MESSAGE, message)), topic=TOPIC)
    connector.brokers.put(0, b'{"op":"d","before":null,"ts_ms":1}', connector.avro_key("mixed"), topic=TOPIC)
    await_all(everybody, "mixed", None)
    sql(connector.fleet, "TRUNCATE martlet_kv")
    connector.put("t", "k")
    await_all(everybody, "k", None)
    assert total(connector, "debezium_damaged") == 0
    # Each node that reads asks once for each of the three.
    assert connector.registry.requests <= 6
    for client in everybody:
        client.close()


def test_what_the_nodes_wrote_themselves_leaves_their_copies(connector):
    replica = connector.fleet.replica
    with connector.fleet.home.client() as home, replica.client() as reader:
        home.set("k", b"1")
        before = connector.image("k")
        home.set("k", b"2")
        eventually(lambda: reader.get("k") == b"2")
        replica.await_figures(records=lambda count: count >= 2, backlog=0)
        await_copies(connector, [home, reader], "k", b"2")
        found = replica.figures()
        connector.put("u", "k", before, connector.image("k"))
        after = replica.await_figures(records=found["records"] + 1, backlog=0)
        assert after["kept"] == found["kept"] + 1 and after["dropped"] == found["dropped"]


@pytest.mark.parametrize("troubles", [("away",), ("refusing", "closed", "unknown", "broken")], ids="-".join)
def test_without_the_registry_this_input_waits_and_nothing_else(tmp_path, troubles):
    brokers, registry = Brokers((TOPIC,), partitions=1), Registry(login=("martlet", SECRET))
    login = {"registryUsername": "martlet", "registryPassword": SECRET}
    with make(tmp_path, brokers, registry, **login) as fleet:
        connector = Connector(brokers, fleet, registry)
        eventually(lambda: connector.places() == "1" and connector.flushes() > 0)
        everybody = clients(connector)
        for number, trouble in enumerate(troubles):
            registry = wait_out(connector, everybody, trouble, number)
        assert total(connector, "debezium_damaged") == 0
        assert all(SECRET not in node.server.output() for node in fleet.homes)
        for client in everybody:
            client.close()
    registry.close()
    brokers.close()


def wait_out(connector, everybody, trouble, number):
    """Has a registry not tell a schema, and tell it later; gives the registry that is there then."""
    fleet, registry, key = connector.fleet, connector.registry, f"key:{trouble}"
    everybody[0].set(key, b"old")
    await_copies(connector, everybody, key, b"old")
    before, after = connector.run(key, f"UPDATE martlet_kv SET val = 'raw' WHERE {where(key)}")
    # Another schema each time, as a node keeps those that it was told.
    connector.envelope = json.dumps(avro_events.ENVELOPE) + " " * number
    # Of one batch: what comes before is taken, as JSON needs no registry.
    with connector.together():
        connector.registry = None
        connector.put_same(f"first:{trouble}", after)
        connector.registry = registry
        connector.put("u", key, before, after)
        schemas = registry.schemas
        if trouble == "away":
            registry.close()
        elif trouble == "refusing":
            registry.refusal = 503
        elif trouble == "closed":
            registry.login = ("martlet", "another")
        elif trouble == "unknown":
            registry.schemas = []
        else:
            registry.answer = lambda *_: (200, {"message": "log in here"})
    wanted = {"away": "onnect", "refusing": "answers 503", "closed": "registryUsername", "broken": "has no schema",
              "unknown": f"nothing at /schemas/ids/{4710 + len(schemas)}"}[trouble]  # fmt: skip
    node = eventually(lambda: next((one for one in fleet.homes if wanted in one.figures().get("debezium_reason", "")), None), 20)
    eventually(lambda: connector.records(f"first:{trouble}"))
    # Invalidation by the outbox goes on.
    for value in (b"1", b"2"):
        everybody[0].set("other", value)
        await_all(everybody, "other", value)
    eventually(lambda: node.figures()["debezium_stalled_seconds"] >= 1)
    figures = node.figures()
    assert figures["debezium_reads"] == "no" and figures["debezium_schema_failures"] > 0
    assert connector.records(key) == [] and "nothing is read" in node.server.output()
    if trouble == "away":
        registry = connector.registry = Registry(registry.port, login=("martlet", SECRET))
    registry.schemas, registry.refusal, registry.login = schemas, None, ("martlet", SECRET)
    vars(registry).pop("answer", None)
    await_all(everybody, key, b"raw")
    assert len(connector.records(key)) == len(connector.records(f"first:{trouble}")) == 1, "once, whoever of both read it"
    eventually(lambda: any(
        (one.figures()["debezium_reads"], one.figures()["debezium_stalled_seconds"], one.figures()["debezium_behind"])
        == ("yes", 0, 0) for one in fleet.homes), 20)  # fmt: skip
    return registry


def test_a_message_that_somebody_passes_over_is_waited_for_no_longer(connector):
    reader = eventually(connector.reader)
    for node in connector.fleet.homes:
        if node is not reader:
            node.stop()
    with reader.client() as home:
        home.set("k", b"old")
        eventually(lambda: home.get("k") == b"old")
        connector.brokers.put(0, avro_events.framed(99_999, b"\0"), topic=TOPIC)
        connector.put("u", "k", *connector.run("k", f"UPDATE martlet_kv SET val = 'new' WHERE {where('k')}"))
        eventually(lambda: "nothing at /schemas/ids/99999" in reader.figures().get("debezium_reason", ""), 20)
        assert connector.records("k") == []
        sql(connector.fleet, "UPDATE martlet_meta SET number = number + 1 WHERE name LIKE 'input:%:0'")
        eventually(lambda: home.get("k") == b"new", 20)
        assert len(connector.records("k")) == 1


def test_without_the_setting_of_a_registry_it_is_named(tmp_path):
    brokers, registry = Brokers((TOPIC,), partitions=1), Registry()
    with make(tmp_path, brokers, None) as fleet:
        connector = Connector(brokers, fleet, registry)
        eventually(lambda: connector.places() == "1" and connector.flushes() > 0)
        with fleet.home.client() as home:
            home.set("k", b"old")
            connector.put("u", "k", *connector.run("k", f"UPDATE martlet_kv SET val = 'raw' WHERE {where('k')}"))
            wanted = "set stream.kafka.registry"
            eventually(lambda: any(wanted in one.figures().get("debezium_reason", "") for one in fleet.homes))
            assert connector.records("k") == [] and home.get("k") == b"old"
            # What waited is taken once it can be read.
            for node in fleet.homes:
                node.stop()
                kafka = {"brokers": brokers.addresses, "debezium": TOPIC, "registry": registry.url}
                node.rewrite(stream={**node.document["stream"], "kafka": kafka})
                node.start()
        with fleet.home.client() as home:
            eventually(lambda: connector.records("k"), 20)
            eventually(lambda: home.get("k") == b"raw")
    registry.close()
    brokers.close()


def test_what_cannot_be_understood_is_counted_and_passed_over(connector):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    good = connector.registry.add(avro_events.ENVELOPE)
    endless = {"type": "record", "name": "R", "fields": [{"name": "op", "type": "R"}]}
    refused = [connector.registry.add("{}", "PROTOBUF"), connector.registry.add("[" * 5000), connector.registry.add(endless)]
    with connector.fleet.home.client() as home:
        home.set("k", b"old")
        odd = [avro_events.framed(number, b"\0" * 20) for number in refused]
        odd += [avro_events.framed(good, b""), avro_events.framed(good, b"\xff" * 200), b"\0\0", avro_events.framed(good, b"\2" * 300)]
        # What follows a row's beginning is anything.
        odd += [avro_events.framed(good, b"\0\2" + chance.randbytes(chance.randrange(200)) + b"\xff" * 12) for _ in range(200)]
        connector.brokers.put_all(1, [(None, one) for one in odd], TOPIC)
        connector.put("u", "k", *connector.run("k", f"UPDATE martlet_kv SET val = 'new' WHERE {where('k')}"), partition=1)
        print("seed", seed)
        eventually(lambda: home.get("k") == b"new", 20)
        eventually(lambda: total(connector, "debezium_damaged") >= len(odd))
        said = "".join(node.server.output() for node in connector.fleet.homes)
        assert f"the schema {refused[0]}: it is of the type PROTOBUF" in said, seed
        # What is of no use is asked for once, too: by each node that reads, each of the four.
        assert connector.registry.requests <= 8, seed
