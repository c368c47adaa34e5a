# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Processor time per operation and operations per second, server against server under the same loads.

The figure to trust on a shared machine is the server's own CPU per operation, as a ratio within one run: below 1, the
first server is cheaper than the second. Each server runs pinned to processor 0, the load to processor 1; only the
`contended` load lets four threads of the server and the load fight for both.
"""

import json
import statistics
import subprocess

from nodes import Node, mcload

# name: (mcload options, what it shows, the ratio to reach)
LOADS = {
    "p1": ("--conns 50 --pipeline 1 --sets 0.1", "one request in flight: the kernel dominates", 0.85),
    "p32": ("--conns 50 --pipeline 32 --sets 0.1", "pipelined, 10% sets, uniform keys", 0.25),
    "zipf": ("--conns 50 --pipeline 32 --sets 0.05 --zipf 0.99", "pipelined, skewed keys", 0.25),
    "meta": ("--conns 50 --pipeline 32 --sets 0.1 --meta", "the same over the meta protocol", 0.25),
    "sets": ("--conns 50 --pipeline 32 --sets 1", "writes only", 0.25),
    "mget": ("--conns 20 --pipeline 1 --mget 100 --sets 0", "100 keys a get", 0.35),
    "big": ("--conns 20 --pipeline 8 --sets 0.1 --value 16384 --keys 10000", "16 KiB values", 0.85),
}
CONTENDED = "--conns 200 --pipeline 32 --sets 0.05 --zipf 0.99 --keys 500000"
CONTENDED_TARGET = 1.5
FLAGS = "-m 1024 -c 4096"


def load(node, options, processor="1"):
    """One run of the load generator on one server, on a processor, or any where it is None; its figures."""
    line = ["taskset", "-c", processor] if processor else []
    line += [mcload(), "--port", str(node.port), "--pid", str(node.pid), "--json", *options.split()]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, timeout=300).stdout)


def compare(a, b, names, rounds, seconds):
    """Rows of (name, figures of A, figures of B), each a list with a dictionary per round."""
    found = {name: ([], []) for name in names}
    for _ in range(rounds):
        for side, command in enumerate((a, b)):
            with Node(command, FLAGS + " -t 1", processors="0") as node:
                load(node, "--load 500000 --keys 500000 --seconds 0.1 --warmup 0")
                for name in names:
                    options = LOADS[name][0]
                    if name == "big":
                        load(node, "--load 10000 --value 16384 --keys 10000 --seconds 0.1 --warmup 0")
                    elif "--keys" not in options:
                        options += " --keys 500000"
                    found[name][side].append(load(node, f"{options} --seconds {seconds}"))
    return [(name, *found[name]) for name in names]


def contended(a, b, rounds, seconds):
    """Ratios of operations per second, four server threads and the load on the same processors, in paired runs."""
    ratios = []
    for _ in range(rounds):
        rates = []
        for command in (a, b):
            with Node(command, FLAGS + " -t 4") as node:
                load(node, "--load 500000 --keys 500000 --seconds 0.1 --warmup 0", processor=None)
                rates.append(load(node, f"{CONTENDED} --seconds {seconds}", processor=None)["ops_per_s"])
        ratios.append((rates[0] / rates[1], *rates))
    return ratios


def ratio(rows_a, rows_b, key):
    """The median of the pairs' ratios."""
    return statistics.median(x[key] / y[key] for x, y in zip(rows_a, rows_b, strict=True) if y[key])


def middle(rows, key):
    return statistics.median(row[key] for row in rows)
