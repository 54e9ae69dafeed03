"""What time is spent with, by name: read, newton, statistics, write in tasks; solve, wait, commit where one trains.

In a Dask worker the times of tasks appear on the page of fine performance metrics; in any process they add up here.
Every task loads this module first, so CPU time of a process counts from here.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from distributed.metrics import context_meter

from altmin_dask.networks.workspace import thread_workspace

_lock = Lock()
_spent: dict[str, float] = {}
_identity = uuid.uuid4().hex  # numbers of processes are given anew
_loaded = time.process_time(), time.monotonic()


@contextmanager
def activity(name: str) -> Iterator[None]:
    """Count the wall time of a block, less that of blocks within it."""
    metered = None
    try:
        with context_meter.meter(name) as metered:
            yield
    finally:
        if metered is not None:
            with _lock:
                _spent[name] = _spent.get(name, 0.0) + metered.delta


def seconds_spent() -> dict[str, float]:
    """Seconds of this process so far, by name; of several threads they add up."""
    with _lock:
        return dict(_spent)


@dataclass(frozen=True)
class ProcessClock:
    """The CPU time of a process.

    Attributes
    ----------
    process : tuple
        Which process: no other one has it, at any time.
    seconds : float
        CPU seconds so far.
    loaded, age : float
        CPU seconds when the process loaded this package, and how many seconds ago that was.
    """

    process: tuple[str, int, str]
    seconds: float
    loaded: float
    age: float


def process_clock() -> ProcessClock:
    """Read the clock of this process."""
    cpu, wall = _loaded
    process = socket.gethostname(), os.getpid(), _identity
    return ProcessClock(process, time.process_time(), cpu, time.monotonic() - wall)


def meter_kernels() -> None:
    """Let the kernels that run in this thread tell what they do."""
    thread_workspace().activity = activity
