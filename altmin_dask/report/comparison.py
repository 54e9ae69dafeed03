"""Runs side by side on one page: which is best as far as that can be said, what differs, and their curves together."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from urllib.parse import quote

from altmin_dask.errors import ConfigError
from altmin_dask.format import known, number
from altmin_dask.report import together
from altmin_dask.report.facts import Facts, Pairs
from altmin_dask.report.files import check_own, draw, write_page
from altmin_dask.report.pictures import Picture, Section
from altmin_dask.report.result_table import metric_rows
from altmin_dask.report.settings import all_settings
from altmin_dask.report.style import DARK, LIGHT
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.writable import check_folder_of, check_writable
from altmin_dask.training.ending import STILL_FALLING

DEFAULT = "comparison.html"
LOWER_IS_BETTER = {"log_loss": True, "mse": True, "rmse": True, "mae": True} | dict.fromkeys(
    ("accuracy", "balanced_accuracy", "roc_auc", "r2"), False
)
"""Of metrics that one would choose a model by, whether it is so."""
SURROUNDINGS = (
    *("network", "weights", "training samples", "validation samples"),
    *("date", "ran on", "machine", "versions", "ended", "over-fitting"),
)
"""What is told once where it is the same of all runs; what is measured always stands side by side."""
_MEANINGLESS = ("output",)
UNKNOWN = "–"


@dataclass(frozen=True)
class Row:
    """A line of a table: what it is, a cell for each run, and which of them are the best."""

    label: str
    cells: tuple[str, ...]
    best: tuple[int, ...] = ()


def write_comparison(runs: Sequence[RunFolder], file: Path) -> Path:
    """Write a page about several runs.

    Parameters
    ----------
    runs : sequence of RunFolder
        Two or more, each with a record and a model.
    file : path
        The page, which may replace another one of these.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    ConfigError
        If a run is named twice, or the page would be called as a file of another kind.
    MissingError
        If one is not a run folder, or has no records or no model yet; or there is no folder for the page.
    DataError
        If its files are damaged.
    ExistsError
        If there is a file that is not of a report.
    StorageError
        If the folder cannot be written.
    """
    places = [os.path.realpath(run.path) for run in runs]
    if len(set(places)) < len(places):
        twice = next(
            str(run.path) for run, place in zip(runs, places, strict=True) if places.count(place) > 1
        )
        raise ConfigError(f"{twice} is named twice; name runs that differ")
    _check_page(file)
    every = [Facts.of(run) for run in runs]
    names, why = own_names(places), not_comparable(every)
    beside, shared = apart(results(every, comparable=not why))
    return write_page(
        file,
        "comparison.html",
        title=f"{len(every)} runs compared",
        runs=[
            {
                "name": name,
                "title": facts.title if facts.title != name else "",
                "page": _link(facts.run, file),
                "light": LIGHT.run_colour(place),
                "dark": DARK.run_colour(place),
            }
            for place, (name, facts) in enumerate(zip(names, every, strict=True))
        ],
        verdict=verdict_of(every, names, why),
        notes=why,
        results=beside,
        shared=shared,
        differences=differing_settings(every),
        sections=draw([curves_of(every, names, comparable=not why)]),
    )


def _check_page(file: Path) -> None:
    """Refuse a page that is not called as one, or cannot be written."""
    if file.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{file} is to be an HTML page; give a name that ends in .html")
    check_folder_of(file.absolute())
    check_own(file)
    check_writable(file.absolute())


def own_names(places: Sequence[str]) -> list[str]:
    """What tells folders apart: the last part of each path, with as many before it as that takes."""
    parts = [Path(place).parts for place in places]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(places)


def not_comparable(every: Sequence[Facts]) -> list[str]:
    """Why losses and metrics of runs cannot be set against each other, in sentences; nothing if they can."""
    found = []
    losses = {facts.unit for facts in every}
    if len({facts.model.kind for facts in every}) > 1:
        found.append("The runs are of different kinds, so their losses and metrics cannot be compared.")
    elif len(losses) > 1:
        found.append("The runs have different losses: " + "; and ".join(sorted(losses)) + ".")
    if len({facts.verdict.on for facts in every}) > 1:
        found.append("Some were measured on validation samples, and some on those that they were trained on.")
    elif any(not same_samples(one, other) for one, other in combinations(every, 2)):
        found.append(
            f"They were not measured on the same {every[0].verdict.on} samples, or these are kept in other chunks: "
            "altmin evaluate measures each on the samples that are named."
        )
    return found


def same_samples(one: Facts, other: Facts) -> bool:
    """Whether two runs were measured on the same values, as far as checksums of chunks tell.

    Runs that were trained for targets are judged by these: other columns of the same samples, or columns that were
    made otherwise, do not make losses of the same targets less comparable.
    """
    role = "validation" if one.verdict.on == "validation" else "train"
    mine, theirs = (
        (facts.run.manifest.read().get("fingerprints") or {}).get(role, {}) for facts in (one, other)
    )
    if mine and theirs:
        judged = "y" if one.model.kind != "autoencoder" and "y" in mine else "x"
        return bool(mine[judged] == theirs.get(judged))
    stores = [facts.run.manifest.stores().get(role) for facts in (one, other)]
    return stores[0] is not None and stores[0] == stores[1]


def verdict_of(every: Sequence[Facts], names: Sequence[str], why: Sequence[str]) -> str:
    """Which run is best, as a sentence."""
    losses = [math.inf if facts.verdict.loss is None else facts.verdict.loss for facts in every]
    order = sorted(range(len(every)), key=lambda place: losses[place])
    first, second = order[:2]
    on = every[first].verdict.on
    if why:
        return "Which is best cannot be told from these numbers."
    falling = _still_falling(every, names)
    if losses[first] == losses[second]:
        return f"The lowest {on} loss, {known(losses[first])}, is that of more than one.{falling}"
    less = (
        f"{1 - losses[first] / losses[second]:.1%} less than " if math.isfinite(losses[second]) else "before "
    )
    return (
        f"{names[first]} has the lowest {on} loss, {known(losses[first])}: {less}{names[second]}, the next, with "
        f"{known(losses[second])}.{falling}"
    )


def _still_falling(every: Sequence[Facts], names: Sequence[str]) -> str:
    """A sentence on runs that ended at a limit before they were done, with a space in front; often nothing."""
    pairs = zip(every, names, strict=True)
    short = [name for facts, name in pairs if facts.verdict.following.startswith(STILL_FALLING)]
    if not short:
        return ""
    whose = f"{', '.join(short[:-1])} and {short[-1]}" if len(short) > 1 else short[0]
    return (
        f" The loss of {whose} was still falling at the limit of its training: with more it may be otherwise."
    )


def results(every: Sequence[Facts], *, comparable: bool) -> list[Row]:
    """What came of each run, side by side; what only one has stays, with a dash for the others."""
    rows = [_row("network", every, lambda facts: facts.network)]
    rows.append(_row("kept sweep", every, lambda facts: number(facts.verdict.sweep)))
    on = {facts.verdict.on for facts in every}
    label = f"{on.pop()} loss" if len(on) == 1 else "loss"
    losses = [facts.verdict.loss for facts in every]
    cells = tuple(known(loss, "{:.6g}".format) for loss in losses)
    rows.append(Row(label, cells, _best(losses, lower=True) if comparable else ()))
    rows += [_metric(name, every, comparable=comparable) for name in _metric_names(every)]
    rows.append(_row("training loss", every, lambda f: known(f.records[f.verdict.record].nested_loss)))
    columns = [dict(facts.about()) for facts in every]
    labels = dict.fromkeys(label for column in columns for label in column if not label.startswith("went on"))
    rows += [Row(label, tuple(column.get(label, UNKNOWN) for column in columns)) for label in labels]
    weights = _row("weights", every, lambda facts: dict(facts.kept())["weights"])
    ends = _row("ended", every, lambda facts: facts.verdict.reason)
    return [*rows, weights, ends, _row("over-fitting", every, lambda facts: facts.verdict.fitting)]


def apart(rows: Sequence[Row]) -> tuple[list[Row], Pairs]:
    """Those that are to stand side by side, and what is the same of all runs, once."""
    alike = [row for row in rows if row.label in SURROUNDINGS and len(set(row.cells)) == 1]
    return [row for row in rows if row not in alike], [(row.label, row.cells[0]) for row in alike]


def differing_settings(every: Sequence[Facts]) -> list[Row]:
    """Settings that are not the same in all runs, by their whole names, with what was run where one was left open."""
    columns = []
    for facts in every:
        tables = all_settings(facts.settings, facts.resolved, facts.scheduler)
        columns.append(
            {
                f"{table}.{key}": value
                for table, entries in tables
                if table not in _MEANINGLESS
                for key, value in entries
            }
        )
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = [Row(key, tuple(column.get(key, UNKNOWN) for column in columns)) for key in keys]
    return [row for row in rows if len(set(row.cells)) > 1]


def curves_of(every: Sequence[Facts], names: Sequence[str], *, comparable: bool) -> Section:
    """Draw the losses and accuracies that runs are judged by, over sweeps and over CPU seconds."""
    runs = [
        together.Curve(name, tuple(facts.records), facts.verdict.record, facts.verdict.on == "validation")
        for name, facts in zip(names, every, strict=True)
    ]
    marks = "Rings, and numbers beside the names, are of the kept models."
    if not comparable:
        marks += " Compare how they fall, not how low they are."
    which = "validation" if all(run.validated for run in runs) else "training"
    if which == "training" and any(run.validated for run in runs):
        which = "validation loss, or training loss of runs without validation samples"
    else:
        which += " loss"
    about = f"The {which}. {marks}"
    found = [
        Picture("loss", "Loss by sweeps", about, partial(together.losses, runs)),
        Picture("cost", "Loss by CPU seconds", about, partial(together.costs, runs)),
    ]
    if together.has_accuracies(runs):
        words = f"Share of these samples that are classified rightly. {marks}"
        found.append(Picture("accuracy", "Accuracy", words, partial(together.accuracies, runs)))
    return Section("Progress", tuple(found))


def _row(label: str, every: Sequence[Facts], of: Callable[[Facts], str]) -> Row:
    return Row(label, tuple(map(of, every)))


def _metric_names(every: Sequence[Facts]) -> list[str]:
    """Metrics that are one number and have a name for people, of any run."""
    names = dict.fromkeys(name for facts in every for name in facts.verdict.metrics)
    return [name for name in names if any(_shown(facts, name) for facts in every)]


def _shown(facts: Facts, name: str) -> Pairs:
    """A metric of a run as (label, value), if it has it."""
    there = facts.verdict.metrics
    return metric_rows({name: there[name]}) if name in there else []


def _metric(name: str, every: Sequence[Facts], *, comparable: bool) -> Row:
    shown = [_shown(facts, name) for facts in every]
    label = next(rows[0][0] for rows in shown if rows)
    lower = LOWER_IS_BETTER.get(name)
    values = [facts.verdict.metrics.get(name) for facts in every]
    best = _best(values, lower=lower) if comparable and lower is not None else ()
    return Row(label, tuple(rows[0][1] if rows else UNKNOWN for rows in shown), best)


def _best(values: Sequence[float | None], *, lower: bool) -> tuple[int, ...]:
    """Places of the best of two values or more."""
    there = [value for value in values if value is not None and math.isfinite(value)]
    if len(there) < 2:
        return ()
    best = min(there) if lower else max(there)
    return tuple(place for place, value in enumerate(values) if value == best)


def _link(run: RunFolder, file: Path) -> str:
    """The run's own report, from the page; empty if there is none."""
    page = run.report / "report.html"
    if not page.is_file():
        return ""
    return quote(os.path.relpath(os.path.realpath(page), os.path.realpath(file.absolute().parent)))
