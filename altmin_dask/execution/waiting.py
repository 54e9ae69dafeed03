"""What a step on a cluster waits for, when nothing of it runs: asked of the scheduler, and put in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future

SAY_SECONDS = 10.0
"""A step that takes longer is asked what it waits for."""


@dataclass(frozen=True)
class Wait:
    """What is waited for.

    Attributes
    ----------
    text : str
        "waits for …"; empty where tasks run, or the scheduler has much to do.
    lack, advice : str
        What there has not been and what to do about it, where nothing will come of it by itself.
    """

    text: str = ""
    lack: str = ""
    advice: str = ""


def reason_of(client: Client, started: Sequence[Future[Any]]) -> Wait:
    """Tell what computations wait for that are not done."""
    kind, detail = client.run_on_scheduler(_reason, [future.key for future in started])
    start = f"start some with `dask worker {client.scheduler_info()['address']}`"
    return {
        "": Wait(),
        "workers": Wait("waits for a worker", "there has been no worker", start),
        "paused": Wait(
            f"waits for memory: {detail} paused",
            "all workers have been paused",
            "give them more memory, or data smaller chunks",
        ),
        "restricted": Wait(f"waits for {detail}", f"there has not been {detail}", "start one that has it"),
        "others": Wait(f"waits for workers that are at {detail} other tasks"),
    }[kind]


def _reason(keys: Iterable[Any], dask_scheduler: Any) -> tuple[str, str]:
    """On the scheduler: what kind of thing is waited for, and which."""
    workers = dask_scheduler.workers.values()
    if not workers:
        return "workers", ""
    paused = [worker for worker in workers if worker not in dask_scheduler.running]
    if len(paused) == len(workers):
        return "paused", "the only worker has" if len(paused) == 1 else f"all {len(paused)} workers have"
    tasks = _unfinished(keys, dask_scheduler)
    if any(task in task.processing_on.executing for task in tasks if task.processing_on):
        return "", ""
    for task in tasks:
        if task.state == "no-worker":
            return "restricted", _wanted(task)
    others = sum(len(worker.processing) for worker in workers) - sum(bool(t.processing_on) for t in tasks)
    return ("others", str(others)) if tasks and others > 0 else ("", "")


def _wanted(task: Any) -> str:
    """The worker that a task may run on."""
    if task.resource_restrictions:
        amounts = ", ".join(f"{name}={amount:g}" for name, amount in task.resource_restrictions.items())
        return f"a worker with the resources {amounts}"
    places = sorted(map(str, {*(task.worker_restrictions or ()), *(task.host_restrictions or ())}))
    return f"a worker at {' or '.join(places)}" if places else "a worker"


def _unfinished(keys: Iterable[Any], scheduler: Any) -> set[Any]:
    """Tasks that are not done, of those with these keys and of all that they need."""
    found: set[Any] = set()
    stack = [scheduler.tasks[key] for key in keys if key in scheduler.tasks]
    while stack:
        task = stack.pop()
        if task.state != "memory" and task not in found:
            found.add(task)
            stack += task.dependencies
    return found
