"""The store behind a name: one that is there, or one that is made of another source, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from altmin_dask.data.ingest import ingest
from altmin_dask.data.labels import TEXT
from altmin_dask.data.open import is_table, open_source
from altmin_dask.data.preprocessing import prepared_like
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.data.zarr_reader import read_zarr
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.preparation import Preparation
from altmin_dask.storage.locations import is_url, locate
from altmin_dask.storage.zarr_groups import is_zarr_folder, member, open_zarr
from altmin_dask.table_options import TABLE_SETTINGS, for_like


def is_store(spec: str) -> bool:
    """Tell a sample store from a source that is ingested first."""
    location = locate(spec)
    return is_url(location) or (spec != "digits" and is_zarr_folder(Path(location)))


def is_ready(spec: str, x: str | None = None, y: str | None = None) -> bool:
    """Tell a store that is used where it is: its arrays are called x and y, and its labels are no text."""
    if not is_store(spec) or x not in (None, "x") or y not in (None, "y"):
        return False
    node = open_zarr(locate(spec))
    if not isinstance(node, zarr.Group):
        return True
    _, labels = (member(node, name, spec) for name in ("x", "y"))  # which refuses what is never loaded
    return not (isinstance(labels, zarr.Array) and labels.dtype.kind in TEXT)


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
    x: str | None = None,
    y: str | None = None,
    tables: Mapping[str, Any] | None = None,
    source: Source | None = None,
) -> SampleStore:
    """Open a sample store; any other source is first ingested as ``<data>/<name>.zarr`` (once).

    In `dtype`, that of the network, with `standardize`, or prepared `like` other samples; in a random order if there is
    a `seed` for it; `x` and `y` name its arrays, `tables` are what else `open_source` takes of tables. The `source` is
    what is named, where that is open already.

    Raises
    ------
    AltMinError
        As `SampleStore.open`, `open_source` and `ingest` do.
    """
    if is_ready(spec, x, y):
        return SampleStore.open(locate(spec))
    made = data / f"{name}.zarr"
    if made.exists():
        return SampleStore.open(made)
    if source is None:
        given = dict(tables or {})
        source = open_source(spec, x=x, y=y, like=like, **(given if like is None else for_like(given)))
    if like is not None:
        source, scale = prepared_like(source, scale, like)
        standardize = False
    return ingest(
        source,
        made,
        scale=scale,
        chunk_rows=chunk_rows,
        standardize=standardize,
        dtype=dtype,
        shuffle=seed is not None,
        seed=seed or 0,
        on_the_way=True,
    )


def find_like(
    spec: str,
    data: Path,
    scale: float,
    like: Preparation | None,
    dtype: str,
    *,
    x: str | None = None,
    y: str | None = None,
    targets: bool = True,
    csv: Mapping[str, Any] | None = None,
    chunk_rows: int | None = None,
) -> SampleStore:
    """Open samples for a model: a store as it is, or a source that is ingested into `data`, prepared like others.

    Parameters
    ----------
    spec : str
        What a user named.
    data : Path
        A folder for the store that is made.
    scale, like, dtype
        What x was divided by, what else was done, and what the model computes in.
    x, y : str, optional
        Names of arrays or columns.
    targets : bool
        Whether there have to be targets; or else they are left out, whatever they are.
    csv : mapping, optional
        How csv files are read, where otherwise than those for training.
    chunk_rows : int, optional
        Of a store that is made; sums are rounded alike where chunks are.

    Raises
    ------
    DataError
        If samples cannot be read.
    """
    stored = None if like is None else like.stored
    if is_ready(spec, x, y):
        if csv:
            raise ConfigError(f"{spec} is a store, and --csv is for csv files; leave it out")
        return SampleStore.open(locate(spec))
    known = stored or Preparation()
    source = _opened_like(spec, x, y, known, {"csv": csv} if csv else {}, targets=targets)
    source, left = prepared_like(source, scale, known)
    return ingest(
        source,
        data / "source.zarr",
        scale=left,
        chunk_rows=chunk_rows,
        dtype=dtype,
        shuffle=False,  # predictions have the order of the samples
        on_the_way=True,
    )


def _opened_like(
    spec: str, x: str | None, y: str | None, known: Preparation, tables: Mapping[str, Any], *, targets: bool
) -> Source:
    """A raw source, as `find_like` has it; `tables` say how csv files are read."""
    if not targets:
        found = open_source(spec, x=x, y=None if is_table(spec) else y, like=known.inputs, **tables)
        return replace(found, y=None, preparation=found.preparation if found.stored else None)
    source = open_source(spec, x=x, y=y, like=known, **tables)
    if source.y is None and known.targets:
        raise DataError(
            f"{spec} has no targets: no values of {', '.join(map(repr, known.targets))}, which they are called in "
            "the samples for training; name the column of its own by --y NAME"
        )
    return source


def open_like(
    spec: str,
    store: str,
    names: Mapping[str, Any],
    tables: Mapping[str, Any],
    *,
    scale: float,
    standardize: bool,
) -> tuple[Source, float]:
    """Open raw samples, prepared as those of a store are.

    Parameters
    ----------
    spec, store : str
        The samples, and the store.
    names : mapping
        ``x`` and ``y`` of arrays.
    tables : mapping
        What else `open_source` takes; only ``csv`` may be given, which says how the new files are written.
    scale, standardize
        Settings of `ingest`, which the store has for itself.

    Returns
    -------
    source : Source
        The samples.
    scale : float
        What they are still to be divided by.

    Raises
    ------
    ConfigError
        If a setting is given that the store has for itself.
    DataError
        If the samples cannot be prepared like that.
    """
    others = [name for name in tables if name != "csv"]
    others += [name for name, given in (("scale", scale != 1), ("standardize", standardize)) if given]
    if others:
        option = others[0].replace("_", "-")
        raise ConfigError(
            f"--{option} does not go with --like: samples are prepared as {store} was; leave it out"
        )
    known = SampleStore.open(locate(store))
    how = known.preparation or Preparation()
    source = open_source(spec, **names, like=how, **tables)
    return prepared_like(source, known.scale, how)


def store_source(store: SampleStore) -> Source:
    """The samples of a store, to be read once more."""
    readers = {name: read_zarr(array, f"{name} of {store.title}") for name, array in store.arrays.items()}
    return store.noted(Source.of(store.path, readers, store.preparation))


def check_made_so(store: SampleStore, given: Mapping[str, Any]) -> None:
    """Refuse settings for raw sources that a store, which is used as it is, was not made by.

    Parameters
    ----------
    store : SampleStore
        One that a user named.
    given : mapping
        Those of the table ``[data]`` that were set: scale, standardize, chunk_rows, and those of tables.

    Raises
    ------
    ConfigError
        If one of them says something else than the store.
    """
    how = store.preparation
    standardized = how is not None and how.x is not None
    if of_tables := [name for name in given if name in TABLE_SETTINGS]:
        raise ConfigError(
            f"data.{of_tables[0]} is for raw tables, and {store.path} is used as it is; leave it out, or `altmin "
            f"ingest` the raw samples again with --{of_tables[0].replace('_', '-')}"
        )
    wishes: dict[str, tuple[str, Callable[[Any], bool], str]] = {
        "scale": (f"has x divided by {store.scale:g}", lambda value: value == store.scale, "--scale {}"),
        "standardize": (
            "was standardized" if standardized else "was not standardized",
            lambda value: value == standardized,
            "--standardize",
        ),
        "shuffle": (
            "was shuffled" if store.shuffled else "was not shuffled",
            lambda value: value == store.shuffled,
            "--shuffle",
        ),
        "chunk_rows": (
            f"has {store.chunk_rows} rows in a chunk",
            lambda value: value == "auto" or min(value, store.rows) == store.chunk_rows,
            "--chunk-rows {}",
        ),
    }
    for name, (has, fits, option) in wishes.items():
        if name in given and not fits(given[name]):
            value = f"{given[name]:g}" if isinstance(given[name], float) else str(given[name]).lower()
            advice = (
                f", or `altmin ingest` the raw samples again with {option.format(value)}"
                if given[name]
                else ""
            )
            raise ConfigError(
                f"data.{name} = {value} is for raw sources, and {store.path}, which is used as it is, {has}; leave "
                f"data.{name} out{advice}"
            )
