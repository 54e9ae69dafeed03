"""Model, record and state are of one commit: wherever a run is cut, the model is the reported one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from models import make_model
from training_runs import train

from altmin_dask import inference, runs
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError, MissingError, RunError
from altmin_dask.estimators.watch import Stop
from altmin_dask.execution import tasks
from altmin_dask.execution.threads import Threads
from altmin_dask.inference import evaluate_store, predict_store
from altmin_dask.networks.builders import dense_network
from altmin_dask.solvers.evaluation import Evaluation
from altmin_dask.storage import atomic, model
from altmin_dask.storage import run as run_module
from altmin_dask.storage.atomic import folder_beside
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.weights import read_weights
from altmin_dask.training import trainer
from altmin_dask.training.algorithms import restore
from altmin_dask.training.callbacks import Callback
from altmin_dask.training.record import Record
from altmin_dask.types import Batch

FORMS = {
    "kfac": {"training": {"schedule": "kfac", "group_chunks": 1}, "solver": {"mu": "auto"}},
    "staleness 1": {
        "training": {"schedule": "kfac", "group_chunks": 1, "max_staleness": 1},
        "solver": {"mu": "auto"},
    },
    "incremental": {"training": {"schedule": "incremental"}},
    "windows": {"training": {"schedule": "windows", "first_window": 2, "window_passes": 1}},
}


class Cut(Exception):
    """In place of a kill."""


@pytest.fixture(autouse=True)
def _few_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """K-FAC steps commit with records only: much is lost by a kill."""
    monkeypatch.setattr(trainer, "COMMIT_SECONDS", 1e9)


@pytest.fixture
def store(samples, make_store):
    return make_store(samples)


@pytest.fixture
def wanted(store, pipeline) -> Callable[..., Any]:
    def make(form: str, sweeps: float) -> Any:
        tables = {name: dict(values) for name, values in FORMS[form].items()}
        tables["training"]["max_sweeps"] = sweeps
        # all samples, in their order: what `altmin evaluate` computes, to the last bit
        return pipeline(store.path, data={"validation": store.path}, cluster={"workers": 1}, **tables)

    return make


@pytest.fixture(scope="module")
def uncut() -> dict[str, RunFolder]:
    """Runs of two sweeps that nothing disturbs, by their form; made when first asked for."""
    return {}


def begin(pipeline: Any, folder: Path, **options: Any) -> RunFolder:
    run = RunFolder(folder)
    runs.train(pipeline, run, log=lambda line: None, **options)
    return run


def best(run: RunFolder) -> float:
    return min(record["validation_loss"] for record in run.records())


def loss_of_model(run: RunFolder, store: SampleStore) -> float:
    return evaluate_store(run, store, Threads(1)).mean_loss


class At:
    """Cut a run off before or after the n-th call of something."""

    def __init__(self, patch: Any, owner: Any, name: str, when: str, number: int) -> None:
        original = getattr(owner, name)
        self.calls = 0

        def cut(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == number and when == "before":
                raise Cut
            result = original(*arguments, **options)
            if self.calls == number:
                raise Cut
            return result

        patch.setattr(owner, name, cut)


WINDOWS = {
    # what is done with a record that is the best so far, in its order
    "the model is to be written": (Model, "stage", "before"),
    "the model is written": (Model, "stage", "after"),
    "the record is written": (RunFolder, "append", "after"),
    "the state is to be written": (run_module, "write_tensors", "before"),
    "the state is written": (run_module, "write_tensors", "after"),
    "the settings are in place": (model, "write_json", "after"),
    "the model is to be put in its place": (model.os, "replace", "before"),
    "the model is in its place": (model.os, "replace", "after"),
    "all is done": (RunFolder, "commit", "after"),
}


def cut_off(pipeline: Any, folder: Path, patch: Any, window: str, record: int) -> None:
    """Train until record number `record` (from 0), in which it is cut off."""
    owner, name, when = WINDOWS[window]
    evaluations = 0

    def arm() -> None:
        if window == "the settings are in place":  # they are always the same: pretend they are not
            patch.setattr(model, "_settings_of", lambda folder: None)
        if owner is model.os:
            original = os.replace

            def only_the_model(source: Any, target: Any) -> None:
                staged = Path(source).name.startswith(".model-")
                if staged and when == "before":
                    raise Cut
                original(source, target)
                if staged:
                    raise Cut

            patch.setattr(os, "replace", only_the_model)
        else:
            At(patch, owner, name, when, 1)

    evaluate = runs.RunContext.evaluate

    def evaluating(*arguments: Any) -> Any:
        nonlocal evaluations
        result = evaluate(*arguments)
        evaluations += 1
        if evaluations == 2 * record + 2:  # of training and of validation samples
            arm()
        return result

    patch.setattr(runs.RunContext, "evaluate", evaluating)
    with pytest.raises(Cut):
        begin(pipeline, folder)


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    "form", [form if form == "kfac" else pytest.param(form, marks=pytest.mark.slow) for form in FORMS]
)
def test_a_cut_in_every_window(form, window, uncut, wanted, store, tmp_path, tmp_path_factory, monkeypatch):
    """Resumed with the limit met the model is the reported one; resumed for good, all is as if nothing had been."""
    if form not in uncut:
        uncut[form] = begin(wanted(form, 2.0), tmp_path_factory.mktemp("uncut"))
    whole, cut = uncut[form], RunFolder(tmp_path / "cut")
    sweeps = [record["sweep"] for record in whole.records()]
    with monkeypatch.context() as patch:
        cut_off(wanted(form, 2.0), cut.path, patch, window, record=2)
    begin(wanted(form, sweeps[1]), cut.path, resume=True)
    assert [record["sweep"] for record in cut.records()] in (sweeps[:2], sweeps[:3])
    assert loss_of_model(cut, store) == best(cut)
    assert left_over(cut) == []
    begin(wanted(form, 2.0), cut.path, resume=True)
    # where an action has been taken from a record, it may stand there twice
    assert best(cut) == best(whole) == loss_of_model(cut, store)
    assert cut.weights.read_bytes() == whole.weights.read_bytes()
    states = [restore(run) for run in (whole, cut)]
    assert all(
        np.array_equal(a, b) for a, b in zip(*(s.weights for s in states if s is not None), strict=True)
    )
    assert (cut.model / "model.json").read_bytes() == (whole.model / "model.json").read_bytes()


def left_over(run: RunFolder) -> list[str]:
    """What is neither the model nor hidden for a reason."""
    return sorted(
        file.name
        for file in [*run.model.iterdir(), *run.path.iterdir()]
        if file.name.startswith(".") and file.name != ".lock"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "window", ["the model is written", "the state is written", "the settings are in place"]
)
def test_a_cut_in_the_first_record(window, wanted, store, tmp_path, monkeypatch):
    """There is no model yet, or the right one."""
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        cut_off(wanted("kfac", 1.0), run.path, patch, window, record=0)
    with pytest.raises(MissingError):
        Model.load(run.model)
    begin(wanted("kfac", 1.0), run.path, resume=True)
    assert loss_of_model(run, store) == best(run)


def test_readers_see_the_last_committed_best_model(wanted, store, tmp_path, monkeypatch):
    """At every moment of a run: while a record is made, after it was told, between two of them."""
    run, seen = RunFolder(tmp_path / "run"), 0
    committed: list[float] = []

    def check() -> None:
        nonlocal seen
        seen += 1
        if committed:
            assert loss_of_model(run, store) == min(committed)
        else:
            with pytest.raises(MissingError):
                Model.load(run.model)

    append, commit = RunFolder.append, RunFolder.commit

    def appending(self: RunFolder, record: Any) -> int:
        check()
        length = append(self, record)
        check()
        return length

    def committing(self: RunFolder, *state: Any) -> Path:
        check()
        file = commit(self, *state)
        committed[:] = [record["validation_loss"] for record in run.records()]
        if committed:
            check()
        return file

    class Reader(Callback):
        def on_progress(self, progress: Any) -> None:
            check()

        def on_record(self, record: Record) -> None:
            assert record.to_dict() == run.records()[-1]
            assert loss_of_model(run, store) == best(run)
            check()

    monkeypatch.setattr(RunFolder, "append", appending)
    monkeypatch.setattr(RunFolder, "commit", committing)
    runs.train(wanted("kfac", 1.0), run, [Reader()], log=lambda line: None)
    assert seen > 20


def test_whoever_is_told_of_a_record_may_stop_there(wanted, store, tmp_path):
    """An estimator's callback: the model is that of the records so far, and the run goes on from there."""
    run, told = RunFolder(tmp_path / "run"), []

    class Stopping(Callback):
        def on_record(self, record: Record) -> None:
            told.append(record.to_dict())
            if len(told) == 3:
                raise Stop

    with pytest.raises(Stop):
        runs.train(wanted("kfac", 2.0), run, [Stopping()], log=lambda line: None)
    assert run.records() == told
    state = restore(run)
    assert state is not None
    assert state.records == 3
    assert loss_of_model(run, store) == best(run)


