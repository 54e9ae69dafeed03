"""How the labels of a table are written, where numbers would be written otherwise: who gets them back knows them so."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from altmin_dask.data.labels import MOST, listed
from altmin_dask.data.tables.parts import Table, readable
from altmin_dask.data.tables.survey import Survey
from altmin_dask.errors import warn
from altmin_dask.preparation import TRUTH
from altmin_dask.table_options import left_out

_FIRST = 1000
"""Rows in which codes are looked for: a column of them shows one soon, and text is slow to read (chosen)."""
_CODE = r"\s*[+-]?0\d+\s*"
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_TRUTH = {text.casefold(): label for label, text in TRUTH}


def spelling(table: Table, name: str, survey: Survey, target: str) -> tuple[tuple[int, str], ...]:
    """Find how whole numbers of a target are written.

    Where all values of a table are text they are gone through once more, as pandas has made numbers of them; more
    different ones than can be classes end that.

    Parameters
    ----------
    table, name : Table, str
        What is read, and what messages call it.
    survey : Survey
        Of its columns.
    target : str
        A column of whole numbers or truth values.

    Returns
    -------
    tuple of (int, str)
        By numbers, in order; empty if they are written as numbers are.

    Warns
    -----
    AltMinWarning
        If one number is written in several ways: it is one class, called as in most of the rows.
    """
    if not table.written:
        return TRUTH if survey.is_truth(target) else ()
    counts: Counter[str] = Counter()
    for part in readable(name, table.as_written([target])):
        counts.update(part[target].str.strip().value_counts().to_dict())
        if len(counts) > MOST:
            return ()
    texts: defaultdict[int, list[str]] = defaultdict(list)
    for text in sorted(counts, key=lambda text: (-counts[text], text)):
        if (label := _label(text)) is None:
            return ()
        texts[label].append(text)
    if several := next((each for each in texts.values() if len(each) > 1), None):
        warn(
            f"{name} has {listed(several)} in the target {target!r}, which are one number and one class, called "
            f"{several[0]!r}; write them alike in the table, or put a letter before them if they are several"
        )
    found = tuple((label, texts[label][0]) for label in sorted(texts))
    return found if any(text != str(label) for label, text in found) else ()


def warn_of_codes(table: Table, name: str, columns: Sequence[str]) -> None:
    """Tell of inputs that are whole numbers with zeros in front, as codes have them, in the first rows of a table.

    Parameters
    ----------
    table, name : Table, str
        One whose values are all text, and what messages call it.
    columns : sequence of str
        Inputs that became whole numbers.
    """
    if not columns:
        return
    part = next(readable(name, table.as_written(columns, first=_FIRST)))
    found = {column: part[column][part[column].str.fullmatch(_CODE)].unique().tolist() for column in columns}
    if codes := [column for column in columns if found[column]]:
        warn(
            f"{name} has whole numbers that begin with 0 in the column{'s' * (len(codes) > 1)} "
            f"{listed([*codes])} ({found[codes[0]][0]}, …), which become numbers like others; if they are codes, put a "
            f"letter before them in the table, and each is a category, or {left_out(codes[0])}"
        )


def _label(text: str) -> int | None:
    """The number that pandas makes of a text; None where others may be made by its options."""
    return int(text) if _WHOLE.fullmatch(text) else _TRUTH.get(text.casefold())
