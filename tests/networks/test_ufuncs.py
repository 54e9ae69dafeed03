"""Every element-wise function the package applies is right for every layout of its arrays.

NumPy's loops differ by dtype and by the strides of inputs and outputs, and one of them is known to err
(CONTRIBUTING.md, "Known faults upstream"). What the package uses is found in its own source, so that nothing can be
used and not be tested.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from choices import slow_but

import altmin_dask
from altmin_dask.networks.activations import negated

OPERATORS = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "remainder",
    ast.MatMult: "matmul",
    ast.BitOr: "bitwise_or",
    ast.BitAnd: "bitwise_and",
    ast.BitXor: "bitwise_xor",
    ast.LShift: "left_shift",
    ast.RShift: "right_shift",
}
"""What `a += b` and its like are; ufuncs that take no floats are of no use to arrays of them, and left out."""
DENIED = frozenset({"negative"})
"""No ufunc may be used that errs for some layout: `altmin_dask.networks.activations.negated` stands in for this one.

`-a` is allowed: NumPy makes its result contiguous, and then no layout of `a` errs (tested below).
"""

DTYPES = (np.float32, np.float64)
LENGTHS = (1, 2, 3, 5, 9, 17, 35)
"""Around the widths of SIMD registers, 128 to 512 bits, and their multiples."""
INPUT_STRIDES = (*range(1, 18), 0, -1, -2, -4, -8)
OUTPUT_STRIDES = (1, 2, 3, 4, 8, 9, -1, -2)


@cache
def used() -> dict[str, set[str]]:
    """The NumPy names the package refers to, those it gives an `out`, and the ufuncs of its in-place operators."""
    found: dict[str, set[str]] = {"names": set(), "with out": set(), "in place": set()}
    for path in Path(altmin_dask.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = numpy_name(node)
            if name is not None:
                found["names"].add(name)
            if isinstance(node, ast.AugAssign):
                found["in place"].add(OPERATORS[type(node.op)])
            if isinstance(node, ast.Call) and (name := numpy_name(node.func)) is not None:
                ufunc = getattr(np, name, None)
                given = any(keyword.arg == "out" for keyword in node.keywords)
                if given or (isinstance(ufunc, np.ufunc) and len(node.args) > ufunc.nin):
                    found["with out"].add(name)
    return found


def numpy_name(node: ast.AST) -> str | None:
    """`x` of `np.x`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
        return node.attr
    return None


def takes_floats(name: str) -> bool:
    """Whether it is an element-wise function of floats with one result."""
    ufunc = getattr(np, name, None)
    if not isinstance(ufunc, np.ufunc) or ufunc.nout != 1 or ufunc.signature is not None:
        return False
    return any(set(types.partition("->")[0]) == {"d"} for types in ufunc.types)


def elementwise() -> list[str]:
    """Every ufunc of floats that the package names (as a callback it may be given an `out` anywhere) or implies."""
    found = used()
    return sorted(filter(takes_floats, found["names"] | found["in place"]))


def strided(base: np.ndarray, length: int, stride: int, offset: int = 0) -> np.ndarray:
    """Every `stride`-th element of an array, backwards where that is negative."""
    start = offset + (length - 1) * max(-stride, 0)
    return np.lib.stride_tricks.as_strided(base[start:], (length,), (stride * base.itemsize,))


def layouts(lengths):
    """Dtypes, lengths, strides of the inputs, and strides and offsets of the output (None: the first input itself)."""
    for dtype in DTYPES:
        for length in lengths:
            for stride in INPUT_STRIDES:
                for other in OUTPUT_STRIDES:
                    yield dtype, length, stride, other, 1 + length % 2
                if stride:
                    yield dtype, length, stride, None, 1


def wrong(ufunc: np.ufunc, lengths=LENGTHS) -> list[str]:
    """The layouts for which a ufunc errs, or writes beside its output; compared with contiguous arrays."""
    rng, found = np.random.default_rng(0), []
    numbers = {
        dtype: rng.uniform(0.1, 0.9, (ufunc.nin, 17 * max(lengths) + 4)).astype(dtype) for dtype in DTYPES
    }
    for dtype, length, stride, other, offset in layouts(lengths):
        inputs = [strided(row, length, stride) for row in numbers[dtype]]
        expected = ufunc(*(np.ascontiguousarray(a) for a in inputs)).astype(dtype)
        # transcendental functions may round differently in loops for strides
        tolerance = 8 * np.finfo(dtype).eps
        step = stride if other is None else other
        base = np.full((length - 1) * abs(step) + 1 + 2 * offset, 7, dtype)
        out, whole = strided(base, length, step, offset), np.full(base.shape, 7, dtype)
        strided(whole, length, step, offset)[:] = expected
        if other is None:
            out[:] = inputs[0]
            inputs[0] = out
        ufunc(*inputs, out=out, casting="unsafe")
        same = (
            (base == whole)
            | (np.abs(base - whole) <= tolerance * np.abs(whole))
            | (np.isnan(base) & np.isnan(whole))
        )
        if not same.all():
            found.append(f"{dtype.__name__}, {length} elements, strides {stride} to {other}, offset {offset}")
    return found


