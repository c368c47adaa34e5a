# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The rendered pods, run: probes answer, helm's tests pass, memory stays within its request, and how a pod ends."""

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from bed import Client, Closed, default_command
from bed.server import StartError
from discovery import kubernetes
from discovery.etcd import Etcd
from storage import database
from storage.database import Database
from streams.brokers import Brokers

from .chart import merge, objects, of_kind, rendered, values
from .pod import Pod
from .test_chart import mebibytes

pytestmark = pytest.mark.ours

TOKEN = b"a-token-of-some-length\n"


@pytest.fixture
def folder():
    """A directory that the pod's user may pass, which pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="martlet-pod-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """{key: bytes} of a kubernetes.io/tls Secret that is its own authority."""
    place = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=cache", "-addext", "subjectAltName=DNS:cache-martlet,IP:127.0.0.1", "-keyout", place / "tls.key",
         "-out", place / "tls.crt"], check=True, capture_output=True)  # fmt: skip
    files = {path.name: path.read_bytes() for path in place.iterdir()}
    return {**files, "ca.crt": files["tls.crt"]}


def talk(client):
    assert client.ask("set greeting 0 0 5\r\nhello") == "STORED"
    assert client.get("greeting")


def test_a_cache_node(folder):
    found = objects("cache")
    with Pod(found, "cache-martlet", folder) as pod:
        talk(pod.client())
        assert pod.probe("livenessProbe") == pod.probe("readinessProbe") == 200
        test = Pod(found, "cache-martlet-test", folder)
        test.ports = pod.ports
        code, said = test.run("settings")
        assert code == 0 and "the configuration is valid" in said, said
        service = f"127.0.0.1:{pod.ports['11211']}"
        code, said = test.run("write", [("cache-martlet:11211", service)])
        assert code == 0 and "1 rows restored" in said, said
        with pod.client() as client:
            client.send("config get cluster\r\n")
            assert client.line().startswith("CONFIG cluster 0 ")
            client.line()
            names = client.line().split(" ")
        assert names == [f"cache-martlet-{n}.cache-martlet-headless.prod.svc.cluster.local||11211" for n in range(3)]


def test_an_embedded_node_keeps_its_rows(folder):
    secrets = {"martlet-admin": {"token": TOKEN}}
    # The volume is the machine's; 4 GiB of cache are only reserved as items come.
    with Pod(objects("embedded"), "cache-martlet", folder, secrets) as pod:
        talk(pod.client())
        pod.server.signal(signal.SIGUSR1)
        assert pod.server.wait(15) == 0
        pod.start()
        assert pod.client().get("greeting")


def test_a_node_in_front_of_postgres(folder):
    server = database.shared()
    server.sql("CREATE DATABASE chart")
    secrets = {"database": {"url": server.url("chart").encode()}}
    pod = Pod(objects("postgres"), "front", folder, secrets)
    try:
        with pytest.raises(StartError, match="storage init"):
            pod.start()
        code, said = pod.run("storage-init")
        assert code == 0, said
        assert pod.run("storage-init")[0] == 0, "a pod is started more than once"
        talk(pod.start().client())
        assert server.sql("SELECT count(*) FROM martlet_kv", "chart") == "1"
        sessions = server.sql("SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = 'chart'")
        assert "martlet prod/cache-0 " in sessions, "the node's name is the pod's, so that it outlives the pod"
    finally:
        if pod.server:
            pod.server.stop()
        server.sql("DROP DATABASE chart WITH (FORCE)")


def test_a_guarded_node(folder, certificate):
    """TLS with client certificates and users: what the chart mounts is what the node reads."""
    secrets = {"cache-martlet-tls": certificate, "cache-users": {"users": b"alice:secret\n"}}
    with Pod(objects("guarded"), "cache-martlet", folder, secrets) as pod:
        for name in ("tls.crt", "tls.key"):
            (folder / name).write_bytes(certificate[name])
        context = ssl.create_default_context(cadata=certificate["ca.crt"].decode())
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        client = Client(context.wrap_socket(pod.server.connect(), server_hostname="cache-martlet"))
        assert client.ask("get k").startswith("CLIENT_ERROR")
        assert client.ask("set auth 0 0 12\r\nalice secret") == "STORED"
        talk(client)
        assert client.socket.version() == "TLSv1.3"
        test = Pod(objects("guarded"), "cache-martlet-test", folder)
        assert test.run("settings")[0] == 0
        assert [container["name"] for container in test.spec["containers"]] == ["settings"]


def test_a_node_with_tls_from_a_secret(folder, certificate):
    with Pod(objects("tls-secret"), "cache-martlet", folder, {"cache-tls": certificate}) as pod:
        context = ssl.create_default_context(cadata=certificate["ca.crt"].decode())
        talk(Client(context.wrap_socket(pod.server.connect(), server_hostname="cache-martlet")))


@pytest.mark.parametrize("backend", ["none", "rocksdb"])
def test_a_full_node_stays_within_its_request(folder, backend):
    settings = {"node": {"replicas": 1, "memory": "64MiB"}, "storage": {"backend": backend, "durability": "async"}}
    found = rendered(settings)
    with Pod(found, "cache-martlet", folder) as pod:
        value = os.urandom(1000).hex().encode()
        with pod.client() as client:
            for batch in range(0, 50_000, 1000):
                client.send(b"".join(b"set k%d 0 0 %d noreply\r\n%s\r\n" % (number, len(value), value)
                                     for number in range(batch, batch + 1000)))  # fmt: skip
                assert client.ask("mn") == "MN"
            assert int(client.stats()["evictions"]) > 0, "the node is not full"
        requested = mebibytes(pod.main["resources"]["requests"]["memory"]) << 20
        assert pod.server.rss() < requested, (pod.server.rss(), requested)


def reply(client):
    """The value of a get's reply; the line that came in its place where there is none."""
    head = client.line()
    if not head.startswith("VALUE "):
        return head
    value = client.read(int(head.split()[3]))
    assert (client.line(), client.line()) == ("", "END")
    return value


