# Martlet
# SPDX-License-Identifier: Apache-2.0
"""An overloaded node: what it serves goes on being served in time, and what it refuses is refused as it says.

Service takes a set time here (`overload.testServiceTime`), so that one machine can ask more than the node can do. The
bounds are wide: they are to hold on a machine that does other things too. docs/overload.md has the figures.
"""

import contextlib
import itertools
import os
import random
import socket
import struct
import time

import pytest

from bed import Server, free_port
from overload.openloop import Source, run

pytestmark = [pytest.mark.ours, pytest.mark.alone]
SERVICE = 0.0005
CAPACITY = 1 / SERVICE
SEED = int(os.environ.get("MARTLET_SEED") or time.time_ns() % 100_000)
GET = b"mg k s\r\n"


class Node:
    """One reactor that serves 2,000 requests a second."""

    def __init__(self, tmp_path, config="{}\n", target="5ms", service="500us", **settings):
        self.port = free_port()
        file = tmp_path / "node.yaml"
        file.write_text(config)
        arguments = ["-l", f"127.0.0.1:{self.port}", "-t", "1", "--config", str(file)]
        arguments += ["--overload-target", target, "--overload-test-service-time", service]
        for name, value in settings.items():
            arguments += [f"--{name.replace('_', '-')}", value]
        self.server = Server(arguments, listen=False, wait=("127.0.0.1", self.port))
        with self.server.client() as client:
            assert client.set("k", b"x") == "STORED"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()

    def figures(self):
        with self.server.client() as client:
            return client.stats("overload")

    def shed(self, name=""):
        return sum(int(count) for key, count in self.figures().items() if key.startswith(f"shed_{name}") and key != "shed_ratio")


def flood(node, seconds=2.0, factor=5, line=GET, extra=()):
    """Five times what the node can do, and other sources beside it."""
    outcomes = run(node.port, [*extra, Source(line, factor * CAPACITY, 10)], seconds, SEED)
    print(f"MARTLET_SEED={SEED}", [(one.offered, one.served, one.refused) for one in outcomes], node.figures())
    return outcomes


def test_goodput_holds_where_it_would_collapse(tmp_path):
    with Node(tmp_path) as node:
        (held,) = flood(node, 3)
        assert int(node.figures()["overloads"]) >= 1
        assert held.offered == held.served + held.refused, "each request has its answer, in order"
    with Node(tmp_path, target="0") as node:
        (collapsed,) = flood(node, 3)
        assert collapsed.refused == 0 and node.shed() == 0
    assert held.in_time(0.05) > 3 * CAPACITY * 0.3
    assert held.in_time(0.05) > 3 * collapsed.in_time(0.05)


def test_an_idle_node_refuses_nothing(tmp_path):
    with Node(tmp_path) as node:
        (outcome,) = run(node.port, [Source(GET, 0.2 * CAPACITY, 10)], 2, SEED)
        assert outcome.refused == 0 and outcome.served == outcome.offered


def test_it_is_over_when_the_load_is(tmp_path):
    with Node(tmp_path) as node:
        flood(node)
        time.sleep(1)
        assert node.figures()["overloaded"] == "0"
        (outcome,) = run(node.port, [Source(GET, 0.2 * CAPACITY, 10)], 1, SEED)
        assert outcome.refused == 0


def test_critical_requests_are_served_and_background_is_not(tmp_path):
    config = "pools:\n  - {prefix: \"b:\", class: background}\n  - {prefix: \"c:\", class: critical}\n"
    with Node(tmp_path, config) as node:
        critical, background = flood(
            node, 3, line=b"mg b:k s\r\n".replace(b" s", b" k"),
            extra=[Source(b"mg k s Pcritical\r\n", 0.2 * CAPACITY, 10)])  # fmt: skip
        assert critical.served > 0.6 * critical.offered
        assert node.shed("background") > 20 * max(1, node.shed("critical"))
        assert background.refused + background.others.total() + background.served == background.offered


def test_a_greedy_tenant_pays_for_itself(tmp_path):
    with Node(tmp_path) as node:
        modest, greedy = flood(node, 4, extra=[Source(GET, 0.1 * CAPACITY, 5, "127.0.0.2")])
        assert modest.served / modest.offered > 4 * greedy.served / greedy.offered


