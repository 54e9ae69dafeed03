"""Selected chunks of a zarr array, as a matrix Dask can read: one task reads exactly one chunk."""

from __future__ import annotations

import os
import socket
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Literal

import numpy as np
import zarr

from altmin_dask.errors import ChunkError, MissingError
from altmin_dask.storage.checksums import damage, is_missing
from altmin_dask.storage.locations import for_zarr, is_url
from altmin_dask.storage.remote import explained_errors
from altmin_dask.types import Array

Mode = Literal["r", "r+"]
Layout = tuple[tuple[int, ...], int]


def open_array(location: str, mode: Mode = "r", layout: Layout | None = None) -> zarr.Array[Any]:
    """Open a zarr array once per process: opening costs more than reading a small chunk.

    A local array that was made anew at the same place is another one; one at a URL is if its `layout`, its shape and
    the rows of its chunks, is not as expected.
    """
    if is_url(location):
        array = _open(location, mode, None)
        if layout is not None and layout != (array.shape, min(array.chunks[0], array.shape[0])):
            _open.cache_clear()
            array = _open(location, mode, None)
        return array
    try:
        about = os.stat(os.path.join(location, "zarr.json"))
    except OSError:
        return _open(location, mode, None)
    return _open(location, mode, (about.st_mtime_ns, about.st_ino))


@lru_cache(maxsize=64)
def _open(location: str, mode: Mode, version: tuple[int, int] | None) -> zarr.Array[Any]:
    array = zarr.open_array(for_zarr(location), mode=mode)
    # or a chunk of zeros would be left out and look the same as a lost one
    return array if mode == "r" else array.with_config({"write_empty_chunks": True})


def forget_arrays() -> None:
    """Open arrays anew from now on: at a URL nothing else tells that one has gone."""
    _open.cache_clear()


@dataclass(frozen=True)
class ChunkView:
    """Some chunks of a zarr array, in the order given, as one matrix of a sample a row.

    It pickles as a path and a few numbers, opens the array where it is used, and supports just what
    `dask.array.from_array` needs: slices of rows that coincide with chunks.

    Attributes
    ----------
    location : str
        Path or URL of the zarr array.
    starts, sizes : tuple of int
        Where each chunk begins in the array, and its rows.
    columns : int
        Values in a sample.
    dtype : numpy.dtype
        Of the array.
    layout : tuple
        Shape of the whole array, and rows in a chunk.
    """

    location: str
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    columns: int
    dtype: np.dtype[Any]
    layout: Layout

    @classmethod
    def select(
        cls, location: str, shape: tuple[int, ...], chunk_rows: int, dtype: Any, ids: tuple[int, ...]
    ) -> ChunkView:
        """View chunks `ids` of an array of `shape` with `chunk_rows` rows in a chunk."""
        starts = tuple(i * chunk_rows for i in ids)
        sizes = tuple(min(chunk_rows, shape[0] - start) for start in starts)
        return cls(location, starts, sizes, prod(shape[1:]), np.dtype(dtype), (shape, chunk_rows))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the selected chunks, and columns."""
        return sum(self.sizes), self.columns

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int]]:
        """Dask's form of the chunking."""
        return self.sizes, (self.columns,)

    def __getitem__(self, key: tuple[slice, ...]) -> Array:
        index = int(np.searchsorted(np.cumsum((0, *self.sizes)), key[0].start, side="right")) - 1
        return self.read(index)

    def read(self, index: int) -> Array:
        """The index-th of the selected chunks, (rows, columns).

        Raises
        ------
        ChunkError
            If the chunk was altered or lost.
        MissingError
            If the process, on whatever machine, cannot see the array.
        """
        array = self._open("r")
        start, size = self.starts[index], self.sizes[index]
        try:
            with explained_errors(self.location, "read") if is_url(self.location) else nullcontext():
                values: Array = np.asarray(array[start : start + size])
        except (ValueError, RuntimeError) as error:
            reason = damage(error.__cause__ or error)
            if reason is None:
                raise
            raise ChunkError(self.location, start // array.chunks[0], reason) from error
        if is_missing(array, values):
            raise ChunkError(self.location, start // array.chunks[0], "is missing")
        return values.reshape(size, self.columns)

    def write(self, index: int, values: Array) -> None:
        """Write the index-th of the selected chunks, whole."""
        start, size = self.starts[index], self.sizes[index]
        array = self._open("r+")
        array[start : start + size] = values.reshape(size, *array.shape[1:])

    def _open(self, mode: Mode) -> zarr.Array[Any]:
        try:
            return open_array(self.location, mode, self.layout)
        except FileNotFoundError:
            raise MissingError(
                f"{socket.gethostname()} sees no array at {self.location}; put it where every worker sees it"
            ) from None
