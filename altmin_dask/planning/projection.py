"""What a run will need, known before it begins: memory of a task and of a worker, disk, and traffic.

`project` is a pure function of plain numbers. Every array of `altmin_dask.planning.memory` counts, the statistics of
other tasks that wait to be added and the weights included, and tasks of a worker count as if all were at their worst
at once. So measured peaks stay below the projection, and above half of it (`benchmarks/memory.py`).

Three things are bounds by experience, not sums of arrays: `ALLOWANCE`, `THREAD_ALLOWANCE` and `MARGIN`. Runs that
need little more than these are projected too high.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from distributed.system import MEMORY_LIMIT

from altmin_dask.execution.allocator import LARGE
from altmin_dask.execution.pieces import branch
from altmin_dask.execution.resources import Resources
from altmin_dask.planning.kfac_memory import (
    gradient_task,
    kept_samples,
    kfac_task,
    kfac_trainer,
    local_steps_task,
    quadratic_model_task,
    series_task,
    state_numbers,
    takes_series,
)
from altmin_dask.planning.memory import (
    Task,
    Workload,
    enter_task,
    evaluate_task,
    moments_task,
    objective_task,
    trainer,
    visit_task,
)
from altmin_dask.solvers.kronecker import KroneckerSums
from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.statistics import DOUBLE, Statistics
from altmin_dask.storage.weights import KEPT_READINGS

BASELINE = 200 << 20
"""Resident memory of a worker that has imported everything and does nothing."""
PROGRAM = 280 << 20
"""Resident memory of the process that trains at its end, without what it trained on: 60 MiB are of the report's
drawing, and 30 of the page's (row 116)."""
SCHEDULER = 32 << 20
"""For the scheduler of a local cluster, which is in the process that trains."""
ALLOWANCE = 8 << 20
"""For what is not an array: Dask's graph, messages and bookkeeping, and what the allocator holds back."""
THREAD_ALLOWANCE = 7 << 20
"""Buffers of BLAS for small matrices, and small arrays that the allocator keeps, in each thread.

On a busy machine peaks of two threads with little else varied by 12 MiB in 45 runs (row 105)."""
MARGIN = 1.05
"""For what the system rounds up: NumPy asks for huge pages under large arrays."""
BLAS_PANEL_ROWS = 384
"""BLAS packs this many rows of an operand at a time, in float64."""
USABLE = 0.6
"""Share of a memory limit that a plan may fill: Dask workers spill at 0.7 and pause at 0.8."""
TOGETHER = 0.8
"""Share of a machine's memory that the plans of all processes on it may fill, with a scheduler among them: the rest is
for the system and what else there is (chosen, not measured)."""
TASK_FLOPS = 6e10
"""About what a core does in a second: chunks of longer tasks save no overhead, and lose more when they are killed."""
CHUNKS_PER_THREAD = 4
"""At least so many chunks for each thread, so that all are busy to near the end of a sweep."""


@dataclass(frozen=True)
class Projection:
    """What a run needs; sizes in bytes, memory above that of an idle process.

    Attributes
    ----------
    chunk_rows, chunks, groups, tasks : int
        Rows in a chunk, chunks, groups of chunks that are one step each, and tasks of a sweep.
    task_peak : int
        Memory of one task at its worst.
    worker_peak : int
        Memory of one worker at its worst; of this process, if its threads are the workers.
    client_peak : int
        Memory of the process that trains, where workers are others.
    data_disk, z_disk : int
        Samples on disk, and z at its largest: all of it and the next generation of one group.
    sweep_read, sweep_written : int
        Bytes of x, y and z that a sweep reads, and of z that it writes.
    task_statistics, group_statistics : int
        Bytes of statistics that one task sends, and all tasks of a group.
    """

    chunk_rows: int
    chunks: int
    groups: int
    tasks: int
    task_peak: int
    worker_peak: int
    client_peak: int
    data_disk: int
    z_disk: int
    sweep_read: int
    sweep_written: int
    task_statistics: int
    group_statistics: int


