# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Load for the linearizability checker: clients on raw sockets that do everything to few keys, and record it.

Values are unique, so that each says which write it is from; flags, versions and times to live are recorded where a
reply shows them. A client sends a few commands at once, on different keys, and the next ones when all are answered.
Commands without a reply are over when the next reply of their connection is there.
"""

import multiprocessing
import random
import selectors
import socket
import time
from dataclasses import dataclass, field

from .linearizability import APPEND, COUNT, DELETE, PREPEND, PUT, READ, TOUCH, Operation

CLIENTS = 16
# What a node says of a write that may have happened, and a router of one that was sent to a node that did not answer.
UNKNOWN = (b"SERVER_ERROR outcome unknown", b"SERVER_ERROR timeout", b"SERVER_ERROR remote error")
JOINED_MAX = 2000


@dataclass
class Plan:
    """What a run does. `definite`: nothing can fail, so that a command without a reply has happened for certain;
    `late`: what a limit cut short may happen after the connection's next reply."""

    port: int
    seed: int
    operations: int
    prefix: str = "k"
    values: int = 5
    counters: int = 4
    expiring: int = 3
    clients: int = CLIENTS
    processes: int = 2
    depth: int = 5
    definite: bool = True
    late: bool = False
    ttl: tuple = (3, 5)
    give_up: float = 60.0
    seconds: float = 0  # after which it ends, when there were `least` commands; 0 is never
    least: int = 0
    hold: object = None  # an event of multiprocessing: while it is set, no client sends


@dataclass
class Record:
    """What a run saw: operations by key, and how many commands there were, lost and refused ones included."""

    histories: dict = field(default_factory=dict)
    lost: list = field(default_factory=list)
    counts: dict = field(default_factory=dict)
    odd: list = field(default_factory=list)

    def add(self, key, operation):
        self.histories.setdefault(key, []).append(operation)

    def note(self, name, by=1):
        self.counts[name] = self.counts.get(name, 0) + by

    def merge(self, other):
        for key, operations in other.histories.items():
            self.histories.setdefault(key, []).extend(operations)
        self.lost += other.lost
        self.odd += other.odd
        for name, count in other.counts.items():
            self.note(name, count)

    def close(self, ends):
        """Gives operations of unknown outcome their end: the first moment of `ends` that comes after they were known to
        be so, each given as (asked, answered)."""
        ends = sorted(ends)
        for key, since, operation in self.lost:
            end = next((answered for asked, answered in ends if asked >= since), None)
            if end is None:
                raise ValueError("an operation of unknown outcome without an end")
            self.add(key, operation._replace(ret=end, optional=True))
        self.lost = []


