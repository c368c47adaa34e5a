# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node in front of PostgreSQL: bad input, bad days, and what is known after them."""

import os
import random
import re
import threading
import time

import pytest

from bed import free_port
from storage import database
from storage.cycles import run_cycles
from storage.database import PASSWORD, control, until
from storage.database_cycles import CarefulWriter, compare, run_database_cycles
from storage.node import Node
from storage.rounds import run_round
from streams.region import RegionNode

pytestmark = [
    pytest.mark.ours,
    pytest.mark.usefixtures("tidied"),
    pytest.mark.skipif(not database.is_installed(), reason="Debian's postgresql-15 is not installed"),
]
SEED = int(os.environ.get("MARTLET_SEED") or time.time_ns() % 100_000)
LATE = ("SERVER_ERROR outcome unknown", "SERVER_ERROR storage: ")


@pytest.fixture
def node(tmp_path):
    one = Node(tmp_path, backend="postgres", admin=True)
    yield one
    one.stop()


def judge(result):
    print(result["counts"])
    assert not result["failures"], f"MARTLET_SEED={result['seed']}\n" + "\n".join(result["failures"][:3])
    return result["counts"]


def refusal(node, *words):
    """The node must not start, and must say why in a line that shows no password."""
    code, said = node.refuse()
    print(code, said)
    assert code != 0
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"
    assert PASSWORD not in said and "4711" not in said
    assert "Fatal error" not in said
    assert len(said.splitlines()) <= 4
    return said