class Load:
    """Clients that ask and wait for the answer, until the node closes their connections."""

    def __init__(self, pod, clients=8):
        self.pod, self.told, self.begun = pod, float("inf"), threading.Barrier(clients + 1)
        self.answered = [0] * clients
        # Requests that were sent and never answered, with the moment at which they had been sent.
        self.lost, self.wrong = [], []
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(clients)]

    def work(self, number):
        with self.pod.client() as client:
            self.begun.wait()
            for count in range(10_000_000):
                key = f"client-{number}-{count % 50}"
                try:
                    client.send(f"set {key} 0 0 {len(str(count))}\r\n{count}\r\nget {key}\r\n")
                    sent = time.monotonic()
                except OSError:
                    return
                try:
                    stored, value = client.line(), reply(client)
                except (Closed, OSError):
                    self.lost.append(sent)
                    return
                if stored != "STORED" or value != str(count).encode():
                    self.wrong.append((key, count, stored, value))
                self.answered[number] += 1

    def run(self, number, before=None):
        """Does `before` and sends the signal under load; how long the node took to end, its exit code, and what was lost of the requests
        that had been sent before."""
        for thread in self.threads:
            thread.start()
        self.begun.wait()
        time.sleep(0.5)
        if before:
            before()
        assert not self.lost, "draining closed a connection"
        told = time.monotonic()
        self.pod.server.signal(number)
        code = self.pod.server.wait(15)
        took = time.monotonic() - told
        for thread in self.threads:
            thread.join(20)
        return code, took, [sent for sent in self.lost if sent < told]


@contextlib.contextmanager
def fleet(case, secrets=None):
    """The nodes and a router of a case; (router, nodes)."""
    found = objects(case)
    [stateful] = of_kind(found, "StatefulSet")
    with contextlib.ExitStack() as stack:
        nodes, names = [], {}
        for number in range(stateful["spec"]["replicas"]):
            nodes.append(stack.enter_context(Pod(found, "cache-martlet", make(stack), secrets)))
            name = f"cache-martlet-{number}.cache-martlet-headless.prod.svc.cluster.local:11211"
            names[name] = f"127.0.0.1:{nodes[-1].ports['11211']}"
        yield stack.enter_context(Pod(found, "cache-martlet-router", make(stack), secrets, names)), nodes


def make(stack):
    """A directory that the pod's user may pass."""
    path = Path(tempfile.mkdtemp(prefix="martlet-pod-"))
    stack.callback(shutil.rmtree, path, ignore_errors=True)
    return path


