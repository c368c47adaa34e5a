# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node with storage answers random streams as one without, to the byte; what differs is listed with its reason.

A reason is held against the one command whose replies differ, and excuses no other. Where it says that the two may hold
different things from then on, what comes behind it in its stream cannot be compared.
"""

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

# (pattern of a command, reason, whether the two hold different things behind it); the stream is made small before.
ALLOWED = (
    (rb"^(mg|ms|md|ma) .*\bE\d", "versions are the store's: E is refused", True),
    (rb"^flush_all", "empties the cache only", True),
    (rb"^\x80[\x08\x18]", "binary flush, the same", True),
    (rb"^(ms|md) .*\bI\b", "stale marks are the copy's and keep its version", True),
    (rb"^mg .*\bN-?\d", "a placeholder is no row", True),
    (rb"^mg .*\b[hl]\b", "what a copy knows about itself; it may be just loaded", False),
    (rb"^mg .*\bt\b", "a row's time is in milliseconds, and is shown rounded down", False),
    (rb"^(ms|mg|ma|md) .*\bb\b", "a key's being base64 is the request's to say, not stored", True),
    (rb"^(mg .*\bT|gats? )", "a write: each has a new version, and ends what R told", True),
    (rb"^\x80[\x1c-\x1e\x23\x24]", "binary touch, the same", True),
    (rb"^touch ", "the same", True),
    (rb"^stats", "copies of what is not there", False),
    (rb"^me ", "tells about the copy", False),
    (rb"^\S+ \S+ (\d+ \d+ )?\d{6,}", "a set that is too large keeps the row; memcached drops it", True),
    (rb"^(watch|lru_crawler|lru|slabs|cache_memlimit|verbosity)", "about the cache", False),
)


def commands(stream):
    """The bytes that each step of a stream sends, without CAS ids."""
    def text(part):
        if part.startswith("base64:"):
            return base64.b64decode(part.removeprefix("base64:"))
        return part.encode("latin-1")

    for step in json.loads(stream)["commands"]:
        yield b"".join(text(part) for part in step if isinstance(part, str))


def reason(failure):
    """Why a stream may differ where it does; None where it may not."""
    steps = list(commands(failure["stream"]))
    number = int(re.search(r", step (\d+): ", failure["detail"])[1])
    # Played as a whole, nobody knows which command it is: any may be.
    together = re.search(r", step \d+: \d+ commands, split ", failure["detail"]) is not None
    for at, step in enumerate(steps if together else steps[: number + 1]):
        for pattern, why, diverges in ALLOWED:
            if re.search(pattern, step) and (diverges or together or at == number):
                return why
    return None


def test_a_reason_excuses_its_own_command_only():
    def failure(number, *steps):
        detail = f"stream 1-1 (ascii), step {number}: ..."
        return {"stream": json.dumps({"commands": [[step] for step in steps]}), "detail": detail}

    assert reason(failure(1, "set k 0 0 1\r\nx\r\n", "mg k h\r\n"))
    assert not reason(failure(0, "get k\r\n", "mg k h\r\n"))
    assert not reason(failure(1, "mg k h\r\n", "get k\r\n"))
    assert reason(failure(1, "flush_all\r\n", "get k\r\n"))
    assert not reason(failure(0, "get k\r\n", "flush_all\r\n"))
    assert not reason(failure(1, "set k 0 0 1\r\nx\r\n", "mg k k\r\n"))
    whole = failure(0, "get k\r\n", "mg k h\r\n")
    assert reason({**whole, "detail": "stream 1-1 (ascii), step 0: 2 commands, split whole\n"})


@pytest.mark.parametrize("backend, streams", [("memory", 400), ("rocksdb", 100)])
def test_streams_are_answered_as_without_storage(tmp_path, backend, streams):
    root = Path(__file__).resolve().parents[1]
    server = default_command()
    line = [sys.executable, "-m", "differential", "--json", "--seed", str(SEED), "--streams", str(streams), "--jobs", "1"]
    storage = f"--storage-backend {backend} --storage-path {tmp_path}/rows"
    line += ["--a", f"{server} {storage}", "--b", server, "--failures", str(streams)]
    run = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=150, check=False)
    result = json.loads(run.stdout)
    reasons, failures = {}, []
    for failure in result["failures"]:
        why = reason(failure)
        if why is None:
            failures.append(f"{failure['detail']}\nreplay: {failure['stream']}")
        else:
            reasons[why] = reasons.get(why, 0) + 1
    print(result["counts"], reasons)
    assert result["counts"].get("same", 0) > streams * 3 // 4
    assert not result["counts"].get("died")
    assert failures == [], f"MARTLET_SEED={SEED}\n" + "\n".join(failures[:3])
