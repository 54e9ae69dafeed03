"""Writing a sample store: chunks of a source converted, checked, and put where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import numpy as np
import zarr

from altmin_dask.data.checks import (
    check_finite,
    check_labels,
    check_lengths,
    check_weights,
    is_labels,
)
from altmin_dask.data.conversion import Conversion
from altmin_dask.data.preprocessing import divided
from altmin_dask.data.sample_store import VERSION
from altmin_dask.data.shuffling import ArraySize, Shuffle
from altmin_dask.data.source import Source
from altmin_dask.data.streams import regrouped
from altmin_dask.data.summaries import Summary, summarise
from altmin_dask.errors import warn
from altmin_dask.storage.checksums import storage_options
from altmin_dask.storage.locations import for_zarr, is_url
from altmin_dask.storage.ownership import KEY
from altmin_dask.storage.sample_arrays import ROW, WEIGHTS
from altmin_dask.types import Array


@dataclass(frozen=True)
class Form:
    """How a store holds the numbers of a source: in which dtype, divided by what, in which chunks, in which order.

    And whether nobody asked for it: it is then called by its source.
    """

    dtype: str
    scale: float
    chunk_rows: int
    compress: bool
    seed: int | None
    on_the_way: bool = False


def write_store(
    source: Source,
    location: str,
    form: Form,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write a whole store, chunk by chunk."""
    scale, preparation = divided(source, form.scale)
    attributes: dict[str, Any] = {
        "version": VERSION,
        "source": source.name,
        "scale": float(scale),
        "sample_shape": list(source.x_shape),
        "shuffled": form.seed,
        **({"on_the_way": True} if form.on_the_way else {}),
        **({} if source.mean_weight == 1 else {"mean_weight": source.mean_weight}),
        "complete": False,
    }
    if preparation is not None:
        attributes["preparation"] = preparation.to_json()
    group = zarr.create_group(for_zarr(location), zarr_format=3, attributes={KEY: attributes})
    arrays = {name: _Transfer.prepare(group, source, name, form) for name in source.arrays}
    report = _Progress(source.rows * (1 if form.seed is None else 2), progress)
    # Ctrl-C leaves a zarr write running behind it, which would put back what ingest then removes; a thread of
    # our own is waited for at the end of this block
    with ThreadPoolExecutor(1) as thread:
        if form.seed is None:
            summary = _stream(source, form, arrays, partial(_put, arrays), thread, report)
        else:
            summary = _shuffled(source, form, group, arrays, thread, report, _scratch(location))
    lost = _lost({name: array.conversion for name, array in arrays.items()}, source.rounded)
    group.attrs[KEY] = {**attributes, **lost, "summary": summary.to_json(), "complete": True}


@dataclass
class _Progress:
    """What is told of how far it is."""

    rows: int
    told: Callable[[int, int], None] | None
    done: int = 0

    def add(self, rows: int) -> None:
        """So many rows more."""
        self.done += rows
        if self.told is not None:
            self.told(self.done, self.rows)


def _stream(
    source: Source,
    form: Form,
    arrays: dict[str, _Transfer],
    put: Callable[[int, dict[str, Array]], None],
    thread: ThreadPoolExecutor,
    report: _Progress,
) -> Summary:
    """Pass a source through, a chunk at a time: converted, checked, and put somewhere."""

    def take(start: int) -> dict[str, Array]:
        return {name: array.take(start) for name, array in arrays.items()}

    def keep(start: int, chunk: dict[str, Array]) -> Summary:
        for name, array in arrays.items():
            array.check(chunk[name], start)
        put(start, chunk)
        return summarise(chunk["x"], chunk.get("y"))

    summary = None
    for start in range(0, source.rows, form.chunk_rows):
        # nested calls, so that no name keeps a block alive while the next one is made
        part = thread.submit(keep, start, take(start)).result()
        summary = part if summary is None else summary.merge(part)
        report.add(min(form.chunk_rows, source.rows - start))
    assert summary is not None  # a source has at least one row
    return summary


