"""What a run will need, known before it begins: memory of a task and of a worker, disk, and traffic.

`project` is a pure function of plain numbers. It lists the arrays that the code really makes: the chunk as it is
read, decoded, written and checked; the scratch arrays of a thread (`altmin_dask.networks.workspace`), which hold a
block of `BLOCK_ROWS` rows whatever the chunk is; the float64 statistics, those of other tasks that wait to be added
included; the weights; and in the process that trains, its state, its factorisations and the copies it commits.
Every array counts with its full size, and tasks of a worker as if all were at their worst at once. So measured peaks
stay below the projection, and above half of it (`benchmarks/memory.py`).

Three things are bounds by experience, not sums of arrays: `ALLOWANCE`, `THREAD_ALLOWANCE` and `MARGIN`. Runs that
need little more than these are projected too high.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from altmin_dask.networks.workspace import STRIP_SIZE
from altmin_dask.solvers.chunks import BLOCK_ROWS
from altmin_dask.solvers.exact import SLAB_BYTES
from altmin_dask.solvers.statistics import packed_size

DOUBLE = 8
BASELINE = 200 << 20
"""Resident memory of a process that has imported everything and does nothing."""
ALLOWANCE = 8 << 20
"""For what is not an array: Dask's graph, messages and bookkeeping, and what the allocator holds back."""
THREAD_ALLOWANCE = 3 << 20
"""Buffers of BLAS for small matrices, and small arrays that the allocator keeps, in each thread."""
MARGIN = 1.05
"""For what the system rounds up: NumPy asks for huge pages under large arrays."""
BLAS_PANEL_ROWS = 384
"""BLAS packs this many rows of an operand at a time, in float64."""
USABLE = 0.6
"""Share of a memory limit that a plan may fill: Dask workers spill at 0.7 and pause at 0.8."""
TASK_FLOPS = 6e10
"""About what a core does in a second: chunks of longer tasks save no overhead, and lose more when they are killed."""
CHUNKS_PER_THREAD = 4
"""At least so many chunks for each thread, so that all are busy to near the end of a sweep."""


