# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Keys that everybody reads: the router gives one answer to many, never what was there before a write it knows of."""

import threading
import time

import pytest

HOT = "--hot-keys-cache-ttl=100ms --hot-keys-threshold=300"


@pytest.fixture
def node(start):
    return start("-m 64 -t 1")


class Readers:
    """Clients that read a key over and over, each on a connection of its own; the values that came, newest last."""

    def __init__(self, router, key, clients=6):
        self.router, self.key, self.over, self.problems, self.reads = router, key, threading.Event(), [], 0
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self):
        last = 0
        with self.router.client() as one:
            while not self.over.is_set():
                one.send(f"get {self.key}\r\n" * 10)
                for _ in range(10):
                    line = one.line()
                    if line == "END":
                        continue
                    value = int(one.read(int(line.split()[3]) + 7)[:-7])
                    if value < last:
                        self.problems.append((last, value))
                    last = value
                    self.reads += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(20)


def await_hot(router, seconds=10):
    end = time.monotonic() + seconds
    with router.client() as one:
        while int(one.stats()["hot_keys"]) == 0:
            assert time.monotonic() < end, "the key never became hot"
            time.sleep(0.1)


def test_a_hot_key_costs_its_server_little(route, node):
    router = route([node], f"-t 2 {HOT}")
    with router.client() as one, node.client() as direct:
        one.set("hot", "1")
        with Readers(router, "hot") as readers:
            await_hot(router)
            before, reads = int(direct.stats()["cmd_get"]), readers.reads
            time.sleep(2)
            asked, served = int(direct.stats()["cmd_get"]) - before, readers.reads - reads
        print(f"{served} reads of a hot key, {asked} of them reached its server")
        assert served > 1000 and asked < served / 5
        assert int(one.stats()["hot_hits"]) > 1000
        # What nobody reads is not hot for long.
        time.sleep(2.5)
        assert one.stats()["hot_keys"] == "0"


def test_nobody_reads_what_was_there_before_a_write(route, node):
    """The writer reads what it wrote on another connection, and so on another thread, at once."""
    router = route([node], f"-t 2 {HOT}")
    with router.client() as writer:
        writer.set("hot", "0")
        readers = [router.client() for _ in range(4)]
        with Readers(router, "hot") as load:
            await_hot(router)
            end, number = time.monotonic() + 4, 0
            while time.monotonic() < end:
                number += 1
                said = [writer.ask(f"set hot 0 0 {len(str(number))}\r\n{number}") if number % 3 else
                        writer.ask(f"ms hot {len(str(number))}\r\n{number}")]
                assert said[0] in ("STORED", "HD")
                for one in readers:
                    assert int(one.get("hot")) == number
                if number % 5 == 0:
                    assert writer.ask("incr hot 1") == str(number + 1)
                    number += 1
                    assert int(readers[number % 4].get("hot")) == number
        assert number > 100 and not load.problems, load.problems[:3]
        assert writer.ask("delete hot") == "DELETED"
        assert all(one.get("hot") is None for one in readers)
        assert int(writer.stats()["hot_hits"]) > 100


def test_what_others_write_is_seen_after_a_moment(route, node):
    router = route([node], f"-t 1 {HOT}")
    with router.client() as one, node.client() as direct:
        one.set("hot", "1")
        with Readers(router, "hot"):
            await_hot(router)
            for number in range(2, 8):
                direct.set("hot", str(number))
                time.sleep(0.25)
                assert one.get("hot") == str(number).encode()


def test_without_the_setting_every_read_reaches_its_server(route, node):
    router = route([node], "-t 1")
    with router.client() as one, node.client() as direct:
        one.set("hot", "1")
        before = int(direct.stats()["cmd_get"])
        one.send("get hot\r\n" * 3000 + "mn\r\n")
        while one.line() != "MN":
            pass
        assert int(direct.stats()["cmd_get"]) - before == 3000


SPREAD = "--hot-keys-copies=3 --hot-keys-threshold=200"


