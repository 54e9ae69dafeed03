"""A record of the history: what is known of a run at one moment, as it is written and as it is read.

The one place that knows the keys of ``history.jsonl``. A `Record` needs nothing of the package: it is sent to
schedulers that lack it (`altmin_dask.dashboard.plugin`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from altmin_dask.errors import DataError
from altmin_dask.storage.run import RunFolder

Layers = tuple[float, ...]
"""A number of each layer."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What only the algorithm knows; what it does not know of is None.

    Attributes
    ----------
    mu : tuple of float, (L,)
        μ_1 … μ_L; None for the limit of exact constraints.
    rho : tuple of float, (L,)
        ρ_1 … ρ_L of the quadratic by which L1 and multipliers are split.
    relaxed_objective : float
        F, a mean over the samples in the sums.
    ridge_term : float
        The part of it that is the ridge.
    residuals, relative_residuals : tuple of float, (L,)
        ‖r_i‖, root mean square, and relative to ‖z_i‖.
    zero_residuals : tuple of float, (L,)
        Share of the elements of e_i that are exactly zero (L1).
    shortened : float
        Share of the samples whose Newton steps were cut short.
    gradient_norm : float
        Norm of the gradient of the real network's loss and the ridge.
    samples_in_sum : int
        How many samples the sums are over.
    """

    relaxed_objective: float | None = None
    ridge_term: float | None = None
    residuals: Layers | None = None
    relative_residuals: Layers | None = None
    zero_residuals: Layers | None = None
    mu: Layers | None = None
    rho: Layers | None = None
    shortened: float | None = None
    gradient_norm: float | None = None
    samples_in_sum: int | None = None

    def in_unit(self, unit: float) -> Metrics:
        """The same with F, which is a loss, times a number."""
        parts = {name: getattr(self, name) for name in ("relaxed_objective", "ridge_term")}
        return replace(self, **{name: unit * value for name, value in parts.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class Record(Metrics):
    """One line of ``history.jsonl``.

    Attributes
    ----------
    sweep : float
        Sample visits per sample so far.
    cpu_seconds, wall_seconds : float
        Of training so far, evaluation excluded; NaN where an earlier version wrote none.
    nested_loss : float
        Mean loss of the real network on training samples.
    regularized_loss : float
        The same with the ridge, λ Σ ‖W̃_i‖² / N.
    validation_loss : float
        Mean loss on the validation samples, if there are any.
    nested_accuracy, validation_accuracy : float
        Share of the labels that are predicted.
    validation_r2 : float
        R² of a regressor on the validation samples, the mean over outputs.
    validation_metrics : mapping
        What else is measured there in single numbers, by the names that `altmin evaluate --json` has; of auto-encoders
        where there are no more features than records tell of.
    validation_each : mapping
        What is measured there of each class, target or feature, as lists by the same names, all in one order, and what
        they are called; where there are no more of them than `altmin_dask.solvers.measures.MOST_RECORDED`.
    """

    sweep: float
    cpu_seconds: float = math.nan
    wall_seconds: float = math.nan
    nested_loss: float = math.nan
    regularized_loss: float = math.nan
    validation_loss: float | None = None
    nested_accuracy: float | None = None
    validation_accuracy: float | None = None
    validation_r2: float | None = None
    validation_metrics: Mapping[str, float | None] | None = None
    validation_each: Mapping[str, list[Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready: numbers, lists and None."""
        values = ((name, getattr(self, name)) for name in NAMES)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo `to_dict`; keys of other versions are left out, and what is missing is not known.

        Raises
        ------
        KeyError
            If not even the sweep is there.
        """
        found = {name: _value(name, values[name]) for name in NAMES if values.get(name) is not None}
        return cls(**{"sweep": values["sweep"], **found})


def single_numbers(metrics: Mapping[str, Any]) -> dict[str, float | None] | None:
    """What a record has of metrics beside those that have a key of their own; None if there is nothing."""
    apart = "accuracy", "r2", "confusion_matrix", "by_feature"  # of which the last two may be None
    rest = {name: value for name, value in metrics.items() if name not in apart}
    found = {name: value for name, value in rest.items() if value is None or isinstance(value, float)}
    return found or None


def lists(metrics: Mapping[str, Any], most: int) -> dict[str, list[Any]] | None:
    """What a record has of metrics of each class, target or feature; None if there are none, or more than `most`."""
    if (features := metrics.get("by_feature")) is not None:
        errors = {name: list(values) for name, values in features.items() if name != "names"}
        names = range(len(errors["mse"])) if features["names"] is None else features["names"]
        found = {"feature": list(names), **errors}
    else:
        each = metrics.get("per_class") or metrics.get("by_output") or [{}]
        found = {name: [one[name] for one in each] for name in each[0]}
    return found if 0 < max(map(len, found.values()), default=0) <= most else None


MOST_KEPT = 50_000
"""Numbers of classes, targets or features that are told to those who watch, or kept by them, of all records."""


def lightened(records: Sequence[Record]) -> list[Record]:
    """The same; where they are many, with what each class, target or feature has only of the last and of the best.

    It is most of a long history, and who watches a run looks at no other.
    """
    each = (records[-1].validation_each if records else None) or {}
    if len(records) * sum(map(len, each.values())) <= MOST_KEPT:
        return list(records)
    judged = [record for record in records if record.validation_loss is not None]
    best = min(judged, key=lambda record: record.validation_loss or 0.0, default=None)
    return [
        record
        if record.validation_each is None or record is best or record is records[-1]
        else replace(record, validation_each=None)
        for record in records
    ]


NAMES = tuple(
    sorted((field.name for field in fields(Record)), key=lambda name: name in Metrics.__dataclass_fields__)
)
"""The keys of a record: those of every algorithm first."""
BY_LAYER = ("residuals", "relative_residuals", "zero_residuals", "mu", "rho")
"""Those whose values are a number of each layer."""


def _value(name: str, value: Any) -> Any:
    if name == "validation_each" and isinstance(
        value, Mapping
    ):  # on the way to a scheduler lists become tuples
        return {key: list(each) for key, each in value.items()}
    if name not in BY_LAYER:
        return value
    if not isinstance(value, list | tuple):
        return None
    return tuple(math.nan if each is None else float(each) for each in value)


def read_records(run: RunFolder, *, whole: bool = False) -> list[Record]:
    """All records of a run folder, as `altmin_dask.storage.run.RunFolder.records` reads them.

    Raises
    ------
    DataError
        If the history is damaged.
    """
    try:
        return [Record.from_dict(values) for values in run.records(whole=whole)]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{run.history} is damaged: {error!r} of a record") from None
