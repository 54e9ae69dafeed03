"""Sequences of different lengths: lists of them as padded arrays, and which steps of those are there."""

from __future__ import annotations

from typing import Any

import numpy as np

from altmin_dask.errors import DataError
from altmin_dask.types import Array


def _dimensions(row: Any, place: int) -> int:
    """Of a row or a sequence in a list, which has the same numbers at all steps."""
    try:
        return np.ndim(row)
    except ValueError:
        raise DataError(
            f"row {place} of a list, counted from 0, holds lists of unlike length; give one number for each column, "
            "or, of a sequence, as many for each of its steps"
        ) from None


def is_ragged(X: Any) -> bool:
    """Tell a list of sequences, (steps, features) each, that are not all equally long."""
    if isinstance(X, np.ndarray):
        if X.dtype.kind != "O" or X.ndim != 1:
            return False
    elif not isinstance(X, list | tuple):
        return False
    rows = [
        (place, row) for place, row in enumerate(X) if not isinstance(row, str | bytes)
    ]  # labels are no sequences
    return len({len(row) for place, row in rows if _dimensions(row, place) or hasattr(row, "__len__")}) > 1


def are_sequences(X: Any) -> bool:
    """Tell a list of sequences, (steps, features) each, that may all be equally long."""
    if not isinstance(X, list | tuple) or not X:
        return False
    return all(_dimensions(row, place) == 2 for place, row in enumerate(X))


def padded(rows: Any, steps: int | None = None) -> tuple[Array, Array]:
    """Sequences as an array (rows, steps, …) with zeros behind their ends, and their lengths.

    Parameters
    ----------
    rows : sequence of array_like, (steps, …)
        One for each sample.
    steps : int, optional
        Steps there is to be room for; those of the longest, if not given.

    Raises
    ------
    DataError
        If they have no steps, or other features than each other.
    """
    arrays = [np.asarray(row) for row in rows]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) != 1 or any(len(array) == 0 for array in arrays):
        usual = arrays[0].shape[1:]
        odd = next(n for n, array in enumerate(arrays) if len(array) == 0 or array.shape[1:] != usual)
        raise DataError(
            f"sequence {odd} of a list, counted from 0, has shape {arrays[odd].shape}, and the first "
            f"{arrays[0].shape}: sequences need one step or more, and all the same features; give arrays "
            "(steps, features)"
        )
    lengths = np.array([len(array) for array in arrays], np.int64)
    steps = int(lengths.max()) if steps is None else steps
    if lengths.max() > steps:
        raise DataError(f"a sequence has {lengths.max()} steps, more than the {steps} there is room for")
    found = np.zeros((len(arrays), steps, *shapes.pop()), np.result_type(*arrays))
    for row, array in zip(found, arrays, strict=True):
        row[: len(array)] = array
    return found, lengths


def checked_lengths(lengths: Any, steps: int, rows: int) -> Array:
    """How many steps there are of each sequence.

    Raises
    ------
    DataError
        If they are not a whole number from 1 to `steps` for each of the rows.
    """
    values = np.asarray(lengths)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(
            f"lengths have shape {values.shape} and dtype {values.dtype}; give one whole number for each row"
        )
    if len(values) != rows:
        raise DataError(f"X has {rows} rows and lengths has {len(values)}; give one for each")
    if ((values < 1) | (values > steps)).any():
        raise DataError(
            f"lengths are from {values.min()} to {values.max()}; sequences have 1 to {steps} steps here"
        )
    return values.astype(np.int64)


def padded_like(rows: Any, steps: int, lengths: Array) -> Array:
    """Targets of every step, in a list of sequences, as `padded` makes an array of them.

    Raises
    ------
    DataError
        If they have other lengths than the samples.
    """
    found, own = padded(rows, steps)
    if len(own) == len(lengths) and (own != lengths).any():
        row = int((own != lengths).argmax())
        raise DataError(
            f"row {row} of X has {lengths[row]} steps, and that of y {own[row]}; give a target for each step"
        )
    return found


def steps_there(values: Array, lengths: Any) -> Array:
    """Values of all steps that are there, (steps in all, …), of values (rows, steps, …)."""
    if lengths is None:
        return values.reshape(-1, *values.shape[2:])
    found: Array = values[np.arange(values.shape[1]) < np.asarray(lengths)[:, None]]
    return found


def filled(values: Array, lengths: Array) -> Array:
    """Values (rows, steps, …) in which the first one of a row stands behind its end, too: no new label, no NaN."""
    there = np.arange(values.shape[1]) < np.asarray(lengths)[:, None]
    return np.where(there.reshape(*there.shape, *(1,) * (values.ndim - 2)), values, values[:, :1])
