"""Few steps and few rows: what `partial_fit`, `warm_start` and a single sweep have learnt is in the model."""

from __future__ import annotations

import json
import pickle
from itertools import count
from typing import Any

import numpy as np
import pytest
from choices import slow_but
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from altmin_dask import AltMinClassifier, AltMinRegressor
from altmin_dask.estimators.recent import WINDOW
from altmin_dask.solvers.preconditioner import KroneckerPreconditioner

ORDER = np.random.default_rng(0).permutation(1797)
X, Y = load_digits(return_X_y=True)
X, Y = X[ORDER] / 16, Y[ORDER]
TEST = slice(1400, None)


def streamed(kind: Any, rows: int, total: int) -> Any:
    for start in range(0, total, rows):
        part = slice(start, start + rows)
        kind.partial_fit(X[part], Y[part], classes=np.arange(10))
    return kind


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "total"), [(1, 300), (2, 400), (5, 100)])
def test_batches_of_few_rows_are_learnt(rows, total):
    """At chance before: the ridge was shared by the rows of one call, and a step fitted these alone."""
    ours = streamed(AltMinClassifier(30, random_state=0), rows, total).score(X[TEST], Y[TEST])
    theirs = streamed(SGDClassifier(loss="log_loss", random_state=0), rows, total).score(X[TEST], Y[TEST])
    assert ours > max(0.7, theirs - 0.02)


def test_one_sweep_changes_the_model():
    """One step, which the kept mean of the weights before it did not know of."""
    one = AltMinClassifier(30, max_sweeps=1, random_state=0).fit(X[:400], Y[:400])
    assert one.loss_curve_[-1] < 0.9 * one.loss_curve_[0]
    assert one.best_loss_ == one.loss_curve_[-1]
    assert one.score(X[TEST], Y[TEST]) > 0.4


def test_one_sweep_of_the_command_line_changes_the_model(altmin, tmp_path):
    np.savez(tmp_path / "d.npz", x=X[:400], y=Y[:400])
    np.savez(tmp_path / "t.npz", x=X[TEST], y=Y[TEST])
    words = '[data]\ntrain = "d.npz"\n[network]\nkind = "classifier"\nactivation = "tanh"\n[training]\nmax_sweeps = 1\n'
    (tmp_path / "p.toml").write_text(words + "[output]\nreport = false\n")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert json.loads(altmin("evaluate", "run", "t.npz", "--json").out)["accuracy"] > 0.4


def test_warm_starts_of_one_sweep_go_on():
    warm = AltMinClassifier(30, max_sweeps=1, random_state=0, warm_start=True)
    scores = [warm.fit(X[:400], Y[:400]).score(X[TEST], Y[TEST]) for _ in range(4)]
    assert scores[-1] > 0.75
    assert scores[-1] > scores[0] + 0.05


@pytest.mark.slow
def test_a_row_that_is_far_off_does_not_end_a_stream():
    regressor = AltMinRegressor(10, random_state=0).partial_fit(X[:50], X[:50, 20])
    regressor.partial_fit(X[50:51], np.array([1000.0]))
    for start in range(51, 81, 5):
        regressor.partial_fit(X[start : start + 5], X[start : start + 5, 20])
    assert np.isfinite(regressor.predict(X)).all()


def test_a_window_of_the_last_rows_is_remembered():
    """What was seen of all samples counts for the ridge, and weights are relative to those of the window."""
    stream = AltMinClassifier(5, random_state=0)
    stream.partial_fit(X[:10], Y[:10], classes=np.arange(10), sample_weight=np.full(10, 3.0))
    stream.partial_fit(X[10:12], Y[10:12])
    stream = pickle.loads(pickle.dumps(stream))
    assert stream._streamed_rows == 12
    order = [10, 11, *range(10)]  # the newest first
    np.testing.assert_allclose(stream._recent["x"], X[order])
    assert stream._recent["y"].tolist() == Y[order].tolist()
    assert stream._recent["sample_weight"].tolist() == [1.0] * 2 + [3.0] * 10
    stream.partial_fit(X[12:400], Y[12:400])
    np.testing.assert_allclose(stream._recent["x"], X[400 - WINDOW : 400][::-1])
    assert "sample_weight" not in stream._recent
    with pytest.raises(ValueError, match="not all among the classes"):
        stream.partial_fit(X[:1], [11])
    assert stream._streamed_rows == 400


def test_damping_of_a_stream_falls_from_call_to_call():
    """By the loss of its first rows: each call began anew, so damping never fell, however well rows were known."""
    stream = AltMinRegressor(20, random_state=0)
    lefts, firsts = [], []
    for _ in range(6):
        stream.partial_fit(X[:300], X[:300] @ np.linspace(-1, 1, 64))
        state = stream._streamed.kfac_state
        lefts.append(state.left)
        firsts.append(state.first_loss)
    assert len(set(firsts)) == 1
    assert lefts[-1] < 0.2 < lefts[0]


@pytest.mark.slow
@pytest.mark.parametrize("further", slow_but(["partial_fit"], ["warm_start", "partial_fit"]))
def test_more_training_is_damped_by_what_the_loss_was_at_first(further):
    """Not by what it is with trained weights, of which all seemed to be left: decay in full undid what was learnt."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 5))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]
    y = (y - y.mean()) / y.std() + 0.1 * rng.normal(size=1000)
    model = AltMinRegressor(random_state=0, max_sweeps=40, warm_start=True).fit(x, y)
    before = 1 - model.score(x, y)
    assert before < 0.05
    for _ in range(6):
        if further == "warm_start":
            model.set_params(max_sweeps=5).fit(x, y)
        else:
            model.partial_fit(x, y)
        assert 1 - model.score(x, y) < 1.5 * before
    if further == "warm_start":
        assert 1 - model.score(x, y) < 0.99 * before
    else:
        assert model._streamed_rows == 7000
        assert model._streamed.kfac_state.left < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, 14, 25])
def test_a_bad_step_of_a_stream_is_in_no_model(at, monkeypatch):
    """From the eighth step on nobody looked at the last one, which was half of the model then."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 5))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]
    found = KroneckerPreconditioner.step_coefficients
    calls = count(1)

    def far_too_long(self, *given):
        return found(self, *given) * (1000 if next(calls) == at else 1)

    monkeypatch.setattr(KroneckerPreconditioner, "step_coefficients", far_too_long)
    model, scores = AltMinRegressor(20, random_state=0), []
    for start in range(0, 1200, 40):
        model.partial_fit(x[start : start + 40], y[start : start + 40])
        scores.append(model.score(x, y))
    assert next(calls) > at
    assert min(scores[at - 2 :]) > scores[at - 3] - 0.3
    assert scores[-1] > 0.8
