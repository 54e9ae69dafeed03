"""Several K-FAC steps on parts of one chunk, one after the other, where the chunk is.

A chunk of a table has many times the rows that a step wants. To make one step of all of them wastes most of them, and
to send each part out by itself makes all workers wait for messages in between. So the process that has the chunk takes
the steps by itself, from weights and means that it is sent, and sends back what has become of them. Where several
chunks are gone through at a time, the mean of what has become of all of them, each by its rows, is gone on from: rounds
of local steps (Stich 2019, "Local SGD converges fast and communicates little"), by Kronecker-factored steps.

How many rows a step wants grows while it is learnt: at first few tell the way, and in the end noise is most of what
they say. It is measured, by what the two halves of a step's rows agree upon: where the rest is as much, steps have
twice as many rows from then on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.solvers.kernels import kfac_chunk, quadratic_model_chunk
from altmin_dask.solvers.kfac import ARRAYS, KFACSettings, KFACState
from altmin_dask.solvers.kfac_step import Activity, Sent, Stepper
from altmin_dask.solvers.kronecker import Forms, KroneckerSums, QuadraticModel
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.preconditioner import PreconditionerCache
from altmin_dask.types import Array, Batch, Each, Weights

SCALARS = tuple(own.name for own in fields(KFACState) if own.name not in ARRAYS)
COUNTS = "steps", "curvature_updates", "rejections", "judged", "doublings"
"""Of these, whole numbers."""


def arrays_of(weights: Weights, state: KFACState) -> tuple[Array, ...]:
    """All that steps are taken from: W̃, the arrays of a state, and its numbers in one."""
    arrays = [array for kind in ARRAYS for array in getattr(state, kind)]
    return *weights, *arrays, np.array([getattr(state, name) for name in SCALARS], np.float64)


def state_of(arrays: Sequence[Array]) -> tuple[Weights, KFACState]:
    """Undo `arrays_of`, with factors that are nobody else's."""
    layers = (len(arrays) - 1) // (1 + len(ARRAYS))
    parts = [arrays[start : start + layers] for start in range(0, len(arrays) - 1, layers)]
    weights, inputs, outputs, previous, average = parts
    numbers: dict[str, Any] = dict(zip(SCALARS, arrays[-1].tolist(), strict=True))
    numbers |= {name: round(numbers[name]) for name in COUNTS}
    own_inputs, own_outputs = ([factor.copy() for factor in kind] for kind in (inputs, outputs))
    return tuple(weights), KFACState(own_inputs, own_outputs, tuple(previous), tuple(average), **numbers)


def packed_by_rows(arrays: Iterable[Array], rows: int) -> Array:
    """All arrays in one vector of float64, times the rows that they come from, which are its last number.

    Such vectors are added up, and `mean_of` makes the mean of them.
    """
    packed: Array = np.concatenate([*(array.ravel() for array in arrays), np.ones(1)], dtype=np.float64)
    packed *= rows
    return packed


def mean_of(total: Array, like: Sequence[Array]) -> tuple[Array, ...]:
    """The mean of arrays by their rows, of the sum of what `packed_by_rows` gives, in the shapes and dtypes given."""
    parts = np.split(total[:-1] / total[-1], np.cumsum([array.size for array in like])[:-1])
    return tuple(
        part.reshape(array.shape).astype(array.dtype) for part, array in zip(parts, like, strict=True)
    )


def packed_numbers(arrays: Iterable[Array]) -> int:
    """How many numbers `packed_by_rows` gives."""
    return 1 + sum(array.size for array in arrays)


def remembered_numbers(shapes: Sequence[tuple[int, int]], forms: Forms) -> int:
    """How many numbers `arrays_of` has, of so many rows and columns of each W̃."""
    factors = [*forms.input_shapes(shapes), *forms.output_shapes(shapes)]
    return 3 * sum(map(prod, shapes)) + sum(map(prod, factors)) + len(SCALARS)


@dataclass(frozen=True)
class Part:
    """A part of a chunk while a step is taken on it: what `altmin_dask.solvers.kfac_step.StepSamples` wants."""

    network: Network
    batch: Batch
    weights: Weights
    every: int

    def loss(self, weights: Weights) -> float:
        """All of the part's."""
        return evaluate_chunk(self.network, weights, _contiguous(self.batch)).mean_loss

    def model(self, direction: Weights, repeated: Weights) -> QuadraticModel:
        """On every so many-th of its samples."""
        thin = _contiguous(self.batch.rows(slice(None, None, self.every)))
        return quadratic_model_chunk(self.network, self.weights, direction, repeated, thin)


