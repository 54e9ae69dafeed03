"""What alternating minimisation commits besides z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from altmin_dask.solvers.admm import ADMMState
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.model import layer_tensors, layers_of
from altmin_dask.types import Array, Weights


@dataclass
class AlternatingState:
    """What alternating minimisation is at one moment, besides z.

    Attributes
    ----------
    weights : tuple of ndarray, (d_i, d_{i−1} + 1)
        W̃_1 … W̃_L.
    statistics : Statistics
        The sums over all chunks that have entered.
    generations : ndarray of int64, (groups,)
        Which generation of z is valid for each group; −1 for groups that have not entered.
    passes : int
        Number of the current pass over what is in the sums.
    largest_loss : float
        The largest that Σ ℓ in the sums has been: what has been added and taken away since is rounded to it.
    stale : bool
        Whether the statistics are no longer those of z, and have to be summed anew.
    admm : ADMMState or None
        What L1 or multipliers remember besides every sample's own.
    """

    name: ClassVar[str] = "alternating"
    weights: Weights
    statistics: Statistics
    generations: np.ndarray[Any, np.dtype[np.int64]]
    passes: int = 0
    largest_loss: float = 0.0
    stale: bool = False
    admm: ADMMState | None = None

    def to_tensors(self) -> dict[str, Array]:
        """All arrays by name."""
        own = {"generations": self.generations, "statistics": self.statistics.vector}
        return {**layer_tensors(self.weights), **own, **(self.admm.tensors() if self.admm else {})}

    def to_scalars(self) -> dict[str, Any]:
        """All that is no array."""
        plain = {name: getattr(self, name) for name in ("passes", "largest_loss", "stale")}
        return {**plain, "admm": self.admm.scalars() if self.admm else None}

    @classmethod
    def restore(cls, tensors: dict[str, Array], scalars: dict[str, Any]) -> Self:
        """Undo both."""
        scalars, weights = dict(scalars), layers_of(tensors)
        admm = scalars.pop("admm")
        return cls(
            weights,
            Statistics([w.shape for w in weights], with_inputs=True, vector=tensors["statistics"]),
            tensors["generations"],
            admm=None if admm is None else ADMMState.restore(tensors, admm),
            **scalars,
        )
