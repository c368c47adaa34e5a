# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a script's event loop, clock and lifecycle do, as in k6: told by short scripts that are written here."""

import contextlib
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bed import Server

from .runner import Run, command, interrupt
from .stub import Stub

pytestmark = pytest.mark.ours

HEAD = """import memcached from 'k6/x/memcached';
import exec from 'k6/execution';
import { check, fail, group } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { setTimeout, setInterval, clearInterval } from 'k6/timers';
"""


def run(address, text, *arguments, head=HEAD, **options):
    return Run("--server", address, *arguments, file=head + text, name="script.js", **options)


@pytest.fixture
def address(server):
    return f"127.0.0.1:{server.port}"


def test_an_arrival_that_waits_has_waited():
    def reply(*_):
        time.sleep(0.04)
        return b"END\r\n"

    with Stub(reply) as stub:
        done = run(
            stub.address,
            "export const options = { scenarios: { a: { executor: 'constant-arrival-rate', rate: 50, duration: '1s',"
            " preAllocatedVUs: 1, busy: 'wait' } } };\n"
            "export default async function () { await memcached.get('k'); }")
    assert done.code == 0, done
    assert done.figure("memcached_req_duration", "max") > 500, done
    assert done.figure("memcached_req_duration", "avg") > 3 * done.figure("memcached_req_service", "avg"), done


def test_a_request_that_times_out_is_in_the_figures():
    with Stub(lambda *_: b"") as stub:
        done = run(
            stub.address,
            "const client = new memcached.Client({ timeout: '400ms' });\n"
            "export default async function () { try { await client.get('k'); } catch (e) { console.log(e.message); } }")
    assert "no answer within 400ms" in done.err, done
    assert done.figure("memcached_req_duration", "max") >= 400, done
    assert done.figure("memcached_req_failed", "passes") == 1


def test_answers_are_taken_while_a_script_sleeps(address):
    done = run(
        address, "import { sleep } from 'k6';\nexport const options = { iterations: 3 };\n"
        "export default function () { memcached.set('asleep', 'v', 60); sleep(1); }")
    assert done.code == 0, done
    assert done.figure("memcached_reqs", "count") == 3
    assert done.figure("memcached_req_duration", "min") < 700, done


def test_an_iteration_lasts_until_nothing_of_it_is_under_way(address):
    done = run(
        address,
        "export const options = { vus: 1, duration: '1s',"
        " thresholds: { fired: ['count>1'], iterations: ['count<15'] } };\n"
        "const fired = new Counter('fired');\n"
        "export default function () {\n"
        "    const ticks = setInterval(() => fired.add(1), 10);\n"
        "    setTimeout(() => clearInterval(ticks), 100);\n"
        "    memcached.get('k').then(() => memcached.get('k')).then(() => fired.add(1));\n"
        "}")
    assert done.code == 0, done
    assert done.figure("memcached_reqs", "count") == 2 * done.figure("iterations", "count"), done


def test_what_nobody_awaits_and_what_never_settles(address):
    done = run(
        address, "export const options = { iterations: 2 };\n"
        "export default async function () {\n"
        "    if (__ITER === 0) { memcached.get('not a key'); await memcached.get('k'); console.log('not here'); }\n"
        "    await new Promise(() => {});\n}")
    assert done.code == 0, done
    assert "Uncaught (in promise) Error: a key is 1 to 250 bytes" in done.err and "not here" not in done.err, done
    assert done.figure("iterations", "count") == 2


def test_a_client_of_init_code_is_there_in_setup(address):
    done = run(
        address, "const a = new memcached.Client({ pool: 2 }), b = new memcached.Client('127.0.0.1:1');\n"
        "export async function setup() { await a.set('made:in', 'setup', 60); }\n"
        "export default async function () { if (await a.get('made:in') !== 'setup') exec.test.abort('missed'); }")
    assert done.code == 0, done


SHARED = """const client = new memcached.Client({ shared: true, pool: %d });
export const options = { %s thresholds: { checks: ['rate==1'], memcached_wrong_values: ['count==0'] } };
export default async function () {
    const key = `shared:${__VU}`;
    await client.set(key, key, 60);
    check(await client.get(key), { 'is its own': value => value === key });
}"""


@pytest.mark.parametrize("pool", [1, 3])
def test_users_of_a_thread_share_connections(address, pool):
    done = run(
        address, SHARED % (pool, "vus: 10, iterations: 500,"), "--threads", "1", "--summary-trend-stats", "count")
    assert done.code == 0, done
    assert done.figure("memcached_connecting", "count") == pool, done
    assert done.figure("memcached_reqs", "count") == 1000, done


