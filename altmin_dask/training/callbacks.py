"""Whoever is told how training goes: the terminal, the dashboard, the report, scikit-learn's callbacks.

Training knows none of them: `altmin_dask.runs.train` brings them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from altmin_dask.training.context import RunContext
from altmin_dask.training.ending import Ending
from altmin_dask.training.progress import Progress
from altmin_dask.training.record import Record
from altmin_dask.training.result import Result


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes
    ----------
    reason : str
        Why, as a sentence.
    records : tuple of Record
        The whole history; empty after an error.
    error : BaseException or None
        What it ended with.
    result : Result or None
        The model that is kept, and why training ended; None where there is no model, or it could not be evaluated.
    ending : Ending or None
        Why training ended, for programs; None after an error.
    """

    reason: str
    records: tuple[Record, ...] = ()
    error: BaseException | None = None
    result: Result | None = None
    ending: Ending | None = None


class Callback:
    """Told what happens in a run; nothing happens unless a method says so."""

    def on_start(self, context: RunContext) -> None:
        """Training is about to begin, or to go on from the last commit, with which the history ends."""

    def on_progress(self, progress: Progress) -> None:
        """A group was done."""

    def on_record(self, record: Record) -> None:
        """A record was committed, and of the best one the model."""

    def on_end(self, outcome: Outcome) -> None:
        """Training ended; told once to each that was told of the start."""


class Callbacks(Callback):
    """All of several callbacks, one after the other."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = tuple(callbacks)
        self.started: list[Callback] = []

    def on_start(self, context: RunContext) -> None:
        """Tell each."""
        for callback in self.callbacks:
            self.started.append(callback)
            callback.on_start(context)

    def on_progress(self, progress: Progress) -> None:
        """Tell each."""
        for callback in self.callbacks:
            callback.on_progress(progress)

    def on_record(self, record: Record) -> None:
        """Tell each."""
        for callback in self.callbacks:
            callback.on_record(record)

    def on_end(self, outcome: Outcome) -> None:
        """Tell each that was told of the start, also when one of them fails."""
        while self.started:
            callback = self.started.pop(0)
            try:
                callback.on_end(outcome)
            except BaseException:
                self.on_end(outcome)
                raise
