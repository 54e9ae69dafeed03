"""Rows in a random order, out of core: dealt to buckets at random, which are then read, and permuted, one by one.

Every order is as likely as any other: it is that of independent random numbers in [0, 1), one for each row, of which
a bucket holds those of its share of the interval, in the order of a permutation of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from altmin_dask.errors import DataError
from altmin_dask.types import Array

BUCKET_BYTES = 32 << 20
"""Of a bucket, about (chosen, not measured): what does not fill one needs no disk."""
_STREAM, _BLOCK = 4, 1 << 16
"""Which random numbers of a seed these are, and how many are drawn at a time to count them."""


@dataclass(frozen=True)
class ArraySize:
    """An array that is shuffled: the shape of a row, and its dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return math.prod(self.shape) * self.dtype.itemsize


class Shuffle:
    """Arrays whose rows belong together, taken block by block in their order, given back in another, the same for all.

    The order depends on the seed, the rows and their bytes only. At its end the context removes the files.

    Parameters
    ----------
    rows : int
        Of every array.
    arrays : mapping of str to ArraySize
        By name.
    seed : int
        Decides the order.
    folder : path
        Where files are made, one for each array, if it takes more than a bucket; as large as the array.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> with Shuffle(6, {"x": ArraySize((), np.dtype(int))}, seed=0, folder=Path(".")) as shuffle:
    ...     shuffle.add({"x": np.arange(4)})
    ...     shuffle.add({"x": np.arange(4, 6)})
    ...     [piece.tolist() for piece in shuffle.pieces("x", 4)]
    [[2, 0, 1, 3], [5, 4]]
    """

    def __init__(self, rows: int, arrays: Mapping[str, ArraySize], seed: int, folder: Path) -> None:
        self.arrays, self.seed, self.folder = arrays, seed, folder
        total = rows * sum(array.row_bytes for array in arrays.values())
        self.buckets = max(1, math.ceil(total / BUCKET_BYTES))
        self._random = self._numbers()
        self.sizes = np.zeros(self.buckets, np.int64)
        numbers = self._numbers()
        for start in range(0, rows, _BLOCK):
            drawn = self._dealt(numbers, min(_BLOCK, rows - start))
            self.sizes += np.bincount(drawn, minlength=self.buckets)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self._next = self.starts[:-1].copy()
        self._kept: dict[str, Array] = {}
        self._files: dict[str, BinaryIO] = {}
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for name, array in self.arrays.items():
                if self.buckets == 1:
                    self._kept[name] = np.empty((int(self.starts[-1]), *array.shape), array.dtype)
                else:
                    path = self.folder / f"{name}.unshuffled"
                    opened.callback(path.unlink, missing_ok=True)
                    self._files[name] = opened.enter_context(path.open("w+b"))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def add(self, block: Mapping[str, Array]) -> None:
        """Take the next rows of every array."""
        count = len(next(iter(block.values())))
        dealt = self._dealt(self._random, count)
        # of small integers in a few passes, rather than by comparing
        order = np.argsort(dealt.astype(np.min_scalar_type(self.buckets)), kind="stable")
        numbers, firsts = np.unique(dealt[order], return_index=True)
        stops = [*firsts[1:].tolist(), count]
        for name, values in block.items():
            taken = values.take(order, axis=0) if self.buckets > 1 else values
            for number, first, stop in zip(numbers.tolist(), firsts.tolist(), stops, strict=True):
                self._put(name, int(self._next[number]), taken[first:stop])
        self._next[numbers] += np.array(stops) - firsts

    def pieces(self, name: str, rows: int) -> Iterator[Array]:
        """An array in its new order, in pieces of at most so many rows."""
        array = self.arrays[name]
        kept = self._kept.get(name)
        # one for all buckets: what is freed and taken again, a little larger, need not be the same memory
        buffer = np.empty((int(self.sizes.max()), *array.shape), array.dtype) if kept is None else kept
        for number, size in enumerate(self.sizes.tolist()):
            order = np.random.default_rng([self.seed, _STREAM, number + 1]).permutation(size)
            bucket = buffer[:size]
            if kept is None:
                self._read(name, int(self.starts[number]), bucket)
            for start in range(0, size, rows):
                yield bucket.take(order[start : start + rows], axis=0)  # of rows half the time of an index

    def _numbers(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, _STREAM, 0])

    def _dealt(self, numbers: np.random.Generator, count: int) -> Array:
        """The buckets of the next rows."""
        return (numbers.random(count) * self.buckets).astype(np.int64)

    def _put(self, name: str, row: int, values: Array) -> None:
        if name in self._kept:
            self._kept[name][row : row + len(values)] = values
            return
        file = self._files[name]
        file.seek(row * self.arrays[name].row_bytes)
        file.write(np.ascontiguousarray(values).data)

    def _read(self, name: str, row: int, values: Array) -> None:
        """Rows of an array from its file."""
        file = self._files[name]
        file.seek(row * self.arrays[name].row_bytes)
        if values.size and file.readinto(values.reshape(-1).view(np.uint8).data) != values.nbytes:  # type: ignore[attr-defined]
            raise DataError(f"{file.name} was cut short while it was used; try again")
