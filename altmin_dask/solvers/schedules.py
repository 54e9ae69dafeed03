"""What to do in which order: which groups of chunks enter the sums, are visited, and when quality is recorded.

Every schedule is one sequence of actions, a pure function of its settings, so a position in it is a number. A sum
that only one group is in gives batch sweeps (all z, then W once); all groups at once gives incremental sweeps (W
after each group); windows begin with few groups, pass over them a few times and double. Each is exact block
coordinate descent on F over the samples in the sum, so at fixed μ F never rises between two entries. K-FAC steps keep
no sums over samples, so nothing enters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal, Protocol

import numpy as np

KEEP_Z = ("windows", "incremental", "batch")
"""Schedules by which z of every sample is kept; by others constraints hold exactly, unless μ is given."""


@dataclass(frozen=True)
class Enter:
    """Bring groups `first` … `stop` − 1 into the sums, their z from a forward pass."""

    kind: ClassVar[Literal["enter"]] = "enter"
    first: int
    stop: int


@dataclass(frozen=True)
class Visit:
    """Update z of a group and solve for W; `number` counts passes over what is in the sums."""

    kind: ClassVar[Literal["visit"]] = "visit"
    group: int
    number: int


@dataclass(frozen=True)
class Record:
    """Evaluate the network and write it down."""

    kind: ClassVar[Literal["record"]] = "record"


@dataclass(frozen=True)
class KFACStep:
    """Move W by what a group says at a forward pass; `number` counts passes over all groups."""

    kind: ClassVar[Literal["step"]] = "step"
    group: int
    number: int


Action = Enter | Visit | KFACStep | Record
"""Told apart by `kind`."""


def window_schedule(groups: int, first_window: int, window_passes: int) -> Iterator[Action]:
    """Actions without end: windows that double until all groups are in, then passes over all of them.

    Parameters
    ----------
    groups : int
        How many there are.
    first_window : int
        Groups in the first window; `groups` for incremental (or, with one group, batch) sweeps.
    window_passes : int
        Passes over a window before it doubles.
    """
    yield Record()
    number = entered = 0
    window = min(first_window, groups)
    while True:
        yield Enter(entered, window)
        entered = window
        last = number + window_passes
        while entered == groups or number < last:
            for group in range(entered):
                yield Visit(group, number)
            number += 1
            yield Record()
        window = min(2 * window, groups)


def kfac_schedule(groups: int, seed: int, apart: float = 1.0) -> Iterator[Action]:
    """Actions without end: passes over all groups, each in an order of its own.

    Records are a quarter further apart each time, but no further than a pass (or eight steps, where a pass is less).

    Parameters
    ----------
    groups : int
        How many there are.
    seed : int
        Decides the order.
    apart : float
        Steps between records from which on they do not cost too much. The first are closer, as much happens there:
        each after twice as many steps as the one before.
    """
    yield Record()
    done, due, longest = 0, 1, max(groups, 8)
    for number in count():
        for group in np.random.default_rng([seed, 2, number]).permutation(groups):
            yield KFACStep(int(group), number)
            done += 1
            if done == due:
                yield Record()
                due = min(max(math.ceil(1.25 * due), done + min(math.ceil(apart), done)), done + longest)


class Moving(Protocol):
    """A number that moves from pass to pass."""

    def at(self, number: int) -> float:
        """The value in pass `number`."""


@dataclass(frozen=True)
class Geometric:
    """μ that moves from `start` to `stop` by `factor` a pass."""

    start: float
    factor: float
    stop: float

    def at(self, number: int) -> float:
        """The value in pass `number`."""
        way = math.log(self.stop / self.start)
        step = math.log(self.factor)
        return self.stop if abs(step) * number >= abs(way) else self.start * self.factor**number


def mu_at(mu: float | Sequence[float] | Moving, layers: int, number: int) -> tuple[float, ...]:
    """μ_1 … μ_L in pass `number`: of one number for all layers, of one for each, or of what moves for all of them."""
    if isinstance(mu, Sequence):
        return tuple(float(value) for value in mu)
    return (float(mu) if isinstance(mu, int | float) else mu.at(number),) * layers
