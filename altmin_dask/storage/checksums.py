"""How our arrays are stored so that a chunk that was lost or altered is noticed, not taken for data.

Every chunk ends in a CRC-32C of its bytes. A chunk that is missing reads as the fill value, which therefore is one
that no chunk of ours begins with: NaN, or the least integer.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from altmin_dask.types import Array

_MISMATCH = "checksum do not match"
_WRONG_LENGTH = ("reshape", "buffer", "changing to a larger dtype")
_DECOMPRESSION = (zlib.error, gzip.BadGzipFile, EOFError)  # of stores that other programs compressed


def storage_options(dtype: Any, *, compress: bool) -> dict[str, Any]:
    """Arguments of `zarr.create_array` for an array whose chunks are checked.

    Parameters
    ----------
    dtype : dtype
        A float or integer dtype.
    compress : bool
        Compression costs more time than a local disk saves, but less than a network does.
    """
    return {
        "dtype": np.dtype(dtype).name,
        "compressors": [*([ZstdCodec(level=0)] if compress else []), Crc32cCodec()],
        "fill_value": absent(dtype),
        # or a chunk of nothing but the fill value would be left out
        "config": {"write_empty_chunks": True},
    }


def absent(dtype: Any) -> float | int:
    """The value that a lost chunk is full of."""
    dtype = np.dtype(dtype)
    return float("nan") if dtype.kind == "f" else int(np.iinfo(dtype).min)


def damage(error: BaseException) -> str | None:
    """Say what is wrong with a chunk if that is what an exception of zarr means."""
    text = str(error)
    if isinstance(error, ValueError) and _MISMATCH in text:
        return "does not match its checksum"
    if isinstance(error, ValueError) and any(words in text for words in _WRONG_LENGTH):
        return "has the wrong length"
    if isinstance(error, _DECOMPRESSION) or (isinstance(error, RuntimeError) and "decompress" in text):
        return "cannot be decompressed"
    return None


def is_missing(array: zarr.Array[Any], values: Array) -> bool:
    """Whether a chunk that was read is not there at all; False for arrays whose fill value means a value."""
    floats = values.dtype.kind == "f"
    if values.dtype.kind not in "if" or not values.size or array.fill_value is None:
        return False
    fill = absent(values.dtype)
    if not np.array_equal(array.fill_value, fill, equal_nan=floats):
        return False
    # the first value nearly always tells; a sample that is NaN is not a lost chunk
    return all(
        bool((np.isnan(part) if floats else part == fill).all()) for part in (values.reshape(-1)[:1], values)
    )
