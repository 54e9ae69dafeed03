"""Recurrent networks beside Adam: MNIST read row by row, and the adding problem.

    python benchmarks/recurrent.py mnist.npz [--parts rows adding] [--seeds 3] [--seconds 40]

Every run is a process of its own with one thread; the clock counts CPU seconds of training, evaluation and the making
of stores are off it. altmin runs as the command line does, with defaults, from a zarr store. PyTorch's `nn.RNN` has
the same net and starts with orthogonal V; batches of 128, gradients clipped at norm 1. Tables go to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RATES = 3e-4, 1e-3, 3e-3
UNITS = 128
ADDING_UNITS = 64
GOALS = 95.0, 96.0, 97.0
SOLVED = 0.005
"""½ squared error of an adding problem that counts as solved; who predicts the mean has 0.083."""

Curve = list[tuple[float, float]]
"""CPU seconds, and held-out quality: accuracy in per cent, or ½ squared error."""


def altmin(task: dict[str, Any]) -> Curve:
    """A run of altmin, with defaults."""
    from altmin_dask import runs
    from altmin_dask.config import Pipeline
    from altmin_dask.storage.run import RunFolder
    from altmin_dask.storage.samples import ingest
    from altmin_dask.storage.sources import open_source

    class Quiet:
        def progressed(self, progress: Any) -> None: ...
        def recorded(self, record: dict[str, Any]) -> None: ...

    rows, key = task["part"] == "rows", "validation_accuracy"
    with tempfile.TemporaryDirectory() as folder:
        stores = []
        for part in ("train", "test"):
            spec = f"{task['mnist']}:{part}" if rows else f"{adding(task, part)}:{part}"
            stores.append(f"{folder}/{part}.zarr")
            ingest(open_source(spec), stores[-1], scale=255 if rows else 1, chunk_rows=1000)
        pipeline = Pipeline.model_validate(
            {
                "data": {"train": stores[0], "validation": stores[1]},
                "network": {
                    "kind": "recurrent_classifier" if rows else "recurrent_regressor",
                    "hidden_layer_sizes": (UNITS if rows else ADDING_UNITS,),
                    "steps": 28 if rows else None,
                },
                "training": {
                    "seed": task["seed"], "max_cpu_seconds": task["seconds"], "max_sweeps": 1e4,
                    "n_iter_no_change": None, "evaluation_rows": 2000,
                },
                "cluster": {"workers": 1},
            }
        )  # fmt: skip
        records = runs.train(pipeline, RunFolder(Path(folder) / "run"), Quiet(), announce=lambda line: None)
    quality = [100 * r[key] for r in records] if rows else [r["validation_loss"] for r in records]
    return list(zip([r["cpu_seconds"] for r in records], quality, strict=True))


def adding(task: dict[str, Any], part: str) -> str:
    """The source of adding problems."""
    return f"adding:rows={20000 if part == 'train' else 2000},steps={task['steps']},seed={task['seed']}"


def adam(task: dict[str, Any]) -> Curve:
    """The same net trained by PyTorch's Adam."""
    import torch
    from torch import nn
    from torch.nn import functional

    from altmin_dask.storage.sources import open_source

    torch.set_num_threads(1)
    torch.manual_seed(task["seed"])
    rows = task["part"] == "rows"
    data = []
    for part in ("train", "test"):
        source = open_source(f"{task['mnist']}:{part}" if rows else f"{adding(task, part)}:{part}")
        x, y = next(iter(source.blocks(source.rows)))
        x = torch.from_numpy(np.asarray(x, np.float32).reshape(len(x), -1, 28 if rows else 2))
        if rows:
            x /= 255
        data.append((x, torch.from_numpy(np.asarray(y, np.int64 if rows else np.float32))))
    units = UNITS if rows else ADDING_UNITS
    net = nn.RNN(data[0][0].shape[2], units, batch_first=True)
    out = nn.Linear(units, 10 if rows else 1)
    nn.init.orthogonal_(net.weight_hh_l0)
    nn.init.xavier_uniform_(net.weight_ih_l0)
    nn.init.zeros_(net.bias_hh_l0)
    nn.init.zeros_(net.bias_ih_l0)
    parameters = [*net.parameters(), *out.parameters()]
    optimizer = torch.optim.Adam(parameters, task["rate"])
    (x, y), held_out = data

    def outputs(samples: Any) -> Any:
        return out(net(samples)[0][:, -1])

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def quality() -> float:
        found = torch.cat([outputs(part) for part in held_out[0].split(1000)])
        if rows:
            return 100 * float((found.argmax(1) == held_out[1]).float().mean())
        return float(functional.mse_loss(found[:, 0], held_out[1]) / 2)

    curve, spent, due = [], 0.0, 0.0
    while spent < task["seconds"]:
        for batch in torch.randperm(len(x)).split(128):
            start = time.process_time()
            optimizer.zero_grad()
            found = outputs(x[batch])
            y_batch = y[batch]
            loss = (
                functional.cross_entropy(found, y_batch)
                if rows
                else functional.mse_loss(found[:, 0], y_batch)
            )
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            spent += time.process_time() - start
            if spent >= due:
                curve.append((spent, quality()))
                due = spent + max(0.5, 0.03 * spent)
            if spent >= task["seconds"]:
                break
    return curve


