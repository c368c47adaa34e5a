# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What is sent: commands, and the streams they form. Plain data, so that a stream can be written down and replayed."""

import base64
import json
import struct
from dataclasses import dataclass, field


@dataclass
class Command:
    """One command with its body.

    A command may name the CAS id of a key, which each server knows differently: `cas` is then (key, delta, form),
    `before` and `after` surround the id, and form is "text" (decimal) or "binary" (eight bytes).
    """

    before: bytes
    cas: tuple | None = None
    after: bytes = b""
    alone: bool = False  # sent only when everything before it has been answered

    def bytes(self, ids):
        """The bytes for one server, with `ids` mapping keys to that server's CAS ids."""
        if self.cas is None:
            return self.before
        key, delta, form = self.cas
        value = (ids.get(key, 0) + delta) & 0xFFFF_FFFF_FFFF_FFFF
        text = b"%d" % value if form == "text" else struct.pack(">Q", value)
        return self.before + text + self.after


@dataclass
class Stream:
    """Commands for one connection, how to cut them into writes, and what to clean up afterwards."""

    protocol: str  # "ascii" or "binary"
    commands: list
    split: str = "whole"  # whole, commands, random, bytes, slow
    seed: int = 0  # of the random splits
    dangling: bool = False  # ends inside a command: no sentinel can follow
    keys: list = field(default_factory=list)  # keys that may be left behind
    dirty: bool = False  # changes state beyond its keys (delayed flush, verbosity, statistics)
    name: str = ""

    def to_json(self):
        rows = []
        for command in self.commands:
            row = [escape(command.before)]
            if command.cas:
                row += [[escape(command.cas[0]), command.cas[1], command.cas[2]], escape(command.after)]
            rows.append(row + [True] if command.alone else row)
        return json.dumps(
            {
                "name": self.name,
                "protocol": self.protocol,
                "split": self.split,
                "seed": self.seed,
                "dangling": self.dangling,
                "dirty": self.dirty,
                "keys": [escape(key) for key in self.keys],
                "commands": rows,
            }
        )

    @staticmethod
    def from_json(text):
        data = json.loads(text) if isinstance(text, str) else text
        commands = []
        for row in data["commands"]:
            alone = row[-1] is True
            row = row[:-1] if alone else row
            cas = (unescape(row[1][0]), row[1][1], row[1][2]) if len(row) > 1 else None
            commands.append(Command(unescape(row[0]), cas, unescape(row[2]) if cas else b"", alone))
        return Stream(
            data["protocol"],
            commands,
            data["split"],
            data["seed"],
            data["dangling"],
            [unescape(key) for key in data["keys"]],
            data["dirty"],
            data.get("name", ""),
        )


def escape(data):
    """Bytes as a JSON string: Latin-1 when short, Base64 behind a marker when long runs would bloat the file."""
    return data.decode("latin-1") if len(data) < 4096 else "base64:" + base64.b64encode(data).decode()


def unescape(text):
    return base64.b64decode(text[7:]) if text.startswith("base64:") else text.encode("latin-1")


def show(data, limit=200):
    """Bytes for people, shortened in the middle."""
    if len(data) > limit:
        return f"{data[: limit // 2]!r}…({len(data)} bytes)…{data[-limit // 2 :]!r}"
    return repr(data)
