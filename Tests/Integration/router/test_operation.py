# Martlet
# SPDX-License-Identifier: Apache-2.0
"""How a router is run: configuration, reload, statistics, metrics, TLS, ends, and what many servers and clients cost."""

import contextlib
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


def test_the_last_configuration_that_could_be_used_survives_a_restart(route, nodes, tmp_path):
    """Two files, of which the imported one is broken while the router is down; mended, it counts again."""
    file, servers, last = tmp_path / "router.json", tmp_path / "servers.json", tmp_path / "last"

    def write(*ports):
        fresh = tmp_path / "fresh"
        fresh.write_text(json.dumps([f"127.0.0.1:{port}" for port in ports]))
        os.replace(fresh, servers)

    file.write_text('{"pools": {"A": {"servers": "@import(servers.json)"}}, "route": "PoolRoute|A"}')
    write(nodes[0].port)
    flags = f"--config {file} --last-good-file {last}"
    router = route((), flags)
    write(nodes[0].port, nodes[1].port)
    end = time.monotonic() + 10
    while str(nodes[1].port) not in (last.read_text() if last.exists() else ""):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert last.stat().st_mode & 0o777 == 0o600
    router.signal(signal.SIGTERM)
    assert router.wait() == 0
    servers.write_text("[")
    ended = run("--config", str(file), "--check-config")
    assert ended.returncode == 78, ended.stdout
    router = route((), flags)
    assert router.says("the configuration is wrong: the last good one is used")
    with router.client() as one:
        assert sorted(one.stats("servers")) == sorted(f"127.0.0.1:{node.port}" for node in nodes[:2])
        assert one.set("k", "v") == "STORED" and one.get("k") == b"v"
        write(nodes[2].port)
        end = time.monotonic() + 10
        while list(one.stats("servers")) != [f"127.0.0.1:{nodes[2].port}"]:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_runtime_variables_are_read_again_when_they_change(route, nodes, tmp_path):
    file, variables = tmp_path / "router.json", tmp_path / "variables.json"

    def weigh(*weights):
        fresh = tmp_path / "fresh"
        fresh.write_text(json.dumps({"hash_route_weights": {"west": weights}}))
        os.replace(fresh, variables)

    servers = [f"127.0.0.1:{node.port}" for node in nodes[:2]]
    chosen = {"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "WeightedCh3Rv", "weights_rv": "west"}}
    file.write_text(json.dumps({"pools": {"W": {"servers": servers}}, "route": chosen}))
    weigh(1, 0)
    router = route((), f"--config {file} --runtime-variables {variables}")
    with router.client() as one:
        assert one.ask("get __mcrouter__.route(get,k)").startswith("VALUE ")
        assert (one.line(), one.line()) == (servers[0], "END")
        assert one.set("k", "v") == "STORED"
        with nodes[0].client() as direct:
            assert direct.get("k") == b"v"
        weigh(0, 1)
        end = time.monotonic() + 10
        while one.get("k") is not None:
            assert time.monotonic() < end, "the change was not noticed"
            time.sleep(0.05)
        one.set("k", "w")
        with nodes[1].client() as direct:
            assert direct.get("k") == b"w"
        # What is wrong changes nothing.
        weigh(0, 7)
        assert router.says("reload failed")
        assert one.get("k") == b"w"


def test_elasticache_clients_are_told_the_servers_of_the_only_pool(route, nodes, routed):
    def ask(router):
        with router.client() as one:
            head = one.ask("config get cluster")
            if not head.startswith("CONFIG "):
                return head
            rest = [one.line() for _ in range(4)]
            return head, rest

    begun = int(time.time())
    router = route(nodes, "-t 1")
    head, (version, line, blank, end) = ask(router)
    members = " ".join(f"127.0.0.1||{node.port}" for node in nodes)
    assert line == members and (blank, end) == ("", "END")
    assert head == f"CONFIG cluster 0 {len(version) + len(line) + 2}"
    assert begun - 5 <= int(version) <= time.time() + 5
    assert ask(routed({"route": "a"})) == "SERVER_ERROR the router has 3 pools: ask a node"
    with router.client() as one:
        assert one.ask("config get owners") == "ERROR"
        assert one.ask("mn") == "MN"


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


def test_revoked_clients_and_servers_are_nobodys(route, start, tmp_path):
    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=tmp_path)

    def publish():
        openssl("ca", "-config", "ca.cnf", "-gencrl", "-out", "revoked.pem")

    certificates(tmp_path)
    (tmp_path / "index.txt").touch()
    (tmp_path / "ca.cnf").write_text(
        "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ndefault_md = sha256\ncertificate = ca.pem\n"
        "private_key = ca.key\ndefault_crl_days = 1\n")  # fmt: skip
    publish()
    # The node's certificate; the router has the second, its client the third.
    for name in ("one", "two", "three"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
                f"{name}.pem", "-days", "2", "-extfile", "ext")  # fmt: skip
    node = start(f"-m 64 -Z -o ssl_chain_cert={tmp_path}/one.pem,ssl_key={tmp_path}/one.key")
    lists = tmp_path / "revoked.pem"
    router = route(
        [node],
        f"--tls-enabled --tls-certificate {tmp_path}/two.pem --tls-key {tmp_path}/two.key --tls-ca {tmp_path}/ca.pem "
        f"--tls-verify require --tls-crl {lists} --upstream-tls-enabled --upstream-tls-ca {tmp_path}/ca.pem "
        f"--upstream-tls-crl {lists}",
    )
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    context.load_cert_chain(tmp_path / "three.pem", tmp_path / "three.key")

    def ask(one, line):
        one.sendall(line + b"\r\n")
        return one.recv(1000)

    def reload(said):
        router.signal(signal.SIGHUP)
        assert router.says(said)

    with context.wrap_socket(router.connect(), server_hostname="127.0.0.1") as one:
        assert ask(one, b"mg k v") == b"EN\r\n"
        openssl("ca", "-config", "ca.cnf", "-revoke", "one.pem")
        publish()
        reload('"reloaded"')
        assert ask(one, b"mg k v").startswith(b"SERVER_ERROR")
        lists.write_text("")
        reload("the last good lists stay in use")
        assert ask(one, b"mg k v").startswith(b"SERVER_ERROR")
        openssl("ca", "-config", "ca.cnf", "-revoke", "three.pem")
        publish()
        router.signal(signal.SIGHUP)
        one.settimeout(10)
        with contextlib.suppress(OSError):
            assert one.recv(100) == b""
    with pytest.raises(OSError), context.wrap_socket(router.connect(), server_hostname="127.0.0.1") as one:
        one.settimeout(10)
        assert ask(one, b"mn") == b"MN\r\n"
        pytest.fail("a revoked client was served")


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