class Lane:
    """One client: its connection, what it waits for, and what it knows."""

    def __init__(self, plan, number, record):
        self.plan, self.record = plan, record
        self.random = random.Random(f"{plan.seed}/{number}")
        self.serial = (number + 1) * 10_000_000 + plan.seed % 1000 * 1_000_000_000
        self.versions = {}
        self.waiting = []
        self.buffer = b""
        self.socket = None
        self.keys = [f"{plan.prefix}v{n}" for n in range(plan.values)]
        self.keys += [f"{plan.prefix}n{n}" for n in range(plan.counters)]
        self.keys += [f"{plan.prefix}e{n}" for n in range(plan.expiring)]

    # Making commands: each is (bytes, verb, key, a function of its reply's line or value to an operation).

    def unique(self):
        """A number that nobody else uses, nor reaches by counting from another."""
        self.serial += 1
        return self.serial * 1000 + 500

    def batch(self):
        """Bytes to send; fills `waiting`."""
        size = self.random.randrange(1, self.plan.depth + 1)
        keys = self.random.sample(self.keys, min(size, len(self.keys)))
        parts, self.waiting = [], []
        for key in keys:
            data, *command = self.command(key)
            parts.append(data)
            self.waiting.append(command)
        if self.waiting[-1][0] == "noreply":
            parts.append(b"mn\r\n")
            self.waiting.append(["mn", None, None])
        self.waiting.reverse()
        return b"".join(parts)

    def command(self, key):
        kind = key[len(self.plan.prefix)]
        roll = self.random.random()
        if roll < 0.42:
            return self.read(key)
        if roll < 0.50:
            return self.delete(key)
        if roll < 0.56:
            return self.touch(key)
        if kind == "n":
            return self.count(key) if roll < 0.85 else self.store(key, kind)
        return self.join(key) if roll < 0.66 else self.store(key, kind)

    def ttl(self, key):
        kind = key[len(self.plan.prefix)]
        if kind != "e":
            return 0
        roll = self.random.random()
        return self.random.choice(self.plan.ttl) if roll < 0.8 else (0 if roll < 0.97 else -1)

    def read(self, key):
        verb = self.random.choice(("get", "gets", "mg", "mg", "mgc", "gat", "gats", "mgT"))
        if verb in ("gat", "gats", "mgT") and self.random.random() < 0.6:
            verb = "mg"
        if verb in ("get", "gets"):
            return f"{verb} {key}\r\n".encode(), "get", key, (READ, None)
        if verb in ("gat", "gats"):
            ttl = self.ttl(key)
            return f"{verb} {ttl} {key}\r\n".encode(), "get", key, (TOUCH, ttl)
        if verb == "mgc":
            return f"mg {key} c f\r\n".encode(), "mg", key, (READ, None)
        if verb == "mgT":
            ttl = self.ttl(key)
            return f"mg {key} v c f T{ttl}\r\n".encode(), "mg", key, (TOUCH, ttl)
        return f"mg {key} v c f t\r\n".encode(), "mg", key, (READ, None)

    def delete(self, key):
        if self.random.random() < 0.5:
            return self.quiet(f"delete {key}", key, Operation(0, 0, DELETE, live=True))
        version = self.versions.get(key) if self.random.random() < 0.4 else None
        flag = f" C{version}" if version else ""
        return f"md {key}{flag}\r\n".encode(), "line", key, Operation(0, 0, DELETE, live=True, compare=version)

    def touch(self, key):
        ttl = self.ttl(key)
        return self.quiet(f"touch {key} {ttl}", key, Operation(0, 0, TOUCH, live=True, ttl=ttl))

    def count(self, key):
        by = self.random.randrange(1, 10)
        down = self.random.random() < 0.4
        operation = Operation(0, 0, COUNT, live=True, argument=-by if down else by)
        roll = self.random.random()
        if roll < 0.5:
            return self.quiet(f"{'decr' if down else 'incr'} {key} {by}", key, operation)
        initial = self.unique() if roll < 0.6 else None
        flag = f" N0 J{initial}" if initial else ""
        line = f"ma {key} v c D{by} M{'D' if down else 'I'}{flag}\r\n"
        return line.encode(), "ma", key, (operation, initial)

    def join(self, key):
        token = b",%d" % self.unique()
        front = self.random.random() < 0.4
        operation = Operation(0, 0, PREPEND if front else APPEND, live=True, argument=token)
        if self.random.random() < 0.5:
            verb = "prepend" if front else "append"
            return self.quiet(f"{verb} {key} 0 0 {len(token)}", key, operation, token)
        line = f"ms {key} {len(token)} c M{'P' if front else 'A'}\r\n"
        return line.encode() + token + b"\r\n", "line", key, operation

    def store(self, key, kind):
        serial = self.unique()
        value = b"%d" % serial
        if kind != "n" and self.random.random() < 0.02:
            value += b"." * 4000
        flags, ttl = serial // 1000 & 0xFFFF, self.ttl(key)
        operation = Operation(0, 0, PUT, argument=value, new_flags=flags, ttl=ttl)
        verb = self.random.choice(("set", "set", "set", "add", "add", "replace", "cas", "cas"))
        version = self.versions.get(key)
        if verb == "cas" and not version:
            verb = "set"
        if verb == "cas":
            operation = operation._replace(live=True, compare=version)
        elif verb != "set":
            operation = operation._replace(live=verb == "replace")
        if self.random.random() < 0.5:
            unique = f" {version}" if verb == "cas" else ""
            return self.quiet(f"{verb} {key} {flags} {ttl} {len(value)}{unique}", key, operation, value)
        mode = {"set": "", "add": " ME", "replace": " MR", "cas": f" C{version}"}[verb]
        line = f"ms {key} {len(value)} c F{flags} T{ttl}{mode}\r\n"
        return line.encode() + value + b"\r\n", "line", key, operation

    def quiet(self, line, key, operation, value=None):
        """A classic command, now and then without a reply."""
        silent = self.random.random() < (0.01 if self.plan.late else 0.08)
        data = f"{line}{' noreply' if silent else ''}\r\n".encode()
        if value is not None:
            data += value + b"\r\n"
        return data, "noreply" if silent else "line", key, operation

    # Understanding replies.

    def feed(self, data, now):
        """Takes what arrived; records every command that is answered by it."""
        buffer, at = self.buffer + data, 0
        silent = []
        while self.waiting:
            form, key, expected = self.waiting[-1]
            if form == "noreply":
                silent.append((key, expected))
                self.waiting.pop()
                continue
            end = buffer.find(b"\r\n", at)
            if end < 0:
                break
            line, value, after = buffer[at:end], None, end + 2
            if line.startswith((b"VALUE ", b"VA ")):
                words = line.split()
                size = int(words[3] if words[0] == b"VALUE" else words[1])
                tail = 7 if words[0] == b"VALUE" else 2
                if len(buffer) < after + size + tail:
                    break
                value = buffer[after : after + size]
                if buffer[after + size : after + size + tail] not in (b"\r\n", b"\r\nEND\r\n"):
                    raise AssertionError(f"a reply without its end: {buffer[at : after + size + tail]!r}")
                after += size + tail
            at = after
            self.waiting.pop()
            for one, operation in silent:
                self.unheard(one, operation, now)
            silent = []
            if key is not None:
                self.answered(form, key, expected, line, value, now)
        for one, operation in reversed(silent):
            self.waiting.append(["noreply", one, operation])
        self.buffer = buffer[at:]
        return not self.waiting

    def unheard(self, key, operation, now):
        """A command without a reply is over."""
        self.record.note("noreply")
        operation = operation._replace(call=self.sent, ret=now, note="noreply")
        if self.plan.late:
            self.record.lost.append((key, now, operation))
            return
        if not self.plan.definite or operation.live is not None:
            operation = operation._replace(optional=True)
        self.record.add(key, operation)

    def answered(self, form, key, expected, line, value, now):
        self.record.note("answered")
        if line.startswith(b"SERVER_ERROR"):
            if line in UNKNOWN:
                self.record.note("unknown")
                self.unknown(form, key, expected, now, "outcome unknown")
            else:
                self.record.note("refused")
                reason = line.decode("latin-1")
                self.record.note(reason)
            return
        if form == "get":
            words = line.split()
            version = int(words[4]) if value is not None and len(words) > 4 else None
            flags = int(words[2]) if value is not None else None
            hit, left, known = value is not None, None, value is not None or line == b"END"
        elif form in ("mg", "ma"):
            words = line.split()
            fields = {word[:1]: word[1:] for word in words[2 if words[0] == b"VA" else 1 :]}
            version = int(fields[b"c"]) if b"c" in fields else None
            flags = int(fields[b"f"]) if b"f" in fields else None
            left = int(fields[b"t"]) if b"t" in fields else None
            hit = words[0] in (b"VA", b"HD")
            known = hit or line in (b"EN", b"NF")
        else:
            self.record.add(key, self.line_answer(key, expected, line, now))
            return
        if not known:
            self.record.odd.append((key, line))
            return
        if version:
            self.versions[key] = version
        if not hit:
            operation = Operation(self.sent, now, READ, live=False)
        elif form == "ma":
            counted, initial = expected
            operation = counted._replace(call=self.sent, ret=now, value=value, version=version)
            if initial is not None and value == b"%d" % initial:
                operation = Operation(self.sent, now, PUT, live=False, argument=value, ttl=0, version=version)
        else:
            effect, ttl = expected
            operation = Operation(
                self.sent, now, effect, live=True, value=value, flags=flags, version=version, left=left, ttl=ttl)
        self.record.add(key, operation)

    def line_answer(self, key, operation, line, now):
        """What a store, a join, a delete, a touch or a classic count was answered."""
        operation = operation._replace(call=self.sent, ret=now)
        failed = Operation(self.sent, now, READ, note=line.decode("latin-1"))
        if line.startswith(b"HD"):
            version = next((int(word[1:]) for word in line.split() if word[:1] == b"c"), None)
            if version:
                self.versions[key] = version
            return operation._replace(version=version)
        if line in (b"STORED", b"DELETED", b"TOUCHED"):
            return operation
        if line.isdigit() and operation.effect == COUNT:
            return operation._replace(value=line)
        line = line.split(b" ")[0]
        if line in (b"EXISTS", b"EX") and operation.compare is not None:
            return failed._replace(live=True, differs=operation.compare)
        if line in (b"NOT_STORED", b"NS") and operation.live is not None and operation.compare is None:
            return failed._replace(live=not operation.live)
        if line in (b"NOT_FOUND", b"NF") and operation.live:
            return failed._replace(live=False)
        self.record.odd.append((key, line))
        return failed

    def unknown(self, form, key, expected, since, note):
        """Keeps a command of which nobody knows what became of it; a read changes nothing, and is dropped."""
        if form in ("get", "mg"):
            effect, ttl = expected
            if effect == READ:
                return
            expected = Operation(0, 0, TOUCH, live=True, ttl=ttl)
        operations = expected if form == "ma" else (expected,)
        counted = operations[0]
        if form == "ma" and operations[1] is not None:
            # It may have stored its initial value as well: two operations of which one may have happened.
            other = Operation(self.sent, 0, PUT, live=False, argument=b"%d" % operations[1], ttl=0, note=note)
            self.record.lost.append((key, since, other))
        self.record.lost.append((key, since, counted._replace(call=self.sent, note=note)))

    def disconnected(self, now):
        """The connection is gone: what waits has an unknown outcome."""
        self.record.note("connections lost")
        for form, key, expected in self.waiting:
            if key is not None:
                self.record.note("lost")
                self.unknown(form, key, expected, self.sent, "connection lost")
        self.waiting, self.buffer = [], b""
        self.socket.close()
        self.socket = None

    def connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.plan.port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def send(self):
        data = self.batch()
        self.sent = time.monotonic_ns()
        if self.socket.send(data) != len(data):
            raise AssertionError("a batch of commands does not fit in the socket")


