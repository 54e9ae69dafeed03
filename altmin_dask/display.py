"""What a run shows while it goes on: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Self

from dask.utils import format_bytes
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from altmin_dask.format import duration, known, number
from altmin_dask.report.result_table import result_table, training_rows
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.context import RunContext
from altmin_dask.training.progress import Progress as RunProgress
from altmin_dask.training.record import Record

MOST_LAYERS = 8
"""Layers whose figures are shown one by one."""
SILENT_SECONDS = 30.0
"""There is a line at least so often where the output is no terminal."""


def shares(seconds: Mapping[str, float]) -> list[str]:
    """What took a hundredth of the time or more, most of it first; time adds up over all processes."""
    total = sum(seconds.values())
    first = sorted(seconds, key=lambda name: -seconds[name])
    return [f"{name} {seconds[name] / total:.0%}" for name in first if seconds[name] > 0.01 * total]


def say(console: Console, line: str) -> None:
    """Print a line as it is, however long; with the time in front where it is read later, as in the log of a job."""
    stamp = "" if console.is_terminal else f"{datetime.now():%Y-%m-%d %H:%M:%S}  "
    console.print(stamp + line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def logged(log: Callable[[str], object]) -> Iterator[None]:
    """Show what the package logs as a warning among the other lines of a run."""
    logger, handler = logging.getLogger("altmin_dask"), _Shown(log)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Shown(logging.Handler):
    def __init__(self, log: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log(record.getMessage())


class Heartbeat:
    """Says every half minute, where the output is no terminal, how far it is: silence could be a hang.

    Parameters
    ----------
    console : Console
        Where.
    text : str
        What goes on; may be set anew at any time.
    """

    def __init__(self, console: Console, text: str) -> None:
        self.console, self.text = console, text
        self.begun = self.last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="altmin-heartbeat")

    def said(self) -> None:
        """There was a line just now."""
        self.last = time.monotonic()

    def __enter__(self) -> Self:
        if not self.console.is_terminal:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(min(1.0, SILENT_SECONDS / 10)):
            now = time.monotonic()
            if now - self.last >= SILENT_SECONDS:
                self.last = now
                say(self.console, f"{self.text}, {duration(now - self.begun)} so far")


@contextmanager
def counted(console: Console, what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar of how many samples of `total` are done, or lines of it; gives a function that is told."""
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        Heartbeat(console, what) as heartbeat,
    ):
        task = bar.add_task(what, total=total)

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            heartbeat.text = f"{what}: {done:,} of {total:,} samples"

        yield told


class Lines(Callback):
    """A plain line per record and every half minute, and a table at the end.

    The lines of the half minute come while it is used in a `with` block, which may begin before the data are there.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.heartbeat = Heartbeat(console, "the data are made ready")

    def __enter__(self) -> Self:
        self.heartbeat.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.heartbeat.__exit__(*error)

    def on_start(self, context: RunContext) -> None:
        """Say from now on that it trains."""
        self.heartbeat.text = "training begins"

    def on_progress(self, progress: RunProgress) -> None:
        """Keep what the next line of the half minute says."""
        self.heartbeat.text = "  ".join(
            [
                f"sweep {progress.sweep:7.3f} of {progress.max_sweeps:g}",
                progress.waiting or f"{known(progress.rows_per_second)} rows/s",
                f"{known(progress.seconds_left, duration)} left",
            ]
        )

    def on_record(self, record: Record) -> None:
        """Print the record."""
        parts = [
            f"sweep {record.sweep:7.3f}",
            f"CPU {record.cpu_seconds:8.2f} s",
            f"relaxed {known(record.relaxed_objective):>9}",
            f"nested {known(record.nested_loss):>9}",
            f"validation {known(record.validation_loss):>9}",
        ]
        if record.validation_accuracy is not None:
            parts.append(f"accuracy {record.validation_accuracy:.2%}")
        say(self.console, "  ".join(parts))
        self.heartbeat.said()

    def on_end(self, outcome: Outcome) -> None:
        """Print what came of it: the model that is kept, and then how training went."""
        if outcome.result is not None:
            self.console.print(result_table(outcome.result))
        if outcome.error is None:
            self.console.print(table("Training", training_rows(outcome.records)))


class Bar(Progress):
    """A bar with lines below it, cut where the terminal ends."""

    lines: Sequence[str] = ()

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar, then the lines."""
        yield from super().get_renderables()
        for line in self.lines:
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")


class Live(Lines):
    """A live bar below the lines of the records, with the figures that the page of the dashboard shows, too."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bar = Bar(
            BarColumn(20),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, detail="")
        self.record: Record | None = None

    def on_start(self, context: RunContext) -> None:
        """Show the bar."""
        self.bar.start()

    def on_record(self, record: Record) -> None:
        """Print the record."""
        self.record = record
        super().on_record(record)

    def on_progress(self, progress: RunProgress) -> None:
        """Redraw what is live."""
        parts = [
            f"sweep {progress.sweep:.2f} of {progress.max_sweeps:g}",
            f"group {progress.group}/{progress.groups}",
            f"relaxed {known(progress.relaxed_objective)}",
            f"nested {known(progress.nested_loss)}",
            progress.waiting or f"{known(progress.seconds_left, duration)} left",
        ]
        self.bar.lines = figures_of(progress, self.record)
        self.bar.update(
            self.task, completed=progress.sweep, total=progress.max_sweeps, detail="  ".join(parts)
        )

    def on_end(self, outcome: Outcome) -> None:
        """Remove the bar, then print what came of it."""
        self.bar.stop()
        super().on_end(outcome)


def figures_of(progress: RunProgress, record: Record | None) -> list[str]:
    """Two lines of what there is to know besides where the run is; what is not known is left out."""
    how = [f"validation {known(progress.validation_loss)}", f"{known(progress.rows_per_second)} rows/s"]
    layers = () if record is None else (("residual", record.relative_residuals), ("μ", record.mu))
    for label, values in layers:
        if values:
            shown = [number(value) for value in values[:MOST_LAYERS]] + ["…"] * (len(values) > MOST_LAYERS)
            how.append(f"{label} {', '.join(shown)}")
    where, usage = [], progress.usage
    if usage.memory:
        used, planned = format_bytes(int(max(used for _, used, _ in usage.memory))), usage.planned_memory
        where.append(
            f"memory {used}" + ("" if planned is None else f" of {format_bytes(int(planned))} planned")
        )
    return ["  ".join(how), "  ".join([*where, *shares(usage.seconds)])]


def display(console: Console) -> Lines:
    """What fits where the output goes: a live bar on a terminal, plain lines anywhere else."""
    return Live(console) if console.is_terminal else Lines(console)


def table(title: str, rows: list[tuple[str, str]]) -> Table:
    """Make a two-column table for the terminal."""
    made = Table(title=title, show_header=False, title_justify="left")
    made.add_column(style="dim")
    made.add_column(justify="right")
    for label, value in rows:
        made.add_row(label, value)
    return made
