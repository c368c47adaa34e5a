# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Binary protocol packets, right and wrong."""

import struct

from .streams import Command

GET, SET, ADD, REPLACE, DELETE, INCREMENT, DECREMENT, QUIT, FLUSH, GETQ, NOOP, VERSION, GETK, GETKQ = range(14)
APPEND, PREPEND, STAT, SETQ, ADDQ, REPLACEQ, DELETEQ, INCREMENTQ, DECREMENTQ, QUITQ, FLUSHQ, APPENDQ, PREPENDQ = range(
    14, 27
)
VERBOSITY, TOUCH, GAT, GATQ, GATK, GATKQ = 0x1B, 0x1C, 0x1D, 0x1E, 0x23, 0x24

HEADER = struct.Struct(">BBHBBHIIQ")


def packet(
    opcode,
    key=b"",
    value=b"",
    extras=b"",
    cas=0,
    opaque=0,
    magic=0x80,
    kind=0,
    vbucket=0,
    total=None,
    key_length=None,
    extras_length=None,
):
    """One request; the lengths may lie."""
    body = extras + key + value
    header = HEADER.pack(
        magic,
        opcode,
        len(key) if key_length is None else key_length,
        len(extras) if extras_length is None else extras_length,
        kind,
        vbucket,
        len(body) if total is None else total,
        opaque,
        cas,
    )
    return header + body


