# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What becomes of the reads of a pool while the stream is further behind than its bound (`lagPolicy`)."""

import struct
import time

import pytest

from .region import eventually
from .test_capture import sql, where
from .test_fills import Owners
from .test_streams import Pair
from .test_writes import Fleet

pytestmark = pytest.mark.ours
BEHIND = "SERVER_ERROR the stream is further behind than stream.lagBound"
POOLS = [{"prefix": "soft:", "lagPolicy": "serveStale"}, {"prefix": "hard:", "lagPolicy": "fail"}]
KEYS = ("soft:k", "hard:k", "k")


def behind(node):
    """Waits until the bound is over."""
    node.await_figures(trusted="no")


def meta(client, command):
    """The reply to an `mg` with v, and the value."""
    reply = client.ask(command)
    return (reply, client.line()) if reply.startswith("VA ") else reply


class Caches(Pair):
    """A plain cache with a pool of each policy that follows a home region."""

    def __init__(self, directory, **options):
        super().__init__(directory, replica={"mode": "replicate", "lagBound": "1s"}, **options)
        self.replica.rewrite(pools=POOLS)


@pytest.mark.parametrize("way", ["cut", "held"])
def test_a_cache_past_the_bound_shows_stale_copies_or_fails_or_misses(tmp_path, way):
    with Caches(tmp_path) as both, both.home.client() as home, both.replica.client() as replica:
        for key in (*KEYS, "soft:quiet", "hard:quiet", "soft:number"):
            home.set(key, "1")
            assert eventually(lambda key=key: replica.get(key)) == b"1"
        assert meta(replica, "mg soft:k v") == ("VA 1", "1"), "within the bound nothing is marked"
        if way == "cut":
            both.relay.cut()
        else:
            both.relay.is_held = True
        for key in KEYS:
            home.set(key, "2")
        behind(both.replica)
        assert meta(replica, "mg soft:k v") == ("VA 1 X", "1")
        assert meta(replica, "mg soft:k s v k Oab q") == ("VA 1 s1 ksoft:k Oab X", "1")
        assert meta(replica, "mg soft:k v R30 N30 h") == ("VA 1 h1 X", "1"), "nobody is told to fetch it again"
        assert replica.ask("mg soft:k") == "HD X" and replica.ask("mg soft:none v") == "EN"
        assert replica.get("soft:k") == b"1" and replica.get("soft:k", "gets") == b"1"
        assert replica.ask("mg hard:k v") == BEHIND and replica.ask("mg hard:none v q") == BEHIND
        assert replica.ask("get hard:k") == replica.ask("gat 0 hard:k") == BEHIND
        assert replica.get("k") is None and replica.ask("mg k v") == "EN"
        # Of a get of several keys the error takes the place of the rest.
        replica.send("get soft:k hard:k soft:quiet\r\nmn\r\nget soft:quiet\r\n")
        said = [replica.line() for _ in range(7)]
        assert said == ["VALUE soft:k 0 1", "1", BEHIND, "MN", "VALUE soft:quiet 0 1", "1", "END"]
        binary = both.replica.client()
        for key, status in ((b"soft:k", 0), (b"hard:k", 0x86), (b"k", 1)):
            binary.send(struct.pack(">BBHBBHIIQ", 0x80, 0, len(key), 0, 0, 0, len(key), 0, 0) + key)
            header = struct.unpack(">BBHBBHIIQ", binary.read(24))
            body = binary.read(header[6])
            assert header[5] == status and (status or body[4:] == b"1")
        # A write finds no copy that the stream does not vouch for, and what a client stores is marked as well.
        assert replica.ask("incr soft:number 1") == "NOT_FOUND"
        assert replica.set("soft:own", "3") == "STORED" and meta(replica, "mg soft:own v") == ("VA 1 X", "3")
        found = both.replica.figures()
        assert found["stale"] >= 9 and found["failed"] >= 6
        both.relay.heal()
        both.replica.await_figures(trusted="yes")
        for key in ("soft:k", "hard:k"):
            assert eventually(lambda key=key: meta(replica, f"mg {key} v") == ("VA 1", "2"))
        for key in ("soft:quiet", "hard:quiet"):
            assert meta(replica, f"mg {key} v") == ("VA 1", "1"), "nothing was forgotten, and nothing was missed of it"
        assert both.replica.figures()["quarantines"] == 64


