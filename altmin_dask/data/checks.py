"""What samples have to be, and the sentence that refuses the first ones that are not.

Whatever names rows says so by `_rows`, so that what is known of where a row came from has to be told there only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.errors import DataError, did_you_mean, warn
from altmin_dask.storage.sample_arrays import WEIGHTS
from altmin_dask.types import Array

_NAMED = 3
"""Rows that are named."""
WHOLE = 2**53
"""The first whole number whose neighbours float64 does not hold."""


class ShapedArray(Protocol):
    """What is known of an array, whatever it is kept in."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""
        ...


def check_finite(
    x: Array,
    y: Array | None,
    first_row: int,
    name: str,
    x_name: str = "x",
    columns: Sequence[str] = (),
    *,
    where: Callable[[Sequence[int]], str] | None = None,
    largest: float | None = None,
) -> None:
    """Refuse samples with NaN or infinity.

    Parameters
    ----------
    x, y : numpy.ndarray
        Inputs and targets ``(rows, …)``, numeric; y may be None.
    first_row : int
        Which row of the data the first one is.
    name, x_name : str
        What the data, and the array x in it, are called in the message.
    columns : sequence of str
        What columns of x are called, if they have names.
    where : callable, optional
        Says where rows of the data are, if somebody who looks at it counts them otherwise.
    largest : float, optional
        The largest number before it was rounded to the dtype of x, if all were finite then: what is not is too large.

    Raises
    ------
    DataError
        Naming the first rows of the block that are not finite, and the column of the first one.
    """
    for what, values in ((x_name, x), ("y", y)):
        # the extremes are finite only if all values are, and need no temporary array
        if values is None or (np.isfinite(values.min()) and np.isfinite(values.max())):
            continue
        bad = first_row + np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        there, place_in = "", int(np.isfinite(values[bad[0] - first_row]).argmin())
        if columns:
            there = f", in the column {columns[place_in]!r}"
        elif values.ndim == 2 and values.shape[1] > 1 and largest is None:
            there = f", in column {place_in} counted from 0"
        if where is None:
            begin, place = _rows(bad, name), ""
        else:
            begin = f"{name} has"
            place = f" ({where(bad[:_NAMED].tolist())}{', and more' * (len(bad) > _NAMED)})"
        if largest is not None:
            raise DataError(
                f"{begin} numbers up to {largest:g} in {what}{there}{place}, which {values.dtype} does not hold; "
                "repair, divide or standardize them, or keep them by --dtype float64 (network.dtype of a pipeline)"
            )
        raise DataError(
            f"{begin} NaN or infinity in {what} as {values.dtype}{there}{place}; remove or repair them"
        )


def check_labels(y: Array, first_row: int, name: str) -> None:
    """Refuse integer labels that int64 cannot hold, or whose place is taken by the mark of a lost chunk.

    Parameters
    ----------
    y : numpy.ndarray
        Labels as they come from the source, of any integer dtype.
    first_row : int
        Which row of the data the first one is.
    name : str
        What the data is called in the message.

    Raises
    ------
    DataError
        Naming the first such row.
    """
    range_of = np.iinfo(np.int64)
    if y.dtype.kind != "b" and (int(y.min()) <= range_of.min or int(y.max()) > range_of.max):
        row = int(np.flatnonzero((y <= range_of.min) | (y > range_of.max))[0])
        raise DataError(
            f"{_rows([first_row + row], name)} the label {y[row]}, which cannot be stored; number the classes from 0"
        )


def check_weights(weights: Array, first_row: int, name: str) -> None:
    """Refuse weights of samples, (rows,), that are negative or not finite; arguments as of `check_labels`.

    Raises
    ------
    DataError
        Naming the first such row.
    """
    usable = np.isfinite(weights) & (weights >= 0)
    if not usable.all():
        row = int(np.argmin(usable))
        raise DataError(
            f"{_rows([first_row + row], name)} the weight {weights[row]:g}; give weights from 0 on"
        )


def check_lengths(lengths: Array, steps: int, first_row: int, name: str) -> None:
    """Refuse lengths of sequences that are not from 1 to `steps`.

    Parameters
    ----------
    lengths : numpy.ndarray, (rows,)
        Integers.
    steps, first_row : int
        Steps there is room for, and which row of the data the first one is.
    name : str
        What the data is called in the message.

    Raises
    ------
    DataError
        Naming the first such row.
    """
    bad = np.flatnonzero((lengths < 1) | (lengths > steps))
    if bad.size:
        raise DataError(
            f"{_rows([first_row + bad[0]], name)} the length {lengths[bad[0]]}; "
            f"sequences have 1 to {steps} steps here"
        )


