# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A test on several agents is one test: its load is what it would be on one machine, and so are its figures; and whatever an agent, a
coordinator or a stranger does, what is said of it is clear and nobody hangs."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from .agents import TOKEN, Agent, environment, start, write
from .runner import LIMIT_SECONDS, Run
from .stub import Stub

pytestmark = pytest.mark.ours

HEAD = """import memcached from 'k6/x/memcached';
import exec from 'k6/execution';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
"""


@pytest.fixture
def agents():
    with Agent() as one, Agent() as other:
        yield [one, other]


@pytest.fixture
def address(server):
    return f"127.0.0.1:{server.port}"


def names(agents):
    return ",".join(agent.address for agent in agents)


def run(agents, address, text, *arguments, head=HEAD, name="script.js", token=TOKEN, **options):
    return Run(
        "--server", address, "--agents", names(agents), *arguments, file=head + text, name=name, environment=environment(token),
        **options)


def ask(server, text):
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall(text.encode())
        return connection.recv(4096).decode()


@pytest.mark.parametrize("arrival", ["even", "poisson"])
def test_agents_hold_the_rate_together(agents, address, arrival):
    done = run(
        agents, address, f"{{scenarios: {{one: {{executor: constant-arrival-rate, rate: 2000, duration: 4s, arrival: {arrival}, "
        "busy: wait, preAllocatedVUs: 9, workload: {operations: {get: 1}, pipeline: 8}}}, thresholds: {memcached_reqs: ['count>7900'], "
        "memcached_req_failed: ['rate==0']}}", "--seed", "5", head="", name="rate.yaml", punctual=True)
    assert done.code == 0, done
    # Poisson arrivals of one seed are always as many: what one machine draws.
    alone = 8000 if arrival == "even" else Run(
        "--server", address, "--seed", "5", name="rate.yaml",
        file="{scenarios: {one: {executor: constant-arrival-rate, rate: 2000, duration: 4s, arrival: poisson, busy: wait, "
        "preAllocatedVUs: 9, workload: {operations: {get: 1}, pipeline: 8}}}}").figure("iterations", "count")
    assert abs(done.figure("iterations", "count") / alone - 1) < 0.005, done
    assert abs(done.figure("iterations", "rate") / (alone / 4) - 1) < 0.005, done
    assert re.search(r"INFO 2 agents, clocks known to within ±[\d.]+ ms", done.out), done
    assert f"execution: 2 agents ({agents[0].address}, {agents[1].address})" in done.out


@pytest.fixture
def apart():
    """Two agents with addresses and clocks of their own, as two machines have them: an hour and two days ahead of this one's."""
    held = subprocess.run(
        ["unshare", "--time", "--monotonic", "9", "--fork", "true"], capture_output=True, check=False)
    if held.returncode:
        pytest.skip("no namespaces of time here")
    with Agent(host="127.0.0.2", ahead=3600) as one, Agent(host="127.0.0.3", ahead=172_800) as other:
        yield [one, other]


def test_machines_whose_clocks_differ_start_at_once(apart):
    """Arrival n is due n/50 s from the start, whichever machine makes it: the server sees them in their order and time."""
    times = {}

    def reply(words, _):
        times[int(words[1].removeprefix("n:"))] = time.monotonic()
        return b"END\r\n"

    with Stub(reply) as stub:
        done = run(
            apart, stub.address, "export const options = { scenarios: { a: { executor: 'constant-arrival-rate', rate: 50, "
            "duration: '3s', preAllocatedVUs: 4 } } };\n"
            "export default async function () { await memcached.get(`n:${exec.scenario.iterationInTest}`); }", punctual=True)
    assert done.code == 0, done
    assert [agent.address.split(":")[0] for agent in apart] == ["127.0.0.2", "127.0.0.3"]
    assert set(times) == set(range(150)), sorted(times)
    late = sorted(times[number] - number / 50 for number in times)
    # Relative to the middle one; a busy machine may be late with some.
    off = [one - late[75] for one in late]
    assert off[7] > -0.02 and off[142] < 0.02, off
    # Both machines' halves are as far behind, which is what a skew would change.
    halves = [sorted(times[number] - number / 50 for number in times if number % 2 == part)[37] for part in (0, 1)]
    assert abs(halves[0] - halves[1]) < 0.005, halves
    assert float(re.search(r"clocks known to within ±([\d.]+) ms", done.out)[1]) < 20, done
    assert 2.5 < done.figure("iterations", "count") / done.figure("iterations", "rate") < 3.5, done


