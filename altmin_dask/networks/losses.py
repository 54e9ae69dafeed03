"""Losses ℓ(φ_L(z_L), y) as functions of the output pre-activations z_L, with positive semi-definite curvature.

A loss is paired with the output activation it makes sense with. All its functions take a block of samples, one a
row, and return one value, gradient or curvature a row; nothing is averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import numpy as np

from altmin_dask.errors import ConfigError, did_you_mean
from altmin_dask.networks.activations import Activation, get_activation, sigmoid, softplus
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Array


@dataclass(frozen=True)
class Curvature:
    """A positive semi-definite matrix per sample, applied and never formed.

    H = diag(q) for element-wise losses; H = diag(q) − q qᵀ / Σq where `centred`, of which softmax's
    diag(p) − p pᵀ is the case Σp = 1. The family is closed under the partial minimisation the z-update needs,
    min_v ½(e+v)ᵀH(e+v) + ½m‖v‖² = ½eᵀH̃e, which only maps each q to mq / (m + q).

    Attributes
    ----------
    weights : ndarray of shape (n, d)
        The non-negative q of every sample.
    centred : bool
        Whether the weighted mean is taken out.
    steps : int
        How many such matrices a sample has side by side, one for each time step; they act on d / steps columns each.
    """

    weights: Array
    centred: bool = False
    steps: int = 1

    def __getitem__(self, rows: slice) -> Curvature:
        """The matrices of some samples."""
        return replace(self, weights=self.weights[rows])

    def apply(self, v: Array, out: Array | None = None) -> Array:
        """H v for every sample; `v`, result: (n, d)."""
        out = np.multiply(self.weights, v, out=out)
        return self._centre(out) if self.centred else out

    def sample(self, noise: Array, out: Array | None = None) -> Array:
        """Vectors u with E[u uᵀ] = H, from independent noise of mean 0 and variance 1, (n, d)."""
        out = np.sqrt(self.weights, out=out)
        out *= noise
        return self._centre(out) if self.centred else out

    def solve(self, m: float, v: Array, out: Array | None = None) -> Array:
        """(m I + H)⁻¹ v for m > 0; by Sherman–Morrison where centred."""
        out = np.add(self.weights, m, out=out)
        np.divide(v, out, out=out)
        if self.centred:
            q, moved = self._matrices(self.smoothed(m).weights), self._matrices(out)
            moved += q * (np.vecdot(q, self._matrices(v)) / (m * m * _positive(q.sum(axis=2))))[:, :, None]
        return out

    def smoothed(self, m: float, out: Array | None = None) -> Curvature:
        """H̃ = (H⁻¹ + I/m)⁻¹, the curvature that is left when v with weight m/2 ‖v‖² is minimised out."""
        out = np.add(self.weights, m, out=out)
        np.divide(m, out, out=out)
        out *= self.weights
        return replace(self, weights=out)

    def _centre(self, out: Array) -> Array:
        """Take Σ out / Σq times q out of every matrix's rows, in place."""
        q, rows = self._matrices(self.weights), self._matrices(out)
        rows -= q * (rows.sum(axis=2) / _positive(q.sum(axis=2)))[:, :, None]
        return out

    def _matrices(self, rows: Array) -> Array:
        return rows.reshape(len(rows), self.steps, -1)


def _positive(sums: Array) -> Array:
    """Sums of non-negative numbers, or something above zero in place of zero."""
    return np.maximum(sums, np.finfo(sums.dtype).tiny)


SCRATCH: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "value": ("loss error",),
        "gradient": ("loss gradient", "loss error"),
        "curvature": ("loss curvature",),
    }
)
"""The arrays, shaped as the outputs, that methods of losses take of a workspace at most."""


