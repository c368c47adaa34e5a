# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Where our own module Routing puts keys, and keys to put."""

import os
import random
import string
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(os.environ.get("MARTLET_PLACEMENT", ROOT / ".build/release/placement"))
SEED = int(os.environ.get("MARTLET_SEED") or random.randrange(1, 10**9))
COUNT = 100_000


def keys(count=COUNT, seed=SEED, text=string.ascii_letters + string.digits + string.punctuation):
    """Distinct keys of the kinds that people have: counted, random, long, and as long as keys get."""
    source = random.Random(seed)
    found = {}
    while len(found) < count:
        kind, number = source.random(), len(found)
        if kind < 0.5:
            key = f"user:{number}:{source.choice(['name', 'profile', 'cart'])}"
        elif kind < 0.99:
            key = "".join(source.choices(text, k=source.randint(5, 60)))
        else:
            key = "".join(source.choices(text, k=250))
        found[key] = None
    return list(found)


def meeting(servers):
    """Keys that hash to a point's very place, because they are what points are made of."""
    names = [name for host, port, *rest in servers for name in (f"{host}:{port}", host, *rest[1:])]
    return [f"{name}-{number}" for name in names for number in range(40)]


def fleets(count, seed=SEED):
    """Fleets of any size and any weights: what is rounded is rounded in many ways. First those of equal weights whose
    points single precision makes 156 of 160."""
    for size in (25, 47, 50, 55, 100):
        yield [(f"10.8.{number}.{size}", 11211, 1) for number in range(size)]
    source = random.Random(seed)
    for _ in range(count):
        most = source.choice([1, 3, 10, 1000])
        size = source.randint(1, 60)
        weights = [source.randint(1, most) for _ in range(size)]
        yield [(f"10.9.{number}.{size}", source.choice([11211, 11212]), weights[number]) for number in range(size)]


def owners(scheme, servers, keys, part="whole"):
    """The index of each key's server. `servers` are (host, port, weight) or (host, port, weight, alias)."""
    lines = [str(len(servers))] + [" ".join(str(word) for word in server) for server in servers] + keys
    done = subprocess.run(
        [PROGRAM, "owners", scheme, part], input=("\n".join(lines) + "\n").encode(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def differences(keys, theirs, ours):
    """What a failure shows: the first keys that are placed otherwise, and how many there are."""
    assert len(keys) == len(theirs) == len(ours)
    wrong = [(key, a, b) for key, a, b in zip(keys, theirs, ours) if a != b]
    return f"seed {SEED}: {len(wrong)} of {len(keys)}, as {wrong[:3]}" if wrong else ""
