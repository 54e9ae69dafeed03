"""What every registered algorithm promises: a new one is tested by its entry in `ALGORITHMS`."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import numpy as np
import pytest
from choices import slow_but

from altmin_dask import runs
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.execution.connect import open_executor
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.weights import read_weights
from altmin_dask.training import trainer
from altmin_dask.training.algorithm import advance
from altmin_dask.training.algorithms import ALGORITHMS, STATES, restore
from altmin_dask.training.context import RunContext
from altmin_dask.training.initialization import initial_weights
from altmin_dask.training.problem import build_problem
from altmin_dask.training.record import Metrics, read_records

every_schedule = pytest.mark.parametrize("schedule", ALGORITHMS)
SMALL = {
    "group_chunks": 2,
    "max_sweeps": 2.0,
    "window_passes": 1,
    "first_window": 2,
    "n_iter_no_change": None,
}


class Cut(Exception):
    """In place of a kill."""


@pytest.fixture
def settings(samples, make_store, pipeline):
    store = make_store(samples)

    def make(schedule: str) -> Any:
        return pipeline(store.path, training={**SMALL, "schedule": schedule}, cluster={"workers": 1})

    return make


@pytest.fixture
def algorithm(settings, tmp_path):
    """One that has its first state, committed, and its context."""
    with open_executor(settings("auto").cluster) as executor:

        def make(schedule: str) -> Any:
            wanted, run = settings(schedule), RunFolder(tmp_path / "run")
            run.manifest.write(wanted.model_dump(mode="json"), wanted.identity())
            problem = build_problem(wanted, SampleStore.open(wanted.data.train), None, executor)
            context = RunContext(wanted, problem, run, executor)
            made = ALGORITHMS[schedule](context)
            made.init(initial_weights)
            made.committed(context.commit(made.state))
            return made, context

        yield make


def train(wanted: Any, folder: Any, **options: Any) -> RunFolder:
    run = RunFolder(folder)
    runs.train(wanted, run, log=lambda line: None, **options)
    return run


def same(first: RunFolder, second: RunFolder) -> None:
    """All that two runs have committed, and recorded, but for times."""
    ours, theirs = restore(first), restore(second)
    assert ours is not None
    assert theirs is not None
    assert ours.to_tensors().keys() == theirs.to_tensors().keys()
    for name, array in ours.to_tensors().items():
        assert np.array_equal(array, theirs.to_tensors()[name]), name
    assert ours.to_scalars()["algorithm"] == theirs.to_scalars()["algorithm"]
    assert (ours.visits, ours.cursor) == (theirs.visits, theirs.cursor)
    losses = [
        {(r.sweep, r.nested_loss, r.relaxed_objective) for r in read_records(run)} for run in (first, second)
    ]
    assert losses[0] <= losses[1]  # where a run is cut, one may be made that the other has not


@pytest.mark.slow
@pytest.mark.parametrize("schedule", slow_but(["kfac", "batch"], ALGORITHMS))
def test_it_goes_on_from_wherever_it_was_cut_off_with_the_same_bits(
    schedule, settings, tmp_path, monkeypatch
):
    """Before and after every action, with all that no commit knows of left behind."""
    monkeypatch.setattr(trainer, "COMMIT_SECONDS", 1e9)  # much is lost where steps need no commit
    whole, kind, step = (
        train(settings(schedule), tmp_path / "whole"),
        ALGORITHMS[schedule],
        ALGORITHMS[schedule].step,
    )
    checkpoint = restore(whole)
    assert checkpoint is not None
    assert checkpoint.cursor > 5
    cuts = 0
    for cursor in range(checkpoint.cursor):
        for when in ("before", "after"):

            def cut(self, action, at, cursor=cursor, when=when):
                if at == cursor and when == "before":
                    raise Cut
                visits = step(self, action, at)
                if at == cursor:
                    raise Cut
                return visits

            folder = tmp_path / f"{cursor} {when}"
            with monkeypatch.context() as patch:
                patch.setattr(kind, "step", cut)
                try:
                    train(settings(schedule), folder)
                except Cut:
                    cuts += 1
            same(whole, train(settings(schedule), folder, resume=True))
    assert cuts > 5


@pytest.mark.parametrize("schedule", slow_but(["kfac"], ALGORITHMS))
def test_threads_and_cluster_give_the_same_bits_however_it_is_stopped(
    schedule, settings, tmp_path, cluster_address
):
    whole, wanted = train(settings(schedule), tmp_path / "whole"), settings(schedule)
    half = wanted.model_copy(update={"training": wanted.training.model_copy(update={"max_sweeps": 0.9})})
    train(half, tmp_path / "cluster", scheduler=cluster_address)
    same(whole, train(wanted, tmp_path / "cluster", scheduler=cluster_address, resume=True))


@every_schedule
def test_its_state_comes_back(schedule, algorithm):
    made, context = algorithm(schedule)
    kind = made.state_type
    assert STATES[kind.name] is kind
    for action in islice((a for a in made.actions() if a.kind != "record"), 4):
        advance(context, made, action)
        made.drain()
        made.committed(context.commit(made.state))
        tensors, scalars = made.state.to_tensors(), json.loads(json.dumps(made.state.to_scalars()))
        back = kind.restore(tensors, scalars)
        assert back.to_scalars() == scalars
        assert all(np.array_equal(back.to_tensors()[name], array) for name, array in tensors.items())
        assert [w.shape for w in back.weights] == list(context.network.shapes)


@every_schedule
def test_what_it_says_of_itself(schedule, algorithm):
    made, context = algorithm(schedule)
    chunks = sorted(chunk for group in made.groups for chunk in group.chunks)
    assert chunks == list(range(context.problem.train.store.n_chunks))
    assert made.samples_in_sum == 0
    assert not made.converged
    visits = 0
    for action in islice((a for a in made.actions() if a.kind != "record"), 6):
        visits += advance(context, made, action)
        context.checkpoint.visits += made.drain()
        made.committed(context.commit(made.state))
    assert made.pending_samples == 0
    assert context.checkpoint.visits >= visits > 0
    assert 0 < made.samples_in_sum <= context.rows
    assert 1 <= made.group_count <= len(made.groups)
    assert np.isfinite(made.objective)
    assert isinstance(made.metrics, Metrics)
    assert made.metrics.samples_in_sum == made.samples_in_sum
    assert all(map(np.array_equal, read_weights(made.publish()), made.weights))


@every_schedule
def test_actions_are_the_same_every_time(schedule, algorithm):
    made, _ = algorithm(schedule)
    assert list(islice(made.actions(), 40)) == list(islice(made.actions(), 40))
    assert next(made.actions()).kind == "record"
