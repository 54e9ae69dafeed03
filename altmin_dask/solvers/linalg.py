"""The calls of BLAS and LAPACK that NumPy has no name for, on matrices of float32 or float64."""

from __future__ import annotations

from scipy.linalg import eigh
from scipy.linalg.blas import dgemm, dsyrk, sgemm, ssyrk
from scipy.linalg.lapack import dpotrf, dpotrs, spotrf, spotrs

from altmin_dask.types import Array

_GEMM = {"f": sgemm, "d": dgemm}
_SYRK = {"f": ssyrk, "d": dsyrk}
_POTRF = {"f": spotrf, "d": dpotrf}
_POTRS = {"f": spotrs, "d": dpotrs}


def add_product(total: Array, factor: float, left: Array, right: Array) -> None:
    """Total += factor · leftᵀ right, in place, while BLAS multiplies.

    Parameters
    ----------
    total : ndarray, (d, k), contiguous
        Of the dtype of the other two.
    factor : float
        A number.
    left, right : ndarray, (n, d), (n, k)
        Rows.
    """
    gemm = _GEMM[total.dtype.char]
    gemm(factor, right.T, left.T, beta=1.0, c=total.T, trans_b=True, overwrite_c=True)


def add_gram(total: Array, rows: Array) -> None:
    """Total += rowsᵀ rows in its lower triangle, in place; total: (d, d), contiguous, rows: (n, d)."""
    syrk = _SYRK[total.dtype.char]
    syrk(1.0, rows.T, beta=1.0, c=total.T, lower=False, overwrite_c=True)


def cholesky(matrix: Array) -> Array | None:
    """L of matrix = L Lᵀ, by its lower triangle; None where it is not positive definite.

    Above the diagonal is whatever was there.
    """
    factor: Array
    factor, failed = _POTRF[matrix.dtype.char](matrix, lower=True, clean=False)
    return None if failed else factor


def cholesky_solve(factor: Array, right: Array, *, overwrite: bool = False) -> Array:
    """(L Lᵀ)⁻¹ right for an L of `cholesky`, both of one dtype; right: (k,) or (k, n), and may be overwritten."""
    found: Array
    found, _ = _POTRS[factor.dtype.char](factor, right, lower=True, overwrite_b=overwrite)
    return found


def eigen(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues (k,), ascending, and the eigenvectors, as columns (k, k), of a symmetric matrix."""
    values, vectors = eigh(matrix, check_finite=False)
    return values, vectors
