"""A simulated cluster: what one step (z of some chunks, sums up a tree, W) takes on more workers than are at hand.

Pure functions of costs that `scaling.py` measures. The scheduler is one server that spends half its cost of a task
to hand it out and half to take note of its end; a worker has one thread, and one chunk waiting while it computes
one; sums of the tree go before chunks; what a sum needs from another worker crosses that worker's link. Samples, z
and weights come from storage whose bandwidth the transfers of a moment share evenly, none of them faster than its
worker's link. A worker waits for what it reads and writes, as a task does; it computes nothing meanwhile.

A K-FAC step asks the workers twice (`KFACSteps`): for the pull of a group of chunks, and, once the client has
solved for a direction, for the model of the loss along it.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from statistics import mean
from typing import Any, ClassVar

AHEAD = 2
"""Tasks a worker is given at once, the one it runs included: Dask's worker-saturation of 1.1, one thread."""


@dataclass(frozen=True)
class Costs:
    """Of the parts of a step.

    Attributes
    ----------
    task_seconds : sequence of float
        A chunk's task, with reading and writing as from a disk of its own; used in turn.
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
        Bytes per second of the storage that all workers share.
    read_bytes, written_bytes : float
        What a chunk's task reads from it (x, and z where it is kept) and writes to it (z).
    """

    task_seconds: Sequence[float]
    statistics_bytes: float = 0.0
    weights_bytes: float = 0.0
    add_seconds: float = 0.0
    solve_seconds: float = 0.0
    step_seconds: float = 0.0
    scheduler_seconds: float = 0.0
    latency: float = 0.0
    bandwidth: float = math.inf
    storage_bandwidth: float = math.inf
    read_bytes: float = 0.0
    written_bytes: float = 0.0


@dataclass(frozen=True)
class KFACSteps:
    """K-FAC steps, repeated for ever.

    Attributes
    ----------
    steps : sequence of sequence of Costs
        The rounds of each step, one after the other; the client's part of a round is its `solve_seconds`. Steps differ
        in whether they measure curvature; a step takes what they take on the average.
    """

    steps: Sequence[Sequence[Costs]]


