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
    StandardScaler,
)

# quick: every step of tiny data is mostly Dask's
CLASSIFIER = AltMinClassifier(10, max_sweeps=9, ridge=0.005, workers=1)
OTHERS = [
    AltMinAutoencoder(4, max_sweeps=8, workers=1),
    AltMinRegressor(10, max_sweeps=12, ridge=0.005, workers=1),
    # sequences of one step are samples as others are
    AltMinRecurrentClassifier(10, steps=1, max_sweeps=12, workers=1),
    AltMinRecurrentRegressor(10, steps=1, max_sweeps=12, workers=1),
    StandardScaler(),
]
WEIGHTS = (
    "a weight of 2 is the sample twice in the loss, its gradient and curvature (test_weights.py), but the noise by "
    "which curvature is sampled is drawn by row, so after some steps weights agree to a few per cent only"
)


def expected_failures(estimator: Any) -> dict[str, str]:
    if isinstance(estimator, StandardScaler | AltMinAutoencoder):
        return {}
    found = dict.fromkeys(
        (f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")), WEIGHTS
    )
    if isinstance(estimator, AltMinRecurrentClassifier | AltMinRecurrentRegressor):
        found["check_supervised_y_2d"] = "targets of two dimensions are one for each step, and no mistake"
    return found


LONG = (  # half of them take three quarters of the time, or ask what others ask, in another form
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_class_weight_classifiers",
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_estimators_dtypes",
    "check_f_contiguous_array_estimator",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_pipeline_consistency",
    "check_readonly_memmap_input",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_pandas_series",
)


def checks(estimators: list[Any], *, long: bool) -> pytest.MarkDecorator:
    """Those that scikit-learn has for the estimators, either the long ones or the others."""
    mark = parametrize_with_checks(estimators, expected_failed_checks=expected_failures).mark
    names, cases = mark.args
    chosen = [each for each in cases if (getattr(each, "values", each)[1].func.__name__ in LONG) == long]
    return pytest.mark.parametrize(names, chosen, **mark.kwargs)


skips = pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")


@skips
@checks([CLASSIFIER], long=False)
def test_scikit_learn_checks_of_the_classifier(estimator, check):
    check(estimator)


@skips
@pytest.mark.slow
@checks([CLASSIFIER], long=True)
def test_scikit_learn_checks_of_the_classifier_that_take_long(estimator, check):
    check(estimator)


@skips
@pytest.mark.slow
@parametrize_with_checks(OTHERS, expected_failed_checks=expected_failures)
def test_scikit_learn_checks_of_the_others(estimator, check):
    check(estimator)
