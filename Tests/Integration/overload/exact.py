# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The load of openloop.py as a C program that is late by microseconds: for figures. Latencies begin when a request was sent;
how late that was is told apart, so that neither is taken for the other."""

import socket
import struct
import subprocess
import tempfile
from pathlib import Path

from .openloop import Outcome

SERVED, REFUSED, NEITHER, UNANSWERED = range(4)
ANSWER = struct.Struct("=dddII")


def build(directory):
    """The load generator, compiled into `directory`."""
    path = Path(directory) / "openloop"
    source = Path(__file__).with_name("openloop.c")
    line = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", path, source, "-lpthread", "-lm"]
    subprocess.run(line, check=True)
    return path


class Load:
    """The generator, built once."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.program = build(self.folder.name)

    def run(self, port, sources, seconds, seed, retries=0, reconnects=False, spins=True, comes_first=False):
        """Offers each source's Poisson stream for so long: an outcome for each, and when a sleeping thread was held up on one
        of the machine's processors. A source's rate is a number, or a list of (until, rate); where its line is a pair, the
        first %d in the line counts up to the number. What is refused is sent again up to `retries` times, and `reconnects`
        first where nothing else is asked on its connection. The load has a processor for itself where it `spins`, and comes
        before all else on it where it `comes_first`, which not everybody may."""
        pace = 2 if comes_first else int(spins)
        plan = [f"load {port} {seconds} {seed} {retries} {int(reconnects)} {pace} {len(sources)}\n".encode()]
        for source in sources:
            line, numbers = source.line if isinstance(source.line, tuple) else (source.line, 0)
            pieces = source.rate if isinstance(source.rate, list) else [(seconds, source.rate)]
            host = struct.unpack("!I", socket.inet_aton(source.host))[0] & 0xFFFFFF
            plan.append(f"source {source.connections} {host} {numbers} {len(line)} {len(pieces)}\n".encode() + line)
            plan += [f"{until:.9f} {rate:.6f}\n".encode() for until, rate in pieces]
        done = subprocess.run([self.program], input=b"".join(plan), stdout=subprocess.PIPE, check=True)
        return read(done.stdout, sources, seconds)


def read(result, sources, seconds):
    """From what the program wrote to an outcome for each source, and the stalls."""
    began, stall_count, answer_count = struct.unpack_from("=dQQ", result)
    stalls = [struct.unpack_from("=dd", result, 24 + 16 * index) for index in range(stall_count)]
    outcomes = []
    for _ in sources:
        outcome = Outcome()
        outcome.began, outcome.seconds = began, seconds
        outcomes.append(outcome)
    answers = memoryview(result)[24 + 16 * stall_count :]
    assert len(answers) == answer_count * ANSWER.size
    for due, sent, answered, number, kind in ANSWER.iter_unpack(answers):
        outcome = outcomes[number]
        outcome.late.append(sent - due)
        if kind == SERVED:
            outcome.latencies.append(answered - sent)
            outcome.served_due.append(due)
        elif kind == REFUSED:
            outcome.refused += 1
            outcome.refusal_latencies.append(answered - sent)
            outcome.refused_due.append(answered)
        else:
            outcome.others["no answer" if kind == UNANSWERED else "another answer"] += 1
    for outcome in outcomes:
        outcome.offered = len(outcome.late)
    return outcomes, sorted(stalls)
