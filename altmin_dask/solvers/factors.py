"""The two factors of a layer's curvature, damped: each solves for its side of a direction.

What is asked of one matrix in step after step is multiplied by its inverse, made in float64: triangular solves have a
quarter to a half of a product's rate (row 91 of benchmarks/LOG.md).

A factor is kept in one of two forms, which the shape of its array tells (`altmin_dask.solvers.kronecker.Forms`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from altmin_dask.solvers.linalg import cholesky, cholesky_inverse, cholesky_solve
from altmin_dask.solvers.row_space import RowSpace
from altmin_dask.types import Array


class InputFactor(Protocol):
    """Ḡ + ρI."""

    rho: float

    def solve(self, negative: Array, n: float, ridge: float, w: Array) -> Array:
        """(negative / n − 2 ridge W̃) (Ḡ + ρI)⁻¹, (d, k), for sums over n samples, and what the ridge holds."""


class OutputFactor(Protocol):
    """S̄ + σI."""

    def solve(self, d: Array) -> Array:
        """(S̄ + σI)⁻¹ D for D of (d, k), contiguous."""


class DenseInput:
    """Of the lower triangle of Ḡ; `damping` is relative to its mean diagonal."""

    def __init__(self, lower: Array, damping: float) -> None:
        self.rho = damping * float(np.trace(lower)) / len(lower)
        self.inverse = damped_inverse(lower, self.rho)

    def solve(self, negative: Array, n: float, ridge: float, w: Array) -> Array:
        """(negative / n − 2 ridge W̃) (Ḡ + ρI)⁻¹."""
        d = negative / n
        if ridge:
            d -= w.dtype.type(2 * ridge) * w
        product: Array = d @ self.inverse
        return product


class WeightedRows:
    """Of the rows whose mean Ḡ is, and the weight of each; see `altmin_dask.solvers.row_space`."""

    def __init__(self, weights: Array, space: RowSpace, damping: float) -> None:
        self.space, gram = space, space.gram
        self.rho = damping * float(weights @ np.diagonal(gram)) / space.inputs
        self.active = np.flatnonzero(weights)
        self.root = np.sqrt(weights[self.active])
        matrix = gram.copy() if len(self.active) == space.rows else gram[np.ix_(self.active, self.active)]
        matrix *= self.root
        matrix *= self.root[:, None]
        # none of them before curvature is measured; then there is nothing but the damping
        self.factor, self.added = damped_factor(matrix, self.rho, float(np.finfo(space.dtype).eps))

    def solve(self, negative: Array, n: float, ridge: float, w: Array) -> Array:
        """(negativeᵀ A / n − 2 ridge W̃) (Ḡ + ρI)⁻¹, for a row of every sample, (rows, d)."""
        pull = negative.T.astype(np.float64) / n
        inner = pull @ self.space.gram
        if ridge:
            inner -= 2 * ridge * self.space.values(w)
        if len(self.active):
            inner = inner[:, self.active] * self.root
            pull[:, self.active] -= cholesky_solve(self.factor, inner.T, overwrite=True).T * self.root
        pull /= self.added
        d = np.zeros_like(w) if not ridge else w * w.dtype.type(-2 * ridge / self.added)
        self.space.add_combination(pull.astype(w.dtype), d)
        return d


class DenseOutput:
    """Of the lower triangle of S̄."""

    def __init__(self, lower: Array, damping: float) -> None:
        self.inverse = damped_inverse(lower, damping)

    def solve(self, d: Array) -> Array:
        """(S̄ + σI)⁻¹ D."""
        product: Array = self.inverse @ d
        return product


class DiagonalOutput:
    """Of the diagonal of an S̄ that has nothing else."""

    def __init__(self, diagonal: Array, damping: float) -> None:
        least = float(np.finfo(diagonal.dtype).eps) * float(diagonal.max())
        self.diagonal = diagonal + diagonal.dtype.type(max(damping, least) or 1.0)

    def solve(self, d: Array) -> Array:
        """(S̄ + σI)⁻¹ D."""
        return np.ascontiguousarray(d / self.diagonal[:, None])


def input_factor(mean: Array, damping: float, space: RowSpace | None) -> InputFactor:
    """That of a running mean, a lower triangle or weights of rows; `damping` is relative to its mean diagonal."""
    if mean.ndim == 2:
        return DenseInput(mean, damping)
    assert space is not None
    return WeightedRows(mean, space, damping)


def output_factor(mean: Array, damping: float) -> OutputFactor:
    """That of a running mean, a lower triangle or a diagonal."""
    return DenseOutput(mean, damping) if mean.ndim == 2 else DiagonalOutput(mean, damping)


def damped_inverse(lower: Array, damping: float) -> Array:
    """Inverse of a mean given by its lower triangle and of its damping, kept in the mean's own dtype."""
    factor, _ = damped_factor(lower.astype(np.float64), damping, float(np.finfo(lower.dtype).eps))
    return cholesky_inverse(factor, lower.dtype)


def damped_factor(matrix: Array, damping: float, eps: float) -> tuple[Array, float]:
    """Cholesky factor of a float64 matrix, to which damping is added in place, and how much that was.

    Damping below the rounding of a sum of precision `eps` would leave noise to be inverted, and what many rows have
    added up to may be more than one expects: then it grows until there is a factor.
    """
    rounding = len(matrix) * eps * float(np.diagonal(matrix).max(initial=0.0))
    added, total = max(damping, rounding) or 1.0, 0.0
    while True:
        matrix.flat[:: len(matrix) + 1] += added
        total += added
        factor = cholesky(matrix)
        if factor is not None:
            return factor, total
        added *= 10
