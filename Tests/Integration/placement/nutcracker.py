# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A twemproxy before servers that only note which keys they are asked for."""

import socket
import socketserver
import subprocess
import threading
import time

from bed.server import free_port


class Backend:
    """Answers every get with a miss and keeps its keys."""

    def __init__(self, path=None):
        self.keys = set()
        backend = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                for line in self.rfile:
                    words = line.split()
                    if not words or words[0] not in (b"get", b"gets"):
                        return
                    backend.keys.update(word.decode() for word in words[1:])
                    self.wfile.write(b"END\r\n")

        if path:
            kind = type("Unix", (socketserver.ThreadingMixIn, socketserver.UnixStreamServer), {"daemon_threads": True})
            self.server = kind(str(path), Handler)
            self.host, self.port = str(path), 0
        else:
            kind = type("Network", (socketserver.ThreadingTCPServer,), {"daemon_threads": True})
            self.server = kind(("127.0.0.1", 0), Handler)
            self.host, self.port = self.server.server_address
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Nutcracker:
    """Debian's nutcracker with one pool: who gets a key is found by asking through it."""

    def __init__(self, directory, backends, servers, distribution, hash_name, tag=None):
        self.backends = backends
        self.port = free_port()
        lines = [
            "pool:", f"  listen: 127.0.0.1:{self.port}", f"  hash: {hash_name}", f"  distribution: {distribution}",
            "  timeout: 20000", "  preconnect: true", "  servers:",
        ]
        if tag:
            lines.insert(2, f'  hash_tag: "{tag}"')
        for host, port, weight, *alias in servers:
            address = f"{host}:{weight}" if port == 0 else f"{host}:{port}:{weight}"
            lines.append("   - " + " ".join([address, *alias]))
        path = directory / f"nutcracker-{self.port}.yml"
        path.write_text("\n".join(lines) + "\n")
        self.log = directory / f"nutcracker-{self.port}.log"
        self.process = subprocess.Popen(
            ["nutcracker", "-c", path, "-o", self.log, "-p", directory / f"nutcracker-{self.port}.pid",
             "-a", "127.0.0.1", "-s", str(free_port()), "-v", "4"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.connect().close()

    def connect(self):
        deadline = time.monotonic() + 20
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=60)
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"nutcracker does not listen: {self.log.read_text()}") from None
                time.sleep(0.02)

    def owners(self, keys):
        """The index of the backend that each key was asked of."""
        for backend in self.backends:
            backend.keys.clear()
        with self.connect() as connection, connection.makefile("rb") as replies:
            for first in range(0, len(keys), 40):
                connection.sendall(b"get " + " ".join(keys[first:first + 40]).encode() + b"\r\n")
                assert replies.readline() == b"END\r\n"
        places = {}
        for index, backend in enumerate(self.backends):
            for key in backend.keys:
                assert key not in places, f"{key} was asked of two servers"
                places[key] = index
        return [places[key] for key in keys]

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
