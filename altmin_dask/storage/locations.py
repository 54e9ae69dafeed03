"""Where things are: the one place that tells URLs from local paths, and lists, reads and removes files at either.

A string is a URL if it begins with ``scheme://``, and otherwise a path, letter by letter: nothing in it is a pattern, a
chain of file systems, or an escape; only ``~`` and ``~user`` at its beginning are folders of users, as to a shell, and
``./~`` is not. A `pathlib.Path` is always a path, and ``~`` a name as others.

Only URLs ever reach fsspec, which would take ``r::un/steps`` for the folder ``r``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from glob import has_magic
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from altmin_dask.errors import ConfigError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_URL = re.compile(r"(file|local)://")
_CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*::.*://", re.DOTALL)


def is_url(location: str) -> bool:
    """Tell a URL (``s3://…``) from a local path; one of a scheme that is not there is refused when it is opened."""
    return _URL.match(location) is not None


def locate(location: str | os.PathLike[str]) -> str:
    """Normalise a location: a URL stays as it is, a local path (or ``file://`` URL) becomes absolute.

    Worker processes may run in another folder, so a relative path must not outlive the call it was given to.

    Raises
    ------
    ConfigError
        If it is a chain of URLs.
    """
    if not isinstance(location, str):
        return str(Path(location).absolute())
    name = _without_file_scheme(location)
    if _CHAIN.match(name) or (is_url(name) and "::" in name):
        raise ConfigError(f"{name} is a chain of URLs; give a single one, or for a local path ./NAME")
    return name if is_url(name) else str(Path(os.path.expanduser(name)).absolute())


def local_path(location: str | os.PathLike[str]) -> Path:
    """Take the name of what can only be local; a relative path stays one.

    Raises
    ------
    ConfigError
        If it is a URL.
    """
    if not isinstance(location, str):
        return Path(location)
    if is_url(locate(location)):
        raise ConfigError(f"{location} is a URL; give a path on this machine")
    return Path(os.path.expanduser(_without_file_scheme(location)))


def as_name(location: str | os.PathLike[str]) -> str:
    """Give a location as a string that means the same."""
    return location if isinstance(location, str) else locate(location)


def _without_file_scheme(name: str) -> str:
    scheme = _FILE_URL.match(name)
    return name[scheme.end() :] if scheme else name


def for_zarr(location: str) -> str | Path:
    """Give a location as zarr takes it: of a string that is no URL it would read ``::`` as a chain."""
    return location if is_url(location) else Path(location)


def filesystem_of(url: str) -> tuple[Any, str]:
    """Give the file system of a URL that went through `locate`, and the path there."""
    assert is_url(url), url
    return url_to_fs(url)


def read_bytes(location: str) -> bytes:
    """Read a file."""
    if is_url(location):
        filesystem, path = filesystem_of(location)
        return bytes(filesystem.cat_file(path))
    return Path(location).read_bytes()


def names_in(folder: str) -> list[str]:
    """Names of what lies directly in a folder, as it is now; none if there is no folder."""
    try:
        if not is_url(folder):
            return os.listdir(folder)
        filesystem, root = filesystem_of(folder)
        filesystem.invalidate_cache()
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in filesystem.ls(root, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_below(folder: str) -> Iterator[tuple[str, bool]]:
    """Everything in a folder but folders: its name from there, with slashes, and whether it is a file, not a link."""
    if not is_url(folder):
        yield from _walk(folder, "")
        return
    filesystem, root = filesystem_of(folder)
    filesystem.invalidate_cache()
    for path in filesystem.find(root):
        yield path[len(root.rstrip("/")) + 1 :], True


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.is_file(follow_symlinks=False)


def remove_files(folder: str, names: Iterable[str]) -> None:
    """Remove files of a folder, one by one and in order; what is not there, or is a folder, is left out."""
    if not is_url(folder):
        for name in names:
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(f"{folder}/{name}")
        return
    filesystem, root = filesystem_of(folder)
    paths = [f"{root}/{name}" for name in names]
    if not paths:
        return
    if not any(map(has_magic, paths)):
        with suppress(FileNotFoundError):
            filesystem.rm(paths)  # many at a request
            return
    for path in paths:  # `rm` takes names for patterns, and ends at the first that is not there
        with suppress(FileNotFoundError):
            filesystem.rm_file(path)


def remove_empty_folder(folder: str) -> None:
    """Remove a local folder if nothing is in it, and it is no link; there are none at URLs."""
    if not is_url(folder):
        with suppress(OSError):
            os.rmdir(folder)
