"""The original method's z-update: a dense Newton step on the exact Hessian, one matrix per sample.

With the pre-activations z = (z_1, …, z_L) of one sample side by side, D = Σ d_i numbers, W_i without the bias
column, D_i = diag φ_i'(z_i) and residuals r_i = z_i − W_i φ_{i−1}(z_{i−1}) − b_i, the function

    F(z) = ℓ(φ_L(z_L), y) + Σ_i μ_i ‖r_i‖²

has the gradient

    ∂F/∂z_i = 2μ_i r_i − 2μ_{i+1} D_i W_{i+1}ᵀ r_{i+1}    (i < L),        ∂F/∂z_L = 2μ_L r_L + ∇ℓ

and the block tridiagonal Hessian

    (i, i)      2μ_i I + 2μ_{i+1} D_i W_{i+1}ᵀ W_{i+1} D_i − 2μ_{i+1} diag(φ_i''(z_i) ∘ W_{i+1}ᵀ r_{i+1})
    (L, L)      2μ_L I + ∇²ℓ
    (i, i−1)    −2μ_i W_i D_{i−1}

that is, 2 JᵀMJ + E: what the penalties on residual steps s = Jδ cost, positive definite, and a rest E that is
diagonal but for the centred curvature of softmax, and negative where residuals or output errors are large.

Everything here is float64 whatever the weights are. It is meant for small networks, and as an oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.network import Network
from altmin_dask.networks.point import Point
from altmin_dask.solvers.linalg import cholesky, cholesky_solve
from altmin_dask.solvers.line_search import Step
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.types import Array, Weights

SLAB_BYTES = 1 << 25
"""Samples whose Hessians take this much are factorised together (one, where a single Hessian is larger).

