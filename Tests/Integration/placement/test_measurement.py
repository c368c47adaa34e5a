# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What docs/decisions/0011-default-hash.md says of every scheme, on an optimised build."""

import re
import subprocess

import pytest

from .ours import PROGRAM, SEED, keys, owners

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason=f"no {PROGRAM}: swift build -c release --product placement")


def measure(servers, keys):
    """For each scheme: its largest counted share over the mean, the exact one if known, and bytes allocated."""
    done = subprocess.run(
        [PROGRAM, "measure", str(servers), str(keys)], capture_output=True, text=True, timeout=170, check=True)
    rows = {}
    for line in done.stdout.splitlines():
        name, *cells = line.split("\t")
        counted = float(re.search(r"max/mean ([\d.]+)", line)[1])
        exact = re.search(r"([\d.]+) exact", line)
        rows[name] = (counted, float(exact[1]) if exact else None, int(line.rsplit(" ", 1)[1]))
    return rows


def test_no_lookup_allocates():
    rows = measure(50, 100_000)
    assert len(rows) == 15
    assert {name: row[2] for name, row in rows.items() if row[2] != 0} == {}


def test_our_default_is_even_with_5000_servers():
    """Counted over ten servers, whose shares are known to a percent; computed over 5,000."""
    counted, exact, _ = measure(10, 300_000)["multiprobe"]
    assert abs(counted - exact) < 0.03
    assert measure(5000, 1000)["multiprobe"][1] <= 1.10


@pytest.mark.parametrize("scheme", [
    "multiprobe", "rendezvous", "pymemcache", "ketama:libmemcached:md5", "ketama:libmemcached-weighted:md5",
    "ketama:uhashring:md5",
])
def test_fleets_that_grow_move_their_share(scheme):
    """Of a fleet that grows to N, 1/N of the keys at best; on average over its sizes at most 1.3/N."""
    some = keys(20_000)
    before, ratios = None, []
    for size in range(9, 61):
        now = owners(scheme, [(f"10.7.0.{number}", 11211, 1) for number in range(size)], some)
        if before:
            ratios.append(sum(a != b for a, b in zip(before, now)) * size / len(some))
        before = now
    assert sum(ratios) / len(ratios) <= 1.3, f"seed {SEED}"
