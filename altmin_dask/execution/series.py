"""K-FAC steps of several groups, one after the other in one task: where messages take longer than a step does.

They are the steps that the process that trains would take, in the same pieces and sums: with the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.pieces import Share, added, computed
from altmin_dask.execution.samples import read_rows
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.execution.timing import activity, meter_kernels
from altmin_dask.networks.standardization import Scale
from altmin_dask.solvers.evaluation import Evaluation, evaluate_chunk
from altmin_dask.solvers.kernels import kfac_chunk, quadratic_model_chunk
from altmin_dask.solvers.kfac import KFACSettings, KFACState
from altmin_dask.solvers.kfac_step import Sent, Stepper
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.local_steps import arrays_of, packed_by_rows, state_of
from altmin_dask.solvers.preconditioner import PreconditionerCache
from altmin_dask.storage.weights import read_weights
from altmin_dask.storage.zarr_chunks import RowBlock
from altmin_dask.types import Array, Batch, Weights


@dataclass(frozen=True)
class Turn:
    """A group, and how its step is taken.

    Attributes
    ----------
    blocks : tuple of mapping of str to (RowBlock, Scale or None)
        What is read of each block of its rows, by the names of a `Batch`, and how it is scaled.
    shares : tuple of Share
        The pieces of each block.
    seed : tuple of int
        Of the noise by which curvature is sampled.
    mu : tuple of float or None
        μ_1 … μ_L; None for μ → ∞.
    every : int
        The model along the step is measured on every so many-th sample of a piece.
    """

    blocks: tuple[Mapping[str, tuple[RowBlock, Scale | None]], ...]
    shares: tuple[Share, ...]
    seed: tuple[int, ...]
    mu: tuple[float, ...] | None
    every: int

    def step(self, context: TaskContext, stepper: Stepper, state: KFACState, weights: Weights) -> Weights:
        """Take it; the state is changed in place."""
        rows, sent = GroupRows(self, context, weights), Sent(state.previous_weights, stepper.ridge(weights))
        return stepper.step(state, weights, rows.sums(state), sent, rows)


@dataclass(frozen=True)
class GroupRows:
    """The rows of a group in memory: what `altmin_dask.solvers.kfac_step.StepSamples` wants, and their sums."""

    turn: Turn
    context: TaskContext
    weights: Weights

    @cached_property
    def arrays(self) -> list[dict[str, Array]]:
        """Of each block, as they are read."""
        blocks = self.turn.blocks
        return [{name: read_rows(*one) for name, one in block.items()} for block in blocks]

    @cached_property
    def batches(self) -> list[Batch]:
        """Of each block."""
        return [self.context.arrange(arrays) for arrays in self.arrays]

    def sums(self, state: KFACState) -> KroneckerSums:
        """As `altmin_dask.execution.task_graphs.kfac_sums` has them."""
        context, network, curvature = self.context, self.context.network, state.curvature_due

        def of(batch: Batch, seed: list[int] | None) -> Array:
            settings, mu = context.settings, self.turn.mu
            return kfac_chunk(network, self.weights, mu, batch, settings, seed, state.forms).vector

        pieces = [
            partial(of, batch.rows(rows), seed if curvature else None)
            for batch, share in zip(self.batches, self.turn.shares, strict=True)
            for rows, seed in zip(share.slices(), share.seeds(self.turn.seed), strict=True)
        ]
        return KroneckerSums(network.shapes, curvature, computed(pieces), forms=state.forms)

    def loss(self, weights: Weights) -> float:
        """Of all rows, as `altmin_dask.execution.task_graphs.evaluate` has it."""
        network = self.context.network
        with activity("evaluate"):
            parts = [evaluate_chunk(network, weights, batch).vector for batch in self.batches]
        return Evaluation(added(parts)).mean_loss

    def model(self, direction: Weights, repeated: Weights) -> QuadraticModel:
        """As `altmin_dask.execution.task_graphs.quadratic_model` has it."""
        every = self.turn.every

        def of(batch: Batch) -> Array:
            return quadratic_model_chunk(
                self.context.network, self.weights, direction, repeated, batch
            ).vector

        pieces = []
        for arrays, share in zip(self.arrays, self.turn.shares, strict=True):
            thin = {
                name: np.concatenate([values[rows][::every] for rows in share.slices()])
                for name, values in arrays.items()
            }
            batch = self.context.arrange(thin)
            pieces += [partial(of, batch.rows(rows)) for rows in share.slices(every)]
        with activity("model"):
            return QuadraticModel(computed(pieces))


def take_turns(
    turns: tuple[Turn, ...], *, context: TaskContext, weights: str, settings: KFACSettings
) -> Array:
    """What has become of all that the file has after the steps of all groups, as of `packed_by_rows`, for one row."""
    meter_kernels()
    now, state = state_of(read_weights(weights))
    exact = turns[0].mu is None
    stepper = Stepper(settings, PreconditionerCache(settings), exact_slopes=exact, activity=activity)
    with single_threaded_blas():
        for turn in turns:
            now = turn.step(context, stepper, state, now)
    return packed_by_rows(arrays_of(now, state), 1)[None]
