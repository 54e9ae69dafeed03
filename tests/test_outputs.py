"""Predictions as csv, parquet and npy: the numbers of the zarr store, names of classes, and columns that are kept."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import threading
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import zarr
from choices import slow_but, taking_turns
from command import LABELS, X, files_below, foreign, refused, run_here, write_pipeline

from altmin_dask import outputs
from altmin_dask.data.formats import csv
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError, ExistsError
from altmin_dask.execution.threads import Threads
from altmin_dask.outputs import write_predictions
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

NAMES = np.array(["no", "may, be", 'y"es'])
IDS = np.array([f"{number:05d}" for number in range(60)])
COLUMNS = list("abcdef")
KEPT = ("id", "note", "made", "number")
TABLE = pd.DataFrame(X, columns=COLUMNS)
KINDS = {
    "text": ("classifier", NAMES[LABELS]),
    "numbers": ("classifier", LABELS * 10 - 5),
    "from 0": ("classifier", LABELS),
    "regressor": ("regressor", X[:, 0] * 3),
    "two outputs": ("regressor", X[:, :2] * 3),
    "autoencoder": ("autoencoder", None),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs on csv files, and their sources without targets, with columns that nobody trained on."""
    home = tmp_path_factory.mktemp("outputs")
    made = [datetime(2024, 1, 1 + i % 28) for i in range(60)]
    new = TABLE.assign(id=IDS, made=made, note=[None if i % 7 else "ä, b" for i in range(60)])
    new.to_csv(home / "new.csv", index=False)
    new.assign(number=pd.array([None if i % 9 == 0 else 2**60 + i for i in range(60)], "Int64")).to_parquet(
        home / "new.parquet"
    )
    for name, (kind, y) in KINDS.items():
        targets = {} if y is None else dict(zip(["y", "z"], np.atleast_2d(y.T), strict=False))
        TABLE.assign(**targets).to_csv(home / f"{name}.csv", index=False)
        data = {"chunk_rows": 16, "y": "y,z"} if name == "two outputs" else {"chunk_rows": 16}
        network = (
            {"dtype": "float32", "output_activation": "identity"}
            if kind == "autoencoder"
            else {"dtype": "float32"}
        )
        file = write_pipeline(home / "p.toml", home / f"{name}.csv", kind, data=data, network=network)
        assert run_here("train", file, "--run", home / name) == 0
    return home


@pytest.fixture(scope="module")
def stores(home):
    """The same predictions as zarr stores."""
    for name in KINDS:
        assert run_here("predict", home / name, home / "new.csv", home / f"{name}.zarr") == 0
    return {name: zarr.open_group(home / f"{name}.zarr", mode="r") for name in KINDS}


def expected(group, name):
    """The columns of a table."""
    prediction = np.asarray(group["prediction"][:], np.float64)
    if "label" not in group:
        names = {1: ["prediction"], 2: ["prediction_y", "prediction_z"]}
        columns = names.get(prediction.shape[1], [f"prediction_{column}" for column in COLUMNS])
        return pd.DataFrame(prediction, columns=columns)
    best = prediction.argmax(axis=1)
    classes = {"text": sorted(NAMES), "numbers": [-5, 5, 15], "from 0": [0, 1, 2]}[name]
    frame = pd.DataFrame({"label": np.array(classes)[best]})
    return pd.concat([frame, pd.DataFrame(prediction, columns=list(map(str, classes)))], axis=1)


def read(file):
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    found = pd.read_csv(file, dtype=str)
    for name in found.columns:
        if name == "label" and found[name][0] not in NAMES:
            found[name] = found[name].map(int)
        elif name not in ("label", *KEPT):
            found[name] = found[name].map(
                float
            )  # which older versions of pandas do not read to the last digit
    return found


@pytest.mark.parametrize(("ending", "name"), taking_turns(["csv", "parquet"], KINDS))
def test_tables(ending, name, altmin, home, stores, tmp_path):
    """Exactly the numbers of the zarr store, in the order of the source."""
    table = expected(stores[name], name)
    labels = "label" in table
    for words, wanted in (
        ([], table[["label"]] if labels else table),
        *([(["--proba"], table)] if labels else []),
    ):
        done = altmin("predict", home / name, home / "new.csv", f"deep/{len(words)}.{ending}", *words)
        assert (done.code, done.err) == (0, "")
        assert "predictions for 60 samples" in done.out
        found = read(tmp_path / "deep" / f"{len(words)}.{ending}")
        if ending == "parquet":
            assert set(found.dtypes[found.columns != "label"].map(str)) <= {"float32"}
            found = found.astype(dict.fromkeys(found.select_dtypes("float32"), "float64"))
        pd.testing.assert_frame_equal(found, wanted, check_exact=True, check_dtype=False)
    assert not [name for name in files_below(tmp_path) if "partial" in name]