WITHOUT = {
    "scheduler": {"scheduler_seconds": 0.0},
    "tree": {"statistics_bytes": 0.0, "add_seconds": 0.0, "latency": 0.0},
    "solve": {"solve_seconds": 0.0},
    "weights": {"weights_bytes": 0.0},
    "storage": {"read_bytes": 0.0, "written_bytes": 0.0},
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


class _Storage:
    """Transfers that share a bandwidth evenly, none faster than a link.

    All of a moment go at the same rate. So what one that was there from the beginning would have got decides when each
    is through, and they end in the order of what that has to be.
    """

    def __init__(self, bandwidth: float, link: float) -> None:
        self.bandwidth, self.link = bandwidth, link
        self.fastest = min(bandwidth, link)
        self.transfers: list[tuple[float, int, tuple[str, int, int]]] = []
        self.got = self.at = 0.0
        self.order = count()

    def _rate(self) -> float:
        return min(self.link, self.bandwidth / len(self.transfers))

    def begin(self, now: float, size: float, event: tuple[str, int, int]) -> None:
        """One more."""
        if self.transfers:
            self.got += self._rate() * (now - self.at)
        self.at = now
        heapq.heappush(self.transfers, (self.got + size, next(self.order), event))

    def next(self) -> float:
        """When the first ends, if no other begins."""
        if not self.transfers:
            return math.inf
        return self.at + max(self.transfers[0][0] - self.got, 0.0) / self._rate()

    def end(self, moment: float) -> tuple[str, int, int]:
        """The one that ends then."""
        self.got, _, event = heapq.heappop(self.transfers)
        self.at = moment
        return event


def tree(chunks: int, split_every: int) -> list[list[int]]:
    """Inputs of every task: none for the chunks (0 … chunks − 1), then sums of `split_every`, the root last."""
    tasks: list[list[int]] = [[] for _ in range(chunks)]
    level = list(range(chunks))
    while len(level) > 1:
        groups = [level[start : start + split_every] for start in range(0, len(level), split_every)]
        level = list(range(len(tasks), len(tasks) + len(groups)))
        tasks += groups
    return tasks


class _Step:
    """A step under way: a scheduler that hands out tasks, workers, a storage, and events in the order of their time."""

    def __init__(self, costs: Costs, workers: int, chunks: int, split_every: int) -> None:
        self.costs, self.chunks = costs, chunks
        self.tasks = tree(chunks, split_every)
        self.parent = {task: index for index, inputs in enumerate(self.tasks) for task in inputs}
        self.missing = [len(inputs) for inputs in self.tasks]
        self.place = [-1] * len(self.tasks)
        self.team = [_Worker() for _ in range(workers)]
        self.events: list[tuple[float, int, str, int, int]] = []
        self.order = count()
        self.storage = _Storage(costs.storage_bandwidth, costs.bandwidth)
        self.free = self.now = 0.0
        self.ready = min(AHEAD * workers, chunks)
        """How many chunks have been handed out."""

    def run(self) -> float:
        """Seconds until the scheduler knows that the last task is done."""
        for turn in range(self.ready):
            self.hand_out(turn % len(self.team), turn)
        while self.events or self.storage.transfers:
            moment = self.storage.next()
            if moment <= (self.events[0][0] if self.events else math.inf):
                self.later(moment + self.costs.latency, *self.storage.end(moment))
                continue
            self.now, _, event, worker, task = heapq.heappop(self.events)
            self.handlers[event](self, worker, task)
        return max(self.free, self.now)

    def later(self, time: float, event: str, worker: int, task: int) -> None:
        """Let an event follow."""
        heapq.heappush(self.events, (time, next(self.order), event, worker, task))

    def hand_out(self, worker: int, task: int) -> None:
        """Send a task to a worker; it takes half of what the scheduler spends on one."""
        self.free += self.costs.scheduler_seconds / 2
        self.later(self.free + self.costs.latency, "arrives", worker, task)

    def move(self, size: float, event: str, worker: int, task: int) -> None:
        """Let an event follow when so many bytes, asked for now, have come or gone."""
        if size and self.storage.fastest < math.inf:
            self.storage.begin(self.now, size, (event, worker, task))
        else:
            self.later(self.now, event, worker, task)

    def adding(self, worker: int, inputs: list[int]) -> float:
        """Seconds that a sum takes on a worker, with what has to be fetched from others."""
        fetched = sum(self.place[one] != worker for one in inputs)
        transfer = fetched * self.costs.statistics_bytes / self.costs.bandwidth
        return (
            transfer + (self.costs.latency if fetched else 0.0) + (len(inputs) - 1) * self.costs.add_seconds
        )

    def begin(self, worker: int) -> None:
        """Let a worker that has nothing to do take its next task."""
        member = self.team[worker]
        if member.waiting and not member.busy:
            task, member.busy = member.waiting.popleft(), True
            if self.tasks[task]:
                self.later(self.now + self.adding(worker, self.tasks[task]), "ends", worker, task)
                return
            weights, member.cold = self.costs.weights_bytes if member.cold else 0.0, False
            self.move(weights + self.costs.read_bytes, "has read", worker, task)

    def arrives(self, worker: int, task: int) -> None:
        """Sums go first, as they free memory."""
        waiting = self.team[worker].waiting
        (waiting.appendleft if self.tasks[task] else waiting.append)(task)
        self.begin(worker)

    def has_read(self, worker: int, task: int) -> None:
        """It computes now."""
        seconds = self.costs.task_seconds[task % len(self.costs.task_seconds)]
        self.later(self.now + seconds, "has computed", worker, task)

    def has_computed(self, worker: int, task: int) -> None:
        """It writes now."""
        self.move(self.costs.written_bytes, "ends", worker, task)

    def ends(self, worker: int, task: int) -> None:
        """The scheduler is told, and the worker goes on."""
        self.team[worker].busy, self.place[task] = False, worker
        self.later(self.now + self.costs.latency, "is noted", worker, task)
        self.begin(worker)

    def is_noted(self, worker: int, task: int) -> None:
        """The scheduler hands out what can begin now: a sum whose inputs are there, and the next chunk."""
        self.free = max(self.free, self.now) + self.costs.scheduler_seconds / 2
        above = self.parent.get(task)
        if above is not None:
            self.missing[above] -= 1
            if not self.missing[above]:
                self.hand_out(worker, above)
        if not self.tasks[task] and self.ready < self.chunks:
            self.hand_out(worker, self.ready)
            self.ready += 1

    handlers: ClassVar[dict[str, Callable[[_Step, int, int], None]]] = {
        "arrives": arrives,
        "has read": has_read,
        "has computed": has_computed,
        "ends": ends,
        "is noted": is_noted,
    }


def step_seconds(costs: Costs, workers: int, chunks: int, split_every: int = 4) -> float:
    """Wall seconds of one step on so many workers."""
    gather = costs.latency + costs.statistics_bytes / costs.bandwidth
    until_done = _Step(costs, workers, chunks, split_every).run()
    return costs.step_seconds + until_done + gather + costs.solve_seconds


def seconds(costs: Costs | KFACSteps, workers: int, chunks: int, split_every: int = 4) -> float:
    """Wall seconds of one step, of whichever kind."""
    if isinstance(costs, Costs):
        return step_seconds(costs, workers, chunks, split_every)
    return mean(
        sum(step_seconds(one, workers, chunks, split_every) for one in rounds) for rounds in costs.steps
    )


def changed(costs: Costs | KFACSteps, **values: Any) -> Costs | KFACSteps:
    """The same with other values in every round."""
    if isinstance(costs, Costs):
        return replace(costs, **values)
    return KFACSteps([[replace(one, **values) for one in rounds] for rounds in costs.steps])


def cut(costs: KFACSteps, parts: int) -> KFACSteps:
    """The same step with each chunk cut into so many, of which a task takes that share of its time: at best."""
    return KFACSteps(
        [
            [
                replace(
                    one,
                    task_seconds=[time / parts for time in one.task_seconds],
                    read_bytes=one.read_bytes / parts,
                )
                for one in rounds
            ]
            for rounds in costs.steps
        ]
    )


def efficiency(
    costs: Costs | KFACSteps, workers: int, chunks: int, split_every: int = 4, *, weak: bool = False
) -> float:
    """Of so many workers beside one, on the same chunks: `chunks` in all, or (`weak`) for each of them."""
    total = chunks * workers if weak else chunks
    return seconds(costs, 1, total, split_every) / (workers * seconds(costs, workers, total, split_every))


def storage_cap(costs: Costs, workers: int) -> float:
    """The most that the bandwidth of the storage allows: as many chunks a second as it moves, whoever computes."""
    size = costs.read_bytes + costs.written_bytes
    if not size:
        return 1.0
    alone = mean(costs.task_seconds) + size / min(costs.bandwidth, costs.storage_bandwidth)
    return min(1.0, costs.storage_bandwidth / size * alone / workers)


def losses(costs: Costs | KFACSteps, workers: int, chunks: int, split_every: int = 4) -> dict[str, float]:
    """Share of a step's time that each term is to blame for: what the step would save without it.

    "idle" is what is left when all terms are zero: workers without a chunk while others have one.
    """
    whole = seconds(costs, workers, chunks, split_every)
    found = {
        name: 1 - seconds(changed(costs, **zero), workers, chunks, split_every) / whole
        for name, zero in WITHOUT.items()
    }
    bare = changed(costs, **{name: value for zero in WITHOUT.values() for name, value in zero.items()})
    # one worker without costs computes all the time
    busy = seconds(bare, 1, chunks, split_every) / workers
    found["idle"] = (seconds(bare, workers, chunks, split_every) - busy) / whole
    return found
