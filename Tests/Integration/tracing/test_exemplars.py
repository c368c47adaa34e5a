# Martlet
# SPDX-License-Identifier: Apache-2.0
"""/metrics in both of its formats: what parsers of others make of it, and exemplars that lead from a slow bucket to the
trace that was slow."""

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from bed import free_port
from router.bed import Router
from storage.node import Node
from streams.test_streams import Pair

from .collector import Collector
from .test_traces import context, traced

pytestmark = pytest.mark.ours

OPEN = "application/openmetrics-text; version=1.0.0"
# As Prometheus asks, with the weights of its version 2.42.
PROMETHEUS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75," \
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"  # fmt: skip
HISTOGRAMS = {"node": "martlet_command_duration_seconds", "router": "martlet_router_server_seconds"}


def page(admin, accept="text/plain"):
    request = urllib.request.Request(f"http://127.0.0.1:{admin}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A node with a store and a router in front of it, both traced, and a collector; (collector, node, router, numbers of
    the traces that were sampled)."""
    with Collector() as collector:
        place, admin = tmp_path_factory.mktemp("node"), free_port()
        with Node(place, backend="rocksdb", admin=True, flags=traced(collector)) as node, \
                Router([f"127.0.0.1:{node.port}"], [f"--admin=127.0.0.1:{admin}", *traced(collector)]) as router:  # fmt: skip
            router.admin = admin
            yield collector, node, router, set()


@pytest.fixture
def used(fleet):
    """The same after some requests, of which some are traced: with the numbers of those traces."""
    collector, node, router, traces = fleet
    with router.client() as client:
        for number in range(20):
            trace, _, text = context(sampled=number % 2 == 0)
            if number % 2 == 0:
                traces.add(trace)
            assert client.ask(f"ms k{number} 1 L{text}\r\nv") == "HD"
            assert client.ask(f"mg k{number} v L{text}") == "VA 1" and client.line() == "v"
            assert client.ask(f"md none{number} L{text}") == "NF"
    programs = ("martlet-server", "martlet-router")
    collector.eventually(lambda spans: {(one.trace, one.service) for one in spans} >= {
        (trace, program) for trace in traces for program in programs} and len(
            [one for one in spans if one.trace in traces]) >= 3 * 3 * len(traces))  # fmt: skip
    return collector, node, router, traces


def samples(families):
    """{name and labels: value} of what a parser found, and the exemplars among it."""
    found, exemplars = {}, []
    for family in families:
        for one in family.samples:
            key = (one.name, tuple(sorted((name, le(name, value)) for name, value in one.labels.items())))
            assert key not in found, key
            found[key] = one.value
            if getattr(one, "exemplar", None):
                exemplars.append(one)
    return found, exemplars


def le(name, value):
    """Edges are numbers, which the parsers spell differently."""
    return float(value) if name == "le" else value


@pytest.mark.parametrize("which", ["node", "router"])
def test_traced_requests_are_exemplars_of_their_buckets(used, which):
    collector, node, router, traces = used
    kind, text = page((node if which == "node" else router).admin, OPEN)
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8" and text.endswith("\n# EOF\n")
    found, exemplars = samples(open_metrics(text))
    own = [one for one in exemplars if one.name == HISTOGRAMS[which] + "_bucket"]
    assert own, "no request was noted"
    # Programs send their spans when they like.
    wanted = {one.exemplar.labels["span_id"] for one in own}
    ids = {span.id: span for span in collector.eventually(lambda spans: wanted <= {span.id for span in spans})}
    edges = sorted({dict(labels)["le"] for name, labels in found if name == own[0].name})
    for one in own:
        assert set(one.exemplar.labels) == {"trace_id", "span_id"}
        assert one.exemplar.labels["trace_id"] in traces, "a trace that nobody recorded leads nowhere"
        span = ids[one.exemplar.labels["span_id"]]
        assert span.trace == one.exemplar.labels["trace_id"] and span.service == f"martlet-{'server' if which == 'node' else 'router'}"
        # It lies in its bucket, took as long as its span, and is of now.
        edge = float(one.labels["le"])
        below = max((other for other in edges if other < edge), default=0)
        assert below < one.exemplar.value <= edge
        assert abs(one.exemplar.value - (span.end - span.start) / 1e9) < 0.005
        assert abs(float(one.exemplar.timestamp) - time.time()) < 60
        if which == "node":
            assert {"get": "mg", "set": "ms", "delete": "md"}[one.labels["command"]] == span.name
    if which == "node":
        assert {one.labels["command"] for one in own} == {"get", "set", "delete"}


@pytest.mark.parametrize("which", ["node", "router"])
def test_both_formats_say_the_same(used, which):
    """The text format knows no exemplars, and is what it would be without them; OpenMetrics ends counters in _total."""
    _, node, router, _ = used
    admin = (node if which == "node" else router).admin
    kind, text = page(admin)
    assert kind.startswith("text/plain; version=0.0.4")
    assert not re.search(r"(?m)^[^#].* # ", text) and "# EOF" not in text
    opened = page(admin, OPEN)[1]
    # The same samples in the same order, letter by letter but for what they count.
    row = re.compile(r'(?m)^([a-zA-Z_:][\w:]*(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?) \S+(?: # .*)?$')
    assert len(row.findall(text)) > 100 and row.findall(text) == row.findall(opened)
    assert len([line for line in text.splitlines() if not line.startswith("#")]) == len(row.findall(text))
    assert list(plain_text(text))
    for family in open_metrics(page(admin, OPEN)[1]):
        if family.type == "counter":
            assert all(one.name == family.name + "_total" for one in family.samples), family.name


@pytest.mark.parametrize("which", ["node", "router"])
def test_promtool_reads_it(used, which):
    _, node, router, _ = used
    text = page((node if which == "node" else router).admin)[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    # 3 is its advice on names: those of memcached's and mcrouter's exporters are what they are.
    assert done.returncode in (0, 3), done.stderr
    own = [line for line in done.stderr.splitlines() if line and not line.startswith(("memcached_", "mcrouter_"))]
    assert not own, own


def test_a_prometheus_keeps_them(used, tmp_path):
    """A real one scrapes both, asks for OpenMetrics by itself, and gives the exemplars back."""
    _, node, router, traces = used
    port, config = free_port(), tmp_path / "prometheus.yml"
    jobs = [{"job_name": name, "scrape_interval": "500ms", "static_configs": [{"targets": [f"127.0.0.1:{one.admin}"]}]}
            for name, one in (("martlet", node), ("martlet-router", router))]  # fmt: skip
    config.write_text(json.dumps({"scrape_configs": jobs}))
    process = subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", "--log.level=warn",
         f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        def ask(path, **query):
            url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]

        def eventually(look, seconds=30):
            deadline = time.monotonic() + seconds
            while True:
                try:
                    if found := look():
                        return found
                except OSError:
                    assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline, "it did not come about"
                time.sleep(0.2)

        up = eventually(lambda: len(ask("query", query="up == 1")["result"]) == 2)
        assert up
        for name in HISTOGRAMS.values():
            found = eventually(lambda name=name: ask(
                "query_exemplars", query=f"{name}_bucket", start=time.time() - 300, end=time.time() + 5))  # fmt: skip
            kept = [one for series in found for one in series["exemplars"]]
            assert kept and {one["labels"]["trace_id"] for one in kept} <= traces
        # The alert on drift asks for what is there.
        digests = ask("query", query="count(count by (digest) (martlet_config_info))")["result"]
        assert digests and digests[0]["value"][1] == "1"
        assert not [target for target in ask("targets")["activeTargets"] if target["lastError"]]
    finally:
        process.terminate()
        process.wait(20)


def test_nothing_is_shown_where_nothing_is_traced(tmp_path):
    with Node(tmp_path, backend="rocksdb", admin=True) as node:
        with node.client() as client:
            _, _, text = context()
            assert client.ask(f"ms k 1 L{text}\r\nv") == "HD"
        _, text = page(node.admin, PROMETHEUS)
        assert text.endswith("# EOF\n") and " # {" not in text


def test_a_slow_request_is_an_exemplar_though_nobody_sampled_it(tmp_path):
    with Collector() as collector:
        flags = traced(collector, slow="1us")
        with Node(tmp_path, backend="rocksdb", admin=True, flags=flags) as node:
            with node.client() as client:
                assert client.set("k", "v") == "STORED"
            spans = collector.eventually(lambda spans: [one for one in spans if one.name == "set"])
            _, exemplars = samples(open_metrics(page(node.admin, OPEN)[1]))
            assert [one.exemplar.labels["trace_id"] for one in exemplars if one.labels["command"] == "set"] == [spans[0].trace]


def test_a_traced_change_is_an_exemplar_of_its_delay(tmp_path):
    with Collector() as collector, Pair(tmp_path, flags=traced(collector), admin=True) as pair, \
            pair.home.client() as home:  # fmt: skip
        trace, _, text = context()
        assert home.ask(f"ms k 1 L{text}\r\nv") == "HD"
        spans = collector.eventually(lambda spans: [one for one in spans if one.name == "stream.apply"])
        [span] = [one for one in spans if one.name == "stream.apply"]
        _, exemplars = samples(open_metrics(page(pair.replica.admin, OPEN)[1]))
        [one] = [one for one in exemplars if one.name == "martlet_stream_delay_seconds_bucket"]
        assert one.exemplar.labels == {"trace_id": trace, "span_id": span.id}
        assert one.exemplar.value <= float(one.labels["le"]) and abs(float(one.exemplar.timestamp) - span.end / 1e9) < 1
