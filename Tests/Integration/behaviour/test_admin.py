# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The admin port: metrics under the names dashboards know, health, and statistics as JSON."""

import socket
import json
import re
import urllib.error
import urllib.request

import pytest

from bed import free_port
from bed.server import StartError

pytestmark = pytest.mark.ours

# prometheus/memcached_exporter's families that every dashboard of memcached draws.
FAMILIES = {
    "memcached_up": "gauge", "memcached_uptime_seconds": "counter", "memcached_version": "gauge",
    "memcached_current_bytes": "gauge", "memcached_limit_bytes": "gauge", "memcached_current_items": "gauge",
    "memcached_items_total": "counter", "memcached_items_evicted_total": "counter",
    "memcached_items_reclaimed_total": "counter",
    "memcached_commands_total": "counter", "memcached_current_connections": "gauge",
    "memcached_max_connections": "gauge",
    "memcached_connections_total": "counter", "memcached_connections_rejected_total": "counter",
    "memcached_read_bytes_total": "counter", "memcached_written_bytes_total": "counter",
    "memcached_process_user_cpu_seconds_total": "counter", "memcached_process_system_cpu_seconds_total": "counter",
    "memcached_accepting_connections": "gauge", "memcached_malloced_bytes": "gauge",
}  # fmt: skip


@pytest.fixture
def node(start):
    port = free_port()
    server = start("-m 64", environment={"MARTLET_ADMIN": f"127.0.0.1:{port}"})
    server.admin = f"http://127.0.0.1:{port}"
    return server


def fetch(node, path, headers=None, method="GET"):
    request = urllib.request.Request(node.admin + path, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def samples(text):
    found = {}
    for row in text.split("\n"):
        match = re.fullmatch(r"([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)(?: .*)?", row)
        if match and not row.startswith("#"):
            found[match[1]] = float(match[2])
    return found


def test_families_and_types(node):
    status, headers, text = fetch(node, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    helps = set(re.findall(r"^# HELP (\S+) .", text, re.M))
    for name, kind in FAMILIES.items():
        assert types.get(name) == kind, name
    assert set(types) <= helps, "every family says what it is"
    names = {re.match(r"[\w:]+", row)[0] for row in text.split("\n") if row and not row.startswith("#")}
    for name in names:
        assert name in types or re.sub(r"_(bucket|sum|count)$", "", name) in types, name


def test_commands_are_counted(node):
    with node.client() as client:
        client.set("k", b"v")
        client.get("k"), client.get("k"), client.get("none")
        client.ask("delete k"), client.ask("delete k")
    found = samples(fetch(node, "/metrics")[2])
    assert found['memcached_commands_total{command="get",status="hit"}'] == 2
    assert found['memcached_commands_total{command="get",status="miss"}'] == 1
    assert found['memcached_commands_total{command="set",status="hit"}'] == 1
    assert found['memcached_commands_total{command="delete",status="hit"}'] == 1
    assert found['memcached_commands_total{command="delete",status="miss"}'] == 1
    assert found["memcached_up"] == 1
    assert found["memcached_limit_bytes"] == 64 << 20


def test_histograms_are_cumulative(node):
    with node.client() as client:
        for _ in range(100):
            client.get("k")
    text = fetch(node, "/metrics")[2]
    histograms = [name for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M) if kind == "histogram"]
    assert histograms, "there is no latency histogram"
    for name in histograms:
        series = {}
        for labels, edge, count in re.findall(rf'^{name}_bucket\{{(.*?),?le="(.*?)"\}} (\S+)', text, re.M):
            series.setdefault(labels, []).append((float(edge), float(count)))
        assert series, name
        for labels, rows in series.items():
            assert rows == sorted(rows), (name, labels)
            assert [count for _, count in rows] == sorted(count for _, count in rows)
            assert rows[-1][0] == float("inf")


def test_openmetrics_when_asked_for(node):
    status, headers, text = fetch(node, "/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_health(node):
    for path in ("/livez", "/readyz", "/healthz"):
        assert fetch(node, path)[0] == 200, path


def test_stats_as_json(node):
    with node.client() as client:
        client.set("k", b"v")
        pid = client.stats()["pid"]
    status, headers, text = fetch(node, "/stats.json")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert pid in json.dumps(json.loads(text))


def test_unknown_paths_and_methods(node):
    assert fetch(node, "/nothing")[0] == 404
    assert fetch(node, "/metrics", method="POST")[0] in (404, 405)
    assert fetch(node, "/metrics", method="HEAD")[0] == 200
    assert fetch(node, "/" + "x" * 100_000)[0] in (400, 404, 414, 431)
    assert node.client().ask("mn") == "MN"


def test_keys_never_appear(node):
    with node.client() as client:
        for _ in range(2000):
            client.get("secret-hot-key")
    assert "secret-hot-key" not in fetch(node, "/metrics")[2]


def test_two_nodes_do_not_fight_for_the_default_port(start):
    one = start("-m 64", environment={"MARTLET_ADMIN": None})
    other = start("-m 64", environment={"MARTLET_ADMIN": None})
    assert one.client().ask("mn") == other.client().ask("mn") == "MN"
    assert other.says("9150"), other.output()


def test_a_port_that_was_asked_for_must_be_had(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=address):
            start("-m 64", environment={"MARTLET_ADMIN": address})
