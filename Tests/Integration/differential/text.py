# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Classic text commands, odd lines and administrative commands."""

from .streams import Command

SUBCOMMANDS = [
    b"stats noreply",
    b"stats reset",
    b"stats detail",
    b"stats detail on",
    b"stats detail off",
    b"stats detail dump",
    b"stats detail bogus",
    b"stats bogus",
    b"stats cachedump",
    b"stats cachedump 1",
    b"stats cachedump 1 x",
    b"stats cachedump 300 1",
    b"stats cachedump x 1",
    b"stats sizes",
    b"stats resett",
    b"stats reset extra",
    b"stats det on",
    b"stats  reset",
    b"statsreset",
    b"stat",
    b"stats proxy bogus x",
    b"lru_crawler",
    b"lru_crawler enable",
    b"lru_crawler enable now",
    b"lru_crawler bogus",
    b"lru_crawler sleep",
    b"lru_crawler sleep x",
    b"lru_crawler sleep 100",
    b"lru_crawler sleep 1000001",
    b"lru_crawler tocrawl",
    b"lru_crawler tocrawl x",
    b"lru_crawler tocrawl 0",
    b"lru_crawler crawl",
    b"lru_crawler crawl x",
    b"lru_crawler crawl 999",
    b"lru_crawler metadump",
    b"lru_crawler metadump x",
    b"lru_crawler mgdump",
    b"lru_crawler crawl 1 2",
    b"lru_crawler_x",
    b"lru",
    b"lru bogus",
    b"lru tune",
    b"lru tune 10 25 0.1 2.0",
    b"lru tune 50 50 0.1 2.0",
    b"lru tune x 25 0.1 2",
    b"lru tune 10 25 0 2.0",
    b"lru mode",
    b"lru mode flat",
    b"lru mode segmented",
    b"lru mode bogus",
    b"lru temp_ttl",
    b"lru temp_ttl 60",
    b"lru temp_ttl -1",
    b"lru temp_ttl x",
    b"slabs",
    b"slabs bogus",
    b"slabs reassign",
    b"slabs reassign 1",
    b"slabs reassign x y",
    b"slabs reassign 1 1",
    b"slabs automove",
    b"slabs automove 0",
    b"slabs automove 1",
    b"slabs automove 3",
    b"slabs automove x",
    b"slabs automove ratio",
    b"slabs automove ratio 0.8",
    b"slabs automove window 30",
    b"slabs automove window 1",
    b"slabs automove freeratio 0.01",
    b"slabs automove ratio x",
    b"slabs automove window x",
    b"watch bogus",
    b"watch fetchers bogus",
    b"watc",
    b"cache_memlimit",
    b"cache_memlimit x",
    b"cache_memlimit 0",
    b"cache_memlimit 7",
    b"cache_memlimit 1024",
    b"cache_memlimit 1024 noreply",
    b"cache_memlimit -1",
    b"cache_memlimit 1000000001",
    b"cache_memlimit 4294967296",
    b"shutdown",
    b"shutdown graceful",
    b"shutdown bogus",
    b"shutdown noreply",
    b"verbosity",
    b"verbosity 0",
    b"verbosity 1",
    b"verbosity 99",
    b"verbosity x",
    b"verbosity -1",
    b"verbosity noreply",
    b"verbosity 1 noreply",
    b"verbosity 1 2 3",
    b"verbosity 1 2 noreply",
    b"flush_all",
    b"flush_all 0",
    b"flush_all noreply",
    b"flush_all 0 noreply",
    b"flush_all invalid",
    b"flush_all invalid noreply",
    b"flush_all -1",
    b"flush_all 3600",
    b"flush_all 3600 noreply",
    b"flush_all 1000000000",
    b"flush_all 2000000000",
    b"flush_all 0 0",
    b"flush_all 3600 2 3",
    b"flush_all 4294967296",
    b"version",
    b"version extra words",
    b"version noreply",
    b"versio",
    b"refresh_certs x",
    b"misbehave_",
]

