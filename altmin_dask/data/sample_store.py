"""The sample store: a zarr group that holds inputs ``x`` and targets ``y`` in chunks of whole samples.

`ingest` writes it once, from a `Source`; training only reads it. A store that another program wrote is as
good if its chunks are along rows only and have the same rows for x and y.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from altmin_dask.data.conversion import Conversion
from altmin_dask.data.preprocessing import Preparation, standardized
from altmin_dask.data.readers import ROOTS, open_zarr, read_zarr
from altmin_dask.data.sources import SEQUENCE_ARRAYS, WEIGHTS, Source
from altmin_dask.data.summaries import (
    Summary,
    check_finite,
    check_labels,
    check_lengths,
    check_weights,
    is_labels,
    summarise,
)
from altmin_dask.errors import AltMinWarning, ConfigError, DataError, ExistsError
from altmin_dask.storage.atomic import new_folder, remove_killed
from altmin_dask.storage.checksums import storage_options
from altmin_dask.storage.locations import for_zarr, is_url, locate, names_in
from altmin_dask.storage.ownership import KEY, Layout, own_attributes, store_files
from altmin_dask.storage.remote import explained_errors
from altmin_dask.types import Array

__all__ = [
    "SampleStore",
    "Summary",
    "check_destination",
    "check_finite",
    "default_chunk_rows",
    "ingest",
    "summarise",
]

SAMPLES = Layout(
    "a sample store that `altmin ingest` wrote",
    "zarr.json",
    lambda content: "sample_shape" in own_attributes(content),
    store_files("x", "y", *SEQUENCE_ARRAYS, WEIGHTS),
)
"""What `ingest` writes, and may replace."""
_VERSION = 1
_CHUNK_BYTES = 8 << 20
_MIN_CHUNKS = 8
_MIN_CHUNK_ROWS = 64


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
        ``lengths`` and ``states`` of sequences, as in `altmin_dask.data.sources.Source`, chunked like x.
    weights : zarr.Array or None
        ``sample_weight``, (rows,): how much every sample counts, 1 on average; chunked like x.
    attributes : dict
        What `ingest` recorded: version, source, scale, sample_shape, summary, complete; ``rounded``, the names of
        arrays of float32 whose source had more digits; ``fine``, of those of float64 that float32 would tell badly
        apart. Empty for a store that another program wrote.

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

        x, y = group.get("x"), group.get("y")
        if not isinstance(x, zarr.Array):
            names = ", ".join(sorted(group.array_keys())) or "no arrays"
            raise DataError(f"{location} has no array called x (it has {names}); `altmin ingest` it first")
        targets = y if isinstance(y, zarr.Array) else None
        sequence_arrays = {
            name: array for name in SEQUENCE_ARRAYS if isinstance(array := group.get(name), zarr.Array)
        }
        weights = array if isinstance(array := group.get(WEIGHTS), zarr.Array) else None
        _check_layout(location, x, targets, sequence_arrays, weights)
        return cls(location, x, targets, dict(attributes), sequence_arrays, weights)

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
    def arrays(self) -> dict[str, zarr.Array[Any]]:
        """Every array there is, by its name: x, y, lengths, states, sample_weight."""
        arrays = {"x": self.x, "y": self.y, **self.sequence_arrays, WEIGHTS: self.weights}
        return {name: array for name, array in arrays.items() if array is not None}

    @property
    def title(self) -> str:
        """What messages call it: where it is, and what it was made of."""
        source = self.attributes.get("source")
        return self.path if source in (None, self.path) else f"{self.path} (of {source})"

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
    chunk_rows = _CHUNK_BYTES // (math.prod(sample_shape) * np.dtype(dtype).itemsize)
    if rows >= _MIN_CHUNKS * _MIN_CHUNK_ROWS:
        chunk_rows = min(chunk_rows, math.ceil(rows / _MIN_CHUNKS))
    return max(1, min(chunk_rows, rows))


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

    Chunks carry checksums. A local store appears under its name only when it is complete and on the disk: it is
    written beside it under a hidden name that is removed if anything goes wrong (by the next ingest to the same
    place, if the process was killed), then renamed. A store at a URL such as ``s3://bucket/samples.zarr`` is
    written in place, compressed, and `SampleStore.open` refuses it until it is complete.

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
        Replace a sample store that `ingest` wrote. Anything else that is there is never replaced, and neither is a
        store in which somebody has put something.
    dtype : {"float32", "float64"}
        Dtype of x, and of y where it is not integer. Integer labels become int64. float32 is half the bytes, and what
        networks compute in unless told otherwise; digits that it drops are gone, which is recorded, and a warning
        where values lie closer together than it tells apart.
    standardize : bool
        Bring every number of x, and of y where that is real, to mean 0 and variance 1; the source is read twice. What
        was done is recorded, goes along with models, and is undone in what they predict.
    progress : callable, optional
        Called as ``progress(rows_done, rows)`` after each chunk.

    Returns
    -------
    SampleStore
        The new store, opened to read.

    Raises
    ------
    ConfigError
        If `scale`, `chunk_rows` or `dtype` cannot be used.
    ExistsError
        If there is something at `dest` that may not be replaced.
    DataError
        If values are not finite, or whole numbers too large for float64, the targets have a shape that no loss can
        use, a label does not fit, the source cannot be read, or the service behind a URL does not answer.
    ChunkError
        If a chunk of a source that is a store was altered or lost.
    MissingError
        If a bucket, or the package that reads URLs of its kind, is not there.

    Examples
    --------
    >>> from altmin_dask import ingest, open_source
    >>> store = ingest(open_source("digits:train"), "digits.zarr", scale=16)
    >>> store.x.shape, store.y.shape, store.n_chunks
    ((1437, 8, 8), (1437,), 8)
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigError(f"scale is {scale}; x can only be divided by a finite number above 0")
    if chunk_rows is not None and chunk_rows < 1:
        raise ConfigError(f"chunk_rows is {chunk_rows}; a chunk needs at least 1 row")
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"dtype is {dtype}; samples are stored as float32 or float64")
    if standardize and scale != 1:
        raise ConfigError(f"scale is {scale}, which standardize finds by itself; leave one of them out")
    if source.y is not None:
        _check_targets(source.y.shape, source.y.dtype, source.y.label, source.x_shape)
    _check_sequence_arrays(source)
    source = standardized(source) if standardize else source
    rows = min(chunk_rows or default_chunk_rows(source.rows, source.x_shape, dtype), source.rows)

    location = locate(dest)
    replace = check_destination(location, overwrite, SAMPLES)
    if is_url(location):
        if replace and location.rstrip("/") == source.name.rstrip("/"):
            raise ExistsError(f"{location} cannot replace itself while it is read; give another destination")
        with explained_errors(location, "written"):
            if replace:
                _mark_incomplete(location)
                SAMPLES.remove(location)
            _write(source, location, scale, rows, dtype, progress)
        return SampleStore.open(location)

    final = Path(os.path.realpath(location))
    with new_folder(final, SAMPLES, replace=replace) as partial:
        _write(source, str(partial), scale, rows, dtype, progress)
    return SampleStore.open(location)


def _write(
    source: Source,
    location: str,
    scale: float,
    chunk_rows: int,
    dtype: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write a whole store, chunk by chunk."""
    attributes: dict[str, Any] = {
        "version": _VERSION,
        "source": source.name,
        "scale": float(scale),
        "sample_shape": list(source.x_shape),
        "complete": False,
    }
    if source.preparation is not None:
        attributes["preparation"] = source.preparation.to_json()
    group = zarr.create_group(for_zarr(location), zarr_format=3, attributes={KEY: attributes})

    def create(name: str, sample_shape: tuple[int, ...], stored: str) -> zarr.Array[Any]:
        return group.create_array(
            name,
            shape=(source.rows, *sample_shape),
            chunks=(chunk_rows, *sample_shape),
            **storage_options(stored, compress=is_url(location)),
        )

    x_array, y_array = create("x", source.x_shape, dtype), None
    converted = {"x": Conversion(source.x, dtype, scale)}
    if source.y is not None:
        converted["y"] = Conversion(source.y, "int64" if is_labels(source.y.dtype) else dtype)
        y_array = create("y", source.y.shape[1:], converted["y"].dtype.name)
    readers = {**source.sequence_arrays, **({} if source.weights is None else {WEIGHTS: source.weights})}
    sequence_arrays = {}
    for name, reader in readers.items():
        converted[name] = Conversion(reader, "int64" if name == "lengths" else dtype)
        array = create(name, reader.shape[1:], converted[name].dtype.name)
        sequence_arrays[name] = array, reader.blocks(chunk_rows)

    def convert(start: int, raw_x: Array, raw_y: Array | None) -> tuple[Array, Array | None]:
        if raw_y is not None and is_labels(raw_y.dtype):
            check_labels(raw_y, start, source.name)
        return converted["x"](raw_x), None if raw_y is None else converted["y"](raw_y)

    def write_chunk(start: int, x: Array, y: Array | None) -> Summary:
        check_finite(x, y, start, source.name)
        rows = slice(start, start + len(x))
        x_array[rows] = x
        if y is not None and y_array is not None:
            y_array[rows] = y
        for name, (array, others) in sequence_arrays.items():
            values = converted[name](next(others))
            if name == "lengths":
                check_lengths(values, source.x_shape[0], start, source.name)
            elif name == WEIGHTS:
                check_weights(values, start, source.name)
            else:
                check_finite(values, None, start, source.name, name)
            array[rows] = values
        return summarise(x, y)

    blocks = source.blocks(chunk_rows)
    summary = None
    # Ctrl-C leaves a zarr write running behind it, which would put back what ingest then removes; a thread of
    # our own is waited for at the end of this block
    with ThreadPoolExecutor(1) as thread:
        for start in range(0, source.rows, chunk_rows):
            # nested calls, so that no name keeps a block alive while the next one is made
            part = thread.submit(write_chunk, start, *convert(start, *next(blocks))).result()
            summary = part if summary is None else summary.merge(part)
            if progress is not None:
                progress(min(start + chunk_rows, source.rows), source.rows)
    assert summary is not None  # a source has at least one row
    group.attrs[KEY] = {
        **attributes, **_lost(converted), "summary": summary.to_json(), "complete": True
    }  # fmt: skip


