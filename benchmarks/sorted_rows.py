"""Rows that are sorted by classes, by targets or in time, against the same rows shuffled: scores, losses, CPU seconds.

Shuffled as `ingest` does, or from a store that is taken as it is, whose groups have rows from all over it. Losses are
of new samples, means over seeds.

    python benchmarks/sorted_rows.py            # ten minutes
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from opening import add_options, line, opening

from altmin_dask import AltMinClassifier, AltMinRegressor, array_source, ingest

Array = np.ndarray[Any, Any]


def quadrant(x: Array) -> Array:
    """Four classes."""
    return 2 * (x[:, 0] > 0) + (x[:, 1] > 0)


def value(x: Array) -> Array:
    """What is fitted."""
    return np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]


def cases(rows: int) -> dict[str, tuple[type, Array, Callable[[Array], Array], Array]]:
    """Sorted samples, the truth, and new samples."""
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(rows, 10)), rng.normal(size=(5000, 10))
    drift, later = (np.outer(np.linspace(-3, 3, n), np.ones(10)) for n in (rows, 5000))
    return {
        "by class": (AltMinClassifier, x[np.argsort(quadrant(x), kind="stable")], quadrant, new),
        "by target": (AltMinRegressor, x[np.argsort(value(x))], value, new),
        "features that drift": (AltMinRegressor, x + drift, value, new + later),
    }


def loss(model: Any, x: Array, y: Array) -> float:
    """Squared error, or cross-entropy."""
    if hasattr(model, "predict_proba"):
        return float(-np.log(model.predict_proba(x)[np.arange(len(y)), y] + 1e-300).mean())
    return float(np.mean((model.predict(x) - y) ** 2))


def main() -> None:
    """Measure, and print a line for each case and way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--chunk-rows", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    add_options(parser)
    options = parser.parse_args()
    print(line(opening("dask", options=options)))
    for name, (kind, x, truth, new) in cases(options.rows).items():
        for shuffle in (True, False):
            scores, losses, start = [], [], time.process_time()
            with tempfile.TemporaryDirectory() as home:
                for seed in range(options.seeds):
                    path = Path(home, f"{seed}.zarr")
                    given = array_source(x, truth(x))
                    how: dict[str, Any] = {"chunk_rows": options.chunk_rows, "dtype": "float64"}
                    store = ingest(given, path, shuffle=shuffle, seed=seed, **how)
                    model = kind((64,), random_state=seed, workers=1).fit(store.path)
                    scores.append(model.score(new, truth(new)))
                    losses.append(loss(model, new, truth(new)))
            print(
                f"{name}, {'shuffled' if shuffle else 'as it is'}: score {np.mean(scores):.4f}, loss "
                f"{np.mean(losses):.4f} ± {np.std(losses) / max(1, len(losses) - 1) ** 0.5:.4f}, "
                f"{(time.process_time() - start) / options.seeds:.1f} CPU s"
            )


if __name__ == "__main__":
    main()