@dataclass(frozen=True)
class Workload:
    """A run in plain numbers.

    Attributes
    ----------
    sizes : tuple of int
        d_0 … d_L of the network.
    itemsize : int
        Bytes of a number in weights and z.
    rows, chunk_rows : int
        Samples, and those in a chunk.
    x_bytes, y_bytes : int
        Bytes of one sample and of its target, as stored; 0 without targets.
    y_converted : bool
        Whether targets are converted to the weights' dtype, a chunk at a time.
    compressed, z_compressed : bool
        Whether samples and z are compressed, so that a chunk is in memory once more while it is read or written.
    validation_rows, validation_chunk_rows : int
        Of the validation store; 0 without one.
    group_chunks : int
        Chunks of one step (all of them for batch sweeps).
    whitened, exact : bool
        Whether the first layer is whitened, and curvature is exact.
    incremental : bool
        Whether statistics are replaced group by group, rather than all at once.
    newton_steps : int
        As in `[solver]`.
    split_every : int
        As in `[cluster]`.
    workers, threads : int
        Worker processes, and threads of each.
    in_process : bool
        Whether the threads are those of the process that trains.
    """

    sizes: tuple[int, ...]
    rows: int
    chunk_rows: int
    x_bytes: int
    y_bytes: int = 0
    itemsize: int = 4
    y_converted: bool = False
    compressed: bool = False
    z_compressed: bool = False
    validation_rows: int = 0
    validation_chunk_rows: int = 0
    group_chunks: int = 1
    whitened: bool = False
    exact: bool = False
    incremental: bool = True
    newton_steps: int = 1
    split_every: int = 4
    workers: int = 1
    threads: int = 1
    in_process: bool = True

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return math.ceil(self.rows / self.chunk_rows)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of each W̃_i."""
        return tuple((d, k + 1) for k, d in zip(self.sizes[:-1], self.sizes[1:], strict=True))


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
    statistics = DOUBLE * packed_size(work.shapes, with_inputs=False)
    group = min(work.group_chunks, work.chunks)
    z_row = work.itemsize * sum(work.sizes[1:])
    tasks = [_visit(work), _enter(work), _evaluate(work, work.chunk_rows)]
    if work.validation_chunk_rows:
        tasks.append(_evaluate(work, work.validation_chunk_rows))
    if work.whitened:
        tasks.append(_moments(work))
    # threads of our own end with a step, and their scratch arrays with them; those of a worker live on
    kept = {} if work.in_process else {k: v for task in tasks for k, v in task.scratch.items()}
    scratch = [sum({**kept, **task.scratch}.values()) for task in tasks]
    weights = work.itemsize * sum(d * k for d, k in work.shapes)
    thread = THREAD_ALLOWANCE + BLAS_PANEL_ROWS * DOUBLE * (max(work.sizes) + 1)
    # two updates in the cache, one read twice by threads that begin together, and its file mapped meanwhile
    shared = ALLOWANCE + (2 + work.threads) * weights
    steps = []
    for task, own in zip(tasks, scratch, strict=True):
        busy = min(work.threads, task.chunks)
        own_threads = busy if work.in_process else work.threads
        steps.append(
            busy * task.held + own_threads * (own + thread) + task.row * _waiting(task.chunks, work) + shared
        )
    resident, solving = _client(work, weights)
    worker, client = max(steps), ALLOWANCE + resident + solving
    if work.in_process:
        worker, client = max(worker + resident, client), 0
    data_row = work.x_bytes + work.y_bytes
    return Projection(
        chunk_rows=work.chunk_rows,
        chunks=work.chunks,
        groups=math.ceil(work.chunks / group),
        tasks=sum(
            _tasks(min(group, work.chunks - start), work.split_every)
            for start in range(0, work.chunks, group)
        ),
        task_peak=round(MARGIN * (max(task.held + own for task, own in zip(tasks, scratch, strict=True)) + thread)),
        worker_peak=round(MARGIN * worker),
        client_peak=round(MARGIN * client),
        data_disk=(work.rows + work.validation_rows) * data_row,
        z_disk=(work.rows + min(group * work.chunk_rows, work.rows)) * z_row,
        sweep_read=work.rows * (data_row + z_row),
        sweep_written=work.rows * z_row,
        task_statistics=statistics,
        group_statistics=group * statistics,
    )  # fmt: skip


def largest_chunk_rows(work: Workload, memory: float) -> int:
    """Find the most rows in a chunk with which a worker needs no more than `memory`; 0 if not even one fits.

    A chunk larger than all samples is not looked for. Chunks for validation are at most as large.
    """

    def fits(rows: int) -> bool:
        return (
            project(
                replace(work, chunk_rows=rows, validation_chunk_rows=min(work.validation_chunk_rows, rows))
            ).worker_peak
            <= memory
        )

    low, high = 0, work.rows
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def task_rows(work: Workload) -> int:
    """Rows that are about a second's work of one core, but few enough for all threads to have chunks."""
    products = sum(d * k for d, k in work.shapes)
    inner = sum(k * k for _, k in work.shapes[1:])
    # residuals twice, tangent and adjoint sweeps, and the statistics, float64 at half the rate
    flops = 2.0 * (6 * products + 2 * (products + inner) * (2 if work.incremental else 1))
    if work.exact:
        flops += 10.0 * sum(work.sizes[1:]) ** 3
    enough = math.ceil(work.rows / (CHUNKS_PER_THREAD * work.workers * work.threads))
    return max(1, min(int(TASK_FLOPS / flops), enough))


@dataclass(frozen=True)
class _Task:
    """One kind of task: what its thread keeps by name, what else it holds at its worst, the row it sends."""

    scratch: dict[tuple[str, int, int], int]
    held: int
    row: int
    chunks: int


