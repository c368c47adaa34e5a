# Martlet
# SPDX-License-Identifier: Apache-2.0
"""For scripts that start programs on loopback and end them with themselves."""

import atexit
import ctypes
import signal
import socket
import subprocess
import sys
import time


def is_taken(port):
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end_in_order():
    """Has the script end as at its end, and with it what it registered, when it is told to end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    # A shell that starts this behind `&` has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(line, log):
    """A program whose words go to the file `log`. It ends with this script, however that ends."""
    with open(log, "wb") as said:
        return subprocess.Popen([str(word) for word in line], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                preexec_fn=_with_parent)  # fmt: skip


def _with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def await_listening(port, process, what, log):
    """Waits up to a minute until a program listens; ends the script with what it said where it does not."""
    for _ in range(1200):
        if is_taken(port):
            return
        if process.poll() is not None:
            with open(log, errors="replace") as said:
                sys.exit(f"{what} ended at its start with {process.returncode}:\n{said.read()}")
        time.sleep(0.05)
    sys.exit(f"{what} did not listen on 127.0.0.1:{port}")


def end_at_exit(processes):
    """Ends the programs when the script does, the last first."""

    def end():
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()

    atexit.register(end)
