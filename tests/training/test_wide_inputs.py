"""Runs on samples that are fewer than their values: as with the matrix of the inputs, and in much less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from choices import slow_but
from command import Altmin, foreign, write_pipeline
from training_runs import train

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor
from altmin_dask.config import make_pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.errors import RunError
from altmin_dask.solvers import kronecker
from altmin_dask.solvers.kronecker import MATRICES, Forms

ROWS, FEATURES = 60, 150
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, FEATURES))
Y = np.tanh(X[:, :8].sum(axis=1, keepdims=True)) + 0.1 * RNG.standard_normal((ROWS, 2))


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fewer inputs be wide ones: the tests are quicker."""
    monkeypatch.setattr(kronecker, "WIDE", 100)


def matrices(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(kronecker, "ROWS_SHARE", 0.0)


def settings(store: Path, **training: Any) -> Any:
    return make_pipeline(
        {
            "data": {"train": str(store)},
            "network": {"kind": "regressor", "hidden_layer_sizes": [5], "dtype": "float64"},
            "solver": {"ridge": 1.0, "penalize_bias": False},
            "training": {"schedule": "kfac", "max_sweeps": 2, "group_chunks": 1, **training},
            "cluster": {"workers": 2},
        }
    )


@pytest.fixture(params=slow_but(["shuffled"], ["shuffled", "as it is"]))
def store(request: Any, tmp_path: Path) -> Path:
    """Of whole chunks a step, or of parts of all chunks; the last one is shorter."""
    place = tmp_path / "s.zarr"
    if request.param == "as it is":
        return foreign(place, X, Y, chunk_rows=13)
    np.savez(tmp_path / "s.npz", x=X, y=Y)
    ingest(open_source(tmp_path / "s.npz"), place, chunk_rows=13, dtype="float64", shuffle=0)
    return place


@pytest.mark.slow
def test_a_run_is_that_with_the_matrix_to_rounding(store, tmp_path, monkeypatch):
    _, state, records = train(settings(store), tmp_path / "rows")
    kfac_state = state.algorithm_state.kfac_state
    assert kfac_state.forms == Forms(ROWS)
    assert kfac_state.steps == 10
    matrices(monkeypatch)
    _, dense, expected = train(settings(store), tmp_path / "matrix")
    assert dense.algorithm_state.kfac_state.forms == MATRICES
    for mine, theirs in zip(state.algorithm_state.weights, dense.algorithm_state.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-8 * np.abs(theirs).max())
    for ours, other in zip(records, expected, strict=True):
        assert ours.nested_loss == pytest.approx(other.nested_loss, rel=1e-8)
        if other.gradient_norm is not None:  # before the first step
            assert ours.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-6)


def test_a_resumed_run_goes_on_to_the_same_bits_in_the_form_it_began_with(store, tmp_path, monkeypatch):
    _, whole, _ = train(settings(store), tmp_path / "whole")
    train(settings(store, max_sweeps=1), tmp_path / "run")
    matrices(monkeypatch)  # as if the rule were another one now
    _, resumed, _ = train(settings(store), tmp_path / "run", resume=True)
    assert resumed.algorithm_state.kfac_state.forms == Forms(ROWS)
    for name, mine in resumed.algorithm_state.to_tensors().items():
        assert mine.tobytes() == whole.algorithm_state.to_tensors()[name].tobytes(), name


def test_a_state_of_other_rows_is_refused(tmp_path, monkeypatch):
    from altmin_dask.training.kfac_training import KFACTraining

    store = foreign(tmp_path / "s.zarr", X, Y, chunk_rows=13)
    train(settings(store, max_sweeps=1), tmp_path / "run")
    restore = KFACTraining.restore

    def shorter(self: Any, state: Any) -> None:
        state.kfac_state.input_factors[0] = state.kfac_state.input_factors[0][:-1]
        restore(self, state)

    monkeypatch.setattr(KFACTraining, "restore", shorter)
    with pytest.raises(RunError, match="state is of 59 rows, and there are 60 now"):
        train(settings(store), tmp_path / "run", resume=True)


