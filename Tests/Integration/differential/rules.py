# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The allowed differences, each with its reason. A is the server under test, B the original.

A rule is held against one command and the two replies it got, so it excuses nothing else in the stream. `diverges` says
that the two servers may hold different data after it, so that the rest of the stream cannot be compared.
"""

import re
from dataclasses import dataclass

from . import replies
from .grammar import well_formed

NEWEST = (1, 6, 45)


@dataclass(frozen=True)
class Rule:
    name: str
    reason: str
    command: str  # a regular expression that the command's bytes must match
    ours: str  # … and A's reply, "<closed>" behind it if A closed
    theirs: str  # … and B's
    older: bool = False  # only when B is older than 1.6.45
    diverges: bool = False


RULES = [
    Rule(
        "version",
        "The version is the version: ours answers 1.6.45's, whatever B is.",
        r"version",
        r"VERSION \S+\r\n",
        r"VERSION \S+\r\n",
    ),
    Rule(
        "refresh_certs without TLS",
        "A memcached that was built without TLS does not know the command; one built with it says what we say, "
        "whatever noreply asks.",
        r"refresh_certs",
        r"Error TLS not enabled\r\n",
        r"ERROR\r\n|",
    ),
    Rule(
        "a version where a length belongs",
        "cas with four numbers has the version as its length, and each server skips as many bytes as its own says.",
        r"cas +[^ ]+( +\d+){2} +0 *\r?\n",
        r".*",
        r".*",
        diverges=True,
    ),
    Rule("version, binary", "The same.", r"\x80\x0b", r"\x81\x0b.*", r"\x81\x0b.*"),
    Rule(
        "blank line behind a refused get",
        "1.6.45 answers a get with a key that is too long with an error and an empty line more, which puts a client "
        "out of step; Debian's does not. Either is right.",
        r" *(get|gat)s? ",
        r"CLIENT_ERROR bad command line format\r\n(\r\n)?",
        r"CLIENT_ERROR bad command line format\r\n(\r\n)?",
    ),
    Rule(
        "stats of the process",
        "`stats` names what the process has: the names are tested in test_stats.py.",
        r"stats\r",
        r"STAT .*END\r\n",
        r"STAT .*END\r\n",
    ),
    Rule(
        "shutdown text",
        "1.6.45 says SERVER_ERROR, 1.6.18 only ERROR.",
        r"shutdown",
        r"SERVER_ERROR: shutdown not enabled\r\n",
        r"ERROR: shutdown not enabled\r\n",
        older=True,
    ),
    Rule(
        "ms returns the size",
        "Since 1.6.23 ms answers its flag s with the size stored.",
        r"ms [^\r\n]* s[ \r]",
        r"(HD|NS|EX|NF).*",
        r"(HD|NS|EX|NF).*",
        older=True,
    ),
    Rule(
        "ma is quiet when it creates",
        "1.6.18 let q hide the reply only where the number existed already.",
        r"ma .*\bq\b",
        r"",
        r"(HD|VA).*",
        older=True,
    ),
    Rule(
        "binary lengths beyond 2 GiB",
        "1.6.45 refuses the header; 1.6.18 waits for the body, or calls it too large.",
        r"\x80.{7}[\x7f-\xff]",
        r"\x81.{6}\x04.*Invalid arguments(<closed>)?",
        r".*",
        older=True,
    ),
    Rule(
        "binary counter without an end",
        "1.6.18 creates a number without the line end behind it, and later reads on into what lay in memory before.",
        r"\x80[\x05\x06\x15\x16]",
        r".*",
        r".*Non-numeric server-side value.*|",
        older=True,
        diverges=True,
    ),
]

LARGE = Rule(
    "numbers from 2^63 on",
    "1.6.18 looks for a minus sign behind such a number, in whatever memory follows the item, and where it finds one it "
    "refuses to count: at once, or without a reply, so that a later command shows the number as it was.",
    "",
    "",
    "",
    older=True,
    diverges=True,
)
COUNTS = re.compile(rb"(incr|decr|ma) |\x80[\x05\x06\x15\x16]", re.S)
LARGE_NUMBER = re.compile(rb"(?<!\d)(\d{19,20})(?!\d)")

RESURRECTED = Rule(
    "delayed flush over a flush",
    "A delayed flush made 1.6.18 forget an immediate one before it, and what that had flushed came back.",
    "",
    "",
    "",
    older=True,
    diverges=True,
)
DELAYED_FLUSH = re.compile(rb"flush_all 0*[1-9]|\x80[\x08\x18]\x00\x00\x04.{19}(?!\x00\x00\x00\x00)", re.S)

PADDING = Rule(
    "padding of a shortened number",
    "memcached counts in place and pads with spaces, but stores anew without padding when a background thread of its "
    "own happens to hold the item.",
    "",
    "",
    "",
    diverges=True,
)
PADDED_TEXT = re.compile(rb"((?:VALUE \S+ \d+|VA) )\d+([^\r\n]*\r\n\d+) *(?=\r\n)")
PADDED_BINARY = re.compile(rb"(?<=\d) +\Z")

ACTED = Rule(
    "acts before it refuses",
    "memcached carries out mg and ma, and looks up the keys of a get, before it notices that an opaque or a key is too "
    "long, and a noreply on such a get silences the next command. We refuse first: a refused command changes nothing.",
    "",
    "",
    "",
    diverges=True,
)
REFUSED_LATE = re.compile(rb"m[ga] [^\r\n]* O[^ \r\n]{32}| *(?:get|gat)s? [^\n]*[^ \n]{251}", re.S)

REBUILT = Rule(
    "what a rebuilt item keeps",
    "memcached makes a new item to append, to prepend, and to count where the number needs another digit or an earlier "
    "reply still holds the item; it forgets there that the key came in base64, that the item was read, and ma's T. Ours "
    "keeps them.",
    "",
    "",
    "",
    diverges=True,
)
REBUILDS = re.compile(rb"ms [^\r\n]* M[APap]|(?:ma|append|prepend|incr|decr) ", re.S)
TIMED = re.compile(rb"ma [^\r\n]* T", re.S)
DEBUG = re.compile(rb"ME \S+( exp=\S+ la=\S+ cas=\d+) fetch=\w+( cls=\d+) size=\d+")
KEY_TOKEN = re.compile(rb" k\S+(?: b\b)?")

COMPILED = [
    (rule, *(re.compile(pattern.encode("latin-1"), re.S) for pattern in (rule.command, rule.ours, rule.theirs)))
    for rule in RULES
]

MALFORMED = Rule(
    "malformed, by an old authority",
    "The text parser of 1.6.45 is not 1.6.18's: see grammar.py. What is outside the common grammar is held against the "
    "recorded replies of 1.6.45 instead, in test_golden.py.",
    "",
    "",
    "",
    older=True,
    diverges=True,
)


def allowed(stream, number, a, b, version):
    """The rule that allows this difference in the replies to command `number` of a stream, or None."""
    command = stream.commands[number]
    if a.hung or b.hung:
        return None
    older = version < NEWEST
    text = command.before + (b"0" + command.after if command.cas else b"")
    same = replies.same_binary if stream.protocol == "binary" else replies.same_text
    if a.closed == b.closed and same(unpadded(stream, a.data), unpadded(stream, b.data), replies.Correspondence()):
        return PADDING
    for rule, sent, ours, theirs in COMPILED:
        if rule.older and not older:
            continue
        if (
            sent.match(text)
            and ours.fullmatch(a.data + (b"<closed>" if a.closed else b""))
            and theirs.fullmatch(b.data + (b"<closed>" if b.closed else b""))
        ):
            return rule
    if any(REFUSED_LATE.match(earlier.before + earlier.after) for earlier in stream.commands[: number + 1]):
        return ACTED
    if rebuilt(stream, number, a, b):
        return REBUILT
    if older and counts_large_numbers(stream, number, a.data + b.data):
        return LARGE
    if older and any(DELAYED_FLUSH.match(earlier.before) for earlier in stream.commands[:number]):
        return RESURRECTED
    return MALFORMED if old_and_malformed(stream, number + 1, version) else None


def counts_large_numbers(stream, number, answers):
    """Whether the stream counted before, and a number from 2^63 on stands in what it sent or in these replies."""
    before = [command.before + command.after for command in stream.commands[: number + 1]]
    if not any(map(COUNTS.match, before)):
        return False
    if stream.protocol == "binary":
        return any(len(sent) >= 40 and COUNTS.match(sent) and max(sent[24], sent[32]) >= 0x80 for sent in before)
    texts = [*before, answers]
    return any(int(found) >= 1 << 63 for text in texts for found in LARGE_NUMBER.findall(text))


def rebuilt(stream, number, a, b):
    """Whether all that differs is what memcached forgets of an item that it rebuilds."""
    before = [command.before + command.after for command in stream.commands[: number + 1]]
    if stream.protocol == "binary" or a.closed != b.closed or not any(map(REBUILDS.match, before)):
        return False
    # An expiry that one of them lost turns hits into misses and the other way round.
    if any(map(TIMED.match, before)):
        return not a.data.startswith(b"CLIENT_ERROR") and not b.data.startswith(b"CLIENT_ERROR")
    return plain(a.data) == plain(b.data)


def plain(data):
    """The replies without the marks of an item, and without its version, which each server counts for itself."""
    text = KEY_TOKEN.sub(b" k", DEBUG.sub(rb"ME\1\2", data))
    return re.sub(rb" (?:cas=|c)\d+", b" c", text)


def old_and_malformed(stream, count, version):
    """Whether the first `count` commands hold one that only 1.6.45 can judge, and B is older.

    Where one of them parses a line and the other refuses it, the two read on from different places.
    """
    return version < NEWEST and stream.protocol == "ascii" and not all(map(well_formed, stream.commands[:count]))


def unpadded(stream, data):
    """The replies without the spaces behind numbers, and without the lengths and sizes that count them."""
    if stream.protocol != "binary":
        return re.sub(rb" s\d+", b" s", PADDED_TEXT.sub(rb"\1\2", data))
    bare = []
    for fields, body in replies.packets(data):
        if fields is not None:
            body = PADDED_BINARY.sub(b"", body)
            body = replies.HEADER.pack(*fields[:6], len(body), *fields[7:]) + body
        bare.append(body)
    return b"".join(bare)
