"""What Dask has each worker of a cluster of ours load before it begins (`--preload`)."""

from __future__ import annotations

import signal
from typing import Any

from altmin_dask.execution.allocator import own_process


def dask_setup(worker: Any) -> None:
    """Keep memory as a process that trains does, and leave signals to that one.

    Ctrl-C, and what else ends all processes of a terminal or a service, goes to every process of the group. A worker
    that ended by it could not finish the step in flight, and its nanny starts no other. It ends when the process that
    started it does.
    """
    own_process(worker.state.nthreads)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
