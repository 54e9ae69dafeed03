"""npz, npy and idx files: which arrays are taken, and what is said of damaged ones."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import zarr
from sample_files import IDX_CODES, X, Y, whole, write_idx

from altmin_dask.data.open import open_source
from altmin_dask.data.source import array_source
from altmin_dask.errors import AltMinWarning, DataError, MissingError

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


def test_arrays_of_a_part_go_with_it(tmp_path):
    """`lengths_train` was left out, and what fills sequences up was trained on."""
    arrays = {
        "x": np.zeros((9, 4, 2)),
        "y": np.arange(9) % 2,
        "lengths": np.full(9, 2),
        "sample_weight": np.ones(9),
    }
    train = {f"{name}_train": values for name, values in arrays.items()}
    np.savez(tmp_path / "s.npz", **train, **{f"{name}_test": values[:3] for name, values in arrays.items()})
    for source in (
        open_source(f"{tmp_path}/s.npz:train"),
        open_source(tmp_path / "s.npz", x="x_train", y="y_train"),
    ):
        assert list(source.arrays) == ["x", "y", "lengths", "sample_weight"]
        assert source.rows == 9
    assert open_source(f"{tmp_path}/s.npz:test").arrays["lengths"].shape == (3,)


@pytest.mark.parametrize(
    ("name", "values", "meant"),
    [
        ("length", np.full(9, 2), "lengths"),
        ("sample_weights", np.ones(9), "sample_weight"),
        ("state", np.zeros((9, 3)), "states"),
    ],
)
@pytest.mark.parametrize("part", ["", "_train"])
def test_arrays_that_were_meant_for_others_are_told_of(name, values, meant, part, tmp_path):
    arrays = {f"x{part}": np.zeros((9, 4, 2)), f"y{part}": np.arange(9) % 2, f"{name}{part}": values}
    np.savez(tmp_path / "s.npz", **arrays)
    for array, data in arrays.items():
        zarr.create_array(tmp_path / "s.zarr", name=array, data=data)
    for ending in ("npz", "zarr"):
        with pytest.warns(AltMinWarning) as told:
            open_source(tmp_path / f"s.{ending}", x=f"x{part}", y=f"y{part}")
        said = f"array '{name}{part}' of {tmp_path}/s.{ending} is not read; did you mean {meant}{part}?"
        assert [str(each.message) for each in told] == [said]


def test_other_arrays_may_be_there(tmp_path):
    x, y = np.zeros((9, 4)), np.arange(9.0)
    others = {"length": y, "dates": y, "state": y, "names": np.array(list("abcdefghi")), "weight": np.ones(3)}
    np.savez(tmp_path / "s.npz", x=x, y=y, **others)
    open_source(tmp_path / "s.npz")
    np.savez(tmp_path / "t.npz", x=x, weight=y)
    open_source(tmp_path / "t.npz", y="weight")


def test_arrays_in_memory_have_the_names_they_have(tmp_path):
    """Weights of sequences were dropped, and a name that nobody reads was stored."""
    x = np.zeros((6, 3, 2))
    assert list(array_source(x, np.zeros(6), sample_weight=np.ones(6)).arrays) == ["x", "y", "sample_weight"]
    assert list(array_source(x[:, 0], sample_weight=np.ones(6)).arrays) == ["x", "sample_weight"]
    with pytest.raises(TypeError, match="length"):
        array_source(x, np.zeros(6), length=np.ones(6, int))
