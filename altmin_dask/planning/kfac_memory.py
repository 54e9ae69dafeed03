"""What the tasks of K-FAC steps hold in memory at their worst, and the process that trains; see `memory`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from math import prod

from altmin_dask.execution.pieces import branch
from altmin_dask.execution.resources import solving_threads
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.workspace import ArraySpec
from altmin_dask.planning.memory import (
    Task,
    Workload,
    forward_pass,
    ingesting,
    kept,
    newton_arrays,
)
from altmin_dask.solvers.kernels import quadratic_model_arrays
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.local_steps import remembered_numbers
from altmin_dask.solvers.packing import Shape, packed_size
from altmin_dask.solvers.row_space import PANEL_BYTES
from altmin_dask.solvers.statistics import DOUBLE
from altmin_dask.training.grouping import LEAST_SHARE
from altmin_dask.training.step_sizes import may_join


def kfac_task(work: Workload) -> Task:
    """The samples of a chunk, a pass forward and two back block by block, and what is sent."""
    cut, s = work.cut, work.itemsize
    n = math.ceil(work.chunk_rows / cut.tasks)
    block = min(math.ceil(work.chunk_rows / cut.pieces), work.block_rows)
    outputs = work.widths[-1]
    parts, held = [Pass.arrays(work.network), Pass.sample_arrays(work.network)], 0
    if work.relaxed:
        # z of the forward pass, and a step that is cut
        parts.append(newton_arrays(work))
        held = 2 * block * s * sum(work.widths)
    row = s * packed_size(KroneckerSums.layout(work.shapes, curvature=True, forms=work.forms))
    # signs as bytes, as numbers, and what is squared and added of them
    noise = block * outputs * (1 + 2 * s)
    # of pieces, the sums of which wait for each other
    sums = row * (cut.pieces // cut.tasks).bit_length()
    computing = sums + max(noise, held + forward_pass(work) if work.relaxed else 0)
    return Task(kept(work, *parts), _reading(work, n, computing), row, _tasks(work))


def local_steps_task(work: Workload) -> Task:
    """Steps on the parts of a chunk, and all that is remembered, twice."""
    # steps may come to have as many rows as a chunk, and are summed in halves
    part = math.ceil(work.chunk_rows / 2) * (work.x_bytes + work.y_bytes)
    parts, computing = _stepping(work, math.ceil(work.chunk_rows / 2), sums=2)
    row = DOUBLE * state_numbers(work)
    held = _reading(work, work.chunk_rows, max(part + computing, 2 * row))
    return Task(kept(work, *parts), held, row, _tasks(work))


def series_task(work: Workload) -> Task:
    """Steps of groups of a block each, and all that is remembered, twice."""
    parts, computing = _stepping(work, math.ceil(work.chunk_rows / work.pieces), work.pieces.bit_length())
    # a last chunk of few rows is a part of another group
    row_bytes, others = work.x_bytes + work.y_bytes, math.ceil(LEAST_SHARE * work.chunk_rows)
    more = (_kept_rows(work) + others) * row_bytes
    row = DOUBLE * state_numbers(work)
    held = _reading(work, work.chunk_rows, more + max(computing, 2 * row))
    return Task(kept(work, *parts), held, row, 1)


def takes_series(work: Workload) -> bool:
    """Whether a task may take steps of several groups (`altmin_dask.training.together`)."""
    sizes = work.group_chunks, work.chunk_steps, work.max_staleness
    return not work.in_process and may_join(work.network, work.forms, *sizes)


def _stepping(work: Workload, n: int, sums: int) -> tuple[list[Iterator[ArraySpec]], int]:
    """Arrays by name, and others, of a step of n rows that a task takes: its sums, factors and a direction."""
    s, weights, squares = work.itemsize, _weights(work), _squares(work)
    block = min(n, work.block_rows)
    parts = [Pass.arrays(work.network), Pass.sample_arrays(work.network)]
    parts.append(quadratic_model_arrays(work.network))
    held = block * work.widths[-1] * (1 + 2 * s)
    if work.relaxed:
        parts.append(newton_arrays(work))
        held = max(held, 2 * block * s * sum(work.widths) + forward_pass(work))
    row = s * packed_size(KroneckerSums.layout(work.shapes, curvature=True, forms=work.forms))
    # a factor in float64 and its matrix; the step, its like and what becomes of them; own copies of factors
    solving = squares + max(squares + 2 * DOUBLE * _widest(work) ** 2, 6 * weights)
    return parts, sums * row + held + squares + solving + weights


def state_numbers(work: Workload) -> int:
    """What is remembered from step to step: weights thrice, factors, and a few numbers."""
    return remembered_numbers(work.shapes, work.forms)


def gradient_task(work: Workload) -> Task:
    """A pass forward and one back, and a gradient of the weights."""
    row = work.itemsize * packed_size(KroneckerSums.layout(work.shapes, curvature=False))
    return Task(kept(work, Pass.arrays(work.network)), _reading(work, work.chunk_rows, row), row, work.chunks)


def quadratic_model_task(work: Workload) -> Task:
    """Two directions for samples that are in memory, block by block."""
    repeated = work.itemsize * sum(d * k for d, k in work.shapes)
    rows = _kept_rows(work) / work.cut.tasks
    held = repeated + (math.ceil(rows) * work.itemsize * work.widths[-1] if work.y_converted else 0)
    return Task(
        kept(work, quadratic_model_arrays(work.network)),
        held,
        DOUBLE * packed_size(QuadraticModel.layout()),
        _tasks(work),
    )


def kept_samples(work: Workload) -> int:
    """What is kept of the groups under way for their probes: at worst all by one worker."""
    rows = _kept_rows(work) * min(work.group_chunks, work.chunks)
    return (1 + work.max_staleness) * rows * (work.x_bytes + work.y_bytes)


def kfac_trainer(work: Workload) -> tuple[int, int]:
    """As `memory.trainer`: three generations of weights, means and factors, and what a group has sent."""
    s, forms = work.itemsize, work.forms
    weights, squares = _weights(work), _squares(work)
    resident = 3 * weights + 2 * squares
    if work.chunk_steps > 1:
        # what has been sent, its sum, its mean, and what that is made of
        states = DOUBLE * state_numbers(work) * (2 + min(branch(work.split_every), _tasks(work)))
        return resident, max(states + 6 * weights + 2 * squares, ingesting(work) - resident)
    factors = _factors(work)
    row = s * packed_size(KroneckerSums.layout(work.shapes, curvature=True, forms=forms))
    # a factor in float64 and its matrix, beside the old factors; or the step, its like and what becomes of them
    # as many of them at a time as there are threads for it
    threads = work.threads if work.in_process else solving_threads()
    widest = sorted([forms.rows, *(shape[0] for shape in factors if len(shape) == 2)])[-threads:]
    factorising = squares + 2 * DOUBLE * sum(k * k for k in widest)
    moving = 4 * weights
    if forms.rows:
        # all rows, their Gram matrix, and the factor of what is made of it, which stays; blocks that are multiplied
        resident += work.rows * work.x_bytes + 2 * DOUBLE * work.rows**2
        moving += 3 * PANEL_BYTES + 3 * DOUBLE * work.rows * work.shapes[0][0]
        # what samples vary along, and weights that are made of it, in float64
        moving += 3 * DOUBLE * prod(work.shapes[0]) if work.whitened else 0
    if forms.diagonal:
        moving += 2 * s * prod(work.shapes[-1])  # divided by it, and in order
    # what is freed between them is too small for the system to take it back
    committing = 3 * weights + squares
    # the last few that are added here, and their sum
    sent = 0 if work.in_process else (2 + min(branch(work.split_every), _tasks(work))) * row
    return resident, max(row + sent + factorising + moving + committing, ingesting(work) - resident)


def _factors(work: Workload) -> list[Shape]:
    return [*work.forms.input_shapes(work.shapes), *work.forms.output_shapes(work.shapes)]


def _weights(work: Workload) -> int:
    """Bytes of all W̃."""
    return work.itemsize * sum(d * k for d, k in work.shapes)


def _squares(work: Workload) -> int:
    """Bytes of all factors."""
    return work.itemsize * sum(map(prod, _factors(work)))


def _widest(work: Workload) -> int:
    return max(shape[0] for shape in _factors(work))


def _tasks(work: Workload) -> int:
    """Tasks of a group."""
    return min(work.group_chunks, work.chunks) * work.cut.tasks


def _kept_rows(work: Workload) -> int:
    """Rows of a chunk that are kept for the probe: every so many-th of each piece."""
    return math.ceil(work.chunk_rows / work.model_every) + work.pieces - 1


def _reading(work: Workload, n: int, computing: int) -> int:
    """The samples as they are read, whole chunks at a time, or with what is computed of `n` of them."""
    x, y = n * work.x_bytes, n * work.y_bytes
    converted = n * work.itemsize * work.widths[-1] if work.y_converted else 0
    # what parts of chunks are put together in is there before they are read
    reading = work.chunk_rows * work.x_bytes * ((2 if work.compressed else 1) + work.as_is) + x
    return max(reading, x + y + converted + computing)
