# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Metrics that leave while a test runs, as a real Prometheus receives them."""

import base64
import contextlib
import csv
import datetime
import gzip
import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest

from bed import free_port
from client.test_client import certificates

from .runner import Run

SCENARIO = """
scenarios:
  steady:
    executor: constant-arrival-rate
    rate: 2000
    duration: 3s
    preAllocatedVUs: 4
    workload: {operations: {get: 0.5, set: 0.5}, keys: 100, valueSize: 10}
thresholds:
  'memcached_reqs{op:get}': ['count>0']
tags: {run: one}
"""


class Prometheus:
    """A server that takes remote writes."""

    def __init__(self, directory):
        self.port = free_port()
        (directory / "prometheus.yml").write_text("global: {}\n")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", "--web.enable-remote-write-receiver"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.base}/-/ready", timeout=2).close()
                return
            except OSError:
                time.sleep(0.1)
        self.stop()
        raise AssertionError("prometheus never listened")

    @property
    def base(self):
        return f"http://127.0.0.1:{self.port}"

    def query(self, text):
        """The series that a query gives: labels and value."""
        url = f"{self.base}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        with urllib.request.urlopen(url, timeout=10) as answer:
            return [(one["metric"], float(one["value"][1])) for one in json.load(answer)["data"]["result"]]

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def prometheus(tmp_path):
    if not shutil.which("prometheus"):
        pytest.skip("needs Debian's prometheus")
    one = Prometheus(tmp_path)
    yield one
    one.stop()


def test_prometheus_receives_what_the_summary_says(server, prometheus):
    variables = {**os.environ, "K6_PROMETHEUS_RW_PUSH_INTERVAL": "500ms", "K6_PROMETHEUS_RW_TREND_STATS": "p(99),max,count"}
    result = Run("--server", f"127.0.0.1:{server.port}", "-o",
                 f"experimental-prometheus-rw={prometheus.base}/api/v1/write", environment=variables, file=SCENARIO)
    assert result.code == 0, result
    assert "prometheus-rw" not in result.err
    # Each set of tags is a series, as k6 has them; nothing is there twice.
    series = prometheus.query("k6_memcached_reqs_total")
    common = {"__name__": "k6_memcached_reqs_total", "run": "one", "scenario": "steady"}
    assert [one[0] for one in series if one[0]["op"] == "set"] == [{**common, "op": "set", "status": "stored"}]
    assert {one[0]["status"] for one in series if one[0]["op"] == "get"} <= {"hit", "miss"}
    assert sum(one[1] for one in series) == result.figure("memcached_reqs", "count")
    by_op = {one[0]["op"]: one[1] for one in prometheus.query("sum by (op) (k6_memcached_reqs_total)")}
    assert by_op["get"] == result.figure("memcached_reqs{op:get}", "count")
    maximum = prometheus.query("max(k6_memcached_req_duration_max)")[0][1]
    assert maximum == pytest.approx(result.figure("memcached_req_duration", "max") / 1000)
    assert prometheus.query("sum(k6_memcached_req_duration_count)")[0][1] == result.figure("memcached_reqs", "count")
    # What is of no scenario has the test's tags.
    assert prometheus.query("k6_vus")[0][0] == {"__name__": "k6_vus", "run": "one"}
    # While it ran: several points, and more requests in each.
    whole = 'k6_memcached_reqs_total{op="set"}'
    counts = prometheus.query(f"count_over_time({whole}[1m])")[0][1]
    assert 3 <= counts <= 9
    assert prometheus.query(f"resets({whole}[1m])")[0][1] == 0


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes what is posted, and keeps it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def receiver(status=204, chain=None, key=None):
    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    one.taken, one.status = [], status
    if chain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        one.socket = context.wrap_socket(one.socket, server_side=True)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    try:
        yield one
    finally:
        one.shutdown()
        one.server_close()


def push(server, url, **variables):
    named = {f"K6_PROMETHEUS_RW_{name}": value for name, value in variables.items()}
    return Run("--server", f"127.0.0.1:{server.port}", "-o", f"experimental-prometheus-rw={url}", file=SCRIPT, name="s.js",
               environment={**os.environ, **named})


