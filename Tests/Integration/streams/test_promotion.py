# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Another region becomes home: moved without loss, in the place of one that is gone, and what becomes of that one when it
comes back."""

import json
import os
import re
import signal
import socket
import time

import pytest

from bed import Client, Closed

from .certificates import secured
from .promotion import Realm, SlowHome, control
from .region import Consumer, RegionNode, eventually

pytestmark = pytest.mark.ours


@pytest.fixture
def realm(tmp_path):
    with Realm(tmp_path) as regions:
        yield regions


def stored(realm, region, keys):
    """What a region's database has of some keys, as numbers."""
    rows = realm.sql(region, "SELECT convert_from(k, 'UTF8'), convert_from(val, 'UTF8') FROM martlet_kv WHERE NOT del")
    found = dict(row.split("|") for row in rows.splitlines())
    return {key: int(found.get(key, 0)) for key in keys}


def test_home_moves_under_load_and_nothing_is_lost(realm):
    writers = [realm.write(region) for region in realm.nodes]
    for writer in writers:
        writer.await_more()
    before = {region: node.figures() for region, node in realm.nodes.items()}
    code, report, said = realm.promote("eu-west")
    assert code == 0, said
    assert (report["home"], report["old_home"], report["epoch"]) == ("eu-west", "us-east", 1)
    assert report["lossless"] is True and report["loss_window_ms"] == 0 and report["took_ms"] < 15_000
    realm.await_home("eu-west")
    for writer in writers:
        writer.await_more()
    last = {}
    for writer in writers:
        last.update(writer.end().last)
    found = stored(realm, "eu-west", last)
    for key, (number, _) in last.items():
        # A write that failed may have been done all the same.
        assert found[key] >= number, f"{key}: {number} was acknowledged, and {found[key]} is there"
    for region, node in realm.nodes.items():
        role = "home" if region == "eu-west" else "replica"
        figures = node.await_figures(role=role, promotion=1, epochs=before[region]["epochs"] + 1, backlog=0)
        # The numbering goes on where it was, and no slot is given up.
        assert figures["quarantines"] == before[region]["quarantines"], region
        with node.client() as client:
            for key in last:
                assert eventually(lambda key=key, client=client: client.get(key)) == b"%d" % found[key]
    # The old one takes nothing any more, and says so where others ask.
    assert realm.sql("us-east", "SELECT epoch >> 40, region, fenced FROM martlet_home") == "1|eu-west|t"
    assert stored(realm, "us-east", last) != found
    assert realm.status("us-east")["database"]["state"] == "fenced"
    assert Consumer(int(realm.east.document["stream"]["listen"].rsplit(":", 1)[1]), region="ap-south").welcome() == (
        "us-east is not the home region: eu-west is, since promotion 1")
    code, out, _ = control("region", "status", admin=realm.south.admin)
    assert code == 0 and re.search(r"^home +eu-west, promotion 1$", out, re.MULTILINE), out


def test_versions_go_on_behind_a_promotion(realm):
    with realm.east.client() as east, realm.west.client() as west:
        assert east.set("k", b"old") == "STORED"
        version = int(east.ask("mg k c")[4:])
        assert realm.promote("eu-west")[0] == 0
        realm.await_home("eu-west")
        assert west.ask("mg k c") == f"HD c{version}", "rows keep their versions"
        assert west.ask(f"ms k 3 C{version} c\r\nnew")[:2] == "HD"
        assert int(west.ask("mg k c")[4:]) > version
        assert east.ask(f"ms k 3 C{version}\r\nbad") == "EX", "the old version is refused everywhere"
        eventually(lambda: east.get("k") == b"new")


