# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The directory of a new store outlives a power loss, with those above it that were made for it."""

import os
import random

import pytest

from .powered import Powered

pytestmark = pytest.mark.ours


def synced(node):
    return {line[2:] for line in node.recorder.log.read_text().splitlines() if line.startswith("D ")}


def test_every_directory_that_is_made_is_synced_into_the_one_above(tmp_path):
    node = Powered(tmp_path, random.Random(1))
    place = node.directory / "one" / "two" / "three"
    node.directory.joinpath("one").mkdir()
    node.arguments[node.arguments.index("--storage-path") + 1] = str(place / "rows")
    with node:
        with node.client() as client:
            assert client.set("k", "v") == "STORED"
        assert {str(place.parent.parent), str(place.parent), str(place)} <= synced(node)
        assert os.path.isdir(place / "rows")
        # Those that are there already are left alone.
        node.terminate()
        node.start()
        assert not {str(place.parent.parent), str(place.parent)} & synced(node)
        with node.client() as client:
            assert client.get("k") == b"v"
