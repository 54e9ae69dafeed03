"""A loss at every step of a sequence: the mean of ℓ over those of its steps that have a target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from altmin_dask.networks.losses import Curvature, Loss
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Array


@dataclass(frozen=True)
class SequenceLoss:
    """`base` at every one of T steps; z, a, gradient: (n, T d), y: (n, T d) or labels (n, T).

    A step whose label is −1, or whose targets are NaN, has no target: it adds nothing to value, gradient or curvature.

    Attributes
    ----------
    base : Loss
        ℓ of one step.
    steps : int
        T.
    """

    base: Loss
    steps: int

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
        rows = self.base.predict(self._rows(z), None if out is None else self._rows(out))
        return rows.reshape(z.shape)

    def inverse(self, mean: Array) -> Array:
        return self._rows(self.base.inverse(mean.reshape(self.steps, -1).mean(axis=0))[None])[0]

    def value(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        y, share = self._targets(y)
        values = self.base.value(self._rows(z), self._rows(a), y, work).reshape(len(z), self.steps)
        total: Array = np.vecdot(values, share.astype(values.dtype))
        return total

    def magnitude(self, z: Array, a: Array, y: Array) -> Array:
        y, share = self._targets(y)
        sizes = self.base.magnitude(self._rows(z), self._rows(a), y).reshape(len(z), self.steps)
        return np.vecdot(sizes, share.astype(sizes.dtype))

    def gradient(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        y, share = self._targets(y)
        rows = self.base.gradient(self._rows(z), self._rows(a), y, work)
        rows *= share.reshape(-1, 1).astype(rows.dtype)
        return rows.reshape(z.shape)

    def curvature(self, a: Array, y: Array, work: Workspace | None = None) -> Curvature:
        return self._spread(self.base.curvature(self._rows(a), self._targets(y)[0], work), y)

    def hessian(self, a: Array, y: Array) -> Curvature:
        return self._spread(self.base.hessian(self._rows(a), self._targets(y)[0]), y)

    def hits(self, z: Array, y: Array) -> Array:
        y, share = self._targets(y)
        return np.vecdot(self.base.hits(self._rows(z), y).reshape(share.shape), share)

    def _spread(self, curvature: Curvature, y: Array) -> Curvature:
        share = self._targets(y)[1]
        # not in place: for softmax they are the outputs themselves
        weights = curvature.weights * share.reshape(-1, 1).astype(curvature.weights.dtype)
        return replace(curvature, weights=weights.reshape(len(share), -1), steps=self.steps)

    def _rows(self, array: Array) -> Array:
        """One row a step."""
        return array.reshape(len(array) * self.steps, -1)

    def _targets(self, y: Array) -> tuple[Array, Array]:
        """Targets of every step, anything where there are none, and the steps' shares in the mean, (n, T)."""
        if self.target == "labels":
            valid, rows = y >= 0, y.reshape(-1)
        else:
            rows = self._rows(y)
            valid = ~np.isnan(rows[:, 0])
            if not valid.all():
                rows = np.where(valid[:, None], rows, rows.dtype.type(0))
        valid = valid.reshape(len(y), self.steps)
        return rows, valid / np.maximum(valid.sum(axis=1, keepdims=True), 1)
