"""Scores of lazy predictions, block by block."""

from __future__ import annotations

import dask.array as da
import numpy as np
from dask.base import compute

from altmin_dask.errors import DataError


def lazy_accuracy(y: da.Array, predicted: da.Array) -> float:
    """Share of labels (rows,) that were predicted."""
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
