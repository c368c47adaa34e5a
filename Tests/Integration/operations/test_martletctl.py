# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Dumps, backups, restores and warming, as an operator does them."""

import base64
import datetime
import http.server
import json
import os
import random
import re
import shlex
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from bed import Server, memcached_command
from storage import database
from storage.node import BACKEND, Node

COMMANDS = ["drain", "top", "ring", "hotkeys", "events", "members", "dump", "restore", "backup", "backup list",
            "backup verify", "warm", "storage init", "stream status", "stream tail", "stream repair", "stream replay",
            "stream skip", "audit", "region status", "region promote", "convert", "explain"]  # fmt: skip
TOKEN = "a-token-of-some-length"
ROWS = 3000

pytestmark = pytest.mark.ours


def command():
    """martletctl stands beside the server under test."""
    from bed import default_command

    return str(Path(default_command().split()[0]).with_name("martletctl"))


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def node(tmp_path, token):
    with Node(tmp_path, admin=True, admin_token_file=token) as node:
        yield node


def control(*arguments, node=None, token=None):
    line = [command(), *map(str, arguments)]
    if node:
        line += ["--node", f"http://127.0.0.1:{node.admin}"]
    if token:
        line += ["--token-file", str(token)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def fill(node, rows=ROWS):
    lines = b"".join(
        b"set key:%05d %d 0 %d noreply\r\n%s\r\n" % (index, index, 3 + index % 50, b"v" * (3 + index % 50))
        for index in range(rows)
    )
    with node.client(30) as client:
        client.send(lines)
        assert client.ask("mn") == "MN"
        assert client.ask("set timed 7 5000 5\r\nsoon!") == "STORED"
        assert client.ask("set gone 0 -1 1\r\nx") == "STORED"


def damage(path, values):
    """Flips a bit in each of these values, which stand in the store's files as they are."""
    left = list(values)
    for file in path.glob("*.sst"):
        content = bytearray(file.read_bytes())
        for value in left[:]:
            if (at := content.find(value)) >= 0:
                content[at + 7] ^= 0x10
                left.remove(value)
        file.write_bytes(content)
    assert not left


def resident(node):
    """The most memory that the node has had, in bytes."""
    status = Path(f"/proc/{node.server.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) << 10


def gets(node, key):
    """Flags, version and value of a key."""
    with node.client() as client:
        client.send(f"gets {key}\r\n".encode())
        head = client.line().split()
        assert head[0] == "VALUE", head
        value = client.line()
        assert client.line() == "END"
        return int(head[2]), int(head[4]), value


class TestDump:
    def test_a_dump_goes_into_another_node(self, tmp_path, node, token):
        fill(node)
        path = tmp_path / "rows.dump"
        code, out, err = control("dump", "--output", path, "--json", node=node, token=token)
        assert code == 0, err
        assert json.loads(out)["rows"] == ROWS + 1, "the expired row is none"
        assert path.stat().st_mode & 0o077 == 0, "a dump holds values: its owner's only"
        other = tmp_path / "other"
        other.mkdir()
        with Node(other, backend="memory") as second:
            code, out, err = control("restore", "--input", path, "--server", f"127.0.0.1:{second.port}", "--json")
            assert code == 0, err
            assert json.loads(out)["rows"] == ROWS + 1
            assert gets(second, "key:00042")[0] == 42
            assert gets(second, "timed")[2] == "soon!"
            with second.client() as client:
                left = int(client.ask("mg timed t").split("t")[-1])
            assert 4900 < left <= 5000

    def test_keys_of_every_kind_come_back(self, tmp_path, node, token):
        """Long ones, ones that need base64, and long ones that no line can hold once they are in base64."""
        odd = bytes(range(1, 33)) + b"\x7f\xff"
        keys = [b"k" * 250, "é".encode() * 125, odd, odd.ljust(187, b"x"), odd.ljust(188, b"x"), odd.ljust(250, b"y")]

        def stored(port, opcode, key, extras=b"", value=b""):
            with socket.create_connection(("127.0.0.1", port), 10) as connection:
                body = extras + key + value
                connection.sendall(struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, len(body), 0, 0)
                                   + body)  # fmt: skip
                stream = connection.makefile("rb")
                head = stream.read(24)
                status, length = struct.unpack(">HI", head[6:12])
                return status, stream.read(length)

        for number, key in enumerate(keys):
            status, said = stored(node.port, 1, key, struct.pack(">II", number, 5000), b"value %d" % number)
            assert status == 0, said
        path = tmp_path / "odd.dump"
        assert control("dump", "--output", path, node=node, token=token)[0] == 0
        (tmp_path / "other").mkdir()
        with Node(tmp_path / "other", backend="memory") as second:
            code, out, err = control("restore", "--input", path, "--server", f"127.0.0.1:{second.port}", "--json")
            assert code == 0, err
            assert json.loads(out)["rows"] == len(keys)
            for number, key in enumerate(keys):
                assert stored(second.port, 0, key) == (0, struct.pack(">I", number) + b"value %d" % number)
        # Servers with a login speak no binary protocol: all others are restored, and it is said what is not.
        users = tmp_path / "users"
        users.write_text("ops:secret\n")
        password = tmp_path / "password"
        password.write_text("secret\n")
        login = ("--user=ops", f"--password-file={password}")
        for command in (None, memcached_command()):
            with Server(["-Y", users], command=command) as server:
                again = ("restore", "--input", path, "--server", f"127.0.0.1:{server.port}", *login)
                for arguments in (again, (*again, "--resume")):
                    code, _, err = control(*arguments)
                    assert code == 69 and "3 rows are restored, and 3 are not: their keys have spaces" in err, (command, err)
                    assert not path.with_name("odd.dump.restored").exists()
                with server.client() as client:
                    assert client.ask("set auth 0 0 10\r\nops secret") == "STORED"
                    for number, name in enumerate([b"k" * 250, keys[1], base64.b64encode(odd)]):
                        client.send(b"mg " + name + (b" b" if name != keys[number] else b"") + b" v f\r\n")
                        assert client.line() == f"VA 7 f{number}" and client.line() == f"value {number}"

    def test_large_rows_go_page_by_page(self, tmp_path, node, token):
        """A page has some megabytes, however large its rows are."""
        with node.client(30) as client:
            for number in range(40):
                assert client.ask(f"set large-{number} 0 0 1000000\r\n" + "v" * 1_000_000) == "STORED"
        before = resident(node)
        path = tmp_path / "large.dump"
        assert control("dump", "--output", path, node=node, token=token)[0] == 0
        assert path.stat().st_size > 40_000_000
        code, out, _ = control("warm", "--json", node=node, token=token)
        assert code == 0 and json.loads(out)["rows"] == 40
        assert resident(node) - before < 60 << 20

    @pytest.mark.skipif(not database.is_installed(), reason="Debian's postgresql-15 is not installed")
    def test_a_dump_gets_past_many_dead_rows(self, tmp_path, token):
        """On a server that takes a millisecond for some of the rows that it looks at, more than a statement has time for;
        and there are more of the others than one looks at."""
        limit = {"storage_timeout": "1500ms"}
        with Node(tmp_path, admin=True, backend="postgres", admin_token_file=token, **limit) as node:
            database.shared().sql(
                """
                INSERT INTO martlet_kv SELECT convert_to('k' || 100000 + n, 'UTF8'), 1, n % 2, 0, n % 2 = 0, ''
                  FROM generate_series(1, 6000) n;
                INSERT INTO martlet_kv VALUES ('a', 1, 0, 7, false, 'first'), ('z', 1, 0, 8, false, 'last');
                CREATE FUNCTION dawdle(k bytea, del boolean) RETURNS boolean LANGUAGE plpgsql STABLE
                  AS $$ BEGIN IF k < convert_to('k101500', 'UTF8') THEN PERFORM pg_sleep(0.001); END IF; RETURN del; END $$;
                ALTER TABLE martlet_kv RENAME TO rows;
                CREATE VIEW martlet_kv AS SELECT k, ver, exp, flags, dawdle(k, del) AS del, val FROM rows
                """, node.name)  # fmt: skip
            path = tmp_path / "rows.dump"
            code, out, err = control("dump", "--output", path, "--json", node=node, token=token)
            assert code == 0, err
            assert json.loads(out)["rows"] == 2
            assert b"first" in path.read_bytes() and b"last" in path.read_bytes()
            # A page says where the next one begins, though it has no row.
            request = urllib.request.Request(
                f"http://127.0.0.1:{node.admin}/storage/rows?prefix=&after=61&limit=5000",
                headers={"Authorization": f"Bearer {TOKEN}"})  # fmt: skip
            with urllib.request.urlopen(request, timeout=60) as response:
                page = response.read()
            assert page and b"last" not in page
            code, out, err = control("warm", "--json", node=node, token=token)
            assert code == 0 and json.loads(out)["rows"] == 2, err

    @pytest.mark.skipif(not database.is_installed(), reason="Debian's postgresql-15 is not installed")
    def test_odd_rows_of_another_program_end_no_dump(self, tmp_path, token):
        """What cannot be a client's row is listed or passed over; a time behind 2038 comes back as 2038."""
        node = Node(tmp_path, admin=True, backend="postgres", admin_token_file=token)
        database.shared().sql(
            """
            INSERT INTO martlet_kv VALUES ('a', 1, 0, 7, false, 'first'), ('far', 1, 9000000000000000, 0, false, 'f'),
              ('odd', -1, 0, 0, false, 'x'), ('z', 1, 0, 8, false, 'last'), ('', 1, 0, 0, false, 'empty'),
              (repeat('k', 251)::bytea, 1, 0, 0, false, 'long'), (repeat('k', 3000)::bytea, 1, 0, 0, false, 'longer'),
              ('large', 1, 0, 0, false, convert_to(repeat('x', 900000), 'UTF8'))
            """, node.name)  # fmt: skip
        path = tmp_path / "rows.dump"
        with node:
            code, out, err = control("dump", "--output", path, node=node, token=token)
            assert code == 74 and "4 rows are in" in err, err
            assert "out of range" in path.with_name("rows.dump.damaged").read_text()
        (tmp_path / "other").mkdir()
        with Node(tmp_path / "other", backend="memory") as second:
            code, out, err = control("restore", "--input", path, "--server", f"127.0.0.1:{second.port}", "--json")
            assert code == 0 and json.loads(out)["rows"] == 4, err
            assert gets(second, "far")[2] == "f" and gets(second, "z")[2] == "last"
            with second.client() as client:
                left = int(client.ask("mg far t").split("t")[-1])
            assert abs(time.time() + left - (2**31 - 1)) < 60

    def test_an_interrupted_dump_goes_on(self, tmp_path, node, token):
        fill(node)
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        assert control("dump", "--output", whole, node=node, token=token)[0] == 0
        for share in (0.0, 0.001, 0.3, 0.999, 1.0):
            cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
            code, _, err = control("dump", "--output", cut, "--resume", node=node, token=token)
            assert code == 0, err
            assert cut.read_bytes() == whole.read_bytes(), share

    def test_a_prefix_chooses_rows(self, tmp_path, node, token):
        fill(node)
        path = tmp_path / "part"
        code, out, _ = control("dump", "--output", path, "--prefix", "key:0001", "--json", node=node, token=token)
        assert code == 0 and json.loads(out)["rows"] == 10
        # Behind the last of them there are other keys: a dump of all cannot go on there.
        whole = path.read_bytes()
        path.write_bytes(whole[:-100])
        code, _, err = control("dump", "--output", path, "--resume", node=node, token=token)
        assert code == 64 and "--prefix 'key:0001'" in err
        assert control("dump", "--output", path, "--resume", "--prefix", "key:0001", node=node, token=token)[0] == 0
        assert path.read_bytes() == whole
        other = tmp_path / "other"
        other.mkdir()
        with Node(other, backend="memory") as second:
            assert control("restore", "--input", path, "--server", f"127.0.0.1:{second.port}")[0] == 0
            assert gets(second, "key:00015")[0] == 15

    def test_a_damaged_dump_is_refused(self, tmp_path, node, token):
        fill(node, rows=50)
        path = tmp_path / "dumped"
        assert control("dump", "--output", path, node=node, token=token)[0] == 0
        whole = path.read_bytes()
        bytes_ = bytearray(whole)
        bytes_[len(bytes_) // 2] ^= 1
        path.write_bytes(bytes_)
        code, _, err = control("restore", "--input", path, "--server", f"127.0.0.1:{node.port}")
        assert code == 65 and "damaged at byte" in err
        for cut in (len(bytes_) - 10, len(bytes_) - 200):
            path.write_bytes(whole[:cut])
            code, _, err = control("restore", "--input", path, "--server", f"127.0.0.1:{node.port}")
            assert code == 65 and "cut or damaged" in err, cut
        path.write_bytes(b"something else entirely")
        code, _, err = control("restore", "--input", path, "--server", f"127.0.0.1:{node.port}")
        assert code == 65 and "no dump" in err

    @pytest.mark.skipif(BACKEND != "rocksdb", reason="files of an embedded store are damaged")
    def test_a_damaged_store_is_dumped_but_for_what_is_damaged(self, tmp_path, node, token):
        source = random.Random(7)
        # What does not compress.
        values = [source.randbytes(200) for _ in range(ROWS)]
        with node.client(60) as client:
            for number, value in enumerate(values):
                client.send(b"set key:%05d 7 0 200 noreply\r\n%s\r\n" % (number, value))
            assert client.ask("mn") == "MN"
        # From the log into files.
        node.restart(crash=False)
        node.restart(crash=False)
        node.terminate()
        damage(node.path, [values[900], values[2000]])
        node.start()
        path, listed = tmp_path / "rows.dump", tmp_path / "rows.dump.damaged"
        code, out, err = control("dump", "--output", path, node=node, token=token)
        assert code == 74 and not out, err
        rows = int(re.search(r"(\d+) rows are in ", err)[1])
        assert ROWS - 80 < rows < ROWS, "two blocks of 4 KiB are missing"
        lines = [line.split("\t") for line in listed.read_text().splitlines()]
        assert len(lines) == 2 and all(len(line) == 5 for line in lines)
        assert f"{len(lines)} damaged place" in err and str(listed) in err and lines[0][3] in err
        assert listed.stat().st_mode & 0o077 == 0
        for before, byte, what, key_hash, reason in lines:
            assert 0 <= int(before) <= rows and 16 <= int(byte) < path.stat().st_size
            assert what == "rows" and re.fullmatch("[0-9a-f]{16}|-", key_hash) and "restore a backup" in reason
        # As programs are told.
        again = tmp_path / "again"
        code, out, err = control("dump", "--output", again, "--json", node=node, token=token)
        said = json.loads(err)
        assert code == said["code"] == 74 and f"{rows} rows" in said["error"]
        assert again.read_bytes() == path.read_bytes()
        # One that was interrupted behind the damage still says so.
        whole = path.read_bytes()
        path.write_bytes(whole[:-100])
        code, _, err = control("dump", "--output", path, "--resume", node=node, token=token)
        assert code == 74 and path.read_bytes() == whole
        assert [line.split("\t") for line in listed.read_text().splitlines()] == lines
        # What is there is whole, and goes into another node.
        (tmp_path / "other").mkdir()
        with Node(tmp_path / "other", backend="memory") as second:
            code, out, err = control("restore", "--input", path, "--server", f"127.0.0.1:{second.port}", "--json")
            assert code == 0 and json.loads(out)["rows"] == rows, err
            with second.client() as client:
                found = {number for number in range(ROWS) if client.get(f"key:{number:05}") is not None}
        missing = sorted(set(range(ROWS)) - found)
        assert len(found) == rows and {900, 2000} < set(missing)
        # They are those that the node cannot read either; written again, they are all there.
        with node.client() as client:
            assert client.ask(f"get key:{missing[0]:05}").startswith("SERVER_ERROR storage: ")
            assert client.get(f"key:{min(found):05}") is not None
        code, _, err = control("warm", "--prefix", "key:", node=node, token=token)
        assert code == 69 and "damaged" in err

    def test_an_existing_file_is_not_overwritten(self, tmp_path, node, token):
        path = tmp_path / "dumped"
        path.write_text("precious")
        code, _, err = control("dump", "--output", path, node=node, token=token)
        assert code == 64 and "exists" in err and path.read_text() == "precious"


class Narrow:
    """Carries connections to a port until so many bytes have gone there; then it ends them all, until it is widened."""

    def __init__(self, target, limit):
        self.target, self.left = target, limit
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            for pair in ((near, far, True), (far, near, False)):
                threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, source, sink, is_counted):
        try:
            while data := source.recv(4096):
                if is_counted:
                    self.left -= len(data)
                    if self.left < 0:
                        break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@pytest.fixture
def broken(tmp_path, node, token):
    """A dump, and a node with a store into which some of it went before the connection broke: (dump, node, relay)."""
    fill(node)
    path = tmp_path / "rows.dump"
    assert control("dump", "--output", path, node=node, token=token)[0] == 0
    directory = tmp_path / "target"
    directory.mkdir()
    with Node(directory) as target:
        relay = Narrow(target.port, path.stat().st_size // 2)
        code, _, said = control("restore", "--input", path, "--server", f"127.0.0.1:{relay.port}")
        assert code == 71, said
        assert re.search(r"\d+ rows, 0 MiB, \d+%, \d+ rows/s", said), "what people see of it"
        relay.left = 1 << 40
        yield path, target, relay
        relay.listener.close()


class TestRestore:
    def resume(self, path, port):
        return control("restore", "--input", path, "--server", f"127.0.0.1:{port}", "--resume", "--json")

    def expect_all(self, target):
        with target.client() as client:
            for number in range(ROWS):
                assert client.get("key:%05d" % number) == b"v" * (3 + number % 50), number

    @pytest.mark.parametrize("restarts", [False, True])
    def test_an_interrupted_restore_goes_on(self, broken, restarts):
        """Where it was, also when the node was killed meanwhile, and at another address of the same store."""
        path, target, relay = broken
        place = Path(f"{path}.restored")
        assert place.stat().st_mode & 0o077 == 0
        if restarts:
            target.restart()
            relay = target
        code, out, err = self.resume(path, relay.port)
        assert code == 0, err
        assert err == "", "no progress for programs"
        assert 0 < json.loads(out)["rows"] < ROWS, "not from the begin"
        self.expect_all(target)
        assert not place.exists()
        # There is nothing to go on from any more.
        code, out, _ = self.resume(path, target.port)
        assert code == 0 and json.loads(out)["rows"] == ROWS + 1

    def test_rows_are_not_taken_for_restored_in_another_store(self, tmp_path, broken):
        path, target, _ = broken
        directory = tmp_path / "other"
        directory.mkdir()
        for backend in (BACKEND, "memory", "none"):
            with Node(directory, backend=backend) as other:
                code, _, err = self.resume(path, other.port)
                assert code == 69, err
                assert "is not what the first" in err and "Without --resume everything is written" in err
                with other.client() as client:
                    assert client.get("key:02999") is None, "nothing was written"
        code, _, err = self.resume(path, target.port)
        assert code == 0, err
        self.expect_all(target)

    def test_a_cache_that_was_started_again_lacks_what_it_was_given(self, tmp_path, broken):
        path, _, _ = broken
        Path(f"{path}.restored").unlink()
        directory = tmp_path / "cache"
        directory.mkdir()
        with Node(directory, backend="none") as cache:
            relay = Narrow(cache.port, path.stat().st_size // 2)
            assert control("restore", "--input", path, "--server", f"127.0.0.1:{relay.port}")[0] == 71
            relay.left = 1 << 40
            # It is known by its address, too: a process is nothing else.
            assert self.resume(path, cache.port)[0] == 69
            cache.restart()
            code, _, err = self.resume(path, relay.port)
            assert code == 69 and "process" in err
            assert control("restore", "--input", path, "--server", f"127.0.0.1:{relay.port}")[0] == 0
            self.expect_all(cache)
            relay.listener.close()

    def test_another_dump_of_the_same_name_is_refused(self, tmp_path, node, token, broken):
        """Of the same length, and alike up to one value."""
        path, target, _ = broken
        with node.client() as client:
            assert client.ask("set key:00005 5 0 8\r\nVVVVVVVV") == "STORED"
        size = path.stat().st_size
        path.unlink()
        assert control("dump", "--output", path, node=node, token=token)[0] == 0
        assert path.stat().st_size == size
        code, _, err = self.resume(path, target.port)
        assert code == 65, err
        assert "is not the dump whose first" in err and "Without --resume everything is written" in err
        assert control("restore", "--input", path, "--server", f"127.0.0.1:{target.port}")[0] == 0
        assert gets(target, "key:00005")[2] == "VVVVVVVV"

    def test_a_longer_dump_goes_on_and_a_shorter_one_does_not(self, node, token, broken):
        path, target, _ = broken
        whole = path.read_bytes()
        path.write_bytes(whole[:400])
        code, _, err = self.resume(path, target.port)
        assert code == 65 and "is not the dump whose first" in err
        # As `dump --resume` makes of one that was interrupted.
        with node.client() as client:
            assert client.ask("set zzz 0 0 1\r\nz") == "STORED"
        path.unlink()
        assert control("dump", "--output", path, node=node, token=token)[0] == 0
        code, out, err = self.resume(path, target.port)
        assert code == 0, err
        assert json.loads(out)["rows"] < ROWS
        assert gets(target, "zzz")[2] == "z"
        self.expect_all(target)

    @pytest.mark.parametrize("text", ["1234", "", "martlet-restore 1\noffset 10\ndigest 7\n"])
    def test_a_file_of_another_form_is_refused(self, broken, text):
        path, target, _ = broken
        Path(f"{path}.restored").write_text(text)
        code, _, err = self.resume(path, target.port)
        assert code == 65, err
        assert "holds no place of a restore" in err


class TestBackup:
    def test_a_backup_becomes_a_store(self, tmp_path, node, token):
        fill(node)
        before = gets(node, "key:00077")
        backups, restored = tmp_path / "backups", tmp_path / "again" / "rows"
        code, out, err = control("backup", "--to", backups, "--json", node=node, token=token)
        assert code == 0 and json.loads(out) == {"backup": True}, err
        with node.client() as client:
            assert client.ask("set key:00077 1 0 5\r\nlater") == "STORED"
        code, out, err = control("restore", "--from", backups, "--to", restored, "--json")
        assert code == 0 and json.loads(out) == {"restored": True}, err
        again = Node(tmp_path / "again")
        with again:
            assert gets(again, "key:00077") == before, "value, flags and version of the moment of the backup"

    def test_backups_are_kept_listed_verified_and_restored_by_their_ids(self, tmp_path, node, token):
        backups = tmp_path / "backups"
        for number in range(1, 5):
            with node.client() as client:
                assert client.ask(f"set turn 0 0 1\r\n{number}") == "STORED"
            keep = ["--keep", 3] if number == 4 else []
            assert control("backup", "--to", backups, *keep, node=node, token=token)[0] == 0
        code, out, err = control("backup", "list", "--from", backups, "--json")
        assert code == 0, err
        listed = json.loads(out)["backups"]
        assert [one["id"] for one in listed] == [2, 3, 4], "the oldest is gone"
        for one in listed:
            made = datetime.datetime.fromisoformat(one["made"].replace("Z", "+00:00")).timestamp()
            assert abs(made - time.time()) < 120 and one["bytes"] > 0 and one["files"] > 2
        code, out, _ = control("backup", "list", "--from", backups)
        assert code == 0 and [row.split()[0] for row in out.splitlines()] == ["ID", "2", "3", "4"]
        for number, expected in ((2, "2"), (3, "3"), (None, "4")):
            place = tmp_path / f"again{number}"
            place.mkdir()
            which = ["--id", number] if number else []
            assert control("restore", "--from", backups, *which, "--to", place / "rows")[0] == 0
            with Node(place) as again, again.client() as client:
                assert client.get("turn") == expected.encode()
        code, _, err = control("restore", "--from", backups, "--id", 1, "--to", tmp_path / "none")
        assert code == 65 and "there is no backup 1" in err and "2, 3, 4" in err
        assert control("backup", "verify", "--from", backups)[:2] == (
            0, f"Backup 4 in {backups} is whole: {listed[2]['files']} files, {listed[2]['bytes']} bytes\n")
        # One bit in a file that only the newest has.
        newest = max((backups / "private" / "4").iterdir(), key=lambda file: file.stat().st_size)
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
        code, _, err = control("backup", "verify", "--from", backups)
        assert code == 65 and newest.name in err and "damaged" in err
        assert control("backup", "verify", "--from", backups, "--id", 3, "--json")[0] == 0
        code, _, err = control("restore", "--from", backups, "--to", tmp_path / "bad")
        assert code == 65, "nor is it restored"

    def test_what_is_no_directory_of_backups_is_said_to_be_none(self, tmp_path):
        (tmp_path / "empty").mkdir()
        code, out, _ = control("backup", "list", "--from", tmp_path / "empty")
        assert code == 0 and "no backups" in out and not list((tmp_path / "empty").iterdir())
        code, _, err = control("backup", "list", "--from", tmp_path / "nowhere")
        assert code == 65 and "nowhere" in err and not (tmp_path / "nowhere").exists()
        assert control("backup", "verify", "--from", tmp_path / "empty")[0] == 65

    def test_a_full_directory_is_not_restored_into(self, tmp_path, node, token):
        fill(node, rows=10)
        assert control("backup", "--to", tmp_path / "backups", node=node, token=token)[0] == 0
        target = tmp_path / "full"
        target.mkdir()
        (target / "file").write_text("precious")
        code, _, err = control("restore", "--from", tmp_path / "backups", "--to", target)
        assert code == 65 and "not empty" in err.lower() and (target / "file").read_text() == "precious"


class TestWarming:
    def test_rows_of_a_prefix_come_into_the_cache(self, node, token):
        fill(node)
        with node.client() as client:
            assert client.ask("flush_all") == "OK"
            assert int(client.stats()["curr_items"]) == 0
        code, out, err = control("warm", "--prefix", "key:01", "--json", node=node, token=token)
        assert code == 0, err
        assert json.loads(out)["rows"] == 1000
        before = node.statistics()["reads_sent"]
        with node.client() as client:
            assert int(client.stats()["curr_items"]) == 1000
        assert gets(node, "key:01234")[0] == 1234
        assert node.statistics()["reads_sent"] == before, "it came from the cache"


@pytest.mark.parametrize("after", [{"number": 8, "done": 1}, {"number": 0, "done": 0}])
def test_the_end_of_another_operation_is_not_the_backups(after):
    """The node restarted, or was told to do something else, between two looks."""

    class Page(http.server.BaseHTTPRequestHandler):
        def answer(self, fields, status=200):
            body = json.dumps(fields, separators=(",", ":")).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.answer({"begun": True, "number": 7}, 202)

        def do_GET(self):
            self.answer({"operation": "warm", "running": False, "failure": None, **after})

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        line = [command(), "backup", "--to", "/backup", "--node", f"http://127.0.0.1:{server.server_port}"]
        # Nor is a proxy of the environment told the token.
        environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=environment)
        server.shutdown()
    assert done.returncode == 69 and "does not know any more how it ended" in done.stderr, done


class TestAccess:
    def test_pages_that_give_rows_away_need_the_token(self, tmp_path, node, token):
        path = tmp_path / "dumped"
        code, _, err = control("dump", "--output", path, node=node)
        assert code == 69 and "Authorization" in err and not path.exists()
        wrong = tmp_path / "wrong"
        wrong.write_text("another-token-of-length")
        code, _, err = control("dump", "--output", path, node=node, token=wrong)
        assert code == 69 and "not the right one" in err
        assert node.get("/storage/rows")[0] == 401
        assert TOKEN not in err

    def test_without_a_token_they_are_closed(self, tmp_path):
        with Node(tmp_path, admin=True) as node:
            status, text = node.get("/storage/rows")
            assert status == 403 and "adminTokenFile" in text

    @pytest.mark.parametrize("content", ["", "short", None])
    def test_a_bad_token_file_stops_the_start(self, tmp_path, content):
        path = tmp_path / "token"
        if content is not None:
            path.write_text(content)
        code, said = Node(tmp_path, admin=True, admin_token_file=path).refuse()
        assert code == 78 and str(path) in said

    def test_actions_want_post(self, node):
        assert node.get("/storage/backup?path=/x")[0] == 405


class TestCommandLine:
    def test_the_help_names_every_command(self):
        code, out, _ = control("--help")
        assert code == 0 and control()[1] == control("help")[1] == out
        for name in ("dump", "restore", "backup", "warm", "--resume", "--token-file"):
            assert name in out
        assert set(COMMANDS) == set(re.findall(r"(?m)^  martletctl ([a-z]+(?: [a-z]+)*)  ", out))
        assert all(len(line) <= 80 for line in out.splitlines())

    @pytest.mark.parametrize("name", COMMANDS)
    def test_each_command_explains_itself(self, tmp_path, name):
        code, out, _ = control(*name.split(), "--help")
        assert code == 0 and control("help", *name.split())[1] == out
        assert all(len(line) <= 80 for line in out.splitlines())
        usage, examples, options, answer = re.split(r"\n\n(?:Examples|Options|With --json)\n", out)
        assert f"  martletctl {name}" in usage and len(answer.split()) > 0
        own = set(re.findall(r"(?m)^  --([a-z-]+)", options))
        assert own - {"json", "help"} <= set(re.findall(r"--([a-z-]+)", usage + examples)) | {
            "node", "token-file", "ca", "dns", "route-prefix", "format", "resume"}, "an option that is nowhere used"
        if name == "backup":
            assert "list" not in usage
        lines = re.findall(r"(?m)^      martletctl (.*)$", examples)
        assert lines
        for line in lines:
            assert line.startswith(name) and set(re.findall(r"--([a-z-]+)", line)) <= own
            if "--watch" in line or "dnssrv" in line or (name == "top" and "--count" not in line):
                continue
            # What it lacks here is a server or a file, not a right command.
            where = ["unshare", "--net"] if os.geteuid() == 0 else []
            done = subprocess.run([*where, command(), *shlex.split(line)], cwd=tmp_path, capture_output=True, text=True,
                                  timeout=60, check=False, stdin=subprocess.DEVNULL,
                                  env={**os.environ, "MARTLET_STORAGE_URL": "postgresql://127.0.0.1:1/x"})  # fmt: skip
            assert done.returncode in (65, 69, 71), (line, done.stderr)

    def test_errors_are_json_for_programs(self):
        code, out, err = control("frob", "--json")
        said = json.loads(err)
        assert code == said["code"] == 64 and "unknown command" in said["error"] and not out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["frob"], "unknown command"),
            (["dump"], "--output is missing"),
            (["dump", "--frob"], "unrecognized option"),
            (["restore"], "--input FILE"),
            (["restore", "--input", "x", "--from", "y"], "one of them"),
            (["backup", "--to", "relative"], "from / on"),
            (["backup", "--to", "/x", "--keep", "0"], "whole number from 1"),
            (["backup", "list"], "--from is missing"),
            (["backup", "frob"], "one command at a time"),
            (["dump", "--resume", "false"], "--output is missing"),
            (["region", "promote", "eu-west", "--accept-loss=maybe"], "expected true or false"),
            (["warm", "--rate", "0"], "whole number from 1"),
            (["restore", "--input", "x", "--server", "nowhere"], "HOST:PORT"),
        ],
    )
    def test_what_is_wrong_is_named(self, arguments, said):
        code, _, err = control(*arguments)
        assert code == 64 and said in err, err

    def test_a_node_that_is_not_there_is_named(self, tmp_path):
        code, _, err = control("dump", "--output", tmp_path / "x", "--node", "http://127.0.0.1:1")
        assert code == 69 and "http://127.0.0.1:1" in err


