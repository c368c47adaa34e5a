# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The Helm chart as the tests see it: rendered by real Helm, as objects."""

import functools
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "Charts/martlet"
# The oldest that Chart.yaml allows, and the newest whose schemas are at hand.
KUBERNETES = ("1.30", "1.37")
# Kinds that Kubernetes does not bring itself.
FOREIGN = {"monitoring.coreos.com/v1", "cert-manager.io/v1"}
CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


@functools.cache
def renderer():
    """Scripts/render-chart as a module."""
    loader = importlib.machinery.SourceFileLoader("render_chart", str(ROOT / "Scripts/render-chart"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("render_chart", loader))
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = wrote
    return module


def values(case):
    return yaml.safe_load((CHART / f"ci/{case}-values.yaml").read_text()) or {}


def merge(base, more):
    """`more` over `base`, level by level, as Helm merges values."""
    if not isinstance(base, dict) or not isinstance(more, dict):
        return more
    return {**base, **{key: merge(base.get(key), value) for key, value in more.items()}}


@functools.cache
def objects(case):
    """Every object of a case, tests and hooks too."""
    return rendered(values(case))


def rendered(settings, name="cache", namespace="prod"):
    manifests = renderer().render(settings, name, namespace)
    return [found for text in manifests.values() for found in yaml.safe_load_all(text) if found]


def of_kind(found, kind):
    return [one for one in found if one["kind"] == kind]


def pods(found):
    """(name, labels, specification) of every pod that an object makes or is."""
    for one in found:
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["metadata"]["labels"], one["spec"]
        elif one["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job"):
            template = one["spec"]["template"]
            yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def containers(specification):
    return [*specification.get("initContainers", []), *specification["containers"]]


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())
