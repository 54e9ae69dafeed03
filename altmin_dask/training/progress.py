"""What a run tells whoever watches it, and the time it has taken."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from altmin_dask.execution.executor import Executor


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever watches it.

    Attributes
    ----------
    sweep, max_sweeps : float
        Sample visits per sample, so far and at the end.
    group, groups : int
        Group of chunks within the current pass, and groups in the sums.
    relaxed_objective : float
        Mean F_k of the last group after its z-update.
    nested_loss, validation_loss : float or None
        Of the last record.
    cpu_seconds, seconds_left : float
        CPU seconds of training so far; estimate of the wall seconds to the end.
    rows_per_second : float
        Samples visited in a second of training, since this process began.
    seconds : dict of str to float
        What this process has spent its time with: `altmin_dask.execution.timing`.
    memory : tuple of (str, float, float)
        Name, bytes in use and limit (0 for none) of every process that computes, as far as it is known.
    planned_memory : float or None
        Bytes that one of them needs at most, as planned.
    """

    sweep: float
    max_sweeps: float
    group: int
    groups: int
    relaxed_objective: float
    nested_loss: float | None
    validation_loss: float | None
    cpu_seconds: float
    seconds_left: float
    rows_per_second: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    memory: tuple[tuple[str, float, float], ...] = ()
    planned_memory: float | None = None


class Observer(Protocol):
    """Told what happens in a run."""

    def progressed(self, progress: Progress) -> None:
        """A group was done."""

    def recorded(self, record: dict[str, Any]) -> None:
        """A record was added to the history."""


class Unwatched:
    """Nobody watches."""

    def progressed(self, progress: Progress) -> None:
        """Nothing happens."""

    def recorded(self, record: dict[str, Any]) -> None:
        """Nothing happens."""


@dataclass(frozen=True)
class Clock:
    """Two times at one moment: CPU seconds of all processes that take part, and wall seconds."""

    cpu: float
    wall: float

    @classmethod
    def now(cls, executor: Executor) -> Clock:
        """Read both."""
        return cls(executor.cpu_seconds(), time.perf_counter())
