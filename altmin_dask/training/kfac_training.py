"""Training by K-FAC steps: no z is kept, and W moves after every group of chunks (`altmin_dask.solvers.kfac`)."""

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
from altmin_dask.execution.executors import Submission
from altmin_dask.execution.timing import activity
from altmin_dask.networks.network import Network
from altmin_dask.solvers.kfac import (
    KFACSettings,
    KFACState,
    curvature_due,
    default_input_damping,
    default_output_damping,
)
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.preconditioner import PreconditionerCache
from altmin_dask.solvers.schedules import Action, KFACStep, kfac_schedule, mu_at
from altmin_dask.solvers.statistics import ridge_term
from altmin_dask.training.checkpoint import State
from altmin_dask.training.context import RunContext
from altmin_dask.training.problem import mu_of
from altmin_dask.types import Array, Weights

MODEL_ROWS = 8192
"""The model along the step is measured on so many samples of a group at most."""
COMMIT_SECONDS = 2.0
COMMIT_SHARE = 0.05
"""Commits are so far apart, and further where they would take more than this share of the time."""
KEPT_FILES = 4
"""Files of weights that stay beside a new one: those before it, the step, the mean."""
MAX_REJECTIONS = 20
"""After so many steps taken back in a row, training has diverged."""


@dataclass(frozen=True)
class InFlightGroup:
    """A group that was sent out.

    Attributes
    ----------
    chunks : tuple of int
        The group.
    with_curvature : bool
        Whether its curvature is measured.
    previous_weights : tuple of ndarray
        The weights before those that it was sent out with. What has been done since, of which the group knew
        nothing, is part of the step that is repeated, or undone, by as much as the model wants.
    ridge : float
        λ Σ ‖W̃_i‖² / N of those that it was sent out with.
    started : Started
        What to wait for; it keeps the samples of the probe.
    """

    chunks: tuple[int, ...]
    with_curvature: bool
    previous_weights: Weights
    ridge: float
    started: Submission