def _lost(converted: dict[str, Conversion]) -> dict[str, list[str]]:
    """What to record of digits that a store has lost, or that float32 would lose, with a warning where it matters."""
    rounded = [name for name, array in converted.items() if array.rounded]
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


def _mark_incomplete(location: str) -> None:
    """Have a store refused from now on, whatever becomes of its chunks."""
    group = zarr.open_group(for_zarr(location), mode="r+")
    own: Any = group.attrs[KEY]
    group.attrs[KEY] = {**own, "complete": False}


def check_destination(location: str, overwrite: bool, layout: Layout) -> bool:
    """Tell whether there is a store to be replaced; refuse what is not one of ours, or may not be replaced.

    What a killed writer has left beside a local path is removed first.

    Raises
    ------
    ExistsError
        If something is there that is not a store of this layout, or `overwrite` is not given.
    """
    if is_url(location):
        with explained_errors(location, "opened"):
            names = names_in(location)
        final, there = location, bool(names)
    else:
        final = os.path.realpath(location)
        remove_killed(Path(final), layout.files)
        names, there = names_in(final), os.path.lexists(location)
    if not there:
        return False
    if not ROOTS & set(names):
        raise ExistsError(
            f"{location} exists and is not a zarr store, so it is never replaced; give another path"
        )
    if not overwrite:
        raise ExistsError(
            f"{location} exists already; give another destination, or --overwrite to replace it"
        )
    with explained_errors(location, "read") if is_url(location) else nullcontext():
        layout.check(final, called=location)
    return True


