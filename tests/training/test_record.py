"""A record is the same when it is read as when it was written, whoever wrote it."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmin_dask.errors import DataError
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import BY_LAYER, NAMES, Metrics, Record, read_records

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
