"""Names that mean something to a shell, a URL, a pattern or a person: things are where they were asked for, and nothing
that somebody else has put beside them, or among them, is lost or altered."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import unicodedata
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from choices import taking_turns
from command import LABELS, X, foreign, refused, write_pipeline
from safetensors.numpy import load_file, save_file

from altmin_dask import AltMinAutoencoder, runs
from altmin_dask.dashboard.server import Follower
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import ChunkError, ConfigError, DataError, ExistsError, MissingError
from altmin_dask.execution.threads import Threads
from altmin_dask.inference import predict_store
from altmin_dask.report.page import write_report
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder

ODD = ["r::un", "r?*[un]", "~", "-r%20#|un", "file:r", " r\nu\u0308n\u00fc😀."]
MORE = [
    "file::r", "memory::r", "s3:r", "data:r", "r?", "r*", "[r]", "**", "r#x", "r%", "r%20un", "~r", " r ", "r\nun",
    "r\\un", "r|un", "r.", "...", "-r", "--run", "$HOME", "'r\"", "r\u00fcn", "ru\u0308n", "r😀",
]  # fmt: skip
SCHEDULES = ["kfac", "incremental"]
"""Weights wait in ``steps``, or z is kept in ``z``."""


def marked(*values: Any, fast: bool) -> Any:
    return pytest.param(*values, marks=[] if fast else [pytest.mark.slow])


NAMES = [marked(name, fast=name in ODD) for name in (*ODD, *MORE)]
IN_TURN = [  # one form of training for each name, in turn; both in the slow tests
    marked(name, schedule, fast=name == "r::un" or (name in ODD and number % 2 == which))
    for number, name in enumerate((*ODD, *MORE))
    for which, schedule in enumerate(SCHEDULES)
]


def spelled(name: str) -> str:
    """The name as a word that means it and nothing else: ``~`` is somebody's home, ``-r`` an option."""
    return f"./{name}" if name.startswith(("~", "-")) else name


def decoys(name: str) -> set[str]:
    """Names that one could take this one for."""
    parts = re.split(r"::|[?#|\n:\\*%]", name)
    found = {*parts, "r", "rx", "un", "home", name.strip(), name.rstrip("."), name.strip("[]'\""), name + "x"}
    found |= {
        urllib.parse.unquote(name),
        urllib.parse.quote(name, safe=""),
        name.lower(),
        name.replace(".", ""),
    }
    found |= {unicodedata.normalize(form, name) for form in ("NFC", "NFD")}
    return {each for each in found if each and each not in (name, ".", "..") and "/" not in each}


def plant(folder: Path, content: str = "dear") -> None:
    """Put files into a folder, some by names that something of ours has elsewhere."""
    for name in (
        "keep.txt", "steps/keep.txt", "z/keep.txt", "z/000009.zarr/c.0.0", "data/train.zarr/x/c/0/0", "model/keep.bin",
        "state/2024.safetensors", ".keep.partial", "weights/keep.safetensors", "report/keep.png", "x/c/keep",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content} {name}")


