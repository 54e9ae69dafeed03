"""When and where training takes place, for the run folder to remember: reports are read long afterwards, elsewhere."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from typing import Any

from altmin_dask.execution.executor import Executor
from altmin_dask.execution.resources import Resources
from altmin_dask.execution.versions import versions
from altmin_dask.format import counted_as


def whereabouts(executor: Executor, place: Resources) -> dict[str, Any]:
    """Date, machine, versions and executor of a run that begins or goes on, JSON-ready.

    Parameters
    ----------
    executor : Executor
        Where tasks run.
    place : Resources
        What it has.
    """
    where = executor.description.partition(", dashboard ")[0]
    if not place.in_process:
        where += f": {counted_as(place.workers, 'worker')} of {counted_as(place.threads, 'thread')}"
    cores = len(os.sched_getaffinity(0))
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "where": where,
        "in_process": place.in_process,
        "machine": f"{platform.node()}, {platform.system()} {platform.machine()}, {counted_as(cores, 'core')}",
        "versions": versions(),
    }
