"""Runs of PyTorch for `cluster.py`: Adam on one process, or data-parallel on several (DistributedDataParallel, gloo).

    python benchmarks/cluster_ddp.py '{"task": "autoencoder", "processes": 2, "batch": 128, "rate": 0.01, …}'

prints a line of JSON. As fast as is fair: fused Adam, one thread a process, denormals flushed, and one process goes
without DistributedDataParallel, whose buckets would only cost it time. A DataLoader gives whole batches, cut from
shuffled chunks in shuffled order; a chunk is read from the very zarr store that altmin trains on, and is kept in memory
from then on as long as all that is kept fits. Every process has as many rows of an epoch as any other, so that none
waits for batches that others have no more. How they go on is agreed on where the first evaluates, not at every step.

Weights begin as altmin's, and the seconds of making them are on the clock. Their running means are as in
`contestants.py`: those of several decays in the search, whose mean cost is charged, and then the best one, or none.
Only the first process makes them, and evaluates, off the clock, while the others wait.

    python benchmarks/cluster_ddp.py --check train.zarr [--batch 128]

compares rows a second of this loop with those of a plain loop over tensors in memory, on an auto-encoder.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from cluster_ours import TASKS, encoder
from contestants import SLICE, torch_model
from quality_clock import Means, Run, evaluation_moments, mix_tensors
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset

from altmin_dask.data.sample_store import SampleStore

KEPT_BYTES = 1 << 30
"""Of samples that a process keeps in memory."""
FIRST_MOMENT, MOMENTS_A_DECADE = 0.1, 24
"""Of evaluations, in wall seconds: a tenth apart."""
FIRST_STEPS = 4
"""Before it is known how long a step takes."""

Batch = tuple[torch.Tensor, torch.Tensor]


def share_of(sizes: list[int], order: list[int], rank: int, processes: int) -> Iterator[tuple[int, int, int]]:
    """What one process has of an epoch: chunk, first and last row; as much of all chunks as any other."""
    each = sum(sizes) // processes
    begin, end, passed = rank * each, (rank + 1) * each, 0
    for chunk in order:
        first, last = max(begin - passed, 0), min(end - passed, sizes[chunk])
        if first < last:
            yield chunk, first, last
        passed += sizes[chunk]


class Chunks(IterableDataset[Batch]):  # type: ignore[misc, unused-ignore]
    """Batches of a store without end; the rows of an epoch that fill no batch are left out."""

    def __init__(self, path: str, batch: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        super().__init__()
        self.batch, self.seed, self.rank, self.processes = batch, seed, rank, processes
        self.store = SampleStore.open(path)
        rows, size = self.store.rows, self.store.chunk_rows
        self.sizes = [min(size, rows - begin) for begin in range(0, rows, size)]
        self.kept: dict[int, Batch] = {}

    def __iter__(self) -> Iterator[Batch]:
        for number in count():
            yield from self.epoch(number)

    def epoch(self, number: int) -> Iterator[Batch]:
        """All batches of one, in an order that every process knows."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.sizes)).tolist()
        own = torch.Generator().manual_seed(hash((self.seed, number, self.rank)) % (1 << 63))
        left: Batch | None = None
        for chunk, first, last in share_of(self.sizes, order, self.rank, self.processes):
            x, y = self.chunk(chunk)
            rows = torch.randperm(last - first, generator=own) + first
            wanted = self.batch - (0 if left is None else len(left[0]))
            for some in rows[:wanted], *rows[wanted:].split(self.batch):  # type: ignore[no-untyped-call, unused-ignore]
                piece = x[some], y[some]
                if left is not None:
                    piece = torch.cat([left[0], piece[0]]), torch.cat([left[1], piece[1]])
                    left = None
                if len(piece[0]) == self.batch:
                    yield piece
                elif len(piece[0]):
                    left = piece

    def chunk(self, number: int) -> Batch:
        """Of the store, or of memory."""
        if number in self.kept:
            return self.kept[number]
        rows = slice(number * self.store.chunk_rows, number * self.store.chunk_rows + self.sizes[number])
        x = torch.from_numpy(np.asarray(self.store.x[rows])).reshape(self.sizes[number], -1)
        if self.store.y is None:
            y = torch.zeros(len(x), dtype=torch.int64)
        else:
            y = torch.from_numpy(np.asarray(self.store.y[rows]).astype(np.int64))
        if (len(self.kept) + 1) * (x.nbytes + y.nbytes) <= KEPT_BYTES:
            self.kept[number] = x, y
        return x, y


