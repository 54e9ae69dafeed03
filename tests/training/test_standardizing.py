"""Samples in any units train as well as standardized ones, and nobody has to know what was done to them."""

from __future__ import annotations

import json
import warnings
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from choices import slow_but
from command import foreign, write_pipeline
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler

from altmin_dask import (
    AltMinAutoencoder,
    AltMinClassifier,
    AltMinRecurrentClassifier,
    AltMinRecurrentRegressor,
    AltMinRegressor,
    RunFolder,
    train,
    training_pipeline,
)
from altmin_dask.errors import AltMinWarning, ConfigError
from altmin_dask.storage.model import Model

RNG = np.random.default_rng(0)
QUICK: dict[str, Any] = {"random_state": 0, "max_sweeps": 10}
SILENT = {"log": lambda line: None}
TABLES = {"wine": load_wine, "iris": load_iris, "breast cancer": load_breast_cancer}


def scored(x: Any, y: Any, folds: int = 3) -> float:
    cv = StratifiedKFold(folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(cross_val_score(AltMinClassifier(random_state=0), x, y, cv=cv).mean())


def in_other_units(x: np.ndarray, seed: int) -> np.ndarray:
    """Each feature by a number from 10⁻⁶ to 10⁶, and shifted by up to tens of its deviations."""
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-6, 6, x.shape[1])
    return x * scale + rng.normal(size=x.shape[1]) * 10 * scale * x.std(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", TABLES)
def test_the_units_of_features_change_no_classifier(name, seed):
    """By default, within 1 % of what standardized ones give."""
    x, y = TABLES[name](return_X_y=True)
    want = scored(StandardScaler().fit_transform(x), y)
    assert want > 0.95
    assert scored(in_other_units(x, seed), y) == pytest.approx(want, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-6, 1e-3, 0.1, 10.0, 255.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 10.0, 100.0])
def test_the_unit_of_all_features_changes_no_classifier(factor, offset):
    """Pixels are divided by the same number then."""
    x, y = load_digits(return_X_y=True)
    assert scored(factor * (x / 16 + offset * 0.4), y) == pytest.approx(scored(x / 16, y), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 77.0, 1e6])
def test_units_change_no_regressor(unit, seed):
    x, y = load_diabetes(return_X_y=True, scaled=False)
    cv = KFold(3, shuffle=True, random_state=0)

    def score(x: Any, y: Any) -> float:
        return float(cross_val_score(AltMinRegressor(random_state=0), x, y, cv=cv).mean())

    z, w = StandardScaler().fit_transform(x), (y - y.mean()) / y.std()
    want = score(z, w)
    assert want > 0.42
    assert score(in_other_units(x, seed), unit * (y + 1000)) == pytest.approx(want, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", slow_but([{}], [{}, {"activation": "relu"}, {"hidden_layer_sizes": (6, 3, 6)}])
)
@pytest.mark.parametrize("units", slow_but([(1.0, 1e4)], [(1e-3, 0.0), (1e3, 0.0), (1.0, 1e4), (1e-3, 1e3)]))
def test_units_change_no_autoencoder(form, units):
    """All columns are divided by the same number: errors of large ones count as much more as they did."""
    how: dict[str, Any] = {"hidden_layer_sizes": 3, "random_state": 0, "max_sweeps": 40, **form}
    x = RNG.normal(size=(400, 3)) @ RNG.normal(size=(3, 6)) + 0.1 * RNG.normal(size=(400, 6))
    other = units[0] * (x + units[1])
    plain, found = AltMinAutoencoder(**how).fit(x), AltMinAutoencoder(**how).fit(other)
    assert plain.score(x) > 0.95
    assert found.score(other) == pytest.approx(plain.score(x), abs=0.01)
    back = found.inverse_transform(found.transform(other))
    half = 0.5 * np.square(back - other).sum(axis=1).mean()
    kept = min(found.history_, key=lambda record: record["regularized_loss"])
    assert kept["nested_loss"] == pytest.approx(half, rel=1e-6)
    if units[0] < 1e3:  # which is not needed for
        assert AltMinAutoencoder(**how, standardize="none").fit(other).score(other) < plain.score(x) - 0.02


def test_few_sweeps_are_enough_for_iris_as_it_comes():
    """Its columns are up to 7 times as far from 0 as they deviate."""
    x, y = load_iris(return_X_y=True)
    for seed in range(3):
        assert AltMinClassifier(16, random_state=seed, max_sweeps=5).fit(x, y).score(x, y) > 0.8


