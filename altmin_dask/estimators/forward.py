"""A trained network over samples in memory, or block by block over a dask array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import delayed

from altmin_dask.data.checks import check_whole
from altmin_dask.errors import DataError
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.networks.network import Network
from altmin_dask.types import Array, Batch, Weights


@dataclass(frozen=True, eq=False)
class Forward:
    """What a network gives for samples (rows, values).

    Attributes
    ----------
    network, weights : Network, tuple of ndarray
        All layers of a model, or some of them.
    flat : bool
        Give a single output without a dimension of its own.
    classes : ndarray or None
        Give the name of the largest output in place of all of them.
    whole : bool
        Give all numbers of a sample as one row, even if the last layer has several rows of them.
    """

    network: Network
    weights: Weights
    flat: bool = False
    classes: Array | None = None
    whole: bool = False

    @property
    def outputs(self) -> int:
        """How many there are of a sample, or of a step."""
        return self.network.layers[-1].units

    @property
    def meta(self) -> Array:
        """An empty result."""
        if self.whole:
            return np.empty((0, self.network.widths[-1]), self.weights[0].dtype)
        steps = (self.network.layers[-1].steps,) if self.network.every else ()
        if self.classes is not None:
            return np.empty((0, *steps), self.classes.dtype)
        return np.empty((0, *steps) if self.flat else (0, *steps, self.outputs), self.weights[0].dtype)

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        """Outputs for samples in memory, of which sequences may be of different lengths."""
        if len(x) == 0:
            return self.meta
        batch, rows = Batch(x, lengths=lengths), self.network.block_rows
        starts = range(0, len(x), rows)
        return np.concatenate([self._of_block(batch.rows(slice(start, start + rows))) for start in starts])

    def _of_block(self, batch: Batch) -> Array:
        values = self.network.predict(self.weights, batch)
        if self.classes is not None:
            values = self.classes[values.reshape(-1, self.outputs).argmax(axis=1)]
        return values.reshape(len(batch), *self.meta.shape[1:])

    def lazily(self, x: da.Array) -> da.Array:
        """The same for a dask array in blocks of whole rows; the model is one node of the graph."""
        token = tokenize(self.flat, self.classes, self.whole, self.network.describe(), *self.weights)
        meta = self.meta
        axes = {1: {"drop_axis": 1}, 2: {}, 3: {"new_axis": 2}}[meta.ndim]
        return da.map_blocks(
            _block,
            x,
            forward=delayed(self, name=f"altmin_model-{token}", traverse=False),
            name=f"altmin_predict-{tokenize(x.name, token)}",
            dtype=meta.dtype,
            meta=meta,
            chunks=(x.chunks[0], *((size,) for size in meta.shape[1:])),
            **axes,
        )


def _block(x: Any, *, forward: Forward) -> Array:
    values = np.asarray(x)
    if not np.isfinite(values).all():
        raise DataError("Input X contains NaN or infinity; repair those rows, or leave them out")
    check_whole(values, "X")
    with single_threaded_blas():
        return forward(values)
