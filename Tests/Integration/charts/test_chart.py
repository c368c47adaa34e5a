# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The chart under real Helm: lint, schema, golden files, Kubernetes' own schemas, and what no schema says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from .chart import (
    CASES, CHART, FOREIGN, KUBERNETES, ROOT, containers, matches, merge, objects, of_kind, pods, rendered, values,
)  # fmt: skip

# What a node serves on its admin port: docs/metrics.md. That it does is tested in test_pod.py.
SERVED = {"/livez", "/readyz", "/healthz", "/metrics"}
every_case = pytest.mark.parametrize("case", CASES)


def test_lint_is_strict():
    for version in KUBERNETES:
        report = helm.lint(str(CHART), strict=True, kube_version=f"v{version}.0")
        assert not report["messages"] and not report["errors"], report


def test_it_can_be_packaged(tmp_path):
    assert helm.package(str(CHART), destination=str(tmp_path)).endswith("martlet-0.1.0.tgz")


def test_it_installs_without_a_cluster_to_ask():
    with helm.Config(namespace="prod") as configuration:
        release = configuration.install(str(CHART), "cache", {}, dry_run="client")
    assert "Clients" in str(release) or "clients" in str(release)


@pytest.mark.parametrize("what", ["render-chart", "make-dashboards"])
def test_what_is_kept_is_what_is_rendered(what):
    """Golden files, plain manifests, alerts, the table of values, dashboards."""
    done = subprocess.run([sys.executable, ROOT / "Scripts" / what, "--check"], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("broken", "complaint"), [
    ({"node": {"replica": 3}}, "replica"),
    ({"nodes": {}}, "nodes"),
    ({"node": {"replicas": 0}}, "/node/replicas"),
    ({"node": {"replicas": "three"}}, "/node/replicas"),
    ({"node": {"memory": "1GB"}}, "/node/memory"),
    ({"node": {"memory": 1024}}, "/node/memory"),
    ({"node": {"log": {"level": "loud"}}}, "/node/log/level"),
    ({"node": {"probes": {"readiness": {"path": "/ready"}}}}, "path"),
    ({"node": {"service": {"type": "ExternalName"}}}, "/node/service/type"),
    ({"node": {"extraArgs": ["-d"]}}, "/node/extraArgs"),
    ({"node": {"podDisruptionBudget": {"maxUnavailable": "some"}}}, "maxUnavailable"),
    ({"node": {"pools": [{"name": "p"}]}}, "prefix"),
    ({"node": {"pools": [{"prefix": "p", "lagPolicy": "serve"}]}}, "lagPolicy"),
    ({"storage": {"backend": "mysql"}}, "/storage/backend"),
    ({"storage": {"backend": "rocksdb"}}, "/node/replicas"),
    ({"storage": {"backend": "rocksdb"}, "node": {"replicas": 2}}, "/node/replicas"),
    ({"storage": {"backend": "postgres"}, "node": {"replicas": 1}}, "existingSecret"),
    ({"storage": {"backend": "postgres", "postgres": {"existingSecret": "s"}}}, "/node/replicas"),
    ({"storage": {"postgres": {"owners": "multiProbe"}}}, "/storage/backend"),
    ({"storage": {"backend": "postgres", "postgres": {"existingSecret": "s", "owners": "multiProbe"}},
      "node": {"advertiseMembers": False}}, "advertiseMembers"),
    ({"router": {"discovery": "zookeeper"}}, "/router/discovery"),
    ({"networkPolicy": {"apiServerPorts": [0]}}, "apiServerPorts"),
    ({"storage": {"volume": {"accessModes": ["ReadWriteMany"]}}}, "accessModes"),
    ({"storage": {"url": "postgresql://u:p@h/d"}}, "url"),
    ({"tls": {"enabled": True}}, "existingSecret"),
    ({"tls": {"minVersion": "1.0"}}, "minVersion"),
    ({"tls": {"crl": {"existingConfigMap": "a b"}}}, "existingConfigMap"),
    ({"regions": {"tls": {"crl": {"key": ""}}}}, "key"),
    ({"regions": {"kafka": {"tls": {"crl": {"existingSecret": "s"}}}}}, "existingSecret"),
    ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "issuerRef"),
    ({"image": {"digest": "sha256:short"}}, "digest"),
    ({"router": {"kind": "StatefulSet"}}, "/router/kind"),
    ({"router": {"hash": "md5"}}, "/router/hash"),
    ({"router": {"hashTag": "{"}}, "/router/hashTag"),
    ({"router": {"enabled": True}, "auth": {"existingSecret": "users"}}, "existingSecret"),
    ({"regions": {"name": "a"}}, "/regions/list"),
    ({"regions": {"name": "a", "list": [{"name": "a"}, {"name": "b", "role": "home"}]}}, "role"),
    ({"regions": {"list": [{"name": "a", "role": "home", "stream": "a:1"}, {"name": "b", "role": "replica"}],
                  "name": "a"}}, "existingSecret"),
    ({"regions": {"list": [{"name": "a", "role": "home", "stream": "nowhere"}]}}, "stream"),
    ({"regions": {"mode": "mirror"}}, "mode"),
    ({"regions": {"kafka": {"brokers": ["kafka-1"]}}}, "brokers"),
    ({"regions": {"kafka": {"debezium": "a topic"}}}, "debezium"),
    ({"regions": {"kafka": {"carriesStream": "no"}}}, "carriesStream"),
    ({"regions": {"kafka": {"security": "tls"}}}, "security"),
    ({"regions": {"kafka": {"security": "sasl_ssl", "login": {"existingSecret": "s"}}}}, "username"),
    ({"regions": {"kafka": {"security": "sasl_ssl", "login": {"username": "u"}}}}, "existingSecret"),
    ({"regions": {"kafka": {"login": {"password": "p"}}}}, "password"),
    ({"regions": {"kafka": {"tls": {"clientCertificate": True}}}}, "existingSecret"),
    ({"regions": {"kafka": {"registry": {"sameAuthority": True}}}}, "existingSecret"),
    ({"regions": {"kafka": {"registry": {"username": "u"}}}}, "existingSecret"),
    ({"regions": {"kafka": {"registry": {"url": "https://u:p@registry:8081"}}}}, "url"),
    ({"storage": {"backend": "region"}}, "/regions/name"),
    ({"storage": {"region": {"standby": {"existingSecret": "s"}}}}, "/storage/backend"),
    ({"networkPolicy": {"kafkaPorts": []}}, "kafkaPorts"),
    ({"storage": {"region": {"owners": "multiProbe"}}}, "/storage/backend"),
    ({"storage": {"backend": "region", "region": {"owners": "multiProbe"}}, "regions": {"name": "a"}}, "authority"),
    ({"storage": {"region": {"authority": "etcd://etcd:2379/a"}}}, "owners"),
    ({"storage": {"region": {"authority": "http://etcd:2379/a"}}}, "authority"),
    ({"storage": {"backend": "region", "region": {"owners": "multiProbe", "authority": "etcd://etcd:2379/a",
      "standby": {"existingSecret": "s"}}}, "regions": {"name": "a"}}, "standby"),
    ({"regions": {"tls": {"certManager": {"enabled": True}}}}, "issuerRef"),
    ({"metrics": {"rules": {"slo": {"latency": "0.003"}}}}, "latency"),
    ({"metrics": {"rules": {"slo": {"objective": 1}}}}, "objective"),
], ids=lambda part: json.dumps(part)[:60])  # fmt: skip
def test_the_schema_refuses(broken, complaint):
    with pytest.raises(helm.HelmValuesError) as refusal:
        rendered(broken)
    assert complaint in str(refusal.value)