@dataclass(frozen=True)
class Level:
    """How a chunk is gone through while steps have so many rows.

    Attributes
    ----------
    settings : KFACSettings
        How weights move.
    count : int
        Steps that a whole chunk is for.
    every : int
        The model along a step is measured on every so many-th sample.
    """

    settings: KFACSettings
    count: int
    every: int


@dataclass(frozen=True)
class LocalSteps:
    """How chunks are gone through: at first in many steps, and where noise is most of what they go by, in fewer.

    Attributes
    ----------
    levels : tuple of Level
        Each with half as many steps as the one before.
    chunk_rows : int
        Rows of a whole chunk; of fewer there are fewer steps.
    paths : int
        Chunks that are gone through at a time, of which a mean is made.
    """

    levels: tuple[Level, ...]
    chunk_rows: int
    paths: int = 1

    @property
    def several(self) -> bool:
        """Whether a chunk is for more than one step."""
        return self.levels[0].count > 1

    def level(self, state: KFACState) -> Level:
        """That of a state."""
        return self.levels[min(state.doublings, len(self.levels) - 1)]

    def steps(self, level: Level, rows: int) -> int:
        """How many steps a block of so many rows is for."""
        return max(1, math.floor(rows * level.count / self.chunk_rows + 0.5))

    def take(
        self,
        network: Network,
        weights: Weights,
        state: KFACState,
        batch: Batch,
        newton: NewtonSettings,
        seed: Sequence[int],
        mu: Sequence[float] | None = None,
        activity: Activity = nullcontext,
        each: Each = map,
    ) -> Weights:
        """Take all steps on a chunk, or a block of parts of some; the state is changed in place.

        Of n steps the first has the rows 0, n, 2n, …, the second 1, 1 + n, …: what a block is made of that comes from
        several places is in each of them.

        Parameters
        ----------
        network, weights, state, batch : Network, tuple of ndarray, KFACState, Batch
            What is trained, from where, on what.
        newton, mu : NewtonSettings, sequence of float or None
            As in `altmin_dask.solvers.kernels.kfac_chunk`.
        seed : sequence of int
            Of the noise by which curvature is sampled.
        activity, each : callable
            As in `Stepper`; and what goes through the two halves of a step, as `map` does.

        Returns
        -------
        tuple of ndarray
            The weights after the last step.
        """
        level = self.level(state)
        stepper = Stepper(
            level.settings,
            PreconditionerCache(level.settings),
            exact_slopes=mu is None,
            activity=activity,
        )
        count = self.steps(level, len(batch))
        for number in range(count):
            part = batch.rows(slice(number, None, count))
            noise = [*seed, number] if state.curvature_due else None
            sums, half = _sums(network, weights, mu, part, newton, noise, state, each)
            sent = Sent(state.previous_weights, stepper.ridge(weights))
            group = Part(network, part, weights, level.every)
            weights = stepper.step(state, weights, sums, sent, group, half=half)
        if state.is_noisy(self.paths) and level is not self.levels[-1]:
            state.double_rows()
        return weights


def _sums(
    network: Network,
    weights: Weights,
    mu: Sequence[float] | None,
    part: Batch,
    newton: NewtonSettings,
    noise: list[int] | None,
    state: KFACState,
    each: Each,
) -> tuple[KroneckerSums, KroneckerSums | None]:
    """Of a part, and of every second of its rows, if there are two."""

    def of(half: int) -> KroneckerSums:
        rows, own = _contiguous(part.rows(slice(half, None, 2))), None if noise is None else [*noise, half]
        return kfac_chunk(network, weights, mu, rows, newton, own, state.forms)

    if len(part) < 2:
        return of(0), None
    first, second = each(of, (0, 1))
    second.vector += first.vector
    return second, first


def _contiguous(batch: Batch) -> Batch:
    """Rows side by side, as products want them."""
    own: dict[str, Any] = {
        each.name: np.ascontiguousarray(values)
        for each in fields(Batch)
        if (values := getattr(batch, each.name)) is not None
    }
    return replace(batch, **own)
