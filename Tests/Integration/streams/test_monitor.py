# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The consistency monitor: it finds, counts and explains copies that are older than a change, and says what a healthy
stream's sample shows."""

import io
import json
import re
import struct
import threading
import time

import fastavro
import pytest

from bed import free_port
from operations.test_console import Tiles, browse, chromium  # noqa: F401

from . import test_kafka as kafka
from .region import Consumer, RegionNode, Relay, eventually, regions
from .test_streams import Pair
from .test_tools import TOKEN, token  # noqa: F401
from .test_writes import Fleet

pytestmark = pytest.mark.ours
OLD = (1 << 56) + 5


class GarblingRelay(Relay):
    """Carries a stream, and puts another key in the place of one where it is told to: what a broken wire, or a fault of ours
    in the reading of records, would do. Numbers and slots stay, so that nothing is missing."""

    key = other = None

    def carry(self, source, sink):
        if source.getpeername()[1] == self.target:
            source = _Frames(source, self)
        super().carry(source, sink)


class _Frames:
    """A socket's frames, each whole, batches garbled."""

    def __init__(self, socket, relay):
        self.socket, self.relay, self.buffer = socket, relay, b""

    def recv(self, _):
        while True:
            if len(self.buffer) >= 4:
                (length,) = struct.unpack_from(">I", self.buffer)
                if len(self.buffer) >= 4 + length:
                    frame, self.buffer = self.buffer[: 4 + length], self.buffer[4 + length :]
                    if frame[4] == 8 and self.relay.key:
                        frame = frame.replace(self.relay.key, self.relay.other)
                    return frame
            data = self.socket.recv(65536)
            if not data:
                return b""
            self.buffer += data

    def shutdown(self, how):
        self.socket.shutdown(how)


class Garbled(Pair):
    """A home region and a replica, with a relay between them that garbles."""

    def __init__(self, directory, replica=(), **options):
        super().__init__(directory, replica={"compression": "none", "mode": "replicate", "lagBound": "30s", **dict(replica)},
                         **options)  # fmt: skip
        self.relay.close()
        self.relay = GarblingRelay(self.stream)
        listed = regions(self.relay.port)
        for node in (self.home, self.replica):
            node.rewrite(regions=listed)


def lines(node, path="/stream/inconsistencies"):
    status, body = node.get(path, TOKEN)
    assert status == 200, body
    return [json.loads(line) for line in body.splitlines()]


def test_a_change_that_never_reached_its_key_is_found_counted_and_explained(tmp_path, token):  # noqa: F811
    with Garbled(tmp_path, admin=True, admin_token_file=token) as both:
        with both.home.client() as home, both.replica.client() as replica:
            home.set("victim", b"1")
            eventually(lambda: replica.get("victim") == b"1")
            old = int(home.ask("mg victim c").split("c")[1])
            both.relay.key, both.relay.other = b"victim", b"vIctim"
            # At its rate the monitor takes one of those that come within a tenth of a second.
            time.sleep(0.3)
            home.set("victim", b"2")
            new = int(home.ask("mg victim c").split("c")[1])
            eventually(lambda: replica.get("vIctim") == b"2")
            both.relay.key = None
            found = both.home.await_figures(**{"consistency:1s:stale": 1})
            assert replica.get("victim") == b"1", "it is stale, and the node knows no better"
            assert found["stale_lost"] == 1 and found["monitor_store_reads"] == 1 and found["monitor_nodes"] == 1
            assert found["consistency:1s:samples"] >= 2 and found["consistency:1s:nines"] == 0
            [line] = lines(both.home)
            assert (line["key"], line["cause"], line["after_s"]) == ("victim", "lost", 1)
            assert (line["shown"], line["version"], line["stored"]) == (old, new, new)
            assert line["node"].startswith("eu-west/") and "never reached the key" in line["meaning"]
            # What explains it: the node has the change's number and all before it, and remembers that far back.
            trace = line["trace"]
            assert trace["position"] >= line["seq"] and trace["reach_ms"] >= 1000
            # It joined, and got the first value; of the second there is nothing.
            assert [event["what"] for event in trace["events"]] == ["quarantined", "installed"]
            assert trace["events"][1]["version"] == old and trace["events"][1]["at_ms"] < 0
            text = both.home.get("/metrics")[1]
            assert 'martlet_consistency_looks_total{after="1s",seen="stale"} 1\n' in text
            assert 'martlet_consistency_causes_total{cause="lost"} 1\n' in text
            said = both.home.server.output()
            assert re.search(r'consistency: a copy is older than a change.*"cause":"lost"', said), said
            assert "victim" not in said, "no keys in the log"
            # The next change puts it right.
            home.set("victim", b"3")
            eventually(lambda: replica.get("victim") == b"3")
            before = both.home.figures()["consistency:1s:samples"]
            found = both.home.await_figures(**{"consistency:1s:samples": lambda count: count > before})
            assert found["consistency:1s:stale"] == 1
        status, _ = both.home.get("/stream/inconsistencies")
        assert status == 401, "keys are shown to who has the token"
        assert both.replica.get("/stream/inconsistencies", TOKEN)[0] in (404, 409)