def test_what_is_alike_is_trained_as_it_is():
    """To the bit: standardized tables, pixels in [0, 1], and flowers that are not far from 0 for their size."""
    for x, y in (
        (load_digits().data / 16, load_digits().target),
        (load_iris().data - [4, 2, 2, 0], load_iris().target),
        (StandardScaler().fit_transform(load_wine().data), load_wine().target),
        # of pixels that are hardly ever black, which are 30 off then
        (StandardScaler().fit_transform(load_digits().data), load_digits().target),
    ):
        found, plain = (
            AltMinClassifier(8, standardize=how, random_state=0, max_sweeps=2).fit(x, y)
            for how in ("auto", "none")
        )
        for w, v in zip(found.coefs_, plain.coefs_, strict=True):
            assert (w == v).all()


@pytest.mark.parametrize("kind", slow_but(["dask"], ["lists", "dask", "store", "chunks of 50"]))
def test_it_is_the_same_from_wherever_samples_come(kind, tmp_path):
    """As if a `StandardScaler` had been before it."""
    x, y = load_wine(return_X_y=True)
    how = {"chunk_rows": 50, "group_chunks": 4} if kind == "chunks of 50" else {}

    def probabilities(x: np.ndarray, name: str, **more: Any) -> np.ndarray:
        model = AltMinClassifier(8, **QUICK, **how, **more)
        if kind == "store":
            model.fit(str(foreign(tmp_path / f"{name}.zarr", x, y, chunk_rows=60)))
        elif kind == "dask":
            model.fit(da.from_array(x, chunks=(60, -1)), da.from_array(y, chunks=60))
        else:
            model.fit(*((x.tolist(), y.tolist()) if kind == "lists" else (x, y)))
        found: np.ndarray = model.predict_proba(x)
        return found

    plain = probabilities(x, "plain")
    want = probabilities(StandardScaler().fit_transform(x), "standard", standardize="none")
    assert np.abs(plain - want).max() < 1e-9


def test_the_model_is_for_samples_as_they_are(altmin, tmp_path):
    """Its file knows nothing of it; what is recorded of it is what `evaluate` says, to the last digit."""
    x, y = load_wine(return_X_y=True)
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(12)] + ["proline"]).assign(y=y)
    frame.to_csv(tmp_path / "wine.csv", index=False)
    file = write_pipeline(
        tmp_path / "p.toml",
        "wine.csv",
        "classifier",
        data={"validation": 0.3, "y": "y"},
        training={"schedule": "auto", "max_sweeps": 10},
        network={"dtype": "float32"},
    )
    told = altmin("train", file, "--run", "run")
    assert told.code == 0
    assert (
        "inputs are standardized within the network (network.standardize): column 'proline' of x" in told.out
    )
    assert "warning" not in told.err
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["resolved"]["network.standardize"] == "inputs"
    assert result["kept"]["metrics"]["accuracy"] > 0.9
    evaluated = json.loads(altmin("evaluate", "run", "run/data/validation.zarr", "--json").out)
    assert evaluated["loss"] == result["kept"]["loss"]
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert min(record["validation_loss"] for record in history) == result["kept"]["loss"]
    model = Model.load(tmp_path / "run")
    assert model.preparation is None or model.preparation.x is None
    assert (model.predict(x).argmax(axis=1) == y).mean() > 0.9


FORMS: dict[str, dict[str, Any]] = {
    "kfac": {},
    "staleness": {"training": {"max_staleness": 1}},
    "batch": {"solver": {"mu": 1.0}, "training": {"schedule": "batch"}},
    "multipliers": {"solver": {"penalty": "multipliers"}},
}


