"""Places that cannot be written end in a sentence with what, where, why and what to do, before anything is read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from command import LABELS, X, files_below, refused, write_pipeline

from altmin_dask.errors import StorageError
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.writable import check_writable


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder in which nothing can be made, not even by root."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "report").mkdir()
    real_mkdir, real_open = os.mkdir, os.open

    def check(path):
        if isinstance(path, str | os.PathLike) and folder in Path(os.path.realpath(path)).parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def mkdir(path, *args, **words):
        check(path)
        return real_mkdir(path, *args, **words)

    def opened(path, flags, *args, **words):
        if flags & os.O_CREAT:
            check(path)
        return real_open(path, flags, *args, **words)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "open", opened)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["train", "p.toml", "--run", "closed/it"],
        ["train", "p.toml", "--run", "closed/deep/it"],
        ["ingest", "t.npz", "closed/it"],
        ["predict", "RUN", "t.npz", "closed/it.csv"],
        ["predict", "RUN", "t.npz", "closed/it.npy"],
        ["predict", "RUN", "t.npz", "closed/it"],
        ["export", "RUN", "closed/it.safetensors"],
        ["report", "RUN", "OTHER", "--to", "closed/it.html"],
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)
def test_a_folder_that_takes_nothing(words, closed, altmin, trained, tmp_path):
    np.savez("t.npz", x=X, y=LABELS)
    write_pipeline(tmp_path / "p.toml", "t.npz")
    before = files_below(tmp_path)
    named = {"RUN": trained / "classifier", "OTHER": trained / "autoencoder"}
    done = altmin(*(named.get(word, word) for word in words))
    sentence = "it cannot be written: Permission denied, in "
    last = words[-1].replace("closed/", "")
    refused(done, f"{last} {sentence.removeprefix('it ')}", 1)
    refused(done, "closed; change its permissions, or choose another place", 1)
    assert files_below(tmp_path) == before


def test_files_of_the_system_itself(altmin, trained):
    """Where no permission is missing."""
    for place in ("/proc/it.zarr", "/proc/it.csv"):
        refused(
            altmin("predict", trained / "classifier", trained / "samples.zarr", place),
            f"{place} cannot be written: No such file or directory, in /proc; choose another place",
            1,
        )
    refused(altmin("init", "classifier", "/proc/it.toml"), "/proc/it.toml cannot be written: ", 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init", "classifier", "file/p.toml"], "file is not a folder; give another path"),
        (["export", "RUN", "file/m.onnx"], "file is not a folder; give another path"),
        (["report", "RUN", "OTHER", "--to", "file/c.html"], "file is not a folder; give another path"),
        (["export", "RUN", "gone/m.onnx"], "there is no folder gone; make it first"),
    ],
)
def test_what_lies_below_a_file(words, message, altmin, trained):
    Path("file").write_text("mine")
    named = {"RUN": trained / "classifier", "OTHER": trained / "autoencoder"}
    refused(altmin(*(named.get(word, word) for word in words)), message)


def test_a_place_for_z_that_is_a_file(altmin, tmp_path):
    np.savez("t.npz", x=X)
    Path("file").write_text("mine")
    write_pipeline(tmp_path / "p.toml", "t.npz")
    before = files_below(tmp_path)
    for place in ("file", "file/deep"):
        done = altmin("train", "p.toml", "--run", "run", "--set", f"output.z={place}")
        refused(done, f"{place} (output.z): {tmp_path}/file is not a folder; give another path")
    assert files_below(tmp_path) == before


def test_a_run_folder_that_takes_nothing_is_named(tmp_path, monkeypatch):
    """And not the hidden file that was to take the place of another one."""

    def refuse(path, value):
        raise PermissionError(errno.EACCES, "Permission denied", str(path.with_name(f".{path.name}.partial")))

    monkeypatch.setattr("altmin_dask.storage.manifest.write_json", refuse)
    sentence = f"^{tmp_path}/pipeline.json cannot be written: Permission denied, in {tmp_path}; change its permissions"
    with pytest.raises(StorageError, match=sentence):
        RunFolder(tmp_path).manifest.write({}, {})


def test_nothing_is_left_of_looking(tmp_path):
    check_writable(tmp_path / "it")
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        StorageError, match=r"gone/deep/it cannot be written: .*, in .*; choose another place"
    ):
        check_writable(tmp_path / "gone" / "deep" / "it")
