"""CPU seconds to a given held-out quality: altmin, by default and tuned, against PyTorch and scikit-learn.

On equal terms: every contestant trains from the same initial weights, random and whitened, whose making is on its
clock, and each run gives two curves, of its weights and of a running mean of them (`quality_clock.py`). Settings are
chosen on 10,000 digits kept back from the training samples (`quality_search.py`); then all 60,000 are trained on, and
the test digits only measure. Nothing is chosen by them, and of a curve only the first crossing of a threshold and the
quality at given moments count, never its best point. What ours are recorded with as validation samples in the finals
are the test digits, too: they decide which model is kept, which nobody looks at, and when to stop, which is switched
off; a test holds that they change no bit of the weights.

    python benchmarks/time_to_quality.py mnist.npz --task autoencoder --seeds 3 --jobs 2 [--plan]
    python benchmarks/time_to_quality.py mnist.npz --task classifier --contestants altmin,adam,adam-cosine-6
    python benchmarks/time_to_quality.py mnist.npz --task deep --table-only [--commit 0123abcd45]

Runs of the search share a process, each of the finals has one; all have one thread. They are kept, a line each, in
FOLDER/COMMIT/TASK.jsonl, and none is repeated. FOLDER/TASK.md and .png are made of one commit's runs. Nothing is
measured while others keep so many cores busy that there are not enough for the runs (`measuring.py`). `--plan` says
what it would take. Needs `pip install -e '.[bench]'`, and MNIST as one file with x_train, y_train, x_test, y_test.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measuring import ONE_THREAD, SLACK, BusyError, Others, machine, refuse_dirty, wait_for_quiet
from quality_data import FINAL, SEARCH, Spec, make_stores
from quality_figure import figure
from quality_plan import pretended, process_seconds
from quality_report import table
from quality_search import Choice, Final, Result, choose, finals, key_of
from quality_tasks import STARTS, TASKS, Contestant, contestants_of

HERE = Path(__file__).parent
PROCESS_SECONDS = 30.0
"""About how much of a search one process does."""
REPEATS = 2
"""How often a final that others disturbed is run, at most."""


class Runs:
    """The runs of a task and commit: those that are in the file, and those that are carried out and added to it."""

    def __init__(self, file: Path, mnist: Path, stores: Path, jobs: int, wait: float) -> None:
        self.file, self.mnist, self.stores, self.jobs, self.wait = file, mnist, stores, jobs, wait
        self.lock = threading.Lock()
        self.failures: list[str] = []
        self.done = {key_of(r["spec"]): r for r in read_lines(file) if "spec" in r}

    def add(self, line: dict[str, Any]) -> None:
        """Write a line; it is there as a whole, or is no line."""
        with self.lock, self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def search(self, specs: Sequence[Spec]) -> list[Result]:
        """Runs of a search, some in a process; results in the same order."""
        missing = [spec for spec in specs if key_of(spec) not in self.done]
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(self.carry_out, batches(missing, self.jobs)))
        return [self.done.get(key_of(s), {"spec": s, "status": "failed", "curves": {}}) for s in specs]

    def finish(self, some: Sequence[Final]) -> None:
        """Runs of the finals, in this order, each in a process of its own."""
        missing = [final for final in some if key_of(final.spec) not in self.done]
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(lambda final: self.carry_out([final.spec], row_of(final)), missing))

    def carry_out(self, specs: Sequence[Spec], row: dict[str, Any] | None = None) -> None:
        """Run some in one process; what is disturbed by others once more, if it is a final."""
        for attempt in range(REPEATS):
            wait_for_quiet(self.wait, 0.5, self.jobs)
            before, others = os.getloadavg()[0], Others()
            asked = {"mnist": str(self.mnist), "stores": str(self.stores), "specs": specs}
            process = subprocess.run(
                [sys.executable, str(HERE / "contestants.py"), json.dumps(asked)],
                env={**os.environ, **ONE_THREAD},
                capture_output=True,
                text=True,
                check=False,
            )
            busy, load = round(others.cores(), 2), [before, os.getloadavg()[0]]
            disturbed = busy + self.jobs > (os.cpu_count() or 1) + SLACK
            if row is None or not disturbed or attempt == REPEATS - 1:
                break
        about = {"load": load, "others": busy, "disturbed": disturbed, **({"row": row} if row else {})}
        for line in process.stdout.splitlines():
            result = {**json.loads(line), **about}
            self.add(result)
            self.done[key_of(result["spec"])] = result
            print(said_of(result), flush=True)
        if process.returncode:
            failed = [spec for spec in specs if key_of(spec) not in self.done]
            problem = f"{len(failed)} runs failed, such as {failed[0]}:\n{process.stderr[-2000:]}"
            print(problem, file=sys.stderr, flush=True)
            self.failures.append(problem)


def batches(specs: Sequence[Spec], jobs: int) -> Iterator[list[Spec]]:
    """In this order, as many in one as take about `PROCESS_SECONDS`, but something for each job."""
    limit = min(PROCESS_SECONDS, sum(spec["seconds"] for spec in specs) / jobs)
    some: list[Spec] = []
    for spec in specs:
        if some and sum(s["seconds"] for s in some) + spec["seconds"] > limit:
            yield some
            some = []
        some.append(spec)
    if some:
        yield some


def row_of(final: Final) -> dict[str, Any]:
    """What the table has to know of a final besides its run."""
    choice = final.choice
    cost = choice.cost if choice.cost < float("inf") else None
    return {"contestant": final.contestant, "tried": choice.tried, "inside": choice.inside, "validated": cost}


def said_of(result: Result) -> str:
    """A line about a run."""
    spec = result["spec"]
    ends = ", ".join(f"{name} {curve[-1][1]:.4g}" for name, curve in result["curves"].items() if curve)
    setting = " ".join(f"{name} {value}" for name, value in spec["setting"].items())
    return (
        f"{spec['part']}: {spec['optimizer']}{' cosine' if spec['cosine'] else ''} {spec['start']} {setting} "
        f"{spec['seconds']:g} s seed {spec['seed']}: {ends or 'nothing'}, {result['status']}"
    )


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Those that are whole."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def plan(options: argparse.Namespace) -> tuple[str, float]:
    """What the runs will take, in a sentence and in CPU minutes, if searches go as searches usually go."""
    asked: dict[str, Spec] = {}

    def pretend(specs: Sequence[Spec]) -> list[Result]:
        asked.update((key_of(spec), spec) for spec in specs)
        return [pretended(spec) for spec in specs]

    choices = choose(options.task, options.contestants, options.starts, pretend)
    last = [final.spec for final in finals_of(options, choices)]
    search, final = (sum(map(process_seconds, specs)) / 60 for specs in (asked.values(), last))
    return (
        f"{options.task}: this will take about {search + final:.0f} CPU minutes, {search:.0f} of them for about "
        f"{len(asked)} runs of the search and {final:.0f} for {len(last)} of the finals: "
        f"{(search + final) / options.jobs:.0f} minutes on the clock, {options.jobs} at a time"
    ), search + final


def finals_of(options: argparse.Namespace, choices: dict[tuple[str, str], Choice]) -> list[Final]:
    """The runs of the finals."""
    return finals(
        options.task, options.contestants, choices, options.seeds, options.other_seeds, options.seconds
    )


def measure(options: argparse.Namespace, folder: Path) -> list[str]:
    """All runs; what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stores-") as home:
        stores = Path(home)
        for contestant in options.contestants:
            rows = {s.get("chunk_rows") for s in contestant.begin if contestant.optimizer == "altmin"} | {
                None
            }
            for part in (SEARCH, FINAL):
                for chunk_rows in rows:
                    make_stores(options.mnist, stores, part, chunk_rows)
        runs = Runs(folder / f"{options.task}.jsonl", options.mnist, stores, options.jobs, options.wait)
        runs.add({"machine": machine("torch", "sklearn"), "jobs": options.jobs})
        try:
            choices = choose(options.task, options.contestants, options.starts, runs.search)
            runs.finish(finals_of(options, choices))
        except BusyError as error:
            raise SystemExit(
                f"{error}; what has been measured is kept, and the same command goes on"
            ) from None
    return runs.failures


