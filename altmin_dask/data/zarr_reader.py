"""A zarr array read block by block, with every chunk that is damaged or missing noticed."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from altmin_dask.data.readers import RowReader, check_array, readable
from altmin_dask.errors import ChunkError, DataError
from altmin_dask.storage.checksums import damage, is_missing
from altmin_dask.storage.remote import explained_errors
from altmin_dask.types import Array

_PIECE = 1 << 20  # bytes that are read at once, where chunks are smaller and may be far away
_XARRAY = "_ARRAY_DIMENSIONS"
"""The attribute by which xarray knows its arrays of format 2."""


def read_zarr(array: zarr.Array[Any], label: str, *, text: bool = False) -> RowReader:
    """Read a zarr array, slice by slice; zarr 3 itself refuses codecs that unpickle.

    Raises
    ------
    ChunkError
        While it is read: if a chunk is damaged, or one that carries our fill value is missing.
    DataError
        If the dtype is not numeric, there are no rows, or other numbers are meant than are there; while it is read: if
        values are missing.
    """
    check_array(array.shape, array.dtype, label, text=text)
    _check_unpacked(array, label)
    native = array.dtype if array.dtype.kind == "T" else array.dtype.newbyteorder("=")
    marks = missing_marks(array)

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
        if marks.size and (missing := np.isin(values, marks)).any():
            row = start + int(missing.reshape(len(values), -1).any(axis=1).argmax())
            raise DataError(
                f"{label} has missing values, for which {values[missing][0]:g} stands, in row {row} and maybe others; "
                "fill them in, or leave such rows out (xarray shows them as NaN), and write it again"
            )
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


def missing_marks(array: zarr.Array[Any]) -> Array:
    """The numbers in an array that stand for missing values, as the conventions for climate and forecast data have it.

    xarray keeps such a number of format 2 as the array's fill value, and of format 3 as an attribute, where floats are
    in Base64; NaN is one of which everything that looks at values tells. A fill value of 0 is that of any array.
    """
    if array.dtype.kind not in "iuf":
        return np.empty(0)
    given = [array.attrs[name] for name in ("_FillValue", "missing_value") if name in array.attrs]
    if array.metadata.zarr_format == 2 and _XARRAY in array.attrs and array.fill_value:
        given.append(array.fill_value)
    marks = [_number(each) for value in given for each in (value if isinstance(value, list) else [value])]
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            found = np.array(marks, array.dtype)
        return found[np.isfinite(found)]
    held = np.iinfo(array.dtype)
    return np.array(
        [int(each) for each in marks if held.min <= each <= held.max and each == int(each)], array.dtype
    )


def _number(value: Any) -> float:
    """A number of an attribute; NaN if it is none."""
    with suppress(TypeError, ValueError):
        return value if isinstance(value, int) else float(value)
    with suppress(TypeError, ValueError, struct.error):
        return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    return math.nan


def _check_unpacked(array: zarr.Array[Any], label: str) -> None:
    """Refuse numbers that others are to be computed from.

    Raises
    ------
    DataError
        If they are to be multiplied or shifted first.
    """
    packing = {name: array.attrs[name] for name in ("scale_factor", "add_offset") if name in array.attrs}
    if packing.get("scale_factor", 1) != 1 or packing.get("add_offset", 0) != 0:
        said = " and ".join(f"{name} {value}" for name, value in packing.items())
        raise DataError(
            f"{label} is packed (with {said}), and other numbers are meant than are there; open it with xarray, which "
            "unpacks it, and write that without packing, or give its values to an estimator"
        )
