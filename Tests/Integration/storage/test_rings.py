# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Three nodes that share a PostgreSQL: nobody sees what is stale, whatever the ring does.

Samples; `Scripts/soak-rings` goes on for longer.
"""

import os
import socket
import struct
import time

import pytest

from . import database
from .rings import FLAP, Fleet, Member, run_round

pytestmark = pytest.mark.ours
SEED = int(os.environ.get("MARTLET_SEED") or time.time_ns() % 100_000)


def judge(result):
    print(result["counts"])
    assert not result["failures"], f"MARTLET_SEED={result['seed']}\n" + "\n".join(result["failures"][:3])
    return result["counts"]


@pytest.fixture(autouse=True)
def needs_a_database():
    if not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")


def test_through_a_router_while_the_ring_flaps(tmp_path):
    counts = judge(run_round(SEED, 200_000, "flap", directory=tmp_path, seconds=5 * FLAP, least=3_000))
    assert counts["checked"] > 1_000
    assert counts["epoch"] > 2
    assert counts["ring_moved"] > 0 and counts["ring_swept"] > 0


def test_through_a_router_while_nodes_die_and_stand_still(tmp_path):
    counts = judge(run_round(SEED, 200_000, "everything", directory=tmp_path, seconds=15, least=2_000))
    assert counts["checked"] > 500
    assert counts.get("kills", 0) + counts.get("stood still", 0) >= 2


def test_through_any_node_while_the_ring_flaps(tmp_path):
    counts = judge(run_round(SEED, 200_000, "flap", directory=tmp_path, seconds=12, least=3_000, direct=True))
    assert counts["checked"] > 1_000
    assert counts["ring_forwarded"] > 100


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("fleet")) as one:
        yield one


def owner(fleet, key):
    """The node that has the key, and one that has not."""
    has, others = None, []
    for node in fleet.nodes:
        with node.client() as client:
            assert client.ask("config get owners").startswith("OWNERS ")
            said = client.ask(f"mg {key} c")
        (others.append(node) if "302" in said else None)
        has = has if "302" in said else node
    assert has and len(others) == 2
    return has, others


def test_every_key_is_one_nodes(fleet):
    shares = {node.address: 0 for node in fleet.nodes}
    for number in range(60):
        shares[owner(fleet, f"share-{number}")[0].address] += 1
    assert min(shares.values()) >= 5, shares


def test_who_asked_is_told_where_a_key_is(fleet):
    has, others = owner(fleet, "told")
    with others[0].client() as client:
        epoch = client.ask("config get owners").split()[1]
        moved = f"SERVER_ERROR 302 try again {epoch} {has.address}"
        assert int(epoch) >= 1
        assert client.ask("get told") == moved
        assert client.ask("mg told v") == moved
        assert client.ask("incr told 1") == moved
        client.send("set told 0 0 1\r\nx\r\n")
        assert client.line() == moved
        # Of a get of several keys, the line takes the place of the rest; what follows is answered.
        client.send("get told told2 told3\r\nmn\r\n")
        lines = [client.line()]
        while lines[-1] != "MN":
            lines.append(client.line())
        assert moved in lines or "END" in lines


def test_who_did_not_ask_is_answered_all_the_same(fleet):
    """Any client at any node: commands go to the owner, and their replies come back in order."""
    for number, node in enumerate(fleet.nodes):
        with node.client() as client:
            keys = [f"any-{number}-{n}" for n in range(30)]
            for key in keys:
                assert client.set(key, f"value of {key}") == "STORED"
            client.send("get " + " ".join([*keys, "any-nothing"]) + "\r\nmn\r\n")
            lines = [client.line()]
            while lines[-1] != "MN":
                lines.append(client.line())
            wanted = [line for key in keys for line in (f"VALUE {key} 0 {len(key) + 9}", f"value of {key}")]
            assert lines == [*wanted, "END", "MN"]
            for key in keys[:6]:
                assert client.ask(f"incr {key} 1").startswith("CLIENT_ERROR")
                assert client.ask(f"touch {key} 0") == "TOUCHED"
                assert client.ask(f"ms {key} 2 q\r\nhi\r\nmn") == "MN"
                assert client.ask(f"mg {key} v Oxyz") == "VA 2 Oxyz"
                assert client.line() == "hi"
                client.send(f"set {key} 0 0 3 noreply\r\nabc\r\nget {key}\r\n")
                assert [client.line() for _ in range(3)] == [f"VALUE {key} 0 3", "abc", "END"]
                assert client.ask(f"mg {key}-missing v q\r\nmn") == "MN"
                assert client.ask(f"delete {key}") == "DELETED"
                assert client.ask(f"get {key}") == "END"
            large = "x" * 300_000
            client.send(f"set large-{number} 0 0 {len(large)}\r\n{large}\r\n")
            assert client.line() == "STORED"
            assert client.ask(f"mg large-{number} s") == f"HD s{len(large)}"
    assert sum(node.statistics()["ring_forwarded"] for node in fleet.nodes) > 100


def test_binary_clients_are_passed_on_too(fleet):
    def packet(opcode, key, extras=b"", value=b"", opaque=7):
        body = extras + key + value
        return struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, len(body), opaque, 0) + body

    for number, node in enumerate(fleet.nodes):
        with socket.create_connection(("127.0.0.1", node.port), 5) as client:
            file = client.makefile("rb")
            for n in range(12):
                key = b"binary-%d-%d" % (number, n)
                client.sendall(packet(0x11, key, struct.pack(">II", 5, 0), b"one") + packet(0x00, key, opaque=9))
                head = struct.unpack(">BBHBBHIIQ", file.read(24))
                assert head[1] == 0x00 and head[5] == 0 and head[7] == 9, head
                assert file.read(head[6]) == struct.pack(">I", 5) + b"one"
                client.sendall(packet(0x04, key))
                head = struct.unpack(">BBHBBHIIQ", file.read(24))
                assert head[1] == 0x04 and head[5] == 0


def test_a_router_follows_owners(fleet):
    with fleet.client() as client:
        for number in range(100):
            assert client.set(f"follow-{number}", f"value {number}") == "STORED"
        for number in range(100):
            assert client.ask(f"mg follow-{number} v") == f"VA {len(f'value {number}')}"
            assert client.line() == f"value {number}"
        client.send("get " + " ".join(f"follow-{number}" for number in range(100)) + "\r\n")
        lines = [client.line()]
        while lines[-1] != "END":
            lines.append(client.line())
        assert len(lines) == 201


def test_copies_that_went_elsewhere_are_removed(fleet):
    with fleet.client() as client:
        for number in range(300):
            assert client.set(f"gone-{number}", "x" * 50) == "STORED"
    before = sum(node.statistics()["ring_swept"] for node in fleet.nodes)
    fleet.want(fleet.nodes[:2])
    two = {",".join(sorted(node.address for node in fleet.nodes[:2]))}
    database.until(lambda: {node.statistics()["ring_members"] for node in fleet.nodes} == two, what="their ring")
    database.until(
        lambda: sum(node.statistics()["ring_swept"] for node in fleet.nodes) - before > 50, what="sweeping")
    fleet.want(fleet.nodes)
    time.sleep(1.2)
    fleet.settle()
    with fleet.client() as client:
        for number in range(300):
            assert client.ask(f"mg gone-{number} s") == "HD s50"


def test_a_lease_that_ran_out_shows_no_copies(fleet):
    """The authority's connection is held up: reads go to the store meanwhile, and writes are right."""
    has, _ = owner(fleet, "lapse")
    with has.client() as client:
        assert client.set("lapse", "1") == "STORED"
        assert client.ask("mg lapse v h") == "VA 1 h0"
        client.line()
        before = has.statistics()
        with_lock = database.shared().lock(fleet.name, "LOCK martlet_lease IN ACCESS EXCLUSIVE MODE")
        try:
            database.until(lambda: not has.statistics()["ring_is_leased"], what="a lapse")
            for _ in range(5):
                client.ask("mg lapse v")
                assert client.line() == "1"
        finally:
            with_lock.release()
        database.until(lambda: has.statistics()["ring_is_leased"], what="a new lease")
        after = has.statistics()
    assert after["ring_withheld"] - before["ring_withheld"] >= 5
    assert after["reads_sent"] - before["reads_sent"] >= 5


