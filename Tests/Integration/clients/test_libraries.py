# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Runs of our own with client libraries whose suites cannot be had here: what their users do all day."""

import asyncio
import random
import string
import warnings

import aiomcache
import bmemcached
import emcache
import pylibmc
import pytest


def words(count, seed=1):
    source = random.Random(seed)
    return {
        "".join(source.choices(string.ascii_lowercase, k=12)) + str(i): source.randbytes(i % 700) for i in range(count)
    }


@pytest.fixture
def trio(start):
    return [start("-m 64"), start("-m 64"), start("-m 64")]


class TestPylibmc:
    """libmemcached, the C library under PHP's, Python's and Ruby's fast clients."""

    @pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
    def test_stores_and_fetches_every_type(self, server, binary):
        client = pylibmc.Client([f"127.0.0.1:{server.port}"], binary=binary)
        for value in (b"bytes", "text", 7, 2**70, 1.5, None, {"a": [1, 2]}, "é" * 500, b""):
            assert client.set("pylibmc-type", value)
            assert client.get("pylibmc-type") == value
        assert client.delete("pylibmc-type")
        assert client.get("pylibmc-type") is None

    @pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
    def test_ketama_spreads_keys_and_finds_them_again(self, trio, binary):
        addresses = [f"127.0.0.1:{node.port}" for node in trio]
        client = pylibmc.Client(addresses, binary=binary, behaviors={"ketama": True, "tcp_nodelay": True})
        items = words(600)
        assert client.set_multi(items) == []
        assert client.get_multi(list(items)) == items
        counts = [int(node.client().stats()["curr_items"]) for node in trio]
        assert sum(counts) == len(items)
        assert min(counts) > 60, counts
        again = pylibmc.Client(addresses, binary=binary, behaviors={"ketama_weighted": False, "ketama": True})
        assert again.get_multi(list(items)) == items
        client.delete_multi(list(items))
        assert sum(int(node.client().stats()["curr_items"]) for node in trio) == 0

    @pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
    def test_pipelines_without_waiting(self, server, binary):
        client = pylibmc.Client([f"127.0.0.1:{server.port}"], binary=binary)
        client.behaviors = {"no_block": True, "tcp_nodelay": True, "cas": not binary}
        items = words(2000, seed=2)
        client.set_multi(items)
        assert client.get_multi(list(items)) == items

    def test_gets_and_cas(self, server):
        client = pylibmc.Client([f"127.0.0.1:{server.port}"], behaviors={"cas": True})
        client.set("pylibmc-cas", "one")
        value, token = client.gets("pylibmc-cas")
        assert value == "one"
        assert client.cas("pylibmc-cas", "two", token)
        assert not client.cas("pylibmc-cas", "three", token)
        assert client.get("pylibmc-cas") == "two"

    @pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
    def test_counts_appends_and_touches(self, server, binary):
        client = pylibmc.Client([f"127.0.0.1:{server.port}"], binary=binary)
        client.delete("pylibmc-n")
        assert client.add("pylibmc-n", 10)
        assert not client.add("pylibmc-n", 11)
        assert client.incr("pylibmc-n", 5) == 15
        assert client.decr("pylibmc-n", 20) == 0
        client.set("pylibmc-a", "b")
        client.append("pylibmc-a", "c")
        client.prepend("pylibmc-a", "a")
        assert client.get("pylibmc-a") == "abc"
        assert client.replace("pylibmc-a", "d")
        assert client.touch("pylibmc-a", 100)
        with pytest.raises(pylibmc.NotFound):
            client.incr("pylibmc-none")

    def test_compression_and_large_values(self, server):
        client = pylibmc.Client([f"127.0.0.1:{server.port}"])
        text = "martlet " * 100_000
        assert client.set("pylibmc-big", text, min_compress_len=1000)
        assert client.get("pylibmc-big") == text
        with pytest.raises(pylibmc.TooBig):
            client.set("pylibmc-big", random.Random(1).randbytes(2 << 20))

    def test_stats_and_flush(self, server):
        client = pylibmc.Client([f"127.0.0.1:{server.port}"])
        client.set("pylibmc-f", 1)
        ((_, stats),) = client.get_stats()
        assert int(stats["curr_items"]) >= 1
        assert stats["version"].startswith(b"1.6.")
        client.flush_all()
        assert client.get("pylibmc-f") is None


