"""What a step of the default schedule costs, for the simulation: measured on one chunk of the default size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from increment_step import Parts, Stepper
from simulation import Costs, KFACSteps

from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import default_chunk_rows
from altmin_dask.data.source import array_source
from altmin_dask.networks.network import Network
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.packing import packed_size
from altmin_dask.storage.weights import WeightStore
from altmin_dask.training.step_sizes import model_every

TASKS = 3
"""Of a chunk in the first round: reading it, what it says about the weights, and keeping samples for the probe."""
CYCLES = 5


@dataclass(frozen=True)
class DefaultStep:
    """A step of K-FAC steps by default.

    Attributes
    ----------
    costs : K-FAC steps
        Of its rounds.
    rows, group : int
        Samples of a chunk, and chunks of a step.
    parts : Parts
        Seconds of a chunk's and the client's share of it, reading and files left out, on the average.
    files, reading : float
        Seconds of publishing weights once, and of reading the chunk.
    """

    costs: KFACSteps
    rows: int
    group: int
    parts: Parts
    files: float
    reading: float


def default_step(folder: Path, network: Network, base: Costs) -> DefaultStep:
    """Measure it; Dask, links and storage are those of `base`."""
    features, itemsize = network.shapes[0][1] - 1, 4
    rows = default_chunk_rows(10**9, (features,))
    x = np.random.default_rng(0).random((2 * rows, features), dtype=np.float32)
    store = ingest(array_source(x), folder / "increments.zarr", chunk_rows=rows)
    reading = timed(lambda: np.asarray(store.x[:rows]))
    stepper = Stepper(network, x[:rows], None, model_every(rows, network), time.perf_counter)
    cycles = [stepper.cycle() for _ in range(CYCLES)]
    steps = [Parts.median([cycle[place] for cycle in cycles]) for place in range(len(cycles[0]))]
    exchange = WeightStore(str(folder / "exchange"))
    names = iter(range(1000))
    files = timed(lambda: exchange.publish(stepper.weights, f"{next(names)}", 4))
    found = []
    for number, parts in enumerate(steps):
        sent = itemsize * packed_size(KroneckerSums.layout(network.shapes, curvature=number == 0))
        pull = replace(
            base,
            task_seconds=[reading + parts.pull],
            statistics_bytes=sent,
            add_seconds=base.add_seconds * sent / base.statistics_bytes,
            solve_seconds=parts.solve + files,
            scheduler_seconds=TASKS * base.scheduler_seconds,
            read_bytes=float(x[:rows].nbytes),
            written_bytes=0.0,
        )
        probe = replace(
            base,
            task_seconds=[parts.probe],
            add_seconds=0.0,
            statistics_bytes=8.0 * packed_size(QuadraticModel.layout()),
            solve_seconds=parts.move + files,
            read_bytes=0.0,
            written_bytes=0.0,
        )
        found.append([pull, probe])
    return DefaultStep(
        KFACSteps(found),
        rows,
        math.ceil(network.defaults.group_rows / rows),
        Parts.mean(steps),
        files,
        reading,
    )


def timed(function: Callable[[], Any], rounds: int = 7) -> float:
    """Median seconds of a call."""
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return median(spent)
