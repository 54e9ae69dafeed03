"""Whoever watches a training sees what is committed, in order, and is told of its end."""

from __future__ import annotations

from typing import Any

import pytest
from choices import taking_turns
from training_runs import train

from altmin_dask.training.callbacks import Callback
from altmin_dask.training.record import Record, read_records


class Watching(Callback):
    """Keeps what the history says at the start, and what it is told."""

    def __init__(self) -> None:
        self.found: list[Record] = []
        self.told: list[Record] = []
        self.reasons: list[str] = []

    def on_start(self, context: Any) -> None:
        self.found = read_records(context.run)

    def on_record(self, record: Record) -> None:
        self.told.append(record)

    def on_end(self, outcome: Any) -> None:
        self.reasons.append(outcome.reason)


@pytest.mark.parametrize(
    ("schedule", "left"), taking_turns(["kfac", "incremental"], ["a record", "half a record"])
)
def test_what_a_kill_left_of_a_record_is_gone_when_training_goes_on(
    schedule, left, samples, make_store, pipeline, tmp_path
):
    """A process may be killed between a record and its commit: the record is made once more."""
    store, sweeps = make_store(samples), {"schedule": schedule, "max_sweeps": 2.0, "n_iter_no_change": None}
    settings = pipeline(store.path, training=sweeps, solver={"mu": "auto"})
    run, _, records = train(settings, tmp_path / "run")
    line = run.history.read_bytes().splitlines(keepends=True)[-1]
    with run.history.open("ab") as file:
        file.write(line if left == "a record" else line[: len(line) // 2])
    watching = Watching()
    longer = pipeline(store.path, training={**sweeps, "max_sweeps": 4.0}, solver={"mu": "auto"})
    _, _, all_records = train(longer, tmp_path / "run", resume=True, callbacks=[watching])
    assert watching.found == records
    assert [*watching.found, *watching.told] == all_records == read_records(run)
    assert len(watching.reasons) == 1