@pytest.mark.parametrize("form", slow_but(["kfac"], FORMS))
def test_a_run_that_is_gone_on_with_is_one_that_was_not_cut(form, tmp_path, altmin):
    """Also by the rule of another version: what began without goes on without."""
    x, y = load_diabetes(return_X_y=True, scaled=False)
    store = foreign(tmp_path / "s.zarr", x, y[:, None], chunk_rows=100)

    def run(folder: str, sweeps: float, *words: str) -> RunFolder:
        tables = {name: dict(table) for name, table in FORMS[form].items()}
        tables["training"] = {"schedule": "auto", **tables.get("training", {}), "max_sweeps": sweeps}
        file = write_pipeline(tmp_path / f"{folder}.toml", store, "regressor", **tables)
        assert altmin("train", file, "--run", folder, *words).code == 0
        return RunFolder(tmp_path / folder)

    whole = run("whole", 4.0)
    run("cut", 2.0)
    cut = run("cut", 4.0, "--resume")
    resolved = cut.manifest.resolved()["standardize"]
    assert resolved == "both"
    if form != "staleness":
        for w, v in zip(Model.load(whole.model).weights, Model.load(cut.model).weights, strict=True):
            assert (w == v).all()
    records = [json.loads(line) for line in cut.history.read_text().splitlines()]
    assert records[-1]["nested_loss"] < records[0]["nested_loss"]
    said = json.loads(altmin("evaluate", "cut", store, "--json").out)
    assert said["loss"] == json.loads((cut.path / "result.json").read_text())["kept"]["loss"]
    if form == "batch":
        objectives = [r["relaxed_objective"] for r in records if r["relaxed_objective"] is not None]
        assert all(b <= a * (1 + 1e-9) for a, b in pairwise(objectives))


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"penalty": "l1"}, {"penalty": "multipliers"}, {"schedule": "windows"}])
@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_where_z_is_kept_units_change_nothing_either(how, unit):
    x = RNG.normal(size=(300, 4))
    y = x[:, 0] + x[:, 1] ** 2
    y /= y.std()
    plain = AltMinRegressor(20, random_state=0, max_sweeps=20, **how).fit(x, y)
    found = AltMinRegressor(20, random_state=0, max_sweeps=20, **how).fit(1e4 * x, unit * y)
    assert plain.score(x, y) > 0.85
    assert found.score(1e4 * x, unit * y) == pytest.approx(plain.score(x, y), abs=0.02)
    objectives = [r["relaxed_objective"] for r in found.history_ if r["relaxed_objective"] is not None]
    assert 1e-3 * unit**2 < min(objectives)  # in the units of targets, as losses are
    assert max(objectives) < 10 * unit**2


@pytest.mark.parametrize("how", slow_but(["auto"], ["auto", "both", "targets"]))
def test_targets_of_unlike_size_count_alike(how):
    x = RNG.normal(size=(200, 3))
    y = np.column_stack([1e6 * x[:, 0], 5 + 1e-3 * x[:, 1], np.full(200, 3.0)])
    told = r"whose column 0 is most of them: it decides which model is kept"
    with pytest.warns(AltMinWarning, match=told) if how == "auto" else nullcontext():
        model = AltMinRegressor(8, standardize=how, random_state=0).fit(x, y)
    errors = np.square(model.predict(x) - y).mean(axis=0)
    assert (errors[:2] < 0.01 * y[:, :2].var(axis=0)).all()
    assert np.abs(model.predict(x)[:, 2] - 3).max() < 1e-3
    with pytest.warns(
        AltMinWarning, match=r"y in the given arrays has columns with standard deviations from .* to "
    ):
        AltMinRegressor(4, random_state=0).partial_fit(x, y)


@pytest.mark.parametrize("value", [100.0, 7e6, 1e-6])
def test_a_constant_target_is_given_back(value, capsys):
    x = RNG.normal(size=(100, 3))
    with pytest.warns(AltMinWarning, match="there is nothing to learn from that"):
        model = AltMinRegressor(4, verbose=True, **QUICK).fit(x, np.full(100, value))
    assert f"has a mean of {value:.3g} and a standard deviation of 0\n" in capsys.readouterr().out
    np.testing.assert_allclose(model.predict(x), value, rtol=1e-4)


def test_samples_too_much_alike_for_the_outputs_are_told_of():
    x = np.abs(RNG.normal(size=(100, 3))) * 1e-4
    how: dict[str, Any] = {"hidden_layer_sizes": 2, "random_state": 0, "max_sweeps": 2}
    with pytest.warns(AltMinWarning, match=r"deviate by .* and sigmoid outputs reach from 0 to 1"):
        AltMinAutoencoder(**how, output_activation="sigmoid").fit(x)


@pytest.mark.slow
def test_losses_are_in_the_units_of_targets():
    x = RNG.normal(size=(300, 3))
    y = 1e4 + 500 * np.sin(x[:, 0])
    model = AltMinRegressor(20, random_state=0).fit(x, y)
    half = 0.5 * np.mean((model.predict(x) - y) ** 2)
    kept = min(model.history_, key=lambda record: record["regularized_loss"])
    assert kept["nested_loss"] == pytest.approx(half, rel=1e-9)
    assert model.score(x, y) > 0.95
    # as of standardized ones, in another unit; the ridge, too
    unit = y.var()
    other = AltMinRegressor(20, random_state=0).fit(x, (y - y.mean()) / y.std())
    for mine, theirs in zip(model.history_, other.history_, strict=True):
        for name in ("nested_loss", "regularized_loss"):
            assert mine[name] == pytest.approx(unit * theirs[name], rel=1e-6)