def project(work: Workload) -> Projection:
    """Project memory, disk and traffic of a run."""
    if work.kfac:
        statistics, z_row, readings = _sent(work), 0, KEPT_READINGS
        tasks, kept = _kfac(work)
    else:
        statistics = DOUBLE * packed_size(Statistics.layout(work.shapes, with_inputs=False))
        tasks, z_row, readings = _persistent(work), work.latent_bytes, 2
        kept = 0
    group = min(work.group_chunks, work.chunks)
    tasks.append(evaluate_task(work, work.chunk_rows, work.rows))
    if work.validation_chunk_rows:
        tasks.append(evaluate_task(work, work.validation_chunk_rows, work.validation_rows))
    # threads live on between tasks of one kind and of another, and so do their scratch arrays
    living = {k: v for task in tasks for k, v in task.scratch.items()}
    scratch = [sum({**living, **task.scratch}.values()) for task in tasks]
    if work.whitened:  # before all others
        tasks.append(moments_task(work))
        scratch.append(sum(tasks[-1].scratch.values()))
    weights = work.itemsize * sum(d * k for d, k in work.shapes)
    thread = _thread(work)
    # updates in the cache, one read twice by threads that begin together, and its file mapped meanwhile
    shared = ALLOWANCE + (readings + work.threads) * weights + kept
    steps = []
    for task, own in zip(tasks, scratch, strict=True):
        busy = min(work.threads, task.chunks)
        steps.append(
            busy * task.held + work.threads * (own + thread) + task.row * _waiting(task.chunks, work) + shared
        )
    resident, solving = kfac_trainer(work) if work.kfac else trainer(work)
    # graphs are made there, and a scheduler may be, too; a chunk is read for its scales, as it is kept and as it is
    worker = max(steps)
    client = SCHEDULER + 3 * ALLOWANCE + resident + solving + 2 * work.chunk_rows * work.x_bytes
    if work.in_process:
        # threads that wait for the W-update have their scratch arrays, and where they are one with it, or groups are
        # under way meanwhile, what they were at
        waiting = shared + work.threads * (sum(living.values()) + thread)
        together = work.max_staleness or work.threads == 1
        worker, client = resident + max(max(steps) + (solving if together else 0), waiting + solving), 0
    data_row = work.x_bytes + work.y_bytes
    whole, rest = divmod(work.chunks, group)
    return Projection(
        chunk_rows=work.chunk_rows,
        chunks=work.chunks,
        groups=math.ceil(work.chunks / group),
        tasks=whole * _tasks(group, work) + (_tasks(rest, work) if rest else 0),
        task_peak=round(
            MARGIN * (max(task.held + own for task, own in zip(tasks, scratch, strict=True)) + thread)
        ),
        worker_peak=round(MARGIN * worker),
        client_peak=round(MARGIN * client),
        data_disk=(work.rows + work.validation_rows) * data_row + work.rows * work.row_bytes,
        z_disk=(work.rows + min(group * work.chunk_rows, work.rows)) * z_row,
        sweep_read=work.rows * (work.readings * data_row + z_row),
        sweep_written=work.rows * z_row,
        task_statistics=statistics,
        group_statistics=group * statistics,
    )


def _thread(work: Workload) -> int:
    """What each thread has whatever it does, and the one that reads for it: the memory of a chunk, for the next.

    Heaps may keep twice `allocator.LARGE` each; of what they do, this is what was measured (row 92).
    """
    packed = BLAS_PANEL_ROWS * DOUBLE * max(map(max, work.shapes))
    return THREAD_ALLOWANCE + packed + min(work.chunk_rows * work.x_bytes, LARGE)


def _persistent(work: Workload) -> list[Task]:
    """With L2 residuals may have to be formed for a record; the others may look at the gradient of all samples."""
    looking = gradient_task(work) if work.has_dual else objective_task(work)
    return [visit_task(work), enter_task(work), looking]


def idle(place: Resources) -> int:
    """Bytes of a process with tasks, while it has none: a worker, or the one that trains."""
    return PROGRAM if place.in_process else BASELINE


def usable(place: Resources, without: int | None = None) -> float:
    """Bytes that a process with tasks may need above those it takes idle, or above `without`."""
    if place.memory_limit is None:
        return math.inf
    return USABLE * place.memory_limit - (idle(place) if without is None else without)


