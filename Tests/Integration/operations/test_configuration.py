# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Which configuration a process has, what became of others, and what happened to it: /metrics, /config, /events, /ring."""

import json
import re
import signal

import pytest

from bed import Server, free_port, until
from bed.server import ROOT
from overload.test_shedding import Node as Overloaded, flood
from router.bed import Router
from storage import database
from storage.rings import Fleet

from .test_drain import control, page

pytestmark = pytest.mark.ours


def figures(admin, prefix):
    """{name with labels: value} of the families of configurations."""
    text = page(admin, "/metrics")[1]
    return {name: float(value) for name, value in re.findall(rf"(?m)^{prefix}_(\S+) (\S+)$", text)}


def digest(admin, prefix="martlet_config"):
    [name] = [name for name in figures(admin, prefix) if name.startswith("info{")]
    return re.search(r'digest="([0-9a-f]{16})"', name)[1]


def node(tmp_path, name, text="{}", *flags, environment=None):
    file = tmp_path / f"{name}.yaml"
    file.write_text(text)
    admin = free_port()
    server = Server(["--config", str(file), f"--admin=127.0.0.1:{admin}", *flags], environment=environment)
    server.admin, server.file = admin, file
    return server


def test_nodes_that_were_told_alike_have_one_digest(tmp_path):
    """Whatever told them, and wherever they listen; what differs in the smallest thing has another."""
    told = "pools: [{prefix: 'a:', cacheTTL: 5s}]\nitems: {maxSize: 2MiB}\nstorage: {backend: memory}\n"
    other = "storage: {backend: memory}\nitems: {maxSize: 2048k}\npools:\n  - cacheTTL: 5000ms\n    prefix: 'a:'\n"
    pool = "storage: {backend: memory}\nitems: {maxSize: 2MiB}\npools: [{prefix: 'a:', cacheTTL: 6s}]\n"
    started = []
    try:
        started.append(node(tmp_path, "one", told))
        started.append(node(tmp_path, "two", other))
        started.append(node(tmp_path, "three", "pools: [{prefix: 'a:', cacheTTL: 5s}]\n", "--items-max-size=2MiB",
                            environment={"MARTLET_STORAGE_BACKEND": "memory"}))  # fmt: skip
        started.append(node(tmp_path, "pool", pool))
        started.append(node(tmp_path, "option", told, "-R", "40"))
        one, two, three, four, five = (digest(server.admin) for server in started)
        assert one == two == three and len({one, four, five}) == 3
        # Side by side, who differs is named.
        code, said, errors = control("top", "--count=1", *(f"127.0.0.1:{server.admin}" for server in started[:4]))
        assert code == 0, errors
        plain = " ".join(said.split())
        assert "The nodes' configurations differ" in plain and f"{four} at 127.0.0.1:{started[3].admin}" in plain
        code, said, _ = control("top", "--count=1", *(f"127.0.0.1:{server.admin}" for server in started[:3]))
        assert code == 0 and "differ" not in said
    finally:
        for server in started:
            server.stop()


def test_a_secret_does_not_show_in_it(tmp_path):
    """Neither in the page of settings nor as another digest, by which it could be guessed."""
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    token.chmod(0o600)
    digests = []
    for secret in ("alpha", "omega"):
        text = f"tracing: {{endpoint: 'http://127.0.0.1:9', headers: ['authorization={secret}']}}\n"
        with node(tmp_path, "node", text, f"--admin-token-file={token}") as server:
            digests.append(digest(server.admin))
            status, said = page(server.admin, "/config", headers={"Authorization": "Bearer a-token-of-some-length"})
            assert status == 200 and secret not in said and "tracing.headers: (secret)" in said
            assert re.search(r"(?m)^threads: \d+  # the default$", said) and "tracing.endpoint: http://127.0.0.1:9" in said
            assert page(server.admin, "/config")[0] == 401
    assert digests[0] == digests[1]


