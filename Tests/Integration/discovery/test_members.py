# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Who is in a fleet: by files, a DNS server, a real etcd and an API server, while they change and fail."""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bed import free_port, until

from . import dns, kubernetes
from .etcd import Etcd

pytestmark = pytest.mark.ours


def command():
    from bed import default_command

    return str(Path(default_command().split()[0]).with_name("martletctl"))


class Watch:
    """`martletctl members --watch`: its sets as they come."""

    def __init__(self, *arguments, environment=None):
        self.sets, self.log = queue.Queue(), []
        self.process = subprocess.Popen(
            [command(), "members", "--watch", "--json", *map(str, arguments)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env={**os.environ, **(environment or {})})
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=self.read_log, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.sets.put(json.loads(line))

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def next(self, timeout=15):
        """The next set: its members' addresses, in order, and its epoch."""
        found = self.sets.get(timeout=timeout)
        return [f"{member['host']}:{member['port']}" for member in found["members"]], found["epoch"]

    def nothing(self, seconds):
        with pytest.raises(queue.Empty):
            self.sets.get(timeout=seconds)

    def logged(self, text, timeout=15):
        end = time.monotonic() + timeout
        while not any(text in line for line in self.log):
            assert time.monotonic() < end, self.log
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def test_a_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "members.yaml"
    path.write_text("- 10.0.0.1:1\n- {host: 10.0.0.2, port: 2, name: two}\n- 10.0.0.3:3\n")
    with Watch(f"file:{path}") as watch:
        assert watch.next() == (["10.0.0.1:1", "10.0.0.3:3", "10.0.0.2:2"], 1)
        path.write_text("- 10.0.0.1:1\n- {host: 10.9.0.2, port: 2, name: two}\n- 10.0.0.3:3\n")
        assert watch.next() == (["10.0.0.1:1", "10.0.0.3:3", "10.9.0.2:2"], 2)
        # What cannot be read, is gone or is empty changes nothing.
        path.write_text("- [nonsense")
        watch.logged("members.yaml:")
        path.unlink()
        watch.logged("No such file")
        path.write_text("[]\n")
        watch.nothing(1.5)
        new = tmp_path / "new"
        new.write_text('["10.0.0.1:1", "10.0.0.9:9", "10.0.0.3:3"]')
        new.rename(path)
        assert watch.next() == (["10.0.0.1:1", "10.0.0.3:3", "10.0.0.9:9"], 3)


def test_addresses_of_a_name():
    with dns.Server() as server:
        server.address_of("cache.example", "10.0.0.1", "10.0.0.2")
        with Watch("dns+cache.example:11211", "--dns", server.address) as watch:
            assert watch.next() == (["10.0.0.1:11211", "10.0.0.2:11211"], 1)
            server.address_of("cache.example", "10.0.0.1", "10.0.0.2", "10.0.0.3")
            assert watch.next() == (["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"], 2)
            # Out of order, and then without any address: the last good set stays.
            server.fails = True
            watch.logged("DNS: ")
            server.fails = False
            watch.logged("can be looked up again")
            del server.records["cache.example", dns.A]
            watch.nothing(2)
            server.address_of("cache.example", "10.0.0.2", "10.0.0.3", "10.0.0.4")
            assert watch.next(40)[0] == ["10.0.0.2:11211", "10.0.0.3:11211", "10.0.0.4:11211"]


def members_once(*arguments, **options):
    run = subprocess.run(
        [command(), "members", "--json", *arguments], capture_output=True, text=True, timeout=30, check=False, **options)
    assert run.returncode == 0, run.stderr
    return [member["host"] for member in json.loads(run.stdout)["members"]]


def test_a_server_of_both_families_is_one_member():
    with dns.Server() as server:
        server.address_of("cache.example", "10.0.0.1")
        server.records["cache.example", dns.AAAA] = [(1, socket.inet_pton(socket.AF_INET6, "fd00::1"))]
        server.records["six.example", dns.AAAA] = [(1, socket.inet_pton(socket.AF_INET6, "fd00::2"))]
        # The addresses of name servers are sent along with many answers.
        server.glue = ["10.0.0.53"]
        assert members_once("dns+cache.example:1", "--dns", server.address) == ["10.0.0.1"]
        assert members_once("dns+six.example:1", "--dns", server.address) == ["fd00::2"]
        # Some resolvers know nothing of the other family, and say so badly.
        server.failing = {dns.AAAA}
        assert members_once("dns+cache.example:1", "--dns", server.address) == ["10.0.0.1"]


def test_a_process_with_many_descriptors_asks_all_the_same():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("no right to 2,048 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    held = []
    try:
        while not held or held[-1] < 1100:
            held.append(os.dup(0))
            os.set_inheritable(held[-1], True)
        with dns.Server() as server:
            server.address_of("cache.example", "10.0.0.1")
            assert members_once("dns+cache.example:1", "--dns", server.address, close_fds=False) == ["10.0.0.1"]
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_holds_is_not_asked_again():
    with dns.Server() as server:
        server.address_of("cache.example", "10.0.0.1", ttl=60)
        with Watch("dns+cache.example:1", "--dns", server.address) as watch:
            watch.next()
            asked = len(server.questions)
            time.sleep(3)
            assert len(server.questions) == asked


def test_services_and_their_addresses():
    with dns.Server() as server:
        server.services("_m._tcp.example", ("a.example", 1), ("b.example", 2), ("c.example", 3))
        for index, name in enumerate(["a", "b", "c", "d"]):
            server.address_of(f"{name}.example", f"10.0.0.{index + 1}")
        with Watch("dnssrv+_m._tcp.example", "--dns", server.address) as watch, Watch(
                "dnssrvnoa+_m._tcp.example", "--dns", server.address) as names:
            assert watch.next() == (["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3"], 1)
            assert names.next() == (["a.example:1", "b.example:2", "c.example:3"], 1)
            # A pod that comes back elsewhere keeps its name, and so its place.
            server.address_of("b.example", "10.9.0.2")
            assert watch.next() == (["10.0.0.1:1", "10.9.0.2:2", "10.0.0.3:3"], 2)
            server.services("_m._tcp.example", ("a.example", 1), ("c.example", 3), ("d.example", 4))
            assert watch.next() == (["10.0.0.1:1", "10.0.0.3:3", "10.0.0.4:4"], 3)
            assert names.next() == (["a.example:1", "c.example:3", "d.example:4"], 2)


@pytest.fixture
def etcd(tmp_path):
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    server = Etcd(tmp_path / "etcd")
    server.start()
    yield server
    server.stop()


def member(number):
    return {"host": f"10.0.0.{number}", "port": number}


def test_keys_of_etcd(etcd):
    for number in (1, 2, 3):
        etcd.put(f"/martlet/main/{number}", member(number))
    etcd.put("/martlet/other/9", member(9))
    with Watch(f"etcd://127.0.0.1:{etcd.port}/martlet/main") as watch:
        assert watch.next() == (["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3"], 1)
        etcd.put("/martlet/main/4", member(4))
        assert watch.next() == (["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3", "10.0.0.4:4"], 2)
        etcd.delete("/martlet/main/2")
        assert watch.next() == (["10.0.0.1:1", "10.0.0.3:3", "10.0.0.4:4"], 3)
        # A lease that nobody keeps is over.
        lease = etcd.call("lease/grant", {"TTL": "2"})["ID"]
        etcd.put("/martlet/main/5", member(5), lease=lease)
        assert len(watch.next()[0]) == 4
        assert len(watch.next(20)[0]) == 3
        etcd.put("/martlet/main/6", {"port": 1})
        watch.logged("the key /martlet/main/6 holds no member")


def test_etcd_may_be_away(etcd):
    for number in (1, 2, 3):
        etcd.put(f"/martlet/main/{number}", member(number))
    with Watch(f"etcd://127.0.0.1:{free_port()},127.0.0.1:{etcd.port}/martlet/main") as watch:
        assert watch.next()[1] == 1
        etcd.stop()
        watch.logged("etcd: ")
        watch.nothing(1)
        etcd.start()
        etcd.put("/martlet/main/4", member(4))
        assert watch.next(30) == (["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3", "10.0.0.4:4"], 2)


def test_most_of_a_fleet_does_not_vanish_at_once(etcd):
    for number in range(1, 7):
        etcd.put(f"/martlet/main/{number}", member(number))
    with Watch(f"etcd://127.0.0.1:{etcd.port}/martlet/main") as watch:
        watch.next()
        for number in range(1, 6):
            etcd.delete(f"/martlet/main/{number}")
        watch.nothing(6)
        # Those that are back by the time of a look count again; the new one too.
        for number in range(1, 8):
            etcd.put(f"/martlet/main/{number}", member(number))
        members = []
        while len(members) < 7:
            members, _ = watch.next()
            assert len(members) >= 3, members


@pytest.fixture
def account(tmp_path):
    (tmp_path / "token").write_text("a-token\n")
    return {"MARTLET_SERVICE_ACCOUNT": str(tmp_path)}


def test_endpoint_slices(account):
    with kubernetes.Server() as server:
        server.put("s1", kubernetes.endpoint("10.0.0.1", "cache-0"), kubernetes.endpoint("10.0.0.2", "cache-1"))
        server.put("s2", kubernetes.endpoint("10.0.0.3", "cache-2"), kubernetes.endpoint("10.0.0.9", ready=False))
        source = f"k8s+http://{server.base}/prod/cache:memcached"
        with Watch(source, environment=account) as watch:
            assert watch.next() == (["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"], 1)
            path, query = server.requests[0]
            assert path == "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices"
            assert query["labelSelector"] == "kubernetes.io/service-name=cache"
            # A pod that comes back elsewhere.
            server.put("s2", kubernetes.endpoint("10.0.0.7", "cache-2"))
            assert watch.next() == (["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.7:11211"], 2)
            # A watch that ends goes on where it was; a bookmark says where that is.
            server.bookmark()
            time.sleep(0.5)
            server.end_watches()
            server.put("s3", kubernetes.endpoint("10.0.0.8", "cache-3"))
            assert len(watch.next()[0]) == 4
            # What is older than the server remembers is listed anew.
            server.end_watches()
            with server.changed:
                server.slices["s3"]["endpoints"] = []
                server.version += 10
            server.forget()
            assert watch.next() == (["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.7:11211"], 4)
            server.delete("s2")
            assert watch.next() == (["10.0.0.1:11211", "10.0.0.2:11211"], 5)


def test_a_token_that_is_replaced(account, tmp_path):
    with kubernetes.Server(token="another") as server:
        server.put("s1", kubernetes.endpoint("10.0.0.1"))
        with Watch(f"k8s+http://{server.base}/prod/cache", environment=account) as watch:
            watch.logged("status 401")
            (tmp_path / "token").write_text("another\n")
            assert watch.next(30) == (["10.0.0.1:11211"], 1)


def test_members_are_printed_once(tmp_path):
    done = subprocess.run([command(), "members", "a:1", "b:2"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "a:1 a:1 1.0\nb:2 b:2 1.0\n"
    done = subprocess.run(
        [command(), "members", f"file:{tmp_path}/none"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 69 and "No such file" in done.stderr
    done = subprocess.run([command(), "members", "consul://x"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 64 and "allowed are" in done.stderr


def asked(server):
    """The fleet as a client of ElastiCache's is told it: the nodes, and the version."""
    with server.connect() as connection:
        connection.sendall(b"config get cluster\r\n")
        answer = b""
        while not answer.endswith(b"END\r\n"):
            answer += connection.recv(4096)
    lines = answer.decode().split("\r\n")[1].split("\n")
    return lines[1].split(" "), int(lines[0])


def eventually(function, expected, timeout=20):
    until(lambda: function() == expected, timeout, function, pause=0.1)


def test_nobody_is_sent_to_this_machine_before_the_members_are_known(start):
    """A client that asks a node whose etcd is away keeps the fleet that it knows."""
    node = start([f"--members=etcd://127.0.0.1:{free_port()}/martlet/main"])
    with node.client() as client:
        assert client.ask("config get cluster") == "SERVER_ERROR the cluster's members are not known yet"
        assert client.ask("get AmazonElastiCache:cluster") == "END"


def test_nodes_register_and_answer_with_the_live_set(etcd):
    from bed import Server as Node

    source = f"etcd://127.0.0.1:{etcd.port}/martlet/main"
    nodes = []
    try:
        for number in range(3):
            nodes.append(Node([
                f"--members={source}", f"--register-at={source}", f"--register-name=cache-{number}",
                f"--register-address=10.0.0.{number}:11211", "--register-ttl=4s"]))
        everybody = [f"10.0.0.{number}||11211" for number in range(3)]
        eventually(lambda: asked(nodes[0])[0], everybody)
        version = asked(nodes[0])[1]
        assert etcd.keys("/martlet/main/")["/martlet/main/cache-1"] == {
            "host": "10.0.0.1", "port": 11211, "name": "cache-1"}
        # Longer than a lease: it is kept.
        time.sleep(6)
        assert len(etcd.keys("/martlet/main/")) == 3
        # One that somebody deletes comes back.
        etcd.call("kv/deleterange", {"key": etcd.encoded("/martlet/main/cache-1")})
        eventually(lambda: len(etcd.keys("/martlet/main/")), 3, timeout=10)
        # One that stops is gone at once, one that is killed when its lease is over.
        last = nodes.pop()
        last.signal(signal.SIGTERM)
        eventually(lambda: len(etcd.keys("/martlet/main/")), 2, timeout=3)
        last.stop()
        eventually(lambda: asked(nodes[0])[0], everybody[:2])
        assert asked(nodes[0])[1] > version
        nodes[1].process.kill()
        eventually(lambda: asked(nodes[0])[0], everybody[:1])
        # An etcd that was away and forgot the lease is told again.
        etcd.stop()
        time.sleep(3)
        assert asked(nodes[0])[0] == everybody[:1]
        etcd.start()
        eventually(lambda: list(etcd.keys("/martlet/main/")), ["/martlet/main/cache-0"])
    finally:
        for node in nodes:
            node.stop()


class Slow(BaseHTTPRequestHandler):
    """Between a node and etcd: the answer to what wrote a key does not come before `may_answer`."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps(self.server.etcd.call(self.path.removeprefix("/v3/"), json.loads(body))).encode()
        if self.path == "/v3/kv/txn":
            self.server.may_answer.wait(20)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def test_a_key_goes_whose_writing_was_not_confirmed(etcd, start):
    between = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    between.etcd, between.may_answer = etcd, threading.Event()
    threading.Thread(target=between.serve_forever, daemon=True).start()
    try:
        node = start([f"--register-at=etcd://127.0.0.1:{between.server_port}/martlet/main", "--register-name=one",
                      "--register-address=10.0.0.1:11211", "--register-ttl=60s"])  # fmt: skip
        eventually(lambda: len(etcd.keys("/martlet/main/")), 1)
        node.signal(signal.SIGTERM)
        assert node.wait(10) == 0
        assert not etcd.keys("/martlet/main/"), "it stays for a minute, and clients come to where nobody is"
    finally:
        between.may_answer.set()
        between.shutdown()


def test_settings_of_a_registration_are_checked():
    from bed import default_command

    for arguments, text in [
            (["--register-at=etcd://a:1/p"], "register.address: missing"),
            (["--register-at=dns+a:1", "--register-address=b:1"], "servers register in etcd"),
            (["--members=consul://x"], "members:")]:
        done = subprocess.run(
            [default_command().split()[0], *arguments, "--check-config"], capture_output=True, text=True, timeout=30,
            check=False, stdin=subprocess.DEVNULL)
        assert done.returncode != 0 and text in done.stderr + done.stdout


def test_a_key_is_not_taken_from_a_server_that_lives(etcd):
    """A second server with a name that is taken is not registered while the first one lives, and says why."""
    from bed import Server as Node

    source, key = f"etcd://127.0.0.1:{etcd.port}/martlet/names", "/martlet/names/cache"

    def node(number):
        return Node([f"--register-at={source}", "--register-name=cache", f"--register-address=10.0.0.{number}:11211",
                     "--register-ttl=2s"])  # fmt: skip

    first = node(1)
    try:
        eventually(lambda: etcd.keys("/martlet/names/").get(key, {}).get("host"), "10.0.0.1")
        with node(2) as second:
            eventually(lambda: "a register.name of its own" in second.output(), True)
            time.sleep(3)
            assert etcd.keys("/martlet/names/")[key]["host"] == "10.0.0.1"
            # Killed, its name is free when its lease is over.
            first.process.kill()
            eventually(lambda: etcd.keys("/martlet/names/").get(key, {}).get("host"), "10.0.0.2", timeout=15)
    finally:
        first.stop()
