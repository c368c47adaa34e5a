# Martlet
# SPDX-License-Identifier: Apache-2.0
"""`make run`: the script that it calls, and the README's first example through it, on its own port in a network of its
own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bed import default_command
from documents.blocks import ROOT, blocks

pytestmark = pytest.mark.ours

PRELUDE = r"""
ip link set lo up
begin() {
    "$@" >> said 2>&1 & node=$!
    for _ in $(seq 400); do
        nc -z 127.0.0.1 11211 && return
        kill -0 $node || { cat said >&2; exit 8; }
        sleep 0.05
    done
    cat said >&2; exit 9
}
end() { kill -9 $node; wait $node || true; }
trap 'kill -9 $node 2>/dev/null || true' EXIT
"""


def readme(word):
    """The README's command, and what it says that is answered."""
    found = [block for block in blocks() if block.page == "README.md" and f"printf '{word} greeting" in block.text]
    assert len(found) == 1, f"the README shows {len(found)} examples that {word} a greeting"
    return found[0]


@pytest.fixture
def place(tmp_path):
    """A directory that looks like the repository: the script, and the program that it starts."""
    (tmp_path / "Scripts").mkdir()
    shutil.copy(ROOT / "Scripts/run-node", tmp_path / "Scripts/run-node")
    (tmp_path / ".build/release").mkdir(parents=True)
    (tmp_path / ".build/release/martlet-server").symlink_to(Path(default_command().split()[0]).resolve())
    return tmp_path


def run(place, script):
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    variables = {name: text for name, text in os.environ.items() if not name.startswith("MARTLET_")}
    done = subprocess.run(
        ["unshare", "--net", *rights, "bash", "-ec", PRELUDE + script], cwd=place, env=variables,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    said = (place / "said").read_text() if (place / "said").exists() else ""
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}{said[-2000:]}"
    return done.stdout.replace("\r", ""), said


def test_the_first_example_survives_kill_9(place):
    first, second = readme("set"), readme("get")
    out, said = run(place, f"""
        begin Scripts/run-node
        {first.text}
        end
        echo restarted
        begin Scripts/run-node
        {second.text}
        end
        """)  # fmt: skip
    stored, read = out.split("restarted\n")
    assert stored.strip() == first.answer.strip()
    assert read.strip() == "VALUE greeting 0 5\nhello\nEND"
    assert (place / "data/MARTLET").exists(), "where it says that it stores"
    for word in ("127.0.0.1:11211", "127.0.0.1:9150", "data/", "kill it, and start it again"):
        assert word in said, word


def test_a_taken_port_is_said_and_arguments_go_to_the_server(place):
    out, said = run(place, """
        begin Scripts/run-node --storage-backend none -m 100
        printf 'stats\\r\\nstats storage\\r\\nquit\\r\\n' | nc 127.0.0.1 11211 |
            grep -E 'limit_maxbytes|storage_backend'
        Scripts/run-node 2> second && exit 7 || echo "ended with $?"
        end
        """)  # fmt: skip
    assert out.splitlines() == ["STAT limit_maxbytes 104857600", "STAT storage_backend none", "ended with 1"]
    assert "Something already listens on 127.0.0.1:11211" in (place / "second").read_text()
    assert not (place / "data").exists()
