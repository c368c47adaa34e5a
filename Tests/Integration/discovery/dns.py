# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A DNS server whose records a test changes while it runs. Source: RFC 1035, RFC 2782."""

import socket
import struct
import threading

A, AAAA, SRV = 1, 28, 33


def encoded(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part) + b"\0"


class Server:
    """Answers for the names in `records`: {(name, type): [(ttl, data)]}; `fails` makes every answer SERVFAIL, and
    `failing` those about these types. `glue` are addresses of name servers that are sent along."""

    def __init__(self, host="127.0.0.1", port=0):
        self.records = {}
        self.fails = False
        self.failing = set()
        self.glue = []
        self.questions = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.address = "%s:%d" % self.socket.getsockname()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def address_of(self, name, *addresses, ttl=1):
        self.records[name, A] = [(ttl, socket.inet_aton(address)) for address in addresses]

    def services(self, name, *targets, ttl=1):
        self.records[name, SRV] = [
            (ttl, struct.pack("!HHH", 1, 1, port) + encoded(target)) for target, port in targets]

    def run(self):
        while True:
            try:
                message, peer = self.socket.recvfrom(4096)
                self.socket.sendto(self.answer(message), peer)
            except OSError:
                return

    def answer(self, message):
        labels, place = [], 12
        while message[place]:
            size = message[place]
            labels.append(message[place + 1:place + 1 + size].decode().lower())
            place += size + 1
        question = message[12:place + 5]
        name, kind = ".".join(labels), struct.unpack("!H", message[place + 1:place + 3])[0]
        self.questions.append((name, kind))
        found = self.records.get((name, kind), [])
        known = any(name == other for other, _ in self.records)
        fails = self.fails or kind in self.failing
        code = 2 if fails else 0 if known else 3
        answers = b"" if fails else b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data for ttl, data in found)
        count = 0 if fails else len(found)
        more = b"".join(
            encoded("ns.example") + struct.pack("!HHIH", A, 1, 1, 4) + socket.inet_aton(address)
            for address in self.glue)
        return message[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, count, 0, len(self.glue)) + question + answers + more
