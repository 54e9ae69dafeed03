"""Tables as samples: columns are chosen by name, text becomes one number for each of its values, dates become days.

A table is gone through once before, to find what its columns hold over all rows; then it is streamed, a part at a time.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.data.formats.base import SourceOptions, SourceSpec, in_order
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import ColumnReport, Source
from altmin_dask.data.streams import regrouped
from altmin_dask.data.tables.checking import check, text_of
from altmin_dask.data.tables.encoding import encoded
from altmin_dask.data.tables.learning import check_targets, described, learn
from altmin_dask.data.tables.median import HELD_BYTES
from altmin_dask.data.tables.parts import DaskTable, Largest, Table, Walk, readable, unreadable
from altmin_dask.data.tables.survey import Survey
from altmin_dask.data.tables.targets import are_labels, target_rows
from altmin_dask.errors import AltMinError, ConfigError, DataError, MissingError, did_you_mean
from altmin_dask.preparation import Preparation
from altmin_dask.storage.locations import local_path
from altmin_dask.storage.zarr_groups import is_zarr_folder
from altmin_dask.table_options import TableOptions, csv_like
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd

_LOGS = {
    "_delta_log/*.json": ("Delta Lake", "deltalake"),
    "metadata/*.metadata.json": ("Iceberg", "pyiceberg"),
    ".hoodie/hoodie.properties": ("Hudi", "Spark"),
}
"""What lies beside the files of tables that others than these files know the rows of, and what reads them."""


class TableFormat(ABC):
    """A kind of files of named columns: subclasses say how they end, and how they are gone through."""

    known_as: str
    endings: tuple[str, ...]

    @abstractmethod
    def table(self, files: list[Path], folder: Path, csv: Mapping[str, Any]) -> Table:
        """Open files of the same columns, in or below a folder; only what their names take is read."""

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the names of a file, or of those in a folder."""
        return spec.path is not None and bool(self.files(spec.path))

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Go through the table once, to find what its columns hold."""
        spec.refuse_split()
        return source_of_table(spec.name, self._opened(spec, options), options)

    def columns(
        self, spec: SourceSpec, chosen: Sequence[str], csv: Mapping[str, Any] | None = None
    ) -> tuple[list[str], Iterator[pd.DataFrame]]:
        """Some columns as they are written, a part after the other, in the order of rows that samples have.

        Parameters
        ----------
        spec : SourceSpec
            The table.
        chosen : sequence of str
            Names, also several with commas in between.
        csv : mapping, optional
            How csv files are read.

        Raises
        ------
        DataError
            If one is not there, or named twice, or the files are damaged.
        """
        table = self._opened(spec, SourceOptions(like=Preparation(csv=csv or {})))
        there = table.names
        names = [name for text in chosen for name in _listed(text, there)]
        if missing := [name for name in names if name not in there]:
            raise DataError(f"{spec.name} has no column {missing[0]!r}; it has {', '.join(there)}")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise DataError(f"the column {twice[0]!r} of {spec.name} is named twice; name it once")
        return names, readable(spec.name, table.as_written(names))

    def files(self, path: Path) -> list[Path]:
        """The file, or those in a folder, in order."""
        if path.is_file():
            return [path] if self._is_one(path) else []
        if not path.is_dir():
            return []
        found = (file for file in path.iterdir() if self._is_one(file) and file.name[0] != ".")
        return sorted(found, key=in_order)

    def _is_one(self, file: Path) -> bool:
        return file.name.lower().endswith(self.endings)

    def _check_below(self, folder: Path, files: list[Path]) -> None:
        """Refuse a folder with tables in folders below it, which would be passed over."""
        read = {file.parent for file in files}
        for place, inside, names in os.walk(folder):
            here = Path(place)
            # what is hidden is no table of the user's; stores may have very many files
            inside[:] = sorted(
                each for each in inside if each[0] not in "._" and not is_zarr_folder(here / each)
            )
            passed = next(
                (name for name in sorted(names) if self._is_one(here / name) and name[0] != "."), None
            )
            if passed is not None and here not in read:
                raise DataError(
                    f"{folder} has tables in a folder below it, too ({(here / passed).relative_to(folder)}), which "
                    "would not be read; move them into one folder, or elsewhere"
                )

    def _opened(self, spec: SourceSpec, options: SourceOptions) -> Table:
        path = local_path(spec.base)
        try:
            import pandas as pd  # noqa: F401 - whether they are installed
            import pyarrow as pa  # noqa: F401
        except ImportError:
            raise MissingError(
                f"{path} cannot be read: pandas and pyarrow are not installed; `pip install 'altmin-dask[tables]'`"
            ) from None
        known = {} if options.like is None else options.like.csv
        files = self.files(path)
        if path.is_dir():
            _check_no_log(path)
            self._check_below(path, files)
        csv = csv_like(known, options.tables.csv)
        try:
            return self.table(files, path, csv)
        except AltMinError:
            raise
        except Exception as error:  # whatever pandas and pyarrow raise of a damaged file
            raise unreadable(str(path), error) from error


def _check_no_log(folder: Path) -> None:
    """Refuse files of which a log says what is still to be read: beside them, or above, where they are a part.

    Raises
    ------
    DataError
        If there is one.
    """
    for place in (folder, folder.absolute().parent):
        for log, (kind, library) in _LOGS.items():
            if any(place.glob(log)):
                raise DataError(
                    f"{place} is a table of {kind}, whose files also have rows that were removed or replaced; read it "
                    f"with {library}, and write what that gives as .parquet, or give it to an estimator"
                )


def table_source(name: str, frame: Any, options: SourceOptions) -> Source:
    """Make a source of a dataframe of dask, as `source_of_table` does.

    Parameters
    ----------
    name : str
        What messages call it.
    frame : dask.dataframe.DataFrame
        The table.
    options : SourceOptions
        As of `source_of_table`.
    """
    return source_of_table(name, DaskTable(frame), options)


def source_of_table(name: str, table: Table, options: SourceOptions) -> Source:
    """Make a source of a table.

    Parameters
    ----------
    name : str
        What messages call it.
    table : Table
        Its rows.
    options : SourceOptions
        Columns of inputs and targets, with commas in between; by default ``y`` is the target if there is such a
        column, and all others are inputs. ``like`` says how the columns of an earlier table became numbers; targets
        may be missing then. ``tables`` says what becomes of missing values, categories and dates otherwise.

    Raises
    ------
    DataError
        If a column is missing, or neither numbers, text, dates nor lists, or there are values or classes that were not
        there.
    """
    inputs, targets = _choose(table.names, options, name)
    if options.like is not None and options.like.columns:
        return _source_like(name, table, options, options.like, targets)
    how, survey = learn(table, name, inputs, targets, options.tables)
    medians = sum(options.tables.fill(column) == "median" for column in inputs)
    learning = survey.counted_bytes() + min(HELD_BYTES, 8 * survey.rows * medians)
    about = described(how, survey)
    return _source(name, table, how, targets, survey.rows, survey.largest, learning, about)


def _source_like(
    name: str, table: Table, options: SourceOptions, like: Preparation, targets: list[str]
) -> Source:
    """The source, prepared as an earlier table, whose targets may be called otherwise."""
    if replace(options.tables, csv={}) != TableOptions():
        raise ConfigError(
            f"{name} is prepared as other samples were; say nothing else of missing values, categories and dates"
        )
    how = replace(like, targets=tuple(targets)) if targets else like
    rows, there, largest = check(table, name, how, targets)
    targets = targets if there else []
    if targets and how.target is None and how.classes is None:  # of a store made before this was recorded
        survey = Survey(table, name, targets)
        check_targets(survey, targets, name, table)
        how = replace(how, target="numbers" if len(targets) > 1 else survey.kinds[targets[0]])
    source = _source(name, table, how, targets, rows, largest)
    return replace(source, preparation=replace(how, targets=like.targets or how.targets))


def _choose(names: list[str], options: SourceOptions, name: str) -> tuple[list[str], list[str]]:
    """The columns that are inputs, and those that are targets."""
    if options.like is not None and options.like.columns:
        inputs = [column.name for column in options.like.columns]
        targets = _targets_like(options.like, options, names, name)
        if options.x and sorted(_listed(options.x, names)) != sorted(inputs):
            raise ConfigError(
                f"the inputs of {name} are the columns that the samples for training had, {', '.join(inputs)}; leave "
                f"out the choice of {options.x}"
            )
    else:
        _check_literal(names, options, name)
        dropped = _dropped(names, options, name)
        targets = _listed(options.y, names) if options.y else [each for each in names if each == "y"]
        if not options.y:
            targets = [each for each in targets if each not in dropped]
        left_out = dropped.union(targets)
        inputs = _listed(options.x, names) if options.x else [each for each in names if each not in left_out]
    there = set(names)
    if missing := [column for column in (*inputs, *targets) if column not in there]:
        raise DataError(f"{name} has no column {missing[0]!r}; it has {', '.join(names)}")
    if twice := [column for column, times in Counter([*inputs, *targets]).items() if times > 1]:
        raise DataError(
            f"the column {twice[0]!r} of {name} is named twice; a column is an input or a target, once"
        )
    if not inputs:
        raise DataError(f"{name} has no columns but its targets; an input needs at least one")
    return inputs, targets


def _check_literal(names: list[str], options: SourceOptions, name: str) -> None:
    """Refuse columns whose words are said to be values, and which are not there."""
    if missing := [column for column in options.tables.csv.get("literal", ()) if column not in names]:
        raise DataError(
            f"{name} has no column {missing[0]!r} for csv's literal; it has {', '.join(names)}"
            f"{did_you_mean(missing[0], names)}"
        )


def _dropped(names: list[str], options: SourceOptions, name: str) -> set[str]:
    """The columns that are left out.

    Raises
    ------
    DataError
        If one is not there.
    ConfigError
        If one is named as a target, or the inputs are named, too.
    """
    if options.tables.drop is None:
        return set()
    dropped = _listed(options.tables.drop, names)
    if missing := [column for column in dropped if column not in names]:
        raise DataError(f"{name} has no column {missing[0]!r} to drop; it has {', '.join(names)}")
    if options.x:
        raise ConfigError(
            f"x names the inputs of {name}, and all other columns are left out anyway; leave out drop, or x"
        )
    if both := [column for column in dropped if options.y and column in _listed(options.y, names)]:
        raise ConfigError(
            f"the column {both[0]!r} of {name} is named as a target, and dropped; do one of both"
        )
    return set(dropped)


def _targets_like(like: Preparation, options: SourceOptions, names: list[str], name: str) -> list[str]:
    """The columns of targets that go with those of an earlier table: by the names given, or else by those of then."""
    given = _listed(options.y, names) if options.y else []
    if not given or given == list(like.targets):
        return list(like.targets) if set(like.targets) <= set(names) else []
    if like.targets and len(given) != len(like.targets):
        raise ConfigError(
            f"{', '.join(given)} of {name} cannot be the targets, which are {len(like.targets)} in the samples for "
            f"training: {', '.join(like.targets)}"
        )
    return given


def _listed(text: str, names: list[str]) -> list[str]:
    """Names with commas in between, and spaces after these where no name has some; or one that has commas itself."""
    if text in names:
        return [text]
    return [each if each in names else each.strip() for each in text.split(",")]


def _source(
    name: str,
    table: Table,
    how: Preparation,
    targets: list[str],
    rows: int,
    largest: Largest,
    learning: int = 0,
    about: Sequence[ColumnReport] = (),
) -> Source:
    """The streams of inputs and targets, which go through the same parts side by side."""
    columns = [*(column.name for column in how.columns), *targets]
    width = len(how.names) + len(targets)
    reading = largest.reading_bytes(len(columns) / len(table.names), width, learning)

    def opened() -> Iterator[pd.DataFrame]:
        return readable(name, table.parts(columns, text=text_of(how)))

    def made(part: pd.DataFrame) -> tuple[Array, Array | None]:
        return encoded(part, how, name), target_rows(part, how, targets, name) if targets else None

    walk = Walk(opened, made, rows, name)

    def blocks(which: int) -> Callable[[int], Iterator[Array]]:
        return lambda rows_each: regrouped((found[which] for found in walk.stream()), rows_each)

    x = RowReader(f"x of {name}", (rows, len(how.names)), np.dtype(np.float64), blocks(0))
    if not targets:
        return Source(
            name, x, preparation=how, columns=tuple(about), reading_bytes=reading, where=table.where
        )
    shape = (rows,) if len(targets) == 1 else (rows, len(targets))
    y = RowReader(f"y of {name}", shape, np.dtype(np.int64 if are_labels(how) else np.float64), blocks(1))
    found = Source(name, x, y, preparation=how, columns=tuple(about), reading_bytes=reading)
    return replace(found, where=table.where)
