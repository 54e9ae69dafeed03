"""Ten thousand chunks, and two clients of one cluster at once, with real processes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zarr
from command import Altmin, start, write_pipeline
from distributed import Client
from processes import Cluster, finish, outcome, running_cluster, wait_for

from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.storage.run import RunFolder

GROWTH = 48 * 2**20
"""What a process may grow by, in bytes, over what it was after the first steps."""


def samples(rows: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((rows, 4), np.float32) @ rng.random((4, 12), np.float32)) / 4


def memory(cluster: Cluster) -> dict[str, int]:
    """Bytes that scheduler and workers hold."""
    found = {}
    for name, process in cluster.processes.items():
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        found[name] = sum(each.memory_info().rss for each in family)
    return found


def nothing_is_left(address: str) -> None:
    """A scheduler soon knows nothing more of runs that are over."""

    def known(dask_scheduler: Any) -> list[Any]:  # here, so that it travels by value
        plugins = [*dask_scheduler.worker_plugins, *dask_scheduler.plugins]
        return [*dask_scheduler.tasks, *(name for name in plugins if "altmin-versions" in name)]

    with Client(address, timeout=60) as client:
        wait_for(lambda: client.run_on_scheduler(known) == [])


@pytest.mark.slow
def test_ten_thousand_chunks(tmp_path: Path, altmin: Altmin):
    """A run of them is killed, goes on elsewhere, ends with the same bits, and nothing grows with its steps."""
    x, store = samples(40_000), tmp_path / "s.zarr"
    ingest(array_source(x), store, chunk_rows=4)
    assert SampleStore.open(store).n_chunks == 10_000
    pipeline = write_pipeline(
        tmp_path / "p.toml",
        store,
        network={"initialization": "random"},  # a pass over all of them is in what follows
        training={"max_sweeps": 0.6, "evaluation_rows": 400},
    )
    assert altmin("train", pipeline, "--run", tmp_path / "threads").code == 0
    reference = outcome(tmp_path / "threads")
    run = RunFolder(tmp_path / "run")
    with running_cluster(tmp_path) as cluster:
        words = ("train", pipeline, "--run", run.path, "--scheduler", cluster.address)
        client = start(*words)
        try:
            wait_for(lambda: len(run.records(whole=True)) > 3 or client.poll() is not None, 300)
            early = memory(cluster)
            wait_for(lambda: len(run.records(whole=True)) > 6 or client.poll() is not None, 300)
            client.send_signal(signal.SIGKILL)
        finally:
            client.kill()
            client.communicate()
        assert cluster.kill("worker-0")
        cluster.start()
        finish(pipeline, run.path, "--resume", "--scheduler", cluster.address)
        late = memory(cluster)
        nothing_is_left(cluster.address)
    assert outcome(run.path) == reference
    assert {name: late[name] - early[name] for name in late if late[name] - early[name] > GROWTH} == {}
    said = altmin("predict", run.path, store, tmp_path / "out.zarr")
    assert said.code == 0, said.err
    predicted = np.asarray(zarr.open_group(tmp_path / "out.zarr", mode="r")["x"][:])
    assert predicted.shape == x.shape
    assert np.isfinite(predicted).all()


@pytest.mark.slow
def test_two_clients_at_once(tmp_path: Path):
    """Each comes to the bits that it would have had alone, though a worker of both is killed on the way."""
    ingest(array_source(samples(6000)), tmp_path / "s.zarr", chunk_rows=250)
    forms: dict[str, dict[str, Any]] = {
        "kfac": {"schedule": "kfac", "max_sweeps": 6},
        "windows": {"schedule": "windows", "first_window": 4, "group_chunks": 2, "max_sweeps": 6},
    }
    pipelines = {}
    for name, training in forms.items():
        (tmp_path / name).mkdir()
        pipelines[name] = write_pipeline(tmp_path / name / "p.toml", tmp_path / "s.zarr", training=training)
    references = {name: outcome(finish(file, tmp_path / name / "alone")) for name, file in pipelines.items()}
    runs = {name: RunFolder(tmp_path / name / "run") for name in forms}
    with running_cluster(tmp_path) as cluster:
        clients = {
            name: start("train", file, "--run", runs[name].path, "--scheduler", cluster.address)
            for name, file in pipelines.items()
        }
        try:
            for run in runs.values():
                wait_for(lambda run=run: len(run.records(whole=True)) > 1)
            assert cluster.kill("worker-1")
            said = {name: client.communicate(timeout=180) for name, client in clients.items()}
        finally:
            for client in clients.values():
                client.kill()
                client.communicate()
        assert {name: client.returncode for name, client in clients.items()} == dict.fromkeys(forms, 0), said
        nothing_is_left(cluster.address)
    for name, run in runs.items():
        assert outcome(run.path) == references[name], name
