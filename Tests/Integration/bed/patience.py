# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Waits for a state: until it is there, or for longer than it can take."""

import time

PRESSURE = "/proc/pressure/cpu"
# Of a second in which somebody waited for a processor all the time, so much counts.
LEAST = 0.25


def stalled():
    """Seconds since the machine started in which somebody waited for a processor; 0 where nobody says so."""
    try:
        with open(PRESSURE) as file:
            return int(file.readline().rsplit("total=", 1)[1]) / 1e6
    except (OSError, IndexError, ValueError):
        return 0.0


class Patience:
    """A limit in seconds of a machine that is not busy: seconds in which processors are short count for less, and nothing
    counts for less than a quarter. What waits is mostly there at once, and the limit is for what never comes."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.began, self.stalled = time.monotonic(), stalled()

    @property
    def is_over(self):
        gone = time.monotonic() - self.began
        if gone < self.seconds:
            return False
        return gone - (1 - LEAST) * min(gone, stalled() - self.stalled) >= self.seconds


def until(look, seconds=20, what="it", pause=0.01):
    """Waits until `look` gives something true, and returns that."""
    patience = Patience(seconds)
    while True:
        found = look()
        if found:
            return found
        assert not patience.is_over, f"{what() if callable(what) else what} did not come about in {seconds} s"
        time.sleep(pause)
