"""Every error the package raises on purpose: one small hierarchy under `AltMinError`.

Each class also subclasses the built-in exception a caller would expect, so ``except ValueError`` works, and
each carries the exit code with which the command line ends.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from difflib import get_close_matches


class AltMinError(Exception):
    """Base of all errors of this package; its message is one sentence that says what to do."""

    exit_code = 1


class DataError(AltMinError, ValueError):
    """The samples cannot be used: wrong shape, not finite, outside the range of the output."""

    exit_code = 2


class ChunkError(DataError):
    """A chunk of an array was altered or lost since it was written.

    Attributes
    ----------
    location : str
        Path or URL of the array.
    chunk : int
        Number of the chunk along the rows.
    reason : str
        What is wrong with it.
    remedy : str
        What to do.
    """

    def __init__(
        self, location: str, chunk: int, reason: str, remedy: str = "put it back, or `altmin ingest` it again"
    ) -> None:
        super().__init__(location, chunk, reason, remedy)  # so that it can be pickled
        self.location, self.chunk, self.reason, self.remedy = location, chunk, reason, remedy

    def __str__(self) -> str:
        return f"chunk {self.chunk} of {self.location} {self.reason}; {self.remedy}"


class ConfigError(AltMinError, ValueError):
    """A setting is unknown, has a wrong value, or does not fit the data or the run folder."""

    exit_code = 2


class MissingError(AltMinError, FileNotFoundError):
    """A file, folder or array that was named does not exist."""

    exit_code = 2

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ExistsError(AltMinError, FileExistsError):
    """A destination exists already and may not be replaced."""

    exit_code = 2

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SchedulerError(AltMinError, ConnectionError):
    """A Dask scheduler could not be reached."""

    exit_code = 2

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class RunError(AltMinError, RuntimeError):
    """A run that had started could not go on."""


class FaultError(RunError):
    """Something around a run failed, such as the cluster; what was committed is kept and can be gone on with."""


class StorageError(FaultError, OSError):
    """A file could not be written or read: a full disk, a read-only folder, a broken device."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AltMinWarning(UserWarning):
    """Base of all warnings of this package."""


class RepairWarning(AltMinWarning):
    """Pre-activations were lost or altered, and were made anew."""


def warn(message: str, category: type[AltMinWarning] = AltMinWarning) -> None:
    """Warn, at the line of the caller's own code that led here: outside of this package, and of what calls it back.

    Parameters
    ----------
    message : str
        A sentence.
    category : type
        Of the warning.
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THEIRS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)


_NOT_THEIRS = ("altmin_dask", "sklearn", "contextlib", "functools", "joblib")
"""Packages whose lines are not those of a user."""


def did_you_mean(word: object, names: Iterable[str], *, more: str = "") -> str:
    """Name what may have been meant by a word, to put behind a message; nothing where no name is near.

    Parameters
    ----------
    word : object
        What was written; of anything but text nothing is near.
    names : iterable of str
        What is known.
    more : str
        Put in front of the name.
    """
    if not isinstance(word, str):
        return ""
    word = word.casefold()
    folded = {name.casefold(): name for name in names}
    begun = {name[: len(word) + 1]: named for name, named in folded.items()} if len(word) >= _BEGUN else {}
    for known, cutoff in ((folded, 0.6), (begun, 0.8)):
        if close := get_close_matches(word, known, n=1, cutoff=cutoff):
            return f"; did you mean {more}{known[close[0]]}?"
    return ""


_BEGUN = 4
"""Letters that say of which name they are the beginning."""
