"""Where tasks run: threads of this process, a local cluster, or a running Dask cluster. The graphs are the same."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import dask
from dask.base import persist
from distributed import Client, Future, LocalCluster, futures_of, wait

from altmin_dask.config import ClusterTable
from altmin_dask.errors import ConfigError, FaultError, SchedulerError
from altmin_dask.execution.faults import KEPT
from altmin_dask.execution.timing import process_clock

CONNECT_SECONDS = 10
POLL_SECONDS = 5
SETTLE_SECONDS = 30
_ADDRESS = re.compile(r"((tcp|tls|ws|wss)://)?([^\s/:\[\]]+|\[[0-9a-fA-F:.%]+\]):(?P<port>\d{1,5})")


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
    """What the engine needs of a place to run."""

    @property
    def description(self) -> str:
        """One line for people."""

    def compute(self, collection: Any) -> Any:
        """Compute a lazy Dask collection and return its value."""

    def start(self, collection: Any, *kept: Any) -> Submission:
        """Begin to compute a collection of one block, and others that are kept, for `first` or `abandon`."""

    def first(self, started: Sequence[Submission]) -> tuple[int, Any]:
        """Wait for any of what was started: which it is, and its value."""

    def abandon(self, started: Sequence[Submission]) -> None:
        """Wait until nothing of what was started runs any more, whatever comes of it."""

    def cpu_seconds(self) -> float:
        """CPU seconds of all processes that take or took part, since some fixed moment."""


@dataclass(frozen=True)
class Threads:
    """The threaded scheduler in this process."""

    workers: int

    @property
    def description(self) -> str:
        """One line for people."""
        return f"{self.workers} thread{'s' if self.workers > 1 else ''} of this process"

    def compute(self, collection: Any) -> Any:
        """Compute on this process's threads, whatever client may be around."""
        if self.workers == 1:  # handing tasks to a thread takes longer than small ones themselves
            return collection.compute(scheduler="sync")
        # a pool of our own is left only when every task has ended, also after an error or Ctrl-C: none of them
        # writes to a folder that has been removed meanwhile
        with ThreadPoolExecutor(self.workers) as pool:
            return collection.compute(scheduler="threads", pool=pool)

    def start(self, collection: Any, *kept: Any) -> Submission:
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

    def first(self, started: Sequence[Submission]) -> tuple[int, Any]:
        """Wait for any of what was started: which it is, and its value."""
        done, _ = futures.wait([each.done for each in started], return_when=futures.FIRST_COMPLETED)
        index = next(i for i, each in enumerate(started) if each.done in done)
        return index, started[index].done.result()[0].compute(scheduler="sync")

    def abandon(self, started: Sequence[Submission]) -> None:
        """Wait until nothing of what was started runs any more."""
        futures.wait([each.done for each in started])

    def cpu_seconds(self) -> float:
        """CPU seconds of this process."""
        return time.process_time()

    def _persist(self, *collections: Any) -> tuple[Any, ...]:
        with ThreadPoolExecutor(self.workers) as pool:
            found: tuple[Any, ...] = persist(*collections, scheduler="threads", pool=pool)
        return found


