"""What tests of z-updates share: steps of cases, dense algebra, and the original algorithm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from zoo import (
    NETWORKS,
    PAIRINGS,
    Case,
    flat,
    make_case,
    naive_derivatives,
    split,
)

from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers import exact_newton
from altmin_dask.solvers.gauss_newton import gauss_newton_step, update
from altmin_dask.solvers.line_search import BlockProblem
from altmin_dask.solvers.newton_settings import NewtonSettings

CONVERGED = NewtonSettings(cg_iterations=60)


STEPS = {"gauss_newton": gauss_newton_step, "exact": exact_newton.exact_step}


every_network = pytest.mark.parametrize(("sizes", "activations"), NETWORKS.values(), ids=NETWORKS)


every_pairing = pytest.mark.parametrize(("loss", "output"), PAIRINGS, ids=["-".join(p) for p in PAIRINGS])


# minima of the others may be kinks, where no derivative vanishes
smooth_pairings = pytest.mark.parametrize(
    ("loss", "output"), [p for p in PAIRINGS if p[1] not in ("relu", "leaky_relu")]
)


both_curvatures = pytest.mark.parametrize("curvature", STEPS)


def run(case: Case, options: NewtonSettings, z=None):
    return update(case.network, case.weights, case.mu, case.batch, case.z if z is None else z, options)


def step_of(case: Case, options: NewtonSettings):
    step = STEPS[options.curvature](case.network, case.weights, case.mu, case.point(), case.targets, options)
    return step.delta, step.slope


def dense_steps(case: Case, damping=0.0, exactly=False):
    """The (Gauss–)Newton step of every sample by one dense solve each."""
    steps = []
    for k in range(len(case.x)):
        gradient, gauss_newton, hessian = naive_derivatives(case, k, damping=damping)
        steps.append(np.linalg.solve(hessian if exactly else gauss_newton, -gradient))
    return np.array(steps)


def block_of(case: Case) -> BlockProblem:
    fixed = case.network.prepare(case.weights, case.batch, Workspace())
    return BlockProblem(case.network, case.weights, case.mu, fixed, case.targets, Workspace())


def _range(output):
    return (0, 1) if output == "sigmoid" else (-np.inf, np.inf)


def indefinite_case(loss="squared", output="sigmoid", n=12, seed=0):
    """Large hidden residuals of a curved layer: every sample's Hessian has negative eigenvalues."""
    case = make_case((4, 6, 5), ("tanh",), loss, output, n=n, seed=seed, mu=(0.05, 1.0))
    case.z[1] = case.z[1] + 20 * np.random.default_rng(seed).choice([-1, 1], case.z[1].shape)
    smallest = [np.linalg.eigvalsh(naive_derivatives(case, k)[2]).min() for k in range(n)]
    assert max(smallest) < -0.1
    return case


def original_update(case: Case, k: int) -> np.ndarray:
    """One damped Newton step of sample k on its exact Hessian: Armijo with α = 0.2, β = 0.25."""
    gradient, _, hessian = naive_derivatives(case, k)
    assert np.linalg.eigvalsh(hessian).min() > 0
    direction = np.linalg.solve(hessian, -gradient)
    one = case.rows(slice(k, k + 1))
    start, t = flat(one.z), 1.0
    while True:
        moved = start + t * direction
        if one.f(split(moved, case.network))[0] <= one.f()[0] + 0.2 * t * gradient @ direction:
            return moved[0]
        t *= 0.25


def rounding(case: Case, z, eps=2.0**-52) -> np.ndarray:
    """How far F_k computed with unit roundoff eps may be from the truth, generously."""
    z = [layer.astype(np.float64) for layer in z]
    c = 16 * eps * (2 + max(case.network.sizes))
    y = case.y if case.y.ndim > 1 else np.zeros_like(z[-1])
    point = case.point([layer.astype(case.weights[0].dtype) for layer in z])
    size = np.abs(z[-1]).sum(axis=1) + np.abs(y).sum(axis=1) + z[-1].shape[1]
    if case.network.loss.name == "squared":
        size = 2 * np.sqrt(2 * point.loss.astype(float)) * size + c * size**2
    total = c * size
    for i, w in enumerate(case.weights):
        terms = np.abs(z[i]) + np.abs(point.inputs[i].astype(float)) @ np.abs(w.astype(float)).T
        error = c * np.linalg.norm(terms, axis=1)
        total = total + case.mu[i] * error * (
            2 * np.linalg.norm(point.residuals[i].astype(float), axis=1) + error
        )
    return total


options_strategy = st.builds(
    NewtonSettings,
    newton_steps=st.integers(1, 3),
    cg_iterations=st.integers(1, 5),
    cg_tolerance=st.sampled_from([0.0, 0.1]),
    damping=st.sampled_from([0.0, 0.1, 10.0]),
    curvature=st.sampled_from(list(STEPS)),
    armijo=st.sampled_from([1e-4, 0.2]),
    backtrack=st.sampled_from([0.25, 0.5]),
    max_backtracks=st.sampled_from([0, 1, 10]),
)


def check_monotone(case: Case, options: NewtonSettings):
    eps = np.finfo(case.weights[0].dtype).eps
    result = run(case, options)
    before, after = case.f(), case.f(result.end.z)
    assert (result.objective_after <= result.objective_before).all()
    slack_before, slack_after = rounding(case, case.z, eps), rounding(case, result.end.z, eps)
    assert (after <= before + slack_before + slack_after).all()
    assert (np.abs(result.objective_before - before) <= slack_before).all()
    assert (np.abs(result.objective_after - after) <= slack_after).all()
    # the point that is returned is the network at the z that is returned
    again = case.point([z.copy() for z in result.end.z])
    for name in ("inputs", "residuals"):
        for mine, theirs in zip(getattr(result.end, name), getattr(again, name), strict=True):
            assert np.isfinite(mine).all()
            np.testing.assert_allclose(
                mine, theirs, rtol=1e3 * eps, atol=1e3 * eps * (1 + np.abs(mine).max())
            )
    for mine in (*result.end.z, result.objective_before, result.objective_after):
        assert mine.dtype == case.weights[0].dtype
        assert np.isfinite(mine).all()
    assert 0 <= result.shortened <= len(case.x) * options.newton_steps
