# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node in front of PostgreSQL servers that take each other's place, or seem to."""

import os
import socket
import time

import pytest

from storage import database
from storage.database import Database, Proxy, until
from storage.node import Node

pytestmark = [
    pytest.mark.ours,
    pytest.mark.skipif(not database.is_installed(), reason="Debian's postgresql-15 is not installed"),
]
WRITERS = "query ~ '^(WITH e|UPDATE martlet_meta)'"


class Pair:
    """A primary with an asynchronous standby, and a node whose URL names both; without ports where it is said so, as at
    addresses of loopback that no other test has."""

    def __init__(self, directory, has_ports=True):
        self.old = Database()
        self.new = self.other = None
        try:
            self.url = self.old.fresh("node")
            self.name = self.url.rsplit("/", 1)[1]
            self.new = Database(self.old)
            self.node = Node(directory, backend="postgres", admin=True)
            if has_ports:
                self.proxy = Proxy(self.old.port)
                hosts = f"127.0.0.1:{self.proxy.port},127.0.0.1:{self.new.port}"
            else:
                first, second = (f"127.{place}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}" for place in (77, 78))
                self.proxy, self.other = Proxy(self.old.port, 5432, first), Proxy(self.new.port, 5432, second)
                hosts = f"{first},{second}"
            self.node.url = self.url.replace(f"127.0.0.1:{self.old.port}", hosts)
        except BaseException:
            self.remove()
            raise

    def follows(self):
        """Waits until the standby has what the primary has."""
        place = self.old.sql("SELECT pg_current_wal_lsn()")
        until(lambda: self.new.sql(f"SELECT pg_last_wal_replay_lsn() >= '{place}'") == "t")

    def promote(self):
        self.new.run("pg_ctl", "-D", self.new.data, "-w", "promote")

    def reopen(self):
        """The old one takes connections again, after `proxy.close()`."""
        self.proxy = Proxy(self.old.port, self.proxy.port, self.proxy.host)

    def sessions(self, server):
        return server.sql(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self.name}' AND application_name LIKE 'martlet %'")

    def remove(self):
        if self.other:
            self.other.close()
        for server in (self.new, self.old):
            if server:
                server.remove()


@pytest.fixture
def pair(tmp_path, request):
    two = Pair(tmp_path, getattr(request, "param", "ports") == "ports")
    yield two
    two.node.stop()
    two.remove()


class TestTwoPrimaries:
    @pytest.mark.parametrize("pair", ["ports", "no ports"], indirect=True)
    def test_an_old_primary_that_is_alive_is_not_read(self, pair):
        """The standby was promoted, the old primary still takes writes, and a writer's session found the new one."""
        with pair.node as node, node.client() as client:
            assert client.set("k", b"1") == "STORED"
            until(lambda: node.statistics()["postgres_connections_made"] == 8)
            pair.follows()
            pair.promote()
            pair.proxy.close()
            assert pair.old.end_sessions(pair.name, WRITERS) == 1
            until(lambda: pair.sessions(pair.new) != "0")
            pair.reopen()
            until(lambda: client.set("k", b"2") == "STORED")
            assert pair.new.sql("SELECT val FROM martlet_kv", pair.name) == "\\x32"
            for _ in range(100):
                client.ask("flush_all")
                assert client.get("k") == b"2"
                time.sleep(0.01)
            until(lambda: pair.sessions(pair.old) == "0")

    def test_an_old_primary_is_refused_when_the_new_one_is_away(self, pair):
        with pair.node as node, node.client() as client:
            assert client.set("k", b"1") == "STORED"
            pair.follows()
            pair.proxy.close()
            pair.old.stop("immediate")
            pair.promote()
            until(lambda: client.set("k", b"2") == "STORED", 30)
            pair.old.start()
            pair.reopen()
            pair.new.stop("immediate")
            until(lambda: "timeline 1" in node.statistics()["storage_health"], 30, "a refusal of the old primary")
            assert "start the node again" in node.get("/readyz?verbose")[1]
            assert client.set("k", b"3").startswith("SERVER_ERROR ")
            client.ask("flush_all")
            assert client.ask("get k").startswith("SERVER_ERROR ")
            assert pair.old.sql("SELECT val FROM martlet_kv", pair.name) == "\\x31"
            pair.new.start()
            until(lambda: client.ask("gets k").startswith("VALUE k 0 1 ") and client.line() == "2", 30)
            assert client.line() == "END"
            until(lambda: client.set("k", b"3") == "STORED", 30)

    def test_an_old_primary_that_hangs(self, pair):
        """It takes connections and says nothing: the new one is found all the same."""
        with pair.node as node, node.client(30) as client:
            assert client.set("k", b"1") == "STORED"
            pair.follows()
            pair.old.stop("immediate")
            pair.proxy.close()
            with socket.create_server(("127.0.0.1", pair.proxy.port)):
                pair.promote()
                until(lambda: client.set("k", b"2") == "STORED", 30)
                assert client.get("k") == b"2"
                until(lambda: node.statistics()["storage_health"] == "ready", 30)