def report(options: argparse.Namespace, file: Path) -> str:
    """Write the table and the figure of a commit's runs; the table."""
    lines = read_lines(file)
    if not any("row" in line for line in lines):
        raise SystemExit(
            f"there are no finals of {options.task} in {file}; measure first, or name a --commit"
        )
    text = table(options.task, file.parent.name, lines)
    (options.out / f"{options.task}.md").write_text(text, encoding="utf-8")
    figure(options.task, lines, options.out / f"{options.task}.png")
    return text


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path, metavar="MNIST.npz")
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--seconds", type=float, help="budget of a run, CPU seconds of training")
    parser.add_argument("--seeds", type=int, default=1, help="of the finals from altmin's default start")
    parser.add_argument("--other-seeds", type=int, default=1, help="from the other start")
    parser.add_argument("--starts", default=",".join(STARTS), help="initial weights; by default all")
    parser.add_argument(
        "--horizons", help="CPU seconds of cosine decays, for example 10,25; by default the task's"
    )
    parser.add_argument("--rungs", help="CPU seconds of the search's rounds, rising; by default the task's")
    parser.add_argument("--contestants", help="by default all that apply")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--minutes", type=float, help="CPU minutes that it may take, as planned")
    parser.add_argument("--wait", type=float, default=300.0, metavar="S", help="for a busy machine, at most")
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="FOLDER")
    parser.add_argument("--plan", action="store_true", help="only say what it would take")
    parser.add_argument("--table-only", action="store_true", help="of the runs that are there")
    parser.add_argument("--commit", help="whose runs --table-only takes; by default this one's")
    parser.add_argument("--allow-dirty", action="store_true", help="measure source that is in no commit")
    options = parser.parse_args(arguments)
    task = TASKS[options.task]
    options.seconds = options.seconds or task.seconds
    options.horizons = [float(h) for h in options.horizons.split(",")] if options.horizons else task.horizons
    rungs = tuple(float(s) for s in options.rungs.split(",")) if options.rungs else task.rungs
    known = contestants_of(options.task, options.seconds, options.horizons, rungs)
    options.contestants = _chosen(parser, options.contestants, known)
    options.starts = options.starts.split(",")
    if unknown := set(options.starts) - set(STARTS):
        parser.error(f"no start {', '.join(sorted(unknown))}; there are {', '.join(STARTS)}")
    if not 1 <= options.jobs <= (os.cpu_count() or 1):
        parser.error(f"--jobs {options.jobs}: there are {os.cpu_count()} cores")
    if options.commit and not options.table_only:
        parser.error(
            "--commit names the runs that --table-only takes; what is measured is the commit checked out"
        )
    options.mnist, options.out = options.mnist.absolute(), options.out.absolute()
    return options


