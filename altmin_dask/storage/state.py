"""Everything that training is at one moment, besides z: what a commit holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from altmin_dask.networks.chain import Weights
from altmin_dask.solvers.statistics import Statistics


@dataclass
class State:
    """Everything that training is at one moment, besides z.

    Attributes
    ----------
    weights : tuple of ndarray
        W̃_1 … W̃_L.
    statistics : Statistics
        The sums over all chunks that have entered.
    generations : ndarray of int64
        Which generation of z is valid for each group; −1 for groups that have not entered.
    cursor : int
        How many actions of the schedule are done.
    passes : int
        Number of the current pass over what is in the sums.
    visits : int
        How many samples were visited by a z-update, repetitions counted.
    cpu_seconds, wall_seconds : float
        Spent on training, evaluation excluded.
    history_bytes : int
        Length of the history that belongs to this state.
    stale : bool
        Whether the statistics are no longer those of z, and have to be summed anew.
    """

    weights: Weights
    statistics: Statistics
    generations: np.ndarray[Any, np.dtype[np.int64]]
    cursor: int = 0
    passes: int = 0
    visits: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    history_bytes: int = 0
    stale: bool = False

    def scalars(self) -> dict[str, int | float]:
        """All that is not an array."""
        return {field.name: getattr(self, field.name) for field in fields(self)[3:]}
