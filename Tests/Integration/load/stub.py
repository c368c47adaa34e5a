# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A server of a test's own making: each request goes to a function, which says what is sent back, or nothing."""

import socket
import threading

# What a reply function gives to close the connection, and to close all and listen no more.
CLOSE, DIE = object(), object()


class Stub:
    """Listens on `address` until it is left. `reply(words, value)` answers one request, in its own time."""

    def __init__(self, reply):
        self.reply = reply
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            with connection, connection.makefile("rb") as lines:
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
        except OSError:
            pass

    def stop(self):
        """Nobody listens from now on, and every connection is gone."""
        for one in [self.listener, *self.connections]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
