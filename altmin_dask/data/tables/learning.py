"""How the columns of a table become numbers: found on the samples for training, and recorded for all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from altmin_dask.data.source import ColumnReport
from altmin_dask.data.tables.encoding import encoded, missing_values
from altmin_dask.data.tables.looks import (
    check_names,
    warn_of_compact_dates,
    warn_of_looks,
    warn_of_names,
    warn_of_numbering,
)
from altmin_dask.data.tables.median import medians
from altmin_dask.data.tables.parts import Table, first_missing, first_with, readable
from altmin_dask.data.tables.spelling import spelling, warn_of_codes
from altmin_dask.data.tables.survey import Survey
from altmin_dask.data.tables.words import warn_of_words
from altmin_dask.data.tables.zones import all_zoned, warn_of_zones
from altmin_dask.errors import ConfigError, DataError, warn
from altmin_dask.preparation import Column, Preparation
from altmin_dask.table_options import ALL, TableOptions
from altmin_dask.types import Array

NO_VALUE = "missing_value"
"""The category in place of missing values, of scikit-learn's SimpleImputer."""
MOST_RECORDED = 10_000
"""Infrequent values that are recorded, to tell them from those that are new."""
_SHOWN = 5


def learn(
    table: Table, name: str, inputs: Sequence[str], targets: Sequence[str], options: TableOptions
) -> tuple[Preparation, Survey]:
    """Go through a table, and say how its columns become numbers.

    Raises
    ------
    DataError
        If a column cannot, has missing values that nothing is said of, or a target has some at all.
    """
    if absent := [column for column in options.missing if column not in (ALL, *inputs)]:
        raise DataError(
            f"missing names the column {absent[0]!r}, which is no input of {name}; it has {', '.join(inputs)}"
        )
    survey = Survey(table, name, [*inputs, *targets])
    warn_of_words(survey.words, name)
    warn_of_zones(survey.zones, name)
    check_targets(survey, targets, name, table)
    lacking = [each for each in inputs if survey.missing_of(each) and options.fill(each) == "refuse"]
    if lacking:
        column, *others = lacking
        there = first_missing(table, name, [column])
        raise missing_values(name, column, survey.missing_of(column), others, trained=False, there=there)
    columns = [_column(survey, column, options, name) for column in inputs]
    columns = _with_medians(table, name, columns, survey, options)
    _warn_of_empty(columns, name)
    warn_of_numbering(inputs, survey, name)
    warn_of_compact_dates(inputs, survey, name)
    if table.written:
        check_names(table, name, survey)
        warn_of_codes(table, name, [column for column in inputs if survey.kinds[column] == "integers"])
    for column in (*inputs, *targets):
        if survey.kinds[column] == "text":
            if not table.written and survey.is_of_several_types(column):
                warn(
                    f"{name} has text in the column {column!r} in some of its files or parts, and numbers in others: "
                    "all its values are taken for text, one category each; write them with one type"
                )
            where = partial(first_with, table, name, column)
            warn_of_looks(column, survey.counts[column], name, written=table.written, where=where)
            if column in inputs:
                warn_of_names(column, survey.counts[column], name)
    kind, classes = survey.kinds[targets[0]] if targets else None, None
    if kind == "text":
        classes = tuple(sorted(survey.counts[targets[0]]))
    whole = kind == "integers" and len(targets) == 1
    how = Preparation(
        tuple(columns),
        tuple(targets),
        classes,
        target="numbers" if len(targets) > 1 else kind,
        unknown=options.handle_unknown,
        csv=dict(options.csv),
        spelled=spelling(table, name, survey, targets[0]) if whole else (),
    )
    return how, survey


def check_targets(survey: Survey, targets: Sequence[str], name: str, table: Table) -> None:
    """Refuse targets without a value, text beside other targets, and lists."""
    for column in targets:
        kind = survey.kinds[column]
        if missing := survey.missing_of(column):
            raise DataError(
                f"{name} has no value in the target {column!r} in {missing} row{'s' if missing > 1 else ''} of "
                f"{survey.rows} ({first_missing(table, name, [column])}); leave such rows out"
            )
        if len(targets) > 1 and kind == "text":
            raise DataError(f"{name} has text in the column {column!r}; only a single target may be text")
        if kind == "lists":
            raise DataError(
                f"{name} has lists in the target {column!r}; give a column for each of their numbers"
            )


