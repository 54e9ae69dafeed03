"""Targets as a store holds them: labels as numbers from 0 on, and real numbers as floats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from altmin_dask.data.conversion import real
from altmin_dask.data.readers import RowReader
from altmin_dask.data.streams import mapped
from altmin_dask.errors import DataError
from altmin_dask.types import Array

_BLOCK = 1 << 16
"""Labels that are looked at, at once."""
_OFTEN = 4
"""A label that is there so often on average is a class, and no number."""


def find_classes(y: RowReader, known: Array | None = None, before: Array | None = None) -> Array:
    """The labels there are, sorted.

    Parameters
    ----------
    y : RowReader
        Labels of whatever type.
    known : ndarray or None
        All labels there may be, which are the classes then.
    before : ndarray or None
        The classes of the network that is gone on with.

    Raises
    ------
    DataError
        If there is one class only, or others than there may be.
    """
    found: Array | None = None
    try:
        for block in y.blocks(_BLOCK):
            own = np.unique(block)
            found = own if found is None else np.union1d(found, own)
    except TypeError:
        kinds = sorted({type(each).__name__ for each in block.ravel().tolist()})
        raise DataError(
            f"{y.label} has labels of several types, {', '.join(kinds)}; give all of one"
        ) from None
    assert found is not None
    # it warns of labels most of which are there once, so each has to be there as often as it is on average
    like = np.repeat(found, max(1, min(_OFTEN, y.shape[0] // len(found))))
    with np.errstate(invalid="ignore"):  # of NaN, which is refused
        check_classification_targets(like)
    classes = found if known is None else known
    if len(classes) < 2:
        raise DataError(f"y has only one class, {classes.tolist()[0]!r}; a classifier needs at least two")
    if not np.isin(found, classes).all():
        raise DataError(
            f"y has the labels {found.tolist()}, which are not all among the classes {classes.tolist()}"
        )
    if before is not None and not np.array_equal(found, before):
        raise DataError(
            f"warm_start goes on with the classes {before.tolist()}, and y has {found.tolist()}; "
            "give samples of all of them, or warm_start=False"
        )
    return classes


@contextmanager
def announced(estimator: Any, classes: Any) -> Iterator[None]:
    """Let a classifier know all labels there will be, while it takes some samples.

    Raises
    ------
    DataError
        If there are no classes in the first call, or others than in the first call.
    """
    if classes is not None:
        found = np.unique(np.asarray(classes))
        if hasattr(estimator, "model_") and not np.array_equal(found, estimator.classes_):
            raise DataError(
                f"classes are {found.tolist()}, and were {estimator.classes_.tolist()} in the first call"
            )
        estimator._announced = found
    elif not hasattr(estimator, "model_"):
        raise DataError("classes must be passed on the first call to partial_fit")
    try:
        yield
    finally:
        estimator.__dict__.pop("_announced", None)


def encoded(y: RowReader, classes: Array) -> RowReader:
    """Labels as indices into the classes."""
    if y.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes))):
        return y
    return mapped(y, lambda block: np.asarray(np.searchsorted(classes, block)), np.int64)


def as_floats(y: RowReader) -> RowReader:
    """Real targets as floats."""
    return y if y.dtype.kind == "f" else mapped(y, real, "float64")


def classes_to_json(classes: Array) -> dict[str, Any]:
    """Classes as JSON values."""
    return {"classes": classes.tolist(), "classes_dtype": classes.dtype.str}


def classes_from_json(saved: Mapping[str, Any], outputs: int) -> Array:
    """Undo `classes_to_json`.

    Raises
    ------
    ValueError
        If there are not as many as the network has outputs.
    """
    classes = np.array(saved["classes"], dtype=np.dtype(saved["classes_dtype"]))
    if classes.shape != (outputs,):
        raise ValueError(f"it has {classes.shape} classes for {outputs} outputs")
    return classes
