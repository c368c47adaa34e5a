# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Starting a server for a measurement, and reading what the kernel says of it."""

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../Tests/Integration"))
from bed import free_port  # noqa: E402


def mcload():
    """The load generator, built when its source is newer."""
    path = os.path.join(tempfile.gettempdir(), f"martlet-mcload-{os.getuid()}")
    source = os.path.join(HERE, "mcload.c")
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(source):
        subprocess.run(["cc", "-O2", "-o", path, source, "-lm"], check=True)
    return path


class Node:
    """A running server; `command` is a program and `flags` follow it. `processors` pins it."""

    def __init__(self, command, flags, processors=None):
        self.port = free_port()
        line = shlex.split(command) + ["-l", "127.0.0.1", "-p", str(self.port)] + shlex.split(flags)
        if os.geteuid() == 0:
            line += ["-u", "root"]
        if processors is not None:
            line = ["taskset", "-c", processors, *line]
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, MARTLET_ADMIN="off"),
        )
        self.pid = self.process.pid
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("bench: the server ended at start: " + shlex.join(line))
                time.sleep(0.025)
        self.stop()
        sys.exit("bench: the server never listened: " + shlex.join(line))

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), 30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def rss(self):
        """Resident bytes."""
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(row.split()[1]) for row in status if row.startswith("VmRSS")) * 1024

    def stats(self):
        with self.connect() as connection:
            connection.sendall(b"stats\r\n")
            data = b""
            while not data.endswith(b"END\r\n"):
                data += connection.recv(65536)
        return dict(row.split(" ", 2)[1:] for row in data.decode().split("\r\n") if row.startswith("STAT"))

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
