# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Tenants: who may use which keys and commands, told by users and by client certificates."""

import json
import signal
import socket
import ssl
import struct
import subprocess
import time
import urllib.request

import pytest

from bed import Client, Closed, Server, default_command, free_port, until
from behaviour.test_auth import login
from behaviour.test_tls import Authority
from differential import binary

pytestmark = pytest.mark.ours

DENIED = "CLIENT_ERROR access denied"
TENANTS = [
    {"name": "shop", "users": ["alice"], "prefixes": ["shop:"], "readPrefixes": ["shop:fixed:", "shared:"]},
    {"name": "blog", "users": ["bob"], "prefixes": ["blog:", "shared:"]},
    {"name": "reader", "users": ["rita"], "commands": ["read"]},
    {"name": "sweeper", "users": ["sam"], "commands": ["delete", "flush"]},
    {"name": "ops", "users": ["olga"]},
]
USERS = "alice:a\nbob:b\nrita:r\nsam:s\nolga:o\neve:e\n"
PASSWORDS = dict(line.split(":") for line in USERS.split())


def settings(folder, **more):
    file = folder / "node.yaml"
    file.write_text(json.dumps({"tenants": TENANTS, **more}))
    return file


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tenants")
    (folder / "users").write_text(USERS)
    file = settings(folder)
    admin = free_port()
    with Server(["-m", "64", "-t", "2", "-Y", folder / "users", "--config", file, "--admin", f"127.0.0.1:{admin}"]) as server:
        server.admin = admin
        with enter(server, "olga") as olga:
            for key in ("shop:1", "shop:fixed:1", "shared:1", "blog:1", "other"):
                assert olga.set(key, "value") == "STORED"
            assert olga.set("shop:n", "5") == "STORED"
        yield server


def enter(server, user):
    client = server.client()
    assert login(client, user, PASSWORDS[user]) == "STORED"
    return client


def metrics(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.admin}/metrics", timeout=10) as response:
        return dict(row.rsplit(" ", 1) for row in response.read().decode().splitlines() if not row.startswith("#"))


WRITES = ["set {} 0 0 1\r\nx", "add {} 0 0 1\r\nx", "replace {} 0 0 1\r\nx", "append {} 0 0 1\r\nx", "prepend {} 0 0 1\r\nx",
          "cas {} 0 0 1 1\r\nx", "incr {} 1", "decr {} 1", "touch {} 0", "ms {} 1\r\nx", "ma {}"]  # fmt: skip
READS = ["get {}", "gets {}", "mg {} v", "me {}"]
BOTH = ["gat 0 {}", "gats 0 {}", "mg {} N30", "mg {} T30", "mg {} E77 N0"]
DELETES = ["delete {}", "md {}", "md {} I T9"]
ADMIN = ["stats", "stats items", "stats reset", "verbosity 1", "watch", "cache_memlimit 64", "lru_crawler metadump all",
         "lru_crawler crawl all", "lru tune 10 25 0.1 2.0", "slabs automove 0", "refresh_certs", "shutdown"]  # fmt: skip


def first(client, command):
    """The first line of the answer; everything else of it is read away."""
    client.send(command + "\r\n")
    line = client.line()
    client.send("mn\r\n")
    last = line
    while last != "MN":
        last = client.line()
    return line


@pytest.mark.parametrize("command", READS + WRITES + BOTH + DELETES)
def test_a_key_outside_of_the_prefixes_is_denied(node, command):
    with enter(node, "alice") as client:
        for key in ("other", "blog:1", "shop", "Shop:1", "xshop:1"):
            assert first(client, command.format(key)) == DENIED, key
    with enter(node, "olga") as client:
        assert client.get("other") == b"value" and client.get("blog:1") == b"value"


@pytest.mark.parametrize("command", READS + WRITES + BOTH + DELETES)
def test_a_key_within_them_is_not(node, command):
    with enter(node, "alice") as client:
        assert client.set("shop:t", "1") == "STORED"
        assert first(client, command.format("shop:t")) != DENIED