def test_routes_are_converted_and_explained(tmp_path):
    routes = tmp_path / "routes.json"
    routes.write_text("""{
      // Two pools, one of them a gutter.
      "pools": {"A": {"servers": ["10.0.0.1:1", "10.0.0.2:1"]}, "G": {"servers": ["10.0.1.1:1"]}},
      "route": {"type": "FailoverWithExptimeRoute", "normal": "PoolRoute|A", "failover": "PoolRoute|G"}
    }""")
    code, yaml, _ = control("convert", routes)
    assert code == 0 and "failover:" in yaml and "atMost: 60s" in yaml
    code, said, _ = control("convert", routes, "--json")
    assert code == 0 and json.loads(said) == {"yaml": yaml, "warnings": []}
    ours = tmp_path / "routes.yaml"
    ours.write_text(yaml)
    code, again, _ = control("convert", ours)
    assert (code, again) == (0, yaml)
    for path in (routes, ours):
        code, text, _ = control("explain", "get", "user:1", "--routes", path)
        assert code == 0 and text.startswith("root\n failover") and "-> 10.0.0." in text
        code, text, _ = control("explain", "get", "user:1", "--routes", path, "--json")
        assert json.loads(text)["destinations"][0].startswith("10.0.0.")
    routes.write_text('{"pools": {}, "route": "SRRoute"}')
    code, _, error = control("convert", routes)
    assert code == 65 and "routes.json:1: SRRoute is not supported" in error


