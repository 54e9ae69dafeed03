"""The z-update: both curvatures against dense algebra, finite differences and independent minimisers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_digits
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

from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers import exact_newton
from altmin_dask.solvers.gauss_newton import gauss_newton_step, objective, update
from altmin_dask.solvers.line_search import BlockProblem, Step, line_search
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.types import Batch

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


# the objective


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_objective_is_the_definition(case):
    value = objective(case.point(), case.mu)
    assert value.shape == (len(case.x),)
    np.testing.assert_allclose(value, case.f(), rtol=1e-9, atol=rounding(case, case.z).max())


# the Gauss–Newton step


@every_network
@every_pairing
@pytest.mark.parametrize("damping", [0.0, 0.7])
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
    best = run(case, NewtonSettings(newton_steps=200, cg_iterations=20, curvature=curvature)).end.z
    settled = Case(case.network, case.weights, case.x, case.y, best, case.mu)
    delta, slope = step_of(settled, NewtonSettings(cg_iterations=20, curvature=curvature))
    gradients = [naive_derivatives(settled, k)[0] for k in range(len(case.x))]
    assert np.abs(gradients).max() < 1e-6
    assert np.abs(flat(delta)).max() < 1e-5
    assert np.abs(slope).max() < 1e-10


# what the line search leaves to Newton's method


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
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(4, 3), (5, 4, 3), (3, 2, 1)])
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


def block_of(case: Case) -> BlockProblem:
    fixed = case.network.prepare(case.weights, case.batch, Workspace())
    return BlockProblem(case.network, case.weights, case.mu, fixed, case.targets, Workspace())


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


# the exact Hessian


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
@pytest.mark.parametrize("damping", [0.0, 0.7])
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


def _range(output):
    return (0, 1) if output == "sigmoid" else (-np.inf, np.inf)


def indefinite_case(loss="squared", output="sigmoid", n=12, seed=0):
    """Large hidden residuals of a curved layer: every sample's Hessian has negative eigenvalues."""
    case = make_case((4, 6, 5), ("tanh",), loss, output, n=n, seed=seed, mu=(0.05, 1.0))
    case.z[1] = case.z[1] + 20 * np.random.default_rng(seed).choice([-1, 1], case.z[1].shape)
    smallest = [np.linalg.eigvalsh(naive_derivatives(case, k)[2]).min() for k in range(n)]
    assert max(smallest) < -0.1
    return case


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


# the original algorithm


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


# where it leads


