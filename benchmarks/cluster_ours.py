"""The tasks of `cluster.py`, their stores, and altmin's runs of them: the command line, in a process of its own.

A run is stopped as soon as its history shows that the hardest threshold is met, or its budget spent; when to stop, the
report and the dashboard's port are all that is not the default. On a local cluster Dask's scheduler is watched by a
plugin, which is a preload of this very file, so that the command stays what anybody writes: for each worker it adds up
what tasks took, as the worker measured it. Idle is a worker in the wall time of training (evaluation is in neither)
while it runs no task: transfers, and waiting for the client's solve, the scheduler or other workers are idle.
`cumulative_worker_metrics` would say the same but for evaluation, which it does not tell apart.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed.diagnostics.plugin import SchedulerPlugin
from measuring import ONE_THREAD
from quality_data import SEARCH, Array, beginning, make_stores, store_path
from quality_tasks import TASKS as MNIST

from altmin_dask.data.formats.generated import made_in_blocks
from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import Source

WATCH = "ALTMIN_BENCHMARK_WATCH"
"""Environment variable: the file that tells what workers did."""
ENDLESS = 10**9
"""Of limits that are not to stop anything."""
POLL_SECONDS = 0.05
FEATURES, CLASSES, CAUSES = 64, 4, 32
BLOCK_ROWS, HELD_OUT_ROWS = 8192, 20_000
SHARPNESS = 2.0
"""By which the logits of the table's labels are multiplied: with 2, the best possible loss is about a half."""


