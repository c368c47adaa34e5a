# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The search for the highest rate that keeps an objective, and the probe that measures beside the load."""

import csv
import gzip
import json
import re
import time
import xml.etree.ElementTree as ElementTree

import pytest

from .runner import Run
from .stub import Stub
from .test_outputs import samples

pytestmark = [pytest.mark.ours, pytest.mark.alone]

SCENARIO = """
scenarios:
  one: {executor: constant-arrival-rate, rate: 50, duration: 1s, preAllocatedVUs: 8, busy: wait, workload: {operations: {get: 1}}}
"""
SCRIPT = """import memcached from 'k6/x/memcached';
export const options = { vus: 20 };
export function setup() { return memcached.get('k'); }
export default async function () { await memcached.get('k'); }
"""


def one_at_a_time(seconds):
    """Answers that take so long each, one after another whoever asks."""
    free = [0.0]

    def reply(*_):
        begin = max(free[0], time.monotonic())
        free[0] = begin + seconds
        time.sleep(max(0, free[0] - time.monotonic()))
        return b"END\r\n"

    return reply


@pytest.mark.parametrize("file, name", [(SCENARIO, "s.yaml"), (SCRIPT, "s.js")], ids=["workload", "script"])
def test_a_search_finds_what_a_server_can(file, name):
    """A server that takes 5 ms for each answer can 200 a second: beyond, requests wait for ever longer."""
    with Stub(one_at_a_time(0.005)) as stub:
        done = Run(
            "--server", stub.address, "--search", "p90<60ms", "--search-time", "700ms", "--json", file=file, name=name)
    assert done.code == 0, done
    found = json.loads(done.out)
    assert 100 <= found["rate"] <= 240, done
    assert found["objective"] == "p90<60ms" and found["metric"] == "memcached_req_duration"
    kept = [one for one in found["trials"] if one["kept"]]
    assert max(one["rate"] for one in kept) == found["rate"] and all(one["value"] < 60 for one in kept)
    assert "the highest rate that keeps p90<60ms" in done.err


def test_a_searchs_samples_and_page_are_of_all_trials(tmp_path):
    out, rows, page = tmp_path / "out.json.gz", tmp_path / "out.csv", tmp_path / "page.html"
    with Stub(one_at_a_time(0.005)) as stub:
        done = Run(
            "--server", stub.address, "--search", "p90<60ms", "--search-time", "500ms", "--json", "--tag", "run=one", "-o", f"json={out}",
            "-o", f"csv={rows}", "--report", page, file=SCENARIO)
    assert done.code == 0, done
    found = json.loads(done.out)
    rates = sorted({one["rate"] for one in found["trials"]})
    points, known = samples(gzip.open(out, "rt").read())
    tags = sorted(float(tag) for tag in {one["tags"]["search_rate"] for one in points["memcached_req_duration"]})
    assert tags == pytest.approx(rates, abs=0.06) and len(rates) > 2
    assert all(one["tags"]["run"] == "one" for one in points["memcached_reqs"])
    with open(rows, newline="") as file:
        table = [row for row in csv.DictReader(file) if row["metric_name"] == "memcached_reqs"]
    assert len(table) == len(points["memcached_reqs"]) and len(list(known)) > 5
    text = page.read_text()
    assert not re.search(r"(src|href)=|url\(|@import|https?://", text)
    ElementTree.fromstring(re.search(r"<svg.*?</svg>", text, re.DOTALL)[0])
    assert text.count('<td class="good">kept</td>') == len([one for one in found["trials"] if one["kept"]])
    assert "the highest rate that keeps p90&lt;60ms" in text and text.count("not kept") == len(
        [one for one in found["trials"] if not one["kept"]])


def test_thresholds_are_not_a_searchs(server):
    text = SCENARIO + "thresholds: {memcached_reqs: ['count<0']}\n"
    done = Run("--server", f"127.0.0.1:{server.port}", "--search", "p50<1ns", "--search-time", "100ms", file=text)
    assert "WARN --search: thresholds are not looked at" in done.err and done.code == 99, done


def test_a_search_that_finds_nothing(server):
    done = Run("--server", f"127.0.0.1:{server.port}", "--search", "p50<1ns", "--search-time", "100ms", file=SCENARIO)
    assert done.code == 99 and "no rate keeps p50<1ns" in done.out, done


@pytest.mark.parametrize("arguments, words", [
    (["--search", "p99"], "expected a figure and a time"), (["--probe", "0"], "expected 1 to"),
    (["--search", "p99<2ms", "--search-time", "x"], "--search-time"),
    (["--search", "p99<2ms", "--out", "json"], "--search: --out needs a file"),
    (["--search", "p99<2ms", "--out", "noise"], "allowed are json, csv"),
])
def test_what_cannot_be_searched_or_probed(server, arguments, words):
    done = Run("--server", f"127.0.0.1:{server.port}", *arguments, file=SCENARIO)
    assert done.code == 104 and words in done.err, done


def test_a_probe_measures_beside_the_load(server):
    """The load waits behind its own requests, of which each connection has 64 under way; the probe does not."""
    done = Run(
        "--server", f"127.0.0.1:{server.port}", "--probe", "200", "--summary-trend-stats", "count,med",
        file="{vus: 16, duration: 2s, threads: 1, workload: {keys: 1000, pipeline: 64}}")
    assert done.code == 0, done
    assert 300 <= done.figure("memcached_probe_duration", "count") <= 420, done
    assert done.figure("memcached_probe_duration", "med") < done.figure("memcached_req_duration", "med"), done
    assert done.figure("memcached_probe_failed", "passes") == 0


def test_a_probe_sees_what_others_do_not():
    """A server whose other connections are never slow, and that stalls the probe's for 300 ms."""

    def reply(words, _):
        if words[1] == "martlet:probe":
            time.sleep(0.3)
        return b"END\r\n"

    with Stub(reply) as stub:
        done = Run(
            "--server", stub.address, "--probe", "20", file="{vus: 2, duration: 2s, workload: {operations: {get: 1}}}")
    assert done.code == 0, done
    # Asked for every 50 ms, the later ones have waited for all that came before.
    assert done.figure("memcached_probe_duration", "max") > 1000, done
    assert done.figure("memcached_req_duration", "max") < 1000, done
