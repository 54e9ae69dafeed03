"""Every kind of executor, by the name that settings give it, and how one is opened."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from weakref import WeakKeyDictionary

from distributed import Client, Security, rejoin, secede
from distributed.comm.core import CommClosedError, FatalCommClosedError, connect
from distributed.threadpoolexecutor import thread_state
from distributed.utils import LoopRunner

from altmin_dask.config import ClusterTable
from altmin_dask.errors import ConfigError, FaultError, MissingError, SchedulerError
from altmin_dask.execution.cluster import Cluster, open_cluster, planned_cluster
from altmin_dask.execution.executor import Executor, Submission
from altmin_dask.execution.faults import LOST, explained_losses
from altmin_dask.execution.newcomers import guarded
from altmin_dask.execution.resources import Resources
from altmin_dask.execution.threads import open_threads, planned_threads
from altmin_dask.execution.versions import versions

_ADDRESS = re.compile(r"((tcp|tls|ws|wss)://)?([^\s/:\[\]]+|\[[0-9a-fA-F:.%]+\]):(?P<port>\d{1,5})")
_HERE = re.compile(r"inproc://\S+")
"""Address of a scheduler that is a thread of this process."""
GREETING_SECONDS = 0.5
"""So much longer than to be connected it is waited for an answer, which a scheduler gives at once."""


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
        Address of a running scheduler, or a client of it that stays open; goes before `settings`. If it has no worker,
        as where a cluster adapts to what there is to do, one is waited for.

    Raises
    ------
    ConfigError
        If the address is none, the client is asynchronous, or the settings of a local cluster cannot be used.
    SchedulerError
        If nothing answers at that address in time, or no worker comes, or workers have other versions.
    FaultError
        If a cluster fails in the block, and nobody has said before what is to be done about it.
    """
    if scheduler is None:
        with KINDS[settings.kind].opened(settings) as executor:
            yield executor
        return
    with explained_losses(), _beside_the_task():
        if isinstance(scheduler, Client):
            _check_client(scheduler)
            with _ready(Cluster(scheduler, settings.patience)) as executor:
                yield executor
        else:
            with (
                _connect(scheduler, settings.connect_timeout) as client,
                _ready(Cluster(client, settings.patience)) as executor,
            ):
                yield executor


