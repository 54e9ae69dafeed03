"""What an operator of a cluster meets on an ordinary day, with real processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import start, write_pipeline
from distributed import Client
from processes import running_cluster, spawn

from altmin_dask.storage.run import RunFolder

ENDLESS: dict[str, Any] = {"schedule": "kfac", "max_sweeps": 1e6, "n_iter_no_change": 1_000_000}


def endless(folder: Path, **tables: Any) -> Path:
    """A pipeline of small steps that nothing ends."""
    np.save(folder / "x.npy", np.random.default_rng(0).random((400, 6)))
    data = {"chunk_rows": 50}
    return write_pipeline(folder / "p.toml", folder / "x.npy", data=data, training=ENDLESS, **tables)


def until(found: Any, seconds: float = 180.0) -> Any:
    """The first true value, which has to come in time."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reaches_all_of_a_terminal_and_the_step_is_finished(tmp_path, number):
    """The signal goes to every process of the group, as a terminal or a service manager sends it."""
    file = endless(tmp_path, cluster={"kind": "local", "workers": 2, "dashboard": ":0", "patience": 30})
    training = start("train", file, "--run", tmp_path / "run", start_new_session=True)
    until(lambda: len(RunFolder(tmp_path / "run").records(whole=True)) > 2 or training.poll() is not None)
    os.killpg(training.pid, number)
    begun = time.monotonic()
    _, err = training.communicate(timeout=180)
    assert time.monotonic() - begun < 20
    assert training.returncode == 1
    assert err.startswith("altmin: interrupted; go on by")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_worker_that_joins_without_the_package_leaves_and_the_run_goes_on(tmp_path, nanny):
    """It is no package that can be imported that it lacks: what it has in its place raises."""
    bare = tmp_path / "bare" / "altmin_dask"
    bare.mkdir(parents=True)
    (bare / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'altmin_dask'\")")
    run, log = RunFolder(tmp_path / "run"), tmp_path / "bare.log"
    lacking = {"PYTHONPATH": str(bare.parent), "PYTHONSAFEPATH": "1"}  # nor from the folder of this process
    with running_cluster(tmp_path) as cluster:
        training = start("train", endless(tmp_path), "--run", run.path, "--scheduler", cluster.address)
        until(lambda: len(run.records(whole=True)) > 2 or training.poll() is not None)
        words = ("-m", "distributed.cli.dask_worker", cluster.address, nanny, "--no-dashboard")
        joined = spawn(*words, "--local-directory", tmp_path / "b", log=log, **lacking)
        try:
            assert joined.wait(timeout=180) == 0, log.read_text()
            before = len(run.records(whole=True))
            until(lambda: len(run.records(whole=True)) > before + 2 or training.poll() is not None)
            training.send_signal(signal.SIGINT)
            out, err = training.communicate(timeout=180)
        finally:
            joined.kill()
            training.kill()
            training.communicate()
    assert "cannot run altmin_dask (No module named 'altmin_dask'), and takes no part" in out
    assert "install there what the run has: python 3" in log.read_text()
    assert err.startswith("altmin: interrupted; go on by")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["workers", "scheduler"])
def test_a_restart_of_the_workers_or_the_scheduler_is_gone_on_from(tmp_path, what):
    """By somebody else, while the run goes on: it does not end, and comes to the same bits."""
    run = RunFolder(tmp_path / "run")
    with running_cluster(tmp_path) as cluster:
        training = start("train", endless(tmp_path), "--run", run.path, "--scheduler", cluster.address)
        try:
            until(lambda: len(run.records(whole=True)) > 2 or training.poll() is not None)
            if what == "workers":
                with Client(cluster.address, timeout=60) as colleague:
                    colleague.restart(timeout=120)
            else:
                cluster.kill("scheduler")
                cluster.start()
            before = len(run.records(whole=True))
            until(lambda: cluster.start() or len(run.records(whole=True)) > before + 2 or training.poll())
            training.send_signal(signal.SIGINT)
            out, err = training.communicate(timeout=180)
        finally:
            training.kill()
            training.communicate()
    assert err.startswith("altmin: interrupted; go on by"), out + err
    sweeps = run.records()[-1]["sweep"]
    with_threads = ("--run", tmp_path / "threads", f"training.max_sweeps={sweeps}")
    alone = start("train", tmp_path / "p.toml", *with_threads)
    out, err = alone.communicate(timeout=180)
    assert alone.returncode == 0, out + err
    one, other = (
        [r["nested_loss"] for r in each.records()] for each in (run, RunFolder(tmp_path / "threads"))
    )
    assert one[:-1] == other[: len(one) - 1]
