# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Bad input and bad days: each has a clear error, or a stated behaviour, and none is silently wrong."""

import os
import random
import shutil
import subprocess
import time

import pytest

from bed import free_port
from bed.server import StartError
from storage.disks import grow, mount, small_disk
from storage.node import BACKEND, Node

pytestmark = [pytest.mark.ours, pytest.mark.skipif(BACKEND != "rocksdb", reason="about files")]
ROWS, LOGGED = 3000, 100


def value_of(number):
    return b"%06d" % number + random.Random(number).randbytes(400).hex().encode()


@pytest.fixture
def node(tmp_path):
    one = Node(tmp_path)
    yield one
    one.stop()


@pytest.fixture
def filled(node):
    """A store with rows in sorted files and in the log, closed."""
    node.start()
    store(node, range(ROWS))
    node.restart(crash=False)
    with node.client(30) as client:
        for number in range(ROWS, ROWS + LOGGED):
            assert client.set(f"k{number}", value_of(number)) == "STORED"
    node.kill()
    return node


def store(node, numbers):
    with node.client(30) as client:
        for number in numbers:
            client.send(b"set k%d 0 0 %d noreply\r\n%s\r\n" % (number, len(value_of(number)), value_of(number)))
        assert client.ask("mn") == "MN"


def refusal(node, *words):
    """The node must not start, and must say these words; nothing may listen."""
    code, said = node.refuse()
    print(code, said)
    assert code != 0
    for word in (str(node.path), *words):
        assert word in said, f"{word!r} is not in: {said}"
    assert "Fatal error" not in said
    assert len(said.splitlines()) <= 4, "one line of reason, no dump"
    return said


def flip(path, at, count=1):
    with open(path, "r+b") as file:
        file.seek(at)
        old = file.read(count)
        file.seek(at)
        file.write(bytes(byte ^ 0x55 for byte in old))


def look(node, numbers):
    """(right, refused, missing or wrong) of reads from storage."""
    right, refused, bad = 0, 0, []
    with node.client(30) as client:
        for number in numbers:
            line = client.ask(f"get k{number}")
            if line.startswith("SERVER_ERROR storage: "):
                refused += 1
            elif line.startswith("VALUE"):
                value = client.read(int(line.split()[3]) + 2)[:-2]
                assert client.line() == "END"
                right += value == value_of(number)
                if value != value_of(number):
                    bad.append((number, value[:20]))
            else:
                bad.append((number, line))
    return right, refused, bad


class TestStart:
    def test_a_directory_is_made_with_those_above_it_or_refused(self, node):
        node.path = node.directory / "not" / "there" / "yet"
        node.arguments[node.arguments.index("--storage-path") + 1] = str(node.path)
        code, said = 0, ""
        try:
            node.start()
        except StartError:
            code, said = node.refuse()
        if code:
            assert str(node.path) in said
            assert "No such file" in said
        else:
            assert node.path.is_dir()

    def test_a_file_above_the_path(self, node):
        (node.directory / "file").write_text("x")
        node.path = node.directory / "file" / "rows"
        node.arguments[node.arguments.index("--storage-path") + 1] = str(node.path)
        refusal(node, "Not a directory")

    def test_a_file_in_place_of_the_directory(self, node):
        node.path.write_text("precious")
        refusal(node)
        assert node.path.read_text() == "precious"

    def test_a_directory_of_something_else_is_left_alone(self, node):
        node.path.mkdir()
        (node.path / "photos.tar").write_text("precious")
        refusal(node, "photos.tar")
        assert sorted(entry.name for entry in node.path.iterdir()) == ["photos.tar"]

    def test_a_directory_that_cannot_be_written(self, node):
        node.path.mkdir()
        if os.geteuid() == 0:
            if mount("tmpfs", node.path, "size=8m,ro"):
                pytest.skip("no right to mount")
            try:
                refusal(node, "Read-only file system")
            finally:
                subprocess.run(["umount", str(node.path)], check=True)
        else:
            node.path.chmod(0o555)
            refusal(node, "Permission denied")

    def test_a_second_process_on_the_directory(self, node):
        node.start()
        with node.client() as client:
            client.set("k", b"v")
            other = Node(node.directory)
            refusal(other, "another process")
            assert client.set("k", b"w") == "STORED"
            client.ask("flush_all")
            assert client.get("k") == b"w"
        node.restart()

    def test_settings_that_make_no_sense(self, tmp_path):
        for flags, words in (
            (["--storage-backend", "rocks"], ("storage-backend", "rocks", "rocksdb")),
            (["--storage-durability", "maybe"], ("storage-durability", "maybe")),
            (["--storage-timeout", "0"], ("storage-timeout",)),
            (["--storage-backend", "postgres"], ("storage.url",)),
            (["--udp-port", str(free_port())], ("UDP",)),
        ):
            node = Node(tmp_path)
            node.arguments += flags
            code, said = node.refuse()
            assert code != 0, flags
            assert all(word in said for word in words), said
        for pools, words in (
            ([{"prefix": "a"}, {"prefix": "a"}], ("prefix", "twice")),
            ([{"name": "x"}], ("prefix",)),
            ([{"prefix": "a", "cacheTTLs": "1s"}], ("cacheTTLs", "cacheTTL")),
            ([{"prefix": "a b"}], ("prefix",)),
        ):
            code, said = Node(tmp_path, pools=pools).refuse()
            assert code != 0, pools
            assert all(word in said for word in words), said
        code, said = Node(tmp_path, pools=[{"prefix": "a", "cacheTTL": "1s"}], backend="none").refuse()
        assert code != 0
        assert "cacheTTL" in said and "storage.backend" in said