@pytest.mark.parametrize("name", slow_but(["text", "two outputs", "autoencoder"], KINDS))
def test_arrays(name, altmin, home, stores, tmp_path):
    assert altmin("predict", home / name, home / "new.csv", "p.npy").code == 0
    found, group = np.load("p.npy"), stores[name]
    if "label" not in group:
        np.testing.assert_array_equal(found, group["prediction"][:])
        assert found.dtype == np.float32
        return
    np.testing.assert_array_equal(found, expected(group, name)["label"])
    assert altmin("predict", home / name, home / "new.csv", "p.NPY", "--proba").code == 0
    np.testing.assert_array_equal(np.load("p.NPY"), group["prediction"][:])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_are_kept_as_they_are_written(ending, altmin, home, stores, tmp_path, monkeypatch):
    """Zeros in front, gaps and digits too many for a float stay; block by block beside chunks of other rows."""
    monkeypatch.setattr(csv, "BLOCK_BYTES", 1500)
    words = ["--keep", "id, note", "--keep", "made"]
    for source in ("new.csv", "new.parquet"):
        more = ["--keep", "number"] if source == "new.parquet" else []
        dest = tmp_path / f"{source}.{ending}"
        done = altmin("predict", home / "text", home / source, dest, "--proba", *words, *more)
        assert (done.code, done.err) == (0, "")
        found = read(dest)
        table = expected(stores["text"], "text")
        assert list(found) == ["id", "note", "made", *(["number"] if more else []), *table]
        assert found["id"].tolist() == IDS.tolist()
        assert [value if isinstance(value, str) and value else None for value in found["note"]] == [
            None if i % 7 else "ä, b" for i in range(60)
        ]
        if more and ending == "csv":
            assert found["number"].fillna("").tolist() == [
                "" if i % 9 == 0 else str(2**60 + i) for i in range(60)
            ]
        if more and ending == "parquet":
            schema = pq.read_schema(dest)
            assert str(schema.field("number").type) == "int64"
            assert str(schema.field("id").type).endswith("string")
            assert pq.read_table(dest)["number"].to_pylist()[1] == 2**60 + 1
            assert str(schema.field("made").type).startswith("timestamp")
        numbers = found[["may, be", "no", 'y"es']].to_numpy(np.float64)
        np.testing.assert_array_equal(numbers, stores["text"]["prediction"][:])
        assert found["label"].tolist() == table["label"].tolist()


def test_files_of_a_folder_in_their_order(altmin, home, stores, tmp_path):
    """Whatever order their columns have."""
    new = TABLE.assign(id=IDS)
    (tmp_path / "d").mkdir()
    new[:20].to_csv("d/0.csv", index=False)
    new[20:45][reversed(new.columns)].to_csv("d/1.csv", index=False)
    new[45:].to_csv("d/2.csv", index=False)
    assert altmin("predict", home / "text", "d", "p.csv", "--keep", "id").code == 0
    found = pd.read_csv("p.csv", dtype=str)
    assert found["id"].tolist() == IDS.tolist()
    assert found["label"].tolist() == expected(stores["text"], "text")["label"].tolist()
    with gzip.open("z.csv.gz", "wt") as file:
        new.to_csv(file, index=False)
    assert altmin("predict", home / "text", "z.csv.gz", "q.csv", "--keep", "id").code == 0
    assert Path("q.csv").read_bytes() == Path("p.csv").read_bytes()


