"""A fit that its limit ended while the loss was falling is told of, and no other one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import scale

from altmin_dask import AltMinAutoencoder, AltMinClassifier
from altmin_dask.errors import AltMinWarning
from altmin_dask.estimators.convergence import FALLING, NotConvergedWarning, gained, warn_if_falling
from altmin_dask.training.ending import nothing_improved, seconds_are_spent, sweeps_are_done
from altmin_dask.training.record import Record

X, Y = load_wine(return_X_y=True)
SCALED = scale(X)


def history(*losses: float, validation: bool = False) -> list[Record]:
    named = "validation_loss" if validation else "regularized_loss"
    return [Record(sweep=float(sweep), **{named: loss}) for sweep, loss in enumerate(losses)]


@pytest.fixture
def told():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def test_a_limit_that_came_too_early():
    with pytest.warns(
        ConvergenceWarning, match=r"AltMinClassifier has not converged: .* give a larger max_sweeps"
    ):
        AltMinClassifier(10, max_sweeps=5, random_state=0).fit(SCALED, Y)


def test_raw_samples_that_nobody_standardizes():
    with pytest.warns(AltMinWarning, match=r"of 30 sweeps, .* give a larger max_sweeps$"):
        AltMinClassifier(standardize="none", random_state=1).fit(X, Y)


def test_fits_by_default_of_raw_samples(told):
    AltMinClassifier(20, random_state=0).fit(*load_breast_cancer(return_X_y=True))
    assert not [each for each in told if issubclass(each.category, ConvergenceWarning)]


def test_fits_by_default_of_what_is_standardized(told):
    AltMinClassifier(20, random_state=0).fit(SCALED, Y)
    assert not [each for each in told if issubclass(each.category, ConvergenceWarning)]


def test_who_goes_on_by_calls_is_not_told(told):
    classifier = AltMinClassifier(10, random_state=0)
    for _ in range(2):
        classifier.partial_fit(SCALED, Y, classes=np.unique(Y))
    warm = AltMinClassifier(10, max_sweeps=2, warm_start=True, random_state=0)
    for _ in range(2):
        warm.fit(SCALED, Y)
    assert not told


@pytest.mark.parametrize("ending", [None, nothing_improved(10), seconds_are_spent(2)])
def test_other_ends_are_no_matter(ending, told):
    warn_if_falling("Any", ending, history(8, 4, 2, 1))
    assert not told
    warn_if_falling("Any", sweeps_are_done(3), history(8, 4, 2, 1))
    assert [each.category for each in told] == [NotConvergedWarning]


@pytest.mark.parametrize(
    ("losses", "share"),
    [
        ((8, 4, 2, 1, 0.5), 0.5),
        ((8, 4, 1, 1.2, 1), 0.0),  # as good as before, after it was worse
        ((1, 2, 3, 4), 0.0),
        ((2, 1), 0.2),  # a single sweep: from 1.25, which lies in between
        ((0, 0), 0.0),
        ((1,), 0.0),
    ],
)
def test_what_is_gained_in_the_last_quarter(losses, share):
    assert gained(history(*losses)) == pytest.approx(share)
    assert gained(history(*losses, validation=True)) == pytest.approx(share)
    assert (share > FALLING) == (share >= 0.2)


def test_next_to_nothing_may_go_on_falling():
    """As the loss of targets without noise does."""
    assert gained(history(1.0, 0.02, 0.009, 0.004, 0.001)) == 0
    assert gained(history(1.0, 0.2, 0.09, 0.04, 0.02)) > FALLING


def test_warnings_are_at_the_line_that_led_to_them():
    """Whatever calls back in between."""
    x = load_breast_cancer().data
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        AltMinClassifier(standardize="none", random_state=1).fit(X, Y)
        AltMinAutoencoder(2, max_sweeps=1, random_state=0).fit(x)
        cross_val_score(AltMinAutoencoder(2, max_sweeps=1, random_state=0), x, cv=2)
    own = [(each.category, each.filename) for each in found if issubclass(each.category, AltMinWarning)]
    assert own.count((AltMinWarning, __file__)) == 3
    assert own.count((NotConvergedWarning, __file__)) == 4
    assert len(own) == 7
