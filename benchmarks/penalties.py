"""What L1 and multipliers achieve and cost, against the L2 relaxation, in four parts that print a Markdown table each.

constraints: multipliers on MNIST 784-300-784 (sigmoid). When is the relative residual of every layer below 1e-3, and
the relaxed objective without its ridge within 1 % of the nested loss over all samples? Up to --seconds of CPU time.
classifier: MNIST 784-256-256-10 (relu). Accuracy of the real network with multipliers and with L2,
after --classifier-seconds. A part of the training images says which model is kept; the test images judge that one.
cost: CPU seconds and bytes of an incremental sweep over MNIST, at a fixed ρ and (multipliers) at one that balancing
moves; those of L2 are the unit. Evaluation of one chunk a sweep is among the bytes of all.
exactness: digits 64-16-64 (sigmoid), L1 and L2 at the same μ: relative residual and gap. Draws --picture.

    OMP_NUM_THREADS=1 python benchmarks/penalties.py MNIST.npz [--parts constraints classifier cost exactness]

One thread; evaluation is never on the clock. The part `exactness` needs no MNIST.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from opening import add_options, line, opening
from quality_data import SEARCH, samples

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.execution.connect import planned_resources
from altmin_dask.planning.plan import make_plan
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.callbacks import Callback
from altmin_dask.training.record import Record
from altmin_dask.types import Batch

AUTOENCODER: dict[str, Any] = {"kind": "autoencoder", "hidden_layer_sizes": [300]}
CLASSIFIER: dict[str, Any] = {"kind": "classifier", "hidden_layer_sizes": [256, 256], "activation": "relu"}
SMALL: dict[str, Any] = {"kind": "autoencoder", "hidden_layer_sizes": [16]}
FEASIBLE, CLOSE = 1e-3, 0.01
"""When the constraints count as met: relative residual of every layer, and gap between relaxed and nested loss."""
MARKS = (15, 30, 60, 120, 300, 600, 1200)
EXACT_MU = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class _ReachedError(Exception):
    """There is no need to go on."""


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """A record, with the bytes that this process has read and written by then."""

    read: int
    written: int


class Watch(Callback):
    """Keeps records, with the bytes that this process has read and written by then, and may stop a run."""

    def __init__(self, until_met: bool = False) -> None:
        self.until_met, self.records = until_met, list[Measured]()

    def on_record(self, record: Record) -> None:
        """Keep it."""
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        self.records.append(Measured(**vars(record), read=int(fields["rchar"]), written=int(fields["wchar"])))
        if self.until_met and is_met(record):
            raise _ReachedError


def gap(record: Record) -> float:
    """How far the relaxed objective, its ridge left out, is from the nested loss, relatively."""
    if record.relaxed_objective is None:
        return float("nan")
    return (record.relaxed_objective - record.ridge_term) / record.nested_loss - 1


def worst(record: Record) -> float:
    """The largest relative residual of any layer."""
    return max(record.relative_residuals or [float("nan")])


def is_met(record: Record) -> bool:
    """Whether the constraints are met."""
    return worst(record) < FEASIBLE and abs(gap(record)) <= CLOSE


def settings(
    home: Path,
    network: dict[str, Any],
    solver: dict[str, Any],
    training: dict[str, Any],
    *,
    held_out: str = "",
) -> Pipeline:
    """A pipeline on the stores in `home`, which nothing but a limit in `training` ends."""
    data = {"train": str(home / "train.zarr")}
    if held_out:
        data["validation"] = str(home / f"{held_out}.zarr")
    limits = {"max_sweeps": 1e6, "n_iter_no_change": None}
    return Pipeline.model_validate(
        {
            "data": data,
            "network": network,
            "solver": {"residual_tol": 0.0, **solver},
            "training": {**limits, **training},
            "cluster": {"workers": 1},
        }
    )


def train(
    pipeline: Pipeline, *, until_met: bool = False, test: SampleStore | None = None
) -> tuple[list[Measured], float]:
    """Train in a folder that does not stay; the records, and the accuracy of the model that is kept in a test."""
    watch, accuracy = Watch(until_met), float("nan")
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        with suppress(_ReachedError):
            runs.train(pipeline, run, [watch], log=lambda line: None)
        if test is not None:
            model = Model.load(run.model)
            x, y = np.asarray(test.x[:]), np.asarray(test.y[:])
            accuracy = evaluate_chunk(model.network, model.weights, Batch(x, y)).accuracy
    return watch.records, accuracy


def print_row(cells: Iterable[Any]) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_head(title: str, names: Sequence[str]) -> None:
    print(f"\n{title}\n")
    print_row(names)
    print_row(["---"] * len(names))


def constraints(home: Path, options: argparse.Namespace) -> None:
    print_head(
        "Multipliers, MNIST 784-300-784",
        ("schedule", "CPU s", "sweeps", "relative residuals", "gap", "nested loss", "held-out loss", ""),
    )
    for schedule in options.schedules:
        training = {"schedule": schedule, "max_cpu_seconds": options.seconds, "evaluation_rows": 60_000}
        pipeline = settings(home, AUTOENCODER, {"penalty": "multipliers"}, training, held_out="test")
        records, _ = train(pipeline, until_met=True)
        marks = iter(mark for mark in MARKS if mark < options.seconds)
        mark = next(marks, None)
        for record in records:
            last = record is records[-1]
            if not last and (mark is None or record.cpu_seconds < mark):
                continue
            mark = next(marks, None)
            residuals = ", ".join(f"{r:.1e}" for r in record.relative_residuals)
            print_row(
                (
                    schedule,
                    f"{record.cpu_seconds:.0f}",
                    f"{record.sweep:.1f}",
                    residuals,
                    f"{gap(record):+.2%}",
                    f"{record.nested_loss:.4f}",
                    f"{record.validation_loss:.4f}",
                    "met" if is_met(record) else "not met" if last else "",
                )
            )


def classifier(home: Path, options: argparse.Namespace) -> None:
    x, y, held_back, held_back_y = samples(options.mnist, SEARCH)
    for split, images, labels in (("part", x, y), ("validation", held_back, held_back_y)):
        source = array_source(images, labels)
        ingest(source, home / f"{split}.zarr", scale=255.0, chunk_rows=options.chunk_rows)
    test = SampleStore.open(home / "test.zarr")
    print_head(
        f"MNIST 784-256-256-10 after {options.classifier_seconds:g} CPU s, {len(x):,} images to train on",
        ("schedule", "penalty", "sweeps", "test accuracy", "validation", "training loss", "gap", "residual"),
    )
    for schedule in options.schedules:
        for penalty in ("l2", "multipliers"):
            training = {"schedule": schedule, "max_cpu_seconds": options.classifier_seconds}
            pipeline = settings(home, CLASSIFIER, {"penalty": penalty}, training, held_out="validation")
            data = pipeline.data.model_copy(update={"train": str(home / "part.zarr")})
            records, accuracy = train(pipeline.model_copy(update={"data": data}), test=test)
            last, best = records[-1], max(record.validation_accuracy for record in records)
            print_row(
                (
                    schedule,
                    penalty,
                    f"{last.sweep:.1f}",
                    f"{accuracy:.2%}",
                    f"{best:.2%}",
                    f"{last.nested_loss:.4f}",
                    f"{gap(last):+.1%}",
                    f"{worst(last):.1e}",
                )
            )


WAYS = ("l2", False), ("l1", False), ("multipliers", False), ("multipliers", True)


def cost(home: Path, options: argparse.Namespace) -> None:
    print_head(
        f"An incremental sweep over MNIST, chunks of {options.chunk_rows}",
        (
            "network",
            "penalty",
            "CPU s",
            "ratio",
            "MB read",
            "ratio",
            "MB written",
            "ratio",
            "planned",
            "ratio",
        ),
    )
    for name, network in (("784-300-784", AUTOENCODER), ("784-256-256-10", CLASSIFIER)):
        found: dict[str, list[list[float]]] = {}
        planned = {}
        # twice in turn, as other jobs come and go
        for penalty, balancing in WAYS * 2:
            training = {"schedule": "incremental", "max_sweeps": options.sweeps, "evaluation_rows": 1}
            solver = {"penalty": penalty, "balancing": balancing}
            pipeline = settings(home, network, solver, training)
            records = train(pipeline)[0][1:]  # the first sweep has no multipliers yet
            if balancing:
                penalty = f"{penalty}, balanced"
            for before, after in pairwise(records):
                each = [
                    after.cpu_seconds - before.cpu_seconds,
                    after.read - before.read,
                    after.written - before.written,
                ]
                found.setdefault(penalty, []).append(each)
            projection = make_plan(pipeline, None, planned_resources(pipeline.cluster)).projection
            planned[penalty] = projection.sweep_read + projection.sweep_written
        unit = [median(values) for values in zip(*found["l2"], strict=True)]
        for penalty, sweeps in found.items():
            row: list[str] = [name, penalty]
            middle = [median(values) for values in zip(*sweeps, strict=True)]
            for scale, value, one in zip((1, 1e6, 1e6), middle, unit, strict=True):
                row += [
                    f"{value / scale:.2f}" if scale == 1 else f"{value / scale:.0f}",
                    f"{value / one:.2f}",
                ]
            print_row([*row, f"{planned[penalty] / 1e6:.0f}", f"{planned[penalty] / planned['l2']:.2f}"])


def exactness(home: Path, options: argparse.Namespace) -> None:
    print_head(
        f"Digits 64-16-64, up to {options.exact_sweeps:g} incremental sweeps",
        (
            "penalty",
            "μ",
            "sweeps",
            "relative residuals",
            "zero residuals",
            "gap",
            "nested loss",
            "held-out loss",
        ),
    )
    curves: dict[str, list[tuple[float, float]]] = {}
    for penalty in ("l2", "l1"):
        for mu in EXACT_MU:
            training = {
                "schedule": "incremental",
                "max_sweeps": options.exact_sweeps,
                "evaluation_rows": 10**6,
            }
            # beyond that ρ has grown so far that rounding decides which residuals are zero
            solver = {"penalty": penalty, "mu": mu, "ridge": options.exact_ridge, "residual_tol": 1e-6}
            last = train(settings(home, SMALL, solver, training, held_out="test"))[0][-1]
            curves.setdefault(penalty, []).append((worst(last), gap(last)))
            zeros = ", ".join(f"{share:.1%}" for share in last.zero_residuals or []) or "–"
            residuals = ", ".join(f"{r:.1e}" for r in last.relative_residuals)
            print_row(
                (
                    penalty,
                    mu,
                    f"{last.sweep:.0f}",
                    residuals,
                    zeros,
                    f"{gap(last):+.2%}",
                    f"{last.nested_loss:.4f}",
                    f"{last.validation_loss:.4f}",
                )
            )
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = ("largest relative residual of a layer", "|relaxed / nested loss − 1|")
    for place, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        for (penalty, points), colour in zip(curves.items(), ("#0072b2", "#d55e00"), strict=True):
            panel.loglog(EXACT_MU, np.abs(points)[:, place], "o-", color=colour, label=penalty.upper())
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("μ")
        panel.grid(axis="y", alpha=0.4)
    panels[0].legend(frameon=False)
    figure.savefig(options.picture, dpi=150)
    print(f"\n{options.picture}")


PARTS = {"constraints": constraints, "classifier": classifier, "cost": cost, "exactness": exactness}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path, nargs="?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--schedules", nargs="+", default=["windows", "incremental"])
    parser.add_argument("--chunk-rows", type=int, default=2500)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--classifier-seconds", type=float, default=60.0)
    parser.add_argument("--sweeps", type=float, default=3.0)
    parser.add_argument("--exact-sweeps", type=float, default=200.0)
    parser.add_argument("--exact-ridge", type=float, default=0.005)
    parser.add_argument("--picture", type=Path, default=Path(__file__).parent / "results" / "penalties.png")
    add_options(parser)
    options = parser.parse_args()
    if options.mnist is None and set(options.parts) != {"exactness"}:
        parser.error("name MNIST.npz, or --parts exactness")
    print(line(opening(options=options)))
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            source, scale, rows = (str(options.mnist), 255.0, options.chunk_rows)
            if part == "exactness":
                source, scale, rows = "digits", 16.0, 400
            for split in ("train", "test"):
                ingest(open_source(f"{source}:{split}"), home / f"{split}.zarr", scale=scale, chunk_rows=rows)
            PARTS[part](home, options)


if __name__ == "__main__":
    main()