def _visit(work: Workload) -> _Task:
    """The z-update of a chunk: x, y and z as they are read, the new z as it is written, and in between Newton."""
    n, s, width = work.chunk_rows, work.itemsize, sum(work.sizes[1:])
    scratch = _Scratch(work)
    scratch.point("start", with_z=False)
    for number in range(min(work.newton_steps, 2)):
        scratch.point(f"trial {number}", with_z=True)
    scratch.point("shortened", with_z=False)
    scratch.common()
    if not work.exact:
        scratch.newton()
    scratch.statistics(with_inputs=False, moved=work.incremental)
    block = min(n, BLOCK_ROWS)
    # samples that are cut are copied out: their inputs, drive, targets and trial z
    cut = block * s * (work.sizes[0] + 1 + work.sizes[1] + work.sizes[-1] + width + 2 * max(work.sizes[1:]))
    newton = max(cut, _exact(work, block)) if work.exact else cut
    x, y, z = n * work.x_bytes, n * work.y_bytes, n * s * width
    reading = max(x * (3 if work.compressed else 2), x + y + z * (3 if work.z_compressed else 2))
    row = DOUBLE * packed_size(work.shapes, with_inputs=False)
    converted = n * s * work.sizes[-1] if work.y_converted else 0
    target = block * s * work.sizes[0] if s > 4 else 0
    computing = x + y + converted + 2 * z + row + newton + target
    writing = x + y + converted + z * (4 if work.z_compressed else 3) + row
    return _Task(scratch.arrays, max(reading, computing, writing), row, min(work.group_chunks, work.chunks))


def _enter(work: Workload) -> _Task:
    """A forward pass, all that is known at its z, all statistics, and z as it is written."""
    n, s, width = work.chunk_rows, work.itemsize, sum(work.sizes[1:])
    scratch, passing = _Scratch(work), _Scratch(work)
    scratch.statistics(with_inputs=True, moved=False)
    passing.point("", with_z=False)
    passing.common()
    x, y, z = n * work.x_bytes, n * work.y_bytes, n * s * width
    row = DOUBLE * packed_size(work.shapes, with_inputs=True)
    converted = n * s * work.sizes[-1] if work.y_converted else 0
    computing = z + max(_forward(work), min(n, BLOCK_ROWS) * s * width + sum(passing.arrays.values()))
    written = z * (3 if work.z_compressed else 2)
    held = max(x * (3 if work.compressed else 2), x + y + converted + row + max(computing, written))
    return _Task(scratch.arrays, held, row, work.chunks)


def _evaluate(work: Workload, chunk_rows: int) -> _Task:
    """A forward pass and its loss."""
    n, block = chunk_rows, min(chunk_rows, BLOCK_ROWS)
    x, y = n * work.x_bytes, n * work.y_bytes
    converted = n * work.itemsize * work.sizes[-1] if work.y_converted else 0
    loss = block * work.itemsize * (sum(work.sizes[1:]) + 3 * work.sizes[-1])
    held = max(x * (3 if work.compressed else 2), x + y + converted + max(_forward(work), loss))
    return _Task({}, held, 0, work.chunks)


def _moments(work: Workload) -> _Task:
    """The Gram matrix of the samples, block by block in float64."""
    n, k = work.chunk_rows, work.sizes[0] + 1
    row = DOUBLE * (k * k + work.sizes[-1])
    summing = 2 * DOUBLE * k * k + max(DOUBLE * min(n, BLOCK_ROWS) * k, row)
    held = max(n * work.x_bytes * (3 if work.compressed else 2), n * (work.x_bytes + work.y_bytes) + summing)
    return _Task({}, held, row, work.chunks)


def _forward(work: Workload) -> int:
    """Temporary arrays of a forward pass of a block: z of all layers, and the inputs of one or two."""
    block = min(work.chunk_rows, BLOCK_ROWS)
    inputs = [k for _, k in work.shapes]
    return block * work.itemsize * (sum(work.sizes[1:]) + inputs[0] + max(inputs[1:], default=0))


