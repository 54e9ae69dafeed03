"""A trained network over samples in memory, or block by block over a dask array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import delayed

from altmin_dask.data.checks import check_whole
from altmin_dask.errors import DataError
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.networks.recurrent import Recurrent
from altmin_dask.storage.model import Model
from altmin_dask.types import Array, Batch


@dataclass(frozen=True, eq=False)
class Forward:
    """What a model gives for samples (rows, values); a subclass says what the values are, and what is computed.

    Attributes
    ----------
    model : Model
        With its weights.
    flat : bool
        Give a single output without a dimension of its own.
    classes : ndarray or None
        Give the name of the largest output in place of all of them.
    """

    model: Model
    flat: bool = False
    classes: Array | None = None

    strip_rows: ClassVar[int]
    """Samples in memory go through the network so many at a time."""

    @property
    def steps_shape(self) -> tuple[int, ...]:
        """Shape of what there are outputs for in a sample: (), or (steps,)."""
        return ()

    @property
    def outputs(self) -> int:
        """How many there are, of a sample or of a step."""
        raise NotImplementedError

    def values(self, batch: Batch) -> Array:
        """All outputs of a strip of samples, (rows, …, outputs) in any shape of that size."""
        raise NotImplementedError

    def identity(self) -> tuple[Any, ...]:
        """What, with the weights, decides about results."""
        raise NotImplementedError

    @property
    def meta(self) -> Array:
        """An empty result."""
        shape = (0, *self.steps_shape)
        if self.classes is not None:
            return np.empty(shape, self.classes.dtype)
        return np.empty(shape if self.flat else (*shape, self.outputs), self.model.weights[0].dtype)

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        """Outputs for samples in memory, of which sequences may be of different lengths."""
        batch = Batch(x, lengths=lengths)
        if len(x) <= self.strip_rows:
            return self._strip(batch)
        starts = range(0, len(x), self.strip_rows)
        return np.concatenate([self._strip(batch.rows(slice(at, at + self.strip_rows))) for at in starts])

    def _strip(self, batch: Batch) -> Array:
        values = self.values(batch)
        if self.classes is not None:
            values = self.classes[values.reshape(-1, self.outputs).argmax(axis=1)]
        return values.reshape(len(batch), *self.meta.shape[1:])

    def lazily(self, x: da.Array) -> da.Array:
        """The same for a dask array in blocks of whole rows; the model is one node of the graph."""
        token = tokenize(self.flat, self.classes, *self.identity(), *self.model.weights)
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


@dataclass(frozen=True, eq=False, kw_only=True)
class LayersForward(Forward):
    """Layers `first` + 1 … `last` of a model, and what is made of the last one's values.

    Attributes
    ----------
    first, last : int
        Layers are numbered from 1; values of layer 0 are the samples.
    """

    first: int
    last: int

    strip_rows = 8192

    @property
    def outputs(self) -> int:
        """Values of the last layer."""
        return self.model.network.sizes[self.last]

    def identity(self) -> tuple[Any, ...]:
        """Network and layers."""
        return self.first, self.last, self.model.network.describe()

    def values(self, batch: Batch) -> Array:
        """Values of the last layer, (rows, outputs), for those of the first."""
        network, weights = self.model.network, self.model.weights
        values = batch.x.astype(weights[0].dtype, copy=False)
        for layer in range(self.first, self.last):
            z = values @ weights[layer][:, :-1].T
            z += weights[layer][:, -1]
            hidden = layer < len(network.activations)
            values = network.activations[layer].value(z) if hidden else network.loss.predict(z)
        return values


@dataclass(frozen=True, eq=False, kw_only=True)
class SequenceForward(Forward):
    """A recurrent network over sequences, (rows, steps · features).

    Attributes
    ----------
    steps : int
        Of these sequences.
    """

    steps: int

    strip_rows = 1024

    @property
    def network(self) -> Recurrent:
        """The network for sequences of these steps."""
        assert isinstance(self.model.network, Recurrent)
        return self.model.network.with_steps(self.steps)

    @property
    def steps_shape(self) -> tuple[int, ...]:
        """Whether there are outputs at every step."""
        return (self.steps,) if self.network.every else ()

    @property
    def outputs(self) -> int:
        """Of a sequence, or of a step."""
        return self.network.outputs

    def identity(self) -> tuple[Any, ...]:
        """The network for these sequences."""
        return (self.network.describe(),)

    def values(self, batch: Batch) -> Array:
        """Outputs of the network as it gives them."""
        return self.network.predict(self.model.weights, batch)