def address_in(file: str | os.PathLike[str], seconds: float = 10.0) -> str:
    """The address in what `dask scheduler --scheduler-file` writes, which may be about to do so.

    Raises
    ------
    MissingError
        If there is no such file in so many seconds.
    ConfigError
        If it holds no address.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            with open(file, encoding="utf-8") as opened:
                return str(json.load(opened)["address"])
        except FileNotFoundError:
            if time.monotonic() > end:
                raise MissingError(
                    f"there is no file {os.fspath(file)}; `dask scheduler --scheduler-file {os.fspath(file)}` writes it"
                ) from None
        except (ValueError, KeyError, TypeError, UnicodeDecodeError):
            if time.monotonic() > end:  # it may be half-written
                raise ConfigError(
                    f"{os.fspath(file)} holds no address of a scheduler; name the file that "
                    "`dask scheduler --scheduler-file` writes"
                ) from None
        time.sleep(0.1)


@contextmanager
def _beside_the_task() -> Iterator[None]:
    """Within a task, give the worker back its thread: tasks that are waited for may need it."""
    if not getattr(thread_state, "proceed", False):
        yield
        return
    secede()
    try:
        yield
    finally:
        rejoin()


def _check_client(client: Client) -> None:
    if client.asynchronous:
        raise ConfigError(
            "the client is asynchronous, and training waits for what it computes; give the scheduler's address "
            "instead, in a thread of its own (asyncio.to_thread), or a client made without asynchronous=True"
        )
    if client.status not in ("running", "connecting"):
        raise SchedulerError(f"the client is {client.status}; give one that is connected to its scheduler")


@contextmanager
def _connect(address: str, seconds: float) -> Iterator[Client]:
    match = _ADDRESS.fullmatch(address)
    if not _HERE.fullmatch(address) and (match is None or not 0 < int(match["port"]) < 1 << 16):
        raise ConfigError(f"{address!r} is no address of a scheduler; write HOST:PORT or tcp://HOST:PORT")
    try:
        if match is not None and not LoopRunner().run_sync(_is_scheduler, address, seconds):
            raise SchedulerError(
                f"something other than a Dask scheduler listens at {address}, or it does not answer in "
                f"{seconds:g} s (cluster.connect_timeout); is it the dashboard's port, or a worker's? Give the "
                "address that `dask scheduler` prints"
            )
        client = Client(address, timeout=seconds, set_as_default=False)
    except SchedulerError:
        raise
    except (OSError, TimeoutError) as error:
        raise SchedulerError(_unreached(address, seconds, error)) from None
    except ValueError:
        raise SchedulerError(
            f"the scheduler at {address} is a thread of another process; only that one reaches it"
        ) from None
    except TypeError as error:  # a tls:// address without certificates
        raise ConfigError(f"scheduler address {address}: {error}") from None
    with client:
        yield client


async def _is_scheduler(address: str, seconds: float) -> bool:
    """Whether what listens at an address answers as a scheduler does: a client of anything else waits for ever."""
    try:
        async with asyncio.timeout(seconds + GREETING_SECONDS):
            arguments = Security().get_connection_args("client")
            comm = await connect(address, timeout=seconds, **arguments)
            try:
                await comm.write({"op": "identity", "n_workers": 0, "reply": True})
                answer = await comm.read()
            finally:
                comm.abort()
    except CommClosedError as error:
        if isinstance(error, FatalCommClosedError) or isinstance(_first_cause(error), ssl.SSLError):
            raise  # it is one, and does not trust us, or we do not trust it
        return False
    except (TimeoutError, MemoryError, OverflowError, ValueError):
        return False  # the first bytes of an answer in another language are taken for its length
    return isinstance(answer, dict) and answer.get("type") == "Scheduler"


def _unreached(address: str, seconds: float, error: BaseException) -> str:
    """Why a scheduler is not reached, and what to do: it may be there, and refuse a certificate, or have another."""
    first = _first_cause(error)
    if isinstance(first, ssl.SSLError) or isinstance(error, FatalCommClosedError):
        return (
            f"the scheduler at {address} is there, but the connection cannot be secured ({first or error}); check "
            "Dask's settings distributed.comm.tls here and there"
        )
    reason = "" if isinstance(first, ConnectionRefusedError) or not str(first) else f": {first}"
    return (
        f"no Dask scheduler answers at {address} in {seconds:g} s (cluster.connect_timeout){reason}; start one with "
        "`dask scheduler`, or check the address"
    )


def _first_cause(error: BaseException) -> BaseException:
    """What an error comes of, in the end."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _ready(cluster: Cluster) -> Iterator[Cluster]:
    """Wait for the first worker, and check all there are, and those that join while the block lasts."""
    client = cluster.client
    if not client.nthreads():
        _await_worker(cluster)
    _check_workers(client)
    try:
        with _patient(client, cluster.patience), guarded(client) as guard_again:
            cluster.reinstalled.append(guard_again)
            yield cluster
    finally:
        cluster.rest()


_waits: WeakKeyDictionary[Client, tuple[float, list[float]]] = WeakKeyDictionary()
_waits_lock = threading.Lock()


@contextmanager
def _patient(client: Client, seconds: float) -> Iterator[None]:
    """Let a client try for so long to find its scheduler again; runs in other threads may want another time of it."""
    with _waits_lock:
        own, wanted = _waits.setdefault(client, (client._timeout, []))
        wanted.append(seconds)
        client._timeout = max(own, *wanted)
    try:
        yield
    finally:
        with _waits_lock:
            wanted.remove(seconds)
            client._timeout = max([own, *wanted])
            if not wanted:
                del _waits[client]


def _await_worker(cluster: Cluster) -> None:
    """Wait for a worker by a task: a cluster that adapts to what there is to do starts workers for tasks only."""
    task = cluster.client.submit(int, pure=False)
    try:
        cluster.first([Submission([task], tuple, [task])])
    except FaultError:
        address = cluster.client.scheduler_info()["address"]
        raise SchedulerError(
            f"the Dask scheduler at {address} has had no workers for {cluster.patience:g} s (cluster.patience); "
            f"start one with `dask worker {address}`"
        ) from None


def _check_workers(client: Client) -> None:
    """Refuse a scheduler or workers that lack the package, or workers of other versions than the bits depend on."""
    ours = versions()
    try:
        client.run_on_scheduler(versions)
    except (*LOST, OSError):  # it is gone
        raise
    except Exception as error:
        raise SchedulerError(
            f"the scheduler cannot read tasks of altmin_dask ({error}); install it there as here"
        ) from None
    for worker, theirs in client.run(versions, on_error="return").items():
        if isinstance(theirs, OSError):  # it has died meanwhile, and is given no task
            continue
        if isinstance(theirs, Exception):
            raise SchedulerError(
                f"worker {worker} cannot run altmin_dask ({theirs}); install it there as here"
            )
        if theirs != ours:
            raise SchedulerError(
                f"worker {worker} has {theirs}, this process {ours}; install the same versions"
            )
