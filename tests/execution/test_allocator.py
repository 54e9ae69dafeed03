"""What glibc does with memory that is freed, as a process that trains asks it to."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
FAULTS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from altmin_dask.execution.allocator import return_freed_arrays
return_freed_arrays(HOW)
size = int(sys.argv[1])
def used(_):
    buffer = bytearray(size)
    return len(buffer)
with ThreadPoolExecutor(1) as thread:
    list(thread.map(used, range(3)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    list(thread.map(used, range(40)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 40 / (size / resource.getpagesize()))
"""


def output(code: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def pages_again(size: int, how: str = "") -> float:
    """Which part of the pages of an array the system has to make again, each time that it is taken and freed."""
    return float(output(FAULTS.replace("HOW", how), str(size)))


@glibc
def test_memory_of_a_chunk_stays_for_the_next_one(monkeypatch):
    """It is just below 8 MiB by default, and with it what it was decoded from."""
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert pages_again((8 << 20) - 8192) < 0.01


@glibc
def test_memory_of_large_arrays_goes_back(monkeypatch):
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    assert pages_again(9 << 20) > 0.9


POOL = """
import sys
import numpy as np, zarr
import zarr.core.sync as sync
from altmin_dask.execution.allocator import own_process
if sys.argv[1] != "0":
    zarr.config.set({"threading.max_workers": int(sys.argv[1])})
own_process(3)
array = zarr.create_array(zarr.storage.MemoryStore(), shape=(9,), chunks=(3,), dtype="f4")
array[:] = np.arange(9)
print(sync._executor._max_workers)
"""


@pytest.mark.parametrize(("given", "threads"), [(0, 3), (7, 7)])
def test_an_own_process_reads_chunks_on_as_many_threads_as_compute(given, threads):
    """Unless the settings of zarr say how many."""
    assert int(output(POOL, str(given))) == threads


@glibc
def test_what_the_environment_says_stays_but_in_own_processes(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    assert pages_again((8 << 20) - 8192) > 0.9
    assert pages_again((8 << 20) - 8192, "ours=True") < 0.01
