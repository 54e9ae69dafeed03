"""Scales, ticks and labels that people can read, for curves of any size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import OffsetFrom
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from altmin_dask.format import number
from altmin_dask.report.style import DPI, STEPS
from altmin_dask.types import Array

LABEL_POINTS = 13
"""Height of a label at the end of a curve."""
EARLY = 4
"""Sweeps are on a logarithmic axis where the last is so many times the first that has a record, or more: all that
happens at first would be one vertical line."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Sweeps:
    """The horizontal axis of curves: sweeps, or whatever else grows, logarithmic where most happens at first.

    What is 0 stands at the left end of a logarithmic axis, a step before the first that is not.

    Parameters
    ----------
    values : ndarray, (records,), or several
        Of all curves on the axis.
    """

    def __init__(self, *values: Array) -> None:
        every = np.concatenate([each[np.isfinite(each)] for each in values] or [np.empty(0)])
        positive = every[every > 1e-9]
        self.last = float(every.max(initial=0.0)) if positive.size else 1.0
        self.first = float(positive.min()) if positive.size else 1.0
        self.logarithmic = self.last >= EARLY * self.first
        self.start = self.first / (self.last / self.first) ** 0.1 if self.logarithmic else 0.0

    def places(self, values: Array) -> Array:
        """Where values stand."""
        return np.where(values < self.first, self.start, values) if self.logarithmic else values

    def ticks(self) -> list[float]:
        """A few round values."""
        if not self.logarithmic:
            even = MaxNLocator(5, steps=STEPS).tick_values(0, self.last)
            return [float(tick) for tick in even if 0 <= tick <= self.last * 1.001]
        ticks = log_ticks(self.first, self.last)
        return ticks[:: math.ceil(len(ticks) / 5)]

    def apply(self, axes: Axes, name: str, beside: tuple[Array, Array, str] | None = None) -> None:
        """Give the horizontal axis its scale, ticks and name.

        Parameters
        ----------
        axes : Axes
            Of the curves.
        name : str
            What the values are called.
        beside : (ndarray, ndarray, str), optional
            Other values that grow with these, and what they are called: both are told at every tick.
        """
        ticks = self.ticks()
        if self.logarithmic:
            axes.set_xscale("log")
            ticks = [self.start, *ticks]
        axes.set_xlim(self.start, self.last)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())

        def label(value: float, _: int | None = None) -> str:
            own = 0.0 if self.logarithmic and value < self.first * 0.999 else value
            text = f"{own:,.4g}" if own < 10_000 else number(own)
            if beside is None:
                return text
            at = float(np.interp(own, beside[0], beside[1]))
            if own == 0 or (self.logarithmic and value < self.first * 0.999):
                return text  # there is no room, and nothing to tell
            return f"{text}\n{at:.2g}" if at < 99.5 else f"{text}\n{at:,.0f}"

        axes.xaxis.set_major_formatter(FuncFormatter(label))
        axes.set_xlabel(name if beside is None else f"{name}, {beside[2]} below")


def log_scale(axes: Axes, values: Array) -> None:
    """Give y a logarithmic axis that fits the positive values, with ticks people can read."""
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return  # all are 0, or there are none
    low, high = float(values.min()), float(values.max())
    margin = max((high / low) ** 0.05, 1.02)
    axes.set_yscale("log")
    axes.set_ylim(low / margin, high * margin)
    ticks = log_ticks(low / margin, high * margin)
    powers = any(map(needs_power, ticks))
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value, powers=powers)))


def share_scale(axes: Axes, values: Array) -> None:
    """Give y an axis of per cents that fits the values."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = max(0.06 * (high - low), 0.005)
    axes.set_ylim(max(low - margin, -0.005), min(high + margin, 1.005))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))


def shown(axes: Axes, values: Array) -> Array:
    """Put what a logarithmic axis cannot show at its bottom."""
    return np.where(values <= 0, axes.get_ylim()[0], values) if axes.get_yscale() == "log" else values


def log_ticks(low: float, high: float) -> list[float]:
    """Choose a few round numbers between two positive ones, spread over a logarithmic axis."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = math.ceil((last - first) / 8)
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        exponents = range(first, last + 1, step if len(mantissas) == 1 else 1)
        ticks = [m * 10.0**e for e in exponents for m in mantissas if low <= m * 10.0**e <= high]
        if len(ticks) >= 4:
            return ticks
    even = MaxNLocator(5, steps=STEPS).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def needs_power(value: float) -> bool:
    """Whether a tick would be too long without a power of ten: then all of its axis have one."""
    return not -5 < _exponent(value) < 5


def tick_label(value: float, *, powers: bool | None = None) -> str:
    """Write a tick of a logarithmic axis, as the others of the axis are; one alone as it is short."""
    if not (needs_power(value) if powers is None else powers):
        return f"{value:g}"
    exponent = _exponent(value)
    mantissa = value / 10.0**exponent
    factor = "" if math.isclose(mantissa, 1) else f"{mantissa:g}·"
    return f"{factor}10{str(exponent).translate(_RAISED)}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(value) + 1e-9)


def label_ends(axes: Axes, ends: Iterable[tuple[tuple[float, float], str, object]]) -> None:
    """Write texts beside the ends of curves, (point, text, colour) each, moved apart where they would overlap."""
    box = axes.get_window_extent()  # before the layout is made, which is near enough
    needed, right = LABEL_POINTS / 72 * DPI / box.height, 1 + 14 / 72 * DPI / box.width
    axes.get_ylim()  # a transformation alone would not work them out
    there = []
    for point, text, colour in ends:
        height = axes.transAxes.inverted().transform(axes.transData.transform(point))[1]
        there.append((float(height), point, text, colour))
    there.sort(key=lambda end: end[0])
    heights = below(1 + needed / 2, spread([end[0] for end in there], needed), needed)
    for (_, point, text, colour), height in zip(there, heights, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "relpos": (0, 0.5), "shrinkB": 4}
        axes.annotate(
            text,
            point,
            (right, height),
            textcoords="axes fraction",
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops=leader if math.isclose(point[0], axes.get_xlim()[1]) else None,
        )


def list_lines(axes: Axes, ends: Iterable[tuple[tuple[float, float], str, object]]) -> None:
    """Write the texts that `label_ends` would below each other instead, the highest point's first, each with a line."""
    corner = OffsetFrom(axes, (1, 1), "points")
    for place, (_, text, colour) in enumerate(sorted(ends, key=lambda end: -end[0][1])):
        height = -LABEL_POINTS * 1.1 * place
        axes.annotate(
            text,
            (12, height),
            (31, height),
            xycoords=corner,
            textcoords=corner,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 2.4,
                "relpos": (0, 0.5),
                "shrinkB": 0,
            },
        )


def below(top: float, heights: Sequence[float], needed: float) -> list[float]:
    """Move ascending heights down, as little as possible, until none is above the top and neighbours differ as much."""
    found: list[float] = []
    for height in reversed(heights):
        found.append(min(height, top))
        top = found[-1] - needed
    return found[::-1]


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
