"""The curves of a task as a figure, log-log: of every contestant the row with the best end bold, the others thin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from quality_report import Row, order_of, rows_of
from quality_tasks import TASKS

STYLES: dict[str, dict[str, Any]] = {
    # told apart without colour: dashes and markers, and lightness
    "altmin": {"color": "#000000", "linestyle": "-", "marker": "o"},
    "altmin-tuned": {"color": "#08519c", "linestyle": "-", "marker": "s"},
    "altmin-raw": {"color": "#6baed6", "linestyle": "-", "marker": "p"},
    "adam": {"color": "#cb181d", "linestyle": "--", "marker": "^"},
    "adamw": {"color": "#a50f15", "linestyle": "--", "marker": "<"},
    "adam-cosine": {"color": "#ef6548", "linestyle": "-.", "marker": "v"},
    "sgd": {"color": "#238b45", "linestyle": ":", "marker": "D"},
    "lbfgs": {"color": "#8c6bb1", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "x"},
    "sklearn": {"color": "#969696", "linestyle": (0, (8, 3)), "marker": "+"},
}
HORIZONS = ("#fdae6b", "1"), ("#fd8d3c", "2"), ("#e6550d", "v"), ("#a63603", "3")
"""Colours and markers of adam-cosine over longer and longer times."""


def median_curve(row: Row) -> tuple[Any, Any]:
    """Seconds and costs: the median over seeds at common moments, as long as all curves last."""
    curves = [np.array([point[:2] for point in curve]) for curve in row.curves if curve]
    if not curves:
        return np.array([]), np.array([])
    longest = max(curves, key=lambda curve: curve[-1, 0])
    logs = np.log(longest[:, 0])
    low, high = (f([np.log(c[i, 0]) for c in curves]) for f, i in ((max, 0), (min, -1)))
    logs = np.unique(np.clip(logs, low, high)) if low < high else np.array([low])
    return np.exp(logs), np.median([np.interp(logs, np.log(c[:, 0]), c[:, 1]) for c in curves], axis=0)


def end_of(row: Row) -> float:
    """The median cost at the end."""
    return median(curve[-1][1] if curve else float("inf") for curve in row.curves)


def figure(name: str, lines: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    task = TASKS[name]
    rows = [row for row in rows_of(name, lines) if any(row.curves)]
    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    costs = [100 - threshold if task.accuracy else threshold for threshold in task.thresholds]
    horizons = count()
    for contestant in dict.fromkeys(row.contestant for row in sorted(rows, key=order_of)):
        own = [row for row in rows if row.contestant == contestant]
        best = min(own, key=end_of)
        family = contestant if contestant in STYLES else contestant.rpartition("-")[0]
        look = STYLES[family]
        if family == "adam-cosine":
            color, marker = HORIZONS[next(horizons) % len(HORIZONS)]
            look = {**look, "color": color, "marker": marker}
        for row in own:
            style = {**look, "markersize": 5, "markevery": 2}
            if row is not best:
                style |= {"marker": "", "alpha": 0.5}
            axes.plot(
                *median_curve(row),
                **style,
                linewidth=2 if row is best else 0.8,
                zorder=3 if row is best else 2,
                label=row.name if row is best else None,
            )
    for cost, threshold in zip(costs, task.thresholds, strict=True):
        axes.axhline(cost, color="0.6", linewidth=0.6, zorder=1)
        text = f"{threshold:g} %" if task.accuracy else f"{threshold:g}"
        axes.annotate(
            text, (1.0, cost), xycoords=("axes fraction", "data"), fontsize=7, va="bottom", ha="right"
        )
    reached = [point[1] for row in rows for curve in row.curves for point in curve]
    lowest = min([*costs, *(cost for cost in reached if cost > 0)])  # no error at all is on no log axis
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(0.9 * lowest, 12 * max(costs)),
        xlabel="CPU seconds of training",
        ylabel="test error, %" if task.accuracy else "held-out ½‖x̂−x‖²",
        title=f"{name}: {'-'.join(map(str, task.sizes))}",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="major")
    axes.legend(fontsize=8, handlelength=4)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
