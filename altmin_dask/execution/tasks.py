"""What one task does: it makes a batch of a chunk, computes with the kernels, and gives one row of numbers.

Every function here is called in a task by `altmin_dask.execution.task_graphs.per_chunk`, with the number of the chunk
among those taken, the arrays read of it by name, and its z where that is kept. Called twice, it does the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.timing import activity, meter_kernels
from altmin_dask.networks.chain import Chain
from altmin_dask.networks.network import Network
from altmin_dask.solvers.gauss_newton import NewtonSettings
from altmin_dask.solvers.kernels import (
    collect_chunk,
    enter_chunk,
    evaluate_chunk,
    kfac_chunk,
    moments_chunk,
    objective_chunk,
    quadratic_model_chunk,
    split_visit_chunk,
    visit_chunk,
)
from altmin_dask.solvers.penalties import Penalty
from altmin_dask.storage.weights import read_weights
from altmin_dask.storage.zarr_chunks import ChunkView
from altmin_dask.types import Array, Batch

ONE_A_SAMPLE = "sample_weight", "lengths"
"""Arrays of a batch that have one number for every sample."""


@dataclass(frozen=True)
class TaskContext:
    """What every task of a run needs to know: a few kilobytes, weights excluded (they are read from a file).

    Attributes
    ----------
    network, target, dtype, settings
        What is trained, as in `Samples`, and how.
    encoder : (Chain, str) or None
        A network, and the file of its weights, whose outputs take the place of the samples.
    """

    network: Network
    target: str
    dtype: str
    settings: NewtonSettings = field(default_factory=NewtonSettings)
    encoder: tuple[Chain, str] | None = None

    def arrange(self, arrays: Mapping[str, Array]) -> Batch:
        """Make a batch of the arrays of a chunk, (n, columns) each, in the shapes and dtypes that kernels want."""
        batch = Batch(
            **{name: values[:, 0] if name in ONE_A_SAMPLE else values for name, values in arrays.items()}
        )
        if self.encoder is not None:
            network, file = self.encoder
            with single_threaded_blas():
                batch = replace(batch, x=network.predict(read_weights(file), Batch(batch.x)))
        y = batch.y
        if y is not None and self.target == "real":
            batch = replace(batch, y=y.astype(self.dtype, copy=False))
        elif y is not None and y.shape[1] == 1:
            batch = replace(batch, y=y[:, 0])
        return batch


def moments(index: int, arrays: Mapping[str, Array], *, context: TaskContext) -> Array:
    """Moments of a chunk, packed one after the other: `altmin_dask.solvers.kernels.moments_chunk`."""
    batch = context.arrange(arrays)
    with single_threaded_blas(), activity("statistics"):
        gram, targets = moments_chunk(context.network, batch)
    return np.concatenate([gram.ravel(), targets])[None]


def enter(
    index: int,
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    written: ChunkView,
    penalty: Penalty,
) -> Array:
    """Z of a chunk by a forward pass, written; packed statistics."""
    with single_threaded_blas(), activity("statistics"):
        z, statistics = enter_chunk(context.network, read_weights(weights), context.arrange(arrays), penalty)
    with activity("write"):
        written.write(index, z)
    return statistics.vector[None]


def collect(
    index: int, arrays: Mapping[str, Array], z: Array, *, context: TaskContext, weights: str, penalty: Penalty
) -> Array:
    """Packed statistics of a chunk whose z is there."""
    with single_threaded_blas(), activity("statistics"):
        batch = context.arrange(arrays)
        return collect_chunk(context.network, read_weights(weights), batch, z, penalty).vector[None]


def objective(
    index: int, arrays: Mapping[str, Array], z: Array, *, context: TaskContext, weights: str
) -> Array:
    """What `altmin_dask.solvers.kernels.objective_chunk` gives."""
    with single_threaded_blas(), activity("evaluate"):
        return objective_chunk(context.network, read_weights(weights), context.arrange(arrays), z)[None]


def visit(
    index: int,
    arrays: Mapping[str, Array],
    z: Array,
    *,
    context: TaskContext,
    weights: str,
    written: ChunkView,
    penalty: Penalty,
    before: Penalty,
    renew: bool,
) -> Array:
    """Z of a chunk updated and written; packed statistics, and behind them `ADMMResiduals` where there is a dual."""
    meter_kernels()
    batch = context.arrange(arrays)
    now = read_weights(weights)
    with single_threaded_blas():
        if penalty.has_dual:
            new, statistics, measures = split_visit_chunk(
                context.network, now, penalty, before, batch, z, context.settings, renewed=renew
            )
            row = np.concatenate([statistics.vector, measures.vector])
        else:
            new, statistics = visit_chunk(
                context.network, now, penalty.rho, batch, z, context.settings, renew=renew
            )
            row = statistics.vector
    with activity("write"):
        written.write(index, new)
    return row[None]


def kfac_sums(
    index: int,
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    mu: tuple[float, ...] | None,
    seed: tuple[int, ...] | None,
    chunks_taken: tuple[int, ...],
) -> Array:
    """Packed `altmin_dask.solvers.kfac.KroneckerSums` of a chunk."""
    meter_kernels()
    batch = context.arrange(arrays)
    noise = None if seed is None else [*seed, chunks_taken[index]]
    with single_threaded_blas():
        sums = kfac_chunk(context.network, read_weights(weights), mu, batch, context.settings, noise)
    return sums.vector[None]


def thin(array: Array, every: int) -> Array:
    """Every `every`-th row."""
    # not a view, which would hold on to the whole chunk
    return array[::every].copy()


def quadratic_model(
    index: int,
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    direction: str,
    before: str,
) -> Array:
    """Packed `altmin_dask.solvers.kfac.QuadraticModel` of a chunk's samples."""
    batch = context.arrange(arrays)
    now, along, old = (read_weights(file) for file in (weights, direction, before))
    with single_threaded_blas(), activity("model"):
        return quadratic_model_chunk(context.network, now, along, old, batch).pack()[None]


def evaluate(index: int, arrays: Mapping[str, Array], *, context: TaskContext, weights: str) -> Array:
    """Numbers of an `altmin_dask.solvers.kernels.Evaluation` of a chunk."""
    with single_threaded_blas(), activity("evaluate"):
        sums = evaluate_chunk(context.network, read_weights(weights), context.arrange(arrays))
    return np.array([[sums.samples, sums.loss, sums.correct]])
