# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Keys that everybody reads: the router gives one answer to many, never what was there before a write it knows of."""

import threading
import time

import pytest
from bed import Crew, until

from .bed import FakeServer, lines

HOT = "--hot-keys-cache-ttl=100ms --hot-keys-threshold=300"


@pytest.fixture
def node(start):
    return start("-m 64 -t 1")


class Readers(Crew):
    """Clients that read a key over and over, each on a connection of its own; the values that came, newest last."""

    def __init__(self, router, key, clients=6):
        super().__init__(clients)
        self.router, self.key, self.problems, self.reads = router, key, [], 0

    def run(self, number):
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


def await_hot(router, seconds=10):
    with router.client() as one:
        until(lambda: int(one.stats()["hot_keys"]) > 0, seconds, "a hot key", pause=0.1)


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
        end = time.monotonic() + 8
        while one.stats()["hot_keys"] != "0":
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.parametrize("learns", [True, False])
def test_what_is_hot_for_its_node_is_hot_for_every_router(route, node, learns):
    """Each router's clients read the key less often than the threshold; its node is asked by all of them."""
    flags = f"-t 1 --hot-keys-cache-ttl=100ms --hot-keys-threshold=400 --hot-keys-learn={str(learns).lower()}"
    routers = [route([node], flags) for _ in range(4)]
    clients = [router.client() for router in routers]
    clients[0].set("hot", "1")
    end = time.monotonic() + (20 if learns else 5)
    # 200 gets a second of each.
    while not (learns and all(int(one.stats()["hot_hits"]) for one in clients)):
        begun = time.monotonic()
        for _ in range(50):
            for one in clients:
                one.send("get hot\r\n" * 2)
                assert [one.line() for _ in range(6)] == ["VALUE hot 0 1", "1", "END"] * 2
            time.sleep(0.01)
        if time.monotonic() > end:
            assert not learns, [one.stats()["hot_keys"] for one in clients]
            break
        print(f"{400 / (time.monotonic() - begun):.0f} gets a second at the node, of four routers")
    hits = [int(one.stats()["hot_hits"]) for one in clients]
    assert all(hits) if learns else not any(hits)
    with node.client() as direct:
        rates = direct.stats("hotrates")
        assert all(len(name) == 16 and int(rate) > 0 for name, rate in rates.items())
    for one in clients:
        one.close()


def test_a_server_without_such_an_answer_is_asked_once(route):
    """A memcached of others: it says ERROR, and serves on."""
    asked = []

    def talk(connection):
        for line in lines(connection):
            if line.startswith(b"stats"):
                asked.append(line)
                connection.sendall(b"ERROR\r\n")
            else:
                connection.sendall(b"VALUE k 0 1\r\n1\r\nEND\r\n")

    with FakeServer(talk) as server:
        router = route([server], f"-t 1 {HOT}")
        with router.client() as one:
            end = time.monotonic() + 4
            while time.monotonic() < end:
                assert one.get("k") == b"1"
                time.sleep(0.01)
    assert asked == [b"stats hotrates"]


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
    until(lambda: int(client.stats()["hot_spread"]) >= reads, seconds, "a read from a copy", pause=0.1)


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


def test_copies_that_several_routers_make_are_old_for_no_longer_than_is_said(route, three):
    """Two routers fill copies for each other's clients and write by turns: copyTTL and two seconds are the bound."""
    routers = [route(three, f"-t 1 {SPREAD}") for _ in range(2)]
    acked, reads, over = [], [], threading.Event()

    def read(router):
        with router.client() as one:
            while not over.is_set():
                asked = time.monotonic()
                reads.append((asked, int(one.get("hot"))))

    with routers[0].client() as one, routers[1].client() as two:
        one.set("hot", "0")
        threads = [threading.Thread(target=read, args=(router,)) for router in routers * 2]
        for thread in threads:
            thread.start()
        try:
            for writer in (one, two):
                await_spread(writer)
            fills = [int(writer.stats()["hot_fills"]) for writer in (one, two)]
            for number in range(1, 41):
                assert (one, two)[number % 2].set("hot", str(number)) == "STORED"
                acked.append((time.monotonic(), number))
                time.sleep(0.2)
            filled = [int(writer.stats()["hot_fills"]) for writer in (one, two)]
        finally:
            over.set()
            for thread in threads:
                thread.join(10)
        assert sum(filled) > sum(fills), "nobody made a copy while it was written"
    age = 0.0
    for asked, value in reads:
        # For how long there had been a newer one.
        newer = next((at for at, number in acked if number > value), asked)
        age = max(age, asked - newer)
    print(f"{len(reads)} reads, {filled} copies made, the oldest value {age:.2f} s behind")
    assert age < 3.5


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
