"""Steps on the exact Hessian against dense algebra and the original algorithm, and what a line search allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from choices import slow_but
from hypothesis import given, settings
from newton_cases import (
    CONVERGED,
    _range,
    block_of,
    dense_steps,
    every_network,
    every_pairing,
    indefinite_case,
    original_update,
    rounding,
    run,
    smooth_pairings,
    step_of,
)
from sklearn.datasets import load_digits
from zoo import (
    Case,
    cases,
    differences,
    flat,
    make_case,
    naive_derivatives,
    split,
)

from altmin_dask.networks.builders import dense_network
from altmin_dask.solvers import exact_newton
from altmin_dask.solvers.gauss_newton import objective, update
from altmin_dask.solvers.line_search import Step, line_search
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.types import Batch


@smooth_pairings
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_exact_newton_converges_to_the_last_digit(loss, output, scale):
    """The slope is the square of the gradient: of one that is 1e-9 of F there is no digit in F, and yet it falls."""
    case = make_case((5, 4, 3), ("tanh",), loss, output, n=8, spread=0.3, mu=(3.0 * scale, 2.0 * scale))
    result = run(case, NewtonSettings(newton_steps=60, curvature="exact"))
    for k in range(8):
        gradient, _, hessian = naive_derivatives(case, k, result.end.z)
        assert np.abs(gradient).max() < 1e-13 * np.abs(hessian).max() * (
            1 + np.abs(flat(result.end.z)[k]).max()
        )


@given(case=cases(dtype=np.float32))
@settings(max_examples=200, deadline=None)
def test_the_allowance_for_rounding_covers_it_and_little_more(case):
    """Of F before a step and of F after it, half each; and no more than a bound for the worst there can be."""
    allowance = block_of(case).rounding(case.point(), np.arange(len(case.x)))
    assert (2 * np.abs(objective(case.point(), case.mu) - case.f()) <= allowance).all()
    assert (allowance <= rounding(case, case.z, np.finfo(np.float32).eps)).all()


def test_a_rise_beyond_rounding_is_not_allowed():
    """A step of descent, and one of as little promise that climbs: by more than F's rounding, and by less."""
    case = make_case((4, 3), (), "squared", "identity", n=3, mu=(1.0,))
    case.z = run(case, CONVERGED).end.z
    block, point = block_of(case), case.point()
    before = objective(point, case.mu)
    allowance = block.rounding(point, np.arange(3))
    # at the minimum of F = 3/2 ‖z − z*‖² + constant: rises by 4, 1/4 and 4 of what is allowed
    delta = np.zeros_like(case.z[0])
    delta[:, 0] = np.sqrt(np.array([4, 0.25, 4]) * allowance / 1.5)
    step = Step([delta], -1e-3 * allowance)
    end, after, cut = line_search(block, point, before, step, NewtonSettings(max_backtracks=0), "trial")
    np.testing.assert_array_equal(end.z[0], case.z[0] + delta * [[0], [1], [0]])
    np.testing.assert_array_equal(after, before)
    assert cut == 2