def test_an_arrival_goes_to_whoever_is_free():
    """Twenty users answer for what two could: none of the arrivals finds all of them busy."""
    def reply(*_):
        time.sleep(0.005)
        return b"END\r\n"

    with Stub(reply) as stub:
        done = run(
            stub.address,
            "export const options = { scenarios: { a: { executor: 'constant-arrival-rate', rate: 300, duration: '2s',"
            " preAllocatedVUs: 20, arrival: 'poisson' } } };\n"
            "export default async function () { await memcached.get('k'); }", "--threads", "1")
    assert done.code == 0, done
    dropped = done.metrics.get("dropped_iterations", {"count": 0})["count"]
    assert dropped <= 1, done


def test_users_that_are_cut_off_leave_a_shared_connection_whole():
    """Each answer takes 20 ms, so that a ramp cuts requests off that others' answers come behind."""
    values = {}

    def reply(words, value):
        time.sleep(0.02)
        if words[0] == "set":
            values[words[1]] = value
            return b"STORED\r\n"
        value = values[words[1]]
        return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (words[1].encode(), len(value), value)

    stages = ", ".join(f"{{ duration: '{length}', target: {target} }}" for length, target in [
        ("300ms", 4), ("0s", 1), ("300ms", 1), ("0s", 4), ("300ms", 4)])
    ramp = f"executor: 'ramping-vus', startVUs: 4, gracefulRampDown: '0s', stages: [{stages}]"
    ramp = f"scenarios: {{ a: {{ {ramp} }} }},"
    with Stub(reply) as stub:
        done = run(stub.address, SHARED % (1, ramp), "--threads", "1", "--summary-trend-stats", "count")
    assert done.code == 0, done
    assert re.search(r"[3-9] interrupted iterations\n[^\n]*✓", done.out), done
    assert done.figure("memcached_connecting", "count") == 1, done


def test_many_servers_are_asked_for_what_they_have():
    with Server("-m 64") as one, Server("-m 64") as other:
        done = run(
            f"127.0.0.1:{one.port},127.0.0.1:{other.port}",
            "export const options = { iterations: 1, thresholds: { checks: ['rate==1'] } };\n"
            "export default async function () {\n"
            "    const keys = Array.from({ length: 20 }, (_, index) => `spread:${index}`);\n"
            "    for (const key of keys) await memcached.set(key, key, 60);\n"
            "    const found = await memcached.mget(keys);\n"
            "    check(found, { 'all are found': f => keys.every(key => f[key] === key) });\n"
            "    check(await memcached.flushAll(), { 'all are flushed': done => done });\n"
            "    const left = await memcached.mget(keys);\n"
            "    check(left, { 'nothing is left': l => Object.keys(l).length === 0 });\n"
            "    const refused = await Promise.allSettled([memcached.mget(['a b'])]);\n"
            "    check(refused[0].reason, { 'two words are no key': e => /without spaces|no spaces/.test(e) });\n"
            "}")
    assert done.code == 0, done


def test_numbers_that_cannot_be(address):
    done = run(
        address,
        "const took = new Trend('took', true);\n"
        "export const options = { iterations: 1, thresholds: { checks: ['rate==1'] } };\n"
        "export default async function () {\n"
        "    for (const wrong of [1e300, Infinity, NaN, '60', { ttl: '1h' }]) {\n"
        "        for (const call of [w => memcached.set('k', 'v', w), w => memcached.touch('k', w.ttl || w),\n"
        "            w => memcached.gat('k', w.ttl || w)]) {\n"
        "            const [one] = await Promise.allSettled([call(wrong)]);\n"
        "            check(one, { 'is refused': o => /number of seconds/.test(o.reason) });\n"
        "        }\n"
        "    }\n"
        "    for (const delay of [Infinity, 9e15]) clearInterval(setTimeout(() => {}, delay));\n"
        "    took.add(1e300);\n"
        "}")
    assert done.code == 0, done


def test_each_iteration_and_user_has_a_number_of_its_own(address):
    done = run(
        address,
        "const name = `user:${__VU}`;\n"
        "export const options = { scenarios: { a: { executor: 'per-vu-iterations', vus: 3, iterations: 4 } } };\n"
        "const isMine = () => name === `user:${__VU}`;\n"
        "export default function () { console.log(`row ${exec.scenario.iterationInTest} ${isMine()}`); }")
    rows = sorted(line.split("row ")[1] for line in done.err.splitlines() if "row " in line)
    assert rows == sorted(f"{number} true" for number in range(12)), done


