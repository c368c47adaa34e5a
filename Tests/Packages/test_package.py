# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The Debian package: lintian, its unit, its man pages and completions; installed, run and purged in a root of Debian
that mmdebstrap makes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from bed import free_port
from conftest import OUT, run

PROGRAMS = ("martlet-server", "martletctl", "martlet-router", "martlet-load")


@pytest.fixture(scope="module")
def content(package, tmp_path_factory):
    """The package's files, unpacked."""
    place = tmp_path_factory.mktemp("content")
    run("dpkg-deb", "-x", package, place)
    return place


def test_lintian_finds_no_errors(package):
    # The one thing it may find: the project has no address for mail.
    done = run("lintian", "--fail-on", "error,warning", "--suppress-tags",
               "bogus-mail-host,bogus-mail-host-in-debian-changelog", package, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_units_are_hardened(content):
    units = list((content / "lib/systemd/system").glob("*.service"))
    assert units
    for unit in units:
        done = run("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", unit, check=False)
        assert done.returncode == 0, done.stdout[-300:]


def test_man_pages_are_sound(content):
    for program in PROGRAMS:
        page = content / f"usr/share/man/man1/{program}.1.gz"
        done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr
        text = run("man", "-E", "UTF-8", "-l", page, env={**os.environ, "MANWIDTH": "200", "MANPAGER": "cat"}).stdout
        plain = re.sub(r".\x08|\x1b\[[0-9;]*m", "", text)
        for option in options(content, program):
            assert option in plain, option
        helped = run(content / f"usr/bin/{program}", "--help").stdout
        for command in re.findall(rf"(?m)^  {program} ([a-z]+(?: [a-z]+)*?)(?= --| {{2,}}| [A-Z]|$)", helped):
            assert re.search(rf"(?m)^ +({program} )?{command}\b", plain), command
            if " " not in command:
                script = (content / f"usr/share/bash-completion/completions/{program}").read_text()
                assert re.search(rf'compgen -W "[^"-]*\b{command}\b', script), command


def options(content, program):
    """Every long option that the program's help shows."""
    return set(re.findall(r"(?m)^ *(?:-\w, )?(--[a-z][\w-]+)", run(content / f"usr/bin/{program}", "--help").stdout))


@pytest.mark.parametrize("program", PROGRAMS)
def test_completions_offer_every_option(content, program):
    known = options(content, program)
    assert len(known) > 10
    script = content / f"usr/share/bash-completion/completions/{program}"
    ask = f'. {script}; COMP_WORDS=({program} --); COMP_CWORD=1; _{program.replace("-", "_")} 2>/dev/null; echo "${{COMPREPLY[@]}}"'
    offered = {word.rstrip("=") for word in run("bash", "-c", ask).stdout.split()}
    assert offered == known
    for shell, path in (("zsh", f"usr/share/zsh/vendor-completions/_{program}"),
                        ("fish", f"usr/share/fish/vendor_completions.d/{program}.fish")):  # fmt: skip
        run(shell, "-n", content / path)
        text = (content / path).read_text()
        for option in known:
            assert option in text if shell == "zsh" else f"-l {option[2:]} " in text + " ", (shell, option)
    listed = run("fish", "-c", f"source {content}/usr/share/fish/vendor_completions.d/{program}.fish; "
                               f"complete -C '{program} --'").stdout  # fmt: skip
    assert {line.split("\t")[0].rstrip("=") for line in listed.splitlines()} >= known


def test_completions_know_values(content):
    script = content / "usr/share/bash-completion/completions/martlet-server"

    def offer(*words):
        listed = " ".join(f"'{word}'" for word in words)
        ask = f'. {script}; COMP_WORDS=(martlet-server {listed}); COMP_CWORD={len(words)}; _martlet_server; echo "${{COMPREPLY[@]}}"'
        return run("bash", "-c", ask).stdout.split()

    assert offer("--storage-backend", "=", "ro") == ["rocksdb"]
    assert offer("--storage-backend", "=", "r") == ["rocksdb", "region"]
    assert offer("--log-level", "") == ["debug", "info", "warning", "error"]
    assert offer("--items-evict", "=", "") == ["true", "false"] or offer("--items-evict", "=") == ["true", "false"]


def test_it_depends_on_what_its_programs_load(package):
    """With versions; librdkafka comes in by its library, as all do."""
    depends = run("dpkg-deb", "-f", package, "Depends").stdout
    for name in ("librdkafka1", "librocksdb7.8", "libpq5", "libcurl4", "libssl3"):
        assert re.search(rf"(^|, ){re.escape(name)} \(>= \S+\)(,|$)", depends.strip()), (name, depends)


@pytest.fixture(scope="module")
def debian(package):
    """A root of Debian 12 with what the package depends on, and without the package. It is kept in out/ for the next
    time."""
    control = run("dpkg-deb", "-f", package, "Depends").stdout
    depends = ",".join(sorted({part.split()[0] for part in control.split(",")}))
    archive, made = OUT / "debian-root.tar", OUT / "debian-root.list"
    if not archive.exists() or not made.exists() or made.read_text() != depends:
        run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={depends}", "bookworm", archive, timeout=900)
        made.write_text(depends)
    directory = Path(tempfile.mkdtemp(prefix="martlet-debian-"))
    run("tar", "-xpf", archive, "-C", directory, "--numeric-owner")
    yield directory
    shutil.rmtree(directory)


def inside(root, *line, check=True):
    return run("chroot", root, *line, check=check, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                                                       "DEBIAN_FRONTEND": "noninteractive"})  # fmt: skip


