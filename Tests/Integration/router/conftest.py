# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a router in front of nodes that run for the tests of a module, and routers of a test's own."""

import json
import os
import shutil

import pytest
from bed import Server
from bed.server import ROOT

from .bed import Router, default_router


@pytest.fixture(autouse=True)
def only_with_a_router(original):
    if original:
        pytest.skip("a memcached has no router")
    program = default_router()
    if not (os.path.exists(program) or shutil.which(program)):
        pytest.fail(f"no router to test at {program}: run `make build`, or set MARTLET_ROUTER")


@pytest.fixture(scope="module")
def nodes():
    """Three nodes for the tests of a module."""
    with Server("-m 256 -t 1 -I 32m") as one, Server("-m 256 -t 1 -I 32m") as two, Server("-m 256 -t 1 -I 32m") as three:
        yield [one, two, three]


@pytest.fixture(scope="module")
def router(nodes):
    """A router in front of those three."""
    with Router(nodes) as one:
        yield one


@pytest.fixture
def client(router):
    with router.client() as one:
        yield one


@pytest.fixture
def route():
    """Starts routers that end with the test."""
    running = []

    def begin(*arguments, **options):
        router = Router(*arguments, **options)
        running.append(router)
        return router

    yield begin
    for router in running:
        router.stop()


@pytest.fixture
def fleet(monkeypatch):
    """What other tests start as "the server" is a router and three nodes."""
    command = str(ROOT / "Tests/Integration/router/fleet.py")
    monkeypatch.setenv("MARTLET_NODE", os.environ.get("MARTLET_SERVER") or str(ROOT / ".build/release/martlet-server"))
    monkeypatch.setenv("MARTLET_SERVER", command)
    return command


@pytest.fixture
def pair(start):
    return [start("-m 64 -t 1") for _ in range(2)]


@pytest.fixture
def routed(route, tmp_path, pair):
    """Starts a router with these routes; `a` and `b` are pools of one node each, `both` has the two."""

    def begin(text, flags="", **pools):
        document = {
            "pools": {
                "a": {"servers": [f"127.0.0.1:{pair[0].port}"]},
                "b": {"servers": [f"127.0.0.1:{pair[1].port}"]},
                "both": {"servers": [f"127.0.0.1:{node.port}" for node in pair]},
                **pools,
            },
            **text,
        }
        file = tmp_path / "routes.yaml"
        file.write_text(json.dumps(document))
        return route((), f"--config {file} -t 1 {flags}")

    return begin
