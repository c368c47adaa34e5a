# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Two servers and the sending of one stream to both. (One server, when the other's replies are recorded ones.)"""

import base64
import random
import socket
import time

from bed import Server

from . import binary, replies

QUIET_SECONDS = 0.12  # how long a connection must say nothing to count as stuck in a half command
CLOSE_SECONDS = 10  # how long a server may take to close after we have closed our half
SENTINEL_OPAQUE = 0x7E57_0000
FLAGS = "-m 1024 -t 1 -c 512"


class Transcript:
    """What one server said to one stream."""

    def __init__(self, data, closed, half, hung):
        self.data, self.closed, self.half, self.hung = data, closed, half, hung

    def __repr__(self):
        return f"{'closed' if self.closed else 'open'}{' HUNG' if self.hung else ''} {self.data!r}"


class Side:
    """One of the two servers, with a connection of our own for cleaning up."""

    def __init__(self, command, flags=FLAGS):
        self.command, self.flags = command, flags
        self.server = self.control = None
        self.start()

    def start(self):
        if self.server:
            self.control.close()
            self.server.stop()
        # A machine that is busy otherwise is no reason for another answer than memcached's.
        self.server = Server(self.flags, command=self.command, environment={"MARTLET_OVERLOAD_TARGET": "0"})
        self.control = self.server.connect()
        # The first few CAS ids are small numbers that streams use literally: count past them.
        for _ in range(40):
            self.order(b"set warm 0 0 1\r\n1\r\n")
        self.order(b"delete warm\r\n")

    def order(self, data):
        """Sends cleaning commands and waits until they are done."""
        self.control.sendall(data + b"mn\r\n")
        tail = b""
        while not tail.endswith(b"MN\r\n"):
            more = self.control.recv(65536)
            if not more:
                raise ConnectionError(f"{self.command}: closed our control connection after {tail[-200:]!r}")
            tail = (tail + more)[-4096:]

    def stop(self):
        self.control.close()
        self.server.stop()


class Line:
    """One connection of a stream: sends pieces, reads replies until a sentinel, a close, or silence."""

    def __init__(self, side, protocol):
        self.protocol = protocol
        self.socket = side.server.connect(timeout=CLOSE_SECONDS)
        self.data = bytearray()
        self.closed = self.hung = False
        self.ids = {}
        self.count = 0
        self.half = False

    def send(self, data):
        """Sends without ever blocking on a server that waits for us to read."""
        if self.closed or self.half:
            return
        view = memoryview(data)
        while view:
            try:
                sent = self.socket.send(view, socket.MSG_DONTWAIT)
                view = view[sent:]
            except BlockingIOError:
                self.receive(0.5)
            except (BrokenPipeError, ConnectionResetError):
                return

    def receive(self, seconds):
        """One read; False on silence."""
        self.socket.settimeout(seconds)
        try:
            more = self.socket.recv(1 << 18)
        except (TimeoutError, socket.timeout):
            return False
        except (ConnectionResetError, BrokenPipeError):
            more = b""
        if not more:
            self.closed = True
        self.data += more
        return True

    def sentinel(self):
        """A command with an unmistakable reply, and that reply; numbered, so that none is taken for another."""
        self.count += 1
        if self.protocol == "binary":
            opaque = SENTINEL_OPAQUE + self.count
            return binary.packet(binary.NOOP, opaque=opaque), binary.HEADER.pack(
                0x81, binary.NOOP, 0, 0, 0, 0, 0, opaque, 0
            )
        word = b"sentinel%d" % self.count
        return b"md " + word + b" k O" + word + b"\r\n", b"NF k" + word + b" O" + word + b"\r\n"

    def settle(self, at, mark, dangling, last=True):
        """Reads until the mark; then what was said from `at` on, without the sentinel's reply.

        A server that waits for the rest of a value swallows the sentinel. So after silence our half of the
        connection is closed, which ends the stream, and the server's close is awaited. When more is to come, silence
        only ends the step.
        """
        if dangling and not self.closed:
            self.shut()
        deadline = time.monotonic() + CLOSE_SECONDS
        while not self.closed and (dangling or not self.data.endswith(mark)):
            if not self.receive(QUIET_SECONDS):
                if not last:
                    break
                if not self.half:
                    self.shut()
                elif time.monotonic() > deadline:
                    self.hung = True
                    break
        answer = bytes(self.data[at:])
        return answer.removesuffix(mark)

    def shut(self):
        self.half = True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.socket.close()


