# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What other programs do to PostgreSQL's rows reaches the caches of both regions."""

import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from bed import default_command
from documents.blocks import ROOT
from storage import database

from .region import Consumer, eventually
from .test_writes import Fleet

pytestmark = pytest.mark.ours


def initialise(url, *options):
    program = str(Path(default_command().split()[0]).with_name("martletctl"))
    return subprocess.run(
        [program, "storage", "init", *options], capture_output=True, text=True, timeout=60, check=False,
        env={"MARTLET_STORAGE_URL": url, "PATH": "/usr/bin"})  # fmt: skip


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path, "postgres", replica={"mode": "replicate"})
    assert initialise(fleet.home.url, "--capture=on").returncode == 0
    with fleet:
        yield fleet


def row(key, value):
    return f"decode('{key.encode().hex()}', 'hex'), decode('{value.encode().hex()}', 'hex')"


def where(key):
    return f"k = decode('{key.encode().hex()}', 'hex')"


def sql(fleet, text):
    return database.shared().sql(text, fleet.home.name)


def test_each_statement_drops_what_is_cached(fleet):
    clients = [node.client() for node in (*fleet.homes, fleet.replica)]

    def all_see(key, value):
        for client in clients:
            eventually(lambda client=client: client.get(key) == value)

    for number in range(5):
        assert clients[2].set(f"key:{number}", b"cached") == "STORED"
    assert clients[0].get("absent") is clients[1].get("absent") is clients[2].get("absent") is None
    for number in range(5):
        all_see(f"key:{number}", b"cached")
    versions = [client.ask("mg key:0 c") for client in clients]
    assert len(set(versions)) == 1
    old = versions[0].split("c")[1]
    sql(fleet, f"UPDATE martlet_kv SET val = 'raw' WHERE {where('key:0')}")
    all_see("key:0", b"raw")
    for client in clients:
        assert client.ask(f"ms key:0 1 C{old}\r\nx") == "EX", "a compare with the version from before fails"
        assert int(client.ask("mg key:0 c").split("c")[1]) > int(old)
    sql(fleet, f"INSERT INTO martlet_kv (k, val) VALUES ({row('absent', 'made')})")
    all_see("absent", b"made")
    sql(fleet, f"DELETE FROM martlet_kv WHERE {where('key:1')}")
    all_see("key:1", None)
    sql(fleet, f"UPDATE martlet_kv SET del = true WHERE {where('key:2')}")
    all_see("key:2", None)
    sql(fleet, f"UPDATE martlet_kv SET k = decode('{b'moved'.hex()}', 'hex') WHERE {where('key:3')}")
    all_see("key:3", None)
    all_see("moved", b"cached")
    all_see("key:4", b"cached")
    # In a transaction that is given up nothing has happened.
    sql(fleet, f"BEGIN; UPDATE martlet_kv SET val = 'never' WHERE {where('key:4')}; ROLLBACK")
    sql(fleet, "TRUNCATE martlet_kv")
    all_see("key:4", None)
    assert clients[2].set("key:4", b"again") == "STORED"
    all_see("key:4", b"again")
    for client in clients:
        client.close()


def test_what_removes_all_rows_is_told_in_each_slot(fleet):
    """Slots are not ordered among each other, and are lost each by itself: in each it is behind what was there before."""
    with fleet.replica.client() as client:
        assert client.set("k", b"v") == "STORED"
        sql(fleet, "TRUNCATE martlet_kv")
        eventually(lambda: client.get("k") is None)
    found = sql(fleet, "SELECT count(*), count(DISTINCT slot), count(DISTINCT ver) FROM martlet_stream WHERE op = 19")
    assert found == "64|64|1"


def test_the_runbooks_statement_empties_the_caches(fleet):
    page = (ROOT / "docs/runbooks/debezium-connector.md").read_text()
    statement = page.split("```sql\n")[2].split("```")[0]
    with fleet.replica.client() as client:
        assert client.set("k", b"v") == "STORED" and client.get("k") == b"v"
        before = sql(fleet, f"SELECT ver FROM martlet_kv WHERE {where('k')}")
        sql(fleet, f"BEGIN; SET martlet.writer = 'node'; DELETE FROM martlet_kv; COMMIT; {statement}")
        eventually(lambda: client.get("k") is None)
    assert before and sql(fleet, "SELECT count(DISTINCT slot) FROM martlet_stream WHERE op = 19") == "64"


def test_records_tell_that_they_are_of_another_program(fleet):
    consumer = Consumer(fleet.stream.target, values=True)
    _, (source, _, start) = consumer.welcome()
    consumer.grant()
    with fleet.home.client() as home:
        home.set("ours", b"v")
        sql(fleet, f"INSERT INTO martlet_kv (k, val) VALUES ({row('theirs', 'v')})")
        found = {}

        def both():
            for record in consumer.records(len(found) + 1)[0]:
                found[b"theirs" if b"theirs" in record else b"ours"] = record
            return len(found) == 2

        eventually(both)
    assert b"cdc" in found[b"theirs"] and b"cdc" not in found[b"ours"] and b"write" in found[b"ours"]
    consumer.close()


def test_many_changes_around_the_cache_are_soon_seen(fleet):
    """Five hundred statements a second, while clients of both regions read: a second after the last, all is as it is."""
    chance = random.Random(3)
    keys = [f"key:{number}" for number in range(60)]
    with fleet.replica.client() as replica, fleet.home.client() as home:
        for key in keys:
            assert replica.set(key, b"0") == "STORED"
        for turn in range(6):
            statements = []
            for number in range(120):
                key, value = chance.choice(keys), f"{turn}.{number}"
                statements.append(chance.choice([
                    f"UPDATE martlet_kv SET val = '{value}' WHERE {where(key)}",
                    f"INSERT INTO martlet_kv (k, val) VALUES ({row(key, value)}) ON CONFLICT (k) DO UPDATE SET val = EXCLUDED.val, del = false",
                    f"DELETE FROM martlet_kv WHERE {where(key)}",
                ]))  # fmt: skip
            sql(fleet, "; ".join(statements))
            for client in (replica, home):
                for key in keys:
                    client.get(key)
        time.sleep(1)
        rows = sql(fleet, "SELECT convert_from(k, 'UTF8') || '=' || convert_from(val, 'UTF8') FROM martlet_kv WHERE NOT del")
        truth = dict(line.split("=") for line in rows.splitlines())
        for client in (replica, home):
            assert {key: client.get(key) for key in keys} == {
                key: truth[key].encode() if key in truth else None for key in keys}  # fmt: skip
    assert sql(fleet, "SELECT count(*) FROM martlet_outbox") == "0", "all of it was published"


def test_it_can_be_switched_off_and_says_what_is_wrong(fleet):
    assert "expected on or off" in initialise(fleet.home.url, "--capture=maybe").stderr
    done = initialise(fleet.home.url, "--capture=off", "--json")
    assert json.loads(done.stdout) == {"initialised": True}
    sql(fleet, f"INSERT INTO martlet_kv (k, ver, exp, flags, del, val) VALUES (decode('{b'k'.hex()}', 'hex'), 1, 0, 0, false, 'v')")
    time.sleep(0.3)
    assert sql(fleet, "SELECT count(*) FROM martlet_outbox") == "0"
    assert sql(fleet, f"SELECT ver FROM martlet_kv WHERE {where('k')}") == "1"
    # Twice does no harm.
    assert initialise(fleet.home.url, "--capture=off").returncode == initialise(fleet.home.url, "--capture=on").returncode == 0
