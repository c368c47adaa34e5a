# Martlet
# SPDX-License-Identifier: Apache-2.0
"""`watch` streams and the key dumps: the lines that log readers and cache warmers parse."""

import re
import time

import pytest


def watch(server, words):
    watcher = server.client(timeout=10)
    watcher.send(f"watch {words}\r\n")
    assert watcher.line() == "OK"
    return watcher


def until(watcher, pattern):
    """Reads lines until one matches; that line's fields."""
    while True:
        line = watcher.line()
        if re.search(pattern, line):
            return dict(field.split("=", 1) for field in line.split())


def test_fetchers(start):
    server = start("-t 2")
    with watch(server, "fetchers") as watcher, server.client() as client:
        client.set("seen", b"v")
        client.get("seen"), client.get("unseen")
        found = until(watcher, r"key=seen status=found")
        assert found["type"] == "item_get"
        assert re.fullmatch(r"\d+\.\d{1,6}", found["ts"])
        assert int(found["gid"]) >= 1
        assert int(found["cfd"]) > 0
        assert until(watcher, r"key=unseen")["status"] == "not_found"


def test_mutations(start):
    server = start("-t 2")
    with watch(server, "mutations") as watcher, server.client() as client:
        client.set("m", b"value", exptime=100)
        found = until(watcher, r"key=m ")
        assert (found["type"], found["status"], found["cmd"], found["size"]) == ("item_store", "stored", "set", "5")
        client.set("m", b"x", verb="add")
        assert until(watcher, r"cmd=add")["status"] == "not_stored"


@pytest.mark.newest
def test_mutations_name_the_time_to_live(start):
    server = start("-t 2")
    with watch(server, "mutations") as watcher, server.client() as client:
        client.set("m", b"value", exptime=100)
        assert until(watcher, r"key=m ")["ttl"] == "100"


@pytest.mark.newest
def test_deletions(start):
    server = start("-t 2")
    with watch(server, "deletions") as watcher, server.client() as client:
        client.set("d", b"value")
        client.ask("delete d")
        found = until(watcher, r"key=d ")
        assert (found["type"], found["cmd"], found["size"]) == ("deleted", "delete", "5")
        client.set("d", b"value")
        client.ask("md d")
        assert until(watcher, r"key=d ")["cmd"] == "md"


def test_connection_events(start):
    server = start("-t 2")
    with watch(server, "connevents") as watcher:
        client = server.client()
        client.ask("mn")
        port = str(client.socket.getsockname()[1])
        client.close()
        found = until(watcher, f"type=conn_new .*rport={port}")
        assert (found["rip"], found["transport"]) == ("127.0.0.1", "tcp")
        assert until(watcher, f"type=conn_close .*rport={port}")["reason"] == "normal"


def test_evictions(start):
    server = start("-m 8 -t 1")
    with watch(server, "evictions") as watcher, server.client(timeout=30) as client:
        for first in range(0, 20_000, 500):
            client.send(
                b"".join(b"set e%d 0 0 1000 noreply\r\n%s\r\n" % (n, b"x" * 1000) for n in range(first, first + 500))
            )
        assert client.ask("mn") == "MN"
        found = until(watcher, r"type=eviction")
        assert found["key"].startswith("e")
        assert found["fetch"] in ("yes", "no")


def test_keys_are_written_safely(start):
    server = start("-t 2")
    with watch(server, "fetchers") as watcher, server.client() as client:
        client.send(b"get a=b%c\xff\r\n")
        client.line()
        assert until(watcher, r"type=item_get")["key"] == "a%3Db%25c%FF"


def test_several_watchers_and_their_count(start):
    server = start("-t 2")
    with watch(server, "fetchers") as one, watch(server, "fetchers mutations") as other, server.client() as client:
        client.get("k")
        until(one, r"key=k "), until(other, r"key=k ")
        assert client.stats()["log_watchers"] == "2"
    with server.client() as client:
        deadline = time.monotonic() + 5
        while client.stats()["log_watchers"] != "0" and time.monotonic() < deadline:
            client.get("k")
            time.sleep(0.02)
        assert client.stats()["log_watchers"] == "0"


