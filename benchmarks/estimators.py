"""Cross-validated scores of the estimators' defaults beside those of scikit-learn's MLPs, on its bundled data.

    python benchmarks/estimators.py [--folds 5] [--seeds 3] [--out FILE.json]

All are defaults, behind a `StandardScaler`; each has the same folds. Scores are accuracies and R². MLPs that have not
converged after their default 200 iterations say so by a warning, which is not shown.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from altmin_dask import AltMinClassifier, AltMinRegressor

TASKS: dict[str, tuple[Any, Any, Any]] = {
    "digits": (load_digits, AltMinClassifier, MLPClassifier),
    "breast_cancer": (load_breast_cancer, AltMinClassifier, MLPClassifier),
    "diabetes": (load_diabetes, AltMinRegressor, MLPRegressor),
}


def scores(kind: Any, x: Any, y: Any, folds: int, seeds: int) -> tuple[list[float], float]:
    """Scores of all folds and seeds, and the seconds that a fit takes on average."""
    found: list[float] = []
    seconds: list[float] = []
    splitter = KFold if kind.__name__.endswith("Regressor") else StratifiedKFold
    for seed in range(1, seeds + 1):  # the defaults were chosen on the folds of seed 0
        estimator = make_pipeline(StandardScaler(), kind(random_state=seed))
        result = cross_validate(estimator, x, y, cv=splitter(folds, shuffle=True, random_state=seed))
        found += result["test_score"].tolist()
        seconds += result["fit_time"].tolist()
    return found, float(np.mean(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    table = Table("task", "estimator", "score", "standard error", "s a fit")
    results = []
    for task in options.tasks:
        load, *kinds = TASKS[task]
        x, y = load(return_X_y=True)
        for kind in kinds:
            start = time.process_time()
            found, seconds = scores(kind, x, y, options.folds, options.seeds)
            error = float(np.std(found, ddof=1) / np.sqrt(len(found)))
            results.append(
                {
                    "task": task,
                    "estimator": kind.__name__,
                    "mean": float(np.mean(found)),
                    "error": error,
                    "scores": found,
                    "fit_seconds": seconds,
                    "cpu_seconds": time.process_time() - start,
                }
            )
            table.add_row(task, kind.__name__, f"{np.mean(found):.4f}", f"{error:.4f}", f"{seconds:.2f}")
    Console().print(table)
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
