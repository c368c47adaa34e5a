# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The command line, the variables and the options of k6 do here what they do there, or say why not."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time

import pytest

from .runner import Run, command
from .stub import Stub

pytestmark = pytest.mark.ours

EMPTY = "export default function () {}\n"
SUMMARY = """import { textSummary } from 'https://jslib.k6.io/k6-summary/0.0.2/index.js';
import { check, group } from 'k6';
export const options = { iterations: 3, summaryTrendStats: ['avg', 'max'], thresholds: { iterations: ['count==3'] } };
export function setup() { return { token: 'seven' }; }
export default function () { group('inner', () => { check(1, { 'is one': value => value === 1 }); }); }
"""


def run(text, *arguments, **options):
    return Run(*arguments, file=text, name="script.js", **options)


# The summary.


def test_a_summary_is_of_the_data_that_it_is_given():
    done = run(SUMMARY + """export function handleSummary(data) {
    for (const key in data.metrics) if (key.startsWith('iteration_')) delete data.metrics[key];
    data.metrics.iterations.values.count = 77;
    data.root_group.groups[0].checks[0].name = 'is another';
    return { stdout: textSummary(data, { indent: '→', enableColors: false }) };
}""")
    assert done.code == 0, done
    assert "iteration_duration" not in done.out, done
    assert re.search(r"^→    iterations\.*: 77 ", done.out, re.MULTILINE), done
    assert "✓ is another" in done.out and "✓ is one" not in done.out, done
    assert "✓ 'count==3' count=77" in done.out, done


def test_a_summary_of_no_data_is_an_error_and_the_usual_one():
    done = run(SUMMARY + "export function handleSummary() { return { stdout: textSummary({}) }; }")
    assert "textSummary: expected the data that handleSummary is given" in done.err, done
    assert "TOTAL RESULTS" in done.out, done


def test_handle_summary_has_what_setup_gave():
    tail = "export function handleSummary(data) { return { stdout: JSON.stringify(data.setup_data ?? 'nothing') }; }"
    assert '{"token":"seven"}' in run(SUMMARY + tail).out
    assert '"nothing"' in run(SUMMARY + tail, "--no-setup").out


@pytest.mark.parametrize("arguments, environment", [
    (["--no-summary"], {}), (["--summary-mode", "disabled"], {}), ([], {"K6_SUMMARY_MODE": "disabled"}),
    ([], {"K6_NO_SUMMARY": "true"}),
])
def test_without_a_summary_there_is_neither_export_nor_handle_summary(arguments, environment):
    done = run(SUMMARY + "export function handleSummary() { return { stdout: 'CALLED' }; }", *arguments,
               environment={**os.environ, **environment})
    assert done.code == 0, done
    assert "CALLED" not in done.out and "TOTAL RESULTS" not in done.out and done.summary == {}, done


def test_the_full_summary_has_scenarios_and_groups(server):
    text = """import memcached from 'k6/x/memcached';
import { check, group } from 'k6';
const scenario = exec => ({ executor: 'shared-iterations', iterations: 4, exec });
export const options = { scenarios: { left: scenario('left'), right: scenario('right') } };
export async function left() {
    await group('asks', async () => check(await memcached.get('k'), { 'is null': v => v === null }));
}
export async function right() { await memcached.set('other', 'v'); }
"""
    arguments = ["--server", f"127.0.0.1:{server.port}"]
    done = run(text, *arguments, "--summary-mode", "full")
    assert done.code == 0, done
    left, right = done.out.split("█ SCENARIO: left")[1].split("█ SCENARIO: right")
    assert "↳ GROUP: asks" in left and left.count("✓ is null") == 2 and "GROUP" not in right, done
    assert re.search(r"memcached_reqs\.*: 4 ", left) and re.search(r"iterations\.*: 4 ", right), done
    compact = run(text, *arguments)
    assert "SCENARIO" not in compact.out and "✓ is null" in compact.out, compact
    assert run(text, "--summary-mode", "long").code == 104


# How a test ends.


def test_abort_in_init_code_is_an_abort():
    done = run("import exec from 'k6/execution';\nexec.test.abort('not today');\n" + EMPTY)
    assert done.code == 108 and "not today" in done.err, done


def test_a_setup_that_fails_has_a_summary_all_the_same():
    done = run("export function setup() { throw new Error('no'); }\n" + EMPTY
               + "export function teardown() { console.log('TORN DOWN'); }")
    assert done.code == 107 and "setup(): Error: no" in done.err, done
    assert "TOTAL RESULTS" in done.out and "metrics" in done.summary, done
    assert "TORN DOWN" not in done.err, done


