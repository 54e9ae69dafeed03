"""Text that is read as a missing value, as NA is, where it may well be one: told, with counts, of columns of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from altmin_dask.data.tables.kinds import TEXT, kind_of
from altmin_dask.data.tables.parts import Table, readable
from altmin_dask.errors import warn

if TYPE_CHECKING:
    import pandas as pd

WORDS = (
    *("NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "None", "NULL", "null", "<NA>"),
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"),
)
"""What pandas reads as missing values, besides nothing; listed here, so that a model reads files alike for ever."""
_FIRST = 100
"""Rows by which columns of text are known before a table is gone through; others are gone through again (chosen)."""
_SHOWN = 5


class MissingWords:
    """Counts such words in columns of text that is written, unless they are values there.

    Attributes
    ----------
    columns : list of str
        Those of which parts are to have the words, for `taken`.
    counts : dict of Counter
        Rows that have them, by columns and words.
    """

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self._table = table
        self.counts: dict[str, Counter[str]] = {}
        self.again(columns)

    @classmethod
    def of(cls, table: Table, name: str, columns: Sequence[str]) -> MissingWords:
        """Of those columns that are text in the first rows, where all values of a table are written."""
        part = next(readable(name, table.parts(columns, first=_FIRST)), None) if table.written else None
        if part is None:
            return cls(table, ())
        others = [place for place, dtype in enumerate(part.dtypes) if dtype.kind not in "biuf"]
        return cls(table, [columns[place] for place in others if kind_of(part.iloc[:, place], name) == TEXT])

    def taken(self, part: pd.DataFrame) -> pd.DataFrame:
        """A part with nothing in place of the words, which are counted."""
        for column in self.columns:
            values = part[column]
            if values.dtype.kind in "biuf":
                continue
            odd = values.isin(WORDS)
            if odd.any():
                self.counts.setdefault(column, Counter()).update(values[odd].value_counts().to_dict())
                part = part.assign(**{column: values.mask(odd)})
        return part

    def again(self, columns: Sequence[str]) -> None:
        """Look for words in other columns, and in these from the first row on."""
        may = columns if self._table.written else ()
        self.columns = [column for column in may if column not in self._table.literal]
        self.counts = {column: counts for column, counts in self.counts.items() if column not in self.columns}


def warn_of_words(found: Mapping[str, Mapping[str, int]], name: str) -> None:
    """Tell of words in columns of text, and how they are read as what they say.

    Parameters
    ----------
    found : mapping
        Rows that have them, by columns and words.
    name : str
        What messages call the table.
    """
    if not found:
        return
    told = [f"{_listed(words)} of the column {column!r}" for column, words in list(found.items())[:_SHOWN]]
    more = f" and {len(found) - _SHOWN} more columns" if len(found) > _SHOWN else ""
    sayable = [column for column in found if "," not in column]  # which is between several on a command line
    option = f"--csv {quote('literal=' + ','.join(sayable))} (data.csv.literal of a pipeline)"
    warn(
        f"{name} has text that is taken for missing values: {'; '.join(told)}{more}; if these are values, as NA is of "
        f"countries, say so by {option if sayable else 'data.csv.literal of a pipeline'}"
    )


def _listed(words: Mapping[str, int]) -> str:
    first = sorted(words, key=lambda word: (-words[word], word))
    more = ", …" if len(words) > _SHOWN else ""
    rows = sum(words.values())
    return f"{', '.join(map(repr, first[:_SHOWN]))}{more} in {rows} row{'s' * (rows > 1)}"
