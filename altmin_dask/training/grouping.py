"""Groups: the rows that one step takes, and those that records are evaluated on.

Steps want groups that are like all samples. Where `ingest` has shuffled the rows every chunk is, and a group is some
chunks. Files are nearly always sorted by something, though, and a store that is taken as it is may be, too: there a
group is a part, drawn at random, of each of some chunks from all over the store. They are then read once for every
part, which is what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.storage.zarr_chunks import Part

SPREAD = 16
"""Chunks that a group of a store that is taken as it is has rows from, at least, if there are so many (row 60 of
benchmarks/LOG.md)."""
EVALUATED_CHUNKS = 32
"""At most so many chunks of such a store are read for a record (chosen, not measured)."""

LEAST_SHARE = 0.25
"""A last group of less than such a share of the others' rows is part of another one: a step of a few rows fits these,
whatever becomes of the rest (chosen, not measured)."""


@dataclass(frozen=True)
class RowGroup:
    """Rows that take part in a step together: of some chunks all, or a part of each."""

    chunks: tuple[int, ...]
    part: Part | None = None

    @property
    def blocks(self) -> Sequence[Sequence[int]]:
        """Chunks that are read together."""
        return [(chunk,) for chunk in self.chunks] if self.part is None else self.part.blocks(self.chunks)

    def rows(self, store: SampleStore) -> int:
        """How many they are."""
        sizes = [min(store.chunk_rows, store.rows - chunk * store.chunk_rows) for chunk in self.chunks]
        return sum(sizes if self.part is None else map(self.part.size, sizes))


def all_rows(store: SampleStore) -> RowGroup:
    """Everything."""
    return RowGroup(tuple(range(store.n_chunks)))


def together(groups: Sequence[RowGroup]) -> RowGroup:
    """All rows of groups of whole chunks."""
    return RowGroup(tuple(chunk for group in groups for chunk in group.chunks))


def whole_chunks(store: SampleStore, size: int, seed: int | None) -> tuple[RowGroup, ...]:
    """All chunks, `size` at a time, in an order that the seed decides, if there is one.

    Of a store that is taken as it is, every `SPREAD` chunks that follow each other come from all over it.
    """
    n_chunks = store.n_chunks
    if seed is None:
        order = list(range(n_chunks))
    elif store.shuffled:
        order = _order(n_chunks, seed)
    else:
        order = list(chain.from_iterable(_strata(n_chunks, _windows(n_chunks, 1), seed)))
    return tuple(RowGroup(tuple(order[start : start + size])) for start in range(0, n_chunks, size))


def spread_chunks(rows: int, chunk_rows: int, size: int, seed: int) -> tuple[RowGroup, ...]:
    """As many rows as `size` chunks have, from at least `SPREAD` of them; every row is in one group."""
    n_chunks = math.ceil(rows / chunk_rows)
    last_rows = rows - (n_chunks - 1) * chunk_rows
    groups = []
    for window in _strata(n_chunks, _windows(n_chunks, size), seed):
        steps = _steps(len(window), size, chunk_rows)
        for number in range(steps):
            chunks = (c for c in window if c < n_chunks - 1 or number < last_rows)
            groups.append(RowGroup(tuple(chunks), Part(seed, number, steps) if steps > 1 else None))
    return tuple(group for group in groups if group.chunks)


def _strata(n_chunks: int, windows: int, seed: int) -> list[list[int]]:
    """Chunks dealt to windows at random, but of as many neighbours one to each: each sees all of the store."""
    dealt: list[list[int]] = [[] for _ in range(windows)]
    random = np.random.default_rng([seed, 1])
    for first in range(0, n_chunks, windows):
        for chunk, window in zip(range(first, n_chunks), random.permutation(windows).tolist(), strict=False):
            dealt[window].append(chunk)
    return dealt


def readings(rows: int, chunk_rows: int, size: int) -> int:
    """How often chunks are read in a pass over the groups of `spread_chunks`, at most."""
    n_chunks = math.ceil(rows / chunk_rows)
    return _steps(math.ceil(n_chunks / _windows(n_chunks, size)), size, chunk_rows)


def _windows(n_chunks: int, size: int) -> int:
    return max(1, n_chunks // max(SPREAD, size))


def _steps(chunks: int, size: int, chunk_rows: int) -> int:
    return min(max(1, round(chunks / size)), chunk_rows)


def groups_of(store: SampleStore, size: int, seed: int) -> tuple[RowGroup, ...]:
    """Groups of about as many rows as `size` chunks have, each like all samples.

    None has less than `LEAST_SHARE` of them if there is another.
    """
    if not store.shuffled:
        return spread_chunks(store.rows, store.chunk_rows, size, seed)
    groups = list(whole_chunks(store, size, seed))
    few = [
        place
        for place, group in enumerate(groups)
        if group.rows(store) < LEAST_SHARE * size * store.chunk_rows
    ]
    for place in reversed(few):
        if len(groups) > 1:
            left = groups.pop(place)
            other = max(place - 1, 0)
            groups[other] = together([groups[other], left])
    return tuple(groups)


def evaluated(store: SampleStore, rows: int, seed: int) -> RowGroup:
    """About so many rows that are like all samples: whole chunks where they are shuffled, else a part of many."""
    if store.shuffled:
        return RowGroup(tuple(_order(store.n_chunks, seed)[: max(1, math.ceil(rows / store.chunk_rows))]))
    count = min(store.n_chunks, max(EVALUATED_CHUNKS, math.ceil(rows / store.chunk_rows)))
    group = RowGroup(tuple(np.linspace(0, store.n_chunks - 1, count).round().astype(int).tolist()))
    parts = group.rows(store) // rows
    return group if parts < 2 else RowGroup(group.chunks, Part(seed, 0, parts))


def _order(n_chunks: int, seed: int) -> list[int]:
    return np.random.default_rng([seed, 1]).permutation(n_chunks).tolist()