def test_a_dry_run_only_counts(tmp_path):
    with Node(tmp_path, overload_dry_run="true") as node:
        (outcome,) = flood(node, 1, factor=3)
        assert outcome.refused == 0 and outcome.served == outcome.offered
        assert node.shed() > 0


class Busy:
    """A node that is kept overloaded, to see how one command is refused."""

    def __init__(self, node):
        self.node = node
        self.flood = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(20)]
        for one in self.flood:
            one.setblocking(False)

    def push(self):
        for one in self.flood:
            try:
                one.send(GET * 200)
            except BlockingIOError:
                pass
            try:
                while one.recv(1 << 16):
                    pass
            except BlockingIOError:
                pass

    def refusals(self, command, count=0, wanted=(), reply_bytes=1 << 16, seconds=20, is_whole=bool):
        """Different answers to `command`, sent over and over while the node is overloaded, until `count` of them, or those
        that are wanted, were seen."""
        seen = {}
        deadline = time.monotonic() + seconds
        with socket.create_connection(("127.0.0.1", self.node.port), 10) as client:
            while (len(seen) < count or not seen.keys() >= set(wanted)) and time.monotonic() < deadline:
                self.push()
                client.sendall(command)
                time.sleep(0.02)
                self.push()
                answer = client.recv(reply_bytes)
                # A connection may have had its time in the midst of a get of several keys.
                while not is_whole(answer):
                    answer += client.recv(reply_bytes)
                seen[answer] = seen.get(answer, 0) + 1
        return seen

    def close(self):
        for one in self.flood:
            one.close()


@pytest.fixture
def busy(tmp_path, request):
    with Node(tmp_path, target="1ms", **getattr(request, "param", {})) as node:
        one = Busy(node)
        yield one
        one.close()


@pytest.mark.parametrize(
    ("busy", "command", "served", "refused"),
    [
        ({}, b"get k nothing k\r\n", b"VALUE k 0 1\r\nx\r\nVALUE k 0 1\r\nx\r\nEND\r\n", b"SERVER_ERROR 307 busy\r\n"),
        ({}, b"mg k v\r\n", b"VA 1\r\nx\r\n", b"SERVER_ERROR 307 busy\r\n"),
        ({}, b"incr k 1\r\n", b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
         b"SERVER_ERROR 307 busy\r\n"),
        ({"overload_reply": "oom"}, b"mg k v\r\n", b"VA 1\r\nx\r\n", b"SERVER_ERROR out of memory: busy\r\n"),
        ({"overload_reply": "miss"}, b"get k\r\n", b"VALUE k 0 1\r\nx\r\nEND\r\n", b"END\r\n"),
        ({"overload_reply": "miss"}, b"mg k v\r\n", b"VA 1\r\nx\r\n", b"EN\r\n"),
    ], indirect=["busy"])  # fmt: skip
def test_how_a_refusal_reads(busy, command, served, refused):
    ends = (served.splitlines(True)[-1], refused.splitlines(True)[-1])
    wanted = {served, refused}
    seen = busy.refusals(command, wanted=wanted, is_whole=lambda answer: answer.endswith(ends)).keys()
    assert wanted <= seen
    broken_off = seen - wanted  # after some of a get's keys
    assert all(answer.startswith(b"VALUE k ") and answer.endswith(refused) for answer in broken_off), broken_off


def test_binary_refusals_carry_the_opaque(busy):
    get = struct.pack("!BBHBBHIIQ", 0x80, 0, 1, 0, 0, 0, 1, 0xDEADBEEF, 0) + b"k"
    seen = busy.refusals(get, 2)
    statuses = {struct.unpack("!H", answer[6:8])[0] for answer in seen}
    assert statuses == {0, 0x85}
    assert all(answer[12:16] == b"\xde\xad\xbe\xef" for answer in seen)


