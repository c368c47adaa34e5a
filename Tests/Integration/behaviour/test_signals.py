# Martlet
# SPDX-License-Identifier: Apache-2.0
"""How the server ends, and what signals do to it."""

import signal

import pytest

from bed import Closed


@pytest.mark.parametrize("number, flags", [(signal.SIGINT, ""), (signal.SIGTERM, "--drain-timeout=0")],
                         ids=["INT", "TERM-without-time"])
def test_ends_at_once(start, number, flags, original):
    server = start("" if original else flags)
    with server.client() as client:
        client.set("k", b"v")
        server.signal(number)
        assert server.wait(10) == 0
        assert client.until_closed(5) == b""


def test_usr1_ends_gracefully(start):
    server = start()
    with server.client() as client:
        client.set("k", b"v")
        server.signal(signal.SIGUSR1)
        assert server.wait(15) == 0
    assert "racefully" in server.output()


def test_shutdown_command_only_when_enabled(start):
    server = start()
    with server.client() as client:
        assert "shutdown not enabled" in client.ask("shutdown")
        assert server.alive()


@pytest.mark.parametrize("word", ["shutdown", "shutdown graceful"])
def test_shutdown_command(start, word):
    server = start("-A")
    with server.client() as client:
        assert client.ask("shutdown bogus") == "CLIENT_ERROR invalid shutdown mode"
        client.send(word + "\r\n")
        with pytest.raises(Closed):
            client.line()
        assert server.wait(15) == 0


def test_survives_a_hangup(start):
    server = start()
    with server.client() as client:
        server.signal(signal.SIGHUP)
        assert client.ask("mn") == "MN"
        assert client.ask("mn") == "MN"
    assert server.alive()


def test_survives_a_broken_pipe(start):
    server = start()
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(b"stats\r\n" * 50)
    with server.client() as client:
        assert client.ask("mn") == "MN"