def test_the_source_is_read():
    """A walk that finds nothing would test nothing."""
    found = used()
    assert {"exp", "multiply", "subtract", "tanh", "matmul", "vecdot"} <= found["names"]
    assert {"exp", "multiply", "subtract", "matmul"} <= found["with out"]
    assert {"add", "subtract", "multiply", "divide"} <= found["in place"]


@pytest.mark.parametrize("name", slow_but(used()["with out"] | used()["in place"], elementwise()))
def test_no_layout_is_wrong(name):
    assert not wrong(getattr(np, name))


@pytest.mark.slow
def test_those_that_err_are_known():
    """Of all ufuncs of floats that NumPy has: the list of those that may not be used is as long as it has to be."""
    with np.errstate(all="ignore"):
        erring = {name for name in dir(np) if takes_floats(name) and wrong(getattr(np, name), (3, 9))}
    assert erring <= DENIED
    assert not erring & set(elementwise())


def test_those_that_err_are_not_used():
    assert not DENIED & used()["names"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_negation_is_right(dtype):
    """`negated` where `np.negative` errs, and the minus sign, whose result NumPy lays out itself."""
    wide = np.arange(1, 3 * 40 + 1, dtype=dtype).reshape(3, 40)
    for columns in range(1, 20):
        for width in (1, 2, 3):
            a = wide[:, :columns].copy()[:, : min(width, columns)]
            expected = np.subtract(0, np.ascontiguousarray(a))
            out = np.zeros((3, 4), dtype)[:, : a.shape[1]]
            np.testing.assert_array_equal(negated(a, out), expected)
            np.testing.assert_array_equal(-a, expected)
            np.testing.assert_array_equal(negated(out, out), a)
            assert np.signbit(negated(np.zeros(1, dtype)))[0]


# what is no ufunc of elements: products, reductions, copies


def into(result: np.ndarray, call) -> np.ndarray:
    """What a call writes into columns of a wider array; it may touch no other."""
    wide = np.full((len(result), 2 * result.shape[1] + 3), 7, result.dtype)
    call(wide[:, 1 : 1 + result.shape[1]])
    assert (wide[:, 0] == 7).all()
    assert (wide[:, 1 + result.shape[1] :] == 7).all()
    return wide[:, 1 : 1 + result.shape[1]]


def product(a: np.ndarray) -> np.ndarray:
    """A matrix with as many rows as `a` has columns."""
    return np.arange(1, 1 + 3 * a.shape[1], dtype=a.dtype).reshape(3, -1).T


# each as a function of rows, by a plain formula on contiguous float64, and what it is with an `out`
OTHERS = {
    "vecdot": (lambda a: (a * a).sum(1)[:, None], lambda a, out: np.vecdot(a, a, out=out[:, 0])),
    "matmul": (
        lambda a: np.array([row @ product(a) for row in a]),
        lambda a, out: np.matmul(a, product(a), out=out),
    ),
    "clip": (lambda a: np.minimum(np.maximum(a, 0.3), 0.6), lambda a, out: np.clip(a, 0.3, 0.6, out=out)),
    "concatenate": (lambda a: a, lambda a, out: np.concatenate([a], axis=1, out=out)),
    "assignment": (lambda a: a, lambda a, out: out.__setitem__(..., a)),
    "sum": (lambda a: np.array([[sum(row)] for row in a]), lambda a, out: a.sum(axis=1, out=out[:, 0])),
    "max": (lambda a: np.array([[max(row)] for row in a]), lambda a, out: a.max(axis=1, out=out[:, 0])),
    "argmax": (
        lambda a: np.array([[list(row).index(max(row))] for row in a]),
        lambda a, out: out.__setitem__((..., 0), a.argmax(axis=1, out=np.zeros((len(a), 2), np.intp)[:, 0])),
    ),
}


def test_everything_with_an_out_is_tested():
    assert {name for name in used()["with out"] if not takes_floats(name)} <= set(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_of_wider_arrays_are_read_and_written(name, dtype):
    plain, call = OTHERS[name]
    rng = np.random.default_rng(0)
    for columns in range(1, 18):
        for width in (1, 2, 3, columns):
            for rows in (1, 3, 9):
                a = rng.uniform(0.1, 0.9, (rows, columns)).astype(dtype)[:, : min(width, columns)]
                expected = plain(np.ascontiguousarray(a, np.float64))
                found = into(expected.astype(dtype), lambda out, a=a: call(a, out))
                np.testing.assert_allclose(found, expected, rtol=64 * np.finfo(dtype).eps)
