"""Labels of any kind, and the classes 0 … K − 1 that they stand for; found by going through them once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from altmin_dask.data.checks import WHOLE
from altmin_dask.data.readers import RowReader
from altmin_dask.data.streams import mapped
from altmin_dask.errors import DataError
from altmin_dask.types import Array

TEXT = "UST"
"""Kinds of NumPy's dtypes that are text."""
NONE = -1
"""The label of a step of a sequence that has no target."""
MOST = 100_000
"""Different labels that are still taken for classes."""
_BLOCK = 1 << 16
_SHOWN = 5


def distinct(y: RowReader) -> Array:
    """The different values of an array, sorted.

    Raises
    ------
    DataError
        If there are more than can be classes.
    """
    found: Array | None = None
    for block in y.blocks(_BLOCK):
        own = np.unique(block)
        found = own if found is None else np.union1d(found, own)
        if len(found) > MOST:
            raise DataError(
                f"{y.label} has more than {MOST} different labels, which are no classes; train a regressor on numbers"
            )
    assert found is not None  # a source has at least one row
    return found


def whole_labels(y: RowReader) -> tuple[int, ...]:
    """The different labels of an array of numbers, sorted.

    Raises
    ------
    DataError
        If there are numbers that are not whole, or too large, or too many different ones.
    """
    found = distinct(y)
    if found.dtype.kind == "f":
        unusable = found[~(np.isfinite(found) & (found == np.floor(found)) & (np.abs(found) < WHOLE))]
        if np.isnan(unusable).any():
            raise DataError(f"{y.label} has missing labels (NaN); leave such rows out")
        if unusable.size:
            raise DataError(
                f"{y.label} has the label {unusable[0]:g}; a classifier needs whole numbers or text, and a regressor "
                "takes other numbers"
            )
    if found[-1] > np.iinfo(np.int64).max:
        raise DataError(f"{y.label} has the label {found[-1]}, which is too large; number the classes from 0")
    return tuple(map(int, found))


def text_labels(y: RowReader, known: Sequence[str] | None) -> tuple[RowReader, tuple[str, ...]]:
    """Labels that are text as integers, and the classes that they number.

    Parameters
    ----------
    y : RowReader
        Text, (rows, …).
    known : sequence of str, optional
        The classes, sorted; those that are there if not given.

    Raises
    ------
    DataError
        If there are others than `known`, empty ones, or bytes that are no text.
    """
    text = mapped(y, lambda block: _as_text(block, y.label), "U")
    found = tuple(map(str, distinct(text)))
    if "" in found:
        raise DataError(f"{y.label} has labels that are empty; leave such rows out, or give them a name")
    if known is not None and (new := [name for name in found if name not in known]):
        raise DataError(f"{y.label} has {listed(new)}, which the samples for training had not")
    classes = tuple(found if known is None else known)
    numbers = {name: number for number, name in enumerate(classes)}

    def numbered(block: Array) -> Array:
        own, places = np.unique(block, return_inverse=True)
        return np.array([numbers[str(name)] for name in own])[places].reshape(block.shape)

    return mapped(text, numbered, np.int64), classes


def numbered(y: Array, labels: Sequence[int]) -> Array:
    """Labels as the places that they have among those of all classes; of steps without a target as they are.

    Raises
    ------
    DataError
        If there are others.
    """
    known = np.asarray(labels)
    places = np.searchsorted(known, y).clip(max=len(known) - 1)
    there = known[places] == y
    if not there.all():
        none = (y == NONE) & ~there & (y.shape[1:] > (1,))
        if not (there | none).all():
            raise DataError(
                f"there are the labels {listed(np.unique(y[~(there | none)]).tolist())}, other than before"
            )
        places[none] = NONE
    return places


def listed(values: Sequence[object]) -> str:
    """Some values in words: the first of them, and how many more."""
    shown = [repr(value) if isinstance(value, str) else f"{value}" for value in values[:_SHOWN]]
    more = [f"{len(values) - _SHOWN} more"] if len(values) > _SHOWN else []
    *others, last = shown + more
    return f"{', '.join(others)} and {last}" if others else last


def _as_text(block: Array, label: str) -> Array:
    if block.dtype.kind == "S":
        try:
            return np.char.decode(block, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{label} has the label {error.object!r}, which is no text in UTF-8; write labels as text "
                "(numpy.char.decode, with the encoding that they have)"
            ) from None
    return (
        block.astype(object).astype(str) if block.dtype.kind == "T" else block
    )  # which has no width of its own
