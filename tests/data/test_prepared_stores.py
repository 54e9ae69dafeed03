"""Stores that have been prepared: settings that do not reach them are refused, what is done again is done on top."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import zarr
from choices import slow_but
from command import LABELS, X, files_below, foreign, refused, write_pipeline
from in_order import ingest

from altmin_dask import runs
from altmin_dask.config import training_pipeline
from altmin_dask.config.loading import load_pipeline
from altmin_dask.data.open import open_source
from altmin_dask.data.preprocessing import prepared_like, standardized
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import AltMinWarning, DataError
from altmin_dask.preparation import Scaling
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder

PIXELS = np.random.default_rng(5).integers(0, 256, (60, 6), dtype=np.uint8)


@pytest.fixture
def stores(tmp_path):
    """Raw pixels, a store of them divided by 255, one that is standardized, and one of another program."""
    np.savez(tmp_path / "raw.npz", x=PIXELS, y=LABELS)
    source = open_source(tmp_path / "raw.npz")
    ingest(source, tmp_path / "scaled.zarr", scale=255, chunk_rows=20, dtype="float64")
    ingest(source, tmp_path / "standard.zarr", standardize=True, chunk_rows=20, dtype="float64")
    foreign(tmp_path / "foreign.zarr", PIXELS, LABELS, chunk_rows=20)
    return tmp_path


REFUSED = [
    (
        "scaled.zarr",
        "scale=16",
        "which is used as it is, has x divided by 255; leave data.scale out, or",
    ),
    ("scaled.zarr", "scale=1", "data.scale = 1 is for raw sources"),
    ("foreign.zarr", "scale=255", "the raw samples again with --scale 255"),
    ("foreign.zarr", "standardize=true", "was not standardized; leave data.standardize out"),
    ("standard.zarr", "standardize=false", "data.standardize = false is for raw sources"),
    ("scaled.zarr", "chunk_rows=7", "has 20 rows in a chunk"),
    ("standard.zarr", "scale=2", "has x divided by 1"),
]


@pytest.mark.parametrize("command", slow_but(["train"], ["train", "plan"]))
@pytest.mark.parametrize(("store", "setting", "sentence"), REFUSED)
def test_settings_for_sources_do_not_go_with_stores(store, setting, sentence, command, altmin, stores):
    write_pipeline(stores / "p.toml", store, "classifier")
    before = files_below(stores)
    refused(altmin(command, "p.toml", f"data.{setting}"), sentence)
    assert files_below(stores) == before


def test_nor_with_stores_for_validation(altmin, stores):
    write_pipeline(
        stores / "p.toml", "raw.npz", "classifier", data={"validation": "scaled.zarr", "scale": 16}
    )
    refused(altmin("train", "p.toml"), "data.scale = 16 is for raw sources, and ")
    write_pipeline(stores / "p.toml", "scaled.zarr", "classifier", data={"validation": "foreign.zarr"})
    refused(altmin("train", "p.toml"), "has x divided by 255, and ")


@pytest.mark.parametrize(
    ("store", "settings"),
    [
        pytest.param("scaled.zarr", {"scale": 255, "chunk_rows": 20}, marks=pytest.mark.slow),
        ("scaled.zarr", {"scale": 255.0, "chunk_rows": "auto"}),
        ("standard.zarr", {"standardize": True}),
        ("foreign.zarr", {"scale": 1, "standardize": False}),
    ],
)
def test_what_a_store_was_made_by_may_be_said_again(store, settings, altmin, stores):
    write_pipeline(stores / "p.toml", store, "classifier", data=settings)
    assert altmin("train", "p.toml", "--run", "r").code == 0


@pytest.mark.slow
def test_rows_of_a_chunk_are_those_of_what_is_made(altmin, stores):
    for number, (train, validation) in enumerate((("scaled.zarr", "raw.npz"), ("raw.npz", "scaled.zarr"))):
        data = {"validation": validation, "chunk_rows": 7, "scale": 255}
        write_pipeline(stores / "p.toml", train, "classifier", data=data)
        assert altmin("train", "p.toml", "--run", f"r{number}").code == 0
        role = "train" if train == "raw.npz" else "validation"
        assert SampleStore.open(stores / f"r{number}" / "data" / f"{role}.zarr").chunk_rows == 7
    refused(altmin("train", "p.toml", "data.train=scaled.zarr"), "has 20 rows in a chunk")


def test_raw_samples_for_validation_are_prepared_as_the_store(altmin, stores):
    """Divided by what the store was, whatever the pipeline leaves out."""
    for train in ("scaled.zarr", "standard.zarr"):
        losses = []
        for validation in ("raw.npz", train):
            write_pipeline(stores / "p.toml", train, "classifier", data={"validation": validation})
            assert altmin("train", "p.toml", "--run", f"{train}-{validation}").code == 0
            history = (stores / f"{train}-{validation}" / "history.jsonl").read_text().splitlines()
            losses.append([json.loads(line)["validation_loss"] for line in history])
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-12)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_models_take_stores_of_their_own_scale(command, altmin, stores):
    write_pipeline(stores / "p.toml", "scaled.zarr", "classifier")
    assert altmin("train", "p.toml", "--run", "r").code == 0
    words = ["out.zarr"] if command == "predict" else []
    for other in ("foreign.zarr", "standard.zarr"):
        refused(altmin(command, "r", other, *words), "has numbers that were divided by 1 and not by 255")
    for same in ("scaled.zarr", "raw.npz"):
        assert altmin(command, "r", same, *words).code == 0
        words = [*words, "--overwrite"] if words else words


# --- ingesting a store once more


def test_what_is_divided_twice_is_recorded_as_that(altmin, stores):
    assert (
        altmin("ingest", "--no-shuffle", "scaled.zarr", "again.zarr", "--scale", 2, "--dtype", "float64").code
        == 0
    )
    again = SampleStore.open("again.zarr")
    assert again.scale == 510
    np.testing.assert_allclose(again.x[:], PIXELS / 510, rtol=1e-15)
    assert altmin("ingest", "--no-shuffle", "again.zarr", "third.zarr", "--dtype", "float64").code == 0
    assert SampleStore.open("third.zarr").scale == 510


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(["--scale 255", "--standardize"], marks=pytest.mark.slow),
        ["--standardize", "--scale 4"],
        pytest.param(["--standardize", "--standardize"], marks=pytest.mark.slow),
        ["--scale 255", "--standardize", "--scale 0.5", "--standardize"],
    ],
)
def test_preparations_are_composed(steps, altmin, stores):
    """A model of the last store gives for raw samples what it gives for that store."""
    y = PIXELS.astype(float) @ np.arange(6) + 100
    np.savez("r.npz", x=PIXELS, y=y)
    last = "r.npz"
    for number, step in enumerate(steps):
        assert (
            altmin("ingest", "--no-shuffle", last, f"{number}.zarr", *step.split(), "--dtype", "float64").code
            == 0
        )
        last = f"{number}.zarr"
    store = SampleStore.open(last)
    how = store.preparation
    assert how is not None
    np.testing.assert_allclose(how.x.apply(PIXELS / store.scale), store.x[:], rtol=1e-9, atol=1e-9)
    if how.y is not None:
        np.testing.assert_allclose(how.y.undo(store.y[:]), y, rtol=1e-12)
    write_pipeline(stores / "p.toml", last, "regressor", training={"max_sweeps": 1})
    assert altmin("train", "p.toml", "--run", "r").code == 0
    assert Model.load(stores / "r" / "model").preparation == how
    for source, dest in (("r.npz", "a.zarr"), (last, "b.zarr")):
        assert altmin("predict", "r", source, dest).code == 0
    a, b = (zarr.open_array(f"{name}.zarr/prediction")[:] for name in "ab")
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_scalings_are_composed():
    rows = np.random.default_rng(0).normal(size=(5, 2))
    first, second = Scaling((1.0, -2.0), (3.0, 0.5)), Scaling((0.25, 4.0), (2.0, 8.0))
    np.testing.assert_allclose(first.then(second).apply(rows), second.apply(first.apply(rows)), rtol=1e-14)


def test_what_belongs_to_samples_goes_along(tmp_path):
    """Weights, lengths, states, names of columns and classes, and what float32 has cost."""
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(9, 4, 2)), rng.integers(1, 5, 9)
    source = array_source(x, rng.normal(size=9), lengths=lengths, states=rng.normal(size=(9, 3)))
    ingest(source, tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr")
    group.create_array("sample_weight", data=np.arange(9.0), chunks=(9,))
    ingest(open_source(tmp_path / "a.zarr"), tmp_path / "b.zarr", dtype="float64", chunk_rows=2)
    a, b = (SampleStore.open(tmp_path / f"{name}.zarr") for name in "ab")
    assert list(a.arrays) == list(b.arrays) == ["x", "y", "lengths", "states", "sample_weight"]
    for name, array in a.arrays.items():
        np.testing.assert_array_equal(array[:], b.arrays[name][:])
    assert b.rounded == a.rounded == ("x", "y", "states")

    (tmp_path / "t.csv").write_text("size,town,y\n30,Ulm,yes\n80,Bonn,no\n20,Ulm,no\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dask with the newest pandas
        table = ingest(open_source(tmp_path / "t.csv"), tmp_path / "t.zarr")
    assert table.preparation.names == ["size", "town=Bonn", "town=Ulm"]
    again = ingest(open_source(tmp_path / "t.zarr"), tmp_path / "u.zarr")
    assert again.preparation == table.preparation
    standard = ingest(open_source(tmp_path / "t.zarr"), tmp_path / "v.zarr", standardize=True)
    assert standard.preparation.columns == table.preparation.columns
    assert standard.preparation.classes == ("no", "yes")
    assert set(np.unique(standard.x[:, 1:])) == {0, 1}


def test_other_targets_have_no_names_of_the_first_ones(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 2))
    ingest(standardized(array_source(x, x[:, 0] * 3 + 1)), tmp_path / "a.zarr", dtype="float64")
    zarr.open_group(tmp_path / "a.zarr").create_array("z", data=np.arange(9.0), chunks=(9,))
    source = open_source(tmp_path / "a.zarr", y="z")
    assert source.preparation.x is not None
    assert source.preparation.y is None
    assert open_source(tmp_path / "a.zarr").preparation.y is not None
    with pytest.raises(DataError, match="rank 1"):
        open_source(tmp_path / "a.zarr", x="z")


# --- samples like those of a store


@pytest.fixture
def table(tmp_path):
    """A table, a store of it as it is and one that is standardized, and one of the same columns in another order."""
    (tmp_path / "t.csv").write_text("a,t,b,y,z,w\n1,u,50,no,yes,7\n3,v,20,yes,yes,8\n5,u,-10,no,no,9\n")
    for name, x, more in (
        ("plain", "a,t,b", {}),
        ("standard", "a,t,b", {"standardize": True}),
        ("other", "b,a,t", {}),
    ):
        source = open_source(tmp_path / "t.csv", x=x, y="y")
        ingest(source, tmp_path / f"{name}.zarr", dtype="float64", **more)
    return tmp_path


@pytest.mark.parametrize("name", ["plain", "standard"])
def test_a_store_that_is_like_another_stays_as_it_is(name, altmin, table):
    """It is not standardized twice, and recorded once."""
    store = f"{name}.zarr"
    words = ["--like", store, "--dtype", "float64", "--no-shuffle"]
    assert altmin("ingest", store, "again.zarr", *words).code == 0
    first, again = SampleStore.open(store), SampleStore.open("again.zarr")
    np.testing.assert_array_equal(again.x[:], first.x[:])
    np.testing.assert_array_equal(again.y[:], first.y[:])
    assert again.preparation == first.preparation


@pytest.mark.parametrize(
    ("store", "like", "what"),
    [
        ("other", "standard", "has the columns b, a, t=u, t=v and not a, t=u, t=v, b"),
        ("standard", "plain", "has been prepared already, and has numbers that were standardized"),
        ("other", "plain", "has the columns b, a, t=u, t=v and not a, t=u, t=v, b"),
    ],
)
def test_a_store_that_is_unlike_another_is_refused(store, like, what, altmin, table):
    refused(altmin("ingest", f"{store}.zarr", "again.zarr", "--like", f"{like}.zarr"), what)


def test_a_store_whose_numbers_are_raw_is_prepared_as_another(altmin, table):
    words = ["--like", "standard.zarr", "--dtype", "float64", "--no-shuffle"]
    assert altmin("ingest", "plain.zarr", "again.zarr", *words).code == 0
    wanted, found = SampleStore.open("standard.zarr"), SampleStore.open("again.zarr")
    np.testing.assert_allclose(found.x[:], wanted.x[:], rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found.y[:], wanted.y[:])
    assert found.preparation == wanted.preparation


def test_columns_that_are_named_beside_like_are_heeded(altmin, table):
    """Inputs are those of the other samples; targets may have another name."""

    def made(*names):
        done = altmin(
            "ingest", "t.csv", "m.zarr", "--overwrite", "--no-shuffle", "--like", "standard.zarr", *names
        )
        return done if done.code else SampleStore.open("m.zarr").y[:].tolist()

    assert made() == [0, 1, 0]
    assert made("--x", "b, a, t", "--y", "z") == [1, 1, 0]
    refused(made("--x", "a,w"), "leave out the choice of a,w")
    refused(
        made("--y", "y,z"), "y, z of t.csv cannot be the targets, which are 1 in the samples for training: y"
    )
    refused(made("--y", "w"), "has '7' in the column 'w', which the data for training had not")
    refused(made("--y", "b"), "the column 'b' of t.csv is named twice")
    (table / "n.csv").write_text("a,b\n1,50\n3,20\n")  # has no targets, and those that are named are taken
    ingest(open_source("n.csv"), "none.zarr")
    assert made("--like", "none.zarr", "--y", "w") == [7, 8, 9]
    refused(made("--like", "none.zarr", "--y", "z"), "text")


@pytest.mark.parametrize(("names", "accuracy"), [([], 1.0), (["--y", "z"], 2 / 3)])
def test_a_model_is_evaluated_on_the_targets_that_are_named(names, accuracy, altmin, table):
    write_pipeline(table / "p.toml", "standard.zarr", "classifier", training={"max_sweeps": 30})
    assert altmin("train", "p.toml", "--run", "r").code == 0
    done = altmin("evaluate", "r", "t.csv", "--json", *names)
    assert json.loads(done.out)["accuracy"] == accuracy
    refused(altmin("predict", "r", "t.csv", "out.csv", "--x", "a"), "leave out the choice of a")


@pytest.mark.parametrize("shares", [(1, 2), (1, 3)])
def test_labels_are_left_alone_whatever_dtype_they_have(shares, altmin, tmp_path):
    """Half of them 1 became −1 and 1, whose probabilities were 'undone'; a third of them was refused."""
    y = (np.arange(60) % shares[1] < shares[0]).astype(float)
    np.savez(tmp_path / "t.npz", x=PIXELS[:, :3] / 3.0, y=y)
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier", data={"standardize": True})
    assert altmin("train", "p.toml", "--run", "r").code == 0
    model = Model.load(tmp_path / "r" / "model")
    assert model.preparation is not None
    assert model.preparation.x is not None
    assert model.labels is None
    assert model.output_scaling is None
    np.testing.assert_allclose(model.predict(PIXELS[:, :3] / 3.0).sum(axis=1), 1, rtol=1e-5)
    store = ingest(open_source(tmp_path / "t.npz"), tmp_path / "s.zarr", standardize=True)
    np.testing.assert_array_equal(store.y[:], y)


def test_labels_that_were_standardized_are_refused(altmin, tmp_path):
    store = ingest(array_source(PIXELS, LABELS + 0.5), tmp_path / "s.zarr", standardize=True)
    assert store.preparation.y is not None
    write_pipeline(tmp_path / "p.toml", "s.zarr", "classifier")
    refused(altmin("train", "p.toml"), "s.zarr was standardized, and a classifier needs labels as they were")


def test_labels_that_lost_digits_are_refused(altmin, tmp_path):
    """Codes of eight digits, as numbers: two of them became one in float32."""
    y = np.array([61091000.0, 84713010.0, 84713011.0])[np.arange(60) % 3]
    np.savez(tmp_path / "t.npz", x=PIXELS, y=y)
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier", data={"scale": 255})
    refused(
        altmin("train", "p.toml", "network.dtype=float32"),
        "has labels with more digits than float32 keeps; give them as integers or text",
    )
    assert altmin("train", "p.toml", "--run", "r").code == 0
    assert Model.load(tmp_path / "r" / "model").labels == (61091000, 84713010, 84713011)


def test_a_packed_store_knows_what_was_done_to_it(tmp_path):
    """A store in a zip file was taken for raw arrays, and prepared once more."""
    x = np.random.default_rng(0).normal(5, 3, (60, 4))
    store = ingest(array_source(x, x[:, 0] / 7), tmp_path / "s.zarr", standardize=True)
    shutil.make_archive(str(tmp_path / "s"), "zip", store.path)
    plain, packed = (open_source(tmp_path / name) for name in ("s.zarr", "s.zip"))
    assert packed.stored
    assert packed.preparation == plain.preparation
    again, left = prepared_like(packed, 1.0, plain.preparation)
    assert left == 1
    np.testing.assert_array_equal(np.concatenate([x for x, _ in again.blocks(20)]), store.x[:])


def test_what_is_held_out_of_a_store_is_prepared_as_the_rest(tmp_path):
    """With targets of another name: it was standardized twice, which of the rest was done once."""
    x = np.random.default_rng(0).normal(5, 3, (400, 4))
    store = ingest(array_source(x, x[:, 0]), tmp_path / "s.zarr", standardize=True)
    group = zarr.open_group(store.path)
    group.create_array("z", data=store.x[:, 1] * 2.5, chunks=store.y.chunks)
    table = {"train": store.path, "y": "z", "validation": 0.2}
    pipeline = training_pipeline(
        {
            "data": table,
            "network": {"kind": "regressor", "hidden_layer_sizes": [4]},
            "training": {"max_sweeps": 1},
        }
    )
    runs.train(pipeline, RunFolder(tmp_path / "r"))
    for part in ("train", "validation"):
        rows = SampleStore.open(tmp_path / "r" / "data" / f"{part}.zarr")
        np.testing.assert_allclose(rows.x[:].mean(axis=0), 0, atol=0.25)
        np.testing.assert_allclose(rows.x[:].std(axis=0), 1, atol=0.25)
        np.testing.assert_allclose(rows.y[:], 2.5 * rows.x[:, 1], rtol=1e-5)


@pytest.mark.parametrize("store", slow_but(["standard.zarr"], ["standard.zarr", "scaled.zarr"]))
def test_targets_of_another_name_in_a_prepared_store(store, altmin, stores):
    """Trained, evaluated and predicted with a share held out, and by the store itself."""
    samples = SampleStore.open(stores / store)
    zarr.open_group(samples.path).create_array("z", data=samples.x[:, 1] * 2.5, chunks=samples.y.chunks)
    table = {"y": "z", "validation": 0.2}
    write_pipeline(stores / "p.toml", store, "regressor", data=table)
    assert altmin("train", "p.toml", "--run", "r").code == 0
    assert altmin("evaluate", "r", store, "--y", "z").code == 0
    assert altmin("predict", "r", store, "o.csv").code == 0


def test_a_raw_store_for_validation_is_prepared_as_the_other(tmp_path):
    """Both with targets of another name, of which the first is standardized on the way."""
    rng = np.random.default_rng(0)
    for name in "ab":
        x = rng.normal(5, 3, (90, 4))
        store = ingest(array_source(x), tmp_path / f"{name}.zarr")
        zarr.open_group(store.path).create_array("z", data=x[:, 1] * 2.5, chunks=(store.chunk_rows,))
    how = standardized(open_source(tmp_path / "a.zarr", y="z")).preparation
    found, left = prepared_like(open_source(tmp_path / "b.zarr", y="z"), 1.0, how)
    (x, y), *_ = found.blocks(90)
    assert left == 1
    np.testing.assert_allclose(how.x.undo(x), SampleStore.open(tmp_path / "b.zarr").x[:], rtol=1e-6)
    np.testing.assert_allclose(how.y.undo(y), how.x.undo(x)[:, 1] * 2.5, rtol=1e-5)


def test_padding_does_not_count(tmp_path):
    """Means and deviations are of the steps that are there."""
    rng = np.random.default_rng(0)
    x, y, lengths = rng.normal(2, 3, (200, 6, 2)), rng.normal(-1, 2, (200, 6, 1)), rng.integers(1, 6, 200)
    there = np.arange(6) < lengths[:, None]
    source = array_source(
        np.where(there[:, :, None], x, -999), np.where(there[:, :, None], y, np.nan), lengths=lengths
    )
    how = ingest(source, tmp_path / "s.zarr", standardize=True).preparation
    for scaling, values in ((how.x, x), (how.y, y)):
        shift, scale = (np.array(part).reshape(6, -1) for part in (scaling.shift, scaling.scale))
        for step in range(5):
            some = values[there[:, step], step]
            np.testing.assert_allclose(shift[step], some.mean(axis=0), rtol=1e-10)
            np.testing.assert_allclose(scale[step], some.std(axis=0), rtol=1e-10)
        assert (shift[5] == 0).all()
        assert (scale[5] == 1).all()


def test_validation_on_what_is_trained_on_is_told_of(altmin, tmp_path):
    """Its losses were called those of validation, and say nothing of new samples."""
    np.savez(tmp_path / "t.npz", x=X, y=LABELS)
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier", data={"validation": "./t.npz"})
    with pytest.warns(AltMinWarning, match=r"data.validation is ./t.npz, which is what is trained on"):
        runs.train(load_pipeline(tmp_path / "p.toml"), RunFolder(tmp_path / "run"), log=lambda line: None)
