"""Samples that count by weights: in the loss, its derivatives, what a chunk says, whole runs and the estimators."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import pytest
from command import write_pipeline
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from altmin_dask import AltMinClassifier, AltMinRegressor, Model
from altmin_dask.config import training_pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import array_source
from altmin_dask.data.streams import sliced
from altmin_dask.errors import AltMinWarning, ConfigError, DataError
from altmin_dask.estimators.input import read_from, split
from altmin_dask.estimators.weighting import weighted
from altmin_dask.networks.builders import dense_network, recurrent_layers, stacked_network
from altmin_dask.networks.losses import get_loss
from altmin_dask.networks.network import Network
from altmin_dask.runs import train
from altmin_dask.solvers.evaluation import evaluate_chunk, moments_chunk
from altmin_dask.solvers.kernels import kfac_chunk, quadratic_model_chunk
from altmin_dask.solvers.kfac import Stream
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.problem import samples_in_all
from altmin_dask.types import Batch

LOSSES = ["squared", "binary_cross_entropy", "cross_entropy"]


def problem(loss: str) -> tuple[Network, Any, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    network = dense_network([4, 5, 3], "tanh", loss)
    x, w = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    y = rng.integers(0, 3, 30) if loss == "cross_entropy" else rng.random((30, 3))
    return network, network.initial_weights(0, np.float64), x, y, w


@pytest.mark.parametrize("loss", LOSSES)
def test_whole_weights_are_repetitions(loss):
    network, weights, x, y, w = problem(loss)
    weighted, repeated = Batch(x, y, w), Batch(x.repeat(w, axis=0), y.repeat(w, axis=0))
    check_alike(network, weights, weighted, repeated)


@pytest.mark.parametrize("reads", ["last", "each"])
def test_weights_of_sequences_are_repetitions(reads):
    """Of any length, with one target or one at every step."""
    rng = np.random.default_rng(3)
    hidden = recurrent_layers([4], [3], "tanh", reads=reads)
    network = stacked_network((5, 2), hidden, 2, get_loss("squared", None), "tanh", reads=reads)
    x, w, lengths = rng.normal(size=(30, 5, 2)), rng.integers(0, 4, 30), rng.integers(1, 6, 30)
    y = rng.normal(size=(30, 5, 2) if reads == "each" else (30, 2))
    weighted = Batch(x, y, w, lengths)
    check_alike(
        network, network.initial_weights(0, np.float64), weighted, weighted.rows(np.arange(30).repeat(w))
    )


def check_alike(network, weights, weighted, repeated):
    """What a chunk says is the same of both, the weights of the second left out."""
    repeated = replace(repeated, sample_weight=None)
    found = kfac_chunk(network, weights, None, weighted, NewtonSettings())
    wanted = kfac_chunk(network, weights, None, repeated, NewtonSettings())
    np.testing.assert_allclose(found.totals[1], wanted.totals[1])
    for mine, theirs in zip(found.negative_gradient, wanted.negative_gradient, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)

    direction = network.initial_weights(1, np.float64)
    model = quadratic_model_chunk(network, weights, direction, direction, weighted)
    wanted_model = quadratic_model_chunk(network, weights, direction, direction, repeated)
    np.testing.assert_allclose(model.slope, wanted_model.slope)
    np.testing.assert_allclose(model.curvature, wanted_model.curvature)

    quality = evaluate_chunk(network, weights, weighted)
    wanted_quality = evaluate_chunk(network, weights, repeated)
    assert quality.loss == pytest.approx(wanted_quality.loss)
    assert quality.correct == pytest.approx(wanted_quality.correct)


def test_where_training_begins_does_not_hang_on_weights():
    network, _, x, y, w = problem("squared")
    mine, theirs = moments_chunk(network, Batch(x, y, w)), moments_chunk(network, Batch(x, y))
    np.testing.assert_array_equal(mine.vector, theirs.vector)


def test_a_model_is_evaluated_by_the_weights_of_a_store(altmin, tmp_path):
    """As while it was trained, and not by columns of weights that stand where targets do."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(60, 3)), np.arange(60) % 2, rng.integers(1, 4, 60)
    np.savez(tmp_path / "a.npz", x=x, y=y, sample_weight=w / w.mean())
    assert altmin("ingest", "a.npz", "s.zarr", "--dtype", "float64").code == 0
    write_pipeline(
        tmp_path / "p.toml", "s.zarr", "classifier", training={"schedule": "kfac", "max_sweeps": 3}
    )
    assert altmin("train", "p.toml", "--run", "run").code == 0
    found = json.loads(altmin("evaluate", "run", "s.zarr", "--json").out)
    model = Model.load(tmp_path / "run" / "model")
    right = model.predict(x).argmax(axis=1) == y
    assert found["accuracy"] == pytest.approx(np.average(right, weights=w), rel=1e-6)


