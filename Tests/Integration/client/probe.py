# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Runs client-probe, which stands beside the server under test, and servers of the test's own that misbehave."""

import json
import os
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path

from bed import default_command

# Any single run of these tests is over by then.
LIMIT_SECONDS = 90


def command():
    """The probe: CLIENT_PROBE, else what stands beside the server under test."""
    return os.environ.get("CLIENT_PROBE") or str(Path(default_command().split()[0]).with_name("client-probe"))


def address(server):
    return f"127.0.0.1:{server.port}"


def hurry(pid=0):
    """Where it may, a process goes before other work of the machine: what is measured is time."""
    tasks = os.listdir(f"/proc/{pid}/task") if pid else [0]
    for task in tasks:
        try:
            os.sched_setscheduler(int(task), os.SCHED_FIFO, os.sched_param(1))
        except OSError:
            pass


class Probe:
    """A run of client-probe; `ready` waits until it began, `result` until it ended."""

    def __init__(self, what, servers=(), *options, punctual=False):
        line = [command(), what]
        if servers:
            line += ["--servers", ",".join(servers)]
        self.process = subprocess.Popen(
            line + [str(option) for option in options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=hurry if punctual else None)

    def ready(self):
        assert self.process.stdout.readline() == "ready\n"

    def result(self):
        out, err = self.process.communicate(timeout=LIMIT_SECONDS)
        assert self.process.returncode == 0, out + err
        return out

    def json(self):
        return json.loads(self.result().splitlines()[-1])

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def run(what, servers=(), *options):
    """What a run prints."""
    return Probe(what, servers, *options).result()


class Misbehaving:
    """A server that answers reads with misses until it is told otherwise: `mode` is answer, stall, close, nonsense,
    busy, or slow (the first connection takes `seconds`)."""

    def __init__(self, mode="answer", seconds=0.05):
        self.mode, self.seconds = mode, seconds
        self.requests = self.connections = 0
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                server.connections += 1
                number = server.connections
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if server.mode == "close":
                    return
                for _ in self.rfile:
                    server.requests += 1
                    if not server.reply(self.wfile, number):
                        return

        class Threads(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

        self.server = Threads(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def reply(self, stream, number):
        """Answers one request; False ends the connection."""
        try:
            if self.mode == "stall":
                time.sleep(3600)
            if self.mode == "slow" and number == 1:
                time.sleep(self.seconds)
            lines = {"nonsense": b"what?\r\n", "busy": b"SERVER_ERROR 307 busy\r\n"}
            stream.write(lines.get(self.mode, b"EN\r\n"))
            return self.mode != "close"
        except OSError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
