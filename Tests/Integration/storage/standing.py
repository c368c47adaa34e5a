# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node whose disks stand still on demand."""

import subprocess
from pathlib import Path

from .node import Node


def build(directory):
    """The library that holds its calls up, compiled into `directory`."""
    path = directory / "stall.so"
    source = Path(__file__).with_name("stall.c")
    line = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", path, source, "-ldl"]
    subprocess.run(line, check=True)
    return path


class Standing(Node):
    """`stall` names the calls that do not return until `go_on`: sync, read, and log (writes to standard error); and slow,
    for syncs that take 300 ms."""

    def __init__(self, directory, library, **settings):
        super().__init__(directory, backend="rocksdb", admin=True, **settings)
        self.library = library
        self.switches = {name: directory / f"stall-{name}" for name in ("sync", "read", "log", "slow")}

    @property
    def environment(self):
        switches = {f"STALL_{name.upper()}": str(path) for name, path in self.switches.items()}
        return {**super().environment, "LD_PRELOAD": str(self.library), **switches}

    def stall(self, *names):
        for name in names:
            self.switches[name].touch()

    def go_on(self):
        for path in self.switches.values():
            path.unlink(missing_ok=True)

    def stop(self):
        self.go_on()
        super().stop()
