"""What fails around a run, in words that say what to do: full disks, dead workers, a lost scheduler."""

from __future__ import annotations

from asyncio import CancelledError as AsyncCancelledError
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

from dask.utils import key_split
from distributed import KilledWorker
from distributed.comm.core import CommClosedError

from altmin_dask.errors import AltMinError, FaultError, StorageError
from altmin_dask.storage.writable import ADVICE

LOST = CommClosedError, CancelledError, AsyncCancelledError, TimeoutError
"""What Dask raises where a scheduler is gone, or has forgotten what it was asked."""
BY_RESUME = "go on by --resume"
KEPT = f"what was committed is kept: {BY_RESUME}"


@contextmanager
def explained_faults(where: str) -> Iterator[None]:
    """Turn what the system, zarr and Dask raise into a sentence.

    Parameters
    ----------
    where : str
        Run folder or destination, for errors that do not name a file.

    Raises
    ------
    StorageError
        For a full disk, a read-only folder, a file that vanished, a broken device.
    FaultError
        For workers that die, a scheduler that is gone, memory that does not suffice.
    """
    try:
        yield
    except AltMinError:
        raise
    except KilledWorker as error:
        raise FaultError(
            f"workers died over and over while they ran {key_split(error.task)}, most likely out of "
            f"memory: `altmin plan` tells what a task needs; give workers more, or data smaller chunks; {KEPT}"
        ) from error
    except LOST as error:
        raise FaultError(
            f"the connection to the Dask scheduler is lost; start it and its workers again; {KEPT}"
        ) from error
    except MemoryError as error:
        raise FaultError(
            f"a task ran out of memory: `altmin plan` tells what it needs; make chunks smaller; {KEPT}"
        ) from error
    except OSError as error:
        raise StorageError(f"{sentence(error, where)}; {KEPT}") from error


def sentence(error: OSError, where: str) -> str:
    """What went wrong with a file, and what to do."""
    advice = ADVICE.get(error.errno or 0)
    return f"{error.filename or where}: {error.strerror or error}{f'; {advice}' if advice else ''}"
