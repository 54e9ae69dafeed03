"""Whether the defaults need tuning: their held-out loss against the best of a grid of settings, on small data.

Three sets that need no download: scikit-learn's digits (softmax), breast cancer (softmax) and a regression made by
`make_friedman1` with 20 features, all standardised; a quarter of the samples is held out. The grid is ρ a fifth, once
and five times the rule's, σ a tenth, once and ten times its default, and μ = 10 instead of exact constraints.
A run stops by itself; what counts is the held-out loss of the model it keeps.

    python benchmarks/defaults.py [--seeds 1]
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, make_friedman1
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from staleness import Quiet

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.networks.losses import get_loss
from altmin_dask.solvers.increments import UNKNOWNS_SHARE
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.samples import ingest
from altmin_dask.storage.sources import array_source

SETS = {
    "digits": ("classifier", lambda seed: load_digits(return_X_y=True)),
    "breast cancer": ("classifier", lambda seed: load_breast_cancer(return_X_y=True)),
    "friedman": (
        "regressor",
        lambda seed: make_friedman1(3000, n_features=20, noise=1.0, random_state=seed),
    ),
}


def grid(unknowns: int, numbers: int, sigma: float) -> dict[str, dict[str, Any]]:
    """Settings by name, the defaults first."""
    rho = UNKNOWNS_SHARE * unknowns / numbers
    found: dict[str, dict[str, Any]] = {"defaults": {}}
    for a, b in product((0.2, 1, 5), (0.1, 1, 10)):
        if (a, b) != (1, 1):
            found[f"ρ × {a:g}, σ × {b:g}"] = {"proximal": a * rho, "metric_damping": b * sigma}
    found["μ = 10"] = {"mu": 10.0}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print(f"{'set':14} {'defaults':>9} {'best':>9}  {'ratio':>5}  best setting")
    for name, (kind, load) in SETS.items():
        losses: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            x, y = load(seed)
            parts = train_test_split(x, y, test_size=0.25, random_state=seed)
            scaler = StandardScaler().fit(parts[0])
            if kind == "regressor":
                middle, spread = parts[2].mean(), parts[2].std()
                parts = [*parts[:2], *((part - middle) / spread for part in parts[2:])]
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                for split, rows, targets in (("train", parts[0], parts[2]), ("test", parts[1], parts[3])):
                    ingest(array_source(np.float32(scaler.transform(rows)), targets), home / f"{split}.zarr")
                outputs = int(y.max()) + 1 if kind == "classifier" else 1
                sigma = get_loss("cross_entropy" if kind == "classifier" else "squared").metric_damping
                unknowns = 100 * (x.shape[1] + 1) + outputs * 101
                for setting, solver in grid(unknowns, len(parts[0]) * outputs, sigma).items():
                    pipeline = Pipeline.model_validate(
                        {
                            "data": {split: str(home / f"{file}.zarr") for split, file in SPLITS.items()},
                            "network": {"kind": kind, "activation": "relu"},
                            "solver": solver,
                            "training": {"seed": seed},
                            "cluster": {"workers": 1},
                        }
                    )
                    run = RunFolder(home / f"run-{len(losses)}-{seed}-{setting}")
                    records = runs.train(pipeline, run, Quiet(), announce=lambda line: None)
                    losses.setdefault(setting, []).append(min(r["validation_loss"] for r in records))
        middle_of = {setting: median(values) for setting, values in losses.items()}
        best = min(middle_of, key=lambda setting: middle_of[setting])
        ratio = middle_of["defaults"] / middle_of[best]
        print(
            f"{name:14} {middle_of['defaults']:9.4g} {middle_of[best]:9.4g}  {ratio:5.2f}  {best}", flush=True
        )


SPLITS = {"train": "train", "validation": "test"}

if __name__ == "__main__":
    main()
