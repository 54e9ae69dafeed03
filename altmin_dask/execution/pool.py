"""Threads that live on between computations, and so do their scratch arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Lock
from typing import Any

from altmin_dask.execution.allocator import return_free_heaps


class Pool:
    """Some threads, which come when they are wanted."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None

    @contextmanager
    def tasks(self, workers: int) -> Iterator[Tasks]:
        """What one computation has of so many threads; others may go on beside it.

        What goes wrong in it is told when none of its tasks runs any more: so none of them writes to a folder that has
        been removed meanwhile.
        """
        found = Tasks(self._of(workers), workers)
        try:
            yield found
        except BaseException:
            found.settle()
            raise

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterable[Any]:
        """As `map`, on so many threads; with one, on that of the caller."""
        return map(function, items) if workers == 1 else list(self._of(workers).map(function, items))

    def beside(self, workers: int, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """As `map`, from within one of so many threads while others have nothing to do: the first by itself."""
        first, *others = items
        threads = self._of(workers)
        begun = [threads.submit(function, item) for item in others]
        try:
            return [function(first), *(future.result() for future in begun)]
        finally:
            wait(begun)

    def end(self) -> None:
        """Wait for the threads until they have ended, and give back what they leave; others may come."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
            return_free_heaps()

    def _of(self, workers: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(workers)
            return self._threads


class Tasks:
    """An executor, as Dask's schedulers want one, that knows which of its tasks are not done."""

    def __init__(self, threads: ThreadPoolExecutor, workers: int) -> None:
        self._threads, self._max_workers = threads, workers
        self._left: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Begin a task."""
        future = self._threads.submit(function, *arguments)
        self._left.add(future)
        future.add_done_callback(self._left.discard)
        return future

    def settle(self) -> None:
        """Wait until no task runs any more, and none will."""
        left = list(self._left)
        for future in left:
            future.cancel()
        wait(left)
