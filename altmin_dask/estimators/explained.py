"""What scikit-learn refuses, said with where it is and what to do: rows and columns that are not finite, sequences."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data

from altmin_dask.config.uses import PARAMETERS
from altmin_dask.data.tables.parts import FIRST, numbered
from altmin_dask.data.tables.values import is_number
from altmin_dask.errors import AltMinError, DataError, FaultError
from altmin_dask.estimators.ragged import are_sequences, is_ragged
from altmin_dask.execution.faults import KEPT
from altmin_dask.storage.run import RunFolder
from altmin_dask.types import Array

ADVICE = {
    "X": "leave such rows out, or fill them in, as with make_pipeline(SimpleImputer(), …) of scikit-learn",
    "y": "leave such rows out",
}


_WORD = r"('[^']*'|\S+)"
_STORE = "of `altmin ingest`, whose store is X then"
WORDS = (
    (r"\(data\.scale, ingest --scale\)", "(as by MinMaxScaler of scikit-learn)"),
    (r"\(data\.(scale|standardize)\)", "(as by StandardScaler of scikit-learn)"),
    (r"and see data\.standardize", "and see StandardScaler of scikit-learn"),
    (
        rf"by --missing {_WORD} \(.*?; data\.missing of a pipeline\) or in the table, or leave the column out by "
        "--drop",
        rf"by --missing \1 {_STORE}, leave the column out by --drop, or give a frame, with SimpleImputer in front",
    ),
    (rf"by --(csv|drop) {_WORD}( \(data\.[.\w]+ of a pipeline\))?", rf"by --\1 \2 {_STORE}"),
    (r"by --dtype float64 \(network\.dtype of a pipeline\)", "by dtype='float64'"),
    (r", or write \S+=default behind --set, for its default", ", for its default"),
    (r", or 64,32 behind --set: quote it, or leave the spaces out", ""),
)
"""What pipelines and commands are told to say, as it is said in Python."""


def own_words(estimator: Any, text: str) -> str:
    """A message with the parameters of an estimator in place of settings, and what there is in place of options.

    Settings that are given as such, by `settings`, keep their names.
    """
    for pattern, instead in WORDS:
        text = re.sub(pattern, instead, text)
    given = estimator.settings if isinstance(estimator.settings, Mapping) else {}
    names = {key: name for name, key in PARAMETERS.items() if hasattr(estimator, name) and key not in given}
    known = "|".join(map(re.escape, names))
    return re.sub(rf"(?<![\w./'\"`-])({known})(?![\w/])", lambda found: names[found[1]], text)


@contextmanager
def in_own_words(estimator: Any) -> Iterator[None]:
    """Let what is refused meanwhile name parameters of the estimator."""
    try:
        yield
    except AltMinError as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (own_words(estimator, error.args[0]),)
        raise


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
    refuse_swapped(**given)
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
            raise refused_texts(texts) from None
        raise


def refused_texts(texts: Sequence[Any]) -> DataError:
    """What is said of columns of X that hold text."""
    return DataError(
        f"X has text in the column{'s' if len(texts) > 1 else ''} {', '.join(map(repr, texts[:FIRST]))}; make numbers "
        "of it, as by OneHotEncoder of scikit-learn, or name a csv or parquet file, of which text becomes categories"
    )


def _texts(X: Any) -> list[Any]:
    """Columns of a frame, or numbers of those of an array, that hold text which is no number."""
    if hasattr(X, "columns") and hasattr(X, "__getitem__"):
        return [each for each in X.columns if any(isinstance(value, str) for value in X[each])]
    values = np.asarray(X)
    odd = [isinstance(each, str) and not is_number(each) for each in values.ravel().tolist()]
    return np.flatnonzero(np.reshape(odd, (len(values), -1)).any(axis=0)).tolist() if any(odd) else []


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
    """Refuse lists of arrays, which only recurrent networks may take for sequences, and rows of unlike length.

    Raises
    ------
    DataError
        Saying which estimators do.
    """
    texts = any(isinstance(row, str | bytes) for row in X) if isinstance(X, list | tuple) else True
    if not texts and is_ragged(X) and all(np.ndim(row) == 1 for row in X):
        sizes = sorted({len(row) for row in X})
        raise DataError(
            f"X has rows of {sizes[0]} values and others of up to {sizes[-1]}; give as many in each, or, if they are "
            "sequences, arrays (steps, features), such as [[1], [2]] in place of [1, 2], to AltMinRecurrentClassifier "
            "or AltMinRecurrentRegressor"
        )
    if are_sequences(X) or (not texts and is_ragged(X)):
        raise DataError(
            "X is a list of sequences, one array for each sample, which AltMinRecurrentClassifier and "
            "AltMinRecurrentRegressor read; give one row of values for each sample, or arrays of one shape together "
            "(numpy.stack(X))"
        )


def without_targets(estimator: Any, name: str) -> DataError:
    """What is said of samples, called so, that a supervised estimator finds no targets with."""
    named = (
        f"; its targets are looked for in a column or array called y: `altmin ingest {quote(name)} samples.zarr --y "
        "NAME` makes a store of it, whose path is X then"
        if os.path.isfile(name)
        else ""
    )
    return DataError(
        f"{type(estimator).__name__} requires y to be passed, but the target y is None, and {name} holds none{named}"
    )


def refuse_ragged(y: Any) -> None:
    """Refuse a list of targets of which some rows are longer than others.

    Raises
    ------
    DataError
        If it is one.
    """
    try:
        np.shape(y if isinstance(y, list | tuple) else ())
    except ValueError:
        raise DataError(
            "y has rows of different lengths; give one target for each sample, or as many for each"
        ) from None


def refuse_words(y: Any, instead: str) -> None:
    """Refuse targets of a regressor that are words.

    Raises
    ------
    DataError
        Saying which estimator classifies.
    """
    values = np.asarray(y)
    words = values.ravel().tolist() if values.dtype.kind in "UTO" else []
    if word := next((each for each in words if isinstance(each, str) and not is_number(each)), None):
        raise DataError(
            f"y has text ({word!r}), and a regressor fits numbers; for classes there is {instead}"
        )


def refuse_swapped(X: Any, y: Any) -> None:
    """Refuse samples in the place of targets.

    Raises
    ------
    DataError
        If y has columns, and X has none, of as many rows.
    """
    samples, targets = _shape(X), _shape(y)
    if len(samples) == 1 and len(targets) == 2 and samples == targets[:1] and targets[1] > 1:
        raise DataError(
            f"Expected 2D array, got 1D array instead: X has shape {samples} and y has {targets}, so they are "
            "swapped; give X, the samples, first, and then y, their targets"
        )


def _shape(values: Any) -> tuple[int, ...]:
    """The shape of an array, a frame or a list; nothing of what has none, or is of rows of unlike length."""
    try:
        return tuple(getattr(values, "shape", np.shape(values) if isinstance(values, list | tuple) else ()))
    except ValueError:
        return ()


def one_hot_refused(name: str, shape: Sequence[int], method: str | None = None) -> DataError:
    """What is said of labels, called so, that have several columns."""
    labels = f"y.{method}(axis=1)" if method else "numpy.argmax(y, axis=1)"
    return DataError(
        f"{name} has shape {tuple(shape)}: y should be a 1d array, one label for each sample; of one-hot rows those "
        f"are {labels}"
    )


def refuse_one_hot(X: Any, y: Any) -> None:
    """Refuse targets of a classifier with several columns, which may be samples.

    Raises
    ------
    DataError
        Saying how labels are made of them, or that X and y are swapped.
    """
    refuse_ragged(y)
    shape = _shape(y)  # of what is neither an array nor a list scikit-learn says what is wrong with it
    if len(shape) == 2 and shape[1] > 1:
        refuse_swapped(X, y)
        raise one_hot_refused(
            "y", shape, next((name for name in ("idxmax", "argmax") if hasattr(y, name)), None)
        )
