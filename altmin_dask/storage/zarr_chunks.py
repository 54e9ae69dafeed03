"""Selected chunks of a zarr array, as a matrix that is read in blocks of rows: one task reads exactly one chunk."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
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
class RowBlock:
    """What one task has of a zarr array: a chunk, or a piece of it, or of parts of several chunks, as a matrix.

    It pickles as a path and a few numbers, and opens the array where it is used.

    Attributes
    ----------
    location : str
        Path or URL of the zarr array.
    columns : int
        Values in a sample.
    dtype : numpy.dtype
        Of the array.
    layout : tuple
        Shape of the whole array, and rows in a chunk.
    starts, sizes : tuple of int
        Where each of its chunks begins in the array, and their rows: of one, if there is no `part`.
    first, last : int
        Which of the rows that are seen of them.
    part : Part, optional
        Which rows of the chunks are seen, if not all.
    """

    location: str
    columns: int
    dtype: np.dtype[Any]
    layout: Layout
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    first: int
    last: int
    part: Part | None = None

    def read(self) -> Array:
        """The values, (rows, columns).

        Raises
        ------
        ChunkError
            If the chunk was altered or lost.
        MissingError
            If the process, on whatever machine, cannot see the array.
        """
        rows = self.last - self.first
        if self.part is None and rows:
            return self._chunk(self.starts[0], self.first, self.last)
        values, end = np.empty((rows, self.columns), self.dtype), 0
        for start, size, seen in self._parts():
            before, end = end, end + len(seen)
            wanted = slice(max(self.first, before), min(self.last, end))
            if wanted.start < wanted.stop:
                chunk = self._chunk(start, 0, size)
                own = seen[wanted.start - before : wanted.stop - before]
                values[wanted.start - self.first : wanted.stop - self.first] = chunk[own]
        return values

    def numbers(self) -> Array:
        """Which rows of the array they are."""
        if self.part is None:
            return self.starts[0] + np.arange(self.first, self.last)
        found = np.concatenate([start + seen for start, _, seen in self._parts()])
        return found[self.first : self.last]

    def write(self, values: Array) -> None:
        """Write a chunk that is seen whole."""
        (start,), (size,) = self.starts, self.sizes
        array = self._open("r+")
        array[start : start + size] = values.reshape(size, *array.shape[1:])

    def _parts(self) -> Iterator[tuple[int, int, Array]]:
        """Where each chunk begins, its rows, and which of them are seen."""
        assert self.part is not None or self.first == self.last
        for start, size in zip(self.starts, self.sizes, strict=True):
            if self.part is not None:
                yield start, size, self.part.rows(start // self.layout[1], size)

    def _chunk(self, start: int, first: int, last: int) -> Array:
        """Rows of a chunk, which is read as a whole, as its checksum wants."""
        array = self._open("r")
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

    def _open(self, mode: Mode) -> zarr.Array[Any]:
        try:
            return open_array(self.location, mode, self.layout)
        except FileNotFoundError:
            raise MissingError(
                f"{socket.gethostname()} sees no array at {self.location}; put it where every worker sees it"
            ) from None


@dataclass(frozen=True)
class ChunkView:
    """Some chunks of a zarr array, in the order given, or parts of them, as one matrix of a sample a row.

    Attributes
    ----------
    location : str
        Path or URL of the zarr array.
    columns : int
        Values in a sample.
    dtype : numpy.dtype
        Of the array.
    blocks : tuple of int
        Rows that are seen of each chunk, or of each block of parts of chunks.
    cut : int
        Pieces that each of them is read in.
    pieces : tuple of RowBlock
        What is read at a time: each piece of each block.
    """

    location: str
    columns: int
    dtype: np.dtype[Any]
    blocks: tuple[int, ...]
    cut: int
    pieces: tuple[RowBlock, ...]

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
        columns, dtype, layout = prod(shape[1:]), np.dtype(dtype), (shape, chunk_rows)
        seen, pieces = [], []
        for chunks in [(i,) for i in ids] if part is None else part.blocks(ids):
            starts = tuple(i * chunk_rows for i in chunks)
            sizes = tuple(min(chunk_rows, shape[0] - start) for start in starts)
            seen.append(sum(sizes if part is None else map(part.size, sizes)))
            for bounds in pairwise(cut_rows(seen[-1], cut)):
                pieces.append(RowBlock(location, columns, dtype, layout, starts, sizes, *bounds, part))
        return cls(location, columns, dtype, tuple(seen), cut, tuple(pieces))

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int]]:
        """Dask's form of what is read at a time."""
        return tuple(piece.last - piece.first for piece in self.pieces), (self.columns,)
