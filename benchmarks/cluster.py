"""Wall seconds to a given held-out quality on both cores of a machine: altmin by default, and data-parallel Adam.

    python benchmarks/cluster.py mnist.npz [--tasks autoencoder,wide] [--rounds 3] [--plan]
    python benchmarks/cluster.py mnist.npz --tasks table --contestants workers-1,workers-2 --rounds 5
    python benchmarks/cluster.py mnist.npz --table-only

`threads-N` and `workers-N` are `altmin train` on N threads of a process, and on a local cluster of N workers, all by
default but when it stops (`cluster_ours.py`). `ddp-N-B` is PyTorch on N processes with batches of B rows each
(`cluster_ddp.py`), from the same zarr store and the same initial weights, whose making is on its clock. Of three rates,
and of the weights and their running means of some decays, those that take the fewest seconds to the middle threshold,
or come nearest, are chosen in a short search on seed 0, which takes no part afterwards; * marks the end of the rates.

Contestants take turns, each run in a process of its own, and tables have medians [range] of the rounds' seeds. Clocks
are of training: evaluation, loading and the start of processes are off. When a threshold is met is interpolated between
two evaluations; those of both sides are a tenth of the time apart, or ours as seldom as it records. Held out are 10,000
of MNIST's training digits, and 20,000 rows of the table that no other has; test digits are not looked at. Beside it are
CPU seconds of all processes to the hardest threshold that all rounds met, seconds until training begins, the share of
the whole wall time that is off the clock, and the share of training's wall time for which workers are idle.

Results are kept in --out as tasks are done; a task that is measured again replaces its own. Nothing is measured beside
others (`measuring.py`), unless --anyway. Needs `pip install -e '.[bench]'`, and MNIST with x_train, y_train, …
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cluster_ours import TASKS, start_of, stores_of, train_ours
from measuring import ONE_THREAD, Others, refuse_dirty, spread, wait_for_quiet
from opening import add_options, line, opening
from quality_clock import RAW, crossing, evaluation_moments, rounded, thinned

HERE = Path(__file__).parent
KINDS = {"threads": "threads", "workers": "local"}
OURS = {f"{word}-{count}": (kind, count) for word, kind in KINDS.items() for count in (1, 2)}
DDP = {f"ddp-{count}-{batch}": (count, batch) for count in (1, 2) for batch in (128, 512)}
CONTESTANTS = (*OURS, *DDP)
AVERAGES = 0.98, 0.99, 0.999
"""Decays of the running means that the search tries."""
SEARCH_SHARE = 3
"""A run of the search has a budget of one in so many seconds of a run's."""
AROUND_SECONDS = 12.0
"""What a run takes beside its training: the start of processes, evaluation, the end."""
RATIOS = (
    ("2 threads : 1 thread", ("threads-1",), "threads-2"),
    ("2 workers : 1 worker", ("workers-1",), "workers-2"),
    ("1 thread : DDP on 1", ("ddp-1-128", "ddp-1-512"), "threads-1"),
    ("1 worker : DDP on 1", ("ddp-1-128", "ddp-1-512"), "workers-1"),
    ("2 threads : DDP on 2", ("ddp-2-128", "ddp-2-512"), "threads-2"),
    ("2 workers : DDP on 2", ("ddp-2-128", "ddp-2-512"), "workers-2"),
)
"""What is how many times as fast as the fastest of some others."""

Entry = dict[str, Any]
"""All of a task: machine, seconds (the budget), choices, runs."""


