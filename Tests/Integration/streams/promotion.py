# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Regions one of which is to take the other's place: a primary and its standby, a node before each, and one far away."""

import json
import shutil
import ssl
import struct
import subprocess
import threading
import time
from pathlib import Path

from bed import Closed, Listener, default_command, free_port
from storage.database import Database, is_installed

from .certificates import certificates, secured
from .region import Peer, RegionNode, Relay

TOKEN = "a-token-of-some-length"


def control(*arguments, admin, token=None, wait=True):
    """martletctl, at a node's admin port: exit code, output and what it said; without waiting, the process."""
    line = [str(Path(default_command().split()[0]).with_name("martletctl")), *map(str, arguments), f"--node=http://127.0.0.1:{admin}"]
    if token:
        line.append(f"--token-file={token}")
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not wait:
        return process
    out, said = process.communicate(timeout=120)
    return process.returncode, out, said


class Place:
    """Where something listens, for who connects to it by another port."""

    def __init__(self, port):
        self.port = port


class Realm:
    """The regions us-east (home), eu-west (with a standby) and ap-south (which reads and writes at home).

    Streams, clients of another region and the standby come through relays, by which a region or its standby can be cut off.
    With `has_certificates` all but the standby's way is mutual TLS; the listeners that clients of other regions come to are
    called `cache`. With `brokers` changes go through these.
    """

    def __init__(
            self, directory, lag="2s", south=True, has_certificates=False, brokers=None, mode="invalidate", **options):
        self.brokers = brokers
        carried = {"lagBound": lag, "mode": mode}
        if brokers:
            carried |= {"transport": "kafka", "kafka": {"brokers": brokers.addresses, "clockSkew": "20ms"}}
        self.carried = carried
        assert is_installed(), "there is no PostgreSQL: run make install"
        token = directory / "token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
        self.token, self.writers = token, []
        names = ("us-east", "eu-west", "ap-south", "cache")
        self.files = certificates(directory, *names) if has_certificates else None
        self.databases = {"us-east": Database()}
        url = self.databases["us-east"].fresh("realm")
        self.name = url.rsplit("/", 1)[1]
        self.copying = Relay(self.databases["us-east"].port)
        self.databases["eu-west"] = Database(primary=Place(self.copying.port))
        ports = {region: (free_port(), None) for region in self.databases}
        self.streams, self.ways, self.nodes = {}, {}, {}
        for region, (stream, _) in ports.items():
            self.streams[region] = Relay(stream)
        more = {"admin": True, "admin_token_file": token, **options}
        for region, backend in (("us-east", "postgres"), ("eu-west", "region"), ("ap-south", "region"))[: 3 if south else 2]:
            keys = {**carried, **(secured(self.files, region) if self.files else {})}
            variables = {}
            if region in ports:
                keys["listen"] = f"127.0.0.1:{ports[region][0]}"
                name = "MARTLET_STORAGE_URL" if backend == "postgres" else "MARTLET_STORAGE_STANDBY_URL"
                variables[name] = self.databases[region].url(self.name)
            # Its backend is in the file, so that no other database is made for it.
            node = RegionNode(
                directory / region, region, [], keys, variables=variables, storage_timeout="2s", **more)
            tls = {"tls": True} if backend == "region" and self.files else {}
            node.rewrite(storage={"backend": backend, **tls, **({"tlsName": "cache"} if self.files else {})})
            self.nodes[region] = node
            if region in ports:
                self.ways[region] = Relay(node.serve_tls(self.files, "cache") if self.files else node.port)
        self.regions = [
            {"name": region, "role": "home" if region == "us-east" else "replica",
             "stream": f"127.0.0.1:{self.streams[region].port}", "serve": f"127.0.0.1:{self.ways[region].port}"}
            for region in ports]  # fmt: skip
        if south:
            self.regions.append({"name": "ap-south", "role": "replica"})
        for node in self.nodes.values():
            node.rewrite(regions=self.regions)
        self.east, self.west, self.south = (self.nodes.get(region) for region in ("us-east", "eu-west", "ap-south"))

    def __enter__(self):
        try:
            for node in self.nodes.values():
                node.start()
            for node in self.nodes.values():
                node.await_figures(trusted="yes", quarantined_slots=0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for writer in self.writers:
            writer.end()
        for node in self.nodes.values():
            node.stop()
        for relay in (*self.streams.values(), *self.ways.values(), self.copying):
            relay.close()
        for database in self.databases.values():
            database.remove()
        if self.brokers:
            self.brokers.close()

    def ask(self, at, certificate):
        """A peer of a region's stream with the certificate of some region."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.load_verify_locations(self.files / "ca.pem")
        tls.load_cert_chain(self.files / f"{certificate}.pem", self.files / f"{certificate}.key")
        return Asker(self.streams[at].target, tls)

    def sql(self, region, text):
        return self.databases[region].sql(text, self.name)

    def second(self, region):
        """Starts another node of a region with a standby; ends with the realm."""
        first = self.nodes[region]
        name = f"{region}-2"
        keys = {**self.carried, "listen": f"127.0.0.1:{free_port()}"}
        node = RegionNode(
            first.directory.parent / name, region, [], keys, variables=dict(first.variables), storage_timeout="2s",
            admin=True, admin_token_file=self.token)  # fmt: skip
        node.rewrite(storage=first.document["storage"], regions=self.regions)
        self.nodes[name] = node
        node.start()
        node.await_figures(trusted="yes", quarantined_slots=0)
        return node

    def promote(self, region, *options, at=None):
        """`martletctl region promote`: exit code, the report where it came to one, and what was said."""
        admin = self.nodes[at or region].admin
        code, out, said = control("region", "promote", region, "--json", *options, admin=admin, token=self.token)
        return code, json.loads(out) if code == 0 else None, said

    def status(self, region):
        code, out, said = control("region", "status", "--json", admin=self.nodes[region].admin)
        assert code == 0, said
        return json.loads(out)

    def await_home(self, region, nodes=("us-east", "eu-west", "ap-south"), seconds=15):
        for name in nodes:
            if name in self.nodes:
                self.nodes[name].await_figures(seconds=seconds, home_region=region, trusted="yes", quarantined_slots=0)

    def write(self, region, prefix=None):
        """Begins to write at a region's node; ends with the realm."""
        writer = Writer(self.nodes[region], prefix or region)
        self.writers.append(writer)
        return writer

    def await_copy(self):
        """Waits until the standby has everything."""
        deadline = time.monotonic() + 20
        while True:
            here = self.sql("us-east", "SELECT pg_current_wal_lsn()")
            if self.sql("eu-west", f"SELECT pg_last_wal_replay_lsn() >= '{here}'") == "t":
                return
            assert time.monotonic() < deadline, "the standby does not follow"
            time.sleep(0.02)

    def rebuild(self, region, source):
        """Makes a region's database a standby of another region's."""
        database = self.databases[region]
        database.run("pg_ctl", "-D", database.data, "-m", "immediate", "-w", "stop", check=False)
        shutil.rmtree(database.data)
        database.run(
            "pg_basebackup", "-D", database.data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-h", "127.0.0.1", "-p",
            str(self.databases[source].port), "-U", "martlet")  # fmt: skip
        database.start()


class Asker(Peer):
    """Asks which region is home, and to be home, in the name of some region."""

    def home(self, region):
        """Kind and text of the answer to who is home: 12 and its region, or 3 and why it is not told."""
        self.send(11, struct.pack(">I", 0x4D525453) + text("main") + text(region))
        return self.answer()

    def want(self, kind, region, promotion=1 << 40 | 7):
        """Asks for a fence (13), its being taken back (14) or a claim (18): kind and text of the answer."""
        self.send(kind, struct.pack(">q", promotion) + text(region))
        return self.answer()

    def answer(self):
        kind, body = self.frame()
        start = {3: 0, 12: 8, 19: 8}.get(kind)
        if start is None:
            return kind, ""
        (length,) = struct.unpack_from(">H", body, start)
        return kind, body[start + 2 : start + 2 + length].decode()


def text(words):
    return struct.pack(">H", len(words)) + words.encode()


class SlowHome(Listener):
    """Nodes of a home region that answer a fence only behind its being taken back, and refuse that."""

    def __init__(self, region):
        self.region, self.told = region, []
        self.asked = 0
        super().__init__(self.answer)

    def answer(self, connection):
        def send(kind, body):
            connection.sendall(struct.pack(">IB", len(body) + 1, kind) + body)

        with connection.makefile("rb") as file:
            while len(head := file.read(5)) == 5:
                length, kind = struct.unpack(">IB", head)
                body = file.read(length - 1)
                if kind == 11:
                    send(12, struct.pack(">q", 0) + text(self.region))
                    self.asked += 1
                elif kind in (13, 14):
                    self.told.append(kind)
                    if kind == 14:
                        send(15, body[:8])
                        send(3, text("it cannot"))
                        return
                else:
                    return


class Writer:
    """Writes numbers that grow, to 40 keys in turn; remembers what was acknowledged, and when by the wall clock."""

    def __init__(self, node, prefix):
        self.node, self.prefix = node, prefix
        self.acked, self.failed, self.is_over = [], 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        client, number = None, 0
        while not self.is_over:
            number += 1
            try:
                client = client or self.node.client(5)
                if client.set(f"{self.prefix}:{number % 40}", b"%d" % number) == "STORED":
                    self.acked.append((number, time.time()))
                else:
                    self.failed += 1
                    time.sleep(0.01)
            except (OSError, Closed):
                client = None
                self.failed += 1
                time.sleep(0.05)
            time.sleep(0.001)

    def end(self):
        self.is_over = True
        self.thread.join()
        return self

    @property
    def last(self):
        """By key, the last number that was acknowledged, and when."""
        return {f"{self.prefix}:{number % 40}": (number, when) for number, when in self.acked}

    def await_more(self, count=50, seconds=15):
        target, deadline = len(self.acked) + count, time.monotonic() + seconds
        while len(self.acked) < target:
            assert time.monotonic() < deadline, f"{self.prefix}: only {len(self.acked)} of {target} writes were acknowledged"
            time.sleep(0.02)
