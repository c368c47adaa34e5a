# Martlet
# SPDX-License-Identifier: Apache-2.0
"""MartletClient against real servers: what its operations give, and what it does when servers misbehave."""

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from bed import Server, free_port
from discovery import dns

from .probe import Misbehaving, Probe, address, command, hurry, run

ROOT = Path(__file__).resolve().parents[3]
# How much later than its deadline a call may end on a busy machine, in microseconds.
GRACE = 150_000


@pytest.fixture(scope="module", params=["ours", "memcached"])
def nodes(request, memcached):
    """Three nodes of a kind."""
    command = None if request.param == "ours" else memcached
    servers = [Server("-m 64 -t 1", command=command) for _ in range(3)]
    yield [address(server) for server in servers]
    for server in servers:
        server.stop()


@pytest.mark.parametrize("protocol", ["meta", "classic"])
@pytest.mark.parametrize("placement", ["martlet", "ketama", "any"])
def test_operations(nodes, protocol, placement):
    # Any server can answer for a key only where there is one.
    servers = nodes[:1] if placement == "any" else nodes
    said = run("commands", servers, "--protocol", protocol, "--placement", placement, "--timeout", 5000)
    assert said.startswith(f"ok {len(servers)} servers")


def test_operations_over_a_unix_socket(start, tmp_path):
    server = start("-m 64 -t 1", unix=tmp_path / "node")
    assert run("commands", [str(server.unix)], "--timeout", 5000).startswith("ok 1 servers")


def certificates(folder):
    """An authority and a certificate of it for 127.0.0.1: their paths, and the key's."""
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    authority, chain = folder / "authority.pem", folder / "node.pem"
    openssl("req", "-x509", *key, "-keyout", folder / "authority.key", "-out", authority, "-subj", "/CN=authority")
    openssl("req", *key, "-keyout", folder / "node.key", "-out", folder / "node.csr", "-subj", "/CN=node")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", folder / "node.csr", "-CA", authority, "-CAkey", folder / "authority.key",
            "-CAcreateserial", "-extfile", folder / "names", "-out", chain)
    return authority, chain, folder / "node.key"


@pytest.mark.ours
def test_operations_over_tls(start, tmp_path):
    authority, chain, key = certificates(tmp_path)
    server = start(["-m", "64", "-t", "1", "-Z", "-o", f"ssl_chain_cert={chain},ssl_key={key}"])
    name = address(server)
    assert run("commands", [name], "--tls-authority", authority, "--timeout", 5000).startswith("ok 1 servers")
    # Somebody else's authority: the certificate is not taken, and nothing is sent.
    other = tmp_path / "other"
    other.mkdir()
    probe = Probe("commands", [name], "--tls-authority", certificates(other)[0], "--timeout", 500)
    out, _ = probe.process.communicate(timeout=30)
    assert probe.process.returncode == 1 and "cannot be connected to" in out


def test_the_example_of_the_documentation(nodes):
    text = (ROOT / "docs/client.md").read_text()
    block = re.search(r"```swift\n(import MartletClient\n.*?)```", text, re.S).group(1)
    source = (Path(__file__).parent / "program/Example.swift").read_text()
    assert block.strip() == source.split("\n\n", 1)[1].strip(), "docs/client.md shows another program than is compiled"
    # Counters of another run go on where they were.
    assert re.fullmatch(r"hello Ada7 \d+\n", run("example", nodes))


def built_modules():
    """The compiler's arguments for programs that import MartletClient as it was built beside the server."""
    modules = (Path(command()).parent / "Modules").resolve()
    if shutil.which("swiftc") is None or not (modules / "MartletClient.swiftmodule").exists():
        pytest.skip("no compiler, or no modules")
    maps = [one for name in ("module.modulemap", "include/module.modulemap") for one in (ROOT / "Sources").glob("C*/" + name)]
    maps += modules.parent.glob("C*.build/module.modulemap")
    flags = ["-swift-version", "6", "-parse-as-library", "-I", modules]
    for one in maps:
        flags += ["-Xcc", f"-fmodule-map-file={one}"]
    for one in (ROOT / "Sources").glob("C*/include"):
        flags += ["-I", one]
    found = subprocess.run(
        ["pkg-config", "--cflags", "libcurl", "liblz4", "libpq"], capture_output=True, text=True, check=False).stdout.split()
    return [str(flag) for flag in flags] + found