def test_a_nodes_reloads_are_counted(tmp_path):
    with node(tmp_path, "node", "log: {level: info}\n") as server:
        first = digest(server.admin)
        found = figures(server.admin, "martlet_config")
        assert found["generation"] == 1 and found["pending"] == 0
        assert found['reloads_total{result="taken"}'] == found['reloads_total{result="refused"}'] == 0
        server.file.write_text("log: {level: debug}\n")
        server.signal(signal.SIGHUP)
        until(lambda: figures(server.admin, "martlet_config")["generation"] == 2)
        second = digest(server.admin)
        assert second != first and figures(server.admin, "martlet_config")["pending"] == 0
        server.file.write_text("log: {level: loud}\n")
        server.signal(signal.SIGHUP)
        until(lambda: figures(server.admin, "martlet_config")["pending"] == 1)
        found = figures(server.admin, "martlet_config")
        assert found["generation"] == 2 and found['reloads_total{result="refused"}'] == 1 and digest(server.admin) == second
        # What is taken, but not all of it yet.
        server.file.write_text("log: {level: info}\nthreads: 3\n")
        server.signal(signal.SIGHUP)
        until(lambda: figures(server.admin, "martlet_config")["generation"] == 3)
        assert figures(server.admin, "martlet_config")["pending"] == 1
        server.file.write_text("log: {level: info}\n")
        server.signal(signal.SIGHUP)
        until(lambda: figures(server.admin, "martlet_config")["generation"] == 4)
        assert figures(server.admin, "martlet_config")["pending"] == 0 and digest(server.admin) == first
        messages = [event["msg"] for event in json.loads(page(server.admin, "/events")[1])["events"]]
        assert messages.count("reloaded") == 3 and messages.count("reload failed") == 1
        assert messages.count("some changed settings wait for a restart") == 1
        said = json.loads(page(server.admin, "/stats.json")[1])
        assert said["configuration"]["digest"] == first and said["configuration"]["generation"] == 4
        assert [event["msg"] for event in said["events"]] == messages[-24:]


def test_a_routers_reloads_are_counted(tmp_path):
    """Its routes count as its files have them."""
    routes = "pools: {main: {servers: ['127.0.0.1:1']}}\nroute: main\n"
    file, admin = tmp_path / "router.yaml", free_port()
    file.write_text(routes)
    with Router([], ["--config", str(file), f"--admin=127.0.0.1:{admin}"]) as router:
        first = digest(admin, "martlet_router_config")
        with Router([], ["--config", str(file), f"--admin=127.0.0.1:{(second := free_port())}"]):
            assert digest(second, "martlet_router_config") == first
        file.write_text(routes.replace("127.0.0.1:1", "127.0.0.1:2"))
        until(lambda: figures(admin, "martlet_router_config")["generation"] == 2)
        assert digest(admin, "martlet_router_config") != first
        file.write_text("pools: {main: {servers: 7}}\nroute: main\n")
        until(lambda: figures(admin, "martlet_router_config")["pending"] == 1)
        text = page(admin, "/metrics")[1]
        assert re.search(r"(?m)^mcrouter_config_failures 1$", text)
        assert router.alive()


def test_a_file_beside_it_that_cannot_be_read_is_told(tmp_path):
    """The configuration is in use, and its digest says which; that users could not be read again is pending."""
    users = tmp_path / "users"
    users.write_text("alice:secret\n")
    settings, admin = f"auth: {{file: {users}}}\n", free_port()
    file = tmp_path / "router.yaml"
    file.write_text(settings + "servers: ['127.0.0.1:1']\n")
    with node(tmp_path, "node", settings) as server, \
            Router([], ["--config", str(file), f"--admin=127.0.0.1:{admin}"]) as router:  # fmt: skip
        cases = [(server, server.file, server.admin, "martlet_config", "log: {level: debug}\n"),
                 (router, file, admin, "martlet_router_config", "servers: ['127.0.0.1:2']\n")]  # fmt: skip
        for subject, path, place, prefix, change in cases:
            first = digest(place, prefix)
            users.unlink()
            path.write_text(settings + change)
            subject.signal(signal.SIGHUP)
            until(lambda: figures(place, prefix)["pending"] == 1)
            before = figures(place, prefix)["generation"]
            # A router looks at its file by itself, too.
            assert before >= 2 and digest(place, prefix) != first
            users.write_text("alice:secret\n")
            subject.signal(signal.SIGHUP)
            until(lambda: figures(place, prefix)["pending"] == 0)
            assert figures(place, prefix)["generation"] > before


