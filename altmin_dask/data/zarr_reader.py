"""A zarr array read block by block, with every chunk that is damaged or missing noticed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from altmin_dask.data.readers import RowReader, check_array, readable
from altmin_dask.errors import ChunkError
from altmin_dask.storage.checksums import damage, is_missing
from altmin_dask.storage.remote import explained_errors
from altmin_dask.types import Array

_PIECE = 1 << 20  # bytes that are read at once, where chunks are smaller and may be far away


def read_zarr(array: zarr.Array[Any], label: str, *, text: bool = False) -> RowReader:
    """Read a zarr array, slice by slice; zarr 3 itself refuses codecs that unpickle.

    Raises
    ------
    ChunkError
        While it is read: if a chunk is damaged, or one that carries our fill value is missing.
    DataError
        If the dtype is not numeric, or there are no rows.
    """
    check_array(array.shape, array.dtype, label, text=text)
    native = array.dtype if array.dtype.kind == "T" else array.dtype.newbyteorder("=")

    per_chunk, chunk_bytes = array.chunks[0], math.prod(array.chunks) * array.dtype.itemsize
    # zarr holds all chunks of a slice at once: one, or several that are small and may be far away
    step = per_chunk * max(1, _PIECE // chunk_bytes)

    def piece(start: int, stop: int) -> Array:
        try:
            values = np.asarray(array[start:stop])
        except Exception as error:
            if damage(error) is None:
                raise
            raise _damaged_chunk(array, label, start, stop) or error from error
        # a chunk that begins before these rows was looked at with the last ones
        for first in range(math.ceil(start / per_chunk) * per_chunk, stop, per_chunk):
            if is_missing(array, values[first - start : first - start + per_chunk]):
                raise ChunkError(label, first // per_chunk, "is missing")
        return values

    def block(start: int, stop: int) -> Array:
        values = np.empty((stop - start, *array.shape[1:]), native)
        row = start
        while row < stop:
            end = min(stop, (row // step + 1) * step)
            values[row - start : end - start] = piece(row, end)
            row = end
        return values

    def blocks(rows: int) -> Iterator[Array]:
        local = isinstance(array.store, LocalStore)
        with readable(label), nullcontext() if local else explained_errors(label, "read"):
            for start in range(0, array.shape[0], rows):
                yield block(start, min(start + rows, array.shape[0]))

    return RowReader(label, array.shape, native, blocks)


def _damaged_chunk(array: zarr.Array[Any], label: str, start: int, stop: int) -> ChunkError | None:
    """Which chunk of some rows is damaged, found by reading them one by one."""
    rows = array.chunks[0]
    for chunk in range(start // rows, math.ceil(stop / rows)):
        try:
            array[chunk * rows : (chunk + 1) * rows]
        except Exception as error:
            if found := damage(error):
                return ChunkError(label, chunk, found)
    return None
