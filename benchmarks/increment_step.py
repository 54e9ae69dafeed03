"""One K-FAC step on one chunk, part by part, as `altmin_dask.training.kfac_training` takes it, without Dask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.solvers.kernels import kfac_chunk, quadratic_model_chunk
from altmin_dask.solvers.kfac import (
    CURVATURE_EVERY,
    MODEL_EARLY,
    KFACSettings,
    KFACState,
    default_input_damping,
    default_output_damping,
)
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.preconditioner import PreconditionerCache
from altmin_dask.training.defaults import MANY_GROUPS
from altmin_dask.types import Batch

WARM = CURVATURE_EVERY * -(-MODEL_EARLY // CURVATURE_EVERY) + CURVATURE_EVERY
"""Steps before those that are timed: the first ones measure more, and grow the caches."""


@dataclass(frozen=True)
class Parts:
    """Seconds of a step.

    Attributes
    ----------
    pull, probe : float
        The workers': what a chunk says about the weights, and, in one step of four, the model of the loss along the
        direction.
    solve, move : float
        The client's between the two, and after them: means, factors in one step of four, and the direction; the step
        lengths and the new weights.
    """

    pull: float
    solve: float
    probe: float
    move: float

    @property
    def kernel(self) -> float:
        """Of the workers."""
        return self.pull + self.probe

    @property
    def client(self) -> float:
        """Of the client, for which the workers wait."""
        return self.solve + self.move

    @property
    def whole(self) -> float:
        """Of both."""
        return self.kernel + self.client

    @classmethod
    def mean(cls, steps: list[Parts]) -> Parts:
        """Of steps that differ in what they have to do."""
        return cls(*np.mean([astuple(step) for step in steps], axis=0).tolist())

    @classmethod
    def median(cls, steps: list[Parts]) -> Parts:
        """Of steps that do the same."""
        return cls(*np.median([astuple(step) for step in steps], axis=0).tolist())


CHUNKS = MANY_GROUPS
"""So many that a step's lengths hold for the next ones: on few samples again and again they do not."""


class Stepper:
    """Trains on a few chunks of as many samples each, one after the other, again and again."""

    def __init__(
        self, network: Network, x: np.ndarray, y: np.ndarray | None, every: int, clock: Callable[[], float]
    ) -> None:
        self.network, self.every, self.clock = network, every, clock
        self.rows = len(x) // CHUNKS
        self.batches = [Batch(x, y).rows(slice(i * self.rows, (i + 1) * self.rows)) for i in range(CHUNKS)]
        damping = default_input_damping(network, self.rows), default_output_damping(network)
        self.settings = KFACSettings(*damping)
        self.weights = network.initial_weights(0)
        self.memory = KFACState.start(self.weights)
        self.preconditioners = PreconditionerCache(self.settings)
        for _ in range(WARM):
            self.step()

    def cycle(self) -> list[Parts]:
        """As many steps as there are from one measurement of curvature to the next; the first one measures."""
        return [self.step() for _ in range(CURVATURE_EVERY)]

    def step(self) -> Parts:
        """The next one."""
        network, memory, weights, clock = self.network, self.memory, self.weights, self.clock
        renewed, measured = memory.curvature_due, memory.model_due
        batch = self.batches[memory.steps % CHUNKS]
        start = clock()
        seed = [0, memory.steps] if renewed else None
        ascent = kfac_chunk(network, weights, None, batch, NewtonSettings(), seed)
        pulled = clock()
        if memory.is_suspect(ascent):
            raise RuntimeError("a step was taken back: these would not be the usual ones")
        memory.update_averages(ascent, weights, self.settings.averaging)
        preconditioner = self.preconditioners.of(memory)
        direction = preconditioner.direction(ascent, weights)
        solved = clock()
        lengths = np.array([memory.alpha, memory.beta])
        if measured:
            before = memory.previous_weights
            kept = batch.rows(slice(None, None, self.every))
            probe = quadratic_model_chunk(network, weights, direction, before, kept)
        probed = clock()
        if measured:
            lengths = preconditioner.step_coefficients(probe, weights, direction, before)
        self.weights = memory.move(weights, direction, memory.previous_weights, lengths)
        return Parts(pulled - start, solved - pulled, probed - solved, clock() - probed)
