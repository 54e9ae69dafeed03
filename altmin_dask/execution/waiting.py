"""What a step on a cluster waits for, when nothing of it runs: asked of the scheduler, and put in a sentence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, Status

SAY_SECONDS = 10.0
"""A step that takes longer is asked what it waits for."""


@dataclass(frozen=True)
class Wait:
    """What is waited for.

    Attributes
    ----------
    kind : str
        What it is in a word: it stays while numbers in the text change; empty where tasks run, or the scheduler has
        much to do.
    text : str
        "waits for …"; empty as `kind` is.
    lack, advice : str
        What there has not been and what to do about it, where nothing will come of it by itself.
    """

    kind: str = ""
    text: str = ""
    lack: str = ""
    advice: str = ""


def reason_of(client: Client, started: Sequence[Future[Any]]) -> Wait:
    """Tell what computations wait for that are not done."""
    kind, detail = client.run_on_scheduler(_reason, [future.key for future in started])
    start = f"start some with `dask worker {client.scheduler_info()['address']}`"
    text, lack, advice = {
        "": ("", "", ""),
        "workers": ("waits for a worker", "there has been no worker", start),
        "paused": (
            f"waits for memory: {detail} paused",
            "all workers have been paused",
            "give them more memory, or data smaller chunks",
        ),
        "some paused": (
            f"waits for memory: {detail} paused with tasks of this step",
            f"{detail} been paused with tasks of this step",
            "give workers more memory, or data smaller chunks",
        ),
        "leaving": (
            f"waits for a worker: {detail} begun to leave with tasks of this step",
            f"{detail} been about to leave with tasks of this step",
            "end what is about to leave, and others do them",
        ),
        "restricted": (f"waits for {detail}", f"there has not been {detail}", "start one that has it"),
        "others": (f"waits for workers that are at {detail} other tasks", "", ""),
    }[kind]
    return Wait(kind, text, lack, advice)


def _reason(keys: Iterable[Any], dask_scheduler: Any) -> tuple[str, str]:
    """On the scheduler: what kind of thing is waited for, and which."""
    everyone, running = dask_scheduler.workers.values(), dask_scheduler.running
    tasks = unfinished(keys, dask_scheduler)
    given = [task for task in tasks if task.processing_on]
    if any(task in task.processing_on.executing for task in given):
        return "", ""
    workers = [worker for worker in everyone if worker.status in _STAYING]
    if not workers:
        return "workers", ""
    if all(worker.status == Status.paused for worker in workers):
        return "paused", "the only worker has" if len(workers) == 1 else f"all {len(workers)} workers have"
    for task in tasks:
        if task.state == "no-worker":
            return "restricted", _wanted(task)
    if given and not any(task.state == "queued" or task.processing_on in running for task in tasks):
        return _stuck({task.processing_on for task in given})
    others = sum(len(worker.processing) for worker in everyone) - len(given)
    return ("others", str(others)) if tasks and others > 0 else ("", "")


def _stuck(workers: Collection[Any]) -> tuple[str, str]:
    """What keeps tasks of workers that are not running, to which Dask leaves them as long as they are there."""
    paused = [worker for worker in workers if worker.status == Status.paused]
    named = sorted(worker.address for worker in paused or workers)
    detail = f"worker {named[0]} has" if len(named) == 1 else f"workers {', '.join(named)} have"
    return ("some paused" if paused else "leaving"), detail


_STAYING = Status.running, Status.paused
"""Workers that are not about to come or to go."""


def _wanted(task: Any) -> str:
    """The worker that a task may run on."""
    if task.resource_restrictions:
        amounts = ", ".join(f"{name}={amount:g}" for name, amount in task.resource_restrictions.items())
        return f"a worker with the resources {amounts}"
    places = sorted(map(str, {*(task.worker_restrictions or ()), *(task.host_restrictions or ())}))
    return f"a worker at {' or '.join(places)}" if places else "a worker"


def unfinished(keys: Iterable[Any], scheduler: Any) -> set[Any]:
    """On the scheduler: tasks that are not done, of those with these keys and of all that they need."""
    found: set[Any] = set()
    stack = [scheduler.tasks[key] for key in keys if key in scheduler.tasks]
    while stack:
        task = stack.pop()
        if task.state != "memory" and task not in found:
            found.add(task)
            stack += task.dependencies
    return found
