"""The figures of a report, as functions from numbers to a matplotlib `Figure`, and from that to a PNG.

Every figure is drawn for a `Theme`, light or dark, without pyplot and whatever the user's matplotlibrc says.
The losses have colours of Okabe and Ito, the layers of viridis: the colour-blind can tell both apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from altmin_dask.format import number
from altmin_dask.report.columns import column, layer_columns
from altmin_dask.storage.ownership import PRODUCER
from altmin_dask.training.record import Record
from altmin_dask.types import Array

DPI = 150
WIDTH = 10.0
COLUMNS = 10
"""Samples in a row of a grid of images."""
_MOST_LABELS = 16
_TILE = 120
_GAP = 8
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Theme:
    """Colours of a figure."""

    paper: str
    ink: str
    muted: str
    grid: str
    relaxed: str
    nested: str
    validation: str
    layers: tuple[float, float]
    """The part of viridis that stands out from the paper."""

    def layer_colours(self, count: int) -> list[tuple[float, ...]]:
        """Return a colour for each of `count` layers."""
        colours = matplotlib.colormaps["viridis"](np.linspace(*self.layers, max(count, 2)))[:count]
        return [tuple(float(part) for part in colour) for colour in colours]


LIGHT = Theme("#ffffff", "#1f2328", "#667080", "#e4e7eb", "#009e73", "#0072b2", "#d55e00", (0.08, 0.72))
DARK = Theme("#14181d", "#e6eaef", "#98a2b0", "#2b323b", "#2ec4a0", "#56b4e9", "#f0883e", (0.48, 0.96))


def png(draw: Callable[[Theme], Figure], theme: Theme) -> bytes:
    """Draw a figure and encode it; the same input gives the same bytes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        _set_style(theme)
        buffer = BytesIO()
        canvas = FigureCanvasAgg(draw(theme))  # savefig draws twice
        canvas.print_png(buffer, metadata={"Software": PRODUCER})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _set_style(theme: Theme) -> None:
    matplotlib.rc("figure", dpi=DPI, facecolor=theme.paper)
    matplotlib.rc("figure.constrained_layout", w_pad=0.12, h_pad=0.12)
    matplotlib.rc("font", family=["DejaVu Sans"], size=9)
    matplotlib.rc("text", color=theme.ink)
    matplotlib.rc("axes", facecolor=theme.paper, edgecolor=theme.muted, labelcolor=theme.muted, linewidth=0.8)
    matplotlib.rc("axes", titlesize=10, titlelocation="left", titlepad=8, grid=True, axisbelow=True)
    matplotlib.rc("axes.grid", axis="y")
    matplotlib.rc("axes.spines", top=False, left=False, right=False)
    matplotlib.rc("grid", color=theme.grid, linewidth=0.8)
    matplotlib.rc("xtick", color=theme.muted)
    matplotlib.rc("ytick", color=theme.muted)
    matplotlib.rc("ytick.major", size=0)
    matplotlib.rc("lines", linewidth=1.8, markersize=3.6, solid_capstyle="round", solid_joinstyle="round")


# --- curves


@dataclass(frozen=True)
class _Line:
    """A curve: its values, one a record, and what it looks like."""

    label: str
    values: Array
    colour: Any
    dashed: bool = False


def convergence(records: Sequence[Record], theme: Theme) -> Figure:
    """Losses, and accuracies where there are any, against sweeps and against CPU seconds."""
    losses = _lines(
        _Line("relaxed objective", column(r.relaxed_objective for r in records), theme.relaxed, dashed=True),
        _Line("nested loss", column(r.nested_loss for r in records), theme.nested),
        _Line("validation loss", column(r.validation_loss for r in records), theme.validation),
    )
    accuracies = _lines(
        _Line("training", column(r.nested_accuracy for r in records), theme.nested),
        _Line("validation", column(r.validation_accuracy for r in records), theme.validation),
    )
    rows = 2 if accuracies else 1
    figure = Figure(figsize=(WIDTH, 3.7 + 2.6 * (rows - 1)), layout="constrained")
    grid = figure.subplots(rows, 2, sharex="col", sharey="row", squeeze=False, height_ratios=[3, 2][:rows])
    cpu = column(r.cpu_seconds for r in records)
    times = (("sweeps", column(r.sweep for r in records)), ("CPU seconds of training", cpu))
    for place, (name, x) in enumerate(times):
        _log_scale(grid[0, place], losses)
        _curves(grid[0, place], x, losses)
        if accuracies:
            _share_scale(grid[1, place], accuracies)
            _curves(grid[1, place], x, accuracies)
        grid[-1, place].set_xlabel(name)
    grid[0, 0].set_title("Loss, mean over samples")
    _label_ends(grid[0, 1], cpu, losses, number)
    if accuracies:
        grid[1, 0].set_title("Accuracy of the network")
        _label_ends(grid[1, 1], cpu, accuracies, "{:.2%}".format)
    return figure


