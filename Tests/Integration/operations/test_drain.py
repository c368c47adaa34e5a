# Martlet
# SPDX-License-Identifier: Apache-2.0
"""How nodes and routers take their leave: SIGTERM, /drain, and what clients, stores and members see of it."""

import contextlib
import json
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from bed import Closed, Server, free_port, until
from discovery.test_members import Etcd
from router.bed import Router
from storage import database
from storage.node import Node

from .test_martletctl import TOKEN, command

pytestmark = pytest.mark.ours


@pytest.fixture(params=["node", "router"])
def subject(request):
    """Starts a node, or a router in front of one, with an admin port and flags."""
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(Server("-m 64")) if request.param == "router" else None

        def begin(*flags):
            admin = free_port()
            flags = [*flags, f"--admin=127.0.0.1:{admin}"]
            one = Router([behind], flags) if behind else Server(["-m", "64", *flags])
            stack.enter_context(one)
            one.admin = admin
            return one

        yield begin


def page(port, path, method="GET", headers=None, host="127.0.0.1"):
    request = urllib.request.Request(f"http://{host}:{port}{path}", method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def control(*arguments, timeout=60):
    done = subprocess.run([command(), *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    return done.returncode, done.stdout, done.stderr


class Asker:
    """A client that asks all the time until its connection is closed; when that was."""

    def __init__(self, server):
        self.server, self.answers, self.closed, self.wrong = server, 0, None, []
        self.client = server.client()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        with self.client as client:
            try:
                while True:
                    line = client.ask(f"set k 0 0 1\r\n{self.answers % 10}")
                    if line != "STORED":
                        self.wrong.append(line)
                    self.answers += 1
            except (Closed, OSError):
                self.closed = time.monotonic()

    def join(self):
        self.thread.join(20)
        return self.closed


def test_quiet_connections_go_first_and_busy_ones_before_the_end(subject):
    server = subject("--drain-timeout=2s")
    with server.client() as quiet:
        assert quiet.ask("mn") == "MN"
        busy = Asker(server)
        time.sleep(0.3)
        told = time.monotonic()
        server.signal(signal.SIGTERM)
        assert quiet.until_closed(5) == b""
        assert time.monotonic() - told < 1
        assert server.wait(10) == 0
        took = time.monotonic() - told
        served = busy.join() - told
    assert not busy.wrong
    assert 1.3 < served < 2.5, "served until three quarters of the time are over"
    assert took < 3


def test_ends_soon_when_nobody_is_there(subject):
    server = subject("--drain-timeout=30s")
    told = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait(10) == 0
    assert time.monotonic() - told < 3


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("delay", ["0", "20s"])
def test_a_second_signal_ends_at_once(subject, second, delay):
    server = subject("--drain-timeout=30s", f"--drain-delay={delay}")
    busy = Asker(server)
    server.signal(signal.SIGTERM)
    # Two of one kind that wait to be taken are one.
    until(lambda: "stopping gracefully" in server.output())
    time.sleep(0.3)
    assert server.alive()
    told = time.monotonic()
    server.signal(second)
    assert server.wait(10) == 0
    assert time.monotonic() - told < 2
    busy.join()


def test_the_delay_serves_everybody_while_it_is_not_ready(subject):
    server = subject("--drain-delay=2s", "--drain-timeout=5s")
    assert page(server.admin, "/readyz")[0] == 200
    told = time.monotonic()
    server.signal(signal.SIGTERM)
    until(lambda: page(server.admin, "/readyz")[0] == 503, 1.8)
    assert page(server.admin, "/livez")[0] == 200
    while time.monotonic() < told + 1.8:
        with server.client() as client:
            assert client.ask("mn") == "MN"
    assert server.wait(10) == 0
    assert 1.9 < time.monotonic() - told < 5


def test_drains_and_goes_on(subject):
    server = subject()
    busy = Asker(server)
    address = f"http://127.0.0.1:{server.admin}"
    try:
        code, said, errors = control("drain", "--node", address, "--json")
        assert code == 0, errors
        status = json.loads(said)
        assert status["phase"] == "draining" and not status["drained"] and status["active"] == 1
        assert page(server.admin, "/readyz")[0] == 503
        with server.client() as client:
            assert client.ask("mn") == "MN", "who still comes is served"
        begun = time.monotonic()
        code, said, _ = control("drain", "--wait", "--timeout=1", "--node", address)
        assert code == 0 and said.startswith("draining: 1 of "), said
        assert 0.9 < time.monotonic() - begun < 5
        waiting = subprocess.Popen([command(), "drain", "--wait", "--node", address], stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        assert waiting.poll() is None
        busy.client.socket.shutdown(socket.SHUT_RDWR)
        said = waiting.communicate(timeout=10)[0]
        assert waiting.returncode == 0 and said.startswith("drained: 0 of "), said
        assert server.alive()
    finally:
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        busy.join()


def test_who_may_drain(subject, tmp_path):
    server = subject()
    assert page(server.admin, "/drain")[0] == 405
    status, said = page(server.admin, "/drain", "POST", {"Origin": "http://evil.example"})
    assert status == 403 and "own machine" in said
    assert page(server.admin, "/readyz")[0] == 200, "nothing of that did anything"
    assert page(server.admin, "/drain", "POST")[0] == 200
    assert page(server.admin, "/readyz")[0] == 503
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    guarded = subject(f"--admin-token-file={token}")
    assert page(guarded.admin, "/drain", "POST")[0] == 401
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{guarded.admin}/drain", method="POST"))
    assert refused.value.headers["WWW-Authenticate"] == "Bearer"
    assert page(guarded.admin, "/drain", "POST", {"Authorization": "Bearer wrong-wrong-wrong"})[0] == 401
    assert page(guarded.admin, "/readyz")[0] == 200
    code, _, errors = control("drain", "--node", f"http://127.0.0.1:{guarded.admin}")
    assert code == 69 and "Bearer TOKEN" in errors, errors
    code, _, errors = control("drain", "--node", f"http://127.0.0.1:{guarded.admin}", "--token-file", token)
    assert code == 0, errors
    assert page(guarded.admin, "/readyz")[0] == 503
    server.signal(signal.SIGUSR2)
    assert server.alive()


@pytest.mark.parametrize("quiet", [False, True], ids=["acknowledged", "noreply"])
def test_no_acknowledged_write_is_lost(tmp_path, quiet):
    """Clients write without pause while the node is told to end; what was acknowledged, or read after a noreply on the
    same connection, is in the store afterwards."""
    node = Node(tmp_path, backend="rocksdb", threads=2, drain_timeout="1s")
    acknowledged = {}

    def write(number):
        last = None
        try:
            with node.client() as client:
                for count in range(1_000_000):
                    key, value = f"w{number}:{count % 200}", f"{count}"
                    if quiet:
                        client.send(f"set {key} 0 0 {len(value)} noreply\r\n{value}\r\nmg {key} v\r\n")
                        assert client.line().startswith("VA ")
                        assert client.line() == value
                    else:
                        assert client.ask(f"set {key} 0 0 {len(value)}\r\n{value}") == "STORED"
                    last = count
        except (Closed, OSError):
            pass
        acknowledged[number] = last

    with node:
        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        begun = time.monotonic()
        assert node.terminate() == 0
        assert time.monotonic() - begun < 3
        for thread in threads:
            thread.join(20)
        assert all(last and last > 20 for last in acknowledged.values()), acknowledged
        node.start()
        with node.client() as client:
            for number, last in acknowledged.items():
                for count in range(max(0, last - 199), last + 1):
                    value = client.get(f"w{number}:{count % 200}")
                    # The one after the last was sent, too, and may have been done.
                    allowed = {f"{count}".encode()} | ({f"{last + 1}".encode()} if count % 200 == (last + 1) % 200 else set())
                    assert value in allowed, (number, count, value)


def test_who_waits_for_the_store_is_answered_while_it_ends(tmp_path):
    """The limit of storage.timeout holds to the end: a request that the store does not answer gets its error."""
    if not database.is_installed():
        pytest.skip("Debian's postgresql-15 is not installed")
    node = Node(tmp_path, backend="postgres", drain_timeout="20s", storage_timeout="1s")
    with node, node.client(30) as client:
        assert client.set("k", b"v") == "STORED"
        client.ask("flush_all")
        lock = database.shared().lock(node.url.rsplit("/", 1)[1].split("?")[0], "LOCK TABLE martlet_kv")
        try:
            client.send("get k\r\n")
            time.sleep(0.3)
            node.server.signal(signal.SIGTERM)
            begun = time.monotonic()
            assert client.line().startswith("SERVER_ERROR storage: ")
            assert time.monotonic() - begun < 5
        finally:
            lock.release()


def test_leaves_the_members_first(tmp_path):
    etcd = Etcd(tmp_path / "etcd")
    etcd.start()
    source = f"etcd://127.0.0.1:{etcd.port}/martlet/main"
    try:
        with Server(["-m", "64", f"--register-at={source}", "--register-name=one", "--register-address=10.0.0.1:11211",
                     "--register-ttl=60s", "--drain-timeout=20s", "--drain-delay=10s"]) as server:  # fmt: skip
            until(lambda: len(etcd.keys("/martlet/main/")) == 1)
            server.signal(signal.SIGTERM)
            until(lambda: not etcd.keys("/martlet/main/"))
            with server.client() as client:
                assert client.ask("mn") == "MN", "it still serves whom nobody told"
            server.signal(signal.SIGTERM)
            assert server.wait(5) == 0
        # An etcd that is gone does not hold the end up.
        with Server(["-m", "64", f"--register-at={source}", "--register-name=two", "--register-address=10.0.0.2:11211",
                     "--drain-timeout=5s"]) as server:  # fmt: skip
            until(lambda: len(etcd.keys("/martlet/main/")) == 1)
            etcd.process.send_signal(signal.SIGSTOP)
            told = time.monotonic()
            server.signal(signal.SIGTERM)
            assert server.wait(10) == 0
            assert time.monotonic() - told < 5
    finally:
        etcd.stop()