def test_runtime_variables_count_in_what_is_converted_and_explained(tmp_path):
    routes, variables, ours = (tmp_path / name for name in ("routes.json", "variables.json", "routes.yaml"))
    chosen = {"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "WeightedCh3Rv", "weights_rv": "west"}}
    routes.write_text(json.dumps({"pools": {"W": {"servers": ["10.0.0.1:1", "10.0.0.2:1"]}}, "route": chosen}))
    for weights, server in (([1, 0], "-> 10.0.0.1:1"), ([0, 1], "-> 10.0.0.2:1")):
        variables.write_text(json.dumps({"hash_route_weights": {"west": weights}}))
        code, text, error = control("explain", "get", "user:1", "--routes", routes, "--variables", variables)
        assert code == 0 and server in text, (text, error)
        code, yaml, error = control("convert", routes, f"--variables={variables}")
        assert code == 0, error
        # What is converted needs the file no more.
        ours.write_text(yaml)
        code, text, error = control("explain", "get", "user:1", "--routes", ours)
        assert code == 0 and server in text, (text, error)
    for command in (["convert", routes], ["explain", "get", "user:1", "--routes", routes]):
        code, _, error = control(*command)
        assert code == 65 and "needs a file of runtime variables" in error
        code, _, error = control(*command, "--variables", tmp_path / "none.json")
        assert code == 65 and "none.json" in error
        variables.write_text('{"hash_route_weights": {"west": [1, 7]}}')
        code, _, error = control(*command, "--variables", variables)
        assert code == 65 and "numbers from 0 to 1" in error


def test_twemproxys_pools_are_converted(tmp_path):
    path = tmp_path / "nutcracker.yml"
    path.write_text("""
alpha:
  listen: 127.0.0.1:22121
  hash: fnv1a_64
  servers: [127.0.0.1:11211:1 one, 127.0.0.1:11212:2 two]
beta:
  listen: 127.0.0.1:22122
  redis: true
  servers: [127.0.0.1:6379:1]
""")
    code, _, error = control("convert", "--format=twemproxy", path)
    assert code == 65 and "memcached's protocols only" in error
    path.write_text(path.read_text().replace("redis: true", "distribution: modula"))
    code, _, error = control("convert", "--format=twemproxy", path)
    assert code == 64 and "--pool (alpha, beta)" in error
    code, yaml, _ = control("convert", "--format=twemproxy", "--pool=alpha", path)
    assert code == 0 and "function: twemproxy" in yaml and "weight: 2" in yaml
    said = json.loads(control("convert", "--format=twemproxy", "--pool=alpha", path, "--json")[1])
    assert yaml.endswith(said["yaml"]) and isinstance(said["warnings"], list)
