"""A record as a line, and the header over all of them: only columns that have numbers.

Within 80 characters, with the time in front, too, as it is in the log of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from altmin_dask.format import known
from altmin_dask.training.context import RunContext
from altmin_dask.training.record import Record


@dataclass(frozen=True)
class Column:
    """A number of every record.

    Attributes
    ----------
    name : str
        What stands over it.
    width : int
        Characters.
    get : callable
        The number of a record, as it is written.
    """

    name: str
    width: int
    get: Callable[[Record], str]


def sweeps(value: float) -> str:
    """Write how many sweeps there have been, as finely as six characters allow."""
    places = 3 if value < 99.9995 else 2 if value < 999.995 else 1
    return f"{value:.{places}f}"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"


def columns_of(context: RunContext) -> list[Column]:
    """What the records of a run have numbers for."""
    problem = context.problem
    judged, labels = problem.validation is not None, problem.train.target == "labels"
    found = [
        Column("sweep", 6, lambda record: sweeps(record.sweep)),
        Column("CPU s", 7, lambda record: known(record.cpu_seconds, _seconds)),
    ]
    if not context.pipeline.uses_kfac:  # which keeps no z that an objective of all samples could be made of
        found.append(Column("relaxed", 9, lambda record: known(record.relaxed_objective)))
    found.append(Column("nested", 9, lambda record: known(record.nested_loss)))
    if judged:
        found.append(Column("validation", 10, lambda record: known(record.validation_loss)))
    if labels:  # of what the model is chosen by
        found.append(
            Column(
                "accuracy",
                8,
                lambda record: known(
                    record.validation_accuracy if judged else record.nested_accuracy, "{:.2%}".format
                ),
            )
        )
    return found


def header_of(columns: Sequence[Column]) -> str:
    """The names of all columns."""
    return "  ".join(f"{column.name:>{column.width}}" for column in columns)


def line_of(columns: Sequence[Column], record: Record) -> str:
    """The numbers of a record."""
    return "  ".join(f"{column.get(record):>{column.width}}" for column in columns)


def ends_early(context: RunContext) -> bool:
    """Whether training may end before its last sweep, when nobody can know beforehand."""
    solver = context.pipeline.solver
    converges = context.settings.rho is not None and solver.residual_tol > 0
    return context.pipeline.training.n_iter_no_change is not None or converges
