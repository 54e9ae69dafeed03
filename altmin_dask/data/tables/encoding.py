"""A preparation applied to rows of a table: the one place where columns become numbers, at ingest and at prediction."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.data.tables.values import days, lists, numbers, texts
from altmin_dask.data.tables.zones import zones_of
from altmin_dask.errors import DataError
from altmin_dask.preparation import Column, Preparation
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 3
_STRIP = 4096
"""Rows of columns that are laid side by side at a time, so that what is written stays in a core's own cache: of 16
columns a quarter of the time that `numpy.stack` takes."""


@dataclass
class Findings:
    """What rows had that those for training had not.

    Attributes
    ----------
    missing : Counter
        Rows without a value, by columns that have nothing to fill in.
    unknown : dict of Counter
        Values that were not there, by columns, and rows that have them.
    filled : Counter
        Rows without a value that something is filled in for, by columns that had one in every row.
    zones : dict of Counter
        Rows of each time zone, by columns of dates.
    """

    missing: Counter[str] = field(default_factory=Counter)
    unknown: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    filled: Counter[str] = field(default_factory=Counter)
    zones: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def told(self) -> str:
        """The unknown values in words, by columns."""
        parts = []
        for column, values in self.unknown.items():
            names = ", ".join(map(repr, sorted(values)[:_SHOWN])) + (", …" if len(values) > _SHOWN else "")
            count = values.total()
            parts.append(f"{names} in the column {column!r} of {count} row{'s' if count > 1 else ''}")
        return "; ".join(parts)


def encoded(
    part: pd.DataFrame, how: Preparation, where: str = "the table", findings: Findings | None = None
) -> Array:
    """Make the inputs of raw rows, before they are scaled.

    Parameters
    ----------
    part : DataFrame
        Rows, with the columns of the preparation in any order, among others.
    how : Preparation
        Which columns, and what becomes of their values.
    where : str
        What messages call the table.
    findings : Findings, optional
        Takes note of what would be refused, or become zeros, so that all of it can be told at once.

    Returns
    -------
    ndarray, (rows, len(how.names)), float64

    Raises
    ------
    DataError
        If a column is missing, or holds something else than it did for training, has no value where nothing is to be
        filled in, or a value that is refused.
    """
    out = np.empty((len(part), sum(map(_width, how.columns))))
    _check_there(part, [column.name for column in how.columns], where)
    place = 0
    for plain, columns in groupby(how.columns, _is_plain):
        several = list(columns)
        if plain:
            _plain(part, several, where, findings, out[:, place : place + len(several)])
            place += len(several)
            continue
        for column in several:
            width = _width(column)
            _encode(part, column, how.unknown, where, findings, out[:, place : place + width])
            place += width
    return out


def _is_plain(column: Column) -> bool:
    """Whether it is a number, and nothing else."""
    special = column.values is not None or column.date or column.size is not None
    return not (special or column.indicator or column.empty)


def _width(column: Column) -> int:
    return 1 if _is_plain(column) else len(column.names)


def _plain(
    part: pd.DataFrame, columns: list[Column], where: str, findings: Findings | None, out: Array
) -> None:
    """Write numbers side by side: at once where they are floats, as tables may have tens of thousands of columns."""
    names = [column.name for column in columns]
    chosen = part if names == list(part.columns) else part[names]
    if all(isinstance(dtype, np.dtype) and dtype.kind == "f" for dtype in set(chosen.dtypes)):
        found = chosen.to_numpy(dtype=np.float64, copy=True).T
    else:
        found = [numbers(chosen[name], where) for name in names]
    for column, values in zip(columns, found, strict=True):
        if len(values) and np.isnan(values.min()):
            _fill(values, column, np.isnan(values), where, findings)
    for start in range(0, len(part), _STRIP):
        strip = slice(start, start + _STRIP)
        for place, values in enumerate(found):
            out[strip, place] = values[strip]


def _encode(
    part: pd.DataFrame, column: Column, unknown: str, where: str, findings: Findings | None, out: Array
) -> None:
    """Write the numbers of a column."""
    values = part[column.name]
    missing, out = out[:, -1], out[:, :-1] if column.indicator else out
    if column.indicator:
        missing[:] = values.isna()
    if column.empty:
        if len(there := values.dropna()):
            _note_unknown({str(there.iloc[0]): len(there)}, column.name, unknown, where, findings)
        return
    if column.size is not None:
        out[:] = lists(values, column.size, where)
    elif column.values is not None:
        out[:] = _one_hot(values, column, unknown, where, findings)
    else:
        found = days(values, where) if column.date else numbers(values, where)
        if column.date and findings is not None:
            findings.zones[column.name].update(zones_of(values))
        if column.indicator:
            missing[:] = np.isnan(found)  # of Arrow's types, too, which tell NaN from a missing value
        _fill(found, column, np.isnan(found), where, findings)
        out[:, 0] = found
        if column.cyclic:
            out[:, 1:] = _cycles(found)


def _check_there(part: pd.DataFrame, names: list[str], where: str) -> None:
    there = set(part.columns)
    if missing := [name for name in names if name not in there]:
        raise DataError(f"{where} has no column {missing[0]!r}; it has {', '.join(map(str, part.columns))}")


def _fill(values: Array, column: Column, missing: Array, where: str, findings: Findings | None) -> None:
    """Fill in what is missing, or refuse it."""
    if not missing.any():
        return
    if column.fill is not None:
        values[missing] = column.fill
        _note_filled(column, missing, findings)
    elif findings is None:
        raise missing_values(where, column.name, int(missing.sum()))
    else:
        findings.missing[column.name] += int(missing.sum())


def _note_filled(column: Column, missing: Array, findings: Findings | None) -> None:
    """Take note of values that are missing where no row for training lacked one."""
    if findings is not None and not (column.indicator or column.empty):
        findings.filled[column.name] += int(missing.sum())


def missing_values(
    where: str, column: str, rows: int, others: Sequence[str] = (), *, trained: bool = True, there: str = ""
) -> DataError:
    """What is said of missing values that nothing is to be filled in for.

    Parameters
    ----------
    where, column, rows : str, str, int
        The table, its first such column, and how many rows lack it.
    others : sequence of str
        More such columns.
    trained : bool
        Whether there are samples for training that had none.
    there : str
        Where the first rows are.
    """
    fill = quote(f"{column}=mean")
    advice = (
        f"the samples for training had none: leave such rows out, or train again with something to fill in "
        f"(data.missing of the pipeline, or altmin ingest --missing {fill})"
        if trained
        else f"fill them in, by --missing {fill} (median, constant; data.missing of a pipeline) or in the "
        "table, or leave the column out by --drop"
    )
    count = f"{rows} row{'s' if rows > 1 else ''}{there and f' ({there})'}"
    more = (
        f", and in {', '.join(map(repr, others[:_SHOWN]))}{', …' * (len(others) > _SHOWN)}" if others else ""
    )
    return DataError(f"{where} has missing values in the column {column!r}, in {count}{more}; {advice}")


def _one_hot(
    values: pd.Series[Any], column: Column, unknown: str, where: str, findings: Findings | None
) -> Array:
    """One number for each value, and one for all that are infrequent."""
    assert column.values is not None
    codes, distinct = texts(values)
    known = {value: place for place, value in enumerate(column.values)}
    last = len(known)
    infrequent = set(column.infrequent)
    open_end = column.groups and (column.rest or unknown == "infrequent_if_exist")

    def place_of(value: str) -> int:
        return known.get(value, last if value in infrequent or open_end else -1)

    filled = -1 if column.fill is None else place_of(str(column.fill))
    places = np.array([*map(place_of, distinct), filled])  # of which a missing one, −1, takes the last
    missing = codes < 0
    counts = np.bincount(codes[~missing], minlength=len(distinct))
    new = {distinct[code]: int(counts[code]) for code in np.flatnonzero(places[:-1] < 0)}
    if missing.any() and column.fill is not None and filled < 0:
        new[str(column.fill)] = int(missing.sum())
    if new:
        _note_unknown(new, column.name, unknown, where, findings)
    if missing.any() and column.fill is None:
        if findings is None:
            raise missing_values(where, column.name, int(missing.sum()))
        findings.missing[column.name] += int(missing.sum())
    if missing.any() and column.fill is not None and filled >= 0:
        _note_filled(column, missing, findings)
    found = places[codes]
    rows = np.zeros((len(values), last + column.groups))
    there = found >= 0
    rows[np.flatnonzero(there), found[there]] = 1
    return rows


def _note_unknown(
    new: dict[str, int], column: str, unknown: str, where: str, findings: Findings | None
) -> None:
    """Take note of values that training had not, by how many rows have them."""
    own = Findings() if findings is None else findings
    own.unknown[column].update(new)
    if findings is None and unknown == "error":
        raise unknown_values(where, own)


def unknown_values(where: str, findings: Findings) -> DataError:
    """What is said of values that are refused because the samples for training had not had them."""
    return DataError(
        f"{where} has {findings.told()}, which the data for training had not; leave such rows out"
    )


def _cycles(moments: Array) -> Array:
    """Sine and cosine of the share of the year by months, of the week by days, and of the day, (rows, 6)."""
    moments = np.nan_to_num(moments)  # of rows that are refused
    whole = np.floor(moments)
    months = whole.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    weekdays = (whole + 3) % 7  # 1970-01-01 was a Thursday
    shares = np.stack([months / 12, weekdays / 7, moments - whole], axis=1)
    angles = 2 * np.pi * shares[:, :, None]
    both: Array = np.concatenate([np.sin(angles), np.cos(angles)], axis=2).reshape(len(moments), 6)
    return both
