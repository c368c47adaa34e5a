# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The documentation's blocks of commands and settings, and a place to run them in.

A block of commands whose first line is `# needs …` says why it cannot be run here; where it needs a running node only, or a
node of a region, it gets one. Blocks for those who change Martlet (`make`, `swift`, programs of the repository) are checked for
what they name. All others are run as they stand: in a network of their own, where the documentation's ports are free, and with
directories of the system's that are empty.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bed import default_command

ROOT = Path(__file__).resolve().parents[3]
# Where blocks are looked for, in order.
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Charts/martlet/README.md",
                 *sorted((ROOT / "docs").rglob("*.md"))]
]  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
DEVELOPMENT = re.compile(
    r"^(?:[A-Z_]+=\S+ )*(make|swift|Scripts/[\w-]+|(?:\.\./\.\./)?\.venv/bin/python|servers=\S+)(?: |$)")  # fmt: skip
# Of the programs of the repository, what is quick enough to be run.
QUICK = ("Scripts/capacity", ".venv/bin/python Scripts/render-chart --check")


@dataclass
class Block:
    page: str
    number: int
    language: str
    text: str
    # What the page shows as the answer: the text of a block without a language right after this one.
    answer: str | None

    def __str__(self):
        return f"{self.page}:{self.number}"

    @property
    def lines(self):
        return [line for line in self.text.splitlines() if line.strip() and not line.startswith("#")]

    @property
    def is_marked(self):
        return self.text.startswith("# needs ")

    @property
    def is_served(self):
        """Whether all that it needs is a node."""
        return self.text.startswith(("# needs a running node\n", "# needs a running node of a region\n"))

    @property
    def is_development(self):
        return all(DEVELOPMENT.match(line) for line in self.lines)


def blocks():
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        fences = list(FENCE.finditer(text))
        for number, match in enumerate(fences):
            following = fences[number + 1] if number + 1 < len(fences) else None
            answers = following and not following[1] and not text[match.end() : following.start()].strip()
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[1], match[2], following[2] if answers else None))
    return found


PRELUDE = r"""
ip link set lo up
for directory in /var/lib /var/backups /run /dev/shm; do mount -t tmpfs tmpfs $directory; done
mkdir /run/martlet
cd "$PLACE"
serve() {
    "$@" & servers="$servers $!"
    for _ in $(seq 200); do nc -z 127.0.0.1 "$port" && return; kill -0 $! || exit 8; sleep 0.05; done
    echo "nothing listens on $port" >&2; exit 9
}
end() { for one in $servers; do kill -9 "$one" 2>/dev/null || true; wait "$one" || true; done; servers=; }
trap end EXIT
servers=
"""


# Of a node of the home region; of a router, where a block asks for its admin port.
REGION = """region: us-east
regions: [{name: us-east, role: home, stream: "127.0.0.1:11212"}, {name: eu-west, role: replica}]
stream: {listen: "127.0.0.1:11212"}
"""
ROUTED = ("port=11311; serve martlet-server -p 11311 -m 64 >/dev/null 2>&1\n"
          "port=11211; serve martlet-router --servers 127.0.0.1:11311 >/dev/null 2>&1\n")  # fmt: skip


def script(block):
    """The block as a shell script: a server in the foreground goes into the background, where it is awaited."""
    lines = []
    for line in block.text.splitlines():
        command = re.sub(r"\s+# .*$", "", line).rstrip()
        if re.match(r"^(\.build/release/)?martlet-server ", command) and "--check-config" not in command:
            port = re.search(r" -p (\d+)", command)
            number = port[1] if port else "11311" if "cache.yaml" in command else "11211"
            lines.append(f"port={number}; serve {command.removesuffix('&').strip()}")
        elif command.startswith("martlet-router ") and "--check-config" not in command:
            # Each such line is one way to start it, on the same port.
            lines.append(f"port=11211; serve {command}; end")
        elif " timeout " in command:
            lines.append(f"{{ {command}; }} || [ $? = 124 ]")
        else:
            lines.append(line)
    return "\n".join(lines)


def run(block, place):
    """Runs a block in a directory that looks like the repository; its exit code and output."""
    server = Path(default_command().split()[0]).resolve()
    (place / ".build/release").mkdir(parents=True)
    programs = place / "programs"
    programs.mkdir()
    for name in (server.name, "martletctl", "martlet-router", "martlet-load"):
        (programs / name).symlink_to(server.with_name(name))
        (place / ".build/release" / name).symlink_to(server.with_name(name))
    for other in blocks():
        # A file of settings that the page shows by name.
        if other.language == "yaml" and (name := re.match(r"# (\w+\.yaml)\n", other.text)):
            (place / name[1]).write_text(other.text)
    own = "martlet-router " in block.text or re.search(
        r"martlet-server (?!.*--check-config)(?!.*-p \d)(?!.*cache\.yaml)", block.text)
    text = PRELUDE
    if ":9151/" in block.text:
        text += ROUTED
    elif not own:
        (place / "region.yaml").write_text(REGION if "of a region" in block.text.split("\n")[0] else "{}")
        text += ("port=11211; serve martlet-server --storage-backend rocksdb --storage-path data -m 64 "
                 "--config region.yaml >/dev/null 2>&1\n"
                 "printf 'set greeting 0 0 5 noreply\\r\\nhello\\r\\nquit\\r\\n' | nc 127.0.0.1 11211\n")  # fmt: skip
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", "--net", "--mount", *rights, "bash", "-ec", text + script(block)], capture_output=True, text=True,
        timeout=120, check=False, stdin=subprocess.DEVNULL,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "PLACE": str(place), "HOME": str(place)})  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def run_quick(line):
    words = line.split("   #")[0].split()
    if words[0] == ".venv/bin/python":
        words[0] = sys.executable
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
