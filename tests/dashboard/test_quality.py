"""A metric that one chooses, and recalls of classes, on the page."""

from __future__ import annotations

import re
from typing import Any

from bokeh.document import Document
from dashboards import begin, message

from altmin_dask.dashboard.board import Board
from altmin_dask.dashboard.page import View
from altmin_dask.dashboard.quality import METRICS, MOST_CLASSES, recall_bars


def recorded(sweep: float, loss: float, recalls: Any = None, **metrics: float) -> dict[str, Any]:
    each = None
    if recalls is not None:
        names = [f"<class {k}>" for k in range(len(recalls))]
        each = {"class": names, "recall": list(recalls), "support": [40] * len(recalls)}
    return {
        "sweep": sweep,
        "nested_loss": loss,
        "validation_loss": loss,
        "validation_metrics": metrics or None,
        "validation_each": each,
    }


def viewed(*messages: dict[str, Any]) -> View:
    board = Board()
    for each in messages:
        board.apply(each)
    view = View(Document(), board, None)
    view.update()
    return view


def test_the_metrics_that_are_there_can_be_chosen():
    view = viewed(
        begin(
            "a", [recorded(0, 2.0, roc_auc=0.5, log_loss=0.7), recorded(1, 1.0, roc_auc=0.75, log_loss=0.5)]
        ),
        begin("b", [{**recorded(0, 2.0, rmse=3.0), "validation_r2": -0.5}]),
    )
    field = view.metric
    assert field.choice.options == ["ROC AUC", "Log loss", "R²", "RMSE"]
    assert field.choice.value == "ROC AUC"
    assert (field.shares.root.visible, field.sizes.root.visible) == (True, False)
    assert [list(y) for y in field.shares.curves.data["ys"]] == [[0.5, 0.75]]
    assert "ROC AUC against sweeps" in field.shares.key.text
    field.choice.value = "RMSE"
    assert (field.shares.root.visible, field.sizes.root.visible) == (False, True)
    assert [list(y) for y in field.sizes.curves.data["ys"]] == [[3.0]]
    field.choice.value = "R²"
    assert [list(y) for y in field.shares.curves.data["ys"]] == [[-0.5]]
    view.board.apply(message("record", "a", record=recorded(2, 0.5, roc_auc=0.9)))
    view.update()
    assert field.choice.value == "R²"  # it stays
    assert set(field.choice.options) <= set(METRICS)


def test_histories_without_them_have_no_field():
    view = viewed(begin("a", [{"sweep": 0.0, "nested_loss": 1.0}]))
    assert not view.metric.root.visible
    assert not view.classes.visible
    assert recall_bars(None) == ""
    autoencoder = viewed(begin("a", [recorded(0, 1.0, mse=2.0, rmse=1.4, mae=1.0)]))
    assert not autoencoder.metric.root.visible  # whose loss tells the same


def test_recalls_are_of_the_kept_model_or_the_latest_record():
    view = viewed(begin("a", [recorded(1, 1.0, (0.5, None)), recorded(2, 2.0, (0.25, 0.125))]))
    assert view.classes.visible
    text = view.recalls.text
    assert "sweep 2, the latest record" in text
    assert "25.0% of 40" in text
    assert "&lt;class 0&gt;" in text
    assert "<class" not in text.replace('<div class="classes">', "")
    view.board.apply(
        message("end", "a", status="done", state="finished", result={"kept": {"sweep": 1.0, "metrics": {}}})
    )
    view.update()
    assert "sweep 1, the kept model" in view.recalls.text
    assert "50.0% of 40" in view.recalls.text
    assert "class 1" not in view.recalls.text  # of which there are no samples


def test_the_lowest_of_many():
    many = viewed(begin("a", [recorded(1, 1.0, [k / 50 for k in range(50)])]))
    shown = re.findall(r"([\d.]+)% of", many.recalls.text)
    assert shown == [f"{2 * k:.1f}" for k in range(MOST_CLASSES)]
    assert "the 16 lowest of 50" in many.recalls.text
