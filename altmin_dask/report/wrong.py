"""Tables of what a classifier gets wrong: samples, or of sequences with a label at every step their steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from altmin_dask.config import KINDS
from altmin_dask.data.labels import NONE
from altmin_dask.format import number
from altmin_dask.report.page_table import PageTable
from altmin_dask.report.sampling import Shown
from altmin_dask.storage.model import Model
from altmin_dask.types import Array

MOST_LISTED = 10
"""Samples, or steps, that are classified wrongly of which a table tells."""
MOST_INPUTS = 4
"""Their inputs that it shows."""
MOST_STEPS = 6
"""Steps that it names of a sequence."""


def wrong_tables(shown: Shown, model: Model, names: Sequence[str]) -> Iterator[PageTable]:
    """What is classified wrongly with the greatest confidence, and then sequences by how much of them is.

    Parameters
    ----------
    shown : Shown
        Samples and what comes out.
    model : Model
        By which.
    names : sequence of str
        Of the classes.
    """
    if shown.chances is None or shown.numbers is None:
        return
    wrong = (shown.outputs != shown.targets) & (shown.targets != NONE)
    if not wrong.any():
        return
    yield _surest(shown, shown.numbers, shown.chances, np.argwhere(wrong), model, names)
    if wrong.ndim > 1:
        yield _worst_sequences(shown, shown.numbers, wrong, names)


def _surest(
    shown: Shown, numbers: Array, chances: Array, wrong: Array, model: Model, names: Sequence[str]
) -> PageTable:
    """The wrong samples, or steps, whose predicted class has the greatest probability; `wrong` are their places."""
    order = np.argsort(-chances[tuple(wrong.T)], kind="stable")[:MOST_LISTED]
    columns, inputs = _first_inputs(shown, model)
    rows = [
        [
            f"{numbers[place[0]]:,}",
            *(f"{step + 1:,}" for step in place[1:]),
            names[shown.targets[place]],
            names[shown.outputs[place]],
            f"{chances[place]:.1%}",
            *map(number, inputs[place[0]].tolist()),
        ]
        for place in map(tuple, wrong[order].tolist())
    ]
    steps = wrong.shape[1] > 1
    which = "all" if len(rows) == len(wrong) else f"the {len(rows)} surest"
    if len(wrong) > 1:
        what = f"{which} of the {len(wrong):,} {'steps ' * steps}that are"
    else:
        what = f"the one {'step ' * steps}that is"
    head = [f"{shown.role} sample", *["step, from 1"] * steps, "true class", "predicted", "its probability"]
    return PageTable(f"{shown.source}: {what} classified wrongly", [*head, *columns], rows, shown=True)


def _worst_sequences(shown: Shown, numbers: Array, wrong: Array, names: Sequence[str]) -> PageTable:
    """The sequences with the most wrong steps, and which these are; `wrong` says so of all, (n, steps)."""
    counts, labelled = wrong.sum(axis=1), (shown.targets != NONE).sum(axis=1)
    having = np.flatnonzero(counts)
    first = having[np.argsort(-counts[having], kind="stable")][:MOST_LISTED]
    rows = []
    for row in first.tolist():
        steps = np.flatnonzero(wrong[row]).tolist()
        said = [
            f"{step + 1}: {names[shown.targets[row, step]]} → {names[shown.outputs[row, step]]}"
            for step in steps[:MOST_STEPS]
        ]
        more = ["…"] * (len(steps) > MOST_STEPS)
        rows.append([f"{numbers[row]:,}", f"{counts[row]} of {labelled[row]}", "; ".join([*said, *more])])
    which = "all" if len(rows) == len(having) else f"the {len(rows)} worst"
    what = (
        f"{which} of the {len(having):,} with wrong steps" if len(having) > 1 else "the one with wrong steps"
    )
    head = [f"{shown.role} sample", "wrong steps", "steps, from 1: true → predicted"]
    return PageTable(f"{shown.source}: {what}", head, rows)


def _first_inputs(shown: Shown, model: Model) -> tuple[list[str], Array]:
    """The first few columns of a table, as names and values (n, …) in raw units; none of sequences."""
    how = model.preparation
    if KINDS[model.kind].recurrent or how is None or len(how.names) != shown.x.shape[1]:
        return [], np.empty((len(shown.x), 0))
    raw = shown.x.astype(np.float64)
    raw = (raw if how.x is None else how.x.undo(raw)) * model.scale
    return list(how.names[:MOST_INPUTS]), raw[:, :MOST_INPUTS]