def test_a_home_that_is_gone_is_replaced_and_the_window_of_loss_is_the_one_measured(realm):
    writers = [realm.write(region) for region in ("us-east", "eu-west")]
    for writer in writers:
        writer.await_more()
    # From here on the standby hears nothing.
    realm.copying.cut()
    cut = time.time()
    for writer in writers:
        writer.await_more(200)
    time.sleep(0.3)
    realm.east.kill()
    realm.databases["us-east"].stop()
    code, _, said = realm.promote("eu-west")
    assert code == 69 and "us-east cannot be fenced: no node of us-east answers" in said, said
    assert "--accept-loss" in said and re.search(r"acknowledged until \d+ ms ago", said), said
    assert realm.status("eu-west")["home"] == "us-east", "nothing was changed"
    assert realm.sql("eu-west", "SELECT pg_is_in_recovery()") == "t"
    began = time.time()
    code, report, said = realm.promote("eu-west", "--accept-loss")
    assert code == 0, said
    assert report["lossless"] is False
    realm.await_home("eu-west", ["eu-west", "ap-south"])
    recovered = time.time() - began
    # What is printed is what the database was told, and what was seen from outside.
    seen = int(realm.sql("eu-west", "SELECT seen FROM martlet_home WHERE epoch >> 40 = 1"))
    assert report["safe_until_ms"] == seen and report["loss_window_ms"] == report["given_up_ms"] - seen
    assert (cut - 1.6) * 1000 < seen < (cut + 0.1) * 1000, "home says something each second"
    writers[1].await_more()
    last = {}
    for writer in writers:
        last.update(writer.end().last)
    found = stored(realm, "eu-west", last)
    lost = []
    for writer in writers:
        for number, when in writer.acked:
            key = f"{writer.prefix}:{number % 40}"
            if found[key] < number:
                lost.append(when)
    assert lost, "the standby was cut off: something must be missing"
    assert seen / 1000 < min(lost) and max(lost) < report["given_up_ms"] / 1000 + 0.1
    print(f"lost {len(lost)} writes in {max(lost) - min(lost):.3f} s; window {report['loss_window_ms']} ms; "
          f"recovered in {recovered:.2f} s, of which {report['took_ms']} ms at the node")
    for node in (realm.west, realm.south):
        with node.client() as client:
            for key in last:
                value = eventually(lambda key=key, client=client: client.get(key) if found[key] else b"0")
                assert int(value) == found[key], f"{node.directory.name} shows what is lost"

    # It comes back, as it was, and is none any more.
    realm.databases["us-east"].start()
    realm.east.start()
    realm.east.await_figures(role="replica", home_region="eu-west", trusted="yes", quarantined_slots=0)
    assert realm.sql("us-east", "SELECT epoch >> 40, region, fenced FROM martlet_home") == "1|eu-west|t"
    left = eventually(lambda: realm.status("us-east")["left_behind"])
    assert left["at_most"] >= len(lost), (left, len(lost))
    assert left["first_ms"] / 1000 <= min(lost) and left["last_ms"] / 1000 >= max(lost) - 1
    rows = realm.sql("us-east", "SELECT count(*) FROM martlet_kv")
    with realm.east.client() as east, realm.south.client() as south:
        assert east.set("after", b"v") == "STORED", "it writes at the new home"
        eventually(lambda: south.get("after") == b"v")
    assert realm.sql("us-east", "SELECT count(*) FROM martlet_kv") == rows
    assert realm.sql("eu-west", "SELECT count(*) FROM martlet_kv WHERE k = 'after'") == "1"


def test_a_home_that_was_only_cut_off_is_fenced_when_it_hears_of_it(realm):
    with realm.east.client() as east, realm.south.client() as south, realm.west.client() as west:
        for number in range(60):
            assert east.set(f"key:{number}", b"1") == "STORED"
        for number in range(60):
            assert eventually(lambda: south.get(f"key:{number}")) == b"1"
        realm.south.await_figures(trusted="yes", backlog=0)
        realm.await_copy()
        realm.copying.cut()
        # The far region hears of this, and the standby does not.
        assert east.set("key:7", b"lost") == "STORED"
        eventually(lambda: south.get("key:7") == b"lost")
        records = realm.south.await_figures(trusted="yes", backlog=0)
        for relay in (realm.streams["us-east"], realm.ways["us-east"], realm.streams["eu-west"]):
            relay.cut()
        code, report, said = realm.promote("eu-west", "--accept-loss")
        assert code == 0, said
        assert report["lossless"] is False
        assert west.set("key:8", b"new") == "STORED"
        # Nobody has told it yet: what it takes now is lost, and was given up.
        assert east.set("alone", b"v") == "STORED"
        for relay in (realm.streams["us-east"], realm.ways["us-east"], realm.streams["eu-west"]):
            relay.heal()
        began = time.monotonic()
        realm.await_home("eu-west")
        assert time.monotonic() - began < 10
        assert realm.sql("us-east", "SELECT fenced FROM martlet_home") == "t"
        assert eventually(lambda: realm.status("us-east")["left_behind"])["at_most"] >= 2
        after = realm.south.await_figures(epochs=records["epochs"] + 1, trusted="yes", quarantined_slots=0)
        for name, client in (("us-east", east), ("ap-south", south), ("eu-west", west)):
            assert client.get("key:7") == b"1", f"{name} shows what is lost"
            assert eventually(lambda client=client: client.get("key:8")) == b"new", name
            assert client.get("alone") is None, name
        # The slot that was ahead is given up, and that of "alone", where it was heard of; the others go on.
        assert records["quarantines"] < after["quarantines"] <= records["quarantines"] + 2


