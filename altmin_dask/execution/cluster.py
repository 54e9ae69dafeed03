"""A Dask cluster as an executor: of this machine, or any that is running."""

from __future__ import annotations

import asyncio
import errno
import logging
import multiprocessing
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import dask
import dask.array as da
from dask import annotate  # type: ignore[attr-defined]
from dask.base import collections_to_expr
from dask.core import flatten
from distributed import Client, Future, LocalCluster, performance_report, wait

from altmin_dask.config import ClusterTable
from altmin_dask.errors import ConfigError, warn
from altmin_dask.execution import own_worker
from altmin_dask.execution.executor import Submission
from altmin_dask.execution.faults import LOST, LackError, explained_losses, is_lost, is_restart
from altmin_dask.execution.pool import Pool
from altmin_dask.execution.resources import Resources, parsed_limit, rounded_latency, solving_threads
from altmin_dask.execution.timing import process_clock
from altmin_dask.execution.waiting import SAY_SECONDS, reason_of, unfinished
from altmin_dask.storage.atomic import write_bytes
from altmin_dask.storage.locations import filesystem_of
from altmin_dask.types import Each

LOCAL_LATENCY = 0.016
"""Seconds of a step besides its longest task on workers of this machine, about."""
LATENCY_ROUNDS = 5
"""So many empty steps are taken to know it elsewhere, and the quickest counts."""
LATENCY_SECONDS = 1.0
"""If that takes longer, it is not the messages: all threads are at the tasks of others."""
COUNT_SECONDS = 5
"""How often workers are counted."""
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
    local : bool
        Whether it is one of this machine, that was opened for the run.
    reinstalled : list of callable
        What brings to a scheduler what it has to know, if it was started again; each asks it.
    """

    client: Client
    patience: float = 300.0
    local: bool = False
    _told: Callable[[str], object] | None = None
    _said: str = ""
    reinstalled: list[Callable[[], object]] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)
    _spent: dict[tuple[str, int, str], tuple[float, float]] = field(default_factory=dict)
    _places: tuple[int, float] = (1, 0.0)
    _measured: float | None = None
    _pool: Pool = field(default_factory=Pool)

    clock_is_local: ClassVar[bool] = False

    @property
    def description(self) -> str:
        """One line for people."""
        info = self.client.scheduler_info()
        link = f", dashboard {self.client.dashboard_link}" if self.client.dashboard_link else ""
        return f"Dask cluster at {info['address']}{link}"

    def compute(self, collection: Any) -> Any:
        """Compute on the cluster; after an error or Ctrl-C, wait for the tasks that still run."""
        keys = collection.__dask_keys__()
        alone = len(list(flatten(keys))) == 1
        if alone:
            # maybe the sum of much: sent as `submit` does, this process would need half as much memory again
            future = self.client.compute(collection)
            submission = Submission([future], tuple, [future])
        else:
            submission = self.submit(collection)
        try:
            blocks = self.first([submission])[1]
        except BaseException:
            self.cancel([submission])
            raise
        finish, arguments = collection.__dask_postcompute__()
        return blocks[0] if alone else finish(_nested(keys, iter(blocks)), *arguments)

    def submit(self, collection: Any, *kept: Any) -> Submission:
        """Send to the cluster, all at once: what they have in common is done once.

        The graph is made here, and sent as plain tasks: to send collections takes a few milliseconds more.
        """
        collections = collection, *kept
        graph = collections_to_expr(collections).optimize().__dask_graph__()
        keys = [key for each in collections for key in flatten(each.__dask_keys__())]
        found = dict(zip(keys, self.client.get(graph, keys, sync=False), strict=True))

        def there() -> tuple[Any, ...]:
            return tuple(_rebuilt(each, found) for each in kept)

        done = [found[key] for key in flatten(collection.__dask_keys__())]
        return Submission(done, there, list(found.values()))

    def first(self, submissions: Sequence[Submission]) -> tuple[int, list[Any]]:
        """Wait for any of what was submitted: which it is, and its blocks."""
        while True:
            for index, one in enumerate(submissions):
                if all(future.done() for future in one.done) or any(
                    future.status == "error" for future in one.done
                ):
                    return index, self._gathered(one.done)
            left = [future for one in submissions for future in one.done if not future.done()]
            when = "ALL_COMPLETED" if len(submissions) == 1 else "FIRST_COMPLETED"
            self._wait(partial(self._are_done, left, when), left)

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
        if not is_lost(error) and not (client.status != "running" and isinstance(error, OSError)):
            return False
        end, back = time.monotonic() + self.patience, False
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
                        back = True
                        return True
                self._tell("waits for the connection to its scheduler")
                time.sleep(RETRY_SECONDS)
        finally:
            self._tell_end(goes_on=back)
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
        return Resources(
            max(len(workers), 1), threads, limit, in_process=False, running=True, latency=self._latency()
        )

    def _latency(self) -> float:
        """Seconds of a step that computes nothing, measured once; that of this machine where there is no worker yet."""
        if self.local or not self.client.nthreads():
            return LOCAL_LATENCY
        if self._measured is None:
            with suppress(*LOST):  # as training finds out, too, which waits and goes on
                steps: list[float] = []
                while len(steps) < LATENCY_ROUNDS and sum(steps) < LATENCY_ROUNDS * LATENCY_SECONDS:
                    steps.append(self._empty_step())
                known = min(steps) < LATENCY_SECONDS
                self._measured = rounded_latency(min(steps)) if known else LOCAL_LATENCY
        return self._measured or LOCAL_LATENCY

    def _empty_step(self) -> float:
        start = time.perf_counter()
        self.compute(da.zeros((2, 1), chunks=(1, 1), name=f"altmin_latency-{uuid.uuid4().hex}").sum())
        return time.perf_counter() - start

    def each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """As `map`, on all cores that are free to this process: it is what workers wait for."""
        return self._pool.map(function, items, solving_threads())

    def beside(self, tasks: int) -> Each:
        """One after the other: threads of workers are the scheduler's."""
        return map

    def rest(self) -> None:
        """End the threads that solve; workers keep what they have."""
        self._pool.end()

    def places(self) -> int:
        """Threads of all workers, as the scheduler said a few seconds ago."""
        now = time.monotonic()
        if now >= self._places[1]:
            self._places = max(1, sum(self.client.nthreads().values())), now + COUNT_SECONDS
        return self._places[0]

    def span(self, names: tuple[str, ...], ids: tuple[str, ...]) -> AbstractContextManager[Any]:
        """Put tasks into a span of the scheduler."""
        return annotate(span={"name": names, "ids": ids})

    @contextmanager
    def profile(self, file: Path) -> Iterator[None]:
        """Write Dask's own report of what its workers did; where that fails, a warning says so."""
        page = f"memory://altmin/{uuid.uuid4().hex}.html"  # Dask would take a folder's path for a URL, or a pattern
        filesystem, path = filesystem_of(page)
        report = performance_report(filename=page)
        with self.client.as_current():
            report.__enter__()
            try:
                yield
            finally:
                try:
                    report.__exit__(*sys.exc_info())
                    content = filesystem.cat_file(path)
                    filesystem.rm_file(path)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_bytes(file, content)
                except Exception as error:  # of a scheduler that is gone, or a full disk
                    warn(
                        f"Dask's report {file} could not be written ({error}); training is not touched by that"
                    )

    def _gathered(self, done: Sequence[Future[Any]]) -> list[Any]:
        """The blocks of what is done; what goes with its worker before it is here is computed once more."""
        loop: Any = self.client.loop
        # on this machine not by way of the scheduler
        gathering = self.client.gather(done, direct=self.local or None, asynchronous=True)
        found = asyncio.run_coroutine_threadsafe(gathering, loop.asyncio_loop)
        try:
            self._wait(lambda: bool(futures.wait([found], POLL_SECONDS).done), done)
            blocks: list[Any] = found.result()
            return blocks
        finally:
            found.cancel()

    def _are_done(self, started: Sequence[Future[Any]], when: str) -> bool:
        """Whether all are done, or any is, at least a moment later."""
        with suppress(TimeoutError), self.client.as_current():  # which need not be anybody's default
            wait(started, timeout=POLL_SECONDS, return_when=when)
            return True
        return False

    def _wait(self, are_done: Callable[[], bool], started: Sequence[Future[Any]]) -> None:
        """Wait until something is done: workers may come and go, but one at least has to come that can do it."""
        begun = time.monotonic()
        idle_since, told, done = begun, False, False
        try:
            while not are_done():
                now, found = time.monotonic(), reason_of(self.client, started)
                if not found.lack:
                    idle_since = now
                elif now - idle_since > self.patience:
                    raise LackError(
                        f"{found.lack} for {self.patience:g} s (cluster.patience); {found.advice}"
                    )
                if now - begun > SAY_SECONDS:
                    told = True
                    self._tell(found.text, found.kind)
            done = True
        finally:
            if told:
                self._tell_end(goes_on=done)

    def _tell(self, text: str, kind: str = "") -> None:
        """Say what is waited for; nothing where tasks run, or the wait is over. The log is told once of each kind."""
        if (kind or text) != self._said:
            _log.warning("the run %s", text or "goes on")
        self._said = kind or text
        if self._told is not None:
            self._told(text)

    def _tell_end(self, *, goes_on: bool) -> None:
        """Take back what was said to be waited for; the log is told no more where the run is about to end."""
        if not goes_on:
            self._said = ""
        self._tell("")

    def _settle(self, started: Sequence[Future[Any]]) -> None:
        """Cancel, until none of it is about to run: a graph may reach the scheduler, and a task its worker, after that.

        What others compute there is not waited for.
        """
        deadline, quiet = time.monotonic() + SETTLE_SECONDS, 0
        keys, sent = [future.key for future in started], set[Any]()
        with suppress(Exception):  # a cluster that is gone runs nothing
            while quiet < 2 and time.monotonic() < deadline:
                planned, given = self.client.run_on_scheduler(_planned, keys)
                sent |= given
                for future in started:
                    future.cancel()
                busy = planned or any(self.client.run(_waiting, sent, on_error="ignore").values())
                quiet = 0 if busy else quiet + 1
                time.sleep(0.05)


