# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What several who write to one PostgreSQL do to each other, and a standby that becomes the primary: for real."""

import json
import threading
import time

import pytest

from storage import database
from storage.database import Database, until
from storage.node import Node

pytestmark = [
    pytest.mark.ours,
    pytest.mark.usefixtures("tidied"),
    pytest.mark.skipif(not database.is_installed(), reason="Debian's postgresql-15 is not installed"),
]


def fail_commits(server, name, state, times):
    """Has the first commits of a row whose value is `c` fail with a SQLSTATE, at the commit itself."""
    server.sql(
        "CREATE SEQUENCE tries; CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.val = 'c' AND nextval('tries') <= {times} THEN "
        f"RAISE EXCEPTION 'in the way' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE ON martlet_kv DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION fail()", name)  # fmt: skip


class TestConflicts:
    @pytest.mark.parametrize("state", ["40001", "40P01"])
    @pytest.mark.parametrize("command", ["set k 0 0 1\r\nc", "add k 0 0 1\r\nc"], ids=["blind", "guarded"])
    def test_a_commit_that_fails_once_is_tried_again(self, tmp_path, server, command, state):
        with Node(tmp_path, backend="postgres") as node, node.client(30) as client:
            fail_commits(server, node.name, state, 1)
            assert client.ask(command) == "STORED"
            assert node.statistics()["postgres_conflicts"] == 1
            assert server.sql("SELECT last_value FROM tries", node.name) == "2", "tried twice"
            client.ask("flush_all")
            assert client.get("k") == b"c"
            assert client.set("k", b"d", verb="append") == "STORED"

    def test_a_commit_that_always_fails_is_refused_in_the_end(self, tmp_path, server):
        with Node(tmp_path, backend="postgres", storage_timeout="20s") as node, node.client(30) as client:
            assert client.set("k", b"v") == "STORED"
            fail_commits(server, node.name, "40001", 1000)
            line = client.set("k", b"c")
            assert line.startswith("SERVER_ERROR storage: ") and "in the way" in line, "it is known that it is not done"
            assert server.sql("SELECT last_value FROM tries", node.name) == "10"
            client.ask("flush_all")
            assert client.get("k") == b"v"
            assert client.set("k", b"w") == "STORED", "the session is as good as ever"

    def test_a_deadlock_with_another_program_is_tried_again(self, tmp_path, server):
        """Ours holds a and waits for b; theirs holds b and waits for a. Ours is the one that the server ends."""
        node = Node(tmp_path, backend="postgres", storage_connections=2, storage_timeout="20s")
        server.sql(f"ALTER DATABASE {node.name} SET deadlock_timeout = '1s'")
        with node, node.client(30) as client, node.client(30) as other:
            for key in ("a", "b", "x"):
                assert client.set(key, b"old") == "STORED"
            patient = "SET deadlock_timeout = '60s'; "
            first = server.lock(node.name, patient + "SELECT FROM martlet_kv WHERE k = 'x' FOR UPDATE")
            theirs = server.lock(node.name, patient + "UPDATE martlet_kv SET flags = 7 WHERE k = 'b'")

            def waiting():
                return int(server.sql(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND "
                    f"datname = '{node.name}' AND application_name LIKE 'martlet %'"))  # fmt: skip

            # Two sets that wait behind a third one go into one transaction.
            other.send("set x 0 0 3\r\nnew\r\n")
            until(lambda: waiting() == 1)
            client.send("set a 0 0 3\r\nnew\r\nset b 0 0 3\r\nnew\r\n")
            until(lambda: node.statistics()["writes_in_flight"] == 3)
            first.release()
            assert other.line() == "STORED"
            until(lambda: waiting() == 1)
            theirs.process.stdin.write("UPDATE martlet_kv SET flags = 7 WHERE k = 'a';\n\\echo done\n")
            theirs.process.stdin.flush()
            assert theirs.process.stdout.readline().strip() == "done"
            until(lambda: node.statistics()["postgres_conflicts"] >= 1)
            theirs.release()
            assert [client.line(), client.line()] == ["STORED", "STORED"]
            assert "deadlock detected" in open(f"{server.directory}/log").read()
            client.ask("flush_all")
            assert client.ask("mg a f v") == "VA 3 f0" and client.line() == "new"
            assert client.ask("mg b f v") == "VA 3 f0" and client.line() == "new"


