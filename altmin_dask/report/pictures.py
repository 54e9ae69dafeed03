"""Which pictures a report has, and what stands below each: no more than is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from altmin_dask.config import KINDS
from altmin_dask.data.labels import NONE
from altmin_dask.format import number
from altmin_dask.report import curves, quality, tiles
from altmin_dask.report.images import are_images, as_images
from altmin_dask.report.page_table import PageTable
from altmin_dask.report.sampling import Shown
from altmin_dask.report.style import Theme
from altmin_dask.report.verdict import Verdict
from altmin_dask.report.wrong import wrong_tables
from altmin_dask.storage.model import Model
from altmin_dask.training.record import Record
from altmin_dask.types import Array

NAMES = (
    "convergence",
    "accuracy",
    "recalls",
    "confusion",
    "errors",
    "reconstructions",
    "features",
    "predictions",
    "prediction_errors",
    "sequences",
    "residuals",
    "penalty",
    "zeros",
)
"""Of all pictures that there can be."""
FORMER = ("feasibility",)
"""Of earlier versions."""
MOST_ERRORS = 3 * tiles.COLUMNS


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes
    ----------
    name : str
        Of its file, without ``.png``.
    heading, caption : str
        What stands above and below it.
    draw : callable
        Makes it for a theme.
    """

    name: str
    heading: str
    caption: str
    draw: Callable[[Theme], Figure]


@dataclass(frozen=True)
class Section:
    """Pictures that belong together, and tables and sentences below them."""

    heading: str
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()
    tables: tuple[PageTable, ...] = ()


def progress(records: Sequence[Record], verdict: Verdict, unit: str) -> Section:
    """Draw loss and accuracy over sweeps."""
    at = f"Numbers beside the curves and rings are of the kept model, sweep {number(verdict.sweep)}."
    about = [at, f"The loss of a sample: {unit}."]
    if curves.has_relaxed(records):
        about.append("Dashed: the relaxed objective, which training makes small.")
    made = [
        Picture("convergence", "Loss", " ".join(about), partial(curves.loss, records, verdict.record)),
    ]
    if curves.has_accuracy(records):
        caption = f"Share of samples that are classified rightly. {at}"
        made.append(
            Picture("accuracy", "Accuracy", caption, partial(curves.accuracy, records, verdict.record))
        )
    if curves.has_recalls(records):
        caption = (
            "Share of the validation samples of each class that is found; numbers and rings are of the kept model, "
            f"sweep {number(verdict.sweep)}."
        )
        made.append(
            Picture("recalls", "Recall by class", caption, partial(curves.recalls, records, verdict.record))
        )
    return Section("Progress", tuple(made))


def constraints(records: Sequence[Record], verdict: Verdict) -> Section:
    """Draw how far constraints are met, where that is known."""
    made = []
    if curves.has_residuals(records):
        caption = (
            "How far the pre-activations of each layer are from what the layer below makes of them: at zero the "
            "relaxed network is the real one."
        )
        made.append(
            Picture("residuals", "Residuals", caption, partial(curves.residuals, records, verdict.record))
        )
    if curves.has_penalty(records):
        caption = "How much a residual of each layer costs; it is balanced while training goes on."
        made.append(Picture("penalty", "Penalty", caption, partial(curves.penalty, records, verdict.record)))
    if curves.has_zeros(records):
        caption = "The L1 penalty makes residuals exactly zero; the others are where it gives way."
        made.append(
            Picture("zeros", "Zero residuals", caption, partial(curves.zeros, records, verdict.record))
        )
    return Section("Constraints", tuple(made))


def predictions(shown: Shown, model: Model, metrics: Mapping[str, Any]) -> Section:
    """Draw what the network makes of samples, as its kind has it."""
    match KINDS[model.kind].target:
        case "inputs":
            return _encoded(shown, model)
        case "labels":
            return _classified(shown, model, metrics)
        case _:
            return _regressed(shown, model)


def class_names(model: Model) -> list[str]:
    """What the classes are called."""
    how, count = model.preparation, model.network.shapes[-1][0]
    if how is not None and how.labels is not None:
        return [str(label) for label in (how.classes or how.labels)]
    return [str(name) for name in (range(count) if how is None or how.classes is None else how.classes)]


def counted(truth: Array, predicted: Array, classes: int) -> Array:
    """Confusion matrix of places of classes, (K, K), without those that have no label."""
    there = truth.ravel() != NONE
    cells = truth.ravel()[there] * classes + predicted.ravel()[there]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _classified(shown: Shown, model: Model, metrics: Mapping[str, Any]) -> Section:
    names = class_names(model)
    matrix, source, weighted = counted(shown.targets, shown.outputs, len(names)), shown.source, False
    if steps := shown.targets.ndim > 1:
        source += f", {_amount(matrix.sum())} steps of which have a label"
    if (every := metrics.get("confusion_matrix")) is not None and len(every) == len(names):
        matrix = np.asarray(every)
        weighted = matrix.dtype.kind == "f"
        count = shown.rows if weighted and not steps else matrix.sum()
        source = (
            f"All {_amount(count)} {shown.role} {'steps' if steps else 'samples'}{', by weight' * weighted}"
        )
    wrong = matrix[~np.eye(len(matrix), dtype=bool)].sum()
    what = "weight" if weighted else "number"
    numbers = f", and their {what} in each cell" if len(names) <= quality.MOST_NUMBERS else ""
    caption = (
        f"{source}: of every true class (row) the share that is taken for each (column){numbers}; {_amount(wrong)} of "
        f"{_amount(matrix.sum())} {'is' if wrong == 1 else 'are'} wrong, off the diagonal, where small shares are "
        "coloured more strongly."
    )
    made = [Picture("confusion", "Confusion matrix", caption, partial(quality.confusion, matrix, names))]
    if (picture := _errors(shown, model, names)) is not None:
        made.append(picture)
    tables = () if picture is not None else tuple(wrong_tables(shown, model, names))
    notes = (_most_confused(matrix, names) or _none_wrong(shown),)
    return Section("Predictions", tuple(made), notes, tables)


