# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The seeded generator of command streams. One seed and one index name one stream for good."""

import random

from .binary import (
    DECREMENT,
    DECREMENTQ,
    GAT,
    GATK,
    GATKQ,
    GATQ,
    GET,
    GETK,
    GETKQ,
    GETQ,
    INCREMENT,
    INCREMENTQ,
    BinaryWords,
)
from .grammar import well_formed
from .meta import MetaWords
from .streams import Command, Stream
from .text import TextWords
from .values import Values

# Kinds of streams and their weights.
KINDS = [
    ("text", 34),
    ("meta", 26),
    ("mixed", 12),
    ("binary", 18),
    ("admin", 4),
    ("garbage", 2.5),
    ("lines", 2),
    ("big", 0.7),
    ("multiget", 0.4),
    ("truncated", 2),
]


WORDS = {"text": ("text_command",), "meta": ("meta_command",), "mixed": ("text_command", "meta_command", "odd_line")}


def generate(seed, index):
    """The stream with this number in the sequence of this seed."""
    return Generator(seed, index).stream()


CLOSING = (b"quit", b"watch", b"lru_crawler m")


def sent_alone(line):
    """Whether this line's effect on memcached depends on how much before it has been answered already.

    * A get with a key that is too long throws away the replies of its batch, and with them those of earlier commands
      that were not yet sent.
    * What closes the connection loses the replies that were not yet sent.
    * `watch` and the dumps refuse to start while replies are pending.
    """
    words = line.split(b"\n", 1)[0].strip(b" \r")
    if words.startswith((b"get", b"gat")) and len(words) > 250 and any(len(word) > 250 for word in words.split(b" ")):
        return True
    return words.startswith(CLOSING) or words.rpartition(b" ")[2].startswith(b"HTTP/")


def part_counting(protocol, commands):
    """Sends alone each increment that follows a fetch whose reply may still be unsent.

    memcached counts in place, padding a shorter number with spaces, unless somebody still holds the item, as an unsent
    reply does: then it stores the number anew, without padding.
    """
    fetches = (b"get", b"gat", b"mg ", b"ma ", b"stats")
    counts = (b"incr", b"decr", b"ma ")
    fetched = False
    for command in commands:
        if protocol == "binary":
            opcode = command.before[1] if len(command.before) > 1 else 0
            counting = opcode in (INCREMENT, DECREMENT, INCREMENTQ, DECREMENTQ)
            fetching = opcode in (GET, GETQ, GETK, GETKQ, GAT, GATQ, GATK, GATKQ)
        else:
            line = command.before.lstrip(b" ")
            counting, fetching = line.startswith(counts), line.startswith(fetches)
        if counting and fetched:
            command.alone = True
        if command.alone or command.cas:
            fetched = False
        fetched = fetched or fetching


class Generator(TextWords, MetaWords, BinaryWords, Values):
    """Holds the random state and the keys of one stream; the words live in the parent classes, by protocol."""

    def __init__(self, seed, index):
        self.random = random.Random(f"{seed}:{index}")
        self.name = f"{seed}:{index}"
        self.begin_keys(index)
        self.dirty = False

    def stream(self):
        names, weights = zip(*KINDS)
        kind = self.random.choices(names, weights)[0]
        dangling = False
        protocol = "ascii"
        count = min(60, 1 + int(self.random.expovariate(1 / 9)))
        if kind in WORDS:
            words = [getattr(self, word) for word in WORDS[kind]]
            # Half of the streams have no fault at all, so that an old memcached is an authority on all of it.
            draw = self.sound if self.random.random() < 0.5 else lambda words: self.random.choice(words)()
            commands = [draw(words) for _ in range(count)]
        elif kind == "admin":
            commands = [
                self.admin_command() if self.random.random() < 0.5 else self.text_command() for _ in range(count)
            ]
        elif kind == "garbage":
            commands = [self.garbage() for _ in range(self.random.randint(1, 4))]
        elif kind == "lines":
            commands = [self.text_command() for _ in range(self.random.randint(0, 4))] + [self.long_line()]
            dangling = True
        elif kind == "big":
            commands = self.big_values()
        elif kind == "multiget":
            commands = self.multiget()
        elif kind == "truncated":
            words = self.random.choice((self.text_command, self.meta_command))
            commands = [words() for _ in range(count)]
            last = commands[-1]
            if last.cas is None and len(last.before) > 1:
                last.before = last.before[: self.random.randint(1, len(last.before) - 1)]
            dangling = True
        else:
            protocol = "binary"
            commands = [self.binary_command() for _ in range(count)]
            if self.random.random() < 0.06:
                commands.append(self.binary_lie())
                dangling = True
        if protocol == "ascii":
            if any(command.before == b"stats\r\n" for command in commands):
                commands.insert(0, Command(b"stats reset\r\n"))
            for command in commands:
                command.alone = sent_alone(command.before)
        part_counting(protocol, commands)
        if dangling:
            commands[-1].alone = True
        length = sum(len(command.before) for command in commands)
        return Stream(
            protocol,
            commands,
            self.split(length),
            self.random.getrandbits(32),
            dangling,
            sorted(self.used),
            self.dirty,
            self.name,
        )

    def sound(self, words):
        """A command that is well formed in every version."""
        while True:
            command = self.random.choice(words)()
            if well_formed(command):
                return command

    def split(self, length):
        point = self.random.random()
        if point < 0.40 or length > 20_000:
            return "whole"
        if point < 0.62:
            return "commands"
        if point < 0.90 or length > 400:
            return "random"
        return "bytes" if point < 0.985 or length > 120 else "slow"
