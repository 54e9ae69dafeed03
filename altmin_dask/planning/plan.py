"""From a pipeline to its plan, with nothing computed or written: data by their headers, the network, the workers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from altmin_dask.config import Pipeline
from altmin_dask.config.catalogue import changed
from altmin_dask.data.checks import is_labels
from altmin_dask.data.find import check_made_so, is_ready, store_source
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore, default_chunk_rows
from altmin_dask.data.source import Source
from altmin_dask.data.splitting import held_out
from altmin_dask.data.summaries import Summary
from altmin_dask.execution.resources import Resources
from altmin_dask.execution.samples import TARGET_ARRAYS
from altmin_dask.format import counted_as, setting
from altmin_dask.networks.network import Network
from altmin_dask.planning.memory import Workload
from altmin_dask.planning.needs import Needs, size
from altmin_dask.planning.projection import (
    USABLE,
    idle,
    largest_chunk_rows,
    project,
    shared,
    task_rows,
    usable,
)
from altmin_dask.planning.resolved import resolved
from altmin_dask.preparation import Preparation
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.storage.locations import is_url, locate
from altmin_dask.table_options import for_like
from altmin_dask.training.build_network import DatasetSpec, make_network
from altmin_dask.training.checks import check_raw_labels
from altmin_dask.training.defaults import resolve
from altmin_dask.training.labels import find_classes
from altmin_dask.training.standardizing import bytes_beside
from altmin_dask.training.step_sizes import chunk_steps, group_rows, piece_rows, step_rows
from altmin_dask.training.stores import undivided


@dataclass(frozen=True)
class Plan(Needs):
    """A run as it would be: what it needs, and how it was asked for.

    Attributes
    ----------
    changed, settings : mapping of str to object
        By ``table.key``: what the pipeline has otherwise than by default, and what it leaves open comes to.
    source : Source or None
        What the training store is to be made of: a table has been gone through to know it, which is not done again.
    """

    changed: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = None

    def numbers(self) -> dict[str, Any]:
        """All of it as one JSON object; sizes in bytes."""
        return {
            "network": list(self.work.network.sizes),
            "rows": self.work.rows,
            **asdict(self.projection),
            "workers": self.place.workers,
            "threads": self.place.threads,
            "baseline": idle(self.place),
            "worker_memory": self.worker_memory,
            "client_memory": self.client_memory,
            "ingest_memory": self.ingest_memory,
            "memory_limit": self.place.memory_limit,
            "usable_share": USABLE,
            "fits": self.fits,
            "changed": dict(self.changed),
            "settings": dict(self.settings),
        }

    def lines(self) -> list[tuple[str, str]]:
        """All of it as labels and values for people."""
        projection, place = self.projection, self.place
        threads = counted_as(place.threads, "thread")
        where = f"{threads} of this process" if place.in_process else f"{place.workers} × {threads}"
        lines = [
            ("network", "-".join(map(str, self.work.network.sizes))),
            ("samples", f"{self.work.rows:,}"),
            ("rows in a chunk", f"{projection.chunk_rows:,}"),
            ("chunks", f"{projection.chunks:,}"),
            ("groups of chunks", f"{projection.groups:,}"),
            ("tasks a sweep", f"{projection.tasks:,}"),
            ("workers", where),
            ("peak memory of a task", size(projection.task_peak)),
            (
                "peak memory of this process" if place.in_process else "peak memory of a worker",
                f"{size(self.worker_memory)}, {size(idle(place))} of it idle",
            ),
            ("its limit", "none" if place.memory_limit is None else size(place.memory_limit)),
        ]
        if not place.in_process:
            lines.append(("peak memory of this process", size(self.client_memory)))
        if not (place.in_process or place.running):
            lines.append(("peak memory of all of them", size(self.machine_memory)))
        if self.raw:
            lines.append(("peak memory of ingest", size(self.ingest_memory)))
        return [
            *lines,
            ("samples on disk", size(projection.data_disk)),
            ("z on disk", size(projection.z_disk)),
            ("read a sweep", size(projection.sweep_read)),
            ("written a sweep", size(projection.sweep_written)),
            ("statistics of a task", size(projection.task_statistics)),
            ("statistics of a group", size(projection.group_statistics)),
            (f"fits in {USABLE:.0%} of the limit", "yes" if self.fits else "no"),
            *((f"{key}, changed", setting(value)) for key, value in self.changed.items()),
            *((f"{key}, by default", setting(value)) for key, value in self.settings.items()),
        ]


def make_plan(
    pipeline: Pipeline, data: Path | None, place: Resources, begun: Mapping[str, Any] | None = None
) -> Plan:
    """Plan a run.

    Only headers of the data are read; but the labels of a classifier are read through, block by block, where no store
    says how many classes there are.

    Parameters
    ----------
    pipeline : Pipeline
        What to train on what.
    data : path, optional
        Folder in which the run keeps the stores it makes of raw sources, which may be there already.
    place : Resources
        Where.
    begun : mapping, optional
        What was resolved at the start of a run that is to go on.

    Raises
    ------
    AltMinError
        If the data cannot be opened, or the network does not fit them.
    """
    settings = pipeline.network
    train, validation = _samples(pipeline, data)
    check_raw_labels(train.source.name, train.source.preparation, settings.target)
    classes = find_classes(settings, train.source.y, train.outline.classes, train.ranges)
    network = make_network(settings, train.outline.with_classes(classes).for_run(begun))
    work = _workload(pipeline, network, train, validation, place)
    if train.raw:
        work = _with_chunks(work, train, validation, pipeline.data.chunk_rows, place)
    run = resolve(
        pipeline, network, work.rows, work.chunk_rows, shuffled=train.shuffled, place=place, begun=begun
    )
    work = replace(
        work,
        group_chunks=max(work.group_chunks, run.group_chunks),  # of batch sweeps all, whatever their rows
        pieces=run.pieces or 1,
        chunk_steps=run.chunk_steps or 1,
        incremental=run.group_chunks < work.chunks,
        model_every=run.model_every or 1,
        max_staleness=pipeline.training.max_staleness,
    )
    said = changed(pipeline.model_dump(mode="json")), resolved(pipeline, run, network, place)
    return Plan(work, project(work), place, train.raw, *said, train.source if train.raw else None)


def _workload(
    pipeline: Pipeline, network: Network, train: _Data, validation: _Data | None, place: Resources
) -> Workload:
    """The run in numbers, but for what follows from the rows of a chunk."""
    settings, training, solver = pipeline.network, pipeline.training, pipeline.solver
    target = settings.target
    return Workload(
        network=network,
        itemsize=np.dtype(settings.dtype).itemsize,
        rows=train.outline.rows,
        chunk_rows=train.chunk_rows,
        x_bytes=train.x_bytes + (0 if train.raw else bytes_beside(settings, train.source)),
        y_bytes=0 if target == "inputs" else train.y_bytes,
        row_bytes=8 if train.shuffled else 0,
        group_rows=_group_rows(pipeline, network, train.outline.rows, place),
        piece_rows=piece_rows(network),
        step_rows=_step_rows(pipeline, network, train.outline.rows),
        raw_bytes=train.raw_bytes,
        reading_bytes=train.source.reading_bytes if train.raw else 0,
        y_converted=target == "real" and train.y_dtype != settings.dtype,
        compressed=train.compressed,
        z_compressed=pipeline.output.z is not None and is_url(pipeline.output.z),
        validation_rows=0 if validation is None else validation.outline.rows,
        validation_chunk_rows=0 if validation is None else validation.chunk_rows,
        group_chunks=train.outline.rows if pipeline.schedule == "batch" else training.group_chunks or 1,
        as_is=pipeline.uses_kfac and not train.shuffled,
        kfac=pipeline.uses_kfac,
        relaxed=pipeline.uses_kfac and solver.mu != "auto",
        whitened=settings.start == "whitened",
        exact=solver.curvature == "exact",
        newton_steps=solver.newton_steps,
        has_dual=PENALTIES[solver.penalty].per_sample_state > 0,
        split_every=pipeline.cluster.split_every,
        workers=place.workers,
        threads=place.threads,
        in_process=place.in_process,
    )


def _group_rows(pipeline: Pipeline, network: Network, rows: int, place: Resources) -> int:
    """Rows that a group of chunks has at least; 0 where it is so many chunks, whatever their rows."""
    if not pipeline.uses_kfac or pipeline.training.group_chunks:
        return 0
    return group_rows(network, rows, place)


def _step_rows(pipeline: Pipeline, network: Network, rows: int) -> int:
    """Rows that a step wants; 0 where a chunk is for one, or for as many as are asked for."""
    if chunk_steps(pipeline, network, rows, rows) == 1 or pipeline.training.chunk_steps:
        return 0
    return step_rows(network)


def _with_chunks(
    work: Workload, train: _Data, validation: _Data | None, wish: int | str | None, place: Resources
) -> Workload:
    """Chunks as they will be when the data are ingested."""
    if wish == "auto":
        work = replace(work, chunk_rows=1)  # so that nothing but rows can be too much
        chunk_rows = max(1, min(largest_chunk_rows(work, usable(place), shared(place)), task_rows(work)))
    else:
        assert not isinstance(wish, str)
        chunk_rows = min(wish or train.chunk_rows, work.rows)
        if validation is not None and validation.raw and wish is None:
            return replace(work, chunk_rows=chunk_rows)
    if validation is not None and validation.raw:
        work = replace(work, validation_chunk_rows=min(chunk_rows, work.validation_rows))
    return replace(work, chunk_rows=chunk_rows)


@dataclass(frozen=True)
class _Data:
    """Samples by their headers: bytes of a row as they are (or will be) stored, and rows in a chunk."""

    outline: DatasetSpec
    chunk_rows: int
    x_bytes: int
    y_bytes: int
    y_dtype: np.dtype[Any] | None
    compressed: bool
    source: Source
    shuffled: bool
    raw_bytes: int = 0
    ranges: Summary | None = None

    @property
    def raw(self) -> bool:
        return self.raw_bytes > 0


def _samples(pipeline: Pipeline, data: Path | None) -> tuple[_Data, _Data | None]:
    """The samples for training and validation."""
    table = pipeline.data
    made = {role: data / f"{role}.zarr" for role in ("train", "validation")} if data is not None else {}
    there = {role: place for role, place in made.items() if place.exists()}
    look = partial(_look, pipeline, there, _given(pipeline))
    if table.share is None:
        train = look("train", table.train)
        if table.validation is None:
            return train, None
        return train, look("validation", str(table.validation), train.source.preparation)
    if is_ready(table.train, table.x, table.y):
        check_made_so(SampleStore.open(locate(table.train)), _given(pipeline))
    if len(there) == 2:
        return _of_store(SampleStore.open(there["train"])), _of_store(SampleStore.open(there["validation"]))
    whole = undivided(pipeline)
    rows = held_out(whole.rows, table.share)
    return _of_source(pipeline, whole, max(1, whole.rows - rows)), _of_source(pipeline, whole, max(1, rows))


_OF_MADE = ("shuffle", "chunk_rows")
"""Settings that say something of stores that are made, beside one that is there."""


def _given(pipeline: Pipeline) -> dict[str, Any]:
    """Settings for sources that stores have to agree with: some of them only where none is made."""
    table = pipeline.data
    specs = [spec for spec in (table.train, table.validation) if isinstance(spec, str)]
    made = table.share is not None or not all(is_ready(spec, table.x, table.y) for spec in specs)
    return {name: value for name, value in table.given.items() if not (made and name in _OF_MADE)}


def _look(
    pipeline: Pipeline,
    there: Mapping[str, Path],
    given: Mapping[str, Any],
    role: str,
    spec: str,
    like: Preparation | None = None,
) -> _Data:
    """Samples that have a name of their own, with the columns of others."""
    table = pipeline.data
    if is_ready(spec, table.x, table.y):
        store = SampleStore.open(locate(spec))
        check_made_so(store, given)
        return _of_store(store)
    if role in there:
        return _of_store(SampleStore.open(there[role]))
    tables = table.tables if like is None else for_like(table.tables)
    source = open_source(spec, x=table.x, y=table.y, like=like, **tables)
    return _of_source(pipeline, source, source.rows)


def _of_store(store: SampleStore) -> _Data:
    row = {name: array.dtype.itemsize * math.prod(array.shape[1:]) for name, array in store.arrays.items()}
    y_bytes = sum(row.pop(name, 0) for name in TARGET_ARRAYS)
    return _Data(
        DatasetSpec.of(store, store.summary),
        store.chunk_rows,
        sum(row.values()),
        y_bytes,
        None if store.y is None else store.y.dtype,
        _compressed(store.x),
        store_source(store),
        store.shuffled,
        ranges=store.summary,
    )


def _of_source(pipeline: Pipeline, source: Source, rows: int) -> _Data:
    """So many rows of samples as they will be stored."""
    dtype = pipeline.network.dtype
    # what sequences have beside x is read as part of it
    features = math.prod(source.x_shape) + sum(
        math.prod(array.shape[1:]) for array in source.sequence_arrays.values()
    )
    labels = source.y_dtype is not None and is_labels(source.y_dtype)
    itemsize = np.dtype(dtype).itemsize
    y_dtype = None if source.y_dtype is None else np.dtype("int64" if labels else dtype)
    y_bytes = 0 if y_dtype is None else y_dtype.itemsize * math.prod(source.y_shape or ())
    y_bytes += 0 if source.weights is None else itemsize
    outline = DatasetSpec(
        source.name,
        rows,
        source.x_shape,
        source.y_shape,
        labels,
        None,
        tuple(source.sequence_arrays),
        None if source.preparation is None else source.preparation.classes,
        () if source.preparation is None else source.preparation.columns,
    )
    raw_bytes = source.x_dtype.itemsize * features
    if source.y_dtype is not None:
        raw_bytes += source.y_dtype.itemsize * math.prod(source.y_shape or ())
    if pipeline.data.standardize:  # in float64, by way of the difference to the mean
        raw_bytes += 2 * 8 * math.prod(source.x_shape)
    chunk_rows = default_chunk_rows(rows, source.x_shape, dtype)
    x_bytes = itemsize * features
    return _Data(
        outline, chunk_rows, x_bytes, y_bytes, y_dtype, False, source, pipeline.data.shuffle, raw_bytes
    )


def _compressed(array: zarr.Array[Any]) -> bool:
    return any(not isinstance(codec, Crc32cCodec) for codec in array.compressors)
