# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Traces: what crosses processes, what is recorded, and that nobody waits for a collector."""

import os
import re
import secrets
import shutil
import subprocess
import time
import urllib.request

import pytest

from bed import Server, default_command, free_port, memcached_command
from router.bed import FakeServer, Router, default_router, lines
from storage.node import Node
from streams.test_streams import Pair

from .collector import Collector

pytestmark = pytest.mark.ours

SERVER, CLIENT, CONSUMER = 2, 3, 5


@pytest.fixture(autouse=True)
def only_with_a_router(original):
    if not original and not (os.path.exists(default_router()) or shutil.which(default_router())):
        pytest.fail(f"no router to test at {default_router()}: run `make build`, or set MARTLET_ROUTER")


@pytest.fixture
def collector():
    with Collector() as one:
        yield one
        assert not one.problems, one.problems[0]


def traced(collector, sampler="parentbased_always_off", **settings):
    """Flags of a server that is traced."""
    flags = {"endpoint": collector.url, "delay": "50ms", "sampler": sampler, "slow": "0", **settings}
    return [f"--tracing-{name.replace('_', '-')}={value}" for name, value in flags.items()]


def context(sampled=True):
    """A context of a client: the trace's and the span's digits, and the text."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-0{int(sampled)}"


def named(spans, name, kind=None, service=None):
    """The one span of that name."""
    [found] = [
        span for span in spans
        if span.name == name and kind in (None, span.kind) and service in (None, span.service)
    ]  # fmt: skip
    return found


def line_of(spans, name):
    """The spans of a command through a router and a node: client's request, command to the node, the node's."""
    front = named(spans, name, SERVER, "martlet-router")
    call = named(spans, name, CLIENT, "martlet-router")
    back = named(spans, name, SERVER, "martlet-server")
    assert (call.parent, back.parent) == (front.id, call.id), spans
    assert front.encloses(call) and call.encloses(back), spans
    return front, call, back


def test_one_trace_crosses_router_node_and_storage(collector, tmp_path):
    with Node(tmp_path, backend="rocksdb", flags=traced(collector)) as node, \
            Router([f"127.0.0.1:{node.port}"], traced(collector)) as router, router.client() as client:  # fmt: skip
        trace, span, text = context()
        assert client.ask(f"ms stored 5 T0 L{text}\r\nhello") == "HD"
        spans = collector.eventually(lambda spans: len([one for one in spans if one.trace == trace]) >= 7)
        assert len(spans) == 7, spans
        front, call, back = line_of(spans, "ms")
        assert front.parent == span and front.flags == 0x301 and call.flags == 0x101 and back.flags == 0x301
        assert call.attributes["server.address"] == "127.0.0.1" and call.attributes["server.port"] == node.port
        assert (front.attributes["server.port"], back.attributes["server.port"]) == (router.port, node.port)
        for one in (front, call, back):
            assert one.attributes["db.system.name"] == "memcached" and one.attributes["db.operation.name"] == "ms"
            assert one.attributes["martlet.key.hash"] == front.attributes["martlet.key.hash"] and not one.failed
            assert re.fullmatch("[0-9a-f]{16}", one.attributes["martlet.key.hash"])
        write = named(spans, "storage.write")
        queue, commit, log = (named(spans, f"storage.{name}") for name in ("queue", "commit", "log"))
        assert [write.parent, queue.parent, commit.parent, log.parent] == [back.id, write.id, write.id, commit.id]
        assert back.encloses(write) and write.encloses(queue) and write.encloses(commit) and commit.encloses(log)
        assert queue.end <= commit.start and log.end > log.start
        assert {one.attributes["db.system.name"] for one in (write, queue, commit, log)} == {"rocksdb"}
        assert not any("hello" in str(one.attributes) or "stored" in str(one.attributes.values()) for one in spans)

        with node.client() as other:
            assert other.ask("flush_all") == "OK"
        trace, span, text = context()
        assert client.ask(f"mg stored v L{text}") == "VA 5"
        assert client.line() == "hello"
        spans = [one for one in collector.eventually(lambda spans: len(spans) >= 13) if one.trace == trace]
        front, call, back = line_of(spans, "mg")
        read, lookup = named(spans, "storage.read"), named(spans, "storage.lookup")
        assert (read.parent, lookup.parent) == (back.id, read.id) and read.encloses(lookup)
        assert back.attributes["martlet.cache.hit"] is True
        for path in {path for _, path, _, _ in collector.requests}:
            assert path == "/v1/traces"


def test_a_hit_and_a_miss_of_a_plain_cache(collector):
    with Server(traced(collector)) as node, node.client() as client:
        client.set("here", "v")
        hit, miss = context(), context()
        assert client.ask(f"mg here L{hit[2]}") == "HD"
        assert client.ask(f"mg gone L{miss[2]}") == "EN"
        spans = {span.trace: span for span in collector.eventually(lambda spans: len(spans) >= 2)}
        assert spans.keys() == {hit[0], miss[0]}
        assert [spans[one[0]].attributes["martlet.cache.hit"] for one in (hit, miss)] == [True, False]
        assert spans[hit[0]].parent == hit[1] and spans[hit[0]].kind == SERVER


def test_what_nobody_samples_is_not_recorded(collector, tmp_path):
    with Node(tmp_path, backend="rocksdb", flags=traced(collector)) as node, node.client() as client:
        for number in range(50):
            _, _, text = context(sampled=False)
            assert client.ask(f"ms k{number} 1 L{text}\r\nv") == "HD"
            assert client.set(f"k{number}", "v") == "STORED"
            # Hostile contexts are passed over, as memcached does.
            for odd in ("", "x", text[:-1], text + "0", "00-" + "0" * 52, text.upper(), ";" * 900):
                assert client.ask(f"mg k{number} L{odd}") in ("HD", "EN")
        trace, _, text = context()
        assert client.ask(f"mg k1 L{text}") == "HD"
        assert {span.trace for span in collector.eventually(len)} == {trace}


@pytest.mark.parametrize(("token", "passed"), [
    ("Lmine", "Lmine"), ("L", "L"), ("L{off}", "L{off}"), ("Lmine;{off};b", "Lmine;{off};b"),
    ("Lmine", "L{on};mine"), ("L{on}", "L{on}"), ("Lmine;{on};b", "Lmine;{on};b"), ("", "L{on}"),
])  # fmt: skip
def test_the_clients_own_token_stays(collector, token, passed):
    """What a router makes of an L token: nothing where no trace is recorded, else its context and what was there."""
    seen = []

    def talk(connection):
        for line in lines(connection):
            seen.append(line.decode())
            connection.sendall(b"HD Oo\r\n" if line.startswith(b"mg") else b"VERSION 1.6.45\r\n")

    is_recorded = "{on}" in passed
    sampler = "always_on" if is_recorded else "parentbased_always_off"
    on, off = context()[2], context(sampled=False)[2]
    with FakeServer(talk) as server, Router([f"127.0.0.1:{server.port}"], traced(collector, sampler)) as router, \
            router.client() as client:  # fmt: skip
        words = ["mg", "k", "t", token.format(on=on, off=off), "Oo", "s"]
        assert client.ask(" ".join(word for word in words if word)) == "HD Oo"
        [line] = [line for line in seen if line.startswith("mg")]
        if not is_recorded:
            assert line == " ".join(word for word in words if word)
            return
        call = named(collector.eventually(lambda spans: len(spans) >= 2), "mg", CLIENT)
    mine = passed.format(on=f"00-{call.trace}-{call.id}-01")
    others = [word for word in line.split() if not word.startswith("L")]
    assert mine in line.split() and others == ["mg", "k", "t", "Oo", "s"], line
    if "{on}" in token:
        assert call.trace == on.split("-")[1]


def test_a_memcached_takes_what_a_router_adds(collector):
    """Replies through a router that records everything are those of the memcached behind it."""
    with Server("-U 0", command=memcached_command()) as original, \
            Router([f"127.0.0.1:{original.port}"], traced(collector, "always_on")) as router:  # fmt: skip
        with router.client() as through, original.client() as direct:
            for line in ("ms {k} 5 T0 F3\r\nhello", "mg {k} v t f Oabc", "mg {k} v Lmine k", "mg none v", "ma {k}",
                         "md {k} q", "mg {k} v", "ms L{k} 2 c\r\nhi", "mg L{k} v", "md L{k}", "get L{k}",
                         "set {k} 0 0 1\r\n1", "ma {k} N0 J3 v", "mg {k} t f s k l h v c u",
                         "mg {k} N9 R9 T9 v"):  # fmt: skip
                told = []
                for client, key in ((through, "one"), (direct, "two")):
                    client.send(line.replace("{k}", key) + "\r\nmn\r\n")
                    rows = []
                    while (row := client.line()) != "MN":
                        # Versions count up.
                        rows.append(re.sub(r" c\d+", " c", row).replace(key, "{k}"))
                    told.append(rows)
                assert told[0] == told[1], line
        assert collector.eventually(lambda spans: len(spans) > 20)


def test_slow_and_failed_requests_are_recorded_though_nobody_samples_them(collector):
    def talk(connection):
        for line in lines(connection):
            if line.startswith(b"get slow"):
                time.sleep(0.4)
            connection.sendall(b"END\r\n" if line.startswith(b"get") else b"VERSION 1.6.45\r\n")

    gone = free_port()
    flags = traced(collector, slow="200ms")
    with FakeServer(talk) as server, Router([f"127.0.0.1:{server.port}"], flags) as router, \
            router.client() as client, Router([f"127.0.0.1:{gone}"], flags) as lost, \
            lost.client() as other:  # fmt: skip
        for key in ("quick", "slow", "quick"):
            assert client.get(key) is None
        trace, _, text = context(sampled=False)
        assert other.ask(f"mg k v L{text}").startswith("SERVER_ERROR")
        spans = collector.eventually(lambda spans: len(spans) >= 3)
        slow = [span for span in spans if span.attributes.get("martlet.trace.reason") == "slow"]
        [front] = [span for span in slow if span.kind == SERVER]
        [call] = [span for span in slow if span.kind == CLIENT]
        assert call.parent == front.id and front.parent is None and 390 < front.milliseconds < 5000
        assert call.attributes["server.port"] == server.port and not front.failed
        failed = [span for span in spans if span.trace == trace]
        assert failed and all(span.failed and span.attributes["error.type"] for span in failed), spans
        assert named(failed, "mg", SERVER).attributes["martlet.trace.reason"] == "failed"
        assert len(spans) == len(slow) + len(failed), spans


def test_slow_requests_of_a_node_and_their_lines_in_the_log(collector, tmp_path):
    flags = [*traced(collector, slow="1us"), "--storage-slow-log=1ms", "--storage-group-wait=2ms"]
    flags.append("--storage-durability=group")
    with Node(tmp_path, backend="rocksdb", flags=flags) as node, node.client() as client:
        client.send("".join(f"set k{number} 0 0 1\r\nv\r\n" for number in range(3)))
        assert [client.line() for _ in range(3)] == ["STORED"] * 3
        client.send("get k1\r\n")
        assert [client.line() for _ in range(3)] == ["VALUE k1 0 1", "v", "END"]
        spans = collector.eventually(lambda spans: {"set", "get"} <= {span.name for span in spans})
        assert {span.attributes["martlet.trace.reason"] for span in spans if span.kind == SERVER} == {"slow"}
        deadline = time.monotonic() + 10
        line = r'"msg":"slow storage operation".*?"trace_id":"(\w+)","span_id":"(\w+)"'
        while not (found := re.findall(line, node.server.output())):
            assert time.monotonic() < deadline, node.server.output()
            time.sleep(0.05)
        assert set(found) <= {(span.trace, span.id) for span in collector.eventually(lambda spans: len(spans) >= 12)}


@pytest.mark.parametrize("backend", ["rocksdb", "postgres"])
def test_a_change_is_followed_into_the_other_region(backend, collector, tmp_path):
    with Pair(tmp_path, backend=backend, flags=traced(collector)) as pair, pair.home.client() as home, \
            pair.replica.client() as replica:  # fmt: skip
        replica.set("k", "old")
        trace, _, text = context()
        assert home.ask(f"ms k 3 T0 L{text}\r\nnew") == "HD"
        # Two programs send them, each when it likes.
        # A node of a database that nodes share follows the database's stream itself.
        wanted = ["storage.write"] + ["stream.apply"] * (2 if backend == "postgres" else 1)

        def mine(spans):
            return [span for span in spans if span.trace == trace and span.name in wanted]

        spans = mine(collector.eventually(lambda spans: len(mine(spans)) == len(wanted)))
        assert sorted(span.name for span in spans) == wanted
        write = named(spans, "storage.write")
        applied = [span for span in spans if span.name == "stream.apply"]
        for apply in applied:
            assert apply.parent == write.id and apply.kind == CONSUMER and apply.start > write.start
            assert apply.resource["host.name"]


def test_a_ratio_of_all_traces_is_recorded(collector):
    flags = traced(collector, "parentbased_traceidratio", ratio="0.1", queue=8192)
    with Server([*flags, "-t", "1"]) as node, node.client() as client:
        for _ in range(200):
            client.send("get k\r\n" * 100)
            assert [client.line() for _ in range(100)] == ["END"] * 100
        # Two thousand are to be expected, with a standard deviation of 42.
        spans = collector.eventually(lambda spans: len(spans) > 1700, 60)
        before = -1
        while before != (recorded := len(collector.spans)):
            before = recorded
            time.sleep(1)
        assert 1700 < recorded < 2300, recorded
        assert all(span.parent is None and int(span.trace[16:], 16) >> 1 < 0.1 * 2**63 for span in spans)


def test_variables_of_opentelemetry_and_a_secret(collector):
    token = secrets.token_hex(12)
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{token}",
        "OTEL_SERVICE_NAME": "a-cache", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,k=%22v%22",
        "OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_SCHEDULE_DELAY": "50",
    }  # fmt: skip
    command = [*default_command().split(), "--check-config", "--tracing-headers", f"authorization={token}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=20, env={"PATH": "/usr/bin", **variables})
    assert shown.returncode == 0 and "tracing.headers: (secret)" in shown.stdout
    assert token not in shown.stdout + shown.stderr
    with Server(environment=variables) as node, node.client() as client:
        assert client.set("k", "v") == "STORED"
        span = collector.eventually(len)[0]
        # Nothing is sampled by default but what is asked for here, so the one set is a trace.
        assert span.name == "set" and span.service == "a-cache"
        assert span.resource["deployment.environment.name"] == "test" and span.resource["k"] == '"v"'
        assert collector.requests[0][2]["authorization"] == f"Bearer {token}"
        assert token not in node.output()
    with Server(environment={**variables, "OTEL_SDK_DISABLED": "true"}) as node, node.client() as client:
        before = len(collector.spans)
        assert client.set("k", "v") == "STORED"
        time.sleep(0.3)
        assert len(collector.spans) == before


def test_what_waits_goes_out_at_the_end(collector):
    with Server(traced(collector, "always_on", delay="10m")) as node, node.client() as client:
        assert client.set("k", "v") == "STORED"
        assert not collector.spans
        client.socket.close()
        node.process.terminate()
        assert node.process.wait(10) == 0
        assert [span.name for span in collector.spans] == ["set"]


def test_a_collector_that_is_busy_is_asked_again():
    def answer(number):
        return [(429, {"Retry-After": "1"}), (503, {}), (200, {})][min(number, 2)]

    with Collector(answer) as collector, Server(traced(collector, "always_on")) as node, node.client() as client:
        assert client.set("k", "v") == "STORED"
        [span] = collector.eventually(len)
        assert span.name == "set" and len(collector.requests) == 3
        (first, *_, body), (second, *_, again), (_, *_, last) = collector.requests
        assert second - first >= 0.95 and body == again == last


def figures(admin):
    """{(name, label): value} of what is told of spans."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as response:
        rows = re.findall(r'(?m)^martlet_trace_(\w+?)(?:\{reason="(\w+)"\})? (\d+)$', response.read().decode())
    return {(name, label): int(value) for name, label, value in rows}


