"""The command line as a user meets it: whole jobs, and every kind of bad input in one sentence."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import zarr

from altmin_dask import cli
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.samples import SampleStore

RNG = np.random.default_rng(3)
X = RNG.random((60, 6))
LABELS = np.arange(60) % 3


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Altmin = Callable[..., Outcome]


@pytest.fixture
def altmin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Altmin]:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words: Any) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["altmin", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        return Outcome(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, handler)


def start(*words: Any, **options: Any) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    home = str(Path(cli.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": home, **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "altmin_dask", *map(str, words)],
        text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def write_pipeline(file: Path, train: Any, kind: str = "autoencoder", **tables: dict[str, Any]) -> Path:
    settings: dict[str, dict[str, Any]] = {
        "data": {"train": str(train)},
        "network": {"kind": kind, "hidden_layer_sizes": [5], "dtype": "float64"},
        "training": {"schedule": "incremental", "max_sweeps": 2},
        "cluster": {"workers": 2},
        "output": {"report": False},
    }
    for name, table in tables.items():
        settings.setdefault(name, {}).update(table)
    lines = []
    for name, table in settings.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    file.write_text("\n".join(lines))
    return file


def foreign(
    folder: Path, x: np.ndarray, y: np.ndarray | None = None, chunk_rows: int = 16, y_rows: int | None = None
) -> Path:
    """A zarr store as another program would write it."""
    group = zarr.create_group(folder)
    group.create_array("x", data=x, chunks=(chunk_rows, *x.shape[1:]))
    if y is not None:
        group.create_array("y", data=y, chunks=(y_rows or chunk_rows, *y.shape[1:]))
    return folder


# --- whole jobs


def test_digits_from_ingest_to_resume(altmin, tmp_path):
    """The autoencoder, by way of stores."""
    for part in ("train", "test"):
        done = altmin("ingest", f"digits:{part}", f"{part}.zarr", "--scale", 16, "--chunk-rows", 200)
        assert (done.code, done.err) == (0, "")
        assert "samples of 8×8" in done.out
        assert len(done.out.splitlines()) == 1
    assert SampleStore.open("train.zarr").n_chunks == 8
    write_pipeline(tmp_path / "digits.toml", "train.zarr", data={"validation": "test.zarr"})
    done = altmin(
        "train", "digits.toml", "--run", "run", "--set", "network.hidden_layer_sizes=[8]", "solver.mu=0.2"
    )
    assert (done.code, done.err) == (0, "")
    assert "run run: 64-8-64 autoencoder, 1437 samples in 8 chunks of 200, 2 threads" in done.out
    lines = [line for line in done.out.splitlines() if line.startswith("sweep ")]
    assert len(lines) == 3
    for word in ("CPU", "relaxed", "nested", "validation"):
        assert all(word in line for line in lines)
    assert json.loads(Path("run/pipeline.json").read_text())["pipeline"]["solver"]["mu"] == 0.2

    history = [json.loads(line) for line in Path("run/history.jsonl").read_text().splitlines()]
    assert [record["sweep"] for record in history] == [0, 1, 2]
    done = altmin("evaluate", "run", "test.zarr", "--json")
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    assert result["samples"] == 360
    assert result["accuracy"] is None
    assert result["loss"] == pytest.approx(history[-1]["validation_loss"], rel=1e-12)
    # a raw source is scaled as the training data were
    raw = json.loads(altmin("evaluate", "run", "digits:test", "--json").out)
    assert raw["loss"] == pytest.approx(result["loss"], rel=1e-12)
    done = altmin("evaluate", "run", "test.zarr")
    assert f"{result['loss']:.6g}" in done.out
    assert "accuracy" not in done.out

    done = altmin("predict", "run", "test.zarr", "out/predictions.zarr")
    assert (done.code, done.err) == (0, "")
    assert "predictions for 360 samples" in done.out
    assert zarr.open_array("out/predictions.zarr/prediction").shape == (360, 64)

    done = altmin("report", "run")
    assert (done.code, done.err) == (0, "")
    assert done.out.strip().endswith("report/report.html")
    assert Path("run/report/reconstructions.png").exists()

    done = altmin("train", "digits.toml", "--run", "run", "--resume", "--set", "network.hidden_layer_sizes=[8]",
                  "solver.mu=0.2", "training.max_sweeps=4", "output.report=true")  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert "report: " in done.out
    assert [r["sweep"] for r in RunFolder(Path("run")).records()] == [0, 1, 2, 3, 4]
    again = json.loads(altmin("evaluate", "run", "test.zarr", "--json").out)
    assert again["loss"] < result["loss"]


def test_a_classifier_from_a_raw_source(altmin, tmp_path):
    file = write_pipeline(
        tmp_path / "c.toml", "digits:train", "classifier",
        data={"validation": "digits:test", "scale": 16.0}, output={"run": "mine", "report": True},
    )  # fmt: skip
    done = altmin("train", file)
    assert (done.code, done.err) == (0, "")
    assert "64-5-10 classifier" in done.out
    result = json.loads(altmin("evaluate", "mine", "digits:test", "--json").out)
    last = RunFolder(Path("mine")).records()[-1]
    assert result["accuracy"] == pytest.approx(last["validation_accuracy"])
    assert "accuracy" in altmin("evaluate", "mine", "digits:test").out
    assert altmin("predict", "mine", "digits:test", "p.zarr").code == 0
    assert zarr.open_array("p.zarr/label").shape == (360,)
    # stores of a run's own are found where the folder is moved
    shutil.move("mine", "moved")
    assert json.loads(Path("moved/pipeline.json").read_text())["stores"]["train"] == "data/train.zarr"
    assert altmin("report", "moved").code == 0
    page = Path("moved/report/report.html").read_text()
    assert "the samples cannot be read" not in page
    assert Path("moved/report/predictions.png").exists()
    assert altmin("train", file, "--run", "moved", "--resume", "--set", "training.max_sweeps=3").code == 0


@pytest.mark.parametrize("columns", [None, 2])
def test_a_regressor_from_npz(altmin, tmp_path, columns):
    y = X @ RNG.random(6) if columns is None else X @ RNG.random((6, columns))
    np.savez(tmp_path / "data.npz", samples=X, targets=y)
    done = altmin("ingest", "data.npz", "data.zarr", "--x", "samples", "--y", "targets", "--chunk-rows", 16)
    assert (done.code, done.err) == (0, "")
    write_pipeline(tmp_path / "r.toml", "data.zarr", "regressor", network={"activation": "tanh"})
    done = altmin("train", "r.toml")
    assert (done.code, done.err) == (0, "")
    result = json.loads(altmin("evaluate", "runs/r", "data.zarr", "--json").out)
    assert result["samples"] == 60
    assert result["accuracy"] is None
    assert altmin("predict", "runs/r", "data.zarr", "p.zarr").code == 0
    assert zarr.open_array("p.zarr/prediction").shape == (60, columns or 1)


def test_runs_are_numbered_and_the_newest_is_resumed(altmin, tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    write_pipeline(tmp_path / "job.toml", "a.npz")
    assert altmin("train", "job.toml").code == 0
    assert altmin("train", "job.toml").code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["job", "job-2"]
    assert altmin("train", "job.toml", "training.max_sweeps=3", "--resume").code == 0
    assert len(RunFolder(Path("runs/job")).records()) == 3
    assert len(RunFolder(Path("runs/job-2")).records()) == 4


def test_everything_on_a_cluster(altmin, tmp_path, cluster_address):
    np.savez(tmp_path / "a.npz", x=X, y=LABELS)
    write_pipeline(tmp_path / "job.toml", "a.npz", "classifier", data={"chunk_rows": 20})
    done = altmin("train", "job.toml", "--run", "run", "--scheduler", cluster_address)
    assert (done.code, done.err) == (0, "")
    assert f"Dask cluster at {cluster_address}" in done.out
    there = altmin("evaluate", "run", "a.npz", "--json", "--scheduler", cluster_address)
    here = altmin("evaluate", "run", "a.npz", "--json")
    assert (there.code, there.err) == (0, "")
    assert there.out == here.out
    done = altmin("predict", "run", "a.npz", "p.zarr", "--scheduler", cluster_address.removeprefix("tcp://"))
    assert (done.code, done.err) == (0, "")


# --- bad input


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trained runs: an autoencoder, a classifier of three classes."""
    home = tmp_path_factory.mktemp("trained")
    foreign(home / "samples.zarr", X, LABELS)
    for kind in ("autoencoder", "classifier"):
        file = write_pipeline(home / f"{kind}.toml", home / "samples.zarr", kind)
        process = start("train", file, "--run", home / kind)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    return home


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
        "rows 3, 9 and 1 more of a.npz",
    ),
    "NaN in y": (lambda d: np.savez(d / "a.npz", x=X, y=with_value(np.nan, 5, of=LABELS)), ["a.npz"], "row 5"),
    "scale 0": (lambda d: None, ["digits", "--scale", "0"], "scale is 0"),
    "chunks of 0": (lambda d: None, ["digits", "--chunk-rows", "0"], "chunk_rows is 0"),
    "split of npy": (lambda d: np.save(d / "a.npy", X), ["a.npy:train"], "no parts"),
}  # fmt: skip


