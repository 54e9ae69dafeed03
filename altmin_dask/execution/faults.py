"""What fails around a run, in words that say what to do: full disks, dead workers, a lost scheduler."""

from __future__ import annotations

from asyncio import CancelledError as AsyncCancelledError
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

from dask.utils import key_split
from distributed import KilledWorker
from distributed.comm.core import CommClosedError
from distributed.core import RPCClosed

from altmin_dask.errors import AltMinError, FaultError, StorageError
from altmin_dask.storage.writable import ADVICE

LOST = CommClosedError, RPCClosed, CancelledError, AsyncCancelledError, TimeoutError
"""What Dask raises where a scheduler is gone, or has forgotten what it was asked; see `is_lost`."""
BY_RESUME = "go on by --resume"
KEPT = f"what was committed is kept: {BY_RESUME}"
_UNREACHED = "Timed out trying to connect"
"""How what Dask raises begins where nothing answers."""
AGAIN = "then do this again"
"""What to do where nothing is committed that could be gone on with: to prepare, to plan, to evaluate, to predict."""


class LackError(FaultError):
    """What a step needed did not come in time; `explained_losses` says what is kept."""


def is_lost(error: BaseException) -> bool:
    """Whether an error says that a scheduler is gone, or has forgotten what it was asked.

    A file system that does not answer raises TimeoutError, too, with the number of a system's error or of its own kind.
    """
    if isinstance(error, TimeoutError):
        return type(error) is TimeoutError and error.errno is None
    unreached = type(error) is OSError and str(error).startswith(_UNREACHED)
    return unreached or isinstance(error, LOST)


def is_restart(error: BaseException) -> bool:
    """Whether that is because somebody restarted the workers, and not because a connection is gone."""
    return "scheduler-restart" in str(getattr(error, "reason", "")) or "scheduler-restart" in str(error)


@contextmanager
def explained_faults(where: str) -> Iterator[None]:
    """Turn what the system, zarr and Dask raise into a sentence, where training can go on from a commit.

    Parameters
    ----------
    where : str
        Run folder or destination, for errors that do not name a file.

    Raises
    ------
    StorageError
        For a full disk, a read-only folder, a file that vanished, a broken device.
    FaultError
        As of `explained_losses`.
    """
    try:
        with explained_losses(KEPT):
            yield
    except AltMinError:
        raise
    except OSError as error:
        raise StorageError(f"{sentence(error, where)}; {KEPT}") from error


@contextmanager
def explained_losses(then: str = AGAIN) -> Iterator[None]:
    """Turn what Dask raises where a cluster fails into a sentence.

    Parameters
    ----------
    then : str
        What is to be done when the cluster is there again.

    Raises
    ------
    FaultError
        For workers that die or do not come, a scheduler that is gone, memory that does not suffice.
    """
    try:
        yield
    except LackError as error:
        raise FaultError(f"{error}; {then}") from error
    except KilledWorker as error:
        raise FaultError(
            f"workers died over and over while they ran {key_split(error.task)}, most likely out of "
            f"memory: `altmin plan` tells what a task needs; give workers more, or data smaller chunks; {then}"
        ) from error
    except MemoryError as error:
        raise FaultError(
            f"a task ran out of memory: `altmin plan` tells what it needs; make chunks smaller; {then}"
        ) from error
    except (*LOST, OSError) as error:
        if not is_lost(error):
            raise
        what = "the connection to the Dask scheduler is lost; start it and its workers again"
        if is_restart(error):
            what = "somebody restarted the workers of the Dask scheduler, which forgot what it was asked"
        raise FaultError(f"{what}; {then}") from error


def sentence(error: OSError, where: str) -> str:
    """What went wrong with a file, and what to do."""
    advice = ADVICE.get(error.errno or 0)
    return f"{error.filename or where}: {error.strerror or error}{f'; {advice}' if advice else ''}"
