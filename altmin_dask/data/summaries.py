"""What is recorded of samples while they are ingested: their ranges, and that they are finite."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from altmin_dask.errors import DataError
from altmin_dask.types import Array


@dataclass(frozen=True)
class Summary:
    """What is known of all values of a store without reading it again.

    Attributes
    ----------
    x_min, x_max : float
        Range of the inputs.
    y_min, y_max : float or None
        Range of the targets, ints for integer labels (so classes number at least ``y_max + 1``); None without
        targets.
    y_integer : bool
        Whether the targets are integer labels.
    """

    x_min: float
    x_max: float
    y_min: float | None
    y_max: float | None
    y_integer: bool

    def merge(self, other: Summary) -> Summary:
        """Summarise the union of two sets of samples of the same kind.

        Raises
        ------
        DataError
            If only one has targets, or only one has integer labels.
        """
        if self.y_integer != other.y_integer or (self.y_min is None) != (other.y_min is None):
            raise DataError(
                "summaries of different kinds of targets cannot be merged; use samples of one kind"
            )
        return Summary(
            min(self.x_min, other.x_min),
            max(self.x_max, other.x_max),
            None if self.y_min is None or other.y_min is None else min(self.y_min, other.y_min),
            None if self.y_max is None or other.y_max is None else max(self.y_max, other.y_max),
            self.y_integer,
        )

    def to_json(self) -> dict[str, Any]:
        """Give the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Summary:
        """Make the summary that `to_json` gave the fields of."""
        return cls(**fields)


def summarise(x_block: Array, y_block: Array | None) -> Summary:
    """Summarise samples that are finite.

    Parameters
    ----------
    x_block : numpy.ndarray
        Inputs ``(rows, …)``, at least one row, numeric.
    y_block : numpy.ndarray or None
        Targets ``(rows,)`` or ``(rows, outputs)``, numeric.
    """
    x_min, x_max = float(x_block.min()), float(x_block.max())
    if y_block is None:
        return Summary(x_min, x_max, None, None, False)
    return Summary(x_min, x_max, y_block.min().item(), y_block.max().item(), is_labels(y_block.dtype))


def check_finite(x: Array, y: Array | None, first_row: int, name: str, x_name: str = "x") -> None:
    """Refuse samples with NaN or infinity.

    Parameters
    ----------
    x, y : numpy.ndarray
        Inputs and targets ``(rows, …)``, numeric; y may be None.
    first_row : int
        Which row of the data the first one is.
    name, x_name : str
        What the data, and the array x in it, are called in the message.

    Raises
    ------
    DataError
        Naming the first rows of the block that are not finite.
    """
    for what, values in ((x_name, x), ("y", y)):
        # the extremes are finite only if all values are, and need no temporary array
        if values is None or (np.isfinite(values.min()) and np.isfinite(values.max())):
            continue
        bad = first_row + np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        rows = f"row {bad[0]}" if len(bad) == 1 else f"rows {bad[0]} and {bad[1]}"
        if len(bad) > 2:
            rows = f"rows {bad[0]}, {bad[1]} and {len(bad) - 2} more"
        raise DataError(
            f"{rows} of {name} {'has' if len(bad) == 1 else 'have'} NaN or infinity in {what} as "
            f"{values.dtype}; remove or repair them and ingest again"
        )


def check_labels(y: Array, first_row: int, name: str) -> None:
    """Refuse integer labels that int64 cannot hold, or whose place is taken by the mark of a lost chunk.

    Parameters
    ----------
    y : numpy.ndarray
        Labels as they come from the source, of any integer dtype.
    first_row : int
        Which row of the data the first one is.
    name : str
        What the data is called in the message.

    Raises
    ------
    DataError
        Naming the first such row.
    """
    range_of = np.iinfo(np.int64)
    if y.dtype.kind != "b" and (int(y.min()) <= range_of.min or int(y.max()) > range_of.max):
        row = int(np.flatnonzero((y <= range_of.min) | (y > range_of.max))[0])
        raise DataError(
            f"row {first_row + row} of {name} has the label {y[row]}, which cannot be stored; "
            "number the classes from 0"
        )


def check_weights(weights: Array, first_row: int, name: str) -> None:
    """Refuse weights of samples, (rows,), that are negative or not finite; arguments as of `check_labels`.

    Raises
    ------
    DataError
        Naming the first such row.
    """
    usable = np.isfinite(weights) & (weights >= 0)
    if not usable.all():
        row = int(np.argmin(usable))
        raise DataError(
            f"row {first_row + row} of {name} has the weight {weights[row]:g}; give weights from 0 on"
        )


def check_lengths(lengths: Array, steps: int, first_row: int, name: str) -> None:
    """Refuse lengths of sequences that are not from 1 to `steps`.

    Parameters
    ----------
    lengths : numpy.ndarray, (rows,)
        Integers.
    steps, first_row : int
        Steps there is room for, and which row of the data the first one is.
    name : str
        What the data is called in the message.

    Raises
    ------
    DataError
        Naming the first such row.
    """
    bad = np.flatnonzero((lengths < 1) | (lengths > steps))
    if bad.size:
        raise DataError(
            f"row {first_row + bad[0]} of {name} has the length {lengths[bad[0]]}; "
            f"sequences have 1 to {steps} steps here"
        )


def is_labels(dtype: np.dtype[Any]) -> bool:
    """Tell integer labels, of which booleans are two, from targets that are numbers to fit."""
    return dtype.kind in "biu"
