"""`altmin init` writes pipelines that run as they are, on samples that need no file or on the user's own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from choices import slow_but
from command import LABELS, X, foreign, refused, write_pipeline
from PIL import Image

from altmin_dask.config import KINDS, load_pipeline
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training import build_network

RNG = np.random.default_rng(4)
SHORT = ("training.max_sweeps=1", "output.report=false")


@pytest.mark.parametrize("kind", slow_but(["autoencoder", "classifier", "recurrent_regressor"], KINDS))
def test_what_is_written_runs(kind, altmin):
    done = altmin("init", kind)
    assert (done.code, done.err) == (0, "")
    file = Path(f"{kind}.toml")
    source = load_pipeline(file).data.train
    expected = [f"{file}: {kind} on {source}; next"]
    expected += [f"  altmin plan {file}", f"  altmin train {file}", "  altmin settings"]
    assert done.out.splitlines() == expected
    assert altmin("plan", file).code == 0
    done = altmin("train", file, "--run", "run", *SHORT)
    assert (done.code, done.err) == (0, "")
    first, *_, last = RunFolder(Path("run")).records()
    assert last["validation_loss"] < first["validation_loss"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_commented_out_may_be_set(kind, altmin):
    altmin("init", kind, "p.toml")
    text = Path("p.toml").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 110
    lines = [line[2:] if line.startswith("# ") and " = " in line else line for line in text.splitlines()]
    Path("all.toml").write_text("\n".join(lines), encoding="utf-8")
    given, all_of_it = (tomllib.loads(Path(name).read_text()) for name in ("p.toml", "all.toml"))
    assert len(all_of_it["training"]) >= 3 > len(given.get("training", {}))
    assert load_pipeline("all.toml").solver.ridge == "auto"


def test_nothing_is_overwritten_unless_told(altmin):
    Path("classifier.toml").write_text("mine")
    refused(altmin("init", "classifier"), "classifier.toml exists already; name another file, or --overwrite")
    assert Path("classifier.toml").read_text() == "mine"
    assert altmin("init", "classifier", "--overwrite").code == 0
    assert load_pipeline("classifier.toml").network.kind == "classifier"
    refused(altmin("init", "classifier", "nowhere/p.toml"), "there is no folder nowhere; make it first")


def test_a_table(altmin):
    frame = pd.DataFrame({"size": RNG.random(80), "town": RNG.choice(["Ulm", "Bonn"], 80), "late": LABELS[0]})
    frame["late"] = np.where(frame["size"] > 0.5, "yes", "no")
    frame.loc[3, "size"] = np.nan
    frame.to_csv("my flights.csv", index=False)
    refused(
        altmin("init", "classifier", "--data", "my flights.csv"),
        "my flights.csv has no targets, which a classifier needs; name them by --y NAME, one of size, town, late",
    )
    assert not Path("classifier.toml").exists()
    done = altmin("init", "classifier", "my p.toml", "--data", "my flights.csv", "--y", "late")
    assert (done.code, done.err) == (0, "")
    assert "  altmin train 'my p.toml'" in done.out
    data = load_pipeline("my p.toml").data
    assert (data.y, data.validation, data.standardize, data.missing) == ("late", 0.1, True, "median")
    assert altmin("train", "my p.toml", "--run", "run", *SHORT).code == 0
    refused(
        altmin("init", "regressor", "--data", "my flights.csv", "--y", "late"), "y of my flights.csv is text"
    )


def test_arrays_and_a_store(altmin, tmp_path):
    pixels = RNG.integers(0, 256, (60, 4, 4), dtype=np.uint8)
    np.savez("images.npz", x_train=pixels, y_train=LABELS, x_test=pixels[:20], y_test=LABELS[:20])
    assert altmin("init", "autoencoder", "a.toml", "--data", "images.npz:train").code == 0
    data = load_pipeline("a.toml").data
    assert (data.scale, data.standardize, data.validation) == (255, False, "images.npz:test")
    assert altmin("train", "a.toml", "--run", "a", *SHORT).code == 0
    np.save("real.npy", RNG.normal(size=(60, 5)))
    assert altmin("init", "autoencoder", "b.toml", "--data", "real.npy").code == 0
    assert load_pipeline("b.toml").network.output_activation == "identity"
    assert altmin("train", "b.toml", "--run", "b", *SHORT).code == 0
    foreign(tmp_path / "samples.zarr", X, LABELS)
    assert altmin("init", "classifier", "c.toml", "--data", "samples.zarr").code == 0
    assert not load_pipeline("c.toml").data.standardize  # of a store it was decided when it was made
    assert altmin("train", "c.toml", "--run", "c", *SHORT).code == 0
    refused(
        altmin("init", "recurrent_classifier", "--data", "samples.zarr"),
        "samples.zarr has samples of shape (6,), which are no sequences",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.csv", "classifier"], "write altmin init classifier --data a.csv: the kind comes first"),
        (["clasifier"], "clasifier is no kind of network; write autoencoder, classifier, "),
        (["clasifier"], "did you mean classifier?"),
        (
            ["classifier", "--y", "late"],
            "--x and --y name arrays or columns of --data SOURCE; give that, too",
        ),
        (["classifier", "--data", "gone.csv"], "gone.csv"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(words, message, altmin):
    refused(altmin("init", *words), message)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("inputs", "width"), [(1, 1), (2, 1), (9, 4), (64, 32), (500, 32)])
def test_autoencoders_compress(inputs, width, altmin):
    np.savez("t.npz", x=RNG.normal(size=(30, inputs)))
    assert altmin("init", "autoencoder", "p.toml", "--data", "t.npz").code == 0
    assert load_pipeline("p.toml").network.hidden_layer_sizes == (width,)


@pytest.mark.parametrize(
    ("kind", "rows", "share"), [("regressor", 4, None), ("autoencoder", 19, None), ("regressor", 20, 0.1)]
)
def test_few_rows_are_not_held_out(kind, rows, share, altmin):
    np.savez("t.npz", x=RNG.normal(size=(rows, 3)), y=RNG.normal(size=rows))
    assert altmin("init", kind, "p.toml", "--data", "t.npz").code == 0
    assert load_pipeline("p.toml").data.validation == share
    assert altmin("train", "p.toml", "--run", "run", *SHORT).code == 0


@pytest.mark.parametrize("kind", ["classifier", "autoencoder"])
def test_pixels_of_images_are_divided(kind, altmin, tmp_path):
    for number in range(12):
        image = Image.fromarray(RNG.integers(0, 256, (4, 4), dtype=np.uint8))
        (tmp_path / "images" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "images" / "ab"[number % 2] / f"{number}.png")
    assert altmin("init", kind, "p.toml", "--data", "images").code == 0
    data = load_pipeline("p.toml").data
    assert (data.scale, data.standardize) == (255, False)


def test_few_rows_of_a_class_are_not_held_out(altmin):
    table = pd.DataFrame({"a": RNG.random(28), "y": np.repeat(list("wxyz"), 7)})
    table.to_csv("t.csv", index=False)
    assert altmin("init", "classifier", "p.toml", "--data", "t.csv").code == 0
    assert load_pipeline("p.toml").data.validation is None
    assert altmin("train", "p.toml", "--run", "run", *SHORT).code == 0


def wide(path, names, labels=None, **columns):
    values = RNG.normal(size=(80, len(names)))
    frame = pd.DataFrame(values, columns=names).assign(**columns)
    frame.assign(late=np.arange(80) % 2 if labels is None else labels).to_csv(path, index=False)


def test_rows_of_a_table_that_hold_a_sequence_each(altmin):
    wide("wide.csv", ["a_1", "b_1", "a_2", "b_2", "a_10", "b_10"])
    words = ["recurrent_classifier", "--data", "wide.csv", "--y", "late"]
    refused(
        altmin("init", *words), "step after step, say by --steps how many; where each row is one time of many"
    )
    done = altmin("init", *words, "--steps", 3)
    assert (done.code, done.err) == (0, "")
    pipeline = load_pipeline("recurrent_classifier.toml")
    assert (pipeline.network.steps, pipeline.data.standardize) == (3, False)
    done = altmin("train", "recurrent_classifier.toml", "--run", "run", *SHORT)
    assert (done.code, done.err) == (0, "")
    assert Model.load("run").network.sequence_steps == 3


@pytest.mark.parametrize(
    ("names", "steps", "more", "message"),
    [
        (["a_1", "b_1", "a_2"], 2, {}, "has 3 columns of inputs, which are no multiple of network.steps = 2"),
        (
            ["a_1", "a_2", "b_1", "b_2"],
            2,
            {},
            "as their names say (a_1, a_2, b_1, …); name all of a step before",
        ),
        (["a_1", "a_2", "b_1", "b_2"], 2, {}, "by --x a_1,b_1,a_2,b_2 (data.x of a pipeline)"),
        (["a_1", "a_10", "a_2"], 3, {}, "by --x a_1,a_2,a_10 (data.x of a pipeline)"),
        (
            ["a_1", "b_1", "a_2", "b_2"],
            2,
            {"b_2": [None, *range(79)], "a_2": [None, *range(79)]},
            "the column 'a_1' becomes 1 number, and 'a_2', which stands in its place at another step, 2 numbers (one",
        ),
        (
            ["a_1", "b_1", "a_2", "b_2"],
            2,
            {"b_1": ["u", "v"] * 40},
            "'b_1' becomes 2 numbers, and 'b_2', which",
        ),
    ],
)
def test_rows_that_cannot_be_cut_are_refused(altmin, names, steps, more, message):
    """Numbers were cut, whatever columns they were of, if only their count was a multiple."""
    wide("wide.csv", names, **more)
    words = ["--data", "wide.csv", "--y", "late", "--steps", steps]
    refused(altmin("init", "recurrent_classifier", *words), message)
    assert not Path("recurrent_classifier.toml").exists()


@pytest.mark.parametrize("name", ["pixel_{}_{}", "t{}_f{}", "{}_{}"])
@pytest.mark.parametrize("steps", [(1, 2, 10), (2, 1, 0)])
def test_names_that_number_the_steps_first_are_in_order(altmin, name, steps):
    """As those of digits that are read row by row, whose last number is of a column."""
    wide("wide.csv", [name.format(step, place) for step in steps for place in (1, 2, 3)])
    words = ["--data", "wide.csv", "--y", "late", "--steps", 3]
    assert altmin("init", "recurrent_classifier", *words).code == 0


def test_the_order_that_is_named_is_taken(altmin):
    wide("wide.csv", ["a_1", "a_2", "b_1", "b_2"])
    words = ["--data", "wide.csv", "--y", "late", "--steps", 2, "--x", "a_1,b_1,a_2,b_2"]
    assert altmin("init", "recurrent_classifier", *words).code == 0
    wide("back.csv", ["lag3", "lag2", "lag1"])
    assert (
        altmin(
            "init", "recurrent_classifier", "b.toml", "--data", "back.csv", "--y", "late", "--steps", 3
        ).code
        == 0
    )
    refused(
        altmin("init", "classifier", "--data", "back.csv", "--y", "late", "--steps", 3),
        "--steps is of sequences, and a classifier reads none; leave it out, or write a recurrent_classifier",
    )


def test_an_older_run_that_was_cut_otherwise_goes_on(altmin, monkeypatch):
    pd.DataFrame(RNG.random((80, 4)), columns=["a_1", "a_2", "b_1", "b_2"]).assign(y=[0, 1] * 40).to_csv(
        "w.csv", index=False
    )
    write_pipeline(Path("p.toml"), "w.csv", "recurrent_classifier", data={"y": "y"}, network={"steps": 2})
    with monkeypatch.context() as older:
        older.setattr(build_network, "check_steps", lambda *_: None)
        assert altmin("train", "p.toml", "--run", "run", *SHORT).code == 0
    refused(altmin("train", "p.toml", "--run", "other", *SHORT), "name all of a step before")
    done = altmin("train", "p.toml", "--run", "run", "--resume", "training.max_sweeps=2", SHORT[1])
    assert (done.code, done.err) == (0, "")