class TestBinaryMemcached:
    def test_round_trips(self, server):
        client = bmemcached.Client([f"127.0.0.1:{server.port}"])
        items = {key: value.hex() for key, value in words(300, seed=3).items()}
        assert not client.set_multi(items)
        assert client.get_multi(list(items)) == items
        value, token = client.gets(next(iter(items)))
        assert client.cas(next(iter(items)), "new", token)
        assert not client.cas(next(iter(items)), "newer", token)
        assert client.incr("bmemcached-n", 1, default=5) == 5
        assert client.incr("bmemcached-n", 1) == 6
        assert client.decr("bmemcached-n", 10) == 0
        assert client.delete("bmemcached-n")
        (stats,) = client.stats().values()
        assert int(stats["curr_items"]) >= len(items)
        client.disconnect_all()

    def test_over_a_unix_socket(self, start, tmp_path):
        path = tmp_path / "node.sock"
        start("-m 64", unix=path)
        client = bmemcached.Client([str(path)])
        assert client.set("k", "v")
        assert client.get("k") == "v"
        client.disconnect_all()


class TestAiomcache:
    def run(self, port, body):
        async def go():
            client = aiomcache.Client("127.0.0.1", port, pool_size=4)
            try:
                await body(client)
            finally:
                await client.close()

        asyncio.run(go())

    def test_concurrent_commands(self, server):
        async def body(client):
            items = {key.encode(): value for key, value in words(400, seed=4).items()}
            assert all(await asyncio.gather(*(client.set(key, value) for key, value in items.items())))
            got = await client.multi_get(*items)
            assert got == tuple(items.values())
            assert await client.get(b"aiomcache-none", b"default") == b"default"

        self.run(server.port, body)

    def test_every_command(self, server):
        async def body(client):
            await client.delete(b"aio")
            assert await client.add(b"aio", b"1")
            assert not await client.add(b"aio", b"2")
            assert await client.replace(b"aio", b"5")
            assert await client.incr(b"aio", 3) == 8
            assert await client.decr(b"aio", 100) == 0
            assert await client.append(b"aio", b"9")
            assert await client.prepend(b"aio", b"1")
            value, token = await client.gets(b"aio")
            assert value == b"109"
            assert await client.cas(b"aio", b"new", token)
            assert not await client.cas(b"aio", b"newer", token)
            assert await client.touch(b"aio", 100)
            assert (await client.version()).startswith(b"1.6.")
            assert b"pid" in await client.stats()
            assert await client.flush_all() is None
            assert await client.get(b"aio") is None

        self.run(server.port, body)

    def test_errors_are_the_protocols(self, server):
        async def body(client):
            with pytest.raises(aiomcache.ValidationException):
                await client.set(b"bad key", b"x")
            with pytest.raises(aiomcache.ClientException):
                await client.set(b"aio-large", b"x" * (2 << 20))
            await client.set(b"aio-text", b"abc")
            with pytest.raises(aiomcache.ClientException):
                await client.incr(b"aio-text")

        self.run(server.port, body)


class TestEmcache:
    def test_pool_of_two_nodes(self, start):
        nodes = [start("-m 64"), start("-m 64")]

        async def go():
            hosts = [emcache.MemcachedHostAddress("127.0.0.1", node.port) for node in nodes]
            client = await emcache.create_client(hosts)
            items = {key.encode(): value for key, value in words(200, seed=5).items()}
            await asyncio.gather(*(client.set(key, value) for key, value in items.items()))
            got = await client.get_many(list(items))
            assert {key: item.value for key, item in got.items()} == items
            key = next(iter(items))
            token = (await client.gets(key)).cas
            await client.cas(key, b"new", token)
            with pytest.raises(emcache.StorageCommandError):
                await client.cas(key, b"newer", token)
            await client.set(b"emcache-n", b"5")
            assert await client.increment(b"emcache-n", 3) == 8
            await client.delete(b"emcache-n")
            assert await client.get(b"emcache-n") is None
            await client.close()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asyncio.run(go())
