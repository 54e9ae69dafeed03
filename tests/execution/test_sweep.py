"""Graphs of one step: what they read and write, and how they add up."""

from __future__ import annotations

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.core import get_dependencies
from hypothesis import given
from hypothesis import strategies as st

from altmin_dask.errors import ChunkError
from altmin_dask.execution.samples import lazy
from altmin_dask.execution.task_graphs import tree_sum
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.zarr_chunks import ChunkView, open_array


@given(st.integers(1, 40), st.integers(2, 9))
def test_tree_sum_adds_in_an_order_of_its_own(blocks, split_every):
    """The same bits whichever way the scheduler goes about it, and right."""
    rng = np.random.default_rng(blocks)
    rows = rng.standard_normal((blocks, 3)) * 10.0 ** rng.integers(-8, 8, (blocks, 1))
    lazily = tree_sum(da.from_array(rows, chunks=(1, 3)), split_every)
    threads = lazily.compute(scheduler="threads", num_workers=3)
    assert np.array_equal(threads, lazily.compute(scheduler="sync"))
    np.testing.assert_allclose(threads, rows.sum(axis=0), rtol=1e-9, atol=1e-9 * np.abs(rows).max())
    assert threads.shape == (3,)


def test_tree_has_no_task_of_more_than_split_every():
    lazily = tree_sum(da.ones((100, 2), chunks=(1, 2)), 4)
    graph = dict(lazily.__dask_graph__())
    widths = [len(get_dependencies(graph, key)) for key in graph if "altmin_sum" in str(key)]
    assert max(widths) == 4


@given(st.integers(1, 30), st.integers(1, 12), st.randoms(use_true_random=False))
def test_views_read_whole_chunks_in_the_order_asked(tmp_path_factory, rows, chunk_rows, random):
    path = str(tmp_path_factory.mktemp("view") / "a.zarr")
    values = np.arange(rows * 6, dtype=np.float32).reshape(rows, 2, 3)
    zarr.create_array(path, data=values, chunks=(chunk_rows, 2, 3))
    ids = list(range(-(-rows // chunk_rows)))
    random.shuffle(ids)
    view = ChunkView.select(path, values.shape, chunk_rows, values.dtype, tuple(ids))
    expected = np.concatenate([values[i * chunk_rows : (i + 1) * chunk_rows] for i in ids])
    assert np.array_equal(lazy(view, "altmin_read-test").compute(), expected.reshape(rows, 6))


def test_a_step_has_one_task_a_chunk_and_z_goes_to_the_next_generation(tmp_path):
    latent = LatentStore(str(tmp_path), 10, 3, 4, "float32")
    latent.prepare(4)
    latent.prepare(5)
    read, written = latent.view(4, (2, 0)), latent.view(5, (2, 0))
    assert read.location != written.location
    read.pieces[0].write(np.zeros((2, 3), np.float32))
    written.pieces[0].write(np.full((2, 3), 7, np.float32))
    assert np.array_equal(written.pieces[0].read(), np.full((2, 3), 7))
    assert not read.pieces[0].read().any()
    x = lazy(read, "altmin_read-x")
    (optimised,) = dask.optimize(x.map_blocks(lambda block: block, meta=x._meta))
    assert len([key for key in dict(optimised.__dask_graph__()) if isinstance(key, tuple)]) == 2


def test_a_lost_chunk_is_not_taken_for_zeros(tmp_path):
    latent = LatentStore(str(tmp_path), 8, 3, 4, "float32")
    latent.prepare(1)
    view = latent.view(1, (0, 1))
    view.pieces[0].write(np.zeros((4, 3), np.float32))
    assert not view.pieces[0].read().any()
    with pytest.raises(ChunkError, match=r"chunk 1 of .*000001.zarr is missing"):
        view.pieces[1].read()


@pytest.mark.parametrize("what", ["flip", "cut", "empty"])
def test_an_altered_chunk_is_named(tmp_path, what):
    latent = LatentStore(str(tmp_path), 8, 3, 4, "float32")
    latent.prepare(0)
    view = latent.view(0, (1,))
    view.pieces[0].write(np.ones((4, 3), np.float32))
    file = tmp_path / "000000.zarr" / "c.1.0"
    data = bytearray(file.read_bytes())
    data[7] ^= 16
    file.write_bytes({"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b""}[what])
    with pytest.raises(ChunkError, match=r"chunk 1 of .*000000.zarr does not match its checksum") as caught:
        view.pieces[0].read()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_commit_is_all_that_a_sweep_leaves(tmp_path):
    latent = LatentStore(str(tmp_path / "z"), 12, 3, 4, "float32")
    latent.remove_orphans({})
    for generation in (1, 2, 3):
        latent.prepare(generation)
        for chunk in range(3):
            latent.view(generation, (chunk,)).pieces[0].write(np.zeros((4, 3), np.float32))
    (tmp_path / "z" / "000002.zarr" / "c.1.abcdef.partial").touch()
    latent.remove_orphans({0: 2, 1: 1, 2: 2})
    left = {str(path.relative_to(tmp_path / "z")) for path in (tmp_path / "z").rglob("*") if path.is_file()}
    assert left == {
        "000001.zarr/zarr.json",
        "000001.zarr/c.1.0",
        "000002.zarr/zarr.json",
        "000002.zarr/c.0.0",
        "000002.zarr/c.2.0",
    }
    latent.discard(2, (0,), whole=False)
    latent.discard(1, (1,), whole=True)
    assert {path.name for path in (tmp_path / "z").rglob("*")} == {"000002.zarr", "zarr.json", "c.2.0"}
    latent.remove_orphans({})
    assert not (tmp_path / "z").exists()


def test_arrays_are_opened_once_until_they_are_made_anew(tmp_path):
    path = str(tmp_path / "a.zarr")
    zarr.create_array(path, shape=(2,), dtype="f4")
    first = open_array(path)
    assert open_array(path) is first
    zarr.create_array(path, shape=(3,), dtype="f4", overwrite=True)
    assert open_array(path).shape == (3,)
    with pytest.raises(FileNotFoundError):
        open_array(str(tmp_path / "nothing.zarr"))
