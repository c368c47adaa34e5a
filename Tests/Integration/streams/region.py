# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Nodes that know regions, a relay between them, and the stream's protocol as a consumer speaks it."""

import collections
import json
import random
import re
import socket
import struct
import threading
import time

from bed import Patience, free_port, until
from storage.node import Node

SLOTS = 64
# Kinds of frames: docs/streams.md, "The protocol".
BATCH, PACKED = 8, 10


class RegionNode(Node):
    """A node of a region. `regions` are mappings as in the file; `stream` are the keys below `stream`, `variables` more
    of its environment."""

    def __init__(self, directory, region, regions, stream=(), backend="none", variables=(), **options):
        directory.mkdir(exist_ok=True)
        self.variables = dict(variables)
        super().__init__(directory, backend=backend, **options)
        if backend == "none":
            self.arguments = [text for text in self.arguments if text not in ("--storage-backend", "none")]
        self.document = {"region": region, "regions": regions, "stream": dict(stream)}
        self.rewrite()

    def rewrite(self, **changes):
        """Writes the file of settings, with some of them changed."""
        self.document.update(changes)
        (self.directory / "node.yaml").write_text(json.dumps(self.document))

    @property
    def environment(self):
        return {**super().environment, **self.variables}

    def serve_tls(self, directory, name):
        """Has its port take TLS alone, of those whom the authority knows; the tests' own clients have another from here on.
        Returns the first."""
        self.arguments += [
            "-Z", "-o", f"ssl_chain_cert={directory}/{name}.pem,ssl_key={directory}/{name}.key,"
            f"ssl_ca_cert={directory}/ca.pem,ssl_verify_mode=2"]  # fmt: skip
        port, self.port = self.port, free_port()
        self.arguments[self.arguments.index("-l") + 1] = f"127.0.0.1:{port},notls:127.0.0.1:{self.port}"
        return port

    def figures(self):
        """`stats stream`, numbers as numbers."""
        with self.client() as client:
            rows = client.stats("stream")
        return {name: float(text) if text.replace(".", "", 1).isdigit() else text for name, text in rows.items()}

    def await_figures(self, seconds=20, **wanted):
        """Waits until figures are what they should be, or pass a test."""
        patience = Patience(seconds)
        while True:
            found = self.figures()
            if all(test(found.get(name)) if callable(test) else found.get(name) == test for name, test in wanted.items()):
                return found
            assert not patience.is_over, found
            time.sleep(0.02)


def regions(port, home="us-east", replica="eu-west"):
    return [{"name": home, "role": "home", "stream": f"127.0.0.1:{port}"}, {"name": replica, "role": "replica"}]


def eventually(look, seconds=10):
    """Waits until `look` gives something true, and returns that."""
    return until(look, seconds)


