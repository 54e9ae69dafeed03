"""What was said of a run and when, in its folder: the terminal, and what is piped from it, have no times."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

_log = logging.getLogger("altmin_dask")


class RunLog:
    """A file of lines with the time in front, to which a run that is resumed adds.

    What is said before the folder is the run's waits until it is.
    """

    def __init__(self) -> None:
        self.file: Path | None = None
        self.waiting: list[str] = []

    def open(self, file: Path) -> None:
        """Write what has been said so far, and from now on at once."""
        self.file = file
        self._write(self.waiting)
        self.waiting = []

    def add(self, text: str) -> None:
        """Say a line."""
        lines = [f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}\n" for line in text.splitlines()]
        if self.file is None:
            self.waiting += lines
        else:
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        """Add lines; a disk that is full is for what is trained to tell, and this none of its matter."""
        assert self.file is not None
        try:
            with self.file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(lines)
        except OSError:
            _log.debug("no more lines in %s", self.file, exc_info=True)
