# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A linearizability checker for memcached's keys, after Wing and Gong, Lowe, and Porcupine.

Each key is a register of its own and is checked alone. What a key holds is a value, its flags, its version (the CAS
value) and the time of its expiry; an operation is a condition on that, an effect, and what the client saw of it:

- A **version** is a witness besides the value. Every change must have a greater one than all before it, deletes and
  expiry included. Where a client did not learn the version of its write, the first one to see it binds it.
- A **time to live** makes the item disappear at some moment after the earliest and before the latest possible expiry;
  once one client found it gone, it is gone for all.
- An **optional** operation (outcome unknown, connection lost, reply suppressed) may have happened at any moment between
  its call and its `ret`, or never. Its `ret` is the moment after which it cannot happen any more.
- What definitely failed is not in a history at all.

The search walks over the returns in order of time and keeps, besides the state, one bit for each operation in progress.
A configuration is (position, bits, state), and none is visited twice; nor one that differs from an earlier one only in
that it used up more of the optional operations. There is no bit for what has returned: so a configuration is as small
at the ten-millionth operation as at the first, and a moment at which nothing is in progress is a cut by itself.

Three rules keep the search narrow without losing a solution: a pending read that fits the state is taken at once; of
writes with known versions the least goes first; and of optional writes that left no trace anywhere and do the same, the
one that is over first stands for all.
"""

import multiprocessing
import os
from bisect import insort
from typing import NamedTuple

READ, PUT, APPEND, PREPEND, COUNT, DELETE, TOUCH = range(7)
NAMES = ("read", "put", "append", "prepend", "count", "delete", "touch")
SECOND = 1_000_000_000
# A server counts whole seconds, from a start of its own, and the store the seconds of another clock.
EXPIRY_SLACK = 2 * SECOND + SECOND // 10
BUDGET = 3_000_000
UNSEEN = 1 << 70
NOBODY_SAW = b"%d" % (1 << 63)
NEAR = 1000  # how far counting leads at most


class Operation(NamedTuple):
    """One operation on one key. What is None was not asked or not seen."""

    call: int  # nanoseconds
    ret: int  # nanoseconds; for an optional one, when it is over for good
    effect: int = READ
    live: bool | None = None  # whether the outcome says that there was an item
    compare: int | None = None  # the version that the item must have had
    differs: int | None = None  # a version that it must not have had
    value: bytes | None = None  # what was seen, after the effect
    flags: int | None = None
    version: int | None = None  # what was seen, after the effect
    left: int | None = None  # seconds to live that were seen; -1 is forever
    argument: bytes | int | None = None  # what was stored or joined, or the signed difference
    new_flags: int = 0
    ttl: int | None = None  # 0 forever, less: at once; None keeps the item's
    optional: bool = False
    note: str = ""


# value, flags, version (or a lower bound), whether that version is known, earliest and latest expiry (0: never)
ABSENT = (None, 0, 0, True, 0, 0)


class Verdict(NamedTuple):
    """Whether a key's history is linearizable; `decided` is False when the search was given up."""

    ok: bool
    decided: bool = True
    key: object = None
    text: str = ""
    steps: int = 0


def step(state, operation):
    """The state after the operation, the same object when it changes nothing; None when it cannot happen here."""
    (call, ret, effect, live, compare, differs, seen, flags_seen, version_seen, left,
     argument, new_flags, ttl, _, _) = operation  # fmt: skip
    value, flags, version, known, earliest, latest = state
    if value is None:
        if live or compare is not None or differs is not None:
            return None
        if effect == READ:
            return state
        if effect != PUT:
            return None
    else:
        if live is False or (latest and call >= latest):
            return None
        if compare is not None and (version != compare if known else version >= compare):
            return None
        if differs is not None and known and version == differs:
            return None
        if effect == READ:
            if seen is not None and seen != value:
                return None
            if flags_seen is not None and flags_seen != flags:
                return None
            if left is not None and not fits(left, call, ret, earliest, latest):
                return None
            bound = version_seen if compare is None else compare
            if bound is None:
                return state
            if known:
                return state if version == bound else None
            return (value, flags, bound, True, earliest, latest) if bound > version else None
        if compare is not None:
            version = compare
    if version_seen is None:
        after = False
    else:
        if version_seen <= version:
            return None
        version, after = version_seen, True
    if effect == DELETE:
        return (None, 0, version, True, 0, 0)
    if effect == PUT:
        value, flags = argument, new_flags
    elif effect == APPEND:
        value += argument
    elif effect == PREPEND:
        value = argument + value
    elif effect == COUNT:
        value = count(value, argument)
        if value is None:
            return None
    if seen is not None and seen != value:
        return None
    if flags_seen is not None and flags_seen != flags:
        return None
    if ttl is not None:
        if ttl < 0:
            return (None, 0, version, True, 0, 0)
        earliest, latest = expiry(call, ret, ttl)
    if left is not None and not fits(left, call, ret, earliest, latest):
        return None
    return (value, flags, version, after, earliest, latest)


