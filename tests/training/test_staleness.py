"""Steps taken as groups finish: every group once a pass, bounded staleness, nothing left behind."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command import refused, write_pipeline
from dask.base import persist
from training_runs import train

from altmin_dask.errors import ChunkError
from altmin_dask.execution import tasks
from altmin_dask.execution.executor import Submission
from altmin_dask.execution.threads import Threads, _blocks
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.kfac_training import KFACTraining

STALE = {"schedule": "kfac", "group_chunks": 1, "max_sweeps": 6.0, "max_staleness": 3}


@pytest.fixture
def store(samples, make_store):
    return make_store(samples, np.arange(200) % 3)


def stale(pipeline, path, **training):
    return pipeline(path, solver={"mu": "auto"}, training={**STALE, **training}, cluster={"workers": 2})


@pytest.mark.slow
@pytest.mark.parametrize("place", ["threads", "cluster"])
def test_every_group_takes_part_once_a_pass(place, store, pipeline, tmp_path, monkeypatch, cluster_address):
    begun: list[tuple[int, ...]] = []
    depth = []
    begin, finish = KFACTraining._begin, KFACTraining._finish

    def beginning(self, action, cursor):
        begun.append(self.groups[action.group])
        return begin(self, action, cursor)

    def finishing(self, pending, packed):
        depth.append(len(self.in_flight))
        return finish(self, pending, packed)

    monkeypatch.setattr(KFACTraining, "_begin", beginning)
    monkeypatch.setattr(KFACTraining, "_finish", finishing)
    options = {} if place == "threads" else {"scheduler": cluster_address}
    _, state, records = train(stale(pipeline, store.path), tmp_path / "run", **options)
    assert set(Counter(begun).values()) == {6}
    assert state.visits == 6 * 200
    assert state.algorithm_state.kfac_state.steps == 6 * 7
    assert max(depth) == 3  # others under way when a step is taken
    assert records[-1].nested_loss < 0.8 * records[0].nested_loss
    assert records[-1].sweep == 6


def test_a_run_is_resumed_where_it_was_committed(store, pipeline, tmp_path):
    train(stale(pipeline, store.path, max_sweeps=2.0), tmp_path / "run")
    _, state, records = train(stale(pipeline, store.path), tmp_path / "run", resume=True)
    assert state.visits == 6 * 200
    assert [r.sweep for r in records] == sorted({r.sweep for r in records})


@pytest.mark.slow
def test_a_group_that_all_others_overtake_still_reads_its_weights(
    samples, make_store, pipeline, tmp_path, monkeypatch
):
    """As of a slow worker: what was sent out last is done first, as long as there is anything else."""
    waited = []

    def submit(self, collection, *kept):
        found = []

        def blocks():
            found.extend(persist(collection, *kept, scheduler="sync"))
            return _blocks(found[0])

        return Submission(blocks, lambda: tuple(found[1:]))

    def first(self, submissions):
        waited.append(len(submissions))
        return len(submissions) - 1, submissions[-1].done()

    monkeypatch.setattr(Threads, "submit", submit)
    monkeypatch.setattr(Threads, "first", first)
    monkeypatch.setattr(Threads, "cancel", lambda self, submissions: None)
    store = make_store(samples, np.arange(200) % 3, chunk_rows=5)
    # records wait for all groups
    settings = stale(pipeline, store.path, max_staleness=1, max_sweeps=1.0, evaluation_share=0.01)
    _, state, _ = train(settings, tmp_path / "run")
    assert state.visits == 200
    assert waited.count(2) > 4 * waited.count(1)


def test_nothing_runs_on_after_an_error(store, pipeline, tmp_path, monkeypatch):
    running, calls = [], Counter()
    original = tasks.kfac_chunk

    def failing(*arguments):
        calls["all"] += 1
        running.append(1)
        try:
            if calls["all"] == 9:
                raise ChunkError("x", 0, "is broken")
            return original(*arguments)
        finally:
            running.pop()

    monkeypatch.setattr(tasks, "kfac_chunk", failing)
    with pytest.raises(ChunkError, match="is broken"):
        train(stale(pipeline, store.path), tmp_path / "run")
    assert not running
    seen = calls["all"]
    time.sleep(0.3)
    assert calls["all"] == seen
    assert RunFolder(tmp_path / "run").started


def test_other_schedules_wait_for_every_group(altmin, store):
    file = write_pipeline(Path("p.toml"), store.path)
    refused(
        altmin("train", file, "--set", "training.max_staleness=2"),
        "altmin: p.toml: training.max_staleness is for K-FAC steps; training.schedule = 'incremental' waits for every "
        "group",
    )
