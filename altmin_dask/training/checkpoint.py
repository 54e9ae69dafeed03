"""Everything that training is at one moment, besides z: what a commit holds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from altmin_dask.solvers.admm import ADMMState
from altmin_dask.solvers.kfac import KFACState
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.model import layer_names, layer_tensors
from altmin_dask.types import Array, Weights

_ARRAYS = ("weights", "statistics", "generations", "kfac_state", "splitting")


@dataclass
class State:
    """Everything that training is at one moment, besides z.

    Attributes
    ----------
    weights : tuple of ndarray
        W̃_1 … W̃_L.
    statistics : Statistics or None
        The sums over all chunks that have entered; None where z is not kept.
    generations : ndarray of int64
        Which generation of z is valid for each group; −1 for groups that have not entered.
    cursor : int
        How many actions of the schedule are done.
    passes : int
        Number of the current pass over what is in the sums.
    visits : int
        How many samples were visited by a z-update, repetitions counted.
    cpu_seconds, wall_seconds : float
        Spent on all that led here, evaluation excluded; what was lost by a kill and done again counts once.
    history_bytes : int
        Length of the history that belongs to this state.
    largest_loss : float
        The largest that Σ ℓ in the sums has been: what has been added and taken away since is rounded to it.
    stale : bool
        Whether the statistics are no longer those of z, and have to be summed anew.
    records, best_record : int
        Records of the history, and which of them (from 0) is the best.
    best : float or None
        The lowest loss of a record: of the validation samples if there are any, else of training samples with the
        ridge.
    model : int
        The record that the run's model is of; −1 before the first.
    marks : list of (float, float)
        The loss and λ Σ ‖W̃_i‖² of the first record, and of the best one in view of both; empty before.
    kfac_state : KFACState or None
        What K-FAC steps remember from step to step.
    splitting : ADMMState or None
        What is known of a split penalty besides every sample's own s.
    """

    weights: Weights
    statistics: Statistics | None
    generations: np.ndarray[Any, np.dtype[np.int64]]
    cursor: int = 0
    passes: int = 0
    visits: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    history_bytes: int = 0
    largest_loss: float = 0.0
    stale: bool = False
    records: int = 0
    best_record: int = 0
    best: float | None = None
    model: int = -1
    marks: list[list[float]] = field(default_factory=list)
    kfac_state: KFACState | None = None
    splitting: ADMMState | None = None

    def scalars(self) -> dict[str, Any]:
        """All that is not an array, JSON-ready."""
        plain = {own.name: getattr(self, own.name) for own in fields(self) if own.name not in _ARRAYS}
        if self.kfac_state is not None:
            plain["kfac_state"] = self.kfac_state.scalars()
        if self.splitting is not None:
            plain["splitting"] = self.splitting.scalars()
        return plain

    def tensors(self) -> dict[str, Array]:
        """All arrays by name."""
        found = {**layer_tensors(self.weights), "generations": self.generations}
        if self.statistics is not None:
            found["statistics"] = self.statistics.vector
        if self.kfac_state is not None:
            found.update(self.kfac_state.tensors())
        if self.splitting is not None:
            found.update(self.splitting.tensors())
        return found

    @classmethod
    def restore(cls, tensors: dict[str, Array], scalars: dict[str, Any]) -> State:
        """Undo `tensors` and `scalars`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing or does not fit.
        """
        scalars = dict(scalars)
        layers = sum(name.startswith("layer_") for name in tensors)
        weights = tuple(tensors[name] for name in layer_names(layers))
        kfac_state, statistics = scalars.pop("kfac_state", None), None
        splitting = scalars.pop("splitting", None)
        if splitting is not None:
            splitting = ADMMState.restore(tensors, splitting)
        if kfac_state is None:
            shapes = [w.shape for w in weights]
            statistics = Statistics(shapes, with_inputs=True, vector=tensors["statistics"])
        else:
            kfac_state = KFACState.restore(tensors, kfac_state)
        return cls(
            weights, statistics, tensors["generations"], **scalars, kfac_state=kfac_state, splitting=splitting
        )
