"""Rows that are sorted by something train as well as shuffled ones: classes, targets, features that drift."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from choices import slow_but
from command import write_pipeline

from altmin_dask import AltMinClassifier, AltMinRegressor
from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import array_source
from altmin_dask.solvers.kfac import KFACState
from altmin_dask.solvers.kronecker import KroneckerSums
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import read_records

RNG = np.random.default_rng(0)
ROWS = 4000
X, NEW = RNG.normal(size=(ROWS, 6)), RNG.normal(size=(2000, 6))
DRIFT = np.outer(np.linspace(-2, 2, ROWS), np.ones(6))


def quadrant(x: np.ndarray) -> np.ndarray:
    return 2 * (x[:, 0] > 0) + (x[:, 1] > 0)


def value(x: np.ndarray) -> np.ndarray:
    return np.sin(2 * x[:, 0]) + x[:, 1]


CASES = {
    "classes": (AltMinClassifier, X[np.argsort(quadrant(X), kind="stable")], quadrant, NEW),
    "targets": (AltMinRegressor, X[np.argsort(value(X))], value, NEW),
    "drift": (AltMinRegressor, X + DRIFT, value, NEW + DRIFT[::2]),
}


def given(home: Any, face: str, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    match face:
        case "arrays":
            return x, y
        case "dask":
            return da.from_array(x, chunks=(400, 6)), da.from_array(y, chunks=300)
        case "csv":
            pd.DataFrame(x, columns=list("abcdef")).assign(y=y).to_csv(home / "t.csv", index=False)
            return home / "t.csv", None
        case "store as it is":
            source = array_source(x, y)
            return ingest(source, home / "s.zarr", chunk_rows=200, dtype="float64", shuffle=False).path, None
    raise AssertionError(face)


FACES = ["arrays", "dask", "csv", "store as it is"]
QUICK = [("drift", "csv")]


@pytest.mark.slow
@pytest.mark.parametrize("sort", slow_but(QUICK, product(CASES, FACES)), ids=" ".join)
def test_they_train_as_well_as_shuffled_ones(sort, tmp_path):
    case, face = sort
    kind, x, truth, new = CASES[case]
    y, order = truth(x), np.random.default_rng(1).permutation(ROWS)

    def fitted(X: Any, y: Any) -> float:
        model = kind((16,), random_state=0, workers=1, max_sweeps=12, chunk_rows=None)
        return float(model.fit(X, y).score(new, truth(new)))

    assert fitted(*given(tmp_path, face, x, y)) > fitted(x[order], y[order]) - 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    slow_but([("auto", ("--no-shuffle",))], product(["auto", "windows"], [(), ("--no-shuffle",)])),
    ids=str,
)
def test_the_command_says_no_more_than_new_samples_do(how, altmin, tmp_path):
    """A record is of rows from all over the store, not of the first classes."""
    schedule, words = how
    rows = CASES["classes"][1]
    np.savez(tmp_path / "sorted.npz", x=rows, y=quadrant(rows))
    np.savez(tmp_path / "new.npz", x=NEW, y=quadrant(NEW))
    assert altmin("ingest", "sorted.npz", "s.zarr", "--chunk-rows", 200, *words).code == 0
    training = {"schedule": schedule, "max_sweeps": 12, "evaluation_rows": 600}
    network = {"hidden_layer_sizes": [16], "activation": "sigmoid", "dtype": "float32"}
    write_pipeline(tmp_path / "p.toml", "s.zarr", "classifier", training=training, network=network)
    assert altmin("train", "p.toml", "--run", "run").code == 0
    told = read_records(RunFolder(tmp_path / "run"))[-1].nested_accuracy
    real = json.loads(altmin("evaluate", "run", "new.npz", "--json").out)["accuracy"]
    assert told == pytest.approx(real, abs=0.05)
    assert real > 0.9


# --- steps that are taken back


def sums_of(loss: float, n: int = 100) -> KroneckerSums:
    sums = KroneckerSums([(1, 2)], False)
    sums.totals[:] = n, n * loss, n * loss**2
    return sums


def test_a_group_that_is_hard_by_any_weights_is_no_reason_to_take_a_step_back():
    state = KFACState.start((np.zeros((1, 2), np.float32),))
    state.loss_ema, state.loss_variance_ema = 0.1, 0.01
    hard = sums_of(5.0)
    assert state.is_suspect(hard)
    assert not state.did_harm(hard, 0.0, before=4.0)
    assert state.did_harm(hard, 0.0, before=0.2)
    assert state.did_harm(hard, 0.0, before=float("nan"))
