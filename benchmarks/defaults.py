"""Whether the defaults need tuning: their test loss against that of the best of a grid of settings, on small data.

Three sets that need no download: scikit-learn's digits (softmax), breast cancer (softmax) and a regression made by
`make_friedman1` with 20 features, all standardised. A quarter of the samples is the test, a quarter of the others are
for validation: they end a run and say which model it keeps, and which setting is the best; the test is looked at once,
by the defaults and by that setting. The grid is ρ a fifth, once and five times the rule's, σ a tenth, once and ten
times its default, and μ = 10 instead of exact constraints. The best setting by the test itself, of which nobody could
know, is printed as a bound. The default σ of cross entropies was chosen on MNIST, digits and breast cancer (LOG 33, 34
and 88).

    python benchmarks/defaults.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measuring import spread
from opening import line, opening
from sklearn.datasets import load_breast_cancer, load_digits, make_friedman1
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import array_source
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.network import Network
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.solvers.kfac_defaults import default_input_damping, default_output_damping
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.types import Batch

SETS = {
    "digits": ("classifier", lambda seed: load_digits(return_X_y=True)),
    "breast cancer": ("classifier", lambda seed: load_breast_cancer(return_X_y=True)),
    "friedman": (
        "regressor",
        lambda seed: make_friedman1(3000, n_features=20, noise=1.0, random_state=seed),
    ),
}


def grid(network: Network, rows: int) -> dict[str, dict[str, Any]]:
    """Settings by name, the defaults first."""
    rho, sigma = default_input_damping(network, rows), default_output_damping(network, rows)
    found: dict[str, dict[str, Any]] = {"defaults": {}}
    for a, b in product((0.2, 1, 5), (0.1, 1, 10)):
        if (a, b) != (1, 1):
            found[f"ρ × {a:g}, σ × {b:g}"] = {"proximal": a * rho, "output_damping": b * sigma}
    found["μ = 10"] = {"mu": 10.0}
    return found


def losses_of(name: str, seed: int, home: Path) -> Iterator[tuple[str, float, float]]:
    """Every setting with its validation loss, and the test loss of the model that it keeps."""
    kind, load = SETS[name]
    x, y = load(seed)
    rest_x, test_x, rest_y, test_y = train_test_split(x, y, test_size=0.25, random_state=seed)
    train_x, valid_x, train_y, valid_y = train_test_split(rest_x, rest_y, test_size=0.25, random_state=seed)
    scaler = StandardScaler().fit(train_x)
    middle, scale = (train_y.mean(), train_y.std()) if kind == "regressor" else (0, 1)

    def prepared(rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.float32(scaler.transform(rows)), (
            targets - middle
        ) / scale if kind == "regressor" else targets

    data = {"train": (train_x, train_y), "validation": (valid_x, valid_y)}
    for split, arrays in data.items():
        ingest(array_source(*prepared(*arrays)), home / f"{split}.zarr")
    outputs = int(y.max()) + 1 if kind == "classifier" else 1
    loss = "cross_entropy" if kind == "classifier" else "squared"
    network = dense_network([x.shape[1], 100, outputs], "relu", loss)
    for number, (setting, solver) in enumerate(grid(network, len(train_x)).items()):
        pipeline = Pipeline.model_validate(
            {
                "data": {split: str(home / f"{split}.zarr") for split in data},
                "network": {"kind": kind, "activation": "relu"},
                "solver": solver,
                "training": {"seed": seed},
                "cluster": {"workers": 1},
            }
        )
        run = RunFolder(home / f"run-{number}")
        records = runs.train(pipeline, run, log=lambda line: None)
        model = Model.load(run.model)
        rows, targets = prepared(test_x, test_y)
        if kind == "regressor":
            targets = np.float32(targets[:, None])
        test = evaluate_chunk(model.network, model.weights, Batch(rows, targets)).mean_loss
        yield setting, min(r.validation_loss for r in records), test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    options = parser.parse_args()
    print(line(opening()))
    print(f"test loss, medians of {options.seeds} seeds; ratios seed by seed; the best of how many settings")
    print(
        f"{'set':14} {'defaults':>9} {'best':>9}  {'ratio':>18}  {'by the test':>18}  best setting by validation"
    )
    for name in options.sets:
        found: list[dict[str, tuple[float, float]]] = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                losses = losses_of(name, seed, Path(folder))
                found.append({setting: (valid, test) for setting, valid, test in losses})
        best = [min(each, key=lambda setting: each[setting][0]) for each in found]
        ours = [each["defaults"][1] for each in found]
        theirs = [each[setting][1] for each, setting in zip(found, best, strict=True)]
        least = [min(test for _, test in each.values()) for each in found]
        ratio, bound = (
            spread([a / b for a, b in zip(ours, others, strict=True)], "{:.2f}".format)
            for others in (theirs, least)
        )
        print(
            f"{name:14} {median(ours):9.4g} {median(theirs):9.4g}  {ratio:>18}  {bound:>18}  "
            f"{', '.join(best)} (of {len(found[0])})",
            flush=True,
        )


if __name__ == "__main__":
    main()
