"""What tells the values of an array from others of the same shape, without reading all of them.

Of an array whose chunks end in a checksum those are compared, of as many chunks as `MOST`, evenly over the array; of
others a few chunks are read.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from itertools import product
from math import ceil
from typing import Any

import zarr
from zarr.abc.store import SuffixByteRequest
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

MOST, MOST_READ = 256, 4
"""Chunks whose checksums are read, and chunks that are read whole where there are none: evenly over the rows."""
_SIZE, _ABSENT = 8, "-" * 8


def fingerprint(arrays: Mapping[str, zarr.Array[Any]]) -> dict[str, str]:
    """Of each array, by its name: eight digits a chunk, or dashes for one that is missing."""
    return {name: "".join(sync(_of_array(array))) for name, array in arrays.items()}


def replaced(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Arrays whose values are others.

    A chunk that is missing, now or then, is none of that: whoever reads it says so, and it can be put back.
    """
    return [
        name
        for name, digits in before.items()
        if name in now
        and any(
            was != is_now and _ABSENT not in (was, is_now)
            for was, is_now in zip(_parts(digits), _parts(now[name]), strict=False)
        )
    ]


def _parts(digits: str) -> list[str]:
    return [digits[i : i + _SIZE] for i in range(0, len(digits), _SIZE)]


async def _of_array(array: zarr.Array[Any]) -> list[str]:
    checked = isinstance(_last_codec(array), Crc32cCodec)
    counts = [ceil(size / chunk) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    most = min(counts[0], MOST if checked else MOST_READ)
    rows = sorted({round(i * (counts[0] - 1) / max(most - 1, 1)) for i in range(most)})
    wanted = SuffixByteRequest(4) if checked else None
    found = []
    for chunk in (next(product([row], *map(range, counts[1:]))) for row in rows):
        place = array.store_path / array.metadata.encode_chunk_key(chunk)
        content = await place.get(default_buffer_prototype(), byte_range=wanted)
        if content is None:
            found.append(_ABSENT)
        else:
            found.append(content.to_bytes().hex() if checked else f"{zlib.crc32(content.to_bytes()):08x}")
    return found


def _last_codec(array: zarr.Array[Any]) -> Any:
    compressors = getattr(array, "compressors", ())
    return compressors[-1] if compressors else None
