"""The sample store: what ingest writes, what open refuses, and that nothing is left half-written."""

from __future__ import annotations

import math
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from in_order import ingest
from traced import peak_of_ingest

from altmin_dask.data import store_writer
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore, default_chunk_rows
from altmin_dask.data.source import array_source
from altmin_dask.data.summaries import Summary, summarise
from altmin_dask.errors import ConfigError, DataError, ExistsError, MissingError

X = np.arange(23 * 6, dtype=np.uint8).reshape(23, 2, 3)
Y = np.arange(23, dtype=np.uint8) % 5


def write_store(path: Path, *, chunks: tuple[int, ...] = (5, 2, 3), **arrays: np.ndarray) -> Path:
    """A store that another program wrote."""
    group = zarr.create_group(path)
    for name, values in arrays.items():
        group.create_array(name, data=values, chunks=chunks[: values.ndim])
    return path


# --- what ingest writes


def test_the_digits(tmp_path):
    store = ingest(open_source("digits:train"), tmp_path / "digits.zarr", scale=16, chunk_rows=200)
    assert (store.rows, store.chunk_rows, store.n_chunks) == (1437, 200, 8)
    assert (store.sample_shape, store.features) == ((8, 8), 64)
    assert (store.x.dtype, store.y.dtype) == (np.float32, np.int64)
    assert store.summary == Summary(0.0, 1.0, 0, 9, True)
    assert store.attributes == {
        "version": 1,
        "source": "digits:train",
        "scale": 16,
        "sample_shape": [8, 8],
        "summary": {"x_min": 0.0, "x_max": 1.0, "y_min": 0, "y_max": 9, "y_integer": True},
        "shuffled": None,
        "complete": True,
    }
    assert store.path == str(tmp_path / "digits.zarr")
    assert store.x.metadata.zarr_format == 3
    assert [codec.to_dict() for codec in store.x.compressors] == [{"name": "crc32c"}]
    assert (math.isnan(store.x.fill_value), store.y.fill_value) == (True, np.iinfo(np.int64).min)
    assert os.listdir(tmp_path) == ["digits.zarr"]


@settings(max_examples=25, deadline=None)
@given(
    chunk_rows=st.integers(1, 30),
    dtype=st.sampled_from(["float32", "float64"]),
    scale=st.floats(0.01, 1000),
    targets=st.sampled_from([None, Y, Y > 2, Y / 3, np.stack([Y, Y], 1) / 7]),
)
def test_what_was_ingested_is_read_back(tmp_path_factory, chunk_rows, dtype, scale, targets):
    path = tmp_path_factory.mktemp("round_trip") / "store.zarr"
    store = ingest(array_source(X, targets), path, chunk_rows=chunk_rows, dtype=dtype, scale=scale)
    assert store.chunk_rows == min(chunk_rows, 23)
    assert store.n_chunks == math.ceil(23 / chunk_rows) == len(list((path / "x" / "c").iterdir()))
    x = store.x[:]
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, (X / scale).astype(dtype))
    if targets is None:
        assert store.y is None
    else:
        y = store.y[:]
        assert y.dtype == (np.int64 if targets.dtype.kind in "ub" else dtype)
        np.testing.assert_array_equal(y, targets.astype(y.dtype))
        assert store.y.chunks[0] == store.chunk_rows
    assert store.summary == summarise(x, None if store.y is None else store.y[:])


def test_chunks_of_zeros_are_written(tmp_path):
    ingest(array_source(np.zeros((6, 2))), tmp_path / "zeros.zarr", chunk_rows=2)
    assert len(list((tmp_path / "zeros.zarr/x/c").iterdir())) == 3


def test_progress_is_told_after_each_chunk(tmp_path):
    told = []
    ingest(array_source(X), tmp_path / "a.zarr", chunk_rows=10, progress=lambda *rows: told.append(rows))
    assert told == [(10, 23), (20, 23), (23, 23)]


