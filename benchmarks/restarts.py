"""How much the random start matters: the final loss of many fits of one table, the worst over the median.

Every fit is one of an estimator's defaults on all rows of a bundled table, as it comes; seeds draw the first weights,
the order of the rows and the noise by which curvature is sampled. The final loss is the last one that is recorded, on
the same rows, with the ridge: what is minimised.

    python benchmarks/restarts.py [--restarts 30]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from opening import line, opening
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_linnerud,
    load_wine,
)

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor


def cases() -> Iterator[tuple[str, Any, tuple[np.ndarray, ...]]]:
    """Name, estimator and samples."""
    for name, load in {
        "iris": load_iris,
        "wine": load_wine,
        "breast cancer": load_breast_cancer,
        "digits": load_digits,
    }.items():
        yield name, AltMinClassifier(), load(return_X_y=True)
    yield "diabetes", AltMinRegressor(), load_diabetes(return_X_y=True, scaled=False)
    yield "linnerud", AltMinRegressor(), load_linnerud(return_X_y=True)
    yield "digits, auto-encoder", AltMinAutoencoder(), (load_digits().data / 16,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--restarts", type=int, default=30)
    options = parser.parse_args()
    print(line(opening()))
    print(f"final loss of {options.restarts} fits by default, the ridge included")
    print(f"{'table':<22} {'median':>10} {'worst':>10} {'worst ÷ median':>15}")
    warnings.simplefilter("ignore")
    for name, estimator, samples in cases():
        losses = [
            estimator.set_params(random_state=seed).fit(*samples).history_[-1]["regularized_loss"]
            for seed in range(options.restarts)
        ]
        median, worst = float(np.median(losses)), max(losses)
        print(f"{name:<22} {median:>10.4g} {worst:>10.4g} {worst / median:>15.3f}", flush=True)


if __name__ == "__main__":
    main()