def test_histograms_of_machines_are_merged(apart):
    """One machine's requests take 5 ms, the other's 50: quantiles are those of all, and no mean of two."""
    def reply(words, _):
        time.sleep(0.05 if words[1] == "odd" else 0.005)
        return b"END\r\n"

    with Stub(reply) as stub:
        done = run(
            apart, stub.address, "export const options = { summaryTrendStats: ['p(30)', 'p(95)', 'count'], "
            "scenarios: { a: { executor: 'per-vu-iterations', vus: 4, iterations: 30 } } };\n"
            "export default async function () { await memcached.get(__VU % 2 ? 'odd' : 'even'); }")
    assert done.code == 0, done
    assert done.figure("memcached_req_duration", "count") == 120, done
    assert 4.9 < done.figure("memcached_req_duration", "p(30)") < 25, done
    assert 49.5 < done.figure("memcached_req_duration", "p(95)") < 90, done


def test_what_agents_measure_is_what_one_machine_would(agents, address):
    """Each of a thousand numbers is some iteration's, whoever makes it: the figures are those of a run without agents."""
    text = """
    const numbers = new Trend('numbers'), users = new Trend('users');
    export const options = { vus: 7, iterations: 1001, summaryTrendStats: ['count', 'avg', 'min', 'med', 'max', 'p(90)', 'p(99.9)'] };
    export default async function () {
        numbers.add(exec.scenario.iterationInTest);
        users.add(__VU);
        check(await memcached.get('nothing'), { 'is not there': value => value === null });
    }"""
    merged = run(agents, address, text)
    alone = Run("--server", address, file=HEAD + text, name="script.js")
    assert merged.code == alone.code == 0, merged
    assert merged.metrics["numbers"] == alone.metrics["numbers"], merged
    assert merged.figure("numbers", "count") == 1001 and merged.figure("numbers", "avg") == 500
    assert (merged.figure("users", "min"), merged.figure("users", "max")) == (1, 7)
    assert merged.root["checks"]["is not there"]["passes"] == 1001, merged.root
    for agent in agents:
        agent.stop()
        assert "its test is over" in agent.said, agent.said


@pytest.mark.parametrize("executor, count", [
    ("executor: 'per-vu-iterations', vus: 5, iterations: 3", 15),
    ("executor: 'shared-iterations', vus: 3, iterations: 10", 10),
    ("executor: 'constant-arrival-rate', rate: 25, duration: '1s', preAllocatedVUs: 2, maxVUs: 6", 25),
    ("executor: 'ramping-arrival-rate', startRate: 0, stages: [{ duration: '1s', target: 60 }], preAllocatedVUs: 2", 29),
])
def test_executors_are_dealt_out(agents, address, executor, count):
    done = run(
        agents, address, f"const vus = new Trend('vus_seen'); const times = new Counter('times');\n"
        f"export const options = {{ scenarios: {{ a: {{ {executor} }} }} }};\n"
        "export default async function () { vus_seen(); await memcached.get('k'); }\n"
        "function vus_seen() { vus.add(__VU); times.add(1); }")
    assert done.code == 0, done
    dropped = done.metrics.get("dropped_iterations", {"count": 0})["count"]
    assert abs(done.figure("times", "count") + dropped - count) <= 1 and dropped <= 1, done


def test_a_ramp_has_its_users_on_both(agents, address):
    done = run(
        agents, address, "export const options = { scenarios: { a: { executor: 'ramping-vus', startVUs: 0, gracefulRampDown: '0s', "
        "stages: [{ duration: '1s', target: 10 }, { duration: '2s', target: 10 }] } }, thresholds: { vus: ['value==10'] } };\n"
        "import { setTimeout } from 'k6/timers';\n"
        "export default async function () { await memcached.get('k'); await new Promise(r => setTimeout(r, 20)); }")
    assert done.code == 0, done
    assert done.figure("vus_max", "value") == 10


