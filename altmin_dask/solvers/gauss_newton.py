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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from altmin_dask.networks.activations import negated
from altmin_dask.networks.linearisation import Linearisation
from altmin_dask.networks.losses import Curvature
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.network import Network
from altmin_dask.networks.point import Point
from altmin_dask.networks.workspace import ArraySpec, Workspace, strips
from altmin_dask.solvers.exact_newton import exact_step
from altmin_dask.solvers.line_search import BlockProblem, Step, line_search, objective
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.types import Array, Batch, Weights


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
    slope : ndarray, (n,)
        ∇F_k·δ of the first step, uncut: minus twice what its model promises, and nought where z is stationary.
    offsets : list of ndarray, (n, d_i), or None
        o_1 … o_L, if residuals were shifted.
    """

    start: Point
    end: Point
    objective_before: Array
    objective_after: Array
    shortened: int
    slope: Array
    offsets: list[Array] | None = None


def update(
    network: Network,
    weights: Weights,
    mu: Sequence[float],
    batch: Batch,
    z: list[Array] | None,
    settings: NewtonSettings,
    work: Workspace | None = None,
    *,
    shift: Callable[[Point], list[Array] | None] | None = None,
) -> ZUpdate:
    """Improve z for a block of samples; the arrays given are not changed.

    Parameters
    ----------
    network, weights : Network, tuple of ndarray
        The model; the weights' dtype is that of the computation.
    mu : sequence of float
        μ_1 … μ_L.
    batch : Batch
        The samples.
    z : list of ndarray, (n, d_i), or None
        Pre-activations to start from; None means a forward pass, where all residuals are exactly zero: those of the
        result are formed from the steps then, and have all their digits however large μ is.
    settings : NewtonSettings
        How far to go.
    work : Workspace, optional
        Where the arrays of the result are kept, until its next use; by default they are the caller's.
    shift : callable, optional
        Gets the point at the given z, changes its residuals (and their squares) to r_i + o_i, and returns o_1 … o_L,
        which are added to all residuals from then on; or leaves them, and returns None.

    Returns
    -------
    ZUpdate
    """
    work = work or Workspace()
    targets = network.loss.targets(batch, weights[0].dtype)
    exactly = z is None
    block = BlockProblem(
        network, weights, mu, network.prepare(weights, batch, work), targets, work, exactly=exactly
    )
    make: Any = exact_step if settings.curvature == "exact" else partial(gauss_newton_step, work=work)
    start = point = block.evaluate(network.forward(weights, batch) if z is None else z, "start")
    if exactly:
        for zero in (*start.residuals, *start.squares):
            zero[...] = 0
    if shift is not None:
        block = replace(block, offsets=shift(start))
    before = after = objective(start, mu)
    shortened, first = 0, np.zeros_like(before)
    for number in range(settings.newton_steps):
        step = make(network, weights, mu, point, targets, settings, residuals=exactly)
        first = first if number else step.slope
        point, after, cut = line_search(block, point, after, step, settings, f"trial {number % 2}")
        shortened += cut
    return ZUpdate(start, point, before, after, shortened, first, block.offsets)


def gauss_newton_step(
    network: Network,
    weights: Weights,
    mu: Sequence[float],
    point: Point,
    targets: Targets,
    settings: NewtonSettings,
    work: Workspace | None = None,
    *,
    residuals: bool = False,
) -> Step:
    """The (truncated) Gauss–Newton step at a point, on demand with what it makes of the `residuals`.

    Exact once CG has converged; for a d-dimensional output that takes at most d + 1 iterations.
    """
    work = work or Workspace()
    m = [2 * weight * (1 + settings.damping) for weight in mu]
    held = _output_step(network, mu[-1], m[-1], point, targets, work)
    if not network.activations:
        return Step([held.step], held.slope, [held.step] if residuals else None)

    linearisation = network.linearise(weights, point, m, work)
    hidden_gradient = linearisation.adjoint(held.gradient)
    for layer, (back, r) in enumerate(zip(hidden_gradient, point.residuals, strict=False)):
        scale = r.dtype.type(2 * mu[layer] / np.sqrt(m[layer]))
        for rows in strips(*r.shape):
            back[rows] += np.multiply(r[rows], scale, out=work.like("pull", r[rows]))
    moves = [work.like(f"cg move {layer}", g) for layer, g in enumerate(hidden_gradient)] if residuals else []
    steps, e, fall = _conjugate_gradients(linearisation, held.smoothed, hidden_gradient, settings, moves)

    # Back to δ, the output step now answering e: (m + H) δ_L = m e − (g + 2μ r_L), and δ_L = e + s_L.
    last = [work.like("output move", e)] if residuals else []
    for rows in strips(*e.shape):
        curvature = network.loss.curvature(point.z[-1][rows], point.output[rows], targets[rows], work)
        for s in last:
            bent = curvature.apply(e[rows], out=work.like("bent", e[rows]))
            np.subtract(held.step[rows], curvature.solve(m[-1], bent), out=s[rows])
        shift = curvature.solve(m[-1], e[rows], out=work.like("shift", e[rows]))
        shift *= e.dtype.type(m[-1])
        held.step[rows] += shift
    for scaled in (steps, moves):
        for step, m_i in zip(scaled, m, strict=False):
            step *= step.dtype.type(1 / np.sqrt(m_i))
    return Step([*steps, held.step], held.slope - fall, [*moves, *last] if residuals else None)


def step_arrays(network: Network, *, residuals: bool = False) -> Iterator[ArraySpec]:
    """What `gauss_newton_step` takes of a workspace."""
    *hidden, out = network.widths
    for name in ("step", "at output", "smoothed", *(("cg e", "cg bent") if hidden else ())):
        yield ArraySpec(name, out)
    for i, d in enumerate(hidden):
        for name in ("cg residual", "cg direction", "cg step", *(("cg move",) if residuals else ())):
            yield ArraySpec(f"{name} {i}", d)
    if residuals and hidden:
        yield ArraySpec("output move", out)
        yield ArraySpec("bent", out, rows="strip")
    for d in network.widths:
        for name in ("pull", "scaled"):
            yield ArraySpec(name, d, rows="strip")
    yield ArraySpec("shift", out, rows="strip")
    yield from Linearisation.arrays(network.layers)
    yield from network.loss.arrays(out, "gradient", "curvature")


@dataclass(frozen=True)
class _OutputStep:
    """The output step s_L alone, hidden ones held: (m + H) s_L = −(g + 2μ r_L).

    `slope` is that of F along it, `gradient` that of the model in e there, and `smoothed` is H̃.
    """

    step: Array
    slope: Array
    gradient: Array
    smoothed: Curvature


def _output_step(
    network: Network, mu: float, m: float, point: Point, targets: Targets, work: Workspace
) -> _OutputStep:
    residual = point.residuals[-1]
    step, gradient, smoothed = (work.like(name, residual) for name in ("step", "at output", "smoothed"))
    slope = np.empty_like(point.loss)
    curvature = Curvature(smoothed)
    for rows in strips(*residual.shape):
        z, a, s, e = point.z[-1][rows], point.output[rows], step[rows], gradient[rows]
        curvature = network.loss.curvature(z, a, targets[rows], work)
        g = network.loss.gradient(z, a, targets[rows], work)
        pull = np.multiply(residual[rows], a.dtype.type(-2 * mu), out=work.like("pull", a))
        pull -= g
        curvature.solve(m, pull, out=s)
        slope[rows] = -np.vecdot(pull, s)
        curvature.apply(s, out=e)
        e += g
        curvature.smoothed(m, out=smoothed[rows])
    return _OutputStep(step, slope, gradient, replace(curvature, weights=smoothed))


def _conjugate_gradients(
    linearisation: Linearisation,
    curvature: Curvature,
    gradient: list[Array],
    settings: NewtonSettings,
    moves: list[Array],
) -> tuple[list[Array], Array, Array]:
    """Minimise gradientᵀu + ½‖u‖² + ½ (Ku)ᵀH̃(Ku) from u = 0, each sample by itself.

    Returns the scaled hidden steps that u causes, e = Ku, and −gradientᵀu; u itself goes into `moves`, unless that is
    empty. ‖p‖² is carried along, as residuals are orthogonal to the directions before them, and so is gradientᵀu:
    gradientᵀp = −‖residual‖² for every direction p.
    """
    work, n, widest = linearisation.work, len(curvature.weights), max(g.shape[1] for g in gradient)
    residual, direction, steps = (
        [work.like(f"cg {name} {layer}", g) for layer, g in enumerate(gradient)]
        for name in ("residual", "direction", "step")
    )
    e, bent = (work.like(name, curvature.weights) for name in ("cg e", "cg bent"))
    square, alpha, beta = (np.empty(n, e.dtype) for _ in range(3))
    for rows in strips(n, widest):
        for g, r, p in zip(gradient, residual, direction, strict=True):
            p[rows] = negated(g[rows], r[rows])
        square[rows] = _norm_squared([r[rows] for r in residual])
    direction_square = square.copy()
    fall = np.zeros_like(square)
    goal = square * settings.cg_tolerance**2
    for iteration in range(settings.cg_iterations):
        active = square > goal
        if iteration and not active.any():
            break
        add = _add_scaled if iteration else _set_scaled
        moved, image = linearisation.tangent(direction)
        for rows in strips(*image.shape):
            curvature[rows].apply(image[rows], out=bent[rows])
            length = direction_square[rows] + np.vecdot(image[rows], bent[rows])
            alpha[rows] = _ratio(square[rows], length, active[rows] & (length > 0))
            add(e[rows], alpha[rows], image[rows], work)
        fall += alpha * square
        last = iteration + 1 == settings.cg_iterations
        back = [] if last else linearisation.adjoint(bent)
        for rows in strips(n, widest):
            for total, part in zip(steps, moved, strict=True):
                add(total[rows], alpha[rows], part[rows], work)
            for total, part in zip(moves, direction, strict=False):
                add(total[rows], alpha[rows], part[rows], work)
            if last:
                continue
            of_strip = [[a[rows] for a in arrays] for arrays in (residual, direction, back)]
            beta[rows], square[rows] = _turn(*of_strip, alpha=alpha[rows], square=square[rows], work=work)
        if last:
            break
        direction_square = square + beta**2 * direction_square
    return steps, e, fall


def _turn(
    residual: list[Array],
    direction: list[Array],
    back: list[Array],
    *,
    alpha: Array,
    square: Array,
    work: Workspace,
) -> tuple[Array, Array]:
    """Take a step α from residuals of squared norm `square` and turn the direction p to β p + r: β, and ‖r‖² then."""
    for r, p, b in zip(residual, direction, back, strict=True):
        b += p
        _add_scaled(r, -alpha, b, work)
    following = _norm_squared(residual)
    beta = _ratio(following, square, square > 0)
    for r, p in zip(residual, direction, strict=True):
        p *= beta[:, None]
        p += r
    return beta, following


def _set_scaled(total: Array, factor: Array, part: Array, work: Workspace) -> None:
    np.multiply(factor[:, None], part, out=total)


def _add_scaled(total: Array, factor: Array, part: Array, work: Workspace) -> None:
    total += np.multiply(factor[:, None], part, out=work.like("scaled", part))


def _ratio(above: Array, below: Array, where: Array) -> Array:
    """The quotient, 0 elsewhere."""
    return np.divide(above, below, out=np.zeros_like(above), where=where)


def _norm_squared(arrays: list[Array]) -> Array:
    total: Array = np.vecdot(arrays[0], arrays[0])
    for array in arrays[1:]:
        total += np.vecdot(array, array)
    return total