def test_training_goes_on_from_weights_for_samples_as_they_are():
    x, y = load_diabetes(return_X_y=True, scaled=False)
    model = AltMinRegressor(8, random_state=0, max_sweeps=20).fit(x, y)
    end = model.loss_curve_[-1]
    model.set_params(warm_start=True, max_sweeps=1).fit(x, y)
    assert model.loss_curve_[0] == pytest.approx(end, rel=0.05)


@pytest.mark.slow
def test_sequences_are_standardized_by_step():
    """By what is there of them: padding is none of their numbers."""
    x = RNG.normal(size=(200, 6, 3))
    lengths = RNG.integers(2, 7, 200)
    there = np.arange(6) < lengths[:, None]
    y = (np.where(there, x[:, :, 0], 0).sum(axis=1) > 0).astype(int)
    x[~there] = 0
    how: dict[str, Any] = {"hidden_layer_sizes": 8, "random_state": 0, "max_sweeps": 30}
    plain = AltMinRecurrentClassifier(**how).fit(x, y, lengths=lengths)
    units, offsets = np.array([1e-3, 1.0, 1e4]), np.array([0.0, 3.0, -2e5])
    other = np.where(there[:, :, None], x * units + offsets, 0)
    found = AltMinRecurrentClassifier(**how).fit(other, y, lengths=lengths)
    score = plain.score(x, y, lengths=lengths)
    assert score > 0.9
    assert found.score(other, y, lengths=lengths) == pytest.approx(score, abs=0.05)
    sums = AltMinRecurrentRegressor(**how).fit(other, 1e5 + 1e3 * x[:, :, 0].sum(axis=1), lengths=lengths)
    assert sums.score(other, 1e5 + 1e3 * x[:, :, 0].sum(axis=1), lengths=lengths) > 0.9
    every = np.where(there, np.cumsum(x[:, :, 0], axis=1), np.nan)[:, :, None] * 100
    steps = AltMinRecurrentRegressor(**how).fit(x, np.where(there[:, :, None], every, 0), lengths=lengths)
    assert steps.score(x, np.where(there[:, :, None], every, 0), lengths=lengths) > 0.9


def test_sequences_in_one_row_are_standardized_by_step_as_well(tmp_path):
    x = RNG.normal(size=(200, 6, 3))
    y = (x[:, :, 0].sum(axis=1) > 0).astype(int)
    other = x * np.array([1e-3, 1.0, 1e4]) + np.array([0.0, 3.0, -2e5])
    found = []
    for name, given in {"steps": other, "row": other.reshape(200, -1)}.items():
        network = {"kind": "recurrent_classifier", "hidden_layer_sizes": (8,), "dtype": "float64", "steps": 6}
        store = foreign(tmp_path / f"{name}.zarr", given, y, chunk_rows=100)
        pipeline = training_pipeline(
            {"data": {"train": str(store)}, "network": network, "training": {"max_sweeps": 5.0}}
        )
        train(pipeline, RunFolder(tmp_path / name), **SILENT)
        found.append(Model.load(tmp_path / name).weights)
    for w, v in zip(*found, strict=True):
        assert (w == v).all()


def test_fewer_rows_than_features():
    x = RNG.normal(size=(60, 300))
    y = (x[:, :5].sum(axis=1) > 0).astype(int)
    plain = AltMinClassifier(8, **QUICK).fit(x, y)
    other = x * 10 ** RNG.uniform(-4, 4, 300)
    found = AltMinClassifier(8, **QUICK).fit(other, y)
    assert found.score(other, y) >= plain.score(x, y) - 0.02


@pytest.mark.parametrize("dtype", slow_but([np.uint8], [np.uint8, np.float32]))
def test_images_are_divided_by_one_number(dtype, tmp_path):
    """Also where a convolution reads them, and of whole numbers in a store."""
    x, y = load_digits(return_X_y=True)
    x = (x[:500] * 15).reshape(-1, 8, 8).astype(dtype)
    network = {
        "kind": "classifier",
        "layers": [{"kind": "convolution", "channels": 4, "activation": "relu"}],
    }
    store = foreign(tmp_path / "s.zarr", x[..., None], y[:500], chunk_rows=125)
    told: list[str] = []
    pipeline = training_pipeline(
        {"data": {"train": str(store)}, "network": network, "training": {"max_sweeps": 10.0}}
    )
    records = train(pipeline, RunFolder(tmp_path / "run"), log=told.append)
    assert told[0].startswith("inputs are divided by ")
    assert records[-1].nested_accuracy > 0.95


