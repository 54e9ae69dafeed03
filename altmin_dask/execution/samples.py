"""Sample stores as tasks see them: lazy arrays of some chunks, read one chunk at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import dask.array as da
import numpy as np
from dask.layers import ArrayValuesDep

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.execution.timing import activity
from altmin_dask.networks.standardization import Scale, Standardization
from altmin_dask.storage.zarr_chunks import ChunkView, Part, RowBlock
from altmin_dask.types import Array

AS_THEY_ARE = Standardization()
TARGET_ARRAYS = "y", "sample_weight"
"""Arrays of a store that say what the output is compared with, and how much that counts."""


@dataclass(frozen=True)
class Samples:
    """A sample store as the tasks see it.

    Attributes
    ----------
    store : SampleStore
        Where x and y are.
    target : {"inputs", "labels", "real"}
        What the output is compared with: x itself, integer labels, or real targets.
    standard : Standardization
        What x and y are shifted and divided by when they are read.
    """

    store: SampleStore
    target: str
    standard: Standardization = AS_THEY_ARE

    def arrays(
        self, chunks: tuple[int, ...], token: str, part: Part | None = None, cut: int = 1
    ) -> dict[str, da.Array]:
        """What a `Batch` is made of, by name, lazily, each (n, columns): of the chunks named, or a part of each.

        Targets and their weights are left out where the output is compared with the samples themselves.
        """
        return chunk_arrays(self.store, self.names, chunks, token, part, cut, self.standard)

    def read(self, block: RowBlock) -> Array:
        """A block of a `view`, now."""
        return read_rows(block, self.standard.inputs)

    def blocks(
        self, chunks: tuple[int, ...], part: Part | None = None
    ) -> tuple[dict[str, tuple[RowBlock, Scale | None]], ...]:
        """What `read_rows` takes of each array of `arrays`, for each block of rows."""
        views = {name: view_of(self.store, name, chunks, part).pieces for name in self.names}
        count = len(next(iter(views.values())))
        return tuple(
            {name: (pieces[block], self.standard.of(name)) for name, pieces in views.items()}
            for block in range(count)
        )

    def view(self, chunks: tuple[int, ...], part: Part | None = None, cut: int = 1) -> ChunkView:
        """The samples themselves, as they are in the store."""
        return view_of(self.store, "x", chunks, part, cut)

    @property
    def names(self) -> tuple[str, ...]:
        """Which arrays those are."""
        left_out = TARGET_ARRAYS if self.target == "inputs" else ()
        return tuple(name for name in self.store.arrays if name not in left_out)


def chunk_arrays(
    store: SampleStore,
    names: Iterable[str],
    chunks: tuple[int, ...],
    token: str,
    part: Part | None = None,
    cut: int = 1,
    standard: Standardization = AS_THEY_ARE,
) -> dict[str, da.Array]:
    """Arrays of a store by their names, lazily, of the chunks named: a task reads one of each, or a piece, once."""
    found = {}
    for name in names:
        view = view_of(store, name, chunks, part, cut)
        found[name] = lazy(view, f"altmin_read_{name}-{token}", standard.of(name))
    return found


def view_of(
    store: SampleStore, name: str, chunks: tuple[int, ...], part: Part | None = None, cut: int = 1
) -> ChunkView:
    """Of an array of a store the chunks named, or a part of each, in pieces."""
    array, location = store.arrays[name], f"{store.path.rstrip('/')}/{name}"
    return ChunkView.select(location, array.shape, store.chunk_rows, array.dtype, chunks, part, cut)


def lazy(view: ChunkView, name: str, scale: Scale | None = None) -> da.Array:
    """A view as a Dask array, scaled if so; the name must say which generation of the values is meant."""
    dtype = view.dtype if scale is None else np.dtype(scale.dtype)
    return da.blockwise(
        partial(read_rows, scale=scale),
        "ij",
        PerBlock(view.chunks, view.pieces),
        "ij",
        name=name,
        dtype=dtype,
        meta=np.empty((0, 0), dtype),
        align_arrays=False,
    )


class PerBlock(ArrayValuesDep):
    """What tasks are given that is their own: of many things each has one, and a graph is no larger than they are.

    Parameters
    ----------
    chunks : tuple of tuple of int
        As of a Dask array of that many blocks of rows.
    values : sequence
        One for each.
    """

    def __init__(self, chunks: tuple[tuple[int, ...], ...], values: Sequence[Any]) -> None:
        super().__init__(chunks, {(row, 0): value for row, value in enumerate(values)})
        self.mark = next(_marks)

    def __dask_tokenize__(self) -> tuple[str, int]:
        """That it is itself: for small steps it takes longer than they do to go into what it holds."""
        return "altmin", self.mark


def read_rows(block: RowBlock, scale: Scale | None = None) -> Array:
    """The rows of a block, scaled if so, in a task."""
    with activity("read"):
        rows = block.read()
        return rows if scale is None else scale.apply(rows)


_marks = count()
