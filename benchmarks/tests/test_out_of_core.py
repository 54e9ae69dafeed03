"""The promise: data and z many times the workers' memory, on a real cluster with real limits."""

from __future__ import annotations

import shutil

import pytest
from out_of_core import measure
from out_of_core_ingest import measure_ingest

pytestmark = pytest.mark.slow
CASES = [
    pytest.param(49_152, 16_384, "1 GiB", 0.15, id="scaled down"),
    pytest.param(3_300_000, 98_304, "1 GiB", 10, id="ten times"),
]


@pytest.mark.parametrize(("rows", "small_rows", "memory_limit", "times_memory"), CASES)
def test_workers_stay_within_their_memory(tmp_path, capsys, rows, small_rows, memory_limit, times_memory):
    if shutil.disk_usage(tmp_path).free < rows * 20_000:
        pytest.skip("too little room on the disk")
    result = measure(tmp_path, rows, small_rows, memory_limit=memory_limit)
    with capsys.disabled():
        print(
            f"\n{result['gigabytes']:.1f} GiB, {result['times_memory']:.1f} × the workers' memory: peak "
            f"{result['peak_share']:.0%} of a limit, rows per CPU second {result['ratio']:.2f} of those in memory"
        )
    assert result["times_memory"] >= times_memory
    assert result["peak_share"] < 0.8
    assert result["spilled_bytes"] == 0
    assert result["workers_survived"]


@pytest.mark.parametrize("times", [1.0, 10.0])
def test_ingest_of_csv_stays_within_its_plan(tmp_path, times):
    if shutil.disk_usage(tmp_path).free < times * (3 << 30) // 2:
        pytest.skip("too little room on the disk")
    found = measure_ingest(tmp_path, times)
    assert found["times"] >= times
    assert 0.5 < found["peak_share"] < 1
