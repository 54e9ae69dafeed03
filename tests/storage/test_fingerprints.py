"""Samples that took the place of others are noticed when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from choices import taking_turns
from command import X, foreign

from altmin_dask import runs
from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import DataError
from altmin_dask.storage import fingerprints
from altmin_dask.storage.fingerprints import fingerprint, replaced
from altmin_dask.storage.run import RunFolder

OTHER = 1 - X


def ours(folder: Path, x: np.ndarray) -> str:
    return ingest(array_source(x), folder, chunk_rows=16, dtype="float64", overwrite=True).path


def theirs(folder: Path, x: np.ndarray) -> str:
    if folder.exists():
        zarr.open_group(folder, mode="r+")["x"][:] = x
        return str(folder)
    return str(foreign(folder, x))


@pytest.mark.parametrize(("make", "role"), taking_turns([ours, theirs], ["train", "validation"]))
def test_a_run_is_not_resumed_with_samples_that_replaced_others(make, role, pipeline, tmp_path):
    paths = {name: make(tmp_path / f"{name}.zarr", X) for name in ("train", "validation")}
    data: dict[str, Any] = {"validation": paths["validation"]}

    def train(sweeps: float, *, resume: bool = True) -> list[Any]:
        asked = pipeline(paths["train"], data=data, training={"max_sweeps": sweeps})
        run = RunFolder(tmp_path / "run")
        return runs.train(asked, run, resume=resume, log=lambda line: None)

    train(1.0, resume=False)
    before = (tmp_path / "run" / "model" / "weights.safetensors").read_bytes()
    make(tmp_path / f"{role}.zarr", OTHER)
    word = "training" if role == "train" else role
    told = rf"x of the samples for {word} in .*{role}\.zarr were replaced since .*run was begun; put back"
    with pytest.raises(DataError, match=told):
        train(2.0)
    assert (tmp_path / "run" / "model" / "weights.safetensors").read_bytes() == before
    make(tmp_path / f"{role}.zarr", X)
    assert train(2.0)[-1].sweep == 2


def test_a_run_that_was_begun_before_there_were_fingerprints_goes_on(pipeline, tmp_path):
    store, run = ours(tmp_path / "s.zarr", X), RunFolder(tmp_path / "run")
    runs.train(pipeline(store, training={"max_sweeps": 1.0}), run, log=lambda line: None)
    manifest = json.loads(run.manifest.file.read_text())
    del manifest["fingerprints"]
    run.manifest.file.write_text(json.dumps(manifest))
    assert runs.train(pipeline(store), run, resume=True, log=lambda line: None)[-1].sweep == 3
    assert run.manifest.read()["fingerprints"]["train"]["x"]


def test_every_chunk_counts_and_one_that_is_missing_is_not_another(tmp_path):
    path = ours(tmp_path / "s.zarr", X)
    before = fingerprint(SampleStore.open(path).arrays)
    assert len(before["x"]) == 8 * 4
    for chunk in range(4):
        group = zarr.open_group(path, mode="r+")
        kept = group["x"][16 * chunk]
        group["x"][16 * chunk] = 0.5
        assert replaced(before, fingerprint(SampleStore.open(path).arrays)) == ["x"]
        group["x"][16 * chunk] = kept
        assert replaced(before, fingerprint(SampleStore.open(path).arrays)) == []
    (Path(path) / "x" / "c" / "1" / "0").unlink()
    now = fingerprint(SampleStore.open(path).arrays)
    assert now["x"][8:16] == "-" * 8
    assert replaced(before, now) == replaced(now, before) == []


def test_of_many_chunks_the_first_the_last_and_some_between_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "MOST", 16)
    rows = 40
    path = ingest(
        array_source(np.arange(rows, dtype=float)[:, None]), tmp_path / "s.zarr", chunk_rows=1, shuffle=False
    ).path
    store = SampleStore.open(path)
    before = fingerprint(store.arrays)
    assert len(before["x"]) == 8 * 16
    x = zarr.open_group(path, mode="r+")["x"]
    x[rows - 1] = -1.0
    assert replaced(before, fingerprint(store.arrays)) == ["x"]
