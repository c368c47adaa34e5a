# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Alerts and dashboards: promtool takes them, each alert fires when it should and not otherwise, and what they ask for
is what a live node exports."""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from storage.node import Node

from .chart import CASES, CHART, ROOT, objects, of_kind, rendered
from .pod import Pod
from .test_pod import TOKEN, fleet, home_with_debezium, regions, regions_by_kafka, talk, within

pytestmark = pytest.mark.ours

RULES = ROOT / "deploy/prometheus/martlet-rules.yaml"
# What Prometheus itself adds to every target.
OWN = {"up"}
WORDS = {
    "sum", "rate", "by", "and", "or", "count", "absent", "changes", "increase", "histogram_quantile", "topk", "max",
    "min", "le", "unless", "on", "ignoring",
}  # fmt: skip
NODE = 'job="martlet",instance="a"'
CASES_WITH_RULES = [case for case in CASES if of_kind(objects(case), "PrometheusRule")]


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=150, check=False)
    return done.returncode, done.stdout + done.stderr


def groups(case):
    [rule] = of_kind(objects(case), "PrometheusRule")
    return rule["spec"]["groups"]


def alerts():
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


@pytest.mark.parametrize("case", CASES_WITH_RULES)
def test_prometheus_takes_the_rules_of_the_chart(case, tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups(case)}))
    code, said = promtool("check", "rules", path)
    assert code == 0, said


def test_prometheus_takes_the_plain_rules():
    code, said = promtool("check", "rules", RULES)
    assert code == 0, said


def test_alerts_are_complete():
    for case in CASES_WITH_RULES:
        for group in groups(case):
            for rule in group["rules"]:
                assert rule["labels"]["severity"] in ("info", "warning", "critical")
                assert rule["annotations"]["summary"]
                link = rule["annotations"].get("runbook_url") or rule["annotations"]["runbook"]
                page = link.rstrip("/").rsplit("/", 1)[1].removesuffix(".md")
                text = (ROOT / f"docs/runbooks/{page}.md").read_text()
                assert text.startswith(f"# {rule['alert']}\n"), page
                for part in ("## What it means", "## What to do"):
                    assert part in text, (page, part)
    there = {path.stem for path in (ROOT / "docs/runbooks").glob("martlet-*.md")}
    known = {rule["annotations"]["runbook"].rsplit("/", 1)[1].removesuffix(".md")
             for group in groups("region-us-east") + groups("router") + groups("kafka-home") + groups("debezium")
             for rule in group["rules"]}  # fmt: skip
    assert there == known, "a runbook for each alert, an alert for each runbook"


# For each alert: series that make it fire (one minute apart) and when it must fire by; series that must not.
def node(name, values, labels=""):
    return (f"{name}{{{NODE}{',' + labels if labels else ''}}}", values)


def latency(slow):
    """100 commands a minute, of which `slow` take too long."""
    return [node("martlet_command_duration_seconds_bucket", f"0+{100 - slow}x500", 'le="0.0032",command="get"'),
            node("martlet_command_duration_seconds_count", "0+100x500", 'command="get"')]  # fmt: skip


def commits(fast, all_of_them):
    """Commits up to 100 ms and up to 800 ms, by the minute."""
    name = "martlet_storage_rocksdb_commit_duration_seconds_bucket"
    return [node(name, fast, 'le="0.1024"'), node(name, all_of_them, 'le="0.8192"'), node(name, all_of_them, 'le="+Inf"')]


def gets(hits, misses):
    return [node("memcached_commands_total", f"0+{hits}x100", 'command="get",status="hit"'),
            node("memcached_commands_total", f"0+{misses}x100", 'command="get",status="miss"')]  # fmt: skip


def counters(first, second, grows):
    return [node(first, f"0+{grows}x30"), node(second, "0x30")]


def router(name, values, labels=""):
    """A series of a router."""
    return (f'{name}{{job="martlet-router",instance="r"{"," + labels if labels else ""}}}', values)


SERVER = 'server="cache-0:11211"'
STORAGE = "martlet_storage_"
ALERTS = {
    "MartletNodeDown": ([node("up", "0x10")], 5, [node("up", "1x10")]),
    "MartletNoNodes": ([("up{job=\"other\"}", "1x20")], 10, [node("up", "0x20")]),
    "MartletNodeRestarts": ([node("process_start_time_seconds", "1x9 2x9 3x9 4x30")], 40,
                            [node("process_start_time_seconds", "1x9 2x60")]),
    "MartletConnectionsNearLimit": (
        [node("memcached_current_connections", "900x30"), node("memcached_max_connections", "1000x30")], 20,
        [node("memcached_current_connections", "800x30"), node("memcached_max_connections", "1000x30")]),
    "MartletConnectionsRejected": ([node("memcached_connections_rejected_total", "0+1x20")], 10,
                                   [node("memcached_connections_rejected_total", "7x20")]),
    "MartletSlowReaders": ([node("martlet_reactor_slow_readers_total", "0+1x20")], 15,
                           [node("martlet_reactor_slow_readers_total", "3x20")]),
    "MartletShedding": (
        [node("martlet_shed_ratio", "0x20", 'reactor="0"'), node("martlet_shed_ratio", "0.3x20", 'reactor="1"')], 10,
        [node("martlet_shed_ratio", "0.3x3 0x20", 'reactor="1"'), node("martlet_shed_ratio", "0.04x20", 'reactor="0"')]),
    "MartletTLSHandshakesFail": ([node("martlet_reactor_tls_handshake_errors_total", "0+60x30")], 20,
                                 [node("martlet_reactor_tls_handshake_errors_total", "0+1x30")]),
    "MartletVersionsDiffer": (
        [node("martlet_build_info", "1x90", 'version="1"'), node("martlet_build_info", "1x90", 'version="2"')], 80,
        [node("martlet_build_info", "1x90", 'version="1"'), node("martlet_build_info", "1x20", 'version="2"')]),
    "MartletConfigurationDrift": (
        [node("martlet_config_info", "1x60", 'digest="1"'), node("martlet_config_info", "1x60", 'digest="2"')], 45,
        [node("martlet_config_info", "1x60", 'digest="1"'), node("martlet_config_info", "1x15", 'digest="2"')]),
    "MartletConfigurationPending": ([node("martlet_config_pending", "1x30")], 20,
                                    [node("martlet_config_pending", "1x5 0x30")]),
    "MartletHitRatioLow": (gets(300, 700), 60, gets(700, 300)),
    "MartletCacheTooSmall": (
        [node("martlet_engine_ghost_hits_total", "0+20x120"), node("memcached_items_total", "0+100x120")], 110,
        [node("martlet_engine_ghost_hits_total", "0+5x120"), node("memcached_items_total", "0+100x120")]),
    "MartletStoresRefused": ([node("martlet_engine_out_of_memory_total", "0+1x30")], 15,
                             [node("martlet_engine_out_of_memory_total", "2x30")]),
    "MartletLatencyBudgetFast": (latency(5), 90, latency(1)),
    "MartletLatencyBudgetSlow": (latency(1), 420, latency(0)),
    "MartletStorageDown": ([node(STORAGE + "up", "0x10")], 5, [node(STORAGE + "up", "1x10")]),
    "MartletStorageOutcomesUnknown": ([node(STORAGE + "unknown_outcomes_total", "0+1x20")], 10,
                                      [node(STORAGE + "unknown_outcomes_total", "1x20")]),
    "MartletStorageTimeouts": (counters(STORAGE + "reads_timed_out_total", STORAGE + "writes_timed_out_total", 1), 20,
                               counters(STORAGE + "reads_timed_out_total", STORAGE + "writes_timed_out_total", 0)),
    "MartletStorageErrors": (counters(STORAGE + "writes_failed_total", STORAGE + "reads_failed_total", 1), 20,
                             counters(STORAGE + "writes_failed_total", STORAGE + "reads_failed_total", 0)),
    "MartletStorageRefuses": (counters(STORAGE + "reads_refused_total", STORAGE + "writes_refused_total", 1), 20,
                              counters(STORAGE + "reads_refused_total", STORAGE + "writes_refused_total", 0)),
    "MartletStorageKeysUncertain": ([node(STORAGE + "uncertain_keys", "2x30")], 20,
                                    [node(STORAGE + "uncertain_keys", "2x5 0x30")]),
    "MartletStorageDamaged": ([node(STORAGE + "rocksdb_checksum_errors_total", "0x5 1x20")], 10,
                              [node(STORAGE + "rocksdb_checksum_errors_total", "1x20")]),
    "MartletStorageWritesStopped": ([node(STORAGE + "rocksdb_write_stopped", "1x10")], 5,
                                    [node(STORAGE + "rocksdb_write_stopped", "0x10")]),
    "MartletStorageBackgroundErrors": ([node(STORAGE + "rocksdb_background_errors", "0x3 1x10")], 5,
                                       [node(STORAGE + "rocksdb_background_errors", "0x10")]),
    # However many were fast before, and however many slow ones there were before the fast ones.
    "MartletStorageCommitsSlow": (commits("0+100x500 50000+90x60", "0+100x500 50000+100x60"), 540,
                                  commits("0+90x500 45000+100x60", "0+100x500 50000+100x60")),
    "MartletStreamDistrusted": ([node("martlet_stream_trusted", "0x10")], 5, [node("martlet_stream_trusted", "1x10")]),
    "MartletStreamQuarantines": ([node("martlet_stream_quarantines_total", "0x5 64x20")], 10,
                                 [node("martlet_stream_quarantines_total", "64x20")]),
    "MartletStreamDamaged": ([node("martlet_stream_damaged_total", "0x5 1x20")], 10,
                             [node("martlet_stream_damaged_total", "1x20")]),
    "MartletStreamConsumerBehind": (
        [node("martlet_stream_consumer_backlog", "20000x30", 'region="eu-west",consumer="b"')], 20,
        [node("martlet_stream_consumer_backlog", "20000x5 10x30", 'region="eu-west",consumer="b"')]),
    "MartletStreamInconsistent": (
        [node("martlet_consistency_looks_total", "0x5 1x20", 'after="10s",seen="stale"')], 10,
        [node("martlet_consistency_looks_total", "0x5 1x20", 'after="1s",seen="stale"'),
         node("martlet_consistency_looks_total", "3x30", 'after="60s",seen="stale"'),
         node("martlet_consistency_looks_total", "0+5x30", 'after="60s",seen="current"')]),
    "MartletStreamUnmonitored": ([node("martlet_stream_monitored", "0x30")], 20,
                                 [node("martlet_stream_monitored", "0x10 1x30")]),
    "MartletStreamOutboxFull": ([node(STORAGE + "rocksdb_outbox_bytes", f"{15 << 28}x20")], 15,
                                [node(STORAGE + "rocksdb_outbox_bytes", f"{1 << 30}x20")]),
    "MartletPromotionsDiffer": (
        [node("martlet_stream_promotion", "1x20"), ('martlet_stream_promotion{job="martlet",instance="b"}', "0x20")], 10,
        [node("martlet_stream_promotion", "0x5 1x20"),
         ('martlet_stream_promotion{job="martlet",instance="b"}', "0x7 1x20")]),
    "MartletHomeFenced": (
        [node("martlet_stream_standstill_seconds", "0 30 90 150x10")], 3,
        [node("martlet_stream_standstill_seconds", "0x5 4 60 0x20")]),
    "MartletKafkaNotPublishing": (
        [node("martlet_stream_kafka_publishing", "0x10", 'topic="inv.main"'),
         node("martlet_stream_kafka_publishing", "1x10", 'topic="state"')], 5,
        [node("martlet_stream_kafka_publishing", "0x10", 'topic="inv.main"'),
         ('martlet_stream_kafka_publishing{job="martlet",instance="b",topic="inv.main"}', "1x10")]),
    "MartletKafkaBehind": ([node("martlet_stream_kafka_behind", "20000x30")], 20,
                           [node("martlet_stream_kafka_backlog", "20000x5 10x30", 'topic="inv.main"')]),
    "MartletKafkaMessagesGone": (
        [node("martlet_stream_kafka_overruns_total", "0x5 1x20"),
         node("martlet_stream_kafka_lost_total", "7x30", 'topic="inv.main"')], 10,
        [node("martlet_stream_kafka_overruns_total", "1x20"), node("martlet_stream_kafka_rejoins_total", "2x30")]),
    "MartletKafkaClocksDiffer": ([node("martlet_stream_kafka_skewed_total", "0x5 1x20")], 10,
                                 [node("martlet_stream_kafka_skewed_total", "3x30")]),
    "MartletDebeziumStalled": (
        # One fails from the start, the other later: nobody reads.
        [node("martlet_stream_debezium_stalled_seconds", "0+60x20"),
         ('martlet_stream_debezium_stalled_seconds{job="martlet",instance="b"}', "0x5 60+60x20")], 10,
        # Another one reads.
        [node("martlet_stream_debezium_stalled_seconds", "0+60x20"),
         ('martlet_stream_debezium_stalled_seconds{job="martlet",instance="b"}', "0x20")]),
    "MartletDebeziumBehind": ([node("martlet_stream_debezium_behind", "20000x30")], 20,
                              [node("martlet_stream_debezium_behind", "20000x5 10x30")]),
    "MartletDebeziumMessagesLost": (
        [node("martlet_stream_debezium_overruns_total", "0x5 1x20"), node("martlet_stream_debezium_damaged_total", "7x30")], 10,
        [node("martlet_stream_debezium_overruns_total", "1x20"), node("martlet_stream_debezium_damaged_total", "2x30")]),
    "MartletRouterDown": ([router("up", "0x10")], 5, [router("up", "1x10")]),
    "MartletServerUnreachable": ([router("martlet_router_server_up", "0x10", SERVER)], 5,
                                 [router("martlet_router_server_up", "1x10", SERVER)]),
    "MartletServerFailures": (
        [router("martlet_router_server_failures_total", "0+60x20", SERVER + ',reason="timeout"')], 15,
        [router("martlet_router_server_failures_total", "0+1x20", SERVER + ',reason="timeout"')]),
    "MartletRouterConfigurationDrift": (
        [router("martlet_router_config_info", "1x60", 'digest="1"'),
         router("martlet_router_config_info", "1x60", 'digest="2"')], 45,
        [router("martlet_router_config_info", "1x60", 'digest="1"'),
         router("martlet_router_config_info", "1x15", 'digest="2"')]),
    "MartletRouterConfigurationPending": ([router("martlet_router_config_pending", "1x30")], 20,
                                          [router("martlet_router_config_pending", "1x5 0x30")]),
    "MartletRouterRejectsClients": ([router("martlet_router_connections_rejected_total", "0+1x20")], 10,
                                    [router("martlet_router_connections_rejected_total", "5x20")]),
}  # fmt: skip


def test_each_alert_fires_when_it_should(tmp_path):
    assert set(ALERTS) == set(alerts()), "each alert has a test"
    files = []
    for name, (bad, minutes, good) in ALERTS.items():
        tests = []
        expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
        for series, expected in ((bad, [{"labels": "{}", "value": 1}]), (good, [])):
            tests.append({
                "interval": "1m", "input_series": [{"series": one, "values": values} for one, values in series],
                "promql_expr_test": [{"expr": expression, "eval_time": f"{minutes}m", "exp_samples": expected}],
            })
        # Each with its own rule only: every minute of a test computes all rules of its file.
        rules, path = tmp_path / f"{name}.rules.yaml", tmp_path / f"{name}.yaml"
        rules.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": [alerts()[name]]}]}))
        path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
        files.append(path)
    code, said = promtool("test", "rules", *files)
    assert code == 0, said


def test_clusters_under_one_job_neither_raise_nor_hide_each_others_alerts(tmp_path):
    """A label tells them apart: each has as many promotions, and one configuration, and so on, of its own."""
    def both(name, first, second, labels="", job="martlet"):
        more = f",{labels}" if labels else ""
        return [(f'{name}{{job="{job}",cluster="{cluster}",instance="{cluster}{number}"{more}}}', values)
                for cluster, values in (("a", first), ("b", second)) for number in (1, 2)]  # fmt: skip

    late = 'le="0.0032",command="get"'
    quiet = {
        "MartletPromotionsDiffer": both("martlet_stream_promotion", "1x500", "0x500"),
        "MartletVersionsDiffer": both("martlet_build_info", "1x500", "_x500", 'version="1"')
        + both("martlet_build_info", "_x500", "1x500", 'version="2"'),
        "MartletConfigurationDrift": both("martlet_config_info", "1x500", "_x500", 'digest="1"')
        + both("martlet_config_info", "_x500", "1x500", 'digest="2"'),
        "MartletRouterConfigurationDrift": both("martlet_router_config_info", "1x500", "_x500", 'digest="1"', "martlet-router")
        + both("martlet_router_config_info", "_x500", "1x500", 'digest="2"', "martlet-router"),
    }
    loud = {
        "MartletPromotionsDiffer": [*both("martlet_stream_promotion", "1x500", "0x500"),
                                    ('martlet_stream_promotion{job="martlet",cluster="b",instance="b3"}', "1x500")],
        "MartletKafkaNotPublishing": both("martlet_stream_kafka_publishing", "1x500", "0x500", 'topic="inv.main"'),
        "MartletDebeziumStalled": both("martlet_stream_debezium_stalled_seconds", "0x500", "0+60x500"),
        "MartletServerUnreachable": both("martlet_router_server_up", "1x500", "0x500", SERVER, "martlet-router"),
        "MartletHitRatioLow": both("memcached_commands_total", "0+9000x500", "0+300x500", 'command="get",status="hit"')
        + both("memcached_commands_total", "0+10x500", "0+700x500", 'command="get",status="miss"'),
        "MartletLatencyBudgetFast": both("martlet_command_duration_seconds_bucket", "0+90000x500", "0+90x500", late)
        + both("martlet_command_duration_seconds_count", "0+90000x500", "0+100x500", 'command="get"'),
    }
    files = []
    for kind, expected in ((quiet, []), (loud, [{"labels": '{cluster="b"}', "value": 1}])):
        for name, series in kind.items():
            rules, path = tmp_path / f"{len(files)}.rules.yaml", tmp_path / f"{len(files)}.yaml"
            rules.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": [alerts()[name]]}]}))
            test = {"interval": "1m", "input_series": [{"series": one, "values": values} for one, values in series],
                    "promql_expr_test": [{"expr": f'count by (cluster) (ALERTS{{alertname="{name}",alertstate="firing"}})',
                                          "eval_time": "65m", "exp_samples": expected}]}  # fmt: skip
            path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]}))
            files.append(path)
    code, said = promtool("test", "rules", *files)
    assert code == 0, said


def test_memory_near_the_limit_of_the_container(tmp_path):
    """The one alert that only the chart can make, because it knows the limit."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": groups("postgres")}))
    limit = 1016 << 20
    target = 'process_resident_memory_bytes{job="front-metrics",namespace="prod",instance="a"}'
    tests = [
        {"interval": "1m", "input_series": [{"series": target, "values": f"{int(limit * share)}x20"}],
         "promql_expr_test": [{"expr": 'count(ALERTS{alertname="MartletMemoryNearLimit",alertstate="firing"})',
                               "eval_time": "15m", "exp_samples": expected}]}
        for share, expected in ((0.95, [{"labels": "{}", "value": 1}]), (0.85, []))
    ]  # fmt: skip
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
    code, said = promtool("test", "rules", path)
    assert code == 0, said
    assert "MartletMemoryNearLimit" not in json.dumps(
        rendered({"node": {"resources": {"limits": {"memory": "3Gi"}}}, "metrics": {"rules": {"enabled": True}}}))


