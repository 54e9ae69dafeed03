"""The page as a Bokeh document: losses of all runs, and of the chosen one residuals, μ, time, memory and pictures."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, CustomJS, Div, Select, TextInput, Toggle

from altmin_dask.dashboard import listing, quality, workers
from altmin_dask.dashboard.board import Board, RunState
from altmin_dask.dashboard.curves import (
    LOSSES,
    Measure,
    NamedRun,
    Number,
    changes,
    kept_points,
    of_layers,
    of_runs,
)
from altmin_dask.dashboard.panels import LinePanel, panel, picture_panel
from altmin_dask.dashboard.theme import ALONE, DARK, DARK_CLASS, HEAD, LIGHT, WIDGET
from altmin_dask.training.record import Record

INTERVAL_MS = 1000
WORKERS_EVERY, CLOCK_SECONDS = 3, 5.0
"""How often is drawn what has changed, and every how many times what the workers do; how often clocks go on where
nothing changes."""
# The table is made anew while one presses a button of it: what counts is what was pressed, not what is there then.
LISTEN = """
const of = event => event.composedPath().find(node => node.dataset && node.dataset.altmin);
let pressed = null;
document.addEventListener('pointerdown', event => {
  const button = of(event);
  pressed = button ? {wish: button.dataset.altmin, x: event.clientX, y: event.clientY} : null;
}, true);
document.addEventListener('click', event => {
  const button = of(event), by_key = event.detail === 0;
  const stayed = pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 8;
  const wish = by_key ? button && button.dataset.altmin : stayed && pressed.wish;
  if (wish) wished.value = `${Date.now()} ${wish}`;
}, true);
dark.active = window.matchMedia('(prefers-color-scheme: dark)').matches;
"""


class Cluster(Protocol):
    """Where runs take place."""

    def memory(self) -> list[tuple[str, float, float]]:
        """Name, bytes in use and limit of every worker."""


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
        doc.template = "{% block postamble %}" + HEAD + ALONE + "{% endblock %}"
    else:
        doc.template = base.environment.from_string(
            '{% extends "base.html" %}{% block extra_resources %}' + HEAD + "{% endblock %}"
            "{% block content %}{{ plot_div }}{{ plot_script }}{% endblock %}"
        )
        doc.template_variables.update(extra or {})
    doc.add_root(view.root)
    view.update()
    doc.add_periodic_callback(view.update, INTERVAL_MS)


class View:
    """One open page: which run is looked at, and which are hidden, is its own."""

    def __init__(self, doc: Any, board: Board, cluster: Cluster | None) -> None:
        self.doc, self.board, self.cluster, self.theme = doc, board, cluster, LIGHT
        self.drawn: dict[str, Any] = {}
        self.ticks = 0
        self.colours: dict[str, int] = {}
        self.hidden: set[str] = set()
        self.unfolded: set[str] = set()
        doc.theme = LIGHT.figures()
        self.table = Div(stylesheets=[listing.STYLE], sizing_mode="stretch_width", name="altmin-runs")
        self._make_controls()
        self.images = ColumnDataSource({"image": [], "x": [], "y": []})
        self.losses = [
            LinePanel("Loss against sweeps", "sweeps", LOSSES),
            LinePanel("Loss against CPU time", "CPU seconds", LOSSES),
        ]
        self.metric = quality.MetricField(self.update)
        self.residuals = LinePanel("Relative residual of each layer", "sweeps")
        self.mu = LinePanel("Penalty of each layer: μ, or ρ of multipliers", "sweeps")
        self.activities, self.memory, self.recalls = (
            Div(stylesheets=[style], sizing_mode="stretch_width", name=f"altmin-{name}")
            for name, style in (
                ("workers", workers.STYLE),
                ("memory", workers.STYLE),
                ("recalls", quality.STYLE),
            )
        )
        self.classes = panel(self.recalls)
        self.fields = panel(self.activities), panel(self.memory)
        self.pictures = picture_panel(self.images)
        fields = [
            *(each.root for each in self.losses),
            self.metric.root,
            self.classes,
            *(each.root for each in (self.residuals, self.mu)),
            *self.fields,
        ]
        self.root = column(
            row(self.choice, self.dark, self.wished, sizing_mode="stretch_width"),
            self.table,
            row(*fields, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"}, spacing=10),
            self.pictures,
            sizing_mode="stretch_width",
        )

    def _make_controls(self) -> None:
        """What one chooses with."""
        self.choice = Select(
            title="Details of",
            options=[],
            sizing_mode="stretch_width",
            max_width=560,
            name="altmin-choice",
            stylesheets=[WIDGET],
        )
        self.choice.on_change("value", lambda attr, old, new: self.update())
        self.dark = Toggle(
            label="dark theme", width=90, align="end", name="altmin-dark", stylesheets=[WIDGET]
        )
        self.dark.on_change("active", lambda attr, old, new: self._themed(new))
        self.dark.js_on_change(
            "active",
            CustomJS(
                code=f"document.documentElement.classList.toggle('{DARK_CLASS}', cb_obj.active);"
                "cb_obj.label = cb_obj.active ? 'light theme' : 'dark theme'",
            ),
        )
        self.wished = TextInput(visible=False, name="altmin-wished")
        self.wished.on_change("value", lambda attr, old, new: self._wish(new))
        # the browser knows which theme is wanted only when the page is there
        self.doc.js_on_event(
            "document_ready", CustomJS(args={"dark": self.dark, "wished": self.wished}, code=LISTEN)
        )

    def _wish(self, wish: str) -> None:
        """A button of the table was pressed: when, what for, and of which run or title."""
        _, action, of = (*wish.split(" ", 2), "", "")[:3]
        if action == "choose" and of in self.board.runs:
            self.choice.value = of
        elif action == "hide" and of in self.board.runs:
            self.hidden ^= {of}
        elif action == "fold":
            self.unfolded ^= {of}
        self.update()

    def update(self) -> None:
        """Draw what has changed since the last time."""
        runs = list(self.board.runs.values())
        called = listing.names(runs)
        self._offer(runs, called)
        folds = listing.folded(runs, self.unfolded, self.choice.value).values()
        self._colour(runs, set().union(*folds))
        named = [NamedRun(called[state.run], state, self.colours.get(state.run, 0)) for state in runs]
        chosen = self.board.runs.get(self.choice.value)
        if self.ticks % WORKERS_EVERY == 0 or self._new(
            "workers", (self.choice.value, chosen and chosen.state)
        ):
            self._draw_workers(chosen)
        self.ticks += 1
        going_on = any(state.state == "running" for state in runs)
        clock = time.time() // CLOCK_SECONDS if going_on else None
        wishes = self.choice.value, frozenset(self.hidden), frozenset(self.unfolded)
        if self._new("table", (self.board.version, clock, wishes)):
            self.table.text = listing.table(named, self.hidden, self.unfolded, self.choice.value)
        # to send curves and pictures is the most of what watching costs
        if self._new("pictures", (self.choice.value, chosen and chosen.pictures_version)):
            self._draw_pictures(chosen)
        shown = [run for run in named if run.state.run in self.colours.keys() - self.hidden]
        self.metric.offer(shown)
        versions = [(run.name, run.colour, run.state.records_version) for run in shown]
        if self._new("curves", (self.choice.value, self.metric.choice.value, self.theme is DARK, versions)):
            self._draw_curves(shown, chosen)

    def _offer(self, runs: list[RunState], called: dict[str, str]) -> None:
        """Let every run be chosen; whichever is, stays so whatever others begin."""
        options = [(state.run, called[state.run]) for state in reversed(runs)]
        if options == self.choice.options:
            return
        self.choice.options = options
        if options and self.choice.value not in self.board.runs:
            running = [state.run for state in reversed(runs) if state.state == "running"]
            self.choice.value = (running or [options[0][0]])[0]

    def _colour(self, runs: list[RunState], left_out: set[str]) -> None:
        """Give each run that is listed a colour, which it keeps, the one that the fewest others have."""
        self.colours = {s.run: self.colours[s.run] for s in runs if s.run in self.colours.keys() - left_out}
        for state in runs:
            if state.run not in self.colours and state.run not in left_out:
                taken = list(self.colours.values())
                self.colours[state.run] = min(range(len(LIGHT.runs)), key=taken.count)

    def _draw_curves(self, shown: list[NamedRun], chosen: RunState | None) -> None:
        def against(place: LinePanel, measures: tuple[Measure, ...], along: Number) -> None:
            kept = kept_points(shown, measures, along, self.theme)
            place.draw(of_runs(shown, measures, along, self.theme), self.theme, kept)

        def sweep(record: Record) -> float:
            return record.sweep

        def cpu(record: Record) -> float:
            # as in the report: what was spent before is not of training
            return record.cpu_seconds if record.sweep > 0 else 0.0

        against(self.losses[0], LOSSES, sweep)
        against(self.losses[1], LOSSES, cpu)
        self.metric.draw(shown, self.theme)
        self.recalls.text = quality.recall_bars(chosen)
        self.classes.visible = bool(self.recalls.text)
        self.residuals.draw(
            of_layers(chosen, lambda record: record.relative_residuals, self.theme), self.theme
        )
        mu = of_layers(chosen, lambda record: record.mu, self.theme)
        self.mu.draw(mu if changes(mu) else [], self.theme)  # a constant is a setting

    def _new(self, what: str, state: Any) -> bool:
        """Whether something is to be drawn, as it has another state than when it was drawn last."""
        changed = what not in self.drawn or self.drawn[what] != state
        self.drawn[what] = state
        return changed

    def _draw_workers(self, chosen: RunState | None) -> None:
        running = sum(state.state == "running" for state in self.board.runs.values())
        alone = running <= (chosen is not None and chosen.state == "running")
        shares = workers.time_shares(chosen, alone=alone)
        noted = list(chosen.progress.usage.memory) if chosen is not None and chosen.progress else []
        over = chosen is not None and chosen.state != "running" and bool(noted)
        memory = noted if over or self.cluster is None else self.cluster.memory()
        planned = chosen.plan.get("worker_memory") if chosen is not None else None
        bars = workers.memory_bars(memory, planned, "when the run was heard of last" if over else "")
        for field, place, text in zip(
            self.fields, (self.activities, self.memory), (shares, bars), strict=True
        ):
            field.visible = bool(text)
            if place.text != text:
                place.text = text

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
        self.theme = DARK if dark else LIGHT
        self.doc.theme = self.theme.figures()
        self.update()


def _rgba(height: int, width: int, colours: int, values: bytes) -> Any:
    """A picture as Bokeh wants it, beginning at the bottom."""
    made = np.full((height, width, 4), 255, np.uint8)
    made[:, :, :3] = np.frombuffer(values, np.uint8).reshape(height, width, colours)
    return made.view(np.uint32)[::-1, :, 0]
