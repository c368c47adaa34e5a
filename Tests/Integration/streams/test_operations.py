# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What operators have a node do with the stream that it follows."""

import time

import pytest

from . import test_kafka as kafka
from .promotion import TOKEN, control
from .region import FakeSource, RegionNode, eventually, regions
from .test_streams import Pair

pytestmark = pytest.mark.ours


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


def test_what_is_kept_comes_again_and_changes_only_what_was_wrong(tmp_path, token):
    options = {"admin": True, "admin_token_file": token}
    with Pair(tmp_path, replica={"mode": "replicate", "lagBound": "30s"}, **options) as both:
        with both.home.client() as home, both.replica.client() as replica:
            for number in range(200):
                home.set(f"key:{number}", b"%d" % number)
            eventually(lambda: replica.get("key:199") == b"199")
            # Figures are written down once a second.
            before = both.replica.await_figures(backlog=0, connections=1)
            # Somebody took copies away that the stream would not tell of again.
            replica.ask("delete key:7")
            assert replica.get("key:7") is None
            code, out, said = control("stream", "replay", admin=both.replica.admin, token=token)
            assert (code, out) == (0, "What is kept of 64 slots comes again\n"), said
            assert eventually(lambda: replica.get("key:7")) == b"7"
            after = both.replica.await_figures(records=lambda count: count >= before["records"] + 200, trusted="yes")
            assert after["quarantines"] == before["quarantines"] and after["gaps"] == before["gaps"], (before, after)
            # And the stream goes on behind it, without a gap.
            for number in range(200):
                home.set(f"key:{number}", b"again")
            eventually(lambda: replica.get("key:199") == b"again")
            last = both.replica.await_figures(backlog=0, missing_slots=0)
            assert last["gaps"] == before["gaps"]
            code, out, _ = control("stream", "replay", "--slot=3", "--json", admin=both.replica.admin, token=token)
            assert (code, out) == (0, '{"asked":true,"slots":1}\n')


def test_a_slot_that_is_skipped_is_given_up_and_the_others_are_not(tmp_path, token):
    options = {"admin": True, "admin_token_file": token}
    with Pair(tmp_path, replica={"mode": "replicate", "lagBound": "30s"}, **options) as both:
        with both.home.client() as home, both.replica.client() as replica:
            for number in range(300):
                home.set(f"key:{number}", b"v")
            eventually(lambda: replica.get("key:299"))
            before = both.replica.await_figures(backlog=0, connections=1)
            code, out, said = control("stream", "skip", "--slot=17", admin=both.replica.admin, token=token)
            assert (code, out) == (0, "The copies of 1 slot are given up\n"), said
            after = both.replica.await_figures(quarantines=before["quarantines"] + 1, quarantined_slots=0)
            there = sum(replica.get(f"key:{number}") is not None for number in range(300))
            assert 270 <= there < 300, f"{there} of 300: about one in 64 is in the slot"
            assert after["trusted"] == "yes"
            home.set("key:1", b"new")
            eventually(lambda: replica.get("key:1") == b"new")


def test_a_slot_that_waits_is_asked_for_again(tmp_path, token):
    source = FakeSource()
    node = RegionNode(
        tmp_path / "node", "eu-west", regions(source.port), {"lagBound": "30s"}, admin=True, admin_token_file=token)
    try:
        node.start()
        node.await_figures(trusted="yes")
        # It says that there is a record which it never sends.
        source.sequences[5] = 1
        node.await_figures(missing_slots=1)
        asked = source.seeks.count(5)
        code, out, said = control("stream", "repair", admin=node.admin, token=token)
        assert (code, out) == (0, "What is missing was asked for again\n"), said
        eventually(lambda: source.seeks.count(5) > asked)
        code, _, said = control("stream", "skip", "--slot=5", admin=node.admin, token=token)
        assert code == 0, said
        node.await_figures(missing_slots=0, quarantined_slots=0, trusted="yes")
    finally:
        node.stop()
        source.close()


def test_what_cannot_be_asked_for(tmp_path, token):
    options = {"admin": True, "admin_token_file": token}
    with Pair(tmp_path, **options) as both:
        for words, expected in (
            (["skip"], "stream skip needs --slot"), (["skip", "--slot=64"], "expected a number from 0 to 63, or all"),
            (["replay", "--slot=x"], "expected a number from 0 to 63, or all"), ([], "stream status, tail, repair, replay or skip"),
        ):  # fmt: skip
            code, _, said = control("stream", *words, admin=both.replica.admin, token=token)
            assert code == 64 and expected in said, said
        code, _, said = control("stream", "replay", admin=both.replica.admin)
        assert code == 69 and "401" in said, "without the token"
        code, _, said = control("stream", "replay", admin=both.home.admin, token=token)
        assert code == 69 and "this node follows no stream" in said, said
        both.relay.cut()
        time.sleep(0.2)
        for word in ("repair", "replay"):
            code, _, said = control("stream", word, admin=both.replica.admin, token=token)
            assert code == 69 and "there is no connection to us-east" in said, said


