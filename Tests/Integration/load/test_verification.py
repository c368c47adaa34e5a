# Martlet
# SPDX-License-Identifier: Apache-2.0
"""`verify: true`: values that are torn, of another key or stale are told with their histories, whoever wrote them; others never."""

import re

import pytest

from .runner import Run
from .stub import Stub

pytestmark = pytest.mark.ours


def first_for_ever():
    """A server that takes every value and shows the first one of each key."""
    first = {}

    def reply(words, value):
        if value is not None:
            first.setdefault(words[1], value)
            return b"STORED\r\n"
        if words[1] not in first:
            return b"END\r\n"
        return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (words[1].encode(), len(first[words[1]]), first[words[1]])

    return reply


def test_whoever_wrote_a_value_it_is_told_to_be_stale():
    """One scenario writes and another reads, each on both threads: nobody reads what it wrote itself only."""
    writer, reader = (
        "{executor: per-vu-iterations, vus: 2, iterations: %d, startTime: %s, "
        "workload: {operations: {%s: 1}, keys: 3, keyPrefix: 'mine:', verify: true}}" % one
        for one in [(60, "0s", "set"), (40, "1s", "get")])
    with Stub(first_for_ever()) as stub:
        done = Run("--server", stub.address, "--threads", 2, file="{scenarios: {w: %s, r: %s}}" % (writer, reader))
    assert done.code == 0, done
    # Long after many writes of three keys, every read brings the first.
    assert done.figure("memcached_wrong_values", "count") == 80, done
    shown = re.findall(
        r"stale value of 'mine:\d{12}': version \d+ of this run at ([\d.]+) ms; versions sent up to (\d+), 0 of them without a known "
        r"outcome; (.*)", done.err)
    assert 2 <= len(shown) <= 16, done
    for seen, count, history in shown:
        last = re.findall(r"(\d+) (sent|acknowledged) at ([\d.]+) ms", history)
        # Of two that were under way at once, either may have been answered last.
        assert len(last) == 8 and int(count) > 10 and int(last[-1][0]) >= int(count) - 1, history
        assert float(last[-1][2]) < float(seen) and last[-1][1] == "acknowledged", history
    assert re.search(r"stale values, beyond those that are shown", done.err), done


def test_a_torn_value_is_told():
    """One bit of each third value is another one."""
    items, reads = {}, []

    def reply(words, value):
        if value is not None:
            items[words[1]] = value
            return b"STORED\r\n"
        reads.append(1)
        value = bytearray(items[words[1]])
        if len(reads) % 3 == 0:
            value[len(reads) % len(value)] ^= 1
        return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (words[1].encode(), len(value), bytes(value))

    with Stub(reply) as stub:
        done = Run(
            "--server", stub.address, file="{vus: 1, iterations: 30, workload: {operations: {get: 1}, keys: 5, preload: true, "
            "valueSize: 90, verify: true}}")
    assert done.code == 0, done
    assert done.figure("memcached_wrong_values", "count") == 10, done
    assert re.search(r"torn value of 'key:\d+': no stamp that holds at", done.err), done


@pytest.mark.parametrize("protocol", ["classic", "meta"])
def test_a_server_that_is_right_is_never_accused(server, protocol):
    """All kinds of operations on five keys by two scenarios on several threads, many of them under way at once."""
    one = (
        "{executor: constant-vus, vus: 6, duration: 2s, workload: {operations: {get: 4, gets: 1, mget: 1, gat: 1, set: 4, add: 1, "
        "replace: 1, cas: 2, delete: 1, touch: 1}, keys: 5, keysPerGet: 3, pipeline: 8, ttl: 60s, protocol: %s, verify: true}}" % protocol)
    done = Run(
        "--server", f"127.0.0.1:{server.port}", "--threads", 3,
        file="{scenarios: {one: %s, other: %s}, thresholds: {memcached_wrong_values: ['count==0'], "
        "memcached_req_failed: ['rate==0'], memcached_hits: ['rate>0.3'], memcached_reqs: ['count>1000']}}" % (one, one))
    assert done.code == 0, done
