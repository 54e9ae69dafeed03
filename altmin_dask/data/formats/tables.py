"""Tables as samples, whatever files they are in: columns of numbers and text, through dask, partition by partition."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.data.checks import check_whole
from altmin_dask.data.formats.base import SourceOptions, SourceSpec
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.data.streams import regrouped
from altmin_dask.errors import DataError, MissingError
from altmin_dask.preparation import Column, Preparation
from altmin_dask.storage.locations import local_path
from altmin_dask.storage.remote import reason
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd

MAX_VALUES = 1000
"""Values of a column that still become a number each: more is an identifier rather than a category."""


class TableFormat(ABC):
    """A kind of files of named columns: subclasses say how they end, and how dask opens them."""

    known_as: str
    endings: tuple[str, ...]

    @abstractmethod
    def frame(self, files: list[str]) -> Any:
        """Open files of the same columns as one dataframe of dask, which is installed."""

    def as_written(self, files: list[str]) -> Any:
        """Open them as `frame` does, with values as they stand there: not made numbers, nor cut to those of NumPy."""
        return self.frame(files)

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the names of a file, or of those in a folder."""
        return spec.path is not None and bool(self._files(spec.path))

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Go through the table once, to count rows and values."""
        spec.refuse_split()
        return table_source(spec.name, self._opened_by(self.frame, local_path(spec.base)), options)

    def columns(self, spec: SourceSpec, chosen: Sequence[str]) -> tuple[list[str], Iterator[pd.DataFrame]]:
        """Some columns as they are written, a part after the other, in the order of rows that samples have.

        Parameters
        ----------
        spec : SourceSpec
            The table.
        chosen : sequence of str
            Names, also several with commas in between.

        Raises
        ------
        DataError
            If one is not there, or named twice, or the files are damaged.
        """
        frame = self._opened_by(self.as_written, local_path(spec.base))
        frame.columns = there = [str(column) for column in frame.columns]
        names = [name for text in chosen for name in _listed(text, there)]
        if missing := [name for name in names if name not in there]:
            raise DataError(f"{spec.name} has no column {missing[0]!r}; it has {', '.join(there)}")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise DataError(f"the column {twice[0]!r} of {spec.name} is named twice; name it once")
        parts = frame[names].to_delayed()

        def read(part: Any) -> pd.DataFrame:
            found: pd.DataFrame = _computed(spec.name, lambda: part.compute(scheduler="sync"))
            return found

        return names, map(read, parts)

    def _files(self, path: Path) -> list[str]:
        if path.is_file():
            return [str(path)] if path.name.endswith(self.endings) else []
        if not path.is_dir():
            return []
        return sorted(str(file) for file in path.iterdir() if file.name.endswith(self.endings))

    def _opened_by(self, frame: Callable[[list[str]], Any], path: Path) -> Any:
        try:
            import dask.dataframe  # noqa: F401 - whether it is installed
        except ImportError:
            raise MissingError(
                f"{path} cannot be read: dask's dataframes are not installed; `pip install 'altmin-dask[tables]'`"
            ) from None
        files = [os.path.join(".", file) for file in self._files(path)]  # or `data:a.csv` would be a URL
        for file in files:
            if "::" in file or has_magic(file):
                raise DataError(
                    f"{file} cannot be read as a table: dask takes such a name for a pattern or a chain of URLs; "
                    "give it another one, or read it by a link"
                )
        try:
            return frame(files)
        except DataError:
            raise
        except Exception as error:  # whatever pandas and pyarrow raise of a damaged file
            raise DataError(f"{path} cannot be read as a table: {reason(error)}") from error


def table_source(name: str, frame: Any, options: SourceOptions) -> Source:
    """Make a source of a dataframe; columns of text become one number for each of their values.

    Parameters
    ----------
    name : str
        What messages call it.
    frame : dask.dataframe.DataFrame
        The table.
    options : SourceOptions
        Columns of inputs and targets, with commas in between; by default ``y`` is the target if there is such a
        column, and all others are inputs. ``like`` has the columns, values and classes of an earlier table; targets
        may be missing then.

    Raises
    ------
    DataError
        If a column is missing, or neither numbers nor text, or there are values or classes that were not there.
    """
    names = [str(column) for column in frame.columns]
    frame.columns = names
    inputs, targets = _choose(names, options, name)
    kinds = {column: _kind(frame.dtypes[column], column, name) for column in (*inputs, *targets)}
    text = [column for column, kind in kinds.items() if kind == "text"]
    sizes, values = _look(frame[[*inputs, *targets]], text, name)
    if sum(sizes) == 0:
        raise DataError(f"{name} has no rows; give it at least one sample")
    like = options.like
    if like is not None and like.columns:
        _check_like(like, targets, values, name)
        how = like
    else:
        classes = _classes(targets, values, name)
        how = Preparation(tuple(Column(c, values.get(c)) for c in inputs), tuple(targets), classes)
    return _source(name, frame[[*inputs, *targets]].to_delayed(), sizes, how, targets, kinds)


def _choose(names: list[str], options: SourceOptions, name: str) -> tuple[list[str], list[str]]:
    """The columns that are inputs, and those that are targets."""
    if options.like is not None and options.like.columns:
        inputs = [column.name for column in options.like.columns]
        targets = list(options.like.targets) if set(options.like.targets) <= set(names) else []
    else:
        targets = _listed(options.y, names) if options.y else (["y"] if "y" in names else [])
        inputs = _listed(options.x, names) if options.x else [each for each in names if each not in targets]
    if missing := [column for column in (*inputs, *targets) if column not in names]:
        raise DataError(f"{name} has no column {missing[0]!r}; it has {', '.join(names)}")
    if twice := [column for column, times in Counter([*inputs, *targets]).items() if times > 1]:
        raise DataError(
            f"the column {twice[0]!r} of {name} is named twice; a column is an input or a target, once"
        )
    if not inputs:
        raise DataError(f"{name} has no columns but its targets; an input needs at least one")
    return inputs, targets


def _listed(text: str, names: list[str]) -> list[str]:
    """Names with commas in between, and spaces after these where no name has some; or one that has commas itself."""
    if text in names:
        return [text]
    return [each if each in names else each.strip() for each in text.split(",")]


def _classes(targets: list[str], values: Mapping[str, tuple[str, ...]], name: str) -> tuple[str, ...] | None:
    """The values of a target that is text, which becomes labels; None if it is numbers."""
    of_text = [column for column in targets if column in values]
    if of_text and len(targets) > 1:
        raise DataError(f"{name} has text in the column {of_text[0]!r}; only a single target may be text")
    return values[of_text[0]] if of_text else None


def _check_like(
    like: Preparation, targets: list[str], values: Mapping[str, tuple[str, ...]], name: str
) -> None:
    """Refuse values and classes that the data for training had not."""
    for column in like.columns:
        _check_values(values.get(column.name), column.values, column.name, name)
    if targets:
        _check_values(values.get(targets[0]), like.classes, targets[0], name)


def _kind(dtype: Any, column: str, name: str) -> str:
    """What a column holds: "integers", "numbers" or "text"."""
    from pandas.api import types

    if types.is_bool_dtype(dtype) or types.is_integer_dtype(dtype):
        return "integers"
    if types.is_float_dtype(dtype) or str(dtype).startswith("decimal"):  # of pyarrow
        return "numbers"
    of_python = isinstance(dtype, np.dtype) and dtype.kind == "O"  # of which `_look` sees what they are
    if of_python or types.is_string_dtype(dtype) or isinstance(dtype, types.CategoricalDtype):
        return "text"
    raise _unusable(name, column, str(dtype))


def _unusable(name: str, column: str, what: str) -> DataError:
    return DataError(
        f"{name} has {what} in the column {column!r}; give numbers or text, or leave it out by --x NAME,NAME,…"
    )


def _look(frame: Any, text: Sequence[str], name: str) -> tuple[list[int], dict[str, tuple[str, ...]]]:
    """Rows of every partition, and the values of columns of text."""
    from dask.base import compute
    from dask.delayed import delayed  # slow to import, and only tables need it
    from pandas.api.types import infer_dtype

    def look(part: pd.DataFrame) -> tuple[int, dict[str, set[str]]]:
        for column in text:
            if part[column].isna().any():
                raise DataError(f"{name} has missing values in the column {column!r}; fill them in")
            if part[column].dtype == object and (of := infer_dtype(part[column])) not in ("string", "empty"):
                raise _unusable(name, column, f"objects ({of})")
        return len(part), {column: set(map(str, part[column].unique())) for column in text}

    found = _computed(name, lambda: compute(*map(delayed(look), frame.to_delayed()), scheduler="threads"))
    values = {column: tuple(sorted(set().union(*(own[column] for _, own in found)))) for column in text}
    for column, some in values.items():
        if len(some) > MAX_VALUES:
            raise DataError(
                f"{name} has {len(some)} values in the column {column!r}, of which each would become a number; "
                "leave it out by --x NAME,NAME,…"
            )
    return [rows for rows, _ in found], values


def _computed(name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} cannot be read as a table: {reason(error)}") from error


def _check_values(
    found: tuple[str, ...] | None, known: tuple[str, ...] | None, column: str, name: str
) -> None:
    if (found is None) != (known is None):
        is_now = "text" if known is None else "numbers"
        raise DataError(f"{name} has {is_now} in the column {column!r}, other than the data for training")
    if new := sorted(set(found or ()) - set(known or ())):
        raise DataError(
            f"{name} has {new[0]!r} in the column {column!r}, which the data for training had not; leave such rows out"
        )


def _source(
    name: str,
    parts: Sequence[Any],
    sizes: list[int],
    how: Preparation,
    targets: list[str],
    kinds: dict[str, str],
) -> Source:
    """The streams of inputs and targets, which go through the same partitions side by side."""

    @lru_cache(maxsize=2)
    def read(number: int) -> tuple[Array, Array | None]:
        part = _computed(name, lambda: parts[number].compute(scheduler="sync"))
        x = _inputs(part, how, name)
        return x, _targets(part, targets, how.classes, integers, name) if targets else None

    integers = all(kinds[column] == "integers" for column in targets)
    labels = len(targets) == 1 and (integers or how.classes is not None)
    rows = sum(sizes)

    def blocks(which: int, rows_each: int) -> Iterator[Array]:
        return regrouped((read(number)[which] for number in range(len(parts))), rows_each)  # type: ignore[misc]

    x = RowReader(f"x of {name}", (rows, len(how.names)), np.dtype(np.float64), lambda n: blocks(0, n))
    if not targets:
        return Source(name, x, preparation=how)
    shape = (rows,) if len(targets) == 1 else (rows, len(targets))
    dtype = np.dtype(np.int64 if labels else np.float64)
    y = RowReader(f"y of {name}", shape, dtype, lambda n: blocks(1, n))
    return Source(name, x, y, preparation=how)


def _inputs(part: pd.DataFrame, how: Preparation, name: str) -> Array:
    columns = []
    for column in how.columns:
        if column.values is None:
            _check_whole(part[column.name], name)
            columns.append(part[column.name].to_numpy(dtype=np.float64, na_value=np.nan)[:, None])
        else:
            columns.append(
                part[column.name].astype(str).to_numpy(dtype=object)[:, None] == np.array(column.values)
            )
    return np.concatenate(columns, axis=1, dtype=np.float64, casting="unsafe")


def _check_whole(column: pd.Series[Any], name: str) -> None:
    """Refuse whole numbers that float64 does not hold."""
    from pandas.api import types

    if types.is_integer_dtype(column.dtype):
        unsigned = types.is_unsigned_integer_dtype(column.dtype)
        values = column.dropna().to_numpy(dtype=np.uint64 if unsigned else np.int64)
        check_whole(values, f"the column {column.name!r} of {name}")


def _targets(
    part: pd.DataFrame, targets: list[str], classes: tuple[str, ...] | None, integers: bool, name: str
) -> Array:
    if classes is not None:
        return np.searchsorted(np.array(classes), part[targets[0]].astype(str).to_numpy(dtype=str))
    if len(targets) == 1 and integers:
        if (
            _kind(part[targets[0]].dtype, targets[0], name) != "integers"
        ):  # dask takes the first part's word for all
            raise DataError(
                f"{name} has whole numbers first and others later in the column {targets[0]!r}: classes, or values? "
                "Write all of them as decimals, or as whole numbers"
            )
        if part[targets[0]].max() > np.iinfo(np.int64).max:  # which would wrap round
            raise DataError(
                f"{name} has numbers from 2^63 on in the column {targets[0]!r}, which are no labels"
            )
        return part[targets[0]].to_numpy(dtype=np.int64)
    for target in targets:
        _check_whole(part[target], name)
    values = part[targets].to_numpy(dtype=np.float64, na_value=np.nan)
    return values[:, 0] if len(targets) == 1 else values