def contents(folder: Path, *but: Path) -> dict[str, bytes | str]:
    """Everything below a folder, byte for byte, but what is below some others."""
    found: dict[str, bytes | str] = {}
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if here / name not in but]
        for name in [*files, *folders]:
            path = here / name
            if path in but:
                continue
            if path.is_symlink():
                found[str(path.relative_to(folder))] = f"link to {os.readlink(path)}"
            else:
                found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else "folder"
    return found


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Surround a name with files of others, in an empty folder to work in; gives a check that they are as they were."""
    home = tmp_path / "home"
    plant(home)
    monkeypatch.setenv("HOME", str(home))

    def surround(name: str, *, at: Path = tmp_path) -> Callable[..., None]:
        for other in decoys(name):
            plant(at / other)
        before = contents(tmp_path)

        def check(*made: Path) -> None:
            assert contents(tmp_path, *made) == before

        return check

    return surround


@pytest.fixture(scope="module")
def samples_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign(tmp_path_factory.mktemp("samples") / "s.zarr", X, LABELS)


def pipeline_file(folder: Path, train: Any, schedule: str = "kfac", **tables: Any) -> Path:
    folder.mkdir(exist_ok=True)
    training = {"schedule": schedule, "max_sweeps": 1, **tables.pop("training", {})}
    cluster = {"workers": 1}
    return write_pipeline(
        folder / "p.toml", train, "classifier", training=training, cluster=cluster, **tables
    )


def done(outcome: Any) -> Any:
    assert outcome.code == 0, outcome
    return outcome


# --- runs


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


@pytest.mark.parametrize("name", [marked(name, fast=name == "~") for name in (*ODD, *MORE)])
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
    np.savez(file.with_name("bad.npz"), x=np.full((5, 6), np.nan), y=np.zeros(5, int))
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
    for name in ("z/000001.zarr.old/c.0.0", "z/000002/zarr.json", "steps/1-weights.safetensors", "steps/.a.partial",
                 ".pipeline.json.partial", "state/.00000001.safetensors.mine.partial", "model/.me.0a.partial",
                 "data/.train.zarr.partial-notes/x"):  # fmt: skip
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


@pytest.mark.parametrize("what", ["an array", "a group", "a file", "a folder"])
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


# --- stores


@pytest.mark.parametrize("name", NAMES)
def test_a_store_of_that_name(name, altmin, watched, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    np.savez(elsewhere / "a.npz", x=X, y=LABELS)
    np.savez(elsewhere / "b.npz", x=X[:5])
    place, word, check = tmp_path / name, spelled(name), watched(name)
    done(altmin("ingest", elsewhere / "a.npz", word, "--chunk-rows", 16, "--dtype", "float64"))
    assert {"zarr.json", "x", "y"} == set(os.listdir(place))
    np.testing.assert_array_equal(SampleStore.open(word).x[:], X)
    np.testing.assert_array_equal(next(open_source(word).blocks(60))[0], X)
    file = pipeline_file(elsewhere, word)
    done(altmin("plan", file))
    done(altmin("train", file, "--run", elsewhere / "run"))
    assert RunFolder(elsewhere / "run").manifest.stores() == {"train": str(place)}
    before = contents(place)
    refused(altmin("ingest", elsewhere / "b.npz", word), "exists already")
    np.savez(elsewhere / "bad.npz", x=np.full((5, 6), np.nan))
    refused(altmin("ingest", elsewhere / "bad.npz", word, "--overwrite"), "rows 0, 1 and 3 more")
    assert contents(place) == before
    done(altmin("ingest", elsewhere / "b.npz", word, "--overwrite"))
    assert {"zarr.json", "x"} == set(os.listdir(place))
    assert SampleStore.open(word).rows == 5
    check(place)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_of_that_name(name, altmin, trained, watched, tmp_path):
    run, place, word, check = trained / "classifier", tmp_path / name, spelled(name), watched(name)
    done(altmin("predict", run, trained / "samples.zarr", word))
    assert {"zarr.json", "prediction", "label"} == set(os.listdir(place))
    assert zarr.open_array(place / "prediction", mode="r").shape == (60, 3)
    refused(altmin("predict", run, trained / "samples.zarr", word), "exists already")
    done(altmin("predict", run, trained / "samples.zarr", word, "--overwrite"))
    assert zarr.open_array(place / "prediction", mode="r").shape == (60, 3)
    check(place)


def stray(kind: str, place: Path) -> Path:
    """Something of somebody else's at a place where a store could be, or in the store that is there."""
    match kind:
        case "file":
            place.write_text("dear")
        case "folder":
            plant(place)
        case "a zarr store of another program":
            foreign(place, X, LABELS)
        case "a zarr array":
            zarr.create_array(place, data=X)
        case "a link to a folder":
            plant(place.with_name("theirs"))
            place.symlink_to("theirs")
        case "a link to nowhere":
            place.symlink_to("gone")
        case "a link to a zarr store of another program":
            foreign(place.with_name("theirs"), X, LABELS)
            place.symlink_to("theirs")
        case "a store with a file in it":
            (place / "notes.txt").write_text("dear")
        case "a store with a file among the chunks":
            (next(place.glob("*/c")) / "notes.txt").write_text("dear")
        case "a store with another array in it":
            zarr.open_group(place).create_array("mine", data=X)
        case "a store with a link in it":
            plant(place.with_name("theirs"))
            (place / "theirs").symlink_to("../theirs")
        case "a store with a linked chunk":
            chunk = next(path for path in place.rglob("c/0/**/*") if path.is_file())
            chunk.rename(place.with_name("chunk"))
            chunk.symlink_to(place.with_name("chunk"))
        case _:
            raise AssertionError(kind)
    return place


