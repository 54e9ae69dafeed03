"""What was done to samples before they came into a store: recorded there, kept by the model, undone at prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.data.conversion import check_whole
from altmin_dask.data.readers import RowReader
from altmin_dask.data.streams import mapped
from altmin_dask.errors import DataError
from altmin_dask.types import Array

if TYPE_CHECKING:
    from altmin_dask.data.sources import Source

_BLOCK_BYTES = 8 << 20


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
    """

    columns: tuple[Column, ...] = ()
    targets: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    x: Scaling | None = None
    y: Scaling | None = None

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
        return cls(columns, tuple(content["targets"]), _tuple(content["classes"]), x, y)


_SCALING = ("shift", "scale")


def _tuple(values: Any) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def standardized(source: Source) -> Source:
    """A source of mean 0 and variance 1 in every number of x, and of y where that is real; it is read through once.

    What is constant is only shifted; what stands for the value of a column is left as it is.
    """
    known = source.preparation or Preparation()
    x = _scaling(source.x)
    if known.columns:
        keep = np.concatenate([[column.values is not None] * len(column.names) for column in known.columns])
        x = Scaling(
            tuple(np.where(keep, 0.0, x.shift).tolist()), tuple(np.where(keep, 1.0, x.scale).tolist())
        )
    y = _scaling(source.y) if source.y is not None and source.y.dtype.kind == "f" else None
    return prepared(replace(source, preparation=replace(known, x=x, y=y)))


def prepared(source: Source) -> Source:
    """A source with the scalings of its preparation carried out.

    Raises
    ------
    DataError
        If these are for samples or targets of another size.
    """
    how = source.preparation
    if how is None:
        return source
    x, y = source.x, source.y
    if how.x is not None:
        x = _scaled(x, how.x)
    if how.y is not None and y is not None:
        y = _scaled(y, how.y)
    return replace(source, x=x, y=y)


def _scaled(reader: RowReader, scaling: Scaling) -> RowReader:
    size = prod(reader.shape[1:])
    if size != len(scaling.shift):
        raise DataError(
            f"{reader.label} has {size} numbers in a row, and those of training had {len(scaling.shift)}; "
            "give data of the same kind"
        )

    def apply(block: Array) -> Array:
        check_whole(block, reader.label)
        return scaling.apply(block)

    return mapped(reader, apply, np.float64)


def _scaling(reader: RowReader) -> Scaling:
    """Mean and standard deviation of every number of a row, by blocks (Chan, Golub, LeVeque 1983)."""
    size = max(1, prod(reader.shape[1:]))
    mean, squares, seen = np.zeros(size), np.zeros(size), 0
    for block in reader.blocks(max(1, _BLOCK_BYTES // (8 * size))):
        rows = np.asarray(block, np.float64).reshape(len(block), size)
        own = rows.mean(axis=0)
        squares += np.square(rows - own).sum(axis=0) + np.square(own - mean) * (
            seen * len(rows) / (seen + len(rows))
        )
        mean += (own - mean) * (len(rows) / (seen + len(rows)))
        seen += len(rows)
    deviation = np.sqrt(squares / seen)
    constant = deviation <= 1e-12 * np.maximum(np.abs(mean), 1e-12)
    return Scaling(tuple(mean.tolist()), tuple(np.where(constant, 1.0, deviation).tolist()))
