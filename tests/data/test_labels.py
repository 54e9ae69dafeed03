"""Labels as people have them: whole numbers or text are classes, by the same weights, and named in what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from choices import slow_but, taking_turns
from command import LABELS, X, files_below, foreign, refused, write_pipeline
from PIL import Image
from sklearn.metrics import confusion_matrix

from altmin_dask.config import NetworkTable
from altmin_dask.data.labels import distinct, listed, numbered
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.data.streams import sliced
from altmin_dask.errors import AltMinWarning, ConfigError, DataError
from altmin_dask.report.facts import Facts
from altmin_dask.report.page import sections_of
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.labels import find_classes

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

TEXT = np.array(["a cat", "dog", "ñandú"])
KINDS = {
    "from 0": np.arange(3),
    "from 1": np.arange(1, 4),
    "around 0": np.array([-1, 0, 1]),
    "with gaps": np.array([0, 7, 100_000_007]),
    "floats": np.array([0.0, 1.0, 2.0]),
    "floats from 1": np.array([1.0, 2.0, 3.0]),
    "bytes": np.array([3, 200, 255], np.uint8),
    "text": TEXT,
    "bytes of text": np.char.encode(TEXT, "utf-8"),
}
FORMATS = ("npz", "npy", "zarr", "csv", "parquet")


def write(place: Path, kind: str, y: np.ndarray) -> str:
    """The samples in files of a kind; gives the name of the source."""
    place.mkdir(exist_ok=True)
    if kind == "npz":
        np.savez(place / "t.npz", x=X, y=y)
    elif kind == "npy":
        np.save(place / "t.npy", X)
        np.save(place / "y.npy", y)
    elif kind == "zarr":
        foreign(place / "t.zarr", X, y.astype(np.dtypes.StringDType()) if y.dtype.kind == "U" else y)
    else:
        names = y.astype("U") if y.dtype.kind == "S" else y
        frame = pd.DataFrame(X, columns=list("abcdef")).assign(y=names)
        frame.to_csv(place / "t.csv", index=False) if kind == "csv" else frame.to_parquet(place / "t.parquet")
    return str(place / f"t.{kind}")


def train(altmin, place: Path, source: str, *settings: str) -> Model:
    data: dict[str, Any] = {"chunk_rows": 16, "shuffle": False}
    if source.endswith(".npy"):
        data["y"] = str(place / "y.npy")
    write_pipeline(place / "p.toml", source, "classifier", data=data)
    done = altmin("train", place / "p.toml", "--run", place / "run", *settings)
    assert (done.code, done.err) == (0, "")
    return Model.load(place / "run" / "model")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Weights by labels 0, 1 and 2."""
    from command import run_here

    home = tmp_path_factory.mktemp("plain")
    np.savez(home / "t.npz", x=X, y=LABELS)
    write_pipeline(home / "p.toml", home / "t.npz", "classifier", data={"chunk_rows": 16, "shuffle": False})
    assert run_here("train", home / "p.toml", "--run", home / "run") == 0
    return Model.load(home / "run" / "model")


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_but(["from 1", "bytes of text"], KINDS))
def test_any_labels_give_the_same_weights(kind, plain, altmin, tmp_path):
    """And the names they had come back: in predictions, in `evaluate`, in the model."""
    names = KINDS[kind]
    y = names[LABELS]
    source = write(tmp_path / "npz", "npz", y)
    model = train(altmin, tmp_path / "npz", source)
    for ours, theirs in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    done = altmin("predict", tmp_path / "npz" / "run", source, "p.zarr")
    assert (done.code, done.err) == (0, "")
    group = zarr.open_group("p.zarr", mode="r")
    best = np.asarray(group["prediction"][:]).argmax(axis=1)
    text = names.dtype.kind in "US"
    np.testing.assert_array_equal(group["label"][:], best if text else names[best])
    found = json.loads(altmin("evaluate", tmp_path / "npz" / "run", source, "--json").out)
    assert found["classes"] == (TEXT if text else names).tolist()
    assert found["accuracy"] == np.mean(best == LABELS)
    if kind in ("from 0", "floats"):
        assert model.preparation is None
    else:
        assert model.preparation.classes == tuple(map(str, TEXT if text else names.astype(int)))