@pytest.fixture(scope="module")
def exported():
    """Every series that live nodes with an embedded store and a PostgreSQL, regions with and without Kafka, and a live router
    export: [(name, labels)]."""
    place = Path(tempfile.mkdtemp(prefix="martlet-pod-"))
    with Pod(objects("embedded"), "cache-martlet", place, {"martlet-admin": {"token": TOKEN}}) as pod:
        with pod.client() as client:
            talk(client)
            for _ in range(500):
                client.get("greeting"), client.get("none")
        text = pod.get("/metrics")[1]
    shutil.rmtree(place)
    place = Path(tempfile.mkdtemp(prefix="martlet-pod-"))
    with Node(place, backend="postgres", admin=True) as node:
        text += node.get("/metrics")[1]
    shutil.rmtree(place)
    with fleet("router") as (router_pod, _):
        with router_pod.client() as client:
            talk(client)
        text += router_pod.get("/metrics")[1]
    with regions() as (home, follower, _):
        within(20, lambda: "martlet_stream_consumer_backlog{" in home.get("/metrics")[1])
        text += home.get("/metrics")[1] + follower.get("/metrics")[1]
    with regions_by_kafka() as (home, follower):
        text += home.get("/metrics")[1] + follower.get("/metrics")[1]
    with home_with_debezium() as home:
        text += home.get("/metrics")[1]
    series = []
    for row in text.splitlines():
        if match := re.match(r"([a-z][\w:]*)(?:\{(.*)\})? ", row):
            series.append((match[1], dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))))
    return series


