"""The estimators beside scikit-learn: pipelines, searches, streams, warm starts, callbacks, pickles, bad settings."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor
from altmin_dask.data import splitting
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.estimators import input

X, LABELS = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
NAMES = np.array(["setosa", "versicolor", "virginica"])[LABELS]
REAL = X @ [1.0, 0.5, -1.0, 0.2] + np.sin(X[:, 0])


def classifier(**settings: Any) -> AltMinClassifier:
    return AltMinClassifier(
        8, **{"max_sweeps": 10, "ridge": 0.01, "random_state": 0, "workers": 1, **settings}
    )


def test_labels_of_any_type_and_their_probabilities():
    fitted = classifier().fit(X, NAMES)
    assert fitted.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert fitted.score(X, NAMES) > 0.9
    probabilities = fitted.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), probabilities)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(X)).all()


@pytest.mark.slow
def test_validation_of_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), classifier())
    assert cross_val_score(pipeline, X, LABELS, cv=3).mean() > 0.85


def test_search_over_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), classifier())
    search = GridSearchCV(
        pipeline,
        {"altminclassifier__hidden_layer_sizes": [(1,), (8,)], "altminclassifier__ridge": np.array([0.005])},
        cv=2,
    )
    assert search.fit(X, NAMES).best_score_ > 0.8
    assert search.predict(X[:2]).tolist() == ["setosa", "setosa"]


def test_columns_of_a_frame():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"]).assign(kind=np.where(X[:, 0] > 0, "big", "small"))
    columns = ColumnTransformer(
        [
            ("codes", AltMinAutoencoder(2, max_sweeps=4, random_state=0), ["a", "b", "c"]),
            ("kind", OneHotEncoder(), ["kind"]),
        ]
    )
    fitted = make_pipeline(columns, classifier()).fit(frame, NAMES)
    assert fitted.predict(frame).shape == (150,)
    names = fitted[0].get_feature_names_out().tolist()
    assert names == [
        "codes__altminautoencoder0",
        "codes__altminautoencoder1",
        "kind__kind_big",
        "kind__kind_small",
    ]
    assert fitted[0].named_transformers_["codes"].feature_names_in_.tolist() == ["a", "b", "c"]


@pytest.mark.slow
def test_frames_give_the_same_as_arrays():
    wanted = classifier().fit(X, LABELS).predict_proba(X)
    pandas = pd.DataFrame(X, columns=list("abcd"))
    polars = pl.DataFrame({name: X[:, i] for i, name in enumerate("abcd")})
    for frame, labels in ((pandas, pd.Series(LABELS)), (polars, pl.Series(LABELS).to_numpy())):
        fitted = classifier().fit(frame, labels)
        assert fitted.feature_names_in_.tolist() == list("abcd")
        np.testing.assert_array_equal(fitted.predict_proba(frame), wanted)
    with pytest.raises(ValueError, match="feature names"):
        classifier().fit(pandas, LABELS).predict(pandas[["b", "a", "c", "d"]])


def test_regressor_of_one_and_of_several_outputs():
    flat = AltMinRegressor(20, max_sweeps=20, random_state=0).fit(X, REAL)
    assert flat.predict(X).shape == (150,)
    assert flat.score(X, REAL) > 0.9
    two = AltMinRegressor(20, max_sweeps=20, random_state=0).fit(X, np.column_stack([REAL, X[:, 1]]))
    assert two.predict(X).shape == (150, 2)
    assert two.n_outputs_ == 2
    assert two.score(X, np.column_stack([REAL, X[:, 1]])) > 0.9


def test_autoencoder_codes_and_decodes():
    fitted = AltMinAutoencoder((6, 2, 6), "tanh", max_sweeps=40, random_state=0).fit(X)
    codes = fitted.transform(X)
    assert codes.shape == (150, 2)
    assert abs(codes).max() <= 1
    np.testing.assert_allclose(fitted.inverse_transform(codes), fitted.reconstruct(X))
    assert 0.5 < fitted.score(X) <= 1
    with pytest.raises(DataError, match="give what transform returned"):
        fitted.inverse_transform(X)


def test_warm_start_goes_on_from_the_weights():
    warm = classifier(warm_start=True, max_sweeps=6).fit(X, LABELS)
    first, curve = warm.best_loss_, warm.loss_curve_
    warm.fit(X, LABELS)
    assert warm.loss_curve_[0] == pytest.approx(first, rel=1e-6)
    assert warm.best_loss_ < first < curve[0]
    with pytest.raises(DataError, match="warm_start goes on with the classes"):
        warm.fit(X, NAMES)
    with pytest.raises(
        ConfigError, match=r"warm_start goes on with hidden layers of .* hidden_layer_sizes is 9;"
    ):
        warm.set_params(hidden_layer_sizes=9).fit(X, LABELS)


@pytest.mark.slow
def test_streams_are_learnt_by_partial_fit():
    rng = np.random.default_rng(0)
    stream = classifier()
    for _ in range(12):
        rows = rng.choice(150, 50)
        stream.partial_fit(X[rows], NAMES[rows], classes=np.unique(NAMES))
    assert stream.score(X, NAMES) > 0.9
    assert stream.n_iter_ == 12
    before = stream.score(X, NAMES)
    for _ in range(3):  # what was learnt of the other classes is not thrown away
        stream.partial_fit(X[:40], NAMES[:40])
    assert stream.score(X, NAMES) > before - 0.25
    assert pickle.loads(pickle.dumps(stream)).partial_fit(X, NAMES).score(X, NAMES) > 0.9


@pytest.mark.slow
def test_partial_fit_of_the_others():
    regressor, autoencoder = AltMinRegressor(10, random_state=0), AltMinAutoencoder(2, random_state=0)
    for _ in range(12):
        regressor.partial_fit(X, REAL)
        autoencoder.partial_fit(X)
    assert regressor.score(X, REAL) > 0.8
    assert autoencoder.score(X) > 0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: classifier().partial_fit(X, LABELS), "classes must be passed on the first call"),
        (lambda: classifier().partial_fit(X, LABELS, classes=[0, 1]), "not all among the classes"),
        (lambda: classifier(schedule="batch").partial_fit(X, LABELS, classes=[0, 1, 2]), "takes K-FAC steps"),
        (lambda: classifier(activation="swish").fit(X, LABELS), "^activation = 'swish'.*did you mean silu"),
        (
            lambda: classifier(max_sweeps=-1).fit(X, LABELS),
            "^max_sweeps = -1: input should be greater than 0$",
        ),
        (
            lambda: classifier(validation_fraction=2.0, early_stopping=True).fit(X, LABELS),
            "validation_fraction = 2.0",
        ),
        (lambda: classifier(settings={"ridge": 1}).fit(X, LABELS), "settings has 'ridge'"),
        (lambda: classifier(settings={"solver.rigde": 1}).fit(X, LABELS), "solver.rigde is not a setting"),
        (lambda: classifier().fit(X, np.zeros(150)), "only one class"),
        (lambda: AltMinRegressor(2, loss="binary_cross_entropy").fit(X, REAL), "only reaches"),
        (lambda: AltMinAutoencoder(()).fit(X), "needs a hidden layer"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.slow
def test_samples_are_held_out():
    held_out = {"early_stopping": True, "validation_fraction": 0.2}
    some = [classifier(**held_out, random_state=seed).fit(X, NAMES) for seed in range(4)]
    assert np.mean([fitted.best_validation_score_ for fitted in some]) > 0.8  # of 30 samples each
    fitted = some[0]
    assert len(fitted.history_) > 1
    assert all(record["validation_loss"] is not None for record in fitted.history_)
    assert fitted.best_loss_ == min(record["validation_loss"] for record in fitted.history_)


@pytest.mark.parametrize("lazy", [False, True])
def test_of_every_class_its_share_is_held_out(lazy, monkeypatch):
    """As `[data] validation` does it, and scikit-learn's train_test_split with `stratify`."""
    parts = []

    def noted(*arguments: Any, **options: Any) -> Any:
        both = splitting.split(*arguments, **options)
        parts.append([np.concatenate([block for _, block in part.blocks(7)]) for part in both])
        return both

    monkeypatch.setattr(input, "splitting", SimpleNamespace(split=noted))
    rare = np.array(["rare"] * 10 + ["often"] * 90)
    order = np.random.default_rng(0).permutation(100)
    x, y = X[:100][order], rare[order]
    given = da.from_array(x, chunks=(30, 4)) if lazy else x
    classifier(early_stopping=True, max_sweeps=1).fit(given, y)
    ((train, held),) = parts
    assert np.bincount(train).tolist() == [81, 9]  # often, rare
    assert np.bincount(held).tolist() == [9, 1]
    with pytest.raises(
        DataError, match=r"a single sample of the class 'once', of which validation_fraction = 0\.1"
    ):
        classifier(early_stopping=True).fit(given, np.where(np.arange(100) == 7, "once", y))
    with pytest.raises(
        DataError, match=r"holds 1 of 10 samples out, and y has 2 classes.*early_stopping=False"
    ):
        classifier(early_stopping=True).fit(given[:10], np.arange(10) % 2)