ODD = [
    b"",
    b" ",
    b"  ",
    b"\r",
    b"\x00",
    b"\x00\x00\x00",
    b"g",
    b"ge",
    b"get",
    b"get ",
    b"get  ",
    b"gets",
    b"gett a",
    b"GET a",
    b"Get a",
    b" get a",
    b"   version",
    b"\tversion",
    b"version\t",
    b"get\ta",
    b"set",
    b"set a",
    b"set a 0",
    b"set a 0 0",
    b"set a 0 0 ",
    b"set a 0 0 x",
    b"set a 0 0 -1",
    b"set a 0 0 -2147483648",
    b"set a 0 0 2147483648",
    b"set a 0 0 99999999999",
    b"set a 0 0 1.0",
    b"set a x 0 -1",
    b"cas a 0 0 1",
    b"cas a 0 0 x 1",
    b"sets a 0 0 1",
    b"incr",
    b"incr a",
    b"incr  1",
    b"decr a",
    b"decr",
    b"delete",
    b"delete ",
    b"touch",
    b"touch a",
    b"gat",
    b"gat 0",
    b"gat a",
    b"gats",
    b"gats 0",
    b"gat  0 a",
    b"mg",
    b"mg ",
    b"ms",
    b"ms a",
    b"ms a x",
    b"ms a -1",
    b"ms a S10",
    b"md",
    b"ma",
    b"me",
    b"mx a",
    b"mn extra",
    b"MN",
    b"m",
    b"mn mn",
    b"quitt",
    b"qui",
    b"quit_",
    b"bogus",
    b"bogus noreply",
    b"bogus a b c",
    b"noreply",
    b"HTTP/1.1",
    b"ERROR",
    b"END",
    b"\xff\xfe\xfd",
    b"\xc3\xa9",
    b"config get cluster_",
    b"auth",
    b"select 0",
    b"PING",
    b"*1",
    b"$4",
    b"EHLO x",
    b"a" * 250,
    b"a" * 1000,
    b"get " + b"k " * 300,
    b"gets " + b"k" * 250 + b" " + b"k" * 251,
    b"get " + b"k" * 251,
    b"delete " + b"k" * 251,
    b"incr " + b"k" * 251 + b" 1",
    b"touch " + b"k" * 251 + b" 0",
    b"gat 0 " + b"k" * 251,
    b"mg " + b"k" * 251 + b" v",
    b"md " + b"k" * 251,
    b"ma " + b"k" * 251,
    b"me " + b"k" * 251,
    b"mg " + b"k" * 250 + b" v",
    b"a " * 600,
    b"verbosity " + b"1 " * 300,
    b"mg a " + b"v " * 30,
]


