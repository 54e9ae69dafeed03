"""What one task of each kind holds in memory at its worst, what the process that trains does, in bytes.

A list of the arrays that the code really makes, each with its full size: the chunk as it is read, decoded, written and
checked; the arrays that a thread keeps, as the code that takes them declares them (`ArraySpec`), for a block of rows
whatever the chunk is; float64 statistics; and the state, factorisations and copies between two steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from altmin_dask.data.shuffling import BUCKET_BYTES
from altmin_dask.execution.pieces import Cut, pieces_of
from altmin_dask.networks.network import Network
from altmin_dask.networks.workspace import ArraySpec
from altmin_dask.solvers.exact_newton import SLAB_BYTES
from altmin_dask.solvers.gauss_newton import step_arrays
from altmin_dask.solvers.kronecker import Forms
from altmin_dask.solvers.line_search import search_arrays
from altmin_dask.solvers.measures import most_numbers
from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.penalty import SplitPenalty
from altmin_dask.solvers.statistics import DOUBLE, Statistics
from altmin_dask.training.grouping import readings
from altmin_dask.training.step_sizes import model_every, paths, steps_of


@dataclass(frozen=True)
class Workload:
    """A run in plain numbers.

    Attributes
    ----------
    network : Network
        What is trained.
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
    row_bytes : int
        Bytes that a store has beside each sample, which training does not read.
    raw_bytes : int
        Bytes of one sample and its target in the source that is ingested first; 0 if there is a store.
    reading_bytes : int
        What is held beside chunks while that source is read.
    validation_rows, validation_chunk_rows : int
        Of the validation store; 0 without one.
    pieces, chunk_steps : int
        Pieces that K-FAC steps compute each chunk in, and steps that are taken on one by the same task.
    group_rows, piece_rows, step_rows : int
        Rows that a group and a piece have at least, and a step wants, where the numbers of chunks, pieces and steps
        follow from the rows of a chunk; else 0.
    group_chunks : int
        Chunks of one step (all of them for batch sweeps).
    as_is : bool
        Whether a step takes parts of more chunks, from all over a store that nobody has shuffled.
    whitened, exact : bool
        Whether the first layer is whitened, and curvature is exact.
    incremental : bool
        Whether statistics are replaced group by group, rather than all at once.
    newton_steps : int
        As in `[solver]`.
    split_every : int
        As in `[cluster]`.
    has_dual : bool
        Whether as many numbers as z has are remembered beside it (L1, multipliers).
    kfac, relaxed : bool
        Whether W moves by K-FAC steps and no z is kept, and whether μ is finite there.
    model_every, max_staleness : int
        Which part of a group's samples is kept for the probe, and how many more groups are under way.
    workers, threads : int
        Worker processes, and threads of each.
    in_process : bool
        Whether the threads are those of the process that trains.
    """

    network: Network
    rows: int
    chunk_rows: int
    x_bytes: int
    y_bytes: int = 0
    itemsize: int = 4
    row_bytes: int = 0
    raw_bytes: int = 0
    reading_bytes: int = 0
    y_converted: bool = False
    compressed: bool = False
    z_compressed: bool = False
    validation_rows: int = 0
    validation_chunk_rows: int = 0
    pieces: int = 1
    chunk_steps: int = 1
    group_rows: int = 0
    piece_rows: int = 0
    step_rows: int = 0
    group_chunks: int = 1
    as_is: bool = False
    whitened: bool = False
    exact: bool = False
    incremental: bool = True
    newton_steps: int = 1
    split_every: int = 4
    has_dual: bool = False
    kfac: bool = False
    relaxed: bool = False
    model_every: int = 1
    max_staleness: int = 0
    workers: int = 1
    threads: int = 1
    in_process: bool = True

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return math.ceil(self.rows / self.chunk_rows)

    @property
    def readings(self) -> int:
        """How often a chunk is read in a sweep."""
        size = min(self.group_chunks, self.chunks)
        return readings(self.rows, self.chunk_rows, size) if self.as_is else 1

    def chunked(self, rows: int) -> Workload:
        """The same in chunks of so many rows, with groups and pieces that follow from it."""
        steps = steps_of(min(rows, self.rows), self.step_rows) if self.step_rows else self.chunk_steps
        if not self.group_rows:
            incremental = self.group_chunks < math.ceil(self.rows / rows)
            return replace(self, chunk_rows=rows, incremental=incremental, chunk_steps=steps)
        if steps > 1:
            threads = 1 if self.in_process else self.workers * self.threads
            group, pieces, in_step = paths(math.ceil(self.rows / rows), threads), 1, rows // steps
        else:
            group, pieces = math.ceil(self.group_rows / rows), pieces_of(rows, self.piece_rows)
            in_step = min(group * rows, self.rows)
        every = model_every(in_step, self.network)
        return replace(
            self, chunk_rows=rows, group_chunks=group, pieces=pieces, chunk_steps=steps, model_every=every
        )

    @property
    def cut(self) -> Cut:
        """How K-FAC steps share chunks among tasks."""
        return Cut(self.pieces).among(min(self.group_chunks, self.chunks), self.workers * self.threads)

    @property
    def latent_bytes(self) -> int:
        """What is kept of a sample from one visit to the next."""
        return self.itemsize * sum(self.widths) * (2 if self.has_dual else 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers in z_i of a sample."""
        return self.network.widths

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of each W̃_i."""
        return self.network.shapes

    @property
    def forms(self) -> Forms:
        """How K-FAC's factors are kept."""
        return Forms.of(self.network, self.rows)

    @property
    def block_rows(self) -> int:
        """Samples that a task computes with at a time."""
        return self.network.block_rows