def test_a_node_with_another_lease_is_not_let_in(fleet, tmp_path):
    odd = Member(tmp_path / "odd", "odd", fleet.url, fleet.members, "--ownership-lease", "2s")
    with odd:
        database.until(lambda: "other nodes have another ownership" in odd.server.output(), what="a refusal")
        assert odd.statistics()["ring_epoch"] == 0
        with odd.client() as client:
            assert client.ask("get odd").startswith("SERVER_ERROR storage: nobody is known to own the key")
    fleet.settle()


def test_a_name_is_not_taken_from_a_node_that_lives(fleet, tmp_path):
    """A second process with a node's name, elsewhere, ends with an error that says so; the first one notices nothing."""
    first = fleet.nodes[0]
    before = first.statistics()
    twin = Member(tmp_path / "twin", "twin", fleet.url, fleet.members, "--register-name", first.address)
    with twin:
        with twin.client() as client:
            assert client.ask("get twin").startswith("SERVER_ERROR storage: nobody is known to own the key")
        database.until(lambda: twin.server.process.poll() is not None, what="its end", seconds=20)
        said = twin.server.output()
        assert twin.server.process.poll() == 71, said
        assert f"another process that lives has the name {first.address} in the ring" in said, said
        assert "each node needs a register.name of its own" in said, said
    after = first.statistics()
    assert after["ring_is_leased"] and after["ring_epoch"] == before["ring_epoch"]
    # Started again where it was, a node has its name at once, however it ended.
    asked = time.monotonic()
    first.kill()
    first.start()
    database.until(lambda: first.statistics()["ring_is_leased"], what="its lease")
    assert "another process has this node's name" not in first.server.output()
    print(f"serving again after {time.monotonic() - asked:.1f} s")
    fleet.settle()


def test_what_does_not_go_together_is_refused(tmp_path):
    from .node import Node

    for settings, says in [
        ({"ownership_hash": "ketama"}, "only postgres and region can be shared"),
        ({"ownership_hash": "nonsense"}, "--ownership-hash"),
    ]:
        code, said = Node(tmp_path, backend="memory", **settings).refuse()
        assert code != 0 and says in said, said
