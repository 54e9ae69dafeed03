"""A table that is gone through part by part, whatever it is kept in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from altmin_dask.errors import AltMinError, DataError
from altmin_dask.storage.remote import reason

if TYPE_CHECKING:
    import pandas as pd


PARSED = 6
"""Times the bytes of a part that are held while it becomes numbers: it, text or pages that it is parsed from and where
each field begins in them, both of which pandas takes up to twice as much for as it needs, and a copy in float64."""


FIRST = 3
"""Rows that are named of those that are refused."""


class Table(Protocol):
    """Rows with named columns, of which a part at a time is in memory."""

    @property
    def names(self) -> list[str]:
        """The columns, in order."""
        ...

    @property
    def written(self) -> bool:
        """Whether all values are text, from which pandas makes numbers where it can, part by part."""
        ...

    @property
    def literal(self) -> Collection[str]:
        """Columns in which words that stand for missing values elsewhere are values."""
        ...

    def parts(
        self,
        columns: Sequence[str],
        text: Collection[str] = (),
        words: Collection[str] = (),
        first: int | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Some columns, a part after the other.

        Where all values are text, those in `text` are as they are written; words that stand for missing values are left
        in those in `words`; and where only the `first` rows are wanted, no more are read.
        """
        ...

    def as_written(self, columns: Sequence[str], first: int | None = None) -> Iterator[pd.DataFrame]:
        """Some columns with values as they stand there: not made numbers, nor cut to those of NumPy.

        Where all values are text, and only the `first` rows are wanted, no more are read.
        """
        ...

    def where(self, rows: Sequence[int]) -> str:
        """Where rows are, counted from 0 over all parts, as somebody finds them who looks at the table."""
        ...


