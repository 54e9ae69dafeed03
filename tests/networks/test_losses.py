"""Losses: derivatives of every pairing, and the algebra of their curvatures against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import (
    ACTIVATION_NAMES,
    PAIRINGS,
    Case,
    dense,
    differences,
    naive_loss,
    naive_loss_derivatives,
    targets,
)

from altmin_dask.errors import ConfigError
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.losses import LOSSES, Curvature, get_loss

every_pairing = pytest.mark.parametrize(("loss", "output"), PAIRINGS, ids=["-".join(p) for p in PAIRINGS])
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def output_case(loss, output, *, n=7, d=4, seed=0, scale=2.0, dtype=np.float64):
    """The loss alone, at random output pre-activations clear of kinks."""
    rng = np.random.default_rng(seed)
    network = dense_network((d, d), [], loss, output)
    z = rng.normal(scale=scale, size=(n, d))
    z = np.where(np.abs(z) < 0.01, 0.5, z).astype(dtype)
    return Case(network, (), np.zeros((n, d), dtype), targets(network, n, rng, dtype), [z], [])


def test_every_loss_is_tested():
    assert {loss for loss, _ in PAIRINGS} == set(LOSSES)


@every_pairing
def test_value_is_the_textbook_formula(loss, output):
    case = output_case(loss, output)
    ell, z = case.network.loss.base, case.z[0]
    value = ell.value(z, ell.predict(z), case.y)
    assert value.shape == (7,)
    np.testing.assert_allclose(value, naive_loss(case, z), rtol=1e-12)


@every_pairing
@pytest.mark.parametrize("d", [1, 4])
def test_gradient_is_that_of_the_value(loss, output, d):
    case = output_case(loss, output, d=d)
    ell, z = case.network.loss.base, case.z[0]
    gradient = ell.gradient(z, ell.predict(z), case.y)
    expected = differences(lambda at: ell.value(at, ell.predict(at), case.y), z)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-8)


@every_pairing
@pytest.mark.parametrize("d", [1, 4])
def test_hessian_is_the_derivative_of_the_gradient(loss, output, d):
    case = output_case(loss, output, d=d)
    ell, z = case.network.loss.base, case.z[0]
    expected = differences(lambda at: ell.gradient(at, ell.predict(at), case.y), z)
    np.testing.assert_allclose(dense(ell.hessian(z, ell.predict(z), case.y)), expected, rtol=1e-7, atol=1e-8)


@every_pairing
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 10.0, 1000.0]), d=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_curvature_is_gauss_newton_and_positive_semidefinite(loss, output, seed, scale, d):
    case = output_case(loss, output, d=d, seed=seed, scale=scale)
    ell, z = case.network.loss.base, case.z[0]
    matrices = dense(ell.curvature(z, ell.predict(z), case.y))
    expected = [naive_loss_derivatives(case, k, z[k])[1] for k in range(len(z))]
    np.testing.assert_allclose(matrices, expected, rtol=1e-10, atol=1e-13)
    assert np.linalg.eigvalsh(matrices).min() >= -1e-14 * max(1.0, np.abs(matrices).max())


@pytest.mark.parametrize("output", ["sigmoid", "tanh", "softplus", "elu", "silu", "gelu"])
def test_exact_hessian_of_a_curved_output_differs_and_can_be_negative(output):
    case = output_case("squared", output, n=50)
    ell, z = case.network.loss.base, case.z[0]
    a = ell.predict(z)
    weights = ell.hessian(z, a, case.y).weights
    assert weights.min() < 0 <= ell.curvature(z, a, case.y).weights.min()


@every_pairing
@both_dtypes
@pytest.mark.parametrize("far", [1e4, -1e4])
def test_everything_is_finite_far_out(loss, output, dtype, far):
    case = output_case(loss, output, dtype=dtype)
    ell, z = case.network.loss.base, np.full((7, 4), dtype(far))
    z[:, 0] = -far
    a = ell.predict(z)
    curvature, hessian = ell.curvature(z, a, case.y), ell.hessian(z, a, case.y)
    for result in (
        a,
        ell.value(z, a, case.y),
        ell.gradient(z, a, case.y),
        curvature.apply(z),
        curvature.solve(1e-4, z),
        curvature.smoothed(1e-4).apply(z),
        hessian.apply(z),
    ):
        assert result.dtype == dtype
        assert np.isfinite(result).all()


def test_losses_far_out_are_linear():
    z, y = np.array([[1e4, -1e4]]), np.array([1])
    ell = get_loss("cross_entropy")
    np.testing.assert_array_equal(ell.value(z, ell.predict(z), y), [2e4])
    ell, y = get_loss("binary_cross_entropy"), np.array([[0.0, 1.0]])
    np.testing.assert_array_equal(ell.value(z, ell.predict(z), y), [2e4])


@every_pairing
def test_predictions_are_those_of_the_output_activation(loss, output):
    case = output_case(loss, output)
    a = case.network.loss.predict(case.z[0])
    if output == "softmax":
        np.testing.assert_allclose(a.sum(axis=1), 1)
        shifted = case.network.loss.predict(case.z[0] + 5.0)
        np.testing.assert_allclose(a, shifted, rtol=1e-12)
    elif output == "sigmoid":
        np.testing.assert_allclose(np.log(a / (1 - a)), case.z[0], rtol=1e-9, atol=1e-12)
    assert case.network.loss.output_activation == output


# curvatures against dense matrices


@st.composite
def curvatures(draw, dtype=np.float64):
    """Weights over many decades with some zeros, and any m."""
    n, d = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = 10.0 ** rng.uniform(-6, 3, (n, d))
    centred = draw(st.booleans())
    dead = rng.uniform(size=(n, d)) < draw(st.sampled_from([0.0, 0.4]))
    dead[:, 0] = False
    weights[dead] = 0
    m = 10.0 ** draw(st.floats(-4, 4))
    return Curvature(weights.astype(dtype), centred), m, rng.normal(size=(n, d)).astype(dtype)


def by_hand(curvature: Curvature) -> np.ndarray:
    """The matrices H themselves, from their definition."""
    matrices = []
    for q in curvature.weights:
        matrices.append(np.diag(q) - np.outer(q, q) / q.sum() if curvature.centred else np.diag(q))
    return np.array(matrices)


@given(drawn=curvatures())
@settings(max_examples=100, deadline=None)
def test_apply(drawn):
    curvature, _, v = drawn
    expected = np.einsum("kij,kj->ki", by_hand(curvature), v)
    scale = np.abs(curvature.weights).max()
    np.testing.assert_allclose(curvature.apply(v), expected, rtol=1e-12, atol=1e-14 * scale)


@pytest.mark.parametrize("centred", [False, True])
def test_apply_into_an_array(centred):
    rng = np.random.default_rng(0)
    curvature = Curvature(rng.uniform(size=(5, 3)), centred)
    v = rng.normal(size=(5, 3))
    held, expected, out = v.copy(), curvature.apply(v), np.empty_like(v)
    assert curvature.apply(v, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(v, held)
    curvature.apply(v, out=v)
    np.testing.assert_array_equal(v, expected)


@given(drawn=curvatures())
@settings(max_examples=100, deadline=None)
def test_solve_inverts_the_shifted_matrix(drawn):
    curvature, m, v = drawn
    matrices = m * np.eye(v.shape[1]) + by_hand(curvature)
    x = curvature.solve(m, v)
    expected = np.linalg.solve(matrices, v[:, :, None])[:, :, 0]
    # the condition number of m I + H
    tolerance = 1e-14 * (1 + curvature.weights.max() / m)
    np.testing.assert_allclose(x, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@given(drawn=curvatures())
@settings(max_examples=100, deadline=None)
def test_smoothed_is_the_parallel_sum(drawn):
    curvature, m, v = drawn
    h = by_hand(curvature)
    expected = h @ np.linalg.inv(np.eye(v.shape[1]) + h / m)
    result = dense(curvature.smoothed(m))
    largest = curvature.weights.max()
    tolerance = 1e-14 * (1 + largest / m) * min(largest, m)
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


@given(drawn=curvatures())
@settings(max_examples=50, deadline=None)
def test_smoothed_is_what_partial_minimisation_leaves(drawn):
    # min over v of ½ (e+v)ᵀ H (e+v) + ½ m ‖v‖², at its minimiser v = −(m I + H)⁻¹ H e
    curvature, m, e = drawn
    v = -curvature.solve(m, curvature.apply(e))
    least = 0.5 * np.vecdot(e + v, curvature.apply(e + v)) + 0.5 * m * np.vecdot(v, v)
    left = 0.5 * np.vecdot(e, curvature.smoothed(m).apply(e))
    scale = np.maximum(curvature.weights.max(), m) * np.vecdot(e, e)
    np.testing.assert_allclose(left, least, rtol=1e-9, atol=1e-13 * scale.max())


@pytest.mark.parametrize("centred", [False, True])
def test_float32_stays_float32(centred):
    curvature = Curvature(np.full((2, 3), 0.25, np.float32), centred)
    v = np.ones((2, 3), np.float32)
    for result in (curvature.apply(v), curvature.solve(0.3, v), curvature.smoothed(0.3).weights):
        assert result.dtype == np.float32


# pairing by name


def test_defaults():
    assert get_loss("squared").output_activation == "identity"
    assert get_loss("binary_cross_entropy").output_activation == "sigmoid"
    assert get_loss("cross_entropy").output_activation == "softmax"


def test_kinds_of_targets():
    assert get_loss("squared").target == "real"
    assert get_loss("squared", "sigmoid").target == "real"
    assert get_loss("binary_cross_entropy").target == "real"
    assert get_loss("cross_entropy").target == "labels"


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("squared", "softmax"),
        ("squared", "sigmoidal"),
        *(("binary_cross_entropy", name) for name in (*ACTIVATION_NAMES, "softmax") if name != "sigmoid"),
        *(("cross_entropy", name) for name in ACTIVATION_NAMES),
        ("hinge", None),
    ],
)
def test_wrong_pairings_are_refused(loss, output):
    with pytest.raises(ConfigError, match=loss if loss != "squared" else str(output)):
        get_loss(loss, output)
