"""Exported files: each says that it is one, and nothing else is ever replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from altmin_dask.errors import ExistsError
from altmin_dask.storage.locations import local_path
from altmin_dask.storage.ownership import PRODUCER
from altmin_dask.storage.writable import check_writable


def place_for(file: str | os.PathLike[str], producer_of: Callable[[Path], str | None]) -> Path:
    """Where an exported file may be written: what a link leads to, if that is not there or was exported, too.

    Parameters
    ----------
    file : path
        The name that was given.
    producer_of : callable
        Reads who has produced a file of the kind; may raise whatever reading another kind of file raises.

    Raises
    ------
    ExistsError
        If there is something else.
    ConfigError
        If it is a URL.
    StorageError
        If its folder cannot be written.
    """
    path = Path(os.path.realpath(local_path(file)))
    try:
        replaceable = not os.path.lexists(path) or producer_of(path) == PRODUCER
    except Exception:
        replaceable = False
    if not replaceable:
        raise ExistsError(f"{file} exists and was not exported, so it is never replaced; give another name")
    check_writable(path)
    return path
