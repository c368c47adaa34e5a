# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Routers as child processes, and servers that behave badly."""

import os
import socket
import threading
import time

from bed import Server
from bed.server import ROOT


def default_router():
    """The command of the router under test: MARTLET_ROUTER, else the release build."""
    return os.environ.get("MARTLET_ROUTER") or str(ROOT / ".build/release/martlet-router")


class Router(Server):
    """A router in front of `servers` (started ones, or addresses as text), on one TCP port of 127.0.0.1."""

    def __init__(self, servers=(), arguments=(), **options):
        words = arguments.split() if isinstance(arguments, str) else list(arguments)
        words += [one if isinstance(one, str) else f"127.0.0.1:{one.port}" for one in servers]
        super().__init__(words, command=default_router(), **options)


class FakeServer:
    """A server on a port of its own whose connections run `talk(connection)`, each in a thread."""

    def __init__(self, talk, port=0):
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        self.talk = talk
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            try:
                self.talk(connection)
            except OSError:
                pass

    def stop(self):
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def lines(connection):
    """The lines that arrive on a connection."""
    data = b""
    while True:
        more = connection.recv(65536)
        if not more:
            return
        data += more
        while b"\r\n" in data:
            line, data = data.split(b"\r\n", 1)
            yield line


def keys_by_node(client, nodes, count):
    """For each node, some keys that a router stores there."""
    found = {id(node): [] for node in nodes}
    direct = {id(node): node.client() for node in nodes}
    number = 0
    while any(len(keys) < count for keys in found.values()):
        key = f"where-{number}"
        number += 1
        client.set(key, key)
        for name, one in direct.items():
            if len(found[name]) < count and one.get(key) is not None:
                found[name].append(key)
    for one in direct.values():
        one.close()
    return [found[id(node)] for node in nodes]


def owns(pid, port):
    """Whether a process has the socket that is bound to a port of this machine's."""
    inodes = set()
    with open("/proc/net/tcp") as table:
        for row in list(table)[1:]:
            words = row.split()
            if int(words[1].split(":")[1], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            if os.readlink(f"{folder}/{name}") in inodes:
                return True
        except OSError:
            continue
    return False


class Relay:
    """A port in front of a server's, whose connections can be cut, held and slowed down, of all or of one process."""

    def __init__(self, target):
        self.target = target
        self.delay = 0.0
        self.blocked = None
        self.flows = threading.Event()
        self.flows.set()
        self.open = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                if self.blocked is not None and owns(self.blocked, client.getpeername()[1]):
                    raise OSError
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.open += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self.copy, args=pair, daemon=True).start()

    def copy(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                self.flows.wait()
                if self.delay:
                    time.sleep(self.delay)
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        """No connection stands, and none comes to."""
        # A close alone does not end an accept that another thread is in.
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        for one in self.open:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        self.open = []

    def block(self, pid):
        """A process cannot reach the server any more; others can."""
        self.blocked = pid
        for one in self.open:
            try:
                if owns(pid, one.getpeername()[1]):
                    one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def unblock(self):
        self.blocked = None

    def mend(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def hold(self):
        self.flows.clear()

    def release(self):
        self.flows.set()

    def stop(self):
        self.release()
        self.cut()
