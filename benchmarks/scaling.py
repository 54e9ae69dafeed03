"""What Dask costs beside the same work in a plain loop, what a second worker brings, and what a thousand would.

In one run, on a store of random samples: (a) a sweep over all chunks on a local cluster of one worker against the same
kernels in a loop over the same chunks, reading and writing the same arrays; (b) the same sweep on two workers; (c) the
measured seconds and bytes replayed by `simulation.py` on 1 … 1,024 workers, where network and shared storage are
arguments. The rounds of loop, one and two workers take turns, and the medians are printed. CPU seconds are those of
this process and all its children. Two workers can only be nearly twice as fast if two cores are free.

Replayed are sweeps of z that persists (a batch; as many chunks a worker; W after every group) and steps of KFACSteps,
the default: a step of about 2,000 samples, which is one chunk of the default size, so that one worker computes and
all others wait ("default"); the same step cut into a chunk a worker, each of which takes that share of its time
("cut": a bound, small tasks are slower than that); and a whole chunk a worker ("grown": what a step of so many samples
is worth is another question, see `staleness.py`). Bytes of x and z are those of the arrays; what compression saves is
left out.

    python benchmarks/scaling.py [--rows 80000] [--chunk-rows 5000] [--hidden 300] [--rounds 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import dask.array as da
import numpy as np
import psutil
from increment_costs import DefaultStep, default_step
from opening import add_options, line, opening
from simulation import Costs, cut, efficiency, losses, seconds, storage_cap

from altmin_dask.config import ClusterTable, Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.connect import open_executor
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.task_graphs import Step, enter, per_chunk, tree_sum, visit
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.solvers.kernels import VisitSums, visit_chunk
from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.penalties import L2
from altmin_dask.solvers.ridge import ridge_system
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.weights import read_weights
from altmin_dask.training.alternating_state import AlternatingState
from altmin_dask.training.checkpoint import Checkpoint
from altmin_dask.training.problem import build_problem
from altmin_dask.types import Batch

MU = 0.03
SIZES = (1, 8, 32, 128, 512, 1024)


class Bench:
    """A store, its z as generation 0, and three ways to make generation 1 of it."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.split_every = folder, options.split_every
        x = np.random.default_rng(0).random((options.rows, options.features), dtype=np.float32)
        self.store: SampleStore = ingest(array_source(x), folder / "x.zarr", chunk_rows=options.chunk_rows)
        self.pipeline = Pipeline.model_validate(
            {
                "data": {"train": self.store.path},
                "network": {"kind": "autoencoder", "hidden_layer_sizes": [options.hidden]},
                "solver": {"mu": MU},
            }
        )
        self.chunks = tuple(range(self.store.n_chunks))
        self.steps = 0

    def prepare(self, executor: Executor) -> None:
        """Weights on disk, and z."""
        self.problem = build_problem(self.pipeline, self.store, None, executor)
        self.samples, self.kernel = self.problem.train, self.problem.task_context
        network = self.kernel.network
        self.penalty = L2((MU,) * len(network.widths))
        self.run = RunFolder(self.folder / "run")
        self.run.path.mkdir()
        statistics = Statistics(network.shapes, with_inputs=True)
        state = AlternatingState(network.initial_weights(0), statistics, np.zeros(1, dtype=np.int64))
        self.checkpoint = Checkpoint(state)
        self.weights = str(self.run.commit(self.checkpoint.to_tensors(), self.checkpoint.to_scalars()))
        widths = sum(network.widths)
        self.latent = LatentStore(
            str(self.folder / "z"), self.store.rows, widths, self.store.chunk_rows, self.kernel.dtype
        )
        self.latent.prepare(0)
        self.latent.prepare(1)
        statistics.vector[:] = executor.compute(enter(self.step(), self.latent, 0, self.penalty))
        self.state = state

    def step(self, chunks: tuple[int, ...] | None = None) -> Step:
        """What `enter` and `visit` take; no two have the same name."""
        self.steps += 1
        return Step(
            self.kernel,
            self.samples,
            chunks or self.chunks,
            f"bench-{self.steps}",
            self.weights,
            self.split_every,
        )

    def sweep(self, executor: Executor, chunks: tuple[int, ...] | None = None) -> np.ndarray:
        """By Dask."""
        return executor.compute(
            visit(self.step(chunks), self.latent, 0, self.penalty, self.penalty, replace_all=False)
        )

    def loop(self, kernel: TaskContext) -> tuple[np.ndarray, list[float]]:
        """By a loop; the statistics, and the seconds of each chunk."""
        old, new = self.latent.view(0, self.chunks), self.latent.view(1, self.chunks)
        total = np.zeros(packed_size(VisitSums.layout(kernel.network.shapes, with_inputs=False)))
        seconds = []
        with single_threaded_blas():
            for chunk in self.chunks:
                start = time.perf_counter()
                rows = slice(chunk * self.store.chunk_rows, (chunk + 1) * self.store.chunk_rows)
                x, z = np.asarray(self.store.x[rows]), old.pieces[chunk].read()
                z, sums = visit_chunk(
                    kernel.network,
                    read_weights(self.weights),
                    self.penalty,
                    self.penalty,
                    Batch(x),
                    z,
                    kernel.settings,
                    replace_all=False,
                )
                new.pieces[chunk].write(z)
                total += sums.vector
                seconds.append(time.perf_counter() - start)
        return total, seconds