class _Scratch:
    """The named arrays of a thread: their key is the name, the columns and the itemsize."""

    def __init__(self, work: Workload) -> None:
        self.work, self.rows = work, min(work.chunk_rows, BLOCK_ROWS)
        self.arrays: dict[tuple[str, int, int], int] = {}

    def take(self, name: str, columns: int, itemsize: int | None = None, rows: int | None = None) -> None:
        size = itemsize or self.work.itemsize
        self.arrays[name, columns, size] = (self.rows if rows is None else rows) * columns * size

    def point(self, name: str, *, with_z: bool) -> None:
        """What `Chain.evaluate` keeps, and the z of a trial."""
        widths = self.work.sizes[1:]
        for layer, d in enumerate(widths):
            self.take(f"{name} residual {layer}", d)
            if with_z:
                self.take(f"{name} z {layer}", d)
        for layer, d in enumerate(widths[:-1]):
            self.take(f"{name} inputs {layer}", d + 1)
        self.take(f"{name} output", widths[-1])

    def common(self) -> None:
        """The samples, their drive, and arrays of one strip."""
        self.take("inputs", self.work.sizes[0] + 1)
        self.take("drive", self.work.sizes[1])
        for name in ("loss error", "loss gradient", "loss curvature", "shift"):
            self.take(name, self.work.sizes[-1], rows=self._strip(self.work.sizes[-1]))

    def newton(self) -> None:
        """Conjugate gradients, tangent and adjoint sweeps."""
        *hidden, out = self.work.sizes[1:]
        for name in ("step", "at output", "smoothed", *(("cg e", "cg bent") if hidden else ())):
            self.take(name, out)
        for layer, d in enumerate(hidden):
            for name in ("cg residual", "cg direction", "cg step", "slope", "tangent", "adjoint"):
                self.take(f"{name} {layer}", d)
            self.take(f"image {layer}", self.work.sizes[layer + 2])
        for d in self.work.sizes[1:]:
            for name in ("pull", "scaled"):
                self.take(name, d, rows=self._strip(d))

    def statistics(self, *, with_inputs: bool, moved: bool) -> None:
        """Float64 copies of z and inputs, and a product."""
        for layer, (d, k) in enumerate(self.work.shapes):
            self.take("z64", d, DOUBLE)
            self.take("inputs64", k, DOUBLE)
            if layer or with_inputs:
                self.take("gram", k, DOUBLE, rows=k)
        if moved:
            self.take("moved", self.work.sizes[1], DOUBLE)

    def _strip(self, columns: int) -> int:
        return min(self.rows, max(1, STRIP_SIZE // columns))


def _exact(work: Workload, block: int) -> int:
    """`altmin_dask.solvers.exact`: F to second order in float64, and matrices of as many samples as fit a slab."""
    widths = work.sizes[1:]
    width, hidden = sum(widths), sum(widths[:-1])
    matrices = DOUBLE * sum(d * (k - 1) for d, k in work.shapes)
    one = DOUBLE * width * width
    slab = min(block, max(1, SLAB_BYTES // one)) * one
    # by Cholesky: a slab, the two products that fill it, a factor; by eigenvalues: six matrices of a quarter slab
    filled = 1 + 2 * max((d * d for d in widths[:-1]), default=0) / width**2
    solving = max(int(slab * filled) + one, 6 * max(slab // 4, one))
    expanding = 5 * width + hidden + 2 * widths[-1]
    return matrices + max(DOUBLE * block * expanding, DOUBLE * block * (3 * width + hidden) + solving)


def _client(work: Workload, weights: int) -> tuple[int, int]:
    """What the process that trains holds during a step, and what it needs on top between two steps."""
    shapes = work.shapes
    state = weights + DOUBLE * packed_size(shapes, with_inputs=True)
    resident = state + DOUBLE * shapes[0][1] ** 2  # the first layer's factor, kept while no samples enter
    received = DOUBLE * packed_size(shapes, with_inputs=True)
    # a copy, its factor, and where that fails eigenvectors, LAPACK's work space and a basis
    solve = max(DOUBLE * (6 * k * k + 4 * d * k) for d, k in shapes)
    whitening = DOUBLE * 6 * shapes[0][1] ** 2 if work.whitened else 0
    return resident, max(received + weights + solve, state, received + whitening)


def _waiting(chunks: int, work: Workload) -> int:
    """Rows of statistics that wait in a worker for the rest of their branch, and the one they are added up in."""
    chunks, waiting = min(chunks, work.chunks), 0
    while chunks > 1:
        waiting += min(work.split_every, chunks) - 1
        chunks = math.ceil(chunks / work.split_every)
    return waiting + 1


def _tasks(chunks: int, split_every: int) -> int:
    """One for each chunk, and the tree that adds up their statistics."""
    tasks = chunks
    alone = False
    while chunks > split_every:
        # a sum of one goes on to the next sum of one within a task
        before, alone = alone, chunks % split_every == 1
        chunks = math.ceil(chunks / split_every)
        tasks += chunks - (before and alone)
    return tasks + 1