def test_folders_on_the_way_are_made(tmp_path):
    assert ingest(array_source(X), tmp_path / "new" / "folder" / "a.zarr").rows == 23


@given(
    rows=st.integers(1, 10**7),
    shape=st.lists(st.integers(1, 300), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_default_chunk_rows(rows, shape, dtype):
    chunk_rows = default_chunk_rows(rows, shape, dtype)
    size = chunk_rows * math.prod(shape) * np.dtype(dtype).itemsize
    assert 1 <= chunk_rows <= rows
    assert chunk_rows == 1 or size <= 8 << 20
    assert rows < 512 or math.ceil(rows / chunk_rows) >= 8
    if math.ceil(rows / chunk_rows) > 8 and chunk_rows > 1:
        assert size > 4 << 20


def test_default_chunk_rows_of_known_data():
    assert default_chunk_rows(60000, (28, 28)) == 2674
    assert default_chunk_rows(1437, (8, 8)) == 180
    assert default_chunk_rows(511, (8, 8)) == 511


# --- memory


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_memory_is_bounded_by_the_chunk(tmp_path, dtype):
    """50 chunks of 1 MiB, out of a compressed file that would be 50 MiB."""
    np.savez_compressed(tmp_path / "data.npz", x=np.tile(np.arange(256, dtype="f4"), (50 * 1024, 1)))
    peak = peak_of_ingest(tmp_path / "data.npz", tmp_path / "data.zarr", 1024, dtype)
    assert SampleStore.open(tmp_path / "data.zarr").n_chunks == 50
    chunk = 1024 * 256 * np.dtype(dtype).itemsize
    # a raw chunk and a stored one, and several pieces of 1 MiB in which the file is decompressed
    assert peak < (1 << 20) + chunk + (4 << 20)


# --- nothing half-written


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interruption_leaves_what_was_there(tmp_path, error, overwrite):
    if overwrite:
        ingest(array_source(X[:4]), tmp_path / "a.zarr")

    def stop(done, _):
        if done > 10:
            raise error

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error):
        ingest(array_source(X), tmp_path / "a.zarr", chunk_rows=5, progress=stop, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before
    if overwrite:
        assert SampleStore.open(tmp_path / "a.zarr").rows == 4


def test_ctrl_c_during_a_write_leaves_nothing(tmp_path, monkeypatch):
    """The write that is under way goes on after the signal; it must not put the folder back."""

    def interrupted(x, y, first_row, *names, **more):
        if first_row == 10:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    monkeypatch.setattr(store_writer, "check_finite", interrupted)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        ingest(array_source(X), tmp_path / "a.zarr", chunk_rows=5)
    assert threading.active_count() <= threads + 1  # zarr's own event loop may be new
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_not_finite_leave_nothing(tmp_path):
    x = np.zeros((23, 2))
    x[17] = np.nan
    with pytest.raises(DataError, match="row 17 of bad has NaN or infinity in x as float32"):
        ingest(array_source(x, name="bad"), tmp_path / "a.zarr", chunk_rows=5)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_puts_the_old_store_back(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    ingest(array_source(X[:4]), path)
    rename = Path.rename

    def fail(self, target):
        if target == path and "replaced" not in self.name:
            raise OSError("disk trouble")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk trouble"):
        ingest(array_source(X), path, overwrite=True)
    assert SampleStore.open(path).rows == 4
    assert os.listdir(tmp_path) == ["a.zarr"]


# --- overwriting


def test_a_store_is_replaced_only_on_request(tmp_path):
    ingest(array_source(X[:4]), tmp_path / "a.zarr")
    with pytest.raises(
        ExistsError, match=r"a\.zarr exists already; give another destination, or --overwrite"
    ):
        ingest(array_source(X), tmp_path / "a.zarr")
    assert SampleStore.open(tmp_path / "a.zarr").rows == 4
    assert ingest(array_source(X), tmp_path / "a.zarr", overwrite=True).rows == 23
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_store_can_replace_its_own_source(tmp_path):
    ingest(array_source(X), tmp_path / "a.zarr", chunk_rows=4)
    store = ingest(open_source(tmp_path / "a.zarr"), tmp_path / "a.zarr", chunk_rows=6, overwrite=True)
    assert store.chunk_rows == 6
    np.testing.assert_array_equal(store.x[:], X)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_store_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(
            ExistsError, match=f"{name} exists and is not a zarr store, so it is never replaced"
        ):
            ingest(array_source(X), tmp_path / name, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link"]


def test_a_link_to_a_store_stays_a_link(tmp_path):
    ingest(array_source(X[:4]), tmp_path / "real.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "real.zarr")
    ingest(array_source(X), tmp_path / "link.zarr", overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()
    assert SampleStore.open(tmp_path / "real.zarr").rows == 23


# --- URLs


@pytest.fixture
def url(request) -> str:
    return f"memory://samples/{request.node.name}.zarr"


def test_a_store_at_a_url(url):
    store = ingest(array_source(X, Y), url, chunk_rows=6)
    assert (store.path, store.rows, store.n_chunks) == (url, 23, 4)
    assert [codec.to_dict()["name"] for codec in store.x.compressors] == ["zstd", "crc32c"]
    np.testing.assert_array_equal(store.x[:], X)
    with pytest.raises(ExistsError, match="exists already"):
        ingest(array_source(X), url)
    assert ingest(array_source(X[:4]), url, overwrite=True).y is None


def test_a_store_at_a_url_cannot_replace_itself(url):
    ingest(array_source(X), url)
    with pytest.raises(ExistsError, match="cannot replace itself while it is read"):
        ingest(open_source(url), url, overwrite=True)
    assert SampleStore.open(url).rows == 23


def test_a_store_at_a_url_is_refused_until_it_is_complete(url):
    def stop(done, _):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(array_source(X), url, chunk_rows=5, progress=stop)
    with pytest.raises(
        DataError, match=r"was not written to the end; `altmin ingest` it again with --overwrite"
    ):
        SampleStore.open(url)
    assert ingest(array_source(X), url, overwrite=True).rows == 23


# --- settings and targets


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"scale": 0.0}, "scale is 0.0; x can only be divided by a finite number above 0"),
        ({"scale": math.nan}, "scale is nan"),
        ({"scale": math.inf}, "scale is inf"),
        ({"scale": -1.0}, "scale is -1.0"),
        ({"chunk_rows": 0}, "chunk_rows is 0; a chunk needs at least 1 row"),
        ({"dtype": "int8"}, "dtype is int8; samples are stored as float32 or float64"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, setting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ingest(array_source(X), tmp_path / "a.zarr", **setting)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (
            np.zeros((23, 4), int),
            r"y of the given arrays has integers of shape \(23, 4\); give labels of shape",
        ),
        (np.zeros((23, 4, 2)), r"y of the given arrays has shape \(23, 4, 2\); give targets of shape"),
        (np.zeros((23, 0)), r"y of the given arrays has shape \(23, 0\); give targets of shape"),
    ],
)
def test_targets_that_cannot_be_used(tmp_path, y, sentence):
    with pytest.raises(DataError, match=sentence):
        ingest(array_source(X, y), tmp_path / "a.zarr")


# --- open


def test_a_store_of_another_program(tmp_path):
    for zarr_format in (2, 3):
        group = zarr.create_group(tmp_path / f"{zarr_format}.zarr", zarr_format=zarr_format)
        group.create_array("x", data=X, chunks=(50, 2, 3))
        group.create_array("y", data=Y, chunks=(23,))
        store = SampleStore.open(tmp_path / f"{zarr_format}.zarr")
        assert (store.rows, store.chunk_rows, store.n_chunks, store.features) == (23, 23, 1, 6)
        assert (store.attributes, store.summary) == ({}, None)


def test_a_store_is_opened_read_only_by_absolute_path_and_can_be_pickled(tmp_path, monkeypatch):
    ingest(array_source(X, Y), tmp_path / "a.zarr")
    monkeypatch.chdir(tmp_path)
    for path in ("a.zarr", f"file://{tmp_path}/a.zarr", Path("a.zarr")):
        store = pickle.loads(pickle.dumps(SampleStore.open(path)))
        assert store.path == str(tmp_path / "a.zarr")
        np.testing.assert_array_equal(store.y[:], Y)
        with pytest.raises(ValueError, match="read-only"):
            store.x[:5] = 0


def test_open_refuses_what_is_missing_or_no_group(tmp_path):
    with pytest.raises(MissingError, match=r"there is no file or folder .*a\.zarr; check the path"):
        SampleStore.open(tmp_path / "a.zarr")
    with pytest.raises(MissingError, match="there is no zarr store at memory://samples/no; check the URL"):
        SampleStore.open("memory://samples/no")
    with pytest.raises(DataError, match="is not a zarr store; make one with `altmin ingest`"):
        SampleStore.open(tmp_path)
    zarr.create_array(tmp_path / "x.zarr", data=X)
    with pytest.raises(DataError, match=r"x\.zarr is one zarr array, not a group with x in it"):
        SampleStore.open(tmp_path / "x.zarr")
    with pytest.raises(DataError, match=r"has no array called x \(it has images\); `altmin ingest` it first"):
        SampleStore.open(write_store(tmp_path / "images.zarr", images=X))
    zarr.create_group(tmp_path / "x_group.zarr").create_group("x")
    with pytest.raises(DataError, match=r"has no array called x \(it has no arrays\)"):
        SampleStore.open(tmp_path / "x_group.zarr")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": X, "y": Y[:-1]}, "x of .* has 23 rows and y of .* has 22; give x and y that belong together"),
        ({"x": X, "y": np.stack([Y] * 4, 1)}, r"y of .* has integers of shape \(23, 4\)"),
        ({"x": Y}, "x of .* has rank 1; x needs rank 2 or more"),
        (
            {"x": X.astype(complex)},
            "x of .* has dtype complex128; only integers and real numbers can be used",
        ),
        ({"x": X[:0]}, "x of .* has no rows"),
    ],
)
def test_open_refuses_unusable_arrays(tmp_path, arrays, sentence):
    group = zarr.create_group(tmp_path / "a.zarr")
    for name, values in arrays.items():
        group.create_array(name, shape=values.shape, dtype=values.dtype)
    with pytest.raises(DataError, match=sentence):
        SampleStore.open(tmp_path / "a.zarr")


def test_open_refuses_other_chunks(tmp_path):
    with pytest.raises(
        DataError,
        match=r"x of .* has chunks of \(5, 1, 3\), which cut through samples of \(2, 3\); `altmin ingest` it",
    ):
        SampleStore.open(write_store(tmp_path / "a.zarr", x=X, chunks=(5, 1, 3)))
    group = zarr.create_group(tmp_path / "b.zarr")
    group.create_array("x", data=X, chunks=(5, 2, 3))
    group.create_array("y", data=Y, chunks=(6,))
    with pytest.raises(
        DataError, match="has 5 rows in a chunk of x and 6 in one of y; `altmin ingest` it into a new"
    ):
        SampleStore.open(tmp_path / "b.zarr")
    assert ingest(open_source(tmp_path / "b.zarr"), tmp_path / "c.zarr", chunk_rows=7).chunk_rows == 7


def test_open_refuses_a_later_version_and_ignores_what_is_not_ours(tmp_path):
    path = write_store(tmp_path / "a.zarr", x=X)
    group = zarr.open_group(path)
    group.attrs["altmin"] = "something else"
    assert SampleStore.open(path).attributes == {}
    group.attrs["altmin"] = {"version": 2, "complete": True}
    with pytest.raises(
        DataError, match="was written by a later version of altmin-dask; install that version"
    ):
        SampleStore.open(path)
