"""Names of types that every layer of the package uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

Weights = tuple[Array, ...]
"""W̃_1 … W̃_L, each of shape (d_i, d_{i−1} + 1), the bias in the last column."""

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""What calls a function with each of some arguments, in whatever order, as `map` does."""


@dataclass(frozen=True)
class Batch:
    """Some samples with all that belongs to them: a chunk, or a block of one.

    Attributes
    ----------
    x : ndarray, (n, …)
        Inputs; for a recurrent network T steps of d_0 features, in any shape of that many numbers.
    y : ndarray, (n, …), or labels (n,) or (n, T), or None
        Targets; None where the inputs themselves are.
    sample_weight : ndarray, (n,), or None
        How much each sample counts; None for 1.
    lengths : ndarray of whole numbers, (n,), or None
        How many steps of each sequence are there, the others being padding; None for all.
    states : ndarray, (n, Σ d_i), or None
        States s_i⁰ of all recurrent layers side by side, from which sequences go on; None for zeros.
    """

    x: Array
    y: Array | None = None
    sample_weight: Array | None = None
    lengths: Array | None = None
    states: Array | None = None

    def __len__(self) -> int:
        """How many samples."""
        return len(self.x)

    def rows(self, rows: slice | Array) -> Batch:
        """Some of the samples, by a slice or an index."""

        def of(values: Array | None) -> Array | None:
            return None if values is None else values[rows]

        return Batch(self.x[rows], of(self.y), of(self.sample_weight), of(self.lengths), of(self.states))

    def blocks(self, size: int) -> Iterator[tuple[slice, Batch]]:
        """All samples, so many at a time, and which rows those are."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.rows(rows)
