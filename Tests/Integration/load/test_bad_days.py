# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Servers that refuse, close, or answer nonsense; options that are wrong; Ctrl-C: words and exit codes, never a hang."""

import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from bed import free_port

from .runner import Run, command, interrupt

pytestmark = pytest.mark.ours

PLAIN = "{vus: 3, duration: 1s, workload: {operations: {get: 1}, keys: 10}}"


def lines(connection):
    """The lines that arrive, until the connection ends in whatever way."""
    try:
        yield from connection.makefile("rb")
    except OSError:
        pass


@pytest.fixture
def liar():
    """A server that answers each line by `reply(number)`; None closes the connection."""
    sockets = []

    def start(reply):
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def serve(connection):
            with connection:
                for number, _ in enumerate(lines(connection)):
                    answer = reply(number)
                    if answer is None:
                        return
                    try:
                        connection.sendall(answer)
                    except OSError:
                        return

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for one in sockets:
        one.close()


def test_nobody_listens():
    run = Run("--server", f"127.0.0.1:{free_port()}", file=PLAIN)
    assert run.code == 102
    assert "Connection refused" in run.err


def test_no_such_host():
    run = Run("--server", "no.such.host.invalid:11211", file=PLAIN)
    assert run.code == 104
    assert "no.such.host.invalid" in run.err


def test_the_server_closes(liar):
    run = Run("--server", liar(lambda number: b"END\r\n" if number < 20 else None), file=PLAIN)
    assert run.code == 0, run
    assert "the server closed the connection" in run.err
    assert run.metrics["memcached_req_failed"]["passes"] > 0
    assert run.metrics["memcached_req_failed"]["fails"] >= 20


@pytest.mark.parametrize(
    "answer, words",
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "nonsense: 'HTTP/1.1 400 Bad Request' in answer to get"),
        (b"STORED\r\n", "nonsense: stored in answer to get"),
        (b"END\r\nEND\r\n", "an answer without a request"),
        (b"VALUE k 0 x\r\n", "not memcached's protocol: a number that is none"),
        (b"VALUE k 0 3\r\nabcdefgh\r\nEND\r\n", "not memcached's protocol: a value that does not end where it says"),
        (b"VALUE k 0 99999999999\r\n", "not memcached's protocol: a value of more than"),
        (b"x" * 70_000, "not memcached's protocol: a line of more than"),
    ],
)
def test_nonsense_is_told_and_counted(liar, answer, words):
    run = Run("--server", liar(lambda number: answer), file=PLAIN)
    assert run.code == 0, run
    assert words in run.err
    # An answer too many fails no request: the connection goes all the same.
    assert run.metrics["memcached_req_failed"]["value"] > 0 or answer == b"END\r\nEND\r\n"


def test_refusals_are_failures_and_sheds_are_counted(liar):
    answers = [b"SERVER_ERROR busy\r\n", b"SERVER_ERROR out of memory\r\n", b"END\r\n", b"END\r\n"]
    run = Run(
        "--server", liar(lambda number: answers[number % 4]),
        file="{vus: 2, iterations: 400, workload: {operations: {get: 1}}, "
        "thresholds: {memcached_req_failed: ['rate<0.1'], memcached_sheds: ['count>50']}}")
    assert run.code == 99, run
    assert run.metrics["memcached_reqs"]["count"] == 400
    # Each of the two connections has its own turn of answers.
    assert abs(run.metrics["memcached_req_failed"]["passes"] - 200) <= 2
    assert abs(run.metrics["memcached_sheds"]["count"] - 100) <= 2
    assert run.metrics["memcached_req_failed"]["thresholds"] == {"rate<0.1": True}
    assert run.metrics["memcached_sheds"]["thresholds"] == {"count>50": False}
    assert "get: SERVER_ERROR out of memory (" in run.err


def test_a_server_that_never_answers_costs_the_grace_and_no_more(liar):
    began = time.monotonic()
    run = Run(
        "--server", liar(lambda number: b""),
        file="scenarios: {a: {executor: constant-vus, vus: 2, duration: 1s, gracefulStop: 1s, workload: {}}}")
    assert run.code == 0, run
    assert 1.9 < time.monotonic() - began < 8
    assert "0 complete and 2 interrupted iterations" in run.out


