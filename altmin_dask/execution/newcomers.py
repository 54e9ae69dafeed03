"""Workers that join while a run goes on: those that lack the package, or have other versions, leave again.

Such a worker could not read its tasks, which the scheduler would take to be under way for good; or it would compute
other bits. It is asked before it gets any task.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import cloudpickle
from distributed import Client, Status
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from altmin_dask.execution import versions as versions_module
from altmin_dask.execution.versions import versions

TASKS = "altmin_dask.execution.tasks"
"""What a worker has to be able to import."""
LEAVE_SECONDS = 0.3
SUBSCRIBED_SECONDS = 5.0
"""How long a subscription is waited for."""
RETURN_SECONDS = 30.0
"""A client whose connection was dropped is back after so long, or is gone."""
_HELLO = "hello"
_log = logging.getLogger("altmin_dask")


class VersionGuard(WorkerPlugin):
    """Lets a worker leave that is not as those that a run began with.

    Parameters
    ----------
    wanted : str
        What `versions` gives where the run was started.
    name : str
        Of this plugin, and of the topic under which it is told who left.
    tasks : str
        The module that has to be there.
    """

    def __init__(self, wanted: str, name: str, tasks: str = TASKS) -> None:
        self.wanted, self.name, self.tasks = wanted, name, tasks

    async def setup(self, worker: Any) -> None:
        """Look, and leave if it has to be; tasks come only after this.

        What the scheduler meant for it goes to others, and does not count as if it had died of it.
        """
        fault = self._fault()
        if not fault:
            return
        said = f"worker {worker.address} {fault}, and takes no part; install there what the run has: {self.wanted}"
        logging.getLogger("distributed.worker").error(said)
        worker.status = Status.closing_gracefully
        try:
            # by calls that are answered: what is sent along is lost where it cannot read its tasks
            await worker.scheduler.log_event(topic=self.name, msg=said)
            await worker.scheduler.retire_workers(workers=[worker.address], close_workers=False, remove=True)
        finally:
            # when it has begun: its nanny waits for that
            worker.loop.call_later(LEAVE_SECONDS, worker.close, nanny=True, reason="altmin-versions")

    def _fault(self) -> str:
        try:
            import_module(self.tasks)
            found = versions()
        except Exception as error:
            return f"cannot run altmin_dask ({error})"
        return "" if found == self.wanted else f"has {found}"


class GuardKeeper(SchedulerPlugin):
    """Takes the guard back when the client is gone, whether it said so or not.

    Parameters
    ----------
    guard, client : str
        Name of the guard, and id of the client.
    seconds : float
        How long a client is waited for whose connection is gone: it may connect once more.
    """

    def __init__(self, guard: str, client: str, seconds: float) -> None:
        self.name, self.guard, self.client, self.seconds = f"{guard}-keeper", guard, client, seconds

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Say of another Python at once: such a one cannot even read the guard, and ends."""
        here = ".".join(map(str, sys.version_info[:2]))
        host = scheduler.workers[worker].versions.get("host", {})
        there = ".".join(str(host.get("python", here)).split(".")[:2])
        if there != here:
            scheduler.log_event(
                self.guard, f"worker {worker} has python {there} and not {here}, and takes no part"
            )

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Forget both, if it does not come back."""
        if client == self.client:
            scheduler.loop.call_later(self.seconds, self.forget, scheduler)

    def forget(self, scheduler: Any) -> None:
        """Forget both, unless the client is there."""
        if self.client not in scheduler.clients:
            scheduler.worker_plugins.pop(self.guard, None)
            scheduler.plugins.pop(self.name, None)


@contextmanager
def guarded(client: Client) -> Iterator[Callable[[], None]]:
    """Let workers that join in this block be as those that are there.

    Gives a function that sees to it on a scheduler that was started again.
    """
    name = f"altmin-versions-{uuid.uuid4().hex[:8]}"
    guard = VersionGuard(versions(), name)

    def register() -> None:
        if not client.run_on_scheduler(_is_watched, name):
            watch(client, guard)

    register()
    try:
        yield register
    finally:
        with suppress(Exception):  # a scheduler that is gone has forgotten it
            client.unregister_scheduler_plugin(f"{name}-keeper")
            client.unregister_worker_plugin(name)
            client.unsubscribe_topic(name)
            # Dask keeps what handles a topic, one for every run, as long as the client lives
            loop: Any = client.loop
            loop.add_callback(client._event_handlers.pop, name, None)


def watch(client: Client, guard: VersionGuard) -> None:
    """Register a guard, by value, as who joins may lack the package, and say in the log whom it lets leave."""
    modules = sys.modules[__name__], versions_module
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        _subscribe(client, guard.name)
        client.register_plugin(GuardKeeper(guard.name, client.id, RETURN_SECONDS))
        client.register_plugin(guard)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _is_watched(name: str, dask_scheduler: Any) -> bool:
    return name in dask_scheduler.worker_plugins


def _subscribe(client: Client, topic: str) -> None:
    """Be told of a topic from now on: a subscription is on its way for a while, and what is said meanwhile is lost."""
    heard = threading.Event()

    def told(event: tuple[float, Any]) -> None:
        if event[1] == _HELLO:
            heard.set()
        else:
            _say(event)

    client.subscribe_topic(topic, told)
    end = time.monotonic() + SUBSCRIBED_SECONDS
    while not heard.is_set() and time.monotonic() < end:
        client.log_event(topic, _HELLO)
        heard.wait(0.05)


def _say(event: tuple[float, Any]) -> None:
    _log.warning("%s", event[1])
