# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Runs martlet-load, which stands beside the server under test, and reads what it says."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

from bed import default_command

# Any single run of these tests is over by then.
LIMIT_SECONDS = 120


def command():
    return str(Path(default_command().split()[0]).with_name("martlet-load"))


def first_in_line():
    """Where it may, a run goes before other work of the machine: what is measured is time."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        pass


def interrupt(process, seconds=15):
    """What the process says until its end, which a Ctrl-C asks for."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        process.kill()


class Run:
    """One finished run: `code`, `out`, `err`, and the exported summary as `metrics` and `root`."""

    def __init__(self, *arguments, file=None, punctual=False, name="test.yaml", environment=None, cwd=None):
        with tempfile.TemporaryDirectory() as scratch:
            export = Path(scratch) / "summary.json"
            line = [command(), *map(str, arguments)]
            if file is not None:
                path = Path(cwd or scratch) / name
                path.write_text(file)
                line = [command(), "run", str(path), "--summary-export", str(export), *map(str, arguments)]
            done = subprocess.run(
                line, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
                stdin=subprocess.DEVNULL, env=environment, cwd=cwd, preexec_fn=first_in_line if punctual else None)
            self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
            self.summary = json.loads(export.read_text()) if export.exists() else {}
        self.metrics = self.summary.get("metrics", {})
        self.root = self.summary.get("root_group", {})

    def figure(self, metric, name):
        return self.metrics[metric][name]

    def __repr__(self):
        return f"exit {self.code}\n{self.out}\n{self.err}"
