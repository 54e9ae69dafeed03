"""The plan: its numbers against what the code really makes and takes, what `auto` picks, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import dask
import numpy as np
import pytest
from choices import taking_turns
from command import LABELS, Altmin, X, files_below, foreign, write_pipeline
from dask.callbacks import Callback
from hypothesis import given
from hypothesis import strategies as st

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.execution import task_graphs
from altmin_dask.execution.samples import Samples
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.execution.threads import Threads
from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.networks.network import Network
from altmin_dask.networks.workspace import thread_workspace
from altmin_dask.planning import projection
from altmin_dask.planning.kfac_memory import kfac_task
from altmin_dask.planning.memory import Workload, enter_task, visit_task
from altmin_dask.planning.projection import largest_chunk_rows, project
from altmin_dask.solvers.kernels import enter_chunk, kfac_chunk, visit_chunk
from altmin_dask.solvers.kfac import KFACSettings, KFACState
from altmin_dask.solvers.local_steps import Level, LocalSteps, arrays_of, packed_numbers
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.penalties import L2
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.weights import WeightStore
from altmin_dask.types import Batch

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"
MIB = 1 << 20


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    """The benchmark."""
    spec = importlib.util.spec_from_file_location("benchmark_memory", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


# --- memory, as it is measured


@pytest.mark.slow
@pytest.mark.parametrize("case", ["incremental", "a worker of one thread"])
def test_measured_peaks_lie_within_half_of_the_projection_and_all_of_it(memory, case):
    found = memory.compare(case)
    assert 0.5 <= found["ratio"] <= 1.0, found
    assert found["client_measured"] <= max(found["client_projected"], 1)
    assert found["baseline"] <= projection.BASELINE


@pytest.mark.slow
def test_measured_peaks_of_all_cases(memory):
    """None is above its plan. Which peaks meet is chance, so that the highest of a few runs is what is planned."""
    ratios = {name: [memory.compare(name)["ratio"]] for name in memory.CASES}
    for name, found in ratios.items():
        while max(found) < 0.5 and len(found) < 4:
            found.append(memory.compare(name)["ratio"])
    assert {name: found for name, found in ratios.items() if not 0.5 <= max(found) <= 1.0} == {}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["batch", "incremental"])
def test_memory_does_not_grow_with_the_samples(memory, schedule):
    """Four times the samples add a level of sums that wait, which is planned, and nothing else.

    Five repetitions of each lay within 3 % of each other; 480 MB more of samples and z would show.
    """
    (small, planned), (large, more) = (
        memory.growth(rows, 80_000, 1000, schedule, threads=1) for rows in (20_000, 80_000)
    )
    assert more - planned <= 32 * MIB
    assert large - (more - planned) <= 1.1 * small


# --- memory, array by array


NETS = {
    "autoencoder": ([20, 7, 20], "sigmoid", "squared", "sigmoid"),
    "one layer": ([9, 4], "tanh", "squared", None),
    "deep": ([6, 30, 11, 5, 11, 4], "tanh", "squared", None),
    "classifier": ([12, 8, 6, 3], "relu", "cross_entropy", None),
    "binary": ([10, 16, 2], "softplus", "binary_cross_entropy", None),
}


def workload(network: Network, rows: int, **settings: object) -> Workload:
    return Workload(network=network, rows=rows, chunk_rows=rows, x_bytes=8 * network.sizes[0], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("steps", "rows", "itemsize"), [(1, 300, 8), (2, 1500, 4)])
def test_scratch_arrays_are_those_that_threads_keep(name, incremental, steps, rows, itemsize):
    network = dense_network(*NETS[name])
    rng = np.random.default_rng(0)
    x = rng.random((rows, network.sizes[0]))
    y = rng.integers(0, 2, rows) if name == "classifier" else rng.random((rows, network.widths[-1]))
    weights = network.initial_weights(1, f"f{itemsize}")
    made: dict[str, dict[tuple[str, int, int], int]] = {}

    def collect(kind: str) -> None:
        l2 = L2((1e-3,) * len(network.widths))
        z, _ = enter_chunk(network, weights, l2, Batch(x, y))
        if kind == "visit":
            thread_workspace()._arrays.clear()
            z += 8 * rng.standard_normal(z.shape).astype(z.dtype)  # far off, so that some steps are cut
            settings = NewtonSettings(newton_steps=steps, cg_iterations=2)
            visit_chunk(network, weights, l2, l2, Batch(x, y), z, settings, replace_all=not incremental)
        made[kind] = {
            (name, columns, dtype.itemsize): array.nbytes
            for (name, columns, dtype), array in thread_workspace()._arrays.items()
        }

    for kind in ("enter", "visit"):
        thread = threading.Thread(target=collect, args=(kind,))
        thread.start()
        thread.join()
    work = workload(network, rows, itemsize=itemsize, incremental=incremental, newton_steps=steps)
    for kind, task in (("enter", enter_task(work)), ("visit", visit_task(work))):
        planned = task.scratch
        assert made[kind].keys() <= planned.keys()
        assert all(size <= planned[key] for key, size in made[kind].items())
        cut = {key: size for key, size in planned.items() if key[0].startswith("shortened")}
        assert sum(made[kind].values()) >= 0.8 * (sum(planned.values()) - sum(cut.values()))


@pytest.mark.parametrize("name", [*NETS, "recurrent"])
def test_scratch_arrays_of_increments_with_a_finite_penalty_are_planned(name):
    """Those of the pass, of the z-update, and of residuals that are formed from the step; some steps are cut."""
    rows, rng = 300, np.random.default_rng(0)
    network: Network = recurrent_network(3, 4, (5, 6), 2, (4,))
    if name in NETS:
        network = dense_network(*NETS[name])
    x = rng.random((rows, network.sizes[0]))
    y = rng.integers(0, 2, rows) if name == "classifier" else rng.random((rows, network.widths[-1]))
    weights = tuple(8 * w for w in network.initial_weights(1, "f4"))
    made: dict[tuple[str, int, int], int] = {}

    def collect() -> None:
        settings = NewtonSettings(newton_steps=2)
        kfac_chunk(network, weights, [1e-3] * len(network.widths), Batch(x, y), settings, [0])
        made.update(
            ((name, columns, dtype.itemsize), array.nbytes)
            for (name, columns, dtype), array in thread_workspace()._arrays.items()
        )

    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    work = workload(network, rows, itemsize=4, newton_steps=2, kfac=True, relaxed=True)
    planned = kfac_task(work).scratch
    assert any(key[0].startswith("shortened") for key in made) == (name != "one layer")
    assert made.keys() <= planned.keys()
    assert all(size <= planned[key] for key, size in made.items())


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=5),
    st.integers(1, 5000),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.integers(0, 200),
)
def test_the_largest_chunk_is_the_last_that_fits(sizes, rows, threads, in_process, exact, mebibytes):
    work = Workload(
        dense_network(sizes), rows, 1, 8 * sizes[0], threads=threads, in_process=in_process, exact=exact
    )
    found = largest_chunk_rows(work, mebibytes * MIB)
    peaks = [
        project(replace(work, chunk_rows=n)).worker_peak
        for n in range(max(found, 1), min(found + 2, rows + 1))
    ]
    assert 0 <= found <= rows
    if found:
        assert peaks[0] <= mebibytes * MIB
    if found < rows:
        assert peaks[-1] > mebibytes * MIB


# --- tasks, disk and traffic, as they are


@pytest.mark.parametrize(("chunks", "split_every"), taking_turns([1, 2, 4, 5, 8, 17, 64, 65], [2, 4, 7]))
def test_tasks_of_a_sweep_are_those_of_its_graph(make_store, chunks, split_every):
    network = dense_network([3, 2, 3])
    store = make_store(np.random.default_rng(0).random((2 * chunks, 3)), chunk_rows=2)
    kernel = TaskContext(network, "inputs", "float64")
    latent = LatentStore("/nowhere", store.rows, 5, 2, "float64")
    step = task_graphs.Step(
        kernel, Samples(store, "inputs"), tuple(range(chunks)), "t", "/nowhere/w", split_every
    )
    l2 = L2((1.0, 1.0))
    (graph,) = dask.optimize(task_graphs.visit(step, latent, 0, l2, l2, replace_all=True))
    tasks = [task for task in dict(graph.dask).values() if not isinstance(task, dask._task_spec.DataNode)]
    planned = project(
        Workload(network, store.rows, 2, 24, group_chunks=chunks, split_every=split_every, incremental=False)
    )
    assert planned.tasks == len(tasks)
    statistics = Statistics(network.shapes, with_inputs=False)
    assert planned.task_statistics == statistics.vector.nbytes
    assert planned.group_statistics == chunks * statistics.vector.nbytes


@pytest.mark.parametrize("chunks", [1, 2, 5, 17])
@pytest.mark.parametrize("labels", [False, True])
def test_tasks_of_increments_are_those_that_run(make_store, tmp_path, chunks, labels):
    rng = np.random.default_rng(0)
    store = make_store(
        rng.random((2 * chunks, 3)), rng.integers(0, 3, 2 * chunks) if labels else None, chunk_rows=2
    )
    network = dense_network([3, 2, 3], loss="cross_entropy" if labels else "squared")
    target = "labels" if labels else "inputs"
    weights = WeightStore(str(tmp_path)).publish(network.initial_weights(0, "float32"), "weights", 1)
    step = task_graphs.Step(
        TaskContext(network, target, "float32"),
        Samples(store, target),
        tuple(range(chunks)),
        "t",
        weights,
    )
    threads, seen = Threads(1), []

    def note(key, graph, state):
        if isinstance(graph[key], dask._task_spec.Task):  # no mere alias
            seen.append(key)

    with Callback(pretask=note):
        started = threads.submit(*task_graphs.kfac_sums(step, None, (0,), 2))
        threads.first([started])
        threads.compute(
            task_graphs.quadratic_model(replace(step, token="p"), started.kept(), 2, weights, weights)
        )
    work = Workload(network, store.rows, 2, 24, 8 * labels, group_chunks=chunks, kfac=True, itemsize=4)
    # Dask's own last step may be fused with ours, or not
    assert abs(project(work).tasks - len(seen)) <= 1, seen


@pytest.mark.parametrize("chunks", [1, 2, 5, 17])
def test_tasks_of_rounds_are_those_of_their_graph(make_store, tmp_path, chunks):
    store = make_store(np.random.default_rng(0).random((20 * chunks, 3)), chunk_rows=20)
    network = dense_network([3, 2, 3])
    weights = network.initial_weights(0, "float32")
    arrays = arrays_of(weights, KFACState.start(weights))
    step = task_graphs.Step(
        TaskContext(network, "inputs", "float32"), Samples(store, "inputs"), tuple(range(chunks)), "t", "w"
    )
    how = LocalSteps((Level(KFACSettings(0.1, 0.1), 4, 1),), 20)
    (graph,) = dask.optimize(task_graphs.local_steps(step, packed_numbers(arrays), None, (0, 0), how))
    tasks = [task for task in dict(graph.dask).values() if not isinstance(task, dask._task_spec.DataNode)]
    work = Workload(network, store.rows, 20, 24, group_chunks=chunks, chunk_steps=4, kfac=True, itemsize=4)
    planned = project(work)
    assert planned.tasks == len(tasks)
    assert planned.task_statistics == 8 * graph.shape[-1]


def test_disk_is_what_a_run_takes(altmin: Altmin, tmp_path):
    x = np.random.default_rng(0).random((3000, 40), dtype="f4")
    np.savez(tmp_path / "x.npz", x=x)
    write_pipeline(
        tmp_path / "job.toml",
        "x.npz",
        network={"dtype": "float32"},
        data={"chunk_rows": 500},
        training={"max_sweeps": 1},
    )
    planned = json.loads(altmin("plan", "job.toml", "--json").out)
    assert altmin("train", "job.toml", "--run", "run").code == 0
    data, z = (
        sum(f.stat().st_size for f in Path("run", part).rglob("*") if f.is_file() and f.suffix != ".json")
        for part in ("data", "z")
    )
    assert planned["data_disk"] == pytest.approx(data, rel=0.01)
    # when a run has ended there is no next generation of a group
    assert planned["z_disk"] - 500 * 45 * 4 == pytest.approx(z, rel=0.01)
    assert planned["sweep_read"] == 3000 * (40 + 45) * 4
    assert planned["sweep_written"] == 3000 * 45 * 4
    assert (planned["chunk_rows"], planned["chunks"], planned["groups"]) == (500, 6, 6)


# --- the command


def test_plan_tells_everything_and_writes_nothing(altmin: Altmin, tmp_path):
    foreign(tmp_path / "samples.zarr", X, LABELS)
    write_pipeline(tmp_path / "job.toml", "samples.zarr", "classifier", cluster={"memory_limit": "2 GiB"})
    before = files_below(tmp_path)
    done = altmin("plan", "job.toml")
    assert (done.code, done.err) == (0, "")
    for words in (
        "6-5-3",
        "rows in a chunk",
        "groups of chunks",
        "tasks a sweep",
        "peak memory of a task",
        "peak memory of this process",
        "2 threads of this process",
        "2.00 GiB",
        "samples on disk",
        "z on disk",
        "read a sweep",
        "written a sweep",
        "statistics of a task",
        "statistics of a group",
        "yes",
    ):
        assert words in done.out, words
    done = altmin("plan", "job.toml", "cluster.workers=3", "--set", "training.schedule=batch", "--json")
    numbers = json.loads(done.out)
    assert (numbers["threads"], numbers["groups"], numbers["memory_limit"], numbers["fits"]) == (
        3,
        1,
        2 << 30,
        True,
    )
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("float64", 8)])
def test_plan_of_sources_reads_labels_and_nothing_else(altmin: Altmin, tmp_path, dtype, itemsize):
    np.savez(tmp_path / "a.npz", x=X, y=LABELS * 2)
    (tmp_path / "b.npy").write_bytes(b"")
    np.save(tmp_path / "b.npy", X)
    with (tmp_path / "b.npy").open("r+b") as file:
        file.truncate(file.seek(0, 2))
    write_pipeline(
        tmp_path / "job.toml", "a.npz", "classifier", data={"validation": "a.npz"}, network={"dtype": dtype}
    )
    before = files_below(tmp_path)
    done = altmin("plan", "job.toml", "--json")
    assert (done.code, done.err) == (0, "")
    numbers = json.loads(done.out)
    assert numbers["network"] == [6, 5, 3]
    assert numbers["data_disk"] == 2 * 60 * (6 * itemsize + 8) + 8 * 60  # and which row is where
    assert files_below(tmp_path) == before


def test_plan_tells_what_ingest_of_a_table_takes(altmin: Altmin, tmp_path):
    """By the largest part of it, a chunk on its way, and what is shuffled; and refuses what cannot be."""
    rows = 20_000
    lines = [f"{row}.5,{row % 7}.25,{row % 2}" for row in range(rows)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    write_pipeline(tmp_path / "job.toml", "t.csv", "classifier", data={"chunk_rows": 100})
    numbers = json.loads(altmin("plan", "job.toml", "--json").out)
    reading = 6 * 3 * 8 * rows + 2 * 8 * 3 * rows  # three columns as they are parsed, and as numbers
    chunk = 100 * (3 * 8 + 3 * (2 * 8 + 8 + 8))
    bucket = rows * (2 * 8 + 8 + 8)
    allowance = 8 << 20
    assert numbers["ingest_memory"] == (200 << 20) + round(1.05 * (allowance + reading + chunk + bucket))
    assert "peak memory of ingest" in altmin("plan", "job.toml").out
    done = altmin("plan", "job.toml", "cluster.memory_limit=340 MiB")
    assert (done.code, "to ingest data.train" in done.err) == (2, True), done.err
    altmin("ingest", "t.csv", "t.zarr")
    write_pipeline(tmp_path / "job.toml", "t.zarr", "classifier")
    numbers = json.loads(altmin("plan", "job.toml", "--json").out)
    assert numbers["ingest_memory"] == 0


def test_plan_on_a_running_cluster(altmin: Altmin, tmp_path, cluster_address):
    foreign(tmp_path / "samples.zarr", X)
    write_pipeline(tmp_path / "job.toml", "samples.zarr")
    done = altmin("plan", "job.toml", "--scheduler", cluster_address, "--json")
    assert (done.code, done.err) == (0, "")
    numbers = json.loads(done.out)
    assert (numbers["workers"], numbers["threads"]) == (2, 1)
    assert numbers["client_peak"] > 0
    assert 0 < numbers["memory_limit"] <= projection.MEMORY_LIMIT


def test_limits_of_a_local_cluster_are_those_dask_gives(altmin: Altmin, tmp_path):
    foreign(tmp_path / "samples.zarr", X)
    write_pipeline(tmp_path / "job.toml", "samples.zarr", cluster={"kind": "local", "threads_per_worker": 1})
    numbers = json.loads(altmin("plan", "job.toml", "--json").out)
    cores = dask.system.CPU_COUNT
    assert numbers["memory_limit"] == pytest.approx(projection.MEMORY_LIMIT / cores, rel=1e-6)
    numbers = json.loads(altmin("plan", "job.toml", "cluster.memory_limit=1.5 GiB", "--json").out)
    assert numbers["memory_limit"] == 3 << 29


# --- chunks that are picked


def test_auto_picks_chunks_that_fit_and_keep_threads_busy(altmin: Altmin, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((4000, 300), dtype="f4"))
    write_pipeline(tmp_path / "job.toml", "x.npz", data={"chunk_rows": "auto"})
    roomy = json.loads(altmin("plan", "job.toml", "--json").out)
    assert roomy["chunk_rows"] == 4000 // (projection.CHUNKS_PER_THREAD * 2)
    assert roomy["fits"]
    limit = f"cluster.memory_limit={int((roomy['worker_memory'] - 2 * MIB) / projection.USABLE)}B"
    tight = json.loads(altmin("plan", "job.toml", limit, "--json").out)
    assert 0 < tight["chunk_rows"] < roomy["chunk_rows"]
    assert tight["fits"]
    done = altmin("train", "job.toml", "--run", "run", limit, "training.max_sweeps=0.1")
    assert (done.code, done.err) == (0, "")
    assert SampleStore.open("run/data/train.zarr").chunk_rows == tight["chunk_rows"]
    # what was made stays as it is, even if `auto` would now be another number
    done = altmin("train", "job.toml", "--run", "run", "--resume", "training.max_sweeps=0.2")
    assert (done.code, done.err) == (0, "")


def test_auto_makes_tasks_of_about_a_second():
    work = Workload(dense_network((784, 300, 784)), 10_000_000, 1, 3136, workers=2)
    wide = Workload(dense_network((784, 3000, 784)), 10_000_000, 1, 3136, workers=2)
    assert 1000 < projection.task_rows(work) < 20_000
    assert 1 <= projection.task_rows(wide) < projection.task_rows(work) / 5
    assert projection.task_rows(replace(work, rows=1)) == 1


# --- what cannot fit