class DaskTable:
    """A dataframe of dask, a partition after the other."""

    written = False
    literal = ()

    def __init__(self, frame: Any) -> None:
        self._frame = frame.copy()
        self._frame.columns = self.names = [str(column) for column in frame.columns]

    def parts(
        self,
        columns: Sequence[str],
        text: Collection[str] = (),
        words: Collection[str] = (),
        first: int | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Compute them in this thread."""
        for part in self._frame[list(columns)].to_delayed():
            yield part.compute(scheduler="sync")

    def as_written(self, columns: Sequence[str], first: int | None = None) -> Iterator[pd.DataFrame]:
        """The same."""
        return self.parts(columns)

    def where(self, rows: Sequence[int]) -> str:
        """By their numbers."""
        return f"{numbered('row', rows)}, counted from 0"


def numbered(what: str, numbers: Sequence[int]) -> str:
    """Numbers of rows or lines in words, such as "lines 6 and 9"."""
    *others, last = map(str, numbers)
    return f"{what}{'s' if others else ''} {', '.join(others)}{' and ' * bool(others)}{last}"


def first_missing(table: Table, name: str, columns: Sequence[str], text: Collection[str] = ()) -> str:
    """Where the first rows are that lack a value in some of the columns; the table is gone through up to there."""
    as_text = [each for each in columns if each in text]
    return _first(table, name, columns, as_text, lambda part: part[list(columns)].isna().any(axis=1))


def first_with(table: Table, name: str, column: str, words: Collection[str]) -> str:
    """Where the first rows are that have some words in a column; the table is gone through up to there."""
    return _first(table, name, [column], [column], lambda part: part[column].isin(list(words)))


def _first(
    table: Table,
    name: str,
    columns: Sequence[str],
    text: Collection[str],
    odd: Callable[[pd.DataFrame], pd.Series[bool]],
) -> str:
    found: list[int] = []
    row, more = 0, False
    for part in readable(name, table.parts(columns, text=text)):
        places = odd(part).to_numpy().nonzero()[0]
        more = len(places) > FIRST - len(found)
        found += [row + int(place) for place in places[: FIRST - len(found)]]
        row += len(part)
        if more:
            break
    where = table.where(found) if found else ""
    return f"{where}, and more" if more else where


@dataclass
class Largest:
    """The largest of the parts that a table has been gone through in.

    Attributes
    ----------
    rows, nbytes : int
        Of it.
    """

    rows: int = 0
    nbytes: int = 0

    def add(self, part: pd.DataFrame) -> None:
        """Take note of a part."""
        if (
            len(part) > self.rows
        ):  # others are of fewer bytes, about: of tens of thousands of columns it takes long
            self.rows, self.nbytes = len(part), int(part.memory_usage(index=False).sum())

    def reading_bytes(self, share: float, width: int, learning: int) -> int:
        """Memory that going through a table takes: what is parsed, and numbers of two parts, held for a while.

        Parameters
        ----------
        share : float
            Of the columns that are parsed, those that are wanted.
        width : int
            Numbers that are made of a row.
        learning : int
            What is held, before any numbers are made, of what the columns hold.
        """
        return round(PARSED * self.nbytes / share) + max(2 * 8 * self.rows * width, learning)


def readable(name: str, parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Turn whatever pandas and pyarrow raise of a damaged file into a `DataError` that names the table."""
    try:
        yield from parts
    except AltMinError:
        raise
    except Exception as error:
        raise unreadable(name, error) from error


def unreadable(name: str, error: Exception) -> DataError:
    """What is said of whatever pandas and pyarrow raise of a damaged file."""
    if isinstance(error, PermissionError):
        return DataError(f"{name} cannot be read: permission denied; change its permissions")
    advice = ""
    if isinstance(error, UnicodeError):
        advice = "; if it is not UTF-8, say what it is by --csv encoding=latin-1 (utf-16, …)"
    return DataError(f"{name} cannot be read as a table: {reason(error)}{advice}")


class Walk:
    """Goes through the parts of a table for several that need them side by side, reading each of them once.

    Parameters
    ----------
    opened : callable
        Gives the parts from the first on.
    made : callable
        What is made of each.
    rows : int
        How many there are in all.
    name : str
        What messages call the table.
    """

    def __init__(
        self,
        opened: Callable[[], Iterator[pd.DataFrame]],
        made: Callable[[pd.DataFrame], Any],
        rows: int,
        name: str,
    ) -> None:
        self._opened, self._made, self._rows, self._name = opened, made, rows, name
        self._parts: Iterator[pd.DataFrame] = iter(())
        self._next = self._walks = 0
        self._held: dict[int, Any] = {}
        self._under_way = 0
        self._lock = Lock()

    def stream(self) -> Iterator[Any]:
        """What is made of the parts, in order; streams of several threads may be under way."""
        seen = 0
        with self._counted():
            for found in self._found():
                seen += len(found[0])
                yield found
        if seen != self._rows:
            raise DataError(
                f"{self._name} had {self._rows} rows and has {seen} now; it has changed meanwhile"
            )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Hold parts only while somebody is under way: whoever knows a table may keep it for long."""
        with self._lock:
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                if not self._under_way:
                    self._held, self._parts, self._next = {}, iter(()), 0

    def _found(self) -> Iterator[Any]:
        walk = -1
        for number in count():
            with self._lock:
                if number not in self._held and number == 0:
                    self._parts, self._held, self._next = self._opened(), {}, 0
                    self._walks += 1
                walk = self._walks if number == 0 else walk
                if number not in self._held and (walk, number) != (self._walks, self._next):
                    break
                found = self._at(number)
            if found is None:
                return
            yield found
        # somebody has begun anew: who was on the way goes on alone
        yield from map(self._made, islice(self._opened(), number, None))

    def _at(self, number: int) -> Any:
        if number not in self._held:
            part = next(self._parts, None)
            self._next += 1
            # two: who comes second may still be with the part before
            self._held = {each: made for each, made in self._held.items() if each == number - 1}
            self._held[number] = None if part is None else self._made(part)
        return self._held[number]
