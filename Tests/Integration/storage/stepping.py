# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node whose machine's time of day is set while it runs: see streams/suspend.c."""

from streams.rounds import Clock

from .node import Node


class Stepping(Node):
    def __init__(self, directory, **settings):
        super().__init__(directory, **settings)
        self.clock = Clock(directory, "day")

    @property
    def environment(self):
        return {**super().environment, **self.clock.variables}
