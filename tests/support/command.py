"""The command line in tests: run here or as a process of its own, and pipelines and stores to run it on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer.main
import zarr

from altmin_dask import cli

RNG = np.random.default_rng(3)
X = RNG.random((60, 6))
LABELS = np.arange(60) % 3


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Altmin = Callable[..., Outcome]
COMMAND = cache(typer.main.get_command)
"""The commands and their options, read from signatures once: a process of its own reads them once as well."""


def run_here(*words: Any) -> int:
    """Run the command line in this process; gives its exit code."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["altmin", *map(str, words)])
        patch.setattr(typer.main, "get_command", COMMAND)
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
    return 0


def start(*words: Any, **options: Any) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    home = str(Path(cli.__file__).parents[1])
    # of its own accord pytest-xdist says how wide its terminal is
    environment = {**os.environ, "COLUMNS": "", "PYTHONPATH": home, **options.pop("env", {})}
    command = [sys.executable, "-m", "altmin_dask", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes, **options)


def told_records(out: str) -> tuple[list[str], list[list[str]]]:
    """The header over the records that a run has printed, and the numbers of each."""
    lines = [line.split() for line in out.splitlines() if line.strip()]
    place = next(number for number, words in enumerate(lines) if words[:1] == ["sweep"])
    header = " ".join(lines[place]).replace("CPU s", "CPU").split()
    return header, [
        words
        for words in lines[place + 1 :]
        if re.fullmatch(r"[\d.]+", words[0]) and len(words) == len(header)
    ]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def write_pipeline(file: Path, train: Any, kind: str = "autoencoder", **tables: dict[str, Any]) -> Path:
    settings: dict[str, dict[str, Any]] = {
        "data": {"train": str(train)},
        "network": {"kind": kind, "hidden_layer_sizes": [5], "dtype": "float64"},
        "training": {"schedule": "incremental", "max_sweeps": 2},
        "cluster": {"workers": 2},
        "output": {"report": False},
    }
    for name, table in tables.items():
        settings.setdefault(name, {}).update(table)
    lines = []
    for name, table in settings.items():
        lines += [
            f"[{name}]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()),
        ]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def foreign(
    folder: Path, x: np.ndarray, y: np.ndarray | None = None, chunk_rows: int = 16, y_rows: int | None = None
) -> Path:
    """A zarr store as another program would write it."""
    group = zarr.create_group(folder)
    group.create_array("x", data=x, chunks=(chunk_rows, *x.shape[1:]))
    if y is not None:
        group.create_array("y", data=y, chunks=(y_rows or chunk_rows, *y.shape[1:]))
    return folder


def refused(outcome: Outcome, message: str, code: int = 2) -> None:
    assert outcome.code == code, outcome
    assert outcome.err.startswith("altmin: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    assert message in outcome.err, outcome.err