def test_setup_and_teardown_run_once_and_setups_data_is_everywhere(agents, address, server):
    ask(server, "set made:setup 0 0 1\r\n0\r\nset made:down 0 0 1\r\n0\r\n")
    done = run(
        agents, address, """
        export const options = { vus: 6, iterations: 60, thresholds: { checks: ['rate==1'] } };
        export async function setup() { await memcached.incr('made:setup', 1); return { word: 'from setup', list: [1, 2] }; }
        export default async function (data) {
            check(data, { 'is there': d => d.word === 'from setup' && d.list[1] === 2 });
            await memcached.get('k');
        }
        export async function teardown(data) { if (data.word === 'from setup') await memcached.incr('made:down', 1); }""")
    assert done.code == 0, done
    assert done.root["checks"]["is there"]["passes"] == 60
    assert ask(server, "get made:setup made:down\r\n") == "VALUE made:setup 0 1\r\n1\r\nVALUE made:down 0 1\r\n1\r\nEND\r\n"


def test_files_come_with_the_test(address, tmp_path):
    """The agents may not read where the test's files are, and have them from the coordinator."""
    tmp_path.chmod(0o700)
    (tmp_path / "words.json").write_text('["one", "two", "three"]')
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/name.js").write_text("import { tail } from './tail.js';\nexport const name = n => `a:${n}${tail}`;\n")
    (tmp_path / "lib/tail.js").write_text("export const tail = ':z';\n")
    script = write(tmp_path, HEAD + """
        import { SharedArray } from 'k6/data';
        import { name } from './lib/name.js';
        const words = new SharedArray('words', () => JSON.parse(open('./words.json')));
        export const options = { vus: 4, iterations: 40, thresholds: { checks: ['rate==1'] } };
        export default async function () {
            check(words, { 'words': w => w.length === 3 && w[2] === 'three' && name(1) === 'a:1:z' && __ENV.GIVEN === 'here' });
            check(__ENV.HOME, { 'nothing of the machine': home => home === undefined });
            let reads = true;
            try { open('/etc/passwd'); } catch { reads = false; }
            check(reads, { 'no other file': r => r === false });
        }""")
    is_root = os.geteuid() == 0
    with Agent(is_nobody=is_root) as one, Agent(is_nobody=is_root) as other:
        done = Run(
            "run", script, "--server", address, "--agents", names([one, other]), "-e", "GIVEN=here", environment=environment())
        assert done.code == 0, done


def test_a_trace_is_replayed_in_parts(agents, address, tmp_path):
    rows = "".join(f"{index / 500:.4f},key:{index % 50},20,{'set' if index < 50 else 'get'}\n" for index in range(1000))
    trace = write(tmp_path, "time,key,size,operation\n" + rows, "trace.csv")
    done = run(
        agents, address, f"{{scenarios: {{a: {{executor: trace-replay, busy: wait, preAllocatedVUs: 4, workload: {{trace: {trace}}}}}}}}}", head="",
        name="trace.yaml")
    assert done.code == 0, done
    assert done.figure("memcached_reqs", "count") == 1000, done


def test_a_threshold_of_all_ends_all(agents, address):
    began = time.monotonic()
    done = run(
        agents, address, "{scenarios: {one: {executor: constant-arrival-rate, rate: 400, duration: 60s, preAllocatedVUs: 4, "
        "workload: {operations: {get: 1}}}}, thresholds: {memcached_reqs: [{threshold: 'count<900', abortOnFail: true}]}}",
        head="", name="abort.yaml")
    assert done.code == 99 and "was crossed" in done.err, done
    assert time.monotonic() - began < 20
    assert 900 <= done.figure("memcached_reqs", "count") < 4000, done


def test_ctrl_c_ends_all_with_a_summary(agents, address, tmp_path):
    script = write(tmp_path, "{vus: 4, duration: 60s, workload: {operations: {get: 1}}}", "long.yaml")
    process = start(script, "--server", address, "--agents", names(agents))
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 105, (out, err)
    assert re.search(r"memcached_reqs\.+: [1-9]", out) and "stopping" in err, (out, err)
    # The agents are there for the next.
    done = run(agents, address, "export default async function () { await memcached.get('k'); }", "--vus", "2")
    assert done.code == 0, done


def test_an_agent_that_dies_is_told(agents, address, tmp_path):
    script = write(tmp_path, "{vus: 4, duration: 60s, workload: {operations: {get: 1}}}", "long.yaml")
    process = start(script, "--server", address, "--agents", names(agents))
    time.sleep(3)
    agents[1].process.kill()
    killed = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 102, (out, err)
    assert f"agent {agents[1].address}: " in err and "clos" in err or "broke" in err, err
    assert time.monotonic() - killed < 5
    assert "memcached_reqs" in out
    done = run(agents[:1], address, "export default async function () { await memcached.get('k'); }")
    assert done.code == 0, done


