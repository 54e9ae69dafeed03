"""The z-update: joint damped Gauss–Newton over all layers of every sample, matrix-free, for a block of samples.

For one sample, F_k(z) = ℓ(φ_L(z_L), y) + Σ_i μ_i ‖r_i‖². A step δ changes the residuals by
s_i = δ_i − W_i D_{i−1} δ_{i−1}, and the Gauss–Newton model is, with g and H of ℓ at z_L,

    gᵀδ_L + ½ δ_Lᵀ H δ_L + Σ_i μ_i ‖r_i + s_i‖² + damping Σ_i μ_i ‖s_i‖²,    m_i = 2 μ_i (1 + damping).

δ_L = e + s_L with e = W_L D_{L−1} δ_{L−1}. The output step s_L is minimised out in closed form, which leaves the
hidden s_1 … s_{L−1} with a smoothed curvature H̃ = (H⁻¹ + I/m_L)⁻¹ at the output. In the scaled u_i = √m_i s_i the
matrix is I + KᵀH̃K, the identity plus a positive part, and conjugate gradients from u = 0 (each sample with its own
step lengths) decrease the model at every iteration: however few are made, the step is one of descent. One iteration
is one tangent and one adjoint sweep, two matrix products a layer for the whole block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from altmin_dask.networks.activations import Array
from altmin_dask.networks.chain import Chain, Point, Weights, augmented


@dataclass(frozen=True)
class NewtonSettings:
    """How far a z-update goes.

    Attributes
    ----------
    newton_steps : int
        Linearisations per visit.
    cg_iterations : int
        At most this many conjugate-gradient iterations per step.
    cg_tolerance : float
        A sample stops iterating when its CG residual has fallen by this factor.
    damping : float
        Levenberg–Marquardt damping in residual coordinates, relative to μ_i.
    curvature : {"gauss_newton", "exact"}
        "exact" is a dense Newton step per sample on the true Hessian (`altmin_dask.solvers.exact`).
    armijo, backtrack : float
        A step t is accepted when F falls by ``armijo * t`` times the slope; else t shrinks by ``backtrack``.
    max_backtracks : int
        After this many reductions a sample stays where it was.
    """

    newton_steps: int = 1
    cg_iterations: int = 3
    cg_tolerance: float = 0.0
    damping: float = 0.0
    curvature: str = "gauss_newton"
    armijo: float = 0.2
    backtrack: float = 0.25
    max_backtracks: int = 10


@dataclass(frozen=True)
class ZUpdate:
    """The outcome of one z-update of a block of n samples.

    Attributes
    ----------
    start, end : Point
        Before and after, under the same weights.
    objective_before, objective_after : ndarray, (n,)
        F_k of every sample; after ≤ before, sample by sample.
    shortened : int
        How many sample steps were cut by backtracking (those that stayed put included).
    """

    start: Point
    end: Point
    objective_before: Array
    objective_after: Array
    shortened: int


def objective(point: Point, mu: Sequence[float]) -> Array:
    """F_k = ℓ + Σ_i μ_i ‖r_i‖² of every sample, (n,)."""
    total = point.loss.copy()
    for weight, residual in zip(mu, point.residuals, strict=True):
        total += weight * np.vecdot(residual, residual)
    return total


def update(
    network: Chain,
    weights: Weights,
    mu: Sequence[float],
    x: Array,
    y: Array | None,
    z: list[Array],
    settings: NewtonSettings,
) -> ZUpdate:
    """Improve z for a block of samples; the arrays given are not changed.

    Parameters
    ----------
    network, weights : Chain, tuple of ndarray
        The model; the weights' dtype is that of the computation.
    mu : sequence of float
        μ_1 … μ_L.
    x : ndarray, (n, …)
        Samples.
    y : ndarray, (n, d_L) or labels (n,), or None
        Targets; None means the samples themselves.
    z : list of ndarray, (n, d_i)
        Pre-activations to start from.
    settings : NewtonSettings
        How far to go.

    Returns
    -------
    ZUpdate
    """
    from altmin_dask.solvers.exact import exact_step

    inputs = augmented(x, weights[0].dtype)
    target = inputs[:, :-1] if y is None else y
    drive = inputs @ weights[0].T
    step = exact_step if settings.curvature == "exact" else gauss_newton_step
    start = point = network.evaluate(weights, inputs, drive, target, z)
    before = after = objective(start, mu)
    shortened = 0
    for _ in range(settings.newton_steps):
        delta, slope = step(network, weights, mu, point, target, settings)
        point, after, cut = _line_search(
            network, weights, mu, inputs, drive, target, point, after, delta, slope, settings
        )
        shortened += cut
    return ZUpdate(start, point, before, after, shortened)


def gauss_newton_step(
    network: Chain,
    weights: Weights,
    mu: Sequence[float],
    point: Point,
    y: Array,
    settings: NewtonSettings,
) -> tuple[list[Array], Array]:
    """The (truncated) Gauss–Newton step δ_1 … δ_L at a point and the slope ∇F·δ of every sample.

    Exact once CG has converged; for a d-dimensional output that takes at most d + 1 iterations.
    """
    dtype = weights[0].dtype
    m = [2 * weight * (1 + settings.damping) for weight in mu]
    two_mu_r = [dtype.type(2 * weight) * r for weight, r in zip(mu, point.residuals, strict=True)]
    gradient = network.loss.gradient(point.z[-1], point.output, y)
    curvature = network.loss.curvature(point.output, y)

    # The output step alone, hidden ones held: (m + H) s_L = −(g + 2μ r_L), and the model's gradient in e there.
    pull = gradient + two_mu_r[-1]
    s_output = curvature.solve(m[-1], pull)
    np.negative(s_output, out=s_output)
    if not network.activations:
        return [s_output], np.vecdot(pull, s_output)
    at_output = curvature.apply(s_output)
    at_output += gradient

    linearisation = network.linearise(weights, point, m)
    hidden_gradient = linearisation.adjoint(at_output)
    for layer, back in enumerate(hidden_gradient):
        back += two_mu_r[layer] * dtype.type(1 / np.sqrt(m[layer]))
    u, steps, e = _conjugate_gradients(
        linearisation.tangent, linearisation.adjoint, curvature.smoothed(m[-1]), hidden_gradient, settings
    )

    # Back to δ, the output step now answering e: (m + H) δ_L = m e − (g + 2μ r_L).
    shift = curvature.solve(m[-1], e)
    shift *= dtype.type(m[-1])
    s_output += shift
    slope = np.vecdot(gradient, s_output) + np.vecdot(two_mu_r[-1], s_output - e)
    for layer, scaled in enumerate(u):
        root = dtype.type(1 / np.sqrt(m[layer]))
        slope += np.vecdot(two_mu_r[layer], scaled) * root
        steps[layer] *= root
    return [*steps, s_output], slope


def _conjugate_gradients(tangent, adjoint, curvature, gradient, settings):  # type: ignore[no-untyped-def]
    """Minimise gradientᵀu + ½‖u‖² + ½ (Ku)ᵀH̃(Ku) from u = 0, each sample by itself.

    Returns u, the scaled hidden steps it causes, and e = Ku. ‖p‖² is carried along: residuals are orthogonal to
    the directions before them.
    """
    residual = [-g for g in gradient]
    direction = [r.copy() for r in residual]
    square = sum(np.vecdot(r, r) for r in residual)
    goal = square * settings.cg_tolerance**2
    direction_square = square.copy()
    u: list[Array] = []
    for iteration in range(settings.cg_iterations):
        active = square > goal
        if not active.any():
            break
        moved, image = tangent(direction)
        bent = curvature.apply(image)
        length = direction_square + np.vecdot(image, bent)
        alpha = np.divide(square, length, out=np.zeros_like(square), where=active & (length > 0))[:, None]
        if not u:
            u = [alpha * p for p in direction]
            steps = [u[0].copy(), *(alpha * s for s in moved[1:])]
            e = alpha * image
        else:
            for total, part in zip((*u, *steps[1:], e), (*direction, *moved[1:], image), strict=True):
                total += alpha * part
            steps[0] = u[0].copy()
        if iteration + 1 == settings.cg_iterations:
            break
        for r, p, back in zip(residual, direction, adjoint(bent), strict=True):
            back += p
            back *= alpha
            r -= back
        previous, square = square, sum(np.vecdot(r, r) for r in residual)
        beta = np.divide(square, previous, out=np.zeros_like(square), where=previous > 0)
        direction_square = square + beta**2 * direction_square
        for r, p in zip(residual, direction, strict=True):
            p *= beta[:, None]
            p += r
    if not u:
        u = [np.zeros_like(g) for g in gradient]
        steps, e = tangent(u)
    return u, steps, e


def _line_search(  # type: ignore[no-untyped-def]
    network, weights, mu, inputs, drive, y, point, before, delta, slope, settings
):
    """Backtrack every sample until Armijo holds on the true F_k; what cannot improve stays where it was."""
    trial = network.evaluate(
        weights, inputs, drive, y, [z + step for z, step in zip(point.z, delta, strict=True)]
    )
    after = objective(trial, mu)
    # Below rounding a slope says nothing, and neither does the F it would be compared with.
    tried = slope < -np.finfo(before.dtype).eps * before
    with np.errstate(invalid="ignore"):
        accepted = tried & (after <= before + settings.armijo * slope)
    rejected = np.flatnonzero(~accepted)
    if not rejected.size:
        return trial, after, 0
    trial.assign(rejected, point, rejected)
    after[rejected] = before[rejected]
    rows = np.flatnonzero(tried & ~accepted)
    cut, t = rows.size, 1.0
    for _ in range(settings.max_backtracks):
        if not rows.size:
            break
        t *= settings.backtrack
        z = [p[rows] + before.dtype.type(t) * step[rows] for p, step in zip(point.z, delta, strict=True)]
        shorter = network.evaluate(weights, inputs[rows], drive[rows], y[rows], z)
        value = objective(shorter, mu)
        good = value <= before[rows] + settings.armijo * t * slope[rows]
        trial.assign(rows[good], shorter, good)
        after[rows[good]] = value[good]
        rows = rows[~good]
    return trial, after, cut
