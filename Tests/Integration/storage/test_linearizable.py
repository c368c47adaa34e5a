# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Every key is linearizable: 16 clients, all verbs, few keys, with eviction, expiry, restarts and limits that pass.

A sample; `make soak` does ten million operations. A failure names the seed: MARTLET_SEED plays the same operations
again, though not the same interleaving.
"""

import os
import time

import pytest

from storage.liar import LIES, Liar
from storage.linearizability import check_all
from storage.node import BACKEND, Node
from storage.rounds import FAULT_OPERATIONS, FAULTS, missing_faults, run_round
from storage.workload import Plan, Run

pytestmark = pytest.mark.ours
SEED = int(os.environ.get("MARTLET_SEED") or time.time_ns() % 100_000)


def judge(result):
    print(result["counts"])
    bad = result["failures"] + result["given up"]
    assert not bad, f"MARTLET_SEED={result['seed']}\n" + "\n".join(bad[:3])
    return result["counts"]


def test_undisturbed(tmp_path):
    counts = judge(run_round(SEED, 20_000, "calm", directory=tmp_path))
    assert counts["checked"] > 19_000
    assert not counts.get("refused")


def test_with_a_small_cache_and_flushes(tmp_path):
    counts = judge(run_round(SEED, 40_000, "evictions", directory=tmp_path))
    assert counts["evictions"] > 100
    assert counts["flushes"] >= 2
    assert counts["storage reads"] > 100


@pytest.mark.skipif(BACKEND == "memory", reason="rows in memory do not survive")
def test_over_crashes_and_restarts(tmp_path):
    counts = judge(run_round(SEED, 25_000, "restarts", directory=tmp_path))
    assert counts.get("kills", 0) + counts.get("terminations", 0) >= 1


@pytest.mark.skipif(BACKEND == "memory", reason="memory answers in time")
def test_with_a_limit_that_the_disk_does_not_keep(tmp_path):
    counts = judge(run_round(SEED, 20_000, "timeouts", directory=tmp_path))
    assert counts.get("unknown", 0) + counts.get("refused", 0) > 0


@pytest.mark.skipif(BACKEND != "rocksdb", reason="it is the log of RocksDB that fails")
def test_with_a_disk_that_fails(tmp_path):
    """EIO and ENOSPC from writes and syncs of the log: read-only and not ready until the restart, and no key is wrong."""
    counts = judge(run_round(SEED, 30_000, "errors", directory=tmp_path))
    assert counts["disk errors"] >= 1
    assert counts.get("unknown", 0) + counts.get("refused", 0) > 0


@pytest.mark.skipif(BACKEND != "rocksdb", reason="it is the files of RocksDB that cannot be read")
def test_with_a_disk_that_cannot_be_read(tmp_path):
    """EIO from reads of sorted files: an error is no miss, and nobody writes until the restart."""
    for turn in range(3):
        counts = judge(run_round(SEED + turn, 30_000, "reads", directory=tmp_path))
        if "read errors" in counts:
            break
        # On a busy machine the clients may have ended before a read failed.
    assert counts["read errors"] >= 1
    assert counts.get("refused", 0) > 0


@pytest.mark.parametrize("trouble", FAULTS)
def test_a_long_round_without_its_trouble_shows_nothing(trouble):
    counts = {name: 1 for names in FAULTS[trouble] for name in names}
    assert missing_faults(trouble, FAULT_OPERATIONS, counts) == []
    assert len(missing_faults(trouble, FAULT_OPERATIONS, {})) == len(FAULTS[trouble])
    assert missing_faults(trouble, FAULT_OPERATIONS - 1, {}) == []


@pytest.mark.parametrize("lie", LIES)
def test_would_notice(tmp_path, lie):
    """The same clients and the same checker, through a proxy that breaks one promise now and then."""
    with Node(tmp_path, backend="memory") as node:
        liar = Liar(node.port, lie, SEED)
        run = Run(Plan(liar.port, SEED, 6000, clients=8, depth=1, values=2, counters=2, expiring=0, processes=1))
        try:
            record = run.wait()
        finally:
            run.stop()
            liar.close()
    assert liar.told > 0
    record.close([(time.monotonic_ns(),) * 2])
    assert check_all(record.histories), f"{liar.told} lies and nothing was noticed"
