"""Sources: every kind of file gives the same samples in any block size, and says what is wrong with it."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_files import X, Y, whole, write_idx, write_zarr
from scipy.sparse import csr_array

from altmin_dask.data.open import open_source
from altmin_dask.data.source import Source, array_source
from altmin_dask.errors import ChunkError, ConfigError, DataError, MissingError


class Explosive:
    """Unpickling one fails the test."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def write_all(folder: Path) -> dict[str, Source]:
    """The same samples as every kind of source."""
    np.savez(folder / "plain.npz", x=X, y=Y)
    np.savez_compressed(folder / "packed.npz", x=X, y=Y)
    np.save(folder / "x.npy", X)
    np.save(folder / "fortran.npy", np.asfortranarray(X))
    np.save(folder / "big_endian.npy", X.astype(">f4"))
    np.save(folder / "y.npy", Y)
    for name, suffix in (("idx", ""), ("idx_gz", ".gz")):
        (folder / name).mkdir()
        write_idx(folder / name / f"train-images-idx3-float{suffix}", X)
        write_idx(folder / name / f"train-labels-idx1-int{suffix}", Y.astype("i4"))
    write_zarr(folder / "two.zarr", 2, x=X, y=Y)
    write_zarr(folder / "three.zarr", 3, x=X, y=Y)
    y_path = str(folder / "y.npy")
    return {
        "npz": open_source(folder / "plain.npz"),
        "npz compressed": open_source(folder / "packed.npz"),
        "npy": open_source(folder / "x.npy", y=y_path),
        "npy fortran": open_source(folder / "fortran.npy", y=y_path),
        "npy big endian": open_source(folder / "big_endian.npy", y=y_path),
        "idx": open_source(folder / "idx"),
        "idx gz": open_source(f"{folder / 'idx_gz'}:train"),
        "zarr 2": open_source(folder / "two.zarr"),
        "zarr 3": open_source(folder / "three.zarr"),
        "file url": open_source(f"file://{folder / 'three.zarr'}"),
        "memory": array_source(X, Y),
    }


def open_as(kind: str, folder: Path, x: np.ndarray) -> Source:
    """Samples that cannot be used, as one kind of source."""
    path = folder / f"data.{kind}"
    match kind:
        case "npz":
            np.savez(path, x=x)
        case "npy":
            np.save(path, x)
        case "zarr":
            zarr.create_array(path, shape=x.shape, dtype=x.dtype, zarr_format=2)
        case "memory":
            return array_source(x)
    return open_source(path)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Source]:
    return write_all(tmp_path_factory.mktemp("sources"))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 30))
def test_blocks_of_any_size_put_together_are_the_whole(sources, rows):
    for kind, source in sources.items():
        assert (source.rows, source.x_shape, source.x_dtype) == (23, (4, 3), np.float32), kind
        assert source.y_shape == (), kind
        blocks = list(source.blocks(rows))
        assert all(len(x) == len(y) == rows for x, y in blocks[:-1]), kind
        assert all(x.dtype == source.x_dtype and y.dtype == source.y_dtype for x, y in blocks), kind
        np.testing.assert_array_equal(np.concatenate([x for x, _ in blocks]), X, kind)
        np.testing.assert_array_equal(np.concatenate([y for _, y in blocks]), Y, kind)


def test_a_source_can_be_read_twice_and_left_in_the_middle(sources):
    for source in sources.values():
        next(source.blocks(2))
        np.testing.assert_array_equal(whole(source)[0], X)


def test_a_source_without_targets(tmp_path):
    np.save(tmp_path / "x.npy", X)
    source = open_source(tmp_path / "x.npy")
    assert (source.y, source.y_shape, source.y_dtype) == (None, None, None)
    assert [y for _, y in source.blocks(12)] == [None, None]


def test_blocks_need_a_row():
    with pytest.raises(ConfigError, match="blocks of 0 rows cannot be read; ask for at least 1"):
        next(array_source(X).blocks(0))


