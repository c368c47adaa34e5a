# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Certificates of regions that are revoked, and that are renewed while the stream goes on."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time

import pytest

from bed import Closed, Listener, default_command, free_port
from behaviour.test_tls import Authority as ClientAuthority
from behaviour.test_tls import connect, context, options

from .certificates import certificates, secured
from .region import RegionNode, eventually, regions
from .test_streams import Pair
from .test_writes import Fleet

pytestmark = pytest.mark.ours


class Authority:
    """The authority that `certificates` makes, with lists of what it has revoked."""

    def __init__(self, directory, *names):
        self.directory = directory
        if names:
            certificates(directory, *names)
        self.path = directory / "revoked.pem"
        (directory / "index.txt").touch()
        (directory / "ca.cnf").write_text(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ndefault_md = sha256\ncertificate = ca.pem\n"
            "private_key = ca.key\ndefault_crl_days = 1\n")  # fmt: skip
        self.publish()

    def openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.directory, check=True, capture_output=True, timeout=60)

    def revoke(self, name):
        self.openssl("ca", "-config", "ca.cnf", "-revoke", f"{name}.pem")
        self.publish()

    def publish(self, *more):
        """A new list, put into its place at once."""
        self.openssl("ca", "-config", "ca.cnf", "-gencrl", "-out", "fresh.pem", *more)
        os.replace(self.directory / "fresh.pem", self.path)

    def renew(self, name):
        """Another certificate and key of the same name in their place."""
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "new.key",
                     "-out", "new.csr", "-subj", f"/CN={name}")  # fmt: skip
        (self.directory / "names").write_text(f"subjectAltName=DNS:{name}\n")
        self.openssl("x509", "-req", "-in", "new.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                     "-extfile", "names", "-out", "new.pem")  # fmt: skip
        for end in ("key", "pem"):
            os.replace(self.directory / f"new.{end}", self.directory / f"{name}.{end}")

    def security(self, name):
        return {**secured(self.directory, name), "crl": str(self.path)}


def reload(node, said="reloaded"):
    """Has a node read its files again, and waits until it says so."""
    before = node.server.output().count(said)
    node.server.signal(signal.SIGHUP)
    eventually(lambda: node.server.output().count(said) > before)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "us-east", "eu-west")


@pytest.mark.parametrize("who", ["home", "replica"])
def test_a_revoked_peer_is_closed_and_gets_nothing_until_it_has_another_certificate(tmp_path, authority, who):
    shutil.copy(authority.path, tmp_path / "own.pem")
    ends = {"home": authority.security("us-east"), "replica": {"mode": "replicate", **authority.security("eu-west")}}
    # The other end knows of no revocation: it comes again and again.
    ends[who]["crl"] = str(tmp_path / "own.pem")
    with Pair(tmp_path, **ends) as both, both.home.client() as home, both.replica.client() as replica:
        home.set("k", b"1")
        eventually(lambda: replica.get("k") == b"1")
        judge = both.replica if who == "home" else both.home
        authority.revoke("us-east" if who == "home" else "eu-west")
        time.sleep(0.2)
        assert both.home.figures()["consumers"] == 1 and both.replica.figures()["losses"] == 0, "nobody was told yet"
        reload(judge)
        assert both.replica.await_figures(losses=lambda count: count > 1)["connections"] == 1
        both.home.await_figures(consumers=0)
        home.set("k", b"2")
        assert judge.server.says("a peer is not trusted") and "certificate is revoked by now" in judge.server.output()
        if who == "home":
            # A replica knows why its home is not trusted.
            assert "certificate revoked" in both.replica.await_figures(reason=lambda text: "revoked" in str(text))["reason"]
        else:
            assert both.home.await_figures(consumers_refused=lambda count: count > 2)
            assert "the peer's certificate is not accepted: certificate revoked" in both.home.server.output()
        records = both.replica.figures()["records"]
        time.sleep(0.5)
        assert both.replica.figures()["records"] == records
        name, node = ("us-east", both.home) if who == "home" else ("eu-west", both.replica)
        authority.renew(name)
        reload(node)
        both.replica.await_figures(connections=2, trusted="yes")
        eventually(lambda: replica.get("k") == b"2")


