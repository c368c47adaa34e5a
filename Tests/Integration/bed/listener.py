# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A server of a test's own making."""

import socket
import threading


class Listener:
    """Listens on a free port of loopback until it is stopped or left; each connection goes to `serve`, in a thread of its
    own, and is closed when that returns. Of what it raises, an end of the connection is no error."""

    def __init__(self, serve):
        self.serve = serve
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.connections = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.run, args=(connection,), daemon=True).start()

    def run(self, connection):
        try:
            with connection:
                self.serve(connection)
        except OSError:
            pass

    def stop(self):
        """Nobody listens from now on, and every connection is gone."""
        for one in [self.socket, *self.connections]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
