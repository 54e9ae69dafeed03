"""The store behind a name: one that is there, or one that is made of another source, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.preprocessing import prepared
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.preparation import Preparation
from altmin_dask.storage.locations import is_url, locate
from altmin_dask.storage.zarr_groups import is_zarr_folder


def is_store(spec: str) -> bool:
    """Tell a sample store from a source that is ingested first."""
    location = locate(spec)
    return is_url(location) or (spec != "digits" and is_zarr_folder(Path(location)))


def find_store(
    spec: str,
    name: str,
    data: Path,
    scale: float,
    chunk_rows: int | None,
    *,
    standardize: bool = False,
    like: Preparation | None = None,
    dtype: str = "float32",
    seed: int | None = None,
) -> SampleStore:
    """Open a sample store; any other source is first ingested as ``<data>/<name>.zarr`` (once).

    In `dtype`, that of the network, with `standardize`, or prepared `like` other samples; in a random order if there is
    a `seed` for it.

    Raises
    ------
    AltMinError
        As `SampleStore.open`, `open_source` and `ingest` do.
    """
    if is_store(spec):
        return SampleStore.open(locate(spec))
    made = data / f"{name}.zarr"
    if made.exists():
        return SampleStore.open(made)
    source = open_source(spec, like=like)
    if like is not None:
        source, standardize = prepared(replace(source, preparation=like)), False
    return ingest(
        source,
        made,
        scale=scale,
        chunk_rows=chunk_rows,
        standardize=standardize,
        dtype=dtype,
        shuffle=seed is not None,
        seed=seed or 0,
    )
