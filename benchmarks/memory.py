"""Measured peaks of memory beside the projection of `altmin plan`, and against the number of samples.

Each case trains in processes of its own, after a tiny run that loads all there is to load. The baseline is the
resident memory then; the peak is VmHWM, which is reset before the run.

The peaks of several threads add up only when they meet, so that more tasks have a higher one by chance. Against the
number of samples one thread is measured, therefore, and as many tasks whatever that number is. What is left is one
more level of sums that wait in the tree for every `split_every` times the chunks: the projection has it, too.

    python benchmarks/memory.py [--case NAME ...] [--json]
    python benchmarks/memory.py --growth [--rows 60000 240000] [--schedule batch] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """What is trained on how many random samples, and where."""

    hidden: tuple[int, ...]
    features: int = 784
    chunk_rows: int = 2500
    chunks: int = 8
    kind: str = "autoencoder"
    threads: int = 2
    workers: int = 0
    network: dict[str, Any] = field(default_factory=dict)
    solver: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def pipeline(self, store: Path) -> dict[str, Any]:
        """The pipeline, as it would stand in a file."""
        return {
            "data": {"train": str(store)},
            "network": {"kind": self.kind, "hidden_layer_sizes": self.hidden, **self.network},
            "solver": {"mu": 0.05, "cg_iterations": 1, **self.solver},
            "training": {"schedule": "batch", "max_sweeps": 1.0, **self.training},
            "cluster": {"workers": self.threads, "dashboard": ":0"},
            "output": {"report": False},
        }


WHITENED = {"initialization": "whitened"}
INCREMENTAL = {"schedule": "incremental"}
INCREMENTS, AUTO = {"schedule": "kfac", "max_sweeps": 2.0}, {"mu": "auto"}
ROWS = {"steps": 28}
DEEP = (1000, 500, 250, 30, 250, 500, 1000)
CASES = {
    "small chunks": Case((300,), chunk_rows=500, chunks=16),
    "medium chunks": Case((300,), network=WHITENED),
    "large chunks": Case((300,), chunk_rows=20_000, chunks=4),
    "large chunks, one thread": Case((300,), chunk_rows=20_000, chunks=3, threads=1),
    "narrow": Case((8,), features=20, chunk_rows=50_000, chunks=6),
    "wide": Case((3000,), chunk_rows=2000, chunks=6, threads=2),
    "wide input": Case((200,), features=4000, chunk_rows=1000, chunks=6, network=WHITENED),
    "deep": Case(DEEP, chunk_rows=2000, chunks=6, network={"activation": "tanh"}),
    "classifier": Case((256, 256), kind="classifier", chunk_rows=5000, network={"activation": "relu"}),
    "regressor, float64": Case((200,), 300, 8000, 6, "regressor", network={"dtype": "float64"}),
    "float64": Case((300,), network={"dtype": "float64"}),
    "exact curvature": Case((20,), features=40, chunk_rows=4000, chunks=4, solver={"curvature": "exact"}),
    "incremental": Case((300,), training=INCREMENTAL),
    "incremental groups, two Newton steps": Case(
        (300,), chunk_rows=5000, training={**INCREMENTAL, "group_chunks": 4}, solver={"newton_steps": 2}
    ),
    "a worker of one thread": Case((300,), workers=1, threads=1),
    "a worker of two threads": Case((300,), chunk_rows=5000, workers=1),
    "two workers": Case((300,), chunk_rows=5000, chunks=12, workers=2, threads=1, network=WHITENED),
    "two workers, incremental, wide": Case(
        (1500,), workers=2, threads=1, chunks=12, training={**INCREMENTAL, "group_chunks": 4}
    ),
    "multipliers": Case((300,), training=INCREMENTAL, solver={"penalty": "multipliers"}),
    "L1, deep": Case(
        DEEP,
        chunk_rows=2000,
        chunks=6,
        network={"activation": "tanh"},
        training={**INCREMENTAL, "group_chunks": 2},
        solver={"penalty": "l1"},
    ),
    "kfac": Case((300,), training=INCREMENTS, solver=AUTO),
    "kfac, one thread": Case((300,), training=INCREMENTS, solver=AUTO, threads=1),
    "kfac, groups under way": Case((300,), training={**INCREMENTS, "max_staleness": 2}, solver=AUTO),
    "increments, deep": Case(
        DEEP, chunk_rows=2000, chunks=6, network={"activation": "tanh"}, training=INCREMENTS, solver=AUTO
    ),
    "increments, classifier": Case(
        (256, 256), kind="classifier", chunk_rows=5000, training=INCREMENTS, solver=AUTO
    ),
    "kfac, a step a chunk": Case((300,), training={**INCREMENTS, "chunk_steps": 1}, solver=AUTO),
    "kfac, a table, two workers": Case(
        (128, 64), 64, 30_000, 20, "classifier", workers=2, threads=1, training=INCREMENTS, solver=AUTO
    ),
    "kfac, a table, one thread": Case(
        (128, 64), 64, 120_000, 6, "classifier", threads=1, training=INCREMENTS, solver=AUTO
    ),
    "increments, finite mu, two workers": Case(
        (300,), chunk_rows=5000, chunks=12, workers=2, threads=1, training={**INCREMENTS, "group_chunks": 4}
    ),
    "increments, finite mu": Case((300,), chunk_rows=2000, training=INCREMENTS),
    "rows of digits": Case(
        (128,), kind="recurrent_classifier", chunk_rows=1000, network=ROWS, training=INCREMENTS, solver=AUTO
    ),
    "rows of digits, finite mu": Case(
        (128,),
        kind="recurrent_classifier",
        chunk_rows=2000,
        network=ROWS,
        training=INCREMENTS,
        solver={"mu": 50.0},
    ),
    "rows of digits, incremental": Case(
        (128,), kind="recurrent_classifier", chunk_rows=1000, network=ROWS, training=INCREMENTAL
    ),
    "rows of digits, multipliers": Case(
        (64, 64),
        kind="recurrent_classifier",
        chunk_rows=1000,
        network={**ROWS, "head_layer_sizes": (32,)},
        training=INCREMENTAL,
        solver={"penalty": "multipliers", "mu": 10.0},
    ),
}


def make_store(case: Case, store: Path, chunks: int | None = None) -> None:
    """Ingest random samples in [0, 1], a block at a time."""
    from altmin_dask.data.ingest import ingest
    from altmin_dask.data.readers import RowReader
    from altmin_dask.data.source import Source

    rows = case.chunk_rows * (chunks or case.chunks)

    def reader(shape: tuple[int, ...], dtype: str) -> RowReader:
        def blocks(size: int) -> Any:
            rng = np.random.default_rng(0)
            for start in range(0, rows, size):
                n = min(size, rows - start)
                yield rng.integers(0, 10, (n, *shape)) if dtype == "int64" else rng.random((n, *shape), "f4")

        return RowReader("random", (rows, *shape), np.dtype(dtype), blocks)

    targets = {"classifier": ((), "int64"), "regressor": ((5,), "float32")}
    y = targets.get(case.kind.removeprefix("recurrent_"))
    ingest(
        Source("random", reader((case.features,), "float32"), y and reader(*y)),
        store,
        chunk_rows=case.chunk_rows,
    )


def status(key: str) -> int:
    """A size of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {key}; this benchmark needs Linux")


