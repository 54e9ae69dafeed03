"""A layer-wise start: each hidden layer a shallow auto-encoder of the activations below it."""

from __future__ import annotations

import numpy as np
import pytest
from choices import taking_turns
from training_runs import train
from zoo import augmented

from altmin_dask.execution.threads import Threads
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.nested import Pass
from altmin_dask.storage.run import RunFolder
from altmin_dask.training import initialization
from altmin_dask.training.context import RunContext
from altmin_dask.training.initialization import _stage, layerwise_weights
from altmin_dask.training.problem import build_problem
from altmin_dask.types import Batch

DEEP = {"hidden_layer_sizes": (8, 3, 8), "activation": "tanh", "initialization": "layerwise"}
SHORT = {"schedule": "kfac", "max_sweeps": 1.0}


@pytest.fixture
def store(samples, make_store):
    return make_store(samples, np.arange(200) % 3)


def session_of(settings, store, folder):
    run = RunFolder(folder)
    executor = Threads(1)
    run.manifest.write({}, {})
    return RunContext(settings, build_problem(settings, store, None, executor), run, executor)


def shallow_loss(network, weights, x):
    """Mean loss of a net that is to give back its samples."""
    return float(Pass.forward(network, weights, Batch(x, x)).loss.mean())


def test_every_layer_gives_back_what_is_below(store, samples, pipeline, tmp_path):
    settings = pipeline(store.path, network=DEEP, solver={"mu": "auto"}, training=SHORT)
    session = session_of(settings, store, tmp_path / "run")
    network = session.problem.task_context.network
    weights = layerwise_weights(session)
    random = network.initial_weights(0, "float64")
    assert [w.shape for w in weights] == list(network.shapes)
    x = samples
    for layer, (encode, decode) in enumerate(((0, 3), (1, 2))):
        stage = _stage(network, layer, mirrored=True)
        learned = shallow_loss(stage, (weights[encode], weights[decode]), x)
        assert learned < 0.3 * shallow_loss(stage, (random[encode], random[decode]), x)
        x = np.tanh(augmented(x, np.float64) @ weights[encode].T)
    whole = [shallow_loss(network, w, samples) for w in (weights, random)]
    assert whole[0] < 0.5 * whole[1]


def test_other_nets_keep_random_layers_where_nothing_is_given_back(store, pipeline, tmp_path):
    network = {**DEEP, "kind": "classifier", "hidden_layer_sizes": (8, 4)}
    settings = pipeline(store.path, network=network, solver={"mu": "auto"}, training=SHORT)
    session = session_of(settings, store, tmp_path / "run")
    weights = layerwise_weights(session)
    random = session.problem.task_context.network.initial_weights(0, "float64")
    assert not np.array_equal(weights[0], random[0])
    assert not np.array_equal(weights[1], random[1])
    assert np.array_equal(weights[2], random[2])


def test_stages():
    mirror = dense_network([6, 4, 2, 4, 6], ["relu", "identity", "tanh"], "binary_cross_entropy")
    first, second = _stage(mirror, 0, True), _stage(mirror, 1, True)
    assert first.describe() == dense_network([6, 4, 6], "relu", "binary_cross_entropy").describe()
    assert second.describe() == dense_network([4, 2, 4], "identity", "squared", "relu").describe()
    assert _stage(mirror, 0, False).loss.output_activation == "identity"


@pytest.mark.slow
def test_the_same_bits_on_threads_and_a_cluster(store, pipeline, tmp_path, cluster_address):
    settings = pipeline(store.path, network=DEEP, solver={"mu": "auto"}, training=SHORT)
    states = [
        train(settings, tmp_path / name, **options)[1]
        for name, options in (("threads", {}), ("cluster", {"scheduler": cluster_address}))
    ]
    for a, b in zip(*(state.to_tensors().values() for state in states), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("schedule", "mu"), taking_turns(["windows", "batch", "kfac"], [0.1, (5.0, 4.0, 3.0, 2.0)])
)
def test_it_goes_with_every_schedule_and_penalty(schedule, mu, store, pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(initialization, "LAYER_STEPS", 3)
    training = {"schedule": schedule, "max_sweeps": 1.0}
    settings = pipeline(store.path, network=DEEP, solver={"mu": mu}, training=training)
    assert train(settings, tmp_path / "run")[2][-1].sweep >= 1
