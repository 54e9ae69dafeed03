"""Names that mean something to a shell, a URL, a pattern or a person, and files of others that lie around them."""

from __future__ import annotations

import os
import re
import unicodedata
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import write_pipeline

ODD = ["r::un", "r?*[un]", "~", "-r%20#|un", "file:r", " r\nu\u0308n\u00fc😀."]
MORE = [
    "file::r",
    "memory::r",
    "s3:r",
    "data:r",
    "r?",
    "r*",
    "[r]",
    "**",
    "r#x",
    "r%",
    "r%20un",
    "~r",
    " r ",
    "r\nun",
    "r\\un",
    "r|un",
    "r.",
    "...",
    "-r",
    "--run",
    "$HOME",
    "'r\"",
    "r\u00fcn",
    "ru\u0308n",
    "r😀",
]
SCHEDULES = ["kfac", "incremental"]
"""Weights wait in ``steps``, or z is kept in ``z``."""


def marked(*values: Any, fast: bool) -> Any:
    return pytest.param(*values, marks=[] if fast else [pytest.mark.slow])


NAMES = [marked(name, fast=name in ODD[:3]) for name in (*ODD, *MORE)]
IN_TURN = [  # one form of training for each name, in turn; both in the slow tests
    marked(name, schedule, fast=name == "r::un" or (name in ODD[:3] and number % 2 == which))
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
        "keep.txt",
        "steps/keep.txt",
        "z/keep.txt",
        "z/000009.zarr/c.0.0",
        "data/train.zarr/x/c/0/0",
        "model/keep.bin",
        "state/2024.safetensors",
        ".keep.partial",
        "weights/keep.safetensors",
        "report/keep.png",
        "x/c/keep",
    ):
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


def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
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