CATALOGUE = ROOT / "Sources/MartletClient/MartletClient.docc"
STANDINS = """
func loadName(_ user: Int) async throws -> String { "Ada" }
func storeName(_ user: Int, _ name: String) async throws {}
struct Database { func name(of user: Int) async throws -> String { "Ada" } }
let database = Database()
"""


def shown_programs():
    """What is shown to readers besides the example that is run: the tutorial's steps and the pages' pieces."""
    for step in sorted((CATALOGUE / "Resources").glob("*.swift")):
        yield step.name, step.read_text()
    start = re.search(r"```swift\n(.*?)```", (CATALOGUE / "GettingStarted.md").read_text(), re.S).group(1)
    yield "GettingStarted", f"import MartletClient\nfunc start() async throws {{\n{start}_ = name\n}}\n"
    pieces = re.findall(r"```swift\n(.*?)```", (ROOT / "docs/client.md").read_text(), re.S)
    for number, piece in enumerate(pieces[1:]):
        yield f"client-{number}", "import MartletClient\n" + piece


@pytest.mark.ours
@pytest.mark.parametrize("name, text", list(shown_programs()), ids=lambda value: value if len(value) < 20 else "")
def test_what_the_documentation_shows_compiles(tmp_path, name, text):
    (tmp_path / "Shown.swift").write_text(text)
    (tmp_path / "StandIns.swift").write_text(STANDINS)
    done = subprocess.run(
        ["swiftc", "-typecheck", *built_modules(), "Shown.swift", "StandIns.swift"], capture_output=True, text=True, check=False,
        cwd=tmp_path)
    assert done.returncode == 0 and "error:" not in done.stderr, done.stderr


