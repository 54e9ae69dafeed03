"""The ranges of a store that says nothing of them: a scan of all its chunks, by Dask."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import numpy as np

from altmin_dask.data.checks import check_finite, check_weights, is_labels
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.summaries import Summary
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.samples import chunk_arrays
from altmin_dask.execution.task_graphs import per_chunk
from altmin_dask.storage.sample_arrays import WEIGHTS
from altmin_dask.types import Array


def ranges_of(store: SampleStore, executor: Executor) -> Summary:
    """Give the ranges recorded in a store, or else find them by reading it through.

    Raises
    ------
    DataError
        If values are not finite, or weights negative, naming the first rows.
    """
    if store.summary is not None:
        return store.summary
    token = uuid.uuid4().hex[:8]
    arrays = chunk_arrays(store, store.arrays, tuple(range(store.n_chunks)), token)
    found = executor.compute(
        per_chunk(_ranges_block, arrays, name=f"altmin_check-{token}", columns=2 * len(arrays))
    )
    low, high = (dict(zip(arrays, found[:, end::2].T, strict=True)) for end in (0, 1))
    unusable = ~np.isfinite(found).all(axis=1) | (low.get(WEIGHTS, np.zeros(1)) < 0)
    if unusable.any():
        _refuse_rows(store, int(np.argmax(unusable)) * store.chunk_rows)
    x_range = float(low["x"].min()), float(high["x"].max())
    if store.y is None:
        return Summary(*x_range, None, None, False)
    return Summary(*x_range, float(low["y"].min()), float(high["y"].max()), is_labels(store.y.dtype))


def _ranges_block(arrays: Mapping[str, Array]) -> Array:
    ends = [function(values) for values in arrays.values() for function in (np.min, np.max)]
    return np.array([ends], np.float64)


def _refuse_rows(store: SampleStore, start: int) -> None:
    """Say what is wrong with the chunk that begins with a row."""
    rows = slice(start, start + store.chunk_rows)
    y = None if store.y is None else np.asarray(store.y[rows])
    check_finite(np.asarray(store.x[rows]), y, start, store.path)
    for name, array in store.sequence_arrays.items():
        check_finite(np.asarray(array[rows]), None, start, store.path, name)
    if store.weights is not None:
        check_weights(np.asarray(store.weights[rows]), start, store.path)
