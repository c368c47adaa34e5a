# Martlet
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL as others set it up: schemas, roles, poolers, TLS; and `storage init` beside nodes that serve."""

import os
import shutil
import subprocess
import threading
import time
import urllib.request

import pytest

from behaviour.test_tls import Authority
from storage import database
from storage.database import Database, control, initialise, until
from storage.node import Node

pytestmark = [
    pytest.mark.ours,
    pytest.mark.usefixtures("tidied"),
    pytest.mark.skipif(not database.is_installed(), reason="Debian's postgresql-15 is not installed"),
]
TOKEN = "a-token-of-32-bytes-for-the-tests"


@pytest.fixture
def node(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    one = Node(tmp_path, backend="postgres", admin=True, admin_token_file=token)
    yield one
    one.stop()


class Setter(threading.Thread):
    """A client that sets keys all the time, and keeps what it was answered."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.over, self.lines, self.slowest = node, threading.Event(), [], 0.0
        self.start()

    def run(self):
        with self.node.client(20) as client:
            while not self.over.is_set():
                began = time.monotonic()
                self.lines.append(client.set(f"k{len(self.lines) % 50}", b"v"))
                self.slowest = max(self.slowest, time.monotonic() - began)
                time.sleep(0.005)

    def end(self):
        self.over.set()
        self.join(30)
        print(f"{len(self.lines)} sets, the slowest took {self.slowest:.3f} s")
        return [line for line in self.lines if line != "STORED"]


