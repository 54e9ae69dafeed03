"""Peak memory of training against the number of samples, at a fixed chunk size.

Repeats the digits of MNIST (or, without the file, random images) to 60,000 and 240,000 rows, trains each in a
process of its own through the command line, and prints the process's peak resident memory.

    python benchmarks/memory.py [--mnist mnist.npz] [--rows 60000 240000] [--schedule batch] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from altmin_dask.storage.samples import ingest
from altmin_dask.storage.sources import array_source

PIPELINE = """
[data]
train = "{store}"
[network]
kind = "autoencoder"
hidden_layer_sizes = [300]
initialization = "whitened"
[solver]
mu = 0.005
cg_iterations = 1
[training]
schedule = "{schedule}"
max_sweeps = {sweeps}
[cluster]
workers = 2
[output]
report = false
"""


def images(mnist: Path | None, rows: int) -> np.ndarray:
    """That many images, (rows, 784), float32 in [0, 1]."""
    if mnist is None:
        return np.random.default_rng(0).random((rows, 784), dtype=np.float32)
    with np.load(mnist, allow_pickle=False) as file:
        digits = file["x_train"].reshape(-1, 784)
    return np.take(digits, np.arange(rows) % len(digits), axis=0).astype(np.float32) / 255


def make_store(mnist: Path | None, rows: int, chunk_rows: int, store: Path) -> None:
    """Ingest the images."""
    ingest(array_source(images(mnist, rows)), store, chunk_rows=chunk_rows)


def peak_megabytes(folder: Path, store: Path, schedule: str, sweeps: float) -> float:
    """Peak resident memory of one `altmin train`, MB."""
    pipeline = folder / "pipeline.toml"
    pipeline.write_text(PIPELINE.format(store=store, schedule=schedule, sweeps=sweeps))
    process = subprocess.Popen(
        [sys.executable, "-m", "altmin_dask", "train", str(pipeline), "--run", str(folder / "run")],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"training failed with exit code {process.returncode}")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[60_000, 240_000])
    parser.add_argument("--chunk-rows", type=int, default=2500)
    parser.add_argument("--schedule", default="batch", choices=["batch", "incremental", "windows"])
    parser.add_argument("--sweeps", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    peaks = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            store = folder / "samples.zarr"
            # in a process of its own: a child's peak counts what its parent held when it was forked
            arguments = (options.mnist, rows, options.chunk_rows, store)
            maker = multiprocessing.get_context("spawn").Process(target=make_store, args=arguments)
            maker.start()
            maker.join()
            peaks[rows] = peak_megabytes(folder, store, options.schedule, options.sweeps)
    if options.json:
        print(json.dumps(peaks))
        return
    print(f"{options.schedule} sweeps, 784-300-784, chunks of {options.chunk_rows} rows, 2 threads")
    first = next(iter(peaks.values()))
    for rows, peak in peaks.items():
        data = rows * (784 + 2 * 1084) * 4 / 2**20
        print(f"{rows:8} rows  data and z {data:7.0f} MB  peak {peak:6.0f} MB  ratio {peak / first:.3f}")


if __name__ == "__main__":
    main()
