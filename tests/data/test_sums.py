"""Sums of columns, in parts of any sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from altmin_dask.data.tables.sums import ExactSums


@pytest.mark.parametrize("parts", [1, 2, 7, 60])
@pytest.mark.parametrize("rows", [1, 61, 9001])
def test_sums_are_exact_in_any_parts(rows, parts):
    rng = np.random.default_rng(rows)
    values = rng.choice([1e-8, 1.0, 1e9], (rows, 5)) * rng.standard_normal((rows, 5))
    values[:, 1] = np.round(values[:, 1], 3)
    values[:, 2] = rng.integers(-5, 5, rows)
    values[: rows // 2, 3] = 0
    values[:, 4] = np.where(np.arange(rows) % 2, 1e300, -1e300) + 1e284 * values[:, 4]
    sums = ExactSums(7)
    places = np.array([6, 0, 2, 3, 5])
    for part in np.array_split(values, parts):
        if len(part):
            sums.add(places, part)
    assert [sums.of(place) for place in places] == [math.fsum(column) for column in values.T]
    assert sums.of(1) == sums.of(4) == 0


def test_what_is_not_finite_makes_its_sum_so():
    sums = ExactSums(2)
    sums.add(np.array([0, 1]), np.array([[1.0, 2.0], [math.inf, 3.0]]))
    sums.add(np.array([0, 1]), np.array([[1.0, 0.5]]))
    assert not math.isfinite(sums.of(0))
    assert sums.of(1) == 5.5


def test_numbers_near_the_largest_are_added():
    sums = ExactSums(1)
    sums.add(np.array([0]), np.array([[1.5e308], [-1.5e308], [3.0]]))
    assert sums.of(0) == 3
