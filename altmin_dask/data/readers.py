"""One array of one file, read block by block: npy, npz member, idx, zarr, or memory.

Every reader returns a `RowReader`: shape and dtype are known, and refused where they cannot be used, before any
value is read; blocks are then streamed, so that an array larger than memory costs about one. Nothing unpickles.
"""

from __future__ import annotations

import gzip
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import zarr
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from zarr.errors import NodeNotFoundError
from zarr.storage import LocalStore

from altmin_dask.errors import AltMinError, ChunkError, DataError, MissingError
from altmin_dask.storage.checksums import damage, is_missing
from altmin_dask.storage.locations import filesystem_of, for_zarr, is_url
from altmin_dask.storage.remote import explained_errors, reason

Array = NDArray[Any]

ROOTS = frozenset({"zarr.json", ".zgroup", ".zarray"})
"""Files of which one is in the folder of every zarr group or array, of format 2 or 3."""
_PIECE = 1 << 20  # bytes decompressed at a time, so that filling a block needs no second block
_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class _Stream(Protocol):
    """What plain, zip and gzip files have in common."""

    def read(self, size: int = ..., /) -> bytes: ...


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
        A boolean, integer or float dtype in native byte order: that of the blocks.
    blocks : callable
        ``blocks(rows)`` iterates over consecutive blocks of ``rows`` rows; the last may be shorter. A block
        may be a view of memory that others use: do not write to it.
    """

    label: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[int], Iterator[Array]]


def read_memory(array: Array, label: str) -> RowReader:
    """Read an array that is in memory; the blocks are views of it unless its byte order is foreign.

    Raises
    ------
    DataError
        If the dtype is not numeric, or there are no rows.
    """
    return _sliced(array, array.shape, array.dtype, label)


def read_npy(path: Path) -> RowReader:
    """Read a ``.npy`` file, in C or Fortran order.

    The file is not mapped: its pages would count as memory of this process, and a file that is cut short while
    it is read would kill it.

    Raises
    ------
    DataError
        If the file is damaged, its dtype is not numeric (objects are never unpickled), or it has no rows.
    """
    label = f"the array in {path}"
    with _readable(label), path.open("rb") as file:
        shape, fortran, dtype = _npy_header(file, label)
        header = file.tell()
        size = file.seek(0, os.SEEK_END)
    _check_array(shape, dtype, label)
    promised = header + math.prod(shape) * dtype.itemsize
    if size < promised:
        raise DataError(
            f"{label} cannot be read: it has {size} bytes and its header promises {promised}; write it again"
        )
    if fortran and len(shape) > 1:
        return _by_columns(path, header, shape, dtype, label)
    return _streamed(lambda: path.open("rb"), header, shape, dtype, label)


def npz_names(path: Path) -> list[str]:
    """Name the arrays in a ``.npz`` file, in the order of the file."""
    with _readable(str(path)), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_npz(path: Path, name: str) -> RowReader:
    """Read one array of a ``.npz`` file, straight from the zip member, compressed or not.

    Raises
    ------
    DataError
        If the file is damaged, the array is in Fortran order (its rows are scattered over the whole member),
        its dtype is not numeric (objects are never unpickled), or it has no rows.
    """
    label = f"array {name!r} of {path}"

    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            yield member

    with _readable(label), opened() as member:
        shape, fortran, dtype = _npy_header(member, label)
        header = member.tell()
    if fortran and len(shape) > 1:
        raise DataError(
            f"{label} is stored in Fortran order and cannot be read row by row; save it again after "
            "numpy.ascontiguousarray"
        )
    return _streamed(opened, header, shape, dtype, label)


def read_idx(path: Path) -> RowReader:
    """Read an idx file (the format of MNIST) of any rank and dtype, plain or gzipped.

    Raises
    ------
    DataError
        If the file is damaged, is not an idx file, or has no rows.
    """

    def opened() -> AbstractContextManager[_Stream]:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")

    label = str(path)
    with _readable(label), opened() as file:
        zeros, code, rank = struct.unpack(">HBB", file.read(4))
        if zeros or code not in _IDX_DTYPES:
            raise DataError(f"{label} does not begin like an idx file; download or write it again")
        shape = struct.unpack(f">{rank}I", file.read(4 * rank))
    return _streamed(opened, 4 + 4 * rank, shape, np.dtype(_IDX_DTYPES[code]), label)


def read_zarr(array: zarr.Array[Any], label: str) -> RowReader:
    """Read a zarr array, slice by slice; zarr 3 itself refuses codecs that unpickle.

    Raises
    ------
    ChunkError
        While it is read: if a chunk is damaged, or one that carries our fill value is missing.
    DataError
        If the dtype is not numeric, or there are no rows.
    """
    _check_array(array.shape, array.dtype, label)
    native = array.dtype.newbyteorder("=")

    per_chunk, chunk_bytes = array.chunks[0], math.prod(array.chunks) * array.dtype.itemsize
    # zarr holds all chunks of a slice at once: one, or several that are small and may be far away
    step = per_chunk * max(1, _PIECE // chunk_bytes)

    def piece(start: int, stop: int) -> Array:
        try:
            values = np.asarray(array[start:stop])
        except Exception as error:
            if damage(error) is None:
                raise
            raise _damaged_chunk(array, label, start, stop) or error from error
        # a chunk that begins before these rows was looked at with the last ones
        for first in range(math.ceil(start / per_chunk) * per_chunk, stop, per_chunk):
            if is_missing(array, values[first - start : first - start + per_chunk]):
                raise ChunkError(label, first // per_chunk, "is missing")
        return values

    def block(start: int, stop: int) -> Array:
        values = np.empty((stop - start, *array.shape[1:]), native)
        row = start
        while row < stop:
            end = min(stop, (row // step + 1) * step)
            values[row - start : end - start] = piece(row, end)
            row = end
        return values

    def blocks(rows: int) -> Iterator[Array]:
        local = isinstance(array.store, LocalStore)
        with _readable(label), nullcontext() if local else explained_errors(label, "read"):
            for start in range(0, array.shape[0], rows):
                yield block(start, min(start + rows, array.shape[0]))

    return RowReader(label, array.shape, native, blocks)


def is_zarr_folder(path: Path) -> bool:
    """Tell whether a local folder is the root of a zarr group or array, of format 2 or 3."""
    return any((path / name).is_file() for name in ROOTS)


def open_zarr(location: str) -> zarr.Group | zarr.Array[Any]:
    """Open a zarr group or array to read, at a path or URL that went through `locate`.

    Raises
    ------
    MissingError
        If there is nothing at the location.
    DataError
        If what is there is not zarr, or cannot be read.
    """
    remote = is_url(location)
    if not remote and not Path(location).exists():
        raise MissingError(f"there is no file or folder {location}; check the path")
    try:
        with explained_errors(location, "opened") if remote else nullcontext():
            if remote:  # one request first: zarr leaves several running behind it where there is no answer
                filesystem, root = filesystem_of(location)
                filesystem.exists(f"{root}/zarr.json")
            try:
                # consolidated metadata hides arrays that were added after it was written
                return zarr.open(for_zarr(location), mode="r", use_consolidated=False)
            except NodeNotFoundError as error:
                if remote:
                    raise MissingError(f"there is no zarr store at {location}; check the URL") from error
                raise DataError(f"{location} is not a zarr store; make one with `altmin ingest`") from error
    except AltMinError:
        raise
    except Exception as error:  # whatever damaged metadata raises
        raise DataError(f"{location} cannot be opened as a zarr store: {reason(error)}") from error


def _check_array(shape: tuple[int, ...], dtype: np.dtype[Any], label: str) -> None:
    """Refuse an array that has no rows or no numbers."""
    if dtype.hasobject and dtype.kind != "T":
        raise DataError(
            f"{label} holds pickled Python objects, which are never loaded; save it again as numbers"
        )
    if dtype.kind not in "biuf":
        raise DataError(f"{label} has dtype {dtype}; only integers and real numbers can be used, convert it")
    if not shape:
        raise DataError(f"{label} is a single value (rank 0); an array needs one row per sample")
    if shape[0] == 0:
        raise DataError(f"{label} has no rows; give it at least one sample")


@contextmanager
def _readable(label: str) -> Iterator[None]:
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


def _npy_header(file: _Stream, label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, Fortran order and dtype from the start of a ``.npy`` stream."""
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


