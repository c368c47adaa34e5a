# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Which commands are well formed in every memcached 1.6, so that an old one is an authority on them.

memcached's text parser was rewritten between 1.6.18 and 1.6.45: the same malformed line gets another error text, an
error more or fewer, or is now accepted. On lines outside this grammar 1.6.45 alone is the authority, by its recorded
replies (golden.jsonl.xz) and by live comparison when one is given.
"""

import base64
import binascii
import re

KEY = rb"[^\x00-\x20\x7f]{1,250}"
FLAGS32 = rb"\d{1,10}"
EXPTIME = rb"-?\d{1,10}"
STORE = re.compile(
    rb"(?:set|add|replace|append|prepend) (%s) (%s) (%s) (\d{1,10})( noreply)?\r?\n" % (KEY, FLAGS32, EXPTIME)
)
CAS = re.compile(rb"cas (%s) (%s) (%s) (\d{1,10}) (\d{1,20})( noreply)?\r?\n" % (KEY, FLAGS32, EXPTIME))
SIMPLE = re.compile(
    rb"(?:gets? %(k)s(?: +%(k)s)*|gats? (?P<gat>%(e)s) %(k)s(?: +%(k)s)*"
    rb"|(?:incr|decr) %(k)s (?P<delta>\d{1,20})(?: noreply)?|delete %(k)s(?: 0)?(?: noreply)?"
    rb"|touch %(k)s (?P<touch>%(e)s)(?: noreply)?|flush_all(?: (?P<flush>\d{1,10}))?(?: noreply)?"
    rb"|version|mn|verbosity \d{1,9}(?: noreply)?|quit|stats|stats reset)\r?\n" % {b"k": KEY, b"e": EXPTIME}
)
META = re.compile(rb"(mg|md|ma) (%s)((?: [!-~]+)*)\r?\n" % KEY)
META_SET = re.compile(rb"ms (%s) (\d{1,10})((?: [!-~]+)*)\r?\n" % KEY)
# What each flag's argument looks like, by command; flags that 1.6.18 does not know are not here.
NONE, OPAQUE = re.compile(rb""), re.compile(rb"[!-~]{0,31}")
TIME, U64, U32 = re.compile(rb"-?\d{1,10}"), re.compile(rb"\d{1,20}"), re.compile(rb"\d{1,10}")
META_FLAGS = {
    b"mg": {
        b"b": NONE,
        b"c": NONE,
        b"f": NONE,
        b"h": NONE,
        b"k": NONE,
        b"l": NONE,
        b"O": OPAQUE,
        b"q": NONE,
        b"s": NONE,
        b"t": NONE,
        b"u": NONE,
        b"v": NONE,
        b"N": TIME,
        b"R": TIME,
        b"T": TIME,
    },
    b"ms": {
        b"b": NONE,
        b"c": NONE,
        b"C": U64,
        b"F": U32,
        b"I": NONE,
        b"k": NONE,
        b"O": OPAQUE,
        b"q": NONE,
        b"T": TIME,
        b"M": re.compile(rb"[EAPRS]"),
    },
    b"md": {b"b": NONE, b"C": U64, b"I": NONE, b"k": NONE, b"O": OPAQUE, b"q": NONE, b"T": TIME},
    b"ma": {
        b"b": NONE,
        b"C": U64,
        b"N": TIME,
        b"J": U64,
        b"D": U64,
        b"T": TIME,
        b"M": re.compile(rb"[ID+-]"),
        b"O": OPAQUE,
        b"q": NONE,
        b"t": NONE,
        b"c": NONE,
        b"v": NONE,
        b"k": NONE,
    },
}


def well_formed(command):
    """Whether a text command, with its block, is beyond doubt in any version."""
    line = command.before
    if command.cas:
        line = command.before + b"1" + command.after
    match = STORE.match(line) or CAS.match(line)
    if match:
        return (
            fits(match[2], 0, 2**32)
            and fits(match[3], -(2**31), 2**31)
            and block(line, match.end(), match[4])
            and (match.re is not CAS or fits(match[5], 0, 2**64))
        )
    if b"noreply" in line.split()[1:2]:
        return False  # a key, or the wish for no reply?
    match = SIMPLE.fullmatch(line)
    if match:
        times = [match[name] for name in ("gat", "touch", "flush") if match[name]]
        return all(fits(time, -(2**31), 2**31) for time in times) and (
            not match["delta"] or fits(match["delta"], 0, 2**64)
        )
    match = META.fullmatch(line)
    if match:
        return flags_fit(match[1], match[2], match[3].split())
    match = META_SET.match(line)
    return bool(match and block(line, match.end(), match[2]) and flags_fit(b"ms", match[1], match[3].split()))


def fits(number, low, high):
    return low <= int(number) < high


def block(line, at, length):
    return len(line) == at + int(length) + 2 and line.endswith(b"\r\n") and int(length) <= 1_000_000


def flags_fit(verb, key, tokens):
    letters = [token[:1] for token in tokens]
    if len(set(letters)) != len(letters) or len(tokens) > 15:
        return False
    for token in tokens:
        form = META_FLAGS[verb].get(token[:1])
        if form is None or not form.fullmatch(token[1:]):
            return False
        if form is TIME and not fits(token[1:], -(2**31), 2**31) or form is U64 and not fits(token[1:], 0, 2**64):
            return False
        if form is U32 and not fits(token[1:], 0, 2**32):
            return False
    if b"b" in letters:
        try:
            return 0 < len(base64.b64decode(key, validate=True)) <= 250
        except (binascii.Error, ValueError):
            return False
    return True
