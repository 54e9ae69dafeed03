"""Quality per sample visit when steps are taken as groups finish: eight workers, against one group after the other.

A Dask cluster of workers with one thread each, in this process, trains the same network on the same samples with
`training.max_staleness` 0 and one less than the workers (each of which then always has a group). Workers share this
machine's cores, so the wall clock says nothing; the losses at the same number of visits do. What is left out is what
it is for: how much sooner these visits are made, by as many workers.

    python benchmarks/staleness.py [MNIST.npz] [--workers 8] [--sweeps 3] [--chunk-rows 1250] [--seeds 3]

Medians over seeds, and their range. Without MNIST: scikit-learn's digits, in chunks of 60.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster
from measuring import spread
from opening import line, opening

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.storage.run import RunFolder

Pairs = dict[float, list[tuple[float, float]]]
"""By sweep the losses in turn and as groups finish, one pair for each seed."""

KINDS: dict[str, dict[str, Any]] = {
    "autoencoder": {"hidden_layer_sizes": [300], "output_activation": "sigmoid"},
    "classifier": {"hidden_layer_sizes": [256, 256], "activation": "relu"},
}


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path, nargs="?")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--max-staleness", type=int)
    parser.add_argument("--sweeps", type=float, default=3.0)
    parser.add_argument("--chunk-rows", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def ingest_samples(options: argparse.Namespace, home: Path) -> None:
    """Put MNIST, or the digits without it, into stores for training and for testing."""
    source = str(options.mnist) if options.mnist else "digits"
    scale, rows = (255.0, options.chunk_rows or 1250) if options.mnist else (16.0, options.chunk_rows or 60)
    for split in ("train", "test"):
        ingest(open_source(f"{source}:{split}"), home / f"{split}.zarr", scale=scale, chunk_rows=rows)


def make_pipeline(
    options: argparse.Namespace, home: Path, kind: str, *, max_staleness: int, seed: int
) -> Pipeline:
    """One of the networks on the samples, with so many steps in between."""
    return Pipeline.model_validate(
        {
            "data": {"train": str(home / "train.zarr"), "validation": str(home / "test.zarr")},
            "network": {"kind": kind, **KINDS[kind]},
            "training": {
                "max_staleness": max_staleness,
                "max_sweeps": options.sweeps,
                "seed": seed,
                "group_chunks": None if options.mnist else 1,
            },
        }
    )


def held_out_losses(pipeline: Pipeline, folder: Path, scheduler: str) -> dict[float, float]:
    """Train, and give the loss of samples not trained on, by sweep."""
    records = runs.train(pipeline, RunFolder(folder), scheduler=scheduler, log=lambda line: None)
    return {round(r.sweep, 3): r.validation_loss for r in records}


def paired(options: argparse.Namespace, home: Path, kind: str, stale: int, scheduler: str) -> Pairs:
    """Train one network with every seed, in turn and as groups finish; the losses at sweeps that both recorded."""
    found: Pairs = {}
    for seed in range(options.seeds):
        in_turn, as_they_finish = (
            held_out_losses(
                make_pipeline(options, home, kind, max_staleness=max_staleness, seed=seed),
                home / f"{kind}-{max_staleness}-{seed}",
                scheduler,
            )
            for max_staleness in (0, stale)
        )
        for sweep in in_turn.keys() & as_they_finish.keys():
            found.setdefault(sweep, []).append((in_turn[sweep], as_they_finish[sweep]))
    return found


def print_rows(kind: str, found: Pairs, seeds: int) -> None:
    """A row of the table for every sweep that all seeds have reached."""
    for sweep, pairs in sorted(found.items()):
        if len(pairs) < seeds:  # a run that has stopped by itself before
            continue
        first, second = zip(*pairs, strict=True)
        ratio = spread([b / a for a, b in pairs], "{:.2f}".format)
        print(f"{kind:12} {sweep:6.2f} {spread(first):>22} {spread(second):>22} {ratio:>20}", flush=True)


def main() -> None:
    options = parsed()
    print(line(opening()))
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            dashboard_address=":0",
        ) as cluster,
        Client(cluster),
    ):
        home = Path(folder)
        ingest_samples(options, home)
        stale = options.workers - 1 if options.max_staleness is None else options.max_staleness
        print(f"held-out loss with staleness 0 and {stale}, and the ratio seed by seed")
        print(f"{'':12} {'sweep':>6} {'in turn':>22} {'as they finish':>22} {'ratio':>20}")
        for kind in KINDS:
            found = paired(options, home, kind, stale, cluster.scheduler_address)
            print_rows(kind, found, options.seeds)


if __name__ == "__main__":
    main()
