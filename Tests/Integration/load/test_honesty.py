# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Workloads against servers that hang, die or mix up their answers: all of it is in the figures, and the run ends."""

import subprocess
import threading
import time

import pytest

from .runner import Run, command, interrupt
from .stub import CLOSE, DIE, Stub

pytestmark = [pytest.mark.ours, pytest.mark.alone]


@pytest.mark.parametrize(
    "executor",
    [
        "constant-vus, vus: 1, duration: 1s",
        "per-vu-iterations, vus: 3, iterations: 100",
        "constant-arrival-rate, rate: 200, duration: 1s, preAllocatedVUs: 1, maxVUs: 4",
    ],
)
def test_keys_are_stored_before_the_start(server, executor):
    """Also where a thread has no user, as the second one here."""
    run = Run(
        "--server", f"127.0.0.1:{server.port}", "--threads", 2,
        file="{scenarios: {a: {executor: %s, workload: {operations: {get: 1}, keys: 500, keyPrefix: '%s', "
        "preload: true}}}, thresholds: {memcached_hits: ['rate==1'], memcached_reqs: ['count>50']}}"
        % (executor, executor[:5]))
    assert run.code == 0, run


@pytest.mark.parametrize(
    "answer, words", [
        (b"", "preload: no answer for 10s"), (CLOSE, "ERRO the "), (b"SERVER_ERROR busy\r\n", "preload: refused for 10s")])
def test_keys_that_cannot_be_stored_end_it(answer, words):
    began = time.monotonic()
    with Stub(lambda *_: answer) as stub:
        run = Run("--server", stub.address, file="{vus: 2, duration: 1s, workload: {keys: 500, preload: true}}")
    assert run.code == 102, run
    assert words in run.err
    assert time.monotonic() - began < 30


def test_keys_that_are_refused_at_first_are_stored_all_the_same():
    """A server that has too much to do for two of three requests."""
    asked, stored = [], set()

    def reply(words, value):
        if value is None:
            return b"VALUE %s 0 1\r\nx\r\nEND\r\n" % words[1].encode() if words[1] in stored else b"END\r\n"
        asked.append(1)
        if len(asked) % 3:
            return b"SERVER_ERROR 307 busy\r\n"
        stored.add(words[1])
        return b"STORED\r\n"

    with Stub(reply) as stub:
        run = Run(
            "--server", stub.address, file="{vus: 3, iterations: 300, workload: {operations: {get: 1}, keys: 200, preload: true}, "
            "thresholds: {memcached_hits: ['rate==1']}}")
    assert run.code == 0 and len(stored) == 200, run


def test_an_outage_is_in_the_figures():
    """A rate of 100 for 2 s by one user, and a server that hangs from 0.5 s on."""
    hangs = threading.Event()
    threading.Timer(30, hangs.set).start()
    begin = []

    def reply(*_):
        begin.append(time.monotonic())
        if time.monotonic() - begin[0] > 0.5:
            hangs.wait()
        return b"END\r\n"

    with Stub(reply) as stub:
        run = Run(
            "--server", stub.address,
            file="{scenarios: {a: {executor: constant-arrival-rate, rate: 100, duration: 2s, preAllocatedVUs: 1, "
            "gracefulStop: 1s, workload: {operations: {get: 1}}}}, "
            "thresholds: {dropped_iterations: ['count==0'], memcached_req_failed: ['rate==0']}}")
        hangs.set()
    assert run.code == 99, run
    dropped, made = run.figure("dropped_iterations", "count"), run.figure("iterations", "count")
    # The one that hung was interrupted; every other arrival was served or dropped.
    assert dropped + made == 199 and dropped > 100, run
    assert run.figure("memcached_req_failed", "passes") == 1
    assert run.figure("memcached_req_duration", "max") > 1000


