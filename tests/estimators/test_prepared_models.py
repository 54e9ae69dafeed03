"""A model takes raw samples: what was done to those for training is done again wherever it goes, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import zarr
from choices import slow_but
from in_order import ingest
from safetensors import safe_open

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor, Model
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import AltMinWarning, DataError
from altmin_dask.export.torch import state_dict, write_pt2

RNG = np.random.default_rng(0)
ROWS = 200
TABLE = pd.DataFrame(
    {
        "size": RNG.normal(5, 2, ROWS),
        "town": RNG.choice(["Bonn", "Köln", "Ulm"], ROWS),
        "rooms": RNG.integers(1, 6, ROWS),
    }
)
TABLE["price"] = 10 * TABLE["size"] + 3 * TABLE["rooms"] + 50 * (TABLE["town"] == "Ulm")
TABLE["buys"] = np.where(TABLE["price"] > 75, "leaves", "buys")
QUICK: dict[str, Any] = {"hidden_layer_sizes": 6, "max_sweeps": 15, "random_state": 0}
BRIEF = {**QUICK, "max_sweeps": 1}


def csv(path: Path, target: str, frame: pd.DataFrame = TABLE) -> str:
    frame[["size", "town", "rooms", target]].rename(columns={target: "y"}).to_csv(path, index=False)
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("tables")
    for target in ("price", "buys"):
        csv(home / f"{target}.csv", target)
        source = open_source(home / f"{target}.csv")
        ingest(source, home / f"{target}.zarr", standardize=True, dtype="float64")
        ingest(source, home / f"{target}-plain.zarr", dtype="float64")
    return home


@pytest.fixture(scope="module")
def regressor(home):
    return AltMinRegressor(**QUICK).fit(home / "price.zarr")


@pytest.fixture(scope="module")
def classifier(home):
    return AltMinClassifier(**QUICK, early_stopping=True).fit(home / "buys.zarr")


def test_every_kind_of_the_same_rows_gives_the_same(home, regressor, classifier):
    wanted = regressor.predict(TABLE)
    assert regressor.score(TABLE, TABLE["price"]) > 0.95  # in its own units
    swapped = TABLE[["price", "rooms", "size", "town"]]
    swapped.to_parquet(home / "price.parquet")
    lazy = dd.from_pandas(swapped, npartitions=3)
    files = (home / f"price.{ending}" for ending in ("csv", "parquet", "zarr"))
    for rows in (swapped, pl.from_pandas(swapped), lazy, *files):
        np.testing.assert_allclose(np.asarray(regressor.predict(rows)), wanted, rtol=1e-9)
    for rows in (home / "price.csv", home / "price.zarr"):
        assert regressor.score(rows) == pytest.approx(regressor.score(TABLE, TABLE["price"]))
    assert classifier.classes_.tolist() == ["buys", "leaves"]
    assert classifier.score(home / "buys.csv") == classifier.score(TABLE, TABLE["buys"]) > 0.9
    assert classifier.best_validation_score_ > 0.7
    one_hot = TABLE[["size"]].assign(**{f"town={t}": TABLE["town"] == t for t in ("Bonn", "Köln", "Ulm")})
    numbers = one_hot.assign(rooms=TABLE["rooms"]).to_numpy(float)
    np.testing.assert_allclose(regressor.predict(numbers), wanted, rtol=1e-9)
    np.testing.assert_allclose(regressor.model_.predict(numbers)[:, 0], wanted, rtol=1e-9)


def test_what_was_prepared_otherwise_is_refused(home, regressor, tmp_path):
    other = TABLE.assign(town=TABLE["town"].replace("Ulm", "Bonn"))
    fewer = ingest(open_source(csv(tmp_path / "f.csv", "price", other)), tmp_path / "f.zarr")
    scaled = ingest(open_source(home / "price.csv"), tmp_path / "s.zarr", scale=2)
    mean = ingest(
        open_source(csv(tmp_path / "m.csv", "price", TABLE.assign(size=TABLE["size"] + 1))),
        tmp_path / "m.zarr",
        standardize=True,
    )
    plain = AltMinRegressor(**BRIEF).fit(home / "price.csv")
    for model, store, words in (
        (regressor, home / "price-plain.zarr", "that were not standardized"),
        (regressor, mean.path, "another mean or deviation"),
        (plain, fewer.path, "no column 'town=Ulm'"),
        (plain, scaled.path, "divided by 2 and not by 1"),
        (plain, home / "price.zarr", "numbers that were standardized"),
        (AltMinRegressor(**BRIEF).fit(TABLE[["size", "rooms"]], TABLE["price"]), fewer.path, "the columns"),
    ):
        for call in (model.predict, model.score):
            with pytest.raises(DataError, match=words):
                call(store)
    with pytest.raises(DataError, match="no column 'town'"):
        plain.predict(TABLE[["size", "rooms"]])
    with pytest.warns(AltMinWarning, match="'Aachen' in the column 'town' of 200 rows.* all zeros"):
        plain.predict(TABLE.assign(town="Aachen"))
    with pytest.raises(DataError, match=r"row 0 of X has NaN|missing"):
        plain.predict(TABLE.assign(size=[np.nan, *TABLE["size"][1:]]))
    with pytest.raises(DataError, match="that were not standardized"):
        AltMinRegressor(**BRIEF, warm_start=True).fit(home / "price.zarr").fit(home / "price-plain.zarr")


def test_text_and_numbers_are_not_compared(home, classifier, tmp_path):
    csv(tmp_path / "n.csv", "number", TABLE.assign(number=(TABLE["buys"] == "leaves").astype(int)))
    ingest(open_source(tmp_path / "n.csv"), tmp_path / "n.zarr", standardize=True, dtype="float64")
    with pytest.raises(DataError, match="y has numbers, and the classes are text"):
        classifier.score(tmp_path / "n.zarr")


def test_text_is_no_target_of_a_regressor(home):
    for rows in (home / "buys.csv", home / "buys-plain.zarr"):
        with pytest.raises(DataError, match="give numbers"):
            AltMinRegressor(**QUICK).fit(rows)


def test_more_samples_are_prepared_as_the_first(home, classifier):
    stream = AltMinClassifier(6, random_state=0).partial_fit(home / "buys.zarr", classes=["buys", "leaves"])
    stream.partial_fit(home / "buys.csv").partial_fit(home / "buys.zarr")
    numbers = np.asarray(SampleStore.open(home / "buys-plain.zarr").x[:])
    stream.partial_fit(numbers, TABLE["buys"])
    prepared = np.asarray(SampleStore.open(home / "buys.zarr").x[:])
    np.testing.assert_allclose(stream._recent["x"][:ROWS], prepared, rtol=1e-9)
    assert stream.classes_.tolist() == ["buys", "leaves"]
    assert stream.score(TABLE, TABLE["buys"]) > 0.8


def test_frames_are_remembered_by_names(tmp_path):
    numbers = TABLE[["size", "rooms"]]
    fitted = AltMinRegressor(**BRIEF).fit(numbers, TABLE["price"])
    csv(tmp_path / "t.csv", "price")
    np.testing.assert_allclose(fitted.predict(tmp_path / "t.csv"), fitted.predict(numbers), rtol=1e-9)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(numbers[["rooms", "size"]])
    numbers[["size"]].assign(y=1.0).to_csv(tmp_path / "u.csv", index=False)
    with pytest.raises(DataError, match="no column 'rooms'"):
        fitted.predict(tmp_path / "u.csv")
    arrays = AltMinRegressor(**BRIEF).fit(numbers.to_numpy(), TABLE["price"])
    with pytest.raises(DataError, match="the columns size, town=Bonn"):
        arrays.predict(tmp_path / "t.csv")


def test_scaled_images_are_raw_for_their_model(tmp_path):
    x = RNG.integers(0, 256, (60, 4, 4)).astype(np.uint8)
    store = ingest(array_source(x, np.arange(60) % 3), tmp_path / "s.zarr", scale=255, dtype="float64")
    fitted = AltMinClassifier(**QUICK).fit(store.path)
    assert fitted.model_.scale == 255
    wanted = fitted.predict_proba(store.path).compute()
    np.testing.assert_allclose(fitted.predict_proba(x), wanted, rtol=1e-9)
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_allclose(fitted.predict_proba(tmp_path / "x.npy"), wanted, rtol=1e-9)
    group = zarr.create_group(tmp_path / "foreign.zarr")  # of another program: nothing was done to it
    group.create_array("x", data=x, chunks=(20, 4, 4))
    np.testing.assert_allclose(fitted.predict_proba(tmp_path / "foreign.zarr"), wanted, rtol=1e-9)
    encoder = AltMinAutoencoder(3, max_sweeps=5, random_state=0).fit(store.path)
    assert encoder.score(x) == pytest.approx(encoder.score(store.path))
    np.testing.assert_allclose(encoder.transform(x), encoder.transform(store.path), rtol=1e-9)
    normal = ingest(array_source(x), tmp_path / "n.zarr", standardize=True, dtype="float64")
    encoder = AltMinAutoencoder(3, max_sweeps=5, random_state=0).fit(normal.path)
    assert np.abs(encoder.reconstruct(x).mean() - x.mean()) < 20  # in the units of x
    assert encoder.score(x) == pytest.approx(encoder.score(normal.path))


@pytest.mark.parametrize("standardize", [False, True])
def test_outputs_of_auto_encoders_have_the_units_of_the_raw_data(standardize, altmin, tmp_path):
    """Where samples were divided they were in those of what the network reads, beside errors in raw units."""
    x = RNG.integers(0, 17, (60, 4, 4)).astype(np.float64)
    store = ingest(array_source(x), tmp_path / "s.zarr", scale=16, dtype="float64")
    if standardize:
        store = ingest(open_source(store.path), tmp_path / "n.zarr", standardize=True, dtype="float64")
    fitted = AltMinAutoencoder(3, max_sweeps=5, random_state=0).fit(store.path)
    model, rows = fitted.model_, x.reshape(60, -1)
    mean, deviation = np.zeros(16), np.ones(16)
    if standardize:
        mean, deviation = (rows / 16).mean(axis=0), (rows / 16).std(axis=0)
    wanted = 16 * (model.outputs((rows / 16 - mean) / deviation) * deviation + mean)
    same = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(model.predict(x), wanted, **same)
    np.testing.assert_allclose(fitted.reconstruct(x), wanted, **same)
    np.testing.assert_allclose(fitted.reconstruct(store.path), wanted, **same)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(x)), wanted, **same)
    share = 1 - np.square(wanted - rows).sum() / np.square(rows - rows.mean(axis=0)).sum()
    for each in (x, store.path):
        assert fitted.score(each) == pytest.approx(share)
    fitted.save("saved")
    np.save("x.npy", x)
    assert altmin("predict", "saved", "x.npy", "p.npy").code == 0
    np.testing.assert_allclose(np.load("p.npy"), wanted, rtol=1e-5, atol=1e-5)
    told = json.loads(altmin("evaluate", "saved", "x.npy", "--json").out)["metrics"]["rmse"]
    assert told == pytest.approx(np.sqrt(np.square(wanted - rows).mean()), rel=1e-5)
    fitted.to_onnx("m.onnx")
    found = onnxruntime.InferenceSession("m.onnx").run(["output"], {"x": x.astype(np.float32)})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    last = state_dict(model)
    np.testing.assert_allclose(last["5.scale"], 16 * deviation)
    np.testing.assert_allclose(last["5.shift"], 16 * mean)


@pytest.mark.parametrize("kind", slow_but(["classifier"], ["regressor", "classifier"]))
def test_runs_and_estimators_are_the_same(kind, altmin, home, tmp_path):
    """A run as an estimator, a saved estimator as a run's model, and the files they are exported to."""
    target = {"regressor": "price", "classifier": "buys"}[kind]
    pipeline = tmp_path / "p.toml"
    pipeline.write_text(
        f'[data]\ntrain = "{home / target}.csv"\nstandardize = true\n'
        f'[network]\nkind = "{kind}"\nhidden_layer_sizes = [6]\ndtype = "float64"\n'
        "[training]\nmax_sweeps = 5\n[output]\nreport = false\n"
    )
    assert altmin("train", pipeline, "--run", tmp_path / "run").code == 0
    assert altmin("predict", tmp_path / "run", home / f"{target}.csv", tmp_path / "p.zarr").code == 0
    wanted = np.asarray(zarr.open(tmp_path / "p.zarr")["prediction"][:])
    estimator: Any = {"regressor": AltMinRegressor, "classifier": AltMinClassifier}[kind].load(
        tmp_path / "run"
    )
    raw = TABLE[["size", "town", "rooms"]]

    def outputs(loaded: Any) -> Any:
        return loaded.predict(raw)[:, None] if kind == "regressor" else loaded.predict_proba(raw)

    np.testing.assert_allclose(outputs(estimator), wanted, rtol=1e-9)
    assert estimator.score(raw, TABLE[target]) == pytest.approx(estimator.score(home / f"{target}.csv"))
    estimator.save(tmp_path / "saved")
    assert altmin("predict", tmp_path / "saved", home / f"{target}.csv", tmp_path / "q.zarr").code == 0
    np.testing.assert_allclose(np.asarray(zarr.open(tmp_path / "q.zarr")["prediction"][:]), wanted, rtol=1e-9)
    assert altmin("evaluate", tmp_path / "saved", home / f"{target}.zarr").code == 0
    refused = altmin("evaluate", tmp_path / "saved", home / f"{target}-plain.zarr")
    assert refused.code == 2
    assert "was prepared otherwise" in refused.err

    numbers = np.asarray(SampleStore.open(home / f"{target}-plain.zarr").x[:])
    np.testing.assert_allclose(Model.load(tmp_path / "run").predict(numbers), wanted, rtol=1e-9)
    for ending in ("onnx", "safetensors"):
        assert altmin("export", tmp_path / "run", tmp_path / f"m.{ending}").code == 0
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    found = session.run(["output"], {"x": numbers.astype(np.float32)})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    with safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        about = json.loads(file.metadata()["model"])
        np.testing.assert_allclose(file.get_tensor("0.shift")[0], TABLE["size"].mean())
    props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    for known in (about, {name: json.loads(value) for name, value in props.items()}):
        assert known["preparation"]["columns"][1]["name"] == "town"
        assert kind == "regressor" or known["classes"] == ["buys", "leaves"]
        assert known["inputs"] == Model.load(tmp_path / "run").preparation.names
    assert about["kind"] == kind
    assert about["network"] == Model.load(tmp_path / "run").network.describe()


@pytest.mark.slow
def test_torch_takes_raw_samples(home, regressor, tmp_path):
    torch = pytest.importorskip("torch")
    numbers = np.asarray(SampleStore.open(home / "price-plain.zarr").x[:])
    wanted = regressor.predict(TABLE)
    with torch.no_grad():
        np.testing.assert_allclose(
            regressor.to_torch()(torch.tensor(numbers)).numpy()[:, 0], wanted, rtol=1e-9
        )
        write_pt2(regressor.model_, tmp_path / "m.pt")
        write_pt2(regressor.model_, tmp_path / "m.pt")  # its own is replaced
        files = {"model": ""}
        with (tmp_path / "m.pt").open("rb") as file:
            script = torch.export.load(file, extra_files=files).module()
        np.testing.assert_allclose(script(torch.tensor(numbers[:7])).numpy()[:, 0], wanted[:7], rtol=1e-9)
    assert json.loads(files["model"])["preparation"]["columns"][0]["name"] == "size"
    assert set(regressor.to_torch().state_dict()) == set(state_dict(regressor.model_))
