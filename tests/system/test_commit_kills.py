"""Kills in the midst of a record: the model is the reported one, and no time is lost but what nobody can know."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import Commit, keep, logged
from command import Altmin, X, foreign, write_pipeline
from processes import HERE, finish, spawn

from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore

pytestmark = pytest.mark.slow

FORMS = {
    "kfac": {"schedule": "kfac", "group_chunks": 1},
    "staleness 7": {"schedule": "kfac", "group_chunks": 1, "max_staleness": 7},
    "steps on a chunk": {"schedule": "kfac", "chunk_steps": 3},
    "incremental": {"schedule": "incremental"},
}


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("phase", ["model", "record", "commit", "committed", "publish"])
@pytest.mark.parametrize("form", ["kfac", "incremental"])
def test_a_kill_in_a_record_and_a_resume_whose_limit_is_met(form, phase, tmp_path, altmin: Altmin):
    """`altmin evaluate` says of the model what the best record says, to the last digit."""
    store = foreign(tmp_path / "s.zarr", np.tile(X, (3, 1)))
    solver = {} if form == "incremental" else {"mu": "auto"}
    file = write_pipeline(
        tmp_path / "p.toml",
        store,
        data={"validation": str(store)},
        solver=solver,
        training={**FORMS[form], "max_sweeps": 4},
        cluster={"workers": 1},
    )
    run = tmp_path / "run"
    # in the third record, or the second after a pass of twelve actions: the first commit is that of the start
    by_record, by_commit = (3, 4) if form == "kfac" else (2, 16)
    times = by_record if phase in ("model", "record") else by_commit
    kill = {"ALTMIN_KILL": f"{phase}:{times}:{tmp_path / 'killed'}"}
    finish(file, run, code=-signal.SIGKILL, script=HERE / "killers.py", **kill)
    assert (tmp_path / "killed").exists()
    limit = max(records(run)[:2][-1]["sweep"], 1e-6)
    for sweeps in (limit, 1.0, 4.0):
        finish(file, run, "--resume", "--set", f"training.max_sweeps={sweeps}")
        outcome = altmin("evaluate", run, store, "--json")
        assert json.loads(outcome.out)["loss"] == min(record["validation_loss"] for record in records(run))
        assert sorted(path.name for path in (run / "model").iterdir()) == [
            "model.json",
            "weights.safetensors",
        ]


@pytest.mark.parametrize("form", FORMS)
def test_no_time_is_lost_by_kills_but_that_after_the_last_commit(form, tmp_path):
    """Processes that are killed anywhere: their own clocks, the system's count of them, and what is committed."""
    rng = np.random.default_rng(0)
    x = (rng.random((12000, 8), np.float32) @ rng.random((8, 150), np.float32)) / 8
    store = foreign(tmp_path / "s.zarr", x, chunk_rows=500)
    solver = {} if form == "incremental" else {"mu": "auto"}
    file = write_pipeline(
        tmp_path / "p.toml",
        store,
        network={"hidden_layer_sizes": [100], "dtype": "float32"},
        solver=solver,
        training={**FORMS[form], "max_sweeps": 20 if solver else 8, "evaluation_rows": 1000},
    )
    log, run, clock = tmp_path / "log", tmp_path / "run", tmp_path / "clock"
    here = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    environment = {"ALTMIN_CLOCK": str(clock), "PYTHONPATH": here}
    totals: dict[int, float] = {}
    commits: list[Commit] = []
    chance = np.random.default_rng(1)
    code: int | None = None
    while code != 0:
        resume = ["--resume"] if (run / "pipeline.json").exists() else []
        process = spawn(HERE / "timed.py", "train", file, "--run", run, *resume, log=log, **environment)
        before = len(logged(clock))
        while len(totals) < 5 and len(logged(clock)) < before + 2:  # about to commit for the second time
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        if len(totals) < 5:
            time.sleep(0.1 + 0.7 * chance.random())
            os.kill(process.pid, signal.SIGKILL)  # `Popen.kill` would take its exit status, if it has ended
        _, status, usage = os.wait4(process.pid, 0)
        code = process.returncode = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL), log.read_text()
        totals[process.pid] = usage.ru_utime + usage.ru_stime
        on_disk = restore(RunFolder(run))
        assert on_disk is not None
        commits = [commit for commit in logged(clock) if commit.cpu <= on_disk.cpu_seconds]
        assert commits[-1].cpu == on_disk.cpu_seconds
        keep(clock, commits)
        if code == 0 and len(totals) < 5:
            pytest.fail("it came to its end before it was killed five times")
    assert len({commit.process for commit in commits}) == len(totals)
    charged = charged_wall = own = 0.0
    for pid, total in totals.items():
        mine = [commit for commit in commits if commit.process == pid]
        for commit in mine:  # each process goes on from where the one before it was committed
            assert commit.cpu - charged == pytest.approx(commit.own, rel=0.01, abs=0.05)
            assert commit.wall - charged_wall == pytest.approx(commit.own_wall, rel=0.1, abs=1.0)
        assert mine[-1].own <= total
        charged, charged_wall, own = mine[-1].cpu, mine[-1].wall, own + mine[-1].own
    assert charged == pytest.approx(own, rel=0.01, abs=0.05 * len(totals))
    assert charged <= sum(totals.values())
    assert records(run)[-1]["cpu_seconds"] == pytest.approx(charged, abs=0.1)
