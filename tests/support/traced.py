"""What ingest allocates at most, in a process of its own: others have threads that allocate, too."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

from in_order import ingest

from altmin_dask.data.formats import csv
from altmin_dask.data.open import open_source


def peak_of_ingest(
    source: Path, store: Path, chunk_rows: int, dtype: str = "float32", block_bytes: int = csv.BLOCK_BYTES
) -> int:
    """Bytes, when the libraries have made their caches; of a csv file so many bytes are read at once."""
    words = [source, store, chunk_rows, dtype, block_bytes]
    ran = subprocess.run(
        [sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(ran.stdout)


def _main(source: str, store: str, chunk_rows: str, dtype: str, block_bytes: str) -> None:
    csv.BLOCK_BYTES = int(block_bytes)
    for place in (f"{store}-first", store):
        tracemalloc.start()
        ingest(open_source(source), place, chunk_rows=int(chunk_rows), dtype=dtype)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    print(peak)


if __name__ == "__main__":
    _main(*sys.argv[1:])