def cpu_seconds() -> float:
    """Of this process and all its children."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Its result, wall and CPU seconds."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    result = function()
    return result, time.perf_counter() - wall, cpu_seconds() - cpu


def local(workers: int) -> Any:
    return open_executor(ClusterTable(kind="local", workers=workers, dashboard=":0", memory_limit="4 GiB"))


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], Costs, DefaultStep]:
    """All of (a) and (b), and the costs for (c): of sweeps, and of the default's steps."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name, local(1) as one, local(2) as two:
        bench = Bench(Path(name), options)
        bench.prepare(two)
        for executor, chunks in ((one, (0,)), (two, (0, 1, 2, 3))):
            bench.sweep(executor, chunks[: len(bench.chunks)])  # imports, first allocations
        spent: dict[str, list[tuple[float, float]]] = {"loop": [], "one": [], "two": []}
        tasks: list[float] = []
        for _ in range(options.rounds):
            (expected, seconds), *times = timed(lambda: bench.loop(bench.kernel))
            spent["loop"].append((times[0], times[1]))
            tasks += seconds
            for label, executor in (("one", one), ("two", two)):
                found, *times = timed(lambda executor=executor: bench.sweep(executor))
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
                spent[label].append((times[0], times[1]))
        wall = {label: median(time for time, _ in times) for label, times in spent.items()}
        cpu = {label: median(time for _, time in times) for label, times in spent.items()}
        of_sweeps = costs(bench, two, tasks, options)
        of_increments = default_step(bench.folder, bench.kernel.network, of_sweeps)
        return (
            {
                "chunks": len(bench.chunks),
                "task_seconds": median(tasks),
                "wall": wall,
                "cpu": cpu,
                # pairs of one round, next to each other in time
                "wall_overhead": median(
                    b[0] / a[0] - 1 for a, b in zip(spent["loop"], spent["one"], strict=True)
                ),
                "cpu_overhead": median(
                    b[1] / a[1] - 1 for a, b in zip(spent["loop"], spent["one"], strict=True)
                ),
                "speedup_of_two": median(
                    a[0] / b[0] for a, b in zip(spent["one"], spent["two"], strict=True)
                ),
            },
            of_sweeps,
            of_increments,
        )


def costs(bench: Bench, executor: Executor, tasks: list[float], options: argparse.Namespace) -> Costs:
    """What the simulation replays."""
    network = bench.kernel.network
    size = packed_size(VisitSums.layout(network.shapes, with_inputs=False))
    total, part = np.zeros(size), np.ones(size)
    rounds = 20
    _, adding, _ = timed(lambda: [np.add(total, part, out=total) for _ in range(rounds)])
    x, z = (bench.store.chunk_rows * 4 * numbers for numbers in (options.features, sum(network.widths)))
    # drawn at random: what the machine had to do beside them came in stretches
    drawn = np.random.default_rng(0).choice(tasks, 4096).tolist()
    return Costs(
        drawn,
        8.0 * size,
        float(sum(w.nbytes for w in bench.state.weights)),
        adding / rounds,
        solving(bench),
        trivial(executor, 1),
        scheduling(executor),
        options.latency,
        options.bandwidth,
        options.storage_bandwidth,
        read_bytes=float(x + z),
        written_bytes=float(z),
    )


