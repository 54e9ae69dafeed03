"""Float64 networks get all digits of whatever they are given; where digits go, it is said."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from choices import slow_but
from command import foreign, refused, write_pipeline
from in_order import ingest
from written_files import csv, every_file, frame, npz, parquet

from altmin_dask.config import make_pipeline
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import AltMinWarning, DataError
from altmin_dask.estimators import (
    AltMinRegressor,
    base,
)
from altmin_dask.execution.samples import Samples
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.execution.threads import Threads
from altmin_dask.export.onnx import write_onnx
from altmin_dask.export.torch import write_safetensors
from altmin_dask.networks.builders import recurrent_network
from altmin_dask.runs import train
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.zarr_chunks import RowBlock
from altmin_dask.training.problem import build_problem
from altmin_dask.training.ranges import ranges_of

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

RNG = np.random.default_rng(11)
X = 1 + RNG.permutation(180).reshape(60, 3) * 2.0**-40
"""All the same in float32."""
Y = 1e9 + 0.123 + RNG.permutation(60) / 64
"""Steps of float32 are 64 there."""


@every_file
def test_ingest_keeps_all_digits_where_it_is_told_to(write, altmin, tmp_path):
    source, words = write(tmp_path, X, Y)
    done = altmin("ingest", source, "s.zarr", *words, "--dtype=float64", "--chunk-rows=25", "--no-shuffle")
    assert (done.code, done.err) == (0, "")
    assert "60 samples of 3 float64, targets float64" in done.out
    store = SampleStore.open("s.zarr")
    np.testing.assert_array_equal(store.x[:], X)
    np.testing.assert_array_equal(store.y[:], Y)


@pytest.mark.parametrize("write", slow_but([csv], [npz, csv, parquet]))
def test_a_run_in_float64_ingests_its_sources_in_float64(write, altmin, tmp_path):
    source, _ = write(tmp_path, X, Y)
    settings = {"validation": source, "scale": 3.0, "shuffle": False}
    write_pipeline(tmp_path / "p.toml", source, "regressor", data=settings)
    done = altmin("train", "p.toml", "--run", "run")
    assert (done.code, done.err) == (0, "")
    for name in ("train", "validation"):
        store = SampleStore.open(tmp_path / "run" / "data" / f"{name}.zarr")
        np.testing.assert_array_equal(store.x[:], X / 3)
        np.testing.assert_array_equal(store.y[:], Y)
    assert altmin("train", "p.toml", "--run", "run", "--resume", "training.max_sweeps=3").code == 0


def test_weights_and_states_are_kept_as_well(tmp_path):
    x, weights, states = X.reshape(60, 3, 1), 1 + RNG.random(60) * 2.0**-40, RNG.random((60, 2))
    lengths = np.arange(60) % 3 + 1
    np.savez(tmp_path / "a.npz", x=x, y=Y, sample_weight=weights, states=states, lengths=lengths)
    store = ingest(open_source(tmp_path / "a.npz"), tmp_path / "s.zarr", dtype="float64")
    np.testing.assert_array_equal(store.weights[:], weights)
    np.testing.assert_array_equal(store.sequence_arrays["states"][:], states)
    np.testing.assert_array_equal(store.sequence_arrays["lengths"][:], lengths)


@pytest.mark.parametrize("given", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_are_divided_in_float64_and_rounded_once(given, dtype, tmp_path):
    x = np.arange(1, 61).reshape(20, 3).astype(given)
    store = ingest(array_source(x), tmp_path / "s.zarr", scale=255, dtype=dtype)
    np.testing.assert_array_equal(store.x[:], (x.astype(float) / 255).astype(dtype))


LAZY: dict[str, Any] = {
    "arrays": lambda d: (X, Y),
    "frame": lambda d: (frame(X, Y)[["a", "b", "c"]], pd.Series(Y)),
    "dask array": lambda d: (da.from_array(X, chunks=(25, 3)), da.from_array(Y, chunks=25)),
    "dask frame": lambda d: (dd.from_pandas(frame(X, Y)[["a", "b", "c"]], npartitions=2), Y),
    "zarr": lambda d: (zarr.open_group(foreign(d / "a.zarr", X, Y))["x"], Y),
    "file": lambda d: (str(d / npz(d, X, Y)[0]), None),
}


@pytest.mark.parametrize(
    ("kind", "held_out"), [*((kind, False) for kind in LAZY), ("arrays", True), ("dask array", True)]
)
def test_estimators_keep_all_digits(kind, held_out, tmp_path, monkeypatch):
    stored: list[tuple[np.ndarray, np.ndarray]] = []

    def spied(*arguments, **options):
        store = ingest(*arguments, **options)
        stored.append((np.asarray(store.x[:]), np.asarray(store.y[:])))
        return store

    monkeypatch.setattr(base, "ingest", spied)
    x, y = LAZY[kind](tmp_path)
    fitted = AltMinRegressor(2, max_sweeps=1, random_state=0, early_stopping=held_out).fit(x, y)
    rows = dict(zip(Y, X, strict=True))
    seen = [pair for xs, ys in stored for pair in zip(xs, ys, strict=True)]
    assert len({y for _, y in seen}) == 60
    for row, value in seen:
        np.testing.assert_array_equal(row, rows[value])
    if kind != "file":
        assert np.asarray(fitted.predict(x)).dtype == np.float64


# --- what it is good for

LINEAR = {
    "network": {"kind": "regressor", "hidden_layer_sizes": []},
    "solver": {"ridge": 0.0, "proximal": 0.0},
    "training": {"max_sweeps": 40.0, "averaging": 0.0, "tol": 0.0, "n_iter_no_change": None},
    "cluster": {"workers": 1},
}
INPUTS = RNG.normal(size=(300, 3))
OFFSET = 1e6 + 0.123 + INPUTS @ [1.0, -2.0, 0.5]


def fit_line(folder: Path, dtype: str, standardize: bool = False) -> RunFolder:
    np.savez(folder / "a.npz", x=INPUTS, y=OFFSET)
    data = {"train": str(folder / "a.npz"), "standardize": standardize}
    pipeline = make_pipeline({**LINEAR, "data": data, "network": {**LINEAR["network"], "dtype": dtype}})
    run = RunFolder(folder / "run")
    train(pipeline, run, log=lambda line: None)
    return run


def error_of(altmin: Any, run: RunFolder, folder: Path) -> tuple[float, np.dtype]:
    """What is predicted for the raw file, against the targets."""
    done = altmin("predict", run.path, folder / "a.npz", folder / "p.zarr")
    assert (done.code, done.err) == (0, "")
    predicted = zarr.open_array(folder / "p.zarr" / "prediction")
    return float(np.abs(predicted[:, 0] - OFFSET).max()), predicted.dtype


@pytest.mark.slow
def test_targets_with_an_offset_are_fitted_to_float64(altmin, tmp_path):
    run = fit_line(tmp_path, "float64")
    error, dtype = error_of(altmin, run, tmp_path)
    assert error < 1e-6  # of targets that float32 has in steps of 1/16
    assert dtype == np.float64


@pytest.mark.parametrize("dtype", slow_but(["float64"], ["float32", "float64"]))
def test_standardized_targets_with_an_offset_keep_it_in_predictions(dtype, altmin, tmp_path):
    error, stored = error_of(altmin, fit_line(tmp_path, dtype, standardize=True), tmp_path)
    assert error < (1e-4 if dtype == "float32" else 1e-8)
    assert stored == np.float64


def test_predictions_are_of_the_samples_as_they_are(altmin, tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y - 1e9)
    write_pipeline(tmp_path / "p.toml", "a.npz", "regressor", data={"standardize": True})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert altmin("predict", "run", "a.npz", "p.zarr").code == 0
    model = Model.load(tmp_path / "run" / "model")
    predicted = zarr.open_array("p.zarr/prediction")[:]
    by_hand = model.output_scaling.undo(model.outputs(model.preparation.x.apply(X)))
    np.testing.assert_allclose((predicted, model.predict(X)), (by_hand, by_hand), rtol=1e-13)
    assert np.unique(predicted).size > 50  # float32 would make one sample of them all


def test_partial_fit_goes_on_in_its_dtype():
    x, y = RNG.normal(size=(40, 3)), RNG.normal(size=40)
    fitted = AltMinRegressor(2, random_state=0).partial_fit(x, y).partial_fit(np.float32(x), y)
    assert fitted.model_.weights[0].dtype == np.float64
    fitted = AltMinRegressor(2, random_state=0).partial_fit(np.float32(x), y).partial_fit(x, y)
    assert fitted.model_.weights[0].dtype == np.float32


# --- arrays that belong together


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int32", "float64"])
def test_what_belongs_to_samples_keeps_its_digits(dtype, tmp_path):
    """Each array of a batch has the numbers and the dtype of the store: none is widened for another."""
    x = RNG.integers(0, 100, (20, 3000, 1)).astype(dtype)
    y = 2**40 + np.arange(20)
    others = {
        "lengths": np.arange(2981, 3001),
        "states": RNG.random((20, 2)),
        "sample_weight": 1 + RNG.random(20) * 2.0**-40,
    }
    group = zarr.open_group(foreign(tmp_path / "s.zarr", x, y))
    for name, values in others.items():
        group.create_array(name, data=values, chunks=(16, *values.shape[1:]))
    store = SampleStore.open(tmp_path / "s.zarr")
    network = recurrent_network(1, 3000, (2,), 1)
    arrays = {
        name: array.compute(scheduler="sync")
        for name, array in Samples(store, "labels").arrays((0, 1), "token").items()
    }
    batch = TaskContext(network, "labels", "float64").arrange(arrays)
    for name, values in {"x": x[:, :, 0], "y": y, **others}.items():
        found = getattr(batch, name)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_weights_are_no_labels(tmp_path, altmin):
    """Of a store that another program wrote, ranges were those of labels and weights together."""
    group = zarr.open_group(foreign(tmp_path / "s.zarr", RNG.random((60, 3)), np.arange(60) % 3))
    group.create_array("sample_weight", data=RNG.random(60) * 15, chunks=(16,))
    write_pipeline(tmp_path / "p.toml", "s.zarr", "classifier", training={"schedule": "kfac"})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert Model.load(tmp_path / "run" / "model").network.sizes == (3, 5, 3)
    group["sample_weight"][41] = -1
    refused(altmin("train", "p.toml", "--run", "other"), "row 41 of ")
    group["sample_weight"][41] = np.nan
    refused(altmin("train", "p.toml", "--run", "other"), "row 41 of ")


def test_what_float32_cannot_hold_at_all_is_refused(tmp_path):
    x = RNG.random((20, 4, 2))
    for name, values in (("sample_weight", np.full(20, 1e300)), ("states", np.full((20, 2), 1e300))):
        np.savez(tmp_path / "a.npz", x=x, y=np.arange(20.0), **{name: values})
        with pytest.raises(DataError, match="row"):
            ingest(open_source(tmp_path / "a.npz"), tmp_path / "s.zarr")
        assert not (tmp_path / "s.zarr").exists()


# --- digits that go


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (RNG.random((60, 3)), Y, r"y of the given arrays runs from 1000000000\.1.* has steps of 1\.2e\+02"),
        (
            RNG.random((60, 3)) + np.array([0, 1e7, 0]),
            None,
            "column 1 of x of the given arrays runs from 1000000",
        ),
        (
            RNG.integers(10**9, 10**9 + 50, (60, 3)),
            None,
            r"column 0 of x .* \(and 2 more columns\) runs from",
        ),
    ],
)
def test_float32_that_blurs_is_said(x, y, words, tmp_path):
    with pytest.warns(AltMinWarning, match=words):
        ingest(array_source(x, y), tmp_path / "s.zarr", chunk_rows=25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ingest(array_source(x, y), tmp_path / "t.zarr", standardize=True)
        store = ingest(array_source(x, y), tmp_path / "u.zarr", dtype="float64")
    assert store.attributes["fine"] == ["x" if y is None else "y"]
    # nor is it lost on the way to a network of float32
    kind = "autoencoder" if y is None else "regressor"
    problem = {"data": {"train": store.path}, "network": {"kind": kind, "output_activation": "identity"}}
    with pytest.warns(AltMinWarning, match=r"closer together than float32 tells apart.* set network\.dtype"):
        build_problem(make_pipeline(problem), store, None, Threads(1))
    problem["network"]["dtype"] = "float64"
    build_problem(make_pipeline(problem), store, None, Threads(1))


def test_ordinary_numbers_are_rounded_without_a_word(tmp_path):
    x = RNG.normal(40, 10, (60, 3)) * [1, 1e-20, 1e20]
    x[:, 1] = 0.1  # a constant is no loss
    store = ingest(array_source(x, RNG.integers(0, 5, 60)), tmp_path / "s.zarr")
    assert store.attributes["rounded"] == ["x"]


def test_a_store_that_was_rounded_is_no_match_for_float64(altmin, tmp_path):
    np.savez(tmp_path / "a.npz", x=RNG.random((60, 3)), y=np.arange(60) % 3)
    assert altmin("ingest", "a.npz", "s.zarr").code == 0
    write_pipeline(tmp_path / "p.toml", "s.zarr", "classifier")
    for words in (
        ["train", "p.toml", "--run", "run"],
        ["evaluate", "run", "s.zarr"],
        ["predict", "run", "s.zarr", "p.zarr"],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            done = altmin(*words)
        assert done.code == 0
        assert re.search(
            r"warning: x of .*s\.zarr \(of a\.npz\) had more digits .* --dtype float64", done.err
        )
    # what was rounded and is not computed with is nobody's loss; nor is float32 that never was anything else
    assert altmin("train", "p.toml", "--run", "single", "--set", "network.dtype=float32").code == 0
    np.savez(tmp_path / "b.npz", x=RNG.random((60, 3)).astype(np.float32), y=np.arange(60) % 3)
    assert altmin("ingest", "b.npz", "t.zarr").code == 0
    assert altmin("train", "p.toml", "--run", "exact", "--set", "data.train=t.zarr").code == 0


def test_foreign_float64_that_float32_blurs_is_said(tmp_path):
    store = SampleStore.open(foreign(tmp_path / "s.zarr", RNG.random((60, 3)), Y))
    pipeline = {"data": {"train": store.path}, "network": {"kind": "regressor"}}
    with pytest.warns(AltMinWarning, match=r"y of .*s\.zarr runs from 1000000000\.1"):
        build_problem(make_pipeline(pipeline), store, None, Threads(1))


@pytest.mark.slow
def test_exported_files_say_what_float32_does_to_units(tmp_path):
    np.savez(tmp_path / "a.npz", x=RNG.random((60, 3)), y=Y)
    run = RunFolder(tmp_path / "run")
    data = {"train": str(tmp_path / "a.npz"), "standardize": True}
    train(make_pipeline({**LINEAR, "data": data}), run, log=lambda line: None)
    model = Model.load(run.model)
    with pytest.warns(AltMinWarning, match="float32.* of which the ONNX file is made"):
        write_onnx(model, tmp_path / "m.onnx")
    double, single = (
        replace(model, weights=tuple(w.astype(dtype) for w in model.weights))
        for dtype in (np.float64, np.float32)
    )
    write_safetensors(double, tmp_path / "m.safetensors")  # which loses nothing
    with pytest.warns(AltMinWarning, match="float32.* of which the module is made"):
        write_safetensors(single, tmp_path / "m.safetensors")


def test_ranges_are_found_in_one_pass(tmp_path, monkeypatch):
    weights = {"data": np.ones(60), "chunks": (16,)}
    zarr.open_group(foreign(tmp_path / "s.zarr", X, Y)).create_array("sample_weight", **weights)
    read, given = [], RowBlock.read

    def counted(self):
        read.append((self.location, self.starts))
        return given(self)

    monkeypatch.setattr(RowBlock, "read", counted)
    summary = ranges_of(SampleStore.open(tmp_path / "s.zarr"), Threads(1))
    assert len(read) == len(set(read)) == 3 * 4
    assert (summary.y_min, summary.y_max) == (Y.min(), Y.max())
