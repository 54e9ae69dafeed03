"""Stores, at paths and URLs: what is not all ours, or is put there meanwhile, is neither replaced nor removed."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

import fsspec
import pytest
import zarr
from choices import taking_turns
from command import LABELS, X, foreign, refused
from in_order import ingest
from places import (
    SCHEDULES,
    contents,
    done,
    pipeline_file,
    plant,
)

from altmin_dask import runs
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import ConfigError, ExistsError
from altmin_dask.storage.run import RunFolder


@pytest.fixture(scope="module")
def samples_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign(tmp_path_factory.mktemp("samples") / "s.zarr", X, LABELS)


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
    "file",
    "folder",
    "a zarr store of another program",
    "a zarr array",
    "a link to a folder",
    "a link to nowhere",
    "a link to a zarr store of another program",
    "a store with a file in it",
    "a store with a file among the chunks",
    "a store with another array in it",
    "a store with a link in it",
    "a store with a linked chunk",
]


@pytest.mark.parametrize(("kind", "command"), taking_turns(STRAYS, ["ingest", "predict"]))
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


def test_removal_after_a_kill_leaves_what_it_does_not_know(tmp_path):
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
        "zarr.json",
        "x/zarr.json",
        "x/c/0/0",
    }
    assert {key: content for key, content in found.items() if not key.startswith(f"/{name}/")} == before


@pytest.mark.slow
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
