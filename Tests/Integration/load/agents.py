# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Agents of martlet-load for a test, on free ports of the loopback interface."""

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

from .runner import command

TOKEN = "a token that nobody else knows"


class Agent:
    """One agent at `host`: `address`, and after `stop` what it said. Nobody's, it reads no file that is root's alone. Its clocks
    may be `ahead` of this machine's by so many seconds, as another machine's are."""

    def __init__(self, token=TOKEN, arguments=(), is_nobody=False, host="127.0.0.1", ahead=0):
        self.out = tempfile.TemporaryFile()
        self.is_apart = ahead != 0
        apart = ["unshare", "--time", "--monotonic", str(ahead), "--boottime", str(ahead), "--fork"] if ahead else []
        self.process = subprocess.Popen(
            [*apart, command(), "agent", "--listen", f"{host}:0", "--threads", "1", *arguments], stdout=subprocess.PIPE,
            stderr=self.out, stdin=subprocess.DEVNULL, env=environment(token), start_new_session=self.is_apart,
            preexec_fn=become_nobody if is_nobody else None)
        line = self.process.stdout.readline().decode()
        found = re.search(r"waiting for tests at (\S+:\d+), ", line)
        assert found, (line, self.process.poll())
        self.address = found[1]
        self.said = line

    def stop(self, signal_number=signal.SIGTERM):
        """Ends it; its exit code."""
        self.send(signal_number)
        self.said += self.process.stdout.read().decode()
        self.process.stdout.close()
        code = self.process.wait(20)
        self.out.seek(0)
        self.said += self.out.read().decode()
        return code

    def send(self, number):
        """A signal to the agent, and to what holds it in a namespace of its own."""
        if self.is_apart:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()


def become_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def environment(token=TOKEN):
    """This process's variables, with the token or without."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("K6_", "MARTLET_LOAD_"))}
    return variables if token is None else {**variables, "MARTLET_LOAD_TOKEN": token}


def start(*arguments, token=TOKEN):
    """A run that goes on."""
    return subprocess.Popen(
        [command(), "run", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        text=True, env=environment(token))


def write(directory, text, name="script.js"):
    path = Path(directory) / name
    path.write_text(text)
    return path
