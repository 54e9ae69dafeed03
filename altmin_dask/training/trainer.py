"""The training loop: carries out a schedule's actions, records what comes of them, commits, and stops in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from altmin_dask.errors import DataError, RunError
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.faults import LOST, explained_faults
from altmin_dask.execution.interrupts import deferred_interrupts
from altmin_dask.execution.timing import seconds_spent
from altmin_dask.format import duration
from altmin_dask.solvers.evaluation import Evaluation
from altmin_dask.solvers.measures import MOST_RECORDED
from altmin_dask.solvers.statistics import ridge_term
from altmin_dask.storage.model import Model
from altmin_dask.training.algorithm import Algorithm, advance
from altmin_dask.training.algorithms import ALGORITHMS, restore
from altmin_dask.training.callbacks import Callback
from altmin_dask.training.checkpoint import Checkpoint
from altmin_dask.training.context import RunContext
from altmin_dask.training.ending import (
    LIMITS,
    Ending,
    nothing_improved,
    seconds_are_spent,
    settled,
    sweeps_are_done,
)
from altmin_dask.training.grouping import all_rows
from altmin_dask.training.initialization import given_weights, initial_weights
from altmin_dask.training.progress import Progress, Rate
from altmin_dask.training.record import Record, lists, read_records, single_numbers
from altmin_dask.training.result import Result, read_result, write_result
from altmin_dask.types import Weights

DIVERGED = 10.0
"""A loss, its ridge included, that is this multiple of the best one, and higher than the first, is divergence."""
_TOO_LARGE = (
    "no step was taken yet, so samples or targets are too large, or too small: divide them (data.scale)"
)
MOST_RETRIES = 3
"""How often training begins again at a commit, however far it gets without another one."""
COMMIT_SECONDS = 2.0
COMMIT_SHARE = 0.05
"""Where steps need no commit, commits are so far apart, and further where they would take more than this share of the
time: what is lost in between is done again, to the same bits."""


class Trainer:
    """One run, from its last committed state on.

    Parameters
    ----------
    context : RunContext
        The settings, the data, the claimed folder, and where the tasks run.
    callback : Callback
        Told about progress and records.
    initial : tuple of ndarray, optional
        Weights that a new run begins with, in place of those of ``[network] initialization``.
    """

    def __init__(self, context: RunContext, callback: Callback, initial: Weights | None = None) -> None:
        self.context, self.callback = context, callback
        self.initial = initial_weights if initial is None else given_weights(initial)
        self.pipeline, self.problem, self.run = context.pipeline, context.problem, context.run
        self.algorithm: Algorithm[Any] = ALGORITHMS[context.settings.schedule](context)
        self.ended: Ending | None = None
        self.acted = False
        self.kept_record = -1
        self.kept_quality: Evaluation | None = None
        self.known: Result | None = None
        self.rows, self.evaluated = context.rows, context.evaluated
        self.commit_cost, self.last_commit, self.committed_seconds = 0.0, time.monotonic(), 0.0
        self.found: Checkpoint | None = None
        self.group = 0
        self.rate: Rate | None = None  # until the loop begins
        self.begun, self.evaluation_seconds = time.monotonic(), 0.0

    @property
    def checkpoint(self) -> Checkpoint:
        """Where training is."""
        return self.context.checkpoint

    def train(self) -> list[Record]:
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
            self.context.start_clock()
            self.context.executor.report_waits(self._wait)
            self._through(check_interrupted)
            self.context.weight_store.clear()
        return read_records(self.run)

    def result(self, ending: Ending) -> Result | None:
        """Measure and write down what came of it (`training.result.write_result`); None before there is a model.

        Raises
        ------
        FaultError
            If what the model is to be measured with has failed.
        """
        if self.kept_record < 0:
            return None
        if self.known is not None and not self.acted and ending == self.known.stopped:
            return self.known  # of a run that was done before
        records = read_records(self.run, whole=True)
        found = self.kept_record, self.kept_quality, self.known
        with explained_faults(str(self.run.path)), single_threaded_blas():
            return write_result(self.context, ending, records, *found)

    @property
    def judging(self) -> str:
        """Which samples decide."""
        return "training" if self.problem.validation is None else "validation"

    @property
    def knows_quality(self) -> bool:
        """Whether there is a model of which a record has said how good it is, and maybe no more."""
        return self.kept_record >= 0 and self.kept_quality is not None

    @property
    def has_to_measure(self) -> bool:
        """Whether records have not said all that is measured of the model."""
        quality = self.kept_quality
        return quality is None or quality.measure != self.context.measuring.measure

    def sentence(self, ending: Ending, records: Sequence[Record]) -> str:
        """Why training ended, and which model it leaves."""
        sweep = records[self.kept_record].sweep
        judged = self.problem.validation is not None
        name = "validation loss" if judged else "nested loss"
        name += " and ridge" if not judged and self.context.settings.ridge else ""
        return f"{ending.text}; the model is that of sweep {sweep:.4g}, with the lowest {name}"

    @property
    def time_taken(self) -> str:
        """How much of the time since this process began to train went into records, as a sentence."""
        whole = time.monotonic() - self.begun
        show = duration if whole >= 60 else "{:.1f} s".format
        return f"evaluation took {show(self.evaluation_seconds)} of {show(whole)}"

    def take_up(self) -> None:
        """Bring the run back to its last commit, before anybody looks at what else a kill has left.

        Raises
        ------
        DataError
            If the commit is damaged.
        FaultError
            If the disk fails.
        """
        with explained_faults(str(self.run.path)):
            self.run.remove_orphans()
            self.context.weight_store.clear()
            self.found = restore(self.run)
            self.known = read_result(self.run)

    def begin(self) -> None:
        """Go on from the commit that was taken up, or make the first one."""
        if self.found is None:
            self.algorithm.init(self.initial)
            self._commit()
        else:
            self.context.checkpoint = self.found
            self.kept_record, self.kept_quality = self.found.model, None
            self.committed_seconds = self.found.cpu_seconds
            self.algorithm.restore(self.found.algorithm_state)
            self.found = None

    def _through(self, check_interrupted: Callable[[], None]) -> None:
        """Train to the end, from the last commit again where what a cluster was at is lost."""
        at: int | None = None
        times = 0
        while True:
            commit = -1 if self.found is None else self.found.cursor
            at, times = commit, (times + 1 if commit == at else 0)
            try:
                self.begin()
                self._loop(check_interrupted)
                return
            except (*LOST, OSError) as error:
                check_interrupted()
                if times >= MOST_RETRIES or not self.context.executor.recovers(error):
                    raise
            self.context.begin_anew()
            self.algorithm = ALGORITHMS[self.context.settings.schedule](self.context)
            self.context.checkpoint = Checkpoint()
            self.take_up()
            self.context.start_clock()

    def _loop(self, check_interrupted: Callable[[], None]) -> None:
        """Carry out actions until there is a reason to stop, then record where that is."""
        checkpoint, algorithm = self.checkpoint, self.algorithm
        self.rate, self.spent_before = Rate(time.monotonic(), checkpoint.visits), seconds_spent()
        records = read_records(self.run)
        self.last = records[-1] if records else None
        # a run that is resumed with nothing left to do is not recorded once more, nor changed in any way
        recorded_at = round(self.last.sweep * self.rows) if self.last else -1
        acted = False
        for action in islice(algorithm.actions(), checkpoint.cursor, None):
            if action.kind == "record":
                checkpoint.cursor += 1
                self._record()
                recorded_at = checkpoint.visits
            elif reason := self._reason_to_stop():
                self.ended = reason
                break
            else:
                if not acted:
                    self.run.remove_result()
                visits = advance(self.context, algorithm, action)
                if visits:
                    self.group = getattr(action, "group", 0)
                    self._show()
                acted = self.acted = True
                if not (algorithm.commits_every_step or self._commit_is_due()):
                    continue
                self._commit()
            check_interrupted()
        self._drain()
        if not self.acted and self.known is not None and self.known.stopped.reason in LIMITS:
            self.ended = self.known.stopped  # long before another limit, which is met as well
        if recorded_at != checkpoint.visits:
            self._record()
        elif acted or self._spent_uncommitted():  # the limit that was met holds for whoever resumes
            self._commit()

    def _spent_uncommitted(self) -> bool:
        """Whether the seconds have been spent since the last commit."""
        limit = self.pipeline.training.max_cpu_seconds
        return limit is not None and self.committed_seconds < limit <= self.checkpoint.cpu_seconds

    def _reason_to_stop(self) -> Ending | None:
        """Why training ends here; None as long as it goes on."""
        limits, checkpoint = self.pipeline.training, self.checkpoint
        if limits.max_cpu_seconds is not None:
            self.context.charge()
            if checkpoint.cpu_seconds >= limits.max_cpu_seconds:
                return seconds_are_spent(limits.max_cpu_seconds)
        stale = checkpoint.records - 1 - checkpoint.best_record
        # records are close together at first: samples that no step has seen yet may still make a difference
        seen = checkpoint.visits - checkpoint.best_visits >= self.rows
        if limits.n_iter_no_change is not None and stale >= limits.n_iter_no_change and seen:
            return nothing_improved(limits.n_iter_no_change)
        if self.algorithm.converged:
            return settled()
        if checkpoint.visits + self.algorithm.pending_samples >= self.context.settings.max_sweeps * self.rows:
            done = checkpoint.visits / self.rows  # more, where the limit is another one than before
            return sweeps_are_done(max(self.context.settings.max_sweeps, math.floor(done)))
        return None

    def _drain(self) -> None:
        """Finish what is pending."""
        self.checkpoint.visits += self.algorithm.drain()

    def _commit(self) -> None:
        """Make the state the one to go on from, with all that is pending."""
        self._drain()
        start = time.monotonic()
        file = self.context.commit(self.algorithm.state)
        self.last_commit, self.committed_seconds = time.monotonic(), self.checkpoint.cpu_seconds
        self.commit_cost = self.last_commit - start
        self.algorithm.committed(file)

    def _commit_is_due(self) -> bool:
        """Whether to commit now, though nothing but time would be lost."""
        since = time.monotonic() - self.last_commit
        return since > max(COMMIT_SECONDS, self.commit_cost / COMMIT_SHARE)

    def _record(self) -> None:
        """Evaluate the network and commit a record, of the best one also the model; only the commit is on the clock."""
        self._drain()
        with self.context.off_the_clock():
            start = time.monotonic()
            record, quality = self._evaluate()
            self.evaluation_seconds += time.monotonic() - start
        self._commit()
        if self.checkpoint.model != self.kept_record:
            self.kept_record, self.kept_quality = self.checkpoint.model, quality
        with self.context.off_the_clock():  # whoever is told may look at the model
            self.callback.on_record(record)

    def _evaluate(self) -> tuple[Record, Evaluation | None]:
        """Make a record, and of the best one the model, for the next commit; and what it is judged by, if all of it."""
        checkpoint, problem = self.checkpoint, self.problem
        nested, validation = self._measured()
        if self.algorithm.tentative and not math.isfinite((validation or nested).mean_loss):
            self.algorithm.leave_last_out()
            nested, validation = self._measured()
        if not (validation or nested).counted:
            store = (problem.validation or problem.train).store
            raise DataError(
                f"of {store.title}, which tells how good the model is, nothing counts: all weights are 0, or no step "
                "has a label; give other samples"
            )
        ridge = self._ridge()
        self._check((validation or nested).mean_loss, ridge)
        labels = problem.train.target == "labels"
        measured = self.context.measuring.metrics(validation) if validation else {}
        record = Record(
            sweep=checkpoint.visits / self.rows,
            cpu_seconds=checkpoint.cpu_seconds,
            wall_seconds=checkpoint.wall_seconds,
            nested_loss=nested.mean_loss,
            regularized_loss=nested.mean_loss + ridge / self.context.samples_in_all,
            validation_loss=validation.mean_loss if validation else None,
            nested_accuracy=nested.accuracy if labels and nested.counted else None,
            validation_accuracy=measured.get("accuracy"),
            validation_r2=measured.get("r2"),
            validation_metrics=single_numbers(measured),
            validation_each=lists(measured, MOST_RECORDED),
            **vars(self.algorithm.metrics.in_unit(problem.train.standard.loss_unit)),
        )
        self._judge(record)
        self.last = record
        checkpoint.history_bytes = self.run.append(record.to_dict())
        return record, validation

    def _measured(self) -> tuple[Evaluation, Evaluation | None]:
        """Quality on training samples, and on all for validation."""
        problem, file = self.problem, self.algorithm.publish()
        nested = self.context.evaluate(problem.given, self.evaluated, file)
        if problem.validation is None:
            return nested, None
        every = all_rows(problem.validation.store)
        measure = self.context.measuring.measure.for_records
        return nested, self.context.evaluate(problem.validation, every, file, measure)

    def _judge(self, record: Record) -> None:
        """Count a record, and write the model of the best one beside its place."""
        checkpoint, problem = self.checkpoint, self.problem
        # what is minimised decides, where no other samples do
        loss = record.regularized_loss if record.validation_loss is None else record.validation_loss
        if checkpoint.best is None or loss < checkpoint.best:
            model = Model(
                self.pipeline.network.kind,
                problem.task_context.network,
                problem.fold(self.algorithm.weights),
                problem.train.store.sample_shape,
                problem.scale,
                problem.preparation,
                "lengths" in problem.train.store.sequence_arrays,
                problem.units,
            )
            model.stage(self.run.model, checkpoint.records)
            checkpoint.model = checkpoint.records
            if checkpoint.best is None or loss < (1 - self.pipeline.training.tol) * checkpoint.best:
                checkpoint.best_record, checkpoint.best_visits = checkpoint.records, checkpoint.visits
            checkpoint.best = loss
        checkpoint.records += 1

    def _ridge(self) -> float:
        """λ Σ ‖W̃_i‖² of the weights that are evaluated, in the unit of their loss."""
        penalize_bias = self.pipeline.solver.penalize_bias
        ridge = ridge_term(self.algorithm.weights, self.context.settings.ridge, penalize_bias)
        return float(ridge) * self.problem.train.standard.loss_unit

    def _check(self, loss: float, ridge: float) -> None:
        """Refuse a loss that is not finite, or far beyond the best and the first.

        All of them with the ridge, shared by the samples that are in the sums now: what a large one shrinks has a
        higher loss in the end, and is no divergence.
        """
        checkpoint, here = self.checkpoint, [float(loss), ridge]
        rows = (self.algorithm.samples_in_sum or self.rows) * self.problem.train.store.mean_weight

        def regularized(mark: list[float]) -> float:
            return mark[0] + mark[1] / rows

        first, best = checkpoint.marks or (here, here)
        limit = max(DIVERGED * regularized(best), regularized(first))
        if self.algorithm.tentative:
            limit = math.inf
        if math.isfinite(regularized(here)) and regularized(here) <= limit:
            checkpoint.marks = [first, min(best, here, key=regularized)]
            return
        kept = "" if checkpoint.best is None else f"; the model is the best till then, with {best[0]:.6g}"
        raise RunError(
            f"the nested loss diverged: it is {loss:.6g} after {checkpoint.visits / self.rows:.3g} sweeps{kept}; "
            f"{f'try {self.algorithm.remedy}' if checkpoint.visits else _TOO_LARGE}"
        )

    def _wait(self, waiting: str) -> None:
        """Tell that a step takes long: what it waits for, if it does not run."""
        if self.rate is not None:
            self._show(waiting)

    def _show(self, waiting: str = "") -> None:
        """Tell of progress."""
        assert self.rate is not None
        checkpoint, limits, now = self.checkpoint, self.pipeline.training, time.monotonic()
        self.rate.add(now, checkpoint.visits)
        rate = self.rate.value(now)
        rest = self.context.settings.max_sweeps * self.rows - checkpoint.visits
        left = rest / rate if rate else math.inf
        if limits.max_cpu_seconds is not None and checkpoint.cpu_seconds > 0 and not waiting:
            spent = checkpoint.wall_seconds / checkpoint.cpu_seconds
            left = min(left, (limits.max_cpu_seconds - checkpoint.cpu_seconds) * spent)
        seconds = {name: value - self.spent_before.get(name, 0.0) for name, value in seconds_spent().items()}
        self.callback.on_progress(
            Progress(
                sweep=checkpoint.visits / self.rows,
                max_sweeps=self.context.settings.max_sweeps,
                group=self.group + 1,
                groups=self.algorithm.group_count,
                relaxed_objective=self.algorithm.objective * self.problem.train.standard.loss_unit,
                nested_loss=self.last.nested_loss if self.last else None,
                validation_loss=self.last.validation_loss if self.last else None,
                cpu_seconds=checkpoint.cpu_seconds,
                seconds_left=max(left, 0.0),
                rows_per_second=rate,
                usage=self.context.usage(seconds),
                waiting=waiting,
            )
        )
