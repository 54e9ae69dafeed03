"""Workers that are killed while a task takes several steps, of one chunk or of several: no bit changes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import write_pipeline
from processes import finish, outcome, running_cluster, spawn

from altmin_dask import array_source, ingest

pytestmark = pytest.mark.slow

KILLS = 4


@pytest.mark.parametrize(
    "training",
    [{"group_chunks": 2, "chunk_steps": 4}, {"group_chunks": 1}],
    ids=["of one chunk", "of several"],
)
def test_kills_of_workers_change_no_bit(training: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((24_000, 8), np.float32) @ rng.random((8, 120), np.float32)) / 8
    ingest(array_source(x), tmp_path / "s.zarr", chunk_rows=1000)
    pipeline = write_pipeline(
        tmp_path / "p.toml",
        tmp_path / "s.zarr",
        data={"validation": str(tmp_path / "s.zarr")},
        network={"hidden_layer_sizes": [200], "dtype": "float32"},
        solver={"mu": "auto"},
        training={"schedule": "kfac", "max_sweeps": 25, "n_iter_no_change": 1000, **training},
    )
    reference = outcome(finish(pipeline, tmp_path / "reference"))
    run, killed = tmp_path / "run", 0
    with running_cluster(tmp_path) as cluster:
        cluster.start()
        words = ["-m", "altmin_dask", "train", pipeline, "--run", run, "--scheduler", cluster.address]
        client = spawn(*words, log=tmp_path / "client.log")
        try:
            deadline = time.monotonic() + 240
            while client.poll() is None:
                assert time.monotonic() < deadline, (tmp_path / "client.log").read_text()[-3000:]
                cluster.start()
                if killed < KILLS and (run / "state").exists():
                    time.sleep(1.2)
                    killed += cluster.kill(f"worker-{killed % 2}")
                time.sleep(0.05)
        finally:
            client.kill()
        assert client.wait() == 0, (tmp_path / "client.log").read_text()[-3000:]
    assert killed == KILLS
    assert outcome(run) == reference