@dataclass(frozen=True)
class Task:
    """A network and its data; quality is the held-out loss, or of `percent` the errors in per cent."""

    network: dict[str, Any]
    """As in a pipeline."""
    thresholds: tuple[float, ...]
    """Of the held-out quality, from easy to hard."""
    rates: tuple[float, ...]
    """Of Adam, from which a short search takes the best."""
    seconds: float
    """Budget of a run, wall seconds of training; that of a run of the search is a third."""
    rows: int = 0
    """Of the generated table; 0 for MNIST."""
    percent: bool = False

    @property
    def labels(self) -> bool:
        """Whether targets are labels."""
        return bool(self.network["kind"] == "classifier")

    def middle(self) -> float:
        """The threshold by which rates are chosen."""
        return self.thresholds[len(self.thresholds) // 2]


def encoder(hidden: list[int], activation: Any) -> dict[str, Any]:
    names = {"activation": activation, "output_activation": "sigmoid"}
    return {"kind": "autoencoder", "hidden_layer_sizes": hidden, **names}


TASKS = {
    "autoencoder": Task(MNIST["autoencoder"].network, (1.02, 0.77, 0.49, 0.35), (5e-3, 1e-2, 2e-2), 60.0),
    "classifier": Task(
        MNIST["classifier"].network, (3.0, 2.5, 2.0, 1.8), (1e-3, 2e-3, 4e-3), 30.0, percent=True
    ),
    "wide": Task(encoder([1000, 500, 1000], "tanh"), (2.0, 1.2, 0.8, 0.65), (3e-4, 1e-3, 3e-3), 120.0),
    "deep": Task(MNIST["deep"].network, (6.9, 3.0, 2.0, 1.7), (3e-4, 1e-3, 3e-3), 180.0),
    "table": Task(
        {"kind": "classifier", "hidden_layer_sizes": [128, 64], "activation": "relu"},
        (0.8, 0.75, 0.7, 0.65),
        (1e-3, 3e-3, 1e-2),
        60.0,
        rows=1_000_000,
    ),
}


@dataclass(frozen=True)
class Table:
    """Rows of normal features; labels are drawn by the softmax of h B, h = tanh(x A): nonlinear, and noisy."""

    part: int

    def teacher(self) -> tuple[Array, Array]:
        rng = np.random.default_rng([17, 2])
        a = rng.standard_normal((FEATURES, CAUSES)) * 2 / np.sqrt(FEATURES)
        return a, rng.standard_normal((CAUSES, CLASSES)) * SHARPNESS / np.sqrt(CAUSES / 4)

    def fill_x(self, block: int, out: Array) -> None:
        rng = np.random.default_rng([17, self.part, block, 0])
        rng.standard_normal(out.shape, np.float32, out=out)

    def logits(self, x: Array) -> Array:
        a, b = self.teacher()
        logits: Array = np.tanh(x @ a) @ b
        return logits

    def fill_y(self, block: int, out: Array) -> None:
        x = np.empty((len(out), FEATURES), np.float32)
        self.fill_x(block, x)
        noise = np.random.default_rng([17, self.part, block, 1]).gumbel(size=(len(out), CLASSES))
        out[...] = (self.logits(x) + noise).argmax(axis=1)

    def source(self, rows: int) -> Source:
        """Streamed: a block is made when it is read."""
        x = made_in_blocks("x of the table", rows, BLOCK_ROWS, (FEATURES,), np.dtype(np.float32), self.fill_x)
        return Source(
            "the table",
            x,
            made_in_blocks("y of the table", rows, BLOCK_ROWS, (), np.dtype(np.int64), self.fill_y),
        )


def stores_of(name: str, mnist: Path, home: Path) -> dict[str, str]:
    """Sample stores of a task, which are made unless they are there: `train` and `validation` of `[data]`.

    Of MNIST 50,000 of the training digits, and the 10,000 others; test digits are nowhere.
    """
    rows = TASKS[name].rows
    if not rows:
        make_stores(mnist, home, SEARCH, None)
        train, held_out = (store_path(home, SEARCH, split, None) for split in ("train", "held-out"))
        return {"train": str(train), "validation": str(held_out)}
    parts = {"train": rows, "validation": min(rows, HELD_OUT_ROWS)}
    for part, (split, size) in enumerate(parts.items()):
        if not (home / f"{name}-{split}.zarr").exists():
            ingest(Table(part).source(size), home / f"{name}-{split}.zarr")
    return {split: str(home / f"{name}-{split}.zarr") for split in parts}


def settings_of(name: str, stores: dict[str, str], seed: int) -> dict[str, Any]:
    """A pipeline with everything at its default but what stops it."""
    return {
        "data": dict(stores),
        "network": dict(TASKS[name].network),
        "training": {"seed": seed, "max_sweeps": float(ENDLESS), "n_iter_no_change": ENDLESS},
        "output": {"report": False},
    }


def start_of(name: str, stores: dict[str, str], seed: int, home: Path) -> Path:
    """A file with the weights that altmin begins with, and the wall seconds that making them takes."""
    file = home / f"{name}-start-{seed}.npz"
    if not file.exists():
        settings = settings_of(name, stores, seed)
        weights, first = beginning({**settings, "cluster": {"kind": "threads", "workers": 1}})
        np.savez(
            file, first.wall_seconds, *weights
        )  # the seconds first: names are arr_0, arr_1, … as of `savez`
    return file


def toml(settings: dict[str, dict[str, Any]]) -> str:
    """Tables of plain values, which JSON writes as TOML does."""
    tables = (
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in settings.items()
    )
    return "\n".join(tables)


def train_ours(
    name: str, kind: str, workers: int, seed: int, seconds: float, stores: dict[str, str], home: Path
) -> dict[str, Any]:
    """One run in an empty folder: its curve, and where the time went."""
    cluster = {"kind": kind, "workers": workers, "dashboard": ":0"}
    (home / "pipeline.toml").write_text(toml({**settings_of(name, stores, seed), "cluster": cluster}))
    # a thread of BLAS for every core that the contestant has, if it wants them
    threads = dict.fromkeys(ONE_THREAD, str(workers))
    environment = {**os.environ, **threads, WATCH: str(home / "watch.json")}
    environment["DASK_DISTRIBUTED__SCHEDULER__PRELOAD"] = json.dumps([str(Path(__file__))])
    words = [sys.executable, "-m", "altmin_dask", "train", "pipeline.toml", "--run", "run"]
    with (home / "log").open("w") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: off
        try:
            stopped, marks = watched(process, home / "run/history.jsonl", TASKS[name], seconds)
            status = process.wait(120)
        finally:
            with suppress(ProcessLookupError):  # whatever is left, of this run's group only
                os.killpg(process.pid, signal.SIGKILL)
    records = list(records_of(home / "run/history.jsonl"))
    if not records or (status and not stopped):
        raise RuntimeError(f"altmin train ended with {status}: {(home / 'log').read_text()[-2000:]}")
    wall = [record["wall_seconds"] for record in records]
    shown = marks[-1][0] - marks[0][0]
    trained = wall[marks[-1][1] - 1] - wall[marks[0][1] - 1]
    return {
        "curve": [
            [r["wall_seconds"], quality(r, TASKS[name]), r["sweep"], r["cpu_seconds"]] for r in records
        ],
        "start_seconds": marks[0][0] - began,
        "off_clock_share": max(0.0, 1 - trained / shown) if shown > 0 else 0.0,
        **(idle_of(home / "watch.json", workers, wall[-1]) if kind == "local" else {}),
    }


def watched(
    process: subprocess.Popen[Any], history: Path, task: Task, seconds: float
) -> tuple[bool, list[tuple[float, int]]]:
    """Interrupt a run that has shown enough: whether it was, and when how many records were there."""
    stopped, marks = False, [(time.perf_counter(), 1)]
    last = time.perf_counter() + 10 * seconds + 120  # a run that says nothing
    seen = 0
    while process.poll() is None:
        records = list(records_of(history))
        if len(records) > seen:
            marks = [*(marks if seen else []), (time.perf_counter(), len(records))]
            seen = len(records)
        enough = seen and (
            records[-1]["wall_seconds"] >= seconds
            or any(quality(record, task) <= task.thresholds[-1] for record in records)
        )
        if not stopped and (enough or time.perf_counter() > last):
            process.send_signal(
                signal.SIGINT
            )  # to the client only: it finishes its step, and takes workers down
            stopped = True
        time.sleep(POLL_SECONDS)
    return stopped, marks


def records_of(history: Path) -> Iterator[dict[str, Any]]:
    """Those that are there as a whole."""
    text = history.read_text(encoding="utf-8") if history.exists() else ""
    yield from (json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n"))


def quality(record: dict[str, Any], task: Task) -> float:
    """Of a record of altmin's."""
    if task.percent:
        return float(100 * (1 - record["validation_accuracy"]))
    return float(record["validation_loss"])


def idle_of(file: Path, workers: int, wall: float) -> dict[str, Any]:
    """Shares of the wall time of training in which workers ran no task, and of all tasks' time, evaluation's."""
    spent = json.loads(file.read_text())
    busy = {worker: seconds["training"] for worker, seconds in spent.items()}
    together = sum(seconds["training"] + seconds["evaluation"] for seconds in spent.values())
    return {
        "idle_share": 1 - sum(busy.values()) / (workers * wall),
        "busy_seconds": sorted(busy.values()),
        "evaluation_share": sum(s["evaluation"] for s in spent.values()) / max(together, 1e-9),
    }


class Watch(SchedulerPlugin):
    """Seconds that tasks of training and of evaluation took, by worker; written when the scheduler closes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.spent: defaultdict[str, dict[str, float]] = defaultdict(
            lambda: {"training": 0.0, "evaluation": 0.0}
        )

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, **kwargs: Any) -> None:
        """Of a task that has ended: the worker tells with it when it computed."""
        word = key[0] if isinstance(key, tuple) else key
        kind = "evaluation" if str(word).startswith("altmin_evaluate") else "training"
        for part in (kwargs.get("startstops") or ()) if start == "processing" else ():
            if part["action"] == "compute":
                self.spent[kwargs["worker"]][kind] += part["stop"] - part["start"]

    async def close(self) -> None:
        """Of the scheduler."""
        self.file.write_text(json.dumps(self.spent))


def dask_setup(scheduler: Any) -> None:
    """As a preload of Dask's scheduler."""
    scheduler.add_plugin(Watch(Path(os.environ[WATCH])), name="benchmark-watch")
