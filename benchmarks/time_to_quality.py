"""CPU seconds to a given held-out quality: altmin, by default and tuned, against PyTorch and scikit-learn.

Every run of a contestant with one setting and one seed is a process of its own with one thread; its curve is
FOLDER/TASK-….json as soon as it is done, and a run whose file is there is not repeated. The table is
FOLDER/TASK.md, the figure FOLDER/TASK.png. `quality_tasks.py` has the tasks and settings, `contestants.py` the training
loops, `quality_report.py` what the numbers mean.

    python benchmarks/time_to_quality.py mnist.npz --task autoencoder --seconds 300 --seeds 3 --screen 0.1
    python benchmarks/time_to_quality.py mnist.npz --task classifier --seconds 60 --contestants altmin,adam
    python benchmarks/time_to_quality.py mnist.npz --task deep --seconds 1800 --table-only

Needs `pip install -e '.[bench]'`, and MNIST as one file with x_train, y_train, x_test, y_test (8 bits).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from contestants import RUNNERS
from quality_report import OURS, best, figure, group_runs, table
from quality_tasks import TASKS, TUNED

from altmin_dask.storage.samples import ingest
from altmin_dask.storage.sources import open_source

HERE = Path(__file__).parent
ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
}
FINALISTS = 2
LBFGS_BATCHES = (10_000, 60_000)

Spec = dict[str, Any]


def pipeline(task: str, contestant: str, stores: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Of one of our runs: the data, the network, limits and the seed, and whatever is tuned."""
    tuned = TUNED[task] if contestant == "altmin-tuned" else {}
    rows = tuned.get("data", {}).get("chunk_rows")
    return {
        "data": {name: str(store_path(stores, split, rows)) for name, split in SPLITS.items()},
        "network": {**TASKS[task].network, **tuned.get("network", {})},
        **({"solver": tuned["solver"]} if "solver" in tuned else {}),
        "training": {
            **tuned.get("training", {}),
            "max_sweeps": 1e6,
            "max_cpu_seconds": float(seconds),
            "seed": seed,
        },
        "cluster": {"kind": "threads", "workers": 1},
    }


SPLITS = {"train": "train", "validation": "test"}


def store_path(stores: Path, split: str, chunk_rows: int | None) -> Path:
    return stores / f"{split}-{chunk_rows or 'default'}.zarr"


def make_stores(mnist: Path, stores: Path, chunk_rows: int | None) -> None:
    """Ingest both splits, if they are not there."""
    for split in SPLITS.values():
        store = store_path(stores, split, chunk_rows)
        if not store.exists():
            ingest(open_source(f"{mnist}:{split}"), store, scale=255.0, chunk_rows=chunk_rows)


def settings_of(contestant: str, options: argparse.Namespace) -> list[dict[str, float]]:
    """What a contestant is tried with."""
    if contestant in OURS:
        return [{}]
    if contestant == "lbfgs":
        return [{"batch": batch} for batch in LBFGS_BATCHES]
    return [{"rate": rate} for rate in options.rates or TASKS[options.task].rates[contestant]]


def make_spec(
    options: argparse.Namespace, contestant: str, setting: dict[str, float], seconds: float, seed: int
) -> Spec:
    """What `contestants.py` runs."""
    spec: Spec = {
        "task": options.task, "contestant": contestant, "setting": setting, "seconds": seconds, "seed": seed,
        "mnist": str(options.mnist.absolute()), "commit": options.commit,
    }  # fmt: skip
    if contestant in OURS:
        spec["pipeline"] = pipeline(options.task, contestant, options.stores, seconds, seed)
    return spec


def result_file(spec: Spec, out: Path) -> Path:
    """The file of a run's curve."""
    setting = [f"{name}{value:g}" for name, value in spec["setting"].items()]
    parts = [
        spec["task"], spec["contestant"], *setting, f"{spec['seconds']:g}s", f"seed{spec['seed']}"
    ]  # fmt: skip
    return out / f"{'-'.join(parts)}.json"


def read_result(spec: Spec, out: Path) -> dict[str, Any] | None:
    """A run's curve, if it is there and of the same settings."""
    file = result_file(spec, out)
    if not file.exists():
        return None
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    old, new = ({**p, "data": None} if (p := s.get("pipeline")) else None for s in (result, spec))
    return result if old == new else None


