# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Scripts in k6's style against a real server: what they say in their thresholds holds."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from .runner import Run, command

pytestmark = pytest.mark.ours

SCRIPTS = Path(__file__).with_name("scripts")


def run(server, name, *arguments, **options):
    return Run("run", SCRIPTS / name, "--server", f"127.0.0.1:{server.port}", *arguments, **options)


@pytest.mark.parametrize(
    "name",
    [
        "shared_iterations.js", "per_vu_iterations.js", "constant_vus.js", "ramping_vus.js", "constant_arrival_rate.js",
        "ramping_arrival_rate.js", "dropped_iterations.js", "scenarios.js", "tags_and_groups.js", "custom_metrics.js",
        "shared_array.js", "client.js", "modules.js", "setup_teardown.js", "handle_summary.js",
    ],
)
def test_a_script_holds_its_thresholds(server, name, tmp_path):
    done = run(server, name, "-e", f"OUT={tmp_path}")
    assert done.code == 0, done
    assert "✗ '" not in done.out, done
    assert "ERRO" not in done.err, done


def test_thresholds_that_fail(server):
    done = run(server, "thresholds_fail.js")
    assert done.code == 99, done
    for line in ("✗ 'p(90)<5'", "✓ 'max<100'", "✗ 'rate>0.99' rate=90.00%", "✓ 'min>=5'"):
        assert line in done.out, done
    assert "thresholds on metrics 'good, size' have been crossed" in done.err


def test_a_threshold_aborts(server):
    began = time.monotonic()
    done = run(server, "abort_on_fail.js")
    assert done.code == 99, done
    assert time.monotonic() - began < 15


def test_the_summary_is_the_scripts(server, tmp_path):
    done = run(server, "handle_summary.js", "-e", f"OUT={tmp_path}")
    mine = next(line for line in done.out.splitlines() if line.startswith("mine: "))
    assert json.loads(mine[6:]) == {
        "iterations": 5, "checks": 5, "ok": True, "name": "one", "contains": "time", "time": True}
    assert "   checks_total" in done.out
    data = json.loads((tmp_path / "summary.json").read_text())
    assert data["metrics"]["checks"]["values"] == {"rate": 1, "passes": 5, "fails": 0}
    assert data["root_group"]["checks"][0]["path"] == "::one"
    assert data["options"]["summaryTrendStats"][0] == "avg"


def test_setup_and_teardown_run_once_and_can_be_left_out(server):
    assert "torn down 1-2-3 null" in run(server, "setup_teardown.js").err
    left_out = run(server, "setup_teardown.js", "--no-setup", "--no-teardown", "--no-thresholds")
    assert "torn down" not in left_out.err


def test_a_script_can_end_the_test_and_call_it_failed(server):
    began = time.monotonic()
    aborted = run(server, "abort.js")
    assert aborted.code == 108, aborted
    assert "test aborted: enough" in aborted.err and "teardown all the same" in aborted.err
    assert time.monotonic() - began < 15
    failed = run(server, "test_fail.js")
    assert failed.code == 110, failed
    assert "a fact that cannot be" in failed.err


def test_what_a_script_throws_is_told_with_its_line_and_ends_its_iteration_only(server):
    done = run(server, "exceptions.js")
    assert done.code == 0, done
    assert "Error: by fail" in done.err and "exceptions.js:6:" in done.err
    assert "TypeError: null is not an object" in done.err and "exceptions.js:9:" in done.err
    assert "RangeError: behind an await" in done.err and "exceptions.js:12:" in done.err


def refused(tmp_path, text, *arguments):
    path = tmp_path / "script.js"
    path.write_text(text)
    return Run("run", path, *arguments)