def test_and_back_again(realm):
    with realm.east.client() as east, realm.west.client() as west:
        assert east.set("k", b"1") == "STORED"
        assert realm.promote("eu-west")[0] == 0
        realm.await_home("eu-west")
        assert west.set("k", b"2") == "STORED"
        code, _, said = realm.promote("us-east")
        assert code == 69 and "us-east" in said, "its database is no standby yet"
        realm.rebuild("us-east", "eu-west")
        eventually(lambda: realm.status("us-east")["database"]["state"] == "standby")
        code, report, said = realm.promote("us-east")
        assert code == 0, said
        assert report["lossless"] and report["epoch"] == 2 and report["old_home"] == "eu-west"
        realm.await_home("us-east")
        assert east.get("k") == b"2"
        assert east.set("k", b"3") == "STORED"
        eventually(lambda: west.get("k") == b"3")
        assert west.set("k", b"4") == "STORED"
        assert realm.sql("us-east", "SELECT convert_from(val, 'UTF8') FROM martlet_kv WHERE k = 'k'") == "4"
    for node in (realm.west, realm.south):
        node.restart(crash=True)
        node.await_figures(home_region="us-east", promotion=2, trusted="yes")


def test_home_moves_there_and_back_over_mutual_tls(tmp_path):
    with Realm(tmp_path, has_certificates=True) as realm:
        writers = [realm.write(region) for region in realm.nodes]
        for epoch, region, other in ((1, "eu-west", "us-east"), (2, "us-east", "eu-west")):
            for writer in writers:
                writer.await_more()
            # Plain connections are answered by no stream, and by no listener that other regions come to.
            for port in (realm.streams[other].target, realm.ways[other].target):
                with pytest.raises((OSError, Closed)), Client(socket.create_connection(("127.0.0.1", port), timeout=5)) as client:
                    client.ask("mn")
            code, report, said = realm.promote(region)
            assert code == 0, said
            assert (report["home"], report["old_home"], report["epoch"]) == (region, other, epoch) and report["lossless"], report
            realm.await_home(region)
            for writer in writers:
                writer.await_more()
            realm.rebuild(other, region)
            eventually(lambda other=other: realm.status(other)["database"]["state"] == "standby")
        last = {}
        for writer in writers:
            last.update(writer.end().last)
        found = stored(realm, "us-east", last)
        assert all(found[key] >= number for key, (number, _) in last.items()), (found, last)


def test_a_node_that_could_not_read_its_key_while_it_turned_follows_once_it_can(tmp_path):
    with Realm(tmp_path, has_certificates=True) as realm:
        realm.south.stop()
        # Without a store, which would not be opened, and tried again.
        stream = {**realm.carried, **secured(realm.files, "ap-south")}
        node = realm.nodes["ap-south"] = RegionNode(tmp_path / "plain", "ap-south", realm.regions, stream)
        node.start()
        node.await_figures(home="us-east", trusted="yes")
        key = realm.files / "ap-south.key"
        away = key.rename(tmp_path / "away")
        code, _, said = realm.promote("eu-west")
        assert code == 0, said
        node.await_figures(home_region="eu-west", promotion=1)
        # Nothing that it has is vouched for by a home that is none any more.
        assert "home" not in node.await_figures(trusted="no")
        away.rename(key)
        node.await_figures(home="eu-west", trusted="yes")


def test_a_region_speaks_for_itself_only(tmp_path):
    with Realm(tmp_path, has_certificates=True) as realm, realm.east.client() as east:
        refused = realm.east.figures()["consumers_refused"]

        def await_refused(reason):
            nonlocal refused
            refused += 1
            realm.east.await_figures(consumers_refused=refused)
            lines = [line for line in realm.east.server.output().splitlines() if "what another region asks is refused" in line]
            assert len(lines) == refused and reason in lines[-1], lines

        # Another region's certificate.
        asker = realm.ask("us-east", "ap-south")
        reason = "the certificate is ap-south's, not eu-west's"
        assert asker.home("eu-west") == (3, reason)
        await_refused(reason)
        assert asker.frame() is None, "it is hung up on"
        reason = "a region speaks for itself only"
        for kind in (13, 18, 14):
            for other in ("eu-west", "us-east"):
                asker = realm.ask("us-east", "ap-south")
                assert asker.home("ap-south") == (12, "us-east")
                assert asker.want(kind, other) == (3, reason), (kind, other)
                await_refused(reason)
                assert asker.frame() is None
            # Who did not say who it is speaks for nobody.
            asker = realm.ask("us-east", "eu-west")
            assert asker.want(kind, "eu-west") == (3, reason)
            await_refused(reason)
        assert realm.sql("us-east", "SELECT count(*) FROM martlet_home WHERE epoch > 0") == "0", "nothing was fenced"
        assert east.set("k", b"v") == "STORED"
        # The region itself is heard.
        asker = realm.ask("us-east", "eu-west")
        assert asker.home("eu-west") == (12, "us-east")
        assert asker.want(13, "eu-west") == (15, "")
        assert "is not home any more, or is about to stop being it" in east.set("k", b"w")
        assert asker.want(14, "eu-west") == (15, "")
        eventually(lambda: east.set("k", b"w") == "STORED")
        asker.close()


