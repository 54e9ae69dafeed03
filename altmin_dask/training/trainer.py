"""The training loop: carries out a schedule's actions, records what comes of them, and stops in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from altmin_dask.errors import RunError
from altmin_dask.execution import task_graphs
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.faults import explained_faults
from altmin_dask.execution.interrupts import deferred_interrupts
from altmin_dask.execution.timing import seconds_spent
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.schedules import Action, Record
from altmin_dask.solvers.statistics import ridge_term
from altmin_dask.storage.model import Model
from altmin_dask.training.alternating import AlternatingMinimization
from altmin_dask.training.context import RunContext
from altmin_dask.training.initialization import given_weights, initial_weights
from altmin_dask.training.kfac_training import KFACTraining
from altmin_dask.training.progress import Observer, Progress
from altmin_dask.types import Weights

INCREMENT_SWEEPS, INCREMENT_STEPS = 20.0, 300
"""K-FAC steps take so many sweeps, or as many as so many steps take, unless told otherwise."""
DIVERGED = 10.0
"""A loss, its ridge included, that is this multiple of the best one, and higher than the first, is divergence."""


class Algorithm(Protocol):
    """A form of training: what an action is, and what state it leaves."""

    groups: tuple[tuple[int, ...], ...]

    @property
    def weights(self) -> Weights:
        """The weights to evaluate."""

    @property
    def mu(self) -> tuple[float, ...] | None:
        """μ_1 … μ_L now; None for exact constraints."""

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to gain."""

    @property
    def objective(self) -> float:
        """What is shown of F in between records."""

    @property
    def under_way(self) -> int:
        """Samples whose visit has begun and is not over."""

    @property
    def group_count(self) -> int:
        """How many groups a pass takes now."""

    def actions(self) -> Iterator[Action]:
        """What to do, from the beginning."""

    def restore(self, initial: Callable[[RunContext, tuple[int, ...]], Weights]) -> None:
        """Take up the last committed state, or make the first one."""

    def act(self, action: Action) -> None:
        """Carry out an action that is no record."""

    def drain(self) -> None:
        """Finish what is under way."""

    def commit(self) -> None:
        """Make the state the one to go on from."""

    def commit_is_due(self) -> bool:
        """Whether to commit after an action that is no record."""

    def committed(self, action: Action) -> None:
        """Tidy up after an action that was committed."""

    def publish_evaluated(self) -> str:
        """Give the file of the weights to evaluate, when nothing is under way."""

    def describe(self) -> dict[str, Any]:
        """Give the part of a record that only this form knows."""


