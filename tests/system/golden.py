"""Golden weights: those after every commit of small pipelines of every kind, to compare two versions of the source.

    python tests/system/golden.py take FOLDER [NAME …]
    python tests/system/golden.py compare BEFORE AFTER [--tolerance 1e-12]

Run both on one machine: BLAS rounds by the processor. A moved line that should move no bit is shown to move none, and
one that may is shown how far it goes. Files are NAME.npz, with `COMMIT.LAYER` for each of W̃_1 … W̃_L.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.numpy
import zarr

from altmin_dask import AltMinClassifier, AltMinRegressor
from altmin_dask.cli import main as altmin

PIPELINES: dict[str, dict[str, dict[str, Any]]] = {
    "autoencoder": {"data": {"train": "images"}},
    "autoencoder-float64": {"data": {"train": "images"}, "network": {"dtype": "float64"}},
    "autoencoder-layerwise": {
        "data": {"train": "images"},
        "network": {"hidden_layer_sizes": [12, 5, 12], "initialization": "layerwise"},
    },
    "autoencoder-finite-mu": {"data": {"train": "images"}, "solver": {"mu": 3.0, "newton_steps": 2}},
    "autoencoder-windows": {
        "data": {"train": "images"},
        "network": {"dtype": "float64"},
        "training": {"schedule": "windows", "max_sweeps": 12},
    },
    "autoencoder-exact": {
        "data": {"train": "images"},
        "network": {"hidden_layer_sizes": [4]},
        "solver": {"curvature": "exact", "mu": 0.3},
        "training": {"schedule": "incremental", "max_sweeps": 2},
    },
    "autoencoder-l1": {
        "data": {"train": "images"},
        "solver": {"penalty": "l1"},
        "training": {"max_sweeps": 12},
    },
    "classifier": {
        "data": {"train": "labels", "validation": "labels"},
        "network": {"kind": "classifier", "activation": "relu", "hidden_layer_sizes": [12, 9]},
    },
    "classifier-float64": {
        "data": {"train": "labels"},
        "network": {
            "kind": "classifier",
            "activation": ["tanh", "softplus", "leaky_relu"],
            "hidden_layer_sizes": [12, 9, 8],
            "dtype": "float64",
        },
        "training": {"group_chunks": 3},
    },
    "classifier-batch": {
        "data": {"train": "labels"},
        "network": {"kind": "classifier"},
        "solver": {"mu": {"start": 0.1, "factor": 2.0, "stop": 1.0}, "proximal": 0.01},
        "training": {"schedule": "batch", "max_sweeps": 6},
    },
    "classifier-multipliers": {
        "data": {"train": "labels"},
        "network": {"kind": "classifier", "dtype": "float64"},
        "solver": {"penalty": "multipliers"},
        "training": {"schedule": "incremental", "max_sweeps": 8},
    },
    "regressor": {
        "data": {"train": "numbers"},
        "network": {"kind": "regressor", "activation": "tanh"},
        "solver": {"cg_iterations": 4, "damping": 0.1, "penalize_bias": False},
        "training": {"schedule": "incremental", "max_sweeps": 4},
    },
    "recurrent-last": {
        "data": {"train": "sequences-last"},
        "network": {"kind": "recurrent_classifier", "hidden_layer_sizes": [6, 5], "head_layer_sizes": [4]},
    },
    "recurrent-every": {
        "data": {"train": "sequences-every"},
        "network": {"kind": "recurrent_regressor", "hidden_layer_sizes": [6], "dtype": "float64"},
    },
    "recurrent-kept": {
        "data": {"train": "sequences-every"},
        "network": {"kind": "recurrent_regressor", "hidden_layer_sizes": [6], "activation": "relu"},
        "training": {"schedule": "incremental", "max_sweeps": 4},
    },
    "recurrent-multipliers": {
        "data": {"train": "sequences-last"},
        "network": {"kind": "recurrent_classifier", "hidden_layer_sizes": [6], "dtype": "float64"},
        "solver": {"penalty": "multipliers"},
        "training": {"max_sweeps": 8},
    },
    "recurrent-l1": {
        "data": {"train": "sequences-every"},
        "network": {"kind": "recurrent_regressor", "hidden_layer_sizes": [6]},
        "solver": {"penalty": "l1"},
        "training": {"max_sweeps": 8},
    },
}
BASE: dict[str, dict[str, Any]] = {
    "network": {"kind": "autoencoder", "hidden_layer_sizes": [8]},
    "solver": {"ridge": 0.005},
    "training": {"max_sweeps": 3, "n_iter_no_change": 1000, "group_chunks": 1},
    "output": {"report": False},
}
RESUMED = ("autoencoder", "classifier-multipliers", "recurrent-multipliers")
"""Also stopped halfway and gone on with."""
ON_CLUSTER = ("classifier-float64", "autoencoder-windows")
"""Also on two worker processes."""


def make_stores(folder: Path) -> None:
    """Small sample stores of every kind, as somebody else would write them."""
    rng = np.random.default_rng(5)
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, labels = (digits.data[:500] / 16).astype(np.float32), digits.target[:500]
    numbers = np.column_stack([np.sin(x @ rng.normal(size=64)), x.sum(axis=1) / 10])
    steps = rng.normal(size=(300, 7, 3))
    lengths = rng.integers(2, 8, size=300)
    every = np.cumsum(steps[:, :, :2], axis=1)
    _write(folder / "images", x=x)
    _write(folder / "labels", x=x, y=labels)
    _write(folder / "numbers", x=x.astype(np.float64), y=numbers)
    last = (steps.sum(axis=(1, 2)) > 0).astype(np.int64)
    _write(folder / "sequences-last", x=steps.astype(np.float32), y=last, lengths=lengths)
    _write(folder / "sequences-every", x=steps, y=every, states=0.1 * rng.normal(size=(300, 6)))


def _write(path: Path, **arrays: np.ndarray) -> None:
    group = zarr.open_group(path, mode="w")
    for name, array in arrays.items():
        chunks = (90, *array.shape[1:])
        group.create_array(name, shape=array.shape, chunks=chunks, dtype=array.dtype)[...] = array


def toml(settings: dict[str, dict[str, Any]]) -> str:
    """Tables of numbers, words, lists and flat tables."""

    def value(v: Any) -> str:
        if isinstance(v, dict):
            return "{" + ", ".join(f"{k} = {value(w)}" for k, w in v.items()) + "}"
        if isinstance(v, bool):
            return str(v).lower()
        return repr(v).replace("'", '"')

    tables = (
        f"[{name}]\n" + "".join(f"{k} = {value(v)}\n" for k, v in table.items())
        for name, table in settings.items()
    )
    return "\n".join(tables)


@contextmanager
def watched(found: list[list[np.ndarray]]) -> Iterator[None]:
    """Add the weights of every commit that is renamed into its place, unless they are those of the one before."""
    replace = os.replace

    def look(source: Any, place: Any, **settings: Any) -> None:
        replace(source, place, **settings)
        if os.path.basename(os.path.dirname(place)) == "state" and str(place).endswith(".safetensors"):
            tensors = safetensors.numpy.load_file(place)
            names = sorted((n for n in tensors if n.startswith("layer_")), key=lambda n: int(n[6:]))
            weights = [tensors[name] for name in names]
            if not found or any(map(differ, found[-1], weights)):
                found.append(weights)

    with mock.patch("os.replace", look):
        yield


def differ(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays differ in any bit."""
    return left.dtype != right.dtype or left.shape != right.shape or left.tobytes() != right.tobytes()


