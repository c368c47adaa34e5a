# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Deletes that a server missed are kept, and done before anybody reads from it again."""

import json
import shutil
import time

import pytest
from bed import Closed, Crew, Patience, until
from discovery.etcd import Etcd

from .bed import Relay, keys_by_node


@pytest.fixture
def pair(start):
    return [start("-m 64 -t 1") for _ in range(2)]


@pytest.fixture
def relays(pair):
    """In front of each node one: a node that cannot be reached keeps what it has."""
    made = [Relay(node.port) for node in pair]
    yield made
    for relay in made:
        relay.stop()


@pytest.fixture
def etcd(tmp_path):
    if shutil.which("etcd") is None:
        pytest.fail("there is no etcd: run make install")
    server = Etcd(tmp_path / "etcd")
    server.start()
    yield server
    server.stop()


def spooling(route, relays, folder, flags=""):
    addresses = [f"127.0.0.1:{relay.port}" for relay in relays]
    return route(addresses, f"--spool-directory={folder} --upstream-timeout=200ms --health-first-probe=50ms {flags}")


class Readers(Crew):
    """Clients that read keys of which every value is stale, as fast as they can, until told to stop."""

    def __init__(self, router, keys):
        super().__init__(3)
        self.router, self.keys, self.stale, self.misses = router, keys, [], set()

    def run(self, number):
        try:
            with self.router.client() as one:
                while not self.over.is_set():
                    self.read(one, number)
        except (Closed, OSError):
            # The router is gone.
            return

    def read(self, one, number):
        for key in self.keys:
            said = one.ask(f"get {key}") if number else one.ask(f"mg {key} v")
            if said.startswith(("VALUE", "VA ")):
                self.stale.append((key, said))
                self.over.set()
                return
            if said in ("END", "EN"):
                self.misses.add(key)

    def verify(self):
        assert not self.stale, self.stale[:3]


def await_misses(readers, keys, seconds=15):
    patience = Patience(seconds)
    while readers.misses != set(keys):
        assert not readers.stale, readers.stale
        assert not patience.is_over, f"{len(readers.misses)} of {len(keys)} can be read again"
        time.sleep(0.02)


def line_of(router, relay):
    with router.client() as one:
        return one.stats("servers")[f"127.0.0.1:{relay.port}"]


def test_a_server_that_returns_is_not_read_before_it_did_what_it_missed(route, pair, relays, tmp_path):
    router = spooling(route, relays, tmp_path / "spool", "-t 2")
    with router.client() as one:
        lost, kept = keys_by_node(one, pair, 300)
        relays[0].cut()
        for number, key in enumerate(lost):
            command = [f"delete {key}", f"md {key} k Oq{number}"][number % 2]
            said = one.ask(command)
            assert said == ["NOT_FOUND", f"NF k{key} Oq{number}"][number % 2], said
        assert one.ask(f"get {lost[0]}") == "SERVER_ERROR unavailable"
        # The other server's keys are as ever.
        assert one.ask(f"delete {kept[0]}") == "DELETED"
        assert one.get(kept[1]) == kept[1].encode()
        assert "missed_deletes:300 reads:withheld" in line_of(router, relays[0])
        with pair[0].client() as direct:
            assert all(direct.get(key) for key in lost), "the server has them all, and nobody may see them"
        with Readers(router, lost) as readers:
            relays[0].mend()
            await_misses(readers, lost)
        assert "missed_deletes:0 reads:yes" in line_of(router, relays[0])
        # Each thread of a router finds out for itself that a server is there again.
        end = time.monotonic() + 10
        while (said := one.set(lost[0], "new")) != "STORED":
            assert said == "SERVER_ERROR unavailable" and time.monotonic() < end, said
            time.sleep(0.02)
        assert one.get(lost[0]) == b"new"
        general = one.stats()
        assert (general["deletes_kept"], general["deletes_pending"]) == ("300", "0")
        assert int(general["deletes_repeated"]) >= 300
    assert not list((tmp_path / "spool").glob("*/*.spool"))