def test_routers_spread_keys_over_nodes(folder):
    with fleet("router") as (router, nodes):
        with router.client() as client:
            for number in range(200):
                assert client.set(f"key-{number}", "v") == "STORED"
        held = []
        for node in nodes:
            with node.client() as client:
                held.append(int(client.stats()["curr_items"]))
        assert sum(held) == 200 and min(held) > 10, held
        assert router.probe("livenessProbe") == router.probe("readinessProbe") == 200
        test = Pod(objects("router"), "cache-martlet-test", folder)
        code, said = test.run("write", [("cache-martlet:11211", f"127.0.0.1:{router.ports['11211']}")])
        assert code == 0 and "1 rows restored" in said, said


def test_routers_read_a_changed_ring(folder):
    """As a kubelet changes a ConfigMap: the file behind a link is another one."""
    with fleet("router") as (router, nodes):
        # It looks once a second, and for the first time when it serves.
        time.sleep(1.5)
        place = router.root / "etc/martlet/router"
        (place / "new").mkdir()
        text = (place / "router.yaml").read_text()
        first = f"127.0.0.1:{nodes[0].ports['11211']}"
        others = [f"- 127.0.0.1:{node.ports['11211']}" for node in nodes[1:]]
        kept = "\n".join(line for line in text.splitlines() if line not in others)
        assert first in kept and len(kept) < len(text)
        (place / "new/router.yaml").write_text(kept)
        (place / "link.yaml").symlink_to("new/router.yaml")
        os.replace(place / "link.yaml", place / "router.yaml")
        deadline = time.monotonic() + 10
        while "reloaded" not in router.server.output():
            assert time.monotonic() < deadline and router.server.alive(), router.server.output()
            time.sleep(0.1)
        # Each of its threads takes the new ring up by itself.
        time.sleep(0.5)
        with router.client() as client:
            for number in range(100):
                assert client.set(f"one-{number}", "v") == "STORED"
        with nodes[0].client() as client:
            assert int(client.stats()["curr_items"]) == 100


def test_routers_speak_tls_on_both_sides(folder, certificate):
    with fleet("router-daemonset", {"cache-tls": certificate}) as (router, nodes):
        for name in ("tls.crt", "tls.key"):
            (folder / name).write_bytes(certificate[name])
        context = ssl.create_default_context(cadata=certificate["ca.crt"].decode())
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        client = Client(context.wrap_socket(router.server.connect(), server_hostname="cache-martlet"))
        talk(client)
        assert len(nodes) == 2


def test_nodes_that_share_a_database_behind_routers_that_watch():
    """Three nodes with owners on one PostgreSQL, and a router that finds them by EndpointSlices."""
    server = database.shared()
    server.sql("CREATE DATABASE fleet")
    found = objects("fleet")
    names = [f"cache-martlet-{number}.cache-martlet-headless.prod.svc.cluster.local:11211" for number in range(3)]
    secrets = {"database": {"url": server.url("fleet").encode()}}
    try:
        with contextlib.ExitStack() as stack, kubernetes.Server(token=None) as api:
            pods = [Pod(found, "cache-martlet", make(stack), secrets, called=f"cache-martlet-{number}")
                    for number in range(3)]  # fmt: skip
            places = {name: f"127.0.0.1:{pod.ports['11211']}" for name, pod in zip(names, pods)}
            assert pods[0].run("storage-init")[0] == 0
            for pod in pods:
                pod.names = places
                # It starts where it is ready: it serves before it has its lease.
                stack.enter_context(pod)
            # A slice has one port for all its addresses: each node is a slice of its own here.
            for number, pod in enumerate(pods):
                api.put(f"s{number}", kubernetes.endpoint("127.0.0.1", f"cache-martlet-{number}"))
                api.slices[f"s{number}"]["ports"][0]["port"] = int(pod.ports["11211"])
            router = stack.enter_context(Pod(
                found, "cache-martlet-router", make(stack),
                names={"k8s:///prod/cache-martlet-ready": f"k8s+http://{api.base}/prod/cache-martlet-ready"}))
            within(20, lambda: "servers:3" in router.client().stats("pools")["nodes"])
            within(20, lambda: all(pod.client().stats("storage")["ring_members"].count(",") == 2 for pod in pods))
            assert api.requests[0][1]["labelSelector"] == "kubernetes.io/service-name=cache-martlet-ready"
            with router.client() as client:
                within(10, lambda: client.set("first", "v") == "STORED")
                for number in range(100):
                    assert client.set(f"key-{number}", str(number)) == "STORED"
                for number in range(100):
                    assert client.get(f"key-{number}") == str(number).encode()
            # Asked of any node, the answer is the owner's.
            for pod in pods:
                with pod.client() as client:
                    assert all(client.get(f"key-{number}") == str(number).encode() for number in range(100))
            assert server.sql("SELECT count(*) FROM martlet_kv WHERE k LIKE 'key-%'", "fleet") == "100"
    finally:
        server.sql("DROP DATABASE fleet WITH (FORCE)")


