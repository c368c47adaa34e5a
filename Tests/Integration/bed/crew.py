# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Threads that work beside a test."""

import threading


class Crew:
    """Threads that each call `run` with their number, as long as a `with` lasts: `over` tells them that it ends.

    Behind the last of them the end raises what one of them raised, and calls `verify`, unless the test itself failed.
    """

    PATIENCE = 30

    def __init__(self, count):
        self.over, self.raised = threading.Event(), []
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(count)]

    def run(self, number):
        raise NotImplementedError

    def verify(self):
        """Looks at what the threads found."""

    def work(self, number):
        try:
            self.run(number)
        except Exception as error:  # noqa: BLE001 - raised again where the test sees it
            self.raised.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(self.PATIENCE)
        if kind is not None:
            return
        assert not any(thread.is_alive() for thread in self.threads), "a thread goes on"
        if self.raised:
            raise self.raised[0]
        self.verify()
