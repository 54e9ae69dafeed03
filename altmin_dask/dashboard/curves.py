"""What the curves of the page are: data of lines, from the records of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from altmin_dask.dashboard.board import RunState
from altmin_dask.dashboard.theme import Theme
from altmin_dask.training.record import Layers, Record

POINTS, ALL_POINTS = 600, 20_000
"""A curve has no more points than that, nor have all curves together (but for a hundred each)."""

Number = Callable[[Record], float | None]
"""Where a number of a record is."""


@dataclass(frozen=True)
class Dash:
    """How a line is drawn, whatever its colour: the eye tells these apart where lines lie on each other.

    Attributes
    ----------
    pattern : str
        Pixels of strokes and of gaps, as SVG has them; empty for no gaps.
    width, alpha : float
        Of the line.
    """

    pattern: str
    width: float
    alpha: float


SOLID = Dash("", 3.5, 0.85)
DASHED = Dash("9 5", 1.8, 1.0)
DOTTED = Dash("2 4", 1.8, 0.9)
PLAIN = Dash("", 2.0, 1.0)


@dataclass(frozen=True)
class Measure:
    """A number of records that has a curve, by what it is called and how it is drawn."""

    name: str
    of: Number
    dash: Dash


LOSSES = (
    Measure("training", lambda record: record.nested_loss, SOLID),
    Measure("validation", lambda record: record.validation_loss, DASHED),
    Measure("relaxed objective", lambda record: record.relaxed_objective, DOTTED),
)
ACCURACIES = (
    Measure("training", lambda record: record.nested_accuracy, SOLID),
    Measure("validation", lambda record: record.validation_accuracy, DASHED),
)


@dataclass(frozen=True)
class NamedRun:
    """A run as a page shows it: what it is called there, and the number of its colour."""

    name: str
    state: RunState
    colour: int


@dataclass(frozen=True)
class Curve:
    """One line: what is not known of it is None."""

    x: Sequence[float | None]
    y: Sequence[float | None]
    colour: str
    dash: Dash
    label: str
    measure: str = ""


def of_runs(
    runs: Sequence[NamedRun], measures: Sequence[Measure], along: Number, theme: Theme
) -> list[Curve]:
    """Numbers of several runs; those of a run lie in the order of `measures`."""
    found = []
    most = max(100, min(POINTS, ALL_POINTS // max(1, len(measures) * len(runs))))
    for run in runs:
        records = thinned(run.state.records, most)
        for measure in measures:
            y = [measure.of(record) for record in records]
            if any(value is not None and math.isfinite(value) for value in y):
                x = [along(record) for record in records]
                label = f"{run.name}: {measure.name}"
                found.append(Curve(x, y, theme.runs[run.colour], measure.dash, label, measure.name))
    return found


def of_layers(state: RunState | None, of: Callable[[Record], Layers | None], theme: Theme) -> list[Curve]:
    """One number of every layer of a run, one curve of layers in which it is the same all the time."""
    if state is None:
        return []
    records = thinned(state.records, POINTS)
    sweeps, values = [record.sweep for record in records], [of(record) for record in records]
    count = max((len(value) for value in values if value), default=0)
    alike: dict[tuple[float | None, ...], list[int]] = {}
    for layer in range(count):
        column = tuple(value[layer] if value and layer < len(value) else None for value in values)
        alike.setdefault(column, []).append(layer)
    colours = theme.layer_colours(count)
    return [
        Curve(sweeps, column, colours[layers[0]], PLAIN, _layers(layers, count))
        for column, layers in alike.items()
    ]


def _layers(layers: Sequence[int], count: int) -> str:
    if len(layers) == count > 1:
        return "all layers"
    names = ", ".join(str(layer + 1) for layer in layers)
    return f"layer {names}" if len(layers) == 1 else f"layers {names}"


def changes(curves: Sequence[Curve]) -> bool:
    """Whether any of them is more than one value."""
    return any(len({value for value in curve.y if value is not None}) > 1 for curve in curves)


def kept_points(
    runs: Sequence[NamedRun], measures: Sequence[Measure], along: Number, theme: Theme
) -> dict[str, list[Any]]:
    """Where in the curves of runs the models are that one gets, on validation's where there is one."""
    data: dict[str, list[Any]] = {"x": [], "y": [], "color": [], "label": []}
    for run in runs:
        sweep = run.state.kept.get("sweep")
        for record in run.state.records:
            known = [value for measure in measures if (value := measure.of(record)) is not None]
            if record.sweep == sweep and known:
                data["x"].append(along(record))
                # training's and validation's come first: the relaxed objective is no network's
                data["y"].append(known[0] if record.validation_loss is None else known[:2][-1])
                data["color"].append(theme.runs[run.colour])
                data["label"].append(f"{run.name}: the model that is kept")
    return data


def thinned(records: list[Record], most: int) -> list[Record]:
    """No more than so many of the records, evenly, with the first and the last."""
    if len(records) <= most:
        return records
    return [records[round(i * (len(records) - 1) / (most - 1))] for i in range(most)]


def lines(curves: Sequence[Curve], *, logarithmic: bool = True) -> dict[str, list[Any]]:
    """Data of a multi-line glyph; what is unknown, or has no logarithm where it needs one, is a gap."""

    def drawn(values: Sequence[float | None]) -> Any:
        # binary arrays are sent as they are
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64)

    def shown(y: Any) -> Any:
        there = np.isfinite(y) & (y > 0) if logarithmic else np.isfinite(y)
        return np.where(there, y, math.nan)

    return {
        "xs": [drawn(curve.x) for curve in curves],
        "ys": [shown(drawn(curve.y)) for curve in curves],
        "color": [curve.colour for curve in curves],
        "dash": [curve.dash.pattern or "solid" for curve in curves],
        "width": [curve.dash.width for curve in curves],
        "alpha": [curve.dash.alpha for curve in curves],
        "label": [curve.label for curve in curves],
    }