def test_a_replica_that_reads_and_writes_at_home(folder):
    """storage.backend region: what is written at the replica is home's, and what is written at home is read there."""
    with contextlib.ExitStack() as stack:
        certify = stack.enter_context(authority())
        home = objects("region-us-east")
        [certificate] = of_kind(home, "Certificate")
        # The home region knows this replica, too.
        settings = merge(values("region-us-east"), {"regions": {"list": [
            {"name": "us-east", "role": "home", "stream": "cache-us-east.example.internal:11212",
             "serve": "cache-us-east.example.internal:11211"}, {"name": "sa-east", "role": "replica"}]}})  # fmt: skip
        first = stack.enter_context(Pod(rendered(settings), "cache-martlet", make(stack),
                                        {"cache-martlet-stream": certify(certificate["spec"])}))  # fmt: skip
        places = {"cache-us-east.example.internal:11212": f"127.0.0.1:{first.ports['11212']}",
                  "cache-us-east.example.internal:11211": f"127.0.0.1:{first.ports['11211']}"}  # fmt: skip
        # On loopback nobody listens in.
        plain = merge(values("region-sa-east"), {"storage": {"region": {"tls": False, "tlsName": ""}}})
        secrets = {"region-sa-east": certify({"commonName": "sa-east", "dnsNames": ["sa-east"]})}
        replica = stack.enter_context(Pod(rendered(plain), "cache-martlet", make(stack), secrets, places))
        source, far = first.client(), replica.client()
        within(20, lambda: far.stats("stream")["trusted"] == "yes")
        assert source.set("k", "home") == "STORED"
        within(10, lambda: far.get("k") == b"home")
        assert far.set("k", "far") == "STORED"
        assert source.get("k") == far.get("k") == b"far"


def test_nodes_of_a_replica_region_agree_in_etcd(folder):
    """Two nodes with owners, and a router: whoever was told of a write reads it, at whatever node."""
    with contextlib.ExitStack() as stack:
        etcd = Etcd(folder / "etcd")
        etcd.start()
        stack.callback(etcd.stop)
        certify = stack.enter_context(authority())
        settings = merge(values("region-us-east"), {"regions": {
            "list": values("region-me-south")["regions"]["list"], "tls": {
                "certManager": {"enabled": False}, "existingSecret": "region-us-east"}}})  # fmt: skip
        home = stack.enter_context(Pod(
            rendered(settings), "cache-martlet", make(stack),
            {"region-us-east": certify({"commonName": "us-east", "dnsNames": ["us-east"]})}))  # fmt: skip
        # On loopback nobody speaks TLS to what serves.
        found = rendered(merge(values("region-me-south"), {"storage": {"region": {"tls": False, "tlsName": ""}}}))
        secrets = {"region-me-south": certify({"commonName": "me-south", "dnsNames": ["me-south"]})}
        pods = [Pod(found, "cache-martlet", make(stack), secrets, called=f"cache-martlet-{number}") for number in range(2)]
        places = {f"cache-us-east.example.internal:{port}": f"127.0.0.1:{home.ports[port]}" for port in ("11211", "11212")}
        places["etcd.prod.svc.cluster.local:2379"] = f"127.0.0.1:{etcd.port}"
        for number, pod in enumerate(pods):
            name = f"cache-martlet-{number}.cache-martlet-headless.prod.svc.cluster.local:11211"
            places[name] = f"127.0.0.1:{pod.ports['11211']}"
        for pod in pods:
            pod.names = places
            stack.enter_context(pod)
        router = stack.enter_context(Pod(found, "cache-martlet-router", make(stack), names=places))
        within(20, lambda: all(pod.client().stats("storage")["ring_members"].count(",") == 1 for pod in pods))
        with router.client() as client:
            within(20, lambda: client.set("first", "v") == "STORED")
            for number in range(100):
                assert client.set(f"key-{number}", str(number)) == "STORED"
        for pod in pods:
            with pod.client() as client:
                assert all(client.get(f"key-{number}") == str(number).encode() for number in range(100))
        with home.client() as client:
            assert client.get("key-99") == b"99"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=["USR1", "TERM"])