@pytest.mark.parametrize(("format", "labels"), taking_turns(FORMATS[1:], ["from 1", "text", "floats from 1"]))
def test_whatever_files_they_are_in(format, labels, plain, altmin, tmp_path):
    y = KINDS[labels][LABELS]
    source = write(tmp_path / "d", format, y)
    before = files_below(tmp_path)
    model = train(altmin, tmp_path / "d", source)
    for ours, theirs in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert {
        name for name in files_below(tmp_path) if not name.startswith("d/run") and name != "d/p.toml"
    } == before
    words = ["--y", tmp_path / "d" / "y.npy"] if format == "npy" else []
    found = json.loads(altmin("evaluate", tmp_path / "d" / "run", source, "--json", *words).out)
    assert found["samples"] == 60
    assert found["classes"] == KINDS[labels].tolist()


@pytest.mark.parametrize("kind", slow_but(["from 1"], ["from 1", "floats", "around 0"]))
def test_stores_keep_the_numbers_they_were_given(kind, plain, altmin, tmp_path):
    """What the labels are is found by a run, which knows what they are for: they may as well be numbers to fit."""
    y = KINDS[kind][LABELS]
    np.savez(tmp_path / "t.npz", x=X, y=y)
    assert (
        altmin("ingest", "--no-shuffle", "t.npz", "t.zarr", "--dtype", "float64", "--chunk-rows", 16).code
        == 0
    )
    np.testing.assert_array_equal(SampleStore.open("t.zarr").y[:], y)
    before = {name: Path(name).read_bytes() for name in files_below(tmp_path) if Path(name).is_file()}
    model = train(altmin, tmp_path, "t.zarr")
    assert {name: Path(name).read_bytes() for name in before} == before
    np.testing.assert_array_equal(model.weights[0], plain.weights[0])
    write_pipeline(tmp_path / "r.toml", "t.zarr", "regressor")
    assert altmin("train", "r.toml", "--run", "regressor").code == 0
    assert Model.load(tmp_path / "regressor" / "model").network.widths[-1] == 1
    # a resumed run finds the same classes, or says that they are others
    assert altmin("train", "p.toml", "--run", "run", "--resume", "training.max_sweeps=3").code == 0
    group = zarr.open_group("t.zarr")
    group["y"][:] = np.array([3, 4, 9])[LABELS]
    group.attrs["altmin"] = {**group.attrs["altmin"], "summary": None}
    refused(altmin("train", "p.toml", "--run", "run", "--resume", "training.max_sweeps=4"), "labels: ")


@pytest.mark.slow
def test_booleans(altmin, tmp_path):
    y = X[:, 0] > 0.5
    found = []
    for format in (*FORMATS[::2], "csv"):
        source = write(tmp_path / format, format, y)
        train(altmin, tmp_path / format, source)
        assert altmin("predict", tmp_path / format / "run", source, f"{format}-p.zarr").code == 0
        found.append(zarr.open_array(f"{format}-p.zarr/label")[:].tolist())
        assert set(found[-1]) <= {0, 1}
    assert all(each == found[0] for each in found)


