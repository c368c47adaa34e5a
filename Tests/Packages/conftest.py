# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The built image and the built Debian package: `make package-test` makes both first."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "out"
# The tools that start and talk to servers are those of the other suites.
sys.path.insert(0, str(ROOT / "Tests/Integration"))


def pytest_configure(config):
    missing = [name for name in ("martlet-image.tar", "martlet_*.deb") if not list(OUT.glob(name))]
    if missing:
        raise pytest.UsageError(f"out/ has no {' and no '.join(missing)}: run make package-test")
    if os.geteuid() != 0:
        raise pytest.UsageError("these tests change roots and make namespaces: run them as root")


def run(*line, check=True, timeout=300, **options):
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True, timeout=timeout, check=False,
                          stdin=subprocess.DEVNULL, **options)  # fmt: skip
    assert not check or done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


class Image:
    """An OCI archive, unpacked: `manifest`, `configuration`, and its root file system in `root`."""

    def __init__(self, archive, directory):
        run("tar", "-xf", archive, "-C", directory)
        self.manifest = self.blob(directory, json.loads((directory / "index.json").read_text())["manifests"][0])
        self.configuration = self.blob(directory, self.manifest["config"])
        self.root = directory / "root"
        self.root.mkdir()
        self.names = []
        for layer in self.manifest["layers"]:
            path = directory / "blobs" / layer["digest"].replace(":", "/")
            with tarfile.open(path) as archive:
                self.names += archive.getnames()
            run("tar", "-xpf", path, "-C", self.root, "--numeric-owner")

    @staticmethod
    def blob(directory, reference):
        return json.loads((directory / "blobs" / reference["digest"].replace(":", "/")).read_text())


@pytest.fixture(scope="session")
def image():
    directory = Path(tempfile.mkdtemp(prefix="martlet-image-"))
    yield Image(OUT / "martlet-image.tar", directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def package():
    [path] = OUT.glob("martlet_*.deb")
    return path