def test_a_router_ends_without_losing_a_request_that_was_sent(number):
    with fleet("router") as (router, _):
        load = Load(router)
        code, took, lost = load.run(number)
        assert code == 0
        # Clients that go on asking are served until three quarters of drainTimeout are over.
        assert took < 12 < router.spec["terminationGracePeriodSeconds"]
        assert all(load.answered) and not load.wrong
        assert not lost, f"{len(lost)} requests were sent before the signal and never answered"
        print(f"{sum(load.answered)} pairs answered; ended {took:.3f} s after the signal; "
              f"{len(load.lost)} requests sent after it met a closed connection")


@pytest.mark.parametrize("case", ["cache", "embedded"])
def test_a_pod_ends_without_losing_a_request_that_was_sent(folder, case):
    """As a kubelet ends it, under load: the hook, then SIGTERM. What had arrived is answered, and the node is gone well
    within the pod's grace."""
    settings = {"node": {"drain": {"delaySeconds": 1, "waitSeconds": 1, "timeoutSeconds": 2}}}
    found = rendered(merge(values(case), settings))
    with Pod(found, "cache-martlet", folder, {"martlet-admin": {"token": TOKEN}}) as pod:
        load = Load(pod)
        probes = []

        def drain():
            begun = time.monotonic()
            said = pod.pre_stop()
            probes.append((pod.probe("livenessProbe"), pod.probe("readinessProbe")))
            # Eight clients ask all the time: it waits as long as it may.
            assert "8 of" in said and 1.9 < time.monotonic() - begun < 6, said

        code, took, lost = load.run(signal.SIGTERM, before=drain)
        assert code == 0
        assert probes == [(200, 503)]
        assert took < 5 < pod.spec["terminationGracePeriodSeconds"]
        assert all(load.answered), "a client did nothing"
        assert not load.wrong
        assert not lost, f"{len(lost)} requests were sent before the signal and never answered"
        print(f"{sum(load.answered)} pairs answered; ended {took:.3f} s after the signal; "
              f"{len(load.lost)} requests sent after it met a closed connection")


def test_the_hook_does_not_wait_for_clients_that_are_quiet(folder):
    settings = {"node": {"replicas": 1, "drain": {"delaySeconds": 0, "waitSeconds": 30}}}
    with Pod(rendered(merge(values("cache"), settings)), "cache-martlet", folder) as pod, pod.client() as client:
        talk(client)
        begun = time.monotonic()
        assert pod.pre_stop().startswith("drained: 0 of ")
        assert time.monotonic() - begun < 10


