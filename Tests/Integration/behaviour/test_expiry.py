# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Time to live, against the real clock. The items of all tests are stored first, so that they wait together."""

import time

import pytest

from bed import Server


@pytest.fixture(scope="module")
def aged():
    """A server and a client, some seconds after everything was stored."""
    with Server("-m 64 -t 2") as server, server.client() as client:
        now = int(time.time())
        client.set("one", b"v", exptime=2)
        client.set("absolute", b"v", exptime=now + 3)
        client.set("long", b"v", exptime=100)
        client.set("forever", b"v")
        client.set("past", b"v", exptime=now - 10)
        client.set("negative", b"v", exptime=-1)
        client.set("touched", b"v", exptime=1)
        client.ask("touch touched 100")
        client.set("shortened", b"v", exptime=100)
        client.ask("touch shortened 1")
        client.set("gat", b"v", exptime=1)
        client.send("gat 100 gat\r\n")
        assert [client.line() for _ in range(3)] == ["VALUE gat 0 1", "v", "END"]
        client.set("counted", b"5", exptime=2)
        assert client.ask("incr counted 1") == "6"
        client.set("grown", b"a", exptime=1)
        client.set("grown", b"b", exptime=100, verb="append")
        client.send("ms meta 1 T1\r\nv\r\nms metalong 1 T100\r\nv\r\n")
        assert [client.line(), client.line()] == ["HD", "HD"]
        client.set("stale", b"v", exptime=100)
        assert client.ask("md stale I T1") == "HD"
        assert client.ask("ma vivified N1 J7") == "HD"
        assert client.ask("mg vivified-get N1").startswith("HD W")
        for number in range(2000):
            client.send(f"set bulk{number} 0 1 100 noreply\r\n{'x' * 100}\r\n")
        client.ask("mn")
        client.present = {key: client.get(key) for key in ("one", "absolute", "past", "negative")}
        time.sleep(3.6)
        yield client


def test_lives_until_then(aged):
    assert aged.present["one"] == aged.present["absolute"] == b"v"


@pytest.mark.parametrize(
    "key",
    [
        "one",
        "absolute",
        "past",
        "negative",
        "shortened",
        "counted",
        "grown",
        "meta",
        "stale",
        "vivified",
        "vivified-get",
    ],
)
def test_is_gone_afterwards(aged, key):
    assert aged.get(key) is None
    assert aged.ask(f"mg {key} t") == "EN"
    assert aged.ask(f"touch {key} 100") == "NOT_FOUND"


@pytest.mark.parametrize("key", ["long", "forever", "touched", "gat", "metalong"])
def test_is_still_there(aged, key):
    assert aged.get(key) == b"v"


def test_what_is_past_was_never_there(aged):
    assert aged.present["past"] is None
    assert aged.present["negative"] is None


def test_remaining_time_is_told(aged):
    assert aged.ask("mg forever t") == "HD t-1"
    assert 93 <= int(aged.ask("mg long t").removeprefix("HD t")) <= 97


def test_seconds_since_the_last_access(aged):
    aged.send("mg metalong l h\r\n")
    assert aged.line().startswith("HD l")


def test_an_expired_key_can_be_added_and_not_replaced(aged):
    assert aged.set("one", b"x", verb="replace") == "NOT_STORED"
    assert aged.set("one", b"x", verb="append") == "NOT_STORED"
    assert aged.ask("incr counted 1") == "NOT_FOUND"
    assert aged.ask("delete absolute") == "NOT_FOUND"
    assert aged.set("one", b"x", verb="add") == "STORED"


def test_expired_memory_comes_back_without_being_read(aged, original):
    """Expiry is proactive: nobody reads the bulk again."""
    deadline = time.monotonic() + (90 if original else 15)
    if original:
        pytest.skip("memcached's crawler takes a minute")
    while int(aged.stats()["curr_items"]) > 100 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert int(aged.stats()["curr_items"]) <= 100


def test_a_delayed_flush_comes_when_it_said(start):
    with start("-t 1").client() as client:
        client.set("k", b"v")
        assert client.ask("flush_all 2") == "OK"
        assert client.get("k") == b"v"
        began = time.monotonic()
        while client.get("k") is not None and time.monotonic() - began < 8:
            time.sleep(0.05)
        # The clock of a memcached ticks once a second, and the flush is due at the tick before.
        assert time.monotonic() - began < 3.5
        while client.set("k", b"new") != "STORED" or client.get("k") != b"new":
            assert time.monotonic() - began < 5
            time.sleep(0.05)
        time.sleep(1.1)
        assert client.get("k") == b"new"


def test_a_delayed_flush_takes_what_is_stored_in_its_second(start):
    with start("-t 1").client() as client:
        client.set("old", b"v")
        assert client.ask("flush_all 2") == "OK"
        deadline = time.monotonic() + 8
        while client.get("old") is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        client.set("late", b"v")
        time.sleep(1.2)
        assert client.get("late") is None
        client.set("new", b"v")
        time.sleep(1.2)
        assert client.get("new") == b"v"


def test_items_stored_right_after_a_flush_stay(start):
    with start("-t 1").client() as client:
        for number in range(50):
            client.set("k", b"old")
            assert client.ask("flush_all") == "OK"
            assert client.get("k") is None
            client.set("k", b"%d" % number)
            assert client.get("k") == b"%d" % number


def test_a_lease_is_won_once_and_again_after_it_expired(start):
    with start("-t 2").client() as client:
        answers = [client.ask("mg lease N1 t") for _ in range(3)]
        assert [("W" in answer, "Z" in answer) for answer in answers] == [(True, False), (False, True), (False, True)]
        time.sleep(2.2)
        assert "W" in client.ask("mg lease N30 t")


def test_recache_is_won_once_near_the_end(start):
    with start("-t 2").client() as client:
        client.set("recache", b"v", exptime=20)
        assert client.ask("mg recache R10") == "HD"
        assert client.ask("mg recache R30") == "HD W"
        assert client.ask("mg recache R30") == "HD Z"
        client.set("recache", b"v", exptime=20)
        assert client.ask("mg recache R30") == "HD W"


def test_stale_values_are_served_while_one_refreshes(start):
    with start("-t 2").client() as client:
        client.set("s", b"old")
        assert client.ask("md s I T30") == "HD"
        client.send("mg s v c\r\n")
        first = client.line().split()
        assert client.line() == "old"
        assert {"X", "W"} <= set(first)
        client.send("mg s v\r\n")
        assert client.line() == "VA 3 Z X"
        client.line()
        token = first[2][1:]
        client.send(f"ms s 3 C{token}\r\nnew\r\n")
        assert client.line() == "HD"
        client.send("mg s v\r\n")
        assert [client.line(), client.line()] == ["VA 3", "new"]


def test_a_late_writer_with_an_old_token_marks_its_value_stale(start):
    with start("-t 2").client() as client:
        client.set("w", b"one")
        token = int(client.ask("mg w c").removeprefix("HD c"))
        client.set("w", b"two")
        client.send(f"ms w 5 I C{token}\r\nthree\r\n")
        assert client.line() == "HD"
        client.send("mg w v\r\n")
        assert client.line().split()[:2] == ["VA", "5"]
        assert client.line() == "three"
        client.send(f"ms w 4 C{token}\r\nfour\r\n")
        assert client.line() == "EX"
