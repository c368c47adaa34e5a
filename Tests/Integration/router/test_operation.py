# Martlet
# SPDX-License-Identifier: Apache-2.0
"""How a router is run: configuration, reload, statistics, metrics, TLS, ends, and what many servers and clients cost."""

import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request

import pytest
from bed import Server, free_port

from .bed import default_router


def run(*arguments):
    return subprocess.run(
        [default_router(), *arguments], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("servers: [a:1]\nlissen: [x]\n", ":2: lissen: unknown setting (did you mean listen?)"),
        ("servers: [a:1]\nhash: kettle\n", ':2: hash: "kettle" is not valid'),
        ("servers: [a:1, 'b:1:x']\n", ':1: servers: "b:1:x" is not valid; expected host:port[:weight]'),
        ("listen: [127.0.0.1:1]\n", "servers: missing"),
        ("servers: [a:1\n", ":2:"),
    ],
)
def test_says_what_is_wrong_in_a_file_and_where(tmp_path, text, says):
    file = tmp_path / "router.yaml"
    file.write_text(text)
    ended = run("--config", str(file), "--check-config")
    assert ended.returncode == 78
    assert says in ended.stderr, ended.stderr


def test_checks_a_configuration_without_starting(tmp_path):
    file = tmp_path / "router.yaml"
    file.write_text("servers: [a:1, b:2]\nhash: ketama\n")
    ended = run("--config", str(file), "--check-config")
    assert ended.returncode == 0 and ended.stdout.startswith("the configuration is valid")
    assert "hash: ketama" in ended.stdout


def test_ends_when_a_port_is_taken(nodes):
    ended = run("-l", f"127.0.0.1:{nodes[0].port}", "127.0.0.1:1")
    assert ended.returncode == 71 and "Address already in use" in ended.stderr


def test_statistics_and_metrics_name_each_server(route, nodes):
    admin = free_port()
    router = route(nodes, f"--admin=127.0.0.1:{admin}", environment={"MARTLET_ADMIN": None})
    with router.client() as one:
        for number in range(100):
            one.set(f"s-{number}", "x")
            assert one.get(f"s-{number}") == b"x"
        general, servers = one.stats(), one.stats("servers")
        assert int(general["cmd_get"]) == 100 and int(general["num_servers_up"]) == 3
        assert int(general["curr_items"]) >= 100 and int(general["get_hits"]) >= 100
        assert set(servers) == {f"127.0.0.1:{node.port}" for node in nodes}
        assert all("state:up" in line for line in servers.values())
    page = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5).read().decode()
    for node in nodes:
        assert f'martlet_router_server_up{{server="127.0.0.1:{node.port}"}} 1' in page
    sent = sum(float(r.split()[1]) for r in page.splitlines() if r.startswith("martlet_router_server_requests_total{"))
    assert sent >= 200
    assert "martlet_router_server_seconds_bucket" in page
    assert urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5).read() == b"ok\n"
    assert json.load(urllib.request.urlopen(f"http://127.0.0.1:{admin}/stats.json", timeout=5))["servers"]


def test_reload_under_load_drops_nothing(route, start, tmp_path):
    """Servers come and go in the file, by SIGHUP and by the change itself; every request gets a right answer."""
    nodes = [start("-m 64 -t 1") for _ in range(3)]
    addresses = [f"127.0.0.1:{node.port}" for node in nodes]
    file = tmp_path / "router.yaml"

    def write(servers):
        fresh = tmp_path / "fresh.yaml"
        fresh.write_text(json.dumps({"servers": servers}))
        os.replace(fresh, file)

    write(addresses)
    router = route((), f"--config {file}")
    stop, wrong, done = threading.Event(), [], []

    def load(seed):
        with router.client() as one:
            count = 0
            while not stop.is_set():
                key = f"reload-{seed}-{count % 100}"
                count += 1
                one.send(f"set {key} 0 0 {len(key)}\r\n{key}\r\nget {key}\r\n")
                said = [one.line(), one.line()]
                if said[0] != "STORED":
                    wrong.append(said)
                elif said[1] != "END":
                    said.append(one.read(len(key) + 7))
                    if said[1:] != [f"VALUE {key} 0 {len(key)}", key.encode() + b"\r\nEND\r\n"]:
                        wrong.append(said)
            done.append(count)

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for turn in range(12):
        write(addresses if turn % 2 else addresses[:2])
        router.signal(signal.SIGHUP)
        time.sleep(0.15)
    write(addresses[:1])
    time.sleep(2.5)  # noticed without a signal
    (tmp_path / "bad.yaml").write_text("servers: [")
    os.replace(tmp_path / "bad.yaml", file)
    router.signal(signal.SIGHUP)
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not wrong, wrong[:3]
    assert sum(done) > 1000 and len(done) == 6
    with router.client() as one:
        assert list(one.stats("servers")) == addresses[:1]
    assert router.says("reload failed"), router.output()