class Trainee:
    """The network on one of the processes, with its optimizer and its batches."""

    def __init__(self, spec: dict[str, Any], rank: int) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        task, processes = TASKS[spec["task"]], spec["processes"]
        self.labels, self.percent = task.labels, task.percent
        with np.load(spec["start"]) as file:
            first, *weights = (file[name] for name in file.files)
        self.start_seconds = float(first)
        self.model = torch_model(task.network, weights, labels=self.labels)
        self.net = (
            DistributedDataParallel(self.model, gradient_as_bucket_view=True) if processes > 1 else self.model
        )
        self.parameters = list(self.model.parameters())
        self.optimizer: Any = torch.optim.Adam(self.parameters, lr=spec["rate"], fused=True)
        chunks = Chunks(spec["stores"]["train"], spec["batch"], spec["seed"], rank, processes)
        self.rows, self.rows_a_step = sum(chunks.sizes), spec["batch"] * processes
        self.batches = iter(DataLoader(chunks, batch_size=None))

    def loss(self, net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The sum over some samples."""
        if self.labels:
            return functional.cross_entropy(net(x), y, reduction="sum")
        return functional.mse_loss(net(x), x, reduction="sum") / 2

    def step(self) -> None:
        x, y = next(self.batches)
        self.optimizer.zero_grad()
        (self.loss(self.net, x, y) / len(x)).backward()  # type: ignore[no-untyped-call, unused-ignore]
        self.optimizer.step()

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def quality(self, net: Any, held_out: Batch) -> float:
        """As `cluster_ours.quality`."""
        total = 0.0
        for x, y in zip(held_out[0].split(SLICE), held_out[1].split(SLICE), strict=True):  # type: ignore[no-untyped-call, unused-ignore]
            total += float((net(x).argmax(1) != y).sum() * 100 if self.percent else self.loss(net, x, y))
        return total / len(held_out[0])


class Judge:
    """What the first process has besides: the clock, the running means and the curves."""

    def __init__(self, spec: dict[str, Any], trainee: Trainee) -> None:
        self.trainee, self.target = trainee, TASKS[spec["task"]].thresholds[-1]
        held_out = Chunks(spec["stores"]["validation"], 1, 0)
        some = [held_out.chunk(number) for number in range(len(held_out.sizes))]
        together = torch.cat([x for x, _ in some]), torch.cat([y for _, y in some])
        shadows = [copy.deepcopy(trainee.model) for _ in spec["averages"]]
        means = Means(spec["averages"], [list(shadow.parameters()) for shadow in shadows], mix_tensors)
        self.run = Run(
            spec["seconds"],
            lambda net: trainee.quality(net, together),
            [trainee.model, *shadows],
            means,
            trainee.rows,
            evaluation_moments(FIRST_MOMENT, MOMENTS_A_DECADE),
            clock=time.perf_counter,
        )
        first = trainee.quality(trainee.model, together)
        for curve in self.run.curves.values():
            curve.append((trainee.start_seconds, first, 0.0))
        self.cpu, self.steps = [trainee.start_seconds], 0

    def start(self, cpu: float) -> None:
        self.run.start(self.trainee.start_seconds)
        self.cpu_off = cpu - self.trainee.start_seconds

    def step_done(self) -> None:
        self.run.means.update(self.trainee.parameters)
        self.run.visited += self.trainee.rows_a_step
        self.steps += 1

    def next_steps(self, cpu: float) -> int:
        """Steps till the next evaluation, after that which is due; 0 to end."""
        before, points = time.process_time(), len(self.run.curves["raw"])
        goes_on = self.run.goes_on()
        if len(self.run.curves["raw"]) > points:
            self.cpu.append(cpu - self.cpu_off)
        self.cpu_off += time.process_time() - before
        met = any(curve[-1][1] <= self.target for curve in self.run.curves.values())
        if not goes_on or met:
            return 0
        each = (self.run.averaged - self.trainee.start_seconds) / self.steps
        left = min(self.run.next, self.run.seconds) - self.run.averaged
        return max(1, math.ceil(left / each)) if self.steps > FIRST_STEPS else FIRST_STEPS

    def result(self) -> dict[str, Any]:
        curves = {
            name: [[*point, cpu] for point, cpu in zip(curve, self.cpu, strict=False)]
            for name, curve in self.run.curves.items()
        }
        seconds = self.run.curves["raw"][-1][0] - self.trainee.start_seconds
        return {"curves": curves, "rows_per_second": self.run.visited / seconds, "status": self.run.status}


def agreed(value: float, processes: int, *, added: bool) -> float:
    """The sum of what all processes have, or what the first one has."""
    if processes == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(told) if added else dist.broadcast(told, 0)
    return float(told)


def child(rank: int, spec: dict[str, Any], meeting: str) -> None:
    """One of the processes; the first prints the result."""
    processes = spec["processes"]
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    trainee = Trainee(spec, rank)
    judge = Judge(spec, trainee) if rank == 0 else None
    steps, cpu = FIRST_STEPS, agreed(time.process_time(), processes, added=True)
    if judge:
        judge.start(cpu)
    while steps:
        for _ in range(steps):
            trainee.step()
            if judge:
                judge.step_done()
        cpu = agreed(time.process_time(), processes, added=True)
        steps = int(agreed(judge.next_steps(cpu) if judge else 0, processes, added=False))
    if judge:
        print(json.dumps(judge.result()), flush=True)
    if processes > 1:
        dist.destroy_process_group()


def check(store: str, batch: int, seconds: float) -> str:
    """Rows a second on 784-300-784, of a plain loop and of this one, in turns."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    chunks, rng = Chunks(store, batch, 0), np.random.default_rng(0)
    x = torch.cat([chunks.chunk(number)[0] for number in range(len(chunks.sizes))])
    shapes = ((300, x.shape[1] + 1), (x.shape[1], 301))
    found: dict[str, list[float]] = {"plain": [], "DataLoader": []}

    def plain() -> Iterator[Batch]:
        while True:
            for rows in torch.randperm(len(x)).split(batch):  # type: ignore[no-untyped-call, unused-ignore]
                yield x[rows], rows

    for _ in range(3):
        for name, batches in (("plain", plain()), ("DataLoader", iter(DataLoader(chunks, batch_size=None)))):
            weights = [rng.standard_normal(shape).astype(np.float32) * 0.05 for shape in shapes]
            model = torch_model(encoder([300], "sigmoid"), weights, labels=False)
            optimizer: Any = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
            visited, start = 0, time.process_time()
            while time.process_time() - start < seconds:
                rows, _ = next(batches)
                optimizer.zero_grad()
                loss: Any = functional.mse_loss(model(rows), rows, reduction="sum") / 2 / len(rows)
                loss.backward()
                optimizer.step()
                visited += len(rows)
            found[name].append(visited / (time.process_time() - start))
    best = {name: max(values) for name, values in found.items()}
    ratio = best["DataLoader"] / best["plain"]
    return ", ".join(f"{k} {v:.0f} rows a CPU second" for k, v in best.items()) + f": ratio {ratio:.2f}"


def main() -> None:
    if sys.argv[1:2] == ["--check"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--check")
        parser.add_argument("--batch", type=int, default=128)
        parser.add_argument("--seconds", type=float, default=3.0)
        options = parser.parse_args()
        print(check(options.check, options.batch, options.seconds))
        return
    spec = json.loads(sys.argv[1])
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine
    with tempfile.TemporaryDirectory(prefix="ddp-") as home:
        if spec["processes"] == 1:
            child(0, spec, "")
        else:
            spawn(child, (spec, f"{home}/meeting"), nprocs=spec["processes"])  # type: ignore[no-untyped-call, unused-ignore]


if __name__ == "__main__":
    main()