def test_linger_stays_until_a_signal(tmp_path):
    path = tmp_path / "s.js"
    path.write_text(EMPTY)
    process = subprocess.Popen(
        [command(), "run", str(path), "-l"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = threading.Event()

    def watch():
        for line in process.stderr:
            if "the test is over; Ctrl-C ends the program" in line:
                seen.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        assert seen.wait(30)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    finally:
        process.kill()


@pytest.mark.parametrize("threshold, code", [
    ("never: ['p(95)>1']", 99), ("never: ['p(95)<1']", 0), ("depth: ['value>0']", 99), ("share: ['rate>0.9']", 0),
])
def test_thresholds_of_what_has_no_samples(threshold, code):
    done = run("import { Gauge, Rate, Trend } from 'k6/metrics';\n"
               "new Trend('never'); new Gauge('depth'); new Rate('share');\n"
               f"export const options = {{ thresholds: {{ {threshold} }} }};\n" + EMPTY)
    assert done.code == code, done


# Places of options, above and below each other.

SCENARIOS = """export const options = { %s scenarios: {
    one: { executor: 'shared-iterations', vus: 2, iterations: 4 } } };
export default function () {}
"""


def test_vus_beside_scenarios_leave_them_and_from_above_replace_them(tmp_path):
    beside = run(SCENARIOS % "vus: 5,")
    assert "one: 4 iterations shared among 2 VUs" in beside.out and "stands in the place" not in beside.err, beside
    for arguments, environment in [(["-u", "3"], {}), ([], {"K6_VUS": "3"})]:
        above = run(SCENARIOS % "", *arguments, environment={**os.environ, **environment})
        assert "default: 3 iterations shared among 3 VUs" in above.out, above
        assert "vus stands in the place of the scenarios" in above.err, above
    config = tmp_path / "config.json"
    config.write_text('{"vus": 5}')
    assert "one: 4 iterations" in run(SCENARIOS % "", "-c", config).out


def test_tags_of_a_higher_place_replace_those_of_a_lower(tmp_path):
    path = tmp_path / "out.json"
    done = run("export const options = { tags: { a: '1', b: '1' } };\n" + EMPTY, "--tag", "b=2", "-o", f"json={path}")
    points = [json.loads(line)["data"] for line in path.read_text().splitlines() if '"Point"' in line]
    assert done.code == 0 and points[0]["tags"]["b"] == "2" and "a" not in points[0]["tags"], done


def test_a_script_sees_what_its_options_come_to():
    text = """import exec from 'k6/execution';
export const options = { vus: 2, userAgent: 'mine', setupTimeout: '5s' };
export default function () { console.log('SEEN' + JSON.stringify(exec.test.options)); }
"""
    done = run(text, "--tag", "a=b", "-i", "2")
    seen = json.loads(re.search(r"SEEN(.*)", done.err)[1])
    assert seen["vus"] == 2 and seen["iterations"] == 2 and seen["userAgent"] == "mine" and seen["tags"] == {"a": "b"}
    assert seen["setupTimeout"] == "5s" and seen["scenarios"]["default"]["executor"] == "shared-iterations"
    for name in ("duration", "stages", "rps", "thresholds", "noSetup", "hosts", "executionSegment", "systemTags"):
        assert name in seen and seen[name] is None, name


def test_execution_segments_are_parts_of_one_test():
    text = """import exec from 'k6/execution';
export const options = { vus: 6, iterations: 60 };
export default function () {
    console.log(`VU ${exec.vu.idInTest} ${exec.vu.idInInstance} ${exec.scenario.iterationInTest}`);
}
"""
    found = []
    for part in ("0:1/3", "1/3:2/3", "2/3:1"):
        done = run(text, "--execution-segment", part, "--execution-segment-sequence", "0,1/3,2/3,1")
        assert done.code == 0 and done.figure("iterations", "count") == 20, done
        assert re.search(r"execution: local, part [123] of 3", done.out), done
        found.append([tuple(map(int, one)) for one in re.findall(r"VU (\d+) (\d+) (\d+)", done.err)])
        assert {one[1] for one in found[-1]} <= {1, 2}, done
    users = [{one[0] for one in part} for part in found]
    assert not users[0] & users[1] and not users[1] & users[2] and max(map(max, users)) <= 6
    assert sorted(one[2] for part in found for one in part) == list(range(60))


@pytest.mark.parametrize("option, words", [
    ("executionSegment: '1/4:1'", "parts of equal length"),
    ("executionSegment: '0:1/9'", "VUs are too few for 9 execution segments"), ("rps: -1", "rps: '-1' is no whole number"),
    ("paused: true", "no REST API"), ("systemTags: ['noise']", "'noise' is none of"),
])
def test_options_that_cannot_be_are_refused(option, words):
    done = run(f"export const options = {{ vus: 2, {option} }};\n" + EMPTY)
    assert done.code == 104 and words in done.err, done


def test_options_without_effect_are_told_by_their_names():
    done = run("export const options = { hosts: { a: '1.2.3.4' }, tlsAuth: [{ cert: 'c', key: 'k' }], userAgent: 'x', "
               "noConnectionReuse: false };\n" + EMPTY)
    assert done.code == 0, done
    assert "the option hosts has no effect here" in done.err and "the option tlsAuth" in done.err, done
    assert "userAgent" not in done.err and "noConnectionReuse" not in done.err, done


def test_system_tags_are_those_that_are_asked_for(server, tmp_path):
    path = tmp_path / "out.json"
    done = run("import memcached from 'k6/x/memcached';\nimport { check } from 'k6';\n"
               "export default async function () { check(await memcached.get('k'), { is: () => true }); }",
               "--server", f"127.0.0.1:{server.port}", "--system-tags", "status", "-o", f"json={path}")
    assert done.code == 0, done
    points = [json.loads(line) for line in path.read_text().splitlines() if '"Point"' in line]
    tags = {point["metric"]: point["data"]["tags"] for point in points}
    assert tags["memcached_reqs"] == {"op": "get", "status": "miss"} and tags["checks"] == {}


# Errors with their places.


def test_wrong_options_of_scripts_have_their_lines():
    text = """import { check } from 'k6';

export const options = {
    scenarios: {
        one: {
            executor: 'constant-vus',
            duration: '1s',
            rate: 5,
        },
    },
    duratoin: '1s',
    thresholds: {
        checks: ['rate>0.5',
            'p(95'],
    },
};
export default function () {}
"""
    done = run(text)
    assert done.code == 104, done
    assert re.search(r"script\.js:8: scenarios\.one\.rate: constant-vus has no such option", done.err), done
    assert re.search(r"script\.js:11: duratoin: there is no such option; did you mean duration\?", done.err), done
    assert re.search(r"script\.js:14: threshold 'p\(95'", done.err), done
    for wrong, right in [("            rate: 5,\n", ""), ("    duratoin: '1s',\n", ""), ("'p(95'", "'rate<2'")]:
        text = text.replace(wrong, right)
    unknown = run(text.replace("checks:", "nothing:"))
    assert re.search(r"script\.js:11: thresholds: there is no metric 'nothing'", unknown.err), unknown
    made = run("const make = () => ({ vus: 'many' });\n\nexport const options = make();\n" + EMPTY)
    assert re.search(r"script\.js:3: vus: 'many'", made.err), made
    elsewhere = run("const options = {};\nconst other = { vus: 'many' };\nexport { other as options };\n" + EMPTY)
    assert re.search(r"options of \S+script\.js: vus: 'many' is no whole number", elsewhere.err), elsewhere


# Flags and variables.


def test_flags_of_k6_are_taken_and_those_without_effect_told():
    flags = ["-a", "localhost:6565", "--no-usage-report", "--no-vu-connection-reuse", "-v", "--batch", "5",
             "--http-debug=full", "--include-system-env-vars", "-w", "--rps", "0", "--paused=false", "--quiet=false", "--dns", "ttl=0"]
    done = run(EMPTY, *flags)
    assert done.code == 0, done
    for name in ("address", "no-vu-connection-reuse", "batch", "http-debug", "dns"):
        assert len(re.findall(rf"^WARN --{name} has no effect here: .+", done.err, re.MULTILINE)) == 1, (name, done)
    assert done.err.count("WARN") == 5 and "scenarios: (100.00%)" in done.out, done
    variable = run(EMPTY, environment={**os.environ, "K6_ADDRESS": "localhost:6565", "K6_QUIET": "true"})
    assert "the environment's address has no effect here" in variable.err, variable
    assert "scenarios: (100" not in variable.out, variable


@pytest.mark.parametrize("flags, words", [
    (["--rps", "many"], "--rps many: expected a whole number"), (["-p"], "--paused: there is no REST API"),
    (["--quiet=maybe"], "expected true or false"), (["--log-format", "xml"], "expected text, raw or json"),
    (["--log-output", "loki=http://x"], "standard error can send it to Loki"),
    (["--log-output", "file=/nowhere/x"], "/nowhere/x"),
    (["--execution-segment", "x"], "executionSegment 'x'"),
])
def test_flags_that_cannot_be_say_why(flags, words):
    done = run(EMPTY, *flags)
    assert done.code == 104 and words in done.err, done


LOGS = "export default function () { console.log('said', 1); console.debug('more'); console.warn('less'); }\n"


def test_logs_go_where_and_as_they_are_asked_to(tmp_path):
    plain = run(LOGS)
    assert "INFO said 1\n" in plain.err and "WARN less\n" in plain.err and "more" not in plain.err, plain
    assert "DEBU more\n" in run(LOGS, "-v").err
    lines = [json.loads(line) for line in run(LOGS, "--log-format", "json").err.splitlines()]
    assert [(line["level"], line["msg"], line["source"]) for line in lines] == [
        ("info", "said 1", "console"), ("warning", "less", "console")]
    console, log = tmp_path / "console.txt", tmp_path / "log.txt"
    both = run(
        LOGS, "--console-output", console, "--log-output", f"file={log},level=debug", "--log-format=raw", "-a", "x")
    assert console.read_text() == "said 1\nmore\nless\n" and both.err == "", both
    assert "--address has no effect here" in log.read_text()
    none = run(LOGS, environment={**os.environ, "K6_LOG_OUTPUT": "none"})
    assert none.err == "" and none.code == 0, none


def test_a_script_comes_from_standard_input(server):
    text = ("import memcached from 'k6/x/memcached';\nexport const options = { iterations: 3 };\n"
            "export default async function () { await memcached.get(__ENV.KEY); }")
    line = [command(), "run", "-", "--server", f"127.0.0.1:{server.port}", "-e", "KEY=k"]
    done = subprocess.run(line, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and re.search(r"memcached_reqs\.*: 3 ", done.stdout), done
    wrong = subprocess.run(
        line, input="\nthrow new Error('here');", capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 107 and re.search(r"-:2", wrong.stderr), wrong


def test_the_environment_is_seen_unless_it_is_not_to_be():
    text = "export default function () { console.log(`HOME ${__ENV.HOME} ${__ENV.OWN}`); }"
    environment = {**os.environ, "HOME": "/some/where"}
    assert "HOME /some/where yes" in run(text, "-e", "OWN=yes", environment=environment).err
    assert "HOME undefined yes" in run(
        text, "-e", "OWN=yes", "--include-system-env-vars=false", environment=environment).err


def test_a_value_that_is_no_number_throws_when_it_is_to():
    text = ("import { Trend } from 'k6/metrics';\nconst t = new Trend('t');\n"
            "export default function () { t.add('x'); console.log('AFTER'); }")
    told, thrown = run(text), run(text, "--throw")
    assert "AFTER" in told.err and "WARN t.add: the value is no number" in told.err, told
    assert "AFTER" not in thrown.err and "t.add: the value is no number" in thrown.err, thrown


@pytest.mark.parametrize("environment, is_colored", [
    ({}, True), ({"NO_COLOR": "1"}, False), ({"K6_NO_COLOR": "true"}, False),
])
def test_colours_are_for_terminals_that_want_them(tmp_path, environment, is_colored):
    path = tmp_path / "s.js"
    path.write_text(EMPTY)
    controller, terminal = pty.openpty()
    base = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [command(), "run", str(path), "-q"], stdout=terminal, stderr=subprocess.DEVNULL, env={**base, **environment})
    os.close(terminal)
    shown = b""
    try:
        while True:
            try:
                more = os.read(controller, 4096)
            except OSError:
                break
            if not more:
                break
            shown += more
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(controller)
    assert b"TOTAL RESULTS" in shown and (b"\x1b[1m" in shown) == is_colored, shown


# Scripts.


CAPPED = """import memcached from 'k6/x/memcached';
import exec from 'k6/execution';
%s
export const options = { vus: 20, duration: '2s', %s };
export default async function () { await memcached.get(`k${exec.scenario.iterationInTest}`); %s }
"""


@pytest.mark.parametrize("head, option, tail, arguments", [
    ("", "rps: 100", "", []), ("", "rps: 7", "", ["--rps", "100"]),
    ("const client = new memcached.Client({ shared: false });", "rps: 100", "await client.get('own');", ["--threads", "2"]),
    # Scripts that sleep have a thread each.
    ("import { sleep } from 'k6';", "rps: 100", "memcached.get('asleep'); sleep(0.01);", []),
], ids=["option", "flag", "own connections", "asleep"])
def test_requests_a_second_may_be_capped(head, option, tail, arguments):
    times = []

    def reply(*_):
        times.append(time.monotonic())
        return b"END\r\n"

    with Stub(reply) as stub:
        done = run(CAPPED % (head, option, tail), "--server", stub.address, *arguments, punctual=True)
    assert done.code == 0, done
    # At the end twenty users go on with what they have begun: up to two requests each.
    assert 196 <= done.figure("memcached_reqs", "count") <= 242, done
    gaps = sorted(after - before for before, after in zip(times, times[1:]))
    assert abs(gaps[len(gaps) // 2] - 0.01) < 0.002 and gaps[-1] < 0.1, gaps
    # As in k6, a request's time does not begin before the cap lets it go.
    assert done.figure("memcached_req_duration", "med") < 8, done


def test_a_cap_holds_for_setup_and_for_parts_of_a_test():
    times = []

    def reply(*_):
        times.append(time.monotonic())
        return b"END\r\n"

    with Stub(reply) as stub:
        done = run(
            "import memcached from 'k6/x/memcached';\nexport const options = { rps: 50, vus: 2, iterations: 2 };\n"
            "export async function setup() { await Promise.all([...Array(21).keys()].map(i => memcached.get(`s${i}`))); }\n"
            "export default function () {}", "--server", stub.address, punctual=True)
        assert done.code == 0 and abs(times[-1] - times[0] - 0.4) < 0.05, (done, times)
        times.clear()
        part = run(CAPPED % ("", "rps: 100", ""), "--server", stub.address, "--execution-segment", "0:1/2")
    # Half of a test makes half of its requests.
    assert part.code == 0 and 98 <= part.figure("memcached_reqs", "count") <= 115, part


def test_a_cap_is_not_for_workloads(server):
    done = Run("--server", f"127.0.0.1:{server.port}", file="{vus: 2, duration: 1s, rps: 5, workload: {}}")
    assert done.code == 104 and "rps: a cap is for scripts; scenario default has a workload" in done.err, done
    free = Run("--server", f"127.0.0.1:{server.port}", file="{vus: 2, duration: 1s, rps: 0, workload: {}}")
    assert free.code == 0, free


def test_typescript_is_refused_by_its_name(tmp_path):
    (tmp_path / "types.ts").write_text("export const one: number = 1;\n")
    main = Run("run", tmp_path / "types.ts")
    assert main.code == 104 and "types.ts: TypeScript is not supported; give its JavaScript" in main.err, main
    imported = Run(file="\nimport { one } from './types.ts';\n" + EMPTY, name="s.js", cwd=tmp_path)
    assert imported.code == 107, imported
    assert "s.js:2: the module './types.ts' is TypeScript, which is not supported" in imported.err, imported


def test_scripts_that_sleep_have_a_limit_of_users():
    done = run("import { sleep } from 'k6';\nexport const options = { vus: 2049, duration: '1s' };\n"
               "export default function () { sleep(1); }")
    assert done.code == 104 and "at most 2048, not 2049. Await a timer of k6/timers instead" in done.err, done


def test_metadata_of_a_user_is_with_its_samples(server, tmp_path):
    path = tmp_path / "out.json"
    text = """import memcached from 'k6/x/memcached';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';
const counter = new Counter('mine');
export default async function () {
    exec.vu.metrics.metadata.trace = 'abc';
    await memcached.get('k');
    counter.add(1);
    delete exec.vu.metrics.metadata.trace;
    counter.add(2);
}"""
    done = run(text, "--server", f"127.0.0.1:{server.port}", "-o", f"json={path}")
    assert done.code == 0, done
    points = [json.loads(line) for line in path.read_text().splitlines() if '"Point"' in line]
    metadata = {(point["metric"], point["data"]["value"]): point["data"].get("metadata") for point in points}
    assert metadata["mine", 1] == {"trace": "abc"} and metadata["mine", 2] is None
    assert metadata["memcached_reqs", 1] == {"trace": "abc"}
    assert all("trace" not in point["data"]["tags"] for point in points)


def test_flags_of_values_are_sent_whole_or_refused():
    asked = []

    def reply(words, _):
        asked.append(words)
        return b"STORED\r\n"

    text = """import memcached from 'k6/x/memcached';
export default async function () {
    await memcached.set('a', 'v', { flags: 4294967295 });
    await memcached.cas('b', 'v', 9007199254740993n, { ttl: 60, flags: 7 });
    await memcached.set('c', 'v', { flags: 4294967296 }).catch(error => console.log(`REFUSED ${error.message}`));
}"""
    with Stub(reply) as stub:
        done = run(text, "--server", stub.address)
    assert done.code == 0 and "REFUSED flags are 0 to 4294967295, not 4294967296" in done.err, done
    assert [words[:6] for words in asked] == [
        ["set", "a", "4294967295", "0", "1"], ["cas", "b", "7", "60", "1", "9007199254740993"]]