@pytest.mark.parametrize(
    "text, words",
    [
        ("import http from 'k6/http';\nexport default function () {}", "script.js:1: the module 'k6/http' is not supported"),
        ("\nimport x from 'k6/x/redis';\nexport default function () {}", "script.js:2: the module 'k6/x/redis'"),
        ("import x from 'https://example.com/a.js';", "script.js:1: the module 'https://example.com/a.js' is on the net"),
        ("import x from './nothing.js';", "no file"),
        ("import { nothing } from 'k6';", "the module 'k6' has no export 'nothing'"),
        ("export default function () {\n  const a = (1;\n}", "script.js:3: '}' closes nothing"),
        ("export default function () {\n  const = 5;\n}", "SyntaxError"),
        ("\nthrow new Error('at once');", "Error: at once"),
        ("const x = 'a string\n';", "script.js:1: a string that does not end"),
        ("import { Trend } from 'k6/metrics';\nnew Trend('a name');", "is no name for a metric"),
        ("open('./nothing.txt');", "nothing.txt: No such file"),
        ("import { sleep } from 'k6';\nsleep(1);", "not for the init context"),
    ],
)
def test_scripts_that_are_wrong(tmp_path, text, words):
    done = refused(tmp_path, text)
    assert done.code == 107, done
    assert words in done.err, done


@pytest.mark.parametrize(
    "text, words",
    [
        ("export const options = { vus: 'many' };\nexport default function () {}", "vus: 'many' is no whole number"),
        ("export const options = { duratoin: '1s' };\nexport default function () {}", "did you mean duration?"),
        ("export function other() {}", "exports no function 'default'"),
        (
            "export const options = { scenarios: { a: { executor: 'constant-vus', duration: '1s', exec: 'no' } } };",
            "exports no function 'no'",
        ),
        (
            "export const options = { thresholds: { nothing: ['avg<1'] } };\nexport default function () {}",
            "there is no metric 'nothing'",
        ),
    ],
)
def test_options_of_scripts_that_are_wrong(tmp_path, text, words):
    done = refused(tmp_path, text)
    assert done.code == 104, done
    assert words in done.err, done


def test_setup_that_fails_or_takes_too_long(tmp_path):
    thrown = refused(tmp_path, "export function setup() { throw new Error('no'); }\nexport default function () {}")
    assert thrown.code == 107 and "setup(): Error: no" in thrown.err, thrown
    began = time.monotonic()
    endless = refused(
        tmp_path, "export const options = { setupTimeout: '1s' };\nexport function setup() { while (true); }\n"
        "export default function () {}")
    assert endless.code == 100 and "setup() took more than 1s" in endless.err, endless
    assert time.monotonic() - began < 20


def test_an_endless_iteration_is_cut_off(tmp_path):
    began = time.monotonic()
    done = refused(
        tmp_path, "export const options = { scenarios: { a: { executor: 'constant-vus', vus: 1, duration: '500ms', "
        "gracefulStop: '500ms' } } };\nexport default function () { while (true); }")
    # The engine breaks it off; where that fails, the run ends all the same and says so.
    if done.code == 102:
        assert "a script does not end" in done.err, done
    else:
        assert done.code == 0 and "0 complete and 1 interrupted iterations" in done.out, done
    assert time.monotonic() - began < 30


def test_a_client_says_what_its_server_does(tmp_path):
    done = refused(
        tmp_path, "import memcached from 'k6/x/memcached';\nexport const options = { iterations: 2 };\n"
        "export default async function () { await memcached.get('k'); }", "--server", "127.0.0.1:1")
    assert done.code == 0, done
    assert "get: connect: Connection refused" in done.err, done
    assert "100.00% 2 out of 2" in done.out, done


def test_a_missing_library_is_named(tmp_path):
    """In a place without JavaScriptCore: a mount namespace hides it."""
    path = tmp_path / "script.js"
    path.write_text("export default function () {}")
    hide = (
        "for f in /usr/lib/*/libjavascriptcoregtk-*; do mount --bind /dev/null $f || exit 77; done; "
        f"exec {command()} run {path}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hide], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounts are not allowed here")
    assert done.returncode == 107
    assert "install Debian's package libjavascriptcoregtk-4.1-0" in done.stderr