STRAYS = [
    "file", "folder", "a zarr store of another program", "a zarr array", "a link to a folder", "a link to nowhere",
    "a link to a zarr store of another program", "a store with a file in it", "a store with a file among the chunks",
    "a store with another array in it", "a store with a link in it", "a store with a linked chunk",
]  # fmt: skip


@pytest.mark.parametrize("kind", STRAYS)
@pytest.mark.parametrize("command", ["ingest", "predict"])
def test_what_is_not_all_ours_is_not_overwritten(command, kind, altmin, trained, tmp_path):
    words = [
        command,
        *([trained / "classifier"] * (command == "predict")),
        trained / "samples.zarr",
        "d.zarr",
    ]
    if kind.startswith("a store"):
        done(altmin(*words))
    stray(kind, tmp_path / "d.zarr")
    before = contents(tmp_path)
    outcome = altmin(*words, "--overwrite")
    refused(outcome, "d.zarr")
    assert re.search("is never replaced; give another path|move that away, or give another path", outcome.err)
    assert contents(tmp_path) == before


def test_predictions_do_not_replace_samples_nor_samples_predictions(altmin, trained, tmp_path):
    run, source = trained / "classifier", trained / "samples.zarr"
    done(altmin("ingest", source, "s.zarr"))
    done(altmin("predict", run, source, "p.zarr"))
    before = contents(tmp_path)
    refused(
        altmin("predict", run, source, "s.zarr", "--overwrite"), "is not a store that `altmin predict` wrote"
    )
    refused(
        altmin("ingest", source, "p.zarr", "--overwrite"), "is not a sample store that `altmin ingest` wrote"
    )
    assert contents(tmp_path) == before


def test_what_is_put_into_a_store_while_it_is_replaced(tmp_path):
    """It is seen before anything is removed: the store stays as it is."""
    place = tmp_path / "a.zarr"
    ingest(array_source(X), place)

    def meanwhile(rows: int, all_rows: int) -> None:
        (place / "notes.txt").write_text("dear")

    with pytest.raises(
        ExistsError, match=r"a\.zarr is not replaced, as notes.txt in it was not written with it"
    ):
        ingest(array_source(X[:5]), place, overwrite=True, progress=meanwhile)
    assert os.listdir(tmp_path) == ["a.zarr"]
    assert (place / "notes.txt").read_text() == "dear"
    assert SampleStore.open(place).rows == 60


def test_a_sweep_after_a_kill_leaves_what_it_does_not_know(tmp_path):
    """Folders that look like those of a killed ingest, with somebody's files in them."""
    host = socket.gethostname()
    left = tmp_path / f".a.zarr.partial-{host}-999999999-0123abcd"
    plant(left)
    linked = tmp_path / f".a.zarr.partial-{host}-999999998-0123abcd"
    linked.symlink_to(left)
    before = contents(tmp_path)
    ingest(array_source(X), tmp_path / "a.zarr")
    assert contents(tmp_path, tmp_path / "a.zarr") == before


# --- stores and z at URLs


@pytest.fixture
def memory(request) -> str:
    return f"memory://paths-{abs(hash(request.node.nodeid))}"


def objects(url: str) -> dict[str, bytes]:
    filesystem, root = fsspec.core.url_to_fs(url)
    return {name.removeprefix(root): filesystem.cat_file(name) for name in filesystem.find(root)}


def put(url: str, content: bytes = b"dear") -> None:
    filesystem, path = fsspec.core.url_to_fs(url)
    filesystem.pipe_file(path, content)


@pytest.mark.parametrize("kind", ["objects", "a store with one more", "no store of ours", "an object"])
def test_objects_of_others_are_not_overwritten(kind, memory):
    place = f"{memory}/a.zarr"
    match kind:
        case "objects":
            put(f"{place}/x/c/0/0")
        case "a store with one more":
            ingest(array_source(X), place)
            put(f"{place}/notes.txt")
        case "no store of ours":
            zarr.create_group(place).create_array("x", data=X)
        case "an object":
            put(place)
    before = objects(memory)
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match=r"a\.zarr"):
            ingest(array_source(X[:5]), place, overwrite=overwrite)
        assert objects(memory) == before


