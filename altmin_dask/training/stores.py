"""The samples of a run: stores where they are, stores made of sources, or both parts of samples that are divided."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from altmin_dask.config import Pipeline
from altmin_dask.data.find import find_store, is_ready, store_source
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.preprocessing import prepared_like
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.data.splitting import split
from altmin_dask.errors import warn
from altmin_dask.preparation import Preparation
from altmin_dask.storage.locations import locate
from altmin_dask.training.checks import warn_of_others


def open_stores(
    pipeline: Pipeline, data: Path, chunk_rows: int | None, source: Source | None = None
) -> tuple[SampleStore, SampleStore | None]:
    """The stores for training and validation, made in the folder `data` where they are not there.

    The `source` is what `data.train` names, where that is open already.

    Raises
    ------
    AltMinError
        If samples cannot be read, or divided.
    """
    table, dtype = pipeline.data, pipeline.network.dtype
    _warn_of_changes(pipeline, data)
    if table.share is not None:
        return _parts(pipeline, table.share, data, chunk_rows, source)
    find = partial(
        find_store, data=data, chunk_rows=chunk_rows, dtype=dtype, x=table.x, y=table.y, tables=table.tables
    )
    seed = pipeline.training.seed if table.shuffle else None
    train = find(
        table.train, "train", scale=table.scale, standardize=table.standardize, seed=seed, source=source
    )
    if table.validation is None:
        return train, None
    if isinstance(table.train, str) and locate(str(table.validation)) == locate(table.train):
        warn(
            f"data.validation is {table.validation}, which is what is trained on: losses and scores there say nothing "
            "of new samples; name others, or a share, as data.validation = 0.1"
        )
    like = train.preparation or Preparation()
    return train, find(str(table.validation), "validation", scale=train.scale, like=like)


def _warn_of_changes(pipeline: Pipeline, data: Path) -> None:
    """Tell of files that were written after the stores that a run has made of them."""
    table = pipeline.data
    for name, part in ((table.train, "train"), (table.validation, "validation")):
        if not isinstance(name, str):  # none, or a share of the others
            continue
        made, file = data / f"{part}.zarr" / "zarr.json", Path(locate(name))
        if made.is_file() and file.is_file() and file.stat().st_mtime_ns > made.stat().st_mtime_ns:
            warn(
                f"{file} has changed since the run read it, which goes on with the samples that it has "
                f"({made.parent}); begin another run to train on what is there now"
            )


def undivided(pipeline: Pipeline) -> Source:
    """The samples of `data.train` before a share is held out of them."""
    table = pipeline.data
    if is_ready(table.train, table.x, table.y):
        store = SampleStore.open(locate(table.train))
        warn_of_others(store)
        return store_source(store)
    return open_source(table.train, x=table.x, y=table.y, **table.tables)


def _parts(
    pipeline: Pipeline, share: float, data: Path, chunk_rows: int | None, source: Source | None
) -> tuple[SampleStore, SampleStore]:
    """Stores of those to train on, and of those held out, which are prepared as the former are."""
    places = data / "train.zarr", data / "validation.zarr"
    if all(place.exists() for place in places):
        train, validation = map(SampleStore.open, places)
        return train, validation
    table, dtype, source = pipeline.data, pipeline.network.dtype, source or undivided(pipeline)
    labels = pipeline.network.target == "labels" and source.y is not None and len(source.y.shape) == 1
    parts = split(
        source,
        share,
        pipeline.training.seed,
        setting="data.validation",
        otherwise="name samples for it",
        stratified=labels,
    )
    raw = not is_ready(table.train, table.x, table.y)
    scale, standardize = (table.scale, table.standardize) if raw else (1.0, False)
    if places[0].exists():
        train = SampleStore.open(places[0])
    else:
        train = ingest(
            parts[0],
            places[0],
            scale=scale,
            standardize=standardize,
            chunk_rows=chunk_rows,
            dtype=dtype,
            shuffle=table.shuffle,
            seed=pipeline.training.seed,
            on_the_way=True,
        )
    held = parts[1]
    if raw:
        held, scale = prepared_like(held, train.scale, train.preparation or Preparation())
    validation = ingest(
        held, places[1], scale=scale, chunk_rows=chunk_rows, dtype=dtype, shuffle=False, on_the_way=True
    )
    return train, validation
