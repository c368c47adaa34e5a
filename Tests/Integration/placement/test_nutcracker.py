# Martlet
# SPDX-License-Identifier: Apache-2.0
"""twemproxy and our module agree on the owner of every key: a real nutcracker is asked, and who got it is noted."""

import shutil

import pytest

from .nutcracker import Backend, Nutcracker
from .ours import PROGRAM, differences, keys, meeting, owners

pytestmark = [
    pytest.mark.skipif(not PROGRAM.exists(), reason=f"no {PROGRAM}: swift build -c release --product placement"),
    pytest.mark.skipif(not shutil.which("nutcracker"), reason="no nutcracker: Scripts/install-dependencies test"),
]

WEIGHTS = [1, 3, 1, 2, 10, 1, 1]
HASHES = [
    "one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32", "hsieh", "murmur",
    "jenkins",
]


@pytest.fixture(scope="module")
def names():
    return keys()


@pytest.fixture(scope="module")
def backends():
    running = [Backend() for _ in WEIGHTS]
    yield running
    for backend in running:
        backend.stop()


@pytest.fixture
def nutcracker(tmp_path):
    running = []

    def begin(*arguments, **options):
        running.append(Nutcracker(tmp_path, *arguments, **options))
        return running[-1]

    yield begin
    for one in running:
        one.stop()


def described(backends, weights=None, aliases=None):
    """The backends as a configuration has them."""
    servers = [(one.host, one.port, weight) for one, weight in zip(backends, weights or [1] * len(backends))]
    return [(*server, alias) for server, alias in zip(servers, aliases)] if aliases else servers


ALIASES = ["cache-b", "cache-10", "cache-a", "z", "cache-1", "cache-2", "yy"]


@pytest.mark.parametrize("distribution, hash_name, weights, aliases", [
    ("ketama", "fnv1a_64", None, None), ("ketama", "fnv1a_64", WEIGHTS, None), ("ketama", "md5", WEIGHTS, ALIASES),
    ("modula", "fnv1a_64", None, None), ("modula", "crc32a", WEIGHTS, ALIASES),
], ids=["ketama", "ketama-weighted", "ketama-aliases", "modula", "modula-weighted-aliases"])
def test_nutcracker(names, backends, nutcracker, distribution, hash_name, weights, aliases):
    servers = described(backends, weights, aliases)
    scheme = {"ketama": "ketama:twemproxy", "modula": "twemproxy-modula"}[distribution]
    all_names = names + meeting(servers)
    theirs = nutcracker(backends, servers, distribution, hash_name).owners(all_names)
    assert not differences(all_names, theirs, owners(f"{scheme}:{hash_name}", servers, all_names))


@pytest.mark.parametrize("hash_name", HASHES)
def test_nutcracker_with_every_hash(names, backends, nutcracker, hash_name):
    servers = described(backends, WEIGHTS, ALIASES)
    some = names[:5_000] + [f"café:{number}" for number in range(50)]
    theirs = nutcracker(backends, servers, "modula", hash_name).owners(some)
    assert not differences(some, theirs, owners(f"twemproxy-modula:{hash_name}", servers, some))


def test_nutcracker_with_hash_tags(backends, nutcracker):
    servers = described(backends, WEIGHTS)
    some = [f"{{user{number // 3}}}:{number}" for number in range(3_000)]
    some += [f"{{}}{number}" for number in range(200)] + [f"a}}{{b{number}" for number in range(200)]
    some += [f"x{{y{number}}}{{z}}" for number in range(200)] + [f"{{{{n{number}}}}}" for number in range(200)]
    theirs = nutcracker(backends, servers, "ketama", "fnv1a_64", tag="{}").owners(some)
    assert not differences(some, theirs, owners("ketama:twemproxy:fnv1a_64", servers, some, "tag:{}"))
    assert all(len(set(theirs[first:first + 3])) == 1 for first in range(0, 3_000, 3))


def test_nutcracker_before_unix_sockets(names, tmp_path_factory, nutcracker):
    directory = tmp_path_factory.mktemp("s")
    sockets = [Backend(directory / f"{name}.sock") for name in ("a", "bb", "c")]
    try:
        servers = described(sockets, [1, 2, 1])
        some = names[:20_000]
        theirs = nutcracker(sockets, servers, "ketama", "fnv1a_64").owners(some)
        assert not differences(some, theirs, owners("ketama:twemproxy:fnv1a_64", servers, some))
    finally:
        for one in sockets:
            one.stop()
