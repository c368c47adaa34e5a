# Martlet
# SPDX-License-Identifier: Apache-2.0
"""For scripts that start programs on loopback and end them with themselves."""

import atexit
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Tests/Integration"))
from bed import free_port  # noqa: E402

POSTGRES = Path("/usr/lib/postgresql/15/bin")


def is_taken(port):
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end_in_order():
    """Has the script end as at its end, and with it what it registered, when it is told to end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    # A shell that starts this behind `&` has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(line, log):
    """A program whose words go to the file `log`. It ends with this script, however that ends."""
    with open(log, "wb") as said:
        return subprocess.Popen([str(word) for word in line], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                preexec_fn=_with_parent)  # fmt: skip


def _with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def await_listening(port, process, what, log):
    """Waits up to a minute until a program listens; ends the script with what it said where it does not."""
    for _ in range(1200):
        if is_taken(port):
            return
        if process.poll() is not None:
            with open(log, errors="replace") as said:
                sys.exit(f"{what} ended at its start with {process.returncode}:\n{said.read()}")
        time.sleep(0.05)
    sys.exit(f"{what} did not listen on 127.0.0.1:{port}")


def end_at_exit(processes):
    """Ends the programs when the script does, the last first."""

    def end():
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()

    atexit.register(end)


class Database:
    """A PostgreSQL of our own, with our tables, in a directory that goes with the script. `programs` is where ours are."""

    def __init__(self, programs):
        if not (POSTGRES / "initdb").exists():
            sys.exit("no PostgreSQL 15 here: make install, or apt-get install postgresql-15")
        self.directory = tempfile.mkdtemp(prefix="martlet-sql-")
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        self.run("initdb", "-D", f"{self.directory}/data", "-U", "martlet", "--auth=trust", "-E", "UTF8")
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={self.directory} -c port={self.port}"
        atexit.register(self.remove)
        self.run("pg_ctl", "-D", f"{self.directory}/data", "-l", f"{self.directory}/log", "-w", "-o", options, "start")
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "martlet", "martlet")
        self.url = f"postgresql://martlet@127.0.0.1:{self.port}/martlet"
        environment = dict(os.environ, MARTLET_STORAGE_URL=self.url)
        init = [programs / "martletctl", "storage", "init"]
        subprocess.run(init, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)

    def run(self, program, *arguments):
        line = [POSTGRES / program, *arguments]
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            line = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *line]
        with tempfile.TemporaryFile() as said:
            code = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/").returncode
            if code:
                said.seek(0)
                sys.exit(f"{program} ended with {code}: {said.read().decode()}")

    def remove(self):
        self.run("pg_ctl", "-D", f"{self.directory}/data", "-m", "fast", "-w", "stop")
        shutil.rmtree(self.directory, ignore_errors=True)