@pytest.mark.parametrize("backend", ["rocksdb", "postgres"])
def test_a_healthy_stream_reports_all_of_a_sample_consistent(tmp_path, backend):
    fleet = Fleet(tmp_path, backend, home={"monitorRate": 200}, replica={"mode": "replicate"})
    with fleet:
        over = threading.Event()

        def work():
            with fleet.home.client() as home, fleet.replica.client() as replica:
                turn = 0
                while not over.is_set():
                    turn += 1
                    home.set(f"key:{turn % 50}", b"%d" % turn)
                    replica.get(f"key:{turn % 50}")
                    if turn % 7 == 0:
                        replica.set(f"key:{turn % 50}", b"there")
                    time.sleep(0.004)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            found = fleet.home.await_figures(40, **{
                "consistency:1s:samples": lambda count: count >= 600, "consistency:10s:samples": lambda count: count >= 1})  # fmt: skip
        finally:
            over.set()
            thread.join()
        for window in ("1s", "10s"):
            assert found[f"consistency:{window}:stale"] == 0, found
        assert found["consistency:1s:nines"] >= 2.2 and found["stale_unexplained"] == 0
        # One who follows, and the node itself where it follows the database's stream.
        assert found["monitor_nodes"] == (2 if backend == "postgres" else 1)
        if backend == "postgres":
            own = fleet.homes[1].await_figures(**{"monitor_nodes": 1, "consistency:1s:samples": lambda count: count > 0})
            assert own["consistency:1s:stale"] == 0


def test_what_the_monitor_does_is_bounded_by_its_rate(tmp_path):
    with Pair(tmp_path, home={"monitorRate": 5}) as both, both.home.client() as home:
        began = time.monotonic()
        for _ in range(20):
            home.send(b"".join(b"set key:%d 0 0 1 noreply\r\nv\r\n" % number for number in range(500)))
            assert home.ask("mn") == "MN"
            time.sleep(0.05)
        found = both.home.await_figures(monitor_changes=lambda count: count >= 5_000)
        assert 1 <= found["monitor_followed"] <= 5 * (time.monotonic() - began + 2), found
        found = both.home.await_figures(**{"consistency:1s:samples": lambda count: count >= 1})
        assert found["consistency:1s:samples"] <= found["monitor_followed"]


def test_who_does_not_answer_is_no_sample_and_who_is_off_is_not_asked(tmp_path):
    with Pair(tmp_path, home={"monitorRate": 100}, replica={"monitorRate": 0}) as both, both.home.client() as home:
        deaf = Consumer(both.stream, name="deaf")
        deaf.welcome()
        deaf.grant()
        for number in range(30):
            home.set(f"key:{number}", b"v")
        time.sleep(2)
        found = both.home.figures()
        assert found["monitor_followed"] > 0 and found["monitor_nodes"] == 0
        assert found["consistency:1s:samples"] == 0 and found["consistency:1s:nines"] == 0
        assert "monitor_changes" not in both.replica.figures()
        kinds = []
        deaf.send(6, struct.pack(">QQ", 1, 0))
        while not kinds or kinds[-1] != 7:
            kinds.append(deaf.frame()[0])
        assert 16 not in kinds, "an earlier version knows no such frames"
        # One that says that it answers, and then does not, or answers nonsense.
        odd = Consumer(both.stream, name="odd", looks=True)
        odd.welcome()
        odd.grant()
        home.set("asked", b"v")
        number, keys = look(odd)
        assert keys == [b"asked"]
        odd.send(17, struct.pack(">Q", number + 1000) + b"\0" * 10)
        odd.send(17, struct.pack(">Q", number) + struct.pack(">BQB", 2, OLD, 0))
        number, keys, explains = look(odd, flags=True)
        assert explains and keys == [b"asked"]
        trace = struct.pack(">BQB", 2, OLD, 1) + struct.pack(">qqQB", 1, 1 << 40, 1 << 50, 1) + struct.pack(">BQqQ", 3, OLD, 0, 5)
        odd.send(17, struct.pack(">Q", number) + trace)
        found = both.home.await_figures(**{"consistency:1s:stale": 1})
        assert found["stale_lost"] + found["stale_unknown"] == 1
        odd.send(17, b"\1")
        assert eventually(lambda: both.home.figures()["consumers"] == 2), "who breaks the protocol is hung up on"
        deaf.close()
        odd.close()


