"""Sums of columns that do not depend on the parts that a table is read in.

The same rows have the same mean, to the last bit, in one parquet file and in blocks of csv: what is filled in for
missing values tells whether two stores were prepared alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from altmin_dask.types import Array

ROWS = 4096
"""So many are added at once: what that takes besides is little, however large a part is."""


class ExactSums:
    """Sums with errors of about 2⁻¹⁰⁰ of what was added, so that rounding leaves nothing of them.

    Numbers are cut at a power of two, above which their sum has no error, and what is left once more (Rump, Ogita &
    Oishi 2008, "Accurate floating-point summation"); what is lost when these are added up is added to the next lower
    term.

    Parameters
    ----------
    columns : int
        How many columns there are.
    """

    def __init__(self, columns: int) -> None:
        self._terms = np.zeros((3, columns))

    def add(self, places: Any, values: Array) -> None:
        """Add rows of some columns.

        Parameters
        ----------
        places : ndarray of int, (n,)
            Which columns they are.
        values : ndarray of float64, (rows, n)
            Their numbers; those that are not finite make the sum so.
        """
        for start in range(0, len(values), ROWS):
            self._add(places, values[start : start + ROWS])

    def _add(self, places: Any, values: Array) -> None:
        high, middle, low = self._terms[:, places]
        with np.errstate(invalid="ignore", over="ignore"):
            if not np.isfinite(values).all():
                high = high + values.sum(axis=0)
                middle, low = np.zeros_like(middle), np.zeros_like(low)
            else:
                first, rest = _cut(values)
                second, rest = _cut(rest)
                high, lost = _two_sum(high, first)
                middle, lost_too = _two_sum(middle, lost)
                middle, lost = _two_sum(middle, second)
                low = low + lost_too + lost + rest.sum(axis=0)
        self._terms[:, places] = high, middle, low

    def of(self, column: int) -> float:
        """The sum of a column."""
        high, middle, low = self._terms[:, column].tolist()
        return float(high + (middle + low))


def _cut(values: Array) -> tuple[Array, Array]:
    """The sum of what stands above a power of two, which is exact, and what is left of the numbers."""
    _, exponent = np.frexp(np.abs(values).max(axis=0))
    above = np.ldexp(1.0, exponent + int(np.ceil(np.log2(len(values) + 1))) + 1)
    above = np.where(np.isfinite(above), above, 0.0)  # numbers near the largest there are: a plain sum
    cut = (values + above) - above
    return cut.sum(axis=0), values - cut


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum, and what rounding took (Knuth)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)
