"""A warning of columns whose numbers are far larger than those of most others, which training suffers from."""

from __future__ import annotations

import warnings

import numpy as np

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import AltMinWarning
from altmin_dask.types import Array

UNLIKE = 30.0
"""A column is far off with a deviation of so many times the usual one. The largest in pixels of digits has 1.5 times,
of iris 2.2, of diabetes as it was measured 2.8; of wine 390 (accuracy 0.52 in place of 0.92), of breast cancer 7800."""
_INDICATOR = 0.5
"""The deviation that is ascribed to what is 0 or 1, however rare either is."""
_LEAST_ROWS, _ROWS = 20, 4096
"""Deviations of fewer rows say little, and more need not be looked at."""


def warn_of_scales(store: SampleStore) -> None:
    """Tell of a column that is far off, by the first rows of a store.

    Warns
    -----
    AltMinWarning
        With the remedy.
    """
    rows = np.asarray(store.x[: min(store.rows, store.chunk_rows, _ROWS)], np.float64).reshape(
        -1, store.features
    )
    found = far_off(rows)
    if found is None:
        return
    column, largest, usual = found
    how = store.preparation
    names = [] if how is None else how.names
    name = repr(names[column]) if len(names) == store.features else str(column)
    warnings.warn(
        f"column {name} of x in {store.title} has a standard deviation of {largest:.3g}, and most columns about "
        f"{usual:.3g}: from numbers of such different scale little is learnt; standardize them "
        "(data.standardize = true, `altmin ingest --standardize`, or a StandardScaler in front of an estimator)",
        AltMinWarning,
        stacklevel=3,
    )


def far_off(rows: Array) -> tuple[int, float, float] | None:
    """The column of largest deviation, that and the median one, if they are far apart; None if they are not."""
    if len(rows) < _LEAST_ROWS or rows.shape[1] < 2:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = rows.std(axis=0)
        deviation[((rows == 0) | (rows == 1)).all(axis=0) & (deviation > 0)] = _INDICATOR
        varying = deviation > 1e-12 * np.abs(rows).max(axis=0)
    if varying.sum() < 2:
        return None
    usual = float(np.median(deviation[varying]))
    largest = int(np.argmax(np.where(varying, deviation, 0)))
    return (largest, float(deviation[largest]), usual) if deviation[largest] > UNLIKE * usual else None