def _nested(keys: Any, values: Iterator[Any]) -> Any:
    """Values in the lists that keys are in."""
    return [_nested(key, values) for key in keys] if isinstance(keys, list) else next(values)


def _rebuilt(collection: Any, futures: Mapping[Any, Future[Any]]) -> Any:
    """A collection of what is computed already."""
    rebuild, arguments = collection.__dask_postpersist__()
    return rebuild({key: futures[key] for key in flatten(collection.__dask_keys__())}, *arguments)


def _planned(keys: Iterable[Any], dask_scheduler: Any) -> tuple[bool, set[Any]]:
    """On the scheduler: whether any of these, or of what they need, is still to be done, and what workers have got."""
    left = [task for task in unfinished(keys, dask_scheduler) if task.state not in _ENDED]
    return bool(left), {task.key for task in left if task.processing_on}


_ENDED = "erred", "released", "forgotten"
_LAST_PORT = 65535
"""States of tasks, besides "memory", that nobody is about to do."""


def _waiting(sent: Collection[Any], dask_worker: Any) -> bool:
    """In a worker: whether it runs, or will run, any of these tasks, or one that was cancelled while it ran."""
    state = dask_worker.state
    tasks = {*state.executing, *state.ready, *state.constrained}
    return any(task.key in sent or task.state == "cancelled" for task in tasks)


