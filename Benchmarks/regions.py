# Martlet
# SPDX-License-Identifier: Apache-2.0
"""How soon a change at home is applied in another region, how fast a stream is caught up with, and how soon what is missing
is noticed: real nodes on loopback, with home on the embedded store and on PostgreSQL.

Each probe is a key of which the replica, a plain cache, has a copy. It is written at home, and the replica is asked until the
copy is gone: from the acknowledgement to the reply without it. What else is written is there for the load.
"""

import collections
import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "Tests/Integration"))
from bed import default_command, free_port  # noqa: E402
from storage import database  # noqa: E402
from streams.region import FrameRelay, RegionNode, eventually, regions  # noqa: E402

CONTEXT = multiprocessing.get_context("fork")
WRITES, WRITERS = 10_000, 4
# One write in so many is a probe.
PROBE_EVERY = 50
# In the place of when a write was acknowledged that was not.
REFUSED = -1.0
BACKLOGS = {"rocksdb": 400_000, "postgres": 60_000}
SQL_WRITERS, SQL_RATE = 4, 500
ROUND_TRIP, JITTER, STALL_EVERY, STALL = 0.1, 0.02, 2.0, 0.1


class Beds:
    """Directories and nodes that go when the part is over."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        out = HERE.parent / "out"
        out.mkdir(exist_ok=True)
        self.place = Path(tempfile.mkdtemp(prefix="streams-", dir=out))
        self.stack.callback(shutil.rmtree, self.place, ignore_errors=True)
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def home(self, backend, relay=None, replicas=1, durability=None, **stream):
        """A home node, and plain caches that follow it, through a relay of the class `relay` if there is one."""
        self.count += 1
        port = free_port()
        way = relay(port) if relay else None
        if way:
            self.stack.callback(way.close)
        listed = regions(way.port if way else port)
        more = {"storage_durability": durability} if durability else {}
        home = RegionNode(self.place / f"home-{self.count}", "us-east", listed, {"listen": f"127.0.0.1:{port}", **stream},
                          backend=backend, memory=256, **more)  # fmt: skip
        self.stack.enter_context(home)
        nodes = []
        for number in range(replicas):
            node = RegionNode(self.place / f"replica-{self.count}-{number}", "eu-west", listed,
                              {"lagBound": "60s", "name": f"replica-{number}"}, memory=256)  # fmt: skip
            self.stack.enter_context(node)
            node.await_figures(trusted="yes", quarantined_slots=0)
            nodes.append(node)
        return home, nodes, way


class DelayingRelay:
    """Carries a stream as a long way would: half of the round trip each way, jitter, and now and then nothing for a while. In
    a process of its own."""

    def __init__(self, target):
        self.target, self.port = target, free_port()
        ready = CONTEXT.Event()
        self.process = CONTEXT.Process(target=self.run, args=(ready,), daemon=True)
        self.process.start()
        ready.wait(10)

    def run(self, ready):
        relay = _Delaying(self.target, self.port)
        ready.set()
        relay.forever()

    def close(self):
        self.process.kill()
        self.process.join()


class _Delaying:
    def __init__(self, target, port):
        import socket

        self.socket, self.target = socket, target
        self.listener = socket.create_server(("127.0.0.1", port))
        self.began, self.chance = time.monotonic(), random.Random(1)

    def forever(self):
        while True:
            near, _ = self.listener.accept()
            far = self.socket.create_connection(("127.0.0.1", self.target))
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(self.socket.IPPROTO_TCP, self.socket.TCP_NODELAY, 1)
                self.carry(source, sink)

    def carry(self, source, sink):
        waiting, more = collections.deque(), threading.Condition()

        def take():
            last = 0.0
            while True:
                try:
                    data = source.recv(1 << 18)
                except OSError:
                    data = b""
                due = time.monotonic() + ROUND_TRIP / 2 + self.chance.random() * JITTER / 2
                into = (due - self.began) % STALL_EVERY
                # Nothing overtakes, and what would come during a stall comes behind it.
                last = max(last, due + (STALL - into if into < STALL else 0))
                with more:
                    waiting.append((last, data))
                    more.notify()
                if not data:
                    return

        def give():
            while True:
                with more:
                    while not waiting:
                        more.wait()
                    due, data = waiting.popleft()
                if (rest := due - time.monotonic()) > 0:
                    time.sleep(rest)
                try:
                    if not data:
                        return sink.shutdown(self.socket.SHUT_WR)
                    sink.sendall(data)
                except OSError:
                    return None

        for work in (take, give):
            threading.Thread(target=work, daemon=True).start()


# MARK: Load and probes


class Load:
    """Writers that offer so many sets a second together, and a watcher of the probes among them. `watched` are (port, what a
    reply has of a probe that was not applied yet)."""

    def __init__(self, port, rate, seconds, probes=True):
        self.port, self.rate, self.seconds = port, rate, seconds
        self.share = rate // WRITERS
        self.count = int(self.share * seconds) // PROBE_EVERY if probes else 0
        self.acked = CONTEXT.RawArray("d", max(1, WRITERS * self.count))
        self.written = CONTEXT.RawArray("l", WRITERS)
        self.processes = [CONTEXT.Process(target=self.write, args=(number,), daemon=True) for number in range(WRITERS)]

    def probe(self, writer, number):
        return f"probe:{writer}:{number}"

    def start(self):
        for process in self.processes:
            process.start()

    def finish(self):
        for process in self.processes:
            process.join(self.seconds + 60)
        return sum(self.written)

    def write(self, writer):
        with connect(self.port) as connection:
            file = connection.makefile("rb")
            began, sent = time.monotonic(), 0
            while (elapsed := time.monotonic() - began) < self.seconds:
                due = min(int(elapsed * self.share) - sent, 500)
                if due < 1:
                    time.sleep(0.001)
                    continue
                numbers = range(sent, sent + due)
                keys = [self.probe(writer, self.place(number)) if self.place(number) is not None
                        else f"load:{writer}:{number % 20_000}" for number in numbers]  # fmt: skip
                connection.sendall("".join(f"set {key} 0 0 8\r\n12345678\r\n" for key in keys).encode())
                for number in numbers:
                    is_done = file.readline() == b"STORED\r\n"
                    self.written[writer] += is_done
                    if self.place(number) is not None:
                        self.acked[writer * self.count + self.place(number)] = time.monotonic() if is_done else REFUSED
                sent += due

    def place(self, number):
        """Which of its writer's probes a write is; None where it is none."""
        return number // PROBE_EVERY if number % PROBE_EVERY == 0 and number // PROBE_EVERY < self.count else None


