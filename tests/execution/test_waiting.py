"""A step that nobody can do says what it waits for."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, Status
from rich.console import Console

from altmin_dask import display, runs
from altmin_dask.dashboard.board import RunState
from altmin_dask.dashboard.curves import NamedRun
from altmin_dask.dashboard.listing import line
from altmin_dask.errors import FaultError
from altmin_dask.execution.cluster import Cluster
from altmin_dask.storage.run import RunFolder
from altmin_dask.training import progress as progress_module
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.progress import Progress, Rate
from altmin_dask.training.record import Record


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become tenths."""
    monkeypatch.setattr("altmin_dask.execution.cluster.POLL_SECONDS", 0.05)
    monkeypatch.setattr("altmin_dask.execution.cluster.SAY_SECONDS", 0.1)


@pytest.fixture
def local() -> Iterator[LocalCluster]:
    with LocalCluster(  # no monitor of memory wakes its worker
        n_workers=1, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address=":0"
    ) as cluster:
        yield cluster


def paused(client: Client, how: Status, workers: list[str] | None = None) -> None:
    def pause(dask_worker: Any) -> None:
        dask_worker.status = how

    client.run(pause, workers=workers)


def said(client: Client, until: str, then: Any, task: Any = None) -> list[str]:
    """What is told while a task waits; when it is `until`, `then` brings the task about."""
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if until in text and len(told) == 1:
            then()

    cluster = Cluster(client, patience=60)
    cluster.report_waits(tell)
    assert cluster.compute(dask.delayed(sum)([1, 2]) if task is None else task) == 3
    return told


def test_no_worker_is_said_until_there_is_one(caplog):
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        told = said(client, "waits for a worker", lambda: cluster.scale(1))
    assert set(told) == {"waits for a worker", ""}
    assert told[-1] == ""
    assert [record.getMessage() for record in caplog.records if record.name == "altmin_dask"] == [
        "the run waits for a worker",
        "the run goes on",
    ]


def test_a_run_that_ends_is_not_said_to_go_on(caplog):
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        pytest.raises(FaultError, match="there has been no worker"),
    ):
        Cluster(client, patience=0.2).compute(dask.delayed(sum)([1, 2]))
    said = [record.getMessage() for record in caplog.records if record.name == "altmin_dask"]
    assert said == ["the run waits for a worker"]


def test_paused_workers_are_said(local):
    with Client(local) as client:
        paused(client, Status.paused)
        told = said(client, "the only worker has paused", lambda: paused(client, Status.running))
        assert told[0] == "waits for memory: the only worker has paused"
        paused(client, Status.paused)
        with pytest.raises(
            FaultError, match=r"all workers have been paused for 0\.2 s.*give them more memory"
        ):
            Cluster(client, patience=0.2).compute(dask.delayed(sum)([1, 2, 3]))


@pytest.mark.parametrize(
    ("how", "told", "lack"),
    [
        pytest.param(
            Status.paused,
            "waits for memory: worker {} has paused with tasks of this step",
            r"worker {} has been paused with tasks of this step for 0\.3 s \(cluster\.patience\); give",
            id="paused",
        ),
        pytest.param(
            Status.closing_gracefully,
            "waits for a worker: worker {} has begun to leave with tasks of this step",
            r"worker {} has been about to leave with tasks of this step for 0\.3 s",
            marks=pytest.mark.slow,
            id="leaving",
        ),
    ],
)
def test_one_of_several_workers_that_keeps_a_task_is_said(how, told, lack, tmp_path):
    """Another is free, but Dask gives it no task that a worker has."""
    heard: list[str] = []
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        first = next(iter(client.nthreads()))
        other = client.submit(held, str(tmp_path / "go"), workers=[first], pure=False)
        until(lambda: any(client.processing().values()))

        def tell(text: str) -> None:
            heard.append(text)
            assert len(heard) < 1000, "it waits for ever"
            if text and len(heard) == 1:
                paused(client, how, [first])
                (tmp_path / "go").touch()

        executor = Cluster(client, patience=0.3)
        executor.report_waits(tell)
        with dask.annotate(workers=[first]), pytest.raises(FaultError, match=lack.format(re.escape(first))):
            executor.compute(dask.delayed(sum)([1, 2]))
        assert other.result()
    assert heard[0] == "waits for workers that are at 1 other tasks"
    assert heard[-2:] == [told.format(first), ""]


def test_a_worker_that_leaves_is_no_worker_that_has_paused(local):
    with Client(local) as client:
        paused(client, Status.closing_gracefully)
        with pytest.raises(FaultError, match="there has been no worker"):
            Cluster(client, patience=0.2).compute(dask.delayed(sum)([1, 2, 3]))


