# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The part of `make bench` that measures streams: what it says is of what happened."""

import importlib.util
import sys

import pytest

from documents.blocks import ROOT

pytestmark = pytest.mark.ours


@pytest.fixture(scope="module")
def bench():
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec = importlib.util.spec_from_file_location("bench_regions", ROOT / "Benchmarks/regions.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = wrote
    return module


@pytest.fixture
def beds(bench):
    with bench.Beds() as all_of_them:
        yield all_of_them


def test_delays_are_measured_and_a_long_way_shows(bench, beds, monkeypatch):
    monkeypatch.setattr(bench, "WRITES", 1000)
    near = bench.delay_row(beds, "rocksdb", 2)
    far = bench.delay_row(beds, "rocksdb", 2, bench.DelayingRelay)
    shares = [[float(part) for part in row["value"].removesuffix(" ms").split(" / ")] for row in (near, far)]
    for row in (near, far):
        assert "NOT APPLIED" not in row["detail"] and " of 40 probes" in row["detail"], row
    assert shares[1][0] >= 1000 * bench.ROUND_TRIP / 2 - 5 and shares[1][0] > shares[0][0], (near, far)


def test_gaps_are_timed(bench, beds):
    noticed, repaired, given_up = bench.gap_rows(beds, "rocksdb", 4)
    for row in (noticed, repaired, given_up):
        assert row["reached"], row
    assert float(given_up["value"].split()[0]) > 1, "it is tried for a while"
