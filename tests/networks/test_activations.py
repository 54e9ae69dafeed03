"""Activations: both derivatives are right, nothing overflows, and `out` is honoured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zoo import ACTIVATION_NAMES, NAIVE

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import ACTIVATIONS, get_activation

EPS = 1e-5
# at −1e4 and 1e4: value, derivative
LIMITS = {
    "identity": ((-1e4, 1e4), (1, 1)),
    "sigmoid": ((0, 1), (0, 0)),
    "tanh": ((-1, 1), (0, 0)),
    "relu": ((0, 1e4), (0, 1)),
    "leaky_relu": ((-100, 1e4), (0.01, 1)),
    "softplus": ((0, 1e4), (0, 1)),
    "elu": ((-1, 1e4), (0, 1)),
    "silu": ((0, 1e4), (0, 1)),
    "gelu": ((0, 1e4), (0, 1)),
}

every_activation = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATION_NAMES)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# no point within a difference step of the kinks
points = hnp.arrays(
    np.float64, st.integers(1, 20), elements=st.floats(-30, 30).filter(lambda z: abs(z) > 10 * EPS)
)


def test_the_zoo_knows_every_activation():
    assert set(NAIVE) == set(LIMITS) == set(ACTIVATIONS)


@every_activation
@given(z=points)
@settings(max_examples=30, deadline=None)
def test_value_is_the_textbook_function(activation, z):
    np.testing.assert_allclose(activation.value(z), NAIVE[activation.name][0](z), rtol=1e-13, atol=1e-300)


@every_activation
@given(z=points)
@settings(max_examples=30, deadline=None)
def test_derivative_is_that_of_the_value(activation, z):
    difference = (activation.value(z + EPS) - activation.value(z - EPS)) / (2 * EPS)
    np.testing.assert_allclose(
        activation.derivative(z, activation.value(z)), difference, rtol=1e-8, atol=1e-9
    )


@every_activation
@given(z=points)
@settings(max_examples=30, deadline=None)
def test_second_derivative_is_that_of_the_derivative(activation, z):
    def slope(z):
        return activation.derivative(z, activation.value(z))

    difference = (slope(z + EPS) - slope(z - EPS)) / (2 * EPS)
    second = activation.second_derivative(z, activation.value(z))
    np.testing.assert_allclose(second, difference, rtol=1e-8, atol=1e-9)


@every_activation
@both_dtypes
def test_derivative_may_take_the_place_of_z(activation, dtype):
    z = np.linspace(-9, 9, 60, dtype=dtype).reshape(12, 5)
    a = activation.value(z)
    expected = activation.derivative(z, a)
    assert activation.derivative(z, a, out=z) is z
    np.testing.assert_array_equal(z, expected)


@every_activation
@both_dtypes
def test_limits_far_out(activation, dtype):
    z = np.array([-1e4, 1e4], dtype)
    value, slope = LIMITS[activation.name]
    a = activation.value(z)
    tolerance = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(a, value, rtol=tolerance, atol=0)
    np.testing.assert_allclose(activation.derivative(z, a), slope, rtol=tolerance, atol=0)
    np.testing.assert_array_equal(activation.second_derivative(z, a), 0)


@every_activation
@both_dtypes
def test_dtype_is_kept_and_the_argument_untouched(activation, dtype):
    z = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4)
    before = z.copy()
    a = activation.value(z)
    held = a.copy()
    for result in (a, activation.derivative(z, a), activation.second_derivative(z, a)):
        assert result.dtype == dtype
        assert result.shape == z.shape
        assert not np.shares_memory(result, z)
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(a, held)


@every_activation
@both_dtypes
@pytest.mark.parametrize("function", ["value", "derivative"])
def test_out_receives_the_result_even_strided(activation, dtype, function):
    z = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4)
    arguments = (z,) if function == "value" else (z, activation.value(z))
    expected = getattr(activation, function)(*arguments)
    wide = np.full((3, 5), 7, dtype)
    returned = getattr(activation, function)(*arguments, out=wide[:, :-1])
    assert np.shares_memory(returned, wide)
    np.testing.assert_array_equal(wide[:, :-1], expected)
    np.testing.assert_array_equal(wide[:, -1], 7)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("sigmoid", lambda z: (np.exp(z), np.exp(z))),
        ("softplus", lambda z: (np.exp(z), np.exp(z))),
    ],
)
def test_small_values_are_accurate_in_relative_terms(name, exact):
    # both functions and their derivatives are exp(z) (1 + O(exp z)) there
    z = np.array([-40.0, -60.0, -300.0])
    a = ACTIVATIONS[name].value(z)
    value, slope = exact(z)
    np.testing.assert_allclose(a, value, rtol=1e-13)
    np.testing.assert_allclose(ACTIVATIONS[name].derivative(z, a), slope, rtol=1e-13)


def test_look_up():
    assert get_activation("tanh") is ACTIVATIONS["tanh"]
    with pytest.raises(ConfigError, match=r"'tan' is unknown.*tanh"):
        get_activation("tan")
