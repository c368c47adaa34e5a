# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Routes with more than one server for a key: what they send where, what clients get, in all three protocols."""

import json
import os
import signal
import struct
import time

from .test_failures import halt


def binary(opcode, key=b"", extras=b"", value=b"", opaque=0, cas=0):
    body = extras + key + value
    return struct.pack("!BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, len(body), opaque, cas) + body


def packet(client):
    head = struct.unpack("!BBHBBHIIQ", client.read(24))
    return head[1], head[5], head[7], client.read(head[6])


def test_all_sync_writes_everywhere_and_says_the_worst(routed, pair):
    router = routed({"route": {"allSync": ["a", "b"]}})
    with router.client() as one, pair[0].client() as a, pair[1].client() as b:
        assert one.set("k", "v", flags=7) == "STORED"
        assert a.get("k") == b.get("k") == b"v"
        assert one.ask("ms m 2 F9 c k Oxy\r\nhi").startswith("HD c") and a.get("m") == b.get("m") == b"hi"
        assert one.ask("delete k") == "DELETED" and a.get("k") is None and b.get("k") is None
        a.set("half", "1")
        assert one.ask("delete half") == "NOT_FOUND"
        one.send("set q 0 0 1 noreply\r\nx\r\nmn\r\n")
        assert one.line() == "MN"
        assert a.get("q") == b.get("q") == b"x"
        one.send("ms s 1 q\r\nx\r\nmg nobody v q\r\nmn\r\n")
        assert one.line() == "MN"
    with router.client() as one:
        one.send(
            binary(0x01, b"bin", struct.pack("!II", 5, 0), b"value", 1) + binary(0x0C, b"bin", opaque=2)
            + binary(0x0D, b"none", opaque=3) + binary(0x0A, opaque=4)
        )  # fmt: skip
        assert packet(one)[:3] == (0x01, 0, 1)
        assert packet(one) == (0x0C, 0, 2, struct.pack("!I", 5) + b"binvalue")
        assert packet(one)[:3] == (0x0A, 0, 4)


def test_failover_reads_elsewhere_while_a_server_is_down(routed, pair):
    router = routed({"route": {"failover": ["a", "b"]}}, "--upstream-timeout=150ms --health-first-probe=50ms")
    with router.client() as one, pair[1].client() as b:
        one.set("k", "at a")
        b.set("k", "at b")
        b.set("gone", "at b")
        assert one.get("k") == b"at a"
        halt(pair[0])
        try:
            for _ in range(5):
                assert one.get("k") == b"at b"
            assert one.ask("mg k v O7") == "VA 4 O7" and one.line() == "at b"
            one.send("get k gone nobody\r\n")
            assert [one.line() for _ in range(5)] == ["VALUE k 0 4", "at b", "VALUE gone 0 4", "at b", "END"]
        finally:
            pair[0].signal(signal.SIGCONT)
        deadline = time.monotonic() + 5
        while one.get("k") != b"at a":
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_is_stored_in_a_gutter_expires_soon(routed, pair):
    router = routed({"route": {"failover": ["a", "b"], "ttl": "1s"}})
    pair[0].stop()
    with router.client() as one, pair[1].client() as b:
        assert one.set("k", "v", exptime=1000) == "STORED"
        assert one.ask("ms m 1 T1000\r\nx") == "HD"
        assert b.get("k") == b"v"
        assert b.ask("mg k t") in ("HD t0", "HD t1") and b.ask("mg m t") in ("HD t0", "HD t1")


def test_miss_failover_and_warm_up(routed, pair):
    router = routed({"route": {"prefixes": {"m:": {"missFailover": ["a", "b"]}, "w:": {"warmUp": {"cold": "a", "warm": "b"}}}, "otherwise": "nothing"}})  # fmt: skip
    with router.client() as one, pair[0].client() as a, pair[1].client() as b:
        b.set("m:1", "second")
        assert one.get("m:1") == b"second" and one.get("m:2") is None
        b.set("w:1", "warm", flags=3, exptime=500)
        one.send("get w:1\r\n")
        assert [one.line() for _ in range(3)] == ["VALUE w:1 3 4", "warm", "END"]
        deadline = time.monotonic() + 3
        while a.get("w:1") is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert 490 <= int(a.ask("mg w:1 t").split("t")[1]) <= 500
        # Nothing is sent for the rest.
        assert one.get("else") is None and one.set("else", "1") == "NOT_STORED"
        assert one.ask("delete else") == "NOT_FOUND" and one.ask("mg else v") == "EN" and one.ask("incr else 1") == "NOT_FOUND"
        one.send("get else m:1 m:2 w:1\r\nget m:1\r\n")
        assert [one.line() for _ in range(5)] == ["VALUE m:1 0 6", "second", "VALUE w:1 3 4", "warm", "END"]
        assert [one.line() for _ in range(3)] == ["VALUE m:1 0 6", "second", "END"]


def test_routes_by_operation_and_with_another_key(routed, pair):
    router = routed({"route": {"operations": {"reads": "a", "deletes": {"allSync": ["a", "b"]}}, "otherwise": {"modifyKey": "a", "prefix": "ns:", "suffix": ""}}})  # fmt: skip
    with router.client() as one, pair[0].client() as a:
        assert one.set("k", "v") == "STORED"
        assert a.get("ns:k") == b"v" and a.get("k") is None
        assert one.get("k") is None and one.get("ns:k") == b"v"


def test_keys_with_a_routing_prefix_are_answered_under_it(routed, pair):
    router = routed({"routes": {"/one/a/": "a", "/one/b/": "b"}, "routing": {"prefix": "/one/a/"}})
    with router.client() as one, pair[0].client() as a, pair[1].client() as b:
        assert one.set("k", "at a") == "STORED" and one.set("/one/b/k", "at b", flags=4) == "STORED"
        assert a.get("k") == b"at a" and b.get("k") == b"at b"
        one.send("get /one/b/k\r\nget k /one/b/k\r\nmg /one/b/k v k f\r\nget /two/c/k\r\n")
        assert [one.line() for _ in range(3)] == ["VALUE /one/b/k 4 4", "at b", "END"]
        assert [one.line() for _ in range(5)] == ["VALUE k 0 4", "at a", "VALUE /one/b/k 4 4", "at b", "END"]
        assert [one.line() for _ in range(2)] == ["VA 4 k/one/b/k f4", "at b"]
        assert one.line().startswith("SERVER_ERROR")
        assert one.ask("incr /one/b/n 1") == "NOT_FOUND"
    with router.client() as one:
        one.send(binary(0x0C, b"/one/b/k", opaque=2))
        assert packet(one) == (0x0C, 0, 2, struct.pack("!I", 4) + b"/one/b/kat b")


def test_long_values_are_kept_in_pieces(routed, pair):
    router = routed({"route": {"bigValue": "both", "threshold": 1000}})
    value = os.urandom(25_000)
    with router.client() as one:
        assert one.set("big", value) == "STORED"
        assert one.get("big") == value
        assert one.set("small", "s") == "STORED" and one.get("small") == b"s"
    counts = []
    for node in pair:
        with node.client() as direct:
            counts.append(int(direct.stats()["curr_items"]))
    assert sum(counts) >= 26 and min(counts) > 5


def test_latency_limits_and_errors(routed):
    router = routed({"route": {"prefixes": {"slow:": {"latency": "a", "before": "200ms"}, "no:": {"error": "not here"}, "few:": {"rateLimit": "a", "writes": 1, "writesBurst": 1}}, "otherwise": "a"}})  # fmt: skip
    with router.client() as one, router.client() as other:
        begun = time.monotonic()
        one.send("get slow:1\r\nget fast\r\n")
        assert other.get("fast") is None
        assert time.monotonic() - begun < 0.15
        assert [one.line(), one.line()] == ["END", "END"]
        assert time.monotonic() - begun >= 0.19
        assert "not here" in one.ask("get no:1")
        said = [one.set("few:1", "x") for _ in range(4)]
        assert said[0] == "STORED" and set(said[1:]) == {"NOT_STORED"}
        one.send("get slow:2\r\n")
        one.close()  # gone while its request waits
        time.sleep(0.3)
        assert other.get("fast") is None


def test_nothing_said_before_its_turn_ends_nobody(routed):
    """Of what follows a slow request one is answered and one is not: when the first goes out, nothing is left to keep."""
    routes = {"prefixes": {"slow:": {"latency": "a", "before": "150ms"}}, "otherwise": {"allInitial": ["a", "b"]}}
    router = routed({"route": routes})
    with router.client() as one:
        for quiet in ("set k 0 0 1 noreply\r\nx\r\n", "ms k 1 q\r\nx\r\n", "mg absent q\r\n"):
            one.send("get slow:1\r\nget absent\r\n" + quiet + "get absent\r\nmn\r\n")
            assert [one.line() for _ in range(4)] == ["END", "END", "END", "MN"]
    with router.client() as other:
        assert other.get("k") == b"x"


def test_a_configuration_of_mcrouters_own(route, pair, tmp_path):
    file = tmp_path / "mcrouter.json"
    file.write_text(
        json.dumps(
            {
                "pools": {"A": {"servers": [f"127.0.0.1:{pair[0].port}"]}, "B": {"servers": [f"127.0.0.1:{pair[1].port}"]}},
                "route": {
                    "type": "OperationSelectorRoute",
                    "operation_policies": {"get": "PoolRoute|A", "delete": "AllSyncRoute|Pool|A"},
                    "default_policy": {"type": "AllInitialRoute", "children": ["PoolRoute|A", "PoolRoute|B"]},
                },
            }
        )
        + "\n"
    )
    router = route((), f"--config {file}")
    with router.client() as one, pair[1].client() as b:
        assert one.set("k", "v") == "STORED" and one.get("k") == b"v"
        deadline = time.monotonic() + 3
        while b.get("k") is None:
            assert time.monotonic() < deadline
        said = one.get("__mcrouter__.route(set,k)").decode().split("\r\n")
        assert set(said) == {f"127.0.0.1:{node.port}" for node in pair}


def test_routes_change_under_load_without_a_lost_reply(routed, pair, tmp_path):
    router = routed({"route": {"allSync": ["a", "b"]}})
    with router.client() as one:
        for turn in range(10):
            one.send("".join(f"set r-{n} 0 0 1\r\nx\r\nget r-{n}\r\n" for n in range(200)))
            file = tmp_path / "routes.yaml"
            document = json.loads(file.read_text())
            document["route"] = {"failover": ["a", "b"]} if turn % 2 else {"allFastest": ["a", "b"]}
            (tmp_path / "next").write_text(json.dumps(document))
            os.replace(tmp_path / "next", file)
            router.signal(signal.SIGHUP)
            for number in range(200):
                assert [one.line() for _ in range(4)] == ["STORED", f"VALUE r-{number} 0 1", "x", "END"]
            time.sleep(0.1)
        # Counted ten times a second; the question itself goes to the servers.
        deadline = time.monotonic() + 5
        while int(one.stats()["server_outstanding"]) > 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_wrong_routes_say_where(route, tmp_path):
    import subprocess

    from .bed import default_router

    file = tmp_path / "routes.yaml"
    file.write_text("threads: 2\npools:\n  a: {servers: [127.0.0.1:1]}\nroute: {failover: [a, c]}\n")
    ended = subprocess.run(
        [default_router(), "--config", str(file), "--check-config"], capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 78 and "routes.yaml:4" in ended.stderr, ended.stderr
