"""What comes of a run: the model that is kept, measured by exactly its weights, and why training ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from altmin_dask.errors import DataError
from altmin_dask.solvers.evaluation import Evaluation
from altmin_dask.solvers.metrics import number
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.context import RunContext
from altmin_dask.training.ending import Ending, next_step
from altmin_dask.training.grouping import all_rows
from altmin_dask.training.record import Record


@dataclass(frozen=True)
class Kept:
    """The quality of the model in a run folder: what `altmin evaluate` says of it on the same store, to the last digit.

    Attributes
    ----------
    sweep : float
        Of the record whose weights they are.
    on : {"validation", "training"}
        All samples of which store it was measured on.
    samples : int
        How many those are.
    loss : float or None
        Mean loss; None where it is not finite.
    unit : str
        What the loss is.
    metrics : dict
        As of `altmin_dask.solvers.measures.Measure.metrics`.
    """

    sweep: float
    on: Literal["validation", "training"]
    samples: int
    loss: float | None
    unit: str
    metrics: dict[str, Any]

    @classmethod
    def of(cls, context: RunContext, sweep: float, quality: Evaluation) -> Self:
        """Of the sums over all samples of the store that decides which model is kept."""
        measuring = context.measuring
        return cls(
            sweep,
            "training" if context.problem.validation is None else "validation",
            int(quality.samples),
            number(quality.mean_loss),
            measuring.loss_unit,
            measuring.metrics(quality),
        )


@dataclass(frozen=True)
class Result:
    """What ``result.json`` of a run folder holds.

    Attributes
    ----------
    kept : Kept
        The model.
    stopped : Ending
        Why training ended.
    next : str
        What to do next, as a sentence.
    resolved : dict
        What was run where the pipeline leaves it open, by ``table.key``.
    """

    kept: Kept
    stopped: Ending
    next: str
    resolved: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a dict that JSON can hold."""
        stopped = {**asdict(self.stopped), "next": self.next}
        return {"kept": asdict(self.kept), "stopped": stopped, "resolved": self.resolved}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Undo `to_json`.

        Raises
        ------
        KeyError, TypeError
            If it is not what that gave.
        """
        stopped = dict(content["stopped"])
        following = stopped.pop("next")
        return cls(Kept(**content["kept"]), Ending(**stopped), following, dict(content["resolved"]))


def read_result(run: RunFolder) -> Result | None:
    """What came of a run; None where it goes on, was killed, or is of a version that wrote nothing.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    content = run.result()
    try:
        return None if content is None else Result.from_json(content)
    except (KeyError, TypeError) as error:
        raise DataError(f"{run.path}/result.json is damaged: {error!r}") from None


def write_result(
    context: RunContext,
    ending: Ending,
    records: Sequence[Record],
    record: int,
    quality: Evaluation | None,
    known: Result | None,
) -> Result:
    """Measure the model in the run folder, unless that has been done, and write down what came of training.

    No clock runs meanwhile: training has ended.

    Parameters
    ----------
    context : RunContext
        The run.
    ending : Ending
        Why it ended.
    records, record : sequence of Record, int
        The history, and which of it is of the model.
    quality : Evaluation or None
        Sums over all samples of the store that decides, where that record has them of the same weights. Where they are
        not all that is measured (`Measure.for_records`) they do after a failure alone: what would measure the rest may
        be what has failed.
    known : Result or None
        What was written of these weights before the run was gone on with.
    """
    sweep = records[record].sweep
    if quality is None and known is not None and known.kept.sweep == sweep:
        kept = known.kept
    else:
        enough = quality is not None and (
            quality.measure == context.measuring.measure or ending.reason == "failed"
        )
        kept = Kept.of(context, sweep, quality if quality is not None and enough else _measured(context))
    resolved = context.run.manifest.settings()
    result = Result(
        kept,
        ending,
        next_step(ending, records, record, kept.samples, decays=context.settings.weight_decay is not None),
        resolved,
    )
    context.run.write_result(result.to_json())
    return result


def _measured(context: RunContext) -> Evaluation:
    """The model in the run folder, on all samples of the store that decides."""
    samples = context.problem.judging
    weights = str(context.run.weights)
    return context.evaluate(samples, all_rows(samples.store), weights, context.measuring.measure)
