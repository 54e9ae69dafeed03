"""Training by K-FAC steps: no z is kept, and W moves after every group of chunks (`altmin_dask.solvers.kfac`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from altmin_dask.errors import RunError
from altmin_dask.execution import task_graphs
from altmin_dask.execution.executor import Submission
from altmin_dask.execution.pieces import Cut, total
from altmin_dask.execution.timing import activity
from altmin_dask.solvers.kfac import KFACSettings, KFACState
from altmin_dask.solvers.kfac_step import Sent, Stepper
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.local_steps import arrays_of, mean_of, packed_numbers, state_of
from altmin_dask.solvers.preconditioner import PreconditionerCache
from altmin_dask.solvers.schedules import Action, KFACStep, kfac_schedule
from altmin_dask.storage.model import layer_tensors, layers_of
from altmin_dask.training.algorithm import Initial
from altmin_dask.training.checkpoint import AlgorithmState
from altmin_dask.training.context import RunContext
from altmin_dask.training.grouping import RowGroup, groups_of
from altmin_dask.training.local_levels import local_steps
from altmin_dask.training.record import Metrics
from altmin_dask.training.step_sizes import may_join
from altmin_dask.training.together import Pace, Waiting, turn
from altmin_dask.training.weight_files import WeightFiles
from altmin_dask.training.wide_inputs import forms_of, row_numbers, row_space
from altmin_dask.types import Array, Weights

WORTH_THREADS = 2e7
"""Products of numbers in a solve from which on it is worth beginning threads for it."""
EVALUATIONS_IN_A_STEP = 3.0
"""So many rows are evaluated in the time in which one is part of a step (784-300-784: 13 and 40 µs; 784-256-256-10: 6
and 19; deep nets more)."""
MAX_REJECTIONS = 20
"""After so many steps taken back in a row, training has diverged."""


@dataclass(frozen=True)
class InFlightGroup:
    """A group that was sent out.

    Attributes
    ----------
    group : RowGroup
        Which rows they are.
    cut : Cut
        How they are shared by tasks.
    with_curvature : bool
        Whether its curvature is measured.
    sent : Sent
        The weights before those that it was sent out with, and the ridge of these.
    started : Started
        What to wait for; it keeps the samples of the probe.
    weights_file : str
        Where its tasks read the weights that it was sent out with.
    """

    group: RowGroup
    cut: Cut
    with_curvature: bool
    sent: Sent
    started: Submission
    weights_file: str


@dataclass(frozen=True)
class Asked:
    """A group while a step is taken on it: what `altmin_dask.solvers.kfac_step.StepSamples` wants."""

    training: KFACTraining
    group: InFlightGroup

    def loss(self, weights: Weights) -> float:
        """Of all its rows."""
        return self.training.loss(self.group.group, weights)

    def model(self, direction: Weights, repeated: Weights) -> QuadraticModel:
        """On the part of its samples that was kept, by tasks that know the weights before these."""
        return self.training.quadratic_model(self.group, direction)


@dataclass
class KFACTrainingState:
    """What K-FAC training is at one moment, with no group in flight.

    Attributes
    ----------
    weights : tuple of ndarray, (d_i, d_{i−1} + 1)
        W̃_1 … W̃_L, from which the next step starts.
    kfac_state : KFACState
        What is remembered from step to step.
    passes : int
        Number of the current pass over all groups.
    """

    name: ClassVar[str] = "kfac"
    weights: Weights
    kfac_state: KFACState
    passes: int = 0

    def to_tensors(self) -> dict[str, Array]:
        """All arrays by name."""
        return {**layer_tensors(self.weights), **dict(self.kfac_state.tensors())}

    def to_scalars(self) -> dict[str, Any]:
        """All that is no array."""
        return {"passes": self.passes, "kfac_state": self.kfac_state.scalars()}

    @classmethod
    def restore(cls, tensors: dict[str, Array], scalars: dict[str, Any]) -> Self:
        """Undo both."""
        kfac_state = KFACState.restore(tensors, scalars["kfac_state"])
        return cls(layers_of(tensors), kfac_state, scalars["passes"])


class KFACTraining:
    """Steps of W from the groups of `kfac_schedule`, one after the other, or as they finish."""

    state_type: ClassVar[type[AlgorithmState]] = KFACTrainingState
    commits_every_step: ClassVar[bool] = False
    state: KFACTrainingState

    def __init__(self, context: RunContext) -> None:
        self.context = context
        pipeline, settings = context.pipeline, context.settings
        assert settings.output_damping is not None
        assert settings.weight_decay is not None
        assert settings.loss_powers is not None
        assert settings.model_every is not None
        self.groups = groups_of(context.problem.train.store, settings.group_chunks, pipeline.training.seed)
        damping_power, decay_power = settings.loss_powers
        self.settings = KFACSettings(
            settings.proximal,
            settings.output_damping,
            averaging=pipeline.training.averaging,
            ridge=settings.ridge / context.samples_in_all,
            weight_decay=settings.weight_decay,
            damping_power=damping_power,
            decay_power=decay_power,
            penalize_bias=pipeline.solver.penalize_bias,
        )
        assert settings.pieces is not None
        self.model_every, self.cut = settings.model_every, Cut(settings.pieces)
        work = sum(d * k * (d + k) for d, k in context.network.shapes)
        # of wide samples the first layer's solve is most of it, and its arrays are what memory is needed for
        together = work > WORTH_THREADS and not forms_of(context).rows
        preconditioners = PreconditionerCache(self.settings, context.executor.each if together else map)
        self.max_staleness = pipeline.training.max_staleness
        self.stepper = Stepper(
            self.settings,
            preconditioners,
            tries=not self.max_staleness,
            exact_slopes=settings.mu is None and not self.max_staleness,
            activity=activity,
        )
        self.local = local_steps(context, self.settings)
        self.in_flight: list[InFlightGroup] = []
        self.waiting: list[Waiting] = []
        self.pace = Pace() if self._may_join() else None
        self.files = WeightFiles(
            context, 2 + self.max_staleness, lambda: [group.weights_file for group in self.in_flight]
        )
        self.left_out: Weights | None = None
        """Weights that a last step led to, which are in no mean as they give no finite loss."""

    def _may_join(self) -> bool:
        """Whether a task may take several steps, and there are tasks elsewhere."""
        context, settings = self.context, self.context.settings
        sizes = settings.group_chunks, settings.chunk_steps or 1, self.max_staleness
        return context.executor.client is not None and may_join(context.network, forms_of(context), *sizes)

    @property
    def remedy(self) -> str:
        """Settings to try when training diverges."""
        mu = "" if self.mu is None else "solver.mu, "
        return f"a larger {mu}solver.proximal, solver.output_damping or solver.ridge"

    @property
    def weights(self) -> Weights:
        """The weights to evaluate: the running mean."""
        kfac_state = self.state.kfac_state
        if self.left_out is self.state.weights or not self.tentative:
            return kfac_state.average
        return kfac_state.averaged(self.state.weights, self.settings.averaging)

    @property
    def pending_samples(self) -> int:
        """Samples of groups that were sent out, or wait."""
        store = self.context.problem.train.store
        waiting = sum(self.groups[each.action.group].rows(store) for each in self.waiting)
        return waiting + sum(map(self._rows, self.in_flight))

    @property
    def samples_in_sum(self) -> float:
        """All of them: the loss is a mean over the samples."""
        return float(self.context.rows if self.context.checkpoint.visits else 0)

    @property
    def group_count(self) -> int:
        """How many groups there are."""
        return len(self.groups)

    @property
    def mu(self) -> tuple[float, ...] | None:
        """μ_1 … μ_L of the current pass; None for μ → ∞."""
        return self.context.settings.mu_in_pass(len(self.state.weights), self.state.passes)

    @property
    def metrics(self) -> Metrics:
        """What a record says besides the nested loss: there is no F of all samples without their z."""
        gradient = self.state.kfac_state.gradient
        return Metrics(
            mu=self.mu,
            gradient_norm=None if math.isnan(gradient) else gradient,
            samples_in_sum=int(self.samples_in_sum),
        )

    @property
    def converged(self) -> bool:
        """Never: a loss that does not improve any more ends it."""
        return False

    @property
    def tentative(self) -> bool:
        """While the last step is evaluated at once, before a group has judged it."""
        return self.context.stream is not None or self.state.kfac_state.young

    def leave_last_out(self) -> None:
        """Evaluate the mean without the last step."""
        self.left_out = self.state.weights

    @property
    def objective(self) -> float:
        """Mean loss of the last groups, the ridge included."""
        return self.state.kfac_state.loss_ema

    def init(self, initial: Initial) -> None:
        """Begin with initial weights, or with what earlier steps on other samples remember."""
        weights = initial(self.context, self.groups[0])
        remembered = None if self.context.stream is None else self.context.stream.state
        forms = forms_of(self.context)
        begun = KFACState.start(weights, forms) if remembered is None else remembered.on_rows(forms)
        if math.isnan(begun.first_loss):
            begun.first_loss = self.context.first_loss / self.context.problem.train.standard.loss_unit
        self.state = KFACTrainingState(weights, begun)

    def restore(self, state: KFACTrainingState) -> None:
        """Take up a committed state, with its factors in the forms that it has them."""
        rows = state.kfac_state.forms.rows
        if rows not in (0, self.context.rows):
            raise RunError(
                f"the run's state is of {rows} rows, and there are {self.context.rows} now; give it the samples that "
                "it began with, or begin another run"
            )
        self.state = state

    def actions(self) -> Iterator[Action]:
        """What to do, from the beginning."""
        training = self.context.pipeline.training
        # in steps, of which a row takes about three times as long as an evaluation of it
        record = self.context.rows_of_a_record / (
            EVALUATIONS_IN_A_STEP * self.context.rows / len(self.groups)
        )
        return kfac_schedule(len(self.groups), training.seed, record / training.evaluation_share)

    def step(self, action: Action, cursor: int) -> int:
        """Send a group out, and take the steps of those that are done, or that it may not be ahead of."""
        assert action.kind == "step"  # the only action of `kfac_schedule` but records
        if self.local.several:
            return self._round(action, cursor)
        if self.pace is not None:
            self.waiting.append(Waiting(action, cursor))
            return self._take_waiting() if len(self.waiting) >= self.pace.together else 0
        return self._send(action, cursor)

    def _send(self, action: KFACStep, cursor: int) -> int:
        """Send a group out, and take steps."""
        # the first step has no curvature to go by until it is done
        ahead = 0 if self.state.kfac_state.lacks_inputs else self.max_staleness
        with self._cancelling():
            self.in_flight.append(self._begin(action, cursor))
            return self._finish_until(ahead)

    def _round(self, action: KFACStep, cursor: int) -> int:
        """Let the chunks of a group be gone through in several steps each, and go on from the mean of the results."""
        state, context, group = self.state, self.context, self.groups[action.group]
        state.passes = action.number
        before = arrays_of(state.weights, state.kfac_state)
        make = partial(
            task_graphs.local_steps,
            columns=packed_numbers(before),
            mu=self.mu,
            seed=(context.pipeline.training.seed, cursor),
            how=self.local,
            each=context.executor.beside(len(group.blocks)),
        )
        file = self.files.put(before, "state")
        found = context.compute(make, context.problem.train, group, file)
        state.weights, state.kfac_state = state_of(mean_of(found, before))
        self._check()
        return group.rows(context.problem.train.store)

    def _take_waiting(self) -> int:
        """Take the steps that wait, in one task if they are several."""
        waiting, self.waiting = self.waiting, []
        assert self.pace is not None
        with self.pace.timed(len(waiting)):
            if len(waiting) == 1:
                return self._send(waiting[0].action, waiting[0].cursor)
            return self._series(waiting)

    def _series(self, waiting: Sequence[Waiting]) -> int:
        """Let one task take the steps of several groups."""
        state, context, store = self.state, self.context, self.context.problem.train.store
        turns = [turn(context, self.groups[each.action.group], each, self.model_every) for each in waiting]
        state.passes = waiting[-1].action.number
        before = arrays_of(state.weights, state.kfac_state)
        file = self.files.put(before, "state")
        key, columns = f"{context.key}-{waiting[0].cursor}", packed_numbers(before)
        with context.span():
            graph = task_graphs.series(
                context.problem.task_context, tuple(turns), file, self.settings, columns, key
            )
            with activity("wait"):
                found = context.executor.compute(graph)
        state.weights, state.kfac_state = state_of(mean_of(found[0], before))
        self._check()
        return sum(self.groups[each.action.group].rows(store) for each in waiting)

    def drain(self) -> int:
        """Take the steps that wait, and of all groups that are in flight."""
        taken = self._take_waiting() if self.waiting else 0
        with self._cancelling():
            return taken + self._finish_until(0)

    def committed(self, file: str) -> None:
        """Nothing is left behind by a commit."""

    def publish(self) -> str:
        """The file of the weights to evaluate."""
        return self.files.put(self.context.problem.fold(self.weights), "mean")

    def _begin(self, action: KFACStep, cursor: int) -> InFlightGroup:
        """Send out a group."""
        context, state, kfac_state = self.context, self.state, self.state.kfac_state
        state.passes = action.number
        with_curvature = kfac_state.curvature_due
        seed = (context.pipeline.training.seed, cursor) if with_curvature else None
        group = self.groups[action.group]
        cut = self.cut.among(len(group.blocks), context.executor.places())
        file = self.files.of(state.weights)
        step = context.step(context.problem.train, group, file, cut)
        with context.span():
            graphs = task_graphs.kfac_sums(step, self.mu, seed, self.model_every, kfac_state.forms)
            started = context.executor.submit(*graphs)
        sent = Sent(kfac_state.previous_weights, self.stepper.ridge(state.weights))
        return InFlightGroup(group, cut, with_curvature, sent, started, file)

    def _finish_until(self, ahead: int) -> int:
        """Take steps, of the groups that are done first, until no more than `ahead` are in flight; samples visited."""
        visits = 0
        while len(self.in_flight) > ahead:
            with activity("wait"):
                index, blocks = self.context.executor.first([group.started for group in self.in_flight])
            group = self.in_flight.pop(index)
            self._finish(group, total(blocks))
            visits += self._rows(group)
        return visits

    def _finish(self, group: InFlightGroup, packed: Array) -> None:
        """Move W by what a group says."""
        state, kfac_state = self.state, self.state.kfac_state
        sums = KroneckerSums(
            self.context.network.shapes, group.with_curvature, packed, forms=kfac_state.forms
        )
        rows = None
        if kfac_state.forms.rows:
            if not self.in_flight:
                # scratch arrays are large, too, and made in no time beside what is computed of wide samples
                self.context.executor.rest()
            known = self.stepper.preconditioners
            rows, known.space = row_numbers(self.context, group.group), known.space or row_space(self.context)
        state.weights = self.stepper.step(
            kfac_state, state.weights, sums, group.sent, Asked(self, group), rows
        )
        self._check()

    def loss(self, group: RowGroup, weights: Weights) -> float:
        """A group's mean loss by some weights."""
        return self.context.evaluate(
            self.context.problem.train, group, self.files.put(weights, "mean")
        ).mean_loss

    def _rows(self, group: InFlightGroup) -> int:
        return group.group.rows(self.context.problem.train.store)

    def quadratic_model(self, group: InFlightGroup, direction: Weights) -> QuadraticModel:
        """The model of the loss along a direction and along the last step, on a part of the group's samples."""
        weights, previous = self.files.of(self.state.weights), self.files.of(group.sent.previous_weights)
        change = self.files.put(direction, "step")
        packed = self.context.compute(
            lambda step: task_graphs.quadratic_model(
                step, group.started.kept(), self.model_every, change, previous
            ),
            self.context.problem.train,
            group.group,
            weights,
            group.cut,
        )
        return QuadraticModel(packed)

    @contextmanager
    def _cancelling(self) -> Iterator[None]:
        """Leave no task behind when something goes wrong."""
        try:
            yield
        except BaseException:
            self.context.executor.cancel([group.started for group in self.in_flight])
            self.in_flight.clear()
            raise

    def _check(self) -> None:
        """Refuse to go on where nothing but rejected steps comes.

        Raises
        ------
        RunError
            If training has diverged.
        """
        rejections = self.state.kfac_state.rejections
        if rejections > MAX_REJECTIONS:
            raise RunError(
                f"the nested loss diverged: {rejections} steps in a row were taken back; "
                f"try {self.remedy}, or samples in other units (data.standardize)"
            )
