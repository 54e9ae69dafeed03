"""How much samples count: weights that are given, times those of their classes, with mean 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.types import Array

_BLOCK = 1 << 16


def weighted(source: Source, class_weight: Any = None, classes: Array | None = None) -> Source:
    """Samples with their weights divided by the mean, which is kept beside them.

    So Σ w ℓ + λ‖W‖² is what is minimised, a row of weight 2 counting as two rows, and curvature and its damping have
    the size that they have without weights.

    Parameters
    ----------
    source : Source
        Its weights are those given, if any; its targets are labels 0 … K − 1 where there is a `class_weight`.
    class_weight : dict, "balanced" or None
        Factors by class, as in scikit-learn; of classes that are not named 1.
    classes : ndarray, (K,)
        The classes.

    Raises
    ------
    DataError
        If all weights are zero, or some negative.
    ConfigError
        If `class_weight` cannot be used.
    """
    if source.weights is None and class_weight is None:
        return source
    labels = source.y if class_weight is not None else None
    count = 1 if labels is None or classes is None else len(classes)
    sums = np.zeros(count)
    for y, w in _pairs(labels, source.weights, source.rows, _BLOCK):
        if not (np.isfinite(w) & (w >= 0)).all():
            raise DataError(
                "sample_weight has weights that are negative or not finite; give numbers from 0 on"
            )
        sums += np.bincount(y, weights=w, minlength=count)
    factors = np.ones(1) if classes is None or labels is None else _factors(class_weight, classes, sums)
    mean = float(factors @ sums) / source.rows
    if mean <= 0:
        raise DataError("all weights of samples are zero; give some that are not")

    def blocks(rows: int) -> Iterator[Array]:
        pairs = _pairs(labels, source.weights, source.rows, rows)
        return (factors[y] * w / mean for y, w in pairs)

    reader = RowReader("sample_weight", (source.rows,), np.dtype(np.float64), blocks)
    return replace(source, weights=reader, mean_weight=mean)


def _pairs(
    labels: RowReader | None, weights: RowReader | None, total: int, rows: int
) -> Iterator[tuple[Array, Array]]:
    """Labels, 0 where there are none, and weights, 1 where there are none, block by block."""
    sizes = [min(rows, total - start) for start in range(0, total, rows)]
    ys = (np.zeros(size, np.intp) for size in sizes) if labels is None else labels.blocks(rows)
    ws = (np.ones(size) for size in sizes) if weights is None else weights.blocks(rows)
    return zip(ys, (np.asarray(w, np.float64) for w in ws), strict=True)


def _factors(class_weight: Any, classes: Array, sums: Array) -> Array:
    """The factor of every class; `sums` are its samples, counted by their weights."""
    if isinstance(class_weight, str) and class_weight == "balanced":
        present = sums > 0
        return np.divide(sums.sum() / max(present.sum(), 1), sums, out=np.zeros(len(sums)), where=present)
    if not isinstance(class_weight, Mapping):
        raise ConfigError(f"class_weight = {class_weight!r}: give a dict of factors, 'balanced', or None")
    names = classes.tolist()
    if unknown := [name for name in class_weight if name not in names]:
        raise ConfigError(f"class_weight has {unknown[0]!r}, which is none of the classes {names}")
    factors = np.array([float(class_weight.get(name, 1.0)) for name in names])
    if not (np.isfinite(factors) & (factors >= 0)).all():
        raise ConfigError(f"class_weight = {class_weight!r}: give factors from 0 on")
    return factors
