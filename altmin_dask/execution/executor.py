"""What an executor is: a place where graphs of tasks are computed. The graphs are the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from distributed import Client, Future

from altmin_dask.execution.resources import Resources
from altmin_dask.types import Each


@dataclass(frozen=True)
class Submission:
    """A computation that goes on.

    Attributes
    ----------
    done : Any
        The future to wait for.
    kept : callable
        Gives, once it is done, the collections that stay where they were computed, for as long as they are held.
    futures : list
        Everything that belongs to it, on a cluster.
    """

    done: Any
    kept: Callable[[], tuple[Any, ...]]
    futures: list[Future[Any]] = field(default_factory=list)


class Executor(Protocol):
    """What a run needs of the place where its tasks run."""

    clock_is_local: ClassVar[bool]
    """Whether `cpu_seconds` asks no other process, so that reading it costs nothing."""

    @property
    def description(self) -> str:
        """One line for people."""

    @property
    def client(self) -> Client | None:
        """The client of a Dask scheduler, whose pages can show the run; None where there is none."""

    def compute(self, collection: Any) -> Any:
        """Compute a lazy Dask collection and return its value.

        When it raises, whatever the reason, no task of it runs any more.
        """

    def submit(self, collection: Any, *kept: Any) -> Submission:
        """Begin to compute a collection, and others that are kept, for `first` or `cancel`.

        What the collections have in common is computed once.
        """

    def first(self, submissions: Sequence[Submission]) -> tuple[int, list[Any]]:
        """Wait for any of what was submitted: which it is, and its blocks in order; raises what its tasks did."""

    def cancel(self, submissions: Sequence[Submission]) -> None:
        """Wait until nothing of what was submitted runs any more, whatever comes of it."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What a function gives in every other process that takes part; nothing where there is none."""

    def recovers(self, error: BaseException) -> bool:
        """Whether an error means only that what was computed is lost, as somebody restarted the workers, and is over.

        Waits for a scheduler whose connection is lost. Nothing that was submitted or kept is there any more.
        """

    def report_waits(self, told: Callable[[str], object]) -> None:
        """Tell from now on, every few seconds, what a step waits for that takes longer than ten ("waits for …").

        It is "" while tasks run, and when the step is done.
        """

    def cpu_seconds(self) -> float:
        """CPU seconds of all processes that take or took part, since some fixed moment."""

    def resources(self) -> Resources:
        """Its workers as they are."""

    def each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """As `map`, on threads of this process that have nothing else to do while no tasks run."""

    def beside(self, tasks: int) -> Each:
        """What calls a function with each of two arguments, as `map` does, in each of so many tasks at a time.

        On threads that would have nothing to do, if the tasks run in this process.
        """

    def rest(self) -> None:
        """Give back what threads of this process keep between tasks, which run on others from now on."""

    def places(self) -> int:
        """How many tasks can run at a time, as of a moment ago."""

    def span(self, names: tuple[str, ...], ids: tuple[str, ...]) -> AbstractContextManager[Any]:
        """Let tasks that are made in a block stand under these names on the scheduler's pages, if it has any.

        Parameters
        ----------
        names : tuple of str
            From the outermost one to that of the tasks.
        ids : tuple of str
            Of each: tasks of one id stand together.
        """

    def profile(self, file: Path) -> AbstractContextManager[Any]:
        """Write what workers do in a block to an HTML file, where there is a scheduler that knows it."""
