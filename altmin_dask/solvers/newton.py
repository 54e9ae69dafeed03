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
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from altmin_dask.networks.activations import Array
from altmin_dask.networks.chain import Chain, Linearisation, Point, Weights, augmented
from altmin_dask.networks.losses import Curvature
from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers.exact import exact_step


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
    work: Workspace | None = None,
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
    work : Workspace, optional
        Where the arrays of the result are kept, until its next use; by default they are the caller's.

    Returns
    -------
    ZUpdate
    """
    work = work or Workspace()
    inputs = augmented(x, weights[0].dtype, work)
    target = x.reshape(len(x), -1) if y is None else y
    if np.issubdtype(target.dtype, np.floating):
        target = target.astype(inputs.dtype, copy=False)
    drive = work.take("drive", len(x), network.widths[0], inputs.dtype)
    block = _Block(network, weights, mu, inputs, np.matmul(inputs, weights[0].T, out=drive), target, work)
    step = exact_step if settings.curvature == "exact" else partial(gauss_newton_step, work=work)
    start = point = block.evaluate(z, "start")
    before = after = objective(start, mu)
    shortened = 0
    for number in range(settings.newton_steps):
        delta, slope = step(network, weights, mu, point, target, settings)
        point, after, cut = _line_search(block, point, after, delta, slope, settings, f"trial {number % 2}")
        shortened += cut
    return ZUpdate(start, point, before, after, shortened)


@dataclass(frozen=True)
class _Block:
    """What is fixed while the z of a block of samples moves."""

    network: Chain
    weights: Weights
    mu: Sequence[float]
    inputs: Array
    drive: Array
    y: Array
    work: Workspace

    def evaluate(self, z: list[Array], name: str) -> Point:
        return self.network.evaluate(self.weights, self.inputs, self.drive, self.y, z, self.work, name)

    def rows(self, rows: Array) -> _Block:
        return replace(self, inputs=self.inputs[rows], drive=self.drive[rows], y=self.y[rows])


def gauss_newton_step(
    network: Chain,
    weights: Weights,
    mu: Sequence[float],
    point: Point,
    y: Array,
    settings: NewtonSettings,
    work: Workspace | None = None,
) -> tuple[list[Array], Array]:
    """The (truncated) Gauss–Newton step δ_1 … δ_L at a point and the slope ∇F·δ of every sample.

    Exact once CG has converged; for a d-dimensional output that takes at most d + 1 iterations.
    """
    work = work or Workspace()
    number = weights[0].dtype.type
    m = [2 * weight * (1 + settings.damping) for weight in mu]
    gradient = network.loss.gradient(point.z[-1], point.output, y, work)
    curvature = network.loss.curvature(point.output, y, work)

    # The output step alone, hidden ones held: (m + H) s_L = −(g + 2μ r_L), and the model's gradient in e there.
    r_output = point.residuals[-1]
    pull = np.multiply(r_output, number(2 * mu[-1]), out=work.like("pull", r_output))
    pull += gradient
    s_output = curvature.solve(m[-1], pull, out=work.like("step", pull))
    np.negative(s_output, out=s_output)
    if not network.activations:
        return [s_output], np.vecdot(pull, s_output)
    at_output = curvature.apply(s_output, out=work.like("at output", pull))
    at_output += gradient

    linearisation = network.linearise(weights, point, m, work)
    hidden_gradient = linearisation.adjoint(at_output)
    # 2μ r / √m, both in the gradient and in the slope along u
    pulls = [
        np.multiply(r, number(2 * weight / np.sqrt(m_i)), out=work.like(f"pull {layer}", r))
        for layer, (r, weight, m_i) in enumerate(zip(point.residuals[:-1], mu, m, strict=False))
    ]
    for back, hidden_pull in zip(hidden_gradient, pulls, strict=True):
        back += hidden_pull
    smoothed = curvature.smoothed(m[-1], out=at_output)
    u, steps, e = _conjugate_gradients(linearisation, smoothed, hidden_gradient, settings)

    # Back to δ, the output step now answering e: (m + H) δ_L = m e − (g + 2μ r_L).
    shift = curvature.solve(m[-1], e, out=work.like("shift", e))
    shift *= number(m[-1])
    s_output += shift
    slope = np.vecdot(pull, s_output) - number(2 * mu[-1]) * np.vecdot(r_output, e)
    for hidden_pull, scaled, step, m_i in zip(pulls, u, steps, m, strict=False):
        slope += np.vecdot(hidden_pull, scaled)
        step *= number(1 / np.sqrt(m_i))
    return [*steps, s_output], slope


def _conjugate_gradients(
    linearisation: Linearisation, curvature: Curvature, gradient: list[Array], settings: NewtonSettings
) -> tuple[list[Array], list[Array], Array]:
    """Minimise gradientᵀu + ½‖u‖² + ½ (Ku)ᵀH̃(Ku) from u = 0, each sample by itself.

    Returns u, the scaled hidden steps it causes, and e = Ku. ‖p‖² is carried along: residuals are orthogonal to
    the directions before them.
    """
    work, layers = linearisation.work, range(len(gradient))
    residual = [np.negative(g, out=work.like(f"cg residual {i}", g)) for i, g in zip(layers, gradient, strict=True)]
    direction = [work.like(f"cg direction {i}", r) for i, r in zip(layers, residual, strict=True)]
    u = [work.like(f"cg u {i}", r) for i, r in zip(layers, residual, strict=True)]
    steps = [work.like(f"cg step {i}", r) for i, r in zip(layers, residual, strict=True)]
    e = work.like("cg e", curvature.weights)
    bent = work.like("cg bent", curvature.weights)
    for p, r in zip(direction, residual, strict=True):
        p[...] = r
    square = direction_square = _norm_squared(residual)
    goal = square * settings.cg_tolerance**2
    for iteration in range(settings.cg_iterations):
        active = square > goal
        if iteration and not active.any():
            break
        moved, image = linearisation.tangent(direction)
        curvature.apply(image, out=bent)
        length = direction_square + np.vecdot(image, bent)
        alpha = np.divide(square, length, out=np.zeros_like(square), where=active & (length > 0))[:, None]
        last = iteration + 1 == settings.cg_iterations
        if not last:
            for r, p, back in zip(residual, direction, linearisation.adjoint(bent), strict=True):
                back += p
                back *= alpha
                r -= back
        # the first hidden step is u_1 itself
        for total, part in zip((*u, *steps[1:], e), (*direction, *moved[1:], image), strict=True):
            if iteration == 0:
                np.multiply(alpha, part, out=total)
            else:
                total += np.multiply(alpha, part, out=work.like("cg scratch", part))
        if last:
            break
        previous, square = square, _norm_squared(residual)
        beta = np.divide(square, previous, out=np.zeros_like(square), where=previous > 0)
        direction_square = square + beta**2 * direction_square
        for r, p in zip(residual, direction, strict=True):
            p *= beta[:, None]
            p += r
    steps[0][...] = u[0]
    return u, steps, e


def _norm_squared(arrays: list[Array]) -> Array:
    total: Array = np.vecdot(arrays[0], arrays[0])
    for array in arrays[1:]:
        total += np.vecdot(array, array)
    return total


def _line_search(
    block: _Block,
    point: Point,
    before: Array,
    delta: list[Array],
    slope: Array,
    settings: NewtonSettings,
    name: str,
) -> tuple[Point, Array, int]:
    """Backtrack every sample until Armijo holds on the true F_k; what cannot improve stays where it was."""
    moved = [
        np.add(z, step, out=block.work.like(f"{name} z {layer}", step))
        for layer, (z, step) in enumerate(zip(point.z, delta, strict=True))
    ]
    trial = block.evaluate(moved, name)
    after = objective(trial, block.mu)
    # Below rounding a slope says nothing, and neither does the F it would be compared with.
    tried = slope < -8 * np.finfo(before.dtype).eps * before
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
        shorter = block.rows(rows).evaluate(z, "shortened")
        value = objective(shorter, block.mu)
        good = value <= before[rows] + settings.armijo * t * slope[rows]
        trial.assign(rows[good], shorter, good)
        after[rows[good]] = value[good]
        rows = rows[~good]
    return trial, after, cut
