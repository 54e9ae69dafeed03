"""What a chunk costs does not grow with how many there are, in this process and on workers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from dask.base import collections_to_expr
from training_runs import train

from altmin_dask.config import ClusterTable
from altmin_dask.execution import task_graphs
from altmin_dask.execution.pieces import Cut
from altmin_dask.execution.samples import Samples
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.networks.builders import dense_network
from altmin_dask.solvers.kronecker import Forms
from altmin_dask.solvers.penalties import L2
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.zarr_chunks import Part


def largest_task(collections: tuple[Any, ...]) -> int:
    """Bytes of what is sent for one task."""
    graph = collections_to_expr(collections).optimize().__dask_graph__()
    return max(len(pickle.dumps(task)) for task in graph.values())


def largest_tasks(store: Any, chunks: int, part: Part | None = None) -> dict[str, int]:
    """Of graphs of every kind, over so many chunks."""
    network = dense_network((3, 2, 3))
    latent = LatentStore("/nowhere", store.rows, 5, 2, "float64")
    samples, numbers = Samples(store, "inputs"), tuple(range(chunks))
    step = task_graphs.Step(
        TaskContext(network, "inputs", "float64"), samples, numbers, "t", "/w", 4, part, Cut(2, 2)
    )
    l2, forms = L2((1.0, 1.0)), Forms.of(network, store.rows)
    kfac = task_graphs.kfac_sums(step, None, (0,), 2, forms)
    graphs: dict[str, tuple[Any, ...]] = {
        "kfac": kfac,
        "model": (task_graphs.quadratic_model(step, kfac[1:], 2, "/d", "/p"),),
        "evaluate": (task_graphs.evaluate(step),),
    }
    if part is None:
        graphs |= {
            "enter": (task_graphs.enter(step, latent, 0, l2),),
            "visit": (task_graphs.visit(step, latent, 0, l2, l2, replace_all=True),),
        }
    return {name: largest_task(collections) for name, collections in graphs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("part", [None, Part(0, 1, 8)])
def test_a_task_is_told_nothing_of_others(part, make_store):
    """Or what is sent would grow with the square of the chunks."""
    store = make_store(np.random.default_rng(0).random((400, 3)), chunk_rows=2)
    few, many = (largest_tasks(store, chunks, part) for chunks in (64, 200))
    for name, size in many.items():
        assert size < 1.2 * few[name], name  # larger numbers take more bytes


@pytest.mark.slow
def test_ten_thousand_chunks(make_store, pipeline, tmp_path):
    """On two workers they come to the same bits as in this process."""
    rng = np.random.default_rng(0)
    x = rng.random((40_000, 2)) @ rng.random((2, 6)) / 2
    store = make_store(x, chunk_rows=4, shuffle=False)
    assert store.n_chunks == 10_000
    wanted = pipeline(
        store.path,
        data={"validation": make_store(x[:400]).path},
        solver={"mu": "auto"},
        training={"schedule": "kfac", "group_chunks": 500, "max_sweeps": 0.1, "evaluation_rows": 1000},
    )
    found = []
    for name, cluster in {"here": {}, "workers": {"kind": "local", "workers": 2}}.items():
        table = ClusterTable.model_validate(cluster)
        _, state, records = train(wanted.model_copy(update={"cluster": table}), tmp_path / name)
        found.append((state.weights, [record.nested_loss for record in records]))
    (weights, losses), (others, again) = found
    assert losses == again
    assert losses[-1] < losses[0] / 2
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)