def worse(found: Evaluation, loss: float) -> Evaluation:
    found.loss[...] = loss
    return found


def test_a_worse_record_leaves_the_model(wanted, store, tmp_path, monkeypatch):
    """Also through a cut, after which the same number is that of another record."""
    run = begin(wanted("kfac", 1.0), tmp_path / "run")
    before, kept = best(run), run.weights.read_bytes()
    evaluate = runs.RunContext.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(
            runs.RunContext,
            "evaluate",
            lambda *arguments: worse(evaluate(*arguments), before * 200 * 1.5),
        )
        begin(wanted("kfac", 2.0), tmp_path / "run", resume=True)
    assert len(run.records()) > 3
    assert best(run) == before == loss_of_model(run, store)
    assert run.weights.read_bytes() == kept
    state = restore(run)
    assert state is not None
    assert state.model < state.records - 1


# --- the two files of a model


def scaled(scale: float) -> Model:
    """A model whose weights say which settings they belong to."""
    one = make_model(dtype="float64")
    return replace(one, scale=scale, weights=tuple(np.full_like(w, scale) for w in one.weights))


def test_weights_of_one_model_are_never_read_with_settings_of_another(tmp_path, monkeypatch):
    scaled(2.0).save(tmp_path)
    replacing = os.replace

    def cut(source: Any, target: Any) -> None:
        if Path(target).name == "weights.safetensors":
            raise Cut
        replacing(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        staged = scaled(3.0).stage(tmp_path, 7)
        with pytest.raises(Cut):
            model.publish(tmp_path, 7)
    assert json.loads((tmp_path / "model.json").read_text())["scale"] == 3
    with pytest.raises(
        DataError, match=r"is damaged: model.json is not the one that weights.safetensors was"
    ):
        Model.load(tmp_path)
    # whoever reads just while the two are replaced waits for the second
    monkeypatch.setattr(
        model.time, "sleep", lambda seconds: replacing(staged, tmp_path / "weights.safetensors")
    )
    found = Model.load(tmp_path)
    assert found.scale == 3.0 == found.weights[0].flat[0]


def test_a_model_is_published_once_and_others_go(tmp_path):
    for number, scale in ((3, 2.0), (4, 5.0)):
        scaled(scale).stage(tmp_path, number)
    with pytest.raises(MissingError):
        Model.load(tmp_path)
    model.publish(tmp_path, 3)
    assert Model.load(tmp_path).scale == 2.0
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert sorted(before) == ["model.json", "weights.safetensors"]
    model.publish(tmp_path, 3)
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_models_without_settings_beside_their_weights_are_read(tmp_path):
    """As they were written before, or by hand."""
    scaled(2.0).save(tmp_path)
    weights = read_weights(tmp_path / "weights.safetensors")
    atomic.write_tensors(tmp_path / "weights.safetensors", model.layer_tensors(weights))
    assert Model.load(tmp_path).scale == 2.0


# --- readers that take longer than a model lasts


@pytest.fixture
def live(store, tmp_path, monkeypatch) -> RunFolder:
    """A run whose model is replaced twice as soon as a chunk of it has been used."""
    run = RunFolder(tmp_path / "run")
    network = make_network()
    models = [
        Model("autoencoder", network, network.initial_weights(seed, "float64"), (12,)) for seed in range(3)
    ]
    models[0].save(run.model)
    used = 0

    def replacing(original: Any) -> Any:
        def use(*arguments: Any, **options: Any) -> Any:
            nonlocal used
            result = original(*arguments, **options)
            used += 1
            if used == 1:
                for other in models[1:]:
                    other.save(run.model)
            return result

        return use

    monkeypatch.setattr(tasks, "evaluate_chunk", replacing(tasks.evaluate_chunk))
    monkeypatch.setattr(inference, "read_weights", replacing(inference.read_weights))
    return run


def make_network() -> Any:
    return dense_network([12, 5, 12], "tanh", "squared", "sigmoid")


def test_one_model_is_used_for_all_chunks(live, store, tmp_path):
    """Though the run goes on."""
    network = make_network()
    weights, x = network.initial_weights(0, "float64"), np.asarray(store.x[:])
    outputs = network.predict(weights, Batch(x))
    expected = 0.5 * ((outputs - x) ** 2).sum(axis=1).mean()
    assert evaluate_store(live, store, Threads(1)).mean_loss == pytest.approx(expected, rel=1e-12)
    assert left_over(live) == []


def test_one_model_predicts_all_chunks(live, store, tmp_path):
    network = make_network()
    written = predict_store(live, store, tmp_path / "p.zarr", Threads(1))
    expected = network.predict(network.initial_weights(0, "float64"), Batch(np.asarray(store.x[:])))
    np.testing.assert_allclose(zarr.open_array(f"{written}/prediction")[:], expected, rtol=1e-12)
    assert left_over(live) == []


def test_what_cannot_be_held_is_not_mixed(live, store, tmp_path, monkeypatch):
    """A folder that is only to be read, or has no links."""

    def refusing(*paths: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refusing)
    with pytest.raises(RunError, match=r"the model in .* was replaced while it was used.*when it has ended"):
        evaluate_store(live, store, Threads(1))
    assert left_over(live) == []
    assert evaluate_store(live, store, Threads(1)).samples == 200  # it is replaced no more


def test_what_a_killed_reader_has_left_goes(wanted, store, tmp_path, monkeypatch):
    run = begin(wanted("kfac", 1.0), tmp_path / "run")
    with folder_beside(run.model) as mine:
        dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-99999999-"))
        dead.mkdir()
        os.link(run.weights, dead / "weights.safetensors")
        begin(wanted("kfac", 1.0), tmp_path / "run", resume=True)
        assert left_over(run) == [mine.name]
    assert left_over(run) == []


def test_old_runs_go_on(wanted, store, tmp_path):
    """Whose states do not say which record the model is of."""
    run, state, _ = train(wanted("kfac", 1.0), tmp_path / "run")
    state.model = -1
    run.commit(state.to_tensors(), state.to_scalars())
    before = best(run)
    assert loss_of_model(run, store) == before
    begin(wanted("kfac", 2.0), tmp_path / "run", resume=True)
    assert loss_of_model(run, store) == best(run) < before
