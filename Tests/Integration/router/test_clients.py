# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The suites of client libraries, and ours of them, on a router in front of three nodes."""

import os
import subprocess
from pathlib import Path

import pymemcache
import pytest
from bed import Server

from clients.suites import outcome, pytest_line
from clients.test_libraries import *  # noqa: F403
from clients.test_suites import *  # noqa: F403


@pytest.fixture(autouse=True)
def everything_on_a_fleet(fleet):
    """Servers that these suites start are fleets."""


@pytest.fixture(scope="module")
def server():
    """One fleet for the tests of a module."""
    from .conftest import ROOT

    command = str(ROOT / "Tests/Integration/router/fleet.py")
    node = os.environ.get("MARTLET_SERVER") or str(ROOT / ".build/release/martlet-server")
    with Server("-m 64 -t 2", command=command, environment={"MARTLET_NODE": node}) as one:
        yield one


@pytest.fixture(scope="session")
def original():
    return False


def test_pymemcache_integration(start, tmp_path):
    """All of it but `cache_memlimit`, which is about one server's memory and refused by a router."""
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
    assert all(".test_misc[" in name for name in failed), text
    assert len(passed) == 94, text
