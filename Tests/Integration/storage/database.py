# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Debian's PostgreSQL as a child process, on a free port of loopback, in a directory that goes with it."""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import threading

from bed import default_command, free_port, until  # noqa: F401 - for those who wait for what a database does

BINARIES = "/usr/lib/postgresql/15/bin"
PASSWORD = "Geheim-4711"


def is_installed():
    return os.access(f"{BINARIES}/initdb", os.X_OK)


class Database:
    """A server whose superuser is `martlet`. As the user postgres when the tests run as root, because it refuses to run
    as root. With a primary, a standby of it, which follows it until it is promoted. `log` is where its write-ahead log
    is, in segments of 1 MiB; with its rows where nothing is said."""

    def __init__(self, primary=None, log=None):
        self.directory = tempfile.mkdtemp(prefix="martlet-sql-")
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        if primary:
            self.run(
                "pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-h", "127.0.0.1", "-p",
                str(primary.port), "-U", "martlet")  # fmt: skip
        else:
            place = ["-X", str(log), "--wal-segsize=1"] if log else []
            self.run("initdb", "-D", self.data, "-U", "martlet", "--auth=trust", "-E", "UTF8", "--no-sync", *place)
        self.made, self.count = {}, 0
        self.start()

    @property
    def data(self):
        return f"{self.directory}/data"

    def run(self, program, *arguments, check=True):
        line = [f"{BINARIES}/{program}", *arguments]
        if os.geteuid() == 0:
            line = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *line]
        # A file: the server that pg_ctl starts would keep a pipe open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", timeout=120, check=False)
            output.seek(0)
            said = output.read().decode()
        if check and done.returncode:
            raise RuntimeError(f"{program} ended with {done.returncode}: {said}")
        return said

    def start(self):
        options = (
            f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={self.directory} -c port={self.port} "
            "-c max_connections=100 -c shared_buffers=32MB -c fsync=on -c log_statement=none")
        self.run("pg_ctl", "-D", self.data, "-l", f"{self.directory}/log", "-w", "-t", "90", "-o", options, "start")

    def stop(self, mode="immediate"):
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def crash(self):
        """As if its processes were killed; then it recovers from its log."""
        self.stop("immediate")
        self.start()

    def sql(self, text, database="postgres"):
        return self.run(
            "psql", "-h", self.directory, "-p", str(self.port), "-U", "martlet", "-d", database, "-v",
            "ON_ERROR_STOP=1", "-Atqc", text).strip()  # fmt: skip

    def url(self, database, user="martlet", password=None):
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def fresh(self, name):
        """The URL of a database with our tables, made where it is not there yet."""
        if "template" not in self.made:
            self.sql("CREATE DATABASE empty")
            initialise(self.url("empty"))
            self.made["template"] = "empty"
        if name not in self.made:
            self.count += 1
            self.made[name] = f"d{self.count}"
            self.sql(f"CREATE DATABASE {self.made[name]} TEMPLATE empty")
        return self.url(self.made[name])

    def clear(self):
        """Drops what `fresh` made: a start after a crash syncs every file there is."""
        for name in [name for name in self.made if name != "template"]:
            self.sql(f"DROP DATABASE {self.made.pop(name)} WITH (FORCE)")

    def end_sessions(self, database, where="true"):
        """Ends the node's sessions, whatever they are at; returns how many. One that ends by itself meanwhile is worth a
        warning to the server, and nothing to us."""
        return int(self.sql(
            "SET client_min_messages = error; SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND application_name LIKE 'martlet %' AND {where}"))  # fmt: skip

    def lock(self, database, text):
        return Lock(self, database, text)

    def remove(self):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


