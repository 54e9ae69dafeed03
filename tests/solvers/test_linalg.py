"""BLAS and LAPACK by their addresses: SciPy's own results, bit for bit, and threads beside them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from scipy.linalg import blas, lapack

from altmin_dask.solvers.linalg import add_gram, add_product, cholesky, cholesky_inverse, cholesky_solve

KINDS = "f", "d"
SHAPES = [(7, 3, 5), (130, 30, 78), (1, 1, 1), (33, 1, 4), (5, 4, 1)]


def rows(kind: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(kind)


def definite(kind: str, k: int) -> np.ndarray:
    a = rows(kind, 2 * k + 1, k)
    return a.T @ a + np.eye(k, dtype=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
def test_products_are_those_of_scipy(kind, n, d, k):
    left, right, total = rows(kind, n, d), rows(kind, n, k), rows(kind, d, k)
    expected = getattr(blas, f"{ {'f': 's', 'd': 'd'}[kind] }gemm")(
        -2.0, right.T, left.T, beta=1.0, c=total.T, trans_b=True
    ).T
    add_product(total, -2.0, left, right)
    assert np.array_equal(total, expected)
    gram = np.zeros((k, k), kind)
    expected = getattr(blas, f"{ {'f': 's', 'd': 'd'}[kind] }syrk")(1.0, right.T, lower=False).T
    add_gram(gram, right)
    assert np.array_equal(gram, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["wider rows", "every second row", "columns", "backwards", "none"])
def test_rows_may_lie_anywhere(kind, layout):
    left, right = rows(kind, 20, 3), rows(kind, 20, 4)
    wide, tall = rows(kind, 20, 9), rows(kind, 40, 4)
    right = {
        "wider rows": wide[:, 2:6],
        "every second row": tall[::2],
        "columns": np.asfortranarray(right),
        "backwards": right[::-1],
        "none": right[:0],
    }[layout]
    left = left[: len(right)]
    total, gram = np.ones((3, 4), kind), np.ones((4, 4), kind)
    add_product(total, 1.0, left, right)
    add_gram(gram, right)
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(total, 1 + left.T @ right, **close)
    np.testing.assert_allclose(np.tril(gram), np.tril(1 + right.T @ right), **close)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 9, 100])
def test_factors_and_solutions_are_those_of_scipy(kind, k):
    prefix, matrix = {"f": "s", "d": "d"}[kind], definite(kind, k)
    factor = cholesky(matrix)
    assert factor is not None
    assert np.array_equal(factor, getattr(lapack, f"{prefix}potrf")(matrix, lower=True, clean=False)[0])
    assert np.array_equal(matrix, definite(kind, k))
    for right in (rows(kind, k), rows(kind, k, 3), rows(kind, 3, k).T):
        kept = right.copy()
        expected = getattr(lapack, f"{prefix}potrs")(factor, right, lower=True)[0]
        assert np.array_equal(cholesky_solve(factor, right), expected)
        assert np.array_equal(right, kept)
        assert np.array_equal(cholesky_solve(factor, right, overwrite=True), expected)
    assert cholesky(-matrix) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 2, 100, 300, 512])
def test_an_inverse_is_that_of_all_of_the_matrix(k, dtype):
    """More than a strip, and just so many; rounded once where it is kept in less."""
    matrix = definite("d", k)
    factor = cholesky(matrix)
    factor[np.triu_indices(k, 1)] = np.nan  # what is there is no part of it
    inverse = cholesky_inverse(factor, dtype)
    assert inverse.dtype == dtype
    assert np.array_equal(inverse, inverse.T)
    rounding = np.finfo(dtype).eps + 8 * k * np.finfo("d").eps * np.linalg.cond(matrix)
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=0, atol=rounding * np.abs(inverse).max())


def test_other_threads_go_on_meanwhile():
    """The longest that Python stands still is far less than a factorisation takes; once in a few tries is enough."""
    matrix = definite("d", 1500)

    def shares() -> float:
        spent: list[float] = []

        def factorise() -> None:
            start = time.perf_counter()
            cholesky(matrix)
            spent.append(time.perf_counter() - start)

        thread = threading.Thread(target=factorise)
        longest, before = 0.0, time.perf_counter()
        thread.start()
        while thread.is_alive():
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
        thread.join()
        return longest / spent[0]

    assert min(shares() for _ in range(8)) < 0.6
