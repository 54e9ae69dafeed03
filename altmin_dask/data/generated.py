"""Samples that are made on the way: their settings as ``key=value,…``, and values made in blocks of rows.

Every block has a random stream of its own, so that samples do not depend on how they are read, and the first rows of
a longer set are those of a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from altmin_dask.data.readers import RowReader
from altmin_dask.errors import DataError
from altmin_dask.types import Array

PARTS = {None: 0, "train": 0, "test": 1}
"""Samples of another part are others of the same kind."""


def made_in_blocks(
    label: str,
    rows: int,
    block_rows: int,
    sample: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Callable[[int, Array], None],
) -> RowReader:
    """Read rows that ``fill(block, out)`` makes, `block_rows` at a time, whatever blocks are asked for."""

    def blocks(wanted: int) -> Iterator[Array]:
        made, kept = -1, np.empty(0, dtype)
        for start in range(0, rows, wanted):
            values = np.empty((min(wanted, rows - start), *sample), dtype)
            row = start
            while row < start + len(values):
                block, offset = divmod(row, block_rows)
                target = values[row - start : row - start + block_rows - offset]
                if len(target) == block_rows:
                    fill(block, target)
                else:  # a block's stream is always used whole, or what follows would depend on the cut
                    if made != block:
                        kept = np.empty((block_rows, *sample), dtype)
                        fill(block, kept)
                        made = block
                    target[...] = kept[offset : offset + len(target)]
                row += len(target)
            yield values
            del values  # or it would live on while the next one is made

    return RowReader(label, (rows, *sample), dtype, blocks)


def parse_settings(
    text: str, keys: Sequence[str], needed: Sequence[str], refused: Callable[[str], DataError]
) -> dict[str, str]:
    """Take ``key=value,key=value`` apart.

    Raises
    ------
    DataError
        If a key is unknown, missing or given twice; made by `refused`.
    """
    found: dict[str, str] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        key, equals, value = (piece.strip() for piece in word.partition("="))
        if not equals or not value:
            raise refused(f"{word!r} is not of the form key=value")
        if key not in keys:
            raise refused(f"{key} is not one of {', '.join(keys)}")
        if key in found:
            raise refused(f"{key} is given twice")
        found[key] = value
    for key in needed:
        if key not in found:
            raise refused(f"{key} is missing")
    return found


def parse_whole(key: str, text: str, least: int, refused: Callable[[str], DataError]) -> int:
    """Understand a whole number such as 60000 or 1e6.

    Raises
    ------
    DataError
        If it is none, or less than `least`; made by `refused`.
    """
    try:
        number = Decimal(text)
        # exponents first: to make an int of 1e999999999 takes for ever
        if not number.is_finite() or number.adjusted() > 18 or number != int(number):
            raise ValueError
    except (InvalidOperation, ValueError):
        raise refused(f"{key} is {text}, not a whole number") from None
    if number < least:
        raise refused(f"{key} is {text}, less than {least}")
    return int(number)
