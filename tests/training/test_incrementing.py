"""Training by K-FAC steps on real stores: the same bits wherever it runs and is cut, the best model, no divergence."""

from __future__ import annotations

import json
import signal
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from choices import slow_but, taking_turns
from command import start, write_pipeline
from sklearn.datasets import load_digits
from training_runs import train

from altmin_dask import AltMinClassifier, runs
from altmin_dask.errors import RunError
from altmin_dask.networks.losses import Squared
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.solvers.kfac import KFACSettings, KFACState
from altmin_dask.solvers.preconditioner import KroneckerPreconditioner
from altmin_dask.solvers.schedules import KFACStep, Record, kfac_schedule
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training import trainer
from altmin_dask.training.algorithms import restore
from altmin_dask.training.kfac_training import KFACTraining, KFACTrainingState
from altmin_dask.types import Batch

STEPS = {"schedule": "kfac", "group_chunks": 2, "max_sweeps": 4.0}
AUTO = {"solver": {"mu": "auto"}, "training": STEPS}


@pytest.fixture
def store(samples, make_store):
    return make_store(samples, np.arange(200) % 3)


def memory_of(state: Any) -> KFACState:
    return state.algorithm_state.kfac_state


def same(first: Any, second: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("mu", "kind"), taking_turns(["auto", 5.0, [5.0, 2.0]], ["autoencoder", "classifier"])
)
def test_the_loss_falls_and_no_z_is_kept(kind, mu, store, pipeline, tmp_path):
    network = {"kind": kind, "activation": "sigmoid"}
    settings = pipeline(store.path, network=network, solver={"mu": mu}, training=STEPS)
    run, state, records = train(settings, tmp_path / "run")
    assert records[-1].nested_loss < 0.85 * records[0].nested_loss  # labels are by chance
    assert records[-1].mu == (None if mu == "auto" else (5.0, 5.0) if mu == 5.0 else tuple(mu))
    assert records[-1].relaxed_objective is None
    assert records[-1].sweep == 4
    assert not (run.path / "z").exists()
    assert not (run.path / "steps").exists()
    assert isinstance(state.algorithm_state, KFACTrainingState)
    assert memory_of(state).steps == 16


@pytest.mark.slow
@pytest.mark.parametrize("place", ["one thread", "cluster", pytest.param("local", marks=pytest.mark.slow)])
def test_threads_and_cluster_give_the_same_weights(place, store, pipeline, tmp_path, request):
    """Threads, one thread, two worker processes, one worker with two threads: the same bits."""
    tables = {**AUTO, "network": {"dtype": "float32"}}
    _, expected, _ = train(pipeline(store.path, **tables), tmp_path / "threads")
    cluster, options = {}, {}
    if place == "one thread":
        cluster = {"workers": 1}
    elif place == "local":
        cluster = {"kind": "local", "workers": 1, "threads_per_worker": 2, "dashboard": ":0"}
    else:
        options = {"scheduler": request.getfixturevalue("cluster_address")}
    _, state, _ = train(pipeline(store.path, cluster=cluster, **tables), tmp_path / "other", **options)
    assert same(expected.to_tensors().values(), state.to_tensors().values())


@pytest.mark.slow
def test_weights_pass_through_a_bucket(store, pipeline, tmp_path, bucket):
    _, expected, _ = train(pipeline(store.path, **AUTO), tmp_path / "here")
    settings = pipeline(store.path, **AUTO, output={"z": f"{bucket}/scratch"})
    run, state, _ = train(settings, tmp_path / "there")
    assert same(expected.to_tensors().values(), state.to_tensors().values())
    assert run.steps.startswith(bucket)


@pytest.mark.slow
@pytest.mark.parametrize("commit_seconds", slow_but([0.0], [0.0, 1e9]))
def test_resuming_equals_no_interruption(commit_seconds, store, pipeline, tmp_path, monkeypatch):
    """Bit for bit, wherever the run is cut and however often it commits."""
    whole = pipeline(store.path, **AUTO)
    _, expected, records = train(whole, tmp_path / "whole")
    monkeypatch.setattr(trainer, "COMMIT_SECONDS", commit_seconds)
    monkeypatch.setattr(trainer, "COMMIT_SHARE", 1e9)
    for sweeps in (0.1, 0.9, 1.7):
        tables = {**AUTO, "training": {**STEPS, "max_sweeps": sweeps}}
        train(pipeline(store.path, **tables), tmp_path / "cut", resume=sweeps > 0.1)
    _, state, resumed = train(whole, tmp_path / "cut", resume=True)
    assert same(expected.to_tensors().values(), state.to_tensors().values())
    pick = ("sweep", "nested_loss")
    assert {tuple(getattr(r, k) for k in pick) for r in records} <= {
        tuple(getattr(r, k) for k in pick) for r in resumed
    }


