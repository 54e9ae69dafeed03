"""Dates that are written as whole numbers, as 20200131 is: read as numbers, from which no month or week can be seen."""

from __future__ import annotations

import numpy as np

from altmin_dask.types import Array

FIRST, LAST = 1900_01_01, 2100_12_31
"""Between these a number of eight digits may be a date."""
LEAST = 5
"""So many rows that are all dates are no chance (chosen, not measured)."""


def look_like_dates(values: Array) -> Array:
    """Tell columns that hold nothing but dates written so.

    Parameters
    ----------
    values : ndarray, (rows, columns), float64
        NaN is missing.

    Returns
    -------
    ndarray of bool, (columns,)
    """
    found = np.zeros(values.shape[1], bool)
    first = values[0]
    # the first row rules out nearly all columns, of which there may be tens of thousands
    for own in np.flatnonzero(np.isnan(first) | ((first >= FIRST) & (first <= LAST))):
        given = values[:, own]
        given = given[~np.isnan(given)]
        if ((given < FIRST) | (given > LAST) | (given != np.floor(given))).any():
            continue
        whole = given.astype(np.int64)
        month, day = whole // 100 % 100, whole % 100
        found[own] = bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())
    return found
