"""Writes the report of a run when it has ended."""

from __future__ import annotations

from collections.abc import Callable

from altmin_dask.storage.run import RunFolder
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.context import RunContext


class ReportWriter(Callback):
    """Writes the report unless training ended with an error.

    Parameters
    ----------
    log : callable
        Told where the report is.
    """

    run: RunFolder

    def __init__(self, log: Callable[[str], object]) -> None:
        self.log = log

    def on_start(self, context: RunContext) -> None:
        """Remember the run folder."""
        self.run = context.run

    def on_end(self, outcome: Outcome) -> None:
        """Write it."""
        if outcome.error is not None:
            return
        from altmin_dask.report.page import write_report  # matplotlib takes a while to import

        page = write_report(self.run)
        pictures = ", ".join(sorted(file.name for file in page.parent.glob("*.png")))
        self.log(f"report: {page}  (pictures beside it: {pictures})")
