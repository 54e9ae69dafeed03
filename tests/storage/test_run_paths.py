"""Run folders are where they were asked for, and nothing that somebody else has put beside or into them is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from choices import slow_but
from command import LABELS, X, foreign, refused
from places import (
    IN_TURN,
    MORE,
    NAMES,
    ODD,
    SCHEDULES,
    contents,
    done,
    pipeline_file,
    plant,
    spelled,
    surroundings,
)

from altmin_dask import runs
from altmin_dask.dashboard.server import Follower
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import ChunkError, ExistsError
from altmin_dask.report.page import write_report
from altmin_dask.storage.run import RunFolder


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return surroundings(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def samples_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign(tmp_path_factory.mktemp("samples") / "s.zarr", X, LABELS)


# --- runs


@pytest.mark.slow
@pytest.mark.parametrize(("name", "schedule"), IN_TURN)
def test_a_run_of_that_name(name, schedule, altmin, watched, samples_store, tmp_path, tmp_path_factory):
    file = pipeline_file(tmp_path_factory.mktemp("pipeline"), samples_store, schedule)
    run, word = RunFolder(tmp_path / name), spelled(name)
    check = watched(name)
    done(altmin("train", file, "--run", word))
    check(run.path)
    assert {"pipeline.json", "state", "model", "history.jsonl"} <= set(os.listdir(run.path))
    assert len(run.records()) == 2
    assert (run.path / "z").exists() == (schedule == "incremental")
    assert not (run.path / "steps").exists()
    refused(altmin("train", file, "--run", word), "exists already")
    done(altmin("train", file, "--run", word, "--resume", "--set", "training.max_sweeps=2"))
    assert len(run.records()) == 3
    found = json.loads(done(altmin("evaluate", word, samples_store, "--json")).out)
    assert (found["run"], found["samples"]) == (word, 60)
    assert Follower(RunFolder(Path(name))).stores["train"] == str(samples_store)
    check(run.path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ODD, *MORE])
def test_a_run_of_that_name_is_reported_on_and_makes_its_own_stores(
    name, altmin, watched, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("pipeline")
    np.savez(elsewhere / "a.npz", x=X, y=LABELS)
    # z and the runs' folder by relative paths, with something above
    file = pipeline_file(elsewhere, elsewhere / "a.npz", "incremental", output={"report": False})
    run = tmp_path / name
    check = watched(name)
    done(altmin("train", file, "--run", f"home/../{name}"))
    page = done(altmin("report", spelled(name))).out
    assert "report.html" in page
    assert {"report.html", "convergence.png"} <= set(os.listdir(run / "report"))
    assert os.listdir(run / "data") == ["train.zarr"]
    assert SampleStore.open(run / "data" / "train.zarr").rows == 60
    done(altmin("report", spelled(name)))  # once more, over its own
    check(run)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_that_name_which_is_refused_leaves_nothing(
    name, altmin, watched, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("pipeline")
    np.savez(elsewhere / "a.npz", x=np.where(np.arange(60)[:, None] == 59, np.nan, X), y=LABELS)
    file = pipeline_file(elsewhere, elsewhere / "a.npz")
    check = watched(name)
    refused(altmin("train", file, "--run", spelled(name)), "row 59")
    check()
    (tmp_path / name).mkdir()
    check = watched(name)
    refused(altmin("train", file, "--run", spelled(name)), "row 59")
    check()  # the empty folder is still there


def test_a_run_named_like_a_chain_leaves_the_folder_it_could_be_taken_for(
    altmin, watched, samples_store, tmp_path
):
    """As it was found: all of ``r`` was removed."""
    check = watched("r::un")
    file = pipeline_file(tmp_path / "r::un.toml", samples_store)
    done(altmin("train", file, "--run", "r::un"))
    check(tmp_path / "r::un", tmp_path / "r::un.toml")


def test_the_run_of_a_pipeline_file(altmin, watched, samples_store, tmp_path, tmp_path_factory):
    """``output.run`` is spelled as it would be to a shell, by default it is the file's name."""
    check = watched("r*")
    file = pipeline_file(tmp_path_factory.mktemp("pipeline"), samples_store, output={"run": "~/of::mine"})
    done(altmin("train", file))
    assert RunFolder(tmp_path / "home" / "of::mine").started
    odd = shutil.copy(file, file.with_name("r::[un]*.toml"))
    odd = Path(odd)
    odd.write_text(odd.read_text().replace('run = "~/of::mine"', ""))
    done(altmin("train", odd))
    assert RunFolder(tmp_path / "runs" / "r::[un]*").started
    check(tmp_path / "home" / "of::mine", tmp_path / "runs")


