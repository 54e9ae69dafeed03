"""The targets of rows of a table: labels, names of classes, numbers or dates, as they were for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.data.tables.kinds import BOOLEAN, NUMBERS, WHOLE, kind_of
from altmin_dask.data.tables.values import days, numbers, other, texts
from altmin_dask.errors import DataError
from altmin_dask.preparation import Preparation
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd


def are_text(how: Preparation) -> bool:
    """Whether targets are read as they are written."""
    return how.target in ("text", "dates") or _named(how)


def are_labels(how: Preparation) -> bool:
    """Whether targets become integers."""
    return how.target == "integers" or _named(how)


def _named(how: Preparation) -> bool:
    return how.classes is not None and how.labels is None


def target_rows(part: pd.DataFrame, how: Preparation, targets: Sequence[str], where: str) -> Array:
    """The targets of a part of a table: labels in int64, or numbers in float64, (rows,) or (rows, targets).

    Raises
    ------
    DataError
        If they are other than those of the samples for training.
    """
    if _named(how):
        return _labels(part[targets[0]], how.classes or (), where)
    if how.target == "integers":
        return _integers(part[targets[0]], where)
    read = days if how.target == "dates" else numbers
    found = [read(part[target], where) for target in targets]
    return found[0] if len(found) == 1 else np.stack(found, axis=1)


def _labels(values: pd.Series[Any], classes: Sequence[str], where: str) -> Array:
    codes, distinct = texts(values)
    known = {value: place for place, value in enumerate(classes)}
    if new := [value for value in distinct if value not in known]:
        raise DataError(
            f"{where} has {new[0]!r} in the column {values.name!r}, which the data for training had not; leave such "
            "rows out"
        )
    return np.array([known[value] for value in distinct], np.int64)[codes]


def _integers(values: pd.Series[Any], where: str) -> Array:
    kind = kind_of(values, where)
    if kind & ~NUMBERS:
        raise other(values, "whole numbers", where)
    if kind not in (BOOLEAN, WHOLE):
        found = numbers(values, where)
        if not (found == np.floor(found)).all():
            raise DataError(
                f"{where} has decimals in the column {values.name!r}, which has whole numbers in the data for training"
            )
        return found.astype(np.int64)
    held = np.iinfo(np.int64)
    if values.max() > held.max or values.min() < held.min:  # which would wrap round
        raise DataError(
            f"{where} has numbers from 2^63 on in the column {values.name!r}, which are no labels"
        )
    return values.to_numpy(dtype=np.int64)