def test_lists_that_cannot_be_used_stop_the_start_and_change_nothing_later(tmp_path, authority):
    good = authority.path.read_bytes()

    def refusal():
        document = {"region": "eu-west", "regions": regions(1), "stream": authority.security("eu-west")}
        (tmp_path / "node.yaml").write_text(json.dumps(document))
        line = [*default_command().split(), "-u", "root", "-p", "0", "-s", str(tmp_path / "s"), "--config", str(tmp_path / "node.yaml")]
        done = subprocess.run(line, capture_output=True, text=True, timeout=20, env={**os.environ, "MARTLET_ADMIN": "off"})
        assert done.returncode != 0
        return done.stderr

    for write, complaint in (
        (lambda: authority.path.unlink(), "No such file"),
        (lambda: authority.path.write_text("-----BEGIN X509 CRL-----\nnone\n-----END X509 CRL-----\n"), "use the revocation lists"),
        (lambda: shutil.copy(tmp_path / "ca.pem", authority.path), "there is none in the file"),
        (lambda: authority.publish("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z"), "one has expired"),
        (lambda: authority.publish("-crl_lastupdate", "20500101000000Z", "-crl_nextupdate", "20500102000000Z"), "one is not yet valid"),
    ):
        write()
        said = refusal()
        assert complaint in said and str(authority.path) in said, said
    authority.path.write_bytes(good)
    authority.revoke("eu-west")
    revoked = authority.path.read_bytes()
    authority.path.write_bytes(good)
    home, replica = authority.security("us-east"), authority.security("eu-west")
    with Pair(tmp_path, home=home, replica=replica) as both:
        authority.path.write_text("no list\n")
        reload(both.home, "the last good lists stay in use")
        both.relay.drop()
        both.replica.await_figures(connections=2, trusted="yes")
        # Other certificates are taken nevertheless, and a good list when it is there.
        authority.path.write_bytes(revoked)
        reload(both.home)
        both.home.await_figures(consumers=0)
        authority.path.unlink()
        reload(both.home, "the last good lists stay in use")
        refused = both.home.figures()["consumers_refused"]
        both.home.await_figures(consumers_refused=lambda count: count > refused + 1)


def test_certificates_of_both_ends_are_renewed_under_load_without_a_gap(tmp_path, authority):
    home, replica = authority.security("us-east"), {"mode": "replicate", **authority.security("eu-west")}
    with Pair(tmp_path, home=home, replica=replica) as both:
        # What is counted is told a little later: the quarantine of each slot at the beginning is to be among it.
        before = both.replica.await_figures(quarantines=64)
        is_over, written = threading.Event(), [0]

        def write():
            with both.home.client() as client:
                while not is_over.is_set():
                    written[0] += 1
                    assert client.set(f"k{written[0] % 500}", b"%d" % written[0]) == "STORED"

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for turn in range(1, 4):
                authority.renew("us-east")
                authority.renew("eu-west")
                authority.publish()
                for node in (both.home, both.replica):
                    reload(node)
                assert both.replica.figures()["losses"] == before["losses"] + turn - 1, "connections go on with the old ones"
                serial = shown_serial(tmp_path, both.stream)
                assert serial == certificate_serial(tmp_path / "us-east.pem"), "new ones are shown the new one"
                both.relay.drop()
                both.replica.await_figures(connections=before["connections"] + turn)
        finally:
            is_over.set()
            writer.join()
        with both.home.client() as client, both.replica.client() as other:
            for key in (f"k{number}" for number in range(500)):
                if (value := client.get(key)) is not None:
                    eventually(lambda: other.get(key) == value)
        assert written[0] > 500
        # What is counted is told a little later than it acts.
        after = both.replica.await_figures(records=before["records"] + written[0])
        assert after["quarantines"] == before["quarantines"] and after["damaged"] == 0


def shown_serial(directory, port):
    """The serial number of the certificate that a source shows."""
    line = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-cert", directory / "eu-west.pem", "-key", directory / "eu-west.key"]
    said = subprocess.run(line, input=b"", capture_output=True, timeout=20).stdout
    return subprocess.run(["openssl", "x509", "-noout", "-serial"], input=said, capture_output=True, check=True).stdout


def certificate_serial(path):
    return subprocess.run(["openssl", "x509", "-noout", "-serial", "-in", path], capture_output=True, check=True).stdout


