"""The clock of one run of a contestant, the running means of its weights, and its curves.

CPU seconds of this process while it trains, unless another clock is given; loading and evaluation are off the clock,
and the making of initial weights is on it. There are two clocks: what the running means of the weights take is charged
to the averaged weights alone (of several means that are tried at once: the mean of what they take), so that the curve
of the raw weights is that of a run without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Curve = list[tuple[float, float, float]]
"""CPU seconds, held-out quality, passes over the training data."""

Point = TypeVar("Point", bound=Sequence[float])
"""Of a curve, which may have more columns."""

SPENT, DIVERGED = "budget spent", "diverged"
RAW, AVERAGED = "raw", "averaged"


def kept_share(decay: float, step: int) -> float:
    """How much of a running mean stays in its step number `step` ≥ 1: as altmin's own, little in the first ones."""
    return min(decay, 1 - 1 / (1 + step / 8))


@dataclass
class Means:
    """Running means of some weights, m ← k m + (1 − k) w with k = `kept_share`.

    Attributes
    ----------
    decays : sequence of float
        d, one for each mean.
    means : list of list of tensors or arrays
        The weights of each, changed in place; they begin as copies of the initial ones.
    mix : callable
        ``mix(mean, weights, share)`` moves a mean by that share towards the weights.
    """

    decays: Sequence[float]
    means: Sequence[Any]
    mix: Callable[[Any, Any, float], object]
    stride: int = 1
    """Steps of the optimizer between two of the means: these keep d to that power."""
    steps: int = 0
    seconds: float = 0.0

    def update(self, weights: Any) -> None:
        """After a step."""
        if not self.decays:
            return
        start = time.process_time()
        self.steps += 1
        for decay, mean in zip(self.decays, self.means, strict=True):
            self.mix(mean, weights, 1 - kept_share(decay**self.stride, self.steps))
        self.seconds += time.process_time() - start


def mix_arrays(mean: Any, weights: Any, share: float) -> None:
    """Of NumPy arrays."""
    for m, w in zip(mean, weights, strict=True):
        m += m.dtype.type(share) * (w - m)


def mix_tensors(mean: Any, weights: Any, share: float) -> None:
    """Of PyTorch's tensors."""
    import torch

    with torch.no_grad():
        torch._foreach_lerp_(mean, weights, share)


@dataclass
class Run:
    """The clocks and the curves of one run.

    Attributes
    ----------
    seconds : float
        Budget on the clock of the raw weights.
    evaluate : callable
        The quality of a model.
    models : list
        The raw one, and one for each running mean.
    moments : iterator of float
        When to evaluate, on the clock of the averaged weights; at the end, in any case.
    """

    seconds: float
    evaluate: Callable[[Any], float]
    models: Sequence[Any]
    means: Means
    samples: int
    moments: Iterator[float]
    visited: int = 0
    """Samples whose gradient was taken."""
    status: str = SPENT
    off: float = 0.0
    clock: Callable[[], float] = time.process_time
    curves: dict[str, Curve] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = [RAW, *(f"{decay:g}" for decay in self.means.decays)]
        self.curves = {name: [] for name in self.names}
        self.next = next(self.moments, math.inf)

    def start(self, seconds: float) -> None:
        """Set the clock: so much has been spent already."""
        self.off = self.clock() - seconds

    @property
    def raw(self) -> float:
        """Seconds of training without running means."""
        return self.clock() - self.off - self.means.seconds

    @property
    def averaged(self) -> float:
        """The same with one running mean."""
        return self.raw + self.means.seconds / max(1, len(self.means.decays))

    @property
    def progress(self) -> float:
        """Part of the budget that is spent, with a running mean if there is one: of rates that decay."""
        return min(self.averaged / self.seconds, 1.0)

    def goes_on(self) -> bool:
        """After every step: evaluates if it is time, and tells whether there is budget left."""
        raw, averaged = self.raw, self.averaged
        if averaged < self.next and raw < self.seconds:
            return True
        start = self.clock()
        for name, model in zip(self.names, self.models, strict=True):
            quality = self.evaluate(model)
            if math.isfinite(quality):
                clock = raw if name == RAW else averaged
                self.curves[name].append((clock, quality, self.visited / self.samples))
            else:
                self.status = DIVERGED
        while self.next <= averaged:
            self.next = next(self.moments, math.inf)
        self.off += self.clock() - start
        return raw < self.seconds and self.status != DIVERGED


def evaluation_moments(first: float = 0.5, a_decade: int = 8) -> Iterator[float]:
    """Geometrically spaced, for ever."""
    number = 0
    while True:
        yield first * 10 ** (number / a_decade)
        number += 1


def thinned(curve: Sequence[Point], moments: Iterator[float]) -> list[Point]:
    """The first evaluation at or after each of the moments at which the others are evaluated, and the last one.

    More of them would be an advantage where quality is noisy: the first to pass a threshold counts.
    """
    kept: list[Point] = []
    due = next(moments, math.inf)
    for number, point in enumerate(curve):
        if point[0] >= due or (number == len(curve) - 1 and point[0] > 0):
            kept.append(point)
            while due <= point[0]:
                due = next(moments, math.inf)
    return kept


def crossing(curve: Sequence[Sequence[float]], threshold: float, column: int = 0) -> float:
    """When a curve first meets a threshold of a loss, between two evaluations by its logarithm; infinity if never.

    `column` is that of the clock: there may be others behind the first.
    """
    before: Sequence[float] | None = None
    for point in curve:
        if point[1] <= threshold:
            if before is None:
                return point[column]
            here, there = (math.log(max(value, 1e-12)) for value in (point[1], before[1]))
            share = (there - math.log(threshold)) / (there - here)
            return before[column] + share * (point[column] - before[column])
        before = point
    return math.inf


def rounded(curve: Sequence[Sequence[float]]) -> list[list[float]]:
    """Five digits, which is more than is known."""
    return [[float(f"{value:.5g}") for value in point] for point in curve]
