"""Selected chunks of a zarr array, as an array Dask can read: one task reads exactly one chunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr

from altmin_dask.networks.activations import Array


@lru_cache(maxsize=64)
def open_array(location: str, mode: str = "r") -> zarr.Array[Any]:
    """Open a zarr array once per process: opening costs more than reading a small chunk."""
    array = zarr.open_array(location, mode=mode)  # type: ignore[arg-type]
    return array.with_config({"write_empty_chunks": True}) if mode != "r" else array


@dataclass(frozen=True)
class ChunkView:
    """Chunks `ids` of the zarr array at `location`, in that order, as one array-like.

    It pickles as a few numbers and a path, opens the array where it is used, and supports what
    `dask.array.from_array` needs: slices of rows that coincide with chunks.

    Attributes
    ----------
    location : str
        Path or URL of the zarr array.
    ids : tuple of int
        The chunks, by their index along the rows.
    starts, sizes : tuple of int
        Where each chunk begins in the array, and its rows.
    sample_shape : tuple of int
        Shape behind the rows.
    dtype : numpy.dtype
        Of the array.
    """

    location: str
    ids: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    sample_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def select(
        cls, location: str, shape: tuple[int, ...], chunk_rows: int, dtype: Any, ids: tuple[int, ...]
    ) -> ChunkView:
        """View chunks `ids` of an array of `shape` with `chunk_rows` rows in a chunk."""
        starts = tuple(i * chunk_rows for i in ids)
        sizes = tuple(min(chunk_rows, shape[0] - start) for start in starts)
        return cls(location, ids, starts, sizes, tuple(shape[1:]), np.dtype(dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows of the selected chunks, then the sample shape."""
        return (sum(self.sizes), *self.sample_shape)

    @property
    def ndim(self) -> int:
        """Rank."""
        return 1 + len(self.sample_shape)

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Dask's form of the chunking."""
        return (self.sizes, *((size,) for size in self.sample_shape))

    def __getitem__(self, key: tuple[slice, ...] | slice) -> Array:
        rows = key[0] if isinstance(key, tuple) else key
        index = int(np.searchsorted(np.cumsum((0, *self.sizes)), rows.start or 0, side="right")) - 1
        start, size = self.starts[index], self.sizes[index]
        values: Array = np.asarray(open_array(self.location)[start : start + size])
        return values
