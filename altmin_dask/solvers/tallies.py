"""Rows of sums whose last part few samples touch: it travels as places and values, until it is as large itself.

The scores of a ROC curve are such a part: 1 MiB for every chunk, of which its samples touch a few KiB. A row is the
sums of all samples, then the places, then their values; or, where that is no less, all sums as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from altmin_dask.types import Array

Tally = tuple[Array, Array]
"""Places in an array of sums, and what is to be added there."""


@dataclass(frozen=True)
class TalliedRows:
    """What rows are made of.

    Attributes
    ----------
    head, size : int
        Sums of all samples, which come first, and of all together.
    """

    head: int
    size: int

    def row(self, sums: Array, tallies: Sequence[Tally]) -> Array:
        """Of a chunk: the first sums, (head,), and what is to be added to the others."""
        places, values = ([each[part] for each in tallies] for part in (0, 1))
        found = np.concatenate([sums, *places, *values])
        return found if len(found) < self.size else self._scattered(sums, tallies)

    def whole(self, row: Array) -> Array:
        """All sums, (size,)."""
        if len(row) == self.size:
            return row
        return self._scattered(row[: self.head], [self._tally(row)])

    def add(self, left: Array, right: Array) -> Array:
        """A row of both; of what rows it is made does not hang on who adds them."""
        if max(len(left), len(right)) < self.size and len(left) + len(right) - self.head < self.size:
            return self.row(left[: self.head] + right[: self.head], [self._tally(left), self._tally(right)])
        return np.add(self.whole(left), self.whole(right))

    def _tally(self, row: Array) -> Tally:
        middle = self.head + (len(row) - self.head) // 2
        return row[self.head : middle], row[middle:]

    def _scattered(self, sums: Array, tallies: Sequence[Tally]) -> Array:
        found = np.zeros(self.size)
        found[: self.head] = sums
        for places, values in tallies:
            np.add.at(found[self.head :], places.astype(np.intp), values)
        return found
