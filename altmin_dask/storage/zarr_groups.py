"""Zarr groups and arrays, at a path or URL: whether there is one, and opening it or saying what to do."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import zarr
from zarr.errors import NodeNotFoundError
from zarr.storage import ZipStore

from altmin_dask.errors import AltMinError, DataError, MissingError
from altmin_dask.storage.endings import is_called_a_file
from altmin_dask.storage.locations import filesystem_of, for_zarr, is_url
from altmin_dask.storage.remote import explained_errors, reason

ROOTS = frozenset({"zarr.json", ".zgroup", ".zarray"})
"""Files of which one is in the folder of every zarr group or array, of format 2 or 3."""


def is_zarr_folder(path: Path) -> bool:
    """Tell whether a local folder is the root of a zarr group or array, of format 2 or 3."""
    return any((path / name).is_file() for name in ROOTS)


def is_zarr_file(path: Path) -> bool:
    """Tell whether a local file is a zip store of a zarr group or array."""
    if path.suffix.lower() != ".zip" or not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any(name in ROOTS for name in archive.namelist())


def member(node: zarr.Group, name: str, location: str) -> Any:
    """An array or group of a group, or None where there is none of that name.

    Raises
    ------
    DataError
        If it holds objects, or its chunks are packed by a codec that is not known, or would unpickle.
    """
    try:
        return node.get(name)
    except (ValueError, TypeError, LookupError) as error:  # of zarr, which makes nothing of such metadata
        raise DataError(
            f"the array {name!r} of {location} holds objects, or is packed in a way that is not known or unpickles, "
            f"and is never loaded ({reason(error)}); save it again as numbers"
        ) from error


def array_names(node: zarr.Group) -> list[str]:
    """What arrays of a group are called, as far as zarr can make something of them."""
    try:
        return sorted(node.array_keys())
    except (ValueError, TypeError, LookupError):  # of one that holds objects, say
        return []


def open_zarr(location: str) -> zarr.Group | zarr.Array[Any]:
    """Open a zarr group or array to read, at a path or URL that went through `locate`.

    Raises
    ------
    MissingError
        If there is nothing at the location.
    DataError
        If what is there is not zarr, or cannot be read.
    """
    remote = is_url(location)
    if not remote and not Path(location).exists():
        raise MissingError(f"there is no file or folder {location}; check the path")
    if remote and is_called_a_file(location):
        raise DataError(
            f"{location} is called a file of another kind, and only zarr stores are read from URLs; copy it to this "
            "machine first, and give its path"
        )
    try:
        with explained_errors(location, "opened") if remote else nullcontext():
            if remote:  # one request first: zarr leaves several running behind it where there is no answer
                filesystem, root = filesystem_of(location)
                filesystem.exists(f"{root}/zarr.json")
            try:
                # consolidated metadata hides arrays that were added after it was written
                packed = not remote and is_zarr_file(Path(location))
                store: Any = ZipStore(location, mode="r") if packed else for_zarr(location)
                return zarr.open(store, mode="r", use_consolidated=False)
            except NodeNotFoundError as error:
                if remote:
                    raise MissingError(f"there is no zarr store at {location}; check the URL") from error
                raise DataError(f"{location} is not a zarr store; make one with `altmin ingest`") from error
    except AltMinError:
        raise
    except Exception as error:  # whatever damaged metadata raises
        raise DataError(f"{location} cannot be opened as a zarr store: {reason(error)}") from error
