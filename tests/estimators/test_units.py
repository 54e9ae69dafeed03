"""Columns in other units than in training are told by name, or number, with what they are and what they were."""

from __future__ import annotations

import re
import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from command import write_pipeline
from places import done
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from altmin_dask import AltMinClassifier, AltMinRecurrentClassifier
from altmin_dask.errors import AltMinWarning
from altmin_dask.storage.model import Model
from altmin_dask.storage.units import Units

RNG = np.random.default_rng(0)
SHORT = {"max_sweeps": 3, "random_state": 0}
HEIGHT = r"column 'height': mean 1[67]\d, deviation \d\d?\.?\d*, where training had 1\.\d+, deviation 0\.\d+"


def people(rows=200):
    columns = {"height": RNG.normal(1.7, 0.1, rows), "weight": RNG.normal(70, 9, rows)}
    frame = pd.DataFrame(
        columns | {"age": RNG.integers(18, 80, rows), "town": RNG.choice(["Ulm", "Bonn"], rows)}
    )
    return frame.assign(y=(frame.weight / frame.height**2 > 24).astype(int))


def told(action, *words):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AltMinWarning)
        action(*words)
    return [message for each in caught if "far from those in training" in (message := str(each.message))]


@pytest.mark.filterwarnings("always:.* has numbers far from")
@pytest.mark.parametrize("data", [{}, {"standardize": True}, {"scale": 4}])
def test_columns_of_files_are_told_by_name(tmp_path, altmin, data):
    table = people()
    table.to_csv(tmp_path / "m.csv", index=False)
    table.assign(height=100 * table.height, weight=table.weight / 1000).to_csv(
        tmp_path / "cm.csv", index=False
    )
    write_pipeline(
        tmp_path / "p.toml", tmp_path / "m.csv", kind="classifier", data=data, training={"max_sweeps": 2}
    )
    run = tmp_path / "run"
    done(altmin("train", tmp_path / "p.toml", "--run", run))
    expected = f"{HEIGHT}; column 'weight': mean 0.0[67]\\d*, deviation 0.00\\d+, where training had [67]"
    for words in (
        ["predict", run, tmp_path / "cm.csv", tmp_path / "o.csv"],
        ["evaluate", run, tmp_path / "cm.csv"],
    ):
        err = " ".join(done(altmin(*words)).err.split())
        assert err.count("far from those in training") == 1
        assert re.search(expected, err)
    assert "far from" not in done(altmin("evaluate", run, tmp_path / "m.csv")).err
    model = AltMinClassifier.load(run)
    assert len(told(model.predict, table.drop(columns="y"))) == 0
    (message,) = told(model.predict, table.assign(height=table.height * 100))
    assert "column 'height': mean 1" in message
    assert "town" not in message


def test_columns_of_arrays_are_told_by_number():
    x = people()[["height", "weight", "age"]].to_numpy()
    y = np.arange(len(x)) % 2
    model = AltMinClassifier(**SHORT).fit(x, y)
    assert told(model.predict, x) == []
    for rows in (x, x[:1]):
        (message,) = told(model.predict_proba, rows * [1, 1, 1000])
        assert (
            "X has numbers far from those in training, as in another unit: column 2 (counted from 0): mean"
            in message
        )
        (message,) = told(model.predict, rows * 1e5)
        assert message.count("where training had") == 3
    assert told(model.predict, da.from_array(x)) == []


def test_how_many_more_columns_there_are_is_told():
    x = RNG.normal(5, 1, (100, 8))
    model = AltMinClassifier(**SHORT).fit(x, np.arange(100) % 2)
    (message,) = told(model.predict, x * 100)
    assert message.count("where training had") == 3
    assert "; and 5 more columns; give them" in message


def test_it_is_saved_and_old_models_say_nothing(tmp_path):
    x = people()[["height", "weight"]].to_numpy()
    model = AltMinClassifier(**SHORT).fit(x, np.arange(len(x)) % 2)
    model.save(tmp_path / "saved")
    again = AltMinClassifier.load(tmp_path / "saved")
    assert told(again.predict, x * 100) == told(model.predict, x * 100) != []
    assert Units.from_tensors({}, 2) is None
    assert Units.from_tensors(Model.load(tmp_path / "saved").units.tensors(), 2) is not None


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits])
def test_samples_by_class_or_alone_are_no_other_units(load):
    """What is rare, or all alike, is in the same unit."""
    x, y = load(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(x))
    train, test = np.array_split(order, 2)
    units = Units.of(x[train])
    for rows in (*(x[test][y[test] == label] for label in set(y)), *x[test][:, None], x[test]):
        assert told(units.warn_of_others, rows, "X", 1.0, None) == []


def test_later_dates_are_no_other_unit(tmp_path, altmin):
    """They go on: a table of January was told that March is in another unit."""
    table = people(90).assign(day=pd.date_range("2024-01-01", periods=90).strftime("%Y-%m-%d"))
    table[:40].to_csv(tmp_path / "january.csv", index=False)
    later = table[-30:].assign(day=pd.date_range("2031-01-01", periods=30).strftime("%Y-%m-%d"))
    later.to_csv(tmp_path / "later.csv", index=False)
    write_pipeline(
        tmp_path / "p.toml", tmp_path / "january.csv", kind="classifier", training={"max_sweeps": 2}
    )
    done(altmin("train", tmp_path / "p.toml", "--run", tmp_path / "run"))
    assert "far from" not in done(altmin("evaluate", tmp_path / "run", tmp_path / "later.csv")).err
    model = AltMinClassifier.load(tmp_path / "run")
    assert told(model.predict, later.drop(columns="y")) == []
    (message,) = told(model.predict, later.drop(columns="y").assign(height=100 * later.height))
    assert "column 'height'" in message
    assert "day" not in message


def test_rare_numbers_of_single_rows_that_are_wide_are_no_other_unit():
    """Some of 12,000 numbers are always 30 deviations off, as far as a few rows tell these."""
    x = RNG.lognormal(size=(300, 12_000))
    units = Units.of(x[:80])
    for row in x[80:]:
        assert told(units.warn_of_others, row[None], "X", 1.0, None) == []
    assert told(units.warn_of_others, 1000 * x[80:81], "X", 1.0, None)


def test_columns_of_sequences_are_told_at_all_steps():
    x = RNG.normal(size=(60, 5, 2)) + 4
    model = AltMinRecurrentClassifier(4, **SHORT).fit(x, RNG.integers(0, 2, 60))
    assert told(model.predict, x) == told(model.predict, x[:1]) == []
    (message,) = told(model.predict, x * [1, 1000])
    assert "column 1 (counted from 0): mean 4" in message
    assert "column 0" not in message


def test_of_columns_that_hardly_vary_nothing_is_known(tmp_path):
    """And what is kept are numbers, so that models that are the same are equal."""
    x = np.c_[RNG.normal(size=80), np.ones(80)]
    model = AltMinClassifier(4, **SHORT).fit(x, RNG.integers(0, 2, 80))
    kept = model.model_.units.tensors()
    assert all(np.isfinite(values).all() and values[1] == 0 for values in kept.values())
    assert told(model.predict, x + np.array([0, 1e6])) == []
    assert len(told(model.predict, x + np.array([1e6, 0]))) == 1
