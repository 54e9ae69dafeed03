"""Figures of a history: loss, accuracy and constraints over sweeps, with the sweep of the kept model marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from altmin_dask.format import number
from altmin_dask.report.axes import Sweeps, label_ends, list_lines, log_scale, share_scale, shown
from altmin_dask.report.columns import column, layer_columns
from altmin_dask.report.style import Theme, panel
from altmin_dask.report.tiles import short
from altmin_dask.training.record import Record
from altmin_dask.types import Array

HEIGHT = 3.1
MOST_LABELS = 14
"""Curves that are named one by one."""
MOST_CLASSES = 12
"""Whose recalls are curves."""
MOST_MARKERS = 40
PERCENT: Callable[[float], str] = "{:.2%}".format


@dataclass(frozen=True)
class Line:
    """A curve: its values, one a record, and what it looks like."""

    label: str
    values: Array
    colour: Any
    dashed: bool = False


def loss(records: Sequence[Record], kept: int, theme: Theme) -> Figure:
    """Losses over sweeps, with CPU seconds at the ticks; record `kept` is marked."""
    lines = lines_of(
        Line("training", column(r.nested_loss for r in records), theme.training),
        Line("validation", column(r.validation_loss for r in records), theme.validation),
        Line("relaxed", _relaxed(records), theme.relaxed, dashed=True),
    )
    return _over_sweeps(records, kept, lines, theme, log_scale, number, "Mean loss of a sample", timed=True)


def has_relaxed(records: Sequence[Record]) -> bool:
    """Whether the relaxed objective is another curve than the loss: whether constraints are not met exactly."""
    return bool(np.isfinite(_relaxed(records)).any())


def accuracy(records: Sequence[Record], kept: int, theme: Theme) -> Figure:
    """Accuracies over sweeps."""
    lines = lines_of(
        Line("training", column(r.nested_accuracy for r in records), theme.training),
        Line("validation", column(r.validation_accuracy for r in records), theme.validation),
    )
    return _over_sweeps(records, kept, lines, theme, share_scale, PERCENT, "Accuracy")


def has_accuracy(records: Sequence[Record]) -> bool:
    """Whether there is anything to draw in `accuracy`."""
    both = [column(r.nested_accuracy for r in records), column(r.validation_accuracy for r in records)]
    return bool(np.isfinite(both).any())


def recalls(records: Sequence[Record], kept: int, theme: Theme) -> Figure:
    """The share of each class that is found, over sweeps."""
    names, table = _recalls(records)
    colours = theme.classes
    lines = [Line(short(name, 14), table[:, k], colours[k % len(colours)]) for k, name in enumerate(names)]
    title = "Recall of each class, of validation samples"
    return _over_sweeps(records, kept, lines_of(*lines), theme, share_scale, PERCENT, title, listed=True)


def has_recalls(records: Sequence[Record]) -> bool:
    """Whether `recalls` has anything to draw, and not too much to be told apart."""
    names, table = _recalls(records)
    return len(names) <= MOST_CLASSES and bool(np.isfinite(table).any())


def residuals(records: Sequence[Record], kept: int, theme: Theme) -> Figure:
    """How far the constraints are from being met, layer by layer."""
    table, title = residual_columns(records)
    return _over_sweeps(records, kept, layer_lines(table, theme), theme, log_scale, number, title)


def has_residuals(records: Sequence[Record]) -> bool:
    """Whether there is anything to draw in `residuals`."""
    return bool(np.any(residual_columns(records)[0] > 0))


def residual_columns(records: Sequence[Record]) -> tuple[Array, str]:
    """Relative residuals of all layers where they are known, else those in units of z; and what they are called."""
    relative = layer_columns(r.relative_residuals for r in records)
    if np.any(relative > 0):
        return relative, "Relative residual ‖rᵢ‖ / ‖zᵢ‖ of each layer"
    return layer_columns(r.residuals for r in records), "Residual ‖rᵢ‖ of each layer, root mean square"


def penalty(records: Sequence[Record], kept: int, theme: Theme) -> Figure:
    """μ of every layer, which of multipliers is ρ."""
    lines = layer_lines(layer_columns(r.mu for r in records), theme)
    return _over_sweeps(
        records, kept, lines, theme, log_scale, number, "Penalty of each layer: μ, or ρ of multipliers"
    )


def has_penalty(records: Sequence[Record]) -> bool:
    """Whether any μ changes."""
    columns = layer_columns(r.mu for r in records).T
    return any(len(set(values[np.isfinite(values)])) > 1 for values in columns)


def zeros(records: Sequence[Record], kept: int, theme: Theme) -> Figure:
    """Share of residuals that are exactly zero, as L1 makes some."""
    lines = layer_lines(layer_columns(r.zero_residuals for r in records), theme)
    title = "Share of residuals that are zero"
    return _over_sweeps(records, kept, lines, theme, share_scale, "{:.1%}".format, title)


def has_zeros(records: Sequence[Record]) -> bool:
    """Whether there is anything to draw in `zeros`."""
    return bool(np.isfinite(layer_columns(r.zero_residuals for r in records)).any())


def layer_lines(table: Array, theme: Theme) -> list[Line]:
    """Make a line per layer, but one of layers with the same values."""
    groups: dict[bytes, list[int]] = {}
    for layer, values in enumerate(table.T):
        groups.setdefault(values.tobytes(), []).append(layer)
    colours = theme.layer_colours(table.shape[1])
    lines = []
    for layers in groups.values():
        label = f"layer {layers[0] + 1}"
        if len(layers) > 1:
            names = ", ".join(str(layer + 1) for layer in layers)
            label = f"layers {names}" if len(layers) <= 4 else f"{len(layers)} layers"
        if len(layers) == table.shape[1] > 1:
            label = "all layers"
        lines.append(Line(label, table[:, layers[0]], colours[layers[0]]))
    return lines_of(*lines)


def lines_of(*lines: Line) -> list[Line]:
    """Those that have a value."""
    return [line for line in lines if np.isfinite(line.values).any()]


def draw_line(axes: Axes, x: Array, line: Line) -> None:
    """Draw a curve, on a scale that is there already."""
    axes.plot(
        x,
        shown(axes, line.values),
        color=line.colour,
        linestyle=(0, (4, 1.6)) if line.dashed else "-",
        marker="o" if len(x) <= MOST_MARKERS else "",
        markeredgewidth=0,
        clip_on=False,
        zorder=3,
    )


def draw_mark(axes: Axes, x: float, y: float, colour: Any, theme: Theme) -> None:
    """Mark the point of a kept model on its curve."""
    axes.plot(
        [x],
        [y],
        marker="o",
        markersize=7,
        markerfacecolor=theme.paper,
        markeredgecolor=colour,
        markeredgewidth=1.8,
        clip_on=False,
        zorder=5,
        label="kept",
    )


def _over_sweeps(
    records: Sequence[Record],
    kept: int,
    lines: Sequence[Line],
    theme: Theme,
    scale: Callable[[Axes, Array], None],
    show: Callable[[float], str],
    title: str,
    *,
    timed: bool = False,
    listed: bool = False,
) -> Figure:
    """Curves over sweeps, named at their ends with the values of the kept model, which is marked.

    Where many meet at their ends they are `listed`: below each other, in the order of these values.
    """
    figure, axes = panel(HEIGHT, title)
    sweeps, cpu = column(r.sweep for r in records), column(r.cpu_seconds for r in records)
    if lines:
        scale(axes, np.concatenate([line.values for line in lines]))
    across = Sweeps(sweeps)
    x = across.places(sweeps)
    for line in lines:
        draw_line(axes, x, line)
    timed = timed and bool(np.isfinite(cpu).all()) and float(cpu[-1]) > 0
    across.apply(axes, "sweeps", (sweeps, cpu, "CPU seconds") if timed else None)
    _mark(axes, x, kept, records[kept].sweep, theme)
    ends = []
    for line in lines[:: math.ceil(len(lines) / MOST_LABELS) or 1]:
        known = np.flatnonzero(np.isfinite(line.values))
        at, last = (kept if kept in known else int(known[-1])), int(known[-1])
        if at == kept:
            draw_mark(axes, float(x[kept]), float(shown(axes, line.values)[kept]), line.colour, theme)
        point = float(x[last]), float(shown(axes, line.values)[last])
        of = "" if at == last or listed else "kept: "
        value = float(line.values[at])
        ends.append(((point[0], value) if listed else point, f"{line.label}  {of}{show(value)}", line.colour))
    (list_lines if listed else label_ends)(axes, ends)
    return figure


def _mark(axes: Axes, x: Array, kept: int, sweep: float, theme: Theme) -> None:
    """A line at the sweep of the kept model, and what it is."""
    place = float(x[kept])
    axes.axvline(place, color=theme.ink, linewidth=1, linestyle=(0, (1, 2)), zorder=2)
    along = axes.transAxes.inverted().transform(axes.transData.transform((place, axes.get_ylim()[0])))[0]
    side = "left" if along < 0.2 else "right" if along > 0.8 else "center"
    axes.annotate(
        f"kept: sweep {number(sweep)}",
        (place, 1),
        (0, 4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha=side,
        va="bottom",
        fontsize=8,
        annotation_clip=False,
    )


def _recalls(records: Sequence[Record]) -> tuple[list[str], Array]:
    """Names of the classes, and their recalls, (records, classes); NaN where they are not known."""
    each = [record.validation_each or {} for record in records]
    names: list[Any] = next((one["class"] for one in reversed(each) if "recall" in one), [])
    unknown = [None] * len(names)
    table = [column(one.get("recall", unknown)) for one in each]
    return [str(name) for name in names], np.array(table).reshape(len(records), len(names))


def _relaxed(records: Sequence[Record]) -> Array:
    """F of every record, if constraints are not met exactly: else it is the loss with its ridge, and says nothing."""
    values = column(r.relaxed_objective for r in records)
    return values if has_residuals(records) else np.full_like(values, np.nan)