def train(file: Path, *options: str) -> None:
    """Run the command line in this process."""
    with mock.patch.object(sys, "argv", ["altmin", "train", str(file), *options]):
        try:
            altmin()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"altmin train {file.name} ended with {end.code}") from None


def jobs(home: Path) -> dict[str, Callable[[], None]]:
    """What is to be run, by name."""
    found: dict[str, Callable[[], None]] = {}

    def plain(file: Path, name: str, *options: str) -> Callable[[], None]:
        return lambda: train(file, "--run", str(home / "runs" / name), *options)

    def halves(file: Path, name: str, sweeps: float) -> Callable[[], None]:
        def both() -> None:
            run = ("--run", str(home / "runs" / name))
            train(file, *run, "--set", f"training.max_sweeps={sweeps / 2}")
            train(file, *run, "--resume")

        return both

    for name, tables in PIPELINES.items():
        settings = {table: {**BASE.get(table, {}), **tables.get(table, {})} for table in {**BASE, **tables}}
        settings["data"] = {k: str(home / "stores" / v) for k, v in settings["data"].items()}
        file = home / f"{name}.toml"
        file.write_text(toml(settings), encoding="utf-8")
        found[name] = plain(file, name)
        if name in RESUMED:
            found[f"{name}-resumed"] = halves(
                file, f"{name}-resumed", float(settings["training"]["max_sweeps"])
            )
        if name in ON_CLUSTER:
            cluster = ("cluster.kind=local", "cluster.workers=2", "cluster.dashboard=:0")
            found[f"{name}-cluster"] = plain(
                file, f"{name}-cluster", *(word for setting in cluster for word in ("--set", setting))
            )
    found["estimator-weighted"] = _weighted
    found["estimator-regressor"] = _regressor
    return found


