"""Runs of recurrent networks on real stores: what must hold whatever the schedule, the place and the cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from command import foreign, refused, write_pipeline
from in_order import ingest

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.data.open import open_source
from altmin_dask.data.source import array_source
from altmin_dask.networks.nested import Pass
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.solvers.kfac import KFACState
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore
from altmin_dask.types import Batch

RNG = np.random.default_rng(0)
STEPS = 6
SEQUENCES = RNG.normal(size=(150, STEPS, 3))
SIGNS = (SEQUENCES[:, :, 0].sum(axis=1) > 0).astype(np.int64)
RUNNING = (np.cumsum(SEQUENCES[:, :, 0], axis=1) > 0).astype(np.int64)
SUMS = SEQUENCES.sum(axis=1)[:, :2]
LENGTHS = RNG.integers(1, STEPS + 1, len(SEQUENCES))

SCHEDULES: dict[str, dict[str, dict[str, Any]]] = {
    "kfac": {"training": {"schedule": "kfac", "group_chunks": 2}},
    "increments with finite μ": {
        "training": {"schedule": "kfac", "group_chunks": 2},
        "solver": {"mu": 50.0},
    },
    "windows": {"training": {"schedule": "windows", "first_window": 2, "window_passes": 2}},
    "batch": {"training": {"schedule": "batch"}},
    "L1": {"solver": {"penalty": "l1"}, "training": {"schedule": "incremental"}},
    "multipliers": {
        "solver": {"penalty": "multipliers"},
        "training": {"schedule": "windows", "first_window": 2},
    },
}


def make(train: Any, kind: str = "recurrent_classifier", **tables: dict[str, Any]) -> Pipeline:
    settings: dict[str, Any] = {
        "data": {"train": str(train)},
        "network": {"kind": kind, "hidden_layer_sizes": (5,), "dtype": "float64"},
        "training": {"max_sweeps": 3.0, "n_iter_no_change": None},
        "cluster": {"workers": 2},
    }
    for name, table in tables.items():
        settings[name] = {**settings.get(name, {}), **table}
    return Pipeline.model_validate(settings)


def train(pipeline: Pipeline, folder: Path, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    run = RunFolder(folder)
    records = runs.train(pipeline, run, log=lambda line: None, **options)
    state = restore(run)
    assert state is not None
    return state, records


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def written(x: Any, y: Any, chunk_rows: int = 20, **beside: Any) -> Path:
        folder = tmp_path_factory.mktemp("store") / "samples.zarr"
        ingest(array_source(x, y, **beside), folder, chunk_rows=chunk_rows, dtype="float64")
        return folder

    return written


def same_bits(a: Any, b: Any) -> None:
    for mine, theirs in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_run_on_a_cluster_is_the_uninterrupted_one_in_threads(
    name, store, tmp_path, cluster_address
):
    samples = store(SEQUENCES, SIGNS, lengths=LENGTHS)
    whole, records = train(make(samples, **SCHEDULES[name]), tmp_path / "whole")
    tables = SCHEDULES[name]
    short = {**tables, "training": {**tables.get("training", {}), "max_sweeps": 1.5}}
    train(make(samples, **short), tmp_path / "cut", scheduler=cluster_address)
    resumed, again = train(make(samples, **tables), tmp_path / "cut", resume=True, scheduler=cluster_address)
    same_bits(whole, resumed)
    assert again[-1].nested_loss == records[-1].nested_loss
    assert records[-1].nested_loss < records[0].nested_loss


@pytest.mark.parametrize(
    "name", ["incremental", *(pytest.param(name, marks=pytest.mark.slow) for name in ("batch", "windows"))]
)
def test_f_never_rises_between_entries(name, store, tmp_path):
    samples = store(SEQUENCES, RUNNING, lengths=LENGTHS)
    training = {"schedule": name, "max_sweeps": 6.0, "first_window": 8 if name == "windows" else None}
    pipeline = make(
        samples,
        training=training,
        solver={"mu": 1.0, "ridge": 0.1},
        network={"hidden_layer_sizes": (4, 3), "head_layer_sizes": (3,)},
    )
    _, records = train(pipeline, tmp_path / "run")
    values = [r.relaxed_objective for r in records if r.relaxed_objective is not None]
    assert len(values) >= 5
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(values))
    assert values[-1] < 0.9 * values[0]


def test_chunking_does_not_change_the_result(store, tmp_path):
    found = []
    for rows in (15, 50):
        pipeline = make(
            store(SEQUENCES, SUMS, rows),
            "recurrent_regressor",
            training={"schedule": "batch", "max_sweeps": 3.0},
        )
        found.append(train(pipeline, tmp_path / str(rows))[0].weights)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_statistics_follow_moving_states(store, tmp_path):
    """The sums after replacing groups are those of the z on disk, the first Gram matrix with its states included."""
    samples = store(SEQUENCES, SIGNS)
    run = RunFolder(tmp_path / "run")
    pipeline = make(samples, training={"schedule": "incremental", "max_sweeps": 2.0}, solver={"mu": 0.5})
    runs.train(pipeline, run, log=lambda line: None)
    state, model = restore(run), Model.load(run.model)
    assert model.network.inputs_move
    assert len(set(state.algorithm_state.generations)) == 1
    z = np.asarray(
        zarr.open_array(f"{run.latent}/{state.algorithm_state.generations[0]:06d}.zarr", mode="r")[:]
    )
    states = np.tanh(z[:, : STEPS * 5].reshape(150, STEPS, 5))
    before = np.concatenate([np.zeros((150, 1, 5)), states[:, :-1]], axis=1)
    inputs = np.concatenate([SEQUENCES, before, np.ones((150, STEPS, 1))], axis=2).reshape(-1, 9)
    np.testing.assert_allclose(
        state.algorithm_state.statistics.gram[0], inputs.T @ inputs, rtol=1e-9, atol=1e-8
    )
    cross = z[:, : STEPS * 5].reshape(-1, 5).T @ inputs
    np.testing.assert_allclose(state.algorithm_state.statistics.cross[0], cross, rtol=1e-8, atol=1e-8)


# never explodes


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_steps_that_explode_are_taken_back(activation, tmp_path, monkeypatch):
    """Nearly without damping steps overshoot: they are refused, and the run ends better than it began."""
    refused_steps = []
    real = KFACState.reject_step

    def counted(memory: KFACState) -> Any:
        refused_steps.append(memory.steps)
        return real(memory)

    monkeypatch.setattr(KFACState, "reject_step", counted)
    pipeline = make(
        "adding:rows=256,steps=40",
        "recurrent_regressor",
        data={"chunk_rows": 32},
        network={"hidden_layer_sizes": (24,), "activation": activation, "dtype": "float32"},
        training={"group_chunks": 1, "max_sweeps": 10.0},
        solver={"output_damping": 1e-7, "proximal": 1e-6, "ridge": 0.0},
    )
    _, records = train(pipeline, tmp_path / "run")
    losses = [record.nested_loss for record in records]
    assert refused_steps
    assert np.isfinite(losses).all()
    model = Model.load(RunFolder(tmp_path / "run").model)
    assert min(losses) < losses[0]
    x, y = next(iter(open_source("adding:rows=256,steps=40").blocks(256)))
    loss = Pass.forward(model.network, model.weights, Batch(x, y[:, None])).loss.mean()
    assert loss == pytest.approx(min(losses), rel=1e-4)


# from the command line


def test_sequences_of_other_lengths_are_evaluated_and_predicted(altmin, tmp_path, store):
    pipeline = write_pipeline(
        tmp_path / "p.toml",
        store(SEQUENCES, RUNNING, lengths=LENGTHS),
        "recurrent_classifier",
        training={"schedule": "kfac", "max_sweeps": 2, "group_chunks": 2},
    )
    assert altmin("train", pipeline, "--run", "run").code == 0
    longer = RNG.normal(size=(30, 9, 3))
    y = (np.cumsum(longer[:, :, 0], axis=1) > 0).astype(np.int64)
    place = foreign(tmp_path / "longer.zarr", longer, y)
    refused(altmin("evaluate", "run", "longer.zarr"), "longer.zarr has none; give lengths")
    zarr.open_group(place).create_array("lengths", data=np.full(30, 9), chunks=(16,))
    found = altmin("evaluate", "run", "longer.zarr", "--json")
    assert found.code == 0, found
    assert altmin("predict", "run", "longer.zarr", "out.zarr").code == 0
    group = zarr.open_group("out.zarr", mode="r")
    assert group["prediction"].shape == (30, 9, 2)
    labels = np.asarray(group["label"][:])
    np.testing.assert_array_equal(labels, np.asarray(group["prediction"][:]).argmax(axis=2))
    assert json.loads(found.out)["accuracy"] == pytest.approx(np.mean(labels == y))
    model = Model.load(tmp_path / "run" / "model")
    expected = model.network.with_steps(9).predict(model.weights, Batch(longer))
    np.testing.assert_allclose(np.asarray(group["prediction"][:]), expected.reshape(30, 9, 2), rtol=1e-6)


def test_lengths_and_states_of_an_npz_come_along(altmin, tmp_path):
    states = RNG.normal(size=(150, 5))
    np.savez(tmp_path / "s.npz", x=SEQUENCES, y=SIGNS, lengths=LENGTHS, states=states)
    assert (
        altmin("ingest", "s.npz", "s.zarr", "--chunk-rows", 32, "--dtype", "float64", "--no-shuffle").code
        == 0
    )
    group = zarr.open_group("s.zarr", mode="r")
    np.testing.assert_array_equal(group["lengths"][:], LENGTHS)
    np.testing.assert_array_equal(group["states"][:], states)
    pipeline = write_pipeline(
        tmp_path / "p.toml", "s.zarr", "recurrent_classifier", training={"schedule": "kfac"}
    )
    outcome = altmin("train", pipeline, "--run", "run")
    assert outcome.code == 0, outcome
    model = Model.load(tmp_path / "run" / "model")
    found = altmin("evaluate", "run", "s.zarr", "--json")
    full = Batch(SEQUENCES, SIGNS, lengths=LENGTHS, states=states)
    loss = evaluate_chunk(model.network, model.weights, full).mean_loss
    assert json.loads(found.out)["loss"] == pytest.approx(loss, rel=1e-12)
    for less in (replace(full, lengths=None), replace(full, states=None)):
        assert evaluate_chunk(model.network, model.weights, less).mean_loss != pytest.approx(loss, rel=1e-6)
    plan = altmin("plan", pipeline)
    assert plan.code == 0, plan


LONG = np.zeros(150, np.int64) + 7


@pytest.mark.parametrize(
    ("arrays", "tables", "sentence"),
    [
        ({"x": SEQUENCES[:, 0], "y": SIGNS}, {}, "which are no sequences; give x of shape (samples, steps,"),
        (
            {"x": SEQUENCES, "y": SIGNS},
            {"network": {"steps": 4}},
            "network.steps = 4 does not fit samples of shape",
        ),
        ({"x": SEQUENCES, "y": SIGNS}, {"network": {"loss_at": "every"}}, 'set network.loss_at = "last"'),
        ({"x": SEQUENCES, "y": RUNNING}, {"network": {"loss_at": "last"}}, "the last step needs one label"),
        ({"x": SEQUENCES, "y": RUNNING}, {"network": {"kind": "classifier"}}, "a classifier needs one"),
        (
            {"x": SEQUENCES, "y": SIGNS, "lengths": LONG},
            {},
            "has the length 7; sequences have 1 to 6 steps here",
        ),
        (
            {"x": SEQUENCES, "y": SIGNS, "lengths": LENGTHS},
            {"network": {"kind": "classifier"}},
            "only a recurrent",
        ),
        ({"x": SEQUENCES, "y": SIGNS, "lengths": LENGTHS[:9]}, {}, "give arrays that belong together"),
        (
            {"x": SEQUENCES, "y": SIGNS, "states": np.zeros((150, 4))},
            {},
            "have 4 values; the recurrent layers have 5",
        ),
        (
            {"x": SEQUENCES, "y": SIGNS},
            {"network": {"initialization": "layerwise"}},
            "is for chains; leave it out",
        ),
        ({"x": SEQUENCES, "y": SIGNS}, {"network": {"hidden_layer_sizes": []}}, "one layer or more"),
        ({"x": SEQUENCES, "y": SIGNS}, {"solver": {"curvature": "exact"}}, "'exact' is for chains"),
        (
            {"x": SEQUENCES, "y": SIGNS},
            {"network": {"kind": "classifier", "head_layer_sizes": [3]}},
            "network.head_layer_sizes is for recurrent networks; network.kind is 'classifier'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(arrays, tables, sentence, altmin, tmp_path):
    np.savez(tmp_path / "s.npz", **arrays)
    kind = tables.get("network", {}).get("kind", "recurrent_classifier")
    pipeline = write_pipeline(tmp_path / "p.toml", "s.npz", kind, **tables)
    outcome = altmin("train", pipeline, "--run", "run")
    refused(outcome, sentence)
    assert not (tmp_path / "run").exists()


def test_lengths_of_a_store_that_others_wrote_are_checked(altmin, tmp_path):
    folder = foreign(tmp_path / "s.zarr", SEQUENCES, SIGNS)
    zarr.open_group(folder, mode="r+").create_array("lengths", data=LONG, chunks=(16,))
    pipeline = write_pipeline(tmp_path / "p.toml", folder, "recurrent_classifier")
    refused(altmin("train", pipeline, "--run", "run"), "row 0 of")


def test_the_adding_problem_is_what_it_says():
    source = open_source("adding:rows=3000,steps=7,seed=3")
    x, y = next(iter(source.blocks(3000)))
    assert x.shape == (3000, 7, 2)
    marks = x[:, :, 1]
    assert set(np.unique(marks)) == {0, 1}
    np.testing.assert_array_equal(marks[:, :3].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, 3:].sum(axis=1), 1)
    np.testing.assert_allclose((x[:, :, 0] * marks).sum(axis=1), y, rtol=1e-6)
    assert np.var(y) == pytest.approx(1 / 6, rel=0.1)
    other = open_source("adding:rows=3000,steps=7,seed=3:test")
    assert not np.array_equal(next(iter(other.blocks(3000)))[1], y)
    pieces = np.concatenate([block for block, _ in source.blocks(700)])
    np.testing.assert_array_equal(pieces, x)
