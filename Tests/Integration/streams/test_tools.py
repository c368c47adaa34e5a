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

from bed import default_command, free_port

from .region import FakeSource, RegionNode, regions
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
