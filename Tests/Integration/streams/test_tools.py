# Martlet
# SPDX-License-Identifier: Apache-2.0
"""martletctl shows the stream, and finds copies that are older than changes."""

import json
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bed import Server, default_command, free_port
from behaviour import test_tls as tls

from .region import FakeSource, RegionNode, eventually, regions
from .test_streams import Pair
from .test_writes import Fleet

pytestmark = pytest.mark.ours
TOKEN = "a-token-of-some-length"


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


def control(*arguments, admin, token=None, wait=True):
    line = [str(Path(default_command().split()[0]).with_name("martletctl")), *map(str, arguments), f"--node=http://127.0.0.1:{admin}"]
    if token:
        line.append(f"--token-file={token}")
    if not wait:
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def test_tail_prints_each_record_once_and_goes_on_from_its_cursor(tmp_path, token):
    with Pair(tmp_path, admin=True, admin_token_file=token) as both, both.home.client() as home:
        place = tmp_path / "place"
        for number in range(300):
            home.set(f"key:{number % 50}", b"v")
        home.ask("delete key:7")
        assert home.ask("ms YSBi 1 b\r\nv") == "HD"
        code, out, said = control("stream", "tail", "--begin=kept", "--once", "--json", f"--cursor-file={place}",
                                  admin=both.home.admin, token=token)  # fmt: skip
        assert code == 0, said
        found = [json.loads(line) for line in out.splitlines()]
        assert [row["op"] for row in found].count("set") == 301 and len(found) == 302
        assert {row["key"] for row in found} == {f"key%3A{number}" for number in range(50)} | {"a%20b"}
        # Behind 32 promotions the number is more than a double holds.
        assert {(row["epoch"], row["epoch_text"]) for row in found} == {(1, "1")}
        last = {}
        for row in found:
            assert row["seq_first"] == row["seq"] == last.get(row["slot"], 0) + 1 and row["region"] == "us-east"
            last[row["slot"]] = row["seq"]
            assert abs(row["ts_ms"] / 1000 - time.time()) < 60
        home.set("later", b"v")
        home.set("last", b"v")
        lines = control("stream", "tail", "--once", f"--cursor-file={place}", admin=both.home.admin, token=token)[1].splitlines()
        assert sorted(line.split()[-1] for line in lines) == ["last", "later"], "each once, from where it was"
        assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z set    us-east slot \d+ seq \d+ version \d+ la", lines[0])
        assert control("stream", "tail", "--once", f"--cursor-file={place}", admin=both.home.admin, token=token)[1] == ""
        # What comes is printed as it comes.
        running = control("stream", "tail", "--count=2", "--json", admin=both.home.admin, token=token, wait=False)
        time.sleep(1)
        for number in range(4):
            home.set(f"live:{number}", b"v")
        assert running.wait(20) == 0
        assert [json.loads(line)["op"] for line in running.stdout] == ["set", "set"]


def test_tail_tells_of_what_is_missing(tmp_path, token):
    with Pair(tmp_path, home={"retention": "1s"}, admin=True, admin_token_file=token) as both, both.home.client() as home:
        place = tmp_path / "place"
        home.set("k", b"1")
        control("stream", "tail", "--begin=kept", "--once", f"--cursor-file={place}", admin=both.home.admin, token=token)
        mine = place.read_text()
        assert mine.count("-") == 63
        deadline = time.monotonic() + 30
        while True:
            home.set("k", b"2")
            out = control("stream", "tail", "--once", "--json", f"--begin={mine.strip()}", admin=both.home.admin, token=token)[1]
            if any(json.loads(line)["op"] == "lost" for line in out.splitlines()):
                break
            assert time.monotonic() < deadline
            time.sleep(0.5)
        other = "66616b65.9." + "-".join(["0"] * 64)
        out = control("stream", "tail", "--once", f"--begin={other}", admin=both.home.admin, token=token)[1]
        assert out.startswith("another epoch: 1 of "), out


def test_errors_say_what_to_do(tmp_path, token):
    with Pair(tmp_path, admin=True, admin_token_file=token) as both:
        code, _, said = control("stream", "tail", "--once", admin=both.home.admin)
        assert code == 69 and "401" in said
        code, _, said = control("stream", "tail", "--once", admin=both.replica.admin, token=token)
        assert code == 69 and "ask a node of the home region" in said
        code, _, said = control("stream", "tail", "--begin=yesterday", admin=both.home.admin, token=token)
        assert code == 64 and "expected now, kept, or a cursor" in said
        code, _, said = control("stream", "tail", "--once", "--begin=a.b.c", admin=both.home.admin, token=token)
        assert code == 69 and "cursor: expected one" in said
        code, _, said = control("audit", admin=both.home.admin, token=token)
        assert code == 64 and "HOST:PORT" in said


