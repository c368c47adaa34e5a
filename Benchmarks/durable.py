# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The embedded store beside bare loops: a synced set against write and fdatasync, many against one, and reads and writes
past the cache against RocksDB's own loop, by the store alone and by a node, over sockets; and sets and reads on a PostgreSQL
beside a bare loop in libpq's pipeline mode. The program is in Benchmarks/storage."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from nodes import Node

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def storage_figures(command, rounds):
    """Builds and runs the program on the disk that the repository is on; its figures, and those of nodes of `command`."""
    subprocess.run(
        ["swift", "build", "-c", "release", "--product", "storage-bench"], cwd=ROOT, check=True, capture_output=True)
    out = os.path.join(ROOT, "out")
    os.makedirs(out, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="storage-bench-", dir=out)
    try:
        run = subprocess.run(
            [os.path.join(ROOT, ".build/release/storage-bench"), directory, str(rounds)], check=True, text=True,
            stdout=subprocess.PIPE)
        lines = run.stdout.splitlines() + node_lines(command, directory, rounds) + postgres_lines(directory, rounds)
    finally:
        shutil.rmtree(directory)
    return [json.loads(line) for line in lines]


def node_lines(command, directory, rounds):
    """The figures of two nodes, of which one syncs."""
    flags = "-m 1024 -t 1 --storage-backend rocksdb --storage-block-cache 256MiB --storage-path " + directory
    with Node(command, flags + "/sync") as syncing, Node(command, flags + "/async --storage-durability async") as other:
        run = subprocess.run(
            [os.path.join(ROOT, ".build/release/storage-bench"), directory, str(rounds), "node"], check=True, text=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "MARTLET_BENCH_SYNC": str(syncing.port), "MARTLET_BENCH_ASYNC": str(other.port)})
    return run.stdout.splitlines()


def postgres_lines(directory, rounds):
    """The same program's figures on a PostgreSQL that is started for it; none where Debian's is not installed."""
    sys.path.append(os.path.join(ROOT, "Tests/Integration"))
    from storage import database

    if not database.is_installed():
        return []
    server = database.Database()
    try:
        run = subprocess.run(
            [os.path.join(ROOT, ".build/release/storage-bench"), directory, str(rounds), "postgres"], check=True,
            text=True, stdout=subprocess.PIPE, env={**os.environ, "MARTLET_STORAGE_URL": server.fresh("bench")})
    finally:
        server.remove()
    return run.stdout.splitlines()