def test_the_ring_as_servers_know_it(tmp_path):
    with Server("-m 64") as first, Server("-m 64") as second:
        admin = free_port()
        with Router([first, second], [f"--admin=127.0.0.1:{admin}"]) as router:
            with router.client() as client:
                client.set("k", "v")
            said = json.loads(page(admin, "/ring")[1])
            assert said["epoch"] == 1 and said["pools"][0]["servers"] == [f"127.0.0.1:{one.port}" for one in (first, second)]
            assert abs(sum(one["share"] for one in said["members"]) - 1) < 1e-6
            code, text, errors = control("ring", f"127.0.0.1:{admin}")
            assert code == 0, errors
            assert f"127.0.0.1:{admin}: router, epoch 1" in text
            assert all(re.search(rf"127\.0\.0\.1:{one.port} +\w+ +[\d.]+%", text) for one in (first, second)), text
            code, text, _ = control("ring", f"127.0.0.1:{admin}", "--json")
            assert json.loads(text)["servers"][0]["ring"] == json.loads(page(admin, "/ring")[1])
    with node(tmp_path, "node", "members: ['cache-a.example:11211', 'cache-b.example:11211']\n") as server:
        code, text, _ = control("ring", f"127.0.0.1:{server.admin}")
        assert code == 0 and "cache-b.example:11211" in text and "node" in text


def test_the_ring_of_nodes_that_share_a_database(tmp_path):
    if not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")
    fleet = Fleet(tmp_path, count=2)
    admin = free_port()
    fleet.nodes[0].admin = admin
    with fleet:
        said = json.loads(page(admin, "/ring")[1])
        assert said["leased"] and said["isMember"] and said["epoch"] >= 1
        assert {member["port"] for member in said["members"]} == {one.port for one in fleet.nodes}
        code, text, _ = control("ring", f"127.0.0.1:{admin}")
        assert code == 0 and "leased" in text
        messages = [event["msg"] for event in json.loads(page(admin, "/events")[1])["events"]]
        assert "the ring changed" in messages and "members changed" in messages


def test_hot_keys_of_several_nodes(tmp_path):
    started = [node(tmp_path, f"n{number}", "{}", "--hot-keys-show-keys=true") for number in range(2)]
    try:
        for number, server in enumerate(started):
            with server.client() as client:
                client.set("hot", "v")
                client.send(b"get hot\r\n" * 4000 * (number + 1) + b"mn\r\n")
                while client.line() != "MN":
                    pass
        addresses = [f"127.0.0.1:{server.admin}" for server in started]
        until(lambda: len(json.loads(control("hotkeys", *addresses, "--json")[1])["keys"]) >= 2)
        keys = json.loads(control("hotkeys", *addresses, "--json")[1])["keys"]
        assert [one["server"] for one in keys[:2]] == addresses[::-1] and {one["key"] for one in keys[:2]} == {"hot"}
        code, text, _ = control("hotkeys", *addresses, "--count=1")
        assert code == 0 and len(text.splitlines()) == 2 and text.splitlines()[1].split()[2:] == ["hot", addresses[1]]
    finally:
        for server in started:
            server.stop()


