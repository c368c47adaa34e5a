# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A real etcd, and its keys by its JSON gateway."""

import base64
import json
import subprocess
import time
import urllib.request

from bed import free_port


class Etcd:
    """A real etcd."""

    def __init__(self, directory):
        self.directory = directory
        self.port, self.peer = free_port(), free_port()
        self.process = None

    def start(self):
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer}"
        self.process = subprocess.Popen(
            ["etcd", "--name", "one", "--data-dir", str(self.directory), "--listen-client-urls", client,
             "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", f"one={peer}", "--log-level", "error"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.call("kv/range", {"key": "YQ=="})
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("etcd does not answer")

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def call(self, path, body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v3/{path}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    @staticmethod
    def encoded(text):
        return base64.b64encode(text.encode()).decode()

    def put(self, key, value, lease=None):
        body = {"key": self.encoded(key), "value": self.encoded(json.dumps(value))}
        self.call("kv/put", {**body, "lease": lease} if lease else body)

    def delete(self, key):
        self.call("kv/deleterange", {"key": self.encoded(key)})

    def keys(self, prefix):
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self.call("kv/range", {"key": self.encoded(prefix), "range_end": self.encoded(end)})
        return {base64.b64decode(entry["key"]).decode(): json.loads(base64.b64decode(entry["value"]))
                for entry in found.get("kvs", [])}
