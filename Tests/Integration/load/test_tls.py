# Martlet
# SPDX-License-Identifier: Apache-2.0
"""TLS to the servers of a load test, of scripts and of workloads; routers; and whose connections are whose."""

import pytest

from bed import Server
from client.test_client import certificates

from .runner import Run

pytestmark = pytest.mark.ours

HEAD = """import memcached from 'k6/x/memcached';
import { check } from 'k6';
"""
ROUND = """
export const options = { vus: 3, iterations: 30, thresholds: { checks: ['rate==1'] } };
export default async function () {
    const value = 'v'.repeat(300000) + __ITER;
    check(await client.set(`tls:${__VU}`, value, 60), { 'is stored': stored => stored });
    check(await client.get(`tls:${__VU}`), { 'comes back': got => got === value });
}"""
WORKLOAD = "{vus: 4, duration: 1s, workload: {operations: {get: 0.5, set: 0.5}, keys: 100, valueSize: 20000, pipeline: 4, verify: true}}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A server that speaks TLS, and the paths of its authority, its certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    authority, chain, key = certificates(folder)
    with Server(["-m", "64", "-t", "1", "-Z", "-o", f"ssl_chain_cert={chain},ssl_key={key}"]) as server:
        yield f"127.0.0.1:{server.port}", authority, chain, key


def script(address, client, *arguments, text=ROUND):
    return Run("--server", address, *arguments, file=f"{HEAD}const client = {client};{text}", name="script.js")


@pytest.mark.parametrize("shared", ["true", "false"])
def test_a_script_speaks_tls(secured, shared):
    address, authority, _, _ = secured
    done = script(address, f"new memcached.Client({{ tls: {{ ca: '{authority}' }}, shared: {shared} }})")
    assert done.code == 0, done
    assert done.figure("memcached_reqs", "count") == 60, done
    careless = script(address, f"new memcached.Client('{address}', {{ tls: {{ insecure: true }}, shared: {shared} }})")
    assert careless.code == 0, careless
    # The test's own option, and the module's own client.
    common = script(address, "memcached", "--tls-ca", authority)
    assert common.code == 0, common


def test_a_workload_and_a_probe_speak_tls(secured):
    address, authority, _, _ = secured
    done = Run("--server", address, "--tls-ca", authority, "--probe", "50", file=WORKLOAD, name="w.yaml")
    assert done.code == 0 and done.figure("memcached_reqs", "count") > 100, done
    assert done.figure("memcached_req_failed", "value") == 0, done
    assert done.figure("memcached_probe_failed", "value") == 0 and "memcached_wrong_values" not in done.err, done
    written = Run("--server", address, file=WORKLOAD[:-1] + f", tls: {{ca: {authority}}}}}", name="w.yaml")
    assert written.code == 0, written


def test_certificates_that_are_not_trusted(secured, tmp_path):
    address, authority, _, _ = secured
    other = certificates(tmp_path)[0]
    word = "certificate is not accepted"
    strange = Run("--server", address, "--tls-ca", other, file=WORKLOAD, name="w.yaml")
    assert strange.code == 102 and word in strange.err, strange
    named = Run("--server", address, "--tls-ca", authority, "--tls-server-name", "cache.example", file=WORKLOAD, name="w.yaml")
    assert named.code == 102 and word in named.err and "mismatch" in named.err, named
    failing = script(address, f"new memcached.Client({{ tls: {{ ca: '{other}' }} }})", text="""
        export default async function () { try { await client.get('k'); } catch (error) { console.log(error.message); } }""")
    assert word in failing.err and failing.figure("memcached_req_failed", "passes") == 1, failing
    system = script(address, "new memcached.Client({ tls: true })", text="export default async function () { await client.get('k'); }")
    assert word in system.err, system


def test_certificates_of_clients(tmp_path):
    authority, chain, key = certificates(tmp_path)
    options = f"ssl_chain_cert={chain},ssl_key={key},ssl_ca_cert={authority},ssl_verify_mode=2"
    with Server(["-m", "64", "-t", "1", "-Z", "-o", options]) as server:
        address = f"127.0.0.1:{server.port}"
        done = Run("--server", address, "--tls-ca", authority, "--tls-cert", chain, "--tls-key", key, file=WORKLOAD, name="w.yaml")
        assert done.code == 0, done
        refused = Run("--server", address, "--tls-ca", authority, file=WORKLOAD, name="w.yaml")
        assert refused.figure("memcached_req_failed", "value") == 1 or refused.code == 102, refused


def test_tls_where_there_is_none_and_none_where_there_is(secured, server):
    plain = Run("--server", f"127.0.0.1:{server.port}", "--insecure-skip-tls-verify", file=WORKLOAD, name="w.yaml")
    assert plain.code in (0, 99, 102) and "TLS: the handshake failed" in plain.err, plain
    bare = Run("--server", secured[0], file=WORKLOAD, name="w.yaml")
    assert "closed the connection" in bare.err or "not memcached" in bare.err, bare


@pytest.mark.parametrize("client, words", [
    ("{ tls: { ca: '/nowhere/ca.pem' } }", "cannot load the CA certificates /nowhere/ca.pem"),
    ("{ tls: { cas: 'x' } }", "there is no such field of tls; did you mean ca?"),
    ("{ tls: 'yes' }", "is none of true, false"),
    ("{ tls: { key: 'x' } }", "a key needs its cert"),
    ("{ router: '127.0.0.1:1', servers: '127.0.0.1:2' }", "stands in the place of 'servers'"),
    ("{ router: '127.0.0.1:1', hash: 'modulo' }", "stands in the place of 'servers'"),
    ("{ router: ['127.0.0.1:1', '127.0.0.1:2'] }", "'router' is one address"),
])
def test_options_that_cannot_be(secured, client, words):
    done = script(secured[0], f"new memcached.Client({client})", text="export default () => {};")
    assert done.code == 107 and words in done.err, done


def test_a_router_is_one_address(server):
    done = script("127.0.0.1:1", f"new memcached.Client({{ router: '127.0.0.1:{server.port}' }})")
    assert done.code == 0 and done.figure("memcached_reqs", "count") == 60, done


@pytest.mark.parametrize("options, connections", [("{}", 4), ("{ shared: false }", 10), ("{ pool: 2 }", 2), ("{ pool: 1, shared: false }", 10)])
def test_whose_connections_are_whose(server, options, connections):
    done = script(
        f"127.0.0.1:{server.port}", f"new memcached.Client({options})", "--threads", "1", "--summary-trend-stats", "count",
        text="export const options = { vus: 10, iterations: 500 };\n"
        "export default async function () { await client.get(`one:${__VU}`); }")
    assert done.code == 0, done
    assert done.figure("memcached_connecting", "count") == connections, done