@pytest.mark.parametrize("trouble", ["down", "silent", "refusing", "rejecting"])
def test_nobody_waits_for_a_collector(trouble):
    """Requests are served as ever while a collector is away, and what becomes of spans is counted."""
    answers = {"silent": (0, {}), "refusing": (400, {}), "rejecting": (200, {})}
    body = b'{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too many"}}' if trouble == "rejecting" else b"{}"
    admin = free_port()
    with Collector(lambda _: answers.get(trouble, (200, {})), body) as collector:
        url = f"http://127.0.0.1:{free_port()}" if trouble == "down" else collector.url
        flags = [*traced(collector, "always_on", queue=256, batch=64, endpoint=url), "-t", "1"]
        with Server(flags, environment={"MARTLET_ADMIN": f"127.0.0.1:{admin}"}) as node, node.client() as client:
            slowest = 0.0
            for number in range(2000):
                begun = time.monotonic()
                assert client.set("k", "v") == "STORED"
                slowest = max(slowest, time.monotonic() - begun)
            # A second is what a busy machine may take; a request that waited for the collector would take ten.
            assert slowest < 2, slowest
            queue, export = ("spans_dropped_total", "queue"), ("spans_dropped_total", "export")
            failures, exported = ("export_failures_total", ""), ("spans_exported_total", "")
            wanted = {"down": [queue, failures], "silent": [queue], "refusing": [export, failures],
                      "rejecting": [export, exported]}[trouble]  # fmt: skip
            deadline = time.monotonic() + 20
            while not all(figures(admin)[name] > 0 for name in wanted):
                assert time.monotonic() < deadline, figures(admin)
                assert client.set("k", "v") == "STORED"
            begun = time.monotonic()
            node.process.terminate()
            node.process.wait(20)
            assert time.monotonic() - begun < 15


def test_bad_settings_say_what_is_allowed():
    cases = [("endpoint=collector:4318", "http://"), ("ratio=2", "0 to 1"), ("sampler=sometimes", "always_on"),
             ("headers=sesame", "name=value")]  # fmt: skip
    for flag, expected in cases:
        command = [*default_command().split(), f"--tracing-{flag}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode != 0 and expected in done.stderr and "sesame" not in done.stderr, done.stderr
