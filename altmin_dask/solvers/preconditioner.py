"""The direction of a K-FAC step, and how far it goes (`altmin_dask.solvers.kfac` has the formulas)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from altmin_dask.solvers.factors import input_factor, output_factor
from altmin_dask.solvers.kfac import KFACSettings, KFACState
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel, without_bias
from altmin_dask.solvers.row_space import RowSpace
from altmin_dask.types import Array, Each, Weights

PARALLEL = 1e-6
"""D and the step before are taken for parallel when the determinant of their curvature, relative to what it is for
orthogonal ones, is smaller; then only α is asked for."""


class KroneckerPreconditioner:
    """(S̄_i + σI) and (Ḡ_i + ρ_i I) of all layers, to be solved with.

    Parameters
    ----------
    state : KFACState
        With the factors, once they have been measured, and how much more damping there is to be.
    settings : KFACSettings
        The damping.
    space : RowSpace, optional
        The samples, where the first input factor is known by weights of theirs.
    each : callable
        Goes through factors and layers, which know nothing of each other.
    """

    def __init__(
        self, state: KFACState, settings: KFACSettings, space: RowSpace | None = None, each: Each = map
    ) -> None:
        self.each = each
        self.settings, scale = settings, state.damping_scale
        self.sigma = scale * settings.sigma(state)
        damping = scale * settings.input_damping
        make = [
            *(partial(input_factor, g, damping, space) for g in state.input_factors),
            *(partial(output_factor, s, self.sigma) for s in state.output_factors),
        ]
        factors = list(each(_called, make))
        self.inputs, self.outputs = factors[: len(factors) // 2], factors[len(factors) // 2 :]
        self.rho = [factor.rho for factor in self.inputs]

    def direction(self, sums: KroneckerSums, weights: Weights) -> Weights:
        """D_1 … D_L, for the sums of a group and the weights of the moment."""
        n, ridge = sums.totals[0], self.settings.ridge

        def of_layer(layer: int) -> Array:
            inner = self.inputs[layer].solve(sums.negative_gradient[layer], n, ridge, penalized[layer])
            return self.outputs[layer].solve(inner)

        penalized = self._penalized(weights)
        return tuple(self.each(of_layer, range(len(weights))))

    def signal_and_noise(
        self, sums: KroneckerSums, half: KroneckerSums, weights: Weights, direction: Weights
    ) -> tuple[float, float]:
        """How much of what a step goes by, ⟨D, −∇⟩, all samples agree upon, and how much is noise of those it has.

        Of the two halves of a group, a and b, noise is not in both: ⟨D_a, −∇_b⟩ has none (McCandlish et al. 2018, "An
        empirical model of large-batch training", in the metric of the step).

        Parameters
        ----------
        sums, half : KroneckerSums
            Of the group, and of the first of its halves.
        weights, direction : tuple of ndarray
            Those of the moment, and D.
        """
        first, n = self.direction(half, weights), float(sums.totals[0])
        rest, penalized = n - float(half.totals[0]), self._penalized(weights)
        signal = whole = 0.0
        for layer, w in enumerate(penalized):
            ridge = w.dtype.type(2 * self.settings.ridge) * w
            total, own = sums.negative_gradient[layer], half.negative_gradient[layer]
            signal += float(np.vdot(first[layer], (total - own) / rest - ridge))
            whole += float(np.vdot(direction[layer], total / n - ridge))
        return signal, whole - signal

    def step_coefficients(
        self, model: QuadraticModel, weights: Weights, direction: Weights, repeated: Weights
    ) -> Array:
        """(α, β) that minimise the model of the nested loss, ridge and damping included.

        Of the damping, ρ_i σ ‖·‖² is held against a step: what Kronecker factors add to a curvature that vanishes.

        Parameters
        ----------
        model : QuadraticModel
            Along D and W̃ − W̃_previous.
        weights, direction, repeated : tuple of ndarray
            W̃, D and W̃ − W̃_previous.

        Returns
        -------
        ndarray, (2,)
            Zeros, where the model is not finite or has no minimum.
        """
        ways, penalized = (direction, repeated), self._penalized(weights)
        slope, curvature = model.slope / model.samples, model.curvature / model.samples
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
        if np.linalg.det(curvature) <= PARALLEL * curvature[0, 0] * curvature[1, 1]:
            return np.array([-slope[0] / curvature[0, 0], 0.0])
        coefficients: Array = np.linalg.solve(curvature, -slope)
        return coefficients

    def _penalized(self, weights: Weights) -> Weights:
        """The weights that the ridge holds, the others zero."""
        if self.settings.penalize_bias or not self.settings.ridge:
            return weights
        return tuple(map(without_bias, weights))


class PreconditionerCache:
    """The preconditioner of a state, made anew only when its factors or its damping are no longer the same."""

    def __init__(self, settings: KFACSettings, each: Each = map) -> None:
        self.settings, self.each = settings, each
        self.space: RowSpace | None = None
        """As a preconditioner takes it."""
        self._known: tuple[tuple[int, float], KroneckerPreconditioner] | None = None

    def of(self, state: KFACState) -> KroneckerPreconditioner:
        """That of a state whose curvature has been measured."""
        key = state.curvature_updates, state.damping_scale
        if self._known is None or self._known[0] != key:
            self._known = key, KroneckerPreconditioner(state, self.settings, self.space, self.each)
        return self._known[1]


def _called(make: Callable[[], Any]) -> Any:
    return make()


def _dot(first: Weights, second: Weights) -> float:
    return float(sum(float(np.vdot(u, v)) for u, v in zip(first, second, strict=True)))
