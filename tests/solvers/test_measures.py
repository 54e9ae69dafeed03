"""Metrics from sums of chunks, against those that scikit-learn has of all outputs together."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from choices import slow_but
from sklearn import metrics as oracle

from altmin_dask.execution.pieces import added
from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.networks.network import Network
from altmin_dask.solvers.evaluation import Evaluation, evaluate_chunk
from altmin_dask.solvers.measures import FeatureMeasure, LabelMeasure, Measure, TargetMeasure
from altmin_dask.solvers.metrics import roc_area
from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.tallies import TalliedRows, Tally
from altmin_dask.types import Array, Batch

ROWS, FEATURES, STEPS = 97, 4, 5
CHUNKS = (11, 40, ROWS)
DTYPES = ("float32", "float64")
RNG = np.random.default_rng(11)
X = RNG.normal(size=(ROWS, FEATURES))
WEIGHTS = np.where(RNG.random(ROWS) < 0.2, 0.0, RNG.random(ROWS) * 3)
LENGTHS = RNG.integers(1, STEPS + 1, ROWS)


def measured(
    network: Network, batch: Batch, measure: Measure, chunk: int, dtype: str
) -> tuple[Evaluation, Array]:
    """Sums over chunks of so many samples, and all outputs z."""
    weights = tuple(3 * w for w in network.initial_weights(3, dtype))
    total = Evaluation(measure=measure)
    for start, stop in pairwise([*range(0, len(batch), chunk), len(batch)]):
        part = batch.rows(slice(start, stop))
        total.vector += evaluate_chunk(network, weights, part, measure, start).vector
    return total, np.concatenate([network.forward(weights, block)[-1] for _, block in batch.blocks(1024)])


def check_labels(found: dict[str, Any], z: Array, y: Array, weights: Array | None) -> None:
    """Every metric of a classifier by scikit-learn; z (m, K), y (m,)."""
    classes, predicted = range(z.shape[1]), z.argmax(axis=1)
    near = {"rel": 1e-5 if z.dtype == np.float32 else 1e-12, "abs": 1e-12}
    w = {"sample_weight": weights}
    there = np.unique(y if weights is None else y[weights > 0])
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(y, predicted, **w))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that are only predicted
        assert found["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(y, predicted, **w))
    z64 = z.astype(np.float64)
    p = np.exp(z64 - np.logaddexp.reduce(z64, axis=1, keepdims=True))
    assert found["log_loss"] == pytest.approx(oracle.log_loss(y, p, labels=classes, **w), **near)
    each = oracle.precision_recall_fscore_support(y, predicted, labels=classes, zero_division=np.nan, **w)
    for k, mine in enumerate(found["per_class"]):
        for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
            value = float("nan") if mine[name] is None else mine[name]
            assert value == pytest.approx(values[k], nan_ok=True), (k, name)
    np.testing.assert_allclose(
        found["confusion_matrix"], oracle.confusion_matrix(y, predicted, labels=classes, **w)
    )
    if z.shape[1] == 2:
        if len(there) < 2:
            assert found["roc_auc"] is None
            return
        wanted = oracle.roc_auc_score(y, z64[:, 1] - z64[:, 0], **w)
        assert found["roc_auc"] == pytest.approx(wanted, abs=found["roc_auc_error"] + 1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [ROWS, 1 << 20])
def test_scores_that_travel_apart(outputs, weighted):
    """With ties within chunks and between them, and an area as of scikit-learn."""
    x = np.round(X)[np.arange(ROWS) % 30]
    y, weights = LABELS["two"][1], WEIGHTS if weighted else None
    network, measure = dense_network([FEATURES, 6, 2], "tanh", "cross_entropy"), LabelMeasure(2, outputs)
    w, batch = tuple(3 * w for w in network.initial_weights(3, "float64")), Batch(x, y, weights)
    rows = TalliedRows(*(packed_size(Evaluation.layout(each)) for each in (measure.summed, measure)))
    for chunk in CHUNKS:
        parts = []
        for start, stop in pairwise([*range(0, ROWS, chunk), ROWS]):
            tallies: list[Tally] = []
            sums = evaluate_chunk(network, w, batch.rows(slice(start, stop)), measure, start, tallies)
            parts.append(rows.row(sums.vector, tallies))
        found = rows.whole(added(parts, rows.add))
        wanted, z = measured(network, batch, measure, chunk, "float64")
        np.testing.assert_allclose(found, wanted.vector, rtol=1e-12)  # weights are added in another order
        check_labels(Evaluation(found, measure).metrics(), z, y, weights)
        assert len(np.unique(z[:, 1] - z[:, 0])) < ROWS


LABELS = {
    "three": (3, np.arange(ROWS) % 3),
    "absent": (5, np.where(np.arange(ROWS) % 4 == 0, 4, 1)),
    "only one": (3, np.full(ROWS, 2)),
    "two": (2, (X[:, 0] + X[:, 1] > 0.3).astype(int)),
    "only one of two": (2, np.ones(ROWS, int)),
}


@pytest.mark.parametrize("dtype", slow_but(DTYPES[:1], DTYPES))
@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_classifiers(case, weighted, dtype):
    classes, y = LABELS[case]
    network = dense_network([FEATURES, 6, classes], "tanh", "cross_entropy")
    weights = WEIGHTS if weighted else None
    for outputs in (ROWS, 1 << 20):  # scores one by one, and counted in steps
        measure = LabelMeasure(classes, outputs)
        for chunk in CHUNKS:
            batch = Batch(X.astype(dtype), y, weights)
            sums, z = measured(network, batch, measure, chunk, dtype)
            check_labels(sums.metrics(), z, y, weights)
            assert sums.accuracy == pytest.approx(sums.metrics()["accuracy"])
    if classes == 2 and case == "two":
        assert sums.metrics()["roc_auc_error"] < 1e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_steps_of_sequences_count_one_by_one(weighted):
    """Padding and steps without a label are left out; `loss` is still the mean over the steps of each sample."""
    x = RNG.normal(size=(ROWS, STEPS, 3))
    y = (np.cumsum(x[:, :, 0], axis=1) > 0).astype(int)
    y[::7, 1] = -1
    network = recurrent_network(3, STEPS, [4], 2, loss="cross_entropy", every=True)
    there = (np.arange(STEPS) < LENGTHS[:, None]) & (y >= 0)
    weights = np.repeat(WEIGHTS, STEPS)[there.ravel()] if weighted else None
    batch = Batch(x, y, WEIGHTS if weighted else None, lengths=LENGTHS)
    for chunk in CHUNKS:
        sums, z = measured(network, batch, LabelMeasure(2, ROWS * STEPS), chunk, "float64")
        check_labels(sums.metrics(), z.reshape(-1, 2)[there.ravel()], y[there], weights)


def check_targets(
    found: dict[str, Any], y: Array, predicted: Array, weights: Array | None, near: float = 1e-9
) -> None:
    """R², RMSE and MAE by scikit-learn, in the units of y (m, d)."""
    for name, score in (
        ("r2", oracle.r2_score),
        ("rmse", oracle.root_mean_squared_error),
        ("mae", oracle.mean_absolute_error),
    ):
        assert found[name] == pytest.approx(score(y, predicted, sample_weight=weights), rel=near), name
        if y.shape[1] > 1:
            each = score(y, predicted, sample_weight=weights, multioutput="raw_values")
            assert [one[name] for one in found["by_output"]] == pytest.approx(each.tolist(), rel=near)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_regressors_in_own_units(outputs, weighted, dtype):
    """Targets far from zero beside their deviation, of which one is constant, that were standardized."""
    own = 1e6 + RNG.normal(size=(ROWS, outputs)) * [1.0, 20.0, 1.0][:outputs]
    shift, factor = own.mean(axis=0), own.std(axis=0)
    if outputs == 3:
        own[:, 2], shift[2], factor[2] = 5e5, 5e5, 1.0
    y = ((own - shift) / factor).astype(dtype)
    network = dense_network([FEATURES, 6, outputs], "tanh")
    measure = TargetMeasure(outputs, factor, y[0].astype(np.float64))
    weights = WEIGHTS if weighted else None
    for chunk in CHUNKS:
        batch = Batch(X.astype(dtype), y, weights)
        sums, z = measured(network, batch, measure, chunk, dtype)
        # errors in own units are those in which y is told, so that rounding of 10⁶ is in neither
        both = y.astype(np.float64) * factor, z.astype(np.float64) * factor
        # outputs of other chunks are rounded otherwise
        check_targets(sums.metrics(), *both, weights, 1e-9 if dtype == "float64" else 1e-5)


def test_targets_that_are_large_beside_their_deviation():
    """Σ y² − (Σ y)² / n would have no digit left."""
    y = 1e9 + RNG.normal(size=(ROWS, 1))
    network = dense_network([FEATURES, 6, 1], "tanh")
    sums, z = measured(network, Batch(X, y), TargetMeasure(1, np.ones(1), y[0]), 40, "float64")
    variation = np.square(y - y.mean()).sum()
    wanted = 1 - np.square(z - y).sum() / variation
    assert sums.metrics()["r2"] == pytest.approx(wanted, rel=1e-6)  # y has that many digits


def test_constant_targets_and_steps_of_regressors():
    network = dense_network([FEATURES, 6, 1], "tanh")
    y = np.full((ROWS, 1), 7.0)
    sums, _ = measured(network, Batch(X, y), TargetMeasure(1, np.ones(1), y[0]), 10, "float64")
    assert sums.metrics()["r2"] == 0.0  # as of scikit-learn
    x, targets = RNG.normal(size=(ROWS, STEPS, 3)), RNG.normal(size=(ROWS, STEPS, 2))
    targets[::5, 2] = np.nan
    there = (np.arange(STEPS) < LENGTHS[:, None]) & ~np.isnan(targets[:, :, 0])
    network = recurrent_network(3, STEPS, [4], 2, every=True)
    # every step was scaled by itself
    factors, zeros = RNG.random((STEPS, 2)) + 0.5, RNG.normal(size=(STEPS, 2))
    batch = Batch(x, targets.reshape(ROWS, -1), WEIGHTS, lengths=LENGTHS)
    for chunk in CHUNKS:
        measure = TargetMeasure(2, factors.ravel(), zeros.ravel())
        sums, z = measured(network, batch, measure, chunk, "float64")
        own, predicted = (
            ((values.reshape(ROWS, STEPS, 2) - zeros) * factors)[there] for values in (targets, z)
        )
        check_targets(sums.metrics(), own, predicted, np.repeat(WEIGHTS, STEPS)[there.ravel()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_autoencoders(dtype):
    network = dense_network([FEATURES, 3, FEATURES], "tanh")
    units = np.array([1.0, 16.0, 0.5, 100.0])
    for chunk in CHUNKS:
        x = X.astype(dtype)
        sums, z = measured(network, Batch(x), FeatureMeasure(FEATURES), chunk, dtype)
        found = sums.metrics(["a", "b", "c", "d"], units)
        own, back = x.astype(np.float64) * units, z.astype(np.float64) * units
        each = oracle.mean_squared_error(own, back, multioutput="raw_values")
        assert found["by_feature"]["mse"] == pytest.approx(each.tolist())
        assert found["by_feature"]["rmse"] == pytest.approx(np.sqrt(each).tolist())
        assert found["by_feature"]["names"] == ["a", "b", "c", "d"]
        assert found["mse"] == pytest.approx(each.mean())
        assert found["rmse"] == pytest.approx(np.sqrt(each.mean()))
        assert found["mae"] == pytest.approx(oracle.mean_absolute_error(own, back))


def test_what_is_not_defined_is_none():
    """No samples that count, and outputs that are no numbers: nothing is told, and nothing warns."""
    network = dense_network([FEATURES, 6, 2], "tanh", "cross_entropy")
    none = Batch(X, np.arange(ROWS) % 2, np.zeros(ROWS))
    sums, _ = measured(network, none, LabelMeasure(2, ROWS), 50, "float64")
    found = sums.metrics()
    assert {found[name] for name in ("accuracy", "balanced_accuracy", "log_loss", "roc_auc")} == {None}
    network = dense_network([FEATURES, 6, 1], "relu")
    weights = tuple(np.full(shape, 1e300) for shape in network.shapes)
    measure = TargetMeasure(1, np.ones(1), np.zeros(1))
    with np.errstate(over="ignore", invalid="ignore"):
        sums = evaluate_chunk(network, weights, Batch(X, X[:, :1]), measure)
        assert sums.metrics()["rmse"] is None


def test_the_bound_of_a_histogram_holds():
    """However few steps there are."""
    score, y = RNG.normal(size=500), RNG.integers(0, 2, 500)
    score += y
    wanted = oracle.roc_auc_score(y, score)
    errors = []
    for steps in (1, 2, 10, 100):
        edges = np.linspace(-4, 5, steps + 1)[1:-1]
        place = np.digitize(score, edges)
        low, high = (np.bincount(place[y == label], minlength=steps) for label in (0, 1))
        found = roc_area(low, high)
        assert abs(found["roc_auc"] - wanted) <= found["roc_auc_error"]
        errors.append(found["roc_auc_error"])
    assert errors[0] == 0.5
    assert errors == sorted(errors, reverse=True)