def refused(outcome: Outcome, message: str, code: int = 2) -> None:
    assert outcome.code == code, outcome
    assert outcome.err.startswith("altmin: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    assert message in outcome.err, outcome.err


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
        lambda d: zarr.create_group(d / "s.zarr").create_array("x", data=X, chunks=(9, 2)) is not None and d / "s.zarr",
        [], "cut through samples",
    ),
    "NaN": (lambda d: foreign(d / "s.zarr", with_value(np.nan, 57, 33, 35)), [], "rows 33 and 35 of "),
    "infinity": (lambda d: foreign(d / "s.zarr", with_value(-np.inf, 20)), [], "row 20 of "),
    "NaN in y": (
        lambda d: classes(d, with_value(np.nan, 8, of=LABELS)), ["network.kind=regressor"], "row 8 of ",
    ),
    "NaN in validation": (
        lambda d: foreign(d / "v.zarr", with_value(np.nan, 1)) and foreign(d / "s.zarr", X),
        ["data.validation=v.zarr"], "row 1 of ",
    ),
    "NaN in a raw source": (lambda d: np.savez(d / "a.npz", x=with_value(np.nan, 1)) or "a.npz", [], "row 1 of a.npz"),
    "float labels": (lambda d: classes(d, LABELS / 1.0), ["network.kind=classifier"], "integer labels"),
    "negative labels": (lambda d: classes(d, LABELS - 1), ["network.kind=classifier"], "label -1"),
    "labels that are numbers": (lambda d: classes(d, LABELS * 100), ["network.kind=classifier"], "not classes"),
    "no labels": (lambda d: foreign(d / "s.zarr", X), ["network.kind=classifier"], "no targets y"),
    "no targets": (lambda d: foreign(d / "s.zarr", X), ["network.kind=regressor"], "no targets y"),
    "more classes in validation": (
        lambda d: foreign(d / "v.zarr", X, LABELS + 1) and classes(d, LABELS),
        ["network.kind=classifier", "data.validation=v.zarr"], "label 3; the network has 3 classes",
    ),
    "validation of other width": (
        lambda d: foreign(d / "v.zarr", X[:, 1:]) and foreign(d / "s.zarr", X),
        ["data.validation=v.zarr"], "samples of 5 values; the network reads 6",
    ),
    "validation of other columns": (
        lambda d: foreign(d / "v.zarr", X, X[:, :2]) and classes(d, X[:, :3]),
        ["data.validation=v.zarr", "network.kind=regressor"], "2 columns; the network has 3 outputs",
    ),
    "above a sigmoid": (lambda d: foreign(d / "s.zarr", X * 3), [], "only reaches [0, 1]"),
    "below a sigmoid": (
        lambda d: classes(d, X[:, 0] - 0.5),
        ["network.kind=regressor", "network.output_activation=sigmoid"], "runs from -0",
    ),
    "raw above a sigmoid": (lambda d: "digits:test", [], "only reaches [0, 1]"),
    "unknown key": (lambda d: foreign(d / "s.zarr", X), ["solver.nu=1"], "solver.nu is not a setting"),
    "unknown table": (lambda d: foreign(d / "s.zarr", X), ["solvers.mu=1"], "solvers is not a setting"),
    "mu 0": (lambda d: foreign(d / "s.zarr", X), ["solver.mu=0"], "solver.mu = 0: input should be greater than 0"),
    "mu below 0": (lambda d: foreign(d / "s.zarr", X), ["solver.mu=[0.1,-1]"], "solver.mu.1 = -1: "),
    "mu of three layers": (lambda d: foreign(d / "s.zarr", X), ["solver.mu=[1,1,1]"], "3 values for 2 layers"),
    "width 0": (
        lambda d: foreign(d / "s.zarr", X), ["network.hidden_layer_sizes=[4,0]"],
        "network.hidden_layer_sizes.1 = 0: input should be greater than or equal to 1",
    ),
    "activations": (lambda d: foreign(d / "s.zarr", X), ['network.activation=["tanh","relu"]'], "1 hidden layers"),
    "output activation": (lambda d: foreign(d / "s.zarr", X), ["network.output_activation=gelu"], "'gelu' is unknown"),
    "loss": (lambda d: classes(d, LABELS), ["network.kind=classifier", "network.loss=squared"], "use 'cross_entropy'"),
    "not a setting": (lambda d: foreign(d / "s.zarr", X), ["mu=1"], "write table.key=value"),
    "no value": (lambda d: foreign(d / "s.zarr", X), ["solver.mu"], "write table.key=value"),
    "key of a number": (lambda d: foreign(d / "s.zarr", X), ["solver.mu=1", "solver.mu.x=1"], "mu is not a table"),
    "memory": (lambda d: foreign(d / "s.zarr", X), ["cluster.memory_limit=much"], "cluster.memory_limit = 'much'"),
    "dashboard": (lambda d: foreign(d / "s.zarr", X), ["cluster.dashboard=here"], "cluster.dashboard = 'here'"),
}  # fmt: skip


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
    "empty": ("", "data is missing; network is missing"),
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
        "solver.mu: 0.03 there, 7.0 here",
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
    "other width": (lambda d: foreign(d / "s.zarr", X[:, :4], LABELS), "values; the network reads 6", "reads 6"),
    "NaN": (lambda d: foreign(d / "s.zarr", with_value(np.nan, 44), LABELS), "row 44 of ", "row 44 of "),
    "raw NaN": (lambda d: np.savez(d / "a.npz", x=with_value(np.nan, 4)) or "a.npz", "row 4 of", "row 4 of"),
    "too many classes": (lambda d: foreign(d / "s.zarr", X, LABELS + 1), "label 3; the network has 3", None),
    "negative": (lambda d: foreign(d / "s.zarr", X, LABELS - 2), "label -2", None),
    "float labels": (lambda d: foreign(d / "s.zarr", X, LABELS * 0.5), "integer labels", None),
    "no labels": (lambda d: foreign(d / "s.zarr", X), "no targets y", None),
    "chunks": (lambda d: foreign(d / "s.zarr", X, LABELS, y_rows=20), "20 in one of y", "20 in one of y"),
}  # fmt: skip


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
    refused(altmin("predict", run, source, "memory://p.zarr"), "not written to a URL")
    assert files_below(tmp_path) == before
    assert altmin("predict", run, source, "p.zarr", "--overwrite").code == 0
    assert files_below(tmp_path) == before