def test_an_agent_that_stops_answering_is_told(agents, address, tmp_path):
    script = write(tmp_path, "{vus: 4, duration: 60s, workload: {operations: {get: 1}}}", "long.yaml")
    process = start(script, "--server", address, "--agents", names(agents))
    time.sleep(2)
    agents[1].process.send_signal(signal.SIGSTOP)
    try:
        out, err = process.communicate(timeout=40)
    finally:
        agents[1].process.send_signal(signal.SIGCONT)
    assert process.returncode == 102 and f"agent {agents[1].address}: no word from it for 10s" in err, (out, err)


def test_a_signal_to_an_agent_ends_the_test(agents, address, tmp_path):
    script = write(tmp_path, "{vus: 4, duration: 60s, workload: {operations: {get: 1}}}", "long.yaml")
    process = start(script, "--server", address, "--agents", names(agents))
    time.sleep(2)
    assert agents[0].stop() == 0
    out, err = process.communicate(timeout=20)
    assert process.returncode == 105 and "a signal ended it" in err, (out, err)


def test_who_is_not_there_and_who_does_not_know_the_token(agents, address):
    script = "export default async function () { await memcached.get('k'); }"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    gone = Run("--server", address, "--agents", f"{agents[0].address},127.0.0.1:{port}", "--vus", "2", file=HEAD + script,
               name="script.js", environment=environment())
    assert gone.code == 102 and f"agent 127.0.0.1:{port}: cannot be connected to" in gone.err, gone
    other = run(agents, address, script, "--vus", "2", token="some other long token")
    assert other.code == 102 and "the token is another one" in other.err, other
    missing = run(agents, address, script, "--vus", "2", token=None)
    assert missing.code == 104 and "MARTLET_LOAD_TOKEN" in missing.err, missing
    short = run(agents, address, script, "--vus", "2", token="short")
    assert short.code == 104 and "16 to 1024" in short.err, short
    done = run(agents, address, script, "--vus", "2")
    assert done.code == 0, done
    for agent in agents:
        agent.stop()
        assert TOKEN not in agent.said and "some other" not in agent.said
    assert TOKEN not in done.out + done.err + other.out + other.err


def test_a_token_may_come_from_a_file(address, tmp_path):
    path = write(tmp_path, TOKEN + "\n", "token")
    with Agent(token=None, arguments=["--token-file", str(path)]) as one:
        done = run([one], address, "export default async function () { await memcached.get('k'); }", "--token-file", path, token=None)
        assert done.code == 0, done


def test_what_cannot_be_is_said(agents, address):
    few = run(agents, address, "export default async function () { await memcached.get('k'); }")
    assert few.code == 104 and "1 VUs are too few for 2 agents" in few.err, few
    out = run(agents, address, "export default () => {};", "--vus", "2", "-o", "json=-")
    assert out.code == 104 and "stays on its agent" in out.err, out
    same = Run("--server", address, "--agents", f"{agents[0].address},{agents[0].address}", file=HEAD, name="a.js",
               environment=environment())
    assert same.code == 104 and "different" in same.err, same
    chance = run(
        agents, address, "import { SharedArray } from 'k6/data';\nconst dice = new SharedArray('dice', () => [Math.random() * 1e9]);\n"
        "const one = new Trend(`t${Math.floor(dice[0])}`);\nexport default function () { one.add(1); }", "--vus", "2")
    assert chance.code == 102 and "other metrics there than here" in chance.err, chance


def test_a_script_that_aborts_or_throws_on_an_agent(agents, address):
    abort = run(
        agents, address, "export default async function () {\n"
        "    if (__VU === 2) exec.test.abort('enough'); else await memcached.get('k');\n}", "--vus", "2", "--duration", "30s")
    assert abort.code == 108 and "enough" in abort.err, abort
    marked = run(agents, address, "export default function () { if (__VU === 2) exec.test.fail('wrong'); }", "--vus", "2")
    assert marked.code == 110 and "wrong" in marked.err, marked
    throws = run(agents, address, "export default function () { throw new Error(`thrown by ${__VU}`); }", "--vus", "2")
    assert throws.code == 0 and "thrown by 1" in throws.err and "thrown by 2" in throws.err, throws
    init = run(agents, address, "if (__VU === 2) throw new Error('at first');\nexport default function () {}", "--vus", "2")
    assert init.code == 107 and "at first" in init.err, init


