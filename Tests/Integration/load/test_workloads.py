# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Workloads that others measured, and traces: each preset runs; a trace's rows come when it says, faster, or as fast as it goes."""

import json
import random
import time

import pytest

from .runner import Run
from .stub import Stub

pytestmark = pytest.mark.ours


def test_every_preset_runs(server):
    """Each as a scenario, one behind the other's back, against one server: none fails, all do what they are to."""
    names = Run("presets").out.split()
    assert len(names) == 51 and {"facebook-etc", "twitter-cluster1", "twitter-cluster54"} <= set(names)
    scenarios = {
        name: {"executor": "per-vu-iterations", "vus": 1, "iterations": 150,
               "workload": {"preset": name, "keys": 300, "keyPrefix": f"{number}:", "pipeline": 8}}
        for number, name in enumerate(names)}
    thresholds = {f"memcached_reqs{{scenario:{name}}}": ["count>=150"] for name in names}
    thresholds |= {f"iterations{{scenario:{name}}}": ["count==150"] for name in names}
    done = Run(
        "--server", f"127.0.0.1:{server.port}", "--seed", 11,
        file=json.dumps({"scenarios": scenarios, "thresholds": {**thresholds, "memcached_req_failed": ["rate==0"]}}), name="presets.json")
    assert done.code == 0, done
    assert "WARN" not in done.err, done


def test_a_preset_may_be_changed():
    """What a preset says stands unless the workload says otherwise."""
    seen = set()

    def reply(words, _):
        seen.add((words[0], len(words[1])))
        return b"DELETED\r\n" if words[0] == "delete" else b"END\r\n"

    with Stub(reply) as stub:
        done = Run(
            "--server", stub.address, file="{vus: 1, iterations: 40, workload: {preset: twitter-cluster14, "
            "operations: {get: 0.5, delete: 0.5}, onMiss: nothing}}")
    assert done.code == 0, done
    assert seen == {("get", 96), ("delete", 96)}, seen


ROWS = 240


@pytest.fixture
def trace(tmp_path):
    """Rows at odd times over two seconds, and their times."""
    chance = random.Random(4)
    times = sorted(chance.uniform(0, 2) for _ in range(ROWS))
    times[0] = 0.0
    path = tmp_path / "trace.csv"
    rows = [f"{at + 1000:.6f},row:{number},{number},{'set' if number % 5 == 0 else 'get'}\n" for number, at in enumerate(times)]
    path.write_text("time,key,size,operation\n" + "".join(rows))
    return path, times


def replay(trace, executor):
    """When each row came, from the first on, and the bytes of those that stored something."""
    came, lengths = {}, {}

    def reply(words, value):
        number = int(words[1].removeprefix("row:"))
        came[number] = time.monotonic()
        if value is None:
            return b"END\r\n"
        lengths[number] = len(value)
        return b"STORED\r\n"

    with Stub(reply) as stub:
        done = Run(
            "--server", stub.address, punctual=True,
            file=f"{{scenarios: {{a: {{{executor}, workload: {{trace: {trace}}}}}}}, thresholds: {{memcached_reqs: ['count=={ROWS}']}}}}")
    assert done.code == 0, done
    assert set(came) == set(range(ROWS))
    assert lengths == {number: number for number in range(0, ROWS, 5)}
    return came


@pytest.mark.alone
@pytest.mark.parametrize("speed", [1, 4, 0.5])
def test_a_trace_keeps_its_times(trace, speed):
    path, times = trace
    tries = []
    for _ in range(3):
        came = replay(path, f"executor: trace-replay, speed: {speed}, preAllocatedVUs: 8, busy: wait")
        late = sorted(came[number] - times[number] / speed for number in came)
        off = [one - late[0] for one in late]
        tries.append((off[ROWS // 2], off[ROWS * 95 // 100]))
        # The server here is a thread for each connection, and the machine is shared.
        if tries[-1][0] < 0.005 and tries[-1][1] < 0.02:
            return
    pytest.fail(f"later than the trace says, at the middle and for one of twenty: {tries}")


def test_a_trace_goes_as_fast_as_it_can(trace):
    path, times = trace
    came = replay(path, f"executor: shared-iterations, vus: 4, iterations: {ROWS}")
    assert max(came.values()) - min(came.values()) < 1 < times[-1]