def _put(arrays: dict[str, _Transfer], start: int, chunk: dict[str, Array]) -> None:
    """Write a chunk as it is."""
    for name, values in chunk.items():
        arrays[name].stored[start : start + len(values)] = values


@contextmanager
def _scratch(location: str) -> Iterator[Path]:
    """Where rows are that are being shuffled: beside the arrays, or for a store at a URL where temporary files are."""
    if not is_url(location):
        yield Path(location)
        return
    with TemporaryDirectory(prefix="altmin-", dir=dask.config.get("temporary-directory", None)) as folder:
        yield Path(folder)


def _shuffled(
    source: Source,
    form: Form,
    group: zarr.Group,
    arrays: dict[str, _Transfer],
    thread: ThreadPoolExecutor,
    report: _Progress,
    scratch: AbstractContextManager[Path],
) -> Summary:
    """Write all arrays in an order that the seed decides, with the number that each row had in the source."""
    assert form.seed is not None
    stored = {name: array.stored for name, array in arrays.items()}
    stored[ROW] = group.create_array(
        ROW,
        shape=(source.rows,),
        chunks=(form.chunk_rows,),
        **storage_options("int64", compress=form.compress),
    )
    sizes = {name: ArraySize(array.shape[1:], array.dtype) for name, array in stored.items()}

    def write(name: str, start: int, values: Array) -> int:
        stored[name][start : start + len(values)] = values
        return start + len(values)

    with scratch as folder, Shuffle(source.rows, sizes, form.seed, folder) as shuffle:

        def add(start: int, chunk: dict[str, Array]) -> None:
            shuffle.add({**chunk, ROW: np.arange(start, start + len(chunk["x"]))})

        summary = _stream(source, form, arrays, add, thread, report)
        for name in stored:
            start = 0
            for values in regrouped(shuffle.pieces(name, form.chunk_rows), form.chunk_rows):
                start = thread.submit(write, name, start, values).result()
                if name == "x":
                    report.add(len(values))
    return summary


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
    def prepare(cls, group: zarr.Group, source: Source, name: str, form: Form) -> _Transfer:
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
        check = _check(source, name, conversion)
        return cls(name, labels, reader.blocks(form.chunk_rows), conversion, check, stored, source.name)

    def take(self, first_row: int) -> Array:
        """The next chunk, converted."""
        return self._convert(next(self.blocks), first_row)

    def _convert(self, raw: Array, first_row: int) -> Array:
        if self.labels:
            check_labels(raw, first_row, self.source)
        return self.conversion(raw)


def _check(source: Source, name: str, conversion: Conversion) -> Callable[[Array, int], None]:
    """What the values of an array have to be."""
    if name == "lengths":
        return lambda values, row: check_lengths(values, source.x_shape[0], row, source.name)
    if name == WEIGHTS:
        return lambda values, row: check_weights(values, row, source.name)
    how = source.preparation
    columns = how.names if name == "x" and how is not None and how.columns else ()

    def finite(values: Array, row: int) -> None:
        largest = conversion.too_large() if values.dtype.kind == "f" else None
        check_finite(values, None, row, source.name, name, columns, where=source.where, largest=largest)

    return finite


def _lost(converted: dict[str, Conversion], before: tuple[str, ...]) -> dict[str, list[str]]:
    """What to record of digits that a store has lost, or that float32 would lose, with a warning where it matters."""
    rounded = [name for name, array in converted.items() if array.rounded or name in before]
    fine = {name: what for name in ("x", "y") if name in converted and (what := converted[name].blurred())}
    for name, what in fine.items():
        if converted[name].dtype == np.float32:
            warn(
                f"{what}: take float64 (ingest --dtype float64, network.dtype, dtype of estimators), or standardize"
            )
    kept: list[str] = [name for name in fine if converted[name].dtype != np.float32]
    return {key: names for key, names in (("rounded", rounded), ("fine", kept)) if names}