def unknown(expression, exported):
    """What an expression asks for and no node exports: names, and label values such as an edge of a histogram."""
    names = {name for name, _ in exported} | OWN
    problems = []
    for name, labels in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression):
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        for key in ("job", "namespace", "instance"):
            wanted.pop(key, None)
        if name in names - OWN and wanted:
            if not any(one == name and wanted.items() <= have.items() for one, have in exported):
                problems.append(f"{name}{{{labels}}}")
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|by \([^)]*\)', "", expression)
    problems += [word for word in re.findall(r"[a-zA-Z_:][\w:]*", bare) if word not in names | WORDS]
    return problems


def test_the_lint_sees_faults(exported):
    assert unknown("rate(memcached_nothing_total[5m])", exported) == ["memcached_nothing_total"]
    assert unknown('martlet_command_duration_seconds_bucket{le="0.003"}', exported)
    assert not unknown('sum by (le) (rate(martlet_command_duration_seconds_bucket{le="0.0032"}[5m]))', exported)


def test_alerts_ask_for_what_nodes_export(exported):
    for group in groups("embedded") + groups("router") + groups("region-us-east") + groups("kafka-home") + groups("debezium"):
        for rule in group["rules"]:
            assert not unknown(rule["expr"], exported), rule["alert"]


def test_every_latency_that_the_schema_allows_is_an_edge(exported):
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["metrics"]["properties"]["rules"]
    edges = {labels["le"] for name, labels in exported if name == "martlet_command_duration_seconds_bucket"}
    assert set(schema["properties"]["slo"]["properties"]["latency"]["enum"]) <= edges


@pytest.mark.parametrize("path", sorted((CHART / "dashboards").glob("*.json")), ids=lambda path: path.stem)
def test_dashboards(path, exported, tmp_path):
    dashboard = json.loads(path.read_text())
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    panels = dashboard["panels"]
    assert dashboard["uid"] == f"martlet-{path.stem}" and variables == {"datasource", "job", "instance"}
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels), "panels lie on each other"
    expressions = []
    for panel in panels:
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
            assert "$" not in expression
            assert not unknown(expression, exported), (panel["title"], expression)
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                name = re.findall(r"[a-z]\w+(?=\{)", expression)[0]
                assert label == "instance" or any(one == name and label in have for one, have in exported), label
            expressions.append(expression)
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    code, said = promtool("check", "rules", file)
    assert code == 0, said


def test_the_chart_carries_every_dashboard():
    maps = [one for one in of_kind(objects("embedded"), "ConfigMap") if "dashboard" in one["metadata"]["name"]]
    carried = {name.removeprefix("martlet-"): json.loads(text) for one in maps for name, text in one["data"].items()}
    assert carried == {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