def start_measuring() -> int:
    """The resident memory now, from which on VmHWM counts."""
    import altmin_dask.cli  # noqa: F401 - all that a process may come to import

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def measure(case: Case, folder: Path) -> dict[str, int]:
    """Train; bytes of the worker with the highest peak above its baseline, and of this process."""
    from distributed import Client, LocalCluster

    from altmin_dask import runs
    from altmin_dask.config import Pipeline
    from altmin_dask.execution.allocator import own_process
    from altmin_dask.storage.run import RunFolder

    own_process(case.threads)  # as `altmin train` does

    def train(name: str) -> None:
        pipeline = Pipeline.model_validate(case.pipeline(folder / f"{name}.zarr"))
        runs.train(pipeline, RunFolder(folder / f"run {name}"), scheduler=address, log=lambda line: None)

    with ExitStack() as stack:
        address, client = None, None
        if case.workers:
            cluster = stack.enter_context(
                LocalCluster(n_workers=case.workers, threads_per_worker=case.threads, dashboard_address=":0")
            )
            client = stack.enter_context(Client(cluster))
            address = cluster.scheduler_address
        train("tiny")
        everyone = client.run(start_measuring) if client else {}
        own = start_measuring()
        train("samples")
        here = status("VmHWM") - own
        peaks = {
            name: peak - everyone[name]
            for name, peak in (client.run(status, "VmHWM") if client else {}).items()
        }
    return {"worker": max(peaks.values(), default=here), "client": here, "baseline": own}