def has_residuals(records: Sequence[Record]) -> bool:
    """Whether there is anything to draw in `residuals`."""
    return bool(np.any(layer_columns(r.residuals for r in records) > 0))


def residuals(records: Sequence[Record], theme: Theme) -> Figure:
    """Residuals of every layer over sweeps, and μ of every layer where it changes."""
    sweeps, mu = column(r.sweep for r in records), layer_columns(r.mu for r in records)
    panels = [("Residual ‖rᵢ‖ of each layer, root mean square", layer_columns(r.residuals for r in records))]
    if any(len(set(values[np.isfinite(values)])) > 1 for values in mu.T):
        panels.append(("Penalty μ of each layer", mu))
    figure, axes = _side_by_side(len(panels))
    for panel, (title, table) in zip(axes, panels, strict=True):
        lines = _layer_lines(table, theme)
        _log_scale(panel, lines)
        _layer_panel(panel, title, sweeps, lines, number)
    return figure


def has_feasibility(records: Sequence[Record]) -> bool:
    """Whether there is anything to draw in `feasibility`."""
    return bool(np.any(layer_columns(r.relative_residuals for r in records) > 0))


def feasibility(records: Sequence[Record], theme: Theme) -> Figure:
    """Relative residuals of every layer over sweeps, and the share of exact zeros where L1 makes some."""
    sweeps = column(r.sweep for r in records)
    zeros = _layer_lines(layer_columns(r.zero_residuals for r in records), theme)
    figure, axes = _side_by_side(2 if zeros else 1)
    relative = _layer_lines(layer_columns(r.relative_residuals for r in records), theme)
    _log_scale(axes[0], relative)
    _layer_panel(axes[0], "Relative residual ‖rᵢ‖ / ‖zᵢ‖ of each layer", sweeps, relative, number)
    if zeros:
        _share_scale(axes[1], zeros)
        _layer_panel(axes[1], "Share of residuals that are zero", sweeps, zeros, "{:.1%}".format)
    return figure


