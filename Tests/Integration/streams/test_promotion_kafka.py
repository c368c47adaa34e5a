# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Another region becomes home where changes go through Kafka: a PostgreSQL and its standby, and a cluster of brokers."""

import time

import pytest

from .brokers import Brokers
from .promotion import Realm
from .region import eventually
from .test_kafka import decode

pytestmark = pytest.mark.ours


@pytest.fixture
def realm(tmp_path):
    with Realm(tmp_path, brokers=Brokers(("inv.main",))) as regions:
        yield regions


def test_home_moves_and_back_under_load_and_nothing_is_lost(realm):
    writers = [realm.write(region) for region in realm.nodes]
    for writer in writers:
        writer.await_more()
    before = realm.south.figures()
    code, report, said = realm.promote("eu-west")
    assert code == 0, said
    assert report["lossless"] is True and report["home"] == "eu-west"
    realm.await_home("eu-west")
    for writer in writers:
        writer.await_more()
    # Who only follows keeps what it has.
    figures = realm.south.await_figures(promotion=1, epochs=before["epochs"] + 1)
    assert figures["quarantines"] == before["quarantines"], (before, figures)
    # A change at the new home drops the copies of both other regions.
    with realm.west.client() as west, realm.east.client() as east, realm.south.client() as south:
        for number in range(20):
            assert west.set("k", b"%d" % number) == "STORED"
            for other in (east, south):
                eventually(lambda other=other, number=number: other.get("k") == b"%d" % number)
    # Also behind all slots' first heartbeats of the new home.
    figures = realm.south.await_figures(quarantined_slots=0, trusted="yes")
    assert figures["quarantines"] == before["quarantines"], (before, figures)
    realm.rebuild("us-east", "eu-west")
    eventually(lambda: realm.status("us-east")["database"]["state"] == "standby")
    code, report, said = realm.promote("us-east")
    assert code == 0 and report["lossless"], said
    realm.await_home("us-east")
    for writer in writers:
        writer.await_more()
    last = {}
    for writer in writers:
        last.update(writer.end().last)
    rows = realm.sql("us-east", "SELECT convert_from(k, 'UTF8'), convert_from(val, 'UTF8') FROM martlet_kv WHERE NOT del")
    found = dict(row.split("|") for row in rows.splitlines())
    for key, (number, _) in last.items():
        assert int(found[key]) >= number, f"{key}: {number} was acknowledged, and {found[key]} is there"
    for node in realm.nodes.values():
        with node.client() as client:
            for key in last:
                assert eventually(lambda key=key, client=client: client.get(key)) == found[key].encode()
    # In the topic each numbering is whole, and goes on where the one before was taken over.
    records = [decode(value)[0] for _, _, _, value in realm.brokers.messages()]
    epochs = sorted({record["epoch"] for record in records})
    assert len(epochs) == 3
    for record in records:
        if record["op"] == "HEARTBEAT":
            parts = [int(part) for part in record["position"].split(".")]
            known = {0: "us-east", 1: "eu-west", 2: "us-east"}
            assert record["region"] == known[parts[0] >> 40]
            assert len(parts) == 1 or (parts[1] == epochs[epochs.index(record["epoch"]) - 1] and parts[3] == 1)


def test_a_home_that_is_cut_off_goes_on_and_nobody_who_has_turned_hears_it(realm):
    with realm.east.client() as east, realm.south.client() as south:
        assert east.set("k", b"1") == "STORED"
        eventually(lambda: south.get("k") == b"1")
    realm.await_copy()
    # Nobody reaches us-east but its clients, and it reaches the brokers.
    for relay in (realm.streams["us-east"], realm.streams["eu-west"], realm.ways["us-east"], realm.copying):
        relay.cut()
    code, report, said = realm.promote("eu-west", "--accept-loss")
    assert code == 0 and not report["lossless"], said
    realm.streams["eu-west"].heal()
    with realm.east.client() as east, realm.west.client() as west:
        # It may have heard of it by now.
        east.set("k", b"lost")
        realm.await_home("eu-west", ("eu-west", "ap-south"))
        assert west.set("k", b"2") == "STORED"
        with realm.south.client() as south:
            eventually(lambda: south.get("k") == b"2")
            for _ in range(30):
                assert south.get("k") == b"2"
                time.sleep(0.05)
    for relay in (realm.streams["us-east"], realm.ways["us-east"]):
        relay.heal()
    realm.await_home("eu-west")
    with realm.east.client() as east:
        assert eventually(lambda: east.get("k") == b"2")


def test_what_a_home_that_is_gone_had_published_and_is_lost_is_not_shown_any_more(realm):
    with realm.east.client() as east, realm.south.client() as south:
        assert east.set("k", b"1") == "STORED" and east.set("other", b"1") == "STORED"
        eventually(lambda: south.get("k") == b"1" and south.get("other") == b"1")
        realm.await_copy()
        realm.copying.cut()
        assert east.set("k", b"lost") == "STORED"
        eventually(lambda: south.get("k") == b"lost")
        time.sleep(1.5)
        before = realm.south.await_figures(trusted="yes")
    realm.east.kill()
    code, report, said = realm.promote("eu-west", "--accept-loss")
    assert code == 0 and not report["lossless"], said
    realm.await_home("eu-west", ("eu-west", "ap-south"))
    # With the new home's first heartbeats: the old one's last proof holds until then, or until the bound is over.
    realm.south.await_figures(quarantines=lambda count: count > before["quarantines"])
    realm.await_home("eu-west", ("ap-south",))
    with realm.west.client() as west, realm.south.client() as south:
        assert south.get("k") == b"1" and south.get("other") == b"1"
        assert west.set("k", b"2") == "STORED"
        eventually(lambda: south.get("k") == b"2")


def test_nodes_that_begin_anew_go_by_the_home_of_now(realm):
    assert realm.promote("eu-west")[0] == 0
    realm.await_home("eu-west")
    for node in (realm.south, realm.east, realm.west):
        node.restart(crash=True)
        node.await_figures(home_region="eu-west", promotion=1, trusted="yes", quarantined_slots=0)
    with realm.west.client() as west, realm.south.client() as south:
        for number in range(20):
            assert west.set("k", b"%d" % number) == "STORED"
            eventually(lambda number=number: south.get("k") == b"%d" % number)
