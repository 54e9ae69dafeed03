"""Estimators of sequences: arrays, stores and dask arrays; lengths; what scikit-learn does with estimators."""

from __future__ import annotations

import pickle

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
from in_order import ingest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from altmin_dask import AltMinRecurrentClassifier, AltMinRecurrentRegressor
from altmin_dask.data.source import array_source
from altmin_dask.errors import AltMinWarning, ConfigError, DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 6, 2))
WORDS = np.where(X[:, :, 0].sum(axis=1) > 0, "up", "down")
EVERY = np.where(np.cumsum(X[:, :, 0], axis=1) > 0, "up", "down")
SUMS = X[:, :, 0].sum(axis=1)
RUNNING = np.cumsum(X, axis=1)
LENGTHS = RNG.integers(2, 7, len(X))
QUICK = {"max_sweeps": 25, "random_state": 0, "hidden_layer_sizes": 8}


def classifier(**options):
    return AltMinRecurrentClassifier(**{**QUICK, **options})


def regressor(**options):
    return AltMinRecurrentRegressor(**{**QUICK, **options})


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(X, WORDS)


def test_a_label_for_each_sequence(fitted):
    assert fitted.score(X, WORDS) > 0.9
    probabilities = fitted.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[probabilities.argmax(axis=1)])
    assert (fitted.n_steps_in_, fitted.n_step_features_in_) == (6, 2)


@pytest.mark.slow
def test_labels_and_numbers_at_every_step():
    every = classifier().fit(X, EVERY)
    assert every.predict(X).shape == EVERY.shape
    assert every.score(X, EVERY) > 0.85
    numbers = regressor().fit(X, RUNNING)
    assert numbers.predict(X[:, :4]).shape == (240, 4, 2)  # of any number of steps
    assert numbers.score(X, RUNNING) > 0.9
    single = regressor(activation="relu", head_layer_sizes=4).fit(X, SUMS)
    assert single.predict(X).shape == SUMS.shape
    assert single.score(X, SUMS) > 0.8


@pytest.mark.slow
def test_padding_is_never_seen():
    padded = X.copy()
    padded[np.arange(6) >= LENGTHS[:, None]] = 1e3
    a, b = (classifier(early_stopping=True).fit(x, EVERY, lengths=LENGTHS) for x in (X, padded))
    assert a.best_validation_score_ == b.best_validation_score_
    np.testing.assert_array_equal(a.model_.weights[0], b.model_.weights[0])
    there = np.arange(6) < LENGTHS[:, None]
    np.testing.assert_allclose(
        a.predict_proba(X, lengths=LENGTHS)[there],
        b.predict_proba(padded, lengths=LENGTHS)[there],
        rtol=1e-12,
    )
    hits = (a.predict(X, lengths=LENGTHS) == EVERY)[there].mean()
    assert a.score(X, EVERY, lengths=LENGTHS) == pytest.approx(hits)


@pytest.mark.slow
def test_dask_arrays_and_stores_are_lazy_and_the_same(fitted, tmp_path):
    lazy = da.from_array(X, chunks=(100, -1, -1))
    other = classifier(chunk_rows=240).fit(lazy, WORDS)
    same = classifier(chunk_rows=240).fit(X, WORDS)
    np.testing.assert_array_equal(other.model_.weights[0], same.model_.weights[0])
    for found, expected in (
        (fitted.predict(lazy), fitted.predict(X)),
        (fitted.predict_proba(lazy), fitted.predict_proba(X)),
    ):
        assert isinstance(found, da.Array)
        assert found.chunks[0] == (100, 100, 40)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.compute(), expected)
    every = classifier(max_sweeps=2).fit(X, EVERY)
    found = every.predict_proba(lazy)
    assert found.shape == (240, 6, 2)
    np.testing.assert_array_equal(found.compute(), every.predict_proba(X))
    np.testing.assert_array_equal(every.predict(lazy).compute(), every.predict(X))
    store = ingest(array_source(X, RUNNING), tmp_path / "s.zarr", chunk_rows=80, dtype="float64")
    stored = regressor().fit(store.path)
    np.testing.assert_allclose(stored.predict(store.path).compute(), stored.predict(X), rtol=1e-12)