class TestDamage:
    """What a damaged file may cost is the rows in it, and only with an error; never a wrong value or a false miss."""

    def test_CURRENT_is_garbage(self, filled):
        (filled.path / "CURRENT").write_bytes(b"\xff\xfe\n")
        refusal(filled, "damaged")

    def test_CURRENT_is_empty(self, filled):
        (filled.path / "CURRENT").write_bytes(b"")
        refusal(filled, "damaged")

    def test_CURRENT_is_missing(self, filled):
        (filled.path / "CURRENT").unlink()
        refusal(filled, "damaged", "CURRENT")

    def test_the_MANIFEST_is_missing(self, filled):
        next(filled.path.glob("MANIFEST-*")).unlink()
        refusal(filled, "damaged", "MANIFEST")

    def test_the_MANIFEST_has_other_bits(self, filled):
        path = next(filled.path.glob("MANIFEST-*"))
        flip(path, path.stat().st_size // 3, 4)
        refusal(filled, "damaged")

    def test_a_sorted_file_is_missing(self, filled):
        lost = max(filled.path.glob("*.sst"), key=lambda path: path.stat().st_size)
        lost.unlink()
        refusal(filled, "damaged", lost.stem)

    def test_the_marker_has_other_bits(self, filled):
        (filled.path / "MARTLET").write_bytes(b"martlet-store\nformat one\n")
        refusal(filled, "MARTLET", "damaged")

    def test_a_newer_format(self, filled):
        text = (filled.path / "MARTLET").read_text()
        (filled.path / "MARTLET").write_text(text.replace("format 1", "format 999"))
        refusal(filled, "999", "newer")

    def test_rows_in_a_damaged_sorted_file(self, filled):
        """Bits of data blocks: the rows in them are errors, all others are served, and nothing is wrong."""
        path = max(filled.path.glob("*.sst"), key=lambda path: path.stat().st_size)
        for part in (0.2, 0.5, 0.6):
            flip(path, int(path.stat().st_size * part), 8)
        code = 0
        try:
            filled.start()
        except StartError:
            code, said = filled.refuse()
            assert "damaged" in said
        if not code:
            right, refused, bad = look(filled, range(ROWS + LOGGED))
            print(f"{right} right, {refused} refused")
            assert bad == []
            assert refused > 0
            assert right > ROWS // 2
            # A row that cannot be read: conditions on it are refused as well, and a plain set repairs it.
            assert filled.statistics()["storage_health"]

    def test_a_log_with_other_bits_in_the_middle(self, filled):
        """Acknowledged writes behind the damage must not vanish without a word."""
        log = max(filled.path.glob("*.log"), key=lambda path: path.stat().st_size)
        flip(log, log.stat().st_size // 2, 4)
        refusal(filled, "damaged", "storage.acceptDamagedLog")
        # Whoever says so gets what was before the damage, and may write.
        filled.arguments.append("--storage-accept-damaged-log=true")
        filled.start()
        right, refused, bad = look(filled, range(ROWS + LOGGED))
        assert right >= ROWS and refused == 0 and bad, "what came later is given up"
        with filled.client() as client:
            assert client.ask("set new 0 0 1\r\nv") == "STORED"
        filled.terminate()
        filled.arguments.pop()
        filled.start()
        with filled.client() as client:
            assert client.get("new") == b"v"

    def test_a_log_whose_last_record_is_torn(self, filled):
        """What kill -9 leaves in the middle of a write: the start goes on without it."""
        log = max(filled.path.glob("*.log"), key=lambda path: path.stat().st_size)
        with open(log, "r+b") as file:
            file.truncate(log.stat().st_size - 3)
        filled.start()
        right, refused, bad = look(filled, range(ROWS + LOGGED))
        assert refused == 0
        assert len(bad) <= 1, "only the last record"
        assert right >= ROWS + LOGGED - 1

    def test_random_bits_anywhere(self, filled, tmp_path):
        """Twelve stores, each with one file damaged at a random place: refused at start, errors, or all right."""
        source = random.Random(int(os.environ.get("MARTLET_SEED") or 5))
        original = tmp_path / "original"
        shutil.copytree(filled.path, original)
        names = sorted(path.name for path in original.iterdir() if path.stat().st_size and path.name != "LOCK")
        outcomes = {}
        for number in range(12):
            shutil.rmtree(filled.path)
            shutil.copytree(original, filled.path)
            name = names[number % len(names)]
            size = (filled.path / name).stat().st_size
            at = source.randrange(size)
            flip(filled.path / name, at)
            try:
                filled.start()
            except StartError as error:
                said = str(error)
                assert "storage path" in said, said
                assert "another process" not in said, said
                outcomes[name] = "refused"
                continue
            right, refused, bad = look(filled, range(ROWS + LOGGED))
            assert bad == [], f"{name} at {at} of {size}: {len(bad)} wrong, such as {bad[0]}"
            outcomes[name] = f"{right} right, {refused} refused"
            filled.kill()
        print(outcomes)


class TestFullDisk:
    @pytest.fixture
    def disk(self):
        with small_disk(48) as path:
            yield path

    def fill(self, node, client):
        """Stores until it is refused; returns the acknowledged numbers and the error."""
        acked = []
        for number in range(400):
            line = client.set(f"big{number}", value_of(number) * 250)
            if line != "STORED":
                return acked, line
            acked.append(number)
        raise AssertionError("the disk is never full")

    def test_full_in_flight(self, disk):
        """Read-only and not ready, but neither silent nor gone; cached and stored rows are read; all is there after."""
        node = Node(disk, admin=True)
        with node, node.client(30) as client:
            assert client.set("before", b"v") == "STORED"
            assert node.get("/readyz")[0] == 200
            acked, line = self.fill(node, client)
            print(f"{len(acked)} stored, then {line}")
            assert line.startswith("SERVER_ERROR"), line
            assert len(acked) > 20
            for _ in range(3):
                assert client.set("after", b"v").startswith("SERVER_ERROR storage: ")
            assert client.ask("delete before").startswith("SERVER_ERROR storage: ")
            assert client.get("before") == b"v", "a cached copy is served"
            client.ask("flush_all")
            assert client.get("before") == b"v", "and so is a stored row"
            assert client.get("after") is None
            status, text = node.get("/readyz")
            assert status == 503
            assert "storage" in text
            health = node.statistics()["storage_health"]
            assert health.startswith("read-only: ")
            assert "space" in health or "full" in health
            status, text = node.get("/metrics")
            assert "\nmartlet_storage_up 0" in text
            assert node.get("/livez")[0] == 200
            deadline = time.monotonic() + 5
            while "storage" not in node.server.output():
                assert time.monotonic() < deadline, f"the log says nothing: {node.server.output()}"
                time.sleep(0.05)
            assert node.server.alive()
        # Killed on its full disk; then the disk is sound again.
        grow(disk, 200)
        with node, node.client(30) as client:
            assert node.get("/readyz")[0] == 200
            assert client.get("before") == b"v"
            missing = [number for number in acked if client.get(f"big{number}") != value_of(number) * 250]
            assert missing == []
            assert client.get("after") is None
            assert client.set("after", b"v") == "STORED"

    def test_full_at_start(self, disk, tmp_path):
        (disk / "rows").mkdir()
        try:
            (disk / "ballast").write_bytes(bytes(48 << 20))
        except OSError:
            pass
        node = Node(tmp_path)
        node.path = disk / "rows"
        node.arguments[node.arguments.index("--storage-path") + 1] = str(node.path)
        refusal(node, "space")


class TestSlowAndDown:
    def test_a_paused_store_does_not_hold_up_hits_of_others(self, node):
        """The time limit answers who waits; nobody is answered with a miss."""
        node.arguments += ["--storage-timeout", "50ms"]
        node.start()
        store(node, range(50))
        with node.client() as client:
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                client.ask("flush_all")
                for number in range(50):
                    line = client.ask(f"get k{number}")
                    if line.startswith("VALUE"):
                        client.read(int(line.split()[3]) + 2)
                        assert client.line() == "END"
                    else:
                        assert line.startswith("SERVER_ERROR storage: "), line

    def test_the_directory_disappears_in_flight(self, node):
        """Somebody removes the files below a running node: never a wrong answer, and no crash."""
        node.start()
        store(node, range(500))
        shutil.rmtree(node.path)
        with node.client(30) as client:
            assert client.get("k3") == value_of(3), "cached"
            for number in range(300):
                line = client.set(f"n{number}", value_of(number) * 100)
                assert line == "STORED" or line.startswith("SERVER_ERROR"), line
            client.ask("flush_all")
        _, _, bad = look(node, range(500))
        assert bad == []
        assert node.server.alive()
