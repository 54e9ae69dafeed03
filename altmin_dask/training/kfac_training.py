"""Training in increments: no z is kept, and W moves after every group of chunks (`altmin_dask.solvers.kfac`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from altmin_dask.errors import RunError
from altmin_dask.execution import task_graphs
from altmin_dask.execution.executors import Started
from altmin_dask.execution.timing import activity
from altmin_dask.networks.network import Network
from altmin_dask.networks.recurrent import Recurrent
from altmin_dask.solvers.kfac import (
    Ascent,
    IncrementSettings,
    Memory,
    Metric,
    Probe,
    default_damping,
    default_proximal,
    renews,
)
from altmin_dask.solvers.schedules import Action, Increment, increment_schedule, penalties
from altmin_dask.solvers.statistics import ridge_term
from altmin_dask.training.checkpoint import State
from altmin_dask.training.context import Session
from altmin_dask.training.problem import mu_of
from altmin_dask.types import Array, Weights

PROBE_EVERY = 4
PROBE_ROWS = 500, 8192
PROBE_EVERY_SEQUENCE, PROBE_SEQUENCES = 8, 125
"""The model along the step is measured on every fourth sample of a group, but on so many at least and at most; on every
eighth sequence, but on so many at least."""
COMMIT_SECONDS = 2.0
COMMIT_SHARE = 0.05
"""Commits are so far apart, and further where they would take more than this share of the time."""
GROUP_ROWS = 2000
GROUP_SEQUENCES = 1000
"""About how many samples, or sequences, a step is made from, unless told otherwise."""
KEPT_FILES = 4
"""Files of weights that stay beside a new one: those before it, the step, the mean."""
MAX_REFUSALS = 20
"""After so many steps taken back in a row, training has diverged."""


@dataclass(frozen=True)
class Pending:
    """A group that was sent out.

    Attributes
    ----------
    chunks : tuple of int
        The group.
    renewed : bool
        Whether its curvature is measured.
    before : tuple of ndarray
        The weights before those that it was sent out with. What has been done since, of which the group knew
        nothing, is part of the step that is repeated, or undone, by as much as the model wants.
    ridge : float
        λ Σ ‖W̃_i‖² / N of those that it was sent out with.
    started : Started
        What to wait for; it keeps the samples of the probe.
    """

    chunks: tuple[int, ...]
    renewed: bool
    before: Weights
    ridge: float
    started: Started


class Incrementing:
    """Steps of W from the groups of `increment_schedule`, one after the other, or as they finish."""

    def __init__(self, session: Session) -> None:
        self.session = session
        pipeline, store = session.pipeline, session.problem.train.store
        solver, network = pipeline.solver, session.problem.kernel.network
        size = group_size(pipeline.training.group_chunks, store.chunk_rows, network)
        self.groups = session.in_groups(size, shuffled=True)
        rows = min(size * store.chunk_rows, session.rows)
        self.settings = IncrementSettings(
            default_proximal(network, rows) if solver.proximal is None else solver.proximal,
            solver.metric_damping or default_damping(network),
            pipeline.training.averaging,
            solver.ridge / session.rows,
            solver.penalize_bias,
        )
        self.probe_every = probe_every(rows, network)
        self.metric: Metric | None = None
        self.published: list[tuple[Weights, str]] = []
        self.pending: list[Pending] = []
        self.numbers = count()
        self.commit_cost, self.last_commit = 0.0, time.monotonic()

    @property
    def weights(self) -> Weights:
        """The weights to evaluate."""
        return self.memory.average

    @property
    def memory(self) -> Memory:
        """What is remembered from step to step."""
        memory = self.session.state.memory
        assert memory is not None
        return memory

    @property
    def under_way(self) -> int:
        """Samples of groups that were sent out."""
        return sum(self.session.group_rows(pending.chunks) for pending in self.pending)

    @property
    def group_count(self) -> int:
        """How many groups there are."""
        return len(self.groups)

    @property
    def mu(self) -> tuple[float, ...] | None:
        """μ_1 … μ_L of the current pass; None for μ → ∞."""
        if self.session.pipeline.solver.mu == "auto":
            return None
        network = self.session.problem.kernel.network
        return penalties(
            mu_of(self.session.pipeline, network), len(network.widths), self.session.state.passes
        )

    def actions(self) -> Iterator[Action]:
        """What to do, from the beginning."""
        return increment_schedule(len(self.groups), self.session.pipeline.training.seed)

    def restore(self, initial: Callable[[Session, tuple[int, ...]], Weights]) -> None:
        """Take up the last committed state, and remove what was written after it; or begin with initial weights."""
        run = self.session.run
        run.sweep()
        self.session.exchange.clear()
        state = run.restore()
        if state is None:
            weights = initial(self.session, self.groups[0])
            state = State(
                weights, None, np.zeros(0, np.int64), memory=self.session.memory or Memory.start(weights)
            )
            self.session.state = state
            self.commit()
        self.session.state = state
        self.metric = Metric(self.memory, self.settings) if self.memory.renewals else None

    def commit(self) -> None:
        """Make the state the one to go on from, with all groups that are under way."""
        self.drain()
        start = time.monotonic()
        self.session.commit()
        self.last_commit = time.monotonic()
        self.commit_cost = self.last_commit - start

    def commit_is_due(self) -> bool:
        """Whether to commit now: what is lost in between is done again, to the same bits."""
        since = time.monotonic() - self.last_commit
        return since > max(COMMIT_SECONDS, self.commit_cost / COMMIT_SHARE)

    def act(self, action: Action) -> None:
        """Carry out an action."""
        if not isinstance(action, Increment):
            return
        # the first step has no curvature to go by until it is done
        ahead = self.session.pipeline.training.staleness if self.memory.renewals else 0
        with self._abandoning():
            self.pending.append(self._begin(action))
            while len(self.pending) > ahead:
                self._finish_first()

    def committed(self, action: Action) -> None:
        """Nothing is left behind by a commit."""

    def publish_evaluated(self) -> str:
        """The file of the weights to evaluate."""
        return self._put(self.weights, "mean")

    def describe(self) -> dict[str, Any]:
        """What a record says besides the nested loss: there is no F of all samples without their z."""
        gradient = self.memory.gradient
        return {
            "gradient_norm": None if math.isnan(gradient) else gradient,
            "relaxed_objective": None,
            "ridge_term": None,
            "residuals": None,
            "relative_residuals": None,
            "zero_residuals": None,
            "rho": None,
            "shortened": None,
            "samples_in_sum": self.session.rows if self.session.state.visits else 0,
        }

    @property
    def settled(self) -> bool:
        """Never: a loss that does not improve any more ends it."""
        return False

    @property
    def objective(self) -> float:
        """Mean loss of the last groups, the ridge included."""
        return self.memory.level

    def _begin(self, action: Increment) -> Pending:
        """Send out a group."""
        session, memory = self.session, self.memory
        session.state.passes = action.number
        renewed = renews(memory.steps) or self.metric is None
        seed = (session.pipeline.training.seed, session.state.cursor) if renewed else None
        chunks = self.groups[action.group]
        file = self._publish(session.state.weights)
        step = session.step(session.problem.train, chunks, file)
        with session.span():
            started = session.executor.start(*task_graphs.increment(step, self.mu, seed, self.probe_every))
        ridge = ridge_term(session.state.weights, self.settings.ridge, self.settings.penalize_bias)
        return Pending(chunks, renewed, memory.before, ridge, started)

    def _finish_first(self) -> None:
        """Take the step of the group that is done first."""
        with activity("wait"):
            index, packed = self.session.executor.first([pending.started for pending in self.pending])
        self._finish(self.pending.pop(index), packed)

    def _finish(self, pending: Pending, packed: Array) -> None:
        """Move W by what a group says."""
        session, state, memory = self.session, self.session.state, self.memory
        network = session.problem.kernel.network
        ascent = Ascent(network.shapes, pending.renewed, packed.dtype, packed)
        state.visits += session.group_rows(pending.chunks)
        if memory.refuses(ascent, pending.ridge):
            state.weights = memory.take_back()
            self.metric = Metric(memory, self.settings) if memory.renewals else None
            self._check()
            return
        cautious = memory.caution
        memory.gradient = ascent.gradient_norm(
            state.weights, self.settings.ridge, self.settings.penalize_bias
        )
        memory.renew(ascent, state.weights, self.settings.averaging, pending.ridge)
        with activity("solve"):
            if pending.renewed or self.metric is None:
                self.metric = Metric(memory, self.settings)
            direction = self.metric.direction(ascent, state.weights)
        weights, before = self._publish(state.weights), self._publish(pending.before)
        change = self._put(direction, "step")
        packed = session.compute(
            lambda step: task_graphs.probe(step, pending.started.kept(), change, before),
            session.problem.train, pending.chunks, weights,
        )  # fmt: skip
        lengths = self.metric.lengths(Probe.unpack(packed), state.weights, direction, pending.before)
        state.weights = memory.move(state.weights, direction, pending.before, lengths)
        if memory.caution != cautious:
            self.metric = Metric(memory, self.settings)
        self._check()

    def drain(self) -> None:
        """Take the steps of all groups that are under way."""
        with self._abandoning():
            while self.pending:
                self._finish_first()

    @contextmanager
    def _abandoning(self) -> Iterator[None]:
        """Leave no task behind when something goes wrong."""
        try:
            yield
        except BaseException:
            self.session.executor.abandon([pending.started for pending in self.pending])
            self.pending.clear()
            raise

    def _publish(self, weights: Weights) -> str:
        """The file of weights; what is there already stays."""
        for known, file in self.published:
            if known is weights:
                return file
        file = self._put(weights, "weights")
        self.published.append((weights, file))
        del self.published[: -2 - self.session.pipeline.training.staleness]
        return file

    def _put(self, weights: Weights, name: str) -> str:
        keep = KEPT_FILES * (2 + self.session.pipeline.training.staleness)
        return self.session.exchange.publish(
            weights, f"{self.session.key}-{next(self.numbers):08d}-{name}", keep
        )

    def _check(self) -> None:
        if self.memory.refusals > MAX_REFUSALS:
            raise RunError(
                f"the nested loss diverged: {self.memory.refusals} steps in a row were taken back; "
                "try a larger solver.proximal or solver.metric_damping, or scale the samples"
            )


def group_size(wish: int | None, chunk_rows: int, network: Network) -> int:
    """How many chunks make a step."""
    rows = GROUP_SEQUENCES if isinstance(network, Recurrent) else GROUP_ROWS
    return wish or math.ceil(rows / chunk_rows)


def probe_every(rows: int, network: Network) -> int:
    """Which part of a group of so many samples the model along the step is measured on: every so many-th."""
    (least, most), every = PROBE_ROWS, PROBE_EVERY
    if isinstance(network, Recurrent):
        least, every = PROBE_SEQUENCES, PROBE_EVERY_SEQUENCE
    return max(1, min(every, rows // least), math.ceil(rows / most))
