# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Running somebody else's test suite beside a server, if need be on a network of its own."""

import os
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bed import default_command
from bed.server import ROOT

SUITES = ROOT / ".venv/suites"


def namespace():
    """How to start a command on a private network, or None where that is not permitted."""
    for line in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if subprocess.run([*line, "true"], capture_output=True, check=False).returncode == 0:
            return line
    return None


def beside(listeners, command, folder, variables=None, seconds=120):
    """Runs a command on a private network, beside servers with the given address flags."""
    private = namespace()
    if private is None:
        pytest.skip(
            "this suite has fixed ports, and neither root nor user namespaces are to be had for a private network"
        )
    starts = "".join(
        f'{default_command()} {flags}{" -u root" if os.geteuid() == 0 else ""} & pids="$pids $!"\n'
        for flags in listeners
    )
    waits = "".join(f"wait_for {shlex.quote(address_of(flags))}\n" for flags in listeners)
    script = f"""
        ip link set lo up
        wait_for() {{
            for _ in $(seq 200); do
                if [ -S "$1" ] || (exec 3<>"/dev/tcp/$1") 2>/dev/null; then return; fi; sleep 0.05
            done
            echo "the server never listened on $1"; exit 99
        }}
        {starts}
        {waits}
        "$@"
        code=$?
        kill $pids
        wait
        exit $code
    """
    return subprocess.run(
        [*private, "bash", "-c", script, "bash", *map(str, command)],
        cwd=folder,
        env=dict(os.environ, MARTLET_ADMIN="off", **(variables or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def address_of(flags):
    """The address that a server with these flags listens on, as bash's /dev/tcp wants it."""
    words = shlex.split(flags)
    if "-s" in words:
        return words[words.index("-s") + 1]
    return f"{words[words.index('-l') + 1]}/{words[words.index('-p') + 1]}"


def pytest_line(report, *arguments):
    """A pytest command that knows nothing of our own settings and writes a report."""
    return [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        "/dev/null",
        "-p",
        "no:xdist",
        "--junit-xml",
        report,
        *arguments,
    ]


def outcome(report, finished):
    """(names that passed, names that failed, text) of a pytest report."""
    path = Path(report)
    if not path.exists():
        pytest.fail(
            f"the suite ended with {finished.returncode} and no report\n"
            f"{finished.stdout[-3000:]}\n{finished.stderr[-3000:]}"
        )
    passed, failed = [], []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif case.find("skipped") is None:
            passed.append(name)
    return passed, failed, finished.stdout[-6000:]


def source(name):
    """The unpacked source package of a client library."""
    found = sorted(SUITES.glob(f"{name}-*[0-9]"))
    if not found:
        pytest.fail(f"no source package of {name} in {SUITES}: run `make install`")
    return found[-1]
