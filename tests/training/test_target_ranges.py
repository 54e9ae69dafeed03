"""Targets outside the range of an output's activation are refused, in whatever way they come."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from choices import taking_turns
from command import foreign, refused, write_pipeline
from in_order import ingest

from altmin_dask.config import make_pipeline
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import DataError
from altmin_dask.estimators import AltMinAutoencoder, AltMinRecurrentRegressor, AltMinRegressor
from altmin_dask.execution.threads import Threads
from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.storage.zarr_chunks import RowBlock
from altmin_dask.training.problem import build_problem

RNG = np.random.default_rng(5)
X = RNG.random((60, 4))
SEQUENCES = RNG.normal(size=(60, 5, 2))
RANGES = {
    "identity": (-np.inf, np.inf, ""),
    "leaky_relu": (-np.inf, np.inf, ""),
    "sigmoid": (0, 1, "a sigmoid output only reaches [0, 1]"),
    "tanh": (-1, 1, "a tanh output only reaches [-1, 1]"),
    "relu": (0, np.inf, "a relu output only reaches [0, ∞)"),
    "softplus": (0, np.inf, "a softplus output only reaches [0, ∞)"),
    "elu": (-1, np.inf, "an elu output only reaches [-1, ∞)"),
    "gelu": (-0.16997120747990369, np.inf, "a gelu output only reaches [-0.169971, ∞)"),
    "silu": (-0.2784645427610738, np.inf, "a silu output only reaches [-0.278465, ∞)"),
}
KINDS = ["autoencoder", "regressor", "recurrent_regressor", "stepwise"]
FEW = ["identity", "sigmoid", "elu", "tanh"]
OTHERS = [
    pytest.param(*pair, marks=pytest.mark.slow) for pair in product(RANGES, KINDS) if pair[0] not in FEW
]


def values(activation: str, row: int | None = None, value: float = 0.0, columns: int = 3) -> np.ndarray:
    """Targets that reach the ends of a range, and one that is replaced."""
    low, high, _ = RANGES[activation]
    low, high = max(low, -1e3), min(high, 1e3)
    targets = low + (high - low) * RNG.random((60, columns))
    targets[3, 1], targets[4, 2] = low, high
    if row is not None:
        targets[row, 1] = value
    return targets


def beyond(activation: str) -> list[float]:
    low, high, _ = RANGES[activation]
    return [end + step for end, step in ((low, -1e-3), (high, 1e-3)) if np.isfinite(end)]


def store_of(kind: str, folder: Path, targets: np.ndarray) -> Path:
    """Samples and targets for a kind of network."""
    if kind == "autoencoder":
        return foreign(folder, targets)
    if kind == "regressor":
        return foreign(folder, X, targets)
    if kind == "recurrent_regressor":
        return foreign(folder, SEQUENCES, targets)
    return foreign(folder, SEQUENCES[:, :3], targets[:, :, None])


def pipeline_of(file: Path, kind: str, store: Path, activation: str, **tables: Any) -> Path:
    kind = "recurrent_regressor" if kind == "stepwise" else kind
    network = {"output_activation": activation, "initialization": "random"}
    training = {"schedule": "kfac", "max_sweeps": 1}
    return write_pipeline(file, store, kind, network=network, training=training, **tables)


def test_ranges_are_those_of_the_functions():
    assert set(RANGES) == set(ACTIVATIONS)
    z = np.r_[
        np.linspace(-3.0, 3.0, 600_001), -1e4, 1e4
    ]  # the least of gelu and silu is at -0.752 and -1.278
    for name, activation in ACTIVATIONS.items():
        low, high, _ = RANGES[name]
        assert (activation.low, activation.high) == (low, high)
        found = activation.value(z)
        assert ((found >= low) & (found <= high)).all()
        assert low == -np.inf or found.min() == pytest.approx(low, abs=1e-10)
        assert high == np.inf or found.max() == high


@pytest.mark.parametrize(("activation", "kind"), [*taking_turns(FEW, KINDS), *OTHERS])
def test_targets_beyond_an_output_are_refused(activation, kind, altmin, tmp_path):
    sentence, name = RANGES[activation][2], "x" if kind == "autoencoder" else "y"
    good = store_of(kind, tmp_path / "good.zarr", values(activation))
    pipeline_of(tmp_path / "p.toml", kind, good, activation)
    done = altmin("train", "p.toml", "--run", "run")  # the ends themselves are allowed
    assert (done.code, done.err) == (0, "")
    for number, value in enumerate(beyond(activation)):
        bad = store_of(kind, tmp_path / f"bad{number}.zarr", values(activation, 41, value))
        for words in (["--set", f"data.train={bad}"], ["--set", f"data.validation={bad}"]):
            outcome = altmin("train", "p.toml", "--run", "other", *words)
            refused(outcome, sentence)
            assert re.search(rf"{name} of \S*bad{number}.zarr runs from \S+ to \S+ \(row 41", outcome.err)
            assert f"column 1: {value:.9g})" in outcome.err
            assert f"{value:.9g}" in outcome.err.split("(row")[0]  # among the ends
            assert "choose another output_activation" in outcome.err
        outcome = altmin("evaluate", "run", bad, "--json")
        refused(outcome, sentence)
        assert outcome.out == ""
    assert json.loads(altmin("evaluate", "run", good, "--json").out)["samples"] == 60


@pytest.mark.slow
@pytest.mark.parametrize("way", ["array", "dask", "partial", "held out"])
@pytest.mark.parametrize("activation", [name for name in RANGES if beyond(name)])
def test_estimators_refuse_targets_beyond_an_output(activation, way):
    sentence = re.escape(RANGES[activation][2])
    options: dict[str, Any] = {"output_activation": activation, "max_sweeps": 1, "random_state": 0}
    if way == "held out":
        options["early_stopping"] = True

    def fit(estimator: Any, x: np.ndarray, *y: np.ndarray) -> None:
        if way == "dask":
            x = da.from_array(x, chunks=(25, *x.shape[1:]))
        method = "partial_fit" if way == "partial" and hasattr(estimator, "partial_fit") else "fit"
        getattr(estimator, method)(x, *y)

    fit(AltMinRegressor(3, **options), X, values(activation))
    for value in beyond(activation):
        targets = values(activation, 41, value)
        with pytest.raises(DataError, match=rf"^y of .*runs from .*{sentence}"):
            fit(AltMinRegressor(3, **options), X, targets)
        with pytest.raises(DataError, match=rf"^y of .*runs from .*{sentence}"):
            fit(AltMinRegressor(3, **options), X, targets[:, 1])
        with pytest.raises(DataError, match=rf"^x of .*runs from .*{sentence}"):
            fit(AltMinAutoencoder(2, **options), targets)
        with pytest.raises(DataError, match=rf"^y of .*runs from .*{sentence}"):
            fit(AltMinRecurrentRegressor(3, **options), SEQUENCES, targets)


def test_partial_fit_refuses_later_targets_as_well():
    regressor = AltMinRegressor(3, output_activation="tanh", random_state=0).partial_fit(X, values("tanh"))
    with pytest.raises(DataError, match=r"row 7, column 1: -2\).*only reaches \[-1, 1\]"):
        regressor.partial_fit(X, values("tanh", 7, -2.0))


def test_binary_cross_entropy_wants_the_range_of_its_sigmoid():
    with pytest.raises(DataError, match=r"a sigmoid output only reaches \[0, 1\]"):
        AltMinRegressor(3, loss="binary_cross_entropy").fit(X, values("sigmoid", 2, 1.5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_not_refused(dtype, tmp_path):
    """A MinMaxScaler gives 1.0000000000000002."""
    network = {"kind": "regressor", "dtype": dtype, "output_activation": "sigmoid"}
    for number, (end, step, fits) in enumerate([(1, 2, True), (1, 20, False), (0, 2, True), (0, 20, False)]):
        y = values("sigmoid").astype(dtype)
        y[9, 0] = end + (step if end else -step) * np.finfo(dtype).eps
        store = SampleStore.open(foreign(tmp_path / f"{number}.zarr", X.astype(dtype), y))
        pipeline = make_pipeline({"data": {"train": store.path}, "network": network})
        if fits:
            build_problem(pipeline, store, None, Threads(1))
        else:
            with pytest.raises(DataError, match="row 9, column 0"):
                build_problem(pipeline, store, None, Threads(1))


def test_columns_of_tables_are_named(altmin, tmp_path):
    frame = pd.DataFrame({"a": X[:, 0], "price": X[:, 1] - 0.5, "y": X[:, 2]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "p.toml").write_text(
        '[data]\ntrain = "t.csv"\n[network]\nkind = "autoencoder"\nhidden_layer_sizes = [2]\n'
    )
    outcome = altmin("train", "p.toml", "--run", "run")
    refused(outcome, "column 'price': -0.")
    assert "altmin: x of t.csv runs from" in outcome.err  # its store is gone by now
    assert "scale it (data.scale, ingest --scale)" in outcome.err
    refused(altmin("train", "p.toml", "--run", "run", "data.standardize=true"), "leave out standardize")


def test_padding_of_sequences_is_no_target(tmp_path):
    lengths, y = np.arange(60) % 5 + 1, RNG.random((60, 5, 2))
    y[np.arange(5) >= lengths[:, None]] = -999.0
    network = {"kind": "recurrent_regressor", "output_activation": "sigmoid"}
    store = ingest(array_source(SEQUENCES, y, lengths=lengths), tmp_path / "s.zarr", chunk_rows=25)
    pipeline = make_pipeline({"data": {"train": store.path}, "network": network})
    build_problem(pipeline, store, None, Threads(1))
    y[44, 0, 1] = 1.5
    store = ingest(array_source(SEQUENCES, y, lengths=lengths), tmp_path / "t.zarr", chunk_rows=25)
    with pytest.raises(DataError, match=r"row 44, column 1: 1\.5"):
        build_problem(pipeline, store, None, Threads(1))


@pytest.mark.parametrize("recorded", [False, True])
def test_the_check_costs_no_pass_of_its_own(recorded, tmp_path, monkeypatch):
    read, given = [], RowBlock.read

    def counted(self):
        read.append((self.location, self.starts))
        return given(self)

    monkeypatch.setattr(RowBlock, "read", counted)
    y = values("tanh")
    if recorded:
        store = ingest(array_source(X, y), tmp_path / "s.zarr", chunk_rows=16, dtype="float64")
    else:
        store = SampleStore.open(foreign(tmp_path / "s.zarr", X, y))
    network = {"kind": "regressor", "output_activation": "tanh", "dtype": "float64", "standardize": "none"}
    build_problem(make_pipeline({"data": {"train": store.path}, "network": network}), store, None, Threads(1))
    assert len(read) == len(set(read)) == (0 if recorded else 2 * 4)
