"""The simulation of many workers, in the limits where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from increment_costs import default_step
from simulation import (
    WITHOUT,
    Costs,
    KFACSteps,
    cut,
    efficiency,
    losses,
    seconds,
    step_seconds,
    storage_cap,
    tree,
)

from altmin_dask.networks.builders import dense_network
from altmin_dask.solvers.kfac import CURVATURE_EVERY

REAL = Costs([0.9, 1.1, 1.0], 4e6, 2e6, 2e-3, 0.05, 0.02, 5e-4, 1e-4, 1.25e9, 1e10)
times_of_tasks = st.lists(st.floats(0.1, 2.0), min_size=1, max_size=5)
X, Z = 5000 * 784 * 4, 5000 * (300 + 784) * 4
"""Bytes of x and z of a chunk of 5,000 samples, 784-300-784."""


@given(times_of_tasks, st.integers(1, 60))
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
        "solve_seconds": 0.5,
        "step_seconds": 0.5,
        "weights_bytes": 1e9,
        "task_seconds": [2.0],
        "read_bytes": 1e9,
        "written_bytes": 1e9,
    }
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


bytes_of_chunks = st.floats(1.0, 100.0)


@given(
    st.integers(1, 30),
    st.integers(1, 5),
    st.floats(0.1, 2.0),
    bytes_of_chunks,
    bytes_of_chunks,
    st.floats(10.0, 1000.0),
    st.floats(10.0, 1000.0),
)
def test_equal_chunks_read_compute_and_write_in_step(workers, each, time, read, written, bandwidth, link):
    """All read at once, then all compute, then all write: the storage is idle meanwhile."""
    costs = Costs([time], bandwidth=link, storage_bandwidth=bandwidth, read_bytes=read, written_bytes=written)
    moved = max(workers * (read + written) / bandwidth, (read + written) / link)
    assert step_seconds(costs, workers, workers * each) == pytest.approx(each * (time + moved))


def slowly(arrivals, bandwidth, link):
    """When transfers (time, bytes) end that share a bandwidth: what is left of each, from one event to the next."""
    left, ends, now = {}, {}, 0.0
    coming = sorted((time, index) for index, (time, _) in enumerate(arrivals))
    while coming or left:
        rate = min(link, bandwidth / len(left)) if left else 0.0
        first = min(left.values()) / rate if left else float("inf")
        step = min(first, coming[0][0] - now if coming else float("inf"))
        left = {index: size - rate * step for index, size in left.items()}
        now += step
        if coming and step != first:
            _, index = coming.pop(0)
            left[index] = arrivals[index][1]
        for index in [index for index, size in left.items() if size < 1e-9]:
            ends[index] = now
            del left[index]
    return [ends[index] for index in range(len(arrivals))]


@given(
    st.lists(st.floats(0.1, 2.0), min_size=1, max_size=8),
    bytes_of_chunks,
    st.floats(10.0, 1000.0),
    st.floats(10.0, 1000.0),
)
def test_transfers_share_the_storage_evenly(times, size, bandwidth, link):
    """A chunk a worker, nothing read: what is written begins when a chunk is done, and the last one ends the step."""
    costs = Costs(times, bandwidth=link, storage_bandwidth=bandwidth, written_bytes=size)
    expected = max(slowly([(time, size) for time in times], bandwidth, link))
    assert step_seconds(costs, len(times), len(times)) == pytest.approx(expected)


@given(st.integers(1, 200), st.integers(1, 300), times_of_tasks)
def test_no_step_moves_more_than_the_storage_can(workers, chunks, times):
    costs = Costs(times, bandwidth=1e9, storage_bandwidth=1e9, read_bytes=3e8, written_bytes=1e8)
    assert step_seconds(costs, workers, chunks) >= chunks * 0.4 - 1e-9


@pytest.mark.slow
def test_x_and_z_on_shared_storage_cap_a_batch():
    """10 GB/s is 169 chunks a second, of which 128 workers that take 0.627 s for one want 204, and 1,024 want 1,633."""
    costs = Costs([0.627], storage_bandwidth=1e10, read_bytes=X + Z, written_bytes=Z)
    chunks_a_second = 1e10 / (X + 2 * Z)
    assert chunks_a_second == pytest.approx(169.4, abs=0.1)
    for workers, cap in ((8, 1.0), (128, 0.83), (1024, 0.10)):
        alone = 0.627 + 1 / chunks_a_second  # one worker waits for its own transfers, too
        assert storage_cap(costs, workers) == pytest.approx(
            min(1, chunks_a_second * alone / workers), rel=1e-9
        )
        assert storage_cap(costs, workers) == pytest.approx(cap, abs=0.01)
    # tasks that differ, as real ones do, use the storage at all times, and nearly reach what it allows
    various = replace(costs, task_seconds=[0.627 * (0.7 + 0.6 * (i * 0.618 % 1)) for i in range(997)])
    for workers in (128, 1024):
        found = efficiency(various, workers, 8192)
        assert 0.9 * storage_cap(various, workers) < found <= storage_cap(various, workers) + 0.01
    assert losses(various, 1024, 8192)["storage"] > 0.8
    assert storage_cap(Costs([1.0]), 1024) == 1


def test_a_step_of_increments_asks_twice():
    """One worker, one chunk: the sum of everything there is, counted by hand."""
    pull = Costs(
        [2.0],
        statistics_bytes=30.0,
        weights_bytes=40.0,
        solve_seconds=0.5,
        step_seconds=0.25,
        scheduler_seconds=0.1,
        latency=0.01,
        bandwidth=100.0,
        storage_bandwidth=80.0,
        read_bytes=120.0,
    )
    probe = replace(
        pull,
        task_seconds=[1.0],
        statistics_bytes=6.0,
        solve_seconds=0.125,
        read_bytes=0.0,
        weights_bytes=20.0,
    )
    # to the worker, of the storage, of the end, and of the sum: four messages a round
    first = 0.25 + 0.1 + 4 * 0.01 + (40 + 120) / 80 + 2.0 + 30 / 100 + 0.5
    second = 0.25 + 0.1 + 4 * 0.01 + 20 / 80 + 1.0 + 6 / 100 + 0.125
    assert step_seconds(pull, 1, 1) == pytest.approx(first)
    assert seconds(KFACSteps([[pull, probe]]), 1, 1) == pytest.approx(first + second)
    # every other step is without what the first has to do
    mixed = KFACSteps([[pull, probe], [replace(pull, solve_seconds=0.0), probe]])
    assert seconds(mixed, 1, 1) == pytest.approx(first + second - 0.25)


@pytest.mark.parametrize("workers", [1, 8, 32, 128, 512, 1024])
def test_of_a_step_of_one_chunk_all_workers_but_one_wait(workers):
    costs = KFACSteps([[replace(REAL, read_bytes=8e6, solve_seconds=0.02)] * 2])
    assert efficiency(costs, workers, 1) == pytest.approx(1 / workers)
    bare = KFACSteps([[Costs([0.3]), Costs([0.1])]])
    assert losses(bare, workers, 1)["idle"] == pytest.approx(1 - 1 / workers)
    # cut into a chunk a worker, the two rounds take that part of their time and no other cost does
    small = cut(bare, workers)
    assert seconds(small, workers, workers) == pytest.approx(0.4 / workers)
    waiting = cut(KFACSteps([[Costs([0.3], solve_seconds=0.1), Costs([0.1], step_seconds=0.1)]]), workers)
    assert seconds(waiting, workers, workers) == pytest.approx(0.4 / workers + 0.2)


@pytest.mark.slow
def test_the_default_step_is_measured_with_its_rounds_bytes_and_the_clients_solve(tmp_path):
    """784-4-784: 8 MiB of x are 2,674 samples, and 2,000 are wanted."""
    base = Costs([1.0], 100.0, 99.0, 0.001, 7.0, 0.02, 5e-4, 1e-4, 1.25e9, 1e10, 1e6, 1e6)
    step = default_step(tmp_path, dense_network([784, 4, 784], "sigmoid"), base)
    assert (step.rows, step.group) == (2674, 1)
    pull = 4 * (3 + 4 * 785 + 784 * 5)
    curvature = 4 * (785**2 + 4**2 + 5**2 + 784**2)
    assert [rounds[0].statistics_bytes for rounds in step.costs.steps] == [
        pull + curvature,
        *[pull] * (CURVATURE_EVERY - 1),
    ]
    for first, second in step.costs.steps:
        assert (first.read_bytes, second.read_bytes) == (2674 * 784 * 4, 0)
        assert first.written_bytes == second.written_bytes == 0  # no z
        assert 0 < second.solve_seconds < first.solve_seconds < 1
        assert first.task_seconds[0] > step.reading > 0
        assert (first.latency, first.step_seconds) == (base.latency, base.step_seconds)
    assert step.costs.steps[0][0].solve_seconds > step.costs.steps[1][0].solve_seconds  # factors
    assert efficiency(step.costs, 8, step.group) == pytest.approx(1 / 8)


def test_every_cost_can_be_left_out():
    costs = Costs([1.0], *[1.0] * 7, 1e3, 1e3, 1.0, 1.0)
    for zero in WITHOUT.values():
        assert step_seconds(replace(costs, **zero), 3, 9) < step_seconds(costs, 3, 9)