def connect(port):
    import socket

    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def fill(port, keys):
    """Puts a copy of each key into a cache."""
    with connect(port) as connection:
        file = connection.makefile("rb")
        for start in range(0, len(keys), 1000):
            part = keys[start : start + 1000]
            connection.sendall("".join(f"set {key} 0 0 3\r\nold\r\n" for key in part).encode())
            for _ in part:
                file.readline()


class Watch:
    """Asks a node for the probes that are under way until each is applied, in a process of its own. `columns` are the keys
    of each writer in its order, `acked` when each was acknowledged. Applied is what `is_old(key, value)` does not hold of any
    more: where nothing else is given, what is not there."""

    AHEAD = 8

    def __init__(self, port, columns, acked, is_old=lambda key, value: value is not None):
        self.port, self.columns, self.acked, self.is_old = port, columns, acked, is_old
        self.count = len(columns[0])
        self.seen = CONTEXT.RawArray("d", len(columns) * self.count)
        self.is_over = CONTEXT.Event()
        self.process = CONTEXT.Process(target=self.run, daemon=True)
        self.process.start()

    def run(self):
        firsts = [0] * len(self.columns)
        with connect(self.port) as connection:
            file = connection.makefile("rb")
            end = None
            while True:
                waiting = {}
                for column, keys in enumerate(self.columns):
                    base = column * self.count
                    while firsts[column] < self.count and (
                            self.seen[base + firsts[column]] or self.acked[base + firsts[column]] == REFUSED):
                        firsts[column] += 1
                    ahead = 0
                    for place in range(base + firsts[column], base + min(firsts[column] + 200, self.count)):
                        if self.seen[place] or self.acked[place] == REFUSED:
                            continue
                        # Those behind the last acknowledged may be applied before we know of it.
                        if not self.acked[place] and (ahead := ahead + 1) > self.AHEAD:
                            break
                        waiting[keys[place - base]] = place
                if self.is_over.is_set():
                    end = end or time.monotonic() + 5
                    if time.monotonic() > end or not any(self.acked[place] for place in waiting.values()):
                        return
                if not waiting:
                    time.sleep(0.001)
                    continue
                connection.sendall(f"get {' '.join(waiting)}\r\n".encode())
                shown = {}
                while (line := file.readline()) != b"END\r\n":
                    shown[line.split()[1].decode()] = file.readline().rstrip()
                now = time.monotonic()
                for key, place in waiting.items():
                    if not self.is_old(key, shown.get(key)):
                        self.seen[place] = now
                time.sleep(0.001)

    def finish(self):
        """Waits for what was acknowledged to be applied; how many were not."""
        self.is_over.set()
        self.process.join(30)
        return sum(acked > 0 and not seen for acked, seen in zip(self.acked, self.seen))

    def delays(self, prefix=""):
        """Seconds from each acknowledgement to its application, sorted; of keys that begin so."""
        keys = [key for column in self.columns for key in column]
        return sorted(
            max(0.0, seen - acked) for key, acked, seen in zip(keys, self.acked, self.seen)
            if acked > 0 and seen and key.startswith(prefix))  # fmt: skip


