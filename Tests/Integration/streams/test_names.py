# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Names of those who follow a stream: each node has its own, and comes again under it."""

import time

import pytest

from bed import free_port

from .region import RegionNode, Relay, eventually, regions

pytestmark = pytest.mark.ours


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