def work(plan, numbers, operations):
    """Runs some of the clients until their share is done; returns a Record."""
    record = Record()
    lanes = [Lane(plan, number, record) for number in numbers]
    selector = selectors.DefaultSelector()
    done, down, deadline = 0, list(lanes), time.monotonic() + plan.give_up
    busy, held = 0, []
    ends = time.monotonic() + plan.seconds if plan.seconds else float("inf")
    while done < operations or busy:
        if time.monotonic() > ends and done >= plan.least // plan.processes:
            operations = min(operations, done)
        if held and not plan.hold.is_set():
            for lane in held:
                if done < operations:
                    done += begin(lane, selector, down)
                    busy += lane.socket is not None
            held = []
        for lane in list(down):
            if done >= operations:
                break
            try:
                lane.connect()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                break
            down.remove(lane)
            selector.register(lane.socket, selectors.EVENT_READ, lane)
            done, busy = done + begin(lane, selector, down), busy + (lane.socket is not None)
        events = selector.select(0.002 if held else 0.05 if down else 5)
        if not events and not down and not held:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no reply for a while; {busy} clients wait")
            continue
        if events:
            deadline = time.monotonic() + plan.give_up
        for event, _ in events:
            lane = event.data
            try:
                data = lane.socket.recv(1 << 18)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            now = time.monotonic_ns()
            if not data:
                selector.unregister(lane.socket)
                busy -= lane not in held
                held = [other for other in held if other is not lane]
                lane.disconnected(now)
                down.append(lane)
                continue
            if lane.feed(data, now):
                if done >= operations:
                    busy -= 1
                    selector.unregister(lane.socket)
                    lane.socket.close()
                    continue
                if plan.hold is not None and plan.hold.is_set():
                    busy -= 1
                    held.append(lane)
                    continue
                sent = begin(lane, selector, down)
                done += sent
                busy -= lane.socket is None
    return record