def _weighted() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 6))
    y = np.where(x[:, 0] * x[:, 1] > 0, "a", "b")
    AltMinClassifier((9,), max_sweeps=3, random_state=1).fit(x, y, sample_weight=rng.random(300))


def _regressor() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 6))
    AltMinRegressor((9,), activation="tanh", max_sweeps=4, random_state=1).fit(x, np.sin(x[:, :2]))


def take(folder: Path, names: list[str]) -> None:
    """Run all, or those named, and leave their weights in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        make_stores(home / "stores")
        for name, job in jobs(home).items():
            if names and name not in names:
                continue
            found: list[list[np.ndarray]] = []
            with watched(found), redirect_stdout(StringIO()):
                job()
            arrays = {f"{i}.{j}": w for i, step in enumerate(found) for j, w in enumerate(step)}
            np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]
            print(f"{name}: {len(found)} commits", flush=True)


def compare(before: Path, after: Path, tolerance: float) -> int:
    """Say how far weights went apart, relative to the largest of a layer; gives how many pipelines beyond tolerance."""
    failed = 0
    for file in sorted(before.glob("*.npz")):
        if not (after / file.name).exists():
            print(f"{file.stem}: missing")
            failed += 1
            continue
        with np.load(file) as old, np.load(after / file.name) as new:
            if sorted(old) != sorted(new):
                print(f"{file.stem}: {len(old)} arrays before, {len(new)} after")
                failed += 1
                continue
            if not any(differ(old[name], new[name]) for name in old):
                print(f"{file.stem}: the same bits, {len(old)} arrays")
                continue
            apart = max(
                float(np.abs(old[name].astype(float) - new[name]).max() / np.abs(old[name]).max())
                for name in old
            )
            failed += not apart <= tolerance
            print(f"{file.stem}: {apart:.1e} apart")
    return failed


def main() -> None:
    """Take, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    taking = actions.add_parser("take")
    taking.add_argument("folder", type=Path)
    taking.add_argument("names", nargs="*")
    comparing = actions.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--tolerance", type=float, default=0.0)
    words = parser.parse_args()
    if words.action == "take":
        take(words.folder, words.names)
    else:
        sys.exit(1 if compare(words.before, words.after, words.tolerance) else 0)


if __name__ == "__main__":
    main()
