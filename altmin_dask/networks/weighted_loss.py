"""A loss whose samples count by weights of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from altmin_dask.networks.losses import Curvature, Loss
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Array


@dataclass(frozen=True)
class WeightedLoss:
    """w_k times `base`; behind the targets of every sample stands its weight: y is (n, d + 1), or (n, 2) with labels.

    A weight of 2 is the sample twice, a weight of 0 none: value, gradient and curvature are all w_k times as large.

    Attributes
    ----------
    base : Loss
        ℓ of one sample.
    """

    base: Loss

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def output_activation(self) -> str:
        return self.base.output_activation

    @property
    def target(self) -> str:
        return self.base.target

    @property
    def output_damping(self) -> float:
        return self.base.output_damping

    @property
    def splitting_rho(self) -> float:
        return self.base.splitting_rho

    def predict(self, z: Array, out: Array | None = None) -> Array:
        return self.base.predict(z, out)

    def inverse(self, mean: Array) -> Array:
        return self.base.inverse(mean)

    def value(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        y, w = self.split(y)
        return np.multiply(self.base.value(z, a, y, work), w, dtype=z.dtype)

    def magnitude(self, z: Array, a: Array, y: Array) -> Array:
        y, w = self.split(y)
        return np.multiply(self.base.magnitude(z, a, y), w, dtype=z.dtype)

    def gradient(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        y, w = self.split(y)
        return np.multiply(self.base.gradient(z, a, y, work), w[:, None], dtype=z.dtype)

    def curvature(self, a: Array, y: Array, work: Workspace | None = None) -> Curvature:
        y, w = self.split(y)
        return _times(self.base.curvature(a, y, work), w)

    def hessian(self, a: Array, y: Array) -> Curvature:
        y, w = self.split(y)
        return _times(self.base.hessian(a, y), w)

    def hits(self, z: Array, y: Array) -> Array:
        y, w = self.split(y)
        return w * self.base.hits(z, y)

    def split(self, y: Array) -> tuple[Array, Array]:
        """The targets, (n, d) or labels (n,), and the weights, (n,)."""
        if self.target == "labels":
            return y[:, 0].astype(np.intp), y[:, -1]
        return y[:, :-1], y[:, -1]


def _times(curvature: Curvature, w: Array) -> Curvature:
    """W H: of a centred matrix, too, all weights times as large."""
    weights = np.multiply(curvature.weights, w[:, None], dtype=curvature.weights.dtype)
    return replace(curvature, weights=weights)
