# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The recorded replies of memcached 1.6.45, for machines that have only an older one.

  python -m differential.golden record COMMAND     writes golden.jsonl.xz from that server, which must be 1.6.45
  python -m differential.golden check COMMAND      holds a server against it

A row is a stream, what 1.6.45 replied to it sent in one go and sent step by step, and when.
"""

import base64
import json
import lzma
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

from .generator import generate
from .judge import Verdict, describe, differing, lost, withheld
from .pair import Pair, Transcript
from .rules import NEWEST, allowed
from .streams import Stream

PATH = Path(__file__).with_name("golden.jsonl.xz")
SEED, STREAMS = 1645, 3000
# Streams that are large say nothing that the live comparison does not say better.
LARGEST = 20_000


def record(command):
    """Records the golden rows; a stream that 1.6.45 does not answer twice alike is left out."""
    pair = Pair(command, command)
    rows = []
    try:
        for number in range(STREAMS):
            stream = generate(SEED, number)
            if sum(len(item.before) for item in stream.commands) > LARGEST:
                continue
            row = {"stream": json.loads(stream.to_json()), "time": int(time.time())}
            for name, stepwise in (("whole", False), ("steps", True)):
                steps = pair.play(stream, stepwise)
                pair.clean(stream)
                if not differing(stream, steps) and sum(len(one.data) for one, _ in steps) <= LARGEST:
                    row[name] = [[base64.b64encode(one.data).decode(), one.closed, one.half] for one, _ in steps]
            if "whole" in row and "steps" in row:
                rows.append(json.dumps(row))
    finally:
        pair.stop()
    PATH.write_bytes(lzma.compress(("\n".join(rows) + "\n").encode(), preset=9 | lzma.PRESET_EXTREME))
    return len(rows)


def recorded():
    """(stream, transcripts in one go, transcripts by step, time) of each row."""
    for line in lzma.decompress(PATH.read_bytes()).decode().splitlines():
        row = json.loads(line)
        whole, steps = (
            [Transcript(base64.b64decode(data), closed, half, False) for data, closed, half in row[name]]
            for name in ("whole", "steps")
        )
        yield Stream.from_json(row["stream"]), whole, steps, row["time"]


def judge(pair, stream, whole, steps, moment, original=False):
    """Holds one server against a recorded row: step by step, then in one go."""
    later = int(time.time()) - moment
    played = [(one, other) for (one,), other in zip(pair.play(stream, stepwise=True), steps)]
    pair.clean(stream)
    used = []
    bad = differing(stream, played, later)
    quirk = bad and withheld(stream, played, original, later)
    if quirk:
        used, bad = [quirk], []
    for number in bad:
        a, b = played[number]
        rule = allowed(stream, number, a, b, NEWEST)
        quirk = rule is None and lost(stream, played, [number], original)
        if quirk:
            used.append(quirk)
            continue
        if rule is None:
            return Verdict("different", used, describe(stream, played, [number]))
        used.append(rule.name)
        if rule.diverges:
            return Verdict("allowed", used)
    played = [(one, other) for (one,), other in zip(pair.play(stream), whole)]
    pair.clean(stream)
    bad = differing(stream, played, later)
    if not bad:
        return Verdict("allowed" if used else "same", used)
    quirk = lost(stream, played, bad, original)
    if quirk or set(used) - {"reply withheld"}:
        return Verdict("allowed", used + ([quirk] if quirk else []))
    return Verdict("different", used, "only in one go: " + describe(stream, played, bad))


def work(job):
    """Holds a server of its own against every `jobs`th row."""
    command, first, jobs, limit, original = job
    pair, counts, failures = Pair(command), Counter(), []
    try:
        for row in list(recorded())[first::jobs]:
            for _ in range(3):  # again: a background thread of the server or a busy machine may have interfered
                verdict = judge(pair, *row, original)
                if verdict.outcome != "different":
                    break
            counts[verdict.outcome] += 1
            if verdict.outcome == "different" and len(failures) < limit:
                failures.append(f"{verdict.detail}\nreplay: {row[0].to_json()}")
    finally:
        pair.stop()
    return counts, failures


def run(command, limit=5, original=False, jobs=4):
    """Holds a server against all rows; returns (counts, failures)."""
    counts, failures = Counter(), []
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for part in pool.map(work, [(command, first, jobs, limit, original) for first in range(jobs)]):
            counts.update(part[0])
            failures += part[1]
    return counts, failures


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("record", "check"):
        sys.exit(__doc__)
    if sys.argv[1] == "record":
        print(f"{record(sys.argv[2])} streams recorded")
        return 0
    from differential import golden  # the workers must find it by its module's name

    counts, failures = golden.run(sys.argv[2], 20, "--original" in sys.argv)
    print(dict(counts), *failures, sep="\n\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