def _column(survey: Survey, name: str, options: TableOptions, where: str) -> Column:
    """What becomes of an input, but for its median."""
    kind, missing, word = survey.kinds[name], survey.missing_of(name), options.fill(name)
    column = Column(name, indicator=bool(missing))
    if kind == "empty":
        return replace(column, empty=True)
    if kind == "lists":
        return Column(name, size=survey.sizes[name])
    if kind == "text":
        fill = _category(survey.counts[name], word)
        return _categories(replace(column, fill=fill), survey.counts[name], missing, survey.rows, options)
    if word != "refuse":
        column = replace(column, fill=_number(survey, name, word, where))
    if kind != "dates":
        return column
    return replace(column, date=True, cyclic=options.dates == "cyclic", zoned=all_zoned(survey.zones[name]))


def _number(survey: Survey, name: str, word: str, where: str) -> float:
    """What stands for a missing number."""
    constant = word.partition(":")[2]
    try:
        return survey.mean_of(name) if word == "mean" else float(constant or 0)
    except ValueError:
        raise ConfigError(
            f"missing is {word!r} for the column {name!r} of {where}, which has numbers; write one"
        ) from None


def _category(counts: Counter[str], word: str) -> str | None:
    """What stands for missing text: of several that are as frequent, the first in order."""
    if word == "refuse":
        return None
    if word.startswith("constant"):
        return word.partition(":")[2] or NO_VALUE
    return min(counts, key=lambda value: (-counts[value], value))


def _categories(
    column: Column, counts: Counter[str], missing: int, rows: int, options: TableOptions
) -> Column:
    """Which values have a number of their own, as scikit-learn's OneHotEncoder decides it after SimpleImputer."""
    if missing and column.fill is not None:
        counts = counts + Counter({str(column.fill): missing})
    values = sorted(counts)
    amounts = np.array([counts[value] for value in values])
    rare = np.zeros(len(values), bool)
    least = options.min_frequency
    if least is not None:
        rare = amounts < (least if least >= 1 else least * rows)
    most = options.max_categories
    if most is not None and most < len(values) - rare.sum() + 1:
        rare[np.argsort(amounts, kind="stable")[: len(values) - (most - 1)]] = True
    frequent = tuple(value for value, alone in zip(values, ~rare, strict=True) if alone)
    others = tuple(value for value, together in zip(values, rare, strict=True) if together)
    if len(others) > MOST_RECORDED:
        return replace(column, values=frequent, rest=True)
    return replace(column, values=frequent, infrequent=others)


def _with_medians(
    table: Table, name: str, columns: list[Column], survey: Survey, options: TableOptions
) -> list[Column]:
    """Fill in medians, which take another pass."""
    wanted = [
        place
        for place, column in enumerate(columns)
        if options.fill(column.name) == "median"
        and not column.empty
        and column.values is None
        and column.size is None
    ]
    if not wanted:
        return columns
    plain = {
        columns[place].name: replace(columns[place], fill=np.nan, indicator=False, cyclic=False)
        for place in wanted
    }

    def blocks(chosen: Sequence[str]) -> Iterator[Array]:
        how = Preparation(tuple(plain[each] for each in chosen))
        dates = [each for each in chosen if plain[each].date]
        return (encoded(part, how, name) for part in readable(name, table.parts(chosen, text=dates)))

    names = [columns[place].name for place in wanted]
    found = medians(names, [survey.rows - survey.missing_of(each) for each in names], blocks)
    columns = list(columns)
    for place, median in zip(wanted, found, strict=True):
        columns[place] = replace(columns[place], fill=median)
    return columns


def _warn_of_empty(columns: Sequence[Column], name: str) -> None:
    if empty := [column.name for column in columns if column.empty]:
        warn(f"{name} has no value at all in {_listed(empty)}, of which only is left that it is missing")


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:_SHOWN]))}{more}"


def described(how: Preparation, survey: Survey) -> list[ColumnReport]:
    """What was found of the inputs."""
    return [
        ColumnReport(
            column.name,
            _words(column),
            survey.missing_of(column.name),
            *(survey.range_of(column.name) if column.measured[:1] == [True] and column.size is None else ()),
        )
        for column in how.columns
    ]


def _words(column: Column) -> str:
    if column.empty:
        return "ignored"
    if column.size is not None:
        return f"list of {column.size}"
    if column.values is not None:
        return f"one-hot of {len(column.own_names)}" + (
            " (one of them for all infrequent)" if column.groups else ""
        )
    return ("date, with cycles" if column.cyclic else "date") if column.date else "number"
