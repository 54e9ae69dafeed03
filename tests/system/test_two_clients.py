"""Two clients of one cluster at once, with real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import start, write_pipeline
from distributed import Client
from processes import finish, outcome, running_cluster, wait_for

from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import array_source
from altmin_dask.storage.run import RunFolder


def samples(rows: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((rows, 4), np.float32) @ rng.random((4, 12), np.float32)) / 4


def nothing_is_left(address: str) -> None:
    """A scheduler soon knows nothing more of runs that are over."""

    def known(dask_scheduler: Any) -> list[Any]:  # here, so that it travels by value
        plugins = [*dask_scheduler.worker_plugins, *dask_scheduler.plugins]
        return [*dask_scheduler.tasks, *(name for name in plugins if "altmin-versions" in name)]

    with Client(address, timeout=60) as client:
        wait_for(lambda: client.run_on_scheduler(known) == [])


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