# --- digits


def test_digits():
    source = open_source("digits")
    x, y = whole(source, 500)
    assert (x.shape, x.dtype, x.min(), x.max()) == ((1797, 8, 8), np.float32, 0, 16)
    assert (y.shape, y.dtype, y.max()) == ((1797,), np.int64, 9)
    train, test = open_source("digits:train"), open_source("digits:test")
    assert (train.rows, test.rows, train.name) == (1437, 360, "digits:train")
    np.testing.assert_array_equal(np.concatenate([whole(train)[0], whole(test)[0]]), x)


def test_digits_has_no_named_arrays():
    with pytest.raises(DataError, match="digits leaves no arrays to choose from; leave out"):
        open_source("digits", x="images")


# --- zarr


def test_zarr_arrays_by_name_and_bare(tmp_path):
    write_zarr(tmp_path / "group.zarr", images=X, labels=Y)
    np.testing.assert_array_equal(whole(open_source(tmp_path / "group.zarr", x="images", y="labels"))[1], Y)
    assert open_source(tmp_path / "group.zarr", x="images").y is None
    np.testing.assert_array_equal(whole(open_source(tmp_path / "group.zarr" / "images"))[0], X)
    with pytest.raises(
        MissingError, match=r"group\.zarr has no array 'x'; it has images, labels: name two with --x NAME"
    ):
        open_source(tmp_path / "group.zarr")
    with pytest.raises(DataError, match="leaves no arrays to choose from"):
        open_source(tmp_path / "group.zarr" / "images", x="x")


def test_zarr_at_a_url():
    group = zarr.create_group("memory://sources/test.zarr", overwrite=True)
    group.create_array("x", data=X)
    source = open_source("memory://sources/test.zarr")
    assert source.name == "memory://sources/test.zarr"
    np.testing.assert_array_equal(whole(source)[0], X)


@pytest.mark.parametrize(
    ("url", "error", "sentence"),
    [
        (
            "memory://sources/nothing.zarr",
            MissingError,
            "there is no zarr store at memory://sources/nothing.zarr",
        ),
        (
            "nosuch://host/a.zarr",
            DataError,
            "nosuch://host/a.zarr cannot be opened: .*nosuch; check the URL",
        ),
        (
            "memory://sources/test.zarr:train",
            DataError,
            "memory://sources/test.zarr has no parts .* leave out :train",
        ),
    ],
)
def test_zarr_at_a_wrong_url(url, error, sentence):
    with pytest.raises(error, match=sentence):
        open_source(url)


def test_zarr_with_a_damaged_chunk(tmp_path):
    path = write_zarr(tmp_path / "data.zarr", x=X)
    (path / "x/c/2/0/0").write_bytes(b"damage")
    with pytest.raises(
        ChunkError, match=r"chunk 2 of array 'x' of .*data\.zarr cannot be decompressed; put it"
    ):
        whole(open_source(path))


def test_zarr_with_damaged_metadata(tmp_path):
    path = write_zarr(tmp_path / "data.zarr", x=X)
    (path / "zarr.json").write_text("{")
    with pytest.raises(DataError, match=r"data\.zarr cannot be opened as a zarr store"):
        open_source(path)


# --- what no kind of source may hold


@pytest.mark.parametrize("kind", ["npz", "npy", "zarr", "memory"])
@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((0, 3)), "has no rows; give it at least one sample"),
        (np.zeros((3, 0)), "a sample needs at least one value"),
        (np.zeros(3), "has rank 1; x needs rank 2 or more, one row per sample"),
        (np.zeros(()), r"is a single value \(rank 0\)"),
        (np.zeros((3, 2), complex), "has dtype complex128; only integers and real numbers can be used"),
        (np.full((3, 2), "a"), "has dtype <U1; only integers and real numbers can be used"),
    ],
)
def test_unusable_inputs(tmp_path, kind, x, sentence):
    with pytest.raises(DataError, match=sentence):
        open_as(kind, tmp_path, x)


