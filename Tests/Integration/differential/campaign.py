# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Many streams over several pairs of servers, and what came of them."""

import multiprocessing
import re
from collections import Counter

from .generator import generate
from .judge import Judge
from .pair import Pair
from .shrink import shrink

RESTART_EVERY = 4000


def version_of(pair):
    """The version B reports, as a tuple."""
    side = pair.sides[1]
    side.control.sendall(b"version\r\n")
    found = re.search(rb"(\d+)\.(\d+)\.(\d+)", side.control.recv(200))
    return tuple(int(part) for part in found.groups()) if found else (0, 0, 0)


def work(job):
    """Runs a range of streams on servers of its own; returns counts and failures."""
    a, b, seed, numbers, limit, minimise, original = job
    pair = Pair(a, b)
    counts, rules, failures, unstable = Counter(), Counter(), [], []
    try:
        judge = Judge(pair, version_of(pair), original)
        for done, number in enumerate(numbers):
            if done and done % RESTART_EVERY == 0:
                pair.restart()
            stream = generate(seed, number)
            try:
                verdict = judge.judge(stream)
            except (OSError, ConnectionError) as error:
                failures.append(died(pair, stream, error))
                pair.restart()
                counts["died"] += 1
                continue
            counts[verdict.outcome] += 1
            rules.update(set(verdict.rules))
            if verdict.outcome == "unstable":
                unstable.append(verdict.detail)
            if verdict.outcome == "different" and len(failures) < limit:
                failures.append(minimal(pair, judge, stream, verdict, minimise))
    finally:
        pair.stop()
    return counts, rules, failures, unstable


def died(pair, stream, error):
    """A failure that took a server with it."""
    ends = [
        f"{name} {'alive' if side.server.alive() else 'ended with %s' % side.server.process.returncode}: "
        f"{side.server.output()[-2000:]}"
        for name, side in zip("AB", pair.sides)
    ]
    return {"stream": stream.to_json(), "detail": f"stream {stream.name}: {error!r}\n" + "\n".join(ends)}


def minimal(pair, judge, stream, verdict, minimise):
    """The failure, made small when asked."""
    detail = verdict.detail
    if minimise:

        def fails(candidate):
            return judge.judge(candidate).outcome == "different"

        small = shrink(stream, fails)
        again = judge.judge(small)
        if again.outcome == "different":
            stream, detail = small, again.detail
    return {"stream": stream.to_json(), "detail": detail}


def run(a, b, streams, seed, start=0, jobs=2, limit=5, minimise=True, original=False):
    """Compares `streams` streams; returns (counts, rules used, failures, unstable)."""
    jobs = max(1, min(jobs, streams))
    work_lists = [
        (a, b, seed, range(start + job, start + streams, jobs), limit, minimise, original) for job in range(jobs)
    ]
    counts, rules, failures, unstable = Counter(), Counter(), [], []
    if jobs == 1:
        results = [work(work_lists[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            results = pool.map(work, work_lists)
    for part in results:
        counts.update(part[0])
        rules.update(part[1])
        failures += part[2]
        unstable += part[3]
    return counts, rules, failures, unstable
