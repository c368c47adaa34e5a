# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A short round of checked reads of each kind; the long ones are those of Scripts/soak-streams."""

import os
import random
import time

import pytest

from . import rounds

pytestmark = pytest.mark.ours
# By kind of a round, how many reads it checks at least; on a slow machine it goes on until it has as many.
READS = {
    "promotion": 100_000, "everything": 100_000, "replica": 350_000, "writes": 250_000, "database": 80_000, "kafka": 150_000,
    "owners": 10_000}  # fmt: skip


def test_rounds_check_a_million_reads_together():
    assert sum(READS.values()) >= 1_000_000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trouble", READS)
def test_no_read_is_older_than_the_bound_whatever_happens(trouble):
    seed = random.randrange(1 << 32)
    counts, failures = rounds.run(seed, trouble, float(os.environ.get("MARTLET_ROUND_SECONDS", "5")), READS[trouble])
    assert not failures, (seed, failures, counts)
    # What the round was meant to do was done, each of it.
    assert all(counts[f"{trouble}: {name}"] for names in rounds.KINDS[trouble].troubles.values() for name in names), (seed, counts)
    assert counts["checked"] >= READS[trouble] and counts["writes"] > 50, (seed, counts)
    assert counts["deletes"] > 5 and counts["checked misses"] > 50, (seed, counts)


def test_a_lost_write_that_reads_as_nothing_is_seen():
    ledger, now = rounds.Ledger(), time.monotonic()

    def look(key, seen, bound=1.0):
        counts, violations = {"checked": 0, "oldest ms": 0}, []
        ledger.check("node", key, ledger.deleted[key], now, seen, counts, violations, bound, True)
        return violations

    assert not look(3, {}), "it was never written"
    ledger.last[3], ledger.acked[3 * rounds.NUMBERS + 1] = 1, now - 5
    assert look(3, {}) == ["node: key 3 showed nothing (deleted by 0), 5.000 s after 1 was acknowledged"]
    assert not look(3, {}, bound=6), "within the bound"
    assert look(3, {3: 1}, bound=6), "it was there"
    # A deletion that was asked for may be done, whatever was answered.
    ledger.last[3] = ledger.deleted[3] = 2
    assert not look(3, {3: 1})
    ledger.last[3], ledger.acked[3 * rounds.NUMBERS + 3] = 3, now - 5
    assert look(3, {})


def test_reads_are_held_to_what_was_refused_and_to_what_the_node_acknowledged_itself():
    ledger, now = rounds.Ledger(), time.monotonic()

    def look(shown, bound):
        counts, violations = {"checked": 0, "oldest ms": 0}, []
        ledger.check("node", 3, shown, now, {}, counts, violations, bound)
        return violations

    ledger.last[3] = 3
    for number, when in ((1, now - 5), (2, rounds.REFUSED), (3, now - 0.2)):
        ledger.acked[3 * rounds.NUMBERS + number] = when
    assert not look(1, bound=1), "another node's write"
    assert look(1, bound=0) == ["node: key 3 showed 1, 0.200 s after 3 was acknowledged"]
    assert look(2, bound=1) == ["node: key 3 showed 2, which was refused"]
    assert not look(3, bound=0)
