"""From the numbers of a source to those of a store: divided and rounded once, and what that loses is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from altmin_dask.data.checks import check_whole
from altmin_dask.data.readers import RowReader
from altmin_dask.networks.workspace import strips
from altmin_dask.types import Array

BLURRED = 1e-3
"""Steps of float32 that are more than such a share of a column's range are noticed: fewer than 1000 values are left."""
_SINGLE = np.finfo(np.float32)


class Conversion:
    """Blocks of an array as a store holds them.

    Float64 is what is divided in, whatever comes in and goes out, so that every number is rounded once.

    Parameters
    ----------
    reader : RowReader
        The array.
    dtype : dtype
        Of the store.
    scale : float
        What numbers are divided by.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the store.
    rounded : bool
        Whether numbers so far have lost digits of float64.
    """

    def __init__(self, reader: RowReader, dtype: Any, scale: float = 1.0) -> None:
        self.label, self.dtype, self.scale, self.rounded = reader.label, np.dtype(dtype), scale, False
        self._low: Array | None = None
        self._high: Array | None = None
        self._fine = not np.can_cast(reader.dtype, np.float32)

    def __call__(self, block: Array) -> Array:
        """Convert a block, (rows, …), which is not changed.

        Raises
        ------
        DataError
            If there are whole numbers that float64 does not hold.
        """
        if self.dtype.kind != "f":
            self._widen(block)
            return block.astype(self.dtype)
        check_whole(block, self.label)
        out = np.empty(block.shape, self.dtype)
        rows, kept = block.reshape(len(block), -1), out.reshape(len(block), -1)
        with np.errstate(over="ignore", under="ignore"):  # `check_finite` says it better
            for strip in strips(*rows.shape):
                # a strip at a time: all of a chunk in float64 would be more than the chunk itself
                self._widen(rows[strip])
                exact = np.asarray(rows[strip], np.float64)
                exact = exact if self.scale == 1 else exact / self.scale
                kept[strip] = exact
                self.rounded = self.rounded or not np.array_equal(kept[strip], exact)
        return out

    def too_large(self) -> float | None:
        """The largest number so far, if all were finite, and the dtype does not hold it; else None."""
        if self._low is None or self._high is None:
            return None
        largest = float(np.maximum(np.abs(self._low), np.abs(self._high)).max()) / self.scale  # of NaN: NaN
        return largest if float(np.finfo(self.dtype).max) < largest < np.inf else None

    def blurred(self) -> str | None:
        """Say where float32 tells the numbers of a column badly apart; None if it does so nowhere."""
        if self._low is None or self._high is None:
            return None
        return blurred(self._low / self.scale, self._high / self.scale, self.label)

    def _widen(self, block: Array) -> None:
        """Take a block into the range of every column, unless float32 holds all that there can be."""
        if not self._fine:
            return
        rows = block.reshape(len(block), -1)
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)


def blurred(low: Array, high: Array, label: str) -> str | None:
    """Say which column of such ranges, (columns,), float32 tells badly apart; None if there is none."""
    low, high = np.atleast_1d(low), np.atleast_1d(high)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.maximum(
            float(_SINGLE.eps) * np.maximum(np.abs(low), np.abs(high)), float(_SINGLE.smallest_subnormal)
        )
        found = np.flatnonzero((high > low) & (steps > BLURRED * (high - low)))
    if not found.size:
        return None
    first = found[0]
    where = f"column {first} of " if low.size > 1 else ""
    others = f" (and {found.size - 1} more columns)" if found.size > 1 else ""
    return (
        f"{where}{label}{others} runs from {low[first]:.12g} to {high[first]:.12g}, "
        f"where float32 has steps of {steps[first]:.2g}"
    )


def real(block: Array) -> Array:
    """Whole numbers, as targets to fit, in float64.

    Raises
    ------
    DataError
        If it does not hold them.
    """
    check_whole(block, "y")
    return np.asarray(block, np.float64)