def test_summary_and_page_are_of_all(agents, address, tmp_path):
    report = tmp_path / "report.html"
    done = run(
        agents, address, """
        export const options = { vus: 4, iterations: 100 };
        export default async function () { await memcached.get('k'); }
        export function handleSummary(data) {
            return { stdout: `iterations: ${data.metrics.iterations.values.count}\\n` };
        }""", "--report", report)
    assert done.code == 0 and "iterations: 100\n" in done.out, done
    page = report.read_text()
    assert agents[0].address in page and "clocks known" in page


def test_a_search_over_agents(agents, address):
    done = run(
        agents, address, "{vus: 8, workload: {operations: {get: 1}, pipeline: 8}}", "--search", "p99<500ms", "--search-time", "300ms",
        "--json", head="", name="search.yaml")
    assert done.code in (0, 99), done
    result = json.loads(done.out)
    assert len(result["trials"]) > 1, result


def test_a_busy_agent_says_so(agents, address, tmp_path):
    script = write(tmp_path, "{vus: 2, duration: 10s, workload: {operations: {get: 1}}}", "long.yaml")
    process = start(script, "--server", address, "--agents", names(agents))
    time.sleep(2)
    other = run(agents, address, "export default async function () { await memcached.get('k'); }", "--vus", "2")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert other.code == 102 and "it is busy with another test" in other.err, other


def test_strangers_bytes_cost_an_agent_nothing(agents, address):
    """Whatever is sent instead of a proof, the agent closes and goes on; what is half sent does not keep it."""
    host, port = agents[0].address.split(":")
    random = b"".join(struct.pack("<Q", index * 0x9E3779B97F4A7C15 & (1 << 64) - 1) for index in range(8192))
    hello = 4 + 1 + 32
    held = []
    for sent in [b"", b"get k\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\0" * 100, random, struct.pack(">I", 0),
                 struct.pack(">IB", 0x7FFFFFFF, 2), struct.pack(">IB", 1, 2), struct.pack(">IB", 67, 2) + b"\x20" + b"x" * 65,
                 struct.pack(">IB", 40, 7) + b"y" * 39]:
        connection = socket.create_connection((host, int(port)), 5)
        assert len(connection.recv(hello)) == hello
        try:
            connection.sendall(sent)
        except OSError:
            pass
        held.append(connection)
        if len(held) > 4:
            held.pop(0).close()
        time.sleep(0.05)
    for connection in held:
        connection.close()
    time.sleep(0.5)
    done = run(agents, address, "export default async function () { await memcached.get('k'); }", "--vus", "2")
    assert done.code == 0, done
    with open(f"/proc/{agents[0].process.pid}/status") as status:
        peak = int(re.search(r"VmHWM:\s+(\d+)", status.read())[1])
    assert peak < 400_000, peak


def test_strangers_that_say_nothing_are_not_waited_for(agents, address):
    host, port = agents[0].address.split(":")
    held = [socket.create_connection((host, int(port)), 5) for _ in range(8)]
    time.sleep(6)
    done = run(agents, address, "export default async function () { await memcached.get('k'); }", "--vus", "2")
    assert done.code == 0, done
    for connection in held:
        connection.close()


@pytest.mark.parametrize("says", [b"", b"ERROR\r\nERROR\r\nERROR\r\n", b"\x00\x00\x00\x21\x01" + b"n" * 32, b"\x00\x00\x00\x01\x04"])
def test_what_is_no_agent_is_told(address, says):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(says)
                time.sleep(7)
        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        done = Run("--server", address, "--agents", f"127.0.0.1:{listener.getsockname()[1]}", file="{vus: 1, workload: {}}",
                   name="a.yaml", environment=environment())
        assert done.code == 102 and "agent 127.0.0.1:" in done.err, done
        assert time.monotonic() - began < 10 < LIMIT_SECONDS


def test_an_agents_server_that_is_gone_is_no_hang(agents):
    with Stub(lambda *_: b"END\r\n") as stub:
        gone = stub.address
    done = run(agents, gone, "{vus: 4, duration: 2s, workload: {operations: {get: 1}}}", head="", name="gone.yaml")
    assert done.code == 102 and "connect" in done.err, done