def _cause(error: BaseException) -> str:
    """What happened, in a few words."""
    return (
        "somebody restarted its workers" if is_restart(error) else "the connection to its scheduler was gone"
    )


def planned_cluster(settings: ClusterTable) -> Resources:
    """What `kind = "local"` asks for."""
    threads = settings.threads_per_worker
    workers = settings.workers or max(1, dask.system.CPU_COUNT // threads)
    limit = parsed_limit(settings.memory_limit, threads)
    return Resources(workers, threads, limit, in_process=False, latency=LOCAL_LATENCY)


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
                dashboard_address=_free(settings.dashboard),
                preload=[own_worker.__name__],
            )
        except RuntimeError as error:
            raise ConfigError(f"a local cluster as of [cluster] cannot be started: {error}") from None
    with explained_losses(), cluster, Client(cluster) as client:
        _tell_of_the_port(settings.dashboard, cluster)
        executor = Cluster(client, settings.patience, local=True)
        try:
            yield executor
        finally:
            executor.rest()


def _free(dashboard: str) -> str:
    """An address of a dashboard, with any free port if somebody has its own.

    Dask would go on with another port, too, but never closes the socket that found the first one taken.
    """
    host, _, port = dashboard.rpartition(":")
    if int(port) > _LAST_PORT:
        raise ConfigError(f"cluster.dashboard = {dashboard!r}: a port is {_LAST_PORT} or less")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return f"{host}:0"
    return dashboard


def _tell_of_the_port(asked: str, cluster: LocalCluster) -> None:
    """Say where the dashboard is, if somebody else has the port that it was to have."""
    wanted, port = int(asked.rpartition(":")[2]), cluster.scheduler_info.get("services", {}).get("dashboard")
    if wanted and port not in (wanted, None):
        _log.warning("port %d (cluster.dashboard) is taken; the dashboard is at port %d", wanted, port)


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
