# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What passes through a router: every command, in order, whole, whatever its size and its server."""

import os
import random
import struct

import pytest
from bed import Server
from differential.generator import generate
from differential.judge import Judge
from differential.pair import Pair

SEED = int(os.environ.get("MARTLET_SEED") or 77)
# Commands about one server's insides, which a router refuses or answers by itself.
INSIDES = (
    b"stats", b"lru", b"slabs", b"cache_memlimit", b"config", b"watch", b"extstore", b"refresh", b"debugtime",
    b"shutdown", b"verbosity", b"me ",
)  # fmt: skip
BINARY_STAT = b"\x80\x10"


def of_items_only(stream):
    """Whether a stream of the generator says nothing but what a router passes on, and is whole."""
    if stream.dangling or stream.dirty:
        return False
    for command in stream.commands:
        said = command.before.lstrip()
        if said.startswith(INSIDES) or BINARY_STAT in command.before or len(command.before) > 200_000:
            return False
    return True


def test_a_router_before_one_node_answers_as_the_node_to_the_byte(fleet, monkeypatch):
    """Streams of random commands, all three protocols, cut at random places, to a node and to a router before one."""
    monkeypatch.setenv("MARTLET_FLEET", "1")
    pair = Pair(fleet, os.environ["MARTLET_NODE"])
    judged, number, different = 0, 0, []
    try:
        judge = Judge(pair, (1, 6, 45), False)
        while judged < 400:
            stream = generate(SEED, number)
            number += 1
            if not of_items_only(stream):
                continue
            verdict = judge.judge(stream)
            judged += 1
            if verdict.outcome == "different":
                different.append(verdict.detail)
    finally:
        pair.stop()
    assert not different, f"seed {SEED}: {len(different)} of {judged} differ\n" + "\n\n".join(different[:5])


def test_a_get_of_200_000_keys_is_split_and_gathered(client):
    names = [f"many-{number}" for number in range(5000)]
    client.send("".join(f"set {name} 0 0 {len(name)} noreply\r\n{name}\r\n" for name in names) + "mn\r\n")
    assert client.line() == "MN"
    wanted = [f"many-{number % 10_000}" for number in range(200_000)]
    client.socket.settimeout(60)
    client.send("get " + " ".join(wanted) + "\r\nmn\r\n")
    seen = 0
    while True:
        head = client.line()
        if head == "END":
            break
        _, key, _, length = head.split()
        assert client.read(int(length) + 2) == key.encode() + b"\r\n"
        seen += 1
    assert seen == sum(int(name[5:]) < 5000 for name in wanted)
    assert client.line() == "MN"


def test_replies_keep_the_order_of_requests_over_all_nodes(client):
    chance = random.Random(SEED)
    model, sent, expected = {}, [], []
    for _ in range(20_000):
        key = f"order-{chance.randrange(300)}"
        what = chance.random()
        if what < 0.3:
            value = "v" * chance.randrange(200)
            quiet = chance.random() < 0.3
            sent.append(f"set {key} 0 0 {len(value)}{' noreply' if quiet else ''}\r\n{value}\r\n")
            model[key] = value
            if not quiet:
                expected.append("STORED\r\n")
        elif what < 0.4:
            sent.append(f"delete {key}\r\n")
            expected.append("DELETED\r\n" if model.pop(key, None) is not None else "NOT_FOUND\r\n")
        elif what < 0.6:
            sent.append(f"mg {key} v q O{len(sent)}\r\n")
            if key in model:
                expected.append(f"VA {len(model[key])} O{len(sent) - 1}\r\n{model[key]}\r\n")
        elif what < 0.65:
            sent.append("mn\r\n")
            expected.append("MN\r\n")
        else:
            sent.append(f"get {key}\r\n")
            found = f"VALUE {key} 0 {len(model[key])}\r\n{model[key]}\r\n" if key in model else ""
            expected.append(found + "END\r\n")
    expected = "".join(expected).encode()
    for start in range(0, len(sent), 1000):
        client.send("".join(sent[start : start + 1000]))
    assert client.read(len(expected)) == expected


def test_noreply_hides_errors_and_costs_no_place(client):
    client.send("set n 0 0 1 noreply\r\n1\r\nincr missing 1 noreply\r\nadd n 0 0 1 noreply\r\n2\r\nget n\r\n")
    assert [client.line() for _ in range(3)] == ["VALUE n 0 1", "1", "END"]


