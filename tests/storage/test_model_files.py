"""Models and run folders on disk: what is written is read again, and damage is named, never guessed around."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make_model
from safetensors.numpy import load_file, save_file

from altmin_dask.errors import ConfigError, DataError, ExistsError, MissingError
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.atomic import new_folder
from altmin_dask.storage.model import Model
from altmin_dask.storage.ownership import Layout
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.weights import WeightStore, read_weights
from altmin_dask.training.algorithms import restore
from altmin_dask.training.alternating_state import AlternatingState
from altmin_dask.training.checkpoint import Checkpoint

# --- models


def test_weights_of_any_layout_come_back(tmp_path):
    """As files of a model, of a state, and of what is handed to tasks: safetensors itself writes what is in memory."""
    plain = make_model()
    layouts = [np.asfortranarray, lambda w: w.repeat(2, axis=1)[:, ::2], lambda w: w[::-1].copy()[::-1]]
    weights = tuple(make(w) for make, w in zip(layouts, plain.weights, strict=True))
    assert not any(w.flags.c_contiguous for w in weights)
    Model("autoencoder", plain.network, weights, (2, 3), 255.0).save(tmp_path / "model")
    published = WeightStore(str(tmp_path / "exchange")).publish(weights, "weights", 1)
    remote = WeightStore("memory://any-layout").publish(weights, "weights", 1)
    for found in (Model.load(tmp_path / "model").weights, read_weights(published), read_weights(remote)):
        for ours, theirs in zip(plain.weights, found, strict=True):
            np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["autoencoder", "classifier", "regressor"])
def test_models_come_back(kind, dtype, tmp_path):
    model = make_model(kind, dtype)
    model.save(tmp_path / "deep" / "model")
    back = Model.load(str(tmp_path / "deep" / "model"))
    assert (back.kind, back.sample_shape, back.scale) == (kind, (2, 3), 255.0)
    assert back.network.describe() == model.network.describe()
    for ours, theirs in zip(model.weights, back.weights, strict=True):
        assert theirs.dtype == dtype
        np.testing.assert_array_equal(ours, theirs)
    x = np.random.default_rng(0).random((5, 2, 3))
    np.testing.assert_array_equal(model.predict(x), back.predict(x))
    assert sorted(p.name for p in (tmp_path / "deep" / "model").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    make_model().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("altmin_dask.storage.atomic.os.replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_model("regressor").save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(MissingError, match="holds no trained model"):
        Model.load(tmp_path / "gone")
    make_model().save(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(MissingError, match=r"holds no trained model: .*weights"):
        Model.load(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("unpickled",)


def edited(**changes: Any) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        file = folder / "model.json"
        settings = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))

    return edit


def weighed(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "weights.safetensors")
        change(tensors)
        save_file(tensors, folder / "weights.safetensors")

    return edit


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut weights": lambda d: (d / "weights.safetensors").write_bytes(
        (d / "weights.safetensors").read_bytes()[:-9]
    ),
    "no weights": lambda d: (d / "weights.safetensors").write_bytes(b""),
    "pickled weights": lambda d: (d / "weights.safetensors").write_bytes(pickle.dumps(Bomb())),
    "pickled settings": lambda d: (d / "model.json").write_bytes(pickle.dumps(Bomb())),
    "cut settings": lambda d: (d / "model.json").write_text((d / "model.json").read_text()[:-9]),
    "a list": lambda d: (d / "model.json").write_text("[]"),
    "not text": lambda d: (d / "model.json").write_bytes(b"\xff\xff"),
    "unknown kind": edited(kind="forest"),
    "no kind": edited(kind=None),
    "no network": edited(network=None),
    "network of numbers": edited(network=5),
    "unknown network": edited(network={"shape": 5}),
    "later version": edited(version=99),
    "scale 0": edited(scale=0.0),
    "scale in words": edited(scale="big"),
    "other samples": edited(sample_shape=[5]),
    "a layer less": weighed(lambda t: t.pop("layer_2")),
    "another shape": weighed(lambda t: t.update(layer_2=t["layer_2"][:, 1:].copy())),
    "NaN": weighed(lambda t: t["layer_1"].fill(np.nan)),
    "whole numbers": weighed(lambda t: t.update(layer_1=t["layer_1"].astype(int))),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_models_are_named(case, tmp_path):
    make_model().save(tmp_path)
    DAMAGE[case](tmp_path)
    with pytest.raises(DataError, match=r"the model in .* is damaged|later version") as caught:
        Model.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- run folders

PIPELINE: dict[str, Any] = {"solver": {"mu": 0.1}, "network": {"sizes": (3,)}}


def make_state(cursor: int = 3) -> Checkpoint:
    model = make_model()
    statistics = Statistics(model.network.shapes, with_inputs=True)
    statistics.vector[:] = np.arange(len(statistics.vector))
    state = AlternatingState(model.weights, statistics, np.arange(4), passes=2)
    return Checkpoint(state, cursor, visits=50, cpu_seconds=1.5, wall_seconds=2.5)


def commit(run: RunFolder, state: Checkpoint) -> Path:
    return run.commit(state.to_tensors(), state.to_scalars())


def make_run(folder: Path) -> RunFolder:
    run = RunFolder(folder)
    run.manifest.write(PIPELINE, PIPELINE, stores={"train": "/elsewhere/train.zarr", "validation": None})
    return run


def test_states_come_back(tmp_path):
    run = make_run(tmp_path / "run")
    assert not run.started
    assert restore(run) is None
    state = make_state()
    state.history_bytes = run.append({"sweep": 0.0})
    run.append({"sweep": 1.0})  # after the commit: cut off
    assert commit(run, state) == run.state_file(3)
    back = restore(run)
    assert run.started
    assert back is not None
    assert back.to_scalars() == state.to_scalars()
    assert back.algorithm_state.statistics.vector.tolist() == state.algorithm_state.statistics.vector.tolist()
    assert back.algorithm_state.generations.tolist() == [0, 1, 2, 3]
    assert all(np.array_equal(a, b) for a, b in zip(back.weights, state.weights, strict=True))
    assert run.records() == [{"sweep": 0.0}]


def test_the_last_two_states_are_kept(tmp_path):
    run = make_run(tmp_path / "run")
    for cursor in range(5):
        commit(run, make_state(cursor))
    assert sorted(path.name[:8] for path in (run.path / "state").iterdir()) == ["00000003", "00000004"]
    back = restore(run)
    assert back is not None
    assert back.cursor == 4


def test_weights_of_a_new_file_are_not_those_of_the_old(tmp_path):
    model = make_model()
    model.save(tmp_path)
    old = read_weights(tmp_path / "weights.safetensors")
    assert read_weights(tmp_path / "weights.safetensors") is old
    Model(model.kind, model.network, tuple(2 * w for w in model.weights), (2, 3)).save(tmp_path)
    assert np.array_equal(read_weights(tmp_path / "weights.safetensors")[0], 2 * old[0])


SCALARS = json.dumps(make_state().to_scalars())


def change_state(change: Callable[[dict[str, np.ndarray]], object], scalars: str) -> Callable[[Path], object]:
    def edit(file: Path) -> None:
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"scalars": scalars})

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-5]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(pickle.dumps(Bomb())),
        change_state(lambda t: t.pop("generations"), SCALARS),
        change_state(lambda t: t.pop("statistics"), SCALARS),
        change_state(lambda t: t.update(statistics=t["statistics"][1:].copy()), SCALARS),
        change_state(lambda t: None, "[]"),
        change_state(lambda t: None, '{"cursor": 1'),
        change_state(lambda t: None, '{"speed": 1}'),
    ],
)
def test_damaged_states_are_named(damage, tmp_path):
    run = make_run(tmp_path / "run")
    file = commit(run, make_state())
    damage(file)
    with pytest.raises(DataError, match=r"state .*00000003.safetensors is damaged"):
        restore(run)


def test_a_history_that_lost_records(tmp_path):
    run = make_run(tmp_path / "run")
    state = make_state()
    state.history_bytes = run.append({"sweep": 0.0})
    commit(run, state)
    for spoil in (lambda: run.history.write_text("{}\n"), run.history.unlink):
        spoil()
        with pytest.raises(DataError, match="has lost records"):
            restore(run)


@pytest.mark.parametrize("tail", ['{"sweep": 1.0, "cpu_sec', "\x00\x00\x00", "5\n", "\n"])
def test_a_torn_history(tail, tmp_path):
    run = make_run(tmp_path / "run")
    state = make_state()
    state.history_bytes = run.append({"sweep": 0.0})
    commit(run, state)
    with run.history.open("a") as file:
        file.write(tail)
    with pytest.raises(DataError, match=r"line 2 of .*history.jsonl is damaged: .*--resume"):
        run.records()
    restore(run)
    assert run.records() == [{"sweep": 0.0}]


def test_numbers_that_are_none_are_never_written(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(ValueError, match="JSON"):
        run.append({"nested_loss": float("nan")})
    assert run.records() == []


def test_stores_move_with_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path("run"))
    made = str(tmp_path / "run" / "data" / "train.zarr")
    run.manifest.write(PIPELINE, PIPELINE, stores={"train": made, "validation": "s3://bucket/v.zarr"})
    assert run.manifest.stores() == {"train": made, "validation": "s3://bucket/v.zarr"}
    shutil.move("run", "moved")
    assert RunFolder(Path("moved")).manifest.stores()["train"] == str(
        tmp_path / "moved" / "data" / "train.zarr"
    )
    assert make_run(tmp_path / "other").manifest.stores() == {"train": "/elsewhere/train.zarr"}


def test_who_may_use_a_folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.check(PIPELINE, resume=False)
    with pytest.raises(MissingError, match="no run to resume"):
        run.check(PIPELINE, resume=True)
    make_run(run.path)
    run.check(PIPELINE, resume=True)
    with pytest.raises(ExistsError, match="--resume"):
        run.check(PIPELINE, resume=False)
    other = {"solver": {"mu": 0.2, "ridge": 1}, "network": {"sizes": [3]}}
    with pytest.raises(
        ConfigError, match=r"solver.mu: 0.1 there, 0.2 here; solver.ridge: left out there, 1 here"
    ):
        run.check(other, resume=True)


def test_shapes_of_the_samples_must_stay(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.manifest.write(PIPELINE, PIPELINE, shapes={"rows": 5, "network": (3, 4)})
    run.manifest.write(PIPELINE, PIPELINE, shapes={"rows": 6, "network": (3, 4)})  # nothing was committed yet
    commit(run, make_state())
    run.manifest.write(PIPELINE, PIPELINE, started=run.started, shapes={"rows": 6, "network": (3, 4)})
    with pytest.raises(DataError, match=r"rows: 6 there, 7 here"):
        run.manifest.write(PIPELINE, PIPELINE, started=run.started, shapes={"rows": 7, "network": (3, 4)})


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"", pickle.dumps(Bomb()), b'{"pipeline": 5}'])
def test_damaged_settings_are_named(content, tmp_path):
    run = make_run(tmp_path / "run")
    (run.path / "pipeline.json").write_bytes(content)
    with pytest.raises(DataError, match=r"pipeline.json is damaged"):
        run.manifest.pipeline()
    with pytest.raises((DataError, ConfigError)):
        run.check(PIPELINE, resume=True)


def test_settings_of_no_run(tmp_path):
    for ask in (RunFolder(tmp_path).manifest.pipeline, RunFolder(tmp_path).manifest.stores):
        with pytest.raises(MissingError, match="not a run folder"):
            ask()


# --- folders that appear complete


def test_new_folders_appear_complete_or_not_at_all(tmp_path):
    final = tmp_path / "deep" / "er" / "folder"
    layout = Layout("a folder of this test", "new", lambda content: True, re.compile("new|half"))

    def fail(replace: bool) -> None:
        with new_folder(final, layout, replace=replace) as partial:
            partial.mkdir()
            (partial / "half").touch()
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fail(replace=False)
    assert list(tmp_path.iterdir()) == []
    with new_folder(final, layout, replace=False) as partial:
        partial.mkdir()
        (partial / "new").write_text("{}")
        assert not final.exists()
    with pytest.raises(OSError, match="no space"):
        fail(replace=True)
    assert [path.name for path in final.parent.iterdir()] == ["folder"]
    assert [path.name for path in final.iterdir()] == ["new"]
    with new_folder(final, layout, replace=True) as partial:
        partial.mkdir()
    assert list(final.iterdir()) == []
    (tmp_path / "file").touch()
    with (
        pytest.raises(ExistsError, match="file is not a folder"),
        new_folder(tmp_path / "file" / "x", layout, replace=False),
    ):
        pytest.fail("there is no place for it")


def test_missing_numbers_are_refused(tmp_path):
    """A model of numbers gave NaN back without a word, where estimators and commands refuse."""
    model = make_model("autoencoder")
    x = np.zeros((2, *model.sample_shape))
    model.predict(x)
    x[1].ravel()[0] = np.nan
    with pytest.raises(DataError, match="row 1 of x, counted from 0, has NaN or infinity"):
        model.predict(x)
