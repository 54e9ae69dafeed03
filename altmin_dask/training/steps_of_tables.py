"""Rows of a table as sequences: whether cut into steps, every step has the same columns, in the order of time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from altmin_dask.errors import DataError
from altmin_dask.preparation import Column

_NUMBERED = re.compile(r"(.*?)[ _.\-]*([0-9]+)")
_NUMBER = re.compile(r"[0-9]+")
_SHOWN = 12
"""Columns that are named at most."""


def check_steps(name: str, columns: Sequence[Column], steps: int) -> None:
    """Refuse a table whose rows would not be cut where steps begin, or whose columns stand feature by feature.

    Parameters
    ----------
    name : str
        What messages call the table.
    columns : sequence of Column
        Its inputs, in order; none of what is no table.
    steps : int
        Into how many a row is cut.

    Raises
    ------
    DataError
        If it is none of (step 1, feature 1), (step 1, feature 2), …, (step 2, feature 1), ….
    """
    each, rest = divmod(len(columns), steps)
    if not columns:
        return
    if rest:
        raise DataError(
            f"{name} has {len(columns)} columns of inputs, which are no multiple of network.steps = {steps}; give the "
            "same columns for every step, or leave others out by --drop (data.drop of a pipeline)"
        )
    kinds = [replace(column, name="", fill=None) for column in columns]
    odd = next((place for place, kind in enumerate(kinds) if kind != kinds[place % each]), None)
    if odd is not None:
        first, other = columns[odd % each], columns[odd]
        raise DataError(
            f"{name} cannot be cut into {steps} steps: the column {first.name!r} becomes {_words(first)}, and "
            f"{other.name!r}, which stands in its place at another step, {_words(other)}; fill in missing values in "
            "the table and write text as numbers, so that steps are alike, or leave out what is of no step (data.drop)"
        )
    _check_order(name, [column.name for column in columns], steps)


def _words(column: Column) -> str:
    count = len(column.names)
    what = f"{count} number{'s' * (count > 1)}"
    return f"{what} (one says where it is missing)" if column.indicator else what


def _check_order(name: str, names: Sequence[str], steps: int) -> None:
    """Refuse numbered names that are not in the order of steps: a_1, a_2, b_1, b_2, or a_1, a_10, a_2."""
    found = [match.groups() for each in names if (match := _NUMBERED.fullmatch(each))]
    features = list(dict.fromkeys(feature for feature, _ in found))
    if len(found) != len(names) or len(features) * steps != len(names):
        return
    times = {(feature, int(number)): each for (feature, number), each in zip(found, names, strict=True)}
    numbers = sorted({number for _, number in times})
    if len(numbers) != steps or len(times) != len(names):
        return
    if _count(features, steps):  # those at the end are of features then
        return
    for order in (numbers, numbers[::-1]):
        cut = [(feature, number) for number in order for feature in features]
        if [times[each] for each in cut] == list(names):
            return
    right = [times[feature, number] for number in numbers for feature in features]
    shown = ",".join(right if len(right) <= _SHOWN else [*right[: len(features) + 1], "…"])
    raise DataError(
        f"{name} has its columns in another order than that of {steps} steps, as their names say "
        f"({', '.join(names[:3])}, …); name all of a step before those of the next, by --x {shown} (data.x of a "
        "pipeline)"
    )


def _count(features: Sequence[str], steps: int) -> bool:
    """Whether names number the steps, up or down, as those of t1_a1, t1_a2, t2_a1, … do."""
    numbers = [[int(number) for number in _NUMBER.findall(each)] for each in features]
    words = {_NUMBER.sub("#", each) for each in features}
    several = len(features) == steps > 1 and len(words) == 1
    return several and numbers in (sorted(numbers), sorted(numbers, reverse=True))
