# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The linearizability checker itself, on histories that are known to be right and on ones known to be wrong."""

import os
import random
import time

import pytest

from storage.linearizability import (
    ABSENT, APPEND, COUNT, DELETE, PUT, READ, SECOND, TOUCH, Operation, check, check_all, count, step,
)  # fmt: skip
from storage.rounds import count_checked

SEED = int(os.environ.get("MARTLET_SEED") or time.time_ns() % 1_000_000)


def put(call, ret, value, **more):
    return Operation(call, ret, PUT, argument=value, ttl=more.pop("ttl", 0), **more)


def hit(call, ret, value, **more):
    return Operation(call, ret, READ, live=True, value=value, **more)


def miss(call, ret):
    return Operation(call, ret, READ, live=False)


def delete(call, ret, **more):
    return Operation(call, ret, DELETE, live=True, **more)


def incr(call, ret, value=None, by=1, **more):
    return Operation(call, ret, COUNT, live=True, argument=by, value=value, **more)


GOOD = {
    "one after another": [put(0, 1, b"a"), hit(2, 3, b"a"), delete(4, 5), miss(6, 7)],
    "a read beside a write sees either": [put(0, 1, b"a"), put(2, 9, b"b"), hit(3, 4, b"a"), hit(5, 6, b"b")],
    "two writes side by side, either order": [put(0, 9, b"a"), put(1, 8, b"b"), hit(10, 11, b"a")],
    "a write that nobody knows of happened": [put(0, 99, b"a", optional=True), hit(10, 11, b"a")],
    "a write that nobody knows of did not happen": [put(0, 99, b"a", optional=True), miss(10, 11)],
    "it happened late": [put(0, 99, b"a", optional=True), miss(10, 11), hit(12, 13, b"a")],
    "versions grow": [put(0, 1, b"a", version=5), put(2, 3, b"b", version=9), hit(4, 5, b"b", version=9)],
    "a version that its writer did not see": [put(0, 1, b"a"), hit(2, 3, b"a", version=7), hit(4, 5, b"a", version=7)],
    "a touch makes a new version": [
        put(0, 1, b"a", version=5), Operation(2, 9, TOUCH, live=True, ttl=0), hit(3, 4, b"a", version=5),
        hit(5, 6, b"a", version=6)],
    "cas": [put(0, 1, b"a", version=5), put(2, 3, b"b", live=True, compare=5, version=6),
            Operation(4, 5, READ, differs=5)],
    "append": [put(0, 1, b"a"), Operation(2, 3, APPEND, live=True, argument=b"b"), hit(4, 5, b"ab")],
    "counting": [put(0, 1, b"9"), incr(2, 5, b"11"), incr(2, 5, b"10"), hit(6, 7, b"11")],
    "add after delete beside it": [put(0, 1, b"a"), delete(2, 9), put(3, 8, b"b", live=False), hit(10, 11, b"b")],
    "expiry when it is due": [put(0, 1, b"a", ttl=4), hit(SECOND, SECOND + 1, b"a"), miss(4 * SECOND, 4 * SECOND + 1)],
    "stored as expired": [put(0, 1, b"a"), put(2, 3, b"b", ttl=-1), miss(4, 5)],
    "an append of unknown outcome between two reads": [
        put(0, 1, b"a"), Operation(2, 99, APPEND, live=True, argument=b"b", optional=True), hit(3, 4, b"a"),
        hit(5, 6, b"ab")],
}  # fmt: skip

