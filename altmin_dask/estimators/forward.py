"""Layers of a trained model over samples in memory, or block by block over a dask array."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import delayed

from altmin_dask.data.checks import check_whole
from altmin_dask.errors import DataError
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.networks.network import Network
from altmin_dask.storage.model import Model
from altmin_dask.types import Array, Batch

STRIP_ROWS = 8192
"""Samples in memory go through the network so many at a time."""


@dataclass(frozen=True, eq=False)
class Forward:
    """Layers `first` + 1 … `last` of a model, and what is made of the last one's values.

    Attributes
    ----------
    model : Model
        With its weights.
    first, last : int
        Layers are numbered from 1; values of layer 0 are the samples.
    flat : bool
        Give the first column only, (rows,).
    classes : ndarray or None
        Give the name of the largest column, (rows,).
    """

    model: Model
    first: int
    last: int
    flat: bool = False
    classes: Array | None = None

    @property
    def part(self) -> Network:
        """Those layers."""
        return self.model.network.part(self.first, self.last)

    @property
    def meta(self) -> Array:
        """An empty result."""
        columns = self.part.widths[-1]
        if self.classes is not None:
            return np.empty(0, self.classes.dtype)
        return np.empty(0 if self.flat else (0, columns), self.model.weights[0].dtype)

    def __call__(self, x: Array) -> Array:
        """Values of the last layer for samples (or values of the first layer) in memory, (rows, …)."""
        if len(x) <= STRIP_ROWS:
            return self._strip(x)
        return np.concatenate(
            [self._strip(x[start : start + STRIP_ROWS]) for start in range(0, len(x), STRIP_ROWS)]
        )

    def lazily(self, x: da.Array) -> da.Array:
        """The same for a dask array in blocks of whole rows; the model is one node of the graph."""
        network, weights = self.model.network, self.model.weights
        token = tokenize(self.first, self.last, self.flat, self.classes, network.describe(), *weights)
        forward = delayed(self, name=f"altmin_model-{token}", traverse=False)
        meta = self.meta
        columns = {} if meta.ndim == 2 else {"drop_axis": 1}
        return da.map_blocks(
            _block, x, forward=forward, name=f"altmin_predict-{tokenize(x.name, token)}", dtype=meta.dtype, meta=meta,
            chunks=(x.chunks[0], *((size,) for size in meta.shape[1:])), **columns,
        )  # fmt: skip

    def _strip(self, values: Array) -> Array:
        values = self.part.predict(self.model.weights[self.first : self.last], Batch(values))
        if self.classes is not None:
            return self.classes[values.argmax(axis=1)]
        return values[:, 0] if self.flat else values


def _block(x: Any, *, forward: Forward) -> Array:
    values = np.asarray(x)
    if not np.isfinite(values).all():
        raise DataError("Input X contains NaN or infinity; repair those rows, or leave them out")
    check_whole(values, "X")
    with single_threaded_blas():
        return forward(values)


def as_given(model: Model) -> Model:
    """A model of samples as they were given, whatever was done to them before they came into a store."""
    shape = model.sample_shape if model.network.sequence_steps is not None else (prod(model.sample_shape),)
    return replace(model, sample_shape=shape, scale=1.0, preparation=None)