@contextlib.contextmanager
def authority():
    """Makes {key: bytes} of a region's Secret, as cert-manager makes it from the rendered Certificate."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def openssl(*line):
            subprocess.run(["openssl", *map(str, line)], check=True, capture_output=True, cwd=place)

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=regions", "-keyout", "ca.key", "-out", "ca.crt")

        def make(spec):
            names = ",".join(f"DNS:{name}" for name in spec["dnsNames"])
            (place / "extensions").write_text(f"subjectAltName={names}")
            openssl("req", *key, "-subj", f"/CN={spec['commonName']}", "-keyout", "tls.key", "-out", "request")
            openssl("x509", "-req", "-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                    "-days", "2", "-extfile", "extensions", "-out", "tls.crt")  # fmt: skip
            return {name: (place / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt")}

        yield make


@contextlib.contextmanager
def regions(of_home=None):
    """A node of each of three regions, as their values render them; the home's certificate may be another region's."""
    with contextlib.ExitStack() as stack:
        certify = stack.enter_context(authority())
        home = objects("region-us-east")
        [certificate] = of_kind(home, "Certificate")
        secrets = {"cache-martlet-stream": certify(of_home or certificate["spec"])}
        first = stack.enter_context(Pod(home, "cache-martlet", make(stack), secrets))
        names = {"cache-us-east.example.internal:11212": f"127.0.0.1:{first.ports['11212']}"}
        [certificate] = of_kind(objects("region-eu-west"), "Certificate")
        west = stack.enter_context(Pod(objects("region-eu-west"), "cache-martlet", make(stack),
                                       {"cache-martlet-stream": certify(certificate["spec"])}, names))  # fmt: skip
        south = {"region-ap-south": certify({"commonName": "ap-south", "dnsNames": ["ap-south"]})}
        yield first, west, stack.enter_context(
            Pod(objects("region-ap-south"), "cache-martlet", make(stack), south, names))


def test_regions_follow_the_home_region():
    """What is changed at home leaves the other regions' caches, or is put there."""
    with regions() as (first, west, south):
        source, dropped, replaced = first.client(), west.client(), south.client()
        for one in (dropped, replaced):
            within(20, lambda one=one: one.stats("stream")["trusted"] == "yes")
        for one in (source, dropped, replaced):
            assert one.set("k", "old") == "STORED"
        assert source.set("k", "new") == "STORED"
        within(10, lambda: dropped.get("k") is None)
        within(10, lambda: replaced.get("k") == b"new")
        assert first.probe("readinessProbe") == west.probe("readinessProbe") == 200


@contextlib.contextmanager
def regions_by_kafka():
    """A node of each of two regions between which brokers stand, as their values render them; the brokers have no TLS and no
    login, and home no registry."""
    with contextlib.ExitStack() as stack:
        brokers = Brokers(("inv.main", "state.main"))
        stack.callback(brokers.close)
        certify = stack.enter_context(authority())
        plain = {"regions": {"kafka": {"brokers": brokers.addresses.split(","), "security": "plaintext", "registry": {
            "url": "", "username": "", "sameAuthority": False}, "tls": {"existingSecret": "", "clientCertificate": False}}}}
        pods, names = [], {}
        for case, region in (("kafka-home", "north"), ("kafka-replica", "south")):
            secrets = {f"region-{region}": certify({"commonName": region, "dnsNames": [region]})}
            found = rendered(merge(values(case), plain))
            pods.append(stack.enter_context(Pod(found, "cache-martlet", make(stack), secrets, names)))
            names = {"cache-north.example.internal:11212": f"127.0.0.1:{pods[0].ports['11212']}"}
        within(20, lambda: pods[1].client().stats("stream")["trusted"] == "yes")
        yield pods


def test_regions_follow_the_home_region_through_kafka():
    with regions_by_kafka() as (first, second):
        source, copies = first.client(), second.client()
        assert source.set("k", "old") == copies.set("k", "old") == "STORED"
        assert source.set("k", "new") == "STORED"
        within(10, lambda: copies.get("k") is None)
        assert copies.stats("stream")["transport"] == "kafka"
        within(10, lambda: source.stats("stream")["kafka_state_published"] != "0")
        assert first.probe("readinessProbe") == second.probe("readinessProbe") == 200


@contextlib.contextmanager
def home_with_debezium():
    """A node on a PostgreSQL that reads a Debezium connector's topic; its brokers have no TLS, and there is no registry."""
    with contextlib.ExitStack() as stack:
        brokers = Brokers(("pg.public.martlet_kv",), partitions=1)
        stack.callback(brokers.close)
        server = Database()
        stack.callback(server.remove)
        certify = stack.enter_context(authority())
        plain = {"regions": {"kafka": {"brokers": brokers.addresses.split(","), "security": "plaintext",
                                       "registry": {"url": "", "sameAuthority": False}, "tls": {"existingSecret": ""}}}}  # fmt: skip
        secrets = {"database": {"url": server.fresh("realm").encode()},
                   "region-north": certify({"commonName": "north", "dnsNames": ["north"]})}  # fmt: skip
        pod = Pod(rendered(merge(values("debezium"), plain)), "cache-martlet", make(stack), secrets)
        stack.enter_context(pod)
        within(20, lambda: pod.client().stats("stream")["debezium_reads"] == "yes")
        yield pod


