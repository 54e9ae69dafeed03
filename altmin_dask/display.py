"""What a run shows while it goes on: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dask.utils import format_bytes
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from altmin_dask.report.figures import number
from altmin_dask.training.progress import Observer
from altmin_dask.training.progress import Progress as RunProgress

MOST_LAYERS = 8
"""Layers whose figures are shown one by one."""


def duration(seconds: float) -> str:
    """Write seconds as 4 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shares(seconds: Mapping[str, float]) -> list[str]:
    """What took a hundredth of the time or more, most of it first; time adds up over all processes."""
    total = sum(seconds.values())
    first = sorted(seconds, key=lambda name: -seconds[name])
    return [f"{name} {seconds[name] / total:.0%}" for name in first if seconds[name] > 0.01 * total]


class Lines:
    """A plain line per record."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def progressed(self, progress: RunProgress) -> None:
        """Nothing: a log is not filled group by group."""

    def recorded(self, record: dict[str, Any]) -> None:
        """Print the record."""
        parts = [
            f"sweep {record['sweep']:7.3f}",
            f"CPU {record['cpu_seconds']:8.2f} s",
            f"relaxed {_shown(record['relaxed_objective']):>9}",
            f"nested {_shown(record['nested_loss']):>9}",
            f"validation {_shown(record['validation_loss']):>9}",
        ]
        if record["validation_accuracy"] is not None:
            parts.append(f"accuracy {record['validation_accuracy']:.2%}")
        self.console.print("  ".join(parts), highlight=False, soft_wrap=True)


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

    def __init__(self, console: Console, bar: Bar) -> None:
        super().__init__(console)
        self.bar = bar
        self.task = bar.add_task("", total=None, detail="")
        self.record: dict[str, Any] = {}

    def recorded(self, record: dict[str, Any]) -> None:
        """Print the record."""
        self.record = record
        super().recorded(record)

    def progressed(self, progress: RunProgress) -> None:
        """Redraw what is live."""
        parts = [
            f"sweep {progress.sweep:.2f} of {progress.max_sweeps:g}",
            f"group {progress.group}/{progress.groups}",
            f"relaxed {_shown(progress.relaxed_objective)}",
            f"nested {_shown(progress.nested_loss)}",
            f"{duration(progress.seconds_left)} left",
        ]
        self.bar.lines = figures_of(progress, self.record)
        self.bar.update(
            self.task, completed=progress.sweep, total=progress.max_sweeps, detail="  ".join(parts)
        )


def figures_of(progress: RunProgress, record: Mapping[str, Any]) -> list[str]:
    """Two lines of what there is to know besides where the run is; what is not known is left out."""
    how = [f"validation {_shown(progress.validation_loss)}", f"{_shown(progress.rows_per_second)} rows/s"]
    for label, key in (("residual", "relative_residuals"), ("μ", "mu")):
        if values := record.get(key):
            shown = [number(value) for value in values[:MOST_LAYERS]] + ["…"] * (len(values) > MOST_LAYERS)
            how.append(f"{label} {', '.join(shown)}")
    where = []
    if progress.memory:
        used = format_bytes(int(max(used for _, used, _ in progress.memory)))
        planned = progress.planned_memory
        where.append(
            f"memory {used}" + ("" if planned is None else f" of {format_bytes(int(planned))} planned")
        )
    return ["  ".join(how), "  ".join([*where, *shares(progress.seconds)])]


@contextmanager
def observe(console: Console) -> Iterator[Observer]:
    """Choose an observer that fits where the output goes."""
    if not console.is_terminal:
        yield Lines(console)
        return
    with Bar(
        BarColumn(20),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
        transient=True,
    ) as bar:
        yield Live(console, bar)


def _shown(value: float | None) -> str:
    return "–" if value is None else number(value)


def table(title: str, rows: list[tuple[str, str]]) -> Table:
    """Make a two-column table for the terminal."""
    made = Table(title=title, show_header=False, title_justify="left")
    made.add_column(style="dim")
    made.add_column(justify="right")
    for label, value in rows:
        made.add_row(label, value)
    return made