class TextWords:
    """Mixed into the generator."""

    def text_command(self):
        words = self.random.choices(
            (
                self.store,
                self.fetch,
                self.count,
                self.remove,
                self.touch,
                self.compare,
                self.fetch_and_touch,
                self.odd_line,
                self.small,
            ),
            (30, 26, 12, 7, 4, 6, 4, 3, 4),
        )[0]
        return words()

    def noreply(self):
        return b" noreply" if self.random.random() < 0.12 else b""

    def body(self, value, declared=None):
        """The data block: right, or wrong in the ways clients get it wrong."""
        point = self.random.random()
        if point < 0.96:
            return value + b"\r\n"
        return self.random.choice(
            (
                value + b"\n",
                value + b"x\r\n",
                value + b"\r",
                value[:-1] + b"\r\n",
                value + b"\r\n\r\n",
                value + b"xx",
                value + b"  \r\n",
            )
        )

    def store(self):
        verb = self.random.choices((b"set", b"add", b"replace", b"append", b"prepend"), (50, 12, 10, 14, 14))[0]
        value, space = self.value(), self.spaces()
        length = b"%d" % len(value)
        if self.random.random() < 0.02:
            length = self.random.choice((b"-1", b"x", b"1x", b"0", b"+1", b"01", b"%d" % (len(value) + 1), b""))
        line = space.join((verb, self.any_key(), self.flags(), self.exptime(), length)) + self.noreply()
        if self.random.random() < 0.01:
            line += self.random.choice((b" extra", b" noreply extra", b" 0 noreply"))
        return Command(line + self.end() + self.body(value))

    def compare(self):
        """cas with the item's own id, one beside it, or none at all."""
        key, value = self.key(), self.value()
        head = self.spaces().join((b"cas", key, self.flags(), self.exptime(), b"%d" % len(value))) + b" "
        tail = self.noreply() + b"\r\n" + self.body(value)
        if self.random.random() < 0.75:
            return Command(head, (key, self.random.choice((0, 0, 0, 1, -1)), "text"), tail)
        return Command(head + self.number() + tail)

    def fetch(self):
        verb = self.random.choice((b"get", b"get", b"gets"))
        keys = [self.any_key() for _ in range(self.random.choice((1, 1, 1, 2, 3, 5, 8, 30)))]
        return Command(verb + b" " + self.spaces().join(keys) + self.end())

    def fetch_and_touch(self):
        verb = self.random.choice((b"gat", b"gats"))
        keys = [self.any_key() for _ in range(self.random.choice((1, 1, 2, 4)))]
        return Command(self.spaces().join([verb, self.exptime()] + keys) + self.end())

    def count(self):
        verb = self.random.choice((b"incr", b"decr"))
        line = self.spaces().join((verb, self.any_key(), self.number())) + self.noreply()
        return Command(line + self.end())

    def remove(self):
        extra = b"" if self.random.random() < 0.8 else self.random.choice((b" 0", b" 10", b" x", b" 0 0", b" noreplyx"))
        return Command(b"delete " + self.any_key() + extra + self.noreply() + self.end())

    def touch(self):
        return Command(self.spaces().join((b"touch", self.any_key(), self.exptime())) + self.noreply() + self.end())

    def small(self):
        return Command(self.random.choice((b"version", b"mn", b"verbosity 0", b"mn", b"get " + self.key())) + b"\r\n")

    def odd_line(self):
        self.used.update((b"a", b"k"))
        return Command(self.random.choice(ODD) + self.end())

    def admin_command(self):
        self.dirty = True
        if self.random.random() < 0.03:
            return Command(
                self.random.choice(
                    (
                        b"quit",
                        b"quit now",
                        b"quit noreply",
                        b"GET / HTTP/1.1",
                        b"x HTTP/1.0",
                        b"get a HTTP/1.1",
                        b"POST /a b HTTP/x",
                    )
                )
                + b"\r\n"
            )
        if self.random.random() < 0.1:
            return Command(b"stats\r\n")
        return Command(self.random.choice(SUBCOMMANDS) + self.noreply() + self.end())

    def garbage(self):
        """Bytes of no protocol, in lines."""
        size = self.random.choice((1, 3, 10, 50, 300))
        first = self.random.choice(b"abgms \x00\x01\x16\x7f\x81\xff")
        rest = bytes(self.random.getrandbits(8) for _ in range(size))
        return Command(bytes([first]) + rest.replace(b"\n", b"") + b"\r\n")

    def long_line(self):
        """Lines with no newline: cut off beyond 2,048 bytes unless they are gets."""
        size = self.random.choice((100, 1500, 40_000, 100_000))
        lead = self.random.choice(
            (b"", b"set ", b"mg ", b"getx ", b"delete ", b"get", b"\x00", b" " * 101 + b"get ", b"gat 0 ")
        )
        return Command(lead + b"z" * size)

    def big_values(self):
        """Values around the limit of an item, 1 MiB, and beyond."""
        key = self.pool[0]
        size = self.random.choice(
            (1 << 20, (1 << 20) - 512, 1 << 19, (1 << 19) + 7, 600_000, 1_000_000, 1_048_000, 1_100_000, 2_000_000)
        ) + self.random.choice((0, 0, 1, -1))
        form = self.random.choice(
            (b"set %s 0 0 %d\r\n", b"set %s 5 100 %d noreply\r\n", b"ms %s %d\r\n".replace(b"%d", b"%d k"))
        )
        line = form % (key, size)
        commands = [Command(b"set " + key + b" 0 0 3\r\nold\r\n"), Command(line + self.filling(size) + b"\r\n")]
        for _ in range(self.random.randint(0, 3)):
            commands.append(
                self.random.choice(
                    (
                        Command(b"append " + key + b" 0 0 5\r\nhello\r\n"),
                        Command(b"mg " + key + b" s f t\r\n"),
                        Command(b"incr " + key + b" 1\r\n"),
                        Command(b"delete " + key + b"\r\n"),
                    )
                )
            )
        commands.append(Command(b"get " + key + b"\r\n"))
        return commands

    def multiget(self):
        """One get line of many keys, most of them absent."""
        commands = [self.store() for _ in range(3)]
        count = self.random.choice((500, 3000, 20_000))
        keys = [
            self.random.choice(self.pool) if self.random.random() < 0.02 else b"no%d" % number
            for number in range(count)
        ]
        if self.random.random() < 0.2:
            keys[self.random.randrange(count)] = b"t" * 251
        return commands + [Command(b"get " + b" ".join(keys) + b"\r\n"), Command(b"get " + self.pool[0] + b"\r\n")]
