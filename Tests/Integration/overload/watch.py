# Martlet
# SPDX-License-Identifier: Apache-2.0
"""When the machine held programs up: what a figure of a few milliseconds cannot be blamed for."""

import os
import time
from multiprocessing import Event, Process, Queue


def _watch(processor, limit, ready, stop, found):
    os.sched_setaffinity(0, {processor})
    late, last = [], time.monotonic()
    ready.set()
    while not stop.is_set():
        time.sleep(0.001)
        now = time.monotonic()
        if now - last > limit + 0.001:
            late.append((last, now))
        last = now
    found.put(late)


class StallWatch:
    """Records, on each processor, when a thread that sleeps a millisecond at a time ran more than `limit` seconds late."""

    def __init__(self, limit=0.005):
        self.stop, self.found, self.processes = Event(), Queue(), []
        for processor in sorted(os.sched_getaffinity(0)):
            ready = Event()
            process = Process(target=_watch, args=(processor, limit, ready, self.stop, self.found), daemon=True)
            process.start()
            ready.wait(10)
            self.processes.append(process)

    def end(self):
        """The stalls of all processors: begin and end, as time.monotonic() tells them, in order."""
        self.stop.set()
        stalls = [stall for _ in self.processes for stall in self.found.get(timeout=10)]
        for process in self.processes:
            process.join(10)
        return sorted(stalls)