@pytest.mark.parametrize("loss", ["squared", "binary_cross_entropy", "cross_entropy"])
@pytest.mark.parametrize("sizes", [(4, 3), (4, 6, 3), (3, 5, 2, 4)])
@both_curvatures
def test_reaches_the_minimum_of_convex_cases(loss, sizes, curvature):
    case = make_case(sizes, ["identity"] * (len(sizes) - 2), loss, n=4, spread=3.0)
    options = NewtonSettings(newton_steps=40, cg_iterations=12, curvature=curvature)
    result = run(case, options)
    for k in range(4):
        one = case.rows(slice(k, k + 1))

        def f(at, one=one):
            return one.f(split(at[None], one.network))[0]

        def slope(at, one=one):
            return naive_derivatives(one, 0, split(at[None], one.network))[0]

        best = minimize(f, np.zeros(sum(sizes[1:])), jac=slope, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(flat(result.end.z)[k], best.x, rtol=0, atol=1e-5)
        assert result.objective_after[k] <= best.fun + 1e-10


def test_one_converged_step_solves_a_linear_quadratic_case():
    case = make_case((4, 6, 3), ("identity",), "squared", spread=30.0)
    result = run(case, CONVERGED)
    for k in range(len(case.x)):
        gradient = naive_derivatives(case, k, result.end.z)[0]
        np.testing.assert_allclose(gradient, 0, atol=1e-10)
    assert result.shortened == 0


# whatever is thrown at it


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


@given(case=cases(), options=options_strategy)
@settings(max_examples=300, deadline=None)
def test_no_sample_ever_gets_worse(case, options):
    check_monotone(case, options)


@given(case=cases(dtype=np.float32), options=options_strategy)
@settings(max_examples=300, deadline=None)
def test_no_sample_ever_gets_worse_in_float32(case, options):
    check_monotone(case, options)


@pytest.mark.parametrize(
    ("dtype", "other"),
    [(dtype, other) for dtype in (np.float32, np.float64) for other in ("x", "z", "mu", "y")],
)
@both_curvatures
def test_weights_decide_the_dtype(dtype, other, curvature):
    """Whatever the types of samples, targets and penalties are."""
    case = make_case((5, 4, 3), ("tanh",), "squared", "sigmoid", dtype=dtype)
    expected = run(case, NewtonSettings(curvature=curvature))
    double = {
        "x": case.x.astype(np.float64),
        "z": [z.astype(np.float64) for z in case.z],
        "mu": np.array(case.mu),
        "y": case.y.astype(np.float64),
    }
    result = run(replace(case, **{other: double[other]}), NewtonSettings(curvature=curvature))
    end = result.end
    for part in (*end.z, *end.residuals, *end.inputs, end.output, end.loss, result.objective_after):
        assert part.dtype == dtype
    np.testing.assert_allclose(flat(end.z), flat(expected.end.z), rtol=1e-4, atol=1e-5)


@both_curvatures
def test_targets_default_to_the_samples(curvature):
    case = make_case((5, 3, 5), ("tanh",))
    options = NewtonSettings(curvature=curvature)
    own = update(case.network, case.weights, case.mu, Batch(case.x), case.z, options)
    given_x = update(case.network, case.weights, case.mu, Batch(case.x, case.x), case.z, options)
    np.testing.assert_array_equal(flat(own.end.z), flat(given_x.end.z))
    boxed = update(case.network, case.weights, case.mu, Batch(case.x.reshape(6, 5, 1)), case.z, options)
    np.testing.assert_array_equal(flat(own.end.z), flat(boxed.end.z))


@given(case=cases(max_spread=30, max_mu_exponent=2), options=options_strategy, data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_are_independent(case, options, data):
    options = replace(options, max_backtracks=10)
    result = run(case, options)
    order = data.draw(st.permutations(range(len(case.x))))
    cut = data.draw(st.integers(0, len(order)))
    shortened = 0
    for rows in (order[:cut], order[cut:]):
        if rows:
            part = run(case.rows(rows), options)
            whole = flat(result.end.z)[rows]
            # products of matrices of other shapes round differently
            scale = 1 + np.abs(whole).max() + np.abs(flat(case.z)).max()
            np.testing.assert_allclose(flat(part.end.z), whole, rtol=0, atol=1e-6 * scale)
            shortened += part.shortened
    assert shortened == result.shortened


@both_curvatures
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_independent_where_f_is_all_rounding(dtype, curvature):
    """One class: ℓ is exactly 0, and after a step or two F is the square of what rounding leaves of residuals."""
    options = NewtonSettings(newton_steps=6, curvature=curvature)
    for seed in range(30):
        sizes, activations = [((3, 1), ()), ((3, 4, 1), ("identity",)), ((2, 3, 4, 1), ("tanh", "identity"))][
            seed % 3
        ]
        case = make_case(sizes, activations, "cross_entropy", n=5, seed=seed, spread=30.0, dtype=dtype)
        result = run(case, options)
        alone = [run(case.rows([k]), options) for k in range(5)]
        assert result.shortened == sum(one.shortened for one in alone), seed
        scale = np.abs(flat(case.z)).max()
        for k, one in enumerate(alone):
            np.testing.assert_allclose(
                flat(one.end.z)[0], flat(result.end.z)[k], rtol=0, atol=1e4 * np.finfo(dtype).eps * scale
            )


@given(case=cases(), options=options_strategy)
@settings(max_examples=40, deadline=None)
def test_nothing_given_is_changed(case, options):
    arrays = [case.x, case.y, *case.z, *case.weights]
    held = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    result = run(case, options)
    for array, before in zip(arrays, held, strict=True):
        np.testing.assert_array_equal(array, before)
    for start, z in zip(result.start.z, case.z, strict=True):
        np.testing.assert_array_equal(start, z)


def test_no_samples():
    case = make_case((5, 4, 3), ("tanh",), "cross_entropy").rows(slice(0, 0))
    for curvature in STEPS:
        result = run(case, NewtonSettings(curvature=curvature))
        assert [z.shape for z in result.end.z] == [(0, 4), (0, 3)]
        assert result.objective_after.shape == (0,)


@given(drawn=st.lists(st.tuples(cases(max_spread=30), options_strategy), min_size=2, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_workspace_that_is_used_again_changes_nothing(drawn):
    work = Workspace()
    for case, options in drawn:
        fresh = run(case, options)
        result = update(case.network, case.weights, case.mu, case.batch, case.z, options, work)
        for name in ("start", "end"):
            mine, theirs = getattr(result, name), getattr(fresh, name)
            for part in ("z", "inputs", "residuals", "output", "loss"):
                for a, b in zip(getattr(mine, part), getattr(theirs, part), strict=True):
                    np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(result.objective_before, fresh.objective_before)
        np.testing.assert_array_equal(result.objective_after, fresh.objective_after)
        assert result.shortened == fresh.shortened


def test_steps_accumulate():
    """Three linearisations in one update are three updates of one."""
    case = make_case((4, 6, 5), ("tanh",), "cross_entropy", n=50, mu=(0.01, 1.0))
    at_once = run(case, NewtonSettings(newton_steps=3))
    z, shortened = case.z, []
    for _ in range(3):
        result = run(case, NewtonSettings(), z)
        z = result.end.z
        shortened.append(result.shortened)
    np.testing.assert_allclose(flat(at_once.end.z), flat(z), rtol=1e-9, atol=1e-11)
    assert min(shortened) > 0
    assert at_once.shortened == sum(shortened)
    np.testing.assert_allclose(at_once.objective_after, result.objective_after)


def test_backtracking_shortens_only_those_that_need_it():
    case = make_case((4, 6, 5), ("tanh",), "cross_entropy", n=200, mu=(0.01, 1.0))
    plain = run(case, replace(CONVERGED, max_backtracks=0))
    searched = run(case, CONVERGED)
    stayed = (flat(plain.end.z) == flat(case.z)).all(axis=1)
    assert 0 < stayed.sum() < 200
    assert plain.shortened == searched.shortened == stayed.sum()
    np.testing.assert_allclose(
        flat(searched.end.z)[~stayed], flat(plain.end.z)[~stayed], rtol=1e-9, atol=1e-12
    )
    delta, slope = step_of(case, CONVERGED)
    for k in np.flatnonzero(stayed):
        step = flat(delta)[k]
        t = np.vecdot(flat(searched.end.z)[k] - flat(case.z)[k], step) / np.vecdot(step, step)
        power = np.log(t) / np.log(0.25)
        assert abs(power - round(power)) < 1e-6
        assert round(power) >= 1
        assert searched.objective_after[k] <= searched.objective_before[k] + 0.2 * t * slope[k] + 1e-12