def test_a_home_region_reads_a_debezium_connectors_topic():
    with home_with_debezium() as pod:
        assert pod.client().stats("stream")["debezium_topic"] == "pg.public.martlet_kv"
        assert pod.client().set("k", "v") == "STORED" and pod.probe("readinessProbe") == 200


@pytest.mark.parametrize("case", ["debezium", "kafka-home", "kafka-replica", "region-us-west", "region-us-central", "region-me-south", "revoked"])
def test_the_settings_of_regions_are_right(folder, case):
    """What helm's test runs in the pod, with the variables that the Secrets fill."""
    secrets = {"kafka-login": {"password": b"secret-1", "registry": b"secret-2"}, "database": {"url": b"postgresql://h/d"},
               "standby": {"url": b"postgresql://u:secret-3@h/d"}}  # fmt: skip
    code, said = Pod(objects(case), "cache-martlet-test", folder, secrets).run("settings")
    assert code == 0 and "the configuration is valid" in said, said
    assert "secret-" not in said


def test_a_region_with_a_standby_becomes_home(folder):
    """As the values of both regions render them: the one is fenced, the other takes the writes."""
    with contextlib.ExitStack() as stack:
        first = Database()
        stack.callback(first.remove)
        url = first.fresh("realm")
        second = Database(primary=first)
        stack.callback(second.remove)
        name = url.rsplit("/", 1)[1]
        certify = stack.enter_context(authority())
        # On loopback nobody speaks TLS to what serves.
        changes = {"tls": {"enabled": False}, "storage": {"region": {"tls": False, "tlsName": ""}}}
        secret = {"martlet-admin": {"token": TOKEN}}
        home = {**secret, "database": {"url": url.encode()},
                "region-us-central": certify({"commonName": "us-central", "dnsNames": ["us-central"]})}  # fmt: skip
        other = {**secret, "standby": {"url": second.url(name).encode()},
                 "region-us-west": certify({"commonName": "us-west", "dnsNames": ["us-west"]})}  # fmt: skip
        central = Pod(rendered(merge(values("region-us-central"), {"tls": {"enabled": False}})), "cache-martlet",
                      make(stack), home)  # fmt: skip
        west = Pod(rendered(merge(values("region-us-west"), changes)), "cache-martlet", make(stack), other)
        for pod in (central, west):
            pod.names = {f"{place}-{region}.example.internal:{port}": f"127.0.0.1:{one.ports[port]}"
                         for region, one in (("us-central", central), ("us-west", west))
                         for place, port in (("stream", "11212"), ("cache", "11211"))}  # fmt: skip
        stack.enter_context(central)
        stack.enter_context(west)
        within(20, lambda: west.client().stats("stream")["trusted"] == "yes")
        with central.client() as client, west.client() as far:
            for number in range(100):
                assert client.set(f"k{number}", str(number)) == "STORED"
            within(10, lambda: far.get("k99") == b"99")
            assert json.loads(west.get("/region")[1])["database"]["state"] == "standby"
            (folder / "token").write_bytes(TOKEN)
            done = subprocess.run(
                [Path(default_command().split()[0]).with_name("martletctl"), "region", "promote", "us-west", "--json",
                 f"--node=http://127.0.0.1:{west.admin}", f"--token-file={folder / 'token'}"],
                capture_output=True, text=True, timeout=100, check=False)  # fmt: skip
            assert done.returncode == 0, done.stderr
            report = json.loads(done.stdout)
            assert report["home"] == "us-west" and report["lossless"] is True
            within(20, lambda: far.set("after", "west") == "STORED")
            assert all(far.get(f"k{number}") == str(number).encode() for number in range(100))
            assert second.sql("SELECT count(*) FROM martlet_kv WHERE k = 'after'", name) == "1"
            within(20, lambda: json.loads(central.get("/region")[1])["home"] == "us-west")
        for pod, said in ((west, "this region is home"), (central, "another region is to be home: writes are refused")):
            assert said in {event["msg"] for event in json.loads(pod.get("/events")[1])["events"]}


def test_a_region_with_anothers_certificate_is_not_followed():
    with regions({"commonName": "eu-west", "dnsNames": ["eu-west"]}) as (_, west, _):
        time.sleep(2)
        assert west.client().stats("stream")["trusted"] == "no"


def within(seconds, holds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
