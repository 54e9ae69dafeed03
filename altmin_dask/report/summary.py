"""A history in words and numbers: the summary of a run, and the table of all records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from altmin_dask.format import known, number
from altmin_dask.report.columns import column, gap, layer_columns
from altmin_dask.training.record import Layers, Record

Show = Callable[[float], str]
Measure = tuple[str, Callable[[Record], float | None], Show]
"""What a number of a record is called, where it is, and how it is written."""
LayerMeasure = tuple[str, Callable[[Record], Layers | None], Show]
"""The same of numbers of each layer."""

_PERCENT: Show = "{:.2%}".format
_SECONDS: Show = "{:,.2f}".format
TIMES: tuple[Measure, ...] = (
    ("sweep", lambda record: record.sweep, number),
    ("CPU s", lambda record: record.cpu_seconds, _SECONDS),
    ("wall s", lambda record: record.wall_seconds, _SECONDS),
)
SPANS = ("sweeps", "CPU seconds", "wall seconds")
"""The same of a whole run."""
RELAXED: Measure = ("relaxed objective", lambda record: record.relaxed_objective, number)
LOSSES: tuple[Measure, ...] = (
    ("nested loss", lambda record: record.nested_loss, number),
    ("validation loss", lambda record: record.validation_loss, number),
)
ACCURACIES: tuple[Measure, ...] = (
    ("training accuracy", lambda record: record.nested_accuracy, _PERCENT),
    ("validation accuracy", lambda record: record.validation_accuracy, _PERCENT),
)
MORE: tuple[Measure, ...] = (
    ("steps cut short", lambda record: record.shortened, "{:.1%}".format),
    ("gradient norm", lambda record: record.gradient_norm, "{:.2g}".format),
)
RESIDUAL: LayerMeasure = ("residual", lambda record: record.residuals, number)
FEASIBILITY: tuple[LayerMeasure, ...] = (
    ("relative residual", lambda record: record.relative_residuals, "{:.2g}".format),
    ("zero residuals", lambda record: record.zero_residuals, "{:.1%}".format),
)
GAP, _SHOW_GAP = "gap of relaxed to nested", "{:+.2%}".format
_MOST_LAYERS = 8
"""Layers that are told one by one in the summary."""


def summary_table(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Sum a run up in (label, value) pairs: how long it took, and its last and best losses and accuracies.

    Parameters
    ----------
    records : sequence of Record
        The history; what no record has is left out.
    """
    rows = []
    for label, (_, get, show) in zip(SPANS, TIMES, strict=True):
        values = column(map(get, records[-1:]))
        rows += [(label, show(value)) for value in values[np.isfinite(values)]]
    # F under one μ says nothing about F under another: there is no best one
    rows += _last_and_best(records, RELAXED, None)
    for measures, best in ((LOSSES, min), (ACCURACIES, max)):
        for measure in measures:
            rows += _last_and_best(records, measure, best)
    gaps = gap(records)
    rows += [(GAP, _SHOW_GAP(value)) for value in gaps[np.isfinite(gaps)][-1:]]
    return rows + _last_of_layers(records)


def _last_and_best(
    records: Sequence[Record], measure: Measure, best: Callable[..., Any] | None
) -> list[tuple[str, str]]:
    """Label the last value of a number, and the best one with its sweep; nothing where no record has any."""
    label, get, show = measure
    values = column(map(get, records))
    there = np.flatnonzero(np.isfinite(values))
    if not there.size:
        return []
    rows = [(label, show(values[there[-1]]))]
    if best is not None:
        at = best(there, key=lambda i: values[i])
        rows.append((f"best {label}", f"{show(values[at])} (sweep {number(records[at].sweep)})"))
    return rows


def _last_of_layers(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Label how far the constraints are met in the last record that says so, layer by layer."""
    rows = []
    for label, get, show in FEASIBILITY:
        table = layer_columns(map(get, records))
        there = np.flatnonzero(np.isfinite(table).any(axis=1))
        if there.size:
            values = table[there[-1]]
            name = f"{label} by layer" if values.size > 1 else label
            shown = [known(value, show) for value in values[:_MOST_LAYERS]]
            rows.append((name, ", ".join(shown + ["…"] * (values.size > _MOST_LAYERS))))
    return rows


def history_table(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Lay all records out as a head and rows, without columns that no record has a number in."""
    head, columns = [], []
    for label, get, show in (*TIMES, RELAXED, *LOSSES, *ACCURACIES, *MORE):
        values = column(map(get, records))
        if np.isfinite(values).any():
            head.append(label)
            columns.append([known(value, show) for value in values])
    gaps = gap(records)
    if np.isfinite(gaps).any():
        head.append(GAP)
        columns.append([known(value, _SHOW_GAP) for value in gaps])
    for label, get_layers, show in (RESIDUAL, *FEASIBILITY):
        for layer, values in enumerate(layer_columns(map(get_layers, records)).T, 1):
            head.append(f"{label} {layer}")
            columns.append([known(value, show) for value in values])
    return head, [list(row) for row in zip(*columns, strict=True)]
