"""``.npy`` files, in C or Fortran order: one is x, another, named by y, the targets."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from altmin_dask.data.formats.base import SourceOptions, SourceSpec
from altmin_dask.data.formats.named_arrays import with_labels
from altmin_dask.data.readers import ByteStream, RowReader, check_array, fill, read_stream, readable
from altmin_dask.data.source import Source
from altmin_dask.errors import DataError, MissingError
from altmin_dask.storage.locations import local_path
from altmin_dask.storage.remote import reason
from altmin_dask.types import Array


class NpyFormat:
    """One array a file."""

    known_as = "a .npy file"

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the name of the file."""
        return spec.file(".npy") is not None

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Give the file as x, and the one that `y` names as the targets."""
        spec.refuse_split()
        path = local_path(spec.base)
        if options.x is not None:
            raise DataError(f"{path} holds one array, which is x; leave out the name {options.x}")
        if options.y is None:
            return Source(spec.name, read_npy(path))
        targets = local_path(options.y)
        if targets.suffix != ".npy":
            raise DataError(f"{options.y} cannot be the y of {path}; give the path of another .npy file")
        if not targets.is_file():
            raise MissingError(f"there is no file {targets}; check the path given for y")
        return with_labels(Source(spec.name, read_npy(path), read_npy(targets, text=True)), options.like)


def read_npy(path: Path, *, text: bool = False) -> RowReader:
    """Read a ``.npy`` file, in C or Fortran order.

    The file is not mapped: its pages would count as memory of this process, and a file that is cut short while
    it is read would kill it.

    Raises
    ------
    DataError
        If the file is damaged, its dtype is not numeric (objects are never unpickled), or it has no rows.
    """
    label = f"the array in {path}"
    with readable(label), path.open("rb") as file:
        shape, fortran, dtype = read_header(file, label)
        header = file.tell()
        size = file.seek(0, os.SEEK_END)
    check_array(shape, dtype, label, text=text)
    promised = header + math.prod(shape) * dtype.itemsize
    if size < promised:
        raise DataError(
            f"{label} cannot be read: it has {size} bytes and its header promises {promised}; write it again"
        )
    if fortran and len(shape) > 1:
        return _by_columns(path, header, shape, dtype, label)
    return read_stream(lambda: path.open("rb"), header, shape, dtype, label, text=text)


def read_header(file: ByteStream, label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, Fortran order and dtype from the start of a ``.npy`` stream.

    Raises
    ------
    DataError
        If it does not begin like one.
    """
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version[0]} of the npy format is for named fields")
        if any(size < 0 for size in shape):
            raise ValueError(f"its header has the shape {shape}")
    except Exception as error:  # the header is Python source, and numpy raises whatever parsing it raised
        raise DataError(f"{label} cannot be read: {reason(error)}; write it again with numpy.save") from error
    return shape, fortran, dtype


def _by_columns(path: Path, header: int, shape: tuple[int, ...], dtype: Any, label: str) -> RowReader:
    """Read rows of an array in Fortran order: a piece of each of its columns."""
    total, sample = shape[0], shape[1:]
    columns, native = math.prod(sample), dtype.newbyteorder("=")

    def blocks(rows: int) -> Iterator[Array]:
        with readable(label), path.open("rb") as file:
            for start in range(0, total, rows):
                count = min(rows, total - start)
                values = np.empty((columns, count), dtype)
                for column in range(columns):
                    file.seek(header + (column * total + start) * dtype.itemsize)
                    if fill(file, values[column]) < values[column].nbytes:
                        raise DataError(f"{label} was cut short while it was read; write it again")
                yield np.asarray(values.T.reshape((count, *sample), order="F"), dtype=native, order="C")
                del values  # or it would live on while the next one is made

    return RowReader(label, shape, native, blocks)
