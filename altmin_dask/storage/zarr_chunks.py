"""Selected chunks of a zarr array, as a matrix Dask can read: one task reads exactly one chunk."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any, Literal, TypeVar

import numpy as np
import zarr

from altmin_dask.errors import ChunkError, MissingError
from altmin_dask.storage.checksums import damage, is_missing
from altmin_dask.storage.locations import for_zarr, is_url
from altmin_dask.storage.remote import explained_errors
from altmin_dask.types import Array

T = TypeVar("T")
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
class Part:
    """Some rows of every chunk, drawn at random: all parts of the same seed hold every row once.

    Parts of as many chunks as there are parts of one are read as one block, of about as many rows as a chunk.

    Attributes
    ----------
    seed : int
        Decides which rows, beside the chunk.
    number, of : int
        Which part it is, from 0, of how many that are as large as can be.
    """

    seed: int
    number: int
    of: int

    def size(self, rows: int) -> int:
        """How many rows of a chunk of so many."""
        return len(range(self.number, rows, self.of))

    def blocks(self, chunks: Sequence[T]) -> list[Sequence[T]]:
        """Chunks that are read together."""
        return [chunks[first : first + self.of] for first in range(0, len(chunks), self.of)]

    def rows(self, chunk: int, size: int) -> Array:
        """Which rows of a chunk, in order."""
        order = np.random.default_rng([self.seed, _PARTS, chunk]).permutation(size)
        return np.sort(order[self.number :: self.of])


def cut_rows(rows: int, pieces: int) -> list[int]:
    """Where pieces of some rows begin, and the last one ends; none has more than one row more than another."""
    return [rows * piece // pieces for piece in range(pieces + 1)]


_PARTS = 5  # which random numbers of a seed these are


@dataclass(frozen=True)
class ChunkView:
    """Some chunks of a zarr array, in the order given, or parts of them, as one matrix of a sample a row.

    It pickles as a path and a few numbers, opens the array where it is used, and supports just what
    `dask.array.from_array` needs: slices of rows that coincide with chunks, or blocks of parts.

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
    part : Part, optional
        Which rows of the chunks are seen, if not all; it is no view to write to.
    cut : int
        Pieces that each chunk, or block of parts, is read in; with more than one it is no view to write to.
    """

    location: str
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    columns: int
    dtype: np.dtype[Any]
    layout: Layout
    part: Part | None = None
    cut: int = 1

    @classmethod
    def select(
        cls,
        location: str,
        shape: tuple[int, ...],
        chunk_rows: int,
        dtype: Any,
        ids: tuple[int, ...],
        part: Part | None = None,
        cut: int = 1,
    ) -> ChunkView:
        """View chunks `ids`, or a part of them, of an array of `shape` with `chunk_rows` rows in a chunk."""
        starts = tuple(i * chunk_rows for i in ids)
        sizes = tuple(min(chunk_rows, shape[0] - start) for start in starts)
        return cls(location, starts, sizes, prod(shape[1:]), np.dtype(dtype), (shape, chunk_rows), part, cut)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows that are seen, and columns."""
        return sum(self.seen), self.columns

    @property
    def blocks(self) -> tuple[int, ...]:
        """Rows of each chunk, or of each block of parts of chunks."""
        if self.part is None:
            return self.sizes
        return tuple(sum(map(self.part.size, sizes)) for sizes in self.part.blocks(self.sizes))

    @property
    def seen(self) -> tuple[int, ...]:
        """Rows of what is read at a time: of each piece of each block."""
        bounds = (cut_rows(rows, self.cut) for rows in self.blocks)
        return tuple(stop - start for ends in bounds for start, stop in pairwise(ends))

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int]]:
        """Dask's form of the chunking."""
        return self.seen, (self.columns,)

    def __getitem__(self, key: tuple[slice, ...]) -> Array:
        if key[0].start == key[0].stop:  # of fewer rows than pieces
            return np.empty((0, self.columns), self.dtype)
        index = int(np.searchsorted(np.cumsum((0, *self.seen)), key[0].start, side="right")) - 1
        return self.read(index)

    def read(self, index: int) -> Array:
        """The index-th of the selected chunks, or of the blocks of parts of them, or piece of these, (rows, columns).

        Raises
        ------
        ChunkError
            If the chunk was altered or lost.
        MissingError
            If the process, on whatever machine, cannot see the array.
        """
        block, piece = divmod(index, self.cut)
        first, last = cut_rows(self.blocks[block], self.cut)[piece : piece + 2]
        if self.part is None:
            return self._chunk(block, first, last)
        values, end = np.empty((last - first, self.columns), self.dtype), 0
        for number in self.part.blocks(range(len(self.sizes)))[block]:
            rows = self.part.rows(self.starts[number] // self.layout[1], self.sizes[number])
            start, end = end, end + len(rows)
            wanted = slice(max(first, start), min(last, end))
            if wanted.start < wanted.stop:
                chunk = self._chunk(number, 0, self.sizes[number])
                values[wanted.start - first : wanted.stop - first] = chunk[
                    rows[wanted.start - start : wanted.stop - start]
                ]
        return values

    def numbers(self, index: int) -> Array:
        """Which rows of the array they are."""
        block, piece = divmod(index, self.cut)
        wanted = slice(*cut_rows(self.blocks[block], self.cut)[piece : piece + 2])
        if self.part is None:
            return (self.starts[block] + np.arange(self.sizes[block]))[wanted]
        found = []
        for number in self.part.blocks(range(len(self.sizes)))[block]:
            rows = self.part.rows(self.starts[number] // self.layout[1], self.sizes[number])
            found.append(self.starts[number] + rows)
        return np.concatenate(found)[wanted]

    def _chunk(self, index: int, first: int, last: int) -> Array:
        """Rows of a chunk, which is read as a whole, as its checksum wants."""
        array, start = self._open("r"), self.starts[index]
        try:
            with explained_errors(self.location, "read") if is_url(self.location) else nullcontext():
                values: Array = np.asarray(array[start + first : start + last])
        except (ValueError, RuntimeError) as error:
            reason = damage(error.__cause__ or error)
            if reason is None:
                raise
            raise ChunkError(self.location, start // array.chunks[0], reason) from error
        if is_missing(array, values):
            raise ChunkError(self.location, start // array.chunks[0], "is missing")
        return values.reshape(last - first, self.columns)

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
