"""What every executor has to do, whatever runs the tasks: one suite for all kinds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client

from altmin_dask.config import ClusterTable
from altmin_dask.execution.connect import KINDS, open_executor, planned_resources
from altmin_dask.execution.executor import Executor

SETTINGS = {
    "one thread": ClusterTable(workers=1),
    "threads": ClusterTable(workers=2),
    "local": ClusterTable(kind="local", workers=2, dashboard=":0", memory_limit="2 GiB"),
}


@pytest.fixture(scope="module", params=SETTINGS)
def settings(request: pytest.FixtureRequest) -> ClusterTable:
    return SETTINGS[request.param]


@pytest.fixture(scope="module")
def executor(settings: ClusterTable) -> Iterator[Executor]:
    with open_executor(settings) as opened:
        yield opened


def test_every_kind_is_tested():
    assert {settings.kind for settings in SETTINGS.values()} == set(KINDS)


def blocks(task: Any, n: int, name: str, *arguments: Any) -> da.Array:
    """One task for each of n numbers."""
    return da.arange(n, chunks=1).map_blocks(task, *arguments, name=name, dtype=float, meta=np.empty(0))


def total(rows: da.Array, name: str) -> da.Array:
    """Their sum, a collection of one block."""
    return da.map_blocks(_sum, rows.rechunk(-1), name=name, dtype=float, meta=np.empty(0), chunks=(1,))


def _sum(values: np.ndarray) -> np.ndarray:
    return values.sum(keepdims=True)


def _noted(values: np.ndarray, folder: str) -> np.ndarray:
    """The numbers again; each leaves a line."""
    with open(Path(folder) / "notes", "a") as file:
        file.write(f"{int(values[0])}\n")
    return values


def _noted_late(values: np.ndarray, folder: str, seconds: float) -> np.ndarray:
    time.sleep(seconds)
    return _noted(values, folder)


def _held(values: np.ndarray, file: str) -> np.ndarray:
    """The numbers again, when the file is there."""
    end = time.monotonic() + 60
    while not Path(file).exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    return values


def _failing_after(values: np.ndarray, folder: str) -> np.ndarray:
    if values[0] == 2:
        raise ZeroDivisionError("the third one")
    return _noted_late(values, folder, 0.02)


def _spinning(values: np.ndarray, seconds: float) -> np.ndarray:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return values


def notes(folder: Path) -> list[str]:
    file = folder / "notes"
    return file.read_text().split() if file.exists() else []


def settled(folder: Path) -> bool:
    """Whether nothing is noted any more."""
    before = notes(folder)
    time.sleep(0.15)
    return notes(folder) == before


def test_a_value_is_computed_task_by_task(executor, tmp_path):
    rows = blocks(_noted, 5, f"value-{tmp_path}", str(tmp_path))
    assert executor.compute(total(rows, f"total-{tmp_path}")) == [10]
    assert sorted(notes(tmp_path)) == list("01234")


def test_an_error_of_a_task_is_raised_and_nothing_runs_on(executor, tmp_path):
    rows = blocks(_failing_after, 40, f"failing-{tmp_path}", str(tmp_path))
    with pytest.raises(ZeroDivisionError, match="the third one"):
        executor.compute(total(rows, f"total-{tmp_path}"))
    assert settled(tmp_path)
    assert executor.compute(total(da.ones(3, chunks=1), f"next-{tmp_path}")) == [3]


def test_what_is_kept_is_computed_once(executor, tmp_path):
    rows = blocks(_noted, 4, f"kept-{tmp_path}", str(tmp_path))
    submission = executor.submit(total(rows, f"total-{tmp_path}"), rows)
    assert executor.first([submission]) == (0, [6])
    (kept,) = submission.kept()
    assert executor.compute(total(kept * 2, f"twice-{tmp_path}")) == [12]
    assert sorted(notes(tmp_path)) == list("0123")


def test_the_first_of_several_is_waited_for(executor, tmp_path):
    """In the order in which they are done, not that of submission, where there is more than one thread."""
    go, resources = tmp_path / "go", executor.resources()
    alone = resources.workers * resources.threads == 1
    if alone:  # which has done the first before the second is submitted
        go.touch()
    waiting = executor.submit(blocks(_held, 1, f"held-{tmp_path}", str(go)))
    free = executor.submit(total(da.full(2, 7, chunks=1), f"free-{tmp_path}"))
    assert executor.first([waiting, free]) == ((0, [0]) if alone else (1, [14]))
    go.touch()
    assert executor.first([waiting]) == (0, [0])


def test_an_error_leaves_alone_what_else_is_computed(executor, tmp_path):
    """What was submitted before it goes on, and so does what is computed after it, before anybody asks."""
    go, resources = tmp_path / "go", executor.resources()
    if resources.workers * resources.threads == 1:
        go.touch()
    waiting = executor.submit(blocks(_held, 1, f"held-{tmp_path}", str(go)))
    failing = executor.submit(
        total(blocks(_failing_after, 4, f"f-{tmp_path}", str(tmp_path)), f"t-{tmp_path}")
    )
    assert executor.compute(total(da.full(6, 7, chunks=1), f"beside-{tmp_path}")) == [42]
    with pytest.raises(ZeroDivisionError, match="the third one"):
        executor.first([failing])
    assert executor.compute(total(da.full(5, 7, chunks=1), f"after-{tmp_path}")) == [35]
    go.touch()
    assert executor.first([waiting]) == (0, [0])
    executor.cancel([failing])
    assert settled(tmp_path)


def test_an_error_of_what_was_submitted_is_raised_by_first(executor, tmp_path):
    rows = blocks(_failing_after, 4, f"submitted-{tmp_path}", str(tmp_path))
    submission = executor.submit(total(rows, f"total-{tmp_path}"), rows)
    with pytest.raises(ZeroDivisionError, match="the third one"):
        executor.first([submission])
    executor.cancel([submission])
    assert settled(tmp_path)


def test_nothing_runs_after_it_is_cancelled(executor, tmp_path):
    submissions = []
    for number in range(2):
        rows = blocks(_noted_late, 6, f"cancelled-{number}-{tmp_path}", str(tmp_path), 0.05)
        submissions.append(executor.submit(total(rows, f"total-{number}-{tmp_path}"), rows))
    executor.cancel(submissions)
    assert settled(tmp_path)
    executor.cancel([])


def test_the_clock_counts_all_that_tasks_take(executor, tmp_path):
    executor.compute(total(blocks(_noted, 2, f"warm-{tmp_path}", str(tmp_path)), f"warm-total-{tmp_path}"))
    before = executor.cpu_seconds()
    executor.compute(total(blocks(_spinning, 4, f"spin-{tmp_path}", 0.1), f"spin-total-{tmp_path}"))
    after = executor.cpu_seconds()
    assert after - before >= 0.4
    assert executor.cpu_seconds() >= after


def test_resources_are_those_that_were_planned(executor, settings):
    planned, found = planned_resources(settings), executor.resources()
    assert (found.workers, found.threads) == (planned.workers, planned.threads)
    assert found.workers * found.threads == settings.workers
    assert found.in_process == planned.in_process == (executor.client is None)
    assert found.memory_limit == planned.memory_limit
    assert not planned.running


def test_a_line_says_where_it_is(executor):
    assert executor.description
    assert "\n" not in executor.description


def test_ctrl_c_is_for_the_process_that_trains(executor):
    """It goes to all processes of a terminal; workers of ours that ended by it could not finish the step in flight."""
    number, client = (signal.SIGINT, signal.SIGTERM), executor.client
    found = {} if client is None else client.run(lambda: [signal.getsignal(each) for each in number])
    assert list(found.values()) == [[signal.SIG_IGN] * 2] * len(found)
    assert len(found) == (0 if client is None else 2)


def test_spans_and_profiles_are_for_schedulers(executor, tmp_path):
    page = tmp_path / "reports" / "page.html"
    with executor.profile(page), executor.span(("a run", "a sweep"), ("1", "2")):
        rows = blocks(_noted, 3, f"profiled-{tmp_path}", str(tmp_path))
        assert executor.compute(total(rows, f"total-{tmp_path}")) == [3]
    assert page.exists() == (executor.client is not None)
    if page.exists():
        assert "<html" in page.read_text()[:500].lower()


def test_a_client_of_somebody_else_is_left_alone(executor, settings, tmp_path):
    """Executors compute where they are, and not where a default client is."""
    with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as other:
        rows = blocks(_process, 2, f"process-{tmp_path}")
        found = executor.compute(rows)
        assert (set(found) == {os.getpid()}) == executor.resources().in_process
        assert Client.current() is other
        assert not other.sync(other.scheduler.who_has)


def _process(values: np.ndarray) -> np.ndarray:
    return np.array([float(os.getpid())])
