"""Exact medians of columns that need not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from altmin_dask.types import Array

HELD_BYTES = 256 << 20
"""Of columns in float64 that are held at once (chosen, not measured); a single one that is larger is counted."""
_STEP = 16
"""Bits of a number that one pass tells apart."""


def medians(
    columns: Sequence[str], counts: Sequence[int], blocks: Callable[[Sequence[str]], Iterator[Array]]
) -> list[float]:
    """The medians of columns, as NumPy has them.

    Parameters
    ----------
    columns : sequence of str
        Which.
    counts : sequence of int
        How many values each has, at least 1.
    blocks : callable
        ``blocks(columns)`` goes through blocks of rows of them, (rows, columns) in float64, NaN for missing ones.
    """
    found: dict[str, float] = {}
    group: list[str] = []
    held = 0
    sizes = dict(zip(columns, counts, strict=True))
    for column in columns:
        size = 8 * sizes[column]
        if size > HELD_BYTES:
            found[column] = _counted(sizes[column], lambda column=column: blocks([column]))  # type: ignore[misc]
            continue
        if held + size > HELD_BYTES:
            found |= _held(group, sizes, blocks)
            group, held = [], 0
        group.append(column)
        held += size
    found |= _held(group, sizes, blocks)
    return [found[column] for column in columns]


def _held(
    columns: Sequence[str], sizes: dict[str, int], blocks: Callable[[Sequence[str]], Iterator[Array]]
) -> dict[str, float]:
    """Medians of columns that are held together."""
    if not columns:
        return {}
    values = [np.empty(sizes[column]) for column in columns]
    places = [0] * len(columns)
    for block in blocks(columns):
        for number, column in enumerate(block.T):
            some = column[~np.isnan(column)]
            values[number][places[number] : places[number] + len(some)] = some
            places[number] += len(some)
    return {
        column: float(np.median(own, overwrite_input=True))
        for column, own in zip(columns, values, strict=True)
    }


def _counted(count: int, blocks: Callable[[], Iterator[Array]]) -> float:
    """The median of one column: of the numbers in the middle 16 bits after the other are found, by counting."""
    ranks = {(count - 1) // 2, count // 2}
    return float(np.mean([_ranked(rank, blocks) for rank in sorted(ranks)]))


def _ranked(rank: int, blocks: Callable[[], Iterator[Array]]) -> float:
    prefix, known = 0, 0
    for shift in range(64 - _STEP, -1, -_STEP):
        histogram = np.zeros(1 << _STEP, np.int64)
        for block in blocks():
            keys = _ordered(block[:, 0])
            if known:
                keys = keys[keys >> np.uint64(64 - known) == np.uint64(prefix)]
            digits = (keys >> np.uint64(shift)) & np.uint64((1 << _STEP) - 1)
            histogram += np.bincount(digits.astype(np.int64), minlength=1 << _STEP)
        below = np.cumsum(histogram)
        digit = int(np.searchsorted(below, rank, side="right"))
        rank -= int(below[digit] - histogram[digit])
        prefix, known = prefix << _STEP | digit, known + _STEP
    return _number(prefix)


def _ordered(values: Array) -> Array:
    """Numbers as uint64 of the same order: all bits of negative ones turned, and the sign of the others."""
    some = values[~np.isnan(values)] + 0.0  # −0 is 0
    bits = some.view(np.uint64)
    return np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(1 << 63))


def _number(key: int) -> float:
    bits = key & ~(1 << 63) if key >> 63 else ~key & (1 << 64) - 1
    return float(np.array(bits, np.uint64).view(np.float64))