def test_a_resource_that_nobody_has_is_said(local):
    told: list[str] = []
    with Client(local) as client, dask.annotate(resources={"GPU": 1}):
        cluster = Cluster(client, patience=0.3)
        cluster.report_waits(told.append)
        lacking = r"not been a worker with the resources GPU=1 for 0\.3 s .*; start one that has it"
        with pytest.raises(FaultError, match=lacking):
            cluster.compute(dask.delayed(sum)([1, 2, 3]))
    assert set(told) == {"waits for a worker with the resources GPU=1", ""}


def test_workers_that_do_other_things_are_said(local, tmp_path):
    with Client(local) as client:
        other = client.submit(held, str(tmp_path / "go"), pure=False)
        until(lambda: any(client.processing().values()))
        told = said(client, "other tasks", (tmp_path / "go").touch)
        assert other.result()
    assert told[0] == "waits for workers that are at 1 other tasks"


def held(file: str) -> bool:
    until(Path(file).exists)
    return True


class Pausing(Callback):
    """Pauses the workers with the third record, and lets them go on when that has been told."""

    def __init__(self, client: Client) -> None:
        self.client, self.told, self.records = client, list[Progress](), 0

    def on_record(self, record: Record) -> None:
        self.records += 1
        if self.records == 3:
            paused(self.client, Status.paused)

    def on_progress(self, progress: Progress) -> None:
        self.told.append(progress)
        if progress.waiting and progress.rows_per_second == 0:
            paused(self.client, Status.running)


@pytest.mark.slow
def test_a_run_tells_it_and_its_rate_decays(local, pipeline, make_store, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(progress_module, "RATE_SECONDS", 0.3)
    with Client(local) as client:
        seen = Pausing(client)
        asked = pipeline(make_store(samples).path)
        runs.train(asked, RunFolder(tmp_path / "run"), [seen], scheduler=client, log=lambda line: None)
    waits = [each for each in seen.told if each.waiting]
    assert {each.waiting for each in waits} == {"waits for memory: the only worker has paused"}
    rates = [each.rows_per_second for each in waits]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0
    assert waits[-1].seconds_left == np.inf
    last = seen.told[-1]
    assert last.waiting == ""
    assert last.sweep == 3
    # for people
    state = RunState("r", status="running", progress=waits[-1])
    shown = line(NamedRun("r", state, 0))
    assert "waits for memory" in shown
    assert '<span class="badge warn">waiting</span>' in shown
    live = display.Live(Console(file=StringIO(), force_terminal=True, width=200))
    live.on_progress(waits[-1])
    assert live.bar.lines[0].startswith("waits for memory")


def test_a_rate_is_of_late_and_decays():
    rate = Rate(0.0, 100)
    assert rate.value(1.0) == 0
    for second in range(1, 101):
        rate.add(second, 100 + 10 * second)
    assert rate.value(100.0) == pytest.approx(10)
    assert rate.value(115.0) == pytest.approx(10 * 15 / 30)
    assert rate.value(131.0) == 0
    assert len(rate.marks) <= 32


def test_the_rate_of_the_page_decays_where_nothing_is_heard(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "time", lambda: now)
    state = RunState("r", rows=100)
    for second in range(11):
        state.marks.append((990.0 + second, second / 10))
    assert state.rows_per_second == pytest.approx(10)
    now = 1009.0
    assert state.rows_per_second == pytest.approx(10)
    now = 1090.0
    assert state.rows_per_second == pytest.approx(1)


def test_lines_have_times_in_the_log_and_come_every_half_minute_where_nobody_looks_on(monkeypatch, tmp_path):
    monkeypatch.setattr(display, "SILENT_SECONDS", 0.05)
    out = StringIO()
    console = Console(file=out, width=200)
    with display.Lines(console) as lines:
        until(lambda: "the data are made ready, 0 s so far" in out.getvalue())
        waiting = Progress(1.5, 3, 1, 4, 0.1, None, None, 1.0, np.inf, 0.0, waiting="waits for a worker")
        lines.on_progress(waiting)
        until(lambda: "sweep 1.500 of 3, waits for a worker, 0 s so far" in out.getvalue())
        with display.logged(lines.tell):
            logging.getLogger("altmin_dask").warning("the run %s", "goes on")
        lines.log.open(tmp_path / "training.log")
        lines.on_end(Outcome("interrupted", error=KeyboardInterrupt()))
    logged = (tmp_path / "training.log").read_text().splitlines()
    assert all(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in logged)
    assert out.getvalue().rstrip().endswith("the run goes on")
    said = [line[21:] for line in logged]
    assert said[-1] == "interrupted"
    assert [line for line in said[:-1] if line not in out.getvalue().splitlines()] == []
    assert len(said) == len(out.getvalue().splitlines()) + 1
    assert not any(thread.name == "altmin-heartbeat" for thread in threading.enumerate())


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_that_are_shown_have_no_times(terminal):
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with display.Lines(console):
        display.say(console, "run x")
    assert out.getvalue() == "run x\n"


def until(found: Any) -> None:
    end = time.monotonic() + 30
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)
