"""Figures of the page, each below what it shows and what its lines are: no legend lies on a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

from bokeh.layouts import column
from bokeh.models import (
    ColumnDataSource,
    Div,
    HoverTool,
    NumeralTickFormatter,
)
from bokeh.plotting import figure

from altmin_dask.dashboard.axes import Extent, GrowingAxis, log_axis
from altmin_dask.dashboard.curves import Curve, Dash, Measure, lines
from altmin_dask.dashboard.theme import TEXT, Theme

NARROW = 430
"""A panel is no narrower than so many pixels, unless the window is: then they stand below each other."""
MOST_KEYS = 12
"""Lines that are named one by one."""
KEY_WIDTH = 30
"""Pixels of a sample of a line."""
# Bokeh clears no more than half of the first pixels of a canvas: they show what was painted there before.
FIGURE_STYLE = """
:host::before, :host::after {
  content: ""; position: absolute; z-index: 1; left: 0; top: 0; background: var(--altmin-paper); pointer-events: none;
}
:host::before { width: 1px; height: 100%; }
:host::after { width: 100%; height: 1px; }
"""
PICTURES_ACROSS = 10 * 1.05 - 0.05
"""Width of ten pictures with gaps, as many as there are at most, in their own; they stand in two rows."""
KEY_STYLE = TEXT + ":host { margin: auto 5px 0; padding-top: 5px; }"
"""What stands above a figure is at the end of the field with it: figures beside each other are level."""


class LinePanel:
    """Curves below their names.

    Parameters
    ----------
    title, along : str
        What it shows against what.
    measures : sequence of Measure, optional
        What may have lines, where the lines of one colour are told apart by dashes; else each line has its own name.
    share : bool
        Whether values are shares between 0 and 1, on a linear axis; else the axis is logarithmic.
    """

    def __init__(
        self, title: str, along: str, measures: Sequence[Measure] = (), *, share: bool = False
    ) -> None:
        self.title, self.measures, self.logarithmic = title, measures, not share
        self.curves, self.kept = (
            ColumnDataSource(lines([])),
            ColumnDataSource({"x": [], "y": [], "color": [], "label": []}),
        )
        self.key = Div(stylesheets=[KEY_STYLE], sizing_mode="stretch_width")
        self.figure = self._figure(along)
        if share:
            self.figure.yaxis.formatter = NumeralTickFormatter(format="0.[0]%")
        else:
            log_axis(self.figure)
        self.root = panel(self.key, self.figure)
        self.root.visible = False

    def _figure(self, along: str) -> Any:
        made = figure(
            x_axis_label=along,
            y_axis_type="log" if self.logarithmic else "linear",
            height=260,
            stylesheets=[FIGURE_STYLE],
            sizing_mode="stretch_width",
            tools="pan,wheel_zoom,box_zoom,reset,save",
            active_drag=None,
        )
        made.toolbar.logo, made.toolbar.autohide = None, True
        made.xgrid.visible = False
        made.yaxis.minor_tick_line_color = None
        self.across = GrowingAxis(made)
        drawn = made.multi_line(
            "xs",
            "ys",
            color="color",
            line_dash="dash",
            line_width="width",
            line_alpha="alpha",
            source=self.curves,
        )
        kept = made.scatter("x", "y", size=9, color="color", line_color="white", source=self.kept)
        value = "@y{0.[00]%}" if not self.logarithmic else "@y"
        told = self.across.told()
        for renderer, x, y in ((drawn, "$x", "$y"), (kept, "@x", value)):
            tooltips = [("", "@label"), (along, f"{x}{{custom}}"), ("value", y)]
            made.add_tools(HoverTool(renderers=[renderer], tooltips=tooltips, formatters={x: told}))
        return made

    def draw(self, curves: Sequence[Curve], theme: Theme, kept: dict[str, list[Any]] | None = None) -> None:
        """Show other curves, and points of models that are kept; nothing at all where there are none."""
        extent = Extent.of(x for curve in curves for x in curve.x)
        self.across.fit(extent)
        placed = [replace(curve, x=extent.places(curve.x)) for curve in curves]
        self.curves.data = lines(placed, logarithmic=self.logarithmic)
        kept = kept or {name: [] for name in self.kept.data}
        self.kept.data = {**kept, "x": extent.places(kept["x"])}
        self.key.text = heading(self.title, self._names(curves))
        self.root.visible = bool(curves)  # K-FAC steps know of no residuals, and of μ only where it is finite

    def _names(self, curves: Sequence[Curve]) -> str:
        if not self.measures:
            named = [key(curve.label, curve.colour, curve.dash) for curve in curves[:MOST_KEYS]]
            return "".join(named) + ("…" if len(curves) > MOST_KEYS else "")
        there = {curve.measure for curve in curves}
        named = [
            key(measure.name, "currentColor", measure.dash)
            for measure in self.measures
            if measure.name in there
        ]
        if self.kept.data["x"]:
            dot = '<svg width="10" height="10"><circle cx="5" cy="5" r="4.5" fill="currentColor"/></svg>'
            named.append(f'<span class="key">{dot}the model that is kept</span>')
        return "".join(named)


def panel(*children: Any) -> Any:
    """One field of the page, as wide as there is room for."""
    styles = {"flex": f"1 1 {NARROW}px", "min-width": f"min(100%, {NARROW}px)", "height": "auto"}
    return column(*children, sizing_mode="stretch_width", styles=styles)


def heading(title: str, more: str = "") -> str:
    """What stands above a field: what it is, and anything else."""
    return f"<h3>{escape(title)}</h3>{more}"


def key(name: str, colour: str, dash: Dash) -> str:
    """A piece of a line and its name."""
    stroke = f'stroke="{colour}" stroke-width="{dash.width}" opacity="{dash.alpha}"'
    width = _sample_width(dash)
    line = f'<line x2="{width}" y1="5" y2="5" {stroke} stroke-dasharray="{dash.pattern}"/>'
    return f'<span class="key"><svg width="{width}" height="10">{line}</svg>{escape(name)}</span>'


def _sample_width(dash: Dash) -> int:
    """Pixels of a sample of a line, KEY_WIDTH at most, that ends with a whole stroke."""
    if not dash.pattern:
        return KEY_WIDTH
    stroke, gap = map(int, dash.pattern.split())
    return KEY_WIDTH - (KEY_WIDTH - stroke) % (stroke + gap)


def picture_panel(source: ColumnDataSource) -> Any:
    """Rows of pictures below what they are."""
    made = figure(
        sizing_mode="scale_width",
        x_range=(0, PICTURES_ACROSS),
        y_range=(-1.05, 1),
        aspect_ratio=PICTURES_ACROSS / 2.05,
        max_width=900,
        margin=5,
        stylesheets=[FIGURE_STYLE],
        tools="",
        toolbar_location=None,
        min_border=0,
    )
    made.axis.visible = False
    made.grid.visible = False
    made.image_rgba("image", x="x", y="y", dw=1, dh=1, source=source)
    title = Div(
        text=heading("What the samples are, and what the network makes of them"),
        stylesheets=[KEY_STYLE],
        sizing_mode="stretch_width",
    )
    return column(title, made, sizing_mode="stretch_width")
