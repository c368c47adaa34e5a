# Martlet
# SPDX-License-Identifier: Apache-2.0
"""`make fleet`: a router and three nodes that share one real PostgreSQL, and nothing left when it ends."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from bed import Client, free_port
from bed.server import ROOT

from .bed import default_router

BIN = ROOT / ".build/release"


@pytest.mark.skipif(not os.access("/usr/lib/postgresql/15/bin/initdb", os.X_OK), reason="no PostgreSQL here")
def test_a_fleet_starts_serves_and_leaves_nothing():
    if Path(default_router()).resolve().parent != BIN.resolve() or not (BIN / "martletctl").exists():
        pytest.skip("the fleet is of the release build's programs")
    port, admin = free_port(), free_port()
    fleet = subprocess.Popen(
        [ROOT / "Scripts/run-fleet", "--port", str(port), "--admin", str(admin)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    try:
        while "Ctrl-C ends it all" not in said:
            line = fleet.stdout.readline()
            assert line, said
            said += line
        with Client(socket.create_connection(("127.0.0.1", port), 10)) as client:
            # A busy machine is slow to make all connections to a database.
            deadline = time.monotonic() + 20
            while any(client.set(f"fleet-{number}", f"value {number}") != "STORED" for number in range(60)):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            for number in range(60):
                assert client.get(f"fleet-{number}") == f"value {number}".encode()
            assert client.stats()["num_servers"] == "3"
        url = re.search(r"postgresql://\S+", said).group(0)
        count = subprocess.run(
            ["psql", url, "-Atc", "SELECT count(*) FROM martlet_kv"], capture_output=True, text=True, timeout=20
        )
        assert count.stdout.strip() == "60", count
        pids = [int(pid) for pid in re.findall(r"process (\d+)", said)]
        # A node that is killed costs its own keys, and only until it is known to be gone.
        os.kill(pids[0], signal.SIGKILL)
        time.sleep(0.3)
        with Client(socket.create_connection(("127.0.0.1", port), 10)) as client:
            answers = [client.ask(f"mg fleet-{number}") for number in range(60)]
        assert answers.count("HD") > 10
        assert all(one == "HD" or one.startswith("SERVER_ERROR ") for one in answers)
    finally:
        fleet.send_signal(signal.SIGINT)
        fleet.wait(90)
        fleet.stdout.close()
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids[1:])
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(re.search(r"127.0.0.1:(\d+)/martlet", url).group(1))), 1)