def at(sorted_values, fraction):
    return sorted_values[min(len(sorted_values) - 1, int(fraction * len(sorted_values)))] if sorted_values else float("inf")


def milliseconds(values):
    return [1000 * at(values, fraction) for fraction in (0.5, 0.99, 0.999)]


# MARK: Parts


def row(name, home, value, reach, reached, detail):
    return {"name": name, "home": home, "value": value, "reach": reach, "reached": bool(reached), "detail": detail}


def delay_row(beds, backend, seconds, relay=None):
    home, (replica,), _ = beds.home(backend, relay)
    load = Load(home.port, WRITES, seconds)
    columns = [[load.probe(writer, number) for number in range(load.count)] for writer in range(WRITERS)]
    fill(replica.port, [key for column in columns for key in column])
    before = replica.figures()["gaps"]
    watch = Watch(replica.port, columns, load.acked)
    load.start()
    written = load.finish()
    missing, values = watch.finish(), watch.delays()
    middle, most, worst = milliseconds(values)
    detail = (f"p50 {middle:.1f}, p99 {most:.1f}, p99.9 {worst:.1f} ms of {len(values):,} probes; "
              f"{written / seconds:,.0f} writes/s of {WRITES:,}")  # fmt: skip
    if missing or replica.figures()["gaps"] != before:
        detail += f"; {missing} NOT APPLIED, {replica.figures()['gaps'] - before:.0f} gaps"
    if relay:
        name, reach, reached = "100 ms round trip, jitter, stalls", "p99 ≤ 300 ms", most <= 300
    else:
        name, reach, reached = "loopback", "p99 ≤ 50 ms, p99.9 ≤ 250 ms", most <= 50 and worst <= 250
    if refused := sum(one == REFUSED for one in load.acked):
        detail += f"; {refused} of the probes were refused"
    return row(f"commit → applied, {name}", backend, f"{most:.1f} / {worst:.1f} ms", reach, reached and not missing, detail)


