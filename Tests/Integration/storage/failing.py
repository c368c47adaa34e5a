# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node on a disk whose writes and syncs of the store's log, or reads of its files, fail on demand."""

import errno
import subprocess
from pathlib import Path

from .node import Node

# What fails of the log, and why: see failing.c.
KINDS = (
    ("write", errno.ENOSPC), ("write", errno.EIO), ("torn", errno.ENOSPC), ("torn", errno.EIO), ("sync", errno.EIO),
    ("sync", errno.ENOSPC), ("lost", errno.EIO))  # fmt: skip


class Failing(Node):
    """Until `fail` is called, its disk is as good as any; a start mends it."""

    def __init__(self, directory, **settings):
        super().__init__(directory, backend="rocksdb", admin=True, **settings)
        self.library = directory / "failing.so"
        self.switch = directory / "failing"
        source = Path(__file__).with_name("failing.c")
        line = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", self.library, source]
        subprocess.run(line, check=True)

    @property
    def environment(self):
        return {**super().environment, "LD_PRELOAD": str(self.library), "FAILING_DISK": str(self.switch)}

    def fail(self, kind, number, after):
        """From the call `after` on, those of a kind fail with the error `number`."""
        draft = self.switch.with_suffix(".draft")
        draft.write_text(f"{kind} {after} {number}\n")
        draft.rename(self.switch)

    def start(self):
        self.switch.unlink(missing_ok=True)
        return super().start()
