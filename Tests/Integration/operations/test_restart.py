# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Restarts that keep the items (-e): what comes back, how fast, and what never must."""

import json
import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from bed import Server
from bed.server import StartError
from storage.node import Node

pytestmark = pytest.mark.ours

# The size of the large test, in MiB of -m: 2048 for the figures of docs/performance.md.
LARGE = int(os.environ.get("MARTLET_RESTART_MIB") or 192)


@pytest.fixture
def place():
    """A directory on a memory file system, where there is one."""
    path = Path(tempfile.mkdtemp(prefix="martlet-restart-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def node(file, *flags, memory=64, **options):
    # Filled as fast as a loaded machine can: what it refused then would be missing.
    return Server(["-m", memory, "-t", "2", "-e", file, "--overload-target=0", *flags], **options)


def end(server, number=signal.SIGTERM):
    server.signal(number)
    code = server.wait(60)
    said = server.output()
    server.stop()
    assert code == 0, said
    return said


def lines(said, message):
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line for line in found if line["msg"] == message]


def cold(server):
    """Why the cache began empty; None when it did not."""
    # The kernel takes connections before the items are there; whoever is answered has them.
    with server.client() as client:
        count = int(client.stats()["curr_items"])
    said = "the cache begins empty" if count == 0 else "items restored"
    assert server.says(said), server.output()
    found = lines(server.output(), "the cache begins empty")
    assert bool(found) == (count == 0)
    return found[0]["reason"] if found else None


def value(number, length):
    return (b"%d:" % number * (length // 2 + 1))[:length]


def fill(client, numbers, length):
    batch = []
    for number in numbers:
        data = value(number, length)
        batch.append(b"set key:%d %d 0 %d noreply\r\n%s\r\n" % (number, number % 1000, len(data), data))
        if len(batch) == 2000:
            client.send(b"".join(batch))
            batch = []
    client.send(b"".join(batch))
    assert client.ask("mn") == "MN"


def check(client, numbers, length):
    """How many are there; each must be right."""
    found = 0
    numbers = list(numbers)
    for start in range(0, len(numbers), 500):
        part = numbers[start:start + 500]
        client.send("".join(f"mg key:{number} v f k q\r\n" for number in part) + "mn\r\n")
        while (line := client.line()) != "MN":
            _, size, flags, key = line.split(" ")
            number = int(key.removeprefix("kkey:"))
            data = client.read(int(size))
            assert client.line() == ""
            assert data == value(number, length) and flags == f"f{number % 1000}", number
            found += 1
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["TERM", "USR1"])
def test_everything_about_an_item_comes_back(place, number):
    with node(place / "items") as server, server.client() as client:
        assert cold(server) == "there is none yet"
        client.ask("set flags 77 0 1\r\na")
        client.ask("set short 0 3 1\r\nb")
        client.ask("set long 0 1000 1\r\nc")
        client.ask("ms aGVsbG8= 1 b\r\nd")
        client.ask("set large 0 0 500000\r\n" + "e" * 500_000)
        client.ask("set gone 0 0 1\r\nf")
        client.ask("delete gone")
        client.ask("set over 0 0 1\r\ng")
        client.ask("set over 0 0 1\r\nh")
        client.ask("set stale 0 0 1\r\ni")
        client.ask("md stale I T100")
        client.get("flags")
        for key in ("flags", "large", "over", "stale"):
            client.ask(f"mg {key} s")
        before = {key: client.ask(f"mg {key} f c s h") for key in ("flags", "large", "over", "stale")}
        version = int(re.search(r"c(\d+)", before["over"])[1])
        uptime = int(client.stats()["uptime"])
        said = end(server, number)
        assert lines(said, "items saved")[0]["items"] == 7
    time.sleep(1)
    with node(place / "items") as server, server.client() as client:
        assert cold(server) is None
        assert lines(server.output(), "items restored")[0]["items"] == 7
        assert client.stats("martlet")["restored_items"] == "7"
        after = {key: client.ask(f"mg {key} f c s h") for key in before}
        assert after == before, "versions, flags, reads, and that somebody recaches what is stale"
        assert client.ask("mg aGVsbG8= b v").startswith("VA 1")
        client.line()
        assert client.get("large") == b"e" * 500_000
        assert client.get("gone") is None
        assert client.get("over") == b"h"
        assert 990 <= int(client.ask("mg long t").split("t")[1]) <= 1000
        assert int(client.stats()["uptime"]) <= uptime + 10
        time.sleep(3)
        assert client.get("short") is None, "the time that nobody ran counts as well"
        client.ask("set new 0 0 1\r\nx")
        assert int(re.search(r"c(\d+)", client.ask("mg new c"))[1]) > version, "versions go on"


def test_a_large_cache(place):
    """Evicting, with many more items than fit: what was there is there again, nothing else, and soon."""
    length = 400
    count = LARGE * (1 << 20) // 380
    file = place / "items"
    with node(file, memory=LARGE) as server:
        with server.client(60) as client:
            fill(client, range(count), length)
            there = int(client.stats()["curr_items"])
            sample = range(0, count, max(1, count // 50_000))
            before = check(client, sample, length)
            assert int(client.stats()["evictions"]) > 0
        peak = server.rss()
        begun = time.monotonic()
        said = end(server, signal.SIGUSR1)
        ended = time.monotonic() - begun
    saved = lines(said, "items saved")[0]
    begun = time.monotonic()
    with node(file, memory=LARGE) as server:
        with server.client(60) as client:
            # The kernel takes connections before the items are there: it is ready when somebody is answered.
            assert client.ask("mn") == "MN"
            ready = time.monotonic() - begun
            restored = int(client.stats()["curr_items"])
            after = check(client, sample, length)
        assert file.stat().st_size == 4096, "what was read leaves the file"
        print(f"-m {LARGE}: {there} items, {restored} restored ({100 * restored / there:.2f}%); saved in "
              f"{saved['milliseconds']} ms, ended after {ended:.2f} s, ready after {ready:.2f} s; "
              f"{peak >> 20} MiB before, {server.rss() >> 20} MiB after")
        assert restored >= 0.99 * there and after >= 0.99 * before
        assert ready < 5 * max(1, LARGE / 2048)
        assert server.rss() < 1.15 * (LARGE << 20) + (32 << 20)
        # It goes on as any full cache does.
        with server.client(60) as client:
            fill(client, range(count, count + count // 4), length)
            assert check(client, range(count + count // 8, count + count // 4), length) > 0


@pytest.mark.parametrize("how", ["KILL", "INT", "TERM twice", "no time"])
def test_an_end_that_is_not_graceful_leaves_nothing(place, how):
    file = place / "items"
    with node(file) as server:
        with server.client() as client:
            fill(client, range(1000), 50)
        end(server)
    flags = ["--drain-timeout=0"] if how == "no time" else ["--drain-timeout=30s", "--drain-delay=10s"]
    with node(file, *flags) as server:
        assert cold(server) is None
        if how == "KILL":
            server.process.kill()
            server.process.wait()
        elif how == "INT":
            end(server, signal.SIGINT)
        elif how == "TERM twice":
            server.signal(signal.SIGTERM)
            while "stopping gracefully" not in server.output():
                time.sleep(0.02)
            end(server)
        else:
            end(server)
    with node(file) as server:
        assert cold(server) == "the process before did not end gracefully"
        with server.client() as client:
            fill(client, range(10), 50)
        end(server)
    with node(file) as server:
        assert cold(server) is None, "and the next one is as good as any"


@pytest.mark.parametrize("first, then, reason", [
    ({}, {"memory": 128}, r"memory was 67108864, and is 134217728"),
    ({}, {"flags": ["-I", "2m"]}, r"itemSizeMax was 1048576, and is 2097152"),
    ({}, {"flags": ["--memory-file-age=0"]}, r"the items are \d+ seconds old"),
])
def test_what_does_not_fit_is_refused_with_the_reason(place, first, then, reason):
    def begin(memory=64, flags=()):
        return node(place / "items", *flags, memory=memory)

    with begin(**first) as server:
        with server.client() as client:
            fill(client, range(100), 50)
        end(server)
    time.sleep(1.1)
    with begin(**then) as server:
        assert re.fullmatch(reason, cold(server))


def test_a_limit_that_was_raised_meanwhile(place):
    """What the memory limit of the command line does not allow is not loaded."""
    file = place / "items"
    with node(file, memory=32) as server:
        with server.client(60) as client:
            assert client.ask("cache_memlimit 128") == "OK"
            fill(client, range(200_000), 400)
            assert int(client.stats()["bytes"]) > 64 << 20
        end(server)
    with node(file, memory=32) as server:
        assert cold(server) == "the memory limit was higher"


def test_a_start_that_fails_leaves_the_items(place):
    """Whoever has the address still does not cost the items: the next start has them."""
    file = place / "items"
    with node(file) as server:
        with server.client() as client:
            fill(client, range(100), 50)
        end(server)
    with Server("-m 64") as other:
        late = node(file, "-l", "127.0.0.1", "-p", other.port, listen=False)
        assert late.process.wait(20) != 0
        assert "in use" in late.output()
        late.stop()
    with node(file) as server:
        assert cold(server) is None


def test_a_file_of_somebody_else_is_not_trusted(place):
    file = place / "items"
    (place / "target").touch()
    file.symlink_to(place / "target")
    with pytest.raises(StartError, match="symbolic links"):
        node(file)
    file.unlink()
    os.link(place / "target", file)
    with pytest.raises(StartError, match="no file of the node's own user"):
        node(file)
    file.unlink()
    if os.geteuid() == 0:
        file.touch()
        os.chown(file, 65534, 65534)
        with pytest.raises(StartError, match="no file of the node's own user"):
            node(file)
        file.unlink()
    file.touch(0o666)
    file.chmod(0o666)
    with node(file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_refused(place):
    file = place / "items"
    for _ in range(2):
        with node(file) as server:
            with server.client() as client:
                fill(client, range(3000), 200)
            end(server)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
        with node(file) as server:
            assert cold(server).startswith("the file is damaged: ")


def test_what_is_something_else_is_left_alone(place):
    other = place / "letter"
    other.write_text("Dear reader,\n")
    with pytest.raises(StartError, match="no memory file of Martlet"):
        node(other)
    assert other.read_text() == "Dear reader,\n"
    with node(place / "items"), pytest.raises(StartError, match="another process uses it"):
        node(place / "items")
    with pytest.raises(StartError, match="No such file"):
        node(place / "nowhere/items")


def test_a_flush_to_come_comes(place):
    file = place / "items"
    with node(file) as server:
        with server.client() as client:
            assert client.ask("set k 0 0 1\r\nv") == "STORED"
            assert client.ask("flush_all 3") == "OK"
            assert client.get("k") == b"v"
        end(server)
    with node(file) as server, server.client() as client:
        deadline = time.monotonic() + 6
        while client.get("k") is not None:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_with_the_embedded_store(tmp_path, place):
    """Copies come back while nobody wrote; as soon as somebody did, the store has the word."""
    file = place / "items"
    with Node(tmp_path, backend="rocksdb", memory_file=file) as one:
        with one.client() as client:
            for number in range(500):
                assert client.set(f"k{number}", b"old") == "STORED"
        assert one.terminate() == 0
        one.start()
        with one.client() as client:
            assert int(client.stats()["curr_items"]) == 500
            assert client.get("k1") == b"old"
            assert one.statistics()["reads_sent"] == 0, "a copy answered"
            assert client.set("k2", b"newer") == "STORED"
        assert one.terminate() == 0
        # Another node writes to the same store, without the file.
        other = Node(tmp_path, backend="rocksdb")
        with other, other.client() as client:
            assert client.set("k1", b"new") == "STORED"
            assert client.ask("delete k3") == "DELETED"
            assert other.terminate() == 0
        one.start()
        with one.client() as client:
            assert int(client.stats()["curr_items"]) == 0
            assert client.get("k1") == b"new" and client.get("k2") == b"newer" and client.get("k3") is None
        assert one.server.says("store was "), one.server.output()
        one.kill()
        one.start()
        with one.client() as client:
            assert client.get("k1") == b"new"
        assert one.server.says("did not end gracefully"), one.server.output()


def test_a_shared_store_keeps_nothing(tmp_path, place):
    file = place / "items"
    with Node(tmp_path, backend="postgres", memory_file=file) as one:
        assert one.server.says("has no effect with this store"), one.server.output()
        with one.client() as client:
            assert client.set("k", b"v") == "STORED"
        assert one.terminate() == 0
        one.start()
        with one.client() as client:
            assert int(client.stats()["curr_items"]) == 0
            assert client.get("k") == b"v"
        assert one.server.says("others may have written to the store"), one.server.output()


def test_other_rules_for_storage_are_another_cache(tmp_path, place):
    """A key that had no storage, and has it now, must not be answered from before."""
    file = place / "items"
    one = Node(tmp_path, backend="rocksdb", memory_file=file, pools=[{"prefix": "", "storage": False}])
    with one:
        with one.client() as client:
            assert client.set("k", b"only cached") == "STORED"
        assert one.terminate() == 0
    two = Node(tmp_path, backend="rocksdb", memory_file=file, pools=[{"prefix": "", "storage": True}])
    with two, two.client() as client:
        assert client.get("k") is None
        assert two.server.says("pools was "), two.server.output()