def test_x_and_y_of_different_lengths(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=Y[:-1])
    with pytest.raises(
        DataError, match=r"array 'x' of .* has 23 rows and array 'y' of .* has 22; give x and y that belong"
    ):
        open_source(tmp_path / "data.npz")


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_objects_are_never_unpickled(tmp_path, kind):
    objects = np.full((2, 2), Explosive(), dtype=object)
    with pytest.raises(DataError, match="holds pickled Python objects, which are never loaded"):
        open_as(kind, tmp_path, objects)


@pytest.mark.parametrize(
    "x",
    [
        np.array([["a", 1.5], ["b", 2]], object),
        pd.DataFrame({"a": ["u", "v"], "b": [1, 2]}),
        csr_array(np.eye(3)),
    ],
    ids=["objects", "frame", "sparse"],
)
def test_objects_in_memory_are_not_said_to_be_in_a_file(x):
    with pytest.raises(
        DataError, match=r"x of the given arrays holds Python objects: .*; give an array of numbers"
    ):
        array_source(x)
    with pytest.raises(DataError, match=r"y of the given arrays holds Python objects: .* by their places"):
        array_source(np.eye(3), np.array(["a", "b", "a"], object))


@pytest.mark.parametrize("dtype", ["<f4", "|O"])
def test_zarr_arrays_that_would_be_unpickled(tmp_path, dtype):
    folder = tmp_path / "data.zarr"
    folder.mkdir()
    (folder / ".zarray").write_text(
        '{"zarr_format": 2, "shape": [1, 1], "chunks": [1, 1], "order": "C", "fill_value": 0, '
        f'"dtype": "{dtype}", "compressor": null, "filters": [{{"id": "pickle", "protocol": 5}}]}}'
    )
    (folder / "0.0").write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(DataError, match=r"cannot be opened as a zarr store: .*pickle"):
        whole(open_source(folder))


# --- names of files


def test_what_does_not_exist(tmp_path):
    for spec in (tmp_path / "no.npz", f"{tmp_path}/no.npz:train", f"file://{tmp_path}/no.npz"):
        with pytest.raises(MissingError, match=r"there is no file or folder /.*no\.npz; check the path"):
            open_source(spec)


def test_what_is_of_no_known_kind(tmp_path):
    (tmp_path / "data.doc").write_text("1,2")
    for path in (tmp_path, tmp_path / "data.doc"):
        with pytest.raises(
            DataError,
            match=r"not a kind of data that can be read; give `digits`, `synthetic:…`, `adding:…`, a .npz file, ",
        ):
            open_source(path)


def test_what_has_no_parts(tmp_path):
    np.save(tmp_path / "x.npy", X)
    write_zarr(tmp_path / "x.zarr", x=X)
    for name in ("x.npy", "x.zarr"):
        with pytest.raises(DataError, match="has no parts to choose from; leave out :test"):
            open_source(f"{tmp_path / name}:test")


@pytest.mark.parametrize("kind", ["plain.npz", "packed.npz", "x.npy", "idx/train-images-idx3-float"])
def test_damaged_bytes_give_values_or_a_sentence(tmp_path_factory, sources, kind):
    """Without a checksum a damaged file may read as other numbers, but it never fails in any other way."""
    intact = next(tmp_path_factory.getbasetemp().glob(f"sources*/{kind}")).read_bytes()
    path = tmp_path_factory.mktemp("damaged") / kind
    path.parent.mkdir(exist_ok=True)

    @settings(max_examples=60, deadline=None)
    @given(position=st.integers(0, len(intact) - 1), byte=st.integers(0, 255))
    def damage(position: int, byte: int) -> None:
        path.write_bytes(intact[:position] + bytes([byte]) + intact[position + 1 :])
        with contextlib.suppress(DataError):
            for _ in open_source(path if path.suffix else path.parent).blocks(1):
                pass

    damage()
