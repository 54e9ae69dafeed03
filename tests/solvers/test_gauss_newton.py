"""Gauss–Newton steps against dense algebra, finite differences and closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from choices import slow_but
from hypothesis import given, settings
from newton_cases import (
    CONVERGED,
    both_curvatures,
    dense_steps,
    every_network,
    every_pairing,
    rounding,
    run,
    smooth_pairings,
    step_of,
)
from zoo import (
    NETWORKS,
    PAIRINGS,
    Case,
    cases,
    differences,
    flat,
    make_case,
    naive_derivatives,
    naive_objective,
    split,
)

from altmin_dask.solvers.gauss_newton import objective
from altmin_dask.solvers.newton_settings import NewtonSettings


def test_the_oracle_agrees_with_finite_differences():
    """The dense derivatives the tests compare with are themselves those of the naive objective."""
    for sizes, activations in NETWORKS.values():
        for loss, output in PAIRINGS:
            case = make_case(sizes, activations, loss, output, n=1)

            def f(at, case=case):
                return naive_objective(case, split(at, case.network))

            def slope(at, case=case):
                return naive_derivatives(case, 0, split(at, case.network))[0][None]

            gradient, _, hessian = naive_derivatives(case, 0)
            z = flat(case.z)
            np.testing.assert_allclose(gradient, differences(f, z)[0], rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(hessian, differences(slope, z)[0], rtol=1e-6, atol=1e-7)


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_objective_is_the_definition(case):
    value = objective(case.point(), case.mu)
    assert value.shape == (len(case.x),)
    np.testing.assert_allclose(value, case.f(), rtol=1e-9, atol=rounding(case, case.z).max())


@every_network
@every_pairing
@pytest.mark.parametrize("damping", slow_but([0.7], [0.0, 0.7]))
def test_converged_step_is_the_dense_gauss_newton_step(sizes, activations, loss, output, damping):
    case = make_case(sizes, activations, loss, output, seed=3)
    delta, slope = step_of(case, replace(CONVERGED, damping=damping))
    expected = dense_steps(case, damping)
    assert [d.shape for d in delta] == [z.shape for z in case.z]
    np.testing.assert_allclose(flat(delta), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    gradients = np.array([naive_derivatives(case, k)[0] for k in range(len(case.x))])
    np.testing.assert_allclose(slope, np.vecdot(gradients, expected), rtol=1e-7)


@pytest.mark.parametrize("mu", [(1e-3, 1e-3, 1e-3), (1e3, 1e3, 1e3), (1e-2, 1.0, 1e2), (1e2, 1.0, 1e-2)])
def test_penalties_of_any_size(mu):
    case = make_case((4, 5, 6, 3), ("tanh", "softplus"), "cross_entropy", mu=mu)
    delta, _ = step_of(case, CONVERGED)
    expected = dense_steps(case)
    np.testing.assert_allclose(flat(delta), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("iterations", [10, 11])
def test_ten_classes_take_at_most_eleven_iterations(iterations):
    """Softmax curvature of ten classes has rank nine: conjugate gradients end after ten iterations."""
    case = make_case((12, 30, 20, 10), ("tanh", "sigmoid"), "cross_entropy", n=20, mu=(0.1, 0.1, 0.1))
    delta, _ = step_of(case, NewtonSettings(cg_iterations=iterations))
    expected = dense_steps(case)
    np.testing.assert_allclose(flat(delta), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    early, _ = step_of(case, NewtonSettings(cg_iterations=2))
    assert np.abs(flat(early) - expected).max() > 1e-5


def test_scalar_output_takes_one_iteration():
    case = make_case((3, 7, 1), ("tanh",), "binary_cross_entropy", n=10)
    delta, _ = step_of(case, NewtonSettings(cg_iterations=2))
    np.testing.assert_allclose(flat(delta), dense_steps(case), rtol=1e-9, atol=1e-12)


def test_tolerance_stops_each_sample_by_itself():
    case = make_case((12, 30, 10), ("tanh",), "cross_entropy", n=20, mu=(0.01, 0.01))
    loose, _ = step_of(case, replace(CONVERGED, cg_tolerance=1e-2))
    tight, _ = step_of(case, replace(CONVERGED, cg_tolerance=1e-11))
    full = dense_steps(case)
    error_loose, error_tight = (np.linalg.norm(flat(d) - full, axis=1) for d in (loose, tight))
    size = np.linalg.norm(full, axis=1)
    assert (error_tight < 1e-8 * size).all()
    assert (error_loose < 0.3 * size).all()
    assert (error_loose > 100 * error_tight).all()
    for k in range(20):
        alone, _ = step_of(case.rows(slice(k, k + 1)), replace(CONVERGED, cg_tolerance=1e-2))
        np.testing.assert_allclose(flat(alone)[0], flat(loose)[k], rtol=1e-9, atol=1e-12)


@every_pairing
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_truncated_steps_descend_at_the_slope_they_return(loss, output, iterations):
    case = make_case((5, 7, 4, 6), ("tanh", "softplus"), loss, output, n=10, seed=5)
    delta, slope = step_of(case, NewtonSettings(cg_iterations=iterations))
    assert (slope < 0).all()
    h = 1e-6
    ahead, behind = (
        case.f([z + sign * h * d for z, d in zip(case.z, delta, strict=True)]) for sign in (1, -1)
    )
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)


@smooth_pairings
@both_curvatures
def test_no_step_where_the_gradient_vanishes(loss, output, curvature):
    case = make_case((5, 4, 3), ("tanh",), loss, output)
    best = run(case, NewtonSettings(newton_steps=60, cg_iterations=20, curvature=curvature)).end.z
    settled = Case(case.network, case.weights, case.x, case.y, best, case.mu)
    delta, slope = step_of(settled, NewtonSettings(cg_iterations=20, curvature=curvature))
    gradients = [naive_derivatives(settled, k)[0] for k in range(len(case.x))]
    assert np.abs(gradients).max() < 1e-6
    assert np.abs(flat(delta)).max() < 1e-5
    assert np.abs(slope).max() < 1e-10


@both_curvatures
def test_slopes_below_the_rounding_of_f_are_followed(curvature):
    """A dead rectifier far from its target: ℓ = 5e11 for every z < 0, and no digit of F shows a residual."""
    case = make_case((2, 1), (), "squared", "relu", n=4, mu=(0.5,))
    case.weights[0][:] = [[0, 0, -2]]
    case.z = [np.array([[-2.001], [-1.99], [-1.0], [-3.0]])]
    case.y = np.array([[1e6], [1e6], [1.0], [1.0]])
    result = run(case, NewtonSettings(curvature=curvature))
    np.testing.assert_allclose(result.end.z[0], -2, rtol=1e-15)
    assert (result.objective_after <= result.objective_before).all()
    assert result.shortened == 0


@both_curvatures
@smooth_pairings
@pytest.mark.parametrize("dtype", slow_but([np.float32], [np.float32, np.float64]))
@pytest.mark.parametrize("sizes", slow_but([(3, 2, 1)], [(4, 3), (5, 4, 3), (3, 2, 1)]))
def test_nothing_is_shortened_at_a_minimum(sizes, loss, output, dtype, curvature):
    """F differs by rounding alone there, and one class, whose ℓ is exactly 0, leaves nothing but rounding."""
    activations = ["tanh"] * (len(sizes) - 2)
    case = make_case(
        sizes, activations, loss, output, n=20, spread=0.3, mu=[3.0] * (len(sizes) - 1), dtype=dtype
    )
    options = NewtonSettings(curvature=curvature, cg_iterations=8)
    case.z = run(case, replace(options, newton_steps=100)).end.z
    result = run(case, replace(options, newton_steps=5))
    assert result.shortened == 0
    assert (result.objective_after <= result.objective_before).all()
    near = np.sqrt(np.finfo(dtype).eps)
    np.testing.assert_allclose(
        flat(result.end.z), flat(case.z), rtol=0, atol=near * np.abs(flat(case.z)).max()
    )