class Lock:
    """A psql that holds what `text` locks until it is released."""

    def __init__(self, database, name, text):
        line = [f"{BINARIES}/psql", "-h", "127.0.0.1", "-p", str(database.port), "-U", "martlet", "-d", name, "-Atq"]
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.process.stdin.write(f"BEGIN; {text};\n\\echo held\n")
        self.process.stdin.flush()
        while True:
            row = self.process.stdout.readline()
            if row.strip() == "held":
                return
            assert row, "psql ended"

    def release(self):
        self.process.communicate("COMMIT;\n", timeout=20)


class Proxy:
    """Between a node and the server, it does to one connection what a network may do.

    `arm(kind, marker)`: the next request that has these bytes in it is, for `swallow`, delivered, and the node's side is
    closed when the server has answered; for `hold`, kept until `release`, and the node's side is closed at once.
    While `is_dark`, whatever is sent vanishes, in both directions, and new connections lead nowhere.
    """

    def __init__(self, port, own=0, host="127.0.0.1"):
        self.target, self.host = port, host
        self.listener = socket.create_server((host, own))
        self.port = self.listener.getsockname()[1]
        self.kind, self.marker = None, b""
        self.lost = []
        self.held = []
        self.is_dark = False
        self.fired = threading.Event()
        threading.Thread(target=self.accept, daemon=True).start()

    def arm(self, kind, marker):
        self.kind, self.marker = kind, marker
        self.fired.clear()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                if self.is_dark:
                    self.lost.append(near)
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            swallows = threading.Event()
            threading.Thread(target=self.up, args=(near, far, swallows), daemon=True).start()
            threading.Thread(target=self.down, args=(near, far, swallows), daemon=True).start()

    def up(self, near, far, swallows):
        try:
            while data := near.recv(1 << 20):
                if self.is_dark:
                    continue
                if self.kind and self.marker in data:
                    kind, self.kind = self.kind, None
                    if kind == "hold":
                        self.held.append((far, data))
                        self.fired.set()
                        near.shutdown(socket.SHUT_RDWR)
                        return
                    swallows.set()
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def down(self, near, far, swallows):
        try:
            while data := far.recv(1 << 20):
                if self.is_dark:
                    continue
                if not swallows.is_set():
                    near.sendall(data)
                elif b"Z\x00\x00\x00\x05" in data:
                    break
            near.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        if swallows.is_set():
            self.fired.set()

    def release(self):
        for far, data in self.held:
            try:
                far.sendall(data)
            except OSError:
                pass

    def lighten(self):
        """Lets through again what comes from now on; connections that were made meanwhile are closed."""
        self.is_dark = False
        while self.lost:
            self.lost.pop().close()

    def close(self):
        """New connections are refused; those that there are go on."""
        try:
            # Who waits for one keeps the socket open otherwise.
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()


class Pooler(Proxy):
    """A proxy that gives each client a process's number and a key of its own, as poolers do."""

    def down(self, near, far, swallows):
        data = b""
        try:
            while b"K\x00\x00\x00\x0c" not in data and (data := far.recv(1 << 20)):
                place = data.find(b"K\x00\x00\x00\x0c")
                own = b"\x7f\xff\x00\x01" + os.urandom(4)
                near.sendall(data if place < 0 else data[: place + 5] + own + data[place + 13 :])
        except OSError:
            pass
        super().down(near, far, swallows)


def control(*arguments, environment=None):
    """martletctl, beside the server under test: (exit code, what it said)."""
    program = os.environ.get("MARTLETCTL") or os.path.join(os.path.dirname(default_command()), "martletctl")
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **(environment or {})})  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def initialise(url, *options):
    code, said = control("storage", "init", *options, environment={"MARTLET_STORAGE_URL": url})
    assert code == 0, said
    return said


_shared = {}
_guard = threading.Lock()


def shared():
    """One server for all nodes of this process, started when it is first wanted."""
    with _guard:
        if _shared.get("process") != os.getpid():
            _shared.update(process=os.getpid(), server=Database())
            atexit.register(_end, os.getpid())
        return _shared["server"]


def _end(process):
    # Not in what was forked from here.
    if process == os.getpid():
        _shared["server"].remove()
