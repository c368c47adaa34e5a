# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Meta get's leases in pools with storage: who is told to bring a row (N) or a newer one (R), and what others see."""

import time

import pytest

from .node import Node

pytestmark = pytest.mark.ours
POOLS = [
    {"prefix": "never:", "negativeTTL": "0s"}, {"prefix": "short:", "negativeTTL": "2s"},
    {"prefix": "copies:", "cacheTTL": "10s"}]  # fmt: skip


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with Node(tmp_path_factory.mktemp("leases"), pools=POOLS) as one:
        yield one


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with Node(tmp_path_factory.mktemp("plain"), backend="none") as one:
        yield one


@pytest.fixture
def client(node):
    with node.client() as one:
        yield one


def marks(client, command):
    """The marks of a reply."""
    words = client.ask(command).split()
    assert words[0] == "HD", words
    return "".join(word for word in words[1:] if word in ("W", "X", "Z"))


def store(client, key, seconds):
    client.send(f"ms {key} 1 T{seconds}\r\nx\r\n")
    assert client.line() == "HD"


@pytest.mark.parametrize("key", ["a", "never:a", "short:a"])
@pytest.mark.parametrize("flags", ["N30", "N30 T30", "T30 N30", "N30 t f k"])
def test_one_client_is_told_to_bring_a_row(client, key, flags):
    key = key + flags.replace(" ", "")
    assert marks(client, f"mg {key} {flags}") == "W"
    assert marks(client, f"mg {key} {flags}") == "Z"
    # That somebody else asks for it, or would change it, is no row.
    assert client.get(key) is None
    assert client.ask(f"incr {key} 1") == "NOT_FOUND"
    assert client.ask(f"touch {key} 1") == "NOT_FOUND"
    assert client.ask(f"gat 10 {key}") == "END"
    assert client.set(key, "x", verb="append") == "NOT_STORED"
    assert client.get(key) is None
    assert marks(client, f"mg {key} {flags}") == "Z"
    assert client.set(key, "x") == "STORED"
    assert marks(client, f"mg {key} {flags}") == ""
    assert client.ask(f"delete {key}") == "DELETED"
    assert marks(client, f"mg {key} {flags}") == "W"


def test_a_lease_shows_no_flags_of_its_own(client):
    assert client.ask("mg flags N30 f s t") == "HD f0 s0 t30 W"
    assert client.ask("mg flags N30 f s") == "HD f0 s0 Z"


def test_the_store_is_asked_for_the_row_again_while_a_lease_lasts(node, client):
    assert marks(client, "mg short:p N0") == "W"
    assert client.get("short:p") is None
    reads = node.statistics()["reads_sent"]
    assert client.get("short:p") is None
    assert node.statistics()["reads_sent"] == reads, "for a while it is known that there is none"
    time.sleep(3)
    assert client.get("short:p") is None
    assert node.statistics()["reads_sent"] == reads + 1
    assert client.get("short:p") is None
    assert node.statistics()["reads_sent"] == reads + 1
    assert marks(client, "mg short:p N0") == "Z"


def test_where_nothing_is_known_of_rows_that_are_not_there_the_store_is_asked(node, client):
    assert marks(client, "mg never:p N30") == "W"
    reads = node.statistics()["reads_sent"]
    for _ in range(3):
        assert client.get("never:p") is None
    assert node.statistics()["reads_sent"] == reads + 3


def test_recaching_goes_by_the_time_of_the_row(client):
    store(client, "copies:forever", 0)
    store(client, "copies:hour", 3600)
    store(client, "copies:soon", 20)
    for _ in range(2):
        for key in ("copies:forever", "copies:hour"):
            assert marks(client, f"mg {key} R30") == ""
            assert marks(client, f"mg {key} R30 t") == ""
        assert client.ask("flush_all") == "OK"
    assert marks(client, "mg copies:soon R30") == "W"
    assert marks(client, "mg copies:soon R30") == "Z"
    assert marks(client, "mg copies:soon R30 t") == "Z"
    assert marks(client, "mg copies:soon R5") == "Z"


def test_a_copy_that_lives_on_answers(node, client):
    store(client, "copies:far", 0)
    reads = node.statistics()["reads_sent"]
    assert marks(client, "mg copies:far R2") == ""
    assert node.statistics()["reads_sent"] == reads


@pytest.mark.parametrize("seconds", [10, 1000])
@pytest.mark.parametrize("flags", ["R30 T100", "T100 R30", "R30 T10", "T10 R30", "t T50", "T50 t", "t R30 T500 t"])
def test_flags_act_in_their_order(client, plain, seconds, flags):
    if flags.split().count("t") > 1:
        flags = flags[2:]
    replies = []
    with plain.client() as other:
        for one in (client, other):
            key = f"o{seconds}{flags.replace(' ', '')}"
            store(one, key, seconds)
            replies.append(one.ask(f"mg {key} {flags}"))

    def rounded(reply):
        words = reply.split()
        return [(round(int(word[1:]), -1) if word[0] == "t" and word[1:].isdigit() else word) for word in words]

    assert rounded(replies[0]) == rounded(replies[1])


@pytest.mark.parametrize("stored, asked", [("Zm9v", "Zm9v b"), ("Zm9v b", "foo"), ("w7w= b", "w7w= b"), ("w7w= b", "\u00fc")])
def test_keys_are_shown_as_they_are_asked_for(client, stored, asked):
    word, *rest = stored.split()
    client.send(f"ms {word} 1 {' '.join(rest)}\r\nx\r\n".encode())
    assert client.line() == "HD"
    word, *rest = asked.split()
    if asked == "Zm9v b":
        client.send(b"ms foo 1\r\nx\r\n")
        assert client.line() == "HD"
    command = f"mg {word} {' '.join(rest)} k".encode()
    expected = f"HD k{word}{' b' if rest else ''}"
    seen = []
    for _ in range(2):
        for tail in (b"", b" R0", b" t"):
            seen.append(client.ask(command + tail).encode("latin-1").decode().split(" t")[0])
        client.ask("flush_all")
    assert seen == [expected] * 6
    shown = client.ask(f"me {asked}".encode())
    assert shown.startswith("EN") or shown.encode("latin-1").decode().split()[1] == word


@pytest.mark.parametrize("mode, reply", [("MA", "HD"), ("MP", "HD"), ("MR", "EX"), ("MS", "EX"), ("ME", "NS")])
def test_a_compare_with_0(client, plain, mode, reply):
    with plain.client() as other:
        for one in (client, other):
            assert one.set(f"zero{mode}", "a") == "STORED"
            one.send(f"ms zero{mode} 1 {mode} C0\r\nb\r\n")
            assert one.line() == reply