def test_what_cannot_be_written(altmin, home, tmp_path):
    new = home / "new.csv"
    np.savez("x.npz", x=X)
    TABLE.assign(label=1, no=1, prediction=1).to_csv("l.csv", index=False)
    before = files_below(tmp_path)
    for words, sentence in (
        (["text", new, "p.csv", "--keep", "gone"], "has no column 'gone'; it has a, b"),
        (["text", new, "p.csv", "--keep", "id,id"], "is named twice"),
        (
            ["text", "l.csv", "p.csv", "--keep", "label"],
            "columns 'label': that of the source, and the class that is predicted; leave it out of --keep, or rename",
        ),
        (
            ["text", "l.csv", "p.csv", "--keep", "no", "--proba"],
            "columns 'no': that of the source, and the probability of the class 'no'; leave out --proba, or that ",
        ),
        (
            ["regressor", "l.csv", "p.csv", "--keep", "prediction"],
            "columns 'prediction': that of the source, and what is predicted; leave it out of --keep",
        ),
        (
            ["text", new, "p.npy", "--keep", "id"],
            "has no place for columns to keep; write a .csv or .parquet",
        ),
        (["text", new, "p.zarr", "--keep", "id"], "has no place for columns to keep"),
        (["regressor", new, "p.csv", "--proba"], "a regressor gives no probabilities"),
        (["regressor", new, "s3://bucket/p.csv"], "to which predictions are written as a zarr store only"),
        (["regressor", new, "p.txt"], "or in .zarr for a store"),
        (["regressor", new, "p.csv.gz"], "or in .zarr for a store"),
    ):
        refused(altmin("predict", home / words[0], *words[1:]), sentence)
        assert files_below(tmp_path) == before


def test_a_class_called_label(altmin, tmp_path):
    TABLE.assign(y=np.array(["label", "other"])[LABELS % 2]).to_csv("t.csv", index=False)
    write_pipeline(tmp_path / "p.toml", "t.csv", "classifier")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    refused(
        altmin("predict", "run", "t.csv", "p.csv", "--proba"),
        "the class that is predicted, and the probability of the class 'label'; leave out --proba, or write a .npy ",
    )
    assert altmin("predict", "run", "t.csv", "p.csv").code == 0


def test_it_is_refused_before_samples_are_read(altmin, home, tmp_path, monkeypatch):
    """Which may take hours."""
    monkeypatch.setattr("altmin_dask.data.find.ingest", None)
    for dest in ("p.csv", "p.npy", "p.zarr"):
        (tmp_path / dest).write_text("dear")
        for words in ([], ["--overwrite"]):
            assert altmin("predict", home / "text", home / "new.csv", dest, *words).code in (
                2,
                1 if words else 2,
            )
        assert (tmp_path / dest).read_text() == "dear"


def test_columns_are_those_of_tables(altmin, trained, tmp_path):
    np.savez("x.npz", x=X)
    for source in ("x.npz", trained / "samples.zarr"):
        refused(altmin("predict", trained / "classifier", source, "p.csv", "--keep", "id"), "is no table")


@pytest.mark.parametrize("ending", slow_but(["csv", "npy"], ["csv", "parquet", "npy"]))
def test_only_files_of_that_kind_are_replaced_and_only_when_asked(ending, altmin, home, tmp_path):
    run, new, dest = home / "text", home / "new.csv", f"p.{ending}"
    assert altmin("predict", run, new, dest).code == 0
    first = Path(dest).read_bytes()
    refused(altmin("predict", run, new, dest), "--overwrite to replace it")
    assert altmin("predict", run, new, dest, "--overwrite", "--proba").code == 0
    assert Path(dest).read_bytes() != first
    for content in (b"\x00\xff precious", b"PK\x03\x04 \xff\xfe"):
        Path(dest).write_bytes(content)
        refused(altmin("predict", run, new, dest, "--overwrite"), "so it is never replaced")
        assert Path(dest).read_bytes() == content
    Path(dest).unlink()
    Path(dest).symlink_to(tmp_path / "elsewhere")
    refused(altmin("predict", run, new, dest, "--overwrite"), "so it is never replaced")
    Path(dest).unlink()
    Path(dest).mkdir()
    refused(altmin("predict", run, new, dest, "--overwrite"), "so it is never replaced")
    assert files_below(tmp_path) == {dest}


def test_the_samples_are_never_replaced(altmin, home, tmp_path):
    TABLE.to_csv("t.csv", index=False)
    (tmp_path / "d").mkdir()
    TABLE.to_csv("d/t.csv", index=False)
    before = Path("t.csv").read_bytes()
    for source, dest in (("t.csv", "t.csv"), ("t.csv", "./t.csv"), ("d", "d/p.csv")):
        refused(
            altmin("predict", home / "text", source, dest, "--overwrite"), "where the samples themselves are"
        )
    assert Path("t.csv").read_bytes() == before
    assert files_below(tmp_path) == {"t.csv", "d", "d/t.csv"}


