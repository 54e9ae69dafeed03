"""The loss of a sample: ℓ of its one output, or the mean of ℓ over its steps, times the sample's weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from altmin_dask.networks.losses import SCRATCH, Curvature, Loss
from altmin_dask.networks.workspace import ArraySpec, Workspace
from altmin_dask.types import Array, Batch


@dataclass(frozen=True)
class Targets:
    """What the outputs of a block of samples are compared with, and how much each comparison counts.

    Attributes
    ----------
    y : ndarray, (n, d) or labels (n,); with a target at every step (n, T d) or labels (n, T)
        Where a step has no target, any number.
    shares : ndarray of float64, (n, T), or None
        Factors of ℓ at every step (T is 1 where there is one output); None where each is 1.
    """

    y: Array
    shares: Array | None = None

    def __getitem__(self, rows: slice | Array) -> Targets:
        """Those of some samples."""
        return Targets(self.y[rows], None if self.shares is None else self.shares[rows])


@dataclass(frozen=True)
class MeanLoss:
    """w_k (Σ_t ℓ_t) / (number of steps that have a target), of samples with weights w_k; z, a, gradient: (n, T d).

    A weight of 2 is the sample twice, a weight of 0 none. A step has no target where the sequence has ended, where its
    label is −1, or where its targets are NaN: it adds nothing to value, gradient or curvature.

    Attributes
    ----------
    base : Loss
        ℓ of one output.
    steps : int or None
        T, where there is an output at every step; None where a sample has one output.
    """

    base: Loss
    steps: int | None = None

    @property
    def name(self) -> str:
        """That of ℓ."""
        return self.base.name

    @property
    def output_activation(self) -> str:
        """The name of φ_L."""
        return self.base.output_activation

    @property
    def target(self) -> str:
        """As of ℓ."""
        return self.base.target

    @property
    def output_damping(self) -> float:
        """As of ℓ."""
        return self.base.output_damping

    @property
    def damped_unknowns(self) -> float:
        """As of ℓ."""
        return self.base.damped_unknowns

    @property
    def proximal_share(self) -> float:
        """As of ℓ."""
        return self.base.proximal_share

    @property
    def decay_share(self) -> float:
        """As of ℓ."""
        return self.base.decay_share

    @property
    def most_decay(self) -> float:
        """As of ℓ."""
        return self.base.most_decay

    @property
    def damped_by_loss(self) -> bool:
        """As of ℓ."""
        return self.base.damped_by_loss

    @property
    def dual_rho(self) -> float:
        """As of ℓ."""
        return self.base.dual_rho

    @property
    def unit(self) -> str:
        """As of ℓ, and what is done with it."""
        each = "" if self.steps is None else ", the mean over steps"
        return f"{self.base.unit}{each}"

    @property
    def elementwise(self) -> bool:
        """As of ℓ."""
        return self.base.elementwise

    def targets(self, batch: Batch, dtype: npt.DTypeLike) -> Targets:
        """Take the targets of samples out of a batch: once a block, before anything is computed.

        Parameters
        ----------
        batch : Batch
            Of which y (or x, where y is None), lengths and sample_weight matter.
        dtype : dtype
            Of the computation; labels stay integers.
        """
        y = batch.x.reshape(len(batch), -1) if batch.y is None else batch.y
        if self.target != "labels":
            y = y.astype(dtype, copy=False)
        shares = None
        if self.steps is not None:
            y, shares = _mean_over_steps(y, self.target == "labels", self.steps, batch.lengths)
        if batch.sample_weight is not None:
            w = batch.sample_weight.reshape(-1, 1).astype(np.float64)
            shares = w if shares is None else shares * w
        return Targets(y, shares)

    def predict(self, z: Array, out: Array | None = None) -> Array:
        """A = φ_L(z)."""
        rows = self.base.predict(self.each(z), None if out is None else self.each(out))
        return rows.reshape(z.shape)

    def inverse(self, mean: Array) -> Array:
        """A z at which φ_L(z) is near a mean target."""
        return self.each(self.base.inverse(mean.reshape(self.steps or 1, -1).mean(axis=0))[None])[0]

    def value(self, z: Array, a: Array, targets: Targets, work: Workspace | None = None) -> Array:
        """The loss of every sample, (n,)."""
        return _mean(self.base.value(self.each(z), self.each(a), self.each_target(targets), work), targets)

    def magnitude(self, z: Array, a: Array, targets: Targets) -> Array:
        """The size of what `value` adds up, (n,), as of ℓ."""
        return _mean(self.base.magnitude(self.each(z), self.each(a), self.each_target(targets)), targets)

    def gradient(self, z: Array, a: Array, targets: Targets, work: Workspace | None = None) -> Array:
        """∂/∂z."""
        rows = self.base.gradient(self.each(z), self.each(a), self.each_target(targets), work)
        if targets.shares is not None:
            rows *= targets.shares.reshape(-1, 1).astype(rows.dtype)
        return rows.reshape(z.shape)

    def curvature(self, z: Array, a: Array, targets: Targets, work: Workspace | None = None) -> Curvature:
        """The Gauss–Newton curvature, positive semi-definite everywhere."""
        return self._side_by_side(
            self.base.curvature(self.each(z), self.each(a), self.each_target(targets), work), targets
        )

    def hessian(self, z: Array, a: Array, targets: Targets) -> Curvature:
        """The exact second derivative in the same form; its weights may be negative."""
        return self._side_by_side(
            self.base.hessian(self.each(z), self.each(a), self.each_target(targets)), targets
        )

    def arrays(
        self, size: int, *methods: str, rows: Literal["block", "strip"] = "strip"
    ) -> Iterator[ArraySpec]:
        """What `methods` take of a workspace, for outputs (n, size), by default strip by strip."""
        steps = self.steps or 1
        for method in methods:
            for name in SCRATCH[method]:
                yield ArraySpec(name, size // steps, steps, rows)

    def hits(self, z: Array, targets: Targets) -> Array:
        """Whether the label of each output is the largest one, (n T,); of other targets 0."""
        return self.base.hits(self.each(z), self.each_target(targets))

    def counts(self, batch: Batch) -> Array:
        """How much each output counts in a metric, (n T,): as much as its sample, and 0 without a target."""
        n, steps = len(batch), self.steps
        counts = np.ones((n, steps or 1))
        if batch.sample_weight is not None:
            counts *= batch.sample_weight.reshape(n, 1)
        if steps is not None:
            y = batch.x if batch.y is None else batch.y
            counts *= _valid(y.reshape(n, steps, -1), self.target == "labels", batch.lengths)
        return counts.ravel()

    def each(self, array: Array) -> Array:
        """One row for every output of z or a."""
        return array if self.steps is None else array.reshape(len(array) * self.steps, -1)

    def each_target(self, targets: Targets) -> Array:
        """One target for every output."""
        if self.steps is None:
            return targets.y
        return targets.y.reshape(-1) if self.target == "labels" else self.each(targets.y)

    def _side_by_side(self, curvature: Curvature, targets: Targets) -> Curvature:
        """The matrices of every sample's outputs, times their shares."""
        if targets.shares is None:
            return curvature
        # not in place: for softmax they are the outputs themselves
        weights = curvature.weights * targets.shares.reshape(-1, 1).astype(curvature.weights.dtype)
        return replace(curvature, weights=weights.reshape(len(targets.shares), -1), steps=self.steps or 1)


def _mean(values: Array, targets: Targets) -> Array:
    """Σ_t share · value of every sample, (n,)."""
    shares = targets.shares
    if shares is None:
        return values
    total: Array = np.vecdot(values.reshape(shares.shape), shares.astype(values.dtype))
    return total


def _mean_over_steps(y: Array, labels: bool, steps: int, lengths: Array | None) -> tuple[Array, Array]:
    """Targets, (n, T d) or labels (n, T), 0 where there are none, and the steps' shares in the mean, (n, T)."""
    each = y.reshape(len(y), steps, -1)
    valid = _valid(each, labels, lengths)
    if not valid.all():
        y = np.where(valid[:, :, None], each, each.dtype.type(0)).reshape(y.shape)
    return y, valid / np.maximum(valid.sum(axis=1, keepdims=True), 1)


def _valid(each: Array, labels: bool, lengths: Array | None) -> Array:
    """Which steps have a target, (n, T), of targets (n, T, d)."""
    valid: Array = each[:, :, 0] >= 0 if labels else ~np.isnan(each[:, :, 0])
    if lengths is not None:
        valid &= np.arange(each.shape[1]) < lengths.reshape(-1, 1)
    return valid
