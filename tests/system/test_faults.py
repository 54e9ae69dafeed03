"""Faults as ordinary life: each ends in a sentence and a run that resumes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import numpy as np
import pytest
from choices import slow_but, taking_turns
from command import X, foreign, refused, start, write_pipeline
from distributed import Client, LocalCluster
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from training_runs import sums_on_disk, train

from altmin_dask import runs
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import ChunkError, ExistsError, FaultError, RepairWarning, StorageError
from altmin_dask.execution.cluster import Cluster
from altmin_dask.execution.faults import LackError, explained_faults
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.alternating import AlternatingMinimization

UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*UNSHARE, "mount -t tmpfs t /mnt"], capture_output=True, check=False).returncode != 0,
    reason="needs a name space of mounts of its own",
)


@pytest.fixture
def store(make_store, samples) -> SampleStore:
    return make_store(samples)


def chunk_file(run: RunFolder, chunk: int) -> Path:
    (file,) = Path(run.latent).glob(f"*.zarr/c.{chunk}.0")
    return file


def flip(file: Path, byte: int = 40) -> bytes:
    before = file.read_bytes()
    changed = bytearray(before)
    changed[byte] ^= 8
    file.write_bytes(bytes(changed))
    return before


def test_z_is_kept_once(pipeline, store, tmp_path):
    """The old generation goes when the new one is committed."""
    for schedule in ("batch", "incremental"):
        run, state, _ = train(pipeline(store.path, training={"schedule": schedule}), tmp_path / schedule)
        files = list(Path(run.latent).rglob("c.*"))
        assert len(files) == store.n_chunks
        assert (state.algorithm_state.generations == 3).all()


@pytest.mark.parametrize(("schedule", "harm"), taking_turns(["batch", "incremental"], [flip, Path.unlink]))
def test_damaged_z_is_made_anew(pipeline, store, tmp_path, schedule, harm):
    settings = {"schedule": schedule, "group_chunks": 2}
    run, _, before = train(pipeline(store.path, training={**settings, "max_sweeps": 2.0}), tmp_path / "run")
    harm(chunk_file(run, 3))
    longer = pipeline(store.path, training={**settings, "max_sweeps": 4.0})
    with pytest.warns(RepairWarning, match=r"chunk 3 of z in .*(checksum|missing); it is made anew"):
        run, state, records = train(longer, tmp_path / "run", resume=True)
    assert not state.algorithm_state.stale
    order = np.random.default_rng([0, 1]).permutation(store.n_chunks)
    groups = [list(order[i : i + 2]) for i in range(0, store.n_chunks, 2)]
    if schedule == "batch":
        groups = [list(range(store.n_chunks))]
    total, seen = sums_on_disk(run, state, store, groups, [0.1, 0.1], 0.01)
    assert records[-1].relaxed_objective == pytest.approx(total / seen, rel=1e-9)
    assert records[-1].nested_loss < before[-1].nested_loss


def test_chunks_that_are_damaged_together_are_made_anew_together(
    pipeline, make_store, samples, tmp_path, monkeypatch
):
    """As a disk leaves them; the sums are made anew once, and not for each."""
    store, settings = make_store(samples, chunk_rows=10), {"schedule": "incremental", "group_chunks": 4}
    run, _, _ = train(pipeline(store.path, training={**settings, "max_sweeps": 1.0}), tmp_path / "run")
    for chunk in range(0, store.n_chunks, 2):
        chunk_file(run, chunk).unlink()
    summed, collect = [], AlternatingMinimization._collect

    def counted(self, group, generation):
        summed.append(group)
        return collect(self, group, generation)

    monkeypatch.setattr(AlternatingMinimization, "_collect", counted)
    longer = pipeline(store.path, training={**settings, "max_sweeps": 2.0})
    with pytest.warns(
        RepairWarning,
        match=r"chunk \d+ of z in .* is missing, and 9 more are lost or altered; they are made anew",
    ):
        run, state, records = train(longer, tmp_path / "run", resume=True)
    assert summed == list(range(5))
    order = np.random.default_rng([0, 1]).permutation(store.n_chunks)
    total, seen = sums_on_disk(run, state, store, np.split(order, 5), [0.1, 0.1], 0.01)
    assert records[-1].relaxed_objective == pytest.approx(total / seen, rel=1e-9)


@pytest.mark.slow
def test_z_is_damaged_once_more_while_its_sums_are_made_anew(pipeline, store, tmp_path, monkeypatch):
    run, _, _ = train(pipeline(store.path, training={"max_sweeps": 1.0}), tmp_path / "run")
    chunk_file(run, 3).unlink()
    again, collect = [4, 5], AlternatingMinimization._collect

    def damaging(self, group, generation):
        if again:
            chunk_file(run, again.pop()).unlink()
        return collect(self, group, generation)

    monkeypatch.setattr(AlternatingMinimization, "_collect", damaging)
    with pytest.warns(RepairWarning, match="made anew"):
        _, state, _ = train(pipeline(store.path), tmp_path / "run", resume=True)
    assert not state.algorithm_state.stale
    assert again == []


@pytest.mark.parametrize("schedule", slow_but(["batch"], ["batch", "incremental"]))
def test_z_that_a_power_failure_has_taken_is_made_anew(schedule, pipeline, store, tmp_path):
    """Names are on the disk, as the commit is, and nothing in the files; so it is with what comes after the commit."""
    settings = {"schedule": schedule, "max_sweeps": 1.0}
    run, state, before = train(pipeline(store.path, training=settings), tmp_path / "run")
    (committed,) = Path(run.latent).iterdir()
    shutil.copytree(committed, LatentStore(run.latent, 0, 0, 0, "").location(2))  # of a step that was cut off
    for file in Path(run.latent).rglob("*"):
        if file.is_file():
            os.truncate(file, 0)
    longer = pipeline(store.path, training={**settings, "max_sweeps": 3.0})
    with pytest.warns(RepairWarning, match=rf"is missing, and {store.n_chunks - 1} more are .* made anew"):
        _, state, records = train(longer, tmp_path / "run", resume=True)
    assert not state.algorithm_state.stale
    assert records[-1].nested_loss < before[-1].nested_loss


def test_a_repair_that_was_cut_off_is_finished(pipeline, store, tmp_path):
    run, state, _ = train(pipeline(store.path), tmp_path / "run")
    whole = state.algorithm_state.statistics.vector.copy()
    state.algorithm_state.statistics.vector[:] = 0
    state.algorithm_state.stale = True
    run.commit(state.to_tensors(), state.to_scalars())
    _, state, _ = train(pipeline(store.path), tmp_path / "run", resume=True)
    assert not state.algorithm_state.stale
    np.testing.assert_allclose(state.algorithm_state.statistics.vector[5:], whole[5:], rtol=1e-9, atol=1e-9)


def test_damaged_samples_are_named_and_can_be_put_back(pipeline, make_store, samples, tmp_path):
    store = make_store(samples)
    whole, _, _ = train(pipeline(store.path), tmp_path / "whole")
    train(pipeline(store.path, training={"max_sweeps": 1.0}), tmp_path / "run")
    file = Path(store.path, "x", "c", "2", "0")
    content = flip(file)
    with pytest.raises(ChunkError, match=r"chunk 2 of .*samples.zarr/x does not match its checksum"):
        train(pipeline(store.path), tmp_path / "run", resume=True)
    file.unlink()
    with pytest.raises(ChunkError, match=r"chunk 2 of .*samples.zarr/x is missing"):
        train(pipeline(store.path), tmp_path / "run", resume=True)
    file.write_bytes(content)
    run, _, _ = train(pipeline(store.path), tmp_path / "run", resume=True)
    assert run.weights.read_bytes() == whole.weights.read_bytes()


@pytest.mark.slow
def test_two_trainings_in_one_folder(altmin, tmp_path):
    foreign(tmp_path / "s.zarr", np.tile(X, (20, 1)))
    write_pipeline(tmp_path / "p.toml", tmp_path / "s.zarr", training={"max_sweeps": 1e6})
    first = start("train", "p.toml", "--run", "run", cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not RunFolder(tmp_path / "run").started:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for more in ([], ["--resume"]):
            refused(
                altmin("train", "p.toml", "--run", "run", *more),
                "exists already" if not more else "another process is training",
            )
    finally:
        first.kill()
        first.communicate()
    outcome = altmin("train", "p.toml", "--run", "run", "--resume", "training.max_sweeps=1")
    assert outcome.code == 0, outcome.err


def test_a_lock_is_refused_at_once_and_goes_with_its_process(tmp_path):
    run = RunFolder(tmp_path / "run")
    with run.locked(), pytest.raises(ExistsError, match="another process is training"), run.locked():
        pass
    assert not any(run.path.iterdir())
    with run.locked():
        pass


@pytest.mark.slow
def test_a_kill_during_ingest_leaves_a_run_that_resumes(altmin, tmp_path):
    """The folder is claimed before its data are made."""
    np.save(tmp_path / "x.npy", np.zeros((4_000_000, 8), np.float32))
    write_pipeline(tmp_path / "p.toml", tmp_path / "x.npy", data={"chunk_rows": 1000})
    process = start("train", "p.toml", "--run", "run", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/data/.*partial*/x/c/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    refused(altmin("train", "p.toml", "--run", "run"), "go on with it by --resume")
    assert altmin("train", "p.toml", "--run", "run", "--resume").code == 0
    assert not list(tmp_path.glob("run/data/.*"))


@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "mount -t tmpfs -o size=300k t run",
            "mount -o remount,size=100m t run",
            "No space left on device; make room",
        ),
        (
            # made elsewhere and moved: nothing is open in it yet
            "mkdir ro; mount --bind run ro; mount -o remount,bind,ro ro; "
            "(until [ -s run/history.jsonl ]; do sleep 0.1; done; mount --move ro run) &",
            "wait; umount run",
            "Read-only file system",
        ),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_no_more(tmp_path, before, after, message):
    """A real full disk, and a real one that becomes read-only while it is used."""
    foreign(tmp_path / "s.zarr", np.tile(X, (30, 4)))
    write_pipeline(tmp_path / "p.toml", tmp_path / "s.zarr", training={"max_sweeps": 1e6})
    (tmp_path / "run").mkdir()
    command = f"{sys.executable} -m altmin_dask train p.toml --run run"
    script = f"""{before}
        if {command}; then exit 9; fi
        {after}
        {command} --resume training.max_sweeps=1
    """
    home = str(Path(runs.__file__).parents[1])
    done = subprocess.run(
        [*UNSHARE, script],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": home},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("altmin: ") == 1
    assert message in done.stderr
    again = "go on by `altmin train p.toml --run run --resume`"
    assert again in done.stderr or message.startswith("Read-only")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@needs_mounts
def test_a_disk_that_is_full_is_named_where_samples_or_predictions_are_written(tmp_path):
    """It was called "a file"; and nothing is left of what was begun."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((20_000, 8)))
    write_pipeline(tmp_path / "p.toml", tmp_path / "x.npy", training={"max_sweeps": 1})
    (tmp_path / "full").mkdir()
    command = f"{sys.executable} -m altmin_dask"
    script = f"""{command} train p.toml --run run
        mount -t tmpfs -o size=300k t full
        if {command} ingest x.npy full/s.zarr; then exit 9; fi
        if {command} predict run x.npy full/p.npy; then exit 9; fi
        if {command} predict run x.npy full/p.csv; then exit 9; fi
        [ -z "$(ls -A full)" ]
    """
    done = subprocess.run(
        [*UNSHARE, script],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "No space left" in line]
    places = [f"full/{name}" for name in ("s.zarr", "p.npy", "p.csv")]
    assert len(said) == len(places), done.stderr
    for line, place in zip(said, places, strict=True):
        assert f"{place} cannot be written: No space left on device, in " in line
        assert line.endswith("make room on the disk")
    assert "Traceback" not in done.stderr