@pytest.mark.parametrize("name", ["a*", "a?", "[a]", "a#b", "a%20b", "a b", "é"])
def test_a_store_at_a_url_with_such_a_name(name, memory):
    for other in ("a", "ab", "ax/zarr.json", "a.b/x", "a.zarr", "[a", f"{name}x/x/zarr.json"):
        put(f"{memory}/{other}")
    before = objects(memory)
    ingest(array_source(X, LABELS), f"{memory}/{name}")
    assert ingest(array_source(X[:5]), f"{memory}/{name}", overwrite=True).rows == 5
    found = objects(memory)
    assert {key.removeprefix(f"/{name}/") for key in found if key.startswith(f"/{name}/")} == {
        "zarr.json", "x/zarr.json", "x/c/0/0",
    }  # fmt: skip
    assert {key: content for key, content in found.items() if not key.startswith(f"/{name}/")} == before


@pytest.mark.parametrize(
    ("scratch", "schedule"), taking_turns(("/scratch", "/scr*", "/[s]", "/s?", ""), SCHEDULES)
)
def test_z_among_objects_of_others(scratch, schedule, samples, make_store, pipeline, memory, tmp_path):
    z = memory + scratch
    for other in (
        "a.txt",
        "scratch",
        "s1/000001.zarr/c.0.0",
        "scr1/weights/x.safetensors",
        "000000.zarr/zarr.json",
    ):
        put(f"{memory}/{other}x")
        put(f"{z}/{other}")
    before = objects(memory)

    store = make_store(samples)

    def settings(sweeps: float) -> Any:
        solver, training = {"mu": "auto"}, {"schedule": schedule, "max_sweeps": sweeps}
        return pipeline(store.path, solver=solver, training=training, output={"z": z})

    run = RunFolder(tmp_path / "run")
    runs.train(settings(1.0), run, log=lambda line: None)
    own = run.latent.removeprefix(memory)
    for name in (
        "notes.txt",
        "000001.zarr/notes.txt",
        "000000.zarr/notes.txt",
        "000009.zarr/notes.txt",
        "weights/notes.safetensors",
    ):
        put(f"{run.latent}/{name}")
        before[f"{own}/{name}"] = b"dear"
    runs.train(settings(2.0), run, resume=True, log=lambda line: None)
    found = objects(memory)
    assert {key: found.get(key) for key in before} == before
    ours = {key.removeprefix(own) for key in found if key not in before}
    wanted = {f"/000002.zarr/{key}" for key in ("zarr.json", *(f"c.{i}.0" for i in range(7)))}
    assert ours == (wanted if schedule == "incremental" else set())


