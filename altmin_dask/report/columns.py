"""A history as columns of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from altmin_dask.training.record import Layers, Record
from altmin_dask.types import Array


def column(values: Iterable[float | None]) -> Array:
    """One number of every record, (records,), NaN where it is not known."""
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def layer_columns(values: Iterable[Layers | None]) -> Array:
    """The numbers of the layers of every record, (records, layers), NaN where they are not known."""
    rows = [row or () for row in values]
    table = np.full((len(rows), max((len(row) for row in rows), default=0)), np.nan)
    for target, row in zip(table, rows, strict=True):
        target[: len(row)] = row
    return table


def gap(records: Sequence[Record]) -> Array:
    """Relaxed objective without its ridge / nested loss − 1 of every record, NaN where it is not known.

    It goes to zero as the constraints are met.
    """
    relaxed = column(r.relaxed_objective for r in records) - column(r.ridge_term for r in records)
    nested = column(r.nested_loss for r in records)
    return relaxed / np.where(nested > 0, nested, np.nan) - 1
