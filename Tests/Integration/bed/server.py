# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A memcached-compatible server as a child process."""

import collections
import os
import random
import shlex
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .patience import Patience

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 20
# The machine that runs the tests is shared, and refuses what it keeps waiting for a millisecond. Tests of shedding have
# flags for it, or take this out of the environment.
OVERLOAD_TARGET = "100ms"


def default_command():
    """The command of the server under test: MARTLET_SERVER, else the release build."""
    return os.environ.get("MARTLET_SERVER") or str(ROOT / ".build/release/martlet-server")


def memcached_command():
    """The command of the original to compare with: MEMCACHED, else Debian's."""
    return os.environ.get("MEMCACHED") or "/usr/bin/memcached"


PORTS = range(10_000, 30_000)  # the kernel gives none of these to those who ask for any (ip_local_port_range)
CLAIMS_KEPT = 300
_claims = collections.deque(maxlen=CLAIMS_KEPT)


def _claimed(port):
    """Whether the port is this process's: no other that asks here gets it before 300 more were given or we end.

    The claim is a name in the kernel's abstract space, which goes with the process however it ends.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0martlet-test-port-{port}")
    except OSError:
        claim.close()
        return False
    if len(_claims) == CLAIMS_KEPT:
        _claims.popleft().close()
    _claims.append(claim)
    return True


def free_ports(count, kind=socket.SOCK_STREAM, host="127.0.0.1"):
    """The first of `count` ports in a row that nobody uses, nor gets from here while a test is likely to need them. In place of
    the count, how far each is from the first."""
    places = range(count) if isinstance(count, int) else sorted(count)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(10_000):
        first = random.randrange(PORTS.start, PORTS.stop - places[-1])
        for port in (first + place for place in places):
            with socket.socket(family, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # What connections that were closed keep for a minute, servers listen on all the same.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError:
                    break
            if not _claimed(port):
                break
        else:
            return first
    raise OSError(f"no {len(places)} free ports with these distances from {PORTS.start} to {PORTS.stop}")


def free_port(kind=socket.SOCK_STREAM, host="127.0.0.1"):
    """A port nobody uses."""
    return free_ports(1, kind, host)


class StartError(Exception):
    """The server ended, or never listened; carries what it printed."""


class Server:
    """One server, listening when the constructor returns and gone when `stop` does.

    `arguments` is a list or a string of flags. By default the server gets one TCP port on 127.0.0.1; `unix=PATH`
    gives it a socket instead, and `listen=False` leaves listening to the arguments (with `wait=(host, port)`).
    """

    def __init__(self, arguments=(), command=None, unix=None, listen=True, wait=None, environment=None, user=True):
        arguments = shlex.split(arguments) if isinstance(arguments, str) else list(arguments)
        self.unix = unix
        self.host, self.port = "127.0.0.1", None
        line = shlex.split(command or default_command())
        if user and os.geteuid() == 0 and "-u" not in arguments:
            line += ["-u", "root"]
        if unix:
            line += ["-s", str(unix)]
            self.address = str(unix)
        elif listen:
            self.port = free_port()
            line += ["-l", self.host, "-p", str(self.port)]
            self.address = (self.host, self.port)
        else:
            self.address = wait
            self.port = wait[1] if isinstance(wait, tuple) else None
        self.line = line + [str(argument) for argument in arguments]
        self.errors = tempfile.TemporaryFile()
        # The admin port is one fixed port: many servers at once leave it off unless a test says otherwise.
        variables = dict(os.environ, MARTLET_ADMIN="off")
        if not any(argument.startswith("--overload") for argument in self.line) and Path(line[0]).name == "martlet-server":
            variables["MARTLET_OVERLOAD_TARGET"] = OVERLOAD_TARGET
        variables.update(environment or {})
        variables = {name: value for name, value in variables.items() if value is not None}
        self.process = subprocess.Popen(
            self.line, stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors, env=variables
        )
        self.pid = self.process.pid
        if self.address is not None:
            self.await_listening()

    def await_listening(self):
        """Returns when the address accepts; raises StartError when it never does."""
        patience = Patience(START_SECONDS)
        while not patience.is_over:
            try:
                self.connect(timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.005)
        code, said = self.process.poll(), self.output()
        self.stop()
        raise StartError(
            f"{shlex.join(self.line)}\n{'never listened' if code is None else f'ended with {code}'}: {said}"
        )

    def connect(self, timeout=10):
        """A connected blocking socket."""
        if isinstance(self.address, str):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(timeout)
            connection.connect(self.address)
            return connection
        connection = socket.create_connection(self.address, timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def client(self, timeout=10):
        """A text-protocol client on a new connection."""
        from .client import Client

        return Client(self.connect(timeout))

    def output(self):
        """What the server has printed so far."""
        if self.errors.closed:
            return ""
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")

    def says(self, text, seconds=10):
        """Whether it prints `text` within `seconds`: a thread of its own writes the log."""
        patience = Patience(seconds)
        while text not in self.output():
            if patience.is_over:
                return False
            time.sleep(0.02)
        return True

    def alive(self):
        return self.process.poll() is None

    def rss(self):
        """Resident bytes."""
        with open(f"/proc/{self.pid}/status") as status:
            for row in status:
                if row.startswith("VmRSS"):
                    return int(row.split()[1]) * 1024
        return 0

    def descriptors(self):
        """How many file descriptors are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=10):
        """Waits for the end of the process; returns its exit code."""
        return self.process.wait(seconds)

    def stop(self):
        """Ends the process at once: a memcached takes a second or more over SIGTERM. Its exit code, when it had one."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.errors.close()
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