class Relay:
    """Carries connections to a port; may delay what it carries, hold it back without a word (with `is_mute` what comes back
    only, with `is_deaf` what goes there only), and cut everything."""

    def __init__(self, target):
        self.target, self.port = target, free_port()
        self.delay, self.is_held, self.is_mute, self.is_deaf, self.is_cut = 0.0, False, False, False, False
        self.pairs, self.carried, self.lock = [], 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self.lock:
                self.pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    def carry(self, source, sink):
        try:
            comes_back = sink.getpeername()[1] != self.target
            parts = self.parts(source) if comes_back else source
            while data := parts.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                while self.is_held or (self.is_mute if comes_back else self.is_deaf):
                    time.sleep(0.005)
                self.carried += len(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def parts(self, source):
        """What comes back, in the parts that are carried."""
        return source

    def cut(self):
        """Ends all connections and takes no more."""
        self.is_cut = True
        self.drop()

    def drop(self):
        """Ends all connections; new ones are carried."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def heal(self):
        self.is_cut = self.is_held = self.is_mute = self.is_deaf = False
        self.delay = 0.0

    def close(self):
        self.listener.close()
        self.heal()
        self.drop()


class FrameRelay(Relay):
    """Carries a stream frame by frame. Batches that have `key` in them are left out: the next one, or with `is_lasting` all;
    they must not be packed. With `is_doubling` half of the batches come again, at once or behind some others; with
    `is_swapping` some are overtaken by those behind them, up to the next one that is about the same key. Counts the batches
    that did."""

    key, is_lasting, dropped = None, False, 0.0
    is_doubling, is_swapping, doubled, swapped = False, False, 0, 0
    # How many batches may come between one and its double, and how many may overtake one.
    REACH = 50
    KEY = re.compile(rb"\w+:\d+")

    def parts(self, source):
        return _Frames(source, self)

    def heal(self):
        super().heal()
        self.is_doubling = self.is_swapping = False

    def drops(self, frame):
        if frame[4] != BATCH or not self.key or self.key not in frame:
            return False
        self.dropped = self.dropped or time.monotonic()
        if not self.is_lasting:
            self.key = None
        return True


class _Frames:
    """A socket's frames as a relay has them come, each whole."""

    def __init__(self, socket, relay):
        self.socket, self.relay, self.buffer = socket, relay, b""
        # Batches that went by; and those that others overtake, each with how many may do so yet, and its keys.
        self.last, self.late = collections.deque(maxlen=relay.REACH), []

    def recv(self, _):
        while True:
            if len(self.buffer) >= 4 and len(self.buffer) >= (end := 4 + struct.unpack_from(">I", self.buffer)[0]):
                frame, self.buffer = self.buffer[:end], self.buffer[end:]
                if frames := self.turn(frame):
                    return frames
            elif data := self.socket.recv(65536):
                self.buffer += data
            else:
                return b""

    def turn(self, frame):
        """What goes on when a frame has come."""
        relay = self.relay
        if frame[4] not in (BATCH, PACKED):
            return frame
        if relay.drops(frame):
            return b""
        keys = set(relay.KEY.findall(frame))
        if relay.is_swapping and random.random() < 0.2:
            self.late.append((random.randint(1, relay.REACH), keys, frame))
            return b""
        self.last.append(frame)
        frames = [frame]
        if relay.is_doubling and random.random() < 0.5:
            frames.append(random.choice(self.last))
            relay.doubled += 1
        late = [(left - 1, others, one) for left, others, one in self.late]
        overtaken = [one for left, others, one in late if left == 0 or others & keys]
        self.late = [one for one in late if one[2] not in overtaken]
        relay.swapped += len(overtaken)
        return b"".join(frames + overtaken)


class FakeSource:
    """The home region of one consumer, as a test will have it: it welcomes, answers probes, and sends what it is told."""

    def __init__(self, region="us-east"):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.region, self.sequences = region, [0] * SLOTS
        self.socket, self.welcomes = None, 0
        self.seeks = []
        # By how many milliseconds its clock is ahead; None does not tell the time.
        self.skew = None
        # Whether probes are answered.
        self.is_complete = True
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                self.socket, _ = self.listener.accept()
            except OSError:
                return
            try:
                self.answer(self.socket.makefile("rb"))
            except (OSError, struct.error):
                pass

    def answer(self, file):
        while len(head := file.read(5)) == 5:
            length, kind = struct.unpack(">IB", head)
            body = file.read(length - 1)
            if kind == 1:
                texts = b"".join(struct.pack(">H", len(text)) + text for text in (self.region.encode(), b"fake"))
                self.send(2, b"\1" + texts + struct.pack(">q64q", 1, *self.sequences))
                self.welcomes += 1
            elif kind == 5:
                self.seeks.append(body[0])
            elif kind == 6 and self.is_complete:
                told = b"" if self.skew is None else struct.pack(">q", int(time.time() * 1000) + self.skew)
                self.send(7, body[:8] + struct.pack(">q64q", 1, *self.sequences) + told)

    def send(self, kind, body):
        self.socket.sendall(struct.pack(">IB", len(body) + 1, kind) + body)

    def batch(self, *records):
        self.send(8, b"".join(struct.pack(">I", len(record)) + record for record in records))

    def close(self):
        self.listener.close()
        if self.socket:
            self.socket.close()


class Peer:
    """The other end of a node's stream: docs/streams.md, "The protocol"."""

    def __init__(self, port, tls=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        if tls:
            self.socket = tls.wrap_socket(self.socket)
        self.file = self.socket.makefile("rb")

    def send(self, kind, body):
        self.socket.sendall(struct.pack(">IB", len(body) + 1, kind) + body)

    def frame(self):
        """Kind and body of the next frame; None at the end."""
        head = self.file.read(5)
        if len(head) < 5:
            return None
        length, kind = struct.unpack(">IB", head)
        return kind, self.file.read(length - 1)

    def close(self):
        self.file.close()
        self.socket.close()


class Consumer(Peer):
    """A consumer of our own."""

    def __init__(self, port, cluster="main", region="eu-west", name="test", values=False, position=None, version=1,
                 looks=False):  # fmt: skip
        super().__init__(port)
        text = b"".join(struct.pack(">H", len(part)) + part.encode() for part in (cluster, region, name))
        hello = struct.pack(">IBB", 0x4D525453, version, int(values) | 8 * int(looks)) + text
        if position:
            source, epoch, sequences = position
            hello += b"\1" + struct.pack(">H", len(source)) + source.encode() + struct.pack(">q64q", epoch, *sequences)
        else:
            hello += b"\0"
        self.send(1, hello)

    def welcome(self):
        """Region and position; or the reason of a refusal."""
        kind, body = self.frame()
        if kind == 3:
            return body[2:].decode()
        assert kind == 2 and body[0] == 1, (kind, body)
        at, texts = 1, []
        for _ in range(2):
            (length,) = struct.unpack_from(">H", body, at)
            texts.append(body[at + 2 : at + 2 + length].decode())
            at += 2 + length
            if len(texts) == 2:
                break
        epoch, *sequences = struct.unpack_from(">q64q", body, at)
        self.position = (texts[1], epoch, sequences)
        return texts[0], self.position

    def grant(self, count=1 << 22):
        self.send(4, struct.pack(">I", count))

    def seek(self, slot, sequence):
        self.send(5, struct.pack(">Bq", slot, sequence))

    def records(self, probe=1, answered=0):
        """All records up to the answer of a probe, as Avro single objects; and the numbers of that answer. `answered` is
        the last probe whose answer the source is told to have come."""
        self.send(6, struct.pack(">QQ", probe, answered))
        found = []
        while frame := self.frame():
            kind, body = frame
            if kind == 8:
                at = 0
                while at < len(body):
                    (length,) = struct.unpack_from(">I", body, at)
                    found.append(body[at + 4 : at + 4 + length])
                    at += 4 + length
            elif kind == 7 and struct.unpack_from(">Q", body)[0] == probe:
                return found, list(struct.unpack_from(">64q", body, 16))
        raise AssertionError("the source hung up")
