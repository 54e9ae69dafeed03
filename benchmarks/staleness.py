"""Quality per sample visit when steps are taken as groups finish: eight workers, against one group after the other.

A Dask cluster of workers with one thread each, in this process, trains the same network on the same samples with
`training.staleness` 0 and one less than the workers (each of which then always has a group). Workers share this
machine's cores, so the wall clock says nothing; the losses at the same number of visits do.

    python benchmarks/staleness.py [MNIST.npz] [--workers 8] [--sweeps 3] [--chunk-rows 1250]

Without MNIST: scikit-learn's digits, in chunks of 60.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.samples import ingest
from altmin_dask.storage.sources import open_source

KINDS: dict[str, dict[str, Any]] = {
    "autoencoder": {"hidden_layer_sizes": [300], "output_activation": "sigmoid"},
    "classifier": {"hidden_layer_sizes": [256, 256], "activation": "relu"},
}


class Quiet:
    """An observer that keeps quiet."""

    def progressed(self, progress: Any) -> None:
        """Nothing."""

    def recorded(self, record: dict[str, Any]) -> None:
        """Nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path, nargs="?")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--staleness", type=int)
    parser.add_argument("--sweeps", type=float, default=3.0)
    parser.add_argument("--chunk-rows", type=int)
    options = parser.parse_args()
    source = str(options.mnist) if options.mnist else "digits"
    scale, rows = (255.0, options.chunk_rows or 1250) if options.mnist else (16.0, options.chunk_rows or 60)
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
        for split in ("train", "test"):
            ingest(open_source(f"{source}:{split}"), home / f"{split}.zarr", scale=scale, chunk_rows=rows)
        print(f"{'':12} {'sweep':>6} {'in turn':>10} {'as they finish':>15} {'ratio':>6}   held-out loss")
        for kind, network in KINDS.items():
            losses = []
            for staleness in (0, options.workers - 1 if options.staleness is None else options.staleness):
                settings = Pipeline.model_validate(
                    {
                        "data": {"train": str(home / "train.zarr"), "validation": str(home / "test.zarr")},
                        "network": {"kind": kind, **network},
                        "training": {
                            "staleness": staleness, "max_sweeps": options.sweeps,
                            "group_chunks": None if options.mnist else 1,
                        },
                    }
                )  # fmt: skip
                records = runs.train(
                    settings, RunFolder(home / f"{kind}-{staleness}"), Quiet(),
                    scheduler=cluster.scheduler_address, announce=lambda line: None,
                )  # fmt: skip
                losses.append({round(r["sweep"], 3): r["validation_loss"] for r in records})
            for sweep in sorted(losses[0].keys() & losses[1].keys()):
                first, second = (loss[sweep] for loss in losses)
                print(f"{kind:12} {sweep:6.2f} {first:10.4g} {second:15.4g} {second / first:6.2f}")


if __name__ == "__main__":
    main()
