# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The load generator of the figures says what became of each request, and when."""

import pytest

from bed import Server
from overload.exact import Load
from overload.openloop import Source

pytestmark = pytest.mark.ours
SEED = 3


@pytest.fixture(scope="module")
def load():
    return Load()


def test_what_is_served(load):
    with Server("-t 1 -m 64") as node:
        # Twice the rate in the second half; and a source that counts up to its number.
        steps = [(1.0, 200), (2.0, 400)]
        sources = [Source(b"mg nothing s\r\n", steps, 3), Source((b"ms k%d 1\r\nx\r\n", 10), 100, 2, "127.0.0.9")]
        (gets, sets), stalls = load.run(node.port, sources, 2.0, SEED, spins=False)
        with node.client() as client:
            assert int(client.stats()["cmd_set"]) == sets.served == sets.offered
            assert all(client.get(f"k{number}") == b"x" for number in range(10)) and client.get("k10") is None
        assert gets.offered == gets.served and not gets.others
    late = sum(1 for due in gets.served_due if due >= 1)
    # Poisson counts, and bounds that are left once in a million runs.
    assert 130 < gets.offered - late < 280 and 300 < late < 510 and 130 < sets.offered < 280
    assert all(0 <= due < 2 for due in gets.served_due) and all(latency > 0 for latency in gets.latencies)
    assert min(gets.late) >= 0 and all(begin < end for begin, end in stalls)


def test_what_is_refused(load):
    with Server("-t 1 -m 64 --overload-test-refusal true") as node:
        source = Source(b"mg k s\r\n", 200, 4)
        (once,), _ = load.run(node.port, [source], 1.0, SEED, spins=False)
        assert once.served == 0 and once.refused == once.offered > 0
        with node.client() as client:
            before = int(client.stats()["total_connections"])
            (thrice,), _ = load.run(node.port, [source], 1.0, SEED, retries=2, reconnects=True, spins=False)
            opened = int(client.stats()["total_connections"]) - before
        # Each is refused and sent again twice; on a new connection, but where others wait on the old one.
        assert thrice.refused == 3 * once.refused
        assert thrice.refused / 2 < opened <= thrice.refused + 4


def test_what_is_never_answered(load):
    """A request whose reply does not come is told as such, ten seconds after the end."""
    with Server("-t 1 -m 64") as node:
        (outcome,), _ = load.run(node.port, [Source(b"mg k s q\r\n", 50, 1)], 0.2, SEED, spins=False)
        assert outcome.served == outcome.refused == 0
        assert outcome.others["no answer"] == outcome.offered > 0
