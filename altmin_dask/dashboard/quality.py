"""How good runs are beside their loss: a metric of the validation samples that one chooses, and recalls of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from bokeh.models import Select

from altmin_dask.dashboard.board import RunState
from altmin_dask.dashboard.curves import ACCURACIES, DASHED, Measure, NamedRun, kept_points, of_runs
from altmin_dask.dashboard.panels import LinePanel, heading, panel
from altmin_dask.dashboard.theme import TEXT, WIDGET, Theme
from altmin_dask.training.record import Record

PERCENT, PLAIN = "0.[0]%", "0.[000]"
MOST_CLASSES = 16
"""Whose recalls are shown: of more, the lowest."""
STYLE = (
    TEXT
    + """
p { margin: 4px 0 8px; }
.classes { display: grid; grid-template-columns: fit-content(40%) 1fr max-content; gap: 5px 10px; align-items: center; }
.classes .name { overflow-wrap: anywhere; }
.classes .said { color: var(--altmin-muted); }
"""
)


@dataclass(frozen=True)
class Metric:
    """What one can choose: its curves, and how their values are written on a linear axis; else it is logarithmic."""

    measures: tuple[Measure, ...]
    written: str = ""


def _validation(name: str, written: str = "") -> Metric:
    def of(record: Record) -> float | None:
        return (record.validation_metrics or {}).get(name)

    return Metric((Measure("validation", of, DASHED),), written)


METRICS = {
    "Accuracy": Metric(ACCURACIES, PERCENT),
    "Balanced accuracy": _validation("balanced_accuracy", PERCENT),
    "ROC AUC": _validation("roc_auc", PLAIN),
    "Log loss": _validation("log_loss"),
    "R²": Metric((Measure("validation", lambda record: record.validation_r2, DASHED),), PLAIN),
    "RMSE": _validation("rmse"),
    "MAE": _validation("mae"),
}
"""By what they are called, the first of those that are there first."""


class MetricField:
    """Curves of a metric, which one chooses where there are several.

    Parameters
    ----------
    changed : callable
        Called when another one is chosen.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.choice = Select(
            title="Metric",
            options=[],
            width=180,
            name="altmin-metric",
            stylesheets=[WIDGET],
            styles={"order": "-1"},  # Bokeh puts what becomes visible last
        )
        self.choice.on_change("value", lambda attr, old, new: changed())
        self.shares = LinePanel("", "sweeps", ACCURACIES, share=True)
        self.sizes = LinePanel("", "sweeps", ACCURACIES)
        for each in (self.shares, self.sizes):
            each.root.styles = {}  # below each other, where a part of the width would be one of the height
        self.root = panel(self.shares.root, self.sizes.root, self.choice)
        self.root.visible = self.choice.visible = False

    def offer(self, runs: Sequence[NamedRun]) -> None:
        """Let any metric be chosen that some run has; the choice stays where it can."""
        records = [record for run in runs for record in run.state.records]
        there = [name for name, metric in METRICS.items() if _has(records, metric)]
        if there != self.choice.options:
            self.choice.options = there
            self.choice.visible, self.root.visible = len(there) > 1, bool(there)
        if there and self.choice.value not in there:
            self.choice.value = there[0]

    def draw(self, runs: Sequence[NamedRun], theme: Theme) -> None:
        """Show the curves of what is chosen."""
        chosen = METRICS.get(self.choice.value)
        for place in (self.shares, self.sizes):
            if chosen is None or bool(chosen.written) != (place is self.shares):
                place.draw([], theme)
                continue
            if chosen.written:
                place.figure.yaxis[0].formatter.format = chosen.written
            place.title, place.measures = f"{self.choice.value} against sweeps", chosen.measures
            curves = of_runs(runs, chosen.measures, _sweep, theme)
            place.draw(curves, theme, kept_points(runs, chosen.measures, _sweep, theme))


def _sweep(record: Record) -> float:
    return record.sweep


def _has(records: Sequence[Record], metric: Metric) -> bool:
    # of auto-encoders, which alone have an mse, errors tell what their loss does
    others = [record for record in records if "mse" not in (record.validation_metrics or {})]
    return any(measure.of(record) is not None for record in others for measure in metric.measures)


def recall_bars(state: RunState | None) -> str:
    """The share of each class that is found, of the kept model where one knows which it is, else of the last record."""
    kept = state.kept.get("sweep") if state is not None else None
    records = [] if state is None else state.records
    wanted = [record for record in records if record.sweep == kept] if kept is not None else records[-1:]
    each: dict[str, list[Any]] = dict((wanted[0].validation_each if wanted else None) or {})
    if "recall" not in each:
        return ""
    found = list(zip(each["class"], each["recall"], each["support"], strict=True))
    known = [one for one in found if one[1] is not None]
    which = f"sweep {wanted[0].sweep:.4g}, {'the kept model' if kept is not None else 'the latest record'}"
    if len(known) > MOST_CLASSES:
        which += f"; the {MOST_CLASSES} lowest of {len(known)}"
        known = sorted(known, key=lambda one: one[1])[:MOST_CLASSES]
    rows = "".join(_bar(*one) for one in known)
    return (
        f'{heading("Recall of each class")}<p class="muted">Share of its validation samples that is found; {which}</p>'
        f'<div class="classes">{rows}</div>'
    )


def _bar(name: Any, recall: float, support: float) -> str:
    bar = f'<i style="width:{100 * recall:.2f}%;background:var(--altmin-busy)"></i>'
    return (
        f'<span class="name">{escape(str(name))}</span><span class="bar">{bar}</span>'
        f'<span class="said">{100 * recall:.1f}% of {support:,.6g}</span>'
    )