def test_what_is_left_behind_is_counted_for_each_promotion(realm):
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
        assert realm.promote("eu-west")[0] == 0
        realm.await_home("eu-west")
        # It looks twice a second, and found nothing.
        time.sleep(1.5)
        assert realm.status("us-east")["left_behind"] is None
        realm.rebuild("us-east", "eu-west")
        eventually(lambda: realm.status("us-east")["database"]["state"] == "standby")
        assert realm.promote("us-east")[0] == 0
        realm.await_home("us-east")
        realm.rebuild("eu-west", "us-east")
        eventually(lambda: realm.status("eu-west")["database"]["state"] == "standby")
        realm.await_copy()
        # From here on the standby hears nothing.
        realm.sql("eu-west", "ALTER SYSTEM SET primary_conninfo = ''")
        realm.sql("eu-west", "SELECT pg_reload_conf()")
        eventually(lambda: realm.sql("eu-west", "SELECT count(*) FROM pg_stat_wal_receiver") == "0")
        for number in range(7):
            assert east.set(f"lost:{number}", b"v") == "STORED"
        code, report, said = realm.promote("eu-west", "--accept-loss", "--timeout=2")
        assert code == 0 and report["epoch"] == 3 and not report["lossless"], said
        realm.await_home("eu-west")
        assert eventually(lambda: realm.status("us-east")["left_behind"])["at_most"] >= 7
        # Home again, or a standby, it has nothing that is missing elsewhere.
        realm.rebuild("us-east", "eu-west")
        eventually(lambda: realm.status("us-east")["left_behind"] is None)


def test_a_standby_that_does_not_follow_leaves_home_as_it_was(realm):
    realm.copying.is_held = True
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
        code, _, said = realm.promote("eu-west", "--timeout=2")
        assert code == 69 and "the standby does not follow us-east; us-east takes writes again" in said, said
        assert east.set("k", b"2") == "STORED"
        assert realm.sql("us-east", "SELECT count(*) FROM martlet_home") == "0"
    realm.copying.is_held = False


def test_a_fence_that_another_promotion_left_is_not_said_to_be_taken_back(realm):
    # As where that one's taking it back did not arrive.
    realm.sql("us-east", "INSERT INTO martlet_home VALUES (1::bigint << 40, 'eu-west', true, 0, '', false, 0, 0)")
    realm.await_copy()
    realm.copying.is_held = True
    code, _, said = realm.promote("eu-west", "--timeout=2")
    assert code == 69 and "the standby does not follow us-east; us-east may be fenced" in said, said
    assert "it is fenced by promotion 1 of eu-west, too" in said and "takes writes again" not in said, said
    assert realm.sql("us-east", "SELECT epoch >> 40, region, fenced FROM martlet_home") == "1|eu-west|t"
    with realm.east.client() as east:
        assert "this region is not home any more" in east.ask("set k 0 0 1\r\nx")
        # It is given its role back.
        code, report, said = realm.promote("us-east")
        assert code == 0 and report["lossless"], said
        realm.copying.is_held = False
        realm.await_home("us-east")
        assert east.set("k", b"1") == "STORED"


def test_an_old_home_whose_answer_was_lost_learns_that_the_promotion_holds(realm):
    # It hears the fence, and its answer does not come back; nobody claims it.
    realm.streams["us-east"].is_mute = True
    code, report, said = realm.promote("eu-west", "--accept-loss")
    assert code == 0 and not report["lossless"], said
    realm.await_home("eu-west", ["us-east", "eu-west"])
    rows = "SELECT epoch >> 40, region, fenced, whole FROM martlet_home"
    eventually(lambda: realm.sql("us-east", rows) == "1|eu-west|t|t")
    # Cut off, it begins anew, and does not know who is home; its database does not say that nothing is lost.
    for relay in (realm.streams["us-east"], realm.streams["eu-west"], realm.ways["eu-west"]):
        relay.cut()
    realm.east.restart()
    assert realm.status("us-east")["home"] == "us-east"
    code, _, said = realm.promote("us-east")
    assert code == 69 and "promotion 1 of eu-west is ahead, and may be home by now" in said, said
    assert realm.sql("us-east", rows) == "1|eu-west|t|t"


def test_a_standby_whose_server_dies_before_it_is_asked_leaves_home_as_it_was(realm):
    realm.copying.is_held = True
    line = ("region", "promote", "eu-west", "--accept-loss", "--timeout=3")
    promote = control(*line, admin=realm.west.admin, token=realm.token, wait=False)
    eventually(lambda: realm.sql("us-east", "SELECT count(*) FROM martlet_home") == "1")
    realm.databases["eu-west"].stop()
    _, said = promote.communicate(timeout=60)
    assert promote.returncode == 69 and "the database cannot be promoted" in said, said
    assert "us-east takes writes again" in said, said
    assert realm.sql("us-east", "SELECT count(*) FROM martlet_home") == "0"
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
    realm.databases["eu-west"].start()


