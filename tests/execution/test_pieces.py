"""A step's rows in pieces: the same sums whoever computes them, of every row once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from training_runs import train

from altmin_dask.execution import task_graphs
from altmin_dask.execution.pieces import Cut, added, branch, computed, total
from altmin_dask.execution.samples import Samples
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.execution.threads import Threads
from altmin_dask.networks.builders import dense_network
from altmin_dask.solvers.kernels import kfac_chunk, quadratic_model_chunk, since
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.storage.weights import WeightStore
from altmin_dask.storage.zarr_chunks import ChunkView, Part
from altmin_dask.training import step_sizes
from altmin_dask.types import Batch

CUTS = st.integers(0, 3).flatmap(
    lambda p: st.tuples(st.just(1 << p), st.integers(0, p).map(lambda t: 1 << t))
)
"""Pieces of a block, and tasks for it."""


def numbers(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [row * 10.0 ** rng.integers(-8, 8) for row in rng.standard_normal((count, 3))]


@given(st.integers(1, 40), st.integers(2, 9))
def test_branches_add_up_to_the_same_bits(count, split_every):
    """Whatever is added in one go: nothing but the order of the numbers counts."""
    parts = numbers(count)
    expected, together = added(parts), branch(split_every)
    assert together <= split_every < 2 * together
    assert np.array_equal(computed([partial(np.copy, part) for part in parts]), expected)
    left = [part.copy() for part in parts]
    while len(left) > 1:
        left = [added(left[start : start + together]) for start in range(0, len(left), together)]
    assert np.array_equal(left[0], expected)
    np.testing.assert_allclose(expected, np.sum(parts, axis=0), rtol=1e-9, atol=1e-9 * np.abs(parts).max())
    assert all(np.array_equal(a, b) for a, b in zip(parts, numbers(count), strict=True))


@given(st.integers(1, 50), CUTS, st.integers(1, 5))
def test_tasks_share_every_row_once(rows, cut, every):
    shares = Cut(*cut).shares([3, 7], [rows, 2 * rows])
    assert len(shares) == 2 * cut[1]
    for block in (3, 7):
        own = [share for share in shares if share.block == block]
        assert [share.first for share in own] == list(range(0, cut[0], cut[0] // cut[1]))
        sizes = [size for share in own for size in share.sizes()]
        assert sum(sizes) == (rows if block == 3 else 2 * rows)
        assert max(sizes) - min(sizes) <= 1
        assert [size for share in own for size in share.sizes(every)] == [-(-size // every) for size in sizes]
        for share in own:
            ends = [piece.stop for piece in share.slices(every)]
            assert ends[-1] == sum(share.sizes(every))
    seeds = [tuple(seed) for share in shares for seed in share.seeds([1, 2])]
    assert len(set(seeds)) == 2 * cut[0]


@pytest.mark.parametrize(
    ("blocks", "places", "tasks"), [(1, 1, 1), (1, 2, 2), (1, 3, 4), (3, 4, 2), (1, 99, 8)]
)
def test_as_many_tasks_as_there_are_places(blocks, places, tasks):
    assert Cut(8).among(blocks, places) == Cut(8, tasks)


@pytest.mark.slow
@given(st.integers(1, 30), st.integers(1, 12), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_views_in_pieces_read_what_whole_chunks_hold(tmp_path_factory, rows, chunk_rows, cut, parts):
    path = str(tmp_path_factory.mktemp("view") / "a.zarr")
    values = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    zarr.create_array(path, data=values, chunks=(chunk_rows, 2))
    ids = tuple(range(-(-rows // chunk_rows)))[::-1]
    part = Part(5, 0, 2) if parts else None
    select = partial(ChunkView.select, path, values.shape, chunk_rows, values.dtype, ids, part)
    whole, pieces = select(), select(cut=cut)
    assert len(pieces.pieces) == cut * len(whole.pieces)
    expected = [piece.read() for piece in whole.pieces]
    found = [piece.read() for piece in pieces.pieces]
    assert [len(piece) for piece in found] == list(pieces.chunks[0])
    assert np.array_equal(np.concatenate(found), np.concatenate(expected))


@pytest.mark.parametrize("labels", [False, True])
def test_sums_are_the_same_bits_however_many_tasks_there_are(make_store, tmp_path, labels):
    """And those of the samples, to rounding."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((45, 3)), rng.integers(0, 3, 45)
    store = make_store(x, y if labels else None, chunk_rows=17, shuffle=False)
    network = dense_network([3, 4, 3], loss="cross_entropy" if labels else "squared")
    context = TaskContext(network, "labels" if labels else "inputs", "float64")
    weights = network.initial_weights(0, "float64")
    file = WeightStore(str(tmp_path)).publish(weights, "weights", 1)
    found = []
    for tasks in (1, 2, 4, 8):
        step = task_graphs.Step(
            context, Samples(store, context.target), (0, 1, 2), f"t{tasks}", file, cut=Cut(8, tasks)
        )
        threads = Threads(3)
        started = threads.submit(*task_graphs.kfac_sums(step, None, (0,), 2))
        sums = total(threads.first([started])[1])
        assert len(started.kept()[0].chunks[0]) == 3 * tasks
        model = total([threads.compute(task_graphs.quadratic_model(step, started.kept(), 2, file, file))])
        found.append((sums, model))
    for sums, model in found[1:]:
        assert np.array_equal(sums, found[0][0])
        assert np.array_equal(model, found[0][1])
    batch = Batch(x, y) if labels else Batch(x)
    expected = kfac_chunk(network, weights, None, batch, context.settings)
    sums = KroneckerSums(network.shapes, True, found[0][0])
    np.testing.assert_allclose(sums.totals, expected.totals, rtol=1e-12)
    for a, b in zip(sums.negative_gradient, expected.negative_gradient, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    # all of it is measured where every row is kept
    every = task_graphs.Step(context, Samples(store, context.target), (0, 1, 2), "e", file, cut=Cut(4, 2))
    started = Threads(1).submit(*task_graphs.kfac_sums(every, None, None, 1))
    model = total([Threads(1).compute(task_graphs.quadratic_model(every, started.kept(), 1, file, file))])
    wanted = quadratic_model_chunk(network, weights, weights, since(weights, weights), batch)
    np.testing.assert_allclose(QuadraticModel(model).slope, wanted.slope, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(QuadraticModel(model).curvature, wanted.curvature, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param({"workers": 2}, marks=pytest.mark.slow),
        {"workers": 3},
        pytest.param({"kind": "local", "workers": 2, "dashboard": ":0"}, marks=pytest.mark.slow),
        pytest.param({"kind": "local", "workers": 3, "dashboard": ":0"}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("shuffle", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_weights_are_the_same_bits_wherever_chunks_are_shared(
    cluster, shuffle, samples, make_store, pipeline, tmp_path, monkeypatch
):
    """Also of a run that is resumed with another number of threads."""
    monkeypatch.setattr(step_sizes, "PIECES_OF_GROUP", 500)
    store = make_store(samples, chunk_rows=64, shuffle=shuffle)
    tables = {"solver": {"mu": "auto"}, "network": {"dtype": "float32"}}
    steps = {"schedule": "kfac", "group_chunks": 1, "max_sweeps": 3.0}
    alone = pipeline(store.path, cluster={"workers": 1}, training=steps, **tables)
    _, expected, _ = train(alone, tmp_path / "one")
    half = pipeline(store.path, cluster={"workers": 1}, training={**steps, "max_sweeps": 1.5}, **tables)
    train(half, tmp_path / "other")
    _, state, _ = train(
        pipeline(store.path, cluster=cluster, training=steps, **tables), tmp_path / "other", resume=True
    )
    for a, b in zip(expected.to_tensors().values(), state.to_tensors().values(), strict=True):
        assert np.array_equal(a, b)