@pytest.mark.parametrize(
    "text, words",
    [
        ("vus: [", "not valid YAML"),
        ("{vus: 3, duratoin: 5s, workload: {}}", "did you mean duration?"),
        ("{vus: 3, duration: 5s}", "has no workload"),
        ("{vus: 3, duration: 5s, workload: {}, thresholds: {nothing: ['avg<1']}}", "there is no metric 'nothing'"),
        ("{vus: 3, duration: 5s, workload: {}, thresholds: {iterations: ['avg<1']}}", "iterations is a counter"),
        ("{vus: 3, iterations: 2, workload: {}}", "fewer than the 3 VUs"),
    ],
)
def test_options_that_are_wrong(text, words):
    run = Run(file=text)
    assert run.code == 104, run
    assert words in run.err


def test_wrong_options_have_their_lines():
    run = Run(
        name="wrong.yaml", file="vus: 3\nduration: soon\nscenarios:\n  one:\n    executor: constant-vus\n    duration: 1s\n"
        "    workload:\n      operations: {get: 1, gte: 2}\n      keyDistribution: zipf\n      ttl: 1500ms\n"
        "thresholds:\n  iterations:\n    - 'count>0'\n    - 'count>>0'\nnoise: 1\n")
    assert run.code == 104, run
    for line, words in [
        (2, "duration: 'soon' is no duration"), (8, "gte: there is no such operation"),
        (9, "workload.keyDistribution"), (10, "'1500ms' is no number of whole seconds"), (14, "threshold 'count>>0'"),
        (15, "noise: there is no such option"),
    ]:
        assert any(f"wrong.yaml:{line}: " in one and words in one for one in run.err.splitlines()), (line, words, run)


def test_a_trace_that_is_wrong_has_its_line(tmp_path):
    trace = tmp_path / "trace.csv"
    text = "{scenarios: {a: {executor: trace-replay, preAllocatedVUs: 1, workload: {trace: %s}}}}" % trace
    for rows, words in [
        ("time,key,size,operation\n0,a,5,get\n0.5,b,x,get\n", "trace.csv:3:"), ("0,a,5,gte\n", "trace.csv:1:"),
        ("0,a b,5,get\n", "trace.csv:1:"), ("", "trace.csv"),
    ]:
        trace.write_text(rows)
        run = Run(file=text)
        assert run.code == 104 and words in run.err, (rows, run)


SCRIPT = """import memcached from 'k6/x/memcached';
import { check } from 'k6';
const client = new memcached.Client({ timeout: '500ms', shared: %s });
export const options = { vus: 3, iterations: 30 };
export default async function () {
    try { await client.get('k'); check(true, { told: () => false }); } catch (error) {
        check(error, { told: one => one instanceof Error && one.message.startsWith('get: ') });
    }
}
"""


@pytest.mark.parametrize("answer, words", [
    (None, "the server closed the connection"), (b"", "no answer within 500ms"),
    (b"HTTP/1.1 400 Bad Request\r\n", "nonsense: 'HTTP/1.1 400 Bad Request' in answer to get"),
    (b"VALUE k 0 3\r\nabcdefgh\r\nEND\r\n", "not memcached's protocol"), (b"x" * 70_000, "not memcached's protocol"),
    (b"VALUE other 0 1\r\nx\r\nEND\r\n", "the value of another key, 'other'"), (b"SERVER_ERROR busy\r\n", ""),
], ids=["closes", "stalls", "HTTP", "long value", "long line", "another key", "refuses"])
@pytest.mark.parametrize("shared", ["true", "false"])
def test_a_script_is_told_what_its_server_does(liar, answer, words, shared):
    began = time.monotonic()
    run = Run("--server", liar(lambda number: answer), file=SCRIPT % shared, name="s.js")
    assert run.code == 0, run
    assert run.root["checks"]["told"] == {**run.root["checks"]["told"], "passes": 30, "fails": 0}, run
    assert words in run.err and run.metrics["memcached_req_failed"]["passes"] == 30, run
    assert run.metrics["iterations"]["count"] == 30
    assert time.monotonic() - began < 25


