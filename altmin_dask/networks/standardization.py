"""A network on standardized samples, and the same one on samples as they are.

With x̂ = (x − m) / s, number by number, and outputs that approximate ŷ = (y − n) / t,

    W_1 x̂ + b_1  =  (W_1 / s) x + (b_1 − W_1 (m / s)),        y ≈ t (W_L a + b_L) + n:

a network that was trained on x̂ and ŷ is one that reads x and gives y, with other weights of its first and last layers.
So training may have numbers of one size, whatever units they are given in, and nobody else has to know. Where all
targets have the same t the squared loss is t² times that of ŷ, whose minimum does not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from altmin_dask.networks.workspace import strips
from altmin_dask.types import Array, Weights


@dataclass(frozen=True, eq=False)
class Scale:
    """What numbers are shifted and divided by, those of a sample or of every step of it.

    Attributes
    ----------
    shift, scale : ndarray of float64, (k,)
        m and s > 0; where m is 0, one s may be that of all.
    dtype : str
        In which a network computes.
    """

    shift: Array
    scale: Array
    dtype: str

    @classmethod
    def common(cls, scale: float, dtype: str) -> Scale:
        """All numbers divided by the same one."""
        return cls(np.zeros(1), np.array([scale]), dtype)

    def apply(self, values: Array) -> Array:
        """Rows (n, steps · k) as (v − m) / s, computed in float64 and rounded once."""
        out = np.empty(values.shape, self.dtype)
        for rows in strips(*values.shape):
            some = values[rows].astype(np.float64).reshape(-1, len(self.shift))
            some -= self.shift
            some /= self.scale
            out[rows] = some.reshape(-1, values.shape[1])
        return out


@dataclass(frozen=True, eq=False)
class Standardization:
    """What training samples are shifted and divided by.

    Attributes
    ----------
    inputs, targets : Scale or None
        Of inputs, and of outputs; None leaves them as they are.
    columns : int
        How many numbers the first layer's weights act on, besides the 1 and the layer's own values: k, if inputs have k
        scales.
    """

    inputs: Scale | None = None
    targets: Scale | None = None
    columns: int = 0

    @property
    def name(self) -> str:
        """What is standardized, as `network.standardize` calls it."""
        if self.inputs is None:
            return "none" if self.targets is None else "targets"
        return "inputs" if self.targets is None else "both"

    @property
    def loss_unit(self) -> float:
        """The squared loss of targets as they are, over that of standardized ones: t², or the mean of it."""
        return 1.0 if self.targets is None else float(np.square(self.targets.scale).mean())

    def of(self, array: str) -> Scale | None:
        """That of an array of a store."""
        return {"x": self.inputs, "y": self.targets}.get(array)

    def fold(self, weights: Weights) -> Weights:
        """Weights W̃_1 … W̃_L for samples as they are, from those for standardized ones."""
        found = [w.astype(np.float64) for w in weights]
        if self.inputs is not None:
            self._act_on(found[0], 1 / self.inputs.scale, -self.inputs.shift / self.inputs.scale)
        if self.targets is not None:
            found[-1] *= self.targets.scale[:, None]
            found[-1][:, -1] += self.targets.shift
        return _rounded(found, weights)

    def unfold(self, weights: Weights) -> Weights:
        """Undo `fold`."""
        found = [w.astype(np.float64) for w in weights]
        if self.inputs is not None:
            self._act_on(found[0], self.inputs.scale, self.inputs.shift)
        if self.targets is not None:
            found[-1][:, -1] -= self.targets.shift
            found[-1] /= self.targets.scale[:, None]
        return _rounded(found, weights)

    def _act_on(self, first: Array, factor: Array, offset: Array) -> None:
        """Add W_1 times the offset to the bias, and multiply column j of W_1 by the factor of j, in place."""
        read = first[:, : self.columns]
        first[:, -1] += read @ np.broadcast_to(offset, self.columns)
        read *= factor


def _rounded(found: list[Array], like: Weights) -> Weights:
    return tuple(w.astype(known.dtype) for w, known in zip(found, like, strict=True))