def test_an_audit_of_nodes_that_follow_finds_nothing(tmp_path, token):
    with Fleet(tmp_path, replica={"mode": "replicate"}, admin=True) as fleet:
        fleet.home.stop()
        fleet.home.arguments += ["--admin-token-file", str(token)]
        fleet.home.admin = free_port()
        fleet.home.start()
        with fleet.replica.client() as replica:
            # Home was away: each of the connections to it is to be there again before somebody counts on it.
            eventually(lambda: not any(replica.ask(f"mg key:{number} v").startswith("SERVER_ERROR") for number in range(200)))
        over = threading.Event()

        def work():
            with fleet.home.client() as home, fleet.replica.client() as replica:
                turn = 0
                while not over.is_set():
                    turn += 1
                    home.set(f"key:{turn % 30}", b"%d" % turn)
                    replica.get(f"key:{turn % 30}")
                    time.sleep(0.005)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(3):
                code, out, said = control(
                    "audit", f"127.0.0.1:{fleet.replica.port}", f"127.0.0.1:{fleet.home.port}", "--for=3", "--after=1,2",
                    "--json", admin=fleet.home.admin, token=token)  # fmt: skip
                # A busy machine gets to few of them.
                if code or all(window["checks"] > 100 for window in json.loads(out)["windows"]):
                    break
        finally:
            over.set()
            thread.join()
        report = json.loads(out)
        assert code == 0 and report["stale"] == [], (out, said)
        for window in report["windows"]:
            assert window["checks"] > 100 and window["stale"] == window["failed"] == 0
            assert window["absent"] < window["checks"]


def test_an_audit_that_reaches_no_node_is_no_success(tmp_path, token):
    with Pair(tmp_path, admin=True, admin_token_file=token) as both, both.home.client() as home:
        running = control("audit", f"127.0.0.1:{free_port()}", "--for=3", "--after=1", admin=both.home.admin, token=token,
                          wait=False)  # fmt: skip
        for number in range(30):
            home.set("key", b"%d" % number)
            time.sleep(0.1)
        assert running.wait(30) == 69
        assert "nothing was looked at" in running.stderr.read() and "0 looks" in running.stdout.read()


def test_an_audit_finds_what_a_node_was_not_told(tmp_path, token):
    """A node that follows another source, which tells it nothing: its copies grow old, and it knows no better."""
    silent = FakeSource()
    with Pair(tmp_path, admin=True, admin_token_file=token) as both:
        deaf = RegionNode(tmp_path / "deaf", "eu-west", [
            {**regions(silent.port)[0], "serve": f"127.0.0.1:{both.home.port}"}, regions(silent.port)[1]],
            {"lagBound": "60s"}, backend="region").start()  # fmt: skip
        try:
            deaf.await_figures(trusted="yes", quarantined_slots=0)
            with both.home.client() as home, deaf.client() as client:
                home.set("known", b"1")
                home.set("other", b"1")
                assert client.get("known") == b"1"
                running = control("audit", f"127.0.0.1:{deaf.port}", "--for=4", "--after=1", admin=both.home.admin, token=token,
                                  wait=False)  # fmt: skip
                time.sleep(1.5)
                home.set("known", b"2")
                home.set("other", b"2")
                assert running.wait(30) == 65
                out, said = running.stdout.read(), running.stderr.read()
                assert "copies are older than changes" in said
                assert re.search(r"(?m)^stale: 127\.0\.0\.1:\d+ has version \d+ of known 1 s after \d+$", out), out
                assert re.search(r"after 1 s: \d+ looks, 1 stale, 1 without a copy", out), out
        finally:
            deaf.stop()
            silent.close()


@pytest.fixture
def guarded(tmp_path):
    """A server that speaks TLS only, wants a certificate and a login; its authority, and a visitor's certificate and key."""
    folder = tmp_path / "tls"
    folder.mkdir()
    authority = tls.Authority(folder)
    users = tmp_path / "users"
    users.write_text("ops:a secret\n")
    options = tls.options(authority.issue("server"), f",ssl_verify_mode=2,ssl_ca_cert={authority.certificate}")
    with Server(["-m", "64", "-Y", users, *options]) as server:
        yield server, authority, authority.issue("visitor")


