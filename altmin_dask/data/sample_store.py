"""The sample store: a zarr group that holds inputs ``x`` and targets ``y`` in chunks of whole samples.

`ingest` writes it once, from a `Source`; training only reads it. A store that another program wrote is as
good if its chunks are along rows only and have the same rows for x and y.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import zarr

from altmin_dask.data.checks import check_shapes
from altmin_dask.data.source import Source
from altmin_dask.data.summaries import Summary
from altmin_dask.data.zarr_reader import missing_marks, read_zarr
from altmin_dask.errors import DataError
from altmin_dask.preparation import Preparation
from altmin_dask.storage.locations import is_url, locate
from altmin_dask.storage.ownership import KEY
from altmin_dask.storage.sample_arrays import ROW, SEQUENCE_ARRAYS, WEIGHTS
from altmin_dask.storage.zarr_groups import array_names, member, open_zarr

VERSION = 1
"""Of what `ingest` records; a store of a later one is refused."""
CHUNK_BYTES = 8 << 20
"""Of x in a chunk: some 10 ms to read at a GB/s, beside the millisecond at most that Dask says it spends on a task."""
_MIN_CHUNKS, _MIN_CHUNK_ROWS = 8, 64
"""Chosen, not measured: work for eight cores, unless their chunks were so small that tasks cost more than it."""


@dataclass(frozen=True, eq=False)
class SampleStore:
    """Samples to train on or to predict for, opened to read.

    Attributes
    ----------
    path : str
        Absolute path, or URL.
    x : zarr.Array
        Inputs ``(rows, *sample_shape)``, numeric, chunked along rows.
    y : zarr.Array or None
        Targets, chunked like x: integer labels ``(rows,)``, or floats ``(rows,)`` or ``(rows, outputs)``; of sequences
        also one for each step, ``(rows, steps)`` or ``(rows, steps, outputs)``.
    sequence_arrays : dict of str to zarr.Array
        ``lengths`` and ``states`` of sequences, as in `altmin_dask.data.source.Source`, chunked like x.
    weights : zarr.Array or None
        ``sample_weight``, (rows,): how much every sample counts, 1 on average; chunked like x.
    attributes : dict
        What `ingest` recorded: version, source, scale, sample_shape, summary, complete; ``shuffled``, by which seed, or
        None; ``rounded``, the names of arrays of float32 whose source had more digits; ``fine``, of those of float64
        that float32 would tell badly apart; ``mean_weight``, by which weights were divided; ``on_the_way``, if it was
        made of what somebody named, in a folder that may soon be gone. Empty for a store that another program wrote.

    Examples
    --------
    >>> import zarr
    >>> from altmin_dask import SampleStore
    >>> group = zarr.create_group("mine.zarr")
    >>> _ = group.create_array("x", shape=(1000, 20), chunks=(250, 20), dtype="float32")
    >>> _ = group.create_array("y", shape=(1000,), chunks=(250,), dtype="int64")
    >>> store = SampleStore.open("mine.zarr")
    >>> store.rows, store.features, store.n_chunks
    (1000, 20, 4)
    """

    path: str
    x: zarr.Array[Any]
    y: zarr.Array[Any] | None
    attributes: dict[str, Any] = field(default_factory=dict)
    sequence_arrays: dict[str, zarr.Array[Any]] = field(default_factory=dict)
    weights: zarr.Array[Any] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SampleStore:
        """Open a store read-only and check that training can use it; no values are read.

        Parameters
        ----------
        path : str or path
            A local path or a URL that zarr can open.

        Raises
        ------
        MissingError
            If there is nothing there.
        DataError
            If it is not a zarr group with an array x, was not written to the end, has no rows, a dtype that
            is not numeric, x and y of different lengths, or chunks that differ or cut through samples.
        """
        location = locate(path)
        group = open_zarr(location)
        if isinstance(group, zarr.Array):
            raise DataError(
                f"{location} is one zarr array, not a group with x in it; `altmin ingest` it first"
            )
        attributes = group.attrs.asdict().get(KEY)
        if not isinstance(attributes, dict):
            attributes = {}
        _check_attributes(attributes, location)

        x, y = (member(group, name, location) for name in ("x", "y"))
        if not isinstance(x, zarr.Array):
            names = ", ".join(array_names(group)) or "no arrays"
            raise DataError(f"{location} has no array called x (it has {names}); `altmin ingest` it first")
        targets = y if isinstance(y, zarr.Array) else None
        sequence_arrays = {
            name: array
            for name in SEQUENCE_ARRAYS
            if isinstance(array := member(group, name, location), zarr.Array)
        }
        weights = array if isinstance(array := member(group, WEIGHTS, location), zarr.Array) else None
        store = cls(location, x, targets, dict(attributes), sequence_arrays, weights)
        _check_layout(store)
        return store

    def __fspath__(self) -> str:
        """Its path, as which it may be given to whatever takes one.

        Raises
        ------
        DataError
            If it is at a URL, which a path cannot be.
        """
        if is_url(self.path):
            raise DataError(f"a store at a URL is no path; give the URL {self.path} itself")
        return self.path

    @property
    def arrays(self) -> dict[str, zarr.Array[Any]]:
        """All there are, by their names: x, y, lengths, states, sample_weight."""
        found = {"x": self.x, "y": self.y, **self.sequence_arrays, WEIGHTS: self.weights}
        return {name: array for name, array in found.items() if array is not None}

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return self.x.shape[0]

    @property
    def chunk_rows(self) -> int:
        """Samples in each chunk but the last, which may have fewer."""
        return min(self.x.chunks[0], self.rows)

    @property
    def n_chunks(self) -> int:
        """How many chunks there are."""
        return math.ceil(self.rows / self.chunk_rows)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.x.shape[1:]

    @property
    def features(self) -> int:
        """How many values one input has."""
        return math.prod(self.sample_shape)

    @property
    def title(self) -> str:
        """What messages call it: where it is, and what it was made of; or that alone, if it was made on the way."""
        source = self.attributes.get("source")
        if source in (None, self.path):
            return self.path
        return str(source) if self.attributes.get("on_the_way") else f"{self.path} (of {source})"

    @property
    def scale(self) -> float:
        """What raw samples were divided by before they were stored."""
        return float(self.attributes.get("scale", 1.0))

    @property
    def mean_weight(self) -> float:
        """What weights of samples were divided by before they were stored: so many samples does one count as."""
        return float(self.attributes.get("mean_weight", 1.0))

    @property
    def rounded(self) -> tuple[str, ...]:
        """Arrays whose source had more digits."""
        return tuple(self.attributes.get("rounded", ()))

    @property
    def preparation(self) -> Preparation | None:
        """What was done to samples before they were stored.

        Raises
        ------
        DataError
            If the record of it is damaged.
        """
        try:
            return Preparation.from_json(self.attributes.get("preparation"))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path} has a damaged record of its preparation: {error!r}") from None

    def noted(self, source: Source) -> Source:
        """Samples of this store, with what is recorded of what was done to their numbers."""
        return replace(
            source,
            scale=self.scale,
            rounded=self.rounded,
            stored=bool(self.attributes),
            mean_weight=self.mean_weight,
        )

    @property
    def shuffled(self) -> bool:
        """Whether `ingest` brought the rows into a random order, so that every chunk is like all."""
        return self.attributes.get("shuffled") is not None

    @property
    def row_numbers(self) -> zarr.Array[Any] | None:
        """Which row of the source each one was, (rows,); None where they are in its order, as far as is known."""
        group = open_zarr(self.path)
        array = group.get(ROW) if self.shuffled and isinstance(group, zarr.Group) else None
        return array if isinstance(array, zarr.Array) else None

    @property
    def summary(self) -> Summary | None:
        """Ranges that were recorded by `ingest`, None for a store that another program wrote."""
        fields = self.attributes.get("summary")
        return None if fields is None else Summary.from_json(fields)


def default_chunk_rows(rows: int, sample_shape: tuple[int, ...], dtype: str = "float32") -> int:
    """Choose how many samples go into a chunk.

    About 8 MiB of x, which is enough to keep the cost of a task small beside its work; but where there are at
    least 512 samples no fewer than 8 chunks, so that there is something to do in parallel.

    Parameters
    ----------
    rows : int
        How many samples there are.
    sample_shape : tuple of int
        Shape of one of them.
    dtype : str
        Dtype in which they are stored.
    """
    chunk_rows = CHUNK_BYTES // (math.prod(sample_shape) * np.dtype(dtype).itemsize)
    if rows >= _MIN_CHUNKS * _MIN_CHUNK_ROWS:
        chunk_rows = min(chunk_rows, math.ceil(rows / _MIN_CHUNKS))
    return max(1, min(chunk_rows, rows))


def _check_attributes(attributes: dict[str, Any], location: str) -> None:
    """Refuse a store that `ingest` did not finish, or that a later version of it wrote."""
    if attributes.get("complete") is False:
        raise DataError(f"{location} was not written to the end; `altmin ingest` it again with --overwrite")
    if attributes.get("version", VERSION) > VERSION:
        raise DataError(f"{location} was written by a later version of altmin-dask; install that version")


def _check_layout(store: SampleStore) -> None:
    """Refuse arrays that cannot be read as chunks of whole samples."""
    readers = {name: read_zarr(array, f"{name} of {store.path}") for name, array in store.arrays.items()}
    # a source has the same demands on dtypes and shapes
    check_shapes(Source.of(store.path, readers))
    for name, array in store.arrays.items():
        if (marks := missing_marks(array)).size:  # of which a task knows nothing
            raise DataError(
                f"{name} of {store.path} may have missing values, for which {marks[0]:g} stands; `altmin ingest` it "
                "into a new store, which tells whether it has"
            )
    for name, array in store.arrays.items():
        if any(chunk < size for chunk, size in zip(array.chunks[1:], array.shape[1:], strict=True)):
            raise DataError(
                f"{name} of {store.path} has chunks of {array.chunks}, which cut through samples of "
                f"{array.shape[1:]}; `altmin ingest` it into a new store"
            )
    for name, array in store.arrays.items():
        rows = min(array.chunks[0], store.rows)
        if rows != store.chunk_rows:
            raise DataError(
                f"{store.path} has {store.chunk_rows} rows in a chunk of x and {rows} in one of {name}; "
                "`altmin ingest` it into a new store"
            )
