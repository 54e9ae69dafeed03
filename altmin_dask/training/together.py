"""Several K-FAC steps in one task, where they turn out to be faster that way: small steps on workers of a cluster.

A step that is shared by workers waits for two round trips of messages, and for the process that trains to solve; one
worker that takes several steps by itself waits for one in all, while the others have nothing to do. Which is faster is
measured while training goes on, and which it is changes no bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from altmin_dask.execution.pieces import Cut
from altmin_dask.execution.series import Turn
from altmin_dask.solvers.schedules import KFACStep
from altmin_dask.training.context import RunContext
from altmin_dask.training.grouping import RowGroup

FIRST, TRIAL, KEPT = 4, 8, 120
"""After so many first steps, in which all is read and made for the first time, of each way so many steps are timed, and
the faster one is kept until there have been so many."""
MOST, MOST_SECONDS = 8, 0.5
"""So many steps at most are taken together, and no more than take so long: nothing is seen of them until then."""


@dataclass(frozen=True)
class Waiting:
    """A step that is yet to be taken."""

    action: KFACStep
    cursor: int


def turn(context: RunContext, group: RowGroup, waiting: Waiting, every: int) -> Turn:
    """A step that waits, as a task takes it."""
    settings, samples = context.settings, context.problem.train
    assert settings.pieces is not None
    step = context.step(samples, group, "", Cut(settings.pieces))
    mu = settings.mu_in_pass(len(context.network.shapes), waiting.action.number)
    seed = context.pipeline.training.seed, waiting.cursor
    return Turn(samples.blocks(group.chunks, group.part), step.shares, seed, mu, every)


@dataclass
class Pace:
    """How long steps take, one at a time and together.

    Attributes
    ----------
    first, slowest : int, float
        Steps that say only how long one takes at most, and that time.
    steps, seconds : list
        Of those that were timed, one at a time, and together.
    """

    first: int = FIRST
    slowest: float = math.inf
    steps: list[int] = field(default_factory=lambda: [0, 0])
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])

    @property
    def together(self) -> int:
        """How many steps are to be taken together now."""
        if self.first > 0:
            return 1
        alone, joined = self.steps
        each = self.seconds[0] / alone if alone else self.slowest
        count = max(1, min(MOST, int(MOST_SECONDS / max(each, 1e-6))))
        if count == 1 or joined < TRIAL:
            return count
        return count if alone >= TRIAL and self.seconds[1] / joined <= each else 1

    @contextmanager
    def timed(self, steps: int) -> Iterator[None]:
        """Count how long some steps take that are taken in this block."""
        if sum(self.steps) >= KEPT:
            self.steps, self.seconds = [0, 0], [0.0, 0.0]
        start, way = time.perf_counter(), int(steps > 1)
        yield
        seconds = time.perf_counter() - start
        if self.first > 0:
            self.first -= steps
            self.slowest = seconds / steps
            return
        self.steps[way] += steps
        self.seconds[way] += seconds
