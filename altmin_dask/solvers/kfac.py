"""Kronecker-factored steps: z restarts at a forward pass for every visit, and W moves by a damped step of its own.

One step takes a group of n samples. Their z-update under the weights of the moment leaves residuals r_i; the negative
gradient of F in W̃_i is 2μ_i Σ r_i ãᵀ, which for μ → ∞ (`mu` None) is that of the nested loss, −Σ g_i ãᵀ with
g_i = ∂ℓ/∂z_i. W̃_i moves along

    D_i = (S̄_i + σI)⁻¹ (2μ_i Σ r_i ãᵀ / n − 2λ W̃_i / N) (Ḡ_i + ρ_i I)⁻¹,

where Ḡ_i = E[ã ãᵀ] and S̄_i = E[J_iᵀ H J_i], the Gauss–Newton curvature of the loss in z_i (H that in z_L,
J_i = ∂z_L/∂z_i), are running means: Ḡ ⊗ S̄ is the Gauss–Newton matrix of the nested loss in W̃_i if inputs and
curvature are independent (Martens & Grosse 2015, "Optimizing neural networks with Kronecker-factored approximate
curvature"). How far, and how much of the step before is repeated, is no setting: α D + β (W̃ − W̃_before) minimises
the Gauss–Newton model of the nested loss, measured on a part of the group by two directional derivatives. What is
evaluated and kept is a running mean of the weights.

ρ_i relative to Ḡ_i's mean diagonal is, unless given, a tenth of the unknowns for each target number of a group: the
fewer numbers determine a weight, the more of what a group says about it is noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from altmin_dask.networks.network import Network
from altmin_dask.types import Array, Weights

CURVATURE_EVERY = 4
"""Curvature is measured in every fourth step, and more often in the first ones."""
CURVATURE_EARLY = (1, 2, 3, 5)
CURVATURE_DECAY = 0.8
"""Share of the running means that stays when curvature is measured again."""
REJECTED = 2.0
"""A step is taken back when the loss exceeds this multiple of its running mean, and six of its standard errors."""
DAMPING_GROWTH = 4.0
"""Factor of ρ and σ after a step was taken back; it fades with steps that are not."""
DAMPING_FADE = 0.95


@dataclass(frozen=True)
class KFACSettings:
    """How the weights move.

    Attributes
    ----------
    proximal : float
        ρ_i relative to the mean diagonal of Ḡ_i.
    output_damping : float
        σ, in units of the loss's curvature.
    averaging : float
        Share of the mean weights that stays in a step.
    ridge : float
        λ / N for N samples altogether.
    penalize_bias : bool
        Whether the ridge also holds biases.
    """

    proximal: float
    output_damping: float
    averaging: float = 0.95
    ridge: float = 0.0
    penalize_bias: bool = True


def default_proximal(network: Network, rows: int) -> float:
    """A share of the unknowns per target number of a group of `rows` samples."""
    unknowns = sum(d * k for d, k in network.shapes)
    return network.defaults.proximal_share * unknowns / (rows * network.widths[-1])


def default_damping(network: Network) -> float:
    """σ, by the layers or the loss."""
    given = network.defaults.output_damping
    return network.loss.output_damping if given is None else given


@dataclass
class KroneckerSums:
    """What a group of samples says about the weights, packed into one vector that travels and is added.

    Attributes
    ----------
    shapes : sequence of (int, int)
        The shape of each W̃_i.
    curvature : bool
        Whether Gram matrices are part of it.
    vector : ndarray
        All of it; zeros by default, of `dtype`.
    totals : ndarray, (3,)
        Number of samples, Σ ℓ, Σ ℓ² under the weights before the step.
    negative_gradient : list of ndarray, (d_i, d_{i−1} + 1)
        2μ_i Σ r_i ãᵀ.
    input_factors, output_factors : list of ndarray
        The lower triangles of Σ ã ãᵀ, (d_{i−1} + 1)², and Σ J_iᵀ H J_i, (d_i)²; empty without curvature.
    """

    shapes: Sequence[tuple[int, int]]
    curvature: bool
    dtype: Any = np.float32
    vector: Array = None  # type: ignore[assignment]
    totals: Array = field(init=False, repr=False)
    negative_gradient: list[Array] = field(init=False, repr=False)
    input_factors: list[Array] = field(init=False, repr=False)
    output_factors: list[Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.vector is None:
            self.vector = np.zeros(kronecker_sums_size(self.shapes, self.curvature), self.dtype)  # type: ignore[unreachable]
        rest = self.vector

        def take(*shape: int) -> Array:
            nonlocal rest
            part, rest = rest[: prod(shape)].reshape(shape), rest[prod(shape) :]
            return part

        self.totals = take(3)
        self.negative_gradient = [take(*shape) for shape in self.shapes]
        square = self.shapes if self.curvature else ()
        self.input_factors = [take(k, k) for _, k in square]
        self.output_factors = [take(d, d) for d, _ in square]

    def gradient_norm(self, weights: Weights, ridge: float, penalize_bias: bool = True) -> float:
        """‖−P/n + 2λ W̃/N‖ over all layers: of the nested loss, for μ → ∞, and the ridge λ/N = `ridge`."""
        total, n = 0.0, self.totals[0]
        for negative_gradient, w in zip(self.negative_gradient, weights, strict=True):
            gradient = negative_gradient / n
            if ridge:
                held = gradient if penalize_bias else gradient[:, :-1]
                held -= w.dtype.type(2 * ridge) * w[:, : held.shape[1]]
            total += float(np.vdot(gradient, gradient))
        return math.sqrt(total)


def kronecker_sums_size(shapes: Sequence[tuple[int, int]], curvature: bool) -> int:
    """How many numbers a chunk sends."""
    return 3 + sum(d * k + (k * k + d * d if curvature else 0) for d, k in shapes)


def curvature_due(step: int) -> bool:
    """Whether curvature is measured in a step."""
    return step % CURVATURE_EVERY == 0 or step in CURVATURE_EARLY


@dataclass(frozen=True)
class QuadraticModel:
    """The Gauss–Newton model of the nested loss along D and P = W̃ − W̃_before: sums over the samples of a part.

    Attributes
    ----------
    samples : float
        How many.
    slope : ndarray, (2,)
        Σ gᵀ(J D), Σ gᵀ(J P).
    curvature : ndarray, (2, 2)
        Σ (J ·)ᵀ H (J ·).
    """

    samples: float
    slope: Array
    curvature: Array

    def pack(self) -> Array:
        """Six numbers, which add up over chunks."""
        return np.array(
            [self.samples, *self.slope, self.curvature[0, 0], self.curvature[0, 1], self.curvature[1, 1]]
        )

    @classmethod
    def unpack(cls, packed: Array) -> QuadraticModel:
        """Undo `pack`."""
        n, d, p, dd, dp, pp = (float(value) for value in packed)
        return cls(n, np.array([d, p]), np.array([[dd, dp], [dp, pp]]))


@dataclass
class KFACState:
    """What is remembered from step to step, besides the weights.

    Attributes
    ----------
    input_factors, output_factors : list of ndarray
        Ḡ_i and S̄_i, lower triangles.
    previous_weights, average : tuple of ndarray
        The weights before the last step, and a running mean of those that were not taken back.
    steps, curvature_updates, rejections : int
        Steps that moved the weights, measurements of curvature, and steps taken back one after the other.
    damping_scale : float
        Factor of the damping, 1 unless a step was taken back lately.
    loss_ema : float
        Running mean of the loss before each step, the ridge included; NaN at first.
    gradient : float
        Norm of the gradient by the last group that was not refused, before its step; NaN at first.
    loss_variance_ema : float
        Running mean of its variance over samples. That of a group whose loss has exploded would excuse it.
    """

    input_factors: list[Array]
    output_factors: list[Array]
    previous_weights: Weights
    average: Weights
    steps: int = 0
    curvature_updates: int = 0
    rejections: int = 0
    damping_scale: float = 1.0
    loss_ema: float = math.nan
    loss_variance_ema: float = 0.0
    gradient: float = math.nan

    @classmethod
    def start(cls, weights: Weights) -> KFACState:
        """Before the first step."""
        dtype = weights[0].dtype
        return cls(
            [np.zeros((w.shape[1],) * 2, dtype) for w in weights],
            [np.zeros((w.shape[0],) * 2, dtype) for w in weights],
            weights,
            weights,
        )

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """All arrays by name."""
        for kind in ("input_factors", "output_factors", "previous_weights", "average"):
            for layer, array in enumerate(getattr(self, kind)):
                yield f"{kind}_{layer}", array

    def scalars(self) -> dict[str, int | float]:
        """All that is not an array; what is NaN is left out."""
        names = (
            "steps",
            "curvature_updates",
            "rejections",
            "damping_scale",
            "loss_ema",
            "loss_variance_ema",
            "gradient",
        )
        return {name: value for name in names if not math.isnan(value := getattr(self, name))}

    @classmethod
    def restore(cls, tensors: dict[str, Array], scalars: dict[str, Any]) -> KFACState:
        """Undo `tensors` and `scalars`."""
        layers = sum(name.startswith("input_factors_") for name in tensors)
        kinds = ("input_factors", "output_factors", "previous_weights", "average")
        input_factors, output_factors, previous_weights, average = (
            [tensors[f"{kind}_{i}"] for i in range(layers)] for kind in kinds
        )
        return cls(input_factors, output_factors, tuple(previous_weights), tuple(average), **scalars)

    def is_rejected(self, sums: KroneckerSums, ridge: float = 0.0) -> bool:
        """Whether the weights have become worse than chance would have it, so that the last step is taken back.

        A group's mean loss is judged with the `ridge` of the weights it has seen, λ Σ ‖W̃_i‖² / N: a step that makes
        that fall may well raise the loss.
        """
        n, loss, _ = (float(total) for total in sums.totals)
        if not np.isfinite(sums.vector).all():
            return True
        if math.isnan(self.loss_ema):
            return False
        return loss / n + ridge > REJECTED * self.loss_ema + 6 * math.sqrt(self.loss_variance_ema / n)

    def reject_step(self) -> Weights:
        """The mean weights, to go on from with more damping."""
        self.previous_weights = self.average
        self.damping_scale *= DAMPING_GROWTH
        self.rejections += 1
        return self.average

    def averaged(self, weights: Weights, averaging: float) -> Weights:
        """The mean with these weights in it, too: in the first steps they are most of it."""
        keep = min(averaging, 1 - 1 / (1 + self.steps / 8))
        return tuple(
            mean + mean.dtype.type(1 - keep) * (w - mean)
            for mean, w in zip(self.average, weights, strict=True)
        )

    def update_averages(
        self, sums: KroneckerSums, weights: Weights, averaging: float, ridge: float = 0.0
    ) -> None:
        """Take a group's samples into the means, and the weights, which it did not refuse; `ridge` as there."""
        self.average = self.averaged(weights, averaging)
        n, loss, squares = (float(total) for total in sums.totals)
        variance = max(squares / n - (loss / n) ** 2, 0.0)
        keep_loss = 0.0 if math.isnan(self.loss_ema) else 0.9
        now = loss / n + ridge
        self.loss_ema = now if not keep_loss else keep_loss * self.loss_ema + 0.1 * now
        self.loss_variance_ema = keep_loss * self.loss_variance_ema + (1 - keep_loss) * variance
        if not sums.curvature:
            return
        keep = min(CURVATURE_DECAY, 1 - 1 / (self.curvature_updates + 1))
        samples = float(sums.totals[0])
        for means, totals, inputs in (
            (self.input_factors, sums.input_factors, True),
            (self.output_factors, sums.output_factors, False),
        ):
            for mean, total in zip(means, totals, strict=True):
                # Σ 1·1, the rows that were summed: of a recurrent network every step is one
                rows = float(total[-1, -1]) if inputs else samples
                mean *= keep
                mean += mean.dtype.type((1 - keep) / rows) * total
        self.curvature_updates += 1

    def move(
        self, weights: Weights, direction: Weights, previous_weights: Weights, step_coefficients: Array
    ) -> Weights:
        """The weights after a step of the lengths (α, β).

        A step that is not finite is not made: it counts as one taken back.
        """
        alpha, beta = (weights[0].dtype.type(length) for length in step_coefficients)
        moved = tuple(
            w + alpha * d + beta * (w - old)
            for w, d, old in zip(weights, direction, previous_weights, strict=True)
        )
        if not all(np.isfinite(w).all() for w in moved):
            return self.reject_step()
        self.previous_weights = weights
        self.steps += 1
        self.rejections = 0
        self.damping_scale = max(1.0, DAMPING_FADE * self.damping_scale)
        return moved


