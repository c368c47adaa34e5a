# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Full disks of a PostgreSQL: of its rows, which it refuses, and of its log, which ends it. The node says so, serves
what it has, loses nothing that was acknowledged, and goes on by itself when there is room."""

import random
import time

import pytest

from storage import database
from storage.database import Database, until
from storage.disks import grow, small_disk
from storage.node import Node

pytestmark = [
    pytest.mark.ours,
    pytest.mark.skipif(not database.is_installed(), reason="Debian's postgresql-15 is not installed"),
]


def value_of(number):
    """Bytes that cannot be compressed."""
    return random.Random(number).randbytes(100_000)


def fill(client, most):
    """Stores until something else is answered; gives how many were stored, and that answer."""
    for number in range(most):
        line = client.set(f"big{number}", value_of(number))
        if line != "STORED":
            return number, line
    raise AssertionError("the disk is never full")


def expect_rows(client, count):
    """What was acknowledged is in the store."""
    client.ask("flush_all")
    wrong = [number for number in range(count) if client.get(f"big{number}") != value_of(number)]
    assert wrong == []


def test_no_room_for_rows(tmp_path):
    server = database.shared()
    node = Node(tmp_path, backend="postgres", admin=True)
    with small_disk(24, "postgres") as disk:
        server.sql(f"CREATE TABLESPACE small LOCATION '{disk}'")
        # What is dead stays dead: no room is made behind the test's back.
        server.sql(
            "ALTER TABLE martlet_kv SET TABLESPACE small; "
            "ALTER TABLE martlet_kv SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)", node.name)
        try:
            with node, node.client(30) as client:
                assert client.set("before", b"v") == "STORED"
                count, line = fill(client, 400)
                print(f"{count} stored, then {line}")
                assert count > 50
                # Definite: nothing was done.
                assert line == "SERVER_ERROR storage: the database's disk is full"
                words = "the database refuses writes: the database's disk is full: could not extend file"
                until(lambda: words in node.get("/readyz?verbose")[1], what="saying so")
                health = node.statistics()["storage_health"]
                assert health.startswith(f"read-only: {words}")
                assert "No space left on device" in health and "53100" in health
                until(lambda: words in node.server.output(), what="a line in the log")
                assert "\nmartlet_storage_up 0" in node.get("/metrics")[1]
                assert node.get("/readyz")[0] == 200, "no other node has room either"
                for _ in range(3):
                    assert client.set("after", value_of(-1)).startswith("SERVER_ERROR storage: ")
                assert client.get("before") == b"v", "a cached copy is served"
                expect_rows(client, count)
                assert client.get("before") == b"v", "and so is a stored row"
                assert client.get("after") is None
                assert client.get(f"big{count}") is None
                # Nobody writes, and the node sees that it could: an empty write needs no room, and is no proof at once.
                time.sleep(2)
                assert node.statistics()["storage_health"].startswith("read-only: ")
                grow(disk, 100)
                assert client.set("after", value_of(-1)) == "STORED"
                # Each connection that was refused sees for itself.
                assert {client.set(f"small{number}", b"v") for number in range(64)} == {"STORED"}
                until(lambda: "[+]storage ok" in node.get("/readyz?verbose")[1], 5, "being well again")
                expect_rows(client, count)
                assert client.get("after") == value_of(-1)
        finally:
            node.stop()
            server.clear()
            server.sql("DROP TABLESPACE small")


def test_no_room_for_the_log(tmp_path):
    """The server ends itself, and starts again as often as it can: to a node it is one that goes and comes back."""
    with small_disk(12, "postgres") as disk:
        server = Database(log=disk / "log")
        try:
            node = Node(tmp_path, backend="postgres", admin=True, storage_timeout="5s")
            node.url = server.fresh("node")
            with node, node.client(30) as client:
                assert client.set("before", b"v") == "STORED"
                count, line = fill(client, 400)
                print(f"{count} stored, then {line}")
                assert count > 20
                assert line.startswith("SERVER_ERROR ")
                answers = set()
                for number in range(20):
                    answers.add(client.set(f"later{number}", value_of(number)))
                    assert client.get("before") == b"v", "a cached copy is served"
                    time.sleep(0.1)
                print(answers)
                assert all(answer == "STORED" or answer.startswith("SERVER_ERROR ") for answer in answers)
                assert any(answer.startswith("SERVER_ERROR ") for answer in answers)
                assert node.server.alive()
                grow(disk, 100)
                # The server may have given up.
                server.run("pg_ctl", "-D", server.data, "-m", "immediate", "-w", "stop", check=False)
                server.start()
                until(lambda: client.set("after", value_of(-1)) == "STORED", what="a write")
                node.settle()
                until(lambda: "[+]storage ok" in node.get("/readyz?verbose")[1], what="being well again")
                expect_rows(client, count)
                assert client.get("before") == b"v"
                assert client.get("after") == value_of(-1)
                # That of which nobody knew is wholly there or not at all.
                assert client.get(f"big{count}") in (None, value_of(count))
        finally:
            server.remove()
