"""Several steps in one task: the bits of steps one at a time, whatever is taken together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from training_runs import train

from altmin_dask.execution import task_graphs
from altmin_dask.training import kfac_training, together
from altmin_dask.training.kfac_training import KFACTraining
from altmin_dask.training.together import Pace

STEPS = {"schedule": "kfac", "group_chunks": 1, "max_sweeps": 4.0}
LABELS = {"kind": "classifier", "hidden_layer_sizes": [8], "dtype": "float32"}
FORMS: dict[str, dict[str, Any]] = {
    "auto-encoder": {"network": {"dtype": "float32"}},
    "float64": {"network": {"dtype": "float64"}},
    "labels": {"network": LABELS},
    "finite mu": {"network": {"dtype": "float32"}, "solver": {"mu": 5.0}},
    "layer by layer": {"network": {"initialization": "layerwise", "hidden_layer_sizes": [6, 4, 6]}},
    "standardized": {"network": {**LABELS, "standardize": "inputs"}},
}


class Fixed(Pace):
    """So many steps together, always."""

    count = 3

    @property
    def together(self) -> int:
        return self.count


def same(first: Any, second: Any) -> bool:
    a, b = first.to_tensors(), second.to_tensors()
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def counted(monkeypatch):
    """How many steps each task took."""
    counts: list[int] = []
    own = task_graphs.series

    def watched(context, turns, *more):
        counts.append(len(turns))
        return own(context, turns, *more)

    monkeypatch.setattr(task_graphs, "series", watched)
    monkeypatch.setattr(kfac_training, "Pace", Fixed)
    return counts


@pytest.mark.parametrize(
    "form",
    [name if name == "labels" else pytest.param(name, marks=pytest.mark.slow) for name in FORMS],
)
@pytest.mark.parametrize("shuffle", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_steps_in_one_task_have_the_bits_of_steps_one_at_a_time(
    shuffle, form, samples, make_store, pipeline, tmp_path, cluster_address, counted, monkeypatch
):
    """On threads, on workers together, and half of the way each; pieces of chunks, and records in between."""
    monkeypatch.setattr("altmin_dask.training.step_sizes.PIECES_OF_GROUP", 200)
    store = make_store(samples, np.arange(200) % 3, chunk_rows=32, shuffle=shuffle)
    tables = {"solver": {"mu": "auto"}, **FORMS[form]}
    steps = {**STEPS, **tables.pop("training", {})}
    _, expected, _ = train(pipeline(store.path, training=steps, **tables), tmp_path / "threads")
    assert not counted
    settings = pipeline(store.path, training=steps, **tables)
    _, state, _ = train(settings, tmp_path / "cluster", scheduler=cluster_address)
    assert max(counted) > 1
    assert same(expected, state)
    half = pipeline(store.path, training={**steps, "max_sweeps": 1.5}, **tables)
    train(half, tmp_path / "half", scheduler=cluster_address)
    _, state, _ = train(settings, tmp_path / "half", resume=True)
    assert same(expected, state)


@pytest.mark.slow
def test_steps_of_several_chunks_are_shared(
    samples, make_store, pipeline, tmp_path, cluster_address, counted
):
    store = make_store(samples, chunk_rows=32)
    settings = pipeline(store.path, training={**STEPS, "group_chunks": 2}, solver={"mu": "auto"})
    train(settings, tmp_path / "cluster", scheduler=cluster_address)
    assert not counted


@pytest.mark.slow
def test_steps_that_are_taken_back_are_taken_back_in_a_task(
    samples, make_store, pipeline, tmp_path, counted, monkeypatch
):
    """Weights that explode now and then, in tasks of this process as where it trains."""
    monkeypatch.setattr("altmin_dask.solvers.kfac.REJECTED", 1.0)
    monkeypatch.setattr("altmin_dask.solvers.kfac.STANDARD_ERRORS", 0.0)
    store = make_store(samples, np.arange(200) % 3, chunk_rows=32)
    tables = {"network": LABELS, "solver": {"mu": "auto", "ridge": 0.0}}
    steps = {**STEPS, "max_sweeps": 8.0}
    settings = pipeline(store.path, training=steps, **tables)
    _, expected, _ = train(settings, tmp_path / "alone")
    assert 0 < expected.algorithm_state.kfac_state.steps < 8 * 7
    monkeypatch.setattr(KFACTraining, "_may_join", lambda self: True)
    _, state, _ = train(settings, tmp_path / "together")
    assert max(counted) > 1
    assert same(expected, state)


def test_the_faster_way_is_kept(monkeypatch):
    """By a clock that goes as it is told, for 400 steps; and what is too slow is seen now and then."""
    now = [0.0]
    monkeypatch.setattr(together.time, "perf_counter", lambda: now[0])
    for alone, joined in ((0.05, 0.02), (0.05, 0.08)):
        pace, counts, taken = Pace(), [], 0
        while taken < 400:
            count = pace.together
            with pace.timed(count):
                now[0] += count * (joined if count > 1 else alone)
            counts.append(count)
            taken += count
        assert counts[:5] == [1, 1, 1, 1, 8]
        assert counts[5:13] == [1] * 8
        share = sum(count for count in counts if count > 1) / taken
        assert share > 0.8 if joined < alone else 0 < share < 0.2


def test_steps_that_take_long_are_not_taken_together(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(together.time, "perf_counter", lambda: now[0])
    for seconds, most in ((0.099, 5), (0.24, 2), (0.4, 1), (2.0, 1)):
        pace = Pace()
        for number in range(4):
            with pace.timed(1):
                now[0] += 1.0 if number < 3 else seconds
        assert pace.together == most