@pytest.mark.slow
def test_what_scikit_learn_does_with_estimators(fitted, tmp_path):
    assert clone(fitted).get_params() == fitted.get_params()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    fitted.save(tmp_path / "model")
    loaded = AltMinRecurrentClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    flat = X.reshape(240, -1)
    search = GridSearchCV(classifier(steps=6, max_sweeps=3), {"ridge": [0.1, 1.0]}, cv=2).fit(flat, WORDS)
    assert set(search.best_params_) == {"ridge"}
    assert cross_val_score(regressor(max_sweeps=5), X, SUMS, cv=2).shape == (2,)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: classifier().fit(X[:, 0], WORDS), DataError, "are no sequences; give X of shape"),
        (
            lambda: classifier(steps=5).fit(X[:, 0], WORDS),
            ConfigError,
            "steps = 5 does not divide the 2 values",
        ),
        (lambda: classifier().fit(X, EVERY[:, :3]), DataError, "for every step"),
        (lambda: classifier().fit(X, WORDS[:9]), DataError, "belong together"),
        (lambda: classifier().fit(X, None), DataError, "requires y to be passed"),
        (
            lambda: classifier().fit(X, WORDS, lengths=LENGTHS * 3),
            DataError,
            "sequences have 1 to 6 steps here",
        ),
        (lambda: classifier().fit(X, WORDS, lengths=LENGTHS / 2), DataError, "one whole number for each row"),
        (lambda: classifier().fit(np.where(X > 2, np.nan, X), WORDS), ValueError, "NaN"),
        (
            lambda: regressor().fit(X, np.where(RUNNING > 2, np.nan, RUNNING)),
            DataError,
            "NaN or infinity in y",
        ),
        (lambda: classifier().fit(X, np.full(240, "up")), DataError, "only one class"),
    ],
)
def test_what_cannot_be_used(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_other_features_are_refused(fitted):
    with pytest.raises(DataError, match="X has 3 features in a step"):
        fitted.predict(np.zeros((4, 6, 3)))
    with pytest.raises(ConfigError, match="recurrent"):
        fitted.to_onnx("model.onnx")


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_columns_of_frames_are_known_by_their_names(lengths):
    """Steps in another order are other sequences, and were predicted for without a word."""
    names = [f"{name} {step}" for step in range(6) for name in ("a", "b")]
    frame = pd.DataFrame(X.reshape(240, -1), columns=names)
    fitted = classifier(steps=6, max_sweeps=1).fit(frame, WORDS, lengths=lengths)
    assert fitted.feature_names_in_.tolist() == names
    wanted = fitted.predict_proba(frame, lengths=lengths)
    for same in (pl.from_pandas(frame), dd.from_pandas(frame, npartitions=2)):
        np.testing.assert_allclose(fitted.predict_proba(same, lengths=lengths), wanted, rtol=1e-9)
    swapped = frame[names[::-1]]
    for other in (swapped, pl.from_pandas(swapped), dd.from_pandas(swapped, npartitions=2)):
        for call in (fitted.predict, fitted.predict_proba):
            with pytest.raises(ValueError, match="must be in the same order"):
                call(other, lengths=lengths)
    with pytest.raises(ValueError, match="must be in the same order"):
        fitted.partial_fit(dd.from_pandas(swapped, npartitions=2), WORDS, lengths=lengths)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        fitted.predict(frame.to_numpy(), lengths=lengths)


def test_layers_take_the_place_of_widths():
    """They were refused for a parameter that nobody had given."""
    layers = [{"kind": "recurrent", "units": 3}, {"kind": "recurrent", "units": 4}]
    fitted = classifier(max_sweeps=1, settings={"network.layers": layers}).fit(X, WORDS)
    assert [layer.units for layer in fitted.model_.network.layers] == [3, 4, 2]
    with pytest.raises(
        ConfigError, match=r"^network\.layers names all hidden layers; leave recurrent_initialization out$"
    ):
        classifier(recurrent_initialization="identity", settings={"network.layers": layers}).fit(X, WORDS)


def test_a_label_that_means_no_target_elsewhere_is_told_of():
    """Files have −1 for steps without a target; here it became a class without a word."""
    with pytest.warns(AltMinWarning, match=r"y has the label -1 at some steps, which is a class here"):
        fitted = classifier(max_sweeps=1).fit(X, np.where(X[:, :, 0] > 1, -1, EVERY == "up"))
    assert fitted.classes_.tolist() == [-1, 0, 1]
    classifier(max_sweeps=1).fit(X, np.where(EVERY == "up", 1, -1))  # of −1 and 1 there is no doubt
