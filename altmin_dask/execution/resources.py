"""The processes, threads and memory that tasks have."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from distributed.worker_memory import parse_memory_limit

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
    """

    workers: int
    threads: int
    memory_limit: int | None
    in_process: bool
    running: bool = False


def parsed_limit(setting: str, threads: int) -> int | None:
    """Bytes that a worker of so many threads may use, by the rules of Dask: "auto" is its share of the machine."""
    limit: Any = parse_memory_limit(setting, threads, logger=_log)
    return limit if limit is None else int(limit)
