"""How much of a table's noise estimators fit by default, and without weight decay, beside scikit-learn's networks.

    python benchmarks/noise.py [--seeds 3] [--rows 5000 100000]

Samples of 28 normal columns, of which a function f is made that no sum of functions of one column each is. Labels are
1 with the probability 1 / (1 + exp(−1.2 f)), real targets f with as much noise as f deviates, or a twentieth of that.
All networks are 128-64, relu, each by default but for these widths (scikit-learn's with early stopping, too). On 20,000
other samples: accuracy and log loss, less what the true probabilities have; and 1 − R² beside f itself, without noise.
Medians over seeds, and CPU seconds of a fit; nothing is chosen.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from opening import line, opening
from rich.console import Console
from rich.table import Table
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier, MLPRegressor

from altmin_dask import AltMinClassifier, AltMinRegressor

Array = np.ndarray[Any, Any]
TEST, WIDTHS = 20_000, (128, 64)
LABELS = "accuracy, points", "log loss", "CPU s"
TARGETS = "1 − R²", "CPU s"
NOISES = (0.05, 1.0)
"""Deviation of the noise of real targets, in that of f."""


def samples(rows: int, seed: int) -> tuple[Array, Array, np.random.Generator]:
    """x, f of it, and random numbers for targets."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows + TEST, 28)).astype(np.float32)
    first, second = random.normal(size=(28, 12)) / np.sqrt(28), random.normal(size=12)
    return x, np.tanh(2 * x @ first) @ second + 1.5 * x[:, 0] * x[:, 1], random


def contestants(kind: str, seed: int) -> dict[str, Any]:
    """Estimators by their names."""
    ours: Callable[..., Any] = AltMinClassifier if kind == "classifier" else AltMinRegressor
    theirs: Callable[..., Any] = MLPClassifier if kind == "classifier" else MLPRegressor
    return {
        "by default": ours(WIDTHS, random_state=seed),
        "weight_decay = 0": ours(WIDTHS, weight_decay=0.0, random_state=seed),
        "scikit-learn": theirs(hidden_layer_sizes=WIDTHS, random_state=seed),
        "scikit-learn, early stopping": theirs(
            hidden_layer_sizes=WIDTHS, early_stopping=True, random_state=seed
        ),
    }


def classified(rows: int, seed: int) -> dict[str, list[float]]:
    """Accuracy and log loss beside the true probabilities', and seconds, of every contestant."""
    x, f, random = samples(rows, seed)
    chance = 1 / (1 + np.exp(-1.2 * f))
    y = (random.random(len(x)) < chance).astype(int)
    true = np.stack([1 - chance, chance], 1)[rows:]
    best = float(np.mean(true.argmax(1) == y[rows:])), log_loss(y[rows:], true)
    found = {}
    for name, model in contestants("classifier", seed).items():
        seconds = fitted(model, x[:rows], y[:rows])
        given = model.predict_proba(x[rows:])
        score = float(np.mean(given.argmax(1) == y[rows:]))
        found[name] = [100 * (score - best[0]), log_loss(y[rows:], given) - best[1], seconds]
    return found


def regressed(rows: int, seed: int, noise: float) -> dict[str, list[float]]:
    """1 − R² beside f, and seconds."""
    x, f, random = samples(rows, seed)
    f /= f.std()
    y = f + noise * random.normal(size=len(f))
    found = {}
    for name, model in contestants("regressor", seed).items():
        seconds = fitted(model, x[:rows], y[:rows])
        error = np.mean((model.predict(x[rows:]) - f[rows:]) ** 2)
        found[name] = [float(error / f[rows:].var()), seconds]
    return found


def show(title: str, columns: tuple[str, ...], several: list[dict[str, list[float]]]) -> None:
    """A row for every contestant."""
    table = Table("", *columns, title=title)
    for name in several[0]:
        figures = zip(*(one[name] for one in several), strict=True)
        table.add_row(name, *(f"{median(each):.4g}" for each in figures))
    Console(width=120).print(table)


def fitted(model: Any, x: Array, y: Array) -> float:
    """CPU seconds of a fit."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of limits that ended it
        model.fit(x, y)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 100_000])
    options = parser.parse_args()
    print(line(opening("sklearn")))
    for rows in options.rows:
        seeds = range(options.seeds)
        show(f"{rows:,} rows, labels", LABELS, [classified(rows, seed) for seed in seeds])
        for noise in NOISES:
            found = [regressed(rows, seed, noise) for seed in seeds]
            show(f"{rows:,} rows, targets with noise of {noise:g}", TARGETS, found)


if __name__ == "__main__":
    main()