def _side_by_side(panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _layer_panel(
    axes: Axes, title: str, sweeps: Array, lines: Sequence[_Line], show: Callable[[float], str]
) -> None:
    """Draw lines of layers, on a scale that is there already."""
    _curves(axes, sweeps, lines)
    axes.set_title(title)
    axes.set_xlabel("sweeps")
    _label_ends(axes, sweeps, lines, show)


def _layer_lines(table: Array, theme: Theme) -> list[_Line]:
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
        lines.append(_Line(label, table[:, layers[0]], colours[layers[0]]))
    return _lines(*lines)


def _lines(*lines: _Line) -> list[_Line]:
    return [line for line in lines if np.isfinite(line.values).any()]


def _curves(axes: Axes, x: Array, lines: Iterable[_Line]) -> None:
    marker = "o" if len(x) <= 40 else ""
    for line in lines:
        axes.plot(
            x,
            _shown(axes, line.values),
            color=line.colour,
            linestyle=(0, (4, 1.6)) if line.dashed else "-",
            marker=marker,
            markeredgewidth=0,
            clip_on=False,
            zorder=3,
        )
    last = np.nanmax(x, initial=0.0)
    axes.set_xlim(0, last if last > 1e-3 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _shown(axes: Axes, values: Array) -> Array:
    """Put what a logarithmic axis cannot show at its bottom."""
    return np.where(values <= 0, axes.get_ylim()[0], values) if axes.get_yscale() == "log" else values


def _log_scale(axes: Axes, lines: Iterable[_Line]) -> None:
    """Give y a logarithmic axis that fits the positive values, with ticks people can read."""
    values = np.concatenate([line.values for line in lines] or [np.empty(0)])
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return  # all are 0, or there are none
    low, high = float(values.min()), float(values.max())
    margin = max((high / low) ** 0.05, 1.02)
    axes.set_yscale("log")
    axes.set_ylim(low / margin, high * margin)
    axes.yaxis.set_major_locator(FixedLocator(log_ticks(low / margin, high * margin)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_label(value)))


def log_ticks(low: float, high: float) -> list[float]:
    """Choose a few round numbers between two positive ones, spread over a logarithmic axis."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = math.ceil((last - first) / 8)
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        exponents = range(first, last + 1, step if len(mantissas) == 1 else 1)
        ticks = [m * 10.0**e for e in exponents for m in mantissas if low <= m * 10.0**e <= high]
        if len(ticks) >= 4:
            return ticks
    even = MaxNLocator(5, steps=_STEPS).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def _tick_label(value: float) -> str:
    exponent = math.floor(math.log10(value) + 1e-9)
    if -4 < exponent < 5:
        return f"{value:g}"
    mantissa = value / 10.0**exponent
    factor = "" if math.isclose(mantissa, 1) else rf"{mantissa:g}\cdot"
    return f"${factor}10^{{{exponent}}}$"


def _share_scale(axes: Axes, lines: Iterable[_Line]) -> None:
    values = np.concatenate([line.values for line in lines])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = max(0.06 * (high - low), 0.005)
    axes.set_ylim(max(low - margin, -0.005), min(high + margin, 1.005))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))


def _label_ends(axes: Axes, x: Array, lines: Sequence[_Line], show: Callable[[float], str]) -> None:
    """Write each line's name and last value at its end, moved apart where they would overlap."""
    box = axes.get_window_extent()  # before the layout is made, which is near enough
    needed, right = 13 / 72 * DPI / box.height, 1 + 16 / 72 * DPI / box.width
    axes.get_ylim()  # a transformation alone would not work them out
    ends = []
    for line in lines[:: math.ceil(len(lines) / _MOST_LABELS) or 1]:
        last = int(np.flatnonzero(np.isfinite(line.values))[-1])
        point = float(x[last]), float(_shown(axes, line.values)[last])
        height = axes.transAxes.inverted().transform(axes.transData.transform(point))[1]
        ends.append((float(height), point, f"{line.label}  {show(line.values[last])}", line.colour))
    ends.sort(key=lambda end: end[0])
    for (_, point, text, colour), height in zip(ends, spread([end[0] for end in ends], needed), strict=True):
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "relpos": (0, 0.5), "shrinkB": 4}
        axes.annotate(
            text,
            point,
            (right, height),
            textcoords="axes fraction",
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops=leader if point[0] == axes.get_xlim()[1] else None,
        )


def spread(heights: Sequence[float], needed: float) -> list[float]:
    """Move ascending heights apart, as little as possible, until neighbours differ by `needed`."""
    groups: list[tuple[float, int]] = []  # centre and size of labels that touch
    for height in heights:
        groups.append((height, 1))
        while len(groups) > 1:
            (low, below), (high, above) = groups[-2:]
            if high - low >= needed * (below + above) / 2:
                break
            groups[-2:] = [((low * below + high * above) / (below + above), below + above)]
    return [centre + needed * (place - (size - 1) / 2) for centre, size in groups for place in range(size)]


# --- samples


class _Tiles:
    """A figure measured in pixels, on which images are enlarged by whole factors so that they stay sharp."""

    def __init__(self, images: Array, left: int, top: int, row_heights: Sequence[int]) -> None:
        """Make room for rows of ten images; a row is as high as an image and its `row_heights` together."""
        step = math.ceil(max(images.shape[1:3]) / (2 * _TILE))
        self.step, (rows, columns) = step, images[0, ::step, ::step].shape[:2]
        factor = max(1, round(_TILE / max(rows, columns)))
        self.height, self.width, self.left = rows * factor, columns * factor, left
        self.pitch = max(self.width, _TILE // 2) + _GAP
        self.tops = [top + sum(row_heights[:i]) + i * self.height for i in range(len(row_heights))]
        low, high = float(images.min()), float(images.max())
        self.low, self.range = low, high - low or 1.0
        size = left + COLUMNS * self.pitch, self.tops[-1] + self.height + row_heights[-1]
        self.figure = Figure(figsize=(size[0] / DPI, size[1] / DPI))
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0))
        self.axes.set_axis_off()

    def show(self, image: Array, row: int, column: int) -> tuple[int, int]:
        """Put an image into the grid; returns where its top left corner is."""
        x, y = self.left + column * self.pitch, self.tops[row]
        self.axes.imshow(
            np.clip((image[:: self.step, :: self.step] - self.low) / self.range, 0, 1),
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            aspect="auto",
            extent=(x, x + self.width, y + self.height, y),
        )
        return x, y