def _check_attributes(attributes: dict[str, Any], location: str) -> None:
    """Refuse a store that `ingest` did not finish, or that a later version of it wrote."""
    if attributes.get("complete") is False:
        raise DataError(f"{location} was not written to the end; `altmin ingest` it again with --overwrite")
    if attributes.get("version", _VERSION) > _VERSION:
        raise DataError(f"{location} was written by a later version of altmin-dask; install that version")


def _check_layout(
    location: str,
    x: zarr.Array[Any],
    y: zarr.Array[Any] | None,
    sequence_arrays: dict[str, zarr.Array[Any]],
    weights: zarr.Array[Any] | None,
) -> None:
    """Refuse arrays that cannot be read as chunks of whole samples."""
    arrays = {"x": x} | ({} if y is None else {"y": y}) | sequence_arrays
    arrays |= {} if weights is None else {WEIGHTS: weights}
    readers = {name: read_zarr(array, f"{name} of {location}") for name, array in arrays.items()}
    # a source has the same demands on dtypes and shapes
    sequences = {name: readers[name] for name in sequence_arrays}
    _check_sequence_arrays(Source(location, readers["x"], readers.get("y"), sequences, readers.get(WEIGHTS)))
    for name, array in arrays.items():
        label = f"{name} of {location}"
        if any(chunk < size for chunk, size in zip(array.chunks[1:], array.shape[1:], strict=True)):
            raise DataError(
                f"{label} has chunks of {array.chunks}, which cut through samples of {array.shape[1:]}; "
                "`altmin ingest` it into a new store"
            )
    if y is not None:
        _check_targets(y.shape, y.dtype, f"y of {location}", x.shape[1:])
    rows = x.shape[0]
    for name, array in arrays.items():
        x_rows, other_rows = min(x.chunks[0], rows), min(array.chunks[0], rows)
        if x_rows != other_rows:
            raise DataError(
                f"{location} has {x_rows} rows in a chunk of x and {other_rows} in one of {name}; "
                "`altmin ingest` it into a new store"
            )