def test_a_refused_set_takes_the_old_value_and_its_data_is_swallowed(busy):
    seen = busy.refusals(b"set k 0 0 9\r\nget k\r\nxx\r\n", 2)
    assert set(seen) == {b"STORED\r\n", b"SERVER_ERROR 307 busy\r\n"}
    deadline = time.monotonic() + 20
    with socket.create_connection(("127.0.0.1", busy.node.port), 10) as client:
        while time.monotonic() < deadline:
            busy.push()
            client.sendall(b"set v 0 0 1\r\na\r\n")
            first = client.recv(100)
            if first.startswith(b"SERVER_ERROR"):
                break
            client.sendall(b"set v 0 0 1\r\nb\r\n")
        assert first.startswith(b"SERVER_ERROR"), "nothing was refused"
    time.sleep(2)
    with busy.node.server.client() as client:
        assert client.get("v") is None


def test_noreply_stays_silent(busy):
    deadline = time.monotonic() + 3
    with socket.create_connection(("127.0.0.1", busy.node.port), 10) as client:
        while time.monotonic() < deadline:
            busy.push()
            client.sendall(b"set n 0 0 1 noreply\r\na\r\nincr n 1 noreply\r\nmn\r\n")
            assert client.recv(1 << 16) == b"MN\r\n"
    assert busy.node.shed() > 0


def test_deletes_and_operators_are_served(busy):
    deadline = time.monotonic() + 3
    with busy.node.server.client() as client:
        while time.monotonic() < deadline:
            busy.push()
            assert client.ask("delete nothing") == "NOT_FOUND"
            assert client.ask("mn") == "MN"
            assert client.ask("version").startswith("VERSION ")
    assert busy.node.shed("default") > 0 and busy.node.shed("invalidation") == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("overload: {target: 2m}\n", "overload.target"),
        ("overload: {reply: drop}\n", "busy, oom, miss"),
        ("overload: {listeners: [{class: critical}]}\n", "tag"),
        ("overload: {listeners: [{tag: a, class: best}]}\n", "critical, default, sheddable, background"),
        ("pools: [{prefix: \"a:\", class: urgent}]\n", "critical, default, sheddable, background"),
        ("pools: [{prefix: \"a:\", cacheTTL: 1s}]\n", "cacheTTL: storage.backend is none"),
    ])  # fmt: skip
def test_bad_settings_stop_the_start(tmp_path, config, words):
    from bed.server import StartError

    with pytest.raises(StartError) as failure:
        Node(tmp_path, config)
    assert words in str(failure.value)


def test_a_listener_has_a_class_and_a_reply(tmp_path):
    low = free_port()
    config = "overload: {listeners: [{tag: low, class: background, reply: oom}]}\n"
    port = free_port()
    file = tmp_path / "node.yaml"
    file.write_text(config)
    server = Server(
        ["-l", f"127.0.0.1:{port},tag[low]:127.0.0.1:{low}", "-t", "1", "--config", str(file),
         "--overload-test-service-time", "500us"], listen=False, wait=("127.0.0.1", port))  # fmt: skip
    try:
        with server.client() as client:
            assert client.set("k", b"x") == "STORED"
            outcomes = run(low, [Source(GET, 4 * CAPACITY, 10)], 2, SEED)
            figures = client.stats("overload")
        assert outcomes[0].refused > 0
        assert sum(int(figures[f"shed_background_{reason}"]) for reason in ("ratio", "age", "share")) > 0
        assert sum(int(figures[f"shed_default_{reason}"]) for reason in ("ratio", "age", "share")) == 0
    finally:
        server.stop()


BUSY = b"SERVER_ERROR 307 busy\r\n"


def exchanged(client, sent, count):
    """What comes for a buffer of requests, `count` bytes of it, and nothing behind."""
    client.send(sent + b"mn\r\n")
    found = client.read(count + 4)
    assert found.endswith(b"MN\r\n"), found[-200:]
    return found[:-4]


