"""Chunks that are gone through in several steps each, on real stores: the same bits wherever, as good as small ones."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from training_runs import train

from altmin_dask import AltMinClassifier, AltMinRegressor
from altmin_dask.errors import ConfigError
from altmin_dask.execution.pool import Pool
from altmin_dask.execution.resources import Resources
from altmin_dask.networks.builders import dense_network
from altmin_dask.planning.plan import make_plan
from altmin_dask.solvers.kfac import KFACState
from altmin_dask.storage.run import RunFolder
from altmin_dask.training import defaults, kfac_training
from altmin_dask.training.defaults import resolve
from altmin_dask.training.kfac_training import KFACTraining
from altmin_dask.training.local_levels import local_steps
from altmin_dask.training.step_sizes import MOST_PATHS, halved
from altmin_dask.types import Batch

STEPS = {"schedule": "kfac", "chunk_steps": 3, "max_sweeps": 3.0}
AUTO = {"solver": {"mu": "auto"}, "network": {"dtype": "float32"}}
LABELS = {"kind": "classifier", "hidden_layer_sizes": [8], "dtype": "float32"}


@pytest.fixture
def store(samples, make_store):
    return make_store(samples, np.arange(200) % 3, chunk_rows=64)


def tensors(state: Any) -> dict[str, np.ndarray]:
    return dict(state.to_tensors())


def same(first: Any, second: Any) -> bool:
    a, b = tensors(first), tensors(second)
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def memory_of(state: Any) -> KFACState:
    return state.algorithm_state.kfac_state


def test_steps_are_counted_by_rows(store, pipeline, tmp_path):
    """200 rows in chunks of 64: three steps each, and none for eight rows, which are a part of another group."""
    _, state, records = train(pipeline(store.path, training=STEPS, **AUTO), tmp_path / "run")
    assert records[-1].nested_loss < 0.85 * records[0].nested_loss
    # in three sweeps three chunks of three steps, and in one of them the mean with the one of eight rows
    assert memory_of(state).steps == 27
    assert records[-1].sweep == 3


@pytest.mark.parametrize("group_chunks", [1, 2])
@pytest.mark.parametrize(
    "cluster",
    [
        {"workers": 3},
        pytest.param({"kind": "local", "workers": 2, "dashboard": ":0"}, marks=pytest.mark.slow),
        pytest.param({"kind": "local", "workers": 3, "dashboard": ":0"}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("shuffle", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_weights_are_the_same_bits_wherever(
    shuffle, cluster, group_chunks, samples, make_store, pipeline, tmp_path
):
    """Also of a run that is interrupted, and goes on with another number of threads or workers."""
    store = make_store(samples, chunk_rows=32, shuffle=shuffle)
    steps = {**STEPS, "group_chunks": group_chunks}
    alone = pipeline(store.path, cluster={"workers": 1}, training=steps, **AUTO)
    _, expected, _ = train(alone, tmp_path / "one")
    half = pipeline(store.path, cluster={"workers": 1}, training={**steps, "max_sweeps": 1.5}, **AUTO)
    train(half, tmp_path / "other")
    there = pipeline(store.path, cluster=cluster, training=steps, **AUTO)
    _, state, _ = train(there, tmp_path / "other", resume=True)
    assert memory_of(expected).steps > 20
    assert same(expected, state)


@pytest.mark.parametrize("workers", [2, 5])
def test_threads_that_have_nothing_to_do_compute_halves(workers, store, pipeline, tmp_path, monkeypatch):
    """Two chunks at a time on five threads, one on two: with the bits of one thread."""
    used: set[tuple[int, int]] = set()
    own = Pool.beside

    def watched(self, count, function, items):
        def noted(half):
            used.add((half, threading.get_ident()))
            return function(half)

        return own(self, count, noted, items)

    monkeypatch.setattr(Pool, "beside", watched)
    steps = {**STEPS, "group_chunks": workers // 2}
    _, expected, _ = train(
        pipeline(store.path, cluster={"workers": 1}, training=steps, **AUTO), tmp_path / "one"
    )
    assert not used
    settings = pipeline(store.path, cluster={"workers": workers}, training=steps, **AUTO)
    _, state, _ = train(settings, tmp_path / "other")
    assert len({thread for _, thread in used}) >= 2
    assert same(expected, state)


def test_a_round_is_the_mean_of_what_becomes_of_its_chunks(store, pipeline, tmp_path, monkeypatch):
    """By a plain loop over the chunks of the first round, with the same start and noise."""
    found: list[tuple[Any, Any]] = []
    round_of = KFACTraining._round

    def watched(self, action, cursor):
        start, memory = self.state.weights, self.state.kfac_state
        ends, context, samples = [], self.context, self.context.problem.train.store
        for chunk in () if found else self.groups[action.group].chunks:
            rows = slice(chunk * 64, min((chunk + 1) * 64, 200))
            batch = Batch(np.asarray(samples.x[rows], np.float32), np.asarray(samples.y[rows]))
            own, seed = KFACState.start(start), [context.pipeline.training.seed, cursor, chunk]
            own.first_loss = memory.first_loss
            settings = context.problem.task_context.settings
            ends.append((len(batch), self.local.take(context.network, start, own, batch, settings, seed)))
        visits = round_of(self, action, cursor)
        found.append((self.state.weights, ends))
        return visits

    monkeypatch.setattr(KFACTraining, "_round", watched)
    steps = {**STEPS, "group_chunks": 2}
    network = {**LABELS, "standardize": "none"}
    train(pipeline(store.path, network=network, solver={"mu": "auto"}, training=steps), tmp_path / "run")
    weights, ends = found[0]
    assert len(ends) == 2
    for layer, actual in enumerate(weights):
        mean = sum(rows * end[layer].astype(float) for rows, end in ends) / sum(rows for rows, _ in ends)
        np.testing.assert_allclose(actual, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mu", ["auto", 5.0])
@pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
def test_all_kinds_take_them(kind, mu, store, pipeline, tmp_path):
    network = {"kind": kind, "activation": "sigmoid"}
    settings = pipeline(store.path, network=network, solver={"mu": mu}, training=STEPS)
    _, state, records = train(settings, tmp_path / "run")
    assert records[-1].nested_loss < 0.95 * records[0].nested_loss
    assert np.isfinite(memory_of(state).gradient)


def table(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 10)).astype(np.float32)
    return x, (np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] > 0).astype(np.int64)


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [False, True])
def test_as_good_as_with_small_chunks(ordered, make_store, pipeline, tmp_path):
    """60,000 rows in chunks of 10,000, also sorted and taken as they are: after 12 sweeps as in chunks of 2,000."""
    x, y = table(60_000)
    if ordered:
        order = np.lexsort((x[:, 0], y))
        x, y = x[order], y[order]
    losses = []
    for chunk_rows in (10_000, 2_000):
        store = make_store(x, y, chunk_rows=chunk_rows, dtype="float32", shuffle=not ordered)
        settings = pipeline(
            store.path,
            network={**LABELS, "hidden_layer_sizes": [32, 16]},
            solver={"mu": "auto", "ridge": 1.0},
            training={"schedule": "kfac", "max_sweeps": 12.0},
        )
        run, _, records = train(settings, tmp_path / str(chunk_rows))
        assert RunFolder(run.path).manifest.resolved()["chunk_steps"] == (5 if chunk_rows == 10_000 else 1)
        losses.append(min(record.nested_loss for record in records))
    assert losses[0] < 1.1 * losses[1]


def test_a_chunk_is_for_fewer_steps_as_they_get_more_rows():
    assert [halved(steps) for steps in (1, 2, 3, 5, 16)] == [
        [1],
        [2, 1],
        [3, 2, 1],
        [5, 2, 1],
        [16, 8, 4, 2, 1],
    ]


@pytest.mark.parametrize("given", [{}, {"proximal": 0.2, "output_damping": 0.01}])
def test_damping_is_that_of_so_many_rows(given, make_store, pipeline, tmp_path, monkeypatch):
    """What a run of steps of as many rows has by default, unless it is given."""
    seen = []

    def watched(context, settings):
        seen.append(local_steps(context, settings))
        return seen[-1]

    monkeypatch.setattr(kfac_training, "local_steps", watched)
    store = make_store(*table(8000), chunk_rows=8000, dtype="float32")
    tables = {"network": LABELS, "solver": {"mu": "auto", **given}}
    steps = {"schedule": "kfac", "max_sweeps": 0.1}
    train(pipeline(store.path, training=steps, **tables), tmp_path / "run")
    assert [level.count for level in seen[0].levels] == [4, 2, 1]
    for level in seen[0].levels:
        alone = resolve(
            pipeline("x.zarr", training={**steps, "chunk_steps": 1}, **tables),
            dense_network([10, 8, 2], "tanh", "cross_entropy"),
            8000,
            8000 // level.count,
        )
        assert level.settings.input_damping == pytest.approx(alone.proximal)
        assert level.settings.output_damping == pytest.approx(alone.output_damping)
        assert level.every == alone.model_every
    fixed = {**steps, "chunk_steps": 4}
    train(pipeline(store.path, training=fixed, **tables), tmp_path / "fixed")
    assert [level.count for level in seen[1].levels] == [4]


def resolved(pipeline, rows, chunk_rows, place=None, **tables):
    tables = {"network": LABELS, "solver": {"mu": "auto"}, "training": {"schedule": "kfac"}} | tables
    network = dense_network([20, 8, 4], "relu", "cross_entropy")
    return resolve(pipeline("x.zarr", **tables), network, rows, chunk_rows, place=place)


def test_chunks_that_are_large_are_gone_through_in_several_steps(pipeline):
    alone = resolved(pipeline, 10**6, 32_768)
    assert (alone.group_chunks, alone.chunk_steps, alone.pieces, alone.model_every) == (1, 16, 1, 6)
    small = resolved(pipeline, 10**6, 2000)
    assert (small.group_chunks, small.chunk_steps) == (1, 1)
    given = resolved(pipeline, 10**6, 32_768, training={"schedule": "kfac", "group_chunks": 3})
    assert (given.group_chunks, given.chunk_steps, given.proximal) == (3, 16, alone.proximal)
    once = resolved(pipeline, 10**6, 32_768, training={"schedule": "kfac", "chunk_steps": 1})
    assert (once.group_chunks, once.chunk_steps) == (1, 1)
    stale = resolved(pipeline, 10**6, 32_768, training={"schedule": "kfac", "max_staleness": 2})
    assert stale.chunk_steps == 1
    # damping is that of the rows of a step, not of a chunk
    assert alone.proximal == pytest.approx(small.proximal, rel=0.05)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"schedule": "kfac", "max_staleness": 2}, "training.max_staleness = 2 takes them otherwise"),
        ({"schedule": "incremental"}, "training.schedule = 'incremental' takes them otherwise"),
    ],
)
def test_steps_on_a_chunk_are_refused_where_they_are_not_taken_in_turn(training, said, pipeline):
    with pytest.raises(ValueError, match=f"training.chunk_steps = 3 is for K-FAC steps .*{said}"):
        pipeline("x.zarr", network=LABELS, solver={"mu": "auto"}, training={**training, "chunk_steps": 3})


def test_steps_on_a_chunk_are_refused_of_rows_that_are_known_one_by_one(pipeline):
    training = {"schedule": "kfac", "chunk_steps": 3}
    tables = {"network": LABELS, "solver": {"mu": "auto"}, "training": training}
    wide = dense_network([9000, 8, 4], "relu", "cross_entropy")
    with pytest.raises(
        ConfigError, match="chunk_steps = 3 is not for samples of many more values than there are"
    ):
        resolve(pipeline("x.zarr", **tables), wide, 500, 100)


def test_a_cluster_goes_through_as_many_chunks_at_a_time_as_it_has_threads(pipeline):
    two = Resources(2, 1, None, in_process=False, latency=0.016)
    assert resolved(pipeline, 10**6, 32_768, two).group_chunks == 2
    assert resolved(pipeline, 10**6, 32_768, replace(two, workers=64)).group_chunks == 31 // 4
    assert resolved(pipeline, 10**8, 32_768, replace(two, workers=64)).group_chunks == MOST_PATHS
    assert resolved(pipeline, 10**6, 32_768, replace(two, in_process=True)).group_chunks == 1
    begun = resolved(pipeline, 10**6, 32_768, two)
    tables = {"network": LABELS, "solver": {"mu": "auto"}, "training": {"schedule": "kfac"}}
    network = dense_network([20, 8, 4], "relu", "cross_entropy")
    on = resolve(pipeline("x.zarr", **tables), network, 10**6, 32_768, begun=begun.to_dict())
    assert on == begun


def test_runs_that_are_older_go_on_as_they_began(make_store, pipeline, tmp_path, monkeypatch):
    """They know of no steps on a chunk: each is one step still."""
    store = make_store(*table(12_000), chunk_rows=4000, dtype="float32")
    tables = {"network": LABELS, "solver": {"mu": "auto"}}
    once, more = ({"schedule": "kfac", "max_sweeps": sweeps} for sweeps in (1.0, 3.0))
    with monkeypatch.context() as patched:
        patched.setattr(defaults, "chunk_steps", lambda *_: 1)
        run, _, _ = train(pipeline(store.path, training=once, **tables), tmp_path / "run")
        _, expected, _ = train(pipeline(store.path, training=more, **tables), tmp_path / "other")
    manifest = json.loads((run.path / "pipeline.json").read_text())
    found = [table for table in walk(manifest) if "chunk_steps" in table and "group_chunks" in table]
    assert found
    for table_ in found:
        del table_["chunk_steps"]
    (run.path / "pipeline.json").write_text(json.dumps(manifest))
    _, state, _ = train(pipeline(store.path, training=more, **tables), tmp_path / "run", resume=True)
    assert same(state, expected)
    assert memory_of(state).steps == 9


def walk(value: Any):
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from walk(each)


def test_plans_know_of_them(make_store, pipeline):
    x, y = table(40_000)
    store = make_store(x, y, chunk_rows=10_000, dtype="float32")
    settings = pipeline(store.path, network=LABELS, solver={"mu": "auto"}, training={"schedule": "kfac"})
    plan = make_plan(settings, None, Resources(1, 1, None, in_process=True))
    assert (plan.work.chunk_steps, plan.work.group_chunks) == (5, 1)
    assert plan.settings["training.chunk_steps"] == 5


@pytest.mark.parametrize("estimator", [AltMinClassifier, AltMinRegressor])
def test_estimators_take_them_with_large_chunks(estimator):
    x, y = table(9000)
    how = {"hidden_layer_sizes": (16,), "max_sweeps": 3, "chunk_rows": 4500, "random_state": 0}
    model = estimator(**how).fit(x, y)
    assert model.score(x, y) > (0.75 if estimator is AltMinClassifier else 0.15)
    first = model.coefs_[0].copy()
    model.partial_fit(x, y)
    assert not np.array_equal(first, model.coefs_[0])
    assert model.score(x, y) > (0.75 if estimator is AltMinClassifier else 0.15)