def run(task: dict[str, Any]) -> Curve:
    """Carry a task out in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, __file__, "--task", json.dumps(task)], env={**os.environ, **threads},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return [tuple(point) for point in json.loads(done.stdout.splitlines()[-1])]


def reached(curve: Curve, goal: float, falling: bool) -> float:
    """CPU seconds after which a goal is reached; infinity if never."""
    return next((t for t, q in curve if (q <= goal if falling else q >= goal)), float("inf"))


def rows_table(options: argparse.Namespace) -> None:
    """MNIST row by row: medians over seeds."""
    print(
        f"\nMNIST row by row, 28 steps, {UNITS} tanh units: CPU s to an accuracy (median of {options.seeds})"
    )
    print("| | " + " | ".join(f"{goal:g} %" for goal in GOALS) + f" | best in {options.seconds:g} s |")
    print("| --- |" + " --- |" * (len(GOALS) + 1))
    # seed by seed, so that a machine that is slower for a while is so for all of them
    found: dict[float | None, list[Curve]] = {rate: [] for rate in (None, *RATES)}
    task = {"part": "rows", "mnist": str(options.mnist), "seconds": options.seconds}
    for seed in range(options.seeds):
        for rate, curves in found.items():
            curves.append(run({**task, "seed": seed, "rate": rate}))
    for rate, curves in found.items():
        name = "altmin, defaults" if rate is None else f"Adam {rate:g}"
        times = [statistics.median(reached(curve, goal, False) for curve in curves) for goal in GOALS]
        best = statistics.median(max(q for _, q in curve) for curve in curves)
        print(f"| {name} | " + " | ".join(f"{t:.1f}" for t in times) + f" | {best:.2f} % |", flush=True)


def adding_table(options: argparse.Namespace) -> None:
    """The adding problem of growing length."""
    print(
        f"\nAdding problem, {ADDING_UNITS} tanh units, 20,000 sequences: CPU s to a squared error of 0.01, and the best"
    )
    print("| steps | altmin, defaults | Adam 1e-3 |\n| --- | --- | --- |")
    for steps in options.steps:
        cells = []
        for rate in (None, 1e-3):
            curve = run(
                {
                    "part": "adding",
                    "steps": steps,
                    "seed": 0,
                    "rate": rate,
                    "seconds": options.seconds * steps / 30,
                }
            )
            best = 2 * min(q for _, q in curve)
            cells.append(f"{reached(curve, SOLVED, True):.1f} ({best:.2g} in {curve[-1][0]:.0f} s)")
        print(f"| {steps} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path, nargs="?", help="only for rows")
    parser.add_argument("--parts", nargs="+", choices=("rows", "adding"), default=["rows", "adding"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 100, 200])
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps((altmin if options.task["rate"] is None else adam)(options.task)))
        return
    for part in options.parts:
        (rows_table if part == "rows" else adding_table)(options)


if __name__ == "__main__":
    main()
