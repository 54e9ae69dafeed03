"""What one task does: it makes a batch of a chunk, computes with the kernels, and gives one row of numbers.

Every function here is called in a task by `altmin_dask.execution.task_graphs.per_chunk`, with the arrays read of a
chunk by name, its z where that is kept, and what it is told as its own. Called twice, it does the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from altmin_dask.data.labels import numbered
from altmin_dask.errors import ChunkError
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.pieces import Share, computed
from altmin_dask.execution.timing import activity, meter_kernels
from altmin_dask.networks.network import Network
from altmin_dask.solvers.evaluation import evaluate_chunk, moments_chunk, objective_chunk
from altmin_dask.solvers.kernels import (
    collect_chunk,
    enter_chunk,
    kfac_chunk,
    quadratic_model_chunk,
    since,
    visit_chunk,
)
from altmin_dask.solvers.kronecker import MATRICES, Forms
from altmin_dask.solvers.local_steps import LocalSteps, arrays_of, packed_by_rows, state_of
from altmin_dask.solvers.measures import NOTHING, Measure
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.penalty import Penalty
from altmin_dask.solvers.tallies import TalliedRows, Tally
from altmin_dask.storage.weights import read_weights
from altmin_dask.storage.zarr_chunks import RowBlock
from altmin_dask.types import Array, Batch, Each

ONE_A_SAMPLE = "sample_weight", "lengths"
"""Arrays of a batch that have one number for every sample."""


@dataclass(frozen=True)
class TaskContext:
    """What every task of a run needs to know: a few kilobytes, weights excluded (they are read from a file).

    Attributes
    ----------
    network, target, dtype, settings
        What is trained, as in `Samples`, and how.
    encoder : (Network, str) or None
        A network, and the file of its weights, whose outputs take the place of the samples.
    labels : tuple of int, or None
        The labels that stand for the classes, in order; None for 0 … K − 1.
    """

    network: Network
    target: str
    dtype: str
    settings: NewtonSettings = field(default_factory=NewtonSettings)
    encoder: tuple[Network, str] | None = None
    labels: tuple[int, ...] | None = None

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
        elif y is not None:
            y = self._classes(y)
            batch = replace(batch, y=y[:, 0] if y.shape[1] == 1 else y)
        return batch

    def _classes(self, y: Array) -> Array:
        """Labels, (n, columns), as classes 0 … K − 1."""
        if self.labels is not None:
            return numbered(y, self.labels)
        return y if y.dtype.kind in "iu" else y.astype(np.int64)


def moments(arrays: Mapping[str, Array], *, context: TaskContext, with_gram: bool) -> Array:
    """Packed `altmin_dask.solvers.evaluation.Moments` of a chunk."""
    batch = context.arrange(arrays)
    with single_threaded_blas(), activity("statistics"):
        return moments_chunk(context.network, batch, with_gram=with_gram).vector[None]


def enter(
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    written: RowBlock,
    penalty: Penalty,
) -> Array:
    """Z of a chunk by a forward pass, written; packed `altmin_dask.solvers.statistics.Statistics`."""
    with single_threaded_blas(), activity("statistics"):
        batch = context.arrange(arrays)
        z, statistics = enter_chunk(context.network, read_weights(weights), penalty, batch)
    with activity("write"):
        written.write(z)
    return statistics.vector[None]


def collect(
    arrays: Mapping[str, Array], z: Array, *, context: TaskContext, weights: str, penalty: Penalty
) -> Array:
    """Packed `altmin_dask.solvers.statistics.Statistics` of a chunk whose z is there."""
    with single_threaded_blas(), activity("statistics"):
        batch = context.arrange(arrays)
        return collect_chunk(context.network, read_weights(weights), penalty, batch, z).vector[None]


def objective(arrays: Mapping[str, Array], z: Array, *, context: TaskContext, weights: str) -> Array:
    """Packed `altmin_dask.solvers.evaluation.RelaxedSums` of a chunk."""
    with single_threaded_blas(), activity("evaluate"):
        batch = context.arrange(arrays)
        return objective_chunk(context.network, read_weights(weights), batch, z).vector[None]


def lost(block: RowBlock) -> Array:
    """Whether a chunk cannot be read as it was written: 1 or 0."""
    with activity("read"):
        try:
            block.read()
        except ChunkError:
            return np.ones((1, 1))
    return np.zeros((1, 1))


def visit(
    arrays: Mapping[str, Array],
    z: Array,
    *,
    context: TaskContext,
    weights: str,
    written: RowBlock,
    penalty: Penalty,
    previous: Penalty,
    replace_all: bool,
) -> Array:
    """Z of a chunk updated and written; packed `altmin_dask.solvers.kernels.VisitSums`."""
    meter_kernels()
    batch, network, settings = context.arrange(arrays), context.network, context.settings
    now = read_weights(weights)
    with single_threaded_blas():
        new, sums = visit_chunk(network, now, penalty, previous, batch, z, settings, replace_all=replace_all)
    with activity("write"):
        written.write(new)
    return sums.vector[None]


def kfac_sums(
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    mu: tuple[float, ...] | None,
    seed: tuple[int, ...] | None,
    share: Share,
    forms: Forms = MATRICES,
    block: RowBlock | None = None,
) -> Array:
    """Packed `altmin_dask.solvers.kronecker.KroneckerSums` of what a task has of a chunk, piece by piece.

    A block tells which rows they are, if that matters.
    """
    meter_kernels()
    batch, now = context.arrange(arrays), read_weights(weights)
    seeds = [None] * share.count if seed is None else share.seeds(seed)
    numbers = None if block is None else block.numbers()

    def sums_of(rows: slice, noise: list[int] | None) -> Array:
        own = None if numbers is None else numbers[rows]
        settings = context.settings
        return kfac_chunk(context.network, now, mu, batch.rows(rows), settings, noise, forms, own).vector

    pieces = zip(share.slices(), seeds, strict=True)
    with single_threaded_blas():
        return computed([partial(sums_of, *piece) for piece in pieces])[None]


def local_steps(
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    mu: tuple[float, ...] | None,
    seed: tuple[int, ...],
    share: Share,
    how: LocalSteps,
    each: Each,
) -> Array:
    """What has become of all that the file has after several steps on a chunk, as of `packed_by_rows`."""
    meter_kernels()
    batch, (own_seed,) = context.arrange(arrays), share.seeds(seed)
    now, state = state_of(read_weights(weights))
    with single_threaded_blas():
        now = how.take(context.network, now, state, batch, context.settings, own_seed, mu, activity, each)
    return packed_by_rows(arrays_of(now, state), len(batch))[None]


def thin(arrays: Mapping[str, Array], *, share: Share, every: int) -> Array:
    """Every `every`-th row of every piece of the only array."""
    (values,) = arrays.values()
    # not a view, which would hold on to the whole chunk
    return np.concatenate([values[rows][::every] for rows in share.slices()])


def quadratic_model(
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    share: Share,
    every: int,
    direction: str,
    previous: str,
) -> Array:
    """Packed `altmin_dask.solvers.kronecker.QuadraticModel` of what was kept of a task's samples, piece by piece."""
    batch = context.arrange(arrays)
    # the last weights first: they are what would be forgotten for the sake of the new direction
    now, old, along = (read_weights(file) for file in (weights, previous, direction))
    repeated = since(old, now)

    def model_of(rows: slice) -> Array:
        return quadratic_model_chunk(context.network, now, along, repeated, batch.rows(rows)).vector

    with single_threaded_blas(), activity("model"):
        return computed([partial(model_of, rows) for rows in share.slices(every)])[None]


def evaluate(
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    first: int,
    measure: Measure = NOTHING,
    tallied: TalliedRows | None = None,
) -> Array:
    """Packed `altmin_dask.solvers.evaluation.Evaluation` of a chunk; its rows are counted from the `first`."""
    tallies: list[Tally] | None = None if tallied is None else []
    with single_threaded_blas(), activity("evaluate"):
        batch = context.arrange(arrays)
        now = read_weights(weights)
        sums = evaluate_chunk(context.network, now, batch, measure, first, tallies).vector
        return (sums if tallied is None or tallies is None else tallied.row(sums, tallies))[None]
