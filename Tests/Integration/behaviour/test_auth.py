# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The authentication file, -Y: nothing but the password until the password was right."""

import signal
import time

import pytest

from behaviour.test_start import run
from differential import binary


@pytest.fixture
def secured(start, tmp_path):
    path = tmp_path / "users"
    path.write_text("alice:wonder\nbob:builder with spaces\n")
    server = start(["-Y", str(path)])
    server.users = path
    return server


def login(client, user, password, key="auth"):
    text = f"{user} {password}"
    client.send(f"set {key} 0 0 {len(text)}\r\n{text}\r\n")
    return client.line()


def test_everything_needs_a_password(secured):
    for command in ("get k", "version", "stats", "mg k v", "delete k", "flush_all", "bogus", "set k 0 0 -1"):
        with secured.client() as client:
            assert client.ask(command) == "CLIENT_ERROR unauthenticated"
            assert login(client, "alice", "wonder") == "STORED"


@pytest.mark.newest
@pytest.mark.parametrize("line", ["mn", "quit"])
def test_what_is_no_attempt_at_all_is_closed(secured, line):
    with secured.client() as client:
        client.send(line + "\r\n")
        assert client.until_closed(5) == b""


@pytest.mark.newest
def test_the_right_password_opens_the_connection(secured):
    with secured.client() as client:
        assert login(client, "alice", "wonder") == "STORED"
        assert client.set("k", b"v") == "STORED"
        assert client.get("k") == b"v"
        assert client.get("auth") is None, "the password was stored as a value"
    with secured.client() as client:
        assert login(client, "bob", "builder with spaces", key="anything") == "STORED"
        assert client.get("k") == b"v"


@pytest.mark.newest
@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", "wonderful"),
        ("alice", "wonde"),
        ("eve", "wonder"),
        ("", "wonder"),
        ("bob", "builder"),
    ],
)
def test_a_wrong_password_does_not(secured, user, password):
    with secured.client() as client:
        assert login(client, user, password) == "CLIENT_ERROR authentication failure"
        assert client.ask("get k") == "CLIENT_ERROR unauthenticated"
        assert login(client, "alice", "wonder") == "STORED"
        stats = client.stats()
        assert (stats["auth_cmds"], stats["auth_errors"]) == ("2", "1")


@pytest.mark.newest
def test_malformed_attempts(secured):
    for sent, answer in (
        ("set auth 0 0 6\r\nnopass\r\n", "CLIENT_ERROR bad authentication token format"),
        ("set auth 0 0 12\r\nalice wonderXX", "CLIENT_ERROR bad command line termination"),
        ("set auth 0 0 100000\r\n", "CLIENT_ERROR auth token too long"),
    ):
        with secured.client() as client:
            client.send(sent)
            assert client.line() == answer


def test_the_binary_protocol_is_closed(secured):
    with secured.client() as client:
        client.send(binary.packet(binary.NOOP) + b"\r\n")
        client.socket.shutdown(1)
        assert not client.until_closed(5).startswith(b"\x81")


def test_hangup_reloads_the_file(secured):
    with secured.client() as old:
        assert login(old, "alice", "wonder") == "STORED"
        secured.users.write_text("carol:singer\n")
        secured.signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with secured.client() as client:
                if login(client, "carol", "singer") == "STORED":
                    break
            time.sleep(0.05)
        else:
            pytest.fail("the new user is not let in")
        with secured.client() as client:
            assert login(client, "alice", "wonder") == "CLIENT_ERROR authentication failure"
        assert old.ask("mn") == "MN", "those who are in stay in"


@pytest.mark.parametrize("text", ["", "nocolon\n", "\n", "a:b\nnocolon\n"])
def test_a_bad_file_stops_the_start(tmp_path, text):
    path = tmp_path / "users"
    path.write_text(text)
    if text == "":
        pytest.skip("an empty file lets nobody in, and memcached starts with it")
    finished = run(["-Y", str(path), "-l", "127.0.0.1", "-p", "0"])
    assert finished.returncode != 0
    assert finished.stderr


def test_stats_say_that_it_is_on(secured):
    with secured.client() as client:
        login(client, "alice", "wonder")
        assert client.stats("settings")["auth_enabled_ascii"] == str(secured.users)
