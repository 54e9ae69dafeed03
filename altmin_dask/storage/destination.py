"""Where a store is to be written: whether there is one already that it may take the place of."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

from altmin_dask.errors import ConfigError, ExistsError
from altmin_dask.storage.atomic import remove_killed
from altmin_dask.storage.endings import is_called_a_file
from altmin_dask.storage.locations import is_url, names_in
from altmin_dask.storage.ownership import Layout
from altmin_dask.storage.remote import explained_errors
from altmin_dask.storage.zarr_groups import ROOTS


def check_destination(location: str, overwrite: bool, layout: Layout) -> bool:
    """Tell whether there is a store to be replaced; refuse what is not one of ours, or may not be replaced.

    What a killed writer has left beside a local path is removed first.

    Raises
    ------
    ConfigError
        If it is called as a file of another kind is.
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
    if not there and is_called_a_file(location):
        raise ConfigError(
            f"{location} would be a folder, as zarr stores are, not a file of that kind; give a name like "
            f"{Path(location).stem}.zarr"
        )
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
