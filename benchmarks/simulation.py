"""A simulated cluster: what one step (z of some chunks, sums up a tree, W) takes on more workers than are at hand.

Pure functions of costs that `scaling.py` measures. The scheduler is one server that spends half its cost of a task
to hand it out and half to take note of its end; a worker has one thread, and one chunk waiting while it computes
one; sums of the tree go before chunks; what a sum needs from another worker crosses that worker's link.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

AHEAD = 2
"""Tasks a worker is given at once, the one it runs included: Dask's worker-saturation of 1.1, one thread."""


@dataclass(frozen=True)
class Costs:
    """Of the parts of a step.

    Attributes
    ----------
    task_seconds : sequence of float
        A chunk's task, reading and writing included; used in turn.
    statistics_bytes, weights_bytes : float
        What a chunk sends, and what a worker reads before its first task of a step.
    add_seconds : float
        Adding one chunk's statistics to another's.
    solve_seconds : float
        The client's, between two steps: the W-update, and its commit.
    step_seconds : float
        What Dask takes for a step of a single empty task.
    scheduler_seconds : float
        The scheduler's, for each task.
    latency, bandwidth : float
        Seconds of a message, and bytes per second of a worker's link.
    storage_bandwidth : float
        Bytes per second of the storage from which all workers read the weights.
    """

    task_seconds: Sequence[float]
    statistics_bytes: float = 0.0
    weights_bytes: float = 0.0
    add_seconds: float = 0.0
    solve_seconds: float = 0.0
    step_seconds: float = 0.0
    scheduler_seconds: float = 0.0
    latency: float = 0.0
    bandwidth: float = float("inf")
    storage_bandwidth: float = float("inf")


WITHOUT = {
    "scheduler": {"scheduler_seconds": 0.0},
    "tree": {"statistics_bytes": 0.0, "add_seconds": 0.0, "latency": 0.0},
    "solve": {"solve_seconds": 0.0},
    "weights": {"weights_bytes": 0.0},
    "step": {"step_seconds": 0.0},
}
"""The terms of the loss, and what has to be zero to be without each."""


@dataclass
class _Worker:
    waiting: deque[int] = field(default_factory=deque)
    """Tasks here and not begun."""
    busy: bool = False
    cold: bool = True
    """Whether it has not read the weights yet."""


def tree(chunks: int, split_every: int) -> list[list[int]]:
    """Inputs of every task: none for the chunks (0 … chunks − 1), then sums of `split_every`, the root last."""
    tasks: list[list[int]] = [[] for _ in range(chunks)]
    level = list(range(chunks))
    while len(level) > 1:
        groups = [level[start : start + split_every] for start in range(0, len(level), split_every)]
        level = list(range(len(tasks), len(tasks) + len(groups)))
        tasks += groups
    return tasks


def step_seconds(costs: Costs, workers: int, chunks: int, split_every: int = 4) -> float:
    """Wall seconds of one step on so many workers."""
    tasks = tree(chunks, split_every)
    parent = {task: index for index, inputs in enumerate(tasks) for task in inputs}
    missing = [len(inputs) for inputs in tasks]
    place = [-1] * len(tasks)
    team = [_Worker() for _ in range(workers)]
    events: list[tuple[float, int, str, int, int]] = []
    order, half, ready = count(), costs.scheduler_seconds / 2, 0
    weights = max(
        costs.weights_bytes / costs.bandwidth, costs.weights_bytes * workers / costs.storage_bandwidth
    )
    free = now = 0.0

    def later(time: float, event: str, worker: int, task: int) -> None:
        heapq.heappush(events, (time, next(order), event, worker, task))

    def hand_out(worker: int, task: int) -> None:
        nonlocal free
        free += half
        later(free + costs.latency, "arrives", worker, task)

    def seconds(worker: int, task: int) -> float:
        inputs = tasks[task]
        if not inputs:
            return costs.task_seconds[task % len(costs.task_seconds)]
        fetched = sum(place[one] != worker for one in inputs)
        transfer = fetched * costs.statistics_bytes / costs.bandwidth + (costs.latency if fetched else 0.0)
        return transfer + (len(inputs) - 1) * costs.add_seconds

    def begin(worker: int) -> None:
        member = team[worker]
        if member.waiting and not member.busy:
            task, member.busy = member.waiting.popleft(), True
            start = now + (weights if member.cold else 0.0)
            member.cold = False
            later(start + seconds(worker, task), "ends", worker, task)

    for turn in range(min(AHEAD * workers, chunks)):
        hand_out(turn % workers, turn)
    ready = min(AHEAD * workers, chunks)
    while events:
        now, _, event, worker, task = heapq.heappop(events)
        member = team[worker]
        if event == "arrives":
            (member.waiting.appendleft if tasks[task] else member.waiting.append)(task)
            begin(worker)
        elif event == "ends":
            member.busy, place[task] = False, worker
            later(now + costs.latency, "is noted", worker, task)
            begin(worker)
        else:
            free = max(free, now) + half
            above = parent.get(task)
            if above is not None:
                missing[above] -= 1
                if not missing[above]:
                    hand_out(worker, above)
            if not tasks[task] and ready < chunks:
                hand_out(worker, ready)
                ready += 1
    gather = costs.latency + costs.statistics_bytes / costs.bandwidth
    return costs.step_seconds + max(free, now) + gather + costs.solve_seconds


def efficiency(costs: Costs, workers: int, chunks: int, split_every: int = 4, *, weak: bool = False) -> float:
    """Of so many workers beside one, on the same chunks: `chunks` in all, or (`weak`) for each of them."""
    total = chunks * workers if weak else chunks
    return step_seconds(costs, 1, total, split_every) / (
        workers * step_seconds(costs, workers, total, split_every)
    )


def losses(costs: Costs, workers: int, chunks: int, split_every: int = 4) -> dict[str, float]:
    """Share of a step's time that each term is to blame for: what the step would save without it.

    "idle" is what is left when all terms are zero: workers without a chunk while others have one.
    """
    whole = step_seconds(costs, workers, chunks, split_every)
    found = {
        name: 1 - step_seconds(replace(costs, **zero), workers, chunks, split_every) / whole  # type: ignore[arg-type]
        for name, zero in WITHOUT.items()
    }
    busy = sum(costs.task_seconds[i % len(costs.task_seconds)] for i in range(chunks)) / workers
    found["idle"] = (step_seconds(Costs(costs.task_seconds), workers, chunks, split_every) - busy) / whole
    return found
