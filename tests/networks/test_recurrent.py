"""Recurrent networks against loops over samples and steps, dense algebra, and finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from choices import slow_but
from hypothesis import given
from hypothesis import strategies as st
from recurrent_cases import (
    CONVERGED,
    NETWORKS,
    STEPS,
    Case,
    N,
    dense,
    every_network,
    naive,
)

from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.networks.nested import Pass
from altmin_dask.solvers.gauss_newton import gauss_newton_step, objective, update
from altmin_dask.solvers.kernels import kfac_chunk, quadratic_model_chunk, since
from altmin_dask.solvers.newton_settings import NewtonSettings


@every_network
def test_forward_pass_is_the_recursion(name):
    case = Case(name)
    found = case.network.forward(case.weights, case.batch)
    for k in range(N):
        for layer, z, expected in zip(case.network.layers, found, naive(case, k, None)[2], strict=True):
            steps = z[k].reshape(layer.steps, -1)
            np.testing.assert_allclose(steps[: len(expected)], expected, rtol=1e-12, atol=1e-12)
            assert not steps[len(expected) :].any()


@every_network
def test_a_point_is_the_definition(name):
    case = Case(name)
    point, f = case.point(), objective(case.point(), case.mu)
    for k in range(N):
        residuals, loss, _ = naive(case, k, case.z)
        assert point.loss[k] == pytest.approx(loss, rel=1e-12)
        total = loss
        for i, (found, expected) in enumerate(zip(point.residuals, residuals, strict=True)):
            steps = found[k].reshape(case.network.layers[i].steps, -1)
            np.testing.assert_allclose(steps[: len(expected)], expected, rtol=1e-11, atol=1e-12)
            assert not steps[len(expected) :].any()
            total += case.mu[i] * sum(float(r @ r) for r in expected)
        assert f[k] == pytest.approx(total, rel=1e-12)


@every_network
def test_a_forward_pass_has_no_residuals_and_no_offset_changes_that(name):
    case = Case(name)
    z = case.network.forward(case.weights, case.batch)
    assert max(np.abs(r).max() for r in case.point(z).residuals) < 1e-13


@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 1000))
def test_adjoint_is_the_transpose_of_the_tangent(name, seed):
    case = Case(name, seed)
    rng = np.random.default_rng(seed)
    linear = case.network.linearise(case.weights, case.point(), case.mu)
    u = [rng.normal(size=z.shape) for z in case.z[:-1]]
    h = rng.normal(size=case.z[-1].shape) * case.valid(len(case.z) - 1)
    _, e = linear.tangent([part.copy() for part in u])
    e = e.copy()
    back = linear.adjoint(h)
    assert sum(float(np.vdot(a, b)) for a, b in zip(u, back, strict=True)) == pytest.approx(
        float(np.vdot(e, h)), rel=1e-10, abs=1e-10
    )


@every_network
@pytest.mark.parametrize("damping", slow_but([0.5], [0.0, 0.5]))
def test_converged_step_is_the_dense_gauss_newton_step(name, damping):
    case = Case(name, 3)
    step = gauss_newton_step(
        case.network, case.weights, case.mu, case.point(), case.targets, replace(CONVERGED, damping=damping)
    )
    delta, slope = step.delta, step.slope
    for k in range(N):
        jacobian, r, gradient, curvature = dense(case, k)
        m = np.concatenate(
            [
                np.full(int(np.broadcast_to(case.valid(i)[k], z.shape[1:]).sum()), mu)
                for i, (mu, z) in enumerate(zip(case.mu, case.z, strict=True))
            ]
        )
        full = gradient + 2 * jacobian.T @ (m * r)
        matrix = curvature + 2 * (1 + damping) * jacobian.T @ (m[:, None] * jacobian)
        expected = np.linalg.solve(matrix, -full)
        found = np.concatenate(
            [d[k][np.broadcast_to(case.valid(i)[k], d[k].shape) > 0] for i, d in enumerate(delta)]
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        assert slope[k] == pytest.approx(float(full @ expected), rel=1e-6)
        # and nothing moves in the padding
        for i, d in enumerate(delta):
            assert not (d[k] * (1 - np.broadcast_to(case.valid(i)[k], d[k].shape))).any()


@given(
    name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 1000), scale=st.sampled_from([1e-2, 1.0, 1e2])
)
def test_z_updates_never_raise_f(name, seed, scale):
    case = Case(name, seed)
    mu = [scale * m for m in case.mu]
    settings = NewtonSettings(newton_steps=3, cg_iterations=2)
    result = update(case.network, case.weights, mu, case.batch, case.z, settings)
    assert (result.objective_after <= result.objective_before).all()
    again = case.point([z.copy() for z in result.end.z])
    # residuals are rounded as z is, by some 1e-16: squares of 5e-7 differ by 1e-22
    np.testing.assert_allclose(objective(again, mu), result.objective_after, rtol=1e-10, atol=1e-21)


@every_network
def test_derivatives_of_the_nested_loss_are_those_of_differences(name):
    case = Case(name)
    rng = np.random.default_rng(1)
    change = tuple(rng.normal(size=w.shape) for w in case.weights)

    def losses(t):
        moved = tuple(w + t * d for w, d in zip(case.weights, change, strict=True))
        return Pass.forward(case.network, moved, case.batch).loss

    slope = (losses(1e-6) - losses(-1e-6)) / 2e-6
    found = Pass.forward(case.network, case.weights, case.batch)
    for k in range(N):
        assert found.loss[k] == pytest.approx(naive(case, k, None)[1], rel=1e-12)
    np.testing.assert_allclose(
        np.vecdot(found.gradient, found.directional(change)), slope, rtol=1e-6, atol=1e-8
    )
    sums = kfac_chunk(case.network, case.weights, None, case.batch, CONVERGED, (0,))
    along = sum(float(np.vdot(p, d)) for p, d in zip(sums.negative_gradient, change, strict=True))
    assert along == pytest.approx(-slope.sum(), rel=1e-6)


@every_network
@pytest.mark.parametrize("mu", [1.0, 1e2, 1e4, 1e6, 1e8, 1e16])
@pytest.mark.parametrize("steps", slow_but([2], [1, 2]))
def test_float32_gives_the_pull_of_any_penalty(name, mu, steps):
    """2μ times residuals that are far below the rounding of z, step by step; and of a large μ the limit."""
    case, pulls = Case(name, dtype=np.float32), []
    options = NewtonSettings(newton_steps=steps, cg_iterations=20)
    for dtype, penalties in ((np.float32, True), (np.float64, True), (np.float64, False)):
        weights = tuple(w.astype(dtype) for w in case.weights)
        all_mu = [mu] * len(weights) if penalties else None
        pulls.append(kfac_chunk(case.network, weights, all_mu, case.batch, options).negative_gradient)
    for found, expected, limit in zip(*pulls, strict=True):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
        assert np.abs(found - limit).max() < (1e-5 + 10 / mu) * np.abs(limit).max()


@pytest.mark.parametrize("steps", [1, 3])
@every_network
def test_residuals_formed_from_steps_are_those_of_z(name, steps):
    """In float64, and a penalty for which these have digits enough."""
    case = Case(name, 2)
    options = NewtonSettings(newton_steps=steps)
    weights, mu = tuple(2 * w for w in case.weights), [0.03 * m for m in case.mu]
    result = update(case.network, weights, mu, case.batch, None, options)
    case.weights = weights
    plain = case.point([z.copy() for z in result.end.z])
    for mine, theirs in zip(result.end.residuals, plain.residuals, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-11)


@every_network
def test_gram_matrices_have_a_row_for_each_step_that_is_there(name):
    case = Case(name)
    sums = kfac_chunk(case.network, case.weights, None, case.batch, CONVERGED, (0,))
    for layer, gram in zip(case.network.layers, sums.input_factors, strict=True):
        assert gram[-1, -1] == pytest.approx(case.lengths.sum() if layer.steps > 1 else N)


def test_the_model_along_a_step_is_that_of_differences():
    case = Case("two layers and a head, every step")
    rng = np.random.default_rng(2)
    step = tuple(1e-4 * rng.normal(size=w.shape) for w in case.weights)
    before = tuple(w - 1e-4 * rng.normal(size=w.shape) for w in case.weights)
    probe = quadratic_model_chunk(case.network, case.weights, step, since(before, case.weights), case.batch)

    def outputs(a, b):
        ways = zip(case.weights, step, before, strict=True)
        weights = tuple(w + a * d + b * (w - old) for w, d, old in ways)
        return case.network.forward(weights, case.batch)[-1]

    tangents = [(outputs(*at) - outputs(*(-np.array(at)))) / 2 for at in ((1, 0), (0, 1))]
    found = Pass.forward(case.network, case.weights, case.batch)
    for a in range(2):
        assert probe.slope[a] == pytest.approx(float(np.vdot(found.gradient, tangents[a])), rel=1e-4)
        for b in range(2):
            expected = float(np.vdot(tangents[a], tangents[b])) / STEPS  # ½ squared error, mean over steps
            assert probe.curvature[a, b] == pytest.approx(expected, rel=1e-4)


def test_a_network_is_called_by_the_widths_of_a_step():
    """And not by all numbers of a sample, which stand for no layer."""
    assert recurrent_network(2, 11, [32], 2).called("recurrent_classifier") == (
        "2-32-2 recurrent_classifier, 11 steps"
    )
    assert dense_network([4, 3, 2], "tanh", "squared").called("regressor") == "4-3-2 regressor"
