# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Writes what a release leaves behind, small, for later releases to be tested with:

    cd Tests/Integration && ../../.venv/bin/python -m upgrades.make_fixtures upgrades/fixtures/0.1.0

Run it once with the programs of a release that is about to be published, and never again for that release.
"""

import io
import lzma
import signal
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from bed import Server, free_port
from router.bed import Router
from storage import database
from storage.node import Node

from .release import releases

ROWS = 40


def row(number):
    """Key, value, flags of a row; every fifth is long."""
    return f"row:{number}", f"value {number} ".encode() * (60 if number % 5 == 0 else 1), number


def fill(client):
    for number in range(ROWS):
        key, value, flags = row(number)
        assert client.set(key, value, flags=flags) == "STORED"
    assert client.ask("delete row:1") == "DELETED"
    client.set("row:2", b"7")
    assert client.ask("incr row:2 5") == "12"


def check(client):
    """What `fill` wrote is there."""
    for number in range(ROWS):
        key, value, flags = row(number)
        if number == 1:
            assert client.get(key) is None
        elif number == 2:
            assert client.get(key) == b"12"
        else:
            assert client.get(key) == value, key
            assert client.ask(f"mg {key} f") == f"HD f{flags}"


def pack(directory, target):
    """A directory as a reproducible archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(directory.rglob("*")):
            # RocksDB's log and its copy of the settings name the machine, and are not needed.
            if path.is_file() and not path.name.startswith(("LOG", "OPTIONS")):
                info = tarfile.TarInfo(str(path.relative_to(directory)))
                data = path.read_bytes()
                info.size, info.mode = len(data), 0o600
                archive.addfile(info, io.BytesIO(data))
    target.write_bytes(lzma.compress(content.getvalue(), preset=9))


def embedded(place, target, release):
    """A data directory, and a dump of its rows."""
    token = place / "token"
    token.write_text("a-token-of-some-length\n")
    token.chmod(0o600)
    node = Node(place, backend="rocksdb", admin=True, admin_token_file=token)
    with node, node.client() as client:
        fill(client)
        (target / "rows.dump").unlink(missing_ok=True)
        code, said = release.control(
            "dump", "--output", target / "rows.dump", "--token-file", token, "--node", f"http://127.0.0.1:{node.admin}")
        assert code == 0, said
        node.terminate()
    pack(node.path, target / "store.tar.xz")


def memory(place, target):
    """The items of a plain cache, as -e keeps them."""
    file = place / "items"
    with Server(["-m", 64, "-t", 1, "-e", file]) as server:
        with server.client() as client:
            fill(client)
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
    (target / "items.xz").write_bytes(lzma.compress(file.read_bytes(), preset=9))


def tables(place, target):
    """The tables of a PostgreSQL, with their rows."""
    node = Node(place, backend="postgres")
    with node, node.client() as client:
        fill(client)
        node.terminate()
    server = database.shared()
    text = server.run("pg_dump", "-h", server.directory, "-p", str(server.port), "-U", "martlet", "--no-owner", "--inserts", node.name)
    # What names the machine or the version of the tool is of no use.
    kept = [line for line in text.splitlines() if line and not line.startswith(("--", "\\restrict", "\\unrestrict"))]
    (target / "tables.sql").write_text("\n".join(kept) + "\n")


def spool(place, target):
    """Deletes that a server missed, as a router keeps them."""
    directory = place / "spool"
    directory.mkdir()
    dead = free_port()
    with Router([f"127.0.0.1:{dead}"], ["--spool-directory", str(directory)]) as router:
        with router.client() as client:
            for number in range(5):
                client.ask(f"delete row:{number}")
        router.signal(signal.SIGTERM)
        assert router.wait(20) == 0
    assert any(path.is_file() for path in directory.rglob("*")), "nothing was kept"
    (target / "spool.port").write_text(f"{dead}\n")
    pack(directory, target / "spool.tar.xz")


def names(place, target, release):
    """Flags and metrics, which people's scripts and dashboards name."""
    for program in ("martlet-server", "martlet-router", "martletctl"):
        said = subprocess.run([release.directory / program, "--help"], capture_output=True, text=True, timeout=20,
                              check=True).stdout  # fmt: skip
        flags = sorted({word.split("=")[0] for word in said.replace(",", " ").split() if word.startswith("--")})
        (target / f"{program}.flags").write_text("\n".join(flag for flag in flags if len(flag) > 2) + "\n")
    node = Node(place, backend="rocksdb", admin=True)
    with node, Router([f"127.0.0.1:{node.port}"], [f"--admin=127.0.0.1:{(port := free_port())}"]) as router:
        with router.client() as client:
            client.set("k", "v")
        found = set()
        for admin in (node.admin, port):
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
                rows = answer.read().decode().splitlines()
            found |= {" ".join(line.split()[2:4]) for line in rows if line.startswith("# TYPE ")}
    (target / "metrics").write_text("\n".join(sorted(found)) + "\n")


def main():
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    _, release = releases()
    with tempfile.TemporaryDirectory() as name:
        for part in ("embedded", "memory", "tables", "spool", "names"):
            (Path(name) / part).mkdir()
        embedded(Path(name) / "embedded", target, release)
        memory(Path(name) / "memory", target)
        tables(Path(name) / "tables", target)
        spool(Path(name) / "spool", target)
        names(Path(name) / "names", target, release)
    for path in sorted(target.iterdir()):
        print(f"{path.stat().st_size:>8} {path.name}")


if __name__ == "__main__":
    main()
