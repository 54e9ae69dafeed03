"""Whether the rows of a table can be prepared as others were: gone through before anything is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from altmin_dask.data.labels import listed
from altmin_dask.data.tables.encoding import Findings, encoded, missing_values, unknown_values
from altmin_dask.data.tables.parts import Largest, Table, first_missing, first_with, readable
from altmin_dask.data.tables.targets import are_text
from altmin_dask.data.tables.values import KindError
from altmin_dask.data.tables.words import MissingWords, warn_of_words
from altmin_dask.data.tables.zones import warn_of_other_zones, warn_of_zones
from altmin_dask.errors import DataError, warn
from altmin_dask.format import counted_as
from altmin_dask.preparation import Preparation
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd


def text_of(how: Preparation) -> set[str]:
    """Columns that are read as they are written, whatever they look like in another file."""
    columns = {column.name for column in how.columns if column.values is not None or column.date}
    return columns | (set(how.targets) if are_text(how) else set())


def prepared_rows(frame: pd.DataFrame, how: Preparation, name: str = "the table") -> Array:
    """Make the inputs of a frame in memory as the model reads them: encoded, and scaled where the preparation says so.

    Parameters
    ----------
    frame : DataFrame
        Raw rows, with the columns of the preparation in any order, among others.
    how : Preparation
        Of the samples for training.
    name : str
        What messages call the frame.

    Returns
    -------
    ndarray, (rows, len(how.names)), float64

    Raises
    ------
    DataError
        As of `check`, which tells of unknown values in the same way.
    """
    findings = Findings()
    rows = encoded(frame, how, name, findings)
    _tell(findings, how, name)
    return rows if how.x is None else how.x.apply(rows)


def _tell(findings: Findings, how: Preparation, name: str) -> None:
    """Refuse what rows have that those for training had not, or tell what becomes zeros."""
    for column, count in findings.missing.items():
        raise missing_values(name, column, count)
    warn_of_zones(findings.zones, name)
    for each in how.columns:
        if each.name in findings.zones:
            warn_of_other_zones(each.name, findings.zones[each.name], each.zoned, name)
    if findings.filled:
        parts = (f"{column!r} of {counted_as(rows, 'row')}" for column, rows in findings.filled.items())
        warn(
            f"{name} has no value in the column {'; '.join(parts)}, which the data for training had in every row: what "
            "fills in missing values stands there"
        )
    if not findings.unknown:
        return
    if how.unknown == "error":
        raise unknown_values(name, findings)
    warn(f"{name} has {findings.told()}, which the data for training had not: all zeros stand for them")


def _never_missing(how: Preparation, targets: Sequence[str]) -> list[str]:
    """Columns of text that had a value in every row for training: it was not told which words are none."""
    columns = [column.name for column in how.columns if column.values is not None and not column.indicator]
    return [*columns, *(targets if how.target == "text" else ())]


def check(table: Table, name: str, how: Preparation, targets: Sequence[str]) -> tuple[int, bool, Largest]:
    """Count the rows, and find whether there are targets, and the largest part.

    Raises
    ------
    DataError
        If there are none, or they have something that the samples for training had not; what becomes zeros is told in a
        warning, as are columns without any value.
    """
    findings, rows, no_target, largest = Findings(), 0, 0, Largest()
    inputs = [column.name for column in how.columns]
    # of those that have something to fill in, though no sample for training lacked a value
    empty = [c.name for c in how.columns if c.fill is not None and not (c.indicator or c.empty)]
    words = MissingWords(table, _never_missing(how, targets))
    for part in readable(name, table.parts([*inputs, *targets], text=text_of(how), words=words.columns)):
        if not len(part):
            continue
        part = words.taken(part)
        try:
            encoded(part, how, name, findings)
        except KindError as error:
            if error.odd is None:
                raise
            raise error.at(first_with(table, name, error.column, [str(error.odd)])) from None
        empty = [column for column in empty if part[column].isna().all()]
        no_target += int(part[list(targets)].isna().any(axis=1).sum()) if targets else 0
        rows += len(part)
        largest.add(part)
    if rows == 0:
        raise DataError(f"{name} has no rows; give it at least one sample")
    warn_of_words(words.counts, name)
    if findings.missing:
        column = next(iter(findings.missing))
        there = first_missing(table, name, [column], text_of(how))
        raise missing_values(name, column, findings.missing[column], there=there)
    for column in empty:
        findings.filled.pop(column, None)
    _tell(findings, how, name)
    if empty:
        columns = f"the column{'s' * (len(empty) > 1)} {listed(empty)}"
        warn(
            f"{name} has no value at all in {columns}, which the data for training had in every row: what fills in "
            "missing values stands for all of them"
        )
    if 0 < no_target < rows:
        raise DataError(
            f"{name} has no value in the target {', '.join(map(repr, targets))} in {no_target} "
            f"row{'s' if no_target > 1 else ''} of {rows} ({first_missing(table, name, targets, text_of(how))}); "
            "leave such rows out"
        )
    return rows, bool(targets) and no_target == 0, largest
