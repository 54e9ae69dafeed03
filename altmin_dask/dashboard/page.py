"""The page as a Bokeh document: losses of all runs, and of the chosen one residuals, μ, time, memory and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any, Protocol

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    DataRange1d,
    Div,
    FactorRange,
    HoverTool,
    Legend,
    LegendItem,
    Range1d,
    Select,
    Span,
    Toggle,
)
from bokeh.palettes import Category10_10
from bokeh.plotting import figure

from altmin_dask.dashboard.board import ACTIVITIES, Board, RunState, by_activity
from altmin_dask.format import duration, known
from altmin_dask.training.record import Layers, Record

POINTS, ALL_POINTS = 600, 20_000
"""A curve has no more points than that, nor have all curves together (but for a hundred each)."""
INTERVAL_MS = 1000
MOST_WORKERS = 16
"""Workers whose memory is shown."""
WORKERS_EVERY = 3
"""How often is drawn what has changed, and every how many times what the workers do."""
LOSSES: tuple[tuple[Callable[[Record], float | None], str, str], ...] = (
    (lambda record: record.relaxed_objective, "relaxed", "dotted"),
    (lambda record: record.nested_loss, "nested", "solid"),
    (lambda record: record.validation_loss, "validation", "dashed"),
)
ACTIVITY_COLORS = dict(zip((*ACTIVITIES, "other"), Category10_10, strict=True))
STYLE = """
<style>
  :root { color-scheme: light dark; }
  body { background: #fafafa; color: #222222; }
  @media (prefers-color-scheme: dark) {
    body { background: #15191c; color: #e0e0e0; }
    .navbar, .navbar ul, .dropdown-content { background-color: #2b3035 !important; }
    .navbar a, .dropdown-content a { color: #e0e0e0 !important; }
  }
</style>
"""
CHOICE_STYLE = ".bk-input { color: #222222; background-color: #ffffff; }"
TABLE_STYLE = """
:host { color: #222222; max-height: 300px; overflow-y: auto; }
:host(.dark) { color: #e0e0e0; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid #88888855; }
td { white-space: nowrap; }
td:last-child { white-space: normal; }
.bar { display: inline-block; width: 120px; height: 9px; background: #88888844; vertical-align: middle; }
.bar { margin-right: 8px; }
.bar i { display: block; height: 100%; }
"""


class Cluster(Protocol):
    """Where runs take place."""

    def memory(self) -> list[tuple[str, float, float]]:
        """Name, bytes in use and limit of every worker."""

    def seconds(self, span: str) -> dict[str, float]:
        """What the workers spent their time with on the tasks of a run."""


def document(doc: Any, board: Board, cluster: Cluster | None, base: Any = None, extra: Any = None) -> None:
    """Fill a Bokeh document that follows a board until it is closed.

    Parameters
    ----------
    doc : bokeh Document
        What to fill.
    board : Board
        The runs.
    cluster : Cluster or None
        Where they take place; None where that is not known.
    base : jinja2.Template, optional
        The template of Dask's dashboard, around whose content the page is drawn.
    extra : dict, optional
        Its variables.
    """
    view = View(doc, board, cluster)
    doc.title = "altmin"
    if base is None:
        doc.template = "{% block postamble %}" + STYLE + "{% endblock %}"
    else:
        doc.template = base.environment.from_string(
            '{% extends "base.html" %}{% block extra_resources %}' + STYLE + "{% endblock %}"
            "{% block content %}{{ plot_div }}{{ plot_script }}{% endblock %}"
        )
        doc.template_variables.update(extra or {})
    doc.add_root(view.root)
    view.update()
    doc.add_periodic_callback(view.update, INTERVAL_MS)


class View:
    """One open page."""

    def __init__(self, doc: Any, board: Board, cluster: Cluster | None) -> None:
        self.doc, self.board, self.cluster = doc, board, cluster
        self.drawn: dict[str, Any] = {}
        self.ticks = 0
        self.table = Div(stylesheets=[TABLE_STYLE], sizing_mode="stretch_width", name="altmin-runs")
        self.choice = Select(
            title="Details of", options=[], width=420, name="altmin-choice", stylesheets=[CHOICE_STYLE]
        )
        self.choice.on_change("value", lambda attr, old, new: self.update())
        self.dark = Toggle(label="dark", width=60, align="end", name="altmin-dark")
        self.dark.on_change("active", lambda attr, old, new: self._themed(new))
        # the browser knows which theme is wanted only when the page is there
        doc.js_on_event(
            "document_ready",
            CustomJS(
                args={"dark": self.dark},
                code="dark.active = window.matchMedia('(prefers-color-scheme: dark)').matches",
            ),
        )
        self.by_sweep, self.by_time = (ColumnDataSource(_lines([])) for _ in range(2))
        self.residuals, self.mu = (ColumnDataSource(_lines([])) for _ in range(2))
        self.activities = ColumnDataSource({"name": [], "seconds": [], "color": []})
        self.memory = ColumnDataSource({"name": [], "bytes": [], "limit": [], "color": []})
        self.images = ColumnDataSource({"image": [], "x": [], "y": []})
        self.losses = [
            _line_figure("Loss against sweeps", "sweeps", self.by_sweep, legend=True),
            _line_figure("Loss against CPU time", "CPU seconds", self.by_time, legend=True),
        ]
        self.layers = [
            _line_figure("Relative residual of each layer", "sweeps", self.residuals),
            _line_figure("μ of each layer", "sweeps", self.mu),
        ]
        self.activity_figure = _bar_figure(
            "Time by activity (s)", self.activities, "seconds", DataRange1d(start=0)
        )
        self.memory_figure = _bar_figure("Memory of the workers (MiB)", self.memory, "bytes", Range1d(0, 1))
        self.planned = Span(dimension="height", line_dash="dashed", line_color="#d62728", visible=False)
        self.memory_figure.add_layout(self.planned)
        self.pictures = _picture_figure(self.images)
        self.root = column(
            row(self.choice, self.dark),
            self.table,
            row(*self.losses, sizing_mode="stretch_width"),
            row(*self.layers, sizing_mode="stretch_width"),
            row(self.activity_figure, self.memory_figure, sizing_mode="stretch_width"),
            self.pictures,
            sizing_mode="stretch_width",
        )

    def update(self) -> None:
        """Draw what has changed since the last time."""
        runs = list(self.board.runs.values())
        options = [(state.run, state.title or state.run) for state in reversed(runs)]
        if options != self.choice.options:
            fresh = len(options) > len(self.choice.options)
            self.choice.options = options
            if options and (fresh or self.choice.value not in self.board.runs):
                self.choice.value = options[0][0]
        chosen = self.board.runs.get(self.choice.value)
        if self.ticks % WORKERS_EVERY == 0 or self._new("workers", self.choice.value):
            self._draw_workers(chosen)
        self.ticks += 1
        if self._new("table", self.board.version):
            self.table.text = _table(runs)
        # to send curves and pictures is the most of what watching costs
        if self._new("pictures", (self.choice.value, chosen and chosen.pictures_version)):
            self._draw_pictures(chosen)
        if not self._new("curves", (self.choice.value, [(s.run, s.title, s.records_version) for s in runs])):
            return
        for source, shown, curves in (
            (self.by_sweep, self.losses[0], _curves(runs, lambda record: record.sweep)),
            (self.by_time, self.losses[1], _curves(runs, lambda record: record.cpu_seconds)),
            (self.residuals, self.layers[0], _layers(chosen, lambda record: record.relative_residuals)),
            (self.mu, self.layers[1], _layers(chosen, lambda record: record.mu)),
        ):
            source.data = _lines(curves)
            shown.visible = bool(curves)  # K-FAC steps know of no residuals, and of μ only where it is finite

    def _new(self, what: str, state: Any) -> bool:
        """Whether something is to be drawn, as it has another state than when it was drawn last."""
        changed = what not in self.drawn or self.drawn[what] != state
        self.drawn[what] = state
        return changed

    def _draw_workers(self, chosen: RunState | None) -> None:
        seconds: dict[str, float] = {}
        if chosen is not None and self.cluster:
            seconds = by_activity(chosen.client_seconds, self.cluster.seconds(chosen.span))
        elif chosen is not None:
            seconds = by_activity(chosen.progress.usage.seconds if chosen.progress else {})
        names = [name for name, value in seconds.items() if value >= 0.01][::-1]
        data = {
            "name": names,
            "seconds": [seconds[name] for name in names],
            "color": [ACTIVITY_COLORS[name] for name in names],
        }
        if data != self.activities.data:
            self.activity_figure.y_range.factors = names
            self.activities.data = data
        noted = chosen.progress.usage.memory if chosen is not None and chosen.progress else ()
        workers = self.cluster.memory() if self.cluster else list(noted)
        self.memory_figure.visible = bool(workers)
        if not workers:
            return
        count = len(workers)
        if count > MOST_WORKERS:  # those that are in need, in their order
            worst = set(sorted(workers, key=lambda worker: -worker[1])[:MOST_WORKERS])
            workers = [worker for worker in workers if worker in worst]
        used = [taken / 2**20 for _, taken, _ in workers]
        bars = {
            "name": [name for name, _, _ in workers],
            "bytes": used,
            "limit": [limit / 2**20 for _, _, limit in workers],
            "color": [
                "#d62728" if limit and taken > 0.7 * limit else "#1f77b4" for _, taken, limit in workers
            ],
        }
        if bars["name"] != list(self.memory_figure.y_range.factors):
            self.memory_figure.y_range.factors = bars["name"]
        self.memory.data = bars
        planned = chosen.plan.get("worker_memory") if chosen is not None else None
        self.planned.visible = planned is not None
        self.planned.location = (planned or 0) / 2**20
        self.memory_figure.x_range.end = 1.2 * max([*used, self.planned.location])
        self.memory_figure.title.text = "".join(
            (
                "Memory of the workers (MiB)",
                f", the {MOST_WORKERS} largest of {count}" if count > MOST_WORKERS else "",
                "; pale: limit, dashed: as planned" if planned is not None else "",
            )
        )

    def _draw_pictures(self, chosen: RunState | None) -> None:
        rows = chosen.pictures if chosen is not None else []
        self.pictures.visible = bool(rows)
        image, x, y = [], [], []
        for line, images in enumerate(rows):
            for place, (height, width, colours, values) in enumerate(images):
                image.append(_rgba(height, width, colours, values))
                x.append(1.05 * place)
                y.append(-1.05 * line)
        self.images.data = {"image": image, "x": x, "y": y}

    def _themed(self, dark: bool) -> None:
        self.doc.theme = "dark_minimal" if dark else "caliber"
        self.table.css_classes = ["dark"] if dark else []


Curve = tuple[list[Any], list[Any], str, str, str]
"""x, y, colour, dashes and name; what is unknown is None."""


def _curves(runs: list[RunState], along: Callable[[Record], float]) -> list[Curve]:
    """Losses of all runs."""
    found = []
    most = max(100, min(POINTS, ALL_POINTS // max(1, len(LOSSES) * len(runs))))
    for number, state in enumerate(runs):
        records = _thinned(state.records, most)
        for loss, label, dash in LOSSES:
            y = [loss(record) for record in records]
            if any(value is not None and math.isfinite(value) for value in y):
                full = f"{state.title or state.run}: {label}"
                x = [along(record) for record in records]
                found.append((x, y, Category10_10[number % 10], dash, full))
    return found


def _layers(state: RunState | None, of: Callable[[Record], Layers | None]) -> list[Curve]:
    """One number of every layer of a run."""
    if state is None:
        return []
    records = _thinned(state.records, POINTS)
    sweeps, values = [record.sweep for record in records], [of(record) for record in records]
    layers = max((len(value) for value in values if value), default=0)
    return [
        (
            sweeps,
            [value[layer] if value else None for value in values],
            Category10_10[layer % 10],
            "solid",
            f"layer {layer + 1}",
        )
        for layer in range(layers)
    ]


def _thinned(records: list[Record], most: int) -> list[Record]:
    """No more than so many of the records, evenly, with the first and the last."""
    if len(records) <= most:
        return records
    return [records[round(i * (len(records) - 1) / (most - 1))] for i in range(most)]


def _lines(curves: list[Curve]) -> dict[str, list[Any]]:
    """Data of a multi-line glyph; what is unknown, or has no logarithm, is a gap."""

    def drawn(values: list[Any]) -> Any:
        # binary arrays are sent as they are
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64)

    return {
        "xs": [drawn(x) for x, _, _, _, _ in curves],
        "ys": [np.where(np.isfinite(y := drawn(v)) & (y > 0), y, math.nan) for _, v, _, _, _ in curves],
        "color": [color for _, _, color, _, _ in curves],
        "dash": [dash for _, _, _, dash, _ in curves],
        "label": [label for _, _, _, _, label in curves],
    }


def _rgba(height: int, width: int, colours: int, values: bytes) -> Any:
    """A picture as Bokeh wants it, beginning at the bottom."""
    made = np.full((height, width, 4), 255, np.uint8)
    made[:, :, :3] = np.frombuffer(values, np.uint8).reshape(height, width, colours)
    return made.view(np.uint32)[::-1, :, 0]


def _line_figure(title: str, along: str, source: ColumnDataSource, legend: bool = False) -> Any:
    made = figure(
        title=title,
        x_axis_label=along,
        y_axis_type="log",
        height=280,
        sizing_mode="stretch_width",
        visible=False,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_drag=None,
    )
    made.toolbar.logo = None
    made.toolbar.autohide = True
    names = {} if legend else {"legend_field": "label"}
    glyph = made.multi_line("xs", "ys", color="color", line_dash="dash", line_width=2, source=source, **names)
    made.add_tools(HoverTool(renderers=[glyph], tooltips=[("", "@label"), (along, "$x"), ("value", "$y")]))
    if legend:
        for _, label, dash in LOSSES:
            shown = made.line([math.nan], [math.nan], line_dash=dash, color="gray", line_width=2)
            if not made.legend:
                made.add_layout(Legend(items=[]))
            made.legend[0].items.append(LegendItem(label=label, renderers=[shown]))
    made.legend.label_text_font_size, made.legend.background_fill_alpha = "8pt", 0.5
    return made


def _bar_figure(title: str, source: ColumnDataSource, value: str, x_range: Any) -> Any:
    made = figure(
        title=title,
        y_range=FactorRange(),
        x_range=x_range,
        height=220,
        sizing_mode="stretch_width",
        tools="hover",
        tooltips=[("", "@name"), ("", f"@{value}{{0.0}}")],
        toolbar_location=None,
    )
    if "limit" in source.data:
        made.hbar(y="name", right="limit", height=0.7, color="gray", alpha=0.2, source=source)
    made.hbar(y="name", right=value, height=0.7, color="color", source=source)
    return made


def _picture_figure(source: ColumnDataSource) -> Any:
    made = figure(
        title="What the samples are, and what the network makes of them",
        height=200,
        width=900,
        match_aspect=True,
        tools="",
        toolbar_location=None,
        visible=False,
    )
    made.axis.visible = False
    made.grid.visible = False
    made.image_rgba("image", x="x", y="y", dw=1, dh=1, source=source)
    return made


def _table(runs: list[RunState]) -> str:
    """The runs as a table; whatever comes from outside is text."""
    if not runs:
        return "<p>No run has begun yet. <code>altmin train PIPELINE.toml</code> starts one.</p>"
    names = ("run", "sweep", "group", "nested loss", "held out", "rows / s", "left", "")
    head = "<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    return f"<table>{head}{''.join(_line(number, state) for number, state in reversed(list(enumerate(runs))))}</table>"


def _line(number: int, state: RunState) -> str:
    progress, sweep = state.progress, state.sweep
    last = state.records[-1] if state.records else None
    running = progress if state.status == "running" else None
    most = progress.max_sweeps if progress else None
    color = Category10_10[number % 10]
    share = 100 * min(1.0, sweep / most) if sweep is not None and most else 0
    bar = f'<span class="bar"><i style="width:{share:.1f}%;background:{color}"></i></span>'
    cells = [
        f'<b style="color:{color}">■</b> <b>{escape(state.title or state.run)}</b>',
        f"{bar}{known(sweep, unknown='')}" + (f" of {most:g}" if most else ""),
        f"{running.group} of {running.groups}" if running else "",
        known(last.nested_loss if last else None, unknown=""),
        known(last.validation_loss if last else None, unknown=""),
        known(state.rows_per_second if running else None, unknown=""),
        known(running.seconds_left if running else None, duration, unknown=""),
        escape(f"{state.status}: {running.waiting}" if running and running.waiting else state.status),
    ]
    about = f'<tr><td colspan="8" style="opacity:0.7">{escape(state.description)}</td></tr>'
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" + about
