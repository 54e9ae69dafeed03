"""Where a minimum is known it is found, by however many rows: from 600 on a step looks at a part of its group, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from altmin_dask import AltMinClassifier, AltMinRegressor

HOW: dict[str, Any] = {
    "hidden_layer_sizes": (),
    "ridge": 1.0,
    "max_sweeps": 150,
    "tol": 0,
    "n_iter_no_change": 150,
    "standardize": "none",
    "random_state": 0,
}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2000, 3))
Y = X @ [1, 2, 3] + 0.3 * RNG.normal(size=2000)
LABELS = (Y > 0).astype(int) + (Y > 3)
ROWS = [600, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (599, 1000, 1999))]


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS)
def test_ridge_regression(rows):
    ones = np.c_[X[:rows], np.ones(rows)]
    exact = np.linalg.solve(ones.T @ ones + 2 * np.eye(4), ones.T @ Y[:rows])
    fitted = AltMinRegressor(**HOW).fit(X[:rows], Y[:rows])
    np.testing.assert_allclose(np.r_[fitted.coefs_[0].ravel(), fitted.intercepts_[0]], exact, atol=1e-7)


def optimum(rows: int, weights: np.ndarray) -> np.ndarray:
    """Of softmax regression with its ridge, by L-BFGS: probabilities."""
    ones, hot = np.c_[X[:rows], np.ones(rows)], np.eye(3)[LABELS[:rows]]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(4, 3)
        z = ones @ w
        logs = z - logsumexp(z, axis=1, keepdims=True)
        gradient = ones.T @ (weights[:, None] * (np.exp(logs) - hot)) + 2 * w
        return float(-(weights[:, None] * hot * logs).sum() + (w**2).sum()), gradient.ravel()

    found = minimize(loss, np.zeros(12), jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-8})
    z = ones @ found.x.reshape(4, 3)
    return np.exp(z - logsumexp(z, axis=1, keepdims=True))


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("weights", [pytest.param("ones", marks=pytest.mark.slow), "a hundred on five rows"])
def test_softmax_regression(rows, weights):
    own = np.ones(rows)
    if weights != "ones":
        own[:5] = 100.0
    fitted = AltMinClassifier(**HOW).fit(X[:rows], LABELS[:rows], sample_weight=own)
    np.testing.assert_allclose(fitted.predict_proba(X[:rows]), optimum(rows, own), atol=1e-5)


@pytest.mark.slow
def test_weights_are_rows_that_are_there_so_often():
    counts = RNG.integers(1, 4, 700)
    weighted = AltMinClassifier(**HOW).fit(X[:700], LABELS[:700], sample_weight=counts.astype(float))
    often = np.repeat(np.arange(700), counts)
    repeated = AltMinClassifier(**HOW).fit(X[often], LABELS[often])
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)


@pytest.mark.slow
def test_a_hidden_layer_ends_where_nothing_is_to_be_gained():
    """The gradient of its objective vanishes."""
    how = {**HOW, "hidden_layer_sizes": (8,), "activation": "tanh", "weight_decay": 0.0, "max_sweeps": 1000}
    fitted = AltMinClassifier(**{**how, "n_iter_no_change": 1000}).fit(X[:700], LABELS[:700])
    assert fitted.history_[-1]["gradient_norm"] < 1e-6
