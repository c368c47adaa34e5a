# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Resident memory: bounded by -m whatever the sizes of values and their history, and small for each connection."""

import random
import resource
import time

import pytest

MIB = 1 << 20


def allowed(mib):
    """The promise: 1.15 times the limit and 32 MiB."""
    return int(mib * MIB * 1.15) + 32 * MIB


def store(client, source, total, low, high, prefix, keys):
    """Stores about `total` bytes of values between two sizes under `keys` keys, and waits for them."""
    filling, sent, batch = b"v" * high, 0, []
    size = 0
    while sent < total:
        length = source.randint(low, high)
        batch.append(
            b"set %s%d 0 0 %d noreply\r\n" % (prefix, source.randrange(keys), length) + filling[:length] + b"\r\n"
        )
        sent += length + 60
        size += length + 60
        if size > MIB:
            client.send(b"".join(batch))
            batch, size = [], 0
    client.send(b"".join(batch) + b"mn\r\n")
    assert client.line() == "MN"


@pytest.mark.ours
@pytest.mark.parametrize("mib", [8, 64, 128])
def test_resident_memory_keeps_to_the_limit_whatever_the_history(start, mib):
    server = start(f"-m {mib} -t 2")
    source = random.Random(mib)
    peak = 0
    with server.client(timeout=60) as client:
        for low, high, prefix, keys in (
            (10, 100, b"small", 1 << 30),
            (20_000, 60_000, b"large", 1 << 30),
            (300_000, 900_000, b"huge", 1 << 30),
            (10, 100, b"again", 1 << 30),
            (10, 200_000, b"mixed", 500),
            (1000, 1100, b"same", 1 << 30),
        ):
            store(client, source, 2 * mib * MIB, low, high, prefix, keys)
            peak = max(peak, server.rss())
            assert server.rss() <= allowed(mib), f"after {prefix.decode()}: {server.rss() / MIB:.0f} MiB for -m {mib}"
            assert int(client.stats()["bytes"]) <= mib * MIB
        assert peak > mib * MIB // 2, "the limit was never reached"


@pytest.mark.ours
def test_a_limit_of_1_mib_is_honoured(start):
    server = start("-m 1 -I 64k -t 1")
    with server.client(timeout=30) as client:
        store(client, random.Random(1), 20 * MIB, 100, 2000, b"k", 1 << 30)
        assert server.rss() <= allowed(1)
        assert int(client.stats()["curr_items"]) > 100


@pytest.mark.ours
def test_overwrites_do_not_grow(start):
    server = start("-m 64 -t 2")
    source = random.Random(2)
    with server.client(timeout=30) as client:
        for _ in range(6):
            store(client, source, 64 * MIB, 1, 4000, b"fixed", 2000)
            assert client.stats()["evictions"] == "0"
            assert int(client.stats()["curr_items"]) <= 2000
        assert server.rss() <= allowed(64)


@pytest.mark.ours
def test_shrinking_the_limit_gives_memory_back_to_the_system(start):
    # Nothing is refused here: a machine that is slow to hand out memory makes what is piped to the node wait for long.
    server = start("-m 256 -t 2 --overload-target=0")
    with server.client(timeout=60) as client:
        store(client, random.Random(3), 300 * MIB, 500, 3000, b"k", 1 << 30)
        rows = client.stats()
        assert server.rss() > 200 * MIB, {name: rows[name] for name in ("bytes", "curr_items", "evictions", "cmd_set")}
        assert client.ask("cache_memlimit 32") == "OK"
        deadline = time.monotonic() + 15
        while server.rss() > allowed(32) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert server.rss() <= allowed(32)


def test_10_000_idle_connections_cost_under_2_kib_each(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 10_000
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        pytest.skip(f"the hard limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    server = start(f"-m 64 -t 2 -c {count + 200}")
    with server.client() as client:
        client.set("k", b"v")
        before, lines = server.rss(), []
        try:
            for _ in range(count):
                lines.append(server.connect())
            deadline = time.monotonic() + 20
            while int(client.stats()["curr_connections"]) < count and time.monotonic() < deadline:
                time.sleep(0.05)
            assert int(client.stats()["curr_connections"]) >= count
            untouched = (server.rss() - before) / count
            for line in lines:
                line.sendall(b"get k\r\n")
            for line in lines:
                assert line.recv(100).startswith(b"VALUE k 0 1")
            used = (server.rss() - before) / count
            assert untouched < 2048, f"{untouched:.0f} bytes each"
            assert used < 2048 + 512, f"{used:.0f} bytes each after one command"
        finally:
            for line in lines:
                line.close()
