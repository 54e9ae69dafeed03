"""What a run came to, for the top of its report: the kept model, why training ended, over-fitting, what is next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from altmin_dask.format import number
from altmin_dask.report.columns import column
from altmin_dask.training.ending import OVER_FITS, is_far, overfits, times_training
from altmin_dask.training.record import Record
from altmin_dask.training.result import Result

LEAST_TOLD = 0.001
"""Of a rise of the validation loss that is less, nothing is said."""
_NOT_RECORDED = (
    "Why training ended is not recorded: it goes on, was killed, or is of an earlier version.",
    "Go on by altmin train … --resume, or use the model as it is.",
)


@dataclass(frozen=True)
class Verdict:
    """What a run came to.

    Attributes
    ----------
    record : int
        Which of the history is of the kept model.
    sweep : float
        When that was.
    on : {"validation", "training"}
        Samples that its loss and metrics are of.
    samples : int or None
        How many of them there are, where it is known.
    loss : float or None
        Its mean loss.
    metrics : dict
        Whatever else it was measured by.
    reason, following : str
        Why training ended, and what to do next, a sentence each.
    fit, fitting : str
        "good", "over", "far" or "unknown", and what that means, as a sentence.
    exact : bool
        Whether loss and metrics were measured of exactly the weights that are kept.
    unit : str
        What the loss is; empty where it was not recorded.
    """

    record: int
    sweep: float
    on: str
    samples: int | None
    loss: float | None
    metrics: dict[str, Any]
    reason: str
    following: str
    fit: str
    fitting: str
    exact: bool = False
    unit: str = ""


def judge(records: Sequence[Record], result: Result | None) -> Verdict:
    """Say what a run came to.

    Parameters
    ----------
    records : sequence of Record
        The whole history, of one record at least.
    result : Result or None
        What ``result.json`` says of the weights that are kept, if it does.
    """
    if result is None:
        at = best_record(records)
        return Verdict(at, *_recorded(records[at]), *_NOT_RECORDED, *_fitting(records, at))
    kept, at = result.kept, nearest(records, result.kept.sweep)
    return Verdict(
        at,
        kept.sweep,
        kept.on,
        kept.samples,
        kept.loss,
        kept.metrics,
        _sentence(result.stopped.text),
        _sentence(result.next.removeprefix(f"{OVER_FITS}: ")),  # said with its numbers beside it
        *_fitting(records, at, kept.samples),
        exact=True,
        unit=kept.unit,
    )


def best_record(records: Sequence[Record]) -> int:
    """Which record's model is kept: the first with the lowest validation loss, or else loss and ridge."""
    validation = column(r.validation_loss for r in records)
    if not math.isfinite(validation[0]):
        validation = column(
            r.regularized_loss if math.isfinite(r.regularized_loss) else r.nested_loss for r in records
        )
    lowest = min((value for value in validation if math.isfinite(value)), default=math.nan)
    return next((at for at, value in enumerate(validation) if value == lowest), len(records) - 1)


def nearest(records: Sequence[Record], sweep: float) -> int:
    """Which record is of a sweep."""
    return min(range(len(records)), key=lambda at: abs(records[at].sweep - sweep))


def _recorded(record: Record) -> tuple[float, str, None, float, dict[str, Any]]:
    """What a record says of its own model."""
    judged = record.validation_loss is not None
    loss = record.validation_loss if record.validation_loss is not None else record.nested_loss
    accuracy = record.validation_accuracy if judged else record.nested_accuracy
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return record.sweep, "validation" if judged else "training", None, loss, metrics


def _fitting(records: Sequence[Record], kept: int, samples: int | None = None) -> tuple[str, str]:
    """Whether a network fits its training samples at the cost of others."""
    best, last = records[kept], records[-1]
    if best.validation_loss is None or last.validation_loss is None:
        return (
            "unknown",
            "Whether it over-fits cannot be told: there are no validation samples (data.validation).",
        )
    if overfits(best, last, samples):
        risen, fallen = (
            last.validation_loss / best.validation_loss - 1,
            1 - last.nested_loss / best.nested_loss,
        )
        return (
            "over",
            f"It over-fits from sweep {number(best.sweep)} on: since then the validation loss has risen by {risen:.1%} "
            f"and the training loss has fallen by {fallen:.1%}. The kept model is from before that.",
        )
    times, lowest = times_training(best), best.validation_loss
    risen = last.validation_loss / lowest - 1 if lowest > 0 else 0.0
    rose = risen >= LEAST_TOLD and last.nested_loss < best.nested_loss
    if is_far(best, samples):
        factor = f"{number(times)} times" if math.isfinite(times) else "far above"
        return (
            "far",
            f"It fits its training samples far better than others: the validation loss of the kept model is {factor} "
            "the training loss.",
        )
    return (
        "good",
        f"No sign of over-fitting: the validation loss is {number(times)} times the training loss, and "
        + (
            f"at the end {risen:.1%} above its lowest, which may be chance."
            if rose
            else "has not risen while that fell."
        ),
    )


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else text
