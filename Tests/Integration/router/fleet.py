#!/usr/bin/env python3
# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A router and the nodes behind it as one child process that takes a memcached's flags.

Suites that start "a server" run on a fleet with this as their command. MARTLET_FLEET says how many nodes there are (3).
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bed import free_port  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
NODE = os.environ.get("MARTLET_NODE") or str(ROOT / ".build/release/martlet-server")
ROUTER = os.environ.get("MARTLET_ROUTER") or str(ROOT / ".build/release/martlet-router")
NODES = int(os.environ.get("MARTLET_FLEET") or 3)
FOR_ROUTER = {"-l", "-p", "-t", "-c", "-s"}
FOR_NODE = {"-m", "-I", "-t", "-o"}


def child():
    """Dies with its parent, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def await_listening(port):
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit("a node never listened")


def main():
    words = sys.argv[1:]
    if "-h" in words or "-V" in words:
        os.execv(NODE, [NODE, *words])
    ours, theirs = [], []
    while words:
        word = words.pop(0)
        if len(word) == 2 and word[1] in "lptcsmuIoab" and words:
            value = words.pop(0)
            if word in FOR_ROUTER:
                ours += ["--listen", value] if word == "-s" else [word, value]
            if word in FOR_NODE:
                theirs += [word, value]
    environment = dict(os.environ, MARTLET_ADMIN="off")
    user = ["-u", "root"] if os.geteuid() == 0 else []
    ports = [free_port() for _ in range(NODES)]
    for port in ports:
        command = [NODE, "-l", "127.0.0.1", "-p", str(port), *theirs, *user]
        subprocess.Popen(command, preexec_fn=child, env=environment)
    for port in ports:
        await_listening(port)
    command = [ROUTER, *ours, "--commands-flush-all=true", *(f"127.0.0.1:{port}" for port in ports)]
    router = subprocess.Popen(command, preexec_fn=child, env=environment)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: router.send_signal(number))
    sys.exit(router.wait())


if __name__ == "__main__":
    main()
