"""Fixed rows ã_s = [x_s; 1] that are fewer than they are long: what G = Σ w_s ã_s ã_sᵀ needs is in their Gram matrix.

The input factor of a first layer that takes samples as they are is a running mean over the same rows all the time, so
it is known by one weight w_s of each. With A the rows and D their weights,

    (Aᵀ D A + ρI)⁻¹  =  (I − Aᵀ D^½ (ρI + D^½ K D^½)⁻¹ D^½ A) / ρ,   K = A Aᵀ

(Woodbury): a matrix of as many rows as there are samples takes the place of one of as many as there are inputs. The
gradient of W̃_1 is Σ g_s ã_sᵀ, so that samples send their g_s for it, and nothing is as wide as ã but the weights and
what changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from altmin_dask.networks.initialization import Directions, which_kept
from altmin_dask.solvers.linalg import add_gram, eigen
from altmin_dask.types import Array

PANEL_BYTES = 16 << 20
"""Of the rows so many bytes at a time are multiplied in float64, or converted."""


class RowSpace:
    """Rows of samples, and products with them.

    Parameters
    ----------
    chunks : iterable of ndarray, (n, features)
        The rows in order, as they are stored: what takes less room so is converted each time it is used.
    dtype : dtype
        Of the computation.

    Attributes
    ----------
    rows, inputs : int
        How many there are, and numbers in ã, the 1 included.
    """

    def __init__(self, chunks: Iterable[Array], dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._chunks = [
            chunk if chunk.itemsize < self.dtype.itemsize else chunk.astype(self.dtype, copy=False)
            for chunk in chunks
        ]
        self.rows = sum(map(len, self._chunks))
        self.inputs = self._chunks[0].shape[1] + 1
        self._known: tuple[Array, Array] | None = None

    @cached_property
    def gram(self) -> Array:
        """K, (rows, rows), in float64."""
        total = np.zeros((self.rows, self.rows))
        width = max(64, PANEL_BYTES // (total.itemsize * self.rows))
        for start in range(0, self.inputs - 1, width):
            columns = slice(start, min(start + width, self.inputs - 1))
            panel = np.empty((columns.stop - start, self.rows))
            first = 0
            for chunk in self._chunks:
                panel[:, first : first + len(chunk)] = chunk[:, columns].astype(self.dtype, copy=False).T
                first += len(chunk)
            add_gram(total, panel)
        total += 1
        for row in range(self.rows):
            total[row, row + 1 :] = total[row + 1 :, row]
        return total

    def values(self, w: Array) -> Array:
        """W̃ Aᵀ, (d, rows), in float64, of weights, which are asked for more than once in a step."""
        if self._known is None or self._known[0] is not w:
            self._known = w, self.products(w).astype(np.float64)
        return self._known[1]

    def squared_norm(self, factors: Array, share: float, w: Array) -> float:
        """‖factors A − share W̃‖² for factors of (d, rows)."""
        found = float(np.vdot(factors @ self.gram, factors))
        if share:
            found -= 2 * share * float(np.vdot(factors, self.values(w)))
            found += share**2 * float(np.vdot(w, w))
        return max(found, 0.0)

    def directions(self, most: int) -> Directions:
        """What the rows vary along, `most` at most, as `Directions.of_moments` has it of longer sums."""
        gram, n = self.gram, self.rows
        means = gram.mean(axis=0)
        values, vectors = eigen((gram - means - means[:, None] + means.mean()) / n)
        kept = which_kept(values, most, float(np.trace(gram)) / n)
        # eigenvectors are orthogonal to a row of ones: the mean is out of what they combine
        factors = np.vstack([np.full(n, 1 / n), vectors[:, kept].T / np.sqrt(n * values[kept])[:, None]])
        found = np.zeros((len(factors), self.inputs))
        self.add_combination(factors, found)
        return Directions(found[0, :-1], values[kept], found[1:, :-1].T)

    def products(self, left: Array) -> Array:
        """Left Aᵀ, (d, rows), for left of (d, inputs)."""
        out = np.empty((len(left), self.rows), left.dtype)
        for where, block in self._blocks(left.dtype):
            np.matmul(left[:, :-1], block.T, out=out[:, where])
        out += left[:, -1:]
        return out

    def add_combination(self, factors: Array, out: Array) -> None:
        """Add factors A, for factors of (d, rows), to what is there, (d, inputs)."""
        for where, block in self._blocks(factors.dtype):
            out[:, :-1] += factors[:, where] @ block
        out[:, -1] += factors.sum(axis=1)

    def _blocks(self, dtype: npt.DTypeLike) -> Iterator[tuple[slice, Array]]:
        """Some rows at a time, without the 1, in a dtype, and which they are."""
        start = 0
        for chunk in self._chunks:
            size = max(1, PANEL_BYTES // (np.dtype(dtype).itemsize * self.inputs))
            for first in range(0, len(chunk), size):
                block = chunk[first : first + size]
                yield slice(start + first, start + first + len(block)), self._as(block, dtype)
            start += len(chunk)

    def _as(self, block: Array, dtype: npt.DTypeLike) -> Array:
        return block.astype(self.dtype, copy=False).astype(dtype, copy=False)
