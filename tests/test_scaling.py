"""The simulation of many workers, in the limits where the answer is known."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from simulation import Costs, efficiency, losses, step_seconds, tree

REAL = Costs([0.9, 1.1, 1.0], 4e6, 2e6, 2e-3, 0.05, 0.02, 5e-4, 1e-4, 1.25e9, 1e10)
seconds = st.lists(st.floats(0.1, 2.0), min_size=1, max_size=5)


@given(seconds, st.integers(1, 60))
def test_one_worker_without_costs_takes_the_sum_of_the_tasks(times, chunks):
    total = sum(times[i % len(times)] for i in range(chunks))
    assert step_seconds(Costs(times), 1, chunks) == pytest.approx(total)


@given(st.integers(1, 40), st.integers(1, 6))
def test_without_costs_equal_chunks_scale_perfectly(workers, each):
    costs = Costs([0.7])
    assert efficiency(costs, workers, workers * each) == pytest.approx(1)
    assert efficiency(costs, workers, each, weak=True) == pytest.approx(1)


@given(st.integers(1, 64), st.integers(1, 200))
def test_more_workers_are_never_slower_without_costs_and_never_faster_than_perfect(workers, chunks):
    costs = Costs([1.0])
    assert step_seconds(costs, workers + 1, chunks) <= step_seconds(costs, workers, chunks) + 1e-9
    assert efficiency(REAL, workers, chunks) <= 1 + 1e-9


@given(st.integers(1, 64), st.integers(1, 200))
def test_every_cost_takes_time(workers, chunks):
    real = replace(REAL, task_seconds=[1.0])  # a list of unequal ones may get shorter by a delay
    whole = step_seconds(real, workers, chunks)
    assert whole >= step_seconds(Costs([1.0]), workers, chunks)
    slower = {
        "solve_seconds": 0.5, "step_seconds": 0.5, "weights_bytes": 1e9, "task_seconds": [2.0]
    }  # fmt: skip
    for name, value in slower.items():
        assert step_seconds(replace(real, **{name: value}), workers, chunks) > whole


def test_a_slow_scheduler_is_the_limit():
    costs = Costs([1e-3], scheduler_seconds=0.01)
    assert step_seconds(costs, 256, 1000, 10) == pytest.approx((1000 + 100 + 10 + 1) * 0.01, rel=0.05)
    found = losses(costs, 256, 1000, 10)
    assert max(found, key=lambda name: found[name]) == "scheduler"


@pytest.mark.parametrize(("workers", "levels"), [(4, 1), (16, 2), (1024, 5)])
def test_the_tree_takes_a_transfer_for_each_input_and_level(workers, levels):
    """A chunk a worker, a second a transfer: three of four inputs come from elsewhere, and the root goes home."""
    costs = Costs([0.0], statistics_bytes=100.0, bandwidth=100.0)
    assert step_seconds(costs, workers, workers, 4) == pytest.approx(3 * levels + 1)


def test_few_chunks_leave_workers_idle():
    costs = Costs([1.0])
    assert efficiency(costs, 100, 50) == pytest.approx(0.5)
    assert losses(costs, 100, 50)["idle"] == pytest.approx(0.5)


def test_weights_are_read_once_a_worker_and_share_the_storage():
    costs = Costs([1.0], weights_bytes=10.0, storage_bandwidth=100.0)
    assert step_seconds(costs, 20, 60) == pytest.approx(3 + 20 * 10 / 100)


@given(st.integers(1, 300), st.integers(2, 9))
def test_every_chunk_is_in_the_tree_once(chunks, split_every):
    tasks = tree(chunks, split_every)
    used = [one for inputs in tasks for one in inputs]
    assert sorted(used) == list(range(len(tasks) - 1))
    assert max(map(len, tasks)) <= split_every
