"""Whether a run has the memory that it needs: each of its processes, and all of them together on one machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dask.utils import format_bytes
from distributed.system import MEMORY_LIMIT

from altmin_dask.errors import ConfigError
from altmin_dask.execution.resources import Resources
from altmin_dask.planning.advice import narrower
from altmin_dask.planning.memory import Workload, ingesting
from altmin_dask.planning.projection import (
    ALLOWANCE,
    BASELINE,
    MARGIN,
    PROGRAM,
    TOGETHER,
    USABLE,
    Projection,
    idle,
    largest_chunk_rows,
    machine_memory,
    project,
    shared,
    usable,
)


@dataclass(frozen=True)
class Needs:
    """A run in numbers, beside the place where it is to be.

    Attributes
    ----------
    work : Workload
        The run in numbers.
    projection : Projection
        What it needs.
    place : Resources
        Where.
    raw : bool
        Whether the training samples are no store yet, so that `chunk_rows` can be chosen.
    """

    work: Workload
    projection: Projection
    place: Resources
    raw: bool

    @property
    def worker_memory(self) -> int:
        """Bytes of a whole worker process."""
        return idle(self.place) + self.projection.worker_peak

    @property
    def ingest_memory(self) -> int:
        """Bytes of this process while it makes a store of the training samples; 0 if there is one."""
        return BASELINE + round(MARGIN * (ALLOWANCE + ingesting(self.work))) if self.raw else 0

    @property
    def fits(self) -> bool:
        """Whether workers, the process that trains, and all of them together have the memory for it."""
        worker_fits = self.projection.worker_peak <= usable(self.place)
        return worker_fits and self._client_fits and self.machine_memory <= shared(self.place)

    @property
    def client_memory(self) -> int:
        """Bytes of the whole process that trains, whether or not its threads are the workers."""
        return self.worker_memory if self.place.in_process else PROGRAM + self.projection.client_peak

    @property
    def _client_fits(self) -> bool:
        return self.place.in_process or self.client_memory <= USABLE * MEMORY_LIMIT

    @property
    def machine_memory(self) -> int:
        """Bytes of all processes, where they are on one machine."""
        return machine_memory(self.projection, self.place.workers)

    def check(self) -> None:
        """Refuse what does not fit.

        Raises
        ------
        ConfigError
            Naming the setting to change.
        """
        if self.fits:
            return
        work, place = self.work, self.place
        if self.raw and place.in_process and ingesting(replace(work, chunk_rows=1)) > usable(place, BASELINE):
            raise ConfigError(
                f"this process would need {size(self.ingest_memory)}, {size(BASELINE)} of it idle, to ingest "
                f"data.train, more than {USABLE:.0%} of its {size(place.memory_limit or 0)}: give "
                f"cluster.memory_limit = {self._enough} or more, or `altmin ingest` it first"
            )
        if self.projection.worker_peak > usable(place):
            raise ConfigError(self._too_large_a_worker())
        if not self._client_fits:
            raise ConfigError(
                f"the process that trains would need {size(self.client_memory)}, which is more than {USABLE:.0%} of "
                f"this machine's {size(MEMORY_LIMIT)}: {narrower(work, usable(place))}"
            )
        raise ConfigError(self._too_many_workers())

    def _too_many_workers(self) -> str:
        place = self.place
        workers = math.floor((shared(place) - self.client_memory) / self.worker_memory)
        rows = self._largest_rows
        advice = [f"give cluster.workers = {workers} or less"] if workers else []
        advice += [self._smaller(rows)] if rows else []
        return (
            f"{place.workers} workers with {size(self.worker_memory)} each, and the process that trains, would need "
            f"{size(self.machine_memory)}, which is more than {TOGETHER:.0%} of this machine's {size(MEMORY_LIMIT)}: "
            f"{', or '.join(advice) or narrower(self.work, usable(place))}"
        )

    def _too_large_a_worker(self) -> str:
        work, place = self.work, self.place
        what = "this process" if place.in_process else "a worker"
        if place.in_process:
            room = f"give cluster.memory_limit = {self._enough} or more, or fewer cluster.workers"
        elif place.running:
            room = f"start workers with --memory-limit {self._enough} or more, or fewer --nthreads"
        else:
            room = f"give cluster.memory_limit = {self._enough} or more, or fewer cluster.threads_per_worker"
        rows = self._largest_rows
        training = project(replace(work, validation_chunk_rows=0))
        if training.worker_peak <= usable(place):
            chunks = f"of {work.validation_chunk_rows} rows of data.validation"
            advice = f"`altmin ingest` data.validation again with --chunk-rows {rows} or less, or "
        else:
            chunks, advice = f"of {work.chunk_rows} rows", f"{self._smaller(rows)}, or "
        needed = self.projection.worker_peak
        if rows == 0:
            needed = project(replace(work, chunk_rows=1, validation_chunk_rows=0)).worker_peak
            # of little more than an idle process the network is not to blame
            advice = f"{narrower(work, usable(place))}, or " if needed > idle(place) else ""
            chunks = "of even one row"
        return (
            f"{what} would need {size(idle(place) + needed)}, {size(idle(place))} of it idle, with chunks {chunks}, "
            f"which is more than {USABLE:.0%} of its {size(place.memory_limit or 0)}: {advice}{room}"
        )

    @property
    def _enough(self) -> str:
        """A memory limit that would do for chunks as they are."""
        needed = max(self.worker_memory, self.ingest_memory if self.place.in_process else 0)
        return f"'{math.ceil(needed / USABLE / (1 << 20))} MiB'"

    @property
    def _largest_rows(self) -> int:
        return largest_chunk_rows(self.work, usable(self.place), shared(self.place))

    def _smaller(self, rows: int) -> str:
        """How chunks of the training samples become so small."""
        if self.raw:
            return f"set data.chunk_rows = {rows} or less"
        return f"`altmin ingest` data.train again with --chunk-rows {rows} or less"


def size(value: float) -> str:
    """Bytes for people."""
    return format_bytes(int(value))
