"""Figures of how good predictions are: confusion matrix, predictions against targets, residuals, errors of features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, ScalarFormatter

from altmin_dask.report.style import STEPS, WIDTH, Theme, panel, titled
from altmin_dask.report.tiles import short
from altmin_dask.types import Array

MOST_NUMBERS, MOST_NAMES = 12, 30
"""Classes of a matrix whose cells have numbers, and whose rows have names."""
MOST_FEATURES = 24
MOST_OUTPUTS = 4
MOST_SEQUENCES = 4
MOST_POINTS = 2000
"""In a figure, of the steps of sequences."""
_LETTERS = 12
_ROOM, _HALF_ROOM = 48, 19
"""Letters below an x axis of its own, and below one of two that stand side by side."""


def confusion(matrix: Array, names: Sequence[str], theme: Theme) -> Figure:
    """Counts of samples, or weights, by true class (rows) and predicted class (columns), (K, K); coloured by shares."""
    classes = len(matrix)
    figure, axes = panel(WIDTH * 0.98, "Confusion matrix")
    rows = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    right = np.eye(classes, dtype=bool)
    for mask, colour in ((right, theme.training), (~right, theme.validation)):
        scale = LinearSegmentedColormap.from_list("shares", [theme.paper, colour])
        strength = np.ma.masked_array(np.where(right, shares, np.sqrt(shares)), ~mask)
        axes.imshow(strength, cmap=scale, vmin=0, vmax=1, interpolation="nearest")
    if classes <= MOST_NUMBERS:
        _numbers(axes, matrix, shares, theme)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if classes <= MOST_NAMES:
        texts = [short(name, _LETTERS) for name in names]
        size = 9 if classes <= MOST_NUMBERS else 6.5
        turned = 45 if max(map(len, texts)) > (3 if classes <= MOST_NUMBERS else 1) else 0
        axes.set_xticks(
            range(classes), texts, rotation=turned, ha="right" if turned else "center", fontsize=size
        )
        axes.set_yticks(range(classes), texts, fontsize=size)
    else:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
    return figure


def _numbers(axes: Axes, matrix: Array, shares: Array, theme: Theme) -> None:
    """Counts in the cells that have any."""
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            strong = shares[row, column] > 0.45 if row == column else shares[row, column] > 0.2
            axes.text(
                column,
                row,
                f"{count:,.4g}" if count < 10_000 else f"{count:.2g}",
                ha="center",
                va="center",
                fontsize=9 if len(matrix) <= 8 else 7.5,
                color=theme.paper if strong else theme.ink,
            )


def against_targets(targets: Array, outputs: Array, names: Sequence[str], theme: Theme) -> Figure:
    """Predictions over targets, (n, outputs) both, with the line on which they are equal."""
    figure, every = _grid(targets.shape[1], 4.2, "Predicted against true")
    for place, axes in enumerate(every):
        true, made = targets[:, place], outputs[:, place]
        low, high = _limits(np.concatenate([true, made]))
        _points(axes, true, made, theme)
        axes.plot([low, high], [low, high], color=theme.ink, linewidth=1, linestyle=(0, (1, 2)), zorder=4)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="target", ylabel="prediction")
        few_ticks(axes, len(every))
        _title(axes, names, place, len(every))
    return figure


def residuals_of(targets: Array, outputs: Array, names: Sequence[str], theme: Theme) -> Figure:
    """Prediction minus target over the prediction, (n, outputs) both: what is left has no shape if all is learnt."""
    figure, every = _grid(targets.shape[1], 3.1, "Residuals")
    for place, axes in enumerate(every):
        made, left = outputs[:, place], outputs[:, place] - targets[:, place]
        most = float(np.nanmax(np.abs(left), initial=0.0)) or 1.0
        _points(axes, made, left, theme)
        axes.axhline(0, color=theme.ink, linewidth=1, linestyle=(0, (1, 2)), zorder=4)
        axes.set(
            xlim=_limits(made),
            ylim=(-1.08 * most, 1.08 * most),
            xlabel="prediction",
            ylabel="prediction − target",
        )
        few_ticks(axes, len(every))
        _title(axes, names, place, len(every))
    return figure


def sequences(targets: Array, outputs: Array, names: Sequence[str], theme: Theme) -> Figure:
    """The first output of a few sequences over their steps, (n, steps, outputs), and what it should be."""
    count = min(len(targets), MOST_SEQUENCES)
    figure = titled(0.9 + 1.1 * count, "Sequences")
    grid = figure.subplots(count, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    steps = np.arange(1, targets.shape[1] + 1)
    for axes, true, made in zip(grid, targets, outputs, strict=False):
        axes.plot(steps, true[:, 0], color=theme.muted, linewidth=3, alpha=0.6, label="target")
        axes.plot(
            steps,
            np.where(np.isnan(true[:, 0]), np.nan, made[:, 0]),
            color=theme.validation,
            linewidth=1.4,
            label="prediction",
        )
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=STEPS))
    grid[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    grid[-1].set_xlabel("step")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    if targets.shape[2] > 1 and names:
        grid[0].set_title(names[0])
    return figure


def features(inputs: Array, outputs: Array, names: Sequence[str], theme: Theme) -> Figure:
    """Root mean square errors of the worst features, relative to their standard deviations, as bars."""
    errors = relative_errors(inputs, outputs)
    worst = np.argsort(-np.nan_to_num(errors, nan=-1.0), kind="stable")[:MOST_FEATURES]
    worst = worst[np.isfinite(errors[worst])]
    figure, axes = panel(1.3 + 0.23 * max(len(worst), 2), "Error by feature")
    places = np.arange(len(worst))
    axes.barh(places, errors[worst], color=theme.training, height=0.66)
    axes.axvline(1, color=theme.ink, linewidth=1, linestyle=(0, (1, 2)))
    axes.set_yticks(places, [short(names[i] if names else f"feature {i}", 22) for i in worst])
    axes.set_ylim(len(worst) - 0.4, -0.6)
    axes.set_xlim(0, max(1.1, 1.12 * float(errors[worst].max(initial=0.0))))
    axes.grid(visible=False)
    for place, value in enumerate(errors[worst].tolist()):
        axes.text(value, place, f" {value:.2f}", va="center", fontsize=8, color=theme.muted, clip_on=False)
    axes.set_xlabel("root mean square error / standard deviation")
    return figure


def relative_errors(inputs: Array, outputs: Array) -> Array:
    """Root mean square error of every feature by its standard deviation, (features,); NaN where it does not vary."""
    error = np.sqrt(np.mean((outputs - inputs) ** 2, axis=0))
    deviation = inputs.std(axis=0)
    vary = deviation > 1e-9 * np.maximum(np.abs(inputs).max(axis=0), np.finfo(np.float64).tiny)
    return np.where(vary, error / np.where(vary, deviation, 1.0), np.nan)


def _grid(outputs: int, height: float, title: str) -> tuple[Figure, list[Axes]]:
    """Axes for each of the first few outputs."""
    count = min(outputs, MOST_OUTPUTS)
    if count == 1:
        figure, axes = panel(height, title)
        return figure, [axes]
    rows = math.ceil(count / 2)
    figure = titled(2.5 * rows + 0.5, title)
    every = list(figure.subplots(rows, 2, squeeze=False).ravel())
    for spare in every[count:]:
        spare.set_axis_off()
    return figure, every[:count]


def _points(axes: Axes, x: Array, y: Array, theme: Theme) -> None:
    size, alpha = (14, 0.6) if len(x) <= 500 else (7, 0.35)
    axes.scatter(x, y, s=size, alpha=alpha, color=theme.training, linewidths=0, zorder=3)
    axes.grid(visible=True, axis="both")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=STEPS))


def few_ticks(axes: Axes, panels: int) -> None:
    """Give x so many ticks that what stands below them does not overlap: small values are long."""
    low, high = axes.get_xlim()
    for most in (5, 4, 3, 2, 1):
        ticks = [t for t in MaxNLocator(most, steps=STEPS).tick_values(low, high) if low <= t <= high]
        formatter = ScalarFormatter()
        formatter.set_axis(axes.xaxis)
        letters = sum(map(len, formatter.format_ticks(ticks))) + 2 * len(ticks)
        if letters <= (_ROOM if panels == 1 else _HALF_ROOM):
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks))


def _limits(values: Array) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _title(axes: Axes, names: Sequence[str], place: int, count: int) -> None:
    if names or count > 1:
        axes.set_title(short(names[place], 40 if count == 1 else 18) if names else f"output {place}")
