# Martlet
# SPDX-License-Identifier: Apache-2.0
"""An open-loop load: requests are sent when they are due, whatever became of those before, and timed from then."""

import bisect
import collections
import random
import select
import socket
import time

# `greeting` is a request that a connection sends before all others, a login say; its answer is a line.
Source = collections.namedtuple("Source", "line rate connections host greeting", defaults=("127.0.0.1", None))


class Outcome:
    """What became of the requests of one source."""

    def __init__(self):
        self.offered = 0
        self.refused = 0
        self.latencies = []
        # How long those that were not served waited for the refusal.
        self.refusal_latencies = []
        # When each that was served was due, in seconds from the start, in the order of ``latencies``; and of refusals.
        self.served_due = []
        self.refused_due = []
        self.others = collections.Counter()
        # How late the load itself was, where it was measured.
        self.late = []
        # When the load began, as time.monotonic() tells it, and how many seconds of it count.
        self.began = 0.0
        self.seconds = 0.0

    @property
    def served(self):
        return len(self.latencies)

    def in_time(self, seconds=0.005):
        return sum(1 for latency in self.latencies if latency <= seconds)

    def outside(self, stalls, after=0.1):
        """What became of the requests that were due while the machine ran: neither in one of the stalls, which are begins
        and ends of time.monotonic(), nor `after` seconds behind it, in which what it held up is worked off."""
        spans = []
        for begin, end in sorted(stalls):
            begin, end = max(begin - self.began - 0.005, 0), min(end - self.began + after, self.seconds)
            if begin >= end:
                continue
            if spans and begin <= spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], end)
            else:
                spans.append([begin, end])

        def counts(due):
            at = bisect.bisect_right(spans, [due, float("inf")]) - 1
            return at < 0 or spans[at][1] < due

        kept = Outcome()
        kept.began, kept.seconds = self.began, self.seconds - sum(end - begin for begin, end in spans)
        for due, latency in zip(self.served_due, self.latencies):
            if counts(due):
                kept.served_due.append(due)
                kept.latencies.append(latency)
        for at, latency in zip(self.refused_due, self.refusal_latencies):
            if counts(at - latency):
                kept.refused_due.append(at)
                kept.refusal_latencies.append(latency)
        kept.refused, kept.others, kept.late = len(kept.refused_due), self.others, self.late
        kept.offered = kept.served + kept.refused + sum(self.others.values())
        return kept

    def quantile(self, part):
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class _Connection:
    def __init__(self, port, host, outcome, greeting=None):
        self.socket = socket.create_connection(("127.0.0.1", port), source_address=(host, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if greeting:
            self.socket.sendall(greeting)
            answer = self.socket.recv(100)
            assert answer == b"STORED\r\n", answer
        self.socket.setblocking(False)
        self.outcome = outcome
        # Of each request that has no answer: when it was due, how often it may be sent again, and its line.
        self.due = collections.deque()
        self.began = 0.0
        self.rest = b""
        self.unsent = b""

    def send(self, data):
        self.unsent += data
        try:
            sent = self.socket.send(self.unsent)
            self.unsent = self.unsent[sent:]
        except BlockingIOError:
            pass

    def receive(self, now):
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        assert data, "the node closed a connection"
        lines = (self.rest + data).split(b"\r\n")
        self.rest = lines.pop()
        for line in lines:
            due, retries, request = self.due.popleft()
            if line.startswith((b"HD", b"EN")):
                self.outcome.latencies.append(now - due)
                self.outcome.served_due.append(due - self.began)
            elif line.startswith(b"SERVER_ERROR"):
                self.outcome.refused += 1
                self.outcome.refusal_latencies.append(now - due)
                self.outcome.refused_due.append(now - self.began)
                if retries > 0:
                    self.due.append((due, retries - 1, request))
                    self.unsent += request
            else:
                self.outcome.others[line] += 1


def run(port, sources, seconds, seed, retries=0):
    """Offers each source's Poisson stream for so long; an outcome for each. `rate` is a number or a function of time, `line`
    a request or a function that makes the next.
    What is refused is sent again at once, up to `retries` times."""
    chance = random.Random(seed)
    poll = select.epoll()
    outcomes, streams, by_fd = [], [], {}
    for source in sources:
        outcome = Outcome()
        outcomes.append(outcome)
        connections = [_Connection(port, source.host, outcome, source.greeting) for _ in range(source.connections)]
        for connection in connections:
            poll.register(connection.socket.fileno(), select.EPOLLIN)
            by_fd[connection.socket.fileno()] = connection
        streams.append([source, connections, 0.0])
    began = time.monotonic()
    for outcome in outcomes:
        outcome.began, outcome.seconds = began, seconds
    while True:
        now = time.monotonic() - began
        waiting = {}
        for stream in streams:
            source, connections, due = stream
            rate = source.rate
            while due <= now and due < seconds:
                connection = connections[int(chance.random() * len(connections))]
                connection.began = began
                line = source.line() if callable(source.line) else source.line
                connection.due.append((began + due, retries, line))
                connection.outcome.offered += 1
                waiting.setdefault(connection, []).append(line)
                due += chance.expovariate(rate(due) if callable(rate) else rate)
            stream[2] = due
        for connection, lines in waiting.items():
            connection.send(b"".join(lines))
        for fd, _ in poll.poll(0.0005):
            connection = by_fd[fd]
            connection.receive(time.monotonic())
            if connection.unsent:
                connection.send(b"")
        if now > seconds and (not any(c.due for c in by_fd.values()) or now > seconds + 10):
            break
    for connection in by_fd.values():
        connection.socket.close()
    return outcomes