def test_iterations_end_when_the_server_dies():
    served = []

    def reply(*_):
        served.append(1)
        return DIE if len(served) > 50 else b"END\r\n"

    began = time.monotonic()
    with Stub(reply) as stub:
        run = Run("--server", stub.address, file="{vus: 2, iterations: 200, workload: {operations: {get: 1}}}")
    assert run.code == 0, run
    assert run.figure("iterations", "count") == 200
    assert run.figure("memcached_req_failed", "passes") >= 150
    assert time.monotonic() - began < 30


def test_time_ends_when_the_server_dies():
    began = time.monotonic()
    with Stub(lambda *_: DIE) as stub:
        run = Run("--server", stub.address, file="{vus: 3, duration: 1s, workload: {operations: {get: 1}}}")
    assert run.code == 0, run
    assert run.figure("memcached_req_failed", "value") == 1
    assert time.monotonic() - began < 15


def test_values_of_other_keys_are_seen():
    """A server that answers a get of one key with another's whole and valid item."""
    items = {}

    def reply(words, value):
        if value is not None:
            items[words[1]] = value
            return b"STORED\r\n"
        other = [key for key in items if key != words[1]]
        return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (other[0].encode(), len(items[other[0]]), items[other[0]])

    for operation in ("get", "mget"):
        with Stub(reply) as stub:
            run = Run(
                "--server", stub.address,
                file="{vus: 1, iterations: 10, workload: {operations: {%s: 1}, keys: 2, keysPerGet: 1, preload: true, "
                "verify: true}}" % operation)
        assert run.figure("memcached_wrong_values", "count") == 10, run
        assert "wrong key value" in run.err


def test_a_stale_value_among_several_is_seen():
    """A server that shows the first value of each key for ever, to a reader of several keys at once."""
    first = {}

    def reply(words, value):
        if value is not None:
            first.setdefault(words[1], value)
            return b"STORED\r\n"
        found = [(key.encode(), first[key]) for key in dict.fromkeys(words[1:]) if key in first]
        return b"".join(b"VALUE %s 0 %d\r\n%s\r\n" % (key, len(data), data) for key, data in found) + b"END\r\n"

    with Stub(reply) as stub:
        run = Run(
            "--server", stub.address, "--seed", 7,
            file="{vus: 1, iterations: 200, workload: {operations: {mget: 0.5, set: 0.5}, keys: 3, keysPerGet: 3, "
            "preload: true, verify: true}}")
    assert run.code == 0, run
    # Of about a hundred requests, more values than one of each.
    assert run.figure("memcached_wrong_values", "count") > 120 and "stale value" in run.err, run


def test_verified_scenarios_on_the_same_keys_do_not_accuse_each_other(server):
    one = (
        "{executor: constant-vus, vus: 2, duration: 1s, "
        "workload: {operations: {get: 0.5, set: 0.5}, keys: 5, verify: true}}")
    run = Run(
        "--server", f"127.0.0.1:{server.port}", "--threads", 1,
        file="{scenarios: {base: %s, spike: %s}, thresholds: {memcached_wrong_values: ['count==0']}}" % (one, one))
    assert run.code == 0, run


def test_every_operation_in_the_meta_protocol(server):
    operations = ["get", "gets", "set", "add", "replace", "cas", "delete", "incr", "decr", "touch", "gat", "mget"]
    asked = [f"'memcached_reqs{{op:{name}}}': ['count>0']" for name in operations]
    found = {"cas": "stored", "touch": "touched", "gat": "hit", "mget": "hit", "gets": "hit"}
    asked += [f"'memcached_reqs{{op:{name},status:{status}}}': ['count>0']" for name, status in found.items()]
    run = Run(
        "--server", f"127.0.0.1:{server.port}", "--seed", 5,
        file="{vus: 3, iterations: 3000, workload: {operations: {%s}, keys: 40, keysPerGet: 5, protocol: meta, ttl: 60s, "
        "pipeline: 4, preload: true, verify: true}, thresholds: {memcached_req_failed: ['rate==0'], "
        "memcached_wrong_values: ['count==0'], %s}}" % (", ".join(f"{name}: 1" for name in operations), ", ".join(asked)))
    assert run.code == 0, run