def expiry(call, ret, ttl):
    """The earliest and the latest moment at which something stored then may disappear."""
    if ttl == 0:
        return 0, 0
    return call + ttl * SECOND - EXPIRY_SLACK, ret + ttl * SECOND + EXPIRY_SLACK


def fits(left, call, ret, earliest, latest):
    """Whether so many seconds to live may have been told of an item that expires then."""
    if left < 0 or not latest:
        return left < 0 and not latest
    return earliest - ret - SECOND <= left * SECOND <= latest - call + SECOND


def count(value, difference):
    """memcached's arithmetic: up past 2^64 wraps, down stops at 0, a shorter result is padded."""
    text = value.rstrip(b" ")
    if not text.isdigit():
        return None
    number = int(text) + difference
    number = number % (1 << 64) if difference >= 0 else max(0, number)
    return str(number).encode().ljust(len(value))


def ranks(operations, order):
    """Where each change is likely to stand among the others: its version, or a guess at it, doubled."""
    first = {}
    for operation in operations:
        if operation.version is not None and operation.value is not None:
            known = first.get(operation.value)
            if known is None or operation.version < known:
                first[operation.value] = operation.version
    rank, newest = [0] * len(operations), 0
    for index in order:
        operation = operations[index]
        if operation.version is not None:
            newest = max(newest, operation.version)
            rank[index] = 2 * operation.version
        elif operation.effect == PUT and operation.argument in first:
            rank[index] = 2 * first[operation.argument]
        else:
            rank[index] = UNSEEN if operation.optional else 2 * newest + 1
    return rank


