"""What a run shows while it goes on: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from dask.utils import format_bytes
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from altmin_dask.folding import folded, folded_command, line_width
from altmin_dask.format import counted_as, duration, known, number
from altmin_dask.record_lines import Column, columns_of, ends_early, header_of, line_of, sweeps
from altmin_dask.report.result_table import result_table, training_rows
from altmin_dask.storage.run_log import RunLog
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.context import RunContext
from altmin_dask.training.progress import Progress as RunProgress
from altmin_dask.training.record import Layers, Record

MOST_LAYERS = 8
"""Layers whose figures are shown one by one."""
WAIT = "wait"
"""What the process that trains does while others work."""
SILENT_SECONDS = 30.0
"""There is a line at least so often where the output is no terminal."""
FURTHER, SOON_SECONDS = 1.05, 5.0
"""A record has a line if it is further than the last one with a line by this factor, or later by so many seconds: of
many short sweeps nobody reads all."""


def shares(seconds: Mapping[str, float]) -> list[str]:
    """What took a hundredth of the work or more, most of it first; it adds up over all processes, waiting left out."""
    worked = {name: spent for name, spent in seconds.items() if name != WAIT}
    total = sum(worked.values())
    first = sorted(worked, key=lambda name: -worked[name])
    return [f"{name} {worked[name] / total:.0%}" for name in first if worked[name] > 0.01 * total]


def is_live(console: Console) -> bool:
    """Whether lines can be drawn anew there, as they cannot in a file, a pipe or a terminal that is called dumb."""
    return console.is_terminal and not console.is_dumb_terminal


def say(console: Console, text: str) -> None:
    """Print a sentence, on as many lines as it takes."""
    for line in folded(text, line_width(console)):
        _put(console, line)


def tell_commands(console: Console, commands: Sequence[str]) -> None:
    """Print commands that one may type next: as a shell takes them, on however many lines."""
    for title, command in zip(["next:", *[""] * len(commands)], commands, strict=False):
        for line in folded_command(f"{title:6}", command, line_width(console)):
            _put(console, line)


def _put(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


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
    log : callable, optional
        Told the same.
    """

    def __init__(self, console: Console, text: str, log: Callable[[str], object] | None = None) -> None:
        self.console, self.text, self.log = console, text, log
        self.begun = self.last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="altmin-heartbeat")

    def said(self) -> None:
        """There was a line just now."""
        self.last = time.monotonic()

    def __enter__(self) -> Self:
        if not is_live(self.console):
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
                line = f"{self.text}, {duration(now - self.begun)} so far"
                if self.log is not None:
                    self.log(line)
                say(self.console, line)


