# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What client libraries see of a node that refuses: each in each way of refusing, with a store and a get.

The library's connection is of the class `background`, and others ask five times what the node can do, so that most of
what it asks is refused. docs/overload.md has the table.
"""

import collections
import multiprocessing
import time
from types import SimpleNamespace

import pytest

from bed import Server, free_port
from overload.openloop import Source, run

pytestmark = pytest.mark.ours
SERVICE = 0.0005
SERVED = "served"


class Pymemcache:
    def __init__(self, port):
        from pymemcache.client.base import Client

        self.client = Client(("127.0.0.1", port), connect_timeout=5, timeout=5, default_noreply=False)

    def get(self):
        return self.client.get("k")

    def set(self):
        return self.client.set("k", b"x")

    def many(self):
        return self.client.get_many(["k", "l"])


class Pylibmc:
    binary = False

    def __init__(self, port):
        import pylibmc

        self.client = pylibmc.Client([f"127.0.0.1:{port}"], binary=self.binary, behaviors={"receive_timeout": 5_000_000})

    def get(self):
        return self.client.get("k")

    def set(self):
        return self.client.set("k", b"x")

    def many(self):
        return self.client.get_multi(["k", "l"])


class PylibmcBinary(Pylibmc):
    binary = True


class PythonBinaryMemcached:
    def __init__(self, port):
        import bmemcached

        self.client = bmemcached.Client((f"127.0.0.1:{port}",), socket_timeout=5)

    def get(self):
        return self.client.get("k")

    def set(self):
        return self.client.set("k", b"x")

    def many(self):
        return self.client.get_multi(["k", "l"])


def seen(call, good):
    """What a call came to, in a word or two."""
    try:
        value = call()
    except Exception as error:  # pylint: disable=broad-except
        return type(error).__name__
    return SERVED if value == good else repr(value)


def _flood(port, seconds):
    run(port, [Source(b"mg k s\r\n", 5 / SERVICE, 10)], seconds, 1)


@pytest.fixture
def busy(tmp_path, request):
    """A node: clients at `port` are refused."""
    port, low = free_port(), free_port()
    file = tmp_path / "node.yaml"
    file.write_text(f"overload: {{listeners: [{{tag: low, class: background, reply: {request.param}}}]}}\n")
    arguments = ["-l", f"127.0.0.1:{port},tag[low]:127.0.0.1:{low}", "-t", "1", "--config", str(file)]
    arguments += ["--overload-target", "5ms", "--overload-test-service-time", "500us"]
    server = Server(arguments, listen=False, wait=("127.0.0.1", port))
    with server.client() as client:
        for key in "kl":
            assert client.set(key, b"x") == "STORED"
    load = multiprocessing.Process(target=_flood, args=(port, 30), daemon=True)
    load.start()
    yield SimpleNamespace(port=low, server=server)
    load.kill()
    load.join()
    server.stop()


# What each library makes of a refused get, get of several, and set, and whether it keeps its connection.
EXPECTED = {
    ("busy", Pymemcache): ("MemcacheServerError", "MemcacheServerError", "MemcacheServerError", False),
    ("busy", Pylibmc): ("None", "{}", "ServerError", False),
    ("busy", PylibmcBinary): ("None", "{}", "UnknownReadFailure", False),
    ("busy", PythonBinaryMemcached): (*("MemcachedException",) * 3, True),
    ("oom", Pymemcache): ("MemcacheServerError", "MemcacheServerError", "MemcacheServerError", False),
    ("oom", Pylibmc): ("None", "{}", "Error", True),
    ("oom", PylibmcBinary): ("None", "{}", "False", False),
    ("oom", PythonBinaryMemcached): (*("MemcachedException",) * 3, True),
    ("miss", Pymemcache): ("None", "{}", "MemcacheServerError", False),
    ("miss", Pylibmc): ("None", "{}", "Error", True),
    ("miss", PylibmcBinary): ("None", "{}", "False", False),
    ("miss", PythonBinaryMemcached): ("None", "{}", "MemcachedException", True),
}


@pytest.mark.parametrize("busy", ["busy", "oom", "miss"], indirect=True)
def test_libraries(busy, request):
    reply = request.node.callspec.params["busy"]
    time.sleep(0.5)
    for library in (Pymemcache, Pylibmc, PylibmcBinary, PythonBinaryMemcached):
        with busy.server.client() as other:
            before = int(other.stats()["total_connections"])
        client = library(busy.port)
        for number, (name, good) in enumerate((("get", b"x"), ("many", {"k": b"x", "l": b"x"}), ("set", True))):
            outcomes = collections.Counter(seen(getattr(client, name), good) for _ in range(30))
            expected = EXPECTED[reply, library][number]
            assert outcomes[expected] >= 5 and not set(outcomes) - {expected, SERVED}, (library, name, outcomes)
        with busy.server.client() as other:
            opened = int(other.stats()["total_connections"]) - before - 1
        assert (opened == 1) == EXPECTED[reply, library][3], (library, opened)
