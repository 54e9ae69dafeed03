"""Every kind of executor, by the name that settings give it, and how one is opened."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from types import MappingProxyType

from distributed import Client

from altmin_dask.config import ClusterTable
from altmin_dask.errors import ConfigError, SchedulerError
from altmin_dask.execution.cluster import Cluster, open_cluster, planned_cluster
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.resources import Resources
from altmin_dask.execution.threads import open_threads, planned_threads

CONNECT_SECONDS = 10
"""How long a scheduler that was named has to answer, and to have a worker."""
_ADDRESS = re.compile(r"((tcp|tls|ws|wss)://)?([^\s/:\[\]]+|\[[0-9a-fA-F:.%]+\]):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Kind:
    """A kind of executor.

    Attributes
    ----------
    planned : callable
        Gives the resources that settings ask for; nothing is started.
    opened : callable
        Makes an executor for as long as a block lasts.
    """

    planned: Callable[[ClusterTable], Resources]
    opened: Callable[[ClusterTable], AbstractContextManager[Executor]]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {"threads": Kind(planned_threads, open_threads), "local": Kind(planned_cluster, open_cluster)}
)
"""Every value of `[cluster] kind`; a new one is one more entry."""


def planned_resources(settings: ClusterTable) -> Resources:
    """What `[cluster]` asks for; nothing is started."""
    return KINDS[settings.kind].planned(settings)


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
    if scheduler is None:
        with KINDS[settings.kind].opened(settings) as executor:
            yield executor
    elif isinstance(scheduler, Client):
        _check_workers(scheduler)
        yield Cluster(scheduler, settings.patience)
    else:
        with _connect(scheduler) as client:
            yield Cluster(client, settings.patience)


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
