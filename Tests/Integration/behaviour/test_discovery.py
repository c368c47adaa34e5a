# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What ElastiCache clients ask a node for: the members of its cluster."""

import pytest

pytestmark = pytest.mark.ours


def configuration(client, command):
    client.send(command + "\r\n")
    head = client.line().split()
    body = client.read(int(head[-1])).decode()
    rest = [client.line(), client.line()]
    assert rest in (["", "END"], ["END", ""]) or "END" in rest
    return head, body


def test_config_get_cluster(start):
    with start("-m 64").client() as client:
        head, body = configuration(client, "config get cluster")
        assert head[:3] == ["CONFIG", "cluster", "0"]
        version, members = body.split("\n")[:2]
        assert int(version) >= 1
        assert all(member.count("|") == 2 for member in members.split())
        assert client.ask("mn") == "MN"


def test_the_older_key(start):
    with start("-m 64").client() as client:
        client.send("get AmazonElastiCache:cluster\r\n")
        head = client.line().split()
        assert head[:3] == ["VALUE", "AmazonElastiCache:cluster", "0"]
        body = client.read(int(head[3]) + 2).decode()
        assert int(body.split("\n")[0]) >= 1
        assert client.line() == "END"


def test_the_older_key_is_an_ordinary_key_once_stored(start):
    with start("-m 64").client() as client:
        assert client.set("AmazonElastiCache:cluster", b"mine") == "STORED"
        assert client.get("AmazonElastiCache:cluster") == b"mine"


def test_other_config_commands_are_errors(start):
    with start("-m 64").client() as client:
        assert client.ask("config get bogus").startswith(("ERROR", "CLIENT_ERROR"))
        assert client.ask("config").startswith(("ERROR", "CLIENT_ERROR"))
