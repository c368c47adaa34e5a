# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Crashes of the embedded store: a sample of what Scripts/soak-storage does a thousand times. The harness is in
Tests/StorageCrash; the program that writes is built by `make test`, or by
`swift build -c release --product storage-crash-writer`."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/StorageCrash"))

from cycle import DirectDriver, Series, run  # noqa: E402
from power import Recorder, build  # noqa: E402

PROGRAM = Path(os.environ.get("MARTLET_CRASH_WRITER", ROOT / ".build/release/storage-crash-writer"))
SEED = int(os.environ.get("MARTLET_SEED") or random.randrange(1, 10**6) * 10 + 1)

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason=f"no {PROGRAM}: swift build -c release --product storage-crash-writer")


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("powerloss"))


def series(tmp_path, kind, durability="sync", library=None):
    return Series(DirectDriver(PROGRAM), tmp_path / "work", kind, durability, library)


def test_nothing_acknowledged_is_lost_by_kill(tmp_path):
    cycles = series(tmp_path, "kill")
    assert run(cycles, SEED, SEED + 19) == []
    assert cycles.answered > 100 and cycles.lost == 0


def test_nothing_acknowledged_is_lost_by_power_loss(tmp_path, library):
    cycles = series(tmp_path, "power", library=library)
    assert run(cycles, SEED, SEED + 19) == []
    assert cycles.answered > 100 and cycles.lost == 0


def test_group_is_as_durable_as_sync(tmp_path, library):
    cycles = series(tmp_path, "power", "group", library)
    assert run(cycles, SEED, SEED + 4) == []
    assert cycles.answered > 100 and cycles.lost == 0


def test_power_losses_are_real_since_async_loses_writes(tmp_path, library):
    """Without it, the tests above could pass because nothing is ever taken away. What is left is whole all the same."""
    cycles = series(tmp_path, "power", "async", library)
    for seed in range(SEED, SEED + 30):
        assert run(cycles, seed, seed) == []
        if cycles.lost > 0:
            return
    pytest.fail(f"30 power losses took none of {cycles.answered} writes that were never synced")


def test_async_loses_nothing_by_kill(tmp_path):
    cycles = series(tmp_path, "kill", "async")
    assert run(cycles, SEED, SEED + 4) == []
    assert cycles.answered > 100 and cycles.lost == 0


@pytest.mark.parametrize("fails_at", [0, 1, 2, 40])
def test_a_failed_sync_makes_the_store_read_only(tmp_path, library, fails_at):
    """The first sync of the log may fail while the store is opened: then it does not open. Later it is read-only, and
    what was acknowledged is there after a restart."""
    driver = DirectDriver(PROGRAM)
    directory = tmp_path / "root" / "store"
    directory.parent.mkdir()
    recorder = Recorder(directory.parent, tmp_path / "power", library, fail_log=fails_at)
    process = driver.start(directory, 7, "sync", 1, 0, recorder.environment())
    output, _ = process.communicate(timeout=60)
    writes, others = driver.transcript(output)
    if "READY" not in others:
        assert process.returncode == 1
        assert any("Input/output error" in line for line in others), others
        return
    assert process.returncode == 3
    assert any(line.startswith("READONLY a commit failed") for line in others), others
    recorder.cut(random.Random(7))
    cycles = series(tmp_path, "power", library=library)
    cycles.fresh()
    lost, wrong = cycles.store.after(writes, driver.check(directory, "sync"))
    assert (lost, wrong) == (0, [])


def play(tmp_path, library, program):
    """Runs a Python program in a recorded directory, cuts the power when it ended, and gives what is there. The random
    numbers say that nothing is kept that was not promised."""
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    recorder = Recorder(root, tmp_path / "power", library)
    script = f"import os\nos.chdir({str(root)!r})\ndirectory = os.open('.', os.O_RDONLY)\n" + program
    subprocess.run([sys.executable, "-c", script], env=recorder.environment(), check=True)

    class Strict:
        random = staticmethod(lambda: 1.0)
        randint = staticmethod(lambda low, high: low)

    recorder.cut(Strict)
    return {path.name: path.read_text() for path in root.iterdir()}


WRITE = """
def write(name, text, synced, mode='a'):
    with open(name, mode) as file:
        file.write(text)
        file.flush()
        if synced: os.fsync(file.fileno())
"""


def test_a_power_loss_keeps_what_was_synced_and_no_more(tmp_path, library):
    there = play(tmp_path, library, WRITE + """
write('kept', 'one', True); write('kept', 'two', False)
write('empty', 'three', False)
os.fsync(directory)
write('nameless', 'four', True)
""")
    assert there == {"kept": "one", "empty": ""}
    assert play(tmp_path, library, WRITE + "write('kept', 'five', True)") == {"kept": "onefive", "empty": ""}


def test_a_power_loss_undoes_renames_and_removals_of_a_directory_that_was_not_synced(tmp_path, library):
    before = play(tmp_path, library, WRITE + """
for name in 'abc': write(name, name, True)
os.fsync(directory)
os.rename('a', 'b'); os.unlink('c')
""")
    assert before == {"a": "a", "b": "b", "c": "c"}
    after = play(tmp_path, library, "os.rename('a', 'b'); os.unlink('c'); os.fsync(directory)")
    assert after == {"b": "a"}
