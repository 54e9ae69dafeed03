"""Metrics from sums, as `sklearn.metrics` defines them; None where one is not defined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from altmin_dask.types import Array


def share(part: Array | float, whole: Array | float) -> float | None:
    """A quotient, JSON-ready: None if the whole is nothing, or there is no such number."""
    return number(float(part) / float(whole)) if whole > 0 else None


def number(value: float) -> float | None:
    """A number, JSON-ready: None in place of one that is not finite."""
    return float(value) if math.isfinite(value) else None


def counted(values: Array) -> Any:
    """Sums of counts, JSON-ready: whole numbers where all of them are, as without weights."""
    return (values.astype(np.int64) if np.array_equal(values, np.rint(values)) else values).tolist()


def of_classes(labels: Array, predicted: Array, right: Array) -> dict[str, float | None]:
    """Accuracy, and the mean of the recalls of all classes that there are labels of.

    Parameters
    ----------
    labels, predicted, right : ndarray, (K,)
        How many labels there are of each class, how often it was predicted, and how often rightly.
    """
    there = labels > 0
    recalls = right[there] / labels[there]
    return {
        "accuracy": share(right.sum(), labels.sum()),
        "balanced_accuracy": number(recalls.mean()) if there.any() else None,
    }


def per_class(
    labels: Array, predicted: Array, right: Array, names: Sequence[Any] | None
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class; arguments as of `of_classes`."""
    support = counted(labels)
    return [
        {
            "class": k if names is None else names[k],
            "precision": share(right[k], predicted[k]),
            "recall": share(right[k], labels[k]),
            "f1": share(2 * right[k], labels[k] + predicted[k]),
            "support": support[k],
        }
        for k in range(len(labels))
    ]


def roc_area(low: Array, high: Array) -> dict[str, float | None]:
    """Area under the ROC curve of two classes, None where one is missing; and by how much ties may move it.

    It is the share of all pairs whose score of the second class is the higher one, ties counting half. Where scores in
    a step of a histogram differ, they are taken for ties: no more than half of the pairs in one step is at stake.

    Parameters
    ----------
    low, high : ndarray, (s,)
        Counts of the first and of the second class, by score, in ascending order.
    """
    pairs, ties = low.sum() * high.sum(), np.dot(low, high) / 2
    below = np.cumsum(low) - low
    return {
        "roc_auc": share(np.dot(high, below) + ties, pairs),
        "roc_auc_error": share(ties, pairs),
    }


def of_targets(
    squares: Array,
    absolutes: Array,
    targets: Array,
    target_squares: Array,
    count: float,
    names: Sequence[Any] | None,
) -> dict[str, Any]:
    """R², root mean square error and mean absolute error: the mean over outputs, and of each if there are several.

    Parameters
    ----------
    squares, absolutes : ndarray, (d,)
        Σ e² and Σ |e|.
    targets, target_squares : ndarray, (d,)
        Σ (y − c) and Σ (y − c)² for any c.
    count : float
        How many they are.
    names : sequence, optional
        Of the outputs.
    """
    if count <= 0:
        return {"r2": None, "rmse": None, "mae": None}
    r2 = _r2(squares, np.maximum(target_squares - targets**2 / count, 0))
    each = {"r2": r2, "rmse": np.sqrt(squares / count), "mae": absolutes / count}
    found: dict[str, Any] = {name: number(values.mean()) for name, values in each.items()}
    if len(squares) > 1:
        found["by_output"] = [
            {"output": k if names is None else names[k], **{name: number(v[k]) for name, v in each.items()}}
            for k in range(len(squares))
        ]
    return found


def _r2(squares: Array, variations: Array) -> Array:
    """1 − Σ e² / Σ (y − ȳ)²; of a constant target 1 where it is met, else 0, as in scikit-learn."""
    constant = np.where(squares == 0, 1.0, 0.0)
    return 1 - np.divide(squares, variations, out=1 - constant, where=variations > 0)


def of_features(
    squares: Array, absolutes: Array, count: float, names: Sequence[Any] | None, *, listed: bool
) -> dict[str, Any]:
    """Mean square error, its root and mean absolute error: over all features, and of each where they are listed.

    Parameters
    ----------
    squares, absolutes : ndarray, (d,)
        Σ e² and Σ |e| in own units.
    count : float
        How many they are.
    names : sequence, optional
        Of the features.
    listed : bool
        Whether each is told of.
    """
    if count <= 0:
        return {"mse": None, "rmse": None, "mae": None, "by_feature": None}
    mse, mae = squares / count, absolutes / count
    each = {"mse": mse, "rmse": np.sqrt(mse), "mae": mae}
    of_all = {"mse": mse.mean(), "rmse": math.sqrt(mse.mean()), "mae": mae.mean()}
    found: dict[str, Any] = {name: number(value) for name, value in of_all.items()}
    by_feature = {name: [number(value) for value in values] for name, values in each.items()}
    found["by_feature"] = {"names": None if names is None else list(names), **by_feature} if listed else None
    return found
