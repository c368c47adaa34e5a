# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Compares two memcached-protocol servers, stream by stream.

  python -m differential --a COMMAND --b COMMAND [--streams N] [--seed S] [--from I] [--jobs J] [--json]
  python -m differential --a COMMAND --b COMMAND --replay FILE     one stream, as a failure printed it ("-" reads it)
  python -m differential --a COMMAND --b COMMAND --only I          one stream of the seed

A is the server under test, B the original. Commands are given without address flags: the bed adds them. A failing
stream is made small and printed as one line of JSON that --replay takes.
"""

import argparse
import json
import os
import sys
import time

from bed import default_command, memcached_command

from .campaign import run, version_of
from .generator import generate
from .judge import Judge
from .pair import Pair
from .streams import Stream, show


def replay(a, b, stream, original):
    """One stream, each step shown; returns the verdict."""
    pair = Pair(a, b)
    try:
        judge = Judge(pair, version_of(pair), original)
        pair.clean(stream)
        for command, (one, other) in zip(stream.commands, pair.play(stream, stepwise=True)):
            sent = command.before + (b"<cas>" + command.after if command.cas else b"")
            mark = " " if (one.data, one.closed) == (other.data, other.closed) else "*"
            print(f"{mark} > {show(sent, 300)}")
            for name, side in (("A", one), ("B", other)):
                print(f"  {name} {show(side.data, 600)}{' closed' if side.closed else ''}")
        pair.clean(stream)
        verdict = judge.judge(stream)
        print(f"verdict: {verdict.outcome} {' '.join(verdict.rules)}\n{verdict.detail}")
        return verdict
    finally:
        pair.stop()


def main():
    parser = argparse.ArgumentParser(
        prog="differential", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--a", default=default_command(), help="server under test (default: MARTLET_SERVER or the release build)"
    )
    parser.add_argument("--b", default=memcached_command(), help="the original (default: MEMCACHED or Debian's)")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("MARTLET_SEED") or time.time()))
    parser.add_argument("--from", type=int, default=0, dest="start")
    parser.add_argument("--only", type=int)
    parser.add_argument("--replay")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--failures", type=int, default=5, help="how many failing streams to keep for each job")
    parser.add_argument("--whole", action="store_true", help="do not make failing streams small")
    parser.add_argument("--original", action="store_true", help="A is a memcached too, with a memcached's freedoms")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.replay or options.only is not None:
        if options.only is not None:
            stream = generate(options.seed, options.only)
        else:
            stream = Stream.from_json((sys.stdin if options.replay == "-" else open(options.replay)).read())
        return 0 if replay(options.a, options.b, stream, options.original).outcome in ("same", "allowed") else 1
    began = time.monotonic()
    counts, rules, failures, unstable = run(
        options.a,
        options.b,
        options.streams,
        options.seed,
        options.start,
        options.jobs,
        options.failures,
        not options.whole,
        options.original,
    )
    seconds = time.monotonic() - began
    if options.json:
        print(
            json.dumps(
                {
                    "seed": options.seed,
                    "counts": counts,
                    "rules": rules,
                    "failures": failures,
                    "unstable": unstable,
                    "seconds": round(seconds, 1),
                }
            )
        )
    else:
        print(
            f"seed {options.seed}, streams {options.start} to {options.start + options.streams - 1}: "
            + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
            + f"; {options.streams / seconds:.0f} streams/s"
        )
        for name, count in rules.most_common():
            print(f"  allowed {count:>6}  {name}")
        for detail in unstable[:5]:
            print(f"UNSTABLE (did not happen again) {detail}")
        for failure in failures:
            print(f"\nDIFFERENT {failure['detail']}\nreplay: {failure['stream']}")
    return 1 if counts["different"] + counts["died"] else 0


if __name__ == "__main__":
    sys.exit(main())