def test_what_is_in_quarantine_is_not_shown_as_stale(tmp_path):
    with Caches(tmp_path) as both:
        both.relay.cut()
        both.replica.restart()
        with both.replica.client() as replica:
            for key in KEYS:
                assert replica.set(key, "1") == "STORED"
            assert both.replica.figures()["quarantined_slots"] == 64
            assert replica.get("soft:k") is None and replica.ask("get hard:k") == BEHIND


def test_a_region_that_reads_at_home_shows_stale_copies_without_asking_it(tmp_path):
    pools = [dict(pool, cacheTTL="1h", negativeTTL="60s") for pool in POOLS] + [{"prefix": "own:", "storage": False}]
    with Fleet(tmp_path, replica={"lagBound": "1s"}, pools=pools, storage_timeout="1s") as fleet:
        replica, home = fleet.replica.client(), fleet.home.client()
        for key in (*KEYS, "own:k"):
            assert replica.set(key, "1") == "STORED"
        assert replica.get("soft:none") is None
        fleet.stream.cut()
        for key in (*KEYS, "soft:none"):
            home.set(key, "2")
        behind(fleet.replica)
        reads = fleet.replica.statistics()["region_reads"]
        for _ in range(3):
            assert meta(replica, "mg soft:k v") == ("VA 1 X", "1") and replica.get("soft:k") == b"1"
            assert replica.ask("get hard:k") == BEHIND and replica.ask("mg hard:k v") == BEHIND
        assert replica.get("own:k") == b"1" and meta(replica, "mg own:k v") == ("VA 1", "1"), "no stream is about these"
        assert fleet.replica.statistics()["region_reads"] == reads
        assert replica.get("k") == b"2" and replica.get("soft:none") == b"2", "that there is nothing is not shown as stale"
        # A time to live is the row's to tell, and an expiry is a write.
        assert meta(replica, "mg soft:k v t") == ("VA 1 t-1", "2")
        assert meta(replica, "mg hard:k v T100") == ("VA 1", "2")
        # A client sees its own writes.
        assert replica.set("soft:k", "3") == "STORED" and meta(replica, "mg soft:k v") == ("VA 1 X", "3")
        replica.send("set soft:k 0 0 1\r\n4\r\nmg soft:k v\r\n")
        assert [replica.line() for _ in range(3)][::2] == ["STORED", "4"]
        fleet.home.kill()
        assert eventually(lambda: "storage: " in replica.ask("get soft:other"))
        assert meta(replica, "mg soft:k v") == ("VA 1 X", "4")
        assert meta(replica, "mg soft:k v t")[0].endswith(" X"), "home does not say, and the copy does"
        fleet.home.start()
        fleet.stream.heal()
        fleet.replica.await_figures(trusted="yes", quarantined_slots=0)
        assert eventually(lambda: meta(replica, "mg soft:k v") == ("VA 1", "4"))
        assert eventually(lambda: meta(replica, "mg hard:k v") == ("VA 1", "2"))


def test_other_regions_are_not_given_what_is_stale(tmp_path):
    with Owners(tmp_path, capture=True, bound="1s", pools=POOLS) as owners:
        late, replica = owners.late.client(), owners.replica.client()
        late.ask("config get owners")
        keys = {}
        for prefix in ("soft:", "hard:"):
            keys[prefix] = next(key for key in (f"{prefix}{n}" for n in range(99)) if "302" not in late.ask(f"mg {key} c"))
            assert late.set(keys[prefix], "old") == "STORED" and late.get(keys[prefix]) == b"old"
        owners.lag.is_held = True
        for key in keys.values():
            sql(owners, f"UPDATE martlet_kv SET val = 'raw' WHERE {where(key)}")
        behind(owners.late)
        assert meta(late, f"mg {keys['soft:']} v") == ("VA 3 X", "old") and late.ask(f"get {keys['hard:']}") == BEHIND
        for key in keys.values():
            assert replica.get(key) == b"raw"
        owners.lag.is_held = False
