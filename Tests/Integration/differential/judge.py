# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Whether two servers agree on a stream, and if not, which command they disagree on and whether that is allowed."""

from dataclasses import dataclass, field

from . import replies
from .pair import Transcript
from .rules import (
    LARGE,
    MALFORMED,
    NEWEST,
    PADDING,
    REBUILT,
    allowed,
    counts_large_numbers,
    old_and_malformed,
    rebuilt,
    unpadded,
)
from .streams import show


@dataclass
class Verdict:
    """What became of one stream: same, allowed (with the rules), unstable, or different (with the place)."""

    outcome: str
    rules: list = field(default_factory=list)
    detail: str = ""


def differing(stream, steps, later=0):
    """The numbers of the steps on which the two sides differ; A replied `later` seconds after B."""
    same = replies.same_binary if stream.protocol == "binary" else replies.same_text
    ids = replies.Correspondence(later)
    return [
        number
        for number, (a, b) in enumerate(steps)
        if a.closed != b.closed or a.hung or b.hung or not same(a.data, b.data, ids)
    ]


def lost(stream, steps, bad, both):
    """The name of the quirk, when the only difference is that B threw away replies which it had not sent yet.

    memcached holds replies back while it waits for the rest of a value, and when the connection ends meanwhile they
    are gone; and a get with a key that is too long takes the unsent replies before it along. We send them all. `both`
    allows it to A as well, for when A is a memcached too.
    """
    a, b = steps[bad[0]]
    if a.hung or b.hung or a.closed != b.closed or a.half != b.half:
        return None
    if padded(stream, steps):
        return PADDING.name
    binary = stream.protocol == "binary"
    rows_a, rows_b = (replies.packets(side.data) if binary else replies.records(side.data) for side in (a, b))
    if len(rows_a) < len(rows_b) and both:
        rows_a, rows_b = rows_b, rows_a
    gone = len(rows_a) - len(rows_b)
    if gone <= 0:
        return None
    ids = replies.Correspondence()
    same = replies.same_packet if binary else replies.same_row
    head = 0
    while head < len(rows_b) and same(rows_a[head], rows_b[head], ids):
        head += 1
    if head == len(rows_b):
        # Whether B says nothing any more and the connection ends so: what it held back then is gone.
        silent = not any(later.data for _, later in steps[bad[0] + 1 :])
        ended = all(side.closed or side.half for side in steps[-1])
        return "replies lost at close" if silent and ended else None
    rest = rows_a[head + gone :]
    if (
        not binary
        and rest[0][0] == b"CLIENT_ERROR bad command line format"
        and all(same(one, other, ids) for one, other in zip(rest, rows_b[head:]))
    ):
        return "replies lost at a refused get"
    return None


def joined(steps):
    """The steps as one: what was said and how it ended, whatever was said when."""
    sides = []
    for transcripts in zip(*steps):
        last = transcripts[-1]
        data = b"".join(side.data for side in transcripts)
        sides.append(Transcript(data, last.closed, last.half, any(side.hung for side in transcripts)))
    return [tuple(sides)]


def withheld(stream, steps, both, later=0):
    """The name of the quirk, when B said the same in another step, or lost it.

    While it waits for the rest of a value, memcached holds back the replies to what came before; ours are sent at once.
    """
    whole = joined(steps)
    bad = differing(stream, whole, later)
    return "reply withheld" if not bad else lost(stream, whole, bad, both)


def padded(stream, steps):
    """Whether nothing differs but the padding of numbers."""
    bare = [tuple(without_padding(stream, side) for side in step) for step in steps]
    return not differing(stream, bare)


def without_padding(stream, side):
    return Transcript(unpadded(stream, side.data), side.closed, side.half, side.hung)


class Judge:
    """Judges streams on a pair of servers; A is the server under test, B the original.

    `original` says that A is a memcached as well, with a memcached's freedoms.
    """

    def __init__(self, pair, version, original=False):
        self.pair, self.version, self.original = pair, version, original

    def judge(self, stream):
        """The verdict; the servers are clean of the stream afterwards."""
        steps = self.pair.play(stream)
        bad = differing(stream, steps)
        if not bad:
            self.finish(stream)
            return Verdict("same")
        first = describe(stream, steps, bad)
        self.finish(stream)
        quirk = lost(stream, steps, bad, self.original)
        if quirk:
            return Verdict("allowed", [quirk])
        verdict = self.attribute(stream)
        if verdict.outcome == "allowed":
            return verdict
        # Only when commands come together: an earlier reply still holds the item that a later command counts in.
        ((a, b),) = joined(steps)
        if rebuilt(stream, len(stream.commands) - 1, a, b):
            return Verdict("allowed", [REBUILT.name])
        # What memcached finds behind a large number differs with where the item lies: it may not come back one by one.
        unexplained = not verdict.detail and a.closed == b.closed and not (a.hung or b.hung)
        if (
            unexplained
            and self.version < NEWEST
            and counts_large_numbers(stream, len(stream.commands) - 1, a.data + b.data)
        ):
            return Verdict("allowed", [LARGE.name])
        # Not explained by one command: does it happen again?
        for _ in range(2):
            again = self.pair.play(stream)
            bad = differing(stream, again)
            self.finish(stream)
            quirk = bad and lost(stream, again, bad, self.original)
            if quirk:
                return Verdict("allowed", [quirk])
            if bad:
                return verdict if verdict.detail else Verdict("different", [], first)
        return Verdict("unstable", [], first)

    def attribute(self, stream):
        """Plays the stream one command at a time, and holds each differing reply against the rules."""
        steps = self.pair.play(stream, stepwise=True)
        self.finish(stream)
        used = []
        bad = differing(stream, steps)
        quirk = bad and withheld(stream, steps, self.original)
        if quirk:
            return Verdict("allowed", [quirk])
        if not bad and old_and_malformed(stream, len(stream.commands), self.version):
            return Verdict("allowed", [MALFORMED.name])
        for number in bad:
            a, b = steps[number]
            rule = allowed(stream, number, a, b, self.version)
            quirk = rule is None and lost(stream, steps, [number], self.original)
            if quirk:
                used.append(quirk)
                continue
            if rule is None:
                return Verdict("different", used, describe(stream, steps, [number]))
            used.append(rule.name)
            if rule.diverges:
                break
        return Verdict("allowed" if bad else "different", used)

    def finish(self, stream):
        self.pair.clean(stream)


def describe(stream, steps, bad):
    """The first differing step, for people."""
    number = bad[0]
    a, b = steps[number]
    if len(steps) == len(stream.commands):
        sent = show(
            stream.commands[number].before
            + (b"<cas>" + stream.commands[number].after if stream.commands[number].cas else b""),
            400,
        )
    else:
        sent = f"{len(stream.commands)} commands, split {stream.split}"
    at = next((i for i, (x, y) in enumerate(zip(a.data, b.data)) if x != y), min(len(a.data), len(b.data)))
    context = max(0, at - 60)
    lines = [f"stream {stream.name} ({stream.protocol}), step {number}: {sent}"]
    for name, side in (("A", a), ("B", b)):
        state = ("closed" if side.closed else "open") + (", HUNG" if side.hung else "")
        lines.append(f"  {name} [{state}, {len(side.data)} bytes] …{show(side.data[context:], 400)}")
    return "\n".join(lines)
