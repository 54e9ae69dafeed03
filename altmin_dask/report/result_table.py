"""What comes of a run, and how good a model is, in words and numbers for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from altmin_dask.format import known, number
from altmin_dask.report.summary import ACCURACIES, LOSSES, summary_table
from altmin_dask.training.record import Record
from altmin_dask.training.result import Result

Rows = list[tuple[str, str]]
_EXACT = "{:.6g}".format
_PERCENT = "{:.2%}".format


def result_rows(result: Result) -> Rows:
    """The model that is kept first, then why training ended and what to do next."""
    kept = result.kept
    measured = f"{'all ' if kept.on == 'training' else ''}{kept.samples:,} samples for {kept.on}"
    return [
        ("kept model", f"of sweep {number(kept.sweep)}, measured on {measured}"),
        (f"{kept.on} loss", known(kept.loss, _EXACT)),
        *metric_rows(kept.metrics),
        ("stopped", result.stopped.text),
        ("next", result.next),
    ]


def metric_rows(metrics: Mapping[str, Any]) -> Rows:
    """Metrics as of `altmin_dask.solvers.evaluation.Evaluation.metrics`."""
    return [(name, known(metrics[name], _PERCENT)) for name in ("accuracy",) if name in metrics]


def training_rows(records: Sequence[Record]) -> Rows:
    """How training went, without losses and accuracies: those of the last record are not the kept model's."""
    others = {label for label, *_ in (*LOSSES, *ACCURACIES)}
    return [row for row in summary_table(records) if row[0].removeprefix("best ") not in others]