class Pair:
    """Server A and server B, or one of them alone."""

    def __init__(self, *commands, flags=FLAGS):
        self.sides = tuple(Side(command, flags) for command in commands)

    def restart(self):
        for side in self.sides:
            side.start()

    def stop(self):
        for side in self.sides:
            side.stop()

    def clean(self, stream):
        """Removes what the stream may have left, on both servers."""
        order = b"".join(
            b"md %s b q\r\n" % base64.b64encode(key) if key.split() != [key] or b"\0" in key else b"md %s q\r\n" % key
            for key in stream.keys
            if key
        )
        if stream.dirty:
            order += (
                b"flush_all\r\nverbosity 0\r\nlru_crawler enable\r\nstats detail off\r\nlru mode segmented\r\n"
                b"cache_memlimit 1024\r\nstats reset\r\n"
            )
        for side in self.sides:
            side.order(order)

    def play(self, stream, stepwise=False):
        """Sends the stream to both; returns a list of steps, each a tuple with a transcript of each side.

        In one go there is one step, or one for each CAS id that had to be learned on the way. Stepwise, each command
        is a step of its own.
        """
        lines = [Line(side, stream.protocol) for side in self.sides]
        chance = random.Random(stream.seed)
        steps, pending = [], []
        try:
            for number, command in enumerate(stream.commands):
                if pending and (command.cas or command.alone):
                    steps.append(self.step(lines, stream, pending, chance))
                    pending = []
                if command.cas:
                    self.learn(lines, stream, command.cas[0])
                pending.append(command)
                if stepwise:
                    last = number == len(stream.commands) - 1
                    steps.append(self.step(lines, stream, pending, chance, stream.dangling and last, last))
                    pending = []
            if pending:
                steps.append(self.step(lines, stream, pending, chance, stream.dangling))
        finally:
            for line in lines:
                line.close()
        return steps

    def learn(self, lines, stream, key):
        """Asks both servers for the CAS id of a key."""
        if stream.protocol == "binary":
            question = binary.packet(binary.GET, key)
        else:
            question = b"gets " + key + b"\r\n"
        for line in lines:
            at = len(line.data)
            order, mark = line.sentinel()
            line.send(question + order)
            line.ids[key] = replies.cas_of(stream.protocol, key, line.settle(at, mark, False))

    def step(self, lines, stream, commands, chance, dangling=False, last=True):
        marks, starts, wholes = [], [], []
        for line in lines:
            starts.append(len(line.data))
            pieces = [command.bytes(line.ids) for command in commands]
            order, mark = line.sentinel()
            marks.append(mark)
            if not dangling:
                pieces.append(order)
            wholes.append(pieces)
        self.write(lines, wholes, stream.split, chance)
        result = []
        for line, start, mark in zip(lines, starts, marks):
            data = line.settle(start, mark, dangling, last)
            result.append(Transcript(data, line.closed and not line.half, line.half, line.hung))
        return tuple(result)

    def write(self, lines, wholes, split, chance):
        """Sends the pieces cut as the stream wants it; both servers see the same cuts, in turn."""
        if split == "commands":
            for pieces in zip(*wholes):
                for line, piece in zip(lines, pieces):
                    line.send(piece)
            return
        joined = [b"".join(pieces) for pieces in wholes]
        length = max(len(data) for data in joined)
        if split == "whole":
            cuts = []
        elif split == "random":
            cuts = sorted(chance.randrange(1, length + 1) for _ in range(chance.choice((1, 1, 2, 4))))
        else:
            cuts = range(1, length)
        at = 0
        for cut in [*cuts, length]:
            for line, data in zip(lines, joined):
                line.send(data[at:cut])
            if split == "slow":
                time.sleep(0.0002)
            at = cut
