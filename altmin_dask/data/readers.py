"""One array, read block by block, whatever it is kept in: what the formats of `altmin_dask.data.formats` share.

Every reader is a `RowReader`: shape and dtype are known, and refused where they cannot be used, before any value is
read; blocks are then streamed, so that an array larger than memory costs about one. Nothing unpickles.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from altmin_dask.errors import DataError
from altmin_dask.storage.remote import reason
from altmin_dask.types import Array

_PIECE = 1 << 20  # bytes decompressed at a time, so that filling a block needs no second block


class ByteStream(Protocol):
    """What plain, zip and gzip files have in common."""

    def read(self, size: int = ..., /) -> bytes:
        """At most so many bytes."""
        ...


@dataclass(frozen=True)
class RowReader:
    """An array that is read in blocks of rows.

    Attributes
    ----------
    label : str
        What and where the array is, for messages.
    shape : tuple of int
        The whole shape, rows first.
    dtype : numpy.dtype
        A boolean, integer or float dtype in native byte order: that of the blocks. Labels that are yet to be numbered
        may be text.
    blocks : callable
        ``blocks(rows)`` iterates over consecutive blocks of ``rows`` rows; the last may be shorter. A block
        may be a view of memory that others use: do not write to it.
    """

    label: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[int], Iterator[Array]]


def unmasked(values: Any, label: str) -> Any:
    """The same values, of which none is masked: NumPy would take what is there below the mask.

    Raises
    ------
    DataError
        If one is.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        count = int(np.count_nonzero(values.mask))
        raise DataError(
            f"{label} has {count} masked value{'s' if count > 1 else ''}; leave such rows out, or fill them in "
            "(filled())"
        )
    return values


def read_memory(array: Array, label: str) -> RowReader:
    """Read an array that is in memory; the blocks are views of it unless its byte order is foreign.

    Raises
    ------
    DataError
        If the dtype is not numeric, or there are no rows.
    """
    if array.dtype.hasobject and array.dtype.kind != "T":
        raise DataError(
            f"{label} holds Python objects: text, values of several kinds, or what is no array; give an array of "
            "numbers (numpy.asarray(values, float), toarray() of a sparse one), and labels that are text by their "
            "places (numpy.unique(labels, return_inverse=True))"
        )
    check_array(array.shape, array.dtype, label)
    native = array.dtype.newbyteorder("=")

    def blocks(rows: int) -> Iterator[Array]:
        with readable(label):
            for start in range(0, len(array), rows):
                yield np.asarray(array[start : start + rows], dtype=native, order="C")

    return RowReader(label, array.shape, native, blocks)


def check_array(shape: tuple[int, ...], dtype: np.dtype[Any], label: str, *, text: bool = False) -> None:
    """Refuse an array that has no rows or no numbers; labels may be `text`."""
    if dtype.hasobject and dtype.kind != "T":
        raise DataError(
            f"{label} holds pickled Python objects, which are never loaded; save it again as numbers"
        )
    if dtype.kind not in ("biufUST" if text else "biuf"):
        raise DataError(f"{label} has dtype {dtype}; only integers and real numbers can be used, convert it")
    if not shape:
        raise DataError(f"{label} is a single value (rank 0); an array needs one row per sample")
    if shape[0] == 0:
        raise DataError(f"{label} has no rows; give it at least one sample")


@contextmanager
def readable(label: str) -> Iterator[None]:
    """Turn what file, zip, gzip, npy and codec readers raise into a `DataError` that names the array."""
    try:
        yield
    except DataError:
        raise
    except (
        OSError,
        EOFError,
        MemoryError,  # of a header that promises the impossible
        ValueError,
        RuntimeError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise DataError(
            f"{label} cannot be read: {reason(error)}; check the file or write it again"
        ) from error


def read_stream(
    opened: Callable[[], AbstractContextManager[ByteStream]],
    header: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    label: str,
    *,
    text: bool = False,
) -> RowReader:
    """Read values in C order from a byte stream, after `header` bytes, from the first to the last."""
    check_array(shape, dtype, label, text=text)
    total, sample = shape[0], shape[1:]
    native = dtype.newbyteorder("=")

    def block(file: ByteStream, start: int, stop: int) -> Array:
        values = np.empty((stop - start, *sample), dtype)
        filled = fill(file, values)
        if filled < values.nbytes:
            row = start + filled // max(1, dtype.itemsize * math.prod(sample))
            raise DataError(
                f"{label} ends in row {row} of the {total} that its header promises; write it again"
            )
        # reading past the end is also what makes zip and gzip compare their checksums
        if stop == total and file.read(1):
            raise DataError(f"{label} goes on after the {total} rows of its header; write it again")
        return values.astype(native, copy=False)

    def blocks(rows: int) -> Iterator[Array]:
        with readable(label), opened() as file:
            file.read(header)
            for start in range(0, total, rows):
                yield block(file, start, min(start + rows, total))

    return RowReader(label, shape, native, blocks)


def fill(file: ByteStream, values: Array) -> int:
    """Read a stream into a C-contiguous array; return how many bytes there were for it."""
    buffer = values.reshape(-1).view(np.uint8)
    filled = 0
    while piece := file.read(min(_PIECE, buffer.size - filled)):
        buffer[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    return filled
