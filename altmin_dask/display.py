"""What a run shows while it goes on: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dask.utils import format_bytes
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from altmin_dask.format import duration, known, number
from altmin_dask.report.summary import summary_table
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.context import RunContext
from altmin_dask.training.progress import Progress as RunProgress
from altmin_dask.training.record import Record

MOST_LAYERS = 8
"""Layers whose figures are shown one by one."""


def shares(seconds: Mapping[str, float]) -> list[str]:
    """What took a hundredth of the time or more, most of it first; time adds up over all processes."""
    total = sum(seconds.values())
    first = sorted(seconds, key=lambda name: -seconds[name])
    return [f"{name} {seconds[name] / total:.0%}" for name in first if seconds[name] > 0.01 * total]


class Lines(Callback):
    """A plain line per record, and a table at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console

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
        self.console.print("  ".join(parts), highlight=False, soft_wrap=True)

    def on_end(self, outcome: Outcome) -> None:
        """Print what came of it."""
        if outcome.error is None:
            self.console.print(table("Result", summary_table(outcome.records)))


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
            f"{duration(progress.seconds_left)} left",
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


def display(console: Console) -> Callback:
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
