"""The values of a part of a column as numbers, moments or text, whatever they are kept as."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.data.checks import WHOLE as TOO_LARGE
from altmin_dask.data.checks import check_whole, whole_refused
from altmin_dask.data.tables.kinds import DAY, DECIMAL, EMPTY, LIST, MOMENT, NUMBERS, WHOLE, kind_of, moments
from altmin_dask.errors import DataError
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd

DAY_US = 86_400_000_000


class KindError(DataError):
    """A column is something else than in the data for training.

    Parameters
    ----------
    where, is_now, column, known : str
        The table, what there is in its column, and what was there.
    odd : object
        Text that shows it, if there is some.
    there : str
        In which rows that is, where they have been looked for.
    """

    def __init__(
        self, where: str, is_now: str, column: str, known: str, odd: Any = None, there: str = ""
    ) -> None:
        self._said, self._there = (where, is_now, column, known, odd), there
        self.column, self.odd = column, odd
        shown = "" if odd is None else f" ({odd!r}{f' in {there}' if there else ', …'})"
        as_dates = ": write them as there, 2024-12-31" if known == "dates" else ""
        super().__init__(
            f"{where} has {is_now}{shown} in the column {column!r}, which has {known} in the data for training"
            + as_dates
        )

    def __reduce__(self) -> Any:  # a worker's errors are sent
        return KindError, (*self._said, self._there)

    def at(self, there: str) -> KindError:
        """The same, with the rows."""
        return KindError(*self._said, there)


def is_number(text: str) -> bool:
    """Whether text is a number as it is written in a table."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text and text.isascii()  # or only Python takes it for one


def numbers(values: pd.Series[Any], where: str) -> Array:
    """Numbers in float64, NaN for missing ones, (rows,).

    Raises
    ------
    DataError
        If there is something else, or a whole number that float64 does not hold.
    """
    from pandas.api import types

    kind = kind_of(values, where)
    if kind == EMPTY:
        return np.full(len(values), np.nan)
    if kind & ~NUMBERS:
        raise other(values, "numbers", where)
    if types.is_integer_dtype(values.dtype):
        unsigned = types.is_unsigned_integer_dtype(values.dtype)
        whole = values.dropna().to_numpy(dtype=np.uint64 if unsigned else np.int64)
        check_whole(whole, f"the column {values.name!r} of {where}")
    elif kind == WHOLE:  # numbers of Python, some of which int64 does not hold
        large = [each for each in map(int, values.dropna()) if abs(each) >= TOO_LARGE]
        if large:
            raise whole_refused(f"the column {values.name!r} of {where}", large[0])
    found = values.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    if kind == DECIMAL and not types.is_float_dtype(values.dtype):
        _check_kept(values.array, found, f"the column {values.name!r} of {where}")
    return found


def _check_kept(values: Any, found: Array, label: str) -> None:
    """Refuse whole numbers among decimals, (n,), that are others in float64.

    Raises
    ------
    DataError
        Naming the first one.
    """
    for place in np.flatnonzero(np.isfinite(found) & (np.abs(found) >= TOO_LARGE)):
        value = values[place]
        if int(value) == value and int(value) != int(found[place]):
            raise whole_refused(label, int(value))


def days(values: pd.Series[Any], where: str) -> Array:
    """Days since 1970-01-01 00:00 UTC in float64, NaN for missing ones, (rows,).

    Raises
    ------
    DataError
        If there is something that is no date.
    """
    if values.isna().all():
        return np.full(len(values), np.nan)
    if kind_of(values, where) not in (DAY, MOMENT):
        raise other(values, "dates", where)
    if str(values.dtype).startswith("date32"):
        values = values.astype(object)
    read = moments(values.array)
    found = read.to_numpy(dtype="datetime64[us]")
    return np.where(np.isnat(found), np.nan, found.astype(np.int64) / DAY_US)


def texts(values: pd.Series[Any]) -> tuple[Array, list[str]]:
    """Text as places in a list of what there is, (rows,), −1 for missing ones, and that list.

    Whole numbers are written without a point, though missing ones beside them made floats of them.
    """
    import pandas as pd

    codes, distinct = pd.factorize(values, use_na_sentinel=True)
    return codes, [_text(each) for each in distinct]


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def lists(values: pd.Series[Any], size: int | None, where: str) -> Array:
    """Lists of numbers as rows, (rows, size); None takes the size of the first.

    Raises
    ------
    DataError
        If a list is missing or of another length, or there is something else than numbers in one.
    """
    if values.isna().any():
        raise DataError(f"{where} has missing lists in the column {values.name!r}; leave such rows out")
    if kind_of(values, where) != LIST:
        raise other(values, "lists", where)
    given = [each if each is not None else () for each in values.array]
    lengths = {len(each) for each in given} | ({size} if size is not None else set())
    if len(lengths) > 1:
        several = " and ".join(map(str, sorted(lengths)[:2]))
        raise DataError(
            f"{where} has lists of {several} values in the column {values.name!r}; give lists of one length"
        )
    try:
        rows = np.array([np.asarray(each) for each in given])
    except ValueError:  # of lists in lists that differ
        rows = np.array(None, object)
    if rows.ndim == 2 and rows.dtype.kind == "O" and all(isinstance(each, Decimal) for each in rows.flat):
        exact = rows.ravel()
        rows = rows.astype(np.float64)
        _check_kept(exact, rows.ravel(), f"the column {values.name!r} of {where}")
    if rows.ndim != 2 or rows.dtype.kind not in "biuf" or not rows.shape[1]:
        raise DataError(
            f"{where} has lists in the column {values.name!r} that are not of numbers; give lists of numbers"
        )
    check_whole(rows, f"the column {values.name!r} of {where}")
    return rows.astype(np.float64)


def other(values: pd.Series[Any], known: str, where: str) -> KindError:
    """What is said of a column that is something else than in the data for training."""
    kind = kind_of(values, where)
    is_now = (
        "numbers" if not kind & ~NUMBERS else {DAY: "dates", MOMENT: "dates", LIST: "lists"}.get(kind, "text")
    )
    some = list(values.dropna())
    odd = next(
        (each for each in some if known != "numbers" or not is_number(str(each))), some[0] if some else None
    )
    return KindError(where, is_now, str(values.name), known, odd if is_now == "text" else None)
