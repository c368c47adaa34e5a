# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a quarantine of everything costs the store behind it: one read for each key that is asked for, however many ask,
within what the store may have in hand; and nothing that has no store waits for it."""

import random
import threading
import time

import pytest

from bed import Patience

from .region import RegionNode, Relay, eventually, regions
from .test_streams import Pair

pytestmark = pytest.mark.ours
KEYS, BATCH, READERS = 20_000, 50, 24
VALUE = b"v" * 100
PLAIN = {"prefix": "plain:", "name": "plain", "storage": False}


class Reading(Pair):
    """A replica that reads at home, over a way that is far, and whose stream's records home lets go after a second."""

    def __init__(self, directory, **options):
        super().__init__(directory, home={"retention": "1s"})
        self.way = Relay(self.home.port)
        listed = regions(self.relay.port)
        listed[0]["serve"] = f"127.0.0.1:{self.way.port}"
        self.replica = RegionNode(
            directory / "reading", "eu-west", listed, {"lagBound": "60s"}, backend="region", pools=[PLAIN], **options)
        self.replica.document["pools"] = [PLAIN]
        self.replica.rewrite()

    def __exit__(self, *_):
        self.way.heal()
        super().__exit__()
        self.way.close()

    def fill(self):
        with self.home.client(60) as home:
            for number in range(KEYS):
                home.send(b"set key:%d 0 0 %d noreply\r\n%s\r\n" % (number, len(VALUE), VALUE))
            assert home.ask("mn") == "MN"
        with self.replica.client(60) as replica:
            for start in range(0, KEYS, BATCH):
                assert read(replica, range(start, start + BATCH)) == BATCH
            sent = self.replica.statistics()["reads_sent"]
            for start in range(0, KEYS, BATCH):
                assert read(replica, range(start, start + BATCH)) == BATCH
            assert self.replica.statistics()["reads_sent"] == sent, "all of them are cached"

    def quarantine(self):
        """Home lets records of all slots go, of which the replica has heard nothing."""
        self.relay.cut()
        before = self.replica.figures()["quarantines"]
        with self.home.client() as home:
            deadline = time.monotonic() + 6
            while time.monotonic() < deadline:
                for number in range(1000):
                    home.send(b"set other:%d 0 0 1 noreply\r\nv\r\n" % number)
                assert home.ask("mn") == "MN"
                time.sleep(0.2)
        self.relay.heal()
        self.replica.await_figures(quarantines=before + 64, trusted="yes", quarantined_slots=0)


def read(client, numbers):
    """How many of the keys have their value; an error is none."""
    client.send("get " + " ".join(f"key:{number}" for number in numbers) + "\r\n")
    found = 0
    while (head := client.line()) != "END":
        if head.startswith("SERVER_ERROR"):
            return 0
        assert client.line() == VALUE.decode()
        found += 1
    return found


class Readers:
    """Connections that read keys in an order of their own, until each has had them all."""

    def __init__(self, node, seed):
        self.node, self.refused, self.slowest, self.lock = node, 0, 0.0, threading.Lock()
        self.threads = [
            threading.Thread(target=self.run, args=(random.Random(f"{seed} {number}"),)) for number in range(READERS)]
        for thread in self.threads:
            thread.start()

    def run(self, chance):
        left = [range(start, start + BATCH) for start in range(0, KEYS, BATCH)]
        chance.shuffle(left)
        with self.node.client(60) as client:
            while left:
                began = time.monotonic()
                numbers = left.pop()
                found = read(client, numbers)
                with self.lock:
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    self.refused += not found
                if not found:
                    left.insert(0, numbers)
                    time.sleep(0.05)

    def is_reading(self):
        return any(thread.is_alive() for thread in self.threads)

    def join(self):
        for thread in self.threads:
            thread.join()


def watch(node, readers, while_reading=lambda: None):
    """The longest that a key without a store took, and the most reads that were under way, while others read."""
    slow, most = [], 0
    with node.client() as client:
        assert client.set("plain:k", b"v") == "STORED"
        patience = Patience(120)
        while readers.is_reading():
            assert not patience.is_over
            began = time.monotonic()
            assert client.get("plain:k") == b"v"
            slow.append(time.monotonic() - began)
            most = max(most, node.statistics()["reads_in_flight"])
            while_reading()
            time.sleep(0.005)
    readers.join()
    return sorted(slow), most


@pytest.mark.alone
def test_a_quarantine_of_everything_is_refilled_by_one_read_of_each_key(tmp_path):
    with Reading(tmp_path) as both:
        both.fill()
        both.quarantine()
        both.way.delay = 0.01
        sent, asked = both.replica.statistics()["reads_sent"], gets(both.home)
        began = time.monotonic()
        readers = Readers(both.replica, 1)
        slow, most = watch(both.replica, readers)
        took = time.monotonic() - began
        sent, asked = both.replica.statistics()["reads_sent"] - sent, gets(both.home) - asked
        print(
            f"{READERS * KEYS} reads refilled {KEYS} keys in {took:.1f} s: {sent:.0f} reads of the store, {asked:.0f} gets at "
            f"home, {most:.0f} at once at most; a key without a store p99 {slow[len(slow) * 99 // 100] * 1000:.1f} ms")
        assert readers.refused == 0
        assert sent == asked == KEYS
        assert most <= READERS * BATCH
        assert slow[len(slow) * 99 // 100] < 0.25


def gets(node):
    with node.client() as client:
        return int(client.stats()["cmd_get"])


@pytest.mark.alone
def test_a_refill_from_a_home_that_stands_still_is_bounded_and_goes_on(tmp_path):
    with Reading(tmp_path, storage_timeout="400ms") as both:
        both.fill()
        both.quarantine()
        both.way.is_held = True
        sent, asked = both.replica.statistics()["reads_sent"], gets(both.home)
        readers = Readers(both.replica, 2)
        held = time.monotonic()

        def heal():
            if time.monotonic() - held > 3:
                both.way.heal()

        slow, most = watch(both.replica, readers, heal)
        sent, asked = both.replica.statistics()["reads_sent"] - sent, gets(both.home) - asked
        print(
            f"{readers.refused} refused, the slowest read took {readers.slowest:.2f} s; {sent:.0f} reads of the store, "
            f"{asked:.0f} gets at home, {most:.0f} at once; a key without a store p99 {slow[len(slow) * 99 // 100] * 1000:.1f} ms")
        assert readers.refused > 0 and readers.slowest < 2
        # What a reader asks for, and what it gave up waiting for and nobody knows the end of yet.
        assert most <= 2 * READERS * BATCH
        # Nobody was answered for three seconds; what was asked again and again meanwhile did not pile up before home.
        assert asked < KEYS * 1.25
        assert slow[len(slow) * 99 // 100] < 0.25
        eventually(lambda: both.replica.figures()["trusted"] == "yes")