class TestReplacedRows:
    def test_a_failover_that_lost_a_write(self, pair):
        """Nothing is shown that the new primary does not have, by whatever way the node learnt of it."""
        with pair.node as node, node.client() as client:
            assert client.set("k", b"kept") == "STORED"
            identity = node.statistics()["store_identity"]
            pair.follows()
            pair.new.stop("fast")
            assert client.set("k", b"lost") == "STORED"
            assert client.set("j", b"lost") == "STORED"
            pair.proxy.close()
            pair.old.stop("immediate")
            assert client.get("k") == b"lost", "nothing else is known yet"
            pair.new.start()
            pair.promote()
            until(lambda: client.set("i", b"v") == "STORED", 30)
            assert client.get("k") == b"kept"
            assert client.get("j") is None
            assert node.statistics()["store_identity"] != identity

    def test_a_database_that_was_made_anew(self, tmp_path):
        """As behind a `pg_restore --create --clean`, of the same server."""
        server = database.shared()
        try:
            node = Node(tmp_path, backend="postgres")
            with node, node.client() as client:
                assert client.set("k", b"v") == "STORED"
                identity = node.statistics()["store_identity"]
                server.sql(f"DROP DATABASE {node.name} WITH (FORCE)")
                server.sql(f"CREATE DATABASE {node.name} TEMPLATE empty")
                until(lambda: client.set("j", b"v") == "STORED", 30)
                assert client.get("k") is None
                assert node.statistics()["store_identity"] != identity
        finally:
            server.clear()

    @pytest.mark.parametrize("options", [["--single-transaction"], []])
    def test_rows_that_were_restored_below_a_node(self, tmp_path, options):
        """`pg_restore --clean` makes other tables, and ends no session."""
        server = database.shared()
        try:
            node = Node(tmp_path, backend="postgres")
            with node, node.client() as client:
                place = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "martlet", "-d", node.name]
                dump = f"{server.directory}/{node.name}.dump"
                assert client.set("k", b"dumped") == "STORED"
                server.run("pg_dump", *place, "-Fc", "-f", dump)
                assert client.set("k", b"lost") == "STORED"
                assert client.set("j", b"lost") == "STORED"
                identity = node.statistics()["store_identity"]
                server.run("pg_restore", *place, "--clean", *options, dump)
                # Whoever asks before it is noticed is shown a copy.
                until(lambda: node.statistics()["store_identity"] != identity, 10, "other rows to be noticed")
                until(lambda: client.get("k") == b"dumped")
                assert client.get("j") is None
                until(lambda: client.set("j", b"new") == "STORED")
                until(lambda: node.statistics()["storage_health"] == "ready")
        finally:
            server.clear()

    def test_another_server_behind_the_same_address(self, tmp_path):
        """Neither its rows nor what was cached of the others: a start says that it is meant."""
        first = Database()
        second = None
        try:
            node = Node(tmp_path, backend="postgres", admin=True)
            node.url = first.fresh("node")
            with node, node.client() as client:
                assert client.set("k", b"1") == "STORED"
                first.stop("immediate")
                second = Database()
                second.fresh("node")
                second.stop("fast")
                second.port = first.port
                second.start()
                until(lambda: "system identifier" in node.statistics()["storage_health"], 30, "a refusal")
                assert client.set("k", b"2").startswith("SERVER_ERROR ")
                assert "start the node again" in node.get("/readyz?verbose")[1]
            with node, node.client() as client:
                assert client.get("k") is None
                assert client.set("k", b"2") == "STORED"
        finally:
            for server in (first, second):
                if server:
                    server.remove()

    def test_a_role_that_may_not_ask_which_server_it_is(self, tmp_path):
        """As where a service took the right away: the node goes on."""
        server = Database()
        try:
            node = Node(tmp_path, backend="postgres", admin=True)
            node.url = server.fresh("node").replace("martlet@", "limited@")
            server.sql("CREATE ROLE limited LOGIN")
            server.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO limited", node.name)
            server.sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO limited", node.name)
            server.sql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public", node.name)
            with node, node.client() as client:
                assert client.set("k", b"1") == "STORED"
                assert node.statistics()["store_identity"]
                server.crash()
                until(lambda: client.set("k", b"2") == "STORED", 30)
                assert client.get("k") == b"2"
        finally:
            server.remove()


class TestHosts:
    @pytest.mark.parametrize("kind", ["hung", "closing"])
    def test_a_first_host_that_is_of_no_use(self, tmp_path, kind):
        """A start, and a session that is made later, get past it in time."""
        server = database.shared()
        listener = socket.create_server(("127.0.0.1", 0))
        try:
            if kind == "closing":
                listener.close()
            node = Node(tmp_path, backend="postgres")
            port = listener.getsockname()[1] if kind == "hung" else 1
            node.url = node.url.replace("@", f"@127.0.0.1:{port},")
            with node, node.client() as client:
                assert client.set("k", b"v") == "STORED"
                server.end_sessions(node.name)
                began = time.monotonic()
                until(lambda: client.set("k", b"w") == "STORED")
                assert time.monotonic() - began < 3
        finally:
            listener.close()
            server.clear()

    def test_a_first_server_without_a_place_for_more_sessions(self, tmp_path):
        """`max_connections` is reached on one of two addresses: the other one is asked."""
        full = Database()
        server = database.shared()
        try:
            node = Node(tmp_path, backend="postgres")
            full.sql(f"CREATE DATABASE {node.name} CONNECTION LIMIT 0")
            full.sql("CREATE ROLE other LOGIN")
            server.sql("CREATE ROLE other LOGIN SUPERUSER")
            node.url = node.url.replace("martlet@", f"other@127.0.0.1:{full.port},")
            with node, node.client() as client:
                assert client.set("k", b"v") == "STORED"
        finally:
            full.remove()
            server.clear()
            server.sql("DROP ROLE IF EXISTS other")
