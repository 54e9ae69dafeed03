"""Whether the workers see the folders that this process sees."""

from __future__ import annotations

import os
import socket

from altmin_dask.errors import MissingError
from altmin_dask.execution.executor import Executor
from altmin_dask.storage.locations import is_url


def check_seen(executor: Executor, path: str | os.PathLike[str], advice: str) -> None:
    """Refuse workers that do not see a local path, before they would do so one by one.

    Parameters
    ----------
    executor : Executor
        Whose workers.
    path : path
        A file or folder that is there; everybody sees what is at a URL.
    advice : str
        What to do, as "give a …".

    Raises
    ------
    MissingError
        If there are some.
    """
    name = os.fspath(path)
    if is_url(name):
        return
    seen = executor.run(_seen, os.path.abspath(name))
    blind = sorted({host for host, there in seen if not there})
    if blind:
        workers = sum(not there for _, there in seen)
        raise MissingError(
            f"{workers} of {len(seen)} workers, at {', '.join(blind)}, do not see {name}; {advice}"
        )


def _seen(path: str) -> tuple[str, bool]:
    """In a worker: its machine, and whether there is such a path."""
    return socket.gethostname(), os.path.exists(path)
