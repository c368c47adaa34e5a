# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Keys of any bytes, and what real memcacheds make of commands with them: nothing of a client's becomes a command that
it did not send, and no other client gets a reply that is not its own."""

import base64
import signal
import struct
import threading
import time

import pytest

from .bed import FakeServer, lines
from .test_routes import binary, packet

# Commands in a key, and what they would do.
HOSTILE = b"x\r\nset victim 0 0 3\r\nBIN\r\nget y"
KEYS = [HOSTILE, b"a b", b"a\tb", b"a\0b", b"a\nb", b" " * 186]
# Longer than base64 in a command can be.
LONG = b"x\r\nset victim 0 0 3\r\nBIN\r\nget " + b"y" * 200
STORE = struct.pack("!II", 7, 0)
HANDLES = {
    "warmUp": {"warmUp": {"cold": "a", "warm": "b"}, "ttl": "100s"},
    "warmUpAsking": {"warmUp": {"cold": "a", "warm": "b"}},
    "twoLevels": {"twoLevels": {"l1": "a", "l2": "b"}, "ttl": "100s"},
    "sizeSplit": {"sizeSplit": {"l1": "a", "l2": "b"}, "threshold": 1000},
    "bigValue": {"bigValue": "a", "threshold": 1000},
    "modifyKey": {"modifyKey": "a", "prefix": "ns:"},
    "modifyTTL": {"modifyTTL": "a", "atMost": "100s"},
    "failover": {"failover": ["a", "b"], "ttl": "10s"},
    "allSync": {"allSync": ["a", "b"]},
    "missFailover": {"missFailover": ["a", "b"]},
    "keySplit": {"keySplit": "a", "replicas": 3},
}


@pytest.fixture
def pair(start, memcached):
    """Real memcacheds."""
    return [start("-m 64 -t 1", command=memcached) for _ in range(2)]


def coded(key):
    return base64.b64encode(key).decode()


def speak(client, *packets):
    """The status and the body of the reply to each packet."""
    replies = []
    for one in packets:
        client.send(one)
        _, said, _, body = packet(client)
        replies.append((said, body))
    return replies


def status(client, *packets):
    return [reply[0] for reply in speak(client, *packets)]


def has_victim(servers):
    for server in servers:
        with server.client() as one:
            if any(one.get(name) is not None for name in ("victim", "ns:victim")):
                return True
    return False


@pytest.mark.parametrize("handle", HANDLES)
def test_no_part_of_a_key_is_a_command(routed, pair, handle):
    router = routed({"route": HANDLES[handle]}, "--upstream-timeout=2s")
    for key in [*KEYS, LONG]:
        for size in (5, 1500):
            value = b"v" * size
            with router.client() as one:
                said = status(one, binary(0x01, key, STORE, value), binary(0x00, key), binary(0x0C, key))
                if len(key) < 180 or handle not in ("sizeSplit", "bigValue") or size == 5:
                    assert said[0] == 0, (key, size, said)
                    assert said[1] in (0, 1), (key, size, said)
                status(one, binary(0x04, key), binary(0x00, key), binary(0x1C, key, struct.pack("!I", 60)))
        if len(key) > 186:
            continue
        with router.client() as one:
            name = coded(key)
            # A prefix makes it longer than a command can say it.
            if handle in ("modifyKey", "keySplit", "sizeSplit", "bigValue") and len(name) > 230:
                continue
            one.send(f"mg {name} b v c N30\r\nmn\r\n")
            assert one.line().startswith(("EN", "VA 0")), key
            while one.line() != "MN":
                pass
            for size in (5, 1500):
                assert one.ask(f"ms {name} {size} b\r\n" + "v" * size) == "HD", (key, size)
                assert one.ask(f"mg {name} b v k").startswith(f"VA {size} k{name} b"), (key, size)
                assert one.line() == "v" * size
            assert one.ask(f"md {name} b") == "HD", key
            assert one.ask("mn") == "MN"
    assert not has_victim(pair)


def test_innocent_clients_get_their_own_replies(routed, pair):
    router = routed({"route": HANDLES["warmUp"]})
    with pair[1].client() as warm:
        assert warm.set("secret", "SECRET") == "STORED"
    over, wrong = threading.Event(), []

    def look():
        with router.client() as one:
            while not over.is_set():
                said = one.ask("get n")
                if said != "END":
                    wrong.append(said)
                    return

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        with router.client() as one:
            for _ in range(300):
                assert status(one, binary(0x00, b"x\r\nget secret\r\nget secret\r\nget y")) == [1]
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert not wrong


def test_what_a_cold_pool_misses_is_copied_under_any_key(routed, pair):
    for handle in ("warmUp", "warmUpAsking", "twoLevels"):
        router = routed({"route": HANDLES[handle]})
        with router.client() as one, pair[0].client() as cold, pair[1].client() as warm:
            for key in KEYS:
                key = key[:150] + handle.encode()
                assert status(warm, binary(0x01, key, struct.pack("!II", 7, 500), b"warm")) == [0]
                assert speak(one, binary(0x00, key)) == [(0, struct.pack("!I", 7) + b"warm")]
                deadline = time.monotonic() + 5
                while speak(cold, binary(0x00, key)) != [(0, struct.pack("!I", 7) + b"warm")]:
                    assert time.monotonic() < deadline, key
                    time.sleep(0.02)


def test_a_value_is_never_read_as_commands(routed, pair):
    for handle in ("modifyKey", "modifyTTL", "allSync", "failover"):
        router = routed({"route": HANDLES[handle]}, "--upstream-timeout=300ms")
        if handle == "failover":
            pair[0].signal(signal.SIGSTOP)
        try:
            with router.client() as one:
                for key in ("a\tb", "a\x7fb", "a\rb", "a\x0bb"):
                    value = "set victim 0 0 5\r\nOWNED"
                    assert one.ask(f"ms {key} {len(value)}\r\n{value}") == "HD", (handle, key)
                    assert one.ask(f"mg {key} v O1\t2 k") == f"VA {len(value)} O1\t2 k{key}", (handle, key)
                    assert [one.line(), one.line()] == value.split("\r\n")
                # memcached 1.6.18 reads a line to a NUL, and then the value as commands.
                for command in ("set a\0b 0 0 23", "cas a\0b 0 0 23 1", "ms a\0b 23"):
                    assert one.ask(f"{command}\r\nset victim 0 0 5\r\nOWNED").startswith("CLIENT_ERROR")
                assert one.ask("mn") == "MN"
        finally:
            pair[0].signal(signal.SIGCONT)
        assert not has_victim(pair), handle


def test_a_router_without_routes_refuses_what_a_server_would_mistake(route, pair):
    router = route(pair[:1])
    with router.client() as one, router.client() as raw, pair[0].client() as direct:
        for command in ("set a\0b 0 0 23", "ms a\0b 23"):
            assert one.ask(f"{command}\r\nset victim 0 0 5\r\nOWNED").startswith("CLIENT_ERROR")
        assert direct.get("victim") is None
        # Some memcacheds give a key that a binary client stored as it is: with a line end in it, that is two replies.
        key = b"x\r\nHD\r\ny"
        assert status(raw, binary(0x01, key, STORE, b"hi")) == [0]
        name = coded(key)
        assert one.ask(f"mg {name} b k v f") == f"VA 2 f7 k{name} b" and one.line() == "hi"
        assert one.ask(f"mg {name} b k q") == f"HD k{name} b"
        assert one.ask(f"me {name} b x").startswith("CLIENT_ERROR")
        assert one.ask("mn") == "MN" and direct.get("victim") is None


def test_me_says_the_key_as_it_was_asked_for(routed, pair):
    router = routed({"route": HANDLES["modifyKey"]})
    with router.client() as one, router.client() as raw:
        for key in ("a b", "a\tb"):
            assert status(raw, binary(0x01, key.encode(), STORE, b"hi")) == [0]
            name = coded(key.encode())
            assert one.ask(f"ms {name} 2 b\r\nhi") == "HD"
            assert one.ask(f"me {name} b x").startswith(f"ME {name} exp=")
        assert one.ask("me !!!! b x") == "CLIENT_ERROR bad command line format"
        assert one.ask("mn") == "MN"


def test_a_long_key_that_a_server_missed_the_delete_of_is_gone(route, pair, tmp_path):
    router = route(
        pair[:1], f"--spool-directory={tmp_path / 'spool'} --upstream-timeout=200ms --health-first-probe=50ms -t 1")
    keys = [b"k %d " % size + b"x" * (size - 10) for size in (20, 110, 210, 250)] + [LONG]
    with router.client() as one, pair[0].client() as direct:
        for key in keys:
            assert status(one, binary(0x01, key, STORE, b"old")) == [0]
        pair[0].signal(signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 10
            while status(one, binary(0x00, b"k")) == [1]:
                assert time.monotonic() < deadline
            for key in keys:
                assert status(one, binary(0x04, key)) == [1], "it is kept"
        finally:
            pair[0].signal(signal.SIGCONT)
        deadline = time.monotonic() + 15
        while status(direct, *(binary(0x00, key) for key in keys)) != [1] * len(keys):
            assert time.monotonic() < deadline, "the server has some yet"
            time.sleep(0.05)
        while status(one, *(binary(0x00, key) for key in keys)) != [1] * len(keys):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not has_victim(pair)


def test_a_delete_that_a_server_refuses_is_not_done(route, tmp_path):
    seen = []

    def talk(connection):
        for line in lines(connection):
            if line.startswith((b"version", b"mn")):
                connection.sendall(b"VERSION 1.6.18\r\n" if line.startswith(b"version") else b"MN\r\n")
            elif line.startswith(b"delete"):
                seen.append(line)
                words = [b"SERVER_ERROR out of memory\r\n", b"CLIENT_ERROR bad command line format\r\n"]
                connection.sendall((words + [b"DELETED\r\n"])[min(len(seen), 3) - 1])
            else:
                connection.sendall(b"END\r\n")

    with FakeServer(talk) as server:
        router = route(
            [f"127.0.0.1:{server.port}"], f"--spool-directory={tmp_path / 'spool'} --health-first-probe=50ms -t 1")
        with router.client() as one:
            assert one.ask("delete k") == "NOT_FOUND", "it is kept"
            deadline = time.monotonic() + 10
            while "missed_deletes:0" not in one.stats("servers")[f"127.0.0.1:{server.port}"]:
                assert time.monotonic() < deadline, seen
                time.sleep(0.05)
    assert len(seen) == 3


def seconds_left(client, key):
    return int(client.ask(f"mg {key} t").split("t")[1])


def test_times_of_more_than_a_month_are_not_over_at_once(routed, pair):
    month, long = 30 * 86_400, 60 * 86_400
    router = routed({"route": {"prefixes": {
        "w:": HANDLES["warmUpAsking"], "f:": {"warmUp": {"cold": "a", "warm": "b"}, "ttl": "60d"},
        "t:": {"twoLevels": {"l1": "a", "l2": "b"}, "ttl": "60d"}, "s:": {"modifyTTL": "a", "set": "60d"},
        "m:": {"modifyTTL": "a", "atMost": "100s"}, "l:": {"modifyTTL": "a", "atMost": "60d"},
    }, "otherwise": "a"}})  # fmt: skip
    now = int(time.time())
    with router.client() as one, pair[0].client() as a, pair[1].client() as b:
        for name in ("w:k", "f:k", "t:k"):
            b.set(name, "v", exptime=now + long)
            b.set(name + "s", "v", exptime=now + long)
            assert one.get(name) == b"v"
            assert one.get(name + "s", "gets") == b"v"
            for each in (name, name + "s"):
                deadline = time.monotonic() + 5
                while a.get(each) is None:
                    assert time.monotonic() < deadline, each
                    time.sleep(0.02)
                assert long - 60 < seconds_left(a, each) <= long + 60, each
        for name in ("s:k", "l:k"):
            assert one.set(name, "v", exptime=0) == "STORED"
            assert one.ask(f"ms {name}m 1\r\nv") == "HD"
            assert long - 60 < seconds_left(a, name) <= long + 60 and seconds_left(a, name + "m") > month
        for exptime, least, most in ((now + 6, 1, 6), (now + 1000, 90, 100), (0, 90, 100), (7, 5, 7), (1000, 90, 100)):
            assert one.set("m:k", "v", exptime=exptime) == "STORED"
            assert least <= seconds_left(a, "m:k") <= most, exptime


def test_leases_of_real_servers_go_past_the_first_pool(routed, pair):
    router = routed({"route": {"prefixes": {
        "w:": HANDLES["warmUp"], "v:": HANDLES["warmUpAsking"], "m:": HANDLES["missFailover"],
        "t:": {"twoLevels": {"l1": "a", "l2": "b"}, "ttl": "100s"},
    }, "otherwise": "a"}})  # fmt: skip
    with router.client() as one, pair[0].client() as a, pair[1].client() as b:
        for name in ("w:k", "v:k", "m:k", "t:k"):
            assert b.set(name, "hi", exptime=500) == "STORED"
            assert one.ask(f"mg {name} v N30").startswith("VA 2") and one.line() == "hi", name
            if name == "m:k":
                continue
            deadline = time.monotonic() + 5
            while a.get(name) != b"hi":
                assert time.monotonic() < deadline, name
                time.sleep(0.02)
        for name in ("w:n", "v:n", "m:n", "t:n"):
            # The client gets the lease of the first, and stores with it.
            said = one.ask(f"mg {name} v c N30 q").split()
            assert said[:2] == ["VA", "0"] and said[-1] == "W" and one.line() == "", name
            token = next(word for word in said if word.startswith("c"))[1:]
            assert one.ask(f"ms {name} 3 C{token}\r\nnew") == "HD", name
            assert a.get(name) == b"new"


def test_what_a_value_that_is_too_large_should_have_replaced_is_gone(route, start, memcached):
    servers = [start("-m 64 -t 1 -I 4m", command=memcached) for _ in range(2)]
    router = route(servers, "--limits-value=1m")
    with router.client() as one:
        limit = 1 << 20
        for command in ("set {} 0 0 {}", "ms {} {}"):
            assert one.set("k", "old") == "STORED"
            size = 2 * limit
            one.send(command.format("k", size) + "\r\n" + "v" * size + "\r\n")
            assert "too large" in one.line()
            assert one.get("k") is None
        assert one.set("k", "old") == "STORED"
        one.send(f"add k 0 0 {size}\r\n" + "v" * size + "\r\n")
        assert "too large" in one.line() and one.get("k") == b"old"


def test_what_is_no_reply_breaks_the_connection_and_reaches_nobody(route):
    def talk(connection):
        for line in lines(connection):
            if line.startswith(b"get bad"):
                connection.sendall(b"\xff\xfe\r\n")
            elif line.startswith(b"get "):
                connection.sendall(b"END\r\n")
            else:
                connection.sendall(b"VERSION 1.6.18\r\n")

    with FakeServer(talk) as server:
        router = route([f"127.0.0.1:{server.port}"], "-t 1")
        with router.client() as one:
            assert one.get("good") is None
            before = server.connections
            assert one.ask("get bad") == "SERVER_ERROR remote error"
            deadline = time.monotonic() + 5
            while one.ask("get good") != "END":
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert server.connections > before
