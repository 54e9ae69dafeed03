"""Batches, and the loss of a sample: a mean over steps times a weight, by its formula and by differences."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from zoo import PAIRINGS, dense, differences

from altmin_dask.networks.losses import get_loss
from altmin_dask.networks.mean_loss import MeanLoss, Targets
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Array, Batch

N, T, D = 5, 4, 3
every_pairing = pytest.mark.parametrize(("loss", "output"), PAIRINGS, ids=["-".join(p) for p in PAIRINGS])
LENGTHS = np.array([4, 1, 3, 2, 4])
WEIGHTS = np.array([1.0, 0.0, 2.5, 0.3, 1.0])


def block(loss: str, output: str, steps: int | None, **extras: Array) -> tuple[MeanLoss, Batch, Array, Array]:
    """A loss, a batch with targets of its kind, and pre-activations of the output with what is predicted."""
    rng = np.random.default_rng(4)
    mean = MeanLoss(get_loss(loss, output), steps)
    each = (N,) if steps is None else (N, steps)
    if loss == "cross_entropy":
        y: Any = rng.integers(0, D, each)
    else:
        y = rng.random((*each, D)).reshape(N, -1)
    z = rng.normal(size=(N, (steps or 1) * D))
    z = np.where(np.abs(z) < 0.05, 0.5, z)  # clear of kinks
    return mean, Batch(np.zeros((N, 2)), y, **extras), z, mean.predict(z)


def one_by_one(mean: MeanLoss, batch: Batch, z: Array, name: str) -> list[Array]:
    """What `name` gives of every sample by the definition: a mean over its steps with a target, times its weight."""
    steps, found = mean.steps or 1, []
    for k in range(N):
        total: Any = 0.0
        there, targets = with_targets(mean, batch, k)
        parts = np.zeros((steps, D)) if name == "gradient" else np.zeros(steps)
        for t in there:
            row = z[k].reshape(steps, D)[t : t + 1]
            y = targets[t] if mean.target == "labels" else targets[t : t + 1]
            parts[t] = getattr(mean.base, name)(row, mean.base.predict(row), y)[0]
        total = parts / max(len(there), 1)
        weight = 1.0 if batch.sample_weight is None else batch.sample_weight[k]
        found.append(weight * (total.ravel() if name == "gradient" else total.sum()))
    return found


def with_targets(mean: MeanLoss, batch: Batch, k: int) -> tuple[list[int], Array]:
    """Which steps of a sample have a target, and the targets, (T, d)."""
    steps = mean.steps or 1
    there = range(steps if batch.lengths is None else min(steps, int(batch.lengths[k])))
    assert batch.y is not None
    targets = batch.y[k].reshape(steps, -1)
    if mean.target == "labels":
        return [t for t in there if targets[t, 0] >= 0], targets
    return [t for t in there if not np.isnan(targets[t]).any()], targets


CASES: dict[str, tuple[int | None, dict[str, Array]]] = {
    "one output": (None, {}),
    "weights": (None, {"sample_weight": WEIGHTS}),
    "steps": (T, {}),
    "lengths": (T, {"lengths": LENGTHS}),
    "lengths and weights": (T, {"lengths": LENGTHS, "sample_weight": WEIGHTS}),
}
every_case = pytest.mark.parametrize("case", CASES)


@every_pairing
@every_case
def test_values_and_gradients_are_the_definition(loss, output, case):
    mean, batch, z, a = block(loss, output, CASES[case][0], **CASES[case][1])
    targets = mean.targets(batch, np.float64)
    np.testing.assert_allclose(mean.value(z, a, targets), one_by_one(mean, batch, z, "value"), rtol=1e-12)
    np.testing.assert_allclose(
        mean.magnitude(z, a, targets), one_by_one(mean, batch, z, "magnitude"), rtol=1e-12
    )
    np.testing.assert_allclose(
        mean.gradient(z, a, targets, Workspace()), one_by_one(mean, batch, z, "gradient"), rtol=1e-12
    )


@every_pairing
@every_case
def test_hits_and_counts_are_of_single_outputs(loss, output, case):
    """A step counts as much as its sample, and one without a target nothing, whatever its hit is."""
    mean, batch, z, _ = block(loss, output, CASES[case][0], **CASES[case][1])
    counts, steps = np.zeros((N, mean.steps or 1)), mean.steps or 1
    hits = np.zeros_like(counts)
    for k in range(N):
        there, targets = with_targets(mean, batch, k)
        counts[k, there] = 1.0 if batch.sample_weight is None else batch.sample_weight[k]
        if mean.target == "labels":
            hits[k] = z[k].reshape(steps, D).argmax(axis=1) == targets[:, 0]
    np.testing.assert_array_equal(mean.counts(batch), counts.ravel())
    found = mean.hits(z, mean.targets(batch, np.float64))
    np.testing.assert_array_equal(found[counts.ravel() > 0], hits[counts > 0])


@every_pairing
@every_case
def test_derivatives_are_those_of_the_value(loss, output, case):
    mean, batch, z, a = block(loss, output, CASES[case][0], **CASES[case][1])
    targets = mean.targets(batch, np.float64)
    slopes = differences(lambda at: mean.value(at, mean.predict(at), targets), z)
    np.testing.assert_allclose(mean.gradient(z, a, targets), slopes, rtol=1e-6, atol=1e-8)
    bends = differences(lambda at: mean.gradient(at, mean.predict(at), targets), z)
    np.testing.assert_allclose(dense(mean.hessian(z, a, targets)), bends, rtol=1e-6, atol=1e-8)
    curvature = dense(mean.curvature(z, a, targets))
    assert np.linalg.eigvalsh(curvature).min() >= -1e-14
    if output in ("identity", "softmax") or loss == "binary_cross_entropy":  # where Gauss–Newton is exact
        np.testing.assert_allclose(curvature, bends, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_a_step_without_a_target_is_like_padding(loss):
    output = "softmax" if loss == "cross_entropy" else "identity"
    mean, batch, z, a = block(loss, output, T, lengths=LENGTHS)
    assert batch.y is not None
    marked = batch.y.reshape(N, T, -1).copy()
    marked[np.arange(T) >= LENGTHS[:, None]] = -1 if loss == "cross_entropy" else np.nan
    by_mark, by_length = (
        mean.targets(b, np.float64) for b in (Batch(batch.x, marked.reshape(batch.y.shape)), batch)
    )
    assert by_mark.shares is not None
    assert by_length.shares is not None
    np.testing.assert_array_equal(by_mark.shares, by_length.shares)
    np.testing.assert_array_equal(by_mark.y, by_length.y)
    gradient = mean.gradient(z, a, by_mark).reshape(N, T, D)
    assert not gradient[np.arange(T) >= LENGTHS[:, None]].any()
    np.testing.assert_array_equal(gradient.reshape(N, -1), mean.gradient(z, a, by_length))


def test_a_sequence_without_any_target_counts_for_nothing():
    mean, batch, z, a = block("squared", "identity", T)
    assert batch.y is not None
    y = batch.y.copy()
    y[1] = np.nan
    targets = mean.targets(Batch(batch.x, y), np.float64)
    assert mean.value(z, a, targets)[1] == 0
    assert not mean.gradient(z, a, targets)[1].any()


def test_targets_are_converted_and_cut_with_their_shares():
    mean, batch, *_ = block("squared", "identity", T, lengths=LENGTHS, sample_weight=WEIGHTS)
    targets = mean.targets(batch, np.float32)
    assert targets.y.dtype == np.float32
    assert targets.shares is not None
    part = targets[1:3]
    np.testing.assert_array_equal(part.y, targets.y[1:3])
    np.testing.assert_array_equal(part.shares, targets.shares[1:3])
    alone = mean.targets(batch.rows(slice(1, 3)), np.float32)
    np.testing.assert_array_equal(alone.shares, part.shares)
    assert Targets(targets.y)[np.array([2, 0])].shares is None


def test_samples_are_their_own_targets_where_there_are_no_others():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    targets = MeanLoss(get_loss("squared")).targets(Batch(images), np.float64)
    np.testing.assert_array_equal(targets.y, images.reshape(2, 12))
    assert targets.y.dtype == np.float64


@pytest.mark.parametrize("rows", [slice(1, 4), np.array([3, 0]), np.array([True, False, True, False, True])])
def test_rows_of_a_batch_are_those_of_all_its_arrays(rows):
    rng = np.random.default_rng(0)
    full = Batch(rng.random((N, 2)), rng.random((N, 1)), WEIGHTS, LENGTHS, rng.random((N, 6)))
    part = full.rows(rows)
    assert len(part) == len(full.x[rows])
    for each in fields(Batch):
        np.testing.assert_array_equal(getattr(part, each.name), getattr(full, each.name)[rows])
    bare = Batch(full.x).rows(rows)
    assert [getattr(bare, each.name) is None for each in fields(Batch)] == [False, True, True, True, True]
