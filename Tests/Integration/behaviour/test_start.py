# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The command line: what stops the start and with which words, what is accepted, where the server then listens."""

import os
import shlex
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from bed import Client, default_command, free_port

# flags, exit code, what the first line says. All of it is 1.6.45's own.
REFUSED = [
    ("-c 0", 1, "Maximum connections must be greater than 0"),
    ("-c -1", 1, "Maximum connections must be greater than 0"),
    ("-t 0", 1, "Number of threads must be greater than 0"),
    ("-t abc", 1, "Number of threads must be greater than 0"),
    ("-R 0", 1, "Number of requests per event must be greater than 0"),
    ("-B http", 64, "Invalid value for binding protocol: http"),
    ("-I 1000", 64, "Item max size cannot be less than 1024 bytes."),
    ("-I 40m", 64, "Cannot set item size limit higher than 1/2 of memory max."),
    ("-m 0", 64, "Cannot set item size limit higher than 1/2 of memory max."),
    ("-m abc", 64, "Cannot set item size limit higher than 1/2 of memory max."),
    ("-o foo", 1, 'Illegal suboption "foo"'),
    ("-o hashpower=99", 1, "Initial hashtable multiplier of 99 is too high"),
    ("-o idle_timeout", 1, "Missing numeric argument for idle_timeout"),
    ("-o hash_algorithm=foo", 1, "Unknown hash_algorithm option"),
    ("-o tail_repair_time=5", 1, "Cannot set tail_repair_time to less than 10 seconds"),
    ("-o read_buf_mem_limit=x", 1, "could not parse argument to read_buf_mem_limit"),
    ("-f 0.5", 1, "Factor must be greater than 1"),
    ("-n 0", 1, "Chunk size must be greater than 0"),
    ("-p 70000", 64, "Invalid port number 70000"),
    ("-l bad.invalid", 71, "getaddrinfo"),
    ("-Q", 1, "invalid option"),
    ("-Y /nonexistent", 1, "/nonexistent"),
]


def run(arguments, seconds=10, environment=None):
    user = ["-u", "root"] if os.geteuid() == 0 and "-u" not in arguments else []
    return subprocess.run(
        shlex.split(default_command()) + user + arguments,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
        env=dict(os.environ, MARTLET_ADMIN="off", **(environment or {})),
    )


