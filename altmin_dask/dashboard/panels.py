"""Figures of the page, each below what it shows and what its lines are: no legend lies on a curve."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from bokeh.layouts import column
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    Div,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
)
from bokeh.plotting import figure

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
KEY_STYLE = TEXT + ":host { margin: auto 5px 0; padding-top: 5px; }"
"""What stands above a figure is at the end of the field with it: figures beside each other are level."""

# Round numbers spread over a logarithmic axis, as `altmin_dask.report.figures.log_ticks` chooses them, of whatever
# is in view.
LOG_TICKS = """
const low = Math.min(range.start, range.end), high = Math.max(range.start, range.end);
if (low > 0 && isFinite(high)) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const step = Math.max(1, Math.ceil((last - first) / 8));
  let ticks = [];
  for (const mantissas of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]]) {
    ticks = [];
    for (let e = first; e <= last; e += mantissas.length == 1 ? step : 1)
      for (const m of mantissas) ticks.push(Number(`${m}e${e}`));
    ticks = ticks.filter(tick => low <= tick && tick <= high);
    if (ticks.length >= 4) break;
  }
  if (ticks.length < 4) {
    const raw = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(raw));
    const even = unit * [1, 2, 2.5, 5, 10].find(m => m * unit >= raw);
    ticks = [];
    for (let i = Math.ceil(low / even); i * even <= high; i++) ticks.push(Number((i * even).toPrecision(6)));
  }
  ticker.ticks = ticks;
}
"""
LOG_LABEL = """
const exponent = Math.floor(Math.log10(tick) + 1e-9);
if (-4 < exponent && exponent < 5) return String(Number(tick.toPrecision(6)));
const raised = String(exponent).replace(/./g, c => c == '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[c]);
const mantissa = Number((tick / 10 ** exponent).toPrecision(6));
return (mantissa == 1 ? '' : mantissa + '·') + '10' + raised;
"""


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
            self.figure.yaxis.formatter = NumeralTickFormatter(format="0.[0] %")
        else:
            _label_as_the_report(self.figure)
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
        value = "@y{0.[00] %}" if not self.logarithmic else "@y"
        made.add_tools(
            HoverTool(renderers=[drawn], tooltips=[("", "@label"), (along, "$x"), ("value", "$y")]),
            HoverTool(renderers=[kept], tooltips=[("", "@label"), (along, "@x"), ("value", value)]),
        )
        return made

    def draw(self, curves: Sequence[Curve], theme: Theme, kept: dict[str, list[Any]] | None = None) -> None:
        """Show other curves, and points of models that are kept; nothing at all where there are none."""
        self.curves.data = lines(curves, logarithmic=self.logarithmic)
        self.kept.data = kept or {name: [] for name in self.kept.data}
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


def _label_as_the_report(made: Any) -> None:
    """Give a logarithmic axis the ticks and labels that the report's have, wherever one zooms to."""
    made.yaxis.ticker = ticker = FixedTicker(ticks=[])
    made.ygrid.ticker = ticker
    made.yaxis.formatter = CustomJSTickFormatter(code=LOG_LABEL)
    follow = CustomJS(args={"range": made.y_range, "ticker": ticker}, code=LOG_TICKS)
    made.y_range.js_on_change("start", follow)
    made.y_range.js_on_change("end", follow)


def picture_panel(source: ColumnDataSource) -> Any:
    """Rows of pictures below what they are."""
    made = figure(
        sizing_mode="scale_width",
        aspect_ratio=5,
        max_width=900,
        stylesheets=[FIGURE_STYLE],
        match_aspect=True,
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