def shared(place: Resources) -> float:
    """Bytes that all processes of a run may need; no limit where there is one, or nobody knows where they are."""
    return math.inf if place.in_process or place.running else TOGETHER * MEMORY_LIMIT


def machine_memory(projection: Projection, workers: int) -> int:
    """Bytes of so many workers and the process that trains, all of them on one machine."""
    return workers * (BASELINE + projection.worker_peak) + PROGRAM + projection.client_peak


def largest_chunk_rows(work: Workload, memory: float, together: float = math.inf) -> int:
    """Find the most rows in a chunk with which a worker needs no more than `memory`; 0 if not even one fits.

    All processes need no more than `together`, where they are on one machine. A chunk larger than all samples is not
    looked for. Chunks for validation are at most as large.
    """

    def fits(rows: int) -> bool:
        small = project(
            replace(work.chunked(rows), validation_chunk_rows=min(work.validation_chunk_rows, rows))
        )
        return small.worker_peak <= memory and machine_memory(small, work.workers) <= together

    # not quite monotone: fewer chunks have fewer statistics that wait
    low = max((n for n in (1 << i for i in range(work.rows.bit_length())) if fits(n)), default=0)
    high = max(0, min(2 * low - 1, work.rows))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def task_rows(work: Workload) -> int:
    """Rows that are about a second's work of one core, but few enough for all threads to have chunks."""
    layers = work.network.layers
    products = sum(layer.size * layer.inputs for layer in layers)
    inner = sum(layer.steps * layer.inputs**2 for layer in layers[1:])
    # residuals twice, tangent and adjoint sweeps, and the statistics, float64 at half the rate
    flops = 2.0 * (6 * products + 2 * (products + inner) * (2 if work.incremental else 1))
    if work.exact:
        flops += 10.0 * sum(work.widths) ** 3
    enough = math.ceil(work.rows / (CHUNKS_PER_THREAD * work.workers * work.threads))
    return max(1, min(int(TASK_FLOPS / flops), enough))


def _kfac(work: Workload) -> tuple[list[Task], int]:
    """Tasks of K-FAC steps, and what stays in a worker between them."""
    if work.chunk_steps > 1:
        # of weights with all that is remembered as many files are kept as of weights
        return [local_steps_task(work)], KEPT_READINGS * work.itemsize * state_numbers(work)
    tasks, held = [kfac_task(work), quadratic_model_task(work)], kept_samples(work)
    if takes_series(work):
        return [*tasks, series_task(work)], held + KEPT_READINGS * work.itemsize * state_numbers(work)
    return tasks, held


def _sent(work: Workload) -> int:
    """Bytes that a task of K-FAC steps sends."""
    if work.chunk_steps > 1:
        return DOUBLE * (1 + state_numbers(work))
    return work.itemsize * packed_size(KroneckerSums.layout(work.shapes, curvature=True, forms=work.forms))


def _waiting(chunks: int, work: Workload) -> int:
    """Rows of statistics that wait in a worker for the rest of their branch, and those they are added up in."""
    waiting, adding, together = 0, 1, branch(work.split_every)
    while chunks > 1:
        waiting += min(together, chunks) - 1
        adding = max(adding, (min(together, chunks) - 1).bit_length())
        chunks = math.ceil(chunks / together)
    return waiting + adding


def _tasks(chunks: int, work: Workload) -> int:
    """Those of a group: of a step, and by K-FAC steps also those that read and keep samples, and the probe's."""
    if work.kfac and work.chunk_steps > 1:
        # a few are added where they are waited for
        return chunks if chunks <= branch(work.split_every) else _summed(chunks, branch(work.split_every))
    chunks *= work.cut.tasks if work.kfac else 1
    summed = _summed(chunks, branch(work.split_every))
    return 2 * summed - 1 + 2 * (1 + bool(work.y_bytes)) * chunks if work.kfac else summed


def _summed(chunks: int, split_every: int) -> int:
    """One for each chunk, and the tree that adds up their statistics."""
    tasks = chunks
    alone = False
    while chunks > split_every:
        # a sum of one goes on to the next sum of one within a task
        before, alone = alone, chunks % split_every == 1
        chunks = math.ceil(chunks / split_every)
        tasks += chunks - (before and alone)
    return tasks + 1