@pytest.fixture
def three(start):
    return [start("-m 64 -t 1") for _ in range(3)]


def await_spread(client, reads=300, seconds=15):
    end = time.monotonic() + seconds
    while int(client.stats()["hot_spread"]) < reads:
        assert time.monotonic() < end, "the key was never read from a copy"
        time.sleep(0.1)


def test_a_hot_key_is_read_from_several_servers(route, three):
    router = route(three, f"-t 2 {SPREAD}")
    with router.client() as one:
        one.set("hot", "1")
        directs = [node.client() for node in three]
        with Readers(router, "hot"):
            await_spread(one)
            before = [int(direct.stats()["get_hits"]) for direct in directs]
            time.sleep(2)
            hits = [int(direct.stats()["get_hits"]) - past for direct, past in zip(directs, before)]
        print("hits by server", hits, "copies made", one.stats()["hot_fills"])
        assert min(hits) > sum(hits) * 0.2
        # Copies are not for ever, and what is not hot has none.
        time.sleep(3.5)
        assert sum(direct.get("hot") is not None for direct in directs) == 1
        assert one.get("hot") == b"1"


@pytest.mark.parametrize("traced", ["", " --tracing-endpoint=http://127.0.0.1:9 --tracing-sampler=always_on"], ids=["", "traced"])
def test_who_wrote_reads_it_from_every_copy(route, three, traced):
    """Each write is read back at once, over connections of every thread, many times: so from every copy."""
    router = route(three, f"-t 2 {SPREAD}{traced}")
    with router.client() as writer:
        writer.set("hot", "0")
        readers = [router.client() for _ in range(4)]
        with Readers(router, "hot"):
            await_spread(writer)
            fills = int(writer.stats()["hot_fills"])
            end, number = time.monotonic() + 5, 0
            while time.monotonic() < end:
                number += 1
                said = (writer.ask(f"set hot 0 0 {len(str(number))}\r\n{number}") if number % 3 else
                        writer.ask(f"ms hot {len(str(number))}\r\n{number}"))  # fmt: skip
                assert said in ("STORED", "HD")
                for one in readers * 3:
                    assert int(one.get("hot")) == number
                if number % 4 == 0:
                    assert writer.ask("incr hot 1") == str(number + 1)
                    number += 1
                    assert all(int(one.get("hot")) == number for one in readers)
                # Now and then long enough for copies to be made anew.
                time.sleep(0.05 if number % 10 else 0.2)
            assert number > 20 and int(writer.stats()["hot_fills"]) > fills
        assert writer.ask("delete hot") == "DELETED"
        assert all(one.get("hot") is None for one in readers * 3)


def test_what_others_write_is_read_when_copies_have_expired(route, three):
    router = route(three, f"-t 1 {SPREAD}")
    with router.client() as one:
        one.set("hot", "1")
        owner = next(node for node in three if node.client().get("hot") is not None)
        with Readers(router, "hot"), owner.client() as direct:
            await_spread(one)
            direct.set("hot", "2")
            time.sleep(3)
            assert {one.get("hot") for _ in range(50)} == {b"2"}


def test_a_copy_on_a_server_that_is_gone_costs_nothing(route, three):
    router = route(three, f"-t 1 {SPREAD}")
    with router.client() as one:
        one.set("hot", "1")
        gone = next(node for node in three if node.client().get("hot") is None)
        with Readers(router, "hot"):
            await_spread(one)
            gone.stop()
            time.sleep(0.5)
            for number in range(2, 30):
                assert one.ask(f"set hot 0 0 {len(str(number))}\r\n{number}") == "STORED"
                assert {int(one.get("hot")) for _ in range(5)} == {number}


def test_pools_with_storage_have_no_copies(route, three):
    router = route(three, f"-t 1 {SPREAD} --storage")
    with router.client() as one:
        one.set("hot", "1")
        with Readers(router, "hot"):
            await_hot(router)
            time.sleep(1)
        assert one.stats()["hot_spread"] == "0"
