# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What an earlier release left behind is read, and what a later one would leave is refused with its reason.

`fixtures/VERSION` was written by the programs of that version, see `make_fixtures`. What a later release would write is what
this one writes, with the stamp of its format raised.
"""

import ctypes
import json
import lzma
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from bed import Server, default_command, free_port
from bed.server import ROOT, StartError
from documents.test_reference import documented
from router.bed import Router
from storage import database
from storage.node import Node
from streams.region import Consumer, FakeSource, RegionNode, eventually, regions

from .make_fixtures import ROWS, check, fill
from .release import releases

pytestmark = pytest.mark.ours
FIXTURES = sorted(path for path in (Path(__file__).parent / "fixtures").iterdir() if path.is_dir())
every_release = pytest.mark.parametrize("release", FIXTURES, ids=lambda path: path.name)
YEAR = "--memory-file-age=365d"


def unpack(archive, directory):
    directory.mkdir(mode=0o700, exist_ok=True)
    with tarfile.open(archive) as content:
        content.extractall(directory)


def test_there_are_fixtures():
    assert FIXTURES


# MARK: What an earlier release left behind


@every_release
def test_its_store_is_opened(release, tmp_path):
    node = Node(tmp_path, backend="rocksdb")
    unpack(release / "store.tar.xz", node.path)
    with node:
        with node.client() as client:
            check(client)
            versions = client.ask("mg row:3 c")
            # It goes on: versions only grow, and what is written stays.
            assert client.set("row:3", "new") == "STORED"
            assert int(client.ask("mg row:3 c").split()[1][1:]) > int(versions.split()[1][1:])
        node.restart()
        with node.client() as client:
            assert client.get("row:3") == b"new" and client.get("row:4") is not None


@every_release
def test_its_items_are_restored_or_refused_with_the_reason(release, tmp_path):
    file = tmp_path / "items"
    file.write_bytes(lzma.decompress((release / "items.xz").read_bytes()))
    # A file of more than a day of this suite's age is still one of a release.
    with Server(["-m", 64, "-t", 1, "-e", file, YEAR]) as server, server.client() as client:
        assert client.ask("mn") == "MN"
        if server.says("items restored", 2):
            check(client)
        else:
            rows = [json.loads(row) for row in server.output().splitlines() if "the cache begins empty" in row]
            assert rows and (" was " in rows[0]["reason"] or "seconds old" in rows[0]["reason"]), server.output()
            assert client.get("row:3") is None


@every_release
def test_its_dump_is_restored(release, tmp_path):
    with Server("-m 64") as server, server.client() as client:
        dump = tmp_path / "rows.dump"
        dump.write_bytes((release / "rows.dump").read_bytes())
        code, said = releases()[1].control("restore", "--input", dump, "--server", f"127.0.0.1:{server.port}")
        assert code == 0 and f"{ROWS - 1} rows restored" in said, said
        check(client)


@every_release
def test_its_tables_are_expanded_and_taken(release, tmp_path):
    """`storage init` only adds; what the earlier release reads and writes is still there, and its rows are served."""
    if not database.is_installed():
        pytest.fail("there is no PostgreSQL: run make install")
    server = database.shared()
    name = f"before_{release.name.replace('.', '_')}"
    columns = "SELECT string_agg(table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable, ',') " \
        "FROM information_schema.columns WHERE table_schema = 'public'"  # fmt: skip
    server.sql(f"CREATE DATABASE {name}")
    try:
        server.sql((release / "tables.sql").read_text(), name)
        old = set(server.sql(columns, name).split(","))
        assert len(old) > 10
        code, said = releases()[1].control("storage", "init", environment={"MARTLET_STORAGE_URL": server.url(name)})
        assert code == 0, said
        assert old <= set(server.sql(columns, name).split(",")), "an earlier release would miss something"
        # What is new must not be asked for by those who do not know it.
        wanting = server.sql(
            "SELECT string_agg(table_name || '.' || column_name, ',') FROM information_schema.columns WHERE "
            "table_schema = 'public' AND is_nullable = 'NO' AND column_default IS NULL", name).split(",")  # fmt: skip
        known = {one.split()[0] for one in old}
        tables = {one.split(".")[0] for one in known}
        assert not [one for one in wanting if one not in known and one.split(".")[0] in tables]
        node = Node(tmp_path, backend="postgres")
        node.url = server.url(name)
        with node, node.client() as client:
            check(client)
            assert client.set("row:3", "new") == "STORED" and client.get("row:3") == b"new"
    finally:
        server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@every_release
def test_its_missed_deletes_are_repeated(release, tmp_path):
    directory = tmp_path / "spool"
    unpack(release / "spool.tar.xz", directory)
    port = int((release / "spool.port").read_text())
    try:
        server = Server(["-l", "127.0.0.1", "-p", port, "-m", 64], listen=False, wait=("127.0.0.1", port))
    except Exception as error:  # The port is somebody else's now.
        pytest.skip(f"port {port} is taken: {error}")
    with server, server.client() as client:
        for number in range(6):
            client.set(f"row:{number}", "old")
        with Router([f"127.0.0.1:{port}"], ["--spool-directory", str(directory)]):
            eventually(lambda: all(client.get(f"row:{number}") is None for number in range(5)), 20)
            assert client.get("row:5") == b"old"


@every_release
def test_its_flags_and_metrics_are_still_there(release):
    for program in ("martlet-server", "martlet-router", "martletctl"):
        path = Path(default_command().split()[0]).with_name(program)
        said = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=20, check=True).stdout
        known = set(said.replace(",", " ").replace("=", " ").split())
        gone = set((release / f"{program}.flags").read_text().split()) - known
        assert not gone, f"{program} does not know {gone} any more"
    kinds = dict(line.split() for line in (release / "metrics").read_text().splitlines())
    now = {name: kind for name, (kind, _) in documented().items()}
    changed = {name: kind for name, kind in kinds.items() if now.get(name) != kind}
    assert not changed, "dashboards and alerts name these"


# MARK: What a later release would leave


def test_a_store_of_a_later_format_is_refused(tmp_path):
    with Node(tmp_path, backend="rocksdb") as node:
        with node.client() as client:
            fill(client)
        node.terminate()
    marker = node.path / "MARTLET"
    text = marker.read_text()
    marker.write_text(text.replace("format 1\n", "format 2\n"))
    code, said = node.refuse()
    assert code != 0 and "has format 2; this version reads formats up to 1" in said
    # It was not touched: the release that wrote it goes on with it.
    assert marker.read_text() == text.replace("format 1\n", "format 2\n")
    marker.write_text(text)
    with node, node.client() as client:
        check(client)


def test_tables_of_a_later_format_are_refused(tmp_path):
    node = Node(tmp_path, backend="postgres")
    database.shared().sql("UPDATE martlet_meta SET number = 2 WHERE name = 'format'", node.name)
    code, said = node.refuse()
    assert code != 0 and "the tables have format 2; this version knows formats up to 1" in said
    code, said = releases()[1].control("storage", "init", environment={"MARTLET_STORAGE_URL": node.url})
    assert code != 0 and "format 2" in said


def test_tables_that_lack_something_are_refused_with_the_way_to_add_it(tmp_path):
    """As a database that an earlier release made, before `storage init` of this one."""
    node = Node(tmp_path, backend="postgres")
    database.shared().sql("ALTER TABLE martlet_outbox DROP COLUMN slot CASCADE", node.name)
    node.arguments += ["--region", "a"]
    Path(node.directory / "node.yaml").write_text(json.dumps(
        {"regions": [{"name": "a", "role": "home", "stream": "127.0.0.1:1"}, {"name": "b", "role": "replica"}],
         "stream": {"listen": f"127.0.0.1:{free_port()}"}}))  # fmt: skip
    code, said = node.refuse()
    assert code != 0 and "storage init" in said, said
    code, said = releases()[1].control("storage", "init", environment={"MARTLET_STORAGE_URL": node.url})
    assert code == 0, said
    with node, node.client() as client:
        assert client.set("k", "v") == "STORED"


def test_items_of_another_layout_are_refused_with_the_reason(tmp_path):
    file = tmp_path / "items"
    with Server(["-m", 64, "-t", 1, "-e", file]) as server:
        with server.client() as client:
            fill(client)
        server.signal(15)
        assert server.wait(20) == 0
    content = bytearray(file.read_bytes())
    page = bytes(content[16:4096])
    assert b"condition layout 1\n" in page
    page = page.replace(b"condition layout 1\n", b"condition layout 2\n")
    content[8:16] = struct.pack("<Q", xxh3(page))
    content[16:4096] = page
    file.write_bytes(content)
    with Server(["-m", 64, "-t", 1, "-e", file]) as server, server.client() as client:
        assert client.get("row:3") is None
        assert server.says("the cache begins empty") and "layout was 2, and is 1" in server.output(), server.output()


def xxh3(data):
    """The stable hash, by the library that the programs have."""
    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_64bits.restype = ctypes.c_uint64
    return library.XXH3_64bits(ctypes.c_char_p(data), ctypes.c_size_t(len(data)))


def test_a_stream_of_a_later_version_is_refused_with_the_reason(tmp_path):
    """Both ways: a consumer that speaks more, and a source."""
    stream = free_port()
    listed = regions(stream)
    with RegionNode(tmp_path / "home", "us-east", listed, {"listen": f"127.0.0.1:{stream}"}, backend="rocksdb"):
        later = Consumer(stream, version=2)
        assert later.welcome() == "frames of version 2; this node speaks version 1"
        later.close()
        now = Consumer(stream)
        assert now.welcome()[0] == "us-east"
        now.close()


def test_a_source_of_a_later_version_is_not_followed(tmp_path):
    class Later(FakeSource):
        def send(self, kind, body):
            super().send(kind, b"\2" + body[1:] if kind == 2 else body)

    source = Later()
    try:
        with RegionNode(tmp_path / "replica", "eu-west", regions(source.port)) as replica:
            eventually(lambda: source.welcomes >= 1, 20)
            assert replica.server.says("stream: there is no connection home", 20), replica.server.output()
            assert replica.figures()["trusted"] == "no"
            reasons = [json.loads(row)["reason"] for row in replica.server.output().splitlines()
                       if "there is no connection home" in row]  # fmt: skip
            assert any("version 2" in reason for reason in reasons), reasons
    finally:
        source.close()


def test_missed_deletes_of_a_later_version_are_kept_and_stop_the_start(tmp_path):
    directory = tmp_path / "spool"
    directory.mkdir()
    dead = free_port()
    flags = ["--spool-directory", str(directory)]
    with Router([f"127.0.0.1:{dead}"], flags) as router:
        with router.client() as client:
            client.ask("delete k")
        router.signal(15)
        assert router.wait(20) == 0
    [segment] = directory.rglob("*.spool")
    content = segment.read_bytes()
    assert content.startswith(b"martlet spool 1\n")
    segment.write_bytes(content.replace(b"spool 1", b"spool 2", 1))
    with pytest.raises(StartError, match="is of a later version: use that one"):
        Router([f"127.0.0.1:{dead}"], flags)
    assert segment.read_bytes()[16:] == content[16:]


def test_the_makefile_runs_two_releases():
    text = (ROOT / "Makefile").read_text()
    assert "upgrade-test:" in text and "MARTLET_BEFORE" in text
