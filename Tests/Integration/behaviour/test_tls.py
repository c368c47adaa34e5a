# Martlet
# SPDX-License-Identifier: Apache-2.0
"""TLS: versions, client certificates, plain listeners beside, session resumption, certificates renewed in place."""

import os
import socket
import ssl
import subprocess
import time

import pytest

from bed import Client, Closed, free_port, until
from behaviour.test_start import run


class Authority:
    """A certificate authority in a folder, with openssl."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=test-ca "
            f"-keyout {folder}/ca.key -out {self.certificate}"
        )

    def openssl(self, line):
        subprocess.run(["openssl", *line.split()], check=True, capture_output=True, cwd=self.folder)

    def issue(self, name):
        """(certificate, key) paths of a new leaf."""
        key, request, certificate = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        self.openssl(
            f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {key} -out {request}"
        )
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self.openssl(f"x509 -req -in {request} -CA {self.certificate} -CAkey {self.folder}/ca.key -CAcreateserial "
                     f"-days 30 -extfile {extensions} -out {certificate}")  # fmt: skip
        return certificate, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def leaf(authority):
    return authority.issue("server")


@pytest.fixture(scope="module")
def visitor(authority):
    return authority.issue("visitor")


def options(leaf, more=""):
    return ["-Z", "-o", f"ssl_chain_cert={leaf[0]},ssl_key={leaf[1]}{more}"]


def context(authority, pair=None, low=ssl.TLSVersion.TLSv1_2, high=ssl.TLSVersion.TLSv1_3):
    one = ssl.create_default_context(cafile=str(authority.certificate))
    one.minimum_version, one.maximum_version = low, high
    if pair:
        one.load_cert_chain(*map(str, pair))
    return one


def connect(server, one, session=None):
    raw = socket.create_connection(("127.0.0.1", server.port), 5)
    return Client(one.wrap_socket(raw, server_hostname="127.0.0.1", session=session))


@pytest.mark.parametrize("level", ["TLSv1_2", "TLSv1_3"])
def test_serves_over_tls(start, authority, leaf, level):
    version = getattr(ssl.TLSVersion, level)
    server = start(options(leaf))
    with connect(server, context(authority, low=version, high=version)) as client:
        assert client.socket.version() == level.replace("_", ".")
        value = bytes(range(256)) * 3000
        assert client.set("k", value) == "STORED"
        assert client.get("k") == value
        settings = client.stats("settings")
        assert settings["ssl_enabled"] == "yes"
        assert settings["ssl_chain_cert"] == str(leaf[0])


def test_a_long_pipeline_over_tls(start, authority, leaf):
    server = start(options(leaf))
    with connect(server, context(authority)) as client:
        client.send(b"".join(b"set k%d 0 0 5\r\nhello\r\nget k%d\r\n" % (n, n) for n in range(3000)))
        for number in range(3000):
            assert [client.line() for _ in range(4)] == ["STORED", f"VALUE k{number} 0 5", "hello", "END"]


@pytest.mark.parametrize("storage", [False, True])
def test_what_came_before_a_client_left_is_done(start, original, authority, leaf, storage):
    """A record a command, more than wait for a store at one time, and a socket that is closed with tickets unread in it."""
    if original and storage:
        pytest.skip("a memcached has no storage")
    server = start(options(leaf) + ["-m", "64"] + (["--storage-backend", "memory"] if storage else []))
    for turn in range(2):
        client = connect(server, context(authority))
        for number in range(3000):
            client.socket.sendall(b"set k%d 0 0 1 noreply\r\n%d\r\n" % (number, turn))
        client.socket.close()
        with connect(server, context(authority)) as other:
            until(lambda: other.get("k2999") == b"%d" % turn, 20, "the last of the sets")
            assert [number for number in range(3000) if other.get(f"k{number}") != b"%d" % turn] == []


def test_plain_text_on_a_tls_port_is_closed(start, leaf):
    server = start(options(leaf))
    with server.client() as client:
        client.send("get k\r\nget k\r\nget k\r\n")
        assert b"END" not in client.until_closed(5)
    with server.connect() as silent:
        silent.sendall(b"\x16")
    assert server.alive()


def test_versions_below_the_minimum_are_refused(start, authority, leaf):
    server = start(options(leaf, ",ssl_min_version=3"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(server, context(authority, high=ssl.TLSVersion.TLSv1_2))
    with connect(server, context(authority)) as client:
        assert client.ask("mn") == "MN"
        assert client.stats("settings")["ssl_min_version"] == "tlsv1.3"


@pytest.mark.parametrize(
    ("mode", "with_certificate", "without"), [(0, True, True), (1, True, True), (2, True, False), (3, True, False)]
)
def test_client_certificates_in_the_four_modes(start, authority, leaf, visitor, mode, with_certificate, without):
    server = start(options(leaf, f",ssl_verify_mode={mode},ssl_ca_cert={authority.certificate}"))
    for pair, allowed in ((visitor, with_certificate), (None, without)):
        try:
            with connect(server, context(authority, pair)) as client:
                answer = client.ask("mn")
        except (OSError, Closed) as error:  # an SSLError is an OSError
            answer = repr(error)
        assert (answer == "MN") == allowed, answer


def test_a_foreign_client_certificate_is_refused(start, authority, leaf, tmp_path):
    stranger = Authority(tmp_path).issue("stranger")
    server = start(options(leaf, f",ssl_verify_mode=2,ssl_ca_cert={authority.certificate}"))
    with pytest.raises((OSError, Closed)):
        connect(server, context(authority, stranger)).ask("mn")
    with connect(server, context(authority, authority.issue("friend"))) as client:
        assert client.ask("mn") == "MN"


def test_a_plain_listener_beside_a_tls_one(start, authority, leaf):
    plain, secure = free_port(), free_port()
    server = start(
        [*options(leaf), "-l", f"notls:127.0.0.1:{plain},127.0.0.1:{secure}"], listen=False, wait=("127.0.0.1", plain)
    )
    with server.client() as client:
        assert client.set("k", b"v") == "STORED"
    server.port = secure
    with connect(server, context(authority)) as client:
        assert client.get("k") == b"v"


@pytest.mark.newest
def test_a_mutual_listener_beside_an_ordinary_one(start, authority, leaf, visitor):
    mutual, ordinary = free_port(), free_port()
    server = start(
        [
            *options(leaf, f",ssl_ca_cert={authority.certificate}"),
            "-l",
            f"mtls:127.0.0.1:{mutual},127.0.0.1:{ordinary}",
        ],
        listen=False,
        wait=("127.0.0.1", ordinary),
    )
    server.port = ordinary
    with connect(server, context(authority)) as client:
        assert client.ask("mn") == "MN"
    server.port = mutual
    with connect(server, context(authority, visitor)) as client:
        assert client.ask("mn") == "MN"
    with pytest.raises((OSError, Closed)):
        connect(server, context(authority)).ask("mn")


def test_sessions_are_resumed_when_cached(start, authority, leaf):
    server = start(options(leaf, ",ssl_session_cache"))
    one = context(authority, high=ssl.TLSVersion.TLSv1_2)
    with connect(server, one) as client:
        assert client.ask("mn") == "MN"
        session = client.socket.session
    with connect(server, one, session) as client:
        assert client.ask("mn") == "MN"
        assert client.socket.session_reused


@pytest.mark.ours
@pytest.mark.parametrize("level", ["TLSv1_2", "TLSv1_3"])
def test_a_session_is_no_way_past_a_certificate(start, authority, leaf, level):
    """One made where no certificate is asked for is not resumed where one must be shown."""
    guarded, open_port = free_port(), free_port()
    where = f"mtls:127.0.0.1:{guarded},btls:127.0.0.1:{open_port}"
    server = start(
        [*options(leaf, f",ssl_session_cache,ssl_ca_cert={authority.certificate}"), "-l", where], listen=False,
        wait=("127.0.0.1", open_port))  # fmt: skip
    version = getattr(ssl.TLSVersion, level)
    one = context(authority, low=version, high=version)
    with connect(server, one) as client:
        assert client.ask("mn") == "MN"
        session = client.socket.session
    with connect(server, one, session) as client:
        assert client.ask("mn") == "MN" and client.socket.session_reused
        session = client.socket.session
    raw = socket.create_connection(("127.0.0.1", guarded), 5)
    with pytest.raises((OSError, Closed)):
        Client(one.wrap_socket(raw, server_hostname="127.0.0.1", session=session)).ask("mn")


@pytest.mark.ours
def test_what_a_session_was_trusted_for_is_checked_anew_after_a_reload(start, authority, leaf, visitor):
    server = start(options(leaf, f",ssl_session_cache,ssl_verify_mode=2,ssl_ca_cert={authority.certificate}"))
    one = context(authority, visitor, high=ssl.TLSVersion.TLSv1_2)
    with connect(server, one) as client:
        session = client.socket.session
    with connect(server, one, session) as client:
        assert client.socket.session_reused
        assert client.ask("refresh_certs") == "OK"
    deadline = time.monotonic() + 5
    while True:
        with connect(server, one, session) as client:
            assert client.ask("mn") == "MN"
            if not client.socket.session_reused:
                break
        assert time.monotonic() < deadline, "a session outlives the authorities that it was checked against"
        time.sleep(0.05)


def test_certificates_are_renewed_without_a_restart(start, authority, leaf):
    server = start(options(leaf))
    with connect(server, context(authority)) as client:
        before = client.socket.getpeercert()["serialNumber"]
        renewed = authority.issue("server")
        assert renewed == leaf, "the new one stands where the old one stood"
        assert client.ask("refresh_certs") == "OK"
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with connect(server, context(authority)) as fresh:
                after = fresh.socket.getpeercert()["serialNumber"]
            if after != before:
                break
        assert after != before
        assert client.ask("mn") == "MN", "old connections go on"
        assert int(client.stats()["time_since_server_cert_refresh"]) < 10


def test_a_certificate_that_cannot_be_read_keeps_the_old_one(start, authority, leaf):
    server = start(options(leaf))
    with connect(server, context(authority)) as client:
        text = leaf[0].read_text()
        leaf[0].write_text("no certificate\n")
        try:
            assert client.ask("refresh_certs") != "OK"
        finally:
            leaf[0].write_text(text)
    with connect(server, context(authority)) as client:
        assert client.ask("mn") == "MN"


@pytest.mark.newest
def test_handshake_errors_are_counted(start, authority, leaf):
    server = start(options(leaf))
    for _ in range(3):
        with server.client() as client:
            client.send(b"no hello at all\r\n" * 3)
            client.until_closed(5)
    with connect(server, context(authority)) as client:

        def errors():
            stats = client.stats()
            return int(stats["ssl_handshake_errors"]) + int(stats["ssl_proto_errors"])

        deadline = time.monotonic() + 5
        while errors() < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert errors() >= 3


@pytest.mark.parametrize(
    "more",
    ["ssl_chain_cert=/nonexistent", "ssl_verify_mode=9", "ssl_min_version=9", "ssl_keyformat=8", "ssl_ciphers=NONE"],
)
def test_bad_options_stop_the_start(leaf, more):
    finished = run(
        ["-Z", "-l", "127.0.0.1", "-p", str(free_port()), "-o", f"ssl_chain_cert={leaf[0]},ssl_key={leaf[1]},{more}"]
    )
    assert finished.returncode != 0
    assert finished.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the user")
def test_keys_that_only_root_may_read(start, leaf, authority):
    certificate, key = leaf
    secret = authority.folder / "secret.key"
    secret.write_bytes(key.read_bytes())
    secret.chmod(0o600)
    server = start(["-u", "nobody", *options((certificate, secret))])
    with connect(server, context(authority)) as client:
        assert client.set("k", b"v") == "STORED"
