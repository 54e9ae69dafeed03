"""Initial weights from the data's moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from zoo import ACTIVATIONS, augmented

from altmin_dask.config import training_pipeline
from altmin_dask.errors import ConfigError
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.initialization import SPREAD, Directions, whitened_weights
from altmin_dask.solvers.row_space import RowSpace
from altmin_dask.types import Batch


def directions(x, most=4):
    inputs = augmented(x, np.float64)
    return Directions.of_moments(inputs.T @ inputs, most)


def data(n=500, d=9, rank=9):
    rng = np.random.default_rng(3)
    return rng.random((n, rank)) @ rng.random((rank, d)) + rng.random(d)


@pytest.mark.parametrize(("hidden", "rank"), [(4, 9), (9, 9), (20, 9), (20, 3)])
def test_first_pre_activations_are_white(hidden, rank):
    """Mean 0 and deviation `SPREAD` on average, uncorrelated where there are directions enough."""
    x = data(rank=rank)
    chain = dense_network([9, hidden, 2], "tanh")
    weights = whitened_weights(chain, directions(x, hidden), np.zeros(2), dtype=np.float64)
    z = chain.forward(weights, Batch(x))[0]
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-10)
    covariance = np.cov(z.T, bias=True)
    assert np.trace(covariance) / hidden == pytest.approx(SPREAD**2)
    if hidden <= rank:
        np.testing.assert_allclose(covariance, SPREAD**2 * np.eye(hidden), atol=1e-8)
    assert np.linalg.matrix_rank(covariance) == min(hidden, rank)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_output_is_the_mean_target(name):
    mean = {"tanh": [-0.5, 0.9]}.get(name, [0.3, 0.8])
    chain = dense_network([9, 4, 2], "tanh", "squared", name)
    weights = whitened_weights(chain, directions(data()), np.array(mean), dtype=np.float64)
    np.testing.assert_allclose(chain.predict(weights, Batch(data())), np.tile(mean, (500, 1)), rtol=1e-12)


def test_output_of_classes_is_their_frequency():
    chain = dense_network([9, 4, 3], "tanh", "cross_entropy")
    weights = whitened_weights(chain, directions(data()), np.array([0.5, 0.3, 0.2]), dtype=np.float64)
    np.testing.assert_allclose(chain.predict(weights, Batch(data()))[0], [0.5, 0.3, 0.2], rtol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 1.0])
@pytest.mark.parametrize("output", ["identity", "sigmoid", "tanh", "softplus", "relu", "leaky_relu"])
def test_targets_at_the_ends_stay_finite(mean, output):
    chain = dense_network([9, 4, 2], "tanh", "squared", output)
    weights = whitened_weights(chain, directions(data()), np.full(2, mean))
    assert all(np.isfinite(w).all() for w in weights)


@pytest.mark.parametrize("x", [np.full((50, 9), 0.7), data(n=3), data() * 1e-8, data() * 1e8], ids=str)
def test_degenerate_samples_give_finite_weights(x):
    chain = dense_network([9, 4, 5, 2], "tanh")
    weights = whitened_weights(chain, directions(x), np.zeros(2), dtype=np.float64)
    assert all(np.isfinite(w).all() for w in weights)
    assert np.abs(chain.forward(weights, Batch(x))[0]).max() < 10 or x.max() > 1e6


def test_samples_that_do_not_vary_give_random_weights():
    chain = dense_network([9, 4, 2], "tanh")
    weights = whitened_weights(chain, directions(np.full((50, 9), 0.7)), np.zeros(2), seed=5)
    np.testing.assert_array_equal(weights[0], chain.initial_weights(5)[0])


def test_seeds():
    chain = dense_network([9, 4, 2], "tanh")
    a, b, c = (whitened_weights(chain, directions(data()), np.zeros(2), seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_signs_of_eigenvectors_make_no_other_start():
    """They are of the processor's kernels: on each there would be another, as good as of another seed."""
    chain = dense_network([9, 4, 2], "tanh")
    found = directions(data())
    flipped = replace(found, vectors=found.vectors * [1, -1, -1, 1])
    a, b = (whitened_weights(chain, each, np.zeros(2), 1) for each in (found, flipped))
    assert all(map(np.array_equal, a, b))


@pytest.mark.parametrize(("rank", "most"), [(9, 4), (9, 9), (3, 9)])
def test_directions_by_rows_are_those_by_moments(rank, most):
    """But for signs."""
    x = data(n=7, d=40, rank=rank)
    by_moments, by_rows = directions(x, most), RowSpace([x[:3], x[3:]], np.float64).directions(most)
    assert len(by_rows.values) == min(rank, most, 6)
    np.testing.assert_allclose(by_rows.mean, by_moments.mean, rtol=1e-12)
    np.testing.assert_allclose(by_rows.values, by_moments.values, rtol=1e-9)
    same = np.abs(np.sum(by_rows.vectors * by_moments.vectors, axis=0))
    np.testing.assert_allclose(same, 1, rtol=1e-9)


def test_a_recurrent_first_layer_is_not_whitened():
    """Its inputs are its own values, too, of which there are none yet: they were whatever was in memory."""
    layers = {"layers": [{"kind": "recurrent", "units": 4}]}
    settings = {"data": {"train": "digits:train"}, "network": {"kind": "autoencoder", **layers}}
    assert training_pipeline(settings).network.start == "random"
    settings["network"]["initialization"] = "whitened"
    with pytest.raises(ConfigError, match="'whitened' is for a first layer whose inputs are the samples"):
        training_pipeline(settings)
