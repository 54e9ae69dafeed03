"""Files and folders that appear complete or not at all: written beside their place, then renamed onto it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from altmin_dask.errors import ExistsError
from altmin_dask.networks.activations import Array


def write_tensors(
    path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays as one safetensors file."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    _replace(path, lambda partial: save_file(contiguous, partial, metadata=dict(metadata or {})))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    _replace(path, lambda partial: partial.write_text(text, encoding="utf-8"))


@contextmanager
def new_folder(final: Path, *, replace: bool) -> Iterator[Path]:
    """Give a hidden path to write a folder at, which takes its place when the block has ended well.

    If anything goes wrong it is removed, together with the parent folders that were made for it.

    Parameters
    ----------
    final : Path
        Where the folder will be.
    replace : bool
        Whether there is a folder already, which goes once the new one is complete.
    """
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    made = missing_folders(final.parent)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _move(partial, final, replace)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        remove_empty(made)
        raise


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


def _move(partial: Path, final: Path, replace: bool) -> None:
    """Rename a complete folder onto its place; what was there goes only once that has worked."""
    if not replace:
        partial.rename(final)
        return
    old = partial.with_name(f"{partial.name}-replaced")
    final.rename(old)
    try:
        partial.rename(final)
    except BaseException:
        old.rename(final)
        raise
    shutil.rmtree(old)


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


def sweep_partials(folder: Path) -> None:
    """Remove what writers that were killed left half-written in a folder; none may be at work there."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)
