"""The same samples in files of several kinds, and what is read of them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import zarr

from altmin_dask.data.source import Source

X = np.random.default_rng(0).normal(size=(23, 4, 3)).astype(np.float32)
Y = np.arange(23) % 5
IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def write_idx(path: Path, values: np.ndarray) -> Path:
    header = struct.pack(">HBB", 0, IDX_CODES[values.dtype.str[1:]], values.ndim)
    content = (
        header
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(values.dtype.newbyteorder(">")).tobytes()
    )
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(content)
    return path


def write_zarr(path: Path, zarr_format: int = 3, **arrays: np.ndarray) -> Path:
    group = zarr.create_group(path, zarr_format=zarr_format)
    for name, values in arrays.items():
        group.create_array(name, data=values, chunks=(min(5, len(values)), *values.shape[1:]))
    return path


def whole(source: Source, rows: int = 7) -> tuple[np.ndarray, np.ndarray | None]:
    blocks = list(source.blocks(rows))
    x = np.concatenate([x for x, _ in blocks])
    return x, None if source.y is None else np.concatenate([y for _, y in blocks])
