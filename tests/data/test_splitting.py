"""A share of the samples that is held out: drawn as it was before, of every class as much, and the same at any time."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from choices import slow_but
from command import LABELS, X, files_below, foreign, refused, write_pipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from in_order import ingest

from altmin_dask.data import splitting
from altmin_dask.data.find import store_source
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source, array_source
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.runs import train
from altmin_dask.storage.run import RunFolder

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


def divided(source: Source, fraction: float = 0.1, seed: int = 0, **options) -> tuple[Source, Source]:
    return splitting.split(source, fraction, seed, setting="share", otherwise="none", **options)


def rows_of(source: Source, rows: int = 7) -> np.ndarray:
    return np.concatenate([x[:, 0] for x, _ in source.blocks(rows)])


def numbered(y: np.ndarray) -> Source:
    return array_source(np.arange(len(y), dtype=float)[:, None], y)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(2, 60), min_size=2, max_size=5), st.floats(0.05, 0.9), st.integers(0, 5), st.data()
)
def test_every_class_has_its_share(sizes, fraction, seed, data):
    """Up to one sample, or what leaves one in both parts; disjoint, whole, in order, and of the labels they had."""
    y = np.repeat(np.arange(len(sizes)) * 3 - 4, sizes)
    if data.draw(st.booleans()):
        y = np.random.default_rng(seed).permutation(y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "PIECE", 8)
        patch.setattr(splitting, "_BLOCK", 24)
        try:
            kept_part, held = divided(numbered(y), fraction, seed, stratified=True)
        except (ConfigError, DataError):
            count = splitting.held_out(len(y), fraction)
            assert not len(sizes) <= count <= len(y) - len(sizes)
            return
        kept, out = rows_of(kept_part), rows_of(held, 5)
        assert sorted([*kept, *out]) == list(range(len(y)))
        assert len(out) == held.rows == splitting.held_out(len(y), fraction)
        for rows, part in ((kept, kept_part), (out, held)):
            assert (np.diff(rows) > 0).all()
            np.testing.assert_array_equal(np.concatenate([b for _, b in part.blocks(9)]), y[rows.astype(int)])
        np.testing.assert_array_equal(rows_of(divided(numbered(y), fraction, seed, stratified=True)[1]), out)
    exact = np.array(sizes) * held.rows / len(y)
    found = np.unique(y[out.astype(int)], return_counts=True)[1]
    assert len(found) == len(sizes)
    pinned = (exact < 1) | (exact > np.array(sizes) - 1)
    if not pinned.any():
        assert (np.abs(found - exact) < 1).all()


def test_large_classes_are_held_out_evenly():
    """From all over the samples, also where they are sorted."""
    y = np.repeat([0, 1], [7000, 3000])
    held = rows_of(divided(numbered(y), 0.1, stratified=True)[1])
    assert [np.count_nonzero(held < 7000), np.count_nonzero(held >= 7000)] == [700, 300]
    for start in range(0, 10_000, 1000):
        assert np.count_nonzero((held >= start) & (held < start + 1000)) == 100


def test_without_classes_it_is_a_share_of_every_thousand_rows():
    held = rows_of(divided(numbered(np.zeros(2500)), 0.1)[1])
    assert [np.count_nonzero(held // 1000 == i) for i in range(3)] == [100, 100, 50]
    assert not np.array_equal(held, rows_of(divided(numbered(np.zeros(2500)), 0.1, seed=1)[1]))


def test_all_that_belongs_to_samples_is_divided(tmp_path):
    rng = np.random.default_rng(0)
    source = array_source(
        rng.normal(size=(50, 3, 2)),
        np.arange(50),
        lengths=np.arange(50) % 3 + 1,
        states=np.arange(50.0)[:, None],
    )
    ingest(source, tmp_path / "a.zarr", scale=2)
    zarr.open_group(tmp_path / "a.zarr").create_array("sample_weight", data=np.arange(50.0), chunks=(50,))
    train, held = divided(open_source(tmp_path / "a.zarr"), 0.2)
    for part, rows in ((train, 40), (held, 10)):
        arrays = {name: np.concatenate(list(reader.blocks(6))) for name, reader in part.arrays.items()}
        assert {len(values) for values in arrays.values()} == {rows}
        y = arrays["y"]
        np.testing.assert_array_equal(arrays["lengths"], y % 3 + 1)
        np.testing.assert_array_equal(arrays["states"][:, 0], y)
        np.testing.assert_array_equal(arrays["sample_weight"], y)
        assert (part.scale, part.rounded) == (2, ("x",))


def test_classes_that_are_too_rare(altmin, tmp_path):
    y = LABELS.copy()
    y[y == 2] = 1
    y[5] = 2
    np.savez(tmp_path / "t.npz", x=X, y=y)
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier", data={"validation": 0.1})
    before = files_below(tmp_path)
    refused(
        altmin("train", "p.toml"),
        "has a single sample of the class 2, of which data.validation = 0.1 can hold none out; leave such rows out, or",
    )
    assert files_below(tmp_path) == before
    refused(altmin("train", "p.toml", "data.validation=0.001"), "leaves no sample to hold out")
    np.savez(tmp_path / "t.npz", x=X, y=np.array(["a", "b", "c"])[y])
    refused(altmin("train", "p.toml"), "has a single sample of the class 'c'")
    np.savez(tmp_path / "t.npz", x=X, y=LABELS)
    refused(altmin("train", "p.toml", "data.validation=0.04"), "of which both parts need one at least")
    for value in ("0", "1", "1.5", "-0.1", "nan", "true"):
        refused(altmin("train", "p.toml", f"data.validation={value}"), "data.validation = ")


# --- in a run


def parts(run: Path) -> tuple[SampleStore, SampleStore]:
    return SampleStore.open(run / "data" / "train.zarr"), SampleStore.open(run / "data" / "validation.zarr")


@pytest.mark.parametrize("kind", slow_but(["csv", "own.zarr"], ["npz", "csv", "foreign.zarr", "own.zarr"]))
def test_a_run_holds_a_share_out(kind, altmin, tmp_path):
    x = X * 4 + np.arange(6)
    source = f"t.{kind}"
    if kind == "csv":
        pd.DataFrame(x, columns=list("abcdef")).assign(y=np.array(["n", "o", "p"])[LABELS]).to_csv(
            source, index=False
        )
    elif kind == "foreign.zarr":
        foreign(tmp_path / source, x, LABELS + 1)
    else:
        np.savez(tmp_path / "t.npz", x=x, y=LABELS + 1)
        if kind == "own.zarr":
            assert (
                altmin("ingest", "--no-shuffle", "t.npz", source, "--standardize", "--dtype", "float64").code
                == 0
            )
    data = {"validation": 0.2} | ({"standardize": True} if kind in ("npz", "csv") else {})
    write_pipeline(tmp_path / "p.toml", source, "classifier", data=data)
    before = {
        name: (tmp_path / name).read_bytes() for name in files_below(tmp_path) if (tmp_path / name).is_file()
    }
    assert altmin("plan", "p.toml").code == 0
    done = altmin("train", "p.toml", "--run", "run")
    assert (done.code, done.err) == (0, "")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    train, held = parts(tmp_path / "run")
    assert (train.rows, held.rows) == (48, 12)
    _, counts = np.unique(held.y[:], return_counts=True)
    assert counts.tolist() == [4, 4, 4]
    assert train.preparation == held.preparation
    raw = [part.x[:] if part.preparation is None or part.preparation.x is None else part.preparation.x.undo(part.x[:])
           for part in (train, held)]  # fmt: off
    both = np.concatenate(raw)
    np.testing.assert_allclose(both[np.lexsort(both.T)], x[np.lexsort(x.T)], rtol=1e-9)
    if "standardize" in data:  # by those to train on alone
        np.testing.assert_allclose(train.x[:].mean(axis=0), 0, atol=1e-12)
    last = RunFolder(tmp_path / "run").records()[-1]
    assert last["validation_loss"] is not None
    assert (
        json.loads((tmp_path / "run" / "pipeline.json").read_text())["pipeline"]["data"]["validation"] == 0.2
    )
    assert altmin("evaluate", "run", source).code == 0
    assert altmin("evaluate", "run", "run/data/validation.zarr").code == 0


def test_it_is_the_same_when_a_run_goes_on(altmin, tmp_path):
    """Also where the process was killed between the two parts; and another one by another seed."""
    np.savez(tmp_path / "t.npz", x=X, y=LABELS)
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier", data={"validation": 0.25})
    for run in ("a", "b"):
        assert altmin("train", "p.toml", "--run", run).code == 0
    assert altmin("train", "p.toml", "--run", "c", "training.seed=1").code == 0
    held = {run: parts(tmp_path / run)[1].x[:] for run in "abc"}
    np.testing.assert_array_equal(held["a"], held["b"])
    assert not np.array_equal(held["a"], held["c"])
    shutil.rmtree(tmp_path / "b" / "data" / "validation.zarr")
    for run in "ab":
        assert altmin("train", "p.toml", "--run", run, "--resume", "training.max_sweeps=4").code == 0
    np.testing.assert_array_equal(parts(tmp_path / "b")[1].x[:], held["a"])
    losses = [[record["validation_loss"] for record in RunFolder(tmp_path / run).records()] for run in "ab"]
    assert losses[0] == losses[1]
    refused(
        altmin("train", "p.toml", "--run", "a", "--resume", "data.validation=0.3"),
        "data.validation: 0.25 there",
    )


def test_settings_with_a_share_of_a_store(altmin, tmp_path):
    """Chunks are made anew, and what was divided stays so."""
    np.savez(tmp_path / "t.npz", x=X, y=LABELS)
    assert altmin("ingest", "--no-shuffle", "t.npz", "t.zarr", "--scale", 4, "--dtype", "float64").code == 0
    write_pipeline(tmp_path / "p.toml", "t.zarr", "classifier", data={"validation": 0.25, "chunk_rows": 9})
    refused(altmin("train", "p.toml", "data.scale=3"), "has x divided by 4")
    assert altmin("train", "p.toml", "--run", "r", "data.scale=4").code == 0
    for part in parts(tmp_path / "r"):
        assert (part.chunk_rows, part.scale) == (9, 4)


def test_from_python(pipeline, make_store, samples, tmp_path):
    """The same samples are held out as from the command line, and as an estimator would."""
    store = make_store(samples, np.arange(200) % 3 + 5)
    made = pipeline(
        store.path, data={"validation": 0.1}, network={"kind": "classifier"}, training={"seed": 3}
    )
    records = train(made, RunFolder(tmp_path / "run"), log=lambda line: None)
    assert records[-1].validation_accuracy is not None
    _, held = divided(store_source(store), 0.1, 3, stratified=True)
    np.testing.assert_array_equal(parts(tmp_path / "run")[1].x[:], next(held.blocks(200))[0])


@pytest.mark.parametrize("kind", ["regressor", "autoencoder"])
def test_no_classes(kind, altmin, tmp_path):
    np.savez(tmp_path / "t.npz", x=X, y=X[:, 0])
    write_pipeline(tmp_path / "p.toml", "t.npz", kind, data={"validation": 0.1})
    assert altmin("train", "p.toml", "--run", "r").code == 0
    assert [part.rows for part in parts(tmp_path / "r")] == [54, 6]


# --- arrays and columns by name


@pytest.mark.slow
def test_arrays_by_name(altmin, tmp_path):
    np.savez(tmp_path / "t.npz", samples=X, other=X * 2, labels=LABELS)
    foreign(tmp_path / "t.zarr", X * 3, LABELS)
    zarr.open_group("t.zarr").create_array("samples", data=X, chunks=(16, 6))
    zarr.open_group("t.zarr").create_array("labels", data=LABELS, chunks=(16,))
    write_pipeline(
        tmp_path / "p.toml",
        "t.npz",
        "classifier",
        data={"x": "samples", "y": "labels", "chunk_rows": 16, "shuffle": False},
    )
    found = []
    for source in ("t.npz", "t.zarr"):
        assert altmin("train", "p.toml", f"data.train={source}", "--run", f"{source}-run").code == 0
        store = parts_of_one(tmp_path / f"{source}-run")
        np.testing.assert_array_equal(store.x[:], X)
        # the run knows by which names
        assert altmin("predict", f"{source}-run", source, f"{source}-p.zarr").code == 0
        found.append(zarr.open_array(f"{source}-p.zarr/prediction")[:])
        assert json.loads(altmin("evaluate", f"{source}-run", source, "--json").out)["samples"] == 60
    np.testing.assert_array_equal(*found)
    refused(altmin("train", "p.toml", "data.x=gone"), "has no array 'gone'")
    refused(altmin("evaluate", "t.npz-run", "t.npz", "--x", "gone"), "has no array 'gone'")
    np.savez(tmp_path / "new.npz", samples=X)
    assert altmin("predict", "t.npz-run", "new.npz", "p.zarr").code == 0
    np.testing.assert_array_equal(zarr.open_array("p.zarr/prediction")[:], found[0])
    np.savez(tmp_path / "new.npz", X, LABELS)
    assert altmin("predict", "t.npz-run", "new.npz", "p.zarr", "--x", "arr_0", "--overwrite").code == 0


def parts_of_one(run: Path) -> SampleStore:
    return SampleStore.open(run / "data" / "train.zarr")


def test_columns_by_name(altmin, tmp_path):
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(label=LABELS, other=1.0)
    frame.to_csv("t.csv", index=False)
    write_pipeline(
        tmp_path / "p.toml", "t.csv", "classifier", data={"x": "c, a", "y": "label", "shuffle": False}
    )
    assert altmin("train", "p.toml", "--run", "r").code == 0
    np.testing.assert_allclose(parts_of_one(tmp_path / "r").x[:], X[:, [2, 0]], rtol=1e-15)
    assert altmin("evaluate", "r", "t.csv").code == 0
    refused(altmin("train", "p.toml", "data.x=c,c"), "is named twice")
    refused(altmin("train", "p.toml", "data.y=gone"), "has no column 'gone'")


@pytest.mark.parametrize(
    ("words", "x", "y"),
    [
        (["--x", "a", "--x", "b"], ["a", "b"], ["y"]),
        (["--x", "a,b", "--y", "c, y"], ["a", "b"], ["c", "y"]),
        (["--x", "a", "--y", "c", "--y", "y"], ["a"], ["c", "y"]),
        (["--x", "with, comma"], ["with, comma"], ["y"]),
    ],
)
def test_names_given_one_by_one(words, x, y, altmin, tmp_path):
    frame = pd.DataFrame(np.arange(20).reshape(4, 5), columns=["a", "b", "c", "with, comma", "y"])
    frame.to_csv("t.csv", index=False)
    assert altmin("ingest", "--no-shuffle", "t.csv", "t.zarr", *words).code == 0
    store = SampleStore.open("t.zarr")
    np.testing.assert_array_equal(store.x[:], frame[x])
    np.testing.assert_array_equal(store.y[:].reshape(4, -1), frame[y])


def test_names_given_twice_are_refused(altmin, tmp_path):
    pd.DataFrame({"a": [1, 2], "y": [0, 1]}).to_csv("t.csv", index=False)
    np.savez("t.npz", a=X, b=X)
    for words in (["--x", "a,a"], ["--x", "a", "--x", "a"], ["--x", "a,y"]):
        refused(altmin("ingest", "--no-shuffle", "t.csv", "t.zarr", *words), "is named twice")
    refused(
        altmin("ingest", "--no-shuffle", "t.npz", "t.zarr", "--x", "a", "--x", "b"),
        "has no array 'a,b'; it has a, b",
    )


def test_rows_are_named_by_their_places_in_the_source(tmp_path, altmin):
    """Those of a part could be found in no file."""
    x = np.arange(200.0)[:, None] / 200
    x[[41, 52]] = np.nan
    np.savez(tmp_path / "n.npz", x=x, y=np.arange(200) % 2)
    write_pipeline(tmp_path / "p.toml", "n.npz", "classifier", data={"validation": 0.2})
    done = altmin("train", "p.toml", "--run", "run")
    assert done.code == 2
    assert "NaN or infinity in x as float64 (row" in done.err
    named = {int(number) for number in re.findall(r"\d+", done.err.partition("(row")[2].partition(")")[0])}
    assert named <= {41, 52}
    assert named
    assert "of all)" in done.err