def names(root):
    """Every file that a package may leave behind: not the caches and logs of apt, dpkg and the linker."""
    skipped = {"var/cache", "var/log", "var/lib/dpkg", "var/lib/apt", "var/lib/systemd", "proc", "sys", "dev", "tmp", "run"}
    own = {"etc/ld.so.cache", "etc/subuid", "etc/subgid"} | {f"etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")}
    found = set()
    for place, directories, files in os.walk(root):
        here = os.path.relpath(place, root)
        inner = [os.path.normpath(os.path.join(here, name)) for name in directories]
        directories[:] = [os.path.basename(name) for name in inner if name not in skipped]
        found |= {name for name in inner if name not in skipped}
        found |= {os.path.normpath(os.path.join(here, name)) for name in files}
    return found - own


def test_it_installs_runs_and_leaves_nothing(debian, package):
    run("mount", "-t", "proc", "proc", debian / "proc")
    try:
        before, users = names(debian), (debian / "etc/passwd").read_text()
        shutil.copy(package, debian / "tmp/martlet.deb")
        inside(debian, "dpkg", "--install", "/tmp/martlet.deb")
        assert re.search(r"^martlet:", (debian / "etc/passwd").read_text(), re.M)
        for unit in ("martlet.service", "martlet-router.service"):
            verified = inside(debian, "systemd-analyze", "verify", f"/lib/systemd/system/{unit}", check=False)
            faults = [line for line in verified.stderr.splitlines() if "martlet" in line and "man martlet" not in line]
            assert not faults
            assert not (debian / "etc/systemd/system/multi-user.target.wants" / unit).exists(), "it is not enabled"
        for program in PROGRAMS:
            assert "martlet" in inside(debian, program, "--help").stdout.lower()
        inside(debian, "martlet-server", "--config", "/etc/martlet/node.yaml", "--check-config")
        inside(debian, "martlet-router", "--config", "/etc/martlet/router.yaml", "--check-config")
        serve(debian)
        # Installing it again, as an upgrade does, keeps what an administrator changed.
        settings = debian / "etc/martlet/node.yaml"
        settings.write_text(settings.read_text() + "\ncluster: kept\n")
        inside(debian, "dpkg", "--install", "--force-confold", "/tmp/martlet.deb")
        assert "cluster: kept" in settings.read_text()
        inside(debian, "dpkg", "--remove", "martlet")
        assert settings.exists() and (debian / "var/lib/martlet/store").exists(), "remove keeps settings and data"
        inside(debian, "dpkg", "--purge", "martlet")
        left = names(debian) - before
        assert not left, left
        assert (debian / "etc/passwd").read_text() == users, "the user is gone too"
    finally:
        run("umount", debian / "proc")


