# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A node with storage that keeps its port, its directory and its settings over crashes and restarts."""

import json
import os
import shlex
import signal
import subprocess
import time
import urllib.error
import urllib.request

from bed import Closed, Patience, Server, default_command, free_port
from bed.server import StartError

from . import database

BACKEND = os.environ.get("MARTLET_TEST_STORAGE") or "rocksdb"


class Node:
    """One node. `pools` are mappings as in the configuration file; `settings` are flags without their dashes."""

    def __init__(self, directory, pools=(), memory=64, threads=2, backend=BACKEND, flags=(), admin=False, **settings):
        self.directory = directory
        self.path = directory / "rows"
        self.port = free_port()
        self.admin = free_port() if admin else None
        self.backend = backend
        self.server = None
        file = directory / "node.yaml"
        file.write_text(json.dumps({"pools": list(pools)}) if pools else "{}\n")
        self.arguments = ["-l", "127.0.0.1", "-p", str(self.port), "-m", str(memory), "-t", str(threads)]
        self.arguments += ["--storage-backend", backend, "--config", str(file), *flags]
        self.url = None
        if backend == "rocksdb":
            self.arguments += ["--storage-path", str(self.path)]
        elif backend == "postgres":
            # In the environment, as users are told to: flags are in everybody's list of processes.
            self.url = database.shared().fresh(str(directory))
        for name, value in settings.items():
            self.arguments += [f"--{name.replace('_', '-')}", str(value)]

    @property
    def environment(self):
        variables = {"MARTLET_ADMIN": f"127.0.0.1:{self.admin}" if self.admin else "off"}
        if self.url is not None:
            variables["MARTLET_STORAGE_URL"] = self.url
        return variables

    @property
    def name(self):
        """Of its database."""
        return self.url.rsplit("/", 1)[1]

    def start(self):
        address = ("127.0.0.1", self.port)
        self.server = Server(self.arguments, listen=False, wait=address, environment=self.environment)
        # That a port listens does not say that anybody serves.
        try:
            with self.client(30) as client:
                assert client.ask("mn") == "MN"
        except (Closed, ConnectionError) as error:
            try:
                code = self.server.process.wait(10)
            except subprocess.TimeoutExpired:
                code = "nothing: it runs and does not serve"
            said = self.server.output()
            self.server.stop()
            raise StartError(f"ended with {code}: {said}") from error
        return self

    def kill(self):
        """The process ends between two instructions of its own choosing."""
        self.server.process.kill()
        self.server.process.wait()
        self.server.stop()

    def terminate(self, seconds=20):
        """Asks it to end, and returns its exit code."""
        self.server.signal(signal.SIGTERM)
        code = self.server.wait(seconds)
        self.server.stop()
        return code

    def restart(self, crash=True):
        if crash:
            self.kill()
        else:
            self.terminate()
        return self.start()

    def stop(self):
        if self.server:
            self.server.stop()

    def client(self, timeout=10):
        return self.server.client(timeout)

    def statistics(self):
        """`stats storage`, numbers as numbers."""
        with self.client() as client:
            rows = client.stats("storage")
        return {name: float(text) if text.replace(".", "", 1).isdigit() else text for name, text in rows.items()}

    def get(self, path, token=None):
        """Status and text of a page of the admin port."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def settle(self, seconds=20):
        """Waits until no write is under way and no outcome is unknown."""
        patience = Patience(seconds)
        while not patience.is_over:
            rows = self.statistics()
            if not rows.get("writes_in_flight") and not rows.get("uncertain_keys"):
                return rows
            time.sleep(0.02)
        raise AssertionError(f"writes are still under way after {seconds} s: {rows}")

    def refuse(self, seconds=20):
        """Starts it where it must not start; returns its exit code and what it said."""
        line = [*shlex.split(default_command()), *(["-u", "root"] if os.geteuid() == 0 else []), *self.arguments]
        finished = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
            env=dict(os.environ, **self.environment))  # fmt: skip
        return finished.returncode, finished.stdout + finished.stderr

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