class TestStart:
    def test_nobody_listens(self, node):
        node.url = f"postgresql://martlet:{PASSWORD}@127.0.0.1:{free_port()}/d"
        refusal(node, "storage: ", "Connection refused")

    def test_a_host_without_a_name(self, node):
        node.url = f"postgresql://martlet:{PASSWORD}@no-such-host.invalid/d"
        refusal(node, "storage: ", "no-such-host.invalid")

    def test_no_such_database(self, node, server):
        node.url = server.url("nothing")
        refusal(node, '"nothing" does not exist')

    def test_missing_tables(self, node, server):
        node.url = server.url("postgres")
        refusal(node, "no tables of ours", "martletctl storage init")

    def test_a_table_that_is_not_ours(self, node, server):
        server.sql("ALTER TABLE martlet_kv RENAME COLUMN flags TO colours", node.name)
        refusal(node, "a table of the database is not ours", "flags")

    def test_a_newer_schema(self, node, server):
        server.sql("UPDATE martlet_meta SET number = 99 WHERE name = 'format'", node.name)
        refusal(node, "format 99", "formats up to 1", "newer version")
        code, said = control("storage", "init", environment={"MARTLET_STORAGE_URL": node.url})
        assert code != 0
        assert "format 99" in said

    def test_a_role_that_may_not(self, node, server):
        server.sql("CREATE ROLE nobody LOGIN")
        node.url = server.url(node.name, "nobody")
        refusal(node, "permission denied")

    def test_what_a_database_says_stays_on_one_line(self, node, server):
        with node, node.client() as client:
            assert client.set("k", b"v") == "STORED"
            server.sql(
                "CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "RAISE EXCEPTION E'no\\r\\nSTORED'; END $$; "
                "CREATE TRIGGER loud BEFORE INSERT OR UPDATE ON martlet_kv FOR EACH ROW EXECUTE FUNCTION loud()",
                node.name)
            said = client.set("k", b"w")
            assert said.startswith("SERVER_ERROR ") and "STORED" in said, said
            assert client.ask("mn") == "MN"
            assert client.get("k") == b"v"

    def test_a_wrong_password(self, node, server):
        with open(f"{server.data}/pg_hba.conf", "r+") as file:
            rules = file.read()
            file.seek(0)
            file.write(f"host all guarded 127.0.0.1/32 scram-sha-256\n{rules}")
        server.sql(f"SELECT pg_reload_conf(); CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        until(lambda: "scram" in server.sql("SELECT string_agg(auth_method, ' ') FROM pg_hba_file_rules"))
        time.sleep(0.2)
        right, name = node.url, node.name
        node.url = server.url(name, "guarded", PASSWORD + "x")
        refusal(node, "password authentication failed")
        node.url = server.url(name, "guarded")
        refusal(node, "no password supplied")
        node.url = server.url(name, "guarded", PASSWORD)
        with node, node.client() as client:
            assert client.set("k", b"v") == "STORED"
            shown = node.get("/stats.json")[1] + node.get("/metrics")[1] + node.server.output()
            assert PASSWORD not in shown + str(client.stats("settings"))
        node.url = right

    @pytest.mark.parametrize(
        "url", [
            f"postgresql://martlet:{PASSWORD}@x@127.0.0.1/d", f"postgresql://martlet:{PASSWORD}/x@127.0.0.1/d",
            f"postgresql://martlet:{PASSWORD}%zz@127.0.0.1/d", PASSWORD, f"mysql://martlet:{PASSWORD}@127.0.0.1/d",
            f"postgresql://martlet:{PASSWORD}@127.0.0.1/d?sslmod=x", f"postgresql://[::1:{PASSWORD}",
        ])  # fmt: skip
    def test_a_url_that_cannot_be_read_is_not_shown(self, node, url):
        node.url = url
        refusal(node, "storage.url", "expected postgresql://")
        code, said = control("storage", "init", environment={"MARTLET_STORAGE_URL": url})
        assert code != 0
        assert PASSWORD not in said and "4711" not in said

    def test_the_first_of_two_hosts_is_down(self, node, server):
        ports = f"127.0.0.1:{free_port()},127.0.0.1:{server.port}"
        node.url = node.url.replace(f"127.0.0.1:{server.port}", ports)
        with node, node.client() as client:
            assert client.set("k", b"v") == "STORED"
            client.ask("flush_all")
            assert client.get("k") == b"v"

    def test_init_twice_and_what_it_makes(self, server):
        server.sql("CREATE DATABASE twice")
        for _ in range(2):
            code, said = control("storage", "init", "--url", server.url("twice"))
            assert code == 0, said
        tables = server.sql("SELECT string_agg(tablename, ' ' ORDER BY 1) FROM pg_tables WHERE tablename ~ 'martlet'",
                            "twice")  # fmt: skip
        names = ("kv", "meta", "outbox", "stream", "stream_slot", "ring", "lease", "home")
        assert set(tables.split()) == {f"martlet_{name}" for name in names}
        code, said = control("storage", "init", environment={"MARTLET_STORAGE_URL": ""})
        assert code == 64 or code == 2 or "--url is missing" in said


class TestBadDays:
    def test_the_server_goes_and_comes_back(self, node, server):
        """Cached reads go on, all else fails fast, the node says so and stays ready; then it recovers by itself."""
        with node, node.client() as client:
            for number in range(100):
                assert client.set(f"k{number}", b"%d" % number) == "STORED"
            until(lambda: node.get("/readyz")[0] == 200)
            client.ask("flush_all")
            assert client.get("k1") == b"1"
            server.stop("immediate")
            try:
                until(lambda: "[!]storage degraded" in node.get("/readyz?verbose")[1], what="saying so")
                assert node.get("/readyz") == (200, "ok\n"), "no other node has the store either"
                for _ in range(20):
                    assert client.get("k1") == b"1", "cached"
                    began = time.monotonic()
                    assert client.ask("get k2").startswith("SERVER_ERROR storage: ")
                    assert client.set("k1", b"x").startswith("SERVER_ERROR storage: ")
                    assert time.monotonic() - began < 0.5, "it fails fast"
                assert client.get("k1") == b"1", "a refused set changes nothing"
                assert node.get("/livez")[0] == 200
                assert node.statistics()["storage_health"].startswith("unavailable")
            finally:
                server.start()
            began = time.monotonic()
            until(lambda: "[+]storage ok" in node.get("/readyz?verbose")[1], what="having the store again")
            print(f"ready {time.monotonic() - began:.1f} s after the server")
            until(lambda: client.set("k1", b"x") == "STORED")
            assert client.get("k2") == b"2"

    def test_a_statement_that_takes_too_long(self, tmp_path, server):
        """A row that somebody else holds: an error in time, nothing done in the end, and other keys go on."""
        with Node(tmp_path, backend="postgres", storage_timeout="1s") as node, node.client() as client:
            keys = [f"k{number}" for number in range(40)]
            for key in keys:
                assert client.set(key, b"old") == "STORED"
            lock = server.lock(node.name, "SELECT * FROM martlet_kv WHERE k = 'k7' FOR UPDATE")
            began = time.monotonic()
            line = client.set("k7", b"new")
            assert 0.5 < time.monotonic() - began < 3
            assert line.startswith(LATE), line
            assert client.get("k7") == b"old"
            # Writes that share its connection wait for it; the others do not.
            stored = sum(client.set(key, b"new") == "STORED" for key in keys if key != "k7")
            assert stored > 30
            lock.release()
            node.settle()
            client.ask("flush_all")
            assert client.get("k7") == b"old"
            assert client.set("k7", b"newer") == "STORED"
            assert client.get("k7") == b"newer"

    def test_a_table_that_is_locked_does_not_pile_up(self, tmp_path, server):
        """Everything fails within the limits, and the node is well as soon as the table is."""
        with Node(tmp_path, backend="postgres", storage_timeout="1s") as node, node.client(30) as client:
            client.set("k", b"v")
            lock = server.lock(node.name, "LOCK TABLE martlet_kv")
            client.send(b"".join(b"set k%d 0 0 1\r\nx\r\n" % number for number in range(400)))
            lines = {client.line() for _ in range(400)}
            assert all(line.startswith(LATE) for line in lines), lines
            assert client.get("k") == b"v", "cached"
            lock.release()
            began = time.monotonic()
            until(lambda: client.set("k", b"w") == "STORED")
            node.settle()
            assert time.monotonic() - began < 8

    def test_tables_that_are_dropped(self, node, server):
        with node, node.client() as client:
            assert client.set("k", b"v") == "STORED"
            server.sql("ALTER TABLE martlet_kv RENAME TO elsewhere", node.name)
            assert client.set("j", b"v").startswith("SERVER_ERROR storage: ")
            assert client.ask("get i").startswith("SERVER_ERROR storage: ")
            assert client.get("k") == b"v"
            server.sql("ALTER TABLE elsewhere RENAME TO martlet_kv", node.name)
            assert client.set("j", b"v") == "STORED"

    def test_readers_follow_a_writer_that_had_to_reconnect(self, node, server):
        """It may have found another primary: a reader that stayed would ask the old one."""
        with node, node.client() as client:
            assert client.set("k", b"v") == "STORED"
            until(lambda: node.statistics()["postgres_connections_made"] == 8)
            # What tells writers from readers is what they ran last: an upsert, or the clock's mark beside the first.
            ended = server.end_sessions(node.name, "query ~ '^(WITH e|UPDATE martlet_meta)'")
            assert ended == 1
            until(lambda: client.set("k", b"w") == "STORED")
            for _ in range(40):
                client.ask("flush_all")
                assert client.get("k") == b"w"
            until(lambda: node.statistics()["postgres_connections_made"] >= 8 + 1 + 4)

    def test_a_database_that_became_read_only(self, node, server):
        """What a demoted primary looks like: refused, and well again when it is primary again."""
        with node, node.client() as client:
            assert client.set("cached", b"v") == "STORED"
            server.sql(f"ALTER DATABASE {node.name} SET default_transaction_read_only = on")
            server.end_sessions(node.name)
            until(lambda: client.set("k", b"w").startswith("SERVER_ERROR storage: "))
            until(lambda: "[!]storage degraded" in node.get("/readyz?verbose")[1])
            assert client.get("cached") == b"v"
            server.sql(f"ALTER DATABASE {node.name} RESET default_transaction_read_only")
            until(lambda: client.set("k", b"w") == "STORED")
            until(lambda: "[+]storage ok" in node.get("/readyz?verbose")[1])

    def test_a_right_that_is_taken_away_is_told(self, node, server):
        """A role with fewer rights does not get in; one that loses them later is told of in all places."""
        server.sql("DO $$ BEGIN CREATE ROLE clerk LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        server.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk", node.name)
        server.sql("REVOKE DELETE ON martlet_kv FROM clerk", node.name)
        node.url = server.url(node.name, user="clerk")
        refusal(node, "permission denied for table martlet_kv")
        server.sql("GRANT DELETE ON martlet_kv TO clerk", node.name)
        with node, node.client() as client:
            assert client.set("cached", b"v") == "STORED"
            server.sql("REVOKE INSERT ON martlet_kv FROM clerk", node.name)
            denied = "permission denied for table martlet_kv (SQLSTATE 42501)"
            assert client.set("k", b"w") == f"SERVER_ERROR storage: {denied}"
            words = f"the database refuses writes: {denied}"
            until(lambda: words in node.get("/readyz?verbose")[1])
            assert words in node.statistics()["storage_health"]
            until(lambda: words in node.server.output(), what="a line in the log")
            assert node.get("/readyz")[0] == 200 and client.get("cached") == b"v"
            server.sql("GRANT INSERT ON martlet_kv TO clerk", node.name)
            assert client.set("k", b"w") == "STORED"
            until(lambda: "[+]storage ok" in node.get("/readyz?verbose")[1])

    def test_a_promotion_under_the_same_name_refuses_nothing(self, tmp_path, server):
        """All of a node's connections meet it at once: that one of them has learned of it is no reason to refuse the
        others."""
        regions = [{"name": "us-east", "role": "home"}]
        sets = b"".join(b"set k%d 0 0 1\r\n%%d\r\n" % number for number in range(200))
        with RegionNode(tmp_path / "node", "us-east", regions, backend="postgres") as node, node.client(30) as client:
            client.send(sets.replace(b"%d", b"0"))
            assert {client.line() for _ in range(200)} == {"STORED"}
            for term in range(1, 9):
                value = b"%d" % term
                server.sql(
                    f"INSERT INTO martlet_home SELECT {term}, 'us-east', false, 0, string_agg('0', ','), true, 0, 0 "
                    "FROM generate_series(0, 63)", node.name)
                if term % 2:
                    client.send(sets.replace(b"%d", value))
                    assert {client.line() for _ in range(200)} == {"STORED"}, term
                else:
                    client.ask("flush_all")
                    client.send(b"".join(b"get k%d\r\n" % number for number in range(200)))
                    lines = [client.line() for _ in range(600)]
                    assert set(lines[1::3]) == {str(term - 1)}, term

    def test_a_fenced_database_decides_nothing(self, tmp_path, server):
        """Another region is home: what its rows say is not here, whether a condition on them comes to a change or not."""
        regions = [{"name": "us-east", "role": "home"}]
        with RegionNode(tmp_path / "node", "us-east", regions, backend="postgres") as node, node.client(30) as client:
            assert client.set("k", b"v") == "STORED"
            server.sql(
                "INSERT INTO martlet_home SELECT 1, 'eu-west', true, 0, string_agg('0', ','), false, 0, 0 "
                "FROM generate_series(0, 63)", node.name)
            client.ask("flush_all")
            refused = "SERVER_ERROR storage: this region is not home any more, or is about to stop being it"
            for line in ("set k 0 0 1\r\nw", "add k 0 0 1\r\nw", "cas k 0 0 1 7\r\nw", "replace gone 0 0 1\r\nw",
                         "incr gone 1", "delete gone", "touch gone 0", "append gone 0 0 1\r\nw", "get k"):  # fmt: skip
                assert client.ask(line) == refused, line
            server.sql("DELETE FROM martlet_home", node.name)
            assert client.ask("add k 0 0 1\r\nw") == "NOT_STORED"
            assert client.ask("delete gone") == "NOT_FOUND"
            assert client.get("k") == b"v"

    def test_commits_are_durable_whatever_the_server_says(self, node, server):
        server.sql(f"ALTER DATABASE {node.name} SET synchronous_commit = off")
        with node, node.client() as client:
            for turn in range(3):
                assert client.set("k", b"%d" % turn) == "STORED"
                server.crash()
                until(lambda: client.ask("mn") == "MN" and client.set("other", b"x") == "STORED")
                client.ask("flush_all")
                assert until(lambda: client.get("k")) == b"%d" % turn


class TestStaleCopies:
    """A pool whose copies may answer behind their time, when the database does not."""

    POOLS = [
        {"prefix": "s:", "cacheTTL": "1s", "staleIfError": "60s"},
        {"prefix": "b:", "cacheTTL": "1s", "staleIfError": "2s"},
        {"prefix": "n:", "cacheTTL": "1s"},
    ]

    @pytest.fixture
    def node(self, tmp_path):
        with Node(tmp_path, backend="postgres", pools=self.POOLS) as one:
            yield one

    def test_an_old_copy_answers_while_the_database_is_away(self, node, server):
        with node.client() as client:
            for key in ("s:k", "b:k", "n:k"):
                assert client.set(key, b"one") == "STORED"
            client.send("set s:ends 0 3 3\r\nend\r\n")
            assert client.line() == "STORED"
            assert client.ask("mg s:k s") == "HD s3"
            time.sleep(2.1)
            # Behind its time, the copy is asked for no longer: somebody changed the row.
            server.sql("UPDATE martlet_kv SET val = 'two', ver = ver + 65536 WHERE k = 's:k'", node.name)
            assert client.get("s:k") == b"two"
            time.sleep(2.1)
            server.stop()
            until(lambda: node.statistics()["storage_health"] != "ready")
            assert client.get("s:k") == b"two"
            assert client.ask("mg s:k s k") == "HD s3 ks:k X"
            assert client.ask("mg s:k t") == "HD t0 X"
            assert client.get("s:k", "gets") == b"two"
            for key in ("n:k", "b:k", "s:ends", "s:never"):
                assert client.ask(f"mg {key} s").startswith("SERVER_ERROR storage: "), key
            assert client.set("s:k", b"three").startswith("SERVER_ERROR storage: ")
            assert node.statistics()["stale_answers"] >= 4
            server.start()
            until(lambda: client.set("s:other", b"x") == "STORED")
            assert client.ask("mg s:k s") == "HD s3"

    def test_a_delete_leaves_no_old_copy(self, node, server):
        with node.client() as client:
            assert client.set("s:gone", b"v") == "STORED"
            time.sleep(2.1)
            assert client.ask("md s:gone") == "HD"
            time.sleep(0.1)
            server.stop()
            until(lambda: node.statistics()["storage_health"] != "ready")
            assert client.ask("mg s:gone v").startswith(("EN", "SERVER_ERROR storage: "))
            server.start()
            until(lambda: client.ask("mg s:gone v") == "EN")

    def test_it_needs_a_cache_ttl(self, tmp_path):
        directory = tmp_path / "refused"
        directory.mkdir()
        node = Node(directory, backend="postgres", pools=[{"prefix": "x:", "staleIfError": "1s"}])
        code, said = node.refuse()
        assert code != 0
        assert "staleIfError: needs a cacheTTL" in said


class TestWarmUp:
    def test_a_database_that_goes_ends_it_with_the_reason(self, tmp_path, server):
        token = tmp_path / "token"
        token.write_text("a-token-of-sufficient-length\n")
        directory = tmp_path / "node"
        directory.mkdir()
        node = Node(directory, backend="postgres", admin=True, admin_token_file=token, storage_timeout="1s")
        with node, node.client() as client:
            for number in range(3000):
                client.send(f"set w{number} 0 0 1 noreply\r\nx\r\n")
            node.settle()
            asked = ("warm", "--node", f"http://127.0.0.1:{node.admin}", "--token-file", str(token), "--prefix", "w")
            client.ask("flush_all")
            code, said = control(*asked)
            assert code == 0, said
            assert int(client.stats()["curr_items"]) == 3000
            client.ask("flush_all")

            def stop():
                with node.client() as other:
                    until(lambda: int(other.stats()["curr_items"]) >= 256)
                server.stop()

            stopper = threading.Thread(target=stop)
            stopper.start()
            code, said = control(*asked, "--rate", "300")
            stopper.join()
            server.start()
            assert code != 0 and "Connection refused" in said, said
            assert 256 <= int(client.stats()["curr_items"]) < 3000
            until(lambda: client.set("k", b"x") == "STORED")


    def test_rows_that_are_no_keys_for_clients_are_passed_over(self, tmp_path, server):
        """Other programs may write any bytea. An item has one byte for its key's length."""
        token = tmp_path / "token"
        token.write_text("a-token-of-sufficient-length\n")
        directory = tmp_path / "node"
        directory.mkdir()
        node = Node(directory, backend="postgres", admin=True, admin_token_file=token, pools=[
            {"prefix": "cache:", "storage": False}])  # fmt: skip
        with node, node.client(30) as client:
            for number in range(20):
                assert client.set(f"good{number}", b"v") == "STORED"
            row = "convert_to(repeat('long', {}), 'UTF8') || g::text::bytea, 1, 0, 0, false, repeat('v', 3000)::bytea"
            for repeats in (63, 75, 750):
                server.sql(
                    "INSERT INTO martlet_kv (k, ver, exp, flags, del, val) "
                    f"SELECT {row.format(repeats)} FROM generate_series(1, 500) g", node.name)  # fmt: skip
            server.sql("INSERT INTO martlet_kv (k, ver, exp, flags, del, val) VALUES ('', 1, 0, 0, false, 'v')", node.name)
            client.ask("flush_all")
            asked = ("--node", f"http://127.0.0.1:{node.admin}", "--token-file", str(token))
            code, said = control("warm", *asked)
            assert code == 0, said
            assert int(client.stats()["curr_items"]) == 20
            # Every segment is used again, and looked through for that.
            for number in range(6000):
                client.send(b"set cache:%d 0 0 20000 noreply\r\n%s\r\n" % (number, b"x" * 20000))
            assert client.ask("mn") == "MN"
            # Behind so much a node that is not alone on its machine may refuse reads for a moment.
            line = until(lambda: (line := client.ask("mg good7 s")) != "SERVER_ERROR 307 busy" and line)
            assert line == "HD s1"
            code, said = control("dump", "--output", str(tmp_path / "dump"), *asked)
            assert code == 0, said
            assert "20 rows" in said, said


class TestNetwork:
    """A connection that is lost at each of the moments that matter."""

    @pytest.fixture
    def proxied(self, tmp_path, server):
        node = Node(tmp_path, backend="postgres", storage_timeout="30s")
        proxy = database.Proxy(server.port)
        node.url = node.url.replace(f":{server.port}/", f":{proxy.port}/")
        with node, node.client(30) as client:
            assert client.set("k", b"old") == "STORED"
            yield node, client, proxy
        proxy.close()

    def test_a_commit_whose_answer_is_lost(self, proxied):
        """It happened, and nobody said so: unknown, and the next read tells."""
        node, client, proxy = proxied
        for turn in range(5):
            value = b"marker-%d" % turn
            proxy.arm("swallow", value)
            assert client.set("k", value) == "SERVER_ERROR outcome unknown"
            assert proxy.fired.wait(5)
            assert client.get("k") == value
            node.settle()
            client.ask("flush_all")
            assert client.get("k") == value
            until(lambda: client.set("k", b"between") == "STORED")

    def test_a_commit_that_would_arrive_late(self, proxied):
        """The request is still on its way when the connection is lost: its session is ended before anything else."""
        node, client, proxy = proxied
        for turn in range(3):
            proxy.arm("hold", b"marker-%d" % turn)
            assert client.set("k", b"marker-%d" % turn) == "SERVER_ERROR outcome unknown"
            assert client.get("k") == b"old"
            node.settle()
            assert client.get("k") == b"old"
            proxy.release()
            time.sleep(0.2)
            client.ask("flush_all")
            assert client.get("k") == b"old"
        assert until(lambda: client.set("k", b"new") == "STORED")

    def test_a_connection_lost_while_a_row_is_looked_at(self, proxied):
        """Nothing was changed yet, and the answer says so."""
        node, client, proxy = proxied
        assert client.set("looked-at", b"1") == "STORED"
        proxy.arm("swallow", b"looked-at")
        client.send("append looked-at 0 0 1\r\n2\r\n")
        assert client.line().startswith("SERVER_ERROR storage: ")
        assert proxy.fired.wait(5)
        rows = node.statistics()
        assert rows["uncertain_keys"] == 0
        assert rows["unknown_outcomes"] == 0
        client.ask("flush_all")
        assert client.get("looked-at") == b"1"

    def test_a_database_that_swallows_everything(self, tmp_path, server):
        """Unknown is only what was sent; what was not is known to be undone, and nobody waits for what cannot come."""
        node = Node(tmp_path, backend="postgres", storage_timeout="2s")
        proxy = database.Proxy(server.port)
        node.url = node.url.replace(f":{server.port}/", f":{proxy.port}/")
        with node, node.client(30) as client:
            assert client.set("k", b"old") == "STORED"
            proxy.is_dark = True

            def is_cut_off():
                began = time.monotonic()
                with node.client(30) as other:
                    other.send(b"".join(b"set k%d 0 0 1\r\nx\r\n" % number for number in range(40)) + b"get other\r\n")
                    lines = [other.line() for _ in range(41)]
                assert all(line.startswith(LATE) for line in lines), lines
                assert time.monotonic() - began < 6, "what was sent, and a read behind it, wait 2 s each"
                return node.statistics()["storage_health"].startswith("unavailable") and time.monotonic() - began < 0.5

            until(is_cut_off, 60, "knowing of all sessions that they are lost")
            before = node.statistics()["unknown_outcomes"]
            began, slowest = time.monotonic(), 0
            # Longer than an attempt to connect and the rest behind it.
            while time.monotonic() - began < 6:
                asked = time.monotonic()
                assert client.set("k", b"new").startswith("SERVER_ERROR storage: ")
                assert client.ask("get other").startswith("SERVER_ERROR storage: ")
                slowest = max(slowest, time.monotonic() - asked)
                assert client.get("k") == b"old", "cached"
            print(f"the slowest two took {slowest:.3f} s")
            assert slowest < 0.5
            assert node.statistics()["unknown_outcomes"] == before
            proxy.lighten()
            until(lambda: client.set("k", b"new") == "STORED")
            node.settle()
            client.ask("flush_all")
            assert client.get("k") == b"new"
        proxy.close()


class TestRestart:
    """Contract 11: a commit of a process that was killed may come late; no cached copy may be older than it."""

    def blocked(self, node, server):
        """A node that is killed while its write waits for a row that psql holds."""
        node.start()
        with node.client() as client:
            assert client.set("k", b"old") == "STORED"
        lock = server.lock(node.name, "SELECT * FROM martlet_kv WHERE k = 'k' FOR UPDATE")
        client = node.client()
        client.send(b"set k 0 0 4\r\nlate\r\n")
        waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{node.name}' AND wait_event_type = 'Lock'"
        until(lambda: server.sql(waiting) == "1", what="a write that waits")
        node.kill()
        return lock

    def test_the_sessions_of_a_killed_node_are_ended(self, tmp_path, server):
        with Node(tmp_path, backend="postgres", storage_timeout="30s") as node:
            node.stop()
            lock = self.blocked(node, server)
            node.start()
            with node.client() as client:
                assert client.get("k") == b"old"
                before = node.statistics()["reads_sent"]
                assert client.get("k") == b"old"
                assert node.statistics()["reads_sent"] == before, "nothing is left to wait for: copies are kept"
                lock.release()
                time.sleep(0.3)
                client.ask("flush_all")
                assert client.get("k") == b"old", "the late write is gone"

    def test_nothing_is_cached_while_they_cannot_be_ended(self, tmp_path, server):
        """A role without the right: the late commit comes, and is seen at once."""
        with Node(tmp_path, backend="postgres", storage_timeout="30s") as node:
            node.stop()
            lock = self.blocked(node, server)
            server.sql("DO $$ BEGIN CREATE ROLE humble LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
            server.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO humble", node.name)
            right = node.url
            node.url = server.url(node.name, "humble")
            node.start()
            with node.client() as client:
                assert client.set("other", b"1") == "STORED"
                for _ in range(3):
                    before = node.statistics()["reads_sent"]
                    assert client.get("k") == b"old"
                    assert client.get("other") == b"1"
                    assert node.statistics()["reads_sent"] == before + 2, "each read asks the database"
                lock.release()
                until(lambda: client.get("k") == b"late", what="the late commit")
                for _ in range(20):
                    assert client.get("k") == b"late"

                def is_kept():
                    before = node.statistics()["reads_sent"]
                    assert client.get("k") == b"late"
                    return node.statistics()["reads_sent"] == before

                until(is_kept, what="a kept copy")
            node.url = right

    def test_another_node_is_left_alone(self, tmp_path, server):
        """Two nodes on one database: a start of one ends no session of the other."""
        with Node(tmp_path, backend="postgres") as one, one.client() as client:
            assert client.set("k", b"v") == "STORED"
            with Node(tmp_path, backend="postgres") as two:
                two.restart()
                assert client.set("k", b"w") == "STORED"
            assert one.statistics()["postgres_connections_made"] == 8


    def test_a_second_start_by_mistake(self, node, server):
        """With the same name: the first node loses its sessions, nothing else."""
        with node, node.client() as client:
            assert client.set("k", b"v") == "STORED"
            code, said = node.refuse()
            assert code != 0
            assert "Address already in use" in said
            until(lambda: client.set("k", b"w") == "STORED")
            node.settle()
            client.ask("flush_all")
            assert until(lambda: client.get("k")) == b"w"


class TestUnderLoad:
    def test_crashes_of_the_node(self, tmp_path):
        counts = judge(run_cycles(SEED, 6, directory=tmp_path, backend="postgres"))
        assert counts["acked"] > 5

    def test_crashes_of_node_and_server_together(self, tmp_path, server):
        judge(run_cycles(SEED, 5, directory=tmp_path, backend="postgres", disturb=lambda _: server.crash()))

    def test_crashes_of_the_server_under_load_lose_nothing(self, tmp_path):
        """A sample of `make soak-clients`: rows, versions that clients were told, and the records of changes agree."""
        counts = judge(run_database_cycles(SEED, 6, directory=tmp_path))
        assert counts["cycles"] == 6
        assert counts["acked"] > 100 and counts["records"] > 100

    def test_records_that_are_lost_are_noticed(self, tmp_path, server):
        """The comparison itself: a record, a row or a number that is gone is named."""
        writers = [CarefulWriter(0, random.Random(SEED))]
        directory = tmp_path / "node"
        regions = [{"name": "us-east", "role": "home"}]
        with RegionNode(directory, "us-east", regions, backend="postgres") as node, node.client(30) as client:
            for key in ("a", "b", "c"):
                version = client.ask(f"ms {key} 1 c\r\nv").split()[1][1:]
                writers[0].versions.add((key, int(version)))
            assert client.ask("delete c") == "DELETED"
            until(lambda: server.sql("SELECT count(*) FROM martlet_outbox", node.name) == "0")
            assert compare(server, node.name, writers) == (4, [])
            server.sql("UPDATE martlet_kv SET ver = ver + 1 WHERE k = 'a'", node.name)
            server.sql("DELETE FROM martlet_stream WHERE k = 'b'", node.name)
            server.sql("DELETE FROM martlet_kv WHERE k = 'c'", node.name)
            _, failures = compare(server, node.name, writers)
            text = "\n".join(failures)
            for part in ("a: the row is", "b: the row is", "b: no record of version", "has gaps"):
                assert part in text, text
            server.sql("DELETE FROM martlet_kv WHERE k = 'a'", node.name)
            assert "a: a record of" in "\n".join(compare(server, node.name, writers)[1])

    def test_crashes_of_the_server_and_ended_sessions(self, tmp_path):
        """Nothing acknowledged is lost, every unknown outcome becomes known, every key is linearizable."""
        counts = judge(run_round(SEED, 12_000, "database", directory=tmp_path, backend="postgres", seconds=60))
        assert counts.get("database crashes", 0) + counts.get("sessions ended", 0) > 0

    def test_linearizable_over_restarts(self, tmp_path):
        judge(run_round(SEED, 8_000, "restarts", directory=tmp_path, backend="postgres"))

    def test_sessions_that_end_again_and_again(self, tmp_path, server):
        """Counters: each acknowledged step is there once, those of unknown outcome once or not at all."""
        source = random.Random(SEED)
        with Node(tmp_path, backend="postgres") as node, node.client(30) as client:
            until(lambda: client.set("n", b"0") == "STORED")
            sure = perhaps = 0
            for turn in range(40):
                if turn % 4 == 0:
                    server.end_sessions(node.name)
                client.send(b"incr n 1\r\n" * 25)
                if turn % 4 == 2:
                    time.sleep(source.random() * 0.004)
                    server.end_sessions(node.name)
                for _ in range(25):
                    line = client.line()
                    sure += bool(re.fullmatch(r"\d+ *", line))
                    perhaps += line == LATE[0]
            node.settle()
            client.ask("flush_all")
            value = int(until(lambda: client.get("n")))
            print(f"{sure} acknowledged, {perhaps} unknown, {value} there")
            assert sure <= value <= sure + perhaps
            assert sure > 100
