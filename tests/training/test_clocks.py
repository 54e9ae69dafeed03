"""What a state says it has cost is what the processes' own clocks say, at every commit, however training went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from choices import slow_but, taking_turns
from clocks import OwnClock
from distributed import Client, LocalCluster
from training_runs import train

from altmin_dask import runs
from altmin_dask.config import ClusterTable
from altmin_dask.execution import task_graphs, tasks
from altmin_dask.execution.cluster import Cluster
from altmin_dask.storage.run import RunFolder
from altmin_dask.training import context, trainer
from altmin_dask.training.algorithms import restore

STEPS = {"schedule": "kfac", "group_chunks": 1, "max_sweeps": 3.0}
EVERY = {
    "kfac": {"training": STEPS},
    "staleness 1": {"training": {**STEPS, "max_staleness": 1}},
    "staleness 7": {"training": {**STEPS, "max_staleness": 7}},
    "incremental": {"training": {"schedule": "incremental", "max_sweeps": 2.0}},
    "windows": {"training": {"schedule": "windows", "first_window": 2, "max_sweeps": 2.0}},
    "layerwise": {
        "training": {**STEPS, "max_sweeps": 1.0},
        "network": {"hidden_layer_sizes": (5, 4, 5), "initialization": "layerwise"},
    },
}
STEP, LOOK = 0.006, 0.015
"""CPU seconds of a chunk that is visited, and of one that is evaluated, at least."""


def burn(seconds: float) -> None:
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        sum(range(200))


@pytest.fixture
def store(samples, make_store):
    return make_store(np.tile(samples, (3, 1)))  # 19 chunks


@pytest.fixture
def slow_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that take their time, so that every one of them shows."""
    for name, seconds in (
        ("kfac_chunk", STEP),
        ("visit_chunk", STEP),
        ("enter_chunk", STEP),
        ("collect_chunk", STEP),
        ("evaluate_chunk", LOOK),
    ):
        original = getattr(tasks, name)

        def slowly(
            *arguments: Any, original: Any = original, seconds: float = seconds, **options: Any
        ) -> Any:
            burn(seconds)
            return original(*arguments, **options)

        monkeypatch.setattr(tasks, name, slowly)


def settings(pipeline: Callable[..., Any], path: str, name: str, **training: Any) -> Any:
    tables = {table: dict(values) for table, values in EVERY[name].items()}
    tables["training"] |= training
    if tables["training"]["schedule"] == "kfac":
        tables["solver"] = {"mu": "auto"}
    # evaluation of two chunks: much where records are near each other
    tables["training"]["evaluation_rows"] = 64
    return pipeline(path, **tables)


def agree(commits: list[Any], before: float = 0.0, before_wall: float = 0.0) -> None:
    """There is a little between two readings, and of wall time much where a machine is busy."""
    assert commits
    for commit in commits:
        assert commit.cpu - before == pytest.approx(commit.own, rel=0.01, abs=0.03), commit
        assert commit.wall - before_wall == pytest.approx(commit.own_wall, rel=0.1, abs=1.0), commit


@pytest.mark.slow
@pytest.mark.usefixtures("slow_chunks")
@pytest.mark.parametrize(("name", "workers"), list(zip(EVERY, [1, 2, 2, 2, 1, 2], strict=True)))
def test_every_commit_holds_what_was_spent(name, workers, store, pipeline, tmp_path, monkeypatch):
    """Groups that were still under way, the weights training starts from, what was done between two records."""
    monkeypatch.setattr(trainer, "COMMIT_SECONDS", 0.05)
    monkeypatch.setattr(trainer, "COMMIT_SHARE", 1.0)
    watch = OwnClock(monkeypatch.setattr)
    wanted = settings(pipeline, store.path, name).model_copy(
        update={"cluster": ClusterTable(workers=workers)}
    )
    _, state, records = train(wanted, tmp_path / "run")
    agree(watch.commits)
    between = [commit.records for commit in watch.commits]
    assert len(between) > len(set(between)) + 1  # commits that are no records
    assert state.cpu_seconds > state.visits / 32 * STEP
    clocks = [record.cpu_seconds for record in records]
    assert clocks == sorted(clocks)
    assert clocks[-1] <= state.cpu_seconds <= watch.ends[-1][0] + 0.03


class Killed(Exception):
    """In place of a signal."""


