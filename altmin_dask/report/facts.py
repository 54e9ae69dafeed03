"""What there is to know of a run in numbers: for the top of its report, and to set it beside others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import MissingError
from altmin_dask.format import duration, known, number
from altmin_dask.report.columns import column, gap, layer_columns
from altmin_dask.report.page_table import PageTable
from altmin_dask.report.result_table import (
    MOST_OUTPUTS,
    class_rows,
    feature_rows,
    metric_rows,
    output_rows,
    unit_of_errors,
)
from altmin_dask.report.verdict import Verdict, judge
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import Record, read_records
from altmin_dask.training.result import read_result

Pairs = list[tuple[str, str]]
_MOST_LAYERS = 8


@dataclass(frozen=True, eq=False)
class Facts:
    """A run with a record and a model, read once.

    Attributes
    ----------
    run : RunFolder
        The run.
    settings : dict
        Its pipeline, JSON-ready.
    records : list of Record
        Its history.
    model : Model
        The model that is kept.
    verdict : Verdict
        What it came to.
    """

    run: RunFolder
    settings: dict[str, Any]
    records: list[Record]
    model: Model
    verdict: Verdict

    @classmethod
    def of(cls, run: RunFolder) -> Facts:
        """Read a run folder.

        Raises
        ------
        MissingError
            If it is not a run folder, or has no records or no model yet.
        DataError
            If its files are damaged.
        """
        settings, records = run.manifest.pipeline(), read_records(run)
        if not records:
            raise MissingError(
                f"{run.path} has no records to report on; go on with it by `altmin train --resume`"
            )
        return cls(run, settings, records, Model.load(run.model), judge(records, read_result(run)))

    @property
    def title(self) -> str:
        """What it is called: its title, or else its folder."""
        return str(self.settings.get("output", {}).get("title") or self.name)

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.run.path.resolve().name

    @property
    def network(self) -> str:
        """Widths and kind."""
        return self.model.network.called(self.model.kind.replace("_", " "))

    @cached_property
    def whereabouts(self) -> list[dict[str, Any]]:
        """When and where it was trained, as far as that was written down."""
        return self.run.manifest.whereabouts()

    @property
    def unit(self) -> str:
        """What the loss is."""
        return self.verdict.unit or self.model.network.loss.unit

    @property
    def resolved(self) -> dict[str, Any]:
        """What settings came to that the pipeline leaves open, by their whole names."""
        return self.run.manifest.settings()

    @property
    def date(self) -> str:
        """When it began."""
        return day(self.whereabouts[0]["date"]) if self.whereabouts else ""

    @property
    def scheduler(self) -> str:
        """The cluster that it ran on; empty if it was this process, or that is not known."""
        last = self.whereabouts[-1] if self.whereabouts else {"in_process": True}
        return "" if last["in_process"] else str(last["where"])

    def figures(self) -> list[tuple[str, str, str]]:
        """The numbers that go first: label, value, and what there is to add."""
        verdict, last = self.verdict, self.records[-1]
        own = self.records[verdict.record]
        count = "" if verdict.samples is None else f"of {verdict.samples:,} samples"
        found = [
            ("Kept model", f"sweep {number(verdict.sweep)}", f"of {number(last.sweep)} that were done"),
            (f"{verdict.on.capitalize()} loss", known(verdict.loss), count),
        ]
        if verdict.on == "validation":
            found.append(("Training loss", known(own.nested_loss), f"of sweep {number(own.sweep)}"))
        accuracy = verdict.metrics.get("accuracy")
        if accuracy is not None:
            found.append(("Accuracy", f"{accuracy:.2%}", f"on {verdict.on} samples"))
        if (r2 := verdict.metrics.get("r2")) is not None:
            found.append(("R²", f"{r2:.4f}", f"on {verdict.on} samples"))
        return found

    def kept(self) -> Pairs:
        """The kept model in numbers."""
        verdict, own = self.verdict, self.records[self.verdict.record]
        rows: Pairs = [
            (f"{verdict.on} loss", known(verdict.loss, "{:.6g}".format)),
            *metric_rows(verdict.metrics),
        ]
        if verdict.on == "validation":
            rows.append(("training loss", known(own.nested_loss, "{:.6g}".format)))
        rows += [("unit of losses", self.unit), *unit_of_errors(verdict.metrics)]
        if own.nested_accuracy is not None:
            rows.append(("training accuracy", f"{own.nested_accuracy:.2%}"))
        rows += _of_constraints(own)
        weights = sum(math.prod(shape) for shape in self.model.network.shapes)
        rows.append(("weights", f"{weights:,}"))
        measured = "its saved weights" if verdict.exact else "its record (there is no result.json)"
        return [*rows, ("measured by", measured)]

    def about(self) -> Pairs:
        """The run: how long it took, of how many samples, when and where."""
        last, shapes = self.records[-1], self.run.manifest.shapes()
        rows: Pairs = [("sweeps", number(last.sweep))]
        for label, seconds in (("CPU time", last.cpu_seconds), ("wall time", last.wall_seconds)):
            if math.isfinite(seconds):
                rows.append((label, f"{seconds:.2f} s" if seconds < 60 else duration(seconds)))
        if shapes.get("rows"):
            rows.append(("training samples", f"{shapes['rows']:,} in chunks of {shapes['chunk_rows']:,}"))
        if (held := self.validation_rows) is not None:
            rows.append(("validation samples", f"{held:,}"))
        for place, each in enumerate(self.whereabouts):
            again = "" if place == 0 else "went on: "
            rows += [
                (f"{again}date", day(each["date"])),
                (f"{again}ran on", each["where"]),
                (f"{again}machine", each["machine"]),
                (f"{again}versions", each["versions"]),
            ]
        return rows

    @cached_property
    def validation_rows(self) -> int | None:
        """How many validation samples there are; None if there are none, or they are gone."""
        if self.verdict.on == "validation" and self.verdict.samples is not None:
            return self.verdict.samples
        path = self.run.manifest.stores().get("validation")
        if not path:
            return None
        try:
            return SampleStore.open(path).rows
        except Exception:  # storage anywhere may fail in any way, which must not cost the rest
            return None

    def tables(self) -> list[PageTable]:
        """What the kept model was measured by of each class, target or feature, where there are not too many."""
        metrics, found = self.verdict.metrics, []
        if every := metrics.get("per_class"):
            found.append(PageTable("Each class", *class_rows(every)))
        outputs, features = metrics.get("by_output", ()), metrics.get("by_feature") or {"rmse": ()}
        if 0 < len(outputs) <= MOST_OUTPUTS:
            (_, *head), rows = output_rows(outputs)
            found.append(PageTable("Each target", ["target", *head], rows, shown=True))
        if 0 < len(features["rmse"]) <= MOST_OUTPUTS:
            found.append(PageTable("Each feature, in units of the raw data", *feature_rows(features)))
        return found


def day(date: str) -> str:
    """A date and time as people read them."""
    return f"{datetime.fromisoformat(date):%-d %B %Y, %H:%M %Z}".strip()


def _of_constraints(record: Record) -> Pairs:
    """How far the constraints are met."""
    rows: Pairs = []
    (relaxed,) = column([record.relaxed_objective])
    if math.isfinite(relaxed):
        rows.append(("relaxed objective", number(relaxed)))
    (share,) = gap([record])
    if math.isfinite(share):
        rows.append(("gap of relaxed to nested", f"{share:+.2%}"))
    for label, values, show in (
        ("relative residual by layer", record.relative_residuals, "{:.2g}".format),
        ("zero residuals by layer", record.zero_residuals, "{:.1%}".format),
    ):
        (row,) = layer_columns([values])
        if row.size and any(map(math.isfinite, row)) and any(row > 0):
            some = [known(value, show) for value in row[:_MOST_LAYERS]]
            rows.append((label, ", ".join(some + ["…"] * (row.size > _MOST_LAYERS))))
    return rows