def test_groups_that_are_late_train_as_well(tmp_path):
    store = foreign(tmp_path / "s.zarr", X, Y, chunk_rows=13)
    _, state, records = train(settings(store, max_staleness=2, max_sweeps=3), tmp_path / "run")
    assert state.algorithm_state.kfac_state.forms == Forms(ROWS)
    assert records[-1].nested_loss < 0.9 * records[0].nested_loss


def test_estimators_give_the_same_either_way(monkeypatch):
    labels = (X[:, :3].sum(axis=1) > 0).astype(int)

    def outputs() -> list[Any]:
        common: dict[str, Any] = {"random_state": 0, "dtype": "float64", "max_sweeps": 2, "workers": 1}
        return [
            AltMinClassifier((4,), **common).fit(X, labels).predict_proba(X),
            AltMinRegressor((4,), **common).fit(X, Y, sample_weight=1.0 + labels).predict(X),
        ]

    by_rows = outputs()
    matrices(monkeypatch)
    for mine, theirs in zip(by_rows, outputs(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-7)


def test_streams_learn_from_windows_of_rows():
    labels = (X[:, :3].sum(axis=1) > 0).astype(int)
    model = AltMinClassifier((4,), random_state=0, workers=1)
    for _ in range(2):
        for start in range(0, ROWS, 20):
            rows = slice(start, start + 20)
            model.partial_fit(X[rows], labels[rows], classes=[0, 1])
    assert model.score(X, labels) > 0.85
    # more rows than the form is for: the state goes on with the matrix, and back
    wide = RNG.standard_normal((200, FEATURES))
    model.partial_fit(wide, (wide[:, :3].sum(axis=1) > 0).astype(int))
    model.partial_fit(X, labels)
    assert model.score(X, labels) > 0.85


def test_a_wide_autoencoder_is_whitened_by_rows(monkeypatch):
    """From the same principal directions, whose signs are those of no processor: so the same start, and first step."""
    x = (RNG.random((40, 2)) @ RNG.random((2, 120))) / 2 + 0.01 * RNG.random((40, 120))

    def losses() -> Any:
        model = AltMinAutoencoder((6,), random_state=0, max_sweeps=3, workers=1, dtype="float64").fit(x)
        return model.loss_curve_

    by_rows = losses()
    matrices(monkeypatch)
    dense = losses()
    assert by_rows[0] == pytest.approx(dense[0], rel=1e-6)
    assert by_rows[1] == pytest.approx(dense[1], rel=1e-5)


def test_what_is_as_wide_as_it_gets_fits_and_what_does_not_is_told_what_helps(
    altmin: Altmin, tmp_path, monkeypatch
):
    monkeypatch.setattr(kronecker, "WIDE", 1024)
    wide = RNG.standard_normal((50, 30_000), dtype=np.float32)
    foreign(tmp_path / "s.zarr", wide, np.arange(50) % 2)
    small = {"memory_limit": "1 GiB", "workers": 1}
    write_pipeline(
        tmp_path / "p.toml",
        "s.zarr",
        "classifier",
        network={"dtype": "float32"},
        training={"schedule": "kfac", "max_sweeps": 2},
        cluster=small,
    )
    assert altmin("plan", "p.toml").code == 0
    assert altmin("train", "p.toml", "--run", "run").code == 0
    done = altmin("plan", "p.toml", "--set", "training.schedule=windows")
    assert done.code == 2
    assert "keeps matrices of 30,001 × 30,001" in done.err
    assert "training.schedule = 'kfac'" in done.err
    many = np.zeros((3000, 5000), np.float32)
    many[:, 0] = np.arange(3000)
    foreign(tmp_path / "m.zarr", many, np.arange(3000) % 2, chunk_rows=300)
    done = altmin("plan", "p.toml", "--set", "data.train=m.zarr", "--set", "cluster.memory_limit=600 MiB")
    assert done.code == 2
    assert "leave columns" in done.err
    assert "train on 2,500 rows at most" in done.err
