"""A Dask cluster as an executor: of this machine, or any that is running."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import dask
from dask import annotate  # type: ignore[attr-defined]
from distributed import Client, Future, LocalCluster, futures_of, performance_report, wait

from altmin_dask.config import ClusterTable
from altmin_dask.errors import ConfigError, FaultError
from altmin_dask.execution import own_worker
from altmin_dask.execution.executor import Submission
from altmin_dask.execution.faults import KEPT, LOST
from altmin_dask.execution.resources import Resources, parsed_limit
from altmin_dask.execution.timing import process_clock
from altmin_dask.execution.waiting import SAY_SECONDS, reason_of
from altmin_dask.storage.atomic import write_bytes
from altmin_dask.storage.locations import filesystem_of

POLL_SECONDS = 2
"""How often a step that waits looks what it waits for."""
RETRY_SECONDS = 0.5
"""How often a scheduler that is gone is asked whether it is back."""
SETTLE_SECONDS = 30
"""How long a step that is given up waits for tasks that still run: one takes about a second."""
_log = logging.getLogger("altmin_dask")


@dataclass
class Cluster:
    """A Dask cluster, by its client.

    Attributes
    ----------
    client : Client
        Of its scheduler.
    patience : float
        How long a step waits, in seconds, while there is no worker that could do it, or no scheduler.
    reinstalled : list of callable
        What brings to a scheduler what it has to know, if it was started again; each asks it.
    """

    client: Client
    patience: float = 300.0
    _told: Callable[[str], object] | None = None
    _said: str = ""
    reinstalled: list[Callable[[], object]] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)
    _spent: dict[tuple[str, int, str], tuple[float, float]] = field(default_factory=dict)

    clock_is_local: ClassVar[bool] = False

    @property
    def description(self) -> str:
        """One line for people."""
        info = self.client.scheduler_info()
        link = f", dashboard {self.client.dashboard_link}" if self.client.dashboard_link else ""
        return f"Dask cluster at {info['address']}{link}"

    def compute(self, collection: Any) -> Any:
        """Compute on the cluster; after an error or Ctrl-C, wait for the tasks that still run."""
        future = self.client.compute(collection)
        submission = Submission(future, lambda: (), [future])
        try:
            return self.first([submission])[1]
        except BaseException:
            self.cancel([submission])
            raise

    def submit(self, collection: Any, *kept: Any) -> Submission:
        """Send to the cluster, all at once: what they have in common is done once."""
        sent, *stay = self.client.persist([collection, *kept])
        (done,) = futures_of(sent)
        return Submission(done, lambda: tuple(stay), futures_of([sent, *stay]))

    def first(self, submissions: Sequence[Submission]) -> tuple[int, Any]:
        """Wait for any of what was submitted: which it is, and its value."""
        self._wait([each.done for each in submissions])
        index = next(i for i, each in enumerate(submissions) if each.done.done())
        return index, submissions[index].done.result()

    def cancel(self, submissions: Sequence[Submission]) -> None:
        """Cancel what was submitted, and wait for the tasks that still run."""
        if submissions:
            self._settle([future for each in submissions for future in each.futures])

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What a function gives in every worker that answers."""
        return list(self.client.run(function, *arguments, on_error="ignore").values())

    def recovers(self, error: BaseException) -> bool:
        """Whether somebody restarted the workers, or a scheduler is back whose connection was lost."""
        client = self.client
        if not isinstance(error, LOST) and not (client.status != "running" and isinstance(error, OSError)):
            return False
        end = time.monotonic() + self.patience
        try:
            while client.status in ("running", "connecting") and time.monotonic() < end:
                with suppress(*LOST, OSError):
                    if client.status == "running":  # as it may be for a moment after the scheduler is gone
                        for reinstall in self.reinstalled:
                            reinstall()
                        _log.warning(
                            "what the cluster was at is lost: %s; training goes on from its last commit",
                            _cause(error),
                        )
                        return True
                self._tell("waits for the connection to its scheduler")
                time.sleep(RETRY_SECONDS)
        finally:
            self._tell("")
        return False

    def report_waits(self, told: Callable[[str], object]) -> None:
        """Tell somebody, besides the log, what is waited for: again and again while it is, and "" when it is not."""
        self._told = told

    def cpu_seconds(self) -> float:
        """CPU seconds of this process and of every worker process since it took part.

        A worker that came later counts from when it loaded this package. One that died keeps what it was last seen
        to have taken: what it took after that cannot be known.
        """
        here, before = process_clock(), time.monotonic() - self._begun
        for clock in self.client.run(process_clock, on_error="ignore").values():
            first = clock.loaded if clock.age < before else clock.seconds
            self._spent[clock.process] = self._spent.get(clock.process, (first,))[0], clock.seconds
        workers = (last - first for process, (first, last) in self._spent.items() if process != here.process)
        return here.seconds + sum(workers)

    def resources(self) -> Resources:
        """What the scheduler says of its workers."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        threads = max((worker["nthreads"] for worker in workers), default=1)
        limit = min(limits, default=None)
        return Resources(max(len(workers), 1), threads, limit, in_process=False, running=True)

    def span(self, names: tuple[str, ...], ids: tuple[str, ...]) -> AbstractContextManager[Any]:
        """Put tasks into a span of the scheduler."""
        return annotate(span={"name": names, "ids": ids})

    @contextmanager
    def profile(self, file: Path) -> Iterator[None]:
        """Write Dask's own report of what its workers did."""
        page = f"memory://altmin/{uuid.uuid4().hex}.html"  # Dask would take a folder's path for a URL, or a pattern
        filesystem, path = filesystem_of(page)
        try:
            with self.client.as_current(), performance_report(filename=page):
                yield
        finally:
            if filesystem.exists(path):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(file, filesystem.cat_file(path))
                filesystem.rm_file(path)

    def _wait(self, started: Sequence[Future[Any]]) -> None:
        """Wait for any: workers may come and go, but one at least has to come that can do it."""
        begun = time.monotonic()
        idle_since, told = begun, False
        try:
            while True:
                with suppress(TimeoutError), self.client.as_current():  # which need not be anybody's default
                    wait(started, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
                    return
                now, found = time.monotonic(), reason_of(self.client, started)
                if not found.lack:
                    idle_since = now
                elif now - idle_since > self.patience:
                    raise FaultError(
                        f"{found.lack} for {self.patience:g} s (cluster.patience); {found.advice}; {KEPT}"
                    )
                if now - begun > SAY_SECONDS:
                    told = True
                    self._tell(found.text)
        finally:
            if told:
                self._tell("")

    def _tell(self, text: str) -> None:
        """Say what is waited for; nothing where tasks run, or the wait is over."""
        if text != self._said:
            _log.warning("the run %s", text or "goes on")
        self._said = text
        if self._told is not None:
            self._told(text)

    def _settle(self, started: Sequence[Future[Any]]) -> None:
        """Cancel, until nothing is about to run: a graph may reach the scheduler, and a task its worker, after that."""
        deadline, quiet = time.monotonic() + SETTLE_SECONDS, 0
        with suppress(Exception):  # a cluster that is gone runs nothing
            while quiet < 2 and time.monotonic() < deadline:
                for future in started:
                    future.cancel()
                planned = any(self.client.processing().values())
                busy = planned or any(self.client.run(_waiting, on_error="ignore").values())
                quiet = 0 if busy else quiet + 1
                time.sleep(0.05)


def _waiting(dask_worker: Any) -> int:
    """How many tasks a worker runs, or will run."""
    state = dask_worker.state
    return int(state.executing_count) + len(state.ready) + len(state.constrained)


def _cause(error: BaseException) -> str:
    """What happened, in a few words."""
    restarted = "scheduler-restart" in str(getattr(error, "reason", "")) or "scheduler-restart" in str(error)
    return "somebody restarted its workers" if restarted else "the connection to its scheduler was gone"


def planned_cluster(settings: ClusterTable) -> Resources:
    """What `kind = "local"` asks for."""
    threads = settings.threads_per_worker
    workers = settings.workers or max(1, dask.system.CPU_COUNT // threads)
    return Resources(workers, threads, parsed_limit(settings.memory_limit, threads), in_process=False)


@contextmanager
def open_cluster(settings: ClusterTable) -> Iterator[Cluster]:
    """A cluster of this machine as `kind = "local"` asks for, which is taken down afterwards.

    Raises
    ------
    ConfigError
        If its settings cannot be used, or its processes would run the script again that wants it.
    """
    _check_script()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        try:
            cluster = LocalCluster(
                n_workers=settings.workers,
                threads_per_worker=settings.threads_per_worker,
                memory_limit=settings.memory_limit,
                dashboard_address=settings.dashboard,
                preload=[own_worker.__name__],
            )
        except RuntimeError as error:
            raise ConfigError(f"a local cluster as of [cluster] cannot be started: {error}") from None
    with cluster, Client(cluster) as client:
        yield Cluster(client, settings.patience)


def _check_script() -> None:
    """Refuse a script without a guard: every process that is started would run it, and start processes itself."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    starting = getattr(multiprocessing.current_process(), "_inheriting", False)
    unguarded = False
    if not starting and file is not None:
        with suppress(OSError, UnicodeDecodeError):
            unguarded = "__main__" not in Path(file).read_text(encoding="utf-8")
    if starting or unguarded:
        raise ConfigError(
            f"the processes of a local cluster import {file or 'the script'}, and would begin to train there, too; put "
            'what starts it below `if __name__ == "__main__":`'
        )
