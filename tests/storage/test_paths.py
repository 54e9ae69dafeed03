"""Names that mean something to a shell, a URL, a pattern or a person: things are where they were asked for, and nothing
that somebody else has put beside them, or among them, is lost or altered."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from command import LABELS, X, foreign, refused
from in_order import ingest
from places import (
    IN_TURN,
    NAMES,
    SCHEDULES,
    contents,
    done,
    marked,
    pipeline_file,
    plant,
    spelled,
    surroundings,
)
from safetensors.numpy import load_file, save_file

from altmin_dask import AltMinAutoencoder
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import ConfigError, ExistsError, MissingError
from altmin_dask.execution.threads import Threads
from altmin_dask.inference import predict_store
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return surroundings(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def samples_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign(tmp_path_factory.mktemp("samples") / "s.zarr", X, LABELS)


# --- stores


@pytest.mark.parametrize("name", NAMES)
def test_a_store_of_that_name(name, altmin, watched, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    np.savez(elsewhere / "a.npz", x=X, y=LABELS)
    np.savez(elsewhere / "b.npz", x=X[:5])
    place, word, check = tmp_path / name, spelled(name), watched(name)
    done(altmin("ingest", elsewhere / "a.npz", word, "--chunk-rows", 16, "--dtype", "float64"))
    assert {"zarr.json", "x", "y", "row"} == set(os.listdir(place))
    rows = zarr.open_group(zarr.storage.LocalStore(place), mode="r")["row"][:]
    np.testing.assert_array_equal(SampleStore.open(word).x[:], X[rows])
    np.testing.assert_array_equal(next(open_source(word).blocks(60))[0], X[rows])
    file = pipeline_file(elsewhere, word)
    done(altmin("plan", file))
    done(altmin("train", file, "--run", elsewhere / "run"))
    assert RunFolder(elsewhere / "run").manifest.stores() == {"train": str(place)}
    before = contents(place)
    refused(altmin("ingest", elsewhere / "b.npz", word), "exists already")
    np.savez(elsewhere / "bad.npz", x=np.full((5, 6), np.nan))
    refused(altmin("ingest", elsewhere / "bad.npz", word, "--overwrite"), "rows 0, 1 and more of")
    assert contents(place) == before
    done(altmin("ingest", elsewhere / "b.npz", word, "--overwrite"))
    assert {"zarr.json", "x", "row"} == set(os.listdir(place))
    assert SampleStore.open(word).rows == 5
    check(place)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_of_that_name(name, altmin, trained, watched, tmp_path):
    run, place, word, check = trained / "classifier", tmp_path / name, spelled(name), watched(name)
    done(altmin("predict", run, trained / "samples.zarr", word))
    assert {"zarr.json", "prediction", "label"} == set(os.listdir(place))
    assert zarr.open_array(place / "prediction", mode="r").shape == (60, 3)
    refused(altmin("predict", run, trained / "samples.zarr", word), "exists already")
    done(altmin("predict", run, trained / "samples.zarr", word, "--overwrite"))
    assert zarr.open_array(place / "prediction", mode="r").shape == (60, 3)
    check(place)


# --- z as a local path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "schedule"), IN_TURN)
def test_z_in_a_folder_of_that_name(
    name, schedule, altmin, watched, samples_store, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    plain = pipeline_file(elsewhere / "plain", samples_store, schedule)
    file = pipeline_file(elsewhere / "odd", samples_store, schedule, output={"z": spelled(name)})
    check = watched(name)
    plant(tmp_path / name)  # a place that several share
    theirs = contents(tmp_path / name)
    for sweeps in (1, 2):
        more = [f"training.max_sweeps={sweeps}", *["--resume"] * (sweeps > 1)]
        done(altmin("train", file, "--run", elsewhere / "run", *more))
        done(altmin("train", plain, "--run", elsewhere / "same", *more))
    run = RunFolder(elsewhere / "run")
    own = Path(run.latent)
    assert own.parent == tmp_path / name
    assert os.listdir(own) == (["000002.zarr"] if schedule == "incremental" else [])
    assert run.weights.read_bytes() == RunFolder(elsewhere / "same").weights.read_bytes()
    assert contents(tmp_path / name, own) == theirs
    check(tmp_path / name)


# --- exports, saved estimators


@pytest.mark.parametrize("ending", [".onnx", ".safetensors"])
@pytest.mark.parametrize("name", NAMES)
def test_an_export_of_that_name(name, ending, altmin, trained, watched, tmp_path):
    check = watched(name)
    place, word = tmp_path / f"{name}{ending}", spelled(f"{name}{ending}")
    check = watched(f"{name}{ending}")
    done(altmin("export", trained / "classifier", word))
    content = place.read_bytes()
    refused(altmin("export", trained / "classifier", word), "exists already")
    done(altmin("export", trained / "classifier", word, "--overwrite"))
    assert place.read_bytes() == content
    if ending == ".safetensors":
        weights = Model.load(trained / "classifier" / "model").weights
        np.testing.assert_array_equal(load_file(place)["0.weight"], weights[0][:, :-1])
    check(place)


@pytest.mark.parametrize("ending", [".onnx", ".safetensors"])
@pytest.mark.parametrize("kind", ["text", "empty", "another's", "folder", "link", "link to nowhere"])
def test_an_export_replaces_exports_only(kind, ending, altmin, trained, tmp_path):
    place = tmp_path / f"net{ending}"
    match kind:
        case "text" | "empty":
            place.write_text("dear" * (kind == "text"))
        case "another's" if ending == ".onnx":
            import onnx

            graph = onnx.helper.make_graph([], "mine", [], [])
            onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), place)
        case "another's":
            save_file({"0.weight": X}, place, metadata={"format": "pt"})
        case "folder":
            plant(place)
        case "link":
            (tmp_path / "theirs").write_text("dear")
            place.symlink_to("theirs")
        case _:
            place.symlink_to("gone")
    before = contents(tmp_path)
    refused(altmin("export", trained / "classifier", place.name), "exists already")
    assert contents(tmp_path) == before
    outcome = altmin("export", trained / "classifier", place.name, "--overwrite")
    if kind == "link to nowhere":  # nothing is lost by going where it leads
        assert done(outcome)
        assert place.is_symlink()
        assert (tmp_path / "gone").stat().st_size > 100
        return
    refused(outcome, "exists and was not exported, so it is never replaced; give another name")
    assert contents(tmp_path) == before


@pytest.fixture(scope="module")
def fitted() -> AltMinAutoencoder:
    return AltMinAutoencoder(2, max_sweeps=1, random_state=0).fit(X)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_estimator_of_that_name(name, fitted, watched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = watched(name)
    for overwrite in (False, True):
        fitted.save(spelled(name), overwrite=overwrite)
        assert len(os.listdir(tmp_path / name)) == 3
    again = AltMinAutoencoder.load(spelled(name))
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    again.to_onnx(f"{spelled(name)}/../{name}.onnx")
    check(tmp_path / name, tmp_path / f"{name}.onnx")


def test_an_estimator_with_files_of_others_is_not_replaced(fitted, tmp_path):
    fitted.save(tmp_path / "saved")
    (tmp_path / "saved" / "notes.txt").write_text("dear")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "estimator.json").write_text('{"estimator": "of somebody else"}')
    before = contents(tmp_path)
    with pytest.raises(ExistsError, match=r"as notes.txt in it was not written with it; move that away"):
        fitted.save(tmp_path / "saved", overwrite=True)
    with pytest.raises(ExistsError, match="is not an estimator that was saved, so it is never replaced"):
        fitted.save(tmp_path / "other", overwrite=True)
    with pytest.raises(ConfigError, match="is a URL; give a path on this machine"):
        fitted.save("s3://bucket/saved")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["r::un", "~"])
def test_an_estimator_trains_in_a_folder_of_that_name(name, watched, tmp_path):
    check = watched(name)
    (tmp_path / name).mkdir()
    store = ingest(array_source(X), tmp_path / name / "s.zarr")
    for schedule in SCHEDULES:
        AltMinAutoencoder(
            2,
            max_sweeps=1,
            random_state=0,
            temporary_folder=tmp_path / name,
            chunk_rows=16,
            schedule=schedule,
        ).fit(store.path)
    assert os.listdir(tmp_path / name) == ["s.zarr"]
    check(tmp_path / name)


# --- sources that others read for us


TABLES = ["data:t", "file:t", "./~t", "t#", "t%20", " t", "t::u", "t*", "[t]", "t?"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_that_name(name, ending, tmp_path, monkeypatch):
    """Also one that others take for a pattern, which ``tx.csv`` would match, or for a URL."""
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"a": [3, 5], "y": [4, 6]})
    for file, table in ((f"tx.{ending}", frame + 1), (f"{name}.{ending}", frame)):
        with open(file, "wb") as opened:
            _ = table.to_csv(opened, index=False) if ending == "csv" else table.to_parquet(opened)
    x, y = next(open_source(f"{name}.{ending}").blocks(2))
    assert (x.tolist(), y.tolist()) == ([[3.0], [5.0]], [4, 6])


def test_a_path_object_is_a_path_and_a_string_is_what_it_is_to_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert ingest(array_source(X), Path("~/a.zarr")).path == str(tmp_path / "~" / "a.zarr")
    assert ingest(array_source(X[:4]), "~/a.zarr").path == str(tmp_path / "home" / "a.zarr")
    for place, rows in ((Path("~/a.zarr"), 60), ("./~/a.zarr", 60), ("~/a.zarr", 4)):
        assert SampleStore.open(place).rows == open_source(place).rows == rows
        assert len(AltMinAutoencoder(2, max_sweeps=1, random_state=0).fit(place).transform(place)) == rows
    assert ingest(array_source(X), Path("s3://b/a.zarr")).path == str(tmp_path / "s3:" / "b" / "a.zarr")


def test_a_home_that_nobody_has_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match="there is no file or folder"):
        open_source("~nobody-of-that-name/a.zarr")
    assert ingest(array_source(X), "~nobody-of-that-name/a.zarr").rows == 60
    assert SampleStore.open(tmp_path / "~nobody-of-that-name" / "a.zarr").rows == 60


# --- other processes


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [marked(name, fast=name == "kfac") for name in SCHEDULES])
def test_a_cluster_finds_everything_by_such_names(
    schedule, altmin, watched, cluster_address, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    check = watched("r::u [n]*")
    home = tmp_path / "r::u [n]*"
    samples, run, cluster = home / "s::t?.zarr", home / "run::%20", ("--scheduler", cluster_address)
    ingest(array_source(X, LABELS), samples, chunk_rows=16, dtype="float64")
    output = {"z": str(home / "z::*"), "performance": True}
    file = pipeline_file(elsewhere, samples, schedule, output=output)
    done(altmin("train", file, "--run", run, *cluster))
    done(altmin("train", file, "--run", run, "--resume", "--set", "training.max_sweeps=2", *cluster))
    assert "Dask" in (run / "report" / "performance.html").read_text()
    there = json.loads(done(altmin("evaluate", run, samples, "--json", *cluster)).out)
    assert there == json.loads(done(altmin("evaluate", run, samples, "--json")).out)
    done(altmin("predict", run, samples, home / "p::[q]", *cluster))
    wanted = predict_store(RunFolder(run), SampleStore.open(samples), home / "q", Threads(1))
    for name in ("prediction", "label"):
        here, there = (zarr.open_array(place / name, mode="r")[:] for place in (wanted, home / "p::[q]"))
        np.testing.assert_array_equal(here, there)
    assert set(os.listdir(home)) == {"s::t?.zarr", "run::%20", "p::[q]", "q", "z::*"}
    assert list((home / "z::*").iterdir()) == [Path(RunFolder(run).latent)]
    check(home)