def test_nothing_is_left_of_what_went_wrong(home, tmp_path, monkeypatch):
    """Neither of a file that is half-written, nor of the store beside it; nor is what somebody else has made lost."""
    store = SampleStore.open(home / "text" / "data" / "train.zarr")
    run, write = RunFolder(home / "text"), outputs.FILES[".csv"].write

    def fail(*args):
        write(*args)
        raise OSError(28, "No space left on device")

    def meanwhile(*args):
        write(*args)
        (tmp_path / "p.csv").write_text("theirs")

    before = files_below(tmp_path)
    for function, error in ((fail, OSError), (meanwhile, ExistsError)):
        kind = outputs.FileKind("a csv file", function, outputs._is_text)
        monkeypatch.setitem(outputs.FILES, ".csv", kind)
        with pytest.raises(error):
            write_predictions(run, store, tmp_path / "p.csv", Threads(1))
        assert files_below(tmp_path) - {"p.csv"} == before
    assert (tmp_path / "p.csv").read_text() == "theirs"


def test_what_a_killed_process_left_goes_the_next_time(altmin, home, stores, tmp_path):
    """But for what is somebody else's, and what another process may still be writing."""
    process = subprocess.Popen(["true"])
    process.wait()
    dead, alive = (
        f".p.csv.partial-{socket.gethostname()}-{pid}-0123abcd" for pid in (process.pid, os.getppid())
    )
    for name in (dead, alive):
        shutil.copytree(home / "text.zarr", name)
        (tmp_path / name / "p.csv").write_text("half")
    assert altmin("predict", home / "text", home / "new.csv", "p.csv").code == 0
    assert sorted(os.listdir(tmp_path)) == sorted([alive, "p.csv"])
    (tmp_path / dead).mkdir()
    (tmp_path / dead / "mine.txt").write_text("dear")
    assert altmin("predict", home / "text", home / "new.csv", "p.csv", "--overwrite").code == 0
    assert (tmp_path / dead / "mine.txt").read_text() == "dear"


def test_it_appears_when_it_is_complete(home, tmp_path, monkeypatch):
    store = SampleStore.open(home / "text" / "data" / "train.zarr")
    write, seen, go = outputs.FILES[".csv"].write, threading.Event(), threading.Event()

    def slow(*args):
        write(*args)
        seen.set()
        assert go.wait(30)

    monkeypatch.setitem(outputs.FILES, ".csv", outputs.FileKind("a csv file", slow, outputs._is_text))
    words = RunFolder(home / "text"), store, tmp_path / "p.csv", Threads(1)
    thread = threading.Thread(target=write_predictions, args=words)
    thread.start()
    assert seen.wait(30)
    assert not (tmp_path / "p.csv").exists()
    go.set()
    thread.join(30)
    assert os.listdir(tmp_path) == ["p.csv"]
    assert len(pd.read_csv(tmp_path / "p.csv")) == 60


def test_targets_are_no_matter(altmin, home, stores, tmp_path):
    """Whatever is in their place, in tables, arrays and stores; nor what labels of such a store would be called."""
    TABLE.assign(y=None).to_csv("empty.csv", index=False)
    TABLE.assign(y="others").to_csv("others.csv", index=False)
    for source in ("empty.csv", "others.csv"):
        assert altmin("predict", home / "text", source, f"{source}.pq", "--proba").code == 0
        found = pd.read_parquet(f"{source}.pq")
        np.testing.assert_array_equal(found.iloc[:, 1:], stores["text"]["prediction"][:])

    np.savez("t.npz", x=X, y=NAMES[LABELS])
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier", data={"chunk_rows": 16})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert altmin("predict", "run", "t.npz", "p.npy", "--proba").code == 0
    np.savez("nan.npz", x=X, y=np.full(60, np.nan))
    foreign(tmp_path / "plain.zarr", X)
    foreign(tmp_path / "numbers.zarr", X, LABELS)
    for source in ("nan.npz", "plain.zarr", "numbers.zarr"):
        assert altmin("predict", "run", source, f"{source}.npy", "--proba").code == 0
        np.testing.assert_array_equal(np.load(f"{source}.npy"), np.load("p.npy"))
    refused(altmin("evaluate", "run", "numbers.zarr"), "was prepared otherwise than the samples for training")
    run = home / "autoencoder"  # which has none
    losses = {
        json.loads(altmin("evaluate", run, source, "--json").out)["loss"]
        for source in ("empty.csv", "others.csv", home / "text.csv")
    }
    assert len(losses) == 1


