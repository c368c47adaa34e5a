# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A proxy that breaks one promise now and then: it shows that the tests behind it would notice.

It takes one command at a time from each client (`Plan(depth=1)`).
"""

import random
import socket
import threading

LIES = ("stale", "lost", "twice", "revived")


class Liar:
    """Listens on `port`. `lie` is what it does, to one fitting command in `every`; `told` counts."""

    def __init__(self, server_port, lie, seed, every=8):
        self.server_port, self.lie, self.every = server_port, lie, every
        self.random = random.Random(seed)
        self.told = 0
        self.older = {}
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        server = socket.create_connection(("127.0.0.1", self.server_port), 10)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, server:
            while True:
                request = client.recv(1 << 16)
                if not request:
                    return
                client.sendall(self.answer(server, request))

    def answer(self, server, request):
        words = request.split(maxsplit=2)
        due = self.random.randrange(self.every) == 0
        if self.lie == "lost" and due and words[0] == b"set" and b"noreply" not in request:
            self.told += 1
            return b"STORED\r\n"
        if self.lie == "twice" and due and words[0] in (b"incr", b"append", b"prepend") and b"noreply" not in request:
            self.told += 1
            self.ask(server, request)
        reply = self.ask(server, request)
        if words[0] in (b"get", b"gets", b"mg") and b" T" not in request and b"noreply" not in request:
            with self.lock:
                before = self.older.setdefault(request, [])
                stale = before[0] if before else reply
                found = reply.startswith((b"VA", b"HD"))
                fits = stale != reply if self.lie == "stale" else stale != reply and not found
                if self.lie in ("stale", "revived") and due and fits and stale.startswith((b"VA", b"HD")):
                    self.told += 1
                    return stale
                before.append(reply)
                del before[:-6]
        return reply

    @staticmethod
    def ask(server, request):
        server.sendall(request)
        reply = b""
        while True:
            reply += server.recv(1 << 16)
            if reply.startswith(b"VALUE "):
                if reply.endswith(b"\r\nEND\r\n"):
                    return reply
            elif reply.startswith(b"VA "):
                head = reply.split(b"\r\n", 1)[0]
                if len(reply) == len(head) + 4 + int(head.split()[1]):
                    return reply
            elif reply.endswith(b"\r\n"):
                return reply

    def close(self):
        self.listener.close()