def test_a_standby_whose_server_dies_while_it_is_promoted_is_told_of_at_both_ends(realm):
    standby = realm.databases["eu-west"]
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
    realm.await_copy()
    # It does not show the fence, nor end its recovery.
    os.kill(int(standby.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'")), signal.SIGSTOP)
    line = ("region", "promote", "eu-west", "--accept-loss", "--timeout=2")
    promote = control(*line, admin=realm.west.admin, token=realm.token, wait=False)
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_promote(%' AND pid <> pg_backend_pid()"
    eventually(lambda: standby.sql(asked) == "1", 20)
    standby.stop()
    _, said = promote.communicate(timeout=60)
    assert promote.returncode == 69, said
    assert "us-east may be fenced, and take no writes, as nobody knows whether the database is promoted" in said, said
    assert "us-east gets its role back at a node of its own: region promote us-east --accept-loss" in said, said
    # Home says so as well, wherever it is asked.
    found = realm.east.await_figures(standstill_seconds=lambda seconds: (seconds or 0) >= 1)
    assert found["standstill_by"] == "promotion 1 of eu-west" and found["home_region"] == "us-east"
    database = realm.status("us-east")["database"]
    assert database["state"] == "fenced" and database["fenced_for"] == "eu-west" and database["last_step"] is True
    out = control("region", "status", admin=realm.east.admin)[1]
    row = r"^database +fenced by promotion 1 of eu-west, in its last step: nobody takes writes, for \d+ s so far$"
    assert re.search(row, out, re.MULTILINE), out
    seconds = r"^martlet_stream_standstill_seconds (\d+)$"
    assert int(re.search(seconds, realm.east.get("/metrics")[1], re.MULTILINE)[1]) >= 1
    eventually(lambda: "the database is fenced, and no region is home" in realm.east.server.output(), 20)
    # As the runbook says: it is brought back, and the promotion is said again.
    standby.start()
    code, report, said = realm.promote("eu-west")
    assert code == 0 and report["lossless"] and report["epoch"] == 2, said
    realm.await_home("eu-west")
    assert "standstill_seconds" not in realm.east.figures()
    with realm.east.client() as east:
        assert east.set("k", b"2") == "STORED"


def test_while_a_fence_waits_for_writes_the_stream_is_served(realm):
    stream = int(realm.east.document["stream"]["listen"].rsplit(":", 1)[1])
    consumer = Consumer(stream, region="ap-south", name="looks")
    consumer.welcome()
    consumer.grant()
    consumer.records(1)
    # A write that takes its time.
    lock = realm.databases["us-east"].lock(realm.name, "SELECT pg_advisory_xact_lock_shared(5570748135)")
    promote = control("region", "promote", "eu-west", "--json", admin=realm.west.admin, token=realm.token, wait=False)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND NOT granted"
    eventually(lambda: realm.sql("us-east", waiting) == "1")
    longest, number, end = 0, 1, time.monotonic() + 1.5
    while time.monotonic() < end:
        number += 1
        began = time.monotonic()
        consumer.records(number)
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.02)
    assert promote.poll() is None, promote.communicate()
    lock.release()
    assert longest < 1, f"a proof took {longest:.2f} s"
    out, said = promote.communicate(timeout=60)
    assert promote.returncode == 0 and json.loads(out)["lossless"], said
    consumer.close()


def test_two_nodes_of_a_region_that_are_asked_at_once_do_not_take_each_other_for_themselves(realm, tmp_path):
    second = realm.second("eu-west")
    realm.copying.is_held = True
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
    line = ("region", "promote", "eu-west", "--timeout=20", "--json")
    first = control(*line, admin=realm.west.admin, token=realm.token, wait=False)
    eventually(lambda: realm.sql("us-east", "SELECT count(*) FROM martlet_home") == "1")
    fence = realm.sql("us-east", "SELECT epoch FROM martlet_home")
    for options in ([], ["--accept-loss"]):
        # The one that is asked second has the same number at first, and does not take back what is not its own.
        if options:
            second.restart()
            eventually(lambda: any(peer["answers"] for peer in realm.status("eu-west-2")["peers"]))
        code, _, said = control("region", "promote", "eu-west", *options, admin=second.admin, token=realm.token)
        assert code == 69 and "promotion 1 of eu-west is under way, begun at another node or before" in said, said
        assert "is ahead" not in said, said
        assert realm.sql("us-east", "SELECT epoch, fenced FROM martlet_home") == f"{fence}|t"
    realm.copying.is_held = False
    out, said = first.communicate(timeout=60)
    assert first.returncode == 0 and json.loads(out)["lossless"], said
    realm.await_home("eu-west")
    second.await_figures(role="home", promotion=1)
    code, _, said = control("region", "promote", "eu-west", admin=second.admin, token=realm.token)
    assert code == 69 and "eu-west is home already, since promotion 1" in said, said


def test_a_promotion_that_another_region_is_ahead_of_names_it(realm):
    # As where ap-south, which had a standby, went on to its last step, and this region's standby does not know yet.
    realm.copying.is_held = True
    realm.sql("us-east", "INSERT INTO martlet_home VALUES ((1::bigint << 40) + 5, 'ap-south', true, 0, '', true, 0, 0)")
    for options in ([], ["--accept-loss"], ["--accept-loss"]):
        code, _, said = realm.promote("eu-west", "--timeout=2", *options)
        assert code == 69 and "promotion 1 of ap-south is ahead of this one" in said and "nothing was changed" in said, said
        assert realm.sql("us-east", "SELECT epoch >> 40, region, fenced FROM martlet_home") == "1|ap-south|t"
        assert realm.sql("eu-west", "SELECT pg_is_in_recovery()") == "t"
    # It may be home: the old one gets its role back only where that is said to be no matter.
    code, _, said = realm.promote("us-east")
    assert code == 69 and "promotion 1 of ap-south is ahead, and may be home by now" in said, said
    code, report, said = realm.promote("us-east", "--accept-loss")
    assert code == 0 and not report["lossless"] and report["old_home"] == "ap-south" and report["epoch"] == 2, said
    realm.copying.is_held = False
    realm.await_home("us-east")
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"


def test_a_promotion_whose_place_another_took_meanwhile_leaves_that_one(realm):
    realm.copying.is_held = True
    promote = control("region", "promote", "eu-west", "--timeout=20", admin=realm.west.admin, token=realm.token, wait=False)
    eventually(lambda: realm.sql("us-east", "SELECT count(*) FROM martlet_home") == "1")
    realm.sql("us-east", "INSERT INTO martlet_home VALUES (2::bigint << 40, 'ap-south', true, 0, '', false, 0, 0)")
    realm.copying.is_held = False
    _, said = promote.communicate(timeout=60)
    assert promote.returncode == 69 and "promotion 2 of ap-south is ahead of this one" in said, said
    assert "us-east may be fenced" in said and "it is fenced by promotion 2 of ap-south, too" in said, said
    # Its own fence is taken back, and the mark of that stays.
    assert realm.sql("us-east", "SELECT epoch >> 40, region, fenced FROM martlet_home") == "2|ap-south|t"
    assert realm.sql("us-east", "SELECT count(*) FROM martlet_meta WHERE name LIKE 'home_released %'") == "1"
    assert realm.sql("eu-west", "SELECT pg_is_in_recovery()") == "t"


def test_a_home_that_begins_anew_while_it_is_fenced_is_home_yet(realm):
    fence = "INSERT INTO martlet_home VALUES ({}::bigint << 40, '{}', true, 0, '', false, 0, 0)"
    realm.sql("us-east", fence.format(1, "eu-west"))
    realm.east.restart()
    with realm.east.client() as east:
        assert "STORED" not in east.ask("set k 0 0 1\r\nx")
        realm.sql("us-east", "DELETE FROM martlet_home")
        assert eventually(lambda: east.set("k", b"1") == "STORED")
    realm.await_home("us-east")
    assert realm.promote("eu-west")[0] == 0
    realm.await_home("eu-west")
    # Its file says that us-east is home; its database, that it is.
    realm.sql("eu-west", fence.format(2, "us-east"))
    realm.west.restart()
    assert eventually(lambda: realm.status("eu-west")["home"] == "eu-west")
    code, report, said = realm.promote("eu-west")
    assert code == 0 and report["lossless"] and report["epoch"] == 3, said
    realm.await_home("eu-west")
    with realm.west.client() as west:
        assert west.get("k") == b"1" and west.set("k", b"2") == "STORED"


def test_a_fence_whose_answer_does_not_come_is_taken_back(realm):
    realm.streams["us-east"].is_mute = True
    code, _, said = realm.promote("eu-west")
    assert code == 69 and "us-east cannot be fenced: " in said and "us-east may be fenced, and take no writes" in said, said
    # It heard both.
    assert realm.sql("us-east", "SELECT count(*) FROM martlet_home") == "0"
    assert realm.sql("eu-west", "SELECT pg_is_in_recovery()") == "t"
    realm.streams["us-east"].heal()
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
    assert realm.status("eu-west")["home"] == "us-east"
    # The next one is another: a standby that is behind shows the first one's fence.
    code, report, said = realm.promote("eu-west")
    assert code == 0 and report["lossless"] and report["epoch"] == 2, said


def test_the_late_answer_to_a_fence_is_none_to_its_being_taken_back(realm):
    home = SlowHome("us-east")
    realm.streams["us-east"].target = home.port
    realm.streams["us-east"].drop()
    eventually(lambda: home.asked)
    code, _, said = realm.promote("eu-west")
    home.stop()
    assert code == 69 and "us-east may be fenced, and take no writes, as it cannot" in said, said
    assert home.told == [13, 14], "both went one way"


def test_a_standby_that_may_not_be_promoted_leaves_home_as_it_was(realm):
    realm.sql("us-east", "CREATE ROLE lowly LOGIN")
    realm.sql("us-east", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO lowly")
    realm.await_copy()
    realm.west.stop()
    url = realm.west.variables["MARTLET_STORAGE_STANDBY_URL"]
    realm.west.variables["MARTLET_STORAGE_STANDBY_URL"] = re.sub("//.*@", "//lowly@", url)
    realm.west.start()
    realm.await_home("us-east")
    code, _, said = realm.promote("eu-west")
    assert code == 69 and "permission denied for function pg_promote" in said and "us-east takes writes again" in said, said
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
    realm.await_copy()
    assert realm.sql("eu-west", "SELECT count(*) FROM martlet_home") == "0"


def test_a_standby_that_was_promoted_behind_the_fence_can_be_home(realm):
    # As where `pg_promote` took longer than the command waits.
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
    realm.sql("us-east", "INSERT INTO martlet_home VALUES (1::bigint << 40, 'eu-west', true, 0, '', false, 0, 0)")
    realm.await_copy()
    assert realm.sql("eu-west", "SELECT pg_promote()") == "t"
    code, _, said = realm.promote("eu-west", "--timeout=2")
    assert code == 69 and "the standby does not follow us-east; us-east may be fenced" in said, said
    assert "it is fenced by promotion 1 of eu-west, too" in said, said
    code, report, said = realm.promote("eu-west", "--timeout=2", "--accept-loss")
    assert code == 0 and not report["lossless"], said
    realm.await_home("eu-west")
    with realm.west.client() as west, realm.east.client() as east:
        assert west.get("k") == b"1"
        assert east.set("k", b"2") == "STORED"
        eventually(lambda: west.get("k") == b"2")


def test_the_monitor_goes_on_at_the_new_home(tmp_path):
    realm = Realm(tmp_path)
    for node in realm.nodes.values():
        node.rewrite(stream={**node.document["stream"], "monitorRate": 200, "mode": "replicate"})
    looks = "consistency:1s:samples"
    with realm:
        writers = [realm.write(region) for region in realm.nodes]
        # Two that follow, and the node itself, which follows its database's stream.
        old = realm.east.await_figures(**{looks: lambda count: count >= 300}, monitor_nodes=3)
        assert "monitor_changes" not in realm.west.figures(), "it has no stream of its own yet"
        code, _, said = realm.promote("eu-west")
        assert code == 0, said
        realm.await_home("eu-west")
        for writer in writers:
            writer.await_more()
        last = realm.east.figures()
        new = realm.west.await_figures(40, **{
            looks: lambda count: count >= 300, "consistency:10s:samples": lambda count: count >= 100}, monitor_nodes=3)  # fmt: skip
        assert realm.east.figures()[looks] == last[looks] >= old[looks], "who is not home any more asks nobody"
        for found in (last, new):
            # One second behind a change a copy may be older, by the bound; no longer than that, and for no other reason that
            # was found: on a busy machine there may be more of them than are looked into.
            assert found["consistency:10s:stale"] == 0, found
            assert found["consistency:1s:stale"] == found["stale_behind"] + found["stale_unexplained"], found


def test_while_another_region_is_to_be_home_no_write_is_taken(realm):
    realm.copying.is_held = True
    with realm.east.client() as east:
        assert east.set("k", b"1") == "STORED"
        writer = realm.write("us-east")
        writer.await_more()
        promote = control("region", "promote", "eu-west", "--timeout=5", admin=realm.west.admin, token=realm.token, wait=False)
        eventually(lambda: realm.sql("us-east", "SELECT count(*) FROM martlet_home") == "1")
        time.sleep(0.2)
        assert "this region is not home any more" in east.ask("set k 0 0 1\r\nx")
        assert east.get("k") == b"1", "it is read as before"
        count = len(writer.acked)
        time.sleep(0.5)
        assert len(writer.acked) == count
        realm.copying.is_held = False
        assert promote.wait(30) == 0, promote.communicate()
    realm.await_home("eu-west")
    writer.await_more()


def test_wishes_that_cannot_be(realm):
    wishes = [
        ("mars", "eu-west", "no region is called mars; there are: us-east, eu-west, ap-south"),
        ("us-east", "eu-west", "this node is of the region eu-west: ask a node of us-east"),
        ("us-east", "us-east", "us-east is home already, since promotion 0"),
        ("ap-south", "ap-south", "ap-south has no database that could take over: storage.standbyURL names a standby of home's"),
    ]
    for region, at, expected in wishes:
        for options in ([], ["--json"]):
            code, out, said = control("region", "promote", region, *options, admin=realm.nodes[at].admin, token=realm.token)
            assert code == 69 and out == "", said
            assert expected in (json.loads(said)["error"] if options else said)
    code, _, said = control("region", "promote", "eu-west", admin=realm.west.admin)
    assert code == 69 and "401" in said, "without the token"
    for words, expected in (([], "region promote needs one name"), (["a", "b"], "region promote needs one name")):
        code, _, said = control("region", "promote", *words, admin=realm.west.admin)
        assert code == 64 and expected in said
    code, _, said = control("region", "demote", admin=realm.west.admin)
    assert code == 64 and "region status or region promote" in said
    # A standby that is away, and one of another database.
    realm.databases["eu-west"].stop()
    code, _, said = realm.promote("eu-west", "--accept-loss")
    assert code == 69 and "the database of eu-west cannot be reached" in said, said
    eventually(lambda: realm.status("eu-west")["database"]["state"] == "unreachable")
    assert realm.status("us-east")["home"] == "us-east"
    realm.databases["eu-west"].start()
    other = realm.databases["us-east"].fresh("other")
    # Databases that are made of one template have one name of their streams.
    realm.databases["us-east"].sql(
        "UPDATE martlet_meta SET number = number + 1 WHERE name = 'stream_source'", other.rsplit("/", 1)[1])  # fmt: skip
    realm.west.stop()
    realm.west.variables["MARTLET_STORAGE_STANDBY_URL"] = other
    realm.west.start()
    realm.west.await_figures(trusted="yes")
    code, _, said = realm.promote("eu-west", "--accept-loss")
    assert code == 69 and "storage.standbyURL is no standby of home's database" in said, said


def test_a_node_whose_ring_is_in_the_old_database_ends(tmp_path):
    with Realm(tmp_path, south=False) as realm:
        realm.east.stop()
        address = f"127.0.0.1:{realm.east.port}"
        realm.east.arguments += ["--ownership-hash", "ketama", "--members", address, "--register-address", address]
        realm.east.start()
        with realm.east.client() as east:
            assert eventually(lambda: east.set("k", b"1") == "STORED")
        code, report, said = realm.promote("eu-west")
        assert code == 0 and report["lossless"], said
        assert realm.east.server.wait(20) != 0
        assert "the region eu-west is home since promotion 1" in realm.east.server.output()
        code, said = realm.east.refuse()
        assert code != 0 and "make its database a standby of the home's" in said, said
        with realm.west.client() as west:
            assert west.get("k") == b"1"


def test_a_node_with_a_ring_starts_while_a_fence_may_come_to_nothing(tmp_path):
    with Realm(tmp_path, south=False) as realm:
        realm.east.stop()
        address = f"127.0.0.1:{realm.east.port}"
        realm.east.arguments += ["--ownership-hash", "ketama", "--members", address, "--register-address", address]
        realm.sql("us-east", "INSERT INTO martlet_home VALUES (1::bigint << 40, 'eu-west', true, 0, '', false, 0, 0)")
        realm.east.start()
        with realm.east.client() as east:
            assert "STORED" not in east.ask("set k 0 0 1\r\nx")
            assert realm.status("us-east")["database"]["state"] == "fenced"
            realm.sql("us-east", "DELETE FROM martlet_home")
            assert eventually(lambda: east.set("k", b"1") == "STORED")


def test_regions_that_share_one_database_hand_the_home_over(tmp_path):
    # As an engine of several regions is one: nothing is copied, and nobody is fenced.
    with Realm(tmp_path) as realm:
        realm.west.stop()
        realm.west.rewrite(storage={"backend": "postgres"})
        realm.west.variables = {"MARTLET_STORAGE_URL": realm.databases["us-east"].url(realm.name)}
        realm.west.start()
        realm.await_home("us-east")
        code, report, said = realm.promote("eu-west")
        assert code == 0 and report["lossless"] and report["loss_window_ms"] == 0, said
        realm.await_home("eu-west")
        with realm.east.client() as east, realm.west.client() as west, realm.south.client() as south:
            for number, client in enumerate((east, west, south)):
                assert client.set("k", b"%d" % number) == "STORED"
                for other in (east, west, south):
                    eventually(lambda other=other, number=number: other.get("k") == b"%d" % number)
        assert realm.sql("us-east", "SELECT epoch >> 40, region, fenced FROM martlet_home") == "1|eu-west|f"
