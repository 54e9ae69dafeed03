"""Matrix products that are added to a total while BLAS multiplies, in the total's dtype."""

from __future__ import annotations

from scipy.linalg.blas import dgemm, dsyrk, sgemm, ssyrk

from altmin_dask.types import Array

_GEMM = {"f": sgemm, "d": dgemm}
_SYRK = {"f": ssyrk, "d": dsyrk}


def add_product(total: Array, factor: float, left: Array, right: Array) -> None:
    """Total += factor · leftᵀ right, in place; total: (d, k), left: (n, d), right: (n, k)."""
    gemm = _GEMM[total.dtype.char]
    gemm(factor, right.T, left.T, beta=1.0, c=total.T, trans_b=True, overwrite_c=True)


def add_gram(total: Array, rows: Array) -> None:
    """Total += rowsᵀ rows in its lower triangle, in place; total: (d, d), rows: (n, d)."""
    syrk = _SYRK[total.dtype.char]
    syrk(1.0, rows.T, beta=1.0, c=total.T, lower=False, overwrite_c=True)