@pytest.mark.parametrize("key", ["shop:fixed:1", "shared:1"])
def test_read_prefixes_can_only_be_read_and_the_longest_counts(node, key):
    with enter(node, "alice") as client:
        for command in READS:
            assert first(client, command.format(key)) != DENIED
        for command in WRITES + BOTH + DELETES:
            assert first(client, command.format(key)) == DENIED, command
        assert client.get(key) == b"value"


def test_two_tenants_share_what_both_name(node):
    with enter(node, "bob") as bob, enter(node, "alice") as alice:
        assert bob.set("shared:2", "bob's") == "STORED"
        assert alice.get("shared:2") == b"bob's"
        assert alice.set("shared:2", "x") == DENIED
        assert bob.ask("get shop:1") == DENIED


def test_commands_are_denied_by_class(node):
    allowed = {"rita": READS, "sam": DELETES}
    for user, own in allowed.items():
        with enter(node, user) as client:
            for command in READS + WRITES + BOTH + DELETES:
                assert (first(client, command.format("classes")) == DENIED) == (command not in own), (user, command)
            for command in ADMIN:
                assert first(client, command) == DENIED, command
            assert (client.ask("flush_all 1000000") == DENIED) == (user == "rita")


def test_prefixes_leave_what_reaches_beyond_them_to_those_who_are_given_it(node):
    with enter(node, "alice") as client:
        for command in ADMIN + ["flush_all", "flush_all 0"]:
            assert first(client, command) == DENIED, command
    with enter(node, "olga") as client:
        for command in ("stats", "stats items", "lru_crawler metadump all", "verbosity 0"):
            assert first(client, command) != DENIED, command


def test_who_is_no_tenant_gets_what_says_nothing(node):
    with enter(node, "eve") as client:
        for command in READS + WRITES + BOTH + DELETES:
            assert first(client, command.format("shop:1")) == DENIED
        for command in ADMIN + ["flush_all"]:
            assert first(client, command) == DENIED
        assert client.ask("version").startswith("VERSION ")
        assert client.ask("mn") == "MN"
        assert client.ask("bogus") == "ERROR"
        assert client.ask("config get cluster").startswith("CONFIG cluster")
        client.send("quit\r\n")
        assert client.until_closed().endswith(b"END\r\n")


def test_quiet_forms_keep_their_rule_for_errors(node):
    """Classic noreply hides errors, meta's q does not."""
    with enter(node, "alice") as client:
        client.send("set other 0 0 1 noreply\r\nx\r\ndelete other noreply\r\nincr other 1 noreply\r\nflush_all noreply\r\nmn\r\n")
        assert client.line() == "MN"
        client.send("ms other 1 q\r\nx\r\nmg other v q\r\nmd other q\r\nma other q\r\nmn\r\n")
        assert [client.line() for _ in range(5)] == [DENIED] * 4 + ["MN"]
    with enter(node, "olga") as client:
        assert client.get("other") == b"value"