def test_a_buffer_of_reads_is_refused_line_by_line():
    """Most of it is refused without being taken apart; what is no plain get keeps its own answer, and its place."""
    plain = [b"get k\r\n", b"get another:key\n", b"get " + b"x" * 250 + b"\r\n"]
    others = [
        (b"get a b c\r\n", BUSY), (b"gets k\r\n", BUSY), (b"mg k v\r\n", BUSY), (b"set k 0 0 3\r\nabc\r\n", BUSY),
        (b"set k 0 0 3 noreply\r\nabc\r\n", b""), (b"mn\r\n", b"MN\r\n"), (b"version\r\n", None),
        (b"get " + b"x" * 251 + b"\r\n", b"CLIENT_ERROR bad command line format\r\n"), (b"get\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"nonsense\r\n", b"ERROR\r\n"),
    ]  # fmt: skip
    choices = random.Random(SEED)
    with Server("-t 1 -m 64 --overload-test-refusal true") as node, node.client() as client:
        client.send(b"version\r\n")
        version = client.line().encode() + b"\r\n"
        refused = 0
        # The last is more than goes out, and more than is looked at, in a turn.
        for length in [*(choices.randrange(1, 400) for _ in range(30)), 20_000]:
            sent, wanted, gets = b"", b"", 0
            for _ in range(length):
                if choices.random() < 0.9:
                    sent, wanted, gets = sent + choices.choice(plain), wanted + BUSY, gets + 1
                else:
                    line, reply = choices.choice(others)
                    sent, wanted = sent + line, wanted + (version if reply is None else reply)
            assert exchanged(client, sent, len(wanted)) == wanted, f"MARTLET_SEED={SEED}"
            refused += gets
        counts = client.stats("overload")
        counted = sum(int(number) for name, number in counts.items() if name.startswith("shed_default_"))
        assert counted > refused > 1000


def test_a_pipeline_under_overload_keeps_its_order(tmp_path):
    """Some of a buffer's reads are served and some refused: each key's answer is in its place."""
    with Node(tmp_path, target="1ms", service="100us") as node, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.server.client()) for _ in range(8)]
        for number in range(10):
            assert clients[0].set(f"k{number}", b"v%d" % number) == "STORED"
        served = refused = 0
        deadline = time.monotonic() + 20
        while (served < 200 or refused < 200) and time.monotonic() < deadline:
            for client in clients:
                client.send(b"".join(b"get k%d\r\n" % (number % 10) for number in range(300)))
            for client, number in itertools.product(clients, range(300)):
                line = client.line()
                if line == "SERVER_ERROR 307 busy":
                    refused += 1
                    continue
                key = number % 10
                assert line == f"VALUE k{key} 0 2" and client.line() == f"v{key}" and client.line() == "END"
                served += 1
        print(served, refused)
        assert served >= 200 and refused >= 200


def test_a_class_is_named_by_its_name_or_letter_and_no_higher_than_the_listeners(tmp_path):
    low = free_port()
    wanted = {
        "": ("default", "background"), " Pcritical": ("critical", "background"), " Pc": ("critical", "background"),
        " Pb": ("background", "background"), " v Psheddable": ("sheddable", "background"),
        # Tokens of others, which mean something to them.
        " Pcr": ("default", "background"), " Pbackend-7": ("default", "background"), " Pcriticalx": ("default", "background"),
    }  # fmt: skip
    file = tmp_path / "node.yaml"
    file.write_text("overload: {testRefusal: true, listeners: [{tag: low, class: background}]}\n")
    port = free_port()
    words = ["-l", f"127.0.0.1:{port},tag[low]:127.0.0.1:{low}", "-t", "1", "--config", str(file)]
    with Server(words, listen=False, wait=("127.0.0.1", port)) as server, server.client() as high:
        def counts():
            return {name: int(high.stats("overload")[f"shed_{name}_ratio"]) for name in ("critical", "default", "sheddable", "background")}

        with contextlib.closing(socket.create_connection(("127.0.0.1", low))) as connection:
            for token, classes in wanted.items():
                for is_low, expected in enumerate(classes):
                    before = counts()
                    if is_low:
                        connection.sendall(f"mg k{token}\r\n".encode())
                        assert connection.recv(100) == BUSY
                    else:
                        assert high.ask(f"mg k{token}") == "SERVER_ERROR 307 busy"
                    after = counts()
                    assert {name for name in after if after[name] > before[name]} == {expected}, (token, is_low)