@contextmanager
def counted(console: Console, what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar of how many samples of `total` are done, or lines of it; gives a function that is told."""
    with (
        Progress(console=console, transient=True, disable=not is_live(console)) as bar,
        Heartbeat(console, what) as heartbeat,
    ):
        task = bar.add_task(escape(what), total=total)

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            heartbeat.text = f"{what}: {done:,} of {total:,} samples"

        yield told


class Lines(Callback):
    """A plain line per record (of short sweeps fewer and fewer) and every half minute, and a table at the end.

    The lines of the half minute come while it is used in a `with` block, which may begin before the data are there.
    All of them but the tables are in the log of the run, too.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.context: RunContext | None = None
        self.columns: Sequence[Column] = ()
        self.printed: tuple[float, float] | None = None
        """Sweep of the last record that had a line, and the moment."""
        self.left_out: Record | None = None
        """The record since then that had none."""
        self.log = RunLog()
        self.heartbeat = Heartbeat(console, "the data are made ready", self.log.add)

    def __enter__(self) -> Self:
        self.heartbeat.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.heartbeat.__exit__(*error)

    def on_start(self, context: RunContext) -> None:
        """Say from now on that it trains, and know what there will be to say."""
        self.context, self.columns = context, columns_of(context)
        self.log.open(context.run.log)
        self.heartbeat.text = "training begins"

    def on_progress(self, progress: RunProgress) -> None:
        """Keep what the next line of the half minute says."""
        parts = [self.where(progress), progress.waiting or f"{known(progress.rows_per_second)} rows/s"]
        self.heartbeat.text = ", ".join([*parts, *self.stale()])

    def where(self, progress: RunProgress) -> str:
        """Where the run is, and how long it takes from here: at most, where no more than its end is known."""
        limit, left = number(progress.max_sweeps), known(progress.seconds_left, duration)
        most = "at most " if self.context is not None and ends_early(self.context) else ""
        where = f"sweep {sweeps(progress.sweep)} of {most}{limit}"
        return where if progress.waiting else f"{where}, {most}{left} left"

    def stale(self) -> list[str]:
        """For how long the loss has not improved, and after how long that ends the run."""
        if self.context is None:
            return []
        limit, checkpoint = self.context.pipeline.training.n_iter_no_change, self.context.checkpoint
        records = max(checkpoint.records - 1 - checkpoint.best_record, 0)
        if limit is None or not records:
            return []
        return [f"no better for {min(records, limit)} of {counted_as(limit, 'record')}"]

    def on_record(self, record: Record) -> None:
        """Print the record, under a header where it is the first, unless it is hardly further than the last one."""
        now = time.monotonic()
        if self.printed is None:
            self._put(header_of(self.columns))
        elif record.sweep < FURTHER * self.printed[0] and now < self.printed[1] + SOON_SECONDS:
            self.left_out = record
            return
        self._print(record, now)

    def tell(self, line: str) -> None:
        """Print something else, below the last record."""
        self._catch_up()
        self.log.add(line)
        say(self.console, line)

    def _catch_up(self) -> None:
        """Print the last record, if it had no line."""
        if self.left_out is not None:
            self._print(self.left_out, time.monotonic())

    def _print(self, record: Record, now: float) -> None:
        self._put(line_of(self.columns, record))
        self.printed, self.left_out = (record.sweep, now), None
        self.heartbeat.said()

    def _put(self, line: str) -> None:
        """Print a line as it is: what stands below each other is never broken."""
        self.log.add(line)
        _put(self.console, line)

    def on_end(self, outcome: Outcome) -> None:
        """Print the last record, and what came of it: the model that is kept, and then how training went."""
        self._catch_up()
        if outcome.error is not None:
            self.log.add(outcome.reason)
        if outcome.result is not None:
            self.console.print(result_table(outcome.result))
        if outcome.error is None:
            sweep = None if outcome.result is None else outcome.result.kept.sweep
            self.console.print(table("Training", training_rows(outcome.records, sweep)))


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
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, detail="")
        self.progress: RunProgress | None = None
        self.record: Record | None = None

    def on_start(self, context: RunContext) -> None:
        """Show the bar."""
        super().on_start(context)
        self.bar.start()

    def on_record(self, record: Record) -> None:
        """Print the record, with nothing below it that is older."""
        self.record = record
        if self.progress is not None:
            self.on_progress(replace(self.progress, sweep=record.sweep))
        super().on_record(record)

    def tell(self, line: str) -> None:
        """Print something else, with nothing below it that is older."""
        self.bar.refresh()
        super().tell(line)

    def _print(self, record: Record, now: float) -> None:
        # what is printed has below it what was drawn last, which a thread draws anew ten times a second
        self.bar.refresh()
        super()._print(record, now)

    def on_progress(self, progress: RunProgress) -> None:
        """Redraw what is live."""
        self.progress = progress
        self.bar.lines = figures_of(progress, self.record, self.stale(), self.console.width)
        self.bar.update(
            self.task,
            completed=progress.sweep,
            total=progress.max_sweeps,
            detail=self.where(progress),
        )

    def on_end(self, outcome: Outcome) -> None:
        """Remove the bar, then print what came of it."""
        self.bar.stop()
        super().on_end(outcome)


def figures_of(
    progress: RunProgress, record: Record | None, more: Sequence[str] = (), width: int = 80
) -> list[str]:
    """Lines of what there is to know besides where the run is and what the last record says.

    What is not known is left out, and what is less important where a line would be wider than the terminal.
    """
    how = [progress.waiting or f"{known(progress.rows_per_second)} rows/s"]
    if progress.groups > 1:
        relaxed = record is not None and record.relaxed_objective is not None
        of_it = f", relaxed {known(progress.relaxed_objective)}" if relaxed else ""
        how.append(f"group {progress.group} of {progress.groups}{of_it}")
    how += more
    layers: Sequence[tuple[str, Layers | None, Callable[[float], str]]] = ()
    if record is not None:
        layers = ("residual", record.relative_residuals, "{:.2g}".format), ("μ", record.mu, number)
    for label, values, show in layers:
        if values:
            shown = [show(value) for value in values[:MOST_LAYERS]] + ["…"] * (len(values) > MOST_LAYERS)
            how.append(f"{label} {', '.join(shown)}")
    where, usage = [], progress.usage
    if usage.memory:
        used, planned = format_bytes(int(max(used for _, used, _ in usage.memory))), usage.planned_memory
        where.append(
            f"memory {used}" + ("" if planned is None else f" of {format_bytes(int(planned))} planned")
        )
    return [_fitting(how, width), _fitting([*where, *shares(usage.seconds)], width)]


def _fitting(parts: Sequence[str], width: int) -> str:
    """As many of the first parts as a line has room for: half a number would be a wrong one."""
    line = ""
    for place, part in enumerate(parts):
        longer = f"{line}  {part}" if place else part
        if place and len(longer) > width:
            break
        line = longer
    return line


def display(console: Console) -> Lines:
    """What fits where the output goes: a live bar on a terminal, plain lines anywhere else."""
    return Live(console) if is_live(console) else Lines(console)


def table(title: str, rows: list[tuple[str, str]]) -> Table:
    """Make a two-column table for the terminal."""
    made = Table(title=escape(title), show_header=False, title_justify="default")
    made.add_column(style="dim")
    made.add_column(justify="right")
    for label, value in rows:
        made.add_row(escape(label), escape(value))
    return made