def test_servers_that_want_tls_and_a_login_are_audited(tmp_path, token, guarded, monkeypatch):
    server, authority, (certificate, key) = guarded
    (tmp_path / "other").mkdir()
    strangers = tls.Authority(tmp_path / "other").certificate
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("a secret\n")
    wrong.write_text("no secret\n")
    secured = ("--tls", f"--ca={authority.certificate}", f"--certificate={certificate}", f"--key={key}")
    login = ("--user=ops", f"--password-file={right}")
    with Pair(tmp_path, admin=True, admin_token_file=token) as both, both.home.client() as home:
        def audit(*arguments):
            return control("audit", f"127.0.0.1:{server.port}", "--for=3", "--after=1", "--json", *arguments, admin=both.home.admin,
                           token=token, wait=False)  # fmt: skip

        monkeypatch.delenv("MARTLET_PASSWORD", raising=False)
        running = {
            "file": audit(*secured, *login),
            "plain": audit(*login),
            "stranger": audit("--tls", f"--ca={strangers}", *login),
            "anonymous": audit(*secured),
            "refused": audit(*secured, "--user=ops", f"--password-file={wrong}"),
        }
        monkeypatch.setenv("MARTLET_PASSWORD", "a secret")
        running["environment"] = audit(*secured, "--user=ops")
        deadline = time.monotonic() + 60
        while any(process.poll() is None for process in running.values()) and time.monotonic() < deadline:
            home.set("key", b"v")
            time.sleep(0.02)
        found = {name: (process.wait(1), *process.communicate()) for name, process in running.items()}
        for name in ("file", "environment"):
            code, out, said = found[name]
            [window] = json.loads(out)["windows"]
            assert code == 0 and window["failed"] == 0 and window["checks"] > 10, (name, out, said)
        for name, reason in (
            ("plain", "closed the connection"), ("stranger", "the server's certificate is not accepted"),
            ("anonymous", "the server wants a login: --user and --password-file"), ("refused", "the login of ops is refused"),
        ):  # fmt: skip
            code, out, said = found[name]
            assert code == 69 and reason in said and "nothing was looked at" in said, (name, out, said)
            [problem] = json.loads(out)["problems"]
            assert reason in problem and f"127.0.0.1:{server.port}" in problem
        assert not any("secret" in text for _, out, said in found.values() for text in (out, said))


def test_a_dump_is_restored_by_tls_into_a_server_that_wants_a_login(tmp_path, token, guarded):
    server, authority, visitor = guarded
    right = tmp_path / "right"
    right.write_text("a secret\n")
    dump = tmp_path / "rows.dump"
    with Pair(tmp_path, admin=True, admin_token_file=token) as both, both.home.client() as home:
        for number in range(2000):
            home.set(f"key:{number}", b"v" * 5000)
        code, _, said = control("dump", f"--output={dump}", admin=both.home.admin, token=token)
        assert code == 0, said
        code, out, said = control(
            "restore", f"--input={dump}", f"--server=127.0.0.1:{server.port}", "--json", "--tls", f"--ca={authority.certificate}",
            f"--certificate={visitor[0]}", f"--key={visitor[1]}", "--user=ops", f"--password-file={right}",
            admin=both.home.admin)  # fmt: skip
        assert code == 0 and json.loads(out)["rows"] == 2000, said
        with tls.connect(server, tls.context(authority, visitor)) as client:
            assert client.ask("set auth 0 0 12\r\nops a secret") == "STORED"
            assert client.get("key:1999") == b"v" * 5000
        code, _, said = control(
            "restore", f"--input={dump}", f"--server=127.0.0.1:{server.port}", "--tls", f"--ca={authority.certificate}",
            f"--certificate={visitor[0]}", f"--key={visitor[1]}", admin=both.home.admin)  # fmt: skip
        assert code == 69 and "the server wants a login" in said, said


def test_options_of_tls_and_logins_that_make_no_sense(tmp_path):
    absent, password = tmp_path / "absent.pem", tmp_path / "password"
    password.write_text("a secret\n")
    for arguments, expected in (
        ([f"--ca={absent}"], "--ca is of TLS: it needs --tls"), (["--tls-name=x"], "--tls-name is of TLS: it needs --tls"),
        (["--tls", f"--key={absent}"], "--key: a key needs its certificate, --certificate"),
        (["--tls", f"--ca={absent}"], f"cannot load the CA certificates {absent}"),
        (["--user=ops"], "--user needs a password: the first line of --password-file or $MARTLET_PASSWORD_FILE, or $MARTLET_PASSWORD"),
        (["--user=o ps", f"--password-file={password}"], "--user=o ps: expected printable ASCII characters without spaces and colons"),
        ([f"--password-file={password}"], "--password-file: whose it is says --user"),
    ):  # fmt: skip
        code, _, said = control("audit", "127.0.0.1:1", *arguments, admin=1)
        assert code == 64 and expected in said, (arguments, said)
