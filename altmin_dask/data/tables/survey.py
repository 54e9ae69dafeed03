"""What the columns of a table hold, found by going through all rows once, a part at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.data.checks import WHOLE as TOO_LARGE
from altmin_dask.data.checks import whole_refused
from altmin_dask.data.tables.compact_dates import LEAST, look_like_dates
from altmin_dask.data.tables.kinds import (
    BOOLEAN,
    DAY,
    DECIMAL,
    EMPTY,
    LIST,
    MOMENT,
    NUMBERS,
    TEXT,
    WHOLE,
    joined,
    kind_of,
)
from altmin_dask.data.tables.numbering import Numbering
from altmin_dask.data.tables.parts import Largest, Table, readable
from altmin_dask.data.tables.sums import ExactSums
from altmin_dask.data.tables.values import days, texts
from altmin_dask.data.tables.words import MissingWords
from altmin_dask.data.tables.zones import zones_of
from altmin_dask.errors import DataError
from altmin_dask.table_options import left_out
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd

MOST = 1_000_000
"""Different values of a column of text that are counted: more tell rows apart, not kinds."""
VALUE_BYTES = 150
"""Of each, about: of a word, and of its place in a dictionary."""
_WHOLE = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_BITS = {"b": BOOLEAN, "i": WHOLE, "u": WHOLE, "f": DECIMAL}


class Survey:
    """What is found of some columns.

    Attributes
    ----------
    rows : int
        How many there are.
    missing : ndarray of int, (columns,)
        Rows without a value.
    counts : dict of Counter
        Rows that have a value, of columns of text, by values.
    sizes : dict of int
        Of columns of lists: how long the first one is.
    zones : dict of Counter
        Rows of each time zone, of columns of dates.
    largest : Largest
        Of its parts.
    """

    def __init__(self, table: Table, name: str, columns: Sequence[str]) -> None:
        self.columns, self._name = list(columns), name
        self.rows = 0
        self.missing = np.zeros(len(columns), np.int64)
        self._bits = np.zeros(len(columns), np.int64)
        self._sums = ExactSums(len(columns))
        self._low, self._high = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
        self.counts: dict[str, Counter[str]] = {}
        self.sizes: dict[str, int] = {}
        self.zones: dict[str, Counter[str]] = {}
        self.largest = Largest()
        self._numbering, self._dated = Numbering(self.columns), np.ones(len(columns), bool)
        self._place = {column: place for place, column in enumerate(self.columns)}
        self._words = MissingWords.of(table, name, self.columns)
        for part in readable(name, table.parts(self.columns, words=self._words.columns)):
            self._add(self._words.taken(part))
        if self.rows == 0:
            raise DataError(f"{name} has no rows; give it at least one sample")
        self.kinds = self._joined(table.written)
        self.zones = {column: zones for column, zones in self.zones.items() if self.kinds[column] == "dates"}
        self._count_again(table)
        if table.written:
            self._check_digits(table)

    def counted_bytes(self) -> int:
        """What the values that are counted take, about."""
        return VALUE_BYTES * sum(map(len, self.counts.values()))

    def missing_of(self, column: str) -> int:
        """Rows without a value."""
        return int(self.missing[self._place[column]])

    @property
    def words(self) -> dict[str, Counter[str]]:
        """Rows of text that is taken for missing values, by columns of text."""
        return {column: self._words.counts[column] for column in self.counts if column in self._words.counts}

    def mean_of(self, column: str) -> float:
        """Of numbers, or of dates in days."""
        place = self._place[column]
        return float(self._sums.of(place) / (self.rows - self.missing[place]))

    def range_of(self, column: str) -> tuple[float, float]:
        """The least and the largest value of numbers, or of dates in days."""
        place = self._place[column]
        return float(self._low[place]), float(self._high[place])

    def numbers_rows(self, column: str) -> bool:
        """Whether a column of whole numbers has one for each row, which says nothing of others."""
        place = self._place[column]
        return bool(self._bits[place] == WHOLE) and self._numbering.counts(place)

    def looks_like_dates(self, column: str) -> bool:
        """Whether a column of numbers has nothing but dates of eight digits."""
        place = self._place[column]
        rows = self.rows - self.missing[place]
        return self.kinds[column] in ("integers", "numbers") and bool(self._dated[place]) and rows >= LEAST

    def is_of_several_types(self, column: str) -> bool:
        """Whether a column is text in some parts of a table with types, and numbers in others."""
        bits = int(self._bits[self._place[column]])
        return bool(bits & (TEXT | DAY)) and bool(bits & NUMBERS)

    def is_truth(self, column: str) -> bool:
        """Whether all values are truth values."""
        return bool(self._bits[self._place[column]] == BOOLEAN)

    def _joined(self, written: bool) -> dict[str, str]:
        """What the columns hold over all parts."""
        kinds = {
            column: joined(int(bits), written=written)
            for column, bits in zip(self.columns, self._bits, strict=True)
        }
        for column, kind in kinds.items():
            if kind == "mixed":
                raise DataError(
                    f"{self._name} has values of different kinds in the column {column!r}; {left_out(column)}"
                )
        return kinds

    def _add(self, part: pd.DataFrame) -> None:
        self.largest.add(part)
        self.rows += len(part)
        if not len(part):
            return
        kinds = np.array([dtype.kind if isinstance(dtype, np.dtype) else "O" for dtype in part.dtypes])
        for letter, bit in _BITS.items():
            places = np.flatnonzero(kinds == letter)
            if places.size:
                self._add_numbers(part.iloc[:, places], places, bit)
        for place in np.flatnonzero(~np.isin(kinds, list(_BITS))):
            self._add_other(part.iloc[:, place], int(place))

    def _add_numbers(self, part: pd.DataFrame, places: Any, bit: int) -> None:
        """Many columns at once: there may be tens of thousands."""
        values = part.to_numpy(dtype=np.float64)
        missing = np.zeros(len(places), np.int64)
        if np.isnan(values.min()):
            missing = np.isnan(values).sum(axis=0)
        self.missing[places] += missing
        self._bits[places] |= np.where(missing == len(values), EMPTY, bit)
        self._measure(places, values)

    def _measure(self, places: Any, values: Array) -> None:
        """Take note of the sums and ranges of numbers, (rows, columns), and of those that count rows or are dates."""
        self._numbering.add(places, values)
        places = np.asarray(places)
        if (still := np.flatnonzero(self._dated[places])).size:  # of most columns the first part has told
            self._dated[places[still]] = look_like_dates(values[:, still])
        low = values.min(axis=0)
        if np.isnan(low).any():
            self._sums.add(places, np.where(np.isnan(values), 0, values))
            low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
        else:
            self._sums.add(places, values)
            high = values.max(axis=0)
        self._low[places] = np.fmin(self._low[places], low)
        self._high[places] = np.fmax(self._high[places], high)

    def _add_other(self, values: pd.Series[Any], place: int) -> None:
        kind = kind_of(values, self._name)
        self.missing[place] += int(values.isna().sum())
        self._bits[place] |= kind
        column = self.columns[place]
        if kind in (DAY, MOMENT):
            self._measure([place], days(values, self._name)[:, None])
            self.zones.setdefault(column, Counter()).update(zones_of(values))
        if kind in (TEXT, DAY):
            self._count(column, values)
        elif kind == LIST:
            self.sizes.setdefault(column, len(values.dropna().iloc[0]))
        elif kind not in (EMPTY, MOMENT):
            self._measure([place], values.to_numpy(dtype=np.float64, na_value=np.nan)[:, None])

    def _count(self, column: str, values: pd.Series[Any]) -> None:
        counts = self.counts.setdefault(column, Counter())
        if len(counts) > MOST:  # of dates, whose values are of no interest
            return
        codes, distinct = texts(values)
        found = np.bincount(codes[codes >= 0], minlength=len(distinct))
        for value, count in zip(distinct, found.tolist(), strict=True):
            counts[value] += count

    def _check_digits(self, table: Table) -> None:
        """Refuse whole numbers that float64 does not hold, which a missing value beside them made floats of."""
        sizes = np.fmax(np.abs(self._low), np.abs(self._high))  # of none: infinite
        limits = {"numbers": TOO_LARGE, "integers": 2**64}  # smaller ones are whole where they are read
        columns = [
            column
            for column, size in zip(self.columns, sizes, strict=True)
            if limits.get(self.kinds[column], np.inf) <= size < np.inf
        ]
        if not columns:
            return
        for part in readable(self._name, table.parts(columns, text=columns)):
            for column in columns:
                whole = [text for text in map(str, part[column].dropna().unique()) if _WHOLE.fullmatch(text)]
                if large_ones := [text for text in whole if abs(int(text)) >= TOO_LARGE]:
                    raise whole_refused(f"the column {column!r} of {self._name}", int(large_ones[0]))

    def _count_again(self, table: Table) -> None:
        """Count the values of columns that are text, but were read as something else in some part.

        Those whose words for missing values were not looked for, too: it was not known that they are text.
        """
        text = [column for column, kind in self.kinds.items() if kind == "text"]
        known = {*self._words.columns, *table.literal} if table.written else {*text}
        again = [
            column
            for column in text
            if self._bits[self._place[column]] & ~(TEXT | DAY)
            or (column not in known and self.missing_of(column))
        ]
        if again:
            self.counts |= {column: Counter() for column in again}
            self._words.again(again)
            for part in readable(self._name, table.parts(again, text=again, words=self._words.columns)):
                part = self._words.taken(part)
                for column in again:
                    self._count(column, part[column])
        self.counts = {column: self.counts[column] for column in text}
        for column, counts in self.counts.items():
            if len(counts) > MOST:
                raise DataError(
                    f"{self._name} has more than {MOST} values in the column {column!r}, which tell rows apart rather "
                    f"than kinds of them; {left_out(column)}"
                )
