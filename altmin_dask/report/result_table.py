"""What comes of a run, and how good a model is, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from altmin_dask.data.labels import listed
from altmin_dask.format import known, number
from altmin_dask.report.summary import ACCURACIES, LOSSES, SPANS, summary_table
from altmin_dask.report.verdict import nearest
from altmin_dask.training.record import Record
from altmin_dask.training.result import Result

Rows = list[tuple[str, str]]
_LOSS = "{:.6g}".format
_PERCENT = "{:.2%}".format
_FOUR = "{:.4f}".format
_SHOWN = {
    "accuracy": ("accuracy", _PERCENT),
    "balanced_accuracy": ("balanced accuracy", _PERCENT),
    "log_loss": ("log loss", number),
    "roc_auc": ("ROC AUC", _FOUR),
    "r2": ("R²", _FOUR),
    "mse": ("mean square error", number),
    "rmse": ("RMSE", number),
    "mae": ("MAE", number),
}
"""What metrics are called, and how they are written."""
MOST_CLASSES, MOST_OUTPUTS, WORST = 30, 30, 10
"""Classes and outputs that are told one by one, and features, those with the largest errors."""
MOST_PAIRS = 12
"""Classes of a confusion matrix that is shown."""


def result_table(result: Result) -> Table:
    """The model that is kept first, then why training ended and what to do next."""
    kept = result.kept
    every = "all " if kept.on == "training" else ""
    rows = [
        (
            "kept model",
            f"of sweep {number(kept.sweep)}, measured on {every}{kept.samples:,} {kept.on} samples",
        ),
        (f"{kept.on} loss", f"{known(kept.loss, _LOSS)}  ({kept.unit})"),
        *metric_rows(kept.metrics),
        *unit_of_errors(kept.metrics),
        ("stopped", result.stopped.text),
        ("next", result.next),
    ]
    return _two_columns("Result", rows)


def training_rows(records: Sequence[Record], sweep: float | None = None) -> Rows:
    """How training went: how long it took, and then how far the constraints are met.

    Without losses and accuracies, which `result_table` tells of the kept model.

    Parameters
    ----------
    records : sequence of Record
        The history.
    sweep : float, optional
        That of the kept model, of which the constraints are told; without one, of the last record.
    """
    others = {label for label, *_ in (*LOSSES, *ACCURACIES)}
    rows = [row for row in summary_table(records) if row[0] in SPANS]
    if not records:
        return rows
    told = records[-1] if sweep is None else records[nearest(records, sweep)]
    own = [row for row in summary_table([told]) if row[0].removeprefix("best ") not in {*others, *SPANS}]
    whose = "of the last record" if sweep is None else "of the kept model"
    return [*rows, (whose, f"sweep {number(told.sweep)}"), *own] if own else rows


def quality_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """What `altmin_dask.inference.described` gave: of all samples, and of each class, output or feature."""
    metrics = found["metrics"]
    rows = [
        ("samples", f"{found['samples']:,}"),
        ("loss", f"{known(found['loss'], _LOSS)}  ({found['loss_unit']})"),
        *metric_rows(metrics),
        *unit_of_errors(metrics),
    ]
    if found["classes"] is not None:
        rows.append(("classes", listed(found["classes"])))
    yield _two_columns(f"{found['run']} on {found['source']}", rows)
    classes, outputs = metrics.get("per_class", ()), metrics.get("by_output", ())
    if 0 < len(classes) <= MOST_CLASSES:
        yield _grid("Classes", *class_rows(classes))
    matrix = metrics.get("confusion_matrix")
    if matrix is not None and len(matrix) <= MOST_PAIRS:
        head = [str(each["class"]) for each in classes]
        lines = [[name, *map(number, row)] for name, row in zip(head, matrix, strict=True)]
        yield _grid("Confusion: true classes down, predicted across", ["", *head], lines)
    if 0 < len(outputs) <= MOST_OUTPUTS:
        yield _grid("Outputs", *output_rows(outputs))
    if features := metrics.get("by_feature"):
        yield _worst(features)


def metric_rows(metrics: Mapping[str, Any]) -> Rows:
    """Metrics as of `altmin_dask.solvers.measures.Measure.metrics` that are one number."""
    rows = [(label, known(metrics[name], show)) for name, (label, show) in _SHOWN.items() if name in metrics]
    if error := metrics.get("roc_auc_error"):
        rows = [(name, f"{value} ± {error:.1g}" if name == "ROC AUC" else value) for name, value in rows]
    return rows


def class_rows(classes: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Precision, recall and F1 of each class, as a head and rows."""
    names = ("precision", "recall", "f1")
    rows = [
        [str(each["class"]), *(known(each[name], _FOUR) for name in names), number(each["support"])]
        for each in classes
    ]
    return ["class", *names[:2], "F1", "samples"], rows


def unit_of_errors(metrics: Mapping[str, Any]) -> Rows:
    """What errors are in, as a row, where there are any: the loss beside them may be of scaled numbers."""
    if "mse" in metrics:
        return [("units of errors", "those of the raw data, of the mean square error squared")]
    return [("units of errors", "those of the raw targets")] if "rmse" in metrics else []


def output_rows(outputs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """R² and errors of each output, as a head and rows."""
    rows = [[str(each["output"]), *_errors(each, ("r2", "rmse", "mae"))] for each in outputs]
    return ["output", "R²", "RMSE", "MAE"], rows


def feature_rows(
    features: Mapping[str, Any], order: Iterable[int] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Errors of each feature, or of some in an order, as a head and rows."""
    names = ("mse", "rmse", "mae")
    rows = [
        [
            str(k if features["names"] is None else features["names"][k]),
            *_errors({name: features[name][k] for name in names}, names),
        ]
        for k in (range(len(features["rmse"])) if order is None else order)
    ]
    return ["feature", "mean square error", "RMSE", "MAE"], rows


def _worst(features: Mapping[str, Any]) -> Table:
    """The features with the largest errors."""
    errors = features["rmse"]
    order = sorted(range(len(errors)), key=lambda k: -(errors[k] or 0))[:WORST]
    title = f"Features, the {len(order)} with the largest errors of {len(errors)}"
    return _grid(title, *feature_rows(features, order))


def _errors(each: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [known(each[name], _SHOWN[name][1]) for name in names]


def _two_columns(title: str, rows: Rows) -> Table:
    made = Table(title=escape(title), show_header=False, title_justify="default")
    made.add_column(style="dim", no_wrap=True)
    made.add_column()
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def _grid(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    made = Table(title=title, title_justify="default")
    for place, name in enumerate(head):
        made.add_column(escape(name), justify="right" if place else "left")
    for line in lines:
        made.add_row(*map(escape, line))
    return made