def _check_targets(
    shape: tuple[int, ...], dtype: np.dtype[Any], label: str, sample_shape: tuple[int, ...]
) -> None:
    """Refuse targets that are neither labels, nor numbers, nor rows of numbers, nor those of every step."""
    stepwise = len(sample_shape) > 1 and shape[1:2] == sample_shape[:1]
    if is_labels(dtype) and len(shape) > (2 if stepwise else 1):
        raise DataError(
            f"{label} has integers of shape {shape}; give labels of shape (rows,) or, of sequences, (rows, steps), "
            "or floats to fit"
        )
    if len(shape) > (3 if stepwise else 2) or 0 in shape:
        raise DataError(
            f"{label} has shape {shape}; give targets of shape (rows,), (rows, outputs) or, of sequences, "
            "(rows, steps, outputs)"
        )


def _check_sequence_arrays(source: Source) -> None:
    """Refuse weights, lengths and states of a wrong shape, or where there are no sequences."""
    if source.weights is not None and len(source.weights.shape) != 1:
        raise DataError(
            f"{source.weights.label} has shape {source.weights.shape}; give one weight for each sample, (rows,)"
        )
    for name, reader in source.sequence_arrays.items():
        if len(source.x_shape) < 2:
            raise DataError(
                f"{reader.label} belongs to sequences, and {source.x.label} has shape {source.x.shape}; "
                f"give x of shape (rows, steps, features), or leave out {name}"
            )
        if name == "lengths" and (len(reader.shape) != 1 or not is_labels(reader.dtype)):
            raise DataError(
                f"{reader.label} has dtype {reader.dtype} and shape {reader.shape}; give integers of shape (rows,)"
            )
        if name == "states" and len(reader.shape) != 2:
            raise DataError(
                f"{reader.label} has shape {reader.shape}; give one row for each sequence, the states of all "
                "recurrent layers side by side"
            )