def test_a_receiver_may_speak_tls_and_want_headers(server, tmp_path):
    _, chain, key = certificates(tmp_path)
    with receiver(chain=chain, key=key) as one:
        url = f"https://127.0.0.1:{one.server_port}/api/v1/write"
        done = push(server, url, INSECURE_SKIP_TLS_VERIFY="true", USERNAME="me", PASSWORD="pass", STALE_MARKERS="true",
                    HTTP_HEADERS="X-One:1,X-Two:2", **{"HEADERS_X-Scope-OrgID": "tenant"})
        assert done.code == 0 and "prometheus-rw" not in done.err, done
        assert len(one.taken) == 2, "the end, and the marks of it"
        path, headers, body = one.taken[0]
        assert path == "/api/v1/write" and headers["X-Scope-OrgID"] == "tenant" and headers["X-Two"] == "2"
        assert headers["Authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()
        assert headers["Content-Encoding"] == "snappy" and headers["X-Prometheus-Remote-Write-Version"] == "0.1.0"
        # Custom metrics and checks have their tags too.
        for words in (b"k6_took_p99", b"k6_checks_rate", b"::reads", b"kind", b"k6_memcached_reqs_total"):
            assert words in body, words
        assert b"\x02\x00\x00\x00\x00\x00\xf0\x7f" in one.taken[1][2]
        refused = push(server, url)
    assert refused.code == 0, refused
    assert re.search(r"prometheus-rw: 1 of 1 messages were not taken: https://.*certificate", refused.err), refused


def test_what_a_receiver_answers_is_told(server):
    with receiver(status=401) as one:
        done = push(server, f"http://127.0.0.1:{one.server_port}/write", BEARER_TOKEN="abc")
    assert "1 of 1 messages were not taken" in done.err and "the answer is 401" in done.err, done
    assert one.taken[0][1]["Authorization"] == "Bearer abc"


@pytest.mark.parametrize("variables, words", [
    ({"TLS_MIN_VERSION": "1.1"}, "expected 1.2 or 1.3"), ({"SIGV4_REGION": "eu"}, "not signed as AWS's"),
    ({"TREND_AS_NATIVE_HISTOGRAM": "true"}, "native histograms are not sent"), ({"HTTP_HEADERS": "x"}, "expected NAME:VALUE"),
    ({"STALE_MARKERS": "perhaps"}, "expected true or false"),
])
def test_variables_of_a_receiver_that_cannot_be(server, variables, words):
    done = push(server, "http://127.0.0.1:1/", **variables)
    assert done.code == 104 and words in done.err, done


def test_a_receiver_that_is_not_there_is_told_and_nothing_else(server):
    result = Run("--server", f"127.0.0.1:{server.port}", "-o",
                 f"prometheus-rw=http://127.0.0.1:{free_port()}/write", file=SCENARIO, punctual=True)
    assert result.code == 0, result
    assert "prometheus-rw: 1 of 1 messages were not taken: http://127.0.0.1:" in result.err
    # What the load could not do in time is counted, so nothing but the machine is missing.
    dropped = result.metrics.get("dropped_iterations", {"count": 0})["count"]
    assert result.figure("memcached_reqs", "count") + dropped == pytest.approx(6000, abs=10)


@pytest.mark.parametrize("out", ["kafka=x", "prometheus-rw=ftp://a/", "prometheus-rw=http://:9/", "prometheus-rw=https://a:x/", "influxdb"])
def test_outputs_that_are_not_there(server, out):
    result = Run("--server", f"127.0.0.1:{server.port}", "-o", out, file=SCENARIO)
    assert result.code == 104
    assert "--out" in result.err


SCRIPT = """import memcached from 'k6/x/memcached';
import exec from 'k6/execution';
import { check, group } from 'k6';
import { Trend } from 'k6/metrics';
const took = new Trend('took', true);
export const options = { vus: 2, iterations: 10, tags: { run: 'one' }, thresholds: { took: ['max<9'],
    'memcached_reqs{op:get}': ['count==10'] } };
export async function setup() { await memcached.set('k', 'v', 60); }
export default async function () {
    exec.vu.tags.user = __VU;
    await group('reads', async () => {
        check(await memcached.get('k'), { 'is, "there"': value => value === 'v' }, { kind: 'x' });
        took.add(1.5, { step: 'a' });
    });
}
"""


def samples(text):
    """The points of a JSON output by metric, and the descriptions that come before the first of each."""
    points, known = {}, {}
    for line in text.splitlines():
        one = json.loads(line)
        if one["type"] == "Metric":
            assert one["metric"] == one["data"]["name"] and one["metric"] not in points
            known[one["metric"]] = one["data"]
        else:
            assert one["type"] == "Point" and one["metric"] in known
            datetime.datetime.fromisoformat(one["data"]["time"][:26].rstrip("Z") + "+00:00")
            points.setdefault(one["metric"], []).append(one["data"])
    return points, known


@pytest.mark.parametrize("name", ["out.json", "out.json.gz"])
def test_each_sample_is_a_line_of_json(server, tmp_path, name):
    path = tmp_path / name
    done = Run("--server", f"127.0.0.1:{server.port}", "-o", f"json={path}", file=SCRIPT, name="s.js")
    assert done.code == 0, done
    points, known = samples((gzip.open if name.endswith(".gz") else open)(path, "rt").read())
    for metric in ("iterations", "iteration_duration", "checks", "took", "memcached_hits"):
        assert len(points[metric]) == 10, metric
    assert len(points["memcached_reqs"]) == len(points["memcached_req_duration"]) == 11
    assert known["took"] == {"name": "took", "type": "trend", "contains": "time", "thresholds": ["max<9"],
                             "submetrics": None}
    part = {"name": "memcached_reqs{op:get}", "suffix": "op:get", "tags": {"op": "get"}}
    assert known["memcached_reqs"]["submetrics"] == [part]
    tags = points["checks"][0]["tags"]
    assert tags.pop("user") in ("1", "2")
    assert tags == {"group": "::reads", "scenario": "default", "run": "one", "check": 'is, "there"', "kind": "x"}
    gets = [one["tags"] for one in points["memcached_reqs"] if one["tags"]["op"] == "get"]
    assert all(one["status"] == "hit" and one["group"] == "::reads" for one in gets) and len(gets) == 10
    assert [one["tags"]["group"] for one in points["memcached_reqs"] if one["tags"]["op"] == "set"] == ["::setup"]
    # What was gathered and what was written are the same samples.
    for metric in ("memcached_req_duration", "iteration_duration"):
        values = [one["value"] for one in points[metric]]
        assert sum(values) / len(values) == pytest.approx(done.figure(metric, "avg"), rel=1e-6)
    assert sum(one["value"] for one in points["data_received"]) <= done.figure("data_received", "count")


def test_each_sample_is_a_row_of_csv(server, tmp_path):
    path = tmp_path / "out.csv.gz"
    done = Run(
        "--server", f"127.0.0.1:{server.port}", "--out", f"csv=fileName={path},timeFormat=unix_milli",
        file=SCENARIO, environment={**os.environ, "K6_TAGS": "where:here"})
    assert done.code == 0, done
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    reqs = [row for row in rows if row["metric_name"] == "memcached_reqs"]
    assert len(reqs) == done.figure("memcached_reqs", "count")
    assert {row["status"] for row in reqs} <= {"hit", "miss", "stored"}
    assert {row["extra_tags"] for row in reqs} == {"op=get&where=here", "op=set&where=here"}
    assert all(len(row["timestamp"]) == 13 and row["scenario"] == "steady" and None not in row for row in rows
               if not row["metric_name"].startswith("vus"))
    lengths = [float(row["metric_value"]) for row in rows if row["metric_name"] == "memcached_req_duration"]
    assert sum(lengths) / len(lengths) == pytest.approx(done.figure("memcached_req_duration", "avg"), rel=0.001)


def test_outputs_may_be_several_and_named_by_the_environment(server, tmp_path):
    both = f"json={tmp_path}/a.json,csv={tmp_path}/a.csv"
    environment = {**os.environ, "K6_OUT": both, "K6_THRESHOLDS": '{"iterations": ["count>99"]}'}
    done = Run("--server", f"127.0.0.1:{server.port}", file=SCRIPT, name="s.js", environment=environment)
    assert done.code == 99 and "'count>99' count=10" in done.out, done
    points, _ = samples((tmp_path / "a.json").read_text())
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, points.values()))


@pytest.mark.parametrize("output, words", [
    ("json=/nowhere/x", "/nowhere/x"), ("csv=timeFormat=noon", "timeFormat 'noon' is none of unix"),
    ("csv=saveInterval=soon", "saveInterval 'soon'"), ("cloud", "allowed are json, csv"),
])
def test_an_output_that_cannot_be_is_refused(server, output, words):
    done = Run("--server", f"127.0.0.1:{server.port}", "-o", output, file=SCRIPT, name="s.js")
    assert done.code in (102, 104) and words in done.err, done


def test_a_disk_that_is_full_is_told(server):
    done = Run("--server", f"127.0.0.1:{server.port}", "-o", "json=/dev/full", file=SCRIPT, name="s.js")
    assert "/dev/full" in done.err and "TOTAL RESULTS" in done.out, done
