# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A plain text-protocol client: what a test wrote goes out, what came back is there to read."""

import socket
import time


class Closed(Exception):
    """The server closed the connection while a reply was awaited."""


class Client:
    """A connection with line and byte reads. Every wait ends with the socket's timeout."""

    def __init__(self, connection):
        self.socket = connection
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def fill(self):
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(self.buffer)
        self.buffer += data

    def line(self):
        """The next line without its CRLF."""
        while b"\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def read(self, count):
        """Exactly `count` bytes."""
        data, self.buffer = bytearray(self.buffer[:count]), self.buffer[count:]
        while len(data) < count:
            more = self.socket.recv(min(1 << 20, count - len(data)))
            if not more:
                raise Closed(bytes(data))
            data += more
        return bytes(data)

    def ask(self, command):
        """Sends one command line and returns the one line of its reply."""
        self.send(command + "\r\n" if isinstance(command, str) else command + b"\r\n")
        return self.line()

    def lines(self, command, end=("END", "ERROR", "RESET", "OK")):
        """Sends one command line and returns the reply's lines up to and without the last."""
        self.send(command + "\r\n")
        rows = []
        while True:
            row = self.line()
            if row in end or row.startswith(("CLIENT_ERROR", "SERVER_ERROR")):
                return rows
            rows.append(row)

    def set(self, key, value, flags=0, exptime=0, verb="set", suffix=""):
        value = value.encode() if isinstance(value, str) else value
        self.send(f"{verb} {key} {flags} {exptime} {len(value)}{suffix}\r\n".encode() + value + b"\r\n")
        return self.line()

    def get(self, key, verb="get"):
        """The value, or None."""
        self.send(f"{verb} {key}\r\n")
        head = self.line()
        if head == "END":
            return None
        if not head.startswith("VALUE "):
            raise AssertionError(f"{verb} {key}: {head}")
        value = self.read(int(head.split()[3]) + 2)[:-2]
        tail = self.line()
        if tail != "END":
            raise AssertionError(f"{verb} {key}: no END but {tail}")
        return value

    def stats(self, what=""):
        """One stats command as a dictionary."""
        rows = self.lines(f"stats {what}".strip())
        return {row.split(" ", 2)[1]: row.split(" ", 2)[2] if row.count(" ") > 1 else "" for row in rows}

    def until_closed(self, seconds=10):
        """Everything up to the server's close; TimeoutError when it does not close."""
        deadline = time.monotonic() + seconds
        data, self.buffer = self.buffer, b""
        while True:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            except socket.timeout:
                raise TimeoutError(f"not closed after {seconds} s; got {data[:200]!r}") from None
            if not more:
                return data
            data += more

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
