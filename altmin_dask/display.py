"""What a run shows while it goes on: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from altmin_dask.engine.progress import Observer
from altmin_dask.engine.progress import Progress as RunProgress
from altmin_dask.figures import number


def duration(seconds: float) -> str:
    """Write seconds as 4 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shares(seconds: dict[str, float], most: int = 3) -> list[str]:
    """The activities that took most of the time, as shares of all but waiting."""
    busy = {name: value for name, value in seconds.items() if name != "wait"}
    total = sum(busy.values())
    if total <= 0:
        return []
    first = sorted(busy, key=lambda name: -busy[name])[:most]
    return [f"{name} {busy[name] / total:.0%}" for name in first]


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


class Live(Lines):
    """A live line below the lines of the records."""

    def __init__(self, console: Console, bar: Progress) -> None:
        super().__init__(console)
        self.bar = bar
        self.task = bar.add_task("", total=None, detail="")

    def progressed(self, progress: RunProgress) -> None:
        """Redraw the live line."""
        parts = [
            f"sweep {progress.sweep:.2f} of {progress.max_sweeps:g}",
            f"group {progress.group}/{progress.groups}",
            f"relaxed {_shown(progress.relaxed_objective)}",
            f"nested {_shown(progress.nested_loss)}",
            f"{duration(progress.seconds_left)} left",
            # where the terminal is wide enough
            f"validation {_shown(progress.validation_loss)}",
            f"{_shown(progress.rows_per_second)} rows/s",
            *shares(progress.seconds),
        ]
        self.bar.update(
            self.task, completed=progress.sweep, total=progress.max_sweeps, detail="  ".join(parts)
        )


@contextmanager
def observe(console: Console) -> Iterator[Observer]:
    """Choose an observer that fits where the output goes."""
    if not console.is_terminal:
        yield Lines(console)
        return
    with Progress(
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