def test_folders_of_images_with_labels_of_text(altmin, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("10", "9"):  # in the order of text, as the folders lie there
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    write_pipeline(tmp_path / "p.toml", "images", "classifier", data={"scale": 255})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    found = json.loads(altmin("evaluate", "run", "images", "--json").out)
    assert found["classes"] == ["10", "9"]
    # one class is none
    (tmp_path / "one").mkdir()
    (tmp_path / "images" / "9").rename(tmp_path / "one" / "9")
    write_pipeline(tmp_path / "q.toml", "one", "classifier", data={"scale": 255})
    refused(altmin("train", "q.toml"), "has only one class, '9'; a classifier needs at least two")


@pytest.mark.parametrize(
    ("value", "format"), taking_turns([0, 7, -1.0, 1.0, "yes", True], ["npz", "csv", "zarr"])
)
def test_one_class_is_refused(format, value, altmin, tmp_path):
    source = write(tmp_path / "d", format, np.full(60, value))
    write_pipeline(tmp_path / "p.toml", source, "classifier")
    before = files_below(tmp_path)
    for command in ("train", "plan"):
        refused(altmin(command, "p.toml"), "has only one class, ")
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("format", ["npz", "csv", "zarr"])
def test_numbers_are_no_classes(format, altmin, tmp_path):
    source = write(tmp_path / "d", format, X[:, 0])
    write_pipeline(tmp_path / "p.toml", source, "classifier")
    refused(
        altmin("train", "p.toml"),
        "a classifier needs whole numbers or text, and a regressor takes other numbers",
    )


def test_columns_are_no_labels(altmin, tmp_path):
    np.savez(tmp_path / "t.npz", x=X, y=np.eye(3)[LABELS])
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier")
    refused(altmin("train", "p.toml"), "has labels of shape (3,) for every sample; a classifier needs one")


def test_text_is_nothing_to_fit(altmin, tmp_path):
    for format in ("npz", "zarr"):
        source = write(tmp_path / format, format, TEXT[LABELS])
        write_pipeline(tmp_path / "p.toml", source, "regressor")
        refused(altmin("train", "p.toml"), "is text (a cat, dog, ñandú, …), which has no distances")


@pytest.mark.parametrize(
    ("known", "others", "sentence"),
    [
        ("from 1", np.array([1, 2, 4]), "has the label 4, and the classes are 1, 2 and 3"),
        ("around 0", np.array([5, 0, 9]), "has the labels 5 and 9, and the classes are -1, 0 and 1"),
        ("from 0", np.array([0, 1, 3]), "label 3; the network has 3 classes"),
        ("from 0", np.array([0.0, 1.0, 3.0]), "has the label 3, and the classes are 0, 1 and 2"),
        ("text", np.array(["dog", "cow", "a cat"]), "has 'cow', which the samples for training had not"),
        (
            "text",
            np.arange(3),
            "has numbers, and the samples for training had text ('a cat', 'dog' and 'ñandú')",
        ),
        ("from 1", TEXT, "are text, and those of the samples for training are numbers"),
    ],
)
def test_labels_that_were_not_there_are_refused(known, others, sentence, altmin, tmp_path):
    """At evaluation and for validation; nobody asks for them at prediction."""
    for name, labels in (("t", KINDS[known]), ("v", others)):
        np.savez(tmp_path / f"{name}.npz", x=X, y=labels[LABELS])
    train(altmin, tmp_path, "t.npz")
    refused(altmin("evaluate", "run", "v.npz"), sentence)
    assert altmin("predict", "run", "v.npz", "p.zarr").code == 0
    write_pipeline(tmp_path / "q.toml", "t.npz", "classifier", data={"validation": "v.npz"})
    refused(altmin("train", "q.toml", "--run", "other"), sentence)


@pytest.mark.filterwarnings("ignore:v.npz has no samples of the classes 1 and 3. what is measured there")
def test_validation_may_have_fewer_classes_and_other_numbers_for_them(altmin, tmp_path):
    np.savez(tmp_path / "t.npz", x=X, y=LABELS + 1)
    np.savez(tmp_path / "v.npz", x=X, y=np.full(60, 2.0))
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier", data={"validation": "v.npz"})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    kept = min(RunFolder(tmp_path / "run").records(), key=lambda record: record["validation_loss"])
    assert altmin("predict", "run", "v.npz", "p.zarr").code == 0
    assert kept["validation_accuracy"] == np.mean(zarr.open_array("p.zarr/label")[:] == 2)


def test_labels_of_steps(altmin, tmp_path):
    """−1 is a step without a target, whatever the others are."""
    rng = np.random.default_rng(0)
    x, steps = rng.normal(size=(40, 3, 2)), rng.integers(0, 2, (40, 3))
    steps[rng.random(steps.shape) < 0.3] = -1
    weights = []
    for labels in (np.array([0, 1, -1]), np.array([4, 7, -1])):
        np.savez(tmp_path / "t.npz", x=x, y=labels[steps])
        write_pipeline(tmp_path / "p.toml", "t.npz", "recurrent_classifier", training={"schedule": "kfac"})
        assert altmin("train", "p.toml", "--run", f"run{labels[1]}").code == 0
        weights.append(Model.load(tmp_path / f"run{labels[1]}" / "model").weights)
    np.testing.assert_array_equal(weights[0][0], weights[1][0])
    assert altmin("predict", "run7", "t.npz", "p.zarr").code == 0
    assert set(np.unique(zarr.open_array("p.zarr/label")[:])) <= {4, 7}
    for y, sentence in (
        (np.where(steps < 0, -1, 4), "only one class, 4"),
        (np.where(steps < 0, -1, 1), "only one class, 1"),
        (np.full((40, 3), -1), "has no labels but -1"),
    ):
        np.savez(tmp_path / "t.npz", x=x, y=y)
        refused(altmin("train", "p.toml", "--run", "other"), sentence)
        assert (
            altmin("ingest", "--no-shuffle", "t.npz", "t.zarr", "--overwrite", "--dtype", "float64").code == 0
        )
        refused(altmin("train", "p.toml", "--run", "other", "data.train=t.zarr"), sentence)


@pytest.mark.parametrize("name", ["no. {}".format, lambda n: 3.0 * n + 1])
def test_the_report_names_them(name, altmin, tmp_path):
    """Confusions are counted, and errors shown, by the names that labels were given."""
    x, y = next(open_source("digits:test").blocks(360))
    np.savez(tmp_path / "t.npz", x=x / 16, y=[name(n) for n in y])
    settings = {"training": {"schedule": "kfac"}, "data": {"shuffle": False}}
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier", **settings)
    assert altmin("train", "p.toml", "--run", "run").code == 0
    run = RunFolder(tmp_path / "run")
    (_, section, *_), notes = sections_of(Facts.of(run))
    matrix, errors = section.pictures
    assert notes == []
    predicted = Model.load(run.model).predict(x / 16).argmax(axis=1)
    wrong = np.flatnonzero(predicted != y)
    assert f"{len(wrong)} of 360 are wrong" in matrix.caption
    counts, names = matrix.draw.args
    assert counts.tolist() == confusion_matrix(y, predicted, labels=range(10)).tolist()
    _, *shown = errors.draw.args
    for texts, places in zip((names, *shown), (range(10), y[wrong[:24]], predicted[wrong[:24]]), strict=True):
        assert texts == [f"{name(n):.0f}" if name(n) == n * 3 + 1 else name(n) for n in places]


# --- what finds them


def find(y: np.ndarray, classes: int | None = None, kind: str = "classifier"):
    settings = NetworkTable(kind=kind, classes=classes)
    return find_classes(settings, sliced(y, "y"), None, None)


def test_classes_that_are_announced_are_taken_as_they_are():
    """Also where samples are not of all of them, as in a part of a stream."""
    assert find(np.array([0, 0, 0]), 3).labels is None
    assert find(np.array([2, 0, 2]), 5).count == 5
    assert find(np.array([3, 7, 3]), 2).labels == (3, 7)
    with pytest.raises(ConfigError, match=r"network.classes = 3, and y has 2 other labels: 3 and 7"):
        find(np.array([3, 7, 3]), 3)


@pytest.mark.parametrize("classes", [2, 5])
def test_there_are_as_many_classes_as_names(classes, altmin, tmp_path):
    """More were trained on, and had no names where predictions and reports wanted them; fewer were not heeded."""
    source = write(tmp_path / "d", "npz", TEXT[LABELS])
    write_pipeline(tmp_path / "p.toml", source, "classifier", network={"classes": classes})
    names = " and ".join(", ".join(map(repr, TEXT.tolist())).rsplit(", ", 1))
    words = f"t.npz has 3 classes by their names: {names}; leave it out"
    refused(altmin("train", "p.toml", "--run", "run"), words)
    assert altmin("train", "p.toml", "--run", "run", "--set", "network.classes=3").code == 0


def test_nearly_as_many_labels_as_samples_are_doubted():
    with pytest.warns(AltMinWarning, match="has 40 different labels in 60 rows; if these are numbers"):
        assert find(np.arange(60) % 40 + 5).count == 40
    assert find(np.arange(60) % 30).count == 30


def test_too_many_are_refused(monkeypatch):
    monkeypatch.setattr("altmin_dask.data.labels.MOST", 50)
    with pytest.raises(DataError, match="more than 50 different labels"):
        find(np.arange(60))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5, 2.0**53])
