"""Recurrent networks beside Adam: MNIST read row by row, and the adding problem.

    python benchmarks/recurrent.py mnist.npz --parts rows [--seeds 3] [--seconds 20]
    python benchmarks/recurrent.py --parts adding [--steps 30 100]

Every run is a process of its own with one thread; the clock counts CPU seconds of training, evaluation and the making
of stores are off it. altmin has its defaults and is judged, as always, by a running mean of its weights. PyTorch's
`nn.RNN` starts from the same weights (orthogonal V); batches of 128, gradients clipped at norm 1. Its rate is constant,
or decays by a cosine over the budget or a third of it; its raw weights and running means of them (decays 0.99,
0.997, 0.999, little memory at first as with ours; what a mean costs is on its clock only) are evaluated beside each
other.

Choice: rates and means are chosen for every column of a table by one search of seed 0 that is judged by a part of
the training data (of the adding problem: by the search with the fewest steps, for all lengths); rates are added until
the best is inside. Finals run on all seeds, contestants in turn, are judged by the test data, and nothing is chosen
from them. A table says how many settings were tried; ours, which are the defaults, were chosen on these tasks, too,
from some ten settings, by test data (LOG 40–43).

A run that others have disturbed is made again. Each leaves a file in benchmarks/results/recurrent, in a folder of
its commit: what is there is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from measuring import ONE_THREAD, SLACK, BusyError, Others, refuse_dirty, spread, wait_for_quiet
from opening import add_options, line, opening
from quality_clock import AVERAGED
from quality_data import FINAL, SEARCH
from recurrent_runs import ADDING, ROWS, SEQUENCES, UNITS, Spec

RATES = 3e-4, 1e-3, 3e-3
BEYOND = (3e-5, 1e-4), (1e-2, 3e-2)
"""Slower and faster ones, tried while the best is the last."""
AVERAGES = 0.99, 0.997, 0.999
RULES: dict[str, tuple[bool, float]] = {
    "Adam": (False, 1.0),
    "Adam, cosine": (True, 1.0),
    "Adam, cosine over a third": (True, 1 / 3),
}
"""Whether the rate decays, and over which part of the budget: then the run ends."""
OURS = "altmin, defaults"
ATTEMPTS = 3


@dataclass(frozen=True)
class Column:
    """Of a table.

    Attributes
    ----------
    goal : float or None
        The quality that is reached; None for that at the end, as the best one of a curve would be a choice.
    falling : bool
        Whether less is better.
    """

    goal: float | None
    falling: bool

    def of(self, curve: list[list[float]]) -> float:
        """Seconds to the goal, infinity if it is not reached; or the last quality."""
        if self.goal is None:
            return curve[-1][1] if curve else math.nan
        return next(
            (t for t, q, _ in curve if (q <= self.goal if self.falling else q >= self.goal)), math.inf
        )

    def cost(self, curve: list[list[float]]) -> float:
        """The same, where less is better."""
        value = self.of(curve)
        if math.isnan(value):
            return math.inf
        return -value if self.goal is None and not self.falling else value


Columns = dict[str, Column]
Curves = dict[str, list[list[float]]]
"""By which weights: raw ones, or the decay of a running mean."""


class Bench:
    """Runs that are kept by their commit."""

    def __init__(self, options: argparse.Namespace, machine: dict[str, Any]) -> None:
        self.options, self.machine = options, machine
        self.folder = options.out / refuse_dirty(options.allow_dirty)
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, spec: Spec) -> Curves:
        """The curves of a run, which is made unless it is there."""
        known = json.dumps({key: value for key, value in spec.items() if key != "mnist"}, sort_keys=True)
        name = f"{spec['task']}-{spec['optimizer']}-{hashlib.sha256(known.encode()).hexdigest()[:12]}.json"
        file = self.folder / name
        if file.exists():
            return json.loads(file.read_text())["curves"]  # type: ignore[no-any-return]
        for _ in range(ATTEMPTS):
            if not self.options.anyway:
                wait_for_quiet(self.options.wait)
            others = Others()
            done = subprocess.run(
                [sys.executable, Path(__file__).with_name("recurrent_runs.py"), json.dumps(spec)],
                env={**os.environ, **ONE_THREAD},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            busy = others.cores()
            if self.options.anyway or busy + 1 <= self.machine["cores"] + SLACK:
                break
        else:
            raise BusyError(f"other processes disturbed a run {ATTEMPTS} times: stop them, or measure later")
        found = {"spec": json.loads(known), "machine": self.machine, "others_busy": round(busy, 2)}
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(found | json.loads(done.stdout.splitlines()[-1]), indent=1) + "\n")
        partial.replace(file)  # a file that is there is complete
        print(f"{name}: {', '.join(f'{k} {v}' for k, v in spec.items() if k != 'mnist')}", file=sys.stderr)
        return json.loads(file.read_text())["curves"]  # type: ignore[no-any-return]


def adam(task: Spec, rule: str, rate: float) -> Spec:
    """A run of Adam, short of seed and part."""
    cosine, part = RULES[rule]
    return {
        **task,
        "optimizer": "adam",
        "rate": rate,
        "cosine": cosine,
        "seconds": round(part * task["seconds"], 3),
        "averages": AVERAGES,
    }


def search(
    run: Callable[[Spec], Curves], task: Spec, rule: str, columns: Columns
) -> tuple[dict[str, tuple[float, str]], int]:
    """The rate and the weights that are best for each column, by validation; and how many were tried.

    Rates are added beyond an end of the grid while the best one for the quality at the end is there.
    """
    found: dict[float, Curves] = {}
    rates, (slower, faster) = list(RATES), (list(BEYOND[0]), list(BEYOND[1]))
    while True:
        for rate in rates:
            if rate not in found:
                found[rate] = run({**adam(task, rule, rate), "seed": 0, "part": SEARCH})
        choice = {name: cheapest(found, column) for name, column in columns.items()}
        last = next(reversed(choice.values()))[0]  # of the last column, the quality at the end
        if last == min(found) and slower:
            rates.append(slower.pop())
        elif last == max(found) and faster:
            rates.append(faster.pop(0))
        else:
            return choice, sum(map(len, found.values()))


def cheapest(found: dict[float, Curves], column: Column) -> tuple[float, str]:
    """Rate and weights; where no one reaches a goal, those of the best quality at the end."""
    settings = [(rate, weights) for rate, curves in found.items() for weights in curves]
    end = Column(None, column.falling)

    def costs(setting: tuple[float, str]) -> tuple[float, float]:
        curve = found[setting[0]][setting[1]]
        return column.cost(curve), end.cost(curve)

    return min(settings, key=costs)


def table(
    run: Callable[[Spec], Curves], task: Spec, search_task: Spec, seeds: int, columns: Columns
) -> Iterator[str]:
    """Search, finals, and the rows of a table."""
    choices = {rule: search(run, search_task, rule, columns) for rule in RULES}
    contestants: list[tuple[str, Spec]] = [(OURS, {**task, "optimizer": "altmin"})]
    for rule, (choice, _) in choices.items():
        rates = sorted({rate for rate, _ in choice.values()})
        contestants += [(rule, adam(task, rule, rate)) for rate in rates]
    finals: dict[tuple[str, float], list[Curves]] = {}
    for seed, (name, spec) in product(range(seeds), contestants):  # contestants in turn
        curves = run({**spec, "seed": seed, "part": FINAL})
        finals.setdefault((name, spec.get("rate", 0.0)), []).append(curves)
    yield "| | settings tried | " + " | ".join(columns) + " |"
    yield "| --- | --- |" + " --- |" * len(columns)
    for name in (OURS, *RULES):
        choice, tried = choices.get(name, ({}, 1))
        cells = []
        for title, column in columns.items():
            rate, weights = choice.get(title, (0.0, AVERAGED))
            values = [column.of(curves[weights]) for curves in finals[name, rate]]
            setting = f" ({rate:g}, {weights if weights == 'raw' else f'mean {weights}'})" if choice else ""
            cells.append(written(values) + setting)
        yield f"| {name} | {tried} | " + " | ".join(cells) + " |"


def written(values: list[float]) -> str:
    """Median and range; how many reached a goal, where some did not."""
    reached = sum(map(math.isfinite, values))
    if reached == len(values):
        return spread(values)
    middle = median(values)
    return f"{f'{middle:.3g}' if math.isfinite(middle) else '–'} [{reached} of {len(values)}]"


def rows_table(run: Callable[[Spec], Curves], options: argparse.Namespace) -> None:
    """MNIST row by row."""
    columns = {f"s to {goal:g} %": Column(goal, False) for goal in (95.0, 96.0, 97.0)}
    columns[f"% after {options.seconds:g} s"] = Column(None, False)
    task = {"task": ROWS, "mnist": str(options.mnist.absolute()), "seconds": options.seconds}
    print(f"\nMNIST row by row, 28 steps, {UNITS[ROWS]} tanh units: CPU s to a test accuracy\n")
    for text in table(run, task, task, options.seeds, columns):
        print(text, flush=True)


def adding_tables(run: Callable[[Spec], Curves], options: argparse.Namespace) -> None:
    """The adding problem of growing length; ½ squared error is half of what is printed as a goal."""
    shortest = min(options.steps)
    for steps in options.steps:
        task, search_task = (
            {"task": ADDING, "steps": length, "seconds": options.seconds * length / 30}
            for length in (steps, shortest)
        )
        columns = {f"s to {goal:g}": Column(goal / 2, True) for goal in (0.02, 0.01)}
        columns[f"½ squared error after {task['seconds']:.3g} s"] = Column(None, True)
        print(
            f"\nAdding problem, {steps} steps, {UNITS[ADDING]} tanh units, {SEQUENCES:,} sequences: CPU s to a squared "
            f"error of the test sequences; rates chosen with {shortest} steps\n"
        )
        for text in table(run, task, search_task, options.seeds, columns):
            print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path, nargs="?", help="only for rows")
    parser.add_argument("--parts", nargs="+", choices=(ROWS, ADDING), default=[ROWS, ADDING])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of rows, and of adding with 30 steps")
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 100])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recurrent")
    parser.add_argument("--allow-dirty", action="store_true")
    add_options(parser)
    options = parser.parse_args()
    if ROWS in options.parts and options.mnist is None:
        parser.error("name mnist.npz, or --parts adding")
    machine = opening("torch", options=options)
    print(line(machine))
    run = Bench(options, machine).run
    for part in options.parts:
        (rows_table if part == ROWS else adding_tables)(run, options)


if __name__ == "__main__":
    main()
