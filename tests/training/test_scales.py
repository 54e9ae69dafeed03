"""Columns that are far larger than others are told of, from arrays and from the command line, and no others."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.preprocessing import StandardScaler

from altmin_dask import AltMinClassifier, AltMinRecurrentClassifier, AltMinRegressor
from altmin_dask.errors import AltMinWarning
from altmin_dask.training.scales import far_off

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("load", "raw"),
    [
        (load_wine, (12, 314, 0.228)),
        (load_breast_cancer, (23, 569, 0.00616)),
        (load_iris, None),
        (load_digits, None),
        (load_diabetes, None),
        (lambda **k: load_diabetes(scaled=False, **k), (4, 34.6, 0.522)),
    ],
)
def test_the_rule_on_tables_as_they_are(load, raw):
    x = load(return_X_y=True)[0]
    found = far_off(x)
    assert found == (None if raw is None else pytest.approx(raw, rel=0.01))
    assert far_off(StandardScaler().fit_transform(x)) is None


def test_rare_values_and_constants_are_no_scale():
    rare = (RNG.random((1000, 40)) < 0.01).astype(float)
    assert far_off(np.column_stack([RNG.normal(size=1000), rare, np.full(1000, 7.0)])) is None
    assert far_off(np.column_stack([100 * RNG.normal(size=1000), rare])) is not None
    assert far_off(np.ones((100, 3))) is None
    assert far_off(RNG.normal(size=(1000, 2)) * [1, 100]) is not None
    assert far_off(RNG.normal(size=(1000, 4)) * [1, 100, 100, 100]) is not None  # the one may be what matters
    assert far_off(RNG.normal(size=(10, 3)) * [1, 1, 1e4]) is None  # of too few rows


def test_sequences_have_the_columns_of_a_step():
    """What fills them up is none of theirs."""
    x = RNG.normal(size=(60, 5, 3))
    lengths = RNG.integers(1, 6, 60)
    x[np.arange(5) >= lengths[:, None]] = 1e3
    quick = {"hidden_layer_sizes": 5, "max_sweeps": 1, "random_state": 0}
    y = np.arange(60) % 2
    AltMinRecurrentClassifier(**quick).fit(x, y, lengths=lengths)
    with pytest.warns(AltMinWarning, match="column 2 of x"):
        AltMinRecurrentClassifier(**quick).fit(x * [1, 1, 50], y, lengths=lengths)


def test_estimators_and_the_command_line_tell_of_it(altmin, tmp_path):
    x, y = load_wine(return_X_y=True)
    quick = {"hidden_layer_sizes": 5, "max_sweeps": 1, "random_state": 0}
    with pytest.warns(AltMinWarning, match=r"column 12 of x .* deviation of 314, and others 0\.228"):
        AltMinClassifier(**quick).fit(x, y)
    stream = AltMinRegressor(5, random_state=0)
    with pytest.warns(AltMinWarning, match="a StandardScaler in front"):
        stream.partial_fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        stream.partial_fit(x, y)
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(12)] + ["proline"]).assign(y=y)
    frame.to_csv(tmp_path / "wine.csv", index=False)
    pipeline = tmp_path / "p.toml"
    words = '[data]\ntrain = "wine.csv"\n{}\n[network]\nkind = "classifier"\n[training]\nmax_sweeps = 1\n'
    pipeline.write_text(words.format("") + "[output]\nreport = false\n")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        told = altmin("train", pipeline, "--run", "run")
    assert told.code == 0
    assert "altmin: warning: column 'proline' of x" in told.err
    assert "data.standardize = true" in told.err
    pipeline.write_text(words.format("standardize = true") + "[output]\nreport = false\n")
    assert altmin("train", pipeline, "--run", "other").code == 0
