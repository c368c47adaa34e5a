# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The router beside nutcracker (twemproxy), each before the same server, under the same loads.

The figure is the proxy's own CPU per operation, as a ratio within one run. The proxy runs on processor 0; the server
and the load share processor 1.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from nodes import Node, free_port, mcload

# name: (mcload options, what it shows, the ratio to reach; None has no target)
PROXY_LOADS = {
    "proxy p1": ("--conns 50 --pipeline 1 --sets 0.1", "one request in flight", 1.0),
    "proxy p16": ("--conns 50 --pipeline 16 --sets 0.1", "pipelined by 16", 0.8),
    "proxy mget": ("--conns 20 --pipeline 1 --mget 100 --sets 0", "100 keys a get", None),
    "proxy big": ("--conns 20 --pipeline 8 --sets 0.1 --value 16384 --keys 10000", "16 KiB values", None),
}
KEYS = 100_000


class Proxy:
    """A running proxy, pinned to processor 0."""

    def __init__(self, line, port):
        self.port = port
        self.process = subprocess.Popen(
            ["taskset", "-c", "0", *line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, MARTLET_ADMIN="off"),
        )
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("bench: the proxy ended at start: " + " ".join(line))
                time.sleep(0.025)
        sys.exit("bench: the proxy never listened: " + " ".join(line))

    def load(self, options):
        line = ["taskset", "-c", "1", mcload(), "--port", str(self.port), "--pid", str(self.process.pid), "--json"]
        return json.loads(subprocess.run([*line, *options.split()], check=True, stdout=subprocess.PIPE).stdout)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def start_router(router, server):
    port = free_port()
    return Proxy([router, "--listen", f"127.0.0.1:{port}", "-t", "1", f"127.0.0.1:{server.port}"], port)


def start_nutcracker(server, folder):
    port = free_port()
    path = os.path.join(folder, "nutcracker.yml")
    with open(path, "w") as file:
        file.write(
            f"pool:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n  timeout: 5000\n"
            f"  server_connections: 1\n  servers:\n   - 127.0.0.1:{server.port}:1\n"
        )
    return Proxy(["nutcracker", "-c", path, "-s", str(free_port()), "-m", "16384"], port)


def proxy_figures(martlet, router, rounds, seconds):
    """Rows of (name, figures of the router, figures of nutcracker); None when there is no nutcracker."""
    if shutil.which("nutcracker") is None:
        return None
    found = {name: ([], []) for name in PROXY_LOADS}
    with tempfile.TemporaryDirectory() as folder, Node(martlet, "-m 1024 -c 4096 -t 1", processors="1") as server:
        for _ in range(rounds):
            for side in (0, 1):
                proxy = start_nutcracker(server, folder) if side else start_router(router, server)
                try:
                    proxy.load(f"--load {KEYS} --keys {KEYS} --seconds 0.1 --warmup 0")
                    for name, (options, _, _) in PROXY_LOADS.items():
                        if "--value" in options:
                            proxy.load("--load 10000 --value 16384 --keys 10000 --seconds 0.1 --warmup 0")
                        else:
                            options += f" --keys {KEYS}"
                        found[name][side].append(proxy.load(f"{options} --seconds {seconds}"))
                finally:
                    proxy.stop()
    return [(name, *sides) for name, sides in found.items()]
