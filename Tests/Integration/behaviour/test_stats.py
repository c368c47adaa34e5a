# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Statistics: the exact names that exporters and scripts look for, and figures that move as they should."""

import re
import time

import pytest

# What plain `stats` names in 1.6.45 without crawler and maintainer.
GENERAL = set(
    """accepting_conns auth_cmds auth_errors bytes bytes_read bytes_written cas_badval cas_hits cas_misses cmd_flush
    cmd_get cmd_meta cmd_set cmd_touch conn_yields connection_structures crawler_items_checked crawler_reclaimed
    curr_connections curr_items decr_hits decr_misses delete_hits delete_misses evicted_unfetched evictions
    expired_unfetched get_expired get_flushed get_hits get_misses hash_bytes hash_is_expanding hash_power_level
    incr_hits incr_misses libevent limit_maxbytes listen_disabled_num log_watcher_sent log_watcher_skipped
    log_watchers log_worker_dropped log_worker_written lrutail_reflocked malloc_fails max_connections pid pointer_size
    read_buf_bytes read_buf_bytes_free read_buf_count read_buf_oom reclaimed rejected_connections reserved_fds
    response_obj_bytes response_obj_count response_obj_oom round_robin_fallback rusage_system rusage_user
    slab_global_page_pool slab_reassign_busy_deletes slab_reassign_busy_items slab_reassign_busy_nomem
    slab_reassign_chunk_rescues slab_reassign_inline_reclaim slab_reassign_last_busy_status slab_reassign_rescues
    slab_reassign_running slabs_moved store_no_memory store_too_large threads time time_in_listen_disabled_us
    total_connections total_items touch_hits touch_misses unexpected_napi_ids uptime version""".split()
)
CRAWLING = {"lru_crawler_running", "lru_crawler_starts"}
MAINTAINING = {
    "direct_reclaims", "evicted_active", "lru_bumps_dropped", "lru_maintainer_juggles", "moves_to_cold",
    "moves_to_warm",
    "moves_within_lru",
}  # fmt: skip
TLS = {"ssl_new_sessions", "ssl_handshake_errors", "ssl_proto_errors", "time_since_server_cert_refresh"}
SETTINGS = set(
    """maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask shutdown_command
    growth_factor chunk_size num_threads num_threads_per_udp stat_key_prefix detail_enabled reqs_per_event cas_enabled
    tcp_backlog binding_protocol auth_enabled_sasl auth_enabled_ascii item_size_max maxconns_fast hashpower_init
    slab_reassign slab_automove slab_automove_ratio slab_automove_window slab_chunk_max lru_crawler lru_crawler_sleep
    lru_crawler_tocrawl tail_repair_time flush_enabled dump_enabled hash_algorithm lru_maintainer_thread lru_segmented
    hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor temp_lru temporary_ttl idle_timeout watcher_logbuf_size
    worker_logbuf_size read_buf_mem_limit track_sizes inline_ascii_response memory_file client_flags_size
    num_napi_ids""".split()
)
ITEMS = {
    "number", "number_hot", "number_warm", "number_cold", "age_hot", "age_warm", "age", "mem_requested", "evicted",
    "evicted_nonzero", "evicted_time", "outofmemory", "tailrepairs", "reclaimed", "expired_unfetched",
    "evicted_unfetched",
    "crawler_reclaimed", "crawler_items_checked", "lrutail_reflocked", "direct_reclaims", "moves_to_cold",
    "moves_to_warm",
    "moves_within_lru", "hits_to_hot", "hits_to_warm", "hits_to_cold", "hits_to_temp",
}  # fmt: skip
SLABS = {
    "chunk_size", "chunks_per_page", "total_pages", "total_chunks", "used_chunks", "free_chunks", "free_chunks_end",
    "get_hits", "cmd_set", "delete_hits", "incr_hits", "decr_hits", "cas_hits", "cas_badval", "touch_hits",
}  # fmt: skip


@pytest.mark.newest
def test_names_without_crawler_and_maintainer(start):
    with start("-o no_lru_crawler,no_lru_maintainer").client() as client:
        rows = client.lines("stats")
        names = [row.split()[1] for row in rows]
        assert len(names) == len(set(names)) == 84
        assert set(names) == GENERAL


@pytest.mark.newest
def test_names_by_default(start):
    with start().client() as client:
        assert set(client.stats()) == GENERAL | CRAWLING | MAINTAINING


def test_idle_kicks_appear_with_the_idle_timeout(start):
    with start("-o idle_timeout=100").client() as client:
        assert client.stats()["idle_kicks"] == "0"


