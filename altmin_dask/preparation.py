"""What was done to samples before they came into a store: recorded there, kept by the model, undone at prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from altmin_dask.types import Array


@dataclass(frozen=True)
class Column:
    """A column of a table: a number, or one of some values, which becomes as many numbers, one 1 and the others 0."""

    name: str
    values: tuple[str, ...] | None = None

    @property
    def names(self) -> list[str]:
        """What the numbers that it becomes are called."""
        return [self.name] if self.values is None else [f"{self.name}={value}" for value in self.values]


@dataclass(frozen=True)
class Scaling:
    """(value − shift) / scale of every number of a row."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, rows: Array) -> Array:
        """Scale rows of any shape."""
        flat = rows.reshape(len(rows), -1)
        return ((flat - np.array(self.shift)) / np.array(self.scale)).reshape(rows.shape)

    def then(self, other: Scaling) -> Scaling:
        """Both in one, this one first."""
        shift, scale = np.array(self.shift), np.array(self.scale)
        both = shift + scale * np.array(other.shift), scale * np.array(other.scale)
        return Scaling(tuple(both[0].tolist()), tuple(both[1].tolist()))

    def undo(self, rows: Array) -> Array:
        """Give rows their own units again, in float64: float32 has too few digits for a large shift."""
        flat = rows.reshape(len(rows), -1) * np.array(self.scale) + np.array(self.shift)
        return flat.reshape(rows.shape)


@dataclass(frozen=True)
class Preparation:
    """How raw samples became those of a store.

    Attributes
    ----------
    columns : tuple of Column
        The inputs of a table, in order.
    targets : tuple of str
        The columns of a table that are targets.
    classes : tuple of str, or None
        What labels 0 … K − 1 are called.
    x, y : Scaling or None
        Of inputs and of real targets.
    labels : tuple of int, or None
        The whole numbers in y that stand for the classes, in order, where these are others than 0 … K − 1. Stores have
        the numbers they were given; a run that trains a classifier takes them for classes, and its model knows them.
    """

    columns: tuple[Column, ...] = ()
    targets: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    x: Scaling | None = None
    y: Scaling | None = None
    labels: tuple[int, ...] | None = None

    @property
    def inputs(self) -> Preparation:
        """The same without what is of targets."""
        return replace(self, targets=(), classes=None, y=None, labels=None)

    @property
    def stored(self) -> Preparation | None:
        """What a store of such samples records, whose labels are the numbers that were given; None for nothing."""
        own = self if self.labels is None else replace(self, labels=None, classes=None)
        return None if own == Preparation() else own

    @property
    def names(self) -> list[str]:
        """What the inputs of a table are called."""
        return [name for column in self.columns for name in column.names]

    def to_json(self) -> dict[str, Any]:
        """As a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> Preparation | None:
        """Undo `to_json`.

        Raises
        ------
        KeyError, TypeError
            If it is not what that gave.
        """
        if content is None:
            return None
        x, y = (
            None
            if content[name] is None
            else Scaling(*(tuple(map(float, content[name][key])) for key in _SCALING))
            for name in ("x", "y")
        )
        columns = tuple(Column(c["name"], _tuple(c["values"])) for c in content["columns"])
        labels = content.get("labels")
        numbers = None if labels is None else tuple(map(int, labels))
        return cls(columns, tuple(content["targets"]), _tuple(content["classes"]), x, y, numbers)


_SCALING = ("shift", "scale")


def _tuple(values: Any) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