class Recorder:
    """A callback of scikit-learn's protocol."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.told: list[str] = []
        self.losses: list[float] = []
        self.scores: list[float] = []

    def setup(self, estimator, context):
        self.told.append("setup")

    def on_fit_task_begin(self, estimator, context):
        self.told.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.told.append(f"end {context.task_name}")
        self.scores.append(fitted_estimator.score(X, y))
        if metadata is not None:
            self.losses.append(metadata["record"]["nested_loss"])
        return self.stop_after is not None and len(self.losses) >= self.stop_after

    def teardown(self, estimator, context):
        self.told.append("teardown")


def test_callbacks_see_every_record_and_may_stop():
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    fitted = classifier().set_callbacks(recorder).fit(X, NAMES)
    assert recorder.told[:3] == ["setup", "begin fit", "begin sweeps"]
    assert recorder.told[-2:] == ["end fit", "teardown"]
    assert recorder.told.count("begin sweeps") == recorder.told.count("end sweeps") == len(recorder.losses)
    assert recorder.losses == fitted.loss_curve_[1:]
    assert recorder.scores[-1] == fitted.score(X, NAMES)

    stopped = classifier().set_callbacks(Recorder(stop_after=2)).fit(X, NAMES)
    assert len(stopped.loss_curve_) == 3
    assert stopped.n_iter_ < fitted.n_iter_


def test_progress_bar_of_scikit_learn(capsys):
    callback = pytest.importorskip("sklearn.callback")
    classifier(max_sweeps=2).set_callbacks(callback.ProgressBar()).fit(X, LABELS)
    assert "AltMinClassifier" in capsys.readouterr().out
