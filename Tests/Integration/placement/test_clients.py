# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Clients that hash for themselves and our module agree on the owner of every key."""

import pylibmc
import pytest
import uhashring
from pymemcache.client.hash import HashClient

from .ours import PROGRAM, differences, fleets, keys, meeting, owners

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason=f"no {PROGRAM}: swift build -c release --product placement")

# Some with memcached's own port, which ketama leaves out of names, and some without.
PLAIN = [(f"10.0.{number // 3}.{number}", 11211 + number % 2, 1) for number in range(9)]
WEIGHTED = [(host, port, weight) for (host, port, _), weight in zip(PLAIN, [1, 2, 3, 1, 5, 8, 2, 100, 1])]


@pytest.fixture(scope="module")
def names():
    return keys() + meeting(PLAIN)


def libmemcached(servers, names, **behaviors):
    """pylibmc's `hash` is libmemcached's memcached_generate_hash: the server that a key's requests go to."""
    addresses = [f"{host}:{port}:{weight}" for host, port, weight in servers]
    client = pylibmc.Client(addresses, behaviors=behaviors)
    return [client.hash(name) for name in names]


@pytest.mark.parametrize("servers, behaviors, scheme", [
    (PLAIN, {"ketama": True}, "ketama:libmemcached:one_at_a_time"),
    (PLAIN, {"ketama": True, "hash": "md5"}, "ketama:libmemcached:md5"),
    (PLAIN, {"ketama_weighted": True}, "ketama:libmemcached-weighted:md5"),
    (WEIGHTED, {"ketama_weighted": True}, "ketama:libmemcached-weighted:md5"),
    (PLAIN[:1], {"ketama_weighted": True}, "ketama:libmemcached-weighted:md5"),
    (PLAIN[:2], {"ketama": True}, "ketama:libmemcached:one_at_a_time"),
], ids=["unweighted", "unweighted-md5", "weighted-of-equal-weights", "weighted", "one-server", "two-servers"])
def test_pylibmc(names, servers, behaviors, scheme):
    assert not differences(names, libmemcached(servers, names, **behaviors), owners(scheme, servers, names))


def test_pylibmc_with_fleets_of_any_weights(names):
    for servers in fleets(60):
        theirs = libmemcached(servers, names[:3_000], ketama_weighted=True)
        ours = owners("ketama:libmemcached-weighted:md5", servers, names[:3_000])
        assert not differences(names[:3_000], theirs, ours), servers


@pytest.mark.parametrize("hash_name", ["crc", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32", "murmur", "default"])
@pytest.mark.parametrize("distribution", ["modula", "consistent ketama"])
def test_pylibmc_with_other_hashes(names, hash_name, distribution):
    ours = {"crc": "crc32", "default": "one_at_a_time"}.get(hash_name, hash_name)
    scheme = {"modula": "modulo", "consistent ketama": "ketama:libmemcached"}[distribution]
    some = names[:10_000] + ["café", "ключ", "鍵:1"]
    theirs = libmemcached(PLAIN, some, hash=hash_name, distribution=distribution)
    assert not differences(some, theirs, owners(f"{scheme}:{ours}", PLAIN, some))


def test_pylibmc_sends_keys_where_its_hash_says(start):
    """So that the tests above are about requests and not about a function."""
    nodes = [start("-m 64") for _ in range(3)]
    servers = [("127.0.0.1", node.port, weight) for node, weight in zip(nodes, [1, 2, 3])]
    client = pylibmc.Client(
        [f"{host}:{port}:{weight}" for host, port, weight in servers], behaviors={"ketama_weighted": True})
    some = [f"key{number}" for number in range(500)]
    assert client.set_multi({name: "1" for name in some}) == []
    theirs = []
    direct = [pylibmc.Client([f"{host}:{port}"]) for host, port, _ in servers]
    held = [one.get_multi(some) for one in direct]
    for name in some:
        there = [index for index, found in enumerate(held) if name in found]
        assert len(there) == 1
        theirs += there
    assert not differences(some, theirs, owners("ketama:libmemcached-weighted:md5", servers, some))


@pytest.mark.parametrize("servers", [PLAIN, PLAIN[:1], PLAIN[::-1]], ids=["nine", "one", "reversed"])
def test_pymemcache(names, servers):
    """HashClient says which of its clients a key goes to without a connection."""
    client = HashClient([(host, port) for host, port, _ in servers])
    places = {(host, port): index for index, (host, port, _) in enumerate(servers)}
    theirs = [places[client._get_client(name).server] for name in names]
    assert not differences(names, theirs, owners("pymemcache", servers, names))


@pytest.mark.parametrize("servers", [PLAIN, WEIGHTED], ids=["plain", "weighted"])
@pytest.mark.parametrize("function, scheme", [
    ("ketama", "ketama:uhashring-ketama:md5"), (None, "ketama:uhashring:md5")], ids=["ketama", "default"])
def test_uhashring(names, servers, function, scheme):
    places = {f"{host}:{port}": index for index, (host, port, _) in enumerate(servers)}
    weights = {f"{host}:{port}": {"weight": weight} for host, port, weight in servers}
    ring = uhashring.HashRing(nodes=weights, hash_fn=function)
    theirs = [places[ring.get_node(name)] for name in names]
    assert not differences(names, theirs, owners(scheme, servers, names))


def test_uhashring_with_fleets_of_any_weights(names):
    for servers in fleets(10):
        places = {f"{host}:{port}": index for index, (host, port, _) in enumerate(servers)}
        weights = {f"{host}:{port}": {"weight": weight} for host, port, weight in servers}
        ring = uhashring.HashRing(nodes=weights, hash_fn="ketama")
        theirs = [places[ring.get_node(name)] for name in names[:3_000]]
        ours = owners("ketama:uhashring-ketama:md5", servers, names[:3_000])
        assert not differences(names[:3_000], theirs, ours), servers


def test_pymemcache_with_uhashring(names):
    """pymemcache takes another hasher: the ketama of both together."""

    class Ring:
        def __init__(self):
            self.ring = uhashring.HashRing(hash_fn="ketama")

        def add_node(self, node):
            self.ring.add_node(node)

        def get_node(self, key):
            return self.ring.get_node(key)

    client = HashClient([(host, port) for host, port, _ in PLAIN], hasher=Ring)
    places = {(host, port): index for index, (host, port, _) in enumerate(PLAIN)}
    some = names[:20_000]
    theirs = [places[client._get_client(name).server] for name in some]
    assert not differences(some, theirs, owners("ketama:uhashring-ketama:md5", PLAIN, some))
