"""Why training ended, and what to do next: a word for programs, and a sentence each for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from altmin_dask.errors import FaultError, RunError
from altmin_dask.format import counted_as, number
from altmin_dask.training.record import Record

Reason = Literal[
    "no_improvement", "max_sweeps", "max_cpu_seconds", "settled", "interrupted", "diverged", "failed"
]
LIMITS: tuple[Reason, ...] = ("no_improvement", "max_sweeps", "max_cpu_seconds", "settled")
"""What ends training that is done."""
RISEN, NOISE = 0.01, 0.5
"""A validation loss that is higher than the best one by more than this share has risen since; of n samples by more than
NOISE / √n: so much a mean of few may move by itself (chosen)."""
LATE, FALLEN = 0.9, 0.002
"""A model that is kept from the last tenth of the sweeps, and has a loss lower than any before that by more than this
share, was still becoming better."""
FAR, FEW = 2.0, 3.0
"""A validation loss of so many times the training loss is far from it; by n samples, of so many (1 + FEW / √n) times:
one that is wrong may be half the loss of fifty (chosen)."""
STILL_FALLING = "The loss was still falling"
"""How the sentence begins that tells to go on."""
OVER_FITS = "The validation loss has risen while the training loss fell, which is over-fitting"
"""How the sentence begins that tells what to do about it."""


@dataclass(frozen=True)
class Ending:
    """Why training ended.

    Attributes
    ----------
    reason : str
        For programs: a limit of `[training]`, or what else there was.
    text : str
        The same as a sentence, without what follows from it.
    """

    reason: Reason
    text: str


def sweeps_are_done(sweeps: float) -> Ending:
    """The limit `training.max_sweeps`."""
    return Ending("max_sweeps", f"{counted_as(sweeps, 'sweep')} {'is' if sweeps == 1 else 'are'} done")


def seconds_are_spent(seconds: float) -> Ending:
    """The limit `training.max_cpu_seconds`."""
    one = "is" if seconds == 1 else "are"
    return Ending("max_cpu_seconds", f"{counted_as(seconds, 'CPU second')} {one} spent")


def nothing_improved(records: int) -> Ending:
    """The limit `training.n_iter_no_change`."""
    return Ending("no_improvement", f"the loss has not improved in {counted_as(records, 'record')}")


def settled() -> Ending:
    """An algorithm has nothing more to gain."""
    return Ending("settled", "the constraints are met and nothing moves any more (solver.residual_tol)")


def ended_by(error: BaseException) -> Ending:
    """What was raised while training went on."""
    if isinstance(error, KeyboardInterrupt):
        return Ending("interrupted", "training was interrupted")
    text = str(error) or type(error).__name__
    diverged = isinstance(error, RunError) and not isinstance(error, FaultError)
    return Ending("diverged" if diverged else "failed", text)


def next_step(
    ending: Ending, records: Sequence[Record], kept: int, samples: int | None = None, *, decays: bool = True
) -> str:
    """What to do next, as a sentence.

    Parameters
    ----------
    ending : Ending
        Why training ended.
    records : sequence of Record
        The whole history.
    kept : int
        Which of them is of the model that is kept.
    samples : int, optional
        How many decided that.
    decays : bool
        Whether the schedule knows a weight decay.
    """
    match ending.reason:
        case "interrupted":
            return "Go on with --resume, or use the model as it is."
        case "failed":
            return "Mend what the message names, and go on with --resume."
        case "diverged":
            return "Try what the message names in a new run, or samples in other units (data.standardize)."
    remedy = (
        f"a larger solver.ridge{' or solver.weight_decay' if decays else ''}, fewer units or more samples"
    )
    if overfits(records[kept], records[-1], samples):
        return f"{OVER_FITS}: try {remedy}."
    limit = ending.reason
    if kept == 0 and len(records) > 1:
        return (
            "Training has not become better than the weights that it began with: try a larger training.max_sweeps, and "
            "samples in other units (data.standardize)."
        )
    bounded = limit in ("max_sweeps", "max_cpu_seconds")
    if bounded and still_falling(records, kept):
        return f"{STILL_FALLING}: go on with --resume, a larger training.{limit} and every other --set as before."
    times = times_training(records[kept])
    if is_far(records[kept], samples):
        factor = f"{number(times)} times" if math.isfinite(times) else "far above"
        return (
            "Going on would change little, and the model fits its training samples far better than others (validation "
            f"loss {factor} the training loss), which is over-fitting: try {remedy}."
        )
    if bounded and records[kept].sweep < LATE * records[-1].sweep:
        return "The best model came earlier: more sweeps are not likely to help, other settings may."
    return "Going on would change little: evaluate the model on samples that training has not seen."


def still_falling(records: Sequence[Record], kept: int) -> bool:
    """Whether the loss of the kept model is from the last tenth of the sweeps, and lower than all before that."""
    end = LATE * records[-1].sweep
    if records[kept].sweep < end:
        return False
    before = min((_judged(record) for record in records if record.sweep < end), default=math.inf)
    return not _judged(records[kept]) > (1 - FALLEN) * before


def _judged(record: Record) -> float:
    """The loss that decides which model is kept."""
    if record.validation_loss is not None:
        return record.validation_loss
    return record.regularized_loss if math.isfinite(record.regularized_loss) else record.nested_loss


def times_training(record: Record) -> float:
    """How many times the training loss the validation loss is; NaN without one."""
    if record.validation_loss is None:
        return math.nan
    return record.validation_loss / record.nested_loss if record.nested_loss > 0 else math.inf


def is_far(record: Record, samples: int | None = None) -> bool:
    """Whether the validation loss, by so many samples, is far above the training loss."""
    return times_training(record) >= FAR * (1 + (FEW / math.sqrt(samples) if samples else 0.0))


def overfits(best: Record, last: Record, samples: int | None = None) -> bool:
    """Whether validation, by so many samples, has become worse since the kept model, and training better."""
    if best.validation_loss is None or last.validation_loss is None:
        return False
    risen = max(RISEN, NOISE / math.sqrt(samples) if samples else 0.0)
    return last.validation_loss > (1 + risen) * best.validation_loss and last.nested_loss < best.nested_loss