class KroneckerPreconditioner:
    """(S̄_i + σI) and (Ḡ_i + ρ_i I) of all layers, factorised."""

    def __init__(self, kfac_state: KFACState, settings: KFACSettings) -> None:
        self.settings = settings
        damping_scale = kfac_state.damping_scale
        self.rho = [
            damping_scale * settings.proximal * float(np.trace(g)) / len(g) for g in kfac_state.input_factors
        ]
        self.sigma = damping_scale * settings.output_damping
        self.input_cholesky = [
            _cholesky(input_factors, rho)
            for input_factors, rho in zip(kfac_state.input_factors, self.rho, strict=True)
        ]
        self.output_cholesky = [_cholesky(factor, self.sigma) for factor in kfac_state.output_factors]

    def direction(self, sums: KroneckerSums, weights: Weights) -> Weights:
        """D_1 … D_L."""
        found = []
        n = sums.totals[0]
        for negative_gradient, w, input_cholesky, output_cholesky in zip(
            sums.negative_gradient,
            self._penalized(weights),
            self.input_cholesky,
            self.output_cholesky,
            strict=True,
        ):
            d = negative_gradient / n
            if self.settings.ridge:
                d -= w.dtype.type(2 * self.settings.ridge) * w
            d = cho_solve(input_cholesky, d.T, overwrite_b=True, check_finite=False).T
            found.append(np.ascontiguousarray(cho_solve(output_cholesky, d, check_finite=False)))
        return tuple(found)

    def step_coefficients(
        self, quadratic_model: QuadraticModel, weights: Weights, direction: Weights, previous_weights: Weights
    ) -> Array:
        """(α, β) that minimise the model of the nested loss, ridge and damping included.

        Of the damping, ρ_i σ ‖·‖² is held against a step: what Kronecker factors add to a curvature that vanishes.
        """
        repeated = tuple(w - old for w, old in zip(weights, previous_weights, strict=True))
        ways, penalized = (direction, repeated), self._penalized(weights)
        slope, curvature = (
            quadratic_model.slope / quadratic_model.samples,
            quadratic_model.curvature / quadratic_model.samples,
        )
        for a, way in enumerate(ways):
            slope[a] += 2 * self.settings.ridge * _dot(penalized, self._penalized(way))
            for b, other in enumerate(ways):
                ridge = 2 * self.settings.ridge * _dot(self._penalized(way), self._penalized(other))
                curvature[a, b] += ridge + sum(
                    rho * self.sigma * float(np.vdot(u, v))
                    for rho, u, v in zip(self.rho, way, other, strict=True)
                )
        if not (np.isfinite(curvature).all() and np.isfinite(slope).all() and curvature[0, 0] > 0):
            return np.zeros(2)
        if np.linalg.det(curvature) <= 1e-6 * curvature[0, 0] * curvature[1, 1]:
            return np.array([-slope[0] / curvature[0, 0], 0.0])
        step_coefficients: Array = np.linalg.solve(curvature, -slope)
        return step_coefficients

    def _penalized(self, weights: Weights) -> Weights:
        """The weights that the ridge holds, the others zero."""
        if self.settings.penalize_bias or not self.settings.ridge:
            return weights
        kept = tuple(w.copy() for w in weights)
        for w in kept:
            w[:, -1] = 0
        return kept


def _cholesky(lower: Array, damping: float) -> Any:
    """Cholesky factor of a mean given by its lower triangle, made in float64, kept in the mean's own dtype.

    Damping below the rounding of a sum in that dtype would leave noise to be inverted, and what many rows have added
    up to may be more than one expects: then it grows until there is a factor.
    """
    matrix = lower.astype(np.float64)
    rounding = len(matrix) * float(np.finfo(lower.dtype).eps) * float(np.diagonal(matrix).max())
    added = max(damping, rounding) or 1.0
    while True:
        matrix.flat[:: len(matrix) + 1] += added
        try:
            factor, _ = cho_factor(matrix, lower=True, check_finite=False)
        except LinAlgError:
            added *= 10
            continue
        return factor.astype(lower.dtype), True


def _dot(first: Weights, second: Weights) -> float:
    return float(sum(float(np.vdot(u, v)) for u, v in zip(first, second, strict=True)))