def some_predictions(home, place, rows, chunk, part, parts):
    """So many rows of predictions, beside parts of a column."""
    group = zarr.create_group(place, attributes={"classes": sorted(NAMES)}, overwrite=True)
    group.create_array("prediction", shape=(rows, 3), chunks=(chunk, 3), dtype="float64")
    group.create_array("label", shape=(rows,), chunks=(chunk,), dtype="int64")
    kept = (pd.DataFrame({"id": np.arange(part)}) for _ in range(parts))
    model = Model.load(home / "text" / "model")
    return outputs.Predictions(group, model, chunk, True, ["label", *sorted(NAMES)], kept)


def peak_of_writing(ending, home, place, rows):
    """Bytes that are allocated at most, when libraries have made their caches."""
    for _ in range(2):
        some = some_predictions(home, place / "p.zarr", rows, 1000, 700, rows // 700)
        tracemalloc.start()
        outputs.FILES[f".{ending}"].write(some, place / f"out.{ending}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "parquet", "npy"])
def test_a_few_chunks_are_held_at_once(ending, home, tmp_path):
    """However many there are, with what is kept beside them; in a process of its own, where nobody else allocates."""
    rows = 140_000
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        peak = process.submit(peak_of_writing, ending, home, tmp_path, rows).result(timeout=120)
    assert peak < 8 * rows * 3 / 4


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(("parts", "how"), [(2, "fewer"), (4, "more")])
def test_a_source_that_has_changed_meanwhile(parts, how, ending, home, tmp_path):
    some = some_predictions(home, tmp_path / "p.zarr", 21, 5, 7, parts)
    with pytest.raises(DataError, match=f"the source has {how} rows"):
        outputs.FILES[f".{ending}"].write(some, tmp_path / "out")


def test_outputs_of_every_step(altmin, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4, 2))
    np.savez("t.npz", x=x, y=rng.integers(0, 2, (30, 4)) + 3)
    write_pipeline(tmp_path / "p.toml", "t.npz", "recurrent_classifier", training={"schedule": "kfac"})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    refused(altmin("predict", "run", "t.npz", "p.csv"), "an output for every step of a sequence")
    for dest, words in (("l.npy", []), ("p.npy", ["--proba"]), ("p.zarr", [])):
        assert altmin("predict", "run", "t.npz", dest, *words).code == 0
    np.testing.assert_array_equal(np.load("l.npy"), zarr.open_array("p.zarr/label")[:])
    np.testing.assert_array_equal(np.load("p.npy"), zarr.open_array("p.zarr/prediction")[:])


def test_rows_that_were_shuffled_say_which_they_are(altmin, trained, tmp_path):
    """Of a source predictions have the order it has; of a store that of the store, and the rows beside them."""
    np.savez(tmp_path / "t.npz", x=X, y=LABELS)
    assert altmin("ingest", "t.npz", "t.zarr", "--dtype", "float64").code == 0
    run = trained / "classifier"
    for source, dest in (("t.npz", "a.zarr"), ("t.zarr", "b.zarr"), ("t.npz", "a.csv"), ("t.zarr", "b.csv")):
        assert altmin("predict", run, source, dest, *(["--proba"] if dest.endswith("csv") else [])).code == 0
    rows, as_they_were = zarr.open_group("b.zarr", mode="r"), zarr.open_group("a.zarr", mode="r")
    assert "row" not in as_they_were
    np.testing.assert_array_equal(np.sort(rows["row"][:]), np.arange(len(X)))
    for name in ("prediction", "label"):
        np.testing.assert_array_equal(rows[name][:], as_they_were[name][:][rows["row"][:]])
    ordered = pd.read_csv("b.csv").sort_values("row", ignore_index=True).drop(columns="row")
    pd.testing.assert_frame_equal(ordered, pd.read_csv("a.csv"))
    assert altmin("predict", run, "t.zarr", "b.zarr", "--overwrite").code == 0
