"""What every estimator keeps to, whatever it is trained on: a row here for each."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import dask.array as da
import numpy as np
import pytest
from choices import slow_but
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import altmin_dask
from altmin_dask import (
    AltMinAutoencoder,
    AltMinClassifier,
    AltMinRecurrentClassifier,
    AltMinRecurrentRegressor,
    AltMinRegressor,
)
from altmin_dask.errors import DataError, ExistsError, MissingError
from altmin_dask.estimators import base

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 6))
SEQUENCES = RNG.normal(size=(150, 5, 2))
QUICK = {"max_sweeps": 3, "random_state": 0, "workers": 1}


@dataclass(frozen=True)
class Case:
    """An estimator, and what it is fitted to and asked for."""

    kind: type[Any]
    x: np.ndarray
    y: np.ndarray | None
    outputs: Callable[[Any, Any], Any]
    settings: dict[str, Any]

    def make(self, **settings: Any) -> Any:
        return self.kind(**{**QUICK, **self.settings, **settings})


CASES = [
    Case(
        AltMinAutoencoder,
        X,
        None,
        lambda fitted, x: fitted.transform(x),
        {"hidden_layer_sizes": (4, 3), "activation": ("tanh", "relu")},
    ),
    Case(
        AltMinClassifier,
        X,
        np.array(["low", "mid", "high"])[np.digitize(X[:, 0], [-0.5, 0.5])],
        lambda fitted, x: fitted.predict_proba(x),
        {"hidden_layer_sizes": (4, 3), "class_weight": "balanced"},
    ),
    Case(AltMinRegressor, X, X[:, :2] * X[:, 2:4], lambda fitted, x: fitted.predict(x), {"tol": 0.01}),
    Case(
        AltMinRecurrentClassifier,
        SEQUENCES,
        np.where(SEQUENCES[:, :, 0].sum(axis=1) > 0, "up", "down"),
        lambda fitted, x: fitted.predict_proba(x),
        {"hidden_layer_sizes": 4},
    ),
    Case(
        AltMinRecurrentRegressor,
        SEQUENCES,
        np.cumsum(SEQUENCES, axis=1),
        lambda fitted, x: fitted.predict(x),
        {"hidden_layer_sizes": (4,), "head_layer_sizes": 3},
    ),
]
CLASSIFIERS = (AltMinClassifier, AltMinRecurrentClassifier)
every_estimator = pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind.__name__)

some_estimators = pytest.mark.parametrize(
    "case", slow_but(CASES[1::3], CASES), ids=lambda case: case.kind.__name__
)  # the slow tests take every one


@cache
def fitted_to(number: int) -> Any:
    case = CASES[number]
    return case.make().fit(case.x, case.y)


@pytest.fixture
def fitted(case):
    return fitted_to(CASES.index(case))


def test_every_estimator_is_here():
    public = {name for name in altmin_dask.__all__ if name.startswith("AltMin")}
    assert {case.kind.__name__ for case in CASES} == public


@every_estimator
def test_parameters_are_explicit_and_kept_as_they_are(case):
    signature = inspect.signature(case.kind)
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    positional, named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    assert kinds == [positional] * 2 + [named] * (len(kinds) - 2)
    assert list(signature.parameters)[:2] == ["hidden_layer_sizes", "activation"]
    given = {name: object() for name in signature.parameters}
    made = case.kind(**given)
    assert vars(made) == given
    assert made.get_params(deep=False) == given
    plain = case.kind()
    assert plain.get_params() == {name: each.default for name, each in signature.parameters.items()}
    assert clone(plain.set_params(ridge=7.0)).ridge == 7.0


@every_estimator
def test_what_has_not_been_fitted_says_so(case):
    with pytest.raises(NotFittedError):
        case.outputs(case.make(), case.x)
    with pytest.raises(NotFittedError):
        case.make().save("nowhere")


@every_estimator
def test_what_is_learnt(case, fitted):
    assert fitted.n_features_in_ == case.x[0].size
    assert [record["nested_loss"] for record in fitted.history_] == fitted.loss_curve_
    assert fitted.best_loss_ == min(fitted.loss_curve_) < fitted.loss_curve_[0]
    assert fitted.n_iter_ == 3
    assert fitted.best_validation_score_ is None
    shapes = [w.shape for w in fitted.model_.weights]
    assert [(w.shape[0] + 1, b.size) for w, b in zip(fitted.coefs_, fitted.intercepts_, strict=True)] == [
        (columns, rows) for rows, columns in shapes
    ]


@some_estimators
def test_a_seed_makes_fits_equal_and_workers_change_nothing(case, fitted):
    again = case.make(workers=2).fit(case.x, case.y)
    for mine, theirs in zip(again.model_.weights, fitted.model_.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    other = case.make(random_state=np.random.RandomState(3)).fit(case.x, case.y)
    assert not np.array_equal(other.model_.weights[0], fitted.model_.weights[0])


@every_estimator
def test_clones_forget_and_pickles_remember(case, fitted):
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "model_")
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(case.outputs(again, case.x), case.outputs(fitted, case.x))


@every_estimator
def test_saved_estimators_are_the_same(case, fitted, tmp_path):
    fitted.save(tmp_path / "saved")
    assert sorted(path.suffix for path in (tmp_path / "saved").iterdir()) == [
        ".json",
        ".json",
        ".safetensors",
    ]
    again = case.kind.load(tmp_path / "saved")
    assert again.get_params() == fitted.get_params()
    assert again.history_ == fitted.history_
    assert again.n_features_in_ == fitted.n_features_in_
    np.testing.assert_array_equal(case.outputs(again, case.x), case.outputs(fitted, case.x))

    with pytest.raises(ExistsError, match="overwrite=True"):
        fitted.save(tmp_path / "saved")
    fitted.save(tmp_path / "saved", overwrite=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ExistsError, match="give another path"):
        fitted.save(tmp_path / "mine", overwrite=True)
    with pytest.raises(MissingError, match="no saved estimator"):
        case.kind.load(tmp_path / "mine")
    for other in CASES:
        if other is not case:
            with pytest.raises(DataError, match=f"holds an {case.kind.__name__}"):
                other.kind.load(tmp_path / "saved")


@some_estimators
def test_what_is_held_out_chooses_the_model(case):
    fitted = case.make(early_stopping=True, validation_fraction=0.2).fit(case.x, case.y)
    losses = [record["validation_loss"] for record in fitted.history_]
    assert fitted.best_loss_ == min(losses)
    assert np.isfinite(fitted.best_validation_score_)


@some_estimators
def test_lazy_samples_give_lazy_outputs_that_are_the_same(case, fitted):
    chunks = (60, *case.x.shape[1:])
    lazy = da.from_array(case.x, chunks=chunks)
    expected = case.outputs(fitted, case.x)
    found = case.outputs(fitted, lazy)
    assert isinstance(found, da.Array)
    assert (found.shape, found.dtype, found.chunks[0]) == (expected.shape, expected.dtype, (60, 60, 30))
    np.testing.assert_allclose(found.compute(scheduler="sync"), expected, rtol=1e-12)
    nothing = case.outputs(fitted, lazy[:0]).compute(scheduler="sync")
    assert nothing.shape == (0, *expected.shape[1:])
    trained = case.make(chunk_rows=150).fit(lazy, case.y)
    same = case.make(chunk_rows=150).fit(case.x, case.y)
    for mine, theirs in zip(trained.model_.weights, same.model_.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@every_estimator
def test_samples_of_another_size_are_refused(case, fitted):
    with pytest.raises(ValueError, match=r"features.* is expecting"):
        case.outputs(fitted, case.x[..., :1])


@pytest.mark.parametrize("partial", [False, True])
@some_estimators
def test_a_training_that_fails_leaves_all_as_it_was(case, partial, monkeypatch):
    """Refitted to samples of other shapes and classes, and stopped where these are known already."""
    if partial and not hasattr(case.kind, "partial_fit"):
        return
    estimator = case.make(**({"class_weight": None} if "class_weight" in case.settings else {}))
    estimator.fit(case.x, case.y)
    before = dict(vars(estimator))
    outputs = case.outputs(estimator, case.x)

    train = base.runs.train

    def cut(*arguments: Any, **options: Any) -> None:
        train(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(base.runs, "train", cut)
    x, y = case.x, case.y
    if not partial:
        x, y = (
            x[30:, ..., :-1],
            np.char.upper(y[30:]) if case.kind in CLASSIFIERS else None if y is None else y[30:],
        )
    with pytest.raises(KeyboardInterrupt):
        (estimator.partial_fit if partial else estimator.fit)(x, y)
    assert vars(estimator) == before
    assert np.array_equal(case.outputs(estimator, case.x), outputs)
