"""csv, parquet and images as samples: streamed, one-hot, standardized, and undone again at prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import zarr
from in_order import ingest
from PIL import Image
from traced import peak_of_ingest

from altmin_dask.data.formats import csv
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import AltMinError, DataError
from altmin_dask.export.onnx import write_onnx
from altmin_dask.preparation import Preparation, Scaling
from altmin_dask.storage.model import Model

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

RNG = np.random.default_rng(4)
FRAME = pd.DataFrame(
    {
        "age": RNG.normal(40, 10, 300),
        "colour": RNG.choice(["red", "green", "blue"], 300),
        "rooms": RNG.integers(1, 6, 300),
        "member": RNG.random(300) > 0.5,
    }
)
PRICE = 1000 * FRAME.rooms + 20 * FRAME.age + 500 * (FRAME.colour == "red")
ENCODED = np.column_stack(
    [FRAME.age, *(FRAME.colour == c for c in ("blue", "green", "red")), FRAME.rooms, FRAME.member]
)


def both(source):
    x, y = zip(*source.blocks(70), strict=True)
    return np.concatenate(x), None if y[0] is None else np.concatenate(y)


@pytest.fixture(params=["csv", "csv.gz", "parquet", "folder of csv", "folder of parquet"])
def table(request, tmp_path, monkeypatch):
    """The frame with its price, in several partitions where the format has them."""
    frame, kind = FRAME.assign(price=PRICE), request.param
    monkeypatch.setattr(csv, "BLOCK_BYTES", 4000)
    if kind.startswith("folder"):
        ending = kind.split()[-1]
        (tmp_path / "folder").mkdir()
        for part in range(3):
            write = getattr(frame[part * 100 : (part + 1) * 100], f"to_{ending}")
            write(tmp_path / "folder" / f"{part}.{ending}", index=False)
        return tmp_path / "folder"
    path = tmp_path / f"table.{kind}"
    _ = frame.to_parquet(path, row_group_size=80) if kind == "parquet" else frame.to_csv(path, index=False)
    return path


def test_every_kind_of_table_is_the_same(table):
    source = open_source(table, y="price")
    assert source.preparation.names == ["age", "colour=blue", "colour=green", "colour=red", "rooms", "member"]
    for rows in (1, 7, 300):
        x = np.concatenate([x for x, _ in source.blocks(rows)])
        np.testing.assert_allclose(x, ENCODED)
    np.testing.assert_allclose(both(source)[1], PRICE)
    chosen = open_source(table, x="rooms,age", y="price,member")
    x, y = both(chosen)
    np.testing.assert_allclose(x, FRAME[["rooms", "age"]])
    assert y.shape == (300, 2)


def test_text_as_target_is_classes(tmp_path):
    FRAME.rename(columns={"colour": "y"}).to_csv(tmp_path / "t.csv", index=False)
    source = open_source(tmp_path / "t.csv")
    assert source.preparation.classes == ("blue", "green", "red")
    assert (np.array(source.preparation.classes)[both(source)[1]] == FRAME.colour).all()
    assert source.preparation.names == ["age", "rooms", "member"]


def test_standardized_numbers_and_their_record(tmp_path):
    FRAME.assign(y=PRICE).to_csv(tmp_path / "t.csv", index=False)
    store = ingest(open_source(tmp_path / "t.csv"), tmp_path / "t.zarr", standardize=True, dtype="float64")
    x, y = np.asarray(store.x[:]), np.asarray(store.y[:])
    np.testing.assert_allclose(x[:, [0, 4, 5]].mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(x[:, [0, 4, 5]].std(axis=0), 1)
    np.testing.assert_array_equal(x[:, 1:4], ENCODED[:, 1:4])
    how = SampleStore.open(tmp_path / "t.zarr").preparation
    np.testing.assert_allclose(how.x.undo(x), ENCODED)
    np.testing.assert_allclose(how.y.undo(y[:, None])[:, 0], PRICE)
    assert Preparation.from_json(how.to_json()) == how


def test_constant_numbers_and_images_are_standardized(tmp_path):
    x = RNG.random((50, 4, 3)) * 200 + 1e6
    x[:, 0, 0] = 7
    store = ingest(array_source(x), tmp_path / "a.zarr", standardize=True, dtype="float64", chunk_rows=9)
    assert (np.asarray(store.x[:, 0, 0]) == 0).all()
    np.testing.assert_allclose(np.asarray(store.x[:]).std(axis=0).ravel()[1:], 1)
    np.testing.assert_allclose(store.preparation.x.undo(np.asarray(store.x[:])), x)


@pytest.mark.slow
def test_memory_of_a_table_is_that_of_its_partitions(tmp_path, monkeypatch):
    values = RNG.random((60_000, 20)).round(4)
    pd.DataFrame(values).to_csv(tmp_path / "t.csv", index=False)
    peak = peak_of_ingest(tmp_path / "t.csv", tmp_path / "t.zarr", 1000, block_bytes=1 << 18)
    store = SampleStore.open(tmp_path / "t.zarr")
    np.testing.assert_allclose(store.x[:], values, rtol=1e-6)
    assert peak < 4 << 20  # of 9.6 MB
    monkeypatch.setattr(csv, "BLOCK_BYTES", 1 << 18)
    planned = open_source(tmp_path / "t.csv").reading_bytes + 1000 * (20 * 8 + 3 * 88)
    assert 0.5 * planned < peak < planned


@pytest.mark.parametrize(
    ("content", "names", "words"),
    [
        ("a,b\n1,2\n", {"y": "price"}, "has no column 'price'; it has a, b"),
        ("y\n1\n", {}, "no columns but its targets"),
        ("a,b\n", {}, "no rows"),
        ("a,b\n1,red\n2,\n", {}, "missing values in the column 'b'"),
        ("a,b\n1\n2,3,4\n", {}, "cannot be read as a table"),
        ("a,b,c\n1,x,y\n", {"y": "b,c"}, "only a single target may be text"),
        (
            "a,b\n1,2\n,3\n",
            {},
            r"missing values in the column 'a', in 1 row \(line 3\); fill them in, by --missing a=mean",
        ),
    ],
)
def test_tables_that_cannot_be_used(content, names, words, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(AltMinError, match=words):
        ingest(open_source(tmp_path / "t.csv", **names), tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr").exists()


def test_another_table_goes_with_the_first(tmp_path):
    FRAME.assign(y=PRICE).to_csv(tmp_path / "first.csv", index=False)
    how = open_source(tmp_path / "first.csv").preparation
    other = FRAME[FRAME.colour == "red"]
    other[["rooms", "colour", "member", "age"]].to_csv(tmp_path / "other.csv", index=False)
    x, y = both(open_source(tmp_path / "other.csv", like=how))
    np.testing.assert_allclose(x, ENCODED[FRAME.colour == "red"])
    assert y is None
    other.assign(age="old").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(
        DataError,
        match=r"has text \('old' in lines 2, 3 and 4, and more\) in the column 'age', which has numbers",
    ):
        open_source(tmp_path / "bad.csv", like=how)
    other.drop(columns="rooms").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataError, match="no column 'rooms'"):
        open_source(tmp_path / "bad.csv", like=how)


REGRESSOR = """
[data]
train = "train.csv"
validation = "test.csv"
standardize = true
[network]
kind = "regressor"
hidden_layer_sizes = [12]
activation = "tanh"
[training]
max_sweeps = 30
"""


def test_predictions_have_the_units_of_the_raw_data(altmin, tmp_path):
    frame = FRAME.assign(y=PRICE)
    frame[:250].to_csv("train.csv", index=False)
    frame[250:].to_csv("test.csv", index=False)
    (tmp_path / "p.toml").write_text(REGRESSOR)
    assert altmin("train", "p.toml", "--run", "run", "--set", "output.report=false").code == 0
    frame[250:].drop(columns="y").to_csv("new.csv", index=False)
    assert altmin("predict", "run", "new.csv", "p.zarr").code == 0
    group = zarr.open_group("p.zarr", mode="r")
    predicted = np.asarray(group["prediction"][:, 0])
    error = np.sqrt(np.mean((predicted - PRICE[250:]) ** 2))
    assert error < 0.1 * PRICE.std()
    assert group.attrs["columns"] == ["y"]
    assert altmin("evaluate", "run", "test.csv").code == 0

    model = Model.load(tmp_path / "run" / "model")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(write_onnx(model, "m.onnx")))
    found = session.run(None, {"x": ENCODED[250:].astype(np.float32)})[0][:, 0]
    np.testing.assert_allclose(found, predicted, rtol=1e-4)

    np.savez("other.npz", x=ENCODED[:, :6])
    assert altmin("ingest", "other.npz", "other.zarr").code == 0
    outcome = altmin("predict", "run", "other.zarr", "q.zarr")
    assert outcome.code == 2
    assert "prepared otherwise" in outcome.err


def write_images(folder, label, count, size=(6, 5), mode="RGB"):
    (folder / label).mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (count, *size, 3) if mode == "RGB" else (count, *size), dtype=np.uint8)
    for number, values in enumerate(pixels):
        Image.fromarray(values, mode=None).save(folder / label / f"{number:03d}.png")
    return pixels


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_folders_of_images_are_classes(mode, tmp_path):
    cats, dogs = (
        write_images(tmp_path / "a", "cat", 7, mode=mode),
        write_images(tmp_path / "a", "dog", 4, mode=mode),
    )
    source = open_source(tmp_path / "a")
    x, y = both(source)
    np.testing.assert_array_equal(x, np.concatenate([cats, dogs]))
    np.testing.assert_array_equal(y, [0] * 7 + [1] * 4)
    assert source.preparation.classes == ("cat", "dog")
    store = ingest(source, tmp_path / "a.zarr", scale=255, chunk_rows=3)
    assert store.preparation.classes == ("cat", "dog")

    write_images(tmp_path / "b", "dog", 2, mode=mode)
    _, y = both(open_source(tmp_path / "b", like=source.preparation))
    np.testing.assert_array_equal(y, [1, 1])
    write_images(tmp_path / "b", "owl", 2, mode=mode)
    with pytest.raises(DataError, match="the class 'owl'"):
        open_source(tmp_path / "b", like=source.preparation)


def test_images_without_classes_and_those_that_cannot_be_used(tmp_path):
    write_images(tmp_path, "plain", 3)
    assert open_source(tmp_path / "plain").y is None
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "plain" / "zz.png")
    with pytest.raises(DataError, match=r"4×4 pixels and 000\.png has 5×6"):
        open_source(tmp_path / "plain")
    (tmp_path / "plain" / "zz.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read as an image"):
        open_source(tmp_path / "plain")
    whole = (tmp_path / "plain" / "002.png").read_bytes()
    (tmp_path / "plain" / "zz.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"zz.png cannot be read"):
        ingest(open_source(tmp_path / "plain"), tmp_path / "p.zarr")


def test_a_damaged_record_is_noticed(tmp_path):
    ingest(array_source(RNG.random((20, 3))), tmp_path / "a.zarr", standardize=True)
    group = zarr.open_group(tmp_path / "a.zarr")
    group.attrs["altmin"] = {**group.attrs["altmin"], "preparation": {"x": 1}}
    with pytest.raises(DataError, match="damaged record"):
        _ = SampleStore.open(tmp_path / "a.zarr").preparation
    scaling = Scaling((1.0,), (2.0,))
    assert scaling.undo(scaling.apply(np.array([[5.0]]))) == 5


@pytest.mark.parametrize(("dtype", "ending"), [("uint16", "png"), ("int32", "tif"), ("float32", "tif")])
def test_deep_images_keep_their_values(dtype, ending, tmp_path):
    pixels = RNG.integers(0, 60_000, (4, 5, 6)).astype(dtype)
    for number, values in enumerate(pixels):
        Image.fromarray(values).save(tmp_path / f"{number}.{ending}")
    source = open_source(tmp_path)
    x = np.concatenate([x for x, _ in source.blocks(3)])
    np.testing.assert_array_equal(x, pixels)
    assert x.dtype == source.x_dtype == dtype
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "9.png")
    with pytest.raises(DataError, match="same depth"):
        open_source(tmp_path)
