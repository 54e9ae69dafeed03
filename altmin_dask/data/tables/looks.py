"""Text that was likely meant to be something else: it is taken for categories, and that is told, with the remedy."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from shlex import quote

import numpy as np

from altmin_dask.data.tables.kinds import undated
from altmin_dask.data.tables.parts import Table, readable
from altmin_dask.data.tables.survey import Survey
from altmin_dask.data.tables.values import is_number
from altmin_dask.errors import DataError, warn
from altmin_dask.table_options import left_out

MANY_NUMBERS = 10
"""Different numbers in a column of text from which on they are not likely to be names (chosen, not measured)."""
MANY_NAMES, NAMES_SHARE = 50, 0.9
"""So many different values, and so large a share of the rows, tell rows apart (chosen, not measured)."""
_SHOWN = 5
_TRUTH = {"true": "1", "false": "0"}
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s?[ap]\.?m\.?)?"
_DATE_LIKE = re.compile(
    rf"(?:{_CLOCK}|(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{4}}|\d\d?/\d\d?/\d\d"
    rf"|\d{{1,2}}[ -]{_MONTH}[ -]\d{{2,4}}|{_MONTH} \d{{1,2}},? \d{{4}})(?:[T ,]+{_CLOCK}\S*)?)",
    re.IGNORECASE | re.ASCII,
)
_NUMBER_LIKE = re.compile(
    r"['\"]?\(?[-+−]?[$€£¥]?\s?[-+−]?(?:\d{1,3}(?:[,.' \u00a0\u202f]\d{3})+|\d+)(?:[.,]\d+)?\s?[%$€£¥]?\)?['\"]?",
    re.ASCII,
)
_THOUSANDS = re.compile(r"[-+−]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_WITH_UNIT = re.compile(r"[-+−]?\d+(?:[.,]\d+)?\s?(?P<unit>[^\W\d_]{1,4}|°[CFK]?)")


def warn_of_looks(
    column: str, counts: Counter[str], name: str, *, written: bool, where: Callable[[Collection[str]], str]
) -> None:
    """Tell of a column of text whose values look like dates, numbers or truth values, or like one another.

    Parameters
    ----------
    column : str
        What it is called.
    counts : Counter
        Rows of each of its values.
    name : str
        What messages call the table.
    written : bool
        Whether all values of the table are text, from which numbers were made where that was possible.
    where : callable
        Says where the first rows are that have some of its values.
    """
    told = (
        _of_truth(counts) or _of_dates(counts) or _of_words(counts, where) if written else _of_dates(counts)
    )
    for sentence in (told or _of_numbers(counts) or _of_units(counts), _of_spelling(counts)):
        if sentence is not None:
            warn(f"{name} has {sentence.format(column=repr(column))}")


def warn_of_names(column: str, counts: Counter[str], name: str) -> None:
    """Tell of a column of text that has another value in nearly every row: it says nothing of rows that are new.

    Parameters
    ----------
    column, counts, name : str, Counter, str
        As of `warn_of_looks`.
    """
    rows = sum(counts.values())
    if len(counts) > max(MANY_NAMES, NAMES_SHARE * rows):
        warn(
            f"{name} has {len(counts)} different values in {_rows(rows)} of the column {column!r}, which tell rows "
            f"apart and say nothing of new ones; {_unless_kept(column)}"
        )


def warn_of_numbering(columns: Sequence[str], survey: Survey, name: str) -> None:
    """Tell of an input that numbers the rows, as an index or a customer's number does.

    Parameters
    ----------
    columns : sequence of str
        The inputs.
    survey, name : Survey, str
        What is known of them, and what messages call the table.
    """
    for column in columns:
        if survey.numbers_rows(column):
            warn(
                f"{name} has another number in each row of the column {column!r}, which is likely to number the rows, "
                f"and says nothing of new ones then; {_unless_kept(column)}"
            )


def warn_of_compact_dates(columns: Sequence[str], survey: Survey, name: str) -> None:
    """Tell of inputs that are dates without anything between their digits, and are taken for numbers.

    Parameters
    ----------
    columns, survey, name : sequence of str, Survey, str
        As of `warn_of_numbering`.
    """
    for column in columns:
        if survey.looks_like_dates(column):
            low, _ = survey.range_of(column)
            text = f"{low:.0f}"
            warn(
                f"{name} has dates of eight digits in the column {column!r} ({text}, …), which are taken for numbers, "
                f"in which a month is as long as 100 days: write them as {text[:4]}-{text[4:6]}-{text[6:]}, or "
                f"{left_out(column)}"
            )


def _unless_kept(column: str) -> str:
    return f"{left_out(column)}, which predictions can keep (altmin predict --keep)"


def check_names(table: Table, name: str, survey: Survey) -> None:
    """Refuse rows that say what the columns are called; tell of names that are likely to be a row.

    They are where all columns are text, as a number under a word is no name's, and most have their own name among
    their values.

    Raises
    ------
    DataError
        If the names of all columns that are read stand in a row once more.
    """
    own = [column for column in survey.columns if survey.counts.get(column, Counter())[column]]
    if not own:
        return
    if len(own) == len(survey.columns) and (row := _row_of_names(table, name, own)) is not None:
        raise DataError(
            f"{name} has the names of its columns once more as a row ({table.where([row])}); leave such rows out, or, "
            "if its first line is a row, too, say by --csv header=false that there are no names"
        )
    if not all(map(survey.counts.get, survey.columns)) or 2 * len(own) <= len(survey.columns):
        return
    warn(
        f"{name} has {own[0]!r} among the values of the column {own[0]!r}; if its first line is a row and not names, "
        "say so by --csv header=false (data.csv of a pipeline)"
    )


def _row_of_names(table: Table, name: str, columns: list[str]) -> int | None:
    """The first row in which the columns have their own names."""
    start = 0
    for part in readable(name, table.parts(columns, text=columns)):
        found = np.flatnonzero(
            np.logical_and.reduce([part[column].eq(column).to_numpy(bool) for column in columns])
        )
        if found.size:
            return start + int(found[0])
        start += len(part)
    return None


def _of_truth(counts: Counter[str]) -> str | None:
    """Booleans in some rows, and 0 and 1 in others."""
    words = {value for value in counts if value.casefold() in _TRUTH}
    if not words or not set(counts) - words or not set(counts) - words <= {"0", "1", "0.0", "1.0"}:
        return None
    return (
        f"{_listed(counts)} in the column {{column}}: a category each; write all of them alike in the table"
    )


def _of_dates(counts: Counter[str]) -> str | None:
    """Dates, but not all as ISO 8601 writes them."""
    likely = [value for value in counts if _DATE_LIKE.fullmatch(value)]
    if not _most(likely, counts):
        return None
    odd = {value: counts[value] for value in undated(list(counts))}
    rows = sum(odd.values())
    return (
        f"dates or times in the column {{column}}, but {_listed(odd)} in {_rows(rows)}, not written as 2024-12-31 or "
        "2024-12-31 23:59: all its values are taken for text, one category each; write them so in the table, or name "
        "what stands for missing values by --csv na_values=… (data.csv of a pipeline)"
    )


def _of_words(counts: Counter[str], where: Callable[[Collection[str]], str]) -> str | None:
    """Numbers, but for some words, which may well stand for missing values; or numbers of another decimal sign."""
    words = {value: rows for value, rows in counts.items() if not is_number(value)}
    rows = sum(words.values())
    if not words:  # and yet pandas made none of them
        return (
            f"numbers with a point in the column {{column}}, as {_listed(counts)} in {_rows(sum(counts.values()))}, "
            "which is not the decimal sign that was said: all its values are taken for text, one category each; write "
            "all numbers of the table with one sign, and say which it is by --csv decimal=… (data.csv of a pipeline)"
        )
    if len(counts) - len(words) <= MANY_NUMBERS or 2 * rows > sum(counts.values()):
        return None
    if len(words) > 1 and all(map(_THOUSANDS.fullmatch, words)):
        return (
            f"numbers in the column {{column}}, but {_listed(words)} in {_rows(rows)}, which look like thousands with "
            "commas: all its values are taken for text, one category each; say so by --csv thousands=, (data.csv of a "
            "pipeline)"
        )
    # commas would be between several
    word = next((quote(f"na_values={word}") for word in _first(words) if "," not in word), "na_values=…")
    there = _escaped(f" ({found})" if (found := where(words)) else "")
    return (
        f"numbers in the column {{column}}, but {_listed(words)} in {_rows(rows)}{there}: all its values are taken for "
        f"text, one category each; if those stand for missing values, say so by --csv {_escaped(word)} (data.csv of a "
        "pipeline)"
    )


def _of_numbers(counts: Counter[str]) -> str | None:
    """Numbers with separators, signs of percent or of money."""
    likely = [value for value in counts if _NUMBER_LIKE.fullmatch(value) and not is_number(value)]
    numbers = [value for value in counts if is_number(value)]
    if len(likely) < 2 or not _most([*likely, *numbers], counts):
        return None
    shown = {value: counts[value] for value in likely}
    marked = any(value.strip("0123456789.,' +-") for value in likely)  # % or $, which no option takes away
    how = (
        ""
        if marked
        else ", or say how they are written by --csv thousands=… or decimal=… (data.csv of a pipeline)"
    )
    return (
        f"what looks like numbers in the column {{column}}, as {_listed(shown)} in {_rows(sum(shown.values()))}: all "
        f"its values are taken for text, one category each; write plain numbers in the table{how}"
    )


def _of_units(counts: Counter[str]) -> str | None:
    """Numbers with the same unit behind them."""
    units: defaultdict[str, list[str]] = defaultdict(list)
    for value in counts:
        if found := _WITH_UNIT.fullmatch(value):
            units[found["unit"]].append(value)
    for unit, values in units.items():
        if len(values) > MANY_NUMBERS and _most(values, counts):
            shown = {value: counts[value] for value in values}
            return (
                f"numbers with {unit!r} behind them in the column {{column}}, as {_listed(shown)} in "
                f"{_rows(sum(shown.values()))}: all its values are taken for text, one category each; write plain "
                "numbers in the table"
            )
    return None


def _of_spelling(counts: Counter[str]) -> str | None:
    """Words that differ only in spaces around them, or in capitals."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for value in counts:
        alike[value.strip().casefold()].append(value)
    found = {value: counts[value] for group in alike.values() if len(group) > 1 for value in group}
    if not found:
        return None
    return (
        f"values in the column {{column}} that differ only in spaces or capitals, {_listed(found)} in "
        f"{_rows(sum(found.values()))}: each is a category of its own; write them alike in the table if they are one"
    )


def _most(some: Iterable[str], counts: Counter[str]) -> bool:
    """Whether some values are those of more than half of the rows."""
    return 2 * sum(counts[value] for value in some) > sum(counts.values())


def _first(counts: dict[str, int]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))[:_SHOWN]


def _listed(counts: dict[str, int]) -> str:
    more = ", …" if len(counts) > _SHOWN else ""
    return _escaped(", ".join(map(repr, _first(counts))) + more)


def _escaped(text: str) -> str:
    """Text whose braces are not taken for places to fill in."""
    return text.replace("{", "{{").replace("}", "}}")


def _rows(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''}"
