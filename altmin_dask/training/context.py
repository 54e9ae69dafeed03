"""What all algorithms share: the settings, the data, where tasks run, and the state so far."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from typing import Any

import dask.array as da

from altmin_dask.config import Pipeline
from altmin_dask.execution import task_graphs
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.pieces import WHOLE, Cut, total
from altmin_dask.execution.samples import Samples
from altmin_dask.execution.task_graphs import Step
from altmin_dask.execution.timing import activity
from altmin_dask.networks.network import Network
from altmin_dask.solvers.evaluation import Evaluation
from altmin_dask.solvers.kfac import Stream
from altmin_dask.solvers.measures import NOTHING, Measure
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.weights import WeightStore
from altmin_dask.training.checkpoint import AlgorithmState, Checkpoint
from altmin_dask.training.grouping import RowGroup, evaluated
from altmin_dask.training.measuring import Measuring
from altmin_dask.training.problem import Problem, samples_in_all
from altmin_dask.training.progress import Usage
from altmin_dask.types import Array

CHARGE_SHARE = 0.05
"""Clocks of many workers are read for a commit only where that takes less than this share of the time."""


@dataclass(frozen=True)
class Clock:
    """Two times at one moment: CPU seconds of all processes that take part, and wall seconds."""

    cpu: float
    wall: float

    @classmethod
    def now(cls, executor: Executor) -> Clock:
        """Read both."""
        return cls(executor.cpu_seconds(), time.perf_counter())


class RunContext:
    """One run while it goes on.

    Parameters
    ----------
    pipeline : Pipeline
        All settings.
    problem : Problem
        The checked data and network.
    run : RunFolder
        Where everything is kept; already claimed.
    executor : Executor
        Where the tasks run.
    stream : Stream, optional
        What has been of samples that come little by little.
    usage : callable
        Tells what all processes spend from the seconds of this one, by activity.
    first_loss : float
        What the loss was, in the units of the samples, before weights were trained that this goes on from; or NaN.

    Attributes
    ----------
    settings : Settings
        What is run where the pipeline leaves it open.
    checkpoint : Checkpoint
        Where training is; the trainer moves it.
    weight_store : WeightStore
        By which weights reach the tasks.
    evaluated : RowGroup
        The training rows that the nested loss of a record is taken over.
    key : str
        Of what this process publishes and computes, and no other.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        problem: Problem,
        run: RunFolder,
        executor: Executor,
        stream: Stream | None = None,
        usage: Callable[[dict[str, float]], Usage] = Usage,
        first_loss: float = math.nan,
    ) -> None:
        self.usage = usage
        self.stream, self.first_loss = stream, first_loss
        self.pipeline, self.problem, self.run, self.executor = pipeline, problem, run, executor
        self.checkpoint = Checkpoint()
        self.settings, self.rows = problem.settings, problem.train.store.rows
        self.evaluated = evaluated(problem.train.store, self.settings.evaluation_rows, pipeline.training.seed)
        self.weight_store = WeightStore(run.steps, run.id)
        self.key, self._steps = uuid.uuid4().hex[:8], count()
        self._span = "", ""
        self._mark: Clock | None = None
        self._charge_seconds = 0.0

    def begin_anew(self) -> None:
        """Let what is published and computed from now on have names that nothing before had."""
        self.key = uuid.uuid4().hex[:8]

    @property
    def network(self) -> Network:
        """What is trained."""
        return self.problem.task_context.network

    @cached_property
    def measuring(self) -> Measuring:
        """What is measured on the samples that decide which model is kept."""
        problem = self.problem
        store = (problem.validation or problem.train).store
        kind = self.pipeline.network.kind
        return Measuring.of(kind, self.network, store, problem.scale, problem.preparation)

    @property
    def samples_in_all(self) -> float:
        """Samples that the ridge is shared by: those of the run, or of the stream it is part of, by their weights."""
        return samples_in_all(self.problem.train.store, self.network, self.stream)

    @property
    def rows_of_a_record(self) -> int:
        """Rows that are evaluated for one: of the training samples, and all for validation."""
        validation, train = self.problem.validation, self.problem.train.store
        return self.evaluated.rows(train) + (0 if validation is None else validation.store.rows)

    def charge(self) -> None:
        """Book the time since the last charge as training."""
        before, start = self._mark, time.perf_counter()
        self.start_clock()
        assert self._mark is not None
        self._charge_seconds = time.perf_counter() - start
        if before is not None:
            self.checkpoint.cpu_seconds += self._mark.cpu - before.cpu
            self.checkpoint.wall_seconds += self._mark.wall - before.wall

    def start_clock(self) -> None:
        """Let the time since the last charge be nobody's."""
        self._mark = Clock.now(self.executor)

    @contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """Do something that is no training in this block."""
        self.charge()
        try:
            yield
        finally:
            self.start_clock()

    def commit(self, state: AlgorithmState) -> str:
        """Make a state, and where training is, what to go on from, with what it has cost so far; gives the file.

        Its clocks are those of everything that led to it, in whatever process. What a process did after its last
        commit, and took with it when it was killed, is done again, and charged to the one that does it: how long the
        first took cannot be known.
        """
        since = math.inf if self._mark is None else time.perf_counter() - self._mark.wall
        if self.executor.clock_is_local or since >= self._charge_seconds / CHARGE_SHARE:
            self.charge()
        self.checkpoint.algorithm_state = state
        with activity("commit"):
            return str(self.run.commit(self.checkpoint.to_tensors(), self.checkpoint.to_scalars()))

    def compute(
        self,
        make: Callable[[Step], da.Array],
        samples: Samples,
        group: RowGroup,
        weights: str = "",
        cut: Cut = WHOLE,
    ) -> Array:
        """Carry out a step with the weights of a file."""
        with self.span():
            collection = make(self.step(samples, group, weights, cut))
            with activity("wait"):
                found: Array = self.executor.compute(collection)
        return total([found])

    @property
    def root_span(self) -> str:
        """Name of the run's tasks on a scheduler: its folder, and a mark of the whole path.

        Pages of Dask's own take names for HTML, so there is nothing in it that could be.
        """
        path = self.run.path.resolve()
        name = re.sub(r"[^\w.+-]", "_", path.name)
        return f"altmin {name} {hashlib.sha256(os.fsencode(path)).hexdigest()[:6]}"

    def span(self) -> AbstractContextManager[Any]:
        """Put tasks that are made in a block into the span of the current sweep, or sweeps, on a cluster."""
        number = self.checkpoint.visits // self.rows + 1 if self.checkpoint.algorithm_state is not None else 0
        name = _span_of(number)
        if self._span[0] != name:
            self._span = name, uuid.uuid4().hex
        return self.executor.span((self.root_span, name), (self.key, self._span[1]))

    def step(self, samples: Samples, group: RowGroup, weights: str, cut: Cut = WHOLE) -> Step:
        """Make a step with the weights of a file."""
        token, split_every = f"{self.key}-{next(self._steps)}", self.pipeline.cluster.split_every
        task_context = self.problem.task_context
        return Step(task_context, samples, group.chunks, token, weights, split_every, group.part, cut)

    def evaluate(
        self, samples: Samples, group: RowGroup, weights: str, measure: Measure = NOTHING
    ) -> Evaluation:
        """Quality of weights on some rows; a measure is of all."""
        make = partial(task_graphs.evaluate, measure=measure)
        return Evaluation(self.compute(make, samples, group, weights), measure)


def _span_of(sweep: int) -> str:
    """The span of a sweep: one for each of the first ten, then for twice as many each time.

    The scheduler keeps all of them.
    """
    last = 10
    while sweep > last:
        last *= 2
    return f"sweep {sweep}" if last == 10 else f"sweeps {last // 2 + 1}-{last}"