BAD = {
    "a stale read": [put(0, 1, b"a"), put(2, 3, b"b"), hit(4, 5, b"a")],
    "a read goes back": [put(0, 1, b"a"), put(2, 9, b"b"), hit(3, 4, b"b"), hit(5, 6, b"a")],
    "a lost update": [put(0, 1, b"a"), put(2, 3, b"b"), miss(4, 5)],
    "two cas with one token": [
        put(0, 1, b"a", version=5), put(2, 9, b"b", live=True, compare=5), put(2, 9, b"c", live=True, compare=5)],
    "a value from nowhere": [put(0, 1, b"a"), hit(2, 3, b"x")],
    "a version goes back": [put(0, 1, b"a", version=9), put(2, 3, b"b", version=5)],
    "a version goes back over a delete": [put(0, 1, b"a", version=9), delete(2, 3), put(4, 5, b"b", version=9)],
    "a version changes by itself": [put(0, 1, b"a"), hit(2, 3, b"a", version=7), hit(4, 5, b"a", version=8)],
    "an old value with a new version": [put(0, 1, b"a", version=5), put(2, 3, b"b", version=7),
                                        hit(4, 5, b"a", version=7)],
    "a resurrected delete": [put(0, 1, b"a"), delete(2, 3), hit(4, 5, b"a")],
    "a delete that found one too many": [put(0, 1, b"a"), delete(2, 9), delete(2, 9)],
    "a double increment": [put(0, 1, b"1"), incr(2, 3, b"2"), hit(4, 5, b"3")],
    "two increments that gave the same": [put(0, 1, b"1"), incr(2, 5, b"2"), incr(2, 5, b"2")],
    "a lost increment": [put(0, 1, b"1"), incr(2, 5, None), incr(2, 5, None), hit(6, 7, b"2")],
    "two adds": [put(0, 9, b"a", live=False), put(0, 9, b"b", live=False)],
    "an unknown write that happened after its end": [put(0, 9, b"a", optional=True), miss(10, 11), hit(12, 13, b"a")],
    "an unknown write that happened and did not": [
        put(0, 99, b"a", optional=True), hit(10, 11, b"a"), miss(12, 13)],
    "gone too early": [put(0, 1, b"a", ttl=100), miss(4 * SECOND, 4 * SECOND + 1)],
    "alive too long": [put(0, 1, b"a", ttl=4), hit(9 * SECOND, 9 * SECOND + 1, b"a")],
    "expired and back again": [put(0, 1, b"a", ttl=4), miss(4 * SECOND, 4 * SECOND + 1),
                               hit(4 * SECOND + 2, 4 * SECOND + 3, b"a")],
    "flags of another": [put(0, 1, b"a", new_flags=1), hit(2, 3, b"a", flags=2)],
    "a time to live that changed": [put(0, 1, b"a", ttl=0), hit(2, 3, b"a", left=50)],
    "cas refused although the version was right": [
        put(0, 1, b"a", version=5), Operation(2, 3, READ, live=True, differs=5)],
    "an append to what is not there": [Operation(0, 1, APPEND, live=True, argument=b"b")],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_accepts(name):
    verdict = check(GOOD[name])
    assert verdict.ok, verdict.text


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    verdict = check(BAD[name], key="k")
    assert not verdict.ok
    assert verdict.decided
    assert "not linearizable" in verdict.text


def test_counts_as_memcached_does():
    assert count(b"18446744073709551615", 2) == b"1".ljust(20)
    assert count(b"100", -1) == b"99 "
    assert count(b"5", -9) == b"0"
    assert count(b"abc", 1) is None


def generate(source, size, clients=4, width=40, doubt=0.03):
    """A history that is right by construction: each operation takes effect at a point inside its interval."""
    plans, clock = [], [0] * clients
    for _ in range(size):
        client = source.randrange(clients)
        call = clock[client] + source.randrange(width)
        ret = call + 1 + source.randrange(width)
        clock[client] = ret
        plans.append((source.uniform(call, ret), call, ret))
    state, version, history, serial = ABSENT, 100, [], 0
    for point, call, ret in sorted(plans):
        serial += 1
        version += source.randrange(1, 9)
        shown = version if source.random() < 0.6 else None
        live = state[0] is not None
        roll = source.random()
        if roll < 0.45:
            if not live:
                operation = miss(call, ret)
            elif source.random() < 0.5:
                operation = hit(call, ret, state[0], version=state[2], flags=state[1])
            else:
                operation = hit(call, ret, state[0])
        elif roll < 0.65 or (not live and roll < 0.9):
            operation = put(call, ret, b"%d" % (serial * 1000), new_flags=serial, version=shown)
            if source.random() < 0.3:
                operation = operation._replace(live=live)
            if live and source.random() < 0.3:
                operation = operation._replace(live=True, compare=state[2])
        elif not live:
            operation = miss(call, ret)
        elif roll < 0.72:
            operation = delete(call, ret)
        elif roll < 0.8:
            operation = Operation(call, ret, TOUCH, live=True, ttl=0, version=shown)
        elif roll < 0.92:
            after = count(state[0], 1)
            operation = incr(call, ret, after if source.random() < 0.7 else None, version=shown)
        else:
            operation = Operation(call, ret, READ, live=True, differs=state[2] - 1)
        after = step(state, operation)
        assert after is not None, operation
        if operation.effect != READ:
            after = (*after[:2], version, True, *after[4:])
        state = after
        if operation.effect != READ and source.random() < doubt:
            operation = operation._replace(optional=True, ret=ret + 200, version=None, value=None)
        history.append(operation)
    return history


def test_accepts_what_is_right_by_construction():
    source = random.Random(SEED)
    for number in range(300):
        history = generate(source, 60, clients=source.randrange(1, 9))
        verdict = check(history, key=number)
        assert verdict.ok, f"MARTLET_SEED={SEED}\n{verdict.text}"


def brute_force(history):
    """Every order that real time allows, for a handful of operations: the definition and nothing else."""
    seen = set()

    def search(done, state):
        if (done, state) in seen:
            return False
        seen.add((done, state))
        rest = [index for index in range(len(history)) if not done >> index & 1]
        if all(history[index].optional for index in rest):
            return True
        first = min(history[index].ret for index in rest)
        for index in rest:
            if history[index].call <= first:
                after = step(state, history[index])
                if after is not None and search(done | 1 << index, after):
                    return True
                if history[index].optional and search(done | 1 << index, state):
                    return True
        return False

    return search(0, ABSENT)


def test_agrees_with_the_definition_on_small_histories_right_or_broken():
    """Histories of nine operations, some with one result exchanged for another."""
    source = random.Random(SEED)
    verdicts = {True: 0, False: 0}
    for number in range(4000):
        history = generate(source, 9, clients=3, width=8, doubt=0.03 if number % 2 else 0.5)
        if source.random() < 0.8:
            at, other = source.randrange(9), history[source.randrange(9)]
            history[at] = source.choice([
                history[at]._replace(value=other.value, version=other.version),
                other._replace(call=history[at].call, ret=history[at].ret),
                history[at]._replace(version=other.version),
                history[at]._replace(call=history[at].call + 30, ret=history[at].ret + 30),
            ])  # fmt: skip
        expected = brute_force(history)
        verdicts[expected] += 1
        assert check(history).ok == expected, f"MARTLET_SEED={SEED}\n" + "\n".join(map(repr, history))
    assert min(verdicts.values()) > 300, verdicts


def test_is_fast_enough_for_long_histories():
    """One key of 60,000 operations by 16 clients, and a shorter one with a stale read at its end."""
    source = random.Random(SEED)
    history = generate(source, 60_000, clients=16)
    broken = generate(source, 5000, clients=16)
    old = next(operation.argument for operation in broken if operation.effect == PUT)
    broken.append(hit(broken[-1].ret + 1000, broken[-1].ret + 1001, old))
    began = time.process_time()
    assert check(history).ok
    took = time.process_time() - began
    print(f"{len(history) / took:.0f} operations/s on one core")
    assert took < 12
    verdict = check(broken)
    assert not verdict.ok
    assert verdict.decided


def test_many_unknown_outcomes_do_not_drown_the_search():
    """Every sixth change is unknown, and over late."""
    source = random.Random(SEED)
    history = generate(source, 4000, clients=16, doubt=0.17)
    assert check(history).ok
    history = generate(source, 150, clients=8, doubt=0.17)
    old = next(operation.argument for operation in history if operation.effect == PUT and not operation.optional)
    verdict = check([*history, hit(history[-1].ret + 1000, history[-1].ret + 1001, old), miss(10**7, 10**7 + 1)])
    assert not verdict.ok
    assert verdict.decided


def test_many_keys_in_several_processes():
    source = random.Random(SEED)
    histories = {number: generate(source, 2000, clients=8) for number in range(16)}
    assert check_all(histories, processes=2) == []
    histories[3].append(hit(10**9, 10**9 + 1, b"nowhere"))
    assert [verdict.key for verdict in check_all(histories, processes=2)] == [3]


def test_what_is_given_up_is_named_and_not_counted_as_checked():
    """A search that takes too long proves nothing: its key stands apart from those that are right and those that are
    not."""
    sample = BAD["a lost increment"]
    histories = {b"hard": sample, b"easy": sample[:1]}
    verdict = check(sample, budget=0, key=b"hard")
    assert not verdict.ok and not verdict.decided and "b'hard': given up after" in verdict.text
    assert f"its {len(sample)} operations are not checked" in verdict.text
    assert count_checked(histories, [verdict]) == {"checked": 1, "not checked": len(sample), "keys given up": 1}
    assert count_checked(histories, []) == {"checked": len(sample) + 1, "not checked": 0, "keys given up": 0}