class Loss(Protocol):
    """What a loss supplies; z, a, gradient: (n, d), y: (n, d) or labels (n,).

    A result may live in the workspace it is given, until the same is asked for again.
    """

    @property
    def name(self) -> str:
        """The name by which settings refer to it."""

    @property
    def output_activation(self) -> str:
        """The name of φ_L."""

    @property
    def target(self) -> str:
        """What y must be: "real" (within the range of φ_L) or "labels" (integers 0 … d − 1)."""

    @property
    def output_damping(self) -> float:
        """σ of K-FAC steps in units of its curvature, unless told otherwise."""

    @property
    def damped_unknowns(self) -> float:
        """Unknowns for each target number of a group up to which σ is that; beyond it is less, where ρ is large."""

    @property
    def proximal_share(self) -> float:
        """ρ of K-FAC steps relative to a mean diagonal, for one unknown per target number, unless told otherwise."""

    @property
    def decay_share(self) -> float:
        """δ of K-FAC steps for one unknown per target number, unless told otherwise; it grows with their root."""

    @property
    def most_decay(self) -> float:
        """δ by default, at most: beyond it even the smallest tables learn slowly."""

    @property
    def damped_by_loss(self) -> bool:
        """Whether damping may go by what is left of the loss: where its unit is that of the noise, that is noise."""

    @property
    def dual_rho(self) -> float:
        """ρ that L1 and multipliers begin with, unless told otherwise: too little against its curvature diverges."""

    @property
    def unit(self) -> str:
        """What its value is, for those who read one."""

    @property
    def elementwise(self) -> bool:
        """Whether its curvature in z is always a diagonal."""

    def predict(self, z: Array, out: Array | None = None) -> Array:
        """A = φ_L(z)."""

    def inverse(self, mean: Array) -> Array:
        """A z at which φ_L(z) is near a mean target, (d,)."""

    def value(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        """ℓ of every sample, (n,)."""

    def magnitude(self, z: Array, a: Array, y: Array) -> Array:
        """The size of what `value` adds up, (n,): errors of ε in its parts, and in a, make one of ε times this."""

    def gradient(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        """∂ℓ/∂z."""

    def curvature(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Curvature:
        """The Gauss–Newton curvature, positive semi-definite everywhere."""

    def hessian(self, z: Array, a: Array, y: Array) -> Curvature:
        """The exact second derivative in the same form; its weights may be negative."""

    def hits(self, z: Array, y: Array) -> Array:
        """Share of each sample's labels that are the largest output, (n,); of other targets 0."""


@dataclass(frozen=True)
class Squared:
    """ℓ = ½ ‖φ(z) − y‖² with any element-wise output activation φ."""

    activation: Activation
    name: str = "squared"
    unit: str = "½ Σ (output − target)²"
    output_damping: float = 0.03
    damped_unknowns: float = math.inf
    proximal_share: float = 0.1  # row 24
    decay_share: float = 0.8  # row 114, as are the other two
    most_decay: float = 0.95
    damped_by_loss: bool = True
    elementwise: bool = True

    @property
    def dual_rho(self) -> float:
        return 0.03 if self.activation.name == "sigmoid" else 0.5

    @property
    def output_activation(self) -> str:
        return self.activation.name

    @property
    def target(self) -> str:
        return "real"

    def predict(self, z: Array, out: Array | None = None) -> Array:
        return self.activation.value(z, out=out)

    def inverse(self, mean: Array) -> Array:
        return self.activation.inverse(mean)

    def value(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        error = np.subtract(a, y, out=(work or Workspace()).like("loss error", a))
        half: Array = np.vecdot(error, error)
        half *= 0.5
        return half

    def magnitude(self, z: Array, a: Array, y: Array) -> Array:
        return np.vecdot(np.abs(a - y), np.abs(a) + np.abs(y))

    def gradient(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        work = work or Workspace()
        out = np.subtract(a, y, out=work.like("loss gradient", a))
        out *= self.activation.derivative(z, a, out=work.like("loss error", a))
        return out

    def curvature(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Curvature:
        slope = self.activation.derivative(z, a, out=(work or Workspace()).like("loss curvature", a))
        return Curvature(np.square(slope, out=slope))

    def hessian(self, z: Array, a: Array, y: Array) -> Curvature:
        weights = self.curvature(z, a, y).weights
        return Curvature(weights + (a - y) * self.activation.second_derivative(z, a))

    def hits(self, z: Array, y: Array) -> Array:
        return np.zeros(len(z))


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """ℓ = Σ_j softplus(z_j) − y_j z_j: sigmoid outputs, targets in [0, 1]."""

    name: str = "binary_cross_entropy"
    unit: str = "binary cross-entropy in nats, the sum over outputs"
    output_activation: str = "sigmoid"
    target: str = "real"
    output_damping: float = 0.003  # its curvature fades as samples are fitted
    damped_unknowns: float = math.inf
    proximal_share: float = 0.1
    decay_share: float = 0.15
    most_decay: float = 0.2
    damped_by_loss: bool = False
    dual_rho: float = 0.03
    elementwise: bool = True

    def predict(self, z: Array, out: Array | None = None) -> Array:
        return sigmoid(z, out)

    def inverse(self, mean: Array) -> Array:
        return get_activation("sigmoid").inverse(mean)

    def value(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        total: Array = softplus(z).sum(axis=1)
        total -= np.vecdot(y, z)
        return total

    def magnitude(self, z: Array, a: Array, y: Array) -> Array:
        return softplus(z).sum(axis=1) + np.vecdot(y, np.abs(z))

    def gradient(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        return np.subtract(a, y, out=(work or Workspace()).like("loss gradient", a))

    def curvature(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Curvature:
        slope = get_activation("sigmoid").derivative(
            z, a, out=(work or Workspace()).like("loss curvature", a)
        )
        return Curvature(slope)

    def hessian(self, z: Array, a: Array, y: Array) -> Curvature:
        return self.curvature(z, a, y)

    def hits(self, z: Array, y: Array) -> Array:
        return np.zeros(len(z))


@dataclass(frozen=True)
class CrossEntropy:
    """ℓ = log Σ_j exp(z_j) − z_y: softmax outputs, y the class label."""

    name: str = "cross_entropy"
    unit: str = "cross-entropy in nats"
    output_activation: str = "softmax"
    target: str = "labels"
    output_damping: float = 0.003
    damped_unknowns: float = 1.5  # row 88, as is the share
    proximal_share: float = 0.2
    decay_share: float = 0.15  # row 87, as is the most
    most_decay: float = 0.2
    damped_by_loss: bool = False
    dual_rho: float = 0.03
    elementwise: bool = False

    def predict(self, z: Array, out: Array | None = None) -> Array:
        p = np.subtract(z, z.max(axis=1, keepdims=True), out=out)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
        return p

    def inverse(self, mean: Array) -> Array:
        return np.log(np.maximum(mean, 1e-3))

    def value(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        top = z.max(axis=1)
        total = np.log(np.exp(z - top[:, None]).sum(axis=1))
        picked = np.take_along_axis(z, y[:, None], axis=1)[:, 0]
        out: Array = total + (top - picked)
        return out

    def magnitude(self, z: Array, a: Array, y: Array) -> Array:
        # the sum of exponentials is between 1 and d, and its logarithm as exact as 1 is
        return 1 + self.value(z, a, y)

    def gradient(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Array:
        out = a.copy()
        out[np.arange(len(y)), y] -= 1
        return out

    def curvature(self, z: Array, a: Array, y: Array, work: Workspace | None = None) -> Curvature:
        return Curvature(a, centred=True)

    def hessian(self, z: Array, a: Array, y: Array) -> Curvature:
        return self.curvature(z, a, y)

    def hits(self, z: Array, y: Array) -> Array:
        return np.asarray(z.argmax(axis=1) == y, np.float64)


def _only(loss: BinaryCrossEntropy | CrossEntropy) -> Callable[[str | None], Loss]:
    def make(output_activation: str | None) -> Loss:
        if output_activation not in (None, loss.output_activation):
            raise ConfigError(
                f"loss '{loss.name}' goes with output activation '{loss.output_activation}', "
                f"not with '{output_activation}'"
            )
        return loss

    return make


LOSSES: Mapping[str, Callable[[str | None], Loss]] = MappingProxyType(
    {
        "squared": lambda activation: Squared(get_activation(activation or "identity")),
        "binary_cross_entropy": _only(BinaryCrossEntropy()),
        "cross_entropy": _only(CrossEntropy()),
    }
)
"""Every loss by name, as a function of the output activation's name; a new one is one more entry."""


def get_loss(name: str, output_activation: str | None = None) -> Loss:
    """Look a loss up by name and pair it with an output activation (default: the natural one).

    Raises
    ------
    ConfigError
        If there is no such loss, or it does not go with that activation.
    """
    if name not in LOSSES:
        raise ConfigError(
            f"loss '{name}' is unknown; choose one of {', '.join(LOSSES)}{did_you_mean(name, LOSSES)}"
        )
    return LOSSES[name](output_activation)