def test_what_is_no_label(value):
    words = "has missing labels" if np.isnan(value) else "a classifier needs whole numbers"
    with pytest.raises(DataError, match=words):
        find(np.array([0.0, 1.0, value]))


def test_missing_labels(altmin, tmp_path):
    np.savez("t.npz", x=X, y=np.where(LABELS > 1, "", "a"))
    refused(
        altmin("ingest", "--no-shuffle", "t.npz", "t.zarr"), "has labels that are empty; leave such rows out"
    )
    pd.DataFrame(X, columns=list("abcdef")).assign(y=[None, *LABELS[1:]]).to_csv("t.csv", index=False)
    write_pipeline(tmp_path / "p.toml", "t.csv", "classifier")
    refused(
        altmin("train", "p.toml"),
        "has no value in the target 'y' in 1 row of 60 (line 2); leave such rows out",
    )


@pytest.mark.parametrize("kind", slow_but(["text"], ["from 1", "text", "floats"]))
def test_a_column_of_labels(kind, plain, altmin, tmp_path):
    """(rows, 1), as some programs have them."""
    np.savez("t.npz", x=X, y=KINDS[kind][LABELS][:, None])
    model = train(altmin, tmp_path, "t.npz")
    np.testing.assert_array_equal(model.weights[0], plain.weights[0])


