"""Where a run is between two records, and what it takes. Like a record it needs nothing of the package."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

RATE_SECONDS = 30.0
"""Over which samples in a second are measured."""


class Rate:
    """Samples visited in a second, lately: less and less where no more are.

    Parameters
    ----------
    now : float
        When they began, in seconds.
    visits : int
        How many had been visited then.
    """

    def __init__(self, now: float, visits: int) -> None:
        self.marks = deque([(now, visits)])

    def add(self, now: float, visits: int) -> None:
        """So many have been visited by now."""
        if visits != self.marks[-1][1]:
            self.marks.append((now, visits))
        while len(self.marks) > 1 and self.marks[1][0] <= now - RATE_SECONDS:
            self.marks.popleft()

    def value(self, now: float) -> float:
        """How many in a second."""
        since, before = next(
            (mark for mark in reversed(self.marks) if mark[0] <= now - RATE_SECONDS), self.marks[0]
        )
        return (self.marks[-1][1] - before) / max(now - since, 1e-9)


@dataclass(frozen=True)
class Usage:
    """What the processes that take part spend, as far as it is known.

    Attributes
    ----------
    seconds : dict of str to float
        What time was spent with, by activity (`altmin_dask.execution.timing`), since this process began to train.
    memory : tuple of (str, float, float)
        Name, bytes in use and limit (0 for none) of every process that computes.
    planned_memory : float or None
        Bytes that one of them needs at most, as planned.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    memory: tuple[tuple[str, float, float], ...] = ()
    planned_memory: float | None = None


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
        CPU seconds of training so far; estimate of the wall seconds to the end, infinite where nothing goes on.
    rows_per_second : float
        Samples visited in a second, lately.
    usage : Usage
        What all this takes.
    waiting : str
        What is waited for, as "waits for a worker"; empty while it goes on.
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
    usage: Usage = field(default_factory=Usage)
    waiting: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo `dataclasses.asdict`, of JSON, too."""
        usage = dict(values["usage"])
        usage["memory"] = tuple((name, used, limit) for name, used, limit in usage["memory"])
        return cls(**{**values, "usage": Usage(**usage)})