class BinaryWords:
    """Mixed into the generator."""

    def binary_command(self):
        words = self.random.choices(
            (
                self.binary_store,
                self.binary_fetch,
                self.binary_count,
                self.binary_remove,
                self.binary_touch,
                self.binary_join,
                self.binary_small,
                self.binary_odd,
                self.binary_quit,
            ),
            (28, 28, 12, 8, 8, 8, 5, 5, 0.2),
        )[0]
        return words()

    def opaque(self):
        return self.random.getrandbits(32) & 0x3FFF_FFFF

    def seconds(self):
        return self.random.choice(
            (0, 0, 0, 100, 3600, 2592000, 2592001, 1000000000, 2000000000, 2147483647, 0xFFFF_FFFE)
        )

    def binary_key(self):
        if self.random.random() < 0.02:
            return self.random.choice((b"", (self.stem + b"o" * 300)[:251], self.stem + b"o" * 1000))
        if self.random.random() < 0.02:
            key = self.stem + self.random.choice((b" ", b"\r\n", b"a b", b"\x00"))
            self.used.add(key)
            return key
        return self.key()

    def with_cas(self, opcode, key, value, extras):
        """The packet with no CAS id, the item's own, one beside it, or an arbitrary one."""
        point = self.random.random()
        opaque = self.opaque()
        if point < 0.75:
            return Command(packet(opcode, key, value, extras, opaque=opaque))
        if point < 0.9:
            data = packet(opcode, key, value, extras, opaque=opaque)
            return Command(data[:16], (key, self.random.choice((0, 0, 1, -1)), "binary"), data[24:])
        return Command(
            packet(opcode, key, value, extras, cas=self.random.choice((1, 5, 1 << 40, (1 << 64) - 1)), opaque=opaque)
        )

    def binary_store(self):
        opcode = self.random.choice((SET, SET, SET, ADD, REPLACE, SETQ, ADDQ, REPLACEQ))
        extras = struct.pack(">II", self.random.choice((0, 1, 0xDEADBEEF, 0xFFFFFFFF)), self.seconds())
        return self.with_cas(opcode, self.binary_key(), self.value(), extras)

    def binary_fetch(self):
        opcode = self.random.choice((GET, GET, GETQ, GETK, GETKQ))
        return Command(packet(opcode, self.binary_key(), opaque=self.opaque()))

    def binary_count(self):
        opcode = self.random.choice((INCREMENT, INCREMENT, DECREMENT, INCREMENTQ, DECREMENTQ))
        delta, initial = (self.random.choice((0, 1, 2, 10, 1 << 32, (1 << 63), (1 << 64) - 1)) for _ in range(2))
        exptime = self.random.choice((0, 0, 100, 0xFFFF_FFFF, 2592001, 2000000000))
        return self.with_cas(opcode, self.binary_key(), b"", struct.pack(">QQI", delta, initial, exptime))

    def binary_remove(self):
        return self.with_cas(self.random.choice((DELETE, DELETE, DELETEQ)), self.binary_key(), b"", b"")

    def binary_touch(self):
        opcode = self.random.choice((TOUCH, GAT, GATQ, GATK, GATKQ))
        return Command(
            packet(opcode, self.binary_key(), extras=struct.pack(">I", self.seconds()), opaque=self.opaque())
        )

    def binary_join(self):
        return self.with_cas(
            self.random.choice((APPEND, PREPEND, APPENDQ, PREPENDQ)), self.binary_key(), self.value(), b""
        )

    def binary_small(self):
        self.dirty = True
        return Command(
            self.random.choice(
                (
                    packet(NOOP, opaque=self.opaque()),
                    packet(VERSION, opaque=self.opaque()),
                    packet(NOOP, opaque=self.opaque()),
                    packet(VERSION, opaque=self.opaque()),
                    packet(FLUSH),
                    packet(FLUSH, extras=struct.pack(">I", 0)),
                    packet(FLUSHQ),
                    packet(FLUSH, extras=struct.pack(">I", 3600)),
                    packet(STAT, b"reset"),
                    packet(STAT, b"bogus"),
                    packet(STAT, b"detail dump"),
                    packet(STAT, b"detail on"),
                    packet(STAT, b"detail off"),
                    packet(VERBOSITY, extras=struct.pack(">I", 0)),
                    packet(NOOP),
                )
            )
        )

    def binary_quit(self):
        return Command(packet(self.random.choice((QUIT, QUITQ))), alone=True)

    def binary_odd(self):
        """Well-formed headers with something that does not belong."""
        key = self.key()
        opaque = self.opaque()
        return Command(
            self.random.choice(
                (
                    lambda: packet(
                        self.random.choice((0x1F, 0x25, 0x30, 0x40, 0x7F, 0xF0, 0xFF)), key, b"v", opaque=opaque
                    ),
                    lambda: packet(GET, key, b"value", opaque=opaque),
                    lambda: packet(GET, key, extras=b"\0\0\0\0", opaque=opaque),
                    lambda: packet(GET, opaque=opaque),
                    lambda: packet(SET, key, b"value", opaque=opaque),
                    lambda: packet(SET, key, b"value", extras=b"\0\0\0\0", opaque=opaque),
                    lambda: packet(DELETE, key, b"value", opaque=opaque),
                    lambda: packet(INCREMENT, key, extras=b"\0" * 8, opaque=opaque),
                    lambda: packet(TOUCH, key, opaque=opaque),
                    lambda: packet(NOOP, b"k", opaque=opaque),
                    lambda: packet(VERSION, b"", b"v", opaque=opaque),
                    lambda: packet(APPEND, key, b"v", extras=b"\0\0\0\0", opaque=opaque),
                    lambda: packet(SET, key, b"v", extras=b"\0" * 8, kind=7, opaque=opaque),
                    lambda: packet(SET, key, b"v", extras=b"\0" * 8, vbucket=0xFFFF, opaque=opaque),
                    lambda: packet(SET, key, extras=b"\0" * 8, opaque=opaque),
                    lambda: packet(0x20, opaque=opaque),
                    lambda: packet(0x21, b"PLAIN", b"\0user\0pass", opaque=opaque),
                )
            )()
        )

    def binary_lie(self):
        """Headers whose lengths contradict each other or the limits, or that are no header at all."""
        key = self.key()
        return Command(
            self.random.choice(
                (
                    lambda: packet(GET, key, key_length=len(key) + 50),
                    lambda: packet(SET, key, b"v", extras=b"\0" * 8, total=4),
                    lambda: packet(SET, key, b"v", extras=b"\0" * 8, extras_length=200),
                    lambda: packet(GET, key, total=0),
                    lambda: packet(SET, key, b"v" * 100, extras=b"\0" * 8, total=0x7FFF_FFFF),
                    lambda: packet(SET, key, b"v" * 100, extras=b"\0" * 8, total=0xFFFF_FFFF),
                    lambda: packet(SET, key, b"v" * 100, extras=b"\0" * 8, total=3_000_000),
                    lambda: packet(GET, key, magic=0x81),
                    lambda: packet(GET, key, magic=0x00),
                    lambda: b"get a\r\n" * 20,
                    lambda: packet(GET, key)[: self.random.randint(1, 23)],
                    lambda: packet(SET, key, b"value", extras=b"\0" * 8)[:-3],
                )
            )()
        )