class Bench:
    """A task's stores, and its runs one after the other."""

    def __init__(self, name: str, options: argparse.Namespace, home: Path) -> None:
        self.name, self.options, self.home, self.task = name, options, home, TASKS[name]
        self.seconds: float = options.seconds or self.task.seconds
        self.stores = stores_of(name, options.mnist, home)

    def entry(self, machine: dict[str, Any]) -> Entry:
        """Search and rounds."""
        entry: Entry = {
            "machine": machine,
            "seconds": self.seconds,
            "choices": {},
            "runs": [],
            "failures": [],
        }
        names = self.options.contestants
        for contestant in (name for name in names if name in DDP):
            entry["choices"][contestant] = self.choice(contestant)
        for seed in range(1, self.options.rounds + 1):
            for contestant in names:
                found = self.one(contestant, seed, entry["choices"])
                entry["runs" if "curve" in found else "failures"].append(found)
        return entry

    def choice(self, contestant: str) -> dict[str, Any]:
        """The best rate, and which weights, by the seconds to the middle threshold, or how near it they came."""
        found = []
        for rate in self.task.rates:
            result = self.torch(contestant, 0, rate, AVERAGES, self.seconds / SEARCH_SHARE)
            for name, curve in result["curves"].items():
                nearest = min(point[1] for point in curve)
                found.append((crossing(curve, self.task.middle()), nearest, rate, name))
        seconds, nearest, rate, name = min(found)
        print(f"{self.name}: {contestant} takes rate {rate:g}, weights {name}", file=sys.stderr, flush=True)
        return {
            "rate": rate,
            "weights": name,
            "seconds": seconds if math.isfinite(seconds) else None,
            "nearest": nearest,
            "at_an_end": rate in (self.task.rates[0], self.task.rates[-1]),
        }

    def one(self, contestant: str, seed: int, choices: dict[str, Any]) -> dict[str, Any]:
        """A run of a round; what went wrong is said, and is a part of the result."""
        about: dict[str, Any] = {"contestant": contestant, "seed": seed}
        try:
            if contestant in DDP:
                choice = choices[contestant]
                averages = () if choice["weights"] == RAW else (float(choice["weights"]),)
                result = self.torch(contestant, seed, choice["rate"], averages, self.seconds)
                result["curve"] = result.pop("curves")[choice["weights"]]
            else:
                result = self.ours(contestant, seed)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"{self.name}: {contestant}, seed {seed}: {error}", file=sys.stderr, flush=True)
            return {**about, "error": str(error)}
        first, *others = result["curve"]
        # ours is judged at no more moments than the others
        result["curve"] = rounded([first, *thinned(others, evaluation_moments(0.1, 24))])
        end = result["curve"][-1]
        said = f"{self.name}: {contestant}, seed {seed}: {end[1]:.4g} after {end[0]:.1f} s"
        print(said, file=sys.stderr, flush=True)
        return {**about, **result}

    def ours(self, contestant: str, seed: int) -> dict[str, Any]:
        """A run of altmin's."""
        others = self.quiet()
        with tempfile.TemporaryDirectory(dir=self.home, prefix="run-") as folder:
            found = train_ours(self.name, *OURS[contestant], seed, self.seconds, self.stores, Path(folder))
        return {**found, "others": round(others.cores(), 2)}

    def torch(
        self, contestant: str, seed: int, rate: float, averages: Sequence[float], seconds: float
    ) -> dict[str, Any]:
        """A run of PyTorch's."""
        processes, batch = DDP[contestant]
        start = str(start_of(self.name, self.stores, seed, self.home))
        spec = {"task": self.name, "processes": processes, "batch": batch, "rate": rate, "seed": seed}
        spec |= {"averages": averages, "seconds": seconds, "stores": self.stores, "start": start}
        others = self.quiet()
        done = subprocess.run(
            [sys.executable, str(HERE / "cluster_ddp.py"), json.dumps(spec)],
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            check=False,
            timeout=20 * seconds + 300,
        )
        if done.returncode:
            raise RuntimeError(f"cluster_ddp.py ended with {done.returncode}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**found, "others": round(others.cores(), 2)}

    def quiet(self) -> Others:
        """Not beside others, unless that was asked for."""
        if not self.options.anyway:
            wait_for_quiet(self.options.wait, wanted=os.cpu_count() or 1)
        return Others()


def times(entry: Entry, contestant: str, threshold: float, column: int = 0) -> list[float]:
    """Of all rounds."""
    runs = (run for run in entry["runs"] if run["contestant"] == contestant)
    return [crossing(run["curve"], threshold, column) for run in runs]


def table(name: str, entry: Entry) -> str:
    """What was found of a task, as Markdown."""
    thresholds, budget = TASKS[name].thresholds, entry["seconds"]
    measured = [each for each in CONTESTANTS if times(entry, each, 0.0)]

    def seconds(value: float) -> str:
        return f"{value:.3g}" if math.isfinite(value) else f">{budget:g}"

    unit = " %" if TASKS[name].percent else ""
    head = [
        name,
        *(f"to {t:g}{unit}" for t in thresholds),
        "CPU s",
        "end",
        "starts after",
        "off clock",
        "idle",
    ]
    rows = [head, ["---"] * len(head)]
    for each in measured:
        runs = [run for run in entry["runs"] if run["contestant"] == each]
        met = [t for t in thresholds if max(times(entry, each, t)) < math.inf]
        choice = entry["choices"].get(each)
        told = f", rate {choice['rate']:g}{'*' * choice['at_an_end']}, {choice['weights']}" if choice else ""
        keys = "start_seconds", "off_clock_share", "idle_share"
        started, off, idle = ([run[key] for run in runs if key in run] for key in keys)
        rows.append(
            [
                f"{each}{told}",
                *(spread(times(entry, each, t), seconds) for t in thresholds),
                spread(times(entry, each, met[-1] if met else thresholds[0], 3), seconds),
                spread([run["curve"][-1][1] for run in runs]),
                f"{median(started):.1f} s" if started else "",
                f"{median(off):.0%}" if off else "",
                f"{median(idle):.0%}" if idle else "",
            ]
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    rows = [["times as fast", *head[1 : 1 + len(thresholds)]], ["---"] * (1 + len(thresholds))]
    for words, slow, fast in RATIOS:
        if fast in measured and (others := [each for each in slow if each in measured]):
            rows.append([words, *(ratio(entry, others, fast, t) for t in thresholds)])
    return "\n".join([*lines, "", *("| " + " | ".join(row) + " |" for row in rows)])


def ratio(entry: Entry, others: Sequence[str], fast: str, threshold: float) -> str:
    """How many times the median of one the best median of others is; bounds where one has not got there."""
    slow = min(median(times(entry, each, threshold)) for each in others)
    own, budget = median(times(entry, fast, threshold)), entry["seconds"]
    if math.isinf(slow) and math.isinf(own):
        return "–"
    sign = ">" if math.isinf(slow) else "<" if math.isinf(own) else ""
    return f"{sign}{min(slow, budget) / min(own, budget):.2f}" if sign else f"{slow / own:.2f}"


def plan(options: argparse.Namespace) -> str:
    """What it takes at most."""
    lines, together = [], 0.0
    for name in options.tasks:
        seconds = options.seconds or TASKS[name].seconds
        searched = sum(each in DDP for each in options.contestants) * len(TASKS[name].rates)
        final = len(options.contestants) * options.rounds
        spent = searched * seconds / SEARCH_SHARE + final * seconds + (searched + final) * AROUND_SECONDS
        lines.append(
            f"{name}: {searched} runs of the search, {final} of the rounds: {spent / 60:.0f} minutes"
        )
        together += spent
    end = "at most; a run ends where the last threshold is met"
    return "\n".join([*lines, f"together {together / 60:.0f} minutes {end}"])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path, metavar="MNIST.npz")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--contestants", default=",".join(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="budget of a run, wall seconds; by default the task's")
    parser.add_argument("--out", type=Path, default=HERE / "results/cluster.json")
    parser.add_argument("--json", action="store_true", help="print what is kept, not tables")
    parser.add_argument("--plan", action="store_true", help="only say what it would take")
    parser.add_argument("--table-only", action="store_true", help="of what is kept")
    parser.add_argument("--allow-dirty", action="store_true", help="measure source that is in no commit")
    add_options(parser)
    options = parser.parse_args(arguments)
    for key, known in (("tasks", tuple(TASKS)), ("contestants", CONTESTANTS)):
        asked = getattr(options, key).split(",")
        if unknown := [name for name in asked if name not in known]:
            parser.error(f"--{key}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
        setattr(options, key, asked)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least one is needed")
    options.mnist = options.mnist.absolute()
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.plan:
        print(plan(options))
        return
    kept: dict[str, Entry] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table_only:
        refuse_dirty(options.allow_dirty)
        machine = opening("torch", options=options, wanted=os.cpu_count() or 1)
        print(line(machine), file=sys.stderr)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.tasks:
        if not options.table_only:
            with tempfile.TemporaryDirectory(prefix="cluster-") as home:
                kept[name] = Bench(name, options, Path(home)).entry(machine)
            options.out.write_text(json.dumps(kept, allow_nan=False) + "\n")
        if name in kept and not options.json:
            print(f"{line(kept[name]['machine'])}\n\n{table(name, kept[name])}\n", flush=True)
    if options.json:
        print(json.dumps({name: kept[name] for name in options.tasks if name in kept}))
    failures = sum(len(kept[name]["failures"]) for name in options.tasks if name in kept)
    if failures:
        raise SystemExit(f"{failures} runs failed")


if __name__ == "__main__":
    main()