Memory beyond arrays of z's own size stays below twice this (or six Hessians).
"""

CURVATURE_FLOOR = 1e-4
"""The least curvature trusted, relative to what the penalties make of the same step."""


def gradient(
    network: Network, weights: Weights, mu: Sequence[float], point: Point, targets: Targets
) -> Array:
    """∇F of every sample.

    Parameters
    ----------
    network, weights, mu
        As in `altmin_dask.solvers.gauss_newton.update`.
    point : Point
        Where; n samples.
    targets : Targets
        As `loss.targets` gives them.

    Returns
    -------
    ndarray, (n, D), float64
        D = Σ d_i, layers side by side.
    """
    return _expand(network, weights, mu, point, targets).gradient


def hessian(network: Network, weights: Weights, mu: Sequence[float], point: Point, targets: Targets) -> Array:
    """∇²F of every sample, in full.

    Parameters
    ----------
    network, weights, mu, point, targets
        As in `gradient`.

    Returns
    -------
    ndarray, (n, D, D), float64
        Symmetric, not definite in general.
    """
    return _expand(network, weights, mu, point, targets).hessian(slice(None))


def exact_step(
    network: Network,
    weights: Weights,
    mu: Sequence[float],
    point: Point,
    targets: Targets,
    settings: NewtonSettings,
    *,
    residuals: bool = False,
) -> Step:
    """Make the Newton step δ = −(∇²F + damping · 2 JᵀMJ)⁻¹ ∇F, one of descent even where that is indefinite.

    By Cholesky where the matrix is positive definite and its curvature along the step is at least
    `CURVATURE_FLOOR` times Σ m_i ‖s_i‖², m_i = 2μ_i (1 + damping), s = Jδ. Elsewhere in the coordinates
    u_i = √m_i s_i, where the matrix is the identity plus the transformed E: its eigenvalues are replaced by
    their absolute values, or by `CURVATURE_FLOOR` where those are smaller, so negative curvature is followed
    downhill.

    The damping is that of `altmin_dask.solvers.gauss_newton.gauss_newton_step`: where E is the Gauss–Newton
    curvature of the loss alone (linear layers, or no residual but the first), both give the same step.

    Parameters
    ----------
    network, weights, mu, point, targets
        As in `gradient`.
    settings : NewtonSettings
        Of which only `damping` matters.
    residuals : bool
        Whether to say what the step makes of the residuals, too.

    Returns
    -------
    Step
        In the weights' dtype, with ∇F·δ ≤ 0 for every sample.
    """
    expansion = _expand(network, weights, mu, point, targets, settings.damping)
    delta = np.zeros_like(expansion.gradient)
    n, size = delta.shape
    slab = max(1, SLAB_BYTES // (8 * size * size))
    for start in range(0, n, slab):
        rows = np.arange(start, min(start + slab, n))
        delta[rows] = expansion.cholesky_step(rows)
        fit = -np.vecdot(delta[rows], expansion.gradient[rows])
        trusted = fit >= CURVATURE_FLOOR * expansion.penalty(rows, delta[rows])
        rows = rows[~trusted & np.isfinite(expansion.gradient[rows]).all(axis=1)]
        few = max(1, slab // 4)  # as eigenvalues take six matrices a sample
        for first in range(0, len(rows), few):
            part = rows[first : first + few]
            delta[part] = expansion.saddle_step(part)
    dtype = weights[0].dtype
    slope = np.vecdot(expansion.gradient, delta)
    layers = np.split(delta, np.cumsum(network.widths)[:-1], axis=1)
    moves = expansion.residual_steps(slice(None), delta) if residuals else ()
    return Step(
        [layer.astype(dtype) for layer in layers],
        slope.astype(dtype),
        [s.astype(dtype) for s in moves] if residuals else None,
    )


@dataclass(frozen=True)
class _Expansion:
    """F to second order around z, and what its matrices are made of.

    Attributes
    ----------
    m : list of float
        2μ_i (1 + damping).
    matrices : list of ndarray, (d_i, d_{i−1})
        W_i.
    slopes : list of ndarray, (n, d_i)
        φ_i' of the hidden layers.
    bend : ndarray, (n, D)
        The diagonal part of E.
    centre : ndarray (n, d_L) or None
        c where the block (L, L) of E also holds −c cᵀ.
    gradient : ndarray, (n, D)
        ∇F.
    """

    m: list[float]
    matrices: list[Array]
    slopes: list[Array]
    bend: Array
    centre: Array | None
    gradient: Array

    @property
    def places(self) -> list[slice]:
        """Where each layer stands among the D coordinates."""
        ends = np.cumsum([len(w) for w in self.matrices]).tolist()
        return [slice(end - len(w), end) for end, w in zip(ends, self.matrices, strict=True)]

    def hessian(self, rows: Array | slice) -> Array:
        """Σ_i m_i s_iᵀs_i and E in one matrix for each of the rows, (rows, D, D)."""
        bend = self.bend[rows]
        n, size = bend.shape
        matrix = np.zeros((n, size, size))
        diagonal = matrix.reshape(n, size * size)[:, :: size + 1]
        diagonal += bend
        before = slice(0, 0)
        for layer, (here, m) in enumerate(zip(self.places, self.m, strict=True)):
            diagonal[:, here] += m
            if layer:
                slope = self.slopes[layer - 1][rows]
                w = self.matrices[layer]
                coupling = (-m * w) * slope[:, None, :]
                matrix[:, here, before] = coupling
                matrix[:, before, here] = coupling.transpose(0, 2, 1)
                matrix[:, before, before] += (m * (w.T @ w)) * slope[:, :, None] * slope[:, None, :]
            before = here
        if self.centre is not None:
            centre = self.centre[rows]
            matrix[:, before, before] -= centre[:, :, None] * centre[:, None, :]
        return matrix

    def residual_steps(self, rows: Array | slice, delta: Array) -> Iterator[Array]:
        """s_1 … s_L of steps δ, (rows, d_i) each."""
        before = slice(0, 0)
        for layer, here in enumerate(self.places):
            s = delta[:, here]
            if layer:
                s = s - (delta[:, before] * self.slopes[layer - 1][rows]) @ self.matrices[layer].T
            yield s
            before = here

    def penalty(self, rows: Array, delta: Array) -> Array:
        """Σ_i m_i ‖s_i‖² of steps δ, (rows,)."""
        total = np.zeros(len(delta))
        for m, s in zip(self.m, self.residual_steps(rows, delta), strict=True):
            total += m * np.vecdot(s, s)
        return total

    def cholesky_step(self, rows: Array) -> Array:
        """−matrix⁻¹ ∇F of the rows, NaN where the matrix is not positive definite, (rows, D)."""
        out = np.full((len(rows), self.bend.shape[1]), np.nan)
        for matrix, pull, step in zip(self.hessian(rows), self.gradient[rows], out, strict=True):
            factor = cholesky(matrix)
            if factor is not None:
                step[:] = -cholesky_solve(factor, pull)
        return out

    def saddle_step(self, rows: Array) -> Array:
        """Step by the absolute value of the matrix in residual coordinates, (rows, D)."""
        inverse = self._inverse(rows)
        matrix = inverse.transpose(0, 2, 1) @ (self.bend[rows][:, :, None] * inverse)
        if self.centre is not None:
            image = self.centre[rows][:, None] @ inverse[:, self.places[-1]]
            matrix -= image.transpose(0, 2, 1) * image
        values, vectors = np.linalg.eigh(matrix)
        basis = inverse @ vectors
        pull = self.gradient[rows][:, None] @ basis
        pull /= -np.maximum(np.abs(1 + values), CURVATURE_FLOOR)[:, None]
        out: Array = (basis @ pull.transpose(0, 2, 1))[:, :, 0]
        return out

    def _inverse(self, rows: Array) -> Array:
        """Write u ↦ δ, δ_i = u_i / √m_i + W_i D_{i−1} δ_{i−1}, as a matrix, (rows, D, D)."""
        size = self.bend.shape[1]
        out = np.zeros((len(rows), size, size))
        out.reshape(len(rows), size * size)[:, :: size + 1] = np.repeat(
            [1 / np.sqrt(m) for m in self.m], [len(w) for w in self.matrices]
        )
        places = self.places
        for layer, slope in enumerate(self.slopes):
            before, here = places[layer], places[layer + 1]
            known = out[:, before, : before.stop]
            out[:, here, : before.stop] = (self.matrices[layer + 1] * slope[rows][:, None, :]) @ known
        return out


def _expand(
    network: Network,
    weights: Weights,
    mu: Sequence[float],
    point: Point,
    targets: Targets,
    damping: float = 0.0,
) -> _Expansion:
    matrices = [layer.matrix(w).astype(np.float64) for layer, w in zip(network.layers, weights, strict=True)]
    pulls = [2 * float(weight) * r.astype(np.float64) for weight, r in zip(mu, point.residuals, strict=True)]
    slopes, bends, gradients = [], [], []
    for layer, activation in enumerate(network.activations):
        z, a = (parts[layer].astype(np.float64) for parts in (point.z, point.values))
        slopes.append(activation.derivative(z, a))
        back = pulls[layer + 1] @ matrices[layer + 1]
        bends.append(-activation.second_derivative(z, a) * back)
        gradients.append(pulls[layer] - slopes[layer] * back)
    z, output = point.z[-1].astype(np.float64), point.output.astype(np.float64)
    curvature = network.loss.hessian(z, output, targets)
    gradients.append(pulls[-1] + network.loss.gradient(z, output, targets))
    bends.append(curvature.weights)
    q = curvature.weights
    return _Expansion(
        m=[2 * float(weight) * (1 + damping) for weight in mu],
        matrices=matrices,
        slopes=slopes,
        bend=np.concatenate(bends, axis=1),
        centre=q / np.sqrt(q.sum(axis=1, keepdims=True)) if curvature.centred else None,
        gradient=np.concatenate(gradients, axis=1),
    )
