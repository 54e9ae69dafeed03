"""Files and folders that appear complete or not at all: written beside their place, then renamed onto it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from altmin_dask.errors import ExistsError
from altmin_dask.storage.locations import names_in, remove_empty_folder, remove_files
from altmin_dask.storage.ownership import Layout, remove_ours
from altmin_dask.storage.writable import check_writable, filling, making
from altmin_dask.types import Array

_writing: set[str] = set()  # names of folders that this process has not finished


def write_tensors(
    path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays as one safetensors file."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    _replace(path, lambda partial: save_file(contiguous, partial, metadata=dict(metadata or {})))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file."""
    _replace(path, lambda partial: partial.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    _replace(path, lambda partial: partial.write_text(text, encoding="utf-8"))


@contextmanager
def new_folder(final: Path, layout: Layout, *, replace: bool) -> Iterator[Path]:
    """Give a hidden path to write a folder at, which takes its place when the block has ended well.

    If anything goes wrong it is removed, together with the parent folders that were made for it. Every file is on
    the disk before the folder takes its place, so a power failure leaves the old folder or the new one, whole.

    Parameters
    ----------
    final : Path
        Where the folder will be.
    layout : Layout
        What it is: only such a folder is replaced.
    replace : bool
        Whether there is a folder already, which goes once the new one is complete.

    Raises
    ------
    ExistsError
        If somebody else has put something there in the meantime.
    StorageError
        If nothing can be written there.
    """
    with _place_beside(final) as partial:
        yield partial
        _flush_tree(partial)
        _move(partial, final, layout if replace else None)
        flush(final.parent)


@contextmanager
def _place_beside(final: Path) -> Iterator[Path]:
    """Give a hidden path beside another; if anything goes wrong it goes, with the parent folders that were made."""
    hidden, made = _hidden(final), missing_folders(final.parent)
    with making(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    _writing.add(hidden.name)
    try:
        check_writable(final)
        with filling(final):
            yield hidden
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)  # of a name that only this call has
        remove_empty(made)
        raise
    finally:
        _writing.discard(hidden.name)


@contextmanager
def folder_beside(final: Path) -> Iterator[Path]:
    """Give a hidden folder beside a path for as long as a block lasts, for files and no folders."""
    hidden = _hidden(final)
    _writing.add(hidden.name)
    try:
        hidden.mkdir()
        try:
            yield hidden
        finally:
            for file in hidden.iterdir():
                file.unlink(missing_ok=True)
            hidden.rmdir()
    finally:
        _writing.discard(hidden.name)


@contextmanager
def new_file(final: Path, *, replace: bool) -> Iterator[Path]:
    """Give a hidden folder, to be made beside a path, whose file of the same name takes its place at the end.

    Whatever else is in the folder goes, and so does all of it, with the parent folders that were made, if anything goes
    wrong.

    Parameters
    ----------
    final : Path
        Where the file will be.
    replace : bool
        Whether there is a file already, which goes once the new one is complete.

    Raises
    ------
    ExistsError
        If somebody else has put something there in the meantime.
    StorageError
        If nothing can be written there.
    """
    with _place_beside(final) as hidden:
        yield hidden
        written = hidden / final.name
        flush(written)
        if replace:
            os.replace(written, final)
        else:
            _link(written, final)
        flush(final.parent)
        shutil.rmtree(hidden, ignore_errors=True)


def _link(written: Path, final: Path) -> None:
    """Give a file its name, unless that is taken."""
    try:
        os.link(written, final)
    except OSError as error:
        if os.path.lexists(final):
            raise ExistsError(
                f"{final} has been made by somebody else in the meantime; give another path"
            ) from error
        written.rename(final)  # where there are no links


def _hidden(final: Path) -> Path:
    """A name beside a path that no other process takes, and that `remove_killed` knows."""
    mark = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return final.with_name(f".{final.name}.partial-{mark}")


def remove_killed(final: Path, files: re.Pattern[str]) -> None:
    """Remove what `new_folder` or `folder_beside` left beside a folder when its process was killed.

    What belongs to a process that is alive, or to another host, is left alone, and so are files of
    other names than `files`. A folder that was about to be replaced when its writer was killed is brought back.
    """
    pattern = re.compile(
        rf"(?P<partial>\.{re.escape(final.name)}\.partial-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{{8}})(?P<old>-replaced)?"
    )
    left = [match for name in names_in(str(final.parent)) if (match := pattern.fullmatch(name))]
    for match in sorted(left, key=lambda match: match["old"] is None):  # what was replaced first
        if match["host"] != socket.gethostname() or _is_alive(int(match["pid"]), match["partial"]):
            continue
        path = final.with_name(match[0])
        if path.is_symlink() or not path.is_dir():
            continue
        if match["old"] and not os.path.lexists(final):
            path.rename(final)
        else:
            remove_ours(str(path), files)
            # zarr makes the folder of a chunk before its file: a kill in between leaves an empty one
            for folder, _, _ in os.walk(path, topdown=False):
                remove_empty_folder(folder)


def _is_alive(pid: int, partial: str) -> bool:
    """Whether a process of this host may still be writing a folder."""
    if pid == os.getpid():  # a container's first process has the same number in every life
        return partial in _writing
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _flush_tree(folder: Path) -> None:
    """Wait until a folder and everything in it is on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            flush(Path(root, name))
        flush(Path(root))


def missing_folders(folder: Path) -> list[Path]:
    """List a folder and those above it as far as they do not exist, the innermost first.

    Raises
    ------
    ExistsError
        If they cannot be made, because there is a file in their place.
    """
    missing = []
    for path in (folder, *folder.parents):
        if path.is_dir():
            break
        if os.path.lexists(path):
            raise ExistsError(f"{path} is not a folder; give another path")
        missing.append(path)
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders until one is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _move(partial: Path, final: Path, replaced: Layout | None) -> None:
    """Rename a complete folder onto its place; what was there goes only once that has worked."""
    if replaced is None:
        try:
            partial.rename(final)
        except OSError as error:
            if os.path.lexists(final):
                raise ExistsError(
                    f"{final} has been made by somebody else in the meantime; give another path"
                ) from error
            raise
        return
    old = partial.with_name(f"{partial.name}-replaced")
    final.rename(old)
    try:
        replaced.check(str(old), called=str(final))  # it may have changed since it was looked at first
        partial.rename(final)
    except BaseException:
        old.rename(final)
        raise
    replaced.remove(str(old))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        write(partial)
        flush(partial)  # or a power failure could leave the new name on an empty file
        os.replace(partial, path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path, files: re.Pattern[str]) -> None:
    """Remove what writers of some files that were killed left half-written; none may be at work in the folder."""
    halves = (re.fullmatch(r"\.(?P<name>.+)\.[0-9a-f]+\.partial", name) for name in names_in(str(folder)))
    remove_files(str(folder), [half[0] for half in halves if half and files.fullmatch(half["name"])])
