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


def check_labels_alike(y: np.dtype[Any], classes: np.dtype[Any]) -> None:
    """Refuse to compare text with numbers, which are never equal.

    Raises
    ------
    DataError
        If one is text, and the other is not.
    """
    if (y.kind in "biuf") != (classes.kind in "biuf") and "O" not in (y.kind, classes.kind):
        kinds = ["numbers" if dtype.kind in "biuf" else "text" for dtype in (y, classes)]
        raise DataError(f"y has {kinds[0]}, and the classes are {kinds[1]}; give labels as in fit")


def lazy_accuracy(y: da.Array, predicted: da.Array) -> float:
    """Share of labels (rows,) that were predicted."""
    check_labels_alike(y.dtype, predicted.dtype)
    return float((y == predicted).mean().compute())


def lazy_r2(y: da.Array, predicted: da.Array, *, weighted: bool = False) -> float:
    """R² of predictions (rows,) or (rows, outputs): the mean over outputs, or with their variances as weights.

    Raises
    ------
    DataError
        If targets and predictions differ in shape.
    """
    if y.shape != predicted.shape:
        raise DataError(
            f"y has shape {y.shape} and the predictions have {predicted.shape}; give such targets"
        )
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