def test_distinct_values_of_many_blocks(monkeypatch):
    monkeypatch.setattr("altmin_dask.data.labels._BLOCK", 7)
    for names in KINDS.values():
        np.testing.assert_array_equal(distinct(sliced(names[LABELS], "y")), np.unique(names))


def test_places_of_labels():
    y = np.array([[7, -1], [3, 9]])
    assert numbered(y, (3, 7, 9)).tolist() == [[1, -1], [0, 2]]
    with pytest.raises(DataError, match="the labels -1"):
        numbered(y[:, 1:], (3, 7, 9))  # no steps
    with pytest.raises(DataError, match="the labels 3 and 9, other than before"):
        numbered(y, (7, 8))


def test_values_in_words():
    assert [listed(list(range(n))) for n in (1, 2, 3, 7)] == [
        "0",
        "0 and 1",
        "0, 1 and 2",
        "0, 1, 2, 3, 4 and 2 more",
    ]


def test_text_is_for_labels_only(tmp_path):
    np.savez(tmp_path / "t.npz", x=TEXT[LABELS], y=LABELS)
    with pytest.raises(DataError, match="has dtype"):
        open_source(tmp_path / "t.npz")
    np.savez(tmp_path / "t.npz", x=X, y=TEXT[LABELS].astype(object))
    with pytest.raises(DataError, match="pickled"):
        open_source(tmp_path / "t.npz")
    with pytest.raises(DataError, match="dtype"):
        array_source(X, TEXT[LABELS])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_text_in_zarr_of_every_kind(zarr_format, tmp_path):
    """Of a fixed width, which format 3 has no specification for, and of any."""
    kinds = [TEXT.astype(np.dtypes.StringDType()), *([TEXT] if zarr_format == 2 else [])]
    for number, names in enumerate(kinds):
        group = zarr.create_group(tmp_path / f"{number}.zarr", zarr_format=zarr_format)
        group.create_array("x", data=X, chunks=(16, 6))
        group.create_array("y", data=names[LABELS], chunks=(16,))
        source = open_source(tmp_path / f"{number}.zarr")
        assert source.preparation.classes == tuple(TEXT.tolist())
        np.testing.assert_array_equal(np.concatenate([y for _, y in source.blocks(7)]), LABELS)


def test_labels_that_are_no_text_in_utf_8_are_refused(tmp_path):
    y = np.char.encode(TEXT, "latin-1")[LABELS]
    source = write(tmp_path, "npz", y)
    with pytest.raises(
        DataError, match=r"y.* has the label b'\\xf1and\\xfa', which is no text in UTF-8; write labels"
    ):
        open_source(source)
