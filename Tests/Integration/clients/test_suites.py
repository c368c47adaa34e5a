# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The suites that client libraries test themselves with, unmodified, on the server under test.

How many of their tests pass on Debian's memcached 1.6.18 and on 1.6.45 was counted first; a suite that suddenly runs
fewer has not passed.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pymemcache
import pytest

from .suites import beside, outcome, pytest_line, source

# 1.6.45 fails these itself: since its parser was rewritten, `delete` swallows any number of extra words.
MEMCCAPABLE_EXCUSED = {"ascii delete", "ascii delete noreply"}


def memccapable(server, flag):
    finished = subprocess.run(
        ["memccapable", "-h", "127.0.0.1", "-p", str(server.port), "-t", "20", flag],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    text = finished.stdout + "\n" + finished.stderr
    names = re.findall(r"(?:ascii|binary) [a-z]+(?: noreply)?", finished.stdout)
    # A test that fails prints its name without a newline and no "[pass]".
    passed = set(re.findall(r"((?:ascii|binary) [a-z]+(?: noreply)?) +\[pass\]", finished.stdout))
    return set(names), passed, text


@pytest.mark.parametrize(("flag", "count"), [("-a", 27), ("-b", 27)])
def test_memccapable(start, flag, count):
    names, passed, text = memccapable(start("-m 64"), flag)
    assert names - passed <= MEMCCAPABLE_EXCUSED, text
    assert len(names) >= count, text


def test_pymemcache_integration(start, tmp_path):
    server = start("-m 64")
    file = Path(pymemcache.__file__).parent / "test/test_integration.py"
    report = tmp_path / "report.xml"
    finished = subprocess.run(
        pytest_line(report, file, "-m", "integration", "--server", "127.0.0.1", "--port", str(server.port)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    passed, failed, text = outcome(report, finished)
    assert not failed, text
    assert len(passed) == 100, text


def test_python_memcached(tmp_path):
    shutil.copytree(source("python-memcached") / "tests", tmp_path / "tests")
    # The source package leaves out this helper of its tests.
    (tmp_path / "tests/__init__.py").write_text("")
    (tmp_path / "tests/utils.py").write_text(
        "import contextlib, io, sys\n"
        "@contextlib.contextmanager\n"
        "def captured_stderr():\n"
        "    old, sys.stderr = sys.stderr, io.StringIO()\n"
        "    try:\n"
        "        yield sys.stderr\n"
        "    finally:\n"
        "        sys.stderr = old\n"
    )
    report = tmp_path / "report.xml"
    finished = beside(["-l 127.0.0.1 -p 11211"], pytest_line(report, "tests"), tmp_path)
    passed, failed, text = outcome(report, finished)
    assert not failed, text
    assert len(passed) == 26, text


def test_python_binary_memcached(tmp_path):
    shutil.copytree(source("python_binary_memcached") / "test", tmp_path / "test")
    report = tmp_path / "report.xml"
    socket = Path("/tmp/memcached.sock")  # the suite's own fixed path
    socket.unlink(missing_ok=True)
    # Left out: TLS and SASL, and the IPv6 tests, which need a conftest.py that the source package lacks.
    arguments = [
        "--ignore=test/test_tls.py", "--ignore=test/test_sasl_integration.py", "--ignore=test/test_ipv6.py", "test",
    ]  # fmt: skip
    try:
        finished = beside(
            ["-l 127.0.0.1 -p 11211", "-l 127.0.0.1 -p 5000", f"-s {socket}"],
            pytest_line(report, *arguments),
            tmp_path,
            {"MEMCACHED_HOST": "127.0.0.1"},
        )
    finally:
        socket.unlink(missing_ok=True)
    passed, failed, text = outcome(report, finished)
    assert not failed, text
    assert len(passed) == 249, text