def traceless(operations):
    """The operations with those optional ones made alike that nobody saw anything of, and the kind of each, or None.

    What they stored is in no value that anybody saw, and no number that was seen can have been counted from it; so it
    does not matter what it was. Those of a kind have the same effect, and any of them may stand for another."""
    optional = [index for index, operation in enumerate(operations) if operation.optional]
    kinds = [None] * len(operations)
    if not optional:
        return operations, kinds
    seen = {operation.value for operation in operations if operation.value is not None}
    text = b"\n".join(seen)
    flags = {operation.flags for operation in operations}
    numbers = {int(value) // NEAR + offset for value in seen if value.strip().isdigit() for offset in (-1, 0, 1)}
    operations = list(operations)
    for index in optional:
        operation = operations[index]
        told = (operation.compare, operation.value, operation.flags, operation.version, operation.left)
        if told.count(None) < len(told) or (operation.ttl or 0) > 0:
            continue
        if operation.effect in (PUT, APPEND, PREPEND):
            argument = operation.argument
            number = argument.strip().isdigit()
            if argument in text or (number and int(argument) // NEAR in numbers):
                continue
            if operation.effect == PUT and operation.new_flags in flags:
                continue
            if operation.effect == PUT:
                operation = operation._replace(argument=NOBODY_SAW if number else b"nobody saw", new_flags=0)
            else:
                operation = operation._replace(argument=b"~")
        elif operation.effect not in (DELETE, TOUCH):
            continue
        operations[index] = operation
        kinds[index] = (operation.effect, operation.live, operation.ttl, operation.argument)
    return operations, kinds


def check(operations, initial=ABSENT, budget=BUDGET, key=None):
    """Judges the operations of one key."""
    operations, kinds = traceless(operations)
    size = len(operations)
    order = sorted(range(size), key=lambda index: operations[index].ret)
    calls = sorted(range(size), key=lambda index: operations[index].call)
    rank = ranks(operations, order)
    bits, free, top = [0] * size, [], 0
    changes, reads, pending = [], [], []
    called, doubtful, doubts = 0, 0, []
    for index in order:
        ret = operations[index].ret
        while called < size and operations[calls[called]].call <= ret:
            one = calls[called]
            called += 1
            if free:
                bits[one] = free.pop()
            else:
                bits[one] = 1 << top
                top += 1
            if operations[one].effect == READ:
                reads.append(one)
            else:
                insort(changes, (rank[one], one))
                if operations[one].optional:
                    doubtful |= bits[one]
        pending.append((tuple([one for _, one in changes]), tuple(reads)))
        doubts.append(doubtful)
        free.append(bits[index])
        doubtful &= ~bits[index]
        if operations[index].effect == READ:
            reads.remove(index)
        else:
            changes.remove((rank[index], index))

    position, mask, state, steps = 0, 0, initial, 0
    stack, visited = [], {}
    best = (-1, 0, initial)
    while position < size:
        index = order[position]
        bit = bits[index]
        if mask & bit:
            mask ^= bit
            position += 1
            continue
        operation = operations[index]
        if operation.effect == READ and step(state, operation) is state:
            position += 1
            continue
        steps += 1
        used = mask & doubts[position]
        configuration = (position, mask ^ used, state)
        before = visited.get(configuration, ())
        choices = []
        if not before or not any(other & used == other for other in before):
            visited[configuration] = (*before, used)
            if position > best[0]:
                best = (position, mask, state)
            choices = successors(operations, kinds, bits, pending[position], operation, mask, state)
            if operation.optional:
                # Or it never happened: which is likely when nobody saw its value.
                never = (-1, mask, state)
                choices.insert(len(choices) if rank[index] == UNSEEN else 0, never)
        while not choices:
            if not stack or steps > budget:
                if steps > budget:
                    text = f"key {key!r}: given up after {steps} steps: its {size} operations are not checked"
                    return Verdict(False, False, key, text, steps)
                return Verdict(False, True, key, describe(operations, order, pending, bits, best, key), steps)
            position, choices = stack.pop()
        bit, mask, state = choices.pop()
        if choices:
            stack.append((position, choices))
        if bit < 0:
            position += 1
    return Verdict(True, True, key, "", steps)


def successors(operations, kinds, bits, pending, returning, mask, state):
    """What may happen next, as (its bit, mask, state), the likeliest last."""
    changes, reads = pending
    choices, binding = [], []
    for index in reads:
        bit = bits[index]
        if mask & bit:
            continue
        after = step(state, operations[index])
        if after is state:
            mask |= bit
        elif after is not None:
            binding.append((bit, after))
    least, first = None, None
    for index in changes:
        kind = kinds[index]
        if kind is not None and not mask & bits[index]:
            first = first or {}
            other = first.get(kind)
            if other is None or operations[index].ret < operations[other].ret:
                first[kind] = index
    for index in changes:
        bit = bits[index]
        if mask & bit:
            continue
        if first and kinds[index] is not None and first[kinds[index]] != index:
            continue
        operation = operations[index]
        version = operation.version
        if version is not None:
            if least is None and not operation.optional:
                least = version
                if version <= state[2]:
                    return []
            elif least is not None and version > least:
                continue
        after = step(state, operation)
        if after is not None:
            choices.append((bit, mask | bit, after))
    vanished = None
    if state[4] and state[0] is not None and returning.ret >= state[4]:
        vanished = (0, mask, (None, 0, state[2], True, 0, 0))
        if returning.live is not False:
            choices.append(vanished)
    choices.reverse()
    choices += [(bit, mask | bit, after) for bit, after in reversed(binding)]
    if vanished and returning.live is False:
        choices.append(vanished)
    return choices


def show(operation, zero=0):
    """One line of an operation, with what it saw."""
    words = [f"{(operation.call - zero) / 1e6:.3f}..{(operation.ret - zero) / 1e6:.3f} ms", NAMES[operation.effect]]
    for name in ("live", "compare", "differs", "value", "flags", "version", "left", "argument", "ttl", "note"):
        field = getattr(operation, name)
        if field not in (None, ""):
            words.append(f"{name}={field[:40] if isinstance(field, bytes) else field}")
    if operation.optional:
        words.append("(may have happened)")
    return " ".join(words)


def describe(operations, order, pending, bits, best, key):
    """Where the search got to: the state, the operation that fits nowhere, what ran beside it and before."""
    position, mask, state = best
    stuck = operations[order[position]]
    zero = operations[order[0]].call
    rows = [f"key {key!r}: not linearizable at operation {position + 1} of {len(order)}"]
    value = state[0] if state[0] is None else state[0][:60]
    rows.append(f"  state: value={value!r} flags={state[1]} version={'' if state[3] else '>'}{state[2]}")
    rows.append(f"  stuck: {show(stuck, zero)}")
    for index in pending[position][0] + pending[position][1]:
        if operations[index] is not stuck:
            rows.append(f"  {'done  ' if mask & bits[index] else 'beside'}: {show(operations[index], zero)}")
    for index in order[max(0, position - 12) : position]:
        rows.append(f"  before: {show(operations[index], zero)}")
    return "\n".join(rows)


_histories = []


def _check_one(index):
    key, operations = _histories[index]
    return check(operations, key=key)


def check_all(histories, processes=None):
    """Judges the histories of many keys, {key: operations}; returns the verdicts that are not ok.

    Processes are forked, so that the histories are not copied."""
    global _histories
    _histories = sorted(histories.items(), key=lambda row: -len(row[1]))
    processes = min(processes or os.cpu_count() or 1, len(_histories))
    try:
        if processes <= 1 or sum(len(row[1]) for row in _histories) < 20_000:
            verdicts = [_check_one(index) for index in range(len(_histories))]
        else:
            with multiprocessing.get_context("fork").Pool(processes) as pool:
                verdicts = list(pool.imap_unordered(_check_one, range(len(_histories)), chunksize=1))
    finally:
        _histories = []
    return [verdict for verdict in verdicts if not verdict.ok]
