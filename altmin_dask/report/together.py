"""Figures of several runs: what they are judged by, over sweeps and over CPU seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from altmin_dask.format import number
from altmin_dask.report.axes import Sweeps, label_ends, log_scale, share_scale, shown
from altmin_dask.report.columns import column
from altmin_dask.report.curves import HEIGHT, MOST_LABELS, PERCENT, Line, draw_line, draw_mark
from altmin_dask.report.style import Theme, panel
from altmin_dask.report.tiles import short_in_front
from altmin_dask.training.record import Record
from altmin_dask.types import Array

_LETTERS = 26


@dataclass(frozen=True)
class Curve:
    """A run to be drawn: its name, history, the record of its kept model, and whether validation samples judge it."""

    name: str
    records: tuple[Record, ...]
    kept: int
    validated: bool

    @property
    def losses(self) -> Array:
        """The losses that it is judged by."""
        return column((r.validation_loss if self.validated else r.nested_loss) for r in self.records)

    @property
    def accuracies(self) -> Array:
        """The accuracies of the same samples."""
        return column((r.validation_accuracy if self.validated else r.nested_accuracy) for r in self.records)

    @property
    def sweeps(self) -> Array:
        """Sweeps of its records."""
        return column(r.sweep for r in self.records)

    @property
    def cpu(self) -> Array:
        """CPU seconds of its records; of the one before training none."""
        return np.where(self.sweeps > 0, column(r.cpu_seconds for r in self.records), 0.0)


def losses(runs: Sequence[Curve], theme: Theme) -> Figure:
    """Loss over sweeps."""
    values = [(run.sweeps, run.losses) for run in runs]
    return _together(runs, values, theme, log_scale, number, ("Mean loss of a sample", "sweeps"))


def costs(runs: Sequence[Curve], theme: Theme) -> Figure:
    """Loss over CPU seconds, which runs of other settings have spent differently."""
    values = [(run.cpu, run.losses) for run in runs]
    titles = ("Mean loss of a sample, by cost", "CPU seconds of training")
    return _together(runs, values, theme, log_scale, number, titles)


def accuracies(runs: Sequence[Curve], theme: Theme) -> Figure:
    """Accuracy over sweeps."""
    values = [(run.sweeps, run.accuracies) for run in runs]
    return _together(runs, values, theme, share_scale, PERCENT, ("Accuracy", "sweeps"))


def has_accuracies(runs: Sequence[Curve]) -> bool:
    """Whether there is anything to draw in `accuracies`."""
    return any(np.isfinite(run.accuracies).any() for run in runs)


def _together(
    runs: Sequence[Curve],
    values: Sequence[tuple[Array, Array]],
    theme: Theme,
    scale: Callable[[Axes, Array], None],
    show: Callable[[float], str],
    titles: tuple[str, str],
) -> Figure:
    figure, axes = panel(HEIGHT, titles[0])
    scale(axes, np.concatenate([y for _, y in values]))
    across = Sweeps(*(x for x, _ in values))
    ends = []
    for place, (run, (x, y)) in enumerate(zip(runs, values, strict=True)):
        colour = theme.run_colour(place)
        known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if not known.size:
            continue
        x = across.places(x)
        draw_line(axes, x, Line(run.name, y, colour, dashed=place >= len(theme.runs)))
        last, at = int(known[-1]), run.kept if run.kept in known else int(known[-1])
        if at == run.kept:
            draw_mark(axes, float(x[at]), float(shown(axes, y)[at]), colour, theme)
        point = float(x[last]), float(shown(axes, y)[last])
        ends.append((point, f"{short_in_front(run.name, _LETTERS)}  {show(float(y[at]))}", colour))
    across.apply(axes, titles[1])
    label_ends(axes, ends[:MOST_LABELS])
    return figure
