"""How tests are run, and fixtures: small real stores and a real two-process cluster."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import dask
import numpy as np
import profiles  # noqa: F401 - registers them
import pytest
from command import LABELS, Altmin, Outcome, X, foreign, run_here, write_pipeline
from distributed import Client, LocalCluster
from object_store import running_server, s3
from threadpoolctl import threadpool_info

from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source

# A shell that starts tests in the background (`nohup … &`) has them ignore Ctrl-C, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker for every core that is free to this process, four at most: each makes the fixtures for itself.

    None where all that is asked for are single files or tests, which would wait longer for the workers.
    """
    cores = len(os.sched_getaffinity(0))
    if cores == 1 or all(Path(word.split("::")[0]).is_file() for word in config.args):
        return 0
    return min(cores, 4)


def pytest_report_header() -> list[str]:
    """Tell which kernels multiply matrices here: they round differently."""
    return [
        f"BLAS: {blas['internal_api']} {blas['version']}, {blas.get('architecture', 'unknown')}, {blas['filepath']}"
        for blas in threadpool_info()
        if blas["user_api"] == "blas"
    ]


# Workers of clusters of this process are forks of one that has imported Dask, as real ones import it each for itself;
# and what they look at at all times, idle or not, they look at less often: it took a tenth of a core for each cluster.
dask.config.set(
    {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.admin.tick.interval": "500ms",
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.worker.profile.interval": "500ms",
    }
)

# What is imported and collected, some millions of objects, stays: it is not gone through for garbage meanwhile. (Nor
# frozen after it: Hypothesis asks who refers to generators of random numbers, and of what is frozen nobody is told.)
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


GENERATORS: dict[ModuleType, Any] = {}


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Keep how the import of each module has left its generator `RNG`."""
    for item in items:
        if hasattr(item.module, "RNG"):
            GENERATORS[item.module] = item.module.RNG.bit_generator.state


def pytest_runtest_setup(item: pytest.Function) -> None:
    """Every test draws the same numbers from it, whichever tests went before in this process."""
    if item.module in GENERATORS:
        item.module.RNG.bit_generator.state = GENERATORS[item.module]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SampleStore]:
    """Make a store of given arrays."""

    def make(x: np.ndarray, y: np.ndarray | None = None, chunk_rows: int = 32, **how: Any) -> SampleStore:
        folder = tmp_path_factory.mktemp("store")
        return ingest(
            array_source(x, y), folder / "samples.zarr", chunk_rows=chunk_rows, **{"dtype": "float64", **how}
        )

    return make


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    """200 samples of 12 values in [0, 1], of low rank and with a constant column."""
    rng = np.random.default_rng(7)
    x = rng.random((200, 4)) @ rng.random((4, 12))
    x = x / x.max()
    x[:, 3] = 0.0
    return x


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """A scheduler with two worker processes."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        yield cluster.scheduler_address


@pytest.fixture
def pipeline() -> Callable[..., Pipeline]:
    """A small auto-encoder pipeline with tables replaced."""

    def make(train: str | Path, **tables: dict[str, Any]) -> Pipeline:
        settings: dict[str, Any] = {
            "data": {"train": str(train)},
            "network": {"kind": "autoencoder", "hidden_layer_sizes": (5,), "dtype": "float64"},
            "solver": {"mu": 0.1, "ridge": 0.01},
            "training": {"schedule": "incremental", "max_sweeps": 3.0},
            "cluster": {"workers": 2},
        }
        for name, table in tables.items():
            settings[name] = {**settings.get(name, {}), **table}
        return Pipeline.model_validate(settings)

    return make


@pytest.fixture
def altmin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Altmin:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: Any) -> Outcome:
        capsys.readouterr()
        return Outcome(run_here(*words), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trained runs: an autoencoder, a classifier of three classes."""
    home = tmp_path_factory.mktemp("trained")
    foreign(home / "samples.zarr", X, LABELS)
    for kind in ("autoencoder", "classifier"):
        file = write_pipeline(home / f"{kind}.toml", home / "samples.zarr", kind)
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as err:
            code = run_here("train", file, "--run", home / kind)
        assert code == 0, err.getvalue()
    return home


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """An S3 service, one for all tests: clients remember where it is."""
    with running_server() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest) -> str:
    """A bucket of its own."""
    name = f"altmin-{abs(hash(request.node.nodeid))}"
    s3().mkdir(name)
    return f"s3://{name}"
