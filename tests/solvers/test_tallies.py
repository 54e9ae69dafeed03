"""Rows that travel as places and values have the sums of those that do not, however they are added up."""

from __future__ import annotations

import numpy as np
import pytest

from altmin_dask.execution.pieces import added
from altmin_dask.solvers.tallies import TalliedRows

HEAD, SIZE = 3, 63
ROWS = TalliedRows(HEAD, SIZE)
RNG = np.random.default_rng(3)


def part(touched: int) -> tuple[np.ndarray, np.ndarray]:
    """A row as it travels, and all of it."""
    sums = RNG.normal(size=HEAD)
    tallies = [
        (RNG.integers(0, SIZE - HEAD, count), RNG.normal(size=count)) for count in (touched, touched // 2)
    ]
    whole = np.zeros(SIZE)
    whole[:HEAD] = sums
    for places, values in tallies:
        for place, value in zip(places, values, strict=True):
            whole[HEAD + place] += value
    return ROWS.row(sums, tallies), whole


@pytest.mark.parametrize("touched", [0, 1, 7, 40])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_sums(touched, count):
    rows, wholes = zip(*(part(touched) for _ in range(count)), strict=True)
    assert max(map(len, rows)) <= SIZE
    total = added(rows, ROWS.add)
    assert len(total) <= SIZE
    np.testing.assert_allclose(ROWS.whole(total), np.sum(wholes, axis=0), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(total[:HEAD], added([whole[:HEAD] for whole in wholes]))


def test_who_adds_makes_no_difference_to_any_bit():
    rows = [part(touched)[0] for touched in RNG.integers(0, 12, 21)]
    for together in (2, 4, 8):
        left = rows
        while len(left) > 1:
            branches = range(0, len(left), together)
            left = [added(left[start : start + together], ROWS.add) for start in branches]
        np.testing.assert_array_equal(left[0], added(rows, ROWS.add))