@pytest.mark.slow
@pytest.mark.usefixtures("slow_chunks")
@pytest.mark.parametrize("name", slow_but(["kfac"], ["kfac", "staleness 7", "incremental"]))
def test_a_resumed_run_has_not_lost_the_time_before(name, store, pipeline, tmp_path, monkeypatch):
    """Cut off in the midst of a pass: all till the last commit is kept, what is done again counts once."""
    monkeypatch.setattr(trainer, "COMMIT_SECONDS", 0.05)
    monkeypatch.setattr(trainer, "COMMIT_SHARE", 1.0)
    wanted = settings(pipeline, store.path, name)
    watch = OwnClock(monkeypatch.setattr)
    commit, done = RunFolder.commit, 0

    def dying(self: RunFolder, *state: Any) -> Path:
        nonlocal done
        done += 1
        if done % 5 == 0:
            raise Killed
        return commit(self, *state)

    monkeypatch.setattr(RunFolder, "commit", dying)
    run, base = RunFolder(tmp_path / "run"), (0.0, 0.0)
    for attempt in range(60):
        watch.commits.clear()
        try:
            runs.train(wanted, run, resume=attempt > 0, log=lambda line: None)
            killed = False
        except Killed:
            killed = True
        if watch.commits:
            agree(watch.commits, *base)
        state = restore(run)
        assert state is not None
        assert not watch.commits or watch.commits[-1].cpu == state.cpu_seconds
        base = state.cpu_seconds, state.wall_seconds
        if not killed:
            break
    else:
        pytest.fail("it never came to its end")
    assert attempt >= 3
    assert state.visits >= wanted.training.max_sweeps * 600
    assert state.cpu_seconds > state.visits / 32 * STEP


@pytest.mark.usefixtures("slow_chunks")
@pytest.mark.parametrize("max_staleness", [0, 1, 7])
@pytest.mark.slow
def test_the_limit_of_cpu_seconds_holds(max_staleness, store, pipeline, tmp_path, monkeypatch):
    """By the process's own clock; groups that are under way when it is reached are not thrown away."""
    watch = OwnClock(monkeypatch.setattr)
    limits = {"max_sweeps": 1e6, "max_cpu_seconds": 1.0, "max_staleness": max_staleness}
    wanted = settings(pipeline, store.path, "kfac", **limits)
    _, state, _ = train(wanted, tmp_path / "run")
    spent = watch.ends[-1][0]
    steps = state.visits / 31.6
    assert 1.0 <= state.cpu_seconds <= spent + 0.03
    assert spent <= 1.0 + (max_staleness + 2) * spent / steps + 0.05


@pytest.mark.parametrize(
    ("name", "limits"),
    taking_turns(
        ("kfac", "staleness 7", "incremental"),
        ({"max_sweeps": 2.0}, {"max_sweeps": 1e6, "max_cpu_seconds": 0.3}),
    ),
)
def test_a_finished_run_that_is_resumed_stays_what_it_is(name, limits, store, pipeline, tmp_path):
    wanted = settings(pipeline, store.path, name, **limits)
    run, _, records = train(wanted, tmp_path / "run")
    before = files(run)
    assert train(wanted, tmp_path / "run", resume=True)[2] == records
    assert files(run) == before


def files(run: RunFolder) -> dict[str, bytes]:
    """All but what says when somebody was last there."""
    found = {
        str(file.relative_to(run.path)): file.read_bytes() for file in run.path.rglob("*") if file.is_file()
    }
    return {name: content for name, content in found.items() if name not in (".lock", "progress.json")}


# --- clusters


def took_by(pid: int) -> float:
    return sum(psutil.Process(pid).cpu_times()[:2])


def spin(seconds: float) -> int:
    import os
    import time

    assert task_graphs
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        sum(range(200))
    return os.getpid()


@pytest.fixture
def one_worker() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.slow
def test_workers_that_come_and_go_keep_what_they_took(one_worker):
    """One that comes in the place of another counts from its first task on, not from when it is first asked."""
    executor = Cluster(one_worker)
    before, here = executor.cpu_seconds(), time.process_time()
    first = one_worker.submit(spin, 0.4, pure=False).result()
    spent = executor.cpu_seconds() - before - (time.process_time() - here)
    assert 0.4 <= spent <= took_by(first) + 0.1
    psutil.Process(first).kill()
    second = one_worker.submit(spin, 0.6, pure=False).result()
    assert second != first
    after = executor.cpu_seconds() - before - (time.process_time() - here)
    assert spent + 0.6 <= after <= spent + took_by(second) + 0.1