def finish(process: Any) -> None:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bits(store, tmp_path):
    file = write_pipeline(
        tmp_path / "p.toml",
        store.path,
        training={"schedule": "auto", "max_sweeps": 60},
        cluster={"workers": 1},
    )
    whole = start("train", file, "--run", tmp_path / "whole")
    finish(whole)
    for attempt in range(3):
        cut = start("train", file, "--run", tmp_path / "cut", *(["--resume"] if attempt else []))
        history = tmp_path / "cut" / "history.jsonl"
        size = history.stat().st_size if history.exists() else 0
        while cut.poll() is None and (not history.exists() or history.stat().st_size <= size + 1500):
            time.sleep(0.001)
        cut.send_signal(signal.SIGKILL)
        cut.communicate()
    finish(start("train", file, "--run", tmp_path / "cut", "--resume"))
    runs_ = [RunFolder(tmp_path / name) for name in ("whole", "cut")]
    states = [restore(run) for run in runs_]
    assert same(*(state.to_tensors().values() for state in states if state is not None))
    losses = [[record["nested_loss"] for record in run.records()] for run in runs_]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_best_model_is_kept_and_training_stops_without_progress(samples, make_store, pipeline, tmp_path):
    """Labels by chance: held-out loss rises soon, training loss does not."""
    rng = np.random.default_rng(0)
    x = rng.random((120, 12))
    train_store, held_out = (
        make_store(x[rows], rng.integers(3, size=60)) for rows in (slice(60), slice(60, None))
    )
    settings = pipeline(
        train_store.path,
        data={"validation": held_out.path},
        solver={"mu": "auto"},
        network={"kind": "classifier", "hidden_layer_sizes": (50,)},
        training={"schedule": "auto", "max_sweeps": 500.0, "n_iter_no_change": 5},
    )
    run, state, records = train(settings, tmp_path / "run")
    losses = [record.validation_loss for record in records]
    assert records[-1].sweep < 500
    assert losses[-1] > min(losses)
    assert len(losses) - 1 - state.best_record == 5
    assert min(losses) == state.best
    model = Model.load(run.model)
    x, y = np.asarray(held_out.x[:]), np.asarray(held_out.y[:]).ravel()
    logits = model.network.forward(model.weights, Batch(x))[-1]
    kept = model.network.loss.value(logits, model.network.loss.predict(logits.copy()), Targets(y)).mean()
    assert kept == pytest.approx(min(losses), rel=1e-6)


def test_a_step_too_far_is_taken_back(store, pipeline, tmp_path, monkeypatch):
    """Lengths a thousand times too large once: the run notices, goes back, is more careful, and still learns."""
    original = KroneckerPreconditioner.step_coefficients
    calls = 0

    def reckless(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, *arguments) * (1000 if calls == 6 else 1)

    monkeypatch.setattr(KroneckerPreconditioner, "step_coefficients", reckless)
    seen = []
    take_back = KFACState.reject_step
    monkeypatch.setattr(KFACState, "reject_step", lambda self: seen.append(self.steps) or take_back(self))
    _, state, records = train(pipeline(store.path, **AUTO), tmp_path / "run")
    assert seen
    assert records[-1].nested_loss < 0.8 * records[0].nested_loss
    assert memory_of(state).damping_scale < 4


