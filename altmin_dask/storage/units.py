"""In what units inputs were in training: columns that are in others where a model is used are told by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from altmin_dask.errors import warn
from altmin_dask.preparation import Preparation
from altmin_dask.types import Array

FAR, FEW_FAR = 10.0, 30.0
"""A column whose median is so many deviations off the mean in training is told of; of few rows, which may be rare ones,
so many (chosen: none of digits, iris, wine, breast cancer and diabetes by class or of single rows is)."""
UNLIKE = 10.0
"""So is one that is spread so many times as far, or as little and about as close to 0."""
ALIKE = 3.0
RARE = 0.01
"""Of few rows, more than this share of the columns is off, not only numbers that are rare in wide ones (chosen)."""
ENOUGH = 20
"""Rows that tell of a spread."""
LOOKED_AT = 50_000
"""Numbers in memory that are looked at, in `ENOUGH` rows or more: they take half a millisecond."""
_WIDTH = 2.563
"""What 80 % of a normal distribution lie in, in deviations."""
_SHOWN = 3
_FIELDS = ("mean", "deviation", "spread", "middle")


@dataclass(frozen=True, eq=False)
class Units:
    """What is known of the columns that were trained on, as they were prepared.

    Attributes
    ----------
    mean, deviation, spread, middle : ndarray of float64, (k,)
        Of each its mean, deviation, how far 80 % of its numbers lie apart, in deviations, and median; all 0 where it
        hardly varied.
    """

    mean: Array
    deviation: Array
    spread: Array
    middle: Array

    @classmethod
    def of(cls, rows: Array, measured: Array | None = None) -> Self:
        """Of some rows (n, k), in whatever order; only what is `measured` has a unit."""
        rows = np.sort(np.asarray(rows, np.float64), axis=0)
        usual = rows[len(rows) // 2]
        known = (rows != usual).sum(axis=0) >= ENOUGH / 2
        if measured is not None:
            known &= measured
        with np.errstate(over="ignore", invalid="ignore"):
            found = rows.mean(axis=0), rows.std(axis=0), _spread(rows), np.median(rows, axis=0)
        return cls(*(np.where(known & np.isfinite(found[1]), each, 0.0) for each in found))

    def tensors(self) -> dict[str, Array]:
        """As arrays by name."""
        return {f"x_{name}": np.ascontiguousarray(getattr(self, name)) for name in _FIELDS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array], columns: int) -> Self | None:
        """Undo `tensors`; None where they are not there, or of other columns."""
        found = [tensors.get(f"x_{name}") for name in _FIELDS]
        if any(each is None or each.ndim != 1 or not each.size or columns % each.size for each in found):
            return None
        return cls(*(each for each in found if each is not None))

    def warn_of_others(self, rows: Array, name: str, scale: float, how: Preparation | None) -> None:
        """Tell of columns that are in other units than in training.

        Parameters
        ----------
        rows : ndarray, (n, k)
            Some rows, prepared as those for training were.
        name : str
            What messages call the samples.
        scale, how : float, Preparation or None
            What was done to raw samples, which are told of.
        """
        factor, shift = np.full(len(self.mean), scale), np.zeros(len(self.mean))
        if how is not None and how.x is not None and len(how.x.scale) == len(self.mean):
            factor, shift = factor * np.array(how.x.scale), scale * np.array(how.x.shift)
        rows = np.asarray(rows, np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)] * factor + shift
        if not len(rows):
            return
        own = Units(
            self.mean * factor + shift,
            self.deviation * factor,
            self.spread * factor,
            self.middle * factor + shift,
        )
        off = own._off(rows)
        places = np.flatnonzero(off > 1)
        if not places.size:
            return
        names = [] if how is None else how.names
        first = places[np.argsort(-off[places], kind="stable")][:_SHOWN].tolist()
        mean, deviation = own.mean, own.deviation
        told = []
        for place in first:
            values = rows[:, place]
            called = repr(names[place]) if len(names) == len(mean) else f"{place} (counted from 0)"
            more = f", deviation {values.std():.3g}" if len(values) > 1 else ""
            told.append(
                f"column {called}: mean {values.mean():.3g}{more}, where training had {mean[place]:.3g}, deviation "
                f"{deviation[place]:.3g}"
            )
        others = f"; and {places.size - len(first)} more columns" if places.size > len(first) else ""
        warn(
            f"{name} has numbers far from those in training, as in another unit: {'; '.join(told)}{others}; give them "
            "in the unit they had in training"
        )

    def _off(self, rows: Array) -> Array:
        """How far each column of some rows is off, of which more than 1 is told, (k,)."""
        few, varied, middle = len(rows) < ENOUGH, self.deviation > 0, np.median(rows, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            away = np.abs(middle - self.mean) / self.deviation / (FEW_FAR if few else FAR)
            if few:
                away = np.where(varied, away, 0.0)
                return np.zeros_like(away) if (away > 1).sum() <= RARE * varied.sum() else away
            own = _spread(np.sort(rows, axis=0))
            wider = own / np.maximum(self.deviation, self.spread) / UNLIKE
            close = np.abs(middle) * UNLIKE < np.abs(self.mean) + self.deviation
            # what is divided is spread as far as before for its size; rows that are alike are not
            ratio = own / np.abs(middle) * np.abs(self.middle) / self.spread
            alike = close & (own > 0) & (np.abs(np.log(ratio)) < np.log(ALIKE))
            narrower = np.where(alike, self.spread / own / UNLIKE, 0.0)
        return np.where(
            varied, np.maximum.reduce([np.nan_to_num(each) for each in (away, wider, narrower)]), 0.0
        )


def _spread(rows: Array) -> Array:
    """How far the middle 80 % of rows in order lie apart, in deviations of a normal distribution, (k,)."""
    tenth = len(rows) // 10
    found: Array = (rows[-1 - tenth] - rows[tenth]) / _WIDTH
    return found
