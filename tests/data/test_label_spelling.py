"""Labels that are written otherwise than numbers are, ``01`` or truth values: who gets them back knows them so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from choices import taking_turns
from command import LABELS, X, foreign, write_pipeline

from altmin_dask import AltMinClassifier, AltMinRegressor, ingest, open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import AltMinWarning
from altmin_dask.preparation import Preparation
from altmin_dask.storage.model import Model

CODES = np.array(["01", "02", "10"])
TRUTH = LABELS == 1
FRAME = pd.DataFrame(X, columns=list("abcdef"))


def write(format: str, y: np.ndarray) -> str:
    """Files of a kind in the working directory."""
    if format == "npz":
        np.savez("t.npz", x=X, y=y)
    elif format == "zarr":
        foreign(Path("t.zarr"), X, y)
    elif format == "csv":
        FRAME.assign(y=y).to_csv("t.csv", index=False)
    else:
        FRAME.assign(y=y).to_parquet("t.parquet")
    return f"t.{format}"


@pytest.fixture
def trained(altmin, tmp_path, monkeypatch):
    """A classifier of a source, trained on the command line."""
    monkeypatch.chdir(tmp_path)

    def train(source: str, **data) -> Model:
        write_pipeline(Path("p.toml"), source, "classifier", data={"chunk_rows": 16, **data})
        done = altmin("train", "p.toml", "--run", "run")
        assert (done.code, done.err) == (0, "")
        return Model.load(Path("run/model"))

    return train


@pytest.mark.parametrize(
    "texts",
    [
        CODES,
        *(
            pytest.param(np.array(t), marks=pytest.mark.slow)
            for t in (["00", "01", "02"], ["-1", "+1", "+3"])
        ),
    ],
)
def test_texts_of_whole_numbers_come_back(texts, trained, altmin):
    source = write("csv", texts[LABELS])
    model = trained(source)
    assert model.preparation.called == tuple(texts)
    assert model.labels == tuple(map(int, texts))
    assert altmin("predict", "run", source, "p.csv", "--keep", "y", "--proba").code == 0
    found = pd.read_csv("p.csv", dtype={"y": "str", "label": "str"})
    assert list(found) == ["y", "label", *texts]
    assert found["y"].tolist() == texts[LABELS].tolist()
    assert set(found["label"]) <= set(texts)
    told = json.loads(altmin("evaluate", "run", source, "--json").out)
    assert told["classes"] == texts.tolist()
    assert told["accuracy"] == (found["y"] == found["label"]).mean()
    # in arrays, too: as text has it, by places
    assert altmin("predict", "run", source, "p.npy").code == 0
    np.testing.assert_array_equal(np.load("p.npy"), found["label"])
    assert altmin("predict", "run", source, "p.zarr").code == 0
    group = zarr.open_group("p.zarr", mode="r")
    names = np.array(group.attrs["classes"])
    np.testing.assert_array_equal(names[group["label"][:]], found["label"])


@pytest.mark.parametrize(("format", "share"), taking_turns(["csv", "parquet", "npz", "zarr"], [True, False]))
def test_truth_values_come_back(format, share, trained, altmin):
    source = write(format, TRUTH)
    model = trained(source, validation=0.2 if share else source)
    assert model.preparation.called == (False, True)
    assert altmin("predict", "run", source, "p.csv").code == 0
    assert altmin("predict", "run", source, "p.npy").code == 0
    found = pd.read_csv("p.csv")["label"]
    assert found.dtype == bool
    np.testing.assert_array_equal(np.load("p.npy"), found)
    told = json.loads(altmin("evaluate", "run", source, "--json").out)
    assert told["classes"] == [False, True]
    assert told["accuracy"] == (found == TRUTH).mean()


def test_words_for_truth_values_come_back(trained, altmin):
    source = write("csv", np.where(TRUTH, "true", "false"))
    assert trained(source).preparation.called == ("false", "true")
    assert altmin("predict", "run", source, "p.csv").code == 0
    assert set(pd.read_csv("p.csv", dtype="str")["label"]) <= {"true", "false"}


def test_numbers_as_they_are_usually_written_stay_numbers(trained, altmin):
    source = write("csv", (LABELS + 1).astype("U"))
    assert trained(source).preparation.called == (1, 2, 3)
    assert open_source(source, y="y").preparation.spelled == ()
    assert altmin("predict", "run", source, "p.npy").code == 0
    assert np.load("p.npy").dtype == np.int64


def test_stores_have_numbers_and_know_the_texts(altmin, tmp_path, monkeypatch):
    """They may as well be numbers to fit."""
    monkeypatch.chdir(tmp_path)
    source = write("csv", CODES[LABELS])
    done = altmin("ingest", source, "t.zarr", "--no-shuffle", "--dtype", "float64")
    assert done.code == 0
    assert "│ 01    │" in done.out
    store = SampleStore.open("t.zarr")
    np.testing.assert_array_equal(store.y[:], CODES.astype(int)[LABELS])
    assert Preparation.from_json(json.loads(json.dumps(store.preparation.to_json()))).spelled == (
        (1, "01"),
        (2, "02"),
        (10, "10"),
    )
    write_pipeline(Path("p.toml"), "t.zarr", "classifier")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert Model.load(Path("run/model")).preparation.called == tuple(CODES)
    write_pipeline(Path("r.toml"), "t.zarr", "regressor")
    assert altmin("train", "r.toml", "--run", "regressor").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("format", ["csv", "parquet", "npz"])
def test_stores_of_truth_values(format, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write(format, TRUTH)
    store = ingest(open_source(source), "t.zarr", shuffle=False)
    assert store.y.dtype == np.int64
    classifier = AltMinClassifier(4, max_sweeps=2, random_state=0).fit("t.zarr")
    assert classifier.classes_.tolist() == [False, True]
    predicted = np.asarray(classifier.predict("t.zarr"))
    assert predicted.dtype == bool
    assert classifier.score("t.zarr") == (predicted == TRUTH).mean()
    assert classifier.score(X, TRUTH) == classifier.score("t.zarr")
    AltMinRegressor(4, max_sweeps=2, random_state=0).fit("t.zarr").score("t.zarr")


def test_estimators_have_the_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write("csv", CODES[LABELS])
    ingest(open_source(source), "t.zarr", shuffle=False)
    classifier = AltMinClassifier(4, max_sweeps=2, random_state=0).fit("t.zarr")
    assert classifier.classes_.tolist() == CODES.tolist()
    assert classifier.score("t.zarr") == (np.asarray(classifier.predict("t.zarr")) == CODES[LABELS]).mean()
    assert classifier.score(source) == classifier.score("t.zarr")
    assert AltMinRegressor(4, max_sweeps=2, random_state=0).fit("t.zarr").predict("t.zarr").dtype.kind == "f"


def test_estimators_of_runs_have_the_texts(trained):
    source = write("csv", CODES[LABELS])
    trained(source)
    classifier = AltMinClassifier.load("run")
    assert classifier.classes_.tolist() == CODES.tolist()
    assert classifier.score(source) == (np.asarray(classifier.predict(source)) == CODES[LABELS]).mean()


def test_several_texts_of_one_number_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write("csv", np.where(np.arange(len(X)) == 7, "1", CODES[LABELS]))
    with pytest.warns(
        AltMinWarning, match="has '01' and '1' in the target 'y', which are one number and one class"
    ):
        found = open_source(source).preparation
    assert found.spelled == ((1, "01"), (2, "02"), (10, "10"))


def test_more_numbers_than_there_can_be_classes_are_not_gone_through(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("altmin_dask.data.tables.spelling.MOST", 2)
    assert open_source(write("csv", CODES[LABELS])).preparation.spelled == ()


def test_codes_among_inputs_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zips = [f"{number:05d}" for number in 9_970 + np.arange(len(X)) // 2]
    FRAME.assign(zip=zips, y=LABELS).to_csv("t.csv", index=False)
    with pytest.warns(
        AltMinWarning, match=r"begin with 0 in the column 'zip' \(09970, …\), which become numbers"
    ):
        open_source("t.csv")
    FRAME.assign(zip=[f"z{each}" for each in zips], y=LABELS).iloc[:40].to_csv("t.csv", index=False)
    assert open_source("t.csv").preparation.names[6] == "zip=z09970"
