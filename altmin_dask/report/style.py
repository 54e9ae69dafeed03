"""What all figures look like: light and dark, drawn without pyplot and whatever the user's matplotlibrc says.

Colours are of Okabe and Ito, those of layers of viridis: the colour-blind can tell them apart, but for those of many
classes, which are listed in their order. A figure is one panel of `WIDTH` inches: the page puts two side by side where
there is room, and a phone shows one that can still be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from altmin_dask.storage.ownership import PRODUCER

DPI = 165
WIDTH = 4.5
STEPS = (1, 2, 2.5, 5, 10)
"""Mantissas of ticks."""


@dataclass(frozen=True)
class Theme:
    """Colours of a figure."""

    paper: str
    ink: str
    muted: str
    grid: str
    relaxed: str
    training: str
    validation: str
    layers: tuple[float, float]
    """The part of viridis that stands out from the paper."""
    runs: tuple[str, ...]
    """Of runs that are compared."""
    classes: tuple[str, ...]
    """Of classes: hues that are told apart."""

    def layer_colours(self, count: int) -> list[tuple[float, ...]]:
        """Return a colour for each of `count` layers."""
        colours = matplotlib.colormaps["viridis"](np.linspace(*self.layers, max(count, 2)))[:count]
        return [tuple(float(part) for part in colour) for colour in colours]

    def run_colour(self, place: int) -> str:
        """Return the colour of a run; after the last it is the first again."""
        return self.runs[place % len(self.runs)]


LIGHT = Theme(
    "#ffffff",
    "#1f2328",
    "#5d6774",
    "#e4e7eb",
    "#009e73",
    "#0072b2",
    "#d55e00",
    (0.08, 0.72),
    ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00", "#555555"),
    (
        *("#0072b2", "#d55e00", "#00855f", "#c13fa8", "#8c8c00", "#732e39"),
        *("#5b1a8c", "#4f9a00", "#e8336d", "#5f6b7a", "#3d5afe", "#a8743a"),
    ),
)
DARK = Theme(
    "#14181d",
    "#e6eaef",
    "#98a2b0",
    "#2b323b",
    "#2ec4a0",
    "#56b4e9",
    "#f0883e",
    (0.48, 0.96),
    ("#56b4e9", "#f0883e", "#2ec4a0", "#e08bd0", "#e8d04a", "#b0b7c0"),
    (
        *("#56b4e9", "#f0883e", "#2ec4a0", "#e067d0", "#dcd03c", "#ff5c8a"),
        *("#7f7fff", "#7fd03a", "#f2e4c0", "#a6756c", "#8f9baa", "#ffb0f0"),
    ),
)


def png(draw: Callable[[Theme], Figure], theme: Theme) -> bytes:
    """Draw a figure and encode it; the same input gives the same bytes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        _set_style(theme)
        buffer = BytesIO()
        canvas = FigureCanvasAgg(draw(theme))  # savefig draws twice
        canvas.print_png(buffer, metadata={"Software": PRODUCER})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def panel(height: float, title: str) -> tuple[Figure, Axes]:
    """Make a figure of one pair of axes."""
    figure = titled(height, title)
    return figure, figure.subplots()


def titled(height: float, title: str) -> Figure:
    """Make a figure with a title."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.006, ha="left", fontsize=10, fontweight="bold")
    return figure


def _set_style(theme: Theme) -> None:
    matplotlib.rc("figure", dpi=DPI, facecolor=theme.paper)
    matplotlib.rc("figure.constrained_layout", w_pad=0.06, h_pad=0.06)
    matplotlib.rc("font", family=["DejaVu Sans"], size=9)
    matplotlib.rc("text", color=theme.ink, parse_math=False)  # names may have dollars
    matplotlib.rc("axes", facecolor=theme.paper, edgecolor=theme.muted, labelcolor=theme.muted, linewidth=0.8)
    matplotlib.rc("axes", titlesize=9, titlelocation="left", titlepad=9, grid=True, axisbelow=True)
    matplotlib.rc("axes.grid", axis="y")
    matplotlib.rc("axes.spines", top=False, left=False, right=False)
    matplotlib.rc("grid", color=theme.grid, linewidth=0.8)
    matplotlib.rc("xtick", color=theme.muted)
    matplotlib.rc("ytick", color=theme.muted)
    matplotlib.rc("ytick.major", size=0)
    matplotlib.rc("lines", linewidth=1.8, markersize=3.6, solid_capstyle="round", solid_joinstyle="round")