def serve(root):
    """The command of the unit, as its user, with a directory of state and a supervisor's socket; its end by the unit's
    signal."""
    unit = (root / "lib/systemd/system/martlet.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", unit, re.M)[1].split()
    assert re.search(r"^KillSignal=SIGTERM$", unit, re.M)
    state = root / "var/lib/martlet"
    state.mkdir(mode=0o750)
    identity = re.search(r"^martlet:x:(\d+):(\d+):", (root / "etc/passwd").read_text(), re.M).groups()
    os.chown(state, *map(int, identity))
    settings = root / "etc/martlet/node.yaml"
    text = settings.read_text()
    settings.write_text(text + "\nstorage: {backend: rocksdb, path: /var/lib/martlet/store}\n")
    path = root / "tmp/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        path.chmod(0o777)
        supervisor.settimeout(30)
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", "chroot",
             f"--userspec={identity[0]}:{identity[1]}", root, *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"NOTIFY_SOCKET": "/tmp/notify", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})  # fmt: skip
        try:
            assert b"READY=1" in supervisor.recv(4096)
            code = ("import socket; s = socket.create_connection(('127.0.0.1', 11211), 5); "
                    "s.sendall(b'set k 0 0 1\\r\\nv\\r\\nget k\\r\\nquit\\r\\n'); print(s.makefile().read())")  # fmt: skip
            said = run("nsenter", "--net", "-t", process.pid, "python3", "-c", code).stdout
            assert said.split() == ["STORED", "VALUE", "k", "0", "1", "v", "END"]
            process.send_signal(signal.SIGTERM)
            assert b"STOPPING=1" in supervisor.recv(4096)
            assert process.wait(20) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    path.unlink()
    settings.write_text(text)


KAFKA = """
region: south
regions: [{name: north, role: home}, {name: south, role: replica}]
stream: {transport: kafka, kafka: {brokers: 127.0.0.1:1}}
"""


@pytest.mark.parametrize(("unit", "way"), [("martlet", "store"), ("martlet", "kafka"), ("martlet-router", "servers")])
def test_units_allow_the_system_calls_that_are_made(content, tmp_path, unit, way):
    """Traced under load; what a program calls must be among what its unit's filter allows."""
    text = (content / f"lib/systemd/system/{unit}.service").read_text()
    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", text, re.M):
        for word in line.lstrip("~").split():
            allowed = allowed - expand(word) if line.startswith("~") else allowed | expand(word)
    trace = tmp_path / "trace"
    port = free_port()
    program = content / re.search(r"^ExecStart=/(\S+)", text, re.M)[1]
    ending = getattr(signal, re.search(r"^KillSignal=(\w+)$", text, re.M)[1])
    (tmp_path / "kafka.yaml").write_text(KAFKA)
    own = {"store": ["--storage-backend", "rocksdb", "--storage-path", str(tmp_path / "store")],
           "kafka": ["--config", str(tmp_path / "kafka.yaml")], "servers": ["--servers", "127.0.0.1:1"]}[way]  # fmt: skip
    settings = ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}", *own]
    process = subprocess.Popen(["strace", "-f", "-qq", "-o", trace, program, *settings],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", port), 5)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        with connection:
            connection.settimeout(30)
            for number in range(200):
                connection.sendall(b"set k%d 0 0 1\r\nv\r\nget k%d\r\nget none\r\n" % (number, number))
            connection.sendall(b"quit\r\n")
            while connection.recv(65536):
                pass
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), ending)
        process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    called = set(re.findall(r"(?m)^\d+ +([a-z_0-9]+)\(", trace.read_text()))
    assert len(called) > 20
    assert called - allowed - {"execve"} == set()


def expand(word):
    """The system calls of a group of systemd's."""
    if not word.startswith("@"):
        return {word}
    found = set()
    for line in run("systemd-analyze", "syscall-filter", "--no-pager", word).stdout.splitlines()[1:]:
        name = line.strip()
        if name and not name.startswith("#"):
            found |= expand(name)
    return found