def reconstruction_images(inputs: Array, outputs: Array, theme: Theme) -> Figure:
    """Rows of ten images, each above its reconstruction; both of shape (n, height, width[, 3])."""
    rows = math.ceil(len(inputs) / COLUMNS)
    tiles = _Tiles(inputs, 170, 20, [_GAP, 28] * rows)
    names = (("input", theme.muted), ("reconstruction", theme.ink)) * rows
    for top, (name, colour) in zip(tiles.tops, names, strict=True):
        tiles.axes.text(152, top + tiles.height / 2, name, color=colour, ha="right", va="center")
    for i, pair in enumerate(zip(inputs, outputs, strict=True)):
        for place, image in enumerate(pair):
            tiles.show(image, 2 * (i // COLUMNS) + place, i % COLUMNS)
    return tiles.figure


def reconstruction_curves(inputs: Array, outputs: Array, theme: Theme) -> Figure:
    """Small line plots, each of a sample's values and their reconstruction; both of shape (n, features)."""
    columns, rows = 5, math.ceil(len(inputs) / 5)
    figure = Figure(figsize=(WIDTH, 0.7 + 1.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    features = np.arange(inputs.shape[1])
    marker = "o" if len(features) <= 40 else ""
    for axes in grid[len(inputs) :]:
        axes.set_axis_off()
    for axes, given, made in zip(grid, inputs, outputs, strict=False):
        axes.plot(features, given, color=theme.muted, linewidth=2.6, alpha=0.55, label="input")
        axes.plot(
            features,
            made,
            color=theme.validation,
            linewidth=1.2,
            marker=marker,
            markersize=2.4,
            label="reconstruction",
        )
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10), integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    figure.supxlabel("feature", color=theme.muted, fontsize=9)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return figure


def predictions(images: Array, predicted: Array, true: Array, theme: Theme) -> Figure:
    """Rows of ten images with the label predicted for each; where it is wrong, a frame and the true label."""
    rows = math.ceil(len(images) / COLUMNS)
    tiles = _Tiles(images, _GAP, 66, [40] * rows)
    tiles.axes.text(_GAP, 18, "Predicted labels", va="center", fontsize=10)
    tiles.axes.text(_GAP, 45, "framed: predicted ≠ true", va="center", fontsize=8, color=theme.validation)
    for i, image in enumerate(images):
        x, y = tiles.show(image, i // COLUMNS, i % COLUMNS)
        text, wrong = f"{predicted[i]}", predicted[i] != true[i]
        colour = theme.validation if wrong else theme.muted
        if wrong:
            text += f" ≠ {true[i]}"
            frame = Rectangle((x, y), tiles.width, tiles.height, fill=False, edgecolor=colour, linewidth=2)
            tiles.axes.add_patch(frame)
        tiles.axes.text(
            x + tiles.width / 2,
            y + tiles.height + 17,
            text,
            ha="center",
            va="center",
            fontsize=8,
            color=colour,
            fontweight="bold" if wrong else "normal",
        )
    return tiles.figure
