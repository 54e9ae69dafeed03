"""The lock of a run folder: an empty file that the process that trains holds as long as it lives."""

from __future__ import annotations

import fcntl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from altmin_dask.errors import ExistsError
from altmin_dask.storage.writable import making


@dataclass(frozen=True)
class RunLock:
    """A lock file.

    Attributes
    ----------
    file : Path
        Where it is; its folder is there.
    """

    file: Path

    @property
    def usable(self) -> bool:
        """Whether there is no file, or nothing but a lock, which is an empty one: locking empties what is there."""
        try:
            about = self.file.lstat()
        except FileNotFoundError:
            return True
        return stat.S_ISREG(about.st_mode) and about.st_size == 0

    @property
    def is_held(self) -> bool | None:
        """Whether a process that lives holds it; None where the file system does not tell."""
        try:
            file = self.file.open("rb")
        except FileNotFoundError:
            return False
        except OSError:
            return None
        with file:  # which gives back at once what was got
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                return None
        return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training in the folder, for as long as a block lasts.

        Raises
        ------
        ExistsError
            If another process trains in it, or there is something else by the name of the lock.
        """
        if not self.usable:
            raise ExistsError(f"{self.file} is no lock of a run; move it away, or give another --run")
        lock = FileLock(self.file, blocking=False)
        with making(self.file):
            try:
                lock.acquire()
            except Timeout:
                raise ExistsError(
                    f"another process is training in run folder {self.file.parent}; wait for it, or give another "
                    "--run"
                ) from None
        try:
            yield
        finally:
            lock.release()
