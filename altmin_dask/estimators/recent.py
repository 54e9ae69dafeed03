"""The last samples of a stream, which `partial_fit` keeps: a step is made from a window of them, not from one row.

A K-FAC step minimises a model of the loss of its group. Of a group of one row that is a step that fits the row,
whatever becomes of all others; so calls that bring few rows are stepped with those before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.data.streams import sliced
from altmin_dask.storage.sample_arrays import WEIGHTS
from altmin_dask.types import Array

WINDOW = 256
"""Rows of a window (chosen: single rows of digits are learnt as well from 128, and no better from 1000)."""


def joined(before: Mapping[str, Array] | None, source: Source) -> Source:
    """Samples with those before them behind, if they are few themselves, and of the same shape."""
    if before is None or source.rows >= WINDOW or before["x"].shape[1:] != source.x_shape:
        return source
    shapes = {name: reader.shape[1:] for name, reader in source.arrays.items()}
    found = {}
    for name in {**before, **shapes}:
        old = before.get(name, _left_out(name, before["x"]))
        new = everything(source.arrays[name]) if name in shapes else _left_out(name, everything(source.x))
        if old is None or new is None or old.shape[1:] != new.shape[1:]:
            return source
        found[name] = sliced(np.concatenate([new, old[: WINDOW - len(new)]]), name)
    return replace(Source.of(source.name, found), preparation=source.preparation)


def everything(reader: RowReader) -> Array:
    """All blocks of an array, in memory."""
    return np.concatenate([np.asarray(block) for block in reader.blocks(WINDOW)])


def recent(store: SampleStore, weights: Array | None) -> dict[str, Array]:
    """The last samples of a store, the newest first, with their weights as they were given."""
    arrays = {name: array for name, array in store.arrays.items() if name != WEIGHTS}
    if store.rows <= WINDOW:
        found = {name: np.asarray(array[:]) for name, array in arrays.items()}
        return found if weights is None else {**found, WEIGHTS: weights}
    found = {name: np.asarray(array[-WINDOW:])[::-1] for name, array in arrays.items()}
    return found if weights is None else {**found, WEIGHTS: weights[-WINDOW:][::-1]}


def _left_out(name: str, x: Array) -> Array | None:
    """What it means that an array is not there; None if samples cannot be joined without it."""
    if name == WEIGHTS:
        return np.ones(len(x))
    return np.full(len(x), x.shape[1], np.int64) if name == "lengths" else None
