"""One K-FAC step on one chunk, part by part, as `altmin_dask.training.kfac_training` takes it, without Dask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.solvers.kernels import kfac_chunk, quadratic_model_chunk, since
from altmin_dask.solvers.kfac import (
    CURVATURE_EVERY,
    KFACSettings,
    KFACState,
    curvature_due,
)
from altmin_dask.solvers.kfac_defaults import default_input_damping, default_output_damping
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.preconditioner import PreconditionerCache
from altmin_dask.types import Batch

WARM = 2 * CURVATURE_EVERY
"""Steps before those that are timed: the first ones measure curvature more often, and grow the caches."""


@dataclass(frozen=True)
class Parts:
    """Seconds of a step.

    Attributes
    ----------
    pull, probe : float
        The workers': what a chunk says about the weights, and the model of the loss along the direction.
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


class Stepper:
    """Trains on one chunk, again and again."""

    def __init__(
        self, network: Network, x: np.ndarray, y: np.ndarray | None, every: int, clock: Callable[[], float]
    ) -> None:
        self.network, self.x, self.y, self.every, self.clock = network, x, y, every, clock
        self.settings = KFACSettings(
            default_input_damping(network, len(x)), default_output_damping(network, len(x))
        )
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
        renewed = curvature_due(memory.steps)
        start = clock()
        seed = [0, memory.steps] if renewed else None
        ascent = kfac_chunk(network, weights, None, Batch(self.x, self.y), NewtonSettings(), seed)
        pulled = clock()
        if memory.is_suspect(ascent):
            raise RuntimeError("a step was taken back: these would not be the usual ones")
        memory.update_averages(ascent, weights, self.settings.averaging)
        preconditioner = self.preconditioners.of(memory)
        direction = preconditioner.direction(ascent, weights)
        solved = clock()
        kept = slice(None, None, self.every)
        y = None if self.y is None else self.y[kept]
        probe = quadratic_model_chunk(
            network, weights, direction, since(memory.previous_weights, weights), Batch(self.x[kept], y)
        )
        probed = clock()
        lengths = preconditioner.step_coefficients(probe, weights, direction, memory.previous_weights)
        self.weights = memory.move(weights, direction, memory.previous_weights, lengths)
        return Parts(pulled - start, solved - pulled, probed - solved, clock() - probed)
