"""Threads of this process as an executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import dask
from dask._task_spec import DataNode
from dask.base import persist
from dask.core import flatten

from altmin_dask.config import ClusterTable
from altmin_dask.execution.executor import Submission
from altmin_dask.execution.pool import Pool
from altmin_dask.execution.resources import Resources, parsed_limit
from altmin_dask.types import Each


@dataclass(frozen=True)
class Threads:
    """The threaded scheduler in this process.

    Attributes
    ----------
    workers : int
        How many threads.
    memory_limit : str
        What this process may use, as in `[cluster]`.
    """

    workers: int
    memory_limit: str = "auto"
    _pool: Pool = field(default_factory=Pool, compare=False, repr=False)

    client: ClassVar[None] = None
    clock_is_local: ClassVar[bool] = True

    @property
    def description(self) -> str:
        """One line for people."""
        return f"{self.workers} thread{'s' if self.workers > 1 else ''} of this process"

    def compute(self, collection: Any) -> Any:
        """Compute on this process's threads, whatever client may be around."""
        if self.workers == 1:  # handing tasks to a thread takes longer than small ones themselves
            return collection.compute(scheduler="sync")
        with self._pool.tasks(self.workers) as pool:
            return collection.compute(scheduler="threads", pool=pool)

    def submit(self, collection: Any, *kept: Any) -> Submission:
        """Begin to compute in the background, or with one thread do it at once."""
        if self.workers == 1:
            done: futures.Future[tuple[Any, ...]] = futures.Future()
            try:
                done.set_result(persist(collection, *kept, scheduler="sync"))
            except Exception as error:
                done.set_exception(error)
            return Submission(done, lambda: done.result()[1:])
        starter = ThreadPoolExecutor(1)
        try:
            future = starter.submit(self._persist, collection, *kept)
        finally:
            starter.shutdown(wait=False)
        return Submission(future, lambda: future.result()[1:])

    def first(self, submissions: Sequence[Submission]) -> tuple[int, list[Any]]:
        """Wait for any of what was submitted: which it is, and its blocks."""
        done, _ = futures.wait([each.done for each in submissions], return_when=futures.FIRST_COMPLETED)
        index = next(i for i, each in enumerate(submissions) if each.done in done)
        return index, _blocks(submissions[index].done.result()[0])

    def cancel(self, submissions: Sequence[Submission]) -> None:
        """Wait until nothing of what was submitted runs any more: threads cannot be stopped."""
        futures.wait([each.done for each in submissions])

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """There are no others."""
        return []

    def recovers(self, error: BaseException) -> bool:
        """Never: nobody else has these threads."""
        return False

    def report_waits(self, told: Callable[[str], object]) -> None:
        """Threads are there."""

    def cpu_seconds(self) -> float:
        """CPU seconds of this process."""
        return time.process_time()

    def resources(self) -> Resources:
        """One worker, this process."""
        limit = parsed_limit(self.memory_limit, dask.system.CPU_COUNT)
        return Resources(1, self.workers, limit, in_process=True)

    def each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """As `map`, on the threads that tasks have."""
        return self._pool.map(function, items, self.workers)

    def beside(self, tasks: int) -> Each:
        """On threads that so many tasks leave, if there is one for each."""
        return partial(self._pool.beside, self.workers) if 2 * tasks <= self.workers else map

    def rest(self) -> None:
        """End the threads, once they have done what they were given; others come when they are wanted."""
        self._pool.end()

    def places(self) -> int:
        """As many as there are threads."""
        return self.workers

    def span(self, names: tuple[str, ...], ids: tuple[str, ...]) -> AbstractContextManager[Any]:
        """There are no pages."""
        return nullcontext()

    def profile(self, file: Path) -> AbstractContextManager[Any]:
        """There is no scheduler that knows anything."""
        return nullcontext()

    def _persist(self, *collections: Any) -> tuple[Any, ...]:
        with self._pool.tasks(self.workers) as pool:
            found: tuple[Any, ...] = persist(*collections, scheduler="threads", pool=pool)
        return found


def _blocks(persisted: Any) -> list[Any]:
    """Of a collection that has been computed: to compute it once more would take a while."""
    graph = persisted.__dask_graph__()
    values = (graph[key] for key in flatten(persisted.__dask_keys__()))
    return [value.value if isinstance(value, DataNode) else value for value in values]


def planned_threads(settings: ClusterTable) -> Resources:
    """What `kind = "threads"` asks for."""
    return _threads(settings).resources()


@contextmanager
def open_threads(settings: ClusterTable) -> Iterator[Threads]:
    """Threads as `kind = "threads"` asks for, which end with it."""
    threads = _threads(settings)
    try:
        yield threads
    finally:
        threads.rest()


def _threads(settings: ClusterTable) -> Threads:
    return Threads(settings.workers or dask.system.CPU_COUNT, settings.memory_limit)