@pytest.mark.parametrize(
    "place", ["s3://bucket/run", "memory://run", "nosuch://run", "simplecache::s3://bucket/run"]
)
def test_runs_are_not_kept_at_urls(place, altmin, watched, samples_store, tmp_path, tmp_path_factory):
    check = watched("r")
    file = pipeline_file(tmp_path_factory.mktemp("pipeline"), samples_store)
    for words in (("train", file, "--run", place), ("report", place), ("evaluate", place, samples_store)):
        refused(altmin(*words), "URL")
    refused(altmin("export", place, "net.onnx"), "URL")
    check()


def test_a_run_behind_a_link(altmin, watched, samples_store, tmp_path, tmp_path_factory):
    """A link to an empty folder is as good as the folder; one to somebody's files is not, and stays."""
    file = pipeline_file(tmp_path_factory.mktemp("pipeline"), samples_store, "incremental")
    (tmp_path / "run").symlink_to("disk")
    plant(tmp_path / "theirs")
    (tmp_path / "full").symlink_to("theirs")
    (tmp_path / "nowhere").symlink_to("gone")
    check = watched("disk")
    (tmp_path / "disk").mkdir()
    done(altmin("train", file, "--run", "run"))
    done(altmin("train", file, "--run", "disk", "--resume", "--set", "training.max_sweeps=2"))
    assert len(RunFolder(tmp_path / "disk").records()) == 3
    refused(altmin("train", file, "--run", "full"), "exists and is not a run folder")
    assert altmin("train", file, "--run", "nowhere").code == 2
    check(tmp_path / "disk")

    shutil.rmtree(tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    np.savez(file.with_name("bad.npz"), x=np.full((5, 6), np.nan), y=np.arange(5) % 2)
    bad = pipeline_file(file.parent, file.with_name("bad.npz"))
    refused(altmin("train", bad, "--run", "run"), "rows 0, 1")
    assert os.listdir(tmp_path / "disk") == []
    check(tmp_path / "disk")


# --- what others have put in a run folder


@pytest.mark.parametrize("made_before", [False, True])
def test_a_run_that_never_began_removes_what_it_has_made(made_before, watched, pipeline, tmp_path):
    np.save(tmp_path / "x.npy", X)
    run, check = RunFolder(tmp_path / "r::un"), watched("r::un")
    if made_before:
        run.path.mkdir()

    def put_and_interrupt(line: str) -> None:
        plant(run.path)
        (run.path / "data" / "train.zarr" / "x" / "theirs").mkdir()
        (run.path / "data" / "linked.zarr").symlink_to(tmp_path / "home")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(pipeline(tmp_path / "x.npy"), run, log=put_and_interrupt)
    found = contents(run.path)
    assert found["data/linked.zarr"] == f"link to {tmp_path / 'home'}"
    assert found["data/train.zarr/x/theirs"] == "folder"
    assert not run.claimed
    files = {name for name, content in found.items() if isinstance(content, bytes)}
    plant(tmp_path / "others")
    # a chunk of our own name in a store of ours was ours: all else is as it was put there
    wanted = contents(tmp_path / "others")
    wanted.pop("data/train.zarr/x/c/0/0")
    wanted = {name: content for name, content in wanted.items() if isinstance(content, bytes)}
    assert files == set(wanted)
    assert {name: found[name] for name in wanted} == wanted
    shutil.rmtree(tmp_path / "others")
    check(run.path)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_goes_on_beside_files_of_others(schedule, watched, samples, make_store, pipeline, tmp_path):
    """Whether it is resumed, cut off, fails or ends; and they do not change what comes out."""
    store = Path(shutil.copytree(make_store(samples).path, tmp_path / "s.zarr"))
    check = watched("run")

    def go(folder: Path, sweeps: float, **options: Any) -> RunFolder:
        training = {"schedule": schedule, "max_sweeps": sweeps}
        settings = pipeline(store, solver={"mu": "auto"}, training=training)
        log = options.pop("log", lambda line: None)
        runs.train(settings, RunFolder(folder), log=log, **options)
        return RunFolder(folder)

    whole = go(tmp_path / "whole", 3.0)
    run = go(tmp_path / "run", 1.0)
    plant(run.path)
    for name in (
        "z/000001.zarr.old/c.0.0",
        "z/000002/zarr.json",
        "steps/1-weights.safetensors",
        "steps/.a.partial",
        ".pipeline.json.partial",
        "state/.00000001.safetensors.mine.partial",
        "model/.me.0a.partial",
        "data/.train.zarr.partial-notes/x",
    ):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text(name)
    (run.path / "steps" / "linked").symlink_to(tmp_path / "home")
    (run.path / "z" / "000007.zarr").symlink_to(tmp_path / "home")
    theirs = {
        name: content for name, content in contents(run.path).items() if name not in contents(whole.path)
    }
    ours = {name for name in theirs if re.fullmatch(r"state/\d{8}\.safetensors|z/\d{6}\.zarr(/.*)?", name)}
    ours -= {"z/000009.zarr", "z/000009.zarr/c.0.0", "z/000007.zarr"}
    theirs = {name: content for name, content in theirs.items() if name not in ours}
    assert {"keep.txt", "steps/keep.txt", "z/000009.zarr/c.0.0", "state/2024.safetensors"} <= set(theirs)

    def kept() -> None:
        now = contents(run.path)
        assert {name: now.get(name) for name in theirs} == theirs
        check(run.path, whole.path)

    go(run.path, 2.0, resume=True)
    kept()
    chunk = store / "x" / "c" / "3" / "0"
    content = chunk.read_bytes()
    chunk.unlink()
    with pytest.raises(ChunkError, match=r"chunk 3 of .* is missing"):
        go(run.path, 3.0, resume=True)
    chunk.write_bytes(content)
    kept()
    with pytest.raises(KeyboardInterrupt):
        go(run.path, 3.0, resume=True, log=interrupt)
    kept()
    go(run.path, 3.0, resume=True)
    kept()
    assert run.weights.read_bytes() == whole.weights.read_bytes()


def interrupt(line: str) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "what", slow_but(["an array", "a folder"], ["an array", "a group", "a file", "a folder"])
)
def test_what_is_in_the_place_of_z_is_not_written_to(what, samples, make_store, pipeline, tmp_path):
    store = make_store(samples)
    training = {"schedule": "incremental", "max_sweeps": 1.0}
    run = RunFolder(tmp_path / "run")
    runs.train(pipeline(store.path, training=training), run, log=lambda line: None)
    theirs = tmp_path / "run" / "z" / "000002.zarr"
    if what == "an array":
        zarr.create_array(theirs, data=np.ones((200, 17)), chunks=(32, 17))
    elif what == "a group":
        zarr.create_group(theirs)
    elif what == "a file":
        theirs.write_text("dear")
    else:
        theirs.mkdir()
        (theirs / "c.0.0").write_text("dear")
    before = contents(theirs.parent)
    training["max_sweeps"] = 2.0
    with pytest.raises(ExistsError, match=r"z/000002.zarr is no array of this run; move it away"):
        runs.train(pipeline(store.path, training=training), run, resume=True, log=lambda line: None)
    assert {name: contents(theirs.parent)[name] for name in before} == before
    theirs.rename(tmp_path / "moved.zarr")
    runs.train(pipeline(store.path, training=training), run, resume=True, log=lambda line: None)
    assert run.records()[-1]["sweep"] == 2.0