def test_several_keys_in_the_meta_protocol():
    """Gets that are quiet about misses, and a no-op that ends their answer; each of them may be refused."""
    asked = []

    def serve(answer):
        def reply(words, _):
            asked.append(words)
            return b"MN\r\n" if words[0] == "mn" else answer(words)

        with Stub(reply) as stub:
            return Run("--server", stub.address, file="{vus: 1, iterations: 6, workload: {operations: {mget: 1}, "
                       "keysPerGet: 3, keys: 9, protocol: meta}}")

    missed = serve(lambda words: b"")
    assert missed.figure("memcached_hits", "fails") == 6 and missed.figure("memcached_reqs", "count") == 6, missed
    assert [words[0] for words in asked] == ["mg", "mg", "mg", "mn"] * 6
    assert all(words[2:] == ["v", "q"] for words in asked if words[0] == "mg")
    found = serve(lambda words: b"VA 1\r\nx\r\n")
    assert found.figure("memcached_hits", "passes") == 6, found
    shed = serve(lambda words: b"SERVER_ERROR busy\r\n")
    assert shed.figure("memcached_sheds", "count") == shed.figure("memcached_req_failed", "passes") == 6, shed
    assert "an answer without a request" not in shed.err, shed


def test_a_trace_in_the_meta_protocol_is_verified(server, tmp_path):
    rows = "".join(f"{index / 1000},{'abc'[index % 3]},50,{['set', 'get'][index // 3 % 2]}\n" for index in range(60))
    trace = tmp_path / "trace.csv"
    trace.write_text(rows)
    text = (
        "{scenarios: {a: {executor: trace-replay, preAllocatedVUs: 1, busy: wait, workload: {trace: %s, "
        "protocol: meta, verify: true}}}, thresholds: {memcached_wrong_values: ['count==0'], memcached_hits: ['rate>0.5']}}" % trace)
    run = Run("--server", f"127.0.0.1:{server.port}", file=text)
    assert run.code == 0, run
    trace.write_text(rows + "1,a,5,append\n")
    refused = Run("--server", f"127.0.0.1:{server.port}", file=text)
    assert refused.code == 104 and "append changes values" in refused.err, refused


def test_a_scenario_that_has_not_begun_ends_at_once(server, tmp_path):
    path = tmp_path / "later.yaml"
    path.write_text(
        "scenarios: {a: {executor: constant-vus, vus: 2, duration: 5s, startTime: 10m, workload: {}}}")
    process = subprocess.Popen(
        [command(), "run", str(path), "--server", f"127.0.0.1:{server.port}"], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)
    time.sleep(1)
    out = interrupt(process, 10)
    assert process.returncode == 105 and "left behind" not in out, out


def test_what_time_did_not_suffice_for_is_dropped():
    def reply(*_):
        time.sleep(0.05)
        return b"END\r\n"

    with Stub(reply) as stub:
        run = Run(
            "--server", stub.address,
            file="{vus: 2, iterations: 1000, duration: 500ms, workload: {operations: {get: 1}}, "
            "thresholds: {dropped_iterations: ['count==0']}}")
    assert run.code == 99, run
    assert run.figure("dropped_iterations", "count") + run.figure("iterations", "count") == 1000, run


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-s", "10s:inf"], "expected DURATION:TARGET"),
        (["-s", "10s:1e300"], "expected DURATION:TARGET"),
        (["--threads", 300], "from 1 to 256"),
        (["-d", "10s", "-s", "10s:5"], "duration and stages"),
    ],
)
def test_flags_that_cannot_be(arguments, words):
    run = Run(*arguments, file="workload: {}")
    assert run.code == 104, run
    assert words in run.err
