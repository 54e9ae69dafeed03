"""Every kind of bad input to the command line: one sentence, exit code 2, and nothing left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from command import LABELS, X, files_below, foreign, refused, write_pipeline

from altmin_dask.data.sample_store import SampleStore


def with_value(value: float, *rows: int, of: np.ndarray = X) -> np.ndarray:
    changed = of.astype(float)
    for row in rows:
        changed[(row, *[0] * (of.ndim - 1))] = value
    return changed


Make = Callable[[Path], Any]
INGEST: dict[str, tuple[Make, list[str], str]] = {
    "missing file": (lambda d: None, ["gone.npz"], "no file or folder gone.npz"),
    "missing zarr": (lambda d: None, ["gone.zarr"], "no file or folder gone.zarr"),
    "unknown kind": (lambda d: (d / "a.txt").write_text("x"), ["a.txt"], "not a kind of data"),
    "damaged": (lambda d: (d / "a.npz").write_text("x"), ["a.npz"], "cannot be read"),
    "wrong x name": (lambda d: np.savez(d / "a.npz", x=X), ["a.npz", "--x", "z"], "no array 'z'; it has x"),
    "wrong y name": (lambda d: np.savez(d / "a.npz", x=X), ["a.npz", "--y", "t"], "no array 't'"),
    "rank 1": (lambda d: np.savez(d / "a.npz", x=X[:, 0]), ["a.npz"], "rank 1"),
    "rank 0": (lambda d: np.savez(d / "a.npz", x=1.0), ["a.npz"], "rank 0"),
    "y of rank 3": (lambda d: np.savez(d / "a.npz", x=X, y=np.ones((60, 2, 2))), ["a.npz"], "(60, 2, 2)"),
    "labels of rank 2": (lambda d: np.savez(d / "a.npz", x=X, y=np.ones((60, 2), int)), ["a.npz"], "labels"),
    "lengths": (lambda d: np.savez(d / "a.npz", x=X, y=LABELS[1:]), ["a.npz"], "60 rows and"),
    "zero rows": (lambda d: np.savez(d / "a.npz", x=X[:0]), ["a.npz"], "no rows"),
    "text": (lambda d: np.savez(d / "a.npz", x=X.astype(str)), ["a.npz"], "dtype <U"),
    "objects": (lambda d: np.savez(d / "a.npz", x=X.astype(object)), ["a.npz"], "pickled"),
    "NaN": (lambda d: np.savez(d / "a.npz", x=with_value(np.nan, 41)), ["a.npz"], "row 41 of a.npz has NaN"),
    "infinity": (
        lambda d: np.savez(d / "a.npz", x=with_value(np.inf, 3, 9, 50)),
        ["a.npz"],
        "rows 3, 9 and more of a.npz",
    ),
    "NaN in y": (
        lambda d: np.savez(d / "a.npz", x=X, y=with_value(np.nan, 5, of=LABELS)),
        ["a.npz"],
        "row 5",
    ),
    "scale 0": (lambda d: None, ["digits", "--scale", "0"], "scale is 0"),
    "chunks of 0": (lambda d: None, ["digits", "--chunk-rows", "0"], "chunk_rows is 0"),
    "split of npy": (lambda d: np.save(d / "a.npy", X), ["a.npy:train"], "no parts"),
}


@pytest.mark.parametrize("case", INGEST)
def test_ingest_refuses(case, altmin, tmp_path):
    make, words, message = INGEST[case]
    make(tmp_path)
    before = files_below(tmp_path)
    outcome = altmin("ingest", words[0], "deep/er/new.zarr", *words[1:])
    refused(outcome, message)
    assert outcome.out == ""
    assert files_below(tmp_path) == before


def test_ingest_never_replaces_unasked(altmin, tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    np.savez(tmp_path / "bad.npz", x=with_value(np.nan, 59))
    assert altmin("ingest", "a.npz", "s.zarr").code == 0
    before = files_below(tmp_path)
    refused(altmin("ingest", "a.npz", "s.zarr"), "--overwrite")
    refused(altmin("ingest", "bad.npz", "s.zarr", "--overwrite"), "row 59")
    refused(altmin("ingest", "a.npz", "a.npz", "--overwrite"), "not a zarr store")
    refused(altmin("ingest", "a.npz", "a.npz/s.zarr"), "is not a folder")
    assert files_below(tmp_path) == before
    assert SampleStore.open("s.zarr").rows == 60
    assert altmin("ingest", "a.npz", "s.zarr", "--overwrite", "--chunk-rows", 7).code == 0
    assert SampleStore.open("s.zarr").chunk_rows == 7


def classes(d: Path, y: np.ndarray, **options: Any) -> Path:
    return foreign(d / "s.zarr", X, y, **options)


# what to make, further --set settings, what the sentence says
TRAIN: dict[str, tuple[Make, list[str], str]] = {
    "missing data": (lambda d: "gone.zarr", [], "gone.zarr"),
    "missing validation": (lambda d: foreign(d / "s.zarr", X), ["data.validation=gone.npz"], "gone.npz"),
    "no x in it": (lambda d: [zarr.create_group(d / "s.zarr"), d / "s.zarr"][1], [], "no array called x"),
    "one array": (lambda d: [zarr.create_array(d / "s.zarr", data=X), d / "s.zarr"][1], [], "one zarr array"),
    "rank 1": (lambda d: foreign(d / "s.zarr", X[:, 0]), [], "rank 1"),
    "no rows": (lambda d: foreign(d / "s.zarr", X[:0], chunk_rows=1), [], "no rows"),
    "lengths": (lambda d: classes(d, LABELS[2:]), [], "60 rows and"),
    "chunks": (lambda d: classes(d, LABELS, y_rows=20), [], "16 rows in a chunk of x and 20 in one of y"),
    "chunks through samples": (
        lambda d: (
            zarr.create_group(d / "s.zarr").create_array("x", data=X, chunks=(9, 2)) is not None
            and d / "s.zarr"
        ),
        [],
        "cut through samples",
    ),
    "one row": (
        lambda d: foreign(d / "s.zarr", X[:1], X[:1, 0], chunk_rows=1),
        ["network.kind=regressor"],
        "has 1 sample; training needs at least 2",
    ),
    "NaN": (lambda d: foreign(d / "s.zarr", with_value(np.nan, 57, 33, 35)), [], "rows 33 and 35 of "),
    "infinity": (lambda d: foreign(d / "s.zarr", with_value(-np.inf, 20)), [], "row 20 of "),
    "NaN in y": (
        lambda d: classes(d, with_value(np.nan, 8, of=LABELS)),
        ["network.kind=regressor"],
        "row 8 of ",
    ),
    "NaN in validation": (
        lambda d: foreign(d / "v.zarr", with_value(np.nan, 1)) and foreign(d / "s.zarr", X),
        ["data.validation=v.zarr"],
        "row 1 of ",
    ),
    "NaN in a raw source": (
        lambda d: np.savez(d / "a.npz", x=with_value(np.nan, 1)) or "a.npz",
        [],
        "row 1 of a.npz",
    ),
    "labels that are numbers": (
        lambda d: classes(d, LABELS / 2),
        ["network.kind=classifier"],
        "has the label 0.5; a classifier needs whole numbers or text, and a regressor takes other numbers",
    ),
    "one class": (lambda d: classes(d, LABELS * 0 + 7), ["network.kind=classifier"], "only one class, 7"),
    "other classes than were said": (
        lambda d: classes(d, LABELS * 100),
        ["network.kind=classifier", "network.classes=2"],
        "has 3 other labels: 0, 100 and 200",
    ),
    "no labels": (lambda d: foreign(d / "s.zarr", X), ["network.kind=classifier"], "no targets y"),
    "no targets": (lambda d: foreign(d / "s.zarr", X), ["network.kind=regressor"], "no targets y"),
    "more classes in validation": (
        lambda d: foreign(d / "v.zarr", X, LABELS + 1) and classes(d, LABELS),
        ["network.kind=classifier", "data.validation=v.zarr"],
        "label 3; the network has 3 classes",
    ),
    "validation of other width": (
        lambda d: foreign(d / "v.zarr", X[:, 1:]) and foreign(d / "s.zarr", X),
        ["data.validation=v.zarr"],
        "samples of 5 values; the network reads 6",
    ),
    "validation of other columns": (
        lambda d: foreign(d / "v.zarr", X, X[:, :2]) and classes(d, X[:, :3]),
        ["data.validation=v.zarr", "network.kind=regressor"],
        "2 columns; the network has 3 outputs",
    ),
    "above a sigmoid": (lambda d: foreign(d / "s.zarr", X * 3), [], "only reaches [0, 1]"),
    "below a sigmoid": (
        lambda d: classes(d, X[:, 0] - 0.5),
        ["network.kind=regressor", "network.output_activation=sigmoid"],
        "runs from -0",
    ),
    "raw above a sigmoid": (lambda d: "digits:test", [], "only reaches [0, 1]"),
    "unknown key": (lambda d: foreign(d / "s.zarr", X), ["solver.nu=1"], "solver.nu is not a setting"),
    "unknown table": (lambda d: foreign(d / "s.zarr", X), ["solvers.mu=1"], "solvers is not a setting"),
    "mu 0": (
        lambda d: foreign(d / "s.zarr", X),
        ["solver.mu=0"],
        "solver.mu = 0: input should be greater than 0",
    ),
    "mu below 0": (lambda d: foreign(d / "s.zarr", X), ["solver.mu=[0.1,-1]"], "solver.mu.1 = -1: "),
    "mu of three layers": (
        lambda d: foreign(d / "s.zarr", X),
        ["solver.mu=[1,1,1]"],
        "3 values for 2 layers",
    ),
    "width 0": (
        lambda d: foreign(d / "s.zarr", X),
        ["network.hidden_layer_sizes=[4,0]"],
        "network.hidden_layer_sizes.1 = 0: input should be greater than or equal to 1",
    ),
    "activations": (
        lambda d: foreign(d / "s.zarr", X),
        ['network.activation=["tanh","relu"]'],
        "1 hidden layers",
    ),
    "output activation": (
        lambda d: foreign(d / "s.zarr", X),
        ["network.output_activation=mish"],
        "network.output_activation = 'mish': input should be 'identity', 'sigmoid'",
    ),
    "loss": (
        lambda d: classes(d, LABELS),
        ["network.kind=classifier", "network.loss=squared"],
        "use 'cross_entropy'",
    ),
    "not a setting": (lambda d: foreign(d / "s.zarr", X), ["mu=1"], "write table.key=value"),
    "no value": (lambda d: foreign(d / "s.zarr", X), ["solver.mu"], "write table.key=value"),
    "key of a number": (
        lambda d: foreign(d / "s.zarr", X),
        ["solver.mu=1", "solver.mu.x=1"],
        "mu is not a table",
    ),
    "memory": (
        lambda d: foreign(d / "s.zarr", X),
        ["cluster.memory_limit=much"],
        "cluster.memory_limit = 'much'",
    ),
    "dashboard": (
        lambda d: foreign(d / "s.zarr", X),
        ["cluster.dashboard=here"],
        "cluster.dashboard = 'here'",
    ),
}


@pytest.mark.parametrize("case", TRAIN)
def test_train_refuses(case, altmin, tmp_path):
    make, settings, message = TRAIN[case]
    write_pipeline(tmp_path / "p.toml", make(tmp_path))
    before = files_below(tmp_path)
    refused(altmin("train", "p.toml", "--run", "deep/run", *settings), message)
    assert files_below(tmp_path) == before
    (tmp_path / "empty").mkdir()
    refused(altmin("train", "p.toml", "--run", "empty", *settings), message)
    assert files_below(tmp_path) == before | {"empty"}


PIPELINES = {
    "not TOML": ("[data", "not valid TOML"),
    "not text": (b"\xff\xfe", "not valid TOML"),
    "empty": (
        "",
        "data is missing: write a table [data] with train = SAMPLES; network is missing: write a table [network]",
    ),
    "number as string": (
        'data.train="d"\nnetwork.kind="autoencoder"\nsolver.ridge="1"',
        "solver.ridge = '1': ",
    ),
    "unknown kind": ('data.train="d"\nnetwork.kind="forest"', "network.kind = 'forest': "),
}


@pytest.mark.parametrize("case", PIPELINES)
def test_pipelines_that_are_none(case, altmin, tmp_path):
    content, message = PIPELINES[case]
    (tmp_path / "p.toml").write_bytes(content.encode() if isinstance(content, str) else content)
    refused(altmin("train", "p.toml"), message)
    refused(altmin("train", "gone.toml"), "gone.toml")
    refused(altmin("train", tmp_path), "name a TOML file")
    assert files_below(tmp_path) == {"p.toml"}


def test_run_folders_that_cannot_be_used(altmin, trained, tmp_path):
    file = trained / "autoencoder.toml"
    before = files_below(trained)
    refused(altmin("train", file, "--run", trained / "autoencoder"), "go on with it by --resume")
    refused(
        altmin("train", file, "--run", trained / "classifier", "--resume"), "another pipeline (network.kind"
    )
    refused(
        altmin("train", file, "--run", trained / "autoencoder", "--resume", "solver.mu=7"),
        "solver.mu: auto there, 7.0 here",
    )
    refused(altmin("train", file, "--run", "none", "--resume"), "no run to resume")
    refused(altmin("train", file, "--run", trained / "samples.zarr"), "not a run folder")
    refused(altmin("train", file, "--run", file), "not a run folder")
    refused(altmin("train", file, "--run", file / "run"), "is not a folder")
    assert files_below(trained) == before
    assert files_below(tmp_path) == set()


def test_samples_that_changed_under_a_run(altmin, tmp_path):
    foreign(tmp_path / "s.zarr", X)
    write_pipeline(tmp_path / "p.toml", "s.zarr")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    shutil.rmtree(tmp_path / "s.zarr")
    foreign(tmp_path / "s.zarr", X[:50])
    before = Path("run/pipeline.json").read_text()
    refused(
        altmin("train", "p.toml", "--run", "run", "--resume", "training.max_sweeps=4"),
        "rows: 60 there, 50 here",
    )
    assert Path("run/pipeline.json").read_text() == before


# what to make, the source, what evaluate says, what predict says or None where it need not care
APPLY: dict[str, tuple[Make, str, str | None]] = {
    "missing": (lambda d: "gone.npz", "gone.npz", "gone.npz"),
    "other width": (
        lambda d: foreign(d / "s.zarr", X[:, :4], LABELS),
        "values; the network reads 6",
        "reads 6",
    ),
    "NaN": (lambda d: foreign(d / "s.zarr", with_value(np.nan, 44), LABELS), "row 44 of ", "row 44 of "),
    "raw NaN": (lambda d: np.savez(d / "a.npz", x=with_value(np.nan, 4)) or "a.npz", "row 4 of", "row 4 of"),
    "too many classes": (lambda d: foreign(d / "s.zarr", X, LABELS + 1), "label 3; the network has 3", None),
    "negative": (lambda d: foreign(d / "s.zarr", X, LABELS - 2), "label -2", None),
    "float labels": (lambda d: foreign(d / "s.zarr", X, LABELS * 0.5), "has the label 0.5", None),
    "no labels": (lambda d: foreign(d / "s.zarr", X), "no targets y", None),
    "chunks": (lambda d: foreign(d / "s.zarr", X, LABELS, y_rows=20), "20 in one of y", "20 in one of y"),
}


@pytest.mark.parametrize("case", APPLY)
def test_evaluate_and_predict_refuse(case, altmin, trained, tmp_path):
    make, evaluated, predicted = APPLY[case]
    source = make(tmp_path)
    before = files_below(tmp_path)
    outcome = altmin("evaluate", trained / "classifier", source, "--json")
    refused(outcome, evaluated)
    assert outcome.out == ""
    outcome = altmin("predict", trained / "classifier", source, "deep/p.zarr")
    if predicted is None:
        assert outcome.code == 0
    else:
        refused(outcome, predicted)
        assert files_below(tmp_path) == before


def test_commands_on_what_is_no_run(altmin, trained, tmp_path):
    (tmp_path / "folder").mkdir()
    for run in ("gone", "folder", trained / "samples.zarr", trained / "classifier.toml"):
        refused(altmin("evaluate", run, "digits"), str(run))
        refused(altmin("predict", run, "digits", "p.zarr"), str(run))
        refused(altmin("report", run), str(run))
    assert files_below(tmp_path) == {"folder"}


def test_predict_never_replaces_unasked(altmin, trained, tmp_path):
    source = shutil.copytree(trained / "samples.zarr", tmp_path / "s.zarr")
    (tmp_path / "file").write_text("dear")
    run = trained / "classifier"
    assert altmin("predict", run, source, "p.zarr").code == 0
    before = files_below(tmp_path)
    refused(altmin("predict", run, source, "p.zarr"), "--overwrite")
    refused(altmin("predict", run, source, "file", "--overwrite"), "not a zarr store")
    refused(altmin("predict", run, source, "file/p.zarr"), "is not a folder")
    refused(altmin("predict", run, source, source, "--overwrite"), "holds the samples")
    refused(altmin("predict", run, source, "memory://p.zarr"), "gone when it ends")
    assert files_below(tmp_path) == before
    assert altmin("predict", run, source, "p.zarr", "--overwrite").code == 0
    assert files_below(tmp_path) == before


ADDRESSES = [
    "nowhere",
    "",
    "tcp://",
    "host:port",
    "tcp://127.0.0.1:99999",
    "http://127.0.0.1:80",
    "a b:1",
    "ucx://127.0.0.1:9",
    "tcp://[::1",
    "tcp://127.0.0.1:9/x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_are_none(address, altmin, trained, tmp_path):
    refused(
        altmin("train", trained / "autoencoder.toml", "--run", "run", "--scheduler", address),
        "HOST:PORT or tcp://HOST:PORT",
    )
    assert files_below(tmp_path) == set()
