"""The folder in which a fit takes place: there from its beginning to its end, or a sentence that says why it is not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask

from altmin_dask.errors import AltMinError, ConfigError, StorageError
from altmin_dask.storage.locations import local_path
from altmin_dask.storage.writable import ADVICE, check_folder_of

PARAMETER, OF_DASK = "temporary_folder", "temporary-directory of Dask"
"""Who says where it is; otherwise the system does."""


@contextmanager
def temporary_home(given: str | os.PathLike[str] | None) -> Iterator[Path]:
    """A new folder in the one that is given, or else in Dask's or the system's; it goes with the block.

    Parameters
    ----------
    given : path or None
        The parameter `temporary_folder` of an estimator.

    Raises
    ------
    ConfigError
        If what is given is no path on this machine.
    MissingError, ExistsError
        If there is no such folder.
    StorageError
        If nothing can be made in it.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        raise ConfigError(f"{PARAMETER} = {given!r}: give the path of a folder, or None")
    where = given or dask.config.get("temporary-directory", None)
    with _made(PARAMETER if given else OF_DASK, where) as home:
        yield Path(home)


def _made(who: str, where: str | os.PathLike[str] | None) -> tempfile.TemporaryDirectory[str]:
    """The folder; before anything is read for what would be in it."""
    folder = None
    if where:
        try:
            folder = local_path(where).absolute()
            check_folder_of(folder / "altmin")
        except AltMinError as error:
            raise type(error)(f"{who}: {error}") from None
    try:
        return tempfile.TemporaryDirectory(prefix="altmin-", dir=folder)
    except OSError as error:
        why = error.strerror or str(error)
        if folder is None:
            raise StorageError(
                f"no temporary folder of the system can be written: {why}; give a {PARAMETER}, or set TMPDIR"
            ) from error
        advice = ADVICE.get(error.errno or 0, "choose another place")
        raise StorageError(f"{who}: {folder} cannot be written: {why}; {advice}") from error
