"""Runs that a dashboard shows, and what it knows of them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from distributed import Client, LocalCluster

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.storage.run import RunFolder


def pipeline(title: str = "digits", **training: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "data": {"train": "digits:train", "validation": "digits:test", "scale": 16.0},
            "network": {"kind": "autoencoder", "hidden_layer_sizes": [16]},
            "training": {"schedule": "incremental", "max_sweeps": 2.0, "n_iter_no_change": None, **training},
            "output": {"title": title},
        }
    )


def train(made: Pipeline, folder: Path, client: Client | None, **options: Any) -> list[str]:
    lines: list[str] = []
    runs.train(made, RunFolder(folder), scheduler=client, log=lines.append, **options)
    return lines


def on_board(client: Client, folder: Path) -> Any:
    """What a scheduler knows of a run."""

    def get(dask_scheduler: Any) -> Any:
        states = dask_scheduler.plugins["altmin-dashboard"].board.runs.values()
        (state,) = [state for state in states if str(folder) in state.run]
        return {name: value for name, value in vars(state).items() if name != "marks"}

    return SimpleNamespace(**client.run_on_scheduler(get))


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        page: str = answer.read().decode()
    return page


def two_workers() -> Iterator[Client]:
    """A client of a cluster of two processes, to make a fixture of."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def message(kind: str, run: str = "r", **content: Any) -> dict[str, Any]:
    return {"run": run, "kind": kind, **content}


def begin(run: str = "r", records: Any = ()) -> dict[str, Any]:
    return message("begin", run, title=run, description="", plan={}, span="", rows=100, records=list(records))
