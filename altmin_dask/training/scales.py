"""A warning of columns whose numbers are far larger than those of most others, which training suffers from."""

from __future__ import annotations

import warnings

import numpy as np

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import AltMinWarning
from altmin_dask.types import Array

UNLIKE = 10.0
"""A column is far off with a deviation of so many times that of the smallest tenth of the columns.

Pixels of digits have 2.6 times, of MNIST 1.3, iris 4. Of four standardized columns of which three are made 3, 10, 30
and 100 times as large a classifier by default gets 0.99, 0.96, 0.84 and 0.72 right. Diabetes as it was measured has 66
times (R² of −0.27 in place of 0.45), wine 1,400 (accuracy 0.52, 0.92), breast cancer 92,000."""
_SMALL = 0.1
_LEAST_ROWS, _ROWS = 20, 4096
"""Deviations of fewer rows say little, and more need not be looked at."""
_VALUES = 4_000_000
"""Nor more values, as far as there are enough rows."""


def warn_of_scales(store: SampleStore, *, sequences: bool) -> None:
    """Tell of a column that is far off, by the first rows of a store.

    Parameters
    ----------
    store : SampleStore
        Where the samples are.
    sequences : bool
        Whether they are sequences, whose steps have the same columns.

    Warns
    -----
    AltMinWarning
        With the remedy.
    """
    first = min(store.rows, store.chunk_rows, _ROWS, max(_LEAST_ROWS, _VALUES // store.features))
    rows = np.asarray(store.x[:first], np.float64)
    found = far_off(_steps(rows, store) if sequences else rows.reshape(len(rows), -1))
    if found is None:
        return
    column, largest, small = found
    how = store.preparation
    names = [] if how is None else how.names
    name = repr(names[column]) if not sequences and len(names) == store.features else str(column)
    warnings.warn(
        f"column {name} of x in {store.title} has a standard deviation of {largest:.3g}, and others "
        f"{small:.3g}: from numbers of such different scale little is learnt; standardize them "
        "(data.standardize = true, `altmin ingest --standardize`, or a StandardScaler in front of an estimator)",
        AltMinWarning,
        stacklevel=3,
    )


def _steps(rows: Array, store: SampleStore) -> Array:
    """The steps of sequences, without those that only fill them up, (steps, features of one)."""
    lengths = store.sequence_arrays.get("lengths")
    steps = rows.reshape(*rows.shape[:2], -1)
    if lengths is None:
        return steps.reshape(-1, steps.shape[2])
    return steps[np.arange(steps.shape[1]) < np.asarray(lengths[: len(rows)])[:, None]]


def far_off(rows: Array) -> tuple[int, float, float] | None:
    """The column of the largest deviation, that, and how large small ones are; None if they are not far apart."""
    if len(rows) < _LEAST_ROWS or rows.shape[1] < 2:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = rows.std(axis=0)
        varying = deviation > 1e-12 * np.abs(rows).max(axis=0)
        size = np.maximum(deviation, off_the_usual(rows))
    if varying.sum() < 2:
        return None
    small = float(np.quantile(size[varying], _SMALL, method="lower"))
    largest = int(np.argmax(np.where(varying, deviation, 0)))
    return (largest, float(deviation[largest]), small) if deviation[largest] > UNLIKE * small else None


def off_the_usual(rows: Array) -> Array:
    """How far the other numbers of a column are off the one that more than half are, if there is one; else 0.

    As the background of pixels is, or zeros where a 1 tells of something rare: that they deviate little as a whole is
    no scale of theirs.
    """
    usual = np.median(rows, axis=0)
    others = (rows != usual).sum(axis=0)
    off: Array = np.sqrt(np.square(rows - usual).sum(axis=0) / np.maximum(others, 1))
    return np.where(2 * others < len(rows), off, 0.0)