def test_several_nodes_on_one_database_need_a_word():
    postgres = {"existingSecret": "s", "keysArePartitioned": True}
    assert rendered({"storage": {"backend": "postgres", "postgres": postgres}, "node": {"replicas": 3}})


HOME, REPLICA = {"name": "a", "role": "home", "stream": "a.example:11212"}, {"name": "b", "role": "replica"}
SERVES, HEIR = {**HOME, "serve": "a.example:11211"}, {**REPLICA, "stream": "b.example:11212", "serve": "b.example:11211"}


@pytest.mark.parametrize(("name", "listed", "storage", "complaint"), [
    ("c", [HOME, REPLICA], "none", "regions.name: c is none of the list: a, b"),
    ("b", [REPLICA, {**REPLICA, "name": "c"}], "none", "exactly one region has the role home"),
    ("b", [HOME, REPLICA, {**HOME, "name": "c"}], "none", "exactly one region has the role home"),
    ("b", [HOME, REPLICA, REPLICA], "none", "b is there twice"),
    ("b", [{"name": "a", "role": "home"}, REPLICA], "none", "no stream to be followed at"),
    ("a", [HOME, REPLICA], "none", "the home region takes the writes"),
    ("b", [HOME, REPLICA], "rocksdb", "a replica needs storage.backend none"),
    ("b", [HOME, REPLICA], "region", "does not say where it serves"),
    ("a", [SERVES, REPLICA], "region", "cannot have itself for a store"),
    ("a", [SERVES, HEIR], "rocksdb", "may take home's database over: that is a PostgreSQL"),
    ("b", [HOME, HEIR], "none", "a has a stream, and may be home; it does not say where it serves"),
    ("b", [SERVES, {**REPLICA, "stream": "b.example:11212"}], "none", "b has a stream, and may be home"),
])  # fmt: skip
def test_regions_that_cannot_be_are_refused(name, listed, storage, complaint):
    with pytest.raises(helm.HelmError, match=complaint):
        rendered({"regions": {"name": name, "list": listed, "tls": {"existingSecret": "s"}}, "node": {"replicas": 1},
                  "storage": {"backend": storage}})  # fmt: skip