def test_copies_are_given_up_without_a_connection_too(tmp_path, token):
    options = {"admin": True, "admin_token_file": token}
    with Pair(tmp_path, replica={"mode": "replicate", "lagBound": "60s"}, **options) as both:
        with both.home.client() as home, both.replica.client() as replica:
            home.set("k", b"v")
            eventually(lambda: replica.get("k") == b"v")
            before = both.replica.await_figures(backlog=0, connections=1)
            both.relay.cut()
            both.replica.await_figures(peer="none")
            code, out, said = control("stream", "skip", "--slot=all", admin=both.replica.admin, token=token)
            assert (code, out) == (0, "The copies of 64 slots are given up\n"), said
            both.replica.await_figures(quarantines=before["quarantines"] + 64, quarantined_slots=0)
            assert replica.get("k") is None
            home.set("other", b"v")
            both.relay.heal()
            assert eventually(lambda: replica.get("other") == b"v")
            after = both.replica.await_figures(backlog=0, trusted="yes")
            assert after["gaps"] == before["gaps"] and after["quarantines"] == before["quarantines"] + 64


@pytest.mark.parametrize("repairs", [True, False])
def test_orders_are_followed_whichever_way_the_stream_comes(tmp_path, token, repairs):
    with kafka.Pair(tmp_path, repairs, mode="replicate", bound="30s", admin=True, token=token) as both:
        admin = both.replica.admin
        with both.home.client() as home, both.replica.client() as replica:
            for number in range(300):
                home.set(f"key:{number}", b"v")
            for number in range(300):
                eventually(lambda: replica.get(f"key:{number}") == b"v")
            before = both.replica.await_figures(backlog=0, missing_slots=0)
            # A copy that is older than a change which came already.
            assert replica.set("key:7", b"older") == "STORED" and replica.get("key:7") == b"older"
            code, out, said = control("stream", "replay", admin=admin, token=token)
            assert (code, out) == (0, "What is kept of 64 slots comes again\n"), said
            eventually(lambda: replica.get("key:7") is None)
            after = both.replica.await_figures(kafka_replayed=lambda count: count >= 300, trusted="yes")
            assert (after["quarantines"], after["gaps"]) == (before["quarantines"], before["gaps"]), (before, after)
            assert sum(replica.get(f"key:{number}") == b"v" for number in range(300)) == 299, "what is as new stays"

            code, out, said = control("stream", "skip", "--slot=17", admin=admin, token=token)
            assert (code, out) == (0, "The copies of 1 slot are given up\n"), said
            both.replica.await_figures(quarantines=before["quarantines"] + 1, quarantined_slots=0)
            there = sum(replica.get(f"key:{number}") is not None for number in range(300))
            assert 270 <= there < 300, f"{there} of 300: about one in 64 is in the slot"
            code, _, said = control("stream", "skip", "--slot=all", admin=admin, token=token)
            assert code == 0, said
            both.replica.await_figures(quarantines=before["quarantines"] + 65, quarantined_slots=0)
            assert all(replica.get(f"key:{number}") is None for number in range(300))

            code, out, said = control("stream", "repair", admin=admin, token=token)
            if repairs:
                assert (code, out) == (0, "What is missing was asked for again\n"), said
            else:
                assert code == 69 and "409" in said and "the home region has no `stream` in `regions`" in said, said
            # And the stream goes on behind it, without a gap.
            for number in range(300):
                home.set(f"key:{number}", b"again")
            for number in range(300):
                eventually(lambda: replica.get(f"key:{number}") == b"again")
            assert both.replica.await_figures(backlog=0, missing_slots=0, trusted="yes")["gaps"] == before["gaps"]

            for broker in (1, 2, 3):
                both.brokers.down(broker)
            both.replica.await_figures(kafka_connected="no")
            code, _, said = control("stream", "replay", admin=admin, token=token)
            assert code == 69 and "503" in said and "nothing comes of the brokers" in said, said
            code, _, said = control("stream", "skip", "--slot=all", admin=admin, token=token)
            assert code == 0, said
            both.replica.await_figures(quarantines=before["quarantines"] + 129)


@pytest.mark.parametrize(("skew", "way"), [(900, "ahead of"), (-900, "behind")])
def test_a_source_with_another_clock_is_not_followed(tmp_path, skew, way):
    source = FakeSource()
    node = RegionNode(tmp_path / "node", "eu-west", regions(source.port), {"lagBound": "1s"})
    try:
        source.skew = 300
        node.start()
        node.await_figures(trusted="yes")
        with node.client() as client:
            client.set("k", b"v")
            assert client.get("k") == b"v"
            source.skew = skew
            found = node.await_figures(trusted="no", reason=lambda reason: reason and "clock" in reason)
            number = int(found["reason"].split(" is ")[1].split(" ")[0])
            assert found["reason"] == f"the source's clock is {number} ms {way} this node's; 500 ms are allowed"
            assert 500 < number <= 1000
            assert client.get("k") is None, "nothing is proved by it"
        assert "the clocks differ by too much" in node.server.output()
        source.skew = -300
        node.await_figures(trusted="yes")
    finally:
        node.stop()
        source.close()