@every_network
@every_pairing
def test_exact_gradient_and_hessian(sizes, activations, loss, output):
    case = make_case(sizes, activations, loss, output, seed=4)
    arguments = case.network, case.weights, case.mu

    def f(at):
        return case.f(split(at, case.network))

    def slope(at):
        return exact_newton.gradient(*arguments, case.point(split(at, case.network)), case.targets)

    z = flat(case.z)
    gradient = exact_newton.gradient(*arguments, case.point(), case.targets)
    hessian = exact_newton.hessian(*arguments, case.point(), case.targets)
    np.testing.assert_allclose(gradient, differences(f, z), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(hessian, differences(slope, z), rtol=1e-6, atol=1e-7)
    for k in range(len(z)):
        expected, _, second = naive_derivatives(case, k)
        np.testing.assert_allclose(gradient[k], expected, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(hessian[k], second, rtol=1e-11, atol=1e-12)


@every_network
@every_pairing
@pytest.mark.parametrize("damping", slow_but([0.7], [0.0, 0.7]))
def test_exact_step_is_the_dense_newton_step_where_positive_definite(
    sizes, activations, loss, output, damping
):
    # near a forward pass with small output errors, where residuals bend the Hessian only a little
    case = make_case(sizes, activations, loss, output, spread=0.1, mu=[1.0] * (len(sizes) - 1))
    if output != "softmax":
        offset = 0.1 * np.random.default_rng(1).uniform(-1, 1, case.y.shape)
        case.y = np.clip(case.network.loss.predict(case.z[-1]) + offset, *_range(output))
    smallest = min(np.linalg.eigvalsh(naive_derivatives(case, k)[2]).min() for k in range(len(case.x)))
    assert smallest > 1e-3
    delta, slope = step_of(case, NewtonSettings(curvature="exact", damping=damping))
    expected = dense_steps(case, damping, exactly=True)
    np.testing.assert_allclose(flat(delta), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    gradients = np.array([naive_derivatives(case, k)[0] for k in range(len(case.x))])
    np.testing.assert_allclose(slope, np.vecdot(gradients, expected), rtol=1e-9)


@every_pairing
def test_descends_where_the_plain_newton_step_climbs(loss, output):
    case = make_case((4, 6, 5), ("tanh",), loss, output, n=200, mu=(0.5, 0.5))
    gradients = np.array([naive_derivatives(case, k)[0] for k in range(len(case.x))])
    climbing = np.flatnonzero(np.vecdot(gradients, dense_steps(case, exactly=True)) > 0)
    assert climbing.size >= 5
    case = case.rows(climbing)
    delta, slope = step_of(case, NewtonSettings(curvature="exact"))
    np.testing.assert_allclose(slope, np.vecdot(gradients[climbing], flat(delta)), rtol=1e-9)
    assert (slope < 0).all()
    result = run(case, NewtonSettings(curvature="exact", armijo=0.2, backtrack=0.25))
    assert (case.f(result.end.z) < case.f() - 1e-6).all()


def test_indefinite_step_is_the_absolute_value_in_residual_coordinates():
    """Checked against the generalised eigenproblem of the Hessian in the metric of the penalties."""
    case = indefinite_case()
    damping = 0.3
    delta, _ = step_of(case, NewtonSettings(curvature="exact", damping=damping))
    for k in range(len(case.x)):
        gradient, gauss_newton, hessian = naive_derivatives(case, k, damping=damping)
        penalty = gauss_newton.copy()
        output = slice(case.network.widths[0], None)
        penalty[output, output] -= np.diag((lambda a: (a * (1 - a)) ** 2)(1 / (1 + np.exp(-case.z[1][k]))))
        root = np.linalg.inv(np.linalg.cholesky(penalty)).T
        values, vectors = np.linalg.eigh(root.T @ hessian @ root)
        assert np.abs(values).min() > exact_newton.CURVATURE_FLOOR
        expected = -root @ (vectors / np.abs(values)) @ vectors.T @ root.T @ gradient
        np.testing.assert_allclose(flat(delta)[k], expected, rtol=1e-8, atol=1e-10)


def test_single_layer_indefinite_step_in_closed_form():
    """ℓ = ½ (σ(z) − y)² + μ r²: each coordinate moves by −F' / |F''|."""
    case = make_case((2, 8), (), "squared", "sigmoid", n=40, spread=3.0, mu=(0.01,))
    delta, _ = step_of(case, NewtonSettings(curvature="exact"))
    m, r = 0.02, case.point().residuals[0]
    a = 1 / (1 + np.exp(-case.z[0]))
    slope = a * (1 - a)
    gradient = m * r + slope * (a - case.y)
    second = m + slope**2 + (a - case.y) * slope * (1 - 2 * a)
    indefinite = (second < 0).any(axis=1)
    assert indefinite.any()
    assert not indefinite.all()
    expected = -gradient / np.maximum(np.abs(second), exact_newton.CURVATURE_FLOOR * m)
    np.testing.assert_allclose(delta[0], expected, rtol=1e-9)


def test_curvature_next_to_nothing_is_not_trusted():
    """Where F'' is positive but tiny, the step is that of the least curvature trusted."""
    case = make_case((2, 1), (), "squared", "tanh", n=20, mu=(0.3,))
    a, m = np.tanh(case.z[0]), 0.6
    slope, second = 1 - a**2, -2 * a * (1 - a**2)
    case.y = a + (m * (1 - 1e-9) + slope**2) / second
    hessian = exact_newton.hessian(case.network, case.weights, case.mu, case.point(), case.targets)[:, 0]
    np.testing.assert_allclose(hessian, 1e-9 * m, rtol=1e-4)
    delta, _ = step_of(case, NewtonSettings(curvature="exact"))
    gradient = m * case.point().residuals[0] + slope * (a - case.y)
    np.testing.assert_allclose(delta[0], -gradient / (exact_newton.CURVATURE_FLOOR * m), rtol=1e-6)


def test_exact_steps_converge_quadratically():
    case = make_case((4, 6, 5), ("tanh",), "squared", "sigmoid", n=8, mu=(0.3, 0.3), spread=0.5)
    best = flat(run(case, NewtonSettings(newton_steps=60, curvature="exact")).end.z)
    for k in range(8):
        settled = Case(case.network, case.weights, case.x, case.y, split(best, case.network), case.mu)
        gradient, _, hessian = naive_derivatives(settled, k)
        assert np.abs(gradient).max() < 1e-8
        assert np.linalg.eigvalsh(hessian).min() > 1e-3
    direction = np.random.default_rng(0).normal(size=best.shape)

    def error_after_a_step(distance, curvature):
        start = split(best + distance * direction, case.network)
        options = NewtonSettings(curvature=curvature, cg_iterations=30)
        return np.linalg.norm(flat(run(case, options, start).end.z) - best, axis=1)

    # ten times nearer: a hundred times smaller errors for Newton, ten times for Gauss–Newton
    newton = error_after_a_step(1e-2, "exact") / error_after_a_step(1e-3, "exact")
    assert (newton > 60).all()
    gauss_newton = error_after_a_step(1e-2, "gauss_newton") / error_after_a_step(1e-3, "gauss_newton")
    assert np.median(gauss_newton) < 30


@pytest.mark.parametrize(
    ("loss", "output"),
    [("squared", "identity"), ("binary_cross_entropy", "sigmoid"), ("cross_entropy", "softmax")],
)
@every_network
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_curvatures_agree_without_residuals_beyond_the_first(sizes, activations, loss, output, damping):
    case = make_case(sizes, activations, loss, output)
    for i in range(1, len(case.z)):
        case.z[i] = case.z[i] - case.point().residuals[i]
    newton, slope = step_of(case, NewtonSettings(curvature="exact", damping=damping))
    gauss_newton, same = step_of(case, replace(CONVERGED, damping=damping))
    scale = np.abs(flat(newton)).max()
    np.testing.assert_allclose(flat(newton), flat(gauss_newton), rtol=0, atol=1e-8 * scale)
    np.testing.assert_allclose(slope, same, rtol=1e-8)


def test_slabs_change_nothing(monkeypatch):
    case = indefinite_case(n=11)
    whole, slope = step_of(case, NewtonSettings(curvature="exact"))
    for matrices in (0, 3):
        monkeypatch.setattr(exact_newton, "SLAB_BYTES", matrices * 8 * 11 * 11)
        parts, same = step_of(case, NewtonSettings(curvature="exact"))
        np.testing.assert_allclose(flat(parts), flat(whole), rtol=1e-12)
        np.testing.assert_allclose(same, slope, rtol=1e-12)


def test_a_sample_that_is_not_finite_stays_alone():
    case = indefinite_case(n=5)
    case.z[0][2, 1] = np.nan
    delta, slope = step_of(case, NewtonSettings(curvature="exact"))
    others = [0, 1, 3, 4]
    clean, _ = step_of(case.rows(others), NewtonSettings(curvature="exact"))
    np.testing.assert_allclose(flat(delta)[others], flat(clean), rtol=1e-12)
    assert not slope[2] < 0


def test_the_original_algorithm():
    """An auto-encoder of digits, sigmoid in both layers, μ = 1: ten samples, from a forward pass."""
    digits = load_digits().data[:10] / 16
    network = dense_network((64, 30, 64), "sigmoid", "squared", "sigmoid")
    weights = network.initial_weights(0, np.float64)
    case = Case(network, weights, digits, digits, network.forward(weights, Batch(digits)), [1.0, 1.0])
    options = NewtonSettings(curvature="exact", armijo=0.2, backtrack=0.25)
    result = update(network, weights, case.mu, Batch(digits), case.z, options)
    expected = np.array([original_update(case, k) for k in range(10)])
    np.testing.assert_allclose(flat(result.end.z), expected, rtol=1e-8, atol=1e-10)
    assert (result.objective_after < result.objective_before).all()
    assert result.shortened == 0


def test_the_original_algorithm_backtracks_alike():
    """The same far from a forward pass, where some of the full steps are too long."""
    shortened = compared = 0
    for seed in range(6):
        case = make_case(
            (6, 4, 6), ("sigmoid",), "squared", "sigmoid", n=30, seed=seed, spread=3.0, mu=(1, 1)
        )
        definite = [k for k in range(30) if np.linalg.eigvalsh(naive_derivatives(case, k)[2]).min() > 0.05]
        case = case.rows(definite)
        result = run(case, NewtonSettings(curvature="exact", armijo=0.2, backtrack=0.25))
        expected = np.array([original_update(case, k) for k in range(len(definite))])
        np.testing.assert_allclose(flat(result.end.z), expected, rtol=1e-7, atol=1e-9)
        shortened += result.shortened
        compared += len(definite)
    assert compared > 50
    assert shortened > 0