@pytest.mark.slow
def test_columns_of_words_and_rare_values_are_left_alone(tmp_path):
    frame = pd.DataFrame(
        {
            "income": RNG.normal(5e4, 1e4, 400),
            "rate": RNG.normal(0.02, 0.001, 400),
            "town": RNG.choice(["a", "b"], 400),
        }
    )
    y = (frame["rate"] > 0.02) ^ (frame["town"] == "a")
    frame.assign(y=y.map({True: "yes", False: "no"})).to_csv(tmp_path / "t.csv", index=False)
    model = AltMinClassifier(20, random_state=0, max_sweeps=100).fit(str(tmp_path / "t.csv"))
    assert model.score(str(tmp_path / "t.csv")) > 0.93
    assert model.predict(frame.sample(frac=1, random_state=0)).shape == (400,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(AltMinClassifier, standardize="targets"), "labels are no numbers to standardize"),
        (partial(AltMinRegressor, standardize="both", output_activation="softplus"), "of identity outputs"),
        (partial(AltMinRegressor, standardize="all"), "standardize"),
        (partial(AltMinRegressor, standardize=True), "standardize"),
        (partial(AltMinAutoencoder, settings={"network.standardize": "inputs"}), "gives back what it reads"),
    ],
)
def test_what_cannot_be_standardized_is_refused(make, words):
    x = np.abs(RNG.normal(size=(50, 3)))
    with pytest.raises(ConfigError, match=words):
        make(hidden_layer_sizes=4, **QUICK).fit(x, (x[:, 0] > 0.5).astype(int))


def test_convolutions_and_streams_are_refused():
    x = RNG.normal(size=(50, 4, 4))
    layers = [{"kind": "convolution", "channels": 2}]
    with pytest.raises(ConfigError, match="a first layer that is a convolution"):
        AltMinClassifier(layers=layers, standardize="inputs", **QUICK).fit(x, np.arange(50) % 2)
    with pytest.raises(ConfigError, match="give partial_fit what a StandardScaler has made of them"):
        AltMinRegressor(4, standardize="inputs", random_state=0).partial_fit(x[:, 0], np.arange(50.0))


def test_auto_encoders_and_streams_are_told_of_it():
    x = load_wine().data
    with pytest.warns(
        AltMinWarning, match=r"column 12 of x .* has a mean of 747 and a standard deviation of 314"
    ):
        AltMinAutoencoder(4, max_sweeps=1, random_state=0).fit(x)
    stream = AltMinRegressor(4, random_state=0)
    with pytest.warns(AltMinWarning, match="a StandardScaler in front"):
        stream.partial_fit(x, load_wine().target)


def test_a_run_of_an_older_version_goes_on_as_it_began(tmp_path):
    x, y = load_wine(return_X_y=True)
    store = foreign(tmp_path / "s.zarr", x, y)
    settings: dict[str, Any] = {"data": {"train": str(store)}, "network": {"kind": "classifier"}}
    network = {**settings["network"], "hidden_layer_sizes": 5}

    def run(folder: str, sweeps: float, how: str, **more: Any) -> RunFolder:
        tables = {"network": {**network, "standardize": how}, "training": {"max_sweeps": sweeps}}
        train(training_pipeline({**settings, **tables}), RunFolder(tmp_path / folder), **SILENT, **more)
        return RunFolder(tmp_path / folder)

    run("old", 1.0, "none")
    file = tmp_path / "old/pipeline.json"
    content = json.loads(file.read_text())
    assert content["resolved"].pop("standardize") == "none"
    assert content["identity"]["network"].pop("standardize") == "none"
    file.write_text(json.dumps(content))
    old, whole = run("old", 2.0, "auto", resume=True), run("whole", 2.0, "none")
    assert old.manifest.resolved()["standardize"] == "none"
    for w, v in zip(Model.load(old.model).weights, Model.load(whole.model).weights, strict=True):
        assert (w == v).all()
    with pytest.raises(ConfigError, match=r"network.standardize: none there"):
        run("whole", 3.0, "auto", resume=True)


def test_numbers_that_float32_cannot_hold_as_weights_are_left_alone():
    x = RNG.normal(size=(100, 3)) * [1.0, 1e-35, 1e3]
    model = AltMinClassifier(20, dtype="float32", random_state=0).fit(x, y := (x[:, 2] > 0).astype(int))
    assert all(np.isfinite(w).all() for w in model.coefs_)
    assert model.score(x, y) > 0.95
