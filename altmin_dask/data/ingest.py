"""From a source to a sample store: converted, checked and written, chunk by chunk."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from altmin_dask.data.checks import (
    check_finite,
    check_labels,
    check_lengths,
    check_shapes,
    check_weights,
    is_labels,
)
from altmin_dask.data.conversion import Conversion
from altmin_dask.data.preprocessing import divided, standardized
from altmin_dask.data.sample_store import VERSION, SampleStore, default_chunk_rows
from altmin_dask.data.source import Source
from altmin_dask.data.summaries import Summary, summarise
from altmin_dask.errors import AltMinWarning, ConfigError, ExistsError
from altmin_dask.storage.atomic import new_folder
from altmin_dask.storage.checksums import storage_options
from altmin_dask.storage.destination import check_destination
from altmin_dask.storage.locations import for_zarr, is_url, locate
from altmin_dask.storage.ownership import KEY
from altmin_dask.storage.remote import explained_errors
from altmin_dask.storage.sample_arrays import SAMPLES, WEIGHTS
from altmin_dask.types import Array


def ingest(
    source: Source,
    dest: str | os.PathLike[str],
    *,
    scale: float = 1.0,
    chunk_rows: int | None = None,
    overwrite: bool = False,
    dtype: str = "float32",
    standardize: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SampleStore:
    """Stream a source into a new sample store, holding a few chunks at a time.

    Chunks carry checksums. A local store appears only when it is complete and on the disk: until then it is hidden,
    and removed if anything goes wrong. A store at a URL is written in place, compressed, and refused until complete.

    Parameters
    ----------
    source : Source
        What to read.
    dest : str or path
        Path or URL of the store.
    scale : float
        What x is divided by, for example 255 for 8-bit images.
    chunk_rows : int, optional
        Samples in a chunk; `default_chunk_rows` if not given.
    overwrite : bool
        Replace a sample store that `ingest` wrote, and in which nobody has put anything; all else is never replaced.
    dtype : {"float32", "float64"}
        Dtype of x, and of y where it is not integer; integer labels become int64. That float32 drops digits is
        recorded, with a warning where values lie closer together than it tells apart.
    standardize : bool
        Bring every number of x, and of y where that is real, to mean 0 and variance 1; the source is read twice. What
        was done is recorded, goes along with models, and is undone in what they predict.
    progress : callable, optional
        Called as ``progress(rows_done, rows)`` after each chunk.

    Raises
    ------
    ConfigError, ExistsError
        If a setting cannot be used, or there is something at `dest` that may not be replaced.
    DataError, MissingError
        If values are not finite, or whole numbers too large for float64, the targets have a shape that no loss can
        use, a label does not fit, or the source cannot be read (`ChunkError` of a damaged store) or the URL written.

    Examples
    --------
    >>> from altmin_dask import ingest, open_source
    >>> store = ingest(open_source("digits:train"), "digits.zarr", scale=16)
    >>> store.x.shape, store.y.shape, store.n_chunks
    ((1437, 8, 8), (1437,), 8)
    """
    _check_settings(scale, chunk_rows, dtype, standardize)
    check_shapes(source)
    source = standardized(source) if standardize else source
    location = locate(dest)
    rows = min(chunk_rows or default_chunk_rows(source.rows, source.x_shape, dtype), source.rows)
    with _new_store(location, source.name, overwrite) as place:
        _write(source, place, _Form(dtype, scale, rows, compress=is_url(location)), progress)
    return SampleStore.open(location)


@dataclass(frozen=True)
class _Form:
    """How a store holds the numbers of a source: in which dtype, divided by what, in which chunks."""

    dtype: str
    scale: float
    chunk_rows: int
    compress: bool


def _check_settings(scale: float, chunk_rows: int | None, dtype: str, standardize: bool) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigError(f"scale is {scale}; x can only be divided by a finite number above 0")
    if chunk_rows is not None and chunk_rows < 1:
        raise ConfigError(f"chunk_rows is {chunk_rows}; a chunk needs at least 1 row")
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"dtype is {dtype}; samples are stored as float32 or float64")
    if standardize and scale != 1:
        raise ConfigError(f"scale is {scale}, which standardize finds by itself; leave one of them out")


@contextmanager
def _new_store(location: str, source: str, overwrite: bool) -> Iterator[str]:
    """Give the place to write a store at that will be at a location, in place of one that may be replaced."""
    replace = check_destination(location, overwrite, SAMPLES)
    if not is_url(location):
        with new_folder(Path(os.path.realpath(location)), SAMPLES, replace=replace) as partial:
            yield str(partial)
        return
    if replace and location.rstrip("/") == source.rstrip("/"):
        raise ExistsError(f"{location} cannot replace itself while it is read; give another destination")
    with explained_errors(location, "written"):
        if replace:
            _mark_incomplete(location)
            SAMPLES.remove(location)
        yield location


def _mark_incomplete(location: str) -> None:
    """Have a store refused from now on, whatever becomes of its chunks."""
    group = zarr.open_group(for_zarr(location), mode="r+")
    own: Any = group.attrs[KEY]
    group.attrs[KEY] = {**own, "complete": False}


def _write(source: Source, location: str, form: _Form, progress: Callable[[int, int], None] | None) -> None:
    """Write a whole store, chunk by chunk."""
    scale, preparation = divided(source, form.scale)
    attributes: dict[str, Any] = {
        "version": VERSION,
        "source": source.name,
        "scale": float(scale),
        "sample_shape": list(source.x_shape),
        "complete": False,
    }
    if preparation is not None:
        attributes["preparation"] = preparation.to_json()
    group = zarr.create_group(for_zarr(location), zarr_format=3, attributes={KEY: attributes})
    arrays = {name: _Transfer.prepare(group, source, name, form) for name in source.arrays}

    def take(start: int) -> dict[str, Array]:
        return {name: array.take(start) for name, array in arrays.items()}

    def put(start: int, chunk: dict[str, Array]) -> Summary:
        for name, array in arrays.items():
            array.put(start, chunk[name])
        return summarise(chunk["x"], chunk.get("y"))

    summary = None
    # Ctrl-C leaves a zarr write running behind it, which would put back what ingest then removes; a thread of
    # our own is waited for at the end of this block
    with ThreadPoolExecutor(1) as thread:
        for start in range(0, source.rows, form.chunk_rows):
            # nested calls, so that no name keeps a block alive while the next one is made
            part = thread.submit(put, start, take(start)).result()
            summary = part if summary is None else summary.merge(part)
            if progress is not None:
                progress(min(start + form.chunk_rows, source.rows), source.rows)
    assert summary is not None  # a source has at least one row
    lost = _lost({name: array.conversion for name, array in arrays.items()}, source.rounded)
    group.attrs[KEY] = {**attributes, **lost, "summary": summary.to_json(), "complete": True}


@dataclass(frozen=True)
class _Transfer:
    """One array on its way from a source into a store.

    Attributes
    ----------
    name : str
        What it is called in the store.
    labels : bool
        Whether its numbers are integer labels.
    blocks : iterator of ndarray
        What the source has, a chunk at a time.
    conversion : Conversion
        To the numbers that are stored.
    check : callable
        ``check(values, first_row)`` refuses what may not be stored.
    stored : zarr.Array
        Where they go.
    source : str
        What messages call the data.
    """

    name: str
    labels: bool
    blocks: Iterator[Array]
    conversion: Conversion
    check: Callable[[Array, int], None]
    stored: zarr.Array[Any]
    source: str

    @classmethod
    def prepare(cls, group: zarr.Group, source: Source, name: str, form: _Form) -> _Transfer:
        """Make the array in the store, without chunks."""
        reader = source.arrays[name]
        labels = name == "y" and is_labels(reader.dtype)
        counted = labels or name == "lengths"
        conversion = Conversion(
            reader, "int64" if counted else form.dtype, form.scale if name == "x" else 1.0
        )
        stored = group.create_array(
            name,
            shape=reader.shape,
            chunks=(form.chunk_rows, *reader.shape[1:]),
            **storage_options(conversion.dtype, compress=form.compress),
        )
        check = _check(source, name)
        return cls(name, labels, reader.blocks(form.chunk_rows), conversion, check, stored, source.name)

    def take(self, first_row: int) -> Array:
        """The next chunk, converted."""
        return self._convert(next(self.blocks), first_row)

    def _convert(self, raw: Array, first_row: int) -> Array:
        if self.labels:
            check_labels(raw, first_row, self.source)
        return self.conversion(raw)

    def put(self, first_row: int, values: Array) -> None:
        """Check a chunk and write it."""
        self.check(values, first_row)
        self.stored[first_row : first_row + len(values)] = values


def _check(source: Source, name: str) -> Callable[[Array, int], None]:
    """What the values of an array have to be."""
    if name == "lengths":
        return lambda values, row: check_lengths(values, source.x_shape[0], row, source.name)
    if name == WEIGHTS:
        return lambda values, row: check_weights(values, row, source.name)
    return lambda values, row: check_finite(values, None, row, source.name, name)


def _lost(converted: dict[str, Conversion], before: tuple[str, ...]) -> dict[str, list[str]]:
    """What to record of digits that a store has lost, or that float32 would lose, with a warning where it matters."""
    rounded = [name for name, array in converted.items() if array.rounded or name in before]
    fine = {name: what for name in ("x", "y") if name in converted and (what := converted[name].blurred())}
    for name, what in fine.items():
        if converted[name].dtype == np.float32:
            warnings.warn(
                f"{what}: take float64 (ingest --dtype float64, network.dtype, dtype of estimators), or standardize",
                AltMinWarning,
                stacklevel=4,
            )
    kept: list[str] = [name for name in fine if converted[name].dtype != np.float32]
    return {key: names for key, names in (("rounded", rounded), ("fine", kept)) if names}
