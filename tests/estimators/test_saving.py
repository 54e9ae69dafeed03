"""Saved estimators have the parameters that they were given, or say which they cannot keep."""

from __future__ import annotations

import json
from copy import copy

import numpy as np
import pytest

from altmin_dask import AltMinClassifier
from altmin_dask.errors import AltMinWarning

X = np.random.default_rng(0).normal(size=(60, 4))
LABELS = (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def fitted():
    return AltMinClassifier(2, max_sweeps=1, random_state=0, workers=1).fit(X, LABELS)


def back(fitted, folder, **parameters):
    """All parameters, of what is saved with some and loaded."""
    copy(fitted).set_params(**parameters).save(folder)
    return AltMinClassifier.load(folder).get_params()


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("class_weight", {0: 1.0, 1: 5.0}, {0: 1.0, 1: 5.0}),
        ("class_weight", {np.int64(0): 1.0, np.int64(1): np.float32(0.5)}, {0: 1.0, 1: 0.5}),
        ("class_weight", {False: 1.0, True: 2.0}, {False: 1.0, True: 2.0}),
        ("class_weight", {"pairs": 1.0}, {"pairs": 1.0}),
        ("class_weight", {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        ("hidden_layer_sizes", (np.int64(64), 3), (64, 3)),
        ("hidden_layer_sizes", np.array([4, 2]), (4, 2)),
        ("layers", ({"kind": "dense", "units": np.int32(3)},), ({"kind": "dense", "units": 3},)),
        ("settings", {"solver.output_damping": np.float64(0.01)}, {"solver.output_damping": 0.01}),
        ("tol", np.float64(0.1), 0.1),
    ],
)
def test_parameters_come_back_as_they_were(fitted, name, given, wanted, tmp_path):
    """Factors of classes came back as none, or by text, and widths of NumPy as none, without a word."""
    assert repr(back(fitted, tmp_path / "s", **{name: given})[name]) == repr(wanted)


def test_what_cannot_be_kept_is_told(fitted, tmp_path):
    with pytest.warns(AltMinWarning, match=r"does not say random_state = RandomState.* set it again there"):
        assert back(fitted, tmp_path / "s", random_state=np.random.RandomState(0))["random_state"] is None
    with pytest.warns(AltMinWarning, match=r"does not say hidden_layer_sizes = \{2\}"):
        assert back(fitted, tmp_path / "t", hidden_layer_sizes={2})["hidden_layer_sizes"] == (100,)


def test_what_an_earlier_version_has_saved_is_read(fitted, tmp_path):
    fitted.save(tmp_path / "s")
    file = tmp_path / "s" / "estimator.json"
    content = json.loads(file.read_text())
    content["parameters"]["class_weight"] = {"0": 1.0, "1": 5.0}
    file.write_text(json.dumps(content))
    found = AltMinClassifier.load(tmp_path / "s").get_params()
    assert found["class_weight"] == {"0": 1.0, "1": 5.0}
    assert found["hidden_layer_sizes"] == 2