@pytest.mark.parametrize("place", ["nosuch://z", "simplecache::memory://z", "memory://z::y"])
def test_a_place_for_z_that_is_none(place, altmin, samples_store, tmp_path):
    file = pipeline_file(tmp_path / "p", samples_store, "incremental", output={"z": place})
    before = contents(tmp_path)
    refused(altmin("train", file, "--run", "run"), place)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "place", ["simplecache::s3://bucket/a.zarr", "zip://a::memory://b.zip", "s3://bucket/a::b"]
)
def test_chains_of_urls_are_refused(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ask in (SampleStore.open, open_source, lambda name: ingest(array_source(X), name)):
        with pytest.raises(
            ConfigError, match=r"is a chain of URLs; give a single one, or for a local path \./NAME"
        ):
            ask(place)
    assert os.listdir(tmp_path) == []


# --- z as a local path


@pytest.mark.parametrize(("name", "schedule"), IN_TURN)
def test_z_in_a_folder_of_that_name(
    name, schedule, altmin, watched, samples_store, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    plain = pipeline_file(elsewhere / "plain", samples_store, schedule)
    file = pipeline_file(elsewhere / "odd", samples_store, schedule, output={"z": spelled(name)})
    check = watched(name)
    plant(tmp_path / name)  # a place that several share
    theirs = contents(tmp_path / name)
    for sweeps in (1, 2):
        more = [f"training.max_sweeps={sweeps}", *["--resume"] * (sweeps > 1)]
        done(altmin("train", file, "--run", elsewhere / "run", *more))
        done(altmin("train", plain, "--run", elsewhere / "same", *more))
    run = RunFolder(elsewhere / "run")
    own = Path(run.latent)
    assert own.parent == tmp_path / name
    assert os.listdir(own) == (["000002.zarr"] if schedule == "incremental" else [])
    assert run.weights.read_bytes() == RunFolder(elsewhere / "same").weights.read_bytes()
    assert contents(tmp_path / name, own) == theirs
    check(tmp_path / name)


# --- exports, saved estimators


@pytest.mark.parametrize("ending", [".onnx", ".safetensors"])
@pytest.mark.parametrize("name", NAMES)
def test_an_export_of_that_name(name, ending, altmin, trained, watched, tmp_path):
    check = watched(name)
    place, word = tmp_path / f"{name}{ending}", spelled(f"{name}{ending}")
    check = watched(f"{name}{ending}")
    done(altmin("export", trained / "classifier", word))
    content = place.read_bytes()
    refused(altmin("export", trained / "classifier", word), "exists already")
    done(altmin("export", trained / "classifier", word, "--overwrite"))
    assert place.read_bytes() == content
    if ending == ".safetensors":
        weights = Model.load(trained / "classifier" / "model").weights
        np.testing.assert_array_equal(load_file(place)["0.weight"], weights[0][:, :-1])
    check(place)


@pytest.mark.parametrize("ending", [".onnx", ".safetensors"])
@pytest.mark.parametrize("kind", ["text", "empty", "another's", "folder", "link", "link to nowhere"])
def test_an_export_replaces_exports_only(kind, ending, altmin, trained, tmp_path):
    place = tmp_path / f"net{ending}"
    match kind:
        case "text" | "empty":
            place.write_text("dear" * (kind == "text"))
        case "another's" if ending == ".onnx":
            import onnx

            graph = onnx.helper.make_graph([], "mine", [], [])
            onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), place)
        case "another's":
            save_file({"0.weight": X}, place, metadata={"format": "pt"})
        case "folder":
            plant(place)
        case "link":
            (tmp_path / "theirs").write_text("dear")
            place.symlink_to("theirs")
        case _:
            place.symlink_to("gone")
    before = contents(tmp_path)
    refused(altmin("export", trained / "classifier", place.name), "exists already")
    assert contents(tmp_path) == before
    outcome = altmin("export", trained / "classifier", place.name, "--overwrite")
    if kind == "link to nowhere":  # nothing is lost by going where it leads
        assert done(outcome)
        assert place.is_symlink()
        assert (tmp_path / "gone").stat().st_size > 100
        return
    refused(outcome, "exists and was not exported, so it is never replaced; give another name")
    assert contents(tmp_path) == before


@pytest.fixture(scope="module")
def fitted() -> AltMinAutoencoder:
    return AltMinAutoencoder(2, max_sweeps=1, random_state=0).fit(X)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_estimator_of_that_name(name, fitted, watched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = watched(name)
    for overwrite in (False, True):
        fitted.save(spelled(name), overwrite=overwrite)
        assert len(os.listdir(tmp_path / name)) == 3
    again = AltMinAutoencoder.load(spelled(name))
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    again.to_onnx(f"{spelled(name)}/../{name}.onnx")
    check(tmp_path / name, tmp_path / f"{name}.onnx")


def test_an_estimator_with_files_of_others_is_not_replaced(fitted, tmp_path):
    fitted.save(tmp_path / "saved")
    (tmp_path / "saved" / "notes.txt").write_text("dear")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "estimator.json").write_text('{"estimator": "of somebody else"}')
    before = contents(tmp_path)
    with pytest.raises(ExistsError, match=r"as notes.txt in it was not written with it; move that away"):
        fitted.save(tmp_path / "saved", overwrite=True)
    with pytest.raises(ExistsError, match="is not an estimator that was saved, so it is never replaced"):
        fitted.save(tmp_path / "other", overwrite=True)
    with pytest.raises(ConfigError, match="is a URL; give a path on this machine"):
        fitted.save("s3://bucket/saved")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["r::un", "~"])
