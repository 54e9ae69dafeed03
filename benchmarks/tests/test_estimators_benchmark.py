"""`benchmarks/estimators.py`: who takes part, and what its errors and counts mean."""

from __future__ import annotations

import numpy as np
import pytest
from estimators import classifiers, regressors, scores, standard_error, standardised
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor


def test_converged_networks_standardised_targets_and_linear_models_take_part():
    names = {name: make(3) for name, make in regressors().items()}
    for way in ("AltMinRegressor", "MLPRegressor", "MLPRegressor, Adam to its end", "MLPRegressor, L-BFGS"):
        plain, scaled = names[way], names[f"{way}, standardised y"]
        assert isinstance(scaled, TransformedTargetRegressor)
        assert scaled.regressor.get_params() == plain.get_params()
        assert plain.random_state == 3
    assert {"LinearRegression", "RidgeCV"} < names.keys()
    assert {"LogisticRegression", "MLPClassifier, Adam, early stopping"} < classifiers().keys()


def test_errors_of_folds_that_share_training_data_are_corrected():
    values = [0.1, 0.3, 0.2, 0.6, 0.3]
    variance = sum((value - 0.3) ** 2 for value in values) / 4
    assert standard_error(values, 5) == pytest.approx((variance * (1 / 5 + 1 / 4)) ** 0.5)


def test_fits_that_do_not_converge_are_counted_and_linear_ones_are_right():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    y = 100 + x @ [3.0, -2.0]
    short = scores(
        lambda seed: MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, random_state=seed), x, y, 3, 2, True
    )
    assert short["not_converged"] == len(short["scores"]) == 6
    exact = scores(standardised(lambda seed: LinearRegression()), x, y, 3, 2, True)
    assert exact["scores"] == pytest.approx([1.0] * 6)
    assert exact["not_converged"] == 0
