"""Places that cannot be written: said before anything is read or computed for them, with what to do."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from altmin_dask.errors import AltMinError, ExistsError, MissingError, StorageError

_PERMISSIONS = "change its permissions, or choose another place"
ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EROFS: "mount it to be written, or choose another place",
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
}
"""What to do, by what the system says."""
_FULL = errno.ENOSPC, errno.EDQUOT


@contextmanager
def making(final: Path) -> Iterator[None]:
    """Say of a file or folder that cannot be made what it is, why, and what to do; only making it is in the block.

    Raises
    ------
    StorageError
        If the system refuses, for whatever reason.
    """
    try:
        yield
    except AltMinError:
        raise
    except OSError as error:
        raise _refused(final, error) from error


@contextmanager
def filling(final: Path) -> Iterator[None]:
    """Say where there was no more room while something was written for a file or folder.

    Raises
    ------
    StorageError
        If a disk, or somebody's share of it, is full.
    """
    try:
        yield
    except AltMinError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise _refused(final, error) from error
        raise


def _refused(final: Path, error: OSError) -> StorageError:
    advice, why = ADVICE.get(error.errno or 0, "choose another place"), error.strerror or str(error)
    return StorageError(f"{final} cannot be written: {why}, in {_nearest(final)}; {advice}")


def check_writable(final: Path) -> None:
    """Refuse a place in a folder where nothing can be made.

    Raises
    ------
    StorageError
        If the folder, which has to be there, takes no new names.
    """
    probe = final.with_name(f".{final.name[:64]}.{uuid.uuid4().hex[:8]}")
    with making(final):
        probe.mkdir()
        probe.rmdir()


def check_folder_of(file: Path) -> None:
    """Refuse a file in a folder that is not there, or is a file itself.

    Raises
    ------
    MissingError, ExistsError
        If it is so.
    """
    folder = file.parent
    if folder.exists() and not folder.is_dir():
        raise ExistsError(f"{folder} is not a folder; give another path")
    if not folder.is_dir():
        raise MissingError(f"there is no folder {folder}; make it first")


def _nearest(path: Path) -> Path:
    """The folder of a path, or the nearest one above that is there."""
    return next((folder for folder in path.parents if folder.is_dir()), path.parent)