def test_an_estimator_trains_in_a_folder_of_that_name(name, watched, tmp_path):
    check = watched(name)
    (tmp_path / name).mkdir()
    store = ingest(array_source(X), tmp_path / name / "s.zarr")
    for schedule in SCHEDULES:
        AltMinAutoencoder(
            2,
            max_sweeps=1,
            random_state=0,
            temporary_folder=tmp_path / name,
            chunk_rows=16,
            schedule=schedule,
        ).fit(store.path)
    assert os.listdir(tmp_path / name) == ["s.zarr"]
    check(tmp_path / name)


# --- sources that others read for us


@pytest.mark.parametrize("name", ["t::u.csv", "t*.csv", "[t].csv", "t?.parquet"])
def test_a_table_whose_name_is_a_pattern_is_refused(name, tmp_path, monkeypatch):
    """Dask would read ``tx.csv``, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tx.csv").write_text("a,y\n1,2\n")
    (tmp_path / name).write_text("a,y\n3,4\n")
    with pytest.raises(DataError, match="dask takes such a name for a pattern or a chain of URLs"):
        open_source(name)


@pytest.mark.parametrize("name", ["data:t.csv", "file:t.csv", "./~t.csv", "t#.csv", "t%20.csv", " t.csv"])
def test_a_table_of_that_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("a,y\n3,4\n5,6\n")
    x, y = next(open_source(name).blocks(2))
    assert (x.tolist(), y.tolist()) == ([[3.0], [5.0]], [4, 6])


def test_a_path_object_is_a_path_and_a_string_is_what_it_is_to_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert ingest(array_source(X), Path("~/a.zarr")).path == str(tmp_path / "~" / "a.zarr")
    assert ingest(array_source(X[:4]), "~/a.zarr").path == str(tmp_path / "home" / "a.zarr")
    for place, rows in ((Path("~/a.zarr"), 60), ("./~/a.zarr", 60), ("~/a.zarr", 4)):
        assert SampleStore.open(place).rows == open_source(place).rows == rows
        assert len(AltMinAutoencoder(2, max_sweeps=1, random_state=0).fit(place).transform(place)) == rows
    assert ingest(array_source(X), Path("s3://b/a.zarr")).path == str(tmp_path / "s3:" / "b" / "a.zarr")


def test_a_home_that_nobody_has_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match="there is no file or folder"):
        open_source("~nobody-of-that-name/a.zarr")
    assert ingest(array_source(X), "~nobody-of-that-name/a.zarr").rows == 60
    assert SampleStore.open(tmp_path / "~nobody-of-that-name" / "a.zarr").rows == 60


# --- other processes


@pytest.mark.parametrize("schedule", [marked(name, fast=name == "kfac") for name in SCHEDULES])
def test_a_cluster_finds_everything_by_such_names(
    schedule, altmin, watched, cluster_address, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    check = watched("r::u [n]*")
    home = tmp_path / "r::u [n]*"
    samples, run, cluster = home / "s::t?.zarr", home / "run::%20", ("--scheduler", cluster_address)
    ingest(array_source(X, LABELS), samples, chunk_rows=16, dtype="float64")
    output = {"z": str(home / "z::*"), "performance": True}
    file = pipeline_file(elsewhere, samples, schedule, output=output)
    done(altmin("train", file, "--run", run, *cluster))
    done(altmin("train", file, "--run", run, "--resume", "--set", "training.max_sweeps=2", *cluster))
    assert "Dask" in (run / "report" / "performance.html").read_text()
    there = json.loads(done(altmin("evaluate", run, samples, "--json", *cluster)).out)
    assert there == json.loads(done(altmin("evaluate", run, samples, "--json")).out)
    done(altmin("predict", run, samples, home / "p::[q]", *cluster))
    wanted = predict_store(RunFolder(run), SampleStore.open(samples), home / "q", Threads(1))
    for name in ("prediction", "label"):
        here, there = (zarr.open_array(place / name, mode="r")[:] for place in (wanted, home / "p::[q]"))
        np.testing.assert_array_equal(here, there)
    assert set(os.listdir(home)) == {"s::t?.zarr", "run::%20", "p::[q]", "q", "z::*"}
    assert list((home / "z::*").iterdir()) == [Path(RunFolder(run).latent)]
    check(home)