@dataclass
class Cluster:
    """A Dask cluster, by its client; `patience` is how long a step waits, in seconds, while there is no worker."""

    client: Client
    patience: float = 300.0
    _begun: float = field(default_factory=time.monotonic)
    _spent: dict[tuple[str, int, str], tuple[float, float]] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """One line for people."""
        info = self.client.scheduler_info()
        link = f", dashboard {self.client.dashboard_link}" if self.client.dashboard_link else ""
        return f"Dask cluster at {info['address']}{link}"

    def compute(self, collection: Any) -> Any:
        """Compute on the cluster; after an error or Ctrl-C, wait for the tasks that still run."""
        future = self.client.compute(collection)
        started = Submission(future, lambda: (), [future])
        try:
            return self.first([started])[1]
        except BaseException:
            self.abandon([started])
            raise

    def start(self, collection: Any, *kept: Any) -> Submission:
        """Send to the cluster, all at once: what they have in common is done once."""
        sent, *stay = self.client.persist([collection, *kept])
        (done,) = futures_of(sent)
        return Submission(done, lambda: tuple(stay), futures_of([sent, *stay]))

    def first(self, started: Sequence[Submission]) -> tuple[int, Any]:
        """Wait for any of what was started: which it is, and its value."""
        self._wait([each.done for each in started])
        index = next(i for i, each in enumerate(started) if each.done.done())
        return index, started[index].done.result()

    def abandon(self, started: Sequence[Submission]) -> None:
        """Cancel what was started, and wait for the tasks that still run."""
        if started:
            self._settle([future for each in started for future in each.futures])

    def _wait(self, started: Sequence[Future[Any]]) -> None:
        """Wait for any: workers may come and go, but one at least has to come."""
        alone_since = None
        while True:
            with suppress(TimeoutError), self.client.as_current():  # which need not be anybody's default
                wait(started, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
                return
            if self.client.nthreads():
                alone_since = None
                continue
            alone_since = alone_since or time.monotonic()
            if time.monotonic() - alone_since > self.patience:
                raise FaultError(
                    f"there has been no worker for {self.patience:g} s (cluster.patience); start some with "
                    f"`dask worker {self.client.scheduler_info()['address']}`; {KEPT}"
                )

    def _settle(self, started: Sequence[Future[Any]]) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        with suppress(Exception):  # a cluster that is gone runs nothing
            for future in started:
                future.cancel()
            while any(self.client.run(_executing, on_error="ignore").values()):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)

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


def _executing(dask_worker: Any) -> int:
    return int(dask_worker.state.executing_count)


@contextmanager
def open_executor(settings: ClusterTable, scheduler: str | Client | None = None) -> Iterator[Executor]:
    """Make the place to run, and take it down again if it was made here.

    Parameters
    ----------
    settings : ClusterTable
        The pipeline's `[cluster]`.
    scheduler : str or Client, optional
        Address of a running scheduler, or a client of it that stays open; goes before `settings`.

    Raises
    ------
    ConfigError
        If the address is none, or the settings of a local cluster cannot be used.
    SchedulerError
        If nothing answers at that address within ten seconds, or it has no workers.
    """
    if isinstance(scheduler, Client):
        _check_workers(scheduler)
        yield Cluster(scheduler, settings.patience)
    elif scheduler is not None:
        with _connect(scheduler) as client:
            yield Cluster(client, settings.patience)
    elif settings.kind == "local":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Port .* is already in use")
            try:
                cluster = LocalCluster(
                    n_workers=settings.workers,
                    threads_per_worker=settings.threads_per_worker,
                    memory_limit=settings.memory_limit,
                    dashboard_address=settings.dashboard,
                )
            except RuntimeError as error:
                raise ConfigError(f"a local cluster as of [cluster] cannot be started: {error}") from None
        with cluster, Client(cluster) as client:
            yield Cluster(client, settings.patience)
    else:
        yield Threads(settings.workers or dask.system.CPU_COUNT)


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 1 << 16:
        raise ConfigError(f"{address!r} is no address of a scheduler; write HOST:PORT or tcp://HOST:PORT")
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError):
        raise SchedulerError(
            f"no Dask scheduler answers at {address}; start one with `dask scheduler`, or check the address"
        ) from None
    except TypeError as error:  # a tls:// address without certificates
        raise ConfigError(f"scheduler address {address}: {error}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise SchedulerError(
                f"the Dask scheduler at {address} has no workers; start one with `dask worker {address}`"
            ) from None
        _check_workers(client)
        yield client


def _check_workers(client: Client) -> None:
    """Refuse a scheduler or workers that lack the package, or workers of other versions than the bits depend on."""
    ours = _versions()
    try:
        client.run_on_scheduler(_versions)
    except Exception as error:
        raise SchedulerError(
            f"the scheduler cannot read tasks of altmin_dask ({error}); install it there as here"
        ) from None
    for worker, theirs in client.run(_versions, on_error="return").items():
        if isinstance(theirs, Exception):
            raise SchedulerError(
                f"worker {worker} cannot run altmin_dask ({theirs}); install it there as here"
            )
        if theirs != ours:
            raise SchedulerError(
                f"worker {worker} has {theirs}, this process {ours}; install the same versions"
            )


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("altmin-dask", "numpy", "scipy", "zarr"))