class TestSlowLog:
    def test_it_tells_where_the_time_went(self, tmp_path, server):
        """A set that a row's lock holds up, and a get that waits for it in the store's place; a set that is held back
        behind that get; and a get of another key, whose reply waits for its turn."""
        node = Node(tmp_path, backend="postgres", storage_timeout="20s", storage_slow_log="400ms")
        with node, node.client(30) as client:
            for key in ("k", "other"):
                assert client.set(key, b"old") == "STORED"
            client.ask("flush_all")
            lock = server.lock(node.name, "SELECT FROM martlet_kv WHERE k = 'k' FOR UPDATE")
            client.send("set k 0 0 3\r\nnew\r\nget k\r\nset k 0 0 5\r\nnewer\r\nget other\r\n")
            time.sleep(0.8)
            lock.release()
            replies = [client.line() for _ in range(8)]
            assert replies == ["STORED", "VALUE k 0 3", "new", "END", "STORED", "VALUE other 0 3", "old", "END"]
            lines = until(lambda: self.lines(node, 4))
            found = {}
            for line in map(json.loads, lines):
                whole = line["ms"]
                parts = {name: line[name] for name in ("held_ms", "store_ms", "reply_ms")}
                assert whole >= 700 and abs(whole - sum(parts.values())) < 1, line
                longest = max(parts, key=parts.get)
                assert parts[longest] > 0.7 * whole, f"{line}: one part has nearly all of the time"
                found[line["command"], longest] = line["key_hash"]
            places = [("set", "store_ms"), ("get", "store_ms"), ("set", "held_ms"), ("get", "reply_ms")]
            assert sorted(found) == sorted(places), lines
            assert len({found[place] for place in places[:3]}) == 1 and found[places[3]] != found[places[0]]
            assert "other" not in "".join(lines), "keys are hashed"

    def test_what_is_quick_is_not_there(self, tmp_path, server):
        node = Node(tmp_path, backend="postgres", storage_timeout="20s", storage_slow_log="5s")
        with node, node.client(30) as client:
            assert client.set("k", b"old") == "STORED"
            lock = server.lock(node.name, "SELECT FROM martlet_kv WHERE k = 'k' FOR UPDATE")
            client.send("set k 0 0 3\r\nnew\r\n")
            time.sleep(0.8)
            lock.release()
            assert client.line() == "STORED"
            time.sleep(1.5)
            assert self.lines(node, 0) == []

    def lines(self, node, count):
        found = [line for line in node.server.output().splitlines() if "slow storage operation" in line]
        return found if len(found) >= count else None


class TestStandby:
    def test_a_standby_that_becomes_the_primary_in_the_middle_of_it(self, tmp_path):
        """The primary dies under load, and its synchronous standby takes over: the node finds it by itself, nothing
        acknowledged is lost, no counter counts twice, and nothing is read from the old one."""
        primary = Database()
        standby = None
        try:
            url = primary.fresh("node")
            standby = Database(primary)
            primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.sql("SELECT pg_reload_conf()")
            until(lambda: primary.sql("SELECT sync_state FROM pg_stat_replication") == "sync")
            node = Node(tmp_path, backend="postgres", storage_timeout="10s", admin=True)
            node.url = url.replace(f":{primary.port}", f":{primary.port},127.0.0.1:{standby.port}")
            with node:
                with node.client(30) as client:
                    assert client.set("before", b"v") == "STORED"
                    assert client.set("n", b"0") == "STORED"
                load = Load(node)
                load.start()
                until(lambda: load.counts["STORED"] > 50)
                primary.stop("immediate")
                until(lambda: load.counts["failed"] > 0)
                standby.run("pg_ctl", "-D", standby.data, "-w", "promote")
                since = load.counts["STORED"]
                until(lambda: load.counts["STORED"] > since + 50, 30, "a write on the new primary")
                load.end()
                until(lambda: node.get("/readyz")[0] == 200)
                until(lambda: node.statistics()["storage_health"] == "ready")
                node.settle(30)
                counts = load.counts
                print(counts)
                with node.client(30) as client:
                    client.ask("flush_all")
                    assert client.get("before") == b"v"
                    for key, value in load.acked.items():
                        assert client.get(key) == value, key
                    steps = int(client.get("n"))
                    assert counts["steps"] <= steps <= counts["steps"] + counts["unknown steps"]
                    assert client.set("after", b"v") == "STORED"
                assert standby.sql("SELECT pg_is_in_recovery()") == "f"
                database_name = url.rsplit("/", 1)[1]
                assert standby.sql("SELECT val FROM martlet_kv WHERE k = 'after'", database_name) == "\\x76"
        finally:
            if standby:
                standby.remove()
            primary.remove()


class Load(threading.Thread):
    """One client that sets keys and steps a counter, whatever it is answered."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node = node
        self.acked = {}
        self.counts = {"STORED": 0, "failed": 0, "steps": 0, "unknown steps": 0}
        self.over = threading.Event()
        self.error = None

    def run(self):
        try:
            with self.node.client(60) as client:
                number = 0
                while not self.over.is_set():
                    number += 1
                    key, value = f"k{number % 300}", b"%d" % number
                    line = client.set(key, value)
                    if line == "STORED":
                        self.acked[key] = value
                        self.counts["STORED"] += 1
                    else:
                        assert line.startswith("SERVER_ERROR "), line
                        self.counts["failed"] += 1
                        if "unknown" in line:
                            self.acked.pop(key, None)
                    line = client.ask("incr n 1")
                    if line.strip().isdigit():
                        self.counts["steps"] += 1
                    else:
                        assert line.startswith("SERVER_ERROR "), line
                        self.counts["unknown steps"] += "unknown" in line
                    time.sleep(0.002)
        except (AssertionError, OSError) as error:
            self.error = error

    def end(self):
        self.over.set()
        self.join(60)
        if self.error:
            raise self.error
