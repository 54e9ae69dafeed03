"""Samples that are made on the way: their settings as ``key=value,…``, and values made in blocks of rows.

Every block has a random stream of its own, so that samples do not depend on how they are read, and the first rows of
a longer set are those of a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

import numpy as np

from altmin_dask.data.formats.base import SourceOptions, SourceSpec
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.errors import DataError
from altmin_dask.types import Array

PARTS = {None: 0, "train": 0, "test": 1}
"""Samples of another part are others of the same kind."""


class Generator(Protocol):
    """Samples that can be made."""

    def readers(self, name: str) -> tuple[RowReader, RowReader | None]:
        """X and the targets of samples that messages call so."""
        ...


@dataclass(frozen=True)
class GeneratedFormat:
    """Samples that are named ``WORD:key=value,…``, with others of the same kind for ``:test``.

    Attributes
    ----------
    word : str
        With which their names begin.
    parse : callable
        ``parse(settings, split)`` understands the rest.
    """

    word: str
    parse: Callable[[str, str | None], Generator]

    @property
    def known_as(self) -> str:
        """The word with what follows it."""
        return f"`{self.word}:…`"

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the word."""
        return spec.base == self.word or spec.base.startswith(f"{self.word}:")

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Take the settings apart; samples are made when they are read."""
        options.refuse_names(spec.base)
        settings = spec.base.removeprefix(self.word).removeprefix(":")
        return Source(spec.name, *self.parse(settings, spec.split).readers(spec.name))


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


def whole_numbers(
    found: Mapping[str, str], least: Mapping[str, int], refused: Callable[[str], DataError]
) -> dict[str, int]:
    """Understand those settings that are whole numbers, such as 60000 or 1e6.

    Raises
    ------
    DataError
        If one is none, or less than the `least` it may be; made by `refused`.
    """
    return {
        key: _whole(key, found[key], at_least, refused) for key, at_least in least.items() if key in found
    }


def _whole(key: str, text: str, least: int, refused: Callable[[str], DataError]) -> int:
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