def test_divergence_ends_in_a_sentence_and_the_best_model(store, pipeline, tmp_path, monkeypatch):
    """A loss whose gradient has the wrong sign from some step on: every step is one uphill."""
    reached = 0

    def uphill(self: Any, *arguments: Any) -> Any:
        nonlocal reached
        reached += 1
        return original(self, *arguments) * (1 if reached <= 8 else -300)

    original = KroneckerPreconditioner.step_coefficients
    monkeypatch.setattr(KroneckerPreconditioner, "step_coefficients", uphill)
    run = RunFolder(tmp_path / "run")
    settings = pipeline(store.path, **{**AUTO, "training": {**STEPS, "max_sweeps": 200.0}})
    with pytest.raises(RunError, match=r"the nested loss diverged.*try a larger solver"):
        runs.train(settings, run, log=lambda line: None)
    best = min(run.records(), key=lambda record: record["nested_loss"])
    model, x = Model.load(run.model), np.asarray(store.x[:])
    assert isinstance(model.network.loss.base, Squared)
    z = model.network.forward(model.weights, Batch(x))[-1]
    loss = model.network.loss.value(z, model.network.loss.predict(z.copy()), Targets(x)).mean()
    assert loss == pytest.approx(best["nested_loss"], rel=0.05)
    with pytest.raises(RunError, match="diverged"):  # also when it is resumed: nothing has changed
        runs.train(settings, run, log=lambda line: None, resume=True)


@pytest.mark.slow
def test_settings_by_rule(store, pipeline, tmp_path):
    captured: list[KFACSettings] = []
    original = KFACTraining.init

    def init(self: KFACTraining, initial: Any) -> None:
        captured.append(self.settings)
        original(self, initial)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KFACTraining, "init", init)
        train(pipeline(store.path, **AUTO), tmp_path / "a")
        train(pipeline(store.path, solver={"mu": "auto", "proximal": 0.7}, training=STEPS), tmp_path / "b")
    unknowns = 5 * 13 + 12 * 6
    assert captured[0].input_damping == pytest.approx(0.1 * unknowns / (64 * 12))
    assert captured[0].ridge == pytest.approx(0.01 / 200)
    assert captured[1].input_damping == 0.7


def test_the_schedule():
    actions = list(zip(range(200), kfac_schedule(5, seed=3), strict=False))
    steps = [action for _, action in actions if isinstance(action, KFACStep)]
    for number in range(10):
        assert sorted(s.group for s in steps if s.number == number) == [0, 1, 2, 3, 4]
    assert [s.group for s in steps[:5]] != [s.group for s in steps[5:10]]
    done, recorded = 0, []
    for _, action in actions:
        if isinstance(action, Record):
            recorded.append(done)
        else:
            done += 1
    assert recorded[:8] == [0, 1, 2, 3, 4, 5, 7, 9]
    assert max(np.diff(recorded)) == 8


def test_records_that_cost_much_are_further_apart():
    def recorded(apart: float) -> list[int]:
        kinds = [isinstance(action, Record) for action in islice(kfac_schedule(24, 3, apart), 400)]
        return (np.cumsum(~np.array(kinds))[kinds]).tolist()

    assert recorded(10.5)[:9] == [0, 1, 2, 4, 8, 16, 27, 38, 49]
    assert recorded(30)[:9] == [0, 1, 2, 4, 8, 16, 32, 56, 80]  # a pass at most
    assert recorded(0.2) == recorded(1.0)


@pytest.mark.slow
def test_reports_and_predictions_work_without_z(altmin, store, tmp_path):
    file = write_pipeline(Path("p.toml"), store.path, training={"schedule": "auto", "max_sweeps": 3})
    assert altmin("train", file, "--run", "run").code == 0
    assert altmin("report", "run").code == 0
    assert sorted(file.suffix for file in Path("run/report").iterdir()) == [".html", ".png", ".png"]
    shown = json.loads(altmin("evaluate", "run", store.path, "--json").out)
    assert shown["samples"] == 200
    assert altmin("predict", "run", store.path, "out.zarr").code == 0


def test_a_first_step_that_would_raise_the_loss_is_shortened(monkeypatch):
    """Digits as they come, at random weights: the model of the loss promises far too much (row 83 of LOG.md)."""
    x, y = load_digits(return_X_y=True)
    little = {"solver.proximal": 0.0418}  # half of the default, with which steps are shorter

    def losses() -> list[float]:
        model = AltMinClassifier(random_state=28, max_sweeps=2, workers=1, settings=little).fit(x, y)
        return [record["regularized_loss"] for record in model.history_]

    first, *others = losses()
    assert max(others) < 0.5 * first
    monkeypatch.setattr("altmin_dask.solvers.kfac_step.TRIED_STEPS", 0)
    assert losses()[1] > 5 * first