def look(consumer, flags=False):
    """The next question of the source: its number and keys; with `flags` whether it asks what is remembered."""
    while True:
        kind, body = consumer.frame()
        if kind == 16:
            break
    number, explains = struct.unpack_from(">QB", body)
    keys, at = [], 9
    while at < len(body):
        keys.append(body[at + 1 : at + 1 + body[at]])
        at += 1 + body[at]
    return (number, keys, bool(explains)) if flags else (number, keys)


def test_the_monitor_can_be_switched_off(tmp_path):
    with Pair(tmp_path, home={"monitorRate": 0}) as both, both.home.client() as home:
        home.set("k", b"v")
        time.sleep(0.5)
        assert not [name for name in both.home.figures() if name.startswith(("monitor", "consistency"))]


def test_a_bad_rate_stops_the_start(tmp_path):
    node = RegionNode(tmp_path / "node", "us-east", regions(free_port()), {"monitorRate": 1001}, backend="rocksdb")
    with pytest.raises(Exception, match="monitorRate"):
        node.start()


def test_the_console_shows_consistency(tmp_path, chromium):  # noqa: F811
    with Pair(tmp_path, home={"monitorRate": 100}, replica={"mode": "replicate"}, admin=True) as both, both.home.client() as home:
        for number in range(30):
            home.set(f"key:{number}", b"v")
        found = both.home.await_figures(**{"consistency:1s:samples": lambda count: count >= 10})
        content = browse(chromium, both.home)
        assert not chromium.complaints, chromium.complaints
        text = Tiles(content).text
        place = text.index("Consistency, by the time since a change")
        assert text[place + 1 : place + 5] == ["after", "nines", "looks", "stale"]
        assert text[place + 5] == "1s" and float(text[place + 7]) >= found["consistency:1s:samples"] and text[place + 8] == "0"


def test_followers_through_kafka_are_asked_where_home_can_be_reached(tmp_path):
    with kafka.Pair(tmp_path, repairs=True, mode="replicate", bound="30s", admin=True) as both:
        with both.home.client() as home, both.replica.client() as replica:
            both.replica.await_figures(monitored="yes")
            assert "martlet_stream_monitored 1\n" in both.replica.get("/metrics")[1]
            home.set("victim", b"1")
            eventually(lambda: replica.get("victim") == b"1")
            found = both.home.await_figures(**{"consistency:1s:samples": 1})
            assert found["monitor_nodes"] == 1 and found["consistency:1s:stale"] == 0
            assert found["consumers"] == 0, "it gets nothing over the connection"
            # A record that home never wrote, in the place of the next one of the slot: that one changes nothing then.
            [(partition, value)] = [
                (partition, value) for partition, _, key, value in both.brokers.messages() if key == b"victim"]
            record, _ = kafka.decode(value)
            last = record["seq"]
            record |= {"key": b"", "seq": last + 1, "seq_first": last + 1, "value": None, "flags": None}
            out = io.BytesIO()
            fastavro.schemaless_writer(out, kafka.SCHEMA, record)
            before = both.replica.figures()["records"]
            both.brokers.put(partition, value[:10] + out.getvalue())
            both.replica.await_figures(records=before + 1)
            time.sleep(0.3)
            home.set("victim", b"2")
            found = both.home.await_figures(**{"consistency:1s:stale": 1})
            assert replica.get("victim") == b"1", "it is stale, and the node knows no better"
            assert found["stale_lost"] == 1, found
        # The connection is there again when home is, and asks for what is missing as ever.
        both.home.restart(crash=True)
        both.replica.await_figures(monitored="no")
        both.replica.await_figures(monitored="yes")
        with both.home.client() as home:
            home.set("other", b"1")
        both.home.await_figures(monitor_nodes=1, **{"consistency:1s:samples": 1})


def test_a_follower_through_kafka_that_nobody_can_ask_says_so(tmp_path):
    with kafka.Pair(tmp_path, bound="30s", admin=True) as both, both.home.client() as home:
        home.set("k", b"1")
        assert both.replica.figures()["monitored"] == "no"
        assert "martlet_stream_monitored 0\n" in both.replica.get("/metrics")[1]
        time.sleep(1.5)
        found = both.home.figures()
        assert found["monitor_nodes"] == 0 and found["consistency:1s:samples"] == 0