def test_a_file_that_a_disk_does_not_give_in_time_is_named():
    """And is no lost scheduler, of which Dask says the same without a number."""
    late = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), "/nfs/x.zarr/c/0")
    with (
        pytest.raises(StorageError, match=r"^/nfs/x\.zarr/c/0: Connection timed out; what was committed"),
        _explained(),
    ):
        raise late
    with pytest.raises(FaultError, match="the connection to the Dask scheduler is lost"), _explained():
        raise TimeoutError
    with Client(n_workers=0, processes=False, dashboard_address=":0") as client:
        assert not Cluster(client, patience=0.1).recovers(late)


@pytest.mark.parametrize(
    ("command", "method", "error", "sentence"),
    [
        pytest.param(
            "plan",
            "resources",
            CommClosedError("in <TCP>: Stream is closed"),
            "the connection to the",
            marks=pytest.mark.slow,
        ),
        (
            "train",
            "compute",
            OSError("Timed out trying to connect to tcp://a:1"),
            "the connection to the Dask sched",
        ),
        pytest.param(
            "evaluate",
            "first",
            LackError("there has been no worker for 1 s (cluster.patience)"),
            "there has been no worker",
            marks=pytest.mark.slow,
        ),
        (
            "predict",
            "first",
            FutureCancelledError("k", "scheduler-restart"),
            "somebody restarted the workers",
        ),
    ],
)
def test_a_cluster_that_fails_where_nothing_can_be_gone_on_with(
    command, method, error, sentence, altmin, trained, cluster_address, monkeypatch
):
    """A plan, a run that is being prepared, and what is done with a model: all that is to be done is to do it again."""

    def lost(self, *arguments):
        raise error

    monkeypatch.setattr(Cluster, method, lost)
    model, samples, file = (trained / name for name in ("autoencoder", "samples.zarr", "autoencoder.toml"))
    words = {
        "plan": (file,),
        "train": (file, "--run", "run", "network.initialization=whitened"),
        "evaluate": (model, samples),
        "predict": (model, samples, "p.npy"),
    }[command]
    done = altmin(command, *words, "--scheduler", cluster_address)
    assert done.code == 1
    assert done.err.startswith(f"altmin: {sentence}")
    assert done.err.endswith("; then do this again\n")
    assert "--resume" not in done.err


