"""Rows in a random order: every row once, arrays together, whatever the chunks, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from altmin_dask.data import shuffling
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.shuffling import ArraySize, Shuffle
from altmin_dask.data.source import array_source
from altmin_dask.errors import DataError

INT = ArraySize((), np.dtype(np.int64))


def shuffled(rows: int, folder: Path, *, seed: int = 0, block: int = 7, piece: int = 5) -> np.ndarray:
    with Shuffle(rows, {"row": INT}, seed, folder) as shuffle:
        for start in range(0, rows, block):
            shuffle.add({"row": np.arange(start, min(start + block, rows))})
        return np.concatenate(list(shuffle.pieces("row", piece)))


@given(
    rows=st.integers(1, 300),
    bucket_rows=st.integers(1, 400),
    block=st.integers(1, 50),
    piece=st.integers(1, 50),
    seed=st.integers(0, 3),
)
def test_every_row_once_whatever_blocks_and_buckets(
    rows, bucket_rows, block, piece, seed, tmp_path_factory, request
):
    folder = tmp_path_factory.mktemp("shuffle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffling, "BUCKET_BYTES", 8 * bucket_rows)
        order = shuffled(rows, folder, seed=seed, block=block, piece=piece)
        assert np.array_equal(np.sort(order), np.arange(rows))
        # blocks that are taken and pieces that are given do not matter, the seed does
        assert np.array_equal(order, shuffled(rows, folder, seed=seed, block=rows, piece=rows))
        if rows > 60:
            assert not np.array_equal(order, shuffled(rows, folder, seed=seed + 1))
    assert os.listdir(folder) == []


@pytest.mark.parametrize("bucket_rows", [3, 1000])
def test_every_place_is_as_likely(bucket_rows, tmp_path, monkeypatch):
    """Of 12 rows the first and the last come to every place as often, with several buckets as with one."""
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", 8 * bucket_rows)
    orders = np.array([shuffled(12, tmp_path, seed=seed) for seed in range(1200)])
    for row in (0, 11):
        assert chisquare(np.bincount(np.argmax(orders == row, axis=1), minlength=12)).pvalue > 1e-3
    # neighbours do not stay so
    beside = (np.abs(np.diff(orders, axis=1)) == 1).mean()
    assert beside == pytest.approx(2 / 12, abs=0.02)


@pytest.mark.parametrize("bucket_bytes", [4096, 1 << 20])
def test_all_arrays_of_a_store_stay_together(bucket_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", bucket_bytes)
    x = np.arange(500 * 8, dtype="f4").reshape(500, 4, 2)
    own = {"lengths": 1 + np.arange(500) % 4, "states": np.arange(1500.0).reshape(500, 3)}
    source = array_source(x, np.arange(500), **own)
    store = ingest(source, tmp_path / "s.zarr", chunk_rows=64, seed=3)
    rows = zarr.open_group(store.path, mode="r")["row"][:]
    assert np.array_equal(np.sort(rows), np.arange(500))
    assert not np.array_equal(rows, np.arange(500))
    assert store.attributes["shuffled"] == 3
    assert store.shuffled
    for name, values in {"x": x, "y": np.arange(500), **own}.items():
        np.testing.assert_array_equal(store.arrays[name][:], values[rows], err_msg=name)
    assert sorted(os.listdir(store.path)) == sorted(["zarr.json", "row", *store.arrays])
    other = ingest(source, tmp_path / "t.zarr", chunk_rows=500, seed=3)
    np.testing.assert_array_equal(other.x[:], store.x[:])
    plain = ingest(source, tmp_path / "u.zarr", shuffle=False)
    assert not plain.shuffled
    np.testing.assert_array_equal(plain.x[:], x)


def test_the_command_shuffles_unless_told_not_to(altmin, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(300.0).reshape(100, 3), y=np.arange(100) // 50)
    for words, shuffles in (((), 0), (("--seed", 5), 5), (("--no-shuffle",), None)):
        assert altmin("ingest", "a.npz", "s.zarr", *words, "--overwrite").code == 0
        store = SampleStore.open("s.zarr")
        assert store.attributes["shuffled"] == shuffles
        assert (np.diff(store.y[:]) < 0).any() == (shuffles is not None)


def test_rows_are_named_as_they_are_in_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", 1024)
    x = np.ones((400, 3))
    x[317, 1] = np.nan
    with pytest.raises(DataError, match="row 317 of the given arrays has NaN"):
        ingest(array_source(x), tmp_path / "s.zarr", chunk_rows=50)
    assert os.listdir(tmp_path) == []


def test_a_store_at_a_url_is_shuffled_by_way_of_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", 1024)
    x, seen = np.arange(1200.0).reshape(400, 3), []
    with dask.config.set(temporary_directory=str(tmp_path)):
        store = ingest(
            array_source(x),
            "memory://shuffling/s.zarr",
            progress=lambda *_: seen.extend(os.listdir(tmp_path)),
        )
    assert any(name.startswith("altmin-") for name in seen)
    assert os.listdir(tmp_path) == []
    rows = np.argsort(store.x[:, 0])
    np.testing.assert_array_equal(store.x[:][rows], x.astype("f4"))


def test_a_source_that_runs_dry_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", 1024)
    np.save(tmp_path / "x.npy", np.ones((400, 3)))
    source = open_source(tmp_path / "x.npy")
    os.truncate(tmp_path / "x.npy", 4000)
    with pytest.raises(DataError):
        ingest(source, tmp_path / "s.zarr", chunk_rows=50)
    assert os.listdir(tmp_path) == ["x.npy"]
