"""Where a run is between two records, and what it takes. Like a record it needs nothing of the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


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
        CPU seconds of training so far; estimate of the wall seconds to the end.
    rows_per_second : float
        Samples visited in a second of training, since this process began.
    usage : Usage
        What all this takes.
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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo `dataclasses.asdict`, of JSON, too."""
        usage = dict(values["usage"])
        usage["memory"] = tuple((name, used, limit) for name, used, limit in usage["memory"])
        return cls(**{**values, "usage": Usage(**usage)})
