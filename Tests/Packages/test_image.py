# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The container image: what is in it, and that it runs as a kubelet would run it.

The root file system is unpacked, made read-only, and entered as user 11211 in namespaces of its own, with the settings
that the chart renders at the places and ports that it says.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from charts.chart import objects, of_kind, pods
from conftest import ROOT, run


def test_it_says_how_to_run_it(image):
    configuration = image.configuration["config"]
    assert configuration["User"] == "11211:11211"
    assert configuration["Entrypoint"] == ["/usr/bin/martlet-server"]
    assert configuration.get("StopSignal", "SIGTERM") == "SIGTERM"
    assert set(configuration["ExposedPorts"]) == {"11211/tcp", "9150/tcp", "9151/tcp"}
    assert configuration["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image.configuration["os"] == "linux" and image.configuration["architecture"]


def test_contents(image):
    """Programs, libraries, licences, authorities, three files of names: nothing else, and nothing that gives rights."""
    allowed = re.compile(
        r"(\./)?((bin|lib|lib64|usr|usr/bin|usr/lib|usr/lib64|usr/share|usr/share/doc|usr/share/doc/[^/]+|etc|etc/ssl"
        r"|etc/ssl/certs|etc/martlet|data|proc|sys|dev|tmp|usr/lib/[a-z0-9_]+-linux-gnu)/?"
        r"|usr/bin/martlet(ctl|-\w+)|usr/lib(64)?/([a-z0-9_]+-linux-gnu/)?[^/]+\.so[.\d]*|usr/lib64/ld-[^/]+"
        r"|usr/share/doc/[^/]+/copyright|usr/share/doc/martlet/contents\.txt|etc/ssl/certs/ca-certificates\.crt"
        r"|etc/(passwd|group|nsswitch\.conf))")
    assert [name for name in image.names if name not in ("", ".", "./") and not allowed.fullmatch(name)] == []
    for path in image.root.rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), path
        if path.is_file() and not path.is_symlink():
            assert not mode & stat.S_IWOTH, path
    assert not [name for name in ("sh", "bash", "busybox", "apt", "python3") if (image.root / "usr/bin" / name).exists()]


def test_every_library_has_its_package_version_and_licence(image):
    contents = (image.root / "usr/share/doc/martlet/contents.txt").read_text()
    rows = [line.split() for line in contents.splitlines()]
    assert len(rows) > 20
    for row in rows:
        assert row[1][0].isdigit(), row
        if row[0].startswith("/"):
            assert (image.root / row[0].lstrip("/")).exists()
        else:
            assert (image.root / row[2].lstrip("/")).stat().st_size > 0, row
    wanted = {"/usr/bin/martlet-server", "/usr/bin/martletctl", "libssl3", "librdkafka1"}
    assert wanted <= {row[0].split(":")[0] for row in rows}


class Entered:
    """A container's process: namespaces of network, mounts and processes' own, the image's root read-only."""

    def __init__(self, image, line, mounts, hosts=(), writable=(), environment=None):
        etc = image.root / "etc"
        etc.joinpath("hosts").write_text("127.0.0.1 localhost " + " ".join(hosts) + "\n")
        script = ["set -e", "ip link set lo up", f"mount --bind {image.root} {image.root}"]
        for source, target in mounts.items():
            (image.root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
            script.append(f"mount --bind {source} {image.root}{target}")
            if target not in writable:
                script.append(f"mount -o remount,bind,ro {image.root}{target}")
        # As in every container. Swift reads the arguments of a program there.
        script.append(f"mount -t proc proc {image.root}/proc")
        script.append(f"mount -o remount,bind,ro {image.root}")
        script.append(f'exec chroot --userspec=11211:11211 --groups=11211 {image.root} "$@"')
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", "\n".join(script), "sh", *line], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"PATH": os.environ["PATH"], **(environment or {})},
            text=True)  # fmt: skip

    def python(self, code):
        """Runs a Python text of the machine's inside the network of the container; what it prints."""
        return run("nsenter", "--net", "-t", self.process.pid, sys.executable, "-c", code, timeout=60).stdout

    def get(self, path):
        code = ("import urllib.request, urllib.error\n"
                f"try: r = urllib.request.urlopen('http://127.0.0.1:9150{path}', timeout=5); print(r.status)\n"
                "except urllib.error.HTTPError as e: print(e.code)\nexcept OSError: print(0)")  # fmt: skip
        return int(self.python(code))

    def enter(self, image, line):
        """Another program of the image in the same namespaces, as a second container of the pod; it ends by itself."""
        root = ["chroot", "--userspec=11211:11211", str(image.root)]
        return run("nsenter", "--net", "--mount", "-t", self.process.pid, *root, *line, check=False, timeout=60)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        said = self.process.communicate(timeout=20)[0]
        return self.process.returncode, said


def files(found, name, directory):
    """A ConfigMap as a directory."""
    [one] = [one for one in of_kind(found, "ConfigMap") if one["metadata"]["name"] == name]
    directory.mkdir(parents=True)
    for key, text in one.get("data", {}).items():
        (directory / key).write_text(text)
    import base64

    for key, text in one.get("binaryData", {}).items():
        (directory / key).write_bytes(base64.b64decode(text))
    return directory


