"""Scores of lazy predictions, block by block."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from dask.base import compute
from sklearn.utils.validation import _num_samples

from altmin_dask.data.readers import unmasked
from altmin_dask.errors import DataError
from altmin_dask.estimators.recent import everything
from altmin_dask.types import Array


def in_memory(estimator: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Array | None]:
    """Targets and weights as scikit-learn's scores take them; weights may be a column, as those that are fitted."""
    unmasked(y, "y")
    if sample_weight is None:
        return y, None
    return y, everything(estimator._weights(sample_weight, _num_samples(X)))


def hits(y: Array, predicted: Array) -> Array:
    """Which labels of a block were predicted.

    Raises
    ------
    DataError
        If labels are missing, or some are text and others are not: these are never equal.
    """
    if _missing(y).any():
        raise DataError("y has labels that are missing (NaN); leave such rows out")
    theirs = _kinds(predicted)
    if theirs and (other := _kinds(y) - theirs):
        raise DataError(f"y has {min(other)}, and the classes are {min(theirs)}; give labels as in fit")
    return np.asarray(y == predicted)


def _kinds(labels: Array) -> set[str]:
    """What labels are."""
    if labels.dtype.kind == "O":
        return {"text" if isinstance(label, str | bytes) else "numbers" for label in labels.ravel()}
    return {"numbers" if labels.dtype.kind in "biuf" else "text"} if labels.size else set()


def _missing(labels: Array) -> Array:
    """Which labels are NaN, None or what pandas has for these."""
    if labels.dtype.kind == "f":
        return np.isnan(labels)
    return np.array(
        [_is_missing(label) for label in labels.ravel()] if labels.dtype.kind == "O" else [], bool
    )


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)  # which NaN alone is
    except TypeError:  # pandas.NA
        return True


def lazy_accuracy(y: da.Array, predicted: da.Array) -> float:
    """Share of labels (rows,) that were predicted; raises as `hits` does."""
    found = da.map_blocks(hits, y, predicted, dtype=bool, meta=np.empty((0,), bool))
    return float(found.mean().compute())


def lazy_r2(y: da.Array, predicted: da.Array, *, weighted: bool = False) -> float:
    """R² of predictions (rows,) or (rows, outputs): the mean over outputs, or with their variances as weights."""
    y = y.astype(np.float64)
    residual, variance = compute(((y - predicted) ** 2).mean(axis=0), y.var(axis=0))
    residual, variance = np.atleast_1d(residual), np.atleast_1d(variance)
    if weighted:
        residual, variance = residual.sum(keepdims=True), variance.sum(keepdims=True)
    # as in scikit-learn, where a target is constant
    share = np.where(
        residual == 0, 0.0, np.divide(residual, variance, out=np.ones_like(residual), where=variance > 0)
    )
    return float((1 - share).mean())
