"""Times of several zones within a column, or of others than those for training, are told with counts."""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta, timezone

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from altmin_dask.data.formats import csv as csv_files
from altmin_dask.data.formats.base import SourceOptions
from altmin_dask.data.formats.tables import table_source
from altmin_dask.data.open import open_source
from altmin_dask.data.tables.checking import prepared_rows
from altmin_dask.data.tables.zones import zones_of
from altmin_dask.errors import AltMinWarning
from altmin_dask.preparation import Preparation

EAST, ZULU, NAIVE = "2024-03-01T06:00:00+01:00", "2024-03-01T06:00:00Z", "2024-03-01 06:00"
INDIAN = ZULU.replace("Z", "+05:30")
SUMMER = "2024-07-01T06:00:00+02:00"
OFFSETS = ["2024-03-01T06:00:00+0100", "2024-03-01T06:00+01", "2024-03-01T06:00:00.5+01:00"]
DAY = 19783


def written(path, moments):
    path.write_text("\n".join(["a", *moments]) + "\n")
    return path


def told(opened, *words, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AltMinWarning)
        found = opened(*words, **options)
    return [str(each.message) for each in caught], found


@pytest.mark.parametrize(
    ("moments", "words", "hours"),
    [
        (
            [INDIAN, INDIAN, ZULU],
            "+05:30 in 2 rows, UTC in 1 row: all are converted to UTC; if",
            [0.5, 0.5, 6],
        ),
        (
            [NAIVE, EAST, NAIVE, ZULU],
            "without a zone in 2 rows, +01:00 in 1 row, UTC in 1 row: all are converted to UTC, and those without a "
            "zone are taken for UTC; if",
            [6, 5, 6, 6],
        ),
        (["2024-03-01", ZULU], "without a zone in 1 row, UTC in 1 row", [0, 6]),
    ],
)
def test_several_zones_in_a_column_are_told(tmp_path, moments, words, hours):
    found, source = told(open_source, written(tmp_path / "t.csv", moments))
    assert len(found) == 1
    assert f"times of several zones in the column 'a', {words}" in found[0]
    np.testing.assert_allclose(next(source.blocks(9))[0][:, 0], DAY + np.array(hours) / 24, rtol=1e-12)


@pytest.mark.parametrize(
    "moments",
    [
        OFFSETS,
        [ZULU, EAST.replace("+01", "+00")],
        [NAIVE, "2024-03-01"],
        [ZULU, ""],
        [EAST, SUMMER, EAST],
    ],
)
def test_one_zone_needs_no_words(tmp_path, moments):
    path = written(tmp_path / "t.csv", moments)
    assert told(open_source, path, missing="mean")[0] == []


def test_zones_that_are_written_otherwise_are_one():
    moments = pd.Series(pd.to_datetime([EAST, EAST], utc=True))
    offset = moments.dt.tz_convert("+01:00")  # which pandas calls UTC+01:00
    assert (
        zones_of(offset)
        == zones_of(offset.astype(object))
        == zones_of(pd.Series(OFFSETS[:2]))
        == {"+01:00": 2}
    )
    assert zones_of(moments) == zones_of(pd.Series([ZULU, ZULU.replace("Z", "-00:00")])) == {"UTC": 2}


def test_zones_of_all_blocks_and_files_count(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 500)
    monkeypatch.setattr(csv_files, "_LEAST", 10)
    (tmp_path / "t").mkdir()
    written(tmp_path / "t" / "1.csv", [EAST] * 300)
    written(tmp_path / "t" / "2.csv", [NAIVE] * 200 + [ZULU] * 7)
    (message,) = told(open_source, tmp_path / "t")[0]
    assert "+01:00 in 300 rows, without a zone in 200 rows, UTC in 7 rows" in message


def test_parquet_files_and_objects_in_several_zones(tmp_path):
    moments = pd.to_datetime(pd.Series(["2024-03-01 06:00"] * 3))
    (tmp_path / "t").mkdir()
    pd.DataFrame({"a": moments}).to_parquet(tmp_path / "t" / "1.parquet")
    pd.DataFrame({"a": moments.dt.tz_localize("Europe/Oslo")}).to_parquet(tmp_path / "t" / "2.parquet")
    (message,) = told(open_source, tmp_path / "t")[0]
    assert "without a zone in 3 rows, Europe/Oslo in 3 rows" in message
    east = datetime(2024, 3, 1, 6, tzinfo=timezone(timedelta(hours=1)))
    values = np.array([datetime(2024, 3, 1, 6), east, east], object)
    frame = dd.from_pandas(pd.DataFrame({"a": pd.Series(values, dtype=object)}), npartitions=1)
    (message,) = told(table_source, "the frame", frame, SourceOptions())[0]
    assert "+01:00 in 2 rows, without a zone in 1 row" in message


@pytest.mark.parametrize(
    ("before", "later", "words"),
    [
        (
            NAIVE,
            EAST,
            "+01:00 in 2 rows, and in the data for training none had one: these are converted to UTC",
        ),
        (
            EAST,
            NAIVE,
            "without a zone in 2 rows, and in the data for training all had a zone: these are taken for UTC",
        ),
        (EAST, ZULU, None),
        (NAIVE, "2024-03-02", None),
    ],
)
def test_other_zones_than_in_training_are_told(tmp_path, before, later, words):
    how = open_source(written(tmp_path / "t.csv", [before] * 3)).preparation
    how = Preparation.from_json(how.to_json())
    found, _ = told(open_source, written(tmp_path / "later.csv", [later] * 2), like=how)
    assert len(found) == (words is not None)
    frame = pd.DataFrame({"a": [later] * 2})
    assert [each.replace("the table", "") for each in told(prepared_rows, frame, how)[0]] == [
        each.replace(str(tmp_path / "later.csv"), "") for each in found
    ]
    if words is not None:
        assert f"times in the column 'a', {words}; write them as there" in found[0]


def test_models_of_before_say_nothing_of_zones(tmp_path):
    how = open_source(written(tmp_path / "t.csv", [EAST] * 3)).preparation
    content = how.to_json()
    assert content["columns"][0].pop("zoned") is True
    before = Preparation.from_json(content)
    assert before == how
    assert told(open_source, written(tmp_path / "later.csv", [NAIVE] * 2), like=before)[0] == []