def test_a_task_that_kills_its_workers_is_told_of(cluster_address):
    task = dask.delayed(os._exit, pure=False)(1, dask_key_name="altmin_newton-1")
    with Client(cluster_address) as client:
        allowed = client.run_on_scheduler(_allow_failures, 0)
        try:
            with (
                pytest.raises(FaultError, match="died over and over while they ran altmin_newton"),
                _explained(),
            ):
                Cluster(client).compute(task)
        finally:
            client.run_on_scheduler(_allow_failures, allowed)


def _explained():
    return explained_faults("here")


def _allow_failures(number, dask_scheduler=None):
    before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, number
    return before


def test_a_cluster_that_stays_without_workers(monkeypatch):
    monkeypatch.setattr("altmin_dask.execution.cluster.POLL_SECONDS", 0.1)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        pytest.raises(
            FaultError, match=r"no worker for 0\.5 s \(cluster.patience\); start some with `dask worker"
        ),
    ):
        Cluster(client, patience=0.5).compute(dask.delayed(sum)([1, 2]))


def test_a_step_waits_for_a_worker(monkeypatch):
    monkeypatch.setattr("altmin_dask.execution.cluster.POLL_SECONDS", 0.1)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        later = threading.Timer(0.5, cluster.scale, [1])
        later.start()
        assert Cluster(client, patience=60).compute(dask.delayed(sum)([1, 2])) == 3
        later.join()
