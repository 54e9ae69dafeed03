"""What was done to samples before they came into a store: recorded there, kept by the model, undone at prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from altmin_dask.types import Array

CYCLES = ("month", "weekday", "hour")
TRUTH = ((0, "False"), (1, "True"))
"""How truth values are spelled, which stores have as 0 and 1."""


@dataclass(frozen=True)
class Column:
    """A column of a table, and the numbers that it becomes.

    A number is one; a date the days since 1970-01-01 00:00 UTC; of a column of lists every place is one. A value of
    text becomes as many as there are values, one of them 1 and the others 0.

    Attributes
    ----------
    name : str
        What it is called in the table.
    values : tuple of str, or None
        Of a column of text: those that have a number of their own, sorted.
    infrequent : tuple of str
        Values that share the number behind these.
    rest : bool
        Whether whatever else there is counts as infrequent, because there were too many values to record.
    date, cyclic : bool
        Whether it is a date, and whether sine and cosine of month, weekday and hour stand behind its number.
    size : int or None
        Of a column of lists: how long they are.
    fill : float, str or None
        What stands for a missing value; None refuses it.
    indicator : bool
        Whether a last number is 1 where a value was missing, else 0: where the samples for training had some.
    empty : bool
        Whether those had no value at all; only the indicator is left of it.
    zoned : bool or None
        Of dates: whether all of those had a time zone, or none had; None where some had, or it was not recorded.
    """

    name: str
    values: tuple[str, ...] | None = None
    infrequent: tuple[str, ...] = ()
    rest: bool = False
    date: bool = False
    cyclic: bool = False
    size: int | None = None
    fill: float | str | None = None
    indicator: bool = False
    empty: bool = False
    zoned: bool | None = field(default=None, compare=False)

    @property
    def groups(self) -> bool:
        """Whether there is a number for infrequent values."""
        return self.rest or bool(self.infrequent)

    @property
    def own_names(self) -> list[str]:
        """What the numbers are called that it becomes, without the indicator."""
        if self.empty:
            return []
        if self.values is not None:
            several = [f"{self.name}={value}" for value in self.values]
            return [*several, f"{self.name} infrequent"] if self.groups else several
        if self.size is not None:
            return [f"{self.name}[{place}]" for place in range(self.size)]
        parts = CYCLES if self.cyclic else ()
        return [self.name, *(f"{self.name} {part} {wave}" for part in parts for wave in ("sin", "cos"))]

    @property
    def names(self) -> list[str]:
        """What the numbers are called that it becomes."""
        return [*self.own_names, f"{self.name} is missing"] if self.indicator else self.own_names

    @property
    def measured(self) -> list[bool]:
        """Which of these numbers have a unit, and are standardized; others stand for a value, or a place in a cycle."""
        own = len(self.own_names)
        first = 0 if self.values is not None else own if self.size is not None else min(own, 1)
        return [place < first for place in range(len(self.names))]

    def to_json(self) -> dict[str, Any]:
        """What differs from a plain number, for JSON."""
        return {
            f.name: list(value) if isinstance(value, tuple) else value
            for f in fields(self)
            if (value := getattr(self, f.name)) != f.default or f.name == "values"
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Column:
        """Undo `to_json`; raises as `Preparation.from_json` does."""
        lists = {"values": _tuple(content["values"]), "infrequent": tuple(content.get("infrequent", ()))}
        return cls(**{**content, **lists})


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
    target : {"integers", "numbers", "dates", "text"}, or None
        What the targets of a table are.
    unknown : {"ignore", "error", "infrequent_if_exist"}
        What becomes of a value of text that was not there, as `altmin_dask.table_options.TableOptions` has it.
    csv : mapping
        Options by which the csv files were read, which others are read by, too.
    spelled : tuple of (int, str)
        How whole numbers of a target were written, where that is otherwise than numbers are: ``01``, or truth values.
        What a classifier gives back is called so.
    coloured : bool
        Whether samples are images with colours, as which grey ones are read, too.
    """

    columns: tuple[Column, ...] = ()
    targets: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    x: Scaling | None = None
    y: Scaling | None = None
    labels: tuple[int, ...] | None = None
    target: str | None = field(default=None, compare=False)
    unknown: str = field(default="ignore", compare=False)
    csv: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)
    spelled: tuple[tuple[int, str], ...] = field(default=(), compare=False)
    coloured: bool = field(default=False, compare=False)

    @property
    def inputs(self) -> Preparation:
        """The same without what is of targets."""
        return replace(self, targets=(), classes=None, y=None, labels=None, spelled=())

    @property
    def of_files(self) -> Preparation | None:
        """By what other raw files are read; None where that is as they are."""
        return self if self.columns else self.inputs if self.coloured else None

    @property
    def called(self) -> tuple[Any, ...] | None:
        """What classes are called, text, truth values or numbers; None if they are 0 … K − 1, or there are none."""
        if self.spelled and self.classes is not None:
            return as_spelled(self.classes)
        return self.classes if self.labels is None else self.labels

    @property
    def stored(self) -> Preparation | None:
        """What a store of such samples records, whose labels are the numbers that were given; None for nothing."""
        own = self if self.labels is None else replace(self, labels=None, classes=None)
        return own if own != Preparation() or own.spelled or own.coloured else None

    @property
    def names(self) -> list[str]:
        """What the inputs of a table are called."""
        return [name for column in self.columns for name in column.names]

    @property
    def measured(self) -> list[bool]:
        """Which inputs of a table are standardized, as `Column.measured` has it."""
        return [each for column in self.columns for each in column.measured]

    @property
    def dated(self) -> list[bool]:
        """Which inputs of a table are of dates."""
        return [column.date for column in self.columns for _ in column.names]

    def to_json(self) -> dict[str, Any]:
        """As a dict that JSON can hold."""
        others = asdict(replace(self, columns=()))
        return {**others, "columns": [column.to_json() for column in self.columns]}

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
        columns = tuple(map(Column.from_json, content["columns"]))
        labels = content.get("labels")
        numbers = None if labels is None else tuple(map(int, labels))
        return cls(
            columns,
            tuple(content["targets"]),
            _tuple(content["classes"]),
            x,
            y,
            numbers,
            content.get("target"),
            content.get("unknown", "ignore"),
            dict(content.get("csv", {})),
            tuple((int(label), str(text)) for label, text in content.get("spelled", ())),
            bool(content.get("coloured", False)),
        )


_SCALING = ("shift", "scale")


def _tuple(values: Any) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def as_spelled(names: tuple[str, ...]) -> tuple[Any, ...]:
    """What numbers are called that were written as such names: truth values, or text."""
    return (False, True) if names == tuple(name for _, name in TRUTH) else names