def carry_out(spec: Spec, out: Path) -> str | None:
    """Run one in a process of its own, unless it has been done; what went wrong, if anything."""
    file = result_file(spec, out)
    if read_result(spec, out) is not None:
        return None
    # what our runs leave (z, commits) is gone with the folder
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=out) as scratch:
        arguments = json.dumps({**spec, "scratch": scratch})
        start = time.perf_counter()
        process = subprocess.run(
            [sys.executable, str(HERE / "contestants.py"), arguments, str(file)],
            env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if process.returncode:
        problem = f"{file.stem} failed:\n{process.stderr[-2000:]}"
        print(problem, file=sys.stderr, flush=True)
        return problem
    result = read_result(spec, out)
    assert result is not None
    last = f"{result['curve'][-1][1]:.4g}" if result["curve"] else "nothing"
    print(
        f"{file.stem}: {last}, {result['status']}, {time.perf_counter() - start:.0f} s on the clock",
        flush=True,
    )
    return None


def all_specs(options: argparse.Namespace, seconds: float, with_rates: bool) -> list[Spec]:
    """Those of the contestants that have rates, or of the others; the seeds of a setting after one another."""
    return [
        make_spec(options, contestant, setting, seconds, seed)
        for contestant in options.contestants
        for setting in settings_of(contestant, options)
        if ("rate" in setting) == with_rates
        for seed in range(options.seeds)
    ]


def finalists(options: argparse.Namespace, screened: Sequence[Spec]) -> list[Spec]:
    """The two best rates of every contestant by the median over seeds of the best quality, for the whole budget."""
    chosen: list[Spec] = []
    for contestant in dict.fromkeys(spec["contestant"] for spec in screened):
        own = [spec for spec in screened if spec["contestant"] == contestant]
        results = [r for spec in own if (r := read_result(spec, options.out)) is not None]
        groups = group_runs(TASKS[options.task], results, options.screen * options.seconds)
        ranked = sorted(groups, key=lambda group: median(best(curve) for curve in group.curves))
        labels = {group.label for group in ranked[:FINALISTS]}
        chosen += [
            {**spec, "seconds": options.seconds}
            for spec in own
            if " ".join(f"{name} {value:g}" for name, value in spec["setting"].items()) in labels
        ]
    return chosen


def carry_out_all(specs: Sequence[Spec], options: argparse.Namespace) -> list[str]:
    """Run them, some at a time; what went wrong."""
    with ThreadPoolExecutor(options.jobs) as pool:
        return [p for p in pool.map(lambda spec: carry_out(spec, options.out), specs) if p]


def compare(options: argparse.Namespace) -> list[str]:
    """All runs; what went wrong."""
    for contestant in set(options.contestants).intersection(OURS):
        tuned = TUNED[options.task] if contestant == "altmin-tuned" else {}
        make_stores(options.mnist, options.stores, tuned.get("data", {}).get("chunk_rows"))
    failures = carry_out_all(all_specs(options, options.seconds, with_rates=False), options)
    if options.screen is None:
        return failures + carry_out_all(all_specs(options, options.seconds, with_rates=True), options)
    screened = all_specs(options, options.screen * options.seconds, with_rates=True)
    failures += carry_out_all(screened, options)
    return failures + carry_out_all(finalists(options, screened), options)


def collect(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All curves of the task in the folder: ours of this very budget, baselines of this or a shorter one."""
    results = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(options.out.glob(f"{options.task}-*.json"))
    ]
    return [
        result
        for result in results
        if result["seconds"] <= options.seconds
        and (result["seconds"] == options.seconds or result["contestant"] not in OURS)
    ]


def commit() -> str:
    """The source that is run."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=HERE, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return said.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def short_runs(results: Sequence[dict[str, Any]], options: argparse.Namespace) -> list[str]:
    """Sentences on settings that have not run for the whole budget."""
    whole = {(r["contestant"], str(r["setting"])) for r in results if r["seconds"] == options.seconds}
    cut = [r for r in results if (r["contestant"], str(r["setting"])) not in whole]
    notes = []
    for contestant in dict.fromkeys(r["contestant"] for r in cut):
        settings = [setting for name, setting in whole if name == contestant]
        budgets = sorted({r["seconds"] for r in cut if r["contestant"] == contestant})
        ran = " and ".join(f"{seconds:g} s" for seconds in budgets)
        if settings:
            notes.append(
                f"The learning rates of {contestant} were screened: all ran for {ran}, the best {len(settings)} of "
                "them for the whole budget, too; what is shown of the others is from the shorter runs."
            )
        else:
            notes.append(f"{contestant} has run for {ran} only.")
    return notes


def report(options: argparse.Namespace) -> str:
    """Write the table and the figure of what there is; the table."""
    results = collect(options)
    if not results:
        raise SystemExit(f"there are no runs of {options.task} within {options.seconds:g} s in {options.out}")
    text = table(options.task, results, options.seconds, short_runs(results, options))
    (options.out / f"{options.task}.md").write_text(text, encoding="utf-8")
    figure(options.task, results, options.seconds, options.out / f"{options.task}.png")
    return text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path, metavar="MNIST.npz")
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--seconds", type=float, required=True, help="budget of a run, CPU seconds of training"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--contestants", help=f"some of {','.join(RUNNERS)}; by default all that apply")
    parser.add_argument("--rates", help="learning rates instead of the task's own, for example 1e-3,3e-3")
    parser.add_argument("--screen", type=float, metavar="FRACTION",
                        help="all rates for this part of the budget, and only the best two for the whole")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("time_to_quality"), metavar="FOLDER")
    parser.add_argument("--table-only", action="store_true", help="of the runs that are there")
    options = parser.parse_args()
    absent = {"altmin-tuned"} - ({"altmin-tuned"} if options.task in TUNED else set())
    absent |= set() if TASKS[options.task].accuracy else {"sklearn"}
    asked = options.contestants.split(",") if options.contestants else [c for c in RUNNERS if c not in absent]
    if unknown := set(asked) - set(RUNNERS):
        parser.error(f"no contestant {', '.join(sorted(unknown))}; there are {', '.join(RUNNERS)}")
    for name in absent.intersection(asked):
        why = "has no sigmoid output" if name == "sklearn" else "has no settings in contestants.TUNED"
        print(f"{name} {why} for {options.task}: left out", file=sys.stderr)
    if options.screen is not None and not 0 < options.screen < 1:
        parser.error("--screen takes a fraction between 0 and 1")
    options.contestants = [name for name in asked if name not in absent]
    options.rates = [float(rate) for rate in options.rates.split(",")] if options.rates else None
    options.out = options.out.absolute()
    options.stores, options.commit = options.out / "stores", commit()
    return options


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    failures = [] if options.table_only else compare(options)
    print(report(options))
    if failures:
        raise SystemExit(f"{len(failures)} runs failed")


if __name__ == "__main__":
    main()
