"""Fit a regression in which a tenth of the training targets is nonsense, with residuals held in different ways.

With squared loss and an L1 penalty on the residual r = z − f(x) of the last layer, the best z for a prediction f(x)
makes

    min_z ½(z − y)² + μ|z − f(x)|

the Huber loss of y − f(x): squares up to a distance of μ, and beyond it a pull of no more than μ on the network. So a
small μ of the last layer lets z run off to an outlier and leaves the network alone. It should be a little more than
the noise of good targets (Huber's rule is 1.345 standard deviations; noise is 0.2 here, hence μ about 0.3): less
throws away what good targets say, more lets outliers pull. L2, K-FAC steps and multipliers lead to the squared loss
and so to nothing robust.

A hidden layer can give way just as well, at a pull of its μ divided by the weight above it: here its μ is three times
that of the last, and where that is large, a single hidden unit with a large weight takes in the outliers. So L1 stays
robust for larger μ than Huber's rule says.

The training targets that are replaced lie 5 to 15 standard deviations above the mean. A few hundred trusted samples
decide which model is kept, for all runs alike, and which μ of L1; the error is that of 4,000 others, also without
outliers. Where z
persists progress is slow on this problem: L1 among outliers is about where L2 is without any, and both are far behind
K-FAC steps that never saw one.

    python examples/penalties_outliers.py [--out FOLDER, by default runs/examples] [--sweeps 50]
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import make_friedman1

from altmin_dask import Model, RunFolder, array_source, ingest, load_pipeline, train

ROWS = {"train": 4000, "validation": 400, "test": 4000}
OUTLIERS = 0.1
HIDDEN = 3.0
"""μ of the hidden layer, in units of that of the last."""
LAST_MU = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
RHO = 3.0
"""Fixed: from 0.03, and moved by balancing, it falls at first, z follows the outliers, and training diverges."""
PERSISTENT = {"schedule": "incremental"}
PIPELINE = """
[data]
train = "clean.zarr"

[network]
kind = "regressor"
hidden_layer_sizes = [32]
activation = "tanh"

[solver]
ridge = 0.005

[training]
n_iter_no_change = 1000000

[cluster]
workers = 1
"""
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "K-FAC, no outliers": ("clean", {}, {}),
    "L2, no outliers": ("clean", {"penalty": "l2"}, PERSISTENT),
    "K-FAC": ("train", {}, {}),
    "L2": ("train", {"penalty": "l2"}, PERSISTENT),
    "multipliers": ("train", {"penalty": "multipliers", "mu": RHO, "balancing": False}, PERSISTENT),
    **{
        f"L1, μ = {mu:g}": (
            "train",
            {"penalty": "l1", "mu": [HIDDEN * mu, mu], "augmentation": RHO, "balancing": False},
            PERSISTENT,
        )
        for mu in LAST_MU
    },
}


def make_stores(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the stores; returns the samples of the test and their targets."""
    x, y = make_friedman1(sum(ROWS.values()), n_features=10, noise=1.0, random_state=0)
    x, y = (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std()
    start = 0
    for name, rows in ROWS.items():
        part = slice(start, start := start + rows)
        ingest(array_source(np.float32(x[part]), y[part]), folder / f"{name}.zarr", chunk_rows=1000)
        if name == "train":
            (folder / "train.zarr").rename(folder / "clean.zarr")
            rng = np.random.default_rng(1)
            bad = rng.random(rows) < OUTLIERS
            spoilt = np.where(bad, rng.uniform(5, 15, rows), y[part])
            ingest(array_source(np.float32(x[part]), spoilt), folder / "train.zarr", chunk_rows=1000)
    return np.float32(x[part]), y[part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/examples"), help="where the picture goes")
    parser.add_argument("--sweeps", type=float, default=50.0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    errors, trusted = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "outliers.toml").write_text(PIPELINE)
        print(f"{len(RUNS)} runs on {ROWS['train']} samples, {OUTLIERS:.0%} of whose targets are outliers")
        x, y = make_stores(folder)
        print(f"{'':24} {'held-out RMSE':>13} {'sweeps':>7} {'CPU s':>6}   share of r that is zero, by layer")
        for label, (store, solver, training) in RUNS.items():
            data = {"train": f"{folder / store}.zarr", "validation": str(folder / "validation.zarr")}
            tables = {"data": data, "solver": solver, "training": {"max_sweeps": options.sweeps, **training}}
            pipeline = load_pipeline(
                folder / "outliers.toml",
                [
                    f"{table}.{key}={json.dumps(value)}"
                    for table, settings in tables.items()
                    for key, value in settings.items()
                ],
            )
            run = RunFolder(folder / label)
            records = train(pipeline, run, log=lambda line: None)
            last, trusted[label] = records[-1], min(record.validation_loss for record in records)
            errors[label] = float(np.sqrt(np.mean((Model.load(run.model).predict(x)[:, 0] - y) ** 2)))
            zeros = ", ".join(f"{share:.1%}" for share in last.zero_residuals or [])
            print(
                f"{label:24} {errors[label]:13.4f} {last.sweep:7.1f} {last.cpu_seconds:6.1f}   {zeros}",
                flush=True,
            )
    chosen = min((label for label in trusted if label.startswith("L1")), key=lambda label: trusted[label])
    by_trusted = chosen.removeprefix("L1, ")
    print(f"{by_trusted} of L1 by the trusted samples: held-out RMSE {errors[chosen]:.4f}")
    print("drawn:", draw(errors, options.out / "penalties_outliers.png"))


def draw(errors: dict[str, float], file: Path) -> Path:
    """Held-out error of L1 over μ, and of the others as lines."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    labels = [label for label in errors if label.startswith("L1")]
    axes.plot(LAST_MU, [errors[label] for label in labels], "o-", color="#d55e00", label="L1")
    colours = {"L2": "#0072b2", "multipliers": "#009e73", "K-FAC": "#667080"}
    for name, colour in colours.items():
        axes.axhline(errors[name], color=colour, label=name)
    for name in ("K-FAC", "L2"):
        without = f"{name}, no outliers"
        axes.axhline(errors[without], color=colours[name], ls=":", label=without)
    axes.set(xscale="log", yscale="log", xlabel="μ of the last layer", ylabel="held-out RMSE")
    ticks = (0.2, 0.3, 0.5, 1, 2)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_yticks([], minor=True)
    axes.set_title("One training target in ten is an outlier", loc="left", fontsize=10)
    figure.legend(frameon=False, loc="outside right upper")
    figure.savefig(file, dpi=120)
    return file


if __name__ == "__main__":
    main()
