"""The W-update: ridge least squares per layer from Gram statistics, in float64.

    W̃ = (C + ρ W̃_old) (G + (λ/μ) I + ρ I)⁻¹

with the ridge λ/μ on the augmented Gram matrix, bias included unless asked otherwise, and an optional proximal term
ρ = proximal × mean diagonal of G that keeps the step small in directions the data barely determine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from altmin_dask.solvers.linalg import cholesky, cholesky_solve, eigen
from altmin_dask.types import Array


@dataclass(frozen=True)
class RidgeSystem:
    """G + (λ/μ) I + ρ I, factorised: as long as G stays, only right-hand sides change.

    Attributes
    ----------
    rho : float
        The absolute ρ.
    inverse : callable
        Multiplies rows (d, k) by the (pseudo-)inverse.
    """

    rho: float
    inverse: Callable[[Array], Array]

    def solve(self, cross: Array, previous: Array) -> Array:
        """W̃ for C = `cross` and W̃_old = `previous`, both (d, k); float64, contiguous, always finite."""
        rows = cross + self.rho * previous if self.rho > 0 else cross
        return np.ascontiguousarray(self.inverse(rows))


def ridge_system(
    gram: Array,
    ridge: float,
    *,
    penalize_bias: bool = True,
    proximal: float = 0.0,
    precision: float = float(np.finfo(np.float64).eps),
) -> RidgeSystem:
    """Factorise one layer's system: by Cholesky, or if it is singular by its eigenvalues.

    Parameters
    ----------
    gram : ndarray, (k, k), float64
        G = Σ ã ãᵀ.
    ridge : float
        λ/μ ≥ 0.
    penalize_bias : bool
        Whether the ridge also holds the last column, the bias.
    proximal : float
        ρ relative to the mean diagonal of G.
    precision : float
        Relative accuracy of G's entries: directions below it are noise, and get minimum-norm weights.

    Returns
    -------
    RidgeSystem
    """
    k = len(gram)
    rho = proximal * float(np.trace(gram)) / k
    diagonal = np.full(k, ridge + rho)
    if not penalize_bias:
        diagonal[-1] = rho
    matrix = gram.copy()
    matrix.flat[:: k + 1] += diagonal
    # A pivot that has lost all but this of its diagonal is rounding, not information.
    floor = max(precision, 8 * k * np.finfo(np.float64).eps)
    factor = cholesky(matrix)
    if factor is not None and (np.square(np.diagonal(factor)) > floor * np.diagonal(matrix)).all():
        return RidgeSystem(rho, lambda rows: cholesky_solve(factor, rows.T).T)
    values, vectors = eigen(matrix)
    kept = values > floor * max(values[-1], np.finfo(np.float64).tiny)
    basis, kept_values = vectors[:, kept], values[kept]
    return RidgeSystem(rho, lambda rows: (rows @ basis / kept_values) @ basis.T)