@dataclass(frozen=True)
class Task:
    """One kind of task: what its thread keeps by name, what else it holds at its worst, the row it sends."""

    scratch: dict[tuple[str, int, int], int]
    held: int
    row: int
    chunks: int


def visit_task(work: Workload) -> Task:
    """The z-update of a chunk: x, y and z as they are read, the new z as it is written, and in between Newton."""
    n, s, width = work.chunk_rows, work.itemsize, sum(work.widths)
    network = work.network
    # where ρ has moved, the samples' own Gram matrix counts by the new one
    with_inputs = work.has_dual or network.inputs_move
    parts = [
        newton_arrays(work),
        Statistics.arrays(
            network, with_inputs=with_inputs, moved=work.incremental and not network.inputs_move
        ),
    ]
    if work.has_dual:
        parts.append(SplitPenalty.arrays(network))
    block = min(n, work.block_rows)
    # samples that are cut are copied out: their inputs, drive, targets and trial z, and offsets
    first = work.network.layers[0]
    cut = (
        block * s * (first.steps * first.inputs + first.size + work.widths[-1] + width + 2 * max(work.widths))
    )
    cut += block * s * width if work.has_dual else 0
    newton = max(cut, _exact(work, block)) if work.exact else cut
    x, y, z = n * work.x_bytes, n * work.y_bytes, n * work.latent_bytes
    reading = max(x * (3 if work.compressed else 2), x + y + z * (3 if work.z_compressed else 2))
    row = DOUBLE * packed_size(Statistics.layout(work.shapes, with_inputs=work.has_dual))
    converted = n * s * work.widths[-1] if work.y_converted else 0
    target = block * s * first.in_size if s > 4 else 0
    computing = x + y + converted + 2 * z + row + newton + target
    writing = x + y + converted + z * (4 if work.z_compressed else 3) + row
    return Task(
        kept(work, *parts), max(reading, computing, writing), row, min(work.group_chunks, work.chunks)
    )


def enter_task(work: Workload) -> Task:
    """A forward pass, all that is known at its z, all statistics, and z as it is written."""
    n, s, width = work.chunk_rows, work.itemsize, sum(work.widths)
    scratch = kept(work, Statistics.arrays(work.network, with_inputs=True, moved=False))
    passing = kept(work, work.network.prepared_arrays(), work.network.point_arrays(""))
    x, y, z = n * work.x_bytes, n * work.y_bytes, n * work.latent_bytes
    row = DOUBLE * packed_size(Statistics.layout(work.shapes, with_inputs=True))
    converted = n * s * work.widths[-1] if work.y_converted else 0
    computing = z + max(forward_pass(work), min(n, work.block_rows) * s * width + sum(passing.values()))
    written = z * (3 if work.z_compressed else 2)
    held = max(x * (3 if work.compressed else 2), x + y + converted + row + max(computing, written))
    return Task(scratch, held, row, work.chunks)


def evaluate_task(work: Workload, chunk_rows: int, rows: int) -> Task:
    """A forward pass, its loss, and what metrics of all of so many rows are made of."""
    n, block = chunk_rows, min(chunk_rows, work.block_rows)
    x, y = n * work.x_bytes, n * work.y_bytes
    converted = n * work.itemsize * work.widths[-1] if work.y_converted else 0
    loss = block * work.itemsize * (sum(work.widths) + 3 * work.widths[-1])
    row = DOUBLE * most_numbers(work.network, rows)
    held = max(x * (3 if work.compressed else 2), x + y + converted + row + max(forward_pass(work), loss))
    return Task({}, held, row, math.ceil(rows / n))


def objective_task(work: Workload) -> Task:
    """x, y and z as they are read, the weights and a point of a block in float64, and no named arrays."""
    n, block, width = work.chunk_rows, min(work.chunk_rows, work.block_rows), sum(work.widths)
    read = n * (work.x_bytes + work.y_bytes + work.latent_bytes)
    inputs = sum(layer.steps * layer.inputs for layer in work.network.layers)
    # z, residuals, values, inputs, and the drive and output of a layer
    point = DOUBLE * block * (3 * width + inputs + 2 * max(work.widths) + own_arrays(work))
    weights = DOUBLE * sum(d * k for d, k in work.shapes)
    return Task({}, max(2 * read, read + point + weights), 0, work.chunks)


