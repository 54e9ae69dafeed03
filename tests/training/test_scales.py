"""Columns that are far off others, by the rule; and who is told of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.preprocessing import StandardScaler

from altmin_dask import AltMinAutoencoder, AltMinRecurrentRegressor, AltMinRegressor, RunFolder, train
from altmin_dask.errors import AltMinWarning
from altmin_dask.training.scales import Scales

RNG = np.random.default_rng(0)


def far_off(x: np.ndarray) -> int | None:
    return Scales.of(x).far_off


@pytest.mark.parametrize(
    ("load", "raw"),
    [
        (load_wine, (12, 314, 0.228)),
        (load_breast_cancer, (23, 569, 0.00616)),
        (load_iris, (0, 1.76, 0.434)),
        (load_digits, None),
        (load_diabetes, None),
        (lambda **k: load_diabetes(scaled=False, **k), (4, 34.6, 0.522)),
    ],
)
def test_the_rule_on_tables_as_they_are(load, raw):
    x = load(return_X_y=True)[0]
    scales = Scales.of(x)
    found = None if scales.far_off is None else (scales.far_off, scales.deviation.max(), scales.small)
    assert found == (None if raw is None else pytest.approx(raw, rel=0.01))
    assert far_off(StandardScaler().fit_transform(x)) is None


def test_the_order_of_rows_is_none_of_it():
    x = load_wine().data
    one, other = Scales.of(x), Scales.of(x[RNG.permutation(len(x))])
    for name in ("mean", "size", "deviation", "varies"):
        assert (getattr(one, name) == getattr(other, name)).all()


def test_numbers_far_from_0_are_far_off():
    x = RNG.normal(size=(500, 4))
    assert far_off(x + np.array([0, 0, 3, 0])) is None
    assert far_off(x + np.array([0, 0, 5, 0])) == 2
    assert far_off(x + np.array([0, 0, -20, 0])) == 2
    assert far_off(x + 100) is not None
    assert far_off(x[:, :1] + 100) == 0


def test_rare_values_and_constants_are_no_scale():
    rare = (RNG.random((1000, 40)) < 0.01).astype(float)
    assert far_off(np.column_stack([RNG.normal(size=1000), rare, np.full(1000, 7.0)])) is None
    assert far_off(np.column_stack([100 * RNG.normal(size=1000), rare])) is not None
    assert far_off(np.ones((100, 3))) is None
    near, plain = 5 + RNG.normal(size=1000), RNG.normal(size=1000)
    # a constant hides no other column
    assert far_off(np.column_stack([near, plain, np.full(1000, 7.0)])) == 0
    assert far_off(np.column_stack([plain, plain, np.full(1000, 1e6)])) == 2
    assert far_off(RNG.normal(size=(1000, 2)) * [1, 100]) is not None
    assert far_off(RNG.normal(size=(1000, 4)) * [1, 100, 100, 100]) is not None  # the one may be what matters


QUICK = {"hidden_layer_sizes": 5, "max_sweeps": 1, "random_state": 0}


def test_of_too_few_rows_nothing_is_known():
    AltMinAutoencoder(**QUICK).fit(RNG.normal(size=(10, 3)) * [1, 1, 1e4])


def test_a_stream_is_told_of_once():
    x = RNG.normal(size=(60, 3)) * [1, 1, 50]
    stream = AltMinRegressor(5, random_state=0)
    with pytest.warns(AltMinWarning, match="column 2 of x .* a StandardScaler in front"):
        stream.partial_fit(x, x[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.partial_fit(x, x[:, 0])


def test_sequences_have_the_columns_of_a_step():
    """What fills them up is none of theirs."""
    x = RNG.normal(size=(60, 5, 3))
    lengths = RNG.integers(1, 6, 60)
    x[np.arange(5) >= lengths[:, None]] = 1e3
    y = RNG.normal(size=60)
    quick = {name: value for name, value in QUICK.items() if name != "max_sweeps"}
    AltMinRecurrentRegressor(**quick).partial_fit(x, y, lengths=lengths)
    with pytest.warns(AltMinWarning, match="column 2 of x"):
        AltMinRecurrentRegressor(**quick).partial_fit(x * [1, 1, 50], y, lengths=lengths)


def test_a_plain_border_of_pictures_is_no_other_unit(make_store, pipeline, tmp_path):
    """Its pixels differ more, where some pictures have another colour there, and were said to want another scale."""
    border = np.zeros((200, 6, 6))
    border[:, 0] = RNG.random((200, 1)) > 0.5
    pictures = border + 0.02 * RNG.random((200, 6, 6))
    network = {"kind": "classifier", "activation": "relu"}
    store = make_store(pictures, np.arange(200) % 2)
    train(
        pipeline(store.path, network=network, training={"max_sweeps": 1.0}),
        RunFolder(tmp_path / "run"),
        log=lambda line: None,
    )
    sensors = make_store(pictures * np.r_[1, 100, np.ones(4)] - 0.5, np.arange(200) % 2)
    with pytest.warns(AltMinWarning, match="standardize them"):  # which pixels are not, as they are negative
        train(
            pipeline(sensors.path, network=network, training={"max_sweeps": 1.0}),
            RunFolder(tmp_path / "other"),
            log=lambda line: None,
        )
