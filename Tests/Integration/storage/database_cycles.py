# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Load in front of a PostgreSQL that crashes in the middle of it (`pg_ctl stop -m immediate`), or ends its sessions:
what was acknowledged is there, what was not is wholly there or not at all, and the records for other regions agree.

The node is killed as well every now and then. See cycles.py, whose writers these are: one command at a time, because
what a failed one left decides what the next one makes.
"""

import random
import tempfile
import threading
import time
from pathlib import Path

from bed import until
from streams.region import RegionNode

from . import database
from .cycles import CLIENTS, Writer, load, verify

DELETE = 1  # OutboxRecord.Operation


class CarefulWriter(Writer):
    """A client that stops after an unknown outcome, and goes on after a definite refusal."""

    may_be_silent = False

    def __init__(self, number, source):
        super().__init__(number, source)
        self.refused = self.unknown = 0
        self.versions = set()  # of each key, those that were acknowledged

    def batch(self):
        return self.command()

    def feed(self, data):
        self.buffer += data
        if not self.buffer.endswith(b"\r\n"):
            return
        data, self.buffer = self.buffer, b""
        (pending,) = self.pending
        line = data[:-2]
        if not line.startswith(b"SERVER_ERROR "):
            super().feed(data)
            if pending.learns:
                self.versions.add((pending.key, self.rows[pending.key].version))
        elif line == b"SERVER_ERROR outcome unknown":
            # It stays under way, and its writer waits for the end of the cycle.
            self.unknown += 1
        elif line.startswith(b"SERVER_ERROR storage: "):
            self.pending = []
            self.last[pending.key] = self.rows[pending.key]
            self.refused += 1
        else:
            raise AssertionError(f"{pending.key}: {line!r}")


def run_database_cycles(seed, cycles, directory=None):
    """So many crashes of one database under load; returns counts and failures."""
    source = random.Random(f"database cycles {seed}")
    writers = [CarefulWriter(number, random.Random(f"{seed} {number}")) for number in range(CLIENTS)]
    counts = {"cycles": 0, "acked": 0, "unknown": 0, "refused": 0, "checked": 0, "records": 0}
    failures = []
    server = database.shared()
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        regions = [{"name": "us-east", "role": "home"}]
        node = RegionNode(Path(scratch) / "node", "us-east", regions, backend="postgres", storage_timeout="10s")
        with node:
            for cycle in range(cycles):
                trouble = Trouble(server, node, source, seed + cycle)
                trouble.start()
                load(node, writers, 0.3 + 0.3 * source.random())
                trouble.join()
                for writer in writers:
                    writer.client.close()
                counts[trouble.kind] = counts.get(trouble.kind, 0) + 1
                if source.random() < 0.3:
                    node.restart()
                settle(node)
                for where in ("from wherever they are", "from the database"):
                    found, bad = verify(node, writers)
                    failures += [f"cycle {cycle}, {where}: {text}" for text in bad]
                    with node.client(30) as client:
                        assert client.ask("flush_all") == "OK"
                counts["checked"] += found
                records, bad = compare(server, node.name, writers)
                failures += [f"cycle {cycle}: {text}" for text in bad]
                counts["records"] = records
                counts["cycles"] += 1
                if len(failures) > 20:
                    break
        for name in ("acked", "unknown", "refused"):
            counts[name] = sum(getattr(writer, name) for writer in writers)
    if not counts["acked"] or not counts["records"]:
        failures.append(f"nothing was done: {counts}")
    return {"seed": seed, "counts": counts, "failures": failures}


class Trouble(threading.Thread):
    """What happens to the database once, in the middle of the load."""

    def __init__(self, server, node, source, number):
        super().__init__(daemon=True)
        self.server, self.node = server, node
        self.pause = 0.05 + 0.2 * source.random()
        # By turns, so that there are as many of each.
        self.kind, self.act = (
            ("sessions ended", lambda: server.end_sessions(node.name)) if number % 2 else ("server crashes", server.crash))
        self.error = None

    def run(self):
        time.sleep(self.pause)
        try:
            self.act()
        except RuntimeError as error:
            self.error = error

    def join(self, timeout=120):
        super().join(timeout)
        assert not self.is_alive(), f"{self.kind}: it takes more than {timeout} s"
        if self.error:
            raise self.error


def settle(node):
    """Until every session is there again, no write is under way, and every outcome is known."""

    def is_settled():
        rows = node.statistics()
        return rows["storage_health"] == "ready" and rows["writes_in_flight"] == 0 and rows["uncertain_keys"] == 0

    until(is_settled, 60, "the end of what was under way")


def compare(server, name, writers):
    """How many records there are of changes, and what is wrong with them: held against the rows, and against the
    versions that clients were told."""
    rows = {}
    for line in server.sql("SELECT convert_from(k, 'UTF8'), ver, exp, del FROM martlet_kv", name).splitlines():
        key, version, expiry, is_deleted = line.split("|")
        rows[key] = (int(version), int(expiry), is_deleted == "t")
    records, newest, failures = set(), {}, []
    # One snapshot: a record moves from the one table to the other.
    text = (
        "SELECT convert_from(k, 'UTF8'), ver, exp, op FROM martlet_outbox UNION ALL "
        "SELECT convert_from(k, 'UTF8'), ver, exp, op FROM martlet_stream")
    for line in server.sql(text, name).splitlines():
        key, version, expiry, operation = line.split("|")
        if (key, int(version)) in records:
            failures.append(f"{key}: two records of version {version}")
        records.add((key, int(version)))
        if int(version) > newest.get(key, (0,))[0]:
            newest[key] = (int(version), int(expiry), int(operation) == DELETE)
    failures += [
        f"{key}: the row is {row} (version, expiry, deleted), the last record {newest.get(key)}"
        for key, row in rows.items()
        if newest.get(key) != row
    ]
    # An expired row is removed after a minute, and needs no record.
    failures += [
        f"{key}: a record of {record} without a row"
        for key, record in newest.items()
        if key not in rows and not record[1] and not record[2]
    ]
    told = {each for writer in writers for each in writer.versions}
    failures += [f"{key}: no record of version {version}, which was acknowledged" for key, version in told - records]
    gaps = server.sql(
        "SELECT s.slot FROM martlet_stream_slot s LEFT JOIN martlet_stream r ON r.slot = s.slot "
        "GROUP BY s.slot, s.last, s.kept HAVING count(r.seq) <> s.last - s.kept", name)  # fmt: skip
    failures += [f"slot {slot} of the stream has gaps" for slot in gaps.split()]
    return len(records), failures
