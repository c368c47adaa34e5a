# Martlet
# SPDX-License-Identifier: Apache-2.0
"""File systems of a few MiB, in memory."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(kind, path, options):
    line = ["mount", "-t", kind, "-o", options, kind, str(path)]
    return subprocess.run(line, capture_output=True, check=False).returncode


def grow(path, mebibytes):
    """Makes room on such a file system."""
    subprocess.run(["mount", "-o", f"remount,size={mebibytes}m", str(path)], check=True)


@contextmanager
def small_disk(mebibytes, owner=None):
    """A directory on a file system of this size, which belongs to `owner`. Skips the test where nobody may mount one."""
    # Not below a directory of pytest's, which other users may not pass through.
    path = Path(tempfile.mkdtemp(prefix="martlet-disk-"))
    try:
        if os.geteuid() != 0 or mount("tmpfs", path, f"size={mebibytes}m"):
            pytest.skip("no right to mount a small file system")
        try:
            if owner:
                shutil.chown(path, owner)
            yield path
        finally:
            subprocess.run(["umount", "-l", str(path)], check=False)
    finally:
        path.rmdir()
