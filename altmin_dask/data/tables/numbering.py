"""Columns that number the rows: each row has a number of its own, so that they say nothing of rows that are new."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from altmin_dask.types import Array

LEAST = 50
"""So many rows may count something else than rows (as of names that tell rows apart; chosen, not measured)."""
HELD = 1_000_000
"""Numbers of a column that are held to see whether there are equal ones: of more rows, those of the first."""
_CALLED = re.compile(r"(?:.*[\s_.-])?(?:id|idx|index)|unnamed: 0|row[\s_.-]?(?:number|no|nr)?", re.IGNORECASE)


class Numbering:
    """Which columns of numbers count the rows, or are called so and have another number in each.

    Parameters
    ----------
    columns : sequence of str
        What they are called.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._rising = np.ones(len(columns), bool)
        self._last = np.full(len(columns), np.nan)
        self._held: dict[int, list[Array]] = {
            place: [] for place, column in enumerate(columns) if _CALLED.fullmatch(column)
        }
        self._rows = np.zeros(len(columns), np.int64)

    def add(self, places: Any, values: Array) -> None:
        """Take note of the numbers of some columns, in the order of rows.

        Parameters
        ----------
        places : sequence of int
            The columns.
        values : ndarray, (rows, len(places)), float64
            NaN is missing.
        """
        places = np.asarray(places)
        last, first = self._last[places], values[0]
        still = self._rising[places] & (np.isnan(last) & (self._rows[places] == 0) | (first == last + 1))
        for own in np.flatnonzero(still):
            steps = np.diff(values[:2, own])
            still[own] = bool((steps == 1).all()) and bool((np.diff(values[:, own]) == 1).all())
        self._rising[places], self._last[places] = still, values[-1]
        for place, held in self._held.items():
            if (room := HELD - int(self._rows[place])) > 0 and (here := np.flatnonzero(places == place)).size:
                held.append(values[:room, here[0]].copy())
        self._rows[places] += len(values)

    def counts(self, place: int) -> bool:
        """Whether a column numbers the rows."""
        if self._rows[place] <= LEAST:
            return False
        if self._rising[place]:
            return True
        held = self._held.get(place)
        if not held:
            return False
        values = np.concatenate(held)
        return len(np.unique(values)) == len(values)  # several that are missing are one
