"""What the units of features and targets do to estimators by default: standardized, in other units, and untouched.

Of each bundled table three things: as a `StandardScaler` leaves it, without being standardized within the network; in
other units, by default (`standardize = "auto"`); and in these units with ``standardize = "none"``. Other units are
those in which the table comes, and random ones: each feature times 10ᵘ, u between −6 and 6, and shifted by some ten of
its deviations. Pixels are all multiplied by the same number. Mean over five folds: accuracy, R², or of auto-encoders R²
of the reconstruction. scikit-learn's networks stand beside, by default but for `max_iter`, in the same units.

    python benchmarks/units.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from statistics import mean
from typing import Any

import numpy as np
from opening import line, opening
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor

Pair = tuple[np.ndarray, np.ndarray]
FOLDS = 5


def other_units(x: np.ndarray, seed: int) -> np.ndarray:
    """Each feature in a unit of its own."""
    rng = np.random.default_rng(seed)
    factor = 10 ** rng.uniform(-6, 6, x.shape[1])
    return factor * (x + 10 * x.std(axis=0) * rng.normal(size=x.shape[1]))


def cases(seed: int) -> Iterator[tuple[str, str, Pair, Pair]]:
    """Name, kind, the table standardized, and in other units."""
    for name, load in {"wine": load_wine, "breast cancer": load_breast_cancer, "iris": load_iris}.items():
        x, y = load(return_X_y=True)
        standard = StandardScaler().fit_transform(x)
        yield f"{name}, as it comes", "classifier", (standard, y), (x, y)
        yield f"{name}, random units", "classifier", (standard, y), (other_units(x, seed), y)
    x, y = load_digits(return_X_y=True)
    for factor in (1.0, 1e-3, 255.0):
        yield f"digits from 0 to {16 * factor:g}", "classifier", (x / 16, y), (factor * x, y)
    x, y = load_diabetes(return_X_y=True, scaled=False)
    standard, scaled = StandardScaler().fit_transform(x), (y - y.mean()) / y.std()
    yield "diabetes, as it comes", "regressor", (standard, scaled), (x, y)
    yield "diabetes, random units", "regressor", (standard, scaled), (other_units(x, seed), 1e6 * y)
    x = load_iris().data
    standard = (x - x.mean(axis=0)) / x.std()
    for factor, offset in ((1e-3, 0.0), (1.0, 1e4)):
        name = f"iris, {factor:g} x + {offset:g}"
        yield name, "autoencoder", (standard, standard), (factor * x + offset, standard)


def ours(kind: str, seed: int, how: str) -> Any:
    """An estimator by default."""
    if kind == "autoencoder":
        return AltMinAutoencoder(2, standardize=how, random_state=seed)
    made: Callable[..., Any] = AltMinClassifier if kind == "classifier" else AltMinRegressor
    return made(standardize=how, random_state=seed)


def theirs(kind: str, seed: int) -> Any:
    """scikit-learn's, which has no auto-encoder."""
    made = {"classifier": MLPClassifier, "regressor": MLPRegressor}.get(kind)
    return None if made is None else made(max_iter=500, random_state=seed)


def score(model: Any, kind: str, data: Pair, seed: int) -> float:
    """Mean over the folds."""
    folds = (StratifiedKFold if kind == "classifier" else KFold)(FOLDS, shuffle=True, random_state=seed)
    x, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which say what is measured here
        found = cross_val_score(model, x, None if kind == "autoencoder" else y, cv=folds)
    return float(found.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print(line(opening("sklearn")))
    rows: dict[str, list[list[float]]] = {}
    for seed in range(options.seeds):
        for name, kind, standard, other in cases(seed):
            found = [
                score(ours(kind, seed, "none"), kind, standard, seed),
                score(ours(kind, seed, "auto"), kind, other, seed),
                score(ours(kind, seed, "none"), kind, other, seed),
            ]
            beside = theirs(kind, seed)
            found.append(float("nan") if beside is None else score(beside, kind, other, seed))
            rows.setdefault(name, []).append(found)
    print(f"{'':30}{'standardized':>14}{'by default':>14}{'untouched':>14}{'scikit-learn':>14}")
    for name, several in rows.items():
        print(f"{name:30}" + "".join(f"{mean(each):14.3f}" for each in zip(*several, strict=True)))


if __name__ == "__main__":
    main()
