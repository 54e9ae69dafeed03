"""Blocks of rows that come from elsewhere: cut anew, or changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from altmin_dask.data.readers import RowReader
from altmin_dask.types import Array


def regrouped(pieces: Iterable[Array], rows: int) -> Iterator[Array]:
    """The same rows in blocks of `rows`, the last of which may be shorter."""
    held: list[Array] = []
    count = 0
    for piece in pieces:
        while count + len(piece) >= rows:
            taken = rows - count
            yield np.concatenate([*held, piece[:taken]]) if held else piece[:taken]
            piece, held, count = piece[taken:], [], 0
        if len(piece):
            held.append(piece)
            count += len(piece)
    if held:
        yield np.concatenate(held)


def mapped(reader: RowReader, function: Callable[[Array], Array], dtype: Any) -> RowReader:
    """Every block through a function that keeps its shape."""
    return replace(
        reader, dtype=np.dtype(dtype), blocks=lambda rows: (function(block) for block in reader.blocks(rows))
    )


def shaped(reader: RowReader, shape: Sequence[int]) -> RowReader:
    """The same samples in another shape of as many values."""
    blocks = mapped(reader, lambda block: block.reshape(len(block), *shape), reader.dtype)
    return replace(blocks, shape=(reader.shape[0], *shape))


def along(reader: RowReader, values: Array, function: Callable[[Array, Array], Array]) -> RowReader:
    """Every block, with the values of its rows, through a function that keeps its shape."""

    def blocks(rows: int) -> Iterator[Array]:
        start = 0
        for block in reader.blocks(rows):
            yield function(block, values[start : start + len(block)])
            start += len(block)

    return replace(reader, blocks=blocks)


def sliced(values: Array, label: str) -> RowReader:
    """Read an array in memory, of any dtype."""
    return RowReader(
        label,
        values.shape,
        values.dtype,
        lambda rows: (values[i : i + rows] for i in range(0, len(values), rows)),
    )