def test_large_values_pass_both_ways_between_small_ones(client):
    values = {f"large-{size}": os.urandom(size) for size in (70_000, 262_144, 1_000_000, 9_000_000)}
    client.socket.settimeout(60)
    for key, value in values.items():
        assert client.set(key, value) == "STORED"
    client.set("small", "s")
    client.send("".join(f"get {key}\r\nget small\r\n" for key in values))
    for key, value in values.items():
        assert client.line() == f"VALUE {key} 0 {len(value)}"
        assert client.read(len(value) + 7) == value + b"\r\nEND\r\n"
        assert [client.line() for _ in range(3)] == ["VALUE small 0 1", "s", "END"]
    client.send("get small " + " ".join(values) + "\r\n")
    seen = set()
    while True:
        head = client.line()
        if head == "END":
            break
        _, key, _, length = head.split()
        assert client.read(int(length) + 2)[:-2] == values.get(key, b"s")
        seen.add(key)
    assert seen == {"small", *values}


def test_a_value_beyond_the_limit_is_refused_and_skipped(client):
    client.socket.settimeout(60)
    size = (16 << 20) + 100_000
    client.send(f"set huge 0 0 {size}\r\n".encode() + b"x" * size + b"\r\nmn\r\n")
    assert client.line() == "SERVER_ERROR object too large for cache"
    assert client.line() == "MN"


def test_binary_keeps_opaque_cas_and_silence(client, router):
    def packet(opcode, key=b"", extras=b"", value=b"", opaque=0, cas=0):
        body = extras + key + value
        return struct.pack("!BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, len(body), opaque, cas) + body

    with router.client() as one:
        one.send(
            packet(0x11, b"bin", struct.pack("!II", 5, 0), b"value", 1)  # SETQ: silent
            + packet(0x09, b"nobody", opaque=2)  # GETQ of nothing: silent
            + packet(0x0D, b"bin", opaque=3)  # GETKQ
            + packet(0x14, b"nobody", opaque=4)  # DELETEQ: an error speaks
            + packet(0x0A, opaque=5)
        )
        replies = []
        while not replies or replies[-1][0] != 0x0A:
            head = struct.unpack("!BBHBBHIIQ", one.read(24))
            replies.append((head[1], head[5], head[7], one.read(head[6])))
    assert replies == [
        (0x0D, 0, 3, struct.pack("!I", 5) + b"binvalue"), (0x14, 1, 4, b"Not found"), (0x0A, 0, 5, b""),
    ]  # fmt: skip
    assert client.get("bin") == b"value"


@pytest.mark.parametrize("command", ["lru_crawler metadump all", "watch", "cache_memlimit 10", "slabs automove 0"])
def test_what_is_about_one_server_is_refused_clearly(client, command):
    assert client.ask(command) == f"SERVER_ERROR the router does not pass on {command.split()[0]}"
    assert client.ask("mn") == "MN"


def test_flush_all_needs_leave_and_reaches_every_server(client, nodes, route):
    for number in range(50):
        client.set(f"flush-{number}", "x")
    assert client.ask("flush_all") == "CLIENT_ERROR flush_all not allowed"
    with route(nodes, "--commands-flush-all").client() as other:
        assert other.ask("flush_all") == "OK"
        other.send("flush_all noreply\r\nmn\r\n")
        assert other.line() == "MN"
    for node in nodes:
        with node.client() as direct:
            assert direct.stats()["curr_items"] == "0"


def test_quit_comes_after_the_replies_before_it(router):
    with router.client() as one:
        one.send("set bye 0 0 1\r\nx\r\nget bye\r\nquit\r\n")
        assert one.until_closed() == b"STORED\r\nVALUE bye 0 1\r\nx\r\nEND\r\n"


def test_a_client_that_ends_its_input_gets_its_replies(router):
    with router.client() as one:
        one.send("set half 0 0 1\r\nx\r\nget half\r\n")
        one.socket.shutdown(1)
        assert one.until_closed() == b"STORED\r\nVALUE half 0 1\r\nx\r\nEND\r\n"


def test_protocols_meet_on_the_same_keys(client, router, nodes):
    """A key in base64, the same in binary, and a client that hashes for itself with the router's ring."""
    import base64

    key = b"with space"
    encoded = base64.b64encode(key).decode()
    client.send(f"ms {encoded} 5 b\r\nhello\r\n")
    assert client.line() == "HD"
    with router.client() as one:
        one.send(struct.pack("!BBHBBHIIQ", 0x80, 0, len(key), 0, 0, 0, len(key), 9, 0) + key)
        head = struct.unpack("!BBHBBHIIQ", one.read(24))
        assert one.read(head[6])[4:] == b"hello"


def test_servers_over_unix_sockets_and_ipv6(route, tmp_path):
    path = tmp_path / "node.sock"
    with Server("-m 64", unix=path), Server("-m 64 -l ::1", listen=False, wait=None) as _:
        router = route([str(path)], f"--listen {tmp_path}/router.sock", listen=False, wait=str(tmp_path / "router.sock"))
        with router.client() as one:
            assert one.set("u", "1") == "STORED"
            assert one.get("u") == b"1"