class Trainer:
    """One run, from its last committed state on.

    Parameters
    ----------
    session : Session
        The settings, the data, the claimed folder, and where the tasks run.
    observer : Observer
        Told about progress and records.
    initial : tuple of ndarray, optional
        Weights that a new run begins with, in place of those of ``[network] initialization``.
    """

    def __init__(self, session: RunContext, observer: Observer, initial: Weights | None = None) -> None:
        self.session, self.observer = session, observer
        self.initial = initial_weights if initial is None else given_weights(initial)
        self.pipeline, self.problem = session.pipeline, session.problem
        self.run, self.executor = session.run, session.executor
        self.form: Algorithm = (KFACTraining if session.pipeline.uses_kfac else AlternatingMinimization)(
            self.session
        )
        self.why = ""
        self.rows, store = session.rows, session.problem.train.store
        order = [chunk for group in self.form.groups for chunk in group]
        wanted = max(1, math.ceil(self.pipeline.training.evaluation_rows / store.chunk_rows))
        self.evaluated = tuple(order[:wanted])

    def train(self) -> list[dict[str, Any]]:
        """Go on until a limit of `[training]` is reached; returns all records of the run.

        Raises
        ------
        RunError
            If the nested loss diverges or the weights stop being finite; the model is the best one till then.
        FaultError
            If a disk, a worker or the scheduler fails.
        ChunkError
            If samples were altered or lost.
        KeyboardInterrupt
            After the step in flight has been committed, or at once if interrupted twice.
        """
        with (
            explained_faults(str(self.run.path)),
            single_threaded_blas(),
            deferred_interrupts() as check_interrupted,
        ):
            self._train(check_interrupted)
        return self.run.records()

    @property
    def max_sweeps(self) -> float:
        """Sample visits per sample after which training ends."""
        wish = self.pipeline.training.max_sweeps
        if wish is not None:
            return wish
        if self.pipeline.uses_kfac:
            return max(INCREMENT_SWEEPS, math.ceil(INCREMENT_STEPS / len(self.form.groups)))
        return PENALTIES[self.pipeline.solver.penalty].sweeps

    def _train(self, check_interrupted: Callable[[], None]) -> None:
        self.session.start_clock()
        self.begun = time.perf_counter()
        self.form.restore(self.initial)
        self.state = self.session.state
        self.visits_before = self.state.visits
        self.spent_before = seconds_spent()
        records = self.run.records()
        self.last, self.first = (records or [{}])[-1], (records or [{}])[0]
        # a run that is resumed with nothing left to do is not recorded once more, nor changed in any way
        recorded_at = round(self.last["sweep"] * self.rows) if self.last else -1
        acted = False
        for action in islice(self.form.actions(), self.state.cursor, None):
            if isinstance(action, Record):
                self.state.cursor += 1
                self._record()
                recorded_at = self.state.visits
            elif self._finished():
                break
            else:
                visits = self.state.visits
                self.form.act(action)
                if self.state.visits > visits:
                    self._show(getattr(action, "group", 0))
                self.state.cursor += 1
                acted = True
                if not self.form.commit_is_due():
                    continue
                self.form.commit()
                self.form.committed(action)
            check_interrupted()
        self.form.drain()
        if recorded_at != self.state.visits:
            self._record()
        elif acted:  # the limit that was met holds for whoever resumes
            self.form.commit()
        self.session.weight_store.clear()

    @property
    def ending(self) -> str:
        """Why training ended, and which model it leaves, as a sentence."""
        loss = "regularized_loss" if self.problem.validation is None else "validation_loss"
        records = self.run.records()
        # histories of earlier versions have no regularized loss
        best = min(records, key=lambda record: record.get(loss, record["nested_loss"]))
        name = "validation loss" if loss == "validation_loss" else "nested loss"
        name += " and ridge" if loss == "regularized_loss" and self.pipeline.solver.ridge else ""
        return f"{self.why}; the model is that of sweep {best['sweep']:.4g}, with the lowest {name}"

    def _finished(self) -> bool:
        limits, state = self.pipeline.training, self.state
        if limits.max_cpu_seconds is not None:
            self.session.charge()
            if state.cpu_seconds >= limits.max_cpu_seconds:
                self.why = f"{limits.max_cpu_seconds:g} CPU seconds are spent"
                return True
        stale = state.records - 1 - state.best_record
        if limits.n_iter_no_change is not None and stale >= limits.n_iter_no_change:
            self.why = f"the loss has not improved in {stale} records"
            return True
        if self.form.settled:
            self.why = "the constraints are met and nothing moves any more (solver.residual_tol)"
            return True
        self.why = f"{self.max_sweeps:g} sweeps are done"
        return state.visits + self.form.under_way >= self.max_sweeps * self.rows

    def _record(self) -> None:
        """Evaluate the network and commit a record, of the best one also the model; only the commit is on the clock."""
        self.form.drain()
        with self.session.off_the_clock():
            record = self._evaluate()
        self.form.commit()
        with self.session.off_the_clock():  # whoever is told may look at the model
            self.observer.recorded(record)

    def _evaluate(self) -> dict[str, Any]:
        """Make a record, and of the best one the model, for the next commit."""
        state, problem = self.state, self.problem
        file = self.form.publish_evaluated()
        nested = self.session.evaluate(task_graphs.evaluate, problem.train, self.evaluated, file)
        validation = None
        if problem.validation is not None:
            chunks = tuple(range(problem.validation.store.n_chunks))
            validation = self.session.evaluate(task_graphs.evaluate, problem.validation, chunks, file)
        ridge = self._ridge()
        self._check((validation or nested).mean_loss, ridge)
        regularized = nested.mean_loss + ridge / self.rows
        # what is minimised decides, where no other samples do
        loss = validation.mean_loss if validation else regularized
        labels, mu = problem.train.target == "labels", self.form.mu
        record: dict[str, Any] = {
            "sweep": state.visits / self.rows,
            "cpu_seconds": state.cpu_seconds,
            "wall_seconds": state.wall_seconds,
            "nested_loss": nested.mean_loss,
            "regularized_loss": regularized,
            "validation_loss": validation and validation.mean_loss,
            "nested_accuracy": nested.accuracy if labels else None,
            "validation_accuracy": validation.accuracy if validation and labels else None,
            "mu": None if mu is None else list(mu),
            **self.form.describe(),
        }
        if state.best is None or loss < state.best:
            Model(
                self.pipeline.network.kind, problem.kernel.network, self.form.weights,
                problem.train.store.sample_shape, problem.scale, problem.preparation,
            ).stage(self.run.model, state.records)  # fmt: skip
            state.model = state.records
            if state.best is None or loss < (1 - self.pipeline.training.tol) * state.best:
                state.best_record = state.records
            state.best = loss
        state.records += 1
        self.last = record
        self.first = self.first or record
        state.history_bytes = self.run.append(record)
        return record

    def _ridge(self) -> float:
        """λ Σ ‖W̃_i‖² of the weights that are evaluated."""
        solver = self.pipeline.solver
        return float(ridge_term(self.form.weights, solver.ridge, solver.penalize_bias))

    def _check(self, loss: float, ridge: float) -> None:
        """Refuse a loss that is not finite, or far beyond the best and the first.

        All of them with the ridge, shared by the samples that are in the sums now: what a large one shrinks has a
        higher loss in the end, and is no divergence.
        """
        state, here = self.state, [float(loss), ridge]
        rows = (0.0 if state.statistics is None else state.statistics.samples) or self.rows

        def regularized(mark: list[float]) -> float:
            return mark[0] + mark[1] / rows

        first, best = state.marks or (here, here)
        limit = max(DIVERGED * regularized(best), regularized(first))
        if math.isfinite(regularized(here)) and regularized(here) <= limit:
            state.marks = [first, min(best, here, key=regularized)]
            return
        kept = "" if state.best is None else f"; the model is the best till then, with {best[0]:.6g}"
        raise RunError(
            f"the nested loss diverged: it is {loss:.6g} after {state.visits / self.rows:.3g} sweeps{kept}; "
            "try a larger solver.mu, solver.ridge or solver.proximal"
        )

    def _show(self, group: int) -> None:
        state, limits = self.state, self.pipeline.training
        done, passed = max(state.visits - self.visits_before, 1), time.perf_counter() - self.begun
        left = (self.max_sweeps * self.rows - state.visits) / done * passed
        if limits.max_cpu_seconds is not None and state.cpu_seconds > 0:
            spent = state.wall_seconds / state.cpu_seconds
            left = min(left, (limits.max_cpu_seconds - state.cpu_seconds) * spent)
        self.observer.progressed(
            Progress(
                state.visits / self.rows, self.max_sweeps, group + 1, self.form.group_count, self.form.objective,
                self.last.get("nested_loss"), self.last.get("validation_loss"), state.cpu_seconds, max(left, 0.0),
                done / max(passed, 1e-9),
                {name: value - self.spent_before.get(name, 0.0) for name, value in seconds_spent().items()},
            )
        )  # fmt: skip
