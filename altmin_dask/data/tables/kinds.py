"""What the values of a column are, in a part of a table, and in all parts together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.errors import DataError
from altmin_dask.table_options import left_out

if TYPE_CHECKING:
    import pandas as pd

EMPTY, BOOLEAN, WHOLE, DECIMAL, TEXT, DAY, MOMENT, LIST = 0, 1, 2, 4, 8, 16, 32, 64
"""What some values are, in bits, so that those of several parts are joined by |; a DAY is a date that is text."""
NUMBERS = BOOLEAN | WHOLE | DECIMAL
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_OF_OBJECTS = {
    "empty": EMPTY,
    "string": TEXT,
    "boolean": BOOLEAN,
    "integer": WHOLE,
    "floating": DECIMAL,
    "mixed-integer-float": DECIMAL,
    "decimal": DECIMAL,
    "date": MOMENT,
    "datetime": MOMENT,
    "datetime64": MOMENT,
}


def kind_of(values: pd.Series[Any], where: str) -> int:
    """What a part of a column holds; `where` names the table.

    Raises
    ------
    DataError
        If it is neither numbers, text, dates nor lists of numbers.
    """
    from pandas.api import types

    dtype: Any = values.dtype
    if values.isna().all():
        return EMPTY
    if isinstance(dtype, types.CategoricalDtype):
        return TEXT
    if types.is_bool_dtype(dtype):
        return BOOLEAN
    if types.is_integer_dtype(dtype):
        return WHOLE
    if types.is_float_dtype(dtype) or str(dtype).startswith("decimal"):  # of pyarrow
        return DECIMAL
    if types.is_datetime64_any_dtype(dtype) or str(dtype).startswith("date32"):
        return MOMENT
    if str(dtype).startswith(("list", "large_list", "fixed_size_list")):
        return LIST
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return _of_objects(values, where)
    if types.is_string_dtype(dtype) and "binary" not in str(dtype):
        return DAY if are_dates(values) else TEXT
    raise unusable(where, str(values.name), str(dtype))


def _of_objects(values: pd.Series[Any], where: str) -> int:
    from pandas.api.types import infer_dtype

    found = infer_dtype(values, skipna=True)
    if found in ("mixed", "mixed-integer"):
        some = values.dropna()
        if all(isinstance(each, list | tuple | np.ndarray) for each in some):
            return LIST
        if all(isinstance(each, bool | int | float | np.number | np.bool_) for each in some):
            return DECIMAL
    if found not in _OF_OBJECTS:
        raise unusable(where, str(values.name), f"objects ({found})")
    kind = _OF_OBJECTS[found]
    return DAY if kind == TEXT and are_dates(values) else kind


def unusable(where: str, column: str, what: str) -> DataError:
    """What is said of a column that cannot become numbers."""
    return DataError(
        f"{where} has {what} in the column {column!r}; give numbers, text, dates or lists of numbers, or "
        f"{left_out(column)}"
    )


def are_dates(values: pd.Series[Any]) -> bool:
    """Whether all text is dates as ISO 8601 writes them: ``2024-02-29``, with a time of day, or not."""
    some = values.dropna()
    if not len(some) or _DATE.fullmatch(str(some.iloc[0])) is None:
        return False
    distinct = some.unique()
    if not all(_DATE.fullmatch(str(each)) for each in distinct):
        return False
    return not moments(distinct).isna().any()


def undated(values: list[str]) -> list[str]:
    """Those that are no dates as ISO 8601 writes them."""
    written = [_DATE.fullmatch(value) is not None for value in values]
    none = moments([value if date else None for value, date in zip(values, written, strict=True)]).isna()
    return [value for value, no_date in zip(values, none, strict=True) if no_date]


def moments(values: Any) -> pd.Series[Any]:
    """Dates, or text that is dates, as moments in UTC; what is none is NaT."""
    import pandas as pd

    read = pd.to_datetime(pd.Series(values), utc=True, format="ISO8601", errors="coerce")
    return read.astype("datetime64[us, UTC]")


def joined(found: int, *, written: bool) -> str:
    """The kind of a column by what there is in all parts of it: "numbers", "integers", "text", "dates" or "lists".

    Numbers beside text are text; so are booleans beside numbers in a file where all is text (`written`).
    """
    if found == EMPTY:
        return "empty"
    if found & LIST:
        return "lists" if found == LIST else "mixed"
    if found & MOMENT:
        return "dates" if not found & ~(MOMENT | DAY) else "mixed"
    if found & (TEXT | DAY):
        return "dates" if found == DAY else "text"
    if written and found & BOOLEAN and found & ~BOOLEAN:
        return "text"
    return "numbers" if found & DECIMAL else "integers"
