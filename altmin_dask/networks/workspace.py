"""Scratch arrays that are used again, block of samples after block: memory that stays in the cache and mapped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from altmin_dask.types import Array

STRIP_SIZE = 1 << 15
"""Elements of a strip: a dozen arrays of this size stay in a core's own cache, and a call's overhead is small."""


def strip_rows(rows: int, columns: int) -> int:
    """Rows of a strip of a block."""
    return min(rows, max(1, STRIP_SIZE // columns))


def strips(rows: int, columns: int) -> Iterator[slice]:
    """Cut a block into strips of rows, so that a chain of element-wise operations runs in the cache.

    Matrix products want the whole block; between two of them every sample is by itself.
    """
    height = max(1, STRIP_SIZE // columns)
    return (slice(start, min(start + height, rows)) for start in range(0, rows, height))


@dataclass(frozen=True)
class ArraySpec:
    """An array of a workspace, declared beside the code that takes it: memory is planned from these.

    Attributes
    ----------
    name : str
        Its name.
    columns : int
        Numbers in one of its rows.
    steps : int
        Rows of one sample.
    rows : {"block", "strip", "square"}
        Whether it holds all samples of a block, or those of a strip, or as many rows as columns.
    itemsize : int, optional
        Bytes of a number; by default those of the weights' dtype.
    """

    name: str
    columns: int
    steps: int = 1
    rows: Literal["block", "strip", "square"] = "block"
    itemsize: int | None = None

    def nbytes(self, block_rows: int, itemsize: int) -> int:
        """Bytes, for blocks of so many samples, and numbers of so many bytes."""
        numbers = self.columns * self.steps
        rows = {"block": block_rows, "strip": strip_rows(block_rows, numbers), "square": self.columns}
        return rows[self.rows] * numbers * (self.itemsize or itemsize)


class Workspace:
    """Named arrays, each made once and handed out again under its name with whatever it holds."""

    def __init__(self) -> None:
        # told what is done for as long as a block lasts; by default nobody is
        self.activity: Callable[[str], AbstractContextManager[Any]] = nullcontext
        self._arrays: dict[tuple[str, int, np.dtype[Any]], Array] = {}

    def take(self, name: str, rows: int, columns: int, dtype: npt.DTypeLike) -> Array:
        """The array of that name, (rows, columns); its contents are left over from its last use."""
        key = name, columns, np.dtype(dtype)
        array = self._arrays.get(key)
        if array is None or len(array) < rows:
            array = self._arrays[key] = np.empty((rows, columns), dtype)
        return array[:rows]

    def like(self, name: str, array: Array, dtype: npt.DTypeLike | None = None) -> Array:
        """The array of that name with the shape and, unless given, the dtype of another."""
        rows, columns = array.shape
        return self.take(name, rows, columns, array.dtype if dtype is None else dtype)


class Fresh(Workspace):
    """New arrays every time, which go when nobody holds them any more."""

    def take(self, name: str, rows: int, columns: int, dtype: npt.DTypeLike) -> Array:
        """An array, (rows, columns), of anything."""
        return np.empty((rows, columns), dtype)


_local = threading.local()


def thread_workspace() -> Workspace:
    """The workspace of the current thread."""
    if not hasattr(_local, "workspace"):
        _local.workspace = Workspace()
    workspace: Workspace = _local.workspace
    return workspace