@contextlib.contextmanager
def paused(*nodes):
    for node in nodes:
        os.kill(node.server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for node in nodes:
            os.kill(node.server.process.pid, signal.SIGCONT)


def records(node):
    return node.figures()["records"]


def throughput_row(beds, backend):
    """Both nodes stand still while much is written; then they take it all."""
    home, nodes, _ = beds.home(backend, replicas=2, durability="async" if backend == "rocksdb" else None)
    before, backlog = [records(node) for node in nodes], 0
    with paused(*nodes), connect(home.port) as connection:
        file = connection.makefile("rb")
        for start in range(0, BACKLOGS[backend], 2000):
            lines = "".join(f"set load:{number} 0 0 8\r\n12345678\r\n" for number in range(start, start + 2000))
            connection.sendall(lines.encode())
            # What is refused is not there to be taken.
            backlog += sum(file.readline() == b"STORED\r\n" for _ in range(2000))
        eventually(lambda: records_at_home(home) >= backlog, 60)
        began = time.monotonic()
    taken = [None] * len(nodes)
    while None in taken:
        for place, node in enumerate(nodes):
            if taken[place] is None and records(node) - before[place] >= backlog:
                taken[place] = time.monotonic() - began
        if time.monotonic() - began > 120:
            break
        time.sleep(0.01)
    rate = 0 if None in taken else len(nodes) * backlog / max(taken)
    each = " and ".join(f"{backlog / seconds:,.0f}" if seconds else "NOT DONE" for seconds in taken)
    return row("records applied a second, into two nodes", backend, f"{rate:,.0f}", "≥ 200,000", rate >= 200_000,
               f"{each}; each node took {backlog:,} that had come while it stood still")  # fmt: skip


def catch_up_row(beds, backend, seconds):
    home, (replica,), _ = beds.home(backend)
    pause = max(4.0, seconds / 2)
    load = Load(home.port, WRITES, pause + seconds, probes=False)
    load.start()
    time.sleep(1)
    with paused(replica):
        time.sleep(pause)
        behind = records_at_home(home)
    began, start = time.monotonic(), records(replica)
    while (found := records(replica)) < behind and time.monotonic() - began < 60:
        time.sleep(0.005)
    taken = time.monotonic() - began
    steady = load.finish() / (pause + seconds)
    rate = (found - start) / taken
    return row("catch-up after a pause ÷ steady rate", backend, f"{rate / steady:.1f}", "≥ 5", rate >= 5 * steady,
               f"{found - start:,.0f} records in {taken:.2f} s, while {steady:,.0f} a second are written")  # fmt: skip


def records_at_home(home):
    """How many records a consumer that was there from the beginning has, once it has all that there is by now."""
    with home.client() as client:
        figures = client.stats("stream")
    return float(figures["monitor_changes"])


def gap_rows(beds, backend, rounds):
    home, (replica,), relay = beds.home(backend, FrameRelay)
    replica.stop()
    replica.rewrite(stream={**replica.document["stream"], "compression": "none"})
    replica.start()
    replica.await_figures(trusted="yes", quarantined_slots=0)
    noticed, repaired, given_up = [], [], []
    chance = random.Random(2)
    with home.client() as writer, replica.client() as reader:

        def figure(name):
            return int(reader.stats("stream")[name])

        def await_more(name, before):
            eventually(lambda: figure(name) > before, 20)
            return time.monotonic()

        for number in range(rounds):
            is_lasting = number % 4 == 3
            before = {name: figure(name) for name in ("gaps", "repairs", "quarantines")}
            relay.dropped, relay.is_lasting, relay.key = 0.0, is_lasting, f"gap:{number}".encode()
            time.sleep(chance.random())
            writer.set(f"gap:{number}", b"v")
            seen = await_more("gaps", before["gaps"])
            noticed.append(seen - relay.dropped)
            if is_lasting:
                given_up.append(await_more("quarantines", before["quarantines"]) - seen)
                relay.key = None
            else:
                repaired.append(await_more("repairs", before["repairs"]) - seen)
    what = f"the longest of {len(noticed)} batches that were left out; nothing else is written"
    return [
        row("gap noticed", backend, f"{max(noticed):.2f} s", "≤ 1 s", max(noticed) <= 1, what),
        row("gap repaired", backend, f"{max(repaired):.2f} s", "≤ 2 s", max(repaired) <= 2, f"behind that, of {len(repaired)}"),
        row("gap given up: the slot in quarantine", backend, f"{max(given_up):.2f} s", "≤ 2 s", max(given_up) <= 2,
            f"behind that, of {len(given_up)} that could not be repaired"),
    ]  # fmt: skip


# What psql says of each, and gives it for a key in hexadecimal digits.
STATEMENTS = {
    "update": ("UPDATE 1", "UPDATE martlet_kv SET val = 'new' WHERE k = decode('{}', 'hex');"),
    "insert": ("INSERT 0 1", "INSERT INTO martlet_kv (k, val) VALUES (decode('{}', 'hex'), 'new');"),
    "delete": ("DELETE 1", "DELETE FROM martlet_kv WHERE k = decode('{}', 'hex');"),
}
TRUNCATIONS = 10


def statement(key):
    return STATEMENTS[key.split(":", 1)[0]]


def sql_rows(beds, seconds):
    """Statements of psql, and what nodes of both regions show."""
    home, (replica,), _ = beds.home("postgres")
    program = Path(default_command().split()[0]).with_name("martletctl")
    subprocess.run([program, "storage", "init", "--capture=on"], check=True, capture_output=True,
                   env={"MARTLET_STORAGE_URL": home.url, "PATH": "/usr/bin"})  # fmt: skip
    count, kinds = int(SQL_RATE * seconds / SQL_WRITERS), list(STATEMENTS)
    columns = [[f"{kinds[number % len(kinds)]}:{writer}:{number}" for number in range(count)] for writer in range(SQL_WRITERS)]
    keys = [key for column in columns for key in column]
    stored = [key for key in keys if not key.startswith("insert:")]
    # Rows, copies of them at home, and copies of the same keys in the other region once the rows' records are through.
    fill(home.port, stored)
    eventually(lambda: records(replica) >= len(stored), 60)
    fill(replica.port, keys)
    acked = CONTEXT.RawArray("d", len(keys))
    # What was not there is known at home as such, until it hears that it is.
    watches = [Watch(home.port, columns, acked, lambda key, value: value == (None if key.startswith("insert:") else b"old")),
               Watch(replica.port, columns, acked)]  # fmt: skip
    threads = [threading.Thread(target=run_psql, args=(home, column, place * count, acked, seconds))
               for place, column in enumerate(columns)]  # fmt: skip
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sum(one > 0 for one in acked) / (time.monotonic() - began)
    rows = []
    for region, watch in zip(("the home region", "another region"), watches, strict=True):
        missing, values = watch.finish(), watch.delays()
        middle, most, worst = milliseconds(values)
        each = ", ".join(f"{kind} {milliseconds(watch.delays(kind))[1]:.1f}" for kind in kinds)
        detail = (f"p50 {middle:.1f}, p99 {most:.1f} ({each}), p99.9 {worst:.1f} ms of {len(values):,}; "
                  f"{rate:,.0f} statements/s of {SQL_RATE}")  # fmt: skip
        rows.append(row(
            f"SQL → applied in {region}", "postgres", f"{most:.1f} / {worst:.1f} ms", "p99 ≤ 50 ms, p99.9 ≤ 250 ms",
            most <= 50 and worst <= 250 and not missing, detail + (f"; {missing} NOT APPLIED" if missing else "")))  # fmt: skip
    return rows + truncate_rows(home, replica)


def truncate_rows(home, replica):
    """From the reply to TRUNCATE until nothing is shown of any key, in each region."""
    keys = [f"truncated:{number}" for number in range(1000)]
    longest = [0.0, 0.0]
    for _ in range(TRUNCATIONS):
        before = records(replica)
        fill(home.port, keys)
        eventually(lambda: records(replica) >= before + len(keys), 60)
        fill(replica.port, keys)
        gone = [CONTEXT.Value("d", 0.0), CONTEXT.Value("d", 0.0)]
        watching = [CONTEXT.Process(target=await_gone, args=(port, keys, moment))
                    for port, moment in zip((home.port, replica.port), gone, strict=True)]  # fmt: skip
        for process in watching:
            process.start()
        database.shared().sql("TRUNCATE martlet_kv", home.name)
        acked = time.monotonic()
        for process in watching:
            process.join(30)
        longest = [max(most, moment.value - acked if moment.value else float("inf"))
                   for most, moment in zip(longest, gone, strict=True)]  # fmt: skip
    return [
        row(f"TRUNCATE → applied in {region}", "postgres", f"{1000 * most:.1f} ms", "≤ 250 ms", most <= 0.25,
            f"the longest of {TRUNCATIONS}, until no copy of {len(keys):,} is shown")
        for region, most in zip(("the home region", "another region"), longest, strict=True)]  # fmt: skip


def await_gone(port, keys, moment):
    """Notes when a node shows none of the keys any more."""
    with connect(port) as connection:
        file, deadline = connection.makefile("rb"), time.monotonic() + 20
        while time.monotonic() < deadline:
            connection.sendall(f"get {' '.join(keys)}\r\n".encode())
            found = 0
            while file.readline() != b"END\r\n":
                file.readline()
                found += 1
            if not found:
                moment.value = time.monotonic()
                return


def run_psql(home, keys, base, acked, seconds):
    """Gives psql a statement each time one is due, and notes when it says that it was done."""
    line = [f"{database.BINARIES}/psql", "-X", "-d", home.url, "-At"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as psql:
        reader = psql.stdout

        def note():
            for place, (key, said) in enumerate(zip(keys, iter(reader.readline, b""), strict=False)):
                if said.decode().rstrip() == statement(key)[0]:
                    acked[base + place] = time.monotonic()

        noting = threading.Thread(target=note)
        noting.start()
        began = time.monotonic()
        for number, key in enumerate(keys):
            due = began + number * seconds / len(keys)
            if (rest := due - time.monotonic()) > 0:
                time.sleep(rest)
            psql.stdin.write(statement(key)[1].format(key.encode().hex()).encode() + b"\n")
        psql.stdin.close()
        psql.wait(60)
        noting.join(10)


def stream_figures(command, seconds):
    """All rows. `seconds` is how long a load lasts."""
    os.environ["MARTLET_SERVER"] = command
    backends = ["rocksdb"] + (["postgres"] if database.is_installed() else [])
    parts = []
    for backend in backends:
        parts += [
            lambda beds, backend=backend: [delay_row(beds, backend, seconds)],
            lambda beds, backend=backend: [delay_row(beds, backend, seconds, DelayingRelay)],
            lambda beds, backend=backend: [throughput_row(beds, backend)],
            lambda beds, backend=backend: [catch_up_row(beds, backend, seconds)],
            lambda beds, backend=backend: gap_rows(beds, backend, 12),
        ]
    if len(backends) > 1:
        parts.append(lambda beds: sql_rows(beds, seconds))
    for part in parts:
        # Each with nodes of its own, and none beside them.
        with Beds() as beds:
            yield from part(beds)