@pytest.mark.newest
@pytest.mark.parametrize(("flags", "code", "text"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses_a_bad_flag_as_memcached_does(flags, code, text):
    finished = run(["-l", "127.0.0.1", "-p", str(free_port()), *shlex.split(flags)])
    assert finished.returncode == code, finished.stderr
    assert text in finished.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the user")
def test_refuses_an_unknown_user():
    finished = run(["-u", "nosuchuser"])
    assert finished.returncode == 67
    assert "can't find the user nosuchuser" in finished.stderr


def test_refuses_a_port_in_use(start):
    server = start()
    finished = run(["-l", "127.0.0.1", "-p", str(server.port)])
    assert finished.returncode == 71
    assert "failed to listen" in finished.stderr


def test_refuses_a_unix_socket_in_a_folder_that_is_not_there(tmp_path):
    finished = run(["-s", str(tmp_path / "missing/node.sock")])
    assert finished.returncode == 71
    assert "failed to listen on UNIX socket" in finished.stderr


ACCEPTED = [
    "-m 128", "-m 8 -I 1m", "-c 100", "-t 1", "-t 8", "-v", "-R 5", "-C", "-b 64", "-B ascii", "-B auto",
    "-I 2m -m 64", "-I 512k -o slab_chunk_max=256", "-F",
    "-M", "-X", "-W", "-f 1.05", "-n 72", "-L", "-D .", "-k", "-A", "-r",
    "-o modern", "-o no_modern", "-o maxconns_fast", "-o no_maxconns_fast", "-o hashpower=16",
    "-o hash_algorithm=murmur3",
    "-o hash_algorithm=jenkins", "-o hash_algorithm=xxh3", "-o lru_crawler", "-o no_lru_crawler",
    "-o lru_crawler_sleep=500",
    "-o lru_crawler_tocrawl=100", "-o lru_maintainer", "-o no_lru_maintainer", "-o hot_lru_pct=10,warm_lru_pct=30",
    "-o hot_max_factor=0.3,warm_max_factor=2.5", "-o temporary_ttl=30", "-o idle_timeout=100", "-o slab_reassign",
    "-o no_slab_reassign", "-o slab_automove", "-o slab_automove=0", "-o no_slab_automove",
    "-o slab_automove_ratio=0.5",
    "-o slab_automove_window=20", "-o slab_chunk_max=256", "-o track_sizes", "-o no_hashexpand",
    "-o watcher_logbuf_size=128,worker_logbuf_size=128", "-o read_buf_mem_limit=64", "-o resp_obj_mem_limit=64",
    "-o tail_repair_time=60", "-o no_inline_ascii_resp", "-o inline_ascii_resp", "-o no_chunked_items",
    "-o ext_item_size=512",
    "-o slab_automove,lru_maintainer,lru_crawler,idle_timeout=60,hash_algorithm=murmur3",
    "--memory-limit=100 --threads=2 --conn-limit=50", "--max-item-size=1m --protocol=ascii", "--extended=modern",
]  # fmt: skip


@pytest.mark.parametrize("flags", ACCEPTED)
def test_accepts_and_serves(start, flags):
    with start(flags).client() as client:
        assert client.set("k", b"v") == "STORED"
        assert client.get("k") == b"v"


def test_help_and_version_are_recognised_by_tools(version):
    shown = run(["-h"])
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"memcached {'.'.join(map(str, version))}")
    for word in ("--port=", "--memory-limit=", "--unix-socket=", "--enable-ssl", "idle_timeout", "-Y, --auth-file"):
        assert word in shown.stdout
    assert run(["-V"]).stdout.startswith(f"memcached {'.'.join(map(str, version))}")
    assert run(["-i"]).returncode == 0


def test_several_addresses(start):
    one, two = free_port(), free_port()
    server = start(["-l", f"127.0.0.1:{one},127.0.0.1:{two}"], listen=False, wait=("127.0.0.1", one))
    with server.client() as first, Client(socket.create_connection(("127.0.0.1", two), 5)) as second:
        first.set("shared", b"yes")
        assert second.get("shared") == b"yes"


def test_repeated_listen_flags(start):
    one, two = free_port(), free_port()
    server = start(["-l", f"127.0.0.1:{one}", "-l", f"127.0.0.1:{two}"], listen=False, wait=("127.0.0.1", one))
    assert Client(socket.create_connection(("127.0.0.1", two), 5)).ask("mn") == "MN"
    assert server.alive()


def test_ipv6(start):
    try:
        port = free_port(host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    start(["-l", f"[::1]:{port}"], listen=False, wait=("::1", port))
    assert Client(socket.create_connection(("::1", port), 5)).ask("mn") == "MN"


def test_port_file_names_an_ephemeral_port(start, tmp_path):
    path = tmp_path / "ports"
    server = start(["-l", "127.0.0.1", "-p", "-1"], listen=False, environment={"MEMCACHED_PORT_FILENAME": str(path)})
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    text = path.read_text()
    assert text.startswith("TCP INET: "), text
    port = int(text.split()[2])
    assert Client(socket.create_connection(("127.0.0.1", port), 5)).ask("mn") == "MN"
    assert server.alive()


@pytest.mark.parametrize(("flags", "mode"), [("", 0o700), ("-a 0777", 0o777), ("-a 660", 0o660)])
def test_unix_socket_and_its_mask(start, tmp_path, flags, mode):
    path = tmp_path / "node.sock"
    server = start(flags, unix=path)
    with server.client() as client:
        assert client.set("k", b"v") == "STORED"
        assert client.stats("settings")["domain_socket"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_replaces_a_stale_unix_socket(start, tmp_path):
    path = tmp_path / "node.sock"
    start(unix=path).stop()
    assert path.exists()
    assert start(unix=path).client().ask("mn") == "MN"


def test_daemon_writes_its_pid(tmp_path):
    port, pidfile = free_port(), tmp_path / "node.pid"
    finished = run(["-d", "-P", str(pidfile), "-l", "127.0.0.1", "-p", str(port)])
    assert finished.returncode == 0
    deadline = time.monotonic() + 10
    while not (pidfile.exists() and pidfile.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.01)
    pid = int(pidfile.read_text())
    try:
        while True:
            try:
                client = Client(socket.create_connection(("127.0.0.1", port), 5))
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert client.ask("mn") == "MN"
        assert int(client.stats()["pid"]) == pid
    finally:
        os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline + 5:
        time.sleep(0.01)
    assert not pidfile.exists(), "the pid file stays behind"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the user")
def test_drops_to_the_user_it_is_told(start):
    server = start("-u nobody")
    owner = next(row for row in Path(f"/proc/{server.pid}/status").read_text().split("\n") if row.startswith("Uid:"))
    assert set(owner.split()[1:]) == {"65534"}


@pytest.mark.ours
@pytest.mark.skipif(os.geteuid() != 0, reason="only root is warned")
def test_root_is_warned_but_served():
    port = free_port()
    line = [*shlex.split(default_command()), "-l", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        text = ""
        while "listening" not in text or f":{port}" not in text:
            read = process.stderr.readline()
            assert read, text
            text += read
        assert "running as root" in text
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.ours
def test_listens_on_loopback_without_being_told():
    port = free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [*shlex.split(default_command()), "-p", str(port), *user],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, MARTLET_ADMIN="off"),
    )
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.01)
        listeners = subprocess.run(
            ["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True, check=True
        ).stdout
        addresses = {row.split()[3].rpartition(":")[0] for row in listeners.splitlines()}
        assert addresses <= {"127.0.0.1", "[::1]"}, listeners
    finally:
        process.terminate()
        _, said = process.communicate(timeout=10)
    assert "-l 0.0.0.0" in said


@pytest.mark.ours
class TestOurConfiguration:
    def test_file_environment_and_flags_in_that_order(self, start, tmp_path):
        file = tmp_path / "node.yaml"
        file.write_text("memory: 100MiB\nthreads: 2\n")
        with start(["--config", str(file)]).client() as client:
            assert client.stats()["limit_maxbytes"] == str(100 << 20)
        with start(["--config", str(file)], environment={"MARTLET_MEMORY": "200MiB"}).client() as client:
            assert client.stats()["limit_maxbytes"] == str(200 << 20)
        server = start(["--config", str(file), "-m", "300"], environment={"MARTLET_MEMORY": "200MiB"})
        with server.client() as client:
            assert client.stats()["limit_maxbytes"] == str(300 << 20)
            assert client.stats()["threads"] == "2"

    def test_unknown_key_is_named_with_its_line(self, tmp_path):
        file = tmp_path / "node.yaml"
        file.write_text("threads: 2\nmemroy: 1GiB\n")
        finished = run(["--config", str(file), "--check-config"])
        assert finished.returncode != 0
        for word in ("node.yaml", "2", "memroy", "memory"):
            assert word in finished.stderr

    def test_check_config_does_not_start(self, tmp_path):
        file = tmp_path / "node.yaml"
        file.write_text("memory: 64MiB\n")
        assert run(["--config", str(file), "--check-config"]).returncode == 0

    def test_help_says_whose_it_is(self):
        assert "Martlet" in run(["-h"]).stdout


@pytest.mark.ours
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take /proc away")
def test_without_proc_it_does_not_take_its_arguments_for_none():
    script = 'mount --make-rprivate / && umount -l /proc && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", *shlex.split(default_command()), "-V"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr.split("martlet:")[0]:
        pytest.skip("this machine has no mount namespaces")
    assert done.returncode == 71 and "is /proc mounted?" in done.stderr