def test_a_store_knows_how_many_samples_its_weights_stand_for(tmp_path):
    x, w = np.random.default_rng(0).normal(size=(100, 3)), np.arange(100.0)
    source = weighted(replace(array_source(x, x[:, 0]), weights=sliced(w, "sample_weight")))
    network = dense_network([3, 4, 1], "relu", "squared")
    stream = Stream(5000)
    for each, rows in ((source, 100), (split(source, 0.3, 0)[0], 70)):
        store = ingest(each, tmp_path / f"{rows}.zarr")
        assert samples_in_all(store, network, None) == pytest.approx(rows * w.mean())
        assert samples_in_all(store, network, stream) == pytest.approx(5000 * w.mean())
    again = ingest(read_from(store, source), tmp_path / "again.zarr")
    assert again.mean_weight == store.mean_weight
    plain = ingest(array_source(x, x[:, 0]), tmp_path / "plain.zarr")
    assert (plain.mean_weight, samples_in_all(plain, network, None)) == (1.0, 100)


def test_weights_of_lazy_samples_are_those_of_samples_in_memory():
    """Held out ones included, for which all are written on the way."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(200, 4)), rng.uniform(1, 5, size=200)
    y = (x[:, 0] + 0.5 * rng.normal(size=200) > 0).astype(int)
    models = [
        AltMinClassifier(
            5, ridge=20.0, early_stopping=True, max_sweeps=4, random_state=0, dtype="float64", chunk_rows=200
        ).fit(*each, sample_weight=w)
        for each in ((x, y), (da.from_array(x, chunks=100), da.from_array(y, chunks=100)))
    ]
    ridges = [m.history_[-1]["regularized_loss"] - m.history_[-1]["nested_loss"] for m in models]
    squares = [sum(float((c**2).sum()) for c in (*m.coefs_, *m.intercepts_)) for m in models]
    shares = [ridge / square for ridge, square in zip(ridges, squares, strict=True)]
    assert shares[1] == pytest.approx(shares[0], rel=0.2)  # 3 if weights were forgotten


@pytest.mark.slow
def test_shrinkage_of_few_samples_by_weight_is_no_divergence():
    """The ridge is shared by the sum of the weights, as it is in training, where a loss is judged."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3))
    y = x @ [1.0, -2.0, 0.5]
    model = AltMinRegressor((), ridge=1e-2, max_sweeps=30, warm_start=True, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.99
    with pytest.warns(AltMinWarning, match=r"weights of samples are 1e-05 on average, .* give ridge = 1e-07"):
        model.fit(x, y, sample_weight=np.full(100, 1e-5))
    assert np.abs(model.coefs_[0]).max() < 1.5


@pytest.mark.filterwarnings("default::altmin_dask.errors.AltMinWarning")
def test_weights_of_a_file_that_are_far_from_1_are_told_of(altmin, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), np.arange(60) % 2
    write_pipeline(tmp_path / "p.toml", "a.npz", "classifier", training={"schedule": "kfac", "max_sweeps": 1})
    for size in (1e-4, 5.0):
        np.savez(tmp_path / "a.npz", x=x, y=y, sample_weight=np.full(60, size))
        done = altmin("train", "p.toml", "--run", f"run{size}")
        assert done.code == 0, done.err
        assert ("a.npz are 0.0001 on average" in " ".join(done.err.split())) == (size < 1)


@pytest.mark.slow
def test_regressor_of_weights_and_of_repetitions_agree_where_training_converges():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    y = x @ [1.0, -2.0, 0.5] + rng.normal(size=80)
    w = rng.integers(0, 4, 80)
    settings: dict[str, Any] = {"tol": 0.0, "max_sweeps": 40, "random_state": 0, "ridge": 0.5}
    settings["weight_decay"] = 0.0  # which comes to rest by the noise of curvature, drawn by row, too
    one = AltMinRegressor(3, "identity", **settings).fit(x, y, sample_weight=w)
    other = AltMinRegressor(3, "identity", **settings).fit(x.repeat(w, axis=0), y.repeat(w, axis=0))
    plain = AltMinRegressor(3, "identity", **settings).fit(x, y)
    np.testing.assert_allclose(one.predict(x), other.predict(x), atol=0.02)
    assert np.abs(one.predict(x) - plain.predict(x)).max() > 0.5


@pytest.mark.slow
def test_a_linear_classifier_of_weights_is_that_of_repetitions_and_of_scikit_learn():
    """All three have one minimum: Σ w ℓ + λ‖W‖², whatever the weights are on average."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(60, 3)), rng.integers(1, 6, 60)
    y = x[:, 0] + rng.normal(size=60) > 0
    settings: dict[str, Any] = {"max_sweeps": 60, "tol": 0.0, "n_iter_no_change": None, "random_state": 0}
    one = AltMinClassifier((), **settings, ridge=0.5).fit(x, y, sample_weight=w)
    other = AltMinClassifier((), **settings, ridge=0.5).fit(x.repeat(w, axis=0), y.repeat(w))
    np.testing.assert_allclose(one.predict_proba(x), other.predict_proba(x), atol=1e-5)
    fewer = AltMinClassifier((), **settings, ridge=0.05).fit(x, y, sample_weight=0.1 * w)
    np.testing.assert_allclose(fewer.predict_proba(x), one.predict_proba(x), atol=1e-5)
    # of two outputs: λ(‖v‖² + ‖v‖²) = λ‖u‖²/2 for u = 2v, and biases are held, too
    biased = np.column_stack([x, np.ones(60)])
    theirs = LogisticRegression(C=1 / 0.5, fit_intercept=False, tol=1e-10).fit(biased, y, sample_weight=w)
    np.testing.assert_allclose(one.predict_proba(x), theirs.predict_proba(biased), atol=1e-5)


@pytest.mark.slow
def test_balanced_classes_count_the_same():
    x, y = make_classification(600, weights=[0.95], class_sep=0.5, random_state=1)
    settings: dict[str, Any] = {"max_sweeps": 15, "random_state": 0, "ridge": 1.0}
    plain = AltMinClassifier(5, **settings).fit(x, y)
    balanced = AltMinClassifier(5, class_weight="balanced", **settings).fit(x, y)
    counts = np.bincount(y)
    by_hand = AltMinClassifier(5, **settings).fit(x, y, sample_weight=300 / counts[y])
    np.testing.assert_allclose(balanced.predict_proba(x), by_hand.predict_proba(x), rtol=1e-5)
    assert (balanced.predict(x) == 1).sum() > 1.5 * (plain.predict(x) == 1).sum()


def test_weights_and_held_out_samples_go_together(make_store):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(200, 3)), rng.integers(0, 2, 200), rng.random(200)
    classifier = AltMinClassifier(4, max_sweeps=4, random_state=0, early_stopping=True)
    classifier.fit(x, y, sample_weight=w)
    again = AltMinClassifier(4, max_sweeps=4, random_state=0, early_stopping=True)
    again.fit(make_store(x, y, shuffle=False).path, sample_weight=w)
    assert classifier.best_loss_ == pytest.approx(again.best_loss_, rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "weights", "error", "words"),
    [
        ({"schedule": "windows"}, np.ones(40), ConfigError, "mu = 'auto'"),
        ({"mu": 1.0}, np.ones(40), ConfigError, "schedule = 'kfac'"),
        ({}, np.zeros(40), DataError, "all weights of samples are zero"),
        ({}, -np.ones(40), DataError, "from 0 on"),
        ({"class_weight": {5: 1.0}}, None, ConfigError, "none of the classes"),
        ({"class_weight": "even"}, None, ConfigError, "'balanced'"),
    ],
)
def test_weights_that_cannot_be_used(settings, weights, error, words):
    x = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(error, match=words):
        AltMinClassifier(2, max_sweeps=1, **settings).fit(x, x[:, 0] > 0, sample_weight=weights)


def test_samples_for_validation_have_to_count(tmp_path):
    """Their loss was 0, which nothing is below: the model that was kept was the one that training began with."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = (x[:, 0] > 0).astype(int)
    for name, weights in (("train", np.ones(60)), ("held", np.zeros(60))):
        ingest(array_source(x, y, sample_weight=weights), tmp_path / f"{name}.zarr")
    pipeline = training_pipeline(
        {
            "data": {"train": str(tmp_path / "train.zarr"), "validation": str(tmp_path / "held.zarr")},
            "network": {"kind": "classifier", "hidden_layer_sizes": [4]},
            "training": {"max_sweeps": 1},
        }
    )
    with pytest.raises(
        DataError, match="which tells how good the model is, nothing counts: all weights are 0"
    ):
        train(pipeline, RunFolder(tmp_path / "run"))
