"""What scikit-learn refuses, said with where it is and what to do: rows and columns that are not finite, sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data

from altmin_dask.data.tables.parts import FIRST, numbered
from altmin_dask.errors import DataError, FaultError
from altmin_dask.estimators.ragged import are_sequences, is_ragged
from altmin_dask.execution.faults import KEPT
from altmin_dask.storage.run import RunFolder
from altmin_dask.types import Array

ADVICE = {
    "X": "leave such rows out, or fill them in, as with make_pipeline(SimpleImputer(), …) of scikit-learn",
    "y": "leave such rows out",
}


def validated(estimator: Any, X: Any, *y: Any, **how: Any) -> Any:
    """`validate_data` of scikit-learn; what is not finite is named by rows and columns.

    Raises
    ------
    DataError
        If values of X or y are not finite.
    ValueError
        As scikit-learn says whatever else is wrong.
    """
    given = {"X": X, "y": y[0] if y else None}
    try:
        return validate_data(estimator, X, *y, **how)
    except TypeError as error:
        if "NA is ambiguous" in str(error):  # of text of pandas
            name = next((name for name, values in given.items() if _where(values)), "y")
            raise DataError(f"Input {name} contains NaN{_where(given[name])}; {ADVICE[name]}") from None
        raise
    except ValueError as error:
        for name, values in given.items():
            if str(error).startswith((f"Input {name} contains", "Input contains" if name == "y" else "\n")):
                what = str(error).partition("\n")[0].rstrip(".").partition("contains")[2]
                raise DataError(f"Input {name} contains{what}{_where(values)}; {ADVICE[name]}") from None
        if "convert string to float" in str(error) and (texts := _texts(X)):
            raise DataError(
                f"X has text in the column{'s' if len(texts) > 1 else ''} {', '.join(map(repr, texts[:FIRST]))}; make "
                "numbers of it, as by OneHotEncoder of scikit-learn, or name a csv or parquet file, of which text "
                "becomes categories"
            ) from None
        raise


def _texts(X: Any) -> list[Any]:
    """Columns of a frame that hold text."""
    if not hasattr(X, "columns") or not hasattr(X, "__getitem__"):
        return []
    return [each for each in X.columns if any(isinstance(value, str) for value in X[each])]


def _where(values: Any) -> str:
    """The first rows that are not finite, and the column of the first of them; nothing if they cannot be found."""
    if values is None:
        return ""
    if issparse(values):
        entries = values.tocoo()
        odd = ~np.isfinite(entries.data)
        places = sorted(zip(entries.row[odd].tolist(), entries.col[odd].tolist(), strict=True))
    else:
        places = _places(values)
    if not places:
        return ""
    columns = getattr(values, "columns", None)
    rows = list(dict.fromkeys(row for row, _ in places))
    several = "" if len(rows) <= FIRST else ", and more"
    text = f": {numbered('row', rows[:FIRST])}{several}, counted from 0"
    column = places[0][1]
    if column is None:
        return text
    return f"{text}, the first in the column {column if columns is None else repr(list(columns)[column])}"


def _places(values: Any) -> list[tuple[int, int | None]]:
    try:
        found: Array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):  # of several types
        given = np.asarray(values, object)
        found = np.array([_number(value) for value in given.ravel()]).reshape(given.shape)
    odd = np.argwhere(~np.isfinite(found.reshape(len(found), -1)))
    return [(int(row), int(column) if found.ndim > 1 else None) for row, column in odd]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan if value is None or str(value) == "<NA>" or value != value else 0.0


def told(run: RunFolder) -> Callable[[str], None]:
    """Print what is told of a run, but for its folder, which is a temporary one."""
    return lambda line: print(line.removeprefix(f"run {run.path}: "))


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Leave out of what is said of a fault that something is kept to go on with: the folder goes with the error."""
    try:
        yield
    except FaultError as error:
        raise type(error)(str(error).removesuffix(f"; {KEPT}")) from error


def refuse_sequences(X: Any) -> None:
    """Refuse lists of arrays, which only recurrent networks may take for sequences.

    Raises
    ------
    DataError
        Saying which estimators do.
    """
    texts = any(isinstance(row, str | bytes) for row in X) if isinstance(X, list | tuple) else True
    if are_sequences(X) or (not texts and is_ragged(X)):
        raise DataError(
            "X is a list of sequences, one array for each sample, which AltMinRecurrentClassifier and "
            "AltMinRecurrentRegressor read; give one row of values for each sample, or arrays of one shape together "
            "(numpy.stack(X))"
        )


def refuse_one_hot(y: Any) -> None:
    """Refuse targets of a classifier with several columns.

    Raises
    ------
    DataError
        Saying how labels are made of them.
    """
    # of what is neither an array nor a list scikit-learn finds the shape, and says what is wrong with it
    shape = tuple(getattr(y, "shape", np.shape(y) if isinstance(y, list | tuple) else ()))
    if len(shape) == 2 and shape[1] > 1:
        method = next((name for name in ("idxmax", "argmax") if hasattr(y, name)), None)
        labels = f"y.{method}(axis=1)" if method else "numpy.argmax(y, axis=1)"
        raise DataError(
            f"y has shape {shape}: y should be a 1d array, one label for each sample; of one-hot rows those are "
            f"{labels}"
        )
