"""What glibc does with memory that is freed, as a process that trains asks it to."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import zarr

from altmin_dask.config import ClusterTable
from altmin_dask.execution.connect import open_executor

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
FAULTS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from altmin_dask.execution.allocator import return_freed_arrays
return_freed_arrays()
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


def pages_again(size: int) -> float:
    """Which part of the pages of an array the system has to make again, each time that it is taken and freed."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, str(size)], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


@glibc
def test_memory_of_a_chunk_stays_for_the_next_one():
    """It is just below 8 MiB by default, and with it what it was decoded from."""
    assert pages_again((8 << 20) - 8192) < 0.01


@glibc
def test_memory_of_large_arrays_goes_back():
    assert pages_again(9 << 20) > 0.9


@pytest.mark.parametrize("given", [None, 7])
def test_chunks_are_read_on_as_many_threads_as_compute(given):
    with zarr.config.set({"threading.max_workers": given}):
        with open_executor(ClusterTable(kind="threads", workers=3)):
            assert zarr.config.get("threading.max_workers") == (given or 3)
        assert zarr.config.get("threading.max_workers") == given