EXECUTORS = {
    "shared-iterations": "vus: 2, iterations: 1000000000, maxDuration: 60s", "per-vu-iterations": "vus: 2, iterations: 1000000000, maxDuration: 60s",
    "constant-vus": "vus: 2, duration: 60s", "ramping-vus": "startVUs: 2, stages: [{duration: 60s, target: 3}]",
    "constant-arrival-rate": "rate: 100, duration: 60s, preAllocatedVUs: 2",
    "ramping-arrival-rate": "startRate: 100, stages: [{duration: 60s, target: 200}], preAllocatedVUs: 2",
}


@pytest.mark.parametrize("kind", ["workload", "script"])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_ctrl_c_ends_every_executor_with_its_summary(server, tmp_path, executor, kind):
    (tmp_path / "options.yaml").write_text(
        "{scenarios: {one: {executor: %s, %s}}, thresholds: {iterations: ['count>20']}%s}"
        % (executor, EXECUTORS[executor], ", workload: {operations: {get: 1}}" if kind == "workload" else ""))
    (tmp_path / "s.js").write_text(
        "import memcached from 'k6/x/memcached';\nexport default async function () { await memcached.get('k'); }\n"
        "export function teardown() { console.log('TORN DOWN'); }\n")
    path = ["options.yaml"] if kind == "workload" else ["s.js", "--config", "options.yaml"]
    process = subprocess.Popen(
        [command(), "run", *path, "--server", f"127.0.0.1:{server.port}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, cwd=tmp_path)
    time.sleep(1.2)
    out = interrupt(process)
    assert process.returncode == 105, out
    assert "TOTAL RESULTS" in out and "✓ 'count>20'" in out and ("TORN DOWN" in out) == (kind == "script"), out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run"], "expected one script or scenario file"),
        (["rnu", "x"], "there is no such command"),
        (["run", "x.yaml", "--vsu", "3"], "did you mean --vus?"),
        (["run", "/no/such/file.yaml"], "No such file"),
        (["run", "x.yaml", "-d", "soon"], "expected a duration"),
    ],
)
def test_command_lines_that_are_wrong(arguments, words):
    run = Run(*arguments)
    assert run.code == 104, run
    assert words in run.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(server, tmp_path, number):
    path = tmp_path / "long.yaml"
    path.write_text("{vus: 3, duration: 60s, workload: {}}")
    process = subprocess.Popen(
        [command(), "run", str(path), "--server", f"127.0.0.1:{server.port}"], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)
    time.sleep(1.5)
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 105, out
    assert "TOTAL RESULTS" in out and "iterations" in out


def test_a_threshold_can_end_it(server):
    began = time.monotonic()
    run = Run(
        "--server", f"127.0.0.1:{server.port}",
        file="{vus: 2, duration: 60s, workload: {operations: {get: 1}}, "
        "thresholds: {memcached_hits: [{threshold: 'rate>0.5', abortOnFail: true, delayAbortEval: 1s}]}}")
    assert run.code == 99, run
    assert time.monotonic() - began < 15
    assert "was crossed; the test ends" in run.err


def test_places_override_each_other_as_in_k6(server, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("{vus: 7, duration: 50s}")
    environment = dict(os.environ, K6_ITERATIONS="40", K6_VUS="4", MARTLET_LOAD_VUS="2")
    run = Run(
        "--server", f"127.0.0.1:{server.port}", "-c", config, environment=environment,
        file="{vus: 9, duration: 40s, workload: {}}")
    assert "40 iterations shared among 2 VUs" in run.out, run
    assert run.metrics["iterations"]["count"] == 40
    flags = Run(
        "--server", f"127.0.0.1:{server.port}", "-c", config, "-i", 30, "-u", 3, environment=environment,
        file="{vus: 9, duration: 40s, workload: {}}")
    assert "30 iterations shared among 3 VUs" in flags.out, flags
