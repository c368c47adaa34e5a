# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the outside-in tests. The server under test is MARTLET_SERVER, by default the release build."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bed import Server, default_command, memcached_command


# Files that take long, the longest first: whoever gets one of them last would work on when the others have nothing left.
LONG = [
    "streams/test_promotion.py", "streams/test_rounds.py", "streams/test_kafka.py", "storage/test_postgres.py",
    "operations/test_martletctl.py", "router/test_rolling.py", "upgrades/test_upgrade.py", "load/test_agents.py", "router/test_spool.py",
    "load/test_screen.py", "clients/test_suites.py", "charts/test_chart.py", "documents/test_blocks.py",
    "streams/test_writes.py", "client/test_client.py", "storage/test_linearizable.py", "streams/test_shared_database.py",
    "load/test_load_tests.py", "storage/test_conflicts.py", "storage/test_rings.py", "streams/test_owners.py",
    "streams/test_streams.py", "discovery/test_members.py", "storage/test_durability.py", "router/test_changes.py",
    "storage/test_failing_disk.py", "placement/test_nutcracker.py", "streams/test_debezium.py",
    "streams/test_monitor.py", "overload/test_shedding.py", "router/test_hot_keys.py"]  # fmt: skip


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    assert not (gone := [name for name in LONG if not (here / name).exists()]), f"there are no such files: {gone}"
    places = {here / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def is_original(command):
    """Whether the command is a memcached rather than ours, judged by its help text."""
    shown = subprocess.run(shlex.split(command) + ["-h"], capture_output=True, text=True, timeout=20)
    return "Martlet" not in shown.stdout + shown.stderr


def pytest_configure(config):
    program = shlex.split(default_command())[0]
    if not (os.path.exists(program) or shutil.which(program)):
        raise pytest.UsageError(f"no server to test at {program}: run `make build`, or set MARTLET_SERVER")
    config.addinivalue_line("markers", "ours: what Martlet does and memcached does not; skipped on a memcached")
    config.addinivalue_line("markers", "alone: measures time; `make test` runs it when nothing else runs")
    config.addinivalue_line("markers", "newest: what only 1.6.45 does this way; skipped on an older memcached")


def pytest_terminal_summary(terminalreporter):
    """Names in MARTLET_SECOND_RUN, a file, the tests that failed and may be asked once more, alone.

    Not one whose failure names a seed: a random history that shows a fault has shown it, whatever the next one does.
    """
    path = os.environ.get("MARTLET_SECOND_RUN")
    failed = [*terminalreporter.stats.get("failed", []), *terminalreporter.stats.get("error", [])]
    if path and not any(re.search(r"MARTLET_SEED=\d", str(report.longrepr)) for report in failed):
        name = terminalreporter.config.cwd_relative_nodeid
        with open(path, "w") as file:
            file.writelines(f"{one}\n" for one in dict.fromkeys(name(report.nodeid) for report in failed))


@pytest.fixture(scope="session")
def original():
    """Whether the server under test is a memcached itself, with which these suites are baselined."""
    return is_original(default_command())


@pytest.fixture(scope="session")
def version():
    """The version of the server under test, as a tuple."""
    shown = subprocess.run(shlex.split(default_command()) + ["-V"], capture_output=True, text=True, timeout=20)
    return tuple(int(part) for part in shown.stdout.split()[1].split(".")[:3])


@pytest.fixture(autouse=True)
def only_ours(request):
    if request.node.get_closest_marker("ours") and request.getfixturevalue("original"):
        pytest.skip("a memcached does not do this")
    if request.node.get_closest_marker("newest") and request.getfixturevalue("version") < (1, 6, 45):
        pytest.skip("an older memcached does this otherwise")


@pytest.fixture
def start():
    """Starts servers that are stopped when the test ends."""
    running = []

    def begin(*arguments, **options):
        server = Server(*arguments, **options)
        running.append(server)
        return server

    yield begin
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def server():
    """One server for the tests of a module that leave no trace in each other's way."""
    with Server("-m 64 -t 2") as one:
        yield one


@pytest.fixture
def client(server):
    with server.client() as one:
        yield one


@pytest.fixture(scope="session")
def memcached():
    """The command of an original memcached to compare with."""
    return memcached_command()
