"""What is told while an estimator is fitted: lines, and scikit-learn's callbacks where it has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from altmin_dask.estimators.convergence import warn_if_falling
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.context import RunContext
from altmin_dask.training.progress import Progress
from altmin_dask.training.record import Record

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before scikit-learn 1.9
    F_ = TypeVar("F_", bound=Callable[..., Any])

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this scikit-learn has no callbacks."""

    def with_callbacks(method: F_) -> F_:
        """The method itself."""
        return method


__all__ = ["CallbackSupportMixin", "FitCallbacks", "Stop", "with_callbacks"]


class Stop(Exception):
    """A callback wants training to end here."""


class FitCallbacks(Callback):
    """Told of progress; prints records if wanted, and makes a callback's task of what lies between two of them.

    Parameters
    ----------
    estimator : AltMinEstimator
        What is fitted.
    learnt : callable
        Gives the fitted attributes of the estimator as they would be if training ended now.
    X, y : array_like
        Samples and targets as they were given.
    callbacks : bool
        Whether callbacks are to be called: not of a single call of many.
    """

    def __init__(
        self, estimator: Any, learnt: Callable[[], dict[str, Any]], X: Any, y: Any, *, callbacks: bool
    ) -> None:
        self.estimator, self.verbose = estimator, estimator.verbose
        self.told: dict[str, Any] = {"estimator": estimator, "X": X, "y": y}
        self.learnt = learnt
        self.root: Any = None
        self.task: Any = None
        self.goes_on = not callbacks or estimator.warm_start
        self.outcome = Outcome("")
        self.context: RunContext | None = None
        if callbacks and hasattr(estimator, "_init_callback_context"):
            self.root = estimator._init_callback_context(max_subtasks=None)
            self.root.call_on_fit_task_begin(**self.told)

    @property
    def first_loss(self) -> float:
        """What the loss was when training began, in the units of the samples; NaN where that is not known."""
        assert self.context is not None  # it has begun
        known = getattr(self.context.checkpoint.algorithm_state, "kfac_state", None)
        return math.nan if known is None else known.first_loss * self.context.problem.train.standard.loss_unit

    def on_start(self, context: RunContext) -> None:
        """Keep what is trained."""
        self.context = context

    def on_progress(self, progress: Progress) -> None:
        """Begin a task, if none is going on."""
        if self.root is not None and self.task is None:
            self.task = self.root.subcontext(task_name="sweeps")
            self.task.call_on_fit_task_begin(**self.told)

    def on_record(self, record: Record) -> None:
        """Print a line, and end the task.

        Raises
        ------
        Stop
            If a callback says so.
        """
        if self.verbose:
            held_out = record.validation_loss
            more = "" if held_out is None else f", held-out loss {held_out:.6g}"
            print(f"sweep {record.sweep:.4g}: loss {record.nested_loss:.6g}{more}")
        task, self.task = self.task, None
        if task is not None and task.call_on_fit_task_end(
            **self.told, metadata={"record": record.to_dict()}, reconstruction_attributes=self.learnt
        ):
            raise Stop

    def on_end(self, outcome: Outcome) -> None:
        """Keep how training ended."""
        self.outcome = outcome

    def ended(self) -> None:
        """End the root task, and tell of a fit that ended too early; not where one goes on by further calls."""
        if self.root is not None:
            self.root.call_on_fit_task_end(**self.told, reconstruction_attributes=self.learnt)
        if not self.goes_on:
            warn_if_falling(type(self.estimator).__name__, self.outcome.ending, self.outcome.records)
