"""A scheduler's memory does not grow with the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboards import on_board, pipeline, train
from distributed import Client, LocalCluster

from altmin_dask.dashboard import plugin, publisher
from altmin_dask.training.context import _span_of


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def kept(client: Client, folder: Path) -> dict[str, int]:
    """How much of a run there is on its scheduler."""
    name = on_board(client, folder).span

    def count(dask_scheduler: Any) -> dict[str, int]:
        spans = dask_scheduler.extensions["spans"]
        parts = [part for found in spans.spans_search_by_name[name,] for part in found.traverse_spans()]
        return {
            "groups": len(dask_scheduler.task_groups),
            "spans": len(parts),
            "groups of spans": sum(len(part.groups) for part in parts),
            "kinds": sum(len({group.prefix.name for group in part.groups}) for part in parts),
            "notes": max(len(part._metadata["collections"]) for part in parts if part._metadata),
            "tasks": sum(len(group) for part in parts for group in part.groups),
        }

    found: dict[str, int] = client.run_on_scheduler(count)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sweeps", [2, 250])
def test_what_the_scheduler_keeps_does_not_grow_with_the_steps(sweeps, client, tmp_path, monkeypatch):
    """Eight steps a sweep."""
    monkeypatch.setattr(publisher, "TELL_SECONDS", 0.0)
    train(pipeline(schedule="kfac", group_chunks=1, max_sweeps=float(sweeps)), tmp_path, client)
    found = kept(client, tmp_path)
    assert found["groups"] <= 2  # none of the run's
    assert found["spans"] <= min(sweeps, 10) + 8
    assert found["groups of spans"] == found["kinds"] <= 14 * found["spans"]
    assert found["notes"] <= plugin.KEPT_NOTES + 30
    assert found["tasks"] >= 2 * 8 * sweeps, "all of them count still"


def test_spans_of_sweeps_become_longer():
    assert [_span_of(sweep) for sweep in (0, 1, 10)] == ["sweep 0", "sweep 1", "sweep 10"]
    assert {_span_of(sweep) for sweep in range(11, 21)} == {"sweeps 11-20"}
    assert {_span_of(sweep) for sweep in range(21, 41)} == {"sweeps 21-40"}
    assert len({_span_of(sweep) for sweep in range(100_000)}) == 11 + 14