ADDRESSES = ["nowhere", "", "tcp://", "host:port", "tcp://127.0.0.1:99999", "http://127.0.0.1:80", "a b:1",
             "ucx://127.0.0.1:9", "tcp://[::1", "tcp://127.0.0.1:9/x"]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_are_none(address, altmin, trained, tmp_path):
    refused(
        altmin("train", trained / "autoencoder.toml", "--run", "run", "--scheduler", address),
        "HOST:PORT or tcp://HOST:PORT",
    )
    assert files_below(tmp_path) == set()


def test_a_scheduler_that_does_not_answer(trained, tmp_path):
    """In a process of its own, with all that the libraries would log."""
    words = ("--scheduler", "127.0.0.1:9")
    program = (
        "from altmin_dask import cli; from altmin_dask.engine import executors as e\n"
        "e.CONNECT_SECONDS = 1; cli.main()"
    )
    for command in (
        ("train", trained / "autoencoder.toml", "--run", "run"),
        ("predict", trained / "autoencoder", trained / "samples.zarr", "p.zarr"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, command), *words], capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}, timeout=60,
        )  # fmt: skip
        refused(
            Outcome(done.returncode, done.stdout, done.stderr), "no Dask scheduler answers at 127.0.0.1:9"
        )
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    "words",
    [["train"], ["train", "p.toml", "--speed"], ["fly"], ["ingest", "digits"],
     ["ingest", "digits", "d", "--scale", "x"], ["evaluate", "run"], ["report"], ["predict", "run", "digits"]],
)  # fmt: skip
def test_wrong_usage(words, altmin, tmp_path):
    outcome = altmin(*words)
    assert outcome.code == 2
    assert "Usage: altmin" in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert files_below(tmp_path) == set()