@pytest.mark.parametrize("kind", ["content", "link"])
def test_a_lock_that_is_none(kind, altmin, watched, samples_store, tmp_path, tmp_path_factory):
    file = pipeline_file(tmp_path_factory.mktemp("pipeline"), samples_store)
    (tmp_path / "run").mkdir()
    if kind == "content":
        (tmp_path / "run" / ".lock").write_text("dear")
    else:
        (tmp_path / "run" / ".lock").symlink_to(tmp_path / "home" / "keep.txt")
    check = watched("run")
    refused(altmin("train", file, "--run", "run"), "exists and is not a run folder")
    check()


@pytest.mark.slow
def test_a_report_leaves_other_pictures(altmin, trained, tmp_path):
    run = Path(shutil.copytree(trained / "classifier", tmp_path / "run"))
    plant(run)
    page = write_report(RunFolder(run))
    assert (run / "report" / "keep.png").read_text() == "dear report/keep.png"
    (tmp_path / "dear").write_text("dear")
    for name, content in (
        ("residuals.png", "mine"),
        ("report.html", "<html>mine"),
        ("predictions.png", None),
    ):
        file = page.with_name(name)
        ours = file.read_bytes() if file.exists() else None
        file.unlink(missing_ok=True)
        file.symlink_to(tmp_path / "dear") if content is None else file.write_text(content)
        before = contents(tmp_path)
        refused(altmin("report", run), f"{name} is not of a report, so it is not replaced; move it away")
        assert contents(tmp_path) == before
        file.unlink()
        if ours is not None:
            file.write_bytes(ours)
    altmin("report", run)