class KFACTraining:
    """Steps of W from the groups of `kfac_schedule`, one after the other, or as they finish."""

    def __init__(self, session: RunContext) -> None:
        self.session = session
        pipeline, store = session.pipeline, session.problem.train.store
        solver, network = pipeline.solver, session.problem.kernel.network
        size = group_size(pipeline.training.group_chunks, store.chunk_rows, network)
        self.groups = session.in_groups(size, shuffled=True)
        rows = min(size * store.chunk_rows, session.rows)
        self.settings = KFACSettings(
            default_input_damping(network, rows) if solver.proximal is None else solver.proximal,
            solver.output_damping or default_output_damping(network),
            pipeline.training.averaging,
            solver.ridge / session.rows,
            solver.penalize_bias,
        )
        self.model_every = model_every(rows, network)
        self.preconditioners = PreconditionerCache(self.settings)
        self.published: list[tuple[Weights, str]] = []
        self.pending: list[InFlightGroup] = []
        self.numbers = count()
        self.commit_cost, self.last_commit = 0.0, time.monotonic()

    @property
    def weights(self) -> Weights:
        """The weights to evaluate."""
        return self.kfac_state.average

    @property
    def kfac_state(self) -> KFACState:
        """What is remembered from step to step."""
        kfac_state = self.session.state.kfac_state
        assert kfac_state is not None
        return kfac_state

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
        return mu_at(mu_of(self.session.pipeline, network), len(network.widths), self.session.state.passes)

    def actions(self) -> Iterator[Action]:
        """What to do, from the beginning."""
        return kfac_schedule(len(self.groups), self.session.pipeline.training.seed)

    def restore(self, initial: Callable[[RunContext, tuple[int, ...]], Weights]) -> None:
        """Take up the last committed state, and remove what was written after it; or begin with initial weights."""
        run = self.session.run
        run.remove_orphans()
        self.session.weight_store.clear()
        state = run.restore()
        if state is None:
            weights = initial(self.session, self.groups[0])
            state = State(
                weights,
                None,
                np.zeros(0, np.int64),
                kfac_state=self.session.kfac_state or KFACState.start(weights),
            )
            self.session.state = state
            self.commit()
        self.session.state = state

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
        if not isinstance(action, KFACStep):
            return
        # the first step has no curvature to go by until it is done
        ahead = self.session.pipeline.training.max_staleness if self.kfac_state.curvature_updates else 0
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
        gradient = self.kfac_state.gradient
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
        return self.kfac_state.loss_ema

    def _begin(self, action: KFACStep) -> InFlightGroup:
        """Send out a group."""
        session, kfac_state = self.session, self.kfac_state
        session.state.passes = action.number
        with_curvature = curvature_due(kfac_state.steps) or not kfac_state.curvature_updates
        seed = (session.pipeline.training.seed, session.state.cursor) if with_curvature else None
        chunks = self.groups[action.group]
        file = self._publish(session.state.weights)
        step = session.step(session.problem.train, chunks, file)
        with session.span():
            started = session.executor.start(*task_graphs.kfac_sums(step, self.mu, seed, self.model_every))
        ridge = ridge_term(session.state.weights, self.settings.ridge, self.settings.penalize_bias)
        return InFlightGroup(chunks, with_curvature, kfac_state.previous_weights, ridge, started)

    def _finish_first(self) -> None:
        """Take the step of the group that is done first."""
        with activity("wait"):
            index, packed = self.session.executor.first([pending.started for pending in self.pending])
        self._finish(self.pending.pop(index), packed)

    def _finish(self, pending: InFlightGroup, packed: Array) -> None:
        """Move W by what a group says."""
        session, state, kfac_state = self.session, self.session.state, self.kfac_state
        network = session.problem.kernel.network
        sums = KroneckerSums(network.shapes, pending.with_curvature, packed)
        state.visits += session.group_rows(pending.chunks)
        if kfac_state.is_rejected(sums, pending.ridge):
            state.weights = kfac_state.reject_step()
            self._check()
            return
        kfac_state.gradient = sums.gradient_norm(
            state.weights, self.settings.ridge, self.settings.penalize_bias
        )
        kfac_state.update_averages(sums, state.weights, self.settings.averaging, pending.ridge)
        with activity("solve"):
            preconditioner = self.preconditioners.of(kfac_state)
            direction = preconditioner.direction(sums, state.weights)
        weights, previous_weights = self._publish(state.weights), self._publish(pending.previous_weights)
        change = self._put(direction, "step")
        packed = session.compute(
            lambda step: task_graphs.quadratic_model(step, pending.started.kept(), change, previous_weights),
            session.problem.train, pending.chunks, weights,
        )  # fmt: skip
        step_coefficients = preconditioner.step_coefficients(
            QuadraticModel(packed), state.weights, direction, pending.previous_weights
        )
        state.weights = kfac_state.move(state.weights, direction, pending.previous_weights, step_coefficients)
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
        del self.published[: -2 - self.session.pipeline.training.max_staleness]
        return file

    def _put(self, weights: Weights, name: str) -> str:
        keep = KEPT_FILES * (2 + self.session.pipeline.training.max_staleness)
        return self.session.weight_store.publish(
            weights, f"{self.session.key}-{next(self.numbers):08d}-{name}", keep
        )

    def _check(self) -> None:
        if self.kfac_state.rejections > MAX_REJECTIONS:
            raise RunError(
                f"the nested loss diverged: {self.kfac_state.rejections} steps in a row were taken back; "
                "try a larger solver.proximal or solver.output_damping, or scale the samples"
            )


def group_size(wish: int | None, chunk_rows: int, network: Network) -> int:
    """How many chunks make a step."""
    return wish or math.ceil(network.defaults.group_rows / chunk_rows)


def model_every(rows: int, network: Network) -> int:
    """Which part of a group of so many samples the model along the step is measured on: every so many-th."""
    least, every = network.defaults.model_rows, network.defaults.model_every
    return max(1, min(every, rows // least), math.ceil(rows / MODEL_ROWS))
