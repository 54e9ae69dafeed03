"""Kill the process that imports this, once, in the midst of a phase of training.

ALTMIN_KILL="phase:n:flag": at the n-th time the phase is reached the process is sent SIGKILL, unless the flag file is
there already; the flag is made first. A worker takes it by `--preload`, a client by `python killers.py train …`.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

from zarr.storage import _local

from altmin_dask.execution import tasks
from altmin_dask.storage import atomic
from altmin_dask.storage import run as run_module
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.zarr_chunks import RowBlock
from altmin_dask.training.alternating import AlternatingMinimization

PHASES = {
    # phase: (owner, function, whether it has run or is about to)
    "read": (RowBlock, "read", "after"),
    "newton": (tasks, "visit_chunk", "after"),
    "write": (_local, "_put", "half"),
    "written": (RowBlock, "write", "after"),
    "solve": (AlternatingMinimization, "_solve", "before"),
    "commit": (atomic, "write_tensors", "half"),
    "committed": (RunFolder, "commit", "after"),
    "discard": (LatentStore, "discard", "before"),
    "model": (Model, "stage", "after"),
    "record": (RunFolder, "append", "after"),
    "publish": (run_module, "publish", "before"),
}


def arm(phase: str, times: int, flag: Path) -> None:
    owner, name, when = PHASES[phase]
    original = getattr(owner, name)
    calls = count(1)

    def die() -> None:
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        due = next(calls) == times and not flag.exists()
        if due and when == "half":
            (_halfway_put if phase == "write" else _halfway_commit)(*arguments)
        if due and when != "after":
            die()
        result = original(*arguments, **options)
        if due:
            die()
        return result

    setattr(owner, name, wrapped)
    if phase == "commit":  # it was imported by name
        sys.modules["altmin_dask.storage.run"].write_tensors = wrapped  # type: ignore[attr-defined]


def _halfway_put(path: Path, value: Any, *_: Any) -> None:
    """As zarr writes a chunk, up to the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytes(value.as_buffer_like())
    path.with_suffix(".0123.partial").write_bytes(data[: len(data) // 2])


def _halfway_commit(path: Path, *_: Any) -> None:
    (path.parent / f".{path.name}.0123.partial").write_bytes(b"half a state")


if "ALTMIN_KILL" in os.environ:
    armed_phase, armed_times, armed_flag = os.environ["ALTMIN_KILL"].split(":")
    arm(armed_phase, int(armed_times), Path(armed_flag))

if __name__ == "__main__":
    from altmin_dask.cli import main

    main()
