"""The W-update: ridge regression as scikit-learn has it, its limit least squares, singular matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from zoo import solve_layer

from altmin_dask.solvers.ridge import ridge_system


def problem(n=40, k=6, d=3, seed=0, scale=1.0):
    """Inputs with a column of ones, and targets that follow them with noise."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, k)) * scale + rng.normal(size=k)
    z = a @ rng.normal(size=(k, d)) + rng.normal(size=d) + 0.3 * rng.normal(size=(n, d))
    return np.column_stack([a, np.ones(n)]), z


def solve(inputs, z, ridge, **options):
    return solve_layer(z.T @ inputs, inputs.T @ inputs, ridge, **options)


def cost(w, inputs, z, ridge, penalize_bias=True):
    """‖z − ã W̃ᵀ‖² + (λ/μ) ‖W̃‖²: this layer's share of F, divided by μ."""
    held = w if penalize_bias else w[:, :-1]
    return ((z - inputs @ w.T) ** 2).sum() + ridge * (held**2).sum()


# as others have it


@pytest.mark.parametrize("ridge", [1e-3, 1 / 6, 10.0])
@pytest.mark.parametrize("shape", [(40, 6, 3), (5, 9, 2), (30, 1, 1)])
def test_is_ridge_regression_on_inputs_with_a_column_of_ones(ridge, shape):
    inputs, z = problem(*shape)
    expected = Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(inputs, z).coef_
    np.testing.assert_allclose(solve(inputs, z, ridge), np.atleast_2d(expected), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("ridge", [1e-3, 1 / 6, 10.0])
@pytest.mark.parametrize("shape", [(40, 6, 3), (5, 9, 2)])
def test_without_penalty_on_the_bias_it_has_an_intercept(ridge, shape):
    inputs, z = problem(*shape)
    model = Ridge(alpha=ridge, solver="svd").fit(inputs[:, :-1], z)
    w = solve(inputs, z, ridge, penalize_bias=False)
    np.testing.assert_allclose(w[:, :-1], model.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(w[:, -1], model.intercept_, rtol=1e-8, atol=1e-10)
    assert np.abs(w - solve(inputs, z, ridge)).max() > 1e-5


def test_without_ridge_it_is_least_squares():
    inputs, z = problem()
    expected = np.linalg.lstsq(inputs, z)[0].T
    np.testing.assert_allclose(solve(inputs, z, 0.0), expected, rtol=1e-9)
    np.testing.assert_allclose(solve(inputs, z, 1e-9), expected, rtol=1e-8)


def singular(kind):
    """Inputs whose Gram matrix is singular."""
    inputs, z = problem(seed=1)
    if kind == "zero columns":
        inputs[:, [0, 3]] = 0
    elif kind == "duplicate columns":
        inputs[:, 4] = inputs[:, 1]
    elif kind == "duplicate bias":
        inputs[:, 2] = 0.5
    elif kind == "fewer samples than inputs":
        inputs, z = inputs[:4], z[:4]
    elif kind == "one sample":
        inputs, z = inputs[:1], z[:1]
    return inputs, z


SINGULAR = (
    "zero columns",
    "duplicate columns",
    "duplicate bias",
    "fewer samples than inputs",
    "one sample",
)


@pytest.mark.parametrize("kind", SINGULAR)
def test_singular_without_ridge_it_is_the_least_squares_solution_of_minimum_norm(kind):
    inputs, z = singular(kind)
    assert np.linalg.matrix_rank(inputs) < inputs.shape[1]
    w = solve(inputs, z, 0.0)
    np.testing.assert_allclose(w, np.linalg.lstsq(inputs, z)[0].T, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", SINGULAR)
@pytest.mark.parametrize("ridge", [1e-12, 1e-6, 0.1])
@pytest.mark.parametrize("penalize_bias", [True, False])
@pytest.mark.parametrize("proximal", [0.0, 0.3])
def test_singular_grams_give_finite_weights_no_worse_than_before(kind, ridge, penalize_bias, proximal):
    inputs, z = singular(kind)
    previous = np.linalg.lstsq(inputs, z)[0].T + 0.1 * np.random.default_rng(0).normal(size=(3, 7))
    w = solve(inputs, z, ridge, penalize_bias=penalize_bias, proximal=proximal, previous=previous)
    assert np.isfinite(w).all()
    assert np.abs(w).max() < 100
    now, before = (cost(v, inputs, z, ridge, penalize_bias) for v in (w, previous))
    assert now <= before * (1 + 1e-9)


def test_nothing_at_all():
    """No samples: zeros, or the previous weights where they are held."""
    nothing = np.zeros((2, 4)), np.zeros((4, 4))
    np.testing.assert_array_equal(solve_layer(*nothing, 0.0), 0)
    np.testing.assert_array_equal(solve_layer(*nothing, 0.1), 0)


@pytest.mark.parametrize("seed", range(12))
def test_nearly_singular_grams_are_not_amplified(seed):
    """Two inputs that differ by less than the rounding of the Gram matrix share one weight."""
    inputs, z = problem(seed=seed)
    inputs[:, 4] = inputs[:, 1] * (1 + 1e-8 * np.random.default_rng(seed).normal(size=len(inputs)))
    w = solve(inputs, z, 0.0)
    assert np.abs(w).max() < 10
    np.testing.assert_allclose(w[:, 1], w[:, 4], rtol=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_precision_says_what_is_noise(seed):
    """A float32 Gram matrix of duplicate columns is singular, up to the rounding of float32."""
    inputs, z = problem(n=2000, seed=seed)
    inputs[:, 4] = inputs[:, 1]
    single = inputs.astype(np.float32)
    gram = (single.T @ single).astype(np.float64)
    noise = np.random.default_rng(seed).normal(size=gram.shape) * 1e-6 * np.abs(gram)
    gram += (noise + noise.T) / 2
    cross = z.T @ inputs
    w = solve_layer(cross, gram, 0.0, precision=1e-5)
    expected = np.linalg.lstsq(inputs, z)[0].T
    np.testing.assert_allclose(w, expected, atol=1e-3)


def test_scale_does_not_make_a_matrix_singular():
    """Columns of very different size are no rank deficiency."""
    inputs, z = problem()
    scale = 10.0 ** np.array([-5, 5, 0, -3, 3, -4, 0])
    w = solve(inputs * scale, z, 0.0)
    np.testing.assert_allclose(w * scale, np.linalg.lstsq(inputs, z)[0].T, rtol=1e-6)


# the proximal term


@pytest.mark.parametrize("penalize_bias", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_proximal_formula(ridge, penalize_bias):
    inputs, z = problem()
    gram, cross = inputs.T @ inputs, z.T @ inputs
    previous = np.random.default_rng(5).normal(size=(3, 7))
    rho = 0.2 * np.trace(gram) / 7
    held = np.diag([ridge] * 6 + [ridge if penalize_bias else 0.0]) + rho * np.eye(7)
    expected = (cross + rho * previous) @ np.linalg.inv(gram + held)
    w = solve_layer(cross, gram, ridge, penalize_bias=penalize_bias, proximal=0.2, previous=previous)
    np.testing.assert_allclose(w, expected, rtol=1e-10)
    system = ridge_system(gram, ridge, penalize_bias=penalize_bias, proximal=0.2)
    assert system.rho == pytest.approx(rho)
    np.testing.assert_array_equal(system.solve(cross, previous), w)


def test_proximal_term_keeps_weights_where_there_is_no_data():
    """An input that is always zero keeps its weights; a large term keeps all of them."""
    inputs, z = problem()
    inputs[:, 2] = 0
    previous = np.random.default_rng(5).normal(size=(3, 7))
    w = solve(inputs, z, 0.0, proximal=0.1, previous=previous)
    np.testing.assert_allclose(w[:, 2], previous[:, 2], rtol=1e-12)
    w = solve(inputs, z, 0.0, proximal=1e9, previous=previous)
    np.testing.assert_allclose(w, previous, rtol=1e-6)


# the properties the method rests on


@st.composite
def problems(draw):
    """Any data, rank deficient or not, any ridge, any previous weights."""
    n, k, d = draw(st.integers(1, 20)), draw(st.integers(1, 8)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rank = draw(st.integers(1, k))
    a = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, k)) * 10.0 ** draw(st.integers(-3, 3))
    a[:, rng.uniform(size=k) < draw(st.sampled_from([0.0, 0.3]))] = 0
    z = rng.normal(size=(n, d)) * 10.0 ** draw(st.integers(-3, 3))
    previous = rng.normal(size=(d, k + 1)) * 10.0 ** draw(st.integers(-3, 2))
    ridge = draw(st.sampled_from([0.0, 1e-10, 1e-3, 1.0, 1e4]))
    options = {"penalize_bias": draw(st.booleans()), "proximal": draw(st.sampled_from([0.0, 1e-3, 1.0]))}
    return np.column_stack([a, np.ones(n)]), z, ridge, previous, options


@given(drawn=problems())
@settings(max_examples=200, deadline=None)
def test_the_objective_never_rises(drawn):
    inputs, z, ridge, previous, options = drawn
    w = solve(inputs, z, ridge, previous=previous, **options)
    assert w.shape == previous.shape
    assert w.dtype == np.float64
    assert np.isfinite(w).all()
    bias = options["penalize_bias"]
    before, after = (cost(v, inputs, z, ridge, bias) for v in (previous, w))
    # rounding of ‖z‖² − …, and directions too small to be told from rounding
    assert after <= before + 1e-11 * (before + (z**2).sum())


@given(drawn=problems())
@settings(max_examples=100, deadline=None)
def test_no_other_weights_are_better(drawn):
    inputs, z, ridge, previous, options = drawn
    bias = options["penalize_bias"]
    w = solve(inputs, z, ridge, penalize_bias=bias)
    least = cost(w, inputs, z, ridge, bias)
    rng = np.random.default_rng(0)
    for size in (1e-4, 1e-2, 1.0):
        other = w + size * np.abs(previous).max() * rng.normal(size=w.shape)
        assert least <= cost(other, inputs, z, ridge, bias) + 1e-11 * (z**2).sum()


def test_arguments_are_not_changed():
    inputs, z = singular("duplicate columns")
    arrays = [z.T @ inputs, inputs.T @ inputs, np.ones((3, 7))]
    held = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    solve_layer(arrays[0], arrays[1], 0.0, proximal=0.1, previous=arrays[2])
    solve_layer(arrays[0], arrays[1], 0.0)
    for array, before in zip(arrays, held, strict=True):
        np.testing.assert_array_equal(array, before)