def test_refuses_what_it_does_not_know(start):
    server = start()
    with server.client() as client:
        assert client.ask("watch bogus") == "ERROR"
        assert client.ask("mn") == "MN"


def test_a_watcher_that_does_not_read_costs_nothing(start):
    server = start("-t 2")
    with watch(server, "fetchers"), server.client(timeout=20) as client:
        for _ in range(20):
            client.send("get " + " ".join(f"k{number}" for number in range(2000)) + "\r\n")
            assert client.line() == "END"
        assert server.rss() < 120 << 20
        assert client.ask("mn") == "MN"


DUMP = re.compile(r"key=(\S+) exp=(-?\d+) la=(\d+) cas=(\d+) fetch=(yes|no) cls=(\d+) size=(\d+)( flags=(\d+))? ?")


def dump(client, what, end):
    client.send(f"lru_crawler {what}\r\n")
    rows = []
    while True:
        row = client.line()
        if row == end:
            return rows
        if row != "OK" or rows:
            rows.append(row)


@pytest.mark.parametrize("what", ["all", "hash"])
def test_metadump(start, what, original):
    with start().client(timeout=20) as client:
        if original:
            time.sleep(1.2)  # a memcached's crawler may miss its first order when that comes while it starts
        client.set("plain", b"x" * 10)
        client.set("timed", b"x" * 10, exptime=1000, flags=7)
        client.set("odd%key", b"x")
        client.get("plain")
        rows = [DUMP.fullmatch(row) for row in dump(client, f"metadump {what}", "END")]
        assert all(rows)
        by_key = {row[1]: row for row in rows}
        assert set(by_key) == {"plain", "timed", "odd%25key"}
        assert by_key["plain"][2] == "-1"
        assert abs(int(by_key["timed"][2]) - time.time() - 1000) < 5
        assert (by_key["plain"][5], by_key["timed"][5]) == ("yes", "no")
        assert client.ask("mn") == "MN", "the connection goes on"


@pytest.mark.newest
def test_metadump_names_client_flags(start):
    with start().client(timeout=20) as client:
        client.set("flagged", b"x", flags=7)
        (row,) = dump(client, "metadump all", "END")
        assert DUMP.fullmatch(row)[9] == "7"


@pytest.mark.newest
def test_mgdump_is_a_list_of_commands(start):
    with start().client(timeout=20) as client:
        keys = {f"key{number}" for number in range(500)}
        for key in keys:
            client.set(key, b"v")
        rows = dump(client, "mgdump all", "EN")
        assert {row.removeprefix("mg ") for row in rows} == keys
        client.send("".join(f"{row} s\r\n" for row in rows))
        assert {client.line() for _ in rows} == {"HD s1"}


def test_a_dump_of_100_000_items_while_they_are_used(start):
    server = start("-m 64 -t 2")
    with server.client(timeout=30) as client, server.client(timeout=30) as other:
        for first in range(0, 100_000, 1000):
            client.send(b"".join(b"set d%d 0 0 10 noreply\r\n0123456789\r\n" % n for n in range(first, first + 1000)))
        assert client.ask("mn") == "MN"
        client.send("lru_crawler metadump all\r\n")
        for number in range(2000):
            other.set(f"d{number}", b"changed")
        rows = set()
        while (row := client.line()) != "END":
            if row != "OK":
                rows.add(row.split()[0])
        assert len(rows) >= 97_000


def test_dump_refuses_bad_classes(start):
    with start().client() as client:
        assert client.ask("lru_crawler metadump 999") == "BADCLASS invalid class id"
        assert client.ask("lru_crawler metadump") == "ERROR"


@pytest.mark.ours
def test_system_events_tell_of_crawls(start):
    server = start("-t 1")
    watcher = watch(server, "sysevents rawcmds")
    with server.client() as client:
        client.set("k", b"v")
        assert client.ask("lru_crawler sleep 1000") == "OK"
        assert client.ask("lru_crawler crawl all") == "OK"
    line = watcher.line()
    assert " type=lru_crawler crawler=1 lru=all " in line and line.endswith("examined=1 reclaimed=0")
