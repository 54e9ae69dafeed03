"""Sources: every kind of file gives the same samples in any block size, and says what is wrong with it."""

from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from altmin_dask.data.open import open_source
from altmin_dask.data.source import Source, array_source
from altmin_dask.errors import ChunkError, ConfigError, DataError, MissingError

X = np.random.default_rng(0).normal(size=(23, 4, 3)).astype(np.float32)
Y = np.arange(23) % 5
IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


class Explosive:
    """Unpickling one fails the test."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def write_idx(path: Path, values: np.ndarray) -> Path:
    header = struct.pack(">HBB", 0, IDX_CODES[values.dtype.str[1:]], values.ndim)
    content = (
        header
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(values.dtype.newbyteorder(">")).tobytes()
    )
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(content)
    return path


def write_zarr(path: Path, zarr_format: int = 3, **arrays: np.ndarray) -> Path:
    group = zarr.create_group(path, zarr_format=zarr_format)
    for name, values in arrays.items():
        group.create_array(name, data=values, chunks=(min(5, len(values)), *values.shape[1:]))
    return path


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


def whole(source: Source, rows: int = 7) -> tuple[np.ndarray, np.ndarray | None]:
    blocks = list(source.blocks(rows))
    x = np.concatenate([x for x, _ in blocks])
    return x, None if source.y is None else np.concatenate([y for _, y in blocks])


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


# --- npz


def test_npz_arrays_are_chosen_by_name_split_or_because_they_are_alone(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x_train=X, y_train=Y, x_test=X[:5], y_test=Y[:5])
    assert open_source(f"{path}:train").rows == 23
    assert open_source(f"{path}:test").rows == 5
    source = open_source(path, x="x_test", y="y_test")
    np.testing.assert_array_equal(whole(source)[1], Y[:5])
    assert open_source(path, x="x_test").y is None

    np.savez(path, images=X, labels=Y)
    assert open_source(path, y="labels").x_shape == (4, 3)
    np.savez(path, images=X)
    assert open_source(path).y is None


def test_npz_with_no_clear_x_lists_the_arrays(tmp_path):
    np.savez(tmp_path / "data.npz", images=X, labels=Y)
    with pytest.raises(
        DataError, match="has the arrays images, labels and none is called x; name two with --x NAME --y NAME"
    ):
        open_source(tmp_path / "data.npz")
    np.savez(tmp_path / "parts.npz", x_train=X, x_test=X)
    with pytest.raises(DataError, match="none is called x; add :train or :test to the path or name two"):
        open_source(tmp_path / "parts.npz")


@pytest.mark.parametrize(
    ("suffix", "names", "missing"), [("", {"x": "z"}, "z"), ("", {"y": "z"}, "z"), (":test", {}, "x_test")]
)
def test_npz_without_the_array_lists_those_it_has(tmp_path, suffix, names, missing):
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    with pytest.raises(MissingError, match=f"has no array '{missing}'; it has x, y"):
        open_source(f"{tmp_path / 'data.npz'}{suffix}", **names)


def test_npz_with_a_split_and_names(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=X, y_train=Y)
    with pytest.raises(DataError, match="leave out the names"):
        open_source(f"{tmp_path / 'data.npz'}:train", x="x_train")


def test_npz_without_arrays(tmp_path):
    zipfile.ZipFile(tmp_path / "empty.npz", "w").close()
    with pytest.raises(DataError, match=r"empty\.npz has no arrays; write it with numpy\.savez"):
        open_source(tmp_path / "empty.npz")


def test_npz_in_fortran_order(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.asfortranarray(X))
    with pytest.raises(
        DataError, match=r"array 'x' of .* is stored in Fortran order and cannot be read row by row"
    ):
        open_source(tmp_path / "data.npz")


def test_npz_that_is_no_zip(tmp_path):
    (tmp_path / "data.npz").write_bytes(b"not a zip")
    with pytest.raises(
        DataError, match=r"data\.npz cannot be read: .*zip file.*; check the file or write it again"
    ):
        open_source(tmp_path / "data.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_with_flipped_bits(tmp_path, compression):
    path = tmp_path / "data.npz"
    content = io.BytesIO()
    np.save(content, X)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x.npy", content.getvalue())
    damaged = bytearray(path.read_bytes())
    damaged[600] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"array 'x' of .* cannot be read"):
        whole(open_source(path))


@pytest.mark.parametrize(
    ("cut", "sentence"), [(-5, "ends in row 22 of the 23"), (None, "goes on after the 23 rows")]
)
def test_npz_member_of_the_wrong_length(tmp_path, cut, sentence):
    content = io.BytesIO()
    np.save(content, X)
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", content.getvalue()[:cut] if cut else content.getvalue() + b"more")
    with pytest.raises(DataError, match=sentence):
        whole(open_source(tmp_path / "data.npz"))


# --- npy


def test_npy_truncated(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-5])
    with pytest.raises(DataError, match=r"the array in .*x\.npy cannot be read"):
        open_source(tmp_path / "x.npy")


def test_npy_of_another_kind(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"not npy at all")
    with pytest.raises(DataError, match=r"the array in .*x\.npy cannot be read"):
        open_source(tmp_path / "x.npy")


def test_npy_with_a_negative_shape(tmp_path):
    np.save(tmp_path / "x.npy", X)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"(23, 4, 3)", b"(-3, 4, 3)"))
    with pytest.raises(DataError, match=r"its header has the shape \(-3, 4, 3\); write it again"):
        open_source(tmp_path / "x.npy")


def test_npy_in_newer_versions_of_the_format(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, X, version=(2, 0))
    np.testing.assert_array_equal(whole(open_source(tmp_path / "x.npy"))[0], X)
    with (tmp_path / "named.npy").open("wb") as file:
        np.lib.format.write_array(file, np.zeros(3, [("a", "f4")]), version=(3, 0))
    with pytest.raises(DataError, match="cannot be read: version 3 of the npy format is for named fields"):
        open_source(tmp_path / "named.npy")


def test_npy_names(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match="holds one array, which is x; leave out the name images"):
        open_source(tmp_path / "x.npy", x="images")
    with pytest.raises(
        DataError, match=r"labels cannot be the y of .*x\.npy; give the path of another \.npy file"
    ):
        open_source(tmp_path / "x.npy", y="labels")
    with pytest.raises(MissingError, match=r"there is no file .*y\.npy; check the path given for y"):
        open_source(tmp_path / "x.npy", y=str(tmp_path / "y.npy"))


# --- idx


@pytest.mark.parametrize("dtype", sorted(IDX_CODES))
@pytest.mark.parametrize("shape", [(6, 4), (6, 2, 2), (6, 1, 2, 2, 1)])
def test_idx_of_any_rank_and_dtype(tmp_path, dtype, shape):
    values = np.arange(-8, 16).astype(dtype).reshape(shape)
    write_idx(tmp_path / f"images-idx{len(shape)}-{dtype[0]}", values)
    (tmp_path / f"images-idx{len(shape)}-{dtype[0]}").rename(tmp_path / f"some-images-idx{len(shape)}-type")
    source = open_source(tmp_path)
    assert (source.x_dtype, source.y) == (values.dtype, None)
    np.testing.assert_array_equal(whole(source, 4)[0], values)


def test_idx_folder_like_mnist(tmp_path):
    for part, rows in (("train", 20), ("t10k", 3)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", np.zeros((rows, 2, 2), "u1"))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.zeros(rows, "u1"))
    assert [open_source(f"{tmp_path}:{split}").rows for split in ("train", "test")] == [20, 3]
    with pytest.raises(DataError, match=r"has 2 image files .*; add :train or :test to the path"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="leaves no arrays to choose from"):
        open_source(f"{tmp_path}:train", y="labels")


def test_idx_folder_without_the_part(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 2, 2), "u1"))
    with pytest.raises(DataError, match=r"has no image files for :test \(it has train-images-idx3-ubyte\)"):
        open_source(f"{tmp_path}:test")


def test_idx_plain_file_is_preferred(tmp_path):
    write_idx(tmp_path / "test-images.idx3-ubyte.gz", np.zeros((3, 2, 2), "u1"))
    write_idx(tmp_path / "test-images.idx3-ubyte", np.zeros((3, 2, 2), "u1"))
    assert open_source(f"{tmp_path}:test").x.label.endswith("ubyte")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_truncated(tmp_path, suffix):
    path = write_idx(tmp_path / f"train-images-idx3-float{suffix}", X)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"ends in row 22 of the 23|cannot be read: .*ended before"):
        whole(open_source(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\x03\0\0"])
def test_idx_with_half_a_header(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="idx3-ubyte cannot be read: unpack requires a buffer"):
        open_source(tmp_path)


def test_idx_of_another_kind(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"<html>")
    with pytest.raises(DataError, match="does not begin like an idx file; download or write it again"):
        open_source(tmp_path)


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


@pytest.mark.parametrize("kind", ["npz", "npy", "memory"])
def test_objects_are_never_unpickled(tmp_path, kind):
    objects = np.full((2, 2), Explosive(), dtype=object)
    with pytest.raises(DataError, match="holds pickled Python objects, which are never loaded"):
        open_as(kind, tmp_path, objects)


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
            match=r"is not a kind of data that can be read; give `digits`, `synthetic:…`, `adding:…`, a .npz file, ",
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