def test_a_server_that_stood_still_and_quiet_deletes(route, pair, relays, tmp_path):
    """Deletes that timed out, and such that nobody waits for: by noreply, q, and by clients that are gone."""
    router = spooling(route, relays, tmp_path / "spool")
    with router.client() as one:
        lost, _ = keys_by_node(one, pair, 40)
        relays[0].hold()
        one.send(f"delete {lost[0]} noreply\r\nmd {lost[1]} q\r\n")
        with router.client() as other:
            other.send("".join(f"delete {key}\r\n" for key in lost[2:20]))
        assert one.ask(f"delete {lost[20]}") in ("NF", "NOT_FOUND")
        with Readers(router, lost[:21]) as readers:
            # Nobody says when the last of them has failed.
            end = time.monotonic() + 5
            while "missed_deletes:21" not in line_of(router, relays[0]):
                assert time.monotonic() < end, line_of(router, relays[0])
                time.sleep(0.02)
            relays[0].release()
            await_misses(readers, lost[:21])
    with router.client() as one:
        # Where the machine is busy, what was held for long has been given up, and is tried again soon.
        until(lambda: one.ask(f"mg {lost[30]}") == "HD")
        assert one.get(lost[30]) == lost[30].encode()


def test_binary_deletes_are_kept(route, pair, relays, tmp_path):
    import bmemcached

    router = spooling(route, relays, tmp_path / "spool")
    with router.client() as one:
        lost, _ = keys_by_node(one, pair, 5)
        client = bmemcached.Client([f"127.0.0.1:{router.port}"])
        relays[0].cut()
        assert client.delete(lost[0]) in (True, False)
        assert "missed_deletes:1" in line_of(router, relays[0])
        relays[0].mend()
        with Readers(router, lost[:1]) as readers:
            await_misses(readers, lost[:1])


def test_a_router_that_was_killed_repeats_what_it_kept(route, pair, relays, tmp_path):
    folder = tmp_path / "spool"
    router = spooling(route, relays, folder)
    with router.client() as one:
        lost, _ = keys_by_node(one, pair, 50)
        relays[0].cut()
        for key in lost:
            assert one.ask(f"delete {key}") == "NOT_FOUND"
    router.process.kill()
    router.wait()
    # The end of a record that was being written when the power went.
    segment = next(folder.glob("*/*.spool"))
    segment.write_bytes(segment.read_bytes() + b"\x05\x00\x00\x00torn")
    relays[0].mend()
    again = spooling(route, relays, folder)
    with Readers(again, lost) as readers:
        await_misses(readers, lost)
    assert not list(folder.glob("*/*.spool"))
    # Two routers in one directory would repeat and remove what is the other's.
    with pytest.raises(Exception, match="spool.directory"):
        spooling(route, relays, folder)


def test_a_full_spool_refuses(route, pair, relays, tmp_path):
    router = spooling(route, relays, tmp_path / "spool", "--spool-limit=64KiB")
    with router.client() as one:
        _, lost = keys_by_node(one, pair, 2)
        relays[1].cut()
        said = []
        one.ask(f"delete {lost[0]}")
        padding = "x" * 200
        # Whatever the owner of a key is: those of the other server are not there.
        for number in range(1200):
            said.append(one.ask(f"delete full-{number}-{padding}"))
        assert said[-300:].count("SERVER_ERROR unavailable") > 50
        assert int(one.stats()["deletes_kept"]) < 330
    size = sum(file.stat().st_size for file in (tmp_path / "spool").glob("*/*.spool"))
    assert size <= 65536


