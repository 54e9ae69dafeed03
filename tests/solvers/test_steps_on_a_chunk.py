"""Several steps on one chunk: as taken one by one, and what travels and is averaged comes back as it was."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.solvers.kernels import kfac_chunk
from altmin_dask.solvers.kfac import ARRAYS, KFACSettings, KFACState
from altmin_dask.solvers.kfac_step import Sent, Stepper
from altmin_dask.solvers.kronecker import Forms
from altmin_dask.solvers.local_steps import (
    Level,
    LocalSteps,
    Part,
    arrays_of,
    mean_of,
    packed_by_rows,
    packed_numbers,
    state_of,
)
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.preconditioner import PreconditionerCache
from altmin_dask.types import Batch

CLASSIFIER = dense_network([5, 7, 3], "tanh", "cross_entropy")
SETTINGS = KFACSettings(0.3, 0.01, ridge=1e-3, weight_decay=0.05)


def steps_of(count: int, rows: int, every: int = 4) -> LocalSteps:
    return LocalSteps((Level(SETTINGS, count, every),), rows)


def begun(network, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    weights = tuple(rng.normal(0, 0.5, shape).astype(dtype) for shape in network.shapes)
    return weights, KFACState.start(weights, Forms())


def labelled(rows, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 5)).astype(np.float32)
    return Batch(x, (x[:, 0] + x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1))


def same(first, second):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))


def test_steps_are_those_that_are_taken_one_by_one():
    """On every third row, from the first, the second and the third on; none of the others has a part in it."""
    batch, how = labelled(90), steps_of(3, 90, 4)
    weights, state = begun(CLASSIFIER)
    found = how.take(CLASSIFIER, weights, state, batch, NewtonSettings(), [7, 2])
    expected, own = begun(CLASSIFIER)
    stepper = Stepper(SETTINGS, PreconditionerCache(SETTINGS), exact_slopes=True)
    for number in range(3):
        part = Batch(batch.x[number::3].copy(), batch.y[number::3].copy())
        halves = [
            kfac_chunk(
                CLASSIFIER, expected, None, part.rows(slice(h, None, 2)), NewtonSettings(), [7, 2, number, h]
            )
            for h in (0, 1)
        ]
        half, sums = halves
        sums.vector += half.vector
        previous = own.previous_weights
        sent = Sent(previous, stepper.ridge(expected))
        samples = Part(CLASSIFIER, part, expected, 4)
        expected = stepper.step(own, expected, sums, sent, samples, half=half)
    assert own.steps == 3
    assert same(found, expected)
    assert same(arrays_of(found, state), arrays_of(expected, own))


def halved(weights, rows: int, seed: int):
    """Sums of the two halves of a group."""
    group = labelled(rows, seed)
    halves = (group.rows(slice(half, None, 2)) for half in (0, 1))
    return [kfac_chunk(CLASSIFIER, weights, None, half, NewtonSettings()) for half in halves]


def test_halves_tell_signal_from_noise():
    """By their definition, of plain gradients; of more rows the signal is the same and the noise less."""
    weights, state = begun(CLASSIFIER)
    steps_of(4, 4000).take(CLASSIFIER, weights, state, labelled(4000), NewtonSettings(), [0])
    preconditioner, means = PreconditionerCache(SETTINGS).of(state), {}
    for rows in (40, 160):
        found = []
        for seed in range(200):
            first, second = halved(weights, rows, seed)
            one, other = (
                [g / (rows / 2) - 2e-3 * w for g, w in zip(half.negative_gradient, weights, strict=True)]
                for half in (first, second)
            )
            own = preconditioner.direction(first, weights)
            second.vector += first.vector
            direction = preconditioner.direction(second, weights)
            signal, noise = preconditioner.signal_and_noise(second, first, weights, direction)
            assert signal == pytest.approx(sum(map(np.vdot, own, other)), rel=1e-3, abs=1e-5)
            mean = [(a + b) / 2 for a, b in zip(one, other, strict=True)]
            assert signal + noise == pytest.approx(sum(map(np.vdot, direction, mean)), rel=1e-3)
            found.append((signal, noise))
        means[rows] = np.mean(found, axis=0)
    assert means[160][0] == pytest.approx(means[40][0], rel=0.15)
    assert means[160][1] == pytest.approx(means[40][1] / 4, rel=0.15)


def noisy(seed: int, rows: int = 6000) -> Batch:
    """Labels that are nothing but chance."""
    rng = np.random.default_rng(seed)
    return Batch(rng.standard_normal((rows, 5)).astype(np.float32), rng.integers(0, 3, rows))


@pytest.mark.parametrize("paths", [1, 4])
def test_steps_get_more_rows_where_there_is_noise(paths):
    levels = tuple(Level(SETTINGS, count, 1) for count in (20, 10, 5))
    how = LocalSteps(levels, 6000, paths)
    weights, state = begun(CLASSIFIER)
    counts = []
    for seed in range(6):
        before = state.steps + state.rejections
        weights = how.take(CLASSIFIER, weights, state, noisy(seed), NewtonSettings(), [seed])
        counts.append(state.steps + state.rejections - before)
    assert counts[0] == 20
    assert counts[-1] == 5  # and no fewer
    assert sorted(counts, reverse=True) == counts
    assert state.doublings == 2


def test_steps_keep_their_rows_where_there_is_none():
    """Sums of all rows at each step: halves agree, as each has every row twice."""
    batch = labelled(100)
    twice = Batch(np.repeat(batch.x, 40, axis=0), np.repeat(batch.y, 40))
    how = LocalSteps((Level(SETTINGS, 10, 1), Level(SETTINGS, 5, 1)), 4000)
    weights, state = begun(CLASSIFIER)
    for seed in range(3):
        weights = how.take(CLASSIFIER, weights, state, twice, NewtonSettings(), [seed])
    assert (state.steps, state.doublings) == (30, 0)
    assert state.noise < 0.01 * state.signal


def test_the_loss_falls_with_each_step():
    weights, state = begun(CLASSIFIER)
    batch = labelled(4000)
    losses = []
    for number in range(4):
        part = Part(CLASSIFIER, batch, weights, 1)
        losses.append(part.loss(weights))
        how = steps_of(4, 4000, 2)
        weights = how.take(CLASSIFIER, weights, state, batch, NewtonSettings(), [number])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.3 * losses[0]
    assert state.steps == 16


@pytest.mark.parametrize(("rows", "steps"), [(90, 6), (45, 3), (44, 3), (52, 3), (53, 4), (7, 1), (1, 1)])
def test_fewer_rows_are_for_fewer_steps(rows, steps):
    how = steps_of(6, 90)
    assert how.steps(how.levels[0], rows) == steps
    weights, state = begun(CLASSIFIER)
    steps_of(6, 90, 4).take(CLASSIFIER, weights, state, labelled(rows), NewtonSettings(), [0])
    assert state.steps + state.rejections == steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "network", [CLASSIFIER, recurrent_network(3, 7, (6,), 4, (5,), "tanh", "cross_entropy", every=False)]
)
def test_what_is_sent_comes_back(network, dtype):
    weights, state = begun(network, dtype=dtype)
    rng = np.random.default_rng(2)
    for factor in (*state.input_factors, *state.output_factors):
        factor += rng.standard_normal(factor.shape)
    state.steps, state.rejections, state.loss_ema = 12_345, 3, 0.7
    arrays = arrays_of(weights, state)
    other, back = state_of(arrays)
    assert same(other, weights)
    for own in fields(KFACState):
        first, second = getattr(state, own.name), getattr(back, own.name)
        if own.name in ARRAYS:
            assert same(first, second)
        else:
            assert first == second or (math.isnan(first) and math.isnan(second))
            assert type(first) is type(second)
    assert not any(
        np.shares_memory(a, b) for a, b in zip(state.input_factors, back.input_factors, strict=True)
    )
    vector = packed_by_rows(arrays, 1000)
    assert vector.shape == (packed_numbers(arrays),)
    exact = mean_of(vector, arrays)
    assert all(a.dtype == b.dtype for a, b in zip(exact, arrays, strict=True))
    for a, b in zip(exact, arrays, strict=True):  # of float32 to the bit, of float64 to the last but one
        np.testing.assert_allclose(a, b, rtol=0 if a.dtype == np.float32 else 3e-16, atol=0)


def test_the_mean_is_by_rows():
    arrays = [np.array([1.0, 2.0], np.float32), np.array([[4.0]])]
    others = [np.array([5.0, 6.0], np.float32), np.array([[8.0]])]
    total = packed_by_rows(arrays, 30) + packed_by_rows(others, 10)
    for mean, first, second in zip(mean_of(total, arrays), arrays, others, strict=True):
        np.testing.assert_allclose(mean, 0.75 * first + 0.25 * second)


def test_a_step_that_does_harm_is_taken_back():
    """Weights that explode between two parts: the next part goes back to the mean, with more damping."""
    batch = labelled(400)
    weights, state = begun(CLASSIFIER)
    weights = steps_of(4, 400, 2).take(CLASSIFIER, weights, state, batch, NewtonSettings(), [0])
    bad = tuple(30 * w for w in weights)
    steps_of(1, 400, 2).take(CLASSIFIER, bad, state, batch, NewtonSettings(), [1])
    assert (state.rejections, state.damping_scale) == (1, 4.0)
    assert same(state.previous_weights, state.average)