def test_a_standby_is_for_a_region_that_can_be_followed():
    regions = {"name": "b", "list": [SERVES, HEIR], "tls": {"existingSecret": "s"}}
    storage = {"backend": "region", "region": {"standby": {"existingSecret": "s"}}}
    assert rendered({"regions": regions, "storage": storage})
    with pytest.raises(helm.HelmError, match="b needs a stream in regions.list"):
        rendered({"regions": {**regions, "list": [SERVES, REPLICA]}, "storage": storage})
    assert rendered({"regions": {**regions, "kafka": {"brokers": ["k:9093"]}}, "storage": storage})
    with pytest.raises(helm.HelmError, match="only the home region has a stream"):
        rendered({"regions": {**regions, "kafka": {"brokers": ["k:9093"], "stateTopic": "s"}}, "storage": storage})


def test_a_stream_lets_several_nodes_share_a_database():
    settings = {"storage": {"backend": "postgres", "postgres": {"existingSecret": "s"}}, "node": {"replicas": 3},
                "regions": {"name": "a", "list": [HOME, REPLICA], "tls": {"existingSecret": "s"}}}  # fmt: skip
    assert rendered(settings)


def test_owners_let_several_nodes_share_a_database():
    """Nodes say who they are and reach each other; routers ask whom they name."""
    found = objects("fleet")
    [stateful] = of_kind(found, "StatefulSet")
    assert stateful["spec"]["replicas"] == 3
    variables = {one["name"]: one.get("value") for one in stateful["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["MARTLET_REGISTER_ADDRESS"] == (
        "$(POD_NAME).cache-martlet-headless.prod.svc.cluster.local:11211")
    texts = {name: yaml.safe_load(text) for one in of_kind(found, "ConfigMap") for name, text in one.get("data", {}).items()}
    assert texts["node.yaml"]["ownership"] == {"hash": "multiProbe"}
    assert texts["router.yaml"]["pools"]["nodes"]["followOwners"] and texts["router.yaml"]["route"] == "nodes"
    [policy] = [one for one in of_kind(found, "NetworkPolicy") if one["metadata"]["name"] == "cache-martlet-node"]
    for rules, side in ((policy["spec"]["ingress"], "from"), (policy["spec"]["egress"], "to")):
        peers = [peer for rule in rules if {"port": "memcached", "protocol": "TCP"} in rule["ports"]
                 or {"port": 11211, "protocol": "TCP"} in rule["ports"] for peer in rule.get(side, [])]  # fmt: skip
        assert "node" in {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in peers}


def test_owners_of_a_replica_region_reach_each_other_and_etcd():
    found = objects("region-me-south")
    texts = {name: yaml.safe_load(text) for one in of_kind(found, "ConfigMap") for name, text in one.get("data", {}).items()}
    authority = "etcd://etcd.prod.svc.cluster.local:2379/martlet/me-south"
    assert texts["node.yaml"]["ownership"] == {"hash": "multiProbe", "authority": authority}
    assert texts["router.yaml"]["pools"]["nodes"]["followOwners"] and texts["router.yaml"]["route"] == "nodes"
    [policy] = [one for one in of_kind(found, "NetworkPolicy") if one["metadata"]["name"] == "cache-martlet-node"]
    egress = {rule["ports"][0]["port"]: rule["to"] for rule in policy["spec"]["egress"] if "to" in rule}
    assert egress[2379] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "etcd"}}}]
    assert egress[11211][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "node"


def test_routers_that_watch_may_do_that_and_nothing_else():
    """They list and watch EndpointSlices of their own namespace; nobody else has a token."""
    found = objects("fleet")
    [role], [binding] = of_kind(found, "Role"), of_kind(found, "RoleBinding")
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}]
    [router] = of_kind(found, "Deployment")
    account = router["spec"]["template"]["spec"]["serviceAccountName"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "prod"}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert {spec["serviceAccountName"] for name, _, spec in pods(found) if name == "cache-martlet"} == {"cache-martlet"}
    [ready] = [one["spec"] for one in of_kind(found, "Service") if one["metadata"]["name"] == "cache-martlet-ready"]
    assert ready["clusterIP"] == "None" and "publishNotReadyAddresses" not in ready, "who is not ready is not asked"
    [policy] = [one for one in of_kind(found, "NetworkPolicy") if one["metadata"]["name"] == "cache-martlet-router"]
    assert {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}],
            "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]} in policy["spec"]["egress"]  # fmt: skip