def test_sigterm_ends_after_the_replies(route, nodes):
    router = route(nodes)
    with router.client() as one:
        one.set("last", "x" * 1000)
        one.send("get last\r\n" * 500)
        router.signal(signal.SIGTERM)
        said = one.until_closed()
        assert said.count(b"END\r\n") == 500
    assert router.wait() == 0


def certificates(folder):
    """A CA, and a certificate for 127.0.0.1."""

    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
            "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")  # fmt: skip
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "one.key", "-out",
            "one.csr", "-subj", "/CN=one")  # fmt: skip
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "one.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
            "one.pem", "-days", "2", "-extfile", "ext")  # fmt: skip


def test_tls_on_both_sides_with_certificates(route, start, tmp_path):
    certificates(tmp_path)
    files = f"ssl_chain_cert={tmp_path}/one.pem,ssl_key={tmp_path}/one.key"
    node = start(f"-m 64 -Z -o {files},ssl_ca_cert={tmp_path}/ca.pem,ssl_verify_mode=2")
    router = route(
        [node],
        f"--tls-enabled --tls-certificate {tmp_path}/one.pem --tls-key {tmp_path}/one.key --upstream-tls-enabled "
        f"--upstream-tls-ca {tmp_path}/ca.pem --upstream-tls-certificate {tmp_path}/one.pem "
        f"--upstream-tls-key {tmp_path}/one.key",
    )
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    with context.wrap_socket(router.connect(), server_hostname="127.0.0.1") as one:
        value = os.urandom(300_000)
        one.sendall(b"set t 0 0 300000\r\n" + value + b"\r\nget t\r\nmn\r\n")
        said = b""
        while not said.endswith(b"MN\r\n"):
            said += one.recv(65536)
        assert said == b"STORED\r\nVALUE t 0 300000\r\n" + value + b"\r\nEND\r\nMN\r\n"
    # One whose certificate is not signed by whom we trust is not spoken to.
    other = tmp_path / "other"
    other.mkdir()
    certificates(other)
    router = route([node], f"--upstream-tls-enabled --upstream-tls-ca {other}/ca.pem")
    with router.client() as one:
        assert one.ask("get t") == "SERVER_ERROR connection error"


def test_200_servers_and_10000_clients_have_bounded_memory(route):
    """A node that listens on two hundred loopback addresses is as many servers to a router."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    port = free_port()
    names = [f"127.{number // 100}.{number % 100 + 1}.1:{port}" for number in range(200)]
    command = ["-m", "16", "-t", "1", "-c", "4096", "-l", ",".join(names)]
    with Server(command, listen=False, wait=("127.0.1.1", port)):
        router = route(names, "-t 2 -c 10100 --upstream-timeout=60s --upstream-connect-timeout=60s")
        clients = []
        for number in range(10_000):
            clients.append(router.client(60))
            clients[-1].send("".join(f"set m-{number}-{turn} 0 0 1 noreply\r\nx\r\n" for turn in range(3)) + "mn\r\n")
        for one in clients:
            assert one.line() == "MN"
        # All at once, so that what is in flight counts too.
        for number, one in enumerate(clients):
            one.send(f"get m-{number}-0 m-{number}-1 m-{number}-2\r\n")
        for one in clients:
            values = 0
            while (line := one.line()) != "END":
                values += line.startswith("VALUE ")
            assert values <= 3
        with router.client() as one:
            up = sum("state:up" in line for line in one.stats("servers").values())
        rss = router.rss()
        print(f"200 servers ({up} up), 10,000 clients: {rss / 2**20:.1f} MiB resident")
        assert up >= 195
        assert rss < 96 << 20
        for one in clients:
            one.close()


def test_clients_beyond_the_limit_are_told_so(route, nodes):
    router = route(nodes, "-c 3")
    time.sleep(0.3)  # the start looked whether it listens
    held = [router.client() for _ in range(3)]
    for one in held:
        assert one.ask("mn") == "MN"
    with router.client() as one:
        assert one.until_closed().startswith(b"ERROR Too many open connections")
    for one in held:
        one.close()


def test_a_host_name_is_looked_up(route, nodes):
    router = route([f"localhost:{nodes[0].port}"])
    with router.client() as one:
        assert one.set("name", "1") == "STORED"


def test_a_host_name_that_nobody_knows_is_a_server_that_is_down(route, nodes):
    router = route(["no-such-host.invalid:1", nodes[0]])
    with router.client() as one:
        said = {one.ask(f"get unknown-{number}") for number in range(50)}
        assert said <= {"END", "SERVER_ERROR connection error", "SERVER_ERROR unavailable"} and "END" in said


def test_ipv6_and_several_listeners(route, nodes):
    ports = free_port(), free_port(host="::1")
    router = route(
        nodes, f"--listen 127.0.0.1:{ports[0]} --listen [::1]:{ports[1]}", listen=False, wait=("127.0.0.1", ports[0])
    )
    with router.client() as one:
        one.set("six", "6")
    with socket.create_connection(("::1", ports[1]), 5) as one:
        one.sendall(b"get six\r\n")
        assert one.recv(100) == b"VALUE six 0 1\r\n6\r\nEND\r\n"
