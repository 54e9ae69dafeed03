"""Columns and targets that lie far from 0 for how little they differ, or have sizes of very large or small units."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from choices import slow_but
from sklearn.exceptions import ConvergenceWarning

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor, array_source
from altmin_dask.data.preprocessing import standardized
from altmin_dask.errors import AltMinWarning, DataError, RunError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(600, 3))
LABELS = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
Y = X @ [1.0, 2.0, 3.0]


def classifier(x: Any, **more: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = AltMinClassifier(8, random_state=0, max_sweeps=30, **more).fit(x, LABELS)
    return float(model.score(x, LABELS))


def with_column(values: np.ndarray) -> np.ndarray:
    return np.c_[X, values]


@pytest.mark.parametrize("offset", slow_but([1e13], [1e11, 1e12, 1e13]))
def test_a_column_far_from_0_is_learnt_from(offset):
    """As an account number: by its differences, as far as float64 has them."""
    assert classifier(X + np.array([offset, 0, 0])) > classifier(X) - 0.03


def test_a_column_of_which_nothing_is_left_is_told_and_harms_no_other():
    with pytest.warns(AltMinWarning, match=r"column 3 of x .* a mean of 4\.5e\+15 .*: subtract an offset"):
        score = classifier(with_column(4.5e15 + RNG.integers(0, 5, 600)))
    assert score > classifier(X) - 0.03


@pytest.mark.slow
def test_a_constant_column_far_from_0_harms_no_other():
    assert classifier(with_column(np.full(600, 1e6))) > classifier(X) - 0.03


@pytest.mark.parametrize("size", slow_but([1e-30], [1e-40, 1e-30, 1e37, 1e100]))
def test_columns_of_any_size_in_float64(size):
    assert classifier(X * [size, 1, 1]) > classifier(X) - 0.03


@pytest.mark.slow
def test_columns_of_any_size_in_float32():
    for size in (1e-30, 1e30):
        assert classifier((X * [size, 1, 1]).astype(np.float32), dtype="float32") > classifier(X) - 0.03
    with (
        pytest.warns(AltMinWarning, match="of which float32 leaves nothing to learn from"),
        pytest.raises(RunError, match="samples in other units"),
    ):
        classifier((X * [1e37, 1, 1]).astype(np.float32), dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize("offset", slow_but([1e13], [1e8, 1e13]))
def test_targets_far_from_0(offset):
    model = AltMinRegressor((), random_state=0, ridge=0.01, max_sweeps=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert model.fit(X, Y + offset).score(X, Y + offset) > 0.99


@pytest.mark.parametrize("y", [Y + 1e16, Y * 1e200], ids=["far", "large"])
def test_targets_of_which_nothing_is_left_are_refused(y):
    with pytest.raises(DataError, match="cannot tell apart, or not hold; subtract an offset, or divide them"):
        AltMinRegressor(8, random_state=0).fit(X, y)


def test_zeros_as_targets_are_learnt():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.abs(AltMinRegressor(8, random_state=0).fit(X, np.zeros(600)).predict(X)).max() < 0.1


@pytest.mark.parametrize("size", slow_but([1e-150], [1e-25, 1e-150, 1e100]))
def test_standardize_does_so_with_numbers_of_any_size(size):
    (found,) = standardized(array_source(X * [size, 1, 1])).x.blocks(600)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-9)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)


def test_standardize_tells_of_numbers_of_which_nothing_is_left():
    x = with_column(4.5e15 + RNG.integers(0, 5, 600))
    with pytest.warns(AltMinWarning, match="a column, 3, between 4500000000000000 and 4500000000000004"):
        standardized(array_source(x))


def test_standardize_leaves_a_constant_where_it_is():
    (found,) = standardized(array_source(with_column(np.full(600, 0.1)))).x.blocks(600)
    np.testing.assert_allclose(found[:, 3], 0, atol=1e-12)


@pytest.mark.parametrize(("size", "words"), [(1e-160, "smaller than 1e-150"), (1e160, "larger than 1e.150")])
def test_inputs_whose_squares_are_lost_are_refused(size, words):
    """The small ones gave a model that knew nothing, without a word."""
    with pytest.raises(
        DataError, match=rf"x in the given arrays has numbers {words}, .* give them in other units"
    ):
        AltMinRegressor(8, max_sweeps=2, random_state=0).fit(X * size, Y)
    with pytest.raises(DataError, match=f"numbers {words}"):
        AltMinAutoencoder(2, max_sweeps=2, random_state=0).fit(X * size)
