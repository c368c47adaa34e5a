# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The lists of metrics and of settings are those of the program."""

import importlib.machinery
import importlib.util
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from bed import default_command, free_port
from charts.test_pod import fleet
from storage import database
from storage.node import Node

from .blocks import ROOT

pytestmark = pytest.mark.ours


def test_the_formula_of_capacity_rests_on_what_was_measured():
    """docs/capacity.md's table is what Scripts/capacity computes, and within 1% of docs/performance.md's figures."""
    loader = importlib.machinery.SourceFileLoader("capacity", str(ROOT / "Scripts/capacity"))
    capacity = importlib.util.module_from_spec(importlib.util.spec_from_loader("capacity", loader))
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(capacity)
    finally:
        sys.dont_write_bytecode = wrote
    row = r"(?m)^\| key (\d+) B, value (\d+) B \| ([\d.]+) \|"
    measured = {(key, value): float(share) for key, value, share in re.findall(row, (ROOT / "docs/performance.md").read_text())}
    rows = re.findall(row + r" ([\d.]+) \|", (ROOT / "docs/capacity.md").read_text())
    assert len(rows) == len(measured) == 3
    for key, value, formula, shown in rows:
        bare = int(key) + int(value)
        computed = bare / capacity.item_bytes(int(key), int(value)) * 252 / 256
        assert abs(computed - float(formula)) < 0.001
        assert float(shown) == measured[key, value]
        assert abs(computed / measured[key, value] - 1) < 0.01


def documented():
    """{name: (type, labels)} of docs/metrics.md."""
    rows = re.findall(r"(?m)^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*) \|", (ROOT / "docs/metrics.md").read_text())
    assert len(rows) == len({name for name, _, _ in rows}), "a metric stands there twice"
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def exported(port):
    """The same of a node's page, with the help of each family."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    found = {name: (kind, set()) for name, kind in re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text)}
    for row in text.splitlines():
        if match := re.match(r"([a-z][\w:]*)(?:\{(.*)\})? ", row):
            name = match[1] if match[1] in found else re.sub(r"_(bucket|sum|count)$", "", match[1])
            found[name][1].update(key for key, _ in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "") if key != "le")
    helps = dict(re.findall(r"(?m)^# HELP (\S+) (.*)$", text))
    return found, helps


def use(client):
    client.send("stats detail on\r\n")
    client.line()
    for number in range(7):
        client.set(f"user:{number}", b"v" * 100)
    # Enough to be sampled: one read in 64 is looked at for hot keys.
    client.send("".join(f"mg user:{number % 7} v q\r\n" for number in range(3000)) + "mn\r\n")
    while client.line() != "MN":
        pass


@pytest.fixture(scope="module", params=["none", "rocksdb", "postgres"])
def node(request, tmp_path_factory):
    if request.param == "postgres" and not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")
    with Node(tmp_path_factory.mktemp("node"), backend=request.param, admin=True) as one:
        with one.client() as client:
            use(client)
        time.sleep(0.2)
        yield one


def test_every_metric_is_documented(node):
    found, _ = exported(node.admin)
    listed = documented()
    assert len(found) > 100
    for name, (kind, labels) in found.items():
        assert name in listed, f"{name} is not in docs/metrics.md"
        assert listed[name][0] == kind, name
        assert labels <= listed[name][1], (name, labels)


def test_every_documented_metric_is_exported(tmp_path):
    """By a node with the embedded store, which exports the most; what it has no use for is named here."""
    with Node(tmp_path, backend="rocksdb", admin=True) as one:
        with one.client() as client:
            use(client)
        found, _ = exported(one.admin)
    missing = {name for name in documented() if name not in found}
    conditional = (
        "martlet_router_", "mcrouter_", "martlet_storage_postgres_", "martlet_storage_region_", "martlet_stream_",
        "martlet_consistency_", "martlet_ring_", "martlet_warm")
    assert not {name for name in missing if not name.startswith(conditional)}
    for name, (_, labels) in documented().items():
        if name in found and found[name][1]:
            assert found[name][1] == labels, name


def test_the_routers_metrics_are_those_that_are_documented():
    with fleet("router") as (router, _):
        with router.client() as client:
            assert client.set("k", "v") == "STORED"
        found, _ = exported(router.admin)
    listed = {name: row for name, row in documented().items() if name.startswith(("martlet_router_", "mcrouter_"))}
    found = {name: row for name, row in found.items() if not name.startswith("process_")}
    assert found.keys() == listed.keys()
    for name, (kind, labels) in found.items():
        # What this router has nothing of has no samples.
        assert kind == listed[name][0] and labels in (listed[name][1], set()), name


def settings():
    """{key: (flag, default)} of docs/configuration.md's first table."""
    text = (ROOT / "docs/configuration.md").read_text().split("## memcached's options")[0]
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| `(--[\w-]+)` \| .* \| (`[^`]*`|) ?\| [^|]* \| [^|]* \|$", text.replace("\\|", "/"))
    return {key: (flag, default.strip("`")) for key, flag, default in rows}


def test_the_reference_of_settings_is_the_programs():
    """Keys, flags and defaults, against what --check-config shows of a node without any setting."""
    done = subprocess.run([*default_command().split(), "--check-config", "--port", str(free_port())], capture_output=True,
                          text=True, timeout=20, check=True, env={"PATH": "/usr/bin"})  # fmt: skip
    shown = {}
    for line in done.stdout.splitlines()[1:]:
        if match := re.match(r"([a-zA-Z][\w.]*): (.*?)(?: +# .*)?$", line):
            shown[match[1]] = match[2]
    listed = settings()
    assert len(listed) > 50, len(listed)
    assert set(shown) - {"pools"} <= set(listed), set(shown) - set(listed)
    helped = subprocess.run([*default_command().split(), "--help"], capture_output=True, text=True, timeout=20, check=True)
    flags = set(re.findall(r"(?m)^ *(--[a-z][\w-]+)=", helped.stdout.split("Martlet's settings")[1])) - {"--config"}
    # Tools take a word of their values in -h for a feature of memcached.
    unlisted = {"--stream-kafka-security", "--stream-kafka-mechanism"}
    assert {flag for flag, _ in listed.values()} == flags | unlisted
    for key, (flag, default) in listed.items():
        # A setting without a default is shown when it is set only.
        assert key == "port" or shown.get(key, "") == default, (key, default)
        assert flag == "--" + re.sub(r"(?<=[a-z])[A-Z]+", lambda word: "-" + word[0].lower(), key.replace(".", "-")), key


def test_the_reference_of_the_routers_settings_is_the_programs():
    """As Scripts/make-reference writes it: keys, flags, values, defaults, and what is said of them."""
    router = Path(default_command().split()[0]).with_name("martlet-router")
    done = subprocess.run([sys.executable, ROOT / "Scripts/make-reference", "--check", router], capture_output=True, text=True,
                          timeout=20, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = (ROOT / "docs/configuration.md").read_text().split("## Settings of the router")[1].split("\n## ")[0]
    assert len(re.findall(r"(?m)^\| `[\w.]+` \| ", rows)) > 90