@pytest.mark.slow
def test_what_a_worker_did_for_others_before_is_not_charged(one_worker):
    one_worker.submit(spin, 0.5, pure=False).result()
    executor = Cluster(one_worker)
    before, here = executor.cpu_seconds(), time.process_time()
    time.sleep(0.05)
    assert executor.cpu_seconds() - before - (time.process_time() - here) < 0.25


@pytest.mark.slow
def test_numbers_of_processes_may_be_given_anew(one_worker, monkeypatch):
    """Two lives of a container have the same host and number: the clock never runs backward."""
    executor = Cluster(one_worker)
    start = executor.cpu_seconds()
    pid = one_worker.submit(spin, 0.5, pure=False).result()
    before = executor.cpu_seconds()
    assert before >= start + 0.5
    psutil.Process(pid).kill()
    one_worker.submit(pretend, pid, pure=False).result()
    one_worker.submit(spin, 0.1, pure=False).result()
    assert executor.cpu_seconds() >= before + 0.1


def pretend(pid: int) -> None:
    """Let the worker have another's number."""
    import os

    assert task_graphs
    os.getpid = lambda: pid


@pytest.mark.slow
@pytest.mark.parametrize("max_staleness", [0, 1, 7])
def test_a_local_cluster_agrees_with_its_processes(
    max_staleness, make_store, pipeline, tmp_path, monkeypatch
):
    """All processes by the operating system's own count, at every commit."""
    x = np.random.default_rng(0).random((6000, 60))
    store = make_store(x, chunk_rows=500)

    def seconds() -> float:
        return time.process_time() + sum(map(took_by, pids))

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pids = list(client.run(process_number).values())
        wanted = pipeline(
            store.path,
            solver={"mu": "auto"},
            network={"hidden_layer_sizes": (60,)},
            training={**STEPS, "max_sweeps": 24.0, "max_staleness": max_staleness},
        )
        train(wanted, tmp_path / "warm", scheduler=client)  # modules are loaded, memory is there
        watch = OwnClock(monkeypatch.setattr, seconds)
        _, state, _ = train(wanted, tmp_path / "run", scheduler=client)
    assert state.cpu_seconds > 1
    for commit in watch.commits:  # the system counts in hundredths; heartbeats go on meanwhile
        assert commit.cpu == pytest.approx(commit.own, rel=0.05, abs=0.15), commit


def process_number() -> int:
    import os

    return os.getpid()


@pytest.mark.slow
def test_clocks_of_many_workers_are_not_read_too_often(
    store, pipeline, tmp_path, monkeypatch, cluster_address
):
    """Where reading takes long, commits leave it to the next record; records never do."""
    reading = Cluster.cpu_seconds

    def slow(self: Any) -> float:
        time.sleep(0.05)
        return reading(self)

    monkeypatch.setattr(Cluster, "cpu_seconds", slow)
    monkeypatch.setattr(context, "CHARGE_SHARE", 1e-3)  # however slow the steps are
    wanted = settings(pipeline, store.path, "incremental", max_sweeps=1.0)
    watch = OwnClock(monkeypatch.setattr)
    _, state, records = train(wanted, tmp_path / "run", scheduler=cluster_address)
    between = {commit.cpu for commit in watch.commits}
    assert len(between) < len(watch.commits) / 2
    assert state.cpu_seconds > watch.ends[-1][0] - 0.1  # of this process alone
    assert records[-1].cpu_seconds <= state.cpu_seconds


def test_a_limit_that_is_passed_between_a_commit_and_a_step_holds(store, pipeline, tmp_path, monkeypatch):
    cost = 0.006

    def charge(self: context.RunContext) -> None:
        self.checkpoint.cpu_seconds += cost

    monkeypatch.setattr(context.RunContext, "charge", charge)
    wanted = settings(pipeline, store.path, "kfac", max_cpu_seconds=0.02)
    _, state, records = train(wanted, tmp_path / "run")
    assert (state.visits, state.cpu_seconds > 0.02 > records[-1].cpu_seconds) == (0, True)
    cost = 1e-6
    _, again, others = train(wanted, tmp_path / "run", resume=True)
    assert (again.visits, again.cpu_seconds, others) == (0, state.cpu_seconds, records)
