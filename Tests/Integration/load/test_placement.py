# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Whose a key is for a script's client is whose it is for libmemcached, and for MartletClient."""

import json

import pylibmc
import pytest

from client.probe import Probe
from placement.nutcracker import Backend

from .runner import Run

pytestmark = pytest.mark.ours

KEYS = [f"user:{number}:{word}" for number in range(150) for word in ("name", "cart")]


@pytest.fixture
def backends():
    all = [Backend() for _ in range(5)]
    yield all
    for one in all:
        one.stop()


def names(backends):
    return [f"127.0.0.1:{one.port}" for one in backends]


@pytest.mark.parametrize("scheme, behaviors", [
    ("ketama", {"ketama_weighted": True}), ("modulo", {}), ("", {"ketama_weighted": True}),
])
@pytest.mark.parametrize("asks", ["for (const key of keys) await client.get(key);", "await client.mget(keys);"])
def test_scripts_agree_with_libmemcached(backends, scheme, behaviors, asks):
    option = f"{{ hash: '{scheme}' }}" if scheme else "{}"
    done = Run(
        "--server", ",".join(names(backends)), name="s.js",
        file=f"import memcached from 'k6/x/memcached';\nconst client = new memcached.Client({option});\n"
        f"const keys = {json.dumps(KEYS)};\nexport default async function () {{ {asks} }}")
    assert done.code == 0 and done.figure("memcached_req_failed", "passes") == 0, done
    theirs = pylibmc.Client(names(backends), behaviors=behaviors)
    for key in KEYS:
        owners = [index for index, one in enumerate(backends) if key in one.keys]
        assert owners == [theirs.hash(key)], key


def test_the_swift_client_agrees_with_libmemcached(backends):
    found = Probe("owners", names(backends), "--placement", "ketama", "--keys", 400).json()
    theirs = pylibmc.Client(names(backends), behaviors={"ketama_weighted": True})
    assert found["owners"] == [names(backends)[theirs.hash(f"key:{number}")] for number in range(400)]
    assert len(set(found["owners"])) == 5
