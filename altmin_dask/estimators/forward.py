"""A trained network over samples in memory, block by block over a dask array, or over a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import delayed
from scipy import sparse

from altmin_dask.data.checks import check_whole
from altmin_dask.data.readers import RowReader, unmasked
from altmin_dask.errors import DataError
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.networks.network import Network
from altmin_dask.preparation import Scaling
from altmin_dask.types import Array, Batch, Weights


@dataclass(frozen=True, eq=False)
class Forward:
    """What a network gives for samples (rows, …).

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
    prepare : callable or None
        What is done to raw samples before; None where they are ready.
    undo : Scaling or None
        What gives outputs the units of the raw data.
    """

    network: Network
    weights: Weights
    flat: bool = False
    classes: Array | None = None
    whole: bool = False
    prepare: Callable[[Array], Array] | None = None
    undo: Scaling | None = None

    @property
    def outputs(self) -> int:
        """How many there are of a sample, or of a step."""
        return self.network.layers[-1].units

    @property
    def meta(self) -> Array:
        """An empty result."""
        dtype = self.weights[0].dtype if self.undo is None else np.dtype(np.float64)
        if self.whole:
            return np.empty((0, self.network.widths[-1]), dtype)
        steps = (self.network.layers[-1].steps,) if self.network.every else ()
        if self.classes is not None:
            return np.empty((0, *steps), self.classes.dtype)
        return np.empty((0, *steps) if self.flat else (0, *steps, self.outputs), dtype)

    def __call__(self, x: Any, lengths: Array | None = None, states: Array | None = None) -> Array:
        """Outputs for samples in memory, sparse ones, too; sequences may be of different lengths."""
        rows = self.network.block_rows
        return self._joined(
            self._of_block(Batch(_dense(x[part]), lengths=_part(lengths, part), states=_part(states, part)))
            for part in (slice(start, start + rows) for start in range(0, x.shape[0], rows))
        )

    def _joined(self, blocks: Iterator[Array]) -> Array:
        found = list(blocks)
        return np.concatenate(found) if found else self.meta

    def _of_block(self, batch: Batch) -> Array:
        if self.prepare is not None:
            batch = Batch(self.prepare(batch.x), lengths=batch.lengths, states=batch.states)
        values = self.network.predict(self.weights, batch)
        if self.classes is not None:
            values = self.classes[values.reshape(-1, self.outputs).argmax(axis=1)]
        elif self.undo is not None:
            values = self.undo.undo(values)
        return values.reshape(len(batch), *self.meta.shape[1:])

    def lazily(self, x: da.Array, lengths: Any = None, states: Any = None) -> da.Array:
        """The same for a dask array in blocks of whole rows; the model is one node of the graph."""
        x = x if x.ndim == 2 else x.reshape(x.shape[0], prod(x.shape[1:]))
        meta, token = self.meta, self._token
        beside = {"lengths": lengths, "states": states}
        others = {name: _beside(values, x) for name, values in beside.items() if values is not None}
        axes = {1: {"drop_axis": 1}, 2: {}, 3: {"new_axis": 2}}[meta.ndim]
        return da.map_blocks(
            _block,
            x,
            *others.values(),
            names=tuple(others),
            forward=delayed(self, name=f"altmin_model-{token}", traverse=False),
            name=f"altmin_predict-{tokenize(x.name, token, *(values.name for values in others.values()))}",
            dtype=meta.dtype,
            meta=meta,
            chunks=(x.chunks[0], *((size,) for size in meta.shape[1:])),
            **axes,
        )

    def streamed(self, x: RowReader, lengths: Any = None, states: Any = None) -> da.Array:
        """The same for a stream, as a dask array of one block: it is read block by block when that is computed."""
        done = delayed(_stream, pure=False)(
            delayed(self, name=f"altmin_model-{self._token}", traverse=False),
            delayed(x, traverse=False),
            lengths,
            delayed(states, traverse=False) if isinstance(states, RowReader) else states,
        )
        return da.from_delayed(done, (x.shape[0], *self.meta.shape[1:]), meta=self.meta)

    @property
    def _token(self) -> str:
        how = getattr(self.prepare, "__self__", None)
        prepared = None if how is None else (how.scale, repr(how.preparation))
        return str(
            tokenize(
                self.flat,
                self.classes,
                self.whole,
                prepared,
                repr(self.undo),
                self.network.describe(),
                *self.weights,
            )
        )


def _dense(rows: Any) -> Array:
    dense: Array = rows.toarray() if sparse.issparse(rows) else rows
    return dense


def _part(values: Any, rows: slice) -> Any:
    return None if values is None else np.asarray(values[rows])


def _beside(values: Any, x: da.Array) -> da.Array:
    """What every sample has besides, as blocks (rows, …) beside those of samples."""
    array = values if isinstance(values, da.Array) else da.from_array(np.asarray(values), chunks=-1)
    if array.shape[0] != x.shape[0]:
        raise DataError(f"X has {x.shape[0]} rows and {array.shape[0]} lengths or states; give one for each")
    return array.reshape(array.shape[0], -1).rechunk((x.chunks[0], -1))


def _block(x: Any, *beside: Any, names: tuple[str, ...], forward: Forward) -> Array:
    found = dict(zip(names, map(np.asarray, beside), strict=True))
    if "lengths" in found:
        found["lengths"] = found["lengths"][:, 0]
    values = without_padding(
        _dense(x) if sparse.issparse(x) else np.asarray(unmasked(x, "X")),
        found.get("lengths"),
        forward.network,
    )
    if not np.isfinite(values).all():
        raise DataError("Input X contains NaN or infinity; repair those rows, or leave them out")
    check_whole(values, "X")
    with single_threaded_blas():
        return forward(values, **found)


def _stream(forward: Forward, x: RowReader, lengths: Any, states: Any) -> Array:
    rows, found, start = forward.network.block_rows, [], 0
    blocks = states.blocks(rows) if isinstance(states, RowReader) else None
    for block in x.blocks(rows):
        part = slice(start, start + len(block))
        own = _part(states, part) if blocks is None else next(blocks)
        beside = {"lengths": _part(lengths, part), "states": own}
        names = tuple(name for name, values in beside.items() if values is not None)
        flat = [beside[name].reshape(len(block), -1) for name in names]
        found.append(
            _block(block.reshape(len(block), prod(block.shape[1:])), *flat, names=names, forward=forward)
        )
        start += len(block)
    return forward._joined(iter(found))


def without_padding(x: Array, lengths: Array | None, network: Network) -> Array:
    """Rows of sequences with zeros where they have ended: there anything may stand, NaN, too."""
    steps = network.sequence_steps
    if lengths is None or steps is None:
        return x
    return zeroed(x.reshape(len(x), steps, -1), lengths).reshape(x.shape)


def zeroed(x: Array, lengths: Array) -> Array:
    """Values (rows, steps, …) with zeros from the end of each row on."""
    there = np.arange(x.shape[1]) < np.asarray(lengths)[:, None]
    return np.where(there.reshape(*there.shape, *(1,) * (x.ndim - 2)), x, np.zeros((), x.dtype))
