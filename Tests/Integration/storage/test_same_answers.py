# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node with storage answers random streams as one without, to the byte; what differs is listed with its reason."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bed import default_command

pytestmark = pytest.mark.ours
SEED = int(os.environ.get("MARTLET_SEED") or time.time_ns() % 100_000)

# (pattern of a command in the stream, reason); the stream is made small before, so that the command is to the point.
ALLOWED = (
    (rb"^(mg|ms|md|ma) .*\bE\d", "versions are the store's: E is refused"),
    (rb"^flush_all", "empties the cache only"),
    (rb"^\x80[\x08\x18]", "binary flush, the same"),
    (rb"^(get|gets|gat|gats|mg|ms|md|ma|set) .*\bI\b", "stale marks are the copy's and keep its version"),
    (rb"^mg .*\bN-?\d", "a placeholder is no row"),
    (rb"^mg .*\b[hlt]\b", "what a copy knows about itself; it may be just loaded"),
    (rb"^mg .*\bT", "a write; it shows the time to live that it sets"),
    (rb"^mg \S+ .*k", "a key's being base64 is the request's to say, not stored"),
    (rb"^(gat|gats) .*", "a write: each has a new version"),
    (rb"^\x80[\x1c-\x1e\x23\x24]", "binary touch, the same"),
    (rb"^stats", "copies of what is not there"),
    (rb"^me ", "tells about the copy"),
    (rb"^\S+ \S+ (\d+ \d+ )?\d{6,}", "a set that is too large keeps the row; memcached drops it"),
    (rb"^(watch|lru_crawler|lru|slabs|cache_memlimit|verbosity)", "about the cache"),
)


def commands(stream):
    """The bytes that each step of a stream sends, without CAS ids."""
    def text(part):
        if part.startswith("base64:"):
            return base64.b64decode(part.removeprefix("base64:"))
        return part.encode("latin-1")

    for step in json.loads(stream)["commands"]:
        yield b"".join(text(part) for part in step if isinstance(part, str))


def test_streams_are_answered_as_without_storage():
    root = Path(__file__).resolve().parents[1]
    server = default_command()
    line = [sys.executable, "-m", "differential", "--json", "--seed", str(SEED), "--streams", "400", "--jobs", "1"]
    line += ["--a", f"{server} --storage-backend memory", "--b", server, "--failures", "400"]
    run = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=150, check=False)
    result = json.loads(run.stdout)
    reasons, failures = {}, []
    for failure in result["failures"]:
        steps = list(commands(failure["stream"]))
        reason = next((why for pattern, why in ALLOWED if any(re.search(pattern, step) for step in steps)), None)
        if reason is None:
            failures.append(f"{failure['detail']}\nreplay: {failure['stream']}")
        else:
            reasons[reason] = reasons.get(reason, 0) + 1
    print(result["counts"], reasons)
    assert result["counts"].get("same", 0) > 300
    assert not result["counts"].get("died")
    assert failures == [], f"MARTLET_SEED={SEED}\n" + "\n".join(failures[:3])
