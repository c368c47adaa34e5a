# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Cycles of load, crash and check. A driver is what writes and what checks: DirectDriver has the storage backend in a
program of its own; one that talks to a whole node by sockets needs the same three methods.
"""

import os
import random as randoms
import shutil
import subprocess
import threading
import time
from pathlib import Path

from model import UNKNOWN, Dump, Store, Write
from power import Recorder

#: Cycles in one directory, before the next begins with an empty one.
CYCLES_IN_A_DIRECTORY = 10
HOUR = 3_600_000


class DirectDriver:
    """Runs the backend in the program storage-crash-writer."""

    def __init__(self, program):
        self.program = str(program)

    def start(self, directory, seed, durability, first_token, clock_offset, environment):
        """A process that writes to the store until it is killed; what it says comes out of its standard output."""
        command = [self.program, "run", directory, seed, durability, first_token, clock_offset]
        return subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)

    def transcript(self, output):
        """The writes in the order of submission, from what the process said; and the other lines."""
        writes, by_token, others = [], {}, []
        for line in output.decode().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # cut short by the kill
            kind, *words = line.split()
            if kind == "S":
                write = Write(words)
                writes.append(write)
                by_token[write.token] = write
            elif kind == "A":
                write = by_token[int(words[0])]
                if words[1].startswith("failed-"):
                    others.append(line.strip())
                else:
                    write.outcome = words[1]
                    write.version = int(words[2]) or UNKNOWN
            else:
                others.append(line.strip())
        return writes, others

    def check(self, directory, durability):
        """What is in the store now; opens and closes it."""
        shown = subprocess.run(
            [self.program, "check", str(directory), durability], capture_output=True, text=True, check=False)
        dump = Dump(shown.stdout.splitlines())
        if not dump.is_whole and not dump.error:
            dump.error = f"check ended with {shown.returncode}: {shown.stderr[-500:]}"
        return dump


def kill_after(process, seconds):
    """Reads what the process says, kills it after `seconds`, and gives all that it said."""
    said = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))
    reader.start()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    reader.join()
    process.stdout.close()
    return b"".join(said)


class Series:
    """Cycles with one kind of crash. `kind` is `kill` or `power`."""

    def __init__(self, driver, work, kind, durability="sync", library=None):
        self.driver, self.kind, self.durability, self.library = driver, kind, durability, library
        self.work = Path(work)
        self.store = None
        self.lost = self.answered = self.submitted = 0
        #: Bytes that power losses took.
        self.taken = 0

    def fresh(self):
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.store, self.token = Store(), 1

    def cycle(self, seed):
        """One cycle; gives what was wrong. A cycle is determined by its seed and by those before it in the directory,
        as far as the kernel's scheduling is not part of it."""
        random = randoms.Random(seed)
        if self.store is None or (seed - 1) % CYCLES_IN_A_DIRECTORY == 0:
            self.fresh()
        directory = self.work / "root" / "store"
        directory.parent.mkdir(exist_ok=True)
        recorder = None
        environment = dict(os.environ)
        if self.kind == "power":
            recorder = Recorder(directory.parent, self.work / "power", self.library)
            environment = recorder.environment()
        offset = random.choice([0, 0, -HOUR, HOUR, random.randrange(-HOUR, HOUR)])
        process = self.driver.start(directory, seed, self.durability, self.token, offset, environment)
        # Some die while they open the store.
        output = kill_after(process, random.choice([random.uniform(0.0, 0.08), random.uniform(0.05, 0.6)]))
        writes, others = self.driver.transcript(output)
        findings = [line for line in others if line.startswith(("E ", "F ", "READONLY"))]
        if process.returncode != -9:
            findings.append(f"the writer ended by itself with {process.returncode}")
        if recorder is not None:
            self.taken += recorder.cut(random)
        self.token += len(writes)
        self.submitted += len(writes)
        self.answered += sum(1 for write in writes if write.outcome)
        lost, wrong = self.store.after(writes, self.driver.check(directory, self.durability))
        self.lost += lost
        if lost and self.durability != "async":
            findings.append(f"{lost} acknowledged writes are lost")
        return findings + wrong


def run(series, first, last, say=print, deadline=None):
    """Cycles by their seeds; gives the findings, each with its seed."""
    findings = []
    for seed in range(first, last + 1):
        if deadline is not None and time.monotonic() > deadline:
            break
        wrong = series.cycle(seed)
        for finding in wrong:
            say(f"seed {seed}: {finding}")
            findings.append(f"seed {seed}: {finding}")
        if wrong:
            series.store = None
            break
    return findings
