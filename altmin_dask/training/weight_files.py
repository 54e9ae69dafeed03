"""Files of the weights of the last few steps, and of what else tasks are given with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count

from altmin_dask.training.context import RunContext
from altmin_dask.types import Weights

KEPT_FILES = 6
"""Files of weights that stay beside a new one, for each step that is remembered: those before it, the step, the mean
twice at most, and in the first steps those that are tried."""


class WeightFiles:
    """Files of the last few weights that tasks were given.

    Weights are never changed in place, so the same tuple is the same file: it is recognised by identity.

    Parameters
    ----------
    context : RunContext
        The run.
    versions : int
        How many weights are remembered besides the newest.
    read : callable
        Tells which files tasks under way read, however many have overtaken them: they stay.
    """

    def __init__(self, context: RunContext, versions: int, read: Callable[[], Iterable[str]]) -> None:
        self.context, self.versions, self.read = context, versions, read
        self.keep = KEPT_FILES * versions
        self.numbers = count()
        self.known: list[tuple[Weights, str]] = []

    def of(self, weights: Weights) -> str:
        """The file of weights; what is there already stays."""
        for known, file in self.known:
            if known is weights:
                return file
        file = self.put(weights, "weights")
        self.known.append((weights, file))
        del self.known[: -self.versions]
        return file

    def put(self, arrays: Weights, name: str) -> str:
        """A new file of arrays."""
        name = f"{self.context.key}-{next(self.numbers):08d}-{name}"
        read = {*self.read(), *(file for _, file in self.known)}
        return self.context.weight_store.publish(arrays, name, self.keep, read)