@pytest.mark.parametrize("size", [0, 1, 5000, 40_000, 300_000, 900_000])
@pytest.mark.parametrize("form", ["set {} 0 0 {}", "ms {} {}"])
def test_values_of_refused_stores_are_swallowed(node, size, form):
    """However large, and cut into pieces that look like commands."""
    value = (b"get shop:1\r\n" * (size // 12 + 1))[:size]
    with enter(node, "alice") as client:
        client.send(form.format("other", size).encode() + b"\r\n" + value[: size // 2])
        time.sleep(0.02)
        client.send(value[size // 2 :] + b"\r\nget shop:1\r\n" + form.format("shop:big", size).encode() + b"\r\n" + value + b"\r\n")
        assert client.line() == DENIED
        assert client.line() == "VALUE shop:1 0 5" and client.line() == "value" and client.line() == "END"
        assert client.line() == ("STORED" if form.startswith("set") else "HD")
        assert client.get("shop:big") == value
    with enter(node, "olga") as client:
        assert client.get("other") == b"value", "a denial took the old value with it"


def test_a_get_of_several_never_shows_a_denied_value(node):
    with enter(node, "alice") as client:
        for keys in ("other shop:1", "shop:1 other", "shop:1 other shop:n", "other blog:1", "shop:1 " * 200 + "other " + "shop:1 " * 200):
            for verb in ("get", "gets"):
                client.send(f"{verb} {keys}\r\nmn\r\n")
                rows = []
                while not rows or rows[-1] != "MN":
                    rows.append(client.line())
                assert rows[-2] == DENIED and rows.count(DENIED) == 1, (keys, rows[-5:])
                assert "END" not in rows
                shown = {row.split()[1] for row in rows if row.startswith("VALUE")}
                assert shown <= {"shop:1"}, shown
        assert client.get("shop:1") == b"value"


def test_replies_keep_the_order_of_a_pipeline(node):
    with enter(node, "alice") as client:
        client.send("get other\r\nmg shop:n v\r\nset blog:9 0 0 2\r\nxx\r\nget shop:1\r\nflush_all\r\nincr blog:1 1\r\nincr shop:n 0\r\nstats\r\nmn\r\n" * 300)
        for _ in range(300):
            assert client.line() == DENIED
            assert client.line() == "VA 1" and client.line() == "5"
            assert client.line() == DENIED
            assert client.line() == "VALUE shop:1 0 5" and client.line() == "value" and client.line() == "END"
            assert [client.line() for _ in range(5)] == [DENIED, DENIED, "5", DENIED, "MN"]


def test_keys_in_base64_are_told_by_what_they_are(node):
    with enter(node, "alice") as client:
        assert first(client, "mg b3RoZXI= b v") == DENIED
        assert first(client, "mg c2hvcDox b v").startswith("VA 5")
        # What only looks like the prefix before it is decoded.
        assert first(client, "ms b3RoZXI= 1 b\r\nx") == DENIED


def test_broken_requests_are_answered_as_ever(node):
    with enter(node, "alice") as client:
        assert client.ask("get " + "k" * 251) == "CLIENT_ERROR bad command line format"
        client.send("set other 0 0 1\r\nxxxx\r\nmn\r\n")
        rows = [client.line()]
        while rows[-1] != "MN":
            rows.append(client.line())
        assert "STORED" not in rows
        client.send("get other\0shop:1\r\nget  other\r\n")
        assert [client.line(), client.line()] == [DENIED, DENIED]
    with enter(node, "olga") as client:
        assert client.get("other") == b"value"


def test_denials_are_counted_and_logged_without_keys(node):
    def counts():
        found = metrics(node)
        return [int(found[f'martlet_tenant_{name}_total{{tenant="shop",class="{kind}"}}']) for name in ("requests", "denied")
                for kind in ("read", "write", "delete", "flush", "admin")]  # fmt: skip

    with enter(node, "alice") as client:
        before = counts()
        for command in ("get shop:1", "gat 0 shop:1", "delete shop:none", "get secret-key", "set secret-key 0 0 1\r\nx", "delete secret-key",
                        "flush_all", "stats"):  # fmt: skip
            first(client, command)
        client.send("set shop:large 0 0 200000\r\n" + "x" * 100_000)
        time.sleep(0.05)
        client.send("x" * 100_000 + "\r\n")
        assert client.line() == "STORED"
        assert [after - one for after, one in zip(counts(), before)] == [1, 2, 1, 0, 0, 1, 1, 1, 1, 1]
    time.sleep(0.5)
    said = node.output()
    lines = [row for row in said.splitlines() if "access denied" in row]
    assert any('"shop"' in row for row in lines), said
    assert len([row for row in lines if '"shop"' in row]) < 20
    assert "secret-key" not in said


# Certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("tenants-tls"))
    one.server = one.issue("server")
    one.shop = one.issue("shop.example.org")
    one.named = named(one, "nobody", "DNS:other.example.org,DNS:blog.example.org")
    one.nul = named(one, "also-nobody", "email:shop.example.org,URI:https://shop.example.org")
    one.stranger = Authority(tmp_path_factory.mktemp("stranger")).issue("shop.example.org")
    return one


def named(authority, name, names):
    """A certificate with other names than its common name."""
    key, request, certificate = (authority.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
    authority.openssl(f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {key} -out {request}")
    extensions = authority.folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={names}\n")
    authority.openssl(f"x509 -req -in {request} -CA {authority.certificate} -CAkey {authority.folder}/ca.key -CAcreateserial "
                      f"-days 30 -extfile {extensions} -out {certificate}")  # fmt: skip
    return certificate, key


BY_CERTIFICATE = [
    {"name": "shop", "certificates": ["shop.example.org"], "prefixes": ["shop:"]},
    {"name": "blog", "certificates": ["blog.example.org"], "prefixes": ["blog:"]},
]


@pytest.fixture
def secure(start, authority, tmp_path):
    def begin(mode, tenants=BY_CERTIFICATE):
        file = tmp_path / "tls.yaml"
        file.write_text(json.dumps({"tenants": tenants}))
        certificate, key = authority.server
        server = start(["-m", "64", "-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key},ssl_ca_cert={authority.certificate},"
                        f"ssl_verify_mode={mode}", "--config", file])  # fmt: skip
        server.file = file
        return server

    return begin


def show(server, authority, pair=None, version=ssl.TLSVersion.TLSv1_3, session=None):
    one = ssl.create_default_context(cafile=str(authority.certificate))
    one.minimum_version = one.maximum_version = version
    if pair:
        one.load_cert_chain(*map(str, pair))
    raw = socket.create_connection(("127.0.0.1", server.port), 5)
    return Client(one.wrap_socket(raw, server_hostname="127.0.0.1", session=session))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("mode", [1, 2])
def test_names_of_client_certificates_are_tenants(secure, authority, mode, version):
    server = secure(mode)
    with show(server, authority, authority.shop, version) as client:
        assert client.set("shop:1", "s") == "STORED"
        assert client.ask("get blog:1") == DENIED
    with show(server, authority, authority.named, version) as client:
        assert client.set("blog:1", "b") == "STORED"
        assert client.ask("get shop:1") == DENIED
    # Names of other kinds are none.
    with show(server, authority, authority.nul, version) as client:
        assert client.ask("get shop:1") == DENIED and client.ask("get blog:1") == DENIED


def test_without_a_verified_certificate_nobody_is_one(secure, authority):
    server = secure(1)
    with show(server, authority) as client:
        assert client.ask("get shop:1") == DENIED
        assert client.ask("version").startswith("VERSION")
    # Of somebody else's authority, with the right name.
    with pytest.raises((OSError, Closed)):
        with show(server, authority, authority.stranger) as client:
            client.ask("get shop:1")
            raise AssertionError("the certificate was accepted")
    # A server that does not ask for certificates believes none.
    server = secure(0)
    for pair in (authority.shop, authority.stranger):
        with show(server, authority, pair) as client:
            assert client.ask("get shop:1") == DENIED


# Binary


def exchange(connection, packet):
    connection.sendall(packet)
    return reply(connection)


def reply(connection):
    header = b""
    while len(header) < 24:
        more = connection.recv(24 - len(header))
        assert more
        header += more
    _, opcode, _, _, _, status, total, opaque, _ = struct.unpack(">BBHBBHIIQ", header)
    body = b""
    while len(body) < total:
        body += connection.recv(total - len(body))
    return opcode, status, opaque, body


NUMBER = struct.pack(">QQI", 1, 0, 0)
STORE = struct.pack(">II", 0, 0)
TIME = struct.pack(">I", 0)


def packets(key):
    """(opcode, packet) of every command on a key, quiet ones too."""
    for opcode in (binary.GET, binary.GETQ, binary.GETK, binary.GETKQ, binary.DELETE, binary.DELETEQ):
        yield opcode, binary.packet(opcode, key=key, opaque=7)
    for opcode in (binary.SET, binary.SETQ, binary.ADD, binary.ADDQ, binary.REPLACE, binary.REPLACEQ):
        yield opcode, binary.packet(opcode, key=key, value=b"v" * 10, extras=STORE, opaque=7)
    for opcode in (binary.APPEND, binary.APPENDQ, binary.PREPEND, binary.PREPENDQ):
        yield opcode, binary.packet(opcode, key=key, value=b"v" * 10, opaque=7)
    for opcode in (binary.INCREMENT, binary.INCREMENTQ, binary.DECREMENT, binary.DECREMENTQ):
        yield opcode, binary.packet(opcode, key=key, extras=NUMBER, opaque=7)
    for opcode in (binary.TOUCH, binary.GAT, binary.GATQ, binary.GATK, binary.GATKQ):
        yield opcode, binary.packet(opcode, key=key, extras=TIME, opaque=7)


def test_binary_requests_are_denied_by_status(start, tmp_path):
    """The binary protocol has no login: its clients are told apart by certificates, or are the others."""
    file = tmp_path / "node.yaml"
    file.write_text(json.dumps({"tenants": [{"name": "all", "others": True, "prefixes": ["shop:"], "commands": ["read", "write"]}]}))
    server = start(["-m", "64", "--config", file])
    with server.connect() as connection:
        for opcode, packet in packets(b"other"):
            assert exchange(connection, packet)[:3] == (opcode, 0x20, 7), hex(opcode)
        for opcode in (binary.STAT, binary.FLUSH, binary.FLUSHQ):
            assert exchange(connection, binary.packet(opcode, opaque=7))[:3] == (opcode, 0x20, 7), hex(opcode)
        # A store whose value is received apart.
        large = binary.packet(binary.SET, key=b"other", value=b"v" * 500_000, extras=STORE, opaque=8)
        connection.sendall(large[:1000])
        time.sleep(0.02)
        connection.sendall(large[1000:] + binary.packet(binary.NOOP, opaque=9))
        assert reply(connection)[:3] == (binary.SET, 0x20, 8)
        assert reply(connection)[:3] == (binary.NOOP, 0, 9)
        assert exchange(connection, binary.packet(binary.SET, key=b"shop:1", value=b"v", extras=STORE))[1] == 0
        opcode, status, _, body = exchange(connection, binary.packet(binary.GET, key=b"shop:1"))
        assert (opcode, status, body[4:]) == (binary.GET, 0, b"v")
        assert exchange(connection, binary.packet(binary.DELETE, key=b"shop:1"))[1] == 0x20
        assert exchange(connection, binary.packet(binary.VERSION))[1] == 0
        assert exchange(connection, binary.packet(binary.QUIT))[1] == 0


# Changes


def test_sighup_takes_tenants_over_for_new_and_open_connections(start, tmp_path):
    (tmp_path / "users").write_text(USERS)
    file = settings(tmp_path)
    server = start(["-m", "64", "-Y", tmp_path / "users", "--config", file])
    with enter(server, "alice") as alice, enter(server, "eve") as eve:
        assert alice.set("shop:1", "v") == "STORED"
        assert eve.ask("get shop:1") == DENIED
        changed = [dict(TENANTS[0], users=["eve"]), {"name": "none", "users": ["alice"], "commands": []}]
        settings(tmp_path, tenants=changed)
        server.signal(signal.SIGHUP)
        until(lambda: eve.ask("mg shop:1") == "HD")
        assert alice.ask("get shop:1") == DENIED
        with enter(server, "eve") as new:
            assert new.get("shop:1") == b"v"
        # What is wrong changes nothing.
        settings(tmp_path, tenants=[{"name": "a b"}])
        server.signal(signal.SIGHUP)
        until(lambda: "reload failed" in server.output())
        assert eve.get("shop:1") == b"v"
        # Nor do tenants that are gone deny anything.
        settings(tmp_path, tenants=[])
        server.signal(signal.SIGHUP)
        until(lambda: alice.ask("mg shop:1") == "HD")
        assert alice.set("anything", "v") == "STORED"
        settings(tmp_path)
        server.signal(signal.SIGHUP)
        until(lambda: alice.ask("mg anything") == DENIED)
        assert "wait for a restart" not in server.output()


def test_a_value_on_its_way_is_judged_once(start, tmp_path):
    """The permission that counts is that of when the command came."""
    (tmp_path / "users").write_text(USERS)
    file = settings(tmp_path)
    server = start(["-m", "64", "-Y", tmp_path / "users", "--config", file])
    with enter(server, "alice") as alice:
        alice.send("set shop:large 0 0 200000\r\n" + "x" * 100_000)
        time.sleep(0.1)
        settings(tmp_path, tenants=[dict(TENANTS[0], prefixes=["elsewhere:"])])
        server.signal(signal.SIGHUP)
        until(lambda: "reloaded" in server.output())
        alice.send("x" * 100_000 + "\r\nget shop:large\r\n")
        assert [alice.line(), alice.line()] == ["STORED", DENIED]


@pytest.mark.parametrize(
    ("tenants", "reason"),
    [
        ([{"name": "a", "commands": ["everything"]}], "expected read, write, delete, flush, admin"),
        ([{"name": "a", "users": ["u"]}, {"name": "b", "users": ["u"]}], "is a's"),
        ([{"name": "a", "prefix": "x"}], "did you mean prefixes"),
        ([{"users": ["u"]}], "name"),
    ],
)
def test_what_is_wrong_stops_the_start(tmp_path, tenants, reason):
    file = settings(tmp_path, tenants=tenants)
    done = subprocess.run([*default_command().split(), "--config", file, "--check-config"], capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and reason in done.stdout + done.stderr, done


def test_nobody_logs_in_by_datagrams(start, tmp_path):
    port = free_port(socket.SOCK_DGRAM)
    file = settings(tmp_path)
    server = start(["-m", "64", "-U", str(port), "--config", file])
    with server.client() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert client.ask("get shop:1") == DENIED
        datagrams.settimeout(5)
        datagrams.sendto(b"\0\1\0\0\0\1\0\0get shop:1\r\n", ("127.0.0.1", port))
        assert datagrams.recv(2000)[8:] == DENIED.encode() + b"\r\n"


def test_tenants_are_what_overload_accounts_by(start, tmp_path):
    """Two users of one address are two tenants; what one that floods is refused is counted by its name."""
    (tmp_path / "users").write_text(USERS)
    admin = free_port()
    file = settings(tmp_path, overload={"tenant": "user", "target": "1ms", "testServiceTime": "200us"})
    server = start(
        ["-m", "64", "-t", "1", "-Y", tmp_path / "users", "--config", file, "--admin", f"127.0.0.1:{admin}"],
        environment={"MARTLET_OVERLOAD_TARGET": None})  # fmt: skip
    server.admin = admin
    floods = [enter(server, "alice") for _ in range(8)]
    with enter(server, "bob") as bob, enter(server, "olga") as olga:
        active = 0
        deadline = time.monotonic() + 4
        for one in floods:
            one.socket.setblocking(False)
        while time.monotonic() < deadline:
            for one in floods:
                try:
                    one.socket.send(b"mg shop:1\r\n" * 50)
                except BlockingIOError:
                    pass
                try:
                    one.socket.recv(1 << 16)
                except BlockingIOError:
                    pass
            bob.send("mg blog:1\r\n" * 20)
            for _ in range(20):
                assert bob.line() in ("EN", "SERVER_ERROR 307 busy")
            active = max(active, int(olga.stats("overload")["active_tenants"]))
    found = metrics(server)
    shed = {name: int(found[f'martlet_tenant_shed_total{{tenant="{name}"}}']) for name in ("shop", "blog", "unknown")}
    assert shed["shop"] > 1000 and shed["shop"] > 5 * shed["blog"] and shed["unknown"] == 0, shed
    assert active == 2
    for one in floods:
        one.close()
    with enter(server, "olga") as olga:
        time.sleep(0.5)
        rows = olga.stats("overload")
        assert rows["overload_tenant"] == "user"
        assert int(rows["shed_tenant_shop"]) == shed["shop"]


def test_overload_by_user_needs_tenants(tmp_path):
    file = settings(tmp_path, tenants=[], overload={"tenant": "user"})
    done = subprocess.run([*default_command().split(), "--config", file, "--check-config"], capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and "there are no tenants" in done.stdout + done.stderr