@pytest.mark.ours
def test_the_tutorial_is_whole(tmp_path):
    """Every step's file is there, and every name that the catalogue links is one of the library's."""
    flags = built_modules()
    if shutil.which("docc") is None or shutil.which("swift-symbolgraph-extract") is None:
        pytest.skip("no docc")
    triple = subprocess.run(["swiftc", "-print-target-info"], capture_output=True, text=True, check=True).stdout
    target = json.loads(triple)["target"]["unversionedTriple"]
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    flags = [flag for flag in flags if flag not in ("-parse-as-library",)]
    subprocess.run(
        ["swift-symbolgraph-extract", "-module-name", "MartletClient", "-target", target, "-output-dir", str(graphs), *flags],
        capture_output=True, check=True)
    done = subprocess.run(
        ["docc", "convert", str(CATALOGUE), "--fallback-display-name", "MartletClient", "--fallback-bundle-identifier",
         "MartletClient", "--additional-symbol-graph-dir", str(graphs), "--output-path", str(tmp_path / "out")],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "warning:" not in done.stderr + done.stdout, done.stderr + done.stdout
    tutorial = json.loads(next((tmp_path / "out").rglob("look-aside.json")).read_text())
    assert len([one for one in tutorial["references"].values() if one.get("type") == "file"]) == 4
    steps = set(re.findall(r"file: (\S+)\)", (CATALOGUE / "Look-aside.tutorial").read_text()))
    assert steps == {one.name for one in (CATALOGUE / "Resources").glob("*.swift")}


def load(servers, *options, milliseconds=2000):
    # Each task rests between its calls, so that going before others costs them little.
    return Probe("load", servers, "--milliseconds", milliseconds, "--tasks", 24, "--pause", 1, "--timeout", 300,
                 "--attempt-timeout", 120, "--connect-timeout", 100, *options, punctual=True)


def judge(result, dead, budget=60_000):
    """No call outlives its deadline, and none to another server fails or takes long."""
    for server, outcomes in result["servers"].items():
        assert outcomes["max"] < 300_000 + GRACE, (server, outcomes)
        if server != dead:
            assert outcomes["errors"] == {}, (server, outcomes)
            assert outcomes["p99"] < budget, (server, outcomes)
            assert outcomes["calls"] > 300, (server, outcomes)


def test_a_node_that_stalls_and_goes_on(start):
    servers = [start("-m 64 -t 1") for _ in range(3)]
    names = [address(server) for server in servers]
    for server in servers:
        hurry(server.pid)
    probe = load(names, milliseconds=5000)
    probe.ready()
    time.sleep(0.5)
    servers[0].signal(signal.SIGSTOP)
    time.sleep(1.5)
    servers[0].signal(signal.SIGCONT)
    result = probe.json()
    judge(result, names[0])
    outcomes = result["servers"][names[0]]
    assert result["timeouts"] > 0, "it stalled"
    assert outcomes["errors"].get("circuitOpen", 0) > 0, "it was left alone"
    assert result["openings"] > 0
    assert outcomes["calls"] - sum(outcomes["errors"].values()) > 500, "it was used again"


def test_a_node_that_is_killed_and_comes_back(start):
    servers = [start("-m 64 -t 1") for _ in range(3)]
    names = [address(server) for server in servers]
    for server in servers:
        hurry(server.pid)
    probe = load(names, milliseconds=4000)
    probe.ready()
    time.sleep(0.5)
    servers[0].stop()
    time.sleep(1)
    again = shlex.split(" ".join(servers[0].line))
    line = " ".join(again[:1])
    back = Server(again[1:], command=line, listen=False, wait=("127.0.0.1", servers[0].port), user=False)
    try:
        result = probe.json()
    finally:
        back.stop()
    judge(result, names[0])
    outcomes = result["servers"][names[0]]
    assert sum(outcomes["errors"].values()) > 0
    assert outcomes["calls"] - sum(outcomes["errors"].values()) > 500, "it was used again"


def test_a_dead_node_costs_the_others_nothing(start):
    """The same load without and with a node that swallows everything: the others' calls are as many, and as fast."""
    servers = [start("-m 64 -t 1") for _ in range(3)]
    names = [address(server) for server in servers]
    for server in servers:
        hurry(server.pid)
    tries = []
    for _ in range(3):
        healthy = load(names, milliseconds=1500).json()["servers"]
        servers[0].signal(signal.SIGSTOP)
        try:
            result = load(names, milliseconds=1500).json()
        finally:
            servers[0].signal(signal.SIGCONT)
        judge(result, names[0])
        ours = [(result["servers"][name], healthy[name]) for name in names[1:]]
        tries.append([(one["calls"] / other["calls"], one["p50"] / other["p50"], one["p99"] / other["p99"]) for one, other in ours])
        # The machine is shared: of calls that take a fraction of a millisecond, the quantiles vary by themselves.
        if all(calls > 0.9 and middle < 1.5 and most < 3 for calls, middle, most in tries[-1]):
            return
    pytest.fail(f"calls, p50 and p99 beside a healthy fleet's: {tries}")


@pytest.mark.parametrize("mode, error", [
    ("stall", "deadlineExceeded"), ("close", "connectionLost"), ("nonsense", "nonsense"), ("busy", "busy"),
])
def test_calls_end_by_their_deadline_while_a_server_comes_and_goes(mode, error):
    """A server that does well, then badly, then well: with all attempts, no call takes longer than its 300 ms."""
    with Misbehaving() as server, Misbehaving() as other:
        names = [address(server), address(other)]
        probe = load(names, milliseconds=4000)
        probe.ready()
        time.sleep(1)
        server.mode = mode
        time.sleep(1)
        server.mode = "answer"
        result = probe.json()
    bad, good = (result["servers"][name] for name in names)
    assert bad["max"] < 300_000 + GRACE and good["max"] < 300_000 + GRACE, result
    assert good["errors"] == {}, result
    # A silent connection is a lost one; whoever is busy is alive, and gets fewer requests instead of none.
    assert set(bad["errors"]) <= {error, "circuitOpen", "overloaded", "unavailable", "connectionLost"}, result
    assert bad["errors"].get("busy" if mode == "busy" else "circuitOpen", 0) > 0, result
    assert bad["calls"] - sum(bad["errors"].values()) > 500, "it was used again"


def test_retries_stay_in_their_budget():
    with Misbehaving("close") as one, Misbehaving("busy") as two:
        names = [address(one), address(two)]
        result = load(names, "--retries", 8, "--retries-per-second", 10, milliseconds=3000).json()
    assert result["retries"] <= 0.1 * result["calls"] + 10 * 3.5 + 100
    assert result["refused"] > 0
    for outcomes in result["servers"].values():
        assert outcomes["max"] < 300_000 + GRACE
        assert sum(outcomes["errors"].values()) == outcomes["calls"]
    # A server that closes at once is not connected to for each call.
    assert one.connections < 200


@pytest.mark.parametrize("mode, error", [("nonsense", "nonsense"), ("stall", "deadlineExceeded"), ("busy", "busy")])
def test_each_failure_has_its_error(mode, error):
    with Misbehaving(mode) as server:
        result = load([address(server)], "--retries", 0, milliseconds=1000).json()
    outcomes = result["servers"][address(server)]
    assert outcomes["errors"].get(error, 0) > 0, outcomes
    assert outcomes["max"] < 300_000 + GRACE


def test_a_server_that_does_not_listen():
    name = f"127.0.0.1:{free_port()}"
    result = load([name], milliseconds=1000).json()
    assert set(result["servers"][name]["errors"]) <= {"unavailable", "circuitOpen"}
    assert result["servers"][name]["max"] < 300_000 + GRACE


def test_a_network_that_swallows_connections():
    with socket.socket() as listener:
        # A full queue: what comes now is neither accepted nor refused.
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        name = f"127.0.0.1:{listener.getsockname()[1]}"
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        result = load([name], milliseconds=1000).json()
        for filler in fillers:
            filler.close()
    assert result["servers"][name]["max"] < 300_000 + GRACE
    assert sum(result["servers"][name]["errors"].values()) == result["servers"][name]["calls"]


def test_a_slow_connection_is_hedged():
    with Misbehaving("slow", seconds=0.12) as server:
        options = ("--milliseconds", 2500, "--tasks", 4, "--timeout", 1000, "--attempt-timeout", 900)
        plain = Probe("load", [address(server)], *options).json()
        server.connections = 0
        server.mode = "answer"
        probe = Probe("load", [address(server)], *options, "--hedge", "--pause", 2)
        probe.ready()
        time.sleep(1)
        server.mode = "slow"
        hedged = probe.json()
    assert plain["hedges"] == 0 and plain["servers"][address(server)]["p50"] > 100_000
    assert hedged["hedges"] > 0 and hedged["hedgeWins"] > 0
    assert hedged["hedges"] <= 0.05 * hedged["calls"] + 21


def test_routers_stand_in_for_each_other(start):
    servers = [start("-m 64 -t 1") for _ in range(2)]
    with Misbehaving("close") as broken:
        names = [address(server) for server in servers] + [address(broken)]
        result = load(names, "--placement", "any", "--retries-per-second", 1000, milliseconds=2000).json()
    outcomes = result["servers"]["any"]
    assert sum(outcomes["errors"].values()) < 0.02 * outcomes["calls"], outcomes


@pytest.mark.parametrize("tasks, milliseconds", [(10_000, 200), (100, 10)])
def test_one_key_is_computed_once(start, tasks, milliseconds):
    server = start("-m 64 -t 1")
    result = Probe("compute", [address(server)], "--tasks", tasks, "--milliseconds", milliseconds).json()
    assert result["computed"] == 1 and result["values"] == tasks and result["errors"] == 0


def test_one_key_is_computed_once_by_several_processes(start):
    server = start("-m 64 -t 1")
    options = ("--tasks", 200, "--milliseconds", 600, "--key", "shared", "--timeout", 5000)
    probes = [Probe("compute", [address(server)], *options) for _ in range(3)]
    results = [probe.json() for probe in probes]
    assert sum(result["computed"] for result in results) == 1, results
    assert all(result["values"] == 200 for result in results), results


def test_a_computation_that_fails_lets_the_next_try(start):
    server = start("-m 64 -t 1")
    failed = Probe("compute", [address(server)], "--tasks", 50, "--fail").json()
    assert failed["errors"] == 50 and failed["computed"] == 1
    begun = time.monotonic()
    assert Probe("compute", [address(server)], "--tasks", 50, "--milliseconds", 10).json()["computed"] == 1
    assert time.monotonic() - begun < 4, "the lease was not given back"


def test_without_the_cache_a_value_is_computed_all_the_same():
    name = f"127.0.0.1:{free_port()}"
    result = Probe("compute", [name], "--tasks", 1000, "--milliseconds", 50, "--timeout", 300).json()
    assert result["computed"] == 1 and result["values"] == 1000


def test_cancelled_calls_end_at_once():
    with Misbehaving("stall") as server:
        result = Probe("cancel", [address(server)], "--tasks", 2000, "--timeout", 20_000, "--attempt-timeout",
                       20_000).json()
    assert result["cancelled"] == 2000
    assert result["microseconds"] < 2_000_000


@pytest.mark.ours
def test_a_cluster_is_asked_for_its_members(start, tmp_path):
    members = tmp_path / "members"
    port = free_port()
    members.write_text("- 127.0.0.1:%d\n- 127.0.0.2:11311\n" % port)
    configuration = tmp_path / "node.yaml"
    configuration.write_text(f"listen: ['127.0.0.1:{port}']\nmembers: 'file:{members}'\n")
    start(["--config", configuration], listen=False, wait=("127.0.0.1", port))
    probe = Probe("owners", (), "--cluster", f"127.0.0.1:{port}", "--rounds", 12, "--pause", 500, "--refresh", 300,
                  "--timeout", 5000)
    time.sleep(1.5)
    members.write_text("- 127.0.0.1:%d\n- 127.0.0.2:11311\n- 127.0.0.3:11311\n" % port)
    rounds = [json.loads(line) for line in probe.result().splitlines()]
    assert len(rounds[0]["servers"]) == 2, rounds[0]
    assert len(rounds[-1]["servers"]) == 3, rounds[-1]


def test_members_are_discovered(nodes, tmp_path):
    members = tmp_path / "members"
    members.write_text("".join(f"- {name}\n" for name in nodes))
    said = run("commands", (), "--source", f"file:{members}", "--timeout", 5000)
    assert said.startswith("ok 3 servers")


@pytest.mark.ours
@pytest.mark.parametrize("source, host", [
    ("dnssrv+_memcached._tcp.cache.example", "127.0.0.77"), ("dns+cache.example:11311", "127.0.0.78"),
])
def test_members_are_found_by_dns(tmp_path, source, host):
    """By the system's resolver, in a place where that is the test's; a member that comes is there soon."""
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {host}\noptions timeout:1\n")
    apart = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf || exit 77; exec "$@"', resolver]
    try:
        server = dns.Server(host, 53)
    except OSError:
        pytest.skip("no right to the port of DNS")
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounts are not allowed here")

    def tell(count):
        hosts = [f"127.0.0.{number + 2}" for number in range(count)]
        server.address_of("cache.example", *hosts)
        server.services("_memcached._tcp.cache.example", *[(f"n{number}.cache.example", 11311) for number in range(count)])
        for number, host in enumerate(hosts):
            server.address_of(f"n{number}.cache.example", host)
        return hosts

    with server:
        tell(2)
        line = [*apart, command(), "owners", "--source", source, "--rounds", "16", "--pause", "500", "--timeout", "5000"]
        probe = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        hosts = tell(3)
        out, err = probe.communicate(timeout=60)
    assert probe.returncode == 0, out + err
    rounds = [json.loads(line) for line in out.splitlines()]
    assert len(rounds[0]["servers"]) == 2 and len(rounds[-1]["servers"]) == 3, rounds
    # A service is named by its target, an address by itself.
    assert any("11311" in name and (hosts[2] in name or "n2.cache.example" in name) for name in rounds[-1]["servers"]), rounds[-1]


def test_nobody_is_found(tmp_path):
    probe = Probe("commands", (), "--source", f"file:{tmp_path}/nowhere", "--timeout", 200)
    out, _ = probe.process.communicate(timeout=30)
    assert probe.process.returncode == 1 and "no servers" in out


def test_speed_on_one_core(start):
    """What a get costs, as gets a second of processor time; the best of several runs, because the machine is shared."""
    server = start("-m 64 -t 1")
    options = ("--own", "--milliseconds", 500, "--timeout", 10_000)
    results = []
    while len(results) < 10 and max(results, default=0) < 300_000:
        results.append(Probe("speed", [address(server)], *options, punctual=True).json()["perCPUSecond"])
    assert max(results) >= 300_000, results