def solving(bench: Bench) -> float:
    """Seconds of a W-update and its commit; the first layer's system stays factorised, as in training."""
    statistics, ridge = bench.state.statistics, bench.pipeline.ridge
    first = ridge_system(statistics.gram[0], ridge / MU)

    def solve() -> None:
        for layer, old in enumerate(bench.state.weights):
            system = ridge_system(statistics.gram[layer], ridge / MU) if layer else first
            system.solve(statistics.cross[layer], old)
        bench.checkpoint.cursor += 1
        bench.run.commit(bench.checkpoint.to_tensors(), bench.checkpoint.to_scalars())

    return median(timed(solve)[1] for _ in range(5))


def trivial(executor: Executor, tasks: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a step of so many tasks that do nothing, with its sum."""

    def once(number: int) -> float:
        start, name = clock(), f"trivial-{tasks}-{number}-{time.time_ns()}"
        rows = per_chunk(nothing, {"x": da.zeros((tasks, 1), chunks=(1, 1))}, name=name, columns=1)
        executor.compute(tree_sum(rows, 16))
        return clock() - start

    return median(once(number) for number in range(3))


def nothing(index: int, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.zeros((1, 1))


def scheduling(executor: Executor, tasks: int = 1000) -> float:
    """Seconds of the scheduler and the client for a task more; sums of the tree are tasks, too.

    Both are in this process, and workers that share its cores do not count: it is CPU time.
    """
    more = tasks + -(-tasks // 16) + -(-tasks // 256) + 1
    return (trivial(executor, tasks, time.process_time) - trivial(executor, 1, time.process_time)) / more


def replay(sweeps: Costs, step: DefaultStep, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each number of workers: efficiencies, and what each term takes of the step's time."""
    split = options.split_every
    found = []
    for workers in SIZES:
        small = cut(step.costs, workers)
        alone, together = (
            seconds(costs, count, chunks, split)
            for costs, count, chunks in (
                (step.costs, 1, step.group),
                (small, workers, step.group * workers),
            )
        )
        found.append(
            {
                "workers": workers,
                "cap": storage_cap(sweeps, workers),
                "strong": efficiency(sweeps, workers, options.strong, split),
                "weak": efficiency(sweeps, workers, options.weak, split, weak=True),
                "group": efficiency(sweeps, workers, options.group, split),
                "default": efficiency(step.costs, workers, step.group, split),
                "cut": alone / (workers * together),
                "grown": efficiency(step.costs, workers, 1, split, weak=True),
                "lost": {
                    "strong": losses(sweeps, workers, options.strong, split),
                    "group": losses(sweeps, workers, options.group, split),
                    "default": losses(step.costs, workers, step.group, split),
                    "cut": losses(small, workers, step.group * workers, split),
                    "grown": losses(step.costs, workers, workers, split),
                },
            }
        )
    return found


COLUMNS = "cap", "strong", "weak", "group", "default", "cut", "grown"


def show(result: dict[str, Any], sweeps: Costs, step: DefaultStep, options: argparse.Namespace) -> None:
    print(line(result["machine"]))
    print(f"{result['chunks']} chunks, {result['task_seconds']:.2f} s each")
    for label, name in (("loop", "plain loop"), ("one", "one worker"), ("two", "two workers")):
        print(f"{name:<12} wall {result['wall'][label]:7.2f} s   CPU {result['cpu'][label]:7.2f} s")
    print(
        f"one worker against the loop: wall {result['wall_overhead']:+.1%}, CPU {result['cpu_overhead']:+.1%}; "
        f"two against one: {result['speedup_of_two']:.2f}×"
    )
    print(
        f"\nsimulated: statistics {sweeps.statistics_bytes / 1e6:.1f} MB, weights "
        f"{sweeps.weights_bytes / 1e6:.1f} MB, scheduler {sweeps.scheduler_seconds * 1e3:.2f} ms a task, "
        f"W and commit {sweeps.solve_seconds * 1e3:.0f} ms, empty step {sweeps.step_seconds * 1e3:.0f} ms; "
        f"a chunk reads {sweeps.read_bytes / 1e6:.1f} MB (x, z) and writes {sweeps.written_bytes / 1e6:.1f} MB (z); "
        f"links {options.bandwidth / 1e9:g} GB/s, storage {options.storage_bandwidth / 1e9:g} GB/s, "
        f"latency {options.latency * 1e3:g} ms"
    )
    parts = step.parts
    print(
        f"a step of K-FAC steps: {step.group} chunk{'s' * (step.group > 1)} of {step.rows} samples, reading "
        f"{1e3 * step.reading:.1f} ms, kernels {1e3 * parts.pull:.1f} and {1e3 * parts.probe:.1f} ms, the client's "
        f"solve {1e3 * parts.client:.1f} ms, two files of {1e3 * step.files:.1f} ms"
    )
    print(
        f"z persists: cap, what the storage alone allows; strong, a batch of {options.strong} chunks; weak, "
        f"{options.weak} chunks a worker; group, W after every {options.group} chunks. K-FAC steps: default; cut into "
        "a chunk a worker; grown to a whole chunk a worker"
    )
    print(f"{'workers':>7} " + " ".join(f"{name:>7}" for name in COLUMNS) + "   lost most to")
    for row in result["simulated"]:
        most = "; ".join(f"{name}: {describe(lost)}" for name, lost in row["lost"].items())
        print(f"{row['workers']:7} " + " ".join(f"{row[name]:7.1%}" for name in COLUMNS) + f"   {most}")
    print(verdict(result["simulated"]))


def describe(lost: dict[str, float]) -> str:
    name = max(lost, key=lambda name: lost[name])
    return f"{name} {lost[name]:.1%}"


def verdict(rows: list[dict[str, Any]]) -> str:
    """Where it breaks, and why."""
    at_128 = next(row for row in rows if row["workers"] == 128)
    sentences = [f"128 workers: {at_128['strong']:.0%} of perfect (published: nearly perfect)"]
    for key, name in (
        ("strong", "a batch"),
        ("group", "groups"),
        ("default", "the default"),
        ("grown", "grown"),
    ):
        broken = next((row for row in rows if row[key] < 0.8), None)
        if broken is None:
            sentences.append(f"{name}: above 80 % up to {rows[-1]['workers']} workers")
        else:
            sentences.append(
                f"{name}: below 80 % from {broken['workers']} workers on, by {describe(broken['lost'][key])}"
            )
    return "; ".join(sentences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=80_000)
    parser.add_argument("--chunk-rows", type=int, default=5000)
    parser.add_argument("--features", type=int, default=784)
    parser.add_argument("--hidden", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--split-every", type=int, default=4)
    parser.add_argument("--strong", type=int, default=8192, help="chunks of the simulated batch")
    parser.add_argument("--weak", type=int, default=8, help="chunks for each simulated worker")
    parser.add_argument("--group", type=int, default=512, help="chunks of a simulated group")
    parser.add_argument(
        "--bandwidth", type=float, default=1.25e9, help="bytes/s of a worker's link (10 Gbit/s)"
    )
    parser.add_argument("--storage-bandwidth", type=float, default=1e10, help="bytes/s of the shared storage")
    parser.add_argument("--latency", type=float, default=2e-4, help="seconds of a message")
    parser.add_argument(
        "--folder", type=Path, help="where the data go; by default the system's temporary folder"
    )
    parser.add_argument("--json", action="store_true")
    add_options(parser)
    options = parser.parse_args()
    machine = opening(options=options, wanted=2)
    result, sweeps, step = measure(options)
    result["machine"] = machine
    result["simulated"] = replay(sweeps, step, options)
    if options.json:
        costs = asdict(sweeps)
        del costs["task_seconds"]
        print(
            json.dumps({**result, "costs": costs, "kfac": [list(map(asdict, s)) for s in step.costs.steps]})
        )
    else:
        show(result, sweeps, step, options)


if __name__ == "__main__":
    main()
