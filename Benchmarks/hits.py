# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a cache hit costs with storage configured, beside the same server without: processor time per get of keys that
are all cached.

Both servers run at once and are loaded by turns, in short pairs, so that what changes on the machine changes both sides
of a pair alike.
"""

import os
import shutil
import statistics
import tempfile

from nodes import Node
from processor import FLAGS, load

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEYS = 100_000
# name: (mcload options, the ratio to reach)
HITS = {
    "hit, pipelined": ("--conns 50 --pipeline 32 --sets 0", 1.05),
    "hit, one at a time": ("--conns 50 --pipeline 1 --sets 0", 1.05),
    "hit, meta protocol": ("--conns 50 --pipeline 32 --sets 0 --meta", 1.05),
}
# Pairs of each load and round.
PAIRS = 7


def hit_figures(command, rounds, seconds):
    """Rows like those of the storage benchmark: the median ratio of the pairs, with storage ÷ without."""
    out = os.path.join(ROOT, "out")
    os.makedirs(out, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="storage-hits-", dir=out)
    storage = f" --storage-backend rocksdb --storage-path {directory}/rows --storage-durability async"
    found = {name: [] for name in HITS}
    try:
        with (
            Node(command, FLAGS + " -t 1", processors="0") as without,
            Node(command, FLAGS + " -t 1" + storage, processors="0") as with_storage,
        ):
            for node in (without, with_storage):
                load(node, f"--load {KEYS} --keys {KEYS} --seconds 0.1 --warmup 0")
            for name, (options, _) in HITS.items():
                line = f"{options} --keys {KEYS} --seconds {max(0.3, seconds / 4)} --warmup 0.1"
                for pair in range(PAIRS * rounds):
                    # Whoever comes first has the other processor's caches to warm.
                    nodes = (with_storage, without) if pair % 2 else (without, with_storage)
                    costs = {node: load(node, line) for node in nodes}
                    check(name, costs.values())
                    found[name].append((costs[with_storage]["cpu_us_per_op"], costs[without]["cpu_us_per_op"]))
    finally:
        shutil.rmtree(directory)
    rows = []
    for name, pairs in found.items():
        ratio = statistics.median(ours / bare for ours, bare in pairs)
        ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
        rows.append({
            "name": f"{name}: with storage / without", "value": round(ratio, 3), "reach": f"<= {HITS[name][1]}",
            "reached": ratio <= HITS[name][1], "detail": f"processor {ours:.3f} us / {bare:.3f} us, {len(pairs)} pairs"})
    return rows


def check(name, figures):
    for figure in figures:
        if figure["errors"] or figure["misses"]:
            raise SystemExit(f"bench: {name}: {figure['errors']} errors and {figure['misses']} misses")