@pytest.mark.newest
def test_names_of_the_settings(start):
    with start("-m 100 -c 200 -t 3 -I 2m -b 77 -R 7 -o idle_timeout=50").client() as client:
        settings = client.stats("settings")
        assert set(settings) >= SETTINGS
        for name, value in {
            "maxbytes": str(100 << 20), "maxconns": "200", "num_threads": "3", "item_size_max": str(2 << 20),
            "tcp_backlog": "77", "reqs_per_event": "7", "idle_timeout": "50", "evictions": "on", "udpport": "0",
            "inter": "127.0.0.1", "verbosity": "0", "domain_socket": "NULL", "umask": "700", "cas_enabled": "yes",
            "binding_protocol": "auto-negotiate", "auth_enabled_sasl": "no", "auth_enabled_ascii": "no",
            "flush_enabled": "yes",
            "dump_enabled": "yes", "shutdown_command": "no", "detail_enabled": "no", "maxconns_fast": "yes",
            "stat_key_prefix": ":", "memory_file": "(null)",
        }.items():  # fmt: skip
            assert settings[name] == value, name


def test_names_of_items_and_slabs(start):
    with start().client() as client:
        assert client.stats("items") == {}
        client.set("k", b"x" * 100)
        items = client.stats("items")
        classes = {name.split(":")[1] for name in items}
        assert all(re.fullmatch(r"items:\d+:\w+", name) for name in items)
        assert len(classes) == 1
        assert {name.split(":")[2] for name in items} >= ITEMS
        assert items[f"items:{classes.pop()}:number"] == "1"
        slabs = client.stats("slabs")
        assert int(slabs["active_slabs"]) >= 1
        assert int(slabs["total_malloced"]) > 0
        assert {name.split(":")[1] for name in slabs if ":" in name} >= SLABS


def test_types_that_exporters_parse(start):
    with start("-t 3").client() as client:
        stats = client.stats()
        assert all(re.fullmatch(r"\d+", stats[name]) for name in GENERAL & set(stats) - {
            "version", "libevent", "rusage_user", "rusage_system", "slab_reassign_last_busy_status"})  # fmt: skip
        assert re.fullmatch(r"\d+\.\d{6}", stats["rusage_user"])
        assert stats["pointer_size"] == "64"
        assert stats["threads"] == "3"
        assert abs(int(stats["time"]) - time.time()) < 5
        assert client.ask("version") == f"VERSION {stats['version']}"


def test_counters_count(start):
    with start().client() as client:
        client.set("a", b"1")
        client.get("a"), client.get("none")
        client.ask("incr a 1"), client.ask("incr none 1"), client.ask("decr a 1"), client.ask("decr none 1")
        client.ask("touch a 0"), client.ask("touch none 0")
        client.ask("delete a"), client.ask("delete a")
        client.set("c", b"x"), client.send("gets c\r\n")
        token = client.line().split()[4]
        client.line(), client.line()
        client.send(f"cas c 0 0 1 {token}\r\ny\r\ncas c 0 0 1 {token}\r\nz\r\ncas none 0 0 1 1\r\nz\r\n")
        assert [client.line() for _ in range(3)] == ["STORED", "EXISTS", "NOT_FOUND"]
        client.set("large", b"x" * (2 << 20))
        client.ask("flush_all")
        stats = client.stats()
        expected = {
            "cmd_get": 3, "get_hits": 2, "get_misses": 1, "incr_hits": 1, "incr_misses": 1, "decr_hits": 1,
            "decr_misses": 1,
            "touch_hits": 1, "touch_misses": 1, "cmd_touch": 2, "delete_hits": 1, "delete_misses": 1, "cas_hits": 1,
            "cas_badval": 1, "cas_misses": 1, "store_too_large": 1, "cmd_flush": 1, "cmd_set": 5,
            "curr_connections": None,
        }  # fmt: skip
        for name, value in expected.items():
            assert value is None or int(stats[name]) == value, name
        assert int(stats["bytes_read"]) > 2 << 20
        assert int(stats["bytes_written"]) > 100


def test_reset_clears_what_counts_and_keeps_what_is(start):
    with start().client() as client:
        client.set("a", b"1")
        client.get("a"), client.get("b")
        assert client.ask("stats reset") == "RESET"
        stats = client.stats()
        assert {
            stats[name] for name in ("cmd_get", "cmd_set", "get_hits", "get_misses", "total_items", "evictions")
        } == {"0"}
        assert stats["curr_items"] == "1"
        assert int(stats["bytes"]) > 0


