# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What the documentation tells to type works as it stands."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from bed import default_command
from charts.chart import rendered

from .blocks import QUICK, ROOT, blocks, run, run_quick, script

pytestmark = pytest.mark.ours

COMMANDS = [block for block in blocks() if block.language == "sh"]
RUN = [block for block in COMMANDS if not block.is_marked and not block.is_development]
SERVED = [block for block in COMMANDS if block.is_served]
SETTINGS = [block for block in blocks() if block.language == "yaml"]


def test_there_are_blocks():
    assert len(COMMANDS) > 30 and len(RUN) > 8 and len(SETTINGS) > 6 and len(SERVED) > 25
    unknown = {block.language for block in blocks()} - {"sh", "yaml", "", "ini", "json", "swift", "text", "promql", "sql"}
    assert not unknown


@pytest.mark.parametrize("block", RUN, ids=str)
def test_commands_run(block, tmp_path):
    code, said, complaints = run(block, tmp_path)
    assert code == 0, f"{script(block)}\n{code}: {said[-2000:]}{complaints[-2000:]}"
    assert "ERROR" not in said.replace("SERVER_ERROR_", ""), said
    if block.answer is not None and "nc " in block.text:
        assert said.replace("\r", "").strip() == block.answer.strip()


@pytest.mark.parametrize("block", SERVED, ids=str)
def test_commands_run_at_a_node(block, tmp_path):
    """What runbooks tell to look at is there: each name that a grep of theirs wants."""
    code, said, complaints = run(block, tmp_path)
    assert code == 0, f"{script(block)}\n{code}: {said[-2000:]}{complaints[-2000:]}"
    assert said.strip() and "ERROR" not in said.replace("SERVER_ERROR_", ""), said
    for pattern in re.findall(r"grep -E '([^'()]+)'", block.text):
        for name in pattern.split("|"):
            assert name in said, name


def test_a_wrong_command_is_seen(tmp_path):
    [block] = [one for one in RUN if one.page == "docs/index.md" and "nc " in one.text]
    block = type(block)(block.page, 0, "sh", ".build/release/martlet-server -p 11311 --no-such-option\n", None)
    assert run(block, tmp_path)[0] != 0


@pytest.mark.parametrize("block", [one for one in COMMANDS if one.is_development and not one.is_marked], ids=str)
def test_what_commands_of_development_name_is_there(block):
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    for line in block.lines:
        for target in re.findall(r"^make ([a-z-]+)", line):
            assert target in targets, line
        for path in re.findall(r"(?<![\w/.])(?:Scripts|Tests|Benchmarks|Charts)/[\w./-]+", line.split("#")[0]):
            assert (ROOT / path).exists(), path
        for module in re.findall(r"python -m ([a-z]\w*(?:\.\w+)*)", line):
            place = ROOT / "Tests/Integration" / module.replace(".", "/")
            assert module == "pytest" or place.with_suffix(".py").exists() or place.is_dir(), module
        for name in re.findall(r"--filter (\w+)|MARTLET_ONLY_TESTS=(\w+)", line):
            assert (ROOT / "Tests" / "".join(name)).is_dir(), line
        if line.startswith(QUICK):
            done = run_quick(line)
            assert done.returncode == 0 and (done.stdout or "--check" in line), done.stderr


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_settings_are_taken(block, tmp_path):
    """By Helm, Prometheus or the node, whosever they are."""
    path = tmp_path / "settings.yaml"
    path.write_text(block.text)
    if "scrape_configs" in block.text:
        line = ["promtool", "check", "config", path]
    elif block.page in ("docs/kubernetes.md", "Charts/martlet/README.md"):
        assert rendered(yaml.safe_load(block.text))
        return
    else:
        program = default_command().split()[0]
        if block.page in ("docs/routing.md", "docs/mcrouter.md") or "\nroute:" in block.text:
            program = Path(program).with_name("martlet-router")
        line = [program, "--config", path, "--check-config"]
        if block.page == "docs/routes.md":
            line = [Path(program).with_name("martletctl"), "explain", "get", "user:1", "--routes", path]
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
