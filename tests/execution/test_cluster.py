"""A cluster of real processes, started by the ordinary `dask scheduler` and `dask worker` commands."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import certificates
from command import Altmin, refused, start, write_pipeline
from distributed import Client
from safetensors.numpy import load_file

from altmin_dask import runs
from altmin_dask.config import ClusterTable, load_pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.execution.cluster import LOCAL_LATENCY, Cluster
from altmin_dask.execution.connect import open_executor
from altmin_dask.networks.builders import dense_network
from altmin_dask.storage import weights as weights_module
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore

HOME = str(Path(weights_module.__file__).parents[2])
CHUNKS, GROUP = 12, 4


class Processes:
    """One `dask scheduler` and its `dask worker`s; all of them are ended with the object."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.started = folder, list[subprocess.Popen[bytes]]()
        self.environment = {**os.environ, "PYTHONPATH": HOME, **environment}
        self.address = ""

    def start(self, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{words[0]}-{len(self.started)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "dask", *words],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        return process

    def scheduler(self, protocol: str = "tcp") -> str:
        file = self.folder / "scheduler.json"
        self.start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--protocol",
            protocol,
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(file),
        )
        self.address = until(lambda: json.loads(file.read_text())["address"])
        return self.address

    def worker(self, name: str, *options: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        return self.start(
            "worker",
            self.address,
            "--name",
            name,
            "--no-nanny",
            "--nthreads",
            "1",
            "--no-dashboard",
            "--local-directory",
            str(self.folder),
            *options,
            prefix=prefix,
        )

    def end(self) -> None:
        for process in reversed(self.started):
            process.kill()
        for process in self.started:
            process.wait(timeout=30)


@contextmanager
def processes(folder: Path, **environment: str) -> Iterator[Processes]:
    folder.mkdir(exist_ok=True)
    running = Processes(folder, **environment)
    try:
        yield running
    finally:
        running.end()


def until(found: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value, which has to come in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = found()
        except (OSError, ValueError):  # a file that is not there yet, or not whole
            value = None
        if value:
            return value
        time.sleep(0.005)
    pytest.fail("waited in vain")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A scheduler and two workers; tests leave it as they find it."""
    with processes(tmp_path_factory.mktemp("cluster")) as running:
        running.scheduler()
        running.worker("first")
        running.worker("second")
        with Client(running.address) as client:
            client.wait_for_workers(2, timeout=60)
        yield running


@pytest.fixture(scope="module")
def store(make_store: Callable[..., SampleStore]) -> str:
    x = np.random.default_rng(5).random((CHUNKS * 25, 6)) @ np.random.default_rng(6).random((6, 20))
    return make_store(x / x.max(), chunk_rows=25).path


@pytest.fixture(scope="module")
def expected(store: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], dict[str, Any]]:
    """What threads commit at the end of so many sweeps."""
    found: dict[float, dict[str, Any]] = {}

    def give(sweeps: float) -> dict[str, Any]:
        if sweeps not in found:
            folder = tmp_path_factory.mktemp("threads")
            settings, run = load_pipeline(pipeline(folder, store, sweeps)), RunFolder(folder / "run")
            runs.train(settings, run, log=lambda line: None)
            found[sweeps] = committed(folder / "run")
        return found[sweeps]

    return give


def pipeline(folder: Path, store: str, sweeps: float, **tables: Any) -> Path:
    training = {"schedule": "windows", "first_window": 2, "group_chunks": GROUP, "max_sweeps": sweeps}
    network = {"hidden_layer_sizes": [7], "initialization": "whitened"}
    return write_pipeline(
        folder / "pipeline.toml", store, training=training, network=network, solver={"mu": 0.1}, **tables
    )


def committed(run: Path) -> dict[str, Any]:
    """All arrays of the last commit: weights, and the statistics, which are those of all z."""
    return load_file(max((run / "state").glob("*.safetensors")))


def identical(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_cluster_gives_the_same_bits_as_threads(cluster, store, expected, altmin, tmp_path):
    trained(altmin, pipeline(tmp_path, store, 3), tmp_path / "run", "--scheduler", cluster.address)
    assert identical(committed(tmp_path / "run"), expected(3))


def trained(altmin: Altmin, *words: Any) -> None:
    file, run, *options = words
    outcome = altmin("train", file, "--run", run, *options)
    assert outcome.code == 0, outcome


@pytest.mark.slow
def test_a_local_cluster_is_made_as_asked(store, expected, altmin, tmp_path):
    table = {
        "kind": "local",
        "workers": 2,
        "threads_per_worker": 2,
        "memory_limit": "600 MiB",
        "dashboard": ":0",
    }
    file = pipeline(tmp_path, store, 3, cluster=table)
    with open_executor(load_pipeline(file).cluster) as executor:
        assert isinstance(executor, Cluster)
        workers = executor.client.scheduler_info(n_workers=-1)["workers"].values()
        assert [(worker["nthreads"], worker["memory_limit"]) for worker in workers] == [(2, 600 << 20)] * 2
    trained(altmin, file, tmp_path / "run")
    assert identical(committed(tmp_path / "run"), expected(3))


@pytest.mark.slow
def test_workers_join_and_leave_while_a_run_goes_on(store, expected, tmp_path):
    """Two join, one leaves in good order, one is killed: nothing of it shows."""
    run = tmp_path / "run"

    def steps() -> int:
        return max((int(file.stem) for file in (run / "state").glob("*.safetensors")), default=0)

    with processes(tmp_path / "cluster") as running:
        running.scheduler()
        first, second = running.worker("first"), running.worker("second")
        words = ("train", pipeline(tmp_path, store, 1e6), "--run", run, "--scheduler", running.address)
        training = start(*words)
        with Client(running.address) as client:
            until(lambda: steps() > 5)
            running.worker("third")
            running.worker("fourth")
            client.wait_for_workers(4, timeout=60)
            first.send_signal(signal.SIGTERM)
            until(lambda: first.poll() is not None)
            reached = steps()
            until(lambda: steps() > reached + 3)
            time.sleep(np.random.default_rng(0).uniform(0, 0.1))  # anywhere in a step
            second.kill()
            reached = steps()
            until(lambda: steps() > reached + 3)
            names = {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=60)
    assert names == {"third", "fourth"}
    assert "interrupted" in err
    state = restore(RunFolder(run))
    assert identical(committed(run), expected(state.visits / (CHUNKS * 25) - 1e-6))


@pytest.mark.slow
def test_weights_are_read_once_by_a_worker_and_update(cluster, store, altmin, tmp_path):
    def uses() -> tuple[int, int]:  # in a worker; nested, so that it travels by value
        from altmin_dask.storage import weights

        info = weights._read.cache_info()
        return info.hits + info.misses, info.misses

    with Client(cluster.address) as client:
        before = client.run(uses)
        trained(altmin, pipeline(tmp_path, store, 3), tmp_path / "run", "--scheduler", cluster.address)
        after = client.run(uses)
    # a commit goes before each step that reads weights
    steps = max(int(file.stem) for file in (tmp_path / "run" / "state").glob("*.safetensors")) + 1
    wanted, read = ([after[worker][i] - before[worker][i] for worker in after] for i in range(2))
    assert len(read) == 2
    assert sum(wanted) > 3 * steps, "steps of too few tasks to see anything"
    files = steps + 1  # and the model that is kept, which is measured at the end
    assert all(0 < times <= files for times in read), (read, files)


def test_threads_of_a_worker_read_weights_once_between_them(tmp_path):
    network = dense_network([2000, 2000], "identity", "squared", "identity")
    Model("regressor", network, network.initial_weights(0), (2000,)).save(tmp_path)
    file = tmp_path / "weights.safetensors"
    weights_module._read.cache_clear()
    barrier = threading.Barrier(8)

    def read() -> None:
        barrier.wait()
        weights_module.read_weights(file)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert weights_module._read.cache_info().misses == 1


def blind(*paths: Path) -> tuple[str, ...]:
    """The start of a command that sees empty folders in place of `paths`, as on another machine."""
    mounts = " && ".join(f"mount -t tmpfs none '{path}'" for path in paths)
    return ("unshare", "-rm", "sh", "-c", f'{mounts} && exec "$0" "$@"')


def can_unshare() -> bool:
    try:
        command = [*blind(Path("/mnt")), "true"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not can_unshare(), reason="needs unshare -rm, to mount over a folder in one process only")
@pytest.mark.parametrize("hidden", ["runs", pytest.param("data", marks=pytest.mark.slow)])
def test_a_worker_without_the_shared_folders_is_named(hidden, samples, altmin, tmp_path):
    for name in ("runs", "data"):
        (tmp_path / name).mkdir()
    store = ingest(array_source(samples), tmp_path / "data" / "samples.zarr", chunk_rows=32, dtype="float64")
    file = write_pipeline(tmp_path / "pipeline.toml", store.path)
    with processes(tmp_path / "cluster") as running:
        running.scheduler()
        running.worker("elsewhere", prefix=blind(tmp_path / hidden))
        outcome = altmin("train", file, "--run", tmp_path / "runs" / "run", "--scheduler", running.address)
    refused(outcome, {"runs": "do not see", "data": f"sees no array at {store.path}"}[hidden])


@pytest.mark.slow
def test_a_worker_that_cannot_import_the_package_is_named(store, altmin, tmp_path):
    (tmp_path / "altmin_dask").mkdir()
    missing = "raise ModuleNotFoundError(\"No module named 'altmin_dask'\")"
    (tmp_path / "altmin_dask" / "__init__.py").write_text(missing)
    with processes(tmp_path / "cluster", PYTHONPATH=str(tmp_path)) as running:
        running.scheduler()
        running.worker("bare")
        file = pipeline(tmp_path, store, 1)
        outcome = altmin("train", file, "--run", tmp_path / "run", "--scheduler", running.address)
    refused(outcome, "No module named 'altmin_dask'")
    assert "install" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_tls(store, expected, altmin, tmp_path):
    """Certificates reach the client by Dask's own configuration; without them the address is refused."""
    certificates(tmp_path)
    environment = {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(tmp_path / "ca.pem"),
    }
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        environment[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(tmp_path / "node.pem")
        environment[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(tmp_path / "node.key")
    with processes(tmp_path / "cluster", **environment) as running:
        assert running.scheduler("tls").startswith("tls://")
        running.worker("first")
        file, where = pipeline(tmp_path, store, 3), ("--scheduler", running.address)
        process = start("train", file, "--run", tmp_path / "run", *where, env=environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        assert identical(committed(tmp_path / "run"), expected(3))
        # this process has no certificates
        refused(altmin("train", file, "--run", tmp_path / "other", *where), running.address)
        assert not (tmp_path / "other").exists()


def test_latency_is_measured_once_and_rounded(cluster_address, monkeypatch):
    """On a cluster of others; where it is not to be had, training begins all the same."""
    with open_executor(ClusterTable(), cluster_address) as cluster:
        measured = cluster.resources().latency
        assert 1e-3 <= measured < 10
        assert math.log2(measured / 1e-3) == round(math.log2(measured / 1e-3))
        monkeypatch.setattr(Cluster, "_empty_step", lambda self: pytest.fail("measured again"))
        assert cluster.resources().latency == measured
        cluster._measured = None
        monkeypatch.setattr(Cluster, "_empty_step", _cancelled)
        assert cluster.resources().latency == LOCAL_LATENCY


def _cancelled(self: Cluster) -> float:
    raise CancelledError


@pytest.mark.parametrize(
    ("steps", "latency"),
    [([0.9, 0.3, 0.02, 0.5, 0.4], 0.032), ([7.0], LOCAL_LATENCY), ([2.0] * 3, LOCAL_LATENCY)],
)
def test_the_tasks_of_others_are_no_latency(steps, latency, cluster_address, monkeypatch):
    """The quickest step counts, and where all have waited for a free thread, none: groups keep their size for good."""
    taken = iter(steps)
    monkeypatch.setattr(Cluster, "_empty_step", lambda self: next(taken))
    with Client(cluster_address, set_as_default=False) as client:
        assert Cluster(client).resources().latency == latency
    assert list(taken) == []


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_workers_that_load_ours_keep_memory(tmp_path):
    """As Dask's nannies have it, each array is returned as it is freed."""
    size, times = 4 << 20, 50
    pages = size // resource.getpagesize() * times

    def taken() -> tuple[int, Any]:
        import resource

        import zarr

        bytearray(size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(times):
            bytearray(size)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        return faults, zarr.config.get("threading.max_workers", None)

    with processes(tmp_path / "cluster", MALLOC_TRIM_THRESHOLD_="65536") as running:
        running.scheduler()
        running.worker("plain")
        running.worker("ours", "--preload", "altmin_dask.worker")
        with Client(running.address) as client:
            client.wait_for_workers(2, timeout=60)
            names = {address: each["name"] for address, each in client.scheduler_info()["workers"].items()}
            found = {names[each]: of for each, of in client.run(taken).items()}
    assert found["plain"][0] > 0.9 * pages
    assert found["ours"][0] < 0.1 * pages
    assert (found["plain"][1], found["ours"][1]) == (None, 1)