def moments_task(work: Workload) -> Task:
    """The Gram matrix of the first layer's inputs, block by block in float64, unless rows do; and targets."""
    n, first = work.chunk_rows, work.network.layers[0]
    if work.forms.rows:
        row = DOUBLE * work.widths[-1]
        held = n * (work.x_bytes * (3 if work.compressed else 2) + work.y_bytes) + row
        return Task({}, held, row, work.chunks)
    k, numbers = first.inputs, first.steps * first.inputs + sum(first.scratch().values())
    row = DOUBLE * (k * k + work.widths[-1])
    summing = 2 * DOUBLE * k * k + max(DOUBLE * min(n, work.block_rows) * numbers, row)
    held = max(n * work.x_bytes * (3 if work.compressed else 2), n * (work.x_bytes + work.y_bytes) + summing)
    return Task({}, held, row, work.chunks)


def forward_pass(work: Workload) -> int:
    """Temporary arrays of a forward pass of a block: z of all layers, and inputs and values of one or two."""
    block = min(work.chunk_rows, work.block_rows)
    inputs = [layer.steps * layer.inputs for layer in work.network.layers]
    values = [layer.size for layer in work.network.layers[:-1]]
    most = max(
        (a + b + c for a, b, c in zip(inputs[:-1], inputs[1:], values, strict=True)), default=inputs[0]
    )
    return block * work.itemsize * (sum(work.widths) + most + own_arrays(work))


def own_arrays(work: Workload) -> int:
    """What a layer takes for itself, and frees again where arrays are not kept, in numbers of a sample."""
    return max(sum(layer.scratch().values()) for layer in work.network.layers)


def kept(work: Workload, *parts: Iterable[ArraySpec]) -> dict[tuple[str, int, int], int]:
    """Bytes of the arrays that a thread keeps, by name, columns and itemsize, as the code that takes them declares."""
    rows, arrays = min(work.chunk_rows, work.block_rows), dict[tuple[str, int, int], int]()
    for spec in chain(*parts):
        key = spec.name, spec.columns, spec.itemsize or work.itemsize
        arrays[key] = max(arrays.get(key, 0), spec.nbytes(rows, work.itemsize))
    return arrays


def newton_arrays(work: Workload) -> Iterator[ArraySpec]:
    """What z-updates of a block take."""
    yield from work.network.prepared_arrays()
    yield from search_arrays(work.network, work.newton_steps)
    if not work.exact:
        yield from step_arrays(work.network, residuals=work.kfac)
    if work.kfac:
        yield from work.network.remainder_arrays()


def _exact(work: Workload, block: int) -> int:
    """F to second order in float64, and matrices of as many samples as fit a slab (`solvers.exact_newton`)."""
    widths = work.widths
    width, hidden = sum(widths), sum(widths[:-1])
    matrices = DOUBLE * sum(layer.size * layer.in_size for layer in work.network.layers)
    one = DOUBLE * width * width
    slab = min(block, max(1, SLAB_BYTES // one)) * one
    # by Cholesky: a slab, the two products that fill it, a factor; by eigenvalues: six matrices of a quarter slab
    filled = 1 + 2 * max((d * d for d in widths[:-1]), default=0) / width**2
    solving = max(int(slab * filled) + one, 6 * max(slab // 4, one))
    expanding = 5 * width + hidden + 2 * widths[-1]
    return matrices + max(DOUBLE * block * expanding, DOUBLE * block * (3 * width + hidden) + solving)


def trainer(work: Workload) -> tuple[int, int]:
    """What the process that trains holds during a step, and what it needs on top between two steps or before."""
    shapes = work.shapes
    weights = work.itemsize * sum(d * k for d, k in shapes)
    statistics = DOUBLE * packed_size(Statistics.layout(shapes, with_inputs=True))
    resident = weights + statistics + DOUBLE * shapes[0][1] ** 2  # a factor, kept while no samples enter
    resident += weights if work.has_dual else 0  # those when ρ was balanced
    # a copy, its factor, and where that fails eigenvectors, LAPACK's work space and a basis
    solving = statistics + weights + max(DOUBLE * (6 * k * k + 4 * d * k) for d, k in shapes)
    whitening = statistics + DOUBLE * 6 * shapes[0][1] ** 2 if work.whitened else 0
    committing = weights + statistics
    return resident, max(solving, committing, whitening, ingesting(work) - resident)


def ingesting(work: Workload) -> int:
    """A chunk of the source, and what it is read from; converted, in another order, as it is written; and a bucket."""
    if not work.raw_bytes:
        return 0
    row = work.x_bytes + work.y_bytes + work.row_bytes
    chunk = work.chunk_rows * (work.raw_bytes + 3 * row)
    return work.reading_bytes + chunk + min(BUCKET_BYTES, work.rows * row)
