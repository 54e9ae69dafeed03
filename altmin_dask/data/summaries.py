"""What is recorded of samples while they are ingested: their ranges."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from altmin_dask.data.checks import is_labels
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
