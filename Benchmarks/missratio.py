# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Miss ratio of a server used as a look-aside cache: get, and on a miss, set.

A load is zipf:ALPHA:OBJECTS:REQUESTS[:ONE_HIT_SHARE], with 200-byte values, or the name of a CSV file with lines of
time,key,size.
"""

import bisect
import random

from nodes import Node

SPEC = "zipf:0.9:1000000:2000000:0.2"
TARGETS = {16: 0.510, 64: 0.445}
BATCH = 64


def zipf(spec):
    """Yields (key, size) of a synthetic load."""
    parts = spec.split(":")
    alpha, objects, requests = float(parts[1]), int(parts[2]), int(parts[3])
    once = float(parts[4]) if len(parts) > 4 else 0
    source, cumulative, total = random.Random(7), [], 0
    for rank in range(1, objects + 1):
        total += 1 / rank**alpha
        cumulative.append(total)
    fresh = objects
    for _ in range(requests):
        if once and source.random() < once:
            fresh += 1
            yield b"o%d" % fresh, 200
        else:
            yield b"o%d" % bisect.bisect_left(cumulative, source.random() * total), 200


def trace(path):
    """Yields (key, size) of a recorded load."""
    with open(path) as lines:
        for line in lines:
            parts = line.split(",")
            if len(parts) >= 3 and parts[2].strip().isdigit():
                yield parts[1].strip().encode(), min(int(parts[2]), 900_000)


class LookAside:
    """A client that counts what it had to store itself."""

    def __init__(self, node):
        self.connection = node.connect()
        self.replies = self.connection.makefile("rb", 1 << 20)
        self.requests = self.misses = 0
        self.filling = b"v" * 1_000_000

    def ask(self, batch):
        """Gets a batch, and sets what was missing."""
        self.connection.sendall(b"".join(b"mg %s k q\r\n" % key for key, _ in batch) + b"mn\r\n")
        hits = set()
        while not (line := self.replies.readline()).startswith(b"MN"):
            hits.add(line.split()[1][1:])
        seen, stores = set(), []
        for key, size in batch:
            self.requests += 1
            if key in hits or key in seen:
                continue
            self.misses += 1
            seen.add(key)
            stores.append(b"set %s 0 0 %d noreply\r\n" % (key, size) + self.filling[:size] + b"\r\n")
        if stores:
            self.connection.sendall(b"".join(stores))


def miss_ratio(command, mib, spec=SPEC):
    """The share of the requests that missed."""
    with Node(command, f"-m {mib} -t 1") as node:
        client, batch = LookAside(node), []
        for item in zipf(spec) if spec.startswith("zipf:") else trace(spec):
            batch.append(item)
            if len(batch) == BATCH:
                client.ask(batch)
                batch = []
        if batch:
            client.ask(batch)
        client.connection.close()
        return client.misses / client.requests
