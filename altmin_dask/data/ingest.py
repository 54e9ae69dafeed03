"""From a source to a sample store: converted, checked and written, chunk by chunk.

Chunks carry checksums. A local store is hidden until it is complete and on the disk, and removed if anything goes
wrong; one at a URL is written in place, compressed, and refused until complete.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from altmin_dask.data.checks import check_shapes
from altmin_dask.data.preprocessing import padded_with_zeros, standardized
from altmin_dask.data.sample_store import SampleStore, default_chunk_rows
from altmin_dask.data.source import Source
from altmin_dask.data.store_writer import Form, write_store
from altmin_dask.errors import ConfigError, DataError, ExistsError
from altmin_dask.preparation import TRUTH, Preparation
from altmin_dask.storage.atomic import new_folder
from altmin_dask.storage.destination import check_destination
from altmin_dask.storage.locations import for_zarr, is_url, locate
from altmin_dask.storage.ownership import KEY
from altmin_dask.storage.remote import explained_errors
from altmin_dask.storage.sample_arrays import SAMPLES


def ingest(
    source: Source,
    dest: str | os.PathLike[str],
    *,
    scale: float = 1.0,
    chunk_rows: int | None = None,
    overwrite: bool = False,
    dtype: str = "float32",
    standardize: bool = False,
    shuffle: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    on_the_way: bool = False,
) -> SampleStore:
    """Stream a source into a new sample store, holding a few chunks at a time.

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
        Replace a store that `ingest` wrote, and in which nobody has put anything; all else is never replaced.
    dtype : {"float32", "float64"}
        Of x, and of real y; labels become int64. Dropped digits are recorded, with a warning if need be.
    standardize : bool
        Bring numbers of x, and y unless all of it is whole, to mean 0 and variance 1, by reading twice; models undo it.
    shuffle, seed : bool, int
        Bring rows into an order that the seed decides, so that every chunk is like all; ``row`` tells where each one
        was. More than some 32 MiB goes to the disk once more.
    progress : callable, optional
        Called as ``progress(done, all)`` in rows after each chunk; those that are shuffled count twice.
    on_the_way : bool
        Whether nobody asked for a store, which messages then call by its source.

    Raises
    ------
    ConfigError, ExistsError, DataError, MissingError
        If settings or values cannot be used, what is at `dest` may not be replaced, or a place not be read or written.

    Examples
    --------
    >>> from altmin_dask import ingest, open_source
    >>> store = ingest(open_source("digits:train"), "digits.zarr", scale=16)
    >>> store.x.shape, store.y.shape, store.n_chunks
    ((1437, 8, 8), (1437,), 8)
    """
    source = _checked(source, scale, chunk_rows, dtype, standardize)
    source = standardized(source) if standardize else source
    location = locate(dest)
    rows = min(chunk_rows or default_chunk_rows(source.rows, source.x_shape, dtype), source.rows)
    form = Form(dtype, scale, rows, is_url(location), seed if shuffle else None, on_the_way)
    with _new_store(location, source.name, overwrite) as place:
        write_store(source, place, form, progress)
    return SampleStore.open(location)


def _check_source(source: object) -> None:
    """Refuse what is to be a source first."""
    if not isinstance(source, Source):
        made = "open_source" if isinstance(source, str | os.PathLike) else "array_source"
        raise DataError(
            f"ingest reads a source, and was given a {type(source).__name__}; wrap it in {made}(…)"
        )


def _checked(source: Source, scale: float, chunk_rows: int | None, dtype: str, standardize: bool) -> Source:
    """The source, if it can be written like that; what stands behind the ends of sequences is no number."""
    _check_source(source)
    check_shapes(source)
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigError(f"scale is {scale}; x can only be divided by a finite number above 0")
    if chunk_rows is not None and chunk_rows < 1:
        raise ConfigError(f"chunk_rows is {chunk_rows}; a chunk needs at least 1 row")
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"dtype is {dtype}; samples are stored as float32 or float64")
    if standardize and scale != 1:
        raise ConfigError(f"scale is {scale}, which standardize finds by itself; leave one of them out")
    if source.y is not None and source.y.dtype.kind == "b":  # of which a store makes 0 and 1
        source = replace(source, preparation=replace(source.preparation or Preparation(), spelled=TRUTH))
    return padded_with_zeros(source)


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
