# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node whose machine loses its power with the process: of its store only what was synced stays. See
Tests/StorageCrash/power.py, which plays this."""

import sys
from pathlib import Path

from .node import Node

sys.path.append(str(Path(__file__).resolve().parents[2] / "StorageCrash"))
from power import Recorder, build  # noqa: E402


class Powered(Node):
    """`source` decides what of the rest is on the disk. `taken` counts the bytes that the losses took."""

    def __init__(self, directory, source, **settings):
        disk = directory / "disk"
        disk.mkdir()
        super().__init__(disk, backend="rocksdb", **settings)
        self.source = source
        self.work = directory / "power"
        self.library = build(directory)
        self.recorder = None
        self.taken = 0

    @property
    def environment(self):
        names = ("LD_PRELOAD", "POWERLOSS_LOG", "POWERLOSS_ROOT", "POWERLOSS_GRAVEYARD", "POWERLOSS_LIE")
        recorded = self.recorder.environment()
        return {**super().environment, **{name: recorded[name] for name in names}}

    def start(self):
        self.recorder = Recorder(self.directory, self.work, self.library)
        return super().start()

    def kill(self):
        super().kill()
        self.taken += self.recorder.cut(self.source)
