# Martlet
# SPDX-License-Identifier: Apache-2.0
"""How much payload a server keeps in its resident memory, and what an idle connection costs it.

Payload over resident memory is (key + value bytes held) / resident bytes, after filling the server past its limit; 1.0
is the physical limit.
"""

import random
import resource
import socket
import time

from nodes import Node

# name, key length, value length by a random source, items to send for each MiB of the limit, the share to reach
CASES = [
    ("key 20 B, value 50 B", 20, lambda source: 50, 23000, 0.66),
    ("key 32 B, value 100 B", 32, lambda source: 100, 11700, 0.77),
    ("key 32 B, value 230 B", 32, lambda source: 230, 7800, 0.83),
    (
        "key 44 B, value lognormal(5.5, 1.0)",
        44,
        lambda source: min(60000, max(1, int(source.lognormvariate(5.5, 1.0)))),
        4700,
        0.85,
    ),
]


def fill(node, key_length, value_length, count):
    """Stores `count` items without waiting for replies; returns the payload sent."""
    source, filling = random.Random(1), b"x" * 70000
    batch, size, payload = [], 0, 0
    with node.connect() as connection:
        for number in range(count):
            key, length = (b"k%d:" % number).ljust(key_length, b"a"), value_length(source)
            payload += length + key_length
            batch.append(b"set %s 0 0 %d noreply\r\n" % (key, length) + filling[:length] + b"\r\n")
            size += length
            if size > 1 << 20:
                connection.sendall(b"".join(batch))
                batch, size = [], 0
        connection.sendall(b"".join(batch) + b"mn\r\n")
        while not connection.recv(4096).endswith(b"MN\r\n"):
            pass
    return payload


def payload_share(command, mib, case):
    """(items held, resident bytes, payload/resident, evictions)"""
    _, key_length, value_length, per_mib, _ = case
    with Node(command, f"-m {mib} -t 2") as node:
        count = per_mib * mib
        payload = fill(node, key_length, value_length, count)
        stats, rss = node.stats(), node.rss()
    held = int(stats["curr_items"])
    return held, rss, held * payload / count / rss, int(stats["evictions"])


def idle_connection(command, count=10_000):
    """Resident bytes that one idle connection costs, over `count` of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 200:
        return None
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 200), hard))
    with Node(command, f"-m 64 -t 2 -c {count + 100}") as node:
        with node.connect() as first:
            first.sendall(b"mn\r\n")
            first.recv(10)
        before, lines = node.rss(), []
        try:
            for _ in range(count):
                lines.append(socket.create_connection(("127.0.0.1", node.port), 10))
            time.sleep(0.5)
            return (node.rss() - before) / count
        finally:
            for line in lines:
                line.close()