@contextlib.contextmanager
def running(image, found, name, work, hosts=(), data=None):
    [(_, _, spec)] = [pod for pod in pods(found) if pod[0] == name]
    container = spec["containers"][0]
    mounts = {str(files(found, f"{name}-node", work / "node")): "/etc/martlet/node"}
    if data:
        mounts[str(data)] = "/data"
    line = [*container["command"], *container["args"]]
    entered = Entered(image, line, mounts, hosts, writable={"/data"})
    try:
        deadline = time.monotonic() + 30
        while entered.get(container["readinessProbe"]["httpGet"]["path"]) != 200:
            assert time.monotonic() < deadline and entered.process.poll() is None, entered.process.stdout.read()
            time.sleep(0.2)
        yield entered
    finally:
        if entered.process.poll() is None:
            entered.process.kill()
            entered.process.wait()


TALK = """
import socket
with socket.create_connection(("127.0.0.1", 11211), 5) as node:
    node.sendall(b"{}")
    print(node.makefile().read())
"""


@pytest.fixture
def work():
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="martlet-container-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_the_chart_runs_in_it(image, work):
    """The rendered pod as it is, its helm test, and its end: the hook by the image's own program, then SIGTERM."""
    found = objects("cache")
    with running(image, found, "cache-martlet", work, hosts=["cache-martlet"]) as node:
        said = node.python(TALK.format(r"set k 0 0 1\r\nv\r\nget k\r\nversion\r\nquit\r\n"))
        assert said.split() == ["STORED", "VALUE", "k", "0", "1", "v", "END", "VERSION", "1.6.45"]
        assert node.get("/livez") == node.get("/metrics") == 200
        status = Path(f"/proc/{node.process.pid}/status").read_text()
        assert re.search(r"^Uid:\s+11211\s+11211\s+11211", status, re.M)
        assert re.search(r"^CapEff:\s+0+$", status, re.M), "it runs without any capability"
        [(_, _, spec)] = [pod for pod in pods(found) if pod[0] == "cache-martlet-test"]
        [write] = [container for container in spec["containers"] if container["name"] == "write"]
        row = files(found, "cache-martlet-test", work / "row") / "row.dump"
        place = image.root / "tmp/row.dump"
        shutil.copy(row, place)
        line = [*write["command"], *write["args"]]
        done = node.enter(image, [part.replace("/etc/martlet/test/row.dump", "/tmp/row.dump") for part in line])
        assert done.returncode == 0 and "1 rows restored" in done.stdout, done.stderr
        [(_, _, spec)] = [pod for pod in pods(found) if pod[0] == "cache-martlet"]
        [main] = [container for container in spec["containers"] if container["name"] == "node"]
        done = node.enter(image, main["lifecycle"]["preStop"]["exec"]["command"])
        assert done.returncode == 0 and done.stdout.startswith("drained: 0 of "), done.stdout + done.stderr
        assert node.get("/readyz") == 503
        code, said = node.end()
        assert code == 0 and "stopping gracefully" in said, said
        assert "0.0.0.0:11211" in said, "it listens where the chart says"


def test_storage_in_it(image, work):
    settings = objects("embedded")
    # Without the Secret of its token.
    for one in of_kind(settings, "ConfigMap"):
        if "node.yaml" in one.get("data", {}):
            node = yaml.safe_load(one["data"]["node.yaml"])
            node.pop("adminTokenFile", None)
            one["data"]["node.yaml"] = json.dumps(node)
    data = work / "data"
    data.mkdir()
    os.chown(data, 11211, 11211)
    with running(image, settings, "cache-martlet", work, data=data) as node:
        assert "STORED" in node.python(TALK.format(r"set kept 0 0 1\r\nv\r\nquit\r\n"))
        node.process.kill()
        node.process.wait()
    shutil.rmtree(work / "node")
    with running(image, settings, "cache-martlet", work, data=data) as node:
        assert "VALUE kept 0 1" in node.python(TALK.format(r"get kept\r\nquit\r\n"))


def test_a_stream_through_kafka_in_it(image, work):
    """librdkafka is there with all that it loads: the node takes its settings, and waits for brokers that are away."""
    found = objects("cache")
    for one in of_kind(found, "ConfigMap"):
        if "node.yaml" in one.get("data", {}):
            node = yaml.safe_load(one["data"]["node.yaml"])
            node |= {"region": "south", "regions": [{"name": "north", "role": "home"}, {"name": "south", "role": "replica"}],
                     "stream": {"transport": "kafka", "kafka": {
                         "brokers": ["127.0.0.1:1"], "security": "sasl_plaintext", "mechanism": "SCRAM-SHA-512",
                         "username": "martlet", "password": "secret"}}}  # fmt: skip
            one["data"]["node.yaml"] = json.dumps(node)
    with running(image, found, "cache-martlet", work) as node:
        said = node.python(TALK.format(r"stats stream\r\nquit\r\n"))
        assert "STAT transport kafka" in said and "STAT kafka_connected no" in said, said
        code, said = node.end()
        assert code == 0, said


def test_every_program_starts_in_it(image, work):
    with running(image, objects("cache"), "cache-martlet", work) as node:
        for path in sorted((image.root / "usr/bin").iterdir()):
            done = node.enter(image, [f"/usr/bin/{path.name}", "--help"])
            assert "martlet" in done.stdout.lower(), (path, done.stderr)


def test_the_documentation_tells_its_size(image):
    text = (ROOT / "docs/packages.md").read_text()
    packed, unpacked = map(int, re.search(r"(\d+) MiB compressed, (\d+) MiB unpacked", text).groups())
    size = sum(layer["size"] for layer in image.manifest["layers"]) / (1 << 20)
    assert abs(size - packed) < packed / 5
    assert abs(int(run("du", "-sm", image.root).stdout.split()[0]) - unpacked) < unpacked / 5