def projection(case: Case, folder: Path) -> dict[str, int]:
    """What `altmin plan` says of the case."""
    from altmin_dask.config import Pipeline
    from altmin_dask.execution.resources import Resources
    from altmin_dask.planning.plan import make_plan

    pipeline = Pipeline.model_validate(case.pipeline(folder / "samples.zarr"))
    place = Resources(max(case.workers, 1), case.threads, None, in_process=not case.workers)
    planned = make_plan(pipeline, None, place).projection
    return {"worker": planned.worker_peak, "client": planned.client_peak}


def run(case: Case, folder: Path) -> dict[str, int]:
    """Measure a case in a process of its own."""
    tiny = Case(
        **{
            **asdict(case),
            "chunk_rows": 16,
            "chunks": 2,
            "hidden": (4,),
            "features": 6 * case.network.get("steps", 1),
        }
    )
    make_store(tiny, folder / "tiny.zarr")
    make_store(case, folder / "samples.zarr")
    (folder / "case.json").write_text(json.dumps(asdict(case)))
    done = subprocess.run(
        [sys.executable, __file__, "--measure", folder], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def compare(name: str) -> dict[str, Any]:
    """Measured and projected peak of a case."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        measured = run(case, Path(folder))
        projected = projection(case, Path(folder))
    return {
        "case": name,
        "projected": projected["worker"],
        "measured": measured["worker"],
        "ratio": measured["worker"] / projected["worker"],
        "client_projected": projected["client"],
        "client_measured": measured["client"] if case.workers else 0,
        "baseline": measured["baseline"],
    }


def growth(rows: int, visits: int, chunk_rows: int, schedule: str, threads: int) -> tuple[int, int]:
    """Measured and projected peak with so many samples, of which as many are visited whatever their number is."""
    case = Case(
        (300,),
        chunk_rows=chunk_rows,
        chunks=rows // chunk_rows,
        threads=threads,
        network=WHITENED,
        training={"schedule": schedule, "max_sweeps": visits / rows},
    )
    with tempfile.TemporaryDirectory() as folder:
        return run(case, Path(folder))["worker"], projection(case, Path(folder))["worker"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", default=[60_000, 240_000])
    parser.add_argument("--chunk-rows", type=int, default=2500)
    parser.add_argument("--schedule", default="batch", choices=["batch", "incremental"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.measure:
        case = Case(**json.loads((options.measure / "case.json").read_text()))
        print(json.dumps(measure(case, options.measure)))
        return
    from opening import line, opening  # nothing that a process which is measured need load

    machine = opening()
    if not options.json:
        print(line(machine))
    if options.growth:
        peaks = {
            rows: [
                growth(rows, max(options.rows), options.chunk_rows, options.schedule, options.threads)
                for _ in range(options.repeats)
            ]
            for rows in options.rows
        }
        if options.json:
            print(json.dumps({"machine": machine, "peaks": peaks}))
            return
        for rows, values in peaks.items():
            print(
                f"{rows:8} rows  MiB above baseline",
                *(f"{measured / MIB:6.0f}" for measured, _ in values),
                f" projected {values[0][1] / MIB:6.0f}",
            )
    else:
        results = []
        if not options.json:
            print(f"{'case':<38} {'projected':>10} {'measured':>10} {'ratio':>6}   MiB above an idle process")
        for name in options.case:
            results.append(found := compare(name))
            if not options.json:
                print(
                    f"{name:<38} {found['projected'] / MIB:10.0f} {found['measured'] / MIB:10.0f} "
                    f"{found['ratio']:6.2f}",
                    flush=True,
                )
                if found["client_projected"]:
                    ratio = found["client_measured"] / found["client_projected"]
                    print(
                        f"{'  its client':<38} {found['client_projected'] / MIB:10.0f} "
                        f"{found['client_measured'] / MIB:10.0f} {ratio:6.2f}",
                        flush=True,
                    )
        if options.json:
            print(json.dumps({"machine": machine, "cases": results}))


if __name__ == "__main__":
    main()
