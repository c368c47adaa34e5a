# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Names of those who follow a stream: each node has its own, and comes again under it."""

import socket
import struct
import threading
import time

import pytest

from bed import free_port

from .region import Consumer, RegionNode, Relay, eventually, regions

pytestmark = pytest.mark.ours


class Namesake(Consumer):
    """A consumer of the name `same` that reads what comes by itself, and answers for as long as it is alive."""

    def __init__(self, port):
        super().__init__(port, name="same")
        self.kinds, self.probe, self.answered, self.is_alive = [], 0, 0, True
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self.read, self.ask)]
        for thread in self.threads:
            thread.start()

    def read(self):
        try:
            while frame := self.frame():
                self.kinds.append(frame[0])
                if frame[0] == 7:
                    self.answered = struct.unpack_from(">Q", frame[1])[0]
        except (OSError, ValueError):
            pass

    def ask(self):
        try:
            while self.is_alive:
                if 2 in self.kinds:
                    self.probe += 1
                    self.send(6, struct.pack(">QQ", self.probe, self.answered))
                time.sleep(0.2)
        except OSError:
            pass

    def leave(self):
        self.is_alive = False
        self.socket.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.close()


class Namesakes:
    """A home region's node, a relay to it, and nodes of a replica region that have one name."""

    def __init__(self, directory):
        stream = free_port()
        self.relay = Relay(stream)
        self.home = RegionNode(
            directory / "home", "us-east", regions(stream), {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb")
        self.first = RegionNode(directory / "first", "eu-west", regions(self.relay.port), {"name": "same"})
        self.second = RegionNode(directory / "second", "eu-west", regions(stream), {"name": "same"})

    def __enter__(self):
        self.home.start()
        self.first.start()
        self.first.await_figures(trusted="yes", quarantined_slots=0)
        return self

    def __exit__(self, *_):
        for node in (self.first, self.second, self.home):
            node.stop()
        self.relay.close()


def test_a_second_node_of_a_name_is_refused_and_the_first_stays(tmp_path):
    with Namesakes(tmp_path) as nodes:
        nodes.second.start()
        reason = "refused: another node follows as eu-west/same; stream.name is each node's own"
        nodes.second.await_figures(reason=reason, trusted="no")
        time.sleep(3)
        nodes.second.await_figures(reason=reason, trusted="no")
        found = nodes.first.figures()
        assert found["trusted"] == "yes" and found["connections"] == 1 and found["losses"] == 0
        assert nodes.home.figures()["consumers"] == 1
        # Once the first is gone, the name is the other's.
        nodes.first.stop()
        nodes.second.await_figures(trusted="yes", quarantined_slots=0)


def test_a_node_that_comes_again_is_let_in(tmp_path):
    with Namesakes(tmp_path) as nodes:
        nodes.first.restart(crash=True)
        nodes.first.await_figures(trusted="yes", quarantined_slots=0)
        # Nobody tells home that the connection is lost: the node gives it up, and comes by another one.
        nodes.relay.is_held = True
        nodes.first.await_figures(losses=lambda count: count >= 1)
        eventually(lambda: nodes.home.figures()["consumers"] >= 1)
        nodes.relay.heal()
        nodes.first.await_figures(seconds=8, trusted="yes")
        assert nodes.home.figures()["consumers_refused"] == 0


def test_of_several_that_wait_for_a_name_one_is_let_in(tmp_path):
    stream = free_port()
    with RegionNode(tmp_path, "us-east", regions(stream), {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb") as home:
        first = Namesake(stream)
        eventually(lambda: first.kinds == [2] or 7 in first.kinds)
        # It says nothing any more: nobody is refused for its sake.
        first.is_alive = False
        others = [Namesake(stream) for _ in range(3)]
        time.sleep(0.3)
        assert not any(other.kinds for other in others), "they wait"
        first.leave()
        eventually(lambda: sum(2 in other.kinds for other in others) >= 1)
        eventually(lambda: sum(3 in other.kinds for other in others) == 2, 5)
        [one] = [other for other in others if 2 in other.kinds]
        assert 3 not in one.kinds and home.figures()["consumers"] == 1
        # A newcomer is judged by the one that was let in.
        late = Namesake(stream)
        eventually(lambda: late.kinds == [3], 5)
        assert home.figures()["consumers"] == 1
        for consumer in (*others, late):
            consumer.leave()


def test_of_three_nodes_of_a_name_one_follows_when_nothing_is_heard_of_the_first(tmp_path):
    with Namesakes(tmp_path) as nodes:
        third = RegionNode(tmp_path / "third", "eu-west", nodes.second.document["regions"], {"name": "same"})
        with nodes.second, third:
            both = (nodes.second, third)
            for node in both:
                node.await_figures(reason=lambda reason: reason.startswith("refused: another node follows"))
            nodes.relay.is_held = True
            eventually(lambda: any(node.figures()["trusted"] == "yes" for node in both))
            time.sleep(4)
            found = [node.figures() for node in both]
            assert sorted(figures["trusted"] for figures in found) == ["no", "yes"], found
            [one] = [node for node, figures in zip(both, found, strict=True) if figures["trusted"] == "yes"]
            before = one.figures()["connections"]
            nodes.relay.heal()
            nodes.first.await_figures(reason=lambda reason: reason.startswith("refused: another node follows"))
            assert one.figures()["trusted"] == "yes" and one.figures()["connections"] == before
