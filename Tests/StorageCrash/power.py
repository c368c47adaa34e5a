# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A power loss, played on a directory: what powerloss.c wrote down says what was synced, and the rest is taken away.

The model is POSIX's promise and no more. The content of a file is what it had at its last fsync or fdatasync; a name is
there, gone or renamed once its directory was synced. Of what was not synced, any part may be there too: a tail of a file,
with sectors of it empty or torn, and names, as the random numbers say.
"""

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECTOR = 512


def build(directory):
    """Compiles the library to preload; its path."""
    library = Path(directory) / "powerloss.so"
    source = HERE / "powerloss.c"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        partial = library.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", partial, source, "-ldl"], check=True)
        partial.rename(library)
    return library


class Recorder:
    """Records one process's syncs below `root`."""

    def __init__(self, root, work, library, fail_log=None):
        self.root = Path(root).resolve()
        self.log = Path(work) / "events"
        self.graveyard = Path(work) / "graveyard"
        shutil.rmtree(self.graveyard, ignore_errors=True)
        self.graveyard.mkdir(parents=True)
        self.log.unlink(missing_ok=True)
        self.library = library
        self.fail_log = fail_log
        # What is there when the process starts is on the disk.
        self.names, self.sizes = {}, {}
        for path in self.files():
            status = path.stat()
            self.names[str(path)] = status.st_ino
            self.sizes[status.st_ino] = status.st_size

    def files(self):
        return [path for path in self.root.rglob("*") if path.is_file()]

    def environment(self):
        extra = {"POWERLOSS_FAIL_LOG": str(self.fail_log)} if self.fail_log is not None else {}
        return {
            **os.environ, **extra, "LD_PRELOAD": str(self.library), "POWERLOSS_LOG": str(self.log),
            "POWERLOSS_ROOT": str(self.root), "POWERLOSS_GRAVEYARD": str(self.graveyard), "POWERLOSS_LIE": "1"}

    def durable(self):
        """The names and sizes that are promised: {path: inode}, {inode: bytes}, and the names as they were last seen."""
        live, kept, sizes = dict(self.names), dict(self.names), dict(self.sizes)
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            kind, rest = line[0], line[2:]
            if kind in "CT":
                number, path = rest.split(" ", 1)
                live[path] = int(number)
                if kind == "T":
                    sizes[int(number)] = 0
            elif kind == "R":
                source, target = rest.split("\t")
                if source in live:
                    live[target] = live.pop(source)
            elif kind == "U":
                live.pop(rest, None)
            elif kind == "S":
                number, size = rest.split(" ")
                sizes[int(number)] = int(size)
            elif kind == "D":
                for path in [path for path in kept if os.path.dirname(path) == rest and path not in live]:
                    del kept[path]
                for path, number in live.items():
                    if os.path.dirname(path) == rest:
                        kept[path] = number
        return kept, sizes, live

    def cut(self, random):
        """Makes the directory what a power loss at this moment leaves. The process is dead. Gives what was taken."""
        kept, sizes, live = self.durable()
        contents = {}
        for path in [*self.files(), *self.graveyard.iterdir()]:
            contents.setdefault(path.stat().st_ino, path)
        final = dict(kept)
        if random.random() < 0.5:
            # Names that nobody asked to be kept may be kept, and removals may have happened.
            for path, number in live.items():
                if path not in kept and random.random() < 0.5:
                    final[path] = number
        rescued, taken = {}, 0
        stage = self.graveyard.parent / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        for path, number in final.items():
            if number not in contents:
                raise AssertionError(f"the content of {path} is lost to the harness")
            data = contents[number].read_bytes()
            length = min(sizes.get(number, 0), len(data))
            tail = self.torn(data[length:], random)
            taken += len(data) - length
            rescued[path] = stage / str(len(rescued))
            rescued[path].write_bytes(data[:length] + tail)
        for path in self.files():
            path.unlink()
        for path, source in rescued.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, path)
        shutil.rmtree(self.graveyard)
        return taken

    @staticmethod
    def torn(tail, random):
        """What may be on the disk of bytes that were written and not synced."""
        if not tail or random.random() < 0.4:
            return b""
        part = bytearray(tail[: random.randint(0, min(len(tail), 256 * 1024))])
        if random.random() < 0.5:
            for start in range(0, len(part), SECTOR):
                chance = random.random()
                end = min(start + SECTOR, len(part))
                if chance < 0.3:
                    part[start:end] = bytes(end - start)
                elif chance < 0.4:
                    part[start:end] = random.randbytes(end - start)
        return bytes(part)