def test_a_home_whose_certificate_is_revoked_is_asked_and_told_nothing(tmp_path, authority):
    fleet = Fleet(
        tmp_path, home=authority.security("us-east"), replica=authority.security("eu-west"), storage_tls="true",
        storage_tls_name="us-east")  # fmt: skip
    fleet.home.serve_tls(tmp_path, "us-east")
    with fleet, fleet.replica.client() as replica:
        assert replica.set("k", b"v") == "STORED"
        authority.revoke("us-east")
        reload(fleet.replica)
        assert eventually(lambda: "cannot be reached" in replica.set("k", b"w"))


def test_a_revoked_client_is_closed_and_refused(start, tmp_path):
    clients = ClientAuthority(tmp_path)
    lists = Authority(tmp_path)
    leaf, one, other = (clients.issue(name) for name in ("server", "one", "other"))
    server = start([
        *options(leaf, f",ssl_verify_mode=2,ssl_ca_cert={clients.certificate}"), "--tls-crl", str(lists.path)])  # fmt: skip
    with connect(server, context(clients, one)) as revoked, connect(server, context(clients, other)) as client:
        assert revoked.ask("mn") == client.ask("mn") == "MN"
        lists.revoke("one")
        assert client.ask("refresh_certs") == "OK"
        with pytest.raises((OSError, Closed)):
            eventually(lambda: revoked.ask("mn") != "MN")
        with pytest.raises((OSError, Closed)):
            connect(server, context(clients, one)).ask("mn")
        assert client.ask("mn") == "MN"
        lists.path.write_text("")
        assert "the last good lists stay in use" in client.ask("refresh_certs") or server.says("the last good lists stay in use")
        assert client.ask("mn") == "MN"


class Broker(Listener):
    """Shows a certificate to whoever comes, and counts who says something then."""

    def __init__(self, directory, name):
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
        self.refusals, self.trusted = 0, 0
        super().__init__(self.speak)

    def speak(self, connection):
        try:
            with self.context.wrap_socket(connection, server_side=True) as peer:
                self.trusted += bool(peer.recv(1))
        except ssl.SSLError:
            self.refusals += 1


def test_a_revoked_broker_is_not_spoken_with(tmp_path):
    authority = Authority(tmp_path, "localhost")
    listed = regions(free_port())

    def follower(name, broker, **files):
        kafka = {"brokers": f"localhost:{broker.port}", "security": "ssl", "ca": str(tmp_path / "ca.pem"), **files}
        return RegionNode(tmp_path / name, "eu-west", listed, {"transport": "kafka", "kafka": kafka})

    with Broker(tmp_path, "localhost") as broker:
        with follower("good", broker, crl=str(authority.path)):
            eventually(lambda: broker.trusted)
        authority.revoke("localhost")
        # Whoever has no lists goes on, and who has them does not.
        before = broker.trusted
        with follower("careless", broker):
            eventually(lambda: broker.trusted > before)
        before, refusals = broker.trusted, broker.refusals
        with follower("careful", broker, crl=str(authority.path)) as node:
            eventually(lambda: broker.refusals > refusals + 2)
            assert broker.trusted == before
            eventually(lambda: "broker certificate could not be verified" in node.server.output())


@pytest.mark.parametrize("kind", ["missing", "empty", "expired"])
def test_lists_of_brokers_that_cannot_be_used_stop_the_start(tmp_path, kind):
    authority = Authority(tmp_path, "localhost")
    reason = {"missing": "No such file", "empty": "there is none in the file", "expired": "one has expired"}[kind]
    if kind == "missing":
        authority.path.unlink()
    elif kind == "empty":
        authority.path.write_text("")
    else:
        authority.publish("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z")
    kafka = {"brokers": "localhost:1", "security": "ssl", "ca": str(tmp_path / "ca.pem"), "crl": str(authority.path)}
    (tmp_path / "node.yaml").write_text(json.dumps(
        {"region": "eu-west", "regions": regions(free_port()), "stream": {"transport": "kafka", "kafka": kafka}}))
    command = [*default_command().split(), "--config", str(tmp_path / "node.yaml"), "-l", "127.0.0.1", "-p", "0", "-u", "root"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and "stream.kafka.crl: " in done.stderr and reason in done.stderr, done.stderr
