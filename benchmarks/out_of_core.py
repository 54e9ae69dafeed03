"""Throughput on data many times larger than the workers' memory, against the same pipeline on data that fit.

One cluster (2 workers, `memory_limit` 1 GiB each) trains an auto-encoder for one sweep on few samples, on many, and
on few again. Rows per CPU second are those of the histories (client, scheduler and workers; reading, writing, W
and commits included). Meanwhile the workers' resident memory and what Dask spilled are sampled, and for the large
run the files' pages are dropped from the cache again and again, so that its reads are reads of the disk: how many
bytes were is printed (as the kernel counts them for the workers). The files of the small runs stay in the cache.
CPU seconds do not count waiting for the disk: so rows per second on the clock are compared, too, and on a machine that
is not shared these are the ones that count. z persists here, which is twice as many bytes as x; the default keeps none.

    python benchmarks/out_of_core.py                        # 3 GiB of data and z: two or three minutes
    python benchmarks/out_of_core.py --rows 3300000         # 20.8 GiB: ten times the workers' memory
    python benchmarks/out_of_core.py --ingest 10            # only ingest, of a csv ten times its plan
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from dask.utils import parse_bytes
from distributed import Client, LocalCluster
from opening import add_options, line, opening
from out_of_core_ingest import measure_ingest, told

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.storage.run import RunFolder

WORKERS = 2
DROP_SECONDS = 2.0
SAMPLE_SECONDS = 0.2


class Watch:
    """The workers' memory, spilled bytes and reads of the disk, sampled in a thread; drops files from the cache."""

    def __init__(self, cluster: LocalCluster, pids: list[int], cold: tuple[Path, ...]) -> None:
        self.cluster, self.cold = cluster, cold
        self.processes = [psutil.Process(pid) for pid in pids]
        self.peak = self.spilled = 0
        self.read_before = self.reads()

    def reads(self) -> int:
        """Bytes the workers have had read from the disk."""
        return sum(process.io_counters().read_bytes for process in self.processes)

    def sample(self) -> None:
        """Look at the workers once."""
        self.peak = max(self.peak, *(process.memory_info().rss for process in self.processes))
        for worker in list(self.cluster.scheduler.workers.values()):
            spilled = (worker.metrics or {}).get("spilled_bytes", {})
            self.spilled = max(self.spilled, spilled.get("disk", 0))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch as long as the block lasts."""
        end = threading.Event()
        # in a process of its own: what this one spends counts as training
        dropper = multiprocessing.get_context("spawn").Process(
            target=drop_again, args=(self.cold,), daemon=True
        )

        def watch() -> None:
            while not end.wait(SAMPLE_SECONDS):
                self.sample()

        thread = threading.Thread(target=watch)
        thread.start()
        if self.cold:
            dropper.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
            if self.cold:
                dropper.terminate()
                dropper.join()


def drop_again(folders: tuple[Path, ...]) -> None:
    """Drop folders from the page cache until this process is ended."""
    while True:
        for folder in folders:
            drop(folder)
        time.sleep(DROP_SECONDS)


def drop(folder: Path) -> int:
    """Ask the kernel to forget the pages of all files below that have been written back; how many files."""
    done = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # z that was discarded meanwhile
                file = os.open(os.path.join(directory, name), os.O_RDONLY)
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                    done += 1
                finally:
                    os.close(file)
    return done


def pipeline(store: SampleStore, hidden: int, group_chunks: int) -> Pipeline:
    """One incremental sweep of an auto-encoder."""
    return Pipeline.model_validate(
        {
            "data": {"train": store.path},
            "network": {"kind": "autoencoder", "hidden_layer_sizes": [hidden]},
            "training": {"schedule": "incremental", "group_chunks": group_chunks, "max_sweeps": 1.0},
            "output": {"report": False},
        }
    )


def gigabytes(rows: int, features: int, hidden: int) -> float:
    """Of x and one generation of z, in GiB."""
    return rows * 4 * (2 * features + hidden) / 2**30


class Training(NamedTuple):
    """Of one run: rows per CPU second, wall seconds, what was watched, bytes read of the disk, if workers lived."""

    rate: float
    wall: float
    watch: Watch
    read: int
    survived: bool


def trained(
    cluster: LocalCluster, client: Client, store: SampleStore, made: Pipeline, folder: Path, *, cold: bool
) -> Training:
    """Train once; with files that are not in the cache of pages, if they are to be cold."""
    pids = list(client.run(os.getpid).values())
    run, samples = RunFolder(folder), Path(store.path)
    watch = Watch(cluster, pids, (samples, run.path) if cold else ())
    start = time.perf_counter()
    if cold:
        drop(samples)
    with watch.running():
        records = runs.train(made, run, scheduler=cluster.scheduler_address, log=lambda line: None)
    wall = time.perf_counter() - start
    survived = sorted(client.run(os.getpid).values()) == sorted(pids)
    return Training(
        store.rows / records[-1].cpu_seconds, wall, watch, watch.reads() - watch.read_before, survived
    )


def start_workers(memory_limit: str) -> LocalCluster:
    """A cluster of processes with one thread each."""
    return LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, memory_limit=memory_limit, dashboard_address=":0"
    )


def make_stores(folder: Path, sizes: tuple[int, ...], features: int, chunk_rows: int) -> list[SampleStore]:
    """Stores of so many samples each, written back to the disk."""
    stores = []
    for size in sizes:
        source = open_source(f"synthetic:rows={size},features={features},seed=0")
        stores.append(ingest(source, folder / f"{size}.zarr", chunk_rows=chunk_rows))
    os.sync()  # or the pages cannot be dropped
    return stores


def speeds(before: Training, large: Training, after: Training, rows: int, small_rows: int) -> dict[str, Any]:
    """Samples per second of CPU and of the clock, many beside few."""
    return {
        "rows_per_cpu_second": large.rate,
        "small_rows_per_cpu_second": [before.rate, after.rate],
        "ratio": large.rate / max(before.rate, after.rate),
        "wall_seconds": large.wall,
        "rows_per_second": rows / large.wall,
        "small_rows_per_second": [small_rows / before.wall, small_rows / after.wall],
        "wall_ratio": rows / large.wall * min(before.wall, after.wall) / small_rows,
    }


def bounds_kept(large: Training, limit: int) -> dict[str, Any]:
    """What the workers made of their memory and read of the disk while they trained on many samples."""
    return {
        "peak_share": large.watch.peak / limit,
        "spilled_bytes": large.watch.spilled,
        "workers_survived": large.survived,
        "disk_read_gigabytes": large.read / 2**30,
    }


def measure(
    folder: Path,
    rows: int = 480_000,
    small_rows: int = 98_304,
    *,
    features: int = 784,
    hidden: int = 128,
    chunk_rows: int = 4096,
    group_chunks: int = 12,
    memory_limit: str = "1 GiB",
) -> dict[str, Any]:
    """Train on many and on few samples.

    Parameters
    ----------
    folder : path
        Where the data go (a folder inside, which is removed).
    rows, small_rows : int
        Samples of the two runs.
    features, hidden : int
        The net is features-hidden-features.
    chunk_rows, group_chunks : int
        The chunking, the same for both.
    memory_limit : str
        Of each of the two workers.

    Returns
    -------
    dict
        ``ratio`` of the rows per CPU second of many to those of few samples, ``wall_ratio`` of those per second on the
        clock (in which few samples pay more for starting), ``peak_share`` of the limit,
        ``spilled_bytes``, ``times_memory`` (x and z over the workers' memory together), and what they were made of.
    """
    limit, load = parse_bytes(memory_limit), os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(dir=folder) as name,
        start_workers(memory_limit) as cluster,
        Client(cluster) as client,
    ):
        few, many = make_stores(Path(name), (small_rows, rows), features, chunk_rows)
        trainings = []
        for number, store in enumerate((few, many, few)):
            made, run = pipeline(store, hidden, group_chunks), Path(name, f"run{number}")
            trainings.append(trained(cluster, client, store, made, run, cold=store is many))
    together = gigabytes(rows, features, hidden)
    return {
        "rows": rows,
        "small_rows": small_rows,
        "gigabytes": together,
        "small_gigabytes": gigabytes(small_rows, features, hidden),
        "times_memory": together * 2**30 / (WORKERS * limit),
        **speeds(*trainings, rows, small_rows),
        **bounds_kept(trainings[1], limit),
        "load_before": load,
        "load_after": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=480_000)
    parser.add_argument("--small-rows", type=int, default=98_304)
    parser.add_argument("--features", type=int, default=784)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--chunk-rows", type=int, default=4096)
    parser.add_argument("--memory-limit", default="1 GiB")
    parser.add_argument(
        "--folder", type=Path, help="where the data go; by default the system's temporary folder"
    )
    parser.add_argument(
        "--ingest",
        type=float,
        metavar="TIMES",
        help="measure ingest of a csv so many times as large as the memory that is planned for it, instead",
    )
    parser.add_argument("--json", action="store_true")
    add_options(parser)
    parsed = parser.parse_args()
    machine = opening(options=parsed, wanted=WORKERS)
    options = vars(parsed)
    for name in ("wait", "anyway"):
        del options[name]
    as_json, folder = options.pop("json"), options.pop("folder") or Path(tempfile.gettempdir())
    if not as_json:
        print(line(machine))
    if (times := options.pop("ingest")) is not None:
        found = measure_ingest(folder, times)
        print(json.dumps({"machine": machine, **found}) if as_json else told(found))
        return
    result = measure(folder, **options)
    if as_json:
        print(json.dumps({"machine": machine, **result}))
        return
    few, many = max(result["small_rows_per_cpu_second"]), result["rows_per_cpu_second"]
    print(
        f"data and z {result['gigabytes']:.1f} GiB, {result['times_memory']:.1f} × the memory of {WORKERS} workers "
        f"of {options['memory_limit']}; beside it {result['small_gigabytes']:.2f} GiB; "
        f"load {result['load_before']:.1f} before, {result['load_after']:.1f} after"
    )
    print(f"large  {many:8.0f} rows per CPU second, {result['wall_seconds']:.0f} s on the clock")
    print(f"small  {few:8.0f} rows per CPU second (the better of two)      ratio {result['ratio']:.3f}")
    print(
        f"on the clock {result['rows_per_second']:.0f} and {max(result['small_rows_per_second']):.0f} rows per second"
        f"{'ratio':>29} {result['wall_ratio']:.3f}"
    )
    print(
        f"workers' peak memory {result['peak_share']:.0%} of their limit, spilled {result['spilled_bytes']} bytes, "
        f"none was restarted: {result['workers_survived']}"
    )
    print(
        f"read from the disk {result['disk_read_gigabytes']:.1f} GiB; page cache dropped by posix_fadvise "
        f"every {DROP_SECONDS:g} s"
    )


if __name__ == "__main__":
    main()
