# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What martlet-load reports is what happened: against servers whose answers take a time that is known beforehand.

Other work on the machine makes both sides late, so a figure has three chances to be right; a runner that is wrong, is
wrong each time.
"""

import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bed import default_command, free_port

from .runner import Run as AnyRun, command, first_in_line

pytestmark = [pytest.mark.ours, pytest.mark.alone]

def Run(*arguments, **options):
    return AnyRun(*arguments, punctual=True, **options)


SOURCE = Path(__file__).with_name("truth.c")
ROOT = Path(__file__).resolve().parents[3]
CHANCES = 3


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    program = tmp_path_factory.mktemp("truth") / "truth"
    subprocess.run(["gcc", "-O2", "-o", program, SOURCE, "-lm"], check=True)
    running = []

    def start(*arguments):
        port = free_port()
        running.append(subprocess.Popen([program, str(port), *map(str, arguments)], preexec_fn=first_in_line))
        time.sleep(0.2)
        return f"127.0.0.1:{port}"

    yield start
    for process in running:
        process.kill()
        process.wait()


def within(measure, expected, tolerance):
    """Whether each figure that `measure` gives is near what is expected, in one of several chances."""
    seen = []
    for _ in range(CHANCES):
        got = measure()
        seen.append(got)
        if all(abs(got[name] / expected[name] - 1) <= tolerance for name in expected):
            return
    pytest.fail(f"expected {expected} within {tolerance:.1%}, got {seen}")


def open_loop(rate, duration, users, pipeline, arrival="even"):
    return f"""
scenarios:
  arrivals:
    executor: constant-arrival-rate
    rate: {rate}
    duration: {duration}s
    preAllocatedVUs: {users}
    arrival: {arrival}
    workload: {{operations: {{get: 1}}, keys: 1000, pipeline: {pipeline}}}
summaryTrendStats: [med, 'p(95)', 'p(99)', 'p(99.9)', avg, max]
"""


def test_open_loop_latency_counts_the_stalls(truth):
    """A tenth of the time nothing is answered: of all requests, 1% wait 90 ms and more, and 0.1% 99 ms."""
    server = truth("stall", 1_000_000, 100_000)
    dropped = []

    def measure():
        run = Run("--server", server, file=open_loop(2000, 6, 20, 32))
        assert run.code == 0, run
        dropped.append(run.metrics.get("dropped_iterations", {}).get("count", 0))
        return run.metrics["memcached_req_duration"]

    within(measure, {"p(95)": 50, "p(99)": 90, "p(99.9)": 99}, 0.02)
    assert dropped[-1] == 0


def test_a_closed_loop_omits_them(truth):
    """The same server, one request at a time: the stall is seen once a second, and hides among the fast answers."""
    server = truth("stall", 1_000_000, 100_000)
    run = Run(
        "--server", server,
        file="{vus: 1, duration: 3s, summaryTrendStats: ['p(95)', 'p(99)', max], workload: {operations: {get: 1}}}")
    assert run.code == 0, run
    assert run.figure("memcached_req_duration", "p(99)") < 20
    assert run.figure("memcached_req_duration", "max") > 80


def test_service_time_is_told_apart(truth):
    """A user that may have one request under way waits for it: the wait is latency and not service."""
    server = truth("exponential", 4000, 7)
    text = open_loop(200, 5, 1, 1).replace("arrival: even", "busy: wait")
    run = Run("--server", server, file=text)
    assert run.code == 0, run
    waiting, service = (run.figure(f"memcached_req_{name}", "avg") for name in ("duration", "service"))
    assert abs(service / 4 - 1) < 0.25, run
    assert waiting > service * 1.2, run


def test_exponential_service_gives_the_quantiles_of_theory(truth):
    """M/M/1 queues at half load: sojourn times are exponential, with a mean of 16 ms.

    Long services, and many queues: a busy machine is late by some 0.15 ms, which must be little beside them.
    """
    service, queues = 8, 128
    server = truth("exponential", service * 1000, 3)
    scenarios = "\n".join(
        f"  q{index}: {{executor: constant-arrival-rate, rate: {1000 // service}, timeUnit: 2s, duration: 16s, "
        f"preAllocatedVUs: 1, arrival: poisson, workload: {{operations: {{get: 1}}, pipeline: 2000}}}}"
        for index in range(queues)
    )
    text = f"seed: 20\nthreads: 1\nscenarios:\n{scenarios}\nsummaryTrendStats: [med, 'p(90)', 'p(99)', avg]\n"

    def measure():
        run = Run("--server", server, file=text)
        assert run.code == 0, run
        assert "dropped_iterations" not in run.metrics
        return run.metrics["memcached_req_duration"]

    mean = 2 * service
    within(measure, {"med": mean * math.log(2), "p(90)": mean * math.log(10), "p(99)": mean * math.log(100)}, 0.03)


@pytest.mark.parametrize("arrival", ["even", "poisson"])
def test_the_rate_is_held(truth, arrival):
    server = truth("stall", 1_000_000, 0)
    rate, seconds = 20_000, 4

    def measure():
        run = Run("--server", server, "--seed", 5, file=open_loop(rate, seconds, 20, 64, arrival))
        assert run.code == 0, run
        made, dropped = run.figure("iterations", "count"), run.metrics.get("dropped_iterations", {"count": 0})["count"]
        # Of a Poisson process the number itself is random: 80,000 give or take 283, of which none may be left out.
        assert abs(made + dropped - rate * seconds) < (40 if arrival == "even" else 4 * 283)
        return {"count": made * rate * seconds / (made + dropped), "rate": run.figure("iterations", "rate")}

    expected = {"count": rate * seconds}
    within(measure, {**expected, "rate": rate} if arrival == "even" else expected, 0.005)


def test_another_load_generator_says_the_same():
    """mcload and ours at once, at the same rate, against a server that stalls: within a twentieth of each other."""
    if shutil.which("cc") is None:
        pytest.skip("no compiler")
    said = []
    for _ in range(CHANCES):
        done = subprocess.run(
            [sys.executable, ROOT / "Benchmarks/load", "agree", "--seconds", "6", "--load", command(), "--server",
             default_command().split()[0]], capture_output=True, text=True, timeout=120, check=False,
            preexec_fn=first_in_line)
        said.append(done.stdout + done.stderr)
        if done.returncode == 0:
            assert said[-1].count("apart") == 3, said
            return
    pytest.fail("\n".join(said))


def test_ramps_follow_their_area(truth):
    server = truth("stall", 1_000_000, 0)
    text = """
scenarios:
  ramp:
    executor: ramping-arrival-rate
    startRate: 0
    stages: [{duration: 2s, target: 4000}, {duration: 1s, target: 4000}, {duration: 1s, target: 0}]
    preAllocatedVUs: 20
    workload: {operations: {get: 1}, pipeline: 32}
"""
    within(lambda: Run("--server", server, file=text).metrics["iterations"], {"count": 10_000}, 0.005)
