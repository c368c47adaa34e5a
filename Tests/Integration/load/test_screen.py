# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a terminal shows while a test runs: progress in its place, however narrow and low it is, and what is said meanwhile above."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from .runner import command

pytestmark = pytest.mark.ours

SCRIPT = """import { setTimeout } from 'k6/timers';
const scenario = (exec, vus) => ({ executor: 'constant-vus', vus, duration: '3500ms', exec });
export const options = { scenarios: { a_scenario_with_a_long_name: scenario('talks', 1), other: scenario('works', 2)%s } };
const rest = time => new Promise(resolve => setTimeout(resolve, time));
export async function talks() { console.log(`said ${__ITER}`); await rest(400); }
export async function works() { await rest(10); }
"""


class Terminal:
    """As much of one as is needed: lines that wrap and scroll, the cursor up, and what is below it cleared."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.gone, self.lines, self.row, self.column = [], [""], 0, 0

    def feed(self, text):
        for plain, back, code in re.findall(r"([^\x1b]+)|\x1b\[([\d;]*)([A-Za-z])", text):
            if code == "A":
                self.row = max(0, self.row - int(back or 1))
            elif code == "J":
                self.lines[self.row:] = [self.lines[self.row][:self.column]]
            for character in plain:
                self.put(character)

    def put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.down()
        else:
            if self.column == self.columns:
                self.down()
                self.column = 0
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[:self.column] + character + line[self.column + 1:]
            self.column += 1

    def down(self):
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")
        while len(self.lines) > self.rows:
            self.gone.append(self.lines.pop(0))
            self.row -= 1

    @property
    def all(self):
        return [line.rstrip() for line in self.gone + self.lines]


def shown(tmp_path, text, rows, columns, *arguments):
    path = tmp_path / "s.js"
    path.write_text(text)
    controller, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen([command(), "run", "s.js", *arguments], stdin=end, stdout=end, stderr=end, cwd=tmp_path)
    os.close(end)
    screen, most, taken = Terminal(rows, columns), 0, b""
    try:
        while True:
            try:
                more = os.read(controller, 65536)
            except OSError:
                break
            taken += more
            whole = taken.decode(errors="ignore")
            if taken.endswith((b"\n", b"J")):
                screen.feed(whole)
                taken = b""
                most = max(most, sum(line.startswith("running (") for line in screen.all))
        screen.feed(taken.decode(errors="ignore"))
        assert process.wait(60) == 0, screen.all
    finally:
        process.kill()
        os.close(controller)
    return screen.all, most


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_progress_stays_in_its_place(tmp_path, columns):
    lines, most = shown(tmp_path, SCRIPT % "", 30, columns)
    # Once while it runs, and once more at the end, below the summary.
    assert most == 2 and sum(line.startswith("running (") for line in lines) == 2, lines
    # What was said is there, each once and whole, in its order, and above the progress.
    said = [line for line in lines if re.fullmatch(r"INFO said \d+", line)]
    assert said == [f"INFO said {number}" for number in range(len(said))] and 7 <= len(said) <= 10, lines
    first = next(index for index, line in enumerate(lines) if line.startswith("running ("))
    assert all(lines.index(line) < first for line in said), lines
    bars = [line for line in lines[first:] if line.startswith(("a_scenario", "other   "))]
    # The last ones while it ran, after three seconds, and those of the end.
    assert len(bars) == 4 and all(re.search("] 8[56]% [12] VUs", line) for line in bars[:2]), lines
    assert all("✓ [" in line for line in bars[2:]), lines
    if columns >= 80:
        assert all(line.endswith("VUs  00m03.5s/3.5s") for line in bars[2:]), bars
    width = {len(line.partition("[")[2].partition("]")[0]) for line in bars}
    assert width == {38} if columns == 200 else max(width) < 38 and max(map(len, bars)) <= columns, bars


def test_progress_fits_a_low_terminal(tmp_path):
    more = "".join(f", s{number}: scenario('works', 1)" for number in range(20))
    lines, most = shown(tmp_path, SCRIPT % more, 12, 100)
    assert most == 2, lines
    assert sum(line == "and 13 scenarios more" for line in lines) == 2, lines


def test_nothing_is_moved_where_there_is_no_terminal(tmp_path):
    path = tmp_path / "s.js"
    path.write_text(SCRIPT % "")
    done = subprocess.run([command(), "run", path], capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
    assert "\x1b" not in done.stdout + done.stderr and done.stdout.count("running (") >= 4, done.stdout
