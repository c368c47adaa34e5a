# Martlet
# SPDX-License-Identifier: Apache-2.0
"""For rounds: nodes that own their region's keys and leave and join, and a program that writes to the database by itself."""

import json
import os
import subprocess
import time

from bed import Closed, Patience
from storage import database


class Ring:
    """Nodes of a region that own its keys, and who of them is to."""

    def __init__(self, members):
        self.members, self.nodes, self.out = members, [], None

    def add(self, node):
        node.arguments += ["--members", f"file:{self.members}", "--register-address", f"127.0.0.1:{node.port}"]
        self.nodes.append(node)
        self.want()

    def want(self):
        fresh = self.members.with_suffix(".fresh")
        fresh.write_text(json.dumps([f"127.0.0.1:{node.port}" for node in self.nodes if node is not self.out]))
        os.replace(fresh, self.members)

    def turn(self, out):
        """A node is out of the ring, or none is, from now on: until all that are in it answer by one that is newer, and
        whole."""
        before = max(row.get("ring_epoch", 0) for row in self.rows(self.nodes))
        self.out = out
        self.want()
        self.settle(before)

    def leave(self, chance):
        if self.out:
            self.turn(None)
        self.turn(chance.choice(self.nodes))

    def join(self, chance):
        if not self.out:
            self.turn(chance.choice(self.nodes))
        self.turn(None)

    def settle(self, before=0):
        patience = Patience(30)
        while True:
            rows = self.rows([node for node in self.nodes if node is not self.out])
            whole = all(row.get("ring_is_leased") and not row.get("ring_is_opening") for row in rows)
            epochs = {row.get("ring_epoch") for row in rows}
            if whole and len(epochs) == 1 and min(epochs) > before:
                return
            assert not patience.is_over, (before, rows)
            time.sleep(0.02)

    @staticmethod
    def rows(nodes):
        """What nodes say of the ring; nothing of one that is just killed."""
        found = []
        for node in nodes:
            try:
                found.append(node.statistics())
            except (OSError, Closed):
                found.append({})
        return found


class Program:
    """Another program that writes rows by SQL, and knows nothing of nodes; what it is asked is spelled as of a client."""

    def __init__(self, port, name):
        self.process = subprocess.Popen(
            [f"{database.BINARIES}/psql", "-h", "127.0.0.1", "-p", port, "-U", "martlet", "-d", name, "-Atq"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip

    def set(self, key, value):
        key, value = key.encode().hex(), value.hex()
        self.run(
            f"INSERT INTO martlet_kv (k, val) VALUES (decode('{key}', 'hex'), decode('{value}', 'hex')) "
            "ON CONFLICT (k) DO UPDATE SET val = EXCLUDED.val, del = false")
        return "STORED"

    def ask(self, line):
        self.run(f"DELETE FROM martlet_kv WHERE k = decode('{line.removeprefix('delete ').encode().hex()}', 'hex')")
        return "DELETED"

    def run(self, statement):
        self.process.stdin.write(f"{statement};\n\\echo done\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if said.strip() != "done":
            self.process.kill()
            raise OSError(said)
