"""A record is the same when it is read as when it was written, whoever wrote it."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmin_dask.errors import DataError
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import (
    BY_LAYER,
    NAMES,
    Metrics,
    Record,
    lightened,
    lists,
    read_records,
    single_numbers,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
LAYERS = st.none() | st.lists(NUMBERS, min_size=1).map(tuple)
KNOWN = ("sweep", "cpu_seconds", "wall_seconds", "nested_loss", "regularized_loss")


def strategy(name: str) -> st.SearchStrategy:
    return LAYERS if name in BY_LAYER else NUMBERS if name in KNOWN else st.none() | NUMBERS


@given(st.fixed_dictionaries({name: strategy(name) for name in NAMES}))
def test_round_trip(values):
    record = Record(**values)
    assert Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False))) == record
    assert list(record.to_dict()) == list(NAMES)


def test_the_keys_are_those_of_the_history():
    assert set(NAMES) == {field.name for field in fields(Record)}
    assert NAMES[:3] == ("sweep", "cpu_seconds", "wall_seconds")
    assert {field.name for field in fields(Metrics)} < set(NAMES)


def test_other_versions(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.append({"sweep": 0.5, "nested_loss": None, "mu": [1.0, None], "rho": 3.0, "of a later version": [1]})
    (record,) = read_records(run)
    assert (record.sweep, record.rho, record.validation_loss) == (0.5, None, None)
    assert math.isnan(record.nested_loss)
    assert record.mu is not None
    assert record.mu[0] == 1.0
    assert math.isnan(record.mu[1])


@pytest.mark.parametrize("values", [{"nested_loss": 1.0}, {"sweep": 1.0, "mu": [[1]]}])
def test_what_is_no_record(tmp_path, values):
    run = RunFolder(tmp_path)
    run.append(values)
    with pytest.raises(DataError, match=r"history\.jsonl is damaged"):
        read_records(run)


def test_what_each_class_target_or_feature_has():
    per_class = [{"class": name, "recall": recall} for name, recall in (("a", 0.5), ("b", None))]
    assert lists({"accuracy": 0.5, "per_class": per_class}, 2) == {"class": ["a", "b"], "recall": [0.5, None]}
    assert lists({"per_class": per_class}, 1) is None
    by_output = [{"output": k, "r2": 0.1 * k} for k in range(3)]
    assert lists({"r2": 0.1, "by_output": by_output}, 100) == {"output": [0, 1, 2], "r2": [0.0, 0.1, 0.2]}
    by_feature = {"names": None, "mse": [1.0, 4.0], "rmse": [1.0, 2.0]}
    assert lists({"by_feature": by_feature}, 100) == {
        "feature": [0, 1],
        "mse": [1.0, 4.0],
        "rmse": [1.0, 2.0],
    }
    assert lists({"by_feature": {**by_feature, "names": ("p", "q")}}, 2)["feature"] == ["p", "q"]
    for none in ({}, {"r2": 0.5}, {"mse": None, "by_feature": None}):
        assert lists(none, 100) is None
    assert single_numbers({"accuracy": 1.0, "roc_auc": None, "confusion_matrix": None}) == {"roc_auc": None}


def test_a_long_history_is_told_without_the_lists_that_nobody_looks_at():
    def record(sweep: int, loss: float) -> Record:
        return Record(sweep=sweep, validation_loss=loss, validation_each={"recall": [0.5] * 100})

    losses = [3.0, 1.0, *np.linspace(1.5, 2.5, 600).tolist()]
    records = [record(k, loss) for k, loss in enumerate(losses)]
    assert lightened(records[:500]) == records[:500]
    told: list[Record] = []
    for each in records:  # as they come, and all at once
        told = lightened([*told, each])
    assert told == lightened(records)
    assert [each.sweep for each in told if each.validation_each] == [1, 601]
    assert [each.validation_loss for each in told] == losses
    assert lightened([]) == []
