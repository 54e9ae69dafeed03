"""The processes, threads and memory that tasks have."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from typing import Any

from distributed.worker_memory import parse_memory_limit

SOLVING_THREADS = 8
"""At most so many: there are seldom more layers."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """Where tasks run.

    Attributes
    ----------
    workers, threads : int
        Worker processes, and threads of each.
    memory_limit : int or None
        Bytes that the smallest of them may use; None for no limit.
    in_process : bool
        Whether the threads are those of this process.
    running : bool
        Whether it is a cluster that runs already, and not one that `[cluster]` asks for.
    latency : float
        About how many seconds a step takes besides its longest task, up to a power of two of a millisecond.
    """

    workers: int
    threads: int
    memory_limit: int | None
    in_process: bool
    running: bool = False
    latency: float = 0.0


def rounded_latency(seconds: float) -> float:
    """The next power of two of a millisecond: small differences from day to day are to make none."""
    return 1e-3 * 2 ** math.ceil(math.log2(max(seconds, 1e-3) / 1e-3))


def solving_threads() -> int:
    """How many threads of the process that trains solve for a step while workers wait for it."""
    return min(SOLVING_THREADS, len(os.sched_getaffinity(0)))


def parsed_limit(setting: str, threads: int) -> int | None:
    """Bytes that a worker of so many threads may use, by the rules of Dask: "auto" is its share of the machine."""
    limit: Any = parse_memory_limit(setting, threads, logger=_log)
    return limit if limit is None else int(limit)