def _none_wrong(shown: Shown) -> str:
    """What to say where no weight is off the diagonal: of samples that have none, some may be."""
    wrong = shown.outputs[shown.targets != NONE] != shown.targets[shown.targets != NONE]
    return f"None {'that has a weight ' * bool(wrong.any())}is classified wrongly."


def _errors(shown: Shown, model: Model, names: Sequence[str]) -> Picture | None:
    """Images that are classified wrongly, if there are any."""
    if shown.targets.ndim > 1 or KINDS[model.kind].recurrent or not are_images(shown.x, shown.sample_shape):
        return None
    wrong, images = np.flatnonzero(shown.outputs != shown.targets), as_images(shown.x, shown.sample_shape)
    if images is None or not wrong.size:
        return None
    first = wrong[:MOST_ERRORS]
    how_many = "all" if len(first) == len(wrong) else f"the first {len(first)}"
    caption = (
        f"{shown.source}: {how_many} of the {len(wrong):,} that are classified wrongly, each with its true class, "
        "and below it the one predicted."
    )
    true, said = ([names[place] for place in of[first]] for of in (shown.targets, shown.outputs))
    return Picture("errors", "Errors", caption, partial(tiles.errors, images[first], true, said))


def _amount(count: Any) -> str:
    """How many, or of samples that have weights how much."""
    return f"{int(count):,}" if count == int(count) else number(count)


def _most_confused(matrix: Array, names: Sequence[str], most: int = 3) -> str:
    """Say which classes are taken for others most often; nothing where none is."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(*divmod(int(cell), len(matrix)), wrong.flat[cell]) for cell in order if wrong.flat[cell]]
    if not pairs:
        return ""
    listed = "; ".join(f"{names[true]} for {names[said]} ({_amount(count)})" for true, said, count in pairs)
    return f"Taken for another class most often: {listed}."


def _encoded(shown: Shown, model: Model) -> Section:
    inputs, outputs = shown.targets, shown.outputs
    if not KINDS[model.kind].recurrent and are_images(inputs, shown.sample_shape):
        count = 2 * tiles.COLUMNS
        given, made = (as_images(of[:count], shown.sample_shape) for of in (inputs, outputs))
        assert given is not None
        assert made is not None
        caption = (
            f"The first {len(given)} {shown.role} samples that were read: each above what the network makes of it, and "
            "the error of every value."
        )
        draw = partial(tiles.reconstructions, given, made)
        return Section("Reconstructions", (Picture("reconstructions", "Images", caption, draw),))
    names = [] if model.preparation is None else model.preparation.names
    errors = quality.relative_errors(inputs, outputs)
    known = np.isfinite(errors)
    if not known.any():
        return Section("Reconstructions", (), ("No feature varies in the samples that were read.",))
    drawn = min(int(known.sum()), quality.MOST_FEATURES)
    which = "every feature that varies" if drawn == known.sum() else f"the {drawn} features with the largest"
    caption = (
        f"{shown.source}: the error of {which}, in its standard deviations: at 1 the network tells no more than the "
        f"mean does. The median of all is {np.nanmedian(errors):.2f}."
    )
    draw = partial(quality.features, inputs, outputs, names)
    return Section("Reconstructions", (Picture("features", "Error by feature", caption, draw),))


def _regressed(shown: Shown, model: Model) -> Section:
    names = [] if model.preparation is None else list(model.preparation.targets)
    units = " in the units of the data" if model.output_scaling is not None else ""
    width = shown.outputs.shape[-1]
    made, true = shown.outputs.reshape(-1, width), shown.targets.reshape(-1, width)
    known = np.isfinite(true).all(axis=1)
    made, true = made[known], true[known]
    source = shown.source
    if shown.targets.ndim > 2:
        every = max(1, len(true) // quality.MOST_POINTS)
        made, true = made[::every], true[::every]
        source += f", {len(true):,} of their steps"
    few = f"; the first {quality.MOST_OUTPUTS} of {width} outputs" if width > quality.MOST_OUTPUTS else ""
    names = names if len(names) == width else []
    pictures = [
        Picture(
            "predictions",
            "Predicted against true",
            f"{source}{units}{few}. On the dotted line the two are equal.",
            partial(quality.against_targets, true, made, names),
        ),
        Picture(
            "prediction_errors",
            "Residuals",
            f"The same samples{few}: what is left. If it bends, or spreads more to one side, there is something yet to "
            "be learnt, or a target that wants a logarithm.",
            partial(quality.residuals_of, true, made, names),
        ),
    ]
    if shown.targets.ndim > 2:
        count = min(len(shown.targets), quality.MOST_SEQUENCES)
        whole = "" if width == 1 else f", the first of {width} outputs"
        caption = f"The first {count} sequences that were read, step by step{whole}."
        draw = partial(quality.sequences, shown.targets, shown.outputs, names)
        pictures.append(Picture("sequences", "Sequences", caption, draw))
    return Section("Predictions", tuple(pictures))