def test_an_interrupted_group_is_left(address):
    """A ramp cuts the first iteration off inside of its group; the ones after it are outside."""
    stages = ", ".join(
        f"{{ duration: '{length}', target: {target} }}"
        for length, target in [("500ms", 1), ("0s", 0), ("300ms", 0), ("0s", 1), ("500ms", 1)])
    done = run(
        address,
        "const later = new Counter('later');\n"
        "export const options = { scenarios: { a: { executor: 'ramping-vus', startVUs: 1, gracefulRampDown: '0s', "
        f"stages: [{stages}] }} }}, "
        "thresholds: { later: ['count>0'], 'later{group:::g}': ['count==0'] } };\n"
        "const wait = time => new Promise(resolve => setTimeout(resolve, time));\n"
        "export default async function () {\n"
        "    if (__ITER === 0) return group('g', () => wait(20000));\n"
        "    await wait(10);\n    later.add(1);\n}")
    assert done.code == 0, done
    assert "1 interrupted" in done.out, done


@pytest.mark.parametrize(
    "text, words",
    [
        ("export function setup() { here(); sleep(50); }", "a signal ended it"),
        ("export function setup() { here(); while (true); }", "a signal ended it"),
        ("export async function teardown() { here(); await new Promise(r => setTimeout(r, 5e4)); }", "a signal ended"),
        ("here(); while (true);", ""),
        ("export const options = { vus: 2, duration: '50s' };\nexport function setup() { here(); }", "TOTAL RESULTS"),
    ],
)
def test_a_signal_ends_a_script(address, tmp_path, text, words):
    path = tmp_path / "slow.js"
    path.write_text(
        "import { sleep } from 'k6';\nconst here = () => console.log('here');\n"
        f"{text}\nexport default function () {{ sleep(0.1); }}")
    process = subprocess.Popen(
        [command(), "run", str(path), "--server", address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while "here" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.5)
    out = interrupt(process)
    assert process.returncode == 105 and words in out, out


def test_a_summary_may_be_large_and_odd(address, tmp_path):
    done = run(
        address,
        "export default function () {}\n"
        "export function handleSummary(data) {\n"
        "    return { [`${__ENV.OUT}/big`]: 'x'.repeat(5e6), [`${__ENV.OUT}/odd`]: 'a\\u007f\\u0085\\ud800b',\n"
        "        [`${__ENV.OUT}/bytes`]: new Uint8Array([0, 255, 10]) };\n}",
        "-e", f"OUT={tmp_path}")
    assert done.code == 0, done
    assert (tmp_path / "big").stat().st_size == 5_000_000
    assert (tmp_path / "odd").read_text() == "a\x7f\x85\ufffdb"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff\n"
    wrong = run(address, "export default function () {}\nexport function handleSummary() { return { stdout: {} }; }")
    assert "'stdout' is neither a text nor bytes" in wrong.err and "TOTAL RESULTS" in wrong.out, wrong


def test_what_setup_and_teardown_say_counts(address):
    failed = run(address, "export function setup() { exec.test.fail('by setup'); }\nexport default function () {}")
    assert failed.code == 110 and "by setup" in failed.err, failed
    tagged = run(
        address,
        "export const options = { thresholds: { 'memcached_reqs{group:::setup}': ['count==1'],"
        " 'memcached_reqs{group:::teardown}': ['count==2'] } };\n"
        "export async function setup() { await memcached.get('k'); }\nexport default function () {}\n"
        "export async function teardown() { await memcached.get('k'); await memcached.get('k'); }")
    assert tagged.code == 0, tagged


def test_what_setup_made_is_torn_down_though_the_test_does_not_begin(address):
    done = run(
        address, "if (__VU > 0) throw new Error('not for users');\n"
        "export function setup() {}\nexport default function () {}\n"
        "export function teardown() { console.log('torn down'); }")
    assert done.code == 107, done
    assert "not for users" in done.err and "torn down" in done.err, done


def test_a_tag_with_ever_new_values_costs_no_memory(address, tmp_path):
    path = tmp_path / "tags.js"
    path.write_text(
        HEAD + "export const options = { vus: 1, iterations: 5000, "
        "thresholds: { 'memcached_reqs{id:7}': ['count==1'] } };\n"
        "export default async function () { exec.vu.tags.id = __ITER; await memcached.get('k'); }")
    line = [command(), "run", str(path), "--server", address, "--quiet", "--no-color"]
    with open(tmp_path / "said", "wb") as said:
        process = subprocess.Popen(line, stdout=said, stderr=subprocess.STDOUT)
        # What wait4 says is no less than what this process has, from which that one came.
        status, peak = Path(f"/proc/{process.pid}/status"), 0
        while process.poll() is None:
            if found := re.search(r"VmHWM:\s+(\d+)", status.read_text()):
                peak = int(found[1])
            time.sleep(0.01)
    assert process.returncode == 0, (process.returncode, (tmp_path / "said").read_text())
    assert 0 < peak < 300_000, f"{peak} KiB"


def test_the_stage_under_way_is_known(address):
    utils = "https://jslib.k6.io/k6-utils/1.5.0/index.js"
    done = run(
        address,
        "import { check as checkLater, getCurrentStageIndex, normalDistributionStages, tagWithCurrentStageIndex,"
        f" tagWithCurrentStageProfile }} from '{utils}';\n"
        "export const options = { stages: [{ duration: '600ms', target: 3 }, { duration: '600ms', target: 3 },"
        " { duration: '600ms', target: 1 }], thresholds: { checks: ['rate==1'],"
        " 'memcached_reqs{stage:0,stage_profile:ramp-up}': ['count>0'],"
        " 'memcached_reqs{stage:1,stage_profile:steady}': ['count>0'],"
        " 'memcached_reqs{stage:2,stage_profile:ramp-down}': ['count>0'], 'memcached_reqs{stage:3}': ['count==0'] } };\n"
        "export default async function () {\n"
        "    tagWithCurrentStageIndex(); tagWithCurrentStageProfile();\n"
        "    await memcached.get('k');\n"
        "    await new Promise(resolve => setTimeout(resolve, 10));\n"
        "    const { scenarios } = exec.test.options;\n"
        "    check(scenarios, { seen: s => s.default.executor === 'ramping-vus' && s.default.stages.length === 3 });\n"
        "    check(getCurrentStageIndex(), { index: i => i >= 0 && i < 3 });\n"
        "    const bell = normalDistributionStages(10, 20, 5).map(s => s.target).join();\n"
        "    check(bell, { bell: text => text === '1,5,10,10,5,1,0' });\n"
        "    await checkLater(Promise.resolve(2), { later: async value => value === 2 });\n"
        "}")
    assert done.code == 0, done
    names = {check["name"] for check in done.root["checks"].values()}
    assert names == {"seen", "index", "bell", "later"}, done


def test_a_relative_path_starts_where_the_process_is(tmp_path, address):
    (tmp_path / "here.js").write_text("export default function () { console.log('found'); }")
    done = Run("run", "here.js", "--server", address, cwd=tmp_path)
    assert done.code == 0 and "found" in done.err, done


@contextlib.contextmanager
def batching():
    """A server that waits a while, and answers what came by then: how many requests those were, each time."""
    counts = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection:
            try:
                while data := connection.recv(65536):
                    time.sleep(0.05)
                    with contextlib.suppress(BlockingIOError):
                        data += connection.recv(65536, socket.MSG_DONTWAIT)
                    counts.append(data.count(b"\r\n"))
                    connection.sendall(b"END\r\n" * counts[-1])
            except OSError:
                pass

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", counts
    finally:
        listener.close()


@pytest.mark.parametrize("pipeline, most", [("pipeline: 3,", 3), ("pipeline: 1,", 1), ("", 12)])
@pytest.mark.parametrize("shared", ["true", "false"])
def test_a_pipeline_may_be_no_deeper_than_it_is_to(pipeline, most, shared):
    text = (
        f"const client = new memcached.Client({{ {pipeline} pool: 1, shared: {shared} }});\n"
        "export const options = { vus: 1, iterations: 2, thresholds: { memcached_req_failed: ['rate==0'] } };\n"
        "export default async function () {\n"
        "    const all = await Promise.all(Array.from({ length: 12 }, (_, i) => client.get(`k${i}`)));\n"
        "    check(all, { 'are all told': all => all.length === 12 && all.every(one => one === null) });\n"
        "}")
    with batching() as (address, counts):
        done = run(address, text)
    assert done.code == 0 and "✓ are all told" in done.out, done
    assert sum(counts) == 24 and max(counts) == most, counts
    if most < 12:
        # Who waits for room waits all the same: the first is told at once, the last behind all others.
        assert done.figure("memcached_req_duration", "max") > 1.5 * done.figure("memcached_req_duration", "min"), done


@pytest.mark.parametrize("value", ["-1", "0.5", "'many'", "20000"])
def test_a_pipeline_that_cannot_be_is_refused(value):
    done = run("127.0.0.1:1", f"new memcached.Client({{ pipeline: {value} }});\nexport default function () {{}}")
    assert done.code == 107 and "pipeline is 1 to 10000" in done.err, done