class TestInit:
    @pytest.mark.parametrize("option", [[], ["--capture=on"]])
    def test_beside_a_backup_that_reads(self, node, server, option):
        """What is there is not locked: a reader of all tables holds up nothing."""
        initialise(node.url, *option)
        with node:
            lock = server.lock(
                node.name, "LOCK TABLE martlet_kv, martlet_outbox, martlet_stream, martlet_meta IN ACCESS SHARE MODE")
            setter = Setter(node)
            try:
                began = time.monotonic()
                initialise(node.url, *option)
                assert time.monotonic() - began < 5
            finally:
                lock.release()
            assert setter.end() == []

    def test_something_is_missing_that_a_backup_keeps_it_from_making(self, node, server):
        """It tries again and again, and whoever writes waits no longer than for one try."""
        server.sql("DROP TRIGGER IF EXISTS martlet_capture ON martlet_kv; ALTER TABLE martlet_kv ALTER ver DROP DEFAULT",
                   node.name)  # fmt: skip
        with node:
            lock = server.lock(node.name, "LOCK TABLE martlet_kv IN ACCESS SHARE MODE")
            setter = Setter(node)
            done = []
            init = threading.Thread(target=lambda: done.append(initialise(node.url, "--capture=on")), daemon=True)
            init.start()
            time.sleep(4)
            assert not done
            lock.release()
            init.join(20)
            assert done
            assert setter.end() == []
            assert setter.slowest < 1.4
            assert server.sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'martlet%'", node.name) == "3"

    def test_several_at_once(self, server):
        for turn in range(3):
            server.sql(f"CREATE DATABASE together{turn}")
            found = []
            url = server.url(f"together{turn}")
            all_of_them = [
                threading.Thread(
                    target=lambda: found.append(control("storage", "init", "--capture=on", environment={"MARTLET_STORAGE_URL": url})))
                for _ in range(6)
            ]  # fmt: skip
            for one in all_of_them:
                one.start()
            for one in all_of_them:
                one.join()
            assert {code for code, _ in found} == {0}, found
            assert server.sql("SELECT count(*) FROM martlet_stream_slot", f"together{turn}") == "64"
            server.sql(f"DROP DATABASE together{turn} WITH (FORCE)")

    def test_one_that_ends_leaves_nobody_waiting(self, node, server):
        """Its session is gone from the server soon, whatever it waited for."""
        server.sql("ALTER TABLE martlet_outbox DROP COLUMN trace", node.name)
        lock = server.lock(node.name, "LOCK TABLE martlet_outbox IN ACCESS SHARE MODE")
        program = os.environ.get("MARTLETCTL") or os.path.join(os.path.dirname(database.default_command()), "martletctl")
        process = subprocess.Popen(
            [program, "storage", "init"], env={**os.environ, "MARTLET_STORAGE_URL": node.url},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        waits = (
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{node.name}' AND application_name = 'martlet init'")
        until(lambda: server.sql(waits + " AND wait_event_type = 'Lock'") == "1")
        process.kill()
        process.wait()
        until(lambda: server.sql(waits) == "0", 5)
        lock.release()

    def test_capture_writes_where_it_should(self, node, server):
        """Whoever may write rows cannot have its records put into a table of his own."""
        initialise(node.url, "--capture=on")
        server.sql("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN")
        server.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON martlet_kv TO guest", node.name)
        told = server.run(
            "psql", "-h", server.directory, "-p", str(server.port), "-U", "guest", "-d", node.name, "-v", "ON_ERROR_STOP=1",
            "-Atqc", "CREATE TEMP TABLE martlet_outbox (op int, pool int, slot int, k bytea, ver bigint, exp bigint, ts bigint); "
            "GRANT ALL ON pg_temp.martlet_outbox TO public; "
            "INSERT INTO martlet_kv (k, val) VALUES ('theirs', 'v'); SELECT count(*) FROM pg_temp.martlet_outbox")  # fmt: skip
        assert told.strip() == "0"
        assert server.sql("SELECT count(*) FROM martlet_outbox WHERE k = 'theirs'", node.name) == "1"
        server.sql("DROP OWNED BY guest", node.name)
        server.sql("DROP ROLE guest")

    def test_earlier_functions_of_capture_are_replaced(self, node, server):
        initialise(node.url, "--capture=on")
        server.sql("ALTER FUNCTION martlet_capture() SET search_path TO public", node.name)
        initialise(node.url)
        path = "SELECT array_to_string(proconfig, ';') FROM pg_proc WHERE proname = 'martlet_capture'"
        assert server.sql(path, node.name) == "search_path=pg_catalog, public, pg_temp"

    def test_functions_of_capture_in_another_schema_are_left_behind(self, node, server):
        """Triggers call those beside the table; what an earlier version left elsewhere goes."""
        initialise(node.url, "--capture=on")
        server.sql("CREATE SCHEMA other", node.name)
        for name in ("advance", "capture"):
            server.sql(f"ALTER FUNCTION martlet_{name}() SET SCHEMA other", node.name)
            server.sql(f"ALTER FUNCTION other.martlet_{name}() SET search_path TO public", node.name)
        initialise(node.url, "--capture=on")
        assert server.sql(
            "SELECT string_agg(DISTINCT tgfoid::regproc::text, ' ') FROM pg_trigger WHERE tgname LIKE 'martlet%'", node.name
        ) == "martlet_advance martlet_capture"  # fmt: skip
        assert server.sql("SELECT count(*) FROM pg_proc WHERE proname LIKE 'martlet%'", node.name) == "2"

    def test_tables_in_a_schema_of_their_own(self, node, server):
        """The schema needs quotes, and other programs need not have it in their path."""
        name = node.name
        server.sql('DROP TABLE martlet_kv, martlet_meta, martlet_outbox; CREATE SCHEMA "My Cache"', name)
        node.url += "?options=-csearch_path%3D%22My%5C%20Cache%22"
        initialise(node.url, "--capture=on")
        initialise(node.url, "--capture=on")
        with node, node.client() as client:
            assert client.set("k", b"v") == "STORED"
            server.sql('INSERT INTO "My Cache".martlet_kv (k, val) VALUES (\'theirs\', \'w\')', name)
            assert server.sql('SELECT count(*) FROM "My Cache".martlet_outbox WHERE k = \'theirs\'', name) == "1"
            assert client.get("theirs") == b"w"


class TestSessions:
    def test_backslashes_in_literals(self, node, server):
        """A database that takes them for escapes shows the same rows to a dump."""
        server.sql(f"ALTER DATABASE {node.name} SET standard_conforming_strings = off")
        with node, node.client() as client:
            for number in range(5):
                assert client.set(f"user:{number}", b"v") == "STORED"
            assert client.set("other", b"v") == "STORED"
            request = urllib.request.Request(
                f"http://127.0.0.1:{node.admin}/storage/rows?prefix={b'user:'.hex()}&after=&limit=100",
                headers={"Authorization": f"Bearer {TOKEN}"})  # fmt: skip
            with urllib.request.urlopen(request, timeout=20) as response:
                page = response.read()
            assert page.count(b"user:") == 5 and b"other" not in page

    def test_a_pooler_with_numbers_of_its_own(self, node, server):
        """It tells the node of a process that is not the server's: the true one is ended all the same."""
        pooler = database.Pooler(server.port)
        node.arguments += ["--storage-timeout", "30s"]
        node.url = node.url.replace(f":{server.port}/", f":{pooler.port}/")
        with node, node.client(30) as client:
            assert client.set("k", b"old") == "STORED"
            pooler.arm("hold", b"marker")
            assert client.set("k", b"marker") == "SERVER_ERROR outcome unknown"
            node.settle()
            assert client.get("k") == b"old"
            pooler.release()
            time.sleep(0.3)
            client.ask("flush_all")
            assert client.get("k") == b"old"
        pooler.close()

    def test_a_role_that_becomes_another_by_itself(self, node, server):
        """Where it may not see its own session, the start says what is missing."""
        server.sql("DROP ROLE IF EXISTS visitor; DROP ROLE IF EXISTS keeper; CREATE ROLE keeper; CREATE ROLE visitor LOGIN "
                   "IN ROLE keeper; ALTER ROLE visitor SET role = keeper")  # fmt: skip
        server.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO keeper", node.name)
        server.sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO keeper", node.name)
        node.url = node.url.replace("martlet@", "visitor@")
        try:
            code, said = node.refuse()
            assert code != 0
            assert "pg_read_all_stats" in said and "CockroachDB" not in said
            server.sql("GRANT pg_read_all_stats TO keeper")
            with node, node.client() as client:
                assert client.set("k", b"v") == "STORED"
        finally:
            node.stop()
            server.sql("DROP OWNED BY keeper; DROP OWNED BY visitor", node.name)
            server.sql("DROP ROLE visitor; DROP ROLE keeper")

    def test_a_name_with_a_space(self, node):
        """It would end the sessions of a node that is called as what stands before the space, and the other way round."""
        node.arguments += ["--storage-instance", "a b"]
        code, said = node.refuse()
        assert code != 0 and 'storage.instance: "a b" is not valid; expected printable ASCII without spaces' in said

    def test_no_place_for_more_sessions(self, node, server):
        """The role has as many as it may: what needs another one is refused with the reason, and goes on by itself."""
        server.sql("DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN CONNECTION LIMIT 20")
        server.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO few", node.name)
        server.sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO few", node.name)
        node.url = node.url.replace("martlet@", "few@")
        try:
            with node, node.client() as client:
                assert client.set("k", b"v") == "STORED"
                server.sql("ALTER ROLE few CONNECTION LIMIT 0")
                server.end_sessions(node.name)
                until(lambda: "too many connections for role" in node.statistics()["storage_health"])
                assert client.set("k", b"w").startswith("SERVER_ERROR storage: ")
                server.sql("ALTER ROLE few CONNECTION LIMIT 3")
                until(lambda: node.statistics()["postgres_connections_made"] > 8)
                server.sql("ALTER ROLE few CONNECTION LIMIT 20")
                until(lambda: node.statistics()["storage_health"] == "ready")
                assert client.set("k", b"w") == "STORED"
        finally:
            node.stop()
            server.sql("DROP OWNED BY few", node.name)
            server.sql("DROP ROLE few")

    def test_tls_to_the_database(self, tmp_path):
        """Encrypted where it is required, and only to a server whose certificate is one of the authority."""
        server = Database()
        try:
            authority = Authority(tmp_path)
            certificate, key = authority.issue("postgres")
            for source, name in ((certificate, "server.crt"), (key, "server.key")):
                shutil.copy(source, f"{server.data}/{name}")
                os.chmod(f"{server.data}/{name}", 0o600)
                if os.geteuid() == 0:
                    shutil.chown(f"{server.data}/{name}", "postgres")
            node = Node(tmp_path, backend="postgres")
            node.url = server.fresh("node") + "?sslmode=require"
            plain = node.url
            code, said = node.refuse()
            assert code != 0 and "SSL" in said
            server.sql("ALTER SYSTEM SET ssl = on")
            server.sql("SELECT pg_reload_conf()")
            with node, node.client() as client:
                assert client.set("k", b"v") == "STORED"
                encrypted = (
                    "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                    "WHERE application_name LIKE 'martlet %'")
                assert server.sql(encrypted) == "t"
            node.url = plain.replace("require", f"verify-full&sslrootcert={authority.certificate}")
            for host in ("127.0.0.1", "localhost"):
                node.url = node.url.replace("127.0.0.1", host)
                with node, node.client() as client:
                    assert client.set("k", b"v") == "STORED"
            (tmp_path / "stranger").mkdir()
            stranger = Authority(tmp_path / "stranger")
            node.url = node.url.replace(str(authority.certificate), str(stranger.certificate))
            code, said = node.refuse()
            assert code != 0 and "certificate verify failed" in said
        finally:
            server.remove()
