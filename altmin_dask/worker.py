"""What a worker may load before it begins: `dask worker ADDRESS --preload altmin_dask.worker`.

Workers of `cluster.kind = "local"` have it already. Without it all that is computed is the same, and takes longer.
"""

from __future__ import annotations

from typing import Any

from altmin_dask.execution.allocator import own_process


def dask_setup(worker: Any) -> None:
    """Keep memory as a process that trains does: what is freed stays for the next chunk, and no heap for idle readers.

    Dask has glibc return every array as soon as it is freed, and each page that comes back is a fault (row 92 of
    benchmarks/LOG.md).
    """
    own_process(worker.state.nthreads)
