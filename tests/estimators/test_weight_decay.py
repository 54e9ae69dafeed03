"""What `weight_decay` does for tables with noise, and that it leaves linear models alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.metrics import log_loss, r2_score

from altmin_dask import AltMinClassifier, AltMinRegressor

ROWS, TEST = 2000, 4000


@cache
def table():
    """Samples, and a function of them that is no sum of functions of a column each."""
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS + TEST, 12))
    f = np.tanh(x @ random.normal(size=(12, 8))) @ random.normal(size=8) + x[:, 0] * x[:, 1]
    return x, f / f.std()


def without(estimator, **parameters):
    return estimator((64, 32), random_state=0, weight_decay=0.0, **parameters)


@pytest.mark.slow
def test_probabilities_of_noisy_labels_are_better():
    """By what is lost beside the true probabilities, over three draws of labels."""
    x, f = table()
    chance, new, lost = 1 / (1 + np.exp(-2 * f)), slice(ROWS, None), np.zeros(2)
    for seed in (1, 2, 3):
        y = (np.random.default_rng(seed).random(len(x)) < chance).astype(int)
        best = log_loss(y[new], np.stack([1 - chance, chance], 1)[new])
        for number, each in enumerate(
            (AltMinClassifier((64, 32), random_state=0), without(AltMinClassifier))
        ):
            lost[number] += log_loss(y[new], each.fit(x[:ROWS], y[:ROWS]).predict_proba(x[new])) - best
    assert lost[0] < 0.75 * lost[1]


@pytest.mark.slow
def test_noisy_targets_are_fitted_less():
    x, f = table()
    y = f + np.random.default_rng(2).normal(size=len(x))
    new = slice(ROWS, None)
    scores = [
        r2_score(f[new], each.fit(x[:ROWS], y[:ROWS]).predict(x[new]))
        for each in (AltMinRegressor((64, 32), random_state=0), without(AltMinRegressor))
    ]
    assert 1 - scores[0] < 0.75 * (1 - scores[1])


@pytest.mark.slow
def test_targets_without_noise_are_learnt_more_exactly_as_the_loss_falls(monkeypatch):
    """Decay and damping that stay what they are leave more than half as much again, also less of it (row 87)."""
    x, f = table()
    new = slice(ROWS, None)

    def error(**parameters):
        model = AltMinRegressor((64, 32), random_state=0, **parameters).fit(x[:ROWS], f[:ROWS])
        return 1 - r2_score(f[new], model.predict(x[new]))

    falling = error()
    monkeypatch.setattr("altmin_dask.training.defaults.POWERS_OF_TARGETS", (0.0, 0.0))
    assert falling < 0.65 * min(error(), error(weight_decay=0.2))


@pytest.mark.parametrize("estimator", [AltMinClassifier, AltMinRegressor])
def test_linear_models_do_not_decay(estimator):
    x, f = table()
    y = f if estimator is AltMinRegressor else (f > 0).astype(int)
    fits = [
        estimator((), random_state=0, max_sweeps=5, weight_decay=decay).fit(x[:500], y[:500])
        for decay in (0.0, 0.5)
    ]
    for name in ("coefs_", "intercepts_"):
        assert np.array_equal(getattr(fits[0], name)[0], getattr(fits[1], name)[0])
