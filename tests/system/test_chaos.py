"""Thirty kills at random moments of random victims change no bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from command import write_pipeline
from processes import Cluster, finish, outcome, running_cluster, spawn

from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import array_source

KILLS = int(os.environ.get("ALTMIN_CHAOS_KILLS", "30"))
VICTIMS = ("worker-0", "worker-1", "nanny-0", "scheduler", "client", "client")


@pytest.mark.slow
def test_random_kills_change_no_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(int(os.environ.get("ALTMIN_CHAOS_SEED", "0")))
    rng = np.random.default_rng(0)
    x = (rng.random((6000, 8), np.float32) @ rng.random((8, 120), np.float32)) / 8
    ingest(array_source(x), tmp_path / "s.zarr", chunk_rows=250)
    pipeline = write_pipeline(
        tmp_path / "p.toml",
        tmp_path / "s.zarr",
        data={"validation": str(tmp_path / "s.zarr")},
        network={"hidden_layer_sizes": [100], "dtype": "float32"},
        training={"schedule": "windows", "first_window": 4, "group_chunks": 2, "max_sweeps": 20},
    )
    reference = outcome(finish(pipeline, tmp_path / "reference"))
    killed: list[tuple[str, int]] = []
    runs = resumed = 0
    while len(killed) < KILLS:
        run = tmp_path / f"run-{runs}"
        with running_cluster(tmp_path) as cluster:
            resumed += chaotic_run(cluster, pipeline, run, chance, killed)
        runs += 1
        assert outcome(run) == reference, f"after {killed}"
    victims = [victim for victim, _ in killed]
    counts = ", ".join(f"{victims.count(name)} {name}" for name in sorted(set(victims)))
    with capsys.disabled():
        print(f"\n{len(killed)} kills over {runs} runs ({counts}), {resumed} resumptions, no bit changed")
        print(f"after steps {[step for _, step in killed]}")
    assert all(step >= 0 for _, step in killed)


def chaotic_run(
    cluster: Cluster, pipeline: Path, run: Path, chance: random.Random, killed: list[tuple[str, int]]
) -> int:
    """Train to the end, with kills until there were enough; gives how often the client had to begin again."""
    starts, mark = 0, -1
    while True:
        cluster.start()
        resume = ["--resume"] if (run / "pipeline.json").exists() else []
        client = spawn(
            "-m",
            "altmin_dask",
            "train",
            pipeline,
            "--run",
            run,
            "--scheduler",
            cluster.address,
            *resume,
            log=pipeline.parent / "client.log",
        )
        starts += 1
        deadline = time.monotonic() + 180
        try:
            while client.poll() is None:
                assert time.monotonic() < deadline, (pipeline.parent / "client.log").read_text()[-3000:]
                cluster.start()  # as whoever looks after it does: workers end some time after their scheduler
                if len(killed) >= KILLS or step(run) <= mark:  # before there is any progress it proves little
                    time.sleep(0.02)
                    continue
                time.sleep(2 * chance.random())
                mark, victim = step(run), chance.choice(VICTIMS)
                if victim == "client":
                    if client.poll() is None:
                        client.kill()
                        killed.append((victim, mark))
                elif cluster.kill(victim):
                    killed.append((victim, mark))
        finally:
            client.kill()
            code = client.wait()
        if code == 0:
            return starts - 1
        # killed, or ended with a sentence because the scheduler was
        log = (pipeline.parent / "client.log").read_text()
        assert code == -signal.SIGKILL or (code in (1, 2) and "Traceback" not in log), log[-3000:]


def step(run: Path) -> int:
    """The last step that was committed; −1 before the first."""
    return max((int(file.stem) for file in (run / "state").glob("[0-9]*.safetensors")), default=-1)