def _chosen(
    parser: argparse.ArgumentParser, asked: str | None, known: Sequence[Contestant]
) -> tuple[Contestant, ...]:
    """Those asked for, and those where their searches begin."""
    by_name = {contestant.name: contestant for contestant in known}
    names = set(asked.split(",")) if asked else set(by_name)
    if unknown := names - set(by_name):
        parser.error(f"no contestant {', '.join(sorted(unknown))}; there are {', '.join(by_name)}")
    for contestant in reversed(known):
        if contestant.name in names and contestant.after and contestant.after not in names:
            print(f"{contestant.after} too, where {contestant.name} begins", file=sys.stderr)
            names.add(contestant.after)
    return tuple(contestant for contestant in known if contestant.name in names)


def main() -> None:
    options = parse()
    failures: list[str] = []
    if options.table_only:
        folder = options.out / (options.commit or refuse_dirty(options.allow_dirty))
    else:
        said, minutes = plan(options)
        print(said, flush=True)
        if options.plan:
            return
        if options.minutes is not None and minutes > options.minutes:
            raise SystemExit(
                f"that is more than --minutes {options.minutes:g}; take fewer --seeds, --seconds, --horizons, "
                "--starts or --contestants"
            )
        folder = options.out / refuse_dirty(options.allow_dirty)
        failures = measure(options, folder)
    print(report(options, folder / f"{options.task}.jsonl"))
    if failures:
        raise SystemExit(f"{len(failures)} runs failed")


if __name__ == "__main__":
    main()
