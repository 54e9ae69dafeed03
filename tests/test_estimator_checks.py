"""scikit-learn's own checks of estimators, all of them; what cannot pass is named with its reason."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from altmin_dask import (
    AltMinAutoencoder,
    AltMinClassifier,
    AltMinRecurrentClassifier,
    AltMinRecurrentRegressor,
    AltMinRegressor,
)

# quick: every step of tiny data is mostly Dask's
ESTIMATORS = [
    AltMinAutoencoder(4, max_sweeps=8, workers=1),
    AltMinClassifier(10, max_sweeps=12, workers=1),
    AltMinRegressor(10, max_sweeps=12, workers=1),
    # sequences of one step are samples as others are
    AltMinRecurrentClassifier(10, steps=1, max_sweeps=12, workers=1),
    AltMinRecurrentRegressor(10, steps=1, max_sweeps=12, workers=1),
]
WEIGHTS = (
    "a weight of 2 is the sample twice in the loss, its gradient and curvature (test_weights.py), but the noise by "
    "which curvature is sampled is drawn by row, so after some steps weights agree to a few per cent only"
)


def expected_failures(estimator: Any) -> dict[str, str]:
    if isinstance(estimator, AltMinAutoencoder):
        return {}
    if isinstance(estimator, AltMinRecurrentClassifier | AltMinRecurrentRegressor):
        return {"check_supervised_y_2d": "targets of two dimensions are one for each step, and no mistake"}
    return {"check_sample_weight_equivalence_on_dense_data": WEIGHTS}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
