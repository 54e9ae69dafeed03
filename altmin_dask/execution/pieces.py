"""Pieces: what a step's rows are always computed in, however many tasks there are for them.

A step is seldom more than one chunk or two, and a chunk may be shared by several tasks, so that no worker or thread
waits. For the weights not to depend on how many there are, every block of rows is computed in the same pieces, a power
of two of them, and the sums of the pieces are added up one binary tree: a task has one piece, or a branch of the tree.
What of the tree is within tasks, and what between them, makes no difference to any bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from altmin_dask.storage.zarr_chunks import cut_rows
from altmin_dask.types import Array

MOST_PIECES = 8
"""Of a block: each begins sums of its own (chosen, not measured)."""


def pieces_of(rows: int, least: int) -> int:
    """How many pieces of `least` rows or more a block is computed in: a power of two."""
    return min(MOST_PIECES, 1 << max(0, (rows // least).bit_length() - 1))


@dataclass(frozen=True)
class Cut:
    """How each block of rows is cut: into pieces, and the pieces among tasks; both are powers of two.

    Attributes
    ----------
    pieces : int
        Of a block; they decide how sums are rounded.
    tasks : int
        For a block, at most as many as there are pieces; they decide nothing.
    """

    pieces: int = 1
    tasks: int = 1

    def among(self, blocks: int, places: int) -> Cut:
        """The same pieces of so many blocks, in as many tasks as keep `places` threads busy, where that is possible."""
        tasks = 1
        while tasks < self.pieces and tasks * blocks < places:
            tasks *= 2
        return Cut(self.pieces, tasks)

    def shares(self, blocks: Sequence[int], rows: Sequence[int]) -> tuple[Share, ...]:
        """What each task has of blocks that begin with these chunks, and have so many rows."""
        each = self.pieces // self.tasks
        return tuple(
            Share(block, size, self.pieces, first, each)
            for block, size in zip(blocks, rows, strict=True)
            for first in range(0, self.pieces, each)
        )


WHOLE = Cut()
"""Not at all."""


@dataclass(frozen=True)
class Share:
    """What one task has of a block of rows.

    Attributes
    ----------
    block, rows : int
        The first chunk of the block, which tells it from others, and its rows.
    of : int
        Pieces of the block.
    first, count : int
        Which of them, and how many.
    """

    block: int
    rows: int
    of: int
    first: int
    count: int

    def seeds(self, seed: Sequence[int]) -> list[list[int]]:
        """Seeds of the random numbers of each piece."""
        pieces = [[]] if self.of == 1 else [[piece] for piece in range(self.first, self.first + self.count)]
        return [[*seed, self.block, *piece] for piece in pieces]

    def sizes(self, every: int = 1) -> list[int]:
        """Rows of each piece, or how many every so many-th of them are."""
        bounds = cut_rows(self.rows, self.of)[self.first : self.first + self.count + 1]
        return [len(range(start, stop, every)) for start, stop in pairwise(bounds)]

    def slices(self, every: int = 1) -> list[slice]:
        """Where the pieces are among the rows that the task has, or among every so many-th of each."""
        ends = np.cumsum([0, *self.sizes(every)]).tolist()
        return [slice(*pair) for pair in pairwise(ends)]


def branch(split_every: int) -> int:
    """How many sums one task adds up: so many, or the next lower power of two, which is a branch of the binary tree."""
    return 1 << split_every.bit_length() - 1


def added(parts: Sequence[Array], add: Callable[[Array, Array], Array] | None = None) -> Array:
    """The sum of arrays up a binary tree: 1 + 2, 3 + 4, then (1 + 2) + (3 + 4), and so on; none is changed.

    Parameters
    ----------
    parts : sequence of ndarray
        What is added.
    add : callable, optional
        What adds two of them, if not NumPy.
    """
    return _tree([partial(_given, part) for part in parts], add)[0]


def total(blocks: Sequence[Array]) -> Array:
    """The sum of the last few rows that a graph has left to add, in however many arrays, or of the one it has made."""
    return added([row for block in blocks for row in np.atleast_2d(block)])


def computed(make: Sequence[Callable[[], Array]]) -> Array:
    """The sum, as of `added`, of what functions give, which are called one after the other and own what they give."""
    return _tree([partial(_made, one) for one in make])[0]


def _tree(
    leaves: Sequence[Callable[[], tuple[Array, bool]]], add: Callable[[Array, Array], Array] | None = None
) -> tuple[Array, bool]:
    """The sum, and whether its array is nobody else's; no more than a few sums are there at a time."""
    if len(leaves) == 1:
        return leaves[0]()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    (left, own), (right, _) = _tree(leaves[:half], add), _tree(leaves[half:], add)
    if add is not None:
        return add(left, right), True
    return np.add(left, right, out=left if own else None), True


def _given(part: Array) -> tuple[Array, bool]:
    return part, False


def _made(one: Callable[[], Array]) -> tuple[Array, bool]:
    return one(), True
