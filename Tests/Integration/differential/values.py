# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Keys, numbers and values: mostly ordinary, often at a limit, sometimes impossible."""

NUMBERS = [
    b"0",
    b"1",
    b"2",
    b"9",
    b"10",
    b"99",
    b"255",
    b"65535",
    b"65536",
    b"2147483647",
    b"2147483648",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551614",
    b"18446744073709551615",
    b"18446744073709551616",
    b"99999999999999999999999",
    b"-1",
    b"-2",
    b"-0",
    b"+1",
    b"00",
    b"007",
    b"1.5",
    b"1e3",
    b"0x10",
    b"abc",
    b"1a",
    b"a1",
    b"-",
    b"+",
    b"-9223372036854775808",
    b"-2147483648",
    b"-2147483649",
    b"\xb2",
]
# Exptimes that are not near "now": no test of this bed may depend on which second it runs in. Seconds of absolute
# time are in the past (1970 to 2001) or far ahead (2033).
EXPTIMES = [
    b"0",
    b"0",
    b"0",
    b"100",
    b"3600",
    b"2592000",
    b"2592001",
    b"1000000000",
    b"2000000000",
    b"2147483647",
    b"-1",
    b"-2",
    b"-100",
    b"-2147483648",
    b"2147483648",
    b"4294967295",
    b"-2147483649",
    b"9223372036854775807",
    b"18446744073709551616",
    b"abc",
    b"1x",
    b"1.5",
    b"",
    b"+5000",
    b"05000",
]
FLAGS = [
    b"0",
    b"0",
    b"0",
    b"1",
    b"5",
    b"255",
    b"65535",
    b"4294967295",
    b"4294967296",
    b"-1",
    b"x",
    b"1x",
    b"01",
    b"18446744073709551615",
]
LENGTHS = [0, 1, 2, 3, 5, 8, 10, 20, 31, 32, 33, 64, 100, 250, 255, 256, 511, 1000]


class Values:
    """Mixed into the generator, which owns `random`."""

    def begin_keys(self, index):
        """Every stream has keys of its own, so that streams do not meet; some share short ones, cleaned up after."""
        stem = b"%x." % index
        self.pool = [stem + b"%d" % number for number in range(self.random.choice((1, 2, 3, 3, 4, 6)))]
        self.stem = stem
        self.used = set(self.pool)

    def key(self):
        """A key that is stored: mostly of the stream's few."""
        if self.random.random() < 0.9:
            return self.random.choice(self.pool)
        return self.use(self.unusual_key())

    def use(self, key):
        if len(key) <= 250 and b" " not in key and b"\n" not in key:
            self.used.add(key)
        return key

    def unusual_key(self):
        point = self.random.random()
        stem = self.stem
        if point < 0.25:
            return (stem + b"m" * 250)[:250]
        if point < 0.40:
            return (stem + b"n" * 250)[: self.random.choice((249, 248, 200, 128, 127))]
        if point < 0.55:
            return self.random.choice(b"abcxyz019_-*#").to_bytes(1, "big")
        if point < 0.70:
            return stem + bytes(self.random.choice(range(0x80, 0x100)) for _ in range(3))
        if point < 0.80:
            return stem + self.random.choice((b"\x01", b"\t", b"\x7f", b"\x0b", b"\x00x", b"\x1f"))
        if point < 0.90:
            return stem + b"user:profile:%d" % self.random.randint(0, 9)
        return stem + self.random.choice((b"noreply", b"q", b"0", b"-1", b"END", b"k\r", b"\\", b"'\""))

    def bad_key(self):
        """A key that is refused, or a token where a key should be."""
        self.used.add(b"noreply")
        return self.random.choice(
            ((self.stem + b"o" * 300)[:251], (self.stem + b"o" * 400)[:300], self.stem + b"o" * 700, b"", b"noreply")
        )

    def any_key(self):
        return self.bad_key() if self.random.random() < 0.03 else self.key()

    def number(self):
        if self.random.random() < 0.5:
            return b"%d" % self.random.randint(0, 12)
        return self.random.choice(NUMBERS)

    def exptime(self):
        return b"0" if self.random.random() < 0.6 else self.random.choice(EXPTIMES)

    def flags(self):
        return b"%d" % self.random.getrandbits(16) if self.random.random() < 0.5 else self.random.choice(FLAGS)

    def value(self):
        """A value: digits (for incr), text, or bytes that look like protocol.

        Never white space alone: memcached's incr skips it, line end and all, and reads whatever lies behind the item.
        """
        value = self.any_value()
        return value if value.strip() or not value else b"x" * len(value)

    def any_value(self):
        point = self.random.random()
        if point < 0.30:
            return self.random.choice(NUMBERS)
        if point < 0.40:
            return self.random.choice(
                (
                    b"END\r\n",
                    b"\r\n",
                    b"\n",
                    b"VALUE a 0 1\r\nb\r\nEND",
                    b"HD\r\n",
                    b"a\x00b",
                    b"5 ",
                    b" 5",
                    b"12 34",
                    b"10  ",
                    b"\x80\x00\x00",
                    b"STORED",
                )
            )
        if point < 0.97:
            return self.filling(self.random.choice(LENGTHS))
        return self.filling(self.random.choice((2047, 2048, 4095, 8191, 8192, 16383, 16384, 16385, 20000)))

    def filling(self, length):
        if length < 40:
            return bytes(self.random.choices(b"abcdefghij0123456789 ", k=length))
        start = self.random.randint(0, 200)
        return (PATTERN * (length // len(PATTERN) + 2))[start : start + length]

    def spaces(self):
        """What separates tokens."""
        return b" " if self.random.random() < 0.97 else self.random.choice((b"  ", b"   ", b"\t", b" \t "))

    def end(self):
        """What ends a line."""
        return b"\r\n" if self.random.random() < 0.96 else self.random.choice((b"\n", b" \r\n", b"  \n", b"\r\r\n"))


# Broken into lines: where a server refuses the command but not its block, the block must not look like a line without
# end, whose fate depends on how its bytes arrive.
PATTERN = bytes((i * 7 + i // 26) % 26 + 97 for i in range(1007)) + b"\r\n"
