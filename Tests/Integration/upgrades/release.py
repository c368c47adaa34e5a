# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The programs of two releases, and clients that hold what they read against what they wrote.

MARTLET_BEFORE names the directory of the earlier release's programs. Without it both are the programs under test: what is
shown then is that processes can be replaced one by one under load, not that two releases understand each other.
"""

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from bed import Client, Closed, Crew, Patience, default_command


class Release:
    """A directory of programs."""

    def __init__(self, directory):
        self.directory = Path(directory)
        for name in ("martlet-server", "martlet-router", "martletctl"):
            assert (self.directory / name).exists(), f"no {name} in {directory}"

    def __repr__(self):
        return str(self.directory)

    @contextlib.contextmanager
    def used(self):
        """Whatever is started meanwhile is of this release."""
        names = {"MARTLET_SERVER": "martlet-server", "MARTLET_ROUTER": "martlet-router"}
        before = {name: os.environ.get(name) for name in names}
        os.environ.update({name: str(self.directory / program) for name, program in names.items()})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def control(self, *arguments, environment=None):
        """Runs martletctl; its exit code and what it said."""
        done = subprocess.run(
            [self.directory / "martletctl", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL)  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def knows(self, *flags):
        """Whether the server of it has these flags."""
        said = subprocess.run([self.directory / "martlet-server", "-h"], capture_output=True, text=True, timeout=20,
                              check=False).stdout  # fmt: skip
        return all(flag in said for flag in flags)


def releases():
    """The one before, and the one under test."""
    after = Path(default_command().split()[0]).resolve().parent
    return Release(os.environ.get("MARTLET_BEFORE") or after), Release(after)


class Load(Crew):
    """Clients that write numbers and read them again, while servers go and come.

    Each key has one writer, which knows the last number that was acknowledged and the last that was sent: whatever is
    read lies between the two. `keeps` says that a number which was acknowledged must be there: with a store, or where
    items survive a restart; without, a key may be missing at any time.
    """

    KEYS = 40

    def __init__(self, ports, keeps, clients=4, prefix="w"):
        super().__init__(clients)
        self.ports, self.keeps, self.prefix = list(ports), keeps, prefix
        self.acknowledged, self.sent = {}, {}
        self.wrong, self.reads, self.writes, self.errors, self.misses = [], 0, 0, {}, 0
        self.lock = threading.Lock()

    def error(self, what):
        with self.lock:
            self.errors[what] = self.errors.get(what, 0) + 1

    def connect(self, attempt):
        connection = socket.create_connection(("127.0.0.1", self.ports[attempt % len(self.ports)]), 5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(20)
        return Client(connection)

    def run(self, number):
        client, attempt, count = None, number, 0
        while not self.over.is_set():
            try:
                if client is None:
                    client = self.connect(attempt)
                self.step(client, f"{self.prefix}{number}:{count % self.KEYS}", count)
                count += 1
            except (Closed, OSError) as error:
                self.error(type(error).__name__)
                if client:
                    client.close()
                client, attempt = None, attempt + 1
                time.sleep(0.02)
        if client:
            client.close()

    def step(self, client, key, count):
        value = str(count)
        self.sent[key] = count
        said = client.ask(f"set {key} 0 0 {len(value)}\r\n{value}")
        if said == "STORED":
            self.acknowledged[key] = count
            self.writes += 1
        elif not said.startswith("SERVER_ERROR"):
            self.wrong.append(f"set {key}: {said}")
        else:
            self.error(" ".join(said.split()[:3]))
        # Another of its keys, which was written a while ago.
        other = f"{key.split(':')[0]}:{(count * 7) % self.KEYS}"
        if other in self.sent:
            self.read(client, other)

    def read(self, client, key):
        """Reads a key, and holds it against what was written."""
        client.send(f"get {key}\r\n")
        head = client.line()
        if head.startswith("SERVER_ERROR"):
            return self.error(" ".join(head.split()[:3]))
        found = None
        if head != "END":
            if not head.startswith("VALUE "):
                return self.wrong.append(f"get {key}: {head}")
            found = int(client.read(int(head.split()[3]) + 2))
            client.line()
        self.reads += 1
        low, high = self.acknowledged.get(key), self.sent[key]
        if found is None:
            self.misses += 1
            if self.keeps and low is not None:
                self.wrong.append(f"{key} is gone; {low} was acknowledged")
        elif not (low if low is not None else 0) <= found <= high:
            self.wrong.append(f"{key} is {found}; {low} was acknowledged, {high} was sent last")

    def settle(self, seconds=30):
        """Waits until clients have been served for a while by whoever is there now."""
        begun, patience = self.writes, Patience(seconds)
        while self.writes < begun + 200:
            assert not patience.is_over, f"nobody is served: {self.errors}"
            assert not self.wrong, self.wrong[:5]
            time.sleep(0.01)

    def check(self, client):
        """Reads everything once more, with nobody writing."""
        assert self.over.is_set()
        for key in sorted(self.sent):
            self.read(client, key)
        assert not self.wrong, self.wrong[:5]

    def __str__(self):
        return f"{self.writes} writes, {self.reads} reads, {self.misses} misses, errors {self.errors}"