def _sliced(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], label: str) -> RowReader:
    """Read by slicing anything that takes ``array[start:stop]``."""
    _check_array(shape, dtype, label)
    native = dtype.newbyteorder("=")

    def blocks(rows: int) -> Iterator[Array]:
        with _readable(label):
            for start in range(0, shape[0], rows):
                yield np.asarray(array[start : start + rows], dtype=native, order="C")

    return RowReader(label, shape, native, blocks)


def _by_columns(path: Path, header: int, shape: tuple[int, ...], dtype: Any, label: str) -> RowReader:
    """Read rows of an array in Fortran order: a piece of each of its columns."""
    total, sample = shape[0], shape[1:]
    columns, native = math.prod(sample), dtype.newbyteorder("=")

    def blocks(rows: int) -> Iterator[Array]:
        with _readable(label), path.open("rb") as file:
            for start in range(0, total, rows):
                count = min(rows, total - start)
                values = np.empty((columns, count), dtype)
                for column in range(columns):
                    file.seek(header + (column * total + start) * dtype.itemsize)
                    if _fill(file, values[column]) < values[column].nbytes:
                        raise DataError(f"{label} was cut short while it was read; write it again")
                yield np.asarray(values.T.reshape((count, *sample), order="F"), dtype=native, order="C")
                del values  # or it would live on while the next one is made

    return RowReader(label, shape, native, blocks)


def _damaged_chunk(array: zarr.Array[Any], label: str, start: int, stop: int) -> ChunkError | None:
    """Which chunk of some rows is damaged, found by reading them one by one."""
    rows = array.chunks[0]
    for chunk in range(start // rows, math.ceil(stop / rows)):
        try:
            array[chunk * rows : (chunk + 1) * rows]
        except Exception as error:
            if found := damage(error):
                return ChunkError(label, chunk, found)
    return None


def _streamed(
    opened: Callable[[], AbstractContextManager[_Stream]],
    header: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    label: str,
) -> RowReader:
    """Read values in C order from a byte stream, after `header` bytes, from the first to the last."""
    _check_array(shape, dtype, label)
    total, sample = shape[0], shape[1:]
    native = dtype.newbyteorder("=")

    def block(file: _Stream, start: int, stop: int) -> Array:
        values = np.empty((stop - start, *sample), dtype)
        filled = _fill(file, values)
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
        with _readable(label), opened() as file:
            file.read(header)
            for start in range(0, total, rows):
                yield block(file, start, min(start + rows, total))

    return RowReader(label, shape, native, blocks)


def _fill(file: _Stream, values: Array) -> int:
    """Read a stream into a C-contiguous array; return how many bytes there were for it."""
    buffer = values.reshape(-1).view(np.uint8)
    filled = 0
    while piece := file.read(min(_PIECE, buffer.size - filled)):
        buffer[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    return filled