def _rows(rows: Sequence[int] | Array, name: str) -> str:
    """The beginning of a sentence on some rows, in order: which they are, and that they have something."""
    if len(rows) == 1:
        return f"row {rows[0]} of {name} has"
    others = f" and {rows[1]}" if len(rows) == 2 else f", {rows[1]} and more"
    return f"rows {rows[0]}{others} of {name} have"


def is_labels(dtype: np.dtype[Any]) -> bool:
    """Tell integer labels, of which booleans are two, from targets that are numbers to fit."""
    return dtype.kind in "biu"


def check_whole(values: Array, label: str) -> None:
    """Refuse whole numbers that float64 does not hold, where they are to be computed with.

    Raises
    ------
    DataError
        Naming the first one.
    """
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:
        return
    if int(values.min()) > -WHOLE and int(values.max()) < WHOLE:
        return
    first = values[(values <= -WHOLE) | (values >= WHOLE)].ravel()[0]
    raise whole_refused(label, int(first))


def whole_refused(label: str, value: int) -> DataError:
    """What is said of a whole number that float64 does not hold."""
    return DataError(
        f"{label} has the whole number {value}, and float64 tells those from 2^53 = {WHOLE} on no more apart; "
        "subtract an offset, or leave such a column out"
    )


def check_shapes(source: Source) -> None:
    """Refuse arrays whose shapes or dtypes mean nothing to training.

    Raises
    ------
    DataError
        If targets are neither labels, nor numbers, nor rows of numbers, nor those of every step; or weights, lengths
        or states have a wrong shape, or there are no sequences that they could belong to.
    """
    if source.y is not None:
        _check_targets(source.y, source.x_shape)
    if source.weights is not None and len(source.weights.shape) != 1:
        raise DataError(
            f"{source.weights.label} has shape {source.weights.shape}; give one weight for each sample, (rows,)"
        )
    for name, reader in source.sequence_arrays.items():
        if len(source.x_shape) < 2:
            raise DataError(
                f"{reader.label} belongs to sequences, and {source.x.label} has shape {source.x.shape}; "
                f"give x of shape (rows, steps, features), or leave out {name}"
            )
        if name == "lengths" and (len(reader.shape) != 1 or not is_labels(reader.dtype)):
            raise DataError(
                f"{reader.label} has dtype {reader.dtype} and shape {reader.shape}; give integers of shape (rows,)"
            )
        if name == "states" and len(reader.shape) != 2:
            raise DataError(
                f"{reader.label} has shape {reader.shape}; give one row for each sequence, the states of all "
                "recurrent layers side by side"
            )


def _check_targets(y: RowReader, sample_shape: tuple[int, ...]) -> None:
    shape = y.shape
    stepwise = len(sample_shape) > 1 and shape[1:2] == sample_shape[:1]
    if is_labels(y.dtype) and len(shape) > (2 if stepwise else 1):
        raise DataError(
            f"{y.label} has integers of shape {shape}; give labels of shape (rows,) (of one-hot rows "
            "y.argmax(axis=1)) or, of sequences, (rows, steps), or floats to fit"
        )
    if len(shape) > (3 if stepwise else 2) or 0 in shape:
        raise DataError(
            f"{y.label} has shape {shape}; give targets of shape (rows,), (rows, outputs) or, of sequences, "
            "(rows, steps, outputs)"
        )


def warn_of_unread(
    where: str,
    unread: Mapping[str, ShapedArray],
    x_shape: tuple[int, ...],
    rows: int,
    known: Collection[str],
    part: str = "",
) -> None:
    """Tell of arrays beside x that nobody reads, though they are called nearly as some that would be.

    Parameters
    ----------
    where : str
        What messages call their home.
    unread : mapping
        The arrays, by their names.
    x_shape, rows : tuple of int, int
        Shape of a sample, and how many there are, of which such an array has to have as many.
    known : collection of str
        Arrays that x could have beside it, and has not.
    part : str
        What stands behind all their names.

    Warns
    -----
    AltMinWarning
        For each of them.
    """
    for name, array in unread.items():
        numeric = array.dtype.kind in "iuf" and array.shape[:1] == (rows,)
        rank, sequences = len(array.shape), len(x_shape) > 1
        fitting = [
            each for each in known if rank == 1 + (each == "states") and (sequences or each == WEIGHTS)
        ]
        if numeric and (near := did_you_mean(name.removesuffix(part), fitting)):
            warn(f"array {name!r} of {where} is not read{near.removesuffix('?')}{part}?")