def test_events_of_a_fleet_in_the_order_of_time(tmp_path):
    """Members that change, a server that is taken out and comes back, a drain: told by /events, by the log, and put
    together by martletctl."""
    port, members, admin = free_port(), tmp_path / "members.json", free_port()
    members.write_text(json.dumps([f"127.0.0.1:{port}"]))
    flags = [f"--admin=127.0.0.1:{admin}", "--health-first-probe=20ms", "--health-timeouts=1", "--upstream-connect-timeout=100ms",
             "--discovery-settle=50ms"]  # fmt: skip
    with Server("-m 64") as other, Router([], [*flags, f"file:{members}"]) as router:
        with router.client() as client:
            until(lambda: client.ask("get k").startswith("SERVER_ERROR") and "a server is taken out" in router.output(), 20)
            with Server(["-l", "127.0.0.1", "-p", port, "-m", 64], listen=False, wait=("127.0.0.1", port)):
                until(lambda: "a server is used again" in router.output(), 20)
                members.write_text(json.dumps([f"127.0.0.1:{port}", f"127.0.0.1:{other.port}"]))
                until(lambda: "routing to other members" in router.output(), 20)
        router.signal(signal.SIGUSR2)
        until(lambda: page(admin, "/readyz")[0] == 503)
        until(lambda: "draining" in page(admin, "/events")[1])
        found = json.loads(page(admin, "/events")[1])
        messages = [event["msg"] for event in found["events"]]
        order = [messages.index(one) for one in (
            "listening", "a server is taken out", "a server is used again", "routing to other members", "draining")]
        assert order == sorted(order) and found["total"] == len(messages)
        kinds = {event["msg"]: event["event"] for event in found["events"]}
        assert kinds["a server is taken out"] == "health" and kinds["routing to other members"] == "membership"
        # The same in the log.
        logged = [json.loads(line) for line in router.output().splitlines() if line.startswith("{")]
        assert {line["msg"]: line.get("event") for line in logged if line["msg"] in kinds} == kinds
        with node(tmp_path, "node") as server:
            until(lambda: "listening" in page(server.admin, "/events")[1])
            code, text, errors = control("events", f"127.0.0.1:{admin}", f"127.0.0.1:{server.admin}")
            assert code == 0, errors
            rows = text.splitlines()
            assert [row[:20] for row in rows] == sorted(row[:20] for row in rows)
            assert f"127.0.0.1:{server.admin}" in rows[-1] and "server=127.0.0.1:" in text
            code, text, _ = control("events", f"127.0.0.1:{admin}", "--count=2", "--json")
            assert [event["msg"] for event in json.loads(text)["events"]] == messages[-2:]


@pytest.mark.alone
def test_shedding_is_told_when_it_begins_and_when_it_ends(tmp_path):
    admin = free_port()
    with Overloaded(tmp_path, admin=f"127.0.0.1:{admin}") as one:
        flood(one, 1)
        until(lambda: "shedding began" in one.server.output(), 10)
        until(lambda: "shedding ended" in one.server.output(), 30)
        events = json.loads(page(admin, "/events")[1])["events"]
        [began] = [event for event in events if event["msg"] == "shedding began"]
        [ended] = [event for event in events if event["msg"] == "shedding ended"]
        assert began["event"] == ended["event"] == "shedding" and began["level"] == "warning"
        shed = sum(float(value) for value in re.findall(r"(?m)^martlet_shed_total\{.*\} (\S+)$", page(admin, "/metrics")[1]))
        assert ended["refused"] == shed > 0 and 0 < ended["milliseconds"] < 10_000


def test_every_event_is_a_message_of_the_log():
    """The list in EventLog.swift names messages that somebody writes."""
    text = (ROOT / "Sources/Telemetry/EventLog.swift").read_text()
    lists = re.search(r"let lists: .*?\n        \]\n", text, re.S)[0]
    named = set(re.findall(r'"([^"]+)"', lists))
    assert len(named) > 25
    written = "\n".join(path.read_text() for path in sorted((ROOT / "Sources").rglob("*.swift")) if path.name != "EventLog.swift")
    missing = [message for message in named if f'"{message}"' not in written]
    assert not missing, missing


def test_the_page_of_settings_is_closed_without_a_token(tmp_path):
    with node(tmp_path, "node") as server:
        assert page(server.admin, "/config")[0] == 403