def test_items_bytes_and_totals(start):
    with start().client() as client:
        for number in range(100):
            client.set(f"k{number}", b"x" * 100)
        stats = client.stats()
        assert stats["curr_items"] == stats["total_items"] == "100"
        assert 100 * 100 < int(stats["bytes"]) < 100 * 250
        for number in range(50):
            client.ask(f"delete k{number}")
        stats = client.stats()
        assert (stats["curr_items"], stats["total_items"]) == ("50", "100")


def test_connections_are_counted(start):
    server = start()
    with server.client() as client:
        before = None  # the connection that the bed looked with may just be closing
        while before != (before := int(client.stats()["curr_connections"])):
            time.sleep(0.05)
        others = [server.client() for _ in range(5)]
        assert all(other.ask("mn") == "MN" for other in others)
        assert int(client.stats()["curr_connections"]) == before + 5
        total = int(client.stats()["total_connections"])
        for other in others:
            other.close()
        deadline = time.monotonic() + 5
        while int(client.stats()["curr_connections"]) != before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert int(client.stats()["curr_connections"]) == before
        assert int(client.stats()["total_connections"]) == total


def test_conns_describes_each_connection(start):
    server = start()
    with server.client() as client, server.client() as other:
        other.ask("mn")
        rows = client.stats("conns")
        by_id = {}
        for name, value in rows.items():
            number, _, field = name.partition(":")
            by_id.setdefault(number, {})[field] = value
        states = [fields["state"] for fields in by_id.values()]
        assert "conn_listening" in states
        ours = client.socket.getsockname()[1]
        mine = next(fields for fields in by_id.values() if fields["addr"] == f"tcp:127.0.0.1:{ours}")
        assert mine["listen_addr"] == f"tcp:127.0.0.1:{server.port}"
        assert mine["state"] == "conn_parse_cmd"
        assert int(mine["secs_since_last_cmd"]) <= 1
        assert len(by_id) >= 3


def test_details_by_prefix(start):
    with start("-D .").client() as client:
        client.set("one.a", b"1")
        client.get("one.a"), client.get("one.b"), client.get("two.a")
        client.ask("delete one.a")
        client.set("noprefix", b"1")
        rows = set(client.lines("stats detail dump"))
        assert "PREFIX one get 2 hit 1 set 1 del 1" in rows
        assert "PREFIX two get 1 hit 0 set 0 del 0" in rows
        assert client.ask("stats detail off") == "OK"
        client.get("one.a")
        assert "PREFIX one get 2 hit 1 set 1 del 1" in set(client.lines("stats detail dump"))
        assert client.ask("stats detail bogus").startswith("CLIENT_ERROR usage")


def test_sizes_are_off_unless_asked(start):
    with start().client() as client:
        assert client.stats("sizes") == {"sizes_status": "disabled"}


def test_sizes_by_thirty_two_bytes(start):
    with start("-o track_sizes").client() as client:
        for number in range(10):
            client.set(f"k{number}", b"x" * 100)
        sizes = client.stats("sizes")
        assert sum(map(int, sizes.values())) == 10
        assert all(int(size) % 32 == 0 for size in sizes)


def test_cachedump(start):
    # With its maintainer, memcached lists only what that has moved to the coldest of its lists.
    with start("-o no_lru_crawler,no_lru_maintainer").client() as client:
        client.set("dumped", b"x" * 10)
        client.set("undying", b"x" * 10, exptime=100)
        classes = {name.split(":")[1] for name in client.stats("items")}
        rows = [row for number in classes for row in client.lines(f"stats cachedump {number} 100")]
        assert {row.split()[1] for row in rows} == {"dumped", "undying"}
        assert all(re.fullmatch(r"ITEM \S+ \[10 b; \d+ s\]", row) for row in rows)
        assert client.lines(f"stats cachedump {classes.pop()} 1")


def test_evictions_and_reclaims_are_told_apart(start):
    with start("-m 16 -t 1").client(timeout=30) as client:
        value = b"x" * 1000
        for first in range(0, 40_000, 500):
            client.send(b"".join(b"set e%d 0 0 1000 noreply\r\n%s\r\n" % (n, value) for n in range(first, first + 500)))
        assert client.ask("mn") == "MN"
        stats = client.stats()
        assert int(stats["evictions"]) > 0
        assert int(stats["evicted_unfetched"]) > 0
        assert int(stats["total_items"]) == 40_000
        assert int(stats["curr_items"]) + int(stats["evictions"]) == 40_000


@pytest.mark.ours
def test_hot_keys(start):
    with start().client() as client:
        for _ in range(3000):
            client.send("get hottest\r\n" * 5 + "get warm\r\n")
            for _ in range(6):
                client.line()
        rows = client.lines("stats hotkeys")
        assert rows
        assert "hottest" not in "\n".join(rows), "keys are hashed unless asked for"
