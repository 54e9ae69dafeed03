"""The calls of BLAS and LAPACK that NumPy has no name for, on matrices of float32 or float64.

They are SciPy's, called at the addresses that it gives to other compiled code: its functions for Python keep the
interpreter locked while they compute, and tasks in other threads, and Dask's messages, would wait (row 68 of
benchmarks/LOG.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cython_blas, cython_lapack, eigh

from altmin_dask.types import Array

_REALS = {"f": ("s", ctypes.c_float), "d": ("d", ctypes.c_double)}
_name_of, _address_of = (
    ctypes.PYFUNCTYPE(result, ctypes.py_object, *given)((name, ctypes.pythonapi))
    for name, result, given in (
        ("PyCapsule_GetName", ctypes.c_char_p, ()),
        ("PyCapsule_GetPointer", ctypes.c_void_p, (ctypes.c_char_p,)),
    )
)


def _routine(module: Any, name: str) -> dict[str, Callable[..., None]]:
    """A routine for each kind of real numbers, which takes everything as Fortran does, and lets other threads go on.

    Arrays are taken as they lie in memory, numbers by value.
    """

    def bind(prefix: str, real: Any) -> Callable[..., None]:
        capsule = module.__pyx_capi__[prefix + name]
        signature = _name_of(capsule)
        call = ctypes.CFUNCTYPE(None)(_address_of(capsule, signature))

        def argument(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return ctypes.c_void_p(value.ctypes.data)
            if isinstance(value, bytes):
                return value
            made = (
                real(value)
                if isinstance(value, float)
                else ctypes.c_int(value)
                if isinstance(value, int)
                else value
            )
            return ctypes.byref(made)

        def routine(*values: Any) -> None:
            call(*map(argument, values))

        return routine

    return {kind: bind(prefix, real) for kind, (prefix, real) in _REALS.items()}


_GEMM, _SYRK = (_routine(cython_blas, name) for name in ("gemm", "syrk"))
_POTRF, _POTRI, _POTRS = (_routine(cython_lapack, name) for name in ("potrf", "potri", "potrs"))
STRIP = 256
"""Columns that are mirrored at a time."""


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
    (d, k), kind = total.shape, total.dtype.char
    left, right = _rows(left, total), _rows(right, total)
    # columns of Fortran are rows here: totalᵀ += factor · rightᵀ left
    _GEMM[kind](
        b"N",
        b"T",
        k,
        d,
        len(left),
        factor,
        right,
        _stride(right),
        left,
        _stride(left),
        1.0,
        total,
        _stride(total),
    )


def add_gram(total: Array, rows: Array) -> None:
    """Total += rowsᵀ rows in its lower triangle, in place; total: (d, d), contiguous, rows: (n, d)."""
    rows = _rows(rows, total)
    _SYRK[total.dtype.char](
        b"U", b"N", len(total), len(rows), 1.0, rows, _stride(rows), 1.0, total, _stride(total)
    )


def cholesky(matrix: Array) -> Array | None:
    """L of matrix = L Lᵀ, by its lower triangle; None where it is not positive definite.

    Above the diagonal is whatever was there.
    """
    factor, failed = np.array(matrix, order="F"), ctypes.c_int()
    _POTRF[factor.dtype.char](b"L", len(factor), factor, max(1, len(factor)), failed)
    return None if failed.value else factor


def cholesky_solve(factor: Array, right: Array, *, overwrite: bool = False) -> Array:
    """(L Lᵀ)⁻¹ right for an L of `cholesky`, both of one dtype; right: (k,) or (k, n), and may be overwritten."""
    found = np.asfortranarray(right) if overwrite else np.array(right, order="F")
    columns = 1 if found.ndim == 1 else found.shape[1]
    rows = max(1, len(factor))
    failed = ctypes.c_int()
    _POTRS[factor.dtype.char](b"L", len(factor), columns, factor, rows, found, rows, failed)
    return found


def cholesky_inverse(factor: Array, dtype: npt.DTypeLike) -> Array:
    """(L Lᵀ)⁻¹, (k, k), in a dtype, for an L of `cholesky`, which is overwritten."""
    rows, failed = max(1, len(factor)), ctypes.c_int()
    _POTRI[factor.dtype.char](b"L", len(factor), factor, rows, failed)
    inverse = factor.astype(dtype, order="F", copy=False)
    for start in range(0, len(inverse), STRIP):
        stop = min(start + STRIP, len(inverse))
        own = np.tril(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = own + np.tril(own, -1).T
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
    return inverse


def eigen(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues (k,), ascending, and the eigenvectors, as columns (k, k), of a symmetric matrix."""
    values, vectors = eigh(matrix, check_finite=False)
    return values, vectors


def _stride(array: Array) -> int:
    """Numbers from one row to the next."""
    return max(1, array.shape[1], array.strides[0] // array.itemsize)


def _rows(array: Array, like: Array) -> Array:
    """An array whose rows lie one after the other, each of them contiguous, in the dtype of another."""
    array = array.astype(like.dtype, copy=False)
    apart, near = array.strides
    fits = near == array.itemsize and apart >= near * array.shape[1] and apart % near == 0
    return array if fits or array.size == 0 else np.ascontiguousarray(array)


def between(first: Array, second: Array, share: Any) -> Array:
    """A share of the way from the first to the second, with no array besides the result."""
    result: Array = second - first
    result *= share
    result += first
    return result