def test_help(altmin):
    assert "Usage: altmin" in altmin("--help").out
    for command in ("ingest", "train", "evaluate", "predict", "report"):
        done = altmin(command, "--help")
        assert done.code == 0
        assert f"Usage: altmin {command}" in done.out


# --- what nobody asked for


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("out of\nluck"), 1, "RuntimeError: out of luck (ALTMIN_DEBUG=1 shows where)"),
        (OSError(28, "No space left on device", "s.zarr"), 1, "No space left on device"),
        (PermissionError(13, "Permission denied", "s.zarr"), 2, "s.zarr: Permission denied"),
        (KeyboardInterrupt(), 1, "interrupted"),
    ],
)
def test_what_is_unexpected(error, code, message, altmin, monkeypatch):
    def fail(*args: Any, **settings: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "ingest", fail)
    refused(altmin("ingest", "digits", "s.zarr"), message, code)


def test_debugging_shows_the_traceback(altmin, monkeypatch):
    monkeypatch.setenv("ALTMIN_DEBUG", "1")
    monkeypatch.setattr(cli, "open_source", lambda *args, **names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        altmin("ingest", "digits", "s.zarr")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(how, trained, tmp_path):
    process = start(
        "train", trained / "autoencoder.toml", "training.max_sweeps=1000000", "--run", "run", cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not RunFolder(tmp_path / "run").started and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    refused(Outcome(process.returncode, out, err), "--run run --resume", 1)
    state = RunFolder(tmp_path / "run").restore()
    assert state is not None
    assert not [name for name in files_below(tmp_path) if "partial" in name]


# --- the display


def on_terminal(*words: Any, columns: int, cwd: Path) -> tuple[int, str]:
    """Run the command line under a pseudo-terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "altmin_dask", *map(str, words)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=cwd,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    return process.wait(timeout=60), shown.decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_live_line_on_a_terminal(columns, trained, tmp_path):
    file = trained / "autoencoder.toml"
    code, shown = on_terminal(
        "train", file, "--run", "run", "training.max_sweeps=12", columns=columns, cwd=tmp_path
    )
    assert code == 0
    assert "\x1b[2K" in shown  # a line that is redrawn
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    number = r"\d[\d.e+-]*"
    live = rf"sweep {number} of 12  group [1-4]/4  relaxed {number}  nested {number}  \d+ s left"
    assert re.search(live, plain), plain
    assert re.search(r"sweep +12\.000  CPU", plain)
    assert "Result" in plain


def test_plain_lines_anywhere_else(trained, tmp_path):
    process = start("train", trained / "classifier.toml", "--run", "run", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert "\r" not in out
    assert out.startswith("run run: 6-5-3 classifier, 60 samples in 4 chunks of 16, ")
    assert [line.split()[1] for line in out.splitlines() if line.startswith("sweep ")] == [
        "0.000",
        "1.000",
        "2.000",
    ]


def test_a_failed_command_on_a_terminal(tmp_path):
    code, shown = on_terminal("ingest", "gone.npz", "s.zarr", columns=80, cwd=tmp_path)
    assert code == 2
    assert shown.startswith("altmin: there is no file or folder gone.npz")
