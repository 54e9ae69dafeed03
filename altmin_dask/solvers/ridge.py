"""The W-update: ridge least squares per layer from Gram statistics, in float64.

    W̃ = (C + ρ W̃_old) (G + (λ/μ) I + ρ I)⁻¹

with the ridge λ/μ on the augmented Gram matrix, bias included unless asked otherwise, and an optional proximal term
ρ = proximal × mean diagonal of G that keeps the step small in directions the data barely determine.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh

from altmin_dask.networks.activations import Array


def solve_layer(
    cross: Array,
    gram: Array,
    ridge: float,
    *,
    penalize_bias: bool = True,
    proximal: float = 0.0,
    previous: Array | None = None,
    precision: float = np.finfo(np.float64).eps,
) -> Array:
    """Solve one layer.

    Parameters
    ----------
    cross : ndarray, (d, k)
        C = Σ z ãᵀ.
    gram : ndarray, (k, k)
        G = Σ ã ãᵀ.
    ridge : float
        λ/μ ≥ 0.
    penalize_bias : bool
        Whether the ridge also holds the last column, the bias.
    proximal : float
        ρ relative to the mean diagonal of G; needs `previous` when positive.
    previous : ndarray, (d, k), optional
        W̃_old.
    precision : float
        Relative accuracy of G's entries: directions below it are noise, and get minimum-norm weights.

    Returns
    -------
    ndarray, (d, k), float64
        Always finite: a singular G gives the minimum-norm solution.
    """
    k = len(gram)
    diagonal = np.full(k, float(ridge))
    if not penalize_bias:
        diagonal[-1] = 0.0
    target = cross
    if proximal > 0 and previous is not None:
        rho = proximal * float(np.trace(gram)) / k
        diagonal += rho
        target = cross + rho * previous
    matrix = gram.copy()
    matrix.flat[:: k + 1] += diagonal
    try:
        factor = cho_factor(matrix, lower=True, check_finite=False, overwrite_a=False)
        pivots = np.square(np.diagonal(factor[0])) / np.diagonal(matrix)
        # A pivot that has lost nearly all of its diagonal is rounding, not information.
        if pivots.min() > 8 * k * precision:
            return np.ascontiguousarray(cho_solve(factor, target.T, check_finite=False).T)
    except LinAlgError:
        pass
    values, vectors = eigh(matrix, check_finite=False)
    kept = values > k * precision * max(values[-1], np.finfo(np.float64).tiny)
    basis = vectors[:, kept]
    return np.asarray((target @ basis / values[kept]) @ basis.T)
