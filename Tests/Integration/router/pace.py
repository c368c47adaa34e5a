#!/usr/bin/env python3
# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Processes that measure and load a router: each alone in its interpreter, so that none waits for another's lock.

  pace.py measure PORT KEY...           for each number on standard input, so many gets one after the other; prints the
                                        nanoseconds of each as a list
  pace.py ask PORT SECONDS KEY...       a get every so many seconds, whatever comes of it, until the input ends
  pace.py relay PORT                    prints a port, whose connections are carried to PORT; each number on standard
                                        input is how many seconds replies are held from then on
"""

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time


def put_first(*groups):
    """Gives each group of processes a processor, as far as there are so many, and has them run before whatever else the
    machine has to do, where that is allowed.

    Processes that answer each other and are spread over processors wake idle ones all the time. What that takes is the
    machine's affair, tens of microseconds on a virtual one, and the more of it the less the others do: a server that
    stands still would make them slower without being asked for anything.
    """
    processors, allowed = sorted(os.sched_getaffinity(0)), True
    for place, group in enumerate(groups):
        for process in group:
            for name in os.listdir(f"/proc/{process}/task"):
                os.sched_setaffinity(int(name), {processors[place % len(processors)]})
                try:
                    os.sched_setscheduler(int(name), os.SCHED_FIFO, os.sched_param(1))
                except OSError:
                    allowed = False
    return allowed


class Pace:
    """One of these processes."""

    def __init__(self, *words):
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def hear(self):
        line = self.process.stdout.readline()
        assert line, "the process ended"
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def connect(port):
    found = socket.create_connection(("127.0.0.1", port), 10)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def measure(port, keys):
    requests = [f"get {key}\r\n".encode() for key in keys]
    client = connect(port)
    for line in sys.stdin:
        spans = []
        for number in range(int(line)):
            request = requests[number % len(requests)]
            began = time.perf_counter_ns()
            client.sendall(request)
            data = client.recv(4096)
            while not data.endswith(b"END\r\n") and not data.startswith(b"SERVER_ERROR"):
                data += client.recv(4096)
            spans.append(time.perf_counter_ns() - began)
        print(json.dumps(spans), flush=True)


def ask(port, seconds, keys):
    requests = [f"get {key}\r\n".encode() for key in keys]
    client = connect(port)
    number, due = 0, time.monotonic()
    while True:
        client.sendall(requests[number % len(requests)])
        number, due = number + 1, due + seconds
        while True:
            ready, _, _ = select.select([client, sys.stdin], [], [], max(0, due - time.monotonic()))
            if sys.stdin in ready:
                return
            if client not in ready:
                break
            if not client.recv(1 << 16):
                return


class Carrier(asyncio.Protocol):
    """One side of a connection; what comes is written to the other side, in order, when it is due."""

    def __init__(self, loop, holds):
        self.loop, self.holds, self.due, self.other, self.transport, self.early = loop, holds, 0.0, None, None, []

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for data in self.early:
            transport.write(data)
        self.early = []

    def data_received(self, data):
        now = self.loop.time()
        self.due = max(now + (Carrier.delay if self.holds else 0), self.due)
        if self.due <= now:
            self.pass_on(data)
        else:
            self.loop.call_at(self.due, self.pass_on, data)

    def pass_on(self, data):
        if self.other.transport is None:
            self.other.early.append(data)
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)

    def connection_lost(self, _):
        if self.other and self.other.transport:
            self.other.transport.close()

    delay = 0.0


async def relay(target):
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def accept():
        near, far = Carrier(loop, False), Carrier(loop, True)
        near.other, far.other = far, near
        task = loop.create_task(loop.create_connection(lambda: far, "127.0.0.1", target))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return near

    def listen():
        for line in sys.stdin:
            loop.call_soon_threadsafe(setattr, Carrier, "delay", float(line))
        loop.call_soon_threadsafe(over.set)

    tasks = set()
    server = await loop.create_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    threading.Thread(target=listen, daemon=True).start()
    await over.wait()


if __name__ == "__main__":
    what, port, *rest = sys.argv[1:]
    if what == "measure":
        measure(int(port), rest)
    elif what == "ask":
        ask(int(port), float(rest[0]), rest[1:])
    else:
        asyncio.run(relay(int(port)))
