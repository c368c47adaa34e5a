# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A server of a test's own making: each request goes to a function, which says what is sent back, or nothing."""

from bed import Listener

# What a reply function gives to close the connection, and to close all and listen no more.
CLOSE, DIE = object(), object()


class Stub(Listener):
    """Listens on `address` until it is left. `reply(words, value)` answers one request, in its own time."""

    def __init__(self, reply):
        self.reply = reply
        super().__init__(self.answer)

    def answer(self, connection):
        with connection.makefile("rb") as lines:
            for line in lines:
                words = line.decode("latin-1").split()
                stores = words[0] in ("set", "add", "replace", "append", "prepend", "cas")
                value = lines.read(int(words[4]) + 2)[:-2] if stores else None
                answer = self.reply(words, value)
                if answer is DIE:
                    self.stop()
                if answer is DIE or answer is CLOSE:
                    return
                if answer:
                    connection.sendall(answer)
