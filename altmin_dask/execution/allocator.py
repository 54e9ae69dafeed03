"""Memory that is free: large arrays go back to the system, smaller ones stay for the next."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

import zarr

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGE = 8 << 20
"""From so many bytes on, arrays are returned as soon as they are freed."""
_OPTIONS = (
    ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, LARGE),
    ("MALLOC_TRIM_THRESHOLD_", _M_TRIM_THRESHOLD, 2 * LARGE),
)


def return_freed_arrays(*, ours: bool = False) -> None:
    """Tell glibc to map arrays of 8 MiB and more one by one, and to unmap them when they are freed.

    By default its threshold moves up, to 32 MiB, after the first large array that is freed. From then on arrays come
    from heaps, one for every thread, where what lives in between keeps the rest from going back: peaks would differ
    by chance from run to run. From 1 MiB on it would cost a fifth more CPU time, in page faults; from 8 MiB on it costs
    nothing that can be measured.

    What is free at the end of a heap stays there, up to twice that, for the next chunk to be decoded into. As soon as
    the threshold above is given it would be returned from 128 KiB on (in Dask's workers, by their nannies'
    MALLOC_TRIM_THRESHOLD_, from 64 KiB on), and a page that comes back is a fault, and made zero, in every step: a
    sixth to a fifth of all CPU time (row 92 of benchmarks/LOG.md). Other C libraries are left alone, and so is what
    glibc's own variables in the environment say, but in processes that are `ours`.
    """
    with suppress(OSError, AttributeError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        for variable, option, size in _OPTIONS:
            if ours or variable not in os.environ:
                set_option(option, size)


def own_process(threads: int) -> None:
    """Let a process that does nothing but train, on so many threads, keep as much memory as each of them needs.

    A thread that computes waits for one that reads a chunk, and both keep it in their heaps. Of those that read zarr
    has by default some more than there are cores. How many there are is settled by the first chunk that is read, for as
    long as the process lives, so it is nothing to be changed in somebody else's.
    """
    return_freed_arrays(ours=True)
    if zarr.config.get("threading.max_workers", None) is None:
        zarr.config.set({"threading.max_workers": threads})


def return_free_heaps() -> None:
    """Tell glibc to give back what is free within the heaps of threads that have ended.

    The threads of every step come to other heaps than those of the one before, and each heap would keep the most that
    any thread ever had: three times what is needed, with z-updates of sequences. It takes a fifth of a millisecond.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
