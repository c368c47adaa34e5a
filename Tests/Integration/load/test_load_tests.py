# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The load tests that are shown to people hold their thresholds; the page of a result is whole."""

import json
import platform
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bed import Server
from client.probe import hurry

from router.bed import Router
from streams.test_streams import Pair

from .agents import start
from .runner import Run

pytestmark = pytest.mark.ours

# What a node can serve is known: 5,000 requests a second.
SLOW = ["--overload-test-service-time", "200us"]
LOAD_TESTS = Path(__file__).resolve().parents[3] / "LoadTests"


@pytest.mark.parametrize("path", sorted(LOAD_TESTS.glob("*.[jy]*")), ids=lambda path: path.name)
def test_a_load_test_holds(path, tmp_path):
    storage = ["--storage-backend", "rocksdb", "--storage-path", str(tmp_path / "rows")]
    own = {"write-through.yaml": storage, "consistency.js": storage, "overload.yaml": [*SLOW, "-t", "1"]}
    is_timed = path.name == "overload.yaml"
    with Server(own.get(path.name, [])) as server:
        # What the node can serve is known only where it has a processor.
        if is_timed:
            hurry(server.pid)
        done = Run("run", path, "--server", f"127.0.0.1:{server.port}", punctual=is_timed)
    assert done.code == 0, done


def test_overload_fails_where_nothing_is_refused():
    """The same node without its shedding lets everybody wait: the load test sees it."""
    with Server([*SLOW, "-t", "1", "--overload-target", "0"]) as server:
        done = Run("run", LOAD_TESTS / "overload.yaml", "--server", f"127.0.0.1:{server.port}")
    assert done.code == 99 and "✗ 'p(99)<150'" in done.out and "✗ 'rate>2000'" in done.out, done


def test_failover_holds_while_a_node_is_lost(tmp_path):
    """Half of the keys' node is killed under way: its pool's other node answers for it."""
    with Server("-m 64 -t 1") as lost, Server("-m 64 -t 1") as kept:
        names = {name: {"servers": [f"127.0.0.1:{server.port}"], "timeout": "200ms"} for name, server in [("a", lost), ("b", kept)]}
        both = {"servers": [names["a"]["servers"][0], names["b"]["servers"][0]], "timeout": "200ms"}
        routes = tmp_path / "routes.yaml"
        routes.write_text(json.dumps({"pools": {"both": both, "rest": names["b"]}, "route": {"failover": ["both", "rest"]}}))
        with Router((), f"--config {routes} -t 1") as router:
            run = start(LOAD_TESTS / "failover.js", "--server", f"127.0.0.1:{router.port}", "-e", "DURATION=8s", token=None)
            time.sleep(4)
            lost.stop()
            out, err = run.communicate(timeout=60)
    assert run.returncode == 0, (out, err)


def test_failover_fails_where_nothing_fails_over(tmp_path):
    """The same without a second pool: the load test sees it."""
    with Server("-m 64 -t 1") as lost, Server("-m 64 -t 1") as kept:
        run = start(
            LOAD_TESTS / "failover.js", "--server", f"127.0.0.1:{lost.port},127.0.0.1:{kept.port}", "-e", "DURATION=6s", token=None)
        time.sleep(3)
        lost.stop()
        out, err = run.communicate(timeout=60)
    assert run.returncode == 99, (out, err)


def test_invalidation_holds_between_regions(tmp_path):
    with Pair(tmp_path) as pair:
        home, replica = f"127.0.0.1:{pair.home.port}", f"127.0.0.1:{pair.replica.port}"
        done = Run("run", LOAD_TESTS / "invalidation.js", "--server", home, "-e", f"REPLICA={replica}")
        assert done.code == 0, done
        # With a way that holds everything back for longer, it does not hold.
        pair.relay.delay = 1.5
        late = Run("run", LOAD_TESTS / "invalidation.js", "--server", home, "-e", f"REPLICA={replica}", "-e", "DURATION=5s")
        assert late.code == 99, late


def test_the_report_is_one_page_that_asks_for_nothing(server, tmp_path):
    report = tmp_path / "report.html"
    done = Run(
        "--server", f"127.0.0.1:{server.port}", "--report", report,
        file="{vus: 3, duration: 3s, workload: {}, thresholds: {memcached_reqs: ['count>1'], checks: ['rate>0']}}")
    assert done.code == 0, done
    page = report.read_text()
    assert not re.search(r"(src|href)=|url\(|@import|https?://", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert "2 of 2 thresholds passed" in page and "prefers-color-scheme:dark" in page
    assert "memcached_req_duration" in page and "service time" in page
    # The environment: when, by what, against what, where.
    run = page[page.index("<h2>The run</h2>"):]
    assert re.search(r"<td>date</td><td>20\d\d-\d\d-\d\dT[\d:]{8}Z</td>", run)
    assert re.search(r"<td>martlet-load</td><td>version \d[\d.]*, seed \d+</td>", run)
    assert re.search(rf"<td>servers</td><td>127\.0\.0\.1:{server.port} \(version [\w.-]+\)</td>", run)
    assert f"Linux {platform.release()}" in run and re.search(r"<td>machine</td><td>\d+ processors", run)
    assert "default: 3 looping VUs for 3s" in run


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_the_report(server, tmp_path, is_dark):
    """A real one draws the page, complains of nothing, and asks nobody for anything."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    report, picture, log = tmp_path / "report.html", tmp_path / "page.png", tmp_path / "net.json"
    done = Run("--server", f"127.0.0.1:{server.port}", "--report", report, file="{vus: 3, duration: 3s, workload: {}}")
    assert done.code == 0, done
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
         "--no-first-run", f"--user-data-dir={tmp_path}/profile", "--disable-background-networking", "--window-size=1100,2600",
         f"--screenshot={picture}",
         f"--log-net-log={log}", *(["--blink-settings=preferredColorScheme=0"] if is_dark else []), report.as_uri()],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    assert not [line for line in shown.stderr.splitlines() if "CONSOLE" in line], shown.stderr
    assert picture.stat().st_size > 50_000
    asked = {url for url in re.findall(r'"url":"([^"]*)"', log.read_text()) if not url.startswith(("file:", "data:"))}
    assert not [url for url in asked if "google" not in url and "gvt1" not in url], asked
