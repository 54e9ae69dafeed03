"""Where tasks run: threads of this process, a local cluster, or a running Dask cluster. The graphs are the same."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import dask
from distributed import Client, LocalCluster

from altmin_dask.config import ClusterTable
from altmin_dask.errors import ConfigError, SchedulerError

CONNECT_SECONDS = 10


class Executor(Protocol):
    """What the engine needs of a place to run."""

    @property
    def description(self) -> str:
        """One line for people."""

    def compute(self, collection: Any) -> Any:
        """Compute a lazy Dask collection and return its value."""

    def cpu_seconds(self) -> float:
        """CPU seconds of all processes that take part, since some fixed moment."""


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
        return collection.compute(scheduler="threads", num_workers=self.workers)

    def cpu_seconds(self) -> float:
        """CPU seconds of this process."""
        return time.process_time()


@dataclass
class Cluster:
    """A Dask cluster, by its client."""

    client: Client
    _spent: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """One line for people."""
        info = self.client.scheduler_info()
        link = f", dashboard {self.client.dashboard_link}" if self.client.dashboard_link else ""
        return f"Dask cluster at {info['address']}{link}"

    def compute(self, collection: Any) -> Any:
        """Compute on the cluster."""
        return self.client.compute(collection, sync=True)

    def cpu_seconds(self) -> float:
        """CPU seconds of this process and of every worker process since it was first seen."""
        for process, seconds in self.client.run(_process_clock, on_error="ignore").values():
            first, _ = self._spent.get(process, (seconds, seconds))
            self._spent[process] = (first, seconds)
        here, own = _process_clock()
        return own + sum(last - first for process, (first, last) in self._spent.items() if process != here)


def _process_clock() -> tuple[tuple[str, int], float]:
    return (socket.gethostname(), os.getpid()), time.process_time()


@contextmanager
def open_executor(settings: ClusterTable, scheduler: str | None = None) -> Iterator[Executor]:
    """Make the place to run, and take it down again if it was made here.

    Parameters
    ----------
    settings : ClusterTable
        The pipeline's `[cluster]`.
    scheduler : str, optional
        Address of a running scheduler, which goes before `settings`.

    Raises
    ------
    SchedulerError
        If nothing answers at that address within ten seconds.
    """
    if scheduler is not None:
        with _connect(scheduler) as client:
            yield Cluster(client)
    elif settings.kind == "local":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Port .* is already in use")
            cluster = LocalCluster(
                n_workers=settings.workers,
                threads_per_worker=settings.threads_per_worker,
                memory_limit=settings.memory_limit,
                dashboard_address=settings.dashboard,
            )
        with cluster, Client(cluster) as client:
            yield Cluster(client)
    else:
        yield Threads(settings.workers or dask.system.CPU_COUNT)


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except ValueError as error:
        raise ConfigError(f"scheduler address {address}: {error}") from None
    except (OSError, TimeoutError):
        raise SchedulerError(
            f"no Dask scheduler answers at {address}; start one with `dask scheduler`, or check the address"
        ) from None