def test_a_delete_goes_on_to_the_gutter(route, pair, relays, tmp_path):
    document = {
        "pools": {
            "main": {"servers": [f"127.0.0.1:{relays[0].port}"], "spool": True, "timeout": "200ms"},
            "gutter": {"servers": [f"127.0.0.1:{relays[1].port}"]},
            "stored": {"servers": [f"127.0.0.1:{relays[0].port}"], "timeout": "200ms"},
        },
        "route": {"prefixes": {"stored:": "stored"}, "otherwise": {"failover": ["main", "gutter"], "ttl": "60s"}},
    }
    file = tmp_path / "router.yaml"
    file.write_text(json.dumps(document))
    router = route((), f"--config {file} --spool-directory={tmp_path}/spool --health-first-probe=50ms")
    with router.client() as one:
        assert one.set("k", "old") == "STORED" and one.set("stored:k", "old") == "STORED"
        relays[0].cut()
        assert one.get("k") is None
        assert one.set("k", "older") == "STORED" and one.get("k") == b"older"
        assert one.ask("delete k") == "DELETED"
        assert one.get("k") is None
        # What a pool with storage misses is an error.
        assert one.ask("delete stored:k").startswith("SERVER_ERROR")
        relays[0].mend()
        with Readers(router, ["k"]):
            end = time.monotonic() + 10
            while "missed_deletes:0" not in line_of(router, relays[0]):
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(0.5)
        with pair[0].client() as direct:
            assert direct.get("k") is None and direct.get("stored:k") == b"old"


def test_every_router_of_a_fleet_in_etcd_withholds_reads(route, pair, relays, etcd, tmp_path):
    """One router cannot reach a node that the other can: what the first deleted the second does not serve."""
    place = f"etcd://127.0.0.1:{etcd.port}/martlet/main"
    for number, relay in enumerate(relays):
        etcd.put(f"/martlet/main/{number}", {"host": "127.0.0.1", "port": relay.port})

    def begin(name):
        file = tmp_path / f"{name}.yaml"
        file.write_text(json.dumps({
            "pools": {"main": {"members": place, "spool": True, "timeout": "200ms", "hash": "rendezvous"}},
            "route": "main"}))
        return route((), f"--config {file} --spool-directory={tmp_path}/{name} --health-first-probe=50ms")

    def marks():
        return list(etcd.keys("/martlet/main.repairing/"))

    first, second = begin("first"), begin("second")
    with first.client() as one, second.client() as two:
        lost, _ = keys_by_node(one, pair, 60)
        assert all(two.get(key) == key.encode() for key in lost)
        relays[0].block(first.pid)
        for key in lost:
            assert one.ask(f"delete {key}") == "NOT_FOUND"
        assert [key.split("/")[3] for key in marks()] == [f"127.0.0.1:{relays[0].port}"]
        # It takes a message from etcd until the other one knows.
        end = time.monotonic() + 2
        while two.ask(f"mg {lost[0]} s") != "SERVER_ERROR unavailable":
            assert time.monotonic() < end
        assert "missed_deletes:0 reads:withheld" in line_of(second, relays[0])
        assert two.ask(f"delete {lost[1]}") == "DELETED", "only reads are withheld"
        with Readers(second, lost) as others, Readers(first, lost) as readers:
            # A router that is away keeps its mark; so does one that comes back, and one that starts meanwhile reads it.
            first.process.kill()
            first.wait()
            readers.over.set()
            time.sleep(1)
            assert not others.misses and not others.stale
            third = begin("third")
            with third.client() as fresh:
                assert fresh.ask(f"get {lost[2]}") == "SERVER_ERROR unavailable"
            relays[0].unblock()
            first = begin("first")
            await_misses(others, lost)
        end = time.monotonic() + 5
        while marks():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert second.client().set(lost[0], "new") == "STORED"


def test_a_delete_that_cannot_be_marked_fails(route, pair, relays, etcd, tmp_path):
    """Without etcd other routers would serve what was deleted, so the client is told; it is repeated all the same."""
    place = f"etcd://127.0.0.1:{etcd.port}/martlet/main"
    for number, relay in enumerate(relays):
        etcd.put(f"/martlet/main/{number}", {"host": "127.0.0.1", "port": relay.port})
    router = spooling(route, [], tmp_path / "spool", place)
    with router.client() as one:
        lost, _ = keys_by_node(one, pair, 3)
        etcd.stop()
        relays[0].cut()
        assert one.ask(f"delete {lost[0]}").startswith("SERVER_ERROR")
        with Readers(router, lost[:1]) as readers:
            relays[0].mend()
            await_misses(readers, lost[:1])