def begin(lane, selector, down):
    """Sends a lane's next batch; returns how many commands it has."""
    try:
        lane.send()
    except OSError:
        selector.unregister(lane.socket)
        lane.disconnected(time.monotonic_ns())
        down.append(lane)
        return 0
    return len(lane.waiting)


def _work(pipe, plan, numbers, operations):
    try:
        pipe.send(("done", work(plan, numbers, operations)))
    except BaseException as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
        raise


class Run:
    """Clients in processes of their own. `wait` joins them; meanwhile the caller makes trouble."""

    def __init__(self, plan):
        self.parts = []
        context = multiprocessing.get_context("fork")
        for number in range(plan.processes):
            numbers = list(range(number, plan.clients, plan.processes))
            here, there = context.Pipe(False)
            share = plan.operations // plan.processes
            process = context.Process(target=_work, args=(there, plan, numbers, share), daemon=True)
            process.start()
            there.close()
            self.parts.append((process, here))

    def running(self):
        return any(not pipe.poll(0) for _, pipe in self.parts)

    def wait(self):
        """The merged record."""
        record = Record()
        for process, pipe in self.parts:
            try:
                state, result = pipe.recv()
            except EOFError:
                state, result = "failed", "a process of clients died"
            process.join(20)
            if state != "done":
                self.stop()
                raise AssertionError(f"clients: {result}")
            record.merge(result)
        return record

    def stop(self):
        for process, _ in self.parts:
            if process.is_alive():
                process.kill()
                process.join()


def read_all(node, plan, record):
    """Reads every key once when all is quiet; the history ends with it."""
    lane = Lane(plan, 1000, record)
    with node.client() as client:
        for key in lane.keys:
            lane.sent = time.monotonic_ns()
            line = client.ask(f"mg {key} v c f t")
            value = client.read(int(line.split()[1]) + 2)[:-2] if line.startswith("VA") else None
            lane.answered("mg", key, (READ, None), line.encode(), value, time.monotonic_ns())