def test_regions_meet_at_one_port():
    """The home region is reached where it listens; a replica may reach it and nobody else, and is followed by nobody."""
    home = objects("region-us-east")
    [service] = [one for one in of_kind(home, "Service") if one["metadata"]["name"] == "cache-martlet-stream"]
    assert service["spec"]["type"] == "LoadBalancer"
    [policy] = [one for one in of_kind(home, "NetworkPolicy") if one["metadata"]["name"] == "cache-martlet-node"]
    [rule] = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": "stream", "protocol": "TCP"}]]
    assert len(rule["from"]) == 2 and policy["spec"]["egress"] == []
    for case in ("region-eu-west", "region-ap-south"):
        found = objects(case)
        assert not [one for one in of_kind(found, "Service") if one["metadata"]["name"] == "cache-martlet-stream"]
        [policy] = [one for one in of_kind(found, "NetworkPolicy") if one["metadata"]["name"] == "cache-martlet-node"]
        assert "stream" not in json.dumps(policy["spec"]["ingress"])
        _, egress = policy["spec"]["egress"]
        assert egress == {"ports": [{"port": 11212, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.10.0.0/16"}}]}


def test_a_region_that_may_be_home_is_reached_as_home_is():
    """Its stream has a port, a Service and a rule; both regions reach each other and their databases."""
    for case, others in (("region-us-west", "10.10.0.0/16"), ("region-us-central", "10.40.0.0/16")):
        found = objects(case)
        [service] = [one for one in of_kind(found, "Service") if one["metadata"]["name"] == "cache-martlet-stream"]
        assert service["spec"]["ports"] == [{"name": "stream", "port": 11212, "targetPort": "stream"}]
        [policy] = [one for one in of_kind(found, "NetworkPolicy") if one["metadata"]["name"] == "cache-martlet-node"]
        peers = [{"ipBlock": {"cidr": others}}]
        assert {"ports": [{"port": "stream", "protocol": "TCP"}], "from": peers} in policy["spec"]["ingress"]
        ports = [{"port": 11212, "protocol": "TCP"}, {"port": 11211, "protocol": "TCP"}]
        assert {"ports": ports, "to": peers} in policy["spec"]["egress"]
        assert [rule for rule in policy["spec"]["egress"] if rule["ports"] == [{"port": 5432, "protocol": "TCP"}]]
        [text] = [one["data"]["node.yaml"] for one in of_kind(found, "ConfigMap") if "node.yaml" in one.get("data", {})]
        settings = yaml.safe_load(text)
        assert settings["stream"]["listen"] == "0.0.0.0:11212" and settings["stream"]["retention"] == "1h"
        assert "url" not in settings["storage"] and "standbyURL" not in settings["storage"]


def test_what_goes_through_kafka_reaches_brokers_and_registry():
    for case, ports in (("kafka-home", [9093, 8081]), ("kafka-replica", [9093])):
        found = objects(case)
        [policy] = [one for one in of_kind(found, "NetworkPolicy") if one["metadata"]["name"] == "cache-martlet-node"]
        assert {"ports": [{"port": port, "protocol": "TCP"} for port in ports],
                "to": [{"ipBlock": {"cidr": "10.50.0.0/16"}}]} in policy["spec"]["egress"]  # fmt: skip
        [text] = [one["data"]["node.yaml"] for one in of_kind(found, "ConfigMap") if "node.yaml" in one.get("data", {})]
        kafka = yaml.safe_load(text)["stream"]["kafka"]
        assert ("registry" in kafka) == ("stateTopic" in kafka) == (case == "kafka-home")
        assert not {"password", "keyPassword", "registryPassword"} & set(kafka)
        [(_, _, spec)] = [pod for pod in pods(found) if pod[0] == "cache-martlet"]
        assert {"name": "kafka", "secret": {"secretName": "kafka", "defaultMode": 0o440}} in spec["volumes"]


def test_a_debezium_connectors_topic_is_read_at_home_and_carries_nothing():
    found = objects("debezium")
    [text] = [one["data"]["node.yaml"] for one in of_kind(found, "ConfigMap") if "node.yaml" in one.get("data", {})]
    stream = yaml.safe_load(text)["stream"]
    assert stream["kafka"] == {
        "brokers": ["kafka-1.example.internal:9093"], "security": "ssl", "ca": "/etc/martlet/kafka/ca.crt", "debezium": "pg.public.martlet_kv",
        "registry": "https://registry.example.internal:8081", "registryCa": "/etc/martlet/kafka/ca.crt"}  # fmt: skip
    assert "transport" not in stream
    [policy] = [one for one in of_kind(found, "NetworkPolicy") if one["metadata"]["name"] == "cache-martlet-node"]
    assert {"ports": [{"port": 9093, "protocol": "TCP"}, {"port": 8081, "protocol": "TCP"}],
            "to": [{"ipBlock": {"cidr": "10.50.0.0/16"}}]} in policy["spec"]["egress"]  # fmt: skip
    [rules] = of_kind(found, "PrometheusRule")
    groups = {group["name"] for group in rules["spec"]["groups"]}
    assert "martlet.debezium" in groups and "martlet.kafka" not in groups
    # With the stream on the same brokers, and in the other region, which does not read it.
    both = rendered(merge(values("debezium"), {"regions": {"kafka": {"carriesStream": True, "stateTopic": "s"}}}))
    [text] = [one["data"]["node.yaml"] for one in of_kind(both, "ConfigMap") if "node.yaml" in one.get("data", {})]
    kafka = yaml.safe_load(text)["stream"]["kafka"]
    assert kafka["debezium"] == "pg.public.martlet_kv" and kafka["stateTopic"] == "s" and kafka["clockSkew"] == "250ms"
    other = merge(values("debezium"), {"regions": {"name": "south"}, "storage": {"backend": "none"}})
    [text] = [one["data"]["node.yaml"] for one in of_kind(rendered(other), "ConfigMap") if "node.yaml" in one.get("data", {})]
    assert "kafka" not in yaml.safe_load(text)["stream"]
    assert not [one for one in rendered(other) if "martlet.debezium" in json.dumps(one)]


@pytest.mark.parametrize(("change", "complaint"), [
    ({"regions": {"kafka": {"brokers": []}}}, "at regions.kafka.brokers, and there are none"),
    ({"storage": {"backend": "rocksdb"}, "node": {"replicas": 1}}, "storage.backend is not postgres"),
    ({"regions": {"kafka": {"stateTopic": "s"}}}, "carriesStream is false, and nobody writes it"),
])  # fmt: skip
def test_a_debezium_connectors_topic_that_cannot_be_read_is_refused(change, complaint):
    with pytest.raises(helm.HelmError, match=complaint):
        rendered(merge(values("debezium"), change))


@pytest.mark.parametrize("kept", [(Path(__file__).parent / "earlier-values.yaml").read_text(), "{}"], ids=["earlier", "none"])
def test_values_of_an_earlier_release_can_be_reused(kept, tmp_path):
    """`helm upgrade --reuse-values` has the defaults of the release before, which knew fewer settings, in place of the chart's."""
    chart = tmp_path / "martlet"
    shutil.copytree(CHART, chart)
    (chart / "values.yaml").write_text(kept)
    for case in ("cache", "debezium", "kafka-home", "region-me-south", "region-us-west", "revoked", "router-daemonset"):
        with helm.Chart.load(str(chart)) as old, helm.Chart.load(str(CHART)) as new:
            assert old.render(values(case), name="cache", namespace="prod") == new.render(values(case), name="cache", namespace="prod")


def test_settings_that_are_there_are_not_replaced_by_defaults():
    """Also where they are false, nothing, or empty."""
    changes = {"networkPolicy": {"enabled": False}, "node": {"items": {"evict": False}, "drain": {"delaySeconds": 0}, "podLabels": {"a": ""}}}
    found = rendered(changes)
    assert not of_kind(found, "NetworkPolicy")
    [text] = [one["data"]["node.yaml"] for one in of_kind(found, "ConfigMap") if "node.yaml" in one.get("data", {})]
    assert yaml.safe_load(text)["items"]["evict"] is False and yaml.safe_load(text)["drainDelay"] == "0s"


def test_each_template_begins_with_the_defaults():
    for path in [*(CHART / "templates").glob("*.yaml"), *(CHART / "templates/tests").glob("*.yaml"), CHART / "templates/NOTES.txt"]:
        assert path.read_text().startswith('{{- include "martlet.defaults" . }}\n'), path.name


def test_certificates_for_brokers_are_set_where_they_are_asked_over_tls():
    for security, has in (("sasl_ssl", True), ("sasl_plaintext", False)):
        # The secret is there for the registry, too.
        found = rendered(merge(values("kafka-home"), {"regions": {"kafka": {"security": security}}}))
        [text] = [one["data"]["node.yaml"] for one in of_kind(found, "ConfigMap") if "node.yaml" in one.get("data", {})]
        kafka = yaml.safe_load(text)["stream"]["kafka"]
        assert {"ca", "certificate", "key"} & set(kafka) == ({"ca", "certificate", "key"} if has else set())
        assert kafka["registryCa"] == "/etc/martlet/kafka/ca.crt"


def test_revocation_lists_are_read_where_they_are_mounted():
    def settings(found, name):
        [text] = [one["data"][name] for one in of_kind(found, "ConfigMap") if name in one.get("data", {})]
        return yaml.safe_load(text)

    def mounts(found, name):
        [spec] = [spec for pod, _, spec in pods(found) if pod == name]
        volumes = {one["name"]: one["configMap"]["name"] for one in spec["volumes"] if one["name"].endswith("-crl")}
        places = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"] if one["name"] in volumes}
        assert places == {name: f"/etc/martlet/{name}" for name in volumes}
        return volumes

    found = objects("revoked")
    assert mounts(found, "cache-martlet") == {
        "kafka-crl": "kafka-revoked", "stream-crl": "regions-revoked", "tls-crl": "clients-revoked"}
    stream = settings(found, "node.yaml")["stream"]
    assert (stream["crl"], stream["kafka"]["crl"]) == ("/etc/martlet/stream-crl/lists.pem", "/etc/martlet/kafka-crl/crl.pem")
    assert mounts(found, "cache-martlet-router") == {"tls-crl": "clients-revoked"}
    for name in ("node.yaml", "router.yaml"):
        assert settings(found, name)["tls"]["crl"] == "/etc/martlet/tls-crl/crl.pem"
    assert settings(found, "router.yaml")["upstream"]["tls"]["crl"] == "/etc/martlet/tls-crl/crl.pem"
    # Where clients show no certificate, a router still looks its servers up.
    found = rendered(merge(values("revoked"), {"tls": {"verify": "none"}}))
    assert "crl" not in settings(found, "node.yaml")["tls"] and "tls-crl" not in mounts(found, "cache-martlet")
    assert "crl" not in settings(found, "router.yaml")["tls"] and "crl" in settings(found, "router.yaml")["upstream"]["tls"]
    assert "crl" not in json.dumps(objects("region-us-west"))


@pytest.mark.parametrize(("case", "change", "complaint"), [
    ("tls-secret", {"tls": {"crl": {"existingConfigMap": "c"}}}, "tls.verify is none, and nobody's certificate is looked at"),
    ("revoked", {"regions": {"kafka": {"security": "plaintext"}}}, "security is plaintext, and brokers show no certificate"),
])  # fmt: skip
def test_revocation_lists_that_nobody_reads_are_refused(case, change, complaint):
    with pytest.raises(helm.HelmError, match=complaint):
        rendered(merge(values(case), change))


def test_settings_that_the_chart_makes_cannot_be_made_twice():
    with pytest.raises(helm.HelmError, match="node.config.listen: the chart has a value of its own"):
        rendered({"node": {"config": {"listen": ["*"]}}})


@every_case
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(case, version):
    for one in objects(case):
        if one["apiVersion"] in FOREIGN:
            continue
        # A kind that this version does not have raises too.
        kubernetes_validate.validate(one, version, strict=True)


def test_kubernetes_schemas_see_faults():
    [good, *_] = of_kind(objects("cache"), "PodDisruptionBudget")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**good, "spec": {"maxUnavailabel": 1}}, KUBERNETES[1], strict=True)
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate({**good, "apiVersion": "policy/v1beta1"}, KUBERNETES[1], strict=True)


@every_case
def test_names_are_unique_and_placed(case):
    seen = set()
    for one in objects(case):
        meta = one["metadata"]
        identity = (one["kind"], meta["name"])
        assert identity not in seen
        seen.add(identity)
        assert meta["namespace"] == "prod"
        assert len(meta["name"]) <= 63
        if "extra" not in meta["name"]:
            assert meta["labels"]["app.kubernetes.io/instance"] == "cache"


@every_case
def test_selectors_match_pods(case):
    found = objects(case)
    labels = [one for name, one, _ in pods(found)]
    for one in found:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            selector = spec["selector"]
        elif one["kind"] in ("StatefulSet", "PodDisruptionBudget"):
            selector = spec["selector"]["matchLabels"]
            if one["kind"] == "StatefulSet":
                assert matches(selector, spec["template"]["metadata"]["labels"])
        elif one["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        elif one["kind"] == "ServiceMonitor":
            selector = spec["selector"]["matchLabels"]
            services = [svc for svc in of_kind(found, "Service") if matches(selector, svc["metadata"]["labels"])]
            assert len(services) == 1, "a target is scraped once"
            assert {end["port"] for end in spec["endpoints"]} <= {port["name"] for port in services[0]["spec"]["ports"]}
            continue
        else:
            continue
        assert sum(matches(selector, one) for one in labels) == 1, (case, one["kind"], selector)
        assert not any("version" in key or "chart" in key for key in selector)


@every_case
def test_ports_have_names_and_are_there(case):
    found = objects(case)
    for service in of_kind(found, "Service"):
        [(_, _, spec)] = [pod for pod in pods(found) if matches(service["spec"]["selector"], pod[1])]
        there = {port["name"] for container in spec["containers"] for port in container.get("ports", [])}
        for port in service["spec"]["ports"]:
            assert port["name"] and port["targetPort"] in there
    for _, _, spec in pods(found):
        for container in spec["containers"]:
            there = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    page = container[probe]["httpGet"]
                    assert page["port"] in there and page["path"] in SERVED
    for policy in of_kind(found, "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            assert rule["from"], "an empty list of peers admits everybody"
            assert {port["port"] for port in rule["ports"]} <= {"memcached", "http-metrics", "stream"}


@every_case
def test_the_governing_service_is_headless(case):
    found = objects(case)
    services = {service["metadata"]["name"]: service["spec"] for service in of_kind(found, "Service")}
    for one in of_kind(found, "StatefulSet"):
        governing = services[one["spec"]["serviceName"]]
        assert governing["clusterIP"] == "None" and governing["publishNotReadyAddresses"]


@every_case
def test_disruption_budgets(case):
    found = objects(case)
    budgets = of_kind(found, "PodDisruptionBudget")
    for one in found:
        if one.get("spec", {}).get("replicas") == 1:
            component = one["metadata"]["labels"]["app.kubernetes.io/component"]
            assert not [budget for budget in budgets if budget["metadata"]["labels"]["app.kubernetes.io/component"] == component
                        ], "a budget of one pod would block every drain"  # fmt: skip
    for budget in budgets:
        assert len({"minAvailable", "maxUnavailable"} & set(budget["spec"])) == 1


@every_case
def test_pods_are_restricted(case):
    """Pod Security Standards, profile restricted, and some more."""
    for name, _, spec in pods(objects(case)):
        watches = case == "fleet" and name == "cache-martlet-router"
        assert spec["automountServiceAccountToken"] is watches, name
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"]
            assert security["capabilities"] == {"drop": ["ALL"]} and not security["privileged"]
            assert {"memory"} == set(container["resources"]["limits"]), "a limit of processor time throttles"
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            claims = {"data"}
            assert mounted <= {volume["name"] for volume in spec.get("volumes", [])} | claims


@every_case
def test_references_lead_somewhere(case):
    found = objects(case)
    maps = {one["metadata"]["name"] for one in of_kind(found, "ConfigMap")}
    accounts = {one["metadata"]["name"] for one in of_kind(found, "ServiceAccount")} | {"default"}
    for _, _, spec in pods(found):
        # Revocation lists are somebody else's.
        own = [volume for volume in spec.get("volumes", []) if "configMap" in volume and not volume["name"].endswith("-crl")]
        assert {volume["configMap"]["name"] for volume in own} <= maps
        assert spec.get("serviceAccountName", "default") in accounts
    assert not of_kind(found, "ClusterRole") and len(of_kind(found, "Role")) == (case == "fleet"), "nodes ask nothing"


@every_case
def test_no_secret_in_plain_text(case):
    found = objects(case)
    assert not of_kind(found, "Secret"), "the chart takes secrets, and makes none"
    for _, _, spec in pods(found):
        for container in containers(spec):
            for variable in container.get("env", []):
                if any(word in variable["name"] for word in ("URL", "PASSWORD", "TOKEN", "SECRET")):
                    assert "secretKeyRef" in variable["valueFrom"], variable["name"]
            assert "://" not in json.dumps(container.get("args", []))


@every_case
def test_a_pod_ends_before_it_is_killed(case):
    for name, _, spec in pods(objects(case)):
        for container in spec["containers"]:
            if container["name"] in ("node", "router"):
                hook = container["lifecycle"]["preStop"]["exec"]["command"]
                assert hook[:3] == ["/usr/bin/martletctl", "drain", "--wait"], "the image has no shell"
                [wait] = [int(word.removeprefix("--timeout=")) for word in hook if word.startswith("--timeout=")]
                [settings] = [yaml.safe_load(text) for one in of_kind(objects(case), "ConfigMap")
                              for file, text in one.get("data", {}).items() if file == f"{container['name']}.yaml"]  # fmt: skip
                end = int(settings["drainTimeout"].removesuffix("s"))
                assert int(settings["drainDelay"].removesuffix("s")) < min(wait + 1, end)
                assert spec["terminationGracePeriodSeconds"] >= wait + end + 5
                port = {"node": 9150, "router": 9151}[container["name"]]
                assert {f"--node=http://127.0.0.1:{port}", f"--node=http://[::1]:{port}"} & set(hook)


def mebibytes(text):
    assert text.endswith("Mi")
    return int(text[:-2])


@pytest.mark.parametrize(("settings", "request_", "limit"), [
    ({"node": {"memory": "1GiB"}}, 1345, 1536),
    ({"node": {"memory": "64MiB"}}, 193, 321),
    ({"node": {"memory": "64GiB"}}, 78760, 98304),
    ({"node": {"memory": "1GiB", "connections": {"limit": 100000}}}, 1719, 1847),
    ({"node": {"memory": "1GiB", "replicas": 1}, "storage": {"backend": "rocksdb"}}, 1905, 2033),
])  # fmt: skip
def test_memory_follows_from_the_cache(settings, request_, limit):
    [(_, _, spec)] = [pod for pod in pods(rendered(settings)) if "test" not in pod[0]]
    resources = spec["containers"][0]["resources"]
    assert (mebibytes(resources["requests"]["memory"]), mebibytes(resources["limits"]["memory"])) == (request_, limit)


def test_a_changed_setting_is_a_new_pod():
    def checksum(settings):
        [one] = of_kind(rendered(settings), "StatefulSet")
        return one["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum({}) == checksum({"metrics": {"rules": {"enabled": True}}})
    assert checksum({}) != checksum({"node": {"threads": 3}})


def test_the_ring_changes_without_new_routers():
    def router(settings):
        found = rendered(settings)
        [one] = of_kind(found, "Deployment")
        [text] = [one["data"]["router.yaml"] for one in of_kind(found, "ConfigMap") if "router.yaml" in one.get("data", {})]
        return one["spec"]["template"]["metadata"]["annotations"]["checksum/config"], text

    three, four, ketama, slow = (router({"router": {"enabled": True, **more}, "node": {"replicas": replicas}}) for more, replicas in (
        ({}, 3), ({}, 4), ({"hash": "ketama"}, 3), ({"upstream": {"timeout": "2s"}}, 3)))  # fmt: skip
    assert three[0] == four[0] == ketama[0] != slow[0]
    assert len({three[1], four[1], ketama[1], slow[1]}) == 4


def test_clients_meet_routers_where_there_are_some():
    for case, component in (("router", "router"), ("router-daemonset", "router"), ("cache", "node")):
        [service] = [one for one in of_kind(objects(case), "Service") if one["metadata"]["name"] == "cache-martlet"]
        assert service["spec"]["selector"]["app.kubernetes.io/component"] == component
        policies = {one["metadata"]["name"]: one for one in of_kind(objects(case), "NetworkPolicy")}
        peers = json.dumps(policies["cache-martlet-node"]["spec"]["ingress"][0]["from"])
        assert ("router" in peers) == (component == "router") != ('"podSelector": {}' in peers)


def test_the_autoscaler_scales_what_is_there():
    found = objects("router")
    [scaler], [deployment] = of_kind(found, "HorizontalPodAutoscaler"), of_kind(found, "Deployment")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"], "each upgrade would undo what the autoscaler did"
    assert not of_kind(objects("router-daemonset"), "HorizontalPodAutoscaler")


def test_every_value_is_explained():
    """Each setting of values.yaml has a line in the README's table, and the schema knows it."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    table = (CHART / "README.md").read_text()

    def visit(settings, known, path):
        for key, value in settings.items():
            here = [*path, key]
            assert key in known.get("properties", {}), ".".join(here)
            if isinstance(value, dict) and "properties" in known["properties"][key]:
                visit(value, known["properties"][key], here)
            else:
                assert f"| `{'.'.join(here)}` |" in table, ".".join(here)

    visit(yaml.safe_load((CHART / "values.yaml").read_text()), schema, [])
