"""What is recorded of samples while they are ingested, and that those which are not finite are named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from in_order import ingest

from altmin_dask.data.checks import check_finite
from altmin_dask.data.source import array_source
from altmin_dask.data.summaries import Summary, summarise
from altmin_dask.errors import DataError

X = np.arange(23 * 6, dtype=np.uint8).reshape(23, 2, 3)
Y = np.arange(23, dtype=np.uint8) % 5

finite = st.floats(-1e6, 1e6, width=32)


@given(x=hnp.arrays(np.float32, (9, 2), elements=finite), y=hnp.arrays(np.int64, 9), cut=st.integers(1, 8))
def test_merged_summaries_are_that_of_the_whole(x, y, cut):
    for targets in (None, y, y / 3):
        parts = [
            (x[:cut], None if targets is None else targets[:cut]),
            (x[cut:], None if targets is None else targets[cut:]),
        ]
        first, second = (summarise(*part) for part in parts)
        assert first.merge(second) == second.merge(first) == summarise(x, targets)
        assert Summary.from_json(first.to_json()) == first


def test_summaries_of_different_kinds_are_not_merged():
    kinds = [summarise(X, y) for y in (None, Y, Y / 2)]
    for first in kinds:
        for second in kinds:
            if first is not second:
                with pytest.raises(
                    DataError, match="summaries of different kinds of targets cannot be merged"
                ):
                    first.merge(second)


@pytest.mark.parametrize(
    ("bad", "rows"),
    [
        ([17], "row 117 of a.npz has"),
        ([3, 17], "rows 103 and 117 of a.npz have"),
        ([3, 5, *range(8, 20)], "rows 103, 105 and more of a.npz have"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_finite_names_the_first_rows(bad, rows, value):
    x = np.zeros((23, 2, 3), np.float32)
    y = np.zeros(23)
    check_finite(x, y, 100, "a.npz")
    y[bad] = value
    with pytest.raises(DataError, match=f"{rows} NaN or infinity in y as float64; remove or repair them"):
        check_finite(x, y, 100, "a.npz")
    x[bad, 1, 2] = value
    with pytest.raises(DataError, match=f"{rows} NaN or infinity in x as float32; remove or repair them"):
        check_finite(x, y, 100, "a.npz")


def test_numbers_that_overflow_are_not_finite(tmp_path):
    x = np.full((3, 2), 1e300)
    with pytest.raises(
        DataError, match=r"rows 0, 1 and more of .* have numbers up to 1e\+300 in x, which float32 does"
    ):
        ingest(array_source(x), tmp_path / "a.zarr")
    np.testing.assert_array_equal(ingest(array_source(x), tmp_path / "b.zarr", scale=1e299).x[:], 10)
